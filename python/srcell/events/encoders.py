"""``rate_encode``, ``latency_encode`` and ``camera_encode``: turn images and video into spikes.

Training and users call them. The encoders check arguments; operators of ``ops`` write the events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from .._shared.arguments import as_float, as_int, check_bool
from ..ops import encode
from .batch import EventBatch
from .checks import MAX_INPUTS, MAX_STEPS, as_integers, as_tensor

MOST_CAMERA_STEPS, MOST_SIDE = 2**24, 2**15


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
    numbers = _numbers(index, samples, pixels.device)
    steps = as_int("steps", steps, MAX_STEPS)
    prefix = as_int("prefix", prefix, MAX_STEPS)
    seed = as_int("seed", seed, 2**64 - 1)
    check_bool("thinned", thinned)
    gain = as_float("gain", gain)
    if not (math.isfinite(gain) and gain >= 0):
        raise ValueError(f"gain: expected a finite value of at least 0, got {gain}")
    offsets, indices = encode.rate_encode(
        pixels, numbers, steps=steps, prefix=prefix, gain=gain, seed=_signed(seed), thinned=thinned
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


def camera_encode(
    frames: Tensor | NDArray[Any],
    *,
    threshold: float | tuple[float, float] = 0.19,
    spread: float = 0.0,
    dark: float = 0.0,
    refractory: int = 0,
    noise: float = 0.0,
    seed: int,
    index: Tensor | NDArray[Any] | Sequence[int] | None = None,
) -> EventBatch:
    """Let an event camera look at video: a pixel fires where brightness changes.

    Each pixel keeps a level. Where brightness is above the level by the threshold, the pixel sends an event of polarity
    0; where it is below by the threshold, one of polarity 1. The level then moves by the threshold, as often as it
    fits. It starts anywhere within the thresholds around the first frame, at random.

    The events of a sample depend only on its frames, its number in ``index``, the seed and the options: they are the
    same in every batch, on any number of threads and on every machine.

    Args:
        frames: (T, B, H, W), brightness in [0, 1]; any floating-point dtype, read as float32; on the CPU. T <= 2^24,
            H and W <= 2^15.
        threshold: change of brightness that makes an event, in [1e-4, 1e4]; or a pair: where it rises, where it falls.
        spread: standard deviation of the pixels' thresholds, relative to the threshold, in [0, 0.3].
        dark: 0 counts brightness itself; above 0 the pixels see ``log(dark + brightness)``.
        refractory: steps after an event in which the pixel sends none, in [0, 2^24].
        noise: mean number of events per pixel and step that no change causes, in [0, 1].
        seed: in [0, 2^64); another seed gives other levels, thresholds and noise.
        index: (B,) integers of at least 0, the samples' numbers; 0..B-1 if absent.

    Returns:
        A batch of shape (T, B, 2 H W) without values and lengths; each row ascends. Input ``(p * H + y) * W + x`` is
        polarity p of pixel (x, y), as in ``EventBatch.from_events`` and in Neuromorphic-MNIST, whose polarity is 1
        where brightness falls.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument and what was expected.

    Source: this project's model of the camera of Orchard et al. 2015, doi:10.3389/fnins.2015.00437, fitted to their
    recordings.

    Example:
        >>> import torch
        >>> from srcell import camera_encode
        >>> edge = (torch.arange(8) < torch.arange(8)[:, None, None, None]).float()  # moves to the right
        >>> events = camera_encode(edge.expand(8, 1, 1, 8), threshold=0.5, seed=0)
        >>> events.shape, events.to_dense()[:, 0, :8].sum().item()
        ((8, 1, 16), 7.0)

    """
    video = as_tensor("frames", frames)
    if not video.is_floating_point():
        raise TypeError(f"frames: expected a tensor or an array of floating-point numbers, got {video.dtype}")
    most = (MOST_CAMERA_STEPS, MAX_STEPS, MOST_SIDE, MOST_SIDE)
    if video.dim() != 4 or video.device.type != "cpu" or any(n > m for n, m in zip(video.shape, most, strict=True)):
        raise ValueError(
            "frames: expected shape (T, B, H, W) on the CPU, T <= 2^24, B < 2^31, H and W <= 2^15, got "
            f"{tuple(video.shape)} on {video.device}"
        )
    steps, samples, height, width = video.shape
    offsets, indices = encode.camera_frames(
        video.detach().to(torch.float32),
        _numbers(index, samples, video.device),
        dark=as_float("dark", dark),
        **_sensor(threshold, spread, refractory, noise, seed),
    )
    return EventBatch._trusted(offsets, indices, None, (steps, samples, 2 * height * width), None)


def picture_encode(
    pictures: Tensor,
    *,
    index: Tensor | None,
    movement: Sequence[tuple[float, float, float]],
    steps: int,
    sensor_size: tuple[int, int],
    blur: float,
    size_jitter: float,
    place_jitter: float,
    **sensor: Any,
) -> EventBatch:
    """As ``camera_encode``, of pictures (B, H, W) under a movement; ``srcell.data.CameraEncoding`` calls it."""
    seen = as_tensor("images", pictures)
    if not seen.is_floating_point():
        raise TypeError(f"images: expected a tensor or an array of floating-point numbers, got {seen.dtype}")
    most = (MAX_STEPS, MOST_SIDE, MOST_SIDE)
    if seen.dim() != 3 or seen.device.type != "cpu" or any(n > m for n, m in zip(seen.shape, most, strict=True)):
        raise ValueError(
            "images: expected shape (B, H, W) on the CPU, B < 2^31, H and W <= 2^15, got "
            f"{tuple(seen.shape)} on {seen.device}"
        )
    height, width = (as_int("sensor_size", side, MAX_STEPS, minimum=1) for side in _pair("sensor_size", sensor_size))
    steps, samples = as_int("steps", steps, MAX_STEPS), len(seen)
    offsets, indices = encode.camera_pictures(
        seen.detach().to(torch.float32),
        _points(movement),
        _numbers(index, samples, seen.device),
        steps=steps,
        height=height,
        width=width,
        blur=as_float("blur", blur),
        size_jitter=as_float("size_jitter", size_jitter),
        place_jitter=as_float("place_jitter", place_jitter),
        **_sensor(**sensor),
    )
    return EventBatch._trusted(offsets, indices, None, (steps, samples, 2 * height * width), None)


def _sensor(
    threshold: float | tuple[float, float], spread: float, refractory: int, noise: float, seed: int
) -> dict[str, Any]:
    """The options of a camera's pixels, as the operators take them; the kernels check their ranges."""
    rise, fall = (threshold, threshold) if isinstance(threshold, int | float) else _pair("threshold", threshold)
    return {
        "rise": as_float("threshold", rise),
        "fall": as_float("threshold", fall),
        "spread": as_float("spread", spread),
        "refractory": as_int("refractory", refractory, MAX_STEPS),
        "noise": as_float("noise", noise),
        "seed": _signed(as_int("seed", seed, 2**64 - 1)),
    }


def _pair(name: str, values: Any) -> tuple[Any, Any]:
    if not isinstance(values, list | tuple) or len(values) != 2:
        raise TypeError(f"{name}: expected a pair of numbers, got {values!r:.60}")
    return values[0], values[1]


def _points(movement: Any) -> Tensor:
    """The points (step, x, y) of a movement, (points, 3)."""
    try:
        points = torch.tensor([[float(x) for x in point] for point in movement], dtype=torch.float64, device="cpu")
    except (TypeError, ValueError):
        raise TypeError(f"movement: expected points (step, x, y), got {movement!r:.60}") from None
    if points.dim() != 2 or points.shape[1] != 3:
        raise ValueError(f"movement: expected points (step, x, y), got shape {tuple(points.shape)}")
    return points


def _signed(seed: int) -> int:
    """The seed as an operator's integer, which is signed; the kernels read it modulo 2^64."""
    return seed - 2**64 if seed >= 2**63 else seed


def _numbers(index: Tensor | NDArray[Any] | Sequence[int] | None, samples: int, device: torch.device) -> Tensor:
    """The samples' numbers, 0..B-1 if absent."""
    if index is None:
        return torch.arange(samples, device=device)
    numbers = as_integers("index", index, torch.device("cpu"))
    if bool((numbers < 0).any()):
        raise ValueError(f"index: expected values of at least 0, got {int(numbers.min())}")
    return numbers.to(device)


def _check_images(images: Tensor | NDArray[Any], *devices: str) -> Tensor:
    """The images as float32 (B, K); the operators check their values."""
    images = as_tensor("images", images)
    if not images.is_floating_point():
        raise TypeError(f"images: expected a tensor or an array of floating-point numbers, got {images.dtype}")
    if images.device.type not in ("cpu", *devices):
        places = " or ".join(["the CPU", *(f"a {device} device" for device in devices)])
        raise ValueError(f"images: expected a tensor on {places}, got one on {images.device}")
    too_many = not torch.compiler.is_compiling() and images.dim() and images.shape[0] >= 2**60  # no guard on B
    if images.dim() < 2 or math.prod(images.shape[1:]) > MAX_INPUTS or too_many:
        shape = tuple(images.shape)
        raise ValueError(
            f"images: expected shape (B, ...) of at least two dimensions, B < 2^60, K <= 2^31, got {shape}"
        )
    return images.detach().reshape(images.shape[0], math.prod(images.shape[1:])).to(torch.float32)
