// The derivative that stands for that of an integer neuron's spike in training. V is a value type as in cell.h;
// included by each backend inside its own namespace, after vmath.h.

// How steep the tanh is that stands for the ramp, over the ramp itself. With 1 a neuron that is far from firing hardly
// learns: flatter is better, as docs/training.md shows.
constexpr float kSteepness = 0.2f;

template <class V>
struct IntegerSurrogate {
    V slope, unit;  // of h as a function of u, and what u is multiplied by in the tanh
    V range;        // of i: as rho in the float neuron, for i as an integer
};

template <class V>
SRCELL_INLINE IntegerSurrogate<V> make_surrogate(const IntegerCell& cell, scalar_of<V> rho, scalar_of<V> scale) {
    using T = scalar_of<V>;
    const V slope = splat<V>(T(cell.slope)) / splat<V>(T(1 << cell.slope_shift));
    const V unit = splat<V>(T(kSteepness)) * slope / splat<V>(T(1 << cell.fraction_bits));
    return {slope, unit, splat<V>(rho) * splat<V>(scale)};
}

// ds/da: dh/du as slope times 1 - tanh^2 of kSteepness * slope * u, u as a number over 2^fraction_bits, times dx/di as
// that of tanh(i / range).
template <class V>
SRCELL_INLINE V integer_slope(const IntegerSurrogate<V>& surrogate, V i, V u) {
    const V one = splat<V>(1);
    const V fast = tanh(u * surrogate.unit), drive = tanh(i / surrogate.range);
    return surrogate.slope * fma(negate(fast), fast, one) * (fma(negate(drive), drive, one) / surrogate.range);
}
