"""The files of data sets: IDX images, N-MNIST, SHD, SSC and DVS128 Gesture. Each format has a function that writes
small files, and rows in the tables of faults, missing files and arguments.
"""

from __future__ import annotations

import errno
import gzip
import re
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from srcell import data
from srcell.data import Dataset, LabelledEvents, LabelledImages
from support.formats import (
    COUNTS,
    FORMATS,
    Format,
    idx_file,
    nmnist_file,
    write_cochlea,
    write_cochlea_file,
    write_gestures,
    write_mnist,
    write_nmnist,
)
from support.refusals import Refusal, refusals


def row(name: str, *values: Any) -> Any:
    """A row of a table: a format and values. The readers of events need packages of the extra nmnist."""
    return pytest.param(FORMATS[name], *values, id=name, marks=() if name == "mnist" else pytest.mark.landing)


every_format = pytest.mark.parametrize("format", [row(name) for name in FORMATS])


# Good files


@pytest.mark.parametrize(
    ("name", "folder", "zipped"),
    [
        ("mnist", "MNIST/raw", False),
        ("mnist", "mnist", True),
        ("fashion-mnist", "FashionMNIST/raw", True),
        ("fashion-mnist", "fashion-mnist", False),
    ],
)
def test_images_are_read(name: str, folder: str, zipped: bool, tmp_path: Path) -> None:
    arrays = write_mnist(tmp_path / folder, zipped=zipped)
    if not zipped:
        for array in arrays:  # a plain file takes precedence over its archive
            (tmp_path / folder / f"{array}.gz").write_bytes(b"no archive")
    dataset = data.load(name, tmp_path)
    for part, samples in zip(COUNTS, (dataset.train, dataset.test), strict=True):
        assert isinstance(samples, LabelledImages)
        assert samples.images.dtype == torch.float32 and samples.labels.dtype == torch.int64
        expected = torch.from_numpy(arrays[f"{part}-images-idx3-ubyte"]).float() / 255
        assert torch.equal(samples.images, expected)
        assert torch.equal(samples.labels, torch.from_numpy(arrays[f"{part}-labels-idx1-ubyte"]).long())
    assert dataset.num_classes == 10 and dataset.input_size == 784


# The (step, input) pairs of both recordings: words in bins of 4 ms, gestures in bins of 10 ms, pooled.
WORDS = [[(0, 5), (0, 699), (2, 0), (2, 5)], [(0, 12)]]
FAR = 32 * 32 + 32 + 31
GESTURES = [[(0, 0), (0, FAR)], [(0, 0), (0, FAR), (3, FAR)]]
PLANE = 34 * 34


def assert_recordings(dataset: Dataset, events: list[list[tuple[int, int]]]) -> None:
    """Assert that both parts have these events, and lengths that end with the last of them."""
    lengths = [recording[-1][0] + 1 for recording in events]
    for part in (dataset.train, dataset.test):
        assert isinstance(part, LabelledEvents) and part.events.lengths is not None
        assert part.events.lengths.tolist() == lengths
        assert part.events.shape == (max(lengths), 2, dataset.input_size)
        found = part.events.to_dense()
        assert [list(map(tuple, found[:, sample].nonzero().tolist())) for sample in range(2)] == events
        chosen = part.select(torch.tensor([1, 1]))
        assert chosen.events.shape[0] == lengths[1] and chosen.labels.tolist() == [int(part.labels[1])] * 2


@pytest.mark.landing
@pytest.mark.parametrize(
    ("name", "folder", "classes", "shape", "labels", "events"),
    [
        ("shd", "SHD", 20, (1, 1, 700), [3, 0], WORDS),
        ("ssc", ".", 35, (1, 1, 700), [3, 0], WORDS),
        ("dvs128-gesture", "DVSGesture", 11, (2, 32, 32), [4, 10], GESTURES),
        ("nmnist", "NMNIST", 10, (2, 34, 34), [0, 3], [[(5, 0), (5, PLANE)], [(0, PLANE + 69), (1, PLANE - 1)]]),
    ],
)
def test_recordings_are_binned_with_their_lengths(
    name: str, folder: str, classes: int, shape: tuple[int, ...], labels: list[int], events: Any, tmp_path: Path
) -> None:
    FORMATS[name].write(tmp_path / folder)
    dataset = data.load(name, tmp_path, prefix=0)
    assert dataset.num_classes == classes and dataset.input_shape == shape
    assert dataset.train.labels.tolist() == dataset.test.labels.tolist() == labels
    assert_recordings(dataset, events)


@pytest.mark.landing
def test_bin_width_prefix_and_pooling_change_steps_and_inputs(tmp_path: Path) -> None:
    write_cochlea("shd", tmp_path)
    words = data.load_shd(tmp_path, bin_width=1, prefix=2)
    assert_recordings(words, [[(2, 5), (2, 699), (11, 5), (12, 0)], [(4, 12)]])
    write_gestures(tmp_path)
    gestures, far = data.load_dvs_gesture(tmp_path, bin_width=5, pooling=1), 128 * 128 + 4 * 128 + 127
    assert gestures.input_shape == (2, 128, 128)
    assert_recordings(gestures, [[(0, 0), (0, 387), (1, far)], [(0, 0), (0, 387), (1, far), (6, far)]])


@pytest.mark.landing
def test_a_thousand_timer_overflows_give_a_long_recording(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    (tmp_path / "Train/0/1.bin").write_bytes(bytes([1, 240, 0, 0, 0]) * 1000 + bytes([3, 5, 0, 0, 7]))
    assert data.load_nmnist(tmp_path).train.events.shape[0] == 20 + 1000 * 8192 // 1000 + 1


# Files that cannot be read


def overwrite(path: Path, content: Any) -> None:
    """Write a file in the format of its path, from raw bytes, an array, or changed vectors of SHD."""
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        write_cochlea_file(path, **content)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(idx_file(content)))
    else:
        np.save(path, content)


@every_format
@pytest.mark.parametrize("kept", [0, 0.5])
def test_a_truncated_file_raises_an_error_that_begins_with_its_path(
    kept: float, format: Format, tmp_path: Path
) -> None:
    format.write(tmp_path)
    path = tmp_path / format.file
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=f"(?s)^{re.escape(str(path))}: corrupt or truncated .*(download|extract) it"):
        format.load(tmp_path)


# A header without the bracket at its end
BAD_HEADER = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1, 4), ".ljust(127) + b"\n" + bytes(32)
)
LABELS, WORD_FILE, GESTURE = "mnist/t10k-labels-idx1-ubyte.gz", "shd_train.h5", "ibmGestureTrain/user03_led/2.npy"
DIGIT = FORMATS["nmnist"].file


@pytest.mark.parametrize(
    ("format", "file", "content", "message"),
    [
        row("mnist", LABELS, b"no gzip", "corrupt or truncated .*download"),
        row("mnist", LABELS, gzip.compress(b"\0\0\7\1" + bytes(8)), "corrupt or truncated .*download"),
        row("mnist", LABELS, gzip.compress(b""), "corrupt or truncated .*download"),
        row("mnist", LABELS, np.zeros(9, np.uint8), "expected a label for each of the .*download"),
        row("mnist", LABELS, np.full(10, 11, np.uint8), "expected labels 0 to 9, got 11: download"),
        row("nmnist", DIGIT, bytes([40, 0, 0, 0, 0]), r"corrupt .*\(x: expected values in \[0, 34\), got 40"),
        row("nmnist", DIGIT, nmnist_file([(1, 1, 0, 9), (1, 1, 0, 1)]), r"corrupt or truncated \(times: expected"),
        # Regression: each overflow cost a pass over all events, hours in this file.
        row("nmnist", DIGIT, bytes([1, 240, 0, 0, 0]) * 2_000_000, r"corrupt \(2000000 overflows of time\)"),
        row("shd", WORD_FILE, {"units": ()}, "corrupt or truncated"),
        row("shd", WORD_FILE, {"labels": (3, 20)}, r"corrupt \(expected labels 0 to 19, got 20"),
        row("shd", WORD_FILE, {"labels": (3, 1.5)}, r"corrupt .*labels to be whole numbers, got 1\.5"),
        row("shd", WORD_FILE, {"labels": ((3,), (0,))}, "corrupt .*labels to be a list of numbers"),
        row("shd", WORD_FILE, {"labels": 3}, "corrupt .*labels to be a list of numbers"),
        row("shd", WORD_FILE, {"labels": (3,)}, r"corrupt \(expected a label for each of 2 recordings, got 1"),
        row("shd", WORD_FILE, {"units": ((699, 5, 5, 700), (12,))}, "corrupt .*indices: expected .*700"),
        row("shd", WORD_FILE, {"times": ((0.0, 0.1, 0.2, np.nan), (0.0,))}, "corrupt .*times: expected finite"),
        row("dvs128-gesture", GESTURE, b"PK\3\4 no archive", "corrupt .*magic string"),
        row("dvs128-gesture", GESTURE, BAD_HEADER, "corrupt"),
        row("dvs128-gesture", GESTURE, [[1.9, 0, 0, 0]], r"corrupt .*x to be whole numbers, got 1\.9"),
        row("dvs128-gesture", GESTURE, [[0, -0.5, 0, 0]], r"corrupt .*y to be whole numbers, got -0\.5"),
        row("dvs128-gesture", GESTURE, np.zeros((2, 3)), "corrupt .*expected rows of four numbers"),
        row("dvs128-gesture", GESTURE, [[128.0, 0, 0, 0]], r"corrupt .*expected x in \[0, 128\), got 128 to 128"),
        row("dvs128-gesture", GESTURE, [[0, -1, 0, 0]], r"corrupt .*expected y in \[0, 128\), got -1 to -1"),
        row("dvs128-gesture", GESTURE, [[0, 0, 2, 0]], r"corrupt .*polarity: expected values in \[0, 2\), got 2"),
        row("dvs128-gesture", GESTURE, [[0, 0, 0, 5], [0, 0, 0, 4]], "corrupt .*times: expected ascending values"),
        row("dvs128-gesture", GESTURE, [[None] * 4], "corrupt .*Object arrays cannot be loaded"),
        row("dvs128-gesture", GESTURE.replace("2.npy", "11.npy"), [[0] * 4], r"expected a name from 0\.npy to 10\.npy"),
    ],
)
def test_a_faulty_file_raises_an_error_that_begins_with_its_path(
    format: Format, file: str, content: Any, message: str, tmp_path: Path
) -> None:
    format.write(tmp_path)
    format.load(tmp_path)
    overwrite(tmp_path / file, content)
    with pytest.raises(ValueError, match=f"(?s)^{re.escape(str(tmp_path / file))}: {message}"):
        format.load(tmp_path)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    """Regression: the difference was found only at the end of training."""
    write_mnist(tmp_path / "mnist")
    overwrite(tmp_path / "mnist/t10k-images-idx3-ubyte.gz", np.zeros((10, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=f"^{re.escape(str(tmp_path))}.*expected images .* got 28 x 28 and 2 x 3"):
        data.load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("format", "missing", "message"),
    [
        row("mnist", "mnist/t10k-images-idx3-ubyte.gz", r".* is not there, nor t10k-images-idx3-ubyte\.gz: download"),
        row("mnist", "mnist", "no MNIST in .*: expected the folder MNIST/raw or mnist"),
        row("nmnist", "Test", "no N-MNIST in .*: expected the folders Train and Test there"),
        row("shd", "shd_test.h5", r".*shd_test\.h5 is not there"),
        row("shd", "shd_train.h5", r"no SHD in .*: expected shd_train\.h5 there"),
        row("dvs128-gesture", "ibmGestureTrain", "no DVSGesture in .*: expected ibmGestureTrain there"),
        row("nmnist", "Train/*/*.bin", ".*/Train: no recordings"),
        row("dvs128-gesture", "ibmGestureTest/*/*.npy", ".*/ibmGestureTest: no recordings"),
    ],
)
def test_a_missing_file_is_named_with_its_folder(format: Format, missing: str, message: str, tmp_path: Path) -> None:
    format.write(tmp_path)
    format.load(tmp_path)
    for path in list(tmp_path.glob(missing)):
        path.rename(path.with_name("fashion-mnist"))  # must not be mistaken for MNIST
    with pytest.raises(FileNotFoundError, match=f"^{message}") as error:
        format.load(tmp_path)
    assert str(tmp_path) in str(error.value)


@every_format
def test_a_file_without_read_permission_is_not_reported_as_corrupt(format: Format, tmp_path: Path) -> None:
    format.write(tmp_path)
    format.load(tmp_path)
    refused = PermissionError(errno.EACCES, "Permission denied", "file")
    opening = "h5py.File" if format.file.endswith(".h5") else "builtins.open"
    with mock.patch(opening, side_effect=refused), pytest.raises(PermissionError, match="Permission denied: 'file'"):
        format.load(tmp_path)


# Arguments of readers


@refusals(
    Refusal("prefix", lambda: data.load_shd(".", prefix=-1)),
    Refusal("prefix", lambda: data.load_dvs_gesture(".", prefix=2**31)),
    Refusal("prefix", lambda: data.load_nmnist(".", prefix=-1)),
    Refusal("prefix", lambda: data.load_nmnist(".", prefix=0.5), TypeError),  # type: ignore[arg-type]
    Refusal("bin_width", lambda: data.load_shd(".", bin_width=0)),
    Refusal("bin_width", lambda: data.load_shd(".", bin_width=float("inf"))),
    Refusal("bin_width", lambda: data.load_shd(".", bin_width=float("nan"))),
    Refusal("bin_width", lambda: data.load_dvs_gesture(".", bin_width=-1)),
    Refusal("pooling", lambda: data.load_dvs_gesture(".", pooling=3)),
    Refusal("pooling", lambda: data.load_dvs_gesture(".", pooling=0)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize(
    ("format", "argument", "value", "message"),
    [
        row("shd", "prefix", 2**31 - 1, r"expected .*, got 2147483647 \(for .*shd_train\.h5\)"),
        row("dvs128-gesture", "prefix", 2**31 - 1, r"expected .*, got 2147483647 \(for .*4\.npy\)"),
        row("nmnist", "prefix", 2**31 - 1, r"expected .*, got 2147483647 \(for .*1\.bin\)"),
        row("shd", "bin_width", 1e-12, r"expected at most 2\^31 - 1 steps, .* \(for .*shd_train\.h5\)"),
        row("dvs128-gesture", "bin_width", 1e-12, r"expected at most 2\^31 - 1 steps, .* \(for .*4\.npy\)"),
    ],
)
def test_an_argument_that_does_not_fit_a_recording_is_named_before_the_file(
    format: Format, argument: str, value: float, message: str, tmp_path: Path
) -> None:
    format.write(tmp_path)
    with pytest.raises(ValueError, match=f"^{argument}: {message}$"):
        format.load(tmp_path, **{argument: value})


# The cache of N-MNIST


def cached(root: Path) -> LabelledEvents:
    samples = data.load_nmnist(root, cache=True).train
    assert isinstance(samples, LabelledEvents)
    return samples


def assert_same(samples: Any, expected: Any) -> None:
    assert samples.events == expected.events and torch.equal(samples.labels, expected.labels)


@pytest.mark.landing
@pytest.mark.parametrize("spelling", ["root", "./root/", "link"])
def test_the_cache_is_read_however_its_root_is_spelled(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    write_nmnist(root)
    fresh = data.load_nmnist(root).train
    data.load_nmnist(root, cache=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.setattr("srcell.data.recordings._digit", None)  # would raise if it were called
    assert_same(data.load("nmnist", spelling, cache=True).train, fresh)
    assert sorted(path.suffix for path in root.iterdir() if path.is_file()) == [".safetensors"] * 2


@pytest.mark.landing
def test_a_cache_of_changed_recordings_is_not_used(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    fresh = cached(tmp_path)
    recording = tmp_path / "Train/0/1.bin"
    recording.write_bytes(recording.read_bytes()[:5])
    assert cached(tmp_path).events.num_events == fresh.events.num_events - 1


@pytest.mark.landing
def test_an_unwritable_cache_warns_and_the_data_still_load(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    fresh = data.load_nmnist(tmp_path)
    for part in ("train", "test"):
        (tmp_path / f"{part}-1000us-prefix20.safetensors").mkdir()  # a folder in place of the file
    with pytest.warns(UserWarning, match=r"-1000us-prefix20\.safetensors: the cache was not written \("):
        found = data.load_nmnist(tmp_path, cache=True)
    assert_same(found.train, fresh.train)
    assert_same(found.test, fresh.test)


@pytest.mark.landing
@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.tensor([3, 10])},
        {"labels": torch.tensor([-1, 3])},
        {"labels": torch.tensor([3])},
        {"labels": torch.tensor([3.0, 7.0])},
        {"shape": "[26, 2, 99]", "indices": torch.zeros(4, dtype=torch.int32)},
        {"shape": "[" * 100_000},
        {"shape": "1" * 5000},
        {"truncated": True},
    ],
)
def test_a_cache_with_other_content_is_not_used(changes: dict[str, Any], tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    fresh = cached(tmp_path)
    (path,) = tmp_path.glob("train-*.safetensors")
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {name: x for name, x in changes.items() if isinstance(x, str)}
    content = save(load_file(path) | {name: x for name, x in changes.items() if isinstance(x, Tensor)}, metadata)
    path.write_bytes(content[:-5] if "truncated" in changes else content)
    assert_same(cached(tmp_path), fresh)
