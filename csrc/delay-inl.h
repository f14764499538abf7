// Delays of inputs: the passes over a sample's events and over one element of a dense input, forwards and backwards.
// Included by each backend inside its own namespace, after product() and fused(), which round as the backend's other
// arithmetic does; knows the structs of params.h, and neither neurons nor weights.
//
// Arrivals at a step are in the order of their departures: by step, then as in the row of departure, then by tap. So a
// pass over the events in their order, with a cursor for each step of the output, visits every row of the output from
// its start to its end; each pass finds an arrival's place anew instead of storing it.

// Calls use(event, number, term, step) for each arrival of a sample, in the order of departures; `number` is that of
// the delayed input, and `step` is a step of the output.
template <class T, class Use>
SRCELL_INLINE void for_each_arrival(const DelayedEvents<T>& p, int64_t sample, Use use) {
    const Delays<T>& delays = p.delays;
    const int64_t steps = delays.numbers ? steps_of(p.shape, sample) : 0, end = steps - p.skip;
    for (int64_t t = 0; t < steps; ++t) {
        const EventRange range = events_of_row(p.events, sample * p.shape.steps + t);
        for (int64_t e = range.begin; e < range.end; ++e) {
            const int64_t input = input_or_first(p.events.indices + e, p.events.inputs);
            for (int64_t number = input * delays.taps; number < (input + 1) * delays.taps; ++number)
                for (int64_t term = 0; term < delays.terms; ++term) {
                    const int64_t later = delays.steps_of(number, term), at = t + later - p.skip;
                    if (later >= 0 && at >= 0 && at < end) use(e, number, term, at);
                }
        }
    }
}

// Counts the arrivals of a sample into starts[sample].
template <class T>
SRCELL_INLINE void count_arrivals(const DelayedCounts<T>& p, int64_t sample) {
    int64_t count = 0;
    for_each_arrival(p, sample, [&](int64_t, int64_t, int64_t, int64_t) { ++count; });
    p.starts[sample] = count;
}

// Puts the cursors of a sample at the starts of its rows, which another thread may have changed since.
template <class T>
SRCELL_INLINE int64_t* start_of_rows(const DelayedRows<T>& p, int64_t sample) {
    int64_t* const cursors = p.cursors_of(sample);
    for (int64_t t = 0; t < p.steps(); ++t)
        cursors[t] = clamp_to(read_once(p.offsets + sample * p.steps() + t), 0, p.count);
    return cursors;
}

// Fills the places of a row from `place` to `last`: none, unless another thread has changed the events.
template <class T>
SRCELL_INLINE void fill_rest(const DelayedWrite<T>& p, int64_t place, int64_t last) {
    for (; place < last; ++place) {
        p.indices[place] = 0;
        if (p.values) p.values[place] = 0;
    }
}

// Writes the offsets of a sample's rows and what arrives there, between its start and the next sample's.
template <class T>
SRCELL_INLINE void write_arrivals(const DelayedWrite<T>& p, int64_t sample) {
    int64_t* cursors = p.cursors_of(sample);
    for (int64_t t = 0; t < p.steps(); ++t) cursors[t] = 0;
    for_each_arrival(p, sample, [&](int64_t, int64_t, int64_t, int64_t at) { ++cursors[at]; });
    const int64_t last = p.starts[sample + 1];
    int64_t start = p.starts[sample];
    for (int64_t t = 0; t < p.steps(); ++t) {
        p.offsets[sample * p.steps() + t] = start;
        start = cursors[t] < last - start ? start + cursors[t] : last;  // less if another thread changes the events
    }
    cursors = start_of_rows(p, sample);
    for_each_arrival(p, sample, [&](int64_t e, int64_t number, int64_t term, int64_t at) {
        const int64_t place = cursors[at]++;
        if (place >= last) return;
        p.indices[place] = static_cast<int32_t>(number);
        if (p.values) p.values[place] = product(p.delays.factor(number, term), p.value(e));
    });
    for (int64_t t = 0; t < p.steps(); ++t)
        fill_rest(p, cursors[t], t + 1 < p.steps() ? p.offsets[sample * p.steps() + t + 1] : last);
}

// The gradients of the values of a sample's events, and the sample's part of those of the factors.
template <class T>
SRCELL_INLINE void arrivals_backward(const DelayedBackward<T>& p, int64_t sample) {
    int64_t* const cursors = start_of_rows(p, sample);
    T* const sums = p.grad_factors ? p.partials + sample * p.delays.numbers * p.delays.terms : nullptr;
    if (sums)
        for (int64_t k = 0; k < p.delays.numbers * p.delays.terms; ++k) sums[k] = 0;
    for_each_arrival(p, sample, [&](int64_t e, int64_t number, int64_t term, int64_t at) {
        const int64_t place = cursors[at]++;
        if (place >= p.count) return;
        const T grad = p.grad_values[place];
        if (p.grad_events) p.grad_events[e] = fused(p.delays.factor(number, term), grad, p.grad_events[e]);
        if (sums) {
            T& sum = sums[number * p.delays.terms + term];
            sum = fused(p.value(e), grad, sum);
        }
    });
}

// An element of the output: the first of its terms, then each further one added. Before the first step the input is 0.
template <class T>
SRCELL_INLINE T delayed_element(const DelayedElements<T>& p, int64_t t, int64_t sample, int64_t number) {
    const int64_t end = steps_of(p.shape, sample) - p.skip, at = t + p.skip;
    T sum = 0;
    bool any = false;
    for (int64_t term = 0; t < end && term < p.delays.terms; ++term) {
        const int64_t later = p.delays.steps_of(number, term), from = at - later;
        if (later < 0) continue;
        const T x = from < 0 ? T(0) : p.elements[p.at(from, sample, number / p.delays.taps)];
        const T factor = p.delays.factor(number, term);
        sum = any ? fused(factor, x, sum) : product(factor, x);
        any = true;
    }
    return sum;
}

// The gradient of an element of the input.
template <class T>
SRCELL_INLINE T delayed_element_backward(const DelayedElementsBackward<T>& p, int64_t t, int64_t sample,
                                         int64_t input) {
    const int64_t end = steps_of(p.shape, sample) - p.skip;
    T sum = 0;
    for (int64_t number = input * p.delays.taps; number < (input + 1) * p.delays.taps; ++number)
        for (int64_t term = 0; term < p.delays.terms; ++term) {
            const int64_t later = p.delays.steps_of(number, term), at = t + later - p.skip;
            if (later < 0 || at < 0 || at >= end) continue;
            sum = fused(p.delays.factor(number, term), p.grad_delayed[p.delayed_at(at, sample, number)], sum);
        }
    return sum;
}

// A sample's part of the gradient of a factor.
template <class T>
SRCELL_INLINE T delayed_factor_backward(const DelayedElementsBackward<T>& p, int64_t sample, int64_t number,
                                        int64_t term) {
    const int64_t end = steps_of(p.shape, sample) - p.skip, later = p.delays.steps_of(number, term);
    T sum = 0;
    if (later < 0) return sum;
    for (int64_t t = 0; t < end; ++t) {
        const int64_t from = t + p.skip - later;
        if (from < 0) continue;
        sum = fused(p.elements[p.at(from, sample, number / p.delays.taps)],
                    p.grad_delayed[p.delayed_at(t, sample, number)], sum);
    }
    return sum;
}
