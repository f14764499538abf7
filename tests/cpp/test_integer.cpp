// Integer neurons on every ISA and in the device code against their definition in 64-bit integers: any constants,
// extreme weights, more events than 16 bits count, lengths, states; their gradients; and invalid batches.
#include <limits>

#include "integer_problem.h"

using namespace srcell;

namespace {

constexpr SpikesAs kAllKinds[] = {SpikesAs::bytes, SpikesAs::floats, SpikesAs::floats_with_slopes};
constexpr int64_t kWeightSizes[] = {1, 8, 512, 32768};

IntegerCell cell_of(uint64_t number, Numbers& numbers) {
    return number % 3 ? any_cell([&](int64_t limit) { return numbers.below(limit); }) : hardware_cell();
}

// The slopes are the surrogate's, in double. In units of 2^-24: each tanh and what it takes are off by 2.9, so
// the two factors by 6.3, and the four further roundings by 1 each.
void check_slopes(const IntegerProblem& q, const IntegerModel& model, const Array<float>& slopes) {
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

// The gradients are those of the leaky sum, in double. Each step rounds twice, and what is below 2^-100 becomes zero.
void check_grad_current(const IntegerProblem& q, const Array<float>& slopes, const Array<float>& grad_current) {
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

// The gradient of a weight is the sum of those of the currents at its input's events; each addition rounds once.
void check_grad_weight(const IntegerProblem& q, const IntegerGradients& made) {
    std::vector<double> sum(static_cast<size_t>(q.weight.size())), size(sum), terms(sum);
    for (int64_t row = 0; row < q.o.batch * q.o.steps; ++row)
        for (int64_t e = q.rows.offsets[row]; e < q.rows.offsets[row + 1]; ++e)
            for (int64_t n = 0; n < q.o.neurons; ++n) {
                const int64_t sample = row / q.o.steps, t = row % q.o.steps;
                const double term = double(made.current[t * q.plane() + sample * q.o.neurons + n]);
                const auto k = static_cast<size_t>(n * q.rows.inputs + q.rows.indices[e]);
                sum[k] += term;
                size[k] += std::fabs(term);
                terms[k] += 1;
            }
    for (size_t k = 0; k < sum.size(); ++k)
        CHECK(std::fabs(sum[k] - double(made.weight[static_cast<int64_t>(k)])) <=
              2 * (terms[k] + 1) * (0x1p-24 * size[k] + 0x1p-149));
}

Result<float> bits_of(const Array<float>& x) {
    Result<float> result;
    result.add(x);
    return result;
}

// The slopes and gradients of the scalar table.
struct Derivatives {
    Result<float> slopes, grad_current, grad_weight;

    Derivatives(const IntegerProblem& q, const IntegerModel& model) {
        IntegerOutputs out(q, SpikesAs::floats_with_slopes, kPoison);
        CHECK(integer_forward(*kernels_scalar(), out, 1, kPoison) == -1);
        int64_t invalid;
        const IntegerGradients made =
            integer_backward(*kernels_scalar(), q, out.slopes, {true, true, true}, 1, kPoison, invalid);
        CHECK(invalid == -1);
        check_slopes(q, model, out.slopes);
        check_grad_current(q, out.slopes, made.current);
        check_grad_weight(q, made);
        slopes = bits_of(out.slopes);
        grad_current = bits_of(made.current);
        grad_weight = bits_of(made.weight);
    }
};

void check_table(const Kernels& kernels, const IntegerProblem& q, const IntegerOutcome& expected,
                 const Derivatives& derivatives, int threads) {
    Array<int16_t> packed = q.packed_weights();
    for (const SpikesAs as : kAllKinds) {
        IntegerOutputs out(q, as, kOtherPoison);
        CHECK(integer_forward(kernels, out, threads, kOtherPoison) == -1);
        CHECK(out.outcome() == expected);
        // Sums in the smallest and in the largest parts.
        for (const int64_t exact : {int64_t(1), q.exact()}) {
            IntegerOutputs of_packed(q, as, kPoison);
            CHECK(integer_forward(kernels, of_packed, threads, packed, exact) == -1);
            CHECK(of_packed.outcome() == expected);
        }
        if (as != SpikesAs::floats_with_slopes) continue;
        CHECK(bits_of(out.slopes) == derivatives.slopes);
        for (const Wanted& wanted : {Wanted{true, true, true}, {true, true, false}, {true, false, true}}) {
            int64_t invalid;
            const IntegerGradients made =
                integer_backward(kernels, q, out.slopes, wanted, threads, kOtherPoison, invalid);
            CHECK(invalid == -1);
            if (wanted.grad_current) CHECK(bits_of(made.current) == derivatives.grad_current);
            if (wanted.grad_weight) CHECK(bits_of(made.weight) == derivatives.grad_weight);
        }
    }
}

void check_device(const Card& card, const IntegerProblem& q, const IntegerOutcome& expected,
                  const Derivatives& derivatives, bool masked) {
    for (const SpikesAs as : kAllKinds) {
        IntegerOutputs out(q, as, kOtherPoison);
        out.clamped = 1000;
        integer_forward_on(card, out, masked);
        out.clamped -= 1000;
        CHECK(out.outcome() == expected);
        if (as != SpikesAs::floats_with_slopes) continue;
        CHECK(bits_of(out.slopes) == derivatives.slopes);
        CHECK(bits_of(integer_backward_on(card, q, out.slopes, kOtherPoison)) == derivatives.grad_current);
    }
}

void check_everywhere(const IntegerProblem& q) {
    const IntegerModel model(q, q.rows);
    const Derivatives derivatives(q, model);
    for_each_table(
        [&](const Kernels& kernels, int threads) { check_table(kernels, q, model.outcome, derivatives, threads); });
    for (const Card& card : kCards) check_device(card, q, model.outcome, derivatives, false);
}

// Rows that a dense input can have, as its mask.
void check_masked(IntegerProblem& q) {
    q.rows = q.rows.tidy();
    const IntegerModel model(q, q.rows);
    const Derivatives derivatives(q, model);
    for (const Card& card : kCards) check_device(card, q, model.outcome, derivatives, true);
}

CellOptions options(int64_t steps, int64_t batch, int64_t neurons, bool initial_state, bool lengths) {
    CellOptions o = {steps, batch, neurons, false, false, false, false, initial_state, false, false, {}};
    if (lengths) o.lengths = wild_lengths(batch, steps);
    return o;
}

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
    for_each_event_shape({0, 1, 16, 33, 130},
                         [](int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
                             Options bits(number);
                             Numbers numbers(number);
                             const CellOptions o = options(steps, batch, neurons, bits.next(), bits.next());
                             // With few events the weights are packed event by event.
                             const int64_t most = bits.next() ? inputs / 2 + 3 : 1;
                             IntegerProblem q(o, cell_of(number, numbers), any_rows(o, inputs, most, numbers),
                                              kWeightSizes[number % 4], numbers);
                             check_everywhere(q);
                             check_masked(q);
                         });
}

void many_numbers_of_neurons_agree() {
    for (int64_t neurons = 1; neurons <= 300; neurons += neurons < 40 ? 1 : 13) {
        const auto number = static_cast<uint64_t>(neurons);
        Numbers numbers(number + 1000);
        const CellOptions o = options(5, 2, neurons, neurons % 2, false);
        check_everywhere({o, cell_of(number, numbers), any_rows(o, 40, neurons % 5 ? 12 : 1, numbers),
                          kWeightSizes[number % 4], numbers});
    }
}

// Many samples and tiles, so that a group of samples holds several.
void groups_agree() {
    uint64_t number = 0;
    for (const int64_t batch : {16, 40})
        for (const int64_t neurons : {5, 300}) {
            Numbers numbers(++number);
            const CellOptions o = options(3, batch, neurons, true, false);
            check_everywhere({o, cell_of(number, numbers), any_rows(o, 9, 12, numbers), 8, numbers});
        }
}

// Sums of 70,001 weights: beyond 16 bits whatever their size, and beyond 32 for the largest.
void any_number_of_events_is_summed() {
    const int64_t events = 70001;
    for (const int64_t size : kWeightSizes)
        for (const int64_t neurons : {3, 130}) {
            const int64_t inputs = neurons == 3 ? 1 : 40;
            Numbers numbers(static_cast<uint64_t>(size + neurons));
            const CellOptions o = options(3, 1, neurons, false, false);
            Array<int32_t> indices(events + 2);
            for (int32_t& index : indices) index = static_cast<int32_t>(numbers.below(inputs));
            const std::vector<int64_t> offsets = {0, 1, events + 1, events + 2};
            check_everywhere({o,
                              hardware_cell(),
                              {Array<int64_t>(offsets), std::move(indices), Array<float>(0), inputs, false},
                              size,
                              numbers});
        }
}

// More steps than 16 bits count, in each of which every i leaves its bounds.
void every_clamp_is_counted() {
    const int64_t steps = 40000, neurons = 20;
    const CellOptions o = options(steps, 1, neurons, false, false);
    Array<int64_t> offsets(steps + 1);
    for (int64_t row = 0; row <= steps; ++row) offsets[row] = row;
    Array<int32_t> indices(steps);
    std::fill(indices.begin(), indices.end(), 0);
    IntegerCell cell = hardware_cell();
    cell.i_max = 100;
    Numbers numbers(1);
    IntegerProblem q(o, cell, {std::move(offsets), std::move(indices), Array<float>(0), 1, false}, 512, numbers);
    std::fill(q.weight.begin(), q.weight.end(), int16_t(-300));
    for_each_table([&](const Kernels& kernels, int threads) {
        IntegerOutputs out(q, SpikesAs::bytes, kPoison);
        CHECK(integer_forward(kernels, out, threads, kPoison) == -1);
        CHECK(out.clamped == steps * neurons);
    });
}

// Makes a valid batch invalid: offsets[at] or indices[at] becomes `value`.
struct Corruption {
    bool offset;
    int64_t at, value, first_invalid;

    // Puts a value there and returns the one before it.
    int64_t put(EventRows<float>& rows, int64_t x) const {
        return offset ? std::exchange(rows.offsets[at], x) : std::exchange(rows.indices[at], static_cast<int32_t>(x));
    }
};

std::vector<Corruption> corruptions(const CellOptions& o, const EventRows<float>& rows) {
    const int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
    const int64_t steps = o.steps, count = rows.indices.size();
    std::vector<Corruption> made;
    for (const int64_t value : {least, int64_t(-1), count + 1, most}) {
        made.push_back({true, 0, value, 0});
        made.push_back({true, steps, value, 0});
        made.push_back({true, steps + 2, value, 1});
        made.push_back({true, o.batch * steps, value, 2});
    }
    made.push_back({true, 2 * steps + 1, 0, 2});      // below the offset before it
    made.push_back({true, 2 * steps + 2, count, 2});  // above the offset after it
    for (const int64_t value : {int64_t(-1), rows.inputs, int64_t(INT32_MIN), int64_t(INT32_MAX)})
        for (const int64_t event : {int64_t(0), count / 2, count - 1}) {
            int64_t sample = 0;
            while (rows.offsets[(sample + 1) * steps] <= event) ++sample;
            made.push_back({false, event, value, sample});
        }
    return made;
}

// Few events of many inputs are packed event by event, before their indices are checked.
void corrupt_batches_are_refused(int64_t inputs) {
    const CellOptions o = options(5, 3, 130, true, false);
    Numbers numbers(1);
    IntegerProblem q(o, hardware_cell(), any_rows(o, inputs, 6, numbers), 512, numbers);
    CHECK(packs_by_event(inputs, q.rows.indices.size()) == (inputs > 100));
    Array<int16_t> packed = q.packed_weights();
    for (const Corruption& c : corruptions(o, q.rows)) {
        const int64_t before = c.put(q.rows, c.value);
        for_each_table([&](const Kernels& kernels, int threads) {
            IntegerOutputs out(q, SpikesAs::floats_with_slopes, kOtherPoison);
            CHECK(integer_forward(kernels, out, threads, kPoison) == c.first_invalid);
            CHECK(integer_forward(kernels, out, threads, packed, q.exact()) == c.first_invalid);
            int64_t invalid;
            integer_backward(kernels, q, out.slopes, {true, true, true}, threads, kPoison, invalid);
            CHECK(invalid == c.first_invalid);
        });
        // The device code takes what it can.
        for (const Card& card : kCards) {
            IntegerOutputs out(q, SpikesAs::bytes, kOtherPoison);
            integer_forward_on(card, out, false);
            for (const uint8_t spike : out.spikes) CHECK(spike <= 1);
        }
        c.put(q.rows, before);
    }
}

void events_that_change_during_a_call_are_survived(bool by_event) {
    Numbers numbers(1);
    CellOptions o = options(40, 4, 150, true, false);
    o.lengths = wild_lengths(4, 40);
    IntegerProblem q(o, hardware_cell(), any_rows(o, by_event ? 4000 : 6, 4, numbers), 512, numbers);
    CHECK(packs_by_event(q.rows.inputs, q.rows.indices.size()) == by_event);
    for (const Kernels* kernels : available_kernels()) {
        IntegerOutputs out(q, SpikesAs::floats_with_slopes, kPoison);
        const Meddler meddler(q.rows.offsets, q.rows.indices, q.lengths);
        calls_survive([&] { return integer_forward(*kernels, out, 1, kPoison); });
        calls_survive([&] {
            int64_t invalid;
            integer_backward(*kernels, q, out.slopes, {true, true, true}, 1, kPoison, invalid);
            return invalid;
        });
    }
}

// Without inputs no event is valid; without steps the only offset is checked; without neurons nothing is.
void empty_batches_are_checked() {
    Numbers numbers(1);
    const CellOptions o = options(2, 2, 3, false, false);
    IntegerProblem q(o, hardware_cell(), any_rows(o, 0, 0, numbers), 8, numbers);
    for_each_table([&](const Kernels& kernels, int threads) {
        IntegerOutputs out(q, SpikesAs::bytes, kPoison);
        CHECK(integer_forward(kernels, out, threads, kPoison) == -1);
        q.rows.indices = Array<int32_t>(std::vector<int32_t>{0});
        q.rows.offsets[4] = 1;
        CHECK(integer_forward(kernels, out, threads, kPoison) == 1);
        q.o.steps = 0;
        q.rows.offsets[0] = 2;
        CHECK(integer_forward(kernels, out, threads, kPoison) == 0);
        q.o.neurons = 0;
        CHECK(integer_forward(kernels, out, threads, kPoison) == -1);
        CHECK(out.clamped == 0);
        q.rows = any_rows(o, 0, 0, numbers);
        q.o = o;
    });
}

}  // namespace

int main() {
    standard_constants_are_accepted();
    for (const bool by_event : {false, true}) events_that_change_during_a_call_are_survived(by_event);
    shapes_agree();
    many_numbers_of_neurons_agree();
    groups_agree();
    any_number_of_events_is_summed();
    every_clamp_is_counted();
    corrupt_batches_are_refused(6);
    corrupt_batches_are_refused(500);
    empty_batches_are_checked();
    std::printf("integer: passed\n");
}
