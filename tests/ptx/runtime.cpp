// The stand-in for CUDA's runtime: what a module that nvcc compiled calls, with kernels run on the CPU at once. Refuses
// what a real runtime refuses, with its errors. Refused launches and cudaFuncSetAttribute() calls are reported as well:
// srcell should make none.
#include <cuda_runtime_api.h>

#include <array>
#include <climits>
#include <map>
#include <mutex>
#include <utility>

#include "machine.h"
#include "memory.h"
#include "operations.h"
#include "parser.h"
#include "report.h"
#include "settings.h"

#define PTX_EXPORT extern "C" __attribute__((visibility("default")))

namespace ptx {
namespace {

std::recursive_mutex mutex;  // launches of several threads run one after the other
std::map<const void*, Kernel*> by_host_function;

thread_local cudaError_t last_error = cudaSuccess;

cudaError_t failed(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

// An error stays until cudaGetLastError() asks for it. Who launches again, or ends, without asking would have missed
// it.
void expect_no_error(const char* when) {
    if (last_error != cudaSuccess)
        report_defect("an error that nobody asked for", nullptr,
                      std::string(cudaGetErrorString(last_error)) + " " + when);
    last_error = cudaSuccess;
}
struct AskedAtExit {
    ~AskedAtExit() { expect_no_error("at the end"); }
} asked_at_exit;

// One of a fat binary's entries: the header that nvcc writes, and what follows it.
struct Entry {
    uint16_t kind;  // 1 for PTX
    uint16_t version;
    uint32_t header_bytes;
    uint64_t bytes;
};

std::vector<std::string> ptx_in(const char* fat) {
    uint16_t header = 0;
    uint64_t size = 0;
    std::memcpy(&header, fat + 6, sizeof header);
    std::memcpy(&size, fat + 8, sizeof size);
    std::vector<std::string> texts;
    for (const char* at = fat + header; at < fat + header + size;) {
        Entry entry = {};
        std::memcpy(&entry, at, sizeof entry);
        at += entry.header_bytes;
        if (entry.kind == 1) {
            texts.emplace_back(at, strnlen(at, entry.bytes));
            if (texts.back().find(".version") == std::string::npos)
                give_up("the module's PTX is compressed: compile with --no-compress");
        }
        at += entry.bytes;
    }
    return texts;
}

// Reads all of a module's PTX, and keeps what a driver would take for this GPU: that of the newest architecture that is
// not newer than the GPU.
Module* load(const char* fat) {
    std::unique_ptr<Module> best;
    for (const std::string& text : ptx_in(fat)) {
        try {
            auto module = parse(text);
            if (module->capability <= settings().gpu.capability && (!best || module->capability > best->capability))
                best = std::move(module);
        } catch (const ParseError& error) {
            give_up(std::string("cannot read the module's PTX: ") + error.what());
        }
    }
    if (!best) give_up("the module has no PTX for sm_" + std::to_string(settings().gpu.capability));
    modules().push_back(std::move(best));
    return modules().back().get();
}

// The error of a launch past a limit, with what the report calls it.
cudaError_t refused(const Kernel& kernel, dim3 grid, dim3 block, size_t shared) {
    const auto refuse = [&](cudaError_t error, const std::string& what, const std::string& detail) {
        running() = {&kernel, 0, 0};
        report_defect("launch refused: " + what, nullptr, detail);
        running() = {};
        return error;
    };
    const uint64_t threads = uint64_t(block.x) * block.y * block.z, blocks = uint64_t(grid.x) * grid.y * grid.z;
    if (!blocks || !threads || grid.x > INT_MAX || threads > 1024)
        return refuse(cudaErrorInvalidConfiguration, "grid or block",
                      std::to_string(blocks) + " blocks of " + std::to_string(threads) + " threads");
    if (grid.x != blocks || block.x != threads)
        return refuse(cudaErrorInvalidConfiguration, "the emulator knows one dimension", "");
    if (blocks * threads >= UINT32_MAX)
        return refuse(cudaErrorInvalidConfiguration, "the emulator numbers threads by 32 bits", "");
    if (threads > static_cast<uint64_t>(kernel.max_threads))
        return refuse(cudaErrorInvalidValue, "more threads than .maxntid",
                      std::to_string(threads) + " of " + std::to_string(kernel.max_threads));
    if (shared > static_cast<uint64_t>(kernel.shared_limit))
        return refuse(cudaErrorInvalidValue, "more shared memory than allowed",
                      std::to_string(shared) + " of " + std::to_string(kernel.shared_limit));
    return cudaSuccess;
}

cudaError_t launch(Kernel& kernel, dim3 grid, dim3 block, void** arguments, size_t shared) {
    expect_no_error("before the launch of the next kernel");
    if (const cudaError_t error = refused(kernel, grid, block, shared)) return failed(error);
    const bool ended = run(kernel, grid.x, static_cast<int>(block.x), static_cast<int64_t>(shared),
                           static_cast<const char*>(arguments[0]));
    return ended ? cudaSuccess : failed(cudaErrorLaunchTimeout);
}

struct {
    dim3 grid, block;
    size_t shared;
    cudaStream_t stream;
} thread_local configuration;

}  // namespace
}  // namespace ptx

using namespace ptx;

// ---- what the code that nvcc writes calls ----

PTX_EXPORT void** __cudaRegisterFatBinary(void* given) {
    const std::lock_guard lock(ptx::mutex);
    struct {
        int magic, version;
        const char* data;
    } fat;
    std::memcpy(&fat, given, sizeof fat);
    return reinterpret_cast<void**>(load(fat.data));
}

PTX_EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
PTX_EXPORT void __cudaUnregisterFatBinary(void**) {}
PTX_EXPORT char __cudaInitModule(void**) { return 1; }

PTX_EXPORT void __cudaRegisterFunction(void** module, const char* host, char*, const char* name, int, uint3*, uint3*,
                                       dim3*, dim3*, int*) {
    const std::lock_guard lock(ptx::mutex);
    for (const auto& kernel : reinterpret_cast<Module*>(module)->kernels)
        if (kernel->name == name) by_host_function[host] = kernel.get();
    if (!by_host_function.count(host)) give_up(std::string("the module's PTX has no kernel ") + name);
}

PTX_EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
    configuration = {grid, block, shared, stream};
    return 0;
}

PTX_EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
    *grid = configuration.grid;
    *block = configuration.block;
    *shared = configuration.shared;
    std::memcpy(stream, &configuration.stream, sizeof configuration.stream);
    return cudaSuccess;
}

PTX_EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
    const std::lock_guard lock(ptx::mutex);
    const auto found = by_host_function.find(host);
    if (found == by_host_function.end()) return failed(cudaErrorInvalidDeviceFunction);
    *kernel = reinterpret_cast<cudaKernel_t>(found->second);
    return cudaSuccess;
}

PTX_EXPORT cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                                          cudaStream_t) {
    const std::lock_guard lock(ptx::mutex);
    return launch(*reinterpret_cast<Kernel*>(kernel), grid, block, arguments, shared);
}

// ---- what srcell calls ----

PTX_EXPORT cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

PTX_EXPORT const char* cudaGetErrorString(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "no error";
        case cudaErrorInvalidValue:
            return "invalid argument";
        case cudaErrorMemoryAllocation:
            return "out of memory";
        case cudaErrorInvalidConfiguration:
            return "invalid configuration argument";
        case cudaErrorInvalidDeviceFunction:
            return "invalid device function";
        case cudaErrorInvalidDevice:
            return "invalid device ordinal";
        case cudaErrorLaunchTimeout:
            return "the launch timed out and was terminated";
        default:
            return "unrecognized error code";
    }
}

PTX_EXPORT cudaError_t cudaSetDevice(int device) { return failed(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

PTX_EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
    if (device != 0) return failed(cudaErrorInvalidDevice);
    if (which == cudaDevAttrMultiProcessorCount)
        *value = settings().gpu.processors;
    else if (which == cudaDevAttrMaxSharedMemoryPerBlockOptin)
        *value = settings().gpu.shared_bytes;
    else
        return failed(cudaErrorInvalidValue);
    return cudaSuccess;
}

PTX_EXPORT cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute which, int value) {
    const std::lock_guard lock(ptx::mutex);
    const auto found = by_host_function.find(host);
    if (found == by_host_function.end()) return failed(cudaErrorInvalidDeviceFunction);
    if (which == cudaFuncAttributePreferredSharedMemoryCarveout && value >= -1 && value <= 100) return cudaSuccess;
    if (which != cudaFuncAttributeMaxDynamicSharedMemorySize || value < 0 || value > settings().gpu.shared_bytes) {
        report_defect("cudaFuncSetAttribute() refused", nullptr, std::to_string(which) + ", " + std::to_string(value));
        return failed(cudaErrorInvalidValue);
    }
    found->second->shared_limit = value;
    return cudaSuccess;
}

// ---- what only the emulator's own tests call ----

PTX_EXPORT cudaError_t cudaMallocManaged(void** made, size_t size, unsigned) {
    *made = allocate(size);
    return failed(*made ? cudaSuccess : cudaErrorMemoryAllocation);
}

PTX_EXPORT cudaError_t cudaFree(void* at) { return failed(!at || release(at) ? cudaSuccess : cudaErrorInvalidValue); }

PTX_EXPORT cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }

// ---- what tests/test_ptx.py asks ----

// The opcodes of operations(), one a line.
PTX_EXPORT const char* ptx_opcodes() {
    static const std::string all = [] {
        std::string made;
        for (const auto& [opcode, operation] : operations()) made += opcode + "\n";
        return made;
    }();
    return all.c_str();
}

// What is wrong with a text of PTX, or null; valid until the next call.
PTX_EXPORT const char* ptx_error(const char* text) {
    static std::string error;
    try {
        parse(text);
        return nullptr;
    } catch (const ParseError& wrong) {
        error = wrong.what();
        return error.c_str();
    }
}
