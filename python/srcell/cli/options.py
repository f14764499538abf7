"""The flags of training and evaluation, made from the settings and options of a run."""

from __future__ import annotations

import argparse
import dataclasses
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import data
from .._shared.settings import settings_of
from ..data.own import is_own
from ..training.config import GROUPS, SETTINGS, TrainingConfig
from ..training.options import RunOptions
from ..training.presets import PRESETS

DEFAULT_PRESET = "best"
DATASETS = f"{', '.join(data.NAMES)}; or your own, FOLDER/ or FILE.py:FUNCTION"
METAVARS: dict[type, str] = {int: "N", float: "X", str: "NAME", tuple: "N"}
LABEL = 25  # columns of the presets' names in the help


class TrainingHelp(argparse.Action):
    """``--help``: prints the settings that the chosen data set and network use; ``--help all`` prints all."""

    def __init__(self, option_strings: Sequence[str], dest: str, **more: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs="?", default=argparse.SUPPRESS, **more)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Print the help, and exit."""
        dataset = getattr(namespace, "dataset", None)
        if values not in (None, "all"):
            raise ValueError(f"--help: expected all or nothing after it, got {values!r}: put it before --help")
        if values is None:
            preset = getattr(namespace, "preset", None) or DEFAULT_PRESET
            config = TrainingConfig.preset(preset, named(dataset or "digits"), **given_settings(namespace))
            used = config.used()
            for action in parser._actions:
                if action.dest in SETTINGS and action.dest != "dataset":
                    shown = _help_of(action.dest, getattr(config, action.dest))
                    action.help = shown if action.dest in used else argparse.SUPPRESS
        parser.epilog = f"{presets_text(dataset, every=values == 'all')}\n\n{parser.epilog}"
        parser.print_help()
        parser.exit()


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of training: preset, settings, this machine; settings not given are absent from the namespace."""
    parser.add_argument(
        "--preset", metavar="NAME", help=f"preset that the settings come from: {', '.join(PRESETS)} [{DEFAULT_PRESET}]"
    )
    for title, settings in GROUPS.items():
        group = parser.add_argument_group(title)
        for name, setting in settings.items():
            if name != "dataset":
                kind = type(setting.default)
                keywords: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
                if kind is not bool:
                    keywords = {"type": int if kind is tuple else kind, "metavar": METAVARS[kind]}
                if kind is tuple:
                    keywords["nargs"] = "*"
                text = _help_of(name, setting.default)
                group.add_argument(setting.option, dest=name, default=argparse.SUPPRESS, help=text, **keywords)
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags of ``RunOptions``; options not given are absent from the namespace.

    A command without ``training`` writes no checkpoints and diagnoses nothing, and does not have these flags.
    """
    group = parser.add_argument_group("this machine", "Results do not depend on these.")
    for name, option in settings_of(RunOptions).items():
        if name in ("checkpoint_seconds", "diagnose") and not training:
            continue
        keywords: dict[str, Any] = {"help": option.text, "action": "store_true"}
        if option.default is None:
            keywords = {"help": option.text, "type": Path, "metavar": "DIR"}
        elif option.default is True:
            keywords = {"help": f"{option.text} [{typed(True)}]", "action": argparse.BooleanOptionalAction}
        elif option.default is not False:
            kind = type(option.default)
            keywords = {"help": f"{option.text} [{typed(option.default)}]", "type": kind, "metavar": METAVARS[kind]}
        group.add_argument(option.option, dest=name, default=argparse.SUPPRESS, **keywords)


def _help_of(name: str, value: object) -> str:
    """The help of a setting, with the value that it has without the option."""
    return f"{SETTINGS[name].text} [{typed(value) or 'none'}]"


def typed(value: object) -> str:
    """A setting's value as a user types it after the option."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def presets_text(dataset: str | None, *, every: bool) -> str:
    """The presets of a data set, or of every one, as options: the settings that differ from their defaults."""
    if dataset and is_own(dataset):
        dataset = data.kind(dataset)
    if not (dataset or every):
        return "srcell train DATASET --help shows the settings and presets of a data set, --help all shows all."
    lines = ["presets, as options:"]
    if every or dataset not in PRESETS["best"]:
        label = f"  best, {'digits' if every else dataset}"
        lines.append(f"{label:{LABEL}}the defaults")
    for preset, datasets in PRESETS.items():
        for of, given in datasets.items():
            if not (every or of in ("", dataset)):
                continue
            options = " ".join(
                setting.option if value is True else f"{setting.option} {typed(value)}".strip()
                for name, setting in SETTINGS.items()
                if (value := given.get(name, setting.default)) != setting.default
            )
            label = f"  {preset}, {of or 'all'}"
            lines += textwrap.wrap(
                options, 78, initial_indent=f"{label:{LABEL}}", subsequent_indent=" " * LABEL, break_on_hyphens=False
            )
    return "\n".join(lines)


def named(dataset: str) -> str:
    """The name of a data set; that of a folder ends in a slash."""
    return f"{dataset}/" if dataset not in data.NAMES and "/" not in dataset and os.path.isdir(dataset) else dataset


def short(dataset: str) -> str:
    """A data set's name as part of a folder's name: of a folder or a file its own name."""
    return Path(dataset.partition(".py:")[0]).name or "data"


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line changes."""
    given = {name: getattr(arguments, name) for name in SETTINGS if name != "dataset" and hasattr(arguments, name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The ``RunOptions`` of the command line."""
    names = [field.name for field in dataclasses.fields(RunOptions) if hasattr(arguments, field.name)]
    return RunOptions(**{name: getattr(arguments, name) for name in names})
