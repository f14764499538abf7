// The CUDA module's kernels on the host, for tests of what lies above them where there is no card: with
// bindings/cuda.cpp they make a module srcell._cuda whose addresses are those of the CPU.
#include "../../csrc/cuda/events.cu"
#include "../../csrc/cuda/masks.cu"
#include "../../csrc/cuda/scan.cu"

namespace srcell {
namespace cuda {

const char* error_text(int) { return ""; }

Built built() { return {0, "the host"}; }

}  // namespace cuda
}  // namespace srcell
