"""``srcell sweep``: train once for each seed and each combination of values."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import training
from .._shared.arguments import check_known
from ..data.own import is_own, load_once
from ..training import RunOptions, sweep
from ..training.config import SETTINGS, TrainingConfig
from .options import DATASETS, DEFAULT_PRESET, add_training_options, given_settings, named, run_options, short
from .parser import Parser, new_command
from .progress import shown_progress
from .terminal import folder_of, is_first_process, print_table, put, tell

TEXT = """\
Train once for each seed and each combination of values. Finished runs are not
repeated. The results are written to sweep.json and sweep.csv."""
EXAMPLES = """\
srcell train --help lists the settings, which this command takes too.

examples:
  srcell sweep digits --seeds 0 1 2
  srcell sweep mnist --preset fast --vary lr 5e-3 1e-2 --vary hidden 128 512-128"""


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell sweep``."""
    usage = "srcell sweep DATASET [options] [settings]"
    parser = new_command(commands, "sweep", line, TEXT, EXAMPLES, usage=usage)
    parser.add_argument("dataset", help=f"data set to train on: {DATASETS}")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="seeds of the runs [the one of --seed]")
    parser.add_argument(
        "--vary",
        action="append",
        nargs="+",
        metavar=("SETTING", "VALUE"),
        help="a setting, such as lr, and its values; repeatable",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the run folders [runs/sweep-...]")
    add_training_options(parser, hidden=True)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Train once for each seed and each combination of values; write and print a summary."""
    options, preset = run_options(arguments), arguments.preset or DEFAULT_PRESET
    dataset = named(arguments.dataset)
    if is_own(dataset) and load_once(dataset).train.labels.is_floating_point():
        raise ValueError(f"{dataset}: expected labels for a sweep, which compares accuracies, got targets")
    if is_own(dataset):  # so that runs of code that is named here are resumed
        options = dataclasses.replace(options, data=dataset)
    runs = sweep.plan(preset, dataset, given_settings(arguments), variations(arguments))
    with folder_of(arguments.out, f"sweep-{short(dataset)}") as out:
        train_all(runs, out, options)


def train_all(runs: Sequence[sweep.Run], out: Path, options: RunOptions) -> None:
    """Train the runs of a sweep that have not ended, each in its own folder inside ``out``, and write a summary."""
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
        combinations = sweep.write_summary(out, runs, accuracies)  # if all had ended before, none was written above
        print_table(("settings", "seeds", "mean test accuracy", "standard deviation"), map(shown, combinations))
        put(f"run folders, sweep.json and sweep.csv in {out}")


def variations(arguments: argparse.Namespace) -> dict[str, list[Any]]:
    """The values of each setting that a sweep varies; raise if a setting is given twice."""
    varied: dict[str, list[Any]] = {}
    said = {name: SETTINGS[name].option for name in given_settings(arguments)}
    ways = [] if arguments.seeds is None else [("--seeds", "seed", arguments.seeds)]
    ways += [(f"--vary {words[0]}", *parse_variation(words)) for words in arguments.vary or []]
    for way, field, values in ways:
        if field in said:
            raise ValueError(f"use only one of {said[field]} and {way}")
        said[field], varied[field] = way, values
    return varied


def finished_accuracy(path: Path, config: TrainingConfig) -> float | None:
    """The test accuracy of the run in a folder; None if there is no run or it has not ended.

    Raises:
        FileExistsError: the folder holds a run of another configuration.
        ValueError: a file of the run is corrupt.

    """
    from ..training.run_folder import RunFolder

    if not (path / "config.json").exists():
        return None
    if RunFolder.open(path).config != config:
        raise FileExistsError(f"{path} holds a run of another configuration: choose another --out")
    result = path / "result.json"
    if not result.exists():
        return None
    text = result.read_bytes()
    try:
        accuracy = json.loads(text)["test_accuracy"]
    except (ValueError, TypeError, KeyError, RecursionError):
        accuracy = None
    if not isinstance(accuracy, float):
        raise ValueError(
            f"{result}: expected the result of a run, with its test_accuracy, got {text[:40]!r}: delete the file, and "
            "the same sweep evaluates the run again"
        )
    return accuracy


def train_or_resume(config: TrainingConfig, path: Path, options: RunOptions) -> float:
    """Start or resume the run in a folder, and return its test accuracy."""
    with shown_progress() as observer:
        if (path / "config.json").exists():
            return training.resume(path, observer, options).evaluation.accuracy
        return training.train(config, path, observer, options).evaluation.accuracy


def what_is_left(runs: int, durations: Sequence[float]) -> str:
    """Say how many runs follow this one, and how long this and those will take at the mean duration of earlier runs."""
    text = f"{runs} more after it" if runs else "the last"
    minutes = (runs + 1) * sum(durations) / max(len(durations), 1) / 60
    return f"{text}, about {minutes:.0f} min left" if minutes >= 1 else text


def shown(combination: Mapping[str, Any]) -> tuple[str, ...]:
    """The row of a combination in the summary table."""
    name = " ".join(sweep.described(combination["settings"])) or "all"
    deviation = combination["standard_deviation"]
    spread = "-" if deviation is None else f"{deviation:.2%}"
    return name, " ".join(map(str, combination["seeds"])), f"{combination['mean_test_accuracy']:.2%}", spread


def parse_variation(words: list[str]) -> tuple[str, list[Any]]:
    """The setting that ``--vary NAME VALUE...`` names, and its values."""
    name, *texts = words
    options = {setting.option[2:].replace("-", "_"): name for name, setting in SETTINGS.items() if name != "dataset"}
    known = options | {field: field for field in options.values()}
    key = name.removeprefix("--").replace("-", "_")
    check_known(key, tuple(known), "setting")
    if not texts:
        raise ValueError(f"--vary {name}: expected values after it")
    field = known[key]
    default = SETTINGS[field].default
    try:
        if isinstance(default, bool):
            return field, [{"true": True, "false": False}[text.lower()] for text in texts]
        if isinstance(default, tuple):
            return field, [tuple(int(size) for size in text.split("-") if size) for text in texts]
        return field, [type(default)(text) for text in texts]
    except (ValueError, KeyError) as error:
        kind = "sizes like 512-100" if isinstance(default, tuple) else type(default).__name__
        raise ValueError(f"--vary {name}: expected values of {kind}, got {' '.join(texts)}") from error
