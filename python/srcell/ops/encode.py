"""``rate_encode`` and ``latency_encode``: the events of images; their number depends on the images' values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ._cpu import core, empty, scratch
from ._gpu import gpu_of
from ._layer import Like, check_floats, check_integers
from ._memory import address, addresses, contiguous
from ._operator import Operator

rate_encode = Operator(
    "rate_encode(Tensor images, Tensor index, *, int steps, int prefix, float gain, int seed, bool thinned)"
    " -> (Tensor offsets, Tensor indices)"
)


MAX_STEPS = 2**31 - 1  # the largest steps and prefix


def check_images(images: Tensor, steps: int, prefix: int, *, fewest: int) -> tuple[Tensor, Like]:
    """Check float32 images (B, K) and the numbers of steps; return the images contiguous."""
    like = check_floats("images", images, "B, K")
    if like.dtype != torch.float32:
        raise TypeError(f"images: expected dtype torch.float32, got {like.dtype}")
    for name, number, least in (("steps", steps, fewest), ("prefix", prefix, 0)):
        if not least <= number <= MAX_STEPS:
            raise ValueError(f"{name}: expected an int in [{least}, {MAX_STEPS}], got {number}")
    return contiguous(images), like


@rate_encode.kernel("CPU")
def rate_cpu(call: Any) -> tuple[Tensor, Tensor]:
    """Events of float32 images (B, K) with int64 sample numbers (B,); the seed is taken modulo 2^64."""
    images, index, steps, prefix, gain, seed, thinned = call
    images, like = check_images(images, steps, prefix, fewest=0)
    index = contiguous(check_integers("index", index, torch.int64, images.shape[0], like))
    view, active_before, _, room = count_active_pixels(images)
    drawn_steps = -(-steps // core.drawn_steps) * core.drawn_steps
    drawn = scratch(images, room, room, room * drawn_steps // 32)  # a bit for each pixel and step
    offsets = empty(images, images.shape[0] * (prefix + steps) + 1, dtype=torch.int64)
    encoding = core.RateEncoding(
        view,
        address(active_before),
        address(index),
        steps,
        prefix,
        gain,
        seed % 2**64,
        addresses(drawn),
        address(offsets),
        thinned,
    )
    indices = empty(images, core.rate_draw(encoding), dtype=torch.int32)
    core.rate_write(encoding, address(indices))
    return offsets, indices


def count_active_pixels(images: Tensor) -> tuple[core.Images, Tensor, int, int]:
    """Count active pixels; return the struct of the images that encoders take, the number of active pixels before each
    sample, the total, and the number of pixels that an encoder's scratch must have room for.
    """
    samples, pixels = images.shape
    view = core.Images(address(images), samples, pixels, torch.get_num_threads())
    active_before = empty(images, samples + 1, dtype=torch.int64)
    active, groups = core.count_active_pixels(view, address(active_before))
    return view, active_before, active, groups * core.pixel_group


@rate_encode.kernel("CUDA")
def rate_gpu(call: Any) -> tuple[Tensor, Tensor]:
    """``rate_cpu`` on a GPU; it synchronises to learn the number of events."""
    images, index, steps, prefix, gain, seed, thinned = call
    images, like = check_images(images, steps, prefix, fewest=0)
    index = contiguous(check_integers("index", index, torch.int64, images.shape[0], like))
    gpu = gpu_of("images", images)
    samples, pixels = images.shape
    mask = gpu.empty(images, samples * steps, -(-pixels // 64), dtype=torch.int64)
    counts = gpu.empty(images, samples * (prefix + steps), dtype=torch.int64)
    sizes = (samples, steps, prefix, pixels)
    gpu.launch("rate_mask", (samples, pixels, steps), images, index, gain, seed % 2**64, mask, thinned)
    gpu.launch("count_mask", sizes, mask, counts)
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0))
    wrong = ~((images >= 0) & (images <= 1)).flatten()
    count, any_wrong = torch.stack([offsets[-1], wrong.any()]).tolist()
    if any_wrong:
        sample, pixel = divmod(int(wrong.nonzero()[0]), pixels)
        got = images[sample, pixel].item()
        raise ValueError(f"images: expected values in [0, 1], got {got} in pixel {pixel} of sample {sample}")
    indices = gpu.empty(images, count, dtype=torch.int32)
    gpu.launch("list_mask", sizes, mask, offsets, indices)
    return offsets, indices


@rate_encode.fake
def rate_fake(call: Any) -> tuple[Tensor, Tensor]:
    """The outputs' shapes, with an unknown number of events."""
    return fake_events(call.images, call.prefix + call.steps)


latency_encode = Operator("latency_encode(Tensor images, *, int steps, int prefix) -> (Tensor offsets, Tensor indices)")


@latency_encode.kernel("CPU")
def latency_cpu(call: Any) -> tuple[Tensor, Tensor]:
    """Events of float32 images (B, K)."""
    images, steps, prefix = call
    images, _ = check_images(images, steps, prefix, fewest=1)
    view, active_before, events, room = count_active_pixels(images)
    sorting = scratch(images, room, room)
    offsets = empty(images, images.shape[0] * (prefix + steps) + 1, dtype=torch.int64)
    indices = empty(images, events, dtype=torch.int32)
    core.latency_encode(
        view, address(active_before), steps, prefix, addresses(sorting), address(offsets), address(indices)
    )
    return offsets, indices


@latency_encode.fake
def latency_fake(call: Any) -> tuple[Tensor, Tensor]:
    """The outputs' shapes."""
    return fake_events(call.images, call.prefix + call.steps)


def fake_events(images: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Offsets, and indices of a symbolic length: the real call determines the number of events."""
    count = torch.library.get_ctx().new_dynamic_size()
    offsets = images.new_empty(images.shape[0] * steps + 1, dtype=torch.int64)
    return offsets, images.new_empty(count, dtype=torch.int32)
