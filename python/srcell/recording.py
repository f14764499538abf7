"""``record``: records the spikes of every layer of a model and, on demand, i, h and hs at every step.

While a recording is open, layers pass their calls to it. A recording must never change what layers compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ._shared.state import AnyState, SRCState
from .layers import IntegerSRC
from .layers.base import Neurons
from .layers.recorded import Call


class Recorded:
    """The recorded calls of a layer, joined in time.

    Attributes:
        module: the module that holds the layer.
        number: number of the layer in it, from 0 on.
        calls: the calls; their inputs are kept, not copied.

    """

    def __init__(self, module: Neurons | IntegerSRC, number: int) -> None:
        self.module, self.number = module, number
        self.calls: list[Call] = []

    @property
    def spikes(self) -> Tensor:
        r"""The output, (T, B, \*F); T counts the steps of all calls.

        Raises:
            ValueError: no call was recorded, or the calls differ in the shape of their batches.

        """
        return _joined([call.spikes for call in self.calls])

    @torch.no_grad()
    def trace(self) -> AnyState:
        r"""Recompute the state step by step: i, h, hs and, of resonant neurons, q after each step, (T, B, \*F) each.

        The parameters must not have changed since the calls.

        Raises:
            ValueError: as for ``spikes``.

        """
        states = [state for call in self.calls for state in call.states()]
        kind = type(states[0]) if states else SRCState
        return kind(*(_joined([getattr(state, name) for state in states]) for name in kind._fields))


class Recording(dict[str, Recorded]):
    """The recorded layers by name, as in the model; the layers inside a stacked module are ``name.l0`` and so on."""

    def __missing__(self, name: str) -> Recorded:
        raise KeyError(f"{name!r}: expected one of {', '.join(map(repr, self)) or 'no layer'}")


@contextmanager
def record(model: nn.Module) -> Iterator[Recording]:
    """Record the calls of a model's SRC layers while the block runs.

    Recording changes no bit of the layers' results, and costs nothing outside the block.

    Args:
        model: a layer, or a module that contains layers. If it is a layer itself, the name of that layer is the name of
            its class in lower case.

    Raises:
        TypeError: ``model`` is not a module.
        ValueError: ``model`` has no SRC layer, or a layer is already being recorded.

    Example:
        >>> import torch, srcell
        >>> from srcell.models import SRCClassifier
        >>> model = SRCClassifier(20, [12], num_classes=2)
        >>> with srcell.record(model) as recording:
        ...     logits = model(torch.rand(50, 3, 20).lt(0.2).float())
        >>> {name: tuple(layer.spikes.shape) for name, layer in recording.items()}
        {'layers.0': (50, 3, 12), 'layers.1': (50, 3, 20)}
        >>> recording["layers.0"].trace().h.shape
        torch.Size([50, 3, 12])

    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model: expected a module, got {type(model).__name__}")
    layers = recorded_modules(model)
    if not layers:
        raise ValueError(f"model: expected SRC layers in it, got none in {type(model).__name__}")
    if any(layer.recorder is not None for layer in layers.values()):
        raise ValueError("model: expected layers that are not being recorded, got some in another recording")
    recording = Recording()
    try:
        for name, layer in layers.items():
            layer.recorder = _Adder(recording, name, layer)
        yield recording
    finally:
        for layer in layers.values():
            layer.recorder = None


def recorded_modules(model: nn.Module) -> dict[str, Neurons | IntegerSRC]:
    """The modules that a recording of the model has, by the name that begins the names of their layers."""
    return {
        name or type(module).__name__.lower(): module
        for name, module in model.named_modules()
        if isinstance(module, Neurons | IntegerSRC)
    }


@contextmanager
def outputs_of(model: nn.Module) -> Iterator[dict[nn.Module, list[Tensor]]]:
    """Keep the spikes that each module of SRC layers returns in the block, in the graph of autograd."""
    found: dict[nn.Module, list[Tensor]] = {}

    def keep(module: nn.Module, _: Any, output: tuple[Tensor, Any]) -> None:
        found.setdefault(module, []).append(output[0])

    with ExitStack() as hooks:
        for module in recorded_modules(model).values():
            hooks.enter_context(module.register_forward_hook(keep))
        yield found


class _Adder:
    """Adds the calls of one module to a recording. A copy of the module, in memory or in a file, is not recorded."""

    def __init__(self, recording: Recording, name: str, module: Neurons | IntegerSRC) -> None:
        self.recording, self.name, self.module = recording, name, module

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()

    def __call__(self, suffix: str, call: Call) -> None:
        name = f"{self.name}.{suffix.strip('_')}" if self.module.stacked else self.name
        number = int(suffix.removeprefix("_l") or 0)
        self.recording.setdefault(name, Recorded(self.module, number)).calls.append(call)


def _joined(parts: list[Tensor]) -> Tensor:
    if not parts:
        raise ValueError("expected a recorded call, got none")
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = ", ".join(str(tuple(part.shape[1:])) for part in parts)
        raise ValueError(f"expected recorded calls of one shape after the steps, got {shapes}")
    return torch.cat(parts)
