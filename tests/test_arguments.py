"""Arguments that every function must refuse or accept: tensors that are not dense, numbers too large for a float, sizes
too large to loop over, and memory layouts that kernels cannot read directly.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from srcell import EventBatch, latency_encode, leaky_readout, rate_encode, rest_state, src, src_linear
from srcell.functional import count_spikes
from support.inputs import noise
from support.refusals import assert_refused

X = torch.zeros(3, 2, 4)
BATCH = EventBatch.from_dense(X)


def sparse(*shape: int) -> Tensor:
    return torch.zeros(shape).to_sparse()


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("current", lambda: src(sparse(3, 2, 4), -6.0)),
        ("bias", lambda: src(X, sparse(4))),
        ("alpha", lambda: src(X, -6.0, alpha=sparse(4))),
        ("state.h", lambda: src(X, -6.0, (X[0], sparse(2, 4), X[0]))),
        ("lengths", lambda: src(X, -6.0, lengths=torch.zeros(2, dtype=torch.int64).to_sparse())),
        ("input", lambda: src_linear(sparse(3, 2, 4), torch.zeros(5, 4), -6.0)),
        ("weight", lambda: src_linear(BATCH, sparse(5, 4), -6.0)),
        ("spikes", lambda: leaky_readout(sparse(3, 2, 4), 2)),
        ("spikes", lambda: count_spikes(sparse(3, 2, 4))),
        ("r", lambda: rest_state(-6.0, r=sparse(4))),
        ("current", lambda: src(torch.nested.nested_tensor([torch.zeros(2, 4)]), -6.0)),
    ],
)
def test_a_tensor_that_is_not_dense_is_refused(argument: str, call: Callable[[], Any]) -> None:
    assert_refused(ValueError, argument, call)


def test_nested_tensors_are_named() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(2)])
    assert_refused(ValueError, "images", rate_encode, nested, seed=1)
    assert_refused(ValueError, "offsets", EventBatch, nested, BATCH.indices, shape=BATCH.shape)


def test_numbers_beyond_every_float_are_refused() -> None:
    assert_refused(ValueError, "alpha", src, X, -6.0, alpha=10**400)
    assert_refused(ValueError, "bias", rest_state, 10**400)
    assert_refused(ValueError, "inhibition", leaky_readout, X, 2, inhibition=10**400)
    assert_refused(ValueError, "gain", rate_encode, X[0], seed=1, gain=10**400)


@pytest.mark.parametrize("word", [np.array(["relu", "x"]), np.zeros(0), torch.zeros(2)])
def test_an_array_in_the_place_of_a_word_is_refused(word: Any) -> None:
    assert_refused(ValueError, "surrogate", src, X, -6.0, surrogate=word)
    assert_refused(ValueError, "method", src_linear, X, torch.zeros(5, 4), -6.0, method=word)
    assert_refused(TypeError, "recurrent_grad", src, X, -6.0, recurrent_grad=word)
    assert_refused(ValueError, "count", EventBatch.from_events, [0], [0], inputs=1, bin_width=1, count=word)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_on_meta(dtype: torch.dtype) -> None:
    spikes, _ = src(torch.zeros(3, 2, 4, dtype=dtype, device="meta"), -6.0)
    assert spikes.dtype == dtype
    weight = torch.zeros(5, 4, dtype=dtype, device="meta")
    spikes, _ = src_linear(torch.zeros(3, 2, 4, dtype=dtype, device="meta"), weight, -6.0, method="events")
    assert spikes.dtype == dtype


def test_sizes_whose_product_cannot_be_counted_are_refused() -> None:
    current = torch.zeros(1).as_strided((0, 1, 2**40, 2**40), (0, 0, 0, 0))
    assert_refused(ValueError, "current", src, current, -6.0)
    assert_refused(ValueError, "current", src, torch.zeros(1).as_strided((0, 1, 2**23, 2**40), (0, 0, 0, 0)), -6.0)
    assert_refused(ValueError, "spikes", count_spikes, current)
    assert_refused(ValueError, "spikes", leaky_readout, torch.zeros(1).as_strided((0, 2**40, 2**40), (0, 0, 0)), 1)


def test_sizes_that_hold_nothing_are_not_walked_through() -> None:
    """In a process of its own, so that a hang can be stopped."""
    program = """
import torch, srcell
from srcell.functional import count_spikes
vast = lambda *shape: torch.zeros(1).as_strided(shape, [0] * len(shape))
assert count_spikes(vast(2**44, 1, 0)).events.shape == (0,)
assert not count_spikes(vast(2**44, 0, 3)).events.any()
spikes, _ = srcell.src_linear(vast(0, 2**44, 0), torch.zeros(0, 0, requires_grad=True), -6.0, method="events")
spikes.sum().backward()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def negated(x: Tensor) -> Tensor:
    """The same numbers as a lazily negated view (torch's negative bit)."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


def misaligned(x: Tensor) -> Tensor:
    """The same numbers at addresses that are not aligned to their size."""
    return torch.frombuffer(bytearray(b"\0" + x.numpy().tobytes()), dtype=x.dtype, offset=1).view(x.shape)


@pytest.mark.parametrize("laid", [negated, misaligned])
def test_numbers_that_do_not_lie_as_kernels_read_them(laid: Callable[[Tensor], Tensor]) -> None:
    current, weight = 5 * noise(1, 20, 2, 3).float(), noise(2, 4, 3).float()
    assert torch.equal(src(laid(current), laid(torch.full((3,), -4.0)))[0], src(current, -4.0)[0])
    dense = (current > 2).float()
    for method in ("events", "gemm"):
        assert torch.equal(
            src_linear(laid(dense), laid(weight), -4.0, method=method)[0],
            src_linear(dense, weight, -4.0, method=method)[0],
        )
    pixel = torch.tensor([[0.6]])
    assert latency_encode(laid(pixel)) == latency_encode(pixel)
    assert rate_encode(laid(pixel), seed=1) == rate_encode(pixel, seed=1)
    ones = torch.ones(1, 1, 1)
    assert count_spikes(laid(ones)).events.item() == 1
