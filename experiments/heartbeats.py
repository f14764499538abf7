"""The network of heartbeats where it is used: its answers, its parts, and what a step costs, beside a GRU cell.

    python experiments/heartbeats.py --data FOLDER [--run experiments/results/qtdb] [--step PROGRAM] [--draw FOLDER]

The network is exported from a run folder and run by ``srcell.runtime`` as a stream, one step and one recording at a
time, on one thread; with --step also in C, by bench/step.c compiled. The cell is ``nn.GRUCell``, untrained, in torch or
onnxruntime, whichever is faster; with a linear readout, which is counted and not timed, it has as many parameters. A
heartbeat is a recording's stretch from one QRS complex to the next. Writes experiments/results/heartbeats.json. --draw
draws the recording of median accuracy, as docs/_static/figures has it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cost import in_onnxruntime
from pixel_by_pixel import microseconds
from torch import Tensor, nn

import srcell
from srcell.benchmark import document
from srcell.data import EventLoader, LabelledEvents
from srcell.data.signals import PARTS
from srcell.evaluation import evaluate
from srcell.training import RunOptions, load_data

RESULTS = Path(__file__).resolve().parent / "results"
TIMED = 20


class Cell(nn.GRUCell):
    """A cell as ``in_onnxruntime`` takes it."""

    def step(self, x: Tensor, state: Tensor) -> tuple[Tensor]:
        return (self(x, state),)


def heartbeats(labels: Tensor) -> int:
    """How many begin in recordings with labels (B, T)."""
    inside = (labels == PARTS.index("QR")) | (labels == PARTS.index("RS"))
    return int((inside[:, 1:] & ~inside[:, :-1]).sum())


def draw(test: LabelledEvents, told: Tensor, sample: int, folder: Path) -> None:
    """Draw a recording, its parts and the predicted ones."""
    sys.path[:0] = [str(RESULTS.parents[1] / part) for part in ("docs/_machinery", "bench", "tools")]
    import figures
    import matplotlib.style

    from srcell import plots

    for page in figures.INKS:
        with matplotlib.style.context(["default", figures.page_colours(page)]):
            figure = plots.labelled_steps(test.events, test.labels, told, sample, PARTS)
            figure.set_size_inches(1.6 * figures.WIDTH, 2.6)
            figure.suptitle("")
            (folder / f"heartbeats-{page}.svg").write_text(figures.svg_of(figure, "heartbeats", ""))


def in_c(program: Path, file: Path, x: np.ndarray) -> float:
    """Microseconds of a step in C, the median over runs of all steps of some recordings (T, B, K)."""
    steps = file.with_suffix(".txt")
    lines = [" ".join(map(str, step.nonzero()[0])) for recording in x.transpose(1, 0, 2) for step in recording]
    steps.write_text("\n".join(lines) + "\n")
    printed = subprocess.run([program, file, steps], check=True, capture_output=True, text=True).stdout
    found = re.search(r"median (\d+) ns", printed)
    if found is None:
        raise RuntimeError(f"{program} printed {printed!r}")
    return int(found[1]) / 1000


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--run", type=Path, default=RESULTS / "qtdb", help="run folder")
    parser.add_argument("--step", type=Path, help="bench/step.c, compiled")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw heartbeats-light.svg and -dark.svg")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = srcell.load(arguments.run).eval()
    options = RunOptions(data=arguments.data)
    test = load_data(replace(model.config, dataset="qtdb-labelled"), options).test
    events, labels = test.events, test.labels
    logits = model(events, every_step=True)
    told = logits.argmax(2).t()
    known = labels >= 0
    right = (told == labels) & known
    shares = right.sum(1) / known.sum(1)
    middle = int(shares.argsort()[len(shares) // 2])
    if arguments.draw:
        return draw(test, told, middle, arguments.draw)

    steps, count, inputs = events.shape
    x = events.to_dense().numpy()
    parameters = sum(value.numel() for value in model.parameters())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.srcell"
        model.export(file)
        network, size = srcell.runtime.load(file), file.stat().st_size
        of_runtime = network.run(x, every_step=True)
        c = in_c(arguments.step, file, x[:, :TIMED]) if arguments.step else None
    stream = network.stream()

    def read(recording: Tensor) -> None:
        stream.reset()
        for step in recording.numpy():
            stream.step(step.nonzero()[0].astype(np.int32))
            stream.logits()

    work = network.counts(x)
    beats, evaluation = heartbeats(labels) / count, evaluate(model, EventLoader(test))  # of a recording
    operations = sum(layer.synaptic_operations for layer in work)
    # 3 u (k + u) weights and 6 u biases of the cell, (u + 1) c of the readout
    linear = 3 * inputs + 6 + len(PARTS)
    units = round((math.sqrt(linear**2 + 12 * (parameters - len(PARTS))) - linear) / 6)
    cell, state = Cell(inputs, units).eval(), torch.zeros(1, units)
    gru_parameters = sum(value.numel() for value in cell.parameters()) + (units + 1) * len(PARTS)
    gru_operations = 3 * units * (inputs + units) + units * len(PARTS)

    def read_by_cell(recording: Tensor) -> None:
        now = state
        for step in recording[:, None]:
            (now,) = cell.step(step, now)

    sample = torch.from_numpy(x[:, :TIMED]).transpose(0, 1).contiguous().float()
    in_runtime = in_onnxruntime(cell, sample[0][:, None], [state])

    def read_by_onnxruntime(_: Tensor) -> None:
        for t in range(steps):
            in_runtime(t)

    times = {"torch": microseconds(read_by_cell, sample), "onnxruntime": microseconds(read_by_onnxruntime, sample)}
    result: dict[str, Any] = {
        "recordings": count,
        "steps": steps,
        "heartbeats": beats * count,
        "labelled_accuracy": evaluation.accuracy,
        "sample_accuracy": evaluation.sample_accuracy,
        "confusion": evaluation.confusion.tolist(),
        "drawn": {"recording": middle, "accuracy": shares[middle].item()},
        "median_accuracy": statistics.median(shares.tolist()),
        "equal_answers": float((of_runtime.argmax(2) == logits.numpy().argmax(2)).mean()),
        "largest_difference": float(np.abs(of_runtime - logits.numpy()).max()),
        "srcell": {
            "parameters": parameters,
            "file_bytes": size,
            "state_bytes": len(stream.save()),
            "microseconds": microseconds(read, sample),
            "microseconds_in_c": c,
            "events_of_heartbeat": (work[0].events + work[-1].events) / beats,
            "operations_of_heartbeat": operations / beats,
            "operations_of_step": operations / steps,
        },
        "gru": {
            "parameters": gru_parameters,
            "file_bytes": 4 * gru_parameters,
            "state_bytes": 4 * units,
            "microseconds": times,
            "operations_of_heartbeat": gru_operations * steps / beats,
            "operations_of_step": gru_operations,
        },
        **{key: value for key, value in document([], Path(__file__)).items() if key != "results"},
    }
    print(json.dumps(result, indent=1))
    (RESULTS / "heartbeats.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
