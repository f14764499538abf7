// Defines the functions of kernels.h: makes the Queue of launch-inl.h from a stream, and calls the function of the same
// name in srcell::device. Included only by the .cu files; knows nothing about kernels.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

// Puts work on a stream, whose device becomes this thread's current device; returns the first error.
template <class Work>
int on_stream(cuda::Stream stream, Work work) {
#if defined(__CUDACC__)
    Queue queue = {{}, stream.device, static_cast<cudaStream_t>(stream.handle)};
    const auto attribute = [&](int* value, cudaDeviceAttr which) {
        if (queue.error == cudaSuccess) queue.error = cudaDeviceGetAttribute(value, which, stream.device);
    };
    queue.error = cudaSetDevice(stream.device);
    attribute(&queue.limits.processors, cudaDevAttrMultiProcessorCount);
    attribute(&queue.limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    if (queue.error == cudaSuccess) work(queue);
    if (queue.error != cudaSuccess) cudaGetLastError();  // clears the error, so that the next call does not return it
    return queue.error;
#else
    (void)stream;
    Queue queue = {kHostLimits};
    work(queue);
    return 0;
#endif
}

}  // namespace device
}  // namespace srcell

// Defines srcell::cuda::name for one type of call.
#define SRCELL_LAUNCH(name, Call)                                                                 \
    int srcell::cuda::name(Stream stream, const Call& p) {                                        \
        return device::on_stream(stream, [&p](device::Queue& queue) { device::name(queue, p); }); \
    }
