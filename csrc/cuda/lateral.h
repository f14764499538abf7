// A layer with recurrent (lateral) weights on a GPU: all neurons must have taken a step before any takes the next, so
// each step is a launch of its own, for any number of neurons. A thread takes one neuron of one sample through one
// step, with its state in global memory. Knows events and weights, and never looks inside the equations.
//
// In the forward pass the currents of all steps are computed first and written into the array of the spikes. In the
// backward pass one launch recomputes the states of a segment (the kSegment steps after a checkpoint) into scratch.
// Then each step has a launch for the dot products that give the gradients of the step's spikes through the recurrent
// weights (with delays one for each term), and one for the adjoint of the step. The gradient of the recurrent weights
// is that of a synapse whose inputs are the spikes of step t-1: the caller computes it with the kernels of synapse.h,
// or, with delays, with delayed_weight().
#pragma once

#include "events.h"

namespace srcell {
namespace device {

// The spikes that step t of a sample receives: those of step t-1, or of the initial state.
template <class T>
SRCELL_INLINE Value<T> spike_before(const T* spikes, const T* h0, int64_t plane, int64_t element, int64_t t) {
    return t ? Value<T>{spikes[(t - 1) * plane + element]} : spike(value_or_zero(h0, element));
}

// A neuron's spike that departed at a step from -1 - past_steps on: before step -1 it is in the past.
template <class T>
SRCELL_INLINE Value<T> spike_of(const LateralDelays<T>& delays, const T* spikes, const T* h0, const ScanShape& shape,
                                int64_t element, int64_t step) {
    const int64_t neurons = shape.neurons, sample = element / neurons;
    if (step >= -1) return spike_before(spikes, h0, shape.batch * neurons, element, step + 1);
    return value_or_zero(delays.past0,
                         (sample * delays.past_steps + delays.past_steps + 1 + step) * neurons + element % neurons);
}

// A thread computes the current of one neuron of one sample at one step.
template <class T, class Input>
struct EventCurrentsBody {
    ScanShape shape;
    Input input;
    const T* weight_t;  // (K, N)
    T* currents;        // (T, B, N) out; not written past a sample's length

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), plane = shape.batch * shape.neurons;
        if (item >= shape.steps * plane) return;
        const int64_t t = item / plane, sample = item % plane / shape.neurons, neuron = item % shape.neurons;
        if (t < steps_of(shape, sample))
            currents[item] = gather(input, shape, sample, t, element_or_null(weight_t, neuron), shape.neurons).x;
    }
};

template <class T>
void event_currents(Queue& queue, const DeviceEventCurrents<T>& p) {
    const Launch how = spread(queue, p.shape.steps * p.shape.batch * p.shape.neurons);
    std::visit(
        [&](const auto& input) {
            launch(queue, how,
                   EventCurrentsBody<T, std::decay_t<decltype(input)>>{p.shape, input, p.weight_t, p.currents});
        },
        p.input);
}

// Advances all neurons by step t. Between launches their state lies in the arrays of the final state.
template <class T, bool save, bool resonant>
struct LateralForwardBody {
    DeviceLateralForward<T> p;
    int64_t t;

    SRCELL_INLINE void run(const Place& place) const {
        using V = Value<T>;
        const int64_t element = place.item(), neurons = p.shape.neurons, plane = p.shape.batch * neurons;
        if (element >= plane) return;
        const Chain chain = chain_at(p.shape, element);
        using Made = StateOf<V, resonant>;
        Made state = t ? element_of<Made>(p.after, element) : element_of<Made>(p.before, element);
        if (save && t % kSegment == 0 && t < p.shape.steps) {
            T* const checkpoint = p.checkpoints + t / kSegment * checkpoint_rows(resonant, true) * plane + element;
            save_checkpoint<true>(checkpoint, plane, t < chain.steps ? state : Made{});
        }
        if (t < chain.steps) {
            V current = {p.current[t * plane + element]};
            const int64_t first = element - chain.neuron;
            for (int64_t m = 0; m < neurons && !p.delays; ++m) {
                const V s = spike_before(p.spikes, p.before.of[kH], plane, first + m, t);
                if (s.x != 0) current = fma(s, V{p.weight_t[m * neurons + chain.neuron]}, current);
            }
            for (int64_t m = 0; m < neurons && p.delays; ++m)
                for (int64_t term = p.delays.of.terms - 1; term >= 0; --term) {
                    const int64_t later = p.delays.steps_of(m, term);
                    if (later < 0) continue;
                    const V s = spike_of(p.delays, p.spikes, p.before.of[kH], p.shape, first + m, t - 1 - later);
                    const V factor = {p.delays.of.factor(m, term)};
                    if (s.x != 0) current = fma(factor * s, V{p.weight_t[m * neurons + chain.neuron]}, current);
                }
            const Trace<V> made = step(cell_of<resonant>(p.cell, p.turn, chain.neuron), state, current);
            p.spikes[t * plane + element] = spike(state.h).x;
            if (save) p.trace[t * plane + element] = p.trace_integrator ? state.i.x : made.drive.x;
        } else if (t < p.shape.steps) {
            p.spikes[t * plane + element] = 0;
            if (save) p.trace[t * plane + element] = 0;
        }
        store_element(p.after, element, state);
    }
};

// Writes one element of the past after each sample's last step.
template <class T>
struct PastBody {
    DeviceLateralForward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), neurons = p.shape.neurons, past_steps = p.delays.past_steps;
        if (item >= p.shape.batch * past_steps * neurons) return;
        const int64_t element = item / (past_steps * neurons) * neurons + item % neurons,
                      k = item / neurons % past_steps;
        const int64_t step = chain_at(p.shape, element).steps - 1 - past_steps + k;
        p.delays.past[item] = spike_of(p.delays, p.spikes, p.before.of[kH], p.shape, element, step).x;
    }
};

template <class T>
void lateral_forward(Queue& queue, const DeviceLateralForward<T>& p) {
    const Launch how = spread(queue, p.shape.batch * p.shape.neurons);
    with_flags(p.trace, bool(p.turn), [&](auto save, auto resonant) {
        for (int64_t t = 0; t == 0 || t < p.shape.steps; ++t)  // without steps it runs once, for the final state
            launch(queue, how, LateralForwardBody<T, decltype(save)::value, decltype(resonant)::value>{p, t});
    });
    if (p.delays.past)
        launch(queue, spread(queue, p.shape.batch * p.delays.past_steps * p.shape.neurons), PastBody<T>{p});
}

// The scratch of a backward pass, in rows of (B, N). For a segment: the state before each step and after the last, and
// drive and gate of each step. Then the gradients of one step's spikes through the recurrent weights.
template <class T>
struct LateralRows {
    T* first;
    int64_t plane;
    bool resonant;

    SRCELL_HOST_DEVICE T* of(int state, int64_t r) const { return first + (state * (kSegment + 1) + r) * plane; }
    SRCELL_INLINE T* drive(int64_t r) const { return of(states_of(resonant), r); }
    SRCELL_INLINE T* gate(int64_t r) const { return drive(kSegment + r); }
    SRCELL_INLINE T* through() const { return gate(kSegment); }
};

template <class T>
SRCELL_HOST_DEVICE inline LateralRows<T> rows_of(const DeviceLateralBackward<T>& p) {
    return {p.scratch, p.shape.batch * p.shape.neurons, bool(p.turn)};
}

// The gradients of the final state become the carry, which is kept in the arrays for the gradients of the initial
// state.
template <class T, class Mode>
struct LateralBeginBody {
    DeviceLateralBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        store_element(p.grad_before, element, element_of<AdjointOf<Value<T>, Mode::resonant>>(p.grad_after, element));
        for (int s = 0; s < Mode::sums; ++s) p.partials[s * plane + element] = 0;
        for (int64_t term = 0; p.delays.factor_partials && term < p.delays.of.terms; ++term)
            p.delays.factor_partials[element * p.delays.of.terms + term] = 0;
    }
};

// Recomputes the steps of the segment that begins at step `begin`.
template <class T, class Mode>
struct LateralReplayBody {
    DeviceLateralBackward<T> p;
    int64_t begin;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const Chain chain = chain_at(p.shape, element);
        const Cell<Value<T>> cell = cell_of<Mode::resonant>(p.cell, p.turn, chain.neuron);
        const LateralRows<T> rows = rows_of(p);
        auto state = replayed_state<Mode>(p, begin, element, plane);
        for (int64_t r = 0; r <= kSegment; ++r) {
            const int64_t t = begin + r;
            for_each_state(state, [&](int of, Value<T> x) { rows.of(of, r)[element] = x.x; });
            if (p.elements && r < kSegment && t < p.shape.steps)
                p.elements[t * plane + element] = t < chain.steps ? spike(state.h).x : T(0);
            if (r == kSegment || t >= chain.steps) continue;
            const Trace<Value<T>> made = replay_step<Mode>(cell, state, get(p.trace + t * plane + element));
            rows.drive(r)[element] = made.drive.x;
            rows.gate(r)[element] = made.gate.x;
        }
    }
};

// A warp computes, for a neuron m of a sample, one term of the gradient of its spike that departed at step t-1: the dot
// product of the weights from m with the gradients of the currents of the step at which the term arrives. Without
// delays there is one term, which arrives at step t. Terms are launched in order.
template <class T>
struct LateralDotsBody {
    DeviceLateralBackward<T> p;
    int64_t t, term;
    const T* h;  // (B, N): h before step t, if t >= 0

    // The spike; a step before the first is one of the past.
    SRCELL_INLINE Value<T> spike_at(int64_t element) const {
        if (t >= 0) return spike(Value<T>{h[element]});
        return spike_of(p.delays, static_cast<const T*>(nullptr), h, p.shape, element, t - 1);
    }

    SRCELL_INLINE bool counts(int64_t element) const {
        if (element >= p.shape.batch * p.shape.neurons) return false;
        if (t < 0 && p.delays.grad_past0) return true;
        const bool only_active = t < 0 || p.lateral_relu;  // gradients of silent neurons are 0, or not needed
        return t < chain_at(p.shape, element).steps && (!only_active || spike_at(element).x != 0);
    }

    // The step at which a term arrives, or -1 if that is no step of the sample.
    SRCELL_INLINE int64_t arrival(int64_t element, int64_t k) const {
        const int64_t later = p.delays ? p.delays.steps_of(element % p.shape.neurons, k) : 0, at = t + later;
        return later < 0 || at < 0 || at >= chain_at(p.shape, element).steps ? -1 : at;
    }

    SRCELL_INLINE void load(const Place& place) const {
        const int64_t element = place.item() / kWarp, neurons = p.shape.neurons;
        const int64_t at = counts(element) ? arrival(element, term) : -1, m = element % neurons;
        T sum = 0;
        if (at >= 0) {
            const T* grad = p.grad_current + at * p.shape.batch * neurons + element - m;
            sum = lane_of_dot(place, p.weight_t + m * neurons, grad, neurons);
        }
        place.shared_as<T>()[place.thread] = sum;
    }

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item() / kWarp;
        if (place.thread % kWarp != 0 || element >= p.shape.batch * p.shape.neurons) return;
        const Value<T> along = sum_of_lanes<T>(place);
        if (!p.delays)
            rows_of(p).through()[element] = counts(element) ? along.x : T(0);
        else
            add_term(element, along);
    }

    // Adds a term to the gradient of the spike, which begins with that of the past after the last step.
    SRCELL_INLINE void add_term(int64_t element, Value<T> along) const {
        const int64_t neurons = p.shape.neurons, m = element % neurons, sample = element / neurons;
        const int64_t past_steps = p.delays.past_steps,
                      row = (sample * past_steps + past_steps + t) * neurons + m;  // of the past, if t < 0
        T* const through = rows_of(p).through() + element;
        T* const target = t < 0 && p.delays.grad_past0 ? p.delays.grad_past0 + row : through;
        const bool counted = counts(element);
        const int64_t kept = t + past_steps - chain_at(p.shape, element).steps;
        bool any = counted && p.delays.grad_past && kept >= 0 && kept < past_steps;
        if (term == 0) *target = any ? p.delays.grad_past[(sample * past_steps + kept) * neurons + m] : T(0);
        if (!counted || arrival(element, term) < 0) return;
        for (int64_t k = 0; k < term; ++k) any |= arrival(element, k) >= 0;
        const Value<T> factor = {p.delays.of.factor(m, term)};
        *target = (any ? fma(factor, along, Value<T>{*target}) : factor * along).x;
        if (!p.delays.factor_partials) return;
        T* const sum = p.delays.factor_partials + (sample * neurons + m) * p.delays.of.terms + term;
        *sum = fma(spike_at(element), along, Value<T>{*sum}).x;
    }
};

// The adjoint of step begin + r.
template <class T, class Mode>
struct LateralAdjointBody {
    DeviceLateralBackward<T> p;
    int64_t begin, r;

    SRCELL_INLINE void run(const Place& place) const {
        using V = Value<T>;
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons, t = begin + r;
        if (element >= plane) return;
        const Chain chain = chain_at(p.shape, element);
        T* const grad_current = p.grad_current + t * plane + element;
        if (t >= chain.steps) {
            *grad_current = 0;
            return;
        }
        const Cell<V> cell = cell_of<Mode::resonant>(p.cell, p.turn, chain.neuron);
        const LateralRows<T> rows = rows_of(p);
        const V zero = splat<V>(0), h = {rows.of(kH, r + 1)[element]}, drive = {rows.drive(r)[element]};
        const V silent_up_to = splat<V>(p.relu ? T(0) : T(-2));  // straight-through: h >= -1 > -2
        auto carry = element_of<AdjointOf<V, Mode::resonant>>(p.grad_before, element);
        const V grad_h = select(less_equal(h, silent_up_to), zero, value_or_zero(p.grad_spikes, t * plane + element)) +
                         V{rows.through()[element]};
        const auto arrived = carry;
        const StepGradients<V> grad = step_adjoint(cell, carry, grad_h, h, drive);
        *grad_current = grad.i.x;
        const auto before =
            make_state<StateOf<V, Mode::resonant>>([&](int state) { return V{rows.of(state, r)[element]}; });
        const V gate = {rows.gate(r)[element]};
        T* const partials = p.partials + element;
        if constexpr (Mode::parameters) {
            V sums[kParameters];
            for (int s = 0; s < Mode::sums; ++s) sums[s] = V{partials[s * plane]};
            add_parameter_gradients(sums, cell, before, grad, arrived, V{rows.of(kI, r + 1)[element]}, drive, gate);
            for (int s = 0; s < Mode::sums; ++s) partials[s * plane] = sums[s].x;
        } else {
            *partials = (V{*partials} + grad.u).x;
        }
        if constexpr (Mode::full_gradient)
            carry_recurrence(cell, carry, grad.u, before.h, before.hs, gate);
        else
            carry.h = carry.hs = zero;
        store_element(p.grad_before, element, carry);
    }
};

// Adds the gradient of the initial state's spikes to the gradient of h0.
template <class T>
struct LateralEndBody {
    DeviceLateralBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item();
        if (element >= p.shape.batch * p.shape.neurons || !chain_at(p.shape, element).steps) return;
        T& grad = p.grad_before.of[kH][element];
        grad = (Value<T>{grad} + Value<T>{rows_of(p).through()[element]}).x;
    }
};

template <class Mode, class T>
void lateral_segments(Queue& queue, const DeviceLateralBackward<T>& p) {
    const int64_t plane = p.shape.batch * p.shape.neurons, steps = p.shape.steps;
    const Launch how = spread(queue, plane), dots = spread(queue, plane * kWarp, sizeof(T));
    const auto through_lateral = [&](int64_t t, const T* h) {
        for (int64_t term = 0; term == 0 || term < p.delays.of.terms; ++term)
            launch(queue, dots, LateralDotsBody<T>{p, t, term, h});
    };
    using NotFollowed = BackwardMode<false, Mode::parameters, Mode::resonant>;  // they need not know whether it is
    launch(queue, how, LateralBeginBody<T, NotFollowed>{p});
    for (int64_t begin = (segments(steps) - 1) * kSegment; begin >= 0; begin -= kSegment) {
        launch(queue, how, LateralReplayBody<T, NotFollowed>{p, begin});
        const int64_t end = begin + kSegment < steps ? begin + kSegment : steps;
        for (int64_t r = end - begin - 1; r >= 0; --r) {
            through_lateral(begin + r + 1, rows_of(p).of(kH, r + 1));
            launch(queue, how, LateralAdjointBody<T, Mode>{p, begin, r});
        }
    }
    if (steps) through_lateral(0, rows_of(p).of(kH, 0));
    if (steps) launch(queue, how, LateralEndBody<T>{p});
    if (p.delays.grad_past0 || (p.delays.past0 && p.delays.factor_partials))
        for (int64_t k = p.delays.past_steps - 1; k >= 0; --k) through_lateral(k - p.delays.past_steps, nullptr);
    sum_samples(queue, p.shape.batch, p.shape.neurons * p.delays.of.terms, p.delays.factor_partials,
                p.delays.grad_factors);
}

// A thread sums the gradient of the weight from one neuron to another over a group of samples, in the CPU's order.
template <class T>
struct DelayedWeightBody {
    DeviceDelayedWeight<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), batch = p.shape.batch, neurons = p.shape.neurons, each = neurons * neurons;
        if (item >= event_groups(batch, neurons) * each) return;
        const int64_t size = event_group_size(batch, neurons), first = item / each * size;
        const int64_t last = first + size < batch ? first + size : batch;
        const int64_t from = item % each / neurons, to = item % neurons, past_steps = p.delays.past_steps;
        Value<T> sum = splat<Value<T>>(0);
        for (int64_t sample = first; sample < last; ++sample) {
            const int64_t steps = steps_of(p.shape, sample);
            for (int64_t begin = (segments(steps, kEventSegment) - 1) * kEventSegment; begin >= 0;
                 begin -= kEventSegment)
                for (int64_t t = begin; t < begin + kEventSegment && t < steps; ++t)
                    add(sample, steps, from, to, t, p.elements[(t * batch + sample) * neurons + from], sum);
            for (int64_t k = past_steps - 1; p.delays.past0 && k >= 0; --k)
                add(sample, steps, from, to, k - past_steps, p.delays.past0[(sample * past_steps + k) * neurons + from],
                    sum);
        }
        p.partials[item] = sum.x;
    }

    // Adds the terms of a spike that departed at step t-1.
    SRCELL_INLINE void add(int64_t sample, int64_t steps, int64_t from, int64_t to, int64_t t, T spike,
                           Value<T>& sum) const {
        if (spike == 0) return;
        for (int64_t term = 0; term < p.delays.of.terms; ++term) {
            const int64_t later = p.delays.steps_of(from, term), at = t + later;
            if (later < 0 || at < 0 || at >= steps) continue;
            const Value<T> factor = {p.delays.of.factor(from, term)};
            const Value<T> grad = {p.grad_current[(at * p.shape.batch + sample) * p.shape.neurons + to]};
            sum = fma(factor * Value<T>{spike}, grad, sum);
        }
    }
};

template <class T>
void delayed_weight(Queue& queue, const DeviceDelayedWeight<T>& p) {
    const int64_t neurons = p.shape.neurons, each = neurons * neurons, groups = event_groups(p.shape.batch, neurons);
    launch(queue, spread(queue, groups * each), DelayedWeightBody<T>{p});
    launch(queue, spread(queue, each), GroupSums<T>{p.partials, p.grad_weight, groups, neurons, neurons});
}

template <class T>
void lateral_backward(Queue& queue, const DeviceLateralBackward<T>& p) {
    with_mode<T>(p, [&](auto mode) { lateral_segments<decltype(mode)>(queue, p); });
    reduce_parameters(queue, p);
}

}  // namespace device
}  // namespace srcell
