"""What tests of generated recordings share."""

from __future__ import annotations

import hashlib

import torch

from srcell.data import LabelledEvents


def digest_of(part: LabelledEvents) -> str:
    """A hash of recordings, after checking their dtypes; the same on every machine if they are."""
    arrays = (part.events.offsets, part.events.indices, part.labels)
    assert [array.dtype for array in arrays] == [torch.int64, torch.int32, torch.int64]
    return hashlib.sha256(b"".join(array.numpy().tobytes() for array in arrays)).hexdigest()
