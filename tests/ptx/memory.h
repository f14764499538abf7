// Global memory: the live allocations, and who has touched each of their bytes in a launch. Knows no instructions.
//
// A process's allocations are those of posix_memalign(), which this library replaces if it is preloaded (torch's
// tensors are made of them), and of cudaMallocManaged(). New memory is all NaN, or -1, and lies between margins as
// large as itself: an access that misses it by more may find another allocation, which is not noticed. realloc() of
// such memory does not work; torch calls none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ptx {

// Who touches memory: a thread, numbered from 1 over all blocks of a launch, between two barriers of its block.
struct Access {
    uint32_t launch;         // each launch, and for shared memory each block, has a number of its own
    uint32_t thread, first;  // the thread, and the first thread of its block
    uint32_t threads;        // of a block
    uint32_t phase;          // barriers that the block has passed

    bool in_block(uint32_t other) const { return other - first < threads; }
};

// Enough of all accesses of one kind to a byte in a launch to tell whether a later one can collide with any of them. Of
// two accesses in a block, a barrier between them makes an order; between blocks nothing does.
struct Accesses {
    uint32_t thread = 0, phase = 0;  // the last; 0 if there was none
    bool several_threads = false;    // in this phase
    bool several_blocks = false;

    bool collide_with(const Access& by) const;
    void add(const Access& by);
};

struct Byte {
    uint32_t launch = 0;
    Accesses reads, writes, atomics;
};

enum class How { read, write, atomic };

// Notes an access to a byte; returns the kind of race that it makes, or null.
const char* touch(Byte& byte, const Access& by, How how);

struct Allocation {
    char* begin;
    size_t size, margin;      // bytes; the margin lies before and after
    std::vector<Byte> bytes;  // made when the first kernel touches the allocation

    bool contains(uintptr_t at, size_t bytes_at) const {
        const uintptr_t from = at - reinterpret_cast<uintptr_t>(begin);  // large if it is before the begin
        return from <= size && bytes_at <= size - from;
    }
};

// The allocation that contains an address or has it in its margins, or null.
Allocation* allocation_near(uintptr_t at);

// Null if the system has no memory.
void* allocate(size_t size);
// Whether `at` is an allocation's begin, which is then gone.
bool release(void* at);

}  // namespace ptx
