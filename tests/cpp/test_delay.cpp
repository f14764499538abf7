// The delay of events, for the sanitizers: every ISA's passes and the device's against the definition, with the usual
// delays (buckets) and all others, buckets that overflow, and rows that change during a call.
#include "../../csrc/cuda/delay.h"
#include "events_problem.h"

using namespace srcell;

namespace {

template <class T>
struct Problem {
    int64_t steps, batch, inputs, taps, terms;
    bool graded, keep_zeros;
    Numbers numbers;
    CellOptions o = {steps, batch, 1, false, false, false, false, false, false, false, {}};
    EventRows<T> rows;
    Array<int64_t> lengths;
    Array<int32_t> first = Array<int32_t>(inputs * taps);
    Array<T> factors = Array<T>(inputs * taps * terms);

    Problem(int64_t steps, int64_t batch, int64_t inputs, int64_t taps, int64_t terms, bool graded, uint64_t seed)
        : steps(steps),
          batch(batch),
          inputs(inputs),
          taps(taps),
          terms(terms),
          graded(graded),
          keep_zeros(seed % 3 == 0),
          numbers(seed),
          rows(o, inputs, 12, graded && seed % 2, numbers),
          lengths(seed % 5 == 0 ? batch : 0) {
        for (int64_t& length : lengths) length = numbers.below(steps + 1);
        for (int32_t& x : first) x = static_cast<int32_t>(numbers.below(steps + 4)) - static_cast<int32_t>(terms > 1);
        for (T& x : factors) x = numbers.below(4) ? static_cast<T>(numbers.below(64)) / 64 : T(0);
    }

    DelayedEvents<T> call(int threads) const {
        return {{steps, batch, lengths.size() ? lengths.data() : nullptr, threads},
                0,
                {inputs * taps, taps, terms, first.data(), graded ? factors.data() : nullptr, graded && keep_zeros},
                rows.events()};
    }
};

template <class T>
struct Arrivals {
    Array<int64_t> starts, cursors, offsets;
    Array<int32_t> indices{0};
    Array<T> values{0};

    explicit Arrivals(const Problem<T>& q)
        : starts(q.batch + 1, kPoison), cursors(q.batch * q.steps, kPoison), offsets(q.batch * q.steps + 1, kPoison) {}

    // count(p) and write(p) are the two passes.
    template <class Count, class Write>
    void run(const Problem<T>& q, const DelayedEvents<T>& p, Count count, Write write) {
        count(DelayedCounts<T>{p, starts.data()});
        const int64_t all = starts[q.batch];
        indices = Array<int32_t>(all, kPoison);
        values = Array<T>(q.graded ? all : 0, kPoison);
        const DelayedRows<T> rows = {p, cursors.data(), offsets.data(), all};
        write(DelayedWrite<T>{rows, starts.data(), indices.data(), values.data_if(q.graded)});
        offsets[q.batch * q.steps] = all;
    }

    bool operator==(const Arrivals& other) const {
        return same(offsets, other.offsets) && same(indices, other.indices) && same(values, other.values);
    }
};

// Row by row, what departed so many steps before, in the order of the departures.
template <class T>
Arrivals<T> by_definition(const Problem<T>& q) {
    Arrivals<T> made(q);
    std::vector<int32_t> indices;
    std::vector<T> values;
    for (int64_t row = 0; row < q.batch * q.steps; ++row) {
        made.offsets[row] = static_cast<int64_t>(indices.size());
        const int64_t sample = row / q.steps, at = row % q.steps;
        if (q.lengths.size() && at >= q.lengths[sample]) continue;
        for (int64_t t = 0; t <= at; ++t)
            for (int64_t e = q.rows.offsets[row - at + t]; e < q.rows.offsets[row - at + t + 1]; ++e)
                for (int64_t tap = 0; tap < q.taps; ++tap) {
                    const int64_t number = q.rows.indices[e] * q.taps + tap, term = at - t - q.first[number];
                    if (term < 0 || term >= q.terms) continue;
                    const T factor = q.graded ? q.factors[number * q.terms + term] : T(1);
                    if (factor == 0 && !q.keep_zeros) continue;
                    indices.push_back(static_cast<int32_t>(number));
                    if (q.graded) values.push_back(factor * (q.rows.with_values ? q.rows.values[e] : T(1)));
                }
    }
    made.offsets[q.batch * q.steps] = static_cast<int64_t>(indices.size());
    made.indices = Array<int32_t>(indices);
    made.values = Array<T>(values);
    return made;
}

template <class T>
void agrees(const Problem<T>& q) {
    const Arrivals<T> expected = by_definition(q);
    for (const Kernels* kernels : available_kernels())
        for (const int threads : {1, 3}) {
            Arrivals<T> made(q);
            made.run(q, q.call(threads), kernels->of<T>().count_delayed, kernels->of<T>().write_delayed);
            CHECK(made == expected);
        }
    Arrivals<T> made(q);
    device::Queue queue = {device::kHostLimits};
    const auto count = [&](const DelayedCounts<T>& p) {
        device::count_delayed(queue, p);
        int64_t sum = 0;
        for (int64_t sample = 0; sample < q.batch; ++sample) sum += std::exchange(p.starts[sample], sum);
        p.starts[q.batch] = sum;
    };
    made.run(q, q.call(1), count, [&](const DelayedWrite<T>& p) { device::write_delayed(queue, p); });
    CHECK(made == expected);
}

template <class T>
void shapes_agree() {
    uint64_t seed = 0;
    for (const int64_t steps : {0, 1, 2, 17, 40})
        for (const int64_t batch : {0, 1, 5})
            for (const int64_t inputs : {0, 1, 20})
                for (const int64_t taps : {1, 2})
                    for (const int64_t terms : {1, 2, 6})
                        for (const bool graded : {false, true})
                            if (graded || terms == 1)
                                agrees(Problem<T>(steps, batch, inputs, taps, terms, graded, ++seed));
    // More inputs than 16 bits number.
    agrees(Problem<T>(9, 2, 70000, 1, 1, false, ++seed));
}

// All events of a sample arrive at one step, far more than the mean.
void full_buckets_agree() {
    for (const bool graded : {false, true}) {
        Problem<float> q(30, 3, 40, 1, graded ? 2 : 1, graded, 2);
        for (int32_t k = 0; k < q.first.size(); ++k) q.first[k] = 20 - k / 2;
        for (int64_t row = 0, sample = 0; sample < 3; ++sample)
            for (int64_t t = 0; t < 30; ++t, ++row)
                for (int64_t e = q.rows.offsets[row]; e < q.rows.offsets[row + 1]; ++e)
                    q.rows.indices[e] = static_cast<int32_t>(t < 20 ? 2 * t : 0);
        agrees(q);
    }
}

#if !defined(__SANITIZE_THREAD__)
// No access is out of bounds, and no element of the output stays unwritten, while another thread writes into the
// events.
void passes_survive_events_that_change_during_a_call() {
    for (const bool graded : {false, true})
        for (const int64_t taps : {1, 2}) {
            Problem<float> q(40, 6, 30, taps, graded ? 2 : 1, graded, 4);
            const ConcurrentWriter writer(q.rows.offsets, q.rows.indices);
            for (int round = 0; round < 2000; ++round) {
                Arrivals<float> made(q);
                const KernelsOf<float>& kernels = kernels_scalar()->f32;
                made.run(q, q.call(1), kernels.count_delayed, kernels.write_delayed);
                for (int64_t row = 0; row < 240; ++row) CHECK(made.offsets[row] <= made.offsets[row + 1]);
                for (const int32_t number : made.indices) CHECK(number >= 0 && number < 30 * taps);
                for (const float value : made.values) CHECK(value >= -100 && value <= 100);
            }
        }
}

// Nor in the backward pass, while it writes into the offsets of the output.
void gradients_survive_offsets_that_change_during_a_call() {
    Problem<float> q(40, 6, 30, 1, 2, true, 4);
    Arrivals<float> made(q);
    const KernelsOf<float>& kernels = kernels_scalar()->f32;
    made.run(q, q.call(1), kernels.count_delayed, kernels.write_delayed);
    Array<float> grad_values(made.values.size(), 0), grad_events(q.rows.indices.size(), 0);
    Array<float> grad_factors(60, kPoison), partials(6 * 60, kPoison);
    for (float& x : grad_values) x = 1;
    const DelayedRows<float> rows = {q.call(1), made.cursors.data(), made.offsets.data(), made.values.size()};
    const DelayedBackward<float> p = {rows, grad_values.data(), grad_events.data(), grad_factors.data(),
                                      partials.data()};
    const ConcurrentWriter writer(made.offsets);
    for (int round = 0; round < 2000; ++round) {
        kernels.delayed_backward(p);
        for (const float x : grad_factors) CHECK(x >= 0 && x <= static_cast<float>(p.count));
    }
}
#endif

}  // namespace

int main() {
    shapes_agree<float>();
    shapes_agree<double>();
    full_buckets_agree();
#if !defined(__SANITIZE_THREAD__)
    passes_survive_events_that_change_during_a_call();
    gradients_survive_offsets_that_change_during_a_call();
#endif
}
