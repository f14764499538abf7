// Sums in the same fixed trees as on the CPU: pairs, then pairs of pairs. Included by device.h inside its namespace,
// after launch.h; knows no time loop.

constexpr int kTreeLeaves = 16;

// The sum of `count` elements, `stride` apart; 1 <= count <= leaves.
template <int leaves, class T>
SRCELL_INLINE Value<T> tree_sum(const T* x, int64_t stride, int64_t count) {
    if constexpr (leaves == 1) {
        return {*x};
    } else {
        constexpr int half = leaves / 2;
        const Value<T> low = tree_sum<half>(x, stride, count < half ? count : half);
        return count > half ? low + tree_sum<half>(x + half * stride, stride, count - half) : low;
    }
}

// One round of a sum of columns: the first of every kTreeLeaves elements of a column becomes their sum.
template <class T>
struct TreeRound {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    T* elements;
    int64_t rows, stride, columns;  // rows are `stride` elements apart, columns side by side

    SRCELL_HOST_DEVICE int64_t chunks() const { return ceil_div(rows, kTreeLeaves); }

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item();
        if (item >= chunks() * columns) return;
        const int64_t first = item / columns * kTreeLeaves;
        T* const x = elements + first * stride + item % columns;
        *x = tree_sum<kTreeLeaves>(x, stride, rows - first < kTreeLeaves ? rows - first : kTreeLeaves).x;
    }
};

// Leaves the sum of each column in its first row.
template <class T>
void sum_columns(Queue& queue, TreeRound<T> round) {
    for (; round.rows > 1; round.rows = round.chunks(), round.stride *= kTreeLeaves)
        launch(queue, spread(queue, round.chunks() * round.columns), round);
}

// Copies the sums to the target; zeros if `sums` is null.
template <class T>
struct CopySums {
    static constexpr int kMaxThreads = kThreads;
    static constexpr bool kLoads = false;
    const T* sums;
    T* target;
    int64_t count;

    SRCELL_INLINE void run(const Place& place) const {
        if (place.item() < count) target[place.item()] = sums ? sums[place.item()] : T(0);
    }
};

// The gradients of the parameters from their partial sums, one per neuron of each sample.
template <class T>
void reduce_parameters(Queue& queue, const CellBackward<T>& p) {
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons, plane = batch * neurons;
    for (int s = 0; s < kParameters; ++s) {
        T* const target = p.grad_parameters[s];
        if (!target) continue;
        T* const sums = plane ? p.partials + s * plane : nullptr;
        const int64_t stride = p.cell.of[s].stride, wanted = stride ? neurons : 1;
        if (sums) sum_columns(queue, TreeRound<T>{sums, batch, neurons, neurons});
        if (sums && !stride) sum_columns(queue, TreeRound<T>{sums, neurons, 1, 1});
        launch(queue, spread(queue, wanted), CopySums<T>{sums, target, wanted});
    }
}
