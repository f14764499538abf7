"""Checks the arrays of an ``EventBatch``: shapes, dtypes, values.

Batches, binning and encoders call it.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._shared.arguments import has_memory, require_dense, require_values
from ..ops._cpu import core
from ..ops._memory import contiguous
from ..ops._table import device_error, dtype_error, shape_error


class SupportsDLPack(Protocol):
    """An array of another library, such as JAX or CuPy."""

    def __dlpack__(self) -> Any: ...
    def __dlpack_device__(self) -> Any: ...


Array: TypeAlias = Tensor | NDArray[Any] | SupportsDLPack
Integers: TypeAlias = Array | Sequence[int]
Shape: TypeAlias = tuple[int, int, int]
# The offsets, indices, values, shape and lengths of a batch.
Parts: TypeAlias = tuple[Tensor, Tensor, Tensor | None, Shape, Tensor | None]

MAX_INPUTS = 2**31
MAX_STEPS = 2**31 - 1
MAX_SIZE = 2**63 - 1


def as_integers(name: str, x: Integers, device: torch.device, *, bools: bool = False) -> Tensor:
    """Convert a vector of integers, or of bools if allowed, to contiguous int64 on the device."""
    return _as_kernels_read(as_numbers(name, x, device, bools=bools).to(torch.int64))


def as_numbers(
    name: str, x: Array | Sequence[float], device: torch.device, *, floats: bool = False, bools: bool = False
) -> Tensor:
    """Convert a vector of integers, or of what else is allowed; Python's floats become float64, no numbers int64."""
    kind = "real numbers" if floats else "integers"
    expected = "numbers, integers below 2^63" if floats else "integers below 2^63"
    if isinstance(x, Tensor | np.ndarray) or _speaks_dlpack(x):
        tensor = as_tensor(name, x)
        require_values(name, tensor)
        if tensor.dtype == torch.uint64 and bool((tensor.view(torch.int64) < 0).any()):
            raise ValueError(f"{name}: expected {expected}, got a larger integer")
        numbers = tensor.to(device)
    else:
        try:
            numbers = torch.as_tensor(x, device=device)
            if numbers.is_floating_point():
                numbers = torch.as_tensor(x, dtype=torch.float64, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}: expected {expected}, got {type(x).__name__}: {error}") from None
    numbers = numbers if numbers.numel() else numbers.to(torch.int64)
    refused = numbers.is_complex() or numbers.is_quantized or (numbers.is_floating_point() and not floats)
    if refused or (numbers.dtype == torch.bool and not bools):
        raise TypeError(f"{name}: expected {kind}, got {numbers.dtype}")
    if numbers.dim() != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {tuple(numbers.shape)}")
    return numbers


class _Checked:
    """Passes an array's capsules on to torch, except those for which torch ends the process."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.array.__dlpack__(**options)
        core.check_capsule(capsule)
        return capsule

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def _speaks_dlpack(x: object) -> bool:
    """Whether the type of an object has the method ``__dlpack__``."""
    return hasattr(type(x), "__dlpack__")


def _from_dlpack(array: Any) -> Tensor | NDArray[Any]:
    """The array as a tensor, or as a NumPy array if only NumPy can hold it, as with negative strides or an offset.

    It raises whatever the array's methods or torch raise.
    """
    try:
        return torch.utils.dlpack.from_dlpack(_Checked(array))
    except Exception as refusal:
        try:
            return np.from_dlpack(array)
        except Exception:
            raise refusal from None


def as_tensor(name: str, x: object) -> Tensor:
    """Return an array as a tensor, which shares the array's memory where possible.

    Raises:
        TypeError: it is no array, or one that torch cannot hold; whatever error the methods of DLPack raise.
        ValueError: a tensor that is not dense.

    """
    if not isinstance(x, Tensor | np.ndarray):
        if not _speaks_dlpack(x):
            raise TypeError(f"{name}: expected a tensor, a NumPy array or one with __dlpack__, got {type(x).__name__}")
        try:
            x = _from_dlpack(x)
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise TypeError(
                f"{name}: expected an array that torch can hold, got {type(x).__name__}: {reason}"
            ) from None
    if isinstance(x, np.ndarray):
        array = np.require(x, dtype=x.dtype.newbyteorder("="), requirements=["C", "W", "A"])
        try:
            try:
                return torch.from_numpy(array)
            except ValueError:  # the stride of a dimension of one element is negative, or no multiple of its size
                return torch.from_numpy(array.copy())
        except TypeError:
            raise TypeError(f"{name}: expected a dtype that torch has, got {x.dtype}") from None
    require_dense(name, x)
    return x


def as_vector(
    name: str, x: Array, size: int | None, size_name: str, *dtypes: torch.dtype, device: torch.device | None = None
) -> Tensor:
    """Check a vector's size (any if None), dtype and device; return it contiguous and aligned."""
    x = as_tensor(name, x)
    if x.dtype not in dtypes:
        raise dtype_error(name, " or ".join(map(str, dtypes)), x)
    if x.dim() != 1 or size not in (None, x.numel()):
        expected = f"({size_name},)" if size is None else f"({size_name},) = ({size},)"
        raise shape_error(name, expected, x.shape)
    if device not in (None, x.device):
        raise device_error(name, f"{device}, as offsets has", x)
    return _as_kernels_read(x)


def _as_kernels_read(x: Tensor) -> Tensor:
    """Return the tensor contiguous and, if it has memory, aligned."""
    return contiguous(x) if has_memory(x) else x.contiguous()


def check_shape(shape: Sequence[int], name: str = "shape") -> Shape:
    """Check that a batch can have a shape (T, B, K); return it as ints."""
    steps, batch, inputs = as_ints(name, shape, 3, "three integers (T, B, K)")
    if min(steps, batch, inputs) < 0 or inputs > MAX_INPUTS:
        raise ValueError(f"{name}: expected (T, B, K) of at least 0, K at most 2^31, got {(steps, batch, inputs)}")
    if max(steps, batch) > MAX_SIZE:
        raise ValueError(f"{name}: expected T and B below 2^63, got {(steps, batch, inputs)}")
    return steps, batch, inputs


def as_ints(name: str, x: Sequence[int], count: int, expected: str) -> list[int]:
    """Check a sequence of ``count`` integers of any integer type; return them as ints."""
    try:
        numbers = list(map(operator.index, x))
    except (TypeError, RuntimeError):
        raise TypeError(f"{name}: expected {expected}, got {x!r}") from None
    if len(numbers) != count:
        raise ValueError(f"{name}: expected {expected}, got {x!r}")
    return numbers


def check_lengths(lengths: Array, shape: Shape, device: torch.device) -> Tensor:
    """Check lengths (B,), int64 in [0, T]; return them contiguous."""
    steps, batch, _ = shape
    lengths = as_vector("lengths", lengths, batch, "B", torch.int64, device=device)
    sample = first((lengths < 0) | (lengths > steps))
    if sample is not None:
        raise ValueError(wrong_length(int(lengths[sample]), sample, steps))
    return lengths


def wrong_length(length: int, sample: int, steps: int) -> str:
    """The message for a length outside [0, T]."""
    return f"lengths: expected values in [0, {steps}], got {length} for sample {sample}"


def check_float_dtype(dtype: torch.dtype) -> None:
    """Raise unless ``dtype`` is a floating-point dtype."""
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise TypeError(f"dtype: expected a floating-point dtype, got {dtype}")


def offsets_of(counts: Tensor) -> Tensor:
    """The offsets of rows, given the number of events of each row."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def first(holds: Tensor) -> int | None:
    """The first position at which a mask is True, or None."""
    return int(holds.nonzero()[0]) if holds.any() else None


def same(a: Tensor | None, b: Tensor | None) -> bool:
    """Whether two optional tensors on one device are both absent, or equal in dtype and elements."""
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and torch.equal(a, b)
