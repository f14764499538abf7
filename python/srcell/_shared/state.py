"""``SRCState`` and the other states: the tensors i, h and hs of a layer, and what some layers have beside them.

Layers, functions and the reference share them. torch 2.4 compiles no tuple whose length varies, so each set of tensors
has a named tuple of its own.
"""

from __future__ import annotations

from collections import namedtuple
from typing import Any, NamedTuple

from torch import Tensor

from .pytree import of_tensors


@of_tensors
class SRCState(NamedTuple):
    r"""The state of SRC neurons after a step: three tensors of one shape, (B, \*F)."""

    i: Tensor
    """The leaky input integrator; of resonant neurons its real part, the part that drives the neuron."""
    h: Tensor
    """The fast state, the "membrane", near 1 in a spike."""
    hs: Tensor
    """The slow state, which ends the spike and sets the refractory time."""

    def detach(self) -> SRCState:
        """Return the state cut off from its gradient history, for truncated backpropagation through time."""
        return type(self)(*(x.detach() for x in self))

    def to(self, *args: Any, **kwargs: Any) -> SRCState:
        """Call each tensor's ``to``: move the state to another device or dtype.

        Example:
            >>> import torch
            >>> from srcell import rest_state
            >>> rest_state(-6.0).to(torch.float64).h.dtype
            torch.float64

        """
        return type(self)(*(x.to(*args, **kwargs) for x in self))


def _with(name: str, summary: str, **more: str) -> Any:
    """A class of states that have further tensors, of which ``more`` has the descriptions."""
    make: Any = namedtuple  # whose types type checkers would want to know
    made = make(name, (*SRCState._fields, *more))
    made.__doc__, made.detach, made.to = summary, SRCState.detach, SRCState.to
    for field, text in more.items():
        getattr(made, field).__doc__ = text
    return of_tensors(made)


_Q = {"q": "The integrator's imaginary part."}
_PAST = {"past": r"The spikes of D = max_delay + delay_width steps before the last one, earliest first, (B, D, \*F)."}
ResonantState = _with("ResonantState", "The state of resonant neurons: an :class:`SRCState` and q.", **_Q)
DelayedState = _with(
    "DelayedState",
    "The state of neurons whose recurrent weights have delays: an :class:`SRCState` and what is on its way.",
    **_PAST,
)
DelayedResonantState = _with(
    "DelayedResonantState", "The state of resonant neurons with delays; see :class:`DelayedState`.", **_Q, **_PAST
)
# By whether neurons resonate, and whether recurrent weights have delays.
TYPES: dict[tuple[bool, bool], Any] = {
    (False, False): SRCState,
    (True, False): ResonantState,
    (False, True): DelayedState,
    (True, True): DelayedResonantState,
}
AnyState = SRCState  # to type checkers: whichever state a layer has


def state_type(resonant: bool, delayed: bool) -> type[AnyState]:
    """The type of a layer's states."""
    made: type[AnyState] = TYPES[resonant, delayed]
    return made
