"""``Observer``: callbacks of a run, for example for a progress bar."""

from __future__ import annotations

from ..diagnosis import Diagnosis
from .metrics import EpochMetrics, Tally
from .trainer import Trainer


class Observer:
    """Callbacks of a run; those of this class do nothing."""

    def on_ready(self, trainer: Trainer) -> None:
        """Called before ``on_start``, to read, not change, the trainer's network, sample counts and configuration."""

    def on_start(self, epochs: int, done: int) -> None:
        """Called before the first epoch, with the number of epochs and of those done before the run was resumed."""

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """Called after each optimiser step, with the epoch, the finished fraction of the run and the epoch's sums."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Called after each epoch and its evaluation."""

    def on_best(self, epoch: int) -> None:
        """Called at the end of a run with ``patience``, with the epoch whose weights are kept."""

    def on_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Called after the first epoch and each tenth of a run; the diagnosis has gradients after the first only."""
