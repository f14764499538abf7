// The threads of platform.h on systems where we look for no OpenMP runtime, from our own pool.
#include "platform.h"
#include "pool.h"

namespace srcell {

void run_on_threads(int threads, void (*work)(void*), void* data) { run_on_pool(threads, work, data); }

void find_threads() {}

const char* thread_runtime() { return "std"; }

}  // namespace srcell
