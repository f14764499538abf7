"""Fuzz targets on event batches and encoders, in the form that ``op_targets`` describes."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.lib.stride_tricks import as_strided
from torch import Tensor

from fuzz.draws import (
    FLOATS,
    Draw,
)
from fuzz.facts import attempt, names_of, readable, tensors_in
from srcell import EventBatch, camera_encode, latency_encode, rate_encode
from srcell.data import CameraEncoding
from support.dlpack import Foreign

# Event batches


def event_parts(draw: Draw) -> dict[str, Any]:
    steps, batch, inputs = draw.size(), draw.size(), draw.pick(3, 1, 5, 0, 300, 2**31)
    lengths = draw.lengths(steps, batch) if draw.chance(30) else None
    ends = [steps] * batch if lengths is None else lengths.tolist()
    places = [t < end for end in ends for t in range(steps)]
    counts = [draw.randrange(3) if inputs and before_end and draw.chance(50) else 0 for before_end in places]
    events = sum(counts)
    parts: dict[str, Any] = {
        "offsets": torch.tensor([0, *itertools.accumulate(counts)], dtype=torch.int64),
        "indices": torch.tensor([draw.randrange(inputs) for _ in range(events)], dtype=torch.int32),
        "values": draw.floats(events, dtype=draw.pick(*FLOATS)) if draw.chance(50) else None,
        "shape": (steps, batch, inputs),
        "lengths": lengths,
    }
    return {name: as_array(draw, draw.relaid(x)) if isinstance(x, Tensor) else x for name, x in parts.items()}


def as_array(draw: Draw, x: Tensor, *, foreign: bool = True) -> Tensor | np.ndarray | Foreign:
    """The same numbers as a tensor, as a NumPy array or, if allowed, as an array of another library."""
    if x.is_neg() or draw.chance(50):
        return x
    array = x.numpy()
    if not foreign or draw.chance(50):
        return array
    if draw.chance(50):
        array = np.flip(np.flip(array).copy())  # backwards in memory
    if draw.chance(20):
        return Foreign(array, data=array.ctypes.data - 64, byte_offset=64)
    return Foreign(array, draw.pick((1, 0), (1, 0), (2, 0), (4, 0), (13, 2**40), None, "cpu"))


def spoilt_array(draw: Draw, x: np.ndarray) -> Foreign:
    """An array of another library that cannot be taken, or only in part, or that has wild strides or another dtype."""
    error = draw.pick(KeyError("x"), AssertionError(), BufferError("x"), OSError(), TypeError("x"), ValueError())
    change: Callable[[], Foreign] = draw.pick(
        lambda: Foreign(x, error=error),
        lambda: Foreign(x, error),
        lambda: Foreign(x[::-1], draw.pick((1, 0), (2, 0)), device_type=draw.pick(2, 3, 4, 7, 10, 13, 99, -1)),
        lambda: Foreign(x[::-1], code=draw.pick(0, 1, 2, 4, 5, 6, 99), bits=draw.pick(0, 1, 4, 8, 16)),
        lambda: Foreign(x, lanes=draw.pick(0, 2, 99)),
        lambda: Foreign(x, ndim=draw.pick(-1, 0, -(2**31))),
        lambda: Foreign(as_strided(x, (draw.pick(2**40, 2**59, 2**60 - 1),), (0,))),
        lambda: Foreign(as_strided(x, (1, 1, len(x)), (-(2**62), 2**62, -x.itemsize))[..., :1]),
        lambda: Foreign(as_strided(x, (0, 9), (2**62, -(2**62)))),
        lambda: Foreign(x.astype(draw.pick(">i8", "f2", "c8", "i1", "u8", "U1", "O", "M8[s]"))),
        lambda: Foreign(x[:, None]),
    )
    return change()


def spoil_parts(draw: Draw, parts: dict[str, Any]) -> None:
    name = draw.pick(*(name for name, x in parts.items() if x is not None))
    x = parts[name]
    if isinstance(x, np.ndarray) and len(x) and draw.chance(50):
        parts[name] = spoilt_array(draw, x)
    elif isinstance(x, (Tensor, np.ndarray)) and len(x) and draw.chance(50):
        x = parts[name] = x.clone() if isinstance(x, Tensor) else x.copy()
        bound = 2**31 - 1 if name == "indices" else 2**63 - 1
        at = draw.randrange(len(x))
        x[at] = draw.pick(math.nan, 1e9) if name == "values" else draw.pick(0, 1, -1, bound, -bound - 1)
    elif name == "shape" and draw.chance(60):
        shape = list(x)
        shape[draw.randrange(3)] = draw.pick(0, 1, -1, 2**31, 2**31 + 1, 2**62, 2**63 - 1, 2**63, 1.0, None)
        parts[name] = shape[: draw.pick(3, 3, 2)]
    else:
        parts[name] = draw.wrong(torch.from_numpy(x) if isinstance(x, np.ndarray) and x.flags.writeable else x)


def event_batch(draw: Draw) -> None:
    """EventBatch: its constructor, from_dense, from_events and pickling."""
    draw.pick(*[constructed_events] * 5, dense_events, timed_events, pickled_events)(draw)


def constructed_events(draw: Draw) -> None:
    parts = event_parts(draw)
    spoilt = draw.chance(30)
    if spoilt:
        spoil_parts(draw, parts)

    batch: EventBatch = attempt(EventBatch, parts, spoilt)

    if batch.device.type == "meta":
        return
    steps, samples, _ = batch.shape
    assert len(batch.offsets) == steps * samples + 1 and len(batch) == samples
    if max(batch.shape) > 10_000:
        assert repr(batch) and batch.nbytes >= 8 and batch.density >= 0 and batch == batch
        return
    dense = batch.to_dense(torch.float64)
    assert_comes_back(batch, dense)
    assert_selects(draw, batch, dense)
    if draw.chance(25):
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
    use = draw.pick(
        *(lambda x: batch[x], batch.truncate, batch.to_dense, batch.to, EventBatch.cat),
        *(lambda x: EventBatch.cat([batch, x]), lambda x: EventBatch.cat([batch], steps=x)),
        lambda x: EventBatch.from_sparse_csr(x, shape=batch.shape),
        lambda x: EventBatch.from_sparse_csr(batch.to_sparse_csr(), shape=x),
    )
    x = draw.oddity() if draw.chance(60) else draw.altered(batch.offsets)
    names = ("csr", "steps", "batches", "samples", "dtype", "device", "slice")

    attempt(lambda: use(x), {}, True, *names_of(EventBatch), *names)


def dense_events(draw: Draw) -> None:
    dtype = draw.pick(torch.float32, torch.float64, torch.bool)
    x: Any = draw.relaid(draw.spikes(draw.size(), draw.size(), draw.size()).to(dtype))
    given = {"x": as_array(draw, x)}
    if draw.chance(30):
        given["lengths"] = draw.lengths(*x.shape[:2])
    spoilt = draw.spoil(given, 30)

    batch = attempt(EventBatch.from_dense, given, spoilt)

    if given.get("lengths") is None and max(batch.shape) < 10_000:
        x = given["x"]
        expected = torch.as_tensor(x.array.copy() if isinstance(x, Foreign) else x)
        assert torch.equal(batch.to_dense(torch.float64), expected.to(torch.float64))


def recording(draw: Draw) -> dict[str, Any]:
    """Arguments of from_events as numbers and lists, with indices or pixels."""
    events, inputs, top = draw.randrange(9), draw.pick(6, 1, 300), draw.pick(40, 0, 400)
    times = sorted(draw.randrange(top + 1) if draw.chance(50) else top * draw.random() for _ in range(events))
    given: dict[str, Any] = {"times": [int(t) for t in times] if draw.chance(50) else times}
    given["bin_width"] = draw.pick(10, 1, 2.5, 1000)
    if draw.chance(50):
        given |= {"indices": [draw.randrange(inputs) for _ in times], "inputs": inputs}
    else:
        given |= {"x": [draw.randrange(3) for _ in times], "y": [draw.randrange(2) for _ in times]}
        given["sensor_size"] = (2, 3)
        if draw.chance(50):
            given["polarity"] = [draw.chance(50) for _ in times]
    if draw.chance(40):
        given |= {"steps": draw.pick(9, 0, 1), "prefix": draw.pick(3, 0), "count": draw.pick("once", "all")}
    return given


def timed_events(draw: Draw) -> None:
    """A recording in tensors and arrays gives the same batch as in lists, which test_event_recordings.py tests."""
    plain = recording(draw)
    given = dict(plain)
    for name, x in plain.items():
        if isinstance(x, list) and x and draw.chance(40):
            narrow = draw.pick(torch.int64, torch.int32, torch.int16)
            tensor = torch.from_numpy(np.array(x))  # int64, float64 or bool
            tensor = tensor.to(narrow) if tensor.dtype == torch.int64 else tensor
            given[name] = as_array(draw, tensor)
    spoilt = draw.spoil(given, 35)

    batch = attempt(EventBatch.from_events, given, spoilt)

    EventBatch(batch.offsets, batch.indices, shape=batch.shape)
    if not spoilt:
        assert batch == EventBatch.from_events(**plain)


def pickled_events(draw: Draw) -> None:
    """A pickled batch, perhaps with an altered state: unpickling must validate it."""
    parts = event_parts(draw)
    spoilt, other = draw.chance(35), draw.chance(10)
    if spoilt:
        spoil_parts(draw, parts)
    if other:
        parts[draw.pick("other", "shape")] = None
    own = all(readable(x) for x in tensors_in(parts)) and not any(isinstance(x, Foreign) for x in parts.values())
    state = pickle.loads(pickle.dumps(parts)) if own else parts
    batch = EventBatch.__new__(EventBatch)

    attempt(batch.__setstate__, {"state": state}, spoilt or other, *names_of(EventBatch), "EventBatch")


# Encoders


def pixels(draw: Draw, samples: int) -> Tensor:
    """Images with many pixels of 0 and some of 1, and sometimes an invalid pixel."""
    shape = (samples, *(draw.size() for _ in range(draw.pick(1, 1, 2, 3))))
    images = draw.floats(*shape, dtype=draw.pick(torch.float32, torch.float64, torch.float16)).sigmoid()
    images = torch.where(draw.floats(*shape) > 0.5, 0, images) if draw.chance(50) else images.round()
    if images.numel() and draw.chance(10):
        images.view(-1)[draw.randrange(images.numel())] = draw.pick(math.nan, -1e-6, 1.001, math.inf)
    return draw.repeated(draw.relaid(images))


def encoders(draw: Draw) -> None:
    """rate_encode and latency_encode give the events of the same images in contiguous memory (test_encoders.py)."""
    encode, samples = draw.pick(rate_encode, latency_encode), draw.size()
    x = pixels(draw, samples)
    fit = bool(((x >= 0) & (x <= 1)).all())
    given: dict[str, Any] = {"images": as_array(draw, x, foreign=False)}
    given |= {"steps": draw.pick(5, 1, 33, 70), "prefix": draw.pick(2, 0)}
    if encode is rate_encode:
        given |= {"seed": draw.getrandbits(64), "gain": draw.pick(0.25, 1.0, 0.0, 7.5, 1e300, 1e-300)}
        if draw.chance(50):
            given["index"] = [draw.pick(0, 5, 2**31, 2**63 - 1) for _ in range(samples)]
    spoilt = draw.spoil(given, 35)

    batch = attempt(encode, given, spoilt or not fit)

    EventBatch(batch.offsets, batch.indices, shape=batch.shape)  # the constructor accepts it
    images = given["images"]
    if isinstance(images, np.ndarray):
        images = torch.from_numpy(images.astype(np.float32))
    plain = images.resolve_neg().flatten(1).float().clone(memory_format=torch.contiguous_format)
    assert batch.shape == (given["prefix"] + given["steps"], *plain.shape)
    assert batch == encode(**given | {"images": plain})


def camera(draw: Draw) -> None:
    """A camera gives the events of the same frames or pictures in contiguous memory (test_camera.py)."""
    shape = (draw.size(), draw.size(), draw.pick(3, 1, 0, 17), draw.pick(2, 1, 0, 16, 33))
    brightness = draw.floats(*shape, dtype=draw.pick(torch.float32, torch.float64)).sigmoid()
    if brightness.numel() and draw.chance(10):
        brightness.view(-1)[draw.randrange(brightness.numel())] = draw.pick(math.nan, -1e-6, 1.001, math.inf)
    brightness = draw.repeated(draw.relaid(brightness))
    fit = bool(((brightness >= 0) & (brightness <= 1)).all())
    sensor: dict[str, Any] = {"threshold": draw.pick(0.19, (0.1, 0.4), 1e-4, 1e4), "spread": draw.pick(0.0, 0.3)}
    sensor |= {"refractory": draw.pick(0, 2, 2**24), "noise": draw.pick(0.0, 0.01, 1.0)}
    if draw.chance(50):
        given = {"frames": as_array(draw, brightness, foreign=False), "seed": draw.getrandbits(64), **sensor}
        given |= {"dark": draw.pick(0.0, 0.1, 1e-6)}
        spoilt = draw.spoil(given, 35)
        batch = attempt(camera_encode, given, spoilt or not fit)
        again = camera_encode(**given | {"frames": brightness.resolve_neg().clone()}) if not spoilt else batch
    else:
        movement = [(float(t), draw.pick(0.0, 0.3, -1.4), draw.pick(0.0, 0.9)) for t in range(draw.pick(1, 2, 9))]
        given = {
            "steps": draw.pick(5, 0, 1, 33),
            "sensor_size": draw.pick((3, 3), (1, 40)),
            "movement": tuple(movement),
        }
        given |= {
            "blur": draw.pick(0.0, 0.5, 8.0),
            "size_jitter": draw.pick(0.0, 0.3),
            "place_jitter": draw.pick(0.0, 2.0),
        }
        given |= sensor
        spoilt = draw.spoil(given, 35)
        pictures = brightness.flatten(0, 1)
        half = (
            [(a + b) / 2 for a, b in zip(given["sensor_size"], pictures.shape[1:], strict=True)] if not spoilt else []
        )
        sees = not spoilt and all(abs(x) < half[1] and abs(y) < half[0] for _, x, y in movement)
        refusable = spoilt or not (fit and sees)
        batch = attempt(lambda **options: CameraEncoding(**options)(pictures), given, refusable, "images", *given)
        again = CameraEncoding(**given)(pictures.resolve_neg().clone()) if not spoilt else batch

    EventBatch(batch.offsets, batch.indices, shape=batch.shape)  # the constructor accepts it
    assert batch == again
