"""The training loop: a configuration in, a trained network and its run folder out.

The command line and users call it; it must never know how progress is shown, how the files of a run are written, or
what happens inside a layer.
"""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from . import data
from ._processes import Interrupted, Processes, processes, stop_signals
from .config import TrainingConfig
from .data import Dataset, EventLoader, LatencyEncoding, RateEncoding, Samples
from .data.loader import Encoding, derived_seed
from .evaluation import Evaluation, count_correct, evaluate
from .events import EventBatch, present_device
from .functional import count_spikes
from .models import Classifier, SRCClassifier, SRCConvClassifier

if TYPE_CHECKING:
    from .checkpoint import Checkpoint
    from .run_folder import RunData, RunFolder

__all__ = [
    "EpochMetrics",
    "Interrupted",
    "Observer",
    "RunOptions",
    "Tally",
    "TrainedRun",
    "Trainer",
    "TrainingConfig",
    "build_model",
    "evaluate",
    "evaluate_run",
    "load_data",
    "load_weights",
    "make_encoding",
    "resume",
    "train",
]

EVALUATION_BATCH = 512
EVALUATION_SEED = 0
DATA = "data"
EXTRA_STATE = "_extra_state"  # of torch: the end of the name under which a module keeps what is no parameter
STATE_RECORD = {"config", "history", "batches", "learning_rate", "groups", "tally", "seconds"}
WEIGHTS, VALIDATION, DROPOUT = 0, 3, 4  # what a derived seed is for, beside those of the loader


@dataclass(frozen=True)
class RunOptions:
    """What a run needs on this machine, and the weights do not depend on.

    Attributes:
        data: folder of the data sets, as in ``srcell.data.load``; None is the one that the run was begun with, and
            "data" for a new run.
        download: fetch the data set into it if it is not there.
        cache: keep binned recordings on disk, as in ``srcell.data.load_nmnist``.
        num_workers: processes that encode batches ahead; 0 encodes them in the training process.
        device: where the network is.
        checkpoint_seconds: least time between two checkpoints within an epoch; every epoch ends with one too.

    Raises:
        ValueError: ``device`` is none that this machine has, or ``checkpoint_seconds`` is no number of at least 0.

    """

    data: str | Path | None = None
    download: bool = False
    cache: bool = False
    num_workers: int = 0
    device: str = "cpu"
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        if present_device(self.device).type not in ("cpu", "cuda"):
            raise ValueError(f"device: expected the CPU or a GPU (cuda), got {self.device!r}")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds: expected at least 0, got {self.checkpoint_seconds}")


class EpochMetrics(NamedTuple):
    """One row of metrics.csv.

    Attributes:
        epoch: 1 for the first.
        train_loss: mean cross-entropy (nats) of the training samples, each as it was when the epoch met it.
        train_accuracy: fraction of the training samples classified rightly, likewise.
        validation_accuracy: fraction of the validation samples classified rightly after the epoch; NaN without any.
        spike_rate: fraction of the cells (neuron, step, sample) of all layers that are active (s > 0), likewise.
        learning_rate: of the epoch's last step.
        seconds: wall time of the epoch, evaluation included.

    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    spike_rate: float
    learning_rate: float
    seconds: float


class TrainedRun(NamedTuple):
    """What ``train`` leaves: the network in evaluation mode, a row for each epoch, how it does on the test set."""

    model: Classifier
    history: list[EpochMetrics]
    evaluation: Evaluation


class Tally:
    """Running sums over the samples of an epoch.

    Attributes:
        sums: (5,) float64: samples, their loss, those classified rightly, cells, active cells.

    """

    def __init__(self, sums: Sequence[float] = (0, 0, 0, 0, 0)) -> None:
        self.sums = torch.tensor(sums, dtype=torch.float64)

    def add(self, loss: float, logits: Tensor, labels: Tensor, spikes: list[Tensor]) -> None:
        """Count a batch: its summed loss, logits (B, C), labels (B,) and the spikes (T, B, N) of each layer."""
        cells = sum(layer.numel() for layer in spikes)
        active = sum(int(count_spikes(layer).events.sum()) for layer in spikes)
        batch = (len(labels), loss, count_correct(logits, labels), cells, active)
        self.sums += torch.tensor(batch, dtype=torch.float64)

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return self._mean(1, 0)

    @property
    def accuracy(self) -> float:
        """Fraction of the samples classified rightly."""
        return self._mean(2, 0)

    @property
    def spike_rate(self) -> float:
        """Fraction of the cells that are active."""
        return self._mean(4, 3)

    def _mean(self, total: int, count: int) -> float:
        return float(self.sums[total] / self.sums[count])


class Observer:
    """What hears of a run as it goes; this one keeps silent."""

    def on_ready(self, trainer: Trainer) -> None:
        """Before ``on_start``: the network, the number of its samples and what it was asked for, none to be changed."""

    def on_start(self, epochs: int, done: int) -> None:
        """Before the first epoch: how many there will be, and how many an earlier part of the run has done."""

    def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
        """After each optimiser step: the fraction of the run's steps that are done, and the epoch's sums so far."""

    def on_epoch(self, metrics: EpochMetrics) -> None:
        """After each epoch and its evaluation."""


def train(
    config: TrainingConfig, out: str | Path, observer: Observer | None = None, options: RunOptions | None = None
) -> TrainedRun:
    """Train a network and leave a run folder.

    Adam and cross-entropy [O]; images are encoded anew in every epoch [A]. The validation samples are looked at after
    each epoch, the test set once, after the last; both are always encoded with the same spikes. Under ``torchrun`` the
    processes share each batch, and the first of them writes and tells the observer.

    SIGINT and SIGTERM end the run after the step at hand, with a checkpoint.

    Args:
        config: what to train.
        out: the run folder, made here: config.json, metrics.csv (a row an epoch), checkpoint.safetensors while the run
            goes, and at its end model.safetensors, result.json and plots; the metrics are in the folder tensorboard as
            well where TensorBoard is installed. While the run goes, no other process can write there.
        observer: hears of every batch and epoch.
        options: what the run needs on this machine.

    Raises:
        ValueError: an unknown name, or a corrupt file of the data set.
        FileNotFoundError: the data set is not where ``options`` says.
        FileExistsError: ``out`` exists and is not an empty folder.
        BlockingIOError: another process trains there.
        ChildProcessError: a process that encodes batches died.
        FloatingPointError: the loss is no longer a finite number; the last checkpoint stays.
        Interrupted: a signal came.
        ImportError: a dependency of the extra "train" is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = train(TrainingConfig(hidden_sizes=(), epochs=1, steps=5), out)
        >>> [metrics.epoch for metrics in run.history]
        [1]

    """
    # Imported here because it needs the extra "train", which the command line's help and errors do without.
    from .run_folder import RunFolder

    options = options or RunOptions()
    with processes(options.device) as group:
        dataset = load_data(config, options)
        trainer = Trainer(config, dataset, options, group)
        with _writer(group, out, lambda: RunFolder.create(out, config, _run_data(options, dataset))) as folder:
            try:
                return _run(trainer, out, folder, observer or Observer(), options, group)
            finally:
                trainer.leave()


def resume(out: str | Path, observer: Observer | None = None, options: RunOptions | None = None) -> TrainedRun:
    """Go on with a run that was stopped or killed, from its last checkpoint.

    The weights at the end are those of a run that went through undisturbed, bit for bit.

    Args:
        out: the run folder.
        observer: as in ``train``.
        options: as in ``train``; they need not be those that the run began with.

    Raises:
        FileNotFoundError: there is no run in that folder, or the data set is not where ``options`` or the run says.
        ValueError: the configuration or the checkpoint is corrupt, of another network or of a newer version.
        BlockingIOError, ChildProcessError, Interrupted, FloatingPointError, ImportError: as in ``train``.

    """
    from .run_folder import RunFolder

    options = options or RunOptions()
    with processes(options.device) as group:
        run = RunFolder.open(out)
        options = _options_of(run, options)

        def take() -> RunFolder:
            run.lock()
            return run

        with _writer(group, out, take) as folder:
            dataset = load_data(run.config, options)
            trainer = Trainer(run.config, dataset, options, group)
            found = run.read_checkpoint()
            if found is not None:
                trainer.load_state(*found, source=str(run.checkpoint))
            if folder is not None:
                folder.set_data(_run_data(options, dataset))
            try:
                return _run(trainer, out, folder, observer or Observer(), options, group)
            finally:
                trainer.leave()


@contextmanager
def _writer(group: Processes, out: str | Path, take: Callable[[], RunFolder]) -> Iterator[RunFolder | None]:
    """The run folder in the first process while the block runs, None in the others; where it cannot be had all fail."""
    folder, failure = None, None
    if group.rank == 0:
        try:
            folder = take()
        except Exception as error:
            failure = error
    (failed,) = group.any(int(failure is not None))
    if failed:
        raise failure or OSError(f"{out}: the first process cannot write there")
    try:
        yield folder
    finally:
        if folder is not None:
            folder.close()


def _options_of(folder: RunFolder, options: RunOptions | None) -> RunOptions:
    """The options, with the run's own data where they name none."""
    options = options or RunOptions()
    if options.data is None and folder.data is not None:
        options = dataclasses.replace(options, data=folder.data.folder)
    return options


def _run_data(options: RunOptions, dataset: Dataset) -> RunData:
    """What a run folder notes of its data set."""
    from .run_folder import RunData

    return RunData(str(_data_folder(options)), dataset.input_shape, dataset.num_classes)


def _run(
    trainer: Trainer,
    out: str | Path,
    folder: RunFolder | None,
    observer: Observer,
    options: RunOptions,
    group: Processes,
) -> TrainedRun:
    """Train to the end and evaluate; the process that has the folder fills it and tells the observer."""

    def save() -> float:
        state = trainer.state()
        if folder is not None:
            folder.write_checkpoint(*state)
        return time.monotonic()

    observer = observer if group.rank == 0 else Observer()
    observer.on_ready(trainer)
    observer.on_start(trainer.config.epochs, len(trainer.history))
    last_save = time.monotonic()
    with stop_signals() as stop:
        while len(trainer.history) < trainer.config.epochs:
            for fraction in trainer.train_epoch():
                observer.on_batch(len(trainer.history) + 1, fraction, trainer.tally)
                due = time.monotonic() - last_save >= options.checkpoint_seconds
                stopped, save_now = group.any(stop.number, int(due))
                if stopped or save_now:
                    last_save = save()
                if stopped:
                    raise Interrupted(stopped, out)
            metrics = trainer.finish_epoch()
            last_save = save()
            if folder is not None:
                folder.write_metrics(trainer.history)
                folder.write_scalars(trainer.history)
            observer.on_epoch(metrics)
        evaluation = trainer.test()
    trainer.model.eval()
    if folder is not None:
        events, labels = next(iter(trainer.test_loader(batch_size=1)))
        folder.finish(trainer.model, trainer.history, evaluation, events, int(labels))
    group.any(0)  # nobody leaves before all have come this far
    return TrainedRun(trainer.model, trainer.history, evaluation)


class Trainer:
    """A network with its data, optimiser and learning-rate schedule, wherever in its run.

    Args:
        config: what to train.
        dataset: what to train on.
        options: what the run needs on this machine.
        group: the processes that train it together; alone by default.

    Attributes:
        config: as given.
        model: the network, trained as far as it got.
        sample_counts: how many samples are for "training", "validation" and "test".
        tally: sums over the batches of the epoch at hand, those of this process.
        history: a row for each epoch that is done.

    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: Dataset,
        options: RunOptions | None = None,
        group: Processes | None = None,
    ) -> None:
        options, self._group = options or RunOptions(), group or Processes()
        self.config, self.tally = config, Tally()
        self.history: list[EpochMetrics] = []
        self._device = torch.device(options.device)
        self._test_samples = dataset.test
        self._workers = options.num_workers
        training, validation = split(config, dataset.train)
        parts = {"training": training, "validation": validation, "test": dataset.test}
        self.sample_counts = {name: len(samples.labels) for name, samples in parts.items()}
        self.model = build_model(config, dataset.input_shape, dataset.num_classes).to(self._device)
        self._network = self._group.wrap(_LayersAndLogits(self.model))
        self._loader = self._make_loader(training, config.batch_size, shuffle=True, seed=config.seed)
        self._validation = self._make_loader(validation)
        self._optimizer = make_optimizer(config, self.model)
        self._schedule = make_schedule(config, self._optimizer, config.epochs * len(self._loader))
        self._rate = float(self._optimizer.param_groups[0]["lr"])
        self._batches_done = 0
        self._seconds = 0.0

    def train_epoch(self) -> Iterator[float]:
        """Train on what is left of the epoch, yielding after each step the fraction of the run that is done.

        Raises:
            FloatingPointError: the loss is no longer a finite number.

        """
        epoch, start = len(self.history) + 1, time.perf_counter() - self._seconds
        self._loader.set_epoch(epoch, first_batch=self._batches_done)
        for events, labels in self._loader:
            self._train_batch(events.to(self._device), labels.to(self._device))
            self._batches_done += 1
            self._seconds = time.perf_counter() - start
            yield ((epoch - 1) + self._batches_done / len(self._loader)) / self.config.epochs

    def finish_epoch(self) -> EpochMetrics:
        """Look at the validation samples and begin the next epoch."""
        start = time.perf_counter()
        total = self._total_tally()
        accuracy = math.nan
        if len(self._validation):
            accuracy = self._evaluate(self._validation).accuracy
        metrics = EpochMetrics(
            epoch=len(self.history) + 1,
            train_loss=total.loss,
            train_accuracy=total.accuracy,
            validation_accuracy=accuracy,
            spike_rate=total.spike_rate,
            learning_rate=self._rate,
            seconds=self._seconds + time.perf_counter() - start,
        )
        self.history.append(metrics)
        self.tally, self._batches_done, self._seconds = Tally(), 0, 0.0
        return metrics

    def test(self) -> Evaluation:
        """Look at the test set."""
        return self._evaluate(self.test_loader())

    def test_loader(self, batch_size: int = EVALUATION_BATCH) -> EventLoader:
        """The test set, with the spikes that it always has."""
        return self._make_loader(self._test_samples, batch_size)

    def leave(self) -> None:
        """Let go of what averages gradients, which must not outlive the process group; no training after it."""
        self._network = nn.Identity()

    def state(self) -> Checkpoint:
        """All that ``load_state`` needs to go on from here, in copies; every process calls it, and gets the same."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for k, state in self._optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{name}": tensor for name, tensor in state.items()}
        tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        record = {
            "config": dataclasses.asdict(self.config),
            "history": [list(metrics) for metrics in self.history],
            "batches": self._batches_done,
            "learning_rate": self._rate,
            "groups": self._optimizer.state_dict()["param_groups"],
            "tally": self._total_tally().sums.tolist(),
            "seconds": self._seconds,
        }
        return tensors, record

    def load_state(self, tensors: dict[str, Tensor], record: dict[str, Any], source: str = "checkpoint") -> None:
        """Go back to where ``state`` was called; the tensors are copied.

        Raises:
            ValueError: the state is incomplete, or that of another configuration or network.

        """
        missing = sorted(STATE_RECORD - record.keys())
        if missing:
            raise ValueError(f"{source}: not a checkpoint to go on from, it has no {', '.join(missing)}")
        weights = {name: tensors[f"model.{name}"] for name in self.model.state_dict() if f"model.{name}" in tensors}
        try:
            config = TrainingConfig.from_dict(record["config"])
            moments, groups = self._moments(tensors), self._groups(record["groups"])
            history = [EpochMetrics(*numbers(row)) for row in record["history"]]
            batches, rate, seconds = numbers([record[name] for name in ("batches", "learning_rate", "seconds")])
            tally = numbers(record["tally"])
            if len(history) > self.config.epochs or not 0 <= batches <= len(self._loader) or batches != int(batches):
                raise ValueError(f"of {len(history)} epochs and {batches} batches")
            for epoch, row in enumerate(history, start=1):
                check_metrics(row, epoch)
            self._check_progress(int(batches), rate, seconds, tally)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"{source}: not a checkpoint to go on from ({type(error).__name__}: {error})") from error
        if config != self.config:
            raise ValueError(f"{source}: is of another configuration than the run's config.json")
        load_weights(self.model, weights, source)
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.history = history
        self._batches_done, self._seconds = int(batches), seconds
        # The sums are those of all processes.
        self.tally = Tally(tally) if self._group.rank == 0 else Tally()
        self._rate = rate
        # The schedule is a function of the number of steps, and has its present values in the optimiser's groups.
        self._schedule.last_epoch = len(self.history) * len(self._loader) + self._batches_done

    def _check_progress(self, batches: int, rate: float, seconds: float, sums: list[float]) -> None:
        """Do nothing if an epoch can have come so far.

        Raises:
            ValueError: it cannot.

        """
        if len(sums) != len(Tally().sums):
            raise ValueError(f"{len(sums)} sums")
        samples = sum(self._loader.samples_in(k) for k in range(batches))
        if sums[0] != samples or (not batches and any(sums)):
            raise ValueError(f"sums of {sums[0]} samples after {batches} batches, which are of {samples}")
        # No epoch has begun without a batch: its metrics would be 0 / 0.
        tally = Tally(sums if batches else (1, 0, 0, 1, 0))
        check_metrics(EpochMetrics(1, tally.loss, tally.accuracy, math.nan, tally.spike_rate, rate, seconds), 1)

    def _moments(self, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
        """The optimiser's state of each parameter, from the tensors of a checkpoint."""
        state: dict[int, dict[str, Tensor]] = defaultdict(dict)
        parameters = [parameter for group in self._optimizer.param_groups for parameter in group["params"]]
        for k, parameter in enumerate(parameters):
            for key, like in (("step", parameter.new_empty(())), ("exp_avg", parameter), ("exp_avg_sq", parameter)):
                tensor = tensors.get(f"optimizer.{k}.{key}")
                if tensor is None:
                    continue
                if tensor.shape != like.shape or tensor.dtype != like.dtype:
                    raise ValueError(f"optimizer.{k}.{key}: {tensor.dtype} of shape {tuple(tensor.shape)}")
                if key == "step" and not (tensor >= 1 and tensor == tensor.round() and tensor.isfinite()):
                    raise ValueError(f"optimizer.{k}.{key}: {tensor.item()}")
                state[k][key] = tensor.clone()
        found = sum(map(len, state.values()))
        if found not in (0, 3 * len(parameters)) or found != sum(name.startswith("optimizer.") for name in tensors):
            raise ValueError("the optimiser's state is not that of the network")
        return dict(state)

    def _groups(self, saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The optimiser's own groups, with the rates and momenta that the schedule had brought them to."""
        groups: list[dict[str, Any]] = self._optimizer.state_dict()["param_groups"]
        for group, found in zip(groups, saved, strict=True):
            (group["lr"],), group["betas"] = numbers([found["lr"]]), tuple(numbers(list(found["betas"])))
            if not 0 <= group["lr"] <= 1 or len(group["betas"]) != 2 or not all(0 <= x < 1 for x in group["betas"]):
                raise ValueError(f"a learning rate of {group['lr']} and betas of {group['betas']}")
        return groups

    def _train_batch(self, events: EventBatch, labels: Tensor) -> None:
        logits, *spikes = self._forward(events)
        loss = functional.cross_entropy(logits, labels, reduction="sum", label_smoothing=self.config.label_smoothing)
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss became {loss.item()} in batch {self._batches_done + 1} of epoch {len(self.history) + 1}, "
                f"at a learning rate of {self._rate:.3g}: use a lower one"
            )
        # Gradients are averaged over the processes, whose shares of a batch may differ by one.
        samples = self._loader.samples_in(self._batches_done)
        objective = self._group.size / samples * loss
        if self.config.rate_penalty:
            pull = rate_pull(spikes[:-1], self.config.target_rate, samples, self._group)
            objective = objective + self.config.rate_penalty * pull
        self._optimizer.zero_grad()
        objective.backward()
        if self.config.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self._optimizer.step()
        self._rate = float(self._optimizer.param_groups[0]["lr"])
        self._schedule.step()
        self.model.constrain_()
        self.tally.add(loss.item(), logits, labels, spikes)

    def _forward(self, events: EventBatch) -> list[Tensor]:
        """The logits and the spikes of each layer; what a sample loses to dropout depends on its place in the run."""
        if not self.config.dropout:
            return cast("list[Tensor]", self._network(events))
        place = (len(self.history), self._batches_done)
        total = self._loader.samples_in(self._batches_done)
        self.model.shared_batch = (total, self._group.rank, self._group.size)
        try:
            with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                torch.manual_seed(derived_seed(self.config.seed, DROPOUT, *place))
                return cast("list[Tensor]", self._network(events))
        finally:
            self.model.shared_batch = None

    def _evaluate(self, loader: EventLoader) -> Evaluation:
        return evaluate(self.model, loader, self._device, self._group)

    def _total_tally(self) -> Tally:
        return Tally(self._group.sum(self.tally.sums.clone()).tolist())

    def _make_loader(
        self,
        samples: Samples,
        batch_size: int = EVALUATION_BATCH,
        *,
        shuffle: bool = False,
        seed: int = EVALUATION_SEED,
    ) -> EventLoader:
        return EventLoader(
            samples,
            make_encoding(self.config),
            batch_size,
            shuffle=shuffle,
            seed=seed,
            num_workers=self._workers,
            rank=self._group.rank,
            world_size=self._group.size,
        )


class _LayersAndLogits(nn.Module):
    """A network whose one call gives all that a training step needs, as DistributedDataParallel demands."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, events: EventBatch) -> list[Tensor]:
        spikes = self.model.layer_spikes(events)
        return [self.model.readout(spikes[-1], lengths=events.lengths), *spikes]


def evaluate_run(folder: RunFolder, options: RunOptions | None = None, *, binary: bool = False) -> Evaluation:
    """Look at the test set with the network of a run that has ended, as its end did.

    Args:
        folder: of the run.
        options: what it needs on this machine.
        binary: as in ``srcell.evaluation.evaluate``.

    Raises:
        FileNotFoundError: the run has not ended, or the data set is not where ``options`` or the run says.
        ValueError: the weights are corrupt or of another network.

    """
    options = _options_of(folder, options)
    dataset = load_data(folder.config, options)
    model = build_model(folder.config, dataset.input_shape, dataset.num_classes)
    load_weights(model, folder.load_model(), str(folder.path))
    loader = EventLoader(
        dataset.test,
        make_encoding(folder.config),
        EVALUATION_BATCH,
        seed=EVALUATION_SEED,
        num_workers=options.num_workers,
    )
    return evaluate(model.to(options.device), loader, options.device, binary=binary)


def load_data(config: TrainingConfig, options: RunOptions) -> Dataset:
    """The data set of a run.

    Raises:
        FileNotFoundError: it is not there; the message says where that is.
        ValueError, ImportError: as in ``srcell.data.load``.

    """
    root = Path(_data_folder(options))
    try:
        return data.load(config.dataset, root, download=options.download, cache=options.cache, prefix=config.prefix)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} (looked in {root.absolute()})") from error


def _data_folder(options: RunOptions) -> str | Path:
    return DATA if options.data is None else options.data


def make_encoding(config: TrainingConfig) -> Encoding:
    """How the images of a run become events."""
    if config.encoding == "latency":
        return LatencyEncoding(config.steps, config.prefix)
    return RateEncoding(config.steps, config.gain, config.prefix)


def split(config: TrainingConfig, samples: Samples) -> tuple[Samples, Samples]:
    """The samples to train on, and those of ``config.validation``, drawn by the run's seed.

    Raises:
        ValueError: there are fewer than ``config.train_samples``, or none at all to train on.

    """
    count = len(samples.labels)
    generator = torch.Generator().manual_seed(derived_seed(config.seed, VALIDATION))
    order = torch.randperm(count, generator=generator)
    held_out = round(config.validation * count)
    if held_out == count:
        raise ValueError(
            f"validation: expected a fraction that leaves a sample to train on, got {config.validation} of {count}"
        )
    wanted = config.train_samples or count - held_out
    if wanted > count - held_out:
        raise ValueError(f"train_samples: expected at most {count - held_out}, as there are, got {wanted}")
    training = order[held_out : held_out + wanted]
    return samples.select(training.sort().values), samples.select(order[:held_out].sort().values)


def build_model(config: TrainingConfig, input_shape: Sequence[int], num_classes: int) -> Classifier:
    """The untrained network of a run, for inputs of (channels, height, width); torch's global random state is kept."""
    options: dict[str, Any] = {
        "alpha": config.alpha,
        "surrogate": config.surrogate,
        "recurrent_grad": config.recurrent_grad,
        "initial_state": config.initial_state,
        "temperature": config.temperature,
        "readout_alpha": config.readout_alpha,
        "dropout": config.dropout,
        "balance_gradients": config.balance_gradients,
    }
    model: Classifier
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, WEIGHTS))
        if config.channels:
            model = SRCConvClassifier(input_shape, config.channels, config.hidden_sizes, num_classes, **options)
        else:
            model = SRCClassifier(math.prod(input_shape), config.hidden_sizes, num_classes, **options)
    model.config = config
    model.encoder = None if config.dataset in data.RECORDED else make_encoding(config)
    return model


def check_metrics(metrics: EpochMetrics, epoch: int) -> None:
    """Do nothing if that epoch can have had those metrics.

    Raises:
        ValueError: it cannot.

    """
    fractions = [metrics.train_accuracy, metrics.spike_rate, metrics.learning_rate]
    if not math.isnan(metrics.validation_accuracy):
        fractions.append(metrics.validation_accuracy)
    sizes = (metrics.train_loss, metrics.seconds)
    largest = torch.finfo(torch.float32).max
    if (
        not isinstance(metrics.epoch, int)
        or metrics.epoch != epoch
        or not all(0 <= fraction <= 1 for fraction in fractions)
        or not all(0 <= size <= largest for size in sizes)
    ):
        raise ValueError(f"epoch {epoch} has {', '.join(map(str, metrics))}")


def numbers(values: list[Any]) -> list[Any]:
    """The list, if it is one of numbers.

    Raises:
        ValueError: it is not.
        OverflowError: one is beyond every float.

    """
    if not (isinstance(values, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)):
        raise ValueError(f"expected numbers, got {values!r:.200}")
    _ = [float(x) for x in values]
    return values


def load_weights(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Put the weights of a file into the network.

    A file of srcell 0.1 does not have the cells' constants, which later ones keep as ``_extra_state``: those of the
    network stay, and a warning says so. A file that has them must have the network's.

    Raises:
        ValueError: they are those of another network.

    """
    own = model.state_dict()
    constants = {name: tensor for name, tensor in own.items() if name.endswith(EXTRA_STATE)}
    if constants and not any(name.endswith(EXTRA_STATE) for name in weights):
        warnings.warn(
            f"{source}: of srcell 0.1, without the cells' constants: those of the run's configuration are used",
            stacklevel=2,
        )
        weights = weights | constants
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != expected:
        name = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))[0]
        raise ValueError(
            f"{source}: weights of another network: expected {expected.get(name, 'nothing')} for {name}, "
            f"got {found.get(name, 'nothing')}"
        )
    for name, tensor in own.items():
        if weights[name].dtype != tensor.dtype:
            raise ValueError(f"{source}: expected {tensor.dtype} for {name}, got {weights[name].dtype}")
    for name, tensor in constants.items():
        if not torch.equal(weights[name], tensor.to(weights[name].device)):
            raise ValueError(
                f"{source}: weights of another network: expected {tensor.tolist()} for {name}, "
                f"got {weights[name].tolist()}"
            )
    model.load_state_dict(weights)


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, whose decay is that of the weights alone."""
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def make_schedule(config: TrainingConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The learning rate over so many steps."""
    if config.schedule == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    return OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)


def rate_pull(spikes: Sequence[Tensor], target: float, samples: int, group: Processes) -> Tensor:
    """What has the gradient of the rate penalty once gradients are averaged over the processes; its value is of no use.

    The penalty is the sum over layers of the mean squared distance between its neurons' mean outputs and the target.

    Args:
        spikes: of each hidden layer, those of this process.
        target: mean output of a neuron and step.
        samples: of the batch, in all processes.
        group: the processes that share it.

    """
    pulls = []
    for layer in spikes:
        (steps,) = group.any(layer.shape[0])
        sums = layer.sum((0, 1))
        mean = group.sum(sums.detach().clone()) / (steps * samples)
        pulls.append((2 * (mean - target) * sums).mean() / (steps * samples))
    return group.size * torch.stack(pulls).sum() if pulls else torch.zeros(())
