// Shared by the C++ tests: arrays that end at an inaccessible page, pseudo-random numbers, and results that are
// compared by their bits.
#pragma once

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#include "../../csrc/cpu/dispatch.h"

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            std::abort();                                                        \
        }                                                                        \
    } while (false)

namespace srcell {

#if defined(_WIN32)
inline size_t page_size() { return 4096; }

inline char* map_pages_with_guard(size_t usable, size_t page) {
    void* const start = VirtualAlloc(nullptr, usable + page, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    DWORD before;
    CHECK(start && VirtualProtect(static_cast<char*>(start) + usable, page, PAGE_NOACCESS, &before));
    return static_cast<char*>(start);
}

inline void unmap_pages_with_guard(char* start, size_t) { VirtualFree(start, 0, MEM_RELEASE); }

inline void set_environment(const char* name, const char* value) { _putenv_s(name, value); }
#else
inline size_t page_size() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

// Pages that can be used, and after them one that cannot.
inline char* map_pages_with_guard(size_t usable, size_t page) {
    void* const start = mmap(nullptr, usable + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(start != MAP_FAILED && mprotect(static_cast<char*>(start) + usable, page, PROT_NONE) == 0);
    return static_cast<char*>(start);
}

inline void unmap_pages_with_guard(char* start, size_t bytes) { munmap(start, bytes); }

// An empty value counts as none.
inline void set_environment(const char* name, const char* value) { setenv(name, value, 1); }
#endif

// The bytes that fill memory before it is written, one in each of two runs: the first makes NaN, or -1 as integers, the
// second large finite numbers. An output that is not written, or that depends on the contents of scratch, then differs
// between the two runs.
constexpr int kPoison = 0xFF, kOtherPoison = 0x7F;

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SRCELL_ADDRESS_SANITIZER
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define SRCELL_ADDRESS_SANITIZER
#endif

// Whether an inaccessible page follows an array's last element. Under the address sanitizer arrays come from its heap
// unless a fuzz target asks for such pages, because the sanitizer does not check masked loads and stores.
#if defined(SRCELL_ADDRESS_SANITIZER)
inline bool& arrays_are_guarded() {
    static bool guarded = false;
    return guarded;
}
#else
constexpr bool arrays_are_guarded() { return true; }
#endif

// Exactly `count` elements, null if there are none.
template <class T>
class Array {
  public:
    explicit Array(int64_t count, int poison = kPoison) : count_(static_cast<size_t>(count)) {
        const size_t bytes = count_ * sizeof(T);
        if (!bytes) return;
        data_ = arrays_are_guarded() ? map_before_guard(bytes) : allocate(bytes);
        std::memset(data_, poison, bytes);
    }
    explicit Array(const std::vector<T>& values) : Array(static_cast<int64_t>(values.size())) {
        for (size_t k = 0; k < count_; ++k) data_[k] = values[k];
    }
    Array(Array&& other) noexcept
        : count_(std::exchange(other.count_, 0)),
          mapped_(std::exchange(other.mapped_, 0)),
          memory_(std::exchange(other.memory_, nullptr)),
          data_(std::exchange(other.data_, nullptr)) {}
    Array& operator=(Array&& other) noexcept {
        std::swap(count_, other.count_);
        std::swap(mapped_, other.mapped_);
        std::swap(memory_, other.memory_);
        std::swap(data_, other.data_);
        return *this;
    }
    ~Array() {
        if (mapped_)
            unmap_pages_with_guard(memory_, mapped_);
        else
            std::free(memory_);
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    T* data_if(bool wanted) { return wanted ? data_ : nullptr; }
    const T* data_if(bool wanted) const { return wanted ? data_ : nullptr; }
    int64_t size() const { return static_cast<int64_t>(count_); }
    T& operator[](int64_t k) { return data_[k]; }
    const T& operator[](int64_t k) const { return data_[k]; }
    T* begin() { return data_; }
    T* end() { return data_ + count_; }
    const T* begin() const { return data_; }
    const T* end() const { return data_ + count_; }

  private:
    T* allocate(size_t bytes) {
        memory_ = static_cast<char*>(std::malloc(bytes));
        CHECK(memory_);
        return reinterpret_cast<T*>(memory_);
    }

    T* map_before_guard(size_t bytes) {
        const size_t page = page_size(), usable = (bytes + page - 1) / page * page;
        mapped_ = usable + page;
        memory_ = map_pages_with_guard(usable, page);
        return reinterpret_cast<T*>(memory_ + usable - bytes);
    }

    size_t count_, mapped_ = 0;
    char* memory_ = nullptr;
    T* data_ = nullptr;
};

// Pseudo-random numbers from integer arithmetic only, so that they are the same on every machine.
class Numbers {
  public:
    explicit Numbers(uint64_t seed) : state_(seed) {}

    int64_t below(int64_t limit) { return static_cast<int64_t>((next() >> 33) % static_cast<uint64_t>(limit)); }

    template <class T>
    T symmetric() {  // in [-1, 1)
        return static_cast<T>(static_cast<int32_t>(next() >> 32)) * T(0x1p-31);
    }

    template <class T>
    Array<T> array(int64_t count) {
        Array<T> x(count);
        for (T& value : x) value = symmetric<T>();
        return x;
    }

  private:
    uint64_t next() { return state_ = state_ * 6364136223846793005u + 1442695040888963407u; }

    uint64_t state_;
};

// Compared by bits, so -0 differs from 0. All NaNs are equal, because their payloads are unspecified.
template <class T>
struct Result {
    std::vector<T> all;

    void add(T value) { all.push_back(value == value ? value : T(__builtin_nan(""))); }
    void add(const Array<T>& x) {
        for (const T value : x) add(value);
    }
    bool operator==(const Result& other) const {
        return all.size() == other.all.size() &&
               (all.empty() || std::memcmp(all.data(), other.all.data(), all.size() * sizeof(T)) == 0);
    }
};

template <class T>
bool same(const Array<T>& a, const Array<T>& b) {
    Result<T> x, y;
    x.add(a);
    y.add(b);
    return x == y;
}

// Calls check(kernels, threads) for every table and thread count.
template <class Check>
void for_each_table(const std::vector<int>& thread_counts, Check check) {
    for (const Kernels* kernels : available_kernels())
        for (const int threads : thread_counts) check(*kernels, threads);
}
template <class Check>
void for_each_table(Check check) {
    for_each_table({1, 3}, check);
}

// Lengths for a batch, some of them out of range. The kernels must treat them like the clamped() ones.
inline std::vector<int64_t> wild_lengths(int64_t batch, int64_t steps) {
    std::vector<int64_t> lengths;
    for (int64_t b = 0; b < batch; ++b)
        lengths.push_back(b % 3 == 0 ? steps + 1000000007 : b % 3 == 1 ? steps * 5 / 8 : -1 - b);
    return lengths;
}

inline std::vector<int64_t> clamped(std::vector<int64_t> lengths, int64_t steps) {
    for (int64_t& length : lengths) length = length < 0 ? 0 : length > steps ? steps : length;
    return lengths;
}

}  // namespace srcell
