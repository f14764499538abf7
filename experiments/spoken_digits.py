"""Spoken digits: a layer of SRC neurons beside a GRU and recurrent LIF neurons, on the same currents or spikes.

    python experiments/spoken_digits.py --data FOLDER [--rows NAME ...] [--seeds 5]

FOLDER holds the Free Spoken Digit Dataset as srcell.data.load_spoken_digits finds it. Each network has one recurrent
layer, trained on the official split (2,700 recordings, 300 for testing), or on five speakers and tested on all 500
recordings of the sixth, for each of the six. The test set is evaluated once, after the last epoch. In training with
currents the loudness of each sample changes at random, by a factor of 1/8 to 8 of its power, and the bands are
stretched or compressed by up to 1.5 bands at the ends. With "noise" the test recordings have white noise, 10 dB below
the power of each. Adds to experiments/results/spoken-digits.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import srcell
from srcell import EventBatch
from srcell.data import LabelledSounds, SoundEncoding, load_spoken_digits
from srcell.data.spoken_digits import SPEAKERS

RESULTS = Path(__file__).resolve().parent / "results"

EPOCHS, BATCH, RATE, NEURONS, CLASSES = 20, 64, 5e-3, 256, 10
LOUDER, STRETCH = 1.5, 1.5  # powers of two, and bands
CURRENTS = SoundEncoding()
SPIKES = SoundEncoding(frame=0.005, threshold=0.12)


class Recurrent(nn.Module):
    """SRC.for_sequences and a linear readout of all spikes."""

    def __init__(self, inputs: int, delays: int = 0, **options: Any) -> None:
        super().__init__()
        if delays:
            options |= {"delay_hh": (delays * torch.rand(NEURONS)).round(), "max_delay": delays}
        self.layer = srcell.SRC.for_sequences(inputs, NEURONS, **options)
        self.readout = srcell.LinearReadout(NEURONS, CLASSES, alpha=1.0)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        spikes, _ = self.layer(EventBatch.from_dense(x, lengths))
        logits: Tensor = self.readout(spikes, lengths)
        return logits


class Gated(nn.Module):
    """torch.nn.GRU of 128 units, and a linear readout of their mean."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer, self.readout = nn.GRU(inputs, 128), nn.Linear(128, CLASSES)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return mean_readout(self.readout, self.layer(x)[0], lengths)


class Leaky(nn.Module):
    """Recurrent leaky integrate-and-fire neurons of snnTorch with learnt leaks, and a linear readout of their mean."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.inputs, self.readout = nn.Linear(inputs, NEURONS), nn.Linear(NEURONS, CLASSES)
        self.cell = leaky_cell(NEURONS)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return mean_readout(self.readout, leaky_spikes(self.cell, self.inputs(x)), lengths)


def leaky_cell(neurons: int) -> Any:
    """Recurrent leaky integrate-and-fire neurons of snnTorch with learnt leaks, spread from 0.5 to 0.99."""
    import snntorch
    from snntorch import surrogate

    beta, spike_grad = torch.rand(neurons) * 0.49 + 0.5, surrogate.fast_sigmoid()
    return snntorch.RLeaky(beta=beta, linear_features=neurons, learn_beta=True, spike_grad=spike_grad)


def leaky_spikes(cell: Any, currents: Tensor) -> Tensor:
    """The spikes (T, B, N) of such neurons."""
    (spikes, membrane), outputs = cell.reset_mem(), []
    for current in currents:
        spikes, membrane = cell(current, spikes, membrane)
        outputs.append(spikes)
    return torch.stack(outputs)


def mean_readout(readout: nn.Linear, outputs: Tensor, lengths: Tensor) -> Tensor:
    counted = (torch.arange(len(outputs))[:, None] < lengths)[..., None]
    logits: Tensor = readout((outputs * counted).sum(0) / lengths[:, None])
    return logits


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"src": Recurrent, "gru": Gated, "lif": Leaky}
# The same layer without frequencies, and with fixed delays of its recurrent weights, up to 20 steps.
CHANGED = {"src-without-frequencies": partial(Recurrent, omega=0.0), "src-delayed": partial(Recurrent, delays=20)}


def varied(z: Tensor, encoding: SoundEncoding, generator: torch.Generator) -> Tensor:
    """Currents (T, B, bands) of louder or quieter samples whose bands are stretched.

    A factor of the power is a factor of the fourth root y, z = (y - offset) scale, because filters are linear.
    """
    assert isinstance(encoding.offset, float) and isinstance(encoding.scale, float)
    batch, bands = z.shape[1], z.shape[2]
    draw = 2 * torch.rand(2, batch, 1, generator=generator) - 1
    y = (z / encoding.scale + encoding.offset) * torch.exp2(LOUDER * draw[0] / 4)
    middle = (bands - 1) / 2
    source = (middle + (torch.arange(bands) - middle) * (1 + STRETCH * draw[1] / middle)).clamp(0, bands - 1)
    below = source.floor().long().clamp(max=bands - 2)
    share = (source - below).expand(z.shape)
    index = below.expand(z.shape)
    y = y.gather(2, index) * (1 - share) + y.gather(2, index + 1) * share
    return (y - encoding.offset) * encoding.scale


def noisy(sounds: LabelledSounds) -> LabelledSounds:
    """The sounds with white noise 10 dB below their power."""
    generator, waves = torch.Generator().manual_seed(7), sounds.waves.clone()
    for wave, length in zip(waves, lengths_of(sounds).tolist(), strict=True):
        power = wave[:length].square().mean()
        wave[:length] += torch.randn(length, generator=generator) * (power / 10).sqrt()
    return sounds._replace(waves=waves)


def lengths_of(sounds: LabelledSounds) -> Tensor:
    return torch.full((len(sounds.labels),), sounds.waves.shape[1]) if sounds.lengths is None else sounds.lengths


def fit(
    network: nn.Module,
    events: EventBatch,
    labels: Tensor,
    encoding: SoundEncoding,
    generator: torch.Generator,
    epochs: int = EPOCHS,
) -> None:
    """Train a network, with currents on varied samples."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=epochs * math.ceil(len(labels) / BATCH))
    for _ in range(epochs):
        for index in torch.randperm(len(labels), generator=generator).split(BATCH):
            x, lengths = dense(events[index])
            if not encoding.threshold:
                x = varied(x, encoding, generator)
            loss = nn.functional.cross_entropy(network(x, lengths), labels[index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if isinstance(network, Recurrent):
                network.layer.constrain_()


class Row(NamedTuple):
    """One network on one encoding."""

    name: str
    kind: str
    encoding: SoundEncoding
    held_out: bool

    def train(self, dataset: Any, seed: int) -> dict[str, Any]:
        """Train; return the accuracies on the test set, in percent, and the seconds."""
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        begin, train = time.perf_counter(), dataset.train
        events = self.encoding(train.waves, lengths=train.lengths)
        network = (NETWORKS | CHANGED)[self.kind](self.encoding.inputs)
        fit(network, events, train.labels, self.encoding, generator)
        seconds = time.perf_counter() - begin
        found = {"accuracy": self.accuracy(network, dataset.test), "seconds": seconds}
        found["parameters"] = sum(x.numel() for x in network.parameters())
        return found if self.held_out else {**found, "noise": self.accuracy(network, noisy(dataset.test))}

    @torch.no_grad()
    def accuracy(self, network: nn.Module, sounds: LabelledSounds) -> float:
        right, events = 0, self.encoding(sounds.waves, lengths=sounds.lengths)
        for index in torch.arange(len(sounds.labels)).split(100):
            right += int((network(*dense(events[index])).argmax(1) == sounds.labels[index]).sum())
        return 100 * right / len(sounds.labels)


def dense(events: EventBatch) -> tuple[Tensor, Tensor]:
    steps = torch.full((events.shape[1],), events.shape[0]) if events.lengths is None else events.lengths
    longest = int(steps.max())
    return events.truncate(longest).to_dense(), steps


ROWS = [
    *(Row(f"{kind}-currents", kind, CURRENTS, False) for kind in NETWORKS),
    *(Row(f"{kind}-spikes", kind, SPIKES, False) for kind in NETWORKS),
    *(Row(f"{kind}-held-out", kind, CURRENTS, True) for kind in NETWORKS | CHANGED),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data set")
    parser.add_argument("--rows", nargs="+", default=[row.name for row in ROWS], choices=[row.name for row in ROWS])
    parser.add_argument("--seeds", type=int, default=5, help="of the official split; speakers have one run each")
    arguments = parser.parse_args()
    path = RESULTS / "spoken-digits.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for row in ROWS:
        if row.name not in arguments.rows:
            continue
        if row.held_out:
            parts = [(name, load_spoken_digits(arguments.data, held_out=name), 0) for name in SPEAKERS]
        else:
            parts = [(str(seed), load_spoken_digits(arguments.data), seed) for seed in range(arguments.seeds)]
        runs = {}
        for name, dataset, seed in parts:
            runs[name] = row.train(dataset, seed)
            print(row.name, name, runs[name], flush=True)
        accuracies = torch.tensor([run["accuracy"] for run in runs.values()])
        results[row.name] = {
            "mean": float(accuracies.mean()),
            "standard_error": float(accuracies.std() / math.sqrt(len(runs))),
            "runs": runs,
            "encoding": dataclasses.asdict(row.encoding),
            "epochs": EPOCHS,
            "command": f"python experiments/spoken_digits.py --data FOLDER --rows {row.name} --seeds {arguments.seeds}",
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        }
        path.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")
        print(f"{row.name}: {accuracies.mean():.2f} % ({accuracies.std() / math.sqrt(len(runs)):.2f})", flush=True)


if __name__ == "__main__":
    main()
