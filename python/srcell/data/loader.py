"""``EventLoader``: batches of events from the samples of a data set, shuffled, encoded and shared among processes.

Training, evaluation and users iterate over an ``EventLoader``.
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
from multiprocessing.connection import wait
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from .._arguments import describe
from ..events import EventBatch
from .cochlea import SoundEncoding
from .dataset import Dataset, LabelledEvents, LabelledSequences, Samples
from .encodings import Encoding, HeldEncoding
from .sounds import LabelledSounds

Batch: TypeAlias = tuple[EventBatch, Tensor]

ORDER, SPIKES = 1, 2  # purposes of derived seeds
STOPPING = (signal.SIGINT, signal.SIGTERM)
MOST_WORKERS = 1024


class EventLoader:
    """Iterates over one epoch of ``(EventBatch, labels)``.

    The order of the samples depends only on (seed, epoch), and the spikes of a sample only on (seed, epoch, its
    number). Neither depends on the number of workers or of processes that share the data. Without ``shuffle``, order
    and spikes are the same in every epoch.

    Args:
        samples: images, sequences, sounds or recordings. Sounds are encoded anew in every epoch; to encode them once,
            pass ``LabelledEvents(encoding(sounds.waves, lengths=sounds.lengths), sounds.labels)``.
        encoding: how images, sequences or sounds become events; None for recordings.
        batch_size: samples per batch, of all processes together; the last batch of an epoch may be smaller.
        shuffle: draw order and spikes anew in each epoch.
        seed: seed of order and spikes.
        num_workers: worker processes that prepare batches ahead; with 0 this process prepares them.
        rank: number of this process among those that share each batch.
        world_size: number of processes that share each batch; each gets every ``world_size``-th sample.

    Attributes:
        samples: as given.

    Raises:
        TypeError: ``samples`` is a whole data set; images lack an encoding, sequences a ``HeldEncoding``, or sounds a
            ``SoundEncoding``.
        ValueError: a number is outside its range, or the encoding is for sounds of another sampling rate.
        ChildProcessError: a worker died during the iteration.

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
        if isinstance(samples, Dataset):
            raise TypeError("samples: expected the samples to load, .train or .test of a data set, got a Dataset")
        if isinstance(samples, LabelledSounds):
            if not isinstance(encoding, SoundEncoding):
                raise TypeError(f"encoding: expected a SoundEncoding for sounds, got {describe(encoding)}")
            if encoding.rate != samples.rate:
                raise ValueError(f"encoding: expected one for sounds of {samples.rate} Hz, got {encoding.rate} Hz")
        if isinstance(samples, LabelledSequences) and not isinstance(encoding, HeldEncoding):
            raise TypeError(f"encoding: expected a HeldEncoding for sequences, got {describe(encoding)}")
        if not isinstance(samples, LabelledEvents) and encoding is None:
            raise TypeError("encoding: expected a RateEncoding or a LatencyEncoding for images, got None")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("seed", seed, 0),
            ("num_workers", num_workers, 0),
            ("world_size", world_size, 1),
        ):
            if value < least:
                raise ValueError(f"{name}: expected at least {least}, got {value}")
        if num_workers > MOST_WORKERS:
            raise ValueError(f"num_workers: expected at most {MOST_WORKERS} processes, got {num_workers}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank: expected a value in [0, {world_size}), got {rank}")
        self.samples = samples
        self._encoding, self._batch_size, self._shuffle, self._seed = encoding, batch_size, shuffle, seed
        self._workers, self._rank, self._world_size = num_workers, rank, world_size
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Set the epoch of the next iteration, and the batch that it starts from."""
        if epoch < 0:
            raise ValueError(f"epoch: expected at least 0, got {epoch}")
        if not 0 <= first_batch <= len(self):
            raise ValueError(f"first_batch: expected a value in [0, {len(self)}], got {first_batch}")
        self._epoch, self._first_batch = epoch, first_batch

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return math.ceil(len(self.samples.labels) / self._batch_size)

    def samples_in(self, batch: int) -> int:
        """Number of samples of a batch, in all processes together."""
        return min(self._batch_size, len(self.samples.labels) - batch * self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch if self._shuffle else 0
        loader = DataLoader(
            _EncodedSamples(self.samples, self._encoding, derived_seed(self._seed, SPIKES, epoch)),
            batch_sampler=_FixedBatches(self._order(epoch)),
            collate_fn=_as_is,
            num_workers=self._workers,
            worker_init_fn=_leave_signals_to_the_parent,
            generator=torch.Generator(),  # otherwise DataLoader draws from torch's global generator
        )
        return _from_workers(loader) if self._workers else iter(loader)

    def _order(self, epoch: int) -> list[Tensor]:
        """The sample numbers of each batch that belong to this process."""
        samples = len(self.samples.labels)
        generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, epoch))
        order = torch.randperm(samples, generator=generator) if self._shuffle else torch.arange(samples)
        batches = order.split(self._batch_size)[self._first_batch : len(self)]  # split() of no samples gives one batch
        return [batch[self._rank :: self._world_size] for batch in batches]


class _EncodedSamples(TorchDataset[Batch]):
    """A map-style data set for DataLoader, which encodes a whole batch at a time."""

    def __init__(self, samples: Samples, encoding: Encoding | None, seed: int) -> None:
        self._samples, self._encoding, self._seed = samples, encoding, seed

    def __getitems__(self, index: Tensor) -> Batch:
        chosen = self._samples.select(index)
        if isinstance(chosen, LabelledEvents):
            return chosen.events, chosen.labels
        if isinstance(chosen, LabelledSequences):
            assert isinstance(self._encoding, HeldEncoding)
            return self._encoding(chosen.values, lengths=chosen.lengths), chosen.labels
        if isinstance(chosen, LabelledSounds):
            assert isinstance(self._encoding, SoundEncoding)
            return self._encoding(chosen.waves, lengths=chosen.lengths), chosen.labels
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
    """A 63-bit seed for one purpose; different keys give independent random streams."""
    sequence = numpy.random.SeedSequence(seed, spawn_key=key)
    return int(sequence.generate_state(1, numpy.uint64)[0]) >> 1


def _as_is(batch: Any) -> Any:
    return batch


def _from_workers(loader: DataLoader[Batch]) -> Iterator[Batch]:
    """The batches of worker processes; a worker's error is raised with its own message."""
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
        # If a worker died, torch often says so, but may also raise any error of a broken connection. A worker's
        # connections close before the worker exits: hence the wait of a second.
        reason = str(error).partition("\n")[0]
        if "DataLoader worker (pid" in reason or wait([worker.sentinel for worker in workers], timeout=1):
            raise ChildProcessError(f"a DataLoader worker died ({reason}): try fewer workers") from error
        raise


@contextmanager
def _starting_workers() -> Iterator[None]:
    """While workers start, block SIGINT and SIGTERM for them; afterwards restore the previous handler of SIGCHLD.

    DataLoader's handler of SIGCHLD raises wherever the process is when a worker dies, even inside a training step.
    Without that handler, the loader notices the death within seconds, when the next batch is fetched.
    """
    # A forked worker inherits the signal mask, so no signal stops the worker before it sets its own mask. With a fork
    # server, signals are not blocked: the server would keep the mask for all later processes.
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
    """Let a worker ignore SIGINT and SIGTERM, which reach the whole process group: the parent decides when to stop.

    A SIGTERM from the parent still ends the worker: DataLoader ends hanging workers with it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    threading.Thread(target=_obey_the_parent, daemon=True).start()


def _obey_the_parent() -> None:
    parent = multiprocessing.parent_process()  # not a fork server, which sends nothing
    while parent is None or signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


def _own_message(error: Exception) -> str | None:
    """The message of a worker's error, which DataLoader appends to the worker's traceback; None for other errors."""
    kind = type(error).__name__
    found = re.fullmatch(rf".*\n(?:[\w.]+\.)?{kind}: (.*?)\s*", str(error), re.DOTALL)
    return None if found is None else found[1]
