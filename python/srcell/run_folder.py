"""The files of a run: what it was asked, how it went, its checkpoint, and what it left.

``srcell.training`` and the command line call this; it must never know how a network is trained.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from . import info, plots
from ._files import remove_partial_files, write_atomically
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .config import TrainingConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from .evaluation import Evaluation
    from .events import EventBatch
    from .models import Classifier
    from .training import EpochMetrics


class RunFolder:
    """The folder of one run.

    Attributes:
        path: the folder.
        config: what was asked for.
        checkpoint: the file to go on from.

    """

    def __init__(self, path: Path, config: TrainingConfig) -> None:
        self.path, self.config = path, config
        self.checkpoint = path / "checkpoint.safetensors"
        self._summary: SummaryWriter | None = None

    @classmethod
    def create(cls, path: str | Path, config: TrainingConfig) -> RunFolder:
        """Make the folder, with its parents, and write config.json: the configuration, and what ``srcell.info`` tells.

        Raises:
            FileExistsError: the path exists and is not an empty folder.

        """
        path = Path(path)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise FileExistsError(
                f"{path} exists and is not an empty folder: choose another run folder, or resume the run in it"
            )
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, config)
        folder._write_json("config.json", {"training": dataclasses.asdict(config), "environment": info()})
        return folder

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of a run that was begun.

        Raises:
            FileNotFoundError: there is no run in it.
            ValueError: its config.json is not what ``create`` writes.

        """
        path = Path(path)
        source = path / "config.json"
        if not source.is_file():
            raise FileNotFoundError(f"{path}: expected the folder of a run, found no config.json in it")
        remove_partial_files(path)
        try:
            return cls(path, TrainingConfig.from_dict(json.loads(source.read_text())["training"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{source}: not the configuration of a run ({error})") from error

    def write_checkpoint(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Replace the checkpoint; the one before it stays if that fails."""
        write_checkpoint(self.checkpoint, tensors, record)

    def read_checkpoint(self) -> Checkpoint | None:
        """What ``write_checkpoint`` wrote last, or None before the first."""
        return read_checkpoint(self.checkpoint) if self.checkpoint.exists() else None

    def write_metrics(self, history: list[EpochMetrics]) -> None:
        """Write metrics.csv: a row an epoch, under a header."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(history[0]._fields)
        writer.writerows(history)
        write_atomically(self.path / "metrics.csv", text.getvalue().encode())

    def write_scalars(self, history: list[EpochMetrics]) -> None:
        """Let TensorBoard show the last epoch, and those before it the first time, if TensorBoard is installed."""
        shown = history[-1:]
        if self._summary is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            shown = history
            # What an earlier part of the run wrote is not shown beside this.
            logs = self.path / "tensorboard"
            if logs.is_symlink():
                raise FileExistsError(f"{logs} is a link: a run writes nowhere but in its folder, remove it")
            self._summary = SummaryWriter(str(logs), purge_step=history[0].epoch)
        for metrics in shown:
            for name, value in metrics._asdict().items():
                if name != "epoch" and not math.isnan(value):
                    self._summary.add_scalar(name, value, metrics.epoch)
        self._summary.flush()

    def finish(
        self,
        model: Classifier,
        history: list[EpochMetrics],
        evaluation: Evaluation,
        sample: EventBatch,
        label: int,
    ) -> None:
        """Write the model, the result and the plots; ``sample`` and its ``label`` are what the raster shows."""
        record = {"config": dataclasses.asdict(self.config)}
        write_checkpoint(self.path / "model.safetensors", model.state_dict(), record)
        self.write_metrics(history)
        self._write_json("result.json", summarise(evaluation) | {"seconds": sum(row.seconds for row in history)})
        figures = {
            "learning_curve.png": plots.learning_curve(history),
            "raster.png": plots.raster(model, sample, label),
            "rates.png": plots.rates(evaluation),
            "confusion.png": plots.confusion(evaluation),
        }
        for name, figure in figures.items():
            image = io.BytesIO()
            figure.savefig(image, dpi=150)
            write_atomically(self.path / name, image.getvalue())
        if self._summary is not None:
            self._summary.close()

    def load_model(self) -> dict[str, Tensor]:
        """The weights of model.safetensors.

        Raises:
            FileNotFoundError: the run has not ended.
            ValueError: the file is not what ``finish`` wrote.

        """
        path = self.path / "model.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: the run has not ended, resume it")
        return read_checkpoint(path)[0]

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode())


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """The figures of an evaluation, for JSON."""
    return {
        "test_accuracy": evaluation.accuracy,
        "events_per_inference": sum(layer.events for layer in evaluation.counts),
        "synops_per_inference": evaluation.synaptic_operations,
        "layers": [layer._asdict() for layer in evaluation.counts],
    }
