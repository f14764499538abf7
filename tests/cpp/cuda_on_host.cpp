// The CUDA module's kernels compiled for the host, to test the Python code above them without a GPU. Linked with
// bindings/cuda.cpp they are a module srcell._cuda that takes addresses of host memory.
#include "../../csrc/cuda/delay.cu"
#include "../../csrc/cuda/events.cu"
#include "../../csrc/cuda/integer.cu"
#include "../../csrc/cuda/lateral.cu"
#include "../../csrc/cuda/masks.cu"
#include "../../csrc/cuda/scan.cu"
#include "../../csrc/cuda/synapse.cu"

namespace srcell {
namespace cuda {

const char* error_text(int) { return ""; }

Built built() { return {0, "the host"}; }

}  // namespace cuda
}  // namespace srcell
