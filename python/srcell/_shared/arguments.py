"""Checks single user arguments (ints, floats, choices, devices) and words their error messages.

Public functions and classes call these checks first.
"""

from __future__ import annotations

import difflib
import numbers
import operator
from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor

from .torch_private import is_fake


def as_int(name: str, value: SupportsIndex, maximum: int, *, minimum: int = 0) -> int:
    """Return the value as an int; raise unless it lies in [minimum, maximum]."""
    try:
        number = operator.index(value)
    except (TypeError, RuntimeError):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}") from None
    if not minimum <= number <= maximum:
        raise ValueError(f"{name}: expected an int in [{minimum}, {maximum}], got {number}")
    return number


def as_float(name: str, value: float) -> float:
    """Return a real number as a float; raise for anything else, bools included."""
    if type(value) is float:
        return value
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: expected a float, got {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a finite value, got one too large for a float") from None


def as_positive(name: str, value: float) -> float:
    """Return a finite number above 0 as a float; raise for anything else."""
    number = as_float(name, value)
    if not 0 < number < float("inf"):
        raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")
    return number


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise unless a value is one of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")


def check_known(name: str, names: Sequence[str], what: str) -> None:
    """Raise unless a name is one of ``names``; the message suggests a similar one."""
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) else []
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(names)}"
        raise ValueError(f"unknown {what} {name!r}: {hint}")


def check_bool(name: str, value: bool) -> None:
    """Raise unless a value is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")


def require_tensor(name: str, x: object) -> None:
    """Raise unless x is a dense tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(x).__name__}")
    require_dense(name, x)


def require_floats(name: str, x: object) -> None:
    """Raise unless x is a dense floating-point tensor."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point tensor, got {describe(x)}")
    require_dense(name, x)


def require_dense(name: str, x: Tensor) -> None:
    """Raise unless a tensor is dense: strided, neither nested nor quantized."""
    if x.layout != torch.strided or x.is_nested:
        raise ValueError(f"{name}: expected a dense tensor, got {'a nested one' if x.is_nested else x.layout}")
    if x.is_quantized:
        raise TypeError(f"{name}: expected a tensor that is not quantized, got {x.dtype}")


def has_memory(x: Tensor) -> bool:
    """Whether a tensor's elements lie in memory; those of meta, fake and wrapped tensors do not."""
    if x.is_meta or is_fake(x):
        return False
    try:
        return x.data_ptr() != 0 or x.numel() == 0
    except RuntimeError:  # a tensor under vmap or in an exporter has no address
        return False


def require_values(name: str, x: Tensor) -> None:
    """Raise if a tensor holds no data, like a meta or fake tensor."""
    if not has_memory(x):
        got = "one on meta" if x.is_meta else f"a {type(x).__name__} without memory on {x.device}"
        raise ValueError(f"{name}: expected a tensor that holds values, got {got}")


def present_device(device: torch.device | str | int) -> torch.device:
    """Return the device; raise unless torch knows the device and this machine has it."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        found = ["cpu", *(f"cuda:{number}" for number in range(torch.cuda.device_count()))]
        # Of a device that is there, torch's reason: no memory, or a driver that fails.
        reason = f": {error}".partition("\n")[0] if str(device) in (*found, "cuda") and len(found) > 1 else ""
        raise kind(f"device: expected one that is here ({', '.join(found)}), got {device!r}{reason}") from error
    return place


def describe(x: object) -> str:
    """Describe an unexpected argument in an error message: a tensor by its dtype, anything else by its type."""
    return f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__
