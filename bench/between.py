"""Measure whether torch's operations are slower between srcell's calls than between torch's own: promise 5.

    python bench/between.py

Each of several torch operations is timed directly after srcell.src and directly after torch.tanh, in turn, both run on
arrays of the same size and for the same time, and then directly after torch.sort of such an array. The medians are
printed and written. The ratio of the first two should be below 1.05. The smallest operation may exceed this: if its
code was evicted from the innermost caches, it takes a few microseconds more once, as it does after torch.sort.
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

    def tanh() -> Tensor:
        result = current.tanh()
        while time.perf_counter() < until:
            torch.tanh(current, out=result)
        return result

    def sort() -> Tensor:
        return current.sort(0)[0]

    until = 0.0
    duration = 1e-3 * statistics.median([milliseconds(ours) for _ in range(50)][10:])
    rows: list[dict[str, float | str]] = []
    for name, operation in operations().items():
        times: dict[Callable[[], Tensor], list[float]] = {ours: [], tanh: [], sort: []}
        for before in [ours, tanh, tanh, ours] * ((repetitions + 1) // 2) + [sort] * repetitions:
            until = time.perf_counter() + duration
            before()
            times[before].append(milliseconds(operation))
        behind_ours, behind_tanh, behind_sort = (statistics.median(measured) for measured in times.values())
        rows.append(
            {"operation": name, "behind srcell": behind_ours, "behind tanh": behind_tanh, "behind sort": behind_sort}
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    arguments = parser.parse_args()
    rows = measure(arguments.repetitions)
    for row in rows:
        ours, theirs, sort = (float(x) for x in list(row.values())[1:])
        figures = f"behind srcell {ours:.4f} ms, tanh {theirs:.4f}: {ours / theirs:.3f}; sort {sort:.4f}"
        print(f"{row['operation']:24} {figures}")
    if arguments.repetitions < 1000:  # a quick check: nothing is written
        return
    made = {key: value for key, value in benchmark.document([], Path(__file__).resolve()).items() if key != "results"}
    RESULT.write_text(json.dumps({**made, "milliseconds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
