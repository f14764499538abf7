// Reads the settings. The GPUs are those whose limits differ in what a launch of srcell's asks for.
#include "settings.h"

#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>

namespace ptx {
namespace {

constexpr std::array<Gpu, 4> kGpus = {{
    {75, 72, 64 << 10},
    {89, 128, 99 << 10},
    {90, 132, 227 << 10},
    {120, 170, 99 << 10},
}};

const int standard_error = dup(STDERR_FILENO);

std::string variable(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value && *value ? value : otherwise;
}

Settings read() {
    Settings made = {};
    const std::string capability = variable("PTX_SM", "90"), order = variable("PTX_ORDER", "ascending");
    for (const Gpu& gpu : kGpus)
        if (std::to_string(gpu.capability) == capability) made.gpu = gpu;
    if (!made.gpu.capability) give_up("PTX_SM: expected 75, 89, 90 or 120, got " + capability);

    const std::array<const char*, 4> orders = {"ascending", "descending", "random", "interleaved"};
    size_t at = 0;
    while (at < orders.size() && order != orders[at]) ++at;
    if (at == orders.size()) give_up("PTX_ORDER: expected ascending, descending, random or interleaved, got " + order);
    made.order = static_cast<Order>(at);

    made.reciprocal = variable("PTX_RECIPROCAL", "exact");
    if (made.reciprocal != "exact" && made.reciprocal != "low" && made.reciprocal != "high" &&
        made.reciprocal != "random")
        give_up("PTX_RECIPROCAL: expected exact, low, high or random, got " + made.reciprocal);
    made.report = variable("PTX_REPORT", "");
    return made;
}

}  // namespace

const Settings& settings() {
    static const Settings& made = *new Settings(read());  // never freed: the report at the end reads it
    return made;
}

int reciprocal_error() {
    static const int fixed = settings().reciprocal == "low" ? -1 : settings().reciprocal == "high" ? 1 : 0;
    static const bool random = settings().reciprocal == "random";
    static Random noise(2);
    return random ? static_cast<int>(noise() % 3) - 1 : fixed;
}

void say(const std::string& line) {
    const std::string whole = "PTX emulator: " + line + "\n";
    if (write(standard_error, whole.data(), whole.size()) < 0) std::fputs(whole.c_str(), stderr);
}

void give_up(const std::string& why) {
    say(why);
    std::_Exit(2);
}

}  // namespace ptx
