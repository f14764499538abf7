"""Train on simulated recordings of a moving camera, and test on real ones: the row nmnist-camera.

    python bench/rows/nmnist_camera.py mnist --encoding camera --skip-samples 1000 --validation 0 --data FOLDER
        --out FOLDER [settings of srcell train]

The network trains on simulated recordings of MNIST's training digits 1,000 to 59,999, as by ``srcell train``. The
camera was fitted to the recordings 1 to 200 of N-MNIST's ``Train``. The test set is what nothing else used: the
recordings of ``Train`` from 201 to 1000 and those of ``Test`` from 1 to 100. The script writes result.json, and the
run folder ``run`` beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

import srcell
from srcell import EventBatch, data, training
from srcell.cli.options import add_training_options, given_settings, run_options
from srcell.data import EventLoader, LabelledEvents
from srcell.evaluation import evaluate
from srcell.training import RunFolder, TrainingConfig

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from calibrate_camera import nmnist, recordings

TESTED = {"Train": range(201, 1001), "Test": range(1, 101)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.json and the run folder")
    add_training_options(parser)
    arguments = parser.parse_args()
    config = TrainingConfig.preset(arguments.preset or "best", arguments.dataset, **given_settings(arguments))
    run, options = arguments.out / "run", run_options(arguments)
    if not (run / "result.json").exists():
        training.train(config, run, options=options)
    folder = RunFolder.open(run)
    if folder.config != config:
        raise SystemExit(f"{run}: expected a run of {config}, got {folder.config}")
    model = srcell.load(run)
    digits = data.load("mnist", Path(arguments.data))
    result, right, samples = json.loads((run / "result.json").read_text()), 0.0, 0
    for part, numbers in TESTED.items():
        shown, real = recordings(nmnist(Path(arguments.data)) / part, numbers)
        labels = (digits.train if part == "Train" else digits.test).labels[shown]
        batch = EventBatch.from_dense(real.flatten(2).movedim(0, 1))
        found = evaluate(model, EventLoader(LabelledEvents(batch, labels)))
        result[f"{part} accuracy"] = found.accuracy
        right, samples = right + found.accuracy * len(labels), samples + len(labels)
    result |= {"simulated_test_accuracy": result["test_accuracy"], "test_accuracy": right / samples}
    result["parameters"] = sum(x.numel() for x in model.parameters())
    (arguments.out / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    print({key: value for key, value in result.items() if "accuracy" in key}, samples)


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
