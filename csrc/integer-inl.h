// The equations of the integer SRC, the neuron as hardware implements it, for one time step. All kernels of integer
// neurons call these functions.
//
// V is a value type: an int32_t, or a register of 16-bit integers; integer_cell_fault() in domains.h says which
// constants keep every value within 16 bits. The includer provides, for V, add_saturated(x, y), whose sum may saturate
// at the bounds of 16 bits; multiply_high(x, y), the product's bits from bit 16 on; and splat_integer<V>(n). Other
// operations are those of C++, for registers lane by lane. >> is an arithmetic shift, which rounds to minus infinity.
// Knows nothing about memory or threads.

// A factor in [0, 1.5): x is multiplied by part / 2^16 if `whole` is 0, and by 1 + part / 2^16 if all bits of `whole`
// are set.
template <class V>
struct IntegerFactor {
    V part, whole;
};

template <class V>
struct IntegerNeuron {
    int leak_shift_a, leak_shift_b;
    V i_max, drive_high, drive_low, gate_threshold, r, rs, bias, h_min, h_max, hs_min, hs_max, spike_threshold;
    IntegerFactor<V> zs_hyp, zs_dep, slope;
};

template <class V>
struct IntegerState {
    V i, h, hs;
};

// The factor n / 2^bits, for at most 16 bits.
template <class V>
SRCELL_INLINE IntegerFactor<V> integer_factor(int32_t n, int32_t bits) {
    const int32_t over = n << (16 - bits), whole = over > 32767;
    return {splat_integer<V>(whole ? over - 65536 : over), splat_integer<V>(-whole)};
}

template <class V>
SRCELL_INLINE IntegerNeuron<V> make_integer_neuron(const IntegerCell& cell) {
    return {cell.leak_shift_a,
            cell.leak_shift_b,
            splat_integer<V>(cell.i_max),
            splat_integer<V>(cell.drive_high),
            splat_integer<V>(cell.drive_low),
            splat_integer<V>(cell.gate_threshold),
            splat_integer<V>(cell.r),
            splat_integer<V>(cell.rs),
            splat_integer<V>(cell.bias),
            splat_integer<V>(cell.h_min),
            splat_integer<V>(cell.h_max),
            splat_integer<V>(cell.hs_min),
            splat_integer<V>(cell.hs_max),
            splat_integer<V>(cell.spike_threshold),
            integer_factor<V>(cell.zs_hyp, cell.fraction_bits),
            integer_factor<V>(cell.zs_dep, cell.fraction_bits),
            integer_factor<V>(cell.slope, cell.slope_shift)};
}

template <class V>
SRCELL_INLINE V integer_clamp(V x, V low, V high) {
    const V raised = x < low ? low : x;
    return raised > high ? high : raised;
}

// floor(x * factor).
template <class V>
SRCELL_INLINE V integer_scaled(V x, const IntegerFactor<V>& factor) {
    return multiply_high(x, factor.part) + (x & factor.whole);
}

// i[t] from i[t-1] and the input current a[t], before it is clamped to +-i_max.
template <class V>
SRCELL_INLINE V integer_integrate(const IntegerNeuron<V>& neuron, V i, V current) {
    return add_saturated(i - ((i >> neuron.leak_shift_a) + (i >> neuron.leak_shift_b)), current);
}

// Advances h and hs from i[t], and returns u.
template <class V>
SRCELL_INLINE V integer_respond(const IntegerNeuron<V>& neuron, IntegerState<V>& state) {
    const V h = state.h, hs = state.hs, zero = h ^ h;
    const V x = state.i > zero ? neuron.drive_high : neuron.drive_low;
    const IntegerFactor<V> z = {h < neuron.gate_threshold ? neuron.zs_hyp.part : neuron.zs_dep.part,
                                h < neuron.gate_threshold ? neuron.zs_hyp.whole : neuron.zs_dep.whole};
    const V u = x + neuron.r * h + neuron.rs * hs + neuron.bias;
    state.h = integer_clamp(integer_scaled(u, neuron.slope), neuron.h_min, neuron.h_max);
    state.hs = integer_clamp(h + integer_scaled(hs - h, z), neuron.hs_min, neuron.hs_max);
    return u;
}

// Nonzero if h is a spike.
template <class V>
SRCELL_INLINE auto integer_spike(const IntegerNeuron<V>& neuron, V h) {
    return h >= neuron.spike_threshold;
}
