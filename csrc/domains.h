// What a layer's parameters and an integer neuron's constants must be. The bindings and the runtime turn what this says
// into their errors.
#pragma once

#include <cmath>
#include <iterator>

#include "params.h"

namespace srcell {

// What a value of parameter number k should have been, or null if it is good. One for a whole layer must be finite.
template <class T>
const char* expected_of_parameter(int k, T value, bool layer_wide) {
    if (k == kAlpha && !(value >= 0 && value <= 1)) return "values in [0, 1]";
    if (k == kRho && !(value > 0 && std::isfinite(value) && std::isfinite(1 / value)))
        return "finite values > 0 with a finite reciprocal";
    return layer_wide && !std::isfinite(value) ? "a finite value" : nullptr;
}

// A fault in the constants of integer neurons: one out of its bounds, or else what was expected of several, and what
// came. Nothing is wrong if both pointers are null.
struct IntegerFault {
    const IntegerConstant* constant;
    const char* expected;
    int64_t got;
};

// Fills a cell with as many values as there are kIntegerConstants, in their order, unless there is a fault.
template <class Integer>
IntegerFault fill_integer_cell(const Integer* values, IntegerCell& cell) {
    for (size_t k = 0; k < std::size(kIntegerConstants); ++k) {
        const IntegerConstant& constant = kIntegerConstants[k];
        if (values[k] < constant.least || values[k] > constant.most) return {&constant, nullptr, values[k]};
        cell.*constant.member = static_cast<int32_t>(values[k]);
    }
    const IntegerCellFault fault = integer_cell_fault(cell);
    return {nullptr, fault.expected, fault.got};
}

}  // namespace srcell
