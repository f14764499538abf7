// Spike encoders that write events: the kernels that take the structs of encode.h. Included by kernels.cpp inside its
// namespace, after tile-inl.h for its loop over samples; knows pixels and nothing about the equations. The first part
// defines Words and Pixels for AVX-512, for AVX2, and in plain C++ for any other ISA. The rest is the same code for
// all: samples are split over threads, and a sample's active pixels are processed in groups of kPixelGroup.
//
// Another thread may change the images during a call. The events are then unspecified, but no access is out of bounds:
// a position that depends on a pixel is bounded where it is used.

// Words: one word of each of several Philox counters, side by side. Each is in the low half of a 64-bit lane, where the
// multiplication reads its operand and leaves the low half of the product. The high halves are unspecified.
//
// Pixels: the numbers of kPixelGroup pixels.
#if defined(SRCELL_ISA_avx512)

struct Words {
    static constexpr int width = 8;
    __m512i v;
};

SRCELL_INLINE Words splat_word(uint32_t x) { return {_mm512_set1_epi64(x)}; }
SRCELL_INLINE Words even_words(const int32_t* x) { return {_mm512_loadu_si512(x)}; }
SRCELL_INLINE Words odd_words(const int32_t* x) { return {_mm512_srli_epi64(_mm512_loadu_si512(x), 32)}; }
SRCELL_INLINE Words multiply(Words a, Words b) { return {_mm512_mul_epu32(a.v, b.v)}; }
SRCELL_INLINE Words high_half(Words x) { return {_mm512_srli_epi64(x.v, 32)}; }
// Truth table 0x96: per bit, the exclusive or of the three.
SRCELL_INLINE Words exclusive_or(Words a, Words b, Words c) { return {_mm512_ternarylogic_epi64(a.v, b.v, c.v, 0x96)}; }
SRCELL_INLINE uint32_t first_word(Words x) { return static_cast<uint32_t>(_mm512_cvtsi512_si32(x.v)); }

// Bit k: whether the top 24 bits of word k are below thresholds[k]; `even` and `odd` hold the words alternately.
SRCELL_INLINE uint32_t below(Words even, Words odd, const uint32_t* thresholds) {
    const __m512i words = _mm512_mask_shuffle_epi32(even.v, 0xAAAA, odd.v, _MM_PERM_CCAA);
    return _mm512_cmplt_epu32_mask(_mm512_srli_epi32(words, 8), _mm512_loadu_si512(thresholds));
}

struct Pixels {
    __m512i v;
};

SRCELL_INLINE Pixels load_pixels(const int32_t* x) { return {_mm512_loadu_si512(x)}; }

SRCELL_INLINE Pixels pixels_from(int64_t first) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first)), lanes)};
}

// Bit k: whether x[k] is in (0, 1], that is, active and valid; 0 past the first `lanes` elements.
SRCELL_INLINE uint32_t active_among(const float* x, int64_t lanes) {
    const __m512 v = load_lanes<F32x16>(x, lanes).v;
    const __mmask16 positive = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_mask_cmp_ps_mask(positive, v, _mm512_set1_ps(1), _CMP_LE_OQ);
}

// Writes the pixels whose bit in `chosen` is set, in order, and returns their number, at most `room`. May overwrite all
// of out[0, room).
SRCELL_INLINE int64_t append(Pixels pixels, uint32_t chosen, int32_t* out, int64_t room) {
    const int64_t count = __builtin_popcount(chosen);
    const __m512i packed = _mm512_maskz_compress_epi32(static_cast<__mmask16>(chosen), pixels.v);
    if (room >= kPixelGroup) {
        _mm512_storeu_si512(out, packed);
        return count;
    }
    _mm512_mask_storeu_epi32(out, first_lanes(room), packed);
    return count < room ? count : room;
}

#elif defined(SRCELL_ISA_avx2)

struct Words {
    static constexpr int width = 4;
    __m256i v;
};

SRCELL_INLINE __m256i load_integers(const void* x) { return _mm256_loadu_si256(static_cast<const __m256i*>(x)); }
SRCELL_INLINE Words splat_word(uint32_t x) { return {_mm256_set1_epi64x(x)}; }
SRCELL_INLINE Words even_words(const int32_t* x) { return {load_integers(x)}; }
SRCELL_INLINE Words odd_words(const int32_t* x) { return {_mm256_srli_epi64(load_integers(x), 32)}; }
SRCELL_INLINE Words multiply(Words a, Words b) { return {_mm256_mul_epu32(a.v, b.v)}; }
SRCELL_INLINE Words high_half(Words x) { return {_mm256_srli_epi64(x.v, 32)}; }
SRCELL_INLINE Words exclusive_or(Words a, Words b, Words c) {
    return {_mm256_xor_si256(_mm256_xor_si256(a.v, b.v), c.v)};
}
SRCELL_INLINE uint32_t first_word(Words x) { return static_cast<uint32_t>(_mm256_cvtsi256_si32(x.v)); }

// Bit k: whether the top 24 bits of word k are below thresholds[k]; `even` and `odd` hold the words alternately.
SRCELL_INLINE uint32_t below(Words even, Words odd, const uint32_t* thresholds) {
    const __m256i words = _mm256_blend_epi32(even.v, _mm256_slli_epi64(odd.v, 32), 0xAA);
    const __m256i less = _mm256_cmpgt_epi32(load_integers(thresholds), _mm256_srli_epi32(words, 8));
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(less)));
}

struct Pixels {
    __m256i low, high;
};

SRCELL_INLINE Pixels load_pixels(const int32_t* x) { return {load_integers(x), load_integers(x + 8)}; }

SRCELL_INLINE Pixels pixels_from(int64_t first) {
    const __m256i start = _mm256_set1_epi32(static_cast<int>(first));
    return {_mm256_add_epi32(start, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            _mm256_add_epi32(start, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}

SRCELL_INLINE uint32_t active_among_eight(const float* x, int64_t lanes) {
    const __m256 v = load_lanes<F32x8>(x, lanes).v;
    const __m256 positive = _mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_GT_OQ);
    const __m256 at_most_one = _mm256_cmp_ps(v, _mm256_set1_ps(1), _CMP_LE_OQ);
    return static_cast<uint32_t>(_mm256_movemask_ps(_mm256_and_ps(positive, at_most_one)));
}

// Bit k: whether x[k] is in (0, 1], that is, active and valid; 0 past the first `lanes` elements.
SRCELL_INLINE uint32_t active_among(const float* x, int64_t lanes) {
    return active_among_eight(x, lanes) | active_among_eight(x + 8, lanes - 8) << 8;
}

// For each 8-bit mask, the numbers of its set lanes in ascending order, one byte each, the first in the lowest byte.
struct LaneNumbers {
    uint64_t of[256];
};

constexpr LaneNumbers number_lanes() {
    LaneNumbers numbers{};
    for (int chosen = 0; chosen < 256; ++chosen) {
        int count = 0;
        for (int lane = 0; lane < 8; ++lane)
            if (chosen >> lane & 1) numbers.of[chosen] |= uint64_t(lane) << 8 * count++;
    }
    return numbers;
}

constexpr LaneNumbers kLaneNumbers = number_lanes();

SRCELL_INLINE int64_t append_eight(__m256i pixels, uint32_t chosen, int32_t* out, int64_t room) {
    const int64_t count = __builtin_popcount(chosen);
    const __m128i numbers = _mm_cvtsi64_si128(static_cast<long long>(kLaneNumbers.of[chosen]));
    const __m256i packed = _mm256_permutevar8x32_epi32(pixels, _mm256_cvtepu8_epi32(numbers));
    if (room >= 8) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), packed);
        return count;
    }
    _mm256_maskstore_epi32(out, first_lanes(room), packed);
    return count < room ? count : room;
}

// Writes the pixels whose bit in `chosen` is set, in order, and returns their number, at most `room`. May overwrite all
// of out[0, room).
SRCELL_INLINE int64_t append(Pixels pixels, uint32_t chosen, int32_t* out, int64_t room) {
    const int64_t count = append_eight(pixels.low, chosen & 0xFF, out, room);
    return count + append_eight(pixels.high, chosen >> 8, out + count, room - count);
}

#else

struct Words {
    static constexpr int width = 1;
    uint64_t v;
};

SRCELL_INLINE Words splat_word(uint32_t x) { return {x}; }
SRCELL_INLINE Words even_words(const int32_t* x) { return {static_cast<uint32_t>(x[0])}; }
SRCELL_INLINE Words odd_words(const int32_t* x) { return {static_cast<uint32_t>(x[1])}; }
SRCELL_INLINE Words multiply(Words a, Words b) { return {(a.v & 0xFFFFFFFF) * (b.v & 0xFFFFFFFF)}; }
SRCELL_INLINE Words high_half(Words x) { return {x.v >> 32}; }
SRCELL_INLINE Words exclusive_or(Words a, Words b, Words c) { return {a.v ^ b.v ^ c.v}; }
SRCELL_INLINE uint32_t first_word(Words x) { return static_cast<uint32_t>(x.v); }

// Bit k: whether the top 24 bits of word k are below thresholds[k]; `even` and `odd` hold the words alternately.
SRCELL_INLINE uint32_t below(Words even, Words odd, const uint32_t* thresholds) {
    return uint32_t(first_word(even) >> 8 < thresholds[0]) | uint32_t(first_word(odd) >> 8 < thresholds[1]) << 1;
}

struct Pixels {
    int32_t lanes[kPixelGroup];
};

SRCELL_INLINE Pixels load_pixels(const int32_t* x) {
    Pixels pixels;
    __builtin_memcpy(pixels.lanes, x, sizeof pixels.lanes);
    return pixels;
}

SRCELL_INLINE Pixels pixels_from(int64_t first) {
    Pixels pixels;
    for (int k = 0; k < kPixelGroup; ++k) pixels.lanes[k] = static_cast<int32_t>(first + k);
    return pixels;
}

// Bit k: whether x[k] is in (0, 1], that is, active and valid; 0 past the first `lanes` elements.
SRCELL_INLINE uint32_t active_among(const float* x, int64_t lanes) {
    uint32_t active = 0;
    for (int k = 0; k < kPixelGroup && k < lanes; ++k) active |= uint32_t(x[k] > 0 && x[k] <= 1) << k;
    return active;
}

// Writes the pixels whose bit in `chosen` is set, in order, and returns their number, at most `room`.
SRCELL_INLINE int64_t append(const Pixels& pixels, uint32_t chosen, int32_t* out, int64_t room) {
    int64_t count = 0;
    for (; chosen && count < room; chosen &= chosen - 1) out[count++] = pixels.lanes[__builtin_ctz(chosen)];
    return count;
}

#endif

SRCELL_INLINE uint32_t low_half(uint64_t x) { return static_cast<uint32_t>(x); }
SRCELL_INLINE uint32_t high_half(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

struct Counter {
    Words words[4];
};

SRCELL_INLINE Counter philox_round(const Counter& counter, Words key0, Words key1) {
    const Words a = multiply(counter.words[0], splat_word(0xD2511F53));
    const Words b = multiply(counter.words[2], splat_word(0xCD9E8D57));
    return {
        {exclusive_or(high_half(b), counter.words[1], key0), b, exclusive_or(high_half(a), counter.words[3], key1), a}};
}

// Advances several counters at once, round by round, because each round of a counter depends on the one before. The
// compiler hoists what all counters of a loop share, such as the products of the first round for all pixels of a step.
template <int count>
SRCELL_INLINE void philox4x32_10(Counter (&counters)[count], uint32_t key0, uint32_t key1) {
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
#pragma GCC unroll 4
        for (Counter& counter : counters) counter = philox_round(counter, splat_word(key0), splat_word(key1));
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
}

inline void philox_words(const uint32_t* counter, const uint32_t* key, uint32_t* words) {
    Counter counters[1];
    for (int k = 0; k < 4; ++k) counters[0].words[k] = splat_word(counter[k]);
    philox4x32_10(counters, key[0], key[1]);
    for (int k = 0; k < 4; ++k) words[k] = first_word(counters[0].words[k]);
}

// The number of active pixels, or -1 if any pixel is not in [0, 1].
SRCELL_INLINE int64_t count_active(const float* image, int64_t pixels) {
    uint32_t active = 0, valid = 0;
    for (int64_t k = 0; k < pixels; ++k) {
        active += image[k] > 0;
        valid += uint32_t(image[k] >= 0) & uint32_t(image[k] <= 1);
    }
    return valid == pixels ? int64_t(active) : -1;
}

struct CountActive {
    Images images;
    int64_t* counts;
};

inline void count_active_of(const CountActive& p, int64_t b) {
    p.counts[b] = count_active(p.images.values + b * p.images.pixels, p.images.pixels);
}

inline int64_t count_active_pixels(const Images& images, int64_t* active_before) {
    for_each_item<count_active_of>(images.samples, images.threads, CountActive{images, active_before + 1});
    active_before[0] = 0;
    for (int64_t b = 0; b < images.samples; ++b) {
        if (active_before[b + 1] < 0) return b;
        active_before[b + 1] += active_before[b];
    }
    return -1;
}

// Lists a sample's active pixels, at most `room`, and returns their number.
SRCELL_INLINE int64_t list_active(const float* image, int64_t pixels, int32_t* active, int64_t room) {
    int64_t count = 0;
    for (int64_t k = 0; k < pixels; k += kPixelGroup)
        count += append(pixels_from(k), active_among(image + k, pixels - k), active + count, room - count);
    return count;
}

SRCELL_INLINE uint32_t rate_threshold(double gain, double pixel) {
    const double probability = gain * pixel;
    return static_cast<uint32_t>(__builtin_ceil((probability < 1 ? probability : 1) * 0x1p24));
}

// A sample's part of a RateEncoding's scratch.
struct SampleDraws {
    int64_t groups;
    int32_t* active;
    uint32_t* thresholds;
    uint16_t* fired;  // (steps, groups)
};

SRCELL_INLINE SampleDraws draws_of(const RateEncoding& p, int64_t b) {
    const int64_t active = p.active_before[b + 1] - p.active_before[b], first = first_group(p.active_before, b);
    const int64_t steps = ceil_div(p.steps, kDrawnSteps) * kDrawnSteps;
    return {ceil_div(active, kPixelGroup), p.active + first * kPixelGroup, p.thresholds + first * kPixelGroup,
            p.fired + first * steps};
}

// Lists the active pixels and their thresholds, and fills up the last group with pixels that never fire.
SRCELL_INLINE void list_thresholds(const RateEncoding& p, int64_t b, const SampleDraws& sample) {
    const float* image = p.images.values + b * p.images.pixels;
    const int64_t room = p.active_before[b + 1] - p.active_before[b];
    const int64_t count = list_active(image, p.images.pixels, sample.active, room);
    for (int64_t j = 0; j < count; ++j) sample.thresholds[j] = rate_threshold(p.gain, image[sample.active[j]]);
    for (int64_t j = count; j < sample.groups * kPixelGroup; ++j) {
        sample.active[j] = 0;
        sample.thresholds[j] = 0;
    }
}

// Draws the steps [t, t + kDrawnSteps) of one group. Sets bit k of fired[step], which is 0 on entry, if pixel k fires
// at t + step.
SRCELL_INLINE void draw_group(int64_t t, uint64_t index, uint64_t seed, const int32_t* pixels,
                              const uint32_t* thresholds, uint32_t (&fired)[kDrawnSteps]) {
    constexpr int blocks = kDrawnSteps / kPhiloxSteps;
    const auto block = static_cast<uint32_t>(t / kPhiloxSteps);
    const Words low = splat_word(low_half(index)), high = splat_word(high_half(index));
    for (int lane = 0; lane < kPixelGroup; lane += 2 * Words::width) {
        const Words even = even_words(pixels + lane), odd = odd_words(pixels + lane);
        Counter counters[2 * blocks];
        for (int k = 0; k < blocks; ++k) {
            const Words first = splat_word(block + static_cast<uint32_t>(k));
            counters[2 * k] = {{first, even, low, high}};
            counters[2 * k + 1] = {{first, odd, low, high}};
        }
        philox4x32_10(counters, low_half(seed), high_half(seed));
        for (int k = 0; k < blocks; ++k) {
            const Counter &a = counters[2 * k], &b = counters[2 * k + 1];
            for (int word = 0; word < kPhiloxSteps; ++word)
                fired[k * kPhiloxSteps + word] |= below(a.words[word], b.words[word], thresholds + lane) << lane;
        }
    }
}

// Writes the number of events of each of the sample's rows to offsets[row + 1]; rate_draw() turns these into offsets.
inline void draw_sample(const RateEncoding& p, int64_t b) {
    const SampleDraws sample = draws_of(p, b);
    list_thresholds(p, b, sample);
    int64_t* counts = p.offsets + 1 + b * (p.prefix + p.steps);
    for (int64_t t = 0; t < p.prefix; ++t) *counts++ = 0;
    for (int64_t t = 0; t < p.steps; t += kDrawnSteps) {
        int64_t events[kDrawnSteps] = {};
        for (int64_t group = 0; group < sample.groups; ++group) {
            uint32_t fired[kDrawnSteps] = {};
            draw_group(t, static_cast<uint64_t>(p.index[b]), p.seed, sample.active + group * kPixelGroup,
                       sample.thresholds + group * kPixelGroup, fired);
            uint32_t before = t ? sample.fired[(t - 1) * sample.groups + group] : 0;
            for (int64_t step = 0; step < kDrawnSteps; ++step) {
                if (p.thinned) fired[step] &= ~before;
                before = fired[step];
                sample.fired[(t + step) * sample.groups + group] = static_cast<uint16_t>(fired[step]);
                events[step] += __builtin_popcount(fired[step]);
            }
        }
        for (int64_t step = 0; step < kDrawnSteps && t + step < p.steps; ++step) *counts++ = events[step];
    }
}

inline void rate_draw(const RateEncoding& p) {
    for_each_item<draw_sample>(p.images.samples, p.images.threads, p);
    p.offsets[0] = 0;
    const int64_t rows = p.images.samples * (p.prefix + p.steps);
    for (int64_t row = 0; row < rows; ++row) p.offsets[row + 1] += p.offsets[row];
}

struct RateWrite {
    const RateEncoding& encoding;
    int32_t* indices;
};

inline void write_sample(const RateWrite& to, int64_t b) {
    const auto& [p, indices] = to;
    const SampleDraws sample = draws_of(p, b);
    const int64_t rows = p.prefix + p.steps;
    int32_t* out = indices + p.offsets[b * rows];
    // append() may not write past `end`: another thread may be writing right after the sample's events.
    const int32_t* end = indices + p.offsets[(b + 1) * rows];
    const uint16_t* fired = sample.fired;
    for (int64_t t = 0; t < p.steps; ++t)
        for (int64_t group = 0; group < sample.groups; ++group)
            out += append(load_pixels(sample.active + group * kPixelGroup), *fired++, out, end - out);
}

inline void rate_write(const RateEncoding& p, int32_t* indices) {
    for_each_item<write_sample>(p.images.samples, p.images.threads, RateWrite{p, indices});
}

// The result is in [0, last] for any pixel, including NaN: the pixel is read again here and may have changed since it
// was found active.
SRCELL_INLINE int32_t latency(double pixel, double last) {
    const double step = __builtin_nearbyint((1 - pixel) * last);
    return static_cast<int32_t>(step > 0 ? step < last ? step : last : 0);
}

// A counting sort by step, which is stable: the pixels of a step stay in order.
inline void encode_latencies(const LatencyEncoding& p, int64_t b) {
    const float* image = p.images.values + b * p.images.pixels;
    const int64_t first = first_group(p.active_before, b) * kPixelGroup, rows = p.prefix + p.steps;
    int32_t *active = p.active + first, *fires_at = p.fires_at + first;
    const int64_t room = p.active_before[b + 1] - p.active_before[b];
    const int64_t count = list_active(image, p.images.pixels, active, room);
    const double last = static_cast<double>(p.steps - 1);
    for (int64_t j = 0; j < count; ++j) fires_at[j] = latency(image[active[j]], last);

    int64_t* ends = p.offsets + 1 + b * rows;
    for (int64_t t = 0; t < rows; ++t) ends[t] = 0;
    for (int64_t j = 0; j < count; ++j) ++ends[p.prefix + fires_at[j]];
    int64_t position = p.active_before[b];
    for (int64_t t = 0; t < rows; ++t) {
        const int64_t events = ends[t];
        ends[t] = position;  // the row's start; the loop below advances it to the row's end
        position += events;
    }
    for (int64_t j = 0; j < count; ++j) p.indices[ends[p.prefix + fires_at[j]]++] = active[j];
}

inline void latency_encode(const LatencyEncoding& p) {
    for_each_item<encode_latencies>(p.images.samples, p.images.threads, p);
    p.offsets[0] = 0;
}
