"""A GPU to test on, which may be the host: the CUDA kernels compiled for it (tests/cpp/cuda_on_host.cpp)."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from srcell.ops import _gpu, encode

MODULE = os.environ.get("SRCELL_CUDA_ON_HOST")
CARD = torch.cuda.is_available()
GPUS = [name for name, here in (("host", MODULE), ("cuda", CARD)) if here]

needs_gpu = pytest.mark.skipif(not GPUS, reason="no card, and SRCELL_CUDA_ON_HOST names no module")
needs_card = pytest.mark.skipif(not CARD, reason="no card")


class Card:
    """A real GPU."""

    device = torch.device("cuda")

    def on(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class Host:
    """The kernels on the host: within `on()` every tensor is treated as one on a GPU."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        assert MODULE is not None
        loader = importlib.machinery.ExtensionFileLoader("on_host._cuda", MODULE)
        spec = importlib.util.spec_from_loader("on_host._cuda", loader)
        assert spec is not None
        self.module = importlib.util.module_from_spec(spec)
        loader.exec_module(self.module)
        self.launched: list[str] = []

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        def launch(_: object, name: str, *arguments: Any) -> None:
            self.launched.append(name)
            getattr(self.module, name)((0, 0), *map(_gpu.plain, arguments))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_gpu, "is_gpu", lambda device: True)
            patch.setattr(_gpu, "cuda_module", lambda: self.module)
            patch.setattr(_gpu.Gpu, "launch", launch)
            patch.setattr(encode, "rate_encode", encode.rate_gpu)
            yield
        assert self.launched


Gpu = Card | Host


def equal(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> None:
    """Assert equal dtypes and values; NaN equals nothing."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert (x is None) == (y is None)
        if x is not None and y is not None:
            assert x.dtype == y.dtype and torch.equal(x, y)


def leaves(*tensors: Tensor) -> list[Tensor]:
    return [x.clone().requires_grad_() for x in tensors]


def moved(x: Any, device: torch.device | str) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    return x.detach().to(device).requires_grad_(x.requires_grad)


def gradients_of(
    run: Callable[..., Sequence[Tensor]], inputs: Sequence[Any], device: torch.device | str = "cpu"
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs and gradients, on the CPU; the gradients are of a sum of all outputs with different weights."""
    inputs = [moved(x, device) for x in inputs]
    outputs = [x.cpu() for x in run(*inputs)]
    generator = torch.Generator().manual_seed(1)
    loss = sum((x * torch.randn(x.shape, dtype=x.dtype, generator=generator)).sum() for x in outputs)
    wanted = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True)
    return [x.detach() for x in outputs], [None if x is None else x.cpu() for x in grads]


def check_against_the_cpu(
    gpu: Gpu, run: Callable[..., Sequence[Tensor]], inputs: Sequence[Any]
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Assert equal bits on the GPU and the CPU; return the CPU's outputs and gradients."""
    with gpu.on():
        got = gradients_of(run, inputs, gpu.device)
    expected = gradients_of(run, inputs)
    equal(got[0], expected[0])
    equal(got[1], expected[1])
    return expected


def training_step(layer: torch.nn.Module, events: Any) -> list[Tensor]:
    """Spikes and gradients; the gradients stay in the same tensors from the second step on."""
    for parameter in layer.parameters():
        parameter.grad = None if parameter.grad is None else parameter.grad.zero_()
    spikes, _ = layer(events)
    spikes.sum().backward()
    return [spikes.detach(), *(x.grad for x in layer.parameters() if x.grad is not None)]
