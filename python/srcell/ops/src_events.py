"""``src_events``: a linear synapse on the events of an EventBatch, then the recurrence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _gpu
from ._cpu import CPU, Cpu, EventRows
from ._layer import (
    ARRIVING,
    CELL,
    GRADIENTS,
    LAYER,
    NO_CELL,
    OPTIONS,
    OUTPUTS,
    Layer,
    LayerGradients,
    Like,
    check_arriving,
    check_floats,
    check_integers,
    check_layer,
    check_optional,
    check_output_mask,
    check_tensor,
    empty_like,
    empty_outputs,
    fake_gradients,
    fake_outputs,
    output_mask_of,
)
from ._memory import Optionals, contiguous
from ._operator import Gradients, Operator
from .src import layer_gradients

EVENTS = "Tensor offsets, Tensor indices, Tensor? values, Tensor weight"

src_events = Operator(
    f"src_events({EVENTS}, {LAYER}, *, SymInt steps, SymInt batch, {OPTIONS}, bool save, bool trace_integrator)"
    f" -> ({OUTPUTS}, Tensor trace, Tensor checkpoints)"
)


@src_events.kernel("CPU", "CUDA")
def forward(
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *,
    steps: int,
    batch: int,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    save: bool,
    trace_integrator: bool,
) -> tuple[Tensor, ...]:
    """The kernel; with ``trace_integrator`` the trace has what the gradients of cell parameters need."""
    like = check_floats("weight", weight, "N, K")
    check_rows(offsets, indices, values, steps * batch, like)
    rows = contiguous_rows(offsets, indices, values)
    layer = Layer(
        (steps, batch, weight.shape[0]),
        like,
        bias,
        cell,
        state,
        lengths,
        weight_hh,
        constants=constants,
        surrogate=surrogate,
        recurrent_grad=recurrent_grad,
        lateral_surrogate=lateral_surrogate,
    )
    backend = _gpu.backend_of("weight", weight)
    trace = backend.empty(weight, math.prod(layer.sizes) if save else 0)
    checkpoints = backend.empty(weight, checkpoint_size(backend, *layer.sizes) if save else 0)
    saved = (trace, checkpoints) if save else (None, None)
    return *run_events(layer, rows, contiguous(weight), saved, trace_integrator), trace, checkpoints


def check_rows(offsets: Tensor, indices: Tensor, values: Tensor | None, rows: int, like: Like) -> None:
    """Check that offsets, indices and values go together."""
    check_integers("offsets", offsets, torch.int64, rows + 1, like)
    count = indices.numel()
    check_integers("indices", indices, torch.int32, count, like)
    check_optional("values", values, like, (count,))


def contiguous_rows(offsets: Tensor, indices: Tensor, values: Tensor | None) -> EventRows:
    """Checked events as kernels read them."""
    return EventRows(contiguous(offsets), contiguous(indices), None if values is None else contiguous(values))


def run_events(layer: Layer, rows: EventRows, weight: Tensor, saved: Optionals, trace_integrator: bool) -> list[Tensor]:
    """Spikes and state of a checked layer on checked events; ``saved`` are the trace and the checkpoints to fill."""
    backend = _gpu.backend_of("weight", weight)
    outputs = empty_outputs(layer, backend)
    backend.events_forward(layer, outputs, rows, weight, saved, trace_integrator)
    return outputs


@src_events.fake
def forward_fake(
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *,
    steps: int,
    batch: int,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    save: bool,
    trace_integrator: bool,
) -> tuple[Tensor, ...]:
    """The outputs' shapes."""
    neurons, like = weight.shape[0], check_floats("weight", weight, "N, K")
    check_rows(offsets, indices, values, steps * batch, like)
    check_layer(
        (steps, batch, neurons), like, bias, cell, state, lengths, weight_hh, constants, surrogate, lateral_surrogate
    )
    backend = _gpu.Gpu if _gpu.is_gpu(weight.device) else CPU
    trace = weight.new_empty(steps * batch * neurons if save else 0)
    checkpoints = weight.new_empty(checkpoint_size(backend, steps, batch, neurons) if save else 0)
    return *fake_outputs(weight, steps, batch, neurons), trace, checkpoints


def save_for_backward(
    ctx: Any,
    outputs: Sequence[Tensor],
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
) -> None:
    """Keep what the gradient needs. Of the initial state that is i alone, for the gradients of cell parameters."""
    trace, checkpoints = outputs[4:]
    ctx.mark_non_differentiable(trace, checkpoints)
    i0 = state[0] if state and cell else None
    ctx.save_for_backward(offsets, indices, values, weight, trace, checkpoints, bias, i0, lengths, weight_hh, *cell)


def options_of_gradient(
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
) -> dict[str, bool]:
    """The options of a call whose gradient may be needed."""
    return {"save": True, "trace_integrator": any(x.requires_grad for x in cell)}


@src_events.gradient(save_for_backward, options_of_gradient)
def gradient(ctx: Any, *grads: Tensor | None) -> Gradients:
    """The gradients of offsets, indices, values, weight, bias, cell, state, lengths and weight_hh."""
    offsets, indices, values, weight, trace, checkpoints, bias, i0, lengths, weight_hh, *cell = ctx.saved_tensors
    _, _, needs_values, needs_weight, *_ = ctx.needs
    grad_values, grad_weight, *gradients = src_events_backward(
        *grads[:4],
        offsets,
        indices,
        values,
        weight,
        trace,
        checkpoints,
        bias,
        i0,
        lengths,
        weight_hh,
        *(cell or NO_CELL),
        steps=ctx.options["steps"],
        batch=ctx.options["batch"],
        constants=ctx.options["constants"],
        surrogate=ctx.options["surrogate"],
        recurrent_grad=ctx.options["recurrent_grad"],
        lateral_surrogate=ctx.options["lateral_surrogate"],
        output_mask=output_mask_of(ctx, needs_values, needs_weight),
    )
    return None, None, grad_values, grad_weight, *layer_gradients(ctx, gradients)


src_events_backward = Operator(
    f"src_events_backward({ARRIVING}, {EVENTS}, Tensor trace, Tensor checkpoints, Tensor bias,"
    f" Tensor? i0, Tensor? lengths, Tensor? weight_hh, {CELL}, *, SymInt steps, SymInt batch, {OPTIONS},"
    f" bool[] output_mask) -> (Tensor values, Tensor weight, {GRADIENTS})"
)


@src_events_backward.kernel("CPU", "CUDA")
def backward(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    weight: Tensor,
    trace: Tensor,
    checkpoints: Tensor,
    bias: Tensor,
    i0: Tensor | None,
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *cell: Tensor | None,
    steps: int,
    batch: int,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The kernel; ``output_mask`` tells which gradients of values, weight, weight_hh and cell parameters are wanted."""
    like = check_floats("weight", weight, "N, K")
    check_rows(offsets, indices, values, steps * batch, like)
    rows = contiguous_rows(offsets, indices, values)
    layer = Layer(
        (steps, batch, weight.shape[0]),
        like,
        bias,
        cell,
        [],
        lengths,
        weight_hh,
        constants=constants,
        surrogate=surrogate,
        recurrent_grad=recurrent_grad,
        lateral_surrogate=lateral_surrogate,
    )
    arriving = check_arriving((grad_spikes, grad_i, grad_h, grad_hs), layer.sizes, like)
    backend = _gpu.backend_of("weight", weight)
    check_tensor("trace", trace, like, (math.prod(layer.sizes),))
    check_tensor("checkpoints", checkpoints, like, (checkpoint_size(backend, *layer.sizes),))
    i0 = None if i0 is None else contiguous(check_tensor("i0", i0, like, layer.sizes[1:]))
    check_output_mask(output_mask, 2)
    gradients = LayerGradients(layer, output_mask[2:], backend.empty)
    grad_values, grad_weight = backend.events_backward(
        layer,
        arriving,
        gradients,
        rows,
        contiguous(weight),
        (contiguous(trace), contiguous(checkpoints)),
        i0,
        want_values=output_mask[0],
        want_weight=output_mask[1],
    )
    return grad_values, grad_weight, *gradients.all


@src_events_backward.fake
def backward_fake(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    offsets: Tensor,
    indices: Tensor,
    values: Tensor | None,
    weight: Tensor,
    trace: Tensor,
    checkpoints: Tensor,
    bias: Tensor,
    i0: Tensor | None,
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *cell: Tensor | None,
    steps: int,
    batch: int,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The gradients' shapes."""
    grad_values = weight.new_empty(indices.shape[0] if output_mask[0] else 0)
    grad_weight = empty_like(weight) if output_mask[1] else weight.new_empty(0)
    return grad_values, grad_weight, *fake_gradients(bias, weight_hh, cell, batch, weight.shape[0], output_mask[2:])


def checkpoint_size(backend: Cpu | _gpu.Gpu | type[_gpu.Gpu], steps: int, batch: int, neurons: int) -> int:
    """Number of elements of the checkpoints of events: h and hs before every segment; i is in the trace."""
    segment = backend.event_segment
    return (steps + segment - 1) // segment * 2 * batch * neurons
