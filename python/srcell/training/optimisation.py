"""Optimiser, learning-rate schedule and the penalty on firing rates."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from .._processes import Processes
from .config import TrainingConfig


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, with weight decay on the weight matrices only."""
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in model.parameters() if parameter.dim() <= 1]
    groups = [{"params": weights, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def make_schedule(config: TrainingConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The learning-rate schedule over a number of optimiser steps."""
    if config.schedule == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    return OneCycleLR(optimizer, config.learning_rate, total_steps=steps + 1)


def rate_pull(spikes: Sequence[Tensor], target: float, samples: int, group: Processes) -> Tensor:
    """A scalar whose gradient, averaged over the processes, is that of the rate penalty; its value has no meaning.

    The penalty is the sum over layers of the mean squared distance between the neurons' mean outputs and the target.

    Args:
        spikes: this process's spikes of each hidden layer, (T, B, N) each.
        target: target of the mean output per neuron and step.
        samples: number of samples of the batch, in all processes.
        group: the processes that share the batch.

    """
    pulls = []
    for layer in spikes:
        (steps,) = group.max(layer.shape[0])
        sums = layer.sum((0, 1))
        mean = group.sum(sums.detach().clone()) / (steps * samples)
        pulls.append((2 * (mean - target) * sums).mean() / (steps * samples))
    return group.size * torch.stack(pulls).sum() if pulls else torch.zeros(())
