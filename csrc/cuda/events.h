// The time loop over events on a GPU, and the weight gradient event by event. Knows events and weights, and never looks
// inside the equations.
//
// Forwards, a thread takes one neuron of one sample: at each step it adds the weights of the step's events in order and
// then advances the cell, so a current exists for one step only. Neighbouring threads read neighbouring elements of the
// transposed weight. A block first copies the weights of its neurons to shared memory if they fit and enough events use
// them. Backwards, a first kernel computes the gradient of every current; then a thread takes one weight of one group
// of samples and adds the gradients of the currents at its input's events.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

// Input as rows of events. An event with an invalid offset or index is skipped.
template <class T>
struct RowEvents {
    Events<T> events;

    // The input current of a neuron of a sample at a step: the sum over events of value times weight, from +0.
    SRCELL_INLINE Value<T> gather(const ScanShape& shape, int64_t sample, int64_t t, const T* weights,
                                  int64_t stride) const {
        Value<T> sum = splat<Value<T>>(0);
        const int64_t* offsets = events.offsets + sample * shape.steps + t;
        const int64_t begin = offsets[0] < 0 ? events.count : offsets[0];
        const int64_t end = offsets[1] > events.count ? 0 : offsets[1];
        for (int64_t e = begin; e < end; ++e) {
            // Compared as unsigned: a negative index becomes larger than any valid one.
            const auto index = static_cast<uint32_t>(events.indices[e]);
            if (index >= static_cast<uint64_t>(events.inputs)) continue;
            const Value<T> weight = {weights[index * stride]};
            sum = events.values ? fma(Value<T>{events.values[e]}, weight, sum) : sum + weight;
        }
        return sum;
    }
};

// Input as a dense array and the mask of its nonzero elements.
template <class T>
struct MaskedElements {
    const uint64_t* mask;
    const T* elements;
    int64_t inputs;

    SRCELL_INLINE Value<T> gather(const ScanShape& shape, int64_t sample, int64_t t, const T* weights,
                                  int64_t stride) const {
        Value<T> sum = splat<Value<T>>(0);
        const int64_t words = mask_words(inputs);
        const uint64_t* row = mask + (sample * shape.steps + t) * words;
        const T* values = elements + (t * shape.batch + sample) * inputs;
        for (int64_t w = 0; w < words; ++w)
            for (uint64_t bits = row[w]; bits; bits &= bits - 1) {
                const int64_t k = w * 64 + lowest_bit(bits);
                if (k < inputs) sum = fma(Value<T>{values[k]}, Value<T>{weights[k * stride]}, sum);
            }
        return sum;
    }
};

template <class T, bool save, class Input>
SRCELL_INLINE void events_forward_chain(const DeviceEventsForward<T>& p, const Input& input, int64_t sample,
                                        int64_t neuron, const T* weights, int64_t stride) {
    using V = Value<T>;
    const int64_t plane = p.shape.batch * p.shape.neurons, element = sample * p.shape.neurons + neuron;
    const int64_t steps = steps_of(p.shape, sample);
    const Cell<V> cell = cell_of(p.cell, neuron);
    State<V> state = initial_state(p, element);
    for (int64_t t = 0; t < steps; ++t) {
        const int64_t at = t * plane + element;
        if (save && t % kSegment == 0) {
            T* checkpoint = p.checkpoints + t / kSegment * 2 * plane + element;
            checkpoint[0] = state.h.x;
            checkpoint[plane] = state.hs.x;
        }
        const Trace<V> made = step(cell, state, input.gather(p.shape, sample, t, weights, stride));
        p.spikes[at] = spike(state.h).x;
        if (save) p.trace[at] = p.trace_integrator ? state.i.x : made.drive.x;
    }
    for (int64_t t = steps; t < p.shape.steps; ++t) {
        p.spikes[t * plane + element] = 0;
        if (save) p.trace[t * plane + element] = 0;
    }
    if (save)
        for (int64_t row = 2 * segments(steps); row < 2 * segments(p.shape.steps); ++row)
            p.checkpoints[row * plane + element] = 0;
    store_final(p, state, element);
}

constexpr int kTileSamples = 16;

// Reads the weights from global memory.
template <class T, bool save, class Input>
struct EventsForwardBody {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    DeviceEventsForward<T> p;
    Input input;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item();
        if (element >= p.shape.batch * p.shape.neurons) return;
        const int64_t sample = element / p.shape.neurons, neuron = element - sample * p.shape.neurons;
        events_forward_chain<T, save>(p, input, sample, neuron, element_or_null(p.weight_t, neuron), p.shape.neurons);
    }
};

// Copies the weights of kWarp neurons to the block's shared memory. Each warp of the block takes one sample.
template <class T, bool save, class Input>
struct EventsForwardTileBody {
    static constexpr int kMaxThreads = kTileSamples * kWarp;
    static constexpr bool kLoads = true;
    DeviceEventsForward<T> p;
    Input input;
    int64_t inputs;

    SRCELL_HOST_DEVICE int64_t tiles() const { return ceil_div(p.shape.neurons, kWarp); }

    // Each thread reads kAtOnce weights before it stores one: their latencies overlap.
    SRCELL_INLINE void load(const Place& place) const {
        constexpr int kAtOnce = 8;
        const int lane = place.thread % kWarp, warps = place.threads / kWarp;
        const int64_t neuron = place.block % tiles() * kWarp + lane;
        T* const shared = place.shared_as<T>();
        for (int64_t first = place.thread / kWarp; first < inputs; first += kAtOnce * warps) {
            T weights[kAtOnce];
            for (int j = 0; j < kAtOnce; ++j) {
                const int64_t k = first + j * warps;
                weights[j] = k < inputs && neuron < p.shape.neurons ? p.weight_t[k * p.shape.neurons + neuron] : T(0);
            }
            for (int j = 0; j < kAtOnce; ++j)
                if (first + j * warps < inputs) shared[(first + j * warps) * kWarp + lane] = weights[j];
        }
    }

    SRCELL_INLINE void run(const Place& place) const {
        const int lane = place.thread % kWarp;
        const int64_t neuron = place.block % tiles() * kWarp + lane;
        const int64_t sample = place.block / tiles() * (place.threads / kWarp) + place.thread / kWarp;
        if (neuron >= p.shape.neurons || sample >= p.shape.batch) return;
        events_forward_chain<T, save>(p, input, sample, neuron, place.shared_as<T>() + lane, kWarp);
    }
};

// Samples per block of EventsForwardTileBody; 0 if the weights do not fit in shared memory or too few events would use
// them. `events` is the number of events of all samples.
inline int tile_samples(const Limits& limits, const ScanShape& shape, int64_t inputs, int64_t events) {
    if (inputs * kWarp * int64_t(sizeof(float)) > limits.shared_bytes) return 0;
    int samples = kTileSamples;
    // Fewer samples per block if there would otherwise be fewer blocks than processors.
    while (samples > 1 && ceil_div(shape.neurons, kWarp) * ceil_div(shape.batch, samples) < limits.processors)
        samples /= 2;
    // Copying pays off if, on average, at least two events of the block use each row of weights.
    return events / shape.batch * samples < 2 * inputs ? 0 : samples;
}

template <class T, class Input>
void events_forward(Queue& queue, const DeviceEventsForward<T>& p, const Input& input, int64_t inputs, int64_t events) {
    if (p.shape.batch * p.shape.neurons == 0) return;
    if constexpr (sizeof(T) == sizeof(float)) {  // a thread of a full block has too few registers for float64
        const int samples = tile_samples(queue.limits, p.shape, inputs, events);
        const auto in_tiles = [&](auto save) {
            const EventsForwardTileBody<T, decltype(save)::value, Input> body = {p, input, inputs};
            const int64_t groups = ceil_div(p.shape.batch, samples);
            const auto bytes = static_cast<int>(inputs * kWarp * int64_t(sizeof(T)));
            launch(queue, {body.tiles() * groups, samples * kWarp, bytes}, body);
        };
        if (samples) {
            p.trace ? in_tiles(std::true_type{}) : in_tiles(std::false_type{});
            return;
        }
    }
    const Launch how = spread(queue, p.shape.batch * p.shape.neurons);
    if (p.trace)
        launch(queue, how, EventsForwardBody<T, true, Input>{p, input});
    else
        launch(queue, how, EventsForwardBody<T, false, Input>{p, input});
}

template <class T>
void events_forward(Queue& queue, const DeviceEventsForward<T>& p) {
    const DeviceInput<T>& input = p.input;
    const int64_t inputs = input.events.inputs;
    if (input.events.offsets)
        events_forward(queue, p, RowEvents<T>{input.events}, inputs, input.events.count);
    else  // the number of events is not known here: assume every tenth element
        events_forward(queue, p, MaskedElements<T>{input.mask, input.elements, inputs}, inputs,
                       p.shape.batch * p.shape.steps * inputs / 10);
}

// Recomputes a segment's steps from the trace: the drive of each step, or the integrator if parameters need a gradient.
template <class T, bool parameters>
struct TraceReplay {
    const DeviceEventsBackward<T>& p;
    int64_t element, plane;

    SRCELL_INLINE State<Value<T>> begin(int64_t step) const {
        const T* checkpoint = p.checkpoints + step / kSegment * 2 * plane + element;
        Value<T> i = splat<Value<T>>(0);
        if (parameters) i = step ? Value<T>{p.trace[(step - 1) * plane + element]} : value_or_zero(p.i0, element);
        return {i, {checkpoint[0]}, {checkpoint[plane]}};
    }
    SRCELL_INLINE Value<T> read(int64_t t) const { return {p.trace[t * plane + element]}; }
    SRCELL_INLINE Trace<Value<T>> advance(const Cell<Value<T>>& cell, State<Value<T>>& state, Value<T> drive) const {
        if (parameters) {
            state.i = drive;
            drive = drive_of(cell, state.i);
        }
        return {drive, respond(cell, state, drive)};
    }
};

template <class T, bool recurrent, bool parameters>
struct EventsBackwardBody {
    static constexpr int kMaxThreads = kThreads, kMinBlocks = backward_blocks<T, recurrent, parameters>;
    static constexpr bool kLoads = false;
    DeviceEventsBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const TraceReplay<T, parameters> replay = {p, element, plane};
        backward_chain<recurrent, parameters>(p, chain_at(p.shape, element), replay, p.grad_spikes, p.grad_current,
                                              place.shared_as<T>() + place.thread, place.threads);
    }
};

template <class T>
void events_backward(Queue& queue, const DeviceEventsBackward<T>& p) {
    launch_backward<EventsBackwardBody, T>(queue, p);
    reduce_parameters(queue, p);
}

// A thread takes one row of events.
struct EventKeysBody {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    EventKeys p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t row = place.item(), steps = p.shape.steps;
        if (row >= p.shape.batch * steps) return;
        const int64_t sample = row / steps, t = row % steps;
        if (t >= steps_of(p.shape, sample)) return;
        const int64_t size = event_group_size(p.shape.batch, p.shape.neurons);
        const int64_t segment_count = segments(steps, kEventSegment);
        const int64_t in_input = sample % size * segment_count + (segment_count - 1 - t / kEventSegment);
        const int64_t begin = p.events.offsets[row] < 0 ? p.events.count : p.events.offsets[row];
        const int64_t end = p.events.offsets[row + 1] > p.events.count ? 0 : p.events.offsets[row + 1];
        for (int64_t e = begin; e < end; ++e) {
            const auto index = static_cast<uint32_t>(p.events.indices[e]);
            if (index >= static_cast<uint64_t>(p.events.inputs)) continue;
            p.keys[e] = (sample / size * p.events.inputs + index) * key_stride(p.shape) + in_input;
            p.positions[e] = t * p.shape.batch + sample;
        }
    }
};

inline void event_keys(Queue& queue, const EventKeys& p) {
    launch(queue, spread(queue, p.shape.batch * p.shape.steps), EventKeysBody{p});
}

template <class T>
SRCELL_INLINE Value<T> sum_sorted_events(const DeviceWeightGradient<T>& p, int64_t group, int64_t input,
                                         int64_t neuron) {
    Value<T> sum = splat<Value<T>>(0);
    const int64_t* starts = p.starts + group * p.inputs + input;
    for (int64_t k = starts[0]; k < starts[1]; ++k) {
        const int64_t event = p.sorted[k];
        const Value<T> delta = {p.grad_current[p.positions[event] * p.shape.neurons + neuron]};
        sum = p.values ? fma(Value<T>{p.values[event]}, delta, sum) : sum + delta;
    }
    return sum;
}

template <class T>
SRCELL_INLINE Value<T> sum_column_events(const DeviceWeightGradient<T>& p, int64_t group, int64_t input,
                                         int64_t neuron) {
    Value<T> sum = splat<Value<T>>(0);
    const int64_t size = event_group_size(p.shape.batch, p.shape.neurons);
    const int64_t segment_count = segments(p.shape.steps, kEventSegment);
    const int64_t end = group * size + size < p.shape.batch ? group * size + size : p.shape.batch;
    for (int64_t sample = group * size; sample < end; ++sample)
        for (int64_t segment = segment_count - 1; segment >= 0; --segment)
            for (uint32_t bits = p.columns[(sample * segment_count + segment) * p.inputs + input]; bits;
                 bits &= bits - 1) {
                const int64_t row = (segment * kEventSegment + lowest_bit(bits)) * p.shape.batch + sample;
                const Value<T> delta = {p.grad_current[row * p.shape.neurons + neuron]};
                sum = fma(Value<T>{p.elements[row * p.inputs + input]}, delta, sum);
            }
    return sum;
}

// A thread takes one weight of one group of samples.
template <class T, bool sorted>
struct WeightGradientBody {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    DeviceWeightGradient<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), each = p.inputs * p.shape.neurons;
        if (item >= event_groups(p.shape.batch, p.shape.neurons) * each) return;
        const int64_t group = item / each, input = item % each / p.shape.neurons, neuron = item % p.shape.neurons;
        p.partials[item] =
            (sorted ? sum_sorted_events(p, group, input, neuron) : sum_column_events(p, group, input, neuron)).x;
    }
};

template <class T>
struct GroupSums {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    DeviceWeightGradient<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), each = p.inputs * p.shape.neurons;
        if (item >= each) return;
        const int64_t groups = event_groups(p.shape.batch, p.shape.neurons);
        p.grad_weight[item % p.shape.neurons * p.inputs + item / p.shape.neurons] =
            groups ? tree_sum<kTreeLeaves>(p.partials + item, each, groups).x : T(0);
    }
};

template <class T>
void weight_gradient(Queue& queue, const DeviceWeightGradient<T>& p) {
    const int64_t each = p.inputs * p.shape.neurons;
    const Launch how = spread(queue, event_groups(p.shape.batch, p.shape.neurons) * each);
    if (p.starts)
        launch(queue, how, WeightGradientBody<T, true>{p});
    else
        launch(queue, how, WeightGradientBody<T, false>{p});
    launch(queue, spread(queue, each), GroupSums<T>{p});
}

// A warp takes an event: lane j sums the neurons j, j + kWarp, ..., and the first lane adds the lanes in a tree.
template <class T>
struct EventDotsBody {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = true;
    DeviceEventDots<T> p;

    SRCELL_INLINE void load(const Place& place) const {
        const int64_t event = place.item() / kWarp;
        Value<T> sum = splat<Value<T>>(0);
        if (event < p.events.count && p.keys[event] != kNoKey) {
            const T* weights = p.weight_t + p.events.indices[event] * p.neurons;
            const T* grad = p.grad_current + p.positions[event] * p.neurons;
            for (int64_t n = place.thread % kWarp; n < p.neurons; n += kWarp)
                sum = fma(Value<T>{weights[n]}, Value<T>{grad[n]}, sum);
        }
        place.shared_as<T>()[place.thread] = sum.x;
    }

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t event = place.item() / kWarp;
        if (place.thread % kWarp != 0 || event >= p.events.count) return;
        T* const lanes = place.shared_as<T>() + place.thread;
        for (int half = kWarp / 2; half; half /= 2)
            for (int j = 0; j < half; ++j) lanes[j] = (Value<T>{lanes[j]} + Value<T>{lanes[j + half]}).x;
        p.grad_values[event] = lanes[0];
    }
};

template <class T>
void event_dots(Queue& queue, const DeviceEventDots<T>& p) {
    launch(queue, spread(queue, p.events.count * kWarp, sizeof(T)), EventDotsBody<T>{p});
}

}  // namespace device
}  // namespace srcell
