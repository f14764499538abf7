"""The table of the cell's parameters, of csrc/params.h, and its record in Python.

Code that treats all parameters alike uses it; only signatures and equations name them one by one.
"""

from __future__ import annotations

from typing import NamedTuple

from .._core import parameters as rows


class CellParameter(NamedTuple):
    """What is known of a parameter of the cell."""

    name: str
    standard: float
    """Its default."""
    least: float
    """Smaller values are refused, whether they are learnt or not ..."""
    most: float
    """... and so are larger ones."""
    divides: bool
    """Its reciprocal must be finite."""
    least_learnt: float
    """Learnt values are clamped from here ..."""
    most_learnt: float
    """... to here."""
    full_gradient: bool
    """It has a gradient only with ``full_gradient=True``."""
    version: int
    """Of the first exported files that may have it."""


TABLE = {row[0]: CellParameter(*row) for row in rows}
PARAMETERS = tuple(TABLE)[1:]
"""Their names without the bias, which comes first."""
RESONANCE = PARAMETERS[-1]
"""The name of the angular frequency. Neurons resonate, and have a q, unless it is the constant 0."""
FIRST = tuple(name for name in PARAMETERS if TABLE[name].version == 1)
"""The names of those that every exported layer has."""
LATER = tuple(sorted(PARAMETERS[len(FIRST) :], key=lambda name: TABLE[name].version))
"""The names of the others, those of older files first."""
