"""What fuzz targets assert and ask: whether a call refuses as documented, and facts about its tensors."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fuzz.draws import Draw, assert_names, out_of_memory


class RefusedError(Exception):
    """A call refused its arguments as documented."""


def target(function: Callable[[Draw], None]) -> Callable[[Draw], bool]:
    """Decorator: a target returns whether its input was accepted."""

    @functools.wraps(function)
    def run(draw: Draw) -> bool:
        try:
            function(draw)
        except RefusedError:
            return False
        return True

    return run


@contextlib.contextmanager
def may_raise(*errors: type[Exception], refusable: bool = True) -> Iterator[None]:
    """End the target as refused if the block raises one of these errors, which it may only if ``refusable``."""
    try:
        yield
    except errors as error:
        assert refusable
        raise RefusedError from error


def attempt(function: Any, given: dict[str, Any], refusable: bool, *others: str) -> Any:
    """The result of a call with these arguments.

    If it refuses them, the error must begin with the name of an argument of the function or one of the ``others``,
    and the arguments must be ``refusable``; the target ends.
    """
    try:
        return function(**given)
    except (ValueError, TypeError, IndexError) as error:
        assert_names(error, [*names_of(function), *others])
    except (RuntimeError, MemoryError) as error:
        of_schema = "Expected a value of type 'int'" in str(error)  # torch's message for an int of 2^63 or more
        if not of_schema and not out_of_memory(error):
            raise
    assert refusable
    raise RefusedError


def names_of(function: Any) -> list[str]:
    """The names of a function's arguments; of a module, those of its constructor and of its calls."""
    called = [type(function), function.forward] if isinstance(function, nn.Module) else [function]
    return [name for each in called for name in inspect.signature(each).parameters]


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
