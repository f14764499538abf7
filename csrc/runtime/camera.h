// The event camera for the bindings and the C interface: checks its arguments, and owns the memory that the kernels of
// cpu/camera.h need.
#pragma once

#include <cstdint>

#include "../cpu/block.h"
#include "../cpu/camera.h"

namespace srcell {

struct Kernels;

struct CameraSettings {
    int64_t height, width;
    double rise, fall, spread;
    int64_t refractory;
    double noise;
    uint64_t seed;
};

struct MovementSettings {
    double blur, size, place;
    int64_t points;
    const double* movement;  // (points, 3) time in steps, and the place in pixels: across and down
};

// A batch that a camera has seen: draw, then write. Throws std::invalid_argument, whose message names the argument, and
// std::bad_alloc.
class Recording {
  public:
    // Index (B,) holds the samples' numbers; null means 0 to B - 1.
    Recording(const CameraSettings& settings, int64_t batch, int64_t steps, const int64_t* index, int threads);

    // Frames (T, B, H, W) in [0, 1]; with `dark` above 0, the logarithm of dark + frame counts.
    void draw(const float* frames, double dark);
    // Pictures (B, height, width) in [0, 1].
    void draw(const float* pictures, int64_t height, int64_t width, const MovementSettings& settings);

    const int64_t* offsets() const { return sensor_.offsets; }  // (B * T + 1,)
    int64_t events() const { return sensor_.offsets[sensor_.samples * sensor_.steps]; }
    void write(int32_t* indices) const;

  private:
    void allocate(int64_t floats);

    const Kernels& kernels_;
    Sensor sensor_;
    Block<int64_t> index_, offsets_;
    Block<float> scratch_;
    Block<uint16_t> fired_;
};

}  // namespace srcell
