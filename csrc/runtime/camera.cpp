// Runs the kernels of the event camera, with memory of their own.
#include "camera.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

#include "../cpu/dispatch.h"
#include "../domains.h"
#include "network.h"

namespace srcell {
namespace {

constexpr double kMostSpread = 0.3, kMostPlace = 1024, kMostPlaceJitter = 64;
constexpr int64_t kMostSide = int64_t(1) << 15, kMostPoints = int64_t(1) << 20;

template <class T>
[[noreturn]] void refuse(const char* name, const char* expected, T got) {
    throw std::invalid_argument(std::string(name) + ": expected " + expected + ", got " + shortest(got));
}

template <class T>
void check(const char* name, T value, T least, T most, const char* expected) {
    if (!(value >= least && value <= most)) refuse(name, expected, value);
}

void check_brightness(const char* name, const float* values, int64_t count) {
    const float* const wrong = std::find_if(values, values + count, [](float x) { return !(x >= 0 && x <= 1); });
    if (wrong != values + count) refuse(name, "values in [0, 1]", *wrong);
}

// a * b. Throws std::bad_alloc if it overflows.
int64_t product(int64_t a, int64_t b) {
    int64_t made;
    if (__builtin_mul_overflow(a, b, &made)) throw std::bad_alloc();
    return made;
}

}  // namespace

Recording::Recording(const CameraSettings& settings, int64_t batch, int64_t steps, const int64_t* index, int threads)
    : kernels_(*preferred_kernels()) {
    check<int64_t>("steps", steps, 0, kMostCameraSteps, "from 0 to 2^24");
    for (const int64_t side : {settings.height, settings.width})
        check<int64_t>("sensor_size", side, 0, kMostSide, "sides from 0 to 2^15");
    for (const double threshold : {settings.rise, settings.fall})
        check("threshold", threshold, 1e-4, 1e4, "from 0.0001 to 10000");
    check("spread", settings.spread, 0.0, kMostSpread, "from 0 to 0.3");
    check("noise", settings.noise, 0.0, 1.0, "from 0 to 1");
    check<int64_t>("refractory", settings.refractory, 0, kMostCameraSteps, "from 0 to 2^24");
    const int64_t rows = count_rows(steps, batch);
    index_ = Block<int64_t>(batch);
    if (index)
        std::copy(index, index + batch, index_.data());
    else
        std::iota(index_.data(), index_.data() + batch, int64_t(0));
    offsets_ = Block<int64_t>(rows + 1);
    sensor_ = {batch,
               steps,
               settings.height,
               settings.width,
               threads,
               static_cast<float>(settings.rise),
               static_cast<float>(settings.fall),
               static_cast<float>(settings.spread),
               settings.refractory,
               settings.noise,
               settings.seed,
               index_.data(),
               nullptr,
               nullptr,
               offsets_.data()};
}

void Recording::allocate(int64_t floats) {
    const int64_t groups = 2 * sensor_.height * ceil_div(sensor_.width, kPixelGroup);
    fired_ = Block<uint16_t>(product(sensor_.samples * sensor_.steps, groups));
    scratch_ = Block<float>(product(sensor_.samples, floats));
    sensor_.fired = fired_.data();
    sensor_.scratch = scratch_.data();
}

void Recording::draw(const float* frames, double dark) {
    check("dark", dark, 0.0, 1e4, "from 0 to 10000");
    if (dark > 0) check("dark", dark, 1e-6, 1e4, "0, or from 0.000001 to 10000");
    check_brightness("frames", frames, sensor_.steps * sensor_.samples * sensor_.height * sensor_.width);
    allocate(kernels_.camera_frame_scratch(sensor_));
    kernels_.camera_draw_frames(sensor_, {frames, static_cast<float>(dark)});
}

void Recording::draw(const float* pictures, int64_t height, int64_t width, const MovementSettings& settings) {
    for (const int64_t side : {height, width}) check<int64_t>("images", side, 0, kMostSide, "sides from 0 to 2^15");
    check("blur", settings.blur, 0.0, static_cast<double>(kMostBlur), "from 0 to 8");
    check("size_jitter", settings.size, 0.0, kMostSpread, "from 0 to 0.3");
    check("place_jitter", settings.place, 0.0, kMostPlaceJitter, "from 0 to 64");
    check<int64_t>("movement", settings.points, 1, kMostPoints, "from 1 to 2^20 points");
    // In our own memory, where no other thread writes: the kernels rely on the reach.
    const Block<double> movement(3 * settings.points);
    std::copy(settings.movement, settings.movement + 3 * settings.points, movement.data());
    double farthest = 0;
    for (int64_t k = 0; k < settings.points; ++k) {
        const double* const point = movement.data() + 3 * k;
        if (!(std::isfinite(point[0]) && (k == 0 || point[0] > point[-3])))
            refuse("movement", "finite times that ascend", point[0]);
        for (const double place : {point[1], point[2]}) {
            check("movement", place, -kMostPlace, kMostPlace, "places from -1024 to 1024 pixels");
            farthest = std::max(farthest, std::fabs(place));
        }
        const auto sees = [](double shift, int64_t sensor, int64_t picture) {
            return std::fabs(shift) < static_cast<double>(sensor + picture) / 2;
        };
        if (!(sees(point[1], sensor_.width, width) && sees(point[2], sensor_.height, height)))
            refuse("movement", "places from which the sensor sees a part of the picture",
                   std::max(std::fabs(point[1]), std::fabs(point[2])));
    }
    check_brightness("images", pictures, sensor_.samples * product(height, width));
    const auto reach = static_cast<int64_t>(std::ceil(farthest * (1 + 3 * settings.size) + 3 * settings.place));
    const Pictures seen = {pictures,        height,        width,          settings.blur, movement.data(),
                           settings.points, settings.size, settings.place, reach};
    allocate(kernels_.camera_picture_scratch(sensor_, seen));
    kernels_.camera_draw_pictures(sensor_, seen);
}

void Recording::write(int32_t* indices) const { kernels_.camera_write(sensor_, indices); }

}  // namespace srcell
