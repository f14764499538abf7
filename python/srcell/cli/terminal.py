"""Terminal output: a run's header, its progress bar or a line per epoch, and tables.

The command line calls this.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .._extras import extra
from .._files import new_folder
from .._info import info
from ..diagnosis import Diagnosis
from ..layers import SRCConv2d
from ..training import EpochMetrics, Observer, Tally, Trainer

if TYPE_CHECKING:
    from rich.progress import Progress


class Shown(Observer):
    """Base class of the observers here: prints the header, and what a diagnosis finds.

    Args:
        header: yields the lines to print before the first epoch; none by default.

    """

    def __init__(self, header: Callable[[Trainer], Iterator[str]] | None = None) -> None:
        self.header = header

    def on_ready(self, trainer: Trainer) -> None:
        """Print the header."""
        if self.header is not None:
            say(*self.header(trainer))

    def on_diagnosis(self, diagnosis: Diagnosis) -> None:
        """Print a line for each finding."""
        if diagnosis.findings:
            say(*(f"warning: {line}" for line in diagnosis.findings))


class EpochLines(Shown):
    """Prints one plain line per epoch, for output that is not a terminal."""

    def on_start(self, epochs: int, done: int) -> None:
        """Print after which epoch a resumed run continues."""
        self.epochs = epochs
        if done:
            say(f"going on after epoch {done}/{epochs}")

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch's metrics."""
        say(
            f"epoch {metrics.epoch}/{self.epochs}"
            f"  loss {metrics.train_loss:.4f}"
            f"  accuracy {metrics.train_accuracy:.1%}"
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
            status=f"loss {tally.loss:.3f}  accuracy {tally.accuracy:.1%}{self.validation}",
        )

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Store the validation accuracy, which the bar shows from now on."""
        self.validation = validation_text(metrics)


def validation_text(metrics: EpochMetrics) -> str:
    """The validation accuracy as text, empty without validation samples."""
    return "" if math.isnan(metrics.validation_accuracy) else f"  validation {metrics.validation_accuracy:.1%}"


def header_of(out: Path, preset: str | None) -> Callable[[Trainer], Iterator[str]]:
    """Return a function that yields the header of a run in ``out``: data, network, machine and folder, one per line."""

    def header(trainer: Trainer) -> Iterator[str]:
        config, model = trainer.config, trainer.model
        counts = ", ".join(f"{count:,} {part}" for part, count in trainer.sample_counts.items())
        yield f"data     {config.dataset}: {counts} samples"
        inputs = "x".join(map(str, model.input_shape))
        channels = "".join(f"-{channels}c" for channels in config.channels)
        sizes = "".join(f"-{layer.hidden_size}" for layer in model.src_layers() if not isinstance(layer, SRCConv2d))
        if config.integer:
            sizes += f", integers with weights of {' '.join(map(str, config.weight_bits))} bits"
        parameters = sum(parameter.numel() for parameter in model.parameters())
        chosen = "" if preset is None else f", preset {preset}"
        yield f"network  {inputs}{channels}{sizes}, {parameters:,} parameters{chosen}, seed {config.seed}"
        device = next(model.parameters()).device
        yield f"machine  {device}, threads {torch.get_num_threads()}, {info()['isa']}"
        yield f"folder   {out}"

    return header


@contextmanager
def shown_progress(header: Callable[[Trainer], Iterator[str]] | None = None) -> Iterator[Observer]:
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


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: first column left-aligned, others right-aligned, no style unless standard output is a terminal."""
    with extra("train"):
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

    terminal = sys.stdout.isatty()
    table = Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold" if terminal else "")
    for k, name in enumerate(head):
        table.add_column(name, justify="right" if k else "left", no_wrap=not terminal)
    for row in rows:
        table.add_row(*map(printable, row))
    # Lines that go to a file or a pipe must not be wrapped.
    Console(markup=False, highlight=False, emoji=False, width=None if terminal else sys.maxsize).print(table)


def is_first_process() -> bool:
    """Whether this process has rank 0: of torchrun's processes, only that one prints."""
    return os.environ.get("RANK", "0") == "0"


def tell(line: str) -> None:
    """Print a line as ``say`` does, in the first process only."""
    if is_first_process():
        say(line)


def printable(text: str) -> str:
    r"""A text as one line that a terminal only shows: what is not printable is escaped, as by ``repr``.

    These are line breaks, tabs, the control characters with which escape sequences begin, and the characters of Unicode
    that change the direction of text or have no width. So names in files from others cannot forge or hide output.

    Example:
        >>> print(printable("a\x1b[31m\tb\u202e.wav"))
        a\x1b[31m\tb\u202e.wav

    """
    return "".join(x if x.isprintable() else repr(x)[1:-1] for x in text)


def put(*lines: str) -> None:
    """Print lines, which ``printable`` makes safe, and flush; only tables, bars and live lines do not pass here."""
    print(*map(printable, lines), sep="\n", flush=True)


def say(*lines: str) -> None:
    """Put lines. If the reader of standard output is gone, training continues without output."""
    try:
        put(*lines)
    except BrokenPipeError:
        silence()


def silence() -> None:
    """Discard all further standard output, because its reader is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def complain(line: str) -> None:
    """Write a line, which ``printable`` makes safe, to standard error in one call: lines of processes do not mix."""
    sys.stderr.write(f"{printable(line)}\n")
    sys.stderr.flush()


@contextmanager
def printable_warnings() -> Iterator[None]:
    """Let warnings in the block be printed as one line each, which ``printable`` makes safe: they may name files."""

    def as_line(message: object, category: type[Warning], filename: str, lineno: int, line: object = None) -> str:
        return printable(f"{filename}:{lineno}: {category.__name__}: {message}") + "\n"

    usual = warnings.formatwarning
    warnings.formatwarning = as_line
    try:
        yield
    finally:
        warnings.formatwarning = usual


@contextmanager
def folder_of(out: Path | None, kind: str) -> Iterator[Path]:
    """The folder of a run or a sweep: ``out``, or else a new folder named by kind and time."""
    default = Path("runs") / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
    if out is None and is_first_process():
        with new_folder(default) as made:
            yield made
    else:
        yield out or default
