"""The rows of a layer whose recurrent weights have delays, in srcell and in plain PyTorch.

PyTorch keeps the spikes of the last steps in a history (D + 1, B, N). At each step every neuron's spikes are gathered
from the row of its delay, or picked row by row from a list; which is faster depends on D.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..reference import src_reference
from .cases import Workload

Scan = Callable[[Tensor, Tensor, Tensor], Tensor]


def drawn(setting: Workload, most: int, whole: bool) -> Tensor:
    """A delay for each neuron, in steps."""
    delays = most * torch.rand(setting.neurons[0])
    return delays.round() if whole else delays


def delays_of(setting: Workload, kind: str, most: str) -> dict[str, Any]:
    """The delays of a row such as "learnt-200", whose ``most`` is "200", as keywords of ``src_linear``."""
    if not most:
        return {}
    delays = drawn(setting, int(most), kind == "whole")
    return {"delay_hh": delays.requires_grad_(kind == "learnt"), "max_delay": int(most)}


def delayed_scan(setting: Workload, kind: str, most: int, compiler: Callable[[Any], Any], steps: int) -> Scan:
    """The scan of a row such as "compiled-200" in PyTorch."""
    if kind == "picked":
        return picked(setting, most)
    return gathered(setting, most, compiler if kind == "compiled" else lambda function: function, steps)


def gathered(setting: Workload, most: int, compiled: Callable[[Any], Any], steps: int) -> Scan:
    """A scan that gathers delayed spikes from a history, ``steps`` steps in each call of a ``compiled`` function."""
    rows = most - drawn(setting, most, whole=True).long()  # the last row holds the spikes of the step before

    def chunk(currents: Tensor, bias: Tensor, weight_hh: Tensor, history: Tensor, *state: Tensor) -> list[Tensor]:
        spikes, ended = [], state
        index = rows.expand(1, *currents.shape[1:])
        for current in currents.unbind():
            arrived = torch.addmm(current, history.gather(0, index)[0], weight_hh.t())
            made, after = src_reference(arrived[None], bias, ended, **setting.modes)
            history, ended = torch.cat((history[1:], torch.relu(after.h)[None])), tuple(after)
            spikes.append(made)
        return [torch.cat(spikes), history, *ended]

    run = compiled(chunk)

    def scan(currents: Tensor, bias: Tensor, weight_hh: Tensor) -> Tensor:
        zeros = torch.zeros_like(currents[0])
        state = [zeros.expand(most + 1, *zeros.shape).clone(), zeros, zeros, zeros]
        return in_chunks(run, currents, steps, (bias, weight_hh), state)

    return scan


def in_chunks(run: Any, currents: Tensor, steps: int, constants: Sequence[Tensor], state: Sequence[Tensor]) -> Tensor:
    """The spikes of a function of currents, constants and a state that returns spikes and the next state."""
    made = []
    for part in currents.split(steps):
        spikes, *state = run(part, *constants, *state)
        made.append(spikes)
    return torch.cat(made)


def picked(setting: Workload, most: int) -> Scan:
    """A scan that picks each neuron's delayed spikes from a list of the last steps' spikes (N, B)."""
    rows = (most - drawn(setting, most, whole=True).long()).tolist()

    def scan(currents: Tensor, bias: Tensor, weight_hh: Tensor) -> Tensor:
        zeros = torch.zeros_like(currents[0])
        history, spikes = [zeros.t()] * (most + 1), []
        state: tuple[Tensor, ...] = (zeros, zeros, zeros)
        for current in currents.unbind():
            delayed = torch.stack([history[row][n] for n, row in enumerate(rows)], 1)
            arrived = torch.addmm(current, delayed, weight_hh.t())
            made, after = src_reference(arrived[None], bias, state, **setting.modes)
            history, state = [*history[1:], torch.relu(after.h).t()], tuple(after)
            spikes.append(made)
        return torch.cat(spikes)

    return scan
