// The delay of inputs in the compiled module srcell._core. core.cpp calls bind_delay().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "arguments.h"
#include "tensors.h"

namespace srcell {
namespace {

constexpr int64_t kMostDelay = 65535;  // MOST_DELAY of srcell.functional

// Writes the start of each sample's arrivals, (B + 1,), and returns the number of all.
int64_t count_delayed(const DelayCall& delay, const EventRows& rows, Address starts) {
    with_type(delay.is_double, [&](auto zero) {
        const auto p = delay.counted<decltype(zero)>(rows, starts);
        const ReleasedGil release;
        kernels().of<decltype(zero)>().count_delayed(p);
    });
    return pointer<const int64_t>(starts)[delay.shape.batch];
}

void write_delayed(const DelayCall& delay, const EventRows& rows, Address starts, Address cursors, Address offsets,
                   int64_t count, Address indices, Address values) {
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p = delay.written<T>(rows, starts, cursors, offsets, count, indices, values);
        const ReleasedGil release;
        kernels().of<T>().write_delayed(p);
    });
}

void delayed_backward(const DelayCall& delay, const EventRows& rows, Address cursors, Address offsets, int64_t count,
                      Address grad_values, Address grad_events, Address grad_factors, Address partials) {
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p =
            delay.backward<T>(rows, cursors, offsets, count, grad_values, grad_events, grad_factors, partials);
        const ReleasedGil release;
        kernels().of<T>().delayed_backward(p);
    });
}

void delay_elements(const DelayCall& delay, Address elements, Address delayed) {
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p = delay.elements_forward<T>(elements, delayed);
        const ReleasedGil release;
        kernels().of<T>().delay_elements(p);
    });
}

void delay_elements_backward(const DelayCall& delay, Address elements, Address grad_delayed, Address grad_elements,
                             Address grad_factors, Address partials) {
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p = delay.elements_backward<T>(elements, grad_delayed, grad_elements, grad_factors, partials);
        const ReleasedGil release;
        kernels().of<T>().delay_elements_backward(p);
    });
}

// The terms of fixed delays (N,) or (), as `tables` of srcell.functional makes them: the steps of each first term, and
// the factors of its 2 `width` terms, or None if all delays are whole. Returns None for a call that Python is to make
// or to refuse.
py::object delay_terms(py::handle delay, int64_t neurons, int64_t width, int64_t most, bool clamped) {
    if (is_watched() || width < 1 || width > kMostDelay || most < 0 || most > kMostDelay) return py::none();
    Reader reader(Reader::kPlain);
    Tensor given;
    if (!reader.read(delay, given) || reader.learnt() || given.dimensions > 1) return py::none();
    if (given.number != Number::kFloat32 && given.number != Number::kFloat64) return py::none();
    if (given.dimensions && given.shape[0] != neurons) return py::none();
    return with_type(given.number == Number::kFloat64, [&](auto zero) -> py::object {
        using T = decltype(zero);
        const T* const values = static_cast<const T*>(given.data);
        std::vector<double> delays;
        bool whole = width == 1 && neurons > 0;
        for (int64_t n = 0; n < neurons; ++n) {
            double d = static_cast<double>(values[given.dimensions ? n : 0]);
            if (clamped) d = std::clamp(d, 0.0, static_cast<double>(most));
            if (!(d >= 0 && d <= static_cast<double>(most))) return py::none();
            whole = whole && d == std::floor(d);
            delays.push_back(d);
        }
        Tensor of_first = {}, of_factors = {};
        const py::object first = new_tensor(delay, Number::kInt32, {neurons}, of_first);
        py::object factors = py::none();
        if (!whole) factors = new_tensor(delay, given.number, {neurons, 2 * width}, of_factors);
        for (int64_t n = 0; n < neurons; ++n) {
            const double d = delays[static_cast<size_t>(n)], m = std::floor(d), rest = d - m;
            static_cast<int32_t*>(of_first.data)[n] = static_cast<int32_t>(m) - static_cast<int32_t>(width - 1);
            const auto wide = static_cast<double>(width);
            const double lost = std::max(wide - 1 - m, 0.0);  // terms that would arrive before they leave
            const double mass = wide * wide - lost * (lost + 1) / 2 + lost * rest;
            for (int64_t k = 0; k < 2 * width && !whole; ++k) {
                const auto term = static_cast<double>(k);
                const double height = k < width ? term + 1 - rest : 2 * wide - 1 - term + rest;
                static_cast<T*>(of_factors.data)[n * 2 * width + k] = static_cast<T>(height / mass);
            }
        }
        return py::make_tuple(first, factors);
    });
}

}  // namespace
}  // namespace srcell

void bind_delay(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    py::class_<DelayCall>(m, "Delay")
        .def(py::init<bool, bool, const Sizes&, Address, int, int64_t, int64_t, int64_t, Address, Address, bool>(),
             "is_double"_a, "on_host"_a, "sizes"_a, "lengths"_a, "threads"_a, "skip"_a, "taps"_a, "terms"_a, "first"_a,
             "factors"_a, "keep_zeros"_a);
    m.def("delay_terms", &delay_terms, "delay"_a, "neurons"_a, "delay_width"_a, "max_delay"_a, "clamped"_a);
    m.def("count_delayed", &count_delayed, "delay"_a, "rows"_a, "starts"_a);
    m.def("write_delayed", &write_delayed, "delay"_a, "rows"_a, "starts"_a, "cursors"_a, "offsets"_a, "count"_a,
          "indices"_a, "values"_a);
    m.def("delayed_backward", &delayed_backward, "delay"_a, "rows"_a, "cursors"_a, "offsets"_a, "count"_a,
          "grad_values"_a, "grad_events"_a, "grad_factors"_a, "partials"_a);
    m.def("delay_elements", &delay_elements, "delay"_a, "elements"_a, "delayed"_a);
    m.def("delay_elements_backward", &delay_elements_backward, "delay"_a, "elements"_a, "grad_delayed"_a,
          "grad_elements"_a, "grad_factors"_a, "partials"_a);
}
