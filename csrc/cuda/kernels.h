// What the CUDA module's bindings call: functions that put kernels on a stream of the current device and return at
// once. They allocate nothing, wait for nothing, and return a cudaError_t as an int, 0 for none. All addresses are
// those of the device. Implemented by the .cu files; knows neither Python nor, beyond addresses, CUDA.
#pragma once

#include "../params.h"

namespace srcell {

// What currents and their gradients are stored in: the type that is computed in, or shorter, with float.
enum class Element { same, float16, bfloat16 };

template <class T>
struct DeviceScanForward : CellForward<T> {
    const void* current;  // (T, B, N)
    Element element;
    T* checkpoints;  // as in ScanForward
};

template <class T>
struct DeviceScanBackward : CellBackward<T> {
    const void* current;  // (T, B, N) as in the forward pass
    Element element;
    const T* checkpoints;  // what the forward pass wrote
    void* grad_current;    // (T, B, N) out, of the same elements; zero past a sample's length
};

// Where a layer's events are: rows of events, or a dense input and the mask of its elements that are not 0. Offsets and
// indices are used as far as they can be: what lies outside counts as no event, whatever they hold.
template <class T>
struct DeviceInput {
    Events<T> events;      // offsets null: the mask's
    const uint64_t* mask;  // (B * T, mask_words(K)), row b * T + t
    const T* elements;     // (T, B, K), of the mask
};

// The trace has its own order here: (T, B, N).
template <class T>
struct DeviceEventsForward : CellForward<T> {
    DeviceInput<T> input;
    const T* weight_t;  // (K, N)
    // What the backward pass needs, null: inference. As in EventsForward, but h and hs before every kSegment-th step.
    T *trace, *checkpoints;  // (T, B, N), (segments(T), 2, B, N) out
    bool trace_integrator;
};

template <class T>
struct DeviceEventsBackward : CellBackward<T> {
    const T *trace, *checkpoints;  // what the forward pass wrote
    const T* i0;                   // (B, N), or null: zero
    T* grad_current;               // (T, B, N) out, zero past a sample's length
};

// Numbers for the events of rows by which they sort into the order of DeviceWeightGradient.
struct EventKeys {
    ScanShape shape;
    Events<float> events;  // the values mean nothing
    int64_t* keys;         // (count,) in: kNoKey; out: of each event that counts its number
    int64_t* positions;    // (count,) out: of each event that counts its step times B plus its sample
};

constexpr int64_t kNoKey = INT64_MAX;

// Keys from one input of one group of samples to the next.
SRCELL_HOST_DEVICE inline int64_t key_stride(const ScanShape& shape) {
    return event_group_size(shape.batch, shape.neurons) * segments(shape.steps, kEventSegment);
}

// The gradient of the weight from that of the currents: each weight adds what its input's events met, in the order of
// the CPU, the samples of a group ascending, in each the segments of kEventSegment steps descending, in each of these
// the steps ascending; groups are added in a fixed tree.
template <class T>
struct DeviceWeightGradient {
    ScanShape shape;
    int64_t inputs;
    const T* grad_current;  // (T, B, N)
    // By sorted events of rows:
    const int64_t* starts;     // (event_groups(B, N) * K + 1,) where those of (group, input) begin; null: by columns
    const int64_t* sorted;     // (count,) numbers of events
    const int64_t* positions;  // as in EventKeys
    const T* values;           // (count,), or null: all ones
    // By the columns of a mask: bit j of a word tells about step 32 * segment + j.
    const uint32_t* columns;  // (B, segments(T, 32), K)
    const T* elements;        // (T, B, K)
    T* partials;              // scratch: (event_groups(B, N), K, N)
    T* grad_weight;           // (N, K) out
};

// Gradients of event values.
template <class T>
struct DeviceEventDots {
    int64_t neurons;
    Events<T> events;
    const int64_t *keys, *positions;  // as in EventKeys, the keys not yet sorted
    const T* weight_t;                // (K, N)
    const T* grad_current;            // (T, B, N)
    T* grad_values;                   // (count,) out; 0 for events that do not count
};

// The mask of a dense input, and the columns of a mask.
template <class T>
struct DeviceMask {
    ScanShape shape;  // the neurons mean nothing
    int64_t inputs;
    const T* elements;  // (T, B, K)
    uint64_t* mask;     // (B * T, mask_words(K))
    uint32_t* columns;  // (B, segments(T, 32), K)
};

// The event rows of a mask, each after `prefix` empty ones for each sample.
struct MaskEvents {
    int64_t batch, steps, prefix, inputs;
    const uint64_t* mask;    // (B * steps, mask_words(K))
    int64_t* counts;         // (B * (prefix + steps),) out of count_mask
    const int64_t* offsets;  // (B * (prefix + steps) + 1,) sums of the counts, for list_mask
    int32_t* indices;        // (offsets[last],) out of list_mask
};

// As the CPU's RateEncoding; the mask has no rows for the prefix.
struct DeviceRateEncoding {
    const float* images;   // (B, K), each in [0, 1]
    const int64_t* index;  // (B,)
    int64_t batch, pixels, steps;
    double gain;
    uint64_t seed;
    uint64_t* mask;  // (B * steps, mask_words(K)) out
};

namespace cuda {

using Stream = void*;

int scan_forward(Stream stream, const DeviceScanForward<float>& p);
int scan_forward(Stream stream, const DeviceScanForward<double>& p);
int scan_backward(Stream stream, const DeviceScanBackward<float>& p);
int scan_backward(Stream stream, const DeviceScanBackward<double>& p);
int events_forward(Stream stream, const DeviceEventsForward<float>& p);
int events_forward(Stream stream, const DeviceEventsForward<double>& p);
int events_backward(Stream stream, const DeviceEventsBackward<float>& p);
int events_backward(Stream stream, const DeviceEventsBackward<double>& p);
int event_keys(Stream stream, const EventKeys& p);
int weight_gradient(Stream stream, const DeviceWeightGradient<float>& p);
int weight_gradient(Stream stream, const DeviceWeightGradient<double>& p);
int event_dots(Stream stream, const DeviceEventDots<float>& p);
int event_dots(Stream stream, const DeviceEventDots<double>& p);
int mask_elements(Stream stream, const DeviceMask<float>& p);
int mask_elements(Stream stream, const DeviceMask<double>& p);
int mask_columns(Stream stream, const DeviceMask<float>& p);
int count_mask(Stream stream, const MaskEvents& p);
int list_mask(Stream stream, const MaskEvents& p);
int rate_mask(Stream stream, const DeviceRateEncoding& p);

// What an error is, in CUDA's words, and with which runtime and for which cards the module was built.
const char* error_text(int error);
struct Built {
    int runtime;                // version of the runtime in the module, as 1000 * major + 10 * minor
    const char* architectures;  // those of CMake
};
Built built();

}  // namespace cuda
}  // namespace srcell
