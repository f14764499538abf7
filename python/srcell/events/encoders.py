"""``rate_encode`` and ``latency_encode``: turn images into spikes.

Training and users call them. The encoders check arguments; operators of ``ops`` write the events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .._arguments import as_float, as_int, check_bool
from ..ops import encode
from .batch import EventBatch
from .checks import MAX_INPUTS, MAX_STEPS, as_integers, as_tensor


def rate_encode(
    images: Tensor | NDArray[Any],
    steps: int = 200,
    *,
    prefix: int = 20,
    gain: float = 0.25,
    seed: int,
    index: Tensor | NDArray[Any] | Sequence[int] | None = None,
    thinned: bool = False,
) -> EventBatch:
    """Let each pixel fire at random: at every step with probability ``min(gain * pixel, 1)``.

    The spikes of a sample depend only on its pixels, its number in ``index`` and the seed: they are the same in every
    batch, in any order, on any number of threads and on every machine. A shorter encoding is the start of a longer one.
    The random numbers come from Philox4x32-10, 24 bits each; probabilities are rounded up to a multiple of 2^-24.

    Args:
        images: (B, ...) of at least two dimensions, flattened to (B, K); any floating-point dtype, read as float32, in
            [0, 1]; on the CPU or on a GPU. On a GPU the call synchronises once, and once more if ``index`` is given.
        steps: steps in which pixels may fire, in [0, 2^31).
        prefix: silent steps before them, in [0, 2^31).
        gain: firing probability per step of a pixel of value 1, finite and at least 0.
        seed: in [0, 2^64); a different seed gives different spikes, for instance in each epoch.
        index: (B,) integers of at least 0, the samples' numbers; 0..B-1 if absent.
        thinned: let no pixel fire at two steps in a row, as the hardware encoder of the authors' group does: a spike is
            dropped if the pixel has a kept spike at the step before.

    Returns:
        A batch of shape (prefix + steps, B, K) without values and lengths; each row ascends.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument and what was expected.

    Source: gain, steps and prefix are from the configuration that the authors' group published with its FPGA work
    (arXiv 2605.10679); Philox is from Salmon et al., SC 2011, doi:10.1145/2063384.2063405.

    Example:
        >>> import torch
        >>> from srcell import rate_encode
        >>> batch = rate_encode(torch.tensor([[0.0, 0.5, 1.0]]), steps=1000, gain=1.0, seed=7)
        >>> batch.shape
        (1020, 1, 3)
        >>> batch.to_dense().sum(0)
        tensor([[   0.,  499., 1000.]])

    """
    pixels = _check_images(images, "cuda")
    samples, inputs = pixels.shape
    numbers = torch.arange(samples, device=pixels.device) if index is None else _check_index(index).to(pixels.device)
    steps = as_int("steps", steps, MAX_STEPS)
    prefix = as_int("prefix", prefix, MAX_STEPS)
    seed = as_int("seed", seed, 2**64 - 1)
    check_bool("thinned", thinned)
    gain = as_float("gain", gain)
    if not (math.isfinite(gain) and gain >= 0):
        raise ValueError(f"gain: expected a finite value of at least 0, got {gain}")
    # An operator's integers are signed; the kernels read the seed modulo 2^64.
    signed_seed = seed - 2**64 if seed >= 2**63 else seed
    offsets, indices = encode.rate_encode(
        pixels, numbers, steps=steps, prefix=prefix, gain=gain, seed=signed_seed, thinned=thinned
    )
    return EventBatch._trusted(offsets, indices, None, (prefix + steps, samples, inputs), None)


def latency_encode(images: Tensor | NDArray[Any], steps: int = 200, *, prefix: int = 20) -> EventBatch:
    """Let each pixel that is not 0 fire once: the brighter, the earlier.

    A pixel of value p fires at step ``prefix + round((1 - p) * (steps - 1))``: a pixel of 1 at the first step, the
    faintest at the last. The step is computed in float64 from the float32 pixel and rounded half to even, as by
    Python's ``round`` and ``numpy.rint``.
    The spikes of a sample depend only on its pixels: they are the same in every batch and on every machine.

    Args:
        images: (B, ...) of at least two dimensions, flattened to (B, K); any floating-point dtype, read as float32, in
            [0, 1]; on the CPU.
        steps: steps in which pixels may fire, in [1, 2^31).
        prefix: silent steps before them, in [0, 2^31).

    Returns:
        A batch of shape (prefix + steps, B, K) without values and lengths; each row ascends.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument and what was expected.

    Source: this project's definition; the defaults of steps and prefix are those of :func:`rate_encode`.

    Example:
        >>> import torch
        >>> from srcell import latency_encode
        >>> batch = latency_encode(torch.tensor([[0.0, 0.5, 1.0]]), steps=4, prefix=1)
        >>> batch.to_dense()[:, 0]
        tensor([[0., 0., 0.],
                [0., 0., 1.],
                [0., 0., 0.],
                [0., 1., 0.],
                [0., 0., 0.]])

    """
    pixels = _check_images(images)
    samples, inputs = pixels.shape
    steps = as_int("steps", steps, MAX_STEPS, minimum=1)
    prefix = as_int("prefix", prefix, MAX_STEPS)
    offsets, indices = encode.latency_encode(pixels, steps=steps, prefix=prefix)
    return EventBatch._trusted(offsets, indices, None, (prefix + steps, samples, inputs), None)


def _check_images(images: Tensor | NDArray[Any], *devices: str) -> Tensor:
    """The images as float32 (B, K); the operators check their values."""
    images = as_tensor("images", images)
    if not images.is_floating_point():
        raise TypeError(f"images: expected a tensor or an array of floating-point numbers, got {images.dtype}")
    if images.device.type not in ("cpu", *devices):
        places = " or ".join(["the CPU", *(f"a {device} device" for device in devices)])
        raise ValueError(f"images: expected a tensor on {places}, got one on {images.device}")
    too_many = not torch.compiler.is_compiling() and images.dim() and images.shape[0] == 2**63 - 1  # no guard on B
    if images.dim() < 2 or math.prod(images.shape[1:]) > MAX_INPUTS or too_many:
        shape = tuple(images.shape)
        raise ValueError(
            f"images: expected shape (B, ...) of at least two dimensions, B < 2^63 - 1, K <= 2^31, got {shape}"
        )
    return images.detach().reshape(images.shape[0], math.prod(images.shape[1:])).to(torch.float32)


def _check_index(index: Tensor | NDArray[Any] | Sequence[int]) -> Tensor:
    numbers = as_integers("index", index, torch.device("cpu"))
    if bool((numbers < 0).any()):
        raise ValueError(f"index: expected values of at least 0, got {int(numbers.min())}")
    return numbers
