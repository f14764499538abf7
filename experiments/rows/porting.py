"""The task of snnTorch's fifth tutorial on 5,000 digits, in snnTorch and ported: the table of docs/howto/porting.md.

    python experiments/rows/porting.py --data data

A network 784-1000-10 sees each digit as a constant current for 25 steps, for three epochs of batches of 128, with one
learning rate per row. It takes about five minutes on one core, needs snnTorch, and writes
experiments/results/porting.json: accuracy on all 10,000 test digits by seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcell import SRC, data

OUT = Path(__file__).resolve().parent.parent / "results" / "porting.json"
STEPS, HIDDEN, SAMPLES, EPOCHS, BATCH = 25, 1000, 5000, 3, 128
RATES = {"snntorch": (5e-4, 2e-3, 8e-3), "srcell": (5e-4, 2e-3, 5e-3)}
SEEDS = (0, 1, 2)


class Network(Protocol):
    """What both networks offer: a loss and a prediction."""

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def loss(self, images: Tensor, labels: Tensor) -> Tensor: ...
    def predict(self, images: Tensor) -> Tensor: ...
    def constrain_(self) -> None: ...


class Original(nn.Module):
    """The tutorial's network: two linear layers, each before leaky neurons, and a loss on every step's membrane."""

    def __init__(self) -> None:
        super().__init__()
        import snntorch

        self.first, self.last = nn.Linear(784, HIDDEN), nn.Linear(HIDDEN, 10)
        self.hidden, self.output = snntorch.Leaky(beta=0.95), snntorch.Leaky(beta=0.95)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        hidden, output = self.hidden.init_leaky(), self.output.init_leaky()
        spikes, membranes = [], []
        for _ in range(STEPS):
            spike, hidden = self.hidden(self.first(images), hidden)
            spike, output = self.output(self.last(spike), output)
            spikes.append(spike)
            membranes.append(output)
        return torch.stack(spikes), torch.stack(membranes)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(membrane, labels) for membrane in self(images)[1]]).sum()

    def predict(self, images: Tensor) -> Tensor:
        return self(images)[0].sum(0).argmax(1)

    def constrain_(self) -> None: ...


class Port(nn.Module):
    """The same with SRC neurons, which start at rest, and a linear readout of their spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = SRC(784, HIDDEN, initial_state="rest")
        self.readout = nn.Linear(HIDDEN, 10)

    def forward(self, images: Tensor) -> Tensor:
        spikes, _ = self.hidden((0.3 * images).expand(STEPS, -1, -1))
        return self.readout(spikes).sum(0)

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(images), labels)

    def predict(self, images: Tensor) -> Tensor:
        return self(images).argmax(1)

    def constrain_(self) -> None:
        self.hidden.constrain_()


def accuracy(make: Callable[[], Network], rate: float, seed: int, dataset: data.Dataset) -> float:
    """Accuracy of a network on the test digits after training."""
    images, labels = dataset.train.images[:SAMPLES].flatten(1), dataset.train.labels[:SAMPLES]
    torch.manual_seed(seed)
    network = make()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for _ in range(EPOCHS):
        for chosen in torch.randperm(SAMPLES).split(BATCH):
            loss = network.loss(images[chosen], labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.constrain_()
    test = zip(dataset.test.images.flatten(1).split(1000), dataset.test.labels.split(1000), strict=True)
    with torch.no_grad():
        right = sum(int((network.predict(images) == labels).sum()) for images, labels in test)
    return right / len(dataset.test.labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    dataset = data.load("mnist", parser.parse_args().data)
    rows = []
    for library, make in (("snntorch", Original), ("srcell", Port)):
        for rate in RATES[library]:
            found = [accuracy(make, rate, seed, dataset) for seed in SEEDS]
            rows.append({"library": library, "learning_rate": rate, "seeds": list(SEEDS), "accuracies": found})
            print(f"{library:10}{rate:10g}{statistics.mean(found):10.2%}", flush=True)
    OUT.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
