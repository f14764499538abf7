"""Small data sets in the formats of their files: writers for the tests of the readers and for fuzzing them."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from srcell.data import Dataset, load_dvs_gesture, load_mnist, load_nmnist, load_shd, load_ssc


def idx_file(array: np.ndarray) -> bytes:
    """An array of bytes as MNIST stores images and labels."""
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def nmnist_file(events: Iterable[tuple[int, int, int, int]]) -> bytes:
    """Events (x, y, polarity, microseconds), five bytes each."""
    return b"".join(bytes([x, y]) + (t | polarity << 23).to_bytes(3, "big") for x, y, polarity, t in events)


COUNTS = {"train": 60, "t10k": 10}


def write_mnist(folder: Path, *, zipped: bool = True) -> dict[str, np.ndarray]:
    """Write the four files; return their arrays by name."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in COUNTS.items():
        arrays[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = random.integers(0, 10, count, np.uint8)
    for name, array in arrays.items():
        content = idx_file(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


def write_nmnist(folder: Path) -> None:
    pytest.importorskip("tonic", reason='pip install "srcell[nmnist]"')
    recordings = {
        "3/00002": [(1, 2, 1, 0), (1, 2, 1, 999), (33, 33, 0, 1000)],
        "0/1": [(0, 0, 0, 5200), (0, 0, 1, 5300)],
    }
    for part in ("Train", "Test"):
        for name, events in recordings.items():
            path = folder / part / f"{name}.bin"
            path.parent.mkdir(parents=True)
            path.write_bytes(nmnist_file(events))


def write_cochlea_file(
    path: Path,
    labels: Sequence[int] = (3, 0),
    times: Sequence[Sequence[float]] = ((0.0, 0.0005, 0.009, 0.0101), (0.002,)),
    units: Sequence[Sequence[int]] = ((699, 5, 5, 0), (12,)),
) -> None:
    """A file in the format of SHD and SSC: per recording, times (seconds, half precision) and channels."""
    h5py: Any = pytest.importorskip("h5py", reason='pip install "srcell[nmnist]"')
    with h5py.File(path, "w") as file:
        for key, dtype, vectors in (("times", np.float16, times), ("units", np.uint16, units)):
            arrays = np.empty(len(vectors), object)
            arrays[:] = [np.array(vector, dtype) for vector in vectors]
            file.create_dataset(f"spikes/{key}", data=arrays, dtype=h5py.vlen_dtype(dtype))
        file["labels"] = np.array(labels)
        file["extra/keys"], file["extra/speaker"] = np.zeros(20), np.zeros(len(times))  # tonic reads them


def write_cochlea(name: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "test"):
        write_cochlea_file(folder / f"{name}_{part}.h5")


def write_gestures(folder: Path) -> None:
    """Files as tonic extracts them: one row (x, y, polarity, milliseconds) per event."""
    rows = np.array([[0, 0, 0, 0], [3, 3, 0, 4], [127, 4, 1, 5], [127, 4, 1, 31]], np.float64)
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        for name, content in {"user02_led/10": rows, "user01_lab/4": rows[:3]}.items():
            path = folder / part / f"{name}.npy"
            path.parent.mkdir(parents=True)
            np.save(path, content)


class Format(NamedTuple):
    """A data set's reader, a function that writes small files into a folder, and the name of one of the files."""

    load: Callable[..., Dataset]
    write: Callable[[Path], object]
    file: str


FORMATS = {
    "mnist": Format(load_mnist, lambda root: write_mnist(root / "mnist"), "mnist/train-images-idx3-ubyte.gz"),
    "nmnist": Format(load_nmnist, write_nmnist, "Train/3/00002.bin"),
    "shd": Format(load_shd, partial(write_cochlea, "shd"), "shd_train.h5"),
    "ssc": Format(load_ssc, partial(write_cochlea, "ssc"), "ssc_train.h5"),
    "dvs128-gesture": Format(load_dvs_gesture, write_gestures, "ibmGestureTrain/user02_led/10.npy"),
}
