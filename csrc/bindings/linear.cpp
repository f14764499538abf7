// Layers after a linear synapse in the compiled module srcell._core, from the arguments of srcell.functional as they
// are, and their gradients. core.cpp calls bind_linear().
#include <pybind11/pybind11.h>

#include "calls.h"
#include "layer.h"

namespace srcell {
namespace {

// The events of an EventBatch of srcell.events, or the elements of a dense tensor, and the sizes of either.
struct SynapseInput {
    bool has_events = false;
    int64_t steps = 0, batch = 0, inputs = 0;
    EventRows rows = {};
    Address elements = 0;
    Number number = Number::kOther;  // of the elements or values, if there are any
    py::object offsets = py::none(), indices = py::none(), values = py::none(), lengths = py::none();

    bool read(Reader& reader, py::handle object, bool one_step) {
        has_events = !one_step && is_event_batch(object);
        if (has_events) return read_batch(reader, object);
        Tensor x;
        if (!reader.read(object, x) || x.dimensions != (one_step ? 2 : 3)) return false;
        steps = one_step ? 1 : x.shape[0], batch = x.shape[x.dimensions - 2], inputs = x.shape[x.dimensions - 1];
        elements = address_of(x.data), number = x.number;
        return true;
    }

    bool read_batch(Reader& reader, py::handle object) {
        const py::object shape = object.attr("shape");
        offsets = object.attr("offsets"), indices = object.attr("indices"), values = object.attr("values");
        lengths = object.attr("lengths");
        if (!PyTuple_CheckExact(shape.ptr()) || PyTuple_GET_SIZE(shape.ptr()) != 3) return false;
        const auto size = [&](Py_ssize_t k) { return PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), k)); };
        steps = size(0), batch = size(1), inputs = size(2);
        if (PyErr_Occurred()) {
            PyErr_Clear();
            return false;
        }
        if (steps < 0 || batch < 0 || (steps && batch >= INT64_MAX / steps)) return false;
        rows.inputs = inputs;
        return read_events(reader, offsets, indices, values, steps * batch, rows, number);
    }
};

// The gradients of a call: those of its layer, by their place in Gradients, and these.
constexpr size_t kOfInput = std::tuple_size_v<Gradients>, kOfWeight = kOfInput + 1;

const char* gradient_name(size_t k) {
    if (k >= kOfInput) return k == kOfInput ? "input" : "weight";
    if (k >= kOfParameters) return kParameterTable[k - kOfParameters].name;
    if (k == kOfLateral || k == kOfFactors) return k == kOfLateral ? "weight_hh" : "factors_hh";
    return k == kOfState + kPast ? "past" : kStateNames[k - kOfState];
}

// What the gradient of a call needs, besides the tensors in its Kept.
struct LinearCall {
    LayerCall layer;  // its addresses were those of the forward call
    int64_t inputs;
    bool has_events, ones, at_events;
    py::tuple cell;  // as users gave it, None for each tensor
    const char *surrogate, *recurrent_surrogate;
    std::vector<size_t> learnt;  // the gradients that are needed
};

// What a call keeps for its gradient: the tensors that the operators of srcell.ops keep, in their order, because torch
// compares both where a call is repeated. The cell parameters, none or all of them, stand between the two parts.
constexpr size_t kTraceMade = 1 + kStates, kMaskMade = kTraceMade + std::tuple_size_v<Saved>;  // in Results::made
enum Kept { kInput, kOffsets, kIndices, kValues, kWeight, kBiasKept, kBefore };
enum KeptAfter { kI0, kLengthsKept, kWeightHhKept, kTrace, kCheckpoints, kMask, kOnes, kAfter };

const char* surrogate_of(bool relu) { return relu ? "relu" : "straight_through"; }

// The record of a call whose gradient is needed; the tensors that need one; the outputs; and what is kept, with
// None for each cell parameter that is a number and for `ones`.
py::tuple learn(const LayerCall& layer, const SynapseInput& x, const Results& made, bool ones, bool at_events,
                const Items& state, py::handle input, py::handle weight, py::handle given, py::handle lengths) {
    const Items cell(field(given, OfUsers::kCell));
    const py::handle bias = field(given, OfUsers::kBias);
    const py::handle weight_hh = field(field(given, OfUsers::kLateral), OfUsers::kWeightHh);
    const py::none nothing;
    const py::handle none = nothing;
    const py::handle dense = x.has_events ? none : input;
    py::list tensors, outputs, numbers, kept;
    std::vector<size_t> learnt;
    const auto add = [&](py::handle tensor, size_t gradient) {
        if (!requires_grad(tensor)) return;
        tensors.append(tensor);
        learnt.push_back(gradient);
    };
    if (!x.has_events) add(input, kOfInput);
    add(weight, kOfWeight), add(bias, kOfParameters);
    for (Py_ssize_t k = 0; state.valid && k < state.size(); ++k) add(state[k], kOfState + static_cast<size_t>(k));
    bool has_tensors = false;
    for (Py_ssize_t k = 0; k < cell.size(); ++k) {
        const bool is_number = PyFloat_CheckExact(cell[k].ptr()) != 0;
        numbers.append(is_number ? cell[k] : none);
        if (!is_number) add(cell[k], kOfParameters + 1 + static_cast<size_t>(k));
        has_tensors |= !is_number;
    }
    if (!weight_hh.is_none()) add(weight_hh, kOfLateral);

    for (const py::handle one :
         {dense, py::handle(x.offsets), py::handle(x.indices), py::handle(x.values), weight, bias})
        kept.append(one);
    for (size_t k = 0; has_tensors && k < layer.constants.size(); ++k)
        kept.append(numbers[k].is_none() ? cell[static_cast<Py_ssize_t>(k)] : none);
    const bool with_i0 = has_tensors && state.valid;
    kept.append(with_i0 ? state[0] : none), kept.append(lengths), kept.append(weight_hh);
    for (py::size_t k = kTraceMade; k < kMaskMade; ++k) kept.append(made.made[k]);
    kept.append(x.has_events ? py::object(nothing) : py::object(made.made[kMaskMade])), kept.append(none);
    for (int k = 0; k <= states_of(layer.resonant()); ++k) outputs.append(made.made[static_cast<py::size_t>(k)]);
    LinearCall record = {layer,
                         x.inputs,
                         x.has_events,
                         ones,
                         at_events,
                         py::tuple(numbers),
                         surrogate_of(layer.relu),
                         surrogate_of(layer.lateral_relu),
                         std::move(learnt)};
    record.layer.reader = nullptr;
    return py::make_tuple(std::move(record), py::tuple(tensors), py::tuple(outputs), py::tuple(kept));
}

// A layer after a linear synapse. The input and the spikes of `one_step` lack T; the states of a `stacked` layer have a
// dimension of 1 before B. Returns the spikes and the state, or what learn() returns if a gradient is needed. Returns
// None if the call is not valid, or is one for torch's dispatcher, of another dtype or with the product.
py::object src_linear(py::handle input, py::handle weight, py::handle given, py::handle lengths, py::handle method,
                      bool input_grad_at_events, bool one_step, bool stacked, int threads) {
    const bool chosen = is_text(method, "events");
    if ((!chosen && !is_text(method, "auto")) || is_watched() || autocasts()) return py::none();
    Reader reader(Reader::kPlain);
    Tensor of_weight;
    SynapseInput x;
    if (!x.read(reader, input, one_step) || (x.has_events && reader.learnt()) ||
        !read_weight(reader, weight, of_weight) || of_weight.shape[1] != x.inputs || x.inputs > int64_t(1) << 31 ||
        ((!x.has_events || x.rows.values) && x.number != of_weight.number) ||
        (!x.lengths.is_none() && !lengths.is_none()))
        return py::none();
    LayerCall layer = {&reader, of_weight.number, x.steps, x.batch, of_weight.shape[0], one_step, stacked};
    const py::handle ends = x.lengths.is_none() ? lengths : x.lengths;
    bool of_cell = false;
    if (!layer.read_users(given, ends, of_cell)) return py::none();
    const Layer checked = layer.checked(threads);
    if (!x.has_events && !chosen &&
        !events_are_faster(layer.number == Number::kFloat64, checked.shape, x.elements, x.inputs, 0))
        return py::none();
    const bool learns = reader.learnt() > 0;
    Results made = make_results(layer, weight);
    add_saved(made, layer, weight, learns, true);
    const Address at = address_of(of_weight.data);
    bool ones = true;
    if (x.has_events) {
        traced_forward(checked, made.outputs, &x.rows, at, 0, made.saved, of_cell);
    } else {
        const int64_t rows = layer.steps * layer.batch;
        const Address mask = learns ? made.add(weight, Number::kInt64, {rows, mask_words(x.inputs)}) : 0;
        ones = dense_forward(checked, made.outputs, x.elements, x.inputs, mask, at, made.saved, of_cell);
    }
    if (learns)
        return learn(layer, x, made, ones, input_grad_at_events, Items(field(given, OfUsers::kState)), input, weight,
                     given, ends);
    const py::list& all = made.made;
    return py::make_tuple(all[0], new_state(all[py::slice(1, 1 + states_of(layer.resonant()), 1)], layer.resonant()));
}

// The gradients of the tensors that learn() listed, in their order, None for those that are not wanted: from what was
// kept and the gradients of the outputs. Returns None if torch's dispatcher must see the call.
py::object src_linear_backward(const LinearCall& call, const py::tuple& kept, const py::tuple& grads,
                               const py::tuple& needs, int threads) {
    if (is_watched() || gradients_enabled()) return py::none();
    Reader reader(Reader::kPlain);
    LayerCall layer = call.layer;
    layer.reader = &reader;
    if (kept.size() < kBefore + kAfter) return py::none();
    const size_t cells = kept.size() - kBefore - kAfter;
    if (cells && cells != layer.constants.size()) return py::none();
    const auto after = [&](KeptAfter k) { return kBefore + cells + k; };
    Address elements = 0, weight = 0, mask = 0, i0 = 0;
    EventRows rows = {0, 0, 0, 0, call.inputs};
    const auto read = [&](size_t k, Number number, const Shape& shape, Address& address) {
        return layer.read_optional(kept[k], number, shape, address);
    };
    Tensor indices;
    Saved saved = {};
    if (call.has_events) {
        if (!reader.read(kept[kIndices], indices) || indices.number != Number::kInt32 || indices.dimensions != 1)
            return py::none();
        rows.count = indices.shape[0], rows.indices = address_of(indices.data);
    }
    const Shape of_weight = {layer.neurons, call.inputs};
    const int64_t words = mask_words(call.inputs), all_rows = layer.steps * layer.batch;
    if (!read(kInput, layer.number, {layer.steps, layer.batch, call.inputs}, elements) ||
        !read(kOffsets, Number::kInt64, {all_rows + 1}, rows.offsets) ||
        !read(kValues, layer.number, {rows.count}, rows.values) || !read(kWeight, layer.number, of_weight, weight) ||
        !read(after(kI0), layer.number, {layer.batch, layer.neurons}, i0) ||
        !read(after(kLengthsKept), Number::kInt64, {layer.batch}, layer.lengths) ||
        !read(after(kWeightHhKept), layer.number, {layer.neurons, layer.neurons}, layer.weight_hh) ||
        !read(after(kMask), Number::kInt64, {all_rows, words}, mask) ||
        !read_saved(layer, kept[after(kTrace)], kept[after(kCheckpoints)], true, saved))
        return py::none();
    const std::vector<Shape> shapes = layer.shapes;
    layer.parameters.clear(), layer.strides.clear(), layer.shapes.clear();
    for (size_t k = 0; k < shapes.size(); ++k) {
        if (k && !call.cell[k - 1].is_none())
            layer.parameters.push_back(0), layer.strides.push_back(0), layer.shapes.push_back({});
        else if (!layer.read_parameter(kept[kBiasKept + k]) || !(layer.shapes.back() == shapes[k]))
            return py::none();
    }
    layer.state.assign(kStates, 0), layer.state[0] = i0;
    const Layer checked = layer.checked(threads);
    Outputs given = {};
    if (!layer.read_gradients(Items(grads), static_cast<Py_ssize_t>(grads.size()), given)) return py::none();

    if (needs.size() != call.learnt.size()) return py::none();
    Wanted wanted = {};
    bool want_input = false, want_weight = false;
    for (size_t k = 0; k < needs.size(); ++k) {
        const size_t gradient = call.learnt[k];
        bool& flag = gradient == kOfInput ? want_input : gradient == kOfWeight ? want_weight : wanted[gradient];
        flag = needs[k].ptr() == Py_True;
    }

    Made made;
    const py::handle like = kept[kWeight];
    const Shape of_input =
        layer.one_step ? Shape{layer.batch, call.inputs} : Shape{layer.steps, layer.batch, call.inputs};
    const Address grad_input = want_input ? made.add(like, layer.number, of_input) : made.none();
    const Address grad_weight = want_weight ? made.add(like, layer.number, of_weight) : made.none();
    const LayerGradients of_layer(layer, wanted, like);
    py::tuple found(needs.size());
    for (size_t k = 0; k < found.size(); ++k) {
        const size_t gradient = call.learnt[k];
        found[k] = gradient < kOfInput ? of_layer.made[gradient] : made.made[gradient - kOfInput];
    }
    if (call.has_events) {
        traced_backward(checked, given, of_layer.at, &rows, saved, 0, grad_weight);
    } else {
        const bool at_events = grad_input && call.at_events;
        Tensor weight_t = {};
        if (at_events && !reader.read(reader.keep(transposed(kept[kWeight])), weight_t)) return py::none();
        dense_backward(checked, given, of_layer.at, elements, call.inputs, mask, call.ones, saved, weight,
                       address_of(weight_t.data), grad_input, grad_weight);
    }
    return found;
}

}  // namespace
}  // namespace srcell

void bind_linear(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    py::class_<LinearCall>(m, "LinearCall")
        .def_readonly("cell", &LinearCall::cell)
        .def_readonly("surrogate", &LinearCall::surrogate)
        .def_readonly("recurrent_surrogate", &LinearCall::recurrent_surrogate)
        .def_property_readonly("bias_max", [](const LinearCall& call) { return call.layer.bias_max; })
        .def_readonly("ones", &LinearCall::ones)
        .def_readonly("at_events", &LinearCall::at_events)
        .def_property_readonly("learnt",
                               [](const LinearCall& call) {
                                   py::list names;
                                   for (const size_t k : call.learnt) names.append(gradient_name(k));
                                   return names;
                               })
        .def_property_readonly("one_step", [](const LinearCall& call) { return call.layer.one_step; })
        .def_property_readonly("stacked", [](const LinearCall& call) { return call.layer.stacked; })
        .def_property_readonly("full_gradient", [](const LinearCall& call) { return call.layer.full_gradient; })
        .def_property_readonly("steps", [](const LinearCall& call) { return call.layer.steps; })
        .def_property_readonly("batch", [](const LinearCall& call) { return call.layer.batch; });
    m.def("src_linear", &src_linear, "input"_a, "weight"_a, "given"_a, "lengths"_a, "method"_a,
          "input_grad_at_events"_a, "one_step"_a, "stacked"_a, "threads"_a);
    m.def("src_linear_backward", &src_linear_backward, "call"_a, "kept"_a, "grads"_a, "needs"_a, "threads"_a);
}
