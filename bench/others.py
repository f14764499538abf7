"""Rows of other spiking libraries for the cases of ``srcell bench``: SpikingJelly, snnTorch and Norse, where installed.

Importing this module adds them; the process of each setting imports it too.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import metadata
from typing import Any

import torch
from torch import Tensor, nn

from srcell.benchmark import LABELS, Workload
from srcell.benchmark.rows import NEURONS, STEPS, Neuron, UnavailableError

PACKAGES = ("spikingjelly", "snntorch", "norse")


def package(package: str, module: str) -> Any:
    """Import a library's module; raise UnavailableError with the reason if that fails."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnavailableError(f"{package} is not installed: {error}") from None


def spikingjelly(setting: Workload) -> Neuron:
    """SpikingJelly's leaky integrate-and-fire neuron."""
    neurons = package("SpikingJelly", "spikingjelly.activation_based.neuron")
    lif = neurons.LIFNode(step_mode="m")

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        lif.reset()
        spikes: Tensor = lif(current)
        return spikes

    return neuron


def snntorch(setting: Workload) -> Neuron:
    """snnTorch's leaky integrate-and-fire neuron, in a Python loop over steps."""
    lif = package("snnTorch", "snntorch").Leaky(beta=0.9)

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        membrane = torch.zeros_like(current[0])
        spikes = []
        for now in current.unbind(0):
            spike, membrane = lif(now, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return neuron


def norse(setting: Workload) -> Neuron:
    """Norse's leaky integrate-and-fire neuron."""
    lif = package("Norse", "norse.torch").LIF()

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        spikes: Tensor = lif(current)[0]
        return spikes

    return neuron


def snntorch_step(setting: Workload, x: Tensor) -> tuple[Callable[[], Tensor], Sequence[Tensor]]:
    """One step of a linear layer and snnTorch's neuron."""
    linear = nn.Linear(setting.inputs, *setting.neurons)
    lif = package("snnTorch", "snntorch").Leaky(beta=0.9)
    membrane = torch.zeros(setting.batch, *setting.neurons)
    return lambda: lif(linear(x), membrane)[0], list(linear.parameters())


def norse_step(setting: Workload, x: Tensor) -> tuple[Callable[[], Tensor], Sequence[Tensor]]:
    """One step of a linear layer and Norse's neuron."""
    linear = nn.Linear(setting.inputs, *setting.neurons)
    cell = package("Norse", "norse.torch").LIFCell()
    state = cell(linear(x))[1]
    return lambda: cell(linear(x), state)[0], list(linear.parameters())


def with_others(settings: Sequence[Workload]) -> list[Workload]:
    """The settings, with rows of these libraries added where their neurons do comparable work."""
    added = {("784-100", "layer", 1): PACKAGES, ("calls", "step", 1): ("snntorch", "norse")}
    return [replace(s, rows=(*s.rows, *added.get((s.case, s.subject, len(s.neurons)), ()))) for s in settings]


def versions() -> dict[str, str]:
    """The versions of those libraries that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


NEURONS.update(spikingjelly=spikingjelly, snntorch=snntorch, norse=norse)
STEPS.update(snntorch=snntorch_step, norse=norse_step)
LABELS.update(
    spikingjelly="SpikingJelly LIF (another neuron)",
    snntorch="snnTorch LIF (another neuron)",
    norse="Norse LIF (another neuron)",
)
