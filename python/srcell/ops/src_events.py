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
def forward(call: Any) -> tuple[Tensor | None, ...]:
    """The kernel; with ``trace_integrator`` the trace holds i, which the gradients of cell parameters need."""
    if not _gpu.is_gpu(call.weight.device):
        made: tuple[Tensor | None, ...] | None = core.src_events(call, torch.get_num_threads())
        return made or _layer.refuse(forward_fake, call)
    sizes, like = check_synapse(call)
    rows, layer = rows_of(call), _layer.checked_layer(sizes, like, call.layer)
    backend = _gpu.gpu_of("weight", call.weight)
    outputs, saved = _layer.empty_outputs(layer, backend), _layer.empty_saved(layer, backend, call.save, traced=True)
    backend.events_forward(_layer.Forward(layer, outputs, saved, call.trace_integrator), rows, contiguous(call.weight))
    return *outputs, *saved


def check_synapse(call: Any) -> tuple[_layer.Sizes, _layer.Like]:
    """Check weight, offsets, indices and values; return T, B and N, and what the other arguments must have."""
    like, count = _layer.check_floats("weight", call.weight, "N, K"), call.indices.numel()
    _layer.check_integers("offsets", call.offsets, torch.int64, call.steps * call.batch + 1, like)
    _layer.check_integers("indices", call.indices, torch.int32, count, like)
    _layer.check_optional("values", call.values, like, (count,))
    return (call.steps, call.batch, call.weight.shape[0]), like


@src_events.fake
def forward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The outputs' shapes."""
    sizes, like = check_synapse(call)
    _layer.check_layer(sizes, like, call.layer)
    return *_layer.fake_outputs(call.layer, *sizes), *_layer.fake_saved(call.layer, sizes, call.save, traced=True)


@src_events_backward.kernel("CPU", "CUDA")
def backward(call: Any) -> tuple[Tensor | None, ...]:
    """The kernel; ``output_mask`` tells which gradients of values, weight and WANTED are wanted."""
    sizes, like = check_synapse(call)
    rows, layer = rows_of(call), _layer.checked_layer(sizes, like, call.layer, backward=True)
    grads, saved = _layer.grads_of(call, sizes, like), _layer.saved_of(call, layer, traced=True)
    _layer.check_output_mask(call.output_mask, 2)
    backend = _gpu.backend_of("weight", call.weight)
    run = _layer.Backward(layer, grads, saved, _layer.empty_gradients(layer, call.output_mask[2:], backend))
    return *backend.events_backward(run, rows, contiguous(call.weight), call.output_mask[:2]), *run.gradients


@src_events_backward.fake
def backward_fake(call: Any) -> tuple[Tensor | None, ...]:
    """The gradients' shapes."""
    weight, (want_values, want_weight, *layer_mask) = call.weight, call.output_mask
    grad_values = weight.new_empty(call.indices.shape[0]) if want_values else None
    grad_weight = _layer.empty_like(weight) if want_weight else None
    return grad_values, grad_weight, *_layer.fake_gradients(call, call.batch, weight.shape[0], layer_mask)


gradient = _layer.differentiate(OPERATORS)
