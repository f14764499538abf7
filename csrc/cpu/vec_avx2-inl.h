// Value type F32x8: eight float32 lanes in AVX2 and FMA. Same names as vec_scalar-inl.h, which is included first.

struct F32x8 {
    __m256 v;
};

struct Mask8 {
    __m256 v;
};

SRCELL_INLINE __m256i first_lanes(int64_t lanes) {
    const int count = static_cast<int>(lanes < 0 ? 0 : lanes > 8 ? 8 : lanes);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

template <>
struct VecTraits<F32x8> {
    using scalar = float;
    static constexpr int width = 8;
    static SRCELL_INLINE F32x8 splat(float x) { return {_mm256_set1_ps(x)}; }
    static SRCELL_INLINE F32x8 load(const float* p) { return {_mm256_loadu_ps(p)}; }
    static SRCELL_INLINE F32x8 load_lanes(const float* p, int64_t lanes) {
        return lanes >= 8 ? load(p) : F32x8{_mm256_maskload_ps(p, first_lanes(lanes))};
    }
};

SRCELL_INLINE void store(float* p, F32x8 x) { _mm256_storeu_ps(p, x.v); }

SRCELL_INLINE void store_lanes(float* p, F32x8 x, int64_t lanes) {
    if (lanes >= 8) return store(p, x);
    _mm256_maskstore_ps(p, first_lanes(lanes), x.v);
}

SRCELL_INLINE F32x8 operator+(F32x8 a, F32x8 b) { return {_mm256_add_ps(a.v, b.v)}; }
SRCELL_INLINE F32x8 operator-(F32x8 a, F32x8 b) { return {_mm256_sub_ps(a.v, b.v)}; }
SRCELL_INLINE F32x8 operator*(F32x8 a, F32x8 b) { return {_mm256_mul_ps(a.v, b.v)}; }
SRCELL_INLINE F32x8 operator/(F32x8 a, F32x8 b) { return {_mm256_div_ps(a.v, b.v)}; }
SRCELL_INLINE F32x8 square_root(F32x8 x) { return {_mm256_sqrt_ps(x.v)}; }
SRCELL_INLINE F32x8 fma(F32x8 a, F32x8 b, F32x8 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
SRCELL_INLINE F32x8 negate(F32x8 x) { return {_mm256_xor_ps(x.v, _mm256_set1_ps(-0.0f))}; }
SRCELL_INLINE F32x8 absolute(F32x8 x) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), x.v)}; }
// The instruction returns its second operand if either is NaN, so NaN in x passes through.
SRCELL_INLINE F32x8 at_most(F32x8 x, F32x8 limit) { return {_mm256_min_ps(limit.v, x.v)}; }
SRCELL_INLINE F32x8 at_least(F32x8 x, F32x8 limit) { return {_mm256_max_ps(limit.v, x.v)}; }
SRCELL_INLINE Mask8 less(F32x8 a, F32x8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
SRCELL_INLINE Mask8 less_equal(F32x8 a, F32x8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
SRCELL_INLINE Mask8 not_equal(F32x8 a, F32x8 b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
SRCELL_INLINE uint64_t lanes_of(Mask8 mask) { return static_cast<uint32_t>(_mm256_movemask_ps(mask.v)); }
SRCELL_INLINE F32x8 select(Mask8 mask, F32x8 yes, F32x8 no) { return {_mm256_blendv_ps(no.v, yes.v, mask.v)}; }

SRCELL_INLINE F32x8 with_sign_of(F32x8 x, F32x8 sign) {
    const __m256 sign_bit = _mm256_set1_ps(-0.0f);
    return {_mm256_or_ps(_mm256_andnot_ps(sign_bit, x.v), _mm256_and_ps(sign_bit, sign.v))};
}

SRCELL_INLINE F32x8 power_of_two(F32x8 n) {
    const __m256 biased = _mm256_add_ps(n.v, _mm256_set1_ps(0x1.8p+23f + 127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(biased), 23))};
}
