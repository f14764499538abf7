"""Programs in separate processes in which some modules cannot be imported."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterable


def output_without(modules: Iterable[str], program: str, *arguments: str) -> str:
    """The output of a program for which these modules are missing."""
    code = f"import sys\nsys.modules.update(dict.fromkeys({list(modules)}))\n{textwrap.dedent(program)}"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
