"""Encodings, which turn the samples of a data set into batches of events.

``EventLoader`` and networks hold an encoding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from .._shared.arguments import as_int
from ..events import EventBatch, latency_encode, rate_encode
from ..events.checks import MAX_STEPS
from ..events.encoders import picture_encode
from .cochlea import SoundEncoding


@dataclass(frozen=True)
class RateEncoding:
    """Each pixel fires at every step with a probability proportional to its value; see ``srcell.rate_encode``."""

    steps: int = 200
    gain: float = 0.25
    prefix: int = 20
    thinned: bool = False

    def __call__(self, images: Tensor, index: Tensor | None = None, seed: int = 0) -> EventBatch:
        """Encode images (B, ...) as events (T, B, K); ``index`` (B,) holds their numbers, 0..B-1 by default."""
        return rate_encode(images, seed=seed, index=index, **asdict(self))


@dataclass(frozen=True)
class LatencyEncoding:
    """Each pixel that is not 0 fires once; see ``srcell.latency_encode``."""

    steps: int = 200
    prefix: int = 20

    def __call__(self, images: Tensor, index: Tensor | None = None, seed: int = 0) -> EventBatch:
        """Encode images (B, ...) as events (T, B, K), which do not depend on ``index`` and ``seed``."""
        return latency_encode(images, self.steps, prefix=self.prefix)


# The movement of the camera of Neuromorphic-MNIST, pixels across and down every 10 ms, as
# experiments/calibrate_camera.py fitted it to the first 200 training recordings.
SACCADES = tuple(
    (10.0 * k, x, y)
    for k, (x, y) in enumerate(
        [
            (2.54, 1.86), (2.56, 1.79), (2.62, 1.46), (2.68, 0.73), (2.71, -0.45), (2.61, -1.76), (2.10, -2.82),
            (1.40, -3.43), (0.98, -3.59), (0.95, -3.60), (0.91, -3.54), (0.81, -3.47), (0.59, -3.43), (0.15, -3.19),
            (-0.58, -2.37), (-1.18, -1.29), (-1.46, -0.15), (-1.78, 0.89), (-2.07, 1.41), (-2.22, 1.54), (-2.38, 1.54),
            (-2.59, 1.54), (-2.68, 1.55), (-2.62, 1.56), (-1.89, 1.52), (-0.88, 1.51), (0.17, 1.56), (1.20, 1.65),
            (1.86, 1.77), (2.32, 1.82), (2.52, 1.81), (2.54, 1.80), (2.54, 1.80),
        ]
    )
)  # fmt: skip


@dataclass(frozen=True)
class CameraEncoding:
    """An event camera looks at a picture and moves; see ``srcell.camera_encode``.

    By default it is the camera of Neuromorphic-MNIST before a picture of 28 x 28 pixels, with steps of 1 ms: movement
    and blur were fitted to 200 of its recordings, and with the threshold a digit has as many events.

    In step t pixel (x, y) of the sensor sees the picture at column ``x + (w - W) / 2 + size * px(t + 1) + dx`` and row
    ``y + (h - H) / 2 + size * py(t + 1) + dy``, bilinearly, and 0 outside of it.

    Attributes:
        steps: steps of the recording, at most 2^24.
        sensor_size: (H, W), the sensor's pixels.
        movement: points (step, px, py), ascending; the view moves straight between them, and rests before and after.
        threshold: as in ``srcell.camera_encode``; a number, or a pair for rising and falling brightness.
        spread: as there.
        refractory: as there.
        noise: as there.
        blur: standard deviation of the blur, in pixels of the picture, at most 8.
        size_jitter: standard deviation of each sample's ``size``, whose mean is 1; at most 0.3.
        place_jitter: standard deviation of each sample's ``dx`` and ``dy``, in pixels, at most 64.

    Example:
        >>> import torch
        >>> events = CameraEncoding()(torch.rand(2, 28, 28))
        >>> events.shape
        (316, 2, 2312)

    """

    steps: int = 316
    sensor_size: tuple[int, int] = (34, 34)
    movement: tuple[tuple[float, float, float], ...] = SACCADES
    threshold: float | tuple[float, float] = 0.15
    spread: float = 0.2
    refractory: int = 0
    noise: float = 2e-4
    blur: float = 0.54
    size_jitter: float = 0.0
    place_jitter: float = 0.0

    def __call__(self, images: Tensor, index: Tensor | None = None, seed: int = 0) -> EventBatch:
        """Encode images (B, h, w) as events (steps, B, 2 H W); ``index`` (B,) holds their numbers, default 0..B-1."""
        return picture_encode(images, index=index, seed=seed, **asdict(self))


@dataclass(frozen=True)
class HeldEncoding:
    """Each element of a sequence becomes the value of events in ``hold`` steps: a current, not a spike.

    Example:
        >>> import torch
        >>> HeldEncoding(hold=2)(torch.tensor([[[0.5], [-1.0]]])).to_dense()[:, 0, 0]
        tensor([ 0.5000,  0.5000, -1.0000, -1.0000])

    """

    hold: int = 4
    prefix: int = 0

    def __post_init__(self) -> None:
        as_int("hold", self.hold, MAX_STEPS, minimum=1)
        as_int("prefix", self.prefix, MAX_STEPS)

    def __call__(
        self, values: Tensor, index: Tensor | None = None, seed: int = 0, lengths: Tensor | None = None
    ) -> EventBatch:
        """Encode sequences (B, S, K) as events (prefix + hold * S, B, K), whatever ``index`` and ``seed`` are.

        ``lengths`` (B,) gives the number of elements of each sequence; S for all by default.
        """
        steps = self.held(values.movedim(1, 0))
        return EventBatch.from_dense(steps, None if lengths is None else self.prefix + self.hold * lengths)

    def held(self, elements: Tensor) -> Tensor:
        """The dense steps (prefix + hold * S, B, ...) of elements (S, B, ...)."""
        steps = elements.unsqueeze(1).expand(-1, self.hold, *elements.shape[1:]).flatten(0, 1)
        if not self.prefix:
            return steps
        return torch.cat([steps.new_zeros(self.prefix, *steps.shape[1:]), steps])


@dataclass(frozen=True)
class RecallEncoding:
    """A symbol, noise for ``delay`` steps, then a cue, after which the network must name the symbol.

    In each of the first ``SHOWN`` steps the inputs of the symbol fire. In the next ``delay`` steps each noise input
    fires at random. In the last ``ANSWERED`` steps there is no noise; in the first ``SHOWN`` of them the cue's input
    fires.

    Example:
        >>> import torch
        >>> images = torch.zeros(1, 1, RecallEncoding.INPUTS)
        >>> images[0, 0, 3] = 1
        >>> events = RecallEncoding(delay=30)(images)
        >>> events.shape, events.to_dense()[:, 0, 3].sum()
        ((55, 1, 25), tensor(5.))

    """

    delay: int = 200

    SYMBOLS = 8
    NOISE = 16
    INPUTS = SYMBOLS + NOISE + 1
    SHOWN = 5
    ANSWERED = 20
    PROBABILITY = 0.1

    def __post_init__(self) -> None:
        as_int("delay", self.delay, MAX_STEPS)

    def __call__(self, images: Tensor, index: Tensor | None = None, seed: int = 0) -> EventBatch:
        """Encode symbols (B, 1, INPUTS), 1 at a symbol's inputs, as events (SHOWN + delay + ANSWERED, B, INPUTS).

        The noise depends on ``seed`` and the samples' numbers ``index``, 0..B-1 by default.
        """
        symbols = images.flatten(1)
        silent = symbols.new_zeros(self.SHOWN + self.delay + self.ANSWERED, *symbols.shape)
        silent[: self.SHOWN] = symbols
        silent[self.SHOWN + self.delay : -self.ANSWERED + self.SHOWN, :, -1] = 1
        noise = torch.full((len(symbols), self.NOISE), self.PROBABILITY)
        spikes = rate_encode(noise, self.delay, prefix=0, gain=1.0, seed=seed, index=index).to_dense(silent.dtype)
        silent[self.SHOWN : self.SHOWN + self.delay, :, self.SYMBOLS : -1] = spikes
        return EventBatch.from_dense(silent)


Encoding: TypeAlias = RateEncoding | LatencyEncoding | CameraEncoding | HeldEncoding | RecallEncoding | SoundEncoding
