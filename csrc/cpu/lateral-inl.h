// The time loop of a layer with recurrent weights (`lateral`), forwards and backwards: at step t every neuron also
// receives the spikes of step t-1 of all neurons, each through a weight. Included by kernels.cpp inside its namespace,
// after events-inl.h and lateral_delays-inl.h; knows rows of weights and tiles, and never looks inside the equations.
//
// A thread advances all neurons of one sample together, tile beside tile. The current of a step starts with the
// synapse's current (given, or summed from events as in events-inl.h); then the weights of the neurons active at step
// t-1 are added, in ascending order of the neurons. The weights of silent neurons are not read. Backwards, the gradient
// of a spike is the dot product of its neuron's weights with the gradients of the next step's currents; with the relu
// derivative it is computed for active neurons only. With delays the spikes that arrive at a step take the place of
// those of step t-1, and a spike has such a product with the currents of each step at which a term of it arrives.

// The number of steps whose spikes are added to weight gradients at a time. With several tiles it is larger, because
// each change of tile brings another tile's weights into the cache.
SRCELL_INLINE int64_t lateral_block(int64_t tiles) { return tiles > 1 ? 8 * kEventSegment : kEventSegment; }

// Appends the active neurons of a tile to the list: those whose h is not <= 0, including NaN. Their spikes are h. The
// bits of 64 neurons are gathered first, because the end of a loop over few bits is predicted badly.
template <class V>
SRCELL_INLINE void append_active(const Row<V>& h, const Tile& tile, Active<scalar_of<V>>& active) {
    using S = single_of<V>;
    constexpr int64_t width = VecTraits<S>::width;
    for (int64_t begin = 0; begin < tile.count; begin += 64) {
        const int64_t lanes = tile.count - begin < 64 ? tile.count - begin : 64;
        uint64_t silent = 0;
        for (int64_t k = 0; k < lanes; k += width)
            silent |= lanes_of(less_equal(load<S>(h + begin + k), splat<S>(0))) << k;
        for (uint64_t bits = ~silent & (~uint64_t{0} >> (64 - lanes)); bits; bits &= bits - 1) {
            const int64_t k = begin + __builtin_ctzll(bits);
            active.index[active.count] = static_cast<int32_t>(tile.first + k);
            active.value[active.count++] = h[k];
        }
    }
}

// packed[m][n] = weight[n][m], zero beyond the last neuron.
template <class T>
void pack_lateral(const Lateral<T>& lateral, const ScanShape& shape) {
    struct Context {
        const Lateral<T>& lateral;
        int64_t neurons;
    };
    Context context = {lateral, shape.neurons};
    const auto pack = [](void* self, int64_t begin, int64_t end) {
        const auto& [to, neurons] = *static_cast<const Context*>(self);
        const int64_t width = lateral_width(neurons);
        for (int64_t m = begin; m < end; ++m)
            for (int64_t n = 0; n < width; ++n)
                to.packed[m * width + n] = n < neurons ? to.weight[n * neurons + m] : T(0);
    };
    parallel_for(shape.neurons, shape.threads, pack, &context);
}

template <class Call>
struct LateralJob {
    const Call& p;
    std::atomic<bool> out_of_memory;
};

// The scratch of a thread for the forward pass.
template <class V, bool resonant>
struct LateralForwardMemory {
    using T = scalar_of<V>;
    ThreadMemory memory;
    TileCell<V>* cells = nullptr;
    TileState<V, resonant>* states = nullptr;
    T* currents = nullptr;  // (rows, width): of one step, or summed from events before the steps are taken
    int64_t rows;
    Active<T> active = {};
    UnderWay<T> under_way = {};

    LateralForwardMemory(int64_t neurons, int64_t rows, const LateralDelays<T>& delays, void* given)
        : memory(bytes(neurons, rows, delays), given), rows(rows) {
        if (!memory) return;
        cells = memory.take<TileCell<V>>(event_tiles(neurons));
        states = memory.take<TileState<V, resonant>>(event_tiles(neurons));
        currents = memory.take<T>(rows * lateral_width(neurons));
        active = {memory.take<int32_t>(listed(neurons, delays)), memory.take<T>(listed(neurons, delays)), 0};
        if (!delays) return;
        under_way = {delays, neurons, delays.past_steps + 1, ceil_div(neurons, 64)};
        under_way.arriving = memory.take<uint64_t>(under_way.rows * under_way.words);
        under_way.spikes = memory.take<T>(under_way.rows * neurons);
    }

    // The most spikes that arrive at one step.
    static int64_t listed(int64_t neurons, const LateralDelays<T>& delays) {
        return neurons * (delays ? delays.of.terms : 1);
    }

    static int64_t bytes(int64_t neurons, int64_t rows, const LateralDelays<T>& delays) {
        const int64_t kept = delays ? delays.past_steps + 1 : 0;
        return ThreadMemory::bytes_of<TileCell<V>>(event_tiles(neurons)) +
               ThreadMemory::bytes_of<TileState<V, resonant>>(event_tiles(neurons)) +
               ThreadMemory::bytes_of<T>(rows * lateral_width(neurons)) +
               ThreadMemory::bytes_of<int32_t>(listed(neurons, delays)) +
               ThreadMemory::bytes_of<T>(listed(neurons, delays)) +
               ThreadMemory::bytes_of<uint64_t>(kept * ceil_div(neurons, 64)) +
               ThreadMemory::bytes_of<T>(kept * neurons);
    }
};

// The size of LateralForward::memory in bytes, for any input and without delays.
template <class V>
int64_t lateral_forward_memory(int64_t neurons) {
    return LateralForwardMemory<V, true>::bytes(neurons, kEventSegment, {});
}

// The rows of currents that a thread sums from events before it takes their steps. In a layer of several tiles they are
// summed tile by tile, and are so many that a tile's weights are read often while they are in the cache.
template <class T>
int64_t summed_rows(const LateralForward<T>& p) {
    constexpr int64_t kept = int64_t{1} << 21;  // bytes
    if (!p.synapse()) return 1;
    if ((p.memory && !p.delays) || event_tiles(p.shape.neurons) == 1) return kEventSegment;
    const int64_t fit = kept / (lateral_width(p.shape.neurons) * static_cast<int64_t>(sizeof(T)));
    const int64_t needed = p.shape.steps < fit ? p.shape.steps * p.shape.batch : fit;
    return needed < kEventSegment || fit < kEventSegment ? kEventSegment : needed < fit ? needed : fit;
}

// Sums the events of step t of a sample for one tile.
template <class V>
SRCELL_INLINE void sum_events_of_step(const ScanShape& shape, const EventSynapse<scalar_of<V>>& synapse, int64_t sample,
                                      int64_t number, int64_t t, scalar_of<V>* target) {
    const int64_t width = event_tile_width(shape.neurons), rows = synapse.rows();
    // Without inputs or events there are no packed weights; `target` is then only a valid address.
    const scalar_of<V>* weights = rows ? synapse.packed_weight + number * rows * width : target;
    sum_events_of_row<V>(synapse, sample * shape.steps + t, weights, width, target);
}

// Sums the currents of `steps` steps from step `begin` on, of the samples [first, last): tile by tile.
template <class V>
void sum_events_of_samples(const ScanShape& shape, const EventSynapse<scalar_of<V>>& synapse, int64_t first,
                           int64_t last, int64_t begin, int64_t steps, scalar_of<V>* currents) {
    const int64_t all = lateral_width(shape.neurons), width = event_tile_width(shape.neurons);
    for (int64_t k = 0; k < event_tiles(shape.neurons); ++k)
        for (int64_t sample = first; sample < last; ++sample) {
            const int64_t left = steps_of(shape, sample) - begin, end = left < steps ? left : steps;
            scalar_of<V>* const of_sample = currents + (sample - first) * steps * all + k * width;
            for (int64_t t = 0; t < end; ++t)
                sum_events_of_step<V>(shape, synapse, sample, k, begin + t, of_sample + t * all);
        }
}

// Adds to a row of currents the rows of packed recurrent weights of the spikes that arrive at a step: those of the
// active neurons, or those that the caller lists for the sample.
template <class V>
SRCELL_INLINE void add_lateral(const LateralForward<scalar_of<V>>& p, int64_t sample,
                               const Active<scalar_of<V>>& active, int64_t width, scalar_of<V>* current) {
    const int32_t* neurons = active.index;
    const scalar_of<V>* values = active.value;
    int64_t count = active.count;
    if (p.arrivals) {
        const EventRange range = events_of_row(*p.arrivals, sample);
        neurons = p.arrivals->indices + range.begin, values = p.arrivals->values + range.begin, count = range.size();
    }
    sum_event_rows<V, true>(
        current, width, p.lateral.packed, width,
        [neurons](int64_t n) SRCELL_LAMBDA_INLINE { return static_cast<int64_t>(neurons[n]); }, values, count);
}

// Advances a sample. `currents` has its currents of all steps, or of no step: they are given, or summed in between.
template <class V, bool resonant>
void lateral_forward_sample(const LateralForward<scalar_of<V>>& p, int64_t sample, scalar_of<V>* currents,
                            LateralForwardMemory<V, resonant>& m) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons, all = lateral_width(neurons);
    const int64_t tiles = event_tiles(neurons), steps = steps_of(p.shape, sample), first = sample * neurons;
    const auto* const given = std::get_if<GivenCurrents<T>>(&p.source);
    const bool save = p.trace;
    m.active.count = 0;
    for (int64_t k = 0; k < tiles; ++k) {
        const Tile tile = event_tile_at(p.shape, k, sample);
        load_tile<V>(m.states[k], p.before, tile);
        append_active<V>(m.states[k].of[kH], tile, m.active);
    }
    if (p.delays) m.under_way.begin(sample, m.active);
    for (int64_t t = 0; t < steps; ++t) {
        T* current = currents ? currents + t * all : m.currents;
        if (given) {
            const T* const row = given->current + t * plane + first;
            if (t + kPrefetch < steps) prefetch_row<kForRead>(row + kPrefetch * plane, neurons);
            std::memcpy(current, row, static_cast<size_t>(neurons) * sizeof(T));
        } else if (!currents) {
            // Sums all currents of some steps first, so that the processor may overlap their sums.
            if (t % m.rows == 0)
                sum_events_of_samples<V>(p.shape, *p.synapse(), sample, sample + 1, t, m.rows, m.currents);
            current += t % m.rows * all;
        }
        if (p.delays) m.under_way.arrive(m.active);
        add_lateral<V>(p, sample, m.active, all, current);
        T* const spikes = p.spikes + t * plane + first;
        if (t + kPrefetch < steps) prefetch_row<kForWrite>(spikes + kPrefetch * plane, neurons);
        m.active.count = 0;
        for (int64_t k = 0; k < tiles; ++k) {
            const Tile tile = event_tile_at(p.shape, k, sample);
            auto& state = m.states[k];
            T* const trace = save ? p.trace + (sample * p.shape.steps + t) * neurons + tile.first : nullptr;
            if (save) save_checkpoint<V, true>(p, tile, t, state);
            for_each_register<V>(tile.count, [&](auto kind, int64_t at, int64_t lanes) SRCELL_LAMBDA_INLINE {
                using R = typename decltype(kind)::type;

                auto s = state.template at<R>(at);
                const Trace<R> made = step(m.cells[k].template at<R>(at), s, load<R>(current + tile.first + at));
                store_lanes(spikes + tile.first + at, spike(s.h), lanes);
                if (save) store_lanes(trace + at, p.trace_integrator ? s.i : made.drive, lanes);
                state.put(at, s);
            });
            append_active<V>(state.of[kH], tile, m.active);
        }
        if (p.delays) m.under_way.depart(spikes, m.active);
    }
    if (p.delays && p.delays.past) m.under_way.store(p.delays.past + sample * p.delays.past_steps * neurons);
    for (int64_t k = 0; k < tiles; ++k) {
        const Tile tile = event_tile_at(p.shape, k, sample);
        for (int64_t t = steps; t < p.shape.steps; ++t) {
            zero_row<V>(p.spikes + t * plane + tile.offset, tile.count);
            if (save) zero_row<V>(p.trace + (sample * p.shape.steps + t) * neurons + tile.first, tile.count);
        }
        if (save) zero_checkpoints<V, true, resonant>(p, tile);
        store_tile<V>(m.states[k], p.after, tile);
    }
}

template <class V, bool resonant>
void lateral_forward_range(void* self, int64_t begin, int64_t end) {
    auto& job = *static_cast<LateralJob<LateralForward<scalar_of<V>>>*>(self);
    const auto& p = job.p;
    const int64_t neurons = p.shape.neurons, all = lateral_width(neurons);
    LateralForwardMemory<V, resonant> m(neurons, summed_rows(p), p.delays, p.delays ? nullptr : p.memory);
    if (!m.memory) {
        job.out_of_memory = true;
        return;
    }
    std::memset(m.currents, 0, static_cast<size_t>(all) * sizeof(scalar_of<V>));  // lanes past the last neuron
    for (int64_t k = 0; k < event_tiles(neurons); ++k) load_cell<resonant>(m.cells[k], p, event_tile_at(p.shape, k, 0));
    // The samples whose currents of all steps are summed together; 0 if the steps of one sample are too many.
    const int64_t steps = p.shape.steps, whole = p.synapse() && steps ? m.rows / steps : 0;
    for (int64_t first = begin; first < end;) {
        const int64_t count = clamp_to(whole, 1, end - first);
        if (whole) sum_events_of_samples<V>(p.shape, *p.synapse(), first, first + count, 0, steps, m.currents);
        for (int64_t k = 0; k < count; ++k)
            lateral_forward_sample(p, first + k, whole ? m.currents + k * steps * all : nullptr, m);
        first += count;
    }
}

// Same return value as events_forward(), or kOutOfMemory.
template <class V>
int64_t lateral_forward(const LateralForward<scalar_of<V>>& p) {
    if (p.shape.neurons == 0 || p.shape.batch == 0) return -1;
    const auto* const synapse = p.synapse();
    const int64_t invalid = synapse ? first_invalid_sample(synapse->events, p.shape) : -1;
    if (invalid >= 0) return invalid;
    if (synapse && !synapse->packed) pack_weight(p.shape, *synapse);
    if (!p.lateral.is_packed) pack_lateral(p.lateral, p.shape);
    copy_steps(p.delays, p.shape.neurons);
    LateralJob<LateralForward<scalar_of<V>>> job = {p, {false}};
    const auto range = p.turn ? lateral_forward_range<V, true> : lateral_forward_range<V, false>;
    parallel_for(p.shape.batch, p.shape.threads, range, &job);
    return job.out_of_memory ? kOutOfMemory : -1;
}

// What a thread keeps of the gradients of a block's steps, whatever the mode.
template <class T>
struct LateralGradients {
    T* deltas = nullptr;          // gradients of the currents of a block's steps and of those after it: a ring of rows
    T* through = nullptr;         // (width,): gradient of a step's spikes through the recurrent weights
    Active<T>* active = nullptr;  // (lateral_block + 1,): before each step of a block, and after the last
    int64_t kept, all;            // rows of `deltas`, and their width

    explicit LateralGradients(const LateralBackward<T>& p) : kept(kept_of(p)), all(lateral_width(p.shape.neurons)) {}

    void take_from(ThreadMemory& memory, int64_t neurons) {
        const int64_t rows = lateral_block(event_tiles(neurons)) + 1;
        deltas = memory.take<T>(kept * all);
        through = memory.take<T>(all);
        active = memory.take<Active<T>>(rows);
        for (int64_t t = 0; t < rows; ++t) active[t] = {memory.take<int32_t>(neurons), memory.take<T>(neurons), 0};
    }

    // A step's spikes reach the next step, or with delays as many further ones as the sample has.
    static int64_t kept_of(const LateralBackward<T>& p) {
        const int64_t further = p.delays.past_steps < p.shape.steps ? p.delays.past_steps : p.shape.steps;
        return lateral_block(event_tiles(p.shape.neurons)) + 1 + further;
    }

    static int64_t bytes(const LateralBackward<T>& p) {
        const int64_t neurons = p.shape.neurons, all = lateral_width(neurons);
        const int64_t rows = lateral_block(event_tiles(neurons)) + 1;
        return ThreadMemory::bytes_of<T>(kept_of(p) * all) + ThreadMemory::bytes_of<T>(all) +
               ThreadMemory::bytes_of<Active<T>>(rows) +
               rows * (ThreadMemory::bytes_of<int32_t>(neurons) + ThreadMemory::bytes_of<T>(neurons));
    }

    // The row of a step in the ring.
    SRCELL_INLINE T* delta(int64_t t) const { return deltas + t % kept * all; }
};

// The scratch of a thread for the backward pass.
template <class V, class Mode>
struct LateralBackwardMemory : LateralGradients<scalar_of<V>> {
    using T = scalar_of<V>;
    using Scratch = BackwardScratch<V, Mode, kEventSegment>;
    ThreadMemory memory;
    Scratch* tiles = nullptr;

    explicit LateralBackwardMemory(const LateralBackward<T>& p)
        : LateralGradients<T>(p),
          memory(ThreadMemory::bytes_of<Scratch>(event_tiles(p.shape.neurons)) + LateralGradients<T>::bytes(p)) {
        if (!memory) return;
        tiles = memory.take<Scratch>(event_tiles(p.shape.neurons));
        this->take_from(memory, p.shape.neurons);
    }
};

// The step after that at which spikes depart, and its row in the ring.
struct Departure {
    int64_t steps, step, row;  // steps: those of the sample
};

template <class T>
SRCELL_INLINE Departure departure_before(int64_t steps, int64_t t, const LateralGradients<T>& m) {
    return {steps, t, t < 0 ? t : t % m.kept};  // at the end, when those of the past are due, row t is that of step t
}

// Calls use(delta, factor, term) for each term of a neuron's spike that arrives at a step of the sample; `delta` is the
// gradient of that step's currents.
template <class T, class Use>
SRCELL_INLINE void for_each_term(const LateralBackward<T>& p, const Departure& departure, int64_t neuron,
                                 const LateralGradients<T>& m, Use use) {
    const int64_t terms = p.delays.of.terms;
    const int32_t* const later = p.delays.later + neuron * terms;
    for (int64_t term = 0; term < terms; ++term) {
        const int64_t at = departure.step + later[term], row = departure.row + later[term];
        if (later[term] < 0 || at < 0 || at >= departure.steps) continue;
        const T* const delta = m.deltas + (row < m.kept ? row : row - m.kept) * m.all;
        use(delta, p.delays.of.factor(neuron, term), term);
    }
}

// The gradient of a neuron's spike from the currents that it reached, beside `grad`, that of the state after the call,
// or null. Adds the sample's part of the gradients of the factors to `sums`, or null.
template <class V>
SRCELL_INLINE scalar_of<V> gradient_of_spike(const LateralBackward<scalar_of<V>>& p, const Departure& departure,
                                             int64_t neuron, scalar_of<V> value, const scalar_of<V>* grad,
                                             scalar_of<V>* sums, const LateralGradients<scalar_of<V>>& m) {
    using T = scalar_of<V>;
    using S = single_of<V>;
    const T* const weights = p.lateral.packed + neuron * m.all;
    if (!p.delays) return dot<S>(weights, m.deltas + departure.row * m.all, p.shape.neurons);
    bool any = grad;
    T sum = grad ? *grad : T(0);
    for_each_term(p, departure, neuron, m, [&](const T* delta, T factor, int64_t term) SRCELL_LAMBDA_INLINE {
        const T along = dot<S>(weights, delta, p.shape.neurons);
        sum = any ? fma(factor, along, sum) : factor * along;
        any = true;
        if (!sums) return;
        T& of_factor = sums[neuron * p.delays.of.terms + term];
        of_factor = fma(value, along, of_factor);
    });
    return sum;
}

// A sample's part of the gradients of the factors, (N, terms), or null.
template <class T>
SRCELL_INLINE T* factor_sums(const LateralBackward<T>& p, int64_t sample) {
    return p.delays.grad_factors ? p.delays.factor_partials + sample * p.shape.neurons * p.delays.of.terms : nullptr;
}

// Row k of the gradient of a sample's past after its last step; null if there is none.
template <class T>
SRCELL_INLINE const T* grad_past_row(const LateralBackward<T>& p, int64_t sample, int64_t k) {
    return p.delays.grad_past && k >= 0 ? p.delays.grad_past + (sample * p.delays.past_steps + k) * p.shape.neurons
                                        : nullptr;
}

// Writes to m.through the gradient of the spikes of step t-1, of which `active` are not 0, through the recurrent
// weights and the state after the last step.
template <class V>
void gradient_through_lateral(const LateralBackward<scalar_of<V>>& p, int64_t sample, int64_t steps, int64_t t,
                              const Active<scalar_of<V>>& active, LateralGradients<scalar_of<V>>& m) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons;
    const T* const grad = grad_past_row(p, sample, t + p.delays.past_steps - steps);
    T* const sums = factor_sums(p, sample);
    const Departure departure = departure_before(steps, t, m);
    if (p.lateral.relu) {
        std::memset(m.through, 0, static_cast<size_t>(m.all) * sizeof(T));
        for (int64_t a = 0; a < active.count; ++a) {
            const int64_t n = active.index[a];
            m.through[n] = gradient_of_spike<V>(p, departure, n, active.value[a], offset_or_null(grad, n), sums, m);
        }
        return;
    }
    for (int64_t n = 0, a = 0; n < neurons; ++n) {
        const bool spikes = a < active.count && active.index[a] == n;
        const T value = spikes ? active.value[a++] : T(0);
        m.through[n] = gradient_of_spike<V>(p, departure, n, value, offset_or_null(grad, n), sums, m);
    }
}

// The adjoint of the steps [begin, end). `active` is that of step `begin`.
template <class V, class Mode>
void lateral_backward_segment(const LateralBackward<scalar_of<V>>& p, int64_t sample, int64_t steps, int64_t begin,
                              int64_t end, Active<scalar_of<V>>* active, LateralBackwardMemory<V, Mode>& m) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons;
    const int64_t tiles = event_tiles(neurons), width = event_tile_width(neurons);
    for (int64_t k = 0; k < tiles; ++k) {
        const Tile tile = event_tile_at(p.shape, k, sample);
        const SegmentRows<const T> saved = {p.trace + (sample * p.shape.steps + begin) * neurons + tile.first, neurons,
                                            tile.count};
        if constexpr (Mode::parameters) load_integrator_before(p, tile, begin, saved, m.tiles[k]);
        recompute_event_segment(p, tile, begin, end, saved, m.tiles[k]);
    }
    for (int64_t r = 0; r <= end - begin; ++r) {
        active[r].count = 0;
        for (int64_t k = 0; k < tiles; ++k)
            append_active<V>(m.tiles[k].trace.of[kH][r], event_tile_at(p.shape, k, sample), active[r]);
    }
    for (int64_t r = end - begin - 1; r >= 0; --r) {
        const int64_t t = begin + r;
        T* const delta = m.delta(t);
        if (t + 1 == steps)
            std::memset(m.through, 0, static_cast<size_t>(m.all) * sizeof(T));
        else
            gradient_through_lateral<V>(p, sample, steps, t + 1, active[r + 1], m);
        for (int64_t k = 0; k < tiles; ++k) {
            const Tile tile = event_tile_at(p.shape, k, sample);
            adjoint_row<V, true>(offset_or_null(p.grad_spikes, t * plane + tile.offset), p.full_gradient, p.relu,
                                 m.through + tile.first, delta + tile.first, width, r, tile.count, m.tiles[k]);
        }
    }
}

// Visits the steps [begin, end) of a sample for the weight gradient of its group: segments last to first, as
// events_backward_tile() does. add(t, rows, column) adds the events of step t to the rows of the tile whose first
// neuron is `column`.
template <class T, class Add>
void add_events_of_block(const WeightSums<T>& sums, int64_t group, int64_t begin, int64_t end, Add add) {
    const int64_t width = event_tile_width(sums.shape.neurons);
    for (int64_t k = 0; k < event_tiles(sums.shape.neurons); ++k)
        for (int64_t from = begin + (end - begin - 1) / kEventSegment * kEventSegment, to = end; from >= begin;
             to = from, from -= kEventSegment)
            for (int64_t t = from; t < to; ++t) add(t, sums.of(k, group), k * width);
}

// Adds the part of a spike to the gradient of the recurrent weights: to the rows of the tile that begins at `column`.
template <class V>
SRCELL_INLINE void add_spike(const LateralBackward<scalar_of<V>>& p, const Departure& departure, int64_t neuron,
                             scalar_of<V> value, scalar_of<V>* rows, int64_t column,
                             const LateralGradients<scalar_of<V>>& m) {
    using T = scalar_of<V>;
    const int64_t width = event_tile_width(p.shape.neurons);
    for_each_term(p, departure, neuron, m, [&](const T* delta, T factor, int64_t) SRCELL_LAMBDA_INLINE {
        const T scaled = factor * value;
        if (factor != 0)
            add_to_rows<V>(
                rows, width, [neuron](int64_t) SRCELL_LAMBDA_INLINE { return neuron; }, &scaled, 1, delta + column);
    });
}

// The gradients of a sample's past before its first step, and what its spikes add to other gradients.
template <class V>
void gradient_of_past(const LateralBackward<scalar_of<V>>& p, int64_t sample, int64_t steps, int64_t group,
                      const WeightSums<scalar_of<V>>& grad_lateral, LateralGradients<scalar_of<V>>& m) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, past_steps = p.delays.past_steps;
    const int64_t width = event_tile_width(neurons);
    T* const sums = factor_sums(p, sample);
    for (int64_t k = past_steps - 1; k >= 0; --k) {
        const int64_t row = (sample * past_steps + k) * neurons;
        const Departure departure = departure_before(steps, k - past_steps, m);
        const T* const past = offset_or_null(p.delays.past0, row);
        const T* const grad = grad_past_row(p, sample, k - steps);
        for (int64_t n = 0; n < neurons; ++n) {
            const T value = past ? past[n] : T(0);
            if (value == 0 && !p.delays.grad_past0) continue;
            if (p.delays.grad_past0 || sums) {
                const T made = gradient_of_spike<V>(p, departure, n, value, offset_or_null(grad, n), sums, m);
                if (p.delays.grad_past0) p.delays.grad_past0[row + n] = made;
            }
            if (value == 0 || !grad_lateral.gradient) continue;
            for (int64_t tile = 0; tile < event_tiles(neurons); ++tile)
                add_spike<V>(p, departure, n, value, grad_lateral.of(tile, group), tile * width, m);
        }
    }
}

// Writes the gradients of the currents of a block's steps, and adds what its events and spikes pass to the weights'.
template <class V>
void add_block(const LateralBackward<scalar_of<V>>& p, int64_t sample, int64_t steps, int64_t group, int64_t begin,
               int64_t end, const WeightSums<scalar_of<V>>& grad_weight, const WeightSums<scalar_of<V>>& grad_lateral,
               const LateralGradients<scalar_of<V>>& m) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons, width = event_tile_width(neurons);
    if (p.grad_current)
        for (int64_t t = begin; t < end; ++t)
            std::memcpy(p.grad_current + t * plane + sample * neurons, m.delta(t),
                        static_cast<size_t>(neurons) * sizeof(T));
    if (grad_lateral.gradient)
        add_events_of_block(grad_lateral, group, begin, end, [&](int64_t t, T* rows, int64_t column) {
            const Active<T>& active = m.active[t - begin];
            if (p.delays) {
                const Departure departure = departure_before(steps, t, m);
                for (int64_t a = 0; a < active.count; ++a)
                    add_spike<V>(p, departure, active.index[a], active.value[a], rows, column, m);
                return;
            }
            add_to_rows<V>(
                rows, width,
                [index = active.index](int64_t n) SRCELL_LAMBDA_INLINE { return static_cast<int64_t>(index[n]); },
                active.value, active.count, m.delta(t) + column);
        });
    if (grad_weight.gradient)
        add_events_of_block(grad_weight, group, begin, end, [&](int64_t t, T* rows, int64_t column) {
            const Events<T>& events = p.synapse->events;
            add_events_of_row<V>(events, sample * p.shape.steps + t, rows, width, events.values, m.delta(t) + column);
        });
}

template <class V, class Mode>
void lateral_backward_sample(const LateralBackward<scalar_of<V>>& p, int64_t sample, int64_t group,
                             const WeightSums<scalar_of<V>>& grad_weight, const WeightSums<scalar_of<V>>& grad_lateral,
                             LateralBackwardMemory<V, Mode>& m) {
    using T = scalar_of<V>;
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons;
    const int64_t tiles = event_tiles(neurons), block = lateral_block(tiles), steps = steps_of(p.shape, sample);
    if (T* const sums = factor_sums(p, sample))
        std::memset(sums, 0, static_cast<size_t>(neurons * p.delays.of.terms) * sizeof(T));
    for (int64_t k = 0; k < tiles; ++k) {
        const Tile tile = event_tile_at(p.shape, k, sample);
        clear_sums(m.tiles[k], tile);
        load_tile<V>(m.tiles[k].carry, p.grad_after, tile);
    }
    for (int64_t from = (segments(steps, block) - 1) * block, to = steps; from >= 0; to = from, from -= block) {
        for (int64_t begin = from + (to - from - 1) / kEventSegment * kEventSegment, end = to; begin >= from;
             end = begin, begin -= kEventSegment)
            lateral_backward_segment(p, sample, steps, begin, end, m.active + (begin - from), m);
        add_block<V>(p, sample, steps, group, from, to, grad_weight, grad_lateral, m);
    }
    if (p.grad_current)
        for (int64_t t = steps; t < p.shape.steps; ++t)
            std::memset(p.grad_current + t * plane + sample * neurons, 0, static_cast<size_t>(neurons) * sizeof(T));
    if (steps) gradient_through_lateral<V>(p, sample, steps, 0, m.active[0], m);  // to the spikes of the initial state
    if (p.delays.past0 || p.delays.grad_past0) gradient_of_past<V>(p, sample, steps, group, grad_lateral, m);
    for (int64_t k = 0; k < tiles; ++k) {
        const Tile tile = event_tile_at(p.shape, k, sample);
        auto& carry = m.tiles[k].carry;
        if (steps)
            for_each_register<V>(tile.count, [&](auto kind, int64_t at, int64_t) SRCELL_LAMBDA_INLINE {
                using R = typename decltype(kind)::type;
                store(carry.of[kH] + at, load<R>(carry.of[kH] + at) + load<R>(m.through + tile.first + at));
            });
        store_tile<V>(carry, p.grad_before, tile);
        store_sums(p, m.tiles[k], tile);
    }
}

// The sums of the gradients of the weights, without a gradient where it is not needed.
template <class T>
WeightSums<T> sums_of_synapse(const LateralBackward<T>& p) {
    return p.synapse ? sums_of(p.shape, *p.synapse) : WeightSums<T>{p.shape, 0, nullptr, nullptr};
}
template <class T>
WeightSums<T> sums_of_lateral(const LateralBackward<T>& p) {
    return {p.shape, p.shape.neurons, p.lateral_partials, p.grad_lateral};
}

// Items are groups of samples.
template <class V, class Mode>
void lateral_backward_range(void* self, int64_t begin, int64_t end) {
    using T = scalar_of<V>;
    auto& job = *static_cast<LateralJob<LateralBackward<T>>*>(self);
    const auto& p = job.p;
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons, tiles = event_tiles(neurons);
    const int64_t size = event_group_size(batch, neurons);
    const WeightSums<T> grad_weight = sums_of_synapse(p), grad_lateral = sums_of_lateral(p);
    LateralBackwardMemory<V, Mode> m(p);
    if (!m.memory) {
        job.out_of_memory = true;
        return;
    }
    std::memset(m.deltas, 0, static_cast<size_t>(m.kept * m.all) * sizeof(T));
    std::memset(m.through, 0, static_cast<size_t>(lateral_width(neurons)) * sizeof(T));
    for (int64_t k = 0; k < tiles; ++k) load_cell<Mode::resonant>(m.tiles[k].cell, p, event_tile_at(p.shape, k, 0));
    for (int64_t group = begin; group < end; ++group) {
        grad_weight.clear(group);
        grad_lateral.clear(group);
        const int64_t first = group * size, last = first + size < batch ? first + size : batch;
        for (int64_t sample = first; sample < last; ++sample)
            lateral_backward_sample(p, sample, group, grad_weight, grad_lateral, m);
    }
}

// Same return value as lateral_forward().
template <class V>
int64_t lateral_backward(const LateralBackward<scalar_of<V>>& p) {
    using T = scalar_of<V>;
    const int64_t batch = p.shape.batch, neurons = p.shape.neurons;
    LateralJob<LateralBackward<T>> job = {p, {false}};
    if (batch && neurons) {
        const int64_t invalid = p.synapse ? first_invalid_sample(p.synapse->events, p.shape) : -1;
        if (invalid >= 0) return invalid;
        pack_lateral(p.lateral, p.shape);
        copy_steps(p.delays, neurons);
        const auto range = with_mode(p, [](auto mode) { return lateral_backward_range<V, decltype(mode)>; });
        parallel_for(event_groups(batch, neurons), p.shape.threads, range, &job);
        if (job.out_of_memory) return kOutOfMemory;
    }
    reduce_weight<V>(sums_of_synapse(p));
    reduce_weight<V>(sums_of_lateral(p));
    sum_factors(p.shape, p.delays.of, p.delays.factor_partials, p.delays.grad_factors);
    reduce_parameters(p);
    return -1;
}
