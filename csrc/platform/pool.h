// Our own threads, used where no OpenMP runtime can lend any. Knows nothing about kernels.
#pragma once

namespace srcell {

// run_on_threads() of platform.h on threads that start when they are first needed and then wait for work.
void run_on_pool(int threads, void (*work)(void* data), void* data);

}  // namespace srcell
