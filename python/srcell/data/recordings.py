"""Recordings of event cameras (N-MNIST, DVS128 Gesture) and of an artificial cochlea (SHD, SSC), downloaded by tonic.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch

from .._shared.arguments import as_int, as_positive
from .._shared.extras import extra
from .._shared.files import write_atomically
from ..events import EventBatch
from ..events.checks import MAX_STEPS
from .dataset import Dataset, LabelledEvents
from .files import download_with_tonic, fault_of, find_folder

DIGITS, POLARITIES, HEIGHT, WIDTH = 10, 2, 34, 34  # of N-MNIST
EVENT_BYTES = 5
MICROSECONDS_A_STEP = 1000
CACHE_FORMAT = 1
# An event with y = OVERFLOW marks an overflow of the time stamps, at 2^13 microseconds. Valid recordings, a third of a
# second long, have no overflows.
OVERFLOW, MOST_OVERFLOWS = 240, 1000

CHANNELS = 700  # of the artificial cochlea
SHD_CLASSES, SSC_CLASSES, GESTURES = 20, 35, 11
SENSOR = 128  # pixels in each direction


def load_nmnist(root: str | Path, *, prefix: int = 20, download: bool = False, cache: bool = False) -> Dataset:
    """Load N-MNIST in bins of 1 ms: whole recordings of 34 x 34 pixels and two polarities, each with its own length.

    Several events of one pixel and polarity in a bin count once.

    Args:
        root: the folder that holds ``Train`` and ``Test``, or ``NMNIST`` or ``nmnist`` with these in it. ``Train`` and
            ``Test`` each have one folder of .bin files per label.
        prefix: silent steps before the first bin.
        download: download missing files into ``root``, from tonic's addresses, and let it unpack them.
        cache: store the binned recordings in a file beside ``Train`` and ``Test``, and read that file the next time. It
            is rewritten if a recording has changed. If the file cannot be written, the function warns.

    Returns:
        A ``Dataset`` of recordings (T, B, 2312), in the order of labels and file names, of ten classes.

    Raises:
        FileNotFoundError: a folder is missing, or holds no recording.
        ValueError: a file is corrupt; the message names it. Or ``prefix`` is outside its range.
        ImportError: tonic or safetensors is not installed.

    Source: G. Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades",
    Frontiers in Neuroscience 9 (2015).

    Example:
        >>> load_nmnist("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no N-MNIST in no-such-folder: expected the folders Train and Test there...

    """
    root, prefix = Path(root), as_int("prefix", prefix, MAX_STEPS)
    if download:
        download_with_tonic("NMNIST", root)
    expected = "the folders Train and Test there, or in NMNIST or nmnist there"
    folder = find_folder("N-MNIST", root, ("", "NMNIST", "nmnist"), ("Train", "Test"), expected)
    train, test = (_nmnist_part(folder / part, prefix, cache) for part in ("Train", "Test"))
    return Dataset(train, test, DIGITS, (POLARITIES, HEIGHT, WIDTH))


def load_shd(root: str | Path, *, bin_width: float = 4.0, prefix: int = 0, download: bool = False) -> Dataset:
    """Load the Spiking Heidelberg Digits: spoken digits, English and German, as spikes of 700 channels of a cochlea.

    Each recording has its own length, about 250 steps of 4 ms. Several events of one channel in a bin count once.

    Args:
        root: the folder that holds ``shd_train.h5`` and ``shd_test.h5``, or ``SHD`` with these in it.
        bin_width: duration of a step, in ms.
        prefix: silent steps before the first bin.
        download: download missing files into ``root``, from tonic's addresses, and let it unpack them.

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
    return _load_cochlea("SHD", SHD_CLASSES, root, bin_width, prefix, download)


def load_ssc(root: str | Path, *, bin_width: float = 4.0, prefix: int = 0, download: bool = False) -> Dataset:
    """Load the Spiking Speech Commands: 35 words as spikes of 700 channels of a cochlea.

    Arguments and errors are as for ``load_shd``; the files are ``ssc_train.h5``, ``ssc_test.h5``. The published
    validation samples, ``ssc_valid.h5``, are not read: training draws its own from the training samples.

    Example:
        >>> load_ssc("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no SSC in no-such-folder: expected ssc_train.h5 there or in SSC there; name another...

    """
    return _load_cochlea("SSC", SSC_CLASSES, root, bin_width, prefix, download)


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
        download: download missing files into ``root``, from tonic's addresses, and let it unpack them.

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
        download_with_tonic("DVSGesture", root)
    folder, size = _find("DVSGesture", root, "ibmGestureTrain"), SENSOR // pooling
    parts = []
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        paths = sorted((folder / part).glob("*/*.npy"))
        if not paths:
            raise FileNotFoundError(f"{folder / part}: no recordings, expected .npy files in folders there")
        labels = [_gesture_label(path) for path in paths]
        parts.append(LabelledEvents.of([_gesture(path, bin_width, pooling, size, prefix) for path in paths], labels))
    return Dataset(parts[0], parts[1], GESTURES, (2, size, size))


def _nmnist_part(folder: Path, prefix: int, cache: bool) -> LabelledEvents:
    paths = sorted(folder.glob("[0-9]/*.bin"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no recordings, expected .bin files in {folder / '0'} and so on")
    path = folder.with_name(f"{folder.name.lower()}-{MICROSECONDS_A_STEP}us-prefix{prefix}.safetensors")
    stamp = _stamp(folder, paths) if cache else ""
    found = _read_cache(path, stamp) if cache else None
    if found is not None:
        return found
    found = LabelledEvents.of([_digit(path, prefix) for path in paths], [int(path.parent.name) for path in paths])
    if cache:
        try:
            _write_cache(path, stamp, found)
        except OSError as error:
            warnings.warn(f"{path}: the cache was not written ({error}): the next call bins again", stacklevel=4)
    return found


def _digit(path: Path, prefix: int) -> EventBatch:
    with extra("nmnist"):
        from tonic.datasets import NMNIST
        from tonic.io import read_mnist_file

    size = path.stat().st_size
    if size == 0 or size % EVENT_BYTES:
        raise ValueError(
            f"{path}: corrupt or truncated ({size} bytes, not a multiple of {EVENT_BYTES}): extract it again"
        )
    # tonic needs time proportional to overflows * events.
    overflows = int(np.count_nonzero(np.fromfile(path, np.uint8)[1::EVENT_BYTES] == OVERFLOW))
    if overflows > MOST_OVERFLOWS:
        raise ValueError(f"{path}: corrupt ({overflows} overflows of time): extract it again")
    events = read_mnist_file(str(path), dtype=NMNIST.dtype)
    try:
        t, x, y, polarity = (events[name] for name in ("t", "x", "y", "p"))
        return EventBatch.from_events(
            t, x=x, y=y, polarity=polarity, bin_width=MICROSECONDS_A_STEP, sensor_size=(HEIGHT, WIDTH), prefix=prefix
        )
    except ValueError as error:
        raise fault_of(error, path, "extract it again") from error


def _stamp(folder: Path, paths: list[Path]) -> str:
    """A hash of all recordings' names, sizes and modification times, independent of the folder's own path."""
    files = ((str(path.relative_to(folder)), path.stat()) for path in paths)
    described = "".join(json.dumps([name, stat.st_size, stat.st_mtime_ns]) for name, stat in files)
    return f"{CACHE_FORMAT}-{hashlib.sha256(described.encode()).hexdigest()}"


def _read_cache(path: Path, stamp: str) -> LabelledEvents | None:
    """The content of the cache, or None if it is absent, corrupt or made from other recordings."""
    with extra("train"):
        from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            if metadata.get("stamp") != stamp:
                return None
            tensors = {name: file.get_tensor(name) for name in ("offsets", "indices", "lengths", "labels")}
        labels = tensors.pop("labels")
        events = EventBatch(**tensors, shape=json.loads(metadata["shape"]))
    except (SafetensorError, ValueError, TypeError, KeyError, OSError, RecursionError):
        return None
    if labels.dtype != torch.int64 or labels.shape != (len(events),) or events.shape[2] != POLARITIES * HEIGHT * WIDTH:
        return None
    return LabelledEvents(events, labels) if bool(((labels >= 0) & (labels < DIGITS)).all()) else None


def _write_cache(path: Path, stamp: str, part: LabelledEvents) -> None:
    with extra("train"):
        from safetensors.torch import save

    events = part.events
    tensors = {name: getattr(events, name) for name in ("offsets", "indices", "lengths")}
    metadata = {"stamp": stamp, "shape": json.dumps(events.shape)}
    write_atomically(path, save(tensors | {"labels": part.labels}, metadata))


def _load_cochlea(name: str, classes: int, root: str | Path, bin_width: float, prefix: int, download: bool) -> Dataset:
    bin_width, prefix = as_positive("bin_width", bin_width), as_int("prefix", prefix, MAX_STEPS)
    if download:
        download_with_tonic(name, root)
    folder = _find(name, root, f"{name.lower()}_train.h5")
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
            batches = []
            for seconds, units in zip(file["spikes/times"][()], file["spikes/units"][()], strict=True):
                times, indices = np.asarray(seconds, np.float64) * 1000, _whole("units", units)
                batches.append(
                    EventBatch.from_events(times, indices, inputs=CHANNELS, bin_width=bin_width, prefix=prefix)
                )
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise fault_of(error, path, "delete it and download it again") from error
    if not len(labels) or len(labels) != len(batches):
        raise ValueError(f"{path}: corrupt (expected a label for each of {len(batches)} recordings, got {len(labels)})")
    if labels.min() < 0 or labels.max() >= classes:
        wrong = labels[(labels < 0) | (labels >= classes)][0]
        raise ValueError(f"{path}: corrupt (expected labels 0 to {classes - 1}, got {wrong}): download it again")
    return LabelledEvents.of(batches, labels.tolist())


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
        for name, pixels in (("x", x), ("y", y)):
            if len(pixels) and not 0 <= pixels.min() <= pixels.max() < SENSOR:
                raise ValueError(f"expected {name} in [0, {SENSOR}), got {pixels.min()} to {pixels.max()}")
        times, x, y = np.asarray(events[:, 3], np.float64), x // pooling, y // pooling
        return EventBatch.from_events(
            times, x=x, y=y, polarity=polarity, bin_width=bin_width, sensor_size=(size, size), prefix=prefix
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


def _find(name: str, root: str | Path, file: str) -> Path:
    return find_folder(name, Path(root), ("", name), (file,), f"{file} there or in {name} there")
