// The kernels behind a linear synapse on events: turns arguments into structs, releases the GIL, and names the first
// offset or index that a kernel refused. core.cpp calls bind_linear().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "arguments.h"

namespace srcell {
namespace {

// Says what is wrong with a sample that a kernel refused.
template <class T>
[[noreturn]] void refuse_sample(const Events<T>& events, int64_t steps, int64_t sample) {
    const std::string altered = " (the batch was altered after it was made)";
    if (sample == 0 && events.offsets[0] != 0)
        value_error("offsets: expected the first to be 0, got ", events.offsets[0], altered);
    for (int64_t row = sample * steps; row < (sample + 1) * steps; ++row) {
        const int64_t begin = events.offsets[row], end = events.offsets[row + 1];
        if (begin < 0 || end < begin || end > events.count)
            value_error("offsets: expected ascending values in [0, ", events.count, "], got ", begin, " and then ", end,
                        " at position ", row + 1, altered);
        for (int64_t event = begin; event < end; ++event) {
            const int32_t index = events.indices[event];
            if (index < 0 || index >= events.inputs)
                value_error("indices: expected values in [0, ", events.inputs, "), got ", index, " at position ", event,
                            altered);
        }
    }
    const int64_t last = events.offsets[(sample + 1) * steps];
    if (last != events.count)
        value_error("offsets: expected the last to be ", events.count, ", the number of indices, got ", last, altered);
    value_error("events: expected a batch that is not altered during a call; sample ", sample, " was");
}

template <class T>
void events_forward(const ForwardArguments& arguments, const EventArguments& event_arguments, Address weight,
                    Address trace, Address checkpoints, bool trace_integrator) {
    const Cell<T> cell(arguments.parameters, arguments.sizes[2]);
    const int64_t neurons = arguments.sizes[2];
    const Events<T> events = events_of<T>(event_arguments);
    const int64_t rows = packed_rows(events.inputs, events.count);
    const Scratch<T> packed(event_tiles(neurons) * rows * event_tile_width(neurons));
    const EventsForward<T> p = {cell_forward(arguments, cell.parameters()),
                                events,
                                pointer<const T>(weight),
                                packed.get(),
                                pointer<T>(trace),
                                pointer<T>(checkpoints),
                                trace_integrator};
    int64_t invalid;
    {
        const ReleasedGil release;
        if constexpr (sizeof(T) == sizeof(float))
            invalid = kernels().events_forward_f32(p);
        else
            invalid = kernels().events_forward_f64(p);
    }
    if (invalid >= 0) refuse_sample(events, arguments.sizes[0], invalid);
}

template <class T>
void events_backward(const BackwardArguments& arguments, const EventArguments& event_arguments, Address i0,
                     Address trace, Address checkpoints, Address grad_current, Address grad_weight) {
    const Cell<T> cell(arguments.parameters, arguments.sizes[2]);
    const auto [steps, batch, neurons] = arguments.sizes;
    const Events<T> events = events_of<T>(event_arguments);
    const Scratch<T> partials(count_partials(arguments));
    const Scratch<T> weight_partials(grad_weight ? event_tiles(neurons) * event_groups(batch, neurons) * events.inputs *
                                                       event_tile_width(neurons)
                                                 : 0);
    const EventsBackward<T> p = {cell_backward(arguments, cell.parameters(), partials.get()),
                                 events,
                                 pointer<const T>(trace),
                                 pointer<const T>(checkpoints),
                                 pointer<const T>(i0),
                                 pointer<T>(grad_current),
                                 pointer<T>(grad_weight),
                                 weight_partials.get()};
    int64_t invalid;
    {
        const ReleasedGil release;
        if constexpr (sizeof(T) == sizeof(float))
            invalid = kernels().events_backward_f32(p);
        else
            invalid = kernels().events_backward_f64(p);
    }
    if (invalid >= 0) refuse_sample(events, steps, invalid);
}

template <class T>
void event_dots(const std::array<int64_t, 3>& sizes, Address lengths, int threads,
                const EventArguments& event_arguments, Address weight_t, Address grad_current, Address grad_values,
                Address grad_input) {
    const EventDots<T> p = {
        make_shape(sizes, lengths, threads), events_of<T>(event_arguments), pointer<const T>(weight_t),
        pointer<const T>(grad_current),      pointer<T>(grad_values),       pointer<T>(grad_input)};
    int64_t invalid;
    {
        const ReleasedGil release;
        if constexpr (sizeof(T) == sizeof(float))
            invalid = kernels().event_dots_f32(p);
        else
            invalid = kernels().event_dots_f64(p);
    }
    if (invalid >= 0) refuse_sample(p.events, p.shape.steps, invalid);
}

template <class T>
void multiply(int64_t rows, int64_t inputs, int64_t neurons, int threads, Address gradients, Address weight,
              Address product) {
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
    if constexpr (sizeof(T) == sizeof(float))
        kernels().multiply_f32(p);
    else
        kernels().multiply_f64(p);
}

template <class T>
DenseInput<T> dense_input(const std::array<int64_t, 3>& sizes, Address lengths, int threads, Address cells,
                          Address mask, Address offsets) {
    const auto [steps, batch, inputs] = sizes;
    return {make_shape({steps, batch, 0}, lengths, threads), inputs, pointer<const T>(cells), pointer<uint64_t>(mask),
            pointer<int64_t>(offsets)};
}

template <class T>
bool mask_events(const std::array<int64_t, 3>& sizes, Address lengths, int threads, Address cells, Address mask,
                 Address offsets) {
    const auto p = dense_input<T>(sizes, lengths, threads, cells, mask, offsets);
    const ReleasedGil release;
    if constexpr (sizeof(T) == sizeof(float))
        return kernels().mask_events_f32(p);
    else
        return kernels().mask_events_f64(p);
}

void count_events(const std::array<int64_t, 3>& sizes, int threads, Address mask, Address offsets) {
    const auto p = dense_input<float>(sizes, 0, threads, 0, mask, offsets);
    const ReleasedGil release;
    kernels().count_events(p);
}

template <class T>
void list_events(const std::array<int64_t, 3>& sizes, int threads, Address cells, Address mask, Address offsets,
                 Address indices, Address values) {
    const auto p = dense_input<T>(sizes, 0, threads, cells, mask, offsets);
    const ReleasedGil release;
    if constexpr (sizeof(T) == sizeof(float))
        kernels().list_events_f32(p, pointer<int32_t>(indices), pointer<T>(values));
    else
        kernels().list_events_f64(p, pointer<int32_t>(indices), pointer<T>(values));
}

template <class T>
void count_spikes(const std::array<int64_t, 3>& sizes, int threads, Address spikes, Address counts) {
    const auto [steps, batch, neurons] = sizes;
    const Scratch<int64_t> partials(count_groups(batch) * 2 * neurons);
    const SpikeCounts<T> p = {
        steps, batch, neurons, threads, pointer<const T>(spikes), partials.get(), pointer<int64_t>(counts)};
    const ReleasedGil release;
    if constexpr (sizeof(T) == sizeof(float))
        kernels().count_spikes_f32(p);
    else
        kernels().count_spikes_f64(p);
}

}  // namespace
}  // namespace srcell

void bind_linear(pybind11::module_& m) {
    using namespace srcell;
    py::class_<EventArguments>(m, "EventArguments")
        .def(py::init([](Address offsets, Address indices, Address values, int64_t count, int64_t inputs) {
            return EventArguments{offsets, indices, values, count, inputs};
        }));
    m.def("events_forward_f32", &events_forward<float>);
    m.def("events_forward_f64", &events_forward<double>);
    m.def("events_backward_f32", &events_backward<float>);
    m.def("events_backward_f64", &events_backward<double>);
    m.def("event_dots_f32", &event_dots<float>);
    m.def("event_dots_f64", &event_dots<double>);
    m.def("multiply_f32", &multiply<float>);
    m.def("multiply_f64", &multiply<double>);
    m.def("mask_events_f32", &mask_events<float>);
    m.def("mask_events_f64", &mask_events<double>);
    m.def("count_events", &count_events);
    m.def("list_events_f32", &list_events<float>);
    m.def("list_events_f64", &list_events<double>);
    m.def("count_spikes_f32", &count_spikes<float>);
    m.def("count_spikes_f64", &count_spikes<double>);
}
