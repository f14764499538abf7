"""``SRCState``: the tensors i, h and hs of a layer, shared by layers, functions and the reference."""

from __future__ import annotations

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
