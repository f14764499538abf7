// The threads of platform.h on systems where we look for no OpenMP runtime, from our own pool.
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "platform.h"
#include "pool.h"

namespace srcell {

void run_on_threads(int threads, void (*work)(void*), void* data) {
#if !defined(_WIN32)
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    (void)registered;
#endif
    run_on_pool(threads, work, data);
}

const char* thread_runtime() { return "std"; }

}  // namespace srcell
