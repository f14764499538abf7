"""The events of images, of frames and pictures before an event camera, and of a dense tensor (``list_events``).

The number of events depends on the values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._cpu import core
from ._gpu import gpu_of
from ._layer import Like, check_floats, check_integers, check_tensor
from ._memory import contiguous
from ._operator import Operator

rate_encode = Operator(
    "rate_encode(Tensor images, Tensor index, *, int steps, int prefix, float gain, int seed, bool thinned)"
    " -> (Tensor offsets, Tensor indices)"
)


MAX_STEPS = 2**31 - 1  # the largest steps and prefix


def check_images(call: Any, *, fewest: int) -> tuple[Tensor, Like]:
    """Check float32 images (B, K) and the numbers of steps; return the images contiguous."""
    like = check_floats("images", call.images, "B, K")
    if like.dtype != torch.float32:
        raise TypeError(f"images: expected dtype torch.float32, got {like.dtype}")
    for name, number, least in (("steps", call.steps, fewest), ("prefix", call.prefix, 0)):
        if not least <= number <= MAX_STEPS:
            raise ValueError(f"{name}: expected an int in [{least}, {MAX_STEPS}], got {number}")
    return contiguous(call.images.detach()), like


def check_rate(call: Any) -> tuple[Tensor, Tensor]:
    """Check a call of ``rate_encode``; return images and index contiguous."""
    images, like = check_images(call, fewest=0)
    return images, contiguous(check_integers("index", call.index, torch.int64, images.shape[0], like))


@rate_encode.kernel("CPU")
def rate_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 images (B, K) with int64 sample numbers (B,); the seed is taken modulo 2^64."""
    images, index = check_rate(call)
    options = call.steps, call.prefix, call.gain, call.seed % 2**64, call.thinned, torch.get_num_threads()
    return tuple(map(torch.from_numpy, core.rate_encode(images.numpy(), index.numpy(), *options)))


@rate_encode.kernel("CUDA")
def rate_gpu(call: Any) -> tuple[Tensor, Tensor]:
    """``rate_cpu`` on a GPU; it synchronises to learn the number of events."""
    (images, index), gpu = check_rate(call), gpu_of("images", call.images)
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


latency_encode = Operator("latency_encode(Tensor images, *, int steps, int prefix) -> (Tensor offsets, Tensor indices)")


@latency_encode.kernel("CPU")
def latency_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 images (B, K)."""
    images, _ = check_images(call, fewest=1)
    made = core.latency_encode(images.numpy(), call.steps, call.prefix, torch.get_num_threads())
    return tuple(map(torch.from_numpy, made))


SENSOR = "float rise, float fall, float spread, int refractory, float noise, int seed"
camera_frames = Operator(
    f"camera_frames(Tensor frames, Tensor index, *, float dark, {SENSOR}) -> (Tensor offsets, Tensor indices)"
)
camera_pictures = Operator(
    "camera_pictures(Tensor pictures, Tensor movement, Tensor index, *, int steps, int height, int width, float blur, "
    f"float size_jitter, float place_jitter, {SENSOR}) -> (Tensor offsets, Tensor indices)"
)


def check_camera(name: str, brightness: Tensor, axes: str, index: Tensor) -> tuple[Any, Any]:
    """Check what a camera sees and the samples' numbers; return both as arrays."""
    like = check_floats(name, brightness, axes)
    if like.dtype != torch.float32:
        raise TypeError(f"{name}: expected dtype torch.float32, got {like.dtype}")
    numbers = check_integers("index", index, torch.int64, brightness.shape[axes.split(", ").index("B")], like)
    return contiguous(brightness.detach()).numpy(), contiguous(numbers).numpy()


def sensor_of(call: Any) -> tuple[float, float, float, int, float, int]:
    """The settings of a camera's pixels, in the order of the kernels."""
    return call.rise, call.fall, call.spread, call.refractory, call.noise, call.seed % 2**64


@camera_frames.kernel("CPU")
def camera_frames_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 frames (T, B, H, W)."""
    frames, index = check_camera("frames", call.frames, "T, B, H, W", call.index)
    made = core.camera_frames(frames, index, sensor_of(call), call.dark, torch.get_num_threads())
    return tuple(map(torch.from_numpy, made))


@camera_pictures.kernel("CPU")
def camera_pictures_cpu(call: Any) -> tuple[Tensor, ...]:
    """Events of float32 pictures (B, H, W) under a movement (points, 3), float64."""
    pictures, index = check_camera("images", call.pictures, "B, H, W", call.index)
    points = Like("images", torch.float64, call.pictures.device)
    check_tensor("movement", call.movement, points, (*call.movement.shape[:1], 3))
    movement = contiguous(call.movement).numpy()
    view = call.blur, call.size_jitter, call.place_jitter
    options = call.steps, (call.height, call.width), sensor_of(call), view, torch.get_num_threads()
    made = core.camera_pictures(pictures, movement, index, *options)
    return tuple(map(torch.from_numpy, made))


@camera_frames.fake
def fake_frames(call: Any) -> tuple[Tensor, Tensor]:
    """As ``fake_events``."""
    return new_events(call.frames, call.frames.shape[0] * call.frames.shape[1])


@camera_pictures.fake
def fake_pictures(call: Any) -> tuple[Tensor, Tensor]:
    """As ``fake_events``."""
    return new_events(call.pictures, call.pictures.shape[0] * call.steps)


@rate_encode.fake
@latency_encode.fake
def fake_events(call: Any) -> tuple[Tensor, Tensor]:
    """Offsets, and indices of a symbolic length: the real call determines the number of events."""
    return new_events(call.images, call.images.shape[0] * (call.prefix + call.steps))


def new_events(like: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The offsets of so many rows, and indices."""
    count = torch.library.get_ctx().new_dynamic_size()
    return like.new_empty(rows + 1, dtype=torch.int64), like.new_empty(count, dtype=torch.int32)


def list_events(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Offsets, indices and values of the nonzero elements of x (T, B, K) up to the lengths (B,), which are checked.

    The values are None if all are 1. It is no operator of torch: whether there are values depends on the data.
    """
    if x.device.type == "cpu" and x.dtype != torch.bool and x.numel():  # of none, NumPy may refuse the shape
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
