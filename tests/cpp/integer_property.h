// The property of integer neurons, which the fuzz target and the test check. On every ISA and in the device code,
// neurons with any constants, weights and states follow their definition in 64-bit integers, on rows some of which were
// altered. Their slopes (the surrogate gradients) and gradients agree with the definition in double, and have the same
// bits everywhere.
#pragma once

#include "integer_problem.h"

namespace srcell {

// Checks the slopes against the surrogate in double. The errors, in units of 2^-24: a tanh and its argument contribute
// 2.9, so the two factors contribute 6.3; each of the four further roundings contributes 1.
inline void check_slopes(const IntegerProblem& q, const IntegerModel& model, const Array<float>& slopes) {
    const double slope = std::ldexp(q.cell.slope, -q.cell.slope_shift);
    const double steepness = double(0.2f), unit = steepness * std::ldexp(slope, -q.cell.fraction_bits);
    const double range = double(q.rho) * double(q.scale[0]);
    for (int64_t k = 0; k < slopes.size(); ++k) {
        const int64_t sample = k / q.o.neurons % q.o.batch, t = k / q.plane();
        const double fast = std::tanh(unit * double(model.u[static_cast<size_t>(k)]));
        const double drive = std::tanh(double(model.i[static_cast<size_t>(k)]) / range);
        const double expected = t < q.steps_of(sample) ? slope * (1 - fast * fast) * (1 - drive * drive) / range : 0;
        CHECK(std::fabs(expected - double(slopes[k])) <= 17 * 0x1p-24 * slope / range);
    }
}

// Checks the gradients against the leaky sum in double. Each step rounds twice, and flushes sums below 2^-100 to zero.
inline void check_grad_current(const IntegerProblem& q, const Array<float>& slopes, const Array<float>& grad_current) {
    const double alpha = double(integer_alpha(q.cell));
    for (int64_t element = 0; element < q.plane(); ++element) {
        const int64_t steps = q.steps_of(element / q.o.neurons);
        double sum = 0, size = 0, error = 0;
        for (int64_t t = q.o.steps - 1; t >= 0; --t) {
            const int64_t at = t * q.plane() + element;
            const double arriving = t < steps ? double(q.grad_spikes[at]) * double(slopes[at]) : 0;
            sum = alpha * sum + arriving;
            size = alpha * size + std::fabs(arriving);
            error = alpha * error + 3 * 0x1p-24 * size + 0x1p-100;
            CHECK(t < steps ? std::fabs(sum - double(grad_current[at])) <= error : grad_current[at] == 0);
        }
    }
}

// Whether slopes and gradients are within the range for which the checks above derive their bounds.
inline bool is_plain(const IntegerProblem& q) {
    return q.rho == 3 && q.scale[0] >= 1 && q.scale[0] <= 32768 &&
           std::all_of(q.grad_spikes.begin(), q.grad_spikes.end(), [](float x) { return std::fabs(x) <= 1; });
}

// `masked`: the device code gets the events as the mask of a dense input. Returns whether the rows are valid.
inline bool neurons_agree(Input& in, const IntegerProblem& q, const std::vector<SpikesAs>& kinds, bool masked) {
    const int64_t invalid = first_invalid(q.o, q.rows), noticed = q.o.neurons ? invalid : -1;
    const IntegerModel model(q, q.rows.as_read_by_device());
    Array<int16_t> packed = q.packed_weights();
    // The fewest and the most summands per partial sum in int16.
    std::vector<int64_t> exact = {1, q.exact()};
    if (!in.thorough()) exact = {in.bit() ? q.exact() : 1 + in.below(q.exact())};

    IntegerOutputs first(q, SpikesAs::floats_with_slopes, kPoison);
    CHECK(integer_forward(*kernels_scalar(), first, 1, kPoison) == noticed);
    const IntegerGradients expected =
        integer_backward(*kernels_scalar(), q, first.slopes, {true, true, true}, 1, kPoison);
    if (invalid < 0 && is_plain(q)) {
        check_slopes(q, model, first.slopes);
        check_grad_current(q, first.slopes, expected.current);
        Result<float> gradients;
        gradients.add(expected.current);
        gradients.add(expected.weight);
        check_grad_weight(q.o, q.rows, gradients);
    }
    for_each_table(in.thread_counts(), [&](const Kernels& kernels, int threads) {
        for (const SpikesAs as : kinds) {
            IntegerOutputs out(q, as, kOtherPoison);
            CHECK(integer_forward(kernels, out, threads, kOtherPoison) == noticed);
            CHECK(noticed >= 0 || out.outcome() == model.outcome);
            for (const int64_t summands : exact) {
                IntegerOutputs of_packed(q, as, kPoison);
                CHECK(integer_forward(kernels, of_packed, threads, kPoison, &packed, summands) == noticed);
                CHECK(noticed >= 0 || of_packed.outcome() == model.outcome);
            }
            if (as != SpikesAs::floats_with_slopes) continue;
            CHECK(noticed >= 0 || same(out.slopes, first.slopes));
            for (const Wanted& wanted : {Wanted{true, true, true}, {true, true, false}, {true, false, true}}) {
                const IntegerGradients made = integer_backward(kernels, q, out.slopes, wanted, threads, kOtherPoison);
                CHECK(made.invalid == noticed);
                if (noticed >= 0) continue;
                CHECK(!wanted.grad_current || same(made.current, expected.current));
                CHECK(!wanted.grad_weight || same(made.weight, expected.weight));
            }
        }
    });
    for (const Card& card : cards(in))
        for (const SpikesAs as : kinds) {
            IntegerOutputs out(q, as, kOtherPoison);
            out.clamped = 1000;
            integer_forward_on(card, out, masked);
            out.clamped -= 1000;
            CHECK(out.outcome() == model.outcome);
            if (as != SpikesAs::floats_with_slopes || invalid >= 0) continue;
            CHECK(same(out.slopes, first.slopes));
            CHECK(same(integer_backward_on(card, q, out.slopes, kOtherPoison), expected.current));
        }
    return invalid < 0;
}

// Constants within their bounds, usually such that all values fit in 16 bits.
inline IntegerCell drawn_cell(Input& in) {
    Numbers numbers(in.bytes(3));
    IntegerCell cell = in.bit() ? hardware_cell() : any_cell([&](int64_t limit) { return numbers.below(limit); });
    if (!in.rarely(96)) return cell;
    for (int64_t k = 1 + in.below(3); k > 0; --k) {
        const IntegerConstant& c = kIntegerConstants[in.below(static_cast<int64_t>(std::size(kIntegerConstants)))];
        cell.*c.member = std::clamp(in.integer<int32_t>(in.bit() ? c.most : c.standard), c.least, c.most);
    }
    return cell;
}

inline void alter(Input& in, IntegerProblem& q) {
    if (q.weight.size() && in.rarely(64))
        for (int64_t k = 1 + in.below(4); k > 0; --k) {
            const int64_t at = in.below(q.weight.size());
            q.weight[at] = in.integer<int16_t>(INT16_MIN);
        }
    in.spoil(q.grad_spikes);
    in.spoil(q.scale);
    if (in.rarely(16)) q.rho = in.real<float>();
}

inline bool any_neurons_agree(Input& in, const CellOptions& o, int64_t inputs) {
    const IntegerCell cell = drawn_cell(in);
    if (integer_cell_fault(cell).expected) return false;
    Numbers numbers(in.bytes(3));
    const auto as = static_cast<SpikesAs>(in.below(3));
    // With few events the weights are packed event by event.
    const int64_t most = in.bit() ? inputs / 4 + 3 : 1;
    in.thread_counts();
    IntegerProblem q(o, cell, EventRows<float>(o, inputs, most, false, numbers), int64_t(1) << in.below(16), numbers);
    alter(in, q);
    const bool masked = in.bit();
    if (masked) q.rows = q.rows.as_of_dense_input();
    const bool altered = in.rarely(64);
    if (altered) corrupt(in, q.rows);
    std::vector<SpikesAs> kinds = {as};
    if (in.thorough() && as != SpikesAs::floats_with_slopes) kinds.push_back(SpikesAs::floats_with_slopes);
    return neurons_agree(in, q, kinds, masked && !altered) && !o.empty();
}

}  // namespace srcell
