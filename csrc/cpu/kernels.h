// The table of functions that one ISA offers. Called by the bindings through
// dispatch.h; implemented by kernels.cpp, which is compiled once per ISA.
#pragma once

#include "../params.h"
#include "encode.h"

namespace srcell {

struct Kernels {
    const char* isa;
    void (*scan_forward_f32)(const ScanForward<float>&);
    void (*scan_forward_f64)(const ScanForward<double>&);
    void (*scan_backward_f32)(const ScanBackward<float>&);
    void (*scan_backward_f64)(const ScanBackward<double>&);
    int64_t (*events_forward_f32)(const EventsForward<float>&);
    int64_t (*events_forward_f64)(const EventsForward<double>&);
    int64_t (*events_backward_f32)(const EventsBackward<float>&);
    int64_t (*events_backward_f64)(const EventsBackward<double>&);
    int64_t (*event_dots_f32)(const EventDots<float>&);
    int64_t (*event_dots_f64)(const EventDots<double>&);
    void (*multiply_f32)(const Product<float>&);
    void (*multiply_f64)(const Product<double>&);
    // Writes mask and offsets; returns whether all events are 1.
    bool (*mask_events_f32)(const DenseInput<float>&);
    bool (*mask_events_f64)(const DenseInput<double>&);
    // Writes the offsets of a mask.
    void (*count_events)(const DenseInput<float>&);
    // Writes the indices of a mask's events, ascending in each row, and, unless null, their values.
    void (*list_events_f32)(const DenseInput<float>&, int32_t* indices, float* values);
    void (*list_events_f64)(const DenseInput<double>&, int32_t* indices, double* values);
    void (*count_spikes_f32)(const SpikeCounts<float>&);
    void (*count_spikes_f64)(const SpikeCounts<double>&);
    // Elementwise, x and y of `count` elements, for the accuracy tests; x may be y.
    void (*tanh_f32)(const float* x, float* y, int64_t count);
    void (*tanh_f64)(const double* x, double* y, int64_t count);
    void (*sigmoid_f32)(const float* x, float* y, int64_t count);
    void (*sigmoid_f64)(const double* x, double* y, int64_t count);
    // Writes before each sample, and behind the last, how many active pixels there are, (B + 1,), and returns -1; or
    // returns the first sample that has a pixel outside [0, 1].
    int64_t (*count_active_pixels)(const Images&, int64_t* active_before);
    // Draws the spikes; then indices, (offsets[B * T],), take them.
    void (*rate_draw)(const RateEncoding&);
    void (*rate_write)(const RateEncoding&, int32_t* indices);
    void (*latency_encode)(const LatencyEncoding&);
    // Philox4x32-10 of one counter, (4,), and key, (2,), into (4,) words, for the tests.
    void (*philox)(const uint32_t* counter, const uint32_t* key, uint32_t* words);
};

const Kernels* kernels_scalar();
const Kernels* kernels_avx2();
const Kernels* kernels_avx512();
const Kernels* kernels_neon();

}  // namespace srcell
