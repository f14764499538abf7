// Runs the device code of the CUDA kernels on the host, on the test problems of the CPU's kernels: the calls that the
// operators make on a GPU, and torch's work between them.
#pragma once

#include <algorithm>
#include <limits>
#include <numeric>

#include "../../csrc/cuda/events.h"
#include "../../csrc/cuda/masks.h"
#include "../../csrc/cuda/synapse.h"
#include "encode_problem.h"
#include "events_problem.h"

namespace srcell {

// A GPU for the tests, as limits {processors, bytes of shared memory per block}: one without shared memory for weights,
// an H100, and one with the shared memory of an H100 and a single processor.
struct Card {
    device::Limits limits;
    device::Queue queue() const { return {limits}; }

    // The same interface as the CPU's kernels.
    template <class T>
    const Card& of() const {
        return *this;
    }
    template <class T>
    void scan_forward(const ScanForward<T>& p) const {
        device::Queue on = queue();
        device::scan_forward(on, DeviceScanForward<T>{p, p.current, Element::same, nullptr, p.checkpoints});
    }
    template <class T>
    void scan_backward(const ScanBackward<T>& p) const {
        device::Queue on = queue();
        device::scan_backward(
            on, DeviceScanBackward<T>{p, p.current, Element::same, nullptr, p.checkpoints, p.grad_current});
    }
};

inline const Card kCards[] = {{{3, 0}}, {{132, 227 << 10}}, {{1, 227 << 10}}};

// A test tries all cards, a fuzz target one of them.
inline std::vector<Card> cards(Input& in) {
    if (in.thorough()) return {std::begin(kCards), std::end(kCards)};
    return {kCards[in.below(3)]};
}

template <class T>
Array<T> transposed(const Array<T>& weight, int64_t neurons, int64_t inputs) {
    Array<T> weight_t(inputs * neurons);
    for (int64_t k = 0; k < inputs; ++k)
        for (int64_t n = 0; n < neurons; ++n) weight_t[k * neurons + n] = weight[n * inputs + k];
    return weight_t;
}

template <class T>
Events<float> without_values(const Events<T>& events) {
    return {events.offsets, events.indices, nullptr, events.count, events.inputs};
}

// Torch's work between the kernels: it sorts the events by key and finds where each (group, input) starts.
struct SortedByKey {
    Array<int64_t> found, positions, starts;  // found: positions as event_keys() wrote them; positions: sorted by key
    Array<int32_t> order;

    template <class T, class Key>
    SortedByKey(const Card& card, const ScanShape& shape, const Events<T>& events, Key)
        : found(events.count),
          positions(events.count),
          starts(event_groups(shape.batch, shape.neurons) * events.inputs + 1),
          order(events.count) {
        Array<Key> keys(events.count);
        std::fill(keys.begin(), keys.end(), std::numeric_limits<Key>::max());
        std::fill(found.begin(), found.end(), -1);
        device::Queue queue = card.queue();
        device::event_keys(queue,
                           EventKeys{shape, without_values(events), keys.data(), sizeof(Key) == 4, found.data()});
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return keys[a] < keys[b]; });
        for (int64_t k = 0; k < events.count; ++k) positions[k] = found[order[k]];
        for (int64_t k = 0; k < starts.size(); ++k)
            starts[k] = std::partition_point(order.begin(), order.end(),
                                             [&](int32_t event) { return keys[event] < k * key_stride(shape); }) -
                        order.begin();
    }

    template <class T>
    Array<T> sorted(const Array<T>& values) const {
        Array<T> made(values.size());
        for (int64_t k = 0; k < made.size(); ++k) made[k] = values[order[k]];
        return made;
    }
};

// The gradient of the weight from the gradient of the currents.
template <class T>
struct WeightGradient {
    const Card& card;
    const ScanShape shape;
    const Events<T> events;
    const Array<T>& grad_current;
    const int poison;

    template <class Source>
    Array<T> run(const Source& source) const {
        Array<T> made(shape.neurons * events.inputs, poison);
        Array<T> partials(event_groups(shape.batch, shape.neurons) * made.size(), poison);
        device::Queue queue = card.queue();
        device::weight_gradient(
            queue,
            DeviceWeightGradient<T>{{shape, events.inputs, grad_current.data(), partials.data()}, source, made.data()});
        return made;
    }

    // From sorted events, with keys of 32 or 64 bits.
    template <class Key>
    Array<T> by_keys(const Array<T>& values, Key zero) const {
        const SortedByKey sorted(card, shape, events, zero);
        const Array<T> in_order = sorted.sorted(values);
        return run(SortedEvents<T>{sorted.starts.data(), sorted.positions.data(), in_order.data_if(events.values)});
    }

    // From columns, for events without values.
    Array<T> by_columns() const {
        Array<ColumnCounts> counts(shape.batch * segments(shape.steps, kEventSegment) * events.inputs);
        std::fill(counts.begin(), counts.end(), ColumnCounts{});
        device::Queue queue = card.queue();
        device::event_columns(queue, EventColumns{shape, without_values(events), counts.data()});
        return run(CountedEvents<T>{counts.data(), events});
    }
};

// The events as a dense input, with its mask and columns.
template <class T>
struct Dense {
    Array<T> elements;
    Array<uint64_t> mask;
    Array<uint32_t> columns;

    Dense(const Card& card, const ScanShape& shape, const EventRows<T>& rows)
        : elements(shape.steps * shape.batch * rows.inputs),
          mask(shape.batch * shape.steps * mask_words(rows.inputs), kOtherPoison),
          columns(shape.batch * segments(shape.steps, kEventSegment) * rows.inputs, kOtherPoison) {
        std::fill(elements.begin(), elements.end(), T(0));
        for (int64_t row = 0; row < shape.batch * shape.steps; ++row)
            for (int64_t e = rows.offsets[row]; e < rows.offsets[row + 1]; ++e)
                elements[(row % shape.steps * shape.batch + row / shape.steps) * rows.inputs + rows.indices[e]] =
                    rows.with_values ? rows.values[e] : T(1);
        device::Queue queue = card.queue();
        const DeviceMask<T> p = {shape, rows.inputs, elements.data(), mask.data(), columns.data()};
        device::mask_elements(queue, p);
        device::mask_columns(queue, p);
    }
};

// The passes over events as rows or, if `masked`, over the mask of a dense input; results in the order of run().
template <class T>
Result<T> run_on(const Card& card, const CellInputs<T>& in, const EventRows<T>& rows, const Array<T>& weight,
                 const Wanted& wanted, bool masked, int poison) {
    device::Queue queue = card.queue();
    const Events<T> events = rows.events();
    CellOutputs<T> out(in, poison);
    const CellForward<T> forward = out.forward(1);
    const Array<T> weight_t = transposed(weight, in.o.neurons, rows.inputs);
    Array<T> trace = out.plane(wanted.save ? in.o.steps : 0), grad_current = out.plane(wanted.save ? in.o.steps : 0);
    Array<T> checkpoints = out.plane(wanted.save ? segments(in.o.steps) * (states_of(in.o.resonant) - 1) : 0);
    const Dense<T> dense(card, forward.shape, rows);
    DeviceInput<T> input = events;
    if (masked) input = MaskedElements<T>{dense.mask.data(), dense.elements.data(), rows.inputs};
    device::events_forward(
        queue,
        DeviceEventsForward<T>{{forward, trace.data(), checkpoints.data(), in.o.parameters}, weight_t.data(), input});
    Result<T> result;
    out.add_forward(result);
    if (!wanted.save) return result;
    device::events_backward(queue, TracedBackward<T>{out.backward(1), trace.data(), checkpoints.data(),
                                                     in.i0.data_if(in.o.initial_state), grad_current.data()});
    out.add_backward(result);
    if (wanted.grad_current) result.add(grad_current);
    if (!wanted.grad_weight) return result;
    const WeightGradient<T> gradient = {card, forward.shape, events, grad_current, poison};
    if (masked) {
        result.add(gradient.run(DenseColumns<T>{dense.columns.data(), dense.elements.data()}));
        return result;
    }
    const Array<T> by_keys = gradient.by_keys(rows.values, int32_t(0));
    CHECK(same(gradient.by_keys(rows.values, int64_t(0)), by_keys));
    CHECK(events.values || same(gradient.by_columns(), by_keys));
    result.add(by_keys);
    return result;
}

inline Encoded encode_on(const Card& card, const EncodeProblem& q) {
    device::Queue queue = card.queue();
    const int64_t rows = q.samples * q.rows();
    Array<uint64_t> mask(q.samples * q.steps * mask_words(q.pixels), kOtherPoison);
    device::rate_mask(
        queue, {q.images.data(), q.index.data(), q.samples, q.pixels, q.steps, q.gain, q.seed, mask.data(), q.thinned});
    Array<int64_t> counts(rows, kOtherPoison), offsets(rows + 1);
    MaskEvents events = {q.samples, q.steps, q.prefix, q.pixels, mask.data(), counts.data(), offsets.data(), nullptr};
    device::count_mask(queue, events);
    offsets[0] = 0;
    std::partial_sum(counts.begin(), counts.end(), offsets.begin() + 1);
    Array<int32_t> indices(offsets[rows]);
    events.indices = indices.data();
    device::list_mask(queue, events);
    return {-1, {offsets.begin(), offsets.end()}, {indices.begin(), indices.end()}};
}

}  // namespace srcell
