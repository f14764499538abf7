"""``src_dense``: a linear synapse on a dense input, then the recurrence.

The synapse adds the weights of the nonzero inputs one by one, or uses torch's matrix product, whichever is asked for or
expected to be faster.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _gpu, src_events
from ._cpu import CPU, Cpu, empty, mask_shape
from ._dense import check_synapse, takes_events
from ._layer import (
    LAYER,
    NO_CELL,
    OPTIONS,
    OUTPUTS,
    Layer,
    check_layer,
    empty_outputs,
    fake_outputs,
    output_mask_of,
)
from ._memory import contiguous
from ._operator import Gradients, Operator
from .src import checkpoint_size, layer_gradients, run_scan
from .src_dense_backward import src_dense_backward

src_dense = Operator(
    f"src_dense(Tensor input, Tensor weight, {LAYER}, *, str method, {OPTIONS}, bool save, bool trace_integrator,"
    f" bool input_grad_at_events) -> ({OUTPUTS}, Tensor trace, Tensor checkpoints, Tensor mask, Tensor path)"
)


@src_dense.kernel("CPU", "CUDA")
def forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *,
    method: str,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    save: bool,
    trace_integrator: bool,
    input_grad_at_events: bool,
) -> tuple[Tensor, ...]:
    """The kernel. It records the method it used: on a CPU in ``path``; on a GPU a mask of no rows means the product."""
    like = check_synapse(input, weight, method)
    layer = Layer(
        (*input.shape[:2], weight.shape[0]),
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
    run = run_on_gpu if _gpu.is_gpu(input.device) else run_on_cpu
    return run(layer, contiguous(input), contiguous(weight), method, save, trace_integrator)


def run_on_cpu(
    layer: Layer, input: Tensor, weight: Tensor, method: str, save: bool, trace_integrator: bool
) -> tuple[Tensor, ...]:
    """All outputs; for the method "auto" the input's density is measured."""
    outputs: Sequence[Tensor]
    took_events, ones = takes_events(input, method, layer.lengths), False
    if took_events:
        rows, mask, ones = CPU.events_of(input, layer.lengths)
        trace = empty(weight, math.prod(layer.sizes)) if save else weight.new_empty(0)
        checkpoints = room_for_checkpoints(CPU, layer, save)
        saved = (trace, checkpoints) if save else (None, None)
        outputs = src_events.run_events(layer, rows, weight, saved, trace_integrator)
    else:
        *outputs, trace, checkpoints = run_product(CPU, layer, input, weight, save, trace_integrator)
        mask = input.new_zeros(mask_shape(input) if save else 0, dtype=torch.int64)
    if not save:
        mask = mask.new_empty(0, mask_shape(input)[1])
        return *outputs, trace, checkpoints, mask, mask.new_empty(0)
    path = torch.tensor([took_events, ones], dtype=torch.int64, device="cpu")
    return *outputs, trace, checkpoints, mask, path


def run_on_gpu(
    layer: Layer, input: Tensor, weight: Tensor, method: str, save: bool, trace_integrator: bool
) -> tuple[Tensor, ...]:
    """All outputs; the method "auto" takes the product."""
    outputs: Sequence[Tensor]
    gpu = _gpu.gpu_of("input", input)
    if method == "events":
        mask = gpu.empty(input, *mask_shape(input), dtype=torch.int64)
        gpu.mask(input, layer.lengths, mask)
        trace = gpu.empty(weight, math.prod(layer.sizes) if save else 0)
        checkpoints = room_for_checkpoints(gpu, layer, save)
        outputs = empty_outputs(layer, gpu)
        saved = (trace, checkpoints) if save else (None, None)
        gpu.masked_forward(layer, outputs, input, mask, weight, saved, trace_integrator)
        mask = mask if save else mask.new_empty(0, mask.shape[1])
    else:
        *outputs, trace, checkpoints = run_product(gpu, layer, input, weight, save, trace_integrator)
        mask = input.new_empty(0, mask_shape(input)[1], dtype=torch.int64)
    return *outputs, trace, checkpoints, mask, mask.new_zeros(2 if save else 0)


def room_for_checkpoints(backend: Cpu | _gpu.Gpu, layer: Layer, save: bool) -> Tensor:
    """Uninitialised checkpoints in the product's size; those of events are fewer and come first, zeros after them."""
    if not save:
        return layer.bias.new_empty(0)
    checkpoints = backend.empty(layer.bias, checkpoint_size(*layer.sizes))
    checkpoints[src_events.checkpoint_size(backend, *layer.sizes) :] = 0
    return checkpoints


def run_product(
    backend: Cpu | _gpu.Gpu, layer: Layer, input: Tensor, weight: Tensor, save: bool, trace_integrator: bool
) -> tuple[Tensor, ...]:
    """The outputs, the flattened currents or beside lateral weights the trace, and the checkpoints."""
    current = backend.empty(layer.bias, *layer.sizes)
    torch.mm(input.flatten(0, 1), weight.t(), out=current.flatten(0, 1))
    if layer.weight_hh is not None:
        outputs = empty_outputs(layer, backend)
        trace = backend.empty(weight, math.prod(layer.sizes) if save else 0)
        checkpoints = room_for_checkpoints(backend, layer, save)
        saved = (trace, checkpoints) if save else (None, None)
        backend.lateral_forward(layer, outputs, None, current, saved, trace_integrator)
        return *outputs, trace, checkpoints
    *outputs, checkpoints = run_scan(layer, current, save)
    return *outputs, current.view(-1) if save else current.new_empty(0), checkpoints


@src_dense.fake
def forward_fake(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *,
    method: str,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    save: bool,
    trace_integrator: bool,
    input_grad_at_events: bool,
) -> tuple[Tensor, ...]:
    """The outputs' shapes."""
    steps, batch, neurons = input.shape[0], input.shape[1], weight.shape[0]
    like = check_synapse(input, weight, method)
    check_layer(
        (steps, batch, neurons), like, bias, cell, state, lengths, weight_hh, constants, surrogate, lateral_surrogate
    )
    rows, words = mask_shape(input)
    masked = save and (method == "events" or not _gpu.is_gpu(input.device))
    return (
        *fake_outputs(input, steps, batch, neurons),
        input.new_empty(steps * batch * neurons if save else 0),
        input.new_empty(checkpoint_size(steps, batch, neurons) if save else 0),
        input.new_empty(rows if masked else 0, words, dtype=torch.int64),
        input.new_empty(2 if save else 0, dtype=torch.int64),
    )


def save_for_backward(
    ctx: Any,
    outputs: Sequence[Tensor],
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
) -> None:
    """Keep what the gradient needs. Of the initial state that is i alone, for the gradients of cell parameters."""
    trace, checkpoints, mask, path = outputs[4:]
    ctx.mark_non_differentiable(trace, checkpoints, mask, path)
    i0 = state[0] if state and cell else None
    ctx.save_for_backward(input, weight, trace, checkpoints, mask, path, bias, i0, lengths, weight_hh, *cell)


def options_of_gradient(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    weight_hh: Tensor | None,
) -> dict[str, bool]:
    """The options of a call whose gradient may be needed."""
    return {"save": True, "trace_integrator": any(x.requires_grad for x in cell)}


@src_dense.gradient(save_for_backward, options_of_gradient)
def gradient(ctx: Any, *grads: Tensor | None) -> Gradients:
    """The gradients of input, weight, bias, cell, state, lengths and weight_hh."""
    input, weight, trace, checkpoints, mask, path, bias, i0, lengths, weight_hh, *cell = ctx.saved_tensors
    needs_input, needs_weight, *_ = ctx.needs
    grad_input, grad_weight, *gradients = src_dense_backward(
        *grads[:4],
        input,
        weight,
        trace,
        checkpoints,
        mask,
        path,
        bias,
        i0,
        lengths,
        weight_hh,
        *(cell or NO_CELL),
        constants=ctx.options["constants"],
        surrogate=ctx.options["surrogate"],
        recurrent_grad=ctx.options["recurrent_grad"],
        lateral_surrogate=ctx.options["lateral_surrogate"],
        input_grad_at_events=ctx.options["input_grad_at_events"],
        output_mask=output_mask_of(ctx, needs_input, needs_weight),
    )
    return grad_input, grad_weight, *layer_gradients(ctx, gradients)
