// Reads and writes the elements of arrays: float and double directly; float16 and bfloat16 by conversion to float and
// back, rounded to nearest even. Included by device.h inside its namespace, after value-inl.h; knows nothing about
// kernels.

struct Float16 {
    uint16_t bits;
};

struct BFloat16 {
    uint16_t bits;
};

template <class T>
SRCELL_INLINE Value<T> get(const T* x) {
    return {*x};
}

template <class T>
SRCELL_INLINE void put(T* x, Value<T> value) {
    *x = value.x;
}

#if defined(__CUDA_ARCH__)

SRCELL_INLINE float float_of(Float16 x) { return __half2float(__ushort_as_half(x.bits)); }
SRCELL_INLINE Float16 float16_of(float x) { return {__half_as_ushort(__float2half_rn(x))}; }

#elif !defined(__CUDACC__)

SRCELL_INLINE float float_of(Float16 x) {
    const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
    const float magnitude = exponent == 31 ? (mantissa ? NAN : INFINITY)
                            : exponent     ? std::ldexp(static_cast<float>(1024 + mantissa), exponent - 25)
                                           : std::ldexp(static_cast<float>(mantissa), -24);
    return x.bits >> 15 ? -magnitude : magnitude;
}

SRCELL_INLINE Float16 float16_of(float x) {
    const auto sign = static_cast<uint16_t>(std::signbit(x) << 15);
    const float magnitude = std::fabs(x);
    if (std::isnan(x)) return {static_cast<uint16_t>(sign | 0x7E00)};
    if (magnitude >= 65520) return {static_cast<uint16_t>(sign | 0x7C00)};
    const int exponent = magnitude < 0x1p-14f ? -14 : std::ilogb(magnitude);
    const auto rounded = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
    // The mantissa is added to the exponent, so that a carry out of the mantissa increases the exponent.
    return {static_cast<uint16_t>(sign | (((exponent + 14) << 10) + rounded))};
}

#else  // nvcc's pass for the host, which never calls these

__device__ float float_of(Float16 x);
__device__ Float16 float16_of(float x);

#endif

SRCELL_INLINE Value<float> get(const Float16* x) { return {float_of(*x)}; }
SRCELL_INLINE void put(Float16* x, Value<float> value) { *x = float16_of(value.x); }

SRCELL_INLINE Value<float> get(const BFloat16* x) { return value_of(static_cast<uint32_t>(x->bits) << 16); }
SRCELL_INLINE void put(BFloat16* x, Value<float> value) {
    const uint32_t bits = bits_of(value), odd = bits >> 16 & 1;
    const bool nan = (bits & 0x7FFFFFFF) > 0x7F800000;
    *x = {static_cast<uint16_t>(nan ? 0x7FC0 : (bits + 0x7FFF + odd) >> 16)};
}
