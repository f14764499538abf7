"""Train leaky integrate-and-fire neurons with a surrogate gradient, to compare with SRC: the rows depth-lif.

    python experiments/rows/lif.py mnist --data FOLDER --hidden 128 128 --out FOLDER [--scale X] [settings]

SpikingJelly's LIFNode (tau 2, threshold 1, hard reset, ATan surrogate) between torch's linear layers. Data set,
encoding, readout, AdamW, schedule and seeds are those of ``srcell train``. The script writes result.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise

import torch
from fitting import evaluated, fit, make_loaders, run
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from srcell import EventBatch, LeakyReadout
from srcell.training import RunOptions
from srcell.training.config import TrainingConfig


class LIFClassifier(nn.Module):
    def __init__(self, input_size: int, hidden_sizes: Sequence[int], readout: LeakyReadout) -> None:
        super().__init__()
        sizes = [input_size, *hidden_sizes, readout.neurons_per_class * readout.num_classes]
        self.layers = nn.ModuleList()
        for k, n in pairwise(sizes):
            self.layers.append(layer.Linear(k, n, step_mode="m"))
            spike = surrogate.ATan()
            self.layers.append(neuron.LIFNode(surrogate_function=spike, detach_reset=True, step_mode="m"))
        self.readout = readout

    def forward(self, events: EventBatch) -> Tensor:
        """The logits (B, C)."""
        functional.reset_net(self)
        x = events.to_dense()
        self.spike_count = 0
        for module in self.layers:
            x = module(x)
            if isinstance(module, neuron.LIFNode):
                self.spike_count += int(x.detach().count_nonzero())
        logits: Tensor = self.readout(x, events.lengths)
        return logits


def train(config: TrainingConfig, options: RunOptions, arguments: argparse.Namespace) -> dict[str, float]:
    dataset, loader, held_out, name = make_loaders(config, options)
    torch.manual_seed(config.seed)
    readout = LeakyReadout(dataset.num_classes, alpha=config.readout_alpha, temperature=config.temperature)
    model = LIFClassifier(dataset.input_size, config.hidden_sizes, readout)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= arguments.scale
    seconds = fit(model, config, loader, lambda: None)
    return {"seconds": seconds, **evaluated(model, held_out, name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on torch's initial weights and biases")
    run(parser, set(), train)


if __name__ == "__main__":
    main()
