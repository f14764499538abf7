"""Batches of events from the samples of a data set: in what order, with which spikes, for which process.

Training, evaluation and users iterate over an ``EventLoader``; it must never know what a network does with a batch.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from ..events import EventBatch, latency_encode, rate_encode
from .dataset import LabelledEvents, LabelledImages, Samples

Batch: TypeAlias = tuple[EventBatch, Tensor]

ORDER, SPIKES = 1, 2  # what a derived seed is for
STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class RateEncoding:
    """Each pixel fires in every step with a probability of its own; see ``srcell.rate_encode``."""

    steps: int = 200
    gain: float = 0.25
    prefix: int = 20

    def __call__(self, images: Tensor, index: Tensor | None = None, seed: int = 0) -> EventBatch:
        """The images (B, ...), which are the samples of those numbers, 0..B-1 by default, as events (T, B, K)."""
        return rate_encode(images, self.steps, prefix=self.prefix, gain=self.gain, seed=seed, index=index)


@dataclass(frozen=True)
class LatencyEncoding:
    """Each pixel that is not 0 fires once; see ``srcell.latency_encode``."""

    steps: int = 200
    prefix: int = 20

    def __call__(self, images: Tensor, index: Tensor | None = None, seed: int = 0) -> EventBatch:
        """The images (B, ...) as events (T, B, K), the same whatever their numbers and the seed."""
        return latency_encode(images, self.steps, prefix=self.prefix)


Encoding: TypeAlias = RateEncoding | LatencyEncoding


class EventLoader:
    """Yields ``(EventBatch, labels)``, an epoch at a time.

    The order of the samples depends on (seed, epoch), the spikes of one on (seed, epoch, its number): neither on the
    workers nor on the processes that share the data. Without ``shuffle`` both are the same in every epoch.

    Args:
        samples: what to load.
        encoding: how images become events; recordings need none.
        batch_size: samples of a batch, of all processes together; the last of an epoch may be smaller.
        shuffle: draw order and spikes anew in each epoch.
        seed: the source of order and spikes.
        num_workers: processes that prepare batches ahead; 0 prepares them here.
        rank: the number of this process among those that share each batch.
        world_size: how many those are; each gets every ``world_size``-th sample of a batch.

    Attributes:
        samples: what is loaded.

    Raises:
        TypeError: images without an encoding.
        ValueError: a number is outside its range.
        ChildProcessError: in an iteration, a worker died.

    Example:
        >>> import torch
        >>> from srcell.data import EventLoader, LabelledImages, RateEncoding
        >>> images = LabelledImages(torch.rand(10, 4, 4), torch.arange(10))
        >>> loader = EventLoader(images, RateEncoding(steps=30), batch_size=4, shuffle=True)
        >>> loader.set_epoch(1)
        >>> [events.shape for events, labels in loader]
        [(50, 4, 16), (50, 4, 16), (50, 2, 16)]

    """

    def __init__(
        self,
        samples: Samples,
        encoding: Encoding | None = None,
        batch_size: int = 256,
        *,
        shuffle: bool = False,
        seed: int = 0,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if isinstance(samples, LabelledImages) and encoding is None:
            raise TypeError("encoding: expected a RateEncoding or a LatencyEncoding for images, got None")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("num_workers", num_workers, 0),
            ("world_size", world_size, 1),
        ):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected a value in [0, {world_size}), got {rank}")
        self.samples = samples
        self._encoding, self._batch_size, self._shuffle, self._seed = encoding, batch_size, shuffle, seed
        self._workers, self._rank, self._world_size = num_workers, rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose what the next iteration yields, from its ``iter`` on: that epoch, from that batch on."""
        if epoch < 0:
            raise ValueError(f"epoch: expected at least 0, got {epoch}")
        if not 0 <= first_batch <= len(self):
            raise ValueError(f"first_batch: expected a value in [0, {len(self)}], got {first_batch}")
        self._epoch, self._first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Batches of an epoch."""
        return math.ceil(len(self.samples.labels) / self._batch_size)

    def samples_in(self, batch: int) -> int:
        """Samples of that batch, in all processes together."""
        return min(self._batch_size, len(self.samples.labels) - batch * self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch if self._shuffle else 0
        loader = DataLoader(
            _EncodedSamples(self.samples, self._encoding, derived_seed(self._seed, SPIKES, epoch)),
            batch_sampler=_FixedBatches(self._order(epoch)),
            collate_fn=_as_is,
            num_workers=self._workers,
            worker_init_fn=_leave_signals_to_the_parent,
            generator=torch.Generator(),  # left to itself, DataLoader would draw from torch's global state
        )
        return _from_workers(loader) if self._workers else iter(loader)

    def _order(self, epoch: int) -> list[Tensor]:
        """The share of this process in the sample numbers of each batch."""
        samples = len(self.samples.labels)
        generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, epoch))
        order = torch.randperm(samples, generator=generator) if self._shuffle else torch.arange(samples)
        batches = order.split(self._batch_size)[self._first_batch : len(self)]  # of no samples split makes a batch
        return [batch[self._rank :: self._world_size] for batch in batches]


class _EncodedSamples(TorchDataset[Batch]):
    """The samples by number, encoded a batch at a time."""

    def __init__(self, samples: Samples, encoding: Encoding | None, seed: int) -> None:
        self._samples, self._encoding, self._seed = samples, encoding, seed

    def __getitems__(self, index: Tensor) -> Batch:
        chosen = self._samples.select(index)
        if isinstance(chosen, LabelledEvents):
            return chosen.events, chosen.labels
        assert self._encoding is not None
        return self._encoding(chosen.images, index, self._seed), chosen.labels


class _FixedBatches(Sampler[Any]):
    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._batches)


def derived_seed(seed: int, *key: int) -> int:
    """A seed of 63 bits for one purpose of many; keys that differ give streams that do."""
    sequence = numpy.random.SeedSequence(seed, spawn_key=key)
    return int(sequence.generate_state(1, numpy.uint64)[0]) >> 1


def _as_is(batch: Any) -> Any:
    return batch


def _from_workers(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches that worker processes make."""
    others, workers = set(multiprocessing.active_children()), []
    try:
        with _starting_workers():
            batches = iter(loader)
        workers = [process for process in multiprocessing.active_children() if process not in others]
        yield from batches
    except Exception as error:
        own = _own_message(error)
        if own is not None:
            raise type(error)(own) from error
        # Often, but not always, torch says that a worker died; it also looks like any broken connection. The second is
        # for the time between the end of a worker's connections and its own.
        reason = str(error).partition("\n")[0]
        if "DataLoader worker (pid" in reason or wait([worker.sentinel for worker in workers], timeout=1):
            raise ChildProcessError(f"a DataLoader worker died ({reason}): try fewer workers") from error
        raise


@contextmanager
def _starting_workers() -> Iterator[None]:
    """While workers are started: what comes for them is the parent's, and torch's handler of SIGCHLD is not kept.

    That raises wherever the process is when a worker dies, inside a training step as well. Without it the death is
    noticed, within seconds, where a batch is awaited.
    """
    # A forked worker inherits the mask, so that no signal finds it before it has its own. A fork server would keep it.
    blocked = STOPPING if multiprocessing.get_start_method() == "fork" else ()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
    on_death = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        if on_death is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, on_death)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_signals_to_the_parent(worker: int) -> None:
    """SIGINT and SIGTERM reach the whole process group; the parent decides what they mean.

    Its own SIGTERM is how DataLoader ends a worker that does not end by itself.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    threading.Thread(target=_obey_the_parent, daemon=True).start()


def _obey_the_parent() -> None:
    parent = multiprocessing.parent_process()  # which a fork server is not
    while parent is None or signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def _own_message(error: Exception) -> str | None:
    """The message of a worker's error, which DataLoader puts behind the worker's traceback; None of another error."""
    kind = type(error).__name__
    found = re.fullmatch(rf".*\n(?:[\w.]+\.)?{kind}: (.*?)\s*", str(error), re.DOTALL)
    return None if found is None else found[1]
