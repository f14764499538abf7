"""Keyword arguments that have another name since srcell 0.3: says the new name where the old one is given."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

# The keyword arguments that had another name before srcell 0.3.
RENAMED = {
    "bias": "learn_bias",
    "delay": "recall_delay",
    "gain": "input_gain",
    "lateral": "recurrent",
    "lateral_delay": "recurrent_delay",
    "lateral_surrogate": "recurrent_surrogate",
    "recurrent_grad": "full_gradient",
    "width": "delay_width",
}
P = ParamSpec("P")
R = TypeVar("R")


def refuse_renamed(where: str, given: Iterable[str], old: Iterable[str] = RENAMED) -> None:
    """Raise a TypeError that says the new name if one of the names is an old one."""
    for name in given:
        if name in old:
            raise TypeError(f"{where}: {name} is called {RENAMED[name]} since srcell 0.3")


def renamed(*old: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function that had these keyword arguments: it then says what they are called now."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if kwargs:
                refuse_renamed(function.__qualname__, kwargs, old)
            return function(*args, **kwargs)

        return call

    return decorate
