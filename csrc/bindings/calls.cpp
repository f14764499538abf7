// The forward calls of layers in the compiled module srcell._core: read and check the record of a call, make its
// outputs and run the kernel. A call that is not valid is refused by returning None: Python, which checks fake tensors
// in the same way, then says what is wrong. core.cpp calls bind_calls().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "calls.h"
#include "layer.h"

namespace srcell {
namespace {

bool flag(py::handle object) { return object.ptr() == Py_True; }

// `call` has the fields current, layer, save, trace_integrator and half_spikes.
py::object src(const py::handle call, int threads) {
    Reader reader;
    Tensor current;
    if (!reader.read(field(call, 0), current) || current.dimensions != 3) return py::none();
    if (current.number != Number::kFloat32 && current.number != Number::kFloat64) return py::none();
    LayerCall layer = {&reader, current.number, current.shape[0], current.shape[1], current.shape[2]};
    if (!layer.read(field(call, 1))) return py::none();
    const Layer checked = layer.checked(threads);
    Results made = make_results(layer, field(call, 0));
    add_saved(made, layer, field(call, 0), flag(field(call, 2)), layer.recurrent_weights);
    const Address at = address_of(current.data);
    if (layer.recurrent_weights)
        traced_forward(checked, made.outputs, nullptr, 0, at, made.saved, flag(field(call, 3)));
    else
        scan_forward(checked, made.outputs, at, made.saved);
    return py::tuple(made.made);
}

// `call` has the fields offsets, indices, values, weight, layer, steps, batch, save and trace_integrator.
py::object src_events(const py::handle call, int threads) {
    Reader reader;
    Tensor offsets, indices, weight;
    const py::handle like = field(call, 3);
    const int64_t steps = PyLong_AsLongLong(field(call, 5).ptr()), batch = PyLong_AsLongLong(field(call, 6).ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    if (!read_weight(reader, like, weight) || steps < 0 || batch < 0 || (steps && batch >= INT64_MAX / steps))
        return py::none();
    LayerCall layer = {&reader, weight.number, steps, batch, weight.shape[0]};
    EventRows rows = {0, 0, 0, 0, weight.shape[1]};
    if (!reader.read(field(call, 0), offsets) || !offsets.has(Number::kInt64, {steps * batch + 1}) ||
        !reader.read(field(call, 1), indices) || indices.dimensions != 1 || indices.number != Number::kInt32)
        return py::none();
    rows.offsets = address_of(offsets.data), rows.indices = address_of(indices.data), rows.count = indices.shape[0];
    if (!layer.read_optional(field(call, 2), weight.number, {rows.count}, rows.values) || !layer.read(field(call, 4)))
        return py::none();
    const Layer checked = layer.checked(threads);
    Results made = make_results(layer, like);
    add_saved(made, layer, like, flag(field(call, 7)), true);
    traced_forward(checked, made.outputs, &rows, address_of(weight.data), 0, made.saved, flag(field(call, 8)));
    return py::tuple(made.made);
}

// `call` has the fields input, weight, layer, method, input_grad_at_events, save and trace_integrator. Returns False if
// the product is to be used.
py::object src_dense(const py::handle call, int threads) {
    Reader reader;
    Tensor input, weight;
    const py::handle like = field(call, 1), method = field(call, 3);
    if (!reader.read(field(call, 0), input) || input.dimensions != 3 || !read_weight(reader, like, weight) ||
        input.number != weight.number || weight.shape[1] != input.shape[2] || input.shape[2] > int64_t(1) << 31)
        return py::none();
    LayerCall layer = {&reader, weight.number, input.shape[0], input.shape[1], weight.shape[0]};
    const bool chosen = is_text(method, "events"), save = flag(field(call, 5));
    if (!chosen && !is_text(method, "auto")) return is_text(method, "gemm") ? py::object(py::bool_(false)) : py::none();
    if (!layer.read(field(call, 2))) return py::none();
    const Layer checked = layer.checked(threads);
    const Address elements = address_of(input.data);
    if (!chosen && !events_are_faster(layer.number == Number::kFloat64, checked.shape, elements, input.shape[2]))
        return py::bool_(false);
    Results made = make_results(layer, like);
    add_saved(made, layer, like, save, true);
    const int64_t rows = layer.steps * layer.batch;
    const Address mask = save ? made.add(like, Number::kInt64, {rows, mask_words(input.shape[2])}) : 0;
    const bool ones = dense_forward(checked, made.outputs, elements, input.shape[2], mask, address_of(weight.data),
                                    made.saved, flag(field(call, 6)));
    if (save)
        made.made.append(py::bool_(ones));
    else
        made.none(), made.none();
    return py::tuple(made.made);
}

}  // namespace
}  // namespace srcell

void bind_calls(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    m.def("src", &src, "call"_a, "threads"_a);
    m.def("src_events", &src_events, "call"_a, "threads"_a);
    m.def("src_dense", &src_dense, "call"_a, "threads"_a);
}
