"""Measure every case and write the results of this processor to bench/results; ``make pages`` then updates the pages.

    python bench/run.py
    python bench/run.py calls       # some cases, printed and not written unless --write is given

Run it on an otherwise idle machine, from a commit: it takes about a quarter of an hour on two cores.
SpikingJelly, snnTorch and Norse are measured if they are installed.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import others

from srcell import benchmark
from srcell.cli.bench import describe_result

SPEED = Path(__file__).resolve().parent / "results" / "speed"

REPETITIONS = 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE")
    parser.add_argument("--write", action="store_true", help="write the results of these cases too")
    arguments = parser.parse_args()
    cases = arguments.cases
    results = []
    for result in benchmark.run(others.with_others(benchmark.choose(cases)), REPETITIONS):
        print(*describe_result(result), "", sep="\n", flush=True)
        results.append(result)
    if cases and not arguments.write:
        return
    document = benchmark.document(results, Path(__file__).resolve())
    document["environment"] |= others.versions()
    name = "-".join(re.findall("[a-z0-9]+", document["processor"].lower()))
    (SPEED / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
