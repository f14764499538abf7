// How work is spread over a GPU's blocks and threads. Included by device.h inside its namespace; knows nothing about
// kernels.
//
// A body is a plain struct of what a kernel reads and writes. Its run() does the work of one thread of one block. If it
// has a load(), this first fills the block's shared memory: no thread of the block enters run() before all have left
// load(). It may state kMaxThreads, the threads of a block, and kMinBlocks, the blocks that must fit on a processor.

struct Place {
    int64_t block;
    int thread, threads;  // number within the block, and threads per block
    char* shared;         // the block's shared memory

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

constexpr int kThreads = 128;  // per block, unless a body states another number
constexpr int kWarp = 32, kDefaultSharedBytes = 48 << 10;
constexpr int kFewSharedBytes = 2 << 10;  // per block; blocks with so little leave the processor's memory to its cache

template <class Body, class = void>
constexpr bool loads = false;
template <class Body>
constexpr bool loads<Body, std::void_t<decltype(&Body::load)>> = true;

// The limits of a launch.
struct Limits {
    int processors;    // streaming multiprocessors
    int shared_bytes;  // at most, per block
};

#if defined(__CUDACC__)

// A stream of the current device, and its first error. After an error nothing more is launched.
struct Queue {
    Limits limits;
    int device;
    cudaStream_t stream;
    cudaError_t error = cudaSuccess;
};

// The number of large blocks that must fit on a processor, which limits the registers of a thread: two blocks on
// architectures whose shared memory suffices for two.
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 800 || __CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
constexpr int kLargeBlocks = 2;
#else
constexpr int kLargeBlocks = 1;
#endif

template <class Body, class = void>
constexpr int max_threads = kThreads;
template <class Body>
constexpr int max_threads<Body, std::void_t<decltype(Body::kMaxThreads)>> = Body::kMaxThreads;

template <class Body, class = void>
constexpr int min_blocks = max_threads<Body> > kThreads ? kLargeBlocks : 1;
template <class Body>
constexpr int min_blocks<Body, std::void_t<decltype(Body::kMinBlocks)>> = Body::kMinBlocks;

template <class Body>
__global__ void __launch_bounds__(max_threads<Body>, min_blocks<Body>) run_body(const Body body) {
    extern __shared__ double shared[];  // double: for its alignment
    const Place place = {static_cast<int64_t>(blockIdx.x), static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x),
                         reinterpret_cast<char*>(shared)};
    if constexpr (loads<Body>) {
        body.load(place);
        __syncthreads();
    }
    body.run(place);
}

// Lets a kernel's blocks use all the shared memory of a processor, and each block as much as the device allows. The
// values are the same for all launches, so that no thread lowers a limit that another thread needs.
template <class Body>
cudaError_t allow_shared(const Queue& queue) {
    static std::atomic<uint64_t> allowed{0};  // a bit for each device
    const uint64_t device = queue.device < 64 ? uint64_t(1) << queue.device : 0;
    if (allowed & device) return cudaSuccess;
    const auto kernel = run_body<Body>;
    cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    if (error == cudaSuccess)
        error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, queue.limits.shared_bytes);
    if (error == cudaSuccess) allowed |= device;
    return error;
}

template <class Body>
void launch(Queue& queue, const Launch& how, const Body& body) {
    if (queue.error != cudaSuccess || how.blocks == 0) return;
    if (how.blocks > INT32_MAX) {
        queue.error = cudaErrorInvalidConfiguration;
        return;
    }
    if (how.shared_bytes > kFewSharedBytes) queue.error = allow_shared<Body>(queue);
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
        if constexpr (loads<Body>)
            for (int thread = 0; thread < how.threads; ++thread) body.load(place(thread));
        for (int thread = 0; thread < how.threads; ++thread) body.run(place(thread));
    }
}

#endif

// Calls body with two flags as std::true_type or std::false_type.
template <class Body>
void with_flags(bool first, bool second, Body body) {
    const auto with = [&](auto known) { second ? body(known, std::true_type{}) : body(known, std::false_type{}); };
    first ? with(std::true_type{}) : with(std::false_type{});
}

// A launch with one thread per item, each with `shared_bytes` bytes of shared memory. A block has kThreads threads, or
// fewer whole warps if there would be fewer blocks than processors or a block would exceed the default shared memory.
inline Launch spread(const Queue& queue, int64_t items, int shared_bytes = 0) {
    int threads = kThreads;
    const auto small = [&](int count) { return items < int64_t(queue.limits.processors) * count; };
    while (threads > kWarp && (small(threads) || threads * shared_bytes > kDefaultSharedBytes)) threads /= 2;
    return {ceil_div(items, threads), threads, threads * shared_bytes};
}
