// Sets the thread's floating-point control word for the duration of a call. Used by the code that calls kernels: the
// bindings, the runtime and parallel.cpp. Knows nothing about kernels.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace srcell {

// During its lifetime the calling thread rounds to nearest and keeps denormals. torch.set_flush_denormal, and any
// library that was linked with -ffast-math, changes this for some threads only; results would then depend on which
// thread computes them. The arithmetic must be in functions that are not inlined into the scope of this object, because
// the compiler may move inlined arithmetic out of it.
class PlainArithmetic {
  public:
    PlainArithmetic() : found_(read()) {
        if (changed()) write(kPlain | (found_ & kFlags));
    }
    ~PlainArithmetic() {
        if (changed()) write(found_);
    }
    PlainArithmetic(const PlainArithmetic&) = delete;
    PlainArithmetic& operator=(const PlainArithmetic&) = delete;

  private:
#if defined(__x86_64__)
    using Word = uint32_t;
    static constexpr Word kPlain = 0x1F80, kFlags = 0x3F;  // MXCSR: all exceptions masked; the exception flags
    static Word read() { return _mm_getcsr(); }
    static void write(Word word) { _mm_setcsr(word); }
#elif defined(__aarch64__)
    using Word = uint64_t;
    static constexpr Word kPlain = 0, kFlags = 0;
    static Word read() {
        Word word;
        asm volatile("mrs %0, fpcr" : "=r"(word));
        return word;
    }
    static void write(Word word) { asm volatile("msr fpcr, %0" : : "r"(word)); }
#else
    using Word = uint32_t;
    static constexpr Word kPlain = 0, kFlags = 0;
    static Word read() { return 0; }
    static void write(Word) {}
#endif
    bool changed() const { return (found_ & ~kFlags) != kPlain; }

    Word found_;
};

}  // namespace srcell
