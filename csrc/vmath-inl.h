// tanh, sigmoid, sine and cosine in explicit fused multiply-adds: the same operations in the same order on every
// backend.
//
// Included after a vec_*-inl.h header, inside the includer's namespace; works for every value type V of that header and
// knows nothing about the cell's equations. Constants come from tools/derive_vmath.py. Maximum errors
// (tests/test_vmath.py prints them):
//     float32  tanh 1.94 ulp, sigmoid 2.49 ulp (every float32, against float64)
//     float64  tanh and sigmoid below 3 ulp, sine and cosine 0.8 ulp (samples, against 60 and 80 digits)
// tanh is exactly odd and exactly +-1 when saturated; sigmoid is exactly 0 and 1 when saturated. NaN passes through.

template <class T>
struct MathConstants;

template <>
struct MathConstants<float> {
    static constexpr float log2_e = 0x1.715476p+0f;
    static constexpr float ln2_high = 0x1.62e43p-1f, ln2_low = -0x1.05c61p-29f;
    static constexpr int terms = 5;
    static constexpr float expm1[terms] = {0x1.fffffep-2f, 0x1.5554bp-3f, 0x1.555674p-5f, 0x1.122776p-7f,
                                           0x1.6bec04p-10f};
    static constexpr float round = 0x1.8p+23f;      // adding and subtracting it rounds to the nearest integer
    static constexpr float tanh_saturates = 9.5f;   // 1 - tanh is below half an ulp of 1
    static constexpr float sigmoid_saturates = 40;  // exp(-x) is below half an ulp of 1
    static constexpr float sigmoid_scale = 0x1p-64f, sigmoid_power = -64;
    static constexpr float exp_vanishes = 104.5f;  // exp(-x) is below half the smallest denormal
};

template <>
struct MathConstants<double> {
    static constexpr double log2_e = 0x1.71547652b82fep+0;
    static constexpr double ln2_high = 0x1.62e42fefa39efp-1, ln2_low = 0x1.abc9e3b39803fp-56;
    static constexpr int terms = 11;
    static constexpr double expm1[terms] = {0x1p-1,
                                            0x1.5555555555559p-3,
                                            0x1.555555555553fp-5,
                                            0x1.111111110f6dap-7,
                                            0x1.6c16c16c1f07bp-10,
                                            0x1.a01a01afd3daep-13,
                                            0x1.a01a017bc5708p-16,
                                            0x1.71ddf87ecb1fep-19,
                                            0x1.27e5362ec0cd3p-22,
                                            0x1.af5e74e711476p-26,
                                            0x1.1ee8834803336p-29};
    static constexpr double round = 0x1.8p+52;
    static constexpr double tanh_saturates = 20.0;
    static constexpr double sigmoid_saturates = 40;
    static constexpr double sigmoid_scale = 0x1p-500, sigmoid_power = -500;
    static constexpr double exp_vanishes = 746.0;
};

// x = power * ln(2) + r with |r| <= ln(2)/2, and expm1(r).
template <class V>
struct ReducedExp {
    V power, expm1;
};

// The polynomial's terms from k on: fma(fma(... , r, expm1[k + 1]), r, expm1[k]).
template <class V, int k>
SRCELL_INLINE V expm1_terms(V r) {
    using C = MathConstants<scalar_of<V>>;
    if constexpr (k == C::terms - 1)
        return splat<V>(C::expm1[k]);
    else
        return fma(expm1_terms<V, k + 1>(r), r, splat<V>(C::expm1[k]));
}

template <class V>
SRCELL_INLINE ReducedExp<V> reduce_exp(V x) {
    using C = MathConstants<scalar_of<V>>;
    const V round = splat<V>(C::round);
    const V power = fma(x, splat<V>(C::log2_e), round) - round;
    const V r = fma(power, splat<V>(-C::ln2_low), fma(power, splat<V>(-C::ln2_high), x));
    return {power, fma(r * r, expm1_terms<V, 0>(r), r)};
}

// The division in tanh and sigmoid. A backend may overload it with a shorter computation of the same bits, because b is
// in [1, 2] or a is a power of two.
template <class V>
SRCELL_INLINE V quotient(V a, V b) {
    return a / b;
}

// tanh(x) = -e / (e + 2) with e = expm1(-2 |x|): one division, and no cancellation near 0. e + 2 is computed from the
// parts of e: that takes one operation more and makes one rounding error less than computing it from e.
template <class V>
SRCELL_INLINE V tanh(V x) {
    using C = MathConstants<scalar_of<V>>;
    const V one = splat<V>(1);
    const ReducedExp<V> reduced = reduce_exp(splat<V>(-2) * at_most(absolute(x), splat<V>(C::tanh_saturates)));
    const V scale = power_of_two(reduced.power);
    const V e = fma(scale, reduced.expm1, scale - one);
    const V e_plus_two = fma(scale, reduced.expm1, scale + one);
    return with_sign_of(quotient(e, e_plus_two), x);
}

// sigmoid(x) = c / (c + c e) with e = exp(-x) and c a power of two. Thanks to the scale c, neither a huge e nor a
// denormal result needs a special case.
template <class V>
SRCELL_INLINE V sigmoid(V x) {
    using C = MathConstants<scalar_of<V>>;
    const V bounded = at_least(at_most(x, splat<V>(C::sigmoid_saturates)), splat<V>(-C::exp_vanishes));
    const ReducedExp<V> reduced = reduce_exp(negate(bounded));
    const V scale = splat<V>(C::sigmoid_scale);
    const V e = power_of_two(reduced.power + splat<V>(C::sigmoid_power));
    return quotient(scale, scale + fma(e, reduced.expm1, e));
}

template <class V>
struct SineCosine {
    V sine, cosine;
};

// sum of c[k] z^k
template <class V, int terms>
SRCELL_INLINE V polynomial(const double (&c)[terms], V z) {
    V sum = splat<V>(c[terms - 1]);
    for (int k = terms - 2; k >= 0; --k) sum = fma(sum, z, splat<V>(c[k]));
    return sum;
}

// Sine and cosine of |x| <= pi in float64, by Taylor's series of the distance to the nearest multiple of pi / 2. The
// distance has a tail: its rounding error would be the result's where that is near 0.
template <class V>
SRCELL_INLINE SineCosine<V> sine_cosine(V x) {
    constexpr double half_pi_high = 0x1.921fb54442d18p+0, half_pi_middle = 0x1.1a62633145c07p-54,
                     half_pi_low = -0x1.f1976b7ed8fbcp-110;
    constexpr double of_sine[] = {-0x1.5555555555555p-3,  0x1.1111111111111p-7,   -0x1.a01a01a01a01ap-13,
                                  0x1.71de3a556c734p-19,  -0x1.ae64567f544e4p-26, 0x1.6124613a86d09p-33,
                                  -0x1.ae7f3e733b81fp-41, 0x1.952c77030ad4ap-49};  // (-1)^k / (2 k + 1)!, k from 1 on
    constexpr double of_cosine[] = {0x1.5555555555555p-5,   -0x1.6c16c16c16c17p-10, 0x1.a01a01a01a01ap-16,
                                    -0x1.27e4fb7789f5cp-22, 0x1.1eed8eff8d898p-29,  -0x1.93974a8c07c9dp-37,
                                    0x1.ae7f3e733b81fp-45};  // (-1)^k / (2 k)!, k from 2 on
    const V one = splat<V>(1), half = splat<V>(0.5), round = splat<V>(MathConstants<double>::round);
    const V quarter = fma(x, splat<V>(0x1.45f306dc9c883p-1), round) - round, back = negate(quarter);
    const V high = fma(back, splat<V>(half_pi_high), x);  // exact
    const V r = fma(back, splat<V>(half_pi_middle), high);
    const V tail = fma(back, splat<V>(half_pi_low), fma(back, splat<V>(half_pi_middle), high - r));
    const V z = r * r, half_z = half * z, rest = one - half_z;
    const V s = r + fma(r * z, polynomial(of_sine, z), tail * rest);
    const V c = rest + (((one - rest) - half_z) + fma(z * z, polynomial(of_cosine, z), negate(r * tail)));
    // A multiple of pi / 2 away: the quarter is 0, 1 or -1, or 2 or -2.
    const auto away = not_equal(quarter, splat<V>(0)), by_one = less(absolute(quarter), splat<V>(2));
    const V swapped = select(by_one, with_sign_of(one, quarter), splat<V>(0));
    const V sine = select(by_one, c * swapped, negate(s)), cosine = select(by_one, negate(s) * swapped, negate(c));
    return {select(away, sine, s), select(away, cosine, c)};
}
