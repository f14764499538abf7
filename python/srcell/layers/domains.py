"""The domains of a layer's parameters: checks of those that a layer is given, and clamping of those that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from .._shared.arguments import as_float, as_int, describe, has_memory, require_dense
from .._shared.parameters import PARAMETERS, RESONANCE, TABLE
from ..functional.layer import Parameter
from ..functional.terms import MOST_DELAY
from ..ops._acting import outward
from .options import CELL_DEFAULTS, Spread, SpreadFrequencies

# Learnable parameters that are not clamped.
UNBOUNDED = tuple(row.name for row in TABLE.values() if (row.least_learnt, row.most_learnt) == (-math.inf, math.inf))


def domain(name: str, max_delay: int = MOST_DELAY) -> tuple[float, float]:
    """The bounds to which a learnable parameter is clamped, in every call and by ``constrain_``."""
    row = TABLE.get(name)  # none for delay_hh
    return (row.least_learnt, row.most_learnt) if row else (0, max_delay)


class _Clamped(torch.autograd.Function):
    """Clamps a parameter to its domain. The gradient passes unchanged, except where an element lies outside the domain
    and a descent step would move it further out: so an element neither runs away nor gets stuck.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (grad,) = ctx.saved_tensors, grads
        return grad.masked_fill(outward(x, grad, ctx.low, ctx.high), 0), None, None


clamped: Callable[..., Tensor] = _Clamped.apply


def check_learnable(names: Sequence[str], full_gradient: bool, delayed: bool) -> tuple[str, ...]:
    """Check the names of the parameters to learn, which need a gradient; ``delayed`` layers have a delay_hh."""
    if isinstance(names, str):
        raise TypeError(f"learnable: expected a sequence of names, got the string {names!r}")
    try:
        learnable = tuple(names)
    except (TypeError, RuntimeError):
        raise TypeError(f"learnable: expected a sequence of names, got {describe(names)}") from None
    if not delayed and any(isinstance(name, str) and name == "delay_hh" for name in learnable):
        raise ValueError("learnable: expected delay_hh, the initial delays, beside the name delay_hh, got None")
    known = [*CELL_DEFAULTS, *["delay_hh"] * delayed]
    for name in learnable:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"learnable: expected names among {', '.join(known)}, got {name!r}")
        if name in PARAMETERS and TABLE[name].full_gradient and not full_gradient:
            raise ValueError(
                f"learnable: expected parameters that have a gradient with full_gradient=False, got {name!r}"
            )
    return learnable


def check_parameter(
    name: str, value: Parameter | Spread | SpreadFrequencies, neurons: int, float_max: float, learnable: bool
) -> Parameter:
    """Check a parameter of the cell, or delay_hh, and return it as a layer stores it: a float, or a copy on the CPU.

    ``float_max`` is the largest number of the layer's dtype.
    """
    if isinstance(value, (Spread, SpreadFrequencies)):
        if name == "delay_hh":
            raise TypeError(f"delay_hh: expected a number or a tensor, got {type(value).__name__}")
        kinds = ("spread", "spread_frequencies")
        if (name == RESONANCE) != isinstance(value, SpreadFrequencies):
            wrong, right = kinds if name == RESONANCE else reversed(kinds)
            raise TypeError(f"{name}: expected a number, a tensor or srcell.{right}, got srcell.{wrong}")
        value = value.values(neurons)
    if not isinstance(value, Tensor):
        value = as_float(name, value)
        _check_domain(name, value, value, float_max, learnable)
        return value
    require_dense(name, value)
    if value.is_quantized or value.is_complex():
        raise TypeError(f"{name}: expected real numbers, got {value.dtype}")
    if isinstance(value, nn.Parameter) and not learnable:
        raise ValueError(
            f"{name}: expected a float or a tensor, whose values are copied, got a Parameter: name it in learnable "
            "to learn it"
        )
    if tuple(value.shape) not in ((), (1,), (neurons,)):
        raise ValueError(f"{name}: expected a float or a tensor of shape ({neurons},), got shape {tuple(value.shape)}")
    copy = value.detach().clone()
    if not has_memory(copy):  # in a module built on meta, whose values are loaded later
        return copy
    copy = copy.to("cpu")
    if copy.numel():
        least, largest = (x.item() for x in copy.double().aminmax())
        _check_domain(name, least, largest, float_max, learnable)
    return copy


def _check_domain(name: str, least: float, largest: float, float_max: float, learnable: bool) -> None:
    """Raise unless a layer can run with values of a parameter from ``least`` to ``largest``."""
    row = TABLE.get(name)  # none for delay_hh
    bounded = row is None or math.isfinite(row.most)
    low, high = (row.least, row.most) if row and bounded else domain(name)
    for x in (least, largest):
        if row and row.divides and not (0 < x < math.inf and 1 / x <= float_max):
            raise ValueError(f"{name}: expected finite values > 0 with a finite reciprocal, got {x!r}")
        if (bounded or learnable) and not low <= x <= high:
            why = "" if bounded else " for a learnable parameter"
            raise ValueError(f"{name}: expected values in [{low:g}, {high:g}]{why}, got {x!r}")
        if not abs(x) <= float_max:
            raise ValueError(f"{name}: expected finite values of the dtype, got {x!r}")


def check_max_delay(given: SupportsIndex | None, delay: Parameter | None, learnable: bool) -> int:
    """The largest delay allowed: the given one, or the ceiling of the fixed delays; 0 without delays."""
    if delay is None:
        return 0
    known = not isinstance(delay, Tensor) or has_memory(delay)
    if given is None and (not known or learnable):
        raise ValueError("max_delay: expected the largest delay that may be learnt or loaded, got None")
    largest = 0.0
    if not isinstance(delay, Tensor):
        largest = delay
    elif known and delay.numel():
        largest = float(delay.double().max())
    if given is None:
        return math.ceil(largest)
    most = as_int("max_delay", given, MOST_DELAY)
    if largest > most:
        raise ValueError(f"delay_hh: expected values in [0, max_delay] = [0, {most}], got {largest}")
    return most


def is_zero(value: Parameter) -> bool:
    """Whether a parameter is 0 for all neurons; those of meta have no values."""
    if isinstance(value, Tensor):
        return has_memory(value) and value.numel() > 0 and not bool(value.any())
    return value == 0
