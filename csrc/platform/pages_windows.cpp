// The memory of platform.h on Windows.
#include <malloc.h>
#include <windows.h>

#include "aligned.h"
#include "platform.h"

namespace srcell {

void* map_pages(size_t bytes) { return VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE); }

void unmap_pages(void* pages, size_t) { VirtualFree(pages, 0, MEM_RELEASE); }

void lend_pages(void* pages, size_t bytes) { VirtualAlloc(pages, bytes, MEM_RESET, PAGE_READWRITE); }

void* allocate_aligned(size_t alignment, size_t bytes) { return _aligned_malloc(bytes, alignment); }

void free_aligned(void* memory) { _aligned_free(memory); }

}  // namespace srcell
