"""Train a layer of resonant neurons on the sequences that ``srcell train`` knows.

    python bench/rows/resonant.py psmnist --preset best --frequencies 0.01 1 --data FOLDER --out FOLDER [settings]

The layer is ``SRC`` with recurrent weights and frequencies spread over its neurons, fixed or learnt (``--learn``). Data
set, encoding, readout, gradient clipping, optimiser, schedule and seeds are those of ``srcell train``, unless the
command says otherwise. The script writes result.json.
"""

from __future__ import annotations

import argparse

import torch
from fitting import SequenceClassifier, evaluated, fit, make_loaders, run

from srcell import SRC, LinearReadout, spread, spread_frequencies
from srcell.training import RunOptions
from srcell.training.config import TrainingConfig


def train(config: TrainingConfig, options: RunOptions, arguments: argparse.Namespace) -> dict[str, float]:
    dataset, loader, held_out, name = make_loaders(config, options)
    torch.manual_seed(config.seed)
    if config.readout != "linear" or not config.slowest_alpha:
        raise SystemExit("--preset best: expected settings of a sequence, with a linear readout and --slowest-alpha")
    (neurons,) = config.hidden_sizes
    layer = SRC(
        dataset.input_size,
        neurons,
        lateral=config.lateral,
        alpha=spread(config.alpha, config.slowest_alpha),
        zs_hyp=config.zs_hyp,
        omega=spread_frequencies(*arguments.frequencies) if arguments.frequencies else 0.0,
        learnable=("omega",) if arguments.learn else (),
        surrogate=config.surrogate,
        initial_state=config.initial_state,
    )
    readout = LinearReadout(neurons, dataset.num_classes, alpha=config.readout_alpha, window=config.readout_window)
    model = SequenceClassifier(layer, readout)
    seconds = fit(model, config, loader, layer.constrain_)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"seconds": seconds, "parameters": parameters, **evaluated(model, held_out, name)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--frequencies", type=float, nargs=2, metavar=("LOW", "HIGH"), help="radians per step [none: no resonance]"
    )
    parser.add_argument("--learn", action="store_true", help="learn the frequencies")
    used = {"alpha", "clip_norm", "slowest_alpha", "readout", "readout_window", "lateral", "zs_hyp", "surrogate"}
    run(parser, set(), train, used=used | {"initial_state"})


if __name__ == "__main__":
    main()
