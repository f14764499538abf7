// What the kernels of the CPU and of a GPU share beside the equations: which steps a sample has, and which gradients
// are wanted. Included by each backend inside its own namespace, after SRCELL_INLINE is defined.

// Clamped, so that a lengths array altered after its check cannot lead out of bounds.
SRCELL_INLINE int64_t steps_of(const ScanShape& shape, int64_t sample) {
    if (!shape.lengths) return shape.steps;
    const int64_t length = shape.lengths[sample];
    return length < 0 ? 0 : length > shape.steps ? shape.steps : length;
}

// Whether gradients of other parameters than the bias are wanted.
template <class T>
bool wants_parameters(const CellBackward<T>& p) {
    for (int k = kBias + 1; k < kParameters; ++k)
        if (p.grad_parameters[k]) return true;
    return false;
}
