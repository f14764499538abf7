"""Optimiser, schedules of the learning rates and of the width of delays, and the penalty on firing rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from .._shared.arguments import as_float
from .._shared.parameters import RESONANCE
from .._shared.processes import Processes
from ..layers import SRC, Delay
from ..layers.base import Neurons
from .config import TrainingConfig


def make_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW of ``parameter_groups``."""
    groups = parameter_groups(
        model,
        config.learning_rate,
        weight_decay=config.weight_decay,
        time_constant_rate=config.time_constant_rate,
        delay_rate=config.delay_learning_rate,
    )
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    *,
    weight_decay: float = 0.0,
    time_constant_rate: float = 0.03,
    delay_rate: float = 0.3,
) -> list[dict[str, Any]]:
    """The parameters of a model in groups for an optimiser of ``torch.optim``, each with its rate and weight decay.

    Weight matrices decay; biases and all others do not. Learnt ``alpha`` and ``omega`` of SRC layers, numbers between
    0 and 1 or pi, get a part of the learning rate: a step of 0.01 makes a time constant of 100 steps infinite, and the
    gradient of a long sequence with it. Learnt delays, which are numbers of steps, get a rate of their own. A bound on
    the norm of the gradients is best taken over the first two groups alone; the others follow, if the model has them.

    Args:
        model: any module.
        learning_rate: of weights and biases.
        weight_decay: of weight matrices.
        time_constant_rate: the part of ``learning_rate`` that alpha and omega get; with 1 they are no group of their
            own.
        delay_rate: learning rate of the delays, in steps.

    Raises:
        TypeError, ValueError: ``model`` is no module, or a rate is not above 0.

    Example:
        >>> import torch, srcell
        >>> layer = srcell.SRC.for_sequences(8, 64, learnable=["alpha", "omega"])
        >>> groups = parameter_groups(layer, 1e-2)
        >>> [(len(group["params"]), group["lr"]) for group in groups]
        [(2, 0.01), (1, 0.01), (2, 0.0003)]
        >>> optimizer = torch.optim.AdamW(groups)

    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {type(model).__name__}")
    given = {"learning_rate": learning_rate, "time_constant_rate": time_constant_rate, "delay_rate": delay_rate}
    for name, rate in given.items():
        if not as_float(name, rate) > 0:
            raise ValueError(f"{name}: expected a rate above 0, got {rate}")
    delays, constants = learnt_delays(model), learnt_time_constants(model) if time_constant_rate != 1 else []
    of_their_own = {id(x) for x in (*delays, *constants)}
    parameters = [x for x in model.parameters() if x.requires_grad and id(x) not in of_their_own]
    groups: list[dict[str, Any]] = [
        {"params": [x for x in parameters if x.dim() > 1], "lr": learning_rate, "weight_decay": weight_decay},
        {"params": [x for x in parameters if x.dim() <= 1], "lr": learning_rate, "weight_decay": 0.0},
    ]
    for found, rate in ((constants, time_constant_rate * learning_rate), (delays, delay_rate)):
        if learnt := [x for x in found if x.requires_grad]:
            groups.append({"params": learnt, "lr": rate, "weight_decay": 0.0})
    return groups


def learnt_time_constants(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of SRC layers that decide how long they remember, and how fast they turn: alpha and omega."""
    layers = (module for module in model.modules() if isinstance(module, Neurons))
    named = ((name, x) for layer in layers for name, x in layer.named_parameters(recurse=False))
    found = (x for name, x in named if name.partition("_l")[0] in ("alpha", RESONANCE))
    return list({id(x): x for x in found}.values())  # layers may share them


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
