// Runs a launch of a kernel, thread by thread.
#pragma once

#include <cstdint>

#include "program.h"

namespace ptx {

// False if a thread did not end. Other defects are reported, and the launch goes on.
bool run(Kernel& kernel, int64_t blocks, int threads, int64_t shared_bytes, const char* parameters);

}  // namespace ptx
