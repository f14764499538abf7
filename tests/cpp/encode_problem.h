// Images to encode, the encoders by their definition in encode.h, event by event, and the calls of the CPU's kernels.
// For the tests and the fuzz targets of encoders.
#pragma once

#include <algorithm>
#include <cmath>

#include "../fuzz/input.h"

namespace srcell {

struct EncodeProblem {
    int64_t samples, pixels, steps, prefix;
    bool rate;
    double gain;
    uint64_t seed;
    Array<float> images, altered;  // altered: replaces the images once they were counted
    Array<int64_t> index;
    bool thinned = false;

    int64_t rows() const { return prefix + steps; }
};

// The first sample with a pixel outside [0, 1]; or, if all pixels are valid, -1 and the events.
struct Encoded {
    int64_t refused;
    std::vector<int64_t> offsets;
    std::vector<int32_t> indices;

    bool operator==(const Encoded& other) const {
        return refused == other.refused && offsets == other.offsets && indices == other.indices;
    }
};

inline uint32_t drawn_word(const EncodeProblem& q, int64_t t, int64_t pixel, int64_t index) {
    const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
    const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
    const auto number = static_cast<uint64_t>(index);
    const uint32_t counter[] = {static_cast<uint32_t>(t / 4), static_cast<uint32_t>(pixel), low(number), high(number)};
    const uint32_t key[] = {low(q.seed), high(q.seed)};
    uint32_t words[4];
    kernels_scalar()->philox(counter, key, words);
    return words[t % 4];
}

inline bool fires(const EncodeProblem& q, int64_t t, int64_t sample, int64_t pixel) {
    const double x = q.images[sample * q.pixels + pixel];
    if (!(x > 0)) return false;
    if (!q.rate) return double(t) == std::nearbyint((1 - x) * double(q.steps - 1));
    const double threshold = std::ceil(std::fmin(q.gain * x, 1) * 0x1p24);
    return (drawn_word(q, t, pixel, q.index[sample]) >> 8) < threshold;
}

inline Encoded by_definition(const EncodeProblem& q) {
    for (int64_t k = 0; k < q.images.size(); ++k)
        if (!(q.images[k] >= 0 && q.images[k] <= 1)) return {k / q.pixels, {}, {}};
    Encoded e = {-1, {0}, {}};
    for (int64_t b = 0; b < q.samples; ++b) {
        std::vector<bool> fired(static_cast<size_t>(q.pixels));  // the kept spikes of step t-1
        for (int64_t t = -q.prefix; t < q.steps; ++t) {
            for (int64_t k = 0; t >= 0 && k < q.pixels; ++k) {
                const auto at = static_cast<size_t>(k);
                fired[at] = fires(q, t, b, k) && !(q.thinned && fired[at]);
                if (fired[at]) e.indices.push_back(static_cast<int32_t>(k));
            }
            e.offsets.push_back(static_cast<int64_t>(e.indices.size()));
        }
    }
    return e;
}

inline Encoded encode(const Kernels& kernels, const EncodeProblem& q, bool altered, int threads, int poison) {
    Array<float> values(q.samples * q.pixels);
    std::copy(q.images.begin(), q.images.end(), values.begin());
    const Images images = {values.data(), q.samples, q.pixels, threads};
    Array<int64_t> before(q.samples + 1, poison), offsets(q.samples * q.rows() + 1, poison);
    const int64_t refused = kernels.count_active_pixels(images, before.data());
    if (refused >= 0) return {refused, {}, {}};
    if (altered) std::copy(q.altered.begin(), q.altered.end(), values.begin());
    const int64_t groups = first_group(before.data(), q.samples), drawn = ceil_div(q.steps, kDrawnSteps) * kDrawnSteps;
    Array<int32_t> active(groups * kPixelGroup, poison), indices(0);
    if (q.rate) {
        Array<uint32_t> thresholds(groups * kPixelGroup, poison);
        Array<uint16_t> fired(groups * drawn, poison);
        const RateEncoding p = {images, before.data(), q.index.data(),    q.steps,      q.prefix,       q.gain,
                                q.seed, active.data(), thresholds.data(), fired.data(), offsets.data(), q.thinned};
        kernels.rate_draw(p);
        indices = Array<int32_t>(offsets[offsets.size() - 1], poison);
        // Change the pixels back between the two passes.
        if (altered) std::copy(q.images.begin(), q.images.end(), values.begin());
        kernels.rate_write(p, indices.data());
    } else {
        Array<int32_t> fires_at(groups * kPixelGroup, poison);
        indices = Array<int32_t>(before[q.samples], poison);
        kernels.latency_encode(
            {images, before.data(), q.steps, q.prefix, active.data(), fires_at.data(), offsets.data(), indices.data()});
    }
    const int64_t count = offsets[offsets.size() - 1];
    CHECK(0 <= count && count <= indices.size() && std::is_sorted(offsets.begin(), offsets.end()));
    return {-1, {offsets.begin(), offsets.end()}, {indices.begin(), indices.begin() + count}};
}

inline EncodeProblem encode_problem(Input& in, int64_t samples, int64_t pixels, int64_t steps) {
    const bool rate = in.bit();
    EncodeProblem q = {samples,
                       pixels,
                       rate ? steps : steps + !steps,
                       in.below(4),
                       rate,
                       0.6,
                       in.bytes(8),
                       Array<float>(samples * pixels),
                       Array<float>(samples * pixels),
                       Array<int64_t>(samples)};
    const double gain = in.rarely(96) ? in.real<double>() : q.gain;
    if (std::isfinite(gain) && gain >= 0) q.gain = gain;
    Numbers numbers(in.bytes(4));
    const int64_t zeros = in.below(6);  // black pixels out of five
    for (float& x : q.images) {
        const int64_t size = numbers.below((1 << 24) + 1);
        // Multiples of 1/4 have latencies half-way between two steps.
        x = size % 4 ? static_cast<float>(size) * 0x1p-24f : static_cast<float>(size % 5) / 4;
        if (numbers.below(5) < zeros) x = 0;
    }
    for (int64_t& index : q.index) index = in.integer<int64_t>(numbers.below(1 << 30));
    // Usually valid pixels, rarely any values.
    if (q.images.size() && in.rarely(128))
        for (int64_t k = 1 + in.below(4); k > 0; --k) {
            const int64_t at = in.below(q.images.size());
            const float x = in.real<float>();
            if ((x >= 0 && x <= 1) || in.rarely(64)) q.images[at] = x;
        }
    std::copy(q.images.begin(), q.images.end(), q.altered.begin());
    if (in.bit())
        for (float& x : q.altered)
            if (numbers.below(3) == 0) x = in.real<float>();
    in.spoil(q.altered);
    q.thinned = q.rate && in.bit();
    return q;
}

// The property: every ISA gives the events of the definition. Images altered during a call cause no access outside the
// arrays. Returns whether the images are valid.
inline bool encoders_agree(Input& in, const EncodeProblem& q) {
    const Encoded expected = by_definition(q);
    for_each_table(in.thread_counts(), [&](const Kernels& kernels, int threads) {
        const int poison = &kernels == kernels_scalar() ? kPoison : kOtherPoison;
        CHECK(encode(kernels, q, false, threads, poison) == expected);
        CHECK(encode(kernels, q, true, threads, poison).refused == expected.refused);
    });
    return expected.refused < 0;
}

// A pixel fires if its random word is below its threshold. A threshold of the word plus 1/2 is enough, because
// thresholds are rounded up.
template <class Encode>
void check_thresholds(Encode encode) {
    const std::vector<float> white = {1};
    EncodeProblem q = {1,
                       1,
                       1,
                       0,
                       true,
                       0,
                       0x0123456789ABCDEF,
                       Array<float>(white),
                       Array<float>(white),
                       Array<int64_t>(std::vector<int64_t>{5})};
    const double word = drawn_word(q, 0, 0, 5) >> 8;
    for (const double above : {0.0, 0.5, 1.0}) {
        q.gain = (word + above) * 0x1p-24;
        CHECK(encode(q).indices.size() == (above > 0));
    }
}

}  // namespace srcell
