// The events of a row. Included by device.h inside its namespace, after value-inl.h; knows nothing about kernels.

// Calls use(e, index) for each event e of a row and its input, in order. An event with an invalid offset or index is
// skipped.
template <class T, class Use>
SRCELL_INLINE void for_each_event(const Events<T>& events, int64_t row, Use use) {
    const int64_t begin = read_once(events.offsets + row), end = read_once(events.offsets + row + 1);
    if (begin < 0 || end > events.count) return;
    for (int64_t e = begin; e < end; ++e) {
        const int64_t index = input_or_more(events.indices + e);
        if (index < events.inputs) use(e, static_cast<uint32_t>(index));
    }
}

// Calls use(k) for each event, the k-th element, of a row of a mask.
template <class T, class Use>
SRCELL_INLINE void for_each_bit(const MaskedElements<T>& input, int64_t row, Use use) {
    const int64_t words = mask_words(input.inputs);
    for (int64_t w = 0; w < words; ++w)
        for (uint64_t bits = input.mask[row * words + w]; bits; bits &= bits - 1) {
            const int64_t k = w * 64 + lowest_bit(bits);
            if (k < input.inputs) use(k);
        }
}
