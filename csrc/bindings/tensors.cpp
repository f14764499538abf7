// Reads and makes tensors of torch (tensors.h). core.cpp calls bind_tensors().
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
struct Managed {  // a DLManagedTensor begins with the tensor
    DLTensor tensor;
};
struct ManagedVersioned {
    uint32_t major, minor;
    void *owner, *deleter;
    uint64_t flags;
    DLTensor tensor;
};
constexpr uint32_t kMajor = 1;  // the version of these structures
constexpr int32_t kCpu = 1, kCuda = 2;
constexpr uint8_t kSigned = 0, kUnsigned = 1, kFloating = 2, kBoolean = 6;

// torch's name of each Number, and DLPack's description of it.
struct NumberType {
    const char* name;
    uint8_t code, bytes;
};
constexpr NumberType kNumbers[] = {{"float32", kFloating, 4}, {"float64", kFloating, 8}, {"int32", kSigned, 4},
                                   {"int64", kSigned, 8},     {"int16", kSigned, 2},     {"uint8", kUnsigned, 1},
                                   {"bool", kBoolean, 1}};
constexpr int kNumberTypes = std::size(kNumbers);

const NumberType& type_of(Number number) { return kNumbers[static_cast<int>(number)]; }

// Names and objects of torch that each call needs; made once, and never freed.
struct Torch {
    PyObject *tensor, *parameter, *event_batch;  // types
    PyObject* states_of[4];                      // types, the second and the last resonant, the last two with delays
    const ExchangeTable* table = nullptr;
    PyObject *is_neg, *resolve_neg, *contiguous, *clone, *new_empty, *data_ptr, *stride, *shape, *dtype, *device, *type,
        *index, *layout, *strided, *view, *from_numpy, *empty_like, *requires_grad, *gradients_enabled, *t;
    PyObject* dtypes[kNumberTypes];
    // What is_watched() asks.
    PyObject *keys_of_thread, *raw_repr, *forward_ad, *current_level, *function_modes, *is_profiled, *autocast_enabled,
        *cpu;
    PyObject *usual_keys, *highest, *no_key;
    bool keys_are_numbers;  // from torch 2.5 on, which is faster
    uint64_t usual_bits = 0;

    Torch() {
        const py::module_ torch = py::module_::import("torch");
        const auto hold = [](const py::object& object) { return object.inc_ref().ptr(); };
        const auto name = [](const char* text) { return PyUnicode_InternFromString(text); };
        tensor = hold(torch.attr("Tensor"));
        parameter = hold(torch.attr("nn").attr("Parameter"));
        strided = hold(torch.attr("strided"));
        from_numpy = hold(torch.attr("from_numpy"));
        for (int k = 0; k < kNumberTypes; ++k) dtypes[k] = hold(torch.attr(kNumbers[k].name));
        is_neg = name("is_neg"), resolve_neg = name("resolve_neg"), contiguous = name("contiguous");
        clone = name("clone"), new_empty = name("new_empty"), data_ptr = name("data_ptr"), stride = name("stride");
        shape = name("shape"), dtype = name("dtype"), device = name("device"), type = name("type"),
        index = name("index");
        layout = name("layout"), view = name("view"), requires_grad = name("requires_grad");
        empty_like = hold(torch.attr("empty_like"));
        gradients_enabled = hold(torch.attr("is_grad_enabled"));
        autocast_enabled = hold(torch.attr("is_autocast_enabled"));
        cpu = name("cpu");
        t = name("t");
        raw_repr = name("raw_repr"), current_level = name("_current_level");
        const py::module_ names = py::module_::import("srcell._shared.torch_private");
        keys_of_thread = hold(names.attr("keys_of_thread"));
        usual_keys = hold(names.attr("USUAL_KEYS"));
        keys_are_numbers = py::hasattr(names.attr("USUAL_KEYS"), "raw_repr");
        if (keys_are_numbers) usual_bits = py::cast<uint64_t>(names.attr("USUAL_KEYS").attr("raw_repr")());
        highest = name("highestPriorityTypeId");
        no_key = hold(names.attr("NO_KEY"));
        forward_ad = hold(names.attr("forward_ad"));
        function_modes = hold(names.attr("function_modes"));
        is_profiled = hold(names.attr("is_profiled"));
        event_batch = hold(py::module_::import("srcell.events").attr("EventBatch"));
        const py::module_ states = py::module_::import("srcell._shared.state");
        const char* const kinds[] = {"SRCState", "ResonantState", "DelayedState", "DelayedResonantState"};
        for (int k = 0; k < 4; ++k) states_of[k] = hold(states.attr(kinds[k]));
        if (!py::hasattr(torch.attr("Tensor"), "__dlpack_c_exchange_api__")) return;
        const py::object capsule = torch.attr("Tensor").attr("__dlpack_c_exchange_api__");
        table = static_cast<const ExchangeTable*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
        while (table && table->major > kMajor) table = table->older;
        if (table && (table->major < kMajor || !table->tensor_from_object)) table = nullptr;
        PyErr_Clear();
    }
};

const Torch& torch() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<Torch> made;
    return made.call_once_and_store_result([] { return Torch(); }).get_stored();
}

// Takes over a new reference, or throws the error that Python has set.
py::object take(PyObject* made) {
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
}

py::object call_method(py::handle object, PyObject* name) {
    return take(PyObject_CallMethodNoArgs(object.ptr(), name));
}
py::object call(PyObject* function) { return take(PyObject_CallNoArgs(function)); }
py::object call(PyObject* function, PyObject* argument) { return take(PyObject_CallOneArg(function, argument)); }

int64_t as_int(const py::object& number) {
    const long long value = PyLong_AsLongLong(number.ptr());
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
}

bool is_own_type(py::handle object) {
    auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    return type == torch().tensor || type == torch().parameter;
}

// What a tensor is, before it is known to be row-major.
struct Described {
    Tensor tensor;
    Device device;
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

// What a capsule describes, as long as the capsule lives; null for anything else, which torch refuses.
const DLTensor* described(py::handle capsule) {
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor"))
        return &static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"))->tensor;
    if (!PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) return nullptr;
    const auto* const made = static_cast<ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    return made->major > kMajor ? nullptr : &made->tensor;
}

bool describe_by_table(py::handle object, bool anywhere, Described& made) {
    DLTensor given;
    if (torch().table->tensor_from_object(object.ptr(), &given)) {
        PyErr_Clear();
        return false;
    }
    made.device = {given.device_type, given.device_id};
    if ((given.device_type != kCpu && !anywhere) || given.ndim < 0 || given.ndim > kMostDimensions || given.lanes != 1)
        return false;
    made.tensor.number = Number::kOther;
    for (int k = 0; k < kNumberTypes; ++k)
        if (given.code == kNumbers[k].code && given.bits == 8 * kNumbers[k].bytes)
            made.tensor.number = static_cast<Number>(k);
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

bool describe_by_attributes(py::handle object, bool anywhere, Described& made) {
    const Torch& of = torch();
    if (!PyObject_IsInstance(object.ptr(), of.tensor)) return false;
    const auto attribute = [&](PyObject* name) { return object.attr(py::handle(name)); };
    if (attribute(of.layout).ptr() != of.strided) return false;
    const py::object device = attribute(of.device), index = device.attr(py::handle(of.index));
    const auto type = py::cast<std::string>(device.attr(py::handle(of.type)));
    made.device = {type == "cpu" ? kCpu : type == "cuda" ? kCuda : 0, index.is_none() ? 0 : py::cast<int32_t>(index)};
    if (!anywhere && made.device.type != kCpu) return false;
    const py::object dtype = attribute(of.dtype), shape = attribute(of.shape);
    made.tensor.number = Number::kOther;
    for (int k = 0; k < kNumberTypes; ++k)
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

bool describe_as(py::handle object, Described& made, bool anywhere = false) {
    if (torch().table && is_own_type(object)) return describe_by_table(object, anywhere, made);
    try {
        return describe_by_attributes(object, anywhere, made);
    } catch (py::error_already_set&) {  // a tensor without memory
        return false;
    }
}

bool aligned(const Tensor& tensor) {
    const uint8_t size = tensor.number == Number::kOther ? 8 : type_of(tensor.number).bytes;
    return reinterpret_cast<std::uintptr_t>(tensor.data) % size == 0;
}

}  // namespace

Reader::Reader(Kind kind)
    : is_plain_(kind == kPlain), anywhere_(kind == kAnywhere), with_gradients_(is_plain_ && gradients_enabled()) {}

bool Reader::describe(py::handle object, Tensor& tensor) {
    Described found;
    if (is_plain_ && !is_own_type(object)) return false;
    if (with_gradients_) learnt_ += requires_grad(object);
    if (!describe_as(object, found, anywhere_)) return false;
    tensor = found.tensor;
    return true;
}

bool Reader::read(py::handle object, Tensor& tensor) {
    Described found;
    if (is_plain_ && !is_own_type(object)) return false;
    if (with_gradients_) learnt_ += requires_grad(object);
    if (!describe_as(object, found, anywhere_)) return false;
    const bool negated = call_method(object, torch().is_neg).ptr() == Py_True;
    if (negated || !found.row_major() || !aligned(found.tensor)) {
        py::object copy = call_method(object, torch().resolve_neg);
        copy = call_method(copy, torch().contiguous);
        if (copy.is(object)) copy = call_method(copy, torch().clone);
        if (!describe_as(copy, found, anywhere_) || !found.row_major()) return false;
        if (!aligned(found.tensor)) {
            copy = call_method(copy, torch().clone);
            if (!describe_as(copy, found, anywhere_)) return false;
        }
        kept_.push_back(std::move(copy));
    }
    if (!found.tensor.data && found.tensor.elements()) return false;
    if (device_ && !(*device_ == found.device)) return false;
    device_ = found.device, tensor = found.tensor;
    return true;
}

namespace {

bool has_unusual_keys() {
    const Torch& of = torch();
    const py::object keys = call(of.keys_of_thread);
    if (of.keys_are_numbers) return PyLong_AsUnsignedLongLong(call_method(keys, of.raw_repr).ptr()) & ~of.usual_bits;
    const py::object others = take(PyNumber_Subtract(keys.ptr(), of.usual_keys));
    return !call_method(others, of.highest).equal(py::handle(of.no_key));
}

}  // namespace

bool is_watched() {
    const Torch& of = torch();
    return has_unusual_keys() || as_int(py::handle(of.forward_ad).attr(py::handle(of.current_level))) >= 0 ||
           as_int(call(of.function_modes)) || call(of.is_profiled).ptr() == Py_True;
}

bool requires_grad(py::handle tensor) { return tensor.attr(py::handle(torch().requires_grad)).ptr() == Py_True; }

bool gradients_enabled() { return call(torch().gradients_enabled).ptr() == Py_True; }

bool autocasts() { return call(torch().autocast_enabled, torch().cpu).ptr() == Py_True; }

py::object transposed(py::handle matrix) { return call_method(call_method(matrix, torch().t), torch().contiguous); }

bool is_event_batch(py::handle object) {
    return reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == torch().event_batch;
}

py::object new_state(const py::tuple& tensors, bool resonant, bool delayed) {
    auto* const type = reinterpret_cast<PyTypeObject*>(torch().states_of[resonant + 2 * delayed]);
    return take(PyTuple_Type.tp_new(type, py::make_tuple(tensors).ptr(), nullptr));
}

namespace {

bool is_large(int64_t elements, Number number, int64_t large) { return elements * type_of(number).bytes >= large; }

Tensor describe_new(py::handle tensor) {
    Described found;
    if (!describe_as(tensor, found)) throw std::logic_error("srcell: expected torch to make a dense tensor");
    return found.tensor;
}

}  // namespace

py::object another(py::handle tensor, Tensor& made, int64_t large) {
    Shape shape = {};
    shape.count = made.dimensions;
    std::copy_n(made.shape, made.dimensions, shape.of);
    if (is_large(made.elements(), made.number, large)) return new_tensor(tensor, made.number, shape, made, large);
    py::object copy = call(torch().empty_like, tensor.ptr());
    made = describe_new(copy);
    return copy;
}

py::object new_tensor(py::handle like, Number number, const Shape& shape, Tensor& made, int64_t large) {
    const Torch& of = torch();
    py::tuple sizes(shape.count);
    int64_t elements = 1;
    for (int k = 0; k < shape.count; ++k) {
        const int64_t size = shape.of[k];
        if (size && elements > INT64_MAX / 8 / size) throw std::bad_alloc();
        elements *= size;
        PyTuple_SET_ITEM(sizes.ptr(), k, py::int_(size).release().ptr());
    }
    const py::handle dtype = of.dtypes[static_cast<int>(number)];
    Described of_like;
    py::object tensor;
    if (is_large(elements, number, large)) {
        const int64_t bytes = type_of(number).bytes;
        tensor = py::handle(of.from_numpy)(empty_array({(elements * bytes + 3) / 4}, false));
        tensor = tensor.attr(py::handle(of.view))(dtype);
        if (bytes < 4) tensor = tensor.attr("narrow")(0, 0, elements);
        tensor = tensor.attr(py::handle(of.view))(sizes).attr("detach")();  // no view to autograd: it may be changed
    } else if (describe_as(like, of_like) && of_like.tensor.number == number) {
        PyObject* const arguments[] = {like.ptr(), sizes.ptr()};
        tensor = take(PyObject_VectorcallMethod(of.new_empty, arguments, 2, nullptr));
    } else {
        tensor = like.attr(py::handle(of.new_empty))(sizes, py::arg("dtype") = dtype);
    }
    made = describe_new(tensor);
    return tensor;
}

namespace {

// Raises for a capsule of DLPack for which torch would end the process: on a device of another kind, or with strides
// that it cannot compute the size of the memory from.
void check_capsule(py::handle capsule) {
    const DLTensor* const given = described(capsule);
    if (!given) return;
    constexpr int32_t kMemories[] = {kCpu, 2, 3, 10, 11, 13};  // of the host, of CUDA and of ROCm; torch 2.4 needs this
    if (std::count(std::begin(kMemories), std::end(kMemories), given->device_type) == 0)
        value_error("expected an array on a CPU or a GPU, got one on DLPack's device type ", given->device_type);
    // torch 2.4 reads an array from where its memory begins. NumPy does not: it takes what torch must not.
    if (given->byte_offset && (given->device_type == kCpu || !torch().table))
        value_error("expected an array without an offset, got one of ", given->byte_offset, " bytes");
    if (given->ndim < 0) value_error("expected at least 0 dimensions, got ", given->ndim);
    const int64_t *const sizes = given->shape, *const strides = given->strides;
    if (!strides || std::count(sizes, sizes + given->ndim, 0)) return;  // contiguous, or empty
    __int128 last = 0;                                                  // element, counted from the first
    bool fits = true;
    for (int32_t k = 0; k < given->ndim && fits; ++k) {
        const __int128 span = __int128(sizes[k] - 1) * strides[k];
        fits = span >= 0 && (last += span) < INT64_MAX;
    }
    if (fits && (last + 1) * (given->bits * given->lanes / 8) <= INT64_MAX) return;
    std::ostringstream of_strides, of_sizes;
    for (int32_t k = 0; k < given->ndim; ++k) {
        of_strides << (k ? ", " : "") << strides[k];
        of_sizes << (k ? ", " : "") << sizes[k];
    }
    value_error("expected strides of at least 0 within 2^63 bytes, got [", of_strides.str(), "] for shape (",
                of_sizes.str(), ")");
}

// The table as srcell.ops reads it: by name the rows, each with its flags.
py::dict table() {
    const auto name_of = [](Number number) {
        if (number == Number::kFloat) return "float";
        return number == Number::kAny ? "any" : type_of(number).name;
    };
    py::dict made;
    for (const auto& [name, rows, count] : kTable) {
        py::list listed;
        for (size_t k = 0; k < count; ++k) {
            const auto flag = [&](Presence presence) { return (rows[k].presence & presence) != 0; };
            listed.append(py::make_tuple(rows[k].name, name_of(rows[k].number), rows[k].shapes, flag(kOptional),
                                         flag(kLeads), flag(kList)));
        }
        made[name] = py::tuple(listed);
    }
    return made;
}

}  // namespace

}  // namespace srcell

void bind_tensors(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.attr("table") = srcell::table();
    m.def("check_capsule", &srcell::check_capsule, "capsule"_a);
}
