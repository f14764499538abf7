"""Fuzz targets on torch's modes and on padding past the samples' lengths.

A call in a mode gives its usual result, or only its shapes if the mode has no values, or a Python error. Padding past a
sample's length has no influence on outputs and gradients. As in ``op_targets``, blank lines separate the drawing of the
input, the calls, and the assertions.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.func import functionalize
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from fuzz.draws import FLOATS, Draw, chance, floats, pick, size, spikes
from srcell import (
    SRC,
    EventBatch,
    IntegerSRC,
    SRCCell,
    SRCConv2d,
    latency_encode,
    leaky_readout,
    rate_encode,
    src,
    src_linear,
)
from srcell.functional import count_spikes
from srcell.functional.readout import scale_neurons
from support.wrapped import Wrapped

Call = tuple[Callable[..., Any], list[Tensor]]
Runs = Callable[[Tensor], list[Tensor | None]]


def drawn_call(draw: Draw) -> Call:
    """A function of tensors alone, and valid arguments."""
    steps, batch, inputs, neurons = size(draw), size(draw), size(draw), size(draw)
    dtype, method = pick(draw, *FLOATS), pick(draw, "events", "gemm", "auto")
    x = spikes(draw, steps, batch, inputs, dtype=dtype)
    weight = floats(draw, neurons, inputs, dtype=dtype, scale=3)
    ends = torch.tensor([draw.randrange(steps + 1) for _ in range(batch)], dtype=torch.int64)
    lengths = ends if chance(draw, 50) else None
    which = draw.randrange(8)
    if which == 0:
        seed, prefix = draw.getrandbits(64), pick(draw, 0, 2)
        if chance(draw, 50):
            return lambda p: latency_encode(p, 7, prefix=prefix), [floats(draw, batch, inputs).sigmoid()]
        return lambda p: rate_encode(p, 7, prefix=prefix, seed=seed), [floats(draw, batch, inputs).sigmoid()]
    if which == 1:
        return count_spikes, [x]
    if which == 2:
        return scale_neurons, [x, floats(draw, batch, inputs, dtype=dtype)]
    batch_of = EventBatch.from_dense(x, lengths)
    parts, tree = pytree.tree_flatten(batch_of)
    if which == 3:
        return lambda *p: EventBatch(*p[:2], *p[2:3], shape=batch_of.shape), parts[:3] if lengths is None else parts[:2]
    if which == 4:
        return lambda w, *p: src_linear(pytree.tree_unflatten(p, tree), w, -6.0), [weight, *parts]
    if which == 5:
        return lambda a, w: src_linear(a, w, -6.0, lengths=lengths, method=method), [x, weight]
    if which == 6:
        return lambda a: leaky_readout(a, max(inputs, 1), lengths=lengths), [x]
    return lambda a: src(a, -6.0, lengths=lengths), [x]


def on_meta(function: Callable[..., Any], args: list[Tensor]) -> Any:
    with torch.device("meta"):
        return function(*args)


def fake(function: Callable[..., Any], args: list[Tensor]) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return function(*map(mode.from_tensor, args))


def functional(function: Callable[..., Any], args: list[Tensor]) -> Any:
    return functionalize(lambda *x: pytree.tree_leaves(function(*x)))(*args)


def wrapping(function: Callable[..., Any], args: list[Tensor]) -> Any:
    return function(*map(Wrapped, args))


def checkpointed(function: Callable[..., Any], args: list[Tensor]) -> Any:
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in args]
    return checkpoint(function, *leaves, use_reentrant=False)


def inferring(function: Callable[..., Any], args: list[Tensor]) -> Any:
    with torch.inference_mode():
        return function(*args)


def modes(draw: Draw) -> bool:
    """A default device, fake, functional and wrapping tensors, checkpointing, inference."""
    function, args = drawn_call(draw)
    mode = pick(draw, on_meta, fake, functional, wrapping, checkpointed, inferring)

    expected = pytree.tree_leaves(function(*args))
    try:
        result = pytree.tree_leaves(mode(function, args))
    except DynamicOutputShapeException:  # the number of events depends on the data
        assert mode is fake
        return False
    except RuntimeError:  # an empty tensor does not tell whether it has memory
        assert mode in (fake, functional, wrapping) and not all(x.numel() for x in args)
        return False

    assert [x.shape for x in result] == [x.shape for x in expected]
    if mode is not fake:
        plain = [x.inner if isinstance(x, Wrapped) else x for x in result]
        assert all(map(torch.equal, plain, expected))
    return True


def saved(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program, saved and loaded."""
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file)


def programs(draw: Draw) -> bool:
    """Layers exported, saved and loaded."""
    options: dict[str, Any] = {"initial_state": pick(draw, "zeros", "rest")}
    kind, steps, batch, inputs = pick(draw, SRC, SRCCell, SRCConv2d, IntegerSRC), size(draw), size(draw), 4
    if kind is not IntegerSRC:
        options |= {"learnable": pick(draw, (), ("rho",), ("alpha", "rho", "r")), "bias": chance(draw, 70)}
        options |= {"lateral": True} if kind is SRC and chance(draw, 40) else {}
    layer: torch.nn.Module = SRCConv2d(1, 2, 2, **options) if kind is SRCConv2d else kind(inputs, 3, **options)
    x = (spikes(draw, steps, batch, inputs) != 0).float()
    x = x.view(steps, batch, 1, 2, 2) if kind is SRCConv2d else x[0] if kind is SRCCell and steps else x
    if kind is SRCCell and not steps:
        return False

    made = saved(torch.export.export(layer, (x,))).module()(x)

    assert all(map(torch.equal, pytree.tree_leaves(made), pytree.tree_leaves(layer(x))))
    assert type(made[1]) is type(layer(x)[1])
    return True


KINDS = ("src", "events", "gemm", "auto", "SRC", "SRCConv2d", "readout", "from_dense")


def padded_call(draw: Draw, kind: str, lengths: list[int], sizes: tuple[int, int], dtype: torch.dtype) -> Runs:
    """A function from an input with these lengths to its outputs and all gradients."""
    inputs, neurons = sizes
    autocast = torch.autocast("cpu") if dtype == torch.float32 and chance(draw, 25) else nullcontext()
    weight = floats(draw, neurons, inputs, dtype=dtype, scale=3)
    layer, convolution = SRC(inputs, neurons, 2, dtype=dtype), SRCConv2d(1, 2, 1, dtype=dtype)

    def call(x: Tensor, w: Tensor, a: Tensor) -> Any:
        if kind == "src":
            return src(x, -6.0, alpha=a, lengths=lengths)
        if kind == "SRC":
            return layer(x, lengths=lengths)
        if kind == "SRCConv2d":
            return convolution(x[:, :, None, :, None], lengths=lengths) if inputs else x[:0] * 0
        if kind == "readout":
            return leaky_readout(x, max(inputs, 1), lengths=lengths)
        if kind == "from_dense":
            return EventBatch.from_dense(x, torch.tensor(lengths, dtype=torch.int64)).to_dense(dtype)
        return src_linear(x, w, -6.0, alpha=a, lengths=lengths, method=kind)

    def run(x: Tensor) -> list[Tensor | None]:
        parameters = [*layer.parameters(), *convolution.parameters()]
        leaves = [y.clone().requires_grad_() for y in (x, weight, torch.full((), 0.9, dtype=dtype))]
        with autocast:
            outputs = pytree.tree_leaves(call(*leaves))
        total = torch.stack([y.sum().to(torch.float64) for y in outputs]).sum()
        grads = torch.autograd.grad(total, [*leaves, *parameters], allow_unused=True)
        return [*outputs, *grads]

    return run


def padding(draw: Draw) -> bool:
    """NaN, infinities and other values past the samples' lengths, with every layer and method."""
    steps, batch, inputs, neurons = size(draw), size(draw), size(draw), size(draw)
    kind, dtype = pick(draw, *KINDS), pick(draw, *FLOATS)
    lengths = [draw.randrange(steps + 1) for _ in range(batch)]
    run = padded_call(draw, kind, lengths, (inputs, neurons), dtype)
    x = spikes(draw, steps, batch, inputs, dtype=dtype)
    past = (torch.arange(steps)[:, None] >= torch.tensor(lengths, dtype=torch.int64))[:, :, None]
    filling = floats(draw, steps, batch, inputs, dtype=dtype, wild=100)
    filling = torch.full_like(x, pick(draw, torch.nan, torch.inf, -torch.inf)) if chance(draw, 60) else filling

    expected, made = run(x.masked_fill(past, 0)), run(torch.where(past, filling, x))

    for a, b in zip(made, expected, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or torch.equal(a, b), kind
    return True
