"""The files that a run leaves.

Only ``srcell.training`` calls this; it must never know how a network is trained.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import info
from ._extras import train_extra

with train_extra():
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from safetensors.torch import save

if TYPE_CHECKING:
    from .models import SRCClassifier
    from .training import EpochMetrics, TrainingConfig


class RunFolder:
    """config.json and metrics.csv while a run goes; learning_curve.png and model.safetensors at its end.

    Args:
        path: the folder, made here with its parents.
        config: written to config.json, with what ``srcell.info`` tells of the environment.

    Raises:
        FileExistsError: the path exists and is not an empty folder.

    """

    def __init__(self, path: str | Path, config: TrainingConfig) -> None:
        self.path = Path(path)
        if self.path.exists() and not (self.path.is_dir() and not any(self.path.iterdir())):
            raise FileExistsError(f"{self.path} exists and is not an empty folder: choose another run folder")
        self.path.mkdir(parents=True, exist_ok=True)
        record = {"training": dataclasses.asdict(config), "environment": info()}
        with open(self.path / "config.json", "x") as file:
            file.write(json.dumps(record, indent=2) + "\n")

    def add_row(self, metrics: EpochMetrics) -> None:
        """Append an epoch to metrics.csv, under a header if it is the first."""
        with open(self.path / "metrics.csv", "a", newline="") as file:
            writer = csv.writer(file)
            if file.tell() == 0:
                writer.writerow(metrics._fields)
            writer.writerow(metrics)

    def finish(self, model: SRCClassifier, history: list[EpochMetrics]) -> None:
        """Write the model, atomically, and the learning curve."""
        partial = self.path / "model.safetensors.partial"
        partial.write_bytes(save(model.state_dict()))
        os.replace(partial, self.path / "model.safetensors")
        plot_learning_curve(history).savefig(self.path / "learning_curve.png", dpi=150)


def plot_learning_curve(history: list[EpochMetrics]) -> Figure:
    """Loss, accuracy and spike rate over the epochs, a panel each."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    loss, accuracy, rate = figure.subplots(1, 3)
    epochs = [metrics.epoch for metrics in history]
    loss.plot(epochs, [metrics.train_loss for metrics in history], ".-", label="training")
    accuracy.plot(epochs, [100 * metrics.train_accuracy for metrics in history], ".-", label="training")
    accuracy.plot(epochs, [100 * metrics.test_accuracy for metrics in history], ".-", label="test")
    rate.plot(epochs, [100 * metrics.spike_rate for metrics in history], ".-", label="training, all layers")
    _label(loss, "cross-entropy (nats)")
    _label(accuracy, "accuracy (%)")
    _label(rate, "spike rate (% of cells active)")
    return figure


def _label(panel: Axes, quantity: str) -> None:
    panel.set_xlabel("epoch")
    panel.set_ylabel(quantity)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.grid(alpha=0.3)
    panel.legend()
