// The gradients of a synapse's weights and of event values, from the gradients of the currents. Knows neither neurons
// nor time loops.
//
// A thread works on some neighbouring weights of one input for one group of samples: it adds the gradients of the
// currents at the input's events. These events are given either sorted or in columns. No sum is atomic, so the order of
// the additions is the CPU's.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

struct Row {
    int64_t sample, t;  // t is -1 past the last row and past its sample's length
};

SRCELL_INLINE Row row_of(const ScanShape& shape, int64_t row) {
    if (row >= shape.batch * shape.steps) return {0, -1};
    const int64_t sample = row / shape.steps, t = row % shape.steps;
    return {sample, t < steps_of(shape, sample) ? t : -1};
}

// A thread handles one row of events.
template <class Key>
struct EventKeysBody {
    EventKeys p;

    SRCELL_INLINE void run(const Place& place) const {
        const Row row = row_of(p.shape, place.item());
        if (row.t < 0) return;
        const int64_t size = event_group_size(p.shape.batch, p.shape.neurons);
        const int64_t segment_count = segments(p.shape.steps, kEventSegment);
        const int64_t in_input = row.sample % size * segment_count + (segment_count - 1 - row.t / kEventSegment);
        Key* const keys = static_cast<Key*>(p.keys);
        for_each_event(p.events, place.item(), [&](int64_t e, uint32_t index) {
            p.positions[e] = row.t * p.shape.batch + row.sample;
            if (!keys) return;
            const int64_t key = (row.sample / size * p.events.inputs + index) * key_stride(p.shape) + in_input;
            keys[e] = static_cast<Key>(key);
        });
    }
};

inline void event_keys(Queue& queue, const EventKeys& p) {
    const Launch how = spread(queue, p.shape.batch * p.shape.steps);
    if (p.narrow)
        launch(queue, how, EventKeysBody<int32_t>{p});
    else
        launch(queue, how, EventKeysBody<int64_t>{p});
}

// Atomically flips bits of a word; returns its value before.
SRCELL_INLINE uint32_t flip_bits(uint32_t* word, uint32_t bits) {
#if defined(__CUDA_ARCH__)
    return atomicXor(word, bits);
#else
    return std::exchange(*word, *word ^ bits);
#endif
}

// A thread counts the events of one row in one bit of the words of ColumnCounts; threads of other rows change other
// bits of the same words.
struct EventColumnsBody {
    EventColumns p;

    SRCELL_INLINE void run(const Place& place) const {
        const Row row = row_of(p.shape, place.item());
        if (row.t < 0) return;
        const uint32_t bit = uint32_t(1) << row.t % kEventSegment;
        const int64_t segment = row.sample * segments(p.shape.steps, kEventSegment) + row.t / kEventSegment;
        ColumnCounts* const of_segment = p.counts + segment * p.events.inputs;
        for_each_event(p.events, place.item(), [&](int64_t, uint32_t index) {
            uint32_t* const digits = of_segment[index].digits;
            uint32_t carry = bit;
            for (int k = 0; k < 4 && carry; ++k) carry &= flip_bits(digits + k, bit);
            for (int k = 0; k < 4 && carry; ++k) flip_bits(digits + k, bit);  // from 0 back to 15
        });
    }
};

inline void event_columns(Queue& queue, const EventColumns& p) {
    launch(queue, spread(queue, p.shape.batch * p.shape.steps), EventColumnsBody{p});
}

template <class T, int width>
struct alignas(width * sizeof(T)) Neighbours {
    T of[width];
};

template <class T>
struct FoundEvent {
    const T* grad_current;  // of the first neuron at the event's step and sample
    Value<T> value;
};

// The sums for the weights of one input and `width` neighbouring neurons.
template <class T, int width>
struct WeightSums {
    static constexpr int kEventsAtATime = 4;
    Value<T> of[width];

    // Adds the events find(0), find(1), ...: `count` of them, but at most kEventsAtATime. Finds all events, then reads
    // all gradients, then adds.
    template <class Find>
    SRCELL_INLINE void add(int64_t count, Find find) {
        // Initialised because GCC warns that elements past `count` may be read.
        FoundEvent<T> found[kEventsAtATime] SRCELL_ON_DEVICE(, = {});
        Neighbours<T, width> grads[kEventsAtATime] SRCELL_ON_DEVICE(, = {});
        for (int k = 0; k < kEventsAtATime; ++k)
            if (k < count) found[k] = find(k);
        for (int k = 0; k < kEventsAtATime; ++k)
            if (k < count) grads[k] = read(found[k].grad_current);
        for (int k = 0; k < kEventsAtATime; ++k)
            if (k < count) add_one(found[k].value, grads[k]);
    }
    SRCELL_INLINE void add_repeated(const FoundEvent<T>& found, int64_t times) {
        const Neighbours<T, width> grads = read(found.grad_current);
        for (int64_t n = 0; n < times; ++n) add_one(found.value, grads);
    }
    SRCELL_INLINE void add_one(Value<T> value, const Neighbours<T, width>& grads) {
        for (int j = 0; j < width; ++j) of[j] = fma(value, Value<T>{grads.of[j]}, of[j]);
    }
    static SRCELL_INLINE Neighbours<T, width> read(const T* x) {
        return *static_cast<const Neighbours<T, width>*>(static_cast<const void*>(x));
    }
};

template <class T, int width>
SRCELL_INLINE void add_events(const DeviceWeightSums<T>& p, const SortedEvents<T>& events, int64_t group, int64_t input,
                              int64_t neuron, WeightSums<T, width>& sums) {
    const int64_t* starts = events.starts + group * p.inputs + input;
    for (int64_t first = starts[0], end = starts[1]; first < end; first += sums.kEventsAtATime)
        sums.add(end - first, [&](int k) -> FoundEvent<T> {
            return {p.grad_current + events.positions[first + k] * p.shape.neurons + neuron,
                    {events.values ? events.values[first + k] : T(1)}};
        });
}

// How many events of an input a row has.
template <class T>
SRCELL_INLINE int64_t count_events(const Events<T>& events, int64_t row, int64_t input) {
    int64_t count = 0;
    for_each_event(events, row, [&](int64_t, uint32_t index) { count += index == input; });
    return count;
}

// Columns is a CountedEvents, whose events have the value 1, or a DenseColumns.
template <class Columns, class T, int width>
SRCELL_INLINE void add_events(const DeviceWeightSums<T>& p, const Columns& from, int64_t group, int64_t input,
                              int64_t neuron, WeightSums<T, width>& sums) {
    constexpr bool dense = std::is_same_v<Columns, DenseColumns<T>>;
    const int64_t steps = p.shape.steps, batch = p.shape.batch, segment_count = segments(steps, kEventSegment);
    const int64_t size = event_group_size(batch, p.shape.neurons), past = group * size + size;
    const int64_t end = past < batch ? past : batch, plane = batch * p.shape.neurons, values_plane = batch * p.inputs;
    for (int64_t sample = group * size; sample < end; ++sample) {
        // The positions of a segment's word, first gradient and first value; they move from the last segment to the
        // first.
        int64_t word = (sample + 1) * segment_count * p.inputs + input, step = segment_count * kEventSegment;
        int64_t grad = (step * batch + sample) * p.shape.neurons + neuron;
        int64_t value = (step * batch + sample) * p.inputs + input;
        while (step) {
            step -= kEventSegment;
            word -= p.inputs;
            grad -= kEventSegment * plane;
            value -= kEventSegment * values_plane;
            uint32_t bits = 0;
            const auto find = [&](int) -> FoundEvent<T> {
                const auto t = static_cast<uint32_t>(lowest_bit(bits));
                bits &= bits - 1;
                if constexpr (dense)
                    return {p.grad_current + grad + t * plane, {from.elements[value + t * values_plane]}};
                else
                    return {p.grad_current + grad + t * plane, {T(1)}};
            };
            const auto add_all = [&] {
                while (bits) sums.add(count_bits(bits), find);
            };
            if constexpr (dense) {
                bits = from.columns[word];
                add_all();
            } else {
                const ColumnCounts counts = from.counts[word];
                const uint32_t *digit = counts.digits, several = digit[1] | digit[2] | digit[3];
                bits = digit[0] | several;
                if (!several) add_all();
                while (bits) {
                    const int j = lowest_bit(bits);
                    int64_t times = 0;
                    for (int k = 0; k < 4; ++k) times += (digit[k] >> j & 1) << k;
                    if (times == 15) times = count_events(from.events, sample * steps + step + j, input);
                    sums.add_repeated(find(0), times);
                }
            }
        }
    }
}

// A thread computes the gradients of `width` weights.
template <class T, class Source, int width>
struct WeightGradientBody {
    DeviceWeightSums<T> p;
    Source source;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item() * width, neurons = p.shape.neurons, each = p.inputs * neurons;
        if (item >= event_groups(p.shape.batch, neurons) * each) return;
        const int64_t group = item / each, input = item % each / neurons, neuron = item % neurons;
        WeightSums<T, width> sums = {};
        add_events(p, source, group, input, neuron, sums);
        for (int j = 0; j < width; ++j) p.partials[item + j] = sums.of[j].x;
    }
};

template <class Source, class T>
void sum_groups(Queue& queue, const DeviceWeightSums<T>& p, const Source& source) {
    constexpr int kWidth = 4;
    const int64_t neurons = p.shape.neurons, items = event_groups(p.shape.batch, neurons) * p.inputs * neurons;
    if constexpr (sizeof(T) == sizeof(float)) {  // for float64 a thread computes one weight's gradient
        const bool aligned = reinterpret_cast<uintptr_t>(p.grad_current) % (kWidth * sizeof(T)) == 0;
        // With fewer neurons, the threads of a warp would work on different inputs.
        if (aligned && neurons % kWidth == 0 && neurons >= kWidth * kWarp)
            return launch(queue, spread(queue, items / kWidth), WeightGradientBody<T, Source, kWidth>{p, source});
    }
    launch(queue, spread(queue, items), WeightGradientBody<T, Source, 1>{p, source});
}

template <class T>
void weight_gradient(Queue& queue, const DeviceWeightGradient<T>& p) {
    std::visit([&](const auto& source) { sum_groups(queue, p, source); }, p.source);
    const int64_t neurons = p.shape.neurons, groups = event_groups(p.shape.batch, neurons);
    launch(queue, spread(queue, p.inputs * neurons),
           GroupSums<T>{p.partials, p.grad_weight, groups, p.inputs, neurons});
}

// A warp handles one event.
template <class T>
struct EventDotsBody {
    DeviceEventDots<T> p;

    SRCELL_INLINE void load(const Place& place) const {
        const int64_t event = place.item() / kWarp;
        T sum = 0;
        if (event < p.events.count && p.positions[event] >= 0) {
            const T* weights = p.weight_t + input_or_first(p.events.indices + event, p.events.inputs) * p.neurons;
            sum = lane_of_dot(place, weights, p.grad_current + p.positions[event] * p.neurons, p.neurons);
        }
        place.shared_as<T>()[place.thread] = sum;
    }

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t event = place.item() / kWarp;
        if (place.thread % kWarp == 0 && event < p.events.count) p.grad_values[event] = sum_of_lanes<T>(place).x;
    }
};

template <class T>
void event_dots(Queue& queue, const DeviceEventDots<T>& p) {
    launch(queue, spread(queue, p.events.count * kWarp, sizeof(T)), EventDotsBody<T>{p});
}

}  // namespace device
}  // namespace srcell
