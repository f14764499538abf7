"""Files that VHDL reads: weights as a package, and the spikes of a sample as frames, one word per step.

Users call these functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from .._shared.arguments import as_int
from .._shared.files import write_output
from ._arrays import Matrix, as_spikes, as_weights, by_rows, column_order, lines_of_numbers, parse_int

CONTROL_BITS, LABEL_BITS = 2, 4
HEAD_BITS = CONTROL_BITS + LABEL_BITS

# Each pattern needs time linear in the length of any text: no two adjacent repetitions match the same characters, and
# the end of an unfinished construct is not searched for from every possible start.
COMMENT = re.compile(r"--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
NUMBER = r"(\d+(?:_\d+)*)"
NATURAL = re.compile(rf"\bconstant\s+\w+\s*:\s*natural\s*:=\s*{NUMBER}\s*\Z", re.IGNORECASE)
ARRAY_TYPE = re.compile(r"\btype\s+(\w+)\s+is\s+array\b", re.IGNORECASE)
OF_INTEGER = re.compile(r"\)\s*of\s+integer\b", re.IGNORECASE)
CONSTANT = re.compile(r"\bconstant\s+\w+\s*:\s*(\w+)\s*:=", re.IGNORECASE)
ROW = re.compile(r"(?:(\d+)\s*=>\s*)?\(([^()]*)\)\s*")
ROWS = re.compile(rf"\(\s*{ROW.pattern}(?:,\s*{ROW.pattern})*\)\s*")
ELEMENT = re.compile(rf"(?:(\d+)\s*=>\s*)?([+-]?)\s*{NUMBER}")


def write_weights(path: str | Path, weights: Matrix, *, name: str = "weights") -> None:
    """Write the weights of a layer as a VHDL package.

    The package has the naturals ``NAME_rows`` (N) and ``NAME_columns`` (K), and the constant ``NAME_values``. The type
    of the constant is ``NAME_matrix``, an array (0 to N - 1, 0 to K - 1) of integer. The package needs VHDL-1993 or
    later.

    Args:
        path: the file to write; an existing one is replaced, whole or not at all.
        weights: (N, K) integers of 16 bits, an array or a tensor: [n, k] is the weight from input k to neuron n.
        name: the package's name, and the prefix of all names in it, so that several packages can be used together.

    Raises:
        TypeError: the weights are not integers.
        ValueError: the weights are not a non-empty matrix, or exceed 16 bits; the name is not a VHDL identifier.
        OSError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "weights.vhd")
        ...     write_weights(file, [[1, -2, 3], [0, 5, -8]])
        ...     print(file.read_text())
        -- What each of 2 neurons (rows) gets from each of 3 inputs (columns), written by srcell.
        package weights is
          constant weights_rows : natural := 2;
          constant weights_columns : natural := 3;
          type weights_matrix is array (0 to weights_rows - 1, 0 to weights_columns - 1) of integer;
          constant weights_values : weights_matrix := (
            (1, -2, 3),
            (0, 5, -8)
          );
        end package;
        <BLANKLINE>

    """
    matrix = as_weights("weights", weights)
    if not re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name):
        raise ValueError(f"name: expected a VHDL identifier, got {name!r}")
    rows, columns = matrix.shape
    # In VHDL, one value in parentheses is not an aggregate unless its index is named.
    index_of_row, index_of_column = ("0 => " if size == 1 else "" for size in matrix.shape)
    values = ",\n    ".join(f"({index_of_column}{row})" for row in map(lines_of_numbers, matrix.tolist()))
    lines = [
        f"-- What each of {rows} neurons (rows) gets from each of {columns} inputs (columns), written by srcell.",
        f"package {name} is",
        f"  constant {name}_rows : natural := {rows};",
        f"  constant {name}_columns : natural := {columns};",
        f"  type {name}_matrix is array (0 to {name}_rows - 1, 0 to {name}_columns - 1) of integer;",
        f"  constant {name}_values : {name}_matrix := (",
        f"    {index_of_row}{values}",
        "  );",
        "end package;",
    ]
    write_output(Path(path), "".join(f"{line}\n" for line in lines).encode())


def read_weights(path: str | Path) -> NDArray[np.int16]:
    """Read the weights (N, K) of a VHDL package, from ``write_weights`` or of the same form.

    The package may have other names, comments, case and white space than those of ``write_weights``, and its aggregates
    may be positional or name each index by a number. It must have exactly two naturals, N then K, and a constant of a
    type ``array ... of integer``.

    Raises:
        ValueError: a natural or the constant is missing, or a value exceeds 16 bits; the message names the file.
        OSError: there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_weights(f"{folder}/weights.vhd", [[1, -2, 3], [0, 5, -8]])
        ...     read_weights(f"{folder}/weights.vhd")
        array([[ 1, -2,  3],
               [ 0,  5, -8]], dtype=int16)

    """
    where = str(path)
    text = COMMENT.sub(" ", Path(path).read_text("utf-8", errors="replace"))
    statements = text.split(";")[:-1]  # what follows the last ';' is not a statement
    naturals = [found[1] for statement in statements if (found := NATURAL.search(statement))]
    if len(naturals) != 2:
        raise ValueError(f"{path}: expected two constants of type natural, rows and columns, got {len(naturals)}")
    sizes = [parse_int(where, number) for number in naturals]
    kinds = (found for statement in statements if (found := ARRAY_TYPE.search(statement)))
    kind = next((found[1] for found in kinds if OF_INTEGER.search(found.string, found.end())), None)
    if kind is None:
        raise ValueError(f"{path}: expected a type 'array (...) of integer', got none")
    constants = (found for statement in statements if (found := CONSTANT.search(statement)))
    constant = next((found for found in constants if found[1].lower() == kind.lower()), None)
    if constant is None:
        raise ValueError(f"{path}: expected a constant of type {kind} that ends with ';', got none")
    values = _values(where, constant.string[constant.end() :].strip())
    shape = (len(values), len(values[0]))
    if shape != tuple(sizes):
        raise ValueError(f"{path}: expected {sizes[0]} rows and {sizes[1]} columns, got {shape[0]} and {shape[1]}")
    return as_weights(where, values)


def write_frames(
    path: str | Path, spikes: Matrix, label: SupportsIndex, *, image_shape: Sequence[int] | None = None
) -> None:
    """Write the input spikes of one sample as words of 0 and 1, one line per step.

    A word has 2 control bits, 4 bits of the label (the most significant first) and K bits of pixels (pixel 0 first).
    The meaning of the control bits is srcell's choice, because their meaning in the files of the authors' group is not
    known: the first is 1 in the sample's first step, the second is 1 in its last.

    Args:
        path: the file to write; an existing one is replaced, whole or not at all.
        spikes: (T, K) of 0 and 1, an array or a tensor.
        label: the sample's class, 0 to 15.
        image_shape: height and width of the image. If given, the pixels, which are numbered row by row in ``spikes``,
            are written column by column, as in the group's files. By default the order of the pixels is unchanged.

    Raises:
        TypeError: the label is not an int.
        ValueError: the spikes are not a non-empty matrix of 0 and 1, the label does not fit, or ``image_shape`` is
            wrong.
        OSError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "sample.txt")
        ...     write_frames(file, [[1, 0, 0], [0, 1, 0], [0, 1, 1]], label=5)
        ...     print(file.read_text())
        100101100
        000101010
        010101011
        <BLANKLINE>

    """
    frames, number = as_spikes("spikes", spikes), as_int("label", label, 2**LABEL_BITS - 1)
    if image_shape is not None:
        frames = frames[:, column_order("image_shape", image_shape, frames.shape[1])]
    last = len(frames) - 1
    words = (f"{t == 0:b}{t == last:b}{number:04b}{''.join(map(str, row))}\n" for t, row in enumerate(frames.tolist()))
    write_output(Path(path), "".join(words).encode())


def read_frames(path: str | Path, *, image_shape: Sequence[int] | None = None) -> tuple[NDArray[np.uint8], int]:
    """Read the spikes (T, K) and the label of a sample, from a file of ``write_frames`` or of the same form.

    Control bits are ignored.

    Args:
        path: the file to read.
        image_shape: height and width of the image, if its pixels are column by column in the file; the returned pixels
            are row by row.

    Raises:
        ValueError: the file has no words, or words of several lengths or labels (the message names the file); or
            ``image_shape`` does not match the pixels.
        OSError: there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_frames(f"{folder}/sample.txt", [[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]], 5, image_shape=(2, 3))
        ...     read_frames(f"{folder}/sample.txt", image_shape=(2, 3))
        (array([[1, 0, 0, 1, 0, 0],
               [0, 0, 1, 0, 0, 0]], dtype=uint8), 5)

    """
    lines = Path(path).read_text("utf-8", errors="replace").split("\n")
    words = [word for line in lines if (word := line.strip())]
    if not words:
        raise ValueError(f"{path}: expected a word for each step, got none")
    length = max(len(words[0]), HEAD_BITS + 1)
    for number, word in enumerate(words, start=1):
        if len(word) != length or word.strip("01"):
            raise ValueError(f"{path}: expected words of {length} characters 0 and 1, got another as word {number}")
    labels = {int(word[CONTROL_BITS:HEAD_BITS], 2) for word in words}
    if len(labels) != 1:
        raise ValueError(f"{path}: expected the same label in all words, got {', '.join(map(str, sorted(labels)))}")
    pixels = np.array([list(word[HEAD_BITS:]) for word in words]).astype(np.uint8)
    if image_shape is not None:
        pixels = by_rows("image_shape", pixels, image_shape)
    return pixels, labels.pop()


def _values(where: str, text: str) -> list[list[int]]:
    """The elements of an aggregate of rows of the same length."""
    if not ROWS.fullmatch(text):
        raise ValueError(f"{where}: expected rows in parentheses, with commas between them, in parentheses")
    rows = _ordered(where, [(row[1], row[2]) for row in ROW.finditer(text, text.index("(") + 1)])
    values = [_ordered(where, [_element(where, element) for element in row.split(",")]) for row in rows]
    if len({len(row) for row in values}) != 1:
        raise ValueError(f"{where}: expected rows of one length, got {', '.join(str(len(row)) for row in values)}")
    return values


def _element(where: str, text: str) -> tuple[str | None, int]:
    """The index of an element, if it is named, and its value."""
    found = ELEMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{where}: expected integers with commas between them, got {text.strip()[:40]!r}")
    return found[1], parse_int(where, found[2] + found[3])


def _ordered(where: str, elements: Sequence[tuple[str | None, Any]]) -> list[Any]:
    """The elements in the order of their indices, if these are named."""
    if all(index is None for index, _ in elements):
        return [element for _, element in elements]
    numbered = {parse_int(where, index): element for index, element in elements if index is not None}
    if len(numbered) != len(elements) or numbered.keys() != set(range(len(elements))):
        raise ValueError(f"{where}: expected each index from 0 to {len(elements) - 1} once, or none, got others")
    return [numbered[k] for k in range(len(elements))]
