"""``Setting``: the single description of an option, with its default, range, flag and help.

``TrainingConfig`` and ``RunOptions`` are made of settings; the command line, the documentation and the scripts of
``experiments/`` are derived from them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from .arguments import check_known

# Bound on sizes and on numbers of steps, samples and epochs.
LARGEST = 2**31 - 1


class Setting(NamedTuple):
    """The description of a setting.

    Attributes:
        default: default value; its type is the setting's: bool, int, float, str, or tuple of ints.
        text: help text, one line.
        details: further text for the documentation.
        option: command-line option.
        choices: allowed values of a str.
        least: smallest allowed value; for a tuple, of each of its sizes.
        most: largest allowed value.
        open_least: whether ``least`` itself is excluded.
        open_most: whether ``most`` itself is excluded.
        noun: what an error message calls a choice; the setting's name by default.
        needs: settings without which only the default makes sense, ``"a|b"`` for any of two, ``"a=x"`` for a value.

    """

    default: Any
    text: str
    details: str = ""
    option: str = ""
    choices: tuple[str, ...] = ()
    least: float = -math.inf
    most: float = math.inf
    open_least: bool = False
    open_most: bool = False
    noun: str = ""
    needs: tuple[str, ...] = ()

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError if a value of the right type is outside the range."""
        kind = type(self.default)
        if kind is str and self.choices:
            check_known(value, self.choices, self.noun or name.replace("_", " "))
        if kind is int or kind is tuple:
            each, shown = (" each", list(value)) if kind is tuple else ("", value)
            numbers = value if kind is tuple else [value]
            if any(number < self.least for number in numbers):
                raise ValueError(f"{name}: expected at least {self.least}{each}, got {shown}")
            if any(number > self.most for number in numbers):
                raise ValueError(f"{name}: expected at most {self.most}{each}, got {shown}")
        if kind is float:
            above = self.least < value if self.open_least else self.least <= value
            below = value < self.most if self.open_most or math.isinf(self.most) else value <= self.most
            if not (above and below):
                raise ValueError(f"{name}: expected {self.range}, got {value}")

    @property
    def range(self) -> str:
        """The range of a float setting, in words."""
        if math.isinf(self.most):
            return f"a finite number {'above' if self.open_least else 'of at least'} {self.least:g}"
        left, right = "(" if self.open_least else "[", ")" if self.open_most else "]"
        return f"a number in {left}{self.least:g}, {self.most:g}{right}"


def setting(default: Any, text: str, details: str = "", **more: Any) -> Any:
    """A dataclass field with a ``Setting``."""
    return dataclasses.field(default=default, metadata={"setting": Setting(default, text, details, **more)})


def fraction(default: float, text: str, details: str = "", **more: Any) -> Any:
    """A setting in [0, 1)."""
    return setting(default, text, details, least=0, most=1, open_most=True, **more)


def positive_fraction(default: float, text: str, details: str = "", **more: Any) -> Any:
    """A setting in (0, 1]."""
    return setting(default, text, details, least=0, most=1, open_least=True, **more)


def size(default: Any, text: str, details: str = "", *, least: int = 1, **more: Any) -> Any:
    """A setting that is a size or a tuple of sizes, each at least ``least``."""
    return setting(default, text, details, least=least, most=LARGEST, **more)


def settings_of(config: type) -> dict[str, Setting]:
    """The settings of a dataclass by name."""
    found = {field.name: field.metadata["setting"] for field in dataclasses.fields(config)}
    return {name: s._replace(option=s.option or f"--{name.replace('_', '-')}") for name, s in found.items()}


def lacking(needs: Iterable[str], given: Mapping[str, Any]) -> str | None:
    """The first of a setting's ``needs`` that the given values do not meet, in words; None if they meet all."""
    for need in needs:
        either = [option.partition("=")[::2] for option in need.split("|")]
        if not any(given[name] == wanted if wanted else given[name] for name, wanted in either):
            return " or ".join(f"{name}={wanted!r}" if wanted else name for name, wanted in either)
    return None


def is_default(value: Any, default: Any) -> bool:
    """Whether a value is the default; a tensor or an array of one value per neuron is not."""
    same = value == default
    return bool(same) if isinstance(same, (bool, np.bool_)) else False


def check_needs(given: Mapping[str, Any], needs: Mapping[str, Iterable[str]], defaults: Mapping[str, Any]) -> None:
    """Raise for a value that lacks the others that it needs and is no default."""
    for name in needs:
        if (need := lacking(needs[name], given)) and not is_default(given[name], defaults[name]):
            raise ValueError(f"{name}: expected {defaults[name]!r} without {need}, got {given[name]!r}")


def as_setting(name: str, value: Any, kind: type) -> Any:
    """The value converted to Python's own type: bool, int, float, str, or tuple of ints.

    Raises:
        TypeError: the value is of another type.
        ValueError: the number is too large for a float.

    """
    if kind is tuple:
        if not isinstance(value, tuple | list) or not all(is_number(size, Integral) for size in value):
            raise TypeError(f"{name}: expected integers, got {value!r}")
        return tuple(int(size) for size in value)
    if kind in (int, float):
        fits = is_number(value, Integral if kind is int else Real)
    else:
        fits = isinstance(value, (bool, np.bool_) if kind is bool else str)
    if not fits:
        raise TypeError(f"{name}: expected {kind.__name__}, got {value!r}")
    try:
        return kind(value)
    except OverflowError:
        raise ValueError(f"{name}: expected a number that fits in a float, got a larger one") from None


def is_number(value: Any, kind: type) -> bool:
    """Whether a value is a number of that kind and not a bool."""
    return isinstance(value, kind) and not isinstance(value, bool)


def documented(config: type) -> str:
    """The docstring of a dataclass, with its settings in the place of the word ATTRIBUTES."""
    lines = [
        f"{name}: {found.text.partition(' [')[0]}{f' ({found.details})' if found.details else ''}."
        for name, found in settings_of(config).items()
    ]
    return (config.__doc__ or "").replace("ATTRIBUTES", "\n        ".join(lines))
