"""Helpers for the assertions of fuzz targets: whether a call refuses as documented, and the contents of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fuzz.draws import assert_names, out_of_memory


def accepts(names: Sequence[str], call: Callable[[], Any], *others: type[Exception]) -> tuple[Any] | None:
    """The result of the call in a tuple, or None if it refuses as documented."""
    try:
        return (call(),)
    except (ValueError, TypeError, IndexError) as error:
        assert_names(error, names)
    except others:
        pass
    except (RuntimeError, MemoryError) as error:
        of_schema = "Expected a value of type 'int'" in str(error)  # torch's message for an int of 2^63 or more
        if not of_schema and not out_of_memory(error):
            raise
    return None


def tensors_in(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, dict):
        return [x for value in given.values() for x in tensors_in(value)]
    return [x for value in given for x in tensors_in(value)] if isinstance(given, (tuple, list)) else []


def readable(x: Tensor) -> bool:
    return x.layout == torch.strided and x.device.type == "cpu" and not x.is_quantized and x.numel() < 10_000


def contents(tensors: Sequence[Tensor]) -> list[bytes]:
    """The bytes of those tensors that can be read."""
    plain = (x.detach().resolve_conj().resolve_neg().reshape(-1) for x in tensors if readable(x))
    return [x.clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes() for x in plain]


def storages(tensors: Sequence[Tensor]) -> set[int]:
    return {x.untyped_storage().data_ptr() for x in tensors if readable(x) and x.numel()}
