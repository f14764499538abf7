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


def scale_of(samples: Samples) -> Standardise:
    """The mean and the deviation of each value of the targets, over the samples, or the steps that they have."""
    return Standardise.of(_by_step(samples), _lengths(samples))


def standardised(samples: Samples, scale: Standardise) -> Samples:
    """The samples with standardised targets."""
    made = cast(Tensor, scale(_by_step(samples))) if len(samples.labels) else samples.labels
    return samples._replace(labels=made.view_as(samples.labels))


def r2_of_mean(samples: Samples, scale: Standardise) -> float:
    """The R2 on these samples of the mean alone, as ``Evaluation.r2`` has it; NaN if it is not defined."""
    targets = _by_step(samples).flatten(0, 1).double()
    if (lengths := _lengths(samples)) is not None:
        inside = torch.arange(samples.labels.shape[1]) < lengths[:, None]
        targets = targets[inside.flatten()]
    spread = float((targets - targets.mean(0)).square().sum())
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

    def scales(self, factor: Tensor, shift: Tensor, before: Tensor, outputs: Callable[[], Tensor]) -> bool:
        """Whether other numbers scale and shift the outputs, which are ``before`` now; the numbers are kept."""
        kept = [[x.detach().clone() for x in module.parameters()] for module in self if module is not None]
        self.scale(factor, shift)
        after = outputs()
        with torch.no_grad():
            for module, weights in zip((x for x in self if x is not None), kept, strict=True):
                for x, weight in zip(module.parameters(), weights, strict=True):
                    x.copy_(weight)
        wanted = factor.to(before) * before + shift.to(before)
        share = 1e-4 if torch.finfo(before.dtype).eps < 1e-5 else 3e-2
        return torch.allclose(after, wanted, rtol=share, atol=share * (1e-3 + float(wanted.abs().max())))

    def take_in(self, scale: Standardise) -> None:
        """Let a network that answers standardised targets answer them in their unit."""
        self.scale(scale.deviation, scale.mean)

    def take_out(self, scale: Standardise) -> None:
        """The inverse of ``take_in``."""
        self.scale(1 / scale.deviation, -scale.mean / scale.deviation)


def last_map(model: nn.Module, scale: Standardise, outputs: Callable[[], Tensor]) -> LastMap | None:
    """The map whose numbers scale and shift a network's outputs; None if there is none.

    ``outputs`` runs the network on some samples. Each candidate is tried, with two scales, and keeps its weights.
    Parameters that are all 0 are noise meanwhile: what they hide now may grow in the training.
    """
    skips = {x.linear: x.skip for x in model.modules() if isinstance(x, LinearReadout)}
    values = scale.inputs
    silent = [x for x in model.parameters() if x.is_floating_point() and x.numel() and not x.any()]
    noise = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for x in silent:
                x.copy_(0.1 * torch.randn(x.shape, generator=noise))
        before = outputs()
        for linear in reversed([x for x in model.modules() if type(x) is nn.Linear and x.bias is not None]):
            if linear.out_features == values and linear.weight.is_floating_point():
                found = LastMap(linear, skips.get(linear))
                tried = (torch.full((values,), -2.0), torch.ones(values)), (scale.deviation, scale.mean)
                if all(found.scales(*numbers, before, outputs) for numbers in tried):
                    return found
    finally:
        with torch.no_grad():
            for x in silent:
                x.zero_()
    return None


def error_of(outputs: Tensor, targets: Tensor, scale: Standardise) -> tuple[float, float]:
    """The error of outputs (A, C), in units of the variance: as standardised answers, and as those in the unit."""
    mean, deviation = scale.mean.to(outputs), scale.deviation.to(outputs)
    wanted = (targets.to(outputs) - mean) / deviation
    given = (outputs - mean) / deviation
    return float((outputs - wanted).square().mean()), float((given - wanted).square().mean())


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
