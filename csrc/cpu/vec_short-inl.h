// Value type Shorts: one register of 16-bit integers, for integer-inl.h. Included by kernels.cpp inside its namespace;
// the compiler's vector types provide all but two of its operations for each ISA.

#if defined(SRCELL_ISA_avx512)
constexpr int kShortBytes = 64;
#elif defined(SRCELL_ISA_avx2)
constexpr int kShortBytes = 32;
#else
constexpr int kShortBytes = 16;
#endif
constexpr int64_t kShortLanes = kShortBytes / 2;
using Shorts = int16_t __attribute__((vector_size(kShortBytes)));
using Ints = int32_t __attribute__((vector_size(2 * kShortBytes)));
using Floats = float __attribute__((vector_size(2 * kShortBytes)));
using Bytes = uint8_t __attribute__((vector_size(kShortBytes / 2)));

// Writes the first `lanes` of a register, converted to another type.
template <class Values, class T>
SRCELL_INLINE void store_converted_as(T* to, Shorts x, int64_t lanes) {
    const Values made = __builtin_convertvector(x, Values);
    if (lanes >= kShortLanes)
        __builtin_memcpy(to, &made, sizeof made);
    else
        std::memcpy(to, &made, static_cast<size_t>(lanes) * sizeof(T));
}
SRCELL_INLINE void store_converted(float* to, Shorts x, int64_t lanes) { store_converted_as<Floats>(to, x, lanes); }
SRCELL_INLINE void store_converted(uint8_t* to, Shorts x, int64_t lanes) { store_converted_as<Bytes>(to, x, lanes); }

template <class V>
SRCELL_INLINE V splat_integer(int32_t n) {
    return static_cast<int16_t>(n) - V{};
}

#if defined(SRCELL_ISA_avx512)
SRCELL_INLINE Shorts add_saturated(Shorts x, Shorts y) {
    return reinterpret_cast<Shorts>(_mm512_adds_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
}
SRCELL_INLINE Shorts multiply_high(Shorts x, Shorts y) {
    return reinterpret_cast<Shorts>(_mm512_mulhi_epi16(reinterpret_cast<__m512i>(x), reinterpret_cast<__m512i>(y)));
}
#elif defined(SRCELL_ISA_avx2)
SRCELL_INLINE Shorts add_saturated(Shorts x, Shorts y) {
    return reinterpret_cast<Shorts>(_mm256_adds_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
}
SRCELL_INLINE Shorts multiply_high(Shorts x, Shorts y) {
    return reinterpret_cast<Shorts>(_mm256_mulhi_epi16(reinterpret_cast<__m256i>(x), reinterpret_cast<__m256i>(y)));
}
#else
#if defined(SRCELL_ISA_neon)
SRCELL_INLINE Shorts add_saturated(Shorts x, Shorts y) {
    return reinterpret_cast<Shorts>(vqaddq_s16(reinterpret_cast<int16x8_t>(x), reinterpret_cast<int16x8_t>(y)));
}
#else
SRCELL_INLINE Shorts add_saturated(Shorts x, Shorts y) {
    using Unsigned = uint16_t __attribute__((vector_size(kShortBytes)));  // unsigned, because its sums may wrap around
    const Shorts most = splat_integer<Shorts>(INT16_MAX), least = splat_integer<Shorts>(INT16_MIN);
    const Shorts sum = reinterpret_cast<Shorts>(reinterpret_cast<Unsigned>(x) + reinterpret_cast<Unsigned>(y));
    return (~(x ^ y) & (x ^ sum)) < Shorts{} ? (x < Shorts{} ? least : most) : sum;
}
#endif
SRCELL_INLINE Shorts multiply_high(Shorts x, Shorts y) {
    return __builtin_convertvector(__builtin_convertvector(x, Ints) * __builtin_convertvector(y, Ints) >> 16, Shorts);
}
#endif

SRCELL_INLINE Shorts load_shorts(const int16_t* from) {
    Shorts x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
}

SRCELL_INLINE void store_shorts(int16_t* to, Shorts x) { __builtin_memcpy(to, &x, sizeof x); }
