// Integer neurons on every ISA and in the device code, for the sanitizers: small and awkward shapes, more events than
// 16 bits can count, invalid rows, and rows that change during a call.
#include "integer_property.h"

using namespace srcell;

namespace {

const std::vector<SpikesAs> kAllKinds = {SpikesAs::bytes, SpikesAs::floats, SpikesAs::floats_with_slopes};

void standard_constants_are_accepted() {
    CHECK(!integer_cell_fault(hardware_cell()).expected);
    CHECK(integer_alpha(hardware_cell()) == 0.90625f);
    Numbers numbers(1);
    for (int k = 0; k < 10000; ++k) {
        const IntegerCell cell = any_cell([&](int64_t limit) { return numbers.below(limit); });
        CHECK(!integer_cell_fault(cell).expected);
        for (const IntegerConstant& c : kIntegerConstants) CHECK(cell.*c.member >= c.least && cell.*c.member <= c.most);
    }
}

void shapes_agree() {
    int valid = 0;
    for_each_event_shape({0, 1, 16, 33, 130},
                         [&](int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
                             for (const uint64_t more : {0, 1000, 2000}) {
                                 Input in(number + more);
                                 valid += any_neurons_agree(in, cell_options(in, steps, batch, neurons), inputs);
                             }
                         });
    CHECK(valid > 240);
    for (int64_t neurons = 1; neurons <= 300; neurons += neurons < 40 ? 1 : 13) {
        Input in(static_cast<uint64_t>(1000 + neurons));
        any_neurons_agree(in, cell_options(in, 5, 2, neurons), 40);
    }
    // Many samples and tiles, so that a group of samples holds more than one.
    for (const int64_t batch : {16, 40})
        for (const int64_t neurons : {5, 300}) {
            Input in(static_cast<uint64_t>(batch + neurons));
            any_neurons_agree(in, cell_options(in, 3, batch, neurons), 9);
        }
}

// Sums of 70,001 weights: beyond 16 bits whatever the weights, and beyond 32 bits for the largest weights.
void any_number_of_events_is_summed() {
    const int64_t events = 70001;
    for (const int64_t size : {1, 8, 512, 32768})
        for (const int64_t neurons : {3, 130}) {
            const int64_t inputs = neurons == 3 ? 1 : 40;
            Numbers numbers(static_cast<uint64_t>(size + neurons));
            const CellOptions o = {3, 1, neurons, false, false, false, false, false, false, false, {}};
            Array<int32_t> indices(events + 2);
            for (int32_t& index : indices) index = static_cast<int32_t>(numbers.below(inputs));
            const std::vector<int64_t> offsets = {0, 1, events + 1, events + 2};
            Input in(1);
            neurons_agree(in,
                          {o,
                           hardware_cell(),
                           {Array<int64_t>(offsets), std::move(indices), Array<float>(events + 2), inputs, false},
                           size,
                           numbers},
                          kAllKinds, false);
        }
}

// More steps than 16 bits can count; in each step every i leaves its bounds.
void every_clamp_is_counted() {
    const int64_t steps = 40000, neurons = 20;
    const CellOptions o = {steps, 1, neurons, false, false, false, false, false, false, false, {}};
    Array<int64_t> offsets(steps + 1);
    for (int64_t row = 0; row <= steps; ++row) offsets[row] = row;
    Array<int32_t> indices(steps);
    std::fill(indices.begin(), indices.end(), 0);
    IntegerCell cell = hardware_cell();
    cell.i_max = 100;
    Numbers numbers(1);
    IntegerProblem q(o, cell, {std::move(offsets), std::move(indices), Array<float>(steps), 1, false}, 512, numbers);
    std::fill(q.weight.begin(), q.weight.end(), int16_t(-300));
    for_each_table([&](const Kernels& kernels, int threads) {
        IntegerOutputs out(q, SpikesAs::bytes, kPoison);
        CHECK(integer_forward(kernels, out, threads, kPoison) == -1);
        CHECK(out.clamped == steps * neurons);
    });
}

// If there are few events and many inputs, weights are packed event by event, before the events' indices are checked.
void invalid_rows_are_refused(int64_t inputs) {
    const CellOptions o = {5, 3, 130, false, false, false, false, true, false, false, {}};
    Numbers numbers(2);
    Input in(1);
    IntegerProblem q(o, hardware_cell(), EventRows<float>(o, inputs, 6, false, numbers), 512, numbers);
    CHECK(packs_by_event(inputs, q.rows.indices.size()) == (inputs > 100));
    for_each_corruption(o, q.rows, [&] { CHECK(!neurons_agree(in, q, {SpikesAs::floats_with_slopes}, false)); });
}

void kernels_survive_events_that_change_during_a_call(bool by_event) {
    Numbers numbers(1);
    const int64_t steps = by_event ? 8 : 40, inputs = by_event ? 700 : 6;  // more of both would take half a minute
    const CellOptions o = {steps, 4, 150, false, false, false, false, true, false, false, wild_lengths(4, steps)};
    IntegerProblem q(o, hardware_cell(), EventRows<float>(o, inputs, 4, false, numbers), 512, numbers);
    CHECK(packs_by_event(q.rows.inputs, q.rows.indices.size()) == by_event);
    for (const Kernels* kernels : available_kernels()) {
        IntegerOutputs out(q, SpikesAs::floats_with_slopes, kPoison);
        const ConcurrentWriter writer(q.rows.offsets, q.rows.indices, q.lengths);
        expect_both_outcomes([&] { return integer_forward(*kernels, out, 1, kPoison); });
        expect_both_outcomes(
            [&] { return integer_backward(*kernels, q, out.slopes, {true, true, true}, 1, kPoison).invalid; });
    }
}

}  // namespace

int main() {
    standard_constants_are_accepted();
    for (const bool by_event : {false, true}) kernels_survive_events_that_change_during_a_call(by_event);
    shapes_agree();
    any_number_of_events_is_summed();
    every_clamp_is_counted();
    invalid_rows_are_refused(6);
    invalid_rows_are_refused(500);
    std::printf("integer: passed\n");
}
