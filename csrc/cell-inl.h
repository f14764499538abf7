// The equations of the Spiking Recurrent Cell (arXiv 2306.03623) for one neuron and one time step: step() is the
// forward pass, step_adjoint() with carry_recurrence() the backward pass. All kernels of the cell call these functions.
//
// V is a value type: a float, a double, or a SIMD register of either. The includer provides, for V, the operations of a
// cpu/vec_*-inl.h header and then includes this file inside its own namespace. This code knows nothing about memory,
// threads or shapes; from params.h it uses only the order of the parameters.
//
// The order of operations is part of the definition: only the fused multiply-adds written here are fused, so that every
// backend computes the same bits.

// The parameters have the paper's names. inverse_rho = 1 / rho and zs_span = zs_dep - zs_hyp are computed once per
// neuron, by make_cell(). A resonant neuron's alpha is alpha cos(omega), and its turn is alpha sin(omega).
template <class V>
struct Cell {
    V alpha, rho, inverse_rho, r, rs, zs_hyp, zs_span, bias, turn;
};
// Its fields in their order, for those who keep them in memory; the turn is the last.
template <class V>
constexpr V Cell<V>::* kCellFields[] = {&Cell<V>::alpha,   &Cell<V>::rho,  &Cell<V>::inverse_rho,
                                        &Cell<V>::r,       &Cell<V>::rs,   &Cell<V>::zs_hyp,
                                        &Cell<V>::zs_span, &Cell<V>::bias, &Cell<V>::turn};

template <class V>
struct State {
    V i;   // leaky input integrator
    V h;   // fast state, the "membrane"
    V hs;  // slow state: ends the spike and sets the refractory time
};

// The state of a resonant neuron, whose integrator is the complex number i + j q (Izhikevich 2001; arXiv 2402.14603).
template <class V>
struct ResonantState : State<V> {
    V q;
};

// Gradients of the state that the adjoint of step t passes on to step t-1.
template <class V>
struct Adjoint {
    V i, h, hs;
};

template <class V>
struct ResonantAdjoint : Adjoint<V> {
    V q;
};

template <class V, bool resonant>
using StateOf = std::conditional_t<resonant, ResonantState<V>, State<V>>;
template <class V, bool resonant>
using AdjointOf = std::conditional_t<resonant, ResonantAdjoint<V>, Adjoint<V>>;

// For those who keep a state or its gradients in memory. A state is made from read(k) for each k of CellState, and
// use(k, x) is called with each of its numbers.
template <class Any>
constexpr bool is_resonant = false;
template <class V>
constexpr bool is_resonant<ResonantState<V>> = true;
template <class V>
constexpr bool is_resonant<ResonantAdjoint<V>> = true;

template <class Any, class Read>
SRCELL_INLINE Any make_state(Read read) {
    if constexpr (is_resonant<Any>)
        return {{read(kI), read(kH), read(kHs)}, read(kQ)};
    else
        return {read(kI), read(kH), read(kHs)};
}

template <class Any, class Use>
SRCELL_INLINE void for_each_state(const Any& state, Use use) {
    use(kI, state.i);
    use(kH, state.h);
    use(kHs, state.hs);
    if constexpr (is_resonant<Any>) use(kQ, state.q);
}

// What the adjoint of a step needs besides the states before and after it.
template <class V>
struct Trace {
    V drive;  // tanh(i / rho) = x / rho
    V gate;   // sigmoid(10 (h[t-1] - 0.5)), the slow gate's activation
};

// The bias is bounded by a selection, so that NaN stays NaN.
template <class V>
SRCELL_INLINE Cell<V> make_cell(const V (&p)[kParameters], V bias_max) {
    const V inverse_rho = splat<V>(1) / p[kRho], zs_span = p[kZsDep] - p[kZsHyp];
    const V bias = select(less(bias_max, p[kBias]), bias_max, p[kBias]);
    return {p[kAlpha], p[kRho], inverse_rho, p[kR], p[kRs], p[kZsHyp], zs_span, bias, p[kOmega]};
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
SRCELL_INLINE V slow_gate(const Cell<V>& cell, V gate) {
    return fma(cell.zs_span, gate, cell.zs_hyp);
}

// The integrator from step t-1 to step t, under the input current c[t].
template <class V>
SRCELL_INLINE void integrate(const Cell<V>& cell, State<V>& state, V current) {
    state.i = flush_tiny(fma(cell.alpha, state.i, current));
}

// The part of integrate() that needs no current: all but i.
template <class V>
SRCELL_INLINE void integrate_rest(const Cell<V>&, State<V>&) {}

template <class V>
SRCELL_INLINE void integrate_rest(const Cell<V>& cell, ResonantState<V>& state) {
    state.q = flush_tiny(fma(cell.turn, state.i, cell.alpha * state.q));
}

template <class V>
SRCELL_INLINE void integrate(const Cell<V>& cell, ResonantState<V>& state, V current) {
    const V i = flush_tiny(fma(cell.alpha, state.i, fma(negate(cell.turn), state.q, current)));
    integrate_rest(cell, state);
    state.i = i;
}

template <class V>
SRCELL_INLINE V drive_of(const Cell<V>& cell, V i) {
    return tanh(i * cell.inverse_rho);
}

// The part of step() after the drive: advances h and hs, and returns the gate's activation.
template <class V>
SRCELL_INLINE V respond(const Cell<V>& cell, State<V>& state, V drive) {
    const V gate = sigmoid(fma(splat<V>(10), state.h, splat<V>(-5)));
    const V u = fma(cell.rho, drive, fma(cell.r, state.h, fma(cell.rs, state.hs, cell.bias)));
    state.hs = fma(slow_gate(cell, gate), state.hs - state.h, state.h);
    state.h = tanh(u);
    return gate;
}

// Advances a State or a ResonantState by one step under the input current c[t].
template <class V, template <class> class AnyState>
SRCELL_INLINE Trace<V> step(const Cell<V>& cell, AnyState<V>& state, V current) {
    integrate(cell, state, current);
    const V drive = drive_of(cell, state.i);
    return {drive, respond(cell, state, drive)};
}

// s[t] = max(h[t], 0), written as a selection so that NaN stays NaN.
template <class V>
SRCELL_INLINE V spike(V h) {
    return select(less_equal(h, splat<V>(0)), splat<V>(0), h);
}

// Replaces carry.i, the gradient of i[t] from step t+1, by that of i[t-1]; `i` is Gi[t].
template <class V>
SRCELL_INLINE void carry_integrator(const Cell<V>& cell, Adjoint<V>& carry, V i) {
    carry.i = cell.alpha * i;
}

// The same for i and q; on entry carry.q is Gq[t].
template <class V>
SRCELL_INLINE void carry_integrator(const Cell<V>& cell, ResonantAdjoint<V>& carry, V i) {
    carry.i = fma(cell.alpha, i, cell.turn * carry.q);
    carry.q = flush_tiny(fma(cell.alpha, carry.q, negate(cell.turn * i)));
}

// Gradients of one step with respect to the bias (Gu) and the input current (Gi).
template <class V>
struct StepGradients {
    V u, i;
};

// The adjoint of step(). On entry `carry` holds the gradients passed on by step t+1, or those of the final state;
// `grad_h` is the gradient of s[t] times ds/dh, `h` is h[t]. Only the integrator's part of `carry` is replaced, by the
// gradient for step t-1; carry_recurrence() does the same for h and hs.
template <class V, template <class> class AnyAdjoint>
SRCELL_INLINE StepGradients<V> step_adjoint(const Cell<V>& cell, AnyAdjoint<V>& carry, V grad_h, V h, V drive) {
    const V one = splat<V>(1);
    const V u = (grad_h + carry.h) * fma(negate(h), h, one);
    const V i = flush_tiny(fma(u, fma(negate(drive), drive, one), carry.i));
    carry_integrator(cell, carry, i);
    return {u, i};
}

// Replaces carry.h and carry.hs by the gradients of h[t-1] and hs[t-1]. `u` is Gu[t]; on entry carry.hs is Ghs[t].
template <class V>
SRCELL_INLINE void carry_recurrence(const Cell<V>& cell, Adjoint<V>& carry, V u, V h_before, V hs_before, V gate) {
    const V one = splat<V>(1);
    const V zs = slow_gate(cell, gate);
    const V gate_slope = splat<V>(10) * cell.zs_span * (gate * (one - gate));
    const V along_h = fma(gate_slope, hs_before - h_before, one - zs);
    const V hs = carry.hs;
    carry.h = fma(cell.r, u, along_h * hs);
    carry.hs = fma(cell.rs, u, zs * hs);
}

// Adds one step's contributions to the gradients of the parameters; `i` is i[t], `arrived` was the carry before the
// step's adjoint.
template <class V>
SRCELL_INLINE void add_parameter_gradients(V (&sum)[kParameters], const Cell<V>& cell, const State<V>& before,
                                           const StepGradients<V>& grad, const Adjoint<V>& arrived, V i, V drive,
                                           V gate) {
    const V one = splat<V>(1);
    const V scaled = i * cell.inverse_rho;
    const V slope = fma(negate(drive), drive, one);
    const V along_gate = arrived.hs * (before.hs - before.h);
    sum[kBias] = sum[kBias] + grad.u;
    sum[kAlpha] = fma(grad.i, before.i, sum[kAlpha]);
    sum[kRho] = fma(grad.u, fma(negate(scaled), slope, drive), sum[kRho]);
    sum[kR] = fma(grad.u, before.h, sum[kR]);
    sum[kRs] = fma(grad.u, before.hs, sum[kRs]);
    sum[kZsHyp] = fma(along_gate, one - gate, sum[kZsHyp]);
    sum[kZsDep] = fma(along_gate, gate, sum[kZsDep]);
}

// What a resonant neuron's integrator becomes in one step: alpha cos(omega) and alpha sin(omega). V is a double here.
template <class V>
struct Turned {
    V along, across;
};

template <class V>
SRCELL_INLINE Turned<V> turn_of(V alpha, V omega) {
    const SineCosine<V> of = sine_cosine(omega);
    return {alpha * of.cosine, alpha * of.sine};
}

// The gradients of alpha and omega, from those of a Turned.
template <class V>
SRCELL_INLINE Turned<V> unturned(V alpha, const SineCosine<V>& omega, const Turned<V>& grad) {
    return {fma(omega.cosine, grad.along, omega.sine * grad.across),
            alpha * fma(omega.cosine, grad.across, negate(omega.sine * grad.along))};
}

// Those of a resonant neuron: the gradients of alpha cos(omega), in place of alpha's, and of alpha sin(omega), in place
// of omega's.
template <class V>
SRCELL_INLINE void add_parameter_gradients(V (&sum)[kParameters], const Cell<V>& cell, const ResonantState<V>& before,
                                           const StepGradients<V>& grad, const ResonantAdjoint<V>& arrived, V i,
                                           V drive, V gate) {
    const State<V>& others = before;
    const Adjoint<V>& of_others = arrived;
    add_parameter_gradients(sum, cell, others, grad, of_others, i, drive, gate);
    sum[kAlpha] = fma(arrived.q, before.q, sum[kAlpha]);
    sum[kOmega] = fma(arrived.q, before.i, fma(negate(grad.i), before.q, sum[kOmega]));
}
