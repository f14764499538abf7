"""``Observer``: callbacks of a run, for example for a progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .metrics import EpochMetrics, Tally

if TYPE_CHECKING:
    from .trainer import Trainer


class Observer:
    """Callbacks of a run; these do nothing."""

    def on_ready(self, trainer: Trainer) -> None:
        """Before ``on_start``: the trainer, to read its network, sample counts and configuration, not to change it."""

    def on_start(self, epochs: int, done: int) -> None:
        """Before the first epoch: the number of epochs, and how many were done before the run was resumed."""

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """After each optimiser step: the epoch, the fraction of the run that is done, and the epoch's sums so far."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """After each epoch and its evaluation."""
