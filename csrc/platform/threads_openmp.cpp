// The threads of platform.h on Linux, from an OpenMP runtime that the process has loaded or from our own pool.
#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "platform.h"
#include "pool.h"

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

std::atomic<ParallelRegion> region{nullptr};

ParallelRegion openmp() {
    static const bool sought = (find_threads(), true);
    return sought && forks() == 0 ? region.load(std::memory_order_relaxed) : nullptr;
}

}  // namespace

void find_threads() {
    forks();  // counts from here: an import calls this, and a child that is forked before the first call is one too
    const char* wanted = std::getenv("SRCELL_THREADS");
    ParallelRegion found = nullptr;
    if (!wanted || std::strcmp(wanted, "std") != 0) dl_iterate_phdr(find_runtime, static_cast<void*>(&found));
    region.store(found, std::memory_order_relaxed);
}

void run_on_threads(int threads, void (*work)(void*), void* data) {
    if (const ParallelRegion region = openmp()) return region(work, data, static_cast<unsigned>(threads), 0);
    run_on_pool(threads, work, data);
}

const char* thread_runtime() { return openmp() ? "openmp" : "std"; }

}  // namespace srcell
