"""Delayed recall with and without recurrent weights: the two small networks of the documentation's interactive page.

    python experiments/rows/recall_page.py FOLDER

48 neurons, with time constants of at most 10 steps, must name one of eight symbols after a delay filled with noise.
Each batch has one delay, drawn between 10 steps and a maximum that grows to 100 over the first 60 % of the training: a
network without recurrent weights can be tuned to one long delay, but not to all. Both networks see the same batches.

It takes a minute on one core and writes recall.srcell, recall-alone.srcell (without recurrent weights) and recall.json:
the settings, and for each delay the accuracy on the 2,000 test samples, also of the first network with its recurrent
weights set to 0 ("ablated"). All draws are seeded and one thread computes; another processor may round differently.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch

import srcell
from srcell import data, evaluation
from srcell.models import SRCClassifier

NEURONS, ALPHA = 48, (0.5, 0.9)
NETWORK = {"zs_hyp": 0.5, "initial_state": "rest", "readout": "linear", "readout_alpha": 0.97, "readout_window": 20}
SHORTEST, DELAY, GROWTH, BATCHES, BATCH, RATE, SEED = 10, 100, 0.6, 2000, 128, 1e-2, 0
TESTED = (10, 20, 30, 40, 50, 60, 80, DELAY, 200, 400)
RECALL = data.load("delayed-recall")


def train(recurrent: bool) -> SRCClassifier:
    torch.manual_seed(SEED)
    model = SRCClassifier(25, [NEURONS], 8, recurrent=recurrent, alpha=srcell.spread(*ALPHA), **NETWORK)
    model.encoder = data.RecallEncoding(DELAY)  # the exported file names it
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=BATCHES + 1)
    draw, within = torch.Generator().manual_seed(SEED), torch.arange(BATCH)
    images, symbols = RECALL.train.images[:BATCH], RECALL.train.labels[:BATCH]
    for batch in range(BATCHES):
        longest = min(DELAY, round(SHORTEST + (DELAY - SHORTEST) * batch / (GROWTH * BATCHES)))
        delay = int(torch.randint(SHORTEST, longest + 1, (), generator=draw))
        events = data.RecallEncoding(delay)(images, within + BATCH * batch, seed=SEED + 1000)
        loss = torch.nn.functional.cross_entropy(model(events), symbols)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        model.constrain_()
    return model


def accuracies(model: SRCClassifier) -> dict[int, float]:
    """Accuracy on the test samples, by delay."""
    loaders = {delay: data.EventLoader(RECALL.test, data.RecallEncoding(delay)) for delay in TESTED}
    return {delay: evaluation.evaluate(model, loader).accuracy for delay, loader in loaders.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    lateral, alone = train(recurrent=True), train(recurrent=False)
    lateral.export(folder / "recall.srcell")
    alone.export(folder / "recall-alone.srcell")
    ablated = copy.deepcopy(lateral)
    torch.nn.init.zeros_(ablated.layers[0].weight_hh_l0)
    networks = {"lateral": lateral, "ablated": ablated, "alone": alone}
    training = {"delays": (SHORTEST, DELAY), "growth": GROWTH, "batches": BATCHES, "batch_size": BATCH}
    settings = {"neurons": NEURONS, "alpha": ALPHA, **NETWORK, **training, "learning_rate": RATE, "seed": SEED}
    found = {name: accuracies(model) for name, model in networks.items()}
    made = {"torch": torch.__version__, "delay": DELAY, "settings": settings, "test_accuracies": found}
    (folder / "recall.json").write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
