// A safetensors file is the length of its header (8 bytes, little-endian), the header (a JSON object), and the bytes of
// all tensors, one after the other. The JSON reader here supports the part of JSON that such headers use: objects,
// strings, and lists of whole numbers or strings.
#include "tensor_file.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace srcell {
namespace {

constexpr size_t kLengthBytes = 8, kMaxHeader = size_t(1) << 20;  // the same bound as in srcell/layers/export.py

class HeaderReader {
  public:
    // `name` is that of the text, for messages.
    HeaderReader(std::string name, const char* text, size_t size)
        : name_(std::move(name)), at_(text), end_(text + size) {}

    // Calls read(name) for each member of an object; `read` must read the member's value.
    template <class Read>
    void object(Read read) {
        take('{');
        if (accept('}')) return;
        do {
            const std::string name = string();
            take(':');
            read(name);
        } while (accept(','));
        take('}');
    }

    std::vector<int64_t> numbers() {
        return list<int64_t>([this] { return number(); });
    }

    std::vector<std::string> strings() {
        return list<std::string>([this] { return string(); });
    }

    std::string string() {
        std::string found;
        take('"');
        for (;;) {
            const char c = next();
            if (c == '"') return found;
            if (static_cast<unsigned char>(c) < 0x20) refuse("no control character in a string");
            if (c == '\\')
                escape(found);
            else
                found += c;
        }
    }

    void finish() {
        skip();
        if (at_ != end_) refuse("the end of the text");
    }

    [[noreturn]] void refuse(const std::string& expected) const {
        throw FileError(name_ + ": expected " + expected + " at byte " + std::to_string(read_));
    }

  private:
    template <class Element, class Read>
    std::vector<Element> list(Read read) {
        std::vector<Element> found;
        take('[');
        if (accept(']')) return found;
        do found.push_back(read());
        while (accept(','));
        take(']');
        return found;
    }

    char next() {
        if (at_ == end_) refuse("more text");
        ++read_;
        return *at_++;
    }

    void skip() {
        while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\t' || *at_ == '\r')) next();
    }

    bool accept(char c) {
        skip();
        if (at_ == end_ || *at_ != c) return false;
        next();
        return true;
    }

    void take(char c) {
        if (!accept(c)) refuse(std::string("'") + c + "'");
    }

    int64_t number() {
        skip();
        int64_t value = 0;
        int digits = 0;
        while (at_ != end_ && *at_ >= '0' && *at_ <= '9') {
            if (++digits > 18) refuse("a number below 10^18");
            value = 10 * value + (next() - '0');
        }
        if (!digits) refuse("a whole number");
        return value;
    }

    void escape(std::string& found) {
        const char c = next();
        static const char kNames[] = "\"\\/bfnrt", kMeant[] = "\"\\/\b\f\n\r\t";
        if (c == 'u') return unicode(found);
        const char* known = c ? std::strchr(kNames, c) : nullptr;
        if (!known) refuse("a known escape");
        found += kMeant[known - kNames];
    }

    // Decodes a UTF-16 unit or a surrogate pair to UTF-8; a lone surrogate becomes U+FFFD.
    void unicode(std::string& found) {
        unsigned code = unit();
        if (code >= 0xD800 && code < 0xDC00 && end_ - at_ >= 2 && at_[0] == '\\' && at_[1] == 'u') {
            next(), next();
            const unsigned low = unit();
            code = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00)) : 0xFFFD;
        }
        if (code >= 0xD800 && code < 0xE000) code = 0xFFFD;
        const auto more = [&](int shift) { found += static_cast<char>(0x80 | (code >> shift & 0x3F)); };
        if (code < 0x80) {
            found += static_cast<char>(code);
        } else if (code < 0x800) {
            found += static_cast<char>(0xC0 | code >> 6), more(0);
        } else if (code < 0x10000) {
            found += static_cast<char>(0xE0 | code >> 12), more(6), more(0);
        } else {
            found += static_cast<char>(0xF0 | code >> 18), more(12), more(6), more(0);
        }
    }

    unsigned unit() {
        unsigned unit = 0;
        for (int k = 0; k < 4; ++k) {
            const char c = next();
            const int digit = c >= '0' && c <= '9'   ? c - '0'
                              : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
            if (digit < 0) refuse("four hexadecimal digits");
            unit = unit * 16 + static_cast<unsigned>(digit);
        }
        return unit;
    }

    std::string name_;
    const char *at_, *end_;
    size_t read_ = 0;
};

int64_t bytes_per_element(const std::string& dtype) {
    if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
    if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
    if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
    if (dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
    return 0;
}

StoredTensor read_tensor(HeaderReader& reader, const std::string& name, const unsigned char* data, size_t size) {
    StoredTensor tensor = {};
    std::vector<int64_t> range;
    bool has_shape = false;
    reader.object([&](const std::string& member) {
        if (member == "dtype")
            tensor.dtype = reader.string();
        else if (member == "shape")
            tensor.shape = reader.numbers(), has_shape = true;
        else if (member == "data_offsets")
            range = reader.numbers();
        else
            reader.refuse("dtype, shape or data_offsets, not '" + shown(member) + "',");
    });
    const int64_t itemsize = bytes_per_element(tensor.dtype);
    if (!itemsize || !has_shape || range.size() != 2)
        throw FileError(shown(name) + ": expected a dtype, a shape and offsets");
    tensor.count = 1;
    for (const int64_t n : tensor.shape) {
        if (n && tensor.count > std::numeric_limits<int64_t>::max() / itemsize / n)
            throw FileError(shown(name) + ": expected a shape of less than 2^63 bytes");
        tensor.count *= n;
    }
    if (range[0] > range[1] || static_cast<uint64_t>(range[1]) > size || range[1] - range[0] != tensor.count * itemsize)
        throw FileError(shown(name) + ": expected offsets of " + std::to_string(tensor.count * itemsize) +
                        " bytes among " + std::to_string(size) + ", got " + std::to_string(range[0]) + " to " +
                        std::to_string(range[1]));
    tensor.bytes = data + range[0];
    return tensor;
}

// Tensors must follow one another without gaps or shared bytes, and end where the file ends.
void check_coverage(const TensorFile& file, const unsigned char* data, size_t size) {
    std::vector<std::pair<const unsigned char*, size_t>> parts;
    parts.reserve(file.tensors.size());
    for (const auto& [name, tensor] : file.tensors)
        parts.emplace_back(static_cast<const unsigned char*>(tensor.bytes), tensor.size());
    std::sort(parts.begin(), parts.end());
    const unsigned char* end = data;
    for (const auto& [begin, bytes] : parts) {
        if (begin != end) throw FileError("header: expected tensors that follow one another");
        end += bytes;
    }
    if (end != data + size) throw FileError("header: expected tensors that cover the whole file");
}

}  // namespace

size_t StoredTensor::size() const { return static_cast<size_t>(count * bytes_per_element(dtype)); }

std::string shown(const std::string& text) {
    constexpr size_t kMost = 60;
    std::string made = text.size() > kMost ? text.substr(0, kMost) + "..." : text;
    for (char& c : made)
        if (static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7F) c = '?';
    return made;
}

std::string quoted(const std::string& text) {
    static const char kDigits[] = "0123456789abcdef";
    std::string made = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') made += '\\';
        if (static_cast<unsigned char>(c) < 0x20)
            made += std::string("\\u00") + kDigits[c >> 4] + kDigits[c & 15];
        else
            made += c;
    }
    return made + '"';
}

std::vector<std::string> strings_of(const std::string& name, const std::string& text) {
    HeaderReader reader(name, text.data(), text.size());
    std::vector<std::string> found = reader.strings();
    reader.finish();
    return found;
}

void add_to_hash(uint64_t& sum, const void* bytes, size_t size) {
    const auto add = [&](uint64_t word) { sum = (sum ^ word) * 0x100000001B3u; };
    add(size);
    for (size_t at = 0; at < size; at += sizeof(uint64_t)) {
        uint64_t word = 0;
        std::memcpy(&word, static_cast<const char*>(bytes) + at, std::min(sizeof word, size - at));
        add(word);
    }
}

std::vector<unsigned char> TensorFile::written() const {
    std::string header = "{\"__metadata__\":{";
    for (const auto& [name, text] : texts)
        header += (header.back() == '{' ? "" : ",") + quoted(name) + ":" + quoted(text);
    header += '}';
    std::vector<const StoredTensor*> ordered;
    size_t size = 0;
    for (const int64_t itemsize : {8, 4, 2, 1})  // so that each tensor is aligned
        for (const auto& [name, tensor] : tensors) {
            if (bytes_per_element(tensor.dtype) != itemsize) continue;
            header += "," + quoted(name) + ":{\"dtype\":" + quoted(tensor.dtype) + ",\"shape\":[";
            for (const int64_t n : tensor.shape) header += (header.back() == '[' ? "" : ",") + std::to_string(n);
            const size_t begin = std::exchange(size, size + tensor.size());
            header += "],\"data_offsets\":[" + std::to_string(begin) + "," + std::to_string(size) + "]}";
            ordered.push_back(&tensor);
        }
    header += '}';
    header.resize((header.size() + 7) / 8 * 8, ' ');
    std::vector<unsigned char> made;
    made.reserve(kLengthBytes + header.size() + size);
    for (size_t k = 0; k < kLengthBytes; ++k)
        made.push_back(static_cast<unsigned char>(static_cast<uint64_t>(header.size()) >> 8 * k));
    made.insert(made.end(), header.begin(), header.end());
    for (const StoredTensor* tensor : ordered) {
        const auto* const from = static_cast<const unsigned char*>(tensor->bytes);
        made.insert(made.end(), from, from + tensor->size());
    }
    return made;
}

TensorFile TensorFile::parse(const unsigned char* bytes, size_t size) {
    return parse(std::vector<unsigned char>(bytes, bytes + size));
}

TensorFile TensorFile::parse(std::vector<unsigned char> given) {
    TensorFile made;
    made.bytes = std::make_shared<const std::vector<unsigned char>>(std::move(given));
    const unsigned char* const bytes = made.bytes->data();
    const size_t size = made.bytes->size();
    uint64_t length = 0;
    if (size >= kLengthBytes)
        for (size_t k = 0; k < kLengthBytes; ++k) length |= static_cast<uint64_t>(bytes[k]) << 8 * k;
    if (size < kLengthBytes || length > size - kLengthBytes)
        throw FileError("expected a safetensors file, got " + std::to_string(size) +
                        " bytes that do not begin with the length of a header");
    if (length > kMaxHeader)
        throw FileError("header: expected at most " + std::to_string(kMaxHeader) + " bytes, got " +
                        std::to_string(length));
    HeaderReader reader("header", reinterpret_cast<const char*>(bytes) + kLengthBytes, static_cast<size_t>(length));
    const unsigned char* data = bytes + kLengthBytes + length;
    reader.object([&](const std::string& name) {
        if (name == "__metadata__")
            reader.object([&](const std::string& key) { made.texts[key] = reader.string(); });
        else if (!made.tensors.emplace(name, read_tensor(reader, name, data, size - kLengthBytes - length)).second)
            throw FileError(shown(name) + ": expected one tensor of this name, got two");
    });
    reader.finish();
    check_coverage(made, data, size - kLengthBytes - static_cast<size_t>(length));
    return made;
}

}  // namespace srcell
