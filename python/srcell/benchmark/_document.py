"""``document``: makes the content of a results file from results, date, machine and versions."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from ..kernels import info
from .timing import Result

# By family and model of /proc/cpuinfo; AMD's family 26 is Zen 5 throughout.
_GENERATIONS = {
    ("25", "17"): "Zen 4",
    ("26", ""): "Zen 5",
    ("6", "143"): "Sapphire Rapids",
    ("6", "173"): "Granite Rapids",
}


def document(results: Sequence[Result], source: Path) -> dict[str, Any]:
    """Combine results with the date, and with the commit, processor and versions of the measurement.

    Args:
        results: results of ``run``.
        source: a file; if git tracks it, the commit of its repository is recorded.

    Example:
        >>> from pathlib import Path
        >>> from srcell.benchmark import document
        >>> list(document([], Path("no/such/file")))
        ['date', 'commit', 'processor', 'environment', 'results']

    """
    facts = info()
    return {
        "date": date.today().isoformat(),
        "commit": _commit(source),
        "processor": _processor(),
        "environment": {
            "python": platform.python_version(),
            "srcell": facts["version"],
            **{key: facts[key] for key in ("isa", "thread_runtime", "threads", "torch")},
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
    """The processor's name and, because virtual machines hide it in the name, its generation."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    family, model = fields.get("cpu family", "?"), fields.get("model", "?")
    named = _GENERATIONS.get((family, model), _GENERATIONS.get((family, "")))
    generation = named or f"family {family}, model {model}"
    return f"{fields['model name']} ({generation})"
