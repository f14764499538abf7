"""Data sets and loaders: reading files, errors for broken ones, and batches that depend on the seed alone."""

from __future__ import annotations

import gzip
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from srcell import EventBatch, data, latency_encode, rate_encode
from srcell.data import EventLoader, LabelledEvents, LabelledImages, LatencyEncoding, RateEncoding
from srcell.data.loader import derived_seed
from support.files import write_idx, write_recordings

COUNTS = {"train": 60, "t10k": 10}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">I{array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, *, zipped: bool) -> dict[str, np.ndarray]:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    written = {}
    for part, count in COUNTS.items():
        written[f"{part}-images-idx3-ubyte"] = random.integers(0, 256, (count, 28, 28), np.uint8)
        written[f"{part}-labels-idx1-ubyte"] = random.integers(0, 10, count, np.uint8)
    for name, array in written.items():
        if zipped:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return written


@pytest.mark.parametrize(
    ("name", "folder", "zipped"),
    [
        ("mnist", "MNIST/raw", False),
        ("mnist", "mnist", True),
        ("fashion-mnist", "FashionMNIST/raw", True),
        ("fashion-mnist", "fashion-mnist", False),
    ],
)
def test_images_are_what_the_files_hold(name: str, folder: str, zipped: bool, tmp_path: Path) -> None:
    written = write_mnist(tmp_path / folder, zipped=zipped)
    dataset = data.load(name, tmp_path)
    for part, samples in zip(COUNTS, (dataset.train, dataset.test), strict=True):
        assert isinstance(samples, LabelledImages)
        assert samples.images.dtype == torch.float32 and samples.labels.dtype == torch.int64
        expected = torch.from_numpy(written[f"{part}-images-idx3-ubyte"]).float() / 255
        assert torch.equal(samples.images, expected)
        assert torch.equal(samples.labels, torch.from_numpy(written[f"{part}-labels-idx1-ubyte"]).long())
    assert dataset.num_classes == 10 and dataset.input_size == 784


def test_the_one_data_set_is_not_taken_for_the_other(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", zipped=True)
    with pytest.raises(
        FileNotFoundError, match=r"no FashionMNIST in .*: expected the folder FashionMNIST/raw or fashion"
    ):
        data.load("fashion-mnist", tmp_path)


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    ("file", "break_", "message"),
    [
        ("train-images-idx3-ubyte.gz", truncated, "corrupt or truncated"),
        ("train-images-idx3-ubyte.gz", lambda content: b"no gzip" + content, "corrupt or truncated"),
        ("t10k-labels-idx1-ubyte.gz", lambda content: gzip.compress(b"\0\0\7\1" + bytes(8)), "corrupt or truncated"),
        ("t10k-labels-idx1-ubyte.gz", lambda content: gzip.compress(b""), "corrupt or truncated"),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda content: gzip.compress(idx(np.zeros(9, np.uint8))),
            "a label for each of the",
        ),
        (
            "t10k-labels-idx1-ubyte.gz",
            lambda content: gzip.compress(idx(np.full(10, 11, np.uint8))),
            "labels 0 to 9, got 11",
        ),
    ],
)
def test_a_broken_file_is_named(file: str, break_: Callable[[bytes], bytes], message: str, tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", zipped=True)
    path = tmp_path / "mnist" / file
    path.write_bytes(break_(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        data.load("mnist", tmp_path)
    assert str(error.value).startswith(str(path)) and "download" in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist", zipped=True)
    (tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"t10k-images-idx3-ubyte is not there, nor t10k-images-idx3-ubyte\.gz"):
        data.load("mnist", tmp_path)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    """Regression: the difference was found only at the end of training."""
    write_idx(tmp_path / "mnist", (3, 2, 2), (3, 2, 3))
    with pytest.raises(ValueError, match="expected images of one size, got 2 x 2 and 2 x 3") as error:
        data.load("mnist", tmp_path)
    assert str(error.value).startswith(str(tmp_path))


# Events of two recordings: microseconds, x, y, polarity.
RECORDINGS = {
    "Train/3/00002.bin": [(0, 1, 2, 1), (999, 1, 2, 1), (1000, 33, 33, 0)],
    "Train/0/00001.bin": [(5200, 0, 0, 0), (5300, 0, 0, 1)],
    "Test/9/00001.bin": [(100, 4, 5, 0)],
}


def write_nmnist(folder: Path) -> None:
    pytest.importorskip("tonic", reason='pip install "srcell[nmnist]"')
    for name, events in RECORDINGS.items():
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(bytes([x, y]) + (t | p << 23).to_bytes(3, "big") for t, x, y, p in events))


@pytest.mark.landing
def test_recordings_are_binned_whole(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    train, test, _, input_shape = data.load("nmnist", tmp_path, prefix=2)
    assert isinstance(train, LabelledEvents) and isinstance(test, LabelledEvents)
    assert input_shape == (2, 34, 34)
    assert train.labels.tolist() == [0, 3] and test.labels.tolist() == [9]
    assert train.events.shape == (8, 2, 2312) and train.events.lengths is not None
    assert train.events.lengths.tolist() == [8, 4]
    plane = 34 * 34
    assert train.events.to_dense().nonzero().tolist() == [[2, 1, plane + 69], [3, 1, 1155], [7, 0, 0], [7, 0, plane]]
    chosen = train.select(torch.tensor([1, 1]))
    assert chosen.events.shape == (4, 2, 2312) and chosen.labels.tolist() == [3, 3]


@pytest.mark.landing
def test_the_cache_holds_the_same_and_notices_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nmnist(tmp_path)
    fresh = data.load("nmnist", tmp_path).train
    data.load("nmnist", tmp_path, cache=True)
    (cache,) = tmp_path.glob("train-*.safetensors")

    def load() -> LabelledEvents:
        samples = data.load("nmnist", tmp_path, cache=True).train
        assert isinstance(samples, LabelledEvents)
        return samples

    with monkeypatch.context() as patch:
        patch.setattr("srcell.data.nmnist._read_recording", None)  # would raise if it were called
        cached = load()
    assert cached.events == fresh.events and torch.equal(cached.labels, fresh.labels)
    cache.write_bytes(cache.read_bytes()[:-5])
    assert load().events == fresh.events
    recording = tmp_path / "Train/0/00001.bin"
    recording.write_bytes(recording.read_bytes()[:5])
    assert load().events.num_events == fresh.events.num_events - 1
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.is_file()) == [".safetensors"] * 2


@pytest.mark.landing
@pytest.mark.parametrize("spelling", ["relative", "slash", "link"])
def test_the_cache_is_found_however_its_root_is_spelled(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    write_nmnist(root)
    fresh = data.load("nmnist", root, cache=True).train
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(root)
    monkeypatch.setattr("srcell.data.nmnist._read_recording", None)  # would raise if it were called
    again = data.load("nmnist", {"relative": "root", "slash": f"{root}/", "link": "link"}[spelling], cache=True).train
    assert isinstance(again, LabelledEvents) and isinstance(fresh, LabelledEvents)
    assert again.events == fresh.events


@pytest.mark.landing
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    fresh = data.load("nmnist", tmp_path)
    for part in ("train", "test"):
        (tmp_path / f"{part}-1000us-prefix20.safetensors").mkdir()  # a folder in place of the file
    with pytest.warns(UserWarning, match=r"-1000us-prefix20\.safetensors: the cache was not written \("):
        found = data.load("nmnist", tmp_path, cache=True)
    for ours, theirs in ((found.train, fresh.train), (found.test, fresh.test)):
        assert isinstance(ours, LabelledEvents) and isinstance(theirs, LabelledEvents)
        assert ours.events == theirs.events


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.landing
@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.tensor([3, 10])},
        {"labels": torch.tensor([-1, 3])},
        {"labels": torch.tensor([3])},
        {"labels": torch.tensor([3.0, 7.0])},
        {"labels": torch.tensor([[3], [7]])},
        {"shape": "[30, 2, 99]", "indices": torch.zeros(4, dtype=torch.int32)},
        {"shape": "[" * 100_000},
        {"shape": "1" * 5000},
    ],
)
def test_a_cache_of_something_else_is_made_anew(changes: dict[str, Any], tmp_path: Path) -> None:
    write_recordings(tmp_path)
    fresh = data.load("nmnist", tmp_path, cache=True).train
    assert isinstance(fresh, data.LabelledEvents)
    (path,) = tmp_path.glob("train-*.safetensors")
    metadata, tensors = read_safetensors(path)
    metadata |= {name: x for name, x in changes.items() if isinstance(x, str)}
    path.write_bytes(save(tensors | {name: x for name, x in changes.items() if isinstance(x, Tensor)}, metadata))
    again = data.load("nmnist", tmp_path, cache=True).train
    assert isinstance(again, data.LabelledEvents)
    assert again.events == fresh.events and torch.equal(again.labels, fresh.labels)


@pytest.mark.landing
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes(7), r"corrupt or truncated \(7 bytes"),
        (b"", r"corrupt or truncated \(0 bytes"),
        (bytes([40, 0, 0, 0, 0]), r"corrupt or truncated \(x: expected values in \[0, 34\), got 40"),
        (bytes([1, 1, 0, 9, 9]) + bytes([1, 1, 0, 0, 1]), r"corrupt or truncated \(times: expected"),
    ],
)
def test_a_broken_recording_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    write_nmnist(tmp_path)
    path = tmp_path / "Train/3/00002.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        data.load("nmnist", tmp_path)
    assert str(error.value).startswith(str(path))


def test_folders_without_recordings_are_named(tmp_path: Path) -> None:
    (tmp_path / "Train").mkdir()
    with pytest.raises(FileNotFoundError, match="expected the folders Train and Test there"):
        data.load("nmnist", tmp_path)
    (tmp_path / "Test").mkdir()
    with pytest.raises(FileNotFoundError, match="no recordings"):
        data.load("nmnist", tmp_path)


@pytest.mark.landing
def test_overflows_of_time_do_not_take_hours(tmp_path: Path) -> None:
    """Regression: each overflow cost a pass over all events."""
    write_recordings(tmp_path).write_bytes(bytes([1, 240, 0, 0, 0]) * 2_000_000)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"a\.bin: corrupt \(2000000 overflows of time\)"):
        data.load("nmnist", tmp_path)
    assert time.monotonic() - start < 30


@pytest.mark.landing
def test_a_thousand_overflows_of_time_are_a_long_recording(tmp_path: Path) -> None:
    write_recordings(tmp_path).write_bytes(bytes([1, 240, 0, 0, 0]) * 1000 + bytes([3, 5, 0, 0, 7]))
    assert data.load("nmnist", tmp_path).train.events.shape[0] == 20 + 1000 * 8192 // 1000 + 1


def images(count: int = 50) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    return LabelledImages(torch.rand(count, 4, 5, generator=generator), torch.arange(count))


def batches(loader: EventLoader, epoch: int = 0, first_batch: int = 0) -> list[tuple[EventBatch, Tensor]]:
    loader.set_epoch(epoch, first_batch)
    return list(loader)


def assert_same(ours: list[tuple[EventBatch, Tensor]], theirs: list[tuple[EventBatch, Tensor]]) -> None:
    assert len(ours) == len(theirs) > 0
    for (events, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        assert events == expected and torch.equal(labels, expected_labels)


def test_an_epoch_meets_every_sample_once_with_its_own_spikes() -> None:
    loader = EventLoader(images(), RateEncoding(steps=30), 8, shuffle=True, seed=5)
    assert len(loader) == 7 and [loader.samples_in(k) for k in range(7)] == [8] * 6 + [2]
    first, second = batches(loader, 1), batches(loader, 2)
    for epoch in (first, second):
        labels = torch.cat([labels for _, labels in epoch])
        assert not torch.equal(labels, torch.arange(50)) and torch.equal(labels.sort().values, torch.arange(50))
    spikes = [
        {int(label): sample for events, labels in epoch for label, sample in zip(labels, events, strict=True)}
        for epoch in (first, second)
    ]
    assert all(spikes[0][sample] != spikes[1][sample] for sample in range(50))
    assert_same(batches(loader, 1), first)
    other = batches(EventLoader(images(), RateEncoding(steps=30), 8, shuffle=True, seed=6), 1)
    assert not torch.equal(other[0][1], first[0][1])


def test_spikes_of_a_sample_do_not_depend_on_its_batch() -> None:
    ours = {
        int(label): sample
        for events, labels in batches(EventLoader(images(), RateEncoding(), 8, shuffle=True), 3)
        for label, sample in zip(labels, events, strict=True)
    }
    theirs = {
        int(label): sample
        for events, labels in batches(EventLoader(images(), RateEncoding(), 50, shuffle=True), 3)
        for label, sample in zip(labels, events, strict=True)
    }
    assert ours == theirs and len(ours) == 50


def test_without_shuffle_every_epoch_is_the_same() -> None:
    loader = EventLoader(images(), RateEncoding(steps=30), 16)
    assert_same(batches(loader, 1), batches(loader, 2))
    assert torch.equal(torch.cat([labels for _, labels in loader]), torch.arange(50))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers: int) -> None:
    alone = EventLoader(images(), RateEncoding(steps=30), 8, shuffle=True, seed=5)
    loader = EventLoader(images(), RateEncoding(steps=30), 8, shuffle=True, seed=5, num_workers=workers)
    assert_same(batches(loader, 1), batches(alone, 1))
    assert_same(batches(loader, 1, first_batch=3), batches(alone, 1)[3:])


def test_by_default_a_loader_starts_no_process() -> None:
    others = multiprocessing.active_children()
    begun = iter(EventLoader(images(), RateEncoding(steps=5), 8))
    next(begun)
    assert multiprocessing.active_children() == others


def test_seeds_of_other_purposes_are_other_ones_of_63_bits() -> None:
    seeds = [derived_seed(seed, *key) for seed in range(8) for key in ((), (0,), (1,), (1, 0), (0, 1))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds) and max(seeds) >= 2**62


def test_processes_share_each_batch() -> None:
    whole = batches(EventLoader(images(), RateEncoding(steps=30), 8, shuffle=True), 1)
    shares = [
        batches(EventLoader(images(), RateEncoding(steps=30), 8, shuffle=True, rank=rank, world_size=3), 1)
        for rank in range(3)
    ]
    for (events, labels), *parts in zip(whole, *shares, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert torch.equal(part_labels, labels[rank::3])
            assert part == events[torch.arange(len(labels))[rank::3]]
    assert len(shares[2][-1][1]) == 0  # two samples for three processes


def test_latencies_and_recordings_pass_through() -> None:
    (events, _), *_ = batches(EventLoader(images(), LatencyEncoding(steps=10), 8))
    assert events.shape == (30, 8, 20) and events.num_events == 8 * 20
    recordings = LabelledEvents(rate_encode(images().images, 10, seed=0), images().labels)
    (events, labels), *_ = batches(EventLoader(recordings, batch_size=8))
    assert events == recordings.events[:8] and torch.equal(labels, torch.arange(8))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="encoding: expected a RateEncoding"):
        EventLoader(images())
    for name, value in (("batch_size", 0), ("seed", -1), ("num_workers", -1), ("world_size", 0), ("rank", 1)):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            EventLoader(images(), RateEncoding(), **{name: value})  # type: ignore[arg-type]
    loader = EventLoader(images(), RateEncoding(), 25)
    with pytest.raises(ValueError, match="epoch: expected at least 0"):
        loader.set_epoch(-1)
    with pytest.raises(ValueError, match=r"first_batch: expected a value in \[0, 2\], got 3"):
        loader.set_epoch(0, first_batch=3)


@pytest.mark.landing
def test_a_worker_that_dies_is_an_error() -> None:
    class Deadly:
        def __call__(self, *_: object) -> EventBatch:
            os._exit(1)

    loader = EventLoader(images(), Deadly(), 8, num_workers=1)  # type: ignore[arg-type]
    with pytest.raises(ChildProcessError, match=r"DataLoader worker .*: try fewer workers"):
        list(loader)


def test_a_worker_that_is_killed_between_two_batches_is_an_error_where_the_next_is_awaited() -> None:
    """Regression: torch's handler of SIGCHLD raised a RuntimeError wherever the process was."""
    others = set(multiprocessing.active_children())
    loader = iter(EventLoader(images(100), RateEncoding(steps=30), 4, num_workers=1))
    next(loader)
    (worker,) = set(multiprocessing.active_children()) - others
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join(60)
    time.sleep(0.01)  # a handler of SIGCHLD would run here
    with pytest.raises(ChildProcessError, match=r"DataLoader worker .*: try fewer workers"):
        list(loader)


def test_a_dead_worker_is_told_whatever_torch_noticed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(iterator: object) -> None:
        raise ConnectionResetError("broken")

    others = set(multiprocessing.active_children())
    loader = iter(EventLoader(images(100), RateEncoding(steps=30), 4, num_workers=1))
    next(loader)
    (worker,) = set(multiprocessing.active_children()) - others
    worker.kill()
    worker.join(60)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_next_data", broken)
    with pytest.raises(ChildProcessError, match=r"^a DataLoader worker died \(broken\): try fewer workers"):
        next(loader)


@pytest.mark.landing
@pytest.mark.parametrize("message", ["no such pixel", "two\nlines: RuntimeError"])
def test_an_error_in_a_worker_is_told_as_it_was_raised(message: str) -> None:
    class Wrong:
        def __call__(self, *_: object) -> EventBatch:
            raise RuntimeError(message)

    for workers in (0, 1):
        with pytest.raises(RuntimeError) as error:
            list(EventLoader(images(), Wrong(), 8, num_workers=workers))  # type: ignore[arg-type]
        assert str(error.value) == message


def test_workers_leave_signals_to_their_parent_and_end_by_its_own() -> None:
    others = set(multiprocessing.active_children())
    loader = iter(EventLoader(images(100), RateEncoding(steps=30), 4, num_workers=2))
    next(loader)
    workers = set(multiprocessing.active_children()) - others
    assert len(workers) == 2
    for worker in workers:
        for number in ("INT", "TERM"):  # sent by a process that is not their parent
            subprocess.run(["sh", "-c", f"kill -{number} {worker.pid}"], check=True)
    assert sum(len(labels) for _, labels in loader) == 96
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    loader = iter(EventLoader(images(100), RateEncoding(steps=30), 4, num_workers=1))
    next(loader)
    (worker,) = set(multiprocessing.active_children()) - others
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_no_samples_make_no_batch(workers: int) -> None:
    loader = EventLoader(images(0), RateEncoding(), num_workers=workers)
    assert len(loader) == 0 and list(loader) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iteration_keeps_the_epoch_that_it_began_in(workers: int) -> None:
    loader = EventLoader(images(), RateEncoding(steps=30), 8, shuffle=True, num_workers=workers)
    loader.set_epoch(1, first_batch=2)
    begun = iter(loader)
    loader.set_epoch(2)
    assert_same(list(begun), batches(loader, 1, first_batch=2))


def test_encodings_number_samples_by_themselves() -> None:
    pixels = images(3).images
    expected = rate_encode(pixels, 10, gain=0.25, seed=0)
    assert RateEncoding(10)(pixels) == expected
    assert LatencyEncoding(10)(pixels) == LatencyEncoding(10)(pixels, torch.arange(3), 7)
    assert RateEncoding(10, 0.5, 3)(pixels, seed=7) == rate_encode(pixels, 10, prefix=3, gain=0.5, seed=7)
    assert LatencyEncoding(10, 3)(pixels) == latency_encode(pixels, 10, prefix=3)
    assert RateEncoding()(pixels) == rate_encode(pixels, seed=0)
    assert LatencyEncoding()(pixels) == latency_encode(pixels)


ABANDONED = """
import multiprocessing, sys, torch
from srcell.data import EventLoader, LabelledImages, RateEncoding

if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    images = LabelledImages(torch.rand(8, 2, 2), torch.arange(8))
    batches = iter(EventLoader(images, RateEncoding(steps=5), 2, num_workers=1))
    print(next(batches)[1].tolist(), flush=True)
"""


@pytest.mark.landing
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_process_ends_though_its_workers_have_batches_left(method: str, tmp_path: Path) -> None:
    """Regression: a worker under a fork server waited for a SIGTERM from the server instead of from the process."""
    script = tmp_path / "abandoned.py"
    script.write_text(ABANDONED)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[0, 1]\n"), done.stderr


def test_a_download_fetches_both_parts_of_nmnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[tuple[str, bool]] = []
    tonic = ModuleType("tonic")
    tonic.datasets = SimpleNamespace(NMNIST=lambda root, train: fetched.append((root, train)))  # type: ignore
    monkeypatch.setitem(sys.modules, "tonic", tonic)
    with pytest.raises(FileNotFoundError):
        data.load_nmnist(tmp_path, download=True)
    assert fetched == [(str(tmp_path), True), (str(tmp_path), False)]


def test_a_plain_file_goes_before_its_archive(tmp_path: Path) -> None:
    folder = tmp_path / "mnist"
    write_mnist(folder, zipped=False)
    expected = data.load_mnist(tmp_path).train.labels
    for path in list(folder.iterdir()):
        path.with_name(f"{path.name}.gz").write_bytes(b"no archive")
    assert torch.equal(data.load_mnist(tmp_path).train.labels, expected)
