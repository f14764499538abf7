"""Accuracy against cost: SRC, recurrent LIF and GRU layers of three sizes on four tasks.

    python experiments/cost.py train --data FOLDER [--tasks NAME ...] [--neurons NAME ...] [--sizes N ...] [--seeds 0]
    python experiments/cost.py time --data FOLDER

``train`` trains a layer and a linear readout, measures it on samples that it was not trained on, and counts what an
inference costs, as NeuroBench does: a nonzero input or spike costs an operation for each weight that it meets, a GRU's
units are never zero, and the work inside the neurons is not counted. ``time`` times a step of each of these networks,
one sample on one thread: the SRC in srcell's runtime, the others in onnxruntime and in torch, of which the faster one
counts. Times do not depend on the weights, but the SRC's and the LIF's depend on how many neurons spike: the trained
weights are kept under --keep. Adds to experiments/results/cost.json.

The tasks: ``rows``, MNIST row by row, 20,000 of the training digits and 10,000 others; ``pixels``, what_matters.py's
permuted digits of 14 x 14 pixels; ``spoken digits``, the official split; ``frequency``, regression.py, scored by R2.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import regression
import torch
from spoken_digits import leaky_cell, leaky_spikes, mean_readout
from torch import Tensor, nn
from what_matters import Digits

import srcell
from srcell import EventBatch, data
from srcell.benchmark import document
from srcell.data import HeldEncoding, LabelledSequences, SoundEncoding
from srcell.training import TrainingConfig, build_model
from srcell.training.presets import PRESETS

RESULTS = Path(__file__).resolve().parent / "results"

FILE = RESULTS / "cost.json"
SIZES = (64, 128, 256)
PENALTY, TARGET = 100.0, 0.01  # of src-sparse: --rate-penalty and --target-rate of srcell train


class Samples(NamedTuple):
    """Sequences (B, S, K), their labels or targets, and their lengths."""

    x: Tensor
    y: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, values: Tensor, labels: Tensor, lengths: Tensor | None = None) -> Samples:
        return cls(values, labels, torch.full((len(values),), values.shape[1]) if lengths is None else lengths)

    def batch(self, index: Tensor) -> Samples:
        """Those samples, as long as the longest of them."""
        lengths = self.lengths[index]
        longest = int(lengths.max())
        y = self.y[index]
        return Samples(self.x[index, :longest], y[:, :longest] if y.ndim > 1 else y, lengths)


class Task(NamedTuple):
    """A data set, and how the networks are trained on it."""

    samples: Callable[[Path], tuple[Samples, Samples]]
    outputs: int
    epochs: int
    batch: int
    settings: dict[str, Any]  # of the SRC's network
    rates: dict[str, float]  # by neuron
    readout: tuple[float, int] = (1.0, 0)  # alpha and window of the spiking layers' readout
    hold: int = 1  # steps for which spiking layers get each element; a GRU gets it once
    mean: bool = False  # whether the GRU and the LIF are read as means over the steps
    line: tuple[int, int] = (0, 1)  # longest delay of a line of delays, which every network reads, and its taps


def rows(folder: Path) -> tuple[Samples, Samples]:
    found = data.load("seqmnist-rows", folder).train
    assert isinstance(found, LabelledSequences)
    train, held_out = slice(20_000), slice(50_000, 60_000)
    return Samples.of(found.values[train], found.labels[train]), Samples.of(
        found.values[held_out], found.labels[held_out]
    )


def pixels(folder: Path) -> tuple[Samples, Samples]:
    digits = Digits.load(str(folder))
    train, held_out = (Samples.of(x.transpose(0, 1), y) for x, y in (digits.train, digits.validation))
    return train, held_out


def spoken(folder: Path) -> tuple[Samples, Samples]:
    found, parts = data.load_spoken_digits(folder), []
    for sounds in (found.train, found.test):
        events = SoundEncoding()(sounds.waves, lengths=sounds.lengths)
        parts.append(Samples.of(events.to_dense().transpose(0, 1), sounds.labels, events.lengths))
    return parts[0], parts[1]


def frequency(folder: Path) -> tuple[Samples, Samples]:
    parts = []
    for count, seed in ((6_400, 1), (500, 7)):
        x, target = regression.signals(count, torch.Generator().manual_seed(seed))
        parts.append(Samples.of(x.transpose(0, 1), target.transpose(0, 1)))
    return parts[0], parts[1]


# Learning rates: those of accuracy.json, spoken_digits.py and regression.py. For pixels the SRC's rate and
# settings were chosen on these held-out digits, in what_matters.py; the others' rates were not chosen.
TASKS = {
    "rows": Task(
        rows,
        outputs=10,
        epochs=3,
        batch=128,
        settings={"dataset": "seqmnist-rows", "dropout": 0.0},
        rates={"src": 5e-3, "lif": 5e-3, "gru": 1e-2},
        readout=(0.97, 0),
        hold=4,
    ),
    "pixels": Task(
        pixels,
        outputs=10,
        epochs=8,
        batch=128,
        settings={"dataset": "psmnist", "recurrent": False, "recurrent_delay": 0, "slowest_alpha": 0.95},
        rates={"src": 1e-2, "lif": 5e-3, "gru": 5e-3},
        readout=(1.0, 10),
        line=(195, 64),
    ),
    "spoken digits": Task(
        spoken,
        outputs=10,
        epochs=20,
        batch=64,
        settings={"dataset": "spoken-digits"},
        rates={"src": 5e-3, "lif": 5e-3, "gru": 5e-3},
        mean=True,
    ),
    "frequency": Task(
        frequency,
        outputs=1,
        epochs=4,
        batch=64,
        settings={
            **{**PRESETS["best"]["sequences"], "slowest_alpha": math.exp(-1 / 50), "standardise": False},
            "dataset": "spoken-digits",
        },
        rates={"src": 1e-2, "lif": 1e-2, "gru": 4e-3},
        readout=(0.9, 0),
    ),
}


class Spiking(nn.Module):
    """srcell's network of a configuration."""

    def __init__(self, task: Task, inputs: int, neurons: int, seed: int) -> None:
        super().__init__()
        alpha, window = task.readout
        given = {"hidden_sizes": (neurons,), "readout_alpha": alpha, "readout_window": window, "seed": seed}
        given |= {"input_delay": task.line[0], "taps": task.line[1]}
        config = TrainingConfig.preset("best", **{**task.settings, **given})
        self.net = build_model(config, (inputs,), task.outputs)
        self.net.encoder = None
        self.every_step = task.outputs == 1

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs (B, C), or (T, B, C), and what the layer tells its readout (T, B, N)."""
        (spikes,) = self.net.layer_spikes(EventBatch.from_dense(x, lengths))
        return self.net.readout(spikes, lengths, every_step=self.every_step), spikes

    def fans(self) -> list[int]:
        """The weights that an input and a neuron meet."""
        return [int(fan.max()) for fan in self.net.fan_outs()]


class Line(nn.Module):
    """A line of fixed delays (T, B, K) to (T, B, K * taps), or no delay; it has no weights."""

    def __init__(self, inputs: int, longest: int, taps: int) -> None:
        super().__init__()
        self.delay = srcell.Delay(inputs, longest, taps=taps, learnable=False) if longest else None
        if self.delay is not None:
            self.delay.delay.round_()

    def forward(self, x: Tensor) -> Tensor:
        return x if self.delay is None else self.delay(x, return_state=False)[0]


class Peer(nn.Module):
    """What the networks beside the SRC's have in common: a line of delays, and how they are read."""

    def __init__(self, task: Task, inputs: int, neurons: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.line = Line(inputs, *task.line)
        self.neurons, self.outputs = neurons, task.outputs
        self.mean, self.every_step = task.mean, task.outputs == 1


class Leaky(Peer):
    """Recurrent leaky integrate-and-fire neurons of snnTorch with learnt leaks."""

    def __init__(self, task: Task, inputs: int, neurons: int, seed: int) -> None:
        super().__init__(task, inputs, neurons, seed)
        inputs *= task.line[1]
        self.inputs, self.layer = nn.Linear(inputs, neurons), leaky_cell(neurons)
        nn.init.normal_(self.inputs.weight, std=3 * inputs**-0.5)
        nn.init.normal_(self.layer.recurrent.weight, std=neurons**-0.5)
        alpha, window = task.readout
        self.readout = srcell.LinearReadout(neurons, task.outputs, alpha=alpha, window=window)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        spikes = leaky_spikes(self.layer, self.inputs(self.line(x)))
        outputs: Tensor = self.readout(spikes, lengths, every_step=self.every_step)
        return outputs / lengths[:, None] if self.mean else outputs, spikes

    def fans(self) -> list[int]:
        return [self.neurons, self.neurons + self.outputs]

    def step(self, x: Tensor, spikes: Tensor, potential: Tensor, output: Tensor) -> tuple[Tensor, ...]:
        """One step of one sample, with the readout's leaky sum."""
        potential = self.layer.beta * potential + self.inputs(x) + self.layer.recurrent(spikes) - spikes
        spikes = (potential > self.layer.threshold).to(x.dtype)
        return spikes, potential, self.readout.alpha * output + spikes @ self.readout.linear.weight.T


class Gated(Peer):
    """torch's GRU, read at its last step, at every step, or by the mean of its units."""

    def __init__(self, task: Task, inputs: int, neurons: int, seed: int) -> None:
        super().__init__(task, inputs, neurons, seed)
        self.layer = nn.GRU(inputs * task.line[1], neurons)
        self.readout = nn.Linear(neurons, task.outputs)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        units = self.layer(self.line(x))[0]
        if self.every_step:
            return self.readout(units), units
        if self.mean:
            return mean_readout(self.readout, units, lengths), units
        return self.readout(units[-1]), units

    def fans(self) -> list[int]:
        """The readout is read once, or at every step."""
        return [3 * self.neurons, 3 * self.neurons + self.every_step * self.outputs]

    def step(self, x: Tensor, units: Tensor) -> tuple[Tensor, ...]:
        return (self.layer(x[None], units[None])[0][0],)


KINDS: dict[str, Callable[[Task, int, int, int], Any]] = {
    "src": Spiking,
    "src-sparse": Spiking,
    "lif": Leaky,
    "gru": Gated,
}


def held(task: Task, kind: str, samples: Samples) -> tuple[Tensor, Tensor]:
    """A network's input (T, B, K), and its lengths."""
    hold = 1 if kind == "gru" else task.hold
    return HeldEncoding(hold=hold).held(samples.x.transpose(0, 1)), hold * samples.lengths


def train(task: Task, kind: str, neurons: int, seed: int, samples: Samples) -> nn.Module:
    """A network after its training."""
    network = KINDS[kind](task, samples.x.shape[2], neurons, seed)
    rate, count = task.rates[kind.partition("-")[0]], len(samples.x)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.0)
    steps = task.epochs * math.ceil(count / task.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(task.epochs):
        for index in torch.randperm(count, generator=generator).split(task.batch):
            batch = samples.batch(index)
            outputs, spikes = network(*held(task, kind, batch))
            if task.outputs == 1:
                loss = (outputs - batch.y.transpose(0, 1))[regression.WARM :].square().mean()
            else:
                loss = nn.functional.cross_entropy(outputs, batch.y)
            if kind == "src-sparse":
                loss = loss + PENALTY * (spikes.mean((0, 1)) - TARGET).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if isinstance(network, Spiking):
                network.net.constrain_()
    return network.eval()


@torch.no_grad()
def measure(task: Task, kind: str, network: Any, samples: Samples) -> dict[str, float]:
    """The score, in percent or R2, and the operations and steps of a mean inference."""
    right, operations, steps, wrong = 0, 0, 0, 0.0
    of_input, of_unit = network.fans()
    for index in torch.arange(len(samples.x)).split(250):
        batch = samples.batch(index)
        x, lengths = held(task, kind, batch)
        outputs, units = network(x, lengths)
        within = (torch.arange(len(x))[:, None] < lengths)[..., None]
        read = x if isinstance(network, Spiking) else network.line(x)
        operations += of_input * int((read * within).count_nonzero())
        operations += of_unit * int((units * within).count_nonzero())
        steps += int(lengths.sum())
        if task.outputs == 1:
            wrong += float((outputs - batch.y.transpose(0, 1))[regression.WARM :].square().sum())
        else:
            right += int((outputs.argmax(1) == batch.y).sum())
    count = len(samples.x)
    if kind == "gru" and task.outputs > 1:
        operations += count * network.readout.weight.numel()
    if task.outputs > 1:
        score = 100 * right / count
    else:
        target = samples.y[:, regression.WARM :]
        score = 1 - wrong / float((target - target.mean()).square().sum())
    return {"score": score, "operations": operations / count, "steps": steps / count}


Steps = Callable[[int], object]


def steps_of(task: Task, network: Any, samples: Samples, kind: str) -> tuple[dict[str, int], dict[str, Steps], int]:
    """The bytes of weights and state, how a step of one sample is run, and the number of steps.

    The lines of delays of the LIF and the GRU are not timed, the SRC's is.
    """
    x = held(task, kind, samples.batch(torch.tensor([0])))[0]
    weights = 4 * sum(value.numel() for value in network.parameters())
    if isinstance(network, Spiking):
        with TemporaryDirectory() as folder:
            network.net.export(Path(folder) / "net.srcell")
            stream = srcell.runtime.load(Path(folder) / "net.srcell").stream()
        events = [(row.nonzero()[0].astype(np.int32), row[row.nonzero()]) for row in x[:, 0].numpy()]
        ways: dict[str, Steps] = {"srcell": lambda t: stream.step(*events[t])}
        return {"weights": weights, "state": len(stream.save())}, ways, len(x)
    x = network.line(x)
    states = [*torch.zeros(1 if kind == "gru" else 2, 1, network.neurons)]
    if kind == "lif":
        states.append(torch.zeros(1, task.outputs))

    def in_torch(t: int) -> None:
        states[:] = network.step(x[t], *states)

    state = 4 * sum(value.numel() for value in states) + 4 * task.line[0] * samples.x.shape[2]
    ways = {"torch": in_torch, "onnxruntime": in_onnxruntime(network, x, states)}
    return {"weights": weights, "state": state}, ways, len(x)


@torch.inference_mode()
def time_steps(task: Task, networks: dict[tuple[str, int], Any], samples: Samples) -> Iterator[tuple[str, int, Any]]:
    """Of each network the bytes and the microseconds of a step: medians of 40 rounds in which all take turns.

    In a round each reads the sample twice, the second time on the clock.
    """
    made = {key: steps_of(task, network, samples, key[0]) for key, network in networks.items()}
    taken: dict[tuple[tuple[str, int], str], list[float]] = {}
    for _ in range(40):
        for key, (_, ways, count) in made.items():
            for way, step in ways.items():
                for t in range(count):
                    step(t)
                begin = time.perf_counter()
                for t in range(count):
                    step(t)
                taken.setdefault((key, way), []).append(1e6 * (time.perf_counter() - begin) / count)
    for key, (sizes, ways, _) in made.items():
        medians = {way: statistics.median(taken[key, way]) for way in ways}
        yield *key, {**sizes, **medians, "step": min(medians.values())}


class Stepping(nn.Module):
    """A module whose call is a step of a network."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = self.network.step(*arguments)
        return found


def in_onnxruntime(network: Any, x: Tensor, states: list[Tensor]) -> Steps:
    """A step of a network, on one thread of onnxruntime."""
    names = ["x", *(f"state{k}" for k in range(len(states)))]
    with TemporaryDirectory() as folder:
        path, after = f"{folder}/step.onnx", [f"next{k}" for k in range(len(states))]
        arguments = (x[0].clone(), *(torch.zeros_like(state) for state in states))
        torch.onnx.export(Stepping(network), arguments, path, input_names=names, output_names=after, dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = list(x.numpy())
    feed = {name: np.zeros(state.shape, np.float32) for name, state in zip(names[1:], states, strict=True)}

    def step(t: int) -> None:
        feed["x"] = inputs[t]
        feed.update(zip(names[1:], session.run(None, feed), strict=True))

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("train", "time"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--keep", type=Path, default=Path("build/cost"), help="folder of the trained weights")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--neurons", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.keep.mkdir(parents=True, exist_ok=True)
    for name in arguments.tasks:
        task = TASKS[name]
        samples, held_out = task.samples(arguments.data)
        networks = {}
        for kind, neurons in itertools.product(arguments.neurons, arguments.sizes):
            for seed in arguments.seeds:
                weights = arguments.keep / f"{name}-{kind}-{neurons}-{seed}.pt"
                if arguments.what == "train":
                    begin = time.perf_counter()
                    network = train(task, kind, neurons, seed, samples)
                    found = measure(task, kind, network, held_out) | {"seconds": time.perf_counter() - begin}
                    torch.save(network.state_dict(), weights)
                    write(name, kind, neurons, str(seed), found)
                elif seed == arguments.seeds[0]:
                    networks[kind, neurons] = KINDS[kind](task, samples.x.shape[2], neurons, seed).eval()
                    networks[kind, neurons].load_state_dict(torch.load(weights))
        if networks:
            for kind, neurons, found in time_steps(task, networks, held_out):
                write(name, kind, neurons, "time", found)


def write(task: str, kind: str, neurons: int, key: str, found: dict[str, float]) -> None:
    """Print, and add to the file."""
    print(task, kind, neurons, key, found, flush=True)
    results = json.loads(FILE.read_text()) if FILE.exists() else {"tasks": {}}
    results["tasks"].setdefault(task, {}).setdefault(kind, {}).setdefault(str(neurons), {})[key] = found
    machine = {name: value for name, value in document([], Path(__file__)).items() if name != "results"}
    results["timed" if key == "time" else "trained"] = machine
    FILE.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
