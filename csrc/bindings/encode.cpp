// The encoders in the compiled module srcell._core, from NumPy's arrays to NumPy's arrays, whose shapes and options the
// caller has checked; raises for pixels out of range. core.cpp calls bind_encode().
#include "../cpu/encode.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "../runtime/camera.h"
#include "arguments.h"
#include "tensors.h"

namespace srcell {
namespace {

[[noreturn]] void refuse_sample(const Images& images, int64_t sample) {
    const float* image = images.values + sample * images.pixels;
    int64_t pixel = 0;
    while (pixel + 1 < images.pixels && image[pixel] >= 0 && image[pixel] <= 1) ++pixel;
    const py::str message = py::str("images: expected values in [0, 1], got {} in pixel {} of sample {}")
                                .format(image[pixel], pixel, sample);
    throw py::value_error(message);
}

template <class T>
using Array = py::array_t<T, py::array::c_style>;

// An uninitialised vector, on huge pages if it is large.
template <class T>
Array<T> new_vector(int64_t count) {
    if (count < kLargeBytes / static_cast<int64_t>(sizeof(T))) return Array<T>(count);
    const bool is_wide = sizeof(T) == sizeof(double);
    py::array made = empty_array({count}, is_wide);
    return Array<T>(std::is_floating_point_v<T> ? std::move(made) : made.view(is_wide ? "int64" : "int32"));
}

// Images (B, K) with their active pixels counted, and the outputs of an encoder.
struct Encoded {
    Images images;
    Array<int64_t> offsets;
    Array<int32_t> indices;
    Block<int64_t> active_before;
    int64_t room;  // pixels that scratch must hold

    Encoded(const Array<float>& values, int64_t steps, int threads)
        : images{values.data(), values.shape(0), values.shape(1), threads}, active_before(images.samples + 1) {
        int64_t rows, invalid;
        if (__builtin_mul_overflow(images.samples, steps, &rows) || rows >= INT64_MAX / 8) throw std::bad_alloc();
        offsets = new_vector<int64_t>(rows + 1);
        {
            const ReleasedGil release;
            invalid = kernels().count_active_pixels(images, active_before.data());
        }
        if (invalid >= 0) refuse_sample(images, invalid);
        room = first_group(active_before.data(), images.samples) * kPixelGroup;
    }
    py::tuple events() const { return py::make_tuple(offsets, indices); }
};

py::tuple rate_encode(const Array<float>& images, const Array<int64_t>& index, int64_t steps, int64_t prefix,
                      double gain, uint64_t seed, bool thinned, int threads) {
    Encoded made(images, prefix + steps, threads);
    const Block<int32_t> active(made.room);
    const Block<uint32_t> thresholds(made.room);
    // A bit for each pixel and step.
    const Block<uint16_t> fired(made.room / kPixelGroup * ceil_div(steps, kDrawnSteps) * kDrawnSteps);
    const RateEncoding p = {made.images,
                            made.active_before.data(),
                            index.data(),
                            steps,
                            prefix,
                            gain,
                            seed,
                            active.data(),
                            thresholds.data(),
                            fired.data(),
                            made.offsets.mutable_data(),
                            thinned};
    {
        const ReleasedGil release;
        kernels().rate_draw(p);
    }
    made.indices = new_vector<int32_t>(p.offsets[made.offsets.size() - 1]);
    int32_t* const indices = made.indices.mutable_data();
    {
        const ReleasedGil release;
        kernels().rate_write(p, indices);
    }
    return made.events();
}

py::tuple latency_encode(const Array<float>& images, int64_t steps, int64_t prefix, int threads) {
    Encoded made(images, prefix + steps, threads);
    made.indices = new_vector<int32_t>(made.active_before.data()[made.images.samples]);
    const Block<int32_t> active(made.room), fires_at(made.room);
    const LatencyEncoding p = {made.images,
                               made.active_before.data(),
                               steps,
                               prefix,
                               active.data(),
                               fires_at.data(),
                               made.offsets.mutable_data(),
                               made.indices.mutable_data()};
    {
        const ReleasedGil release;
        kernels().latency_encode(p);
    }
    return made.events();
}

using SensorOptions = std::tuple<double, double, double, int64_t, double, uint64_t>;  // as in CameraSettings
using ViewOptions = std::tuple<double, double, double>;                               // as in MovementSettings

CameraSettings settings_of(int64_t height, int64_t width, const SensorOptions& options) {
    const auto [rise, fall, spread, refractory, noise, seed] = options;
    return {height, width, rise, fall, spread, refractory, noise, seed};
}

template <class Draw>
py::tuple record(const CameraSettings& settings, int64_t batch, int64_t steps, const Array<int64_t>& index, int threads,
                 Draw draw) {
    std::optional<Recording> recording;
    {
        const ReleasedGil release;
        recording.emplace(settings, batch, steps, index.data(), threads);
        draw(*recording);
    }
    Array<int64_t> offsets = new_vector<int64_t>(batch * steps + 1);
    Array<int32_t> indices = new_vector<int32_t>(recording->events());
    int64_t* const first_offset = offsets.mutable_data();
    int32_t* const first_index = indices.mutable_data();
    {
        const ReleasedGil release;
        std::copy_n(recording->offsets(), batch * steps + 1, first_offset);
        recording->write(first_index);
    }
    return py::make_tuple(offsets, indices);
}

py::tuple camera_frames(const Array<float>& frames, const Array<int64_t>& index, const SensorOptions& sensor,
                        double dark, int threads) {
    const float* const values = frames.data();
    return record(settings_of(frames.shape(2), frames.shape(3), sensor), frames.shape(1), frames.shape(0), index,
                  threads, [=](Recording& recording) { recording.draw(values, dark); });
}

py::tuple camera_pictures(const Array<float>& pictures, const Array<double>& movement, const Array<int64_t>& index,
                          int64_t steps, const std::pair<int64_t, int64_t>& size, const SensorOptions& sensor,
                          const ViewOptions& view, int threads) {
    const auto [blur, size_jitter, place_jitter] = view;
    const MovementSettings moved = {blur, size_jitter, place_jitter, movement.shape(0), movement.data()};
    const float* const values = pictures.data();
    const int64_t rows = pictures.shape(1), columns = pictures.shape(2);
    return record(settings_of(size.first, size.second, sensor), pictures.shape(0), steps, index, threads,
                  [=](Recording& recording) { recording.draw(values, rows, columns, moved); });
}

// The offsets, the indices and the values of the nonzero elements of an array (T, B, K) up to the lengths (B,), if
// there are any; the values are None if all are 1.
template <class T>
py::tuple list_array(const Array<T>& dense, const std::optional<Array<int64_t>>& lengths, int threads) {
    const int64_t steps = dense.shape(0), batch = dense.shape(1), inputs = dense.shape(2);
    const int64_t rows = dense.size() ? steps * batch : 0;
    const Block<uint64_t> mask(rows * mask_words(inputs));
    Array<int64_t> offsets = new_vector<int64_t>(steps * batch + 1);
    const DenseInput<T> p = {{steps, batch, lengths ? lengths->data() : nullptr, threads},
                             inputs,
                             dense.data(),
                             mask.data(),
                             offsets.mutable_data()};
    bool ones = true;
    {
        const ReleasedGil release;
        std::fill_n(p.offsets, steps * batch + 1, 0);
        if (rows) ones = kernels().of<T>().mask_events(p);
    }
    const int64_t count = p.offsets[steps * batch];
    Array<int32_t> indices = new_vector<int32_t>(count);
    py::object values = py::none();
    T* first_value = nullptr;
    if (!ones) {
        Array<T> made = new_vector<T>(count);
        first_value = made.mutable_data();
        values = std::move(made);
    }
    int32_t* const first_index = indices.mutable_data();
    if (count) {
        const ReleasedGil release;
        kernels().of<T>().list_events(p, first_index, first_value);
    }
    return py::make_tuple(offsets, indices, values);
}

py::tuple philox(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) {
    std::array<uint32_t, 4> words;
    kernels().philox(counter.data(), key.data(), words.data());
    return py::tuple(py::cast(words));
}

}  // namespace
}  // namespace srcell

void bind_encode(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    m.def("rate_encode", &rate_encode, "images"_a, "index"_a, "steps"_a, "prefix"_a, "gain"_a, "seed"_a, "thinned"_a,
          "threads"_a);
    m.def("latency_encode", &latency_encode, "images"_a, "steps"_a, "prefix"_a, "threads"_a);
    m.def("camera_frames", &camera_frames, "frames"_a, "index"_a, "sensor"_a, "dark"_a, "threads"_a);
    m.def("camera_pictures", &camera_pictures, "pictures"_a, "movement"_a, "index"_a, "steps"_a, "size"_a, "sensor"_a,
          "view"_a, "threads"_a);
    m.def("list_events", &list_array<float>, "dense"_a.noconvert(), "lengths"_a, "threads"_a);
    m.def("list_events", &list_array<double>, "dense"_a.noconvert(), "lengths"_a, "threads"_a);
    m.def("philox", &philox, "counter"_a, "key"_a);
}
