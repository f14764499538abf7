"""``Call``, a call of a layer as ``srcell.record`` gets it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor

from .._shared.state import AnyState
from ..events import EventBatch


class Call(NamedTuple):
    r"""A call of a layer, as a recorder gets it: the spikes (T, B, \*F), the states (1, B, \*F), step by step, and the
    input (T, B, ...) with its place in the graph of autograd.
    """

    spikes: Tensor
    states: Callable[[], Iterator[AnyState]]
    input: Tensor | EventBatch
