"""Train with backpropagation through the recurrence, ("relu", full_gradient=True): the row mnist-bptt of the table.

    python experiments/rows/bptt.py mnist --data FOLDER --out FOLDER [--window N] [--clip X] [settings of srcell train]

Through 120 steps the exact gradient reaches norms of 1e3 to 1e8, and nothing is learnt. So here the gradients of h and
hs are clipped (``--clip 0`` stops them) where they pass from a window of steps to the previous one; the gradient of i
passes unchanged. Data set, encoding, readout, AdamW, schedule and seeds are those of ``srcell train``. The script
writes result.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from fitting import fit, make_loaders, run
from torch import Tensor, nn

from srcell import SRC, EventBatch, LeakyReadout, SRCState
from srcell.evaluation import count_correct
from srcell.training import RunOptions
from srcell.training.config import TrainingConfig


class Clipped(torch.autograd.Function):
    """The identity, with its gradient clamped to [-bound, bound]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.bound = bound
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return grad[0].clamp(-ctx.bound, ctx.bound), None


class WindowedClassifier(nn.Module):
    def __init__(self, input_size: int, readout: LeakyReadout, window: int, clip: float) -> None:
        super().__init__()
        neurons = readout.neurons_per_class * readout.num_classes
        self.layer = SRC(input_size, neurons, surrogate="relu", full_gradient=True)
        self.readout, self.window, self.clip = readout, window, clip

    def forward(self, events: EventBatch) -> Tensor:
        """The logits (B, C)."""
        input = events.to_dense()
        state, spikes = None, []
        for part in input.split(self.window):
            output, state = self.layer(part, state)
            spikes.append(output)
            # The loss is a mean over the batch.
            bound = self.clip / input.shape[1]
            state = SRCState(state.i, Clipped.apply(state.h, bound), Clipped.apply(state.hs, bound))
        logits: Tensor = self.readout(torch.cat(spikes), events.lengths)
        return logits


def train(config: TrainingConfig, options: RunOptions, arguments: argparse.Namespace) -> dict[str, float]:
    dataset, loader, held_out, name = make_loaders(config, options)
    torch.manual_seed(config.seed)
    readout = LeakyReadout(dataset.num_classes, alpha=config.readout_alpha, temperature=config.temperature)
    model = WindowedClassifier(dataset.input_size, readout, arguments.window, arguments.clip)
    seconds = fit(model, config, loader, model.layer.constrain_)
    with torch.no_grad():
        right = sum(count_correct(model(events), labels) for events, labels in held_out)
    return {"seconds": seconds, f"{name}_accuracy": right / len(held_out.samples.labels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--window", type=int, default=5, help="steps of a window [5]")
    parser.add_argument("--clip", type=float, default=0.01, help="bound of a sample's gradient between windows [0.01]")
    run(parser, {"hidden_sizes"}, train)


if __name__ == "__main__":
    main()
