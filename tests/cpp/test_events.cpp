// Every ISA's kernels on events, for the sanitizers: on small and awkward shapes against the scalar table and against
// the scan of the same currents, and on invalid batches.
#include <algorithm>
#include <cmath>
#include <limits>

#include "events_problem.h"

using namespace srcell;

namespace {

// Checks grad_weight, the last of the results: it is the sum over events of value times grad_current, the result before
// it. Each of its additions rounds once.
template <class T>
void check_grad_weight(const CellOptions& o, const EventRows<T>& rows, const Result<T>& result) {
    const int64_t elements = o.neurons * rows.inputs, plane = o.batch * o.neurons;
    const T* const grad_weight = result.all.data() + result.all.size() - elements;
    const T* const grad_current = grad_weight - o.steps * plane;
    std::vector<double> sum(static_cast<size_t>(elements)), magnitude(sum), terms(sum);
    for (int64_t b = 0; b < o.batch; ++b)
        for (int64_t t = 0; t < o.steps; ++t)
            for (int64_t e = rows.offsets[b * o.steps + t]; e < rows.offsets[b * o.steps + t + 1]; ++e)
                for (int64_t n = 0; n < o.neurons; ++n) {
                    const auto k = static_cast<size_t>(n * rows.inputs + rows.indices[e]);
                    const double value = rows.with_values ? double(rows.values[e]) : 1;
                    const double term = value * double(grad_current[t * plane + b * o.neurons + n]);
                    sum[k] += term;
                    magnitude[k] += std::fabs(term);
                    terms[k] += 1;
                }
    const double unit = sizeof(T) == sizeof(float) ? 0x1p-24 : 0x1p-53;
    // Twice, because the sum computed here in double rounds as well. 0x1p-149 is for results below the normal range.
    for (size_t k = 0; k < sum.size(); ++k)
        CHECK(std::fabs(sum[k] - double(grad_weight[k])) <= 2 * (terms[k] + 1) * (unit * magnitude[k] + 0x1p-149));
}

template <class T>
void passes_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Options bits(number);
    CellOptions o = {steps,       batch,       neurons,     bits.next(), bits.next(), bits.next(),
                     bits.next(), bits.next(), bits.next(), bits.next(), {}};
    const Wanted wanted = {bits.next() || bits.next(), bits.next(), bits.next()};
    const bool with_values = bits.next(), lengths = bits.next(), spoilt = bits.next() && bits.next();
    if (lengths) o.lengths = clamped(wild_lengths(batch, steps), steps);
    CellInputs<T> in(o);
    EventRows<T> rows(o, inputs, with_values, in.numbers);
    Array<T> weight = in.numbers.template array<T>(neurons * inputs);
    if (spoilt) spoil(weight, rows.values);
    const Result<T> expected = run(*kernels_scalar(), in, rows, weight, wanted, 1, kPoison);

    // The scan of the same currents gives the same bits; it has no gradient of the weight.
    Result<T> scanned = scan(*kernels_scalar(), in, currents(o, rows, weight), wanted.save, 1, kPoison);
    if (wanted.save && !wanted.grad_current) scanned.all.resize(scanned.all.size() - steps * batch * neurons);
    Result<T> compared = expected;
    CHECK(compared.all.size() >= scanned.all.size());
    compared.all.resize(scanned.all.size());
    CHECK(compared == scanned);
    if (wanted.save && wanted.grad_current && wanted.grad_weight && !spoilt) check_grad_weight(o, rows, expected);

    if (lengths) o.lengths = wild_lengths(batch, steps);
    CellInputs<T> wild(o);
    for_each_table([&](const Kernels& kernels, int threads) {
        CHECK(run(kernels, wild, rows, weight, wanted, threads, kOtherPoison) == expected);
    });
}

template <class T>
void dots_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Options bits(number);
    CellOptions o = {steps, batch, neurons, false, false, false, false, false, false, false, {}};
    if (bits.next()) o.lengths = wild_lengths(batch, steps);
    CellInputs<T> in(o);
    const EventRows<T> rows(o, inputs, bits.next(), in.numbers);
    const Array<T> weight_t = in.numbers.template array<T>(inputs * neurons), grad_current = in.plane(steps);
    const Result<T> expected = dots(*kernels_scalar(), in, rows, weight_t, grad_current, 1, kPoison);
    const std::vector<int64_t> lengths =
        clamped(o.lengths.empty() ? std::vector<int64_t>(static_cast<size_t>(batch), steps) : o.lengths, steps);
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t t = 0; t < steps; ++t)
            for (int64_t e = rows.offsets[b * steps + t]; e < rows.offsets[b * steps + t + 1]; ++e) {
                const bool past = t >= lengths[static_cast<size_t>(b)];
                if (past) CHECK(expected.all[static_cast<size_t>(e)] == T(0));
                double sum = 0;
                for (int64_t n = 0; n < neurons && !past; ++n)
                    sum += double(weight_t[rows.indices[e] * neurons + n]) *
                           double(grad_current[(t * batch + b) * neurons + n]);
                // At most one rounding per term, of sums not above the number of terms, as no factor is above 1.
                const double unit = sizeof(T) == sizeof(float) ? 0x1p-24 : 0x1p-53;
                const auto terms = static_cast<double>(neurons);
                CHECK(std::fabs(sum - double(expected.all[static_cast<size_t>(e)])) <= 2 * terms * terms * unit);
            }
    for_each_table([&](const Kernels& kernels, int threads) {
        CHECK(dots(kernels, in, rows, weight_t, grad_current, threads, kOtherPoison) == expected);
    });
}

void shapes_agree() {
    for_each_event_shape({0, 1, 7, 16, 31, 100, 128, 130},
                         [](int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
                             passes_agree<float>(steps, batch, neurons, inputs, number);
                             passes_agree<double>(steps, batch, neurons, inputs, number + 1000);
                             if (number % 2)
                                 dots_agree<float>(steps, batch, neurons, inputs, number);
                             else
                                 dots_agree<double>(steps, batch, neurons, inputs, number);
                         });
}

// Many samples and tiles, so that a group holds several samples and the sums of groups are added in a tree.
void groups_agree() {
    uint64_t number = 5000;
    for (const int64_t batch : {16, 17, 40})
        for (const int64_t neurons : {5, 130, 300}) {
            passes_agree<float>(3, batch, neurons, 9, ++number);
            passes_agree<double>(3, batch, neurons, 9, ++number);
        }
    passes_agree<float>(2, 3, 2100, 3, ++number);  // more tiles than groups
}

// Past a sample's length its trace, tile by tile, and its checkpoints are zero.
void traces_past_the_length_are_zero() {
    CellOptions o = {70, 3, 130, true, true, true, false, true, true, true, {70, 33, 0}};
    for (const bool parameters : {false, true}) {
        o.parameters = parameters;
        CellInputs<float> in(o);
        const EventRows<float> rows(o, 9, true, in.numbers);
        const Array<float> weight = in.numbers.array<float>(o.neurons * rows.inputs);
        for_each_table([&](const Kernels& kernels, int threads) {
            EventsCall<float> call(in, rows, {true, true, true}, kOtherPoison);
            CHECK(call.forward(kernels, weight, threads) == -1);
            check_padding(o, call.checkpoints, 2, kEventSegment);
            const int64_t width = event_tile_width(o.neurons);
            for (int64_t sample = 0; sample < o.batch; ++sample)
                for (int64_t first = 0; first < o.neurons; first += width) {
                    const int64_t count = std::min(width, o.neurons - first);
                    const float* const tile = call.trace.data() + (sample * o.neurons + first) * o.steps;
                    for (int64_t k = o.lengths[static_cast<size_t>(sample)] * count; k < o.steps * count; ++k)
                        CHECK(tile[k] == 0);
                }
        });
    }
}

// Each element of a product is the sum over the neurons in order, from +0, in fused multiply-adds.
template <class T>
void products_are_sums_in_order() {
    Numbers numbers(1);
    for (const int64_t rows : {1, 9, 70})
        for (const int64_t inputs : {1, 47, 48, 100})
            for (const int64_t neurons : {0, 1, 33}) {
                const Array<T> gradients = numbers.array<T>(rows * neurons);
                const Array<T> weight = numbers.array<T>(neurons * inputs);
                Result<T> expected;
                for (int64_t row = 0; row < rows; ++row)
                    for (int64_t k = 0; k < inputs; ++k) {
                        T sum = 0;
                        for (int64_t n = 0; n < neurons; ++n)
                            sum = std::fma(gradients[row * neurons + n], weight[n * inputs + k], sum);
                        expected.add(sum);
                    }
                for_each_table([&](const Kernels& kernels, int threads) {
                    Array<T> packed(neurons * (inputs + kProductPadding)), product(rows * inputs, kOtherPoison);
                    kernels.of<T>().multiply({rows, inputs, neurons, threads, gradients.data(), weight.data(),
                                              packed.data(), product.data()});
                    Result<T> got;
                    got.add(product);
                    CHECK(got == expected);
                });
            }
}

// Every table finds the events of a dense input as defined.
template <class T>
void dense_events_are_found(int64_t steps, int64_t batch, int64_t inputs, uint64_t number) {
    Options bits(number);
    const bool only_ones = bits.next(), with_lengths = bits.next();
    Numbers numbers(number);
    Array<T> elements(steps * batch * inputs);
    const T kinds[] = {T(0), T(1), T(-0.0), T(0.5), T(__builtin_nan("")), T(1e-40)};
    for (T& cell : elements) cell = kinds[numbers.below(only_ones ? 3 : 6)];
    const std::vector<int64_t> wild = with_lengths ? wild_lengths(batch, steps) : std::vector<int64_t>();
    const std::vector<int64_t> counted = clamped(wild, steps);
    const Array<int64_t> lengths(wild);

    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> indices;
    std::vector<T> values;
    bool ones = true;
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t t = 0; t < steps; ++t) {
            const bool within = !with_lengths || t < counted[static_cast<size_t>(b)];
            for (int64_t k = 0; within && k < inputs; ++k) {
                const T cell = elements[(t * batch + b) * inputs + k];
                if (cell == 0) continue;
                indices.push_back(static_cast<int32_t>(k));
                values.push_back(cell);
                ones = ones && cell == 1;
            }
            offsets.push_back(static_cast<int64_t>(indices.size()));
        }

    for_each_table([&](const Kernels& kernels, int threads) {
        Array<uint64_t> mask(batch * steps * mask_words(inputs), kOtherPoison);
        Array<int64_t> found(batch * steps + 1), counted_again(batch * steps + 1);
        const ScanShape shape = {steps, batch, 0, lengths.data(), threads};
        CHECK(call_mask(kernels, DenseInput<T>{shape, inputs, elements.data(), mask.data(), found.data()}) == ones);
        CHECK(std::vector<int64_t>(found.begin(), found.end()) == offsets);
        kernels.f32.count_events(
            {{steps, batch, 0, nullptr, threads}, inputs, nullptr, mask.data(), counted_again.data()});
        CHECK(std::vector<int64_t>(counted_again.begin(), counted_again.end()) == offsets);
        const auto count = static_cast<int64_t>(indices.size());
        for (const bool with_values : {false, true}) {
            Array<int32_t> listed(count);
            Array<T> listed_values(with_values ? count : 0);
            call_list(kernels, {shape, inputs, elements.data(), mask.data(), found.data()}, listed.data(),
                      listed_values.data());
            CHECK(std::vector<int32_t>(listed.begin(), listed.end()) == indices);
            if (!with_values) continue;
            Result<T> expected, got;
            expected.add(Array<T>(values));
            got.add(listed_values);
            CHECK(got == expected);
        }
    });
}

void dense_shapes_agree() {
    uint64_t number = 0;
    for (const int64_t steps : {0, 1, 5})
        for (const int64_t batch : {0, 1, 3})
            for (const int64_t inputs : {0, 1, 5, 15, 16, 17, 63, 64, 65, 70, 130}) {
                dense_events_are_found<float>(steps, batch, inputs, ++number);
                dense_events_are_found<double>(steps, batch, inputs, ++number);
            }
}

// A mask with bits past the last element, and elements that changed after the mask was made: the events listed are
// unspecified, but no access is out of bounds.
void altered_masks_are_survived() {
    const int64_t steps = 3, batch = 4;
    for (const int64_t inputs : {1, 15, 17, 50, 70})
        for_each_table([&](const Kernels& kernels, int threads) {
            Array<uint64_t> mask(batch * steps * mask_words(inputs));
            const Array<float> elements(steps * batch * inputs);
            Array<int64_t> offsets(batch * steps + 1);
            const DenseInput<float> p = {
                {steps, batch, 0, nullptr, threads}, inputs, elements.data(), mask.data(), offsets.data()};
            kernels.f32.count_events(p);
            const int64_t count = offsets[batch * steps];
            CHECK(count == mask.size() * 64);
            Array<int32_t> indices(count);
            Array<float> values(count);
            kernels.f32.list_events(p, indices.data(), values.data());
        });
}

// Makes a valid batch invalid: offsets[position], or indices[event] if position is -1, becomes `value`.
struct Corruption {
    int64_t position, event, value, first_invalid;
};

template <class T>
void corrupt_batches_are_refused() {
    const int64_t steps = 5, batch = 3, neurons = 130, inputs = 6;
    const int64_t least = std::numeric_limits<int64_t>::min(), most = std::numeric_limits<int64_t>::max();
    const CellOptions o = {steps, batch, neurons, true, true, true, true, true, true, true, {}};
    CellInputs<T> in(o);
    EventRows<T> rows(o, inputs, true, in.numbers);
    const Array<T> weight = in.numbers.template array<T>(neurons * inputs);
    const Array<T> weight_t = in.numbers.template array<T>(inputs * neurons), grad_current = in.plane(steps);
    const int64_t count = rows.indices.size();
    const auto sample_of = [&](int64_t event) {
        int64_t sample = 0;
        while (rows.offsets[(sample + 1) * steps] <= event) ++sample;
        return sample;
    };
    const Wanted wanted = {true, true, true};
    EventsCall<T> valid(in, rows, wanted, kPoison);
    CHECK(valid.forward(*kernels_scalar(), weight, 1) == -1);

    std::vector<Corruption> corruptions;
    for (const int64_t value : {least, int64_t(-1), count + 1, most}) {
        corruptions.push_back({0, -1, value, 0});
        corruptions.push_back({steps, -1, value, 0});
        corruptions.push_back({steps + 2, -1, value, 1});
        corruptions.push_back({batch * steps, -1, value, 2});
    }
    corruptions.push_back({2 * steps + 1, -1, 0, 2});      // below the offset before it
    corruptions.push_back({2 * steps + 3, -1, count, 2});  // above the offset after it
    for (const int64_t value : {int64_t(-1), inputs, int64_t(INT32_MIN), int64_t(INT32_MAX)})
        for (const int64_t event : {int64_t(0), count / 2, count - 1})
            corruptions.push_back({-1, event, value, sample_of(event)});

    for (const Corruption& c : corruptions) {
        int64_t* const offset = c.position >= 0 ? &rows.offsets[c.position] : nullptr;
        int32_t* const index = c.event >= 0 ? &rows.indices[c.event] : nullptr;
        const int64_t before = offset ? *offset : *index;
        (offset ? void(*offset = c.value) : void(*index = static_cast<int32_t>(c.value)));
        for_each_table([&](const Kernels& kernels, int threads) {
            EventsCall<T> call(in, rows, wanted, kOtherPoison);
            CHECK(call.forward(kernels, weight, threads) == c.first_invalid);
            CHECK(call.backward(kernels, threads) == c.first_invalid);
            dots(kernels, in, rows, weight_t, grad_current, threads, kPoison);
        });
        (offset ? void(*offset = before) : void(*index = static_cast<int32_t>(before)));
    }
}

// Without inputs no event is valid; without steps the only offset is checked.
void empty_batches_are_checked() {
    const CellOptions o = {2, 2, 3, true, true, true, true, true, true, true, {}};
    CellInputs<float> in(o);
    EventRows<float> rows(o, 0, false, in.numbers);
    const Array<float> none(0);
    for_each_table([&](const Kernels& kernels, int threads) {
        EventsCall<float> call(in, rows, {true, true, true}, kPoison);
        CHECK(call.forward(kernels, none, threads) == -1);
        CHECK(call.backward(kernels, threads) == -1);
    });
    Array<int32_t> one(1);
    one[0] = 0;
    rows.offsets[4] = 1;
    for_each_table([&](const Kernels& kernels, int threads) {
        EventsCall<float> call(in, rows, {true, true, true}, kPoison);
        EventsForward<float> p = {
            call.out.forward(threads), rows.events(), nullptr, nullptr, nullptr, nullptr, false, false};
        p.events.indices = one.data();
        p.events.count = 1;
        CHECK(kernels.f32.events_forward(p) == 1);
        p.shape.steps = 0;
        rows.offsets[0] = 2;
        CHECK(kernels.f32.events_forward(p) == 0);
        rows.offsets[0] = 0;
    });
}

// An index after the last row's events belongs to no row.
void batches_with_a_rest_are_refused() {
    const CellOptions o = {5, 3, 20, true, true, true, true, true, true, true, {}};
    CellInputs<float> in(o);
    EventRows<float> rows(o, 6, false, in.numbers);
    const Array<float> weight = in.numbers.array<float>(o.neurons * rows.inputs);
    Array<int32_t> longer(rows.indices.size() + 1);
    std::copy(rows.indices.begin(), rows.indices.end(), longer.begin());
    longer[longer.size() - 1] = 0;
    rows.indices = std::move(longer);
    for_each_table([&](const Kernels& kernels, int threads) {
        EventsCall<float> call(in, rows, {true, true, true}, kPoison);
        CHECK(call.forward(kernels, weight, threads) == o.batch - 1);
        CHECK(call.backward(kernels, threads) == o.batch - 1);
    });
}

// Another thread writes into offsets, indices and lengths during the calls: no access is out of bounds.
template <class T>
void events_that_change_during_a_call_are_survived(bool by_event) {
    const int64_t inputs = by_event ? 2000 : 5;
    const CellOptions o = {40, 4, 150, true, true, true, true, true, true, true, wild_lengths(4, 40)};
    CellInputs<T> in(o);
    EventRows<T> rows(o, 5, true, in.numbers);
    rows.inputs = inputs;
    CHECK(packs_by_event(inputs, rows.indices.size()) == by_event);
    const Array<T> weight = in.numbers.template array<T>(o.neurons * inputs);
    const Array<T> grad_current = in.plane(o.steps);
    Array<T> grad_input(o.steps * o.batch * inputs);
    for (const Kernels* kernels : available_kernels()) {
        EventsCall<T> call(in, rows, {true, true, true}, kPoison);
        const Meddler meddler(rows.offsets, rows.indices, in.lengths);
        calls_survive([&] { return call.forward(*kernels, weight, 1); });
        calls_survive([&] { return call.backward(*kernels, 1); });
        const EventDots<T> p = {in.shape(1),         rows.events(), weight.data(),
                                grad_current.data(), nullptr,       grad_input.data()};
        calls_survive([&] { return call_dots(*kernels, p); });
    }
}

}  // namespace

int main() {
    shapes_agree();
    groups_agree();
    traces_past_the_length_are_zero();
    products_are_sums_in_order<float>();
    products_are_sums_in_order<double>();
    dense_shapes_agree();
    altered_masks_are_survived();
    corrupt_batches_are_refused<float>();
    corrupt_batches_are_refused<double>();
    empty_batches_are_checked();
    batches_with_a_rest_are_refused();
    for (const bool by_event : {false, true}) {
        events_that_change_during_a_call_are_survived<float>(by_event);
        events_that_change_during_a_call_are_survived<double>(by_event);
    }
    std::printf("events: passed\n");
}
