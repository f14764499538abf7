// Splits work over threads, and lets its parts report the lowest failing item. Kernels call it; it knows nothing about
// their data.
#pragma once

#include <atomic>
#include <cstdint>

namespace srcell {

// Calls work(context, begin, end) on ranges that together cover [0, items) once, on at most `threads` threads, and
// returns when all are done. Which thread takes which range is not specified, so results must not depend on it.
// `work` must not throw. Threads other than the caller's get plain arithmetic (float_control.h). platform/platform.h
// says which threads these are.
void parallel_for(int64_t items, int threads, void (*work)(void* context, int64_t begin, int64_t end), void* context);

// Atomically, lowest = min(lowest, candidate).
void keep_lowest(std::atomic<int64_t>& lowest, int64_t candidate);

}  // namespace srcell
