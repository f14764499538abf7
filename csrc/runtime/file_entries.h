// Reads and checks what the parts of a network need from a file: texts and tensors by name. If an entry
// is missing or invalid, throws a FileError whose message is one line.
#pragma once

#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "tensor_file.h"

namespace srcell {

inline std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "(";
    for (const int64_t n : shape) text += (text.size() > 1 ? ", " : "") + (n < 0 ? "any" : std::to_string(n));
    return text + ")";
}

// Whether a number from a file is a whole number in [0, 2^53].
inline bool whole(double value) {
    return value >= 0 && value <= 9007199254740992.0 && value == static_cast<double>(static_cast<int64_t>(value));
}

inline const std::string& text_of(const TensorFile& file, const std::string& name) {
    const auto found = file.texts.find(name);
    if (found == file.texts.end()) throw FileError("header: expected '" + name + "' among the metadata");
    return found->second;
}

// The dtype of T as a file names it.
template <class T>
constexpr const char* dtype_of() {
    if constexpr (std::is_floating_point_v<T>)
        return sizeof(T) == 4 ? "F32" : "F64";
    else
        return sizeof(T) == 2 ? "I16" : "I32";
}

// The elements of a tensor, which must have this shape; -1 stands for any size.
template <class T>
std::vector<T> numbers_of(const TensorFile& file, const std::string& name, const std::vector<int64_t>& shape) {
    const char* dtype = dtype_of<T>();
    const auto found = file.tensors.find(name);
    if (found == file.tensors.end())
        throw FileError(name + ": expected a tensor " + shape_text(shape) + ", found none");
    const StoredTensor& tensor = found->second;
    bool same = tensor.shape.size() == shape.size();
    for (size_t k = 0; same && k < shape.size(); ++k) same = shape[k] < 0 || shape[k] == tensor.shape[k];
    if (!same || tensor.dtype != dtype)
        throw FileError(name + ": expected " + dtype + " " + shape_text(shape) + ", got " + tensor.dtype + " " +
                        shape_text(tensor.shape));
    std::vector<T> made(static_cast<size_t>(tensor.count));
    if (tensor.count) std::memcpy(made.data(), tensor.bytes, made.size() * sizeof(T));
    return made;
}

}  // namespace srcell
