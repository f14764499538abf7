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
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .._shared.arguments import as_int, describe
from ..events import EventBatch
from ..events.checks import MAX_SIZE
from .cochlea import SoundEncoding
from .dataset import Dataset, LabelledEvents, LabelledImages, LabelledSequences, Samples
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
        encoding: how images, sequences or sounds become events; None for recordings. For sequences None is
            ``HeldEncoding(hold=1)``.
        batch_size: samples per batch, of all processes together; the last batch of an epoch may be smaller.
        shuffle: draw order and spikes anew in each epoch.
        seed: seed of order and spikes.
        num_workers: worker processes that prepare batches ahead; with 0 this process prepares them.
        rank: number of this process among those that share each batch.
        world_size: number of processes that share each batch; each gets every ``world_size``-th sample.

    Attributes:
        samples: as given.

    Raises:
        TypeError: ``samples`` is a whole data set; images lack an encoding or sounds a ``SoundEncoding``; or sequences
            have another encoding than a ``HeldEncoding``.
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
        if isinstance(samples, LabelledSequences) and encoding is None:
            encoding = HeldEncoding(hold=1)
        if isinstance(samples, LabelledSequences) and not isinstance(encoding, HeldEncoding):
            raise TypeError(f"encoding: expected a HeldEncoding for sequences, got {describe(encoding)}")
        if not isinstance(samples, LabelledEvents) and encoding is None:
            raise TypeError("encoding: expected a RateEncoding or a LatencyEncoding for images, got None")
        self.samples, self._encoding, self._shuffle = samples, encoding, shuffle
        self._batch_size = as_int("batch_size", batch_size, MAX_SIZE, minimum=1)
        self._seed = as_int("seed", seed, 2**128)
        self._workers = as_int("num_workers", num_workers, MOST_WORKERS)
        self._world_size = as_int("world_size", world_size, MAX_SIZE, minimum=1)
        self._rank = as_int("rank", rank, world_size - 1)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Set the epoch of the next iteration, and the batch that it starts from."""
        self._epoch = as_int("epoch", epoch, MAX_SIZE)
        self._first_batch = as_int("first_batch", first_batch, len(self))

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return math.ceil(len(self.samples.labels) / self._batch_size)

    def samples_in(self, batch: int) -> int:
        """Number of samples of a batch, in all processes together."""
        return min(self._batch_size, len(self.samples.labels) - batch * self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch if self._shuffle else 0
        batches: Any = self._order(epoch)  # DataLoader's data set: lists of samples' numbers
        loader: DataLoader[Batch] = DataLoader(
            batches,
            batch_size=None,  # each element of the data set is a batch
            collate_fn=partial(_encoded, self.samples, self._encoding, derived_seed(self._seed, SPIKES, epoch)),
            num_workers=self._workers,
            worker_init_fn=_leave_signals_to_the_parent,
            generator=torch.Generator(),  # otherwise DataLoader draws from torch's global generator
        )
        return _from_workers(loader) if self._workers else iter(loader)

    def _order(self, epoch: int) -> list[list[int]]:
        """The sample numbers of each batch that belong to this process."""
        samples = len(self.samples.labels)
        generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, epoch))
        order = torch.randperm(samples, generator=generator) if self._shuffle else torch.arange(samples)
        batches = order.split(self._batch_size)[self._first_batch : len(self)]  # split() of no samples gives one batch
        return [batch[self._rank :: self._world_size].tolist() for batch in batches]


def _encoded(samples: Samples, encoding: Encoding | None, seed: int, numbers: list[int]) -> Batch:
    """The batch of the samples with the given numbers."""
    index = torch.tensor(numbers, dtype=torch.int64)
    chosen = samples.select(index)
    if isinstance(chosen, LabelledEvents):
        return chosen.events, chosen.labels
    if isinstance(chosen, LabelledImages):
        assert encoding is not None
        return encoding(chosen.images, index, seed), chosen.labels
    assert isinstance(encoding, HeldEncoding | SoundEncoding)
    return encoding(chosen[0], lengths=chosen.lengths), chosen.labels


def derived_seed(seed: int, *key: int) -> int:
    """A 63-bit seed for one purpose; different keys give independent random streams."""
    sequence = numpy.random.SeedSequence(seed, spawn_key=key)
    return int(sequence.generate_state(1, numpy.uint64)[0]) >> 1


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
