"""Optimiser, schedules of the learning rates and of the width of delays, and the penalty on firing rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from .._shared.processes import Processes
from ..layers import SRC, Delay
from .config import TrainingConfig


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, with weight decay on the weight matrices only; learnt delays have a learning rate of their own."""
    delays = learnt_delays(model)
    delayed = {id(delay) for delay in delays}
    parameters = [x for x in model.parameters() if x.requires_grad and id(x) not in delayed]
    groups: list[dict[str, Any]] = [
        {"params": [parameter for parameter in parameters if parameter.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in parameters if parameter.dim() <= 1], "weight_decay": 0.0},
    ]
    if delays := [x for x in delays if x.requires_grad]:
        groups.append({"params": delays, "weight_decay": 0.0, "lr": config.delay_learning_rate})
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learnt_delays(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of a network that are delays: of its inputs, then of recurrent weights."""
    of_inputs = [module.delay for module in model.modules() if isinstance(module, Delay)]
    layers = (module for module in model.modules() if isinstance(module, SRC))
    named = ((name, x) for layer in layers for name, x in layer.named_parameters(recurse=False))
    found = [*of_inputs, *(x for name, x in named if name.startswith("delay"))]
    return [x for x in found if isinstance(x, nn.Parameter)]


def make_schedule(config: TrainingConfig, optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """The schedule of all groups' learning rates over a number of optimiser steps."""
    if config.schedule == "constant":
        return LambdaLR(optimizer, lambda step: 1.0)
    return OneCycleLR(optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1)


def delay_width(config: TrainingConfig, epoch: int) -> int:
    """The half-width, in steps, of the interpolation of delays in an epoch; the first epoch is 1.

    It falls geometrically over the first half of the epochs, then stays at the last width, which the network is used
    with.

    Example:
        >>> config = TrainingConfig(epochs=6, input_delay=20, learn_delays=True, delay_width=(8, 1))
        >>> [delay_width(config, epoch) for epoch in (1, 2, 3, 4, 5, 6)]
        [8, 4, 2, 1, 1, 1]

    """
    first, last = config.delay_width[0], config.delay_width[-1]
    passed = min((epoch - 1) / ((config.epochs + 1) // 2), 1.0) if config.epochs > 1 else 1.0
    return round(math.pow(first, 1 - passed) * math.pow(last, passed))


def delays_are_fixed(config: TrainingConfig, epoch: int) -> bool:
    """Whether an epoch trains with learnt delays that are already whole: one of the last quarter, at least the last."""
    return config.learn_delays and config.whole_delays and epoch > config.epochs - max(config.epochs // 4, 1)


def rate_pull(spikes: Sequence[Tensor], target: float, samples: int, share: int, group: Processes) -> Tensor:
    """A scalar whose gradient, averaged over the processes, is that of the rate penalty; its value has no meaning.

    The penalty is the sum over layers of the mean squared distance between the neurons' mean outputs and the target.

    Args:
        spikes: this process's spikes of each hidden layer, (T, B, N) each.
        target: target of the mean output per neuron and step.
        samples: number of samples of the batch, in all processes.
        share: those of this process.
        group: the processes that share the batch.

    """
    pulls = []
    for layer in spikes:
        (steps,) = group.max(layer.shape[0])
        own = layer.shape[1] / share if share else 1.0  # a layer may be called on several samples for each of the batch
        count = steps * samples * own
        sums = layer.sum((0, 1))
        mean = group.sum(sums.detach().clone()) / count
        pulls.append((2 * (mean - target) * sums).mean() / count)
    return group.size * torch.stack(pulls).sum() if pulls else torch.zeros(())
