// The delay of inputs on a GPU: the passes of ../delay-inl.h, a thread for each sample's events, for each element of a
// dense input, or for a sample's part of the gradient of a factor. Knows neither neurons nor weights.
#pragma once

#include "device.h"

namespace srcell {
namespace device {

template <class T>
SRCELL_INLINE T product(T a, T b) {
    return (Value<T>{a} * Value<T>{b}).x;
}

template <class T>
SRCELL_INLINE T fused(T a, T b, T c) {
    return fma(Value<T>{a}, Value<T>{b}, Value<T>{c}).x;
}

#include "../delay-inl.h"

// A pass over a sample's events in each thread.
template <class Call, void (*pass)(const Call&, int64_t)>
struct DelayedSamplesBody {
    Call p;

    SRCELL_INLINE void run(const Place& place) const {
        if (place.item() < p.shape.batch) pass(p, place.item());
    }
};

// starts[b] is then the number of a sample's arrivals; the caller adds them up.
template <class T>
void count_delayed(Queue& queue, const DelayedCounts<T>& p) {
    launch(queue, spread(queue, p.shape.batch), DelayedSamplesBody<DelayedCounts<T>, count_arrivals<T>>{p});
}

template <class T>
void write_delayed(Queue& queue, const DelayedWrite<T>& p) {
    launch(queue, spread(queue, p.shape.batch), DelayedSamplesBody<DelayedWrite<T>, write_arrivals<T>>{p});
}

template <class T>
void delayed_backward(Queue& queue, const DelayedBackward<T>& p) {
    launch(queue, spread(queue, p.shape.batch), DelayedSamplesBody<DelayedBackward<T>, arrivals_backward<T>>{p});
    sum_samples(queue, p.shape.batch, p.delays.numbers * p.delays.terms, p.partials, p.grad_factors);
}

template <class T>
struct DelayElementsBody {
    DelayedElementsForward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), row = item / p.delays.numbers, number = item % p.delays.numbers;
        if (row < p.steps() * p.shape.batch)
            p.delayed[item] = delayed_element(p, row / p.shape.batch, row % p.shape.batch, number);
    }
};

template <class T>
struct DelayElementsBackwardBody {
    DelayedElementsBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), row = item / p.inputs, input = item % p.inputs;
        if (row < p.shape.steps * p.shape.batch)
            p.grad_elements[item] = delayed_element_backward(p, row / p.shape.batch, row % p.shape.batch, input);
    }
};

template <class T>
struct DelayFactorsBody {
    DelayedElementsBackward<T> p;

    SRCELL_INLINE void run(const Place& place) const {
        const int64_t item = place.item(), count = p.delays.numbers * p.delays.terms, of_sample = item % count;
        if (item < p.shape.batch * count)
            p.partials[item] =
                delayed_factor_backward(p, item / count, of_sample / p.delays.terms, of_sample % p.delays.terms);
    }
};

template <class T>
void delay_elements(Queue& queue, const DelayedElementsForward<T>& p) {
    const int64_t items = p.steps() * p.shape.batch * p.delays.numbers;
    launch(queue, spread(queue, items), DelayElementsBody<T>{p});
}

template <class T>
void delay_elements_backward(Queue& queue, const DelayedElementsBackward<T>& p) {
    if (p.grad_elements)
        launch(queue, spread(queue, p.shape.steps * p.shape.batch * p.inputs), DelayElementsBackwardBody<T>{p});
    if (!p.grad_factors) return;
    launch(queue, spread(queue, p.shape.batch * p.delays.numbers * p.delays.terms), DelayFactorsBody<T>{p});
    sum_samples(queue, p.shape.batch, p.delays.numbers * p.delays.terms, p.partials, p.grad_factors);
}

}  // namespace device
}  // namespace srcell
