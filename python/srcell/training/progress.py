"""Reads the parts of a checkpoint that a trainer resumes from.

``Trainer.load_state`` calls this. If no run can have left a part so, its function raises ValueError, TypeError,
KeyError, AttributeError or OverflowError.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..data import EventLoader
from .metrics import EpochMetrics, Tally


def read_history(record: dict[str, Any], loader: EventLoader, epochs: int) -> list[EpochMetrics]:
    """The metrics of each finished epoch of a record; what the record says of the current epoch is checked as well."""
    history = [EpochMetrics(*_numbers(row)) for row in record["history"]]
    if len(history) > epochs or record["batches"] not in range(len(loader) + 1):
        raise ValueError(f"{len(history)} epochs and {record['batches']!r:.200} batches are not in the run")
    for epoch, row in enumerate([*history, _current_epoch(loader, record, len(history) + 1)], start=1):
        _check_metrics(row, epoch)
    return history


def _current_epoch(loader: EventLoader, record: dict[str, Any], epoch: int) -> EpochMetrics:
    """The metrics of the record's current epoch so far; raise unless its sums are over the batches that are done."""
    batches, rate, seconds = _numbers([record[name] for name in ("batches", "learning_rate", "seconds")])
    sums, samples = _numbers(record["tally"]), sum(loader.samples_in(k) for k in range(int(batches)))
    if len(sums) != len(Tally().sums) or sums[0] != samples or (not batches and any(sums)):
        raise ValueError(f"expected sums over the {samples} samples of {batches} batches, got {sums!r:.200}")
    # Before the first batch the metrics would be 0 / 0; the metrics of one made-up sample are checked instead.
    tally = Tally(sums if batches else (1, 0, 0, 1, 0))
    return EpochMetrics(epoch, tally.loss, tally.accuracy, math.nan, tally.spike_rate, rate, seconds, math.nan)


def _check_metrics(metrics: EpochMetrics, epoch: int) -> None:
    """Raise ValueError unless an epoch can have these metrics."""
    largest = torch.finfo(torch.float32).max
    most = EpochMetrics(epoch, largest, 1, 1, 1, 1, largest, largest)
    possible = (
        0 <= value <= limit or (math.isnan(value) and (name.startswith("validation_") or name == "train_accuracy"))
        for name, value, limit in zip(metrics._fields, metrics, most, strict=True)
    )
    if not isinstance(metrics.epoch, int) or metrics.epoch != epoch or not all(possible):
        raise ValueError(f"epoch {epoch} cannot have the metrics {', '.join(map(str, metrics))}")


def _numbers(values: list[Any]) -> list[Any]:
    """Return a list of numbers unchanged; raise for anything else, and for a number that is too large for a float."""
    if not (isinstance(values, list) and all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)):
        raise ValueError(f"expected numbers, got {values!r:.200}")
    _ = [float(x) for x in values]
    return values


def read_moments(optimizer: Optimizer, tensors: dict[str, Tensor], own: bool = False) -> dict[int, dict[str, Tensor]]:
    """The optimiser's state of each parameter, from the tensors of a checkpoint; ``own``: of a network of one's own."""
    state: dict[int, dict[str, Tensor]] = defaultdict(dict)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for k, parameter in enumerate(parameters):
        step = torch.empty((), dtype=torch.promote_types(torch.float32, torch.get_default_dtype()))
        for key, like in (("step", step), ("exp_avg", parameter), ("exp_avg_sq", parameter)):
            tensor = tensors.get(f"optimizer.{k}.{key}")
            if tensor is None:
                continue
            if tensor.shape != like.shape or tensor.dtype != like.dtype:
                raise ValueError(f"optimizer.{k}.{key}: unexpected {tensor.dtype} of shape {tuple(tensor.shape)}")
            if key == "step" and not (tensor >= 1 and tensor == tensor.round() and tensor.isfinite()):
                raise ValueError(f"optimizer.{k}.{key}: unexpected value {tensor.item()}")
            state[k][key] = tensor.clone()
    found = sum(map(len, state.values()))
    # A parameter of a network of one's own may have no influence; then it has no moments.
    complete = all(len(moments) == 3 for moments in state.values()) if own else found in (0, 3 * len(parameters))
    if not complete or found != sum(name.startswith("optimizer.") for name in tensors):
        raise ValueError("the optimiser's state does not fit the network")
    return dict(state)


def read_groups(optimizer: Optimizer, saved: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The optimiser's own groups, with the saved learning rates and betas, which the schedule changes."""
    groups: list[dict[str, Any]] = optimizer.state_dict()["param_groups"]
    for group, found in zip(groups, saved, strict=True):
        (group["lr"],), group["betas"] = _numbers([found["lr"]]), tuple(_numbers(list(found["betas"])))
        peak = max(1.0, group.get("max_lr", group["initial_lr"]))  # the learning rate of delays may exceed 1
        if not 0 <= group["lr"] <= peak or len(group["betas"]) != 2 or not all(0 <= x < 1 for x in group["betas"]):
            raise ValueError(f"the optimiser cannot have learning rate {group['lr']} and betas {group['betas']}")
    return groups
