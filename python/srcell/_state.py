"""``SRCState`` and the other states: the tensors i, h and hs of a layer, and what some layers have beside them.

Layers, functions and the reference share them.
"""

from __future__ import annotations

from collections.abc import Callable
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


@of_tensors
class DelayedState(NamedTuple):
    r"""The state of neurons whose recurrent weights have delays: an :class:`SRCState` and what is on its way."""

    i: Tensor
    """The leaky input integrator."""
    h: Tensor
    """The fast state, the "membrane", near 1 in a spike."""
    hs: Tensor
    """The slow state, which ends the spike and sets the refractory time."""
    past: Tensor
    r"""The spikes of D = max_delay + delay_width steps, those before the last one, earliest first, (B, D, \*F)."""

    def detach(self) -> DelayedState:
        """The same state, through which no gradient flows further back: for truncated backpropagation through time."""
        return DelayedState(*(x.detach() for x in self))

    def to(self, *args: Any, **kwargs: Any) -> DelayedState:
        """Each tensor's ``to``: another device, another dtype."""
        return DelayedState(*(x.to(*args, **kwargs) for x in self))


@of_tensors
class DelayedResonantState(NamedTuple):
    """The state of resonant neurons whose recurrent weights have delays; see :class:`DelayedState`."""

    i: Tensor
    """The integrator, real part: the part that drives the neuron."""
    h: Tensor
    """The fast state, the "membrane", near 1 in a spike."""
    hs: Tensor
    """The slow state, which ends the spike and sets the refractory time."""
    q: Tensor
    """The integrator, imaginary part."""
    past: Tensor
    r"""The spikes of D = max_delay + delay_width steps, those before the last one, earliest first, (B, D, \*F)."""

    def detach(self) -> DelayedResonantState:
        """The same state, through which no gradient flows further back: for truncated backpropagation through time."""
        return DelayedResonantState(*(x.detach() for x in self))

    def to(self, *args: Any, **kwargs: Any) -> DelayedResonantState:
        """Each tensor's ``to``: another device, another dtype."""
        return DelayedResonantState(*(x.to(*args, **kwargs) for x in self))


AnyState = SRCState | ResonantState | DelayedState | DelayedResonantState


def state_type(resonant: bool, delayed: bool) -> Callable[..., AnyState]:
    """The type of a layer's states."""
    if delayed:
        return DelayedResonantState if resonant else DelayedState
    return ResonantState if resonant else SRCState
