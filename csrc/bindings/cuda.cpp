// The compiled module srcell._cuda: hands the CUDA kernels what srcell.ops, the only importer, gives it, and turns
// their errors into exceptions. Addresses are those of a GPU; nothing here reads them, waits or allocates.
#include "../cuda/kernels.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>

#include "arguments.h"

namespace srcell {
namespace {

using Sizes = std::array<int64_t, 3>;  // T, B, N or T, B, K

void check(int error) {
    if (!error) return;
    throw std::runtime_error(std::string("srcell: a CUDA kernel could not be launched: ") + cuda::error_text(error) +
                             " (built for architectures " + cuda::built().architectures + ")");
}

ScanShape shape_of(const Sizes& sizes, Address lengths) { return make_shape(sizes, lengths, 1, Memory::device); }

template <class T>
void scan_forward(Address stream, const ForwardArguments& arguments, Address current, Element element,
                  Address checkpoints) {
    const Cell<T> cell(arguments.parameters, arguments.sizes[2], Memory::device);
    const DeviceScanForward<T> p = {cell_forward(arguments, cell.parameters(), Memory::device),
                                    pointer<const void>(current), element, pointer<T>(checkpoints)};
    check(cuda::scan_forward(pointer<void>(stream), p));
}

template <class T>
CellBackward<T> backward_of(const BackwardArguments& arguments, Address partials) {
    const Cell<T> cell(arguments.parameters, arguments.sizes[2], Memory::device);
    return cell_backward(arguments, cell.parameters(), pointer<T>(partials), Memory::device);
}

template <class T>
void scan_backward(Address stream, const BackwardArguments& arguments, Address partials, Address current,
                   Element element, Address checkpoints, Address grad_current) {
    const DeviceScanBackward<T> p = {backward_of<T>(arguments, partials), pointer<const void>(current), element,
                                     pointer<const T>(checkpoints), pointer<void>(grad_current)};
    check(cuda::scan_backward(pointer<void>(stream), p));
}

template <class T>
void events_forward(Address stream, const ForwardArguments& arguments, const EventArguments& rows, Address mask,
                    Address cells, Address weight_t, Address trace, Address checkpoints, bool trace_integrator) {
    const Cell<T> cell(arguments.parameters, arguments.sizes[2], Memory::device);
    const DeviceInput<T> input = {events_of<T>(rows), pointer<const uint64_t>(mask), pointer<const T>(cells)};
    const DeviceEventsForward<T> p = {cell_forward(arguments, cell.parameters(), Memory::device),
                                      input,
                                      pointer<const T>(weight_t),
                                      pointer<T>(trace),
                                      pointer<T>(checkpoints),
                                      trace_integrator};
    check(cuda::events_forward(pointer<void>(stream), p));
}

template <class T>
void events_backward(Address stream, const BackwardArguments& arguments, Address partials, Address i0, Address trace,
                     Address checkpoints, Address grad_current) {
    const DeviceEventsBackward<T> p = {backward_of<T>(arguments, partials), pointer<const T>(trace),
                                       pointer<const T>(checkpoints), pointer<const T>(i0), pointer<T>(grad_current)};
    check(cuda::events_backward(pointer<void>(stream), p));
}

void event_keys(Address stream, const Sizes& sizes, Address lengths, const EventArguments& rows, Address keys,
                Address positions) {
    Events<float> events = events_of<float>(rows);
    events.values = nullptr;
    const EventKeys p = {shape_of(sizes, lengths), events, pointer<int64_t>(keys), pointer<int64_t>(positions)};
    check(cuda::event_keys(pointer<void>(stream), p));
}

template <class T>
void weight_gradient(Address stream, const Sizes& sizes, int64_t inputs, Address grad_current, Address starts,
                     Address sorted, Address positions, Address values, Address columns, Address cells,
                     Address partials, Address grad_weight) {
    const DeviceWeightGradient<T> p = {shape_of(sizes, 0),
                                       inputs,
                                       pointer<const T>(grad_current),
                                       pointer<const int64_t>(starts),
                                       pointer<const int64_t>(sorted),
                                       pointer<const int64_t>(positions),
                                       pointer<const T>(values),
                                       pointer<const uint32_t>(columns),
                                       pointer<const T>(cells),
                                       pointer<T>(partials),
                                       pointer<T>(grad_weight)};
    check(cuda::weight_gradient(pointer<void>(stream), p));
}

template <class T>
void event_dots(Address stream, int64_t neurons, const EventArguments& rows, Address keys, Address positions,
                Address weight_t, Address grad_current, Address grad_values) {
    const DeviceEventDots<T> p = {neurons,
                                  events_of<T>(rows),
                                  pointer<const int64_t>(keys),
                                  pointer<const int64_t>(positions),
                                  pointer<const T>(weight_t),
                                  pointer<const T>(grad_current),
                                  pointer<T>(grad_values)};
    check(cuda::event_dots(pointer<void>(stream), p));
}

template <class T>
DeviceMask<T> mask_of(const Sizes& sizes, Address lengths, Address cells, Address mask, Address columns) {
    const auto [steps, batch, inputs] = sizes;
    return {shape_of({steps, batch, 0}, lengths), inputs, pointer<const T>(cells), pointer<uint64_t>(mask),
            pointer<uint32_t>(columns)};
}

template <class T>
void mask_cells(Address stream, const Sizes& sizes, Address lengths, Address cells, Address mask) {
    check(cuda::mask_cells(pointer<void>(stream), mask_of<T>(sizes, lengths, cells, mask, 0)));
}

void mask_columns(Address stream, const Sizes& sizes, Address mask, Address columns) {
    check(cuda::mask_columns(pointer<void>(stream), mask_of<float>(sizes, 0, 0, mask, columns)));
}

// sizes: B, steps behind the prefix, prefix, K.
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

void count_mask(Address stream, const std::array<int64_t, 4>& sizes, Address mask, Address counts) {
    check(cuda::count_mask(pointer<void>(stream), mask_events(sizes, mask, counts, 0, 0)));
}

void list_mask(Address stream, const std::array<int64_t, 4>& sizes, Address mask, Address offsets, Address indices) {
    check(cuda::list_mask(pointer<void>(stream), mask_events(sizes, mask, 0, offsets, indices)));
}

// sizes: B, K, steps.
void rate_mask(Address stream, const Sizes& sizes, Address images, Address index, double gain, uint64_t seed,
               Address mask) {
    const auto [batch, pixels, steps] = sizes;
    const DeviceRateEncoding p = {
        pointer<const float>(images), pointer<const int64_t>(index), batch, pixels, steps, gain, seed,
        pointer<uint64_t>(mask)};
    check(cuda::rate_mask(pointer<void>(stream), p));
}

}  // namespace
}  // namespace srcell

PYBIND11_MODULE(_cuda, m) {
    using namespace srcell;
    m.doc() = "srcell's CUDA kernels; srcell.ops is the only importer.";
    py::module_::import("srcell._core");  // whose argument types these functions take
    m.attr("runtime") = cuda::built().runtime;
    m.attr("architectures") = cuda::built().architectures;
    py::enum_<Element>(m, "Element", py::module_local())
        .value("same", Element::same)
        .value("float16", Element::float16)
        .value("bfloat16", Element::bfloat16);
    m.def("weight_groups", &event_groups);
    m.def("key_stride", [](const Sizes& sizes) { return key_stride(shape_of(sizes, 0)); });
    m.def("scan_forward_f32", &scan_forward<float>);
    m.def("scan_forward_f64", &scan_forward<double>);
    m.def("scan_backward_f32", &scan_backward<float>);
    m.def("scan_backward_f64", &scan_backward<double>);
    m.def("events_forward_f32", &events_forward<float>);
    m.def("events_forward_f64", &events_forward<double>);
    m.def("events_backward_f32", &events_backward<float>);
    m.def("events_backward_f64", &events_backward<double>);
    m.def("event_keys", &event_keys);
    m.def("weight_gradient_f32", &weight_gradient<float>);
    m.def("weight_gradient_f64", &weight_gradient<double>);
    m.def("event_dots_f32", &event_dots<float>);
    m.def("event_dots_f64", &event_dots<double>);
    m.def("mask_cells_f32", &mask_cells<float>);
    m.def("mask_cells_f64", &mask_cells<double>);
    m.def("mask_columns", &mask_columns);
    m.def("count_mask", &count_mask);
    m.def("list_mask", &list_mask);
    m.def("rate_mask", &rate_mask);
}
