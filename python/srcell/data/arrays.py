"""``from_arrays`` and ``as_dataset``: data sets from arrays of samples and their labels or targets.

Readers of one's own data and training call this file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .._shared.arguments import as_float, as_int, describe
from .._shared.labels import IGNORED
from ..events import EventBatch
from .dataset import Dataset, LabelledSequences, Samples
from .sounds import in_order

HELD_OUT = 0.2
# The samples of a part: the values of each, (S, K), and their labels.
Pair: TypeAlias = tuple[list[Tensor], Any]


def from_arrays(
    x: Any,
    y: Any,
    x_test: Any = None,
    y_test: Any = None,
    *,
    test: float = HELD_OUT,
    seed: int = 0,
) -> Dataset:
    """Make a data set from sequences of real numbers and their labels or targets.

    Args:
        x: (B, S, K), or (B, S) for K = 1, a tensor or an array; or a list of B arrays (S, K) or (S,), which may differ
            in S.
        y: labels (B,): integers, bools or texts, which are numbered in order; or of every element, (B, S) or a list of
            B arrays (S,), with ``IGNORED``, -100, where an element has none. Or targets, of floats: (B,), (B, C), or of
            every element (B, S, C) or a list of B arrays (S, C).
        x_test: samples for the test, as ``x``; without them a part of ``x`` is held out.
        y_test: their labels or targets.
        test: the fraction of the samples that is held out, drawn by ``seed``.
        seed: as said.

    Returns:
        A ``Dataset`` of ``LabelledSequences``, with the names of the classes unless they are 0 to C-1.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: shapes that do not fit each other, no sample, fewer than two classes, a number that is not finite, a
            label of the test that no training sample has, or ``test`` outside (0, 1).

    Example:
        >>> import numpy as np
        >>> recordings = [np.random.rand(steps, 3) for steps in (5, 8, 7, 6)]
        >>> dataset = from_arrays(recordings, ["up", "down", "up", "down"], recordings[:1], ["up"])
        >>> dataset.train, dataset.class_names
        (LabelledSequences(values of shape (4, 8, 3), with lengths), ('down', 'up'))

    """
    if (x_test is None) != (y_test is None):
        raise ValueError("y_test: expected labels together with x_test, got one without the other")
    parts = [(as_sequences("x", x), y)]
    if x_test is not None:
        parts.append((as_sequences("x_test", x_test), y_test))
    return joined(parts, test, seed)


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


def joined(parts: Sequence[Pair], test: float = HELD_OUT, seed: int = 0) -> Dataset:
    """The data set of one or two parts; a single one is divided."""
    inputs = sorted({values.shape[1] for x, _ in parts for values in x})
    if len(inputs) > 1:
        raise ValueError(f"x: expected as many inputs in all samples, got {', '.join(map(str, inputs))}")
    found = [_arrays(f"y{'_test' if k else ''}", y, x) for k, (x, y) in enumerate(parts)]
    labels, classes = _numbered(found)
    samples = [_padded(x, numbers) for (x, _), numbers in zip(parts, labels, strict=True)]
    return divided(samples, classes, (inputs[0], 1, 1), test, seed)


def divided(
    samples: Sequence[Samples],
    classes: tuple[str, ...] | int,
    shape: tuple[int, int, int],
    test: float = HELD_OUT,
    seed: int = 0,
) -> Dataset:
    """The data set of the samples of one part, of which some are held out, or of two.

    ``classes`` are the names, or the number of classes or values.
    """
    train, *held_out = samples
    number_of, names = (classes, ()) if isinstance(classes, int) else (len(classes), classes)
    if not train.labels.is_floating_point() and number_of < 2:
        raise ValueError(f"y: expected at least two classes, got {names[0] if names else number_of}")
    count = len(train.labels)
    if not held_out:
        share = as_float("test", test)
        number = round(share * count) if 0 < share < 1 else 0
        if not 0 < number < count:
            raise ValueError(
                f"test: expected a fraction that leaves samples to train on and to test on, got {test} of {count}"
            )
        order = torch.randperm(count, generator=torch.Generator().manual_seed(as_int("seed", seed, 2**63 - 1)))
        train, held_out = train.select(order[number:].sort().values), [train.select(order[:number].sort().values)]
    return Dataset(train, held_out[0], number_of, shape, names)


def as_sequences(name: str, x: Any) -> list[Tensor]:
    """The samples as tensors (S, K), float32."""
    if isinstance(x, EventBatch):
        raise TypeError(f"{name}: expected real numbers, got an EventBatch: make a Dataset of LabelledEvents")
    if not isinstance(x, Iterable) or isinstance(x, str | bytes | dict) or getattr(x, "ndim", 1) == 0:
        raise TypeError(f"{name}: expected an array (B, S, K) or a list of arrays (S, K), got {describe(x)}")
    found = []
    for k, values in enumerate(x):
        try:
            array = values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
            if array.is_complex():
                raise TypeError("complex numbers")
            sample = array.to(torch.float32)
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


def _arrays(name: str, y: Any, x: list[Tensor]) -> list[np.ndarray]:
    """The label or target of each sample: texts or integers, (), or (S,); or floats, (C,), or (S, C)."""
    if isinstance(y, str | bytes) or not isinstance(y, Iterable) or getattr(y, "ndim", 1) == 0:
        raise TypeError(f"{name}: expected labels (B,) or targets, got {describe(y)}")
    try:
        each = [np.asarray(label.detach().cpu() if isinstance(label, Tensor) else label) for label in y]
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected integers or texts, or floats as targets, got {error}") from None
    if len(each) != len(x):
        raise ValueError(f"{name}: expected a label or a target for each of {len(x)} samples, got {len(each)}")
    wrong = next((array for array in each if array.dtype.kind not in "biufU"), None)
    if wrong is not None:
        raise TypeError(f"{name}: expected integers or texts, or floats as targets, got {wrong.dtype}")
    targets = any(array.dtype.kind == "f" for array in each)
    each = [np.atleast_1d(array) if targets else array for array in each]
    for k, (label, values) in enumerate(zip(each, x, strict=True)):
        every = label.ndim == 1 + targets
        if label.ndim > 1 + targets or (every and len(label) != len(values)) or 0 in label.shape:
            raise ValueError(
                f"{name}: expected one label or target, or one for each of {len(values)} elements, in sample {k}, got "
                f"shape {label.shape}"
            )
        if label.ndim != each[0].ndim or (targets and label.shape[-1] != each[0].shape[-1]):
            raise ValueError(f"{name}: expected all labels alike, got shapes {each[0].shape} and {label.shape}")
    return each


def _numbered(parts: Sequence[list[np.ndarray]]) -> tuple[list[Tensor], tuple[str, ...] | int]:
    """Labels or targets of each part as a tensor; and the names of the classes, or their number, or that of values."""
    kinds = [{array.dtype.kind for array in arrays} for arrays in parts]
    targets = ["f" in kind for kind in kinds]
    if len(set(targets)) > 1 or any("f" in kind and kind & {"U"} for kind in kinds):
        raise TypeError("y: expected labels, integers or texts, or targets, floats, got both")
    if len({arrays[0].ndim for arrays in parts}) > 1:
        raise ValueError("y_test: expected labels of samples or of every element, as y has, got the other")
    if targets[0]:
        found = [_stacked([torch.from_numpy(array.astype(np.float32)) for array in arrays]) for arrays in parts]
        if not all(values.isfinite().all() for values in found):
            raise ValueError("y: expected finite targets, got NaN or an infinity")
        if len(sizes := {values.shape[-1] for values in found}) > 1:
            raise ValueError(f"y_test: expected as many values as in y, got {sizes}")
        return found, sizes.pop()
    texts = [[[str(int(x)) if x.dtype == bool else str(x) for x in a.ravel()] for a in p] for p in parts]
    without = {str(IGNORED)} if parts[0][0].ndim else set()
    classes = in_order({text for array in texts[0] for text in array} - without)
    number = {name: k for k, name in enumerate(classes)} | dict.fromkeys(without, IGNORED)
    unknown = next((text for arrays in texts for array in arrays for text in array if text not in number), None)
    if unknown is not None:
        raise ValueError(f"y_test: expected labels of the training samples, got {unknown!r}")
    labels = [
        _stacked([torch.tensor([number[x] for x in text]).reshape(a.shape) for text, a in zip(t, p, strict=True)])
        for t, p in zip(texts, parts, strict=True)
    ]
    plain = classes == tuple(map(str, range(len(classes))))
    return labels, len(classes) if plain else classes


def _stacked(each: list[Tensor]) -> Tensor:
    """(B, ...), padded by 0 where samples differ in length."""
    return pad_sequence(each, batch_first=True) if each[0].dim() else torch.stack(each)


def _padded(x: list[Tensor], labels: Tensor) -> LabelledSequences:
    lengths = torch.tensor([len(values) for values in x])
    same = bool((lengths == lengths[0]).all())
    return LabelledSequences(pad_sequence(x, batch_first=True), labels, None if same else lengths)
