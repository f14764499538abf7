"""Fuzz target on memory that another thread changes: a call that reads events returns, or raises a ValueError."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuzz.draws import FLOATS, Draw
from srcell import EventBatch, IntegerSRC, integer_src_linear, src_linear
from srcell.models import SRCClassifier
from support.networks import exported

CALLS = 10  # calls during which another thread writes


def an_event_batch(draw: Draw, inputs: int) -> EventBatch:
    """A batch with so many events that a call takes longer than a switch of threads."""
    steps, batch = draw.pick(60, 7, 200), draw.pick(3, 1, 20)
    dense = draw.floats(steps, batch, inputs) > 0.84  # a fifth of the elements
    return EventBatch.from_dense(dense.to(draw.pick(*FLOATS)), draw.lengths(steps, batch) if draw.chance(30) else None)


def call_on(draw: Draw, events: EventBatch) -> Callable[[], Any]:
    """A function of the batch, forwards and perhaps backwards."""
    inputs, neurons, threads = events.shape[2], draw.pick(20, 1, 150), draw.pick(1, 2)
    torch.set_num_threads(threads)
    weight = draw.floats(neurons, inputs).requires_grad_(draw.chance(70))
    weight_hh = draw.floats(neurons, neurons).requires_grad_(draw.chance(50))
    integers, layer = (300 * weight.detach()).to(torch.int16), IntegerSRC(inputs, neurons)

    def on_the_runtime() -> Callable[[], Any]:
        options: dict[str, Any] = {"recurrent": draw.chance(50), "omega": 0.3 * draw.chance(50)}
        network = exported(SRCClassifier(inputs, [neurons], 2, neurons_per_class=3, **options))
        return lambda: network.run(events, threads=threads)

    def backwards(function: Callable[[], Any]) -> None:
        spikes, _ = function()
        if spikes.requires_grad:
            spikes.sum().backward()

    call: Callable[[], Any] = draw.pick(
        lambda: backwards(lambda: src_linear(events, weight, -6.0)),
        lambda: backwards(lambda: src_linear(events, weight, -6.0, weight_hh=weight_hh)),
        draw.pick(lambda: integer_src_linear(events, integers), lambda: backwards(lambda: layer(events))),
        events.to_dense,
        lambda: EventBatch(events.offsets, events.indices, shape=events.shape, lengths=events.lengths),
        None,
    )
    return call or on_the_runtime()


@contextlib.contextmanager
def written(draw: Draw, arrays: list[NDArray[Any]]) -> Iterator[None]:
    """Let another thread put wild values into the arrays and take them out again."""
    done, seed = threading.Event(), draw.getrandbits(31)

    def write() -> None:
        numbers = np.random.default_rng(seed)
        while not done.is_set():
            array = arrays[numbers.integers(len(arrays))]
            at, limits = numbers.integers(len(array), size=3), np.iinfo(array.dtype)
            before = array[at]
            array[at] = numbers.choice([limits.min, -1, 1 << 20, limits.max], 3)
            array[at] = before

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def races(draw: Draw) -> None:
    """Offsets, indices and lengths that another thread writes while layers, the runtime and batches read them."""
    events = an_event_batch(draw, draw.pick(30, 1, 400))
    call = call_on(draw, events)
    arrays = [x.numpy() for x in (events.offsets, events.indices, events.lengths) if x is not None and x.numel()]
    threads = torch.get_num_threads()

    with written(draw, arrays):
        for _ in range(CALLS):
            with contextlib.suppress(ValueError, RuntimeError, IndexError):  # torch's own operators raise the latter
                call()
    torch.set_num_threads(threads)

    call()  # the original values are restored
