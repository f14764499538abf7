"""The parser of all commands. It imports no torch."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

from .._shared.renamed import RENAMED


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


def new_command(
    commands: argparse._SubParsersAction[Parser], name: str, help: str, text: str, epilog: str, **more: Any
) -> Parser:
    """Add a command whose text and epilog are printed as they are."""
    return commands.add_parser(
        name, help=help, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter, **more
    )
