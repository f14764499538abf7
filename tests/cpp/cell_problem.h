// One problem of a layer of cells, whatever its synapse: sizes, parameters, states and gradients, made from numbers,
// and the structs of params.h that point at them. For the tests of the time loops.
#pragma once

#include "support.h"

namespace srcell {

struct CellOptions {
    int64_t steps, batch, neurons;
    bool per_neuron, relu, recurrent, parameters, initial_state, grad_spikes, grad_state;
    std::vector<int64_t> lengths;  // empty: none
};

// What goes into a forward and a backward pass.
template <class T>
struct CellInputs {
    const CellOptions& o;
    Numbers numbers{7};
    Array<int64_t> lengths{o.lengths};
    std::vector<Array<T>> parameters;
    Array<T> i0, h0, hs0, grad_spikes, grad_i, grad_h, grad_hs;

    explicit CellInputs(const CellOptions& options)
        : o(options),
          i0(plane()),
          h0(plane()),
          hs0(plane()),
          grad_spikes(plane(o.steps)),
          grad_i(plane()),
          grad_h(plane()),
          grad_hs(plane()) {
        const T defaults[kSums] = {T(-6), T(0.9), T(3), T(2), T(-7), T(0.9), T(0)};
        for (const T value : defaults) {
            parameters.push_back(numbers.array<T>(o.per_neuron ? o.neurons : 1));
            for (T& x : parameters.back()) x = value + x / 16;
        }
    }

    Array<T> plane(int64_t steps = 1) { return numbers.array<T>(steps * o.batch * o.neurons); }

    ScanShape shape(int threads) const {
        return {o.steps, o.batch, o.neurons, o.lengths.empty() ? nullptr : lengths.data(), threads};
    }

    CellParameters<T> cell() const {
        const auto at = [&](size_t k) { return Parameter<T>{parameters[k].data(), o.per_neuron}; };
        return {at(0), at(1), at(2), at(3), at(4), at(5), at(6)};
    }
};

template <class T>
struct CellOutputs {
    const CellInputs<T>& in;
    Array<T> spikes, i, h, hs, grad_i0, grad_h0, grad_hs0, partials;
    std::vector<Array<T>> grad_parameters;

    CellOutputs(const CellInputs<T>& inputs, int poison)
        : in(inputs),
          spikes(in.o.steps * plane(), poison),
          i(plane(), poison),
          h(plane(), poison),
          hs(plane(), poison),
          grad_i0(plane(), poison),
          grad_h0(plane(), poison),
          grad_hs0(plane(), poison),
          partials((in.o.parameters ? kSums : 1) * plane(), poison) {
        for (int64_t k = 0; k < (in.o.parameters ? kSums : 1); ++k)
            grad_parameters.emplace_back(in.o.per_neuron ? in.o.neurons : 1, poison);
    }

    int64_t plane() const { return in.o.batch * in.o.neurons; }

    CellForward<T> forward(int threads) {
        const bool given = in.o.initial_state;
        return {in.shape(threads),
                in.cell(),
                in.i0.data_if(given),
                in.h0.data_if(given),
                in.hs0.data_if(given),
                spikes.data(),
                i.data(),
                h.data(),
                hs.data()};
    }

    CellBackward<T> backward(int threads) {
        const bool given = in.o.grad_state;
        CellBackward<T> p = {in.shape(threads),
                             in.cell(),
                             in.o.relu,
                             in.o.recurrent,
                             in.grad_spikes.data_if(in.o.grad_spikes),
                             in.grad_i.data_if(given),
                             in.grad_h.data_if(given),
                             in.grad_hs.data_if(given),
                             grad_i0.data(),
                             grad_h0.data(),
                             grad_hs0.data(),
                             grad_parameters[0].data(),
                             {},
                             partials.data()};
        for (size_t k = 1; k < grad_parameters.size(); ++k) p.grad_cell[k - 1] = grad_parameters[k].data();
        return p;
    }

    void add_forward(Result<T>& result) const {
        for (const auto* x : {&spikes, &i, &h, &hs}) result.add(*x);
    }
    void add_backward(Result<T>& result) const {
        for (const auto* x : {&grad_i0, &grad_h0, &grad_hs0}) result.add(*x);
        for (const auto& x : grad_parameters) result.add(x);
    }
};

inline void call_forward(const Kernels& kernels, const ScanForward<float>& p) { kernels.scan_forward_f32(p); }
inline void call_forward(const Kernels& kernels, const ScanForward<double>& p) { kernels.scan_forward_f64(p); }
inline void call_backward(const Kernels& kernels, const ScanBackward<float>& p) { kernels.scan_backward_f32(p); }
inline void call_backward(const Kernels& kernels, const ScanBackward<double>& p) { kernels.scan_backward_f64(p); }

// The passes over a given current, with or without checkpoints and a backward pass.
template <class T, class Table>
Result<T> scan(const Table& kernels, const CellInputs<T>& in, const Array<T>& current, bool backward, int threads,
               int poison) {
    CellOutputs<T> out(in, poison);
    Array<T> checkpoints(backward ? segments(in.o.steps) * 3 * out.plane() : 0, poison);
    Array<T> grad_current(backward ? current.size() : 0, poison);
    call_forward(kernels, ScanForward<T>{out.forward(threads), current.data(), checkpoints.data()});
    Result<T> result;
    out.add_forward(result);
    if (!backward) return result;
    call_backward(kernels,
                  ScanBackward<T>{out.backward(threads), current.data(), checkpoints.data(), grad_current.data()});
    out.add_backward(result);
    result.add(grad_current);
    return result;
}

}  // namespace srcell
