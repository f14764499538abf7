// The property of the kernels on events, which the fuzz target and the test check. Every ISA returns the first invalid
// sample. If all samples are valid, the results are those of the scan of the events' currents, and the gradients of
// weights and values are sums of products. All bits are those of the scalar table of kernels. Data past a sample's
// length are zero.
#pragma once

#include "events_problem.h"

namespace srcell {

// A sum of products in double, which checks a sum in T whose additions and multiplications round once each.
struct CheckedSum {
    double sum = 0, size = 0, terms = 0;

    void add(double term) {
        sum += term;
        size += std::fabs(term);
        ++terms;
    }
    template <class T>
    void check(T got) const {
        const double unit = sizeof(T) == sizeof(float) ? 0x1p-24 : 0x1p-53;
        // Twice the bound, because the sum in double rounds as well. 0x1p-149 is for results below the normal range.
        // Sums that may overflow float32, and those of infinities and NaN, are compared by their bits alone.
        if (size < 0x1p+100) CHECK(std::fabs(sum - double(got)) <= 2 * (terms + 1) * (unit * size + 0x1p-149));
        if (!terms) CHECK(got == 0);
    }
};

// Checks grad_weight, the last of the results. It is the sum over events of value times grad_current, which is the last
// result but one.
template <class T>
void check_grad_weight(const CellOptions& o, const EventRows<T>& rows, const Result<T>& result) {
    const int64_t elements = o.neurons * rows.inputs, plane = o.batch * o.neurons;
    const T* const grad_weight = result.all.data() + result.all.size() - elements;
    const T* const grad_current = grad_weight - o.steps * plane;
    std::vector<CheckedSum> sums(static_cast<size_t>(elements));
    for (int64_t row = 0; row < o.batch * o.steps; ++row)
        for (int64_t e = rows.offsets[row]; e < rows.offsets[row + 1]; ++e)
            for (int64_t n = 0; n < o.neurons; ++n)
                sums[static_cast<size_t>(n * rows.inputs + rows.indices[e])].add(
                    (rows.with_values ? double(rows.values[e]) : 1) *
                    double(grad_current[row % o.steps * plane + row / o.steps * o.neurons + n]));
    for (size_t k = 0; k < sums.size(); ++k) sums[k].check(grad_weight[k]);
}

// Checks the first results, the gradients of the events' values: weight times grad_current, summed over the neurons.
template <class T>
void check_dots(const CellOptions& o, const EventRows<T>& rows, const Array<T>& weight_t, const Array<T>& grad_current,
                const Result<T>& result) {
    for (int64_t row = 0; row < o.batch * o.steps; ++row)
        for (int64_t e = rows.offsets[row]; e < rows.offsets[row + 1]; ++e) {
            const int64_t sample = row / o.steps, t = row % o.steps;
            const bool past = !o.lengths.empty() && t >= o.lengths[static_cast<size_t>(sample)];
            CheckedSum sum;
            for (int64_t n = 0; n < o.neurons && !past; ++n)
                sum.add(double(weight_t[rows.indices[e] * o.neurons + n]) *
                        double(grad_current[(t * o.batch + sample) * o.neurons + n]));
            sum.check(result.all[static_cast<size_t>(e)]);
        }
}

// Past a sample's length the trace (the saved drive or integrator), tile by tile, and the checkpoints are zero.
template <class T>
void check_padding(const EventsCall<T>& call) {
    const CellOptions& o = call.in.o;
    check_padding(o, call.checkpoints, states_of(o.resonant) - 1, kEventSegment);
    const int64_t width = event_tile_width(o.neurons);
    for (size_t b = 0; b < o.lengths.size() && call.trace.size(); ++b)
        for (int64_t first = 0; first < o.neurons; first += width) {
            const int64_t count = std::min(width, o.neurons - first);
            const T* const tile = call.trace.data() + (static_cast<int64_t>(b) * o.neurons + first) * o.steps;
            for (int64_t k = o.lengths[b] * count; k < o.steps * count; ++k) CHECK(tile[k] == 0);
        }
}

template <class T>
struct EventsProblem {
    Input& in;
    const CellOptions unclamped, o = clamped(unclamped);  // o: the same with lengths in [0, T]
    const int64_t inputs;
    const uint64_t seed = in.bytes(4);
    const uint8_t bits = in.byte();
    const Wanted wanted = {(bits & 3) != 3, (bits & 4) != 0, (bits & 8) != 0};
    const std::vector<int> thread_counts = in.thread_counts();
    CellInputs<T> cell{in, o, seed};
    EventRows<T> rows{o, inputs, (bits & 16) != 0, cell.numbers};
    Array<T> weight = cell.numbers.template array<T>(o.neurons * inputs);
    Array<T> weight_t = cell.numbers.template array<T>(o.neurons * inputs), grad_current = cell.plane(o.steps);

    EventsProblem(Input& in, const CellOptions& options, int64_t inputs) : in(in), unclamped(options), inputs(inputs) {
        for (Array<T>* x : {&weight, &weight_t, &grad_current, &rows.values}) in.spoil(*x);
    }
};

// Returns whether the rows are valid.
template <class T>
bool passes_agree(EventsProblem<T>& q) {
    const Kernels& scalar = *kernels_scalar();
    const int64_t invalid = first_invalid(q.o, q.rows), noticed = q.o.neurons ? invalid : -1;
    const int64_t refused_dots = q.o.steps ? invalid : -1;
    q.cell.lengths = Array<int64_t>(q.o.lengths);
    EventsCall<T> first(q.cell, q.rows, q.wanted, kPoison);
    const Result<T> expected = first.run(scalar, q.weight, 1, noticed);
    const Result<T> expected_dots = dots(scalar, q.cell, q.rows, q.weight_t, q.grad_current, 1, kPoison, refused_dots);
    if (invalid < 0) {
        check_padding(first);
        check_dots(q.o, q.rows, q.weight_t, q.grad_current, expected_dots);
        // The scan of the same currents gives the same bits; the scan has no gradient of the weight.
        const Array<T> current = currents(q.o, q.rows, q.weight);
        Result<T> scanned = scan(scalar, q.cell, current, q.wanted.save, 1, kPoison), begin = expected;
        if (q.wanted.save && !q.wanted.grad_current) scanned.all.resize(scanned.all.size() - current.size());
        CHECK(begin.all.size() >= scanned.all.size());
        begin.all.resize(scanned.all.size());
        CHECK(begin == scanned);
        if (q.wanted.save && q.wanted.grad_current && q.wanted.grad_weight) check_grad_weight(q.o, q.rows, expected);
    }
    q.cell.lengths = Array<int64_t>(q.unclamped.lengths);
    for_each_table(q.thread_counts, [&](const Kernels& kernels, int threads) {
        EventsCall<T> call(q.cell, q.rows, q.wanted, kOtherPoison);
        CHECK(call.run(kernels, q.weight, threads, noticed) == expected);
        if (noticed < 0) CHECK(same(call.trace, first.trace) && same(call.checkpoints, first.checkpoints));
        CHECK(dots(kernels, q.cell, q.rows, q.weight_t, q.grad_current, threads, kOtherPoison, refused_dots) ==
              expected_dots);
    });
    return invalid < 0;
}

}  // namespace srcell
