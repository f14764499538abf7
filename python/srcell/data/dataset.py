"""What a data set of labelled images is, whichever it is.

Loaders return it and training reads it; it must never know where images come from or how they become spikes.
"""

from typing import NamedTuple

from torch import Tensor


class LabelledImages(NamedTuple):
    """B images with their classes.

    Attributes:
        images: (B, H, W), float32 in [0, 1].
        labels: (B,), int64 in 0..num_classes-1.

    """

    images: Tensor
    labels: Tensor


class Dataset(NamedTuple):
    """A data set in its two parts.

    Attributes:
        train: what is learnt from.
        test: what is held out.
        num_classes: the number of classes.

    """

    train: LabelledImages
    test: LabelledImages
    num_classes: int
