// The device code of the CUDA kernels, run on the host block by block and thread by thread, against the CPU's kernels
// by their bits: every mode, partial blocks, lengths, empty arrays, weights in global and in shared memory.
#include "device_property.h"

using namespace srcell;

namespace {

void scan_shapes_agree() {
    uint64_t number = 0;
    for (const int64_t steps : {0, 1, 15, 16, 17, 40})
        for (const int64_t batch : {0, 1, 3, 37})
            for (const int64_t neurons : {0, 1, 7, 31, 32, 130})
                for (int repeat = 0; repeat < (batch == 37 && neurons > 7 ? 0 : 6); ++repeat) {
                    Input in(++number);
                    const CellOptions o = cell_options(in, steps, batch, neurons);
                    scans_agree<float>(in, o);
                    scans_agree<double>(in, o);
                    if (repeat == 0) half_scans_agree<device::Float16>(in, o, Element::float16);
                    if (repeat == 1) half_scans_agree<device::BFloat16>(in, o, Element::bfloat16);
                }
}

// The divisions in tanh and sigmoid, starting from every approximate reciprocal that a GPU may give. If the Newton step
// leads to the reciprocal rounded to nearest, the last correction leads to the quotient rounded to nearest (Markstein's
// theorem). For the other divisors the test tries dividends, here every 61st. Quotients of sigmoid become denormal: for
// them the test tries every 61st divisor, from 2^-64 on. All dividends and all divisors were tried once.
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

template <class T>
void turns_agree() {
    for (const bool per_neuron : {false, true}) {
        CellOptions o = {1, 1, 300, per_neuron, true, true, true, true, true, true, {}};
        o.resonant = true;
        CellInputs<T> in(o);
        Array<T>&alpha = in.parameters[kAlpha], &omega = in.parameters[kOmega];
        const T pi = T(0x1.921fb6p+1);
        const T special[] = {0, T(-0.0), pi, -pi, pi / 2, std::numeric_limits<T>::denorm_min(), T(1e-30), T(-0.5)};
        for (int64_t n = 0; n < omega.size(); ++n) omega[n] = n < 8 ? special[n] : T(n - 150) / 50;
        for (int64_t n = 0; n < alpha.size(); ++n) alpha[n] = T(n + 1) / 300;
        in.make_turn();
        Array<T> along(in.along.size(), kOtherPoison), across(in.along.size(), kOtherPoison);
        device::Queue queue = kCards[0].queue();
        device::make_turn(queue, DeviceTurn<T>{in.cell(), along.size(), along.data(), across.data()});
        CHECK(same(along, in.along) && same(across, in.across));
    }
}

// A parameter without an address has the value `constant`.
void constants_need_no_memory() {
    const CellOptions o = {20, 3, 5, false, true, true, true, true, true, true, {}};
    CellInputs<float> in(o);
    const Array<float> current = in.plane(o.steps);
    CellOutputs<float> expected(in, kPoison), got(in, kPoison);
    const ScanForward<float> p = {expected.forward(1), current.data(), nullptr};
    kCards[0].scan_forward(p);
    ScanForward<float> constant = {got.forward(1), current.data(), nullptr};
    for (int k = 0; k < parameters_of(false); ++k) {
        Parameter<float>& x = constant.cell.of[k];
        x = {nullptr, 0, *x.data};
    }
    kCards[0].scan_forward(constant);
    Result<float> a, b;
    expected.add_forward(a);
    got.add_forward(b);
    CHECK(a == b);
}

template <class T>
void passes_agree(int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
    Input in(number);
    const CellOptions o = cell_options(in, steps, batch, neurons);
    passes_agree<T>(in, o, inputs, [&](EventRows<T>& rows) {
        if (number % 3 == 0) corrupt(in, rows);
        return number % 3 == 0;
    });
}

void shapes_agree() {
    for_each_event_shape({0, 1, 7, 32, 33, 100, 130},
                         [](int64_t steps, int64_t batch, int64_t neurons, int64_t inputs, uint64_t number) {
                             passes_agree<float>(steps, batch, neurons, inputs, number);
                             passes_agree<double>(steps, batch, neurons, inputs, number + 1000);
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

// Weights go to shared memory if they fit and enough events use them, in blocks so small that every processor gets a
// block.
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

template <class T>
void altered_rows_stay_within_bounds() {
    const CellOptions o = {5, 3, 130, true, true, true, true, true, true, true, {}};
    CellInputs<T> cell(o);
    EventRows<T> rows(o, 6, true, cell.numbers);
    const Array<T> weight = cell.numbers.template array<T>(o.neurons * 6);
    for_each_corruption(o, rows, [&] {
        for (const Card& card : kCards) altered_rows_stay_within_bounds(card, cell, rows, weight);
    });
}

void rate_coding_agrees() {
    Numbers numbers(1);
    for (const int64_t samples : {0, 1, 3})
        for (const int64_t pixels : {0, 1, 63, 64, 65, 130})
            for (const int64_t steps : {0, 1, 4, 7, 20})
                for (const double gain : {0.0, 0.25, 1.5}) {
                    Input in(static_cast<uint64_t>(numbers.below(1 << 30)));
                    EncodeProblem q = encode_problem(in, samples, pixels, steps);
                    q.rate = true;
                    q.gain = gain;
                    for (float& x : q.images)
                        if (!(x >= 0 && x <= 1)) x = 1;
                    for (const bool thinned : {false, true}) {
                        q.thinned = thinned;
                        for (const Card& card : kCards) CHECK(encode_on(card, q) == by_definition(q));
                    }
                }
}

}  // namespace

int main() {
    scan_shapes_agree();
    for (const Card& card : kCards) check_rest_at_zero(card, 1);
    quotients_are_rounded_to_nearest();
    bfloat16_is_rounded_to_even();
    turns_agree<float>();
    turns_agree<double>();
    constants_need_no_memory();
    shapes_agree();
    groups_agree();
    tiles_are_chosen();
    altered_rows_stay_within_bounds<float>();
    altered_rows_stay_within_bounds<double>();
    rate_coding_agrees();
    check_thresholds([](const EncodeProblem& q) { return encode_on(kCards[0], q); });
    std::printf("device: passed\n");
}
