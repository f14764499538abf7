// The events of a row. Included by device.h inside its namespace, after value.h; knows no kernel.

// Calls use(e, index) for each event e of a row and its input, in order. One with an invalid offset or index is
// skipped.
template <class T, class Use>
SRCELL_INLINE void for_each_event(const Events<T>& events, int64_t row, Use use) {
    const int64_t begin = events.offsets[row] < 0 ? events.count : events.offsets[row];
    const int64_t end = events.offsets[row + 1] > events.count ? 0 : events.offsets[row + 1];
    for (int64_t e = begin; e < end; ++e) {
        // Compared as unsigned: a negative index becomes larger than any valid one.
        const auto index = static_cast<uint32_t>(events.indices[e]);
        if (index < static_cast<uint64_t>(events.inputs)) use(e, index);
    }
}
