"""The parser of all commands, with flags made from the settings and options of a run."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import textwrap
from pathlib import Path
from typing import Any, NoReturn

from .._renamed import RENAMED
from ..training.config import SETTINGS
from ..training.options import DATA, RunOptions
from ..training.presets import PRESETS

DEFAULT_PRESET = "best"
METAVARS: dict[type, str] = {int: "N", float: "X", str: "NAME", tuple: "N"}
LABEL = 25  # columns of the presets' names in the help


class Parser(argparse.ArgumentParser):
    """An argument parser that raises its errors instead of printing them and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise the message as a ValueError."""
        raise ValueError(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse. For unknown arguments raise here, not in the main parser, to suggest options of this command."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            given = next((word[2:].partition("=")[0] for word in rest if word.startswith("--")), "")
            own = [option[2:] for option in self.options().values()]
            positive = given.removeprefix("no-")
            now = RENAMED.get(positive.replace("-", "_"), "").replace("_", "-")
            nearest = difflib.get_close_matches(given, own, n=1)
            if now in own:
                nearest = [given.replace(positive, now)]
            hint = f"did you mean --{nearest[0]}?" if nearest else f"see {self.prog} --help"
            self.error(f"unrecognized arguments: {' '.join(rest)}: {hint}")
        return known, rest

    def options(self) -> dict[str, str]:
        """For each attribute of the namespace, the option that sets it."""
        return {
            action.dest: next(name for name in action.option_strings if name.startswith("--"))
            for action in self._actions
            if action.option_strings
        }


def new_command(commands: argparse._SubParsersAction[Parser], name: str, help: str, text: str, epilog: str) -> Parser:
    """Add a command whose text and epilog are printed as they are."""
    return commands.add_parser(
        name, help=help, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


# Flags of RunOptions: option, field, type (None for a switch), metavar, help.
MACHINE: tuple[tuple[str, str, Any, str, str], ...] = (
    ("--data", "data", Path, "DIR", f"folder of the data sets [the run's own; {DATA} for a new run]"),
    ("--download", "download", None, "", "download the data set into it if it is missing"),
    ("--cache", "cache", None, "", "keep binned recordings on disk"),
    ("--workers", "num_workers", int, "N", f"worker processes that encode batches ahead [{RunOptions.num_workers}]"),
    ("--device", "device", str, "NAME", f"device of the network [{RunOptions.device}]"),
    (
        "--checkpoint-seconds",
        "checkpoint_seconds",
        float,
        "X",
        f"minimum seconds between checkpoints within an epoch [{RunOptions.checkpoint_seconds:g}]",
    ),
)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags of training: preset, settings, this machine; settings not given are absent from the namespace."""
    parser.add_argument(
        "--preset", metavar="NAME", help=f"preset that the settings come from: {', '.join(PRESETS)} [{DEFAULT_PRESET}]"
    )
    group = parser.add_argument_group("settings", "Defaults are the preset's values, or else those in brackets.")
    for name, setting in SETTINGS.items():
        if name == "dataset":
            continue
        kind = type(setting.default)
        keywords: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
        if kind is not bool:
            keywords = {"type": int if kind is tuple else kind, "metavar": METAVARS[kind]}
        if kind is tuple:
            keywords["nargs"] = "*"
        shown = f"{setting.text} [{typed(setting.default) or 'none'}]"
        group.add_argument(setting.option, dest=name, default=argparse.SUPPRESS, help=shown, **keywords)
    add_run_options(parser)


def add_run_options(parser: argparse.ArgumentParser, *, training: bool = True) -> None:
    """Add the flags of ``RunOptions``; options not given are absent from the namespace.

    Args:
        parser: the command's parser.
        training: whether the command trains; if not, it writes no checkpoints, and their flag is left out.

    """
    group = parser.add_argument_group("this machine", "Results do not depend on these. Defaults in brackets.")
    for name, field, kind, metavar, text in MACHINE:
        if field == "checkpoint_seconds" and not training:
            continue
        keywords: dict[str, Any] = {"type": kind, "metavar": metavar} if kind else {"action": "store_true"}
        group.add_argument(name, dest=field, default=argparse.SUPPRESS, help=text, **keywords)


def typed(value: object) -> str:
    """A setting's value as a user types it after the option."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def presets_text() -> str:
    """Each preset as options, for the help: the settings that differ from their defaults."""
    lines = ["presets, as options:", f"{'  best, digits':{LABEL}}the defaults"]
    for preset, datasets in PRESETS.items():
        for dataset, given in datasets.items():
            options = " ".join(
                setting.option if value is True else f"{setting.option} {typed(value)}".strip()
                for name, setting in SETTINGS.items()
                if (value := given.get(name, setting.default)) != setting.default
            )
            label = f"  {preset}, {dataset or 'all'}"
            lines += textwrap.wrap(
                options, 78, initial_indent=f"{label:{LABEL}}", subsequent_indent=" " * LABEL, break_on_hyphens=False
            )
    return "\n".join(lines)


def given_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that the command line changes."""
    given = {name: getattr(arguments, name) for name in SETTINGS if name != "dataset" and hasattr(arguments, name)}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}


def run_options(arguments: argparse.Namespace) -> RunOptions:
    """The ``RunOptions`` of the command line."""
    return RunOptions(
        **{
            field.name: getattr(arguments, field.name)
            for field in dataclasses.fields(RunOptions)
            if hasattr(arguments, field.name)
        }
    )
