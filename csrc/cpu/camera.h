// The arguments of the event camera in the dispatch table: plain structs of pointers, sizes and options; nothing here
// allocates or owns memory. A source of brightness (frames, or a picture under a movement) and a sensor are apart.
//
// Shapes use B samples, T steps and a sensor of H x W pixels. Every array is dense and row-major. The caller owns it
// and keeps it alive during the call. Input (p * H + y) * W + x of the events is pixel (x, y) where brightness rises (p
// = 0) or falls (p = 1). A sample's events depend only on its brightness, its number, the seed and the options: not on
// the other samples, the threads or the ISA.
#pragma once

#include <cstdint>

#include "encode.h"

namespace srcell {

constexpr int64_t kMostBlur = 8;
constexpr int64_t kMostCameraSteps = int64_t(1) << 24;

// A pixel keeps a level. In a step in which brightness is above the level by `rise` or below it by `fall`, the pixel
// sends an event, and the level moves by that threshold as often as it fits. After an event a pixel sends none for
// `refractory` steps.
//
// Random numbers come from philox4x32_10 with the key {low, high half of seed} and the counter
// {n, purpose, low, high half of the sample's number}. A word's deviate is the sum of three 16-bit halves, less 3/2,
// times 2: its mean is 0, its standard deviation 1, and it is in [-3, 3].
struct Sensor {
    int64_t samples, steps, height, width;  // 2 H W <= 2^31, T <= kMostCameraSteps
    int threads;
    float rise, fall;    // > 0
    float spread;        // of each pixel's thresholds, relative to rise and fall; in [0, 0.3]
    int64_t refractory;  // <= kMostCameraSteps
    double noise;        // events per pixel and step, without a change of brightness; in [0, 1]
    uint64_t seed;
    const int64_t* index;  // (B,) the samples' numbers
    float* scratch;        // (B, camera_frame_scratch() or camera_picture_scratch())
    uint16_t* fired;       // (B, T, 2, H, ceil(W / kPixelGroup)) scratch that camera_draw writes and camera_write reads
    int64_t* offsets;      // (B * T + 1,) written by camera_draw
};

// The brightness of step t is that of frame t; the level begins near frame 0.
struct Frames {
    const float* values;  // (T, B, H, W), finite
    float dark;           // 0, or > 0: the logarithm of dark + brightness counts
};

// A picture under a movement: in step t, pixel (x, y) sees the picture, blurred by a Gaussian, at column
// x + left + px(t + 1) and row y + top + py(t + 1), bilinearly; 0 outside. The level begins near the view at time 0.
struct Pictures {
    const float* values;     // (B, height, width), each in [0, 1]
    int64_t height, width;   // <= 2^15
    double blur;             // standard deviation in pixels, in [0, kMostBlur]
    const double* movement;  // (points, 3) time in steps, px, py; ascending in time; linear between, constant beyond
    int64_t points;          // >= 1
    double size, place;      // deviations of the movement's size, relative, in [0, 0.3], and of its place, in pixels
    int64_t reach;           // at least the largest |px| and |py|, of all sizes and places, rounded up
};

}  // namespace srcell
