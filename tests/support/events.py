"""Dense tensors and event batches for tests, and checks of batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from srcell import EventBatch

SHAPE = (4, 3, 5)
# A valid batch: three events of two samples. Each corrupt construction changes one of its arguments.
VALID: dict[str, Any] = {
    "offsets": torch.tensor([0, 1, 1, 3, 3]),
    "indices": torch.tensor([2, 0, 1], dtype=torch.int32),
    "values": torch.tensor([1.0, 2.0, 3.0]),
    "shape": (2, 2, 3),
    "lengths": torch.tensor([1, 2]),
}


def random_dense(
    shape: tuple[int, int, int], seed: int = 0, *, ones: bool = True, dtype: torch.dtype = torch.float32
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    fires = torch.rand(shape, generator=generator) < 0.4
    return fires.to(dtype) if ones else fires * torch.randn(shape, generator=generator, dtype=dtype)


def misaligned(x: Tensor) -> Tensor:
    """The same numbers at addresses that are not aligned to their size."""
    moved = torch.frombuffer(bytearray(b"\0" + x.numpy().tobytes()), dtype=x.dtype, offset=1).view(x.shape)
    assert moved.data_ptr() % 4
    return moved


def negated(x: Tensor) -> Tensor:
    """The same numbers as a lazily negated view (torch's negative bit)."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


def assert_valid(batch: EventBatch) -> None:
    """Assert that the constructor accepts a batch that a method returned unchecked, and gives an equal one."""
    again = EventBatch(batch.offsets, batch.indices, batch.values, shape=batch.shape, lengths=batch.lengths)
    assert_same(again, batch)


def assert_same(a: EventBatch, b: EventBatch) -> None:
    assert a == b
    assert a.shape == b.shape
    for x, y in ((a.offsets, b.offsets), (a.indices, b.indices), (a.values, b.values), (a.lengths, b.lengths)):
        assert (x is None) == (y is None)
        assert x is None or y is None or (x.dtype == y.dtype and torch.equal(x, y))
