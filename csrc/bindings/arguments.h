// How arguments come from Python and turn into the structs of params.h: addresses and sizes, already checked for shape,
// dtype, device and contiguity by srcell.ops. Values are checked here. Included by the bindings alone.
#pragma once

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <type_traits>
#include <variant>

#include "../cpu/float_control.h"
#include "../cpu/kernels.h"
#include "../cpu/memory.h"

namespace srcell {

namespace py = pybind11;

// The table that dispatch chose at import.
const Kernels& kernels();

extern "C" void srcell_restore_gil(PyThreadState* state);  // gil.c

// Lets other Python threads run while it lives, and gives the kernel that is called plain arithmetic. A thread that
// comes back to an ended interpreter stops for good.
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

template <class... Parts>
[[noreturn]] void value_error(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw py::value_error(message.str());
}

// The fewest digits that tell a number from all others of its type: 1.0000001 is no 1.
template <class T>
std::string shortest(T value) {
    char digits[32];
    return {digits, std::to_chars(digits, digits + sizeof digits, value).ptr};
}

// Calls function(T()) for the type of a call's numbers, where no struct tells it.
template <class Function>
auto with_type(bool is_double, Function function) {
    if (is_double) return function(double());
    return function(float());
}

using Sizes = std::array<int64_t, 3>;  // T, B, N or T, B, K

// Values at addresses are checked on the host, where that is possible without waiting.

// Layer-wide values must be finite, alpha in [0, 1], and rho > 0 with a finite reciprocal everywhere.
template <class T>
void check_parameter(int k, T value, bool layer_wide) {
    if (k == kAlpha && !(value >= 0 && value <= 1))
        value_error("alpha: expected values in [0, 1], got ", shortest(value));
    if (k == kRho && !(value > 0 && std::isfinite(value) && std::isfinite(1 / value)))
        value_error("rho: expected finite values > 0 with a finite reciprocal, got ", shortest(value));
    if (layer_wide && !std::isfinite(value))
        value_error(kParameterNames[k], ": expected a finite value, got ", shortest(value));
}

inline ScanShape make_shape(const Sizes& sizes, Address lengths, int threads, bool on_host) {
    const ScanShape shape = {sizes[0], sizes[1], sizes[2], pointer<const int64_t>(lengths), threads};
    if (shape.lengths && on_host)
        for (int64_t b = 0; b < shape.batch; ++b)
            if (shape.lengths[b] < 0 || shape.lengths[b] > shape.steps)
                value_error("lengths: expected values in [0, ", shape.steps, "], got ", shape.lengths[b],
                            " for sample ", b);
    return shape;
}

// A layer as srcell.ops hands it over, its values checked: what every kernel of a layer starts from.
struct Layer {
    ScanShape shape;
    std::variant<CellParameters<float>, CellParameters<double>> cell;
    bool relu, recurrent;

    // For each parameter a value for the layer, or the address of a tensor with stride 0 (one value) or 1 (one per
    // neuron). Beside a tensor, the value is a default and checked all the same.
    Layer(bool is_double, bool on_host, const Sizes& sizes, Address lengths, int threads,
          const std::array<double, kParameters>& constants, const std::array<Address, kParameters>& addresses,
          const std::array<int64_t, kParameters>& strides, bool follow_relu, bool follow_recurrence)
        : shape(make_shape(sizes, lengths, threads, on_host)), relu(follow_relu), recurrent(follow_recurrence) {
        with_type(is_double, [&](auto zero) {
            using T = decltype(zero);
            CellParameters<T> made;
            for (int k = 0; k < kParameters; ++k) {
                const auto at = static_cast<size_t>(k);
                const T* const data = pointer<const T>(addresses[at]);
                made.of[k] = {data, strides[at], static_cast<T>(constants[at])};
                check_parameter(k, made.of[k].constant, !strides[at]);
                if (data && on_host)
                    for (int64_t n = 0; n < (strides[at] ? shape.neurons : 1); ++n)
                        check_parameter(k, data[n], !strides[at]);
            }
            cell = made;
        });
    }

    // Calls function(the parameters), whose type tells that of all numbers.
    template <class Function>
    auto visit(Function function) const {
        return std::visit(function, cell);
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

// Of i, h and hs before the first step; of spikes, i, h and hs, or their gradients; of the gradients of i, h and hs
// before the first step, and of the parameters.
using Initial = std::array<Address, 3>;
using Outputs = std::array<Address, 4>;
using Gradients = std::array<Address, 3 + kParameters>;

template <class T>
CellForward<T> forward_of(const Layer& layer, const CellParameters<T>& cell, const Initial& initial,
                          const Outputs& outputs) {
    return {layer.shape,
            cell,
            pointer<const T>(initial[0]),
            pointer<const T>(initial[1]),
            pointer<const T>(initial[2]),
            pointer<T>(outputs[0]),
            pointer<T>(outputs[1]),
            pointer<T>(outputs[2]),
            pointer<T>(outputs[3])};
}

// How many numbers the partial sums of the parameters' gradients are.
inline int64_t count_partials(const Layer& layer, const Gradients& gradients) {
    const bool any = std::any_of(gradients.begin() + 3 + kBias + 1, gradients.end(), [](Address at) { return at; });
    return (any ? kParameters : 1) * layer.shape.batch * layer.shape.neurons;
}

template <class T>
CellBackward<T> backward_of(const Layer& layer, const CellParameters<T>& cell, const Outputs& arriving,
                            const Gradients& gradients, T* partials) {
    CellBackward<T> p = {layer.shape,
                         cell,
                         layer.relu,
                         layer.recurrent,
                         pointer<const T>(arriving[0]),
                         pointer<const T>(arriving[1]),
                         pointer<const T>(arriving[2]),
                         pointer<const T>(arriving[3]),
                         pointer<T>(gradients[0]),
                         pointer<T>(gradients[1]),
                         pointer<T>(gradients[2]),
                         {},
                         partials};
    for (size_t k = 0; k < kParameters; ++k) p.grad_parameters[k] = pointer<T>(gradients[3 + k]);
    return p;
}

// The events of a batch.
struct EventRows {
    Address offsets, indices, values;
    int64_t count, inputs;

    template <class T>
    Events<T> of() const {
        return {pointer<const int64_t>(offsets), pointer<const int32_t>(indices), pointer<const T>(values), count,
                inputs};
    }
};

// A dense input, its mask and the offsets of its events; each may be absent where a kernel does not need it.
struct DenseRows {
    bool is_double;
    ScanShape shape;  // the neurons mean nothing
    int64_t inputs;
    Address elements, mask, offsets;

    DenseRows(bool of_doubles, bool on_host, const Sizes& sizes, Address lengths, int threads, Address elements_at,
              Address mask_at, Address offsets_at)
        : is_double(of_doubles),
          shape(make_shape({sizes[0], sizes[1], 0}, lengths, threads, on_host)),
          inputs(sizes[2]),
          elements(elements_at),
          mask(mask_at),
          offsets(offsets_at) {}
};

// Memory for the time of a call, on reused huge pages.
template <class T>
class Scratch {
  public:
    explicit Scratch(int64_t count)
        : bytes_(static_cast<size_t>(count) * sizeof(T)), address_(count ? acquire_block(bytes_) : nullptr) {
        if (count && !address_) throw std::bad_alloc();
    }
    ~Scratch() {
        if (address_) release_block(address_, bytes_);
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;

    T* get() const { return static_cast<T*>(address_); }

  private:
    size_t bytes_;
    void* address_;
};

}  // namespace srcell
