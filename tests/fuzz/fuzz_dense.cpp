// Fuzz target: the kernels of a dense input in every ISA. Mask and event rows are compared with their definition, also
// with masks and elements altered between the calls; further the input's gradient as a product, the counts of spikes,
// tanh and sigmoid.
#include <algorithm>
#include <cmath>

#include "../cpp/events_problem.h"
#include "input.h"

using namespace srcell;

namespace {

template <class T>
struct Cells {
    int64_t steps, batch, inputs;
    std::vector<int64_t> lengths;
    Array<T> elements;

    bool within(int64_t b, int64_t t) const { return lengths.empty() || t < lengths[static_cast<size_t>(b)]; }
    T at(int64_t b, int64_t t, int64_t k) const { return elements[(t * batch + b) * inputs + k]; }
};

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
Listed<T> by_definition(const Cells<T>& q) {
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

template <class T>
void events_are_found(Input& in, const Cells<T>& q, const Array<int64_t>& lengths, int threads) {
    const Listed<T> expected = by_definition(q);
    const uint64_t flips = in.bytes(3);
    const bool without_values = in.bit();
    for (const Kernels* kernels : available_kernels()) {
        Array<uint64_t> mask(q.batch * q.steps * mask_words(q.inputs), kOtherPoison);
        Array<int64_t> offsets(q.batch * q.steps + 1), again(q.batch * q.steps + 1);
        const ScanShape shape = {q.steps, q.batch, 0, lengths.data(), threads};
        const DenseInput<T> p = {shape, q.inputs, q.elements.data(), mask.data(), offsets.data()};
        Listed<T> listed;
        listed.ones = call_mask(*kernels, p);
        listed.offsets.assign(offsets.begin(), offsets.end());
        Array<int32_t> indices(offsets[offsets.size() - 1]);
        Array<T> values(indices.size());
        call_list(*kernels, p, indices.data(), values.data());
        listed.indices.assign(indices.begin(), indices.end());
        listed.values.add(values);
        CHECK(listed == expected);
        kernels->f32.count_events({shape, q.inputs, nullptr, mask.data(), again.data()});
        CHECK(std::equal(again.begin(), again.end(), offsets.begin()));

        // Alter any bits of the mask between counting and listing.
        for (int64_t k = 0; k < mask.size(); ++k) mask[k] ^= (flips >> (k % 24) & 1) ? flips * 0x9E3779B97F4A7C15u : 0;
        call_list(*kernels, p, indices.data(), without_values ? nullptr : values.data());
        // Alter it before both.
        kernels->f32.count_events({shape, q.inputs, nullptr, mask.data(), again.data()});
        const int64_t count = again[again.size() - 1];
        CHECK(0 <= count && count <= 64 * mask.size());
        Array<int32_t> any(count);
        Array<T> any_values(count);
        call_list(*kernels, {shape, q.inputs, q.elements.data(), mask.data(), again.data()}, any.data(),
                  any_values.data());
    }
}

template <class T>
void products_agree(const Cells<T>& q, const Array<T>& weight, int64_t neurons, int threads) {
    // The elements serve as gradients: rows of `neurons`, as many as there are.
    const int64_t rows = neurons ? q.elements.size() / neurons : q.steps,
                  inputs = neurons ? weight.size() / neurons : 5;
    Result<T> expected;
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t k = 0; k < inputs; ++k) {
            T sum = 0;
            for (int64_t n = 0; n < neurons; ++n)
                sum = std::fma(q.elements[row * neurons + n], weight[n * inputs + k], sum);
            expected.add(sum);
        }
    for (const Kernels* kernels : available_kernels()) {
        Array<T> gradients(rows * neurons), packed(neurons * (inputs + kProductPadding)), product(rows * inputs);
        std::copy(q.elements.begin(), q.elements.begin() + gradients.size(), gradients.begin());
        kernels->of<T>().multiply(
            {rows, inputs, neurons, threads, gradients.data(), weight.data(), packed.data(), product.data()});
        Result<T> got;
        got.add(product);
        CHECK(got == expected);
    }
}

template <class T>
void counts_agree(const Cells<T>& q, int threads) {
    std::vector<int64_t> expected(static_cast<size_t>(2 * q.inputs));
    for (int64_t k = 0; k < q.inputs; ++k)
        for (int64_t b = 0; b < q.batch; ++b)
            for (int64_t t = 0; t < q.steps; ++t) {
                const bool above = q.at(b, t, k) > T(0.5), before = t && q.at(b, t - 1, k) > T(0.5);
                expected[static_cast<size_t>(k)] += q.at(b, t, k) > 0;
                expected[static_cast<size_t>(q.inputs + k)] += above && !before;
            }
    for (const Kernels* kernels : available_kernels()) {
        Array<int64_t> partials(count_groups(q.batch) * 2 * q.inputs), counts(2 * q.inputs);
        kernels->of<T>().count_spikes(
            {q.steps, q.batch, q.inputs, threads, q.elements.data(), partials.data(), counts.data()});
        CHECK(std::vector<int64_t>(counts.begin(), counts.end()) == expected);
    }
}

// Empty arrays with huge sizes: no memory is touched, and no call takes long.
template <class T>
bool empty_inputs_are_nothing(Input& in) {
    const int64_t steps = in.bit() ? 0 : in.vast(), batch = in.vast(), inputs = steps ? 0 : in.below(100);
    Array<int64_t> counts(2 * inputs), partials(count_groups(batch) * counts.size()), offsets(1);
    for (const Kernels* kernels : available_kernels()) {
        kernels->of<T>().count_spikes({steps, batch, inputs, 1, nullptr, partials.data(), counts.data()});
        for (const int64_t count : counts) CHECK(count == 0);
        if (steps) continue;
        const DenseInput<T> p = {{0, batch, 0, nullptr, 1}, in.vast(), nullptr, nullptr, offsets.data()};
        offsets[0] = -1;
        CHECK(call_mask(*kernels, p));
        CHECK(offsets[0] == 0);
        call_list(*kernels, p, nullptr, static_cast<T*>(nullptr));
    }
    return false;
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
bool dense_inputs_agree(Input& in) {
    if (in.rarely(2)) return empty_inputs_are_nothing<T>(in);
    const int threads = in.threads();
    Cells<T> q = {in.size(6), in.size(3), in.size(in.rarely(32) ? 200 : 70), {}, Array<T>(0)};
    q.elements = Array<T>(q.steps * q.batch * q.inputs);
    Numbers numbers(in.bytes(4));
    const T kinds[] = {T(0), T(1), T(-0.0), T(0.5), T(-1), T(1e-40), T(__builtin_nan(""))};
    const int64_t used = 1 + in.below(7);
    for (T& cell : q.elements) cell = used == 4 ? numbers.symmetric<T>() : kinds[numbers.below(used)];
    in.spoil(q.elements);
    std::vector<int64_t> wild;
    if (in.rarely(96))
        for (int64_t b = 0; b < q.batch; ++b) wild.push_back(in.integer<int64_t>(q.steps / 2));
    q.lengths = clamped(wild, q.steps);
    const int64_t neurons = in.size(q.inputs ? q.inputs : 1), inputs = in.size(40);
    Array<T> weight = numbers.array<T>(neurons * inputs);
    in.spoil(weight);

    events_are_found(in, q, Array<int64_t>(wild), threads);
    products_agree(q, weight, neurons, threads);
    counts_agree(q, threads);
    functions_agree(q.elements);
    functions_agree(weight);
    return q.elements.size();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("dense", data, size,
                [](Input& in) { return in.bit() ? dense_inputs_agree<double>(in) : dense_inputs_agree<float>(in); });
}
