// The time loop of integer neurons on a GPU: a thread advances one neuron of one sample, in 32-bit integers. Knows
// events and weights, and never looks inside the equations.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

template <class V>
SRCELL_INLINE V splat_integer(int32_t n) {
    return n;
}

SRCELL_INLINE int32_t add_saturated(int32_t x, int32_t y) { return x + y; }

SRCELL_INLINE int32_t multiply_high(int32_t x, int32_t y) { return (x * y) >> 16; }

// The order of the includes matters; the empty comment keeps clang-format from sorting them.
#include "../integer-inl.h"
//
#include "../integer_surrogate-inl.h"

// Any larger current drives i out of its bounds.
constexpr int64_t kLargestCurrent = 1 << 17;

SRCELL_INLINE int32_t bounded_current(int64_t sum) {
    return static_cast<int32_t>(sum < -kLargestCurrent  ? -kLargestCurrent
                                : sum > kLargestCurrent ? kLargestCurrent
                                                        : sum);
}

// The sum of a neuron's weights over the events of one step of a sample. An event with an invalid offset or index is
// skipped.
template <class Input>
SRCELL_INLINE int32_t gather_integers(const DeviceIntegerForward& p, const Input& input, int64_t sample, int64_t t,
                                      const int16_t* weights) {
    int64_t sum = 0;
    const int64_t row = sample * p.shape.steps + t;
    const auto add = [&](int64_t index) { sum += weights[index * p.shape.neurons]; };
    if constexpr (std::is_same_v<Input, Events<float>>)
        for_each_event(input, row, [&](int64_t, uint32_t index) { add(index); });
    else
        for_each_bit(input, row, add);
    return bounded_current(sum);
}

SRCELL_INLINE void count_clamped(int64_t* total, int64_t clamped) {
    if (!clamped) return;
#if defined(__CUDA_ARCH__)
    atomicAdd(reinterpret_cast<unsigned long long*>(total), static_cast<unsigned long long>(clamped));
#else
    *total += clamped;
#endif
}

template <class Input>
struct IntegerForwardBody {
    DeviceIntegerForward p;
    Input input;

    SRCELL_INLINE void write(int64_t at, bool spike) const {
        if (p.spikes)
            p.spikes[at] = spike;
        else
            p.float_spikes[at] = spike;
    }

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const int64_t sample = element / p.shape.neurons, steps = steps_of(p.shape, sample);
        const int16_t* weights = element_or_null(p.weight_t, element % p.shape.neurons);
        const IntegerNeuron<int32_t> neuron = make_integer_neuron<int32_t>(p.cell);
        IntegerState<int32_t> state = {p.i0 ? p.i0[element] : 0, p.h0 ? p.h0[element] : 0, p.hs0 ? p.hs0[element] : 0};
        IntegerSurrogate<Value<float>> surrogate = {};
        if (p.slopes) surrogate = make_surrogate<Value<float>>(p.cell, p.rho, *p.scale);
        int64_t clamped = 0;
        for (int64_t t = 0; t < steps; ++t) {
            const int64_t at = t * plane + element;
            const int32_t unbounded = integer_integrate(neuron, state.i, gather_integers(p, input, sample, t, weights));
            state.i = integer_clamp(unbounded, -neuron.i_max, neuron.i_max);
            clamped += unbounded != state.i;
            const int32_t u = integer_respond(neuron, state);
            write(at, integer_spike(neuron, state.h));
            if (p.slopes) {
                const Value<float> i = {static_cast<float>(state.i)}, of_u = {static_cast<float>(u)};
                p.slopes[at] = integer_slope(surrogate, i, of_u).x;
            }
        }
        for (int64_t t = steps; t < p.shape.steps; ++t) {
            write(t * plane + element, false);
            if (p.slopes) p.slopes[t * plane + element] = 0;
        }
        p.i[element] = static_cast<int16_t>(state.i);
        p.h[element] = static_cast<int16_t>(state.h);
        p.hs[element] = static_cast<int16_t>(state.hs);
        count_clamped(p.clamped, clamped);
    }
};

struct IntegerBackwardBody {
    DeviceIntegerBackward p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t element = place.item(), plane = p.shape.batch * p.shape.neurons;
        if (element >= plane) return;
        const int64_t steps = steps_of(p.shape, element / p.shape.neurons);
        for (int64_t t = steps; t < p.shape.steps; ++t) p.grad_current[t * plane + element] = 0;
        Value<float> carry = splat<Value<float>>(0);
        for (int64_t t = steps - 1; t >= 0; --t) {
            const int64_t at = t * plane + element;
            const Value<float> made =
                flush_tiny(fma(Value<float>{p.grad_spikes[at]}, Value<float>{p.slopes[at]}, carry));
            p.grad_current[at] = made.x;
            carry = Value<float>{p.alpha} * made;
        }
    }
};

inline void integer_forward(Queue& queue, const DeviceIntegerForward& p) {
    const Launch how = spread(queue, p.shape.batch * p.shape.neurons);
    std::visit(
        [&](const auto& input) { launch(queue, how, IntegerForwardBody<std::decay_t<decltype(input)>>{p, input}); },
        p.input);
}

inline void integer_backward(Queue& queue, const DeviceIntegerBackward& p) {
    launch(queue, spread(queue, p.shape.batch * p.shape.neurons), IntegerBackwardBody{p});
}

}  // namespace device
}  // namespace srcell
