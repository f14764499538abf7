// Fuzz target: the scan of given currents in every ISA, forward and backward. It gives the bits of the scalar table for
// any threads, values and lengths; the same bits for one neuron of one sample alone, and for a sequence cut in two.
#include "problem.h"

using namespace srcell;

namespace {

// The bits of neuron n of sample b, from arrays of (steps, plane).
template <class T>
void add_chain(Result<T>& result, const Array<T>& x, int64_t plane, int64_t element) {
    for (int64_t at = element; at < x.size(); at += plane) result.add(x[at]);
}

template <class T>
Result<T> chain(const ScanCall<T>& call, int64_t element) {
    const CellOutputs<T>& out = call.out;
    Result<T> result;
    for (const auto* x : {&out.spikes, &out.i, &out.h, &out.hs, &call.checkpoints, &call.grad_current})
        add_chain(result, *x, out.plane(), element);
    if (call.backward)
        for (const auto* x : {&out.grad_i0, &out.grad_h0, &out.grad_hs0}) add_chain(result, *x, out.plane(), element);
    return result;
}

template <class T>
void copy_chain(const Array<T>& from, int64_t plane, int64_t element, Array<T>& to) {
    for (int64_t t = 0; t < to.size(); ++t) to[t] = from[t * plane + element];
}

template <class T>
void one_is_the_same_alone(Input& in, const CellInputs<T>& cell, ScanCall<T>& whole) {
    const int64_t plane = whole.out.plane(), element = in.below(plane), neuron = element % cell.o.neurons;
    CellOptions o = cell.o;
    o.batch = o.neurons = 1;
    if (!o.lengths.empty()) o.lengths = {cell.o.lengths[static_cast<size_t>(element / cell.o.neurons)]};
    CellInputs<T> alone(o);
    for (size_t k = 0; k < kParameters; ++k) alone.parameters[k][0] = cell.parameters[k][o.stride(k) ? neuron : 0];
    copy_chain(cell.i0, plane, element, alone.i0);
    copy_chain(cell.h0, plane, element, alone.h0);
    copy_chain(cell.hs0, plane, element, alone.hs0);
    copy_chain(cell.grad_spikes, plane, element, alone.grad_spikes);
    copy_chain(cell.grad_i, plane, element, alone.grad_i);
    copy_chain(cell.grad_h, plane, element, alone.grad_h);
    copy_chain(cell.grad_hs, plane, element, alone.grad_hs);
    Array<T> current(o.steps);
    copy_chain(whole.current, plane, element, current);
    ScanCall<T> call(alone, current, whole.backward, kOtherPoison);
    call.run(any_table(in), 1);
    CHECK(chain(call, 0) == chain(whole, element));
}

template <class T>
void two_parts_are_the_whole(Input& in, const CellInputs<T>& cell, const ScanCall<T>& whole) {
    const CellOptions& o = cell.o;
    const int64_t cut = in.below(o.steps + 1), plane = whole.out.plane();
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
    p.i = between.i.data();
    p.h = between.h.data();
    p.hs = between.hs.data();
    call_forward(kernels, ScanForward<T>{p, whole.current.data(), nullptr});
    p.shape.steps = o.steps - cut;
    if (p.shape.lengths) p.shape.lengths = second.data();
    p.i0 = between.i.data();
    p.h0 = between.h.data();
    p.hs0 = between.hs.data();
    p.spikes = out.spikes.data() + cut * plane;
    p.i = out.i.data();
    p.h = out.h.data();
    p.hs = out.hs.data();
    call_forward(kernels, ScanForward<T>{p, whole.current.data() + cut * plane, nullptr});
    Result<T> parts, expected;
    out.add_forward(parts);
    whole.out.add_forward(expected);
    CHECK(parts == expected);
}

template <class T>
bool scans_agree(Input& in) {
    const CellOptions wild = cell_options(in), o = clamped(wild);
    const auto seed = in.bytes(4);
    const bool backward = !in.rarely(64);
    const int threads = in.threads();
    CellInputs<T> cell(o, seed);
    spoil(in, cell);
    const Array<T> current = input_current(in, cell);
    ScanCall<T> whole(cell, current, backward, kPoison);
    const Result<T> expected = whole.run(*kernels_scalar(), 1);
    cell.lengths = Array<int64_t>(wild.lengths);
    for (const Kernels* kernels : available_kernels()) {
        ScanCall<T> call(cell, current, backward, kOtherPoison);
        CHECK(call.run(*kernels, threads) == expected);
        CHECK(same(call.checkpoints, whole.checkpoints));
    }
    if (!current.size()) return false;
    one_is_the_same_alone(in, cell, whole);
    two_parts_are_the_whole(in, cell, whole);
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("scan", data, size,
                [](Input& in) { return in.bit() ? scans_agree<double>(in) : scans_agree<float>(in); });
}
