// A test problem for a layer of integer neurons: constants, event rows, weights and states; the definition of the
// neurons in plain 64-bit integers; and the calls of the CPU's kernels and of the device code. For the tests and the
// fuzz target of integer neurons.
#pragma once

#include <algorithm>
#include <cmath>

#include "../../csrc/cuda/integer.h"
#include "../../csrc/domains.h"
#include "device_problem.h"
#include "events_property.h"

namespace srcell {

inline IntegerCell hardware_cell() {
    IntegerCell cell = {};
    for (const IntegerConstant& constant : kIntegerConstants) cell.*constant.member = constant.standard;
    return cell;
}

// Constants that integer_cell_fault() accepts, often at its bounds. draw(limit) is a number in [0, limit).
template <class Draw>
IntegerCell any_cell(Draw draw) {
    const auto size = [&](int64_t most) {
        const int64_t kind = draw(4), limit = kind == 1 ? std::min<int64_t>(most, 8) : most;
        return static_cast<int32_t>(kind == 0 ? most : draw(limit + 1));
    };
    const auto any = [&](int64_t most) { return draw(2) ? size(most) : -size(most); };
    IntegerCell cell = {};
    cell.leak_shift_a = static_cast<int32_t>(1 + draw(15));
    cell.leak_shift_b = static_cast<int32_t>(1 + draw(15));
    cell.i_max = size(INT16_MAX - 1);
    cell.fraction_bits = static_cast<int32_t>(draw(16));
    const int64_t unit = std::min(1 << cell.fraction_bits, INT16_MAX);
    cell.zs_hyp = size(unit);
    cell.zs_dep = size(unit);
    cell.slope_shift = static_cast<int32_t>(draw(16));
    const int64_t one = 1 << cell.slope_shift;
    cell.slope = size(std::min<int64_t>((3 * one - 1) / 2, INT16_MAX));
    cell.h_min = -size(INT16_MAX);
    cell.h_max = size(INT16_MAX);
    cell.hs_min = -size(INT16_MAX - cell.h_max);
    cell.hs_max = size(INT16_MAX + cell.h_min);
    cell.gate_threshold = any(INT16_MAX);
    cell.spike_threshold =
        draw(4) ? static_cast<int32_t>(cell.h_min + draw(cell.h_max - cell.h_min + 1)) : any(INT16_MAX);
    // What remains of the largest allowed |u|: the terms of u take their shares one after the other.
    int64_t left = cell.slope ? std::min<int64_t>(INT16_MAX, (INT16_MAX * one - 1) / cell.slope) : INT16_MAX;
    const auto factor_of = [&](int32_t low, int32_t high) {
        const int64_t largest = std::max(-low, high);
        const int32_t factor = any(largest ? left / largest : INT16_MAX);
        left -= std::abs(factor) * largest;
        return factor;
    };
    cell.r = factor_of(cell.h_min, cell.h_max);
    cell.rs = factor_of(cell.hs_min, cell.hs_max);
    cell.drive_high = any(left);
    cell.drive_low = any(left);
    left -= std::max(std::abs(cell.drive_high), std::abs(cell.drive_low));
    cell.bias = any(left);
    return cell;
}

struct IntegerProblem {
    CellOptions o;  // only sizes, lengths and initial_state are used
    IntegerCell cell;
    EventRows<float> rows;
    float rho = 3;
    Array<int16_t> weight, i0, h0, hs0;
    Array<float> grad_spikes, scale;
    Array<int64_t> lengths;

    // Weights are in [-weight_size, weight_size), many of them at these bounds.
    IntegerProblem(const CellOptions& options, const IntegerCell& constants, EventRows<float> events,
                   int64_t weight_size, Numbers& numbers)
        : o(options),
          cell(constants),
          rows(std::move(events)),
          weight(o.neurons * rows.inputs),
          i0(state(-cell.i_max, cell.i_max, numbers)),
          h0(state(cell.h_min, cell.h_max, numbers)),
          hs0(state(cell.hs_min, cell.hs_max, numbers)),
          grad_spikes(numbers.array<float>(o.steps * plane())),
          scale(std::vector<float>{static_cast<float>(weight_size)}),
          lengths(o.lengths) {
        for (int16_t& w : weight) {
            const int64_t kind = numbers.below(8), any = numbers.below(2 * weight_size);
            w = static_cast<int16_t>((kind == 0 ? 0 : kind == 1 ? 2 * weight_size - 1 : any) - weight_size);
        }
        // Some of grad_spikes are so small that gradients are flushed to zero.
        for (int64_t k = 3; k < grad_spikes.size(); k += 7) grad_spikes[k] *= 0x1p-96f;
    }

    int64_t plane() const { return o.batch * o.neurons; }
    int64_t steps_of(int64_t sample) const {
        return o.lengths.empty() ? o.steps : std::clamp<int64_t>(o.lengths[static_cast<size_t>(sample)], 0, o.steps);
    }
    ScanShape shape(int threads) const { return {o.steps, o.batch, o.neurons, lengths.data(), threads}; }

    // The number of summands that fit in int16.
    int64_t exact() const {
        int64_t largest = 1;
        for (const int16_t w : weight) largest = std::max<int64_t>(largest, std::abs(int32_t(w)));
        return std::max<int64_t>(INT16_MAX / largest, 1);
    }

    // The weights in the layout that IntegerForward takes if they are `packed`.
    Array<int16_t> packed_weights() const {
        const int64_t width = event_tile_width(o.neurons), columns = integer_tile_width(o.neurons);
        Array<int16_t> packed(event_tiles(o.neurons) * rows.inputs * columns);
        std::fill(packed.begin(), packed.end(), int16_t(0));
        for (int64_t k = 0; k < rows.inputs; ++k)
            for (int64_t n = 0; n < o.neurons; ++n)
                packed[(n / width * rows.inputs + k) * columns + n % width] = weight[n * rows.inputs + k];
        return packed;
    }

  private:
    Array<int16_t> state(int64_t low, int64_t high, Numbers& numbers) const {
        Array<int16_t> x(plane());
        for (int16_t& value : x) {
            const int64_t kind = numbers.below(8), any = low + numbers.below(high - low + 1);
            value = static_cast<int16_t>(kind == 0 ? low : kind == 1 ? high : any);
        }
        return x;
    }
};

struct IntegerOutcome {
    std::vector<int64_t> spikes, i, h, hs;
    int64_t clamped;

    bool operator==(const IntegerOutcome& x) const {
        return spikes == x.spikes && i == x.i && h == x.h && hs == x.hs && clamped == x.clamped;
    }
};

// x / 2^bits, rounded to minus infinity.
inline int64_t floor_shift(int64_t x, int64_t bits) {
    const int64_t divisor = int64_t(1) << bits;
    return x >= 0 ? x / divisor : -((divisor - 1 - x) / divisor);
}

// What the definition of the neurons gives on some rows: the outcome, and i and u of every step.
struct IntegerModel {
    IntegerOutcome outcome;
    std::vector<int64_t> i, u;  // (T, B, N), zero past a sample's length

    IntegerModel(const IntegerProblem& q, const EventRows<float>& rows) {
        const auto plane = static_cast<size_t>(q.plane());
        std::vector<int64_t> none(plane), trace(static_cast<size_t>(q.o.steps * q.plane()));
        outcome = {trace, none, none, none, 0};
        i = u = trace;
        for (int64_t sample = 0; sample < q.o.batch; ++sample)
            for (int64_t n = 0; n < q.o.neurons; ++n) advance(q, rows, sample, n);
    }

  private:
    void advance(const IntegerProblem& q, const EventRows<float>& rows, int64_t sample, int64_t n) {
        const IntegerCell& c = q.cell;
        const int64_t element = sample * q.o.neurons + n, steps = q.steps_of(sample);
        const bool given = q.o.initial_state;
        int64_t now = given ? q.i0[element] : 0, h = given ? q.h0[element] : 0, hs = given ? q.hs0[element] : 0;
        for (int64_t t = 0; t < steps; ++t) {
            const int64_t row = sample * q.o.steps + t;
            int64_t current = 0;
            for (int64_t e = rows.offsets[row]; e < rows.offsets[row + 1]; ++e)
                current += q.weight[n * rows.inputs + rows.indices[e]];
            const int64_t leak = floor_shift(now, c.leak_shift_a) + floor_shift(now, c.leak_shift_b);
            const int64_t unbounded = now - leak + current;
            now = within(unbounded, -c.i_max, c.i_max);
            outcome.clamped += now != unbounded;
            const int64_t drive = now > 0 ? c.drive_high : c.drive_low;
            const int64_t gate = h < c.gate_threshold ? c.zs_hyp : c.zs_dep;
            const int64_t sum = drive + c.r * h + c.rs * hs + c.bias;
            const int64_t fast = floor_shift(c.slope * sum, c.slope_shift);
            const int64_t slow = h + floor_shift((hs - h) * gate, c.fraction_bits);
            for (const int64_t x : {now, sum, fast, slow, hs - h}) CHECK(x >= INT16_MIN && x <= INT16_MAX);
            h = within(fast, c.h_min, c.h_max);
            hs = within(slow, c.hs_min, c.hs_max);
            const auto at = static_cast<size_t>(t * q.plane() + element);
            outcome.spikes[at] = h >= c.spike_threshold;
            i[at] = now;
            u[at] = sum;
        }
        const auto at = static_cast<size_t>(element);
        outcome.i[at] = now;
        outcome.h[at] = h;
        outcome.hs[at] = hs;
    }

    static int64_t within(int64_t x, int64_t low, int64_t high) { return std::min(std::max(x, low), high); }
};

enum class SpikesAs { bytes, floats, floats_with_slopes };

// The arrays of a forward pass.
struct IntegerOutputs {
    const IntegerProblem& q;
    const SpikesAs as;
    const int poison;
    const int64_t elements = q.o.steps * q.plane();
    Array<uint8_t> spikes{as == SpikesAs::bytes ? elements : 0, poison};
    Array<float> float_spikes{as == SpikesAs::bytes ? 0 : elements, poison};
    Array<float> slopes{as == SpikesAs::floats_with_slopes ? elements : 0, poison};
    Array<int16_t> i{q.plane(), poison}, h{q.plane(), poison}, hs{q.plane(), poison};
    int64_t clamped = 0;

    IntegerOutputs(const IntegerProblem& problem, SpikesAs as, int poison) : q(problem), as(as), poison(poison) {}

    // Sets the members that IntegerForward and DeviceIntegerForward share.
    template <class Forward>
    void give(Forward& p, int threads) {
        p.shape = q.shape(threads);
        p.cell = q.cell;
        p.i0 = q.i0.data_if(q.o.initial_state);
        p.h0 = q.h0.data_if(q.o.initial_state);
        p.hs0 = q.hs0.data_if(q.o.initial_state);
        p.spikes = spikes.data();
        p.float_spikes = float_spikes.data();
        p.i = i.data();
        p.h = h.data();
        p.hs = hs.data();
        p.clamped = &clamped;
        p.slopes = slopes.data();
        p.scale = q.scale.data();
        p.rho = q.rho;
    }

    IntegerOutcome outcome() const {
        std::vector<int64_t> fired(spikes.begin(), spikes.end());
        for (const float s : float_spikes) fired.push_back(s == 0 || s == 1 ? static_cast<int64_t>(s) : -1);
        return {fired, {i.begin(), i.end()}, {h.begin(), h.end()}, {hs.begin(), hs.end()}, clamped};
    }
};

// Calls the kernel, which packs the weights into its own scratch. If packed weights are `given`, it uses them instead;
// sums of `exact` of them fit in int16.
inline int64_t integer_forward(const Kernels& kernels, IntegerOutputs& out, int threads, int poison,
                               Array<int16_t>* given = nullptr, int64_t exact = 0) {
    const IntegerProblem& q = out.q;
    const int64_t rows = given ? 0 : packed_rows(q.rows.inputs, q.rows.indices.size());
    Array<int16_t> scratch(event_tiles(q.o.neurons) * rows * integer_tile_width(q.o.neurons), poison);
    IntegerForward p = {};
    out.give(p, threads);
    p.synapse = {q.rows.events(), given ? nullptr : q.weight.data(), given ? given->data() : scratch.data(),
                 given != nullptr};
    p.exact = exact;
    out.clamped = -1;
    return kernels.integer_forward(p);
}

struct IntegerGradients {
    Array<float> current, weight;
    int64_t invalid;  // the kernel's result: the first invalid sample, or -1 if all are valid
};

inline IntegerGradients integer_backward(const Kernels& kernels, const IntegerProblem& q, const Array<float>& slopes,
                                         const Wanted& wanted, int threads, int poison) {
    const int64_t inputs = q.rows.inputs, neurons = q.o.neurons;
    const int64_t partials =
        event_tiles(neurons) * event_groups(q.o.batch, neurons) * inputs * event_tile_width(neurons);
    IntegerGradients made = {Array<float>(wanted.grad_current ? q.o.steps * q.plane() : 0, poison),
                             Array<float>(wanted.grad_weight ? neurons * inputs : 0, poison), -1};
    Array<float> scratch(wanted.grad_weight ? partials : 0, poison);
    made.invalid = kernels.integer_backward({q.shape(threads),
                                             integer_alpha(q.cell),
                                             slopes.data(),
                                             q.grad_spikes.data(),
                                             made.current.data(),
                                             {q.rows.events(), made.weight.data(), scratch.data()}});
    return made;
}

// The forward pass of the device code, over events as rows or, if `masked`, over the mask of a dense input.
inline void integer_forward_on(const Card& card, IntegerOutputs& out, bool masked) {
    const IntegerProblem& q = out.q;
    const Array<int16_t> weight_t = transposed(q.weight, q.o.neurons, q.rows.inputs);
    DeviceIntegerForward p = {};
    out.give(p, 1);
    p.input = q.rows.events();
    p.weight_t = weight_t.data();
    device::Queue queue = card.queue();
    if (!masked) return device::integer_forward(queue, p);
    const Dense<float> dense(card, p.shape, q.rows);
    p.input = MaskedElements<float>{dense.mask.data(), nullptr, q.rows.inputs};
    device::integer_forward(queue, p);
}

inline Array<float> integer_backward_on(const Card& card, const IntegerProblem& q, const Array<float>& slopes,
                                        int poison) {
    Array<float> grad_current(q.o.steps * q.plane(), poison);
    device::Queue queue = card.queue();
    device::integer_backward(
        queue, {q.shape(1), integer_alpha(q.cell), slopes.data(), q.grad_spikes.data(), grad_current.data()});
    return grad_current;
}

}  // namespace srcell
