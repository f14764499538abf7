// The encoders of every ISA against the scalar table, with arrays of exactly the promised size, for the sanitizers.
#include <algorithm>

#include "support.h"

using namespace srcell;

namespace {

struct Encoded {
    std::vector<int64_t> offsets;
    std::vector<int32_t> indices;

    bool operator==(const Encoded& other) const { return offsets == other.offsets && indices == other.indices; }
};

struct Problem {
    int64_t samples, pixels, steps, prefix;
    bool rate, thinned;
};

// What another thread may do to the images during a call.
void alter(Array<float>& values) {
    const float wild[] = {1, __builtin_nanf(""), 7};
    for (int64_t k = 0; k < values.size(); ++k) values[k] = wild[k % 3];
}

Encoded encode(const Kernels& kernels, const Problem& q, const std::vector<float>& pixels, int threads, bool altered) {
    Array<float> values(pixels);
    const Images images = {values.data(), q.samples, q.pixels, threads};
    Array<int64_t> before(q.samples + 1), index(q.samples);
    for (int64_t b = 0; b < q.samples; ++b) index[b] = b * 1234567890123;
    CHECK(kernels.count_active_pixels(images, before.data()) == -1);
    const int64_t active = before[q.samples], groups = first_group(before.data(), q.samples);
    const int64_t drawn = (q.steps + kDrawnSteps - 1) / kDrawnSteps * kDrawnSteps;
    Array<int32_t> listed(groups * kPixelGroup), fires_at(groups * kPixelGroup);
    Array<uint32_t> thresholds(groups * kPixelGroup);
    Array<uint16_t> fired(groups * drawn);
    Array<int64_t> offsets(q.samples * (q.prefix + q.steps) + 1);
    if (altered) alter(values);
    const auto result = [&](const Array<int32_t>& indices) {
        const int64_t count = offsets[offsets.size() - 1];
        CHECK(count <= indices.size());
        return Encoded{{offsets.begin(), offsets.end()}, {indices.begin(), indices.begin() + count}};
    };
    if (q.rate) {
        const RateEncoding p = {images, before.data(), index.data(),      q.steps,      q.prefix,       0.6,
                                99,     listed.data(), thresholds.data(), fired.data(), offsets.data(), q.thinned};
        kernels.rate_draw(p);
        Array<int32_t> indices(offsets[offsets.size() - 1]);
        kernels.rate_write(p, indices.data());
        return result(indices);
    }
    Array<int32_t> indices(active);
    kernels.latency_encode(
        {images, before.data(), q.steps, q.prefix, listed.data(), fires_at.data(), offsets.data(), indices.data()});
    CHECK(altered || offsets[offsets.size() - 1] == active);
    return result(indices);
}

// Without the spikes of pixels that fired, as kept, in the step before.
Encoded thinned(const Problem& q, const Encoded& all) {
    Encoded kept = {{0}, {}};
    std::vector<int32_t> before;
    const auto rows = static_cast<size_t>(q.samples * (q.prefix + q.steps));
    for (size_t row = 0; row < rows; ++row) {
        if (static_cast<int64_t>(row) % (q.prefix + q.steps) == 0) before.clear();
        std::vector<int32_t> now;
        for (int64_t e = all.offsets[row]; e < all.offsets[row + 1]; ++e) {
            const int32_t pixel = all.indices[static_cast<size_t>(e)];
            if (std::find(before.begin(), before.end(), pixel) == before.end()) now.push_back(pixel);
        }
        kept.indices.insert(kept.indices.end(), now.begin(), now.end());
        kept.offsets.push_back(static_cast<int64_t>(kept.indices.size()));
        before = now;
    }
    return kept;
}

void tables_agree() {
    uint64_t number = 0;
    Numbers numbers(1);
    for (const int64_t samples : {0, 1, 3, 9})
        for (const int64_t pixels : {0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100})
            for (const int64_t steps : {0, 1, 7, 8, 9, 20}) {
                Options bits(++number);
                const int64_t zeros = std::vector<int64_t>{0, 1, 4}[number % 3];  // per five pixels, on average
                std::vector<float> values(static_cast<size_t>(samples * pixels));
                for (float& x : values)
                    x = numbers.below(5) < zeros ? 0 : static_cast<float>(numbers.below(1 << 24)) * 0x1p-24f;
                const int64_t prefix = bits.next() ? 2 : 0;
                for (const bool rate : {true, false}) {
                    if (!rate && !steps) continue;
                    Problem q = {samples, pixels, steps, prefix, rate, false};
                    Encoded expected = encode(*kernels_scalar(), q, values, 1, false);
                    const auto compare = [&] {
                        for_each_table([&](const Kernels& kernels, int threads) {
                            CHECK(encode(kernels, q, values, threads, false) == expected);
                            encode(kernels, q, values, threads, true);
                        });
                    };
                    compare();
                    if (!rate) continue;
                    q.thinned = true;
                    expected = thinned(q, expected);
                    compare();
                }
            }
}

// A pixel fires if its word is below its threshold. Half above the word is enough, because thresholds are rounded up.
void thresholds_are_rounded_up() {
    const uint64_t seed = 0x0123456789ABCDEF;
    const uint32_t key[] = {0x89ABCDEF, 0x01234567}, counter[] = {0, 0, 5, 0};
    for_each_table([&](const Kernels& kernels, int threads) {
        uint32_t words[4];
        kernels.philox(counter, key, words);
        const double word = words[0] >> 8;
        const auto fires = [&](double gain) {
            const Array<float> white(std::vector<float>{1});
            const Array<int64_t> index(std::vector<int64_t>{5});
            const Images images = {white.data(), 1, 1, threads};
            int64_t before[2], offsets[2];
            CHECK(kernels.count_active_pixels(images, before) == -1);
            int32_t active[2 * kPixelGroup];
            uint32_t thresholds[2 * kPixelGroup];
            uint16_t fired[2 * kDrawnSteps];
            kernels.rate_draw({images, before, index.data(), 1, 0, gain, seed, active, thresholds, fired, offsets});
            return offsets[1];
        };
        CHECK(fires(word * 0x1p-24) == 0);
        CHECK(fires((word + 0.5) * 0x1p-24) == 1);
        CHECK(fires((word + 1) * 0x1p-24) == 1);
    });
}

// The first sample with a pixel out of range is reported, whatever the ISA and the threads.
void pixels_out_of_range_are_refused() {
    for (const float wrong : {-1e-30f, 1.0000001f, __builtin_nanf(""), __builtin_inff()})
        for_each_table([&](const Kernels& kernels, int threads) {
            Array<float> values(std::vector<float>(5 * 33, 0.5f));
            values[2 * 33 + 32] = values[4 * 33] = wrong;
            Array<int64_t> before(6);
            CHECK(kernels.count_active_pixels({values.data(), 5, 33, threads}, before.data()) == 2);
        });
}

}  // namespace

int main() {
    tables_agree();
    thresholds_are_rounded_up();
    pixels_out_of_range_are_refused();
    std::printf("encode: passed\n");
}
