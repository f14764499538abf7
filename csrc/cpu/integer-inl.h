// The time loop of integer neurons over event rows, and the gradient of their weights event by event. Included by
// kernels.cpp inside its namespace, after events-inl.h; knows rows of events, tiles and weights, and never looks inside
// the equations.
//
// In the forward pass the neurons are advanced in tiles of at most kTile neurons. At each step of a sample, a tile sums
// the weight rows of the step's events and advances its neurons, all in registers of 16-bit integers. Sums that may not
// fit in 16 bits are computed in 64 bits and passed on in two parts of 16 bits. Everything is exact, so neither the
// order nor the ISA changes a bit.

// target[0, kRegisters registers) = the sum of the rows of the inputs of `events` events, beginning with event `first`.
template <int kRegisters, class RowOf>
SRCELL_INLINE void sum_shorts(int16_t* target, const int16_t* rows, int64_t stride, RowOf row_of, int64_t first,
                              int64_t events) {
    Shorts sum[kRegisters] = {};
    for (int64_t n = first; n < first + events; ++n) {
        const int16_t* row = rows + row_of(n) * stride;
        for (int r = 0; r < kRegisters; ++r) sum[r] += load_shorts(row + r * kShortLanes);
    }
    for (int r = 0; r < kRegisters; ++r) store_shorts(target + r * kShortLanes, sum[r]);
}

// sum_shorts() over whole rows of `width` weights.
template <class RowOf>
SRCELL_INLINE void sum_short_rows(int16_t* target, int64_t width, const int16_t* rows, RowOf row_of, int64_t first,
                                  int64_t events) {
    int64_t k = 0;
    for (; k + 4 * kShortLanes <= width; k += 4 * kShortLanes)
        sum_shorts<4>(target + k, rows + k, width, row_of, first, events);
    for (; k < width; k += kShortLanes) sum_shorts<1>(target + k, rows + k, width, row_of, first, events);
}

// The states of a tile's neurons, and their other values in the step being computed.
struct IntegerTile {
    alignas(64) int16_t i[kTile], h[kTile], hs[kTile];
    alignas(64) int16_t current[kTile], rest[kTile];  // the two parts of a current, with the same sign
    alignas(64) int16_t u[kTile] = {};                // lanes past the tile are read; their results are not used
};

struct IntegerJob {
    const IntegerForward& p;
    int64_t exact;  // the number of events whose sum always fits in 16 bits
    std::atomic<int64_t> clamped;
};

// Sums the currents of a step with more than `exact` events. Sums beyond the two parts' range are cut off: they would
// drive i out of its bounds anyway.
template <class RowOf>
__attribute__((noinline)) void sum_in_parts(IntegerTile& tile, int64_t width, const int16_t* rows, RowOf row_of,
                                            int64_t first, int64_t events, int64_t exact) {
    int64_t sums[kTile] = {};
    for (int64_t done = 0; done < events; done += exact) {
        sum_short_rows(tile.current, width, rows, row_of, first + done, events - done < exact ? events - done : exact);
        for (int64_t k = 0; k < width; ++k) sums[k] += tile.current[k];
    }
    const auto cut = [](int64_t x) {
        const int64_t raised = x < -INT16_MAX ? -INT16_MAX : x;
        return static_cast<int16_t>(raised > INT16_MAX ? INT16_MAX : raised);
    };
    for (int64_t k = 0; k < width; ++k) {
        tile.current[k] = cut(sums[k]);
        tile.rest[k] = cut(sums[k] - tile.current[k]);
    }
}

// Steps of a tile during which a lane's counter stays below 2^15.
constexpr int64_t kCountedSteps = INT16_MAX / (kTile / kShortLanes);

// Advances a tile by a step and writes its spikes; each lane of `clamped` counts how often an i left its bounds. With
// `parts` a current consists of its two parts, otherwise of the first alone.
template <class T, bool parts, bool keep_u>
SRCELL_INLINE void integer_row(const IntegerNeuron<Shorts>& neuron, IntegerTile& tile, int64_t count, T* spikes,
                               Shorts& clamped) {
    for (int64_t k = 0; k < count; k += kShortLanes) {
        Shorts unbounded = integer_integrate(neuron, load_shorts(tile.i + k), load_shorts(tile.current + k));
        if (parts) unbounded = add_saturated(unbounded, load_shorts(tile.rest + k));
        const Shorts i = integer_clamp(unbounded, -neuron.i_max, neuron.i_max);
        IntegerState<Shorts> state = {i, load_shorts(tile.h + k), load_shorts(tile.hs + k)};
        const Shorts u = integer_respond(neuron, state);
        clamped -= unbounded != i;
        store_shorts(tile.i + k, state.i);
        store_shorts(tile.h + k, state.h);
        store_shorts(tile.hs + k, state.hs);
        if (keep_u) store_shorts(tile.u + k, u);
        store_converted(spikes + k, integer_spike(neuron, state.h) & 1, count - k);
    }
}

SRCELL_INLINE int64_t sum_lanes(Shorts x) {
    int64_t sum = 0;
    for (int64_t k = 0; k < kShortLanes; ++k) sum += x[k];
    return sum;
}

// Writes the surrogate derivatives of a row's spikes.
inline void integer_slopes(const IntegerSurrogate<float>& surrogate, const IntegerTile& tile, int64_t count,
                           float* to) {
    alignas(64) float i[kTile], u[kTile];
    for (int64_t k = 0; k < kTile; ++k) i[k] = static_cast<float>(tile.i[k]);
    for (int64_t k = 0; k < kTile; ++k) u[k] = static_cast<float>(tile.u[k]);
    for_each_register<F32>(count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
        using R = typename decltype(kind)::type;
        const IntegerSurrogate<R> s = {splat<R>(surrogate.slope), splat<R>(surrogate.unit), splat<R>(surrogate.range)};
        store_lanes(to + k, integer_slope(s, load<R>(i + k), load<R>(u + k)), lanes);
    });
}

// A tile's values of a state in a (B, N) array; null stands for zeros.
inline void load_integer_row(int16_t (&row)[kTile], const int16_t* source, int64_t count) {
    std::memset(row, 0, sizeof row);
    if (source) std::memcpy(row, source, static_cast<size_t>(count) * sizeof(int16_t));
}

inline void pack_integers(const ScanShape& shape, const EventSynapse<float, int16_t>& synapse) {
    pack_weight(shape, synapse, integer_tile_width(shape.neurons));
}

// Used in place of the weights of a layer without any; never read.
constexpr int16_t kNoWeights[kTile] = {};

// T is the type of the spikes, which are written to `spikes`. Returns how often an i was clamped.
template <class T, bool save>
int64_t integer_forward_tile(const IntegerJob& job, int64_t number, int64_t sample, T* spikes, IntegerTile& tile) {
    const IntegerForward& p = job.p;
    const IntegerNeuron<Shorts> neuron = make_integer_neuron<Shorts>(p.cell);
    const Tile where = event_tile_at(p.shape, number, sample);
    const EventSynapse<float, int16_t>& synapse = p.synapse;
    const int64_t plane = p.shape.batch * p.shape.neurons, width = integer_tile_width(p.shape.neurons);
    const int64_t rows = synapse.rows(), count = where.count;
    const int16_t* const weights = rows ? synapse.packed_weight + number * rows * width : kNoWeights;
    const int32_t* const row_of_event = synapse.by_event() ? nullptr : synapse.events.indices;
    const IntegerSurrogate<float> surrogate =
        save ? make_surrogate<float>(p.cell, p.rho, *p.scale) : IntegerSurrogate<float>{};
    load_integer_row(tile.i, offset_or_null(p.i0, where.offset), count);
    load_integer_row(tile.h, offset_or_null(p.h0, where.offset), count);
    load_integer_row(tile.hs, offset_or_null(p.hs0, where.offset), count);
    int64_t clamped = 0;
    Shorts clamped_lanes = {};
    for (int64_t t = 0; t < where.steps; ++t) {
        const EventRange range = events_of_row(synapse.events, sample * p.shape.steps + t);
        const int64_t begin = range.begin, events = range.size();
        const auto row_of = [row_of_event, inputs = synapse.events.inputs](int64_t n) SRCELL_LAMBDA_INLINE {
            return row_of_event ? input_or_first(row_of_event + n, inputs) : n;
        };
        T* to = spikes + t * plane + where.offset;
        if (t + kPrefetch < where.steps) {
            prefetch_row<kForWrite>(to + kPrefetch * plane, count);
            if (save) prefetch_row<kForWrite>(p.slopes + (t + kPrefetch) * plane + where.offset, count);
        }
        if (events <= job.exact) {
            sum_short_rows(tile.current, width, weights, row_of, begin, events);
            integer_row<T, false, save>(neuron, tile, count, to, clamped_lanes);
        } else {
            sum_in_parts(tile, width, weights, row_of, begin, events, job.exact);
            integer_row<T, true, save>(neuron, tile, count, to, clamped_lanes);
        }
        if (save) integer_slopes(surrogate, tile, count, p.slopes + t * plane + where.offset);
        if (t % kCountedSteps == kCountedSteps - 1) {
            clamped += sum_lanes(clamped_lanes);
            clamped_lanes = Shorts{};
        }
    }
    for (int64_t t = where.steps; t < p.shape.steps; ++t) {
        std::memset(spikes + t * plane + where.offset, 0, static_cast<size_t>(count) * sizeof(T));
        if (save) zero_row<F32>(p.slopes + t * plane + where.offset, count);
    }
    const size_t bytes = static_cast<size_t>(count) * sizeof(int16_t);
    std::memcpy(p.i + where.offset, tile.i, bytes);
    std::memcpy(p.h + where.offset, tile.h, bytes);
    std::memcpy(p.hs + where.offset, tile.hs, bytes);
    return clamped + sum_lanes(clamped_lanes);
}

template <class T, bool save>
void integer_forward_range(void* self, int64_t begin, int64_t end) {
    auto& job = *static_cast<IntegerJob*>(self);
    T* spikes;
    if constexpr (sizeof(T) == 1)
        spikes = job.p.spikes;
    else
        spikes = job.p.float_spikes;
    IntegerTile tile;
    int64_t clamped = 0;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t number = item / job.p.shape.batch, sample = item % job.p.shape.batch;
        clamped += integer_forward_tile<T, save>(job, number, sample, spikes, tile);
    }
    job.clamped += clamped;
}

// Returns the first invalid sample or, if all are valid, -1.
inline int64_t integer_forward(const IntegerForward& p) {
    *p.clamped = 0;
    if (p.shape.neurons == 0 || p.shape.batch == 0) return -1;
    const int64_t invalid = first_invalid_sample(p.synapse.events, p.shape);
    if (invalid >= 0) return invalid;
    const EventSynapse<float, int16_t>& synapse = p.synapse;
    if (!synapse.packed) pack_integers(p.shape, synapse);
    const int64_t tiles = event_tiles(p.shape.neurons);
    const int64_t packed = tiles * synapse.rows() * integer_tile_width(p.shape.neurons);
    IntegerJob job = {p, synapse.packed ? p.exact : exact_events(synapse.packed_weight, packed), {0}};
    const auto range = p.slopes   ? integer_forward_range<float, true>
                       : p.spikes ? integer_forward_range<uint8_t, false>
                                  : integer_forward_range<float, false>;
    parallel_for(tiles * p.shape.batch, p.shape.threads, range, &job);
    *p.clamped = job.clamped;
    return -1;
}

// Writes the gradients of the currents of step t to `delta`, and those passed on to step t - 1 to `carry`.
inline void integer_delta(const IntegerBackward& p, const Tile& tile, int64_t t, float* carry, float* delta) {
    const int64_t at = t * p.shape.batch * p.shape.neurons + tile.offset;
    for_each_register<F32>(tile.count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
        using R = typename decltype(kind)::type;
        const R arriving = load_lanes<R>(p.grad_spikes + at + k, lanes);
        const R slope = load_lanes<R>(p.slopes + at + k, lanes);
        const R made = flush_tiny(fma(arriving, slope, load<R>(carry + k)));
        store(delta + k, made);
        store(carry + k, splat<R>(p.alpha) * made);
        if (p.grad_current) store_lanes(p.grad_current + at + k, made, lanes);
    });
}

// Items are pairs (tile, group of samples), as in events_backward_range(), and the weight gradients are added in the
// same order as there.
inline void integer_backward_range(void* self, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const IntegerBackward*>(self);
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons, plane = batch * neurons;
    const int64_t size = event_group_size(batch, neurons), groups = event_groups(batch, neurons);
    const int64_t width = event_tile_width(neurons), elements = p.synapse.events.inputs * width;
    alignas(64) float carry[kTile], deltas[kEventSegment][kTile] = {};
    for (int64_t item = begin; item < end; ++item) {
        const int64_t number = item / groups, first = item % groups * size;
        const int64_t last = first + size < batch ? first + size : batch;
        float* grad_weight = p.synapse.grad_weight ? p.synapse.weight_partials + item * elements : nullptr;
        if (grad_weight) std::memset(grad_weight, 0, static_cast<size_t>(elements) * sizeof(float));
        for (int64_t sample = first; sample < last; ++sample) {
            const Tile tile = event_tile_at(p.shape, number, sample);
            std::memset(carry, 0, sizeof carry);
            for (int64_t t = p.shape.steps - 1; t >= tile.steps; --t)
                if (p.grad_current) zero_row<F32>(p.grad_current + t * plane + tile.offset, tile.count);
            for (int64_t segment = segments(tile.steps, kEventSegment) - 1; segment >= 0; --segment) {
                const int64_t begin = segment * kEventSegment;
                const int64_t end = begin + kEventSegment < tile.steps ? begin + kEventSegment : tile.steps;
                for (int64_t t = end - 1; t >= begin; --t) integer_delta(p, tile, t, carry, deltas[t - begin]);
                if (!grad_weight) continue;
                for (int64_t t = begin; t < end; ++t)
                    add_events_of_row<F32>(p.synapse.events, sample * p.shape.steps + t, grad_weight, width, nullptr,
                                           deltas[t - begin]);
            }
        }
    }
}

// Returns the first invalid sample or, if all are valid, -1.
inline int64_t integer_backward(const IntegerBackward& p) {
    if (p.shape.batch && p.shape.neurons) {
        const int64_t invalid = first_invalid_sample(p.synapse.events, p.shape);
        if (invalid >= 0) return invalid;
        auto context = p;
        parallel_for(event_tiles(p.shape.neurons) * event_groups(p.shape.batch, p.shape.neurons), p.shape.threads,
                     integer_backward_range, &context);
    }
    reduce_weight<F32>(sums_of(p.shape, p.synapse));
    return -1;
}
