// main() of the fuzz targets without libFuzzer: runs a target on all given files and on all files of given folders.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "input.h"

namespace {

void replay(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    CHECK(file);
    // An array of exactly that size, so that the address sanitizer sees every read past its end.
    srcell::Array<uint8_t> data(static_cast<int64_t>(bytes.size()));
    std::copy(bytes.begin(), bytes.end(), data.begin());
    std::fprintf(stderr, "%s\n", path.c_str());
    LLVMFuzzerTestOneInput(data.data(), bytes.size());
}

}  // namespace

int main(int count, char** arguments) {
    std::vector<std::filesystem::path> files;
    for (int k = 1; k < count; ++k) {
        if (std::filesystem::is_directory(arguments[k]))
            for (const auto& entry : std::filesystem::directory_iterator(arguments[k])) files.push_back(entry.path());
        else
            files.emplace_back(arguments[k]);
    }
    std::sort(files.begin(), files.end());
    CHECK(!files.empty());
    for (const auto& file : files) replay(file);
}
