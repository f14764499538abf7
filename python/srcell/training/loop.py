"""``train``, ``resume`` and ``evaluate_run``: the training loop, which fills a run folder.

The command line and users call it.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from torch import nn

from .._shared.arguments import describe
from .._shared.interrupted import Interrupted
from .._shared.processes import Processes, processes, stop_signals
from ..data import Dataset, EventLoader
from ..data.arrays import as_dataset
from ..data.own import is_code, is_own
from ..evaluation import Evaluation, evaluate
from .config import GROUPS, OWN, TrainingConfig
from .metrics import EpochMetrics
from .network import build_model, load_weights
from .observer import Observer
from .options import RunOptions, data_folder
from .samples import EVALUATION_BATCH, EVALUATION_SEED, checksum, load_data, make_encoding, some_of
from .trainer import Trainer

if TYPE_CHECKING:
    from .run_folder import RunData, RunFolder


class TrainedRun(NamedTuple):
    """The result of ``train``: the network in evaluation mode, the metrics of each epoch, the test set's evaluation."""

    model: nn.Module
    history: list[EpochMetrics]
    evaluation: Evaluation


@overload
def train(
    config: TrainingConfig, out: str | Path, observer: Observer | None = None, options: RunOptions | None = None
) -> TrainedRun: ...
@overload
def train(
    model: nn.Module,
    dataset: Dataset | Sequence[Any],
    out: str | Path,
    observer: Observer | None = None,
    options: RunOptions | None = None,
    **settings: Any,
) -> TrainedRun: ...
def train(*args: Any, **keywords: Any) -> TrainedRun:
    """Train a network and write a run folder: ``train(config, out)`` or ``train(model, dataset, out, **settings)``.

    The optimiser is AdamW; the loss is cross-entropy for labels, the mean squared error for targets; images are encoded
    anew in every epoch. The validation samples are evaluated after each epoch, the test set once, at the end of the
    run; both are always encoded as the same spikes. Under ``torchrun`` the processes share each batch, and the first
    process writes the files and calls the observer.

    SIGINT and SIGTERM end the run after the current optimiser step, with a checkpoint (the state that ``resume``
    continues from).

    Args:
        model: a ``TrainingConfig``, which describes network and data; or a network of your own, which is trained in
            place: a module that holds SRC layers, and returns logits (B, C), or values (B, C) for targets; with labels
            or targets of every step (T, B, C), as a readout with ``every_step=True`` does. It is called with an
            ``EventBatch``, which its attribute ``encoder``, such as a ``RateEncoding``, makes of the samples; sequences
            without an encoder come as tensors, (T, B, K), or (B, T, K) if its readout has ``batch_first``; with
            ``lengths=`` if they differ in length.
        dataset: with a network of your own, the samples: a ``srcell.data.Dataset``, or the arguments of
            ``srcell.data.from_arrays`` as a tuple: (x, y), or (x, y, x_test, y_test).
        out: the run folder, created here. Its files are config.json, metrics.csv (one row per epoch) and
            checkpoint.safetensors; at the end of the run also model.safetensors, result.json, plots and report.html,
            one page with all of the plots. If TensorBoard is installed, the metrics are in the subfolder tensorboard as
            well. No other process can write to the run folder during the run.
        observer: called after every batch and epoch.
        options: options of this machine.
        settings: with a network of your own, the settings of its training, by the names that ``TrainingConfig`` has for
            them: epochs, batch_size, learning_rate, schedule, patience, weight_decay, clip_norm, label_smoothing,
            rate_penalty, target_rate, delay_learning_rate, time_constant_rate, amp, standardise_targets,
            train_samples, validation, seed.

    Raises:
        TypeError: ``model`` is neither, or a setting is not one of training.
        ValueError: an unknown name, or a corrupt file of the data set; or the output does not fit the labels.
        FileNotFoundError: the data set is not where ``options`` says.
        FileExistsError: ``out`` exists and is not an empty folder.
        BlockingIOError: another process is training in ``out``.
        ChildProcessError: a worker that encodes batches died.
        FloatingPointError: the loss is no longer finite; the last checkpoint is kept.
        Interrupted: a signal stopped the run.
        ImportError: a dependency of the extra "train" is not installed.

    Example:
        >>> import tempfile
        >>> import torch, srcell
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = train(TrainingConfig(hidden_sizes=(), epochs=1, steps=5), out)
        >>> [metrics.epoch for metrics in run.history]
        [1]
        >>> x, y = torch.randn(40, 12, 3), torch.arange(40) % 2  # 40 sequences of 12 steps, 3 inputs
        >>> net = srcell.Sequential(srcell.SRC.for_sequences(3, 16), srcell.LinearReadout(16, 2))
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = train(net, (x, y), out, epochs=2, learning_rate=1e-2)
        >>> run.model is net, run.evaluation.answers
        (True, 8)

    """
    of_config = isinstance(args[0], TrainingConfig) if args else "config" in keywords
    return _train_config(*args, **keywords) if of_config else _train_model(*args, **keywords)


def _train_config(
    config: TrainingConfig, out: str | Path, observer: Observer | None = None, options: RunOptions | None = None
) -> TrainedRun:
    return _run(config, out, observer, options or RunOptions())


def _train_model(
    model: nn.Module,
    dataset: Dataset | Sequence[Any],
    out: str | Path,
    observer: Observer | None = None,
    options: RunOptions | None = None,
    **settings: Any,
) -> TrainedRun:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a network, or a TrainingConfig, got {describe(model)}")
    known = [name for name in GROUPS["training"] if name != "dataset"]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise TypeError(
            f"settings: expected settings of training, because the network is given, got {', '.join(unknown)}: they "
            f"are {', '.join(known)}"
        )
    own = OwnRun(model, as_dataset(dataset))
    return _run(TrainingConfig(dataset=OWN, **settings), out, observer, options or RunOptions(), own=own)


def resume(
    out: str | Path,
    observer: Observer | None = None,
    options: RunOptions | None = None,
    *,
    model: nn.Module | None = None,
    dataset: Dataset | Sequence[Any] | None = None,
) -> TrainedRun:
    """Continue a stopped or killed run from its last checkpoint.

    The final weights are bit for bit those of an uninterrupted run.

    Args:
        out: the run folder.
        observer: as in ``train``.
        options: as in ``train``; they may differ from those that the run was started with.
        model: of a run with a network of your own, that network, built as before; its weights are replaced.
        dataset: of such a run, its samples, as in ``train``.

    Raises:
        FileNotFoundError: there is no run in that folder, or the data set is not where ``options`` or the run says.
        ValueError: ``model`` and ``dataset`` are missing, or not wanted; the samples are not those that the run began
            with; or the configuration or the checkpoint is corrupt, of another network or of a newer version.
        BlockingIOError, ChildProcessError, Interrupted, FloatingPointError, ImportError: as in ``train``.

    """
    from .run_folder import RunFolder

    run = RunFolder.open(out)
    is_own_run = run.config.dataset == OWN
    if is_own_run != (model is not None) or is_own_run != (dataset is not None):
        expected = "model= and dataset=, as they were given to train" if is_own_run else "no model and no dataset"
        subject = "a network of your own" if is_own_run else f"the data set {run.config.dataset}"
        raise ValueError(f"{out}: expected {expected}, for a run of {subject}")
    own = OwnRun(model, as_dataset(dataset)) if model is not None else None
    return _run(run.config, out, observer, _options_of(run, options), run, own)


class OwnRun(NamedTuple):
    """The network and the samples of a run that the caller made."""

    model: nn.Module
    dataset: Dataset


def _run(
    config: TrainingConfig,
    out: str | Path,
    observer: Observer | None,
    options: RunOptions,
    resumed: RunFolder | None = None,
    own: OwnRun | None = None,
) -> TrainedRun:
    """Train from the start, or from a run's checkpoint."""
    # Imported here because it needs the extra "train": the command line's help and errors work without it.
    from .run_folder import RunFolder

    if resumed is None and os.environ.get("GROUP_RANK", "0") == "0":  # of torchrun: on the first machine
        RunFolder.check_new(out)  # before processes wait for each other, so that each of them says it
    with processes(options.own_device) as group, ExitStack() as held:
        folder = None if resumed is None else held.enter_context(_writer(group, out, resumed.lock))
        read_from = None if resumed is None else out
        dataset = load_data(config, options, read_from) if own is None else own.dataset
        used = data_of(config, options, dataset)
        if resumed is not None and resumed.data is not None:
            resumed.data.check_equal(used, out)
        trainer = Trainer(config, dataset, options, group, None if own is None else own.model)
        if resumed is None:
            folder = held.enter_context(_writer(group, out, partial(RunFolder.create, out, config, used)))
        elif (found := resumed.read_checkpoint()) is not None:
            trainer.load_state(*found, source=str(resumed.checkpoint))
        if folder is not None:
            folder.set_data(used)
        try:
            return _train_to_the_end(trainer, out, folder, observer or Observer())
        finally:
            trainer.finish()  # an error, too, leaves a network of one's own in the unit of the targets
            trainer.leave()


def data_of(config: TrainingConfig, options: RunOptions, dataset: Dataset) -> RunData:
    """What a run folder records about a data set."""
    from .run_folder import RunData

    sizes = str(data_folder(options)), dataset.input_shape, dataset.num_classes
    if config.dataset != OWN and not is_own(config.dataset):
        return RunData(*sizes, dataset.class_names)
    parts = dataset.train, dataset.test
    sums = checksum(part.labels for part in parts), checksum(x for part in parts for x in some_of(part))
    return RunData(*sizes, dataset.class_names, (*(len(part.labels) for part in parts), *sums))


@contextmanager
def _writer(group: Processes, out: str | Path, take: Callable[[], RunFolder]) -> Iterator[RunFolder | None]:
    """The run folder in the first process, None in the others; if the first cannot open it, all processes raise."""
    folder, failure = None, None
    if group.rank == 0:
        try:
            folder = take()
        except Exception as error:
            failure = error
    (failed,) = group.max(int(failure is not None))
    if failed:
        raise failure or OSError(f"{out}: the first process cannot write there")
    try:
        yield folder
    finally:
        if folder is not None:
            folder.close()


def _options_of(folder: RunFolder, options: RunOptions | None) -> RunOptions:
    """The options; if they have no data folder, with the run's own data folder."""
    options = options or RunOptions()
    if options.data is None and folder.data is not None and not is_own(folder.config.dataset):
        options = dataclasses.replace(options, data=folder.data.folder)
    return options


def _train_to_the_end(trainer: Trainer, out: str | Path, folder: RunFolder | None, observer: Observer) -> TrainedRun:
    """Train to the end and evaluate; the first process writes to the folder and calls the observer."""

    def save() -> float:
        state = trainer.state()
        if folder is not None:
            folder.write_checkpoint(*state)
        return time.monotonic()

    group = trainer.group
    observer = observer if group.rank == 0 else Observer()
    observer.on_ready(trainer)
    observer.on_start(trainer.config.epochs, len(trainer.history))
    last_save = time.monotonic()
    with stop_signals() as stop:
        while not trainer.ended:
            for fraction in trainer.train_epoch():
                observer.on_batch(len(trainer.history) + 1, fraction, trainer.tally)
                due = time.monotonic() - last_save >= trainer.options.checkpoint_seconds
                stopped, save_now = group.max(stop.number, int(due))
                if stopped or save_now:
                    last_save = save()
                if stopped:
                    name = trainer.config.dataset
                    raise Interrupted(stopped, out, name == OWN, name if is_code(name) else "")
            metrics = trainer.finish_epoch()
            last_save = save()
            if folder is not None:
                folder.write_metrics(trainer.history)
                folder.write_scalars(trainer.history)
            observer.on_epoch(metrics)
            diagnosis = trainer.diagnose()  # None in all but the first process, and after most epochs
            if diagnosis is not None:
                observer.on_diagnosis(diagnosis)
        if kept := trainer.keep_best():
            observer.on_best(kept)
        trainer.finish()
        evaluation = trainer.test()
    trainer.model.eval()
    if folder is not None:
        events, labels = next(iter(trainer.test_loader(batch_size=1)))
        diagnosis = trainer.diagnose_test()
        folder.finish(trainer.model, trainer.history, evaluation, events, labels[0], diagnosis)
    group.max(0)  # a barrier: no process leaves the group while another still needs it
    return TrainedRun(trainer.model, trainer.history, evaluation)


def evaluate_run(
    folder: RunFolder, options: RunOptions | None = None, *, binary: bool = False, dataset: str | None = None
) -> Evaluation:
    """Evaluate the network of a finished run on the test set, as at the end of the run.

    Args:
        folder: the run folder.
        options: options of this machine.
        binary: as in ``srcell.evaluation.evaluate``.
        dataset: the name of another data set with as many inputs and classes, or with classes of the same names,
            encoded as the run's samples; recordings of events as they are. For instance "nmnist" for a run on "mnist"
            with ``encoding="camera"``.

    Raises:
        FileNotFoundError: the run has not ended, or the data set is not where ``options`` or the run says.
        ValueError: the weights are corrupt or of another network.

    """
    if folder.config.dataset == OWN:
        raise ValueError(f"{folder.path}: {folder.NO_NETWORK}")
    config, options = folder.config, _options_of(folder, options)
    shown = load_data(config, options, folder.path)
    if folder.data is not None:
        folder.data.check_equal(data_of(config, options, shown), folder.path)
    model = build_model(config, shown.input_shape, shown.num_classes)
    load_weights(model, folder.load_model(), str(folder.path))
    if dataset is not None:
        prefix = 0 if config.encoding == "camera" else config.prefix
        config = dataclasses.replace(config, dataset=dataset, prefix=prefix)
        other = load_data(config, options, folder.path)
        if other.class_names and set(other.class_names) <= set(shown.class_names):
            other = other.numbered_as(shown.class_names)
        if (other.input_size, other.num_classes) != (shown.input_size, shown.num_classes):
            raise ValueError(
                f"dataset: expected one of {shown.input_size} inputs and {shown.num_classes} classes, got "
                f"{other.input_size} inputs and {other.num_classes} classes in {dataset!r}"
            )
        shown = other
    encoding, workers = make_encoding(config), options.num_workers
    loader = EventLoader(shown.test, encoding, EVALUATION_BATCH, seed=EVALUATION_SEED, num_workers=workers)
    device = options.own_device
    return evaluate(model.to(device), loader, device, binary=binary)
