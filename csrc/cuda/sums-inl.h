// Sums in the same fixed trees as on the CPU: pairs, then pairs of pairs. Included by device.h inside its namespace,
// after turn-inl.h; knows nothing about the time loop.

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

// The dot product of two rows by a warp: lane j sums the products of the elements j, j + kWarp, ... Then the first lane
// adds the sums of the lanes, which are in shared memory, in a tree.
template <class T>
SRCELL_INLINE T lane_of_dot(const Place& place, const T* x, const T* y, int64_t count) {
    Value<T> sum = splat<Value<T>>(0);
    for (int64_t n = place.thread % kWarp; n < count; n += kWarp) sum = fma(Value<T>{x[n]}, Value<T>{y[n]}, sum);
    return sum.x;
}
template <class T>
SRCELL_INLINE Value<T> sum_of_lanes(const Place& place) {
    T* const lanes = place.shared_as<T>() + place.thread;
    for (int half = kWarp / 2; half; half /= 2)
        for (int j = 0; j < half; ++j) lanes[j] = (Value<T>{lanes[j]} + Value<T>{lanes[j + half]}).x;
    return {lanes[0]};
}

// The sums of the groups' parts of a weight's gradient, (groups, K, N), into (N, K).
template <class T>
struct GroupSums {
    const T* partials;
    T* grad_weight;
    int64_t groups, inputs, neurons;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), each = inputs * neurons;
        if (item >= each) return;
        grad_weight[item % neurons * inputs + item / neurons] =
            groups ? tree_sum<kTreeLeaves>(partials + item, each, groups).x : T(0);
    }
};

// Sums over the rows of some planes, each into its target. A block takes `width` neighbouring columns of a plane: its
// threads sum kTreeLeaves elements each, in place, and then the first thread of each column adds these sums.
template <class T>
struct SumRows {
    struct Plane {
        T *elements, *target;     // without a target the sums go to the first row
        bool holds_bias = false;  // each sum is the gradient of a bias of `cell`
    };
    Plane planes[kParameters];
    int64_t rows, stride, columns;  // rows are `stride` elements apart, columns side by side
    int width;
    CellParameters<T> cell = {};

    struct Column {
        T *elements, *target;  // the target is null past the last column
        int64_t number;
        bool holds_bias;
    };
    SRCELL_HOST_DEVICE int64_t groups() const { return ceil_div(columns, width); }
    SRCELL_INLINE Column column(const Place& place) const {
        const Plane& plane = planes[place.block / groups()];
        const int64_t at = place.block % groups() * width + place.thread % width;
        if (at >= columns) return {nullptr, nullptr, at, false};
        return {plane.elements + at, (plane.target ? plane.target : plane.elements) + at, at, plane.holds_bias};
    }

    // The elements, which are `step` apart, form chunks of kTreeLeaves. Replaces the first element of a chunk by the
    // chunk's sum, for every `every`-th chunk from `chunk` on.
    SRCELL_INLINE void sum_chunks(T* elements, int64_t count, int64_t step, int64_t chunk, int64_t every) const {
        for (; chunk * kTreeLeaves < count; chunk += every) {
            const int64_t first = chunk * kTreeLeaves, left = count - first;
            T* const x = elements + first * step;
            *x = tree_sum<kTreeLeaves>(x, step, left < kTreeLeaves ? left : kTreeLeaves).x;
        }
    }
    SRCELL_INLINE void load(const Place& place) const {
        const Column at = column(place);
        if (at.target) sum_chunks(at.elements, rows, stride, place.thread / width, place.threads / width);
    }
    SRCELL_INLINE void run(const Place& place) const {
        const Column at = column(place);
        if (!at.target || place.thread >= width) return;
        int64_t left = rows, step = stride;
        while (left > kTreeLeaves) {
            left = ceil_div(left, kTreeLeaves);
            step *= kTreeLeaves;
            sum_chunks(at.elements, left, step, 0, 1);
        }
        *at.target = rows ? *at.elements : T(0);
        if (at.holds_bias) hold_bias<Value<T>>(cell, at.number, at.target, 1);
    }
};

// Holds the biases of channels: a thread takes a channel.
template <class T>
struct HoldChannels {
    CellParameters<T> cell;
    T* grad;  // (N,)
    int64_t channels;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t channel = place.item(), first = channel * cell.bias_copies;
        if (channel < channels) hold_bias<Value<T>>(cell, first, grad + first, cell.bias_copies);
    }
};

// The sums of `count` partial sums over the samples, (B, count), into a target that may be null.
template <class T>
void sum_samples(Queue& queue, int64_t batch, int64_t count, T* partials, T* target) {
    if (!target) return;
    const SumRows<T> sums = {{{batch ? partials : target, target}}, batch, count, count, kWarp};
    launch(queue, {sums.groups(), kThreads, 0}, sums);
}

// Reduces the partial sums, one per neuron of each sample, to the gradients of the parameters: first over the samples,
// then, for a parameter of the whole layer, over the neurons.
template <class T>
void reduce_parameters(Queue& queue, const CellBackward<T>& p) {
    unturn_gradients(queue, p);
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons, plane = batch * neurons;
    const bool of_channels = p.cell.bias_copies > 1 && p.cell.of[kBias].stride;
    SumRows<T> samples = {{}, batch, neurons, neurons, kWarp, p.cell}, all = {{}, plane ? neurons : 0, 1, 1, 1, p.cell};
    int sums = 0, totals = 0;
    for (int s = 0; s < kParameters; ++s) {
        T* const target = p.grad_parameters[s];
        if (!target) continue;
        T* const elements = plane ? p.partials + s * plane : target;  // not read without rows
        const bool total = p.cell.of[s].stride == 0;
        const bool holds = s == kBias && !of_channels;
        if (total) all.planes[totals++] = {elements, target, holds};
        if (plane || !total) samples.planes[sums++] = {elements, total ? nullptr : target, holds && !total};
    }
    launch(queue, {sums * samples.groups(), kThreads, 0}, samples);
    launch(queue, {totals * all.groups(), kThreads, 0}, all);
    if (!of_channels || !p.grad_parameters[kBias]) return;
    const int64_t channels = neurons / p.cell.bias_copies;
    launch(queue, spread(queue, channels), HoldChannels<T>{p.cell, p.grad_parameters[kBias], channels});
}
