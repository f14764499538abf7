// Value types float and double: the operations a kernel may use, one lane wide. Also serves float64 on every ISA.
// Included by kernels.cpp inside its namespace; every vec_*-inl.h of floats provides the same names.
//
// Partial loads and stores touch the first `lanes` elements only; lanes >= width means all, lanes <= 0 none.

template <class V>
struct VecTraits;

template <class V>
using scalar_of = typename VecTraits<V>::scalar;

template <class T>
struct ScalarTraits {
    using scalar = T;
    static constexpr int width = 1;
    static SRCELL_INLINE T splat(T x) { return x; }
    static SRCELL_INLINE T load(const T* p) { return *p; }
    static SRCELL_INLINE T load_lanes(const T* p, int64_t lanes) { return lanes > 0 ? *p : T(0); }
};

template <>
struct VecTraits<float> : ScalarTraits<float> {};

template <>
struct VecTraits<double> : ScalarTraits<double> {};

template <class V>
SRCELL_INLINE V splat(scalar_of<V> x) {
    return VecTraits<V>::splat(x);
}

template <class V>
SRCELL_INLINE V load(const scalar_of<V>* p) {
    return VecTraits<V>::load(p);
}

template <class V>
SRCELL_INLINE V load_lanes(const scalar_of<V>* p, int64_t lanes) {
    return VecTraits<V>::load_lanes(p, lanes);
}

// Bit k of the result is lane k of the mask.
SRCELL_INLINE uint64_t lanes_of(bool mask) { return mask; }

#define SRCELL_SCALAR_OPERATIONS(T, Bits, mantissa_bits, exponent_bias, fused, magnitude) \
    SRCELL_INLINE void store(T* p, T x) { *p = x; }                                       \
    SRCELL_INLINE void store_lanes(T* p, T x, int64_t lanes) {                            \
        if (lanes > 0) *p = x;                                                            \
    }                                                                                     \
    SRCELL_INLINE T fma(T a, T b, T c) { return fused(a, b, c); }                         \
    SRCELL_INLINE T negate(T x) { return -x; }                                            \
    SRCELL_INLINE T absolute(T x) { return magnitude(x); }                                \
    SRCELL_INLINE T at_most(T x, T limit) { return limit < x ? limit : x; }               \
    SRCELL_INLINE T at_least(T x, T limit) { return limit > x ? limit : x; }              \
    SRCELL_INLINE bool less(T a, T b) { return a < b; }                                   \
    SRCELL_INLINE bool less_equal(T a, T b) { return a <= b; }                            \
    SRCELL_INLINE bool not_equal(T a, T b) { return a != b; }                             \
    SRCELL_INLINE T select(bool mask, T yes, T no) { return mask ? yes : no; }            \
    SRCELL_INLINE Bits bits_of(T x) {                                                     \
        Bits bits;                                                                        \
        __builtin_memcpy(&bits, &x, sizeof bits);                                         \
        return bits;                                                                      \
    }                                                                                     \
    SRCELL_INLINE T from_bits(Bits bits) {                                                \
        T x;                                                                              \
        __builtin_memcpy(&x, &bits, sizeof x);                                            \
        return x;                                                                         \
    }                                                                                     \
    SRCELL_INLINE T with_sign_of(T x, T sign) {                                           \
        constexpr Bits sign_bit = Bits(1) << (sizeof(T) * 8 - 1);                         \
        return from_bits((bits_of(x) & ~sign_bit) | (bits_of(sign) & sign_bit));          \
    }                                                                                     \
    /* 2^n for a whole number n of at most a few hundred (float: from -126 to 127). */    \
    SRCELL_INLINE T power_of_two(T n) {                                                   \
        constexpr T biased_round = T(Bits(3) << (mantissa_bits - 1)) + exponent_bias;     \
        return from_bits(bits_of(n + biased_round) << mantissa_bits);                     \
    }

SRCELL_SCALAR_OPERATIONS(float, uint32_t, 23, 127, __builtin_fmaf, __builtin_fabsf)
SRCELL_SCALAR_OPERATIONS(double, uint64_t, 52, 1023, __builtin_fma, __builtin_fabs)
#undef SRCELL_SCALAR_OPERATIONS

SRCELL_INLINE float square_root(float x) { return __builtin_sqrtf(x); }
