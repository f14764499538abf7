// The memory of platform.h with mmap(), on Linux in huge pages.
#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>

#include "aligned.h"
#include "platform.h"

namespace srcell {

void* map_pages(size_t bytes) {
    const size_t mapped = bytes + kPage;
    void* start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return nullptr;
    const uintptr_t first = reinterpret_cast<uintptr_t>(start), aligned = (first + kPage - 1) / kPage * kPage;
    if (aligned > first) munmap(start, aligned - first);
    if (aligned + bytes < first + mapped)
        munmap(reinterpret_cast<void*>(aligned + bytes), first + mapped - aligned - bytes);
    void* pages = reinterpret_cast<void*>(aligned);
#if defined(MADV_HUGEPAGE)
    madvise(pages, bytes, MADV_HUGEPAGE);
#endif
    return pages;
}

void unmap_pages(void* pages, size_t bytes) { munmap(pages, bytes); }

void lend_pages(void* pages, size_t bytes) { madvise(pages, bytes, MADV_FREE); }

void* allocate_aligned(size_t alignment, size_t bytes) { return std::aligned_alloc(alignment, bytes); }

void free_aligned(void* memory) { std::free(memory); }

}  // namespace srcell
