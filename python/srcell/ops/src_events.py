"""``src_events``: a linear synapse or a convolution on the events of an EventBatch, then the recurrence."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from . import _gpu, _layer
from ._acting import of_arguments
from ._convolution import OPTION, synapse_sizes
from ._cpu import core, rows_of
from ._direct import Direct
from ._layer import OF_OPERATOR
from ._memory import contiguous

src_events, src_events_backward, gradient = _layer.declare(
    "src_events",
    "Tensor offsets, Tensor indices, Tensor? values, Tensor weight",
    "SymInt steps, SymInt batch",
    wanted=["values", "weight"],
    defaulted=OPTION,
)


directly = Direct(
    src_events, src_events_backward, gradient, ["values", "weight"], core.src_events, core.src_events_backward
)


@src_events.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Any, ...]:
    """The kernel; with ``trace_integrator`` the trace holds i, which the gradients of cell parameters need.

    A convolution keeps no trace; it has no kernels on a GPU.
    """
    weight = call.weight
    if not _gpu.is_gpu(weight.device):
        return _layer.on_cpu(core.src_events, forward_fake, call, OF_OPERATOR)
    outputs, (sizes, like) = forward_fake(call), check_synapse(call)
    refuse_convolution_on_gpu(call)
    run = _layer.layer_on_gpu(sizes, like, call.layer), outputs[:-2], outputs[-2:], call.trace_integrator
    rows, gpu = rows_of(call), _gpu.gpu_of("weight", weight)
    gpu.events_forward(run, (rows.for_kernels(weight.shape[1]), None, None), contiguous(weight))
    return outputs


def check_synapse(call: Any) -> tuple[_layer.Sizes, _layer.Like]:
    """Check weight, offsets, indices and values; return T, B and N, and what the other arguments must have."""
    _, neurons = synapse_sizes(call)
    like = _layer.check_floats("weight", call.weight)
    _layer.check_events(call, like)
    return (call.steps, call.batch, neurons), like


def refuse_convolution_on_gpu(call: Any) -> None:
    """Raise for a convolution of events on a GPU."""
    if call.convolution:
        raise RuntimeError(
            f"weight: is on {call.weight.device}, where srcell has no convolution of events: use torch's"
        )


@src_events.fake
def forward_fake(call: Any) -> tuple[Any, ...]:
    """The outputs' shapes."""
    sizes, like = check_synapse(call)
    _layer.check_layer(sizes, like, call.layer)
    traced = not call.convolution
    return *_layer.empty_outputs(call.layer, sizes), *_layer.empty_saved(call.layer, sizes, call.save, traced)


@src_events_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Any, ...]:
    """The kernel; ``output_mask`` tells which gradients of values, weight and WANTED are wanted."""
    weight = call.weight
    if not _gpu.is_gpu(weight.device):
        return _layer.on_cpu(core.src_events_backward, check_backward, call, OF_OPERATOR)
    refuse_convolution_on_gpu(call)
    (sizes, like), (grads, saved) = check_synapse(call), check_backward(call)
    layer = _layer.layer_on_gpu(sizes, like, call.layer, backward=True)
    gradients = _layer.gradients_on_gpu(call, layer, 2)
    run, gpu = (layer, grads, saved, gradients), _gpu.gpu_of("weight", weight)
    of_synapse = gpu.events_backward(run, rows_of(call), contiguous(weight), call.output_mask[:2])
    return *of_synapse, *of_arguments(call.layer, gradients)


def check_backward(call: Any) -> tuple[list[Tensor | None], list[Tensor]]:
    """Check a backward call; return the gradients of its outputs, and trace and checkpoints."""
    sizes, like = check_synapse(call)
    grads = _layer.check_backward(call, sizes, like, synapse=2)
    return grads, _layer.saved_of(call, sizes, like, traced=not call.convolution)


@src_events_backward.fake
def backward_fake(call: Any) -> tuple[Any, ...]:
    """The gradients' shapes."""
    weight, (want_values, want_weight) = call.weight, call.output_mask[:2]
    grad_values = weight.new_empty(call.indices.shape) if want_values else None
    grad_weight = weight.new_empty(weight.shape) if want_weight else None
    return grad_values, grad_weight, *_layer.empty_gradients(call, check_synapse(call)[0], 2)
