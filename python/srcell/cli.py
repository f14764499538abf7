"""The command ``srcell``: arguments to a configuration, progress to the terminal, errors to one line.

Nothing imports this; it must never know how a network is trained or what a run folder holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import srcell

from . import benchmark, data, training
from ._extras import extra
from ._files import new_folder
from .config import PRESETS, TrainingConfig
from .training import EpochMetrics, Interrupted, Observer, RunOptions, Tally

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

    def on_start(self, epochs: int, done: int) -> None:
        """Say where a resumed run goes on."""
        self.epochs = epochs
        if done:
            print(f"going on after epoch {done}/{epochs}", flush=True)

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Print the epoch's metrics."""
        print(
            f"epoch {metrics.epoch}/{self.epochs}"
            f"  loss {metrics.train_loss:.4f}"
            f"  accuracy {metrics.train_accuracy:.1%}"
            f"{validation_text(metrics)}"
            f"  spike rate {metrics.spike_rate:.2%}"
            f"  {metrics.seconds:.1f} s",
            flush=True,
        )


class ProgressBar(Observer):
    """Keeps a rich progress bar of all batches of a run up to date."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.validation = ""
        self.task = progress.add_task("", total=1.0, status="")

    def on_start(self, epochs: int, done: int) -> None:
        """Show the bar."""
        self.epochs = epochs
        self.progress.update(self.task, description=f"epoch {done + 1}/{epochs}", completed=done / epochs)

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """Move the bar and show the epoch's sums so far."""
        self.progress.update(
            self.task,
            completed=fraction,
            description=f"epoch {epoch}/{self.epochs}",
            status=f"loss {tally.loss:.3f}  accuracy {tally.accuracy:.1%}{self.validation}"
            f"  spike rate {tally.spike_rate:.1%}",
        )

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """Keep the accuracy on the validation samples for the bar."""
        self.validation = validation_text(metrics)


def validation_text(metrics: EpochMetrics) -> str:
    """The accuracy on the validation samples, if there are any."""
    return "" if math.isnan(metrics.validation_accuracy) else f"  validation {metrics.validation_accuracy:.1%}"


@contextmanager
def shown_progress() -> Iterator[Observer]:
    """A progress bar while the block runs, or lines where standard output is not a terminal."""
    with extra("train"):
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    if not (sys.stdout.isatty() and is_first_process()):
        yield EpochLines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
    )
    with Progress(*columns, expand=True) as progress:
        yield ProgressBar(progress)


def train(arguments: argparse.Namespace) -> None:
    """Train a network, or go on with a run, show how it goes, and say what came of it."""
    given = given_settings(arguments)
    options = run_options(arguments)
    if arguments.resume is not None:
        if arguments.dataset is not None or given or arguments.preset is not None or arguments.out is not None:
            raise ValueError("--resume: expected a run folder and no settings, a run goes on with its own")
        out = arguments.resume
        with shown_progress() as observer:
            run = training.resume(out, observer, options)
    elif arguments.dataset is None:
        raise ValueError(f"expected a data set: one of {', '.join(data.NAMES)}")
    else:
        config = TrainingConfig.preset(arguments.preset or "best", arguments.dataset, **given)
        with run_folder(arguments.out, config) as out, shown_progress() as observer:
            run = training.train(config, out, observer, options)
    if is_first_process():
        seconds = sum(metrics.seconds for metrics in run.history)
        print(f"test accuracy {run.evaluation.accuracy:.2%} after {seconds:.1f} s of training, run folder {out}")


@contextmanager
def run_folder(out: Path | None, config: TrainingConfig) -> Iterator[Path]:
    """Where a run is to go: the given path, or one of data set and time that no other run has."""
    default = Path("runs") / f"{config.dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    if out is None and is_first_process():
        with new_folder(default) as made:
            yield made
    else:
        yield out or default


def evaluate(arguments: argparse.Namespace) -> None:
    """Print how the network of a run does on the test set, and what an inference costs."""
    from .run_folder import RunFolder

    folder = RunFolder.open(arguments.run_folder)
    evaluation = training.evaluate_run(folder, run_options(arguments), binary=arguments.binary)
    print(f"test accuracy {evaluation.accuracy:.2%} on {int(evaluation.confusion.sum())} samples")
    print(f"{'a mean inference':18}{'events':>12}{'spikes':>12}{'additions':>14}{'multiply-adds':>16}")
    for k, layer in enumerate(evaluation.counts):
        name = f"layer {k}" if k else "input"
        print(
            f"{name:18}{layer.events:12,.0f}{layer.spikes:12,.0f}{layer.additions:14,.0f}{layer.multiply_adds:16,.0f}"
        )


def sweep(arguments: argparse.Namespace) -> None:
    """Train once for each seed and each combination of values, and print a line for each run."""
    from .run_folder import RunFolder

    varied = [parse_variation(words) for words in arguments.vary or []]
    seeds = arguments.seeds or [0]
    names = [name for name, _ in varied]
    given, options = given_settings(arguments), run_options(arguments)
    configs = {}
    for seed, *values in itertools.product(seeds, *(values for _, values in varied)):
        changes = dict(zip(names, values, strict=True))
        name = "-".join([f"{key}={format_value(value)}" for key, value in changes.items()] + [f"seed={seed}"])
        configs[name] = (
            changes,
            TrainingConfig.preset(arguments.preset or "best", arguments.dataset, **given | changes | {"seed": seed}),
        )
    out = arguments.out or Path("runs") / f"sweep-{arguments.dataset}-{datetime.now():%Y%m%d-%H%M%S}"
    accuracies: dict[tuple[str, ...], list[float]] = {}
    for name, (changes, config) in configs.items():
        path = out / name
        if (path / "result.json").exists() and RunFolder.open(path).config == config:
            accuracy = json.loads((path / "result.json").read_text())["test_accuracy"]
        elif (path / "config.json").exists():
            if RunFolder.open(path).config != config:
                raise FileExistsError(f"{path} holds a run of another configuration: choose another --out")
            accuracy = training.resume(path, Observer(), options).evaluation.accuracy
        else:
            accuracy = training.train(config, path, Observer(), options).evaluation.accuracy
        print(f"{name}  test {accuracy:.2%}", flush=True)
        accuracies.setdefault(tuple(f"{k}={format_value(v)}" for k, v in changes.items()), []).append(accuracy)
    for key, values in accuracies.items():
        if len(values) > 1:
            spread = statistics.stdev(values)
            print(f"{' '.join(key) or 'all'}: mean {statistics.mean(values):.2%}, standard deviation {spread:.2%}")
    print(f"run folders in {out}")


def parse_variation(words: list[str]) -> tuple[str, list[Any]]:
    """The setting that ``--vary NAME VALUE...`` names, and its values."""
    name, *texts = words
    options = {option.removeprefix("--").replace("-", "_"): field for option, field, *_ in SETTINGS}
    known = options | {field: field for field in options.values()}
    key = name.removeprefix("--").replace("-", "_")
    data.check_name(key, tuple(known), "setting")
    if not texts:
        raise ValueError(f"--vary {name}: expected values behind it")
    field = known[key]
    default = getattr(TrainingConfig(), field)
    try:
        if isinstance(default, bool):
            return field, [{"true": True, "false": False}[text.lower()] for text in texts]
        if isinstance(default, tuple):
            return field, [tuple(int(size) for size in text.split("-") if size) for text in texts]
        return field, [type(default)(text) for text in texts]
    except (ValueError, KeyError) as error:
        kind = "sizes like 512-100" if isinstance(default, tuple) else type(default).__name__
        raise ValueError(f"--vary {name}: expected values of {kind}, got {' '.join(texts)}") from error


def format_value(value: object) -> str:
    """A setting's value as a part of a folder's name."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line changes."""
    given = {field: getattr(arguments, field) for _, field, *_ in SETTINGS if hasattr(arguments, field)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """What the command line says of this machine."""
    return RunOptions(
        **{
            field.name: getattr(arguments, field.name)
            for field in dataclasses.fields(RunOptions)
            if hasattr(arguments, field.name)
        }
    )


def is_first_process() -> bool:
    """Whether this process is the one of torchrun's that speaks."""
    return os.environ.get("RANK", "0") == "0"


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
    """The commands and their options."""
    parser = Parser(prog="srcell", description="Train networks of Spiking Recurrent Cells.")
    parser.add_argument("--version", action="version", version=f"srcell {srcell.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_train_command(commands)
    add_evaluate_command(commands)
    add_sweep_command(commands)
    add_bench_command(commands)
    commands.add_parser("info", help="show version, instruction set, threads").set_defaults(run=print_info)
    return parser


# The options of a run's settings: name, setting, type or None for a flag, metavar, help.
SETTINGS: tuple[tuple[str, str, Any, str, str], ...] = (
    ("--channels", "channels", int, "N", "output channels of each convolutional layer, 5 x 5 with stride 2"),
    ("--hidden", "hidden_sizes", int, "N", "neurons of each fully connected hidden layer"),
    ("--epochs", "epochs", int, "N", "passes over the training samples"),
    ("--batch-size", "batch_size", int, "N", "samples of an optimiser step, of all processes together"),
    ("--lr", "learning_rate", float, "X", "learning rate, the peak of a one-cycle schedule"),
    ("--schedule", "schedule", str, "NAME", "one-cycle or constant"),
    ("--weight-decay", "weight_decay", float, "X", "decay of the weights, as in AdamW"),
    ("--clip-norm", "clip_norm", float, "X", "largest norm of the gradients; 0: any"),
    ("--rate-penalty", "rate_penalty", float, "X", "pull of hidden layers to the target rate; 0: none"),
    ("--target-rate", "target_rate", float, "X", "mean output of a neuron and step that the penalty pulls to"),
    ("--dropout", "dropout", float, "X", "probability that a hidden neuron is silenced for a sample in training"),
    ("--balance-gradients", "balance_gradients", None, "", "keep the size of gradients through many layers"),
    ("--label-smoothing", "label_smoothing", float, "X", "as in torch's cross-entropy"),
    ("--train-samples", "train_samples", int, "N", "samples to train on, drawn by the seed; 0: all"),
    ("--validation", "validation", float, "X", "fraction of the training samples kept for validation; 0: none"),
    ("--seed", "seed", int, "N", "source of all randomness"),
    ("--encoding", "encoding", str, "NAME", "rate or latency, of images"),
    ("--steps", "steps", int, "N", "steps of an encoding"),
    ("--gain", "gain", float, "X", "firing probability of a full pixel in a step of rate coding"),
    ("--prefix", "prefix", int, "N", "silent steps before a sample"),
    ("--alpha", "alpha", float, "X", "what the neurons' integrators keep from step to step"),
    ("--surrogate", "surrogate", str, "NAME", "straight_through or relu"),
    ("--recurrent-grad", "recurrent_grad", None, "", "let gradients follow the recurrence"),
    ("--initial-state", "initial_state", str, "NAME", "zeros or rest"),
    ("--temperature", "temperature", float, "X", "what the readout's integrators are divided by"),
    ("--readout-alpha", "readout_alpha", float, "X", "what they keep from step to step"),
)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how to train: preset, settings, this machine; settings not given are absent from the namespace."""
    parser.add_argument("--preset", metavar="NAME", help=f"where settings come from: {', '.join(PRESETS)} [best]")
    group = parser.add_argument_group("settings", "What the preset says where they are not given.")
    for name, field, kind, metavar, text in SETTINGS:
        if kind is None:
            group.add_argument(name, dest=field, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            nargs = "*" if field in ("channels", "hidden_sizes") else None
            group.add_argument(
                name, dest=field, type=kind, nargs=nargs, metavar=metavar, default=argparse.SUPPRESS, help=text
            )
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what a run needs on this machine; options not given are absent from the namespace."""
    default = RunOptions()
    group = parser.add_argument_group("this machine", "The weights do not depend on these. Defaults in brackets.")

    def option(*names: str, text: str, **keywords: Any) -> None:
        group.add_argument(*names, default=argparse.SUPPRESS, help=text, **keywords)

    option(
        "--data",
        type=Path,
        metavar="DIR",
        text=f"folder of the data sets [that of the run, {training.DATA} for a new one]",
    )
    option("--download", action="store_true", text="fetch the data set into it if it is not there")
    option("--cache", action="store_true", text="keep binned recordings on disk")
    option("--workers", dest="num_workers", type=int, metavar="N", text="processes that encode batches ahead [0]")
    option("--device", metavar="NAME", text=f"where the network is [{default.device}]")
    option(
        "--checkpoint-seconds",
        type=float,
        metavar="X",
        text=f"least time between checkpoints within an epoch [{default.checkpoint_seconds:g}]",
    )


def add_train_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell train``."""
    parser = commands.add_parser(
        "train",
        help="train a network and leave a run folder",
        description="Train a network and leave a run folder. Ctrl-C stops it after a checkpoint. Under torchrun the "
        "processes share each batch.",
    )
    parser.add_argument("dataset", nargs="?", help=f"what to train on: {', '.join(data.NAMES)}")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run folder, new or empty [runs/<dataset>-<time>]")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the run in that folder")
    add_training_options(parser)
    parser.set_defaults(run=train)


def add_evaluate_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell eval``."""
    parser = commands.add_parser("eval", help="evaluate the network of a run, count events and operations")
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="its run folder")
    parser.add_argument("--binary", action="store_true", help="let layers pass on 1 where s > 0.5 instead of s")
    add_run_options(parser)
    parser.set_defaults(run=evaluate)


def add_sweep_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell sweep``."""
    parser = commands.add_parser(
        "sweep",
        help="train over seeds, or over the values of settings",
        description="Train once for each seed and each combination of values. Runs that are there are not made again.",
    )
    parser.add_argument("dataset", help=f"what to train on: {', '.join(data.NAMES)}")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds [0]")
    parser.add_argument(
        "--vary", action="append", nargs="+", metavar=("SETTING", "VALUE"), help="a setting and its values; repeatable"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run folders [runs/sweep-...]")
    add_training_options(parser)
    parser.set_defaults(run=sweep)


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
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and not any(x in reason for x in ("allocate memory", "out of memory")):
            raise
        print(f"srcell: so much memory is not to be had: choose smaller sizes or batches. {reason}", file=sys.stderr)
        return 2
    except Interrupted as stopped:
        print(f"srcell: {stopped}", file=sys.stderr)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        print("srcell: interrupted", file=sys.stderr)
        return 130
    return 0
