"""``Observer``: what a run calls as it goes; a progress bar is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .metrics import EpochMetrics, Tally

if TYPE_CHECKING:
    from .trainer import Trainer


class Observer:
    """What hears of a run as it goes; this one keeps silent."""

    def on_ready(self, trainer: Trainer) -> None:
        """Before ``on_start``: the network, the number of its samples and what it was asked for, none to be changed."""

    def on_start(self, epochs: int, done: int) -> None:
        """Before the first epoch: how many there will be, and how many an earlier part of the run has done."""

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """After each optimiser step: the fraction of the run's steps that are done, and the epoch's sums so far."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """After each epoch and its evaluation."""
