"""Time epochs of MNIST: 60,000 samples rate-encoded anew (T = 220), 784-100, batches of 256, optimiser included.

    python bench/mnist_epoch.py FOLDER [--epochs 2]

FOLDER holds MNIST as `srcell.data.load_mnist` wants it. Prints the seconds of each epoch by part, and the accuracy on
the test images after the last one: Adam, one-cycle learning rate of 1e-2 at its peak, the configuration that learns.
Run it alone on the machine.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

import srcell
from srcell import data
from srcell.models import SRCClassifier

BATCH, LEARNING_RATE, STEPS = 256, 1e-2, 200


class Clock:
    """Adds up what lies between its calls, by part."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.last = time.perf_counter()

    def mark(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] += now - self.last
        self.last = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    (images, labels), (test_images, test_labels), _ = data.load("mnist", arguments.folder)
    images, test_images = images.flatten(1), test_images.flatten(1)
    torch.manual_seed(0)
    model = SRCClassifier(784, [], 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    batches = -(-len(images) // BATCH)
    schedule = OneCycleLR(optimizer, LEARNING_RATE, total_steps=arguments.epochs * batches)
    for epoch in range(arguments.epochs):
        order, clock, correct = torch.randperm(len(images)), Clock(), 0
        for index in order.split(BATCH):
            events = srcell.rate_encode(images[index], STEPS, seed=epoch, index=index)
            clock.mark("encoding")
            logits = model(events)
            loss = cross_entropy(logits, labels[index])
            clock.mark("forward")
            optimizer.zero_grad()
            loss.backward()
            clock.mark("backward")
            optimizer.step()
            schedule.step()
            model.constrain_()
            correct += int((logits.argmax(1) == labels[index]).sum())
            clock.mark("optimiser")
        parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in clock.seconds.items())
        total = sum(clock.seconds.values())
        print(f"epoch {epoch + 1}: {total:.2f} s ({parts}), training accuracy {correct / len(images):.4f}", flush=True)
    correct = 0
    with torch.no_grad():
        for index in torch.arange(len(test_images)).split(BATCH):
            logits = model(srcell.rate_encode(test_images[index], STEPS, seed=0, index=index))
            correct += int((logits.argmax(1) == test_labels[index]).sum())
    print(f"test accuracy {correct / len(test_images):.4f}")


if __name__ == "__main__":
    main()
