"""Forecasts with and without a skip connection from the input to the readout.

    python experiments/skip.py --data FOLDER [--tasks NAME ...] [--seeds 1 2 3]

SRC.for_sequences(K, 96, memory=50) and a leaky readout (alpha 0.8) of every step; Adam, gradients clipped to norm 1, a
learning rate that falls as a cosine. The tasks: the drifting sine of regression.py (800 batches, whose target is its
frequency), and the next frame, or that after four, of Japanese Vowels and of spoken digits as the cochlea hears them
(600 batches of 32, standardised). Adds to experiments/results/skip.json: the error on the test samples, in units of the
targets' variance, and the seconds of each training on one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from regression import STEPS, WARM, signals
from torch import Tensor, nn

import srcell
from srcell import data
from srcell.benchmark import document

RESULTS = Path(__file__).resolve().parent / "results"
UNITS = 96


class Batch(NamedTuple):
    """Inputs (T, B, K), targets (T, B, C), and the number of steps of each sample."""

    inputs: Tensor
    targets: Tensor
    lengths: Tensor


class Task(NamedTuple):
    """Batches to train on, by seed; the test samples; the first step that counts, and the learning rate."""

    batches: Callable[[int], Iterator[Batch]]
    test: Batch
    first: int
    rate: float
    count: int


def sine(root: Path) -> Task:
    """The drifting sine of regression.py."""

    def batch(count: int, generator: torch.Generator) -> Batch:
        return Batch(*signals(count, generator), torch.full((count,), STEPS))

    def batches(seed: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(1000 + seed)
        while True:
            yield batch(64, generator)

    return Task(batches, batch(500, torch.Generator().manual_seed(7)), WARM, 1e-2, 800)


def frames(name: str, ahead: int) -> Callable[[Path], Task]:
    """The frame that follows ``ahead`` frames later."""

    def task(root: Path) -> Task:
        dataset = data.load(name, root)
        training, test = (sequences(part) for part in (dataset.train, dataset.test))
        standardise = srcell.Standardise.of(training[0].transpose(0, 1), training[1])
        parts = [(standardise(x, lengths), lengths) for x, lengths in (training, test)]

        def cut(x: Tensor, lengths: Tensor) -> Batch:
            return Batch(x[:-ahead], x[ahead:], (lengths - ahead).clamp(min=0))

        def batches(seed: int) -> Iterator[Batch]:
            generator = torch.Generator().manual_seed(seed)
            x, lengths = parts[0]
            while True:
                chosen = torch.randint(len(lengths), (32,), generator=generator)
                yield cut(x[: int(lengths[chosen].max()), chosen], lengths[chosen])

        return Task(batches, cut(*parts[1]), 0, 5e-3, 600)

    return task


def sequences(samples: Any) -> tuple[Tensor, Tensor]:
    """Samples as (T, B, K) with their lengths."""
    if isinstance(samples, data.LabelledSounds):
        heard = data.SoundEncoding()(samples.waves, lengths=samples.lengths)
        assert heard.lengths is not None
        return heard.to_dense(torch.float32), heard.lengths
    return samples.values.transpose(0, 1), samples.lengths


TASKS = {
    "sine": sine,
    "vowels-1": frames("japanese-vowels", 1),
    "digits-1": frames("spoken-digits", 1),
    "digits-4": frames("spoken-digits", 4),
}


class Forecaster(nn.Module):
    """A layer and its readout."""

    def __init__(self, inputs: int, outputs: int, skip: bool) -> None:
        super().__init__()
        self.layer = srcell.SRC.for_sequences(inputs, UNITS, memory=50)
        self.readout = srcell.LinearReadout(UNITS, outputs, 0.8, every_step=True, skip=inputs if skip else 0)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        spikes, _ = self.layer(x, lengths=lengths)
        told: Tensor = self.readout(spikes, lengths, input=None if self.readout.skip is None else x)
        return told


def error(outputs: Tensor, batch: Batch, first: int) -> Tensor:
    """The mean squared error of the steps that count."""
    step = torch.arange(len(outputs))[:, None]
    return (outputs - batch.targets)[(step < batch.lengths) & (step >= first)].square().mean()


def train(task: Task, skip: bool, seed: int) -> dict[str, float]:
    """Train a network; return its error in units of the variance, and the seconds."""
    torch.manual_seed(seed)
    network = Forecaster(task.test.inputs.shape[2], task.test.targets.shape[2], skip)
    optimizer = torch.optim.Adam(network.parameters(), lr=task.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, task.count)
    begin = time.perf_counter()
    for _, batch in zip(range(task.count), task.batches(seed), strict=False):
        loss = error(network(batch.inputs, batch.lengths), batch, task.first)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        network.layer.constrain_()
    seconds = time.perf_counter() - begin
    with torch.no_grad():
        wrong = error(network(task.test.inputs, task.test.lengths), task.test, task.first)
        of_zero = error(torch.zeros_like(task.test.targets), task.test, task.first)
    return {"error": float(wrong / of_zero), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = RESULTS / "skip.json"
    for name in arguments.tasks:
        task = TASKS[name](arguments.data)
        row: dict[str, Any] = {"seeds": arguments.seeds}
        for kind in ("without", "skip"):
            row[kind] = [train(task, kind == "skip", seed) for seed in arguments.seeds]
            print(name, kind, *(f"{run['error']:.4f}" for run in row[kind]), flush=True)
        found = json.loads(path.read_text()) if path.exists() else {}
        machine = {key: value for key, value in document([], Path(__file__)).items() if key != "results"}
        found[name] = row | machine
        path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
