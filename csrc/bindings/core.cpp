// The compiled module srcell._core: picks the kernels, releases the GIL, and calls them. No torch: tensors arrive as
// addresses and sizes from srcell.ops, the only importer.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>

#include "../cpu/dispatch.h"
#include "../cpu/parallel.h"
#include "arguments.h"

namespace py = pybind11;

void bind_encode(py::module_& m);
void bind_events(py::module_& m);
void bind_linear(py::module_& m);

namespace srcell {
namespace {

const Kernels* chosen = nullptr;  // at import

template <class T>
void scan_forward(const ForwardArguments& arguments, Address current, Address checkpoints) {
    const Cell<T> cell(arguments.parameters, arguments.sizes[2]);
    const ScanForward<T> p = {cell_forward(arguments, cell.parameters()), pointer<const T>(current),
                              pointer<T>(checkpoints)};
    const ReleasedGil release;
    if constexpr (sizeof(T) == sizeof(float))
        kernels().scan_forward_f32(p);
    else
        kernels().scan_forward_f64(p);
}

template <class T>
void scan_backward(const BackwardArguments& arguments, Address current, Address checkpoints, Address grad_current) {
    const Cell<T> cell(arguments.parameters, arguments.sizes[2]);
    const Scratch<T> partials(count_partials(arguments));
    const ScanBackward<T> p = {cell_backward(arguments, cell.parameters(), partials.get()), pointer<const T>(current),
                               pointer<const T>(checkpoints), pointer<T>(grad_current)};
    const ReleasedGil release;
    if constexpr (sizeof(T) == sizeof(float))
        kernels().scan_backward_f32(p);
    else
        kernels().scan_backward_f64(p);
}

struct OwnedBlock {
    void* address;
    size_t bytes;
};

// An uninitialised array on a block of huge pages; freeing the array gives the block back for reuse.
py::array empty(const std::vector<py::ssize_t>& shape, bool is_double) {
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

template <class T>
using Elementwise = void (*)(const T*, T*, int64_t);

template <class T>
py::array_t<T> apply(Elementwise<T> function, const py::array_t<T, py::array::c_style>& x) {
    py::array_t<T> y(x.size());
    const PlainArithmetic plain;
    function(x.data(), y.mutable_data(), x.size());
    return y;
}

}  // namespace

const Kernels& kernels() { return *chosen; }

}  // namespace srcell

PYBIND11_MODULE(_core, m) {
    using namespace srcell;
    m.doc() = "srcell's compiled kernels; srcell.ops is the only importer.";
    const std::vector<const Kernels*> available = available_kernels();
    try {
        chosen = choose_kernels(available, std::getenv("SRCELL_ISA"));
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
    m.def("thread_runtime", &thread_runtime);
    m.def("cached_bytes", &cached_bytes);
    m.def("empty", &empty);

    py::class_<Parameters>(m, "Parameters")
        .def(py::init(
            [](const std::array<double, kParameters>& constants, const std::array<Address, kParameters>& addresses,
               const std::array<int64_t, kParameters>& strides) { return Parameters{constants, addresses, strides}; }));
    py::class_<ForwardArguments>(m, "ForwardArguments")
        .def(
            py::init([](const std::array<int64_t, 3>& sizes, Address lengths, int threads, const Parameters& parameters,
                        const std::array<Address, 3>& initial, Address spikes, const std::array<Address, 3>& state) {
                return ForwardArguments{sizes, lengths, threads, parameters, initial, spikes, state};
            }));
    py::class_<BackwardArguments>(m, "BackwardArguments")
        .def(py::init([](const std::array<int64_t, 3>& sizes, Address lengths, int threads,
                         const Parameters& parameters, bool relu, bool recurrent, Address grad_spikes,
                         const std::array<Address, 3>& grad_state, const std::array<Address, 3>& grad_initial,
                         Address grad_bias, const std::array<Address, 6>& grad_cell) {
            return BackwardArguments{sizes,       lengths,    threads,      parameters, relu,     recurrent,
                                     grad_spikes, grad_state, grad_initial, grad_bias,  grad_cell};
        }));
    m.def("scan_forward_f32", &scan_forward<float>);
    m.def("scan_forward_f64", &scan_forward<double>);
    m.def("scan_backward_f32", &scan_backward<float>);
    m.def("scan_backward_f64", &scan_backward<double>);
    bind_linear(m);

    m.def("tanh", [](const py::array_t<float, py::array::c_style>& x) { return apply(chosen->tanh_f32, x); });
    m.def("tanh", [](const py::array_t<double, py::array::c_style>& x) { return apply(chosen->tanh_f64, x); });
    m.def("sigmoid", [](const py::array_t<float, py::array::c_style>& x) { return apply(chosen->sigmoid_f32, x); });
    m.def("sigmoid", [](const py::array_t<double, py::array::c_style>& x) { return apply(chosen->sigmoid_f64, x); });
    bind_encode(m);
    bind_events(m);
}
