"""Fuzz targets on event batches and encoders.

As in ``op_targets``, a target returns whether its input was accepted; blank lines separate the drawing of the input,
the call, and the assertions.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuzz.draws import (
    FLOATS,
    Draw,
    altered,
    chance,
    floats,
    lengths_in,
    oddity,
    pick,
    relaid,
    repeated,
    size,
    spikes,
    spoil,
    wrong,
)
from fuzz.facts import attempt, contents, names_of, readable, target, tensors_in
from srcell import EventBatch, latency_encode, rate_encode

# Event batches


def event_parts(draw: Draw) -> dict[str, Any]:
    steps, batch, inputs = size(draw), size(draw), pick(draw, 3, 1, 5, 0, 300, 2**31)
    rows = batch * steps
    counts = [draw.randrange(3) if inputs and chance(draw, 50) else 0 for _ in range(rows)]
    lengths = None
    if chance(draw, 30):
        lengths = lengths_in(draw, steps, batch)
        counts = [n if k % steps < lengths[k // steps] else 0 for k, n in enumerate(counts)]
    events = sum(counts)
    offsets = torch.tensor([0, *np.cumsum(counts, dtype=np.int64).tolist()], dtype=torch.int64)
    indices = torch.tensor([draw.randrange(min(inputs, 2**31)) for _ in range(events)], dtype=torch.int32)
    values = floats(draw, events, dtype=pick(draw, *FLOATS)) if chance(draw, 50) else None
    parts: dict[str, Any] = {"offsets": offsets, "indices": indices, "values": values, "shape": (steps, batch, inputs)}
    parts["lengths"] = lengths
    for name, x in parts.items():
        if isinstance(x, Tensor):
            x = relaid(draw, x)
            parts[name] = x.numpy() if chance(draw, 30) and not x.is_neg() else x
    return parts


def spoil_parts(draw: Draw, parts: dict[str, Any]) -> None:
    name = pick(draw, *(name for name, x in parts.items() if x is not None))
    x = parts[name]
    if isinstance(x, (Tensor, np.ndarray)) and len(x) and chance(draw, 50):
        x = parts[name] = x.clone() if isinstance(x, Tensor) else x.copy()
        bound = 2**31 - 1 if name == "indices" else 2**63 - 1
        at = draw.randrange(len(x))
        x[at] = pick(draw, math.nan, 1e9) if name == "values" else pick(draw, 0, 1, -1, bound, -bound - 1)
    elif name == "shape" and chance(draw, 60):
        shape = list(x)
        shape[draw.randrange(3)] = pick(draw, 0, 1, -1, 2**31, 2**31 + 1, 2**62, 2**63 - 1, 2**63, 1.0, None)
        parts[name] = shape[: pick(draw, 3, 3, 2)]
    else:
        parts[name] = wrong(draw, torch.from_numpy(x) if isinstance(x, np.ndarray) and x.flags.writeable else x)


@target
def event_batch(draw: Draw) -> None:
    """EventBatch: its constructor, from_dense, from_events and pickling."""
    pick(draw, *[constructed_events] * 5, dense_events, timed_events, pickled_events)(draw)


def constructed_events(draw: Draw) -> None:
    parts = event_parts(draw)
    spoilt = chance(draw, 30)
    if spoilt:
        spoil_parts(draw, parts)
    given = tensors_in(parts)
    seen = contents(given)

    batch: EventBatch = attempt(EventBatch, parts, spoilt)

    if batch.device.type == "meta":
        return
    steps, samples, _ = batch.shape
    assert contents(given) == seen
    assert len(batch.offsets) == steps * samples + 1 and len(batch) == samples
    if max(batch.shape) > 10_000:
        assert repr(batch) and batch.nbytes >= 8 and batch.density >= 0 and batch == batch
        return
    dense = batch.to_dense(torch.float64)
    assert_comes_back(batch, dense)
    assert_selects(draw, batch, dense)
    if chance(draw, 25):
        misuse(draw, batch)


def assert_comes_back(batch: EventBatch, dense: Tensor) -> None:
    """Assert that round trips through dense, CSR, pickle and other forms give an equal batch."""
    assert dense.shape == batch.shape
    again = EventBatch.from_dense(dense, batch.lengths)
    assert torch.equal(again.to_dense(torch.float64), dense)
    for part in (pickle.loads(pickle.dumps(batch)), EventBatch.cat([batch]), batch[:], batch.to("cpu")):
        assert part == batch
    if dense.numel():
        csr = EventBatch.from_sparse_csr(batch.to_sparse_csr(torch.float64), shape=batch.shape, lengths=batch.lengths)
        assert torch.allclose(csr.to_dense(torch.float64), dense, rtol=1e-12, atol=1e-12)


def assert_selects(draw: Draw, batch: EventBatch, dense: Tensor) -> None:
    """Assert that selected samples and steps are those of the dense tensor."""
    steps, samples, _ = batch.shape
    if samples:
        assert EventBatch.cat(list(batch)).to_dense(torch.float64).equal(dense)
        chosen = [draw.randrange(-samples, samples) for _ in range(3)]
        assert batch[chosen].to_dense(torch.float64).equal(dense[:, chosen])
    assert batch.truncate(steps // 2).to_dense(torch.float64).equal(dense[: steps // 2])


def misuse(draw: Draw, batch: EventBatch) -> None:
    """Call a method of a valid batch with a wrong argument."""
    uses: tuple[Callable[[Any], Any], ...] = (
        *(lambda x: batch[x], batch.truncate, batch.to_dense, batch.to, EventBatch.cat),
        *(lambda x: EventBatch.cat([batch, x]), lambda x: EventBatch.cat([batch], steps=x)),
        lambda x: EventBatch.from_sparse_csr(x, shape=batch.shape),
        lambda x: EventBatch.from_sparse_csr(batch.to_sparse_csr(), shape=x),
    )
    use, x = pick(draw, *uses), oddity(draw) if chance(draw, 60) else altered(draw, batch.offsets)
    names = (
        "offsets",
        "indices",
        "values",
        "lengths",
        "shape",
        "csr",
        "steps",
        "batches",
        "samples",
        "dtype",
        "device",
    )

    attempt(lambda: use(x), {}, True, *names, "slice")


def dense_events(draw: Draw) -> None:
    dtype = pick(draw, torch.float32, torch.float64, torch.bool)
    x: Any = relaid(draw, spikes(draw, size(draw), size(draw), size(draw)).to(dtype))
    given = {"x": x.numpy() if chance(draw, 30) and not x.is_neg() else x}
    if chance(draw, 30):
        given["lengths"] = lengths_in(draw, *x.shape[:2])
    spoilt = spoil(draw, given, 30)

    batch = attempt(EventBatch.from_dense, given, spoilt)

    if given.get("lengths") is None and max(batch.shape) < 10_000:
        expected = torch.as_tensor(given["x"])
        assert torch.equal(batch.to_dense(torch.float64), expected.to(torch.float64))


def recording(draw: Draw) -> dict[str, Any]:
    """Arguments of from_events as numbers and lists, with indices or pixels."""
    events, inputs, top = draw.randrange(9), pick(draw, 6, 1, 300), pick(draw, 40, 0, 400)
    times = sorted(draw.randrange(top + 1) if chance(draw, 50) else top * draw.random() for _ in range(events))
    given: dict[str, Any] = {"times": [int(t) for t in times] if chance(draw, 50) else times}
    given["bin_width"] = pick(draw, 10, 1, 2.5, 1000)
    if chance(draw, 50):
        given |= {"indices": [draw.randrange(inputs) for _ in times], "inputs": inputs}
    else:
        given |= {"x": [draw.randrange(3) for _ in times], "y": [draw.randrange(2) for _ in times]}
        given["sensor_size"] = (2, 3)
        if chance(draw, 50):
            given["polarity"] = [chance(draw, 50) for _ in times]
    if chance(draw, 40):
        given |= {"steps": pick(draw, 9, 0, 1), "prefix": pick(draw, 3, 0), "count": pick(draw, "once", "all")}
    return given


def timed_events(draw: Draw) -> None:
    """A recording in tensors and arrays gives the batch of lists. For these test_event_recordings.py holds the
    definition.
    """
    plain = recording(draw)
    given = dict(plain)
    for name, x in plain.items():
        if isinstance(x, list) and x and chance(draw, 40):
            narrow = pick(draw, torch.int64, torch.int32, torch.int16)
            tensor = torch.from_numpy(np.array(x))  # int64, float64 or bool
            tensor = tensor.to(narrow) if tensor.dtype == torch.int64 else tensor
            given[name] = tensor.numpy() if chance(draw, 50) else tensor
    spoilt = spoil(draw, given, 35)

    batch = attempt(EventBatch.from_events, given, spoilt)

    EventBatch(batch.offsets, batch.indices, shape=batch.shape)
    if not spoilt:
        assert batch == EventBatch.from_events(**plain)


def pickled_events(draw: Draw) -> None:
    """A pickled batch, perhaps with an altered state: unpickling must validate it."""
    parts = event_parts(draw)
    spoilt, other = chance(draw, 35), chance(draw, 10)
    if spoilt:
        spoil_parts(draw, parts)
    if other:
        parts[pick(draw, "other", "shape")] = None
    state = pickle.loads(pickle.dumps(parts)) if all(readable(x) for x in tensors_in(parts)) else parts
    batch = EventBatch.__new__(EventBatch)

    attempt(batch.__setstate__, {"state": state}, spoilt or other, *names_of(EventBatch), "EventBatch")


# Encoders


def pixels(draw: Draw, samples: int) -> Tensor:
    """Images with many pixels of 0 and some of 1, and sometimes an invalid pixel."""
    shape = (samples, *(size(draw) for _ in range(pick(draw, 1, 1, 2, 3))))
    images = floats(draw, *shape, dtype=pick(draw, torch.float32, torch.float64, torch.float16)).sigmoid()
    images = torch.where(floats(draw, *shape) > 0.5, 0, images) if chance(draw, 50) else images.round()
    if images.numel() and chance(draw, 10):
        images.view(-1)[draw.randrange(images.numel())] = pick(draw, math.nan, -1e-6, 1.001, math.inf)
    return repeated(draw, relaid(draw, images))


@target
def encoders(draw: Draw) -> None:
    """rate_encode and latency_encode give the events of the same images in contiguous memory. For these
    test_encoders.py holds the definition.
    """
    encode, samples = pick(draw, rate_encode, latency_encode), size(draw)
    x = pixels(draw, samples)
    fit = bool(((x >= 0) & (x <= 1)).all())
    given: dict[str, Any] = {"images": x.numpy() if chance(draw, 25) and not x.is_neg() else x}
    given |= {"steps": pick(draw, 5, 1, 33, 70), "prefix": pick(draw, 2, 0)}
    if encode is rate_encode:
        given |= {"seed": draw.getrandbits(64), "gain": pick(draw, 0.25, 1.0, 0.0, 7.5, 1e300, 1e-300)}
        if chance(draw, 50):
            given["index"] = [pick(draw, 0, 5, 2**31, 2**63 - 1) for _ in range(samples)]
    spoilt = spoil(draw, given, 35)
    seen = contents(tensors_in(given))

    batch = attempt(encode, given, spoilt or not fit)

    assert contents(tensors_in(given)) == seen
    EventBatch(batch.offsets, batch.indices, shape=batch.shape)  # the constructor accepts it
    images = given["images"]
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images.astype(np.float32))
    plain = images.resolve_neg().flatten(1).float().clone(memory_format=torch.contiguous_format)
    assert batch.shape == (given["prefix"] + given["steps"], *plain.shape)
    assert batch == encode(**given | {"images": plain})
