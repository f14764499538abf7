// The delay of inputs in the compiled module srcell._core, on the CPU, as calls.cpp has layers. core.cpp calls
// bind_delay().
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "calls.h"

namespace srcell {
namespace {

constexpr int64_t kMostDelay = 65535;  // MOST_DELAY of srcell.functional

// Below kLargeBytes: malloc returns freed memory at the end of the heap to the system, and a delay is so fast that to
// fault its pages in again would cost as much.
constexpr int64_t kReusedBytes = 128 << 10;

// What the calls of all delays have.
class DelayArguments {
  public:
    explicit DelayArguments(const Way& way) : given(way.reader()), letters(given.letters) {}

    Arguments given;
    Letters& letters;
    EventRows rows = {};

    // Reads offsets, indices and values, the fields from `at` on; T and B are known.
    bool read_events(const py::handle call, Py_ssize_t at) {
        return given.read(kDelayEvents[2], field(call, at + 2), rows.values) &&
               given.read(kDelayEvents[0], field(call, at), rows.offsets) &&
               given.read(kDelayEvents[1], field(call, at + 1), rows.indices);
    }

    // Reads first, factors and lengths, the fields from `at` on, and taps, skip and keep_zeros, those from `numbers`
    // on. After events K is as many as there are delays.
    bool read(const py::handle call, Py_ssize_t at, Py_ssize_t numbers) {
        constexpr int64_t kMostInputs = int64_t(1) << 31;
        const int64_t taps = as_int64(field(call, numbers)), skip = as_int64(field(call, numbers + 1));
        Tensor described;
        if (taps < 1 || skip < 0 || skip > letters['T'] || !given.reader.describe(field(call, at), described))
            return false;
        if (letters['K'] < 0) letters['K'] = described.elements() / taps;
        if (letters['K'] > kMostInputs / taps) return false;
        letters['M'] = taps, letters['S'] = skip;
        rows.count = letters['E'], rows.inputs = letters['K'];
        keep_zeros_ = flag(field(call, numbers + 2)), has_factors_ = !field(call, at + 1).is_none();
        return given.read(kDelayed[0], field(call, at), first_) &&
               given.read(kDelayed[1], field(call, at + 1), factors_) &&
               given.read(kDelayed[2], field(call, at + 2), lengths_);
    }

    bool is_double() const { return given.number == Number::kFloat64; }
    Number number() const { return is_double() ? Number::kFloat64 : Number::kFloat32; }
    // The rows of delayed events.
    int64_t delayed_rows() const { return letters['B'] * (letters['T'] - letters['S']); }
    // Whether an output needs no values.
    bool is_binary() const { return !rows.values && !has_factors_ && !keep_zeros_; }

    DelayCall call(int threads) const {
        return {is_double(),
                true,
                {letters['T'], letters['B'], letters['K']},
                lengths_,
                threads,
                letters['S'],
                letters['M'],
                has_factors_ ? letters['D'] : 1,
                first_,
                factors_,
                keep_zeros_};
    }

    // Adds the gradient of the factors, if it is wanted and there are factors.
    Address add_gradient(Made& made, bool wanted, py::handle factors) const {
        return wanted && has_factors_ ? made.add(factors, number(), letters.shape(kDelayed[1])) : made.none();
    }
    int64_t count_partials(Address gradient) const {
        return gradient ? letters['B'] * letters['K'] * letters['M'] * letters['D'] : 0;
    }

  private:
    Address first_ = 0, factors_ = 0, lengths_ = 0;
    bool keep_zeros_ = false, has_factors_ = false;
};

// `call` has offsets, indices, values, first, factors, lengths, steps, batch, graded, taps, skip and keep_zeros.
py::object delay_events(const py::handle call, const Way& way, int threads) {
    if (way.direct && is_watched()) return py::none();
    DelayArguments of(way);
    const bool graded = flag(field(call, 8));
    if (!read_sizes(call, 6, of.letters) || !of.read_events(call, 0) || !of.read(call, 3, 9) ||
        (!graded && !of.is_binary()))
        return py::none();
    if (of.given.reader.learnt()) return py::bool_(false);
    const DelayCall delay = of.call(threads);
    const int64_t batch = delay.shape.batch, delayed_rows = of.delayed_rows();
    const Block<int64_t> starts(batch + 1), cursors(delayed_rows);
    const py::handle offsets = field(call, 0), indices = field(call, 1), factors = field(call, 4);
    return with_type(delay.is_double, [&](auto zero) -> py::object {
        using T = decltype(zero);
        const auto counted = delay.counted<T>(of.rows, address_of(starts.data()));
        {
            const ReleasedGil release;
            kernels().of<T>().count_delayed(counted);
        }
        const int64_t count = starts.data()[batch];
        Made made(kReusedBytes);
        const Address values = made.add(factors.is_none() ? offsets : factors, of.number(), {graded ? count : 0});
        const Address ends = made.add(offsets, Number::kInt64, {delayed_rows + 1});
        const Address of_inputs = made.add(indices, Number::kInt32, {count});
        const auto p = delay.written<T>(of.rows, address_of(starts.data()), address_of(cursors.data()), ends, count,
                                        of_inputs, graded ? values : 0);
        pointer<int64_t>(ends)[delayed_rows] = count;
        {
            const ReleasedGil release;
            kernels().of<T>().write_delayed(p);
        }
        return py::tuple(made.made);
    });
}

// `call` has grad_values, delayed_offsets, offsets, indices, values, first, factors, lengths, steps, batch, taps, skip,
// keep_zeros and output_mask.
py::object delay_events_backward(const py::handle call, const Way& way, int threads) {
    if (way.direct && is_watched()) return py::none();
    DelayArguments of(way);
    Address grad = 0, offsets = 0;
    bool want_values, want_factors;
    if (!read_sizes(call, 8, of.letters) || !of.read_events(call, 2) || !of.read(call, 5, 10) ||
        !read_flags(field(call, 13), want_values, want_factors))
        return py::none();
    of.letters['R'] = of.delayed_rows();
    if (!of.given.read(kDelayEventsBackward[0], field(call, 0), grad) ||
        !of.given.read(kDelayEventsBackward[1], field(call, 1), offsets))
        return py::none();
    if (of.given.reader.learnt()) return py::bool_(false);
    const DelayCall delay = of.call(threads);
    Made made(kReusedBytes);
    const py::handle given_values = field(call, 4);
    want_values = want_values && !given_values.is_none();
    const Address values = want_values ? made.add(given_values, of.number(), {of.rows.count}) : made.none();
    const Address factors = of.add_gradient(made, want_factors, field(call, 6));
    const Block<int64_t> cursors(of.delayed_rows());
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const Block<T> partials(of.count_partials(factors));
        if (values) std::fill_n(pointer<T>(values), of.rows.count, T(0));
        const auto p = delay.backward<T>(of.rows, address_of(cursors.data()), offsets, of.letters['A'], grad, values,
                                         factors, address_of(partials.data()));
        const ReleasedGil release;
        kernels().of<T>().delayed_backward(p);
    });
    return py::tuple(made.made);
}

// `call` has input, first, factors, lengths, taps, skip and keep_zeros.
py::object delay_dense(const py::handle call, const Way& way, int threads) {
    if (way.direct && is_watched()) return py::none();
    DelayArguments of(way);
    Address input = 0;
    if (!of.given.read(kDelayDense[0], field(call, 0), input) || !of.read(call, 1, 4)) return py::none();
    if (of.given.reader.learnt()) return py::bool_(false);
    const DelayCall delay = of.call(threads);
    Made made(kReusedBytes);
    const Address delayed = made.add(field(call, 0), of.number(), of.letters.shape(kDelayDenseBackward[0]));
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const auto p = delay.elements_forward<T>(input, delayed);
        const ReleasedGil release;
        kernels().of<T>().delay_elements(p);
    });
    return made.made[0];
}

// `call` has grad_delayed, input, first, factors, lengths, taps, skip, keep_zeros and output_mask.
py::object delay_dense_backward(const py::handle call, const Way& way, int threads) {
    if (way.direct && is_watched()) return py::none();
    DelayArguments of(way);
    Address grad = 0, input = 0;
    bool want_input, want_factors;
    if (!of.given.read(kDelayDense[0], field(call, 1), input) || !of.read(call, 2, 5) ||
        !of.given.read(kDelayDenseBackward[0], field(call, 0), grad) ||
        !read_flags(field(call, 8), want_input, want_factors))
        return py::none();
    if (of.given.reader.learnt()) return py::bool_(false);
    const DelayCall delay = of.call(threads);
    Made made(kReusedBytes);
    const Address grad_input =
        want_input ? made.add(field(call, 1), of.number(), of.letters.shape(kDelayDense[0])) : made.none();
    const Address grad_factors = of.add_gradient(made, want_factors, field(call, 3));
    with_type(delay.is_double, [&](auto zero) {
        using T = decltype(zero);
        const Block<T> partials(of.count_partials(grad_factors));
        const auto p = delay.elements_backward<T>(input, grad, grad_input, grad_factors, address_of(partials.data()));
        const ReleasedGil release;
        kernels().of<T>().delay_elements_backward(p);
    });
    return py::tuple(made.made);
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
    py::class_<DelayCall>(m, "Delay")  // for srcell._cuda
        .def(py::init([](bool is_double, const Sizes& sizes, Address lengths, int64_t skip, int64_t taps, int64_t terms,
                         Address first, Address factors, bool keep_zeros) {
                 return DelayCall(is_double, false, sizes, lengths, 1, skip, taps, terms, first, factors, keep_zeros);
             }),
             "is_double"_a, "sizes"_a, "lengths"_a, "skip"_a, "taps"_a, "terms"_a, "first"_a, "factors"_a,
             "keep_zeros"_a);
    m.def("delay_terms", &delay_terms, "delay"_a, "neurons"_a, "delay_width"_a, "max_delay"_a, "clamped"_a);
    m.def("delay_events", &delay_events, "call"_a, "way"_a, "threads"_a);
    m.def("delay_events_backward", &delay_events_backward, "call"_a, "way"_a, "threads"_a);
    m.def("delay_dense", &delay_dense, "call"_a, "way"_a, "threads"_a);
    m.def("delay_dense_backward", &delay_dense_backward, "call"_a, "way"_a, "threads"_a);
}
