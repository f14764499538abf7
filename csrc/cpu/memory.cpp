// The cache of memory.h: mmap() with huge pages, behind a mutex. Knows nothing of what the memory is for.
#include "memory.h"

#include <sys/mman.h>

#include <cstdint>
#include <mutex>
#include <vector>

namespace srcell {
namespace {

constexpr size_t kHugePage = size_t(2) << 20;

struct Block {
    void* address;
    size_t size;
    bool hot;  // not marked with MADV_FREE yet
};

struct Cache {
    std::mutex mutex;
    std::vector<Block> blocks;  // in the order of their release
    size_t bytes = 0, hot_bytes = 0;

    Block take(size_t k) {
        const Block block = blocks[k];
        blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(k));
        bytes -= block.size;
        if (block.hot) hot_bytes -= block.size;
        return block;
    }

    void put(void* address, size_t size) {
        while (bytes + size > kMaxCachedBytes) {
            const Block oldest = take(0);
            munmap(oldest.address, oldest.size);
        }
        blocks.push_back({address, size, true});
        bytes += size;
        hot_bytes += size;
        for (size_t k = 0; hot_bytes > kMaxHotBytes; ++k) {
            Block& block = blocks[k];
            if (!block.hot) continue;
            madvise(block.address, block.size, MADV_FREE);
            block.hot = false;
            hot_bytes -= block.size;
        }
    }
};

// Never destroyed: tensors may outlive static objects.
Cache& cache() {
    static Cache* const instance = new Cache;
    return *instance;
}

size_t whole_pages(size_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

void* map_block(size_t size) {
    const size_t mapped = size + kHugePage;
    void* start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return nullptr;
    const uintptr_t first = reinterpret_cast<uintptr_t>(start);
    const uintptr_t aligned = whole_pages(first);
    if (aligned > first) munmap(start, aligned - first);
    if (aligned + size < first + mapped)
        munmap(reinterpret_cast<void*>(aligned + size), first + mapped - aligned - size);
    void* block = reinterpret_cast<void*>(aligned);
    madvise(block, size, MADV_HUGEPAGE);
    return block;
}

}  // namespace

// The lock is only tried: after a fork it may be held by a thread that the child does not have. If it is held, memory
// comes from the system, and goes back to it, directly.
void* acquire_block(size_t bytes) {
    const size_t size = whole_pages(bytes);
    Cache& c = cache();
    if (std::unique_lock<std::mutex> lock(c.mutex, std::try_to_lock); lock) {
        for (size_t k = c.blocks.size(); k-- > 0;)
            if (c.blocks[k].size == size) return c.take(k).address;
    }
    return map_block(size);
}

void release_block(void* block, size_t bytes) {
    const size_t size = whole_pages(bytes);
    Cache& c = cache();
    if (size <= kMaxCachedBytes) {
        if (std::unique_lock<std::mutex> lock(c.mutex, std::try_to_lock); lock) return c.put(block, size);
    }
    munmap(block, size);
}

size_t cached_bytes() {
    Cache& c = cache();
    const std::lock_guard<std::mutex> lock(c.mutex);
    return c.bytes;
}

}  // namespace srcell
