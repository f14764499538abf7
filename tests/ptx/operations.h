// The instructions that compute, by their full opcode: those that srcell's PTX contains, and no others.
#pragma once

#include <map>
#include <string>

#include "program.h"

namespace ptx {

const std::map<std::string, Operation>& operations();

// Halves of a register, of 16 or 32 bits: `mov.b32 {low, high}, a` and `mov.b32 d, {low, high}`.
void unpack(Slot* registers, const Instruction& at);
void pack(Slot* registers, const Instruction& at);

}  // namespace ptx
