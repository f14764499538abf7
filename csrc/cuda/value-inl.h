// Value types of a GPU: a float or a double whose every operation states its rounding, so that no compiler flag can
// change the bits. The operations are those of a cpu/vec_*-inl.h header, one lane wide. Included by device.h inside its
// namespace; without nvcc it compiles for the host, where the tests run it. Knows nothing about the equations.

#if defined(__CUDA_ARCH__)
#define SRCELL_ON_DEVICE(device, host) device
#else
#define SRCELL_ON_DEVICE(device, host) host
#endif

template <class T>
struct Value {
    T x;
};

template <class V>
struct VecTraits;

template <class T>
struct VecTraits<Value<T>> {
    using scalar = T;
};

template <class V>
using scalar_of = typename VecTraits<V>::scalar;

template <class V>
SRCELL_INLINE V splat(scalar_of<V> x) {
    return {x};
}

#define SRCELL_VALUE_OPERATIONS(T, Bits, mantissa_bits, exponent_bias, add, mul, div, fused)                           \
    SRCELL_INLINE Value<T> operator+(Value<T> a, Value<T> b) { return {SRCELL_ON_DEVICE(add(a.x, b.x), a.x + b.x)}; }  \
    SRCELL_INLINE Value<T> operator-(Value<T> a, Value<T> b) { return {SRCELL_ON_DEVICE(add(a.x, -b.x), a.x - b.x)}; } \
    SRCELL_INLINE Value<T> operator*(Value<T> a, Value<T> b) { return {SRCELL_ON_DEVICE(mul(a.x, b.x), a.x * b.x)}; }  \
    SRCELL_INLINE Value<T> operator/(Value<T> a, Value<T> b) { return {SRCELL_ON_DEVICE(div(a.x, b.x), a.x / b.x)}; }  \
    SRCELL_INLINE Value<T> fma(Value<T> a, Value<T> b, Value<T> c) {                                                   \
        return {SRCELL_ON_DEVICE(fused(a.x, b.x, c.x), std::fma(a.x, b.x, c.x))};                                      \
    }                                                                                                                  \
    SRCELL_INLINE Bits bits_of(Value<T> v) {                                                                           \
        Bits bits;                                                                                                     \
        memcpy(&bits, &v.x, sizeof bits);                                                                              \
        return bits;                                                                                                   \
    }                                                                                                                  \
    SRCELL_INLINE Value<T> value_of(Bits bits) {                                                                       \
        Value<T> v;                                                                                                    \
        memcpy(&v.x, &bits, sizeof bits);                                                                              \
        return v;                                                                                                      \
    }                                                                                                                  \
    SRCELL_INLINE Value<T> negate(Value<T> v) { return {-v.x}; }                                                       \
    SRCELL_INLINE Value<T> absolute(Value<T> v) { return value_of(bits_of(v) & ~(Bits(1) << (sizeof(T) * 8 - 1))); }   \
    SRCELL_INLINE Value<T> at_most(Value<T> v, Value<T> limit) { return limit.x < v.x ? limit : v; }                   \
    SRCELL_INLINE Value<T> at_least(Value<T> v, Value<T> limit) { return limit.x > v.x ? limit : v; }                  \
    SRCELL_INLINE bool less(Value<T> a, Value<T> b) { return a.x < b.x; }                                              \
    SRCELL_INLINE bool not_equal(Value<T> a, Value<T> b) { return a.x != b.x; }                                        \
    SRCELL_INLINE bool less_equal(Value<T> a, Value<T> b) { return a.x <= b.x; }                                       \
    SRCELL_INLINE Value<T> select(bool mask, Value<T> yes, Value<T> no) { return mask ? yes : no; }                    \
    SRCELL_INLINE Value<T> with_sign_of(Value<T> v, Value<T> sign) {                                                   \
        constexpr Bits sign_bit = Bits(1) << (sizeof(T) * 8 - 1);                                                      \
        return value_of((bits_of(v) & ~sign_bit) | (bits_of(sign) & sign_bit));                                        \
    }                                                                                                                  \
    SRCELL_INLINE Value<T> power_of_two(Value<T> n) {                                                                  \
        constexpr T biased_round = T(Bits(3) << (mantissa_bits - 1)) + exponent_bias;                                  \
        return value_of(bits_of(n + splat<Value<T>>(biased_round)) << mantissa_bits);                                  \
    }

SRCELL_VALUE_OPERATIONS(float, uint32_t, 23, 127, __fadd_rn, __fmul_rn, __fdiv_rn, __fmaf_rn)
SRCELL_VALUE_OPERATIONS(double, uint64_t, 52, 1023, __dadd_rn, __dmul_rn, __ddiv_rn, __fma_rn)
#undef SRCELL_VALUE_OPERATIONS

SRCELL_INLINE int lowest_bit(uint64_t bits) {
    return SRCELL_ON_DEVICE(__ffsll(static_cast<long long>(bits)) - 1, __builtin_ctzll(bits));
}

SRCELL_INLINE int lowest_bit(uint32_t bits) {
    return SRCELL_ON_DEVICE(__ffs(static_cast<int>(bits)) - 1, __builtin_ctz(bits));
}

SRCELL_INLINE int count_bits(uint64_t bits) { return SRCELL_ON_DEVICE(__popcll(bits), __builtin_popcountll(bits)); }

SRCELL_INLINE int count_bits(uint32_t bits) { return SRCELL_ON_DEVICE(__popc(bits), __builtin_popcount(bits)); }

// 1 / b within two units in the last place.
SRCELL_INLINE Value<float> near_reciprocal(Value<float> b) {
#if defined(__CUDA_ARCH__)
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(b.x));
    return {r};
#else
    const uint32_t unit = bits_of(b) * 0x9E3779B9u >> 30;  // within two units, as a GPU's
    return value_of(bits_of(Value<float>{1 / b.x}) + unit - 2);
#endif
}

// One Newton step from r, an approximation of 1 / b.
SRCELL_INLINE Value<float> better_reciprocal(Value<float> b, Value<float> r) {
    return fma(fma(negate(b), r, splat<Value<float>>(1)), r, r);
}

// quotient() of vmath-inl.h. __fdiv_rn has a branch to a slow path, for ranges that do not occur in vmath-inl.h; this
// function has none. `above` is 1 / b or up to four units more. From `above` one Newton step gives 1 / b rounded to
// nearest for all but 56 significands of b, and two corrections give a / b rounded to nearest for all significands
// (tests/cpp/test_device.cpp).
SRCELL_INLINE Value<float> quotient_from(Value<float> above, Value<float> a, Value<float> b) {
    const Value<float> reciprocal = better_reciprocal(b, above), first = a * above;
    const Value<float> second = fma(fma(negate(b), first, a), reciprocal, first);
    return fma(fma(negate(b), second, a), reciprocal, second);
}

SRCELL_INLINE Value<float> quotient(Value<float> a, Value<float> b) {
    return quotient_from(value_of(bits_of(near_reciprocal(b)) + 2), a, b);
}
