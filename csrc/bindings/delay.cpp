// The delay of inputs in the compiled module srcell._core. core.cpp calls bind_delay().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "arguments.h"

namespace srcell {
namespace {

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

}  // namespace
}  // namespace srcell

void bind_delay(pybind11::module_& m) {
    using namespace srcell;
    using namespace pybind11::literals;
    py::class_<DelayCall>(m, "Delay")
        .def(py::init<bool, bool, const Sizes&, Address, int, int64_t, int64_t, int64_t, Address, Address, bool>(),
             "is_double"_a, "on_host"_a, "sizes"_a, "lengths"_a, "threads"_a, "skip"_a, "taps"_a, "terms"_a, "first"_a,
             "factors"_a, "keep_zeros"_a);
    m.def("count_delayed", &count_delayed, "delay"_a, "rows"_a, "starts"_a);
    m.def("write_delayed", &write_delayed, "delay"_a, "rows"_a, "starts"_a, "cursors"_a, "offsets"_a, "count"_a,
          "indices"_a, "values"_a);
    m.def("delayed_backward", &delayed_backward, "delay"_a, "rows"_a, "cursors"_a, "offsets"_a, "count"_a,
          "grad_values"_a, "grad_events"_a, "grad_factors"_a, "partials"_a);
    m.def("delay_elements", &delay_elements, "delay"_a, "elements"_a, "delayed"_a);
    m.def("delay_elements_backward", &delay_elements_backward, "delay"_a, "elements"_a, "grad_delayed"_a,
          "grad_elements"_a, "grad_factors"_a, "partials"_a);
}
