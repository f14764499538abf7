// The forward calls of layers in the compiled module srcell._core: read and check the record of a call, make its
// outputs and run the kernel. A call that is not valid is refused by returning None: Python, which checks fake tensors
// in the same way, then says what is wrong. core.cpp calls bind_forward().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <tuple>

#include "../cpu/event_rows.h"
#include "arguments.h"
#include "layer.h"
#include "tensors.h"

namespace srcell {
namespace {

// The fields of a record LayerArguments of srcell.ops, in their order.
enum Field {
    kBiasField,
    kCell,
    kState,
    kLengths,
    kWeightHh,
    kFirstHh,
    kFactorsHh,
    kConstants,
    kSurrogate,
    kRecurrentGrad,
    kLateralSurrogate,
    kPastSteps,
    kFields
};

py::handle field(const py::handle record, Py_ssize_t at) { return PyTuple_GET_ITEM(record.ptr(), at); }

bool is_text(py::handle object, const char* text) {
    return PyUnicode_Check(object.ptr()) && PyUnicode_CompareWithASCIIString(object.ptr(), text) == 0;
}

// Whether a text names a surrogate gradient; sets whether it is relu.
bool read_surrogate(py::handle object, bool& relu) {
    relu = is_text(object, "relu");
    return relu || is_text(object, "straight_through");
}

// The items of a list or tuple, or nothing for another object.
struct Items {
    explicit Items(py::handle sequence)
        : valid(PyList_Check(sequence.ptr()) || PyTuple_Check(sequence.ptr())), of(sequence.ptr()) {}
    Py_ssize_t size() const { return PySequence_Fast_GET_SIZE(of); }
    py::handle operator[](Py_ssize_t at) const { return PySequence_Fast_GET_ITEM(of, at); }

    bool valid;
    PyObject* of;
};

// A layer's part of a call.
struct LayerCall {
    Reader& reader;
    Number number;
    int64_t steps, batch, neurons;
    bool one_step = false;  // the spikes of a cell have no T
    bool stacked = false;   // the states of a stack of one layer have a dimension of 1 before B
    std::vector<double> constants = {};
    std::vector<Address> parameters = {}, state = {};
    std::vector<int64_t> strides = {};
    Address lengths = 0, weight_hh = 0;
    LateralDelayCall delays = {};
    bool relu = false, recurrent = false, lateral_relu = false;
    bool recurrent_weights = false;  // which have no address without neurons

    bool resonant() const { return static_cast<int>(constants.size()) + 1 == parameters_of(true); }
    Shape of_spikes() const { return one_step ? Shape{batch, neurons} : Shape{steps, batch, neurons}; }
    Shape plane() const { return stacked ? Shape{1, batch, neurons} : Shape{batch, neurons}; }
    Shape past() const { return stacked ? Shape{1, batch, delays.room, neurons} : Shape{batch, delays.room, neurons}; }

    // A tensor of one element or of one for each neuron.
    bool read_parameter(py::handle object) {
        Tensor x;
        if (!reader.read(object, x) || x.number != number || x.dimensions > 1) return false;
        const int64_t count = x.dimensions ? x.shape[0] : 1;
        if (count != 1 && count != neurons) return false;
        parameters.push_back(address_of(x.data));
        strides.push_back(count == 1 ? 0 : 1);
        return true;
    }

    bool read_optional(py::handle object, Number expected, const Shape& shape, Address& address) {
        Tensor x;
        if (object.is_none()) return true;
        if (!reader.read(object, x) || !x.has(expected, shape)) return false;
        address = address_of(x.data);
        return true;
    }

    bool read_constants(py::handle object) {
        const Items items(object);
        if (!items.valid) return false;
        for (Py_ssize_t k = 0; k < items.size(); ++k) {
            if (!PyFloat_Check(items[k].ptr())) return false;
            constants.push_back(PyFloat_AS_DOUBLE(items[k].ptr()));
        }
        const int count = static_cast<int>(constants.size()) + 1;
        return count == parameters_of(false) || count == parameters_of(true);
    }

    bool read_state(py::handle object) {
        const Items items(object);
        if (!items.valid) return false;
        const bool delayed = delays.room > 0;
        const Py_ssize_t all = 3 + resonant() + delayed, given = items.size();
        if (given && given != all && given != all - delayed) return false;
        if (given) state.assign(kStates, 0);
        for (Py_ssize_t k = 0; k < given; ++k) {
            const bool past = delayed && k == all - 1;
            Address& at = state[past ? kPast : static_cast<size_t>(k)];
            if (!read_optional(items[k], number, past ? this->past() : plane(), at)) return false;
        }
        return true;
    }

    bool read_delays(py::handle first, py::handle factors, py::handle room) {
        delays.room = PyLong_AsLongLong(room.ptr());
        if (delays.room == -1 && PyErr_Occurred()) throw py::error_already_set();
        if (delays.room < 0 || (delays.room == 0) != first.is_none()) return false;
        if (first.is_none()) return factors.is_none();
        if (!recurrent_weights || !read_optional(first, Number::kInt32, {neurons}, delays.first)) return false;
        delays.terms = 1;
        if (factors.is_none()) return true;
        Tensor x;
        if (!reader.read(factors, x) || x.dimensions != 2 || x.shape[1] < 1) return false;
        delays.terms = x.shape[1];
        delays.factors = address_of(x.data);
        return x.has(number, {neurons, delays.terms});
    }

    bool read(py::handle record) {
        const Items cell(field(record, kCell));
        if (steps < 0 || batch < 0 || !cell.valid || !read_constants(field(record, kConstants)) ||
            (cell.size() && cell.size() != static_cast<Py_ssize_t>(constants.size())))
            return false;
        if (!read_parameter(field(record, kBiasField))) return false;
        for (Py_ssize_t k = 0; k < cell.size(); ++k)
            if (!read_parameter(cell[k])) return false;
        recurrent = field(record, kRecurrentGrad).ptr() == Py_True;
        recurrent_weights = !field(record, kWeightHh).is_none();
        return read_optional(field(record, kLengths), Number::kInt64, {batch}, lengths) &&
               read_surrogate(field(record, kSurrogate), relu) &&
               read_surrogate(field(record, kLateralSurrogate), lateral_relu) &&
               read_optional(field(record, kWeightHh), number, {neurons, neurons}, weight_hh) &&
               read_delays(field(record, kFirstHh), field(record, kFactorsHh), field(record, kPastSteps)) &&
               read_state(field(record, kState));
    }

    // The cell as users give it: numbers and tensors, of which an omega of 0 is none.
    bool read_users_cell(py::handle object) {
        constexpr double kUnused = 0.5;  // valid for every parameter: beside a tensor, whose values are checked
        const Items items(object);
        if (!items.valid || items.size() != parameters_of(true) - 1) return false;
        for (Py_ssize_t k = 0; k < items.size(); ++k) {
            const py::handle item = items[k];
            const bool is_number = PyFloat_CheckExact(item.ptr()) != 0;
            const double value = is_number ? PyFloat_AS_DOUBLE(item.ptr()) : kUnused;
            if (k + 1 == kOmega && is_number && value == 0) return true;
            constants.push_back(value);
            if (!is_number && !read_parameter(item)) return false;
            if (is_number) parameters.push_back(0), strides.push_back(0);
        }
        return true;
    }

    // `given` is a record UserArguments of srcell.functional.
    bool read_users(py::handle given, py::handle lengths_of_samples) {
        enum { kBias, kState, kCell, kSurrogate, kRecurrentGrad, kLateral };
        enum { kWeightHh, kLateralSurrogate, kDelayHh, kMaxDelay, kDelayWidth };
        const py::handle lateral = field(given, kLateral), before = field(given, kState);
        if (!field(lateral, kDelayHh).is_none() || !field(lateral, kMaxDelay).is_none()) return false;
        if (!PyLong_CheckExact(field(lateral, kDelayWidth).ptr()) ||
            PyLong_AsLong(field(lateral, kDelayWidth).ptr()) != 1)
            return false;
        recurrent = field(given, kRecurrentGrad).ptr() == Py_True;
        if (!recurrent && field(given, kRecurrentGrad).ptr() != Py_False) return false;
        recurrent_weights = !field(lateral, kWeightHh).is_none();
        return read_parameter(field(given, kBias)) && read_users_cell(field(given, kCell)) &&
               read_optional(lengths_of_samples, Number::kInt64, {batch}, lengths) &&
               read_surrogate(field(given, kSurrogate), relu) &&
               read_surrogate(field(lateral, kLateralSurrogate), lateral_relu) &&
               read_optional(field(lateral, kWeightHh), number, {neurons, neurons}, weight_hh) &&
               (before.is_none() || (PyTuple_Check(before.ptr()) && read_state(before)));
    }

    Layer checked(int threads) const {
        return {number == Number::kFloat64,
                true,
                {steps, batch, neurons},
                lengths,
                threads,
                constants,
                parameters,
                strides,
                state,
                relu,
                recurrent,
                weight_hh,
                lateral_relu,
                delays};
    }
};

// The outputs of a forward call: spikes and the state, what is saved, and what an operator keeps besides.
struct Results {
    py::list made;
    Outputs outputs = {};
    Saved saved = {};

    void none() { made.append(py::none()); }
    Address add(py::handle like, Number number, const Shape& shape) {
        const bool again = last && described.has(number, shape);
        last = again ? another(last, described) : new_tensor(like, number, shape, described);
        made.append(last);
        return address_of(described.data);
    }

  private:
    py::object last;
    Tensor described = {};
};

Results make_results(const LayerCall& call, py::handle like) {
    Results made;
    made.outputs[0] = made.add(like, call.number, call.of_spikes());
    for (size_t k = 1; k <= 3; ++k) made.outputs[k] = made.add(like, call.number, call.plane());
    if (call.resonant())
        made.outputs[4] = made.add(like, call.number, call.plane());
    else
        made.none();
    if (call.delays.room)
        made.outputs[1 + kPast] = made.add(like, call.number, call.past());
    else
        made.none();
    return made;
}

// Adds trace and checkpoints if they are to be saved.
void add_saved(Results& made, const LayerCall& call, py::handle like, bool save, bool traced) {
    if (!save) {
        made.none(), made.none();
        return;
    }
    const int64_t plane = call.batch * call.neurons, segment = traced ? kEventSegment : kSegment;
    const int64_t states = 3 + call.resonant() - traced, segments = ceil_div(call.steps, segment);
    made.saved[0] = made.add(like, call.number, {traced ? call.steps * plane : 0});
    made.saved[1] = made.add(like, call.number, {segments * states * plane});
}

bool flag(py::handle object) { return object.ptr() == Py_True; }

// `call` has the fields current, layer, save, trace_integrator and half_spikes.
py::object src(const py::handle call, int threads) {
    Reader reader;
    Tensor current;
    if (!reader.read(field(call, 0), current) || current.dimensions != 3) return py::none();
    if (current.number != Number::kFloat32 && current.number != Number::kFloat64) return py::none();
    LayerCall layer = {reader, current.number, current.shape[0], current.shape[1], current.shape[2]};
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

// Reads a weight (N, K).
bool read_weight(Reader& reader, py::handle object, Tensor& weight) {
    return reader.read(object, weight) && weight.dimensions == 2 &&
           (weight.number == Number::kFloat32 || weight.number == Number::kFloat64);
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
    LayerCall layer = {reader, weight.number, steps, batch, weight.shape[0]};
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
    LayerCall layer = {reader, weight.number, input.shape[0], input.shape[1], weight.shape[0]};
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

// The events of an EventBatch of srcell.events, or the elements of a dense tensor, and the sizes of either.
struct SynapseInput {
    bool has_events = false;
    int64_t steps = 0, batch = 0, inputs = 0;
    EventRows rows = {};
    Address elements = 0;
    py::object lengths = py::none();

    bool read(Reader& reader, py::handle object, Number number, bool one_step) {
        has_events = !one_step && is_event_batch(object);
        if (has_events) return read_events(reader, object, number);
        Tensor x;
        if (!reader.read(object, x) || x.number != number || x.dimensions != (one_step ? 2 : 3)) return false;
        steps = one_step ? 1 : x.shape[0], batch = x.shape[x.dimensions - 2], inputs = x.shape[x.dimensions - 1];
        elements = address_of(x.data);
        return true;
    }

    bool read_events(Reader& reader, py::handle object, Number number) {
        Tensor offsets, indices, values;
        const py::object of_values = object.attr("values"), shape = object.attr("shape");
        if (!PyTuple_CheckExact(shape.ptr()) || PyTuple_GET_SIZE(shape.ptr()) != 3) return false;
        const auto size = [&](Py_ssize_t k) { return PyLong_AsLongLong(PyTuple_GET_ITEM(shape.ptr(), k)); };
        steps = size(0), batch = size(1), inputs = size(2);
        if (PyErr_Occurred()) throw py::error_already_set();
        if (steps < 0 || batch < 0 || (steps && batch >= INT64_MAX / steps)) return false;
        lengths = object.attr("lengths");
        if (!reader.read(reader.keep(object.attr("offsets")), offsets) ||
            !offsets.has(Number::kInt64, {steps * batch + 1}) ||
            !reader.read(reader.keep(object.attr("indices")), indices) || indices.dimensions != 1 ||
            indices.number != Number::kInt32)
            return false;
        rows = {address_of(offsets.data), address_of(indices.data), 0, indices.shape[0], inputs};
        if (of_values.is_none()) return true;
        if (!reader.read(reader.keep(of_values), values) || !values.has(number, {rows.count})) return false;
        rows.values = address_of(values.data);
        return true;
    }
};

// A layer after a linear synapse, from the arguments of srcell.functional. The input and the spikes of `one_step` lack
// T; the states of a `stacked` layer have a dimension of 1 before B. Returns the spikes and the state; None if the call
// is not valid, is one for torch's dispatcher, or needs a gradient, another dtype or the product.
py::object src_linear(py::handle input, py::handle weight, py::handle given, py::handle lengths, py::handle method,
                      bool one_step, bool stacked, int threads) {
    const bool chosen = is_text(method, "events");
    if ((!chosen && !is_text(method, "auto")) || is_watched() || autocasts()) return py::none();
    Reader reader(Reader::kPlain);
    Tensor of_weight;
    SynapseInput x;
    if (!read_weight(reader, weight, of_weight) || !x.read(reader, input, of_weight.number, one_step) ||
        x.inputs != of_weight.shape[1] || x.inputs > int64_t(1) << 31 || (!x.lengths.is_none() && !lengths.is_none()))
        return py::none();
    LayerCall layer = {reader, of_weight.number, x.steps, x.batch, of_weight.shape[0], one_step, stacked};
    if (!layer.read_users(given, x.lengths.is_none() ? lengths : x.lengths)) return py::none();
    const Layer checked = layer.checked(threads);
    if (!x.has_events && !chosen &&
        !events_are_faster(layer.number == Number::kFloat64, checked.shape, x.elements, x.inputs))
        return py::none();
    Results made = make_results(layer, weight);
    if (x.has_events)
        traced_forward(checked, made.outputs, &x.rows, address_of(of_weight.data), 0, {}, false);
    else
        dense_forward(checked, made.outputs, x.elements, x.inputs, 0, address_of(of_weight.data), {}, false);
    const py::list& all = made.made;
    py::tuple state = py::make_tuple(all[1], all[2], all[3]);
    if (layer.resonant()) state = py::make_tuple(all[1], all[2], all[3], all[4]);
    return py::make_tuple(all[0], new_state(state, layer.resonant()));
}

}  // namespace
}  // namespace srcell

void bind_forward(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    m.def("src", &src, "call"_a, "threads"_a);
    m.def("src_events", &src_events, "call"_a, "threads"_a);
    m.def("src_dense", &src_dense, "call"_a, "threads"_a);
    m.def("src_linear", &src_linear, "input"_a, "weight"_a, "given"_a, "lengths"_a, "method"_a, "one_step"_a,
          "stacked"_a, "threads"_a);
}
