// From a stream to what launch.h takes, and from there to the functions of kernels.h. Included by the .cu files alone.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

// Puts work on a stream of the current device; returns the first error.
template <class Work>
int on_stream(cuda::Stream stream, Work work) {
#if defined(__CUDACC__)
    Queue queue = {{}, static_cast<cudaStream_t>(stream)};
    int device = 0;
    queue.error = cudaGetDevice(&device);
    if (queue.error == cudaSuccess)
        queue.error = cudaDeviceGetAttribute(&queue.limits.processors, cudaDevAttrMultiProcessorCount, device);
    if (queue.error == cudaSuccess)
        queue.error =
            cudaDeviceGetAttribute(&queue.limits.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (queue.error == cudaSuccess) work(queue);
    if (queue.error != cudaSuccess) cudaGetLastError();  // told here, and not again by the next call
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

// Defines srcell::cuda::name for a call.
#define SRCELL_LAUNCH(name, Call)                                                                 \
    int srcell::cuda::name(Stream stream, const Call& p) {                                        \
        return device::on_stream(stream, [&p](device::Queue& queue) { device::name(queue, p); }); \
    }
