// Taking the GIL back, in C: before 3.14 Python ends a thread that comes back to an ended interpreter by unwinding it,
// and no frame of C++ may be met on that way. Here such a thread stops for good instead, as later versions do
// themselves, and the process ends without it. Called by arguments.h; a handler in C is reached whatever unwinder C++
// was linked to.
#include <Python.h>
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
