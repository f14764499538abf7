// The equations of the Spiking Recurrent Cell (arXiv 2306.03623) for one neuron and one time step: step() is the
// forward pass, step_adjoint() with carry_recurrence() the backward pass. All kernels of the cell call these functions.
//
// V is a value type: a float, a double, or a SIMD register of either. The includer provides, for V, the operations of a
// cpu/vec_*.h header and then includes this file inside its own namespace. This code knows nothing about memory,
// threads or shapes; from params.h it uses only the order of the parameters.
//
// The order of operations is part of the definition: only the fused multiply-adds written here are fused, so that every
// backend computes the same bits.

// The parameters have the paper's names. inverse_rho = 1 / rho and zs_span = zs_dep - zs_hyp are computed once per
// neuron, by make_cell().
template <class V>
struct Cell {
    V alpha, rho, inverse_rho, r, rs, zs_hyp, zs_span, bias;
};

template <class V>
struct State {
    V i;   // leaky input integrator
    V h;   // fast state, the "membrane"
    V hs;  // slow state: ends the spike and sets the refractory time
};

// What the adjoint of a step needs besides the states before and after it.
template <class V>
struct Trace {
    V drive;  // tanh(i / rho) = x / rho
    V q;      // sigmoid(10 (h[t-1] - 0.5)), the slow gate's activation
};

template <class V>
SRCELL_INLINE Cell<V> make_cell(const V (&p)[kParameters]) {
    const V inverse_rho = splat<V>(1) / p[kRho], zs_span = p[kZsDep] - p[kZsHyp];
    return {p[kAlpha], p[kRho], inverse_rho, p[kR], p[kRs], p[kZsHyp], zs_span, p[kBias]};
}

// Replaces a float32 below 2^-100 in magnitude by 0. This keeps denormals out of the integrators without changing the
// processor's control word. float64 is unchanged; NaN passes through.
template <class V>
SRCELL_INLINE V flush_tiny(V x) {
    if constexpr (sizeof(scalar_of<V>) == sizeof(double)) return x;
    const V smallest = splat<V>(0x1p-100);
    return select(less(absolute(x), smallest), splat<V>(0), x);
}

template <class V>
SRCELL_INLINE V slow_gate(const Cell<V>& cell, V q) {
    return fma(cell.zs_span, q, cell.zs_hyp);
}

// i[t] from i[t-1] and the input current c[t].
template <class V>
SRCELL_INLINE V integrate(const Cell<V>& cell, V i, V current) {
    return flush_tiny(fma(cell.alpha, i, current));
}

template <class V>
SRCELL_INLINE V drive_of(const Cell<V>& cell, V i) {
    return tanh(i * cell.inverse_rho);
}

// The part of step() after the drive: advances h and hs, and returns q.
template <class V>
SRCELL_INLINE V respond(const Cell<V>& cell, State<V>& state, V drive) {
    const V q = sigmoid(fma(splat<V>(10), state.h, splat<V>(-5)));
    const V u = fma(cell.rho, drive, fma(cell.r, state.h, fma(cell.rs, state.hs, cell.bias)));
    state.hs = fma(slow_gate(cell, q), state.hs - state.h, state.h);
    state.h = tanh(u);
    return q;
}

// Advances the state by one step under the input current c[t].
template <class V>
SRCELL_INLINE Trace<V> step(const Cell<V>& cell, State<V>& state, V current) {
    state.i = integrate(cell, state.i, current);
    const V drive = drive_of(cell, state.i);
    return {drive, respond(cell, state, drive)};
}

// s[t] = max(h[t], 0), written as a selection so that NaN stays NaN.
template <class V>
SRCELL_INLINE V spike(V h) {
    return select(less_equal(h, splat<V>(0)), splat<V>(0), h);
}

// Gradients of the state that the adjoint of step t passes on to step t-1.
template <class V>
struct Adjoint {
    V i, h, hs;
};

// Gradients of one step with respect to the bias (Gu) and the input current (Gi).
template <class V>
struct StepGradients {
    V u, i;
};

// The adjoint of step(). On entry `carry` holds the gradients passed on by step t+1, or those of the final state;
// `grad_h` is the gradient of s[t] times ds/dh, `h` is h[t]. Only carry.i is replaced, by the gradient of i[t-1];
// carry_recurrence() does the same for h and hs.
template <class V>
SRCELL_INLINE StepGradients<V> step_adjoint(const Cell<V>& cell, Adjoint<V>& carry, V grad_h, V h, V drive) {
    const V one = splat<V>(1);
    const V u = (grad_h + carry.h) * fma(negate(h), h, one);
    const V i = flush_tiny(fma(u, fma(negate(drive), drive, one), carry.i));
    carry.i = cell.alpha * i;
    return {u, i};
}

// Replaces carry.h and carry.hs by the gradients of h[t-1] and hs[t-1]. `u` is Gu[t]; on entry carry.hs is Ghs[t].
template <class V>
SRCELL_INLINE void carry_recurrence(const Cell<V>& cell, Adjoint<V>& carry, V u, V h_before, V hs_before, V q) {
    const V one = splat<V>(1);
    const V zs = slow_gate(cell, q);
    const V gate_slope = splat<V>(10) * cell.zs_span * (q * (one - q));
    const V along_h = fma(gate_slope, hs_before - h_before, one - zs);
    const V hs = carry.hs;
    carry.h = fma(cell.r, u, along_h * hs);
    carry.hs = fma(cell.rs, u, zs * hs);
}

// Adds one step's contributions to the gradients of the parameters; `i` is i[t], `grad_hs` is Ghs[t].
template <class V>
SRCELL_INLINE void add_parameter_gradients(V (&sum)[kParameters], const Cell<V>& cell, const State<V>& before,
                                           const StepGradients<V>& grad, V grad_hs, V i, V drive, V q) {
    const V one = splat<V>(1);
    const V scaled = i * cell.inverse_rho;
    const V slope = fma(negate(drive), drive, one);
    const V gate = grad_hs * (before.hs - before.h);
    sum[kBias] = sum[kBias] + grad.u;
    sum[kAlpha] = fma(grad.i, before.i, sum[kAlpha]);
    sum[kRho] = fma(grad.u, fma(negate(scaled), slope, drive), sum[kRho]);
    sum[kR] = fma(grad.u, before.h, sum[kR]);
    sum[kRs] = fma(grad.u, before.hs, sum[kRs]);
    sum[kZsHyp] = fma(gate, one - q, sum[kZsHyp]);
    sum[kZsDep] = fma(gate, q, sum[kZsDep]);
}
