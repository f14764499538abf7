// Memory for the runtime, aligned to cache lines and initialised to zero. Throws std::bad_alloc on failure, whatever
// the size.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

#include "../platform/aligned.h"

namespace srcell {

template <class T>
class Aligned {
  public:
    Aligned() = default;
    explicit Aligned(int64_t count) : count_(count) {
        constexpr size_t kLine = 64;
        if (static_cast<uint64_t>(count) > kMost / sizeof(T)) throw std::bad_alloc();
        const size_t bytes = (static_cast<size_t>(count) * sizeof(T) / kLine + 1) * kLine;
        memory_.reset(static_cast<T*>(allocate_aligned(kLine, bytes)));
        if (!memory_) throw std::bad_alloc();
        std::memset(static_cast<void*>(memory_.get()), 0, bytes);
    }

    T* data() const { return memory_.get(); }
    int64_t size() const { return count_; }
    void clear() { std::memset(static_cast<void*>(memory_.get()), 0, static_cast<size_t>(count_) * sizeof(T)); }

  private:
    static constexpr uint64_t kMost = sizeof(size_t) == 8 ? uint64_t(1) << 46 : uint64_t(1) << 31;
    struct Free {
        void operator()(T* memory) const { free_aligned(memory); }
    };
    std::unique_ptr<T, Free> memory_;
    int64_t count_ = 0;
};

}  // namespace srcell
