"""``record``: makes the content of a results file from results, date, machine and versions."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from .._info import info
from .timing import Result


def record(results: Sequence[Result], source: Path) -> dict[str, Any]:
    """Combine results with the date, and with the commit, processor and versions of the measurement.

    Args:
        results: results of ``run``.
        source: a file; if git tracks it, the commit of its repository is recorded.

    Example:
        >>> from pathlib import Path
        >>> from srcell.benchmark import record
        >>> list(record([], Path("no/such/file")))
        ['date', 'commit', 'processor', 'environment', 'results']

    """
    return {
        "date": date.today().isoformat(),
        "commit": _commit(source),
        "processor": _processor(),
        "environment": {
            "python": platform.python_version(),
            "srcell": info()["version"],
            **{key: value for key, value in info().items() if key in ("isa", "threads", "thread_runtime", "torch")},
        },
        "results": list(results),
    }


def _commit(source: Path) -> str | None:
    """The commit of the repository that tracks the file, or None.

    git is asked about the file, because an installed package may lie inside an unrelated repository.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        return git("describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
