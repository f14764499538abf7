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
from support.events import misaligned, negated
from support.inputs import noise
from support.refusals import Refusal, refusals

X = torch.zeros(3, 2, 4)
BATCH = EventBatch.from_dense(X)


def sparse(*shape: int) -> Tensor:
    return torch.zeros(shape).to_sparse()


def of_size(*shape: int) -> Tensor:
    """A tensor of any size in four bytes of memory."""
    return torch.zeros(1).as_strided(shape, [0] * len(shape))


NESTED = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(2)])
WEIGHT = torch.zeros(5, 4)
WORDS: list[Any] = [np.array(["relu", "x"]), np.zeros(0), torch.zeros(2)]


@refusals(
    # Tensors that are not dense
    Refusal("current", lambda: src(sparse(3, 2, 4), -6.0)),
    Refusal("current", lambda: src(torch.nested.nested_tensor([torch.zeros(2, 4)]), -6.0)),
    Refusal("bias", lambda: src(X, sparse(4))),
    Refusal("alpha", lambda: src(X, -6.0, alpha=sparse(4))),
    Refusal("state.h", lambda: src(X, -6.0, (X[0], sparse(2, 4), X[0]))),
    Refusal("lengths", lambda: src(X, -6.0, lengths=torch.zeros(2, dtype=torch.int64).to_sparse())),
    Refusal("input", lambda: src_linear(sparse(3, 2, 4), WEIGHT, -6.0)),
    Refusal("weight", lambda: src_linear(BATCH, sparse(5, 4), -6.0)),
    Refusal("spikes", lambda: leaky_readout(sparse(3, 2, 4), 2)),
    Refusal("spikes", lambda: count_spikes(sparse(3, 2, 4))),
    Refusal("r", lambda: rest_state(-6.0, r=sparse(4))),
    Refusal("images", lambda: rate_encode(NESTED, seed=1)),
    Refusal("offsets", lambda: EventBatch(NESTED, BATCH.indices, shape=BATCH.shape)),
    # Numbers too large for a float
    Refusal("alpha", lambda: src(X, -6.0, alpha=10**400)),
    Refusal("bias", lambda: rest_state(10**400)),
    Refusal("inhibition", lambda: leaky_readout(X, 2, inhibition=10**400)),
    Refusal("gain", lambda: rate_encode(X[0], seed=1, gain=10**400)),
    # Sizes whose product does not fit in 64 bits
    Refusal("current", lambda: src(of_size(0, 1, 2**40, 2**40), -6.0)),
    Refusal("current", lambda: src(of_size(0, 1, 2**23, 2**40), -6.0)),
    Refusal("spikes", lambda: count_spikes(of_size(0, 1, 2**40, 2**40))),
    Refusal("spikes", lambda: leaky_readout(of_size(0, 2**40, 2**40), 1)),
    # Arrays in place of strings and flags
    *(Refusal("surrogate", lambda word=word: src(X, -6.0, surrogate=word)) for word in WORDS),
    *(Refusal("method", lambda word=word: src_linear(X, WEIGHT, -6.0, method=word)) for word in WORDS),
    *(Refusal("full_gradient", lambda word=word: src(X, -6.0, full_gradient=word), TypeError) for word in WORDS),
    *(
        Refusal("count", lambda word=word: EventBatch.from_events([0], [0], inputs=1, bin_width=1, count=word))
        for word in WORDS
    ),
)
def test_invalid_tensors_and_numbers_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_on_meta(dtype: torch.dtype) -> None:
    spikes, _ = src(torch.zeros(3, 2, 4, dtype=dtype, device="meta"), -6.0)
    assert spikes.dtype == dtype
    weight = torch.zeros(5, 4, dtype=dtype, device="meta")
    spikes, _ = src_linear(torch.zeros(3, 2, 4, dtype=dtype, device="meta"), weight, -6.0, method="events")
    assert spikes.dtype == dtype


def test_a_result_too_large_for_64_bits_is_out_of_memory() -> None:
    input, weight = X.as_strided((3, 2**44, 0), (0, 0, 0)), X.as_strided((2**44, 0), (0, 0))
    with pytest.raises(MemoryError):
        src_linear(input, weight, -6.0, method="events")


def test_empty_tensors_of_vast_sizes_take_no_time() -> None:
    """The calls run in a separate process, so that a hang can be stopped."""
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


@pytest.mark.parametrize("laid", [negated, misaligned])
def test_negated_views_and_misaligned_memory_give_the_same_result(laid: Callable[[Tensor], Tensor]) -> None:
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
