// A property of the scan of given currents, which the fuzz target and the test check: for any threads, values and
// lengths every ISA gives the bits of the scalar table of kernels. The bits are the same for one neuron of one sample
// alone, and for a sequence cut in two. Checkpoints past a sample's length are zero.
#pragma once

#include "cell_problem.h"

namespace srcell {

inline const Kernels& any_table(Input& in) {
    const std::vector<const Kernels*> available = available_kernels();
    return *available[static_cast<size_t>(in.below(static_cast<int64_t>(available.size())))];
}

// The bits of neuron n of sample b, from arrays of (steps, plane).
template <class T>
void add_chain(Result<T>& result, const Array<T>& x, int64_t plane, int64_t element) {
    for (int64_t at = element; at < x.size(); at += plane) result.add(x[at]);
}

template <class T>
Result<T> chain(const ScanCall<T>& call, int64_t element) {
    const CellOutputs<T>& out = call.out;
    Result<T> result;
    for (const auto* x : {&out.spikes, &out.i, &out.h, &out.hs, &out.q, &call.checkpoints, &call.grad_current})
        add_chain(result, *x, out.in.o.plane(), element);
    if (call.backward)
        for (const auto* x : {&out.grad_i0, &out.grad_h0, &out.grad_hs0, &out.grad_q0})
            add_chain(result, *x, out.in.o.plane(), element);
    return result;
}

template <class T>
void copy_chain(const Array<T>& from, int64_t plane, int64_t element, Array<T>& to) {
    for (int64_t t = 0; t < to.size(); ++t) to[t] = from[t * plane + element];
}

template <class T>
void one_is_the_same_alone(Input& in, CellInputs<T>& cell, ScanCall<T>& whole) {
    const int64_t plane = cell.o.plane(), element = in.below(plane), neuron = element % cell.o.neurons;
    CellOptions o = cell.o;
    o.batch = o.neurons = 1;
    if (!o.lengths.empty()) o.lengths = {cell.o.lengths[static_cast<size_t>(element / cell.o.neurons)]};
    CellInputs<T> alone(o);
    for (size_t k = 0; k < alone.parameters.size(); ++k)
        alone.parameters[k][0] = cell.parameters[k][o.stride(k) ? neuron : 0];
    alone.bias_max = cell.bias_max;
    alone.make_turn();
    const std::vector<Array<T>*> from = cell.per_element(), to = alone.per_element();
    for (size_t k = 0; k < from.size(); ++k) copy_chain(*from[k], plane, element, *to[k]);
    Array<T> current(o.steps);
    copy_chain(whole.current, plane, element, current);
    ScanCall<T> call(alone, current, whole.backward, kOtherPoison);
    call.run(any_table(in), 1);
    CHECK(chain(call, 0) == chain(whole, element));
}

template <class T>
void two_parts_are_the_whole(Input& in, const CellInputs<T>& cell, const ScanCall<T>& whole) {
    const CellOptions& o = cell.o;
    const int64_t cut = in.below(o.steps + 1), plane = cell.o.plane();
    std::vector<int64_t> first, second;
    for (const int64_t length : clamped(o.lengths, o.steps)) {
        first.push_back(std::min(length, cut));
        second.push_back(length - first.back());
    }
    CellOutputs<T> out(cell, kOtherPoison), between(cell, kOtherPoison);
    const Kernels& kernels = any_table(in);
    CellForward<T> p = out.forward(1);
    p.shape.steps = cut;
    if (p.shape.lengths) p.shape.lengths = first.data();
    p.after = between.forward(1).after;
    kernels.of<T>().scan_forward(ScanForward<T>{p, whole.current.data(), nullptr});
    p.shape.steps = o.steps - cut;
    if (p.shape.lengths) p.shape.lengths = second.data();
    std::copy_n(between.forward(1).after.of, kCellStates, p.before.of);
    p.spikes = out.spikes.data() + cut * plane;
    p.after = out.forward(1).after;
    kernels.of<T>().scan_forward(ScanForward<T>{p, whole.current.data() + cut * plane, nullptr});
    Result<T> parts, expected;
    out.add_forward(parts);
    whole.out.add_forward(expected);
    CHECK(parts == expected);
}

// The lengths in the layer's options are clamped to [0, T]. Returns the results of the scalar table.
template <class T>
Result<T> scans_agree(Input& in, CellInputs<T>& cell, const Array<T>& current, bool backward,
                      const std::vector<int64_t>& lengths) {
    ScanCall<T> whole(cell, current, backward, kPoison);
    const Result<T> expected = whole.run(*kernels_scalar(), 1);
    check_padding(cell.o, whole.checkpoints, states_of(cell.o.resonant), kSegment);
    cell.lengths = Array<int64_t>(lengths);
    for_each_table(in.thread_counts(), [&](const Kernels& kernels, int threads) {
        ScanCall<T> call(cell, current, backward, kOtherPoison);
        CHECK(call.run(kernels, threads) == expected);
        CHECK(same(call.checkpoints, whole.checkpoints));
    });
    if (!current.size()) return expected;
    one_is_the_same_alone(in, cell, whole);
    two_parts_are_the_whole(in, cell, whole);
    return expected;
}

}  // namespace srcell
