// Each operation of operations.cpp as a kernel of one instruction, against the host's own arithmetic. Linked with the
// emulator it tests the emulator; linked with CUDA's runtime, on a GPU, it tests what is expected here.
//
//     ptx_operations    prints the operations that it has tried; fails, and prints the operands, where one differs
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

// Not unnamed: nvcc writes kernels of an unnamed namespace in another form than srcell's.
namespace operations {

template <class T>
struct Operands {
    const T *x, *y, *z;
    int count;
};

template <class Operation>
struct Work {
    Operands<typename Operation::Source> given;
    typename Operation::Result* results;
};

template <class Operation>
__global__ void apply(const Work<Operation> work) {
    const int n = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
    if (n < work.given.count) work.results[n] = Operation::of(work.given.x[n], work.given.y[n], work.given.z[n]);
}

template <class To, class From>
To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

// The NaN that float32 arithmetic makes.
float canonical(float x) { return std::isnan(x) ? bits<float>(uint32_t(0x7FFFFFFF)) : x; }
double canonical(double x) { return x; }

template <class T>
std::enable_if_t<std::is_integral<T>::value, std::vector<T>> special() {
    std::vector<T> made = {0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127};
    for (const T x : {std::numeric_limits<T>::min(), std::numeric_limits<T>::max(), T(-1), T(-2), T(-7)}) {
        made.push_back(x);
        made.push_back(T(x / 2));
        made.push_back(T(x / 3));
    }
    return made;
}

template <class T>
std::enable_if_t<std::is_floating_point<T>::value, std::vector<T>> special() {
    using Limits = std::numeric_limits<T>;
    std::vector<T> made = {0,
                           1,
                           T(1) / 3,
                           1.5,
                           2.5,
                           Limits::min(),
                           Limits::max(),
                           100,
                           65504,
                           65520,
                           5.96e-8f,
                           T(1e-7),
                           Limits::denorm_min(),
                           Limits::min() / 3,
                           1e30,
                           2147483648.0,
                           4294967295.0,
                           4294967296.0,
                           Limits::infinity(),
                           Limits::epsilon()};
    for (size_t n = made.size(); n-- > 0;) made.push_back(-made[n]);
    made.push_back(Limits::quiet_NaN());
    made.push_back(-Limits::quiet_NaN());
    return made;
}

// Any bits; of floats most are far from 1, so every second is near it.
template <class T>
T random_of(std::mt19937_64& random, bool near) {
    const uint64_t word = random();
    if (std::is_floating_point<T>::value && near) return T(std::ldexp(double(int64_t(word)), -61));
    T made;
    std::memcpy(&made, &word, sizeof made);
    return made;
}

// Whether a result is what is expected, bit for bit; a NaN whose bits are not promised may be any.
template <class T>
bool same(T got, T expected) {
    if (std::memcmp(&got, &expected, sizeof got) == 0) return true;
    const bool promised = sizeof(T) == sizeof(float) && std::memcmp(&expected, "\xFF\xFF\xFF\x7F", sizeof(float)) == 0;
    return got != got && expected != expected && !promised;
}

int failed = 0;

void expect_success(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::printf("CUDA: %s\n", cudaGetErrorString(error));
    std::exit(2);
}

template <class T>
T* managed(const std::vector<T>& from) {
    void* made = nullptr;
    expect_success(cudaMallocManaged(&made, from.size() * sizeof(T), cudaMemAttachGlobal));
    std::memcpy(made, from.data(), from.size() * sizeof(T));
    return static_cast<T*>(made);
}

template <class Operation>
void check(const char* opcode) {
    using T = typename Operation::Source;
    std::vector<T> of[3];
    const auto add = [&](T x, T y, T z) {
        if (!Operation::defined(x, y, z)) return;
        of[0].push_back(x);
        of[1].push_back(y);
        of[2].push_back(z);
    };
    std::mt19937_64 random(1);
    const std::vector<T> chosen = special<T>();
    for (const T x : chosen)
        for (const T y : chosen) add(x, y, chosen[random() % chosen.size()]);
    for (int n = 0; n < 2000; ++n) {
        const T x = random_of<T>(random, n % 2), y = random_of<T>(random, n % 2), z = random_of<T>(random, n % 2);
        add(x, y, z);
    }
    const int count = static_cast<int>(of[0].size());
    T* const given[] = {managed(of[0]), managed(of[1]), managed(of[2])};
    using Result = typename Operation::Result;
    Result* const results = managed(std::vector<Result>(of[0].size()));
    apply<<<(count + 127) / 128, 128>>>(Work<Operation>{{given[0], given[1], given[2], count}, results});
    expect_success(cudaGetLastError());
    expect_success(cudaDeviceSynchronize());
    int wrong = 0;
    for (int n = 0; n < count; ++n) {
        const T x = of[0][n], y = of[1][n], z = of[2][n];
        if (Operation::agrees(results[n], x, y, z)) continue;
        if (++wrong <= 3)
            std::printf("%s: wrong for operand %d: %.17g, %.17g, %.17g: got %.17g\n", opcode, n, double(x), double(y),
                        double(z), double(results[n]));
    }
    failed += wrong > 0;
    std::printf("%s\n", opcode);
    for (T* operands : given) expect_success(cudaFree(operands));
    expect_success(cudaFree(results));
}

struct Registered {
    const char* opcode;
    void (*run)(const char*);
};
std::vector<Registered>& all() {
    static std::vector<Registered> made;
    return made;
}
struct Register {
    Register(const char* opcode, void (*run)(const char*)) { all().push_back({opcode, run}); }
};

// An operation on sources of type T, whose letter in an asm statement is `t`, that gives a D, of letter `d`.
#define OPERATION(opcode, name, D, d, T, t, assembly, is_defined, accepts)                      \
    struct name {                                                                               \
        using Result = D;                                                                       \
        using Source = T;                                                                       \
        __device__ static D of(T x, T y, T z) {                                                 \
            D made;                                                                             \
            asm(assembly : "=" d(made) : t(x), t(y), t(z));                                     \
            return made;                                                                        \
        }                                                                                       \
        static bool defined(T x, T y, T z) { return (void)x, (void)y, (void)z, is_defined; }    \
        static bool agrees(D got, T x, T y, T z) { return (void)x, (void)y, (void)z, accepts; } \
    };                                                                                          \
    const Register register_##name(opcode, check<name>);
#define NAMED(line, opcode, D, d, T, t, assembly, is_defined, accepts) \
    OPERATION(opcode, Operation##line, D, d, T, t, assembly, is_defined, accepts)
#define AT(line, ...) NAMED(line, __VA_ARGS__)

#define UNARY(opcode, D, d, T, t, expected) \
    AT(__COUNTER__, opcode, D, d, T, t, opcode " %0, %1;", true, same<D>(got, D(expected)))
#define BINARY(opcode, D, d, T, t, expected) \
    AT(__COUNTER__, opcode, D, d, T, t, opcode " %0, %1, %2;", true, same<D>(got, D(expected)))
#define TERNARY(opcode, D, d, T, t, expected) \
    AT(__COUNTER__, opcode, D, d, T, t, opcode " %0, %1, %2, %3;", true, same<D>(got, D(expected)))
// Its result is defined for some operands.
#define PARTIAL(opcode, T, t, is_defined, expected) \
    AT(__COUNTER__, opcode, T, t, T, t, opcode " %0, %1, %2;", is_defined, same<T>(got, T(expected)))
#define COMPARISON(opcode, T, t, expected)               \
    AT(__COUNTER__, "setp." opcode, uint32_t, "r", T, t, \
       "{ .reg .pred p; setp." opcode " p, %1, %2; selp.u32 %0, 1, 0, p; }", true, got == uint32_t(expected))
#define PREDICATES(opcode, instruction, expected)                                                                 \
    AT(__COUNTER__, opcode, uint32_t, "r", int32_t, "r",                                                          \
       "{ .reg .pred p, q; setp.gt.s32 p, %1, 5; setp.gt.s32 q, %2, 5; " instruction "; selp.u32 %0, 1, 0, p; }", \
       true, got == uint32_t(expected))

#define FLOATS(suffix, T, t)                                           \
    BINARY("add.rn" suffix, T, t, T, t, canonical(x + y))              \
    BINARY("mul.rn" suffix, T, t, T, t, canonical(x* y))               \
    BINARY("div.rn" suffix, T, t, T, t, canonical(x / y))              \
    TERNARY("fma.rn" suffix, T, t, T, t, canonical(std::fma(x, y, z))) \
    BINARY("copysign" suffix, T, t, T, t, std::copysign(y, x))         \
    UNARY("neg" suffix, T, t, T, t, -x)                                \
    COMPARISON("eq" suffix, T, t, x == y)                              \
    COMPARISON("gt" suffix, T, t, x > y)                               \
    COMPARISON("lt" suffix, T, t, x < y)                               \
    COMPARISON("le" suffix, T, t, x <= y)                              \
    COMPARISON("geu" suffix, T, t, x >= y || x != x || y != y)         \
    COMPARISON("gtu" suffix, T, t, x > y || x != x || y != y)          \
    COMPARISON("leu" suffix, T, t, x <= y || x != x || y != y)         \
    COMPARISON("neu" suffix, T, t, x<y || x> y || x != x || y != y)    \
    UNARY("mov" suffix, T, t, T, t, x)
FLOATS(".f32", float, "f")
FLOATS(".f64", double, "d")
UNARY("abs.f64", double, "d", double, "d", std::fabs(x))
UNARY("rcp.rn.f64", double, "d", double, "d", 1 / x)
UNARY("cvt.f64.f32", double, "d", float, "f", x)
UNARY("cvt.rn.f32.f64", float, "f", double, "d", canonical(float(x)))
UNARY("cvt.rn.f32.s32", float, "f", int32_t, "r", x)
UNARY("cvt.rpi.f64.f64", double, "d", double, "d", std::ceil(x))
UNARY("cvt.rzi.u32.f64", uint32_t, "r", double, "d",
      x != x  ? uint32_t(0x80000000)
      : x > 0 ? uint32_t(std::fmin(std::floor(x), 4294967295.0))
              : uint32_t(0))

// Half precision, by its definition: a number of steps of a power of two.
float of_half(uint16_t half) {
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    if (exponent == 31 && mantissa) return canonical(std::numeric_limits<float>::quiet_NaN());
    const float magnitude = exponent == 31 ? std::numeric_limits<float>::infinity()
                            : exponent     ? std::ldexp(float(1024 + mantissa), exponent - 25)
                                           : std::ldexp(float(mantissa), -24);
    return half >> 15 ? -magnitude : magnitude;
}
uint16_t to_half(float x) {
    if (x != x) return 0x7FFF;
    const auto sign = uint16_t(std::signbit(x) << 15);
    const float magnitude = std::fabs(x);
    if (magnitude >= 65520) return uint16_t(sign | 0x7C00);
    const int step = magnitude < 0x1p-14f ? -24 : std::ilogb(magnitude) - 10;
    const auto steps = int(std::nearbyint(std::ldexp(magnitude, -step)));
    return uint16_t(sign | (steps + ((step + 24) << 10)));
}
UNARY("cvt.f32.f16", float, "f", uint16_t, "h", of_half(x))
UNARY("cvt.rn.f16.f32", uint16_t, "h", float, "f", to_half(x))

// Within a unit in the last place; subnormal operands and results are 0.
bool is_near_reciprocal(float got, float x) {
    const float least = std::numeric_limits<float>::min();
    const float of = std::fabs(x) < least ? std::copysign(0.0f, x) : x, exact = 1 / of;
    if (exact != exact) return got != got;
    if (std::fabs(exact) < least) return std::fabs(got) <= least && std::signbit(got) == std::signbit(exact);
    if (std::isinf(exact)) return got == exact;
    return std::abs(bits<int32_t>(got) - bits<int32_t>(exact)) <= 1;
}
AT(__COUNTER__, "rcp.approx.ftz.f32", float, "f", float, "f", "rcp.approx.ftz.f32 %0, %1;", true,
   is_near_reciprocal(got, x))

#define SIGNED(width, T, t)                                                        \
    BINARY("add.s" width, T, t, T, t, uint64_t(x) + uint64_t(y))                   \
    BINARY("sub.s" width, T, t, T, t, uint64_t(x) - uint64_t(y))                   \
    BINARY("mul.lo.s" width, T, t, T, t, uint64_t(x) * uint64_t(y))                \
    TERNARY("mad.lo.s" width, T, t, T, t, uint64_t(x) * uint64_t(y) + uint64_t(z)) \
    PARTIAL("div.s" width, T, t, y != 0, y == -1 ? T(0 - uint64_t(x)) : T(x / y))  \
    PARTIAL("rem.s" width, T, t, y != 0, y == -1 ? T(0) : T(x % y))                \
    UNARY("neg.s" width, T, t, T, t, 0 - uint64_t(x))                              \
    BINARY("max.s" width, T, t, T, t, x < y ? y : x)                               \
    BINARY("min.s" width, T, t, T, t, y < x ? y : x)                               \
    COMPARISON("eq.s" width, T, t, x == y)                                         \
    COMPARISON("ne.s" width, T, t, x != y)                                         \
    COMPARISON("ge.s" width, T, t, x >= y)                                         \
    COMPARISON("gt.s" width, T, t, x > y)                                          \
    COMPARISON("le.s" width, T, t, x <= y)                                         \
    COMPARISON("lt.s" width, T, t, x < y)
SIGNED("32", int32_t, "r")
SIGNED("64", int64_t, "l")
COMPARISON("eq.s16", int16_t, "h", x == y)
COMPARISON("ne.s16", int16_t, "h", x != y)
COMPARISON("gt.u32", uint32_t, "r", x > y)
COMPARISON("lt.u32", uint32_t, "r", x < y)
COMPARISON("gt.u64", uint64_t, "l", x > y)
COMPARISON("lt.u64", uint64_t, "l", x < y)
PARTIAL("div.u32", uint32_t, "r", y != 0, x / y)
PARTIAL("div.u64", uint64_t, "l", y != 0, x / y)
PARTIAL("rem.u32", uint32_t, "r", y != 0, x % y)
BINARY("max.u64", uint64_t, "l", uint64_t, "l", x < y ? y : x)
BINARY("min.u64", uint64_t, "l", uint64_t, "l", y < x ? y : x)
BINARY("mul.wide.s32", int64_t, "l", int32_t, "r", int64_t(x) * y)
BINARY("mul.wide.u32", uint64_t, "l", uint32_t, "r", uint64_t(x) * y)

// Either of two sources, by whether z is positive.
#define SELECTED(suffix, T, t, compared, zero)                                                       \
    AT(__COUNTER__, "selp" suffix, T, t, T, t,                                                       \
       "{ .reg .pred p; setp.gt" compared " p, %3, " zero "; selp" suffix " %0, %1, %2, p; }", true, \
       same<T>(got, z > 0 ? x : y))
SELECTED(".f32", float, "f", ".f32", "0f00000000")
SELECTED(".f64", double, "d", ".f64", "0d0000000000000000")
SELECTED(".b32", int32_t, "r", ".s32", "0")
SELECTED(".u32", int32_t, "r", ".s32", "0")
SELECTED(".b64", int64_t, "l", ".s64", "0")
SELECTED(".u64", int64_t, "l", ".s64", "0")
#define CHOSEN(opcode)                                    \
    AT(__COUNTER__, opcode, uint16_t, "h", uint16_t, "h", \
       "{ .reg .pred p; setp.ne.s16 p, %3, 0; " opcode " %0, %1, %2, p; }", true, got == (z ? x : y))
CHOSEN("selp.b16")
CHOSEN("selp.u16")

#define BITS(width, T, t)                   \
    BINARY("and.b" width, T, t, T, t, x& y) \
    BINARY("or.b" width, T, t, T, t, x | y) \
    UNARY("mov.b" width, T, t, T, t, x)     \
    UNARY("mov.u" width, T, t, T, t, x)
BITS("16", uint16_t, "h")
BITS("32", uint32_t, "r")
BITS("64", uint64_t, "l")
#define WIDE_BITS(width, T, t)               \
    BINARY("xor.b" width, T, t, T, t, x ^ y) \
    UNARY("not.b" width, T, t, T, t, ~x)     \
    COMPARISON("eq.b" width, T, t, x == y)
WIDE_BITS("32", uint32_t, "r")
WIDE_BITS("64", uint64_t, "l")

// Shifts by 32 bits' worth of steps; from the width on nothing is left but the sign.
#define SHIFT_32(opcode, T, expected, past) BINARY(opcode, T, "r", T, "r", uint32_t(y) < 32 ? T(expected) : T(past))
#define SHIFT_64(opcode, T, expected, past)                                                                    \
    AT(__COUNTER__, opcode, T, "l", T, "l", "{ .reg .b32 s; cvt.u32.u64 s, %2; " opcode " %0, %1, s; }", true, \
       got == (uint32_t(y) < 64 ? T(expected) : T(past)))
SHIFT_32("shl.b32", uint32_t, x << y, 0)
SHIFT_32("shr.u32", uint32_t, x >> y, 0)
SHIFT_32("shr.s32", int32_t, x >> y, x < 0 ? -1 : 0)
SHIFT_64("shl.b64", uint64_t, x << uint32_t(y), 0)
SHIFT_64("shr.u64", uint64_t, x >> uint32_t(y), 0)
SHIFT_64("shr.s64", int64_t, x >> uint32_t(y), x < 0 ? -1 : 0)

// Fields of bits, one by one: bit k of a field of `length` bits at `position`.
uint32_t field_of(uint32_t x, uint32_t position, uint32_t length) {
    uint32_t made = 0;
    for (uint32_t k = 0; k < 32; ++k)
        if (k < length && position + k < 32) made |= (x >> (position + k) & 1) << k;
    return made;
}
uint32_t with_field(uint32_t field, uint32_t x, uint32_t position, uint32_t length) {
    for (uint32_t k = position; k < 32 && k < position + length; ++k)
        x = (x & ~(uint32_t(1) << k)) | (field >> (k - position) & 1) << k;
    return x;
}
uint32_t turned(uint32_t x) {
    uint32_t made = 0;
    for (int k = 0; k < 32; ++k) made = made << 1 | (x >> k & 1);
    return made;
}
int ones(uint64_t x) {
    int made = 0;
    for (; x; x &= x - 1) ++made;
    return made;
}
int zeros_above(uint64_t x, int width) {
    int made = 0;
    while (made < width && !(x >> (width - 1 - made) & 1)) ++made;
    return made;
}
TERNARY("bfe.u32", uint32_t, "r", uint32_t, "r", field_of(x, y & 255, z & 255))
AT(__COUNTER__, "bfi.b32", uint32_t, "r", uint32_t, "r",
   "{ .reg .b32 length; shr.u32 length, %3, 8; bfi.b32 %0, %1, %2, %3, length; }", true,
   got == with_field(x, y, z & 255, z >> 8 & 255))
UNARY("brev.b32", uint32_t, "r", uint32_t, "r", turned(x))
UNARY("popc.b32", uint32_t, "r", uint32_t, "r", ones(x))
UNARY("popc.b64", uint32_t, "r", uint64_t, "l", ones(x))
UNARY("clz.b64", uint32_t, "r", uint64_t, "l", zeros_above(x, 64))
UNARY("bfind.shiftamt.u32", uint32_t, "r", uint32_t, "r", x ? zeros_above(x, 32) : -1)

UNARY("cvt.s64.s32", int64_t, "l", int32_t, "r", x)
UNARY("cvt.u64.u32", uint64_t, "l", uint32_t, "r", x)
UNARY("cvt.u32.u64", uint32_t, "r", uint64_t, "l", x)
UNARY("cvt.u16.u32", uint16_t, "h", uint32_t, "r", x)
UNARY("cvt.u32.u16", uint32_t, "r", uint16_t, "h", x)
UNARY("cvta.to.global.u64", uint64_t, "l", uint64_t, "l", x)

PREDICATES("and.pred", "and.pred p, p, q", x > 5 && y > 5)
PREDICATES("or.pred", "or.pred p, p, q", x > 5 || y > 5)
PREDICATES("xor.pred", "xor.pred p, p, q", (x > 5) != (y > 5))
PREDICATES("not.pred", "not.pred p, q", y <= 5)
PREDICATES("mov.pred", "mov.pred p, -1; and.pred p, p, q", y > 5)

}  // namespace operations

int main() {
    using namespace operations;
    for (const Registered& operation : all()) operation.run(operation.opcode);
    return failed ? 1 : 0;
}
