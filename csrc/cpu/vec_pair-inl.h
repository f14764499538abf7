// Value type Pair<V>: two registers that go through the same operations side by side. One step of the cell is a long
// chain of dependent operations; two interleaved chains hide each other's latency. Same names as vec_scalar-inl.h,
// which is included first, but for not_equal(), lanes_of() and square_root().

template <class V>
struct Pair {
    V a, b;
};

template <class M>
struct PairMask {
    M a, b;
};

template <class V>
struct VecTraits<Pair<V>> {
    using Half = VecTraits<V>;
    using scalar = typename Half::scalar;
    static constexpr int width = 2 * Half::width;
    static SRCELL_INLINE Pair<V> splat(scalar x) { return {Half::splat(x), Half::splat(x)}; }
    static SRCELL_INLINE Pair<V> load(const scalar* p) { return {Half::load(p), Half::load(p + Half::width)}; }
    static SRCELL_INLINE Pair<V> load_lanes(const scalar* p, int64_t lanes) {
        return {Half::load_lanes(p, lanes), Half::load_lanes(p + Half::width, lanes - Half::width)};
    }
};

template <class V>
SRCELL_INLINE void store(scalar_of<V>* p, const Pair<V>& x) {
    store(p, x.a);
    store(p + VecTraits<V>::width, x.b);
}

template <class V>
SRCELL_INLINE void store_lanes(scalar_of<V>* p, const Pair<V>& x, int64_t lanes) {
    store_lanes(p, x.a, lanes);
    store_lanes(p + VecTraits<V>::width, x.b, lanes - VecTraits<V>::width);
}

template <class V>
SRCELL_INLINE Pair<V> operator+(const Pair<V>& x, const Pair<V>& y) {
    return {x.a + y.a, x.b + y.b};
}

template <class V>
SRCELL_INLINE Pair<V> operator-(const Pair<V>& x, const Pair<V>& y) {
    return {x.a - y.a, x.b - y.b};
}

template <class V>
SRCELL_INLINE Pair<V> operator*(const Pair<V>& x, const Pair<V>& y) {
    return {x.a * y.a, x.b * y.b};
}

template <class V>
SRCELL_INLINE Pair<V> operator/(const Pair<V>& x, const Pair<V>& y) {
    return {x.a / y.a, x.b / y.b};
}

template <class V>
SRCELL_INLINE Pair<V> fma(const Pair<V>& x, const Pair<V>& y, const Pair<V>& z) {
    return {fma(x.a, y.a, z.a), fma(x.b, y.b, z.b)};
}

template <class V>
SRCELL_INLINE Pair<V> negate(const Pair<V>& x) {
    return {negate(x.a), negate(x.b)};
}

template <class V>
SRCELL_INLINE Pair<V> absolute(const Pair<V>& x) {
    return {absolute(x.a), absolute(x.b)};
}

template <class V>
SRCELL_INLINE Pair<V> at_most(const Pair<V>& x, const Pair<V>& limit) {
    return {at_most(x.a, limit.a), at_most(x.b, limit.b)};
}

template <class V>
SRCELL_INLINE Pair<V> at_least(const Pair<V>& x, const Pair<V>& limit) {
    return {at_least(x.a, limit.a), at_least(x.b, limit.b)};
}

template <class V>
SRCELL_INLINE auto less(const Pair<V>& x, const Pair<V>& y) {
    return PairMask<decltype(less(x.a, y.a))>{less(x.a, y.a), less(x.b, y.b)};
}

template <class V>
SRCELL_INLINE auto less_equal(const Pair<V>& x, const Pair<V>& y) {
    return PairMask<decltype(less_equal(x.a, y.a))>{less_equal(x.a, y.a), less_equal(x.b, y.b)};
}

template <class M, class V>
SRCELL_INLINE Pair<V> select(const PairMask<M>& mask, const Pair<V>& yes, const Pair<V>& no) {
    return {select(mask.a, yes.a, no.a), select(mask.b, yes.b, no.b)};
}

template <class V>
SRCELL_INLINE Pair<V> with_sign_of(const Pair<V>& x, const Pair<V>& sign) {
    return {with_sign_of(x.a, sign.a), with_sign_of(x.b, sign.b)};
}

template <class V>
SRCELL_INLINE Pair<V> power_of_two(const Pair<V>& n) {
    return {power_of_two(n.a), power_of_two(n.b)};
}
