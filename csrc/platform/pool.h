// Threads of our own, where no OpenMP runtime is there to lend any. Knows no kernel.
#pragma once

namespace srcell {

// run_on_threads() of platform.h on threads that are started when they are first wanted and then wait for work.
void run_on_pool(int threads, void (*work)(void* data), void* data);

// In a forked child, which has none of its parent's threads: forgets them.
void forget_pool();

}  // namespace srcell
