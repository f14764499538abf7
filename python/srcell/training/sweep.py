"""Plans a sweep, one run for each combination of values and each seed, and summarises its results.

The command line calls this.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .._shared.files import write_atomically
from .config import SETTINGS, TrainingConfig


class Run(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: name of its folder: the options that the sweep varies with their values, and the seed.
        changes: the varied values by setting, without the seed.
        config: the full configuration.

    """

    name: str
    changes: dict[str, Any]
    config: TrainingConfig


def plan(preset: str, dataset: str, given: Mapping[str, Any], varied: Mapping[str, Sequence[Any]]) -> list[Run]:
    """The runs of a sweep: all combinations with the first seed, then all with the next.

    Args:
        preset: name of the preset that the settings come from.
        dataset: name of the data set.
        given: settings that all runs share.
        varied: the values of each setting that the sweep varies; seeds under "seed".

    Raises:
        ValueError: a setting is outside its range, as in ``TrainingConfig.preset``.

    Example:
        >>> runs = plan("best", "digits", {"epochs": 1}, {"seed": [3, 4], "hidden_sizes": [(), (8, 4)]})
        >>> [run.name for run in runs]
        ['hidden=-seed=3', 'hidden=8-4-seed=3', 'hidden=-seed=4', 'hidden=8-4-seed=4']
        >>> runs[1].config.seed, runs[1].config.hidden_sizes
        (3, (8, 4))

    """
    names = [name for name in varied if name != "seed"]
    seeds = varied.get("seed", [given.get("seed", TrainingConfig.seed)])
    runs: dict[str, Run] = {}
    for seed, *values in itertools.product(seeds, *(varied[name] for name in names)):
        changes = dict(zip(names, values, strict=True))
        name = "-".join([*described(changes), f"seed={seed}"])
        runs[name] = Run(name, changes, TrainingConfig.preset(preset, dataset, **{**given, **changes, "seed": seed}))
    return list(runs.values())


def described(changes: Mapping[str, Any]) -> list[str]:
    """Each setting as ``option=value``, as in a folder's name."""
    return [f"{SETTINGS[name].option.removeprefix('--')}={value_text(value)}" for name, value in changes.items()]


def value_text(value: object) -> str:
    """A setting's value as text; sizes are joined by hyphens."""
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def write_summary(folder: Path, runs: Sequence[Run], accuracies: Mapping[str, float]) -> list[dict[str, Any]]:
    """Write sweep.csv, a row for each finished run, and sweep.json, which adds the results of each combination.

    Args:
        folder: folder of the sweep.
        runs: all runs of the sweep.
        accuracies: test accuracies of the finished runs by name, at least one.

    Returns:
        The results of each combination, as in sweep.json. The standard deviation of a single run is None.

    """
    rows, finished = [], defaultdict(list)
    for run in runs:
        if run.name in accuracies:
            accuracy = accuracies[run.name]
            rows.append({**run.changes, "seed": run.config.seed, "test_accuracy": accuracy, "run_folder": run.name})
            finished[tuple(described(run.changes))].append(run)
    combinations = []
    for same in finished.values():
        found = [accuracies[run.name] for run in same]
        combinations.append(
            {
                "settings": same[0].changes,
                "seeds": [run.config.seed for run in same],
                "mean_test_accuracy": statistics.mean(found),
                "standard_deviation": statistics.stdev(found) if len(found) > 1 else None,
            }
        )
    summary = {"planned_runs": len(runs), "runs": rows, "combinations": combinations}
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: value_text(value) for name, value in row.items()} for row in rows)
    write_atomically(folder / "sweep.json", (json.dumps(summary, indent=2) + "\n").encode())
    write_atomically(folder / "sweep.csv", text.getvalue().encode())
    return combinations
