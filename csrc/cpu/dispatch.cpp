#include "dispatch.h"

#include <stdexcept>

namespace srcell {

std::vector<const Kernels*> available_kernels() {
    std::vector<const Kernels*> available = {kernels_scalar()};
#if defined(__x86_64__)
    // These builtins check the operating system's support (XCR0) as well as cpuid.
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) available.push_back(kernels_avx2());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
        available.push_back(kernels_avx512());
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

}  // namespace srcell
