// The arguments of the encoders in the dispatch table: plain structs of pointers, sizes and options; nothing here
// allocates or owns memory. The bindings fill the structs. These know neither Python nor an ISA, nor what a network
// does with events.
//
// Shapes use B samples, K pixels and T = prefix + steps steps. Every array is dense and row-major. The caller owns it
// and keeps it alive during the call; no output or scratch may overlap another array. Row b * T + t of the events holds
// those of step t of sample b, ascending by pixel. A sample's events depend only on its pixels, its number, the seed
// and the options: not on the other samples, their order, the threads or the ISA.
#pragma once

#include <cstdint>

namespace srcell {

constexpr int64_t kPhiloxSteps = 4;  // steps per call of Philox, which gives four words
constexpr int64_t kDrawnSteps = 8;   // steps drawn at once

// An encoder first lists a sample's active pixels, those > 0, in groups of kPixelGroup. After that, pixels of 0 cost
// nothing.
constexpr int64_t kPixelGroup = 16;

struct Images {
    const float* values;      // (B, K), each in [0, 1]
    int64_t samples, pixels;  // K <= 2^31
    int threads;              // at most this many
};

// The first of sample b's groups in scratch, which all samples share; for b = B, the number of groups of all samples.
// active_before: (B + 1,) from count_active_pixels.
static inline int64_t first_group(const int64_t* active_before, int64_t b) {
    return active_before[b] / kPixelGroup + b;  // enough room for each: floor(x + y) + 1 >= floor(x) + ceil(y)
}

// Active pixel k of sample b fires at step t, counted after the prefix, iff (word >> 8) < threshold, where
//   word      = philox4x32_10({t / 4, k, low and high half of index[b]}, {low and high half of seed})[t % 4]
//   threshold = ceil(min(gain * pixel, 1) * 2^24), in double from the float pixel:
// a pixel of probability 1 always fires. Philox4x32-10 is the generator of Salmon et al., "Parallel random numbers: as
// easy as 1, 2, 3" (SC 2011).
struct RateEncoding {
    Images images;
    const int64_t* active_before;  // (B + 1,) from count_active_pixels
    const int64_t* index;          // (B,) the samples' numbers
    int64_t steps, prefix;         // steps <= 2^34
    double gain;                   // finite, >= 0
    uint64_t seed;
    // Scratch that rate_draw writes and rate_write reads, for G = first_group(active_before, B) groups.
    int32_t* active;       // (G, kPixelGroup) the active pixels; each sample's are padded with pixels that never fire
    uint32_t* thresholds;  // (G, kPixelGroup)
    uint16_t* fired;       // (G, steps rounded up to a multiple of kDrawnSteps) a bit per pixel; ordered by step
    int64_t* offsets;      // (B * T + 1,) written by rate_draw
    bool thinned = false;  // no pixel fires at two steps in a row: a spike is dropped if the one before it was kept
};

// An active pixel of value p fires once, at step prefix + round((1 - p) * (steps - 1)), in double, half to even.
struct LatencyEncoding {
    Images images;
    const int64_t* active_before;  // (B + 1,) from count_active_pixels
    int64_t steps, prefix;         // steps in [1, 2^31)
    int32_t* active;               // scratch, (first_group(B), kPixelGroup)
    int32_t* fires_at;             // scratch, same shape: the step of each pixel, counted after the prefix
    int64_t* offsets;              // (B * T + 1,) out
    int32_t* indices;              // (active_before[B],) out
};

}  // namespace srcell
