// The encoders in the compiled module srcell._core: turns addresses and sizes into the structs of encode.h, releases
// the GIL, calls the kernels, and raises for pixels out of range. core.cpp calls bind_encode().
#include "../cpu/encode.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "arguments.h"

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

// Returns the number of active pixels, and the number of pixel groups that scratch must hold.
py::tuple count_active_pixels(const Images& images, Address address) {
    auto* const active_before = pointer<int64_t>(address);
    int64_t invalid;
    {
        const ReleasedGil release;
        invalid = kernels().count_active_pixels(images, active_before);
    }
    if (invalid >= 0) refuse_sample(images, invalid);
    return py::make_tuple(active_before[images.samples], first_group(active_before, images.samples));
}

RateEncoding make_rate_encoding(const Images& images, Address active_before, Address index, int64_t steps,
                                int64_t prefix, double gain, uint64_t seed, const std::array<Address, 3>& scratch,
                                Address offsets, bool thinned) {
    return {images,
            pointer<const int64_t>(active_before),
            pointer<const int64_t>(index),
            steps,
            prefix,
            gain,
            seed,
            pointer<int32_t>(scratch[0]),
            pointer<uint32_t>(scratch[1]),
            pointer<uint16_t>(scratch[2]),
            pointer<int64_t>(offsets),
            thinned};
}

// Returns the number of events.
int64_t rate_draw(const RateEncoding& p) {
    const ReleasedGil release;
    kernels().rate_draw(p);
    return p.offsets[p.images.samples * (p.prefix + p.steps)];
}

void rate_write(const RateEncoding& p, Address indices) {
    const ReleasedGil release;
    kernels().rate_write(p, pointer<int32_t>(indices));
}

void latency_encode(const Images& images, Address active_before, int64_t steps, int64_t prefix,
                    const std::array<Address, 2>& scratch, Address offsets, Address indices) {
    const LatencyEncoding p = {images,
                               pointer<const int64_t>(active_before),
                               steps,
                               prefix,
                               pointer<int32_t>(scratch[0]),
                               pointer<int32_t>(scratch[1]),
                               pointer<int64_t>(offsets),
                               pointer<int32_t>(indices)};
    const ReleasedGil release;
    kernels().latency_encode(p);
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
    py::class_<Images>(m, "Images")
        .def(py::init([](Address values, int64_t samples, int64_t pixels, int threads) {
                 return Images{pointer<const float>(values), samples, pixels, threads};
             }),
             "values"_a, "samples"_a, "pixels"_a, "threads"_a);
    py::class_<RateEncoding>(m, "RateEncoding")
        .def(py::init(&make_rate_encoding), "images"_a, "active_before"_a, "index"_a, "steps"_a, "prefix"_a, "gain"_a,
             "seed"_a, "scratch"_a, "offsets"_a, "thinned"_a);
    m.attr("pixel_group") = kPixelGroup;
    m.attr("drawn_steps") = kDrawnSteps;
    m.def("count_active_pixels", &count_active_pixels, "images"_a, "active_before"_a);
    m.def("rate_draw", &rate_draw, "encoding"_a);
    m.def("rate_write", &rate_write, "encoding"_a, "indices"_a);
    m.def("latency_encode", &latency_encode, "images"_a, "active_before"_a, "steps"_a, "prefix"_a, "scratch"_a,
          "offsets"_a, "indices"_a);
    m.def("philox", &philox, "counter"_a, "key"_a);
}
