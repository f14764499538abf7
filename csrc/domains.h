// The valid values of a layer's parameters and of an integer neuron's constants. The bindings and the runtime turn the
// faults found here into their error messages, in which shortest() shows a number.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <string>
#include <type_traits>

#include "params.h"

namespace srcell {

// The fewest digits that distinguish a number from all others of its type, so that no message shows 1.0000001 as 1;
// nine in WebAssembly.
template <class T>
std::string shortest(T value) {
    if constexpr (std::is_integral<T>::value) return std::to_string(value);
    char digits[32];
#if defined(__wasm__)  // where to_chars() takes 50 kB
    return {digits, static_cast<size_t>(std::snprintf(digits, sizeof digits, "%.9g", static_cast<double>(value)))};
#else
    return {digits, std::to_chars(digits, digits + sizeof digits, value).ptr};
#endif
}

// What a message says was expected of parameter number k; null if `value` is valid. A value for the whole layer must
// also be finite.
template <class T>
const char* expected_of_parameter(int k, T value, bool layer_wide) {
    const ParameterRow& row = kParameterTable[k];
    const bool inside = value >= static_cast<T>(row.least) && value <= static_cast<T>(row.most);
    const bool divides = !row.divides || (value > 0 && std::isfinite(value) && std::isfinite(1 / value));
    if (row.expected && !(inside && divides)) return row.expected;
    return layer_wide && !std::isfinite(value) ? "a finite value" : nullptr;
}

// A constant of IntegerCell, its bounds, and the hardware's value.
struct IntegerConstant {
    const char* name;
    int32_t IntegerCell::* member;
    int32_t least, most, standard;
};

constexpr IntegerConstant kIntegerConstants[] = {
    {"leak_shift_a", &IntegerCell::leak_shift_a, 1, 15, 4},
    {"leak_shift_b", &IntegerCell::leak_shift_b, 1, 15, 5},
    {"i_max", &IntegerCell::i_max, 0, 32766, 30000},
    {"drive_high", &IntegerCell::drive_high, -32767, 32767, 1023},
    {"drive_low", &IntegerCell::drive_low, -32767, 32767, -1024},
    {"gate_threshold", &IntegerCell::gate_threshold, -32767, 32767, 500},
    {"zs_hyp", &IntegerCell::zs_hyp, 0, 32767, 900},
    {"zs_dep", &IntegerCell::zs_dep, 0, 32767, 100},
    {"fraction_bits", &IntegerCell::fraction_bits, 0, 15, 10},
    {"r", &IntegerCell::r, -32767, 32767, 2},
    {"rs", &IntegerCell::rs, -32767, 32767, -8},
    {"bias", &IntegerCell::bias, -32767, 32767, -6000},
    {"slope", &IntegerCell::slope, 0, 32767, 3},
    {"slope_shift", &IntegerCell::slope_shift, 0, 15, 2},
    {"h_min", &IntegerCell::h_min, -32767, 0, -1024},
    {"h_max", &IntegerCell::h_max, 0, 32767, 1023},
    {"hs_min", &IntegerCell::hs_min, -32767, 0, -800},
    {"hs_max", &IntegerCell::hs_max, 0, 32767, 1023},
    {"spike_threshold", &IntegerCell::spike_threshold, -32767, 32767, 512},
};

// A fault in the constants of integer neurons: either `constant` is out of its bounds, or several constants do not meet
// what is `expected` of them together. `got` is the value found. Both pointers are null if there is no fault.
struct IntegerFault {
    const IntegerConstant* constant;
    const char* expected;
    int64_t got;
};

// Checks that all values of a neuron whose constants are within their bounds fit in 16 bits.
inline IntegerFault integer_cell_fault(const IntegerCell& cell) {
    const auto size = [](int64_t x) { return x < 0 ? -x : x; };
    const auto larger = [](int64_t x, int64_t y) { return x > y ? x : y; };
    constexpr int64_t most = INT16_MAX;
    const int64_t unit = int64_t(1) << cell.fraction_bits, one = int64_t(1) << cell.slope_shift;
    const int64_t drive = larger(size(cell.drive_high), size(cell.drive_low));
    const int64_t fast = size(cell.r) * larger(-cell.h_min, cell.h_max);
    const int64_t slow = size(cell.rs) * larger(-cell.hs_min, cell.hs_max);
    const int64_t u = drive + fast + slow + size(cell.bias), zs = larger(cell.zs_hyp, cell.zs_dep);
    const int64_t apart = larger(int64_t(cell.hs_max) - cell.h_min, int64_t(cell.h_max) - cell.hs_min);
    if (u > most) return {nullptr, "a sum of the sizes of drive, r * h, rs * hs and bias of at most 32767", u};
    if (apart > most) return {nullptr, "h and hs that are at most 32767 apart", apart};
    if (zs > unit) return {nullptr, "zs_hyp and zs_dep of at most 2^fraction_bits", zs};
    if (2 * int64_t(cell.slope) >= 3 * one) return {nullptr, "a slope below 1.5 * 2^slope_shift", cell.slope};
    if (u * cell.slope / one >= most) return {nullptr, "a slope * u >> slope_shift below 32767", u * cell.slope / one};
    return {};
}

// Fills a cell from `values`, one for each of kIntegerConstants in their order, and returns the first fault.
template <class Integer>
IntegerFault fill_integer_cell(const Integer* values, IntegerCell& cell) {
    for (size_t k = 0; k < std::size(kIntegerConstants); ++k) {
        const IntegerConstant& constant = kIntegerConstants[k];
        if (values[k] < constant.least || values[k] > constant.most) return {&constant, nullptr, values[k]};
        cell.*constant.member = static_cast<int32_t>(values[k]);
    }
    return integer_cell_fault(cell);
}

// The bounds of i, h and hs. A state outside them would overflow 16 bits.
struct IntegerBounds {
    const char* name;
    int32_t least, most;
};

inline std::array<IntegerBounds, 3> integer_bounds(const IntegerCell& cell) {
    return {{{"i", -cell.i_max, cell.i_max}, {"h", cell.h_min, cell.h_max}, {"hs", cell.hs_min, cell.hs_max}}};
}

}  // namespace srcell
