"""Random inputs for the targets of the fuzz campaign: numbers, memory layouts, and wrong arguments.

Everything is a function of a ``random.Random``: the campaign passes a seeded one, and tests/test_runtime.py one of
hypothesis, which shrinks towards the first option of a ``pick`` and a ``chance`` that fails: these are the simplest.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Draw = random.Random

FLOATS = (torch.float32, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
SPECIAL = (0.0, -0.0, 1.0, float("nan"), float("inf"), -float("inf"), 1e-310, 1e-40, 3e38, -3e38)

_generator = torch.Generator()


def chance(draw: Draw, percent: int) -> bool:
    return draw.randrange(100) >= 100 - percent


def pick(draw: Draw, *options: Any) -> Any:
    return options[draw.randrange(len(options))]


def size(draw: Draw) -> int:
    """A small size, sometimes 0."""
    return int(pick(draw, 1, 2, 3, 5, 2, 3, 4, 0, 1, 17))


def floats(draw: Draw, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, wild: int = 0) -> Tensor:
    """Normally distributed numbers; with a chance of ``wild`` percent special values among them."""
    _generator.manual_seed(draw.getrandbits(31))
    x = torch.randn(shape, generator=_generator, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    x = (x * scale).to(dtype)
    if x.numel() and chance(draw, wild):
        for _ in range(pick(draw, 1, 3)):
            x.view(-1)[draw.randrange(x.numel())] = torch.tensor(pick(draw, *SPECIAL), dtype=torch.float64)
    return x


def spikes(draw: Draw, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros, with ones or other numbers among them."""
    _generator.manual_seed(draw.getrandbits(31))
    fires = torch.rand(shape, generator=_generator) < pick(draw, 0.3, 0.0, 0.05, 1.0)
    return fires.to(dtype) if chance(draw, 50) else fires * floats(draw, *shape, dtype=dtype)


def lengths_in(draw: Draw, steps: int, batch: int) -> Tensor:
    """The length of each sample, int64."""
    return torch.tensor([draw.randrange(steps + 1) for _ in range(batch)], dtype=torch.int64)


def fits(x: Tensor) -> bool:
    return max(x.shape, default=0) < 10_000


def relaid(draw: Draw, x: Tensor) -> Tensor:
    """The same numbers in another memory layout."""
    how = draw.randrange(16)
    if how < 8 or x.dim() == 0 or x.device.type != "cpu" or x.layout != torch.strided or x.is_quantized or not fits(x):
        return x
    if how == 8:
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if how in (9, 10):
        wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1] + 1)
        wide[..., 1::2] = x
        return wide[..., 1::2]
    if how in (11, 12):
        long = x.new_zeros(x.numel() + 3)
        long[3:] = x.reshape(-1)
        return long[3:].view(x.shape)
    if how == 13 and x.dtype in FLOATS:
        negated: Tensor = torch.complex(torch.zeros_like(x), -x).conj().imag  # a view that torch negates when it reads
        return negated
    if how == 14:
        content = x.resolve_neg().contiguous().numpy().tobytes() if x.dtype != torch.bfloat16 else b""
        if content:
            return torch.frombuffer(bytearray(b"\0" + content), dtype=x.dtype, offset=1).view(x.shape)
    return x.flip(0).flip(0)


def repeated(draw: Draw, x: Tensor) -> Tensor:
    """Sometimes a tensor of the same shape with strides of 0: the first element repeated along some dimensions."""
    if not chance(draw, 8):
        return x
    kept = [slice(0, 1) if chance(draw, 50) else slice(None) for _ in x.shape]
    return x[tuple(kept)].expand(x.shape) if x.layout == torch.strided and x.numel() else x


def altered(draw: Draw, x: Tensor) -> Tensor:
    """A tensor that is wrong in shape, dtype, device, layout or size."""
    if x.layout != torch.strided or x.device.type != "cpu" or x.is_quantized or x.is_complex() or not fits(x):
        return x  # altered already
    change: Callable[[], Tensor] = pick(
        draw,
        lambda: x.unsqueeze(0),
        lambda: x.new_zeros([n + 1 for n in x.shape]),
        lambda: x.new_zeros(x.shape[1:]),
        lambda: x.new_zeros(0),
        lambda: x.to(pick(draw, torch.int64, torch.bool, torch.float16, torch.float64, torch.float32, torch.int32)),
        lambda: x.to(pick(draw, torch.complex64, torch.bfloat16, torch.uint8, torch.int8)),
        lambda: x.to("meta"),
        lambda: x.to_sparse() if x.dim() else x.new_zeros(1).to_sparse(),
        lambda: matrix(x).to_sparse_csr() if x.numel() else x,
        lambda: vast(draw, x),
        lambda: torch.quantize_per_tensor(x.detach().float(), 0.1, 0, torch.qint8) if x.dim() else x.new_zeros(2, 2),
        lambda: x.new_zeros([draw.randrange(4) for _ in range(draw.randrange(5))]),
    )
    return change()


def matrix(x: Tensor) -> Tensor:
    return x.detach().float().reshape(x.shape[0] if x.dim() else 1, -1)


def vast(draw: Draw, x: Tensor) -> Tensor:
    """A tensor with more elements than memory holds, or empty with a size too large to loop over; takes no memory."""
    dimensions = max(x.dim(), 1)
    shape = [pick(draw, 2**44, 2**61, 2**62, 2**63 - 1), *(pick(draw, 1, 1, 0, 2**40) for _ in range(dimensions - 1))]
    draw.shuffle(shape)
    try:
        return x.new_zeros(1).as_strided(shape, [0] * dimensions)
    except RuntimeError:  # more than torch itself can count
        return x.new_zeros(1).expand([2**40] + [1] * (dimensions - 1))


def oddity(draw: Draw) -> Any:
    """Anything but a tensor."""
    return pick(
        draw,
        *(None, "x", "", b"\0", (), [], {}, [[1], [2, 3]], [None], [True], ["1"], [1.5], [2**70], [-1]),
        *(0, 1, -1, 2.0, True, 2**40, 2**63, -(2**63), 2**64, 10**400, -(10**400)),
        *(float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e39, 1e-320, 1e-45, 3j),
        *(object(), object, range(3), iter([1]), np.float32(0.5), np.int8(2), np.array(0.5), np.zeros(3)),
        *(np.array(["a"]), np.array([None]), np.zeros((2, 0), ">f4"), np.datetime64("2020-01-01"), np.zeros(3, ">i8")),
        *(torch.float32, torch.zeros(()), torch.tensor(float("nan")), torch.zeros(0), torch.Size([1, 2])),
    )


def wrong(draw: Draw, x: Any) -> Any:
    """A replacement for an argument that is often invalid."""
    return altered(draw, x) if isinstance(x, Tensor) and chance(draw, 70) else oddity(draw)


def spoil(draw: Draw, given: dict[str, Any], percent: int) -> bool:
    """Sometimes replace one or two arguments by something wrong; return whether that was done."""
    spoilt = chance(draw, percent)
    for _ in range(pick(draw, 1, 1, 2) if spoilt else 0):
        name = pick(draw, *given)
        given[name] = wrong(draw, given[name])
    return spoilt


def corrupted(draw: Draw, content: bytes) -> bytes:
    """The content of a file with some of its bytes lost, changed, doubled or added."""
    data = bytearray(content)
    for _ in range(pick(draw, 1, 1, 2, 5)):
        at = draw.randrange(len(data) + 1)
        removed, added = pick(
            draw,
            (len(data), b""),
            (draw.randrange(1, 9), b""),
            (1, draw.randbytes(1)),
            (1, bytes(byte ^ 1 << draw.randrange(8) for byte in data[at : at + 1])),
            (0, draw.randbytes(draw.randrange(1, 9))),
            (8, pick(draw, b"\xff", b"\0", b"\x7f") * 8),
            (0, data[at : at + draw.randrange(1, 40)]),
        )
        data[at : at + removed] = added
    return bytes(data)


def assert_names(error: Exception, names: Iterable[str]) -> None:
    """Assert that an error's message begins with the name of an argument."""
    text = str(error)
    assert re.match(rf"({'|'.join(map(re.escape, names))})\b", text), f"{type(error).__name__} names nothing: {text}"


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is exhausted or that a size overflows in torch."""
    words = (
        "can't allocate memory",
        "size calculation overflowed",
        "Stride calculation overflowed",
        "Negative strides are not supported",
        "cannot be represented as a SymInt",
        "integer multiplication overflow",
    )
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
