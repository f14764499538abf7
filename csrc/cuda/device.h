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

#include "value.h"
//
#include "elements.h"
//
#include "rows.h"
//
#include "../vmath.h"
//
#include "../cell.h"
//
#include "../common.h"
//
#include "launch.h"
//
#include "turn.h"
//
#include "sums.h"
//
#include "scan.h"

}  // namespace device
}  // namespace srcell
