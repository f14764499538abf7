"""Standardises the targets of a training, and lets the network answer in their unit at its end.

A network learns targets of mean 0 and deviation 1. At the end its last linear map takes in mean and deviation, so that
the network answers in the targets' unit wherever it is exported to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ..data import LabelledEvents, LabelledSequences, Samples
from ..data.dataset import of_every_step
from ..layers import Standardise

LEARNT = 0.9  # of the targets' variance: a network with a smaller error has learnt them already


def scale_of(samples: Samples) -> Standardise:
    """The mean and the deviation of each value of the targets, over the samples, or the steps that they have."""
    return Standardise.of(_by_step(samples), _lengths(samples))


def standardised(samples: Samples, scale: Standardise) -> Samples:
    """The samples with standardised targets."""
    made = cast(Tensor, scale(_by_step(samples))) if len(samples.labels) else samples.labels
    return samples._replace(labels=made.view_as(samples.labels))


def r2_of_mean(samples: Samples, scale: Standardise) -> float:
    """The R2 on these samples of the mean alone, as ``Evaluation.r2`` has it; NaN if it is not defined."""
    own, targets = scale_of(samples), _by_step(samples).flatten(0, 1).double()
    if (lengths := _lengths(samples)) is not None:
        inside = torch.arange(samples.labels.shape[1]) < lengths[:, None]
        targets = targets[inside.flatten()]
    spread = float((targets - own.mean.double()).square().sum())
    return 1 - float((targets - scale.mean.double()).square().sum()) / spread if spread > 0 else math.nan


def last_linear(model: nn.Module, values: int, outputs: Callable[[], Tensor]) -> nn.Linear | None:
    """The ``nn.Linear`` whose weight and bias scale and shift a network's outputs; None if there is none.

    ``outputs`` runs the network on some samples. Each candidate is tried, and keeps its weights.
    """
    before = outputs()
    for linear in reversed([x for x in model.modules() if type(x) is nn.Linear and x.bias is not None]):
        if linear.out_features != values or not linear.weight.is_floating_point():
            continue
        kept = linear.weight.detach().clone(), linear.bias.detach().clone()
        _replace(linear, -2.0 * kept[0], 1.0 - 2.0 * kept[1])
        after = outputs()
        _replace(linear, *kept)
        if torch.allclose(after, 1.0 - 2.0 * before, rtol=1e-4, atol=1e-4 * (1 + float(before.abs().max()))):
            return linear
    return None


@torch.no_grad()
def take_in(linear: nn.Linear, scale: Standardise) -> None:
    """Let a network that answers standardised targets answer them in their unit."""
    mean, deviation = scale.mean.to(linear.weight), scale.deviation.to(linear.weight)
    _replace(linear, linear.weight * deviation[:, None], linear.bias * deviation + mean)


@torch.no_grad()
def take_out(linear: nn.Linear, scale: Standardise) -> None:
    """The inverse of ``take_in``."""
    mean, deviation = scale.mean.to(linear.weight), scale.deviation.to(linear.weight)
    _replace(linear, linear.weight / deviation[:, None], (linear.bias - mean) / deviation)


def has_learnt(outputs: Tensor, targets: Tensor, scale: Standardise) -> bool:
    """Whether outputs (A, C) tell the targets (A, C) better than their mean does."""
    errors = (outputs - targets) / scale.deviation.to(outputs)
    return float(errors.square().mean()) < LEARNT


def _replace(linear: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)


def _by_step(samples: Samples) -> Tensor:
    """The targets as (B, T, C), of whole samples with one step."""
    return samples.labels if of_every_step(samples.labels) else samples.labels[:, None]


def _lengths(samples: Samples) -> Tensor | None:
    """The number of steps that have a target, of each sample; None if all have."""
    if not of_every_step(samples.labels):
        return None
    if isinstance(samples, LabelledEvents):
        return samples.events.lengths
    return samples.lengths if isinstance(samples, LabelledSequences) else None
