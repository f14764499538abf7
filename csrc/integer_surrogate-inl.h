// The surrogate gradient of an integer neuron's spike, for training. V is a value type as in cell-inl.h. Each
// backend includes this file inside its own namespace, after vmath-inl.h.

// The steepness of the tanh that replaces the ramp h(u), relative to the ramp. With a steepness of 1 a neuron that is
// far from firing hardly learns. A flatter tanh trains better than that, as docs/training.md shows.
constexpr float kSteepness = 0.2f;

template <class V>
struct IntegerSurrogate {
    V slope, unit;  // slope: that of h as a function of u; unit: the factor of u inside the tanh
    V range;        // of the integer i; plays the role of rho in the float neuron
};

template <class V>
SRCELL_INLINE IntegerSurrogate<V> make_surrogate(const IntegerCell& cell, scalar_of<V> rho, scalar_of<V> scale) {
    using T = scalar_of<V>;
    const V slope = splat<V>(T(cell.slope)) / splat<V>(T(1 << cell.slope_shift));
    const V unit = splat<V>(T(kSteepness)) * slope / splat<V>(T(1 << cell.fraction_bits));
    return {slope, unit, splat<V>(rho) * splat<V>(scale)};
}

// ds/da = dh/du * dx/di. dh/du is the slope times 1 - tanh^2 of kSteepness * slope * u, with u as a number over
// 2^fraction_bits; dx/di is the derivative of tanh(i / range).
template <class V>
SRCELL_INLINE V integer_slope(const IntegerSurrogate<V>& surrogate, V i, V u) {
    const V one = splat<V>(1);
    const V fast = tanh(u * surrogate.unit), drive = tanh(i / surrogate.range);
    return surrogate.slope * fma(negate(fast), fast, one) * (fma(negate(drive), drive, one) / surrogate.range);
}
