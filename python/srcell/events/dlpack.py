"""Takes arrays of other libraries by DLPack; torch, or else NumPy, then shares their memory.

``checks`` calls it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..ops._cpu import core


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
