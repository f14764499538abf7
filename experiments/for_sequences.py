"""Train a recurrent layer with the defaults of ``SRC`` and with ``SRC.for_sequences`` on five unlike tasks.

    python experiments/for_sequences.py --data FOLDER [--seeds 3]

A layer of 128 neurons with recurrent weights and a linear readout, trained with the same data, optimiser, one-cycle
rate and number of epochs. Writes experiments/results/for-sequences.json: the accuracy on 1,000 or 2,000 held-out
samples, for MNIST and Japanese Vowels on those of the test set. Needs MNIST and Japanese Vowels; the other tasks are
generated.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from srcell import SRC, data
from srcell.layers import LinearReadout

RESULTS = Path(__file__).resolve().parent / "results"

NEURONS, RATE = 128, 1e-2


class Sequences(NamedTuple):
    """Inputs (B, T, K), labels (B,), and lengths (B,) or None."""

    inputs: Tensor
    labels: Tensor
    lengths: Tensor | None = None

    def select(self, index: Tensor) -> Sequences:
        return Sequences(*[None if x is None else x[index] for x in self])


class Task(NamedTuple):
    train: Sequences
    test: Sequences
    classes: int
    epochs: int
    batch: int = 128


def adding(count: int, seed: int) -> Sequences:
    """Binary adding: the sum of two marked values among 100; inputs: value 1, value 0, mark."""
    generator, rows = torch.Generator().manual_seed(seed), torch.arange(count)
    values = torch.randint(0, 2, (count, 100), generator=generator)
    first, second = (torch.randint(at, at + 50, (count,), generator=generator) for at in (0, 50))
    marks = torch.zeros(count, 100)
    marks[rows, first] = marks[rows, second] = 1
    inputs = torch.stack([values.float(), 1 - values.float(), marks], 2)
    return Sequences(inputs, values[rows, first] + values[rows, second])


def waves(count: int, seed: int) -> Sequences:
    """Dense currents: eight sines of one of six periods and random phases, under noise; the class is the period."""
    generator, steps = torch.Generator().manual_seed(seed), torch.arange(150)
    labels = torch.randint(0, 6, (count,), generator=generator)
    omega = 2 * math.pi / torch.tensor([8.0, 12, 18, 27, 40, 60])[labels]
    phase = 2 * math.pi * torch.rand(count, 1, 8, generator=generator)
    inputs = (omega[:, None, None] * steps[:, None] + phase).sin()
    return Sequences(inputs + 1.5 * torch.randn(inputs.shape, generator=generator), labels)


def recall(count: int, seed: int) -> Sequences:
    """Delayed recall over 100 steps of noise, as srcell.data generates it."""
    labels = torch.arange(count) % data.RecallEncoding.SYMBOLS
    symbols = nn.functional.one_hot(labels, data.RecallEncoding.INPUTS).float()[:, None]
    events = data.RecallEncoding(delay=100)(symbols, torch.arange(count), seed)
    return Sequences(events.to_dense().transpose(0, 1).contiguous(), labels)


def held(samples: Any, count: int | None = None) -> Sequences:
    """Sequences of a data set, each element held for four steps."""
    if count is not None:
        samples = samples.select(
            torch.randperm(len(samples.labels), generator=torch.Generator().manual_seed(1))[:count]
        )
    lengths = None if samples.lengths is None else 4 * samples.lengths
    return Sequences(samples.values.repeat_interleave(4, 1), samples.labels, lengths)


def tasks(root: str) -> dict[str, Task]:
    rows, vowels = (data.load(name, root) for name in ("seqmnist-rows", "japanese-vowels"))
    return {
        "binary adding over 100 steps": Task(adding(8000, 1), adding(2000, 2), 3, 10),
        "rows of 6,000 digits": Task(held(rows.train, 6000), held(rows.test, 2000), 10, 8),
        "Japanese Vowels": Task(held(vowels.train), held(vowels.test), 9, 40, 16),
        "delayed recall over 100 steps": Task(recall(6000, 1), recall(1000, 2), 8, 6),
        "dense waves under noise": Task(waves(6000, 1), waves(1000, 2), 6, 8),
    }


LAYERS = {
    "SRC(recurrent=True)": lambda inputs: SRC(inputs, NEURONS, recurrent=True),
    "SRC.for_sequences": lambda inputs: SRC.for_sequences(inputs, NEURONS),
}


def train(task: Task, name: str, seed: int) -> tuple[float, float]:
    """Train, and return the accuracy and the seconds."""
    torch.manual_seed(seed)
    begin, count = time.perf_counter(), len(task.train.labels)
    layer, readout = LAYERS[name](task.train.inputs.shape[2]), LinearReadout(NEURONS, task.classes, alpha=0.97)
    parameters = [*layer.parameters(), *readout.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=RATE)
    batches = -(-count // task.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=task.epochs * batches + 1)

    def logits_of(samples: Sequences) -> Tensor:
        spikes, _ = layer(samples.inputs.transpose(0, 1).contiguous(), lengths=samples.lengths)
        logits: Tensor = readout(spikes, lengths=samples.lengths)
        return logits

    for _ in range(task.epochs):
        for index in torch.randperm(count).split(task.batch):
            samples = task.train.select(index)
            loss = nn.functional.cross_entropy(logits_of(samples), samples.labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            layer.constrain_()
    seconds, right = time.perf_counter() - begin, 0
    with torch.no_grad():
        for index in torch.arange(len(task.test.labels)).split(500):
            samples = task.test.select(index)
            right += int((logits_of(samples).argmax(1) == samples.labels).sum())
    return right / len(task.test.labels), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows = []
    for task_name, task in tasks(arguments.data).items():
        for name in LAYERS:
            runs = [train(task, name, seed) for seed in range(arguments.seeds)]
            accuracies, seconds = zip(*runs, strict=True)
            rows.append(
                {
                    "task": task_name,
                    "layer": name,
                    "epochs": task.epochs,
                    "accuracies": accuracies,
                    "seconds": sum(seconds) / len(seconds),
                }
            )
            print(task_name, name, accuracies, f"{rows[-1]['seconds']:.1f} s", flush=True)
    (RESULTS / "for-sequences.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
