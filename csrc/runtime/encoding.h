// The image encoder for callers without Python and torch: checks its arguments and allocates the scratch that the
// kernels of cpu/encode.h need. The C interface calls it.
#pragma once

#include <cstdint>

namespace srcell {

struct RateSettings {
    int64_t steps, prefix;
    double gain;
    bool thinned;
    uint64_t seed;
};

// Writes the offsets (B * (prefix + steps) + 1,) of the events of images (B, K), and, if there are at most `room`
// events, their indices. Index (B,) holds the samples' numbers; null means 0 to B - 1. Returns the number of events.
// Throws std::invalid_argument and std::bad_alloc.
int64_t encode_rate(const RateSettings& settings, int64_t batch, int64_t pixels, const float* images,
                    const int64_t* index, int64_t* offsets, int32_t* indices, int64_t room);

}  // namespace srcell
