// Reads and writes safetensors files: named tensors and named texts. Knows nothing about networks. Whatever the bytes
// are, it never reads outside them, and rejects what it does not understand with a one-line error.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace srcell {

// An invalid file; the message has one line.
struct FileError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// A text from a file, shortened to one line for a message.
std::string shown(const std::string& text);

struct StoredTensor {
    std::string dtype;  // as in the file: "F32", "F64" and so on
    std::vector<int64_t> shape;
    const void* bytes;    // within the file's bytes, of any alignment
    int64_t count;        // elements
    size_t size() const;  // in bytes
};

struct TensorFile {
    std::map<std::string, std::string> texts;  // __metadata__
    std::map<std::string, StoredTensor> tensors;
    std::shared_ptr<const std::vector<unsigned char>> bytes;  // that parse() read; copies of this object share them

    // The tensors point into the bytes, which the made object keeps. Throws FileError.
    static TensorFile parse(std::vector<unsigned char> bytes);
    static TensorFile parse(const unsigned char* bytes, size_t size);  // a copy of them
    // The bytes of a file that has these texts and tensors.
    std::vector<unsigned char> written() const;
};

// A text as a string in JSON.
std::string quoted(const std::string& text);
// The strings of a list in JSON, which is the file's text of that name. Throws FileError.
std::vector<std::string> strings_of(const std::string& name, const std::string& text);

// The Fowler-Noll-Vo hash, taken over words of eight bytes; the size of each array is a word of its own.
constexpr uint64_t kHashStart = 0xCBF29CE484222325u;
void add_to_hash(uint64_t& sum, const void* bytes, size_t size);

}  // namespace srcell
