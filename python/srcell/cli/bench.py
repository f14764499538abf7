"""``srcell bench`` times srcell and PyTorch on this machine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import benchmark
from .._shared.files import check_output, write_output
from ..benchmark.timing import Quartiles
from .parser import Parser, new_command
from .terminal import complain, put


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell bench``."""
    text = "Time srcell against PyTorch. Run it on an otherwise idle machine."
    parser = new_command(commands, "bench", line, text, "Defaults in brackets.")
    option = parser.add_argument
    option("cases", nargs="*", metavar="CASE", help=f"cases to measure, of {', '.join(benchmark.CASES)} [all]")
    option("--threads", type=int, metavar="N", help="threads of the cases that do not fix them [all]")
    option("--repetitions", type=int, metavar="N", help="repetitions per row; slow cases get fewer, fast ones more [9]")
    option("--quick", action="store_true", help="rough times: 3 repetitions, small batches, nothing compiled")
    option("--out", type=Path, metavar="FILE.json", help="write settings, times and environment to this file")
    parser.set_defaults(run=bench)


def bench(arguments: argparse.Namespace) -> None:
    """Measure the chosen cases, print each result when it is measured, and write all as JSON if asked.

    Progress is printed on standard error, so that standard output holds only the results.
    """
    out: Path | None = arguments.out
    if out is not None:
        check_output(out)
    repetitions = arguments.repetitions
    if repetitions is None:
        repetitions = 3 if arguments.quick else 9
    settings = benchmark.choose(arguments.cases, threads=arguments.threads, quick=arguments.quick)
    results: list[benchmark.Result] = []

    def announce(setting: benchmark.Workload) -> None:
        sizes = describe_sizes(setting.inputs, setting.neurons)
        complain(f"measuring {len(results) + 1}/{len(settings)}: {setting.case}, {sizes}")

    for result in benchmark.run(settings, repetitions, announce):
        put(*describe_result(result), "")
        results.append(result)
    if out is not None:
        content = json.dumps(benchmark.document(results, Path(benchmark.__file__)), indent=1) + "\n"
        write_output(out, content.encode())


def describe_sizes(inputs: int, neurons: Sequence[int]) -> str:
    """Inputs and neurons as in 784-512-100."""
    return "-".join(map(str, [inputs, *neurons]))


def describe_result(result: benchmark.Result) -> Iterator[str]:
    """The lines of a result: what was measured, then a line for each row; with convolutions the times of a sample."""
    setting, rows = result["setting"], result["milliseconds"]
    sizes = describe_sizes(setting["inputs"], setting["neurons"])
    yield (
        f"{setting['case']}: {setting['subject']} {sizes}, T {setting['steps']}, B {setting['batch']}, "
        f"{setting['density']:.1%} events, {setting['surrogate']}, full_gradient={setting['full_gradient']}, "
        f"threads {setting['threads']}, {'autocast, ' * setting['amp']}"
        f"median (quartiles) of {result['repetitions']} repetitions"
    )
    width = 2 + max(map(len, benchmark.LABELS.values()))
    passes = next(iter(rows.values()))
    samples, unit = (setting["batch"], "ms/sample") if "channels" in setting else (1, "ms")
    yield " " * width + "".join(f"{f'{key}, {unit}':>32}" for key in passes)
    for name, times in rows.items():
        cells = (describe_quartiles(t, samples) for t in times.values())
        yield f"{benchmark.LABELS[name]:{width}}" + "".join(f"{cell:>32}" for cell in cells)
    for name, reason in result["left_out"].items():
        yield f"{benchmark.LABELS[name]:{width}}left out: {reason}"


def describe_quartiles(t: Quartiles, samples: int = 1) -> str:
    """The median and the quartiles in milliseconds for each sample, with one decimal more below 1 ms."""
    first, median, third = (t[key] / samples for key in ("quartile1", "median", "quartile3"))
    digits = 2 if median >= 1 else 3
    return f"{median:.{digits}f} ({first:.{digits}f} to {third:.{digits}f})"
