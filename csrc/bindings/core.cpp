// The compiled module srcell._core: chooses the table of kernels at import. Links no torch: srcell.ops passes tensors
// as addresses and sizes, or as they are (calls.h). Only srcell.ops, srcell.runtime and srcell._shared.parameters
// import it.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "../cpu/dispatch.h"
#include "../cpu/memory.h"
#include "../platform/platform.h"
#include "acting.h"
#include "arguments.h"
#include "tensors.h"

namespace py = pybind11;

void bind_calls(py::module_& m);
void bind_delay(py::module_& m);
void bind_encode(py::module_& m);
void bind_events(py::module_& m);
void bind_integer(py::module_& m);
void bind_layer(py::module_& m);
void bind_runtime(py::module_& m);
void bind_tensors(py::module_& m);

namespace srcell {
namespace {

const Kernels* chosen = nullptr;  // set once, at import

struct OwnedBlock {
    void* address;
    size_t bytes;
};

}  // namespace

py::array empty_array(const std::vector<py::ssize_t>& shape, bool is_double) {
    const py::dtype dtype = is_double ? py::dtype::of<double>() : py::dtype::of<float>();
    size_t bytes = static_cast<size_t>(dtype.itemsize());
    for (const py::ssize_t size : shape) bytes *= static_cast<size_t>(size);
    auto owned = std::make_unique<OwnedBlock>(OwnedBlock{acquire_block(bytes), bytes});
    if (!owned->address) throw std::bad_alloc();
    void* address = owned->address;
    const py::capsule owner(owned.release(), [](void* p) {
        const std::unique_ptr<OwnedBlock> block(static_cast<OwnedBlock*>(p));
        release_block(block->address, block->bytes);
    });
    return py::array(dtype, shape, address, owner);
}

namespace {

template <class T>
void bind_functions(py::module_& m) {
    using Function = void (*)(const T*, T*, int64_t);
    using Array = py::array_t<T, py::array::c_style>;
    const auto bind = [&](const char* name, Function function) {
        m.def(
            name,
            [function](const Array& x) {
                py::array_t<T> y(x.size());
                const PlainArithmetic plain;
                function(x.data(), y.mutable_data(), x.size());
                return y;
            },
            py::arg("x"));
    };
    bind("tanh", kernels().of<T>().tanh);
    bind("sigmoid", kernels().of<T>().sigmoid);
}

using Doubles = py::array_t<double, py::array::c_style>;

py::tuple sine_and_cosine(const Doubles& x) {
    py::array_t<double> sine(x.size()), cosine(x.size());
    const PlainArithmetic plain;
    kernels().sine_cosine(x.data(), sine.mutable_data(), cosine.mutable_data(), x.size());
    return py::make_tuple(sine, cosine);
}

void rest(int64_t count, Address bias, Address gain, Address h) {
    find_rest(count, pointer<const double>(bias), pointer<const double>(gain), pointer<double>(h));
}

}  // namespace

const Kernels& kernels() { return *chosen; }

void find_rest(int64_t count, const double* bias, const double* gain, double* h) {
    const auto size = static_cast<size_t>(count);
    std::vector<double> low(size, -1), high(size, 1), drive(size), above(size);
    const ReleasedGil release;
    const auto compare = [&] {  // above: tanh(gain h + bias)
        for (size_t n = 0; n < size; ++n) drive[n] = gain[n] * h[n] + bias[n];
        kernels().of<double>().tanh(drive.data(), above.data(), count);
    };
    // h - tanh(gain h + bias) is negative at -1, and increases to the lowest root or to its first turning point.
    for (size_t n = 0; n < size; ++n)
        h[n] = std::clamp((-std::acosh(std::sqrt(std::max(gain[n], 1.0))) - bias[n]) / gain[n], -1.0, 1.0);
    compare();
    for (size_t n = 0; n < size; ++n)
        if (gain[n] > 1 && h[n] > above[n]) high[n] = h[n];
    constexpr int kHalvings = 60;
    for (int k = 0; k < kHalvings; ++k) {
        for (size_t n = 0; n < size; ++n) h[n] = (low[n] + high[n]) / 2;
        compare();
        for (size_t n = 0; n < size; ++n) (h[n] < above[n] ? low[n] : high[n]) = h[n];
    }
    for (size_t n = 0; n < size; ++n) h[n] = std::isnan(gain[n] + bias[n]) ? std::nan("") : (low[n] + high[n]) / 2;
}

}  // namespace srcell

// Nothing here relies on the GIL: the state that threads share is behind mutexes (memory.cpp, pool.cpp, runtime.cpp).
PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
    using namespace srcell;
    using namespace pybind11::literals;
    m.doc() = "srcell's compiled kernels; only srcell.ops, srcell._shared.parameters and srcell.runtime import them.";
    const std::vector<const Kernels*> available = available_kernels();
    try {
        chosen = choose_kernels(available, std::getenv("SRCELL_ISA"));
        const char* threads = std::getenv("SRCELL_THREADS");
        if (threads && *threads && std::strcmp(threads, "std") != 0)
            throw std::invalid_argument(std::string("SRCELL_THREADS: expected std or no value, got '") + threads + "'");
    } catch (const std::invalid_argument& error) {
        throw py::import_error(error.what());
    }
    py::list names;
    for (const Kernels* table : available) names.append(table->isa);
    m.attr("version") = SRCELL_VERSION;
    m.attr("isa") = chosen->isa;
    m.attr("available_isas") = py::tuple(names);
    m.attr("segment") = kSegment;
    m.attr("event_segment") = kEventSegment;
    m.def("find_threads", &find_threads);
    m.def("thread_runtime", &thread_runtime);
    m.def("cached_bytes", &cached_bytes);
    m.def("empty", &empty_array, "shape"_a, "is_double"_a);

    // Finds NumPy's functions now: a thread that found them when the interpreter ends would end the process.
    const py::array_t<float> made(0);

    bind_layer(m);
    bind_calls(m);
    bind_integer(m);

    bind_functions<float>(m);
    bind_functions<double>(m);
    m.def("rest", &rest, "count"_a, "bias"_a, "gain"_a, "h"_a);
    m.def("sine_cosine", &sine_and_cosine, "x"_a);
    bind_delay(m);
    bind_encode(m);
    bind_events(m);
    bind_runtime(m);
    bind_tensors(m);
}
