"""Checks tensors by the table of all operators' arguments (csrc/bindings/table.h), and says what is wrong.

C++ reads the tensors of a call on a CPU by the same table. What it refuses comes here, and so do fake tensors and those
on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._cpu import core

HALF = (torch.float16, torch.bfloat16)
WORK = (torch.float32, torch.float64)


class Argument(NamedTuple):
    """A row of the table."""

    name: str
    dtype: str
    """A name of torch's, "float" for that of the computation, or "any"."""
    shapes: tuple[tuple[str, ...], ...]
    """The sizes of each shape that it may have."""
    optional: bool = False
    leads: bool = False
    """It is checked before those that do not lead."""
    is_list: bool = False


def _shape(sizes: str) -> tuple[str, ...]:
    return tuple(sizes.split(",")) if sizes else ()


TABLE = {
    name: tuple(Argument(row[0], row[1], tuple(map(_shape, row[2].split("|"))), *row[3:]) for row in rows)
    for name, rows in core.table.items()
}
"""Rows by the operator whose arguments they are, or by what operators have in common."""


def _terms(size: str) -> list[tuple[int, list[str]]]:
    """The terms of a sum: the sign of each, and its factors."""
    terms = size.replace("-", "+-").split("+")
    return [(-1 if term[0] == "-" else 1, term.removeprefix("-").split("*")) for term in terms]


_SUMS = {
    size: _terms(size)
    for rows in TABLE.values()
    for row in rows
    for shape in row.shapes
    for size in shape
    if len(size) > 1 and size != "..."
}


def declared(rows: Iterable[Argument]) -> str:
    """The part of an operator's schema that has these arguments."""
    kinds = (f"Tensor{'[]' * row.is_list}{'?' * row.optional} {row.name}" for row in rows)
    return ", ".join(kinds)


def work_dtype(x: Tensor) -> torch.dtype:
    """The dtype of the computation: float64 for float64, otherwise float32."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def dtype_error(name: str, expected: str, x: Any) -> TypeError:
    """The error of a tensor of another dtype."""
    return TypeError(f"{name}: expected dtype {expected}, got {x.dtype}")


def shape_error(name: str, expected: str, got: Sequence[int]) -> ValueError:
    """The error of a tensor of another shape."""
    return ValueError(f"{name}: expected shape {expected}, got {tuple(got)}")


def device_error(name: str, expected: str, x: Any) -> ValueError:
    """The error of a tensor on another device."""
    return ValueError(f"{name}: expected device {expected}, got {x.device}")


def check(name: str, call: Any) -> None:
    """Check the tensors of a call by the rows of this name; all sizes are those of the tensors."""
    if not core.fits_table(name, call):
        Checked().rows(TABLE[name], call)


class Checked:
    """The tensors of a call as far as they are checked: the sizes that letters of the table stand for, the first tensor
    (``leader``) and its device, which all must have, and the dtype of the floats.

    Args:
        leader: the name of a tensor whose device others must have, instead of the first that is checked.
        device: its device.
        dtype: its dtype, if floats must have it.
        half: whether the first float may have half precision; the computation is then in float32.
        letters: sizes that are no tensor's, by their letters.

    """

    def __init__(
        self,
        leader: str = "",
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        *,
        half: bool = False,
        **letters: Any,
    ) -> None:
        self.letters: dict[str, Any] = letters
        self.half = half
        self.leader = leader
        self.device = device
        self.floats = None if dtype is None else (leader, dtype)

    def __getitem__(self, letters: str) -> tuple[Any, ...]:
        """The sizes of these letters."""
        return tuple(self.letters[letter] for letter in letters)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the floats."""
        return torch.float32 if self.floats is None else self.floats[1]

    def rows(self, rows: Sequence[Argument], call: Any) -> Checked:
        """Check the arguments of a call, those that lead first; raise for the first that is wrong."""
        for leads in (True, False):
            for row in rows:
                if row.leads == leads and not row.is_list:
                    self.one(row, getattr(call, row.name))
        return self

    def one(self, row: Argument, x: Tensor | None, name: str = "", *, or_dtype: torch.dtype | None = None) -> None:
        """Check one tensor, which may have ``or_dtype``; raise if it is wrong, or missing and needed."""
        name = name or row.name
        if x is None:
            if not row.optional:
                raise ValueError(f"{name}: expected a tensor, got None")
            return
        if x.dtype != or_dtype:
            self._check_dtype(name, row.dtype, x)
        self.place(name, x, *row.shapes)

    def place(self, name: str, x: Any, *shapes: tuple[str, ...]) -> None:
        """Check the device and the shape of a tensor, or of another object that has them; raise if one is wrong."""
        if self.device is None:
            self.leader, self.device = name, x.device
        elif x.device != self.device:
            raise device_error(name, f"{self.device}, as {self.leader} has", x)
        got = x.shape
        for shape in shapes:
            if self._has(shape, got):
                return
        expected = " or ".join(dict.fromkeys(map(self._worded, shapes)))
        raise shape_error(name, expected, got)

    def _check_dtype(self, name: str, expected: str, x: Tensor) -> None:
        if expected not in ("float", "any"):
            if x.dtype != getattr(torch, expected):
                raise dtype_error(name, expected, x)
        elif self.floats is not None:
            as_name, dtype = self.floats
            if x.dtype != dtype:
                raise dtype_error(name, f"{dtype}, as {as_name} has", x)
        elif expected == "any":
            self.floats = name, x.dtype
        else:
            if x.dtype not in WORK and not (self.half and x.dtype in HALF):
                raise dtype_error(name, "float32 or float64", x)
            self.floats = name, work_dtype(x)

    def _has(self, sizes: Sequence[str], shape: Sequence[Any]) -> bool:
        """Whether a shape has these sizes; letters without a value then get one."""
        if sizes and sizes[-1] == "...":
            first = len(sizes) - 1
            shape = (*shape[:first], tuple(shape[first:]))
        if len(sizes) != len(shape):
            return False
        letters, found = self.letters, {}
        for size, got in zip(sizes, shape, strict=True):
            expected = letters[size] if size in letters else self.size(size)
            if expected is None:
                found[size] = got
            elif got != expected:
                return False
        letters.update(found)
        return True

    def size(self, size: str) -> Any:
        """The value of a size, None for a letter that has none."""
        if size not in _SUMS:
            return int(size) if size.isdigit() else self.letters.get(size)
        total = 0
        for sign, factors in _SUMS[size]:
            product = sign
            for factor in factors:
                product *= self.letters[factor] if factor in self.letters else int(factor)
            total += product
        return total

    def dtype_of(self, row: Argument) -> torch.dtype:
        """The dtype that a row stands for."""
        made: torch.dtype = self.dtype if row.dtype in ("float", "any") else getattr(torch, row.dtype)
        return made

    def shape(self, row: Argument) -> tuple[Any, ...]:
        """The first shape of a row, all of whose letters have a value."""
        return tuple(map(self.size, row.shapes[0]))

    def _worded(self, sizes: Sequence[str]) -> str:
        values: list[Any] = []
        for size in sizes:
            value = self.size(size)
            values += value if isinstance(value, tuple) else [size if value is None else value]
        return f"({', '.join(map(str, values))}{',' * (len(values) == 1)})"
