"""``EventLoader`` and the encodings: batches depend only on seed and epoch, and errors of workers are reported."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from srcell import EventBatch, data, latency_encode, rate_encode
from srcell.data import (
    Dataset,
    EventLoader,
    HeldEncoding,
    LabelledEvents,
    LabelledImages,
    LabelledSequences,
    LatencyEncoding,
    RateEncoding,
    RecallEncoding,
)
from srcell.data.loader import _own_message, derived_seed
from srcell.evaluation import evaluate
from srcell.models import SRCClassifier
from support.refusals import Message, Refusal, refusals


def images(count: int = 50) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    return LabelledImages(torch.rand(count, 4, 5, generator=generator), torch.arange(count))


def evaluate_it(model: Any, loader: Any = None) -> object:
    return evaluate(model, make_loader() if loader is None else loader)


def make_loader(batch_size: int = 8, **options: Any) -> EventLoader:
    return EventLoader(images(), RateEncoding(steps=30), batch_size, **{"shuffle": True, "seed": 5, **options})


def batches(loader: EventLoader, epoch: int = 1, first_batch: int = 0) -> list[tuple[EventBatch, Tensor]]:
    loader.set_epoch(epoch, first_batch)
    return list(loader)


def assert_same(ours: list[tuple[EventBatch, Tensor]], theirs: list[tuple[EventBatch, Tensor]]) -> None:
    assert len(ours) == len(theirs) > 0
    for (events, labels), (expected, expected_labels) in zip(ours, theirs, strict=True):
        assert events == expected and torch.equal(labels, expected_labels)


def by_label(epoch: list[tuple[EventBatch, Tensor]]) -> dict[int, EventBatch]:
    return {int(label): sample for events, labels in epoch for label, sample in zip(labels, events, strict=True)}


def test_an_epoch_meets_every_sample_once_with_its_own_spikes() -> None:
    loader = make_loader()
    assert len(loader) == 7 and [loader.samples_in(k) for k in range(7)] == [8] * 6 + [2]
    first, second = batches(loader, 1), batches(loader, 2)
    for epoch in (first, second):
        labels = torch.cat([labels for _, labels in epoch])
        assert not torch.equal(labels, torch.arange(50)) and torch.equal(labels.sort().values, torch.arange(50))
    spikes = by_label(first), by_label(second)
    assert all(spikes[0][sample] != spikes[1][sample] for sample in range(50))
    assert_same(batches(loader, 1), first)
    assert not torch.equal(batches(make_loader(seed=6))[0][1], first[0][1])


def test_spikes_of_a_sample_do_not_depend_on_its_batch() -> None:
    ours, theirs = (by_label(batches(make_loader(batch_size))) for batch_size in (8, 50))
    assert ours == theirs and len(ours) == 50


def test_without_shuffle_every_epoch_is_the_same() -> None:
    loader = make_loader(16, shuffle=False)
    assert_same(batches(loader, 1), batches(loader, 2))
    assert torch.equal(torch.cat([labels for _, labels in loader]), torch.arange(50))


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(workers: int) -> None:
    expected, loader = batches(make_loader()), make_loader(num_workers=workers)
    assert_same(batches(loader), expected)
    assert_same(batches(loader, first_batch=3), expected[3:])


def test_derived_seeds_are_distinct_and_have_63_bits() -> None:
    seeds = [derived_seed(seed, *key) for seed in range(8) for key in ((), (0,), (1,), (1, 0), (0, 1))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds) and max(seeds) >= 2**62


def test_processes_share_each_batch() -> None:
    whole = batches(make_loader())
    shares = [batches(make_loader(rank=rank, world_size=3)) for rank in range(3)]
    for (events, labels), *parts in zip(whole, *shares, strict=True):
        for rank, (part, part_labels) in enumerate(parts):
            assert torch.equal(part_labels, labels[rank::3])
            assert part == events[torch.arange(len(labels))[rank::3]]
    assert len(shares[2][-1][1]) == 0  # two samples for three processes


def test_data_sets_have_a_one_line_repr() -> None:
    sequences = LabelledSequences(torch.zeros(5, 7, 2), torch.zeros(5), torch.ones(5))
    events = LabelledEvents(EventBatch.from_dense(torch.ones(4, 5, 3)), torch.zeros(5))
    for samples in (images(), sequences, events):
        shown = repr(Dataset(samples, samples, 10, (1, 8, 8)))
        assert "tensor" not in shown and "\n" not in shown
        assert shown.count(str(tuple(samples[0].shape))) == 2


def test_latencies_and_recordings_pass_through() -> None:
    (events, _), *_ = batches(EventLoader(images(), LatencyEncoding(steps=10), 8))
    assert events.shape == (30, 8, 20) and events.num_events == 8 * 20
    recordings = LabelledEvents(rate_encode(images().images, 10, seed=0), images().labels)
    (events, labels), *_ = batches(EventLoader(recordings, batch_size=8))
    assert events == recordings.events[:8] and torch.equal(labels, torch.arange(8))


@refusals(
    Refusal("samples", lambda: EventLoader(data.load("digits"), RateEncoding()), TypeError),
    Refusal("encoding", lambda: EventLoader(images()), TypeError),
    Refusal("batch_size", lambda: make_loader(batch_size=0)),
    Refusal("seed", lambda: make_loader(seed=-1)),
    Refusal("num_workers", lambda: make_loader(num_workers=-1)),
    Refusal("num_workers", lambda: make_loader(num_workers=10**11)),
    Refusal("world_size", lambda: make_loader(world_size=0)),
    Refusal("rank", lambda: make_loader(rank=1)),
    Refusal("epoch", lambda: make_loader().set_epoch(-1)),
    Refusal("first_batch", lambda: make_loader(25).set_epoch(0, first_batch=3)),
    Message("model: expected SRC layers in it, got none in Linear", lambda: evaluate_it(nn.Linear(20, 2))),
    Message(r"hold: expected an int in \[1, 2147483647\], got -1", lambda: HeldEncoding(hold=-1)),
    Message("hold: expected an int in .*, got 0", lambda: HeldEncoding(hold=0)),
    Message("hold: expected an int, got float", lambda: HeldEncoding(hold=2.0), TypeError),  # type: ignore[arg-type]
    Message("prefix: expected an int in .*, got -3", lambda: HeldEncoding(prefix=-3)),
    Message("delay: expected an int in .*, got -1", lambda: RecallEncoding(delay=-1)),
    Message("model: expected a module, got function", lambda: evaluate_it(evaluate_it), TypeError),
    Message(
        "loader: expected pairs of an EventBatch and labels, .*, got a batch of a tensor",
        lambda: evaluate_it(SRCClassifier(20, [], 2), [(torch.zeros(30, 2, 20), torch.zeros(2).long())]),
        TypeError,
    ),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize("workers", [0, 1])
def test_zero_samples_give_no_batch(workers: int) -> None:
    loader = EventLoader(images(0), RateEncoding(), num_workers=workers)
    assert len(loader) == 0 and list(loader) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_an_iteration_keeps_the_epoch_that_it_began_in(workers: int) -> None:
    loader = make_loader(num_workers=workers)
    loader.set_epoch(1, first_batch=2)
    begun = iter(loader)
    loader.set_epoch(2)
    assert_same(list(begun), batches(loader, 1, first_batch=2))


def test_encodings_number_samples_from_0_by_default() -> None:
    pixels = images(3).images
    assert RateEncoding(10)(pixels) == rate_encode(pixels, 10, gain=0.25, seed=0)
    assert LatencyEncoding(10)(pixels) == LatencyEncoding(10)(pixels, torch.arange(3), 7)
    assert RateEncoding(10, 0.5, 3)(pixels, seed=7) == rate_encode(pixels, 10, prefix=3, gain=0.5, seed=7)
    assert LatencyEncoding(10, 3)(pixels) == latency_encode(pixels, 10, prefix=3)
    assert RateEncoding()(pixels) == rate_encode(pixels, seed=0)
    assert LatencyEncoding()(pixels) == latency_encode(pixels)


# Worker processes


def begin(**options: Any) -> tuple[Iterator[tuple[EventBatch, Tensor]], list[BaseProcess]]:
    """An iteration over 25 batches, the first of which has been read, and its workers."""
    others = multiprocessing.active_children()
    loader = iter(EventLoader(images(100), RateEncoding(steps=30), 4, **options))
    next(loader)
    return loader, [process for process in multiprocessing.active_children() if process not in others]


def kill(worker: BaseProcess) -> None:
    worker.kill()
    assert wait([worker.sentinel], 60)  # not join(), which would hide the death from a handler of SIGCHLD
    time.sleep(0.05)  # the handler would run here


def test_by_default_a_loader_starts_no_process() -> None:
    assert begin()[1] == []


def test_a_killed_worker_raises_an_error_at_the_next_batch() -> None:
    """Regression: torch's handler of SIGCHLD raised a RuntimeError wherever the process was."""
    loader, (worker,) = begin(num_workers=1)
    kill(worker)
    with pytest.raises(ChildProcessError, match=r"DataLoader worker .*: try fewer workers"):
        list(loader)


def test_a_killed_worker_is_reported_whatever_error_torch_raised_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(iterator: object) -> None:
        raise ConnectionResetError("broken")

    loader, (worker,) = begin(num_workers=1)
    kill(worker)
    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_next_data", broken)
    with pytest.raises(ChildProcessError, match=r"^a DataLoader worker died \(broken\): try fewer workers"):
        next(loader)


def test_a_workers_error_message_is_extracted_from_its_traceback() -> None:
    traceback = "Caught RuntimeError in DataLoader worker process 0.\nTraceback ...\nRuntimeError: no such pixel\n"
    assert _own_message(RuntimeError(traceback)) == "no such pixel"
    assert _own_message(RuntimeError("no such pixel")) is None


@pytest.mark.landing
@pytest.mark.parametrize("message", ["no such pixel", "two\nlines: RuntimeError"])
def test_an_error_in_a_worker_keeps_its_message(message: str) -> None:
    class Wrong:
        def __call__(self, *_: object) -> EventBatch:
            raise RuntimeError(message)

    for workers in (0, 1):
        with pytest.raises(RuntimeError) as error:
            list(EventLoader(images(), Wrong(), 8, num_workers=workers))  # type: ignore[arg-type]
        assert str(error.value) == message


def test_workers_ignore_signals_except_those_of_their_parent() -> None:
    loader, workers = begin(num_workers=2)
    assert len(workers) == 2
    for worker in workers:
        for number in ("INT", "TERM"):  # sent by a process that is not their parent
            subprocess.run(["sh", "-c", f"kill -{number} {worker.pid}"], check=True)
    assert sum(len(labels) for _, labels in loader) == 96
    _, (terminated,) = begin(num_workers=1)
    terminated.terminate()
    for worker in (*workers, terminated):
        worker.join(60)
        assert worker.exitcode == 0


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
def test_a_process_ends_although_its_workers_have_batches_left(method: str, tmp_path: Path) -> None:
    """Regression: a worker under a fork server waited for a SIGTERM from the server instead of from the process."""
    script = tmp_path / "abandoned.py"
    script.write_text(ABANDONED)
    done = subprocess.run([sys.executable, script, method], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[0, 1]\n"), done.stderr
