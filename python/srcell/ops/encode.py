"""``rate_encode`` and ``latency_encode``: the events of images; their number depends on the images' values."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._cpu import core
from ._gpu import gpu_of
from ._layer import Like, check_floats, check_integers
from ._memory import contiguous
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
    threads = torch.get_num_threads()
    return tensors(core.rate_encode(array(images), array(index), steps, prefix, gain, seed % 2**64, thinned, threads))


def array(x: Tensor) -> NDArray[Any]:
    """A contiguous tensor on a CPU as an array."""
    made: NDArray[Any] = x.detach().numpy()
    return made


def tensors(events: tuple[NDArray[np.int64], NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Offsets and indices."""
    offsets, indices = events
    return torch.from_numpy(offsets), torch.from_numpy(indices)


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
    return tensors(core.latency_encode(array(images), steps, prefix, torch.get_num_threads()))


@latency_encode.fake
def latency_fake(call: Any) -> tuple[Tensor, Tensor]:
    """The outputs' shapes."""
    return fake_events(call.images, call.prefix + call.steps)


def fake_events(images: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Offsets, and indices of a symbolic length: the real call determines the number of events."""
    count = torch.library.get_ctx().new_dynamic_size()
    offsets = images.new_empty(images.shape[0] * steps + 1, dtype=torch.int64)
    return offsets, images.new_empty(count, dtype=torch.int32)
