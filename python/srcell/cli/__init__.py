"""The command ``srcell``: turns arguments into a configuration, and user errors into one line.

Only ``__main__`` imports this.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

import srcell

from .._shared.interrupted import Interrupted
from .parser import Parser
from .terminal import fail, printable_warnings, silence

USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError)
# The module of each command, which is imported when the command is given, and its line in the help.
COMMANDS = {
    "train": ("train", "train a network and write a run folder"),
    "eval": ("evaluate", "evaluate the network of a run; count events and operations"),
    "export": ("export", "write a run's network to a file that runs without torch"),
    "adapt": ("adapt", "let an exported network learn from new samples"),
    "listen": ("listen", "show a network's answer to a microphone or a WAV file"),
    "bench": ("bench", "time srcell against PyTorch"),
    "info": ("info", "show version, instruction set, threads"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return 0 on success, 2 after a user error, which is printed in one line on standard error.

    If the reader of standard output closes it, as ``head`` does, the command ends quietly; training continues without
    output.

    Example:
        >>> main(["info", "--colour"])
        2

    """
    words = sys.argv[1:] if argv is None else argv
    command = build_parser(next((word for word in words if not word.startswith("-")), ""))
    try:
        try:
            arguments = command.parse_args(argv)
            command = arguments.command
            with printable_warnings():
                arguments.run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        silence()
        return 141  # the status of a process killed by SIGPIPE
    except USER_ERRORS as error:
        # The message of an OSError begins with a path, which may equal the name of a setting.
        about_setting = not isinstance(error, OSError)
        named = name_option if about_setting else name_data_options
        fail(f"srcell: {named(str(error), command.options())}")
        return 2
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        if not isinstance(error, MemoryError) and not any(x in reason for x in ("allocate memory", "out of memory")):
            raise
        fail(f"srcell: out of memory: smaller sizes or batches need less. {reason}")
        return 2
    except Interrupted as stopped:
        fail(f"srcell: {stopped}")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        fail("srcell: interrupted")
        return 130
    return 0


def name_option(message: str, options: Mapping[str, str]) -> str:
    """The message of an error, with the name of a setting replaced by its command-line option."""
    name, colon, rest = message.partition(":")
    return f"{options.get(name, name)}{colon}{rest}"


def name_data_options(message: str, options: Mapping[str, str]) -> str:
    """The message of an error, with the options that help where data are not found.

    Example:
        >>> name_data_options("no MNIST: name another root, or download it", {"data": "--data"})
        'no MNIST: name another root (--data), or download it'

    """
    for name, words in (("data", "name another root"), ("download", "or download it")):
        if name in options:
            message = message.replace(words, f"{words} ({options[name]})")
    return message


def build_parser(chosen: str | None = None) -> Parser:
    """The commands, and the options of the chosen one, or of all by default: most import torch."""
    parser = Parser(prog="srcell", description="Train networks of Spiking Recurrent Cells.")
    parser.add_argument("--version", action="version", version=f"srcell {srcell.__version__}")
    parser.set_defaults(run=lambda arguments: parser.print_help(), command=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, (module, line) in COMMANDS.items():
        if chosen in (None, name):
            import_module(f"{__name__}.{module}").add_command(commands, line)
        else:
            commands.add_parser(name, help=line)
    for command in commands.choices.values():
        command.set_defaults(command=command)
    return parser
