"""``src``: the recurrence on given currents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from . import _gpu
from ._cpu import core
from ._layer import (
    ARRIVING,
    CELL,
    GRADIENTS,
    LAYER,
    NO_CELL,
    OPTIONS,
    OUTPUTS,
    PARAMETERS,
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
)
from ._memory import contiguous
from ._operator import Gradients, Operator

src = Operator(f"src(Tensor current, {LAYER}, *, {OPTIONS}, bool save) -> ({OUTPUTS}, Tensor checkpoints)")


@src.kernel("CPU", "CUDA")
def forward(
    current: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    *,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    save: bool,
) -> tuple[Tensor, ...]:
    """The kernel; ``save`` is set if a gradient may be needed, and without it the checkpoints are empty."""
    like = check_floats("current", current, "T, B, N", half=_gpu.is_gpu(current.device))
    layer = Layer(
        sizes_of(current),
        like,
        bias,
        cell,
        state,
        lengths,
        constants=constants,
        surrogate=surrogate,
        recurrent_grad=recurrent_grad,
    )
    return run_scan(layer, contiguous(current), save)


def run_scan(layer: Layer, current: Tensor, save: bool) -> tuple[Tensor, ...]:
    """Spikes, state and checkpoints of a checked layer on contiguous currents."""
    backend = _gpu.backend_of("current", current)
    outputs = empty_outputs(layer, backend)
    checkpoints = backend.empty(layer.bias, checkpoint_size(*layer.sizes) if save else 0)
    backend.scan_forward(layer, outputs, current, checkpoints if save else None)
    return *outputs, checkpoints


@src.fake
def forward_fake(
    current: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
    *,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    save: bool,
) -> tuple[Tensor, ...]:
    """The outputs' shapes."""
    like = check_floats("current", current, "T, B, N", half=_gpu.is_gpu(current.device))
    check_layer(sizes_of(current), like, bias, cell, state, lengths, constants, surrogate)
    size = checkpoint_size(*current.shape) if save else 0
    return *fake_outputs(bias, *current.shape), bias.new_empty(size)


def save_for_backward(
    ctx: Any,
    outputs: Sequence[Tensor],
    current: Tensor,
    bias: Tensor,
    cell: list[Tensor],
    state: list[Tensor],
    lengths: Tensor | None,
) -> None:
    """Keep what the gradient needs. The initial state is not kept: the checkpoints contain it."""
    checkpoints = outputs[4]
    ctx.mark_non_differentiable(checkpoints)
    ctx.save_for_backward(current, checkpoints, bias, lengths, *cell)


def options_of_gradient(*_: object) -> dict[str, bool]:
    """The options of a call whose gradient may be needed."""
    return {"save": True}


@src.gradient(save_for_backward, options_of_gradient)
def gradient(ctx: Any, *grads: Tensor | None) -> Gradients:
    """The gradients of current, bias, cell, state and lengths."""
    current, checkpoints, bias, lengths, *cell = ctx.saved_tensors
    grad_current, *gradients = src_backward(
        *grads[:4],
        current,
        checkpoints,
        bias,
        lengths,
        *(cell or NO_CELL),
        constants=ctx.options["constants"],
        surrogate=ctx.options["surrogate"],
        recurrent_grad=ctx.options["recurrent_grad"],
        output_mask=ctx.needs[2] or [False] * len(PARAMETERS),
    )
    return grad_current, *layer_gradients(ctx, gradients)


def layer_gradients(ctx: Any, gradients: Sequence[Tensor]) -> Gradients:
    """The gradients of bias, cell, state and lengths, from the ten of GRADIENTS."""
    *initial, bias = gradients[:4]
    _, needs_cell, needs_state, _ = ctx.needs[-4:]
    return bias, gradients[4:] if needs_cell else None, initial if needs_state else None, None


src_backward = Operator(
    f"src_backward({ARRIVING}, Tensor current, Tensor checkpoints, Tensor bias, Tensor? lengths, {CELL}, *,"
    f" {OPTIONS}, bool[] output_mask) -> (Tensor current, {GRADIENTS})"
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
    lengths: Tensor | None,
    *cell: Tensor | None,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The kernel; ``output_mask`` tells which gradients of cell parameters are wanted."""
    like = check_floats("current", current, "T, B, N", half=_gpu.is_gpu(current.device))
    check_output_mask(output_mask, 0)
    layer = Layer(
        sizes_of(current),
        like,
        bias,
        cell,
        [],
        lengths,
        constants=constants,
        surrogate=surrogate,
        recurrent_grad=recurrent_grad,
    )
    arriving = check_arriving((grad_spikes, grad_i, grad_h, grad_hs), layer.sizes, like)
    checkpoints = check_tensor("checkpoints", checkpoints, like, (checkpoint_size(*layer.sizes),))
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


@src_backward.fake
def backward_fake(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    current: Tensor,
    checkpoints: Tensor,
    bias: Tensor,
    lengths: Tensor | None,
    *cell: Tensor | None,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The gradients' shapes."""
    _, batch, neurons = current.shape
    return current.new_empty(current.shape), *fake_gradients(bias, cell, batch, neurons, output_mask)


def sizes_of(x: Tensor) -> Sizes:
    """The sizes of a tensor (T, B, N) or (T, B, K)."""
    steps, batch, width = x.shape
    return steps, batch, width


def checkpoint_size(steps: int, batch: int, neurons: int) -> int:
    """Number of elements of the checkpoints: i, h and hs before every segment."""
    segment = core.segment
    return (steps + segment - 1) // segment * len(STATE) * batch * neurons
