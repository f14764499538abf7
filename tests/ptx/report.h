// What the emulator has seen: defects of kernels and of launches, and which kernels and instructions ran. Each process
// writes a file when it ends; tools/run_ptx.py adds the files up.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "program.h"

namespace ptx {

// What this process has loaded. Modules may have kernels of the same name: each source file has its own.
std::vector<std::unique_ptr<Module>>& modules();

// Who runs now; the machine keeps it up to date, so that a defect can be told with it.
struct Running {
    const Kernel* kernel = nullptr;
    int64_t block = 0;
    int thread = 0;
};
Running& running();

// Counts a defect; the first of its kind at an instruction is kept with where it happened. Nothing stops.
void report_defect(const std::string& what, const Instruction* at = nullptr, const std::string& detail = "");

// Counts a launch and its instructions, each as often as it ran.
void count_launch(uint64_t steps);

}  // namespace ptx
