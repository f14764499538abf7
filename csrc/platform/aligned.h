// Aligned memory from the C library, in a header of its own because kernels include no more of the standard library
// than they need.
#pragma once

#include <cstddef>

namespace srcell {

// Allocates `bytes`, a multiple of the alignment; returns null on failure.
void* allocate_aligned(size_t alignment, size_t bytes);
void free_aligned(void* memory);

}  // namespace srcell
