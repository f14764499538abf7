// The time loop over event rows, forwards and backwards, and the weight gradient event by event. Included by
// kernels.cpp inside its namespace, after tile-inl.h; knows rows of events, tiles and weights, and never looks inside
// the equations.
//
// Forwards, at each step of a sample, a tile sums the weight rows of the step's events in registers and then advances
// the neurons, so a current is stored for one step only. Backwards, each event adds the gradient of its step's current
// to the row of its input in the tile's weight gradient. A tile's weights and their gradient are packed, so that they
// stay in the L2 cache while all samples are processed.
//
// A call checks all offsets and indices once, before anything else, and returns the first invalid sample. After that
// each use still bounds the value that it reads, because another thread may write into the arrays during the call.
// Results are then unspecified, but no access is out of bounds.

// target[0, kRegisters * width) = the sum over n of values[n] times row row_of(n), in the order of the events. The sum
// starts at +0, or, with `resume`, at what the target holds.
template <class S, int kRegisters, bool resume, class RowOf>
SRCELL_INLINE void sum_rows_block(scalar_of<S>* target, const scalar_of<S>* rows, int64_t stride, RowOf row_of,
                                  const scalar_of<S>* values, int64_t events) {
    constexpr int64_t width = VecTraits<S>::width;
    S sum[kRegisters];
    for (int r = 0; r < kRegisters; ++r) sum[r] = resume ? load<S>(target + r * width) : splat<S>(0);
    if (values) {
        for (int64_t n = 0; n < events; ++n) {
            const scalar_of<S>* row = rows + row_of(n) * stride;
            const S value = splat<S>(values[n]);
            for (int r = 0; r < kRegisters; ++r) sum[r] = fma(value, load<S>(row + r * width), sum[r]);
        }
    } else {
        // Gives the same bits as values that are all 1.
        for (int64_t n = 0; n < events; ++n) {
            const scalar_of<S>* row = rows + row_of(n) * stride;
            for (int r = 0; r < kRegisters; ++r) sum[r] = sum[r] + load<S>(row + r * width);
        }
    }
    for (int r = 0; r < kRegisters; ++r) store(target + r * width, sum[r]);
}

// sum_rows_block() over whole rows of `width` elements, a multiple of 16. Not inlined, as add_to_rows(): their cases
// are most of the code, and a time loop around two of them is a few percent slower.
template <class V, bool resume = false, class RowOf>
__attribute__((noinline)) void sum_event_rows(scalar_of<V>* target, int64_t width, const scalar_of<V>* rows,
                                              int64_t stride, RowOf row_of, const scalar_of<V>* values,
                                              int64_t events) {
    using S = single_of<V>;
    for_each_block<S>(width, [&](auto registers, int64_t k) SRCELL_LAMBDA_INLINE {
        sum_rows_block<S, decltype(registers)::value, resume>(target + k, rows + k, stride, row_of, values, events);
    });
}

// The position of tile number `tile` of `sample`.
SRCELL_INLINE Tile event_tile_at(const ScanShape& shape, int64_t tile, int64_t sample) {
    const int64_t width = event_tile_width(shape.neurons), first = tile * width;
    const int64_t left = shape.neurons - first;
    return {sample * shape.neurons + first, left < width ? left : width, first, steps_of(shape, sample)};
}

// The offset of step t in the trace, where the rows of one tile of one sample follow one another.
SRCELL_INLINE int64_t trace_at(const ScanShape& shape, int64_t sample, const Tile& tile, int64_t t) {
    return (sample * shape.neurons + tile.first) * shape.steps + t * tile.count;
}

// packed[tile][row][n] = weight[tile * width + n][k], zero if the tile has no such neuron. k is `row`, or the index of
// event `row` if weights are packed by event. That index has not been checked yet: if it is invalid, the row is zero.
// A packed row of a tile is `packed_width` wide.
template <class T, class Weight>
void pack_weight(const ScanShape& shape, const EventSynapse<T, Weight>& synapse, int64_t packed_width) {
    struct Context {
        const EventSynapse<T, Weight>& from;
        int64_t neurons, width, packed_width, rows, blocks;
    };
    constexpr int64_t block = 64;  // rows
    const int64_t rows = synapse.rows();
    Context context = {synapse,      shape.neurons, event_tile_width(shape.neurons),
                       packed_width, rows,          ceil_div(rows, block)};
    const auto pack = [](void* self, int64_t begin, int64_t end) {
        const auto& [from, neurons, width, packed_width, rows, blocks] = *static_cast<const Context*>(self);
        const int64_t inputs = from.events.inputs;
        const int32_t* indices = from.by_event() ? from.events.indices : nullptr;
        for (int64_t item = begin; item < end; ++item) {
            const int64_t tile = item / blocks, first = item % blocks * block;
            const int64_t last = first + block < rows ? first + block : rows;
            Weight* packed = from.packed_weight + tile * rows * packed_width;
            for (int64_t n = 0; n < packed_width; ++n) {
                const int64_t neuron = tile * width + n;
                const Weight* of_neuron = n < width && neuron < neurons ? from.weight + neuron * inputs : nullptr;
                if (!of_neuron)
                    for (int64_t row = first; row < last; ++row) packed[row * packed_width + n] = Weight(0);
                else if (!indices)
                    for (int64_t row = first; row < last; ++row) packed[row * packed_width + n] = of_neuron[row];
                else
                    for (int64_t row = first; row < last; ++row) {
                        const int64_t k = input_or_more(indices + row);
                        packed[row * packed_width + n] = k < inputs ? of_neuron[k] : Weight(0);
                    }
            }
        }
    };
    parallel_for(event_tiles(shape.neurons) * context.blocks, shape.threads, pack, &context);
}

// The same for the kernels of this synapse.
template <class T>
void pack_weight(const ScanShape& shape, const EventSynapse<T>& synapse) {
    pack_weight(shape, synapse, event_tile_width(shape.neurons));
}

// Sums the weight rows of a row's events, from a tile's packed weights.
template <class V>
SRCELL_INLINE void sum_events_of_row(const EventSynapse<scalar_of<V>>& synapse, int64_t row,
                                     const scalar_of<V>* weights, int64_t width, scalar_of<V>* target) {
    const Events<scalar_of<V>>& all = synapse.events;
    const EventRange events = events_of_row(all, row);
    const scalar_of<V>* const values = offset_or_null(all.values, events.begin);
    if (synapse.by_event())
        return sum_event_rows<V>(
            target, width, weights + events.begin * width, width, [](int64_t n) SRCELL_LAMBDA_INLINE { return n; },
            values, events.size());
    sum_event_rows<V>(
        target, width, weights, width,
        [indices = all.indices + events.begin, inputs = all.inputs](int64_t n)
            SRCELL_LAMBDA_INLINE { return input_or_first(indices + n, inputs); },
        values, events.size());
}

template <class V, class AnyTileState>
void events_forward_tile(const EventsForward<scalar_of<V>>& p, int64_t tile_number, int64_t sample, const Tile& tile,
                         const TileCell<V>& cell, AnyTileState& state) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons;
    const int64_t width = event_tile_width(neurons);
    alignas(64) Row<V> current = {};
    // Without inputs or events there are no packed weights; `current` is then a valid address that is never read.
    const int64_t rows = p.synapse.rows();
    const T* weights = rows ? p.synapse.packed_weight + tile_number * rows * width : current;
    const bool save = p.trace;
    load_tile<V>(state, p.before, tile);
    for (int64_t t = 0; t < tile.steps; ++t) {
        T* spikes = p.spikes + t * plane + tile.offset;
        T* trace = save ? p.trace + trace_at(p.shape, sample, tile, t) : nullptr;
        if (save) save_checkpoint<V, true>(p, tile, t, state);
        if (t + kPrefetch < tile.steps) {
            prefetch_row<kForWrite>(spikes + kPrefetch * plane, tile.count);
            if (save) prefetch_row<kForWrite>(trace + kPrefetch * tile.count, tile.count);
        }
        sum_events_of_row<V>(p.synapse, sample * p.shape.steps + t, weights, width, current);
        for_each_register<V>(tile.count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
            using R = typename decltype(kind)::type;

            auto s = state.template at<R>(k);
            const Trace<R> made = step(cell.template at<R>(k), s, load<R>(current + k));
            store_lanes(spikes + k, spike(s.h), lanes);
            if (save) store_lanes(trace + k, p.trace_integrator ? s.i : made.drive, lanes);
            state.put(k, s);
        });
    }
    for (int64_t t = tile.steps; t < p.shape.steps; ++t) {
        zero_row<V>(p.spikes + t * plane + tile.offset, tile.count);
        if (save) zero_row<V>(p.trace + trace_at(p.shape, sample, tile, t), tile.count);
    }
    if (save) zero_checkpoints<V, true, AnyTileState::resonant>(p, tile);
    store_tile<V>(state, p.after, tile);
}

// Whether the offsets and indices of a sample's rows are valid.
template <class T>
bool sample_is_valid(const Events<T>& events, const ScanShape& shape, int64_t sample) {
    const int64_t* offsets = events.offsets + sample * shape.steps;
    bool descends = false;
    for (int64_t t = 0; t < shape.steps; ++t) descends |= offsets[t + 1] < offsets[t];
    const int64_t begin = read_once(offsets), end = read_once(offsets + shape.steps);
    const bool starts = sample > 0 || begin == 0, ends = sample + 1 < shape.batch || end == events.count;
    if (!starts || !ends || descends || begin < 0 || end > events.count) return false;
    // Compared as unsigned: a negative index becomes larger than any valid one.
    uint32_t largest = 0;
    for (int64_t n = begin; n < end; ++n) {
        const auto index = static_cast<uint32_t>(events.indices[n]);
        largest = index > largest ? index : largest;
    }
    return begin >= end || static_cast<int64_t>(largest) < events.inputs;
}

// The lowest sample with an invalid offset or index, or -1.
template <class T>
int64_t first_invalid_sample(const Events<T>& events, const ScanShape& shape) {
    struct Check {
        const Events<T>& events;
        const ScanShape& shape;
        std::atomic<int64_t> lowest;
    };
    constexpr int64_t grain = 1 << 15;  // numbers that one thread checks in the time that a second takes to start
    Check check = {events, shape, {shape.batch}};
    const auto run = [](void* self, int64_t begin, int64_t end) {
        auto& [events, shape, lowest] = *static_cast<Check*>(self);
        for (int64_t sample = begin; sample < end; ++sample)
            if (!sample_is_valid(events, shape, sample)) return keep_lowest(lowest, sample);
    };
    parallel_for(shape.batch, events.count < grain ? 1 : shape.threads, run, &check);
    return check.lowest < shape.batch ? check.lowest.load() : -1;
}

template <class V, bool resonant>
void events_forward_range(void* self, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const EventsForward<scalar_of<V>>*>(self);
    TileCell<V> cell;
    TileState<V, resonant> state;
    for (int64_t item = begin, loaded = -1; item < end; ++item) {
        const int64_t number = item / p.shape.batch, sample = item % p.shape.batch;
        const Tile tile = event_tile_at(p.shape, number, sample);
        if (number != loaded) load_cell<resonant>(cell, p, tile);
        loaded = number;
        events_forward_tile(p, number, sample, tile, cell, state);
    }
}

// Returns the lowest sample with an invalid offset or index, or -1. Outputs are unspecified if there is one.
template <class V>
int64_t events_forward(const EventsForward<scalar_of<V>>& p) {
    if (p.shape.neurons == 0 || p.shape.batch == 0) return -1;
    const int64_t invalid = first_invalid_sample(p.synapse.events, p.shape);
    if (invalid >= 0) return invalid;
    if (!p.synapse.packed) pack_weight(p.shape, p.synapse);
    auto context = p;
    const auto range = p.turn ? events_forward_range<V, true> : events_forward_range<V, false>;
    parallel_for(event_tiles(p.shape.neurons) * p.shape.batch, p.shape.threads, range, &context);
    return -1;
}

// `saved` holds the trace of the segment's steps.
template <class V, class Mode>
void recompute_event_segment(const TracedBackward<scalar_of<V>>& p, const Tile& tile, int64_t begin, int64_t end,
                             const SegmentRows<const scalar_of<V>>& saved,
                             BackwardScratch<V, Mode, kEventSegment>& scratch) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons;
    SegmentTrace<V, kEventSegment>& trace = scratch.trace;
    load_checkpoint<V, true>(p, tile, begin, scratch.state);
    for (int64_t t = begin; t < end; ++t) {
        const int64_t row = t - begin;
        const T* drives = saved.row(row);
        if (t >= kEventSegment) prefetch_row<kForRead>(drives - kEventSegment * saved.stride, tile.count);
        if (p.grad_spikes) prefetch_row<kForRead>(p.grad_spikes + t * plane + tile.offset, tile.count);
        for_each_register<V>(tile.count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
            using R = typename decltype(kind)::type;

            const Cell<R> cell = scratch.cell.template at<R>(k);
            auto s = scratch.state.template at<R>(k);
            R drive = load_lanes<R>(drives + k, lanes);
            if constexpr (Mode::parameters) {
                s.i = load<R>(trace.of[kI][row] + k);
                store(trace.of[kI][row + 1] + k, drive);
                drive = drive_of(cell, drive);
            }
            for_each_state(s, [&](int of, const R& x) SRCELL_LAMBDA_INLINE {
                if (of != kI && Mode::needs(of)) store(trace.of[of][row] + k, x);
            });
            if constexpr (Mode::parameters) integrate_rest(cell, s);
            const R gate = respond(cell, s, drive);
            store(trace.drive[row] + k, drive);
            store(trace.gate[row] + k, gate);
            store(trace.of[kH][row + 1] + k, s.h);
            scratch.state.put(k, s);
        });
    }
}

// Loads i before the segment's first step: the integrator of the previous step, or the initial state.
template <class V, class Mode>
void load_integrator_before(const TracedBackward<scalar_of<V>>& p, const Tile& tile, int64_t begin,
                            const SegmentRows<const scalar_of<V>>& saved,
                            BackwardScratch<V, Mode, kEventSegment>& scratch) {
    load_row<V>(scratch.trace.of[kI][0], begin ? saved.row(-1) : offset_or_null(p.i0, tile.offset), tile.count);
}

template <class V, class Mode>
struct EventsScratch {
    BackwardScratch<V, Mode, kEventSegment> backward;
    alignas(64) Row<V> deltas[kEventSegment];  // gradients of the currents of a segment's steps
};

// Adds values[n] * delta to row row_of(n) for each event n, in order.
template <class S, int kRegisters, class RowOf>
SRCELL_INLINE void add_to_rows_block(scalar_of<S>* rows, int64_t stride, RowOf row_of, const scalar_of<S>* values,
                                     int64_t events, const scalar_of<S>* delta) {
    constexpr int64_t width = VecTraits<S>::width;
    S d[kRegisters];
    for (int r = 0; r < kRegisters; ++r) d[r] = load<S>(delta + r * width);
    for (int64_t n = 0; n < events; ++n) {
        scalar_of<S>* row = rows + row_of(n) * stride;
        if (values) {
            const S value = splat<S>(values[n]);
            for (int r = 0; r < kRegisters; ++r) store(row + r * width, fma(value, d[r], load<S>(row + r * width)));
        } else {
            for (int r = 0; r < kRegisters; ++r) store(row + r * width, load<S>(row + r * width) + d[r]);
        }
    }
}

template <class V, class RowOf>
__attribute__((noinline)) void add_to_rows(scalar_of<V>* rows, int64_t width, RowOf row_of, const scalar_of<V>* values,
                                           int64_t events, const scalar_of<V>* delta) {
    using S = single_of<V>;
    for_each_block<S>(width, [&](auto registers, int64_t k) SRCELL_LAMBDA_INLINE {
        add_to_rows_block<S, decltype(registers)::value>(rows + k, width, row_of, values, events, delta + k);
    });
}

// add_to_rows() for the events of a row of the batch; an event's weight row is that of its input.
template <class V>
SRCELL_INLINE void add_events_of_row(const Events<scalar_of<V>>& all, int64_t row, scalar_of<V>* rows, int64_t width,
                                     const scalar_of<V>* values, const scalar_of<V>* delta) {
    const EventRange events = events_of_row(all, row);
    add_to_rows<V>(
        rows, width,
        [indices = all.indices + events.begin, inputs = all.inputs](int64_t n)
            SRCELL_LAMBDA_INLINE { return input_or_first(indices + n, inputs); },
        offset_or_null(values, events.begin), events.size(), delta);
}

template <class V, class Mode>
void events_backward_tile(const EventsBackward<scalar_of<V>>& p, int64_t sample, const Tile& tile,
                          scalar_of<V>* grad_weight, EventsScratch<V, Mode>& scratch) {
    using T = scalar_of<V>;
    const int64_t plane = p.shape.batch * p.shape.neurons;
    load_tile<V>(scratch.backward.carry, p.grad_after, tile);
    for (int64_t begin = (segments(tile.steps, kEventSegment) - 1) * kEventSegment, end = tile.steps; begin >= 0;
         end = begin, begin -= kEventSegment) {
        const SegmentRows<const T> saved = {p.trace + trace_at(p.shape, sample, tile, begin), tile.count, tile.count};
        if constexpr (Mode::parameters) load_integrator_before(p, tile, begin, saved, scratch.backward);
        recompute_event_segment(p, tile, begin, end, saved, scratch.backward);
        const SegmentRows<const T> grad_spikes = {offset_or_null(p.grad_spikes, begin * plane + tile.offset), plane,
                                                  tile.count};
        const SegmentRows<T> deltas = {scratch.deltas[0], kTile, kTile};
        adjoint_segment(grad_spikes, p.full_gradient, p.relu, deltas, end - begin, tile.count, scratch.backward);
        for (int64_t t = begin; t < end; ++t) {
            const T* delta = scratch.deltas[t - begin];
            if (p.grad_current)
                store_row<V>(p.grad_current + t * plane + tile.offset, scratch.deltas[t - begin], tile.count);
            if (!grad_weight) continue;
            add_events_of_row<V>(p.synapse.events, sample * p.shape.steps + t, grad_weight,
                                 event_tile_width(p.shape.neurons), p.synapse.events.values, delta);
        }
    }
    if (p.grad_current)
        for (int64_t t = tile.steps; t < p.shape.steps; ++t)
            zero_row<V>(p.grad_current + t * plane + tile.offset, tile.count);
    store_tile<V>(scratch.backward.carry, p.grad_before, tile);
}

// Items are pairs (tile, group of samples).
template <class V, class Mode>
void events_backward_range(void* self, int64_t begin, int64_t end) {
    using T = scalar_of<V>;
    const auto& p = *static_cast<const EventsBackward<T>*>(self);
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons;
    const int64_t size = event_group_size(batch, neurons), groups = event_groups(batch, neurons);
    const int64_t elements = p.synapse.events.inputs * event_tile_width(neurons);
    EventsScratch<V, Mode> scratch;
    std::memset(scratch.deltas, 0, sizeof scratch.deltas);  // lanes past the tile are read; their results are not used
    for (int64_t item = begin; item < end; ++item) {
        const int64_t number = item / groups, first = item % groups * size;
        const int64_t last = first + size < batch ? first + size : batch;
        T* grad_weight = p.synapse.grad_weight ? p.synapse.weight_partials + item * elements : nullptr;
        if (grad_weight) std::memset(grad_weight, 0, static_cast<size_t>(elements) * sizeof(T));
        load_cell<Mode::resonant>(scratch.backward.cell, p, event_tile_at(p.shape, number, first));
        for (int64_t sample = first; sample < last; ++sample) {
            const Tile tile = event_tile_at(p.shape, number, sample);
            clear_sums(scratch.backward, tile);
            events_backward_tile(p, sample, tile, grad_weight, scratch);
            store_sums(p, scratch.backward, tile);
        }
    }
}

// The partial sums of a weight gradient, (event_tiles(N), event_groups(B, N), K, event_tile_width(N)), and the
// gradient.
template <class T>
struct WeightSums {
    const ScanShape& shape;
    int64_t inputs;
    T *partials, *gradient;

    // The partial of a group and a tile.
    T* of(int64_t tile, int64_t group) const {
        const int64_t item = tile * event_groups(shape.batch, shape.neurons) + group;
        return partials + item * inputs * event_tile_width(shape.neurons);
    }

    // Zeros the partials of a group, if the gradient is needed.
    void clear(int64_t group) const {
        const auto bytes = static_cast<size_t>(inputs * event_tile_width(shape.neurons)) * sizeof(T);
        for (int64_t tile = 0; gradient && tile < event_tiles(shape.neurons); ++tile)
            std::memset(of(tile, group), 0, bytes);
    }
};

template <class T>
WeightSums<T> sums_of(const ScanShape& shape, const SynapseGradient<T>& synapse) {
    return {shape, synapse.events.inputs, synapse.weight_partials, synapse.grad_weight};
}

// gradient[n][k] = the sum over groups, in a fixed tree, of the tile's partial [k][n].
template <class V>
void reduce_weight_range(void* self, int64_t begin, int64_t end) {
    using T = scalar_of<V>;
    using S = single_of<V>;
    const auto& p = *static_cast<const WeightSums<T>*>(self);
    const int64_t width = event_tile_width(p.shape.neurons), groups = event_groups(p.shape.batch, p.shape.neurons);
    const int64_t elements = p.inputs * width;
    for (int64_t item = begin; item < end; ++item) {
        const int64_t number = item / p.inputs, input = item % p.inputs, first = number * width;
        T* sums = p.of(number, 0) + input * width;
        for (int64_t half = 1; half < groups; half *= 2)
            for (int64_t group = 0; group + half < groups; group += 2 * half) {
                T *to = sums + group * elements, *from = to + half * elements;
                for (int64_t n = 0; n < width; n += VecTraits<S>::width)
                    store(to + n, load<S>(to + n) + load<S>(from + n));
            }
        const int64_t count = p.shape.neurons - first < width ? p.shape.neurons - first : width;
        for (int64_t n = 0; n < count; ++n) p.gradient[(first + n) * p.inputs + input] = sums[n];
    }
}

// If the gradient is needed; it is 0 without samples.
template <class V>
void reduce_weight(WeightSums<scalar_of<V>> sums) {
    const auto size = static_cast<size_t>(sums.shape.neurons * sums.inputs);
    if (!sums.gradient) return;
    if (!sums.shape.batch || !sums.shape.neurons) {
        if (size) std::memset(sums.gradient, 0, size * sizeof *sums.gradient);
        return;
    }
    parallel_for(event_tiles(sums.shape.neurons) * sums.inputs, sums.shape.threads, reduce_weight_range<V>, &sums);
}

// Same return value as events_forward().
template <class V>
int64_t events_backward(const EventsBackward<scalar_of<V>>& p) {
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons, tiles = event_tiles(neurons);
    if (batch && neurons) {
        const int64_t invalid = first_invalid_sample(p.synapse.events, p.shape);
        if (invalid >= 0) return invalid;
        auto context = p;
        const auto range = with_mode(p, [](auto mode) { return events_backward_range<V, decltype(mode)>; });
        parallel_for(tiles * event_groups(batch, neurons), p.shape.threads, range, &context);
    }
    reduce_weight<V>(sums_of(p.shape, p.synapse));
    reduce_parameters(p);
    return -1;
}

// Lanes of a dot product, the same for every ISA so that the bits agree: lane j sums the neurons j, j + kDotLanes, ...,
// then the lanes are added in a tree.
constexpr int64_t kDotLanes = 32;

template <class S>
SRCELL_INLINE scalar_of<S> dot(const scalar_of<S>* x, const scalar_of<S>* y, int64_t count) {
    constexpr int64_t width = VecTraits<S>::width, registers = kDotLanes / width;
    S sum[registers];
    for (S& s : sum) s = splat<S>(0);
    int64_t n = 0;
    for (; n + kDotLanes <= count; n += kDotLanes)
        for (int64_t r = 0; r < registers; ++r)
            sum[r] = fma(load<S>(x + n + r * width), load<S>(y + n + r * width), sum[r]);
    for (int64_t r = 0; n + r * width < count; ++r) {
        const int64_t at = n + r * width;
        sum[r] = fma(load_lanes<S>(x + at, count - at), load_lanes<S>(y + at, count - at), sum[r]);
    }
    for (int64_t half = registers / 2; half; half /= 2)
        for (int64_t r = 0; r < half; ++r) sum[r] = sum[r] + sum[r + half];
    alignas(64) scalar_of<S> lanes[width];
    store(lanes, sum[0]);
    for (int64_t half = width / 2; half; half /= 2)
        for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
    return lanes[0];
}

template <class S>
void event_dots_of(const EventDots<scalar_of<S>>& p, int64_t sample) {
    using T = scalar_of<S>;
    const int64_t steps = p.shape.steps, neurons = p.shape.neurons, length = steps_of(p.shape, sample);
    for (int64_t t = 0; t < steps; ++t) {
        const int64_t row = t * p.shape.batch + sample;
        const T* grad = p.grad_current + row * neurons;
        T* elements = p.grad_input ? p.grad_input + row * p.events.inputs : nullptr;
        if (elements) std::memset(elements, 0, static_cast<size_t>(p.events.inputs) * sizeof(T));
        const EventRange events = events_of_row(p.events, sample * steps + t);
        for (int64_t e = events.begin; e < events.end; ++e) {
            const int64_t index = input_or_first(p.events.indices + e, p.events.inputs);
            const T sum = t < length ? dot<S>(p.weight_t + index * neurons, grad, neurons) : T(0);
            if (elements)
                elements[index] = sum;
            else
                p.grad_values[e] = sum;
        }
    }
}

// Same return value as events_forward().
template <class S>
int64_t event_dots(const EventDots<scalar_of<S>>& p) {
    if (p.shape.steps == 0) return -1;
    const int64_t invalid = first_invalid_sample(p.events, p.shape);
    if (invalid >= 0) return invalid;
    if (p.events.count && !p.events.inputs) return 0;  // the arrays were altered: there are no weights to read
    for_each_item<event_dots_of<S>>(p.shape.batch, p.shape.threads, p);
    return -1;
}
