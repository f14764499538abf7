"""``Call``, a call of a layer as ``srcell.record`` gets it, and the states that it went through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._state import AnyState, state_type
from ..events import EventBatch
from ..functional import src
from ..functional.layer import State


class Call(NamedTuple):
    r"""A call of a layer, as a recorder gets it: the spikes (T, B, \*F), the states (1, B, \*F), step by step, and the
    input (T, B, ...) with its place in the graph of autograd.
    """

    spikes: Tensor
    states: Callable[[], Iterator[AnyState]]
    input: Tensor | EventBatch


def states_of_steps(
    currents: Callable[[], Tensor],
    state: State | None,
    lengths: Tensor | Sequence[int] | None,
    arguments: Mapping[str, Any],
    resonant: bool,
) -> Iterator[AnyState]:
    r"""Yield the state after each step of a call of :func:`srcell.functional.src` with these currents and arguments.

    Its tensors are (1, B, \*F); a call without steps yields one state, (0, B, \*F). What is on its way through delayed
    weights is not in it: it follows from the spikes.
    """
    recorded = state_type(resonant, False)
    ends = None if lengths is None else torch.as_tensor(lengths)
    for t, now in enumerate(currents().split(1)):
        left = None if ends is None else (ends > t).long()
        _, state = src(now, state=state, lengths=left, **arguments)
        own = state[: len(recorded._fields)]
        yield recorded(*(x.expand(len(now), *state.h.shape) for x in own))
