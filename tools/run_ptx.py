"""Run the tests of the CUDA kernels in the emulator of tests/ptx, and say what ran.

    python tools/run_ptx.py [--release] [pytest's arguments]

It needs the build of the preset `ptx` (CONTRIBUTING.md), which needs nvcc. By default the tests that are not marked
`exhaustive` run once, as on every landing. With ``--release`` all of them run four times, in other orders of the
threads, with the limits and the PTX of other GPUs, and with other errors of the reciprocal that a quotient starts from.
The script fails if a test fails, if the emulator has reported a defect, or if a kernel of the module never ran. It
writes the instructions that never ran to build/ptx/never_ran.txt.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from check_cuda import demangled

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "ptx"
MISSING = BUILD / "never_ran.txt"  # the instructions that did not run in the last run
TESTS = ("tests/test_ptx.py", "tests/test_cuda.py")
LANDING = {"PTX_SM": "90"}
RELEASE = (
    LANDING,
    {"PTX_SM": "75", "PTX_ORDER": "descending", "PTX_RECIPROCAL": "low"},
    {"PTX_SM": "120", "PTX_ORDER": "random", "PTX_RECIPROCAL": "high"},
    {"PTX_SM": "89", "PTX_ORDER": "interleaved", "PTX_RECIPROCAL": "random"},
)


class Report(NamedTuple):
    """What the emulators of several processes have seen, added up."""

    launches: Counter[str]  # by kernel
    ran: dict[str, int]  # by kernel, a bit for each instruction
    sizes: dict[str, int]  # instructions of each kernel
    texts: dict[tuple[str, int], str]  # of instructions that did not run in some process, by kernel and number
    steps: int
    defects: Counter[tuple[str, ...]]  # by what, kernel and instruction

    @property
    def never_run(self) -> list[str]:
        """The kernels that never ran, as their bodies."""
        return sorted(set(demangled([name for name in self.ran if not self.launches[name]])))

    def missing(self) -> Iterator[str]:
        """The kernels that ran, each followed by its instructions that did not."""
        for name, bits in sorted(self.ran.items()):
            size = self.sizes[name]
            texts = [self.texts[name, n] for n in range(size) if bits and not bits >> (size - 1 - n) & 1]
            if texts:
                yield f"{demangled([name])[0]}: {len(texts)} of {size}"
                yield from (f"    {text}" for text in texts)

    def summary(self) -> str:
        """One line of numbers."""
        whole, ran = sum(self.sizes.values()), sum(bits.bit_count() for bits in self.ran.values())
        used = sum(1 for name in self.ran if self.launches[name])
        return (
            f"{self.launches.total():,} launches, {self.steps:,} instructions; {used} of {len(self.ran)} kernels and "
            f"{ran:,} of {whole:,} PTX instructions ran ({ran / whole:.1%}); {len(self.defects)} kinds of defect"
        )


def read(folder: Path) -> Report:
    """Add up the reports in a folder."""
    launches: Counter[str] = Counter()
    ran: dict[str, int] = {}
    sizes: dict[str, int] = {}
    texts: dict[tuple[str, int], str] = {}
    steps, defects = 0, Counter[tuple[str, ...]]()
    for path in sorted(folder.glob("*.tsv")):
        for line in path.read_text().splitlines():
            kind, *fields = line.split("\t")
            if kind == "kernel":
                name, count, bits = fields
                launches[name] += int(count)
                ran[name] = ran.get(name, 0) | int(bits, 2)
                sizes[name] = len(bits)
            elif kind == "missing":
                texts[fields[0], int(fields[1])] = fields[2]
            elif kind == "total":
                steps += int(fields[1])
            else:
                defects[tuple(fields[1:4])] += int(fields[0])
    return Report(launches, ran, sizes, texts, steps, defects)


def run(settings: dict[str, str], arguments: list[str]) -> tuple[int, Report]:
    """Run pytest in the emulator; return its status and what was seen."""
    module = next(BUILD.glob("_cuda*.so"), None)
    if module is None:
        sys.exit(f"no module in {BUILD}: build the preset `ptx`, which needs nvcc (tools/check.sh cuda)")
    with tempfile.TemporaryDirectory() as folder:
        environment = (
            os.environ
            | settings
            | {
                "LD_PRELOAD": str(BUILD / "tests" / "ptx" / "libptx_emulator.so"),
                "OMP_NUM_THREADS": "1",
                "PTX_REPORT": folder,
                "SRCELL_CUDA_ON_HOST": str(module),
                "SRCELL_PTX": str(BUILD),
            }
        )
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "--dist", "worksteal", *arguments]
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        return status, read(Path(folder))


def main() -> None:
    """Run the tests as the command line says."""
    if torch.version.cuda:
        sys.exit("the emulator stands in for CUDA's runtime, which this torch needs: install one for CPUs alone")
    arguments = sys.argv[1:]
    release = arguments[:1] == ["--release"]
    arguments = arguments[release:]
    chosen = arguments or ["-m", "landing" if release else "landing and not exhaustive", *TESTS]
    failed = False
    for settings in RELEASE if release else (LANDING,):
        status, report = run(settings, chosen)
        if not report.ran:
            sys.exit(f"no kernel ran: pytest ended with {status}")
        print(" ".join(f"{name}={value}" for name, value in settings.items()), report.summary(), sep=": ", flush=True)
        MISSING.write_text("".join(f"{line}\n" for line in report.missing()))
        never_run = [] if arguments else report.never_run
        defects = (f"defect, {count} times: {' | '.join(filter(None, x))}" for x, count in report.defects.items())
        for line in (*defects, *(f"never ran: {x}" for x in never_run)):
            print(line, flush=True)
        failed = failed or bool(status or report.defects or never_run)
    sys.exit(failed)


if __name__ == "__main__":
    main()
