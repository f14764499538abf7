// Fuzz target: integer neurons of any constants, weights and states on every ISA and in the device code against their
// definition in 64-bit integers, on batches of which some were altered; and the bits of their gradients.
#include "../cpp/integer_problem.h"
#include "problem.h"

using namespace srcell;

namespace {

// Constants within their bounds, usually such that all values fit in 16 bits.
IntegerCell drawn_cell(Input& in) {
    Numbers numbers(in.bytes(3));
    IntegerCell cell = in.bit() ? hardware_cell() : any_cell([&](int64_t limit) { return numbers.below(limit); });
    if (!in.rarely(96)) return cell;
    for (int64_t k = 1 + in.below(3); k > 0; --k) {
        const IntegerConstant& c = kIntegerConstants[in.below(static_cast<int64_t>(std::size(kIntegerConstants)))];
        cell.*c.member = std::clamp(in.integer<int32_t>(in.bit() ? c.most : c.standard), c.least, c.most);
    }
    return cell;
}

void alter(Input& in, IntegerProblem& q) {
    if (q.weight.size() && in.rarely(64))
        for (int64_t k = 1 + in.below(4); k > 0; --k) {
            const int64_t at = in.below(q.weight.size());
            q.weight[at] = in.integer<int16_t>(INT16_MIN);
        }
    in.spoil(q.grad_spikes);
    in.spoil(q.scale);
    if (in.rarely(16)) q.rho = in.real<float>();
}

// What the kernels make of their slopes, if they are given: the same bits everywhere.
struct Gradients {
    Result<float> slopes, current, weight;
    bool operator==(const Gradients& x) const {
        return slopes == x.slopes && current == x.current && weight == x.weight;
    }
};

Gradients gradients(const Kernels& kernels, const IntegerOutputs& out, int threads, int poison, int64_t noticed) {
    int64_t invalid;
    const IntegerGradients made =
        integer_backward(kernels, out.q, out.slopes, {true, true, true}, threads, poison, invalid);
    CHECK(invalid == noticed);
    Gradients all;
    all.slopes.add(out.slopes);
    all.current.add(made.current);
    all.weight.add(made.weight);
    return all;
}

void check_device(const Card& card, const IntegerProblem& q, SpikesAs as, bool masked, const Gradients* gradients) {
    IntegerOutputs out(q, as, kOtherPoison);
    integer_forward_on(card, out, masked);
    CHECK(out.outcome() == IntegerModel(q, as_counted(q.rows)).outcome);
    if (!gradients) return;
    Result<float> slopes, current;
    slopes.add(out.slopes);
    current.add(integer_backward_on(card, q, out.slopes, kOtherPoison));
    CHECK(slopes == gradients->slopes && current == gradients->current);
}

bool neurons_agree(Input& in) {
    const CellOptions o = cell_options(in);
    const int64_t inputs = input_count(in, o);
    const IntegerCell cell = drawn_cell(in);
    if (integer_cell_fault(cell).expected) return false;
    Numbers numbers(in.bytes(3));
    const auto as = static_cast<SpikesAs>(in.below(3));
    const int64_t most = in.bit() ? inputs / 4 + 3 : 1;
    const int threads = in.threads();
    IntegerProblem q(o, cell, any_rows(o, inputs, most, numbers), int64_t(1) << in.below(16), numbers);
    alter(in, q);
    const bool masked = in.bit();
    if (masked) q.rows = q.rows.tidy();
    const bool altered = in.rarely(64);
    if (altered) corrupt(in, q.rows);
    const int64_t invalid = first_invalid(o, q.rows), noticed = o.neurons ? invalid : -1;
    const IntegerOutcome expected = IntegerModel(q, usable(o, q.rows)).outcome;
    const bool slopes = as == SpikesAs::floats_with_slopes;
    Array<int16_t> packed = q.packed_weights();
    const int64_t exact = in.bit() ? q.exact() : 1 + in.below(q.exact());

    Gradients of_scalar;
    for (const Kernels* kernels : available_kernels()) {
        const bool scalar = kernels == kernels_scalar();
        const int poison = scalar ? kPoison : kOtherPoison;
        IntegerOutputs out(q, as, poison), of_packed(q, as, poison);
        CHECK(integer_forward(*kernels, out, threads, poison) == noticed);
        if (noticed < 0) CHECK(out.outcome() == expected);
        CHECK(integer_forward(*kernels, of_packed, threads, packed, exact) == noticed);
        if (noticed < 0) CHECK(of_packed.outcome() == expected);
        if (!slopes) continue;
        const Gradients made = gradients(*kernels, out, threads, poison, noticed);
        if (scalar) of_scalar = made;
        if (noticed < 0) CHECK(made == of_scalar);
    }
    const Card& card = kCards[in.below(3)];
    check_device(card, q, as, masked && !altered, slopes && invalid < 0 ? &of_scalar : nullptr);
    return invalid < 0 && o.steps && o.batch && o.neurons;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("integer", data, size, neurons_agree);
}
