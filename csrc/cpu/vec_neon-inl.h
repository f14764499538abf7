// Value type F32x4: four float32 lanes in NEON of AArch64. Same names as vec_scalar-inl.h, which is included first.

struct F32x4 {
    float32x4_t v;
};

struct Mask4 {
    uint32x4_t v;
};

template <>
struct VecTraits<F32x4> {
    using scalar = float;
    static constexpr int width = 4;
    static SRCELL_INLINE F32x4 splat(float x) { return {vdupq_n_f32(x)}; }
    static SRCELL_INLINE F32x4 load(const float* p) { return {vld1q_f32(p)}; }
    static SRCELL_INLINE F32x4 load_lanes(const float* p, int64_t lanes) {
        if (lanes >= 4) return load(p);
        float all[4] = {};
        for (int64_t k = 0; k < lanes; ++k) all[k] = p[k];
        return load(all);
    }
};

SRCELL_INLINE void store(float* p, F32x4 x) { vst1q_f32(p, x.v); }

SRCELL_INLINE void store_lanes(float* p, F32x4 x, int64_t lanes) {
    if (lanes >= 4) return store(p, x);
    float all[4];
    store(all, x);
    for (int64_t k = 0; k < lanes; ++k) p[k] = all[k];
}

SRCELL_INLINE F32x4 operator+(F32x4 a, F32x4 b) { return {vaddq_f32(a.v, b.v)}; }
SRCELL_INLINE F32x4 operator-(F32x4 a, F32x4 b) { return {vsubq_f32(a.v, b.v)}; }
SRCELL_INLINE F32x4 operator*(F32x4 a, F32x4 b) { return {vmulq_f32(a.v, b.v)}; }
SRCELL_INLINE F32x4 operator/(F32x4 a, F32x4 b) { return {vdivq_f32(a.v, b.v)}; }
SRCELL_INLINE F32x4 square_root(F32x4 x) { return {vsqrtq_f32(x.v)}; }
SRCELL_INLINE F32x4 fma(F32x4 a, F32x4 b, F32x4 c) { return {vfmaq_f32(c.v, a.v, b.v)}; }
SRCELL_INLINE F32x4 negate(F32x4 x) { return {vnegq_f32(x.v)}; }
SRCELL_INLINE F32x4 absolute(F32x4 x) { return {vabsq_f32(x.v)}; }
SRCELL_INLINE Mask4 less(F32x4 a, F32x4 b) { return {vcltq_f32(a.v, b.v)}; }
SRCELL_INLINE Mask4 less_equal(F32x4 a, F32x4 b) { return {vcleq_f32(a.v, b.v)}; }
SRCELL_INLINE Mask4 not_equal(F32x4 a, F32x4 b) { return {vmvnq_u32(vceqq_f32(a.v, b.v))}; }
SRCELL_INLINE F32x4 select(Mask4 mask, F32x4 yes, F32x4 no) { return {vbslq_f32(mask.v, yes.v, no.v)}; }
// Does not use vminq and vmaxq, because they order -0 below +0. As on the other ISAs, NaN in x passes through; if both
// operands are zeros, the result is x.
SRCELL_INLINE F32x4 at_most(F32x4 x, F32x4 limit) { return select(less(limit, x), limit, x); }
SRCELL_INLINE F32x4 at_least(F32x4 x, F32x4 limit) { return select(less(x, limit), limit, x); }

SRCELL_INLINE uint64_t lanes_of(Mask4 mask) {
    const uint32_t bits[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(mask.v, vld1q_u32(bits)));
}

SRCELL_INLINE F32x4 with_sign_of(F32x4 x, F32x4 sign) { return {vbslq_f32(vdupq_n_u32(0x80000000u), sign.v, x.v)}; }

SRCELL_INLINE F32x4 power_of_two(F32x4 n) {
    const float32x4_t biased = vaddq_f32(n.v, vdupq_n_f32(0x1.8p+23f + 127));
    return {vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(biased), 23))};
}
