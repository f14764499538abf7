"""Sounds with labels: ``LabelledSounds``, and ``read_wav``, which reads a WAV file at a chosen sampling rate.

Functions that load data sets of sounds call this file.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
import struct
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .._shared.arguments import as_int
from .._shared.extras import extra

# Sampling rates in Hz. The bounds limit what a corrupt header can cost at 8 kHz: 8 samples for each sample of the file,
# and a resampling filter of 61 MB, for which SciPy needs 350 MB and two seconds.
LOWEST_RATE, HIGHEST_RATE = 1000, 384_000
# Recordings may exceed full scale a little. Floats larger than this were not scaled to [-1, 1].
LOUDEST = 16.0
# What SciPy's parser may raise, besides ValueError, for a corrupt header.
CORRUPT = (struct.error, TypeError, LookupError, ArithmeticError, UnboundLocalError)
COLUMNS = ("file", "label")
Labels: TypeAlias = str | Path | Mapping[str, str | int] | Callable[[Path], str | int] | None


class LabelledSounds(NamedTuple):
    """B sounds with their class labels.

    Attributes:
        waves: (B, S), float32 in [-1, 1]; 0 past the end of a shorter sound.
        labels: (B,), int64 in 0..num_classes-1.
        lengths: (B,), int64 in 1..S, number of samples of each sound; None if all have S.
        rate: sampling rate, samples per second.

    Example:
        >>> sounds = LabelledSounds(torch.zeros(2, 800), torch.tensor([0, 1]), torch.tensor([800, 500]))
        >>> sounds
        LabelledSounds(waves of shape (2, 800), 8000 Hz, with lengths)
        >>> sounds.select(torch.tensor([1])).waves.shape
        torch.Size([1, 500])

    """

    waves: Tensor
    labels: Tensor
    lengths: Tensor | None = None
    rate: int = 8000

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", with lengths"
        return f"LabelledSounds(waves of shape {tuple(self.waves.shape)}, {self.rate} Hz{lengths})"

    @classmethod
    def of(cls, waves: Sequence[Tensor], labels: Sequence[int], rate: int) -> LabelledSounds:
        """Join sounds (at least one, each a tensor (S,)) of one sampling rate."""
        lengths = torch.tensor([len(wave) for wave in waves])
        same = bool((lengths == lengths[0]).all())
        return cls(pad_sequence(list(waves), batch_first=True), torch.tensor(labels), None if same else lengths, rate)

    @classmethod
    def from_folder(
        cls, folder: str | Path, labels: Labels = None, *, rate: int = 8000
    ) -> tuple[LabelledSounds, tuple[str, ...]]:
        """Read the WAV files of a folder and of the folders in it, in the order of their paths.

        Files and folders whose names begin with a dot are skipped.

        Args:
            folder: the folder.
            labels: where the labels come from. None: a file's name up to the first "_" (or its end), such as "yes" for
                yes_12.wav. A function of a file's path, such as ``lambda path: path.parent.name``. A mapping from names
                of files, relative to ``folder``, to labels. Or the path of a CSV file with the columns "file" and
                "label". With a mapping or a CSV file, only the files that it names are read.
            rate: sampling rate of the result; files of other rates are resampled.

        Returns:
            The sounds and the names of the classes, by label: sorted, numerically if all are integers.

        Raises:
            FileNotFoundError: the folder or a file is missing, or there is no WAV file.
            ValueError: a file cannot be read as in ``read_wav``, or has no label or two; or a row of the CSV file is
                invalid.
            TypeError: ``labels`` or a label has a wrong type.
            ImportError: scipy is not installed.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from scipy.io import wavfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     for name, samples in (("yes_1.wav", 900), ("no_1.wav", 800), ("no_2.wav", 700)):
            ...         wavfile.write(f"{folder}/{name}", 8000, np.zeros(samples, np.int16))
            ...     sounds, names = LabelledSounds.from_folder(folder)
            >>> names, sounds.labels.tolist(), sounds.lengths.tolist()
            (('no', 'yes'), [0, 0, 1], [800, 700, 900])

        """
        label_of = _labels_of(Path(folder), labels)
        names = in_order(set(label_of.values()))
        number = {name: k for k, name in enumerate(names)}
        waves = [read_wav(path, rate) for path in label_of]
        return cls.of(waves, [number[label] for label in label_of.values()], rate), names

    def select(self, index: Tensor) -> LabelledSounds:
        """The sounds with the given numbers, in that order; S becomes the largest of their lengths."""
        lengths = None if self.lengths is None else self.lengths[index]
        return self._replace(waves=self.waves[index, : longest(lengths)], labels=self.labels[index], lengths=lengths)


def longest(lengths: Tensor | None) -> int | None:
    """The largest of the lengths of samples, None for samples without lengths."""
    return None if lengths is None else max(lengths.tolist(), default=0)


def read_wav(path: str | Path, rate: int = 8000) -> Tensor:
    """Read a WAV file as one channel at the given sampling rate.

    Integer samples of 8 to 64 bits are scaled from their full range to [-1, 1]; floats are not scaled. Channels are
    averaged. A file of another rate is resampled by SciPy's ``resample_poly``; from a higher rate to 8 kHz, frequencies
    up to about 3 kHz keep their amplitude and those above 5 kHz are removed. Values beyond [-1, 1] are clipped. Other
    contents of the file, such as titles and markers, are ignored.

    Args:
        path: the file.
        rate: sampling rate of the result, 1,000 to 384,000 Hz.

    Returns:
        A tensor (S,), S >= 1, float32 in [-1, 1].

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a WAV file of integers or floats, is truncated, holds no samples, NaN or infinity,
            floats beyond 16 or a sampling rate outside the range of ``rate`` (the message begins with the path); or
            ``rate`` is outside its range.
        ImportError: scipy is not installed.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from scipy.io import wavfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     wavfile.write(f"{folder}/a.wav", 8000, np.array([[16384, 0], [-32768, -32768]], np.int16))
        ...     read_wav(f"{folder}/a.wav")
        tensor([ 0.2500, -1.0000])

    """
    with extra("train"):
        from scipy.signal import resample_poly

    rate = as_int("rate", rate, HIGHEST_RATE, minimum=LOWEST_RATE)
    content = Path(path).read_bytes()
    try:
        found, samples = _decode(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if found != rate:
        common = math.gcd(found, rate)
        samples = resample_poly(samples, rate // common, found // common)
    return torch.from_numpy(np.clip(samples, -1, 1).astype(np.float32))


class _Content(io.BytesIO):
    """The content of a file: SciPy's parser accepts data that end too early, and would return fewer samples."""

    ID = 4  # bytes of a chunk's name; the parser reads one at the end of a file, to see that there is none

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        if size is not None and len(found) < size and size > self.ID:
            raise ValueError(f"truncated: expected {size} bytes in a chunk, got {len(found)}")
        return found


def _decode(content: bytes) -> tuple[int, np.ndarray]:
    """The sampling rate of a WAV file and its samples (S,), float64, the mean over the channels."""
    with extra("train"):
        from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            # The parser warns of chunks that it does not know, and of a size in the header that is too large.
            warnings.simplefilter("ignore")
            rate, samples = wavfile.read(_Content(content))
    except ValueError as error:
        raise ValueError(
            f"cannot be read as WAV ({error})" if content else "expected a WAV file, got an empty one"
        ) from error
    except CORRUPT as error:
        raise ValueError("cannot be read as WAV (its header is corrupt, or it has no samples)") from error
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise ValueError(f"expected a sampling rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {rate}")
    if not samples.size:
        raise ValueError("expected at least one sample, got none")
    scaled = _scaled(samples)
    return rate, scaled if scaled.ndim == 1 else scaled.mean(1)


def _scaled(samples: np.ndarray) -> np.ndarray:
    """Samples as float64; the range of integers becomes [-1, 1]."""
    if samples.dtype.kind in "ui":
        silence = 128 if samples.dtype.kind == "u" else 0  # unsigned samples have 8 bits
        return (samples.astype(np.float64) - silence) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    if samples.dtype.itemsize not in (4, 8):
        raise ValueError(f"expected floats of 32 or 64 bits, got {8 * samples.dtype.itemsize}")
    if not np.isfinite(samples).all():
        raise ValueError("expected finite samples, got NaN or infinity")
    largest = float(np.abs(samples).max())
    if largest > LOUDEST:
        raise ValueError(f"expected floats in [-1, 1], got {largest:g}")
    return samples.astype(np.float64)


def _labels_of(folder: Path, labels: Labels) -> dict[Path, str]:
    """The label of each file to read, in the order of their paths."""
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: expected a folder of WAV files, found none")
    if isinstance(labels, str | Path):
        labels = _read_table(Path(labels))
    found: dict[Path, str | int] = {}
    if isinstance(labels, Mapping):
        for name, label in labels.items():
            if not isinstance(name, str | Path):
                raise TypeError(f"labels: expected names of files in {folder}, got {type(name).__name__}")
            path = folder / name
            if not os.path.isfile(path):  # False, too, for names that no file can have
                raise FileNotFoundError(f"{path} is not there, but has a label")
            if path in found:  # "./a.wav" beside "a.wav"
                raise ValueError(f"{path}: expected one label, got two")
            found[path] = label
    elif labels is None or callable(labels):
        found = {path: label_in_name(path) if labels is None else labels(path) for path in _wav_files(folder)}
    else:
        raise TypeError(f"labels: expected a path, a mapping or a function for {folder}, got {type(labels).__name__}")
    if not found:
        raise FileNotFoundError(f"{folder}: expected at least one WAV file with a label, found none")
    for path, label in found.items():
        if not isinstance(label, str | int) or isinstance(label, bool):
            raise TypeError(f"labels: expected a str or an int for {path}, got {type(label).__name__}")
        if label == "":
            raise ValueError(f"{path}: expected a label, got an empty one")
    return {path: str(found[path]) for path in sorted(found)}


def _wav_files(folder: Path) -> list[Path]:
    paths = (path for path in folder.rglob("*") if path.suffix.lower() == ".wav" and path.is_file())
    return [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]


def label_in_name(path: Path) -> str:
    """The label of a file such as yes_1.wav."""
    return path.stem.partition("_")[0]


def in_order(names: set[str]) -> tuple[str, ...]:
    """Class names in ascending order, numerically if all are integers."""
    integers = all(re.fullmatch(r"-?[0-9]{1,18}", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name), name) if integers else (0, name)))


def _read_table(path: Path) -> dict[str, str]:
    """Read a CSV file with the columns "file" and "label", in any order and among others."""
    labels: dict[str, str] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            if not set(COLUMNS) <= set(columns):
                raise ValueError(f"expected the columns {' and '.join(COLUMNS)} in its first line, got {columns!r:.80}")
            for row in rows:
                name, label = (row[column] for column in COLUMNS)
                if not name or not label:
                    raise ValueError(f"line {rows.line_num}: expected a file and its label, got {[name, label]!r:.80}")
                if name in labels:
                    raise ValueError(f"line {rows.line_num}: expected one label for each file, got another for {name}")
                labels[name] = label
    except (ValueError, csv.Error) as error:  # also bytes that are not UTF-8
        raise ValueError(f"{path}: {error}") from error
    return labels
