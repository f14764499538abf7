// What crosses into the encoders of the dispatch table: plain structs of pointers, sizes and options, nothing that
// allocates or owns. The bindings fill them; they know neither Python nor an ISA, nor what a network does with events.
//
// Shapes use B samples, K pixels and T steps, T being prefix + steps. Every array is dense and row-major, stays the
// caller's and must outlive the call; no output or scratch may overlap another array. Row b * T + t of the events holds
// those of step t of sample b, ascending by pixel. A sample's events depend on its pixels, its number, the seed and the
// options alone: not on the other samples, their order, the threads or the ISA.
#pragma once

#include <cstdint>

namespace srcell {

constexpr int64_t kPhiloxSteps = 4;  // served by the four words of one call of Philox
constexpr int64_t kDrawnSteps = 8;   // drawn at once

// An encoder first lists a sample's active pixels, those > 0, in whole groups of kPixelGroup, so that a zero costs
// nothing further.
constexpr int64_t kPixelGroup = 16;

struct Images {
    const float* values;      // (B, K), each in [0, 1]
    int64_t samples, pixels;  // K <= 2^31
    int threads;              // at most this many
};

// Where sample b's groups start in scratch that is shared by all samples, as whose number b = B tells the size.
// active_before: (B + 1,) from count_active_pixels.
static inline int64_t first_group(const int64_t* active_before, int64_t b) {
    return active_before[b] / kPixelGroup + b;  // enough for each: floor(x + y) + 1 >= floor(x) + ceil(y)
}

// Active pixel k of sample b fires at step t, counted after the prefix, iff (word >> 8) < threshold, where
//   word      = philox4x32_10({t / 4, k, low and high half of index[b]}, {low and high half of seed})[t % 4]
//   threshold = ceil(min(gain * pixel, 1) * 2^24), in double from the float pixel:
// a pixel of probability 1 always does. Philox4x32-10 is that of Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3" (SC 2011).
struct RateEncoding {
    Images images;
    const int64_t* active_before;  // (B + 1,) from count_active_pixels
    const int64_t* index;          // (B,) the samples' numbers
    int64_t steps, prefix;         // steps <= 2^34
    double gain;                   // finite, >= 0
    uint64_t seed;
    // Scratch, written by rate_draw for rate_write, of G groups: first_group(B).
    int32_t* active;       // (G, kPixelGroup) the active pixels; a group's rest is filled with what never fires
    uint32_t* thresholds;  // (G, kPixelGroup)
    uint16_t* fired;       // (G, steps rounded up to whole kDrawnSteps) a bit a pixel; within a sample, step by step
    int64_t* offsets;      // (B * T + 1,) written by rate_draw
};

// Active pixel p fires once, at step prefix + round((1 - p) * (steps - 1)), in double, half to even.
struct LatencyEncoding {
    Images images;
    const int64_t* active_before;  // (B + 1,) from count_active_pixels
    int64_t steps, prefix;         // steps in [1, 2^31)
    int32_t* active;               // scratch, (first_group(B), kPixelGroup)
    int32_t* fires_at;             // scratch, the same: the step, counted after the prefix
    int64_t* offsets;              // (B * T + 1,) out
    int32_t* indices;              // (active_before[B],) out
};

}  // namespace srcell
