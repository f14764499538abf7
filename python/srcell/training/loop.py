"""``train``, ``resume`` and ``evaluate_run``: the training loop, which fills a run folder.

The command line and users call it.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .. import data
from .._interrupted import Interrupted
from .._processes import Processes, processes, stop_signals
from ..data import EventLoader
from ..evaluation import Evaluation, evaluate
from ..models import Classifier
from .config import TrainingConfig
from .metrics import EpochMetrics
from .network import build_model, load_weights
from .observer import Observer
from .options import RunOptions, data_folder
from .samples import EVALUATION_BATCH, EVALUATION_SEED, load_data, make_encoding
from .trainer import Trainer

if TYPE_CHECKING:
    from .run_folder import RunFolder


class TrainedRun(NamedTuple):
    """The result of ``train``: the network in evaluation mode, the metrics of each epoch, the test set's evaluation."""

    model: Classifier
    history: list[EpochMetrics]
    evaluation: Evaluation


def train(
    config: TrainingConfig, out: str | Path, observer: Observer | None = None, options: RunOptions | None = None
) -> TrainedRun:
    """Train a network and write a run folder.

    The optimiser is AdamW, the loss cross-entropy; images are encoded anew in every epoch. The validation samples are
    evaluated after each epoch, the test set once, at the end of the run; both are always encoded as the same spikes.
    Under ``torchrun`` the processes share each batch, and the first process writes the files and calls the observer.

    SIGINT and SIGTERM end the run after the current optimiser step, with a checkpoint (the state that ``resume``
    continues from).

    Args:
        config: what to train.
        out: the run folder, created here. Its files are config.json, metrics.csv (one row per epoch) and
            checkpoint.safetensors; at the end of the run also model.safetensors, result.json, plots and report.html,
            one page with all of the plots. If TensorBoard is installed, the metrics are in the subfolder tensorboard as
            well. No other process can write to the run folder during the run.
        observer: called after every batch and epoch.
        options: options of this machine.

    Raises:
        ValueError: an unknown name, or a corrupt file of the data set.
        FileNotFoundError: the data set is not where ``options`` says.
        FileExistsError: ``out`` exists and is not an empty folder.
        BlockingIOError: another process is training in ``out``.
        ChildProcessError: a worker that encodes batches died.
        FloatingPointError: the loss is no longer finite; the last checkpoint is kept.
        Interrupted: a signal stopped the run.
        ImportError: a dependency of the extra "train" is not installed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as out:
        ...     run = train(TrainingConfig(hidden_sizes=(), epochs=1, steps=5), out)
        >>> [metrics.epoch for metrics in run.history]
        [1]

    """
    return _run(config, out, observer, options or RunOptions())


def resume(out: str | Path, observer: Observer | None = None, options: RunOptions | None = None) -> TrainedRun:
    """Continue a stopped or killed run from its last checkpoint.

    The final weights are bit for bit those of an uninterrupted run.

    Args:
        out: the run folder.
        observer: as in ``train``.
        options: as in ``train``; they may differ from those that the run was started with.

    Raises:
        FileNotFoundError: there is no run in that folder, or the data set is not where ``options`` or the run says.
        ValueError: the configuration or the checkpoint is corrupt, of another network or of a newer version.
        BlockingIOError, ChildProcessError, Interrupted, FloatingPointError, ImportError: as in ``train``.

    """
    from .run_folder import RunFolder

    run = RunFolder.open(out)
    return _run(run.config, out, observer, _options_of(run, options), run)


def _run(
    config: TrainingConfig,
    out: str | Path,
    observer: Observer | None,
    options: RunOptions,
    resumed: RunFolder | None = None,
) -> TrainedRun:
    """Train from the start, or from a run's checkpoint."""
    # Imported here because it needs the extra "train": the command line's help and errors work without it.
    from .run_folder import RunData, RunFolder

    with processes(options.own_device) as group, ExitStack() as held:
        folder = None if resumed is None else held.enter_context(_writer(group, out, resumed.lock))
        dataset = load_data(config, options)
        used = RunData(str(data_folder(options)), dataset.input_shape, dataset.num_classes)
        trainer = Trainer(config, dataset, options, group)
        if resumed is None:
            folder = held.enter_context(_writer(group, out, partial(RunFolder.create, out, config, used)))
        elif (found := resumed.read_checkpoint()) is not None:
            trainer.load_state(*found, source=str(resumed.checkpoint))
        if folder is not None:
            folder.set_data(used)
        try:
            return _train_to_the_end(trainer, out, folder, observer or Observer())
        finally:
            trainer.leave()


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
    if options.data is None and folder.data is not None:
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
                    raise Interrupted(stopped, out)
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
        evaluation = trainer.test()
    trainer.model.eval()
    if folder is not None:
        events, labels = next(iter(trainer.test_loader(batch_size=1)))
        names = data.class_names(trainer.config.dataset)
        diagnosis = trainer.diagnose_test()
        folder.finish(trainer.model, trainer.history, evaluation, events, int(labels), names, diagnosis)
    group.max(0)  # a barrier: no process leaves the group while another still needs it
    return TrainedRun(trainer.model, trainer.history, evaluation)


def evaluate_run(folder: RunFolder, options: RunOptions | None = None, *, binary: bool = False) -> Evaluation:
    """Evaluate the network of a finished run on the test set, as at the end of the run.

    Args:
        folder: the run folder.
        options: options of this machine.
        binary: as in ``srcell.evaluation.evaluate``.

    Raises:
        FileNotFoundError: the run has not ended, or the data set is not where ``options`` or the run says.
        ValueError: the weights are corrupt or of another network.

    """
    options = _options_of(folder, options)
    dataset = load_data(folder.config, options)
    model = build_model(folder.config, dataset.input_shape, dataset.num_classes)
    load_weights(model, folder.load_model(), str(folder.path))
    encoding, workers = make_encoding(folder.config), options.num_workers
    loader = EventLoader(dataset.test, encoding, EVALUATION_BATCH, seed=EVALUATION_SEED, num_workers=workers)
    device = options.own_device
    return evaluate(model.to(device), loader, device, binary=binary)
