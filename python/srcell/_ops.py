"""The torch operators, and the only importer of the compiled module. ``torch.ops.srcell.src`` and
``torch.ops.srcell.src_backward`` are declared here with their CPU implementations, fake kernels and autograd formula.
Tensors are checked, made contiguous and allocated here; below there are addresses and sizes. Users call
``srcell.functional``, which brings arguments into the form these operators want.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _core

PARAMETERS = ("alpha", "rho", "r", "rs", "zs_hyp", "zs_dep")
SURROGATES = ("relu", "straight_through")

# Outputs from this size on lie on huge pages and are reused; below it torch's own allocator is the faster one.
_BLOCK_BYTES = 4 << 20

_library = torch.library.Library("srcell", "DEF")
_CELL = "Tensor bias, float[] constants, " + "".join(f"Tensor? {name}, " for name in PARAMETERS)
_OPTIONS = "Tensor? lengths, str surrogate, bool recurrent_grad"
_library.define(
    f"src(Tensor current, Tensor? i0, Tensor? h0, Tensor? hs0, {_CELL}{_OPTIONS}, bool save)"
    " -> (Tensor spikes, Tensor i, Tensor h, Tensor hs, Tensor checkpoints)"
)
_library.define(
    "src_backward(Tensor? grad_spikes, Tensor? grad_i, Tensor? grad_h, Tensor? grad_hs, Tensor current,"
    f" Tensor checkpoints, {_CELL}{_OPTIONS}, bool[] wanted)"
    " -> (Tensor current, Tensor i0, Tensor h0, Tensor hs0, Tensor bias,"
    " Tensor alpha, Tensor rho, Tensor r, Tensor rs, Tensor zs_hyp, Tensor zs_dep)"
)

Optionals = Sequence[Tensor | None]


def _check_tensor(name: str, x: Tensor | None, like: Tensor, *shapes: tuple[int, ...]) -> None:
    if x is None:
        return
    if x.dtype != like.dtype:
        raise TypeError(f"{name}: expected dtype {like.dtype}, as current has, got {x.dtype}")
    if x.device != like.device:
        raise ValueError(f"{name}: expected device {like.device}, as current has, got {x.device}")
    if tuple(x.shape) not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(x.shape)}")


def _check(
    current: Tensor, bias: Tensor, constants: Sequence[float], cell: Optionals, lengths: Tensor | None, surrogate: str
) -> tuple[int, int, int]:
    """Check what both operators share and return (T, B, N)."""
    if current.dim() != 3:
        raise ValueError(f"current: expected shape (T, B, N), got {tuple(current.shape)}")
    if current.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"current: expected dtype float32 or float64, got {current.dtype}")
    steps, batch, neurons = current.shape
    for name, x in zip(("bias", *PARAMETERS), (bias, *cell), strict=True):
        _check_tensor(name, x, current, (), (1,), (neurons,))
    if len(constants) != len(PARAMETERS):
        raise ValueError(f"constants: expected {len(PARAMETERS)} values, got {len(constants)}")
    if lengths is not None:
        if lengths.dtype != torch.int64:
            raise TypeError(f"lengths: expected dtype int64, got {lengths.dtype}")
        if lengths.device != current.device:
            raise ValueError(f"lengths: expected device {current.device}, as current has, got {lengths.device}")
        if tuple(lengths.shape) != (batch,):
            raise ValueError(f"lengths: expected shape ({batch},), got {tuple(lengths.shape)}")
    if surrogate not in SURROGATES:
        raise ValueError(f"surrogate: expected one of {', '.join(SURROGATES)}, got {surrogate!r}")
    return steps, batch, neurons


def _segments(steps: int) -> int:
    return (steps + _core.segment - 1) // _core.segment


def _empty(like: Tensor, *shape: int) -> Tensor:
    """Uninitialised contiguous CPU tensor of the dtype of ``like``."""
    count = like.element_size()
    for size in shape:
        count *= size
    if count < _BLOCK_BYTES:
        return torch.empty(shape, dtype=like.dtype)
    return torch.from_numpy(_core.empty(shape, like.dtype == torch.float64))


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _contiguous(tensors: Optionals) -> list[Tensor | None]:
    return [None if x is None else x.contiguous() for x in tensors]


def _parameters(constants: Sequence[float], tensors: Optionals) -> _core.Parameters:
    strides = [0 if x is None or x.numel() == 1 else 1 for x in tensors]
    return _core.Parameters([0.0, *constants], [_address(x) for x in tensors], strides)


@torch.library.impl(_library, "src", "CPU")
def _src_cpu(
    current: Tensor,
    i0: Tensor | None,
    h0: Tensor | None,
    hs0: Tensor | None,
    bias: Tensor,
    constants: Sequence[float],
    alpha: Tensor | None,
    rho: Tensor | None,
    r: Tensor | None,
    rs: Tensor | None,
    zs_hyp: Tensor | None,
    zs_dep: Tensor | None,
    lengths: Tensor | None,
    surrogate: str,
    recurrent_grad: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    cell: Optionals = (alpha, rho, r, rs, zs_hyp, zs_dep)
    steps, batch, neurons = _check(current, bias, constants, cell, lengths, surrogate)
    for name, x in (("i0", i0), ("h0", h0), ("hs0", hs0)):
        _check_tensor(name, x, current, (batch, neurons))
    current = current.contiguous()
    lengths, *initial = _contiguous((lengths, i0, h0, hs0))
    tensors = _contiguous((bias, *cell))
    spikes = _empty(current, steps, batch, neurons)
    state = [_empty(current, batch, neurons) for _ in range(3)]
    checkpoints = _empty(current, _segments(steps) if save else 0, 3, batch, neurons)
    run = _core.scan_forward_f64 if current.dtype == torch.float64 else _core.scan_forward_f32
    run(
        (steps, batch, neurons),
        _address(lengths),
        torch.get_num_threads(),
        _parameters(constants, tensors),
        _address(current),
        [_address(x) for x in initial],
        _address(spikes),
        [_address(x) for x in state],
        _address(checkpoints) if save else 0,
    )
    return spikes, state[0], state[1], state[2], checkpoints


def _src_fake(
    current: Tensor,
    i0: Tensor | None,
    h0: Tensor | None,
    hs0: Tensor | None,
    bias: Tensor,
    constants: Sequence[float],
    alpha: Tensor | None,
    rho: Tensor | None,
    r: Tensor | None,
    rs: Tensor | None,
    zs_hyp: Tensor | None,
    zs_dep: Tensor | None,
    lengths: Tensor | None,
    surrogate: str,
    recurrent_grad: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    steps, batch, neurons = current.shape
    state = [current.new_empty(batch, neurons) for _ in range(3)]
    checkpoints = current.new_empty(_segments(steps) if save else 0, 3, batch, neurons)
    return current.new_empty(steps, batch, neurons), state[0], state[1], state[2], checkpoints


@torch.library.impl(_library, "src_backward", "CPU")
def _src_backward_cpu(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    current: Tensor,
    checkpoints: Tensor,
    bias: Tensor,
    constants: Sequence[float],
    alpha: Tensor | None,
    rho: Tensor | None,
    r: Tensor | None,
    rs: Tensor | None,
    zs_hyp: Tensor | None,
    zs_dep: Tensor | None,
    lengths: Tensor | None,
    surrogate: str,
    recurrent_grad: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    cell: Optionals = (alpha, rho, r, rs, zs_hyp, zs_dep)
    steps, batch, neurons = _check(current, bias, constants, cell, lengths, surrogate)
    _check_tensor("grad_spikes", grad_spikes, current, (steps, batch, neurons))
    for name, x in (("grad_i", grad_i), ("grad_h", grad_h), ("grad_hs", grad_hs)):
        _check_tensor(name, x, current, (batch, neurons))
    _check_tensor("checkpoints", checkpoints, current, (_segments(steps), 3, batch, neurons))
    current, checkpoints = current.contiguous(), checkpoints.contiguous()
    lengths, grad_spikes, *grad_state = _contiguous((lengths, grad_spikes, grad_i, grad_h, grad_hs))
    tensors = _contiguous((bias, *cell))
    grad_current = _empty(current, steps, batch, neurons)
    grad_initial = [_empty(current, batch, neurons) for _ in range(3)]
    grad_bias = torch.empty_like(bias, memory_format=torch.contiguous_format)
    grad_cell = _wanted_gradients(current, cell, wanted)
    run = _core.scan_backward_f64 if current.dtype == torch.float64 else _core.scan_backward_f32
    run(
        (steps, batch, neurons),
        _address(lengths),
        torch.get_num_threads(),
        _parameters(constants, tensors),
        surrogate == "relu",
        recurrent_grad,
        _address(current),
        _address(checkpoints),
        _address(grad_spikes),
        [_address(x) for x in grad_state],
        _address(grad_current),
        [_address(x) for x in grad_initial],
        _address(grad_bias),
        [_address(x) if needed else 0 for x, needed in zip(grad_cell, wanted, strict=True)],
    )
    return grad_current, *grad_initial, grad_bias, *grad_cell


def _src_backward_fake(
    grad_spikes: Tensor | None,
    grad_i: Tensor | None,
    grad_h: Tensor | None,
    grad_hs: Tensor | None,
    current: Tensor,
    checkpoints: Tensor,
    bias: Tensor,
    constants: Sequence[float],
    alpha: Tensor | None,
    rho: Tensor | None,
    r: Tensor | None,
    rs: Tensor | None,
    zs_hyp: Tensor | None,
    zs_dep: Tensor | None,
    lengths: Tensor | None,
    surrogate: str,
    recurrent_grad: bool,
    wanted: Sequence[bool],
) -> tuple[Tensor, ...]:
    steps, batch, neurons = current.shape
    grad_initial = [current.new_empty(batch, neurons) for _ in range(3)]
    grad_bias = torch.empty_like(bias, memory_format=torch.contiguous_format)
    grad_cell = _wanted_gradients(current, (alpha, rho, r, rs, zs_hyp, zs_dep), wanted)
    return current.new_empty(steps, batch, neurons), *grad_initial, grad_bias, *grad_cell


def _wanted_gradients(like: Tensor, cell: Optionals, wanted: Sequence[bool]) -> list[Tensor]:
    """A tensor for each cell parameter's gradient; of no elements where it is not wanted."""
    return [
        like.new_empty(0) if x is None or not needed else torch.empty_like(x, memory_format=torch.contiguous_format)
        for x, needed in zip(cell, wanted, strict=True)
    ]


def _src_setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    current, _, _, _, bias, constants, *cell, lengths, surrogate, recurrent_grad, save = inputs
    checkpoints = output[4]
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(checkpoints)
    ctx.save_for_backward(current, checkpoints, bias, lengths, *cell)
    ctx.options = (list(constants), surrogate, recurrent_grad, save)


def _src_autograd(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    current, checkpoints, bias, lengths, *cell = ctx.saved_tensors
    constants, surrogate, recurrent_grad, save = ctx.options
    if not save:
        raise RuntimeError("srcell::src: a gradient is wanted of a call with save=False")
    needed = ctx.needs_input_grad[6:12]
    wanted = [x is not None and bool(need) for x, need in zip(cell, needed, strict=True)]
    grad_current, i0, h0, hs0, grad_bias, *grad_cell = torch.ops.srcell.src_backward(
        *grads[:4], current, checkpoints, bias, constants, *cell, lengths, surrogate, recurrent_grad, wanted
    )
    cell_grads = [grad if want else None for grad, want in zip(grad_cell, wanted, strict=True)]
    initial = [grad if need else None for grad, need in zip((i0, h0, hs0), ctx.needs_input_grad[1:4], strict=True)]
    return grad_current, *initial, grad_bias, None, *cell_grads, None, None, None, None


def _no_double_backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    raise RuntimeError("srcell::src: double backward is not supported")


torch.library.register_fake("srcell::src", _src_fake, lib=_library)
torch.library.register_fake("srcell::src_backward", _src_backward_fake, lib=_library)
torch.library.register_autograd("srcell::src", _src_autograd, setup_context=_src_setup_context, lib=_library)
torch.library.register_autograd("srcell::src_backward", _no_double_backward, lib=_library)


def rate_encode(
    images: Tensor, index: Tensor, steps: int, prefix: int, gain: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Offsets and indices of the events of float32 images (B, K), contiguous; see srcell.encoders.rate_encode."""
    samples, pixels = images.shape
    threads = torch.get_num_threads()
    offsets, indices = _core.rate_encode(
        images.data_ptr(), index.data_ptr(), samples, pixels, steps, prefix, gain, seed, threads
    )
    return torch.from_numpy(offsets), torch.from_numpy(indices)


def find_event_fault(
    offsets: Tensor, indices: Tensor, values: Tensor | None, lengths: Tensor | None, shape: tuple[int, int, int]
) -> tuple[str, int] | None:
    """What is wrong first with contiguous parts of an EventBatch, of the right shapes and dtypes, and where."""
    is_double = values is not None and values.dtype == torch.float64
    values_f32, values_f64 = (0, _address(values)) if is_double else (_address(values), 0)
    threads = torch.get_num_threads()
    return _core.find_event_fault(
        offsets.data_ptr(), indices.data_ptr(), values_f32, values_f64, _address(lengths), *shape, len(indices), threads
    )


def core_info() -> dict[str, Any]:
    """What the compiled module says of itself."""
    return {
        "version": _core.version,
        "isa": _core.isa,
        "isas": _core.available_isas,
        "thread_runtime": _core.thread_runtime(),
    }
