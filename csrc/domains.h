// The valid values of a layer's parameters and of an integer neuron's constants. The bindings and the runtime turn the
// faults found here into their error messages.
#pragma once

#include <cmath>
#include <iterator>

#include "params.h"

namespace srcell {

// What was expected of parameter number k if `value` is invalid, or null if it is valid. A value for the whole layer
// must also be finite.
template <class T>
const char* expected_of_parameter(int k, T value, bool layer_wide) {
    if (k == kAlpha && !(value >= 0 && value <= 1)) return "values in [0, 1]";
    if (k == kRho && !(value > 0 && std::isfinite(value) && std::isfinite(1 / value)))
        return "finite values > 0 with a finite reciprocal";
    return layer_wide && !std::isfinite(value) ? "a finite value" : nullptr;
}

// A fault in the constants of integer neurons: either one constant is out of its bounds, or several do not meet what is
// `expected` of them together; `got` is the value found. Both pointers are null if there is no fault.
struct IntegerFault {
    const IntegerConstant* constant;
    const char* expected;
    int64_t got;
};

// Fills a cell from `values`, one for each of kIntegerConstants in their order, and returns the first fault.
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
