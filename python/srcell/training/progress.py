"""Reads a checkpoint back into how far a run has come; all of it is checked before any is used."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, optim

from ..data import EventLoader
from .config import TrainingConfig
from .metrics import EpochMetrics, Tally, check_metrics, numbers

if TYPE_CHECKING:
    from .trainer import Trainer

RECORD = {"config", "history", "batches", "learning_rate", "groups", "tally", "seconds"}


class Progress(NamedTuple):
    """What a trainer goes on from.

    Attributes:
        weights: of the network.
        moments: the optimiser's state of each parameter.
        groups: the optimiser's groups of parameters.
        history: a row for each epoch that is done.
        batches: those that are done of the epoch at hand.
        seconds: that these took.
        rate: the last learning rate.
        tally: the sums of the epoch at hand.

    """

    weights: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]
    groups: list[dict[str, Any]]
    history: list[EpochMetrics]
    batches: int
    seconds: float
    rate: float
    tally: list[float]


def read(trainer: Trainer, tensors: dict[str, Tensor], record: dict[str, Any], source: str) -> Progress:
    """What ``Trainer.state`` returned.

    Raises:
        ValueError: it is incomplete, or that of another configuration or network.

    """
    missing = sorted(RECORD - record.keys())
    if missing:
        raise ValueError(f"{source}: not a checkpoint to go on from, it has no {', '.join(missing)}")
    weights = {name: tensors[f"model.{name}"] for name in trainer.model.state_dict() if f"model.{name}" in tensors}
    try:
        config = TrainingConfig.from_dict(record["config"])
        moments, groups = _moments(trainer.optimizer, tensors), _groups(trainer.optimizer, record["groups"])
        history = [EpochMetrics(*numbers(row)) for row in record["history"]]
        batches, rate, seconds = numbers([record[name] for name in ("batches", "learning_rate", "seconds")])
        tally = numbers(record["tally"])
        if len(history) > trainer.config.epochs or not 0 <= batches <= len(trainer.loader) or batches != int(batches):
            raise ValueError(f"of {len(history)} epochs and {batches} batches")
        for epoch, row in enumerate(history, start=1):
            check_metrics(row, epoch)
        _check_epoch(trainer.loader, int(batches), rate, seconds, tally)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{source}: not a checkpoint to go on from ({type(error).__name__}: {error})") from error
    if config != trainer.config:
        raise ValueError(f"{source}: is of another configuration than the run's config.json")
    return Progress(weights, moments, groups, history, int(batches), seconds, rate, tally)


def _check_epoch(loader: EventLoader, batches: int, rate: float, seconds: float, sums: list[float]) -> None:
    """Do nothing if an epoch can have come so far.

    Raises:
        ValueError: it cannot.

    """
    if len(sums) != len(Tally().sums):
        raise ValueError(f"{len(sums)} sums")
    samples = sum(loader.samples_in(k) for k in range(batches))
    if sums[0] != samples or (not batches and any(sums)):
        raise ValueError(f"sums of {sums[0]} samples after {batches} batches, which are of {samples}")
    # No epoch has begun without a batch: its metrics would be 0 / 0.
    tally = Tally(sums if batches else (1, 0, 0, 1, 0))
    check_metrics(EpochMetrics(1, tally.loss, tally.accuracy, math.nan, tally.spike_rate, rate, seconds), 1)


def _moments(optimizer: optim.Optimizer, tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    """The optimiser's state of each parameter, from the tensors of a checkpoint."""
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
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


def _groups(optimizer: optim.Optimizer, saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The optimiser's own groups, with the rates and momenta that the schedule had brought them to."""
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    for group, found in zip(groups, saved, strict=True):
        (group["lr"],), group["betas"] = numbers([found["lr"]]), tuple(numbers(list(found["betas"])))
        if not 0 <= group["lr"] <= 1 or len(group["betas"]) != 2 or not all(0 <= x < 1 for x in group["betas"]):
            raise ValueError(f"a learning rate of {group['lr']} and betas of {group['betas']}")
    return groups
