// Counts each neuron's active elements and upward crossings from its spikes. Included by kernels.cpp inside its
// namespace; plain loops that the compiler vectorises for each ISA. The sums are integers, so they do not depend on the
// order of the threads. Knows nothing about the equations.

template <class T>
struct CountJob {
    const SpikeCounts<T>& p;
    int64_t groups;
};

// `before` is the row of the previous step, null at a sample's first step.
template <class T>
void count_row(const T* row, const T* before, int64_t count, uint32_t* events, uint32_t* crossings) {
    constexpr T threshold = T(0.5);
    for (int64_t k = 0; k < count; ++k) events[k] += row[k] > 0;
    if (!before)
        for (int64_t k = 0; k < count; ++k) crossings[k] += row[k] > threshold;
    else
        for (int64_t k = 0; k < count; ++k) crossings[k] += (row[k] > threshold) & !(before[k] > threshold);
}

// Counts a group of samples into its own rows of the partial counts.
template <class T>
void count_group(const CountJob<T>& job, int64_t group) {
    const SpikeCounts<T>& p = job.p;
    int64_t* const counted = p.partials + group * 2 * p.neurons;
    std::memset(counted, 0, static_cast<size_t>(2 * p.neurons) * sizeof(int64_t));
    const int64_t last = (group + 1) * p.batch / job.groups;
    for (int64_t sample = group * p.batch / job.groups; sample < last; ++sample)
        for (int64_t first = 0; first < p.neurons; first += kTile) {
            const int64_t count = p.neurons - first < kTile ? p.neurons - first : kTile;
            uint32_t events[kTile] = {}, crossings[kTile] = {};
            const T* before = nullptr;
            for (int64_t t = 0; t < p.steps; ++t) {
                const T* const row = p.spikes + (t * p.batch + sample) * p.neurons + first;
                count_row(row, before, count, events, crossings);
                before = row;
            }
            for (int64_t k = 0; k < count; ++k) {
                counted[first + k] += events[k];
                counted[p.neurons + first + k] += crossings[k];
            }
        }
}

template <class T>
void count_spikes(const SpikeCounts<T>& p) {
    // Without steps or neurons the array is empty, however many samples it has: skip the loop over them.
    const CountJob<T> job = {p, p.steps && p.neurons ? count_groups(p.batch) : 0};
    for_each_item<count_group<T>>(job.groups, p.threads, job);
    for (int64_t k = 0; k < 2 * p.neurons; ++k) {
        int64_t sum = 0;
        for (int64_t group = 0; group < job.groups; ++group) sum += p.partials[group * 2 * p.neurons + k];
        p.counts[k] = sum;
    }
}
