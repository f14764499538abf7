// What the emulator makes of PTX: kernels, each a list of instructions on numbered registers. The parser writes them,
// the machine runs them, the report reads which ran. Knows neither text nor memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

namespace ptx {

// A register or a constant: its value in the low bits; those above do not count. A predicate is 0 or 1.
using Slot = uint64_t;

template <class T>
T get(Slot slot) {
    T x;
    std::memcpy(&x, &slot, sizeof x);
    return x;
}

template <class T>
void set(Slot& slot, T x) {
    slot = 0;
    std::memcpy(&slot, &x, sizeof x);
}

struct Instruction;
using Operation = void (*)(Slot* registers, const Instruction& at);

enum class Kind : uint8_t { compute, branch, leave, barrier, load, store, atomic };
enum class Space : uint8_t { global, shared, parameter };

struct Allocation;

struct Instruction {
    Operation operation = nullptr;  // of compute and atomic
    Kind kind = Kind::compute;
    Space space = Space::global;
    bool unless = false;     // runs where the predicate is false
    bool is_signed = false;  // a load extends the sign
    bool ran = false;
    uint8_t count = 1;                      // elements of a load, a store or a vector
    uint8_t bytes = 0;                      // of an element
    int predicate = -1;                     // a register, or -1
    int d = 0, a = 0, b = 0, c = 0, e = 0;  // registers: the result, and the sources in order
    int elements[4] = {};                   // registers of a load, a store or a vector
    int target = -1;                        // of a branch
    int line = 0;                           // in the module's text
    int64_t offset = 0;                     // bytes, added to the address in `a`

    // Where this instruction last found its address, and in which launch.
    Allocation* allocation = nullptr;
    uint32_t found_in = 0;
};

// The first registers of every kernel.
enum Special : int { kThread, kThreads, kBlock, kBlocks, kFirstRegister };

struct Kernel {
    std::string name;
    std::vector<Instruction> code;
    std::vector<Slot> registers;  // as a thread begins: constants, and registers that hold nothing yet
    int64_t parameter_bytes = 0, max_threads = 1024;
    bool has_barrier = false;
    int64_t shared_limit = 48 << 10;  // bytes of dynamic shared memory; cudaFuncSetAttribute() raises it
    uint64_t launches = 0;
    const std::vector<std::string>* lines = nullptr;  // of the module's text
};

struct Module {
    std::vector<std::string> lines;
    int capability = 0;  // of .target: 75 for sm_75
    std::vector<std::unique_ptr<Kernel>> kernels;
};

}  // namespace ptx
