// The compiled module srcell._core: turns Python's arguments into the structs of params.h, checks values, releases the
// GIL, and calls the table that dispatch chose. No torch: tensors arrive as addresses and sizes, already checked for
// shape, dtype, device and contiguity by _ops.py, the only importer.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <sstream>

#include "../cpu/dispatch.h"
#include "../cpu/memory.h"
#include "../cpu/parallel.h"

namespace py = pybind11;

void bind_encode(py::module_& m);
void bind_events(py::module_& m);

namespace srcell {
namespace {

using Address = std::uintptr_t;  // of a tensor's first element; 0: the tensor is absent

const Kernels* kernels = nullptr;  // chosen once, at import

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

template <class... Parts>
[[noreturn]] void value_error(const Parts&... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw py::value_error(message.str());
}

constexpr size_t kParameters = 7;
constexpr const char* kParameterNames[kParameters] = {"bias", "alpha", "rho", "r", "rs", "zs_hyp", "zs_dep"};

// The cell's parameters as _ops.py hands them over: for each the address of a tensor with stride 0 (one value) or 1
// (one per neuron), or address 0 and a constant for the layer.
struct Parameters {
    std::array<double, kParameters> constants;
    std::array<Address, kParameters> addresses;
    std::array<int64_t, kParameters> strides;
};

template <class T>
class Cell {
  public:
    Cell(const Parameters& given, int64_t neurons) {
        for (size_t k = 0; k < kParameters; ++k) {
            constants_[k] = static_cast<T>(given.constants[k]);
            const bool is_constant = given.addresses[k] == 0 && given.strides[k] == 0;
            parameters_[k] = is_constant ? Parameter<T>{&constants_[k], 0}
                                         : Parameter<T>{pointer<const T>(given.addresses[k]), given.strides[k]};
            check(k, neurons);
        }
    }
    Cell(const Cell&) = delete;
    Cell& operator=(const Cell&) = delete;

    CellParameters<T> parameters() const {
        const Parameter<T>* p = parameters_;
        return {p[0], p[1], p[2], p[3], p[4], p[5], p[6]};
    }

  private:
    // Layer-wide values must be finite, alpha in [0, 1] and rho > 0 everywhere.
    void check(size_t k, int64_t neurons) const {
        const std::string name = kParameterNames[k];
        const int64_t count = parameters_[k].stride ? neurons : 1;
        for (int64_t n = 0; n < count; ++n) {
            const T value = parameters_[k].data[n];
            if (name == "alpha" && !(value >= 0 && value <= 1))
                value_error("alpha: expected values in [0, 1], got ", value);
            if (name == "rho" && !(value > 0 && std::isfinite(value)))
                value_error("rho: expected finite values > 0, got ", value);
            if (!parameters_[k].stride && !std::isfinite(value))
                value_error(name, ": expected a finite value, got ", value);
        }
    }

    T constants_[kParameters];
    Parameter<T> parameters_[kParameters];
};

ScanShape make_shape(const std::array<int64_t, 3>& sizes, Address lengths, int threads) {
    const ScanShape shape = {sizes[0], sizes[1], sizes[2], pointer<const int64_t>(lengths), threads};
    if (shape.lengths)
        for (int64_t b = 0; b < shape.batch; ++b)
            if (shape.lengths[b] < 0 || shape.lengths[b] > shape.steps)
                value_error("lengths: expected values in [0, ", shape.steps, "], got ", shape.lengths[b],
                            " for sample ", b);
    return shape;
}

template <class T>
void forward(const std::array<int64_t, 3>& sizes, Address lengths, int threads, const Parameters& parameters,
             Address current, const std::array<Address, 3>& initial, Address spikes,
             const std::array<Address, 3>& state, Address checkpoints) {
    const Cell<T> cell(parameters, sizes[2]);
    const ScanForward<T> p = {make_shape(sizes, lengths, threads),
                              cell.parameters(),
                              pointer<const T>(current),
                              pointer<const T>(initial[0]),
                              pointer<const T>(initial[1]),
                              pointer<const T>(initial[2]),
                              pointer<T>(spikes),
                              pointer<T>(state[0]),
                              pointer<T>(state[1]),
                              pointer<T>(state[2]),
                              pointer<T>(checkpoints)};
    const py::gil_scoped_release release;
    if constexpr (sizeof(T) == sizeof(float))
        kernels->scan_forward_f32(p);
    else
        kernels->scan_forward_f64(p);
}

template <class T>
void backward(const std::array<int64_t, 3>& sizes, Address lengths, int threads, const Parameters& parameters,
              bool relu, bool recurrent, Address current, Address checkpoints, Address grad_spikes,
              const std::array<Address, 3>& grad_state, Address grad_current,
              const std::array<Address, 3>& grad_initial, Address grad_bias, const std::array<Address, 6>& grad_cell) {
    const Cell<T> cell(parameters, sizes[2]);
    bool any = false;
    for (const Address grad : grad_cell) any = any || grad;
    const auto scratch = static_cast<size_t>((any ? kSums : 1) * sizes[1] * sizes[2]);
    const std::unique_ptr<T[]> partials(new T[scratch]);
    ScanBackward<T> p = {make_shape(sizes, lengths, threads),
                         cell.parameters(),
                         relu,
                         recurrent,
                         pointer<const T>(current),
                         pointer<const T>(checkpoints),
                         pointer<const T>(grad_spikes),
                         pointer<const T>(grad_state[0]),
                         pointer<const T>(grad_state[1]),
                         pointer<const T>(grad_state[2]),
                         pointer<T>(grad_current),
                         pointer<T>(grad_initial[0]),
                         pointer<T>(grad_initial[1]),
                         pointer<T>(grad_initial[2]),
                         pointer<T>(grad_bias),
                         {},
                         partials.get()};
    for (size_t k = 0; k < 6; ++k) p.grad_cell[k] = pointer<T>(grad_cell[k]);
    const py::gil_scoped_release release;
    if constexpr (sizeof(T) == sizeof(float))
        kernels->scan_backward_f32(p);
    else
        kernels->scan_backward_f64(p);
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
    function(x.data(), y.mutable_data(), x.size());
    return y;
}

}  // namespace
}  // namespace srcell

PYBIND11_MODULE(_core, m) {
    using namespace srcell;
    m.doc() = "srcell's compiled kernels; srcell._ops is the only importer.";
    const std::vector<const Kernels*> available = available_kernels();
    try {
        kernels = choose_kernels(available, std::getenv("SRCELL_ISA"));
    } catch (const std::invalid_argument& error) {
        throw py::import_error(error.what());
    }
    std::vector<std::string> names;
    for (const Kernels* table : available) names.emplace_back(table->isa);
    m.attr("version") = SRCELL_VERSION;
    m.attr("isa") = kernels->isa;
    m.attr("available_isas") = py::tuple(py::cast(names));
    m.attr("segment") = kSegment;
    m.def("thread_runtime", &thread_runtime);
    m.def("cached_bytes", &cached_bytes);
    m.def("empty", &empty);

    py::class_<Parameters>(m, "Parameters")
        .def(py::init(
            [](const std::array<double, kParameters>& constants, const std::array<Address, kParameters>& addresses,
               const std::array<int64_t, kParameters>& strides) { return Parameters{constants, addresses, strides}; }));
    m.def("scan_forward_f32", &forward<float>);
    m.def("scan_forward_f64", &forward<double>);
    m.def("scan_backward_f32", &backward<float>);
    m.def("scan_backward_f64", &backward<double>);

    m.def("tanh", [](const py::array_t<float, py::array::c_style>& x) { return apply(kernels->tanh_f32, x); });
    m.def("tanh", [](const py::array_t<double, py::array::c_style>& x) { return apply(kernels->tanh_f64, x); });
    m.def("sigmoid", [](const py::array_t<float, py::array::c_style>& x) { return apply(kernels->sigmoid_f32, x); });
    m.def("sigmoid", [](const py::array_t<double, py::array::c_style>& x) { return apply(kernels->sigmoid_f64, x); });
    bind_encode(m);
    bind_events(m);
}
