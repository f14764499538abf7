// The kernels of a layer on the CPU, from a call's checked arguments: they release the GIL, and raise for events that a
// kernel refused. Included only by the bindings.
#pragma once

#include "../cpu/convolution.h"
#include "arguments.h"

namespace srcell {

// Runs a layer on the events `rows` through `weight` or, if `rows` is null, a layer with recurrent weights on given
// currents.
void traced_forward(const Layer& layer, const Outputs& outputs, const EventRows* rows, Address weight, Address current,
                    const Saved& saved, bool trace_integrator);

// Runs a layer without recurrent weights on given currents; saves checkpoints, but no trace.
void scan_forward(const Layer& layer, const Outputs& outputs, Address current, const Saved& saved);

// What a convolution reads: rows of events, or else the elements of a dense input (T, B, K).
struct ConvolvedRows {
    Maybe<const EventRows> rows;
    Address elements;

    template <class T>
    ConvolutionInput<T> of() const {
        return {!rows, rows ? rows->of<T>() : Events<T>{}, pointer<const T>(elements)};
    }
};

// Runs a layer behind a convolution, whose weight is (O, C / groups, kernel height, kernel width); saves checkpoints,
// but no trace.
void convolution_forward(const Layer& layer, const Outputs& outputs, const ConvolvedRows& input, const Convolution& map,
                         Address weight, const Saved& saved);

// traced_forward() on the nonzero elements of a dense input (T, B, K). Writes their mask if `mask` is not 0. Returns
// whether all nonzero elements are 1.
bool dense_forward(const Layer& layer, const Outputs& outputs, Address input, int64_t inputs, Address mask,
                   Address weight, const Saved& saved, bool trace_integrator);

// The backward pass of traced_forward(), from the trace that it saved.
void traced_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients, const EventRows* rows,
                     const Saved& saved, Address grad_current, Address grad_weight);

// The gradients of a synapse, 0 for what is not wanted: those of the weight, of the values of events, and of the
// elements of a dense input. The last is computed at the events alone, and is 0 elsewhere, if `at_events` is set.
struct SynapseGradients {
    Address weight, values, input;
    bool at_events;
};

// The backward pass of convolution_forward().
void convolution_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients,
                          const ConvolvedRows& input, const Convolution& map, Address weight, const Saved& saved,
                          const SynapseGradients& wanted);

// traced_backward() on a dense input, with the mask that dense_forward() wrote; `ones` is its result, whether all
// nonzero elements are 1. If `weight_t` (K, N) is given, the gradient of the input is computed at the events alone and
// is 0 elsewhere; otherwise it is the product of the gradient of the currents and `weight` (N, K). Without `grad_input`
// the caller may want `grad_current`, to multiply it itself.
void dense_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients, Address input, int64_t inputs,
                    Address mask, bool ones, const Saved& saved, Address weight, Address weight_t, Address grad_current,
                    Address grad_input, Address grad_weight);

// The backward pass of scan_forward().
void scan_backward(const Layer& layer, const Outputs& grads, const Gradients& gradients, Address current,
                   const Saved& saved, Address grad_current);

// The gradients of the values of events, or of the input's elements at events, from those of the currents.
void event_dots(const Layer& layer, const EventRows& rows, Address weight_t, Address grad_current, Address grad_values,
                Address grad_input);

// Whether summing by events is expected to beat torch's product or convolution, from the density of some rows of a
// dense input (T, B, K). `places` are those of the map of a convolution; 0: the synapse is linear.
bool events_are_faster(bool is_double, const ScanShape& shape, Address input, int64_t inputs, int64_t places);

}  // namespace srcell
