"""``Dataset`` and its samples, ``LabelledImages`` and ``LabelledEvents``.

Loaders return it and training reads it; it must never know where samples come from or what a network does with them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

from torch import Tensor

from ..events import EventBatch


class LabelledImages(NamedTuple):
    """B images with their classes.

    Attributes:
        images: (B, H, W), float32 in [0, 1].
        labels: (B,), int64 in 0..num_classes-1.

    """

    images: Tensor
    labels: Tensor

    def select(self, index: Tensor) -> LabelledImages:
        """The samples of those numbers, in that order."""
        return LabelledImages(self.images[index], self.labels[index])


class LabelledEvents(NamedTuple):
    """B recordings of an event camera with their classes.

    Attributes:
        events: (T, B, K) with lengths.
        labels: (B,), int64 in 0..num_classes-1.

    """

    events: EventBatch
    labels: Tensor

    def select(self, index: Tensor) -> LabelledEvents:
        """The samples of those numbers, in that order; T is then the longest of them."""
        chosen = self.events[index]
        lengths = chosen.lengths
        if lengths is not None:
            chosen = chosen.truncate(int(lengths.max()) if len(lengths) else 0)
        return LabelledEvents(chosen, self.labels[index])


Samples: TypeAlias = LabelledImages | LabelledEvents


class Dataset(NamedTuple):
    """A data set in its two parts.

    Attributes:
        train: what is learnt from.
        test: what is held out.
        num_classes: the number of classes.
        input_shape: channels, height and width; their product is K, the inputs of a step.
        class_names: what the classes are called, in the order of their labels; empty where a label is the name, as of
            digits.

    """

    train: Samples
    test: Samples
    num_classes: int
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()

    @property
    def input_size(self) -> int:
        """K, the inputs of a step."""
        return math.prod(self.input_shape)
