// parallel_for() of parallel.h on the threads of the platform. Knows nothing about kernels.
#include "parallel.h"

#include "../platform/platform.h"
#include "float_control.h"

namespace srcell {
namespace {

// Several chunks per thread, to balance the load if samples differ in length or a core is busy.
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
    run_on_threads(threads, Job::run, &job);
}

void keep_lowest(std::atomic<int64_t>& lowest, int64_t candidate) {
    int64_t seen = lowest;
    while (candidate < seen && !lowest.compare_exchange_weak(seen, candidate)) {
    }
}

}  // namespace srcell
