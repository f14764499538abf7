"""Recordings that tonic downloads, read from small files in their format: SHD, SSC and DVS128 Gesture."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from srcell import data
from srcell.data import LabelledEvents, load_dvs_gesture, load_nmnist, load_shd
from support.files import write_recordings
from support.refusals import assert_refused

pytestmark = pytest.mark.landing
h5py: Any = pytest.importorskip("h5py", reason='pip install "srcell[nmnist]"')


def write_cochlea(folder: Path, name: str, labels: Sequence[int] = (3, 0), **changes: Any) -> Path:
    """Files as those of SHD and SSC: times in seconds, in half precision, and channels, a vector a recording."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "times": [[0.0, 0.0005, 0.009, 0.0101], [0.002]],
        "units": [[699, 5, 5, 0], [12]],
    } | changes
    for part in ("train", "test"):
        with h5py.File(folder / f"{name}_{part}.h5", "w") as file:
            for key, dtype in (("times", np.float16), ("units", np.uint16)):
                arrays = np.empty(len(content[key]), object)
                for k, values in enumerate(content[key]):
                    arrays[k] = np.array(values, dtype)
                file.create_dataset(f"spikes/{key}", data=arrays, dtype=h5py.vlen_dtype(dtype))
            file["labels"] = np.array(labels, np.uint16)
            file["extra/keys"] = [b"zero", b"one"]
    return folder / f"{name}_train.h5"


def events_of(part: object, sample: int) -> list[tuple[int, int]]:
    """The (step, input) pairs of a sample."""
    assert isinstance(part, LabelledEvents)
    steps, _, inputs = part.events[sample].to_dense().nonzero(as_tuple=True)
    return list(zip(steps.tolist(), inputs.tolist(), strict=True))


@pytest.mark.parametrize(("name", "folder", "classes"), [("shd", "SHD", 20), ("ssc", ".", 35)])
def test_spoken_words_are_binned_with_their_lengths(name: str, folder: str, classes: int, tmp_path: Path) -> None:
    write_cochlea(tmp_path / folder, name)
    dataset = data.load(name, tmp_path, prefix=0)
    assert dataset.num_classes == classes and dataset.input_size == 700
    for part in dataset[:2]:
        assert events_of(part, 0) == [(0, 5), (0, 699), (2, 0), (2, 5)]
        assert events_of(part, 1) == [(0, 12)]
        assert part.labels.tolist() == [3, 0] and part.events.lengths.tolist() == [3, 1]


def test_bins_are_as_wide_as_asked_behind_a_prefix(tmp_path: Path) -> None:
    write_cochlea(tmp_path, "shd")
    part = load_shd(tmp_path, bin_width=1, prefix=2).train
    assert events_of(part, 0) == [(2, 5), (2, 699), (11, 5), (12, 0)] and events_of(part, 1) == [(4, 12)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": (3, 20)}, "expected labels 0 to 19, got 20"),
        ({"labels": (3,)}, "expected a label for each of 2 recordings, got 1"),
        ({"units": [[699, 5, 5, 700], [12]]}, "indices: expected .*700"),
        ({"times": [[0.0, 0.2, 0.1, 0.3], [0.002]]}, "times: expected no descent"),
        ({"times": [[0.0, 0.1, 0.2], [0.002]]}, "expected "),
        ({"times": [[0.0, 0.1, 0.2, np.nan], [0.002]]}, "times: expected finite"),
    ],
)
def test_corrupt_spoken_words_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_cochlea(tmp_path, "shd", **changes)
    with pytest.raises(ValueError, match=rf"shd_train\.h5: corrupt.*{message}"):
        load_shd(tmp_path)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = write_cochlea(tmp_path, "shd")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"shd_train\.h5: corrupt or truncated"):
        load_shd(tmp_path)
    with h5py.File(path, "w") as file:
        file["labels"] = [1]
    with pytest.raises(ValueError, match=r"shd_train\.h5: corrupt or truncated"):
        load_shd(tmp_path)
    (tmp_path / "shd_test.h5").unlink()
    write_cochlea(tmp_path / "other", "shd")
    (tmp_path / "other" / "shd_test.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"shd_test\.h5 is not there"):
        load_shd(tmp_path / "other")


def write_gestures(folder: Path, **arrays: Any) -> None:
    """Files as those that tonic extracts: a row (x, y, polarity, milliseconds) an event."""
    rows = np.array([[0, 0, 0, 0], [3, 3, 0, 4], [127, 4, 1, 5], [127, 4, 1, 31]], np.float64)
    for part in ("ibmGestureTrain", "ibmGestureTest"):
        for name, content in {"user02_led/10": rows, "user01_lab/4": rows[:3], **arrays}.items():
            path = folder / part / f"{name}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, content)


def test_gestures_are_pooled_and_binned_with_their_lengths(tmp_path: Path) -> None:
    write_gestures(tmp_path / "DVSGesture")
    dataset = data.load("dvs128-gesture", tmp_path, prefix=0)
    assert dataset.num_classes == 11 and dataset.input_shape == (2, 32, 32)
    far = 32 * 32 + 1 * 32 + 31
    for part in dataset[:2]:
        assert part.labels.tolist() == [4, 10] and part.events.lengths.tolist() == [1, 4]
        assert events_of(part, 0) == [(0, 0), (0, far)]
        assert events_of(part, 1) == [(0, 0), (0, far), (3, far)]
    fine = load_dvs_gesture(tmp_path, bin_width=5, pooling=1)
    assert fine.input_shape == (2, 128, 128)
    assert events_of(fine.train, 0) == [(0, 0), (0, 3 * 128 + 3), (1, 128 * 128 + 4 * 128 + 127)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.zeros((2, 3)), "expected rows of four numbers"),
        (np.array([[128.0, 0, 0, 0]]), r"expected x in \[0, 128\), got 128 to 128"),
        (np.array([[0, -1, 0, 0]]), r"expected y in \[0, 128\), got -1"),
        (np.array([[0, 0, 2, 0]]), r"expected polarity in \[0, 2\), got 2"),
        (np.array([[0, 0, 0, 5], [0, 0, 0, 4]]), "times: expected no descent"),
        (np.array([[None] * 4]), "Object arrays cannot be loaded"),
    ],
)
def test_corrupt_gestures_are_named(content: np.ndarray, message: str, tmp_path: Path) -> None:
    write_gestures(tmp_path, **{"user03_led/2": content})
    with pytest.raises(ValueError, match=rf"user03_led/2\.npy: corrupt.*{message}"):
        load_dvs_gesture(tmp_path)


def test_a_gesture_without_a_label_is_named(tmp_path: Path) -> None:
    write_gestures(tmp_path, **{"user03_led/11": np.zeros((1, 4))})
    with pytest.raises(ValueError, match=r"11\.npy: expected a name from 0\.npy to 10\.npy"):
        load_dvs_gesture(tmp_path)
    (tmp_path / "none" / "ibmGestureTrain").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no recordings"):
        load_dvs_gesture(tmp_path / "none")


@pytest.mark.parametrize("bin_width", [0, -1, float("inf"), float("nan")])
def test_a_bin_without_width_is_refused(bin_width: float, tmp_path: Path) -> None:
    assert_refused(ValueError, "bin_width", load_shd, tmp_path, bin_width=bin_width)


LOADERS = {"shd": load_shd, "gesture": load_dvs_gesture, "nmnist": load_nmnist}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("prefix", [-1, 2**31, 2**31 - 1, 0.5, None])
def test_a_wrong_prefix_is_no_fault_of_the_files(name: str, prefix: Any, tmp_path: Path) -> None:
    write_cochlea(tmp_path, "shd")
    write_gestures(tmp_path)
    write_recordings(tmp_path)
    error = ValueError if isinstance(prefix, int) else TypeError
    with pytest.raises(error, match=r"^prefix: expected .*, got") as caught:
        LOADERS[name](tmp_path, prefix=prefix)
    assert not re.search("corrupt|again|delete", str(caught.value))


@pytest.mark.parametrize("name", ["shd", "gesture"])
def test_a_bin_that_is_too_narrow_is_named_with_the_file(name: str, tmp_path: Path) -> None:
    write_cochlea(tmp_path, "shd")
    write_gestures(tmp_path)
    message = r"^bin_width: expected at most 2\^31 - 1 steps, got 1e-12 for times .* \(for .*(shd_train\.h5|4\.npy)\)$"
    with pytest.raises(ValueError, match=message):
        LOADERS[name](tmp_path, bin_width=1e-12)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["shd", "gesture"])
def test_a_file_that_may_not_be_read_is_not_called_corrupt(name: str, tmp_path: Path) -> None:
    write_cochlea(tmp_path, "shd")
    write_gestures(tmp_path)
    refused = PermissionError(errno.EACCES, "Permission denied", "file")
    with (
        mock.patch.multiple("builtins", open=mock.Mock(side_effect=refused)),
        mock.patch("h5py.File", side_effect=refused),
        pytest.raises(PermissionError, match="Permission denied"),
    ):
        LOADERS[name](tmp_path)


@pytest.mark.parametrize("pooling", [3, 0, 256])
def test_pooling_divides_the_sensor(pooling: int, tmp_path: Path) -> None:
    assert_refused(ValueError, "pooling", load_dvs_gesture, tmp_path, pooling=pooling)
