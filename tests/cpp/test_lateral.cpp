// Every ISA's kernels for layers with recurrent weights, for the sanitizers. On small and awkward shapes the results
// are compared with the scalar table of kernels and with the scan of the summed currents. Given currents are compared
// with the events that make them, and recurrent weights of 0 with the kernels without recurrent weights. Half of the
// calls have delays, whose results are compared among the tables alone: the tests in Python compare them with autograd.
// Also tests invalid rows, and delays that another thread writes into.
#include "events_problem.h"

using namespace srcell;

namespace {

// Delays of recurrent weights, with what is on its way before and after a call. Without terms there are no delays.
struct DelaySizes {
    int64_t terms, past_steps;
    uint64_t seed;
};

template <class T>
struct DelaysCall {
    int64_t terms, past_steps;
    Array<int32_t> first, later;
    Array<T> factors, past0, past, grad_past, grad_past0, grad_factors, partials;

    DelaysCall(const CellOptions& o, const DelaySizes& sizes, Numbers numbers)
        : terms(sizes.terms),
          past_steps(terms ? sizes.past_steps : 0),
          first(terms ? o.neurons : 0),
          later(terms * o.neurons),
          factors(numbers.array<T>(terms * o.neurons)),
          past0(numbers.array<T>(o.batch * this->past_steps * o.neurons)),
          past(past0.size()),
          grad_past(numbers.array<T>(past0.size())),
          grad_past0(past0.size()),
          grad_factors(factors.size()),
          partials(o.batch * factors.size()) {
        for (int64_t k = 0; k < first.size(); ++k)  // some terms would arrive before they leave
            first[k] = static_cast<int32_t>(numbers.below(past_steps - terms + 2) - (k % 3 == 0));
        for (int64_t k = 0; k < factors.size(); k += 5) factors[k] = 0;
        for (int64_t k = 0; k < past0.size(); ++k)
            if (k % 7) past0[k] = 0;
    }

    LateralDelays<T> delays(int64_t neurons, bool keep_zeros) {
        return {{neurons, 1, terms, first.data(), factors.data(), keep_zeros}, past_steps, later.data(), past0.data()};
    }
};

// The arrays of the forward and the backward pass of one call, over given currents or over events.
template <class T>
struct LateralCall : EventsCall<T> {
    const bool has_events, relu, grad_weights;
    Array<T> packed_lateral = this->weight_like(lateral_width(this->in.o.neurons));
    Array<T> grad_lateral = this->weight_like(grad_weights ? this->in.o.neurons : 0);
    Array<T> lateral_partials = this->partials(grad_weights ? this->in.o.neurons : 0);
    DelaysCall<T> of_delays;

    LateralCall(const CellInputs<T>& in, const EventRows<T>& rows, bool has_events, bool relu, bool grad_weights,
                const DelaySizes& delays, int poison)
        : EventsCall<T>(in, rows, {true, true, has_events && grad_weights}, poison),
          has_events(has_events),
          relu(relu),
          grad_weights(grad_weights),
          of_delays(in.o, delays, Numbers(delays.seed)) {}

    int64_t forward(const Kernels& kernels, const Array<T>& weight, const Array<T>& current, Array<T>& lateral,
                    int threads) {
        const EventsForward<T> on_events = this->forward_arguments(weight, threads);
        LateralForward<T> p = {on_events, GivenCurrents<T>{current.data()}, {}, {}, nullptr, nullptr};
        if (has_events) p.source = on_events.synapse;
        p.lateral = {lateral.data(), packed_lateral.data(), relu, false};
        if (of_delays.terms) p.delays = {of_delays.delays(this->in.o.neurons, false), of_delays.past.data()};
        return kernels.of<T>().lateral_forward(p);
    }

    int64_t backward(const Kernels& kernels, Array<T>& lateral, int threads) {
        const EventsBackward<T> on_events = this->backward_arguments(threads);
        LateralBackward<T> p = {on_events, {}, {}, grad_lateral.data(), lateral_partials.data(), {}};
        if (has_events) p.synapse = on_events.synapse;
        p.lateral = {lateral.data(), packed_lateral.data(), relu, false};
        if (of_delays.terms)
            p.delays = {of_delays.delays(this->in.o.neurons, true), of_delays.grad_past.data(),
                        of_delays.grad_past0.data(), of_delays.grad_factors.data(), of_delays.partials.data()};
        return kernels.of<T>().lateral_backward(p);
    }

    // The results without the weight's gradient: with given currents there is no weight.
    Result<T> result() const {
        Result<T> all;
        this->out.add_forward(all);
        this->out.add_backward(all);
        all.add(this->grad_current);
        all.add(grad_lateral);
        all.add(of_delays.past);
        all.add(of_delays.grad_past0);
        all.add(of_delays.grad_factors);
        return all;
    }
};

// The forward pass equals the scan of the summed currents: to each given current is added, neuron by neuron, weight
// times spike of step t-1.
template <class T>
void check_forward(const CellInputs<T>& cell, const LateralCall<T>& call, const Array<T>& lateral, Array<T> current) {
    const int64_t neurons = cell.o.neurons, plane = cell.o.plane();
    for (int64_t at = 0; at < current.size(); ++at)
        for (int64_t m = 0; m < neurons; ++m) {
            const int64_t from = at / neurons * neurons + m;  // neuron m of the same sample and step
            const T initial = cell.o.initial_state ? cell.h0[from % plane] : T(0);
            const T spike = at < plane ? (initial <= 0 ? T(0) : initial) : call.out.spikes[from - plane];
            if (spike != 0) current[at] = std::fma(spike, lateral[at % neurons * neurons + m], current[at]);
        }
    ScanCall<T> scanned(cell, current, false, kPoison);
    const Result<T> expected = scanned.run(*kernels_scalar(), 1);
    Result<T> got;
    call.out.add_forward(got);
    CHECK(got == expected);
}

template <class T>
void passes_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Input in(number);
    const CellOptions any = cell_options(in, steps, batch, neurons), o = clamped(any);
    const bool relu = in.bit(), grad_weights = in.bit() || in.bit(), zero = in.bit() && in.bit();
    // Without special values: a spike of infinity times a weight of 0 would be NaN.
    CellInputs<T> cell = zero ? CellInputs<T>(o, number) : CellInputs<T>(in, o, number);
    const EventRows<T> rows(o, inputs, in.bit(), cell.numbers);
    const Array<T> weight = cell.numbers.template array<T>(neurons * inputs);
    Array<T> lateral = cell.numbers.template array<T>(neurons * neurons);
    if (zero) std::fill(lateral.begin(), lateral.end(), T(0));
    const int64_t terms = number % 2 ? 0 : number % 4 ? 1 : 2;
    const DelaySizes delays = {terms, number % 3 ? 9 : 90, number};
    const Array<T> current = currents(o, rows, weight);

    const auto run = [&](LateralCall<T>& call, const Kernels& kernels, int threads) {
        CHECK(call.forward(kernels, weight, current, lateral, threads) == -1);
        CHECK(call.backward(kernels, lateral, threads) == -1);
    };
    LateralCall<T> expected(cell, rows, true, relu, grad_weights, delays, kPoison);
    run(expected, *kernels_scalar(), 1);
    if (!terms) check_forward(cell, expected, lateral, currents(o, rows, weight));
    cell.lengths = Array<int64_t>(any.lengths);
    for_each_table([&](const Kernels& kernels, int threads) {
        for (const bool has_events : {true, false}) {
            LateralCall<T> call(cell, rows, has_events, relu, grad_weights, delays, kOtherPoison);
            run(call, kernels, threads);
            CHECK(call.result() == expected.result());
            CHECK(!has_events || same(call.grad_weight, expected.grad_weight));
        }
    });
    if (!zero || terms) return;
    EventsCall<T> without(cell, rows, {true, true, grad_weights}, kPoison);
    without.run(*kernels_scalar(), weight, 1);
    CHECK(same(expected.grad_current, without.grad_current));
    CHECK(same(expected.grad_weight, without.grad_weight));
}

void shapes_agree() {
    uint64_t number = 0;
    for (const int64_t steps : {0, 1, 33, 70})
        for (const int64_t batch : {0, 1, 3})
            for (const int64_t neurons : {0, 1, 17, 128, 130})
                for (const int64_t inputs : {0, 5}) {
                    passes_agree<float>(steps, batch, neurons, inputs, ++number);
                    passes_agree<double>(steps, batch, neurons, inputs, number + 1000);
                }
    passes_agree<float>(300, 2, 260, 9, ++number);  // more than one block of steps, in several tiles
    passes_agree<float>(3, 40, 130, 9, ++number);   // several samples a group
}

void invalid_rows_are_refused() {
    const CellOptions o = {5, 3, 130, true, true, true, true, true, true, true, {}};
    CellInputs<float> in(o);
    EventRows<float> rows(o, 6, false, in.numbers);
    const Array<float> weight = in.numbers.array<float>(o.neurons * 6), current(0);
    Array<float> lateral = in.numbers.array<float>(o.neurons * o.neurons);
    rows.indices[rows.indices.size() - 1] = 6;
    for_each_table([&](const Kernels& kernels, int threads) {
        LateralCall<float> call(in, rows, true, true, true, {0, 0, 0}, kPoison);
        CHECK(call.forward(kernels, weight, current, lateral, threads) == 2);
        CHECK(call.backward(kernels, lateral, threads) == 2);
    });
}

void kernels_survive_events_that_change_during_a_call(int64_t neurons, int64_t terms) {
    const CellOptions o = {40, 4, neurons, true, true, true, true, true, true, true, wild_lengths(4, 40)};
    CellInputs<float> in(o);
    EventRows<float> rows(o, 5, true, in.numbers);
    const Array<float> weight = in.numbers.array<float>(neurons * 5), current(0);
    Array<float> lateral = in.numbers.array<float>(neurons * neurons);
    for (const Kernels* kernels : available_kernels()) {
        LateralCall<float> call(in, rows, true, true, true, {terms, 12, 3}, kPoison);
        Array<int32_t> none(1);
        const ConcurrentWriter writer(rows.offsets, rows.indices, in.lengths, terms ? call.of_delays.first : none);
        expect_both_outcomes([&] { return call.forward(*kernels, weight, current, lateral, 1); });
        expect_both_outcomes([&] { return call.backward(*kernels, lateral, 1); });
    }
}

}  // namespace

int main() {
    shapes_agree();
    for (const int64_t neurons : {20, 150})
        for (const int64_t terms : {0, 2}) kernels_survive_events_that_change_during_a_call(neurons, terms);
    invalid_rows_are_refused();
    std::printf("lateral: passed\n");
}
