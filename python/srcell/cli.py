"""The command ``srcell``: arguments to a configuration, errors to one line.

Nothing imports this; it must never know how a network is trained or what a run folder holds.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import srcell

from . import benchmark, data, sweep, training
from ._files import new_folder
from ._info import cuda_lacks
from ._terminal import header_of, is_first_process, print_table, shown_progress
from .config import PRESETS, TrainingConfig
from .training import Interrupted, RunOptions

DEFAULT_PRESET = "best"
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are the caller's to print."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as a ValueError."""
        raise ValueError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, and refuse what is not known here: the command itself knows its options best."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            given = next((word[2:].partition("=")[0] for word in rest if word.startswith("--")), "")
            nearest = difflib.get_close_matches(given, [option[2:] for option in self.options().values()], n=1)
            hint = f"did you mean --{nearest[0]}?" if nearest else f"see {self.prog} --help"
            self.error(f"unrecognized arguments: {' '.join(rest)}: {hint}")
        return known, rest

    def options(self) -> dict[str, str]:
        """The option that sets each attribute of the namespace."""
        return {action.dest: action.option_strings[-1] for action in self._actions if action.option_strings}


def train(arguments: argparse.Namespace) -> None:
    """Train a network, or go on with a run, show how it goes, and say what came of it."""
    given = given_settings(arguments)
    options = run_options(arguments)
    if arguments.resume is not None:
        if arguments.dataset is not None or given or arguments.preset is not None or arguments.out is not None:
            raise ValueError("--resume: expected a run folder and no settings, a run goes on with its own")
        out = arguments.resume
        with shown_progress(header_of(out, None)) as observer:
            run = training.resume(out, observer, options)
    elif arguments.dataset is None:
        raise ValueError(f"expected a data set: one of {', '.join(data.NAMES)}")
    else:
        preset = arguments.preset or DEFAULT_PRESET
        config = TrainingConfig.preset(preset, arguments.dataset, **given)
        with folder_of(arguments.out, config.dataset) as out, shown_progress(header_of(out, preset)) as observer:
            run = training.train(config, out, observer, options)
    if is_first_process():
        seconds = sum(metrics.seconds for metrics in run.history)
        print(f"test accuracy {run.evaluation.accuracy:.2%} after {seconds:.1f} s of training, run folder {out}")


@contextmanager
def folder_of(out: Path | None, kind: str) -> Iterator[Path]:
    """Where a run or a sweep is to go: the given path, or one of its kind and the time that no other has."""
    default = Path("runs") / f"{kind}-{datetime.now():%Y%m%d-%H%M%S}"
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


def train_sweep(arguments: argparse.Namespace) -> None:
    """Train once for each seed and each combination of values, and leave and print a summary."""
    options, preset = run_options(arguments), arguments.preset or DEFAULT_PRESET
    runs = sweep.plan(preset, arguments.dataset, given_settings(arguments), variations(arguments))
    with folder_of(arguments.out, f"sweep-{arguments.dataset}") as out:
        train_all(runs, out, options)


def train_all(runs: Sequence[sweep.Run], out: Path, options: RunOptions) -> None:
    """Train the runs of a sweep that have not ended, each in a folder of its own in that folder, and sum them up."""
    found = {run.name: finished_accuracy(out / run.name, run.config) for run in runs}
    accuracies = {name: accuracy for name, accuracy in found.items() if accuracy is not None}
    durations: list[float] = []
    tell(f"runs in {out}: {len(runs)}, done before: {len(accuracies)}")
    for number, run in enumerate((run for run in runs if found[run.name] is None), start=len(accuracies) + 1):
        tell(f"run {number}/{len(runs)}  {run.name}  {what_is_left(len(runs) - number, durations)}")
        start = time.monotonic()
        accuracies[run.name] = train_or_resume(run.config, out / run.name, options)
        durations.append(time.monotonic() - start)
        tell(f"test accuracy {accuracies[run.name]:.2%}")
        if is_first_process():
            sweep.write_summary(out, runs, accuracies)
    if is_first_process():
        sweep.write_summary(out, runs, accuracies)  # there may have been nothing left to train
        print_table(("settings", "seeds", "mean test accuracy", "standard deviation"), summary_rows(runs, accuracies))
        print(f"run folders, sweep.json and sweep.csv in {out}")


def variations(arguments: argparse.Namespace) -> dict[str, list[Any]]:
    """The values of each setting that a sweep varies.

    Raises:
        ValueError: ``--vary`` names no setting or no values, or the command line says a setting's values twice.

    """
    varied: dict[str, list[Any]] = {}
    said = {field: option for option, field, *_ in SETTINGS if hasattr(arguments, field)}
    ways = [(f"--vary {words[0]}", *parse_variation(words)) for words in arguments.vary or []]
    if arguments.seeds is not None:
        ways.insert(0, ("--seeds", "seed", arguments.seeds))
    for way, field, values in ways:
        if field in said:
            raise ValueError(f"{said[field]} and {way}: expected one of them")
        said[field], varied[field] = way, values
    return varied


def finished_accuracy(path: Path, config: TrainingConfig) -> float | None:
    """The test accuracy of the run in that folder; None if there is none or it has not ended.

    Raises:
        FileExistsError: it is a run of another configuration.
        ValueError: a file of the run is corrupt.

    """
    from .run_folder import RunFolder

    if not (path / "config.json").exists():
        return None
    if RunFolder.open(path).config != config:
        raise FileExistsError(f"{path} holds a run of another configuration: choose another --out")
    return sweep.read_accuracy(path)


def train_or_resume(config: TrainingConfig, path: Path, options: RunOptions) -> float:
    """The test accuracy of the run in that folder, after it was begun or brought to its end."""
    with shown_progress() as observer:
        if (path / "config.json").exists():
            return training.resume(path, observer, options).evaluation.accuracy
        return training.train(config, path, observer, options).evaluation.accuracy


def tell(line: str) -> None:
    """Print the line, once."""
    if is_first_process():
        print(line, flush=True)


def what_is_left(runs: int, durations: Sequence[float]) -> str:
    """How many runs come after this one, and about how long all will take if they take as long as those before."""
    text = f"{runs} more after it" if runs else "the last"
    minutes = (runs + 1) * sum(durations) / max(len(durations), 1) / 60
    return f"{text}, about {minutes:.0f} min left" if minutes >= 1 else text


def summary_rows(runs: Sequence[sweep.Run], accuracies: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    """A row of the table for each combination."""
    for combination in sweep.combinations(runs, accuracies):
        name = " ".join(sweep.described(combination.changes)) or "all"
        spread = "-" if combination.deviation is None else f"{combination.deviation:.2%}"
        yield name, " ".join(map(str, combination.seeds)), f"{combination.mean:.2%}", spread


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
        cells = (describe_quartiles(t) for t in times.values())
        yield f"{benchmark.LABELS[name]:{width}}" + "".join(f"{cell:>32}" for cell in cells)
    for name, reason in result["left_out"].items():
        yield f"{benchmark.LABELS[name]:{width}}left out: {reason}"


def describe_quartiles(t: benchmark.Quartiles) -> str:
    """The median, and between which milliseconds half of the repetitions lie; thousandths of less than one."""
    digits = 2 if t["median"] >= 1 else 3
    return f"{t['median']:.{digits}f} ({t['quartile1']:.{digits}f} to {t['quartile3']:.{digits}f})"


def print_info(arguments: argparse.Namespace) -> None:
    """Print what ``srcell.info`` tells, a line a fact."""
    facts = srcell.info()
    if facts["cuda"] is None:
        facts["cuda"] = f"no: {cuda_lacks()}"
    for name, value in facts.items():
        print(f"{name:16}{', '.join(value) if isinstance(value, list | tuple) else value}")


def build_parser() -> Parser:
    """The commands and their options."""
    parser = Parser(prog="srcell", description="Train networks of Spiking Recurrent Cells.")
    parser.add_argument("--version", action="version", version=f"srcell {srcell.__version__}")
    parser.set_defaults(run=lambda arguments: parser.print_help(), command=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    add_train_command(commands)
    add_evaluate_command(commands)
    add_sweep_command(commands)
    add_bench_command(commands)
    commands.add_parser("info", help="show version, instruction set, threads").set_defaults(run=print_info)
    for command in commands.choices.values():
        command.set_defaults(command=command)
    return parser


# The options of a run's settings: option, field of TrainingConfig, type or None for a flag, metavar, help.
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


# What a run needs on this machine: option, field of RunOptions, type or None for a flag, metavar, help.
MACHINE: tuple[tuple[str, str, Any, str, str], ...] = (
    ("--data", "data", Path, "DIR", f"folder of the data sets [that of the run, {training.DATA} for a new one]"),
    ("--download", "download", None, "", "fetch the data set into it if it is not there"),
    ("--cache", "cache", None, "", "keep binned recordings on disk"),
    ("--workers", "num_workers", int, "N", f"processes that encode batches ahead [{RunOptions.num_workers}]"),
    ("--device", "device", str, "NAME", f"where the network is [{RunOptions.device}]"),
    (
        "--checkpoint-seconds",
        "checkpoint_seconds",
        float,
        "X",
        f"least time between checkpoints within an epoch [{RunOptions.checkpoint_seconds:g}]",
    ),
)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how to train: preset, settings, this machine; settings not given are absent from the namespace."""
    parser.add_argument(
        "--preset", metavar="NAME", help=f"where settings come from: {', '.join(PRESETS)} [{DEFAULT_PRESET}]"
    )
    group = parser.add_argument_group("settings", "Those not given are the preset's, or else the defaults in brackets.")
    for name, field, kind, metavar, text in SETTINGS:
        keywords: dict[str, Any] = {"action": "store_true"}
        if kind is not None:
            keywords = {"type": kind, "metavar": metavar}
            if field in ("channels", "hidden_sizes"):
                keywords["nargs"] = "*"
        shown = f"{text} [{typed(getattr(TrainingConfig, field)) or 'none'}]"
        group.add_argument(name, dest=field, default=argparse.SUPPRESS, help=shown, **keywords)
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add what a run needs on this machine; options not given are absent from the namespace.

    Args:
        parser: of the command.
        training: whether the command trains; one that does not writes no checkpoints.

    """
    group = parser.add_argument_group("this machine", "Results do not depend on these. Defaults in brackets.")
    for name, field, kind, metavar, text in MACHINE:
        if field == "checkpoint_seconds" and not training:
            continue
        keywords: dict[str, Any] = {"type": kind, "metavar": metavar} if kind else {"action": "store_true"}
        group.add_argument(name, dest=field, default=argparse.SUPPRESS, help=text, **keywords)


def typed(value: object) -> str:
    """A setting's value as one would type it behind its option."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def presets_text() -> str:
    """The options that stand for each preset: those that it sets to something else than the default."""
    lines = ["presets, as options:", "  best, digits         the defaults"]
    for preset, datasets in PRESETS.items():
        for dataset, settings in datasets.items():
            options = " ".join(
                option if value is True else f"{option} {typed(value)}".strip()
                for option, field, *_ in SETTINGS
                if (value := settings.get(field, getattr(TrainingConfig, field))) != getattr(TrainingConfig, field)
            )
            label = f"  {preset}, {dataset or 'all'}"
            lines += textwrap.wrap(
                options, 78, initial_indent=f"{label:23}", subsequent_indent=" " * 23, break_on_hyphens=False
            )
    return "\n".join(lines)


TRAIN_TEXT = """\
Train a network and leave a run folder. Ctrl-C stops it after a checkpoint.
Under torchrun the processes share each batch."""
TRAIN_EXAMPLES = """\
examples:
  srcell train digits
  srcell train mnist --preset fast --seed 1 --download
  srcell train mnist --hidden 512 512 --lr 5e-3 --data data
  srcell train --resume runs/mnist-20260101-120000"""
SWEEP_TEXT = """\
Train once for each seed and each combination of values. Runs that are there
are not made again. sweep.json and sweep.csv have what came of them."""
SWEEP_EXAMPLES = """\
srcell train --help says what the presets set.

examples:
  srcell sweep digits --seeds 0 1 2
  srcell sweep mnist --preset fast --vary lr 5e-3 1e-2 --vary hidden 128 512-128"""


def add_train_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell train``."""
    parser = commands.add_parser(
        "train",
        help="train a network and leave a run folder",
        description=TRAIN_TEXT,
        epilog=f"{presets_text()}\n\n{TRAIN_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    add_run_options(parser, training=False)
    parser.set_defaults(run=evaluate)


def add_sweep_command(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add ``srcell sweep``."""
    parser = commands.add_parser(
        "sweep",
        help="train over seeds, or over the values of settings",
        description=SWEEP_TEXT,
        epilog=SWEEP_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", help=f"what to train on: {', '.join(data.NAMES)}")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds [that of --seed]")
    parser.add_argument(
        "--vary",
        action="append",
        nargs="+",
        metavar=("SETTING", "VALUE"),
        help="a setting, such as lr, and its values; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the run folders [runs/sweep-...]")
    add_training_options(parser)
    parser.set_defaults(run=train_sweep)


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


def complain(line: str) -> None:
    """Write a line to standard error at once, so that those of several processes do not mix."""
    sys.stderr.write(f"{line}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 if it went well, 2 after an error of the user's, told in one line on standard error.

    Example:
        >>> main(["info", "--colour"])
        2

    """
    command = build_parser()
    try:
        arguments = command.parse_args(argv)
        command = arguments.command
        arguments.run(arguments)
    except USER_ERRORS as error:
        # What an OSError is about is a path, which may be called as a setting is.
        about_setting = not isinstance(error, OSError)
        complain(f"srcell: {name_option(str(error), command.options()) if about_setting else error}")
        return 2
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and not any(x in reason for x in ("allocate memory", "out of memory")):
            raise
        complain(f"srcell: out of memory: smaller sizes or batches need less. {reason}")
        return 2
    except Interrupted as stopped:
        complain(f"srcell: {stopped}")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        complain("srcell: interrupted")
        return 130
    return 0


def name_option(message: str, options: Mapping[str, str]) -> str:
    """The message of an error, about the option where it is about the attribute that the option sets."""
    name, colon, rest = message.partition(":")
    return f"{options.get(name, name)}{colon}{rest}"
