"""Encodings, which turn the samples of a data set into batches of events.

``EventLoader`` and networks hold an encoding.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..events import EventBatch, latency_encode, rate_encode
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


Encoding: TypeAlias = RateEncoding | LatencyEncoding | HeldEncoding | RecallEncoding | SoundEncoding
