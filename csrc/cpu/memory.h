// Memory for large outputs. First touch of fresh pages costs more than a forward pass over them, so blocks are made of
// huge pages and kept after use. Only the bindings call this; kernels never allocate.
#pragma once

#include <cstddef>

namespace srcell {

// At least `bytes` of uninitialised memory, aligned to a huge page, or null. Give it back with release_block(), with
// the same `bytes`, from any thread.
void* acquire_block(size_t bytes);
void release_block(void* block, size_t bytes);

// Bytes that wait for reuse. The kernel may take them back at any time (MADV_FREE): they count as resident, but cost
// nobody anything. There are at most kMaxCachedBytes.
size_t cached_bytes();
constexpr size_t kMaxCachedBytes = size_t(1) << 30;

}  // namespace srcell
