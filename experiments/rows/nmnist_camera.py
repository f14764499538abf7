"""Train on simulated recordings of a moving camera, and test on real ones: the rows nmnist-camera.

    python experiments/rows/nmnist_camera.py mnist --encoding camera --skip-samples 1000 --validation 0 --data FOLDER
        --out FOLDER [--tune EPOCHS | --neuron gru] [settings of srcell train]

The network trains on simulated recordings of MNIST's training digits 1,000 to 59,999, as by ``srcell train``. The
camera was fitted to the recordings 1 to 200 of N-MNIST's ``Train``. The test set is what nothing else used: the
recordings of ``Train`` from 201 to 1000 and those of ``Test`` from 1 to 100. --tune then trains it on the 200 real
recordings that the camera was fitted to. --neuron gru trains ``torch.nn.GRU`` on the same recordings, in frames of 10
ms (the number of active ms of each input), and a linear readout of its last frame. The script writes result.json, and
the run folder ``run`` beside it. With a validation set it only prints the accuracy on that.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from fitting import SequenceClassifier, evaluated, fit, make_loaders
from torch import Tensor, nn

import srcell
from srcell import EventBatch, LinearReadout, data, training
from srcell.cli.options import add_training_options, given_settings, run_options
from srcell.data import EventLoader, LabelledEvents
from srcell.evaluation import evaluate
from srcell.training import RunFolder, RunOptions, TrainingConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from calibrate_camera import nmnist, recordings

TESTED = {"Train": range(201, 1001), "Test": range(1, 101)}
FITTED = range(1, 201)
FRAME = 10  # ms, of a GRU's input
# Five-fold cross-validation on the recordings FITTED, with the first seed's network: learning rates of 1e-4, 3e-4 and
# 1e-3, 5 and 15 epochs all gave 195 of 200, and the untuned network 196. So the smallest change is used.
TUNING_RATE, TUNING_BATCH = 1e-4, 20


class FramesGRU(nn.Module):
    """A GRU that reads the number of active ms of each input in each FRAME."""

    def __init__(self, inputs: int, neurons: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, neurons)

    def forward(self, events: Tensor) -> Tensor:
        """The outputs (frames, B, neurons) of events (T, B, K)."""
        events = nn.functional.pad(events, (0, 0, 0, 0, 0, -len(events) % FRAME))
        output: Tensor = self.gru(events.unflatten(0, (-1, FRAME)).sum(1))[0]
        return output


def real(root: Path, part: str, numbers: range) -> LabelledEvents:
    """The real recordings of these numbers in a part of N-MNIST."""
    digits = data.load("mnist", root)
    shown, events = recordings(nmnist(root) / part, numbers)
    labels = (digits.train if part == "Train" else digits.test).labels[shown]
    return LabelledEvents(EventBatch.from_dense(events.flatten(2).movedim(0, 1)), labels)


def train_src(config: TrainingConfig, options: RunOptions, run: Path) -> tuple[nn.Module, dict[str, float]]:
    """Train as ``srcell train`` does, or read the run of this folder."""
    if not (run / "result.json").exists():
        training.train(config, run, options=options)
    if RunFolder.open(run).config != config:
        raise SystemExit(f"{run}: expected a run of {config}, got one of other settings")
    result: dict[str, float] = json.loads((run / "result.json").read_text())
    return srcell.load(run), result


def train_gru(config: TrainingConfig, options: RunOptions) -> tuple[nn.Module, dict[str, float]]:
    dataset, loader, held_out, name = make_loaders(config, options)
    torch.manual_seed(config.seed)
    inputs = 2 * 34 * 34
    layer = FramesGRU(inputs, config.hidden_sizes[0])
    model = SequenceClassifier(layer, LinearReadout(config.hidden_sizes[0], dataset.num_classes, alpha=0.0, window=1))
    seconds = fit(model, config, loader, lambda: None)
    found = evaluated(model.eval(), held_out, name)
    return model, {"seconds": seconds, "test_accuracy": found[f"{name}_accuracy"]}


def tune(model: nn.Module, samples: LabelledEvents, epochs: int, seed: int) -> float:
    """Train all weights on some recordings; return the seconds that it took."""
    torch.manual_seed(seed)
    loader = EventLoader(samples, None, TUNING_BATCH, shuffle=True, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=TUNING_RATE)
    start = time.perf_counter()
    model.train()
    for epoch in range(1, epochs + 1):
        loader.set_epoch(epoch)
        for events, labels in loader:
            loss = nn.functional.cross_entropy(model(events), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.json and the run folder")
    parser.add_argument("--neuron", choices=("src", "gru"), default="src")
    parser.add_argument("--tune", type=int, default=0, metavar="EPOCHS", help="epochs on the real recordings 1 to 200")
    add_training_options(parser)
    arguments = parser.parse_args()
    config = TrainingConfig.preset(arguments.preset or "best", arguments.dataset, **given_settings(arguments))
    options, root = run_options(arguments), Path(arguments.data)
    if arguments.neuron == "gru":
        model, result = train_gru(config, options)
    else:
        model, result = train_src(config, options, arguments.out / "run")
    if config.validation:
        raise SystemExit(f"{result}: not tested on real recordings, because there is a validation set")
    result["simulated_test_accuracy"] = result["test_accuracy"]
    if arguments.tune:  # the rest of the result is of the network before
        result = {"seconds": result["seconds"] + tune(model, real(root, "Train", FITTED), arguments.tune, config.seed)}
    right, samples = 0.0, 0
    for part, numbers in TESTED.items():
        shown = real(root, part, numbers)
        if arguments.neuron == "gru":
            found = evaluated(model, EventLoader(shown), part)[f"{part}_accuracy"]
        else:
            found = evaluate(model, EventLoader(shown)).accuracy
        result[f"{part} accuracy"] = found
        right, samples = right + found * len(shown.labels), samples + len(shown.labels)
    result |= {"test_accuracy": right / samples, "parameters": sum(x.numel() for x in model.parameters())}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print({key: value for key, value in result.items() if "accuracy" in key}, samples)


if __name__ == "__main__":
    main()
