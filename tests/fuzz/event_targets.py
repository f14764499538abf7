"""Fuzz targets on event batches and encoders.

As in ``op_targets``, a target returns whether its input was accepted; blank lines separate the drawing of the input,
the call, and the assertions.
"""

from __future__ import annotations

import math
import pickle
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
    oddity,
    pick,
    relaid,
    repeated,
    size,
    spikes,
    spoil,
    wrong,
)
from fuzz.facts import accepts, contents, readable, tensors_in
from srcell import EventBatch, latency_encode, rate_encode

OF_EVENTS = ("offsets", "indices", "values", "lengths", "shape", "csr", "x", "y", "polarity", "times", "bin_width")
OF_EVENTS += ("inputs", "sensor_size", "steps", "prefix", "count", "batches", "samples", "dtype", "device")

# Event batches


def event_parts(draw: Draw) -> dict[str, Any]:
    steps, batch, inputs = size(draw), size(draw), pick(draw, 3, 1, 5, 0, 300, 2**31)
    rows = batch * steps
    counts = [draw.randrange(3) if inputs and chance(draw, 50) else 0 for _ in range(rows)]
    lengths = None
    if chance(draw, 30):
        lengths = [draw.randrange(steps + 1) for _ in range(batch)]
        counts = [n if k % steps < lengths[k // steps] else 0 for k, n in enumerate(counts)]
    events = sum(counts)
    offsets = torch.tensor([0, *np.cumsum(counts, dtype=np.int64).tolist()], dtype=torch.int64)
    indices = torch.tensor([draw.randrange(min(inputs, 2**31)) for _ in range(events)], dtype=torch.int32)
    values = floats(draw, events, dtype=pick(draw, *FLOATS)) if chance(draw, 50) else None
    parts: dict[str, Any] = {"offsets": offsets, "indices": indices, "values": values, "shape": (steps, batch, inputs)}
    parts["lengths"] = None if lengths is None else torch.tensor(lengths, dtype=torch.int64)
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


def event_batch(draw: Draw) -> bool:
    """EventBatch: its constructor, from_dense, from_events and pickling."""
    return pick(draw, *[constructed_events] * 5, dense_events, timed_events, pickled_events)(draw)


def constructed_events(draw: Draw) -> bool:
    parts = event_parts(draw)
    spoilt = chance(draw, 30)
    if spoilt:
        spoil_parts(draw, parts)
    given = tensors_in(parts)
    seen = contents(given)

    outcome = accepts(OF_EVENTS, lambda: EventBatch(**parts))
    if outcome is None:
        assert spoilt
        return False

    batch: EventBatch = outcome[0]
    if batch.device.type == "meta":
        return True
    steps, samples, _ = batch.shape
    assert contents(given) == seen
    assert len(batch.offsets) == steps * samples + 1 and len(batch) == samples
    if max(batch.shape) > 10_000:
        assert repr(batch) and batch.nbytes >= 8 and batch.density >= 0 and batch == batch
        return True
    dense = batch.to_dense(torch.float64)
    assert_comes_back(batch, dense)
    assert_selects(draw, batch, dense)
    return misused(draw, batch) if chance(draw, 25) else True


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


def misused(draw: Draw, batch: EventBatch) -> bool:
    """A valid batch and a method called with a wrong argument."""
    uses = (
        *(lambda x: batch[x], lambda x: batch.truncate(x), lambda x: batch.to_dense(x), lambda x: batch.to(x)),
        *(lambda x: EventBatch.cat([batch, x]), lambda x: EventBatch.cat([batch], steps=x), EventBatch.cat),
        lambda x: EventBatch.from_sparse_csr(x, shape=batch.shape),
        lambda x: EventBatch.from_sparse_csr(batch.to_sparse_csr(), shape=x),
    )
    use, x = pick(draw, *uses), oddity(draw) if chance(draw, 60) else altered(draw, batch.offsets)

    return accepts((*OF_EVENTS, "slice"), lambda: use(x)) is not None


def dense_events(draw: Draw) -> bool:
    dtype = pick(draw, torch.float32, torch.float64, torch.bool)
    x: Any = relaid(draw, spikes(draw, size(draw), size(draw), size(draw)).to(dtype))
    given = {"x": x.numpy() if chance(draw, 30) and not x.is_neg() else x}
    if chance(draw, 30):
        given["lengths"] = torch.tensor([draw.randrange(x.shape[0] + 1) for _ in range(x.shape[1])], dtype=torch.int64)
    spoilt = spoil(draw, given, 30)

    outcome = accepts(OF_EVENTS, lambda: EventBatch.from_dense(**given))
    if outcome is None:
        assert spoilt
        return False

    batch = outcome[0]
    if given.get("lengths") is None and max(batch.shape) < 10_000:
        expected = torch.as_tensor(given["x"])
        assert torch.equal(batch.to_dense(torch.float64), expected.to(torch.float64))
    return True


def recording(draw: Draw) -> tuple[dict[str, Any], list[int]]:
    """Arguments of from_events, with indices or pixels, and the input of each event."""
    events, inputs, width = draw.randrange(9), pick(draw, 6, 1, 300), pick(draw, 10, 1, 2.5, 1000)
    top = pick(draw, 40, 0, 400)
    times: Any = sorted(draw.randrange(top + 1) if chance(draw, 50) else top * draw.random() for _ in range(events))
    times = [int(t) for t in times] if chance(draw, 50) else times
    cells = [draw.randrange(inputs) for _ in range(events)]
    given: dict[str, Any] = {"times": times, "bin_width": width}
    if chance(draw, 50):
        given |= {"indices": cells, "inputs": inputs}
    else:
        x, y, polarity = [k % 3 for k in cells], [k % 2 for k in cells], [k % 5 < 2 for k in cells]
        given |= {"x": x, "y": y, "sensor_size": (2, 3)}
        if chance(draw, 50):
            given["polarity"] = polarity
        cells = [(p * 2 + b) * 3 + a for a, b, p in zip(x, y, given.get("polarity", [0] * events), strict=True)]
    for name, x in given.items():
        if isinstance(x, list) and events and chance(draw, 40):
            dtype = pick(draw, torch.int64, torch.int32, torch.int16) if isinstance(x[0], int) else None
            tensor = torch.tensor(x, dtype=torch.bool if isinstance(x[0], bool) else dtype)
            given[name] = tensor.numpy() if chance(draw, 50) else tensor
    if chance(draw, 40):
        given |= {"steps": pick(draw, 9, 0, 1), "prefix": pick(draw, 3, 0), "count": pick(draw, "once", "all")}
    return given, cells


def timed_events(draw: Draw) -> bool:
    given, cells = recording(draw)
    spoilt = spoil(draw, given, 35)

    outcome = accepts(OF_EVENTS, lambda: EventBatch.from_events(**given))
    if outcome is None:
        assert spoilt
        return False

    batch = outcome[0]
    EventBatch(batch.offsets, batch.indices, shape=batch.shape)
    if not spoilt:
        assert_is_recorded(batch, given, cells)
    return True


def assert_is_recorded(batch: EventBatch, given: dict[str, Any], cells: list[int]) -> None:
    """Assert that each event of the recording is in its bin, once or as often as it occurs."""
    prefix, steps = given.get("prefix", 0), given.get("steps")
    bins = [math.floor(float(t) / given["bin_width"]) for t in given["times"]]
    kept = [(prefix + b, k) for b, k in zip(bins, cells, strict=True) if steps is None or b < steps]
    kept = sorted(kept if given.get("count") == "all" else set(kept))
    rows = [step for step in range(batch.shape[0]) for _ in range(*batch.offsets[step : step + 2].tolist())]
    assert list(zip(rows, batch.indices.tolist(), strict=True)) == kept


def pickled_events(draw: Draw) -> bool:
    """A pickled batch, perhaps with an altered state: unpickling must validate it."""
    parts = {name: x for name, x in event_parts(draw).items()}
    if chance(draw, 35):
        spoil_parts(draw, parts)
    if chance(draw, 10):
        parts[pick(draw, "other", "shape")] = None
    state = pickle.loads(pickle.dumps(parts)) if all(readable(x) for x in tensors_in(parts)) else parts
    batch = EventBatch.__new__(EventBatch)

    return accepts((*OF_EVENTS, "EventBatch"), lambda: batch.__setstate__(state)) is not None


# Encoders


def pixels(draw: Draw, samples: int) -> Tensor:
    """Images with many pixels of 0 and some of 1, and sometimes an invalid pixel."""
    shape = (samples, *(size(draw) for _ in range(pick(draw, 1, 1, 2, 3))))
    images = floats(draw, *shape, dtype=pick(draw, torch.float32, torch.float64, torch.float16)).sigmoid()
    images = torch.where(floats(draw, *shape) > 0.5, 0, images) if chance(draw, 50) else images.round()
    if images.numel() and chance(draw, 10):
        images.view(-1)[draw.randrange(images.numel())] = pick(draw, math.nan, -1e-6, 1.001, math.inf)
    return repeated(draw, relaid(draw, images))


def encoders(draw: Draw) -> bool:
    """rate_encode and latency_encode."""
    rate, samples = chance(draw, 50), size(draw)
    x = pixels(draw, samples)
    fit = bool(((x >= 0) & (x <= 1)).all())
    given: dict[str, Any] = {"images": x.numpy() if chance(draw, 25) and not x.is_neg() else x}
    given |= {"steps": pick(draw, 5, 1, 33, 70), "prefix": pick(draw, 2, 0)}
    if rate:
        given |= {"seed": draw.getrandbits(64), "gain": pick(draw, 0.25, 1.0, 0.0, 7.5, 1e300, 1e-300)}
        if chance(draw, 50):
            given["index"] = [pick(draw, 0, 5, 2**31, 2**63 - 1) for _ in range(samples)]
    spoilt = spoil(draw, given, 35)
    seen = contents(tensors_in(given))

    names = ("images", "steps", "prefix", "seed", "gain", "index")
    outcome = accepts(names, lambda: (rate_encode if rate else latency_encode)(**given))
    if outcome is None:
        assert spoilt or not fit
        return False

    batch = outcome[0]
    assert contents(tensors_in(given)) == seen
    EventBatch(batch.offsets, batch.indices, shape=batch.shape)  # the constructor accepts it
    images = given["images"]
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images.astype(np.float32))
    flat = images.resolve_neg().flatten(1).float()
    assert batch.shape == (given["prefix"] + given["steps"], *flat.shape)
    (assert_rates if rate else assert_latencies)(batch, flat, given)
    return True


def assert_rates(batch: EventBatch, flat: Tensor, given: dict[str, Any]) -> None:
    """Assert that black never fires, and that white fires in every step at a gain of 1."""
    counts = batch.to_dense().sum(0)
    assert not counts[flat == 0].any()
    if float(given["gain"]) == 1.0:
        assert bool((counts[flat == 1] == given["steps"]).all())


def assert_latencies(batch: EventBatch, flat: Tensor, given: dict[str, Any]) -> None:
    """Assert that every pixel that is not black fires once, at the step of the definition."""
    assert torch.equal(batch.to_dense().sum(0), (flat != 0).float())
    late = (given["prefix"] + ((1 - flat.double()) * (given["steps"] - 1)).round()).long()
    for sample, pixel in flat.nonzero().tolist()[:5]:
        row = sample * batch.shape[0] + int(late[sample, pixel])
        found = batch.indices[batch.offsets[row] : batch.offsets[row + 1]]
        assert pixel in found.tolist()
