// Every ISA's kernels of layers with lateral weights, for the sanitizers: on small and awkward shapes against the
// scalar table, with given currents against the events that make them, with weights of 0 against the kernels without,
// and on invalid batches.
#include "events_problem.h"

using namespace srcell;

namespace {

// The arrays of the forward and the backward pass of one call, each of exactly its promised size.
template <class T>
struct LateralCall {
    const CellInputs<T>& in;
    const EventRows<T>* rows;  // or null: `current` is given
    const bool relu, grad_weights;
    CellOutputs<T> out;
    Array<T> packed, packed_lateral, trace, checkpoints, grad_current, grad_weight, weight_partials, grad_lateral,
        lateral_partials;

    LateralCall(const CellInputs<T>& in, const EventRows<T>* rows, bool relu, bool grad_weights, int poison)
        : in(in),
          rows(rows),
          relu(relu),
          grad_weights(grad_weights),
          out(in, poison),
          packed(rows ? tiles() * packed_rows(rows->inputs, rows->events().count) * width() : 0, poison),
          packed_lateral(in.o.neurons * lateral_width(in.o.neurons), poison),
          trace(in.o.steps * out.plane(), poison),
          checkpoints(segments(in.o.steps, kEventSegment) * 2 * out.plane(), poison),
          grad_current(in.o.steps * out.plane(), poison),
          grad_weight(rows && grad_weights ? in.o.neurons * rows->inputs : 0, poison),
          weight_partials(rows && grad_weights ? partials(rows->inputs) : 0, poison),
          grad_lateral(grad_weights ? in.o.neurons * in.o.neurons : 0, poison),
          lateral_partials(grad_weights ? partials(in.o.neurons) : 0, poison) {}

    int64_t forward(const Kernels& kernels, const Array<T>& weight, const Array<T>& current, Array<T>& lateral,
                    int threads) {
        LateralForward<T> p = {};
        static_cast<CellForward<T>&>(p) = out.forward(threads);
        if (rows) p.events = rows->events();
        p.weight = weight.data();
        p.packed_weight = packed.data();
        p.trace = trace.data();
        p.checkpoints = checkpoints.data();
        p.trace_integrator = in.o.parameters;
        p.has_events = rows;
        p.current = current.data();
        p.lateral = {lateral.data(), packed_lateral.data(), relu, false};
        return kernels.of<T>().lateral_forward(p);
    }

    int64_t backward(const Kernels& kernels, Array<T>& lateral, int threads) {
        LateralBackward<T> p = {};
        static_cast<CellBackward<T>&>(p) = out.backward(threads);
        if (rows) p.events = rows->events();
        p.has_events = rows;
        p.trace = trace.data();
        p.checkpoints = checkpoints.data();
        p.i0 = in.i0.data_if(in.o.initial_state);
        p.grad_current = grad_current.data();
        p.grad_weight = grad_weight.data();
        p.weight_partials = weight_partials.data();
        p.lateral = {lateral.data(), packed_lateral.data(), relu, false};
        p.grad_lateral = grad_lateral.data();
        p.lateral_partials = lateral_partials.data();
        return kernels.of<T>().lateral_backward(p);
    }

    // Without the weight's gradient, which given currents do not have.
    Result<T> result() const {
        Result<T> all;
        out.add_forward(all);
        out.add_backward(all);
        all.add(grad_current);
        all.add(grad_lateral);
        return all;
    }

  private:
    int64_t tiles() const { return event_tiles(in.o.neurons); }
    int64_t width() const { return event_tile_width(in.o.neurons); }
    int64_t partials(int64_t inputs) const {
        return tiles() * event_groups(in.o.batch, in.o.neurons) * inputs * width();
    }
};

template <class T>
void passes_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Options bits(number);
    CellOptions o = {steps,       batch,       neurons,     bits.next(), bits.next(), bits.next(),
                     bits.next(), bits.next(), bits.next(), bits.next(), {}};
    const bool relu = bits.next(), grad_weights = bits.next() || bits.next(), with_values = bits.next();
    const bool none = bits.next() && bits.next();
    if (bits.next()) o.lengths = clamped(wild_lengths(batch, steps), steps);
    CellInputs<T> in(o);
    const EventRows<T> rows(o, inputs, with_values, in.numbers);
    const Array<T> weight = in.numbers.template array<T>(neurons * inputs);
    Array<T> lateral = in.numbers.template array<T>(neurons * neurons);
    if (none)
        for (T& x : lateral) x = 0;
    const Array<T> current = currents(o, rows, weight);

    LateralCall<T> expected(in, &rows, relu, grad_weights, kPoison);
    CHECK(expected.forward(*kernels_scalar(), weight, current, lateral, 1) == -1);
    CHECK(expected.backward(*kernels_scalar(), lateral, 1) == -1);
    for_each_table([&](const Kernels& kernels, int threads) {
        for (const EventRows<T>* events : {&rows, static_cast<const EventRows<T>*>(nullptr)}) {
            LateralCall<T> call(in, events, relu, grad_weights, kOtherPoison);
            CHECK(call.forward(kernels, weight, current, lateral, threads) == -1);
            CHECK(call.backward(kernels, lateral, threads) == -1);
            CHECK(call.result() == expected.result());
            if (!events) continue;
            Result<T> ours, theirs;
            ours.add(call.grad_weight);
            theirs.add(expected.grad_weight);
            CHECK(ours == theirs);
        }
    });
    if (!none) return;
    EventsCall<T> without(in, rows, {true, true, grad_weights}, kPoison);
    CHECK(without.forward(*kernels_scalar(), weight, 1) == -1);
    CHECK(without.backward(*kernels_scalar(), 1) == -1);
    Result<T> ours, theirs;
    expected.out.add_forward(ours);
    ours.add(expected.grad_current);
    ours.add(expected.grad_weight);
    without.out.add_forward(theirs);
    theirs.add(without.grad_current);
    theirs.add(without.grad_weight);
    CHECK(ours == theirs);
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

void corrupt_batches_are_refused() {
    const CellOptions o = {5, 3, 130, true, true, true, true, true, true, true, {}};
    CellInputs<float> in(o);
    const Array<float> weight = in.numbers.array<float>(o.neurons * 6), current(0);
    Array<float> lateral = in.numbers.array<float>(o.neurons * o.neurons);
    for_each_table([&](const Kernels& kernels, int threads) {
        EventRows<float> rows(o, 6, false, in.numbers);
        CHECK(rows.indices.size() > 0);
        rows.indices[rows.indices.size() - 1] = 6;
        LateralCall<float> call(in, &rows, true, true, kPoison);
        CHECK(call.forward(kernels, weight, current, lateral, threads) == 2);
        CHECK(call.backward(kernels, lateral, threads) == 2);
    });
}

void events_that_change_during_a_call_are_survived(int64_t neurons) {
    const CellOptions o = {40, 4, neurons, true, true, true, true, true, true, true, wild_lengths(4, 40)};
    CellInputs<float> in(o);
    EventRows<float> rows(o, 5, true, in.numbers);
    const Array<float> weight = in.numbers.array<float>(neurons * 5), current(0);
    Array<float> lateral = in.numbers.array<float>(neurons * neurons);
    for (const Kernels* kernels : available_kernels()) {
        LateralCall<float> call(in, &rows, true, true, kPoison);
        const Meddler meddler(rows.offsets, rows.indices, in.lengths);
        calls_survive([&] { return call.forward(*kernels, weight, current, lateral, 1); });
        calls_survive([&] { return call.backward(*kernels, lateral, 1); });
    }
}

}  // namespace

int main() {
    shapes_agree();
    for (const int64_t neurons : {20, 150}) events_that_change_during_a_call_are_survived(neurons);
    corrupt_batches_are_refused();
    std::printf("lateral: passed\n");
}
