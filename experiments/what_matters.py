"""What matters for long sequences: train layers that differ in one thing on permuted digits of 14 x 14 pixels.

    python experiments/what_matters.py --data FOLDER [--rows NAME ...] [--seeds 0]

10,000 digits of MNIST, averaged to 14 x 14 pixels, are read one pixel a step in a fixed random order: 196 steps. The
accuracy is that on 4,000 other digits of the training set; the test set is not used. Each row is the base with one
change; the base is one layer of 256 resonant neurons with delayed recurrent weights. Adds to
experiments/results/what-matters.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import srcell
from srcell import SRC, spread, spread_frequencies
from srcell.data import LabelledImages, load_mnist

RESULTS = Path(__file__).resolve().parent / "results"

TRAINING, VALIDATION, SIDE, BATCH = 10_000, 4_000, 14, 128
FILE = RESULTS / "what-matters.json"


class Settings(NamedTuple):
    """Of a layer and its training; the defaults are the base."""

    neurons: int = 256
    layers: int = 1
    joined: bool = False  # whether the readout reads both layers
    recurrent: bool = True
    recurrent_scale: float = 1.0  # of the initial recurrent weights
    input_scale: float = 1.0
    scaled: bool = False  # initial input weights scaled by each neuron's alpha, as in SRC.for_sequences
    lowest: float = 0.01  # omega
    highest: float = 1.0  # 0: no resonance
    silent: float = 0.125
    delays: int = 60
    delay_values: int = 0  # how many values the delays have; 0: one each
    learnable: tuple[str, ...] = ()
    delay_width: int = 1
    taps: int = 0  # how many delays the input has, fixed; 0: none
    input_delays: int = 60
    fastest: float = 0.5  # alpha
    slowest: float = 0.99
    zs_hyp: float = 0.5
    surrogate: str = "straight_through"
    recurrent_surrogate: str = "relu"
    full_gradient: bool = False
    window: int = 60
    readout_alpha: float = 1.0
    rate: float = 5e-3
    schedule: str = "one-cycle"
    clip: float = 1.0
    weight_decay: float = 0.0
    dropout: float = 0.0
    epochs: int = 4


class Network(nn.Module):
    """One layer or two, and a linear readout of the last, or of all."""

    def __init__(self, of: Settings) -> None:
        super().__init__()
        self.taps = srcell.Delay(1, of.input_delays, taps=of.taps, learnable=False) if of.taps else None
        sizes = [max(of.taps, 1), *[of.neurons] * (of.layers - 1)]
        self.layers = nn.ModuleList(layer(of, inputs) for inputs in sizes)
        read = of.neurons * (of.layers if of.joined else 1)
        self.readout = srcell.LinearReadout(read, 10, alpha=of.readout_alpha, window=of.window)
        self.joined, self.dropout = of.joined, of.dropout
        if self.taps is not None:
            self.taps.delay.round_()

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        if self.taps is not None:
            x, _ = self.taps(x, return_state=False)
        for each in self.layers:
            x, _ = each(x)
            x = nn.functional.dropout(x, self.dropout, self.training)
            outputs.append(x)
        logits: Tensor = self.readout(torch.cat(outputs, 2) if self.joined else x)
        return logits


def layer(of: Settings, inputs: int) -> SRC:
    drawn = torch.rand(of.neurons) * of.delays
    if of.delay_values:
        drawn = (torch.arange(of.neurons) % of.delay_values) * (of.delays / max(of.delay_values - 1, 1))
    delayed: dict[str, Any] = {}
    if of.recurrent and of.delays:
        delayed = {"delay_hh": drawn if "delay_hh" in of.learnable else drawn.round(), "max_delay": of.delays}
        delayed["delay_width"] = of.delay_width
    made = SRC(
        inputs,
        of.neurons,
        recurrent=of.recurrent,
        recurrent_surrogate=of.recurrent_surrogate,
        alpha=spread(of.fastest, of.slowest),
        omega=spread_frequencies(of.lowest, of.highest, of.silent) if of.highest else 0.0,
        zs_hyp=of.zs_hyp,
        initial_state="rest",
        surrogate=of.surrogate,
        full_gradient=of.full_gradient,
        learnable=of.learnable,
        **delayed,
    )
    with torch.no_grad():
        scale = ((1 - made.alpha_l0.square()) / (1 - 0.9**2)).sqrt()[:, None] if of.scaled else 1.0
        made.weight_ih_l0.mul_(scale * of.input_scale)
        if of.recurrent:
            made.weight_hh_l0.mul_(of.recurrent_scale)
    return made


class Digits(NamedTuple):
    """Sequences of pixels (T, B, 1) and labels (B,)."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]

    @classmethod
    def load(cls, root: str) -> Digits:
        samples = load_mnist(root).train
        assert isinstance(samples, LabelledImages)
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(SIDE * SIDE, generator=generator)
        chosen = torch.randperm(len(samples.labels), generator=generator)[: TRAINING + VALIDATION]
        small = nn.functional.avg_pool2d(samples.images[chosen][:, None], 2).flatten(1)[:, order]
        pixels, labels = small.T[..., None].contiguous(), samples.labels[chosen]
        first = slice(TRAINING), slice(TRAINING, None)
        return cls(*((pixels[:, part], labels[part]) for part in first))


def train(of: Settings, digits: Digits, seed: int) -> dict[str, Any]:
    """Train a network; return the accuracy on the validation digits after each epoch, in percent."""
    torch.manual_seed(seed)
    network, (pixels, labels) = Network(of), digits.train
    delays = [value for name, value in network.named_parameters() if "delay" in name]
    others = [value for name, value in network.named_parameters() if "delay" not in name]
    groups = [{"params": others, "lr": of.rate}, *([{"params": delays, "lr": 0.1}] if delays else [])]
    optimizer = torch.optim.AdamW(groups, weight_decay=of.weight_decay)
    batches = math.ceil(TRAINING / BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape_of(of, of.epochs * batches))
    begin, after = time.perf_counter(), []
    for _ in range(of.epochs):
        network.train()
        for index in torch.randperm(TRAINING).split(BATCH):
            loss = nn.functional.cross_entropy(network(pixels[:, index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            if of.clip:
                nn.utils.clip_grad_norm_(others, of.clip)
            optimizer.step()
            schedule.step()
            for each in network.layers:
                each.constrain_()
        after.append(accuracy(network.eval(), digits.validation))
    parameters = sum(value.numel() for value in network.parameters())
    return {"accuracies": after, "seconds": time.perf_counter() - begin, "parameters": parameters}


def shape_of(of: Settings, steps: int) -> Callable[[int], float]:
    """The learning rate of each step as a share of its peak."""

    def one_cycle(step: int) -> float:
        rise = 0.3 * steps
        done = step / rise if step < rise else 1 - (step - rise) / (steps - rise)
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done)) / 2 if step < rise else (1 - math.cos(math.pi * done)) / 2

    shapes: dict[str, Callable[[int], float]] = {
        "one-cycle": one_cycle,
        "constant": lambda step: 1.0,
        "warm-up": lambda step: min(1.0, (step + 1) / (0.1 * steps)) * (1 + math.cos(math.pi * step / steps)) / 2,
    }
    return shapes[of.schedule]


@torch.no_grad()
def accuracy(network: nn.Module, part: tuple[Tensor, Tensor]) -> float:
    pixels, labels = part
    right = sum(
        int((network(pixels[:, index]).argmax(1) == labels[index]).sum())
        for index in torch.arange(len(labels)).split(500)
    )
    return 100 * right / len(labels)


# Delays of the input over all of the digit, in place of recurrent weights.
LINE: dict[str, Any] = {
    "recurrent": False,
    "delays": 0,
    "neurons": 512,
    "taps": 64,
    "input_delays": SIDE * SIDE - 1,
    "lowest": 0.03,
    "highest": 2.5,
    "zs_hyp": 0.1,
    "slowest": 0.95,
    "window": 10,
    "rate": 1e-2,
}
# Each row: what it changes, by name.
ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "without recurrent weights": {"recurrent": False, "delays": 0},
    "without frequencies": {"highest": 0.0},
    "without delays": {"delays": 0},
    "without frequencies and delays": {"highest": 0.0, "delays": 0},
    "omega to 0.3": {"highest": 0.3},
    "omega to 2.5": {"highest": 2.5},
    "omega from 0.003": {"lowest": 0.003},
    "omega from 0.03": {"lowest": 0.03},
    "no neuron at omega 0": {"silent": 0.0},
    "half of the neurons at omega 0": {"silent": 0.5},
    "omega learnt": {"learnable": ("omega",)},
    "alpha learnt": {"learnable": ("alpha",)},
    "alpha and omega learnt": {"learnable": ("alpha", "omega")},
    "delays to 20": {"delays": 20},
    "delays to 150": {"delays": 150},
    "delays of 16 values": {"delay_values": 16},
    "delays learnt": {"learnable": ("delay_hh",)},
    "16 delays of the input": {"taps": 16},
    "16 delays of the input, no others": {"taps": 16, "delays": 0},
    "delays learnt, width 8": {"learnable": ("delay_hh",), "delay_width": 8},
    "alpha to 0.95": {"slowest": 0.95},
    "alpha to 0.998": {"slowest": 0.998},
    "alpha from 0.9": {"fastest": 0.9},
    "zs_hyp 0.3": {"zs_hyp": 0.3},
    "zs_hyp 0.7": {"zs_hyp": 0.7},
    "zs_hyp 0.9": {"zs_hyp": 0.9},
    "readout of all steps": {"window": 0},
    "readout of the last 20": {"window": 20},
    "readout of the last 120": {"window": 120},
    "input weights x 0.5": {"input_scale": 0.5},
    "input weights x 2": {"input_scale": 2.0},
    "input weights x 4": {"input_scale": 4.0},
    "input weights scaled by alpha": {"scaled": True},
    "recurrent weights x 0.5": {"recurrent_scale": 0.5},
    "recurrent weights x 2": {"recurrent_scale": 2.0},
    "relu surrogate": {"surrogate": "relu"},
    "straight through the recurrent weights": {"recurrent_surrogate": "straight_through"},
    "gradients through h and hs": {"surrogate": "relu", "full_gradient": True},
    "rate 2e-3": {"rate": 2e-3},
    "rate 1e-2": {"rate": 1e-2},
    "constant rate": {"schedule": "constant"},
    "warm-up, then cosine": {"schedule": "warm-up"},
    "gradients not clipped": {"clip": 0.0},
    "weight decay 0.1": {"weight_decay": 0.1},
    "dropout 0.2": {"dropout": 0.2},
    "two layers": {"layers": 2, "neurons": 148},
    "two layers, both read": {"layers": 2, "neurons": 148, "joined": True},
    "128 neurons": {"neurons": 128},
    "512 neurons": {"neurons": 512},
    "line of 64 delays": LINE,
    "line of 16 delays": LINE | {"taps": 16},
    "line of 128 delays": LINE | {"taps": 128},
    "line, 256 neurons": LINE | {"neurons": 256},
    "line, 1024 neurons": LINE | {"neurons": 1024},
    "line, no frequencies": LINE | {"highest": 0.0},
    "line, rate 5e-3": LINE | {"rate": 5e-3},
    "line, readout of the last 20": LINE | {"window": 20},
    "line, alpha to 0.99": LINE | {"slowest": 0.99},
    "line, zs_hyp 0.3": LINE | {"zs_hyp": 0.3},
}


def runs(names: list[str], seeds: list[int]) -> Iterator[tuple[str, int]]:
    """Rows and seeds that are not in the results yet."""
    found = json.loads(FILE.read_text()) if FILE.exists() else {}
    for seed in seeds:
        for name in names:
            if str(seed) not in found.get(name, {}).get("runs", {}):
                yield name, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS), metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    digits = Digits.load(arguments.data)
    for name, seed in runs(arguments.rows, arguments.seeds):
        result = train(Settings(**ROWS[name]), digits, seed)
        print(f"{name}, seed {seed}: {result}", flush=True)
        results = json.loads(FILE.read_text()) if FILE.exists() else {}
        row = results.setdefault(name, {"changes": ROWS[name], "parameters": result.pop("parameters"), "runs": {}})
        result.pop("parameters", None)
        row["runs"][str(seed)] = result
        row["machine"], row["threads"] = platform.processor() or platform.machine(), torch.get_num_threads()
        FILE.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
