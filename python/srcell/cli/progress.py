"""What the terminal shows of a run: its header, and a progress bar or a line per epoch."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .._shared.extras import extra
from ..diagnosis import Diagnosis
from ..evaluation import Evaluation
from ..kernels import info
from ..layers import SRCConv2d
from ..models import Classifier
from ..training import EpochMetrics, Observer, Tally, Trainer
from .terminal import is_first_process, say

if TYPE_CHECKING:
    from rich.progress import Progress


class Shown(Observer):
    """Base class of the observers here: prints the header, and what a diagnosis finds.

    Args:
        header: yields the lines to print before the first epoch; none by default.

    """

    def __init__(self, header: Callable[[Trainer], Iterator[str]] | None = None) -> None:
        self.header = header
        self.warned: set[tuple[str, str]] = set()  # layers and signs, without their numbers
        self.ended = False

    def on_ready(self, trainer: Trainer) -> None:
        """Print the header."""
        self.ended = trainer.ended
        if self.header is not None:
            say(*self.header(trainer))

    def on_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Print a line for each finding that no epoch before had."""
        for line in diagnosis.findings:
            layer, _, sign = line.partition(": ")
            words = layer, re.sub("[0-9][0-9.e+-]*", "#", re.split("[,:]", sign)[0])
            if words not in self.warned:
                self.warned.add(words)
                say(f"warning: {line}")

    def on_best(self, epoch: int) -> None:
        """Print which epoch's weights are kept."""
        say(f"the weights are those of epoch {epoch}, the best on the validation samples")


class EpochLines(Shown):
    """Prints one plain line per epoch, for output that is not a terminal."""

    def on_start(self, epochs: int, done: int) -> None:
        """Print after which epoch a resumed run continues."""
        self.epochs = epochs
        if done and not self.ended:
            say(f"going on after epoch {done}/{epochs}")

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch's metrics."""
        say(
            f"epoch {metrics.epoch}/{self.epochs}"
            f"  loss {metrics.train_loss:.4f}"
            f"{accuracy_text('accuracy', metrics.train_accuracy)}"
            f"{validation_text(metrics)}"
            f"  spike rate {metrics.spike_rate:.2%}"
            f"  {metrics.seconds:.1f} s"
        )


class ProgressBar(Shown):
    """Shows a progress bar (rich) over all batches of a run."""

    def __init__(self, progress: Progress, header: Callable[[Trainer], Iterator[str]] | None = None) -> None:
        super().__init__(header)
        self.progress = progress
        self.validation = ""

    def on_start(self, epochs: int, done: int) -> None:
        """Show the bar."""
        self.epochs = epochs
        self.task = self.progress.add_task(f"epoch {min(done + 1, epochs)}/{epochs}", total=1.0, status="")
        self.progress.update(self.task, completed=done / epochs)

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """Move the bar and show the epoch's loss and accuracy so far; more does not fit in 80 columns."""
        self.progress.update(
            self.task,
            completed=fraction,
            description=f"epoch {epoch}/{self.epochs}",
            status=f"loss {tally.loss:.3f}{accuracy_text('accuracy', tally.accuracy)}{self.validation}",
        )

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Store the validation accuracy, which the bar shows from now on."""
        self.validation = validation_text(metrics)

    def on_best(self, epoch: int) -> None:
        """Fill the bar, and print which epoch's weights are kept."""
        self.progress.update(self.task, completed=1.0)
        super().on_best(epoch)


def validation_text(metrics: EpochMetrics) -> str:
    """The validation accuracy as text, or the loss for targets; empty without validation samples."""
    if math.isnan(metrics.train_accuracy) and not math.isnan(metrics.validation_loss):
        return f"  validation {metrics.validation_loss:.3g}"
    return accuracy_text("validation", metrics.validation_accuracy)


def result_text(evaluation: Evaluation) -> str:
    """What a test found: the accuracy, or the error and R2 for targets."""
    if len(evaluation.confusion):
        of_samples = f" of steps (mean of each sample's accuracy: {evaluation.sample_accuracy:.2%})"
        return f"test accuracy {evaluation.accuracy:.2%}{of_samples if evaluation.of_steps else ''}"
    return f"test error {math.sqrt(evaluation.loss):.4g} (root mean square), R2 {evaluation.r2:.3f},"


def accuracy_text(name: str, accuracy: float) -> str:
    """An accuracy with its name as text, empty for NaN."""
    return "" if math.isnan(accuracy) else f"  {name} {accuracy:.1%}"


def header_of(out: Path, preset: str | None) -> Callable[[Trainer], Iterator[str]]:
    """Return a function that yields the header of a run in ``out``: data, network, machine and folder, one per line."""

    def header(trainer: Trainer) -> Iterator[str]:
        config, model = trainer.config, trainer.model
        counts = ", ".join(f"{count:,} {part}" for part, count in trainer.sample_counts.items())
        yield f"data     {config.dataset}: {counts} samples"
        yield f"network  {_sizes(trainer)}{'' if preset is None else f', preset {preset}'}, seed {config.seed}"
        device = next(model.parameters()).device
        yield f"machine  {device}, threads {torch.get_num_threads()}, {info()['isa']}"
        yield f"folder   {out}"

    return header


def _sizes(trainer: Trainer) -> str:
    """The sizes of a run's network, and the number of its parameters."""
    config, model = trainer.config, trainer.model
    sizes = type(model).__name__
    if isinstance(model, Classifier):
        channels = "".join(f"-{channels}c" for channels in config.channels)
        sizes = "x".join(map(str, model.input_shape)) + channels
        sizes += "".join(f"-{layer.hidden_size}" for layer in model.src_layers() if not isinstance(layer, SRCConv2d))
        if config.integer:
            sizes += f", integers with weights of {' '.join(map(str, config.weight_bits))} bits"
    return f"{sizes}, {sum(parameter.numel() for parameter in model.parameters()):,} parameters"


@contextmanager
def shown_progress(header: Callable[[Trainer], Iterator[str]]) -> Iterator[Observer]:
    """Make an observer for the block: a progress bar, or lines if standard output is not a terminal.

    The observer prints the header first.
    """
    with extra("train"):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not (sys.stdout.isatty() and is_first_process()):
        yield EpochLines(header)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(*columns, expand=True) as progress:
        yield ProgressBar(progress, header)
