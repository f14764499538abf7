// The device code of the CUDA kernels, run on the host block by block and thread by thread, against the CPU's kernels
// by their bits: every mode, partial blocks, lengths, empty arrays, weights in global and in shared memory.
#include "device_problem.h"

using namespace srcell;

namespace {

template <class T>
void scans_agree(uint64_t number) {
    for (const int64_t steps : {0, 1, 15, 16, 17, 40})
        for (const int64_t batch : {0, 1, 3, 37})
            for (const int64_t neurons : {0, 1, 7, 31, 32, 130}) {
                if (batch == 37 && neurons > 7) continue;
                for (int repeat = 0; repeat < 6; ++repeat) {
                    Options bits(++number);
                    CellOptions o = {steps,       batch,       neurons,     bits.next(), bits.next(), bits.next(),
                                     bits.next(), bits.next(), bits.next(), bits.next(), {}};
                    const bool backward = bits.next() || bits.next(), lengths = bits.next();
                    if (lengths) o.lengths = wild_lengths(batch, steps);
                    CellInputs<T> in(o);
                    Array<T> current = in.plane(steps);
                    for (T& c : current) c *= 2;
                    const Result<T> expected = scan(*kernels_scalar(), in, current, backward, 1, kPoison);
                    for (const Card& card : kCards)
                        CHECK(scan(card, in, current, backward, 1, kOtherPoison) == expected);
                }
            }
}

void checkpoints_past_the_length_are_zero() {
    const CellOptions o = {40, 3, 50, true, true, true, true, true, true, true, {40, 17, 0}};
    CellInputs<float> in(o);
    const Array<float> current = in.plane(o.steps);
    for (const Card& card : kCards) {
        ScanCall<float> call(in, current, true, kOtherPoison);
        call.run(card, 1);
        check_padding(o, call.checkpoints, 3, kSegment);
    }
}

// What tanh and sigmoid divide, from every reciprocal that a GPU may give. Where the step of Newton's leads to the one
// rounded to nearest, the last correction does to the quotient (Markstein's theorem); elsewhere dividends are tried:
// here every 61st. Quotients of sigmoid become denormal: every 61st divisor; from 2^-64 on. All of both were
// tried once.
void quotients_are_rounded_to_nearest() {
    using V = device::Value<float>;
    const auto start = [](V b, uint32_t units) { return device::value_of(device::bits_of(V{1 / b.x}) + units); };
    int exceptions = 0;
    for (uint32_t significand = 0; significand < 1u << 23; ++significand) {
        const V b = device::value_of(0x3F800000 | significand);
        for (uint32_t units = 0; units <= 4; ++units) {
            const V above = start(b, units);
            if (device::better_reciprocal(b, above).x == 1 / b.x) continue;
            ++exceptions;
            for (uint32_t k = significand % 61; k < 1u << 23; k += 61) {
                const V a = device::value_of(0xBF000000 | k);  // in (-1, -1/2]
                CHECK(device::quotient_from(above, a, b).x == a.x / b.x);
            }
        }
    }
    CHECK(exceptions > 0 && exceptions < 5 * 56);
    const V a = {0x1p-64f};
    for (uint32_t bits = device::bits_of(a); bits <= device::bits_of(V{0x1p+87f}); bits += 61) {
        const V b = device::value_of(bits);
        CHECK(device::quotient_from(start(b, bits % 5), a, b).x == a.x / b.x);
        CHECK(device::quotient(a, b).x == a.x / b.x);
    }
    for (const float x : {0x1p-149f, 0x1p-148f, 0x1.8p-140f, 0x1p-126f, 0x1p-100f})  // e of a tiny x is -2 |x|
        CHECK(device::quotient(V{-2 * x}, V{2}).x == -x);
}

// Rounds to nearest, and half-way cases to even.
void bfloat16_is_rounded_to_even() {
    const auto rounded = [](uint32_t bits) {
        device::BFloat16 x;
        device::put(&x, device::value_of(bits));
        return x.bits;
    };
    CHECK(rounded(0x3F808000) == 0x3F80 && rounded(0xBF808000) == 0xBF80);
    CHECK(rounded(0x3F818000) == 0x3F82 && rounded(0xBF818000) == 0xBF82);
    CHECK(rounded(0x3F807FFF) == 0x3F80 && rounded(0x3F808001) == 0x3F81);
    CHECK(rounded(0x7F7FFFFF) == 0x7F80 && rounded(0x7F800000) == 0x7F80);  // infinity
    CHECK(rounded(0x7F800001) == 0x7FC0);                                   // NaN
}

// A parameter without an address is its `constant`.
void constants_need_no_memory() {
    const CellOptions o = {20, 3, 5, false, true, true, true, true, true, true, {}};
    CellInputs<float> in(o);
    const Array<float> current = in.plane(o.steps);
    CellOutputs<float> expected(in, kPoison), got(in, kPoison);
    const ScanForward<float> p = {expected.forward(1), current.data(), nullptr};
    call_forward(kCards[0], p);
    ScanForward<float> constant = {got.forward(1), current.data(), nullptr};
    for (Parameter<float>& x : constant.cell.of) x = {nullptr, 0, *x.data};
    call_forward(kCards[0], constant);
    Result<float> a, b;
    expected.add_forward(a);
    got.add_forward(b);
    CHECK(a == b);
}

template <class T>
bool ascend(const EventRows<T>& rows) {
    for (int64_t row = 0; row + 1 < rows.offsets.size(); ++row)
        for (int64_t e = rows.offsets[row] + 1; e < rows.offsets[row + 1]; ++e)
            if (rows.indices[e - 1] >= rows.indices[e]) return false;
    return true;
}

template <class T>
void passes_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Options bits(number);
    CellOptions o = {steps,       batch,       neurons,     bits.next(), bits.next(), bits.next(),
                     bits.next(), bits.next(), bits.next(), bits.next(), {}};
    const Wanted wanted = {bits.next() || bits.next(), bits.next(), bits.next()};
    const bool with_values = bits.next(), lengths = bits.next(), spoilt = bits.next() && bits.next();
    if (lengths) o.lengths = wild_lengths(batch, steps);
    CellInputs<T> in(o);
    EventRows<T> rows(o, inputs, with_values, in.numbers);
    Array<T> weight = in.numbers.template array<T>(neurons * inputs);
    if (spoilt) spoil(weight, rows.values);
    const Result<T> expected = run(*kernels_scalar(), in, rows, weight, wanted, 1, kPoison);
    for (const Card& card : kCards) CHECK(run_on(card, in, rows, weight, wanted, false, kOtherPoison) == expected);

    // A dense input has each event once, in order, and none of value 0.
    EventRows<T> tidy = rows.tidy();
    CHECK(ascend(tidy));
    const Result<T> tidied = run(*kernels_scalar(), in, tidy, weight, wanted, 1, kPoison);
    for (const Card& card : kCards) CHECK(run_on(card, in, tidy, weight, wanted, true, kOtherPoison) == tidied);
}

template <class T>
void dots_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Options bits(number);
    CellOptions o = {steps, batch, neurons, false, false, false, false, false, false, false, {}};
    if (bits.next()) o.lengths = wild_lengths(batch, steps);
    CellInputs<T> in(o);
    const EventRows<T> rows(o, inputs, bits.next(), in.numbers);
    const Array<T> weight_t = in.numbers.template array<T>(inputs * neurons), grad_current = in.plane(steps);
    Result<T> expected = dots(*kernels_scalar(), in, rows, weight_t, grad_current, 1, kPoison), got;
    expected.all.resize(static_cast<size_t>(rows.indices.size()));  // keeps grad_values, drops grad_input
    for (const Card& card : kCards) {
        const SortedEvents sorted(card, in.shape(1), rows.events(), int64_t(0));
        Array<T> grad_values(rows.indices.size(), kOtherPoison);
        device::Queue queue = card.queue();
        device::event_dots(queue, DeviceEventDots<T>{neurons, rows.events(), sorted.found.data(), weight_t.data(),
                                                     grad_current.data(), grad_values.data()});
        got.all.clear();
        got.add(grad_values);
        CHECK(got == expected);
    }
}

void shapes_agree() {
    for_each_event_shape({0, 1, 7, 32, 33, 100, 130},
                         [](int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
                             passes_agree<float>(steps, batch, neurons, inputs, number);
                             passes_agree<double>(steps, batch, neurons, inputs, number + 1000);
                             if (number % 2)
                                 dots_agree<float>(steps, batch, neurons, inputs, number);
                             else
                                 dots_agree<double>(steps, batch, neurons, inputs, number);
                         });
}

// Many samples and tiles, so that a group holds several samples and the sums of groups are added in a tree; and so many
// samples that the sums of parameter gradients take more than one round.
void groups_agree() {
    uint64_t number = 5000;
    for (const int64_t batch : {16, 17, 40, 300})
        for (const int64_t neurons : {5, 130, 132, 300}) {
            passes_agree<float>(3, batch, neurons, 9, ++number);
            passes_agree<double>(3, batch, neurons, 9, ++number);
        }
    passes_agree<float>(2, 3, 2100, 3, ++number);  // more tiles than groups
}

// Weights go to shared memory if they fit and enough events use them, in blocks so small that every processor gets one.
void tiles_are_chosen() {
    const device::Limits h100 = {132, 227 << 10}, turing = {40, 64 << 10};
    const auto chosen = [](const device::Limits& limits, int64_t batch, int64_t neurons, int64_t inputs,
                           int64_t events) {
        return device::tile_samples(limits, {220, batch, neurons, nullptr, 1}, inputs, events);
    };
    CHECK(chosen(h100, 256, 512, 784, 1324000) == 16);
    CHECK(chosen(h100, 256, 100, 784, 1324000) == 4);
    CHECK(chosen(h100, 1, 20, 784, 5200) == 1);
    CHECK(chosen(h100, 256, 512, 2312, 1324000) == 0);
    CHECK(chosen(turing, 256, 512, 784, 1324000) == 0);
    CHECK(chosen(turing, 256, 512, 400, 1324000) == 16);
    CHECK(chosen(h100, 256, 512, 784, 256 * 24) == 0);  // one step
}

// Whatever offsets and indices hold, no access is out of bounds, and no result is NaN.
template <class T>
void corrupt_batches_are_survived() {
    const int64_t steps = 5, batch = 3, neurons = 130, inputs = 6;
    const CellOptions o = {steps, batch, neurons, true, true, true, true, true, true, true, {}};
    CellInputs<T> in(o);
    EventRows<T> rows(o, inputs, true, in.numbers);
    const Array<T> weight = in.numbers.template array<T>(neurons * inputs);
    const Array<T> weight_t = transposed(weight, neurons, inputs), grad_current = in.plane(steps);
    const int64_t count = rows.indices.size();
    const auto survive = [&] {
        for (const Card& card : kCards) {
            const Events<T> events = rows.events();
            CellOutputs<T> out(in, kPoison);
            Array<T> trace(steps * out.plane()), checkpoints(segments(steps) * 2 * out.plane());
            device::Queue queue = card.queue();
            device::events_forward(queue, DeviceEventsForward<T>{out.forward(1),
                                                                 {events, nullptr, nullptr},
                                                                 weight_t.data(),
                                                                 trace.data(),
                                                                 checkpoints.data(),
                                                                 true});
            for (const T spike : out.spikes) CHECK(spike >= 0);
            const WeightGradient<T> gradient = {card, in.shape(1), events, grad_current, kPoison};
            for (const T grad : gradient.by_keys(rows.values, int32_t(0))) CHECK(grad == grad);
            for (const T grad : gradient.by_columns()) CHECK(grad == grad);
            const SortedEvents sorted(card, in.shape(1), events, int32_t(0));
            Array<T> grad_values(count);
            device::event_dots(queue, DeviceEventDots<T>{neurons, events, sorted.found.data(), weight_t.data(),
                                                         grad_current.data(), grad_values.data()});
            for (const T grad : grad_values) CHECK(grad == grad);
        }
    };
    for (int64_t row = 0; row <= batch * steps; ++row)
        for (const int64_t value : {INT64_MIN, int64_t(-1), int64_t(0), count, count + 1, INT64_MAX}) {
            const int64_t before = std::exchange(rows.offsets[row], value);
            survive();
            rows.offsets[row] = before;
        }
    for (const int64_t event : {int64_t(0), count / 2, count - 1})
        for (const int32_t value : {INT32_MIN, -1, int32_t(inputs), INT32_MAX}) {
            const int32_t before = std::exchange(rows.indices[event], value);
            survive();
            rows.indices[event] = before;
        }
}

void rate_coding_agrees() {
    Numbers numbers(1);
    for (const int64_t samples : {0, 1, 3})
        for (const int64_t pixels : {0, 1, 63, 64, 65, 130})
            for (const int64_t steps : {0, 1, 4, 7, 20})
                for (const double gain : {0.0, 0.25, 1.5}) {
                    Array<float> images(samples * pixels);
                    for (float& x : images)
                        x = numbers.below(3) ? static_cast<float>(numbers.below(1 << 24)) * 0x1p-24f
                                             : static_cast<float>(numbers.below(2));
                    Array<int64_t> index(samples);
                    for (int64_t b = 0; b < samples; ++b) index[b] = b * 1234567890123;
                    const uint64_t seed = static_cast<uint64_t>(numbers.below(1 << 30)) << 31;
                    for (const bool thinned : {false, true}) {
                        const Encoded expected = encode_on_cpu(images, index, pixels, steps, 3, gain, seed, thinned);
                        for (const Card& card : kCards)
                            CHECK(encode_on(card, images, index, pixels, steps, 3, gain, seed, thinned) == expected);
                    }
                }
}

// As on the CPU: half above the word is enough, because thresholds are rounded up.
void thresholds_are_rounded_up() {
    const uint64_t seed = 0x0123456789ABCDEF;
    const double word = device::philox4x32_10({0, 0, 5, 0}, 0x89ABCDEF, 0x01234567).a >> 8;
    const Array<float> white(std::vector<float>{1});
    const Array<int64_t> index(std::vector<int64_t>{5});
    const auto fires = [&](double gain) {
        return encode_on(kCards[0], white, index, 1, 1, 0, gain, seed, false).indices.size();
    };
    CHECK(fires(word * 0x1p-24) == 0);
    CHECK(fires((word + 0.5) * 0x1p-24) == 1);
    CHECK(fires((word + 1) * 0x1p-24) == 1);
}

}  // namespace

int main() {
    scans_agree<float>(0);
    scans_agree<double>(1 << 20);
    checkpoints_past_the_length_are_zero();
    for (const Card& card : kCards) check_rest_at_zero(card, 1);
    quotients_are_rounded_to_nearest();
    bfloat16_is_rounded_to_even();
    constants_need_no_memory();
    shapes_agree();
    groups_agree();
    tiles_are_chosen();
    corrupt_batches_are_survived<float>();
    corrupt_batches_are_survived<double>();
    rate_coding_agrees();
    thresholds_are_rounded_up();
    std::printf("device: passed\n");
}
