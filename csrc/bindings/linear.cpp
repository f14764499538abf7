// The kernels of a linear synapse on events, in the compiled module srcell._core: turns arguments into structs,
// releases the GIL, and reports the first invalid offset or index of a batch that a kernel refused. core.cpp calls
// bind_linear().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "arguments.h"

namespace srcell {

void refuse_sample(const EventRows& rows, int64_t steps, int64_t sample) {
    const Events<float> events = rows.of<float>();
    const std::string altered = " (the batch was altered after it was made)";
    if (sample == 0 && events.offsets[0] != 0)
        value_error("offsets: expected the first to be 0, got ", events.offsets[0], altered);
    for (int64_t row = sample * steps; row < (sample + 1) * steps; ++row) {
        const int64_t begin = read_once(events.offsets + row), end = read_once(events.offsets + row + 1);
        if (begin < 0 || end < begin || end > events.count)
            value_error("offsets: expected ascending values in [0, ", events.count, "], got ", begin, " and then ", end,
                        " at position ", row + 1, altered);
        for (int64_t event = begin; event < end; ++event) {
            const int32_t index = read_once(events.indices + event);
            if (index < 0 || index >= events.inputs)
                value_error("indices: expected values in [0, ", events.inputs, "), got ", index, " at position ", event,
                            altered);
        }
    }
    const int64_t last = read_once(events.offsets + (sample + 1) * steps);
    if (last != events.count)
        value_error("offsets: expected the last to be ", events.count, ", the number of indices, got ", last, altered);
    value_error("events: expected a batch that is not altered during a call; sample ", sample, " was");
}

namespace {

void events_forward(const Layer& layer, const Initial& initial, const Outputs& outputs, const EventRows& rows,
                    Address weight, Address trace, Address checkpoints, bool trace_integrator) {
    const int64_t invalid = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const int64_t neurons = layer.shape.neurons;
        const Scratch<T> packed(event_tiles(neurons) * packed_rows(rows.inputs, rows.count) *
                                event_tile_width(neurons));
        const EventsForward<T> p = {forward_of(layer, cell, initial, outputs),
                                    rows.of<T>(),
                                    pointer<const T>(weight),
                                    packed.get(),
                                    pointer<T>(trace),
                                    pointer<T>(checkpoints),
                                    trace_integrator,
                                    false};
        const ReleasedGil release;
        return kernels().of<T>().events_forward(p);
    });
    if (invalid >= 0) refuse_sample(rows, layer.shape.steps, invalid);
}

void events_backward(const Layer& layer, const Outputs& arriving, const Gradients& gradients, const EventRows& rows,
                     Address i0, Address trace, Address checkpoints, Address grad_current, Address grad_weight) {
    const int64_t invalid = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const int64_t batch = layer.shape.batch, neurons = layer.shape.neurons;
        const int64_t weights = event_tiles(neurons) * rows.inputs * event_tile_width(neurons);
        const Scratch<T> partials(count_partials(layer, gradients));
        const Scratch<T> weight_partials(grad_weight ? event_groups(batch, neurons) * weights : 0);
        const EventsBackward<T> p = {backward_of(layer, cell, arriving, gradients, partials.get()),
                                     rows.of<T>(),
                                     pointer<const T>(trace),
                                     pointer<const T>(checkpoints),
                                     pointer<const T>(i0),
                                     pointer<T>(grad_current),
                                     pointer<T>(grad_weight),
                                     weight_partials.get()};
        const ReleasedGil release;
        return kernels().of<T>().events_backward(p);
    });
    if (invalid >= 0) refuse_sample(rows, layer.shape.steps, invalid);
}

// The struct of a layer's lateral weights, whose packed form is `packed`.
template <class T>
Lateral<T> lateral_of(Address weight, bool relu, const Scratch<T>& packed) {
    return {pointer<const T>(weight), packed.get(), relu, false};
}

// Throws for what a kernel of a layer with lateral weights returned, unless that is -1. Without events there are no
// rows.
void check_lateral(int64_t returned, const EventRows* rows, const Layer& layer) {
    if (returned == kOutOfMemory) throw std::bad_alloc();
    if (returned >= 0) refuse_sample(*rows, layer.shape.steps, returned);
}

// The currents are those of the events `rows` through `weight`, or given, if there are no rows.
void lateral_forward(const Layer& layer, const Initial& initial, const Outputs& outputs, const EventRows* rows,
                     Address weight, Address current, Address lateral, Address trace, Address checkpoints,
                     bool trace_integrator) {
    const int64_t returned = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const int64_t neurons = layer.shape.neurons;
        const Scratch<T> packed(
            rows ? event_tiles(neurons) * packed_rows(rows->inputs, rows->count) * event_tile_width(neurons) : 0);
        const Scratch<T> packed_lateral(neurons * lateral_width(neurons));
        LateralForward<T> p = {};
        static_cast<CellForward<T>&>(p) = forward_of(layer, cell, initial, outputs);
        if (rows) p.events = rows->of<T>();
        p.weight = pointer<const T>(weight);
        p.packed_weight = packed.get();
        p.trace = pointer<T>(trace);
        p.checkpoints = pointer<T>(checkpoints);
        p.trace_integrator = trace_integrator;
        p.has_events = rows;
        p.current = pointer<const T>(current);
        p.lateral = lateral_of(lateral, false, packed_lateral);
        const ReleasedGil release;
        return kernels().of<T>().lateral_forward(p);
    });
    check_lateral(returned, rows, layer);
}

void lateral_backward(const Layer& layer, const Outputs& arriving, const Gradients& gradients, const EventRows* rows,
                      Address i0, Address trace, Address checkpoints, Address lateral, bool lateral_relu,
                      Address grad_current, Address grad_weight, Address grad_lateral) {
    const int64_t returned = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const int64_t batch = layer.shape.batch, neurons = layer.shape.neurons;
        const int64_t row = event_tiles(neurons) * event_groups(batch, neurons) * event_tile_width(neurons);
        const Scratch<T> partials(count_partials(layer, gradients));
        const Scratch<T> weight_partials(grad_weight ? rows->inputs * row : 0);
        const Scratch<T> lateral_partials(grad_lateral ? neurons * row : 0);
        const Scratch<T> packed_lateral(neurons * lateral_width(neurons));
        LateralBackward<T> p = {};
        static_cast<CellBackward<T>&>(p) = backward_of(layer, cell, arriving, gradients, partials.get());
        if (rows) p.events = rows->of<T>();
        p.has_events = rows;
        p.i0 = pointer<const T>(i0);
        p.trace = pointer<const T>(trace);
        p.checkpoints = pointer<const T>(checkpoints);
        p.grad_current = pointer<T>(grad_current);
        p.grad_weight = pointer<T>(grad_weight);
        p.weight_partials = weight_partials.get();
        p.lateral = lateral_of(lateral, lateral_relu, packed_lateral);
        p.grad_lateral = pointer<T>(grad_lateral);
        p.lateral_partials = lateral_partials.get();
        const ReleasedGil release;
        return kernels().of<T>().lateral_backward(p);
    });
    check_lateral(returned, rows, layer);
}

void event_dots(const Layer& layer, const EventRows& rows, Address weight_t, Address grad_current, Address grad_values,
                Address grad_input) {
    const int64_t invalid = layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const EventDots<T> p = {layer.shape,
                                rows.of<T>(),
                                pointer<const T>(weight_t),
                                pointer<const T>(grad_current),
                                pointer<T>(grad_values),
                                pointer<T>(grad_input)};
        const ReleasedGil release;
        return kernels().of<T>().event_dots(p);
    });
    if (invalid >= 0) refuse_sample(rows, layer.shape.steps, invalid);
}

void multiply(bool is_double, int64_t rows, int64_t inputs, int64_t neurons, int threads, Address gradients,
              Address weight, Address product) {
    with_type(is_double, [&](auto zero) {
        using T = decltype(zero);
        const Scratch<T> packed(neurons * (inputs + kProductPadding));
        const Product<T> p = {rows,
                              inputs,
                              neurons,
                              threads,
                              pointer<const T>(gradients),
                              pointer<const T>(weight),
                              packed.get(),
                              pointer<T>(product)};
        const ReleasedGil release;
        kernels().of<T>().multiply(p);
    });
}

template <class T>
DenseInput<T> dense_input(const DenseRows& rows) {
    return {rows.shape, rows.inputs, pointer<const T>(rows.elements), pointer<uint64_t>(rows.mask),
            pointer<int64_t>(rows.offsets)};
}

// Returns the number of events.
int64_t count_events(const DenseRows& rows) {
    const auto p = dense_input<float>(rows);  // whatever the type: the kernel reads no elements
    const ReleasedGil release;
    kernels().f32.count_events(p);
    return p.offsets[p.shape.batch * p.shape.steps];
}

// Returns the number of events, and whether all their values are 1.
std::pair<int64_t, bool> mask_events(const DenseRows& rows) {
    return with_type(rows.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p = dense_input<T>(rows);
        const ReleasedGil release;
        const bool ones = kernels().of<T>().mask_events(p);
        return std::pair(p.offsets[p.shape.batch * p.shape.steps], ones);
    });
}

void list_events(const DenseRows& rows, Address indices, Address values) {
    with_type(rows.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p = dense_input<T>(rows);
        const ReleasedGil release;
        kernels().of<T>().list_events(p, pointer<int32_t>(indices), pointer<T>(values));
    });
}

void count_spikes(bool is_double, const Sizes& sizes, int threads, Address spikes, Address counts) {
    with_type(is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto [steps, batch, neurons] = sizes;
        const Scratch<int64_t> partials(count_groups(batch) * 2 * neurons);
        const SpikeCounts<T> p = {
            steps, batch, neurons, threads, pointer<const T>(spikes), partials.get(), pointer<int64_t>(counts)};
        const ReleasedGil release;
        kernels().of<T>().count_spikes(p);
    });
}

}  // namespace
}  // namespace srcell

void bind_linear(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    py::class_<EventRows>(m, "EventRows")
        .def(py::init([](Address offsets, Address indices, Address values, int64_t count, int64_t inputs) {
                 return EventRows{offsets, indices, values, count, inputs};
             }),
             "offsets"_a, "indices"_a, "values"_a, "count"_a, "inputs"_a);
    py::class_<DenseRows>(m, "DenseRows")
        .def(py::init<bool, bool, const Sizes&, Address, int, Address, Address, Address>(), "is_double"_a, "on_host"_a,
             "sizes"_a, "lengths"_a, "threads"_a, "elements"_a, "mask"_a, "offsets"_a);
    m.def("events_forward", &events_forward, "layer"_a, "initial"_a, "outputs"_a, "rows"_a, "weight"_a, "trace"_a,
          "checkpoints"_a, "trace_integrator"_a);
    m.def("events_backward", &events_backward, "layer"_a, "arriving"_a, "gradients"_a, "rows"_a, "i0"_a, "trace"_a,
          "checkpoints"_a, "grad_current"_a, "grad_weight"_a);
    m.def("lateral_forward", &lateral_forward, "layer"_a, "initial"_a, "outputs"_a, "rows"_a.none(true), "weight"_a,
          "current"_a, "lateral"_a, "trace"_a, "checkpoints"_a, "trace_integrator"_a);
    m.def("lateral_backward", &lateral_backward, "layer"_a, "arriving"_a, "gradients"_a, "rows"_a.none(true), "i0"_a,
          "trace"_a, "checkpoints"_a, "lateral"_a, "lateral_relu"_a, "grad_current"_a, "grad_weight"_a,
          "grad_lateral"_a);
    m.def("event_dots", &event_dots, "layer"_a, "rows"_a, "weight_t"_a, "grad_current"_a, "grad_values"_a,
          "grad_input"_a);
    m.def("multiply", &multiply, "is_double"_a, "rows"_a, "inputs"_a, "neurons"_a, "threads"_a, "gradients"_a,
          "weight"_a, "product"_a);
    m.def("mask_events", &mask_events, "rows"_a);
    m.def("count_events", &count_events, "rows"_a);
    m.def("list_events", &list_events, "rows"_a, "indices"_a, "values"_a);
    m.def("count_spikes", &count_spikes, "is_double"_a, "sizes"_a, "threads"_a, "spikes"_a, "counts"_a);
}
