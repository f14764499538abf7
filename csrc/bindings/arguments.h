// How arguments come from Python and turn into the structs of params.h: addresses and sizes, already checked for shape,
// dtype, device and contiguity by srcell.ops. Values are checked here. Included by the bindings alone.
#pragma once

#include <pybind11/pybind11.h>

#include <array>
#include <charconv>
#include <cmath>
#include <memory>
#include <new>
#include <sstream>
#include <string>

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

constexpr size_t kParameters = 7;
constexpr const char* kParameterNames[kParameters] = {"bias", "alpha", "rho", "r", "rs", "zs_hyp", "zs_dep"};

// The cell's parameters as srcell.ops hands them over: for each the address of a tensor with stride 0 (one value) or 1
// (one per neuron), or address 0 and a constant for the layer.
struct Parameters {
    std::array<double, kParameters> constants;
    std::array<Address, kParameters> addresses;
    std::array<int64_t, kParameters> strides;
};

// Whose memory addresses are of: the values there are checked where that is possible without waiting.
enum class Memory { host, device };

template <class T>
class Cell {
  public:
    Cell(const Parameters& given, int64_t neurons, Memory memory = Memory::host) {
        for (size_t k = 0; k < kParameters; ++k) {
            const Address address = given.addresses[k];
            const auto constant = static_cast<T>(given.constants[k]);
            parameters_[k] = {pointer<const T>(address), given.strides[k], constant};
            check(k, constant);  // of a tensor, too: then it is a default
            if (address && memory == Memory::host)
                for (int64_t n = 0; n < (given.strides[k] ? neurons : 1); ++n) check(k, parameters_[k].data[n]);
        }
    }

    CellParameters<T> parameters() const {
        const Parameter<T>* p = parameters_;
        return {p[0], p[1], p[2], p[3], p[4], p[5], p[6]};
    }

  private:
    // Layer-wide values must be finite, alpha in [0, 1], and rho > 0 with a finite reciprocal everywhere.
    void check(size_t k, T value) const {
        const bool is_alpha = k == 1, is_rho = k == 2;
        if (is_alpha && !(value >= 0 && value <= 1))
            value_error("alpha: expected values in [0, 1], got ", shortest(value));
        if (is_rho && !(value > 0 && std::isfinite(value) && std::isfinite(1 / value)))
            value_error("rho: expected finite values > 0 with a finite reciprocal, got ", shortest(value));
        if (!parameters_[k].stride && !std::isfinite(value))
            value_error(kParameterNames[k], ": expected a finite value, got ", shortest(value));
    }

    Parameter<T> parameters_[kParameters];
};

inline ScanShape make_shape(const std::array<int64_t, 3>& sizes, Address lengths, int threads,
                            Memory memory = Memory::host) {
    const ScanShape shape = {sizes[0], sizes[1], sizes[2], pointer<const int64_t>(lengths), threads};
    if (shape.lengths && memory == Memory::host)
        for (int64_t b = 0; b < shape.batch; ++b)
            if (shape.lengths[b] < 0 || shape.lengths[b] > shape.steps)
                value_error("lengths: expected values in [0, ", shape.steps, "], got ", shape.lengths[b],
                            " for sample ", b);
    return shape;
}

// What every forward call hands over, whatever the synapse.
struct ForwardArguments {
    std::array<int64_t, 3> sizes;  // T, B, N
    Address lengths;
    int threads;
    Parameters parameters;
    std::array<Address, 3> initial;
    Address spikes;
    std::array<Address, 3> state;
};

// What every backward call hands over, whatever the synapse.
struct BackwardArguments {
    std::array<int64_t, 3> sizes;  // T, B, N
    Address lengths;
    int threads;
    Parameters parameters;
    bool relu, recurrent;
    Address grad_spikes;
    std::array<Address, 3> grad_state, grad_initial;
    Address grad_bias;
    std::array<Address, 6> grad_cell;
};

// The events of a batch.
struct EventArguments {
    Address offsets, indices, values;
    int64_t count, inputs;
};

template <class T>
Events<T> events_of(const EventArguments& a) {
    return {pointer<const int64_t>(a.offsets), pointer<const int32_t>(a.indices), pointer<const T>(a.values), a.count,
            a.inputs};
}

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

template <class T>
CellForward<T> cell_forward(const ForwardArguments& a, const CellParameters<T>& cell, Memory memory = Memory::host) {
    return {make_shape(a.sizes, a.lengths, a.threads, memory),
            cell,
            pointer<const T>(a.initial[0]),
            pointer<const T>(a.initial[1]),
            pointer<const T>(a.initial[2]),
            pointer<T>(a.spikes),
            pointer<T>(a.state[0]),
            pointer<T>(a.state[1]),
            pointer<T>(a.state[2])};
}

// How many numbers the partial sums of the parameters' gradients are.
inline int64_t count_partials(const BackwardArguments& a) {
    bool any = false;
    for (const Address grad : a.grad_cell) any = any || grad;
    return (any ? kSums : 1) * a.sizes[1] * a.sizes[2];
}

template <class T>
CellBackward<T> cell_backward(const BackwardArguments& a, const CellParameters<T>& cell, T* partials,
                              Memory memory = Memory::host) {
    CellBackward<T> p = {make_shape(a.sizes, a.lengths, a.threads, memory),
                         cell,
                         a.relu,
                         a.recurrent,
                         pointer<const T>(a.grad_spikes),
                         pointer<const T>(a.grad_state[0]),
                         pointer<const T>(a.grad_state[1]),
                         pointer<const T>(a.grad_state[2]),
                         pointer<T>(a.grad_initial[0]),
                         pointer<T>(a.grad_initial[1]),
                         pointer<T>(a.grad_initial[2]),
                         pointer<T>(a.grad_bias),
                         {},
                         partials};
    for (size_t k = 0; k < 6; ++k) p.grad_cell[k] = pointer<T>(a.grad_cell[k]);
    return p;
}

}  // namespace srcell
