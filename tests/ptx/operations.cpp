// What each instruction computes, after the PTX ISA 9.0, chapter "Instruction Set". Knows registers, and no memory.
//
// Arithmetic in float32 makes one NaN, 0x7FFFFFFF; in float64 which NaN it makes is not promised. Denormal numbers
// count everywhere except in rcp.approx.ftz.
#include "operations.h"

#include <immintrin.h>

#include <cmath>
#include <limits>
#include <type_traits>

#include "report.h"
#include "settings.h"

namespace ptx {
namespace {

float canonical(float x) { return std::isnan(x) ? get<float>(0x7FFFFFFF) : x; }
double canonical(double x) { return x; }

// Division by 0 has no defined result.
template <class T>
T quotient(T x, T y, const Instruction& at) {
    if (y == 0) {
        report_defect("division by zero", &at);
        return static_cast<T>(~T(0));
    }
    if (std::is_signed_v<T> && y == T(-1)) return static_cast<T>(0 - std::make_unsigned_t<T>(x));  // -2^63 stays
    return x / y;
}

template <class T>
T remainder(T x, T y, const Instruction& at) {
    if (y == 0) {
        report_defect("division by zero", &at);
        return x;
    }
    return std::is_signed_v<T> && y == T(-1) ? 0 : x % y;
}

// Shifts by the width or more leave zeros, or copies of the sign.
template <class T>
T shifted_left(T x, uint32_t by) {
    return by < sizeof(T) * 8 ? T(x << by) : T(0);
}

template <class T>
T shifted_right(T x, uint32_t by) {
    constexpr uint32_t width = sizeof(T) * 8;
    return x >> (by < width ? by : width - 1) >> (by >= width && !std::is_signed_v<T>);
}

uint32_t low_bits(uint32_t count) { return count < 32 ? (uint32_t(1) << count) - 1 : ~uint32_t(0); }

uint32_t extracted(uint32_t x, uint32_t position, uint32_t length) {
    return shifted_right(x, position & 255) & low_bits(length & 255);
}

uint32_t inserted(uint32_t field, uint32_t into, uint32_t position, uint32_t length) {
    const uint32_t mask = shifted_left(low_bits(length & 255), position & 255);
    return (into & ~mask) | (shifted_left(field, position & 255) & mask);
}

uint32_t reversed(uint32_t x) {
    uint32_t made = 0;
    for (int bit = 0; bit < 32; ++bit) made |= (x >> bit & 1) << (31 - bit);
    return made;
}

// Rounded towards zero; what does not fit is the nearest that does. NaN is 2^31, where the ISA before 9.0 has 0.
uint32_t to_unsigned(double x) {
    if (std::isnan(x)) return uint32_t(1) << 31;
    if (!(x > 0)) return 0;
    return x < 4294967295.0 ? static_cast<uint32_t>(x) : 4294967295u;
}

uint16_t to_half(float x) { return std::isnan(x) ? 0x7FFF : _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT); }

float flushed(float x) { return std::fabs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x; }

// The ISA allows an absolute error of 2^-23 for operands from 1 to 2. An error of a unit in the last place of the
// rounded result, which the settings choose, is always within that; two units may not be.
float approximate_reciprocal(float x) {
    const float exact = 1 / flushed(x);
    if (std::isnan(exact) || std::isinf(exact) || exact == 0) return canonical(exact);
    Slot bits;
    set(bits, exact);
    return flushed(get<float>(bits + static_cast<uint64_t>(static_cast<int64_t>(reciprocal_error()))));
}

using Table = std::map<std::string, Operation>;

// An entry computes `result` of type D from x, y and z, the sources, of type T. `at` is the instruction.
#define ENTRY(opcode, D, T, result)                                                        \
    made[opcode] = [](Slot* registers, const Instruction& at) {                            \
        [[maybe_unused]] const T x = get<T>(registers[at.a]), y = get<T>(registers[at.b]); \
        [[maybe_unused]] const T z = get<T>(registers[at.c]);                              \
        set<D>(registers[at.d], static_cast<D>(result));                                   \
    };
#define SAME(opcode, T, result) ENTRY(opcode, T, T, result)
#define TEST(opcode, T, result) ENTRY("setp." opcode, bool, T, result)

// The source of shifts that says how far is 32 bits wide.
#define SHIFT(opcode, T, function) ENTRY(opcode, T, T, function(x, get<uint32_t>(registers[at.b])))

void add_floats(Table& made) {
#define FLOATS(suffix, T)                                  \
    SAME("add.rn" suffix, T, canonical(x + y))             \
    SAME("mul.rn" suffix, T, canonical(x* y))              \
    SAME("div.rn" suffix, T, canonical(x / y))             \
    SAME("fma.rn" suffix, T, canonical(std::fma(x, y, z))) \
    SAME("copysign" suffix, T, std::copysign(y, x))        \
    SAME("neg" suffix, T, canonical(-x))                   \
    TEST("eq" suffix, T, x == y)                           \
    TEST("gt" suffix, T, x > y)                            \
    TEST("lt" suffix, T, x < y)                            \
    TEST("le" suffix, T, x <= y)                           \
    TEST("geu" suffix, T, !(x < y))                        \
    TEST("gtu" suffix, T, !(x <= y))                       \
    TEST("leu" suffix, T, !(x > y))                        \
    TEST("neu" suffix, T, !(x == y))
    FLOATS(".f32", float)
    FLOATS(".f64", double)
#undef FLOATS
    SAME("abs.f64", double, std::isnan(x) ? x : std::fabs(x))
    SAME("rcp.rn.f64", double, 1 / x)
    SAME("rcp.approx.ftz.f32", float, approximate_reciprocal(x))
}

void add_integers(Table& made) {
    SAME("add.s32", uint32_t, x + y)
    SAME("add.s64", uint64_t, x + y)
    SAME("sub.s32", uint32_t, x - y)
    SAME("sub.s64", uint64_t, x - y)
    SAME("mul.lo.s32", uint32_t, x* y)
    SAME("mul.lo.s64", uint64_t, x* y)
    SAME("mad.lo.s32", uint32_t, x* y + z)
    SAME("mad.lo.s64", uint64_t, x* y + z)
    ENTRY("mul.wide.s32", int64_t, int32_t, int64_t(x) * y)
    ENTRY("mul.wide.u32", uint64_t, uint32_t, uint64_t(x) * y)
    SAME("div.s32", int32_t, quotient(x, y, at))
    SAME("div.s64", int64_t, quotient(x, y, at))
    SAME("div.u32", uint32_t, quotient(x, y, at))
    SAME("div.u64", uint64_t, quotient(x, y, at))
    SAME("rem.s32", int32_t, remainder(x, y, at))
    SAME("rem.s64", int64_t, remainder(x, y, at))
    SAME("rem.u32", uint32_t, remainder(x, y, at))
    SAME("neg.s32", uint32_t, 0 - x)
    SAME("neg.s64", uint64_t, 0 - x)
    SAME("max.s32", int32_t, x > y ? x : y)
    SAME("max.s64", int64_t, x > y ? x : y)
    SAME("max.u64", uint64_t, x > y ? x : y)
    SAME("min.s32", int32_t, x < y ? x : y)
    SAME("min.s64", int64_t, x < y ? x : y)
    SAME("min.u64", uint64_t, x < y ? x : y)
    TEST("eq.b32", uint32_t, x == y)
    TEST("eq.b64", uint64_t, x == y)
    TEST("eq.s16", int16_t, x == y)
    TEST("eq.s32", int32_t, x == y)
    TEST("eq.s64", int64_t, x == y)
    TEST("ne.s16", int16_t, x != y)
    TEST("ne.s32", int32_t, x != y)
    TEST("ne.s64", int64_t, x != y)
    TEST("ge.s32", int32_t, x >= y)
    TEST("ge.s64", int64_t, x >= y)
    TEST("gt.s32", int32_t, x > y)
    TEST("gt.s64", int64_t, x > y)
    TEST("gt.u32", uint32_t, x > y)
    TEST("gt.u64", uint64_t, x > y)
    TEST("le.s32", int32_t, x <= y)
    TEST("le.s64", int64_t, x <= y)
    TEST("lt.s32", int32_t, x < y)
    TEST("lt.s64", int64_t, x < y)
    TEST("lt.u32", uint32_t, x < y)
    TEST("lt.u64", uint64_t, x < y)
}

void add_bits(Table& made) {
#define BITS(suffix, T)          \
    SAME("and" suffix, T, x& y)  \
    SAME("or" suffix, T, x | y)  \
    SAME("xor" suffix, T, x ^ y) \
    SAME("not" suffix, T, ~x)    \
    SHIFT("shl" suffix, T, shifted_left)
    BITS(".b32", uint32_t)
    BITS(".b64", uint64_t)
#undef BITS
    SAME("and.b16", uint16_t, x& y)
    SAME("or.b16", uint16_t, x | y)
    SAME("and.pred", uint8_t, x& y)
    SAME("or.pred", uint8_t, x | y)
    SAME("xor.pred", uint8_t, (x ^ y) & 1)
    SAME("not.pred", uint8_t, ~x & 1)
    SHIFT("shr.s32", int32_t, shifted_right)
    SHIFT("shr.s64", int64_t, shifted_right)
    SHIFT("shr.u32", uint32_t, shifted_right)
    SHIFT("shr.u64", uint64_t, shifted_right)
    SAME("bfe.u32", uint32_t, extracted(x, y, z))
    SAME("bfi.b32", uint32_t, inserted(x, y, z, get<uint32_t>(registers[at.e])))
    SAME("brev.b32", uint32_t, reversed(x))
    SAME("popc.b32", uint32_t, __builtin_popcount(x))
    ENTRY("popc.b64", uint32_t, uint64_t, __builtin_popcountll(x))
    ENTRY("clz.b64", uint32_t, uint64_t, x ? __builtin_clzll(x) : 64)
    SAME("bfind.shiftamt.u32", uint32_t, x ? __builtin_clz(x) : ~0)
}

void add_moves(Table& made) {
#define MOVES(suffix, T)     \
    SAME("mov" suffix, T, x) \
    SAME("selp" suffix, T, (registers[at.c] & 1) ? x : y)
    MOVES(".b16", uint16_t)
    MOVES(".u16", uint16_t)
    MOVES(".b32", uint32_t)
    MOVES(".u32", uint32_t)
    MOVES(".f32", uint32_t)
    MOVES(".b64", uint64_t)
    MOVES(".u64", uint64_t)
    MOVES(".f64", uint64_t)
#undef MOVES
    ENTRY("mov.pred", uint8_t, uint64_t, x != 0)  // a constant that is true is -1
    SAME("cvta.to.global.u64", uint64_t, x)       // a generic address is a global one here
    ENTRY("cvt.s64.s32", int64_t, int32_t, x)
    ENTRY("cvt.u64.u32", uint64_t, uint32_t, x)
    ENTRY("cvt.u32.u64", uint32_t, uint64_t, x)
    ENTRY("cvt.u16.u32", uint16_t, uint32_t, x)
    ENTRY("cvt.u32.u16", uint32_t, uint16_t, x)
    ENTRY("cvt.f64.f32", double, float, x)
    ENTRY("cvt.rn.f32.f64", float, double, canonical(static_cast<float>(x)))
    ENTRY("cvt.rn.f32.s32", float, int32_t, x)
    ENTRY("cvt.f32.f16", float, uint16_t, canonical(_cvtsh_ss(x)))
    ENTRY("cvt.rn.f16.f32", uint16_t, float, to_half(x))
    ENTRY("cvt.rzi.u32.f64", uint32_t, double, to_unsigned(x))
    SAME("cvt.rpi.f64.f64", double, std::ceil(x))
}

}  // namespace

const std::map<std::string, Operation>& operations() {
    static const Table table = [] {
        Table made;
        add_floats(made);
        add_integers(made);
        add_bits(made);
        add_moves(made);
        return made;
    }();
    return table;
}

void unpack(Slot* registers, const Instruction& at) {
    const Slot x = registers[at.a], low = (Slot(1) << 8 * at.bytes) - 1;
    registers[at.elements[0]] = x & low;
    registers[at.elements[1]] = x >> 8 * at.bytes & low;
}

void pack(Slot* registers, const Instruction& at) {
    const Slot low = (Slot(1) << 8 * at.bytes) - 1;
    registers[at.d] = (registers[at.elements[0]] & low) | (registers[at.elements[1]] & low) << 8 * at.bytes;
}

}  // namespace ptx
