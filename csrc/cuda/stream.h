// Defines the functions of kernels.h: makes the Queue of launch.h from a stream, and calls the function of the same
// name in srcell::device. Included only by the .cu files; knows no kernel.
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
