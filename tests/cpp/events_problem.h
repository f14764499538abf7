// A test problem of a layer with events as input: rows of events, valid and invalid, and the structs of params.h that
// point at them. For the tests of the kernels on events.
#pragma once

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "cell_problem.h"

namespace srcell {

// Rows of events, in any order and with repetitions; some rows are empty.
template <class T>
struct EventRows {
    Array<int64_t> offsets;
    Array<int32_t> indices;
    Array<T> values;
    int64_t inputs;
    bool with_values;

    // Rows of up to `most` events; a third of them are empty.
    EventRows(const CellOptions& o, int64_t inputs, int64_t most, bool with_values, Numbers& numbers)
        : offsets(o.batch * o.steps + 1), indices(0), values(0), inputs(inputs), with_values(with_values) {
        offsets[0] = 0;
        for (int64_t row = 0; row + 1 < offsets.size(); ++row)
            offsets[row + 1] = offsets[row] + (inputs && numbers.below(3) ? numbers.below(most + 1) : 0);
        indices = Array<int32_t>(offsets[offsets.size() - 1]);
        values = numbers.array<T>(indices.size());
        for (int32_t& index : indices) index = static_cast<int32_t>(numbers.below(inputs));
    }

    EventRows(const CellOptions& o, int64_t inputs, bool with_values, Numbers& numbers)
        : EventRows(o, inputs, inputs / 4 + 2, with_values, numbers) {}

    EventRows(Array<int64_t> offsets, Array<int32_t> indices, Array<T> values, int64_t inputs, bool with_values)
        : offsets(std::move(offsets)),
          indices(std::move(indices)),
          values(std::move(values)),
          inputs(inputs),
          with_values(with_values) {}

    Events<T> events() const {
        return {offsets.data(), indices.data(), values.data_if(with_values), indices.size(), inputs};
    }

    // The events that a dense input can hold: in each row every input at most once, in order, and no value of 0.
    EventRows as_of_dense_input() const {
        return picked([&](int64_t row, const auto& keep) {
            for (int32_t input = 0; input < inputs; ++input)
                for (int64_t e = offsets[row]; e < offsets[row + 1]; ++e) {
                    if (indices[e] != input || (with_values && values[e] == 0)) continue;
                    keep(e);
                    break;
                }
        });
    }

    // Altered rows as the device reads them: the events of each row that lie within the arrays. Valid rows stay
    // unchanged.
    EventRows as_read_by_device() const {
        return picked([&](int64_t row, const auto& keep) {
            const bool outside = offsets[row] < 0 || offsets[row + 1] > indices.size();
            for (int64_t e = offsets[row]; !outside && e < offsets[row + 1]; ++e)
                if (indices[e] >= 0 && indices[e] < inputs) keep(e);
        });
    }

  private:
    // The events of each row for which pick(row, keep) calls keep(event).
    template <class Pick>
    EventRows picked(Pick pick) const {
        std::vector<int64_t> ends = {0};
        std::vector<int32_t> kept;
        std::vector<T> of_kept;
        for (int64_t row = 0; row + 1 < offsets.size(); ++row) {
            pick(row, [&](int64_t e) {
                kept.push_back(indices[e]);
                of_kept.push_back(values[e]);
            });
            ends.push_back(static_cast<int64_t>(kept.size()));
        }
        return {Array<int64_t>(ends), Array<int32_t>(kept), Array<T>(of_kept), inputs, with_values};
    }
};

// The currents by definition: sums over the events in stored order, from +0.
template <class T>
Array<T> currents(const CellOptions& o, const EventRows<T>& rows, const Array<T>& weight) {
    Array<T> current(o.steps * o.batch * o.neurons);
    for (int64_t b = 0; b < o.batch; ++b)
        for (int64_t t = 0; t < o.steps; ++t)
            for (int64_t n = 0; n < o.neurons; ++n) {
                T sum = 0;
                for (int64_t e = rows.offsets[b * o.steps + t]; e < rows.offsets[b * o.steps + t + 1]; ++e)
                    sum = std::fma(rows.with_values ? rows.values[e] : T(1), weight[n * rows.inputs + rows.indices[e]],
                                   sum);
                current[(t * o.batch + b) * o.neurons + n] = sum;
            }
    return current;
}

// Offsets and indices as a caller may have altered them after they were validated.
template <class T>
void corrupt(Input& in, EventRows<T>& rows) {
    for (int64_t k = 1 + in.below(3); k > 0; --k) {
        if (in.bit() && rows.indices.size()) {
            const int64_t at = in.below(rows.indices.size());
            rows.indices[at] = in.integer<int32_t>(rows.inputs);
        } else {
            const int64_t at = in.below(rows.offsets.size());
            rows.offsets[at] = in.integer<int64_t>(in.bit() ? rows.indices.size() : rows.offsets[at]);
        }
    }
}

// Whether the kernels must accept a sample's rows, by the definition in params.h.
template <class T>
bool sample_is_valid(const CellOptions& o, const EventRows<T>& rows, int64_t sample) {
    const int64_t count = rows.indices.size(), first = sample * o.steps, last = first + o.steps;
    if (sample == 0 && rows.offsets[0] != 0) return false;
    if (sample == o.batch - 1 && rows.offsets[last] != count) return false;
    for (int64_t row = first; row <= last; ++row)
        if (rows.offsets[row] < (row > first ? rows.offsets[row - 1] : 0) || rows.offsets[row] > count) return false;
    for (int64_t e = rows.offsets[first]; e < rows.offsets[last]; ++e)
        if (rows.indices[e] < 0 || rows.indices[e] >= rows.inputs) return false;
    return true;
}

template <class T>
int64_t first_invalid(const CellOptions& o, const EventRows<T>& rows) {
    for (int64_t sample = 0; sample < o.batch; ++sample)
        if (!sample_is_valid(o, rows, sample)) return sample;
    return -1;
}

// Makes one offset or index after the other invalid, and calls check() each time. The rows must have at least 3 samples
// and 3 steps.
template <class T, class Check>
void for_each_corruption(const CellOptions& o, EventRows<T>& rows, Check check) {
    const auto corrupt = [&](auto& array, int64_t at, int64_t value) {
        const auto before = std::exchange(array[at], value);
        CHECK(first_invalid(o, rows) >= 0);
        check();
        array[at] = before;
    };
    const int64_t steps = o.steps, count = rows.indices.size(), end = o.batch * steps;
    for (const int64_t value : {INT64_MIN, int64_t(-1), count + 1, INT64_MAX})
        for (const int64_t at : {int64_t(0), steps, steps + 2, end}) corrupt(rows.offsets, at, value);
    corrupt(rows.offsets, 2 * steps + 1, 0);            // below the offset before it
    corrupt(rows.offsets, 2 * steps + 2, count);        // above the offset after it
    corrupt(rows.offsets, end, rows.offsets[end - 1]);  // the last row's events belong to no row
    for (const int64_t value : {int64_t(-1), rows.inputs, int64_t(INT32_MIN), int64_t(INT32_MAX)})
        for (const int64_t event : {int64_t(0), count / 2, count - 1}) corrupt(rows.indices, event, value);
}

// While this object lives, a second thread writes wild values into arrays, one at a time, and restores the old ones. So
// a value that was valid when a call checked it may have changed when the call uses it.
class ConcurrentWriter {
  public:
    template <class... Arrays>
    explicit ConcurrentWriter(Arrays&... arrays) : thread_([&] { run(arrays...); }) {}
    ~ConcurrentWriter() {
        done_ = true;
        thread_.join();
    }

  private:
    template <class... Arrays>
    void run(Arrays&... arrays) {
        Numbers numbers(7);
        while (!done_) (..., alter(arrays, numbers));
    }
    template <class Integers>
    static void alter(Integers& array, Numbers& numbers) {
        using Integer = std::decay_t<decltype(array[0])>;
        using Limits = std::numeric_limits<Integer>;
        const Integer wild[] = {Limits::min(), -1, 1 << 30, Limits::max()};
        const auto at = numbers.below(static_cast<int64_t>(array.size()));
        volatile Integer& element = array.data()[at];
        const Integer before = element;
        element = wild[numbers.below(4)];
        wait(numbers);
        element = before;
        wait(numbers);
    }
    static void wait(Numbers& numbers) {
        for (volatile int64_t k = numbers.below(2000); k > 0;) k = k - 1;
    }

    std::atomic<bool> done_{false};
    std::thread thread_;
};

// Makes calls while another thread writes into the events, until many calls were refused and many were not.
template <class Call>
void expect_both_outcomes(Call call) {
    int64_t refused = 0, accepted = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (refused < 100 || accepted < 100) {
        ++(call() >= 0 ? refused : accepted);
        CHECK(std::chrono::steady_clock::now() < end);
    }
}

struct Wanted {
    bool save, grad_current, grad_weight;
};

// The arrays of the forward and the backward pass of one call.
template <class T>
struct EventsCall {
    const CellInputs<T>& in;
    const EventRows<T>& rows;
    const Wanted wanted;
    CellOutputs<T> out;
    Array<T> packed = tile_rows(event_tiles(in.o.neurons) * packed_rows(rows.inputs, rows.events().count));
    Array<T> trace = out.plane(wanted.save ? in.o.steps : 0);
    Array<T> checkpoints =
        out.plane(wanted.save ? segments(in.o.steps, kEventSegment) * (states_of(in.o.resonant) - 1) : 0);
    Array<T> grad_current = out.plane(wanted.grad_current ? in.o.steps : 0);
    Array<T> grad_weight = weight_like(wanted.grad_weight ? rows.inputs : 0);
    Array<T> weight_partials = partials(wanted.grad_weight ? rows.inputs : 0);

    EventsCall(const CellInputs<T>& in, const EventRows<T>& rows, const Wanted& wanted, int poison)
        : in(in), rows(rows), wanted(wanted), out(in, poison) {}

    Array<T> weight_like(int64_t inputs) const { return Array<T>(in.o.neurons * inputs, out.poison); }
    Array<T> tile_rows(int64_t count) const { return Array<T>(count * event_tile_width(in.o.neurons), out.poison); }
    Array<T> partials(int64_t inputs) const {
        return tile_rows(event_tiles(in.o.neurons) * event_groups(in.o.batch, in.o.neurons) * inputs);
    }

    EventsForward<T> forward_arguments(const Array<T>& weight, int threads) {
        return {{out.forward(threads), trace.data(), checkpoints.data(), in.o.parameters},
                {rows.events(), weight.data(), packed.data(), false}};
    }
    EventsBackward<T> backward_arguments(int threads) {
        return {{out.backward(threads), trace.data(), checkpoints.data(), in.i0.data_if(in.o.initial_state),
                 grad_current.data()},
                {rows.events(), grad_weight.data(), weight_partials.data()}};
    }
    int64_t forward(const Kernels& kernels, const Array<T>& weight, int threads) {
        return kernels.of<T>().events_forward(forward_arguments(weight, threads));
    }
    int64_t backward(const Kernels& kernels, int threads) {
        return kernels.of<T>().events_backward(backward_arguments(threads));
    }

    // The kernels must report `invalid` as the first invalid sample, or -1 if all are valid. In that case, returns the
    // results.
    Result<T> run(const Kernels& kernels, const Array<T>& weight, int threads, int64_t invalid = -1) {
        Result<T> result;
        CHECK(forward(kernels, weight, threads) == invalid);
        if (wanted.save) CHECK(backward(kernels, threads) == invalid);
        if (invalid >= 0) return result;
        out.add_forward(result);
        if (!wanted.save) return result;
        out.add_backward(result);
        result.add(grad_current);
        result.add(grad_weight);
        return result;
    }
};

template <class T>
Result<T> run(const Kernels& kernels, const CellInputs<T>& in, const EventRows<T>& rows, const Array<T>& weight,
              const Wanted& wanted, int threads, int poison) {
    return EventsCall<T>(in, rows, wanted, poison).run(kernels, weight, threads);
}

// The gradients of the events' values, and of a dense input; none if the kernels refuse sample `invalid`.
template <class T>
Result<T> dots(const Kernels& kernels, const CellInputs<T>& in, const EventRows<T>& rows, const Array<T>& weight_t,
               const Array<T>& grad_current, int threads, int poison, int64_t invalid = -1) {
    Array<T> grad_values(rows.indices.size(), poison), grad_input(in.o.steps * in.o.batch * rows.inputs, poison);
    Result<T> result;
    EventDots<T> p = {in.shape(threads), rows.events(), weight_t.data(), grad_current.data(), nullptr, nullptr};
    p.grad_values = grad_values.data();
    CHECK(kernels.of<T>().event_dots(p) == invalid);
    if (invalid < 0) result.add(grad_values);
    p.grad_values = nullptr;
    p.grad_input = grad_input.data();
    if (!p.grad_input) return result;
    CHECK(kernels.of<T>().event_dots(p) == invalid);
    if (invalid < 0) result.add(grad_input);
    return result;
}

// A number of inputs, for the fuzz targets.
inline int64_t input_count(Input& in, const CellOptions& o) {
    return o.neurons > 1000 ? 0 : in.rarely(16) ? in.size(200) : in.size(24);
}

// Calls check(steps, batch, neurons, inputs, number) for small and awkward shapes, numbered from 1.
template <class Check>
void for_each_event_shape(const std::vector<int64_t>& neuron_counts, Check check) {
    uint64_t number = 0;
    for (const int64_t steps : {0, 1, 31, 32, 33, 70})
        for (const int64_t batch : {0, 1, 3})
            for (const int64_t neurons : neuron_counts)
                for (const int64_t inputs : {0, 1, 5, 70}) check(steps, batch, neurons, inputs, ++number);
}

}  // namespace srcell
