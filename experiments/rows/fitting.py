"""Code shared by the scripts of this folder: they train other networks as srcell trains its own."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from srcell import SRC, EventBatch, LinearReadout
from srcell.cli.options import add_training_options, given_settings, run_options
from srcell.data import Dataset, EventLoader
from srcell.evaluation import count_correct
from srcell.models.answers import paired
from srcell.training import RunOptions, load_data, make_encoding
from srcell.training.config import SETTINGS, TrainingConfig
from srcell.training.optimisation import make_optimizer, make_schedule
from srcell.training.samples import EVALUATION_BATCH, split

# Settings of srcell train that these networks lack, unless a script says that it has them.
UNUSED = {"balance_gradients", "channels", "clip_norm", "dropout", "initial_state", "label_smoothing", "rate_penalty"}
UNUSED |= {"alpha", "recurrent", "readout", "readout_window", "full_gradient", "slowest_alpha", "surrogate", "zs_hyp"}


class SequenceClassifier(nn.Module):
    """A recurrent layer and a linear readout, which may read every step."""

    def __init__(self, layer: nn.Module, readout: LinearReadout) -> None:
        super().__init__()
        self.layer, self.readout = layer, readout
        self.spike_count = 0

    def forward(self, events: EventBatch) -> Tensor:
        """The logits (B, C), or (T, B, C) of every step."""
        output = self.layer(events if isinstance(self.layer, SRC) else events.to_dense())
        if isinstance(output, tuple):  # SRC and nn.GRU return their state too
            output = output[0]
        self.spike_count = int(output.detach().count_nonzero())
        logits: Tensor = self.readout(output, events.lengths)
        return logits


def make_loaders(config: TrainingConfig, options: RunOptions) -> tuple[Dataset, EventLoader, EventLoader, str]:
    """The data set, a loader to train on, one to evaluate on at the end, and its name: "validation" or "test"."""
    dataset, encoding = load_data(config, options), make_encoding(config)
    training, validation = split(config, dataset.train)
    name, held_out = ("validation", validation) if len(validation.labels) else ("test", dataset.test)
    loader = EventLoader(training, encoding, config.batch_size, shuffle=True, seed=config.seed)
    return dataset, loader, EventLoader(held_out, encoding, EVALUATION_BATCH), name


def fit(model: nn.Module, config: TrainingConfig, loader: EventLoader, after_step: Callable[[], None]) -> float:
    """Train a network that turns events into logits; return the seconds that it took."""
    clip_norm = config.clip_norm or torch.inf
    optimizer = make_optimizer(config, model)
    schedule = make_schedule(config, optimizer, config.epochs * len(loader))
    start = time.perf_counter()
    for epoch in range(1, config.epochs + 1):
        loader.set_epoch(epoch)
        losses, norms = [], []
        for events, labels in loader:
            answers = paired(model(events), labels, events.lengths)
            loss = nn.functional.cross_entropy(*answers, label_smoothing=config.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), clip_norm))
            optimizer.step()
            schedule.step()
            after_step()
            losses.append(loss.item())
        norm = torch.stack(norms)
        print(
            f"epoch {epoch}: loss {sum(losses) / len(losses):.4f}, "
            f"gradient norm median {norm.median():.3g}, largest {norm.max():.3g}",
            flush=True,
        )
    return time.perf_counter() - start


def evaluated(model: nn.Module, held_out: EventLoader, name: str) -> dict[str, float]:
    """Accuracy and events of a network that counts the spikes of its last batch in ``spike_count``."""
    right, answers, events_seen, samples = 0, 0, 0, len(held_out.samples.labels)
    with torch.no_grad():
        for events, labels in held_out:
            logits, wanted = paired(model(events), labels, events.lengths)
            right += count_correct(logits, wanted)
            answers += len(wanted)
            events_seen += events.num_events + int(model.spike_count)
    return {f"{name}_accuracy": right / answers, "events_per_inference": events_seen / samples}


def run(
    parser: argparse.ArgumentParser,
    unused: set[str],
    train: Callable[[TrainingConfig, RunOptions, argparse.Namespace], dict[str, float]],
    used: Collection[str] = (),
) -> None:
    """Train with the settings of the command line and write result.json; settings without effect are refused."""
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True, help="folder for result.json")
    add_training_options(parser)
    arguments = parser.parse_args()
    given = given_settings(arguments)
    idle = [SETTINGS[name].option for name in given if name in (UNUSED | unused) - set(used) and given[name]]
    if idle:
        parser.error(f"{', '.join(idle)}: not used here")
    config = TrainingConfig.preset(arguments.preset or "reference", arguments.dataset, **given)
    result = json.dumps(train(config, run_options(arguments), arguments))
    print(result)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "result.json").write_text(result + "\n")
