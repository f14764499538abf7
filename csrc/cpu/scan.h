// The time loop over dense currents, forwards and backwards. Included by kernels.cpp inside its namespace, after the
// value types and cell.h; knows arrays and shapes, and never looks inside the equations.
//
// Work is cut into tiles: up to kTile neighbouring neurons of one sample. A tile's parameters and state live in the
// first-level cache, time runs inside. Several registers of neurons are in flight at a time, because one step is a long
// chain of dependent operations.

constexpr int64_t kTile = 128;
// Rows of one tile lie a whole batch apart, out of reach of the hardware's prefetchers.
constexpr int64_t kPrefetch = 3;

template <class V>
using Row = scalar_of<V>[kTile];

template <class V>
struct TileCell {
    alignas(64) Row<V> alpha, rho, inverse_rho, r, rs, zs_hyp, zs_span, bias;

    SRCELL_INLINE Cell<V> at(int64_t k) const {
        return {load<V>(alpha + k), load<V>(rho + k),    load<V>(inverse_rho + k), load<V>(r + k),
                load<V>(rs + k),    load<V>(zs_hyp + k), load<V>(zs_span + k),     load<V>(bias + k)};
    }
};

template <class V>
struct TileState {
    alignas(64) Row<V> i, h, hs;

    SRCELL_INLINE State<V> at(int64_t k) const { return {load<V>(i + k), load<V>(h + k), load<V>(hs + k)}; }
    SRCELL_INLINE void put(int64_t k, const State<V>& state) {
        store(i + k, state.i);
        store(h + k, state.h);
        store(hs + k, state.hs);
    }
};

// Where a tile lies in a (B, N) plane: elements [offset, offset + count), the first of them neuron `first`, and how
// many steps they take.
struct Tile {
    int64_t offset, count, first, steps;
};

// Samples of one length are cut as one run of B * N elements, so that tiles are full whatever N is; with lengths, a
// tile stays within its sample.
SRCELL_INLINE int64_t tiles_per_run(const ScanShape& shape) {
    const int64_t run = shape.lengths ? shape.neurons : shape.batch * shape.neurons;
    return (run + kTile - 1) / kTile;
}

SRCELL_INLINE int64_t count_tiles(const ScanShape& shape) {
    return (shape.lengths ? shape.batch : 1) * tiles_per_run(shape);
}

SRCELL_INLINE Tile tile_at(const ScanShape& shape, int64_t item) {
    const int64_t tiles = tiles_per_run(shape), run = item / tiles, start = item % tiles * kTile;
    const int64_t left = (shape.lengths ? shape.neurons : shape.batch * shape.neurons) - start;
    int64_t steps = shape.steps;
    if (shape.lengths) {
        // Clamped, so that a lengths array altered after its check cannot lead out of bounds.
        const int64_t length = shape.lengths[run];
        steps = length < 0 ? 0 : length > steps ? steps : length;
    }
    return {run * shape.neurons + start, left < kTile ? left : kTile, start % shape.neurons, steps};
}

// Calls body(k, lanes) for the tile's registers: elements k ... k + width - 1 of the tile, the first `lanes` in use.
template <class V, class Body>
SRCELL_INLINE void for_each_register(int64_t count, Body body) {
    for (int64_t k = 0; k < count; k += VecTraits<V>::width) body(k, count - k);
}

// A tile's values of one parameter; a tile over several samples meets the same neurons again. Unused lanes of the last
// register get some value of the parameter.
template <class V>
void spread(Row<V>& row, const Parameter<scalar_of<V>>& parameter, const Tile& tile, int64_t neurons) {
    constexpr int64_t width = VecTraits<V>::width;
    const int64_t padded = (tile.count + width - 1) / width * width;
    if (!parameter.stride) {
        for (int64_t k = 0; k < padded; k += width) store(row + k, splat<V>(*parameter.data));
        return;
    }
    for (int64_t k = 0, n = tile.first; k < padded; ++k, n = n + 1 == neurons ? 0 : n + 1) row[k] = parameter.data[n];
}

template <class V>
void load_cell(TileCell<V>& tile, const CellParameters<scalar_of<V>>& cell, const Tile& where, int64_t neurons) {
    alignas(64) Row<V> zs_dep;
    spread<V>(tile.alpha, cell.alpha, where, neurons);
    spread<V>(tile.rho, cell.rho, where, neurons);
    spread<V>(tile.r, cell.r, where, neurons);
    spread<V>(tile.rs, cell.rs, where, neurons);
    spread<V>(tile.zs_hyp, cell.zs_hyp, where, neurons);
    spread<V>(zs_dep, cell.zs_dep, where, neurons);
    spread<V>(tile.bias, cell.bias, where, neurons);
    for_each_register<V>(where.count, [&](int64_t k, int64_t) SRCELL_LAMBDA_INLINE {
        const Cell<V> c =
            make_cell(load<V>(tile.alpha + k), load<V>(tile.rho + k), load<V>(tile.r + k), load<V>(tile.rs + k),
                      load<V>(tile.zs_hyp + k), load<V>(zs_dep + k), load<V>(tile.bias + k));
        store(tile.inverse_rho + k, c.inverse_rho);
        store(tile.zs_span + k, c.zs_span);
    });
}

// `source` points at the tile's first element in a (B, N) array, or is null: zero.
template <class V>
void load_row(Row<V>& row, const scalar_of<V>* source, int64_t count) {
    for_each_register<V>(count, [&](int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
        store(row + k, source ? load_lanes<V>(source + k, lanes) : splat<V>(0));
    });
}

template <class V>
void store_row(scalar_of<V>* target, const Row<V>& row, int64_t count) {
    for_each_register<V>(count, [&](int64_t k, int64_t lanes)
                                    SRCELL_LAMBDA_INLINE { store_lanes(target + k, load<V>(row + k), lanes); });
}

template <class V>
SRCELL_INLINE void zero_row(scalar_of<V>* target, int64_t count) {
    for_each_register<V>(
        count, [&](int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE { store_lanes(target + k, splat<V>(0), lanes); });
}

template <class T>
SRCELL_INLINE const T* offset_or_null(const T* p, int64_t offset) {
    return p ? p + offset : nullptr;
}

constexpr int kForRead = 0, kForWrite = 1;

template <int intent, class T>
SRCELL_INLINE void prefetch_row(const T* row, int64_t count) {
    for (int64_t k = 0; k < count; k += 64 / static_cast<int64_t>(sizeof(T))) __builtin_prefetch(row + k, intent);
}

template <class V>
void forward_tile(const ScanForward<scalar_of<V>>& p, const Tile& tile, const TileCell<V>& cell, TileState<V>& state) {
    using T = scalar_of<V>;
    const int64_t plane = p.shape.batch * p.shape.neurons;  // elements from one step to the next
    const int64_t offset = tile.offset;
    load_row<V>(state.i, offset_or_null(p.i0, offset), tile.count);
    load_row<V>(state.h, offset_or_null(p.h0, offset), tile.count);
    load_row<V>(state.hs, offset_or_null(p.hs0, offset), tile.count);
    for (int64_t t = 0; t < tile.steps; ++t) {
        const T* current = p.current + t * plane + offset;
        T* spikes = p.spikes + t * plane + offset;
        if (p.checkpoints && t % kSegment == 0) {
            T* checkpoint = p.checkpoints + t / kSegment * 3 * plane + offset;
            store_row<V>(checkpoint, state.i, tile.count);
            store_row<V>(checkpoint + plane, state.h, tile.count);
            store_row<V>(checkpoint + 2 * plane, state.hs, tile.count);
        }
        if (t + kPrefetch < tile.steps) {
            prefetch_row<kForRead>(current + kPrefetch * plane, tile.count);
            prefetch_row<kForWrite>(spikes + kPrefetch * plane, tile.count);
        }
        for_each_register<V>(tile.count, [&](int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
            State<V> s = state.at(k);
            step(cell.at(k), s, load_lanes<V>(current + k, lanes));
            store_lanes(spikes + k, spike(s.h), lanes);
            state.put(k, s);
        });
    }
    for (int64_t t = tile.steps; t < p.shape.steps; ++t) zero_row<V>(p.spikes + t * plane + offset, tile.count);
    if (p.checkpoints)
        for (int64_t row = 3 * segments(tile.steps); row < 3 * segments(p.shape.steps); ++row)
            zero_row<V>(p.checkpoints + row * plane + offset, tile.count);
    store_row<V>(p.i + offset, state.i, tile.count);
    store_row<V>(p.h + offset, state.h, tile.count);
    store_row<V>(p.hs + offset, state.hs, tile.count);
}

template <class V>
void forward_range(void* context, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ScanForward<scalar_of<V>>*>(context);
    TileCell<V> cell;
    TileState<V> state;
    for (int64_t item = begin; item < end; ++item) {
        const Tile tile = tile_at(p.shape, item);
        load_cell(cell, p.cell, tile, p.shape.neurons);
        forward_tile(p, tile, cell, state);
    }
}

template <class V>
void scan_forward(const ScanForward<scalar_of<V>>& p) {
    auto context = p;
    if (p.shape.neurons) parallel_for(count_tiles(p.shape), p.shape.threads, forward_range<V>, &context);
}

// A segment's steps as the recomputation leaves them for the adjoint. Row 0 of i, h, hs is the state before the
// segment.
template <class V>
struct SegmentTrace {
    alignas(64) Row<V> drive[kSegment], h[kSegment + 1];
    alignas(64) Row<V> q[kSegment], hs[kSegment + 1], i[kSegment + 1];  // left alone where no mode needs them
};

template <class V>
struct TileAdjoint {
    alignas(64) Row<V> i, h, hs;

    SRCELL_INLINE Adjoint<V> at(int64_t k) const { return {load<V>(i + k), load<V>(h + k), load<V>(hs + k)}; }
    SRCELL_INLINE void put(int64_t k, const Adjoint<V>& carry) {
        store(i + k, carry.i);
        store(h + k, carry.h);
        store(hs + k, carry.hs);
    }
};

// Gradients summed over a tile's steps, in the order of ScanBackward: bias first, then alpha ... zs_dep.
template <class V>
struct TileSums {
    alignas(64) Row<V> sum[kSums];

    SRCELL_INLINE ParameterGradients<V> at(int64_t k) const {
        return {load<V>(sum[1] + k), load<V>(sum[2] + k), load<V>(sum[3] + k),
                load<V>(sum[4] + k), load<V>(sum[5] + k), load<V>(sum[6] + k)};
    }
    SRCELL_INLINE void put(int64_t k, const ParameterGradients<V>& gradients) {
        store(sum[1] + k, gradients.alpha);
        store(sum[2] + k, gradients.rho);
        store(sum[3] + k, gradients.r);
        store(sum[4] + k, gradients.rs);
        store(sum[5] + k, gradients.zs_hyp);
        store(sum[6] + k, gradients.zs_dep);
    }
};

template <class V>
struct BackwardScratch {
    TileCell<V> cell;
    TileState<V> state;
    TileAdjoint<V> carry;
    SegmentTrace<V> trace;
    TileSums<V> sums;
};

template <class V, bool recurrent, bool parameters>
void recompute_segment(const ScanBackward<scalar_of<V>>& p, const Tile& tile, int64_t begin, int64_t end,
                       BackwardScratch<V>& scratch) {
    using T = scalar_of<V>;
    const int64_t plane = p.shape.batch * p.shape.neurons;
    const int64_t offset = tile.offset;
    const T* checkpoint = p.checkpoints + begin / kSegment * 3 * plane + offset;
    SegmentTrace<V>& trace = scratch.trace;
    load_row<V>(scratch.state.i, checkpoint, tile.count);
    load_row<V>(scratch.state.h, checkpoint + plane, tile.count);
    load_row<V>(scratch.state.hs, checkpoint + 2 * plane, tile.count);
    for (int64_t t = begin; t < end; ++t) {
        const T* current = p.current + t * plane + offset;
        if (t >= kSegment) prefetch_row<kForRead>(current - kSegment * plane, tile.count);
        if (p.grad_spikes) prefetch_row<kForRead>(p.grad_spikes + t * plane + tile.offset, tile.count);
        prefetch_row<kForWrite>(p.grad_current + t * plane + tile.offset, tile.count);
        const int64_t row = t - begin;
        for_each_register<V>(tile.count, [&](int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
            State<V> s = scratch.state.at(k);
            if constexpr (recurrent || parameters) {
                store(trace.h[row] + k, s.h);
                store(trace.hs[row] + k, s.hs);
            }
            if constexpr (parameters) store(trace.i[row] + k, s.i);
            const Trace<V> made = step(scratch.cell.at(k), s, load_lanes<V>(current + k, lanes));
            store(trace.drive[row] + k, made.drive);
            if constexpr (recurrent || parameters) store(trace.q[row] + k, made.q);
            store(trace.h[row + 1] + k, s.h);
            if constexpr (parameters) store(trace.i[row + 1] + k, s.i);
            scratch.state.put(k, s);
        });
    }
}

template <class V, bool recurrent, bool parameters>
void backward_segment(const ScanBackward<scalar_of<V>>& p, const Tile& tile, int64_t begin, int64_t end,
                      BackwardScratch<V>& scratch) {
    using T = scalar_of<V>;
    const int64_t plane = p.shape.batch * p.shape.neurons;
    const int64_t offset = tile.offset;
    const SegmentTrace<V>& trace = scratch.trace;
    const V silent_up_to = splat<V>(p.relu ? 0 : -2);  // |h| <= 1: with -2 no neuron is silent to the surrogate
    for (int64_t t = end - 1; t >= begin; --t) {
        const T* grad_spikes = offset_or_null(p.grad_spikes, t * plane + offset);
        T* grad_current = p.grad_current + t * plane + offset;
        const int64_t row = t - begin;
        for_each_register<V>(tile.count, [&](int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
            const Cell<V> cell = scratch.cell.at(k);
            Adjoint<V> carry = scratch.carry.at(k);
            const V h = load<V>(trace.h[row + 1] + k), drive = load<V>(trace.drive[row] + k);
            const V incoming = grad_spikes ? load_lanes<V>(grad_spikes + k, lanes) : splat<V>(0);
            const V grad_h = select(less_equal(h, silent_up_to), splat<V>(0), incoming);
            const V grad_hs = carry.hs;
            const StepGradients<V> grad = step_adjoint(cell, carry, grad_h, h, drive);
            store(scratch.sums.sum[0] + k, load<V>(scratch.sums.sum[0] + k) + grad.u);
            store_lanes(grad_current + k, grad.i, lanes);
            if constexpr (parameters) {
                const State<V> before = {load<V>(trace.i[row] + k), load<V>(trace.h[row] + k),
                                         load<V>(trace.hs[row] + k)};
                ParameterGradients<V> sum = scratch.sums.at(k);
                add_parameter_gradients(sum, cell, before, grad, grad_hs, load<V>(trace.i[row + 1] + k), drive,
                                        load<V>(trace.q[row] + k));
                scratch.sums.put(k, sum);
            }
            if constexpr (recurrent)
                carry_recurrence(cell, carry, grad.u, load<V>(trace.h[row] + k), load<V>(trace.hs[row] + k),
                                 load<V>(trace.q[row] + k));
            else
                carry.h = carry.hs = splat<V>(0);
            scratch.carry.put(k, carry);
        });
    }
}

template <class V, bool recurrent, bool parameters>
void backward_tile(const ScanBackward<scalar_of<V>>& p, const Tile& tile, BackwardScratch<V>& scratch) {
    const int64_t plane = p.shape.batch * p.shape.neurons;
    const int64_t offset = tile.offset;
    TileAdjoint<V>& carry = scratch.carry;
    for (int64_t t = tile.steps; t < p.shape.steps; ++t) zero_row<V>(p.grad_current + t * plane + offset, tile.count);
    load_row<V>(carry.i, offset_or_null(p.grad_i, offset), tile.count);
    load_row<V>(carry.h, offset_or_null(p.grad_h, offset), tile.count);
    load_row<V>(carry.hs, offset_or_null(p.grad_hs, offset), tile.count);
    for (int64_t begin = (segments(tile.steps) - 1) * kSegment, end = tile.steps; begin >= 0;
         end = begin, begin -= kSegment) {
        recompute_segment<V, recurrent, parameters>(p, tile, begin, end, scratch);
        backward_segment<V, recurrent, parameters>(p, tile, begin, end, scratch);
    }
    store_row<V>(p.grad_i0 + offset, carry.i, tile.count);
    store_row<V>(p.grad_h0 + offset, carry.h, tile.count);
    store_row<V>(p.grad_hs0 + offset, carry.hs, tile.count);
}

template <class V, bool recurrent, bool parameters>
void backward_range(void* context, int64_t begin, int64_t end) {
    const auto& p = *static_cast<const ScanBackward<scalar_of<V>>*>(context);
    constexpr int64_t used = parameters ? kSums : 1;
    const int64_t plane = p.shape.batch * p.shape.neurons;
    BackwardScratch<V> scratch;
    for (int64_t item = begin; item < end; ++item) {
        const Tile tile = tile_at(p.shape, item);
        load_cell(scratch.cell, p.cell, tile, p.shape.neurons);
        for (int64_t s = 0; s < used; ++s) load_row<V>(scratch.sums.sum[s], nullptr, tile.count);
        backward_tile<V, recurrent, parameters>(p, tile, scratch);
        for (int64_t s = 0; s < used; ++s)
            store_row<V>(p.partials + s * plane + tile.offset, scratch.sums.sum[s], tile.count);
    }
}

// Adds `count` rows of `width` elements, `stride` apart, into the first: in pairs, then in pairs of pairs.
template <class T>
void sum_rows(T* rows, int64_t count, int64_t stride, int64_t width) {
    for (int64_t half = 1; half < count; half *= 2)
        for (int64_t row = 0; row + half < count; row += 2 * half)
            for (int64_t n = 0; n < width; ++n) rows[row * stride + n] += rows[(row + half) * stride + n];
}

template <class V>
void scan_backward(const ScanBackward<scalar_of<V>>& p) {
    using T = scalar_of<V>;
    const CellParameters<T>& cell = p.cell;
    const int64_t strides[kSums] = {cell.bias.stride, cell.alpha.stride,  cell.rho.stride,   cell.r.stride,
                                    cell.rs.stride,   cell.zs_hyp.stride, cell.zs_dep.stride};
    T* targets[kSums] = {p.grad_bias};
    bool parameters = false;
    for (int64_t s = 1; s < kSums; ++s) {
        targets[s] = p.grad_cell[s - 1];
        parameters = parameters || targets[s];
    }
    auto range = p.recurrent ? (parameters ? backward_range<V, true, true> : backward_range<V, true, false>)
                             : (parameters ? backward_range<V, false, true> : backward_range<V, false, false>);
    auto context = p;
    const int64_t neurons = p.shape.neurons, batch = p.shape.batch;
    if (neurons) parallel_for(count_tiles(p.shape), p.shape.threads, range, &context);
    for (int64_t s = 0; s < kSums; ++s) {
        if (!targets[s]) continue;
        const int64_t wanted = strides[s] ? neurons : 1;
        if (batch == 0 || neurons == 0) {
            for (int64_t n = 0; n < wanted; ++n) targets[s][n] = 0;
            continue;
        }
        T* sums = p.partials + s * batch * neurons;
        sum_rows(sums, batch, neurons, neurons);
        if (!strides[s]) sum_rows(sums, neurons, 1, 1);
        for (int64_t n = 0; n < wanted; ++n) targets[s][n] = sums[n];
    }
}
