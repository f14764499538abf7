"""From a GRU: forecast and classification of one stream, by a GRU and by SRC layers with other heads.

    python experiments/from_gru.py [--rows NAME ...] [--seeds 1 2 3] [--rates 3e-3 1e-2]

Each series has six channels and 60 to 160 steps. A network forecasts the next step at every step, and tells at the end
which of three faults the series had, or that it had none. 2,000 series are for training, 500 to choose the learning
rate on (seed 0), 500 for testing; 20 epochs in batches of 32, Adam, gradients clipped to norm 1, the learning rate
falls as a cosine. Adds to experiments/results/from-gru.json: mean squared error of the forecast (the channels have
variance 1), accuracy, seconds of the training on one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import srcell
from srcell.benchmark import document

RESULTS = Path(__file__).resolve().parent / "results"

CHANNELS, FAULTS, UNITS = 6, 4, 96
SHORTEST, LONGEST, FAULTY = 60, 160, 25
EPOCHS, BATCH = 20, 32
RATES = (1e-3, 3e-3, 1e-2)


class Series(NamedTuple):
    """Series (T, B, 6) with one step more than the longest has, their lengths and their faults."""

    values: Tensor
    lengths: Tensor
    faults: Tensor

    def select(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The inputs, the values that follow them, the lengths and the faults of some series."""
        lengths = self.lengths[index]
        values = self.values[: int(lengths.max()) + 1, index]
        return values[:-1], values[1:], lengths, self.faults[index]


def series(count: int, seed: int) -> Series:
    """Six mixtures of three oscillators with noise; for 25 steps of three quarters of the series something is wrong.

    The faults: 1, a channel is stuck; 2, two channels are exchanged; 3, the oscillators are half as fast again.
    """
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(3, CHANNELS, generator=torch.Generator().manual_seed(7))
    lengths = torch.randint(SHORTEST, LONGEST + 1, (count,), generator=generator)
    faults = torch.arange(count) % FAULTS
    onset = (lengths - FAULTY) * torch.rand(count, generator=generator)
    step = torch.arange(LONGEST + 1)[:, None]
    wrong = (step >= onset) & (step < onset + FAULTY)
    periods = 10 * 4 ** torch.rand(count, 3, generator=generator)
    faster = 1 + 0.5 * (wrong & (faults == 3))[..., None]
    turns = torch.rand(count, 3, generator=generator) + (faster / periods).cumsum(0)
    clean = (2 * math.pi * turns).sin() @ mixing / (mixing.square().sum(0) / 2).sqrt()
    values = (clean + 0.1 * torch.randn(clean.shape, generator=generator)) / 1.01**0.5
    channel = torch.randint(CHANNELS, (count,), generator=generator)
    for b in range(count):
        at, c = wrong[:, b], int(channel[b])
        if faults[b] == 1:
            values[at, b, c] = values[at, b, c][0].clone()
        elif faults[b] == 2:
            pair = [c, (c + 1) % CHANNELS]
            values[at, b] = values[at, b].index_copy(1, torch.tensor(pair), values[at, b][:, pair[::-1]])
    return Series(values, lengths, faults)


class Gated(nn.Module):
    """torch.nn.GRU; the fault is told from its last state, or from the mean of its outputs."""

    def __init__(self, pooled: bool = False) -> None:
        super().__init__()
        self.layer, self.pooled = nn.GRU(CHANNELS, UNITS), pooled
        self.forecast, self.fault = nn.Linear(UNITS, CHANNELS), nn.Linear(UNITS, FAULTS)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        outputs, h = self.layer(packed)
        outputs, _ = nn.utils.rnn.pad_packed_sequence(outputs)
        read = outputs.sum(0) / lengths[:, None] if self.pooled else h[-1]
        return self.forecast(outputs), self.fault(read)


class InPlace(nn.Module):
    """An SRC layer in the place of the GRU, with the heads of the GRU."""

    def __init__(self, layer: srcell.SRC) -> None:
        super().__init__()
        self.layer = layer
        self.forecast, self.fault = nn.Linear(UNITS, CHANNELS), nn.Linear(UNITS, FAULTS)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        outputs, _ = self.layer(x, lengths=lengths)
        last = outputs[lengths - 1, torch.arange(len(lengths))]
        return self.forecast(outputs), self.fault(last)


class Spiking(nn.Module):
    """SRC.for_sequences with two readouts, of which that of the forecast may have a skip connection."""

    def __init__(self, units: int = UNITS, skip: bool = False) -> None:
        super().__init__()
        self.layer = srcell.SRC.for_sequences(CHANNELS, units, memory=50)
        inputs = CHANNELS if skip else 0
        self.forecast = srcell.LinearReadout(units, CHANNELS, alpha=0.8, every_step=True, skip=inputs)
        self.fault = srcell.LinearReadout(units, FAULTS, alpha=0.99)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        spikes, _ = self.layer(x, lengths=lengths)
        given = None if self.forecast.skip is None else x
        return self.forecast(spikes, lengths, input=given), self.fault(spikes, lengths)


ROWS: dict[str, Callable[[], nn.Module]] = {
    "gru-96": Gated,
    "gru-96-mean": lambda: Gated(pooled=True),
    "src-96-in-place": lambda: InPlace(srcell.SRC(CHANNELS, UNITS)),
    "for-sequences-96-in-place": lambda: InPlace(srcell.SRC.for_sequences(CHANNELS, UNITS, memory=50)),
    "for-sequences-96": Spiking,
    "for-sequences-96-skip": lambda: Spiking(skip=True),
    "for-sequences-256": lambda: Spiking(256),
    "for-sequences-256-skip": lambda: Spiking(256, skip=True),
}


def train(make: Callable[[], nn.Module], rate: float, seed: int, training: Series, test: Series) -> dict[str, Any]:
    """Train a network; return the error of its forecast, its accuracy, and the seconds."""
    torch.manual_seed(seed)
    network, count = make(), len(training.faults)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    total = EPOCHS * (count // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    begin = time.perf_counter()
    for _ in range(EPOCHS):
        for index in torch.randperm(count)[: count // BATCH * BATCH].view(-1, BATCH):
            x, following, lengths, faults = training.select(index)
            forecast, logits = network(x, lengths)
            loss = error(forecast, following, lengths) + F.cross_entropy(logits, faults)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if hasattr(network.layer, "constrain_"):
                network.layer.constrain_()
    seconds = time.perf_counter() - begin
    network.eval()
    with torch.no_grad():
        x, following, lengths, faults = test.select(torch.arange(len(test.faults)))
        forecast, logits = network(x, lengths)
        accuracy = float((logits.argmax(1) == faults).float().mean())
        wrong = float(error(forecast, following, lengths))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return {"error": wrong, "accuracy": accuracy, "seconds": seconds, "parameters": parameters}


def error(forecast: Tensor, following: Tensor, lengths: Tensor) -> Tensor:
    """The mean squared error over the steps that the series have."""
    inside = torch.arange(len(forecast))[:, None] < lengths
    return (forecast - following)[inside].square().mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="tried on the validation series")
    parser.add_argument("--out", type=Path, default=RESULTS / "from-gru.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    training, validation, test = series(2000, 1), series(500, 2), series(500, 3)
    for name in arguments.rows:
        tried = {rate: train(ROWS[name], rate, 0, training, validation) for rate in arguments.rates}
        for rate, found in tried.items():
            print(f"{name}, rate {rate:g}: error {found['error']:.4f}, accuracy {found['accuracy']:.1%}", flush=True)
        # The loss of the validation: the error of the forecast and the share of wrong answers.
        rate = min(tried, key=lambda rate: tried[rate]["error"] + 1 - tried[rate]["accuracy"])
        runs = [train(ROWS[name], rate, seed, training, test) for seed in arguments.seeds]
        for run in runs:
            shown = f"error {run['error']:.4f}, accuracy {run['accuracy']:.1%}, {run['seconds']:.0f} s"
            print(f"{name}, rate {rate:g}: {shown}, {run['parameters']:,} parameters", flush=True)
        found = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        machine = {key: value for key, value in document([], Path(__file__)).items() if key != "results"}
        shown_rates = {f"{rate:g}": result for rate, result in tried.items()}
        found[name] = {"learning_rate": rate, "tried": shown_rates, "seeds": arguments.seeds, "runs": runs, **machine}
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
