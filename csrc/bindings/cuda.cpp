// The compiled module srcell._cuda: turns the arguments of srcell.ops, the only importer, into structs, launches the
// CUDA kernels, and turns their errors into exceptions. Addresses are in GPU memory; nothing here reads them, waits for
// the GPU or allocates.
#include "../cuda/kernels.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <utility>

#include "arguments.h"

namespace srcell {
namespace {

// A device's index and the address of its stream.
using Queue = std::pair<int, Address>;

cuda::Stream stream_of(const Queue& queue) { return {queue.first, pointer<void>(queue.second)}; }

void check(int error) {
    if (!error) return;
    throw std::runtime_error(std::string("srcell: a CUDA kernel could not be launched: ") + cuda::error_text(error) +
                             " (built for architectures " + cuda::built().architectures + ")");
}

// Fills the arrays at layer.device_turn.
void make_turn(const Queue& queue, const Layer& layer) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const int64_t count = layer.turns();
        T* const along = pointer<T>(layer.device_turn);
        check(cuda::make_turn(stream_of(queue), DeviceTurn<T>{cell, count, along, along + count}));
    });
}

// With `half_spikes` the spikes and their gradient have the element type of the currents.
void scan_forward(const Queue& queue, const Layer& layer, const Outputs& outputs, Address current, Element element,
                  bool half_spikes, const Saved& saved) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        DeviceScanForward<T> p = {forward_of(layer, cell, outputs), pointer<const void>(current), element, nullptr,
                                  pointer<T>(saved[1])};
        if (half_spikes) p.half_spikes = std::exchange(p.spikes, nullptr);
        check(cuda::scan_forward(stream_of(queue), p));
    });
}

void scan_backward(const Queue& queue, const Layer& layer, const Outputs& grads, const Gradients& gradients,
                   Address partials, Address current, Element element, bool half_spikes, const Saved& saved,
                   Address grad_current) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        DeviceScanBackward<T> p = {backward_of(layer, cell, grads, gradients, pointer<T>(partials)),
                                   pointer<const void>(current),
                                   element,
                                   nullptr,
                                   pointer<const T>(saved[1]),
                                   pointer<void>(grad_current)};
        if (half_spikes) p.half_grad_spikes = std::exchange(p.grad_spikes, nullptr);
        check(cuda::scan_backward(stream_of(queue), p));
    });
}

// Rows of events if they have offsets; otherwise a dense input and its mask.
template <class T>
DeviceInput<T> input_of(const EventRows& rows, Address mask, Address elements) {
    if (rows.offsets) return rows.of<T>();
    return MaskedElements<T>{pointer<const uint64_t>(mask), pointer<const T>(elements), rows.inputs};
}

void events_forward(const Queue& queue, const Layer& layer, const Outputs& outputs, const EventRows& rows, Address mask,
                    Address elements, Address weight_t, const Saved& saved, bool trace_integrator) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const DeviceEventsForward<T> p = {traced_forward_of(layer, cell, outputs, saved, trace_integrator),
                                          pointer<const T>(weight_t), input_of<T>(rows, mask, elements)};
        check(cuda::events_forward(stream_of(queue), p));
    });
}

void events_backward(const Queue& queue, const Layer& layer, const Outputs& grads, const Gradients& gradients,
                     Address partials, const Saved& saved, Address grad_current) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        check(cuda::events_backward(stream_of(queue), traced_backward_of(layer, cell, grads, gradients,
                                                                         pointer<T>(partials), saved, grad_current)));
    });
}

void event_currents(const Queue& queue, const Layer& layer, const EventRows& rows, Address mask, Address elements,
                    Address weight_t, Address currents) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const DeviceEventCurrents<T> p = {layer.shape, input_of<T>(rows, mask, elements), pointer<const T>(weight_t),
                                          pointer<T>(currents)};
        check(cuda::event_currents(stream_of(queue), p));
    });
}

void lateral_forward(const Queue& queue, const Layer& layer, const Outputs& outputs, Address current, Address weight_t,
                     const Saved& saved, bool trace_integrator) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const DeviceLateralForward<T> p = {traced_forward_of(layer, cell, outputs, saved, trace_integrator),
                                           pointer<const T>(current), pointer<const T>(weight_t),
                                           delays_forward_of<T>(layer, outputs, nullptr)};
        check(cuda::lateral_forward(stream_of(queue), p));
    });
}

void lateral_backward(const Queue& queue, const Layer& layer, const Outputs& grads, const Gradients& gradients,
                      Address partials, const Saved& saved, Address weight_t, Address scratch, Address grad_current,
                      Address elements, Address factor_partials) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const DeviceLateralBackward<T> p = {
            traced_backward_of(layer, cell, grads, gradients, pointer<T>(partials), saved, grad_current),
            pointer<const T>(weight_t),
            layer.lateral_relu,
            pointer<T>(scratch),
            pointer<T>(elements),
            delays_backward_of(layer, grads, gradients, nullptr, pointer<T>(factor_partials))};
        check(cuda::lateral_backward(stream_of(queue), p));
    });
}

void delayed_weight(const Queue& queue, const Layer& layer, Address elements, Address grad_current, Address partials,
                    Address grad_weight) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const DeviceDelayedWeight<T> p = {layer.shape,
                                          layer.delays_of<T>(nullptr),
                                          pointer<const T>(elements),
                                          pointer<const T>(grad_current),
                                          pointer<T>(partials),
                                          pointer<T>(grad_weight)};
        check(cuda::delayed_weight(stream_of(queue), p));
    });
}

// Writes the number of each sample's arrivals; the caller makes their starts of them.
void count_delayed(const Queue& queue, const DelayCall& delay, const EventRows& rows, Address starts) {
    with_type(delay.is_double, [&](auto zero) {
        check(cuda::count_delayed(stream_of(queue), delay.counted<decltype(zero)>(rows, starts)));
    });
}

void write_delayed(const Queue& queue, const DelayCall& delay, const EventRows& rows, Address starts, Address cursors,
                   Address offsets, int64_t count, Address indices, Address values) {
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p = delay.written<T>(rows, starts, cursors, offsets, count, indices, values);
        check(cuda::write_delayed(stream_of(queue), p));
    });
}

void delayed_backward(const Queue& queue, const DelayCall& delay, const EventRows& rows, Address cursors,
                      Address offsets, int64_t count, Address grad_values, Address grad_events, Address grad_factors,
                      Address partials) {
    with_type(delay.is_double, [&](auto zero) {
        check(cuda::delayed_backward(
            stream_of(queue), delay.backward<decltype(zero)>(rows, cursors, offsets, count, grad_values, grad_events,
                                                             grad_factors, partials)));
    });
}

void delay_elements(const Queue& queue, const DelayCall& delay, Address elements, Address delayed) {
    with_type(delay.is_double, [&](auto zero) {
        check(cuda::delay_elements(stream_of(queue), delay.elements_forward<decltype(zero)>(elements, delayed)));
    });
}

void delay_elements_backward(const Queue& queue, const DelayCall& delay, Address elements, Address grad_delayed,
                             Address grad_elements, Address grad_factors, Address partials) {
    with_type(delay.is_double, [&](auto zero) {
        check(cuda::delay_elements_backward(
            stream_of(queue),
            delay.elements_backward<decltype(zero)>(elements, grad_delayed, grad_elements, grad_factors, partials)));
    });
}

void integer_forward(const Queue& queue, const IntegerLayer& layer, const IntegerOutputs& outputs, bool floats,
                     const EventRows& rows, Address mask, Address weight_t, Address scale, double rho, Address slopes,
                     Address clamped) {
    const DeviceIntegerForward p = {layer.shape,
                                    layer.cell,
                                    pointer<const int16_t>(weight_t),
                                    layer.before(0),
                                    layer.before(1),
                                    layer.before(2),
                                    floats ? nullptr : pointer<uint8_t>(outputs[0]),
                                    floats ? pointer<float>(outputs[0]) : nullptr,
                                    pointer<int16_t>(outputs[1]),
                                    pointer<int16_t>(outputs[2]),
                                    pointer<int16_t>(outputs[3]),
                                    pointer<int64_t>(clamped),
                                    pointer<float>(slopes),
                                    pointer<const float>(scale),
                                    static_cast<float>(rho),
                                    input_of<float>(rows, mask, 0)};
    check(cuda::integer_forward(stream_of(queue), p));
}

void integer_backward(const Queue& queue, const IntegerLayer& layer, Address slopes, Address grad_spikes,
                      Address grad_current) {
    const DeviceIntegerBackward p = {layer.shape, integer_alpha(layer.cell), pointer<const float>(slopes),
                                     pointer<const float>(grad_spikes), pointer<float>(grad_current)};
    check(cuda::integer_backward(stream_of(queue), p));
}

Events<float> without_values(const EventRows& rows) {
    Events<float> events = rows.of<float>();
    events.values = nullptr;
    return events;
}

void event_keys(const Queue& queue, const ScanShape& shape, const EventRows& rows, Address keys, bool narrow,
                Address positions) {
    const EventKeys p = {shape, without_values(rows), pointer<void>(keys), narrow, pointer<int64_t>(positions)};
    check(cuda::event_keys(stream_of(queue), p));
}

void event_columns(const Queue& queue, const ScanShape& shape, const EventRows& rows, Address counts) {
    const EventColumns p = {shape, without_values(rows), pointer<ColumnCounts>(counts)};
    check(cuda::event_columns(stream_of(queue), p));
}

// The events come in one of three forms: sorted (starts, positions, values), as columns of rows (counts), or as columns
// of a dense input (columns, elements). The addresses of the other forms are 0.
void weight_gradient(const Queue& queue, bool is_double, ScanShape shape, const EventRows& rows, Address grad_current,
                     Address starts, Address positions, Address values, Address counts, Address columns,
                     Address elements, Address partials, Address grad_weight) {
    shape.lengths = nullptr;
    with_type(is_double, [&](auto zero) {
        using T = decltype(zero);
        DeviceWeightGradient<T> p = {{shape, rows.inputs, pointer<const T>(grad_current), pointer<T>(partials)},
                                     DenseColumns<T>{pointer<const uint32_t>(columns), pointer<const T>(elements)},
                                     pointer<T>(grad_weight)};
        if (starts)
            p.source = SortedEvents<T>{pointer<const int64_t>(starts), pointer<const int64_t>(positions),
                                       pointer<const T>(values)};
        if (counts) p.source = CountedEvents<T>{pointer<const ColumnCounts>(counts), rows.of<T>()};
        check(cuda::weight_gradient(stream_of(queue), p));
    });
}

void event_dots(const Queue& queue, const Layer& layer, const EventRows& rows, Address positions, Address weight_t,
                Address grad_current, Address grad_values) {
    layer.visit([&](const auto& cell) {
        using T = number_of<decltype(cell)>;
        const DeviceEventDots<T> p = {layer.shape.neurons,
                                      rows.of<T>(),
                                      pointer<const int64_t>(positions),
                                      pointer<const T>(weight_t),
                                      pointer<const T>(grad_current),
                                      pointer<T>(grad_values)};
        check(cuda::event_dots(stream_of(queue), p));
    });
}

template <class T>
DeviceMask<T> mask_of(const DenseRows& rows, Address columns) {
    return {rows.shape, rows.inputs, pointer<const T>(rows.elements), pointer<uint64_t>(rows.mask),
            pointer<uint32_t>(columns)};
}

void mask_elements(const Queue& queue, const DenseRows& rows) {
    with_type(rows.is_double, [&](auto zero) {
        using T = decltype(zero);
        check(cuda::mask_elements(stream_of(queue), mask_of<T>(rows, 0)));
    });
}

void mask_columns(const Queue& queue, const DenseRows& rows, Address columns) {
    check(cuda::mask_columns(stream_of(queue), mask_of<float>(rows, columns)));  // reads no elements
}

// sizes: B, steps after the prefix, steps of the prefix, K.
MaskEvents mask_events(const std::array<int64_t, 4>& sizes, Address mask, Address counts, Address offsets,
                       Address indices) {
    const auto [batch, steps, prefix, inputs] = sizes;
    return {batch,
            steps,
            prefix,
            inputs,
            pointer<const uint64_t>(mask),
            pointer<int64_t>(counts),
            pointer<const int64_t>(offsets),
            pointer<int32_t>(indices)};
}

void count_mask(const Queue& queue, const std::array<int64_t, 4>& sizes, Address mask, Address counts) {
    check(cuda::count_mask(stream_of(queue), mask_events(sizes, mask, counts, 0, 0)));
}

void list_mask(const Queue& queue, const std::array<int64_t, 4>& sizes, Address mask, Address offsets,
               Address indices) {
    check(cuda::list_mask(stream_of(queue), mask_events(sizes, mask, 0, offsets, indices)));
}

// sizes: B, K, steps.
void rate_mask(const Queue& queue, const Sizes& sizes, Address images, Address index, double gain, uint64_t seed,
               Address mask, bool thinned) {
    const auto [batch, pixels, steps] = sizes;
    const DeviceRateEncoding p = {pointer<const float>(images),
                                  pointer<const int64_t>(index),
                                  batch,
                                  pixels,
                                  steps,
                                  gain,
                                  seed,
                                  pointer<uint64_t>(mask),
                                  thinned};
    check(cuda::rate_mask(stream_of(queue), p));
}

}  // namespace
}  // namespace srcell

PYBIND11_MODULE(_cuda, m, pybind11::mod_gil_not_used()) {
    using namespace srcell;
    using namespace pybind11::literals;
    m.doc() = "srcell's CUDA kernels; srcell.ops is the only importer.";
    py::module_::import("srcell._core");  // registers the argument types of these functions
    m.attr("runtime") = cuda::built().runtime;
    m.attr("architectures") = cuda::built().architectures;
    py::enum_<Element>(m, "Element", py::module_local())
        .value("same", Element::same)
        .value("float16", Element::float16)
        .value("bfloat16", Element::bfloat16);
    m.def("lateral_rows", &lateral_rows, "resonant"_a);
    m.def("weight_groups", &event_groups, "batch"_a, "neurons"_a);
    m.def("key_stride", [](const ScanShape& shape) { return key_stride(shape); }, "shape"_a);
    // A launch waits if the stream's queue is full; the GIL is released so that other threads of Python can run.
    const auto launch = [&](const char* name, auto function) { m.def(name, function, py::call_guard<ReleasedGil>()); };
    launch("count_delayed", &count_delayed);
    launch("write_delayed", &write_delayed);
    launch("delayed_backward", &delayed_backward);
    launch("delay_elements", &delay_elements);
    launch("delay_elements_backward", &delay_elements_backward);
    launch("make_turn", &make_turn);
    launch("scan_forward", &scan_forward);
    launch("scan_backward", &scan_backward);
    launch("events_forward", &events_forward);
    launch("events_backward", &events_backward);
    launch("event_currents", &event_currents);
    launch("lateral_forward", &lateral_forward);
    launch("lateral_backward", &lateral_backward);
    launch("delayed_weight", &delayed_weight);
    launch("integer_forward", &integer_forward);
    launch("integer_backward", &integer_backward);
    launch("event_keys", &event_keys);
    launch("event_columns", &event_columns);
    launch("weight_gradient", &weight_gradient);
    launch("event_dots", &event_dots);
    launch("mask_elements", &mask_elements);
    launch("mask_columns", &mask_columns);
    launch("count_mask", &count_mask);
    launch("list_mask", &list_mask);
    launch("rate_mask", &rate_mask);
}
