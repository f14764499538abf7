// parallel_for() of parallel.h on the threads of an OpenMP runtime, which is found among the libraries that the process
// has loaded, or on threads of its own. Knows no kernel.
#include "parallel.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <cstring>
#include <system_error>
#include <thread>
#include <vector>

#include "float_control.h"

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

// Several chunks per thread balance the load if samples differ in length or a core is busy.
constexpr int64_t kChunksPerThread = 4;

struct Job {
    int64_t items, chunk;
    void (*work)(void*, int64_t, int64_t);
    void* context;
    std::atomic<int64_t> next{0};

    static void run(void* self) {
        Job& job = *static_cast<Job*>(self);
        const PlainArithmetic plain;
        for (;;) {
            const int64_t begin = job.next.fetch_add(job.chunk, std::memory_order_relaxed);
            if (begin >= job.items) return;
            const int64_t end = job.items - begin < job.chunk ? job.items : begin + job.chunk;
            job.work(job.context, begin, end);
        }
    }
};

}  // namespace

void parallel_for(int64_t items, int threads, void (*work)(void*, int64_t, int64_t), void* context) {
    if (items <= 0) return;
    if (threads > items) threads = static_cast<int>(items);
    if (threads <= 1) return work(context, 0, items);
    const int64_t pieces = threads * kChunksPerThread;
    Job job{items, (items + pieces - 1) / pieces, work, context};
    if (const ParallelRegion region = openmp()) {
        region(Job::run, &job, static_cast<unsigned>(threads), 0);
        return;
    }
    std::vector<std::thread> others;
    others.reserve(static_cast<size_t>(threads - 1));  // before any thread runs: a vector that throws would end it all
    try {
        for (int k = 1; k < threads; ++k) others.emplace_back(Job::run, &job);
    } catch (const std::system_error&) {
        // The system allows no more threads: those already started do the work.
    }
    Job::run(&job);
    for (std::thread& other : others) other.join();
}

void keep_lowest(std::atomic<int64_t>& lowest, int64_t candidate) {
    int64_t seen = lowest;
    while (candidate < seen && !lowest.compare_exchange_weak(seen, candidate)) {
    }
}

const char* thread_runtime() { return openmp() ? "openmp" : "std"; }

}  // namespace srcell
