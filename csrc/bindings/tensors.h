// Reads torch's tensors, and makes new ones. A tensor of torch's own type is read by DLPack's exchange table, which
// torch has from 2.10 on; any other, or without the table, by its attributes, which fail where a tensor has no memory.
// Used by the bindings with the GIL held; links no torch.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "table.h"

namespace srcell {

namespace py = pybind11;

constexpr int kMostDimensions = 4;  // of the tensors of any operator

// The sizes of a tensor.
struct Shape {
    Shape(std::initializer_list<int64_t> sizes) : count(static_cast<int>(sizes.size())) {
        std::copy(sizes.begin(), sizes.end(), of);
    }
    bool operator==(const Shape& other) const { return count == other.count && std::equal(of, of + count, other.of); }

    int count;
    int64_t of[kMostDimensions];
};

// A dense tensor, on the host unless a reader reads anywhere. It lives as long as the reader that read it, if another
// thread does not resize it.
struct Tensor {
    void* data;
    Number number;
    int dimensions;
    int64_t shape[kMostDimensions];

    int64_t elements() const {
        int64_t product = 1;
        for (int k = 0; k < dimensions; ++k) product *= shape[k];
        return product;
    }
    bool has(Number expected, const Shape& sizes) const {
        return number == expected && dimensions == sizes.count && std::equal(shape, shape + dimensions, sizes.of);
    }
};

// Where a tensor lies, as DLPack has it.
struct Device {
    int32_t type, index;
    bool operator==(const Device& other) const { return type == other.type && index == other.index; }
};

// Reads the tensors of one call, which must lie on one device, and keeps what it copied.
class Reader {
  public:
    enum Kind { kAny, kPlain, kAnywhere };  // plain: tensors of torch's own types; anywhere: on a GPU too
    explicit Reader(Kind kind = kAny);

    // Reads a tensor, row-major and aligned to its elements: copies one that is not. Returns false for anything else.
    bool read(py::handle object, Tensor& tensor);

    // Reads what a tensor is: its memory may not be row-major.
    bool describe(py::handle object, Tensor& tensor);

    // How many of the tensors that were read need a gradient: none if gradients are disabled.
    int learnt() const { return learnt_; }

    // Keeps an object as long as the reader lives.
    py::handle keep(py::object object) {
        kept_.push_back(std::move(object));
        return kept_.back();
    }
    // Whether it keeps anything: a copy, or what keep() was given.
    bool copied() const { return !kept_.empty(); }

  private:
    bool is_plain_, anywhere_, with_gradients_;
    int learnt_ = 0;
    std::optional<Device> device_;
    std::vector<py::object> kept_;
};

// Whether a mode, a tracer or a transform of torch must see each operator.
bool is_watched();
// Whether torch records operations for gradients.
bool gradients_enabled();
bool requires_grad(py::handle tensor);
// Whether autocast is enabled for the CPU.
bool autocasts();

// Whether an object is an EventBatch, and of no subclass.
bool is_event_batch(py::handle object);
// The transpose of a matrix, row-major.
py::object transposed(py::handle matrix);
// An SRCState, or another type of states.
py::object new_state(const py::tuple& tensors, bool resonant, bool delayed);

constexpr int64_t kLargeBytes = 4 << 20;  // from here on, huge pages that are used again are faster

// An uninitialised array of floats or doubles on a block of huge pages; freeing the array gives the block back for
// reuse.
py::array empty_array(const std::vector<py::ssize_t>& shape, bool is_double);

// An uninitialised tensor of torch's, contiguous, on the host: from torch's allocator, or on huge pages if it is large.
// It is made faster if `like` has its dtype.
py::object new_tensor(py::handle like, Number number, const Shape& shape, Tensor& made, int64_t large = kLargeBytes);
// One more tensor like one that new_tensor() made, whose description is in `made`.
py::object another(py::handle tensor, Tensor& made, int64_t large = kLargeBytes);

}  // namespace srcell
