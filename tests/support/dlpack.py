"""Arrays of another library, whose capsules of DLPack may be altered."""

from __future__ import annotations

import ctypes
from typing import Any

# The place of the DLTensor in what a capsule of that name points to: a DLManagedTensor begins with it; in a
# DLManagedTensorVersioned the version, two pointers and 64 bits of flags come first.
OFFSETS = {b"dltensor": 0, b"dltensor_versioned": 16 + 2 * ctypes.sizeof(ctypes.c_void_p)}

_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


class DLTensor(ctypes.Structure):
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


def described(capsule: object) -> DLTensor:
    """What a capsule describes, as long as the capsule lives."""
    (name,) = (name for name in OFFSETS if _is_valid(capsule, name))
    return DLTensor.from_address(_pointer(capsule, name) + OFFSETS[name])


class Foreign:
    """An array that has DLPack's methods alone, which may lie about its device and fields, or raise an error."""

    def __init__(self, array: Any, device: Any = (1, 0), error: Exception | None = None, **fields: int) -> None:
        self.array, self.device, self.error, self.fields = array, device, error, fields

    def __dlpack__(self, **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        capsule = self.array.__dlpack__(**options)
        for name, value in self.fields.items():
            setattr(described(capsule), name, value)
        return capsule

    def __dlpack_device__(self) -> Any:
        if isinstance(self.device, Exception):
            raise self.device
        return self.device
