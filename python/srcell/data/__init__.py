"""Data sets by name, and loaders that turn their samples into batches of events.

Training and the command line use this package.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

from torch.utils.data import default_collate

from .._shared.arguments import check_known, describe
from .._shared.extras import extra
from .._shared.labels import IGNORED
from ..events import EventBatch
from .arrays import from_arrays
from .cochlea import SoundEncoding
from .dataset import Dataset, LabelledEvents, LabelledImages, LabelledSequences, Samples, of_every_step
from .encodings import CameraEncoding, HeldEncoding, LatencyEncoding, RateEncoding, RecallEncoding
from .generated import load_adding, load_intervals
from .images import load_digits, load_fashion_mnist, load_mnist
from .loader import EventLoader
from .own import is_own, load_once, load_own
from .recordings import load_dvs_gesture, load_nmnist, load_shd, load_ssc
from .sequences import load_delayed_recall, load_japanese_vowels, load_pixel_mnist, load_row_mnist
from .signals import LETTERS, PARTS, load_braille, load_qtdb
from .sounds import LabelledSounds, read_wav
from .spoken_digits import load_spoken_digits

__all__ = [
    "IGNORED",
    "NAMES",
    "RECORDED",
    "SEQUENTIAL",
    "SOUNDS",
    "CameraEncoding",
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
    "from_arrays",
    "load",
    "load_adding",
    "load_braille",
    "load_delayed_recall",
    "load_digits",
    "load_dvs_gesture",
    "load_fashion_mnist",
    "load_intervals",
    "load_japanese_vowels",
    "load_mnist",
    "load_nmnist",
    "load_pixel_mnist",
    "load_qtdb",
    "load_row_mnist",
    "load_shd",
    "load_spoken_digits",
    "load_ssc",
    "read_wav",
]

SEQUENTIAL = ("seqmnist-rows", "seqmnist", "psmnist", "japanese-vowels", "braille")
"""The data sets among ``NAMES`` that are sequences of real numbers; ``HeldEncoding`` encodes them."""

RECORDED = ("nmnist", "dvs128-gesture", "shd", "ssc", "qtdb", "qtdb-labelled", "intervals", "adding")
"""The data sets among ``NAMES`` that are recordings of events; the last two are generated, in the same form."""

SOUNDS = ("spoken-digits",)
"""The data sets among ``NAMES`` that are sounds; ``SoundEncoding`` encodes them."""

LOADERS: dict[str, Callable[..., Dataset]] = {
    "digits": load_digits,
    "mnist": load_mnist,
    "fashion-mnist": load_fashion_mnist,
    "seqmnist-rows": load_row_mnist,
    "seqmnist": load_pixel_mnist,
    "psmnist": partial(load_pixel_mnist, permuted=True),
    "japanese-vowels": load_japanese_vowels,
    "braille": load_braille,
    "delayed-recall": load_delayed_recall,
    "nmnist": load_nmnist,
    "dvs128-gesture": load_dvs_gesture,
    "shd": load_shd,
    "ssc": load_ssc,
    "qtdb": load_qtdb,
    "qtdb-labelled": partial(load_qtdb, labelled=True),
    "intervals": load_intervals,
    "adding": load_adding,
    "spoken-digits": load_spoken_digits,
}

NAMED = {"qtdb": PARTS, "qtdb-labelled": PARTS, "braille": LETTERS}

NAMES = tuple(LOADERS)
"""The names that ``load`` accepts. The data sets that are neither sequential nor recorded nor sounds are images."""


def load(
    name: str | Path, root: str | Path = "data", *, download: bool = False, cache: bool = False, prefix: int = 20
) -> Dataset:
    """Load a data set by name, or one of your own.

    Args:
        name: one of ``NAMES``: "digits", "mnist", "fashion-mnist"; as sequences "seqmnist-rows", "seqmnist" (pixel by
            pixel), "psmnist" (permuted pixels), "japanese-vowels", "braille"; "delayed-recall"; and the recordings
            "nmnist", "dvs128-gesture", "shd", "ssc", "qtdb", "qtdb-labelled", "intervals", "adding"; and the sounds
            "spoken-digits". Or a data set of your own: ``FILE.py:FUNCTION``, a function that returns a ``Dataset``, or
            what ``from_arrays`` takes, as a tuple; or a folder, ``FOLDER/``, of WAV files, CSV files or .npz files, as
            the page "My own data" says.
        root: the folder that holds the files; see the function of the data set, such as ``load_mnist``. The digits come
            with scikit-learn; delayed recall, intervals and adding are generated.
        download: download missing files into ``root``; not for Japanese Vowels, Braille and QTDB. A download that was
            cut goes on where it ended, and what came is checked.
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
    name = os.fspath(name)
    check_name(name)
    if is_own(name):
        return load_own(name)
    loader = LOADERS[name]
    options = {"root": root, "download": download, "cache": cache, "prefix": prefix}
    loaded = loader(**{option: options[option] for option in signature(loader).parameters if option in options})
    with suppress(ImportError):  # the package that has the names
        return loaded._replace(class_names=class_names(name))
    return loaded


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
    if name in NAMED:
        return NAMED[name]
    if name == "dvs128-gesture":
        with extra("nmnist"):
            from tonic.datasets import DVSGesture

        return tuple(DVSGesture.classes)
    if name == "fashion-mnist":
        with extra("train"):
            from torchvision.datasets import FashionMNIST

        return tuple(FashionMNIST.classes)
    return ()


def check_name(name: str) -> None:
    """Raise unless a name is one of ``NAMES``, or one of a data set of the user's own, which may not be there.

    Raises:
        ValueError: the name is none of them; the message suggests a similar one.

    """
    if is_own(name):
        return
    if name not in NAMES and os.path.isfile(name):  # False for names that no file can have
        own = f"{name}:FUNCTION" if name.endswith(".py") else "the folder that it is in"
        raise ValueError(f"unknown data set {name!r}, a file: expected {own}")
    check_known(name, NAMES, "data set")


def kind(name: str) -> str:
    """The kind of a data set's samples: "images", "sequences", "events" or "sounds"; one's own is loaded for it."""
    if is_own(name):
        kinds_of = {LabelledSequences: "sequences", LabelledEvents: "events", LabelledSounds: "sounds"}
        return kinds_of.get(type(load_once(name).train), "images")
    kinds = {"sequences": SEQUENTIAL, "events": RECORDED, "sounds": SOUNDS}
    return next((kind for kind, names in kinds.items() if name in names), "images")


def forecasts(name: str) -> bool:
    """Whether one's own data set, which is loaded, has targets of every step."""
    labels = load_once(name).train.labels
    return labels.is_floating_point() and of_every_step(labels)


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
