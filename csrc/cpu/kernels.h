// The table of functions that one ISA offers. Called by the bindings through
// dispatch.h; implemented by kernels.cpp, which is compiled once per ISA.
#pragma once

#include "../params.h"

namespace srcell {

struct Kernels {
    const char* isa;
    void (*scan_forward_f32)(const ScanForward<float>&);
    void (*scan_forward_f64)(const ScanForward<double>&);
    void (*scan_backward_f32)(const ScanBackward<float>&);
    void (*scan_backward_f64)(const ScanBackward<double>&);
    // Elementwise, x and y of `count` elements, for the accuracy tests; x may be y.
    void (*tanh_f32)(const float* x, float* y, int64_t count);
    void (*tanh_f64)(const double* x, double* y, int64_t count);
    void (*sigmoid_f32)(const float* x, float* y, int64_t count);
    void (*sigmoid_f64)(const double* x, double* y, int64_t count);
};

const Kernels* kernels_scalar();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();

}  // namespace srcell
