"""Data sets by name.

Training and the command line ask here. This package turns files and other packages' data into tensors; it must never
know about encodings or networks.
"""

import difflib
from collections.abc import Sequence
from typing import Any

from torch.utils.data import default_collate

from ..events import EventBatch
from .dataset import Dataset, LabelledImages
from .digits import load_digits

__all__ = ["Dataset", "LabelledImages", "collate", "load", "load_digits"]

LOADERS = {"digits": load_digits}


def load(name: str) -> Dataset:
    """The data set of that name: "digits".

    Raises:
        ValueError: there is no such data set; the message names the nearest one.
        ImportError: the data set needs a package that is not installed.

    Example:
        >>> load("digits").num_classes
        10
        >>> load("digit")
        Traceback (most recent call last):
        ValueError: unknown data set 'digit': did you mean 'digits'?

    """
    if name not in LOADERS:
        nearest = difflib.get_close_matches(name, LOADERS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(LOADERS)}"
        raise ValueError(f"unknown data set {name!r}: {hint}")
    return LOADERS[name]()


def collate(samples: Sequence[tuple[EventBatch, Any]]) -> tuple[EventBatch, Any]:
    """Join what a data set of event recordings gives; the ``collate_fn`` of a ``torch.utils.data.DataLoader``.

    Args:
        samples: pairs of a batch of one sample and its label; the batches may differ in T.

    Returns:
        The batch of all samples, whose T is the longest, with lengths where some are shorter; and the labels as torch's
        own ``default_collate`` joins them: (B,), int64 for ints.

    Raises:
        TypeError: something else than such pairs.
        ValueError: no pair, a batch of more or less than one sample, or batches that differ in K or device.

    Example:
        >>> import torch
        >>> recordings = [EventBatch.from_dense(torch.ones(steps, 1, 2)) for steps in (3, 5)]
        >>> batch, labels = collate([(recordings[0], 7), (recordings[1], 1)])
        >>> batch.shape, batch.lengths.tolist(), labels.tolist()
        ((5, 2, 2), [3, 5], [7, 1])

    """
    for k, sample in enumerate(samples):
        if not (isinstance(sample, tuple | list) and len(sample) == 2 and isinstance(sample[0], EventBatch)):
            raise TypeError(f"samples: expected pairs of an EventBatch and a label, got {type(sample).__name__} at {k}")
        if len(sample[0]) != 1:
            raise ValueError(f"samples: expected batches of one sample, got one of {len(sample[0])} at {k}")
    if not samples:
        raise ValueError("samples: expected at least one pair, got none")
    batches, labels = zip(*samples, strict=True)
    return EventBatch.cat(batches, steps=max(batch.shape[0] for batch in batches)), default_collate(list(labels))
