"""Random inputs for the targets of the fuzz campaign: numbers, memory layouts, and wrong arguments.

Each is a function of a seed. ``corrupted`` takes a ``random.Random`` of hypothesis as well (tests/test_runtime.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from support import events

FLOATS = (torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SPECIAL = (0.0, -0.0, 1.0, float("nan"), float("inf"), -float("inf"), 1e-310, 1e-40, 3e38, -3e38)

_generator = torch.Generator()


class Draw(random.Random):
    """Draws the parts of a target's input."""

    def chance(self, percent: int) -> bool:
        return self.randrange(100) < percent

    def pick(self, *options: Any) -> Any:
        return self.choice(options)

    def size(self) -> int:
        """A small size, sometimes 0."""
        return int(self.pick(1, 2, 3, 5, 2, 3, 4, 0, 1, 17))

    def floats(self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, wild: int = 0) -> Tensor:
        """Normally distributed numbers; with a chance of ``wild`` percent special values among them."""
        _generator.manual_seed(self.getrandbits(31))
        x = torch.randn(shape, generator=_generator, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
        x = (x * scale).to(dtype)
        if x.numel() and self.chance(wild):
            for _ in range(self.pick(1, 3)):
                x.view(-1)[self.randrange(x.numel())] = torch.tensor(self.pick(*SPECIAL), dtype=torch.float64)
        return x

    def spikes(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Zeros, with ones or other numbers among them."""
        _generator.manual_seed(self.getrandbits(31))
        fires = torch.rand(shape, generator=_generator) < self.pick(0.3, 0.0, 0.05, 1.0)
        return fires.to(dtype) if self.chance(50) else fires * self.floats(*shape, dtype=dtype)

    def lengths(self, steps: int, batch: int) -> Tensor:
        """The length of each sample, int64."""
        return torch.tensor([self.randrange(steps + 1) for _ in range(batch)], dtype=torch.int64)

    def any_lengths(self, steps: int, batch: int) -> Any:
        lengths = self.lengths(steps, batch)
        return lengths.tolist() if self.chance(50) else lengths.to(self.pick(*INTEGERS))

    def relaid(self, x: Tensor) -> Tensor:
        """The same numbers, perhaps in another memory layout."""
        if x.dim() == 0 or not is_plain(x) or self.chance(50):
            return x
        relay: Callable[[Tensor], Tensor] = self.pick(transposed, spaced, spaced, shifted, shifted, negated, misplaced)
        return relay(x)

    def repeated(self, x: Tensor) -> Tensor:
        """Sometimes a tensor of the same shape with strides of 0: the first element repeated along some dimensions."""
        if not self.chance(8):
            return x
        kept = [slice(0, 1) if self.chance(50) else slice(None) for _ in x.shape]
        return x[tuple(kept)].expand(x.shape) if x.layout == torch.strided and x.numel() else x

    def altered(self, x: Tensor) -> Tensor:
        """A tensor that is wrong in shape, dtype, device, layout or size."""
        if not is_plain(x):
            return x  # altered already
        change: Callable[[], Tensor] = self.pick(
            lambda: x.unsqueeze(0),
            lambda: x.new_zeros([n + 1 for n in x.shape]),
            lambda: x.new_zeros(x.shape[1:]),
            lambda: x.new_zeros(0),
            lambda: x.to(self.pick(torch.int64, torch.bool, torch.float16, torch.float64, torch.float32, torch.int32)),
            lambda: x.to(self.pick(torch.complex64, torch.bfloat16, torch.uint8, torch.int8)),
            lambda: x.to("meta"),
            lambda: x.to_sparse() if x.dim() else x.new_zeros(1).to_sparse(),
            lambda: x.detach().float().reshape(x.shape[0] if x.dim() else 1, -1).to_sparse_csr() if x.numel() else x,
            lambda: self.vast(x),
            lambda: torch.quantize_per_tensor(x.detach().float(), 0.1, 0, torch.qint8) if x.dim() else x.new_zeros(2),
            lambda: x.new_zeros([self.randrange(4) for _ in range(self.randrange(5))]),
        )
        return change()

    def vast(self, x: Tensor) -> Tensor:
        """A tensor that takes no memory: with more elements than memory holds, or empty and too large to loop over."""
        dimensions = max(x.dim(), 1)
        shape = [self.pick(2**44, 2**61, 2**62, 2**63 - 1), *(self.pick(1, 1, 0, 2**40) for _ in range(dimensions - 1))]
        self.shuffle(shape)
        try:
            return x.new_zeros(1).as_strided(shape, [0] * dimensions)
        except RuntimeError:  # more than torch itself can count
            return x.new_zeros(1).expand([2**40] + [1] * (dimensions - 1))

    def oddity(self) -> Any:
        """Anything but a tensor of several dimensions."""
        return self.pick(
            *(None, "x", "", b"\0", (), [], {}, [[1], [2, 3]], [None], [True], ["1"], [1.5], [2**70], [-1]),
            *(0, 1, -1, 2.0, True, 2**40, 2**63, -(2**63), 2**64, 10**400, -(10**400)),
            *(float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e39, 1e-320, 1e-45, 3j),
            *(object(), object, range(3), iter([1]), np.float32(0.5), np.int8(2), np.array(0.5), np.zeros(3)),
            *(np.array(["a"]), np.array([None]), np.zeros((2, 0), ">f4"), np.datetime64("2020-01-01")),
            *(np.zeros(3, ">i8"), torch.float32, torch.zeros(()), torch.tensor(float("nan")), torch.zeros(0)),
            torch.Size([1, 2]),
        )

    def wrong(self, x: Any) -> Any:
        """A replacement for an argument that is often invalid."""
        return self.altered(x) if isinstance(x, Tensor) and self.chance(70) else self.oddity()

    def spoil(self, given: dict[str, Any], percent: int, wrong: Callable[[Any], Any] | None = None) -> bool:
        """Sometimes replace one or two arguments by something wrong; return whether that was done."""
        spoilt = self.chance(percent)
        count = self.pick(1, 1, 2) if spoilt else 0
        for name in self.sample(sorted(given), min(count, len(given))):
            given[name] = (wrong or self.wrong)(given[name])
        return spoilt


def fits(x: Tensor) -> bool:
    return max(x.shape, default=0) < 10_000


def is_plain(x: Tensor) -> bool:
    dense = x.layout == torch.strided and x.device.type == "cpu"
    return dense and not x.is_quantized and not x.is_complex() and fits(x)


def transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def spaced(x: Tensor) -> Tensor:
    wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1] + 1)
    wide[..., 1::2] = x
    return wide[..., 1::2]


def shifted(x: Tensor) -> Tensor:
    long = x.new_zeros(x.numel() + 3)
    long[3:] = x.reshape(-1)
    return long[3:].view(x.shape)


def negated(x: Tensor) -> Tensor:
    """A view that torch negates when it reads it."""
    return events.negated(x) if x.dtype in FLOATS else x


def misplaced(x: Tensor) -> Tensor:
    return events.misaligned(x.resolve_neg()) if x.numel() and x.dtype != torch.bfloat16 else x


def corrupted(draw: random.Random, content: bytes) -> bytes:
    """The content of a file with some of its bytes lost, changed, doubled or added."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 5))):
        at = draw.randrange(len(data) + 1)
        removed, added = draw.choice(
            (
                (len(data), b""),
                (draw.randrange(1, 9), b""),
                (1, draw.randbytes(1)),
                (1, bytes(byte ^ 1 << draw.randrange(8) for byte in data[at : at + 1])),
                (0, draw.randbytes(draw.randrange(1, 9))),
                (8, draw.choice((b"\xff", b"\0", b"\x7f")) * 8),
                (0, data[at : at + draw.randrange(1, 40)]),
            )
        )
        data[at : at + removed] = added
    return bytes(data)
