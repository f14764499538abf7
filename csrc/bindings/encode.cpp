// The encoders of the compiled module srcell._core: turns addresses and sizes into the structs of encode.h, refuses
// pixels out of range, releases the GIL and hands the events over as arrays. core.cpp calls bind_encode().
#include "../cpu/encode.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>

namespace py = pybind11;

namespace srcell {
namespace {

using Address = std::uintptr_t;  // of a tensor's first element

// An array over the values, which it frees when it goes.
template <class T>
py::array_t<T> own(std::unique_ptr<T[]> values, int64_t count) {
    T* const first = values.get();
    const py::capsule owner(first, [](void* p) { delete[] static_cast<T*>(p); });
    values.release();
    return py::array_t<T>(count, first, owner);
}

void refuse_pixel(const RateEncoding& p, int64_t position) {
    const py::str message = py::str("images: expected values in [0, 1], got {} in pixel {} of sample {}")
                                .format(p.images[position], position % p.pixels, position / p.pixels);
    throw py::value_error(message);
}

py::tuple rate_encode_arrays(Address images, Address index, int64_t samples, int64_t pixels, int64_t steps,
                             int64_t prefix, double gain, uint64_t seed, int threads) {
    const RateEncoding p = {reinterpret_cast<const float*>(images),
                            reinterpret_cast<const int64_t*>(index),
                            samples,
                            pixels,
                            steps,
                            prefix,
                            gain,
                            seed,
                            threads};
    EventRows events;
    int64_t invalid;
    {
        const py::gil_scoped_release release;
        invalid = first_invalid_pixel(p);
        if (invalid < 0) events = rate_encode(p);
    }
    if (invalid >= 0) refuse_pixel(p, invalid);
    const int64_t count = events.offsets[events.rows];
    return py::make_tuple(own(std::move(events.offsets), events.rows + 1), own(std::move(events.indices), count));
}

py::tuple philox(const std::array<uint32_t, 4>& counter, const std::array<uint32_t, 2>& key) {
    return py::tuple(py::cast(philox4x32_10(counter, key)));
}

}  // namespace
}  // namespace srcell

void bind_encode(py::module_& m) {
    m.def("rate_encode", &srcell::rate_encode_arrays);
    m.def("philox", &srcell::philox);
}
