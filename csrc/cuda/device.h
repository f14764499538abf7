// What all kernels of a GPU share: the value types, the equations, the launches, and the time loop. A .cu file launches
// what the headers here say that a thread does; without nvcc the same code runs on the host, block by block and thread
// by thread, which is how the tests compare it with the CPU's kernels.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
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

// A namespace of their own, as each ISA of the CPU has one: the same templates mean other code there.
namespace srcell {
namespace device {

#include "value.h"
//
#include "elements.h"
//
#include "../vmath.h"
//
#include "../cell.h"
//
#include "../common.h"
//
#include "launch.h"
//
#include "sums.h"
//
#include "scan.h"

}  // namespace device
}  // namespace srcell
