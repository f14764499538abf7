"""``read``: reads the progress of a run from its checkpoint, and checks all of the checkpoint before any use of it."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any, NamedTuple

from torch import Tensor, nn, optim

from ..data import EventLoader
from .config import TrainingConfig
from .metrics import EpochMetrics, Tally, check_metrics, numbers

RECORD = {"config", "history", "batches", "learning_rate", "groups", "tally", "seconds"}


class Progress(NamedTuple):
    """The state from which a trainer continues.

    Attributes:
        weights: state_dict of the network.
        moments: the optimiser's state of each parameter.
        groups: the optimiser's parameter groups.
        history: metrics of each epoch that is done.
        batches: number of batches of the current epoch that are done.
        seconds: time that these batches took.
        rate: the last learning rate.
        tally: running sums of the current epoch.

    """

    weights: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]
    groups: list[dict[str, Any]]
    history: list[EpochMetrics]
    batches: int
    seconds: float
    rate: float
    tally: list[float]


def read(
    run: TrainingConfig,
    model: nn.Module,
    optimizer: optim.Optimizer,
    loader: EventLoader,
    tensors: dict[str, Tensor],
    record: dict[str, Any],
    source: str,
) -> Progress:
    """Read the progress of a run from a checkpoint, i.e. from the tensors and the record that ``Trainer.state`` made.

    Raises:
        ValueError: the state is incomplete, or belongs to another configuration or network.

    """
    missing = sorted(RECORD - record.keys())
    if missing:
        raise ValueError(f"{source}: cannot resume: the checkpoint lacks {', '.join(missing)}")
    weights = {name: tensors[f"model.{name}"] for name in model.state_dict() if f"model.{name}" in tensors}
    try:
        config = TrainingConfig.from_dict(record["config"])
        moments, groups = _moments(optimizer, tensors), _groups(optimizer, record["groups"])
        history = [EpochMetrics(*numbers(row)) for row in record["history"]]
        batches, rate, seconds = numbers([record[name] for name in ("batches", "learning_rate", "seconds")])
        tally = numbers(record["tally"])
        if len(history) > run.epochs or not 0 <= batches <= len(loader) or batches != int(batches):
            raise ValueError(f"{len(history)} epochs and {batches} batches are not in the run")
        for epoch, row in enumerate(history, start=1):
            check_metrics(row, epoch)
        _check_epoch(loader, int(batches), rate, seconds, tally)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise ValueError(f"{source}: cannot resume from this checkpoint ({type(error).__name__}: {error})") from error
    if config != run:
        raise ValueError(f"{source}: belongs to another configuration than the run's config.json")
    return Progress(weights, moments, groups, history, int(batches), seconds, rate, tally)


def _check_epoch(loader: EventLoader, batches: int, rate: float, seconds: float, sums: list[float]) -> None:
    """Raise unless an epoch can have this state after ``batches`` batches.

    Raises:
        ValueError: it cannot.

    """
    if len(sums) != len(Tally().sums):
        raise ValueError(f"tally has {len(sums)} sums")
    samples = sum(loader.samples_in(k) for k in range(batches))
    if sums[0] != samples or (not batches and any(sums)):
        raise ValueError(f"the sums are over {sums[0]} samples, but {batches} batches have {samples}")
    # Before the first batch the metrics would be 0 / 0; the metrics of one made-up sample are checked instead.
    tally = Tally(sums if batches else (1, 0, 0, 1, 0))
    check_metrics(EpochMetrics(1, tally.loss, tally.accuracy, math.nan, tally.spike_rate, rate, seconds, math.nan), 1)


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
                raise ValueError(f"optimizer.{k}.{key}: unexpected {tensor.dtype} of shape {tuple(tensor.shape)}")
            if key == "step" and not (tensor >= 1 and tensor == tensor.round() and tensor.isfinite()):
                raise ValueError(f"optimizer.{k}.{key}: unexpected value {tensor.item()}")
            state[k][key] = tensor.clone()
    found = sum(map(len, state.values()))
    if found not in (0, 3 * len(parameters)) or found != sum(name.startswith("optimizer.") for name in tensors):
        raise ValueError("the optimiser's state does not fit the network")
    return dict(state)


def _groups(optimizer: optim.Optimizer, saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The optimiser's own groups, with the saved learning rates and betas, which the schedule changes."""
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    for group, found in zip(groups, saved, strict=True):
        (group["lr"],), group["betas"] = numbers([found["lr"]]), tuple(numbers(list(found["betas"])))
        peak = max(1.0, group.get("max_lr", group["initial_lr"]))  # the learning rate of delays may exceed 1
        if not 0 <= group["lr"] <= peak or len(group["betas"]) != 2 or not all(0 <= x < 1 for x in group["betas"]):
            raise ValueError(f"the optimiser cannot have learning rate {group['lr']} and betas {group['betas']}")
    return groups
