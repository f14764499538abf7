// What all GPU kernels share: the value types, the equations, the launches, and the time loop. The headers of this
// folder define what one thread does, and the .cu files launch it. Without nvcc the same code runs on the host, block
// by block and thread by thread, so that the tests can compare it with the CPU's kernels.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "../cpu/encode.h"
#include "kernels.h"

#if defined(__CUDACC__)
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define SRCELL_INLINE __device__ __forceinline__
#else
#define SRCELL_INLINE inline
#endif

// A namespace of its own, as for each ISA of the CPU, because the shared templates compile to different code in each.
// The order of the includes matters; the empty comments keep clang-format from sorting them.
namespace srcell {
namespace device {

#include "value-inl.h"
//
#include "elements-inl.h"
//
#include "rows-inl.h"
//
#include "../vmath-inl.h"
//
#include "../cell-inl.h"
//
#include "../common-inl.h"
//
#include "launch-inl.h"
//
#include "turn-inl.h"
//
#include "sums-inl.h"
//
#include "scan-inl.h"

}  // namespace device
}  // namespace srcell
