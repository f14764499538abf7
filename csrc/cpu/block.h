// Uninitialised memory from the cache of memory.h, released at the end of the scope: the scratch and the intermediate
// results of a call. Included by the bindings and the runtime.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

#include "memory.h"

namespace srcell {

template <class T>
class Block {
  public:
    Block() = default;
    // An empty block has no address.
    explicit Block(int64_t count) : bytes_(static_cast<size_t>(count) * sizeof(T)) {
        if (!count) return;
        if (count <= PTRDIFF_MAX / static_cast<int64_t>(sizeof(T))) memory_ = acquire_block(bytes_);
        if (!memory_) throw std::bad_alloc();
    }
    ~Block() {
        if (memory_) release_block(memory_, bytes_);
    }
    Block(Block&& other) noexcept : bytes_(other.bytes_), memory_(std::exchange(other.memory_, nullptr)) {}
    Block& operator=(Block&& other) noexcept {
        std::swap(bytes_, other.bytes_);
        std::swap(memory_, other.memory_);
        return *this;
    }

    T* data() const { return static_cast<T*>(memory_); }

  private:
    size_t bytes_ = 0;
    void* memory_ = nullptr;
};

}  // namespace srcell
