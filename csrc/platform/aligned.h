// Aligned memory of the C library; a header of its own, for kernels include no more of the standard library than they
// need.
#pragma once

#include <cstddef>

namespace srcell {

// `bytes`, a multiple of the alignment, or null.
void* allocate_aligned(size_t alignment, size_t bytes);
void free_aligned(void* memory);

}  // namespace srcell
