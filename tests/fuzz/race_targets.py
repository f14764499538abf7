"""Fuzz target on memory that another thread changes: a call that reads events gives something, or a ValueError."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fuzz.draws import FLOATS, Draw, chance, floats, pick
from fuzz.file_targets import workspace
from srcell import EventBatch, IntegerSRC, integer_src_linear, runtime, src_linear
from srcell.models import SRCClassifier

CALLS = 10  # in each of which another thread writes


def an_event_batch(draw: Draw, inputs: int) -> EventBatch:
    """A batch of so many events that a call takes longer than a switch of threads."""
    steps, batch = pick(draw, 60, 7, 200), pick(draw, 3, 1, 20)
    dense = torch.rand(steps, batch, inputs, generator=torch.Generator().manual_seed(draw.getrandbits(31))) < 0.2
    lengths = torch.tensor([draw.randrange(steps + 1) for _ in range(batch)]) if chance(draw, 30) else None
    return EventBatch.from_dense(dense.to(pick(draw, *FLOATS)), lengths)


def call_on(draw: Draw, events: EventBatch) -> Callable[[], Any]:
    """A function of the batch, forwards and perhaps backwards."""
    inputs, neurons = events.shape[2], pick(draw, 20, 1, 150)
    threads, kind = pick(draw, 1, 2), pick(draw, "plain", "lateral", "integer", "runtime", "dense", "batch")
    torch.set_num_threads(threads)
    if kind == "runtime":
        path = workspace("race") / "net.srcell"
        SRCClassifier(inputs, [neurons], 2, neurons_per_class=3, lateral=chance(draw, 50)).export(path)
        network = runtime.load(path)
        return lambda: network.run(events, threads=threads)
    if kind == "dense":
        return lambda: events.to_dense()
    if kind == "batch":
        lengths = events.lengths
        return lambda: EventBatch(events.offsets, events.indices, shape=events.shape, lengths=lengths)
    if kind == "integer":
        weight = floats(draw, neurons, inputs, scale=300).to(torch.int16)
        layer = IntegerSRC(inputs, neurons)
        if chance(draw, 50):
            return lambda: integer_src_linear(events, weight)
        return lambda: layer(events)[0].sum().backward()
    weight = floats(draw, neurons, inputs).requires_grad_(chance(draw, 70))
    weight_hh = floats(draw, neurons, neurons).requires_grad_(chance(draw, 50)) if kind == "lateral" else None

    def layer_call() -> None:
        spikes, _ = src_linear(events, weight, -6.0, weight_hh=weight_hh)
        if spikes.requires_grad:
            spikes.sum().backward()

    return layer_call


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


def races(draw: Draw) -> bool:
    """Offsets, indices and lengths that another thread writes while layers, the runtime and batches read them."""
    events = an_event_batch(draw, pick(draw, 30, 1, 400))
    call = call_on(draw, events)
    arrays = [x.numpy() for x in (events.offsets, events.indices, events.lengths) if x is not None and x.numel()]
    threads = torch.get_num_threads()

    with written(draw, arrays):
        for _ in range(CALLS):
            with contextlib.suppress(ValueError, RuntimeError, IndexError):  # torch's own operators raise the latter
                call()
    torch.set_num_threads(threads)

    call()  # the values are those from before
    return True
