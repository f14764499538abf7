// What the CPU's and the GPU's kernels share besides the equations: how many steps a sample has, what a checkpoint
// holds, and the modes of a backward pass. Included by each backend inside its own namespace, after SRCELL_INLINE is
// defined; knows only the structs of params.h.

// The sample's number of steps, clamped to [0, T]: if another thread changes the lengths after they were checked, no
// access may be out of bounds.
template <class Shape>
SRCELL_INLINE int64_t steps_of(const Shape& shape, int64_t sample) {
    if (!shape.lengths) return shape.steps;
    return clamp_to(read_once(shape.lengths + sample), 0, shape.steps);
}

// Rows of a checkpoint: the states that the backward pass recomputes from. A trace has i already.
SRCELL_HOST_DEVICE constexpr int64_t checkpoint_rows(bool resonant, bool traced) {
    return states_of(resonant) - traced;
}

// The first of them.
SRCELL_HOST_DEVICE constexpr int first_of_checkpoint(bool traced) { return traced ? kI + 1 : kI; }

// Holds a bias at its bound: `grad` has the gradients of `count` neurons, from this one on, that have the same bias. If
// the bias is beyond the bound and a descent along their sum would raise it further, they become 0. V is the value type
// of one number.
template <class V, class T>
SRCELL_INLINE void hold_bias(const CellParameters<T>& cell, int64_t neuron, T* grad, int64_t count) {
    if (!(cell.of[kBias].at(neuron) > cell.bias_max)) return;
    V sum = splat<V>(0);
    for (int64_t k = 0; k < count; ++k) sum = sum + splat<V>(grad[k]);
    const bool raises = less(sum, splat<V>(0));
    for (int64_t k = 0; k < count && raises; ++k) grad[k] = 0;
}

// The compile-time options of a backward pass. The CPU's kernels are compiled for full gradients alone, and ask the
// call whether they are wanted.
template <bool kFullGradient, bool kParameterGradients, bool kResonant>
struct BackwardMode {
    static constexpr bool full_gradient = kFullGradient, parameters = kParameterGradients, resonant = kResonant;
    static constexpr int64_t sums = parameters ? parameters_of(resonant) : 1;  // per neuron

    // Whether the adjoint of a step needs a number of the state before the step.
    SRCELL_HOST_DEVICE static constexpr bool needs(int state) {
        return parameters || (full_gradient && (state == kH || state == kHs));
    }
};
