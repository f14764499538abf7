// The check of events in the compiled module srcell._core: turns addresses and sizes into the struct of event_rows.h,
// releases the GIL and names the fault that was found. core.cpp calls bind_events().
#include "../cpu/event_rows.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "arguments.h"

namespace srcell {
namespace {

// In the order of Fault.
constexpr const char* kFaultNames[] = {"",      "length", "first offset", "descent", "last offset",
                                       "index", "nan",    "past length"};
static_assert(std::size(kFaultNames) == static_cast<size_t>(Fault::kPastLength) + 1);

std::optional<std::pair<std::string, int64_t>> find_fault_in_arrays(bool is_double, const Sizes& sizes,
                                                                    const EventRows& rows, Address lengths,
                                                                    int threads) {
    const auto [steps, batch, inputs] = sizes;
    const UncheckedEvents p = {pointer<const int64_t>(rows.offsets),
                               pointer<const int32_t>(rows.indices),
                               is_double ? nullptr : pointer<const float>(rows.values),
                               is_double ? pointer<const double>(rows.values) : nullptr,
                               pointer<const int64_t>(lengths),
                               steps,
                               batch,
                               inputs,
                               rows.count,
                               threads};
    FoundFault found;
    {
        const ReleasedGil release;
        found = find_fault(p);
    }
    if (found.fault == Fault::kNone) return std::nullopt;
    return std::pair(std::string(kFaultNames[static_cast<int>(found.fault)]), found.position);
}

}  // namespace
}  // namespace srcell

void bind_events(pybind11::module_& m) {
    using namespace pybind11::literals;
    m.def("find_event_fault", &srcell::find_fault_in_arrays, "is_double"_a, "sizes"_a, "rows"_a, "lengths"_a,
          "threads"_a);
}
