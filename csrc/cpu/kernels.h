// The table of an instruction set's (ISA's) kernels, in parts. The bindings call it through dispatch.h; kernels.cpp
// implements the parts and is compiled once for each ISA and part; AVX-512 has AVX2's for float64. Knows no Python.
#pragma once

#include "../params.h"
#include "camera.h"
#include "encode.h"

namespace srcell {

constexpr int64_t kOutOfMemory = -2;

// The kernels on numbers of type T.
template <class T>
struct KernelsOf {
    void (*scan_forward)(const ScanForward<T>&);
    void (*scan_backward)(const ScanBackward<T>&);
    // The kernels on events return -1, or the first sample with an offset or an index out of bounds; their outputs are
    // then unspecified.
    int64_t (*events_forward)(const EventsForward<T>&);
    int64_t (*events_backward)(const EventsBackward<T>&);
    int64_t (*event_dots)(const EventDots<T>&);
    // These may also return kOutOfMemory, if a thread could not allocate memory for its states.
    int64_t (*convolution_forward)(const ConvolutionForward<T>&);
    int64_t (*convolution_backward)(const ConvolutionBackward<T>&);
    int64_t (*convolution_memory)(const Convolution&);
    int64_t (*lateral_forward)(const LateralForward<T>&);
    int64_t (*lateral_backward)(const LateralBackward<T>&);
    int64_t (*lateral_forward_memory)(int64_t neurons);
    // Pack the weights of all K inputs, and recurrent weights, for calls that take them packed.
    void (*pack_weight)(const ScanShape&, const EventSynapse<T>&);
    void (*pack_lateral)(const Lateral<T>&, const ScanShape&);
    void (*multiply)(const Product<T>&);
    // Writes mask and offsets; returns whether all events are 1.
    bool (*mask_events)(const DenseInput<T>&);
    // Reads the mask and writes the offsets.
    void (*count_events)(const DenseInput<T>&);
    // Writes the indices of a mask's events, ascending in each row, and, unless null, their values.
    void (*list_events)(const DenseInput<T>&, int32_t* indices, T* values);
    void (*count_spikes)(const SpikeCounts<T>&);
    // Fills the two arrays of a Turn, of `count` elements: 1, or N.
    void (*make_turn)(const CellParameters<T>&, int64_t count, T* along, T* across);
    // The passes of a delay.
    void (*count_delayed)(const DelayedCounts<T>&);
    void (*write_delayed)(const DelayedWrite<T>&);
    void (*delayed_backward)(const DelayedBackward<T>&);
    void (*delay_elements)(const DelayedElementsForward<T>&);
    void (*delay_elements_backward)(const DelayedElementsBackward<T>&);
    // Elementwise, x and y of `count` elements, for the accuracy tests; x may be y.
    void (*tanh)(const T* x, T* y, int64_t count);
    void (*sigmoid)(const T* x, T* y, int64_t count);
};

// The kernels that do not depend on T.
struct OtherKernels {
    // sums[n] = alpha * sums[n] + x[n], rounded twice.
    void (*leaky_sum)(double* sums, const float* x, int64_t count, double alpha);
    // Elementwise, of |x| <= pi, for the accuracy tests.
    void (*sine_cosine)(const double* x, double* sine, double* cosine, int64_t count);
    // As events_forward and events_backward.
    int64_t (*integer_forward)(const IntegerForward&);
    int64_t (*integer_backward)(const IntegerBackward&);
    void (*pack_integers)(const ScanShape&, const EventSynapse<float, int16_t>&);
    // Writes the number of active pixels before each sample, and last their total, to active_before, (B + 1,), and
    // returns -1; or returns the first sample that has a pixel outside [0, 1].
    int64_t (*count_active_pixels)(const Images&, int64_t* active_before);
    // rate_draw draws the spikes and writes the offsets; then rate_write writes the indices, (offsets[B * T],).
    void (*rate_draw)(const RateEncoding&);
    void (*rate_write)(const RateEncoding&, int32_t* indices);
    void (*latency_encode)(const LatencyEncoding&);
    // A camera's scratch, in floats per sample. camera_draw_... draws the events and writes the offsets; then
    // camera_write writes the indices, (offsets[B * T],).
    int64_t (*camera_frame_scratch)(const Sensor&);
    int64_t (*camera_picture_scratch)(const Sensor&, const Pictures&);
    void (*camera_draw_frames)(const Sensor&, const Frames&);
    void (*camera_draw_pictures)(const Sensor&, const Pictures&);
    void (*camera_write)(const Sensor&, int32_t* indices);
    // What a learner (csrc/runtime) computes besides layers.
    void (*adam)(const AdamStep&);
    double (*sum_of_squares)(const float* x, int64_t count);
    // Writes the gradient of -log(softmax(logits)[label]), (C,), and returns that number.
    double (*cross_entropy)(const float* logits, int64_t classes, int64_t label, double* gradient);
    // Philox4x32-10 of one counter, (4,), and key, (2,), into (4,) words, for the tests.
    void (*philox)(const uint32_t* counter, const uint32_t* key, uint32_t* words);
};

struct Kernels : OtherKernels {
    const char* isa;
    KernelsOf<float> f32;
    KernelsOf<double> f64;

    template <class T>
    const KernelsOf<T>& of() const {
        if constexpr (sizeof(T) == sizeof(float))
            return f32;
        else
            return f64;
    }
};

const Kernels* kernels_scalar();

// The parts, of the ISAs that were compiled in.
#define SRCELL_DECLARE_PARTS(isa)                 \
    const KernelsOf<float>* kernels_f32_##isa();  \
    const KernelsOf<double>* kernels_f64_##isa(); \
    const OtherKernels* kernels_other_##isa();
SRCELL_DECLARE_PARTS(scalar)
SRCELL_DECLARE_PARTS(avx2)
SRCELL_DECLARE_PARTS(avx512)
SRCELL_DECLARE_PARTS(neon)
#undef SRCELL_DECLARE_PARTS

}  // namespace srcell
