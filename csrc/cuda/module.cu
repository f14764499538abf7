// The CUDA module's error texts and build information.
#include <cuda_runtime.h>

#include "kernels.h"

namespace srcell {
namespace cuda {

const char* error_text(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

Built built() { return {CUDART_VERSION, SRCELL_CUDA_ARCHITECTURES}; }

}  // namespace cuda
}  // namespace srcell
