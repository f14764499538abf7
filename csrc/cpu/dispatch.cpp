// Detects the instruction sets that the processor and its operating system offer, and chooses a table of kernels by
// them or by name (dispatch.h). Knows processors and nothing about the equations.
#include "dispatch.h"

#include <cstdlib>
#include <stdexcept>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace srcell {

#if defined(__x86_64__)
namespace {

struct Features {
    bool avx2 = false, avx512 = false;  // with every extension in the ISA's flags in CMakeLists.txt
};

// Reads cpuid, and from XCR0 which registers the operating system saves. Does not use __builtin_cpu_supports, which
// needs a part of the compiler's runtime. zig's runtime lacks that part, and without the part __builtin_cpu_supports
// reports every feature as missing.
Features detect() {
    constexpr unsigned kFma = 1u << 12, kOsxsave = 1u << 27;                       // leaf 1, ecx
    constexpr unsigned kAvx2 = 1u << 5, kAvx512 = 1u << 16 | 1u << 17 | 3u << 30;  // leaf 7, ebx: F, DQ, BW, VL
    constexpr unsigned kYmm = 0x6, kZmm = 0xE6;                                    // XCR0
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || (ecx & (kFma | kOsxsave)) != (kFma | kOsxsave)) return {};
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return {};
    unsigned saved, high;
    asm volatile("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    const bool avx2 = (saved & kYmm) == kYmm && (ebx & kAvx2);
    return {avx2, avx2 && (saved & kZmm) == kZmm && (ebx & kAvx512) == kAvx512};
}

}  // namespace
#endif

// The table of an ISA, made of its parts; those on float64 may be another's.
#define SRCELL_KERNELS(isa, isa_of_f64)                                                                                \
    const Kernels* kernels_##isa() {                                                                                   \
        static const Kernels made = {*kernels_other_##isa(), #isa, *kernels_f32_##isa(), *kernels_f64_##isa_of_f64()}; \
        return &made;                                                                                                  \
    }

SRCELL_KERNELS(scalar, scalar)
namespace {
#if defined(__x86_64__)
#if !defined(SRCELL_WITHOUT_avx2)
#if defined(SRCELL_WITHOUT_avx2_f64)
SRCELL_KERNELS(avx2, scalar)
#else
SRCELL_KERNELS(avx2, avx2)
#endif
#if !defined(SRCELL_WITHOUT_avx512)
SRCELL_KERNELS(avx512, avx2)
#endif
#endif
#elif defined(__aarch64__)
SRCELL_KERNELS(neon, neon)
#endif
}  // namespace
#undef SRCELL_KERNELS

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> available = {kernels_scalar()};
#if defined(__x86_64__)
    [[maybe_unused]] const Features features = detect();
#if !defined(SRCELL_WITHOUT_avx2)
    if (features.avx2) available.push_back(kernels_avx2());
#if !defined(SRCELL_WITHOUT_avx512)
    if (features.avx512) available.push_back(kernels_avx512());
#endif
#endif
#elif defined(__aarch64__)
    available.push_back(kernels_neon());  // a part of every AArch64 processor
#endif
    return available;
}

const Kernels* choose_kernels(const std::vector<const Kernels*>& available, const char* wanted) {
    if (!wanted || !*wanted) return available.back();
    const std::string name = wanted;
    std::string names;
    for (const Kernels* kernels : available) {
        if (name == kernels->isa) return kernels;
        names += (names.empty() ? "" : ", ") + std::string(kernels->isa);
    }
    const bool known = name == "scalar" || name == "avx2" || name == "avx512" || name == "neon";
    throw std::invalid_argument("SRCELL_ISA: expected one of " + names + " on this processor, got '" + name + "'" +
                                (known ? ", which this processor or its operating system cannot run" : ""));
}

const Kernels* preferred_kernels() { return choose_kernels(available_kernels(), std::getenv("SRCELL_ISA")); }

}  // namespace srcell
