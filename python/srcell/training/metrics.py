"""``EpochMetrics``, an epoch's loss, accuracy and rates (a row of metrics.csv), and ``Tally``, their running sums."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..evaluation import Evaluation, count_correct
from ..functional import count_spikes

if TYPE_CHECKING:
    from .config import TrainingConfig

BY_HEART = 0.5  # of the targets' variance: a training error below it shows that the network can learn its samples


class EpochMetrics(NamedTuple):
    """One row of metrics.csv.

    Attributes:
        epoch: 1 for the first.
        train_loss: mean cross-entropy (nats), or squared error for targets, of the training samples, each evaluated in
            its optimiser step. The error of standardised targets is in units of their variance: 1 is that of the mean.
        train_accuracy: fraction of the training samples classified correctly, each evaluated in its optimiser step; NaN
            for targets.
        validation_accuracy: fraction of the validation samples classified correctly after the epoch; NaN for targets,
            and if there are no validation samples.
        spike_rate: fraction of the elements (neuron, step, sample) of all layers that are active (s > 0) in training.
        learning_rate: learning rate of the epoch's last optimiser step.
        seconds: wall time of the epoch, evaluation included.
        validation_loss: mean cross-entropy (nats), or squared error as in ``train_loss``, of the validation samples
            after the epoch; NaN if there are none.

    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    spike_rate: float
    learning_rate: float
    seconds: float
    validation_loss: float


def best_epoch(history: Sequence[EpochMetrics]) -> int:
    """The epoch of the highest validation accuracy and, among equals, of the lowest validation loss; 0 without any.

    For targets, which have no accuracy, it is that of the lowest loss.

    Example:
        >>> rows = [EpochMetrics(k + 1, 1.0, 0.5, x, 0.1, 0.01, 1.0, 1.0) for k, x in enumerate([0.7, 0.9, 0.8])]
        >>> best_epoch(rows)
        2

    """
    accuracies = [0 if math.isnan(row.validation_accuracy) else row.validation_accuracy for row in history]
    ranked = zip(accuracies, (-row.validation_loss for row in history), history, strict=True)
    best = max(ranked, key=lambda row: row[:2], default=(0, 0, None))[2]
    return 0 if best is None else best.epoch


def remark(history: Sequence[EpochMetrics], evaluation: Evaluation, config: TrainingConfig | None) -> str:
    """In a regression that is worse than the mean of the training targets, that it is and why; else empty.

    The training's errors are in units of the targets' variance if the configuration says so; None for one unknown.

    Example:
        >>> row = EpochMetrics(9, 0.1, math.nan, math.nan, 0.1, 0.01, 1.0, 1.4)
        >>> remark([row], Evaluation(math.nan, torch.zeros(0, 0), [], [], 2.0, r2=-0.4, r2_of_mean=-0.1), None)
        'worse than the mean of the training targets (R2 -0.100): the error is 1.4 times the variance of the targets'

    """
    if not evaluation.r2 < evaluation.r2_of_mean:
        return ""
    error = history[-1].train_loss
    found = f"worse than the mean of the training targets (R2 {evaluation.r2_of_mean:.3f})"
    if config is None or not (config.standardise_targets and config.readout == "linear"):
        return f"{found}: the error is {1 - evaluation.r2:.2g} times the variance of the targets"
    if error < BY_HEART:
        return (
            f"{found}: of the variance, the error fell to {error:.2g} on the training samples and is "
            f"{1 - evaluation.r2:.2g} on the test samples: more samples would help most, or more dropout"
        )
    return f"{found}: of the variance, {error:.2g} is left on the training samples too: do the inputs tell the targets?"


class Tally:
    """Running sums over the samples of an epoch.

    Attributes:
        sums: (5,) float64: samples, summed loss, samples classified correctly, elements, active elements.

    """

    def __init__(self, sums: Sequence[float] = (0, 0, 0, 0, 0)) -> None:
        self.sums = torch.tensor(sums, dtype=torch.float64)

    def add(self, loss: float, output: Tensor, labels: Tensor, spikes: list[Tensor], samples: int) -> None:
        """Add a batch.

        Args:
            loss: summed over the A answers.
            output: (A, C).
            labels: (A,), or targets (A, C).
            spikes: (T, B, N) of each layer.
            samples: the number of samples, B.

        """
        elements = sum(layer.numel() for layer in spikes)
        active = sum(int(count_spikes(layer).events.sum()) for layer in spikes)
        answers = len(labels)
        correct = math.nan if labels.is_floating_point() else count_correct(output, labels)
        # With an answer at every step, a sample counts as one.
        scale = 1 if answers == samples else samples / max(answers, 1)
        batch = (samples, scale * loss, scale * correct, elements, active)
        self.sums += torch.tensor(batch, dtype=torch.float64)

    @property
    def loss(self) -> float:
        """Mean cross-entropy, or squared error, of the samples."""
        return float(self.sums[1] / self.sums[0])

    @property
    def accuracy(self) -> float:
        """Fraction of the samples classified correctly; NaN for targets."""
        return float(self.sums[2] / self.sums[0])

    @property
    def spike_rate(self) -> float:
        """Fraction of the elements that are active."""
        return float(self.sums[4] / self.sums[3])
