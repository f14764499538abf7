// Memory for large outputs and scratch: whole pages of the system (platform/platform.h), cached after use. Only the
// bindings and the runtime call this; kernels write to the memory they are given, and those of recurrent weights and of
// delays allocate each thread's scratch with the C library.
#pragma once

#include <cstddef>

namespace srcell {

// At least `bytes` bytes of uninitialised memory, aligned to a page (on Linux a huge one, 2 MiB), or null on failure.
// Release it with release_block(), with the same `bytes`, from any thread.
void* acquire_block(size_t bytes);
void release_block(void* block, size_t bytes);

// Bytes cached for reuse, at most kMaxCachedBytes. All but the kMaxHotBytes released last are lent to the system: lent
// bytes count as resident until the system needs memory and takes their pages. Lending costs 0.15 ms for 22 MB, too
// much for blocks that the next call reuses.
size_t cached_bytes();
constexpr size_t kMaxCachedBytes = size_t(1) << 30;
constexpr size_t kMaxHotBytes = size_t(256) << 20;

}  // namespace srcell
