// A call of a layer as srcell.ops has it: reads and checks its record, and makes its outputs.
// Included only by the bindings.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <cmath>
#include <limits>
#include <optional>
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

inline int64_t as_int64(py::handle number) {
    const int64_t value = PyLong_AsLongLong(number.ptr());
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
}

inline bool flag(py::handle object) { return object.ptr() == Py_True; }

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

// The sizes that the letters of the table stand for; -1: not known yet.
class Letters {
  public:
    Letters() { of_.fill(-1); }
    int64_t& operator[](char letter) { return of_[static_cast<size_t>(letter)]; }
    int64_t operator[](char letter) const { return of_[static_cast<size_t>(letter)]; }

    // The first shape of a row, all of whose letters are known.
    Shape shape(const Argument& row) const {
        Shape made = {};
        const char* at = row.shapes;
        while (*at && *at != '|') {
            made.of[made.count++] = value(at);
            if (*at == ',') ++at;
        }
        return made;
    }

    // Whether a tensor has one of the shapes of a row; unknown letters of this shape are then known.
    bool take(const Argument& row, const Tensor& x) {
        const char* at = row.shapes;
        for (;;) {
            if (take(at, x)) return true;
            while (*at && *at != '|') ++at;
            if (!*at++) return false;
        }
    }

  private:
    static bool is_end(char c) { return !c || c == ',' || c == '|'; }

    // The value of the size at `at`, which is moved past it; -1 if it is unknown or too large.
    int64_t value(const char*& at) const {
        int64_t total = 0, sign = 1;
        bool valid = true;
        for (;;) {
            int64_t product = sign;
            bool zero = false, lost = false;
            for (;; ++at) {
                const int64_t factor = *at >= '0' && *at <= '9' ? *at - '0' : (*this)[*at];
                valid = valid && factor >= 0, zero = zero || !factor;
                lost = __builtin_mul_overflow(product, factor, &product) || lost;
                if (*++at != '*') break;
            }
            valid = valid && (zero || !lost) && !__builtin_add_overflow(total, zero ? 0 : product, &total);
            if (is_end(*at)) return valid ? total : -1;
            sign = *at++ == '-' ? -1 : 1;
        }
    }

    // Whether a tensor has the shape at `at`.
    bool take(const char* at, const Tensor& x) {
        std::array<std::pair<char, int64_t>, kMostDimensions> found;
        size_t count = 0;
        for (int k = 0; k < x.dimensions || *at == '.'; ++k) {
            if (*at == '.') return take_others(x, k);
            if (!*at || *at == '|') return false;
            if (is_end(at[1]) && *at > '9' && (*this)[*at] < 0)
                found[count++] = {*at++, x.shape[k]};
            else if (value(at) != x.shape[k])
                return false;
            if (*at == ',') ++at;
        }
        if (*at && *at != '|') return false;
        for (size_t k = 0; k < count; ++k) (*this)[found[k].first] = found[k].second;
        return true;
    }

    // Whether the dimensions of a tensor from `first` on are those that "..." stands for, which may then be known.
    bool take_others(const Tensor& x, int first) {
        Shape found = {};
        found.count = x.dimensions - first;
        std::copy(x.shape + first, x.shape + x.dimensions, found.of);
        if (!others_) others_ = found;
        return *others_ == found;
    }

    std::array<int64_t, 128> of_;
    std::optional<Shape> others_;
};

// What a tensor of a direct call has beside the shape in the table: it lacks the first dimension, or has another of 1
// before it.
enum class Form { kWhole, kWithoutFirst, kWithOne };

// Reads the tensors of a call by the table.
struct Arguments {
    explicit Arguments(Reader::Kind kind) : reader(kind) {}

    // Reads a tensor, or whether one that may be is absent: its address is then null. Without `elements`, its memory is
    // not read.
    bool read(const Argument& row, py::handle object, Tensor& x, Form form = Form::kWhole, bool elements = true) {
        x.data = nullptr;
        if (object.is_none()) return row.presence & kOptional;
        if (!(elements ? reader.read(object, x) : reader.describe(object, x))) return false;
        const bool any = row.number == Number::kAny;
        if (any || row.number == Number::kFloat) {
            if (number == Number::kOther && (any || x.number == Number::kFloat32 || x.number == Number::kFloat64))
                number = x.number;
            if (x.number != number || number == Number::kOther) return false;
        } else if (x.number != row.number) {
            return false;
        }
        if (form == Form::kWhole) return letters.take(row, x);
        Tensor whole = x;
        const bool shorter = form == Form::kWithOne;
        if (shorter ? !x.dimensions || x.shape[0] != 1 : x.dimensions == kMostDimensions) return false;
        whole.dimensions += shorter ? -1 : 1;
        if (shorter)
            std::copy_n(x.shape + 1, whole.dimensions, whole.shape);
        else
            std::copy_n(x.shape, x.dimensions, whole.shape + 1), whole.shape[0] = 1;
        x = whole;
        return letters.take(row, x);
    }

    bool read(const Argument& row, py::handle object, Address& address, Form form = Form::kWhole) {
        Tensor x;
        const bool valid = read(row, object, x, form);
        address = address_of(x.data);
        return valid;
    }

    Reader reader;
    Number number = Number::kOther;  // of the floats
    Letters letters;
};

// How a call came: as an operator's, or directly from a layer. Called directly, the input and the spikes of `one_step`
// lack T, and the states of a `stacked` layer have a dimension of 1 before B.
struct Way {
    bool direct = false, one_step = false, stacked = false;

    Reader::Kind reader() const { return direct ? Reader::kPlain : Reader::kAny; }
    Form form_of(size_t output) const {
        if (output == 0) return one_step ? Form::kWithoutFirst : Form::kWhole;
        return stacked ? Form::kWithOne : Form::kWhole;
    }
};

// A layer's part of a call.
struct LayerCall {
    // T, B and N are known.
    LayerCall(Arguments& of_call, const Way& called) : call(of_call), way(called) {}

    Arguments& call;
    Way way;  // how a layer is called directly, not as an operator
    int64_t steps = call.letters['T'], batch = call.letters['B'], neurons = call.letters['N'];
    Number number = call.number;
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
    // Of a place in kOutputs.
    Shape shape_of(size_t output) const {
        const Shape whole = call.letters.shape(kOutputs[output]);
        const Form form = way.form_of(output);
        if (form == Form::kWhole) return whole;
        Shape made = {};
        const bool shorter = form == Form::kWithoutFirst;
        made.count = whole.count + (shorter ? -1 : 1), made.of[0] = 1;
        std::copy(whole.of + shorter, whole.of + whole.count, made.of + !shorter);
        return made;
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
        if (!call.read(kParameter, object, x)) return false;
        const int64_t count = x.dimensions ? x.shape[0] : 1;
        if (way.direct && x.dimensions && count == 1 && neurons != 1 && channels != 1) return false;
        parameters.push_back(address_of(x.data));
        strides.push_back(count == 1 ? 0 : 1);
        shapes.push_back(x.dimensions ? Shape{count} : Shape{});
        return true;
    }

    // The gradients of spikes and state; what the layer does not have is ignored.
    bool read_gradients(const Items& given, Py_ssize_t count, Outputs& grads) const {
        for (Py_ssize_t k = 0; k < count; ++k) {
            const auto at = static_cast<size_t>(k);
            if (k && !has_state(at - 1)) continue;
            if (!call.read(kOutputs[at], given[k], grads[at], way.form_of(at))) return false;
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
        channels = as_int64(object);
        call.letters['C'] = channels ? channels : neurons;
        return channels == 0 || (channels > 0 && neurons % channels == 0);
    }

    // Flags of the parameters of the cell, or none.
    bool read_clamped(py::handle object) {
        const Items items(object);
        if (!items.valid || items.size() > static_cast<Py_ssize_t>(constants.size())) return false;
        for (Py_ssize_t k = 0; k < items.size(); ++k) clamped.push_back(flag(items[k]));
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
        for (Py_ssize_t k = 0; k < given; ++k) {
            const bool past = delayed && k == all - 1;
            const size_t at = past ? kPast : static_cast<size_t>(k);
            if (way.direct && !backward && items[k].is_none()) return false;
            // What is kept has the shape that operators keep.
            const Form form = backward ? Form::kWhole : way.form_of(1 + at);
            if (!call.read(kOutputs[1 + at], items[k], state[at], form)) return false;
        }
        return true;
    }

    bool read_delays(py::handle record) {
        const py::handle first = field(record, kFirstHh), factors = field(record, kFactorsHh);
        delays.past_steps = as_int64(field(record, kPastSteps));
        call.letters['P'] = delays.past_steps;
        if (delays.past_steps < 0 || (delays.past_steps == 0) != first.is_none()) return false;
        if (first.is_none()) return factors.is_none();
        has_factors = !factors.is_none();
        if (!recurrent_weights || !read_tensor(record, kFirstHh, delays.first) ||
            !read_tensor(record, kFactorsHh, delays.factors))
            return false;
        delays.terms = has_factors ? call.letters['D'] : 1;
        return delays.terms > 0;
    }

    // One of the fields that kLayer has.
    bool read_tensor(py::handle record, Field at, Address& address) {
        return call.read(kLayer[at - kLengths], field(record, at), address);
    }

    bool read(py::handle record, bool backward = false) {
        int64_t plane;
        if (__builtin_mul_overflow(batch, neurons, &plane) || plane > INT64_MAX / 64) throw std::bad_alloc();
        const Items cell(field(record, kCell));
        constants.reserve(kParameters), parameters.reserve(kParameters), strides.reserve(kParameters);
        shapes.reserve(kParameters);
        if (steps < 0 || batch < 0 || !cell.valid || !read_constants(field(record, kConstants)) ||
            (cell.size() && cell.size() != static_cast<Py_ssize_t>(constants.size())) ||
            !read_channels(field(record, kChannels)) || !read_clamped(field(record, kClamped)))
            return false;
        if (!read_parameter(field(record, kBiasField))) return false;
        const int learnt = call.reader.learnt();
        for (Py_ssize_t k = 0; k < cell.size(); ++k) {
            if (!PyFloat_CheckExact(cell[k].ptr())) {
                if (!read_parameter(cell[k])) return false;
            } else {  // among the constants
                parameters.push_back(0), strides.push_back(0), shapes.push_back({});
            }
        }
        learns_cell = call.reader.learnt() > learnt;
        full_gradient = flag(field(record, kFullGradient));
        recurrent_weights = !field(record, kWeightHh).is_none();
        autapses = field(record, kAutapses).ptr() != Py_False;
        const bool at_rest = is_text(field(record, kStart), "rest");
        if (!at_rest && !is_text(field(record, kStart), "zeros")) return false;
        if (!read_tensor(record, kLengths, lengths) || !read_surrogate(field(record, kSurrogate), relu) ||
            !read_surrogate(field(record, kLateralSurrogate), lateral_relu) ||
            !read_tensor(record, kWeightHh, weight_hh) || !read_delays(record) ||
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
    explicit Made(int64_t reused_bytes = kLargeBytes) : reused_bytes_(reused_bytes) {}

    py::list made;

    Address none() {
        made.append(py::none());
        return 0;
    }
    Address add(py::handle like, Number number, const Shape& shape) {
        const bool again = last_ && described_.has(number, shape);
        last_ = again ? another(last_, described_, reused_bytes_)
                      : new_tensor(like, number, shape, described_, reused_bytes_);
        made.append(last_);
        return address_of(described_.data);
    }

  private:
    int64_t reused_bytes_;  // from here on a tensor lies on memory that is reused
    py::object last_;
    Tensor described_ = {};
};

// Those of a forward call: spikes and the state, what is saved, and what an operator keeps besides.
struct Results : Made {
    Outputs outputs = {};
    Saved saved = {};
};

inline Results make_results(const LayerCall& call, py::handle like) {
    Results made;
    for (size_t k = 0; k < made.outputs.size(); ++k)
        made.outputs[k] = !k || call.has_state(k - 1) ? made.add(like, call.number, call.shape_of(k)) : made.none();
    return made;
}

// Sets the letters of what a layer keeps.
inline void set_kept(const LayerCall& layer, bool traced) {
    Letters& letters = layer.call.letters;
    letters['X'] = traced, letters['Q'] = states_of(layer.resonant()) - traced;
    letters['G'] = ceil_div(layer.steps, traced ? kEventSegment : kSegment);
}

// Adds trace and checkpoints if they are to be saved.
inline void add_saved(Results& made, const LayerCall& layer, py::handle like, bool save, bool traced) {
    set_kept(layer, traced);
    for (size_t k = 0; k < made.saved.size(); ++k)
        made.saved[k] = save ? made.add(like, layer.number, layer.call.letters.shape(kKept[k])) : made.none();
}

// Reads what add_saved() added, which begins at the field `at` of a call.
inline bool read_saved(const LayerCall& layer, py::handle call, Py_ssize_t at, bool traced, Saved& saved) {
    set_kept(layer, traced);
    for (size_t k = 0; k < saved.size(); ++k)
        if (!layer.call.read(kKept[k], field(call, at + static_cast<Py_ssize_t>(k)), saved[k])) return false;
    return true;
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
        const Letters& letters = call.call.letters;
        if (k == kOfLateral) return letters.shape(kLayer[kWeightHh - kLengths]);
        if (k == kOfFactors) return letters.shape(kLayer[kFactorsHh - kLengths]);
        return k < kOfParameters ? call.shape_of(1 + k - kOfState) : call.shapes[k - kOfParameters];
    }

    const LayerCall& call;
    Block<double> unused_;
    Blocks per_neuron_;
    std::array<Address, kParameters> of_values_ = {};
};

// Reads T and B, the fields of a call from `at` on.
inline bool read_sizes(const py::handle call, Py_ssize_t at, Letters& letters) {
    const int64_t steps = as_int64(field(call, at)), batch = as_int64(field(call, at + 1));
    letters['T'] = steps, letters['B'] = batch;
    return steps >= 0 && batch >= 0;
}

// Reads an output_mask of two flags.
inline bool read_flags(py::handle object, bool& first, bool& second) {
    const Items items(object);
    if (!items.valid || items.size() != 2) return false;
    first = flag(items[0]), second = flag(items[1]);
    return true;
}

}  // namespace srcell
