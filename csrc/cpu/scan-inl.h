// The time loop over dense currents, forwards and backwards. Included by kernels.cpp inside its namespace, after
// tile-inl.h; knows arrays and shapes, and never looks inside the equations.

// Without lengths, the B * N elements of a step are one run that is split into tiles, so that tiles are full whatever N
// is. With lengths, a tile stays within one sample, because all elements of a tile take the same number of steps.
SRCELL_INLINE int64_t tiles_per_run(const ScanShape& shape) {
    const int64_t run = shape.lengths ? shape.neurons : shape.batch * shape.neurons;
    return ceil_div(run, kTile);
}

SRCELL_INLINE int64_t count_tiles(const ScanShape& shape) {
    return (shape.lengths ? shape.batch : 1) * tiles_per_run(shape);
}

SRCELL_INLINE Tile tile_at(const ScanShape& shape, int64_t item) {
    const int64_t tiles = tiles_per_run(shape), run = item / tiles, start = item % tiles * kTile;
    const int64_t left = (shape.lengths ? shape.neurons : shape.batch * shape.neurons) - start;
    return {run * shape.neurons + start, left < kTile ? left : kTile, start % shape.neurons, steps_of(shape, run)};
}

// Steps [begin, end) of a tile. Row k of `currents` is that of step begin + k; `far` tells whether its rows are far
// from one another, so that they must be fetched ahead.
template <class V, bool far, class Call, class AnyTileState>
SRCELL_INLINE void forward_steps(const Call& p, const Tile& tile, int64_t begin, int64_t end,
                                 const SegmentRows<const scalar_of<V>>& currents, const TileCell<V>& cell,
                                 AnyTileState& state) {
    using T = scalar_of<V>;
    const int64_t plane = p.shape.batch * p.shape.neurons;  // elements from one step to the next
    for (int64_t t = begin; t < end; ++t) {
        const T* current = currents.row(t - begin);
        T* spikes = p.spikes + t * plane + tile.offset;
        if (p.checkpoints) save_checkpoint<V, false>(p, tile, t, state);
        if (t + kPrefetch < end) {
            if (far) prefetch_row<kForRead>(current + kPrefetch * currents.stride, tile.count);
            prefetch_row<kForWrite>(spikes + kPrefetch * plane, tile.count);
        }
        for_each_register<V>(tile.count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
            using R = typename decltype(kind)::type;

            auto s = state.template at<R>(k);
            step(cell.template at<R>(k), s, load_lanes<R>(current + k, lanes));
            store_lanes(spikes + k, spike(s.h), lanes);
            state.put(k, s);
        });
    }
}

// Fills what lies past the length of a tile's samples with 0.
template <class V, bool resonant, class Call>
void zero_steps(const Call& p, const Tile& tile) {
    const int64_t plane = p.shape.batch * p.shape.neurons;
    for (int64_t t = tile.steps; t < p.shape.steps; ++t) zero_row<V>(p.spikes + t * plane + tile.offset, tile.count);
    if (p.checkpoints) zero_checkpoints<V, false, resonant>(p, tile);
}

template <class V, class AnyTileState>
void forward_tile(const ScanForward<scalar_of<V>>& p, const Tile& tile, const TileCell<V>& cell, AnyTileState& state) {
    const int64_t plane = p.shape.batch * p.shape.neurons;
    load_tile<V>(state, p.before, tile);
    forward_steps<V, true>(p, tile, 0, tile.steps, {p.current + tile.offset, plane, tile.count}, cell, state);
    zero_steps<V, AnyTileState::resonant>(p, tile);
    store_tile<V>(state, p.after, tile);
}

template <class V, bool resonant>
void forward_range(void* context, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ScanForward<scalar_of<V>>*>(context);
    TileCell<V> cell;
    TileState<V, resonant> state;
    for (int64_t item = begin; item < end; ++item) {
        const Tile tile = tile_at(p.shape, item);
        load_cell<resonant>(cell, p, tile);
        forward_tile(p, tile, cell, state);
    }
}

template <class V>
void scan_forward(const ScanForward<scalar_of<V>>& p) {
    auto context = p;
    if (p.shape.batch && p.shape.neurons)
        parallel_for(count_tiles(p.shape), p.shape.threads, p.turn ? forward_range<V, true> : forward_range<V, false>,
                     &context);
}

// Recomputes the segment [begin, end) of a tile and its adjoint. `currents` and `far` are as in forward_steps();
// `grad_current` is where their gradients are written, and may be the same rows.
template <bool far, class V, class Call, class Mode>
SRCELL_INLINE void backward_segment(const Call& p, const Tile& tile, int64_t begin, int64_t end,
                                    const SegmentRows<const scalar_of<V>>& currents,
                                    const SegmentRows<scalar_of<V>>& grad_current,
                                    BackwardScratch<V, Mode, kSegment>& scratch) {
    using T = scalar_of<V>;
    const int64_t plane = p.shape.batch * p.shape.neurons;
    const SegmentRows<const T> grad_spikes = {offset_or_null(p.grad_spikes, begin * plane + tile.offset), plane,
                                              tile.count};
    SegmentTrace<V, kSegment>& trace = scratch.trace;
    load_checkpoint<V, false>(p, tile, begin, scratch.state);
    for (int64_t row = 0; row < end - begin; ++row) {
        const T* current = currents.row(row);
        if (far && begin) prefetch_row<kForRead>(current - kSegment * currents.stride, tile.count);
        if (grad_spikes.first) prefetch_row<kForRead>(grad_spikes.row(row), tile.count);
        if (far) prefetch_row<kForWrite>(grad_current.row(row), tile.count);
        for_each_register<V>(tile.count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
            using R = typename decltype(kind)::type;

            auto s = scratch.state.template at<R>(k);
            for_each_state(s, [&](int of, const R& x) SRCELL_LAMBDA_INLINE {
                if (Mode::needs(of)) store(trace.of[of][row] + k, x);
            });
            const Trace<R> made = step(scratch.cell.template at<R>(k), s, load_lanes<R>(current + k, lanes));
            store(trace.drive[row] + k, made.drive);
            store(trace.gate[row] + k, made.gate);
            store(trace.of[kH][row + 1] + k, s.h);
            if constexpr (Mode::parameters) store(trace.of[kI][row + 1] + k, s.i);
            scratch.state.put(k, s);
        });
    }
    adjoint_segment(grad_spikes, p.full_gradient, p.relu, grad_current, end - begin, tile.count, scratch);
}

template <class V, class Mode>
void backward_tile(const ScanBackward<scalar_of<V>>& p, const Tile& tile, BackwardScratch<V, Mode, kSegment>& scratch) {
    const int64_t plane = p.shape.batch * p.shape.neurons, offset = tile.offset;
    for (int64_t t = tile.steps; t < p.shape.steps; ++t) zero_row<V>(p.grad_current + t * plane + offset, tile.count);
    load_tile<V>(scratch.carry, p.grad_after, tile);
    for (int64_t begin = (segments(tile.steps) - 1) * kSegment, end = tile.steps; begin >= 0;
         end = begin, begin -= kSegment) {
        const int64_t at = begin * plane + offset;
        backward_segment<true, V>(p, tile, begin, end, {p.current + at, plane, tile.count},
                                  {p.grad_current + at, plane, tile.count}, scratch);
    }
    store_tile<V>(scratch.carry, p.grad_before, tile);
}

template <class V, class Mode>
void backward_range(void* context, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ScanBackward<scalar_of<V>>*>(context);
    BackwardScratch<V, Mode, kSegment> scratch;
    for (int64_t item = begin; item < end; ++item) {
        const Tile tile = tile_at(p.shape, item);
        load_cell<Mode::resonant>(scratch.cell, p, tile);
        clear_sums(scratch, tile);
        backward_tile(p, tile, scratch);
        store_sums(p, scratch, tile);
    }
}

template <class V>
void scan_backward(const ScanBackward<scalar_of<V>>& p) {
    const auto range = with_mode(p, [](auto mode) { return backward_range<V, decltype(mode)>; });
    auto context = p;
    if (p.shape.batch && p.shape.neurons) parallel_for(count_tiles(p.shape), p.shape.threads, range, &context);
    reduce_parameters(p);
}
