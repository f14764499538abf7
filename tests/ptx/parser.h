// Reads PTX as nvcc writes it: entries of one parameter, dynamic shared memory, and the instructions of operations.h.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>

#include "program.h"

namespace ptx {

// Names the line, and what the emulator does not know there.
struct ParseError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

std::unique_ptr<Module> parse(const std::string& text);

}  // namespace ptx
