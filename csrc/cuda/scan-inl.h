// The time loop over given currents on a GPU: one thread takes one neuron of one sample through time, with its state in
// registers; neighbouring threads take neighbouring neurons. Threads share no data. Included by device.h inside its
// namespace, after cell-inl.h and launch-inl.h; knows arrays and shapes, and never looks inside the equations.

// The work of one thread: `element` of a (B, N) plane, which is `neuron` of a sample with `steps` steps.
struct Chain {
    int64_t element, neuron, steps;
};

SRCELL_INLINE Chain chain_at(const ScanShape& shape, int64_t element) {
    const int64_t sample = element / shape.neurons;
    return {element, element - sample * shape.neurons, steps_of(shape, sample)};
}

template <bool resonant, class T>
SRCELL_INLINE Cell<Value<T>> cell_of(const CellParameters<T>& p, const Turn<T>& turn, int64_t n) {
    Value<T> parameters[kParameters];
    for (int k = 0; k < parameters_of(false); ++k) parameters[k] = parameter_of(p.of[k], n);
    parameters[kOmega] = splat<Value<T>>(0);
    if constexpr (resonant) {
        parameters[kAlpha] = {turn.along[turn.stride * n]};
        parameters[kOmega] = {turn.across[turn.stride * n]};
    }
    return make_cell(parameters, Value<T>{p.bias_max});
}

template <class T>
SRCELL_INLINE auto value_or_zero(const T* values, int64_t at) {
    return values ? get(values + at) : splat<decltype(get(values))>(0);
}

// An element of the arrays of a state or of its gradients.
template <class Any, class T>
SRCELL_INLINE Any element_of(const States<T>& from, int64_t at) {
    return make_state<Any>([&](int state) { return value_or_zero(from.of[state], at); });
}

template <class Any, class T>
SRCELL_INLINE void store_element(const States<T>& to, int64_t at, const Any& made) {
    for_each_state(made, [&](int state, Value<T> x) { to.of[state][at] = x.x; });
}

// Saves the state before a segment, in checkpoint_rows() rows of a plane.
template <bool traced, class T, class Any>
SRCELL_INLINE void save_checkpoint(T* row, int64_t plane, const Any& made) {
    constexpr int first = first_of_checkpoint(traced);
    for_each_state(made, [&](int state, Value<T> x) {
        if (state >= first) row[(state - first) * plane] = x.x;
    });
}

// i is 0 if there is a trace, which holds it.
template <bool resonant, bool traced, class T>
SRCELL_INLINE StateOf<Value<T>, resonant> load_checkpoint(const T* row, int64_t plane) {
    constexpr int first = first_of_checkpoint(traced);
    return make_state<StateOf<Value<T>, resonant>>(
        [&](int state) { return state < first ? splat<Value<T>>(0) : Value<T>{row[(state - first) * plane]}; });
}

// `values` is null if the array is empty: without steps, or without inputs.
template <class T>
SRCELL_INLINE T* element_or_null(T* values, int64_t at) {
    return values ? values + at : nullptr;
}

// Calls use(t, read(t)) for each t below `count`, but reads the next kAhead values before it uses the previous kAhead,
// so that no step waits for memory.
template <class Read, class Use>
SRCELL_INLINE void read_ahead(int64_t count, Read read, Use use) {
    constexpr int kAhead = 4;
    decltype(read(0)) now[kAhead], next[kAhead];
    const int64_t whole = count - count % kAhead;
    if (whole)
        for (int j = 0; j < kAhead; ++j) next[j] = read(j);
    for (int64_t begin = 0; begin < whole; begin += kAhead) {
        for (int j = 0; j < kAhead; ++j) now[j] = next[j];
        if (begin + kAhead < whole)
            for (int j = 0; j < kAhead; ++j) next[j] = read(begin + kAhead + j);
        for (int j = 0; j < kAhead; ++j) use(begin + j, now[j]);
    }
    for (int64_t t = whole; t < count; ++t) use(t, read(t));
}

// The array of element type Out: `numbers`, or `halves` for a 16-bit type.
template <class Out, class T, class Void>
SRCELL_INLINE auto either(T* numbers, Void* halves) {
    if constexpr (std::is_same_v<std::remove_const_t<T>, Out>)
        return numbers;
    else
        return static_cast<std::conditional_t<std::is_const_v<T>, const Out, Out>*>(halves);
}

template <class T, bool save, bool resonant, class In, class Out>
SRCELL_INLINE void scan_forward_chain(const DeviceScanForward<T>& p, int64_t element) {
    constexpr int64_t saved = checkpoint_rows(resonant, false);
    const int64_t plane = p.shape.batch * p.shape.neurons;
    const Chain chain = chain_at(p.shape, element);
    const Cell<Value<T>> cell = cell_of<resonant>(p.cell, p.turn, chain.neuron);
    auto state = element_of<StateOf<Value<T>, resonant>>(p.before, element);
    const In* current = element_or_null(static_cast<const In*>(p.current), element);
    Out* spikes = element_or_null(either<Out>(p.spikes, p.half_spikes), element);
    read_ahead(
        chain.steps, [&](int64_t t) { return get(current + t * plane); },
        [&](int64_t t, Value<T> c) {
            if (save && t % kSegment == 0)
                save_checkpoint<false>(p.checkpoints + t / kSegment * saved * plane + element, plane, state);
            step(cell, state, c);
            put(spikes + t * plane, spike(state.h));
        });
    for (int64_t t = chain.steps; t < p.shape.steps; ++t) put(spikes + t * plane, splat<Value<T>>(0));
    if (save)
        for (int64_t row = saved * segments(chain.steps); row < saved * segments(p.shape.steps); ++row)
            p.checkpoints[row * plane + element] = 0;
    store_element(p.after, element, state);
}

// What the adjoint needs from the recomputation of a segment, the kSegment steps after a checkpoint: each thread has
// its own column of shared memory, whose rows are `stride` elements apart, the number of threads in a block.
template <class T, class Mode>
struct ChainTrace {
    // Of each step the drive and, in modes that need it, the gate; of the states that are needed, those before the
    // segment and after each step. That after a step is needed of h always.
    static constexpr bool has_gate = Mode::needs(kHs);
    static constexpr int kFirst = (1 + has_gate) * kSegment;

    SRCELL_HOST_DEVICE static constexpr bool has(int state) { return state == kH || Mode::needs(state); }
    // The first row of a state; of kCellStates, the number of rows.
    SRCELL_HOST_DEVICE static constexpr int row_of(int state) {
        int row = kFirst;
        for (int k = 0; k < state; ++k) row += k < states_of(Mode::resonant) && has(k) ? kSegment + 1 : 0;
        return row;
    }
    static constexpr int kRows = row_of(kCellStates);

    T* column;
    int64_t stride;

    SRCELL_INLINE T& drive(int t) const { return column[t * stride]; }
    SRCELL_INLINE T& gate(int t) const { return column[(kSegment + t) * stride]; }
    SRCELL_INLINE T& of(int state, int t) const { return column[(row_of(state) + t) * stride]; }
    // The state before step t.
    template <class Any>
    SRCELL_INLINE void put(int t, const Any& made) const {
        for_each_state(made, [&](int state, Value<T> x) {
            if (has(state)) of(state, t) = x.x;
        });
    }
    SRCELL_INLINE auto before(int t) const {
        return make_state<StateOf<Value<T>, Mode::resonant>>([&](int state) { return Value<T>{of(state, t)}; });
    }
};

// Recomputes a segment's steps from the checkpoint before the segment and from the currents.
template <class T, bool resonant, class In>
struct CurrentReplay {
    const DeviceScanBackward<T>& p;
    int64_t element, plane;

    SRCELL_INLINE StateOf<Value<T>, resonant> begin(int64_t step) const {
        const int64_t row = step / kSegment * checkpoint_rows(resonant, false);
        return load_checkpoint<resonant, false>(p.checkpoints + row * plane + element, plane);
    }
    SRCELL_INLINE Value<T> read(int64_t t) const {
        return get(static_cast<const In*>(p.current) + t * plane + element);
    }
    SRCELL_INLINE Trace<Value<T>> advance(const Cell<Value<T>>& cell, StateOf<Value<T>, resonant>& state,
                                          Value<T> current) const {
        return step(cell, state, current);
    }
};

// The adjoint of a chain's steps, last to first.
template <class Mode, class T, class Replay, class Arriving, class Out>
SRCELL_INLINE void backward_chain(const CellBackward<T>& p, const Chain& chain, const Replay& replay,
                                  const Arriving* grad_spikes, Out* grad_current, T* column, int64_t stride) {
    using V = Value<T>;
    constexpr bool parameters = Mode::parameters, resonant = Mode::resonant;
    const int64_t plane = p.shape.batch * p.shape.neurons, element = chain.element;
    const Cell<V> cell = cell_of<resonant>(p.cell, p.turn, chain.neuron);
    using Kept = ChainTrace<T, Mode>;
    const Kept trace = {column, stride};
    const T silent_up_to = p.relu ? T(0) : T(-2);  // straight-through: h >= -1 > -2, so every gradient passes
    auto carry = element_of<AdjointOf<V, resonant>>(p.grad_after, element);
    const V zero = splat<V>(0);
    V sums[kParameters];
    for (V& sum : sums) sum = zero;
    for (int64_t t = chain.steps; t < p.shape.steps; ++t) put(grad_current + t * plane + element, zero);
    for (int64_t begin = (segments(chain.steps) - 1) * kSegment, end = chain.steps; begin >= 0;
         end = begin, begin -= kSegment) {
        StateOf<V, resonant> state = replay.begin(begin);
        const int steps = static_cast<int>(end - begin);
        trace.put(0, state);
        const auto recompute = [&](int64_t at, V read) {
            const int t = static_cast<int>(at);
            const Trace<V> made = replay.advance(cell, state, read);
            trace.drive(t) = made.drive.x;
            if constexpr (Kept::has_gate) trace.gate(t) = made.gate.x;
            trace.put(t + 1, state);
        };
        read_ahead(steps, [&](int64_t t) { return replay.read(begin + t); }, recompute);
        const auto arriving = [&](int64_t back) {
            return value_or_zero(grad_spikes, (end - 1 - back) * plane + element);
        };
        read_ahead(steps, arriving, [&](int64_t back, V grad_spike) {
            const int t = steps - 1 - static_cast<int>(back);
            const V h = {trace.of(kH, t + 1)}, drive = {trace.drive(t)};
            const V grad_h = select(less_equal(h, splat<V>(silent_up_to)), zero, grad_spike);
            const auto arrived = carry;
            const StepGradients<V> grad = step_adjoint(cell, carry, grad_h, h, drive);
            put(grad_current + (begin + t) * plane + element, grad.i);
            if constexpr (parameters) {
                add_parameter_gradients(sums, cell, trace.before(t), grad, arrived, V{trace.of(kI, t + 1)}, drive,
                                        V{trace.gate(t)});
            } else {
                sums[kBias] = sums[kBias] + grad.u;
            }
            if constexpr (Mode::full_gradient)
                carry_recurrence(cell, carry, grad.u, V{trace.of(kH, t)}, V{trace.of(kHs, t)}, V{trace.gate(t)});
            else
                carry.h = carry.hs = zero;
        });
    }
    store_element(p.grad_before, element, carry);
    for (int k = 0; k < Mode::sums; ++k) p.partials[k * plane + element] = sums[k].x;
}

// The number of blocks of 128 threads for which a processor must have registers. With 8, an H100 runs all chains of 256
// samples of 512 neurons at once. In the backward pass fewer blocks fit in the H100's shared memory if a thread has to
// keep more of each step.
template <class T>
constexpr int forward_blocks = sizeof(T) == sizeof(float) ? 8 : 1;
template <class T, class Mode>
constexpr int backward_blocks = sizeof(T) > sizeof(float) || Mode::parameters ? 1
                                : Mode::full_gradient                         ? 6
                                                                              : 8;

template <class T, bool save, bool resonant, class In, class Out>
struct ScanForwardBody {
    static constexpr int kMinBlocks = forward_blocks<T>;
    DeviceScanForward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item();
        if (element < p.shape.batch * p.shape.neurons) scan_forward_chain<T, save, resonant, In, Out>(p, element);
    }
};

template <class T, class Mode, class In, class Out>
struct ScanBackwardBody {
    static constexpr int kMinBlocks = backward_blocks<T, Mode>;
    DeviceScanBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const CurrentReplay<T, Mode::resonant, In> replay = {p, element, plane};
        const Out* grad_spikes = either<Out>(p.grad_spikes, p.half_grad_spikes);
        backward_chain<Mode>(p, chain_at(p.shape, element), replay, grad_spikes, static_cast<In*>(p.grad_current),
                             place.shared_as<T>() + place.thread, place.threads);
    }
};

template <class In>
struct Stored {
    using type = In;
};

// Calls body(Stored<In>{}, Stored<Out>{}), with the element types of a call's currents and spikes.
template <class T, class Body>
void with_elements(Element element, bool half_spikes, Body body) {
    const auto with = [&](auto in) { half_spikes ? body(in, in) : body(in, Stored<T>{}); };
    if constexpr (sizeof(T) == sizeof(float)) {
        if (element == Element::float16) return with(Stored<Float16>{});
        if (element == Element::bfloat16) return with(Stored<BFloat16>{});
    }
    body(Stored<T>{}, Stored<T>{});
}

template <class T>
void scan_forward(Queue& queue, const DeviceScanForward<T>& p) {
    const Launch how = spread(queue, p.shape.batch * p.shape.neurons);
    with_elements<T>(p.element, p.half_spikes, [&](auto in, auto out) {
        using In = typename decltype(in)::type;
        using Out = typename decltype(out)::type;
        with_flags(p.checkpoints, bool(p.turn), [&](auto save, auto resonant) {
            launch(queue, how, ScanForwardBody<T, decltype(save)::value, decltype(resonant)::value, In, Out>{p});
        });
    });
}

// Calls choose(mode) with the mode of a call.
template <class T, class Choose>
void with_mode(const CellBackward<T>& p, Choose choose) {
    with_flags(p.wants_parameters(), bool(p.turn), [&](auto parameters, auto resonant) {
        constexpr bool g = decltype(parameters)::value, r = decltype(resonant)::value;
        p.full_gradient ? choose(BackwardMode<true, g, r>{}) : choose(BackwardMode<false, g, r>{});
    });
}

// Launches the instance of Body for the call's mode, with a column of shared memory for each thread.
template <template <class, class, class...> class Body, class T, class... Elements, class Call>
void launch_backward(Queue& queue, const Call& p) {
    const int64_t chains = p.shape.batch * p.shape.neurons;
    with_mode<T>(p, [&](auto mode) {
        using Mode = decltype(mode);
        const int column = ChainTrace<T, Mode>::kRows * static_cast<int>(sizeof(T));
        launch(queue, spread(queue, chains, column), Body<T, Mode, Elements...>{p});
    });
}

template <class T>
void scan_backward(Queue& queue, const DeviceScanBackward<T>& p) {
    with_elements<T>(p.element, p.half_grad_spikes, [&](auto in, auto out) {
        launch_backward<ScanBackwardBody, T, typename decltype(in)::type, typename decltype(out)::type>(queue, p);
    });
    reduce_parameters(queue, p);
}
