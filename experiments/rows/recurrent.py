"""Train other recurrent layers on the sequences that ``srcell train`` knows: the rows rows-lif, qtdb-gru and so on.

    python experiments/rows/recurrent.py seqmnist-rows --neuron lif --data FOLDER --out FOLDER [settings]

``lif``: snnTorch's RLeaky, leaky integrate-and-fire neurons with all-to-all recurrent weights, in its loop over the
steps, with betas spread as the SRC's alphas are and the fast sigmoid as surrogate; ``gru``: ``torch.nn.GRU``. Data set,
encoding, readout, gradient clipping, optimiser, schedule and seeds are those of ``srcell train``, unless the command
says otherwise. The script writes result.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import snntorch
import torch
from fitting import SequenceClassifier, evaluated, fit, make_loaders, run
from snntorch import surrogate
from torch import Tensor, nn

from srcell import LinearReadout, spread
from srcell.data import EventLoader
from srcell.data.dataset import of_every_step
from srcell.training import RunOptions, load_data
from srcell.training.config import TrainingConfig

NEURONS = ("lif", "gru")
USED = {"alpha", "clip_norm", "label_smoothing", "slowest_alpha", "readout", "readout_window"}


class RecurrentLIF(nn.Module):
    """RLeaky over all steps; its recurrent weights are initialised as those of a recurrent SRC are."""

    def __init__(self, inputs: int, neurons: int, betas: Tensor, gain: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, neurons)
        nn.init.normal_(self.linear.weight, std=gain * inputs**-0.5)
        spike = surrogate.fast_sigmoid(slope=25)
        self.neuron = snntorch.RLeaky(beta=betas, linear_features=neurons, spike_grad=spike)
        nn.init.normal_(self.neuron.recurrent.weight, std=neurons**-0.5)

    def forward(self, input: Tensor) -> Tensor:
        current = self.linear(input)
        spikes = membrane = torch.zeros_like(current[0])
        outputs = []
        for now in current:
            spikes, membrane = self.neuron(now, spikes, membrane)
            outputs.append(spikes)
        return torch.stack(outputs)


def make_layer(kind: str, config: TrainingConfig, inputs: int, gain: float) -> nn.Module:
    (neurons,) = config.hidden_sizes
    if kind == "gru":
        return nn.GRU(inputs, neurons)
    betas = spread(config.alpha, config.slowest_alpha).values(neurons).float()
    return RecurrentLIF(inputs, neurons, betas, gain)


def train(config: TrainingConfig, options: RunOptions, arguments: argparse.Namespace) -> dict[str, float]:
    dataset, loader, held_out, name = make_loaders(config, options)
    torch.manual_seed(config.seed)
    layer = make_layer(arguments.neuron, config, dataset.input_size, arguments.weight_gain)
    readout = LinearReadout(
        config.hidden_sizes[0],
        dataset.num_classes,
        alpha=config.readout_alpha,
        window=config.readout_window,
        every_step=of_every_step(dataset.train.labels),
    )
    model = SequenceClassifier(layer, readout)
    seconds = fit(model, config, loader, lambda: None)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result = {"seconds": seconds, "parameters": parameters, **evaluated(model, held_out, name)}
    if config.dataset == "qtdb" and name == "test":
        labelled = load_data(replace(config, dataset="qtdb-labelled"), options).test
        result["labelled_accuracy"] = evaluated(model, EventLoader(labelled), name)["test_accuracy"]
    if arguments.neuron == "gru":
        del result["events_per_inference"]  # all of its outputs differ from 0
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--neuron", choices=NEURONS, required=True)
    parser.add_argument(
        "--weight-gain", type=float, default=3.0, help="scale of the LIF's input weights, times 1 / sqrt(inputs) [3]"
    )
    run(parser, set(), train, used=USED)


if __name__ == "__main__":
    main()
