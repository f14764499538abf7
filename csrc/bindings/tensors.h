// Reads torch's tensors, and makes new ones. A tensor of torch's own type is read by DLPack's exchange table, which
// torch has from 2.10 on; any other, or without the table, by its attributes, which fail where a tensor has no memory.
// Used by the bindings with the GIL held; links no torch.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <vector>

namespace srcell {

namespace py = pybind11;

constexpr int kMostDimensions = 4;  // of the tensors of any operator

enum class Number { kFloat32, kFloat64, kInt32, kInt64, kOther };

// A dense tensor on the host. It lives as long as the reader that read it, if another thread does not resize it.
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
    bool has(Number expected, std::initializer_list<int64_t> sizes) const {
        if (number != expected || dimensions != static_cast<int>(sizes.size())) return false;
        const int64_t* own = shape;
        for (const int64_t size : sizes)
            if (*own++ != size) return false;
        return true;
    }
};

// Reads the tensors of one call, and keeps what it copied.
class Reader {
  public:
    // Reads a tensor, row-major and aligned to its elements: copies one that is not. Returns false for anything else.
    bool read(py::handle object, Tensor& tensor);

  private:
    std::vector<py::object> copies_;
};

// An uninitialised array of floats or doubles on a block of huge pages; freeing the array gives the block back for
// reuse.
py::array empty_array(const std::vector<py::ssize_t>& shape, bool is_double);

// An uninitialised tensor of torch's, contiguous, with the dtype of `like`: from torch's allocator, or on huge pages if
// it is large.
py::object new_tensor(py::handle like, Number number, std::initializer_list<int64_t> shape, Tensor& made);

}  // namespace srcell
