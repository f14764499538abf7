"""Processes of torchrun, and processes that run on a chosen instruction set.

Run as a program, this file is a process of the latter kind: it calls functions of test modules at its parent's request.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import srcell

PATIENCE = 120  # seconds
# Two threads that share a core wait for each other by spinning; results do not depend on the number of threads.
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
ISAS: tuple[str, ...] = srcell.info()["isas"]


def run_python(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENT...`` in several processes of torchrun, or in one without it."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ONE_THREAD)


def active_isa() -> str:
    isa: str = srcell.info()["isa"]
    return isa


class IsaProcess:
    """A Python process in which srcell runs on one instruction set."""

    def __init__(self, isa: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "SRCELL_ISA": isa},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def call(self, function: str, *arguments: Any) -> Any:
        """Call the function "module.name" in that process; arguments and result are passed as JSON."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps([function, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process died with status {self._process.wait()} in {function}{arguments}"
        failed, result = json.loads(answer)
        assert not failed, result
        return result

    def close(self) -> None:
        # Closing its input may not end the process: workers that were forked later hold the pipe open as well.
        self._process.communicate("null\n")


def serve() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        if request is None:
            return
        function, arguments = request
        module, _, name = function.rpartition(".")
        try:
            answer = (False, getattr(importlib.import_module(module), name)(*arguments))
        except Exception:
            answer = (True, traceback.format_exc())
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])  # test modules are imported from here
    serve()
