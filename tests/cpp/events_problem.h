// A test problem of a layer with events as input: rows of events, and the structs of params.h that point at them. For
// the tests of the kernels on events.
#pragma once

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>

#include "cell_problem.h"

namespace srcell {

template <class T>
int64_t call_forward(const Kernels& kernels, const EventsForward<T>& p) {
    return kernels.of<T>().events_forward(p);
}
template <class T>
int64_t call_backward(const Kernels& kernels, const EventsBackward<T>& p) {
    return kernels.of<T>().events_backward(p);
}
template <class T>
int64_t call_dots(const Kernels& kernels, const EventDots<T>& p) {
    return kernels.of<T>().event_dots(p);
}
template <class T>
bool call_mask(const Kernels& kernels, const DenseInput<T>& p) {
    return kernels.of<T>().mask_events(p);
}
template <class T>
void call_list(const Kernels& kernels, const DenseInput<T>& p, int32_t* indices, T* values) {
    kernels.of<T>().list_events(p, indices, values);
}

// Event rows in any order and with repetitions, some of them empty.
template <class T>
struct EventRows {
    Array<int64_t> offsets;
    Array<int32_t> indices;
    Array<T> values;
    int64_t inputs;
    bool with_values;

    EventRows(const CellOptions& o, int64_t inputs, bool with_values, Numbers& numbers)
        : EventRows(count(o, inputs, numbers), inputs, with_values, numbers) {}

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
    EventRows tidy() const {
        std::vector<int64_t> ends = {0};
        std::vector<int32_t> kept;
        std::vector<T> of_kept;
        for (int64_t row = 0; row + 1 < offsets.size(); ++row) {
            for (int32_t input = 0; input < inputs; ++input)
                for (int64_t e = offsets[row]; e < offsets[row + 1]; ++e) {
                    if (indices[e] != input || (with_values && values[e] == 0)) continue;
                    kept.push_back(input);
                    of_kept.push_back(values[e]);
                    break;
                }
            ends.push_back(static_cast<int64_t>(kept.size()));
        }
        return {Array<int64_t>(ends), Array<int32_t>(kept), Array<T>(of_kept), inputs, with_values};
    }

  private:
    EventRows(const std::vector<int64_t>& ends, int64_t inputs, bool with_values, Numbers& numbers)
        : offsets(ends),
          indices(ends.back()),
          values(numbers.array<T>(ends.back())),
          inputs(inputs),
          with_values(with_values) {
        for (int32_t& index : indices) index = static_cast<int32_t>(numbers.below(inputs));
    }

    static std::vector<int64_t> count(const CellOptions& o, int64_t inputs, Numbers& numbers) {
        std::vector<int64_t> ends = {0};
        for (int64_t row = 0; row < o.batch * o.steps; ++row) {
            const int64_t most = inputs ? inputs / 4 + 3 : 0;
            ends.push_back(ends.back() + (numbers.below(3) && most ? numbers.below(most) : 0));
        }
        return ends;
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

// While it lives, a second thread puts wild values into arrays, one at a time, and takes them out again: what is
// checked at the beginning of a call may be different when it is used.
class Meddler {
  public:
    template <class... Arrays>
    explicit Meddler(Arrays&... arrays) : thread_([&] { run(arrays...); }) {}
    ~Meddler() {
        done_ = true;
        thread_.join();
    }

  private:
    template <class... Arrays>
    void run(Arrays&... arrays) {
        Numbers numbers(7);
        while (!done_) (..., meddle(arrays, numbers));
    }
    template <class Integers>
    static void meddle(Integers& array, Numbers& numbers) {
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

// Makes calls while another thread meddles with the events, until many were refused and many were not.
template <class Call>
void calls_survive(Call call) {
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
    CellOutputs<T> out;
    Array<T> packed, trace, checkpoints, grad_current, grad_weight, weight_partials;

    EventsCall(const CellInputs<T>& in, const EventRows<T>& rows, const Wanted& wanted, int poison)
        : in(in),
          rows(rows),
          out(in, poison),
          packed(tiles() * packed_rows(rows.inputs, rows.events().count) * width(), poison),
          trace(wanted.save ? in.o.steps * out.plane() : 0, poison),
          checkpoints(wanted.save ? segments(in.o.steps, kEventSegment) * 2 * out.plane() : 0, poison),
          grad_current(wanted.grad_current ? in.o.steps * out.plane() : 0, poison),
          grad_weight(wanted.grad_weight ? in.o.neurons * rows.inputs : 0, poison),
          weight_partials(
              wanted.grad_weight ? tiles() * event_groups(in.o.batch, in.o.neurons) * rows.inputs * width() : 0,
              poison) {}

    int64_t forward(const Kernels& kernels, const Array<T>& weight, int threads) {
        return call_forward(kernels, EventsForward<T>{out.forward(threads), rows.events(), weight.data(), packed.data(),
                                                      trace.data(), checkpoints.data(), in.o.parameters, false});
    }

    int64_t backward(const Kernels& kernels, int threads) {
        return call_backward(
            kernels, EventsBackward<T>{out.backward(threads), rows.events(), trace.data(), checkpoints.data(),
                                       in.i0.data_if(in.o.initial_state), grad_current.data(), grad_weight.data(),
                                       weight_partials.data()});
    }

  private:
    int64_t tiles() const { return event_tiles(in.o.neurons); }
    int64_t width() const { return event_tile_width(in.o.neurons); }
};

template <class T>
Result<T> run(const Kernels& kernels, const CellInputs<T>& in, const EventRows<T>& rows, const Array<T>& weight,
              const Wanted& wanted, int threads, int poison) {
    EventsCall<T> call(in, rows, wanted, poison);
    CHECK(call.forward(kernels, weight, threads) == -1);
    Result<T> result;
    call.out.add_forward(result);
    if (!wanted.save) return result;
    CHECK(call.backward(kernels, threads) == -1);
    call.out.add_backward(result);
    result.add(call.grad_current);
    result.add(call.grad_weight);
    return result;
}

// Puts NaN and infinity into some weights, and -infinity and 0 into some values.
template <class T>
void spoil(Array<T>& weight, Array<T>& values) {
    for (int64_t k = 5; k < weight.size(); k += 97) weight[k] = k % 2 ? T(__builtin_nan("")) : T(__builtin_inf());
    for (int64_t k = 11; k < values.size(); k += 101) values[k] = k % 2 ? T(-__builtin_inf()) : T(0);
}

template <class T>
Result<T> dots(const Kernels& kernels, const CellInputs<T>& in, const EventRows<T>& rows, const Array<T>& weight_t,
               const Array<T>& grad_current, int threads, int poison) {
    Array<T> grad_values(rows.indices.size(), poison), grad_input(in.o.steps * in.o.batch * rows.inputs, poison);
    EventDots<T> p = {in.shape(threads), rows.events(), weight_t.data(), grad_current.data(), nullptr, nullptr};
    Result<T> result;
    p.grad_values = grad_values.data();
    call_dots(kernels, p);
    p.grad_values = nullptr;
    p.grad_input = grad_input.data();
    if (p.grad_input) call_dots(kernels, p);
    result.add(grad_values);
    result.add(grad_input);
    return result;
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
