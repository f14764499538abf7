"""Checks that fuzz targets share: whether a call refuses as documented, and facts about its tensors."""

from __future__ import annotations

import contextlib
import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

# Torch's messages if memory is exhausted or a size overflows.
OVERFLOWS = (
    "can't allocate memory",
    "size calculation overflowed",
    "Stride calculation overflowed",
    "Negative strides are not supported",
    "cannot be represented as a SymInt",
    "integer multiplication overflow",
    "Expected a value of type 'int'",
)


class RefusedError(Exception):
    """A call refused its arguments as documented."""


@contextlib.contextmanager
def may_raise(*errors: type[Exception], refusable: bool = True) -> Iterator[None]:
    """End the target as refused if the block raises one of these errors, which it may only if ``refusable``."""
    try:
        yield
    except errors as error:
        assert refusable
        raise RefusedError from error


def attempt(function: Any, given: dict[str, Any], refusable: bool, *others: str) -> Any:
    """The result of a call with these arguments, whose tensors must stay unchanged.

    If it refuses them, the error must begin with the name of an argument of the function or one of the ``others``,
    and the arguments must be ``refusable``; the target ends.
    """
    inputs = tensors_in(given)
    before, refused = contents(inputs), ""
    try:
        return function(**given)
    except (ValueError, TypeError, IndexError) as error:
        names = "|".join(map(re.escape, [*names_of(function), *others]))
        assert re.match(rf"({names})\b", str(error)), f"{type(error).__name__} names nothing: {error}"
        refused = str(error)
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OVERFLOWS):
            raise
        refused = str(error)
    finally:
        assert contents(inputs) == before
    assert refusable, refused
    raise RefusedError


def names_of(function: Any) -> list[str]:
    """The names of a function's arguments; of a module, those of its constructor and of its calls."""
    called = [type(function), function.forward] if isinstance(function, nn.Module) else [function]
    return [name for each in called for name in inspect.signature(each).parameters]


def tensors_in(given: Any) -> list[Tensor]:
    return [x for x in pytree.tree_leaves(given) if isinstance(x, Tensor)]


def readable(x: Tensor) -> bool:
    return x.layout == torch.strided and x.device.type == "cpu" and not x.is_quantized and x.numel() < 10_000


def contents(tensors: Sequence[Tensor]) -> list[bytes]:
    """The bytes of those tensors that can be read."""
    plain = (x.detach().resolve_conj().resolve_neg().reshape(-1) for x in tensors if readable(x))
    return [x.clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes() for x in plain]


def assert_own_memory(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> None:
    """Assert that no output shares memory with an input or another output."""
    assert not storages(outputs) & storages(inputs)
    assert len(storages(outputs)) == len([x for x in outputs if readable(x) and x.numel()])


def storages(tensors: Sequence[Tensor]) -> set[int]:
    return {x.untyped_storage().data_ptr() for x in tensors if readable(x) and x.numel()}
