// The files of platform.h, with the standard library.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <system_error>

#include "platform.h"

namespace srcell {

const char* read_file(const char* path, std::vector<unsigned char>& bytes) {
    struct Close {
        void operator()(std::FILE* file) const { std::fclose(file); }
    };
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) return "expected a file, found none";
    const uintmax_t size = std::filesystem::file_size(path, error);
    const std::unique_ptr<std::FILE, Close> file(std::fopen(path, "rb"));
    if (error || !file) return "the file cannot be opened";
    bytes.resize(static_cast<size_t>(size));
    return std::fread(bytes.data(), 1, bytes.size(), file.get()) == bytes.size() ? nullptr : "the file cannot be read";
}

}  // namespace srcell
