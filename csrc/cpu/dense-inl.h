// Finds the events of a dense input: the mask of its nonzero elements, and the event rows of a mask. Included by
// kernels.cpp inside its namespace, after tile-inl.h and encode_kernels-inl.h (for append()); knows nothing about the
// equations.

// Writes the mask of a row. Returns whether all its nonzero elements are 1.
template <class V>
SRCELL_INLINE bool mask_row(const scalar_of<V>* row, int64_t count, uint64_t* mask) {
    constexpr int64_t width = VecTraits<V>::width;
    uint64_t other = 0;
    for (int64_t k = 0; k < count; k += 64) {
        uint64_t nonzero = 0;
        for (int64_t j = 0; j < 64 && k + j < count; j += width) {
            const V x = load_lanes<V>(row + k + j, count - k - j);
            const uint64_t bits = lanes_of(not_equal(x, splat<V>(0)));
            nonzero |= bits << j;
            other |= bits & lanes_of(not_equal(x, splat<V>(1)));
        }
        mask[k / 64] = nonzero;
    }
    return !other;
}

SRCELL_INLINE int64_t count_bits(const uint64_t* mask, int64_t words) {
    int64_t count = 0;
    for (int64_t w = 0; w < words; ++w) count += __builtin_popcountll(mask[w]);
    return count;
}

template <class T>
struct MaskJob {
    const DenseInput<T>& input;
    std::atomic<bool> ones;
};

// The number of samples to visit: none if they have no steps, because the batch of an empty array may be huge.
template <class T>
int64_t samples_of(const DenseInput<T>& p) {
    return p.shape.steps ? p.shape.batch : 0;
}

// Writes the number of events of each row to offsets[row + 1]; sum_counts() then turns these into offsets.
template <class V>
void mask_samples(void* self, int64_t begin, int64_t end) {
    using T = scalar_of<V>;
    auto& job = *static_cast<MaskJob<T>*>(self);
    const DenseInput<T>& p = job.input;
    const int64_t steps = p.shape.steps, words = mask_words(p.inputs);
    bool ones = true;
    for (int64_t b = begin; b < end; ++b) {
        const int64_t length = steps_of(p.shape, b);
        for (int64_t t = 0; t < steps; ++t) {
            uint64_t* mask = p.mask + (b * steps + t) * words;
            if (t < length)
                ones &= mask_row<V>(p.elements + (t * p.shape.batch + b) * p.inputs, p.inputs, mask);
            else
                for (int64_t w = 0; w < words; ++w) mask[w] = 0;
            p.offsets[b * steps + t + 1] = count_bits(mask, words);
        }
    }
    if (!ones) job.ones = false;
}

template <class T>
void count_masked(const DenseInput<T>& p, int64_t row) {
    const int64_t words = mask_words(p.inputs);
    p.offsets[row + 1] = count_bits(p.mask + row * words, words);
}

template <class T>
void sum_counts(const DenseInput<T>& p) {
    p.offsets[0] = 0;
    for (int64_t row = 0; row < p.shape.batch * p.shape.steps; ++row) p.offsets[row + 1] += p.offsets[row];
}

template <class V>
bool mask_events(const DenseInput<scalar_of<V>>& p) {
    MaskJob<scalar_of<V>> job = {p, {true}};
    parallel_for(samples_of(p), p.shape.threads, mask_samples<V>, &job);
    sum_counts(p);
    return job.ones;
}

template <class T>
void count_events(const DenseInput<T>& p) {
    for_each_item<count_masked<T>>(p.shape.batch * p.shape.steps, p.shape.threads, p);
    sum_counts(p);
}

template <class T>
struct ListJob {
    const DenseInput<T>& input;
    int32_t* indices;
    T* values;
};

template <class T>
void list_sample(const ListJob<T>& job, int64_t b) {
    const auto& [p, indices, values] = job;
    const int64_t steps = p.shape.steps, words = mask_words(p.inputs);
    // append() may not write past end_of_sample: another thread may be writing right after the sample's events.
    int32_t* out = indices + p.offsets[b * steps];
    const int32_t* end_of_sample = indices + p.offsets[(b + 1) * steps];
    const uint64_t* mask = p.mask + b * steps * words;
    for (int64_t t = 0; t < steps; ++t, mask += words)
        for (int64_t k = 0; k < p.inputs; k += kPixelGroup)
            out += append(pixels_from(k), static_cast<uint32_t>(mask[k / 64] >> k % 64 & 0xFFFF), out,
                          end_of_sample - out);
    if (!values) return;
    // A second loop, because an index is slow to read right after the vector store that wrote it.
    for (int64_t t = 0; t < steps; ++t) {
        const T* elements = p.elements + (t * p.shape.batch + b) * p.inputs;
        for (int64_t e = p.offsets[b * steps + t]; e < p.offsets[b * steps + t + 1]; ++e)
            values[e] = static_cast<uint32_t>(indices[e]) < p.inputs ? elements[indices[e]] : T(0);
    }
}

template <class T>
void list_events(const DenseInput<T>& p, int32_t* indices, T* values) {
    for_each_item<list_sample<T>>(samples_of(p), p.shape.threads, ListJob<T>{p, indices, values});
}
