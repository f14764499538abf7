"""Standardises the targets of a training, and lets the network answer in their unit at its end.

A network learns targets of mean 0 and deviation 1. At the end its last linear map takes in mean and deviation, so that
the network answers in the targets' unit wherever it is exported to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..data import LabelledEvents, LabelledSequences, Samples
from ..data.dataset import of_every_step
from ..layers import LinearReadout, Standardise

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


class LastMap(NamedTuple):
    """The linear map that ends a network, and the skip connection beside it, if there is one."""

    linear: nn.Linear
    skip: nn.Linear | None

    @torch.no_grad()
    def scale(self, factor: Tensor, shift: Tensor) -> None:
        """Let the network answer ``factor * output + shift``; both are (C,)."""
        factor, shift = factor.to(self.linear.weight), shift.to(self.linear.weight)
        for module in self:
            if module is not None:
                module.weight.copy_(module.weight * factor[:, None])
        self.linear.bias.copy_(self.linear.bias * factor + shift)

    def take_in(self, scale: Standardise) -> None:
        """Let a network that answers standardised targets answer them in their unit."""
        self.scale(scale.deviation, scale.mean)

    def take_out(self, scale: Standardise) -> None:
        """The inverse of ``take_in``."""
        self.scale(1 / scale.deviation, -scale.mean / scale.deviation)


def last_map(model: nn.Module, values: int, outputs: Callable[[], Tensor]) -> LastMap | None:
    """The map whose numbers scale and shift a network's outputs; None if there is none.

    ``outputs`` runs the network on some samples. Each candidate is tried, and keeps its weights.
    """
    skips = {x.linear: x.skip for x in model.modules() if isinstance(x, LinearReadout)}
    before = outputs()
    for linear in reversed([x for x in model.modules() if type(x) is nn.Linear and x.bias is not None]):
        if linear.out_features != values or not linear.weight.is_floating_point():
            continue
        found = LastMap(linear, skips.get(linear))
        kept = [[x.detach().clone() for x in module.parameters()] for module in found if module is not None]
        found.scale(torch.full((values,), -2.0), torch.ones(values))
        after = outputs()
        with torch.no_grad():
            for module, weights in zip((x for x in found if x is not None), kept, strict=True):
                for x, weight in zip(module.parameters(), weights, strict=True):
                    x.copy_(weight)
        if torch.allclose(after, 1.0 - 2.0 * before, rtol=1e-4, atol=1e-4 * (1 + float(before.abs().max()))):
            return found
    return None


def has_learnt(outputs: Tensor, targets: Tensor, scale: Standardise) -> bool:
    """Whether outputs (A, C) tell the targets (A, C) better than their mean does."""
    errors = (outputs - targets) / scale.deviation.to(outputs)
    return float(errors.square().mean()) < LEARNT


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
