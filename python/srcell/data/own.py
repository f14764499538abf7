"""Data sets of one's own: from arrays, from a function in a Python file, and from a folder that says what it holds.

``load`` and training call this file.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .._arguments import as_float, as_int, describe
from ..events import EventBatch
from .dataset import Dataset, LabelledEvents, LabelledImages, LabelledSequences, Samples
from .sounds import LabelledSounds, in_order

PARTS = ("train", "test")
LABEL, SAMPLE = "label", "sample"  # columns of a CSV file
ARRAYS = ("x", "y", "lengths", "x_test", "y_test", "lengths_test")  # of an .npz file
LAYOUTS = (
    "WAV or CSV files in a folder for each label, .npz files with x, y and lengths, or CSV files with a column label; "
    "two of them, or two folders, are named train and test"
)
KINDS = {"images": LabelledImages, "sequences": LabelledSequences, "events": LabelledEvents, "sounds": LabelledSounds}
# The samples of a part: the values of each, (S, K), and their labels.
Pair: TypeAlias = tuple[list[Tensor], Any]


def from_arrays(
    x: Any,
    y: Any,
    x_test: Any = None,
    y_test: Any = None,
    *,
    test: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Make a data set from sequences of real numbers and their labels or targets.

    Args:
        x: (B, S, K), or (B, S) for K = 1, a tensor or an array; or a list of B arrays (S, K) or (S,), which may differ
            in S.
        y: labels (B,): integers, bools or texts, which are numbered in order; or of every element, (B, S) or a list of
            B arrays (S,). Or targets, of floats: (B,), (B, C), or of every element (B, S, C) or a list of B arrays
            (S, C).
        x_test: samples for the test, as ``x``; without them a part of ``x`` is held out.
        y_test: their labels or targets.
        test: the fraction of the samples that is held out, drawn by ``seed``.
        seed: as said.

    Returns:
        A ``Dataset`` of ``LabelledSequences``, with the names of the classes unless they are 0 to C-1.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: shapes that do not fit each other, no sample, a number that is not finite, a label of the test that
            no training sample has, or ``test`` outside (0, 1).

    Example:
        >>> import numpy as np
        >>> recordings = [np.random.rand(steps, 3) for steps in (5, 8, 7, 6)]
        >>> dataset = from_arrays(recordings, ["up", "down", "up", "down"], test=0.5)
        >>> dataset.train, dataset.class_names
        (LabelledSequences(values of shape (2, ..., 3), with lengths), ('down', 'up'))

    """
    if (x_test is None) != (y_test is None):
        raise ValueError("y_test: expected labels together with x_test, got one without the other")
    parts = [(_sequences("x", x), y)]
    if x_test is not None:
        parts.append((_sequences("x_test", x_test), y_test))
    return _joined(parts, test, seed)


def _joined(parts: Sequence[Pair], test: float, seed: int) -> Dataset:
    """The data set of one or two parts; a single one is divided."""
    names = ("", "_test")
    labels, classes = _answers([(f"y{names[k]}", y, x) for k, (x, y) in enumerate(parts)])
    inputs = {values.shape[1] for x, _ in parts for values in x}
    if len(inputs) > 1:
        raise ValueError(f"x: expected as many inputs in all samples, got {', '.join(map(str, sorted(inputs)))}")
    samples = [_padded(x, found) for (x, _), found in zip(parts, labels, strict=True)]
    return _divided(samples, classes, (inputs.pop(), 1, 1), test, seed)


def _divided(
    samples: Sequence[Samples], classes: tuple[str, ...] | int, shape: tuple[int, int, int], test: float, seed: int
) -> Dataset:
    """The data set of the samples of one part, of which some are held out, or of two."""
    train, *held_out = samples
    count = len(train.labels)
    if not held_out:
        number = round(as_float("test", test) * count)
        if not 0 < number < count:
            raise ValueError(
                f"test: expected a fraction that leaves samples to train on and to test on, got {test} of {count}"
            )
        order = torch.randperm(count, generator=torch.Generator().manual_seed(as_int("seed", seed, 2**63 - 1)))
        train, held_out = (
            train.select(order[number:].sort().values),
            [train.select(order[:number].sort().values)],
        )
    size = classes if isinstance(classes, int) else len(classes)
    return Dataset(train, held_out[0], size, shape, () if isinstance(classes, int) else classes)


def _sequences(name: str, x: Any) -> list[Tensor]:
    """The samples as tensors (S, K), float32."""
    if isinstance(x, EventBatch):
        raise TypeError(f"{name}: expected real numbers, got an EventBatch: make a Dataset of LabelledEvents")
    each = list(x) if isinstance(x, Iterable) and not isinstance(x, str | bytes | dict) else None
    if each is None or (isinstance(x, Tensor) and not x.dim()):
        raise TypeError(f"{name}: expected an array (B, S, K) or a list of arrays (S, K), got {describe(x)}")
    found = []
    for k, values in enumerate(each):
        try:
            sample = torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach().cpu()
            sample = sample.to(torch.float32)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"{name}: expected numbers in sample {k}, got {describe(values)} ({error})") from None
        if sample.dim() not in (1, 2) or 0 in sample.shape:
            raise ValueError(f"{name}: expected (S, K) or (S,), not empty, in sample {k}, got {tuple(sample.shape)}")
        if not sample.isfinite().all():
            wrong = float(sample[~sample.isfinite()][0])
            raise ValueError(f"{name}: expected finite numbers, got {wrong} in sample {k}")
        found.append(sample if sample.dim() == 2 else sample[:, None])
    if not found:
        raise ValueError(f"{name}: expected at least one sample, got none")
    return found


def _answers(parts: Sequence[tuple[str, Any, list[Tensor]]]) -> tuple[list[Tensor], tuple[str, ...] | int]:
    """The labels or targets of each part; and the names of the classes or their number, or the number of values."""
    found = [_arrays(name, y, x) for name, y, x in parts]
    kinds = {array.dtype.kind for arrays in found for array in arrays}
    if kinds <= set("f"):
        return _targets(found, [name for name, *_ in parts])
    if not kinds <= set("biuSU"):
        raise TypeError(f"y: expected integers or texts, or floats as targets, got {found[0][0].dtype}")
    seen = {str(x) for array in found[0] for x in np.unique(array.astype(np.int64) if array.dtype == bool else array)}
    classes = in_order(seen)
    number = {name: k for k, name in enumerate(classes)}
    labels = []
    for (name, _, _), arrays in zip(parts, found, strict=True):
        numbers = []
        for array in arrays:
            texts = [str(x) for x in (array.astype(np.int64) if array.dtype == bool else array).ravel()]
            unknown = next((x for x in texts if x not in number), None)
            if unknown is not None:
                raise ValueError(f"{name}: expected labels of the training samples, got {unknown!r}")
            numbers.append(torch.tensor([number[x] for x in texts]).reshape(array.shape))
        labels.append(_stacked(numbers))
    plain = classes == tuple(str(k) for k in range(len(classes)))
    return labels, len(classes) if plain else classes


def _arrays(name: str, y: Any, x: list[Tensor]) -> list[np.ndarray]:
    """The label or target of each sample, as an array: (), (S,), (C,) or (S, C)."""
    if isinstance(y, str | bytes) or not isinstance(y, Iterable):
        raise TypeError(f"{name}: expected labels (B,) or targets, got {describe(y)}")
    each = [np.asarray(label.detach().cpu() if isinstance(label, Tensor) else label) for label in y]
    if len(each) != len(x):
        raise ValueError(f"{name}: expected a label or a target for each of {len(x)} samples, got {len(each)}")
    for k, (label, values) in enumerate(zip(each, x, strict=True)):
        every = (label.dtype.kind != "f" and label.ndim == 1) or label.ndim == 2
        if label.ndim > (2 if label.dtype.kind == "f" else 1) or (every and len(label) != len(values)):
            raise ValueError(
                f"{name}: expected one label or target, or one for each of {len(values)} elements, in sample {k}, got "
                f"shape {label.shape}"
            )
        if label.ndim != each[0].ndim:
            raise ValueError(f"{name}: expected all labels alike, got shapes {each[0].shape} and {label.shape}")
    return each


def _targets(found: Sequence[list[np.ndarray]], names: Sequence[str]) -> tuple[list[Tensor], int]:
    """Targets (B, C) or (B, S, C) of each part, and C."""
    parts, sizes = [], set()
    for arrays, name in zip(found, names, strict=True):
        if not all(np.isfinite(array).all() for array in arrays):
            raise ValueError(f"{name}: expected finite targets, got NaN or an infinity")
        parts.append(_stacked([torch.from_numpy(np.atleast_1d(array).astype(np.float32)) for array in arrays]))
        sizes.add(parts[-1].shape[-1])
    if len(sizes) > 1:
        raise ValueError(f"y_test: expected as many values as in y, got {sizes}")
    return parts, sizes.pop()


def _stacked(each: list[Tensor]) -> Tensor:
    """(B, ...), padded by 0 where samples differ in length."""
    return pad_sequence(each, batch_first=True) if each[0].dim() else torch.stack(each)


def _padded(x: list[Tensor], labels: Tensor) -> LabelledSequences:
    lengths = torch.tensor([len(values) for values in x])
    same = bool((lengths == lengths[0]).all())
    return LabelledSequences(pad_sequence(x, batch_first=True), labels, None if same else lengths)


def as_dataset(given: Any) -> Dataset:
    """A ``Dataset`` unchanged, or that of ``from_arrays`` for a tuple of its arguments.

    Raises:
        TypeError: neither; and the errors of ``from_arrays``.

    """
    if isinstance(given, Dataset):
        return given
    if isinstance(given, tuple | list) and len(given) in (2, 4):
        return from_arrays(*given)
    raise TypeError(
        "dataset: expected a srcell.data.Dataset, a pair (x, y) of samples and labels or targets, or (x, y, x_test, "
        f"y_test), got {describe(given)}"
    )


def kind_of(samples: Samples) -> str:
    """The kind of samples: a name of ``KINDS``."""
    return next(name for name, kind in KINDS.items() if isinstance(samples, kind))


def is_own(name: str) -> bool:
    """Whether a data set's name is a folder or a function in a file, and not one that srcell knows."""
    return "/" in name or ".py:" in name


@lru_cache(maxsize=1)
def load_own(name: str) -> Dataset:
    """Load the data set of a folder, or of ``file.py:function``; the last one is kept in memory.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the function returns no data set, or the folder holds none; the message says what was found.

    """
    path, colon, function = name.rpartition(":")
    if colon and path.endswith(".py"):
        return _called(Path(path), function)
    folder = Path(name)
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: no such folder: expected a folder of samples, or FILE.py:FUNCTION")
    return _read_folder(folder)


def _called(path: Path, name: str) -> Dataset:
    """What a function of a Python file returns."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file: expected FILE.py:FUNCTION, a function that returns a Dataset")
    spec = importlib.util.spec_from_file_location(f"srcell_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # classes that are defined there can be pickled for workers
    sys.path.insert(0, str(path.parent.resolve()))  # modules beside the file, as when it is run
    try:
        spec.loader.exec_module(module)
        function: Callable[[], Any] | None = getattr(module, name, None)
        if not callable(function):
            there = ", ".join(x for x, value in vars(module).items() if callable(value) and not x.startswith("_"))
            raise ValueError(f"{path}: expected a function {name!r} in it, found {there or 'none'}")
        given = function()
    finally:
        sys.path.remove(str(path.parent.resolve()))
    try:
        return as_dataset(given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}:{name}: {error}") from error


def _read_folder(folder: Path) -> Dataset:
    """The data set of a folder, whose layout is one of ``LAYOUTS``."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_hidden(path, folder)]
    kinds = sorted({path.suffix.lower() for path in files} & {".wav", ".npz", ".csv"})
    try:
        if len(kinds) != 1:
            held = ", ".join(kinds) or f"{len(files)} other files"
            raise ValueError(f"expected {LAYOUTS}, got {held}")
        found = [path for path in files if path.suffix.lower() == kinds[0]]
        if kinds[0] == ".npz":
            return _read_arrays(found)
        if kinds[0] == ".csv" and all(path.parent == folder for path in found):
            return _joined([_read_rows(path) for path in _parts_of_files(found)], 0.2, 0)
        return _read_by_label(folder, found, kinds[0])
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(str(folder)) else f"{folder}: {error}") from error


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _parts_of_files(files: Sequence[Path]) -> list[Path]:
    """One file, or those that are called train and test, in this order."""
    named = {path.stem.lower(): path for path in files}
    if set(named) == set(PARTS):
        return [named[part] for part in PARTS]
    if len(files) == 1:
        return list(files)
    raise ValueError(f"expected one file, or train and test, got {', '.join(path.name for path in files)}")


def _read_arrays(files: Sequence[Path]) -> Dataset:
    """The data set of one .npz file, or of two."""
    parts: list[tuple[Any, Any]] = []
    paths = _parts_of_files(files)
    for path in paths:
        with _opened(path) as file:
            unknown = [name for name in file.files if name not in ARRAYS]
            if unknown or not {"x", "y"} <= set(file.files) or (len(paths) > 1 and "x_test" in file.files):
                raise ValueError(f"{path.name}: expected the arrays x and y, and lengths, got {', '.join(file.files)}")
            arrays = {name: file[name] for name in file.files}
        for end in ("", "_test"):
            if f"x{end}" in arrays:
                x, y, lengths = (arrays.get(f"{name}{end}") for name in ("x", "y", "lengths"))
                parts.append((_cut(f"lengths{end}", x, lengths), _cut_labels(y, x, lengths)))
    return from_arrays(*(array for part in parts for array in part))


def _opened(path: Path) -> Any:
    try:
        return np.load(path)  # allow_pickle is False: no code of the file runs
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name}: cannot be read as .npz ({error})") from error


def _cut(name: str, x: Any, lengths: Any) -> Any:
    """Samples without what lies past their lengths."""
    if lengths is None:
        return x
    if (
        lengths.dtype.kind not in "iu"
        or lengths.shape != x.shape[:1]
        or not ((lengths > 0) & (lengths <= x.shape[1])).all()
    ):
        raise ValueError(f"{name}: expected ({len(x)},) integers from 1 to {x.shape[1]}, got {lengths!r:.80}")
    return [values[:length] for values, length in zip(x, lengths, strict=True)]


def _cut_labels(y: Any, x: Any, lengths: Any) -> Any:
    """Labels without what lies past the lengths, if every element has one."""
    if y is None:
        raise ValueError("y_test: expected labels together with x_test, got none")
    every = y.ndim == 3 or (y.ndim == 2 and y.dtype.kind != "f")
    return [label[:length] for label, length in zip(y, lengths, strict=True)] if every and lengths is not None else y


def _read_rows(path: Path) -> Pair:
    """The samples of a CSV file: its rows, or the rows with the same number in the column ``sample``."""
    table, columns = _read_csv(path)
    if LABEL not in columns:
        raise ValueError(f"{path.name}: expected a column {LABEL!r}, got {', '.join(columns)}")
    values = [name for name in columns if name not in (LABEL, SAMPLE)]
    if not values:
        raise ValueError(f"{path.name}: expected columns of numbers beside {LABEL}, got none")
    numbers, labels = _numbers_of(path, table, values), [row[LABEL] for row in table]
    if SAMPLE not in columns:
        return [row[:, None] for row in numbers], _as_labels(labels)
    rows: dict[str, list[int]] = {}
    for k, row in enumerate(table):
        rows.setdefault(row[SAMPLE], []).append(k)
    of_samples = [[labels[k] for k in numbered] for numbered in rows.values()]
    x = [numbers[numbered] for numbered in rows.values()]
    if all(len(set(found)) == 1 for found in of_samples):
        return x, _as_labels([found[0] for found in of_samples])
    flat = _as_labels(labels)
    flat = flat[:, None] if flat.dtype.kind == "f" else flat
    return x, [flat[numbered] for numbered in rows.values()]


def _read_by_label(folder: Path, files: Sequence[Path], kind: str) -> Dataset:
    """The data set of files in a folder for each label."""
    tops = {path.relative_to(folder).parts[0] for path in files}
    roots = [folder / part for part in PARTS] if tops == set(PARTS) else [folder]
    parts: list[tuple[Path, list[Path], list[str]]] = []
    seen: set[str] = set()
    for root in roots:
        found = [path for path in files if path.is_relative_to(root)]
        flat = [path for path in found if path.parent == root]
        if flat and not (kind == ".wav" and len(flat) == len(found)):
            raise ValueError(f"expected every file in the folder of its label, got {flat[0]}")
        names = [path.stem.partition("_")[0] if flat else path.relative_to(root).parts[0] for path in found]
        parts.append((root, found, names))
        seen |= set(names) if not seen else set()
    if kind == ".csv":
        return _joined([([_recording(path) for path in found], names) for _, found, names in parts], 0.2, 0)
    classes = in_order(seen)
    sounds = []
    for root, found, names in parts:
        label_of = {str(path.relative_to(root)): name for path, name in zip(found, names, strict=True)}
        unknown = next((name for name in names if name not in seen), None)
        if unknown is not None:
            raise ValueError(f"{root}: expected labels of the training samples, got {unknown!r}")
        read, own = LabelledSounds.from_folder(root, label_of)
        number = torch.tensor([classes.index(name) for name in own])
        sounds.append(read._replace(labels=number[read.labels]))
    return _divided(sounds, classes, (1, 1, 1), 0.2, 0)


def _recording(path: Path) -> Tensor:
    """A CSV file whose rows are the elements of one sample."""
    table, columns = _read_csv(path)
    return _numbers_of(path, table, columns)


def _read_csv(path: Path) -> tuple[list[dict[str, str]], list[str]]:
    """The rows of a CSV file with a header, and the names of its columns."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restkey="", strict=True)
            rows, columns = list(reader), [name.strip() for name in reader.fieldnames or []]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name}: cannot be read as CSV ({error})") from error
    if len(set(columns)) != len(columns) or not all(columns):
        raise ValueError(f"{path.name}: expected a name for each column in its first line, got {columns!r:.80}")
    for k, row in enumerate(rows, start=2):
        if "" in row or None in row.values():
            raise ValueError(f"{path.name}: expected {len(columns)} columns in line {k}, got another number")
    if not rows:
        raise ValueError(f"{path.name}: expected rows below its first line, got none")
    return [dict(zip(columns, row.values(), strict=True)) for row in rows], columns


def _numbers_of(path: Path, table: Sequence[dict[str, str]], columns: Sequence[str]) -> Tensor:
    """(rows, columns), float32."""
    numbers = []
    for k, row in enumerate(table, start=2):
        for name in columns:
            try:
                numbers.append(float(row[name]))
            except ValueError:
                numbers.append(math.nan)
            if not math.isfinite(numbers[-1]):
                found = f"{row[name]!r:.80} in line {k}, column {name}"
                raise ValueError(f"{path.name}: expected finite numbers, got {found}")
    return torch.tensor(numbers, dtype=torch.float32).reshape(len(table), len(columns))


def _as_labels(texts: Sequence[str]) -> np.ndarray:
    """Labels as texts; or as floats, targets, if all are numbers and one has a decimal point."""
    if any("." in text for text in texts):
        try:
            return np.array([float(text) for text in texts])
        except ValueError:
            pass
    return np.array(texts)
