// Runs the passes of ../delay-inl.h over the samples, or over the elements of a dense input; and a faster pass for the
// usual delays. Included by kernels.cpp inside its namespace, after tile-inl.h and ../delay-inl.h.

// One delay per input, one or two terms, from the first step on: each event is read once, and put into a bucket for
// its step, in its order; then the buckets are copied side by side. The buckets have room for about twice the mean; a
// sample that needs more takes the general pass.
template <class T>
struct Buckets {
    struct Graded {
        int32_t number;
        T value;
    };
    static constexpr int64_t kMostBytes = int64_t(4) << 20;  // of a thread

    int64_t most, rows, shift, room;  // arrivals, buckets, log2 of the elements of each, all elements
    ThreadMemory memory;
    bool usable = false;  // there is memory, and every term leaves before it arrives
    int32_t* later;       // (K,): the delay, or the number of steps if it does not arrive
    uint32_t* cursors;    // (rows,): where the next element of each bucket goes
    void* elements;

    // `arrivals` is the largest number of arrivals of a sample.
    Buckets(const DelayedEvents<T>& p, int64_t arrivals, int64_t element_bytes)
        : most(arrivals),
          rows(2 * p.shape.steps + 2),
          shift(shift_of(most, p.shape.steps)),
          room((rows << shift) + most),
          memory(ThreadMemory::bytes_of<int32_t>(p.delays.numbers) + ThreadMemory::bytes_of<uint32_t>(rows) +
                 ThreadMemory::bytes_of<char>(room * element_bytes)) {
        if (!memory) return;
        usable = p.delays.numbers > 0;
        later = memory.take<int32_t>(p.delays.numbers);
        cursors = memory.take<uint32_t>(rows);
        elements = memory.take<char>(room * element_bytes);
        const auto steps = static_cast<int32_t>(p.shape.steps);
        for (int64_t k = 0; k < p.delays.numbers; ++k) {
            const int32_t first = p.delays.first[k];
            later[k] = first < 0 || first > steps ? steps : first;
            usable &= first >= 0 || p.delays.terms == 1;
        }
    }

    void clear() const {
        for (int64_t row = 0; row < rows; ++row) cursors[row] = static_cast<uint32_t>(row << shift);
    }
    int64_t count(int64_t row) const { return cursors[row] - (row << shift); }

    static int64_t shift_of(int64_t most, int64_t steps) {
        int64_t shift = 5;
        while ((int64_t(1) << shift) < 2 * most / steps) ++shift;
        return shift;
    }
    static bool fits(const DelayedEvents<T>& p, int64_t most, int64_t element_bytes) {
        const int64_t steps = p.shape.steps;
        return steps > 0 && steps < (int64_t(1) << 20) &&
               (((2 * steps + 2) << shift_of(most, steps)) + most) * element_bytes < kMostBytes;
    }
};

template <class T>
SRCELL_INLINE int64_t events_of_sample(const DelayedEvents<T>& p, int64_t sample) {
    const int64_t first = sample * p.shape.steps;
    return events_of_row(p.events, first + p.shape.steps - 1).end - events_of_row(p.events, first).begin;
}

template <class T>
SRCELL_INLINE bool takes_buckets(const DelayedWrite<T>& p) {
    const bool whole = p.delays.terms == 1 && !p.delays.factors && !p.values;
    const bool interpolated = p.delays.terms == 2 && p.delays.factors && p.values;
    return p.delays.taps == 1 && p.skip == 0 && p.shape.steps && (whole || interpolated);
}

// Copies a sample's buckets to its place in the output. Returns whether none had overflowed.
template <class T, class Element, class Copy>
SRCELL_INLINE bool empty_buckets(const DelayedWrite<T>& p, const Buckets<T>& buckets, int64_t sample, int64_t end,
                                 Copy copy) {
    const int64_t steps = p.steps(), last = p.starts[sample + 1];
    const auto* const elements = static_cast<const Element*>(buckets.elements);
    int64_t place = p.starts[sample];
    for (int64_t t = 0; t < end; ++t)
        if (buckets.count(t) > int64_t(1) << buckets.shift) return false;
    for (int64_t t = 0; t < steps; ++t) {
        p.offsets[sample * steps + t] = place;
        int64_t count = t < end ? buckets.count(t) : 0;
        if (count > last - place) count = last - place;  // if another thread has changed the events
        copy(elements + (t << buckets.shift), place, count, last);
        place += count;
    }
    fill_rest(p, place, last);
    return true;
}

// Puts the inputs of a row of events into the buckets, whose cursors begin with that of the row. A function of its own,
// so that its few values stay in registers.
template <class Element>
__attribute__((noinline)) void put_row(const int32_t* indices, const int32_t* end, uint32_t inputs,
                                       const int32_t* later, uint32_t* cursors, Element* elements) {
    for (; indices != end; ++indices) {
        const auto read = static_cast<uint32_t>(read_once(indices)), input = read < inputs ? read : 0;
        elements[cursors[later[input]]++] = static_cast<Element>(input);
    }
}

template <class T>
__attribute__((noinline)) void put_row(const int32_t* indices, const int32_t* end, const T* values, uint32_t inputs,
                                       const int32_t* later, const T* factors, bool keep_zeros, uint32_t* cursors,
                                       typename Buckets<T>::Graded* elements) {
    for (; indices != end; ++indices) {
        const auto read = static_cast<uint32_t>(read_once(indices)), input = read < inputs ? read : 0;
        const T value = values ? *values++ : T(1), *const both = factors + 2 * static_cast<int64_t>(input);
        uint32_t* const cursor = cursors + later[input];
        for (int term = 0; term < 2; ++term)
            if (keep_zeros || both[term] != 0)
                elements[cursor[term]++] = {static_cast<int32_t>(input), product(both[term], value)};
    }
}

// Calls put(row, cursors) for each row of a sample's events, whose cursors begin with that of the row.
template <class T, class Put>
SRCELL_INLINE void fill_buckets(const DelayedEvents<T>& p, const Buckets<T>& buckets, int64_t sample, int64_t steps,
                                Put put) {
    buckets.clear();
    int64_t left = buckets.most / p.delays.terms;  // more events only if another thread changes the offsets
    for (int64_t t = 0; t < steps; ++t) {
        EventRange range = events_of_row(p.events, sample * p.shape.steps + t);
        if (range.size() > left) range.end = range.begin + left;
        left -= range.size();
        put(range, buckets.cursors + t);
    }
}

// Element is the type in which numbers are kept: 16 bits if they fit.
template <class T, class Element>
bool write_whole(const DelayedWrite<T>& p, const Buckets<T>& buckets, int64_t sample) {
    const int64_t steps = steps_of(p.shape, sample);
    auto* const elements = static_cast<Element*>(buckets.elements);
    fill_buckets(p, buckets, sample, steps, [&](const EventRange& range, uint32_t* cursors) {
        put_row(p.events.indices + range.begin, p.events.indices + range.end, static_cast<uint32_t>(p.events.inputs),
                buckets.later, cursors, elements);
    });
    const auto copy = [&](const Element* from, int64_t place, int64_t count, int64_t last) {
        constexpr int64_t block = 16;
        int32_t* const to = p.indices + place;
        const int64_t whole = ceil_div(count, block) * block, many = place + whole <= last ? whole : count;
        for (int64_t k = 0; k < many; ++k) to[k] = static_cast<int32_t>(from[k]);
    };
    return empty_buckets<T, Element>(p, buckets, sample, steps, copy);
}

template <class T>
bool write_interpolated(const DelayedWrite<T>& p, const Buckets<T>& buckets, int64_t sample) {
    using Graded = typename Buckets<T>::Graded;
    const int64_t steps = steps_of(p.shape, sample);
    auto* const elements = static_cast<Graded*>(buckets.elements);
    fill_buckets(p, buckets, sample, steps, [&](const EventRange& range, uint32_t* cursors) {
        const T* const values = p.events.values ? p.events.values + range.begin : nullptr;
        put_row(p.events.indices + range.begin, p.events.indices + range.end, values,
                static_cast<uint32_t>(p.events.inputs), buckets.later, p.delays.factors, p.delays.keep_zeros, cursors,
                elements);
    });
    const auto copy = [&](const Graded* from, int64_t place, int64_t count, int64_t) {
        for (int64_t k = 0; k < count; ++k) {
            p.indices[place + k] = from[k].number;
            p.values[place + k] = from[k].value;
        }
    };
    return empty_buckets<T, Graded>(p, buckets, sample, steps, copy);
}

template <class T>
void write_range(void* self, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const DelayedWrite<T>*>(self);
    const bool whole = p.delays.terms == 1, small = p.delays.numbers <= 1 << 16;
    const auto bytes = static_cast<int64_t>(!whole ? sizeof(typename Buckets<T>::Graded) : small ? 2 : 4);
    int64_t most = 0;
    if (takes_buckets(p))
        for (int64_t sample = begin; sample < end; ++sample) {
            const int64_t events = events_of_sample(p, sample);
            most = events > most ? events : most;
        }
    most *= p.delays.terms;
    if (!takes_buckets(p) || !Buckets<T>::fits(p, most, bytes)) {
        for (int64_t sample = begin; sample < end; ++sample) write_arrivals(p, sample);
        return;
    }
    const Buckets<T> buckets(p, most, bytes);
    for (int64_t sample = begin; sample < end; ++sample) {
        const bool written = buckets.usable && events_of_sample(p, sample) * p.delays.terms <= most &&
                             (!whole  ? write_interpolated(p, buckets, sample)
                              : small ? write_whole<T, uint16_t>(p, buckets, sample)
                                      : write_whole<T, uint32_t>(p, buckets, sample));
        if (!written) write_arrivals(p, sample);
    }
}

// The delays as the first pass reads them: whether every term arrives unless the sample ends first, and the largest
// number of steps until one does.
template <class T>
struct ArrivalCounts {
    const DelayedCounts<T>& p;
    bool all;
    int64_t latest;
    const int32_t* later;  // (K,): a copy of Delays::first; read only if `all`
};

// The number of terms, one or two, of the events of a row that arrive within `left` steps; without branches, which
// random delays would mispredict.
__attribute__((noinline)) inline int64_t count_row(const int32_t* indices, const int32_t* end, uint32_t inputs,
                                                   const int32_t* later, int32_t left, bool two) {
    int64_t sum = 0;
    for (; indices != end; ++indices) {
        const auto read = static_cast<uint32_t>(read_once(indices)), input = read < inputs ? read : 0;
        const int32_t in_time = left - later[input];
        sum += (in_time > 0) + (two & (in_time > 1));
    }
    return sum;
}

template <class T>
void count_arrivals_of(const ArrivalCounts<T>& job, int64_t sample) {
    const auto& [p, all, latest, later] = job;
    if (!all) return count_arrivals(p, sample);
    const int64_t steps = steps_of(p.shape, sample);
    int64_t count = 0;
    for (int64_t t = 0; t < steps; ++t) {
        const EventRange range = events_of_row(p.events, sample * p.shape.steps + t);
        if (t + latest < steps) {
            count += range.size() * p.delays.terms;
            continue;
        }
        count += count_row(p.events.indices + range.begin, p.events.indices + range.end,
                           static_cast<uint32_t>(p.events.inputs), later, static_cast<int32_t>(steps - t),
                           p.delays.terms == 2);
    }
    p.starts[sample] = count;
}

template <class T>
void count_delayed(const DelayedCounts<T>& p) {
    constexpr int32_t never = 1 << 24;  // larger than any number of steps that this pass takes, and than any delay
    ThreadMemory memory(ThreadMemory::bytes_of<int32_t>(p.delays.numbers));
    int32_t* const later = memory ? memory.take<int32_t>(p.delays.numbers) : nullptr;
    const bool usual =
        p.delays.numbers && p.delays.taps == 1 && p.skip == 0 && p.shape.steps < never && p.delays.terms <= 2;
    ArrivalCounts<T> job = {p, usual && later, 0, later};
    for (int64_t k = 0; job.all && k < p.delays.numbers; ++k) {
        const int64_t first = later[k] = p.delays.first[k], last = first + p.delays.terms - 1;
        for (int64_t term = 0; term < p.delays.terms; ++term)
            job.all &= first >= 0 && first < never && p.delays.steps_of(k, term) >= 0;
        job.latest = last > job.latest ? last : job.latest;
    }
    for_each_item<count_arrivals_of<T>>(p.shape.batch, p.shape.threads, job);
    int64_t sum = 0;
    for (int64_t sample = 0; sample < p.shape.batch; ++sample) {
        const int64_t count = p.starts[sample];
        p.starts[sample] = sum;
        sum += count;
    }
    p.starts[p.shape.batch] = sum;
}

template <class T>
void write_delayed(const DelayedWrite<T>& p) {
    DelayedWrite<T> context = p;
    parallel_for(p.shape.batch, p.shape.threads, write_range<T>, &context);
}

template <class T>
void delayed_backward(const DelayedBackward<T>& p) {
    for_each_item<arrivals_backward<T>>(p.shape.batch, p.shape.threads, p);
    sum_factors(p.shape, p.delays, p.partials, p.grad_factors);
}

template <class T>
void delay_elements_of(const DelayedElementsForward<T>& p, int64_t sample) {
    for (int64_t t = 0; t < p.steps(); ++t)
        for (int64_t number = 0; number < p.delays.numbers; ++number)
            p.delayed[p.delayed_at(t, sample, number)] = delayed_element(p, t, sample, number);
}

template <class T>
void delay_elements_backward_of(const DelayedElementsBackward<T>& p, int64_t sample) {
    for (int64_t t = 0; p.grad_elements && t < p.shape.steps; ++t)
        for (int64_t input = 0; input < p.inputs; ++input)
            p.grad_elements[p.at(t, sample, input)] = delayed_element_backward(p, t, sample, input);
    const int64_t terms = p.delays.terms, count = p.delays.numbers * terms;
    for (int64_t k = 0; p.grad_factors && k < count; ++k)
        p.partials[sample * count + k] = delayed_factor_backward(p, sample, k / terms, k % terms);
}

// One or two terms of each number, with all that does not depend on the step: the terms that arrive, in their order,
// the steps that they take, and how far before the first input of the step of arrival the element is that arrives.
template <class T>
struct PlacedTerms {
    const DelayedElementsForward<T>& p;
    int32_t *arriving, *later[2], *back[2];  // (numbers,) each
    T* factor[2];
    bool usable;  // there is memory, and the distances fit in it

    static int64_t bytes(int64_t numbers) {
        return 5 * ThreadMemory::bytes_of<int32_t>(numbers) + 2 * ThreadMemory::bytes_of<T>(numbers);
    }

    PlacedTerms(const DelayedElementsForward<T>& given, ThreadMemory& memory)
        : p(given), usable(memory && p.delays.terms <= 2 && p.shape.steps * p.shape.batch * p.inputs < INT32_MAX) {
        if (!usable) return;
        const int64_t numbers = p.delays.numbers, plane = p.shape.batch * p.inputs;
        arriving = memory.take<int32_t>(numbers);
        for (int k : {0, 1}) {
            later[k] = memory.take<int32_t>(numbers), back[k] = memory.take<int32_t>(numbers);
            factor[k] = memory.take<T>(numbers);
        }
        for (int64_t number = 0; number < numbers; ++number) {
            int32_t& count = arriving[number] = 0;
            for (int64_t term = 0; term < p.delays.terms; ++term) {
                const int64_t steps = p.delays.steps_of(number, term);
                if (steps < 0) continue;
                // A term that takes all steps or more never arrives, and its distance is not used.
                const int64_t taken = steps < p.shape.steps ? steps : p.shape.steps;
                later[count][number] = static_cast<int32_t>(taken);
                back[count][number] = static_cast<int32_t>(taken * plane - number / p.delays.taps);
                factor[count++][number] = p.delays.factor(number, term);
            }
        }
    }

    T arrival(int k, int64_t number, int64_t at, const T* first_input) const {
        return at < later[k][number] ? T(0) : first_input[-static_cast<int64_t>(back[k][number])];
    }
};

template <class T>
void delay_rows_of(const PlacedTerms<T>& terms, int64_t sample) {
    const auto& p = terms.p;
    const int64_t end = steps_of(p.shape, sample) - p.skip;
    for (int64_t t = 0; t < p.steps(); ++t) {
        T* const out = p.delayed + p.delayed_at(t, sample, 0);
        const int64_t at = t + p.skip;
        const T* const first_input = p.elements + p.at(at, sample, 0);
        for (int64_t number = 0; number < p.delays.numbers; ++number) {
            const int32_t arriving = t < end ? terms.arriving[number] : 0;
            T sum = 0;
            if (arriving) sum = product(terms.factor[0][number], terms.arrival(0, number, at, first_input));
            if (arriving > 1) sum = fused(terms.factor[1][number], terms.arrival(1, number, at, first_input), sum);
            out[number] = sum;
        }
    }
}

template <class T>
void delay_elements(const DelayedElementsForward<T>& p) {
    ThreadMemory memory(PlacedTerms<T>::bytes(p.delays.numbers));
    const PlacedTerms<T> terms(p, memory);
    if (terms.usable)
        for_each_item<delay_rows_of<T>>(p.shape.batch, p.shape.threads, terms);
    else
        for_each_item<delay_elements_of<T>>(p.shape.batch, p.shape.threads, p);
}

template <class T>
void delay_elements_backward(const DelayedElementsBackward<T>& p) {
    for_each_item<delay_elements_backward_of<T>>(p.shape.batch, p.shape.threads, p);
    sum_factors(p.shape, p.delays, p.partials, p.grad_factors);
}
