"""Minimal files of data sets."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import pytest


def write_idx(folder: Path, train: tuple[int, ...], test: tuple[int, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, shape in (("train", train), ("t10k", test)):
        images = struct.pack(">4I", 0x803, *shape) + bytes(math.prod(shape))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, shape[0]) + bytes(shape[0]))


def write_recordings(folder: Path) -> Path:
    """Recordings of N-MNIST. Tests that need them are skipped where tonic, which reads them, is not installed."""
    pytest.importorskip("tonic", reason='pip install "srcell[nmnist]"')
    for name in ("Train/3/a.bin", "Train/7/b.bin", "Test/0/c.bin"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes([1, 2, 0, 0, 5, 2, 3, 128, 9, 9]))
    return folder / "Train/3/a.bin"
