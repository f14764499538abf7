"""``integer_src_linear`` and ``quantise``: integer neurons as in hardware, and the rounding of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .._integer import IntegerCell, IntegerState
from .._shared.arguments import as_float, as_int, describe, require_dense, require_tensor
from ..events import EventBatch
from ..ops._table import Argument, Checked
from ..ops.integer import check_cell, integer_src
from .layer import as_lengths, lengths_beside
from .terms import can_look

MOST_BITS = 16
SMALLEST = 2.0**-100  # if max|weight| is not above it, all weights are taken for 0


def integer_src_linear(
    input: Tensor | EventBatch,
    weight: Tensor,
    state: IntegerState | tuple[Tensor, Tensor, Tensor] | None = None,
    *,
    cell: IntegerCell | Sequence[int] = IntegerCell(),  # noqa: B008  (it does not change)
    lengths: Tensor | Sequence[int] | None = None,
    clamped: Tensor | None = None,
) -> tuple[Tensor, IntegerState]:
    """Run integer neurons after a linear synapse with integer weights, exactly as hardware does.

    The result has no gradient; :class:`~srcell.IntegerSRC` trains such neurons.

    Args:
        input: (T, B, K) of 0 and 1 in any dtype, or an :class:`~srcell.EventBatch` without values.
        weight: (N, K) int16.
        state: the state before the first step, three int16 tensors (B, N) within the bounds of ``cell``; zeros if
            absent.
        cell: the neurons' constants.
        lengths: (B,) integers in [0, T], the steps of each sample; must be absent for an EventBatch that has its own.
        clamped: an int64 tensor of one element; adds to it, in place, how often an i left its bounds and was clamped.

    Returns:
        Spikes (T, B, N), uint8, 0 or 1, and the state after each sample's last step. They are the same for every
        instruction set, thread count, batch size and device.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value, or events with values; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import integer_src_linear
        >>> weight = torch.full((2, 5), 40, dtype=torch.int16)
        >>> spikes, state = integer_src_linear(torch.ones(60, 1, 5), weight)
        >>> spikes[:, 0, 0].sum()
        tensor(6)
        >>> state.h.dtype
        torch.int16

    """
    require_tensor("weight", weight)
    if not isinstance(cell, Sequence) or isinstance(cell, str | bytes):
        raise TypeError(f"cell: expected an IntegerCell, got {describe(cell)}")
    check_cell(cell)  # here, because torch's dispatcher would not name the wrong constant
    if clamped is not None:
        if not isinstance(clamped, Tensor):
            raise TypeError(f"clamped: expected a tensor, got {describe(clamped)}")
        if clamped.numel() != 1:
            raise ValueError(f"clamped: expected a tensor of one element, got shape {tuple(clamped.shape)}")
        Checked("weight", weight.device).one(Argument("clamped", "int64", (("...",),)), clamped)
    spikes, ended, count = run_integer(input, weight, None, None, state, cell, lengths, floats=False)
    if clamped is not None:
        clamped += count
    return spikes, ended


def run_integer(
    input: Tensor | EventBatch,
    weight: Tensor,
    latent: Tensor | None,
    scale: Tensor | None,
    state: IntegerState | tuple[Tensor, Tensor, Tensor] | None,
    cell: IntegerCell | Sequence[int],
    lengths: Tensor | Sequence[int] | None,
    *,
    floats: bool,
    rho: float = 3.0,
) -> tuple[Tensor, IntegerState, Tensor]:
    """Run ``integer_src_linear`` and also return how often an i was clamped.

    A float ``input`` gets a gradient, and so does ``latent``, float32 (N, K): the weights that were rounded to the
    integers. ``scale``, float32 of shape (), is the integer that a weight of 1 becomes. ``rho`` is the range of i in
    the surrogate gradient, in units of the latent weights. With ``floats`` the spikes are float32.
    """
    lengths = lengths_beside(input, weight, lengths)
    offsets = indices = dense = None
    if isinstance(input, Tensor):
        dense = input.to(torch.float32)
    elif input.values is None:
        offsets, indices = input.offsets, input.indices
    else:
        raise ValueError("input: expected an EventBatch without values (each event counts 1), got one with values")
    before = [] if state is None else state_tensors(state)
    ends = None if lengths is None else as_lengths(lengths, weight.device)
    sizes = {"steps": input.shape[0], "batch": input.shape[1]}
    constants = {"cell": [int(value) for value in cell], "rho": as_float("rho", rho)}
    spikes, i, h, hs, count, _ = integer_src(
        offsets, indices, dense, weight, latent, scale, before, ends, **sizes, **constants, floats=floats, save=False
    )
    return spikes, IntegerState(i, h, hs), count


def checked_cell(cell: IntegerCell) -> IntegerCell:
    """The cell; raise unless it is an IntegerCell with valid constants."""
    if not isinstance(cell, IntegerCell):
        raise TypeError(f"cell: expected an IntegerCell, got {describe(cell)}")
    check_cell(cell)
    return cell


def state_tensors(state: Any) -> list[Tensor]:
    """The tensors of a state; the operator checks their shapes and dtypes."""
    if not isinstance(state, (tuple, list)) or len(state) != 3:
        raise TypeError(f"state: expected three tensors i, h and hs, got {describe(state)}")
    for name, x in zip(IntegerState._fields, state, strict=True):
        require_tensor(f"state.{name}", x)
    return list(state)


@torch.no_grad()
def quantise(weight: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Round weights to integers of a given number of bits.

    Args:
        weight: floating point, of any shape.
        bits: b, the number of bits of an integer, 2 to 16.

    Returns:
        round(weight * scale), half to even, clamped to [-2^(b-1), 2^(b-1) - 1], int16; and scale, float32, which is
        2^(b-1) / max|weight|, or 1 where all weights are below 2^-100.

    Raises:
        TypeError: not a floating-point tensor.
        ValueError: a number of bits out of range, or weights that are not finite.

    Example:
        >>> import torch
        >>> from srcell.functional import quantise
        >>> integers, scale = quantise(torch.tensor([-0.5, 0.1, 0.25]), bits=4)
        >>> integers, scale
        (tensor([-8,  2,  4], dtype=torch.int16), tensor(16.))

    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise TypeError(f"weight: expected a tensor of floating-point numbers, got {describe(weight)}")
    require_dense("weight", weight)
    half = 2 ** (as_int("bits", bits, MOST_BITS, minimum=2) - 1)
    work = weight.detach().to(torch.float32)
    largest = work.abs().max() if work.numel() else work.new_zeros(())
    if can_look(largest) and not torch.isfinite(largest):
        raise ValueError(f"weight: expected finite values of float32, got {float(largest)}")
    scale = torch.where(largest > SMALLEST, half / largest, torch.ones_like(largest))
    return (work * scale).round().clamp(-half, half - 1).to(torch.int16), scale
