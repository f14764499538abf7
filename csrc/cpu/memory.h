// Memory for large outputs. First touch of fresh pages costs more than a forward pass over them, so blocks are made of
// huge pages and kept after use. Only the bindings call this; kernels never allocate.
#pragma once

#include <cstddef>

namespace srcell {

// At least `bytes` of uninitialised memory, aligned to a huge page, or null. Give it back with release_block(), with
// the same `bytes`, from any thread.
void* acquire_block(size_t bytes);
void release_block(void* block, size_t bytes);

// Bytes that wait for reuse, at most kMaxCachedBytes. All but the kMaxHotBytes released last are offered to the kernel
// (MADV_FREE): they count as resident, but are its to take when it needs memory. Offering costs 0.15 ms for 22 MB, too
// much for what the next call takes again.
size_t cached_bytes();
constexpr size_t kMaxCachedBytes = size_t(1) << 30;
constexpr size_t kMaxHotBytes = size_t(256) << 20;

}  // namespace srcell
