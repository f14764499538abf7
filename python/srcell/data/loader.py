"""Batches of events from the samples of a data set: in what order, with which spikes, for which process.

Training, evaluation and users iterate over an ``EventLoader``; it must never know what a network does with a batch.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from ..encoders import latency_encode, rate_encode
from ..events import EventBatch
from .dataset import LabelledEvents, LabelledImages, Samples

Batch: TypeAlias = tuple[EventBatch, Tensor]

ORDER, SPIKES = 1, 2  # what a derived seed is for


@dataclass(frozen=True)
class RateEncoding:
    """Each pixel fires in every step with a probability of its own [A]; see ``srcell.rate_encode``."""

    steps: int = 200
    gain: float = 0.25
    prefix: int = 20

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> EventBatch:
        """The images (B, ...), which are the samples of those numbers, as events (T, B, K)."""
        return rate_encode(images, self.steps, prefix=self.prefix, gain=self.gain, seed=seed, index=index)


@dataclass(frozen=True)
class LatencyEncoding:
    """Each pixel that is not 0 fires once [O]; see ``srcell.latency_encode``."""

    steps: int = 200
    prefix: int = 20

    def __call__(self, images: Tensor, index: Tensor, seed: int) -> EventBatch:
        """The images (B, ...) as events (T, B, K), the same whatever the seed."""
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
        """Choose what the next iteration yields: that epoch, from that batch on."""
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
            worker_init_fn=_leave_interrupts_to_the_parent,
            generator=torch.Generator(),  # left to itself, DataLoader would draw from torch's global state
        )
        try:
            yield from loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise ChildProcessError(f"{error}: try fewer workers") from error

    def _order(self, epoch: int) -> list[Tensor]:
        """The share of this process in the sample numbers of each batch."""
        samples = len(self.samples.labels)
        generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, epoch))
        order = torch.randperm(samples, generator=generator) if self._shuffle else torch.arange(samples)
        batches = order.split(self._batch_size)[self._first_batch :]
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


def _leave_interrupts_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches the whole process group; the parent decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
