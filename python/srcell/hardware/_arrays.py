"""Checks weights and spikes for the modules of this folder; gives the pixel order of the authors' group's files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .._shared.arguments import require_dense, require_values

Matrix: TypeAlias = NDArray[Any] | Tensor | Sequence[Sequence[int]]
LOW, HIGH = -(2**15), 2**15 - 1  # of int16
NUMBERS_PER_LINE = 16


def as_weights(name: str, weights: Matrix) -> NDArray[np.int16]:
    """Check integer weights (N, K), at least one, within int16, and return them as int16."""
    found = _as_matrix(name, weights, "(N, K)")
    if not np.issubdtype(found.dtype, np.integer):
        raise TypeError(f"{name}: expected integers, got {found.dtype}")
    low, high = int(found.min()), int(found.max())
    if low < LOW or high > HIGH:
        raise ValueError(f"{name}: expected values in [{LOW}, {HIGH}], got {low} to {high}")
    return found.astype(np.int16)


def as_spikes(name: str, spikes: Matrix) -> NDArray[np.uint8]:
    """Check spikes (T, K) of 0 and 1, at least one, of any numeric type, and return them as uint8."""
    found = _as_matrix(name, spikes, "(T, K)")
    valid = (found == 0) | (found == 1)
    if not np.all(valid):
        raise ValueError(f"{name}: expected values 0 and 1, got {found[~valid][0]}")
    return found.astype(np.uint8)


def column_order(name: str, image_shape: Sequence[int], inputs: int) -> NDArray[np.int64]:
    """For each position in an image flattened column by column, the number of that pixel counted row by row: (K,).

    Raises:
        ValueError: the shape is not that of an image of ``inputs`` pixels.

    Example:
        >>> column_order("image_shape", (2, 3), 6).tolist()
        [0, 3, 1, 4, 2, 5]

    """
    if len(image_shape) != 2 or min(image_shape) < 1 or image_shape[0] * image_shape[1] != inputs:
        raise ValueError(f"{name}: expected height and width of images of {inputs} pixels, got {tuple(image_shape)}")
    height, width = image_shape
    order: NDArray[np.int64] = np.arange(inputs).reshape(height, width).T.reshape(-1)
    return order


def by_rows(name: str, columns: NDArray[Any], image_shape: Sequence[int]) -> NDArray[Any]:
    """Images (..., K) flattened column by column, flattened row by row instead."""
    found = np.empty_like(columns)
    found[:, column_order(name, image_shape, columns.shape[1])] = columns
    return found


def parse_int(where: str, digits: str) -> int:
    """Parse an integer from a file, of at most 18 digits: far more than any weight or size has.

    Raises:
        ValueError: it has more digits; the message names the file.

    Example:
        >>> parse_int("weights.vhd", "-1_000")
        -1000

    """
    if len(digits) > 18:
        raise ValueError(f"{where}: expected integers of at most 18 digits, got {digits[:18]}...")
    return int(digits)


def lines_of_numbers(numbers: Sequence[Any]) -> str:
    """The numbers separated by commas, 16 on a line; the second line and later ones are indented by 5."""
    starts = range(0, len(numbers), NUMBERS_PER_LINE)
    return ",\n     ".join(", ".join(map(str, numbers[start : start + NUMBERS_PER_LINE])) for start in starts)


def _as_matrix(name: str, values: Matrix, shape: str) -> NDArray[Any]:
    if isinstance(values, Tensor):
        require_dense(name, values)
        require_values(name, values)
        values = values.detach().cpu().numpy()
    found = np.asarray(values)
    if found.ndim != 2 or not found.size:
        raise ValueError(f"{name}: expected an array {shape} with elements, got shape {found.shape}")
    return found
