"""``Call``, a call of a layer as ``srcell.record`` gets it, and the states between its steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
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


# The states that are held at a time: of this many steps, unless they have more elements.
MOST_STEPS, MOST_ELEMENTS = 256, 2**22


def each_state(
    run: Callable[[Tensor, Any, Tensor | None], Any], input: Tensor, state: Any, lengths: Tensor | None, kind: Any
) -> Iterator[Any]:
    r"""Yield the state after each step of an input (T, B, ...), with the tensors of ``kind``, (1, B, \*F) each.

    ``run(input, state, lengths)`` returns the state after a sequence. Steps are taken in segments: first each segment
    in one call, for the state before it, then the first steps of all segments as one batch, and so on: 256 steps take
    32 calls. Without steps it yields one state, (0, B, \*F).
    """
    state = run(input[:0], state, None)  # the given one, with all of its tensors
    if not len(input):
        yield _of(kind, (x[None][:0] for x in state))
        return
    held = min(MOST_STEPS, len(input), max(MOST_ELEMENTS // max(sum(x.numel() for x in state), 1), 1))
    size, batch = math.isqrt(held), input.shape[1]
    for begin in range(0, len(input), size * size):
        segments = input[begin : begin + size * size].split(size)
        left = None if lengths is None else torch.stack([lengths - t for t in range(begin, begin + size * size, size)])
        before = []
        for k, segment in enumerate(segments):
            before.append(state)
            state = run(segment, state, None if left is None else left[k].clamp(0, len(segment)))
        now = type(state)(*(torch.cat(x) for x in zip(*before, strict=True)))
        missing = input.new_zeros(size * len(segments) - sum(map(len, segments)), *input.shape[1:])
        steps = torch.cat([*segments, missing]).unflatten(0, (len(segments), size)).transpose(0, 1).flatten(1, 2)
        after = []
        for j in range(size):
            now = run(steps[j : j + 1], now, None if left is None else (left[: len(segments)] > j).flatten().long())
            after.append(now[: len(kind._fields)])
        for k, segment in enumerate(segments):
            for j in range(len(segment)):
                yield _of(kind, (x[None, k * batch : (k + 1) * batch] for x in after[j]))


def _of(kind: Any, tensors: Iterable[Tensor]) -> Any:
    return kind(*(x for x, _ in zip(tensors, kind._fields, strict=False)))
