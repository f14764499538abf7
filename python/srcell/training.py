"""The training loop: a configuration in, a trained network and its run folder out.

The command line and users call it; it must never know how progress is shown, how the files of a run are written, or
what happens inside a layer.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import Tensor
from torch.nn import functional
from torch.optim.lr_scheduler import OneCycleLR

from . import data
from .data import Dataset, LabelledImages
from .encoders import rate_encode
from .events import EventBatch
from .models import SRCClassifier

EVALUATION_BATCH = 512
EVALUATION_SEED = 0
WEIGHTS, ORDER, ENCODING = range(3)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a run depends on: the same configuration gives the same weights.

    Attributes:
        dataset: a name that ``srcell.data.load`` knows.
        hidden_sizes: neurons of each hidden layer; empty for none.
        epochs: passes over the training images.
        batch_size: samples of one optimiser step.
        learning_rate: the peak of the one-cycle schedule of Adam [O].
        seed: the source of all randomness: weights, order of the samples, spikes.
        steps: steps of rate coding, after the silent prefix [A].
        gain: probability that a pixel of 1 fires in a step [A].
        surrogate: "straight_through" or "relu", as in ``SRC``.
        recurrent_grad: whether gradients follow the recurrence, as in ``SRC``.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> TrainingConfig(epochs=0)
        Traceback (most recent call last):
        ValueError: epochs: expected at least 1, got 0

    """

    dataset: str = "digits"
    hidden_sizes: tuple[int, ...] = (128,)
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 4e-2
    seed: int = 0
    steps: int = 100
    gain: float = 0.5
    surrogate: str = "straight_through"
    recurrent_grad: bool = False

    def __post_init__(self) -> None:
        counts = {"epochs": self.epochs, "batch_size": self.batch_size, "steps": self.steps}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if any(size < 1 for size in self.hidden_sizes):
            raise ValueError(f"hidden_sizes: expected at least 1 neuron each, got {list(self.hidden_sizes)}")
        if not 0 < self.learning_rate <= 1:
            raise ValueError(f"learning_rate: expected a number in (0, 1], got {self.learning_rate}")
        if not 0 < self.gain <= 1:
            raise ValueError(f"gain: expected a number in (0, 1], got {self.gain}")
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")


class EpochMetrics(NamedTuple):
    """One row of metrics.csv.

    Attributes:
        epoch: 1 for the first.
        train_loss: mean cross-entropy (nats) of the training samples, each as it was when the epoch met it.
        train_accuracy: fraction of the training samples classified rightly, likewise.
        test_accuracy: fraction of the held-out samples classified rightly after the epoch.
        spike_rate: fraction of the cells (neuron, step, sample) of all layers that are active (s > 0), likewise.
        seconds: wall time of the epoch, evaluation included.

    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_accuracy: float
    spike_rate: float
    seconds: float


class TrainedRun(NamedTuple):
    """What ``train`` leaves: the network after the last epoch, and a row for each epoch."""

    model: SRCClassifier
    history: list[EpochMetrics]


class Tally:
    """Running sums over the samples of an epoch."""

    def __init__(self) -> None:
        self._samples = self._correct = self._cells = self._active = 0
        self._loss = 0.0

    def add(self, loss: float, logits: Tensor, labels: Tensor, spikes: list[Tensor]) -> None:
        """Count a batch: its mean loss, logits (B, C), labels (B,) and the spikes (T, B, N) of each layer."""
        self._samples += len(labels)
        self._loss += loss * len(labels)
        self._correct += _count_correct(logits, labels)
        self._cells += sum(layer.numel() for layer in spikes)
        self._active += sum(int(layer.count_nonzero()) for layer in spikes)

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return self._loss / self._samples

    @property
    def accuracy(self) -> float:
        """Fraction of the samples classified rightly."""
        return self._correct / self._samples

    @property
    def spike_rate(self) -> float:
        """Fraction of the cells that are active."""
        return self._active / self._cells


class Observer:
    """What hears of a run as it goes; this one keeps silent."""

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """After each optimiser step: the fraction of the run's steps that are done, and the epoch's sums so far."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """After each epoch and its evaluation."""


def train(config: TrainingConfig, out: str | Path, observer: Observer | None = None) -> TrainedRun:
    """Train a network and leave a run folder.

    Adam with a one-cycle learning rate and cross-entropy [O]; the images are rate-encoded anew in every epoch [A]. The
    held-out images are always encoded with the same spikes.

    Args:
        config: what to train.
        out: the run folder, made here: config.json, metrics.csv (a row an epoch, written as it goes),
            learning_curve.png and model.safetensors.
        observer: hears of every batch and epoch.

    Raises:
        ValueError: an unknown data set or surrogate.
        FileExistsError: ``out`` exists and is not an empty folder.
        FloatingPointError: the loss is no longer a finite number.
        ImportError: a dependency of the extra "train" is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = train(TrainingConfig(hidden_sizes=(), epochs=1, steps=5), out)
        >>> [metrics.epoch for metrics in run.history]
        [1]

    """
    # Imported here because it needs the extra "train", which the command line's help and errors do without.
    from .run_folder import RunFolder

    observer = observer or Observer()
    trainer = Trainer(config, data.load(config.dataset))
    folder = RunFolder(out, config)
    history: list[EpochMetrics] = []
    for epoch in range(1, config.epochs + 1):
        history.append(trainer.train_epoch(epoch, observer))
        folder.add_row(history[-1])
        observer.on_epoch(history[-1])
    folder.finish(trainer.model, history)
    return TrainedRun(trainer.model, history)


class Trainer:
    """A network with its data, optimiser and learning-rate schedule.

    Attributes:
        model: the network, trained as far as ``train_epoch`` was called.

    """

    def __init__(self, config: TrainingConfig, dataset: Dataset) -> None:
        self.model = build_model(config, dataset)
        self._config = config
        self._dataset = dataset
        self._batches = math.ceil(len(dataset.train.labels) / config.batch_size)
        self._optimizer = torch.optim.Adam(self.model.parameters())
        self._schedule = OneCycleLR(
            self._optimizer, config.learning_rate, epochs=config.epochs, steps_per_epoch=self._batches
        )

    def train_epoch(self, epoch: int, observer: Observer) -> EpochMetrics:
        """Train on every sample once, then evaluate; epochs are called in order, from 1.

        Raises:
            FloatingPointError: the loss is no longer a finite number.

        """
        start = time.perf_counter()
        tally = Tally()
        batches = encoded_batches(self._config, self._dataset.train, epoch)
        for done, (events, labels) in enumerate(batches, start=(epoch - 1) * self._batches + 1):
            self._train_batch(events, labels, tally)
            observer.on_batch(epoch, done / (self._config.epochs * self._batches), tally)
        test_accuracy = evaluate(self._config, self.model, self._dataset.test)
        seconds = time.perf_counter() - start
        return EpochMetrics(epoch, tally.loss, tally.accuracy, test_accuracy, tally.spike_rate, seconds)

    def _train_batch(self, events: EventBatch, labels: Tensor, tally: Tally) -> None:
        spikes = self.model.layer_spikes(events)
        logits = self.model.readout(spikes[-1], lengths=events.lengths)
        loss = functional.cross_entropy(logits, labels)
        if not loss.isfinite():
            rate = self._schedule.get_last_lr()[0]
            raise FloatingPointError(f"the loss became {loss.item()} at a learning rate of {rate:.3g}: use a lower one")
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        self.model.constrain_()
        tally.add(loss.item(), logits, labels, spikes)


def build_model(config: TrainingConfig, dataset: Dataset) -> SRCClassifier:
    """The untrained network of a run; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_derived_seed(config, WEIGHTS))
        return SRCClassifier(
            dataset.train.images[0].numel(),
            config.hidden_sizes,
            dataset.num_classes,
            surrogate=config.surrogate,
            recurrent_grad=config.recurrent_grad,
        )


def encoded_batches(config: TrainingConfig, samples: LabelledImages, epoch: int) -> Iterator[tuple[EventBatch, Tensor]]:
    """The samples as events (T, B, K) with labels (B,), in an order and with spikes that are the epoch's own."""
    generator = torch.Generator().manual_seed(_derived_seed(config, ORDER, epoch))
    order = torch.randperm(len(samples.labels), generator=generator)
    seed = _derived_seed(config, ENCODING, epoch)
    for index in order.split(config.batch_size):
        yield encode(config, samples, index, seed), samples.labels[index]


def encode(config: TrainingConfig, samples: LabelledImages, index: Tensor, seed: int) -> EventBatch:
    """The samples of those numbers, rate-encoded: T is the silent prefix and ``config.steps``."""
    images = samples.images[index].flatten(1)
    return rate_encode(images, config.steps, gain=config.gain, seed=seed, index=index)


@torch.no_grad()
def evaluate(config: TrainingConfig, model: SRCClassifier, samples: LabelledImages) -> float:
    """The fraction of the samples that the model classifies rightly; their spikes are the same in every call."""
    batches = torch.arange(len(samples.labels)).split(EVALUATION_BATCH)
    correct = sum(
        _count_correct(model(encode(config, samples, index, EVALUATION_SEED)), samples.labels[index])
        for index in batches
    )
    return correct / len(samples.labels)


def _count_correct(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(1) == labels).sum())


def _derived_seed(config: TrainingConfig, purpose: int, epoch: int = 0) -> int:
    """A seed of 63 bits that differs by the run's seed, what it is for, and the epoch."""
    sequence = numpy.random.SeedSequence(config.seed, spawn_key=(purpose, epoch))
    return int(sequence.generate_state(1, numpy.uint64)[0]) >> 1
