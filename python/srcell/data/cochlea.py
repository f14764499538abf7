"""``SoundEncoding``: turns sounds into currents or events, as the filters of a cochlea do.

The arithmetic is csrc/runtime/cochlea.h, which exported networks run too; this file computes its constants. It must
never know which sounds it hears.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._shared.arguments import as_float, as_int, as_positive, require_floats, require_values
from ..events import EventBatch
from ..events.checks import MAX_STEPS, as_integers, check_lengths, offsets_of
from ..runtime import Hearing

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class SoundEncoding:
    """Gammatone filters, half-wave rectified, smoothed, compressed and sampled: 100 times a second by default.

    Each band is a gammatone filter of order 4, whose bandwidth is that of the ear at its frequency; the frequencies are
    equally spaced on the scale of these bandwidths (ERB). A band's output is rectified and smoothed; at the end of each
    frame its fourth root y is taken. Then z = (y - ``adaptation`` m - ``offset``) ``scale``, where m is the mean of y
    over about ``memory`` seconds. The result depends on nothing that comes later, and whole sounds and chunks of any
    lengths give the same bits.

    With ``threshold`` 0 the z of all bands are currents: values of events in each of the ``hold`` steps of a frame.
    Otherwise band k sends an event of input 2 k when z has risen by ``threshold`` since its last event, of input
    2 k + 1 when it has fallen by as much, at most one in a frame and in its first step: events without values. The
    offset is then 0.

    Args:
        rate: samples per second of the sounds, Hz.
        bands: number of filters.
        lowest: centre of the lowest filter, Hz.
        highest: centre of the highest filter, Hz; below rate / 2.
        frame: length of a frame, seconds; rounded to whole samples.
        hold: steps of the network in each frame.
        smoothing: time constant of the smoothing, seconds.
        memory: time constant of the mean m, seconds.
        adaptation: share of m that is subtracted, in [0, 1]; 0 for no adaptation.
        threshold: of events, in units of z; 0 for currents.
        offset: of each band's y, one number or one for each band. With the defaults the z of speech at full level has a
            mean of about 0 and a deviation of about 0.5, which suits ``SRC.for_sequences``; ``fitted`` computes both
            from sounds.
        scale: of each band, one number or one for each band.

    Raises:
        ValueError, TypeError: a setting outside its range or of a wrong type; the message names it.

    Source: the filters are those of M. Slaney, "An efficient implementation of the Patterson-Holdsworth auditory filter
    bank", Apple technical report 35 (1993).

    Example:
        >>> import torch
        >>> encoding = SoundEncoding(bands=4)
        >>> tone = torch.sin(6.2832 * 440 * torch.arange(4000) / 8000)  # 440 Hz for half a second
        >>> events = encoding(tone[None])
        >>> events.shape  # a step for each of 50 frames
        (50, 1, 4)
        >>> int(events.to_dense()[-1, 0].argmax())  # the centres are 100, 480, 1396 and 3800 Hz
        1

    """

    rate: int = 8000
    bands: int = 32
    lowest: float = 100.0
    highest: float = 3800.0
    frame: float = 0.01
    hold: int = 1
    smoothing: float = 0.008
    memory: float = 0.3
    adaptation: float = 0.0
    threshold: float = 0.0
    offset: float | tuple[float, ...] = 0.16
    scale: float | tuple[float, ...] = 6.25

    def __post_init__(self) -> None:
        for name, least, most in (("rate", 1, 2**20), ("bands", 1, 4096), ("hold", 1, 1024)):
            object.__setattr__(self, name, as_int(name, getattr(self, name), most, minimum=least))
        for name in ("lowest", "highest", "frame", "smoothing", "memory", "adaptation", "threshold"):
            object.__setattr__(self, name, as_float(name, getattr(self, name)))
        if not 0 < self.lowest <= self.highest < self.rate / 2:
            raise ValueError(
                f"lowest, highest: expected 0 < lowest <= highest < {self.rate / 2:g} Hz, got {self.lowest} and "
                f"{self.highest}"
            )
        for name in ("frame", "smoothing", "memory"):
            as_positive(name, getattr(self, name))
        if self.frame * self.rate > 2**21 or not 1 <= self.hop <= 2**20:
            raise ValueError(f"frame: expected from 1 to 2^20 samples, got {self.frame} seconds at {self.rate} Hz")
        if not 0 <= self.adaptation <= 1:
            raise ValueError(f"adaptation: expected a share in [0, 1], got {self.adaptation!r}")
        if not 0 <= self.threshold < math.inf:
            raise ValueError(f"threshold: expected a number >= 0, got {self.threshold!r}")
        for name in ("offset", "scale"):
            given = getattr(self, name)
            several = isinstance(given, (list, tuple))  # JSON gives lists
            numbers = tuple(as_float(name, number) for number in (given if several else [given]))
            if len(numbers) not in (1, self.bands) or not all(map(math.isfinite, numbers)):
                expected = f"a finite number, or one for each of {self.bands} bands"
                raise ValueError(f"{name}: expected {expected}, got {given!r:.80}")
            object.__setattr__(self, name, numbers if several else numbers[0])

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return round(self.frame * self.rate)

    @property
    def inputs(self) -> int:
        """K, the inputs of the network: one for each band, or two with a threshold."""
        return 2 * self.bands if self.threshold else self.bands

    @property
    def centres(self) -> Doubles:
        """(bands,) the frequencies of the filters, Hz."""
        ends = [21.4 * math.log10(1 + 0.00437 * f) for f in (self.lowest, self.highest)]
        made: Doubles = (10 ** (np.linspace(ends[0], ends[1], self.bands) / 21.4) - 1) / 0.00437
        return made

    def exported(self) -> dict[str, Tensor]:
        """The constants as an exported file holds them, float64.

        ``sound.sections`` (bands, 4, 5): b0, b1, b2, a1 and a2 of each second-order section; ``sound.constants``:
        samples and steps of a frame, share of a sample in the smoothing and of a frame in the mean, adaptation,
        threshold, 0; ``sound.offset`` and ``sound.scale`` (bands,).
        """
        smooth = -math.expm1(-1 / (self.smoothing * self.rate))
        pace = -math.expm1(-self.hop / (self.memory * self.rate))
        constants = [self.hop, self.hold, smooth, pace, self.adaptation, self.threshold, 0.0]
        numbers = {
            "sections": np.stack([_gammatone(f, self.rate) for f in self.centres]),
            "constants": np.array(constants, np.float64),
            "offset": np.broadcast_to(np.asarray(self.offset, np.float64), self.bands).copy(),
            "scale": np.broadcast_to(np.asarray(self.scale, np.float64), self.bands).copy(),
        }
        return {f"sound.{name}": torch.from_numpy(x) for name, x in numbers.items()}

    def hearing(self) -> Hearing:
        """Begin to hear a sound that comes in chunks: a :class:`srcell.runtime.Hearing`."""
        return Hearing(**{name.removeprefix("sound."): x.numpy() for name, x in self.exported().items()})

    def __call__(
        self, waves: Tensor, index: Tensor | None = None, seed: int = 0, lengths: Tensor | None = None
    ) -> EventBatch:
        """Encode sounds (B, S) as events (frames * hold, B, K), whatever ``index`` and ``seed`` are.

        ``lengths`` (B,) gives the number of samples of each sound, S for all by default. Samples after the last whole
        frame are left out.

        Raises:
            TypeError: not a tensor of real numbers, or lengths that are no integers.
            ValueError: a wrong shape, more than 2^31 - 1 steps, a sample that is not finite as float32, or a length
                outside [0, S].

        """
        waves, ends = _checked(waves, lengths)
        frames = waves.shape[1] // self.hop
        if frames * self.hold > MAX_STEPS:
            raise ValueError(f"waves: expected sounds of at most {MAX_STEPS} steps, got {frames * self.hold}")
        heard = self._heard(waves, ends)
        steps = None if lengths is None else ends // self.hop * self.hold
        if not self.threshold:
            dense = torch.zeros(frames, len(waves), self.bands)
            for sample, currents in enumerate(heard):
                dense[: len(currents), sample] = torch.from_numpy(currents)
            return EventBatch.from_dense(dense.repeat_interleave(self.hold, 0), steps)
        counts = torch.zeros(len(waves), frames, self.hold, dtype=torch.int64)
        for sample, (offsets, _) in enumerate(heard):
            counts[sample, : len(offsets) - 1, 0] = torch.from_numpy(np.diff(offsets))
        offsets = offsets_of(counts.flatten())
        indices = torch.from_numpy(np.concatenate([np.zeros(0, np.int32), *(active for _, active in heard)]))
        return EventBatch(offsets, indices, shape=(frames * self.hold, len(waves), self.inputs), lengths=steps)

    def _heard(self, waves: Tensor, ends: Tensor) -> list[Any]:
        """What ``Hearing.take`` returns for each of the sounds (B, S), up to its end."""
        return [self.hearing().take(wave[:end]) for wave, end in zip(waves, ends.tolist(), strict=True)]

    def fitted(self, waves: Tensor, lengths: Tensor | None = None, deviation: float = 0.5) -> SoundEncoding:
        """The same encoding with the offset and scale that give z a mean of 0 and this deviation in each band.

        Args:
            waves: (B, S) sounds, of the training set.
            lengths: (B,) their numbers of samples, S for all by default.
            deviation: of z in each band.

        Raises:
            TypeError, ValueError: as the call of an encoding; no sound has a whole frame; or a deviation that is not
                positive and finite.

        """
        deviation = as_positive("deviation", deviation)
        plain = dataclasses.replace(self, threshold=0.0, offset=0.0, scale=1.0)
        frames = np.concatenate([np.zeros((0, self.bands)), *plain._heard(*_checked(waves, lengths))])
        if not len(frames):
            raise ValueError("waves: expected a sound of at least one frame, got none")
        measured = frames.std(0)
        scale = deviation / np.where(measured > 0, measured, deviation)
        return dataclasses.replace(
            self, offset=tuple(frames.mean(0).tolist()), scale=tuple(np.asarray(scale, np.float64).tolist())
        )


def _checked(waves: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """Sounds as float32 on the CPU, and their numbers of samples (B,); raise if they are not (B, S) and (B,)."""
    require_floats("waves", waves)
    require_values("waves", waves)
    if waves.dim() != 2:
        raise ValueError(f"waves: expected shape (B, S), got {tuple(waves.shape)}")
    batch, samples = waves.shape
    cpu = torch.device("cpu")
    ends = torch.full((batch,), samples) if lengths is None else as_integers("lengths", lengths, cpu)
    return waves.detach().to(cpu, torch.float32).resolve_neg(), check_lengths(ends, (samples, batch, 1), cpu)


def _gammatone(centre: float, rate: int) -> Doubles:
    """The four sections of a gammatone filter, each with gain 1 at the centre: (4, 5) b0, b1, b2, a1, a2."""
    width = 1.019 * 24.7 * (4.37 * centre / 1000 + 1)  # Hz; 24.7 (4.37 f / 1000 + 1) is the bandwidth of the ear
    turn, decay = 2 * math.pi * centre / rate, math.exp(-2 * math.pi * width / rate)
    z = np.exp(-1j * turn)
    sections = []
    for outer, inner in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        zero = decay * (math.cos(turn) + outer * math.sqrt(3 + inner * 2**1.5) * math.sin(turn))
        a1, a2 = -2 * math.cos(turn) * decay, decay**2
        gain = abs((1 - zero * z) / (1 + a1 * z + a2 * z * z))
        sections.append([1 / gain, -zero / gain, 0.0, a1, a2])
    return np.array(sections)
