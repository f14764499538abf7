// Reads and makes tensors of torch (tensors.h).
#include "tensors.h"

#include <pybind11/gil_safe_call_once.h>

#include "arguments.h"

namespace srcell {

namespace {

// Of DLPack's header, version 1: what torch's table exchanges.
struct DLTensor {
    void* data;
    int32_t device_type, device_id;
    int32_t ndim;
    uint8_t code, bits;
    uint16_t lanes;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};
struct ExchangeTable {
    uint32_t major, minor;
    ExchangeTable* older;
    void *allocate, *managed_from_object, *managed_to_object;
    int (*tensor_from_object)(void* object, DLTensor* tensor);  // borrows the shape and the strides; may be null
    void* current_stream;
};
constexpr int32_t kCpu = 1;
constexpr uint8_t kSigned = 0, kFloating = 2;

// Names and objects of torch that each call needs; made once, and never freed.
struct Torch {
    PyObject *tensor, *parameter;  // types
    const ExchangeTable* table = nullptr;
    PyObject *is_neg, *resolve_neg, *contiguous, *clone, *new_empty, *data_ptr, *stride, *shape, *dtype, *device, *type,
        *layout, *strided, *view, *from_numpy;
    PyObject* dtypes[4];

    Torch() {
        const py::module_ torch = py::module_::import("torch");
        const auto hold = [](const py::object& object) { return object.inc_ref().ptr(); };
        const auto name = [](const char* text) { return PyUnicode_InternFromString(text); };
        tensor = hold(torch.attr("Tensor"));
        parameter = hold(torch.attr("nn").attr("Parameter"));
        strided = hold(torch.attr("strided"));
        from_numpy = hold(torch.attr("from_numpy"));
        const char* const dtypes_of[] = {"float32", "float64", "int32", "int64"};
        for (int k = 0; k < 4; ++k) dtypes[k] = hold(torch.attr(dtypes_of[k]));
        is_neg = name("is_neg"), resolve_neg = name("resolve_neg"), contiguous = name("contiguous");
        clone = name("clone"), new_empty = name("new_empty"), data_ptr = name("data_ptr"), stride = name("stride");
        shape = name("shape"), dtype = name("dtype"), device = name("device"), type = name("type");
        layout = name("layout"), view = name("view");
        if (!py::hasattr(torch.attr("Tensor"), "__dlpack_c_exchange_api__")) return;
        const py::object capsule = torch.attr("Tensor").attr("__dlpack_c_exchange_api__");
        table = static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
        while (table && table->major > 1) table = table->older;
        if (table && (table->major < 1 || !table->tensor_from_object)) table = nullptr;
        PyErr_Clear();
    }
};

const Torch& torch() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Torch> made;
    return made.call_once_and_store_result([] { return Torch(); }).get_stored();
}

py::object call_method(py::handle object, PyObject* name) {
    PyObject* const made = PyObject_CallMethodNoArgs(object.ptr(), name);
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
}

// What a tensor is, before it is known to be row-major.
struct Described {
    Tensor tensor;
    int64_t strides[kMostDimensions];

    bool row_major() const {
        int64_t expected = 1;
        if (!tensor.elements()) return true;
        for (int k = kMostDimensions - 1; k >= 0; --k) {
            if (k >= tensor.dimensions) continue;
            if (tensor.shape[k] != 1 && strides[k] != expected) return false;
            expected *= tensor.shape[k];
        }
        return true;
    }
};

bool describe_by_table(py::handle object, Described& made) {
    DLTensor given;
    if (torch().table->tensor_from_object(object.ptr(), &given)) {
        PyErr_Clear();
        return false;
    }
    if (given.device_type != kCpu || given.ndim < 0 || given.ndim > kMostDimensions || given.lanes != 1) return false;
    const bool floating = given.code == kFloating, wide = given.bits == 64;
    made.tensor.number = (given.bits != 32 && !wide) || (!floating && given.code != kSigned) ? Number::kOther
                         : floating ? (wide ? Number::kFloat64 : Number::kFloat32)
                                    : (wide ? Number::kInt64 : Number::kInt32);
    made.tensor.data = static_cast<char*>(given.data) + given.byte_offset;
    made.tensor.dimensions = given.ndim;
    std::copy_n(given.shape, given.ndim, made.tensor.shape);
    std::copy_n(given.strides, given.ndim, made.strides);
    return true;
}

// Copies a tuple of ints.
bool copy_sizes(const py::object& sizes, int64_t* to, int expected) {
    if (!PyTuple_Check(sizes.ptr()) || PyTuple_GET_SIZE(sizes.ptr()) != expected) return false;
    for (int k = 0; k < expected; ++k) {
        to[k] = PyLong_AsLongLong(PyTuple_GET_ITEM(sizes.ptr(), k));
        if (to[k] == -1 && PyErr_Occurred()) throw py::error_already_set();
    }
    return true;
}

bool describe_by_attributes(py::handle object, Described& made) {
    const Torch& of = torch();
    if (!PyObject_IsInstance(object.ptr(), of.tensor)) return false;
    const auto attribute = [&](PyObject* name) { return object.attr(py::handle(name)); };
    if (attribute(of.layout).ptr() != of.strided) return false;
    if (py::cast<std::string>(attribute(of.device).attr(py::handle(of.type))) != "cpu") return false;
    const py::object dtype = attribute(of.dtype), shape = attribute(of.shape);
    made.tensor.number = Number::kOther;
    for (int k = 0; k < 4; ++k)
        if (dtype.ptr() == of.dtypes[k]) made.tensor.number = static_cast<Number>(k);
    const auto dimensions = PyTuple_Check(shape.ptr()) ? PyTuple_GET_SIZE(shape.ptr()) : kMostDimensions + 1;
    if (dimensions > kMostDimensions) return false;
    made.tensor.dimensions = static_cast<int>(dimensions);
    if (!copy_sizes(shape, made.tensor.shape, made.tensor.dimensions) ||
        !copy_sizes(call_method(object, of.stride), made.strides, made.tensor.dimensions))
        return false;
    made.tensor.data = PyLong_AsVoidPtr(call_method(object, of.data_ptr).ptr());
    if (!made.tensor.data && PyErr_Occurred()) throw py::error_already_set();
    return true;
}

bool describe(py::handle object, Described& made) {
    const Torch& of = torch();
    auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    if (of.table && (type == of.tensor || type == of.parameter)) return describe_by_table(object, made);
    try {
        return describe_by_attributes(object, made);
    } catch (py::error_already_set&) {  // a tensor without memory
        return false;
    }
}

bool aligned(const Tensor& tensor) {
    const auto size = tensor.number == Number::kFloat32 || tensor.number == Number::kInt32 ? 4u : 8u;
    return reinterpret_cast<std::uintptr_t>(tensor.data) % size == 0;
}

}  // namespace

bool Reader::read(py::handle object, Tensor& tensor) {
    Described found;
    if (!describe(object, found)) return false;
    const bool negated = call_method(object, torch().is_neg).ptr() == Py_True;
    if (negated || !found.row_major() || !aligned(found.tensor)) {
        py::object copy = call_method(object, torch().resolve_neg);
        copy = call_method(copy, torch().contiguous);
        if (copy.is(object)) copy = call_method(copy, torch().clone);
        if (!describe(copy, found) || !found.row_major()) return false;
        if (!aligned(found.tensor)) {
            copy = call_method(copy, torch().clone);
            if (!describe(copy, found)) return false;
        }
        copies_.push_back(std::move(copy));
    }
    if (!found.tensor.data && found.tensor.elements()) return false;
    tensor = found.tensor;
    return true;
}

py::object new_tensor(py::handle like, Number number, std::initializer_list<int64_t> shape, Tensor& made) {
    constexpr int64_t kBlockBytes = 4 << 20;  // from here on, huge pages that are used again are faster
    const Torch& of = torch();
    py::tuple sizes(shape.size());
    int64_t elements = 1;
    size_t at = 0;
    for (const int64_t size : shape) {
        if (size && elements > INT64_MAX / 8 / size) throw std::bad_alloc();
        elements *= size;
        sizes[at++] = py::int_(size);
    }
    const bool wide = number == Number::kFloat64 || number == Number::kInt64;
    py::object tensor;
    if (elements * (wide ? 8 : 4) >= kBlockBytes) {
        const py::array array = empty_array(std::vector<py::ssize_t>(shape.begin(), shape.end()), wide);
        tensor = py::handle(of.from_numpy)(array);
        if (number != (wide ? Number::kFloat64 : Number::kFloat32))
            tensor = tensor.attr(py::handle(of.view))(py::handle(of.dtypes[static_cast<int>(number)]));
    } else if (number == Number::kFloat32 || number == Number::kFloat64) {
        PyObject* const arguments[] = {like.ptr(), sizes.ptr()};
        PyObject* const empty = PyObject_VectorcallMethod(of.new_empty, arguments, 2, nullptr);
        if (!empty) throw py::error_already_set();
        tensor = py::reinterpret_steal<py::object>(empty);
    } else {
        using namespace py::literals;
        tensor =
            like.attr(py::handle(of.new_empty))(sizes, "dtype"_a = py::handle(of.dtypes[static_cast<int>(number)]));
    }
    Described found;
    if (!describe(tensor, found)) throw std::logic_error("srcell: expected torch's new_empty to make a dense tensor");
    made = found.tensor;
    return tensor;
}

}  // namespace srcell
