"""Scripts of the repository as modules, and programs in separate processes in which some modules are missing."""

from __future__ import annotations

import importlib
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def output_without(modules: Iterable[str], program: str, *arguments: str) -> str:
    """The output of a program for which these modules are missing."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({list(modules)}))\n{textwrap.dedent(program)}"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def script(folder: str, name: str, *others: str) -> Any:
    """A script of a folder that is no package, as a module; it may import scripts of its folder and of others."""
    before = sys.path[:]
    sys.path[:0] = [str(Path(__file__).parents[2] / place) for place in (folder, *others)]
    try:
        return importlib.import_module(name)
    finally:
        sys.path[:] = before
