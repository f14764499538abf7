"""How a setting of a training run is written, once: default, range, option and help; all else is derived from that.

``TrainingConfig`` is made of settings; the command line, the documentation and the scripts of ``bench/`` read them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np

from ..data import check_name

# Of sizes and numbers of steps, samples and epochs.
LARGEST = 2**31 - 1


class Setting(NamedTuple):
    """What there is to say of a setting beside its name.

    Attributes:
        default: its type is the setting's: bool, int, float, str, or tuple of ints.
        text: what it is, a line.
        details: more, for the documentation.
        option: of the command line.
        choices: of a str.
        least: that it may be; of a tuple, that each size may be.
        most: that it may be.
        open_least: whether ``least`` itself is excluded.
        open_most: whether ``most`` itself is excluded.
        noun: what one of the choices is called, the setting's name by default.

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

    def check(self, name: str, value: Any) -> None:
        """Raise ValueError where a value of its type is outside its range."""
        kind = type(self.default)
        if kind is str:
            check_name(value, self.choices, self.noun or name.replace("_", " "))
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
        """That of a float, in words."""
        if math.isinf(self.most):
            return f"a finite number {'above' if self.open_least else 'of at least'} {self.least:g}"
        left, right = "(" if self.open_least else "[", ")" if self.open_most else "]"
        return f"a number in {left}{self.least:g}, {self.most:g}{right}"


def setting(default: Any, text: str, details: str = "", **more: Any) -> Any:
    """A field of a dataclass that is a setting."""
    return dataclasses.field(default=default, metadata={"setting": Setting(default, text, details, **more)})


def fraction(default: float, text: str, details: str = "", **more: Any) -> Any:
    """A number in [0, 1)."""
    return setting(default, text, details, least=0, most=1, open_most=True, **more)


def positive(default: float, text: str, details: str = "", **more: Any) -> Any:
    """A number in (0, 1]."""
    return setting(default, text, details, least=0, most=1, open_least=True, **more)


def size(default: Any, text: str, details: str = "", *, least: int = 1, **more: Any) -> Any:
    """A number of something, or several."""
    return setting(default, text, details, least=least, most=LARGEST, **more)


def settings_of(config: type) -> dict[str, Setting]:
    """All settings of a dataclass by their names."""
    found = {field.name: field.metadata["setting"] for field in dataclasses.fields(config)}
    return {name: s._replace(option=s.option or f"--{name.replace('_', '-')}") for name, s in found.items()}


def as_setting(name: str, value: Any, kind: type) -> Any:
    """The value as Python's own of that type: bool, int, float, str, or tuple of ints.

    Raises:
        TypeError: it is of another type.
        ValueError: no float is as large.

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
        raise ValueError(f"{name}: expected a number that a float holds, got a larger one") from None


def is_number(value: Any, kind: type) -> bool:
    """Whether it is a number of that kind, which a bool is not."""
    return isinstance(value, kind) and not isinstance(value, bool)


def documented(config: type) -> Iterator[str]:
    """Lines that document the settings of a dataclass, as a docstring has attributes."""
    for name, found in settings_of(config).items():
        yield f"        {name}: {found.text}{f' ({found.details})' if found.details else ''}."
