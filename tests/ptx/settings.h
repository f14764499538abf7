// What the environment asks of the emulator, read once:
//
//     PTX_SM          the GPU's compute capability, by default 90: its limits, and the PTX that it would run
//     PTX_ORDER       of the blocks and their threads: ascending, descending, random or interleaved
//     PTX_RECIPROCAL  the error of rcp.approx: exact, low or high by a unit in the last place, or random
//     PTX_REPORT      a folder, to which each process writes its report
#pragma once

#include <random>
#include <string>

namespace ptx {

enum class Order { ascending, descending, random, interleaved };

// The GPU's limits, from CUDA's programming guide.
struct Gpu {
    int capability;
    int processors;
    int shared_bytes;  // per block at most, after cudaFuncSetAttribute()
};

struct Settings {
    Gpu gpu;
    Order order;
    std::string reciprocal, report;
};

// Ends the process with a message where a variable has no meaning.
const Settings& settings();

// Units in the last place by which the next rcp.approx is off.
int reciprocal_error();

using Random = std::mt19937_64;  // with seeds of its own: a run can be repeated

// Writes a line to what was standard error when the process began: tests capture what it is later.
void say(const std::string& line);

// Ends the process: what is wrong is neither a kernel's defect nor a call's.
[[noreturn]] void give_up(const std::string& why);

}  // namespace ptx
