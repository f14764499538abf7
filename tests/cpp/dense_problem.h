// The properties of the kernels on a dense input, which the fuzz target and the tests check on every ISA: masks and
// event rows equal their definition, even if masks and elements change between the calls; the input's gradient is a
// product with a fixed order of sums; spikes are counted; tanh and sigmoid have the same bits everywhere.
#pragma once

#include <algorithm>
#include <cmath>

#include "../fuzz/input.h"

namespace srcell {

template <class T>
struct DenseProblem {
    int64_t steps, batch, inputs;
    std::vector<int64_t> lengths, unclamped;  // lengths: `unclamped`, clamped to [0, T]
    Array<T> elements;

    bool within(int64_t b, int64_t t) const { return lengths.empty() || t < lengths[static_cast<size_t>(b)]; }
    T at(int64_t b, int64_t t, int64_t k) const { return elements[(t * batch + b) * inputs + k]; }
};

// The events of a dense input, and whether all of them are 1.
template <class T>
struct Listed {
    std::vector<int64_t> offsets = {0};
    std::vector<int32_t> indices;
    Result<T> values;
    bool ones = true;

    bool operator==(const Listed& other) const {
        return offsets == other.offsets && indices == other.indices && values == other.values && ones == other.ones;
    }
};

template <class T>
Listed<T> by_definition(const DenseProblem<T>& q) {
    Listed<T> listed;
    for (int64_t b = 0; b < q.batch; ++b)
        for (int64_t t = 0; t < q.steps; ++t) {
            for (int64_t k = 0; q.within(b, t) && k < q.inputs; ++k) {
                if (q.at(b, t, k) == 0) continue;
                listed.indices.push_back(static_cast<int32_t>(k));
                listed.values.add(q.at(b, t, k));
                listed.ones = listed.ones && q.at(b, t, k) == 1;
            }
            listed.offsets.push_back(static_cast<int64_t>(listed.indices.size()));
        }
    return listed;
}

// The events that a table finds, with the mask and the offsets.
template <class T>
Listed<T> list_events(const Kernels& kernels, const DenseInput<T>& p, int poison) {
    const int64_t rows = p.shape.steps * p.shape.batch;
    Listed<T> listed;
    listed.ones = kernels.of<T>().mask_events(p);
    listed.offsets.assign(p.offsets, p.offsets + rows + 1);
    Array<int32_t> indices(p.offsets[rows], poison);
    Array<T> values(indices.size(), poison);
    kernels.of<T>().list_events(p, indices.data(), values.data());
    listed.indices.assign(indices.begin(), indices.end());
    listed.values.add(values);
    return listed;
}

template <class T>
void events_are_found(Input& in, const DenseProblem<T>& q) {
    const Listed<T> expected = by_definition(q);
    const uint64_t flips = in.bytes(3);
    const bool without_values = in.bit();
    const Array<int64_t> lengths(q.unclamped);
    for_each_table(in.thread_counts(), [&](const Kernels& kernels, int threads) {
        Array<uint64_t> mask(q.batch * q.steps * mask_words(q.inputs), kOtherPoison);
        Array<int64_t> offsets(q.batch * q.steps + 1), again(q.batch * q.steps + 1);
        const Samples shape = {q.steps, q.batch, lengths.data(), threads};
        const DenseInput<T> p = {shape, q.inputs, q.elements.data(), mask.data(), offsets.data()};
        CHECK(list_events(kernels, p, kPoison) == expected);
        DenseInput<float> counted = {shape, q.inputs, nullptr, mask.data(), again.data()};
        kernels.f32.count_events(counted);
        CHECK(std::equal(again.begin(), again.end(), offsets.begin()));
        Array<int32_t> indices(static_cast<int64_t>(expected.indices.size()), kPoison);
        kernels.of<T>().list_events(p, indices.data(), nullptr);
        CHECK(std::equal(indices.begin(), indices.end(), expected.indices.begin()));

        // Between counting and listing, flip some bits of the mask, also past the last element: no access may leave the
        // arrays.
        const uint64_t pattern = in.thorough() ? ~uint64_t(0) : flips * 0x9E3779B97F4A7C15u;
        int64_t set = 0;
        for (int64_t k = 0; k < mask.size(); ++k) {
            mask[k] ^= flips >> (k % 24) & 1 ? pattern : 0;
            for (uint64_t bits = mask[k]; bits; bits &= bits - 1) ++set;
        }
        Array<T> values(without_values ? 0 : indices.size());
        kernels.of<T>().list_events(p, indices.data(), values.data());
        // Now the mask is altered before both counting and listing.
        kernels.f32.count_events(counted);
        CHECK(again[again.size() - 1] == set);
        Array<int32_t> any(set);
        Array<T> any_values(set);
        kernels.of<T>().list_events({shape, q.inputs, q.elements.data(), mask.data(), again.data()}, any.data(),
                                    any_values.data());
    });
}

// Each element of a product is the sum over the neurons in order, from +0, in fused multiply-adds.
template <class T>
void products_agree(Input& in, const T* gradients, const Array<T>& weight, int64_t rows, int64_t neurons,
                    int64_t inputs) {
    Result<T> expected;
    const int64_t stride = neurons + 3 * in.bit();
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t k = 0; k < inputs; ++k) {
            T sum = 0;
            for (int64_t n = 0; n < neurons; ++n)
                sum = std::fma(gradients[row * neurons + n], weight[n * inputs + k], sum);
            expected.add(sum);
        }
    for_each_table(in.thread_counts(), [&](const Kernels& kernels, int threads) {
        Array<T> exact(rows * stride), packed(neurons * (inputs + kProductPadding));
        Array<T> product(rows * inputs, kOtherPoison);
        for (int64_t row = 0; row < rows; ++row)
            std::copy(gradients + row * neurons, gradients + (row + 1) * neurons, exact.begin() + row * stride);
        kernels.of<T>().multiply(
            {rows, inputs, neurons, threads, stride, exact.data(), weight.data(), packed.data(), product.data()});
        Result<T> got;
        got.add(product);
        CHECK(got == expected);
    });
}

template <class T>
void counts_agree(Input& in, const DenseProblem<T>& q) {
    std::vector<int64_t> expected(static_cast<size_t>(2 * q.inputs));
    for (int64_t k = 0; k < q.inputs; ++k)
        for (int64_t b = 0; b < q.batch; ++b)
            for (int64_t t = 0; t < q.steps; ++t) {
                const bool above = q.at(b, t, k) > T(0.5), before = t && q.at(b, t - 1, k) > T(0.5);
                expected[static_cast<size_t>(k)] += q.at(b, t, k) > 0;
                expected[static_cast<size_t>(q.inputs + k)] += above && !before;
            }
    for_each_table(in.thread_counts(), [&](const Kernels& kernels, int threads) {
        Array<int64_t> partials(count_groups(q.batch) * 2 * q.inputs), counts(2 * q.inputs);
        kernels.of<T>().count_spikes(
            {q.steps, q.batch, q.inputs, threads, q.elements.data(), partials.data(), counts.data()});
        CHECK(std::vector<int64_t>(counts.begin(), counts.end()) == expected);
    });
}

template <class T>
void functions_agree(const Array<T>& x) {
    Result<T> expected;
    for (const Kernels* kernels : available_kernels()) {
        Array<T> tanh(x.size()), sigmoid(x.size());
        kernels->of<T>().tanh(x.data(), tanh.data(), x.size());
        kernels->of<T>().sigmoid(x.data(), sigmoid.data(), x.size());
        Result<T> got;
        got.add(tanh);
        got.add(sigmoid);
        if (kernels == kernels_scalar()) expected = got;
        CHECK(got == expected);
        for (int64_t k = 0; k < x.size(); ++k) {
            CHECK((x[k] != x[k]) == (tanh[k] != tanh[k]) && (x[k] != x[k]) == (sigmoid[k] != sigmoid[k]));
            CHECK(x[k] != x[k] || (std::fabs(tanh[k]) <= 1 && sigmoid[k] >= 0 && sigmoid[k] <= 1));
        }
    }
}

template <class T>
bool dense_inputs_agree(Input& in, int64_t steps, int64_t batch, int64_t inputs) {
    DenseProblem<T> q = {steps, batch, inputs, {}, {}, Array<T>(steps * batch * inputs)};
    Numbers numbers(in.bytes(4));
    const T kinds[] = {T(0), T(1), T(-0.0), T(0.5), T(-1), T(1e-40), T(__builtin_nan(""))};
    const int64_t used = 1 + in.below(7);
    for (T& x : q.elements) x = used == 4 ? numbers.symmetric<T>() : kinds[numbers.below(used)];
    in.spoil(q.elements);
    if (in.rarely(96))
        for (int64_t b = 0; b < batch; ++b) q.unclamped.push_back(in.integer<int64_t>(steps / 2));
    q.lengths = clamped(q.unclamped, steps);
    const int64_t neurons = in.size(inputs ? inputs : 1), columns = in.size(40);
    Array<T> weight = numbers.array<T>(neurons * columns);
    in.spoil(weight);

    events_are_found(in, q);
    // The elements serve as gradients, in as many rows of `neurons` as they fill.
    products_agree(in, q.elements.data(), weight, neurons ? q.elements.size() / neurons : steps, neurons,
                   neurons ? columns : 5);
    counts_agree(in, q);
    functions_agree(q.elements);
    functions_agree(weight);
    return q.elements.size();
}

// Empty arrays with huge sizes: no memory is touched, and no call takes long.
template <class T>
void empty_inputs_are_nothing(int64_t steps, int64_t batch, int64_t inputs, int64_t masked_inputs) {
    Array<int64_t> counts(2 * inputs), partials(count_groups(batch) * counts.size()), offsets(1);
    for_each_table([&](const Kernels& kernels, int threads) {
        kernels.of<T>().count_spikes({steps, batch, inputs, threads, nullptr, partials.data(), counts.data()});
        for (const int64_t count : counts) CHECK(count == 0);
        if (steps) return;
        const DenseInput<T> p = {{0, batch, nullptr, threads}, masked_inputs, nullptr, nullptr, offsets.data()};
        offsets[0] = -1;
        CHECK(kernels.of<T>().mask_events(p));
        CHECK(offsets[0] == 0);
        kernels.of<T>().list_events(p, nullptr, nullptr);
    });
}

}  // namespace srcell
