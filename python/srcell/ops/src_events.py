"""``src_events``: a linear synapse on the events of an EventBatch, then the recurrence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _gpu, _layer
from ._cpu import core, rows_of
from ._memory import contiguous

OPERATORS = _layer.declare(
    "src_events",
    "Tensor offsets, Tensor indices, Tensor? values, Tensor weight",
    "SymInt steps, SymInt batch",
    wanted=["values", "weight"],
)
src_events, src_events_backward = OPERATORS.forward, OPERATORS.backward


@src_events.kernel("CPU", "CUDA")
def forward(call: Any) -> tuple[Any, ...]:
    """The kernel; with ``trace_integrator`` the trace holds i, which the gradients of cell parameters need."""
    weight = call.weight
    if not _gpu.is_gpu(weight.device):
        made: tuple[Any, ...] = _layer.on_cpu(core.src_events, forward_fake, call)
        return made
    outputs, (sizes, like) = forward_fake(call), check_synapse(call)
    run = _gpu.Forward(_layer.layer_on_gpu(sizes, like, call.layer), outputs[:-2], outputs[-2:], call.trace_integrator)
    _gpu.gpu_of("weight", weight).events_forward(run, rows_of(call), contiguous(weight))
    return outputs


def check_synapse(call: Any) -> tuple[_layer.Sizes, _layer.Like]:
    """Check weight, offsets, indices and values; return T, B and N, and what the other arguments must have."""
    like, count = _layer.check_floats("weight", call.weight, "N, K"), call.indices.numel()
    _layer.check_integers("offsets", call.offsets, torch.int64, call.steps * call.batch + 1, like)
    _layer.check_integers("indices", call.indices, torch.int32, count, like)
    _layer.check_optional("values", call.values, like, (count,))
    return (call.steps, call.batch, call.weight.shape[0]), like


@src_events.fake
def forward_fake(call: Any) -> tuple[Any, ...]:
    """The outputs' shapes."""
    sizes, like = check_synapse(call)
    _layer.check_layer(sizes, like, call.layer)
    return *_layer.empty_outputs(call.layer, sizes), *_layer.empty_saved(call.layer, sizes, call.save, traced=True)


@src_events_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Any, ...]:
    """The kernel; ``output_mask`` tells which gradients of values, weight and WANTED are wanted."""
    weight = call.weight
    if not _gpu.is_gpu(weight.device):
        made: tuple[Any, ...] = _layer.on_cpu(core.src_events_backward, check_backward, call)
        return made
    (sizes, like), (grads, saved) = check_synapse(call), check_backward(call)
    layer, gradients = _layer.layer_on_gpu(sizes, like, call.layer, backward=True), backward_fake(call)[2:]
    run, gpu = _gpu.Backward(layer, grads, saved, gradients), _gpu.gpu_of("weight", weight)
    return *gpu.events_backward(run, rows_of(call), contiguous(weight), call.output_mask[:2]), *gradients


def check_backward(call: Any) -> tuple[list[Tensor | None], list[Tensor]]:
    """Check a backward call; return the gradients of its outputs, and trace and checkpoints."""
    sizes, like = check_synapse(call)
    return _layer.check_backward(call, sizes, like, synapse=2), _layer.saved_of(call, sizes, like, traced=True)


@src_events_backward.fake
def backward_fake(call: Any) -> tuple[Any, ...]:
    """The gradients' shapes."""
    weight, (want_values, want_weight) = call.weight, call.output_mask[:2]
    grad_values = weight.new_empty(call.indices.shape[0]) if want_values else None
    grad_weight = _layer.empty_like(weight) if want_weight else None
    sizes = call.steps, call.batch, weight.shape[0]
    return grad_values, grad_weight, *_layer.empty_gradients(call, sizes, 2)


gradient = _layer.differentiate(OPERATORS)
