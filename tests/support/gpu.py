"""A GPU to test on: a real one, or the host with the CUDA kernels compiled for it (tests/cpp/cuda_on_host.cpp)."""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from srcell import EventBatch, integer_src_linear
from srcell.functional import src, src_linear
from srcell.ops import _gpu, encode
from srcell.ops._direct import Direct
from support.inputs import CONSTANTS, PARAMETERS, STATE, WHOLE_STATE, Inputs, Outputs, with_values
from support.inputs import delayed as with_delays
from support.inputs import resonant as with_resonance
from support.operators import DECLARED

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
            patch.setattr(Direct, "__call__", lambda *_: None)  # only calls on a CPU go directly
            for operator in DECLARED.values():
                patch.setattr(operator, "entry", None)
            patch.setattr(_gpu.Gpu, "launch", launch)
            patch.setattr(
                EventBatch, "to", lambda events, device: events._map(torch.clone)
            )  # the emulator knows torch's memory
            of_call = encode.rate_encode.call
            patch.setattr(encode, "rate_encode", lambda *given, **options: encode.rate_gpu(of_call(*given, **options)))
            before = len(self.launched)
            yield
        assert len(self.launched) > before


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
    if isinstance(x, EventBatch):
        return x.to(device)
    if not isinstance(x, Tensor):
        return x
    return x.detach().to(device).requires_grad_(x.requires_grad)


def gradients_of(
    run: Callable[..., Sequence[Tensor]], inputs: Sequence[Any], device: torch.device | str = "cpu"
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Outputs and gradients, moved to the CPU; the gradients are those of a sum of all outputs, each with its own
    weight.
    """
    inputs = [moved(x, device) for x in inputs]
    outputs = [x.cpu() for x in run(*inputs)]
    generator = torch.Generator().manual_seed(1)
    loss = sum((x * torch.randn(x.shape, dtype=x.dtype, generator=generator)).sum() for x in outputs)
    wanted = [x for x in inputs if isinstance(x, Tensor) and x.requires_grad]
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


def make_case(
    kind: str,
    shape: tuple[int, int, int],
    inputs: int = 70,
    *,
    density: float = 0.1,
    cell: str = "constants",
    recurrent: bool = False,
    resonant: bool = False,
    delays: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Inputs, Tensor | EventBatch | None]:
    """By name, the arguments that make a layer (T, B, N) spike; and the input that gets no gradient, or None for
    currents.

    `kind` is currents, EventBatch, graded (events with values) or dense; `cell` is constants, scalars or per neuron.
    """
    steps, batch, neurons = shape
    generator = torch.Generator().manual_seed(sum(shape) + inputs)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, dtype=dtype, generator=generator)

    given = {"bias": torch.full((neurons,), -5.0, dtype=dtype)}
    given |= dict(zip(STATE, (normal(3, batch, neurons) / 4).unbind(), strict=True))
    given["h0"] = 3 * given["h0"]  # recurrent weights receive spikes from the first step on
    x: Tensor | EventBatch | None = None
    if kind == "currents":
        given["current"] = 2 * normal(steps, batch, neurons)
    else:
        given["weight"] = 3 * normal(neurons, inputs) / inputs**0.5
        x = (torch.rand(steps, batch, inputs, generator=generator) < density).to(dtype)
        if kind != "dense":
            x = EventBatch.from_dense(x)
        if kind == "graded":
            given["values"] = 0.5 + torch.rand(x.num_events, dtype=dtype, generator=generator)
    if recurrent:
        given["weight_hh"] = 2 * normal(neurons, neurons) / neurons**0.5
    if cell != "constants":
        size = (neurons,) if cell == "per neuron" else ()
        given |= {name: torch.full(size, x, dtype=dtype) for name, x in zip(PARAMETERS, CONSTANTS, strict=True)}
    if resonant:
        given = with_resonance(given, sum(shape))
        if cell != "per neuron":
            given["omega"] = torch.full((), 0.3, dtype=dtype)
    if delays is not None:
        given = with_delays(given, sum(shape), *delays)
    return given, x


def layer_of(
    names: Iterable[str],
    x: Tensor | EventBatch | None = None,
    *,
    function: Callable[..., Outputs] = src_linear,
    **options: Any,
) -> Callable[..., list[Tensor]]:
    """``src``, or ``function`` of x and a weight, as a function of the named tensors. No gradient is computed for x."""

    def run(*tensors: Tensor) -> list[Tensor]:
        device = tensors[0].device
        given = dict(zip(names, tensors, strict=True)) | {name: moved(y, device) for name, y in options.items()}
        bias, state = given.pop("bias"), tuple(given.pop(name) for name in WHOLE_STATE if name in given)
        if "current" in given:
            spikes, final = src(given.pop("current"), bias, state or None, **given)
        else:
            input = given.pop("input") if "input" in given else moved(x, device)
            if isinstance(input, EventBatch):
                input = with_values(input, given.pop("values", None))
            spikes, final = function(input, given.pop("weight"), bias, state or None, **given)
        return [spikes, *final]

    return run


def check_layer(
    gpu: Gpu, given: Inputs, x: Tensor | EventBatch | None = None, **options: Any
) -> tuple[list[Tensor], dict[str, Tensor | None]]:
    """Assert that a layer has the same outputs and gradients on the GPU and the CPU; return them."""
    outputs, grads = check_against_the_cpu(gpu, layer_of(given, x, **options), leaves(*given.values()))
    return outputs, dict(zip(given, grads, strict=True))


def check_integer_layer(
    gpu: Gpu, x: Tensor | EventBatch, weight: Tensor, state: Sequence[Tensor] | None = None, lengths: Any = None
) -> list[Tensor]:
    """Assert the same spikes, state and number of clamped i on the GPU and the CPU; return them."""

    def run(device: torch.device | str) -> list[Tensor]:
        clamped = torch.zeros((), dtype=torch.int64, device=device)
        start = None if state is None else [moved(y, device) for y in state]
        input, weights = moved(x, device), moved(weight, device)
        spikes, final = integer_src_linear(input, weights, start, lengths=lengths, clamped=clamped)
        return [y.cpu() for y in (spikes, *final, clamped)]

    with gpu.on():
        got = run(gpu.device)
    expected = run("cpu")
    equal(got, expected)
    assert expected[0].any()
    return expected


def training_step(layer: torch.nn.Module, events: Any) -> list[Tensor]:
    """Spikes and gradients; the gradients stay in the same tensors from the second step on."""
    for parameter in layer.parameters():
        parameter.grad = None if parameter.grad is None else parameter.grad.zero_()
    spikes, _ = layer(events)
    spikes.sum().backward()
    return [spikes.detach(), *(x.grad for x in layer.parameters() if x.grad is not None)]
