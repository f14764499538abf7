"""Data sets by name, and loaders that turn their samples into batches of events.

Training and the command line use this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import default_collate

from .._arguments import check_known, describe
from ..events import EventBatch
from .adding import load_adding
from .cochlea import SoundEncoding
from .dataset import Dataset, LabelledEvents, LabelledImages, LabelledSequences, Samples
from .digits import load_digits
from .encodings import HeldEncoding, LatencyEncoding, RateEncoding, RecallEncoding
from .images import fashion_mnist_classes, load_fashion_mnist, load_mnist
from .intervals import load_intervals
from .loader import EventLoader
from .nmnist import load_nmnist
from .recordings import gesture_classes, load_dvs_gesture, load_shd, load_ssc
from .sequences import load_delayed_recall, load_japanese_vowels, load_pixel_mnist, load_row_mnist
from .sounds import LabelledSounds, read_wav
from .spoken_digits import load_spoken_digits

__all__ = [
    "NAMES",
    "RECORDED",
    "SEQUENTIAL",
    "SOUNDS",
    "Dataset",
    "EventLoader",
    "HeldEncoding",
    "LabelledEvents",
    "LabelledImages",
    "LabelledSequences",
    "LabelledSounds",
    "LatencyEncoding",
    "RateEncoding",
    "RecallEncoding",
    "Samples",
    "SoundEncoding",
    "check_name",
    "class_names",
    "collate",
    "load",
    "load_adding",
    "load_delayed_recall",
    "load_digits",
    "load_dvs_gesture",
    "load_fashion_mnist",
    "load_intervals",
    "load_japanese_vowels",
    "load_mnist",
    "load_nmnist",
    "load_pixel_mnist",
    "load_row_mnist",
    "load_shd",
    "load_spoken_digits",
    "load_ssc",
    "read_wav",
]

SEQUENTIAL = ("seqmnist-rows", "seqmnist", "psmnist", "japanese-vowels")
"""The data sets among ``NAMES`` that are sequences of real numbers; ``HeldEncoding`` encodes them."""

RECORDED = ("nmnist", "dvs128-gesture", "shd", "ssc", "intervals", "adding")
"""The data sets among ``NAMES`` that are recordings of events; the last three are generated, in the same form."""

SOUNDS = ("spoken-digits",)
"""The data sets among ``NAMES`` that are sounds; ``SoundEncoding`` encodes them."""

NAMES = ("digits", "mnist", "fashion-mnist", *SEQUENTIAL, "delayed-recall", *RECORDED, *SOUNDS)
"""The names that ``load`` accepts. The data sets that are neither sequential nor recorded nor sounds are images."""


def load(
    name: str, root: str | Path = "data", *, download: bool = False, cache: bool = False, prefix: int = 20
) -> Dataset:
    """Load a data set by name.

    Args:
        name: one of ``NAMES``: "digits", "mnist", "fashion-mnist"; as sequences "seqmnist-rows", "seqmnist" (pixel by
            pixel), "psmnist" (permuted pixels), "japanese-vowels"; "delayed-recall"; and the recordings "nmnist",
            "dvs128-gesture", "shd", "ssc", "intervals", "adding"; and the sounds "spoken-digits".
        root: the folder that holds the files; see the function of the data set, such as ``load_mnist``. The digits come
            with scikit-learn; delayed recall, intervals and adding are generated.
        download: download missing files into ``root``; not for Japanese Vowels.
        cache: for N-MNIST, as in ``load_nmnist``.
        prefix: for recordings, as in ``load_nmnist``.

    Raises:
        ValueError: there is no data set of that name (the message suggests a similar name), or a file is corrupt.
        FileNotFoundError: the files are not in ``root``.
        ImportError: the data set needs a package that is not installed.

    Example:
        >>> load("digits").num_classes
        10
        >>> load("digit")
        Traceback (most recent call last):
        ValueError: unknown data set 'digit': did you mean 'digits'?

    """
    check_name(name)
    if name == "mnist":
        return load_mnist(root, download=download)
    if name == "fashion-mnist":
        return load_fashion_mnist(root, download=download)
    if name == "seqmnist-rows":
        return load_row_mnist(root, download=download)
    if name in ("seqmnist", "psmnist"):
        return load_pixel_mnist(root, permuted=name == "psmnist", download=download)
    if name == "japanese-vowels":
        return load_japanese_vowels(root)
    if name == "delayed-recall":
        return load_delayed_recall()
    if name == "nmnist":
        return load_nmnist(root, prefix=prefix, download=download, cache=cache)
    if name == "dvs128-gesture":
        return load_dvs_gesture(root, prefix=prefix, download=download)
    if name in ("shd", "ssc"):
        return (load_shd if name == "shd" else load_ssc)(root, prefix=prefix, download=download)
    if name == "intervals":
        return load_intervals(prefix=prefix)
    if name == "adding":
        return load_adding(prefix=prefix)
    if name == "spoken-digits":
        return load_spoken_digits(root, download=download)
    if name != "digits":
        raise AssertionError(f"{name} is in NAMES, and nothing loads it")
    return load_digits()


def class_names(name: str) -> tuple[str, ...]:
    """The names of a data set's classes, by label; empty if the labels name themselves, as for digits.

    Raises:
        ValueError: there is no such data set.
        ImportError: the data set needs a package that is not installed.

    Example:
        >>> class_names("fashion-mnist")[:3]
        ('T-shirt/top', 'Trouser', 'Pullover')
        >>> class_names("digits")
        ()

    """
    check_name(name)
    if name == "dvs128-gesture":
        return gesture_classes()
    return fashion_mnist_classes() if name == "fashion-mnist" else ()


def check_name(name: str, names: Sequence[str] = NAMES, what: str = "data set") -> None:
    """Raise unless a name is one of ``names``.

    Raises:
        ValueError: the name is none of them; the message suggests a similar one.

    """
    check_known(name, names, what)


def collate(samples: Sequence[tuple[EventBatch, Any]]) -> tuple[EventBatch, Any]:
    """Join samples of event recordings into a batch: a ``collate_fn`` for ``torch.utils.data.DataLoader``.

    Args:
        samples: pairs of an ``EventBatch`` of one sample and its label; the batches may differ in T.

    Returns:
        The batch of all samples, with the largest T among them, and with lengths if some are shorter; and the labels,
        joined by torch's ``default_collate``: (B,), int64 for ints.

    Raises:
        TypeError: an element of ``samples`` is not such a pair.
        ValueError: no pair, a batch that is not of one sample, or batches that differ in K or device.

    Example:
        >>> import torch
        >>> recordings = [EventBatch.from_dense(torch.ones(steps, 1, 2)) for steps in (3, 5)]
        >>> batch, labels = collate([(recordings[0], 7), (recordings[1], 1)])
        >>> batch.shape, batch.lengths.tolist(), labels.tolist()
        ((5, 2, 2), [3, 5], [7, 1])

    """
    for k, sample in enumerate(samples):
        if not (isinstance(sample, tuple | list) and len(sample) == 2 and isinstance(sample[0], EventBatch)):
            pair = isinstance(sample, tuple | list) and len(sample) == 2
            got = f"a pair of {describe(sample[0])} and a label" if pair else describe(sample)
            wrap = ": EventBatch.from_dense(x[:, None]) makes one of a tensor (T, K)" if pair else ""
            raise TypeError(f"samples: expected pairs of an EventBatch and a label, got {got} at {k}{wrap}")
        if len(sample[0]) != 1:
            raise ValueError(f"samples: expected batches of one sample, got one of {len(sample[0])} at {k}")
    if not samples:
        raise ValueError("samples: expected at least one pair, got none")
    batches, labels = zip(*samples, strict=True)
    return EventBatch.cat(batches, steps=max(batch.shape[0] for batch in batches)), default_collate(list(labels))
