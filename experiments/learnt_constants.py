"""Learnt time constants and the learning rate: why a rate that a GRU bears ruined a layer that learns alpha and omega.

    python experiments/learnt_constants.py --data FOLDER [--seeds 0 1 2]

SRC.for_sequences with 128 neurons and a linear map of the spikes of each step learns the parts of heartbeats (``qtdb``)
for ten epochs in batches of 32, by AdamW with one-cycle up to 1e-2, gradients clipped to norm 1. The last 93 of the 618
training recordings are held out; the test set is not read. Each row has other parameter groups. After each epoch it
measures, on held-out recordings, what ``srcell.diagnose`` says of the layer, and of the epoch the norms of the
gradients. Writes experiments/results/learnt-constants.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

import srcell
from srcell import data
from srcell.benchmark import document
from srcell.data import EventLoader
from srcell.evaluation import evaluate
from srcell.training import parameter_groups

RESULTS = Path(__file__).resolve().parent / "results"

NEURONS, MEMORY, EPOCHS, BATCH, RATE, HELD_OUT = 128, 100, 10, 32, 1e-2, 93


class Arm(NamedTuple):
    """What is learnt besides the weights, at which part of their rate, their decay, and the leak of the readout."""

    learnt: tuple[str, ...] = ("alpha", "omega")
    part: float = 1.0
    weight_decay: float = 0.0
    readout_alpha: float = 0.0


ARMS = {
    "not learnt": Arm(()),
    "at the rate of the weights": Arm(),
    "at 0.1 of the rate": Arm(part=0.1),
    "at 0.03 of the rate": Arm(part=0.03),
    "at 0.01 of the rate": Arm(part=0.01),
    "not learnt, weight decay 1": Arm((), weight_decay=1.0),
    "at the rate of the weights, weight decay 1": Arm(weight_decay=1.0),
    "not learnt, readout over 5 steps": Arm((), readout_alpha=0.8),
    "at the rate of the weights, readout over 5 steps": Arm(readout_alpha=0.8),
    "at 0.03 of the rate, readout over 5 steps": Arm(part=0.03, readout_alpha=0.8),
}


def train(arm: Arm, seed: int, training: data.LabelledEvents, held_out: data.LabelledEvents) -> list[dict[str, Any]]:
    """Train a network; return what was measured after each epoch."""
    torch.manual_seed(seed)
    layer = srcell.SRC.for_sequences(training.events.shape[2], NEURONS, memory=MEMORY, learnable=arm.learnt)
    network = srcell.Sequential(layer, srcell.LinearReadout(NEURONS, 6, every_step=True, alpha=arm.readout_alpha))
    loader = EventLoader(training, batch_size=BATCH, shuffle=True, seed=seed)
    groups = parameter_groups(network, RATE, weight_decay=arm.weight_decay, time_constant_rate=arm.part)
    optimizer = torch.optim.AdamW(groups)
    rates = [group["lr"] for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=EPOCHS * len(loader))
    clipped = [x for group in groups[:2] for x in group["params"]]
    rows = []
    for epoch in range(1, EPOCHS + 1):
        loader.set_epoch(epoch)
        losses, norms = [], []
        for events, labels in loader:
            loss = nn.functional.cross_entropy(network(events).flatten(0, 1), labels.t().flatten())
            optimizer.zero_grad()
            loss.backward()
            norms.append(float(nn.utils.clip_grad_norm_(clipped, 1.0)))
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        told = srcell.diagnose(network, held_out.events[:BATCH]).layers[0]
        rows.append(
            {
                "loss": statistics.mean(losses),
                "accuracy": evaluate(network, EventLoader(held_out)).accuracy,
                "gradient_norm": statistics.median(norms),
                "largest_gradient_norm": max(norms),
                "recurrent_weights": layer.weight_hh_l0.norm().item(),
                "slowest_alpha": float(torch.as_tensor(layer.alpha_l0).detach().max().clamp(max=1)),
                "saturated": told.saturated,
                "silent": told.silent,
                "always_active": told.always_active,
                "rate": told.rate,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    given = data.load("qtdb", arguments.data, prefix=0).train
    count = len(given.labels) - HELD_OUT
    training, held_out = given.select(torch.arange(count)), given.select(torch.arange(count, count + HELD_OUT))
    path = RESULTS / "learnt-constants.json"
    for name in arguments.arms:
        runs = [train(ARMS[name], seed, training, held_out) for seed in arguments.seeds]
        for rows in runs:
            print(name, json.dumps({key: float(f"{value:.3g}") for key, value in rows[-1].items()}), flush=True)
        found = json.loads(path.read_text()) if path.exists() else {}
        machine = {key: value for key, value in document([], Path(__file__)).items() if key != "results"}
        found[name] = {"seeds": arguments.seeds, "runs": runs, **machine}
        path.write_text(json.dumps({key: found[key] for key in ARMS if key in found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
