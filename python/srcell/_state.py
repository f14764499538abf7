"""``SRCState``: the tensors i, h and hs of a layer, shared by layers, functions and the reference."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import Tensor

from ._pytree import of_tensors


@of_tensors
class SRCState(NamedTuple):
    r"""The state of SRC neurons after a step: three tensors of one shape, (B, \*F)."""

    i: Tensor
    """The leaky input integrator."""
    h: Tensor
    """The fast state, the "membrane", near 1 in a spike."""
    hs: Tensor
    """The slow state, which ends the spike and sets the refractory time."""

    def detach(self) -> SRCState:
        """Return the state cut off from its gradient history, for truncated backpropagation through time."""
        return SRCState(*(x.detach() for x in self))

    def to(self, *args: Any, **kwargs: Any) -> SRCState:
        """Call each tensor's ``to``: move the state to another device or dtype.

        Example:
            >>> import torch
            >>> from srcell import rest_state
            >>> rest_state(-6.0).to(torch.float64).h.dtype
            torch.float64

        """
        return SRCState(*(x.to(*args, **kwargs) for x in self))


@of_tensors
class ResonantState(NamedTuple):
    r"""The state of resonant neurons after a step, whose integrator is i + j q: four tensors of one shape, (B, \*F)."""

    i: Tensor
    """The integrator, real part: the part that drives the neuron."""
    h: Tensor
    """The fast state, the "membrane", near 1 in a spike."""
    hs: Tensor
    """The slow state, which ends the spike and sets the refractory time."""
    q: Tensor
    """The integrator, imaginary part."""

    def detach(self) -> ResonantState:
        """The same state, through which no gradient flows further back: for truncated backpropagation through time."""
        return ResonantState(*(x.detach() for x in self))

    def to(self, *args: Any, **kwargs: Any) -> ResonantState:
        """Each tensor's ``to``: another device, another dtype."""
        return ResonantState(*(x.to(*args, **kwargs) for x in self))


AnyState = SRCState | ResonantState


def state_of(tensors: Iterable[Tensor]) -> AnyState:
    """The state of three or four tensors."""
    parts = tuple(tensors)
    return SRCState(*parts) if len(parts) == len(SRCState._fields) else ResonantState(*parts)
