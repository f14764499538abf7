// Turns arguments into the structs of params.h. Tensors come as addresses and sizes: srcell.ops, or calls.h, has
// checked their shape, dtype, device and contiguity, and this file checks values. Included only by the bindings; knows
// no torch.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include "../cpu/block.h"
#include "../cpu/float_control.h"
#include "../cpu/kernels.h"
#include "../cpu/listed_events.h"
#include "../cpu/turn.h"
#include "../domains.h"

namespace srcell {

namespace py = pybind11;

// The table that dispatch chose at import.
const Kernels& kernels();

extern "C" void srcell_restore_gil(PyThreadState* state);  // gil.c

// While this object lives, the GIL is released and the calling thread rounds to nearest and keeps denormals
// (float_control.h). A thread that takes the GIL back from a finalised interpreter blocks for ever (gil.c).
class ReleasedGil {
  public:
    ReleasedGil() : state_(PyEval_SaveThread()) {}
    ~ReleasedGil() { srcell_restore_gil(state_); }
    ReleasedGil(const ReleasedGil&) = delete;
    ReleasedGil& operator=(const ReleasedGil&) = delete;

  private:
    PyThreadState* state_;
    PlainArithmetic plain_;
};

using Address = std::uintptr_t;  // of a tensor's first element; 0: the tensor is absent

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

inline Address address_of(const void* pointer) { return reinterpret_cast<Address>(pointer); }

template <class... Parts>
[[noreturn]] void value_error(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw py::value_error(message.str());
}

// Calls function(T()), with T the number type of a call without a Layer. For a call with a Layer, Layer::visit() does
// this.
template <class Function>
auto with_type(bool is_double, Function function) {
    if (is_double) return function(double());
    return function(float());
}

using Sizes = std::array<int64_t, 3>;  // T, B, N or T, B, K

// Values are checked only in tensors on the host: reading a GPU's memory would mean waiting for it.

template <class T>
void check_parameter(int k, T value, bool layer_wide) {
    if (const char* expected = expected_of_parameter(k, value, layer_wide))
        value_error(kParameterTable[k].name, ": expected ", expected, ", got ", shortest(value));
}

inline Samples make_samples(const Sizes& sizes, Address lengths, int threads, bool on_host) {
    const Samples shape = {sizes[0], sizes[1], pointer<const int64_t>(lengths), threads};
    if (shape.lengths && on_host)
        for (int64_t b = 0; b < shape.batch; ++b)
            if (shape.lengths[b] < 0 || shape.lengths[b] > shape.steps)
                value_error("lengths: expected values in [0, ", shape.steps, "], got ", shape.lengths[b],
                            " for sample ", b);
    return shape;
}

inline ScanShape make_shape(const Sizes& sizes, Address lengths, int threads, bool on_host) {
    const auto [steps, batch, of_lengths, of_threads] = make_samples(sizes, lengths, threads, on_host);
    return {steps, batch, sizes[2], of_lengths, of_threads};
}

// The state and the past; the address of q is 0 without resonance, that of past without delays.
constexpr size_t kPast = kCellStates, kStates = kPast + 1;

// The delays of a layer's recurrent weights; check() checks their values.
struct LateralDelayCall {
    int64_t terms = 0, past_steps = 0;
    Address first = 0, factors = 0;

    template <class T>
    LateralDelays<T> of(int64_t neurons, const T* past0, int32_t* later, bool keep_zeros) const {
        return {{neurons, 1, terms, pointer<const int32_t>(first), pointer<const T>(factors), keep_zeros},
                past_steps,
                later,
                past0};
    }

    void check(int64_t neurons) const {
        for (int64_t n = 0; n < neurons && terms; ++n) {
            const int64_t start = pointer<const int32_t>(first)[n];
            if (start <= -terms || start > past_steps - terms + 1)
                value_error("first_hh: expected terms of 0 to ", past_steps,
                            " steps (delay_hh in [0, max_delay]), got ", terms, " from ", start, " on for neuron ", n);
        }
    }
};

// The arguments that all calls of a layer's kernels share, with their values checked.
struct Layer {
    ScanShape shape;
    std::variant<CellParameters<float>, CellParameters<double>> cell;
    std::vector<Address> state;          // before the first step, in the order of kStates; 0 or absent: zeros
    bool relu, full_gradient, resonant;  // resonant: there are neurons, and they have a q
    std::variant<OwnTurn<float>, OwnTurn<double>> turn;  // empty without resonance or neurons, and on a GPU
    // On a GPU: the arrays of a Turn, one after the other, which make_turn() of srcell._cuda fills.
    Address device_turn = 0;
    Address lateral;  // weight_hh, or 0
    bool lateral_relu;
    LateralDelayCall delays;

    // `addresses` has the bias, or the bias and every cell parameter: tensors with stride 0 (one value) or 1 (one per
    // neuron). Cell parameters without an address have the values of `constants`, which are checked even if they are
    // not used.
    Layer(bool is_double, bool on_host, const Sizes& sizes, Address lengths, int threads,
          const std::vector<double>& constants, const std::vector<Address>& addresses,
          const std::vector<int64_t>& strides, std::vector<Address> of_state, bool follow_relu, bool with_full_gradient,
          Address weight_hh, bool follow_lateral_relu, const LateralDelayCall& delays_hh, double bias_max,
          int64_t bias_copies)
        : shape(make_shape(sizes, lengths, threads, on_host)),
          state(std::move(of_state)),
          relu(follow_relu),
          full_gradient(with_full_gradient),
          lateral(weight_hh),
          lateral_relu(follow_lateral_relu),
          delays(delays_hh) {
        if (on_host) delays.check(shape.neurons);
        const int count = static_cast<int>(constants.size()) + 1;
        resonant = count == parameters_of(true) && shape.neurons > 0;
        const PlainArithmetic plain;  // denormal parameters stay what they are
        with_type(is_double, [&](auto zero) {
            using T = decltype(zero);
            CellParameters<T> made = {};
            constexpr double largest = std::numeric_limits<T>::max();
            if (bias_max <= largest) made.bias_max = static_cast<T>(bias_max < -largest ? -kUnbounded : bias_max);
            made.bias_copies = bias_copies;
            for (int k = 0; k < count; ++k) {
                const auto at = static_cast<size_t>(k);
                const T* const data = at < addresses.size() ? pointer<const T>(addresses[at]) : nullptr;
                const int64_t stride = data ? strides[at] : 0;
                made.of[k] = {data, stride, k == kBias ? T(0) : static_cast<T>(constants[at - 1])};
                check_parameter(k, made.of[k].constant, !stride);
                if (data && on_host)
                    for (int64_t n = 0; n < (stride ? shape.neurons : 1); ++n) check_parameter(k, data[n], !stride);
            }
            cell = made;
            if (resonant && on_host) turn = OwnTurn<T>(kernels(), made, shape.neurons);
        });
    }

    // The number of elements of either array of a Turn.
    int64_t turns() const {
        return std::visit([&](const auto& of) { return count_turns(of, shape.neurons); }, cell);
    }

    // Calls function(cell), with cell a CellParameters<T>: T is the type of all numbers of the call.
    template <class Function>
    auto visit(Function function) const {
        return std::visit(function, cell);
    }

    template <class T>
    const T* before(size_t k) const {
        return k < state.size() ? pointer<const T>(state[k]) : nullptr;
    }
    template <class T>
    States<const T> before() const {
        States<const T> made;
        for (size_t k = 0; k < kCellStates; ++k) made.of[k] = before<T>(k);
        return made;
    }

    // The delays of recurrent weights; `later` is scratch of (N, terms).
    template <class T>
    LateralDelays<T> delays_of(int32_t* later, bool keep_zeros = false) const {
        return delays.of<T>(shape.neurons, before<T>(kPast), later, keep_zeros);
    }
    int64_t terms() const { return shape.neurons * delays.terms; }

    template <class T>
    Turn<T> turn_of() const {
        if (!resonant) return {};
        const auto* const own = std::get_if<OwnTurn<T>>(&turn);
        if (own && !own->empty()) return own->view();
        if (!device_turn) throw std::logic_error("srcell: expected make_turn() before the kernels of a resonant layer");
        const int64_t count = turns();
        const T* const along = pointer<const T>(device_turn);
        return {along, along + count, count == 1 ? 0 : 1};
    }
};

template <class Parameters>
struct NumberOf;
template <class T>
struct NumberOf<CellParameters<T>> {
    using type = T;
};
template <class Parameters>
using number_of = typename NumberOf<std::decay_t<Parameters>>::type;

using Outputs = std::array<Address, 1 + kStates>;  // spikes and the final state, or the gradients of these
// Gradients of weight_hh, of the factors of its delays, of the initial state and of the parameters; 0: not wanted.
using Gradients = std::array<Address, 2 + kStates + kParameters>;
constexpr size_t kOfLateral = 0, kOfFactors = 1, kOfState = 2, kOfParameters = kOfState + kStates;
// What the forward pass keeps for the backward pass: trace and checkpoints. Both 0: nothing is kept.
using Saved = std::array<Address, 2>;

// The arrays of a state at an array's addresses from `first` on.
template <class T, class Addresses>
States<T> states_at(const Addresses& addresses, size_t first) {
    States<T> made;
    for (size_t k = 0; k < kCellStates; ++k) made.of[k] = pointer<T>(addresses[first + k]);
    return made;
}

template <class T>
CellForward<T> forward_of(const Layer& layer, const CellParameters<T>& cell, const Outputs& outputs) {
    return {layer.shape, cell, layer.turn_of<T>(), layer.before<T>(), pointer<T>(outputs[0]), states_at<T>(outputs, 1)};
}

template <class T>
TracedForward<T> traced_forward_of(const Layer& layer, const CellParameters<T>& cell, const Outputs& outputs,
                                   const Saved& saved, bool trace_integrator) {
    return {forward_of(layer, cell, outputs), pointer<T>(saved[0]), pointer<T>(saved[1]), trace_integrator};
}

// Elements of CellBackward::partials.
inline int64_t count_partials(const Layer& layer, const Gradients& gradients) {
    const bool any =
        std::any_of(gradients.begin() + kOfParameters + kBias + 1, gradients.end(), [](Address at) { return at; });
    return (any ? parameters_of(layer.resonant) : 1) * layer.shape.batch * layer.shape.neurons;
}

template <class T>
CellBackward<T> backward_of(const Layer& layer, const CellParameters<T>& cell, const Outputs& grads,
                            const Gradients& gradients, T* partials) {
    CellBackward<T> p = {layer.shape,
                         cell,
                         layer.turn_of<T>(),
                         layer.relu,
                         layer.full_gradient,
                         pointer<const T>(grads[0]),
                         states_at<const T>(grads, 1),
                         states_at<T>(gradients, kOfState),
                         {},
                         partials};
    for (size_t k = 0; k < kParameters; ++k) p.grad_parameters[k] = pointer<T>(gradients[kOfParameters + k]);
    return p;
}

template <class T>
TracedBackward<T> traced_backward_of(const Layer& layer, const CellParameters<T>& cell, const Outputs& grads,
                                     const Gradients& gradients, T* partials, const Saved& saved,
                                     Address grad_current) {
    return {backward_of(layer, cell, grads, gradients, partials), pointer<const T>(saved[0]),
            pointer<const T>(saved[1]), layer.before<T>(0), pointer<T>(grad_current)};
}

// The delays of recurrent weights; `later` and `factor_partials` are scratch.
template <class T>
LateralDelaysForward<T> delays_forward_of(const Layer& layer, const Outputs& outputs, int32_t* later) {
    return {layer.delays_of<T>(later), pointer<T>(outputs[1 + kPast])};
}

template <class T>
LateralDelaysBackward<T> delays_backward_of(const Layer& layer, const Outputs& grads, const Gradients& gradients,
                                            int32_t* later, T* factor_partials) {
    return {layer.delays_of<T>(later, gradients[kOfFactors] != 0), pointer<const T>(grads[1 + kPast]),
            pointer<T>(gradients[kOfState + kPast]), pointer<T>(gradients[kOfFactors]), factor_partials};
}

// The arguments of an Events<T>, before T is known.
struct EventRows {
    Address offsets, indices, values;
    int64_t count, inputs;

    template <class T>
    Events<T> of() const {
        return {pointer<const int64_t>(offsets), pointer<const int32_t>(indices), pointer<const T>(values), count,
                inputs};
    }
};

// The cell of constants in the order of kIntegerConstants; raises if one constant is out of its bounds or if the
// constants do not fit together.
inline IntegerCell integer_cell_of(const std::vector<int64_t>& constants) {
    if (constants.size() != std::size(kIntegerConstants))
        value_error("cell: expected ", std::size(kIntegerConstants), " constants, got ", constants.size());
    IntegerCell cell = {};
    const IntegerFault fault = fill_integer_cell(constants.data(), cell);
    if (const IntegerConstant* constant = fault.constant)
        value_error("cell.", constant->name, ": expected an int in [", constant->least, ", ", constant->most, "], got ",
                    fault.got);
    if (fault.expected) value_error("cell: expected ", fault.expected, ", got ", fault.got);
    return cell;
}

using IntegerOutputs = std::array<Address, 4>;  // spikes, i, h and hs

// A layer of integer neurons.
struct IntegerLayer {
    ScanShape shape;
    IntegerCell cell;
    std::vector<Address> state;  // i, h and hs before the first step, or none

    const int16_t* before(size_t k) const { return k < state.size() ? pointer<const int16_t>(state[k]) : nullptr; }
};

template <class T>
EventRows rows_of(const Events<T>& events) {
    return {address_of(events.offsets), address_of(events.indices), address_of(events.values), events.count,
            events.inputs};
}

// The arguments that all calls of a delay share. sizes: T, B and K of the input.
struct DelayCall {
    bool is_double;
    Samples shape;
    int64_t inputs, skip, taps, terms;
    Address first, factors;
    bool keep_zeros;

    DelayCall(bool of_doubles, bool on_host, const Sizes& sizes, Address lengths, int threads, int64_t skipped,
              int64_t taps_of_input, int64_t terms_of_tap, Address first_at, Address factors_at, bool keep)
        : is_double(of_doubles),
          shape(make_samples(sizes, lengths, threads, on_host)),
          inputs(sizes[2]),
          skip(skipped),
          taps(taps_of_input),
          terms(terms_of_tap),
          first(first_at),
          factors(factors_at),
          keep_zeros(keep) {}

    template <class T>
    Delays<T> delays() const {
        return {inputs * taps, taps, terms, pointer<const int32_t>(first), pointer<const T>(factors), keep_zeros};
    }
    template <class T>
    DelayedEvents<T> events(const EventRows& rows) const {
        return {shape, skip, delays<T>(), rows.of<T>()};
    }
    template <class T>
    DelayedCounts<T> counted(const EventRows& rows, Address starts) const {
        return {events<T>(rows), pointer<int64_t>(starts)};
    }
    template <class T>
    DelayedRows<T> rows_of(const EventRows& rows, Address cursors, Address offsets, int64_t count) const {
        return {events<T>(rows), pointer<int64_t>(cursors), pointer<int64_t>(offsets), count};
    }
    template <class T>
    DelayedWrite<T> written(const EventRows& rows, Address starts, Address cursors, Address offsets, int64_t count,
                            Address indices, Address values) const {
        return {rows_of<T>(rows, cursors, offsets, count), pointer<const int64_t>(starts), pointer<int32_t>(indices),
                pointer<T>(values)};
    }
    template <class T>
    DelayedBackward<T> backward(const EventRows& rows, Address cursors, Address offsets, int64_t count,
                                Address grad_values, Address grad_events, Address grad_factors,
                                Address partials) const {
        return {rows_of<T>(rows, cursors, offsets, count), pointer<const T>(grad_values), pointer<T>(grad_events),
                pointer<T>(grad_factors), pointer<T>(partials)};
    }
    template <class T>
    DelayedElements<T> elements(Address given) const {
        return {shape, skip, inputs, delays<T>(), pointer<const T>(given)};
    }
    template <class T>
    DelayedElementsForward<T> elements_forward(Address given, Address delayed) const {
        return {elements<T>(given), pointer<T>(delayed)};
    }
    template <class T>
    DelayedElementsBackward<T> elements_backward(Address given, Address grad_delayed, Address grad_elements,
                                                 Address grad_factors, Address partials) const {
        return {elements<T>(given), pointer<const T>(grad_delayed), pointer<T>(grad_elements), pointer<T>(grad_factors),
                pointer<T>(partials)};
    }
};

// The nonzero elements of a dense input; the arguments are those of ListedEvents.
template <class T, class... Known>
ListedEvents<T> list_events(const Samples& shape, int64_t inputs, Address elements, Known... known) {
    const ReleasedGil release;
    return ListedEvents<T>(kernels(), shape, inputs, pointer<const T>(elements), known...);
}

// Raises a ValueError that names the first invalid offset or index, after a kernel has refused `sample`.
[[noreturn]] void refuse_sample(const EventRows& rows, const ScanShape& shape, int64_t sample);

// The arguments of a DeviceMask. A tensor that a kernel does not use may be absent.
struct DenseRows {
    bool is_double;
    Samples shape;
    int64_t inputs;
    Address elements, mask;

    DenseRows(bool of_doubles, const Sizes& sizes, Address lengths, Address elements_at, Address mask_at)
        : is_double(of_doubles),
          shape(make_samples(sizes, lengths, 1, false)),
          inputs(sizes[2]),
          elements(elements_at),
          mask(mask_at) {}
};

}  // namespace srcell
