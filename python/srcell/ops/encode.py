"""The events of images, of frames and pictures before an event camera, and of a dense tensor (``list_events``).

The number of events depends on the values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._shared.arguments import as_int
from ._cpu import core
from ._gpu import gpu_of
from ._memory import contiguous
from ._operator import Operator
from ._table import TABLE, Checked, check, declared

EVENTS = "(Tensor offsets, Tensor indices)"

rate_encode = Operator(
    f"rate_encode({declared(TABLE['rate_encode'])}, *, int steps, int prefix, float gain, int seed, bool thinned)"
    f" -> {EVENTS}",
    differentiable=False,
)


MAX_STEPS = 2**31 - 1  # the largest steps and prefix


def check_images(operator: str, call: Any, *, fewest: int = 0) -> None:
    """Check a call on images and its numbers of steps."""
    check(operator, call)
    as_int("steps", call.steps, MAX_STEPS, minimum=fewest)
    as_int("prefix", call.prefix, MAX_STEPS)


@rate_encode.kernel("CPU")
def rate_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 images (B, K) with int64 sample numbers (B,); the seed is taken modulo 2^64."""
    check_images("rate_encode", call)
    images, index = arrays(call.images, call.index)
    options = call.steps, call.prefix, call.gain, call.seed % 2**64, call.thinned, torch.get_num_threads()
    return tuple(map(torch.from_numpy, core.rate_encode(images, index, *options)))


@rate_encode.kernel("CUDA")
def rate_gpu(call: Any) -> tuple[Tensor, Tensor]:
    """``rate_cpu`` on a GPU; it synchronises to learn the number of events."""
    check_images("rate_encode", call)
    images, index, gpu = contiguous(call.images), contiguous(call.index), gpu_of("images", call.images)
    (samples, pixels), steps, prefix = images.shape, call.steps, call.prefix
    mask = images.new_empty(samples * steps, -(-pixels // 64), dtype=torch.int64)
    counts = images.new_empty(samples * (prefix + steps), dtype=torch.int64)
    sizes, drawn = (samples, steps, prefix, pixels), (call.gain, call.seed % 2**64, mask, call.thinned)
    gpu.launch("rate_mask", (samples, pixels, steps), images, index, *drawn)
    gpu.launch("count_mask", sizes, mask, counts)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    wrong = ~((images >= 0) & (images <= 1)).flatten()
    count, any_wrong = torch.stack([offsets[-1], wrong.any()]).tolist()
    if any_wrong:
        sample, pixel = divmod(int(wrong.nonzero()[0]), pixels)
        got = images[sample, pixel].item()
        raise ValueError(f"images: expected values in [0, 1], got {got} in pixel {pixel} of sample {sample}")
    indices = images.new_empty(count, dtype=torch.int32)
    gpu.launch("list_mask", sizes, mask, offsets, indices)
    return offsets, indices


latency_encode = Operator(
    f"latency_encode({declared(TABLE['latency_encode'])}, *, int steps, int prefix) -> {EVENTS}", differentiable=False
)


@latency_encode.kernel("CPU")
def latency_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 images (B, K)."""
    check_images("latency_encode", call, fewest=1)
    (images,) = arrays(call.images)
    made = core.latency_encode(images, call.steps, call.prefix, torch.get_num_threads())
    return tuple(map(torch.from_numpy, made))


SENSOR = "float rise, float fall, float spread, int refractory, float noise, int seed"
camera_frames = Operator(
    f"camera_frames({declared(TABLE['camera_frames'])}, *, float dark, {SENSOR}) -> {EVENTS}", differentiable=False
)
camera_pictures = Operator(
    f"camera_pictures({declared(TABLE['camera_pictures'])}, *, int steps, int height, int width, float blur,"
    f" float size_jitter, float place_jitter, {SENSOR}) -> {EVENTS}",
    differentiable=False,
)


def check_pictures(call: Any) -> None:
    """Check a call on pictures, which users know as images."""
    checked = Checked()
    for row in TABLE["camera_pictures"]:
        checked.one(row, getattr(call, row.name), "images" if row.name == "pictures" else "")


def arrays(*tensors: Tensor) -> list[Any]:
    """Tensors as contiguous arrays."""
    return [contiguous(x.detach()).numpy() for x in tensors]


def sensor_of(call: Any) -> tuple[float, float, float, int, float, int]:
    """The settings of a camera's pixels, in the order of the kernels."""
    return call.rise, call.fall, call.spread, call.refractory, call.noise, call.seed % 2**64


@camera_frames.kernel("CPU")
def camera_frames_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 frames (T, B, H, W)."""
    check("camera_frames", call)
    frames, index = arrays(call.frames, call.index)
    made = core.camera_frames(frames, index, sensor_of(call), call.dark, torch.get_num_threads())
    return tuple(map(torch.from_numpy, made))


@camera_pictures.kernel("CPU")
def camera_pictures_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 pictures (B, H, W) under a movement (points, 3), float64."""
    check_pictures(call)
    pictures, movement, index = arrays(call.pictures, call.movement, call.index)
    view = call.blur, call.size_jitter, call.place_jitter
    options = call.steps, (call.height, call.width), sensor_of(call), view, torch.get_num_threads()
    made = core.camera_pictures(pictures, movement, index, *options)
    return tuple(map(torch.from_numpy, made))


@camera_frames.fake
def fake_frames(call: Any) -> tuple[Tensor, Tensor]:
    """As ``fake_rate``."""
    check("camera_frames", call)
    return new_events(call.frames, call.frames.shape[0] * call.frames.shape[1])


@camera_pictures.fake
def fake_pictures(call: Any) -> tuple[Tensor, Tensor]:
    """As ``fake_rate``."""
    check_pictures(call)
    return new_events(call.pictures, call.pictures.shape[0] * max(call.steps, 0))


@rate_encode.fake
def fake_rate(call: Any) -> tuple[Tensor, Tensor]:
    """Offsets, and indices of a symbolic length: the real call determines the number of events."""
    check_images("rate_encode", call)
    return new_events(call.images, call.images.shape[0] * (call.prefix + call.steps))


@latency_encode.fake
def fake_latency(call: Any) -> tuple[Tensor, Tensor]:
    """As ``fake_rate``."""
    check_images("latency_encode", call, fewest=1)
    return new_events(call.images, call.images.shape[0] * (call.prefix + call.steps))


def new_events(like: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The offsets of so many rows, and indices."""
    count = torch.library.get_ctx().new_dynamic_size()
    return like.new_empty(rows + 1, dtype=torch.int64), like.new_empty(count, dtype=torch.int32)


def list_events(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Offsets, indices and values of the nonzero elements of x (T, B, K) up to the lengths (B,), which are checked.

    The values are None if all are 1. It is no operator of torch: whether there are values depends on the data.
    """
    if x.device.type == "cpu" and x.dtype != torch.bool and x.numel():  # without elements NumPy may refuse the shape
        ends = None if lengths is None else contiguous(lengths).numpy()
        made = core.list_events(contiguous(x).numpy(), ends, torch.get_num_threads())
        offsets, indices, values = (None if array is None else torch.from_numpy(array) for array in made)
        assert offsets is not None and indices is not None
        return offsets, indices, values
    sample_major = x.transpose(0, 1)
    fires = sample_major != 0
    if lengths is not None:
        fires &= (torch.arange(len(x), device=x.device) < lengths[:, None])[:, :, None]
    offsets = torch.nn.functional.pad(fires.sum(2).flatten().cumsum(0), (1, 0))
    events = fires.nonzero(as_tuple=True)
    values = None if x.dtype == torch.bool else sample_major[events]
    return offsets, events[2].to(torch.int32), None if values is None or bool((values == 1).all()) else values
