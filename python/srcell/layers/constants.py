"""``HasConstants``: a module whose constants are saved in its state_dict; ``check_size``: the check of sizes."""

from __future__ import annotations

import numbers
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.arguments import describe, has_memory
from ..ops._operator import NO_TORCHSCRIPT


def refuse_script(module: nn.Module) -> nn.Module:
    """Refuse ``torch.jit.script``, which calls this before it compiles a module."""
    raise RuntimeError(f"{type(module).__name__}: torch.jit.script {NO_TORCHSCRIPT}")


class HasConstants(nn.Module):
    """A module whose outputs depend on numbers that are not parameters: its constants.

    The state_dict holds them as one float64 tensor, ``_extra_state``, so that a checkpoint gives the same outputs
    wherever it is loaded. Its first element is a bit mask: bit k is set if the k-th constant has a tensor of its own in
    the state_dict. The constants follow in a fixed order, with 0 where the mask is set. A module takes over the
    constants that it loads, and warns if they differ from its own.
    """

    __prepare_scriptable__ = refuse_script

    @abstractmethod
    def _constants(self) -> dict[str, float | None]:
        """The constants by name, in a fixed order; None for one that has a tensor of its own."""

    @abstractmethod
    def _set_constants(self, constants: Mapping[str, float]) -> None:
        """Take over the constants that have no tensor of their own; raise ValueError for one out of range."""

    def get_extra_state(self) -> Tensor:
        """The constants as ``_extra_state``, float64 on the CPU."""
        numbers = list(self._constants().values())
        held = sum(2**k for k, number in enumerate(numbers) if number is None)
        return torch.tensor([held, *(number or 0.0 for number in numbers)], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the constants of a checkpoint.

        Raises:
            ValueError: the tensor does not hold the constants of such a module.

        """
        own, name = self._constants(), type(self).__name__
        shape = (1 + len(own),)
        if not isinstance(state, Tensor) or not state.is_floating_point() or state.shape != shape:
            got = f"{describe(state)} of shape {tuple(state.shape)}" if isinstance(state, Tensor) else describe(state)
            raise ValueError(f"_extra_state of {name}: expected floats of shape {shape}, got {got}")
        if not has_memory(state):  # on meta, like the parameters loaded with it
            return
        held, *numbers = state.tolist()
        if held != self.get_extra_state()[0]:
            raise ValueError(f"_extra_state of {name}: {_differences(own, held)}")
        carried = {key: number for key, number in zip(own, numbers, strict=True) if own[key] is not None}
        self._set_constants(carried)
        differing = {key: number for key, number in carried.items() if number != own[key]}
        changes = [f"{key}={number:.12g} instead of {own[key]:.12g}" for key, number in differing.items()]
        if changes:
            warnings.warn(f"{name}: took over from the checkpoint: {', '.join(changes)}", stacklevel=2)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        key = f"{prefix}_extra_state"
        others = (missing_keys, unexpected_keys, error_msgs)
        try:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *others)
        except ValueError as error:
            error_msgs.append(str(error))
        if key not in state_dict:
            missing_keys[:] = [name for name in missing_keys if name != key]
            if any(name.startswith(prefix) for name in state_dict):
                warnings.warn(
                    f"the state_dict has no constants (_extra_state): {type(self).__name__} keeps its own", stacklevel=2
                )


def _differences(own: Mapping[str, float | None], held: float) -> str:
    """List the constants that are a number in the module and a tensor in the checkpoint (bit mask), or vice versa."""
    if held not in range(2 ** len(own)):
        return f"expected a bit mask of {len(own)} constants, got {held!r}"
    one, tensor = "one number", "a tensor (per neuron, or learnt)"
    found = []
    for k, (key, number) in enumerate(own.items()):
        here, there = (tensor if absent else one for absent in (number is None, int(held) >> k & 1))
        if here != there:
            found.append(f"{key}: expected {here}, as the module has, got {there} in the checkpoint")
    return "; ".join(found)


def check_size(name: str, size: int, least: int) -> None:
    """Raise unless a size is an int of at least ``least`` and below 2^63."""
    if isinstance(size, bool) or not isinstance(size, numbers.Integral):
        raise TypeError(f"{name}: expected an int, got {describe(size)}")
    if size < least:
        raise ValueError(f"{name}: expected at least {least}, got {size}")
    if size >= 2**63:
        raise ValueError(f"{name}: expected a size below 2^63, got {size}")
