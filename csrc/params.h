// The plain structs between bindings and kernels: pointers, sizes and options; nothing here allocates or owns memory.
// The bindings fill them, the dispatch table passes them on, kernels read them. They know neither Python nor an ISA.
//
// Shapes use T steps, B samples, K inputs, N neurons. Every array is dense and row-major, needs no padding and no
// alignment beyond that of its element type. The caller owns it and keeps it alive during the call. No output may
// overlap an input or another output. The contents of scratch are unspecified before and after a call.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <variant>

// Marks functions that the host and a GPU both call.
#if defined(__CUDACC__)
#define SRCELL_HOST_DEVICE __host__ __device__
#else
#define SRCELL_HOST_DEVICE
#endif

namespace srcell {

// An array that a call may be without: null then.
template <class T>
using Maybe = T*;

// The largest number of neurons that a time loop of the CPU advances side by side: one tile.
constexpr int64_t kTile = 128;

// Steps per segment: the forward pass saves a checkpoint of the state before each segment, and the backward pass
// recomputes the steps in between. The CPU's kernels on events use kEventSegment, all other time loops kSegment.
constexpr int64_t kSegment = 16, kEventSegment = 32;

// Written without x + divisor, which could overflow: an empty array may have a size near INT64_MAX.
SRCELL_HOST_DEVICE constexpr int64_t ceil_div(int64_t x, int64_t divisor) { return x / divisor + (x % divisor != 0); }

SRCELL_HOST_DEVICE inline int64_t segments(int64_t steps, int64_t segment = kSegment) {
    return ceil_div(steps, segment);
}

// The parameters of a neuron. Every list of parameters is in this order.
enum CellParameter { kBias, kAlpha, kRho, kR, kRs, kZsHyp, kZsDep, kOmega, kParameters };

// What is known of a parameter by those who treat all of them alike: bindings, runtime and, through them, Python.
struct ParameterRow {
    const char* name;
    double standard;                   // its default
    double least, most;                // other values are refused, whether they are learnt or not
    Maybe<const char> expected;        // what a message then says, if there are bounds
    bool divides;                      // its reciprocal must be finite
    double least_learnt, most_learnt;  // learnt values are clamped to these bounds
    bool full_gradient;                // it has a gradient only if gradients flow through h and hs
    int version;                       // of the first exported files that may have it
};

constexpr double kUnbounded = std::numeric_limits<double>::infinity(), kPi = 3.141592653589793;
constexpr double kFloatPi =
    0x1.921fb6p+1;  // float32's, which is larger: a float32 clamped to pi has it, in float64 too
constexpr const char* kPositive = "finite values > 0 with a finite reciprocal";

constexpr ParameterRow kParameterTable[kParameters] = {
    {"bias", -6, -kUnbounded, kUnbounded, nullptr, false, -kUnbounded, kUnbounded, false, 1},
    {"alpha", 0.9, 0, 1, "values in [0, 1]", false, 0, 1, false, 1},
    {"rho", 3, 0, kUnbounded, kPositive, true, 1e-3, kUnbounded, false, 1},
    {"r", 2, -kUnbounded, kUnbounded, nullptr, false, -kUnbounded, kUnbounded, false, 1},
    {"rs", -7, -kUnbounded, kUnbounded, nullptr, false, -kUnbounded, kUnbounded, false, 1},
    {"zs_hyp", 0.9, -kUnbounded, kUnbounded, nullptr, false, 0, 1, true, 1},
    {"zs_dep", 0, -kUnbounded, kUnbounded, nullptr, false, 0, 1, true, 1},
    {"omega", 0, -kFloatPi, kFloatPi, "values in [-pi, pi]", false, -kPi, kPi, false, 2},
};

// A resonant neuron has all of them; other neurons have all but the last.
SRCELL_HOST_DEVICE constexpr int parameters_of(bool resonant) { return resonant ? kParameters : kOmega; }

// The state of a neuron. Every list of states is in this order.
enum CellState { kI, kH, kHs, kQ, kCellStates };
constexpr const char* kStateNames[kCellStates] = {"i", "h", "hs", "q"};

// A resonant neuron has all of them; other neurons have all but the last.
SRCELL_HOST_DEVICE constexpr int states_of(bool resonant) { return resonant ? kCellStates : kQ; }

// One value per neuron (stride 1), or one for the whole layer (stride 0): *data, or `constant` without data.
template <class T>
struct Parameter {
    Maybe<const T> data;
    int64_t stride;
    T constant = 0;

    SRCELL_HOST_DEVICE T at(int64_t neuron) const { return data ? data[stride * neuron] : constant; }
};

template <class T>
struct CellParameters {
    Parameter<T> of[kParameters];
    // The bias acts as min(bias, bias_max). Beyond the bound its gradient is 0 if a descent step would raise it
    // further.
    T bias_max = static_cast<T>(kUnbounded);
    // So many neighbouring neurons have the same bias, whose gradient is the sum of theirs: those of a channel.
    int64_t bias_copies = 1;
};

// The turn of resonant neurons' integrators in one step, for neuron n at n * stride: alpha cos(omega) and
// alpha sin(omega). Without it the layer does not resonate.
template <class T>
struct Turn {
    Maybe<const T> along = nullptr, across = nullptr;
    int64_t stride = 0;

    SRCELL_HOST_DEVICE explicit operator bool() const { return along; }
};

// The number of elements of either array of a layer's Turn.
template <class T>
int64_t count_turns(const CellParameters<T>& cell, int64_t neurons) {
    return cell.of[kAlpha].stride || cell.of[kOmega].stride ? neurons : 1;
}

// The samples of an input.
struct Samples {
    int64_t steps, batch;
    Maybe<const int64_t> lengths;  // (B,) each in [0, T]; without them every sample has T steps
    int threads;                   // at most this many; results do not depend on it
};

// Those of a layer.
struct ScanShape {
    int64_t steps, batch, neurons;
    Maybe<const int64_t> lengths;  // as in Samples
    int threads;

    operator Samples() const { return {steps, batch, lengths, threads}; }
};

// The state of all neurons, or its gradients: an array (B, N) for each number of a neuron's state. Where there is none,
// it is read as zeros.
template <class T>
struct States {
    Maybe<T> of[kCellStates] = {};
};

// What every forward pass reads and writes, whatever the synapse.
template <class T>
struct CellForward {
    ScanShape shape;
    CellParameters<T> cell;
    Turn<T> turn;
    States<const T> before;
    T* spikes;        // (T, B, N) out; zero past a sample's length
    States<T> after;  // out: after a sample's last step
};

// What every backward pass reads and writes, whatever the synapse.
template <class T>
struct CellBackward {
    ScanShape shape;
    CellParameters<T> cell;
    Turn<T> turn;
    bool relu;                   // ds/dh = [h > 0]; otherwise 1
    bool full_gradient;          // backpropagate through h[t-1] and hs[t-1] too; otherwise only through i[t-1]
    Maybe<const T> grad_spikes;  // (T, B, N); else zero
    States<const T> grad_after;
    States<T> grad_before;  // out
    // Gradients of the parameters, out: (1,) if the parameter's stride is 0, (N,) if it is 1. The gradient of the bias
    // is always needed.
    Maybe<T> grad_parameters[kParameters];
    // Scratch: the gradients of each neuron of each sample, summed over the steps. They are then added in a fixed tree.
    // (parameters_of(resonant), B, N), or (1, B, N) if only the gradient of the bias is needed.
    T* partials;

    // Whether the caller asks for the gradient of any parameter besides the bias.
    bool wants_parameters() const {
        for (int k = kBias + 1; k < kParameters; ++k)
            if (grad_parameters[k]) return true;
        return false;
    }
};

template <class T>
struct ScanForward : CellForward<T> {
    const T* current;  // (T, B, N)
    // (segments(T), states, B, N) out: the state before every kSegment-th step, zero past a sample's length.
    Maybe<T> checkpoints;
};

template <class T>
struct ScanBackward : CellBackward<T> {
    const T* current;      // (T, B, N) as in the forward pass
    const T* checkpoints;  // what the forward pass wrote
    T* grad_current;       // (T, B, N) out; zero past a sample's length
};

// The events of an EventBatch: row b * T + t holds the events of sample b at step t. Another thread may write into the
// arrays during a call, so kernels read offsets and indices through the functions below, which bound the values that
// they return.
template <class T>
struct Events {
    const int64_t* offsets;  // (B * T + 1,) ascending from 0 to `count`
    const int32_t* indices;  // (count,) in [0, K)
    Maybe<const T> values;   // (count,); else all ones
    int64_t count, inputs;
};

// Reads a number exactly once: the value that was compared is the value that is used, even if another thread changes
// the array. On a GPU the load is plain: a volatile load would bypass the cache, and compilers emit one load anyway.
template <class T>
SRCELL_HOST_DEVICE inline T read_once(const T* from) {
#if defined(__CUDA_ARCH__)
    return *from;
#else
    return *static_cast<const volatile T*>(from);
#endif
}

// Events [begin, end) of a row: 0 <= begin <= end <= count, for any offsets.
struct EventRange {
    int64_t begin, end;
    SRCELL_HOST_DEVICE int64_t size() const { return end - begin; }
};

SRCELL_HOST_DEVICE inline int64_t clamp_to(int64_t x, int64_t least, int64_t most) {
    return x < least ? least : x > most ? most : x;
}

template <class T>
SRCELL_HOST_DEVICE inline EventRange events_of_row(const Events<T>& events, int64_t row) {
    const int64_t begin = clamp_to(read_once(events.offsets + row), 0, events.count);
    return {begin, clamp_to(read_once(events.offsets + row + 1), begin, events.count)};
}

// The input of an event, or K or more if its index is out of range: a negative index becomes larger than any valid one.
SRCELL_HOST_DEVICE inline int64_t input_or_more(const int32_t* index) {
    return static_cast<int64_t>(static_cast<uint32_t>(read_once(index)));
}

// The input of an event, or 0 if its index is out of range.
SRCELL_HOST_DEVICE inline int64_t input_or_first(const int32_t* index, int64_t inputs) {
    const int64_t input = input_or_more(index);
    return input & -static_cast<int64_t>(input < inputs);  // without a branch, so that sums of rows are vectorised
}

// A layer with events as input is split into tiles of equal width; the last one may be narrower.
SRCELL_HOST_DEVICE inline int64_t event_tiles(int64_t neurons) { return ceil_div(neurons, kTile); }

// Whether the forward kernel packs one row of weights per event instead of one per input. A call with few events, such
// as a single step of one sample, then reads fewer weights, but each from a cache line of its own: that is faster up to
// one event per eight inputs.
inline bool packs_by_event(int64_t inputs, int64_t events) { return events < inputs / 8; }

// Rows of weights that the forward kernel packs for each tile.
inline int64_t packed_rows(int64_t inputs, int64_t events) { return packs_by_event(inputs, events) ? events : inputs; }

// Neurons of a tile, rounded up to a multiple of 16, the lanes of the widest register of float32.
inline int64_t event_tile_width(int64_t neurons) {
    const int64_t tiles = event_tiles(neurons), even = tiles ? ceil_div(neurons, tiles) : 0;
    return ceil_div(even, 16) * 16;
}

// Samples per group: the weight gradients of a group are summed one sample after the other, then the sums of the groups
// are added in a fixed tree. There are few groups, so that scratch is small: at most 16 (group, tile) pairs, or one
// group if there are more tiles.
SRCELL_HOST_DEVICE inline int64_t event_group_size(int64_t batch, int64_t neurons) {
    const int64_t tiles = event_tiles(neurons), groups = tiles < 16 ? 16 / (tiles ? tiles : 1) : 1;
    return ceil_div(batch, groups);
}

SRCELL_HOST_DEVICE inline int64_t event_groups(int64_t batch, int64_t neurons) {
    const int64_t size = event_group_size(batch, neurons);
    return size ? ceil_div(batch, size) : 0;
}

// A source of currents: those that are given.
template <class T>
struct GivenCurrents {
    const T* current;  // (T, B, N)
};

// A source of currents: events through a linear synapse.
template <class T, class Weight = T>
struct EventSynapse {
    Events<T> events;
    const Weight* weight;  // (N, K); not read if `packed`
    // (event_tiles(N), packed_rows(K, events), width of a packed tile): scratch or, if `packed`, an input with the
    // weights of all K inputs.
    Weight* packed_weight;
    bool packed;

    bool by_event() const { return !packed && packs_by_event(events.inputs, events.count); }
    int64_t rows() const { return packed ? events.inputs : packed_rows(events.inputs, events.count); }
};

// A forward pass after which the backward pass has a trace, unless it is inference. The trace holds the drive
// tanh(i / rho) of every step, or i itself if gradients of cell parameters are needed; the checkpoints hold the state
// but for i before every kEventSegment-th step. Both are zero past a sample's length. On a GPU the trace is in the
// order (T, B, N), and checkpoints are of every kSegment-th step.
template <class T>
struct TracedForward : CellForward<T> {
    Maybe<T> trace;         // (B * T * N,) out
    Maybe<T> checkpoints;   // (segments(T, kEventSegment), states - 1, B, N) out
    bool trace_integrator;  // i instead of the drive
};

template <class T>
struct TracedBackward : CellBackward<T> {
    const T *trace, *checkpoints;  // what the forward pass wrote
    Maybe<const T> i0;             // (B, N); else zero
    Maybe<T> grad_current;         // (T, B, N) out, zero past a sample's length
};

// The gradient of the weight of a synapse on events.
template <class T>
struct SynapseGradient {
    Events<T> events;
    Maybe<T> grad_weight;  // (N, K) out
    T* weight_partials;    // scratch: (event_tiles(N), event_groups(B, N), K, event_tile_width(N))
};

// Neurons on events. The trace is for each sample tile by tile, and for each tile step by step.
template <class T>
struct EventsForward : TracedForward<T> {
    EventSynapse<T> synapse;
};

template <class T>
struct EventsBackward : TracedBackward<T> {
    SynapseGradient<T> synapse;
};

// An entry of a kernel through which a row (or column) of an input reaches a row (or column) of the map of neurons.
struct Tap {
    int32_t kernel, out;
};

// The taps of all rows, or of all columns: those of row k are all[begin[k]] to all[begin[k + 1] - 1].
struct TapTable {
    const int64_t* begin;
    const Tap* all;

    const Tap* first(int64_t k) const { return all + begin[k]; }
    const Tap* last(int64_t k) const { return all + begin[k + 1]; }
};

// A convolution to a map of neurons. Inputs and neurons are numbered by channel, row and column.
struct Convolution {
    int64_t channels, height, width;              // of the input
    int64_t out_channels, out_height, out_width;  // of the map
    int64_t stride_y, stride_x, padding_top, padding_left, dilation_y, dilation_x;
    int64_t kernel_height, kernel_width, groups;
    TapTable rows, columns;

    int64_t inputs() const { return channels * height * width; }
    int64_t places() const { return out_height * out_width; }
    int64_t neurons() const { return out_channels * places(); }
    int64_t taps() const { return kernel_height * kernel_width; }
    int64_t group_inputs() const { return channels / groups; }
    int64_t group_outputs() const { return out_channels / groups; }
    // What the kernels pad a group's output channels to, so that they fill registers.
    int64_t packed_width() const { return group_outputs() < 8 ? group_outputs() : ceil_div(group_outputs(), 16) * 16; }
    int64_t packed_weights() const { return channels * taps() * packed_width(); }
    int64_t weights() const { return out_channels * group_inputs() * taps(); }
};

// What a convolution reads: events, or a dense input (T, B, K), whose events are its nonzero elements.
template <class T>
struct ConvolutionInput {
    bool dense;
    Events<T> events;         // unless dense
    Maybe<const T> elements;  // if dense, and if there are any; NaN is nonzero
};

// Neurons behind a convolution of events.
template <class T>
struct ConvolutionForward : CellForward<T> {
    Convolution map;
    ConvolutionInput<T> input;
    const T* packed_weight;  // (C, kernel height, kernel width, packed_width()), zeros past a group's output channels
    Maybe<T> checkpoints;    // as of ScanForward
    // Scratch, used if threads <= 1 and of one step: convolution_memory() bytes, aligned to 64. Without it each thread
    // allocates its own.
    Maybe<void> memory;
};

// Sums of the weight's gradient over groups of samples, which are then added in a fixed tree.
inline int64_t convolution_group_size(int64_t batch) { return ceil_div(batch, 16); }
inline int64_t convolution_groups(int64_t batch) { return batch ? ceil_div(batch, convolution_group_size(batch)) : 0; }

template <class T>
struct ConvolutionBackward : CellBackward<T> {
    Convolution map;
    ConvolutionInput<T> input;
    const T* packed_weight;  // as in the forward pass
    const T* checkpoints;    // what the forward pass wrote
    Maybe<T> grad_weight;    // (O, C / groups, kernel height, kernel width) out
    T* weight_partials;      // scratch: (convolution_groups(B), packed_weights())
    Maybe<T> grad_values;    // (count,) out
    Maybe<T> grad_input;     // (T, B, K) out, of a dense input
    // For all of the gradient of the input: the weight as (O, kernel height, kernel width, C / groups), and scratch of
    // weights() + O * kProductPadding. Without them it is computed at the events alone, and is 0 elsewhere.
    Maybe<const T> weight;
    T* panels;
};

// The constants of an integer neuron, as integer-inl.h uses them.
struct IntegerCell {
    int32_t leak_shift_a, leak_shift_b;  // i loses i >> a and i >> b in each step
    int32_t i_max;                       // i is clamped to +-i_max
    int32_t drive_high, drive_low;       // x for i > 0, and for i <= 0
    int32_t gate_threshold;              // of h: z is zs_hyp below it, zs_dep from it on
    int32_t zs_hyp, zs_dep;              // over 2^fraction_bits
    int32_t fraction_bits;               // h, hs and u are numbers over 2^fraction_bits
    int32_t r, rs, bias;
    int32_t slope, slope_shift;  // h = (slope * u) >> slope_shift, clamped
    int32_t h_min, h_max, hs_min, hs_max;
    int32_t spike_threshold;  // a spike is h >= spike_threshold
};

// The effective leak: the share of i that stays from step to step, without rounding.
inline float integer_alpha(const IntegerCell& cell) {
    return 1 - 1 / static_cast<float>(1 << cell.leak_shift_a) - 1 / static_cast<float>(1 << cell.leak_shift_b);
}

// Columns of packed integer weights: whole registers of 32 weights each.
inline int64_t integer_tile_width(int64_t neurons) { return ceil_div(event_tile_width(neurons), 32) * 32; }

// The number of summands, each of them one of these weights, whose sum always fits in int16.
inline int64_t exact_events(const int16_t* weights, int64_t count) {
    int32_t largest = 1;
    for (int64_t k = 0; k < count; ++k) {
        const int32_t weight = weights[k], size = weight < 0 ? -weight : weight;
        largest = size > largest ? size : largest;
    }
    return largest > INT16_MAX ? 1 : INT16_MAX / largest;
}

// A layer of integer neurons after a linear synapse on events. Each event counts as 1: they have no values.
struct IntegerForward {
    ScanShape shape;
    IntegerCell cell;
    EventSynapse<float, int16_t> synapse;  // its packed tiles are integer_tile_width(N) wide
    int64_t exact;                         // if the weights are packed already: exact_events() of them
    Maybe<const int16_t> i0, h0, hs0;      // (B, N) each, within their bounds; else zero
    // (T, B, N) out, 0 or 1, in one of two types; zero past a sample's length.
    Maybe<uint8_t> spikes;
    Maybe<float> float_spikes;
    int16_t *i, *h, *hs;  // (B, N) out: the state after a sample's last step
    int64_t* clamped;     // out: how often an i left +-i_max
    // (T, B, N) out, beside float_spikes: the surrogate gradient of s[t] with respect to the current a[t]; zero past a
    // sample's length. `scale` is one element: the integer that a weight of 1 becomes.
    Maybe<float> slopes;
    const float* scale;
    float rho;
};

struct IntegerBackward {
    ScanShape shape;
    float alpha;                // integer_alpha()
    const float* slopes;        // (T, B, N) as the forward pass wrote them
    const float* grad_spikes;   // (T, B, N)
    Maybe<float> grad_current;  // (T, B, N) out, zero past a sample's length
    SynapseGradient<float> synapse;
};

// The recurrent (lateral) weights of a layer, through which each neuron receives the spikes of step t-1 of all neurons.
template <class T>
struct Lateral {
    const T* weight;  // (N, N): weight[n][m] is the weight from neuron m to neuron n
    T* packed;        // scratch: (N, lateral_width(N)), row m has the weights from neuron m
    bool relu;        // ds/dh of the spikes that pass through these weights: [h > 0]; otherwise 1
    bool is_packed;   // `packed` is an input, and `weight` is not read
};

// Elements of a row over all neurons: tiles side by side, neuron n at position n.
inline int64_t lateral_width(int64_t neurons) { return event_tiles(neurons) * event_tile_width(neurons); }

// Delays of a layer's inputs, or of its spikes on their way through recurrent weights. Each input has `taps` delays and
// becomes as many inputs: tap j of input k is number k * taps + j. A value arrives there as `terms` terms: factors[i]
// times the value after first + i steps. A term before its departure does not arrive, nor does one of factor 0, unless
// `keep_zeros`.
template <class T>
struct Delays {
    int64_t numbers, taps, terms;  // numbers: K * taps
    const int32_t* first;          // (numbers,)
    Maybe<const T> factors;        // (numbers, terms); else all 1
    bool keep_zeros;

    SRCELL_HOST_DEVICE T factor(int64_t number, int64_t term) const {
        return factors ? factors[number * terms + term] : T(1);
    }
    // The steps from the departure of a term to its arrival; -1 if it does not arrive.
    SRCELL_HOST_DEVICE int64_t steps_of(int64_t number, int64_t term) const {
        const int64_t steps = read_once(first + number) + term;
        return steps >= 0 && (keep_zeros || factor(number, term) != 0) ? steps : -1;
    }
};

// The delays of recurrent weights: numbers are the N neurons, and a term of u steps of a spike of step t arrives at
// step t + 1 + u. Without terms there are no delays.
template <class T>
struct LateralDelays {
    Delays<T> of = {};
    int64_t past_steps = 0;  // a term takes at most this many steps; rows of `past`
    // Scratch of the CPU: (N, terms), a private copy of the steps of each term, -1 if it does not arrive.
    int32_t* later = nullptr;
    // (B, past_steps, N): the spikes before those of the initial state's h, earliest first; else zero.
    Maybe<const T> past0 = nullptr;

    SRCELL_HOST_DEVICE explicit operator bool() const { return of.terms > 0; }
    // The steps of a term, -1 if it does not arrive, whatever another thread writes into the arrays.
    SRCELL_HOST_DEVICE int64_t steps_of(int64_t neuron, int64_t term) const {
        const int64_t steps = of.steps_of(neuron, term);
        return steps > past_steps ? -1 : steps;
    }
};

template <class T>
struct LateralDelaysForward : LateralDelays<T> {
    Maybe<T> past = nullptr;  // (B, past_steps, N) out: as past0, after a sample's last step
};

template <class T>
struct LateralDelaysBackward : LateralDelays<T> {
    Maybe<const T> grad_past = nullptr;  // (B, past_steps, N); else zero
    Maybe<T> grad_past0 = nullptr;       // (B, past_steps, N) out
    Maybe<T> grad_factors = nullptr;     // (N, terms) out
    T* factor_partials = nullptr;        // scratch: (B, N, terms)
};

// A layer with recurrent weights. All neurons of a sample advance together, so the trace is (B, T, N) here.
template <class T>
struct LateralForward : TracedForward<T> {
    std::variant<GivenCurrents<T>, EventSynapse<T>> source;
    Lateral<T> lateral;
    LateralDelaysForward<T> delays;
    // Of a call of one step, instead of the spikes of h0 and `delays`: row b has the spikes that arrive at sample b.
    Maybe<const Events<T>> arrivals;
    // Scratch, used if threads <= 1 and without delays: lateral_forward_memory(N) bytes, aligned to 64. Without it each
    // thread allocates its own.
    Maybe<void> memory;

    const EventSynapse<T>* synapse() const { return std::get_if<EventSynapse<T>>(&source); }
};

template <class T>
struct LateralBackward : TracedBackward<T> {
    std::optional<SynapseGradient<T>> synapse;  // none if the currents were given
    Lateral<T> lateral;
    Maybe<T> grad_lateral;  // (N, N) out
    T* lateral_partials;    // scratch: (event_tiles(N), event_groups(B, N), N, event_tile_width(N))
    LateralDelaysBackward<T> delays;
};

// Gradients of event values: for each event the sum over neurons of weight times gradient of the current. Written to
// one of two arrays.
template <class T>
struct EventDots {
    ScanShape shape;
    Events<T> events;
    const T* weight_t;      // (K, N)
    const T* grad_current;  // (T, B, N)
    Maybe<T> grad_values;   // (count,) out
    Maybe<T> grad_input;    // (T, B, K) out: each gradient at its event's element, zero elsewhere
};

// The gradient of a dense input: product = gradients times weight.
template <class T>
struct Product {
    int64_t rows, inputs, neurons;
    int threads;
    int64_t stride;      // elements from one row of the gradients to the next
    const T* gradients;  // (rows, N)
    const T* weight;     // (N, K)
    T* packed_weight;    // scratch: N * (K + kProductPadding)
    T* product;          // (rows, K) out
};

constexpr int64_t kProductPadding = 64;  // packed panels exceed K by fewer columns than this

// A dense input and its events, which are its nonzero elements within each sample's length. The mask of a row is
// mask_words(K) words: bit k is set if element k is an event. NaN is nonzero.
SRCELL_HOST_DEVICE inline int64_t mask_words(int64_t inputs) { return ceil_div(inputs, 64); }

template <class T>
struct DenseInput {
    Samples shape;
    int64_t inputs;
    const T* elements;  // (T, B, K)
    uint64_t* mask;     // (B * T, mask_words(K)), row b * T + t
    int64_t* offsets;   // (B * T + 1,)
};

// The delay of events. The output has no row for the first `skip` steps. Lengths count from the input's first step.
template <class T>
struct DelayedEvents {
    Samples shape;  // of the input
    int64_t skip;
    Delays<T> delays;
    Events<T> events;

    SRCELL_HOST_DEVICE int64_t steps() const { return shape.steps - skip; }
    SRCELL_HOST_DEVICE T value(int64_t event) const { return events.values ? events.values[event] : T(1); }
};

// The first pass.
template <class T>
struct DelayedCounts : DelayedEvents<T> {
    int64_t* starts;  // (B + 1,) out: the start of each sample's arrivals, and their number
};

// What the other passes visit: the rows of the output.
template <class T>
struct DelayedRows : DelayedEvents<T> {
    int64_t* cursors;  // scratch: (B * (T - skip),)
    int64_t* offsets;  // (B * (T - skip) + 1,): out of the second pass, but for the last, `count`
    int64_t count;     // of all arrivals

    SRCELL_HOST_DEVICE int64_t* cursors_of(int64_t sample) const { return cursors + sample * this->steps(); }
};

template <class T>
struct DelayedWrite : DelayedRows<T> {
    const int64_t* starts;  // as the first pass wrote them
    int32_t* indices;       // (count,) out
    Maybe<T> values;        // (count,) out; else all are 1
};

template <class T>
struct DelayedBackward : DelayedRows<T> {
    const T* grad_values;   // (count,)
    Maybe<T> grad_events;   // (events.count,) in: 0; out
    Maybe<T> grad_factors;  // (numbers, terms) out
    T* partials;            // scratch: (B, numbers, terms)
};

// The delay of a dense input, (T, B, K), to (T - skip, B, numbers).
template <class T>
struct DelayedElements {
    Samples shape;  // of the input
    int64_t skip, inputs;
    Delays<T> delays;
    const T* elements;  // (T, B, K)

    SRCELL_HOST_DEVICE int64_t steps() const { return shape.steps - skip; }
    SRCELL_HOST_DEVICE int64_t at(int64_t t, int64_t sample, int64_t input) const {
        return (t * shape.batch + sample) * inputs + input;
    }
    SRCELL_HOST_DEVICE int64_t delayed_at(int64_t t, int64_t sample, int64_t number) const {
        return (t * shape.batch + sample) * delays.numbers + number;
    }
};

template <class T>
struct DelayedElementsForward : DelayedElements<T> {
    T* delayed;  // (T - skip, B, numbers) out; zero past a sample's length
};

template <class T>
struct DelayedElementsBackward : DelayedElements<T> {
    const T* grad_delayed;   // (T - skip, B, numbers)
    Maybe<T> grad_elements;  // (T, B, K) out
    Maybe<T> grad_factors;   // (numbers, terms) out
    T* partials;             // scratch: (B, numbers, terms)
};

// One step of Adam, elementwise.
struct AdamStep {
    int64_t count;
    const float* gradient;
    float scale;                        // of the gradient
    float *numbers, *mean, *variance;   // in and out
    float keep_mean, keep_variance;     // beta1 and beta2
    float take_mean, take_variance;     // 1 - beta1 and 1 - beta2
    float rate, inverse_root, epsilon;  // learning rate / (1 - beta1^k), and 1 / sqrt(1 - beta2^k), of step k
};

// Spike counts. For each neuron: the number of elements (t, b) in which it is active (s > 0), and the number of upward
// crossings of 0.5; a sample's first step counts as a crossing if it is above 0.5. Samples are counted in groups.
inline int64_t count_groups(int64_t batch) { return batch < 16 ? batch : 16; }

template <class T>
struct SpikeCounts {
    int64_t steps, batch, neurons;
    int threads;
    const T* spikes;    // (T, B, N)
    int64_t* partials;  // scratch: (count_groups(B), 2, N)
    int64_t* counts;    // (2, N) out
};

}  // namespace srcell
