// The gradient of a dense input: rows of current gradients times the weight. Included by kernels.cpp inside its
// namespace, after tile-inl.h; knows matrices and nothing about the cell.
//
// Each element of the product is summed over the neurons in order, from +0, so that its bits depend neither on the ISA
// nor on the threads. A block of the product, kProductRows rows by kProductColumns registers, stays in registers while
// it is summed over all neurons. The weight is packed in panels as wide as a block; kProductItem rows of gradients at a
// time are multiplied by all panels, so that these rows stay in the cache.

template <class S>
constexpr int kProductRows = VecTraits<S>::width >= 16 ? 8 : 4;  // as many as the registers of the ISA allow
constexpr int kProductColumns = 3;                               // registers
constexpr int64_t kProductItem = 64;                             // rows

template <class S>
constexpr int64_t kPanel = kProductColumns * VecTraits<S>::width;

// packed[panel][n][column], zero past the last input.
template <class S>
void pack_panels(void* context, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const Product<scalar_of<S>>*>(context);
    for (int64_t panel = begin; panel < end; ++panel) {
        const int64_t first = panel * kPanel<S>;
        scalar_of<S>* packed = p.packed_weight + panel * p.neurons * kPanel<S>;
        for (int64_t n = 0; n < p.neurons; ++n, packed += kPanel<S>)
            for (int64_t k = 0; k < kPanel<S>; ++k)
                packed[k] = first + k < p.inputs ? p.weight[n * p.inputs + first + k] : 0;
    }
}

template <class S, int rows, int columns>
SRCELL_INLINE void multiply_block(const Product<scalar_of<S>>& p, int64_t row, int64_t panel) {
    using T = scalar_of<S>;
    constexpr int64_t width = VecTraits<S>::width;
    const T* gradients = p.gradients + row * p.stride;
    const T* packed = p.packed_weight + panel * p.neurons * kPanel<S>;
    S sum[rows][columns];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (S& s : sum[r]) s = splat<S>(0);
    for (int64_t n = 0; n < p.neurons; ++n, packed += kPanel<S>) {
        S weight[columns];
#pragma GCC unroll 4
        for (int c = 0; c < columns; ++c) weight[c] = load<S>(packed + c * width);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
            const S gradient = splat<S>(gradients[r * p.stride + n]);
#pragma GCC unroll 4
            for (int c = 0; c < columns; ++c) sum[r][c] = fma(gradient, weight[c], sum[r][c]);
        }
    }
    for (int r = 0; r < rows; ++r)
        for (int c = 0; c < columns; ++c) {
            const int64_t column = panel * kPanel<S> + c * width;
            store_lanes(p.product + (row + r) * p.inputs + column, sum[r][c], p.inputs - column);
        }
}

// Rows [first, last) of a panel of which `columns` registers are in use.
template <class S, int columns>
void multiply_panel(const Product<scalar_of<S>>& p, int64_t first, int64_t last, int64_t panel) {
    int64_t row = first;
    for (; row + kProductRows<S> <= last; row += kProductRows<S>)
        multiply_block<S, kProductRows<S>, columns>(p, row, panel);
    for (; row < last; ++row) multiply_block<S, 1, columns>(p, row, panel);
}

template <class S>
void multiply_rows(void* context, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const Product<scalar_of<S>>*>(context);
    const int64_t panels = ceil_div(p.inputs, kPanel<S>);
    for (int64_t item = begin; item < end; ++item) {
        const int64_t first = item * kProductItem;
        const int64_t last = first + kProductItem < p.rows ? first + kProductItem : p.rows;
        for (int64_t panel = 0; panel < panels; ++panel) {
            const int64_t left = ceil_div(p.inputs - panel * kPanel<S>, VecTraits<S>::width);
            if (left >= 3)
                multiply_panel<S, 3>(p, first, last, panel);
            else if (left == 2)
                multiply_panel<S, 2>(p, first, last, panel);
            else
                multiply_panel<S, 1>(p, first, last, panel);
        }
    }
}

template <class S>
void multiply(const Product<scalar_of<S>>& p) {
    auto context = p;
    parallel_for(ceil_div(p.inputs, kPanel<S>), p.threads, pack_panels<S>, &context);
    parallel_for(ceil_div(p.rows, kProductItem), p.threads, multiply_rows<S>, &context);
}
