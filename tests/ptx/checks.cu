// Kernels of a few lines, each with one defect that the emulator must report, and launches that it must refuse:
//
//     ptx_checks NAME    runs one of them, or `none` or `reciprocal`, which have no defect
//
// tests/test_ptx.py knows their names and what is reported of each.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

// Not unnamed: nvcc writes kernels of an unnamed namespace in another form than srcell's.
namespace checks {

constexpr int kCount = 256;

struct Arrays {
    float* x;  // (kCount,) zeros
    unsigned* words;
};

extern __shared__ float shared[];

__device__ int thread_of_all() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }

__global__ void none(const Arrays p) {
    shared[threadIdx.x] = p.x[thread_of_all()];
    __syncthreads();
    p.x[thread_of_all()] = shared[blockDim.x - 1 - threadIdx.x];
    if (atomicXor(p.words, 1u << threadIdx.x % 32) == ~0u) p.x[thread_of_all()] = 1;
}

__global__ void write_after_write(const Arrays p) { p.x[threadIdx.x / 2] = static_cast<float>(thread_of_all()); }

__global__ void read_after_write(const Arrays p) {
    shared[threadIdx.x] = p.x[threadIdx.x];
    p.x[threadIdx.x] = shared[threadIdx.x ^ 1];
}

__global__ void write_after_read(const Arrays p) {
    const float x = p.x[threadIdx.x / 2];
    p.x[threadIdx.x] = x + 1;
}

__global__ void between_blocks(const Arrays p) {
    if (threadIdx.x == 0) p.x[blockIdx.x] = p.x[0] + 1;
}

__global__ void atomic_and_plain(const Arrays p) {
    if (threadIdx.x)
        p.x[threadIdx.x] = static_cast<float>(static_cast<int>(atomicXor(p.words, threadIdx.x)));
    else
        *p.words = 7;
}

__global__ void past_the_end(const Arrays p) { p.x[thread_of_all() + 1] = 1; }

__global__ void before_the_begin(const Arrays p) { p.x[thread_of_all() - 1] = 1; }

__global__ void null_pointer(const Arrays p) {
    *reinterpret_cast<float*>(static_cast<unsigned long long>(*p.words)) = 1;
}

__global__ void freed_memory(const Arrays p) { p.x[thread_of_all()] = 1; }

__global__ void past_shared_memory(const Arrays p) {
    shared[threadIdx.x + 1] = 1;
    __syncthreads();
    p.x[threadIdx.x] = shared[threadIdx.x + 1];
}

__global__ void unwritten_shared_memory(const Arrays p) {
    if (threadIdx.x) shared[threadIdx.x] = 1;
    __syncthreads();
    p.x[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

__global__ void missed_barrier(const Arrays p) {
    shared[threadIdx.x] = 1;
    if (p.x[threadIdx.x] == 0 && threadIdx.x != 3) __syncthreads();
    p.x[threadIdx.x] = shared[threadIdx.x];
}

__global__ void different_barriers(const Arrays p) {
    if (threadIdx.x % 2) {
        shared[threadIdx.x] = p.x[threadIdx.x];
        __syncthreads();
    } else {
        shared[threadIdx.x] = p.x[threadIdx.x] + 1;
        __syncthreads();
    }
    p.x[threadIdx.x] = shared[threadIdx.x];
}

__global__ void misaligned_vector(const Arrays p) {
    if (threadIdx.x == 0) *reinterpret_cast<float4*>(p.x + 1) = {1, 2, 3, 4};
}

__global__ void division_by_zero(const Arrays p) { p.words[0] = 7 / p.words[0]; }

__global__ void endless(const Arrays p) {
    while (atomicXor(p.words, 2u) < 4) {
    }
}

__global__ void reciprocal(const Arrays p) { asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(p.x[0]) : "f"(3.0f)); }

__global__ void __launch_bounds__(64) at_most_64_threads(const Arrays p) { p.x[thread_of_all()] = 1; }

void expect_success(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::printf("CUDA: %s\n", cudaGetErrorString(error));
    std::exit(1);
}

Arrays make() {
    Arrays made = {};
    void *x = nullptr, *words = nullptr;
    expect_success(cudaMallocManaged(&x, kCount * sizeof(float), cudaMemAttachGlobal));
    expect_success(cudaMallocManaged(&words, sizeof(unsigned), cudaMemAttachGlobal));
    std::memset(x, 0, kCount * sizeof(float));
    std::memset(words, 0, sizeof(unsigned));
    made.x = static_cast<float*>(x);
    made.words = static_cast<unsigned*>(words);
    return made;
}

struct Case {
    const char* name;
    void (*kernel)(const Arrays);
    unsigned blocks, threads;
    size_t shared_bytes;
};

constexpr size_t kShared = 64 * sizeof(float);
const Case kCases[] = {
    {"none", none, 4, 64, kShared},
    {"reciprocal", reciprocal, 1, 1, 0},
    {"write after write", write_after_write, 1, 64, 0},
    {"read after write", read_after_write, 1, 64, kShared},
    {"write after read", write_after_read, 1, 64, 0},
    {"between blocks", between_blocks, 4, 64, 0},
    {"atomic and plain", atomic_and_plain, 1, 64, 0},
    {"past the end", past_the_end, 4, 64, 0},
    {"before the begin", before_the_begin, 4, 64, 0},
    {"null pointer", null_pointer, 1, 64, 0},
    {"freed memory", freed_memory, 1, 64, 0},
    {"past shared memory", past_shared_memory, 1, 64, kShared},
    {"unwritten shared memory", unwritten_shared_memory, 1, 64, kShared},
    {"missed barrier", missed_barrier, 1, 64, kShared},
    {"different barriers", different_barriers, 1, 64, kShared},
    {"misaligned vector", misaligned_vector, 1, 64, 0},
    {"division by zero", division_by_zero, 1, 1, 0},
    {"endless", endless, 1, 1, 0},
    {"too many threads for the kernel", at_most_64_threads, 1, 65, 0},
    {"too many threads", write_after_write, 1, 1025, 0},
    {"no blocks", none, 0, 64, kShared},
    {"too much shared memory", none, 1, 64, (48 << 10) + 8},
};

}  // namespace checks

int main(int count, char** arguments) {
    using namespace checks;
    const char* const name = count == 2 ? arguments[1] : "";
    const Arrays arrays = make();
    // Refused by cudaFuncSetAttribute(), and a launch whose error is never asked for.
    if (!std::strcmp(name, "more than the device has")) {
        expect_success(cudaFuncSetAttribute(reinterpret_cast<const void*>(none),
                                            cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20));
    } else if (!std::strcmp(name, "an error that is ignored")) {
        none<<<1, 2000, kShared>>>(arrays);
        none<<<1, 64, kShared>>>(arrays);
        return 0;
    }
    for (const Case& each : kCases) {
        if (std::strcmp(name, each.name)) continue;
        if (!std::strcmp(name, "freed memory")) expect_success(cudaFree(arrays.x));
        each.kernel<<<each.blocks, each.threads, each.shared_bytes>>>(arrays);
        expect_success(cudaGetLastError());
        expect_success(cudaDeviceSynchronize());
        unsigned bits = 0;
        std::memcpy(&bits, arrays.x, sizeof bits);
        if (!std::strcmp(name, "reciprocal")) std::printf("%08x\n", bits);  // of 1 / 3
        return 0;
    }
    std::printf("unknown: %s\n", name);
    return 2;
}
