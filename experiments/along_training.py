"""What becomes of a layer along a long training: its drive, its weights, and how exact its gradient is.

    python experiments/along_training.py --data FOLDER [--tasks NAME ...] [--batches 2000]

SRC.for_sequences with 128 neurons and a linear readout, trained with Adam at a constant rate of 4e-3 on six tasks, once
with the cell of srcell 0.2 (rho 3, rs -7, zs_hyp 0.5) and once with today's. At eight points of each training it
measures, on 128 samples: the share of the neurons that are silent, the share of the elements in which i is beyond
3 rho, the root mean square of i / rho, the norms of the weights, and, of the default gradient (the exact one too), the
norm and the cosine of the angle between the two. Writes experiments/results/along-training.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import for_sequences
import regression
import torch
from spoken_digits import CURRENTS, dense
from torch import Tensor, nn

import srcell
from srcell import SRC, data
from srcell.layers import LinearReadout

RESULTS = Path(__file__).resolve().parent / "results"

NEURONS, RATE, MEASURED = 128, 4e-3, 128
BEFORE = {"rho": 3.0, "rs": -7.0, "zs_hyp": 0.5}
EXACT = {"surrogate": "relu", "full_gradient": True}

Batch = tuple[Tensor, Tensor, Tensor | None]  # inputs (T, B, K), targets, lengths


class Course(NamedTuple):
    """A task: batches without end, the first of them to measure on, and the number of inputs and outputs."""

    batches: Callable[[int], Iterator[Batch]]
    inputs: int
    outputs: int
    every_step: bool = False

    def loss(self, layer: SRC, readout: LinearReadout, batch: Batch) -> Tensor:
        inputs, targets, lengths = batch
        told = readout(layer(inputs, lengths=lengths)[0], lengths, every_step=self.every_step)
        if self.every_step:
            return (told - targets)[regression.WARM :].square().mean()
        return nn.functional.cross_entropy(told, targets)


def regressed(size: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield (*regression.signals(size, generator), None)


def course(samples: for_sequences.Sequences, classes: int) -> Course:
    def batches(size: int) -> Iterator[Batch]:
        while True:
            for index in torch.randperm(len(samples.labels)).split(size):
                chosen = samples.select(index)
                yield chosen.inputs.transpose(0, 1).contiguous(), chosen.labels, chosen.lengths

    return Course(batches, samples.inputs.shape[2], classes)


def sounds(root: str) -> for_sequences.Sequences:
    """The currents of the spoken digits."""
    train = data.load("spoken-digits", root).train
    x, lengths = dense(CURRENTS(train.waves, lengths=train.lengths))
    return for_sequences.Sequences(x.transpose(0, 1), train.labels, lengths)


def pixels(root: str) -> for_sequences.Sequences:
    """Digits of 14 x 14 pixels, in a fixed random order."""
    train = data.load("mnist", root).train
    small = nn.functional.avg_pool2d(train.images[:10000].float().reshape(-1, 1, 28, 28), 2).flatten(1)
    order = torch.randperm(small.shape[1], generator=torch.Generator().manual_seed(5))
    return for_sequences.Sequences(((small - small.mean()) / small.std())[:, order, None], train.labels[:10000])


COURSES: dict[str, Callable[[str], Course]] = {
    "regression": lambda root: Course(regressed, 1, 1, every_step=True),
    "rows": lambda root: course(for_sequences.held(data.load("seqmnist-rows", root).train, 6000), 10),
    "vowels": lambda root: course(for_sequences.held(data.load("japanese-vowels", root).train), 9),
    "adding": lambda root: course(for_sequences.adding(8000, 1), 3),
    "spoken digits": lambda root: course(sounds(root), 10),
    "pixels": lambda root: course(pixels(root), 10),
}


def measure(task: Course, layer: SRC, readout: LinearReadout, batch: Batch, options: dict[str, Any]) -> dict[str, Any]:
    """The layer's state, and its default and exact gradients on a batch."""
    twin = SRC.for_sequences(task.inputs, NEURONS, **(options | EXACT))
    twin.load_state_dict(layer.state_dict())
    loss = task.loss(layer, readout, batch)
    names = ("weight_ih_l0", "weight_hh_l0")
    ours = torch.autograd.grad(loss, [getattr(layer, name) for name in names])
    theirs = torch.autograd.grad(task.loss(twin, readout, batch), [getattr(twin, name) for name in names])
    of = srcell.diagnose(layer, batch[0], lengths=batch[2]).layers[0]
    found = {"loss": loss.item(), "silent": of.silent, "saturated": of.saturated, "i_over_rho": of.i_over_rho}
    found |= {"rate": of.rate, "always": of.always_active}
    for name, one, other in zip(names, ours, theirs, strict=True):
        found[name] = {
            "norm": getattr(layer, name).norm().item(),
            "default": one.norm().item(),
            "exact": other.norm().item(),
            "cosine": nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0).item(),
        }
    return found


def train(task: Course, options: dict[str, Any], batches: int, size: int = 64) -> list[dict[str, Any]]:
    torch.manual_seed(1)
    layer = SRC.for_sequences(task.inputs, NEURONS, **options)
    readout = LinearReadout(NEURONS, task.outputs, alpha=0.9 if task.every_step else 0.97)
    parameters = [*layer.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    measured, rows = next(task.batches(MEASURED)), []
    for number, batch in enumerate(task.batches(size)):
        if number in {0, *(batches >> k for k in range(7))}:
            rows.append({"batches": number} | measure(task, layer, readout, measured, options))
        if number == batches:
            return rows
        optimizer.zero_grad()
        task.loss(layer, readout, batch).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        layer.constrain_()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--tasks", nargs="+", default=list(COURSES), choices=list(COURSES))
    parser.add_argument("--batches", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "along-training.json"
    for name in arguments.tasks:
        task = COURSES[name](arguments.data)
        memory = {"memory": 50} if task.every_step else {}
        runs = {
            "before": train(task, memory | BEFORE, arguments.batches),
            "now": train(task, memory, arguments.batches),
        }
        for start, rows in runs.items():
            for row in rows:
                shown = {key: f"{value:.3g}" for key, value in row.items() if isinstance(value, float)}
                parts = {part: {k: f"{x:.2g}" for k, x in row[f"weight_{part}_l0"].items()} for part in ("ih", "hh")}
                print(name, start, row["batches"], *shown.items(), *parts.items(), flush=True)
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | {name: runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
