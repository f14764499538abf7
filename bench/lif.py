"""Train leaky integrate-and-fire neurons with a surrogate gradient, beside the SRC: the rows depth-lif of the table.

    python bench/lif.py mnist --data FOLDER --hidden 128 128 --out FOLDER [--scale X] [settings of srcell train]

SpikingJelly's LIFNode (tau 2, threshold 1, hard reset, ATan surrogate) between torch's linear layers. All else is as in
``srcell train``: the data set, the encoding, the readout, AdamW, the schedule, the seeds. It leaves result.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn

from srcell import LeakyReadout
from srcell.cli import add_training_options, given_settings, run_options
from srcell.config import TrainingConfig
from srcell.data import EventLoader
from srcell.training import EVALUATION_BATCH, RunOptions, load_data, make_encoding, make_optimizer, make_schedule, split


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

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        """The logits (B, C) and the number of spikes of all layers."""
        functional.reset_net(self)
        x, count = input, input.new_zeros(())
        for module in self.layers:
            x = module(x)
            if isinstance(module, neuron.LIFNode):
                count = count + x.detach().count_nonzero()
        return self.readout(x), count


def train(config: TrainingConfig, options: RunOptions, scale: float) -> dict[str, float]:
    dataset = load_data(config, options)
    torch.manual_seed(config.seed)
    readout = LeakyReadout(dataset.num_classes, alpha=config.readout_alpha, temperature=config.temperature)
    model = LIFClassifier(dataset.input_size, config.hidden_sizes, readout)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    training, validation = split(config, dataset.train)
    loader = EventLoader(training, make_encoding(config), config.batch_size, shuffle=True, seed=config.seed)
    optimizer = make_optimizer(config, model)
    schedule = make_schedule(config, optimizer, config.epochs * len(loader))
    start = time.perf_counter()
    for epoch in range(1, config.epochs + 1):
        loader.set_epoch(epoch)
        total = 0.0
        for events, labels in loader:
            logits, _ = model(events.to_dense())
            loss = nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(labels)
        print(f"epoch {epoch}: loss {total / len(training.labels):.4f}", flush=True)
    result = {"seconds": time.perf_counter() - start}
    if len(validation.labels):
        found = evaluate(model, EventLoader(validation, make_encoding(config), EVALUATION_BATCH))
        return result | {f"validation_{key}": value for key, value in found.items()}
    found = evaluate(model, EventLoader(dataset.test, make_encoding(config), EVALUATION_BATCH))
    return result | {"test_accuracy": found["accuracy"], "events_per_inference": found["events"]}


@torch.no_grad()
def evaluate(model: LIFClassifier, loader: EventLoader) -> dict[str, float]:
    right, spikes, samples = 0, 0.0, 0
    for events, labels in loader:
        logits, count = model(events.to_dense())
        right += int((logits.argmax(1) == labels).sum())
        spikes += events.num_events + float(count)
        samples += len(labels)
    return {"accuracy": right / samples, "events": spikes / samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--scale", type=float, default=1.0, help="of the initial weights, times torch's")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.json")
    add_training_options(parser)
    arguments = parser.parse_args()
    config = TrainingConfig.preset(arguments.preset or "best", arguments.dataset, **given_settings(arguments))
    result = json.dumps(train(config, run_options(arguments), arguments.scale))
    print(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(result + "\n")


if __name__ == "__main__":
    main()
