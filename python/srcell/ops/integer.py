"""``integer_src``: a linear synapse of integers on events or on a dense input of 0 and 1, then integer neurons.

Its gradient is that of the surrogate in csrc/integer_surrogate.h, with respect to the float weights behind the integers
and to a dense input.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor

from . import _gpu
from ._cpu import CPU, EventRows, core
from ._layer import Like, check_integers, check_optional, check_tensor
from ._memory import contiguous
from ._operator import Gradients, Operator
from .src_events import contiguous_rows

CONSTANTS: tuple[tuple[str, int], ...] = core.integer_constants

EVENTS = "Tensor? offsets, Tensor? indices, Tensor? input"

integer_src = Operator(
    f"integer_src({EVENTS}, Tensor weight, Tensor? latent, Tensor? scale, Tensor[] state, Tensor? lengths, *,"
    " SymInt steps, SymInt batch, int[] cell, float rho, bool floats, bool save)"
    " -> (Tensor spikes, Tensor i, Tensor h, Tensor hs, Tensor clamped, Tensor slopes)"
)


class IntegerLayer:
    """A layer of integer neurons with its input, checked and contiguous.

    Attributes:
        sizes: T, B and N.
        rows: the events, or None on a GPU for a dense input.
        input, weight, scale, state, lengths: as in the schema; kept alive while kernels have their addresses.

    """

    __slots__ = ("cell", "input", "lengths", "rho", "rows", "scale", "sizes", "state", "weight")

    def __init__(
        self,
        offsets: Tensor | None,
        indices: Tensor | None,
        input: Tensor | None,
        weight: Tensor,
        scale: Tensor | None,
        state: Sequence[Tensor],
        lengths: Tensor | None,
        steps: int,
        batch: int,
        cell: Sequence[int],
        rho: float,
    ) -> None:
        check_arguments(offsets, indices, input, weight, None, scale, state, lengths, steps, batch)
        self.sizes = (steps, batch, weight.shape[0])
        self.weight, self.state = contiguous(weight), [contiguous(x) for x in state]
        self.scale = None if scale is None else contiguous(scale)
        self.lengths = None if lengths is None else contiguous(lengths)
        self.cell, self.rho = list(cell), rho
        check_cell(self.cell)
        self.input = None if input is None else contiguous(input)
        self.rows = self._rows(offsets, indices)
        if not _gpu.is_gpu(weight.device):
            check_state(self.state, self.cell)

    def _rows(self, offsets: Tensor | None, indices: Tensor | None) -> EventRows | None:
        if offsets is not None and indices is not None:
            return contiguous_rows(offsets, indices, None)
        if self.input is None or _gpu.is_gpu(self.input.device):
            return None
        rows, _, ones = CPU.events_of(self.input, self.lengths)
        if not ones:
            raise ValueError("input: expected 0 and 1, got other values")
        return rows


@integer_src.kernel("CPU", "CUDA")
def forward(
    offsets: Tensor | None,
    indices: Tensor | None,
    input: Tensor | None,
    weight: Tensor,
    latent: Tensor | None,
    scale: Tensor | None,
    state: list[Tensor],
    lengths: Tensor | None,
    *,
    steps: int,
    batch: int,
    cell: list[int],
    rho: float,
    floats: bool,
    save: bool,
) -> tuple[Tensor, ...]:
    """The kernel. Spikes are float32 with ``floats``, otherwise uint8; with ``save`` the slopes are kept."""
    layer = IntegerLayer(offsets, indices, input, weight, scale, state, lengths, steps, batch, cell, rho)
    check_latent(latent, weight)
    if save and not (floats and scale is not None):
        raise ValueError("scale: expected a tensor, and floats, where a gradient is needed")
    backend = _gpu.backend_of("weight", weight)
    outputs = [
        backend.empty(weight, *layer.sizes, dtype=torch.float32 if floats else torch.uint8),
        *(backend.empty(weight, *layer.sizes[1:]) for _ in range(3)),
    ]
    slopes = backend.empty(weight, *(layer.sizes if save else (0,)), dtype=torch.float32)
    clamped = backend.integer_forward(layer, outputs, slopes if save else None, floats=floats)
    return *outputs, clamped, slopes


def check_arguments(
    offsets: Tensor | None,
    indices: Tensor | None,
    input: Tensor | None,
    weight: Tensor,
    latent: Tensor | None,
    scale: Tensor | None,
    state: Sequence[Tensor],
    lengths: Tensor | None,
    steps: int,
    batch: int,
) -> None:
    """Check all but the values, which fake tensors do not have."""
    if weight.dim() != 2:
        raise ValueError(f"weight: expected shape (N, K), got {tuple(weight.shape)}")
    if weight.dtype != torch.int16:
        raise TypeError(f"weight: expected dtype torch.int16, got {weight.dtype}")
    like = Like("weight", weight.dtype, weight.device)
    neurons, inputs = weight.shape
    if (offsets is None) != (indices is None) or (offsets is None) == (input is None):
        raise ValueError("input: expected offsets and indices, or a dense input")
    if offsets is not None and indices is not None:
        check_integers("offsets", offsets, torch.int64, steps * batch + 1, like)
        check_integers("indices", indices, torch.int32, indices.numel(), like)
    if input is not None:
        check_tensor("input", input, Like("a float tensor", torch.float32, weight.device), (steps, batch, inputs))
    check_latent(latent, weight)
    check_optional("scale", scale, Like("a float tensor", torch.float32, weight.device), ())
    if len(state) not in (0, 3):
        raise ValueError(f"state: expected 0 or 3 tensors, got {len(state)}")
    shape = (batch, neurons)
    for name, x in zip(("i", "h", "hs"), state, strict=False):
        check_tensor(f"state.{name}", x, like, shape)
    if lengths is not None:
        check_integers("lengths", lengths, torch.int64, batch, like)


def check_latent(latent: Tensor | None, weight: Tensor) -> None:
    """Check the float weights behind the integers."""
    check_optional("latent", latent, Like("a float tensor", torch.float32, weight.device), tuple(weight.shape))


def check_state(state: Sequence[Tensor], cell: Sequence[int]) -> None:
    """Raise for a state that the neurons cannot be in."""
    constants = dict(zip((name for name, _ in CONSTANTS), cell, strict=True))
    bounds = {
        "i": (-constants["i_max"], constants["i_max"]),
        "h": (constants["h_min"], constants["h_max"]),
        "hs": (constants["hs_min"], constants["hs_max"]),
    }
    for (name, (low, high)), x in zip(bounds.items(), state, strict=False):
        if x.numel():
            least, most = (int(value) for value in x.aminmax())
            if not low <= least <= most <= high:
                raise ValueError(f"state.{name}: expected values in [{low}, {high}], got {least} to {most}")


@integer_src.fake
def forward_fake(
    offsets: Tensor | None,
    indices: Tensor | None,
    input: Tensor | None,
    weight: Tensor,
    latent: Tensor | None,
    scale: Tensor | None,
    state: list[Tensor],
    lengths: Tensor | None,
    *,
    steps: int,
    batch: int,
    cell: list[int],
    rho: float,
    floats: bool,
    save: bool,
) -> tuple[Tensor, ...]:
    """The outputs' shapes."""
    check_arguments(offsets, indices, input, weight, latent, scale, state, lengths, steps, batch)
    neurons = weight.shape[0]
    spikes = weight.new_empty(steps, batch, neurons, dtype=torch.float32 if floats else torch.uint8)
    ended = [weight.new_empty(batch, neurons) for _ in range(3)]
    slopes = weight.new_empty((steps, batch, neurons) if save else (0,), dtype=torch.float32)
    return spikes, *ended, weight.new_empty((), dtype=torch.int64), slopes


def save_for_backward(
    ctx: Any,
    outputs: Sequence[Tensor],
    offsets: Tensor | None,
    indices: Tensor | None,
    input: Tensor | None,
    weight: Tensor,
    latent: Tensor | None,
    scale: Tensor | None,
    state: list[Tensor],
    lengths: Tensor | None,
) -> None:
    """Keep what the gradient needs."""
    ctx.mark_non_differentiable(*outputs[1:])
    ctx.save_for_backward(offsets, indices, input, weight, scale, lengths, outputs[5])


def options_of_gradient(*arguments: Any) -> dict[str, bool]:
    """The options of a call whose gradient may be needed."""
    return {"save": True}


@integer_src.gradient(save_for_backward, options_of_gradient)
def gradient(ctx: Any, *grads: Tensor | None) -> Gradients:
    """The gradients of offsets, indices, input, weight, latent, scale, state and lengths."""
    offsets, indices, input, weight, scale, lengths, slopes = ctx.saved_tensors
    _, _, needs_input, _, needs_latent, *_ = ctx.needs
    if grads[0] is None:
        return (None,) * 8
    grad_input, grad_latent = integer_src_backward(
        grads[0],
        offsets,
        indices,
        input,
        weight,
        scale,
        lengths,
        slopes,
        steps=ctx.options["steps"],
        batch=ctx.options["batch"],
        cell=ctx.options["cell"],
        output_mask=[needs_input, needs_latent],
    )
    return None, None, grad_input, None, grad_latent, None, None, None


integer_src_backward = Operator(
    f"integer_src_backward(Tensor grad_spikes, {EVENTS}, Tensor weight, Tensor scale, Tensor? lengths, Tensor slopes,"
    " *, SymInt steps, SymInt batch, int[] cell, bool[] output_mask) -> (Tensor input, Tensor latent)"
)


@integer_src_backward.kernel("CPU", "CUDA")
def backward(
    grad_spikes: Tensor,
    offsets: Tensor | None,
    indices: Tensor | None,
    input: Tensor | None,
    weight: Tensor,
    scale: Tensor,
    lengths: Tensor | None,
    slopes: Tensor,
    *,
    steps: int,
    batch: int,
    cell: list[int],
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The kernel; ``output_mask`` tells which gradients are wanted."""
    layer = IntegerLayer(offsets, indices, input, weight, scale, [], lengths, steps, batch, cell, 1.0)
    like = Like("a float tensor", torch.float32, weight.device)
    grad_spikes = contiguous(check_tensor("grad_spikes", grad_spikes, like, layer.sizes))
    slopes = contiguous(check_tensor("slopes", slopes, like, layer.sizes))
    backend = _gpu.backend_of("weight", weight)
    want_input, want_latent = output_mask
    grad_current = backend.empty(slopes, *layer.sizes) if want_input else None
    grad_latent = slopes.new_empty(tuple(weight.shape) if want_latent else 0)
    backend.integer_backward(layer, grad_spikes, slopes, grad_current, grad_latent if want_latent else None)
    grad_latent.mul_(scale)
    if grad_current is None:
        return slopes.new_empty(0), grad_latent
    return grad_current @ weight.to(slopes.dtype), grad_latent


@integer_src_backward.fake
def backward_fake(
    grad_spikes: Tensor,
    offsets: Tensor | None,
    indices: Tensor | None,
    input: Tensor | None,
    weight: Tensor,
    scale: Tensor,
    lengths: Tensor | None,
    slopes: Tensor,
    *,
    steps: int,
    batch: int,
    cell: list[int],
    output_mask: list[bool],
) -> tuple[Tensor, ...]:
    """The gradients' shapes."""
    inputs = weight.shape[1]
    grad_input = slopes.new_empty((steps, batch, inputs) if output_mask[0] else (0,))
    return grad_input, slopes.new_empty(tuple(weight.shape) if output_mask[1] else (0,))


def check_cell(cell: Sequence[int]) -> None:
    """Raise unless they are integers with which every value of a neuron fits in 16 bits."""
    for (name, _), value in zip(CONSTANTS, cell, strict=False):
        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"cell.{name}: expected an int, got {type(value).__name__}")
    try:
        core.check_integer_cell(list(cell))
    except TypeError:  # of pybind11, for more than 64 bits
        raise ValueError(f"cell: expected {len(CONSTANTS)} integers of at most 64 bits, got {tuple(cell)!r}") from None
