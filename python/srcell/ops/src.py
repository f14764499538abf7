"""``src``: the recurrence on given currents."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _gpu
from ._cpu import CPU, Cpu, core
from ._layer import (
    ARRIVING,
    CELL,
    GRADIENTS,
    LAYER,
    NO_CELL,
    OPTIONS,
    OUTPUTS,
    STATE,
    Layer,
    LayerGradients,
    Sizes,
    check_arriving,
    check_floats,
    check_layer,
    check_output_mask,
    check_tensor,
    empty_outputs,
    fake_gradients,
    fake_outputs,
    output_mask_of,
    work_dtype,
)
from ._memory import contiguous
from ._operator import Gradients, Operator

src = Operator(
    f"src(Tensor current, {LAYER}, *, {OPTIONS}, bool save, bool trace_integrator, bool half_spikes=False)"
    f" -> ({OUTPUTS}, Tensor checkpoints)"
)


@src.kernel("CPU", "CUDA")
def forward(
    current: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    save: bool,
    trace_integrator: bool,
    half_spikes: bool = False,
) -> tuple[Tensor, ...]:
    """The kernel.

    ``save`` is set if a gradient may be needed, and without it the checkpoints are empty. With ``half_spikes`` the
    spikes of half-precision currents have their dtype.
    """
    like = check_floats("current", current, "T, B, N", half=_gpu.is_gpu(current.device))
    layer = Layer(
        sizes_of(current),
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
    dtype = spikes_dtype(current, half_spikes)
    if layer.weight_hh is not None:
        spikes, *others = run_lateral(layer, contiguous(current), save, trace_integrator)
        return spikes.to(dtype), *others
    return run_scan(layer, contiguous(current), save, dtype)


def spikes_dtype(current: Tensor, half_spikes: bool) -> torch.dtype:
    """The dtype of the spikes."""
    return current.dtype if half_spikes else work_dtype(current)


def run_scan(layer: Layer, current: Tensor, save: bool, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """Spikes (of ``dtype``), state and checkpoints of a checked layer on contiguous currents."""
    backend = _gpu.backend_of("current", current)
    outputs = empty_outputs(layer, backend, dtype)
    checkpoints = backend.empty(layer.bias, checkpoint_size(*layer.sizes) if save else 0)
    backend.scan_forward(layer, outputs, current, checkpoints if save else None)
    return *outputs, checkpoints


def run_lateral(layer: Layer, current: Tensor, save: bool, trace_integrator: bool) -> tuple[Tensor, ...]:
    """``run_scan`` with lateral weights; the checkpoints are the trace and the checkpoints of events, one tensor."""
    backend = _gpu.backend_of("current", current)
    outputs = empty_outputs(layer, backend)
    checkpoints = backend.empty(layer.bias, lateral_size(backend, *layer.sizes) if save else 0)
    saved = split_lateral(layer.sizes, checkpoints) if save else (None, None)
    backend.lateral_forward(layer, outputs, None, current.to(layer.like.dtype), saved, trace_integrator)
    return *outputs, checkpoints


@src.fake
def forward_fake(
    current: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    save: bool,
    trace_integrator: bool,
    half_spikes: bool = False,
) -> tuple[Tensor, ...]:
    """The outputs' shapes."""
    like = check_floats("current", current, "T, B, N", half=_gpu.is_gpu(current.device))
    check_layer(sizes_of(current), like, bias, cell, state, lengths, weight_hh, constants, surrogate, lateral_surrogate)
    size = saved_size(current, weight_hh) if save else 0
    spikes, *final = fake_outputs(bias, *current.shape)
    return spikes.to(spikes_dtype(current, half_spikes)), *final, bias.new_empty(size)


def save_for_backward(
    ctx: Any,
    outputs: Sequence[Tensor],
    current: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
) -> None:
    """Keep what the gradient needs.

    The checkpoints contain the initial state, except, beside lateral weights, i, for the gradients of cell parameters.
    There the trace is kept instead of the currents, and of these the shape alone.
    """
    checkpoints, i0 = outputs[4], None
    ctx.mark_non_differentiable(checkpoints)
    if weight_hh is not None:
        current = current.new_empty(()).expand(current.shape)
        i0 = state[0] if state and cell else None
    ctx.save_for_backward(current, checkpoints, bias, i0, lengths, weight_hh, *cell)


def options_of_gradient(
    current: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
) -> dict[str, bool]:
    """The options of a call whose gradient may be needed."""
    return {"save": True, "trace_integrator": any(x.requires_grad for x in cell)}


@src.gradient(save_for_backward, options_of_gradient)
def gradient(ctx: Any, *grads: Tensor | None) -> Gradients:
    """The gradients of current, bias, cell, state, lengths and weight_hh."""
    current, checkpoints, bias, i0, lengths, weight_hh, *cell = ctx.saved_tensors
    grad_current, *gradients = src_backward(
        *grads[:4],
        current,
        checkpoints,
        bias,
        i0,
        lengths,
        weight_hh,
        *(cell or NO_CELL),
        constants=ctx.options["constants"],
        surrogate=ctx.options["surrogate"],
        recurrent_grad=ctx.options["recurrent_grad"],
        lateral_surrogate=ctx.options["lateral_surrogate"],
        output_mask=output_mask_of(ctx),
    )
    return grad_current, *layer_gradients(ctx, gradients)


def layer_gradients(ctx: Any, gradients: Sequence[Tensor]) -> Gradients:
    """The gradients of bias, cell, state, lengths and weight_hh, from those of GRADIENTS."""
    weight_hh, *initial, bias = gradients[:5]
    _, needs_cell, needs_state, _, _ = ctx.needs[-5:]
    return bias, gradients[5:] if needs_cell else None, initial if needs_state else None, None, weight_hh


src_backward = Operator(
    f"src_backward({ARRIVING}, Tensor current, Tensor checkpoints, Tensor bias, Tensor? i0, Tensor? lengths,"
    f" Tensor? weight_hh, {CELL}, *, {OPTIONS}, bool[] output_mask) -> (Tensor current, {GRADIENTS})"
)


@src_backward.kernel("CPU", "CUDA")
def backward(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    current: Tensor,
    checkpoints: Tensor,
    bias: Tensor,
    i0: Tensor | None,
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *cell: Tensor | None,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The kernel; ``output_mask`` tells which gradients of weight_hh and cell parameters are wanted."""
    like = check_floats("current", current, "T, B, N", half=_gpu.is_gpu(current.device))
    check_output_mask(output_mask, 0)
    layer = Layer(
        sizes_of(current),
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
    arriving = check_arriving((grad_spikes, grad_i, grad_h, grad_hs), layer.sizes, like, current.dtype)
    checkpoints = check_tensor("checkpoints", checkpoints, like, (saved_size(current, weight_hh),))
    if weight_hh is not None:
        i0 = None if i0 is None else contiguous(check_tensor("i0", i0, like, layer.sizes[1:]))
        saved = split_lateral(layer.sizes, contiguous(checkpoints))
        backend = _gpu.backend_of("current", current)
        arriving = [None if x is None else x.to(like.dtype) for x in arriving]
        grad_current, *gradients = run_lateral_backward(backend, layer, arriving, saved, i0, output_mask)
        return grad_current.to(current.dtype), *gradients
    return run_scan_backward(layer, arriving, contiguous(current), contiguous(checkpoints), output_mask)


def run_scan_backward(
    layer: Layer,
    arriving: Sequence[Tensor | None],
    current: Tensor,
    checkpoints: Tensor,
    output_mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    """The gradients of contiguous currents and of a checked layer."""
    backend = _gpu.backend_of("current", current)
    gradients = LayerGradients(layer, output_mask, backend.empty)
    grad_current = backend.empty(current, *layer.sizes)
    backend.scan_backward(layer, arriving, gradients, current, checkpoints, grad_current)
    return grad_current, *gradients.all


def run_lateral_backward(
    backend: Cpu | _gpu.Gpu,
    layer: Layer,
    arriving: Sequence[Tensor | None],
    saved: Sequence[Tensor],
    i0: Tensor | None,
    output_mask: Sequence[bool],
) -> tuple[Tensor, ...]:
    """``run_scan_backward`` with lateral weights; ``saved`` are the trace and the checkpoints of events."""
    gradients = LayerGradients(layer, output_mask, backend.empty)
    grad_current = backend.empty(layer.bias, *layer.sizes)
    backend.lateral_backward(layer, arriving, gradients, None, saved, i0, grad_current, None)
    return grad_current, *gradients.all


@src_backward.fake
def backward_fake(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    current: Tensor,
    checkpoints: Tensor,
    bias: Tensor,
    i0: Tensor | None,
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *cell: Tensor | None,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The gradients' shapes."""
    _, batch, neurons = current.shape
    return current.new_empty(current.shape), *fake_gradients(bias, weight_hh, cell, batch, neurons, output_mask)


def sizes_of(x: Tensor) -> Sizes:
    """The sizes of a tensor (T, B, N) or (T, B, K)."""
    steps, batch, width = x.shape
    return steps, batch, width


def checkpoint_size(steps: int, batch: int, neurons: int) -> int:
    """Number of elements of the checkpoints: i, h and hs before every segment."""
    segment = core.segment
    return (steps + segment - 1) // segment * len(STATE) * batch * neurons


def saved_size(current: Tensor, weight_hh: Tensor | None) -> int:
    """Number of elements of the checkpoints, with or without lateral weights."""
    if weight_hh is None:
        return checkpoint_size(*current.shape)
    return lateral_size(_gpu.Gpu if _gpu.is_gpu(current.device) else CPU, *current.shape)


def lateral_size(backend: Cpu | _gpu.Gpu | type[_gpu.Gpu], steps: int, batch: int, neurons: int) -> int:
    """Number of elements that are saved with lateral weights: the trace, then h and hs before every segment."""
    segment = backend.event_segment
    return (steps + (steps + segment - 1) // segment * 2) * batch * neurons


def split_lateral(sizes: Sizes, saved: Tensor) -> tuple[Tensor, Tensor]:
    """The trace and the checkpoints of events in one tensor."""
    elements = math.prod(sizes)
    return saved[:elements], saved[elements:]
