// The CUDA kernels for the module's bindings: functions that launch kernels on a stream of a device and return at once.
// They allocate nothing, do not synchronise, and return a cudaError_t as an int, 0 for success. All addresses are in
// device memory. Implemented by the .cu files; knows neither Python nor CUDA's own headers.
#pragma once

#include "../params.h"

namespace srcell {

// The element type of currents and their gradients: the type T of the computation, or, if T is float, a 16-bit type.
enum class Element { same, float16, bfloat16 };

template <class T>
struct DeviceScanForward : CellForward<T> {
    const void* current;  // (T, B, N)
    Element element;
    Maybe<void> half_spikes;  // (T, B, N) out, of the element type, instead of `spikes`
    Maybe<T> checkpoints;     // as in ScanForward
};

template <class T>
struct DeviceScanBackward : CellBackward<T> {
    const void* current;  // (T, B, N) as in the forward pass
    Element element;
    Maybe<const void> half_grad_spikes;  // (T, B, N), of the element type, instead of `grad_spikes`
    const T* checkpoints;                // what the forward pass wrote
    void* grad_current;                  // (T, B, N) out, of the element type; zero past a sample's length
};

// A dense input, and the mask of its nonzero elements.
template <class T>
struct MaskedElements {
    const uint64_t* mask;  // (B * T, mask_words(K)), row b * T + t
    const T* elements;     // (T, B, K)
    int64_t inputs;
};

// A layer's input. Offsets and indices may hold any value: an event out of bounds is skipped.
template <class T>
using DeviceInput = std::variant<Events<T>, MaskedElements<T>>;

template <class T>
struct DeviceEventsForward : TracedForward<T> {
    const T* weight_t;  // (K, N)
    DeviceInput<T> input;
};

// The currents of a layer whose inputs are events.
template <class T>
struct DeviceEventCurrents {
    ScanShape shape;
    DeviceInput<T> input;
    const T* weight_t;  // (K, N)
    T* currents;        // (T, B, N) out; not written past a sample's length
};

// A layer with recurrent (lateral) weights on given currents.
template <class T>
struct DeviceLateralForward : TracedForward<T> {
    const T* current;   // (T, B, N); may be `spikes`
    const T* weight_t;  // (N, N): [m][n] is the weight from neuron m to neuron n
    LateralDelaysForward<T> delays;
};

// Rows of (B, N) in the scratch of a DeviceLateralBackward.
constexpr int64_t lateral_rows(bool resonant) { return states_of(resonant) * (kSegment + 1) + 2 * kSegment + 1; }

template <class T>
struct DeviceLateralBackward : TracedBackward<T> {
    const T* weight_t;  // (N, N) as in the forward pass
    bool lateral_relu;  // ds/dh for gradients through the recurrent weights: [h > 0]; otherwise 1
    T* scratch;         // (lateral_rows(resonant), B, N)
    Maybe<T> elements;  // (T, B, N) out: the spikes before each step, zero past a sample's length
    LateralDelaysBackward<T> delays;
};

// The gradient of recurrent weights that have delays.
template <class T>
struct DeviceDelayedWeight {
    ScanShape shape;
    LateralDelays<T> delays;
    const T* elements;      // as lateral_backward() wrote them
    const T* grad_current;  // (T, B, N)
    T* partials;            // scratch: (event_groups(B, N), N, N)
    T* grad_weight;         // (N, N) out
};

// The positions of events given as rows, and their keys: a stable sort by key puts the events in the order of
// DeviceWeightGradient. An event counts if its offset and index are valid and its step is within its sample's length;
// only such an event gets a position and a key.
struct EventKeys {
    ScanShape shape;
    Events<float> events;  // its values are not used
    Maybe<void> keys;      // (count,) in: the largest number of its type; out: the key of each event that counts
    bool narrow;           // keys are int32_t; otherwise int64_t
    int64_t* positions;    // (count,) in: -1; out: t * B + b of each event that counts
};

// The number of keys of one input of one group of samples.
SRCELL_HOST_DEVICE inline int64_t key_stride(const ScanShape& shape) {
    return event_group_size(shape.batch, shape.neurons) * segments(shape.steps, kEventSegment);
}

// How many events an input of a sample has at each step of a segment of kEventSegment = 32 steps: bit j of each of the
// four words is a binary digit of the number at step 32 * segment + j, the lowest digit in the first word. 15 also
// stands for more than 15.
struct alignas(16) ColumnCounts {
    uint32_t digits[4];
};

// The columns of events that are given as rows without values. The columns hold only events that count, as in
// EventKeys.
struct EventColumns {
    ScanShape shape;
    Events<float> events;  // its values are not used
    ColumnCounts* counts;  // (B, segments(T, 32), K) in: 0; out
};

// The gradient of the weight from the gradients of the currents: each weight adds the current gradients at its input's
// events. The order is that of the CPU: the samples of a group ascending, in a sample the segments of kEventSegment
// steps descending, in a segment the steps ascending. The sums of groups are added in a fixed tree.
template <class T>
struct DeviceWeightSums {
    ScanShape shape;
    int64_t inputs;
    const T* grad_current;  // (T, B, N)
    T* partials;            // scratch: (event_groups(B, N), K, N)
};

// Its events in one of three forms: sorted by their keys;
template <class T>
struct SortedEvents {
    const int64_t* starts;     // (event_groups(B, N) * K + 1,) start of the events of each (group, input)
    const int64_t* positions;  // (count,) as in EventKeys, sorted
    Maybe<const T> values;     // (count,) sorted; else all ones
};

// as columns of rows of events without values;
template <class T>
struct CountedEvents {
    const ColumnCounts* counts;  // (B, segments(T, 32), K)
    Events<T> events;            // read for steps at which an input has 15 events or more
};

// or as columns of a dense input: bit j of a word stands for step 32 * segment + j.
template <class T>
struct DenseColumns {
    const uint32_t* columns;  // (B, segments(T, 32), K)
    const T* elements;        // (T, B, K)
};

template <class T>
struct DeviceWeightGradient : DeviceWeightSums<T> {
    std::variant<SortedEvents<T>, CountedEvents<T>, DenseColumns<T>> source;
    T* grad_weight;  // (N, K) out
};

// Gradients of event values: for each event the sum over neurons of the weight times the gradient of the current.
template <class T>
struct DeviceEventDots {
    int64_t neurons;
    Events<T> events;
    const int64_t* positions;  // as event_keys() wrote them
    const T* weight_t;         // (K, N)
    const T* grad_current;     // (T, B, N)
    T* grad_values;            // (count,) out; 0 for events that do not count
};

// The mask of a dense input, which mask_elements() writes, and its columns, which mask_columns() writes.
template <class T>
struct DeviceMask {
    Samples shape;
    int64_t inputs;
    const T* elements;  // (T, B, K)
    uint64_t* mask;     // (B * T, mask_words(K))
    uint32_t* columns;  // (B, segments(T, 32), K)
};

// The event rows of a mask, with `prefix` empty rows before the rows of each sample.
struct MaskEvents {
    int64_t batch, steps, prefix, inputs;
    const uint64_t* mask;    // (B * steps, mask_words(K))
    int64_t* counts;         // (B * (prefix + steps),) out of count_mask
    const int64_t* offsets;  // (B * (prefix + steps) + 1,) in to list_mask: 0, then the running sum of the counts
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
    bool thinned;
};

// As IntegerForward. The elements of a mask's dense input are 0 or 1.
struct DeviceIntegerForward {
    ScanShape shape;
    IntegerCell cell;
    const int16_t* weight_t;  // (K, N)
    Maybe<const int16_t> i0, h0, hs0;
    Maybe<uint8_t> spikes;
    Maybe<float> float_spikes;
    int16_t *i, *h, *hs;
    int64_t* clamped;  // (1,) in and out: increased by how often an i left +-i_max
    Maybe<float> slopes;
    const float* scale;
    float rho;
    DeviceInput<float> input;  // its values are not used
};

struct DeviceIntegerBackward {
    ScanShape shape;
    float alpha;
    const float *slopes, *grad_spikes;  // (T, B, N)
    float* grad_current;                // (T, B, N) out, zero past a sample's length
};

// The turn of resonant neurons, from their parameters.
template <class T>
struct DeviceTurn {
    CellParameters<T> cell;
    int64_t count;      // 1, or N
    T *along, *across;  // (count,) each, out
};

namespace cuda {

struct Stream {
    int device;
    void* handle;
};

int scan_forward(Stream stream, const DeviceScanForward<float>& p);
int scan_forward(Stream stream, const DeviceScanForward<double>& p);
int scan_backward(Stream stream, const DeviceScanBackward<float>& p);
int scan_backward(Stream stream, const DeviceScanBackward<double>& p);
int events_forward(Stream stream, const DeviceEventsForward<float>& p);
int events_forward(Stream stream, const DeviceEventsForward<double>& p);
int events_backward(Stream stream, const TracedBackward<float>& p);
int events_backward(Stream stream, const TracedBackward<double>& p);
int event_currents(Stream stream, const DeviceEventCurrents<float>& p);
int event_currents(Stream stream, const DeviceEventCurrents<double>& p);
int lateral_forward(Stream stream, const DeviceLateralForward<float>& p);
int lateral_forward(Stream stream, const DeviceLateralForward<double>& p);
int lateral_backward(Stream stream, const DeviceLateralBackward<float>& p);
int lateral_backward(Stream stream, const DeviceLateralBackward<double>& p);
int delayed_weight(Stream stream, const DeviceDelayedWeight<float>& p);
int delayed_weight(Stream stream, const DeviceDelayedWeight<double>& p);
int make_turn(Stream stream, const DeviceTurn<float>& p);
int make_turn(Stream stream, const DeviceTurn<double>& p);
int count_delayed(Stream stream, const DelayedCounts<float>& p);
int count_delayed(Stream stream, const DelayedCounts<double>& p);
int write_delayed(Stream stream, const DelayedWrite<float>& p);
int write_delayed(Stream stream, const DelayedWrite<double>& p);
int delayed_backward(Stream stream, const DelayedBackward<float>& p);
int delayed_backward(Stream stream, const DelayedBackward<double>& p);
int delay_elements(Stream stream, const DelayedElementsForward<float>& p);
int delay_elements(Stream stream, const DelayedElementsForward<double>& p);
int delay_elements_backward(Stream stream, const DelayedElementsBackward<float>& p);
int delay_elements_backward(Stream stream, const DelayedElementsBackward<double>& p);
int integer_forward(Stream stream, const DeviceIntegerForward& p);
int integer_backward(Stream stream, const DeviceIntegerBackward& p);
int event_keys(Stream stream, const EventKeys& p);
int event_columns(Stream stream, const EventColumns& p);
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

// CUDA's error text.
const char* error_text(int error);

// The CUDA runtime and the GPU architectures that the module was built with.
struct Built {
    int runtime;                // version of the runtime in the module, as 1000 * major + 10 * minor
    const char* architectures;  // CMAKE_CUDA_ARCHITECTURES, separated by spaces
};
Built built();

}  // namespace cuda
}  // namespace srcell
