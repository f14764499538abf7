// The files of platform.h, with the standard library.
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>

#include "platform.h"

#if !defined(_WIN32)
#include <unistd.h>
#endif

namespace srcell {

namespace {

struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
};

// Writes all bytes and closes the file; returns whether the system has them.
bool write_all(std::FILE* file, const void* bytes, size_t size, [[maybe_unused]] bool sync) {
    bool good = std::fwrite(bytes, 1, size, file) == size && std::fflush(file) == 0;
#if !defined(_WIN32)
    good = good && (!sync || fsync(fileno(file)) == 0);
#endif
    return std::fclose(file) == 0 && good;
}

}  // namespace

const char* write_file(const char* path, const void* bytes, size_t size) {
    namespace fs = std::filesystem;
    constexpr int kNames = 1000, kLinks = 40;
    std::error_code error;
    const fs::file_status found = fs::status(path, error);
    if (fs::is_directory(found)) return "expected a file, got a folder";
    if (fs::exists(found) && !fs::is_regular_file(found)) {
        std::FILE* const file = std::fopen(path, "wb");
        return file && write_all(file, bytes, size, false) ? nullptr : "the file cannot be written";
    }
    fs::path target = path;  // where symbolic links lead to, also if there is no file yet
    for (int link = 0; link < kLinks && fs::is_symlink(fs::symlink_status(target, error)); ++link)
        target = target.parent_path() / fs::read_symlink(target, error);
    if (fs::is_symlink(fs::symlink_status(target, error))) return "the file cannot be created";
    std::FILE* file = nullptr;
    fs::path beside;
    for (int number = 0; !file && number < kNames; ++number) {  // "x": never a file that another writer has
        beside = target;
        beside += ".part" + std::to_string(number);
        file = std::fopen(beside.string().c_str(), "wbx");
    }
    if (!file) return "the file cannot be created";
    if (write_all(file, bytes, size, true)) {
        fs::rename(beside, target, error);
        if (!error) return nullptr;
    }
    fs::remove(beside, error);
    return "the file cannot be written";
}

const char* read_file(const char* path, std::vector<unsigned char>& bytes) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path, error)) return "expected a file, found none";
    const uintmax_t size = std::filesystem::file_size(path, error);
    const std::unique_ptr<std::FILE, Close> file(std::fopen(path, "rb"));
    if (error || !file) return "the file cannot be opened";
    bytes.resize(static_cast<size_t>(size));
    return std::fread(bytes.data(), 1, bytes.size(), file.get()) == bytes.size() ? nullptr : "the file cannot be read";
}

}  // namespace srcell
