"""``Dataset`` and its samples, ``LabelledImages`` and ``LabelledEvents``.

The functions that load data sets return it and training reads it; it must never know where samples come from or what a
network does with them.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

from torch import Tensor

from ..events import EventBatch


class LabelledImages(NamedTuple):
    """B images with their class labels.

    Attributes:
        images: (B, H, W), float32 in [0, 1].
        labels: (B,), int64 in 0..num_classes-1.

    """

    images: Tensor
    labels: Tensor

    def select(self, index: Tensor) -> LabelledImages:
        """The samples of the given numbers, in that order."""
        return LabelledImages(self.images[index], self.labels[index])


class LabelledEvents(NamedTuple):
    """B recordings of an event camera with their class labels.

    Attributes:
        events: (T, B, K) with lengths.
        labels: (B,), int64 in 0..num_classes-1.

    """

    events: EventBatch
    labels: Tensor

    def select(self, index: Tensor) -> LabelledEvents:
        """The samples of the given numbers, in that order; T becomes the largest of their lengths."""
        chosen = self.events[index]
        lengths = chosen.lengths
        if lengths is not None:
            chosen = chosen.truncate(int(lengths.max()) if len(lengths) else 0)
        return LabelledEvents(chosen, self.labels[index])


Samples: TypeAlias = LabelledImages | LabelledEvents


class Dataset(NamedTuple):
    """A data set: training samples and test samples.

    Attributes:
        train: the samples to train on.
        test: the samples held out for testing.
        num_classes: the number of classes.
        input_shape: channels, height and width; their product is K, the number of inputs.

    """

    train: Samples
    test: Samples
    num_classes: int
    input_shape: tuple[int, int, int]

    @property
    def input_size(self) -> int:
        """K, the number of inputs."""
        return math.prod(self.input_shape)
