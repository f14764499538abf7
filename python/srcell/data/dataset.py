"""``Dataset`` and its samples: ``LabelledImages``, ``LabelledSequences``, ``LabelledEvents``.

``LabelledSounds``, the fourth kind of samples, is in ``sounds.py`` with the reader of WAV files.
The functions that load data sets return a ``Dataset``, and training reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from .._shared.labels import IGNORED
from ..events import EventBatch
from ..events.checks import as_integers
from .sounds import LabelledSounds, longest


class LabelledImages(NamedTuple):
    """B images with their class labels.

    Attributes:
        images: (B, H, W), float32 in [0, 1].
        labels: (B,), int64 in 0..num_classes-1.

    """

    images: Tensor
    labels: Tensor

    def __repr__(self) -> str:
        return f"LabelledImages(images of shape {tuple(self.images.shape)})"

    def select(self, index: Tensor) -> LabelledImages:
        """The samples with the given numbers, in that order."""
        return LabelledImages(self.images[index], self.labels[index])


class LabelledEvents(NamedTuple):
    """B recordings of events with their class labels.

    Attributes:
        events: (T, B, K), with lengths unless all samples have T steps.
        labels: (B,), int64 in 0..num_classes-1; of every step (B, T), ``IGNORED`` where a step has none. Or targets,
            floats: (B, C), or (B, T, C).

    """

    events: EventBatch
    labels: Tensor

    def __repr__(self) -> str:
        return f"LabelledEvents({self.events!r})"

    @classmethod
    def of(cls, recordings: Sequence[EventBatch], labels: Sequence[int]) -> LabelledEvents:
        """Join recordings (at least one, each a batch of one sample) into a batch that has their lengths."""
        # cat() adds lengths only if a batch is shorter than ``steps``: one more silent step makes all of them shorter.
        longest = max(recording.shape[0] for recording in recordings)
        return cls(EventBatch.cat(recordings, steps=longest + 1).truncate(longest), torch.tensor(labels))

    def select(self, index: Tensor) -> LabelledEvents:
        """The samples of the given numbers, in that order; T becomes the largest of their lengths."""
        index = as_integers("index", index, self.events.device)
        lengths = None if self.events.lengths is None else self.events.lengths[index]
        most = longest(lengths)
        return LabelledEvents(self.events._gathered(index, most), _chosen(self.labels, index, most))


class LabelledSequences(NamedTuple):
    """B sequences of real numbers with their class labels.

    Attributes:
        values: (B, S, K), float32; 0 past the end of a shorter sequence.
        labels: (B,), int64 in 0..num_classes-1; of every element (B, S), ``IGNORED`` where one has none. Or targets,
            floats: (B, C), or (B, S, C).
        lengths: (B,), int64 in 1..S, number of elements of each sequence; None if all have S.

    """

    values: Tensor
    labels: Tensor
    lengths: Tensor | None = None

    def __repr__(self) -> str:
        lengths = "" if self.lengths is None else ", with lengths"
        return f"LabelledSequences(values of shape {tuple(self.values.shape)}{lengths})"

    def select(self, index: Tensor) -> LabelledSequences:
        """The samples of the given numbers, in that order; S becomes the largest of their lengths."""
        lengths = None if self.lengths is None else self.lengths[index]
        most = longest(lengths)
        return LabelledSequences(self.values[index, :most], _chosen(self.labels, index, most), lengths)


def _chosen(labels: Tensor, index: Tensor, most: int | None) -> Tensor:
    """The labels of the samples with the given numbers, those of every step up to the largest of their lengths."""
    return labels[index, :most] if of_every_step(labels) else labels[index]


def of_every_step(labels: Tensor) -> bool:
    """Whether labels (B, T) or targets (B, T, C) are of every step, and not of whole samples."""
    return labels.dim() == (3 if labels.is_floating_point() else 2)


Samples: TypeAlias = LabelledImages | LabelledSequences | LabelledEvents | LabelledSounds


class Dataset(NamedTuple):
    """A data set: training samples and test samples.

    Attributes:
        train: the samples to train on.
        test: the samples held out for testing.
        num_classes: the number of classes, C; of targets, the number of their values.
        input_shape: channels, height and width; their product is K, the number of inputs. (K, 1, 1) for sequences,
            and (1, 1, 1) for sounds, whose encoding determines the number of inputs.
        class_names: the names of the classes, by label; empty if the labels name themselves, and for targets.

    """

    train: Samples
    test: Samples
    num_classes: int
    input_shape: tuple[int, int, int]
    class_names: tuple[str, ...] = ()

    @property
    def input_size(self) -> int:
        """K, the number of inputs."""
        return math.prod(self.input_shape)

    def numbered_as(self, names: Sequence[str]) -> Dataset:
        """The data set with its labels numbered as those names, some of which it may lack.

        Raises:
            ValueError: a class has none of the names.

        """
        unknown = next((name for name in self.class_names if name not in names), None)
        if unknown is not None:
            raise ValueError(f"dataset: expected classes of the network, {', '.join(names):.200}, got {unknown!r:.60}")
        number = torch.tensor([*map(names.index, self.class_names), IGNORED])
        count = len(self.class_names)

        def of(samples: Samples) -> Samples:
            inside = (samples.labels >= 0) & (samples.labels < count)
            return samples._replace(labels=number[torch.where(inside, samples.labels, count)])

        train, test = of(self.train), of(self.test)
        return self._replace(train=train, test=test, num_classes=len(names), class_names=tuple(names))
