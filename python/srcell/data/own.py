"""Data sets of one's own by name: a function in a Python file, or a folder that says what it holds.

``load`` and training call this file.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .arrays import as_dataset, divided, from_arrays, joined
from .dataset import Dataset
from .sounds import LabelledSounds, in_order, label_in_name

PARTS = ["train", "test"]
LABEL, SAMPLE = "label", "sample"  # columns of a CSV file
KINDS = (".wav", ".npz", ".csv")
LAYOUTS = (
    "WAV or CSV files in a folder for each label, .npz files with x, y and lengths, or CSV files with a column label; "
    "two of them, or two folders, are named train and test"
)


def is_own(name: str) -> bool:
    """Whether a data set's name is a folder or a function in a file, and not one that srcell knows."""
    return "/" in name or ".py:" in name


def is_code(name: str) -> bool:
    """Whether loading a data set of one's own runs code: FILE.py:FUNCTION."""
    return name.rpartition(":")[0].endswith(".py")


def load_own(name: str) -> Dataset:
    """Load the data set of a folder, or of ``file.py:function``.

    Raises:
        FileNotFoundError: there is no such file or folder.
        NotADirectoryError: it is a file.
        ValueError: the function returns no data set or raises an error, or the folder holds none; the message says what
            was found.

    """
    if is_code(name):
        path, _, function = name.rpartition(":")
        return _called(Path(path), function)
    folder = Path(name)
    if os.path.isfile(folder):
        raise NotADirectoryError(f"{name}: a file: expected the folder that it is in, or FILE.py:FUNCTION")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{name}: no such folder: expected a folder of samples, or FILE.py:FUNCTION")
    return _read_folder(folder)


def load_once(name: str) -> Dataset:
    """``load_own``, which is called again only if a file was changed since."""
    path = Path(name.rpartition(":")[0] if is_code(name) else name)
    files = _files_in(path) if os.path.isdir(path) else [path] if os.path.isfile(path) else []
    seen = tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _kept(name, os.path.abspath(path), seen)


@lru_cache(maxsize=1)
def _kept(name: str, path: str, seen: tuple[Any, ...]) -> Dataset:
    return load_own(name)


def _called(path: Path, name: str) -> Dataset:
    """What a function of a Python file returns."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file: expected FILE.py:FUNCTION, a function that returns a Dataset")
    spec = importlib.util.spec_from_file_location(f"srcell_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up their module here
    sys.path.insert(0, str(path.parent.resolve()))  # modules beside the file, as when it is run
    try:
        spec.loader.exec_module(module)
        function: Callable[[], Any] | None = getattr(module, name, None)
        if not callable(function):
            there = ", ".join(x for x, value in vars(module).items() if callable(value) and not x.startswith("_"))
            raise ValueError(f"expected a function {name!r} in it, found {there or 'none'}")
        return as_dataset(function())
    except Exception as error:
        raise ValueError(f"{path}:{name}: {_place_of(error, path)}{error}") from error
    finally:
        sys.path.remove(str(path.parent.resolve()))


def _place_of(error: Exception, path: Path) -> str:
    """The type of an error that a file's code raised, with file and line; "" for what srcell says of its result."""
    own = os.path.abspath(path)
    lines = [x.lineno for x in traceback.extract_tb(error.__traceback__) if os.path.abspath(x.filename) == own]
    if not lines:
        return "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
    return f"{type(error).__name__} at {path.name}, line {lines[-1]}: "


def _read_folder(folder: Path) -> Dataset:
    """The data set of a folder, whose layout is one of ``LAYOUTS``."""
    files = _files_in(folder)
    kinds = sorted({path.suffix.lower() for path in files} & set(KINDS))
    try:
        if len(kinds) != 1:
            held = ", ".join(kinds) or (f"{len(files)} other files" if files else "no files")
            raise ValueError(f"expected {LAYOUTS}, got {held}")
        found = [path for path in files if path.suffix.lower() == kinds[0]]
        if kinds[0] == ".npz":
            return _read_arrays(found)
        if kinds[0] == ".csv" and all(path.parent == folder for path in found):
            return _read_tables(_parts_of_files(found))
        return _read_by_label(folder, found, kinds[0])
    except (TypeError, ValueError) as error:
        raise ValueError(str(error) if str(error).startswith(str(folder)) else f"{folder}: {error}") from error


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder, those of linked folders too, in the order of their paths; no hidden ones."""
    found, seen = [], set()
    for root, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(root) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(os.path.realpath(root))
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _parts_of_files(files: Sequence[Path]) -> list[Path]:
    """One file, or those that are called train and test, in this order."""
    named = {path.stem.lower(): path for path in files}
    if sorted(named) == sorted(PARTS):
        return [named[part] for part in PARTS]
    if len(files) == 1:
        return list(files)
    raise ValueError(f"expected one file, or train and test, got {', '.join(path.name for path in files)}")


def _read_arrays(files: Sequence[Path]) -> Dataset:
    """The data set of one .npz file, or of two."""
    parts: list[Any] = []
    paths = _parts_of_files(files)
    ends = ["", "_test"] if len(paths) == 1 else [""]
    for path in paths:
        arrays = _arrays_of(path)
        known = {f"{name}{end}" for name in ("x", "y", "lengths") for end in ends}
        if not {"x", "y"} <= arrays.keys() <= known or ("x_test" in arrays) != ("y_test" in arrays):
            raise ValueError(f"{path.name}: expected the arrays x and y, and lengths, got {', '.join(arrays)}")
        for end in ends:
            if f"x{end}" in arrays:
                x, y, lengths = (arrays.get(f"{name}{end}") for name in ("x", "y", "lengths"))
                parts += _cut(f"lengths{end}", x, y, lengths)
            elif f"lengths{end}" in arrays:
                raise ValueError(f"{path.name}: expected x{end} beside lengths{end}, got {', '.join(arrays)}")
    return from_arrays(*parts)


def _arrays_of(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        wrong = [name for name, array in found.items() if not isinstance(array, np.ndarray)]
        if wrong:
            raise ValueError(f"{wrong[0]} is no array")
        return found
    except Exception as error:  # NumPy and zipfile raise errors of many kinds for a corrupt file
        raise ValueError(f"{path.name}: cannot be read as .npz ({error})") from error


def _cut(name: str, x: Any, y: Any, lengths: Any) -> tuple[Any, Any]:
    """Samples, and labels of every element, without what lies past their lengths."""
    if lengths is None:
        return x, y
    fit = x.ndim >= 2 and lengths.dtype.kind in "iu" and lengths.shape == x.shape[:1]
    if not (fit and ((lengths > 0) & (lengths <= x.shape[1])).all()):
        raise ValueError(f"{name}: expected an integer for each of {len(x)} samples, from 1 on, got {lengths!r:.80}")
    every = y.shape[:1] == x.shape[:1] and y.ndim == (3 if y.dtype.kind == "f" else 2)
    cut = [[row[:length] for row, length in zip(rows, lengths, strict=True)] for rows in ((x, y) if every else (x,))]
    return cut[0], cut[1] if every else y


class _Table(NamedTuple):
    """The rows of a CSV file, their line numbers, and its columns."""

    path: Path
    rows: list[dict[str, str]]
    lines: list[int]
    columns: list[str]

    @classmethod
    def read(cls, path: Path) -> _Table:
        """Read a file whose first line names its columns."""
        rows, lines = [], []
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                reader = csv.reader(file, strict=True, skipinitialspace=True)
                columns = [name.strip() for name in next(reader, [])]
                for row in filter(None, reader):
                    if len(row) != len(columns):
                        found = f"{len(row)} in line {reader.line_num}"
                        raise ValueError(f"{path.name}: expected {len(columns)} columns, got {found}")
                    rows.append({name: text.strip() for name, text in zip(columns, row, strict=True)})
                    lines.append(reader.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path.name}: cannot be read as CSV ({error})") from error
        if len(set(columns)) != len(columns) or not all(columns) or all(map(_is_number, columns)):
            raise ValueError(f"{path.name}: expected a name for each column in its first line, got {columns!r:.80}")
        if not rows:
            raise ValueError(f"{path.name}: expected rows below its first line, got none")
        return cls(path, rows, lines, columns)

    def numbers(self, columns: Sequence[str]) -> Tensor:
        """(rows, columns), float32."""
        missing = [name for name in columns if name not in self.columns]
        if missing:
            raise ValueError(f"{self.path.name}: expected the columns {', '.join(columns)}, found no {missing[0]}")
        self.check_numbers(columns)
        return torch.tensor([[float(row[name]) for name in columns] for row in self.rows])

    def check_numbers(self, columns: Sequence[str]) -> None:
        """Raise, with line and column, unless the columns hold finite numbers."""
        for row, line in zip(self.rows, self.lines, strict=True):
            for name in columns:
                if not _is_number(row[name]):
                    found = f"{row[name]!r:.80} in line {line}, column {name}"
                    number = _number(row[name])
                    found += " (float32 ends at 3.4e38)" if number is not None and math.isfinite(number) else ""
                    raise ValueError(f"{self.path.name}: expected finite numbers, got {found}")

    def labels(self) -> list[str]:
        """The column of labels."""
        if LABEL not in self.columns:
            raise ValueError(f"{self.path.name}: expected a column {LABEL!r}, got {', '.join(self.columns)}")
        labels = [row[LABEL] for row in self.rows]
        if "" in labels:
            line = self.lines[labels.index("")]
            raise ValueError(f"{self.path.name}: expected a label in line {line}, got an empty one")
        return labels


def _number(text: str) -> float | None:
    """The number that a text is, also nan and inf; None for other texts."""
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(text: str) -> bool:
    """Whether a text is a number that is finite in float32."""
    number = _number(text)
    return number is not None and abs(number) <= torch.finfo(torch.float32).max


def _read_tables(paths: Sequence[Path]) -> Dataset:
    """The data set of CSV files with a column of labels.

    A sample is a row, or the rows with the same text in the column ``sample``. Labels are targets if all of them are
    numbers and one is not whole. Targets must be finite: a nan would stand for a missing one.
    """
    tables = [_Table.read(path) for path in paths]
    first = tables[0]
    labels = [table.labels() for table in tables]
    values = [name for name in first.columns if name not in (LABEL, SAMPLE)]
    if not values:
        raise ValueError(f"{first.path.name}: expected columns of numbers beside {LABEL}, got none")
    each = {text for texts in labels for text in texts}
    targets = all(_number(text) is not None for text in each) and not all(text.lstrip("+-").isdigit() for text in each)
    for table in tables if targets else ():
        table.check_numbers([LABEL])
    parts = []
    for table, texts in zip(tables, labels, strict=True):
        if table.columns and set(table.columns) != set(first.columns):
            expected, got = (", ".join(x.columns) for x in (first, table))
            raise ValueError(f"{table.path.name}: expected the columns of {first.path.name}, {expected}, got {got}")
        numbers = table.numbers(values)
        found = np.array([float(text) for text in texts])[:, None] if targets else np.array(texts)
        if SAMPLE not in first.columns:
            parts.append(([row[:, None] for row in numbers], list(found)))
            continue
        rows: dict[str, list[int]] = {}
        for k, row in enumerate(table.rows):
            rows.setdefault(row[SAMPLE], []).append(k)
        parts.append(([numbers[k] for k in rows.values()], [found[k] for k in rows.values()]))
    if SAMPLE in first.columns and all((label == label[0]).all() for _, y in parts for label in y):
        parts = [(x, [label[0] for label in y]) for x, y in parts]
    return joined(parts)


def _read_by_label(folder: Path, files: Sequence[Path], kind: str) -> Dataset:
    """The data set of files in a folder for each label, or, of sounds, with the label in their names."""
    parts = list(_labelled_files(folder, files, kind))
    if kind == ".csv":
        tables = [[_Table.read(path) for path in found] for _, found, _ in parts]
        columns = tables[0][0].columns
        return joined(
            [([table.numbers(columns) for table in x], names) for x, (*_, names) in zip(tables, parts, strict=True)]
        )
    classes = in_order(set(parts[0][2]))
    sounds = []
    for root, found, names in parts:
        unknown = next((name for name in names if name not in classes), None)
        if unknown is not None:
            raise ValueError(f"{root}: expected labels of the training samples, got {unknown!r}")
        label_of = {str(path.relative_to(root)): name for path, name in zip(found, names, strict=True)}
        read, own = LabelledSounds.from_folder(root, label_of)
        number = torch.tensor([classes.index(name) for name in own])
        sounds.append(read._replace(labels=number[read.labels]))
    return divided(sounds, classes, (1, 1, 1))


def _labelled_files(folder: Path, files: Sequence[Path], kind: str) -> Iterator[tuple[Path, list[Path], list[str]]]:
    """The root, the files and their labels of each part."""
    tops = {path.relative_to(folder).parts[0] for path in files}
    named = {name.lower(): name for name in tops}
    roots = [folder]
    if named.keys() & set(PARTS):
        if sorted(named) != sorted(PARTS):
            raise ValueError(f"expected the folders train and test and no others, got {', '.join(sorted(tops))}")
        roots = [folder / named[part] for part in PARTS]
    for root in roots:
        found = [path for path in files if path.is_relative_to(root)]
        flat = [path for path in found if path.parent == root]
        if flat and not (kind == ".wav" and len(flat) == len(found)):
            raise ValueError(f"expected every file in the folder of its label, got {flat[0].relative_to(folder)}")
        names = [label_in_name(path) if flat else path.relative_to(root).parts[0] for path in found]
        if flat and len(set(names)) == len(names):
            raise ValueError(
                f"expected a folder for each label, or names such as yes_1.wav, yes_2.wav, got {flat[0].name}"
            )
        yield root, found, names
