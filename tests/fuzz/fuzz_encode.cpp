// Fuzz target: the encoders of every ISA against the definition in encode.h, event by event. Images with pixels outside
// [0, 1] are refused by number, and images altered during a call cause no access outside the arrays.
#include <cmath>

#include "input.h"

using namespace srcell;

namespace {

struct Problem {
    int64_t samples, pixels, steps, prefix;
    bool rate;
    double gain;
    uint64_t seed;
    Array<float> images, altered;  // altered: the pixels after they were counted
    Array<int64_t> index;
    bool thinned = false;

    int64_t rows() const { return prefix + steps; }
};

struct Encoded {
    std::vector<int64_t> offsets;
    std::vector<int32_t> indices;
    bool operator==(const Encoded& other) const { return offsets == other.offsets && indices == other.indices; }
};

uint32_t drawn_word(const Problem& q, int64_t t, int64_t pixel, int64_t index) {
    const auto low = [](uint64_t x) { return static_cast<uint32_t>(x); };
    const auto high = [](uint64_t x) { return static_cast<uint32_t>(x >> 32); };
    const auto number = static_cast<uint64_t>(index);
    const uint32_t counter[] = {static_cast<uint32_t>(t / 4), static_cast<uint32_t>(pixel), low(number), high(number)};
    const uint32_t key[] = {low(q.seed), high(q.seed)};
    uint32_t words[4];
    kernels_scalar()->philox(counter, key, words);
    return words[t % 4];
}

bool fires(const Problem& q, int64_t t, int64_t sample, int64_t pixel) {
    const double x = q.images[sample * q.pixels + pixel];
    if (!(x > 0)) return false;
    if (!q.rate) return double(t) == std::nearbyint((1 - x) * double(q.steps - 1));
    const double threshold = std::ceil(std::fmin(q.gain * x, 1) * 0x1p24);
    return (drawn_word(q, t, pixel, q.index[sample]) >> 8) < threshold;
}

Encoded by_definition(const Problem& q) {
    Encoded e = {{0}, {}};
    for (int64_t b = 0; b < q.samples; ++b) {
        std::vector<bool> fired(static_cast<size_t>(q.pixels));  // in the step before, as kept
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

// The number of the refused sample, or -1; fills the events.
int64_t encode(const Kernels& kernels, const Problem& q, bool altered, int threads, int poison, Encoded& encoded) {
    Array<float> values(q.samples * q.pixels);
    std::copy(q.images.begin(), q.images.end(), values.begin());
    const Images images = {values.data(), q.samples, q.pixels, threads};
    Array<int64_t> before(q.samples + 1, poison), offsets(q.samples * q.rows() + 1, poison);
    const int64_t refused = kernels.count_active_pixels(images, before.data());
    if (refused >= 0) return refused;
    if (altered) std::copy(q.altered.begin(), q.altered.end(), values.begin());
    const int64_t groups = first_group(before.data(), q.samples);
    Array<int32_t> active(groups * kPixelGroup, poison);
    const auto keep = [&](const Array<int32_t>& indices, int64_t count) {
        CHECK(0 <= count && count <= indices.size());
        encoded = {{offsets.begin(), offsets.end()}, {indices.begin(), indices.begin() + count}};
    };
    if (q.rate) {
        Array<uint32_t> thresholds(groups * kPixelGroup, poison);
        Array<uint16_t> fired(groups * ((q.steps + kDrawnSteps - 1) / kDrawnSteps * kDrawnSteps), poison);
        const RateEncoding p = {images, before.data(), q.index.data(),    q.steps,      q.prefix,       q.gain,
                                q.seed, active.data(), thresholds.data(), fired.data(), offsets.data(), q.thinned};
        kernels.rate_draw(p);
        Array<int32_t> indices(offsets[offsets.size() - 1], poison);
        // Change them back between the two passes.
        if (altered) std::copy(q.images.begin(), q.images.end(), values.begin());
        kernels.rate_write(p, indices.data());
        keep(indices, indices.size());
    } else {
        Array<int32_t> fires_at(groups * kPixelGroup, poison), indices(before[q.samples], poison);
        kernels.latency_encode(
            {images, before.data(), q.steps, q.prefix, active.data(), fires_at.data(), offsets.data(), indices.data()});
        keep(indices, offsets[offsets.size() - 1]);
    }
    for (size_t row = 1; row < encoded.offsets.size(); ++row) CHECK(encoded.offsets[row - 1] <= encoded.offsets[row]);
    for (const int32_t index : encoded.indices) CHECK(altered || (0 <= index && index < q.pixels));
    return -1;
}

Problem problem(Input& in) {
    const int64_t samples = in.size(4), pixels = in.size(in.rarely(32) ? 150 : 40), steps = in.size(24);
    const bool rate = in.bit();
    Problem q = {samples,
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
    const int64_t zeros = in.below(6);  // of five pixels
    for (float& x : q.images)
        x = numbers.below(5) < zeros ? 0 : static_cast<float>(numbers.below((1 << 24) + 1)) * 0x1p-24f;
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

bool encoders_agree(Input& in) {
    const int threads = in.threads();
    const Problem q = problem(in);
    int64_t outside = -1;
    for (int64_t k = 0; k < q.images.size() && outside < 0; ++k)
        if (!(q.images[k] >= 0 && q.images[k] <= 1)) outside = k / q.pixels;
    Encoded expected;
    if (outside < 0) expected = by_definition(q);
    for (const Kernels* kernels : available_kernels()) {
        const int poison = kernels == kernels_scalar() ? kPoison : kOtherPoison;
        Encoded encoded;
        CHECK(encode(*kernels, q, false, threads, poison, encoded) == outside);
        CHECK(encoded == expected);
        CHECK(encode(*kernels, q, true, threads, poison, encoded) == outside);
    }
    return outside < 0 && q.images.size() && q.steps;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    return fuzz("encode", data, size, encoders_agree);
}
