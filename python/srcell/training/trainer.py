"""``Trainer``: performs the optimiser steps of a run, and saves and restores its state."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._shared.processes import Processes
from ..data import Dataset, EventLoader, HeldEncoding, LabelledSequences, Samples
from ..data.dataset import of_every_step
from ..data.loader import derived_seed
from ..data.own import is_own
from ..diagnosis import Diagnosis, diagnose
from ..evaluation import Evaluation, evaluate
from ..events import EventBatch
from ..layers import LeakyReadout, Standardise
from ..models import Classifier
from ..models.answers import answer, as_input, check_labels, in_time, paired, summed_loss
from .checkpoint import check_storable
from .config import TrainingConfig
from .metrics import EpochMetrics, Tally, best_epoch
from .network import build_model, check_weights, described, difference, load_weights
from .optimisation import delay_width, delays_are_fixed, make_optimizer, make_schedule, rate_pull
from .options import RunOptions
from .progress import read_groups, read_history, read_moments
from .samples import EVALUATION_BATCH, EVALUATION_SEED, encoded, split
from .targets import LastMap, error_of, last_map, r2_of_mean, scale_of, standardised

DROPOUT = 4  # purpose of a derived seed; data/loader.py has others
DIAGNOSED = 64  # samples
LOOKED_AT = 256  # samples, to see in which unit a network answers
RECORD = {"config", "history", "batches", "learning_rate", "groups", "tally", "seconds"}  # keys of a checkpoint


class Trainer:
    """A network with its data, optimiser and learning-rate schedule, at any point of its run.

    Args:
        config: the run's configuration.
        dataset: the data set.
        options: options of this machine.
        group: the processes that train the network together; by default this process alone.
        model: a network of your own, which is trained in place; by default ``build_model`` makes one.

    Attributes:
        config: as given.
        options: as given.
        group: as given.
        model: the network in its current state.
        dense: whether a network of your own is called with tensors: for sequences, if it has no ``encoder``.
        sample_counts: number of samples under "training", "validation" and "test".
        tally: this process's sums over the batches of the current epoch.
        history: metrics of each finished epoch.
        loader: loader of the training samples.
        optimizer: the network's optimiser.

    """

    def __init__(
        self,
        config: TrainingConfig,
        dataset: Dataset,
        options: RunOptions | None = None,
        group: Processes | None = None,
        model: nn.Module | None = None,
    ) -> None:
        self.options, self.group = options or RunOptions(), group or Processes()
        self.config, self.tally = config, Tally()
        self.history: list[EpochMetrics] = []
        self._device = torch.device(self.options.own_device)
        self._given = model is not None
        if model is None:
            model = build_model(config, dataset.input_shape, dataset.num_classes, dataset.class_names)
        encoding = getattr(model, "encoder", None)
        dataset = encoded(dataset, encoding)
        self.dense = self._given and encoding is None and isinstance(dataset.train, LabelledSequences)
        self._load = partial(
            EventLoader,
            encoding=encoding,
            seed=EVALUATION_SEED,
            num_workers=self.options.num_workers,
            rank=self.group.rank,
            world_size=self.group.size,
        )
        training, validation = split(config, dataset.train)
        parts = {"training": training, "validation": validation, "test": dataset.test}
        if config.patience and not len(validation.labels):
            raise ValueError(f"patience: expected 0 without validation samples, got {config.patience}")
        self.sample_counts = {name: len(samples.labels) for name, samples in parts.items()}
        if config.standardise and isinstance(training, LabelledSequences):
            cast(Classifier, model).standardise = Standardise.of(training.values, training.lengths)
        self._described = described(model) if self._given else []
        self.model: Any = model.to(self._device)
        self._every_step = of_every_step(dataset.train.labels)
        if self._every_step and isinstance(encoding, HeldEncoding) and (encoding.hold, encoding.prefix) != (1, 0):
            raise ValueError(
                f"hold, prefix: expected 1 and 0 with labels of every element, got {encoding.hold} and "
                f"{encoding.prefix}"
            )
        if self._given or is_own(config.dataset):
            self._check(parts)
        self._targets: Standardise | None = None
        self._last: LastMap | None = None  # takes in the unit of the targets
        if dataset.train.labels.is_floating_point():
            try:
                self._targets = scale_of(training)
            except ValueError as error:
                raise ValueError(f"dataset: expected targets with a mean and a deviation ({error})") from None
            if config.standardise_targets and self._prepare_targets(training):
                training, validation = (standardised(part, self._targets) for part in (training, validation))
        self._network = self._wrapped()
        self.loader = self._load(training, batch_size=config.batch_size, shuffle=True, seed=config.seed)
        self._validation = self._load(validation, batch_size=EVALUATION_BATCH)
        self._test_samples = dataset.test
        self.optimizer = make_optimizer(config, self.model)
        self._schedule = make_schedule(config, self.optimizer, config.epochs * len(self.loader))
        self._rate = float(self.optimizer.param_groups[0]["lr"])
        self._batches_done = 0
        self._seconds = 0.0
        self._best: dict[str, Tensor] = {}  # the weights of the best epoch, with patience

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or as many as ``patience`` allows without a better validation accuracy."""
        done, patience = len(self.history), self.config.patience
        return done >= self.config.epochs or (patience > 0 and done - best_epoch(self.history) >= patience)

    def train_epoch(self) -> Iterator[float]:
        """Train on the remaining batches of the epoch, and yield the fraction of the run that is done after each batch.

        Raises:
            FloatingPointError: the loss is no longer finite.

        """
        epoch, start = len(self.history) + 1, time.perf_counter() - self._seconds
        self.loader.set_epoch(epoch, first_batch=self._batches_done)
        self._prepare_delays(epoch)
        self.model.train()  # a network of one's own may have come in evaluation mode
        for events, labels in self.loader:
            self._train_batch(events.to(self._device), labels.to(self._device))
            self._batches_done += 1
            self._seconds = time.perf_counter() - start
            yield ((epoch - 1) + self._batches_done / len(self.loader)) / self.config.epochs

    def finish_epoch(self) -> EpochMetrics:
        """Evaluate on the validation samples, record the epoch's metrics, and begin the next epoch."""
        start = time.perf_counter()
        total = self._total_tally()
        accuracy = loss = math.nan
        if len(self._validation):
            validation = self._evaluate(self._validation)
            accuracy, loss = validation.accuracy, validation.loss
        metrics = EpochMetrics(
            epoch=len(self.history) + 1,
            train_loss=total.loss,
            train_accuracy=total.accuracy,
            validation_accuracy=accuracy,
            spike_rate=total.spike_rate,
            learning_rate=self._rate,
            seconds=self._seconds + time.perf_counter() - start,
            validation_loss=loss,
        )
        self.history.append(metrics)
        if self.config.patience and best_epoch(self.history) == metrics.epoch:
            self._best = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.tally, self._batches_done, self._seconds = Tally(), 0, 0.0
        return metrics

    def keep_best(self) -> int:
        """With ``patience``, load the weights of the best epoch and return it; otherwise return 0."""
        if not self._best:
            return 0
        self.model.load_state_dict(self._best)
        return best_epoch(self.history)

    def finish(self) -> None:
        """Let the network answer in the unit of the targets, if it learnt standardised ones."""
        if self._last is not None and self._targets is not None:
            self._last.take_in(self._targets)
            self._last = None

    def diagnose(self) -> Diagnosis | None:
        """After the first epoch and each tenth of a run, in one process, diagnose the network on the same samples.

        Gradients are measured after the first epoch only: those of a network that has learnt are small and uneven. With
        the option ``diagnose`` off there is none.
        """
        done = len(self.history)
        tenths = [10 * epochs // self.config.epochs for epochs in (done - 1, done)]
        if self.group.rank or not self.options.diagnose or (done != 1 and tenths[0] == tenths[1]):
            return None
        config = self.config
        loader = self._load(
            self.loader.samples,
            batch_size=min(config.batch_size, DIAGNOSED),
            shuffle=True,
            seed=config.seed,
            num_workers=0,
        )
        loader.set_epoch(1)
        return self._diagnose(loader, with_gradients=done == 1)

    def diagnose_test(self) -> Diagnosis | None:
        """Diagnose the network on samples of the test set, drawn alike in every run; None with ``diagnose`` off."""
        if not self.options.diagnose:
            return None
        return self._diagnose(self._load(self._test_samples, batch_size=DIAGNOSED, shuffle=True), with_gradients=True)

    def test(self) -> Evaluation:
        """Evaluate on the test set."""
        found = self._evaluate(self.test_loader())
        if self._targets is None:
            return found
        return found._replace(r2_of_mean=r2_of_mean(self._test_samples, self._targets))

    def test_loader(self, batch_size: int = EVALUATION_BATCH) -> EventLoader:
        """A loader of the test set; its spikes are the same in every run."""
        return self._load(self._test_samples, batch_size=batch_size)

    def leave(self) -> None:
        """Leave the group: drop the DistributedDataParallel wrapper, which must not outlive the process group."""
        self._network = nn.Identity()

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of all that ``load_state`` needs. Every process must call ``state``, and all get the same copies."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        for k, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{k}.{name}": tensor for name, tensor in state.items()}
        tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        record = {
            "config": dataclasses.asdict(self.config),
            "history": [list(metrics) for metrics in self.history],
            "batches": self._batches_done,
            "learning_rate": self._rate,
            "groups": self.optimizer.state_dict()["param_groups"],
            "tally": self._total_tally().sums.tolist(),
            "seconds": self._seconds,
            "standardised": self._last is not None,
        }
        if self._given:
            record |= {"modules_at_first": self._described, "modules": described(self.model)}
        return tensors, record

    def load_state(self, tensors: dict[str, Tensor], record: dict[str, Any], source: str = "checkpoint") -> None:
        """Continue from the tensors and the record that ``state`` returned; the tensors are copied.

        Raises:
            ValueError: the state is incomplete, or belongs to another configuration or network.

        """
        missing = sorted(RECORD - record.keys())
        if missing:
            raise ValueError(f"{source}: cannot resume: the checkpoint lacks {', '.join(missing)}")
        weights, best = (
            {name.removeprefix(part): x for name, x in tensors.items() if name.startswith(part)}
            for part in ("model.", "best.")
        )
        if self._given:
            check_weights(self.model, weights, source)
        if record.get("standardised", False) != (self._last is not None):
            has = "standardised" if self._last is None else "no standardised"
            raise ValueError(f"{source}: expected the network as it was built, for a run that began with {has} targets")
        try:
            config = TrainingConfig.from_dict(record["config"])
            moments = read_moments(self.optimizer, tensors, self._given)
            groups = read_groups(self.optimizer, record["groups"])
            history = read_history(record, self.loader, self.config.epochs)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{source}: cannot resume from this checkpoint ({reason})") from error
        if config != self.config:
            raise ValueError(f"{source}: belongs to another configuration than the run's config.json")
        if self.config.patience and history:
            check_weights(self.model, best, source)
            self._best = {name: x.clone() for name, x in best.items()}
        own = {name: x.clone() for name, x in self.model.state_dict().items()} if self._given else {}
        load_weights(self.model, weights, source)
        # As it was built, or as the run left it: a repr may show weights, and settings that an observer changes.
        other = difference(record.get("modules_at_first"), self._described)
        if self._given and other and difference(record.get("modules"), described(self.model)):
            self.model.load_state_dict(own)
            raise ValueError(f"{source}: expected the network that the run began with, {other}")
        self._described = record.get("modules_at_first", self._described)
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.history, self._batches_done, self._seconds = history, int(record["batches"]), record["seconds"]
        # The saved sums cover all processes, and will be summed over the processes again: so rank 0 loads them.
        self.tally = Tally(record["tally"]) if self.group.rank == 0 else Tally()
        self._rate = record["learning_rate"]
        # The schedule depends only on the number of steps; its current values are in the optimiser's groups.
        self._schedule.last_epoch = len(self.history) * len(self.loader) + self._batches_done

    @torch.no_grad()
    def _check(self, parts: dict[str, Samples]) -> None:
        """Raise unless the network answers samples as the labels want it, before anything is written."""
        check_storable(self.model.state_dict())
        training = self.model.training
        self.model.eval()
        try:
            for name, samples in parts.items():
                if not len(samples.labels):
                    if name == "validation":
                        continue
                    raise ValueError(f"dataset: expected samples for {name}, got none")
                few = self._load(samples.select(torch.arange(min(2, len(samples.labels)))), rank=0, world_size=1)
                events, labels = next(iter(few))
                output, *_ = answer(self.model, events.to(self._device), self._every_step, dense=self.dense)
                output, _ = paired(output, labels.to(self._device), events.lengths, "dataset")
                if not samples.labels.is_floating_point():
                    check_labels(samples.labels, output.shape[-1], "dataset")
        finally:
            self.model.train(training)

    @torch.no_grad()
    def _prepare_targets(self, training: Samples) -> bool:
        """Whether the network can learn standardised targets, because a linear map ends it.

        A network of one's own that answers in the unit of the targets goes on from there.
        """
        scale = cast(Standardise, self._targets)
        some = self._load(training, batch_size=LOOKED_AT, rank=0, world_size=1, num_workers=0)
        events, labels = next(iter(some))
        events, labels = events.to(self._device), labels.to(self._device)
        was_training = self.model.training
        self.model.eval()
        try:

            def told() -> tuple[Tensor, Tensor]:
                output, *_ = answer(self.model, events, self._every_step, dense=self.dense)
                return paired(output, labels, events.lengths, "dataset")

            self._last = last_map(self.model, scale, lambda: told()[0])
            if self._last is None:
                shown = ", ".join(f"{x:.3g}" for x in (scale.mean[0], scale.deviation[0]))
                warnings.warn(
                    "targets: not standardised, because the network does not end in a LinearReadout or an nn.Linear "
                    f"with a bias (mean and deviation of the first value: {shown})",
                    stacklevel=2,
                )
            elif self._given:
                as_it_is, in_unit = error_of(*told(), scale)
                if in_unit < as_it_is:
                    self._last.take_out(scale)
        finally:
            self.model.train(was_training)
        return self._last is not None

    def _prepare_delays(self, epoch: int) -> None:
        """Set the width of the epoch, and fix delays that are learnt but end whole. Repeating it changes nothing."""
        if self._given:  # whole_delays and delay_width are settings of a network that srcell builds
            return
        self.model.set_delay_width(delay_width(self.config, epoch))
        if delays_are_fixed(self.config, epoch) and any(delay.requires_grad for delay in self.model.delays.values()):
            self.model.round_delays_()
            # DistributedDataParallel expects a gradient of every parameter that required one when it was made.
            self._network = self._wrapped()

    def _train_batch(self, events: EventBatch, labels: Tensor) -> None:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.amp):
            output, *spikes = self._forward(events)
        if self.config.amp:
            output = output.float()
        output, labels = paired(output, labels, events.lengths)
        loss = summed_loss(output, labels, self.config.label_smoothing)
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss became {loss.item()} in batch {self._batches_done + 1} of epoch {len(self.history) + 1}, "
                f"at a learning rate of {self._rate:.3g}: use a lower one"
            )
        # DistributedDataParallel averages gradients over processes, but their shares of a batch may differ by a sample.
        # So the summed loss is divided by the answers of all processes and multiplied by the number of processes.
        samples = answers = self.loader.samples_in(self._batches_done)
        if self._every_step:
            answers = max(int(self.group.sum(torch.tensor(len(labels)))), 1)
        objective = self.group.size / answers * loss
        if self.config.rate_penalty:
            voting = any(isinstance(module, LeakyReadout) for module in self.model.modules())
            hidden = spikes[:-1] if voting else spikes
            pull = rate_pull(hidden, self.config.target_rate, samples, len(events), self.group)
            objective = objective + self.config.rate_penalty * pull
        self.optimizer.zero_grad()
        objective.backward()
        if self.config.clip_norm:
            weights, biases = self.optimizer.param_groups[:2]  # others are in other units, and often larger
            nn.utils.clip_grad_norm_([*weights["params"], *biases["params"]], self.config.clip_norm)
        self.optimizer.step()
        self._rate = float(self.optimizer.param_groups[0]["lr"])
        self._schedule.step()
        self._constrain()
        self.tally.add(loss.item(), output, labels, spikes, len(events))

    def _constrain(self) -> None:
        """Write the bounds of the parameters into them; of a network of one's own, in all layers."""
        for module in self.model.modules() if self._given else [self.model]:
            if hasattr(module, "constrain_"):
                module.constrain_()

    def _forward(self, events: EventBatch) -> list[Tensor]:
        """The output and the spikes of each layer; what is drawn there is seeded by the batch's place in the run."""
        if not (self._given or self.config.dropout):
            return cast("list[Tensor]", self._network(events))
        self.model.shared_batch = (self.loader.samples_in(self._batches_done), self.group.rank, self.group.size)
        try:
            with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
                torch.manual_seed(derived_seed(self.config.seed, DROPOUT, len(self.history), self._batches_done))
                return cast("list[Tensor]", self._network(events))
        finally:
            self.model.shared_batch = None

    def _wrapped(self) -> nn.Module:
        return self.group.wrap(OutputAndLayers(self.model, self._every_step, self.dense))

    def _evaluate(self, loader: EventLoader) -> Evaluation:
        return evaluate(self.model, loader, self._device, self.group, dense=self.dense)

    def _diagnose(self, loader: EventLoader, *, with_gradients: bool) -> Diagnosis:
        events, labels = next(iter(loader))
        events, labels = events.to(self._device), labels.to(self._device)

        def loss(output: Tensor, labels: Tensor) -> Tensor:
            output = in_time(self.model, output) if self._every_step else output
            output, labels = paired(output, labels, events.lengths)
            return summed_loss(output, labels) / max(len(labels), 1)

        input, lengths = as_input(self.model, events, self.dense)
        plain = not self._every_step and not labels.is_floating_point()
        # A classifier answers once, unless it is asked otherwise.
        answers = with_gradients and not (self._every_step and isinstance(self.model, Classifier))
        return diagnose(
            self.model, input, labels if answers else None, loss if answers and not plain else None, lengths
        )

    def _total_tally(self) -> Tally:
        return Tally(self.group.sum(self.tally.sums.clone()).tolist())


class OutputAndLayers(nn.Module):
    """Returns everything that a training step needs from one call, as DistributedDataParallel requires."""

    def __init__(self, model: nn.Module, every_step: bool, dense: bool) -> None:
        super().__init__()
        self.model, self.every_step, self.dense = model, every_step, dense

    def forward(self, events: EventBatch) -> list[Tensor]:
        """The output, then the spikes of each layer."""
        output, spikes, _ = answer(self.model, events, self.every_step, dense=self.dense)
        return [output, *spikes]
