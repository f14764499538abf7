// The time loop over events on a GPU. Knows events and weights, and never looks inside the equations.
//
// In the forward pass a thread advances one neuron of one sample: at each step the thread adds the weights of the
// step's events in order and then advances the neuron, so a current exists for one step only. Neighbouring threads read
// neighbouring elements of the transposed weight. A block first copies the weights of its neurons to shared memory if
// the weights fit and enough events use them. The backward pass gives the gradient of every current; from these,
// synapse.h computes the gradients of weights and event values.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

// The input current of a neuron of a sample at a step: the sum over events of value times weight, from +0.
template <class T>
SRCELL_INLINE Value<T> gather(const Events<T>& events, const ScanShape& shape, int64_t sample, int64_t t,
                              const T* weights, int64_t stride) {
    Value<T> sum = splat<Value<T>>(0);
    for_each_event(events, sample * shape.steps + t, [&](int64_t e, uint32_t index) {
        const Value<T> weight = {weights[index * stride]};
        sum = events.values ? fma(Value<T>{events.values[e]}, weight, sum) : sum + weight;
    });
    return sum;
}

template <class T>
SRCELL_INLINE Value<T> gather(const MaskedElements<T>& input, const ScanShape& shape, int64_t sample, int64_t t,
                              const T* weights, int64_t stride) {
    Value<T> sum = splat<Value<T>>(0);
    const T* values = input.elements + (t * shape.batch + sample) * input.inputs;
    for_each_bit(input, sample * shape.steps + t,
                 [&](int64_t k) { sum = fma(Value<T>{values[k]}, Value<T>{weights[k * stride]}, sum); });
    return sum;
}

template <class T, bool save, bool resonant, class Input>
SRCELL_INLINE void events_forward_chain(const TracedForward<T>& p, const Input& input, int64_t sample, int64_t neuron,
                                        const T* weights, int64_t stride) {
    using V = Value<T>;
    constexpr int64_t saved = checkpoint_rows(resonant, true);
    const int64_t plane = p.shape.batch * p.shape.neurons, element = sample * p.shape.neurons + neuron;
    const int64_t steps = steps_of(p.shape, sample);
    const Cell<V> cell = cell_of<resonant>(p.cell, p.turn, neuron);
    auto state = element_of<StateOf<V, resonant>>(p.before, element);
    for (int64_t t = 0; t < steps; ++t) {
        const int64_t at = t * plane + element;
        if (save && t % kSegment == 0)
            save_checkpoint<true>(p.checkpoints + t / kSegment * saved * plane + element, plane, state);
        const Trace<V> made = step(cell, state, gather(input, p.shape, sample, t, weights, stride));
        p.spikes[at] = spike(state.h).x;
        if (save) p.trace[at] = p.trace_integrator ? state.i.x : made.drive.x;
    }
    for (int64_t t = steps; t < p.shape.steps; ++t) {
        p.spikes[t * plane + element] = 0;
        if (save) p.trace[t * plane + element] = 0;
    }
    if (save)
        for (int64_t row = saved * segments(steps); row < saved * segments(p.shape.steps); ++row)
            p.checkpoints[row * plane + element] = 0;
    store_element(p.after, element, state);
}

constexpr int kTileSamples = 16;

// Reads the weights from global memory.
template <class T, bool save, bool resonant, class Input>
struct EventsForwardBody {
    TracedForward<T> p;
    Input input;
    const T* weight_t;  // (K, N)

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item();
        if (element >= p.shape.batch * p.shape.neurons) return;
        const int64_t sample = element / p.shape.neurons, neuron = element - sample * p.shape.neurons;
        const T* weights = element_or_null(weight_t, neuron);
        events_forward_chain<T, save, resonant>(p, input, sample, neuron, weights, p.shape.neurons);
    }
};

// Copies the weights of kWarp neurons to the block's shared memory. Each warp of the block advances one sample.
template <class T, bool save, bool resonant, class Input>
struct EventsForwardTileBody {
    static constexpr int kMaxThreads = kTileSamples * kWarp;
    TracedForward<T> p;
    Input input;
    const T* weight_t;  // (K, N)
    int64_t inputs;

    SRCELL_HOST_DEVICE int64_t tiles() const { return ceil_div(p.shape.neurons, kWarp); }

    // Each thread reads kReadAhead weights before it stores one, so that the latencies of the reads overlap.
    SRCELL_INLINE void load(const Place& place) const {
        constexpr int kReadAhead = 8;
        const int lane = place.thread % kWarp, warps = place.threads / kWarp;
        const int64_t neuron = place.block % tiles() * kWarp + lane;
        T* const shared = place.shared_as<T>();
        for (int64_t first = place.thread / kWarp; first < inputs; first += kReadAhead * warps) {
            T weights[kReadAhead];
            for (int j = 0; j < kReadAhead; ++j) {
                const int64_t k = first + j * warps;
                weights[j] = k < inputs && neuron < p.shape.neurons ? weight_t[k * p.shape.neurons + neuron] : T(0);
            }
            for (int j = 0; j < kReadAhead; ++j)
                if (first + j * warps < inputs) shared[(first + j * warps) * kWarp + lane] = weights[j];
        }
    }

    SRCELL_INLINE void run(const Place& place) const {
        const int lane = place.thread % kWarp;
        const int64_t neuron = place.block % tiles() * kWarp + lane;
        const int64_t sample = place.block / tiles() * (place.threads / kWarp) + place.thread / kWarp;
        if (neuron >= p.shape.neurons || sample >= p.shape.batch) return;
        events_forward_chain<T, save, resonant>(p, input, sample, neuron, place.shared_as<T>() + lane, kWarp);
    }
};

// Samples per block of EventsForwardTileBody; 0 if the weights do not fit in shared memory or too few events would use
// them. `events` is the number of events of all samples.
inline int tile_samples(const Limits& limits, const ScanShape& shape, int64_t inputs, int64_t events) {
    if (inputs * kWarp * int64_t(sizeof(float)) > limits.shared_bytes) return 0;
    int samples = kTileSamples;
    // Takes fewer samples per block if there would otherwise be fewer blocks than processors.
    while (samples > 1 && ceil_div(shape.neurons, kWarp) * ceil_div(shape.batch, samples) < limits.processors)
        samples /= 2;
    // Copying pays off if, on average, at least two events of the block use each row of weights.
    return events / shape.batch * samples < 2 * inputs ? 0 : samples;
}

template <class T, class Input>
void events_forward(Queue& queue, const DeviceEventsForward<T>& p, const Input& input, int64_t inputs, int64_t events) {
    if (p.shape.batch * p.shape.neurons == 0) return;
    with_flags(p.trace, bool(p.turn), [&](auto save, auto resonant) {
        constexpr bool saves = decltype(save)::value, turns = decltype(resonant)::value;
        if constexpr (sizeof(T) == sizeof(float)) {  // for float64 a thread of a full block has too few registers
            if (const int samples = tile_samples(queue.limits, p.shape, inputs, events)) {
                const EventsForwardTileBody<T, saves, turns, Input> body = {p, input, p.weight_t, inputs};
                const int64_t groups = ceil_div(p.shape.batch, samples);
                const auto bytes = static_cast<int>(inputs * kWarp * int64_t(sizeof(T)));
                return launch(queue, {body.tiles() * groups, samples * kWarp, bytes}, body);
            }
        }
        const Launch how = spread(queue, p.shape.batch * p.shape.neurons);
        launch(queue, how, EventsForwardBody<T, saves, turns, Input>{p, input, p.weight_t});
    });
}

template <class T>
int64_t events_in(const Events<T>& events, const ScanShape&) {
    return events.count;
}

// The number is not known here: assume that every tenth element is an event.
template <class T>
int64_t events_in(const MaskedElements<T>& input, const ScanShape& shape) {
    return shape.batch * shape.steps * input.inputs / 10;
}

template <class T>
void events_forward(Queue& queue, const DeviceEventsForward<T>& p) {
    std::visit([&](const auto& input) { events_forward(queue, p, input, input.inputs, events_in(input, p.shape)); },
               p.input);
}

// The state before a segment, from its checkpoint and, if parameters need a gradient, the trace, which then holds i.
template <class Mode, class T>
SRCELL_INLINE auto replayed_state(const TracedBackward<T>& p, int64_t step, int64_t element, int64_t plane) {
    const int64_t row = step / kSegment * checkpoint_rows(Mode::resonant, true);
    auto state = load_checkpoint<Mode::resonant, true>(p.checkpoints + row * plane + element, plane);
    if (Mode::parameters) state.i = step ? get(p.trace + (step - 1) * plane + element) : value_or_zero(p.i0, element);
    return state;
}

// Advances the state by a step whose drive is traced or, if parameters need a gradient, whose i is.
template <class Mode, class V, template <class> class AnyState>
SRCELL_INLINE Trace<V> replay_step(const Cell<V>& cell, AnyState<V>& state, V traced) {
    V drive = traced;
    if constexpr (Mode::parameters) {
        integrate_rest(cell, state);
        state.i = traced;
        drive = drive_of(cell, traced);
    }
    return {drive, respond(cell, state, drive)};
}

// Recomputes the steps of a segment (the kSegment steps after a checkpoint) from the trace, which holds the drive of
// each step, or the integrator if parameters need a gradient.
template <class T, class Mode>
struct TraceReplay {
    const TracedBackward<T>& p;
    int64_t element, plane;

    SRCELL_INLINE StateOf<Value<T>, Mode::resonant> begin(int64_t step) const {
        return replayed_state<Mode>(p, step, element, plane);
    }
    SRCELL_INLINE Value<T> read(int64_t t) const { return {p.trace[t * plane + element]}; }
    SRCELL_INLINE Trace<Value<T>> advance(const Cell<Value<T>>& cell, StateOf<Value<T>, Mode::resonant>& state,
                                          Value<T> traced) const {
        return replay_step<Mode>(cell, state, traced);
    }
};

template <class T, class Mode>
struct EventsBackwardBody {
    static constexpr int kMinBlocks = backward_blocks<T, Mode>;
    TracedBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const TraceReplay<T, Mode> replay = {p, element, plane};
        backward_chain<Mode>(p, chain_at(p.shape, element), replay, p.grad_spikes, p.grad_current,
                             place.shared_as<T>() + place.thread, place.threads);
    }
};

template <class T>
void events_backward(Queue& queue, const TracedBackward<T>& p) {
    launch_backward<EventsBackwardBody, T>(queue, p);
    reduce_parameters(queue, p);
}

}  // namespace device
}  // namespace srcell
