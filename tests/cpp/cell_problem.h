// A test problem for a layer of neurons with any synapse: sizes, pseudo-random parameters, states and gradients, and
// the structs of params.h that point at them. For the tests of the time loops; it must not know events.
#pragma once

#include <algorithm>

#include "../fuzz/input.h"

namespace srcell {

struct CellOptions {
    int64_t steps, batch, neurons;
    bool per_neuron, relu, full_gradient, parameters, initial_state, grad_spikes, grad_state;
    std::vector<int64_t> lengths;  // empty: every sample has all steps
    // Bit k of `shared`: parameter k, in the order of CellParameter, is one value for the layer even if per_neuron.
    // Bit k of `unwanted`: the gradient of parameter k + 1 is not computed (that of the bias always is).
    unsigned shared = 0, unwanted = 0;
    bool resonant = false;

    bool stride(size_t parameter) const { return per_neuron && !(shared >> parameter & 1); }
    int64_t plane() const { return batch * neurons; }
    bool empty() const { return !steps || !plane(); }
};

// Random options for a layer of these sizes. In a fuzz target the lengths may be out of range, and rarely the sizes
// are vast.
inline CellOptions cell_options(Input& in, int64_t steps, int64_t batch, int64_t neurons) {
    const auto bits = static_cast<unsigned>(in.bytes(3));
    const auto bit = [&](int k) { return static_cast<bool>(bits >> k & 1); };
    CellOptions o = {steps, batch, neurons, bit(0), bit(1), bit(2), bit(3), bit(4), bit(5), bit(6), {}};
    if (bit(7)) o.shared = bits >> 8 & 127;
    if (bit(15)) o.unwanted = bits >> 16 & 63;
    if (o.unwanted == 63) o.parameters = false;
    o.resonant = bit(23);
    if (in.rarely(2) && !in.thorough()) {
        o.per_neuron = false;
        o.batch = 0;
        o.steps = in.vast();
        o.neurons = in.vast();
        return o;
    }
    if (in.rarely(96))
        for (int64_t b = 0; b < batch; ++b) o.lengths.push_back(in.integer<int64_t>(steps / 2));
    return o;
}

inline CellOptions cell_options(Input& in) {
    const int64_t steps = in.size(40), batch = in.size(4);
    return cell_options(in, steps, batch, in.rarely(8) ? in.size(300) : in.size(24));
}

// The same options with lengths clamped to [0, T].
inline CellOptions clamped(CellOptions o) {
    o.lengths = clamped(o.lengths, o.steps);
    return o;
}

// The inputs of a forward and a backward pass.
template <class T>
struct CellInputs {
    const CellOptions& o;
    Numbers numbers;
    Array<int64_t> lengths{o.lengths};
    std::vector<Array<T>> parameters;
    Array<T> i0 = plane(), h0 = plane(), hs0 = plane(), grad_spikes = plane(o.steps);
    Array<T> grad_i = plane(), grad_h = plane(), grad_hs = plane();
    Array<T> q0 = resonant_plane(), grad_q = resonant_plane(), along{0}, across{0};
    T bias_max = static_cast<T>(kUnbounded);
    int64_t bias_copies = 1;

    explicit CellInputs(const CellOptions& options, uint64_t seed = 7) : o(options), numbers(seed) {
        const T defaults[kParameters] = {T(-6), T(0.9), T(3), T(2), T(-7), T(0.9), T(0), T(0.5)};
        for (size_t k = 0; k < static_cast<size_t>(parameters_of(o.resonant)); ++k) {
            parameters.push_back(numbers.array<T>(o.stride(k) ? o.neurons : 1));
            for (T& x : parameters.back()) x = defaults[k] + x / 16;
        }
        make_turn();
    }

    // To be called after a change of alpha or omega.
    void make_turn() {
        if (!o.resonant) return;
        along = Array<T>(turn_stride() ? o.neurons : 1);
        across = Array<T>(along.size());
        kernels_scalar()->of<T>().make_turn(cell(), along.size(), along.data(), across.data());
    }

    int64_t turn_stride() const { return o.stride(kAlpha) || o.stride(kOmega); }

    // About half of the biases are beyond the bound. Neurons are in channels of two or three where their number allows.
    void bound_biases() {
        bias_max = T(-6);
        if (!o.stride(kBias)) return;
        bias_copies = o.neurons % 3 == 0 ? 3 : o.neurons % 2 == 0 ? 2 : 1;
        Array<T>& bias = parameters[kBias];
        for (int64_t n = 0; n < bias.size(); ++n) bias[n] = bias[n - n % bias_copies];
    }

    // With special values, such as NaN, in some places; the biases of every other seed are bounded.
    CellInputs(Input& in, const CellOptions& options, uint64_t seed) : CellInputs(options, seed) {
        if (seed % 2) bound_biases();
        if (in.rarely(64))
            for (Array<T>& x : parameters) in.spoil(x);
        for (Array<T>* x : per_element()) in.spoil(*x);
        make_turn();
    }

    std::vector<Array<T>*> per_element() {
        std::vector<Array<T>*> found = {&i0, &h0, &hs0, &grad_spikes, &grad_i, &grad_h, &grad_hs};
        if (o.resonant) found.insert(found.end(), {&q0, &grad_q});
        return found;
    }

    Array<T> plane(int64_t steps = 1) { return numbers.array<T>(steps * o.plane()); }
    Array<T> resonant_plane() { return o.resonant ? plane() : Array<T>(0); }

    Turn<T> turn() const {
        if (!o.resonant) return {};
        return {along.data(), across.data(), turn_stride()};
    }

    ScanShape shape(int threads) const {
        return {o.steps, o.batch, o.neurons, o.lengths.empty() ? nullptr : lengths.data(), threads};
    }

    CellParameters<T> cell() const {
        CellParameters<T> made = {};
        for (size_t k = 0; k < parameters.size(); ++k) made.of[k] = {parameters[k].data(), o.stride(k)};
        made.bias_max = bias_max, made.bias_copies = bias_copies;
        return made;
    }
};

template <class T>
struct CellOutputs {
    const CellInputs<T>& in;
    const int poison;
    Array<T> spikes = plane(in.o.steps), i = plane(), h = plane(), hs = plane();
    Array<T> grad_i0 = plane(), grad_h0 = plane(), grad_hs0 = plane();
    Array<T> q = plane(in.o.resonant), grad_q0 = plane(in.o.resonant);
    Array<T> partials = plane(in.o.parameters ? parameters_of(in.o.resonant) : 1);
    std::vector<Array<T>> grad_parameters;

    CellOutputs(const CellInputs<T>& inputs, int poison) : in(inputs), poison(poison) {
        for (size_t k = 0; k < (in.o.parameters ? in.parameters.size() : 1); ++k)
            grad_parameters.emplace_back(k && in.o.unwanted >> (k - 1) & 1 ? 0
                                         : in.o.stride(k)                  ? in.o.neurons
                                                                           : 1,
                                         poison);
    }

    Array<T> plane(int64_t steps = 1) const { return Array<T>(steps * in.o.plane(), poison); }

    CellForward<T> forward(int threads) {
        const bool given = in.o.initial_state;
        return {in.shape(threads),
                in.cell(),
                in.turn(),
                {{in.i0.data_if(given), in.h0.data_if(given), in.hs0.data_if(given),
                  in.q0.data_if(given && in.o.resonant)}},
                spikes.data(),
                {{i.data(), h.data(), hs.data(), q.data()}}};
    }

    CellBackward<T> backward(int threads) {
        const bool given = in.o.grad_state;
        CellBackward<T> p = {in.shape(threads),
                             in.cell(),
                             in.turn(),
                             in.o.relu,
                             in.o.full_gradient,
                             in.grad_spikes.data_if(in.o.grad_spikes),
                             {{in.grad_i.data_if(given), in.grad_h.data_if(given), in.grad_hs.data_if(given),
                               in.grad_q.data_if(given && in.o.resonant)}},
                             {{grad_i0.data(), grad_h0.data(), grad_hs0.data(), grad_q0.data()}},
                             {},
                             partials.data()};
        for (size_t k = 0; k < grad_parameters.size(); ++k) p.grad_parameters[k] = grad_parameters[k].data();
        return p;
    }

    void add_forward(Result<T>& result) const {
        for (const auto* x : {&spikes, &i, &h, &hs, &q}) result.add(*x);
    }
    void add_backward(Result<T>& result) const {
        for (const auto* x : {&grad_i0, &grad_h0, &grad_hs0, &grad_q0}) result.add(*x);
        for (const auto& x : grad_parameters) result.add(x);
    }
};

template <class T>
Array<T> input_current(Input& in, CellInputs<T>& cell) {
    Array<T> current = cell.plane(cell.o.steps);
    for (T& c : current) c *= 4;
    in.spoil(current);
    return current;
}

// A forward pass over a given current and, if `backward`, the checkpoints and the backward pass.
template <class T>
struct ScanCall {
    const Array<T>& current;
    const bool backward;
    CellOutputs<T> out;
    Array<T> checkpoints = out.plane(backward ? segments(out.in.o.steps) * states_of(out.in.o.resonant) : 0);
    Array<T> grad_current = out.plane(backward ? out.in.o.steps : 0);

    ScanCall(const CellInputs<T>& in, const Array<T>& current, bool backward, int poison)
        : current(current), backward(backward), out(in, poison) {}

    template <class Table>
    Result<T> run(const Table& table, int threads) {
        const auto& kernels = table.template of<T>();
        kernels.scan_forward(ScanForward<T>{out.forward(threads), current.data(), checkpoints.data()});
        Result<T> result;
        out.add_forward(result);
        if (!backward) return result;
        kernels.scan_backward(
            ScanBackward<T>{out.backward(threads), current.data(), checkpoints.data(), grad_current.data()});
        out.add_backward(result);
        result.add(grad_current);
        return result;
    }
};

// Checks that checkpoints past a sample's length are zero; each segment has `rows` rows. Lengths are in [0, T].
template <class T>
void check_padding(const CellOptions& o, const Array<T>& checkpoints, int64_t rows, int64_t segment) {
    const int64_t plane = o.plane();
    for (int64_t element = 0; element < plane && !o.lengths.empty() && checkpoints.size(); ++element) {
        const int64_t length = o.lengths[static_cast<size_t>(element / o.neurons)];
        for (int64_t row = rows * segments(length, segment); row < rows * segments(o.steps, segment); ++row)
            CHECK(checkpoints[row * plane + element] == 0);
    }
}

// A neuron without bias, input and state stays at h = 0. There relu passes no gradient; straight-through passes all.
template <class Table>
void check_rest_at_zero(const Table& kernels, int threads) {
    for (const bool relu : {true, false}) {
        const CellOptions o = {3, 2, 20, false, relu, false, false, false, true, false, {}};
        CellInputs<float> in(o);
        in.parameters[kBias][0] = in.parameters[kAlpha][0] = 0;
        Array<float> current = in.plane(o.steps);
        for (float& c : current) c = 0;
        for (float& gradient : in.grad_spikes) gradient = 1;
        ScanCall<float> call(in, current, true, kPoison);
        call.run(kernels, threads);
        for (const float h : call.out.h) CHECK(h == 0);
        for (const float gradient : call.grad_current) CHECK(gradient == (relu ? 0 : 1));
    }
}

template <class T, class Table>
Result<T> scan(const Table& kernels, const CellInputs<T>& in, const Array<T>& current, bool backward, int threads,
               int poison) {
    return ScanCall<T>(in, current, backward, poison).run(kernels, threads);
}

}  // namespace srcell
