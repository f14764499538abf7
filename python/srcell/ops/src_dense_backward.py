"""``src_dense_backward``: the gradients of ``src_dense``, by the method that the forward call used."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import _gpu
from ._cpu import CPU, Cpu, empty, mask_shape
from ._dense import check_synapse
from ._layer import (
    ARRIVING,
    CELL,
    GRADIENTS,
    OPTIONS,
    Layer,
    LayerGradients,
    check_arriving,
    check_integers,
    check_output_mask,
    check_tensor,
    empty_like,
    fake_gradients,
)
from ._memory import contiguous, without_padding
from ._operator import Operator
from .src import checkpoint_size, run_lateral_backward, run_scan_backward

src_dense_backward = Operator(
    f"src_dense_backward({ARRIVING}, Tensor input, Tensor weight, Tensor trace, Tensor checkpoints, Tensor mask,"
    f" Tensor path, Tensor bias, Tensor? i0, Tensor? lengths, Tensor? weight_hh, {CELL}, *, {OPTIONS},"
    f" bool input_grad_at_events, bool[] output_mask) -> (Tensor input, Tensor weight, {GRADIENTS})"
)


@src_dense_backward.kernel("CPU", "CUDA")
def backward(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    input: Tensor,
    weight: Tensor,
    trace: Tensor,
    checkpoints: Tensor,
    mask: Tensor,
    path: Tensor,
    bias: Tensor,
    i0: Tensor | None,
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *cell: Tensor | None,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    input_grad_at_events: bool,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The kernel; ``path`` on a CPU, and a mask of no rows on a GPU, tell the method that the forward call used."""
    like = check_synapse(input, weight, "auto")
    layer = Layer(
        (*input.shape[:2], weight.shape[0]),
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
    arriving = grad_spikes, grad_i, grad_h, grad_hs
    saved = Saved(arriving, input, weight, trace, checkpoints, mask, path, layer, i0)
    check_output_mask(output_mask, 2)
    run = run_on_gpu if _gpu.is_gpu(input.device) else run_on_cpu
    return run(saved, input_grad_at_events, output_mask)


class Saved:
    """What the forward call saved, checked.

    Attributes:
        layer, arriving: as in the other operators.
        input, weight, trace, checkpoints, mask, path, i0: contiguous.

    """

    def __init__(
        self,
        arriving: Sequence[Tensor | None],
        input: Tensor,
        weight: Tensor,
        trace: Tensor,
        checkpoints: Tensor,
        mask: Tensor,
        path: Tensor,
        layer: Layer,
        i0: Tensor | None,
    ) -> None:
        like, sizes = layer.like, layer.sizes
        self.layer, self.arriving = layer, check_arriving(arriving, sizes, like)
        self.trace = contiguous(check_tensor("trace", trace, like, (math.prod(sizes),)))
        check_tensor("checkpoints", checkpoints, like, (checkpoint_size(*sizes),))
        self.checkpoints = contiguous(checkpoints)
        self.i0 = None if i0 is None else contiguous(check_tensor("i0", i0, like, sizes[1:]))
        self.path = check_integers("path", path, torch.int64, 2, like)
        rows, words = mask_shape(input)
        shapes = [(rows, words), (0, words)] if _gpu.is_gpu(input.device) else [(rows, words)]
        if mask.dtype != torch.int64 or mask.device != input.device or mask.shape not in shapes:
            expected = f"int64 of shape {' or '.join(map(str, shapes))} on {input.device}"
            got = f"{mask.dtype} of shape {tuple(mask.shape)} on {mask.device}"
            raise ValueError(f"mask: expected {expected}, got {got}")
        self.input, self.weight, self.mask = contiguous(input), contiguous(weight), contiguous(mask)


def run_on_cpu(saved: Saved, input_grad_at_events: bool, output_mask: Sequence[bool]) -> tuple[Tensor, ...]:
    """All gradients."""
    took_events, ones = saved.path.tolist()
    if not took_events:
        return run_product_backward(CPU, saved, output_mask)
    layer, input, weight = saved.layer, saved.input, saved.weight
    rows = CPU.events_of_mask(input, saved.mask, ones=bool(ones))
    gradients = LayerGradients(layer, output_mask[2:], empty)
    grad_input, grad_current = input.new_empty(0), empty(input, *layer.sizes) if output_mask[0] else None
    # The checkpoints of events come first, so the tensor's address is theirs.
    grad_weight = CPU.weight_gradient(
        layer,
        saved.arriving,
        gradients,
        rows,
        weight,
        (saved.trace, saved.checkpoints),
        saved.i0,
        grad_current,
        want_weight=output_mask[1],
    )
    if grad_current is not None:
        grad_input = empty(input, *input.shape)
        if input_grad_at_events:
            CPU.event_dots(layer, rows, weight, grad_current, None, grad_input)
        else:
            CPU.input_gradient(grad_current, weight, grad_input)
    return grad_input, grad_weight, *gradients.all


def run_on_gpu(saved: Saved, input_grad_at_events: bool, output_mask: Sequence[bool]) -> tuple[Tensor, ...]:
    """All gradients."""
    layer, input, weight = saved.layer, saved.input, saved.weight
    gpu = _gpu.gpu_of("input", input)
    if saved.mask.shape[0] == 0:
        return run_product_backward(gpu, saved, output_mask)
    gradients = LayerGradients(layer, output_mask[2:], gpu.empty)
    of_segments = (saved.trace, saved.checkpoints)
    grad_current = gpu.current_gradient(layer, saved.arriving, gradients, of_segments, saved.i0)
    grad_input, grad_weight = input.new_empty(0), weight.new_empty(0)
    if output_mask[1]:
        grad_weight = gpu.masked_weight_gradient(layer, input, saved.mask, weight, grad_current)
    if output_mask[0]:
        grad_input = gpu.empty(input, *input.shape)
        torch.mm(grad_current.flatten(0, 1), weight, out=grad_input.flatten(0, 1))
        if input_grad_at_events:
            grad_input.masked_fill_(input == 0, 0)
    return grad_input, grad_weight, *gradients.all


def run_product_backward(backend: Cpu | _gpu.Gpu, saved: Saved, output_mask: Sequence[bool]) -> tuple[Tensor, ...]:
    """The gradients after torch's product; the trace holds the currents, unless there are lateral weights."""
    layer, input, weight = saved.layer, saved.input, saved.weight
    if layer.weight_hh is None:
        current = saved.trace.view(layer.sizes)
        by_current, *gradients = run_scan_backward(layer, saved.arriving, current, saved.checkpoints, output_mask[2:])
    else:
        kept = (saved.trace, saved.checkpoints)
        by_current, *gradients = run_lateral_backward(backend, layer, saved.arriving, kept, saved.i0, output_mask[2:])
    rows = by_current.flatten(0, 1)
    grad_input, grad_weight = input.new_empty(0), weight.new_empty(0)
    if output_mask[1]:
        summed = input if layer.lengths is None else without_padding(input, layer.lengths)
        grad_weight = torch.mm(rows.t(), summed.flatten(0, 1), out=torch.empty_like(weight))
    if output_mask[0]:
        grad_input = backend.empty(input, *input.shape)
        torch.mm(rows, weight, out=grad_input.flatten(0, 1))
    return grad_input, grad_weight, *gradients


@src_dense_backward.fake
def backward_fake(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    input: Tensor,
    weight: Tensor,
    trace: Tensor,
    checkpoints: Tensor,
    mask: Tensor,
    path: Tensor,
    bias: Tensor,
    i0: Tensor | None,
    lengths: Tensor | None,
    weight_hh: Tensor | None,
    *cell: Tensor | None,
    constants: list[float],
    surrogate: str,
    recurrent_grad: bool,
    lateral_surrogate: str,
    input_grad_at_events: bool,
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The gradients' shapes."""
    grads = [
        empty_like(x) if want else x.new_empty(0) for x, want in zip((input, weight), output_mask[:2], strict=True)
    ]
    return *grads, *fake_gradients(bias, weight_hh, cell, input.shape[1], weight.shape[0], output_mask[2:])
