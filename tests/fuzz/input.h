// The source of a property's choices, and the counts of a fuzz target's runs. In a fuzz target the choices are the
// input's bytes and, when these are used up, numbers of a generator that the bytes seed, so that every input describes
// a complete problem; in a test all choices come from the generator.
#pragma once

#include <limits>

#include "../cpp/support.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace srcell {

class Input {
  public:
    Input(const uint8_t* data, size_t size) : next_(data), end_(data + size) {
        uint64_t seed = 0xCBF29CE484222325u;
        for (size_t k = 0; k < size; ++k) seed = (seed ^ data[k]) * 0x100000001B3u;
        rest_ = Numbers(seed);
    }
    // For a test, which tries every thread count and every card on each problem.
    explicit Input(uint64_t number) : Input(reinterpret_cast<const uint8_t*>(&number), sizeof number) {
        next_ = end_;
        thorough_ = true;
    }

    bool thorough() const { return thorough_; }
    uint8_t byte() { return next_ < end_ ? *next_++ : static_cast<uint8_t>(rest_.below(256)); }
    bool bit() { return byte() & 1; }
    // True for `count` of the 256 values of a byte, but not for 0 and 255, which mutations produce often.
    bool rarely(int count) { return static_cast<uint8_t>(byte() - 99) < count; }
    uint64_t bytes(int count) {
        uint64_t x = 0;
        for (int k = 0; k < count; ++k) x |= uint64_t(byte()) << 8 * k;
        return x;
    }
    int64_t below(int64_t limit) {
        return static_cast<int64_t>(bytes(limit > 256 ? 3 : 1) % static_cast<uint64_t>(limit));
    }
    // A size from 1 to `most`, rarely 0.
    int64_t size(int64_t most) { return rarely(6) ? 0 : 1 + below(most); }

    // Any size, for an array that is empty because another size is 0.
    int64_t vast() { return integer<int64_t>(INT64_MAX) & INT64_MAX; }

    // Usually one thread: more threads would be started anew in each call.
    int threads() { return rarely(16) ? 3 : 1; }
    // The thread counts to try, drawn once.
    const std::vector<int>& thread_counts() {
        if (thread_counts_.empty()) thread_counts_ = thorough_ ? std::vector<int>{1, 3} : std::vector<int>{threads()};
        return thread_counts_;
    }

    // An integer: a boundary value, or any.
    template <class T>
    T integer(int64_t near) {
        const auto bits = static_cast<std::make_unsigned_t<T>>(near);
        const T kinds[] = {
            T(bits), T(bits + 1), T(bits - 1), -1, 0, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()};
        const uint8_t kind = byte() % 10;
        return kind < std::size(kinds) ? kinds[kind] : static_cast<T>(bytes(kind == 7 ? 1 : sizeof(T)));
    }

    // A floating-point number: a special value, or any.
    template <class T>
    T real() {
        using Limits = std::numeric_limits<T>;
        const T kinds[] = {0,
                           T(-0.0),
                           1,
                           -1,
                           T(0.5),
                           Limits::infinity(),
                           -Limits::infinity(),
                           Limits::quiet_NaN(),
                           Limits::denorm_min(),
                           -Limits::denorm_min(),
                           Limits::min(),
                           Limits::max(),
                           Limits::lowest(),
                           T(0x1p-100),
                           T(-0x1.fffffep-101)};
        constexpr auto count = static_cast<uint8_t>(sizeof kinds / sizeof *kinds);
        const uint8_t kind = byte() % (count + 4);
        if (kind < count) return kinds[kind];
        if (kind == count) return static_cast<T>(static_cast<int8_t>(byte())) / 8;
        const uint64_t bits = bytes(sizeof(T));
        T x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    }

    // Writes special values to a few places.
    template <class T>
    void spoil(Array<T>& x) {
        if (!x.size() || !rarely(64)) return;
        for (int64_t k = 1 + below(4); k > 0; --k) {
            const int64_t at = below(x.size());
            x[at] = real<T>();
        }
    }

  private:
    const uint8_t *next_, *end_;
    Numbers rest_{0};
    bool thorough_ = false;
    std::vector<int> thread_counts_;
};

// Counts of a target's runs. Inputs that reach a kernel's body have passed validation and have at least one item of
// work.
struct Counts {
    const char* target;
    uint64_t inputs = 0, reached = 0;
};

inline Counts& counts() {
    static Counts all = {nullptr};
    return all;
}

// Runs a target's body on one input; the body returns whether it reached a kernel.
template <class Body>
int fuzz(const char* target, const uint8_t* data, size_t size, Body body) {
    if (!counts().target) {
        counts().target = target;
        std::atexit([] {
            std::printf("fuzz_%s: inputs %llu, reached %llu\n", counts().target,
                        static_cast<unsigned long long>(counts().inputs),
                        static_cast<unsigned long long>(counts().reached));
        });
    }
    Input in(data, size);
    const bool guarded = in.rarely(16);
#if defined(SRCELL_ADDRESS_SANITIZER)
    arrays_are_guarded() = guarded;
#else
    static_cast<void>(guarded);
#endif
    ++counts().inputs;
    counts().reached += body(in);
    return 0;
}

}  // namespace srcell
