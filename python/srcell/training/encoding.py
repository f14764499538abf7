"""``EncodingSettings``: how a configuration turns samples into a network's input."""

from __future__ import annotations

from dataclasses import dataclass

from .. import data
from .._shared.settings import positive_fraction, setting, size
from ..data.own import is_own


@dataclass(frozen=True, kw_only=True)
class EncodingSettings:
    """The encoding of a configuration; which settings act depends on the data set."""

    encoding: str = setting(
        "rate",
        "encoding of images: rate, latency or camera; of your own data also held, sound or none",
        "recordings of events need none, sequences are held, sounds are sound",
        choices=("rate", "latency", "camera", "held", "sound", "none"),
    )
    steps: int = size(100, "steps per encoded sample", "after the silent prefix")
    prefix: int = size(20, "silent steps before each sample", least=0)
    gain: float = positive_fraction(0.5, "rate coding: probability that a pixel of value 1 fires in a step")
    thinned: bool = setting(
        False, "rate coding: let no pixel fire in two consecutive steps", "as in rate_encode", needs=("encoding=rate",)
    )
    size_jitter: float = setting(
        0.05, "camera: deviation of the movement's size", "relative", least=0, needs=("encoding=camera",)
    )
    place_jitter: float = setting(
        0.4, "camera: deviation of the place of the view, in pixels", least=0, needs=("encoding=camera",)
    )
    noise: float = setting(
        data.CameraEncoding.noise,
        "camera: events per pixel and step that no change causes",
        least=0,
        needs=("encoding=camera",),
    )
    standardise: bool = setting(
        False,
        "standardise each input of a sequence",
        "to mean 0 and standard deviation 1 over the elements of the training samples, as srcell.Standardise",
    )
    hold: int = size(4, "steps for which each element of a sequence, or frame of a sound, is held")
    frame: float = setting(0.01, "seconds of a frame of a sound", "as in SoundEncoding", least=0, open_least=True)
    threshold: float = setting(
        0.0, "change of a sound's level that becomes a spike; 0: currents", "as in SoundEncoding", least=0
    )
    recall_delay: int = size(200, "steps of noise between symbol and cue in delayed recall", least=0)

    def sample_kind(self, dataset: str) -> str:
        """The kind of a data set's samples, as ``srcell.data.kind``; of one's own, that of the encoding."""
        if is_own(dataset):
            return KINDS.get(self.encoding, "images")
        return data.kind(dataset)

    def used_by(self, dataset: str) -> tuple[str, ...]:
        """The settings that act on a data set."""
        own = ("encoding",) if is_own(dataset) else ()
        if dataset == "delayed-recall":
            return ("recall_delay",)
        of_images = {
            "camera": ("size_jitter", "place_jitter", "noise"),
            "rate": ("steps", "prefix", "gain", "thinned"),
        }.get(self.encoding, ("steps", "prefix"))
        return {
            "events": own or ("prefix",),
            "sounds": (*own, "hold", "frame", "threshold"),
            "sequences": (*own, "standardise", "hold", "prefix"),
            "images": ("encoding", *of_images),
        }[self.sample_kind(dataset)]


# The encodings of one's own data that are not images.
KINDS = {"held": "sequences", "sound": "sounds", "none": "events"}
