"""Spoken digits and words (SHD, SSC) and gestures in front of an event camera (DVS128 Gesture); downloaded by tonic.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError

import numpy as np

from .._arguments import as_int, as_positive
from .._extras import extra
from ..events import EventBatch
from ..events.checks import MAX_STEPS
from .dataset import Dataset, LabelledEvents
from .faults import fault_of

CHANNELS = 700  # of the artificial cochlea
SHD_CLASSES, SSC_CLASSES, GESTURES = 20, 35, 11
SENSOR = 128  # pixels in each direction


def load_shd(root: str | Path, *, bin_width: float = 4.0, prefix: int = 0, download: bool = False) -> Dataset:
    """Load the Spiking Heidelberg Digits: spoken digits, English and German, as spikes of 700 channels of a cochlea.

    Each recording has its own length, about 250 steps of 4 ms. Several events of one channel in a bin count once.

    Args:
        root: the folder that holds ``shd_train.h5`` and ``shd_test.h5``, or ``SHD`` with these in it.
        bin_width: duration of a step, in ms.
        prefix: silent steps before the first bin.
        download: let tonic download missing files into ``root``.

    Returns:
        A ``Dataset`` of recordings (T, B, 700) of twenty classes, 8,156 for training and 2,264 for testing.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is corrupt; the message names it. Or ``bin_width`` or ``prefix`` is outside its range.
        ImportError: tonic is not installed.

    Source: B. Cramer et al., "The Heidelberg spiking data sets for the systematic evaluation of spiking neural
    networks", arXiv 1910.07407.

    Example:
        >>> load_shd("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no SHD in no-such-folder: expected shd_train.h5 there or in SHD there; name another...

    """
    return _load_cochlea("SHD", root, bin_width, prefix, download)


def load_ssc(root: str | Path, *, bin_width: float = 4.0, prefix: int = 0, download: bool = False) -> Dataset:
    """Load the Spiking Speech Commands: 35 words as spikes of 700 channels of a cochlea.

    Arguments and errors are as for ``load_shd``; the files are ``ssc_train.h5``, ``ssc_test.h5``. The published
    validation samples, ``ssc_valid.h5``, are not read: training draws its own from the training samples.

    Example:
        >>> load_ssc("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no SSC in no-such-folder: expected ssc_train.h5 there or in SSC there; name another...

    """
    return _load_cochlea("SSC", root, bin_width, prefix, download)


def load_dvs_gesture(
    root: str | Path, *, bin_width: float = 10.0, pooling: int = 4, prefix: int = 0, download: bool = False
) -> Dataset:
    """Load DVS128 Gesture as tonic preprocessed it: eleven gestures of hands and arms in front of an event camera.

    Each recording has its own length, about 600 steps of 10 ms. Several events of one input in a bin count once.

    Args:
        root: the folder that holds ``ibmGestureTrain`` and ``ibmGestureTest``, or ``DVSGesture`` with these in it. Each
            of the two has a folder per user and lighting, with an .npy file per gesture, named by the gesture's label.
        bin_width: duration of a step, in ms.
        pooling: pixels per input in each direction; a divisor of 128.
        prefix: silent steps before the first bin.
        download: let tonic download missing files into ``root``.

    Returns:
        A ``Dataset`` of recordings (T, B, 2 * (128 / pooling)^2), in the order of folders and labels.

    Raises:
        FileNotFoundError: a folder is missing or holds no recording.
        ValueError: a file is corrupt; the message names it. Or an argument is outside its range.
        ImportError: tonic is not installed.

    Source: A. Amir et al., "A low power, fully event-based gesture recognition system", CVPR 2017.

    Example:
        >>> load_dvs_gesture("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no DVSGesture in no-such-folder: expected ibmGestureTrain there or in DVSGesture...

    """
    bin_width, prefix = as_positive("bin_width", bin_width), as_int("prefix", prefix, MAX_STEPS)
    pooling = as_int("pooling", pooling, SENSOR, minimum=1)
    if SENSOR % pooling:
        raise ValueError(f"pooling: expected a divisor of {SENSOR}, got {pooling}")
    if download:
        with extra("nmnist"):
            from tonic import datasets
        for train in (True, False):
            datasets.DVSGesture(str(root), train=train)
    folder, size = _find("DVSGesture", Path(root), "ibmGestureTrain"), SENSOR // pooling
    parts = []
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        paths = sorted((folder / part).glob("*/*.npy"))
        if not paths:
            raise FileNotFoundError(f"{folder / part}: no recordings, expected .npy files in folders there")
        labels = [_gesture_label(path) for path in paths]
        parts.append(LabelledEvents.of([_gesture(path, bin_width, pooling, size, prefix) for path in paths], labels))
    return Dataset(parts[0], parts[1], GESTURES, (2, size, size))


def gesture_classes() -> tuple[str, ...]:
    """The names of the gestures, by label."""
    with extra("nmnist"):
        from tonic.datasets import DVSGesture

    return tuple(DVSGesture.classes)


def _load_cochlea(name: str, root: str | Path, bin_width: float, prefix: int, download: bool) -> Dataset:
    bin_width, prefix = as_positive("bin_width", bin_width), as_int("prefix", prefix, MAX_STEPS)
    if download:
        with extra("nmnist"):
            from tonic import datasets
        for part in ("train", "test"):
            getattr(datasets, name)(str(root), **({"train": part == "train"} if name == "SHD" else {"split": part}))
    folder = _find(name, Path(root), f"{name.lower()}_train.h5")
    classes = SHD_CLASSES if name == "SHD" else SSC_CLASSES
    train, test = (
        _read_cochlea(folder / f"{name.lower()}_{part}.h5", classes, bin_width, prefix) for part in ("train", "test")
    )
    return Dataset(train, test, classes, (1, 1, CHANNELS))


def _read_cochlea(path: Path, classes: int, bin_width: float, prefix: int) -> LabelledEvents:
    with extra("nmnist"):
        import h5py

    if not path.exists():
        raise FileNotFoundError(f"{path} is not there: download the data set again")
    try:
        with h5py.File(path) as file:
            labels = _whole("labels", file["labels"][()])
            batches = list(_cochlea_batches(file["spikes/times"], file["spikes/units"], bin_width, prefix))
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise fault_of(error, path, "delete it and download it again") from error
    if not len(labels) or len(labels) != len(batches):
        raise ValueError(f"{path}: corrupt (expected a label for each of {len(batches)} recordings, got {len(labels)})")
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise ValueError(f"{path}: corrupt (expected labels 0 to {classes - 1}, got {wrong}): download it again")
    return LabelledEvents.of(batches, labels.tolist())


def _cochlea_batches(times: np.ndarray, units: np.ndarray, bin_width: float, prefix: int) -> Iterator[EventBatch]:
    """Yield a batch of one for each recording, from its times in seconds and its channels."""
    for seconds, channels in zip(times[()], units[()], strict=True):
        yield EventBatch.from_events(
            np.asarray(seconds, np.float64) * 1000,
            indices=_whole("units", channels),
            inputs=CHANNELS,
            bin_width=bin_width,
            prefix=prefix,
        )


def _gesture_label(path: Path) -> int:
    if path.stem not in map(str, range(GESTURES)):
        raise ValueError(f"{path}: expected a name from 0.npy to {GESTURES - 1}.npy, the label: extract it again")
    return int(path.stem)


def _gesture(path: Path, bin_width: float, pooling: int, size: int, prefix: int) -> EventBatch:
    """Read the recording of a file, which has a row (x, y, polarity, time in ms) per event."""
    try:
        with open(path, "rb") as file:
            events = np.lib.format.read_array(file, allow_pickle=False)
        if events.ndim != 2 or events.shape[1] != 4 or not np.can_cast(events.dtype, np.float64):
            raise ValueError(f"expected rows of four numbers, got {events.dtype} of shape {events.shape}")
        x, y, polarity = (_whole(name, events[:, k]) for k, name in enumerate(("x", "y", "polarity")))
        # Events are checked before pooling, which would move some from outside the sensor to the inside.
        for name, values, end in (("x", x, SENSOR), ("y", y, SENSOR), ("polarity", polarity, 2)):
            if len(values) and not 0 <= values.min() <= values.max() < end:
                raise ValueError(f"expected {name} in [0, {end}), got {values.min()} to {values.max()}")
        return EventBatch.from_events(
            np.asarray(events[:, 3], np.float64),
            x=x // pooling,
            y=y // pooling,
            polarity=polarity,
            bin_width=bin_width,
            sensor_size=(size, size),
            prefix=prefix,
        )
    except (ValueError, OSError, EOFError, SyntaxError, TokenError) as error:  # the last two come from a corrupt header
        raise fault_of(error, path, "extract it again") from error


def _whole(name: str, numbers: np.ndarray) -> np.ndarray:
    """Convert a list of whole numbers of any type to int64."""
    if np.ndim(numbers) != 1 or numbers.dtype.kind not in "biuf":
        raise ValueError(f"expected {name} to be a list of numbers, got {numbers!r:.80}")
    whole = numbers.astype(np.int64)
    if (whole != numbers).any():
        raise ValueError(f"expected {name} to be whole numbers, got {numbers[whole != numbers][0]}")
    return whole


def _find(name: str, root: Path, file: str) -> Path:
    for folder in (root, root / name):
        if (folder / file).exists():
            return folder
    raise FileNotFoundError(
        f"no {name} in {root}: expected {file} there or in {name} there; name another root, or download it"
    )
