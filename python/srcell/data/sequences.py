"""Sequences to classify: digits read row by row or pixel by pixel, Japanese Vowels, and delayed recall.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .dataset import Dataset, LabelledImages, LabelledSequences
from .encodings import RecallEncoding
from .files import find_folder
from .images import load_mnist

PERMUTATION_SEED = 0
VOWEL_FOLDERS = ("JapaneseVowels", "japanese-vowels")
COEFFICIENTS, SPEAKERS = 12, 9
RECALL_SAMPLES = (64_000, 2_000)
SOURCE = "get it from https://timeseriesclassification.com"


def load_row_mnist(root: str | Path, *, download: bool = False) -> Dataset:
    """Load MNIST row by row: sequences of 28 elements, each a row of 28 pixels in [0, 1].

    Arguments and errors are as for ``load_mnist``.

    Example:
        >>> load_row_mnist("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no MNIST in no-such-folder: expected the folder MNIST/raw or mnist there...

    """
    return _read(load_mnist(root, download=download), lambda images: images)


def load_pixel_mnist(root: str | Path, *, permuted: bool = False, download: bool = False) -> Dataset:
    """Load MNIST pixel by pixel: sequences of 784 elements in [0, 1].

    Args:
        root: as in ``load_mnist``.
        permuted: read the pixels of all images in the same random order, drawn with seed 0.
        download: as in ``load_mnist``.

    Errors are as for ``load_mnist``.

    Source: Q. V. Le, N. Jaitly, G. E. Hinton, "A simple way to initialize recurrent networks of rectified linear
    units", arXiv 1504.00941; their permutation is not published.

    """
    dataset = load_mnist(root, download=download)
    order = torch.arange(dataset.input_size)
    if permuted:
        order = torch.randperm(dataset.input_size, generator=torch.Generator().manual_seed(PERMUTATION_SEED))
    return _read(dataset, lambda images: images.flatten(1)[:, order, None])


def load_japanese_vowels(root: str | Path) -> Dataset:
    """Load Japanese Vowels: nine speakers to tell apart; 7 to 29 elements per sequence, 12 cepstral coefficients each.

    There are 270 utterances for training and 370 for testing. The values are standardised: each coefficient has mean 0
    and standard deviation 1 over all elements of the training set.

    Args:
        root: the folder that holds ``JapaneseVowels`` or ``japanese-vowels`` with ``JapaneseVowels_TRAIN.ts`` and
            ``JapaneseVowels_TEST.ts`` in it, as https://timeseriesclassification.com offers them.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is corrupt; the message names it and the line.

    Source: M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification using passing-through regions",
    Pattern Recognition Letters 20 (1999).

    Example:
        >>> load_japanese_vowels("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no Japanese Vowels in no-such-folder: expected the folder JapaneseVowels or ...

    """
    expected = f"the folder {' or '.join(VOWEL_FOLDERS)} there"
    folder = find_folder("Japanese Vowels", Path(root), VOWEL_FOLDERS, (), expected, SOURCE)
    train, test = (_read_series(folder / f"JapaneseVowels_{part}.ts") for part in ("TRAIN", "TEST"))
    elements = torch.cat([values for values, _ in train])
    mean, deviation = elements.mean(0), elements.std(0).clamp(min=torch.finfo(torch.float32).tiny)
    parts = [
        LabelledSequences(
            pad_sequence([(values - mean) / deviation for values, _ in part], batch_first=True),
            torch.tensor([label for _, label in part]),
            torch.tensor([len(values) for values, _ in part]),
        )
        for part in (train, test)
    ]
    return Dataset(parts[0], parts[1], SPEAKERS, (COEFFICIENTS, 1, 1))


def load_delayed_recall() -> Dataset:
    """Generate delayed recall: which of eight symbols was shown before a delay? No file is read.

    The samples are the symbols as images (B, 1, 25), 1 at the symbol's input. ``RecallEncoding`` shows the symbols,
    adds a delay filled with noise, and then a cue after which a network must answer. 64,000 samples are for training,
    2,000 for testing, with equally many of each symbol.
    """
    parts = []
    for count in RECALL_SAMPLES:
        labels = torch.arange(count) % RecallEncoding.SYMBOLS
        images = torch.nn.functional.one_hot(labels, RecallEncoding.INPUTS).float()
        parts.append(LabelledImages(images[:, None], labels))
    return Dataset(parts[0], parts[1], RecallEncoding.SYMBOLS, (1, 1, RecallEncoding.INPUTS))


def _read(dataset: Dataset, elements: Callable[[Tensor], Tensor]) -> Dataset:
    """Convert a data set of images to sequences; ``elements`` maps the images to values (B, S, K)."""
    parts = []
    for samples in (dataset.train, dataset.test):
        assert isinstance(samples, LabelledImages)
        parts.append(LabelledSequences(elements(samples.images), samples.labels))
    return Dataset(parts[0], parts[1], dataset.num_classes, (parts[0].values.shape[2], 1, 1))


def _read_series(path: Path) -> list[tuple[Tensor, int]]:
    """Read the samples of a .ts file: values (S, 12) and label.

    After ``@data`` each line is a sample: commas separate the values of a coefficient, colons separate the coefficients
    and, at the end of the line, the label, 1 to 9.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there: {SOURCE}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: corrupt ({error}): {SOURCE}") from None
    started, samples = False, []
    for number, line in enumerate(lines, start=1):
        if started and line.strip():
            try:
                samples.append(_parse(line))
            except ValueError as error:
                raise ValueError(f"{path}: corrupt, line {number} ({error}): {SOURCE}") from None
        started = started or line.strip().lower() == "@data"
    if not samples:
        raise ValueError(f"{path}: corrupt or truncated (no sample after a line '@data'): {SOURCE}")
    return samples


def _parse(line: str) -> tuple[Tensor, int]:
    *coefficients, label = line.strip().split(":")
    if len(coefficients) != COEFFICIENTS:
        raise ValueError(f"expected {COEFFICIENTS} coefficients and a label, got {len(coefficients)}")
    if label not in map(str, range(1, SPEAKERS + 1)):
        raise ValueError(f"expected a label from 1 to {SPEAKERS}, got {label[:20]!r}")
    rows = [[float(value) for value in row.split(",")] for row in coefficients]
    values = torch.tensor(rows).T  # a ValueError if the rows differ in length
    if not values.isfinite().all():
        raise ValueError("expected finite values")
    return values.contiguous(), int(label) - 1
