"""Time the SRC recurrence on given currents beside PyTorch, and write the table of the README.

    python bench/scan.py [--hidden 100 512] [--repetitions 9] [--out bench/results/scan.json]

Rows: the equations in eager PyTorch one step at a time (srcell.reference), the same compiled in chunks of 20 steps, and
srcell. The incoming gradient is dense and random; gradients of currents and bias. Medians of interleaved repetitions
after a warm-up, with the quartiles in the JSON. Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import platform
import statistics
import subprocess
import time
from collections.abc import Callable

import torch
from torch import Tensor

import srcell
from srcell.reference import src_reference

STEPS, BATCH, CHUNK = 220, 256, 20
WARM_UP = 3
Run = Callable[[Tensor, Tensor], Tensor]


def eager(currents: Tensor, bias: Tensor, recurrent_grad: bool) -> Tensor:
    return src_reference(currents, bias, recurrent_grad=recurrent_grad)[0]


def chunked(currents: Tensor, bias: Tensor, recurrent_grad: bool, run: Callable[..., tuple[Tensor, ...]]) -> Tensor:
    state = tuple(torch.zeros_like(currents[0]) for _ in range(3))
    spikes = []
    for part in currents.split(CHUNK):
        s, *state = run(part, bias, *state)
        spikes.append(s)
    return torch.cat(spikes)


def make_rows(recurrent_grad: bool) -> dict[str, Run]:
    def chunk(part: Tensor, bias: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        spikes, after = src_reference(part, bias, srcell.SRCState(*state), recurrent_grad=recurrent_grad)
        return spikes, *after

    compiled = torch.compile(chunk)
    return {
        "PyTorch, eager": lambda c, b: eager(c, b, recurrent_grad),
        "PyTorch, compiled": lambda c, b: chunked(c, b, recurrent_grad, compiled),
        "srcell": lambda c, b: srcell.src(c, b, recurrent_grad=recurrent_grad)[0],
    }


def measure(neurons: int, recurrent_grad: bool, repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Milliseconds of each repetition, by row and pass."""
    torch.manual_seed(0)
    x = (torch.rand(STEPS, BATCH, 784) < 0.03).float()
    currents = (x @ (torch.randn(784, neurons) * 3 / 28)).requires_grad_()
    bias = torch.full((neurons,), -6.0, requires_grad=True)
    gradient = torch.randn(STEPS, BATCH, neurons)
    rows = make_rows(recurrent_grad)
    times: dict[str, dict[str, list[float]]] = {name: {"forward": [], "both": []} for name in rows}
    for repetition in range(repetitions + WARM_UP):
        for name, run in rows.items():
            currents.grad = bias.grad = None
            start = time.perf_counter()
            with torch.no_grad():
                run(currents, bias)
            middle = time.perf_counter()
            run(currents, bias).backward(gradient)
            end = time.perf_counter()
            if repetition >= WARM_UP:
                times[name]["forward"].append((middle - start) * 1e3)
                times[name]["both"].append((end - middle) * 1e3)
    return times


def describe(neurons: int, recurrent_grad: bool, times: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    return {
        "shape": {"steps": STEPS, "batch": BATCH, "neurons": neurons},
        "recurrent_grad": recurrent_grad,
        "milliseconds": {
            name: {
                key: dict(zip(("quartile1", "median", "quartile3"), statistics.quantiles(v, n=4), strict=True))
                for key, v in passes.items()
            }
            for name, passes in times.items()
        },
    }


def medians(case: dict[str, object], key: str) -> list[float]:
    return [row[key]["median"] for row in case["milliseconds"].values()]


def print_table(cases: list[dict[str, object]]) -> None:
    """A forward row a size, the smaller medians of its cases, because inference knows no gradient mode."""
    print("| neurons | pass | eager | compiled | srcell | times faster than the better |")
    print("|---|---|---|---|---|---|")
    for neurons in dict.fromkeys(case["shape"]["neurons"] for case in cases):
        same = [case for case in cases if case["shape"]["neurons"] == neurons]
        rows = {"forward": [min(values) for values in zip(*(medians(case, "forward") for case in same), strict=True)]}
        for case in same:
            mode = "through time" if case["recurrent_grad"] else "default"
            rows[f"forward and backward, {mode}"] = medians(case, "both")
        for label, (eager_ms, compiled_ms, ours) in rows.items():
            print(
                f"| {neurons} | {label} | {eager_ms:.1f} ms | {compiled_ms:.1f} ms "
                f"| {ours:.1f} ms | {min(eager_ms, compiled_ms) / ours:.1f} |"
            )


def processor() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, nargs="+", default=[100, 512])
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("bench/results/scan.json"))
    parser.add_argument("--table", action="store_true", help="print the table of --out and measure nothing")
    arguments = parser.parse_args()
    if arguments.table:
        print_table(json.loads(arguments.out.read_text())["cases"])
        return
    cases = []
    for neurons in arguments.hidden:
        for recurrent_grad in (False, True):
            torch.compiler.reset()
            times = measure(neurons, recurrent_grad, arguments.repetitions)
            cases.append(describe(neurons, recurrent_grad, times))
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    result = {
        "date": datetime.date.today().isoformat(),
        "commit": commit,
        "processor": processor(),
        "environment": srcell.info(),
        "cases": cases,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print_table(cases)


if __name__ == "__main__":
    main()
