"""N-MNIST, the digits of MNIST recorded with an event camera; read and downloaded by tonic.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._arguments import as_int
from .._extras import extra
from .._files import write_atomically
from ..events import EventBatch
from ..events.checks import MAX_STEPS
from .dataset import Dataset, LabelledEvents
from .faults import fault_of

CLASSES = 10
POLARITIES, HEIGHT, WIDTH = 2, 34, 34
EVENT_BYTES = 5
MICROSECONDS_A_STEP = 1000
CACHE_FORMAT = 1
# An event with y = OVERFLOW marks an overflow of the time stamps, at 2^13 microseconds. Valid recordings, a third of a
# second long, have no overflows.
OVERFLOW, MOST_OVERFLOWS = 240, 1000


def load_nmnist(root: str | Path, *, prefix: int = 20, download: bool = False, cache: bool = False) -> Dataset:
    """Load N-MNIST in bins of 1 ms: whole recordings of 34 x 34 pixels and two polarities, each with its own length.

    Several events of one pixel and polarity in a bin count once.

    Args:
        root: the folder that holds ``Train`` and ``Test``, or ``NMNIST`` or ``nmnist`` with these in it. ``Train`` and
            ``Test`` each have one folder of .bin files per label.
        prefix: silent steps before the first bin.
        download: let tonic download missing files into ``root``.
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
        with extra("nmnist"):
            from tonic import datasets

        for train in (True, False):
            datasets.NMNIST(str(root), train=train)
    for folder in (root, root / "NMNIST", root / "nmnist"):
        if (folder / "Train").is_dir() and (folder / "Test").is_dir():
            break
    else:
        raise FileNotFoundError(
            f"no N-MNIST in {root}: expected the folders Train and Test there, or in NMNIST or nmnist there; "
            "name another root, or download it"
        )
    training, test = (_load_part(folder / part, prefix, cache) for part in ("Train", "Test"))
    return Dataset(training, test, CLASSES, (POLARITIES, HEIGHT, WIDTH))


def _load_part(folder: Path, prefix: int, cache: bool) -> LabelledEvents:
    paths = [path for label in range(CLASSES) for path in sorted((folder / str(label)).glob("*.bin"))]
    if not paths:
        raise FileNotFoundError(f"{folder}: no recordings, expected .bin files in {folder / '0'} and so on")
    if not cache:
        return _bin_all(paths, prefix)
    path = folder.with_name(f"{folder.name.lower()}-{MICROSECONDS_A_STEP}us-prefix{prefix}.safetensors")
    stamp = _stamp(folder, paths)
    found = _read_cache(path, stamp)
    if found is None:
        found = _bin_all(paths, prefix)
        try:
            _write_cache(path, stamp, found)
        except OSError as error:
            warnings.warn(f"{path}: the cache was not written ({error}): the next call bins again", stacklevel=4)
    return found


def _bin_all(paths: list[Path], prefix: int) -> LabelledEvents:
    batches = [_read_recording(path, prefix) for path in paths]
    return LabelledEvents.of(batches, [int(path.parent.name) for path in paths])


def _read_recording(path: Path, prefix: int) -> EventBatch:
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
        return EventBatch.from_events(
            np.ascontiguousarray(events["t"]),
            x=np.ascontiguousarray(events["x"]),
            y=np.ascontiguousarray(events["y"]),
            polarity=np.ascontiguousarray(events["p"]),
            bin_width=MICROSECONDS_A_STEP,
            sensor_size=(HEIGHT, WIDTH),
            prefix=prefix,
        )
    except ValueError as error:
        raise fault_of(error, path, "extract it again") from error


def _stamp(folder: Path, paths: list[Path]) -> str:
    """A hash of all recordings' names, sizes and modification times, independent of the folder's own path."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(json.dumps([str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns]).encode())
    return f"{CACHE_FORMAT}-{digest.hexdigest()}"


def _read_cache(path: Path, stamp: str) -> LabelledEvents | None:
    """The content of the cache, or None if it is absent, corrupt or made from other recordings."""
    with extra("train"):
        from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, Any] = file.metadata() or {}
            if metadata.get("stamp") != stamp:
                return None
            tensors = {name: file.get_tensor(name) for name in ("offsets", "indices", "lengths", "labels")}
        shape = json.loads(metadata["shape"])
        events = EventBatch(tensors["offsets"], tensors["indices"], shape=shape, lengths=tensors["lengths"])
    except (SafetensorError, ValueError, TypeError, KeyError, OSError, RecursionError):
        return None
    labels = tensors["labels"]
    if labels.dtype != torch.int64 or labels.shape != (len(events),) or events.shape[2] != POLARITIES * HEIGHT * WIDTH:
        return None
    return LabelledEvents(events, labels) if bool(((labels >= 0) & (labels < CLASSES)).all()) else None


def _write_cache(path: Path, stamp: str, part: LabelledEvents) -> None:
    with extra("train"):
        from safetensors.torch import save

    events = part.events
    assert events.lengths is not None
    tensors = {
        "offsets": events.offsets,
        "indices": events.indices,
        "lengths": events.lengths,
        "labels": part.labels,
    }
    metadata = {"stamp": stamp, "shape": json.dumps(events.shape)}
    write_atomically(path, save(tensors, metadata))
