"""Recordings that others publish on: the parts of a heartbeat (QTDB), and Braille letters by touch.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._shared.arguments import as_int
from .._shared.extras import extra
from .._shared.labels import IGNORED
from ..events import EventBatch
from ..events.checks import MAX_STEPS
from .dataset import Dataset, LabelledEvents, LabelledSequences
from .files import fault_of, find_folder

CHANNELS = 4
PARTS = ("P", "PQ", "QR", "RS", "ST", "TP")  # of a heartbeat
UNLABELLED = 255  # in qtdb.npz
QTDB_SOURCE = (
    "get QTDB_train.mat and QTDB_test.mat from https://github.com/byin-cwi/Efficient-spiking-networks (data/ and "
    "NMI_vis/ecg/)"
)

LETTERS = ("space", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
TAXELS = (1, 2, 6, 10)  # of twelve; the others never change
RESTING, SCALE = 255.0, 16.0
HELD_OUT, SPLIT_SEED = 0.2, 0
BRAILLE_SOURCE = "get it from https://doi.org/10.5281/zenodo.6556273"


def load_qtdb(root: str | Path, *, labelled: bool = False, prefix: int = 0) -> Dataset:
    """Load heartbeats of the QT Database as events, with the part of the heartbeat at each of 1,301 steps.

    The events are level crossings in two leads: four channels of -1, 0 and 1, and an input for each sign of each of
    them. Of these eight inputs 4 % are active. The
    classes are P, PQ, QR, RS, ST and TP.

    Args:
        root: the folder that holds ``qtdb`` or ``QTDB``, or is it, with ``QTDB_train.mat`` and ``QTDB_test.mat`` in it;
            or ``qtdb.npz`` with ``train_events``, ``test_events`` (B, 1301, 4), int8 of -1, 0 and 1, and
            ``train_label``, ``test_label`` (B, 1301), uint8, 255 for none.
        labelled: leave steps without a label (8 % in training, 10 % in test) out of losses and accuracies. Without it
            they are of class P, as in what is published on these files.
        prefix: silent steps before the recording, without a label.

    Returns:
        A ``Dataset`` of recordings (prefix + 1301, B, 8), 618 for training and 141 for testing, with a label for each
        step.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is corrupt; the message names it. Or ``prefix`` is outside its range.
        ImportError: SciPy is not installed, for the .mat files.

    Source: P. Laguna et al., "A database for evaluation of algorithms for measurement of QT and other waveform
    intervals in the ECG", Computers in Cardiology 24 (1997); encoded by B. Yin, F. Corradi, S. M. Bohté, "Accurate and
    efficient time-domain classification with adaptive spiking recurrent neural networks", Nature Machine Intelligence
    3 (2021).

    Example:
        >>> load_qtdb("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no QTDB in no-such-folder: expected QTDB_train.mat and QTDB_test.mat, or qtdb.npz, there...

    """
    root, prefix = Path(root), as_int("prefix", prefix, MAX_STEPS)
    folders = ("", "qtdb", "QTDB")
    if single := next((path for name in folders if (path := root / name / "qtdb.npz").is_file()), None):
        parts = [_read_npz(single, part) for part in ("train", "test")]
    else:
        files = ("QTDB_train.mat", "QTDB_test.mat")
        expected = "QTDB_train.mat and QTDB_test.mat, or qtdb.npz, there or in qtdb or QTDB there"
        folder = find_folder("QTDB", root, folders, files, expected, QTDB_SOURCE)
        parts = [_read_mat(folder / file) for file in files]
    train, test = (_heartbeats(*part, labelled, prefix) for part in parts)
    return Dataset(train, test, len(PARTS), (2 * CHANNELS, 1, 1))


def load_braille(root: str | Path) -> Dataset:
    """Load Braille letters read by touch: 76 steps of four taxels of a simulated sensor, space and A to Z.

    50 recordings of each of the 27 classes, of which a fifth, drawn by a fixed seed, is for testing. Only four
    of the twelve taxels ever change; a value is how far a taxel lies below its resting value, 255, divided by 16.

    Args:
        root: the folder that holds ``braille``, or is it, with ``braille.npz`` in it: ``taxels`` (1350, 76, 12), uint8,
            and ``label`` (1350,).

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: the file is corrupt.

    Source: S. F. Müller-Cleve et al., "Braille letter reading: A benchmark for spatio-temporal pattern recognition on
    neuromorphic hardware", Frontiers in Neuroscience 16 (2022).

    Example:
        >>> load_braille("no-such-folder")
        Traceback (most recent call last):
        FileNotFoundError: no Braille letters in no-such-folder: expected braille.npz there or in braille there; ...

    """
    expected = "braille.npz there or in braille there"
    folder = find_folder("Braille letters", Path(root), ("", "braille"), ("braille.npz",), expected, BRAILLE_SOURCE)
    path = folder / "braille.npz"
    found = _arrays(path, {"taxels": (3, 12), "label": (1, None)})
    taxels, labels = found["taxels"], torch.from_numpy(found["label"].astype(np.int64))
    if len(labels) != len(taxels) or not len(labels) or int(labels.max()) >= len(LETTERS) or int(labels.min()) < 0:
        raise ValueError(f"{path}: corrupt (expected a label from 0 to {len(LETTERS) - 1} for each of {len(taxels)})")
    values = torch.from_numpy((RESTING - taxels[:, :, TAXELS].astype(np.float32)) / SCALE)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    samples, count = LabelledSequences(values, labels), round(HELD_OUT * len(labels))
    parts = [samples.select(order[at].sort().values) for at in (slice(count, None), slice(count))]
    return Dataset(parts[0], parts[1], len(LETTERS), (len(TAXELS), 1, 1))


def _read_npz(path: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """The events (B, T, 4) and the labels (B, T), ``IGNORED`` where there is none."""
    found = _arrays(path, {f"{part}_events": (3, CHANNELS), f"{part}_label": (2, None)})
    events, given = found[f"{part}_events"], found[f"{part}_label"].astype(np.int64)
    return _checked(path, events, np.where(given == UNLABELLED, IGNORED, given))


def _read_mat(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """As ``_read_npz``; labels are 1 at their class, and nowhere 1 where there is none."""
    with extra("train"):
        from scipy.io import loadmat

    try:
        found: dict[str, Any] = loadmat(path, variable_names=("x", "y"))
        events, one_hot = found["x"], found["y"]
        if one_hot.ndim != 3 or one_hot.shape[2] != len(PARTS):
            raise ValueError(f"expected y of shape (B, T, {len(PARTS)}), got {one_hot.shape}")
    except Exception as error:  # SciPy raises errors of many kinds for a corrupt file
        raise fault_of(error, path, QTDB_SOURCE) from error
    return _checked(path, events, np.where(one_hot.any(2), one_hot.argmax(2), IGNORED))


def _arrays(path: Path, wanted: dict[str, tuple[int, int | None]]) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name, of the given number of dimensions and size of the last one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in wanted}
        for name, (dimensions, size) in wanted.items():
            array = found[name]
            if array.ndim != dimensions or array.dtype.kind not in "iu" or size not in (None, array.shape[-1]):
                raise ValueError(
                    f"expected {name} of {dimensions} dimensions, integers, got {array.dtype} {array.shape}"
                )
        return found
    except Exception as error:  # NumPy and zipfile raise errors of many kinds for a corrupt file
        raise fault_of(error, path, "get it again") from error


def _checked(path: Path, events: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if events.ndim != 3 or events.shape[2] != CHANNELS or events.shape[:2] != labels.shape or not events.size:
        raise ValueError(f"{path}: corrupt (expected events (B, T, {CHANNELS}) and labels, got {events.shape})")
    if not np.isin(events, (-1, 0, 1)).all() or not np.isin(labels, (IGNORED, *range(len(PARTS)))).all():
        raise ValueError(f"{path}: corrupt (expected events of -1, 0 and 1, and labels 0 to {len(PARTS) - 1})")
    return events, labels


def _heartbeats(events: np.ndarray, labels: np.ndarray, labelled: bool, prefix: int) -> LabelledEvents:
    polarities = np.concatenate([events > 0, events < 0], 2).transpose(1, 0, 2)
    spikes = np.pad(polarities, ((prefix, 0), (0, 0), (0, 0)))
    known = labels if labelled else np.maximum(labels, 0)
    of_steps = np.pad(known, ((0, 0), (prefix, 0)), constant_values=IGNORED)
    return LabelledEvents(EventBatch.from_dense(spikes), torch.from_numpy(of_steps.astype(np.int64)))
