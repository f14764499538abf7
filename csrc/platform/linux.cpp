// platform.h on Linux: mmap() with huge pages; the threads of an OpenMP runtime that the process has loaded, or
// threads of its own.
#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

#include "platform.h"

namespace srcell {
namespace {

// GNU's entry point for a parallel region, which LLVM's and Intel's runtimes export as well.
using ParallelRegion = void (*)(void (*body)(void*), void* data, unsigned threads, unsigned flags);

int find_runtime(dl_phdr_info* info, size_t, void* found) {
    const char* slash = std::strrchr(info->dlpi_name, '/');
    const char* name = slash ? slash + 1 : info->dlpi_name;
    for (const char* prefix : {"libgomp", "libomp", "libiomp5"}) {
        if (std::strncmp(name, prefix, std::strlen(prefix)) != 0) continue;
        if (void* library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD)) {
            if (void* symbol = dlsym(library, "GOMP_parallel")) {
                *static_cast<ParallelRegion*>(found) = reinterpret_cast<ParallelRegion>(symbol);
                return 1;
            }
        }
    }
    return 0;
}

std::atomic<bool> forked{false};

ParallelRegion openmp() {
    static const ParallelRegion region = [] {
        pthread_atfork(nullptr, nullptr, [] { forked = true; });
        ParallelRegion found = nullptr;
        dl_iterate_phdr(find_runtime, static_cast<void*>(&found));
        return found;
    }();
    return forked ? nullptr : region;
}

}  // namespace

void* map_pages(size_t bytes) {
    const size_t mapped = bytes + kPage;
    void* start = mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start == MAP_FAILED) return nullptr;
    const uintptr_t first = reinterpret_cast<uintptr_t>(start), aligned = (first + kPage - 1) / kPage * kPage;
    if (aligned > first) munmap(start, aligned - first);
    if (aligned + bytes < first + mapped)
        munmap(reinterpret_cast<void*>(aligned + bytes), first + mapped - aligned - bytes);
    void* pages = reinterpret_cast<void*>(aligned);
    madvise(pages, bytes, MADV_HUGEPAGE);
    return pages;
}

void unmap_pages(void* pages, size_t bytes) { munmap(pages, bytes); }

void lend_pages(void* pages, size_t bytes) { madvise(pages, bytes, MADV_FREE); }

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

void run_on_threads(int threads, void (*work)(void*), void* data) {
    if (const ParallelRegion region = openmp()) return region(work, data, static_cast<unsigned>(threads), 0);
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(threads - 1));  // before any thread runs: a vector that throws would end it all
    try {
        for (int k = 1; k < threads; ++k) others.emplace_back(work, data);
    } catch (const std::system_error&) {
        // The system allows no more threads: those already started do the work.
    }
    work(data);
    for (std::thread& other : others) other.join();
}

const char* thread_runtime() { return openmp() ? "openmp" : "std"; }

}  // namespace srcell
