// How work is spread over a GPU's blocks and threads. Included by device.h inside its namespace; knows no kernel.
//
// A body is a plain struct of what a kernel reads and writes. Its run() does the work of one thread of one block. If it
// has kLoads, its load() fills the block's shared memory before, and no thread enters run() until all have left load().

struct Place {
    int64_t block;
    int thread, threads;  // of the block
    char* shared;         // the block's

    // The number of this thread among those of all blocks.
    SRCELL_INLINE int64_t item() const { return block * threads + thread; }

    template <class T>
    SRCELL_INLINE T* shared_as() const {
        return reinterpret_cast<T*>(shared);
    }
};

struct Launch {
    int64_t blocks;
    int threads, shared_bytes;
};

constexpr int kThreads = 128;                              // of a block, unless its body says otherwise
constexpr int kWarp = 32, kDefaultSharedBytes = 48 << 10;  // more must be asked for

// What a launch may use.
struct Limits {
    int processors;    // that blocks are spread over
    int shared_bytes;  // of a block, at most
};

#if defined(__CUDACC__)

// Where kernels are put: a stream of the current device. After an error nothing more is launched.
struct Queue {
    Limits limits;
    cudaStream_t stream;
    cudaError_t error = cudaSuccess;
};

// Registers are rationed so that two large blocks fit where a processor has shared memory for two.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
constexpr int kLargeBlocks = 2;
#else
constexpr int kLargeBlocks = 1;
#endif

template <class Body>
__global__ void __launch_bounds__(Body::kMaxThreads, Body::kMaxThreads > kThreads ? kLargeBlocks : 1)
    run_body(const Body body) {
    extern __shared__ double shared[];  // double: for its alignment
    const Place place = {static_cast<int64_t>(blockIdx.x), static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x),
                         reinterpret_cast<char*>(shared)};
    if constexpr (Body::kLoads) {
        body.load(place);
        __syncthreads();
    }
    body.run(place);
}

template <class Body>
void launch(Queue& queue, const Launch& how, const Body& body) {
    if (queue.error != cudaSuccess || how.blocks == 0) return;
    if (how.blocks > INT32_MAX) {
        queue.error = cudaErrorInvalidConfiguration;
        return;
    }
    if (how.shared_bytes > kDefaultSharedBytes)
        queue.error =
            cudaFuncSetAttribute(run_body<Body>, cudaFuncAttributeMaxDynamicSharedMemorySize, how.shared_bytes);
    if (queue.error != cudaSuccess) return;
    run_body<<<static_cast<unsigned>(how.blocks), static_cast<unsigned>(how.threads),
               static_cast<size_t>(how.shared_bytes), queue.stream>>>(body);
    queue.error = cudaGetLastError();
}

#else

struct Queue {
    Limits limits;
};

constexpr Limits kHostLimits = {132, 227 << 10};  // those of an H100

template <class Body>
void launch(Queue&, const Launch& how, const Body& body) {
    std::vector<double> shared(static_cast<size_t>(how.shared_bytes) / sizeof(double) + 1);
    for (int64_t block = 0; block < how.blocks; ++block) {
        std::memset(shared.data(), 0xFF, shared.size() * sizeof(double));
        const auto place = [&](int thread) {
            return Place{block, thread, how.threads, reinterpret_cast<char*>(shared.data())};
        };
        if constexpr (Body::kLoads)
            for (int thread = 0; thread < how.threads; ++thread) body.load(place(thread));
        for (int thread = 0; thread < how.threads; ++thread) body.run(place(thread));
    }
}

#endif

// Threads for so many items of work, of which each takes so many bytes of shared memory: whole warps, fewer in a block
// where there are few, so that every processor gets some, and not more than the memory allows.
inline Launch spread(const Queue& queue, int64_t items, int shared_bytes = 0) {
    int threads = kThreads;
    const auto small = [&](int count) { return items < int64_t(queue.limits.processors) * count; };
    while (threads > kWarp && (small(threads) || threads * shared_bytes > kDefaultSharedBytes)) threads /= 2;
    return {ceil_div(items, threads), threads, threads * shared_bytes};
}
