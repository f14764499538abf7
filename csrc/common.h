// What the CPU's and the GPU's kernels share besides the equations: how many steps a sample has, and which gradients
// the caller asks for. Included by each backend inside its own namespace, after SRCELL_INLINE is defined; knows only
// the structs of params.h.

// The sample's number of steps, clamped to [0, T]: if another thread changes the lengths after they were checked, no
// access may be out of bounds.
SRCELL_INLINE int64_t steps_of(const ScanShape& shape, int64_t sample) {
    if (!shape.lengths) return shape.steps;
    return clamp_to(read_once(shape.lengths + sample), 0, shape.steps);
}

// Whether the caller asks for the gradient of any parameter besides the bias.
template <class T>
bool wants_parameters(const CellBackward<T>& p) {
    for (int k = kBias + 1; k < kParameters; ++k)
        if (p.grad_parameters[k]) return true;
    return false;
}
