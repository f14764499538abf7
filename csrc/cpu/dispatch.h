// Chooses the table of kernels once, outside all loops. The bindings and the runtime call it; it knows processors and
// nothing about the equations.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace srcell {

// The tables that were compiled in and that this processor and its operating system can run, slowest first.
std::vector<const Kernels*> available_kernels();

// The last table of `available` if `wanted` is null or empty, otherwise the table with the name `wanted`. Throws
// std::invalid_argument for a name that is unknown or not available.
const Kernels* choose_kernels(const std::vector<const Kernels*>& available, const char* wanted);

// The kernels that the environment variable SRCELL_ISA names, by default the fastest. Throws as choose_kernels() does.
const Kernels* preferred_kernels();

}  // namespace srcell
