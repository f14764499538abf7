// A call of a layer as srcell.ops has it: reads and checks its record, and makes its outputs.
// Included only by the bindings.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "acting.h"
#include "arguments.h"
#include "tensors.h"

namespace srcell {

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
    kFullGradient,
    kLateralSurrogate,
    kPastSteps,
    kBiasMax,
    kChannels,
    kClamped,
    kAutapses,
    kStart
};

inline py::handle field(const py::handle record, Py_ssize_t at) {
    if (!PyTuple_Check(record.ptr()) || at >= PyTuple_GET_SIZE(record.ptr()))
        throw py::type_error("srcell: expected the record of a call");
    return PyTuple_GET_ITEM(record.ptr(), at);
}

inline bool is_text(py::handle object, const char* text) {
    return PyUnicode_Check(object.ptr()) && PyUnicode_CompareWithASCIIString(object.ptr(), text) == 0;
}

// Whether a text names a surrogate gradient; sets whether it is relu.
inline bool read_surrogate(py::handle object, bool& relu) {
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

// How a call came: as an operator's, or directly from a layer. Called directly, the input and the spikes of `one_step`
// lack T, and the states of a `stacked` layer have a dimension of 1 before B.
struct Way {
    bool direct = false, one_step = false, stacked = false;

    Reader::Kind reader() const { return direct ? Reader::kPlain : Reader::kAny; }
};

// A layer's part of a call.
struct LayerCall {
    Reader* reader;
    Number number;
    int64_t steps, batch, neurons;
    // How a layer is called directly, not as an operator.
    Way way = {};
    std::vector<double> constants = {};
    std::vector<Address> parameters = {}, state = {};
    std::vector<int64_t> strides = {};
    std::vector<Shape> shapes = {};  // of the parameters
    Address lengths = 0, weight_hh = 0;
    LateralDelayCall delays = {};
    double bias_max = kUnbounded;
    int64_t channels = 0;  // 0: each neuron has its own parameters, or all have one
    bool relu = false, full_gradient = false, lateral_relu = false;
    bool has_factors = false, autapses = true;
    std::vector<bool> clamped = {};   // whether a parameter is clamped to its domain
    std::vector<Address> given = {};  // the parameters before they are
    Blocks stand = {};
    bool learns_cell = false;        // whether a parameter of the cell needs a gradient
    bool recurrent_weights = false;  // which have no address without neurons
    bool on_host = true;

    bool resonant() const { return static_cast<int>(constants.size()) + 1 == parameters_of(true); }
    // Of a place in kStates.
    bool has_state(size_t k) const { return k == kPast ? delays.past_steps > 0 : int(k) < states_of(resonant()); }
    Shape shape_of_state(size_t k) const { return k == kPast ? past() : plane(); }
    Shape of_spikes() const { return way.one_step ? Shape{batch, neurons} : Shape{steps, batch, neurons}; }
    Shape plane() const { return way.stacked ? Shape{1, batch, neurons} : Shape{batch, neurons}; }
    Shape past() const {
        return way.stacked ? Shape{1, batch, delays.past_steps, neurons} : Shape{batch, delays.past_steps, neurons};
    }

    int64_t values_of(size_t k) const { return shapes[k].count ? shapes[k].of[0] : 1; }
    // The neurons that have a value of a parameter in common, unless all have: of a parameter (channels,) a channel's.
    int64_t copies_of(size_t k) const { return strides[k] && values_of(k) ? neurons / values_of(k) : 1; }
    // Neighbouring values that have one gradient: parameters (N,) of channels are expanded.
    int64_t alike(size_t k) const { return strides[k] && channels && values_of(k) == neurons ? neurons / channels : 1; }
    const ParameterRow* domain_of(size_t k) const {
        return k && k - 1 < clamped.size() && clamped[k - 1] ? &kParameterTable[k] : nullptr;
    }
    bool differs(size_t k) const { return given[k] && (domain_of(k) || copies_of(k) != 1); }

    // A tensor of one element, or of one for each neuron or channel; called directly not (1,), which srcell.functional
    // reshapes, unless there is one neuron or channel.
    bool read_parameter(py::handle object) {
        Tensor x;
        if (!reader->read(object, x) || x.number != number || x.dimensions > 1) return false;
        const int64_t count = x.dimensions ? x.shape[0] : 1;
        const bool of_channels = x.dimensions && channels && count == channels;
        if (count != neurons && !of_channels && (count != 1 || (way.direct && x.dimensions))) return false;
        parameters.push_back(address_of(x.data));
        strides.push_back(count == 1 ? 0 : 1);
        shapes.push_back(x.dimensions ? Shape{count} : Shape{});
        return true;
    }

    bool read_optional(py::handle object, Number expected, const Shape& shape, Address& address) const {
        Tensor x;
        if (object.is_none()) return true;
        if (!reader->read(object, x) || !x.has(expected, shape)) return false;
        address = address_of(x.data);
        return true;
    }

    bool read_present(py::handle object, const Shape& shape, Address& address) const {
        return !object.is_none() && read_optional(object, number, shape, address);
    }

    // The gradients of spikes and state; what the layer does not have is ignored.
    bool read_gradients(const Items& given, Py_ssize_t count, Outputs& grads) const {
        for (Py_ssize_t k = 0; k < count; ++k) {
            const auto at = static_cast<size_t>(k);
            if (k && !has_state(at - 1)) continue;
            const Shape shape = k == 0 ? of_spikes() : shape_of_state(at - 1);
            if (!read_optional(given[k], number, shape, grads[at])) return false;
        }
        return true;
    }

    bool read_constants(py::handle object) {
        const Items items(object);
        if (!items.valid) return false;
        for (Py_ssize_t k = 0; k < items.size(); ++k) {
            constants.push_back(PyFloat_AsDouble(items[k].ptr()));
            if (constants.back() != -1 || !PyErr_Occurred()) continue;
            PyErr_Clear();
            return false;
        }
        const int count = static_cast<int>(constants.size()) + 1;
        return count == parameters_of(false) || count == parameters_of(true);
    }

    // A number, or None without a bound.
    bool read_bias_max(py::handle object) {
        if (object.is_none()) return true;
        bias_max = PyFloat_AsDouble(object.ptr());
        if (bias_max != -1 || !PyErr_Occurred()) return !std::isnan(bias_max);
        PyErr_Clear();
        return false;
    }

    bool read_channels(py::handle object) {
        channels = PyLong_AsLongLong(object.ptr());
        if (channels == -1 && PyErr_Occurred()) throw py::error_already_set();
        return channels == 0 || (channels > 0 && neurons % channels == 0);
    }

    // Flags of the parameters of the cell, or none.
    bool read_clamped(py::handle object) {
        const Items items(object);
        if (!items.valid || items.size() > static_cast<Py_ssize_t>(constants.size())) return false;
        for (Py_ssize_t k = 0; k < items.size(); ++k) clamped.push_back(items[k].ptr() == Py_True);
        return true;
    }

    // Of a backward call i and the past, or i alone.
    bool read_state(py::handle object, bool backward = false) {
        if (way.direct && object.is_none()) return true;
        const Items items(object);
        if (!items.valid || (way.direct && !backward && !items.size() && PyTuple_Check(object.ptr()))) return false;
        const bool delayed = delays.past_steps > 0;
        const Py_ssize_t all = (backward ? 1 : states_of(resonant())) + delayed, given = items.size();
        if (given && given != all && given != all - delayed) return false;
        if (given) state.assign(kStates, 0);
        const bool unstacked = backward && way.stacked;  // what is kept has the shape that operators keep
        for (Py_ssize_t k = 0; k < given; ++k) {
            const bool past = delayed && k == all - 1;
            Address& at = state[past ? kPast : static_cast<size_t>(k)];
            if (way.direct && !backward && items[k].is_none()) return false;
            Shape shape = past ? this->past() : plane();
            if (unstacked) shape = past ? Shape{batch, delays.past_steps, neurons} : Shape{batch, neurons};
            if (!read_optional(items[k], number, shape, at)) return false;
        }
        return true;
    }

    bool read_delays(py::handle first, py::handle factors, py::handle past_steps) {
        delays.past_steps = PyLong_AsLongLong(past_steps.ptr());
        if (delays.past_steps == -1 && PyErr_Occurred()) throw py::error_already_set();
        if (delays.past_steps < 0 || (delays.past_steps == 0) != first.is_none()) return false;
        if (first.is_none()) return factors.is_none();
        if (!recurrent_weights || !read_optional(first, Number::kInt32, {neurons}, delays.first)) return false;
        delays.terms = 1;
        if (factors.is_none()) return true;
        Tensor x;
        if (!reader->read(factors, x) || x.dimensions != 2 || x.shape[1] < 1) return false;
        delays.terms = x.shape[1];
        delays.factors = address_of(x.data), has_factors = true;
        return x.has(number, {neurons, delays.terms});
    }

    bool read(py::handle record, bool backward = false) {
        const Items cell(field(record, kCell));
        constants.reserve(kParameters), parameters.reserve(kParameters), strides.reserve(kParameters);
        shapes.reserve(kParameters);
        if (steps < 0 || batch < 0 || !cell.valid || !read_constants(field(record, kConstants)) ||
            (cell.size() && cell.size() != static_cast<Py_ssize_t>(constants.size())) ||
            !read_channels(field(record, kChannels)) || !read_clamped(field(record, kClamped)))
            return false;
        if (!read_parameter(field(record, kBiasField))) return false;
        const int learnt = reader->learnt();
        for (Py_ssize_t k = 0; k < cell.size(); ++k) {
            if (!PyFloat_CheckExact(cell[k].ptr())) {
                if (!read_parameter(cell[k])) return false;
            } else {  // among the constants
                parameters.push_back(0), strides.push_back(0), shapes.push_back({});
            }
        }
        learns_cell = reader->learnt() > learnt;
        full_gradient = field(record, kFullGradient).ptr() == Py_True;
        recurrent_weights = !field(record, kWeightHh).is_none();
        autapses = field(record, kAutapses).ptr() != Py_False;
        const bool at_rest = is_text(field(record, kStart), "rest");
        if (!at_rest && !is_text(field(record, kStart), "zeros")) return false;
        if (!read_optional(field(record, kLengths), Number::kInt64, {batch}, lengths) ||
            !read_surrogate(field(record, kSurrogate), relu) ||
            !read_surrogate(field(record, kLateralSurrogate), lateral_relu) ||
            !read_optional(field(record, kWeightHh), number, {neurons, neurons}, weight_hh) ||
            !read_delays(field(record, kFirstHh), field(record, kFactorsHh), field(record, kPastSteps)) ||
            !read_bias_max(field(record, kBiasMax)) || !read_state(field(record, kState), backward))
            return false;
        if (on_host)
            with_type(number == Number::kFloat64, [&](auto zero) { act<decltype(zero)>(at_rest && !backward); });
        return true;
    }

    // Puts what the layer computes with in the place of what its arguments hold.
    template <class T>
    void act(bool at_rest) {
        given = parameters;
        for (size_t k = 0; k < given.size(); ++k)
            if (differs(k))
                parameters[k] = address_of(
                    acting_values(pointer<const T>(given[k]), values_of(k), copies_of(k), domain_of(k), stand));
        if (!autapses && weight_hh)
            weight_hh = address_of(without_autapses(pointer<const T>(weight_hh), neurons, stand));
        if (!at_rest || !state.empty()) return;
        const auto parameter = [&](size_t k) {
            const T constant = k == kBias ? T(0) : static_cast<T>(constants[k - 1]);
            const T* const data = k < parameters.size() ? pointer<const T>(parameters[k]) : nullptr;
            return Parameter<T>{data, data ? strides[k] : 0, constant};
        };
        constexpr double largest = std::numeric_limits<T>::max();
        const T most = std::abs(bias_max) <= largest
                           ? static_cast<T>(bias_max)
                           : std::copysign(std::numeric_limits<T>::infinity(), T(bias_max > 0 ? 1 : -1));
        const Address h =
            address_of(h_at_rest(parameter(kBias), most, parameter(kR), parameter(kRs), batch, neurons, stand));
        state.assign(kStates, 0);
        state[kH] = state[kHs] = h;
    }

    Layer checked(int threads) const {
        return {number == Number::kFloat64,
                on_host,
                {steps, batch, neurons},
                lengths,
                threads,
                constants,
                parameters,
                strides,
                state,
                relu,
                full_gradient,
                weight_hh,
                lateral_relu,
                delays,
                bias_max,
                channels ? neurons / channels : 1};
    }
};

// The tensors that a call makes.
struct Made {
    py::list made;

    Address none() {
        made.append(py::none());
        return 0;
    }
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

// Those of a forward call: spikes and the state, what is saved, and what an operator keeps besides.
struct Results : Made {
    Outputs outputs = {};
    Saved saved = {};
};

inline Results make_results(const LayerCall& call, py::handle like) {
    Results made;
    made.outputs[0] = made.add(like, call.number, call.of_spikes());
    for (size_t k = 0; k < kStates; ++k)
        made.outputs[1 + k] = call.has_state(k) ? made.add(like, call.number, call.shape_of_state(k)) : made.none();
    return made;
}

// The elements of a call's checkpoints.
inline int64_t saved_states(const LayerCall& call, bool traced) {
    const int64_t states = states_of(call.resonant()) - traced;
    return ceil_div(call.steps, traced ? kEventSegment : kSegment) * states * call.batch * call.neurons;
}

// Adds trace and checkpoints if they are to be saved.
inline void add_saved(Results& made, const LayerCall& call, py::handle like, bool save, bool traced) {
    if (!save) {
        made.none(), made.none();
        return;
    }
    made.saved[0] = made.add(like, call.number, {traced ? call.steps * call.batch * call.neurons : 0});
    made.saved[1] = made.add(like, call.number, {saved_states(call, traced)});
}

// Reads what add_saved() added.
inline bool read_saved(const LayerCall& call, py::handle trace, py::handle checkpoints, bool traced, Saved& saved) {
    return call.read_present(trace, {traced ? call.steps * call.batch * call.neurons : 0}, saved[0]) &&
           call.read_present(checkpoints, {saved_states(call, traced)}, saved[1]);
}

// Which gradients of a layer are wanted.
using Wanted = std::array<bool, std::tuple_size_v<Gradients>>;

// The gradients of a layer in the order of Gradients, None for each that is not wanted or that the layer does not have.
struct LayerGradients : Made {
    Gradients at = {};

    LayerGradients(const LayerCall& layer, const Wanted& wanted, py::handle like) : call(layer) {
        const int64_t plane = call.batch * call.neurons;
        unused_ = Block<double>((kStates - 1) * plane + call.neurons);
        for (size_t k = 0, next = 0; k < at.size(); ++k) {
            // What the kernels fill in any case.
            const bool filled = (is_state(k) && call.has_state(k - kOfState)) || k == kOfParameters;
            if (wanted[k] && (filled || has(call, k))) {
                at[k] = add(like, call.number, shape_of(call, k));
                if (k >= kOfParameters && call.differs(k - kOfParameters)) {
                    of_values_[k - kOfParameters] = at[k];
                    if (call.copies_of(k - kOfParameters) != 1)  // the kernels fill one for each neuron
                        at[k] = address_of(per_neuron_.take<double>(call.neurons));
                }
                continue;
            }
            none();
            if (!filled) continue;
            at[k] = address_of(unused_.data() + next);
            next += static_cast<size_t>(k == kOfParameters ? call.neurons : plane);
        }
    }

    // Turns the gradients of what the layer computed with into those of its arguments.
    void settle() {
        with_type(call.number == Number::kFloat64, [&](auto zero) { settle<decltype(zero)>(); });
    }

  private:
    template <class T>
    void settle() {
        for (size_t k = 0; k < of_values_.size(); ++k)
            if (of_values_[k])
                gradients_of_values(pointer<const T>(call.given[k]), call.values_of(k), call.copies_of(k),
                                    call.alike(k), call.domain_of(k), pointer<const T>(at[kOfParameters + k]),
                                    pointer<T>(of_values_[k]));
        T* const of_lateral = pointer<T>(at[kOfLateral]);
        for (int64_t n = 0; n < call.neurons && of_lateral && !call.autapses; ++n)
            of_lateral[n * (call.neurons + 1)] = 0;
    }

    static bool is_state(size_t k) { return k >= kOfState && k < kOfState + kPast; }
    static bool has(const LayerCall& call, size_t k) {
        if (k == kOfLateral) return call.recurrent_weights;
        if (k == kOfFactors) return call.has_factors;
        if (k < kOfParameters) return call.has_state(k - kOfState);
        return k > kOfParameters && k - kOfParameters < call.shapes.size();
    }
    static Shape shape_of(const LayerCall& call, size_t k) {
        if (k == kOfLateral) return {call.neurons, call.neurons};
        if (k == kOfFactors) return {call.neurons, call.delays.terms};
        return k < kOfParameters ? call.shape_of_state(k - kOfState) : call.shapes[k - kOfParameters];
    }

    const LayerCall& call;
    Block<double> unused_;
    Blocks per_neuron_;
    std::array<Address, kParameters> of_values_ = {};
};

// Reads events of `rows` rows, and the type of their values, if they have any.
inline bool read_events(Reader& reader, py::handle offsets, py::handle indices, py::handle values, int64_t rows,
                        EventRows& events, Number& number) {
    Tensor of_offsets, of_indices, of_values = {};
    if (!reader.read(offsets, of_offsets) || !of_offsets.has(Number::kInt64, {rows + 1}) ||
        !reader.read(indices, of_indices) || of_indices.dimensions != 1 || of_indices.number != Number::kInt32)
        return false;
    events.count = of_indices.shape[0];
    if (!values.is_none()) {
        if (!reader.read(values, of_values) || !of_values.has(of_values.number, {events.count})) return false;
        number = of_values.number;
    }
    events.offsets = address_of(of_offsets.data), events.indices = address_of(of_indices.data);
    events.values = address_of(of_values.data);
    return true;
}

// Reads T and B.
inline bool read_sizes(const py::handle call, Py_ssize_t at, int64_t& steps, int64_t& batch) {
    steps = PyLong_AsLongLong(field(call, at).ptr()), batch = PyLong_AsLongLong(field(call, at + 1).ptr());
    if (PyErr_Occurred()) throw py::error_already_set();
    return steps >= 0 && batch >= 0 && (!steps || batch < INT64_MAX / steps);
}

inline bool is_float(Number number) { return number == Number::kFloat32 || number == Number::kFloat64; }

// Reads a weight (N, K).
inline bool read_weight(Reader& reader, py::handle object, Tensor& weight) {
    return reader.read(object, weight) && weight.dimensions == 2 && is_float(weight.number);
}

}  // namespace srcell
