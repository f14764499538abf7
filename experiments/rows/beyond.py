"""What trained networks do with inputs that they were not trained on: longer delays, and noisy spikes.

    python experiments/rows/beyond.py recall --neuron src [--seeds 0 1 2]
    python experiments/rows/beyond.py noise --neuron lif --data FOLDER
    python experiments/rows/beyond.py trained-noise --neuron gru --data FOLDER

``recall``: delayed recall, trained with 50 steps between symbol and cue, tested with 50, 100, 200 and 500.
``noise``: spoken digits as spikes, where a share of the input's spikes is dropped, and as many are added at random
steps and inputs. ``trained-noise``: the same after training with such noise, in each batch with a share drawn between 0
and 0.3. The neurons are ``src``, and ``lif`` and ``gru`` of recurrent.py, with the same data, readout,
optimiser, schedule and seeds. Adds to experiments/results/beyond.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from fitting import SequenceClassifier, fit
from recurrent import make_layer
from torch import Tensor, nn

from srcell import EventBatch, LinearReadout
from srcell.data import EventLoader, RecallEncoding
from srcell.evaluation import count_correct
from srcell.training import RunOptions, build_model, load_data, make_encoding
from srcell.training.config import TrainingConfig

FILE = Path(__file__).resolve().parents[1] / "results" / "beyond.json"
DELAYS, SHARES, MOST_IN_TRAINING = (50, 100, 200, 500), (0.0, 0.05, 0.1, 0.2), 0.3
# Settings that differ from those of the task, by task and neuron; the rates were chosen on validation samples.
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "recall": {
        "": {"dataset": "delayed-recall", "recall_delay": 50, "epochs": 6, "validation": 0.0},
        "src": {"slowest_alpha": 0.9, "zs_hyp": 0.2},
        "lif": {"slowest_alpha": 0.9, "learning_rate": 5e-3},
        "gru": {"learning_rate": 1e-3},
    },
    "noise": {
        "": {"dataset": "spoken-digits", "frame": 0.005, "threshold": 0.12, "validation": 0.0},
        "src": {},
        "lif": {"omega": 0.0, "highest_omega": 0.0},
        "gru": {"omega": 0.0, "highest_omega": 0.0, "hidden_sizes": (128,)},
    },
}


CHANGES["trained-noise"] = CHANGES["noise"]


class NoisyLoader(EventLoader):
    """Batches with noise, as :func:`noisy` adds it."""

    def __iter__(self) -> Iterator[tuple[EventBatch, Tensor]]:
        generator = torch.Generator().manual_seed(2**20 * self._seed + self._epoch)
        for events, labels in super().__iter__():
            share = MOST_IN_TRAINING * float(torch.rand((), generator=generator))
            yield noisy(events, share, generator), labels


def train(
    kind: str, config: TrainingConfig, options: RunOptions, loads: type[EventLoader] = EventLoader
) -> tuple[nn.Module, Any]:
    """Train a network; return it and the data set."""
    dataset = load_data(config, options)
    loader = loads(dataset.train, make_encoding(config), config.batch_size, shuffle=True, seed=config.seed)
    torch.manual_seed(config.seed)
    if kind == "src":
        model: nn.Module = build_model(config, dataset.input_shape, dataset.num_classes)
        fit(model, config, loader, model.constrain_)  # type: ignore[arg-type]
    else:
        layer = make_layer(kind, config, dataset.input_size, gain=3.0)
        readout = LinearReadout(
            config.hidden_sizes[0], dataset.num_classes, alpha=config.readout_alpha, window=config.readout_window
        )
        model = SequenceClassifier(layer, readout)
        fit(model, config, loader, lambda: None)
    return model.eval(), dataset


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[tuple[EventBatch, Tensor]]) -> float:
    right = count = 0
    for events, labels in batches:
        right += count_correct(model(events), labels)
        count += len(labels)
    return 100 * right / count


def noisy(events: EventBatch, share: float, generator: torch.Generator) -> EventBatch:
    """Drop each spike with a probability, and add as many, on average, as were dropped."""
    steps, batch, inputs = events.shape
    spikes = events.to_dense() != 0
    lengths = torch.full((batch,), steps) if events.lengths is None else events.lengths
    within = (torch.arange(steps)[:, None] < lengths)[..., None]
    density = spikes.sum((0, 2)) / (lengths * inputs).clamp(min=1)
    kept = spikes & (torch.rand(spikes.shape, generator=generator) >= share)
    added = within & (torch.rand(spikes.shape, generator=generator) < share * density[:, None])
    return EventBatch.from_dense(kept | added, events.lengths)


def recall(model: nn.Module, dataset: Any) -> dict[str, float]:
    return {
        str(delay): accuracy(model, EventLoader(dataset.test, RecallEncoding(delay), 256, seed=1)) for delay in DELAYS
    }


def noise(model: nn.Module, dataset: Any) -> dict[str, float]:
    found, loader = {}, EventLoader(dataset.test, None, 100)
    for share in SHARES:
        generator = torch.Generator().manual_seed(1)
        found[str(share)] = accuracy(model, ((noisy(events, share, generator), labels) for events, labels in loader))
    return found


TASKS: dict[str, Callable[[nn.Module, Any], dict[str, float]]] = {
    "recall": recall,
    "noise": noise,
    "trained-noise": noise,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--neuron", choices=("src", "lif", "gru"), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=None, help="folder of the data sets")
    arguments = parser.parse_args()
    changes = CHANGES[arguments.task][""] | CHANGES[arguments.task][arguments.neuron]
    runs = {}
    for seed in arguments.seeds:
        config = TrainingConfig.preset("best", **{**changes, "seed": seed})
        loads = NoisyLoader if arguments.task == "trained-noise" else EventLoader
        model, dataset = train(arguments.neuron, config, RunOptions(data=arguments.data), loads)
        runs[str(seed)] = TASKS[arguments.task](model, dataset)
        print(arguments.task, arguments.neuron, seed, runs[str(seed)], flush=True)
    parameters = sum(value.numel() for value in model.parameters())
    means = {key: statistics.mean(run[key] for run in runs.values()) for key in next(iter(runs.values()))}
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    results.setdefault(arguments.task, {})[arguments.neuron] = {
        "changes": changes,
        "parameters": parameters,
        "mean": means,
        "runs": runs,
    }
    FILE.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
