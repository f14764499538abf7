// Collects and writes the report, as lines of fields separated by tabs:
//
//     kernel    name, launches, and for each instruction 1 or 0: whether it ever ran
//     missing   of a kernel that ran, an instruction that did not: the kernel, its number, its line and text
//     total     launches, instructions that ran
//     defect    how often, what, kernel, instruction, the first time
//
// Without a folder for reports only the defects are told, on standard error.
#include "report.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>

#include "settings.h"

namespace ptx {
namespace {

struct Defect {
    uint64_t count = 0;
    std::string first;
};

struct Seen {
    std::map<std::string, Defect> defects;  // by what, kernel and instruction
    uint64_t launches = 0, steps = 0;
};

// Never freed: the report is written when everything else has ended.
Seen& seen() {
    static Seen& made = *new Seen;
    return made;
}

std::string text_of(const Kernel& kernel, const Instruction& at) {
    std::string text = std::to_string(at.line) + ":" + (*kernel.lines)[static_cast<size_t>(at.line) - 1];
    std::replace(text.begin(), text.end(), '\t', ' ');
    return text;
}

void write_kernel(const Kernel& kernel, std::FILE* out) {
    std::fprintf(out, "kernel\t%s\t%s\t", kernel.name.c_str(), std::to_string(kernel.launches).c_str());
    const size_t count = kernel.code.size() - 1;  // without the end that the parser adds
    for (size_t n = 0; n < count; ++n) std::fputc(kernel.code[n].ran ? '1' : '0', out);
    std::fputc('\n', out);
    for (size_t n = 0; n < count && kernel.launches; ++n)
        if (!kernel.code[n].ran)
            std::fprintf(out, "missing\t%s\t%s\t%s\n", kernel.name.c_str(), std::to_string(n).c_str(),
                         text_of(kernel, kernel.code[n]).c_str());
}

void write() {
    for (const auto& [what, defect] : seen().defects) say("defect: " + what + " (" + defect.first + ")");
    if (settings().report.empty() || (seen().launches == 0 && seen().defects.empty())) return;

    const std::string path = settings().report + "/" + std::to_string(getpid()) + ".tsv";
    std::FILE* const out = std::fopen(path.c_str(), "w");
    if (!out) give_up("PTX_REPORT: cannot write " + path);
    for (const auto& module : modules())
        for (const auto& kernel : module->kernels) write_kernel(*kernel, out);
    std::fprintf(out, "total\t%s\t%s\n", std::to_string(seen().launches).c_str(), std::to_string(seen().steps).c_str());
    for (const auto& [what, defect] : seen().defects)
        std::fprintf(out, "defect\t%s\t%s\t%s\n", std::to_string(defect.count).c_str(), what.c_str(),
                     defect.first.c_str());
    std::fclose(out);
}

struct WrittenAtExit {
    ~WrittenAtExit() { write(); }
} written_at_exit;

}  // namespace

std::vector<std::unique_ptr<Module>>& modules() {
    static auto& made = *new std::vector<std::unique_ptr<Module>>;
    return made;
}

Running& running() {
    static Running now;
    return now;
}

void report_defect(const std::string& what, const Instruction* at, const std::string& detail) {
    const Running& now = running();
    const std::string text = now.kernel && at ? text_of(*now.kernel, *at) : std::string();
    Defect& defect = seen().defects[what + "\t" + (now.kernel ? now.kernel->name : std::string()) + "\t" + text];
    if (!defect.count++)
        defect.first = detail + (detail.empty() ? "" : ", ") + "block " + std::to_string(now.block) + ", thread " +
                       std::to_string(now.thread);
}

void count_launch(uint64_t steps) {
    ++seen().launches;
    seen().steps += steps;
}

}  // namespace ptx
