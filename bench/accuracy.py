"""Train the networks of the accuracy table and record how they do on the test set.

    python bench/accuracy.py --data FOLDER [ID ...]

Each row is one command of srcell, run once a seed; rows that were not asked for stay as they are in
bench/results/accuracy.json. The weights of the first seed of mnist-100 go to bench/results/mnist-100, a run folder for
``srcell eval``. Hyperparameters were chosen on validation samples, taken from the training set; the runs here train on
all of it and look at the test set once.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import NamedTuple

from srcell.cli import main as srcell

RESULTS = Path(__file__).parent / "results"
KEPT = {"mnist-100"}


class Row(NamedTuple):
    data: str
    network: str
    mode: str
    arguments: str  # of srcell train
    epochs: int
    seeds: tuple[int, ...]
    configurations_tried: int


TABLE = {
    "mnist-100": Row(
        "MNIST, rate",
        "784-100",
        "straight_through, recurrent_grad=False",
        "mnist --preset reference --lr 2e-2 --temperature 3 --validation 0",
        epochs=20,
        seeds=(0, 1, 2),
        configurations_tried=14,
    ),
}


def run(name: str, row: Row, data: str) -> dict[str, object]:
    """Train the row's network once a seed."""
    command = f"train {row.arguments} --epochs {row.epochs}"
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in row.seeds:
            out = Path(folder) / str(seed)
            arguments = [*shlex.split(command), "--seed", str(seed), "--data", data, "--out", str(out)]
            if code := srcell(arguments):
                raise SystemExit(code)
            results.append(json.loads((out / "result.json").read_text()))
        if name in KEPT:
            kept = RESULTS / name
            kept.mkdir(exist_ok=True)
            for file in ("config.json", "model.safetensors", "result.json"):
                shutil.copy(Path(folder) / str(row.seeds[0]) / file, kept / file)

    def mean(key: str) -> float:
        return statistics.mean(result[key] for result in results)

    return {
        "id": name,
        "data": row.data,
        "network": row.network,
        "mode": row.mode,
        "command": f"srcell {command} --seed SEED",
        "seeds": list(row.seeds),
        "epochs": row.epochs,
        "seconds": mean("seconds"),
        "test_accuracy": mean("test_accuracy"),
        "test_accuracies": [result["test_accuracy"] for result in results],
        "events_per_inference": mean("events_per_inference"),
        "synops_per_inference": mean("synops_per_inference"),
        "configurations_tried": row.configurations_tried,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"some of {', '.join(TABLE)} [all]")
    parser.add_argument("--data", required=True, help="folder of the data sets")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.ids) - TABLE.keys())
    if unknown:
        parser.error(f"unknown rows {', '.join(unknown)}: expected some of {', '.join(TABLE)}")
    path = RESULTS / "accuracy.json"
    rows = {row["id"]: row for row in json.loads(path.read_text())} if path.exists() else {}
    for name in arguments.ids or TABLE:
        rows[name] = run(name, TABLE[name], arguments.data)
        path.write_text(json.dumps([rows[name] for name in TABLE if name in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
