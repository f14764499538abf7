"""Whether torch's operations are slower between our calls than between torch's own: promise 5.

    python bench/between.py

Each of some torch operations is timed right behind srcell.src, and right behind torch operations that read and write
arrays of the same sizes on as many threads and take about as long, so that the caches are as cold in both; the two are
taken in turn. Printed and written are the medians and their ratio, which shall stay below 1.05.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import srcell
from srcell import benchmark

RESULT = Path(__file__).with_name("results") / "between.json"


def operations() -> dict[str, Callable[[], Tensor]]:
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    long = torch.randn(2_000_000)
    images, filters = torch.randn(16, 8, 28, 28), torch.randn(16, 8, 3, 3)
    return {
        "matmul 512 x 512": lambda: a @ b,
        "sin of 2,000,000": lambda: long.sin(),
        "sum of 2,000,000": lambda: long.sum(),
        "conv2d 16 x 8 x 28 x 28": lambda: torch.nn.functional.conv2d(images, filters, padding=1),
        "add of 1,000": lambda: long[:1000] + 1,
    }


def milliseconds(operation: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    operation()
    return 1e3 * (time.perf_counter() - start)


@torch.no_grad()
def measure(repetitions: int) -> list[dict[str, float | str]]:
    current = torch.randn(220, 64, 100)

    def ours() -> Tensor:
        return srcell.src(current, -6.0)[0]

    def theirs() -> Tensor:
        result = current.tanh()
        while time.perf_counter() < until:
            torch.tanh(current, out=result)
        return result

    until = 0.0
    duration = 1e-3 * statistics.median([milliseconds(ours) for _ in range(50)][10:])
    rows = []
    for name, operation in operations().items():
        times: dict[Callable[[], Tensor], list[float]] = {ours: [], theirs: []}
        for repetition in range(repetitions):
            for before in (ours, theirs) if repetition % 2 else (theirs, ours):
                until = time.perf_counter() + duration
                before()
                times[before].append(milliseconds(operation))
        behind_ours, behind_torch = (statistics.median(times[before]) for before in (ours, theirs))
        rows.append({"operation": name, "behind srcell": behind_ours, "behind torch": behind_torch})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    arguments = parser.parse_args()
    rows = measure(arguments.repetitions)
    for row in rows:
        ours, theirs = float(row["behind srcell"]), float(row["behind torch"])
        print(f"{row['operation']:24} {ours:8.4f} ms behind srcell, {theirs:8.4f} behind torch: {ours / theirs:.3f}")
    document = {key: value for key, value in benchmark.record([], Path(__file__).resolve()).items() if key != "results"}
    RESULT.write_text(json.dumps({**document, "milliseconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
