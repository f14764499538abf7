// Masks on a GPU, one bit per input: those of the nonzero elements of a dense input, and those of the pixels that fire
// at each step of rate coding. Also makes a mask's columns (one bit per step; see kernels.h) and event rows. Knows
// nothing about the equations.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

// Bit j: whether x[j] is nonzero; NaN counts as nonzero.
template <class T>
SRCELL_INLINE uint64_t nonzero_bits(const T* x, int64_t count) {
    uint64_t bits = 0;
    for (int64_t j = 0; j < count; ++j) bits |= uint64_t(x[j] != 0) << j;
    return bits;
}

// A thread computes one word of the mask.
template <class T>
struct MaskElementsBody {
    DeviceMask<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), words = mask_words(p.inputs), steps = p.shape.steps;
        if (item >= p.shape.batch * steps * words) return;
        const int64_t row = item / words, first = item % words * 64, sample = row / steps, t = row % steps;
        const int64_t left = p.inputs - first;
        const T* elements = p.elements + (t * p.shape.batch + sample) * p.inputs + first;
        p.mask[item] = t < steps_of(p.shape, sample) ? nonzero_bits(elements, left < 64 ? left : 64) : 0;
    }
};

template <class T>
void mask_elements(Queue& queue, const DeviceMask<T>& p) {
    launch(queue, spread(queue, p.shape.batch * p.shape.steps * mask_words(p.inputs)), MaskElementsBody<T>{p});
}

// A thread computes one word of the columns: one segment of steps of one input of one sample.
template <class T>
struct MaskColumnsBody {
    DeviceMask<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), segment_count = segments(p.shape.steps, kEventSegment);
        if (item >= p.shape.batch * segment_count * p.inputs) return;
        const int64_t input = item % p.inputs, sample = item / p.inputs / segment_count;
        const int64_t first = item / p.inputs % segment_count * kEventSegment, words = mask_words(p.inputs);
        const uint64_t* mask = p.mask + (sample * p.shape.steps + first) * words + input / 64;
        uint32_t bits = 0;
        for (int64_t j = 0; j < kEventSegment && first + j < p.shape.steps; ++j)
            bits |= static_cast<uint32_t>(mask[j * words] >> input % 64 & 1) << j;
        p.columns[item] = bits;
    }
};

template <class T>
void mask_columns(Queue& queue, const DeviceMask<T>& p) {
    const int64_t items = p.shape.batch * segments(p.shape.steps, kEventSegment) * p.inputs;
    launch(queue, spread(queue, items), MaskColumnsBody<T>{p});
}

// A thread counts or lists the events of one row, which belongs to the prefix or to the mask.
template <bool list>
struct MaskEventsBody {
    MaskEvents p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t row = place.item(), rows = p.prefix + p.steps, words = mask_words(p.inputs);
        if (row >= p.batch * rows) return;
        const int64_t sample = row / rows, t = row % rows - p.prefix;
        const int64_t first = (sample * p.steps + t) * words;
        int64_t count = 0;
        // There is room for the counted bits only, not for bits that were set since.
        const int64_t start = list ? p.offsets[row] : 0, room = list ? p.offsets[row + 1] - start : 0;
        for (int64_t w = 0; t >= 0 && w < words; ++w) {
            if constexpr (list)
                for (uint64_t bits = p.mask[first + w]; bits && count < room; bits &= bits - 1)
                    p.indices[start + count++] = static_cast<int32_t>(w * 64 + lowest_bit(bits));
            else
                count += count_bits(p.mask[first + w]);
        }
        if constexpr (!list) p.counts[row] = count;
    }
};

inline void count_mask(Queue& queue, const MaskEvents& p) {
    launch(queue, spread(queue, p.batch * (p.prefix + p.steps)), MaskEventsBody<false>{p});
}

inline void list_mask(Queue& queue, const MaskEvents& p) {
    launch(queue, spread(queue, p.batch * (p.prefix + p.steps)), MaskEventsBody<true>{p});
}

struct PhiloxWords {
    uint32_t a, b, c, d;
};

// Philox4x32-10, the generator of the CPU's encoder.
SRCELL_INLINE PhiloxWords philox4x32_10(PhiloxWords counter, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t x = uint64_t(0xD2511F53) * counter.a, y = uint64_t(0xCD9E8D57) * counter.c;
        counter = {static_cast<uint32_t>(y >> 32) ^ counter.b ^ key0, static_cast<uint32_t>(y),
                   static_cast<uint32_t>(x >> 32) ^ counter.d ^ key1, static_cast<uint32_t>(x)};
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
    return counter;
}

SRCELL_INLINE uint32_t rate_threshold(double gain, double pixel) {
    const Value<double> probability = Value<double>{gain} * Value<double>{pixel};
    const Value<double> scaled = at_most(probability, Value<double>{1}) * Value<double>{0x1p24};
    return static_cast<uint32_t>(std::ceil(scaled.x));
}

// A thread draws kPhiloxSteps steps of 64 pixels.
struct RateMaskBody {
    DeviceRateEncoding p;

    SRCELL_HOST_DEVICE int64_t blocks() const { return ceil_div(p.steps, kPhiloxSteps); }

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), words = mask_words(p.pixels);
        if (item >= p.batch * blocks() * words) return;
        const int64_t word = item % words, block = item / words % blocks(), sample = item / words / blocks();
        const auto index = static_cast<uint64_t>(p.index[sample]);
        uint64_t first = 0, second = 0, third = 0, fourth = 0;
        for (int64_t j = 0; j < 64 && word * 64 + j < p.pixels; ++j) {
            const float pixel = p.images[sample * p.pixels + word * 64 + j];
            if (!(pixel > 0)) continue;
            const uint32_t threshold = rate_threshold(p.gain, static_cast<double>(pixel));
            const PhiloxWords drawn = philox4x32_10({static_cast<uint32_t>(block), static_cast<uint32_t>(word * 64 + j),
                                                     static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32)},
                                                    static_cast<uint32_t>(p.seed), static_cast<uint32_t>(p.seed >> 32));
            first |= uint64_t(drawn.a >> 8 < threshold) << j;
            second |= uint64_t(drawn.b >> 8 < threshold) << j;
            third |= uint64_t(drawn.c >> 8 < threshold) << j;
            fourth |= uint64_t(drawn.d >> 8 < threshold) << j;
        }
        const int64_t t = block * kPhiloxSteps;
        uint64_t* const rows = p.mask + (sample * p.steps + t) * words + word;
        rows[0] = first;
        if (t + 1 < p.steps) rows[words] = second;
        if (t + 2 < p.steps) rows[2 * words] = third;
        if (t + 3 < p.steps) rows[3 * words] = fourth;
    }
};

// Drops a pixel's spike if the pixel fired in the step before and that spike was kept. A thread handles all steps of 64
// pixels.
struct ThinMaskBody {
    DeviceRateEncoding p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), words = mask_words(p.pixels);
        if (item >= p.batch * words) return;
        const int64_t first = item / words * p.steps * words + item % words;
        uint64_t before = 0;
        for (int64_t t = 0; t < p.steps; ++t) before = p.mask[first + t * words] &= ~before;
    }
};

inline void rate_mask(Queue& queue, const DeviceRateEncoding& p) {
    const RateMaskBody body = {p};
    launch(queue, spread(queue, p.batch * body.blocks() * mask_words(p.pixels)), body);
    if (p.thinned) launch(queue, spread(queue, p.batch * mask_words(p.pixels)), ThinMaskBody{p});
}

}  // namespace device
}  // namespace srcell
