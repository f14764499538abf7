// What Python's headers must know of macOS and Windows on processors of 64 bits, for tools/check_systems.sh: the
// pyconfig.h of the Python that runs here is about Linux.
#pragma once

#define SIZEOF_INT 4
#define SIZEOF_LONG_LONG 8
#define SIZEOF_PID_T 4
#define SIZEOF_SIZE_T 8
#define SIZEOF_VOID_P 8
#define HAVE_SSIZE_T 1
#define HAVE_SYS_TYPES_H 1
#define HAVE_WCHAR_H 1

#if defined(_WIN32)
#define MS_WINDOWS
#define MS_WIN64
#define NT_THREADS
#define HAVE_DECLSPEC_DLL
#define Py_ENABLE_SHARED
#define SIZEOF_LONG 4
#define SIZEOF_WCHAR_T 2
#else
#define HAVE_SYS_TIME_H 1
#define HAVE_PTHREAD_H 1
#define SIZEOF_LONG 8
#define SIZEOF_WCHAR_T 4
#endif
