"""The command ``srcell``: arguments to a configuration, progress to the terminal, errors to one line.

Nothing imports this; it must never know how a network is trained or what a run folder holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import srcell

from . import benchmark, data, training
from ._extras import train_extra
from .training import EpochMetrics, Observer, Tally, TrainingConfig

if TYPE_CHECKING:
    from rich.progress import Progress

USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are the caller's to print."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as a ValueError."""
        raise ValueError(message)


class EpochLines(Observer):
    """A plain line an epoch, for output that is not a terminal."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch's metrics."""
        print(
            f"epoch {metrics.epoch}/{self.epochs}"
            f"  loss {metrics.train_loss:.4f}"
            f"  accuracy {metrics.train_accuracy:.1%}"
            f"  test {metrics.test_accuracy:.1%}"
            f"  spike rate {metrics.spike_rate:.2%}"
            f"  {metrics.seconds:.1f} s",
            flush=True,
        )


class ProgressBar(Observer):
    """Keeps a rich progress bar of all batches of a run up to date."""

    def __init__(self, progress: Progress, epochs: int) -> None:
        self.progress = progress
        self.epochs = epochs
        self.test = ""
        self.task = progress.add_task(f"epoch 1/{epochs}", total=1.0, status="")

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """Move the bar and show the epoch's sums so far."""
        self.progress.update(
            self.task,
            completed=fraction,
            description=f"epoch {epoch}/{self.epochs}",
            status=f"loss {tally.loss:.3f} accuracy {tally.accuracy:.1%}{self.test} spikes {tally.spike_rate:.1%}",
        )

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Keep the accuracy on the held-out samples for the bar."""
        self.test = f" test {metrics.test_accuracy:.1%}"


@contextmanager
def shown_progress(epochs: int) -> Iterator[Observer]:
    """A progress bar while the block runs, or lines where standard output is not a terminal."""
    with train_extra():
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not sys.stdout.isatty():
        yield EpochLines(epochs)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(*columns, expand=True) as progress:
        yield ProgressBar(progress, epochs)


def train(arguments: argparse.Namespace) -> None:
    """Train a network, show how it goes, and say what came of it."""
    settings = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(TrainingConfig)}
    config = TrainingConfig(**settings | {"hidden_sizes": tuple(arguments.hidden_sizes)})
    out = arguments.out or Path("runs") / f"{config.dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    with shown_progress(config.epochs) as observer:
        history = training.train(config, out, observer).history
    seconds = sum(metrics.seconds for metrics in history)
    print(f"test accuracy {history[-1].test_accuracy:.2%} after {seconds:.1f} s of training, run folder {out}")


def bench(arguments: argparse.Namespace) -> None:
    """Measure the chosen cases, print each setting as it is done, and write them all as JSON."""
    out: Path | None = arguments.out
    if out is not None and not out.parent.is_dir():
        raise FileNotFoundError(f"{out.parent} is not a folder: choose another --out")
    repetitions = arguments.repetitions
    if repetitions is None:
        repetitions = 3 if arguments.quick else 9
    settings = benchmark.choose(arguments.cases, threads=arguments.threads, quick=arguments.quick)
    results = []
    for result in benchmark.run(settings, repetitions):
        print(*describe_result(result), "", sep="\n", flush=True)
        results.append(result)
    if out is not None:
        out.write_text(json.dumps(benchmark.record(results, Path(benchmark.__file__)), indent=1) + "\n")


def describe_result(result: benchmark.Result) -> Iterator[str]:
    """A line on what was measured, and one for each row."""
    setting, rows = result["setting"], result["milliseconds"]
    sizes = "-".join(map(str, [setting["inputs"], *setting["neurons"]]))
    yield (
        f"{setting['case']}: {setting['subject']} {sizes}, T {setting['steps']}, B {setting['batch']}, "
        f"{setting['density']:.1%} events, {setting['surrogate']}, recurrent_grad={setting['recurrent_grad']}, "
        f"threads {setting['threads']}, median (quartiles) of {result['repetitions']} repetitions"
    )
    width = 2 + max(map(len, benchmark.LABELS.values()))
    passes = next(iter(rows.values()))
    yield " " * width + "".join(f"{key + ', ms':>32}" for key in passes)
    for name, times in rows.items():
        cells = (f"{t['median']:.2f} ({t['quartile1']:.2f} to {t['quartile3']:.2f})" for t in times.values())
        yield f"{benchmark.LABELS[name]:{width}}" + "".join(f"{cell:>32}" for cell in cells)
    for name, reason in result["left_out"].items():
        yield f"{benchmark.LABELS[name]:{width}}left out: {reason}"


def print_info(arguments: argparse.Namespace) -> None:
    """Print what ``srcell.info`` tells, a line a fact."""
    for name, value in srcell.info().items():
        print(f"{name:16}{', '.join(value) if isinstance(value, list | tuple) else value}")


def build_parser() -> Parser:
    """The commands and their options; the defaults are those of ``TrainingConfig``."""
    parser = Parser(prog="srcell", description="Train networks of Spiking Recurrent Cells.")
    parser.add_argument("--version", action="version", version=f"srcell {srcell.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_train_command(commands)
    add_bench_command(commands)
    commands.add_parser("info", help="show version, instruction set, threads").set_defaults(run=print_info)
    return parser


def add_train_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell train``."""
    default = TrainingConfig()
    hidden_sizes = " ".join(map(str, default.hidden_sizes))
    parser = commands.add_parser("train", help="train a network and leave a run folder", epilog="Defaults in brackets.")
    option = parser.add_argument
    option("dataset", help=f"what to train on: {', '.join(data.LOADERS)}")
    option("--hidden", dest="hidden_sizes", type=int, nargs="*", metavar="N", help=f"hidden layers [{hidden_sizes}]")
    option("--epochs", type=int, metavar="N", help=f"passes over the training samples [{default.epochs}]")
    option("--batch-size", type=int, metavar="N", help=f"samples of an optimiser step [{default.batch_size}]")
    option("--lr", dest="learning_rate", type=float, metavar="X", help=f"peak learning rate [{default.learning_rate}]")
    option("--seed", type=int, metavar="N", help=f"source of all randomness [{default.seed}]")
    option("--steps", type=int, metavar="N", help=f"steps of rate coding a sample [{default.steps}]")
    option("--gain", type=float, metavar="X", help=f"firing probability of a full pixel in a step [{default.gain}]")
    option("--surrogate", metavar="NAME", help=f"straight_through or relu [{default.surrogate}]")
    option("--recurrent-grad", action="store_true", help="let gradients follow the recurrence")
    option("--out", type=Path, metavar="DIR", help="run folder, new or empty [runs/<dataset>-<time>]")
    parser.set_defaults(run=train, **dataclasses.asdict(default))


def add_bench_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell bench``."""
    parser = commands.add_parser(
        "bench",
        help="time srcell beside PyTorch",
        description="Time srcell beside PyTorch and what else is installed. Run it alone on the machine.",
        epilog="Defaults in brackets.",
    )
    option = parser.add_argument
    option("cases", nargs="*", metavar="CASE", help=f"some of {', '.join(benchmark.CASES)} [all]")
    option("--threads", type=int, metavar="N", help="threads of the cases that do not fix them [all]")
    option("--repetitions", type=int, metavar="N", help="of every row; slow cases get fewer, fast ones more [9]")
    option("--quick", action="store_true", help="3 repetitions, small batches, nothing compiled: for a look")
    option("--out", type=Path, metavar="FILE.json", help="write settings, times and environment here")
    parser.set_defaults(run=bench)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if it went well, 2 after an error of the user's, told in one line on standard error.

    Example:
        >>> main(["info", "--colour"])
        2

    """
    try:
        arguments = build_parser().parse_args(argv)
        arguments.run(arguments)
    except USER_ERRORS as error:
        print(f"srcell: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("srcell: interrupted", file=sys.stderr)
        return 130
    return 0
