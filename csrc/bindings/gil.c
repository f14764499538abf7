// Takes the GIL back after a kernel. Called by arguments.h.
//
// If the interpreter was finalised meanwhile, Python before 3.14 ends the thread with pthread_exit(), which unwinds its
// stack and would terminate the process at the first C++ frame. The cleanup handler here runs before the unwinding and
// blocks the thread for ever, as Python 3.14 does itself; the process exits without waiting for the thread. This is C,
// not C++, because a cleanup handler in C runs whichever unwinder the C++ runtime was linked to.
//
// On Windows there is nothing to prevent: Python ends the thread with _endthreadex(), which unwinds nothing.
#include <Python.h>

#if defined(_WIN32)

void srcell_restore_gil(PyThreadState* state) { PyEval_RestoreThread(state); }

#else
#include <pthread.h>
#include <unistd.h>

static void stop(void* unused) {
    (void)unused;
    for (;;) pause();
}

void srcell_restore_gil(PyThreadState* state) {
    pthread_cleanup_push(stop, NULL);
    PyEval_RestoreThread(state);
    pthread_cleanup_pop(0);
}

#endif
