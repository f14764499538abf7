"""Row-sequential MNIST with one layer that has recurrent weights, or with the same layer without them.

    python experiments/rows/row_sequential.py --data data [--epochs 4] [--no-recurrent]

The 28 rows of a digit come one after the other, each held for 4 steps as currents of its grey levels. The layer has 256
neurons with spread time constants; leaky sums of their spikes are read out linearly at the end. The script prints the
seconds and the test accuracy after each epoch; nothing is chosen on the test digits.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcell import SRC, data, spread

HOLD, NEURONS, BATCH, LEAK = 4, 256, 128, 0.97


class RowReader(nn.Module):
    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.layer = SRC(28, NEURONS, recurrent=recurrent, alpha=spread(0.5, 0.99), zs_hyp=0.5, initial_state="rest")
        self.readout = nn.Linear(NEURONS, 10)
        weights = LEAK ** torch.arange(28 * HOLD - 1, -1, -1.0)
        self.register_buffer("weights", weights)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.transpose(0, 1).repeat_interleave(HOLD, 0)  # (112, B, 28)
        spikes, _ = self.layer(rows)
        summed = torch.einsum("t,tbn->bn", self.weights, spikes)
        return self.readout(summed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-recurrent", action="store_true")
    arguments = parser.parse_args()
    train, test, *_ = data.load("mnist", arguments.data)
    torch.manual_seed(arguments.seed)
    model = RowReader(not arguments.no_recurrent)
    optimizer = torch.optim.Adam(model.parameters(), lr=arguments.lr)
    steps = arguments.epochs * len(range(0, len(train.labels), BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, arguments.lr, total_steps=steps)
    for epoch in range(1, arguments.epochs + 1):
        start = time.perf_counter()
        for chosen in torch.randperm(len(train.labels)).split(BATCH):
            loss = F.cross_entropy(model(train.images[chosen]), train.labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            model.layer.constrain_()
        seconds = time.perf_counter() - start
        with torch.no_grad():
            right = sum(
                int((model(images).argmax(1) == labels).sum())
                for images, labels in zip(test.images.split(1000), test.labels.split(1000), strict=True)
            )
        print(f"epoch {epoch}  {seconds:.1f} s  test {right / len(test.labels):.2%}", flush=True)


if __name__ == "__main__":
    main()
