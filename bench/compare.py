"""Compare two measurements of ``srcell bench --out`` or ``bench/run.py`` and report what got slower beyond noise.

    python bench/compare.py OLD.json NEW.json

The exit status is 0 if nothing got slower, 1 if something did, 2 if the two cannot be compared. The script
needs only Python, and reads only the fields that it compares.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

# Times differ between processes by a few percent, which the quartiles within one process do not show: they depend on
# the heap's addresses and on what else is running.
MARGIN = 0.05


def times_by_row(document: dict[str, Any]) -> dict[tuple[str, ...], dict[str, float]]:
    """Quartiles by setting, row and pass."""
    return {
        (json.dumps({"amp": False} | result["setting"], sort_keys=True), row, key): quartiles
        for result in document["results"]
        for row, passes in result["milliseconds"].items()
        for key, quartiles in passes.items()
    }


def is_slower(old: dict[str, float], new: dict[str, float]) -> bool:
    """Whether the interquartile ranges do not overlap and the median grew by more than the margin."""
    return new["quartile1"] > old["quartile3"] and new["median"] > (1 + MARGIN) * old["median"]


def describe(name: tuple[str, ...], old: dict[str, float], new: dict[str, float]) -> str:
    setting = json.loads(name[0])
    sizes = "-".join(map(str, [setting["inputs"], *setting["neurons"]]))
    return (
        f"{setting['case']} ({setting['subject']} {sizes}, T {setting['steps']}, B {setting['batch']}, "
        f"{setting['density']:.1%}, {setting['surrogate']}, full_gradient={setting['full_gradient']}, "
        f"threads {setting['threads']}{', autocast' * setting['amp']}), {name[1]}, {name[2]}: "
        f"{old['median']:.2f} -> {new['median']:.2f} ms, {new['median'] / old['median']:.2f} times"
    )


def compare(old: dict[str, Any], new: dict[str, Any]) -> int:
    """Print what changed and return the exit status."""
    for key in ("processor", "isa"):
        before, after = (document.get(key) or document["environment"][key] for document in (old, new))
        if before != after:
            raise ValueError(f"not comparable: {key} was {before} and is {after}")
    old_times, new_times = times_by_row(old), times_by_row(new)
    both = [name for name in old_times if name in new_times]
    if not both:
        raise ValueError("not comparable: no setting was measured in both")
    slower = [name for name in both if is_slower(old_times[name], new_times[name])]
    faster = [name for name in both if is_slower(new_times[name], old_times[name])]
    for title, names in (("slower", slower), ("faster", faster)):
        for name in names:
            print(f"{title}: {describe(name, old_times[name], new_times[name])}")
    alone = len(old_times) + len(new_times) - 2 * len(both)
    print(f"{len(both)} times compared, {len(slower)} slower, {len(faster)} faster, {alone} in one file only")
    return 1 if slower else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Report what got slower between two measurements, beyond noise.")
    parser.add_argument("old", type=Path, metavar="OLD.json")
    parser.add_argument("new", type=Path, metavar="NEW.json")
    arguments = parser.parse_args()
    try:
        return compare(*(json.loads(path.read_text()) for path in (arguments.old, arguments.new)))
    except KeyError as missing:
        print(f"compare: a file is not from srcell bench: it has no {missing}", file=sys.stderr)
    except (OSError, ValueError) as error:
        print(f"compare: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
