// What the kernels share: tiles of neurons with their parameters, state and gradients, the adjoint of a segment of
// steps, loops over blocks of registers and over items, and memory of a thread. Included by kernels.cpp inside its
// namespace, after the value types and cell-inl.h; knows rows, but not where they come from.
//
// A tile is up to kTile neighbouring neurons. The time loop runs within a tile, so that the tile's parameters and state
// stay in the L1 cache. Several registers of neurons are in flight at a time, because one step is a long chain of
// dependent operations.

// Steps to prefetch ahead: the rows of a tile are a whole batch apart, too far for the hardware prefetchers.
constexpr int64_t kPrefetch = 3;

template <class V>
struct Kind {
    using type = V;
};

// One register if V is a pair of them, otherwise V.
template <class V>
struct SingleOf : Kind<V> {};
template <class V>
struct SingleOf<Pair<V>> : Kind<V> {};
template <class V>
using single_of = typename SingleOf<V>::type;

template <class V>
using Row = scalar_of<V>[kTile];

template <class V>
struct TileCell {
    static constexpr int fields = std::size(kCellFields<V>), turn = fields - 1;

    alignas(64) Row<V> rows[fields];

    template <class R>
    SRCELL_INLINE Cell<R> at(int64_t k) const {
        return gather<R>(k, std::make_integer_sequence<int, fields>());
    }
    // Stores all but the turn.
    template <class R>
    SRCELL_INLINE void put(int64_t k, const Cell<R>& cell) {
        for (int f = 0; f < turn; ++f) store(rows[f] + k, cell.*kCellFields<R>[f]);
    }

  private:
    template <class R, int... f>
    SRCELL_INLINE Cell<R> gather(int64_t k, std::integer_sequence<int, f...>) const {
        return {load<R>(rows[f] + k)...};
    }
};

// The states of a tile's neurons, or the gradients of them that the adjoint carries: Of is a state or an adjoint.
template <class V, template <class> class Of>
struct TileOf {
    static constexpr bool resonant = is_resonant<Of<V>>;

    alignas(64) Row<V> of[states_of(resonant)];

    template <class R>
    SRCELL_INLINE Of<R> at(int64_t k) const {
        return make_state<Of<R>>([&](int state) SRCELL_LAMBDA_INLINE { return load<R>(of[state] + k); });
    }
    template <class R>
    SRCELL_INLINE void put(int64_t k, const Of<R>& made) {
        for_each_state(made, [&](int state, const R& x) SRCELL_LAMBDA_INLINE { store(of[state] + k, x); });
    }
};

template <class V, bool resonant>
using TileState = std::conditional_t<resonant, TileOf<V, ResonantState>, TileOf<V, State>>;
template <class V, bool resonant>
using TileAdjoint = std::conditional_t<resonant, TileOf<V, ResonantAdjoint>, TileOf<V, Adjoint>>;

// The position of a tile in a (B, N) plane: elements [offset, offset + count), the first of which belongs to neuron
// `first`. All take `steps` steps.
struct Tile {
    int64_t offset, count, first, steps;
};

// Calls body(Kind<R>, k, lanes) for each register of the tile, which holds the tile's elements k ... k + width - 1;
// only the first `lanes` are in use, all if lanes >= width. R is V, or single_of<V> for a remainder that fits in one
// register.
template <class V, class Body>
SRCELL_INLINE void for_each_register(int64_t count, Body body) {
    constexpr int64_t single = VecTraits<single_of<V>>::width;
    int64_t k = 0;
    for (; k + single < count; k += VecTraits<V>::width) body(Kind<V>{}, k, count - k);
    if (k < count) body(Kind<single_of<V>>{}, k, count - k);
}

// Calls body(std::integral_constant<int, n>{}, k) for blocks of n <= 8 registers, from element k on, that cover `width`
// elements, a multiple of the register width.
template <class S, class Body>
SRCELL_INLINE void for_each_block(int64_t width, Body body) {
    constexpr int64_t lanes = VecTraits<S>::width, most = 8;
    for (int64_t k = 0; k < width; k += most * lanes) {
        const int64_t left = (width - k) / lanes;
        switch (left < most ? left : most) {
#define SRCELL_BLOCK(n)                            \
    case n:                                        \
        body(std::integral_constant<int, n>{}, k); \
        break;
            SRCELL_BLOCK(1)
            SRCELL_BLOCK(2)
            SRCELL_BLOCK(3)
            SRCELL_BLOCK(4)
            SRCELL_BLOCK(5)
            SRCELL_BLOCK(6)
            SRCELL_BLOCK(7)
            SRCELL_BLOCK(8)
#undef SRCELL_BLOCK
        }
    }
}

// Memory of one thread, aligned to cache lines: the caller's, or its own; null if the allocation failed.
class ThreadMemory {
  public:
    explicit ThreadMemory(int64_t bytes, void* given = nullptr)
        : own_(given ? nullptr : allocate_aligned(64, size(bytes))), first_(static_cast<char*>(given ? given : own_)) {}
    ~ThreadMemory() { free_aligned(own_); }
    ThreadMemory(const ThreadMemory&) = delete;
    ThreadMemory& operator=(const ThreadMemory&) = delete;

    explicit operator bool() const { return first_; }

    // Takes the next `count` elements. All elements taken must fit in the constructor's `bytes`.
    template <class T>
    T* take(int64_t count) {
        T* taken = reinterpret_cast<T*>(first_ + used_);
        used_ += bytes_of<T>(count);
        return taken;
    }

    template <class T>
    static int64_t bytes_of(int64_t count) {
        return ceil_div(count * static_cast<int64_t>(sizeof(T)), 64) * 64;
    }

  private:
    static size_t size(int64_t bytes) { return static_cast<size_t>(bytes ? bytes : 64); }

    void* own_;
    char* first_;
    int64_t used_ = 0;
};

// Calls pass(call, item) for each item, on `threads` threads.
template <auto pass, class Call>
void for_each_item(int64_t items, int threads, const Call& call) {
    const auto range = [](void* self, int64_t begin, int64_t end) {
        for (int64_t item = begin; item < end; ++item) pass(*static_cast<const Call*>(self), item);
    };
    Call context = call;
    parallel_for(items, threads, range, &context);
}

// Fills Turn::along and Turn::across, of `count` elements: 1, or N.
template <class T>
void make_turn(const CellParameters<T>& cell, int64_t count, T* along, T* across) {
    for (int64_t n = 0; n < count; ++n) {
        const auto alpha = static_cast<double>(cell.of[kAlpha].at(n));
        const Turned<double> made = turn_of(alpha, static_cast<double>(cell.of[kOmega].at(n)));
        along[n] = static_cast<T>(made.along);
        across[n] = static_cast<T>(made.across);
    }
}

// Writes one parameter's values for a tile. A tile over several samples has the same neurons several times. Unused
// lanes of the last register get the parameter's value of some neuron.
template <class V>
void spread(Row<V>& row, const Parameter<scalar_of<V>>& parameter, const Tile& tile, int64_t neurons) {
    constexpr int64_t width = VecTraits<V>::width;
    const int64_t padded = ceil_div(tile.count, width) * width;
    if (!parameter.stride) {
        const scalar_of<V> value = parameter.at(0);
        for (int64_t k = 0; k < padded; k += width) store(row + k, splat<V>(value));
        return;
    }
    for (int64_t k = 0, n = tile.first; k < padded; ++k, n = n + 1 == neurons ? 0 : n + 1) row[k] = parameter.data[n];
}

// Call is a CellForward or a CellBackward.
template <bool resonant, class V, class Call>
void load_cell(TileCell<V>& tile, const Call& call, const Tile& where) {
    using T = scalar_of<V>;
    alignas(64) Row<V> rows[kParameters];
    for (int p = 0; p < parameters_of(false); ++p) {
        if (resonant && p == kAlpha) continue;
        spread<V>(rows[p], call.cell.of[p], where, call.shape.neurons);
    }
    if constexpr (resonant) {
        const Turn<T>& turn = call.turn;
        spread<V>(rows[kAlpha], Parameter<T>{turn.along, turn.stride}, where, call.shape.neurons);
        spread<V>(tile.rows[tile.turn], Parameter<T>{turn.across, turn.stride}, where, call.shape.neurons);
    }
    for_each_register<V>(where.count, [&](auto kind, int64_t k, int64_t) SRCELL_LAMBDA_INLINE {
        using R = typename decltype(kind)::type;

        R parameters[kParameters];
        for (int p = 0; p < parameters_of(false); ++p) parameters[p] = load<R>(rows[p] + k);
        parameters[kOmega] = splat<R>(0);  // `turn` is written already, if there is one
        tile.put(k, make_cell(parameters, splat<R>(call.cell.bias_max)));
    });
}

// `source` points at the tile's first element in a (B, N) array; null stands for zeros.
template <class V>
void load_row(Row<V>& row, const scalar_of<V>* source, int64_t count) {
    for_each_register<V>(count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
        using R = typename decltype(kind)::type;

        store(row + k, source ? load_lanes<R>(source + k, lanes) : splat<R>(0));
    });
}

template <class V>
void store_row(scalar_of<V>* target, const Row<V>& row, int64_t count) {
    for_each_register<V>(count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
        using R = typename decltype(kind)::type;
        store_lanes(target + k, load<R>(row + k), lanes);
    });
}

template <class V>
SRCELL_INLINE void zero_row(scalar_of<V>* target, int64_t count) {
    for_each_register<V>(count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
        using R = typename decltype(kind)::type;
        store_lanes(target + k, splat<R>(0), lanes);
    });
}

template <class T>
SRCELL_INLINE const T* offset_or_null(const T* p, int64_t offset) {
    return p ? p + offset : nullptr;
}

constexpr int kForRead = 0, kForWrite = 1;

// A row need not start at a cache line, so it may extend one line further than its size suggests.
template <int intent, class T>
SRCELL_INLINE void prefetch_row(const T* row, int64_t count) {
    constexpr int64_t line = 64 / static_cast<int64_t>(sizeof(T));
    for (int64_t k = 0; k < count; k += line) __builtin_prefetch(row + k, intent);
    if (intent == kForRead) __builtin_prefetch(row + ceil_div(count, line) * line - 1, intent);
}

// Returns choose(mode) for the mode of a call.
template <class T, class Choose>
auto with_mode(const CellBackward<T>& p, Choose choose) {
    const auto with_resonance = [&](auto parameters) {
        constexpr bool g = decltype(parameters)::value;
        return p.turn ? choose(BackwardMode<true, g, true>{}) : choose(BackwardMode<true, g, false>{});
    };
    return p.wants_parameters() ? with_resonance(std::true_type{}) : with_resonance(std::false_type{});
}

// What the adjoint needs from the recomputation of a segment's steps: of each state in which a mode needs it, that
// before the segment and after each step.
template <class V, int64_t steps>
struct SegmentTrace {
    alignas(64) Row<V> drive[steps], of[kCellStates][steps + 1], gate[steps];
};

// Gradients of the parameters, summed over a tile's steps.
template <class V>
struct TileSums {
    alignas(64) Row<V> of[kParameters];
};

template <class V, class Mode, int64_t steps>
struct BackwardScratch {
    TileCell<V> cell;
    TileState<V, Mode::resonant> state;
    TileAdjoint<V, Mode::resonant> carry;
    SegmentTrace<V, steps> trace;
    TileSums<V> sums;
};

// The rows of a segment's steps in an array: step k has row first + k * stride, which has room for `room` elements.
// `first` is null if there is no array.
template <class T>
struct SegmentRows {
    T* first;
    int64_t stride, room;

    SRCELL_INLINE T* row(int64_t k) const { return first ? first + k * stride : nullptr; }
};

// The adjoint of a segment's step `row`: from the gradients of its spikes to those of its current, which has room for
// `room` elements. With `lateral`, grad_lateral holds the gradients of the spikes through the recurrent weights.
template <class V, bool lateral, class Mode, int64_t kSteps>
SRCELL_INLINE void adjoint_row(const scalar_of<V>* grad_in, bool full, bool relu, const scalar_of<V>* grad_lateral,
                               scalar_of<V>* grad_out, int64_t room, int64_t row, int64_t count,
                               BackwardScratch<V, Mode, kSteps>& scratch) {
    const SegmentTrace<V, kSteps>& trace = scratch.trace;
    const scalar_of<V> silent_up_to = relu ? 0 : -2;  // straight-through: h >= -1, so every gradient passes
    for_each_register<V>(count, [&](auto kind, int64_t k, int64_t lanes) SRCELL_LAMBDA_INLINE {
        using R = typename decltype(kind)::type;

        const Cell<R> cell = scratch.cell.template at<R>(k);
        auto carry = scratch.carry.template at<R>(k);
        const R h = load<R>(trace.of[kH][row + 1] + k), drive = load<R>(trace.drive[row] + k);
        const R incoming = grad_in ? load_lanes<R>(grad_in + k, lanes) : splat<R>(0);
        R grad_h = select(less_equal(h, splat<R>(silent_up_to)), splat<R>(0), incoming);
        if constexpr (lateral) grad_h = grad_h + load<R>(grad_lateral + k);
        const auto arrived = carry;
        const StepGradients<R> grad = step_adjoint(cell, carry, grad_h, h, drive);
        store_lanes(grad_out + k, grad.i, room - k);
        if constexpr (Mode::parameters) {
            const auto before = make_state<StateOf<R, Mode::resonant>>(
                [&](int state) SRCELL_LAMBDA_INLINE { return load<R>(trace.of[state][row] + k); });
            R sums[kParameters];
            for (int p = 0; p < Mode::sums; ++p) sums[p] = load<R>(scratch.sums.of[p] + k);
            add_parameter_gradients(sums, cell, before, grad, arrived, load<R>(trace.of[kI][row + 1] + k), drive,
                                    load<R>(trace.gate[row] + k));
            for (int p = 0; p < Mode::sums; ++p) store(scratch.sums.of[p] + k, sums[p]);
        } else {
            store(scratch.sums.of[kBias] + k, load<R>(scratch.sums.of[kBias] + k) + grad.u);
        }
        if (full)
            carry_recurrence(cell, carry, grad.u, load<R>(trace.of[kH][row] + k), load<R>(trace.of[kHs][row] + k),
                             load<R>(trace.gate[row] + k));
        else
            carry.h = carry.hs = splat<R>(0);
        scratch.carry.put(k, carry);
    });
}

// The adjoint of the `steps` steps of a segment, last to first.
template <class V, class Mode, int64_t kSteps>
void adjoint_segment(const SegmentRows<const scalar_of<V>>& grad_spikes, bool full, bool relu,
                     const SegmentRows<scalar_of<V>>& grad_current, int64_t steps, int64_t count,
                     BackwardScratch<V, Mode, kSteps>& scratch) {
    for (int64_t row = steps - 1; row >= 0; --row)
        adjoint_row<V, false>(grad_spikes.row(row), full, relu, nullptr, grad_current.row(row), grad_current.room, row,
                              count, scratch);
}

// Calls body(k) for each k in [first, last): unrolled, because compilers keep a loop and then spill registers around
// it.
template <int first, int last, class Body>
SRCELL_INLINE void for_each_number(Body body) {
    if constexpr (first < last) {
        body(first);
        for_each_number<first + 1, last>(body);
    }
}

template <class V, class Any>
void load_tile(Any& to, const States<const scalar_of<V>>& from, const Tile& tile) {
    for_each_number<0, states_of(Any::resonant)>([&](int state) SRCELL_LAMBDA_INLINE {
        load_row<V>(to.of[state], offset_or_null(from.of[state], tile.offset), tile.count);
    });
}

template <class V, class Any>
void store_tile(const Any& from, const States<scalar_of<V>>& to, const Tile& tile) {
    for_each_number<0, states_of(Any::resonant)>(
        [&](int state) SRCELL_LAMBDA_INLINE { store_row<V>(to.of[state] + tile.offset, from.of[state], tile.count); });
}

// Checkpoints hold the state before each segment of steps, in checkpoint_rows() planes (B, N) each: without i beside a
// trace, which has it.
template <bool traced>
constexpr int64_t kStepsOfSegment = traced ? kEventSegment : kSegment;

// Calls body(to, row) for the tile's part `to` of each plane of the checkpoint before step t, and the row of the state.
template <bool traced, class Call, class AnyTileState, class Body>
SRCELL_INLINE void visit_checkpoint(const Call& p, const Tile& tile, int64_t t, AnyTileState& state, Body body) {
    constexpr int rows = checkpoint_rows(AnyTileState::resonant, traced);
    const int64_t plane = p.shape.batch * p.shape.neurons;
    auto* to = p.checkpoints + t / kStepsOfSegment<traced> * rows * plane + tile.offset;
    constexpr int first = first_of_checkpoint(traced);
    for_each_number<first, first + rows>([&](int of)
                                             SRCELL_LAMBDA_INLINE { body(to + (of - first) * plane, state.of[of]); });
}

// Saves the state if step t is the first of a segment.
template <class V, bool traced, class Call, class AnyTileState>
SRCELL_INLINE void save_checkpoint(const Call& p, const Tile& tile, int64_t t, AnyTileState& state) {
    if (t % kStepsOfSegment<traced> == 0)
        visit_checkpoint<traced>(p, tile, t, state, [&](scalar_of<V>* to, const Row<V>& row) SRCELL_LAMBDA_INLINE {
            store_row<V>(to, row, tile.count);
        });
}

template <class V, bool traced, class Call, class AnyTileState>
SRCELL_INLINE void load_checkpoint(const Call& p, const Tile& tile, int64_t t, AnyTileState& state) {
    visit_checkpoint<traced>(p, tile, t, state, [&](const scalar_of<V>* from, Row<V>& row) SRCELL_LAMBDA_INLINE {
        load_row<V>(row, from, tile.count);
    });
}

// Fills the checkpoints past the length of the tile's samples with 0.
template <class V, bool traced, bool resonant, class Call>
void zero_checkpoints(const Call& p, const Tile& tile) {
    constexpr int64_t rows = checkpoint_rows(resonant, traced), steps = kStepsOfSegment<traced>;
    const int64_t plane = p.shape.batch * p.shape.neurons;
    for (int64_t row = rows * segments(tile.steps, steps); row < rows * segments(p.shape.steps, steps); ++row)
        zero_row<V>(p.checkpoints + row * plane + tile.offset, tile.count);
}

template <class V, class Mode, int64_t steps>
void clear_sums(BackwardScratch<V, Mode, steps>& scratch, const Tile& tile) {
    for (int64_t s = 0; s < Mode::sums; ++s) load_row<V>(scratch.sums.of[s], nullptr, tile.count);
}

template <class V, class Mode, int64_t steps>
void store_sums(const CellBackward<scalar_of<V>>& p, const BackwardScratch<V, Mode, steps>& scratch, const Tile& tile) {
    const int64_t plane = p.shape.batch * p.shape.neurons;
    for (int64_t s = 0; s < Mode::sums; ++s)
        store_row<V>(p.partials + s * plane + tile.offset, scratch.sums.of[s], tile.count);
}

// Adds `count` rows of `width` elements, `stride` apart, into the first, in a fixed tree: pairs, then pairs of pairs.
template <class T>
void sum_rows(T* rows, int64_t count, int64_t stride, int64_t width) {
    for (int64_t half = 1; half < count; half *= 2)
        for (int64_t row = 0; row + half < count; row += 2 * half)
            for (int64_t n = 0; n < width; ++n) rows[row * stride + n] += rows[(row + half) * stride + n];
}

// The samples' parts of the gradients of the factors, added in a fixed tree.
template <class T>
void sum_factors(const Samples& shape, const Delays<T>& delays, T* partials, T* grad_factors) {
    const int64_t count = delays.numbers * delays.terms;
    if (!grad_factors) return;
    sum_rows(partials, shape.batch, count, count);
    for (int64_t k = 0; k < count; ++k) grad_factors[k] = shape.batch ? partials[k] : T(0);
}

// Turns the partial sums of the gradients of alpha cos(omega) and alpha sin(omega) into those of alpha and omega.
template <class T>
void unturn_gradients(const CellBackward<T>& p) {
    constexpr int64_t block = 256;  // neurons
    const int64_t neurons = p.shape.neurons, plane = p.shape.batch * neurons;
    T *const along = p.partials + kAlpha * plane, *const across = p.partials + kOmega * plane;
    double alpha[block];
    SineCosine<double> omega[block];
    for (int64_t first = 0; first < neurons && plane; first += block) {  // without samples there may be 2^62 neurons
        const int64_t count = neurons - first < block ? neurons - first : block;
        for (int64_t k = 0; k < count; ++k) {
            alpha[k] = static_cast<double>(p.cell.of[kAlpha].at(first + k));
            omega[k] = sine_cosine(static_cast<double>(p.cell.of[kOmega].at(first + k)));
        }
        for (int64_t row = first; row < plane; row += neurons)
            for (int64_t k = 0; k < count; ++k) {
                const Turned<double> grad = unturned(alpha[k], omega[k], {along[row + k], across[row + k]});
                along[row + k] = static_cast<T>(grad.along);
                across[row + k] = static_cast<T>(grad.across);
            }
    }
}

// The gradients of the parameters from their partial sums; zero if there are none.
template <class T>
void reduce_parameters(const CellBackward<T>& p) {
    const int64_t neurons = p.shape.neurons, batch = p.shape.batch;
    if (p.turn && (p.grad_parameters[kAlpha] || p.grad_parameters[kOmega])) unturn_gradients(p);
    for (int s = 0; s < kParameters; ++s) {
        T* target = p.grad_parameters[s];
        if (!target) continue;
        const int64_t stride = p.cell.of[s].stride, wanted = stride ? neurons : 1;
        if (batch == 0 || neurons == 0) {
            for (int64_t n = 0; n < wanted; ++n) target[n] = 0;
            continue;
        }
        T* sums = p.partials + s * batch * neurons;
        sum_rows(sums, batch, neurons, neurons);
        if (!stride) sum_rows(sums, neurons, 1, 1);
        for (int64_t n = 0; n < wanted; ++n) target[n] = sums[n];
        const int64_t copies = stride ? p.cell.bias_copies : 1;
        for (int64_t n = 0; s == kBias && n < wanted; n += copies) hold_bias<T>(p.cell, n, target + n, copies);
    }
}
