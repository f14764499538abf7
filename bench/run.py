"""Measure every case and write what the repository shows of it: JSON, plots and the README's section.

    python bench/run.py

Run it alone on the machine, from a commit: it takes about ten minutes on two cores. SpikingJelly, snnTorch and Norse
are measured if they are installed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import report

from srcell import benchmark
from srcell.cli import describe_result

REPETITIONS = 9


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    results = []
    for result in benchmark.run(benchmark.choose([]), REPETITIONS):
        print(*describe_result(result), "", sep="\n", flush=True)
        results.append(result)
    document = benchmark.record(results, Path(__file__).resolve())
    (report.RESULTS / "speed.json").write_text(json.dumps(document, indent=1) + "\n")
    report.write_report(document)


if __name__ == "__main__":
    main()
