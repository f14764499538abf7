// Spike encoders that write events, and the counter-based random numbers behind them. The bindings call this; it knows
// neither Python nor an ISA, and it never looks at what a network does with the events.
//
// Shapes use B samples, K pixels and T steps. The events of a sample depend on its pixels, its number, the seed and the
// options alone: not on the other samples, their order or the threads.
#pragma once

#include <array>
#include <cstdint>
#include <memory>

namespace srcell {

// Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
std::array<uint32_t, 4> philox4x32_10(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

// Every array is dense and row-major, stays the caller's and must outlive the call.
//
// Pixel k of sample b fires at step t, counted after the prefix, iff (word >> 8) < threshold, where
//   word      = philox4x32_10({t / 4, k, low and high half of index[b]}, {low and high half of seed})[t % 4]
//   threshold = ceil(min(gain * pixel, 1) * 2^24), in double from the float pixel:
// a pixel of 0 never fires, one of probability 1 always does. Sizes are >= 0, steps <= 2^34, pixels <= 2^31.
struct RateEncoding {
    const float* images;   // (B, K), each in [0, 1]
    const int64_t* index;  // (B,) the samples' numbers
    int64_t samples, pixels, steps, prefix;
    double gain;  // finite, >= 0
    uint64_t seed;
    int threads;  // at most this many; results do not depend on it
};

// Row b * T + t holds the events of step t of sample b, T being prefix + steps, ascending by pixel.
struct EventRows {
    int64_t rows;                        // B * T
    std::unique_ptr<int64_t[]> offsets;  // (rows + 1,)
    std::unique_ptr<int32_t[]> indices;  // (offsets[rows],)
};

// Position of the first pixel that is not in [0, 1], NaN included, or -1.
int64_t first_invalid_pixel(const RateEncoding& p);

// Takes valid pixels; throws std::bad_alloc.
EventRows rate_encode(const RateEncoding& p);

}  // namespace srcell
