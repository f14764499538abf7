"""Takes arrays of other libraries by DLPack; torch, or else NumPy, then shares their memory.

``checks`` calls it; it must never know what an array is used for.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAJOR = 1  # the latest version of dlpack.h whose structures these are
# The place of the DLTensor in what a capsule of that name points to: a DLManagedTensor begins with it; in a
# DLManagedTensorVersioned the version, two pointers and 64 bits of flags come first.
OFFSETS = {b"dltensor": 0, b"dltensor_versioned": 16 + 2 * ctypes.sizeof(ctypes.c_void_p)}
MAX_BYTES = 2**63 - 1

_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class _DLTensor(ctypes.Structure):
    """The structure of that name in dlpack.h."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Checked:
    """Passes an array's capsules on to torch, except those for which torch ends the process."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.array.__dlpack__(**options)
        _check(capsule)
        return capsule

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


def speaks_dlpack(x: object) -> bool:
    """Whether the type of an object has the method ``__dlpack__``."""
    return hasattr(type(x), "__dlpack__")


def from_dlpack(array: Any) -> Tensor | NDArray[Any]:
    """The array as a tensor, or as a NumPy array if only NumPy can hold it, as with negative strides or an offset.

    Raises:
        Exception: whatever the array's methods or torch raise.

    """
    try:
        return torch.utils.dlpack.from_dlpack(_Checked(array))
    except Exception as refusal:
        try:
            return np.from_dlpack(array)
        except Exception:
            raise refusal from None


def _check(capsule: object) -> None:
    """Raise for strides with which torch cannot compute the size of the memory: it would end the process."""
    array = described(capsule)
    if array is None:
        return
    if array.ndim < 0:
        raise ValueError(f"expected at least 0 dimensions, got {array.ndim}")
    if not array.strides:  # contiguous
        return
    sizes, strides = array.shape[: array.ndim], array.strides[: array.ndim]
    if 0 in sizes:
        return
    spans = [(size - 1) * stride for size, stride in zip(sizes, strides, strict=True)]
    if min(spans, default=0) < 0 or (1 + sum(spans)) * (array.bits * array.lanes // 8) > MAX_BYTES:
        raise ValueError(f"expected strides of at least 0 within 2^63 bytes, got {strides} for shape {tuple(sizes)}")


def described(capsule: object) -> _DLTensor | None:
    """What a capsule describes, valid as long as the capsule is; None for anything else, which torch refuses."""
    for name, offset in OFFSETS.items():
        if _is_valid(capsule, name):
            address = _pointer(capsule, name)
            if offset and ctypes.c_uint32.from_address(address).value > MAJOR:
                return None
            return _DLTensor.from_address(address + offset)
    return None
