"""``RunFolder``: the files of a run: configuration, metrics, checkpoint, model, result, plots and report.

The training loop, ``srcell.load`` and the command line call this.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from .._shared.extras import extra
from .._shared.files import is_partial, remove_partial_files, write_atomically
from .._shared.settings import LARGEST
from ..kernels import info
from ..models import Classifier
from . import plots, report
from .checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from .config import TrainingConfig
from .metrics import EpochMetrics, best_epoch
from .network import build_model

with extra("train"):
    from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from ..diagnosis import Diagnosis
    from ..evaluation import Evaluation
    from ..events import EventBatch

LOCK = ".lock"
FILES = (
    *("checkpoint.safetensors", "config.json", "metrics.csv", "model.safetensors", "report.html", "result.json"),
    *report.CAPTIONS,
)


class RunData(NamedTuple):
    """What config.json records about a run's data set.

    Attributes:
        folder: folder of the data sets, as given.
        input_shape: channels, height and width.
        num_classes: the number of classes, or of the values of targets.
        class_names: the names of the classes, by label; empty if the labels name themselves.
        samples: of data of one's own, the numbers of training and test samples, a checksum of their labels, and one of
            some samples, which runs of srcell 0.3 lack.

    """

    folder: str
    input_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...] = ()
    samples: tuple[int, ...] = ()

    def check_equal(self, other: RunData, source: object) -> None:
        """Raise a ValueError if other data are not those of the run, as far as both are described."""
        known = len(self.samples)
        for what, expected, got in (
            ("classes", self.class_names, other.class_names),
            ("training and test samples, and checksums of labels and samples,", self.samples, other.samples[:known]),
        ):
            if expected and expected != got and self.samples:
                raise ValueError(f"{source}: expected the {what} that the run began with, {expected}, got {got}")

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> RunData:
        """Build from a record of ``_asdict``, read back from JSON.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: the record has another form.

        """
        folder, input_shape, classes = (record[name] for name in cls._fields[:3])
        names = record.get("class_names", [])  # new in 0.3
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"data: expected the names of classes, got {names!r:.200}")
        samples = record.get("samples", [])
        sizes = [*input_shape, classes]
        if not isinstance(samples, list) or not all(type(x) is int and x >= 0 for x in samples):
            raise ValueError(f"data: expected the numbers of samples, got {samples!r:.200}")
        if not isinstance(folder, str) or not all(type(size) is int and 1 <= size <= LARGEST for size in sizes):
            raise ValueError(f"data: expected a folder and sizes, got {record!r:.200}")
        channels, height, width = input_shape
        return cls(folder, (channels, height, width), classes, tuple(names), tuple(samples))


class RunFolder:
    """The folder of one run, with any number of readers and at most one writer.

    Attributes:
        path: the folder.
        config: the run's configuration.
        data: the data set; None if it is not recorded.
        checkpoint: path of the checkpoint.

    """

    NO_NETWORK = (
        "expected a network that its configuration describes, got one of your own: build it, load the weights with "
        "srcell.training.load_weights(network, folder.load_model(), ''), and call srcell.export or "
        "srcell.evaluation.evaluate"
    )

    def __init__(self, path: Path, config: TrainingConfig, data: RunData | None = None) -> None:
        self.path, self.config, self.data = path, config, data
        self.checkpoint = path / "checkpoint.safetensors"
        self._lock = FileLock(path / LOCK, timeout=0, thread_local=False)
        self._summary: SummaryWriter | None = None

    @classmethod
    def create(cls, path: str | Path, config: TrainingConfig, data: RunData | None = None) -> RunFolder:
        """Create the folder and its parents, become its writer, and write config.json.

        config.json holds the configuration, ``srcell.info()`` and ``data``.

        Raises:
            FileExistsError: the path exists and is not an empty folder.
            BlockingIOError: another process is writing a run there.

        """
        path = Path(path)
        cls.check_new(path)
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, config, data).lock()
        try:
            require_empty(path)  # again: another process may have made a run before this one got the lock
            content = {"training": dataclasses.asdict(config), "environment": info()}
            folder._write_json("config.json", content | ({} if data is None else {"data": data._asdict()}))
        except BaseException:
            folder.close()
            raise
        return folder

    @staticmethod
    def check_new(path: str | Path) -> None:
        """Raise a FileExistsError, as ``create`` would; but not if ``lock`` says whether another process is there."""
        if not (Path(path) / LOCK).exists():
            require_empty(Path(path))

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open the folder of an existing run for reading; nothing in it is changed.

        Raises:
            FileNotFoundError: there is no run in the folder.
            ValueError: its config.json is not what ``create`` writes.

        """
        path = Path(path)
        source = path / "config.json"
        if not source.is_file():
            raise FileNotFoundError(f"{path}: expected a run folder, found no config.json in it")
        try:
            record = json.loads(source.read_text())
            data = RunData.from_dict(record["data"]) if "data" in record else None
            return cls(path, TrainingConfig.from_dict(record["training"]), data)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{source}: not the configuration of a run ({error})") from error

    def lock(self) -> RunFolder:
        """Become the writer until ``close`` or the end of the process, and delete partial files of a killed writer.

        Returns:
            The folder itself.

        Raises:
            BlockingIOError: another process is the writer.

        """
        try:
            self._lock.acquire()
        except Timeout:
            raise BlockingIOError(
                f"{self.path}: another process is training there: wait for its end, or choose another run folder"
            ) from None
        remove_partial_files(self.path, FILES)
        return self

    def close(self) -> None:
        """Let another process become the writer."""
        self._lock.release()

    def set_data(self, data: RunData) -> None:
        """Record in config.json which data the run uses from now on."""
        if data != self.data:
            self.data = data
            record = json.loads((self.path / "config.json").read_text())
            self._write_json("config.json", record | {"data": data._asdict()})

    def write_checkpoint(self, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Replace the checkpoint; if that fails, the previous one is kept."""
        write_checkpoint(self.checkpoint, tensors, record)

    def read_checkpoint(self) -> Checkpoint | None:
        """The last checkpoint, or None if there is none yet."""
        return read_checkpoint(self.checkpoint) if self.checkpoint.exists() else None

    def write_metrics(self, history: list[EpochMetrics]) -> None:
        """Write metrics.csv: a header, then one row per epoch."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(history[0]._fields)
        writer.writerows(history)
        write_atomically(self.path / "metrics.csv", text.getvalue().encode())

    def write_scalars(self, history: list[EpochMetrics]) -> None:
        """Log the last epoch for TensorBoard, if installed; the first call in a process logs all epochs."""
        shown = history[-1:]
        if self._summary is None:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            shown = history
            # purge_step below hides what the run logged before it was resumed.
            logs = self.path / "tensorboard"
            if logs.is_symlink():
                raise FileExistsError(f"{logs} is a link: a run writes only inside its own folder: remove the link")
            self._summary = SummaryWriter(str(logs), purge_step=history[0].epoch)
        for metrics in shown:
            for name, value in metrics._asdict().items():
                if name != "epoch" and not math.isnan(value):
                    self._summary.add_scalar(name, value, metrics.epoch)
        self._summary.flush()

    def finish(
        self,
        model: nn.Module,
        history: list[EpochMetrics],
        evaluation: Evaluation,
        sample: EventBatch,
        label: Tensor,
        diagnosis: Diagnosis | None = None,
    ) -> None:
        """Write the model, the result, the plots that this run has, and the report.

        Args:
            model: in evaluation mode.
            history: one row per epoch.
            evaluation: the evaluation of the test set.
            sample: a batch of one test sample, for the raster and the traces.
            label: its class, (), or other labels or targets.
            diagnosis: of the model on test samples, for the report.

        """
        record: dict[str, Any] = {"config": dataclasses.asdict(self.config)}
        class_names = self.data.class_names if self.data is not None else ()
        if self.data is not None:
            record |= {"input_shape": self.data.input_shape, "num_classes": self.data.num_classes}
        weights = {name: x.clone() for name, x in model.state_dict().items()}  # tied ones, too
        try:
            self.load_model()
        except FileNotFoundError:
            pass
        except ValueError as error:  # the run had ended, and was resumed
            warnings.warn(f"{error}: it is written anew", stacklevel=2)
        write_checkpoint(self.path / "model.safetensors", weights, record)
        self.write_metrics(history)
        kept = best_epoch(history) if self.config.patience else len(history)
        further = {"epoch": kept, "seconds": sum(row.seconds for row in history)}
        self._write_json("result.json", summarise(evaluation) | further)
        figures = {"learning_curve.png": plots.learning_curve(history)}
        if isinstance(model, Classifier) and not label.dim():
            sample_plots = {"raster.png": plots.raster, "traces.png": plots.traces}
            prefix = self.config.prefix if "prefix" in self.config.used() else 0
            shown = (model, sample, int(label), prefix, class_names)
            figures |= {name: plot(*shown) for name, plot in sample_plots.items()}
        if isinstance(model, Classifier) and label.dim() == 1 and not label.is_floating_point():
            figures["steps.png"] = plots.steps(model, sample, label, class_names)
        figures["rates.png"] = plots.rates(evaluation)
        if len(evaluation.confusion):
            figures["confusion.png"] = plots.confusion(evaluation, class_names)
        if self.config.learn_delays and isinstance(model, Classifier):
            untrained = build_model(self.config, model.input_shape, model.readout.num_classes)
            figures["delays.png"] = plots.delays(untrained.delays, model.delays)
        images = {name: plots.png(figure) for name, figure in figures.items()}
        for name, image in images.items():
            write_atomically(self.path / name, image)
        page = report.page(self.config, history, evaluation, images, diagnosis)
        write_atomically(self.path / "report.html", page.encode())
        if self._summary is not None:
            self._summary.close()

    def load_model(self) -> dict[str, Tensor]:
        """The weights of model.safetensors.

        Raises:
            FileNotFoundError: the run has not ended.
            ValueError: the file was not written by ``finish``.

        """
        path = self.path / "model.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: the run has not ended, resume it")
        return read_checkpoint(path)[0]

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode())


def require_empty(path: Path) -> None:
    """Raise if a path is not a folder, or holds more than the lock and partial files of a run killed at its start."""
    if not path.exists():
        return
    if not path.is_dir() or any(entry.name != LOCK and not is_partial(entry, FILES) for entry in path.iterdir()):
        raise FileExistsError(
            f"{path} exists and is not an empty folder: choose another run folder, or resume the run in it"
        )


def summarise(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation, for result.json."""
    found = {
        "test_accuracy": evaluation.accuracy,
        "test_sample_accuracy": evaluation.sample_accuracy,
        "test_loss": evaluation.loss,
        "test_r2": evaluation.r2,
        "test_r2_of_mean": evaluation.r2_of_mean,
        "events_per_inference": sum(layer.events for layer in evaluation.counts),
        "synops_per_inference": evaluation.synaptic_operations,
    }
    layers = [_known(layer._asdict()) for layer in evaluation.counts]
    return {**_known(found), "layers": layers}


def _known(numbers: dict[str, float]) -> dict[str, float | None]:
    """Numbers with None for NaN, which JSON lacks."""
    return {name: None if math.isnan(x) else x for name, x in numbers.items()}
