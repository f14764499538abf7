// The cache of memory.h, behind a mutex, over the pages of the operating system. Knows nothing about what the memory is
// used for.
#include "memory.h"

#include <cstddef>
#include <mutex>
#include <vector>

#include "../platform/platform.h"

namespace srcell {
namespace {

struct Block {
    void* address;
    size_t size;
    bool hot;  // not lent to the system yet
};

struct Cache {
    Mutex mutex;
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
            unmap_pages(oldest.address, oldest.size);
        }
        blocks.push_back({address, size, true});
        bytes += size;
        hot_bytes += size;
        for (size_t k = 0; hot_bytes > kMaxHotBytes; ++k) {
            Block& block = blocks[k];
            if (!block.hot) continue;
            lend_pages(block.address, block.size);
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

size_t whole_pages(size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

}  // namespace

// We only try to take the lock: in a forked child, a thread that the child does not have may hold it. While the lock is
// held, memory is taken from the system and returned to the system directly.
void* acquire_block(size_t bytes) {
    const size_t size = whole_pages(bytes);
    Cache& c = cache();
    if (std::unique_lock<Mutex> lock(c.mutex, std::try_to_lock); lock) {
        for (size_t k = c.blocks.size(); k-- > 0;)
            if (c.blocks[k].size == size) return c.take(k).address;
    }
    return map_pages(size);
}

void release_block(void* block, size_t bytes) {
    const size_t size = whole_pages(bytes);
    Cache& c = cache();
    if (size <= kMaxCachedBytes) {
        if (std::unique_lock<Mutex> lock(c.mutex, std::try_to_lock); lock) return c.put(block, size);
    }
    unmap_pages(block, size);
}

size_t cached_bytes() {
    Cache& c = cache();
    const std::lock_guard<Mutex> lock(c.mutex);
    return c.bytes;
}

}  // namespace srcell
