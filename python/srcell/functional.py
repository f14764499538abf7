"""The stateless functions: the SRC recurrence, a linear synapse before it, its resting state and the leaky readout.

Arguments are brought here into the form that the operators of ``ops`` take, which check shapes and dtypes; no equation
stands here. The definition, its gradients and their names are those of arXiv 2306.03623.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F

from .events import EventBatch, as_float, check_bool, check_word, require_dense
from .ops import _dense, _gpu
from .ops._layer import HALF, PARAMETERS, STATE, SURROGATES, work_dtype
from .ops._memory import has_memory
from .ops._memory import without_padding as zero_padding
from .ops.count import count_spikes as count_spikes_operator
from .ops.rest import rest
from .ops.scale import scale
from .ops.src import src as src_operator
from .ops.src_dense import src_dense
from .ops.src_events import src_events

__all__ = ["SRCState", "SpikeCounts", "count_spikes", "leaky_readout", "rest_state", "src", "src_linear"]

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class SRCState(NamedTuple):
    r"""The state of SRC neurons after a step: three tensors of one shape, (B, \*F)."""

    i: Tensor
    """The leaky input integrator."""
    h: Tensor
    """The fast state, the "membrane", near 1 in a spike."""
    hs: Tensor
    """The slow state, which ends the spike and sets the refractory time."""

    def detach(self) -> SRCState:
        """The same state, through which no gradient flows further back: for truncated backpropagation through time."""
        return SRCState(*(x.detach() for x in self))

    def to(self, *args: Any, **kwargs: Any) -> SRCState:
        """Each tensor's ``to``: another device, another dtype.

        Example:
            >>> import torch
            >>> from srcell import rest_state
            >>> rest_state(-6.0).to(torch.float64).h.dtype
            torch.float64

        """
        return SRCState(*(x.to(*args, **kwargs) for x in self))


Parameter = float | Tensor
State = SRCState | tuple[Tensor, Tensor, Tensor]


def src(
    current: Tensor,
    bias: Parameter,
    state: State | None = None,
    *,
    alpha: Parameter = 0.9,
    rho: Parameter = 3.0,
    r: Parameter = 2.0,
    rs: Parameter = -7.0,
    zs_hyp: Parameter = 0.9,
    zs_dep: Parameter = 0.0,
    surrogate: str = "straight_through",
    recurrent_grad: bool = False,
    lengths: Tensor | Sequence[int] | None = None,
) -> tuple[Tensor, SRCState]:
    r"""Run Spiking Recurrent Cells over given input currents.

    Any synapse may stand before it; the cell itself is elementwise over the neurons F. On a CPU the result has the same
    bits for every instruction set, thread count and batch size, in one call or cut into several.

    Args:
        current: input currents, (T, B, \*F), float32 or float64. float16 and bfloat16 are computed in float32, as is
            everything under autocast; a GPU reads them as they are.
        bias: excitability, a float or a tensor that broadcasts to F. -6 is silent at rest; above about -4.9 a neuron
            oscillates by itself.
        state: the state before the first step, three tensors (B, \*F); zeros if absent.
        alpha: leak of the input integrator, in [0, 1].
        rho: bound of the drive, > 0.
        r: positive feedback, which makes the spike.
        rs: negative feedback, which ends it.
        zs_hyp: slow gate when hyperpolarised.
        zs_dep: slow gate when depolarised.
        surrogate: gradient of the output spike[t] = max(h[t], 0): ``"relu"``, its true derivative, or
            ``"straight_through"``, 1 everywhere.
        recurrent_grad: whether gradients follow h[t-1] and hs[t-1] (full backpropagation through time); otherwise
            only the integrator carries them through time. With ``("relu", True)`` gradients are the derivative of the
            forward; the defaults are cheaper and train more robustly, but are not.
        lengths: (B,) integers in [0, T]: steps past a sample's length leave its state unchanged, emit nothing and get
            no gradient. On a GPU a tensor there is taken as it is; a list must be brought there, which waits.

    Each cell parameter is a float or a tensor that broadcasts to F; tensors may require gradients.

    Returns:
        spikes, (T, B, \*F), exactly 0 when silent and about 1 in a spike, in the dtype of ``current`` (float32 under
        autocast), and the state after each sample's last step, in float32 or float64.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import src
        >>> current = torch.zeros(40, 1, 1)
        >>> current[20] = 10.0
        >>> spikes, state = src(current, bias=-6.0)
        >>> spikes[:, 0, 0].nonzero().flatten().tolist()
        [20, 21]

    """
    cell = Cell(alpha, rho, r, rs, zs_hyp, zs_dep)
    _check_current(current)
    layer = _layer(current, current.shape[1:], bias, state, cell, lengths, surrogate, recurrent_grad)
    return _run_src(current, layer)


def _run_src(current: Tensor, layer: _Layer) -> tuple[Tensor, SRCState]:
    """``src`` on a layer's values as the operator takes them."""
    steps, batch, *features = current.shape
    flat = current if _gpu.is_gpu(current.device) else _worked_on(current)
    if len(features) > 1:
        flat = flat.reshape(steps, batch, _flat_size("current", features))
    _refuse_forward_mode("src", layer, flat)
    spikes, i, h, hs, _ = src_operator(
        flat,
        layer.bias,
        layer.cell,
        layer.state,
        layer.lengths,
        constants=layer.constants,
        surrogate=layer.surrogate,
        recurrent_grad=layer.recurrent_grad,
        save=False,
    )
    if len(features) > 1:
        spikes = spikes.reshape(current.shape)
        i, h, hs = (x.reshape(batch, *features) for x in (i, h, hs))
    if current.dtype in HALF and not autocasts(current):
        spikes = spikes.to(current.dtype)
    return spikes, SRCState(i, h, hs)


def src_linear(
    input: Tensor | EventBatch,
    weight: Tensor,
    bias: Parameter,
    state: State | None = None,
    *,
    alpha: Parameter = 0.9,
    rho: Parameter = 3.0,
    r: Parameter = 2.0,
    rs: Parameter = -7.0,
    zs_hyp: Parameter = 0.9,
    zs_dep: Parameter = 0.0,
    surrogate: str = "straight_through",
    recurrent_grad: bool = False,
    lengths: Tensor | Sequence[int] | None = None,
    method: str = "auto",
) -> tuple[Tensor, SRCState]:
    """Run Spiking Recurrent Cells behind a linear synapse: ``src(input @ weight.T, ...)``.

    Args:
        input: (T, B, K) tensor, or an :class:`~srcell.EventBatch` of that shape, whose lengths are used. A tensor has
            the dtype of the weight, or is one of bools or integers, taken as so many spikes.
        weight: (N, K).
        bias: excitability, a float or a tensor that broadcasts to (N,).
        state: the state before the first step, three tensors (B, N); zeros if absent.
        method: ``"events"`` sums the weights of the inputs that are not 0, one by one in their order, the same bits for
            every instruction set, thread count and batch size. ``"gemm"`` is torch's matrix product, whose bits
            depend on the batch; an EventBatch is made dense for it, which on a GPU waits. ``"auto"`` takes events for
            an EventBatch; for a dense tensor whichever is expected to be faster, which is events where the density of
            a sample of its rows is below 0.5 + 30 / K; for half precision, under autocast and on a GPU, which would
            have to be waited for, it takes the product.
        alpha: see :func:`src`, as for all others.
        rho: see :func:`src`.
        r: see :func:`src`.
        rs: see :func:`src`.
        zs_hyp: see :func:`src`.
        zs_dep: see :func:`src`.
        surrogate: see :func:`src`.
        recurrent_grad: see :func:`src`.
        lengths: see :func:`src`; not beside an EventBatch that has its own.

    Returns:
        spikes (T, B, N) and the state after each sample's last step.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, device or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import src_linear
        >>> spikes, state = src_linear(torch.ones(30, 2, 5), torch.ones(3, 5), bias=torch.full((3,), -6.0))
        >>> spikes.shape, state.h.shape
        (torch.Size([30, 2, 3]), torch.Size([2, 3]))

    """
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight: expected a tensor, got {type(weight).__name__}")
    require_dense("weight", weight)
    if weight.dim() != 2:
        raise ValueError(f"weight: expected shape (N, K), got {tuple(weight.shape)}")
    check_word("method", method, _dense.METHODS)
    cell = Cell(alpha, rho, r, rs, zs_hyp, zs_dep)
    return linear(input, weight, bias, state, cell, lengths, surrogate, recurrent_grad, method=method)


def linear(
    input: Tensor | EventBatch,
    weight: Tensor,
    bias: Parameter,
    state: State | None,
    cell: Cell,
    lengths: Tensor | Sequence[int] | None,
    surrogate: str,
    recurrent_grad: bool,
    *,
    method: str = "auto",
    input_grad_at_events: bool = False,
) -> tuple[Tensor, SRCState]:
    """``src_linear`` on a weight and a method that are checked, for the package's own.

    With ``input_grad_at_events`` the caller needs the gradient of a dense input only where it is not 0, as the output
    of a layer with the relu surrogate does; it is then unspecified elsewhere.
    """
    _check_device("weight", weight)
    if not weight.is_floating_point():
        raise TypeError(f"weight: expected a floating-point dtype, got {weight.dtype}")
    if isinstance(input, EventBatch):
        if input.lengths is not None and lengths is not None:
            raise ValueError("lengths: expected None beside an EventBatch that has lengths, got lengths")
        if input.shape[2] != weight.shape[1]:
            raise ValueError(f"input: expected shape (T, B, {weight.shape[1]}), got {input.shape}")
        lengths = input.lengths if lengths is None else lengths
    elif not isinstance(input, Tensor):
        raise TypeError(f"input: expected a tensor or an EventBatch, got {type(input).__name__}")
    else:
        require_dense("input", input)
        if input.dim() != 3 or input.shape[2] != weight.shape[1]:
            raise ValueError(f"input: expected shape (T, B, {weight.shape[1]}), got {tuple(input.shape)}")
    if input.device != weight.device:
        raise ValueError(f"input: expected device {weight.device}, as weight has, got {input.device}")
    layer = _layer(weight, (input.shape[1], weight.shape[0]), bias, state, cell, lengths, surrogate, recurrent_grad)
    if isinstance(input, Tensor):
        return _dense_linear(input, weight, layer, method, input_grad_at_events)
    if method == "gemm":
        # Made anew, because it may have been altered since it was validated, and made dense nothing looks at it again.
        checked = EventBatch(input.offsets, input.indices, input.values, shape=input.shape)
        dense = checked.to_dense(work_dtype(weight)).to(weight.dtype)
        return _dense_linear(dense, weight, layer, method, input_grad_at_events)
    return _events_linear(input, weight, layer)


def _events_linear(input: EventBatch, weight: Tensor, layer: _Layer) -> tuple[Tensor, SRCState]:
    """``linear`` on the events of an EventBatch."""
    steps, batch, _ = input.shape
    work = _worked_on(weight)
    values = None if input.values is None else input.values.to(work.dtype)
    _refuse_forward_mode("src_linear", layer, work, values)
    spikes, i, h, hs, *_ = src_events(
        input.offsets,
        input.indices,
        values,
        work,
        layer.bias,
        layer.cell,
        layer.state,
        layer.lengths,
        steps=steps,
        batch=batch,
        constants=layer.constants,
        surrogate=layer.surrogate,
        recurrent_grad=layer.recurrent_grad,
        save=False,
        trace_integrator=False,
    )
    return _in_dtype(spikes, weight), SRCState(i, h, hs)


def _dense_linear(
    input: Tensor, weight: Tensor, layer: _Layer, method: str, input_grad_at_events: bool
) -> tuple[Tensor, SRCState]:
    """``linear`` on a dense input."""
    input = as_spikes(input, weight.dtype)
    autocast = autocasts(input)
    if input.dtype != weight.dtype and not autocast:
        raise TypeError(f"input: expected dtype {weight.dtype}, as weight has, got {input.dtype}")
    method = _dense.without_looking(method, half=autocast or weight.dtype in HALF)
    if method == "gemm":
        input, _ = without_padding(input, layer.lengths)
        return _run_src(F.linear(input, weight), layer)
    work, input = _worked_on(weight), _worked_on(input)
    _refuse_forward_mode("src_linear", layer, work, input)
    spikes, i, h, hs, *_ = src_dense(
        input,
        work,
        layer.bias,
        layer.cell,
        layer.state,
        layer.lengths,
        method=method,
        constants=layer.constants,
        surrogate=layer.surrogate,
        recurrent_grad=layer.recurrent_grad,
        save=False,
        trace_integrator=False,
        input_grad_at_events=input_grad_at_events,
    )
    return _in_dtype(spikes, weight), SRCState(i, h, hs)


def as_spikes(input: Tensor, dtype: torch.dtype) -> Tensor:
    """Bools and integers as numbers of spikes of a dtype; floating-point tensors as they are; for the package's own."""
    return input.to(dtype) if input.dtype in _INTEGERS or input.dtype == torch.bool else input


def without_padding(
    input: Tensor, lengths: Tensor | Sequence[int] | None
) -> tuple[Tensor, Tensor | Sequence[int] | None]:
    """The input (T, B, ...) with zeros past the samples' lengths, and these as a tensor, for what sums over steps.

    Its gradient is 0 there, but 0 times NaN is not.
    """
    if lengths is None:
        return input, None
    lengths = _check_lengths(lengths, input.shape[1], input.device)
    return zero_padding(input, lengths), lengths


def _worked_on(x: Tensor) -> Tensor:
    """A floating-point tensor in the dtype in which it is worked on."""
    dtype = work_dtype(x)
    return x if x.dtype == dtype else x.to(dtype)


def _in_dtype(spikes: Tensor, weight: Tensor) -> Tensor:
    if weight.dtype in HALF and not autocasts(weight):
        return spikes.to(weight.dtype)
    return spikes


def autocasts(x: Tensor) -> bool:
    """Whether autocast is enabled where x is; torch does not know it on meta."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


@torch.no_grad()
def rest_state(
    bias: Parameter,
    *,
    alpha: Parameter = 0.9,
    rho: Parameter = 3.0,
    r: Parameter = 2.0,
    rs: Parameter = -7.0,
    zs_hyp: Parameter = 0.9,
    zs_dep: Parameter = 0.0,
) -> SRCState:
    """The silent fixed point without input: i = 0 and the lowest h = hs with h = tanh((r + rs) h + bias).

    Args:
        bias: a float or a tensor.
        alpha: accepted like :func:`src`'s, without influence: the fixed point does not depend on it.
        rho: without influence.
        r: a float or a tensor that broadcasts with bias, as is rs.
        rs: negative feedback.
        zs_hyp: without influence.
        zs_dep: without influence.

    Returns:
        The state, of the broadcast shape of bias, r and rs; float32 unless the bias is float64. It carries no gradient.
        For a bias above about -4.9 the fixed point exists but is unstable.

    Raises:
        TypeError: bias, r or rs is neither a number nor a floating-point tensor.
        ValueError: one that is no tensor is not finite, or their shapes or devices do not go together.

    Example:
        >>> from srcell.functional import rest_state
        >>> round(rest_state(-6.0).h.item(), 5)
        -0.90269

    """
    dtype = bias.dtype if isinstance(bias, Tensor) and bias.dtype == torch.float64 else torch.float32
    b, gain = _resting_point(bias, r, rs)
    h = rest(b, gain).to(dtype)
    return SRCState(torch.zeros_like(h), h, h.clone())


def _resting_point(bias: Parameter, r: Parameter, rs: Parameter) -> tuple[Tensor, Tensor]:
    """What the fixed point depends on, bias and r + rs, in float64 and of one shape."""
    given = {"bias": bias, "r": r, "rs": rs}
    devices = [x.device for x in given.values() if isinstance(x, Tensor)]
    device = devices[0] if devices else torch.device("cpu")
    doubles: list[Tensor] = []
    for name, value in given.items():
        if isinstance(value, Tensor):
            if not value.is_floating_point():
                raise TypeError(f"{name}: expected a floating-point dtype, got {value.dtype}")
            require_dense(name, value)
            if value.device != device:
                raise ValueError(f"{name}: expected device {device}, as the tensor before it has, got {value.device}")
            double = value.to(torch.float64)
        else:
            number = as_float(name, value)
            if not -math.inf < number < math.inf:  # isfinite() breaks the graph where a compiled call's floats vary
                raise ValueError(f"{name}: expected a finite value, got {number}")
            double = torch.full((), number, dtype=torch.float64, device=device)
        try:
            doubles = list(torch.broadcast_tensors(*doubles, double))
        except RuntimeError:
            expected = tuple(doubles[0].shape)
            got = tuple(double.shape)
            raise ValueError(f"{name}: expected a shape that broadcasts with {expected}, got {got}") from None
    b, r_, rs_ = doubles
    return b, r_ + rs_


def leaky_readout(
    spikes: Tensor,
    num_classes: int,
    *,
    alpha: float = 0.99,
    inhibition: float = -0.1,
    lengths: Tensor | Sequence[int] | None = None,
) -> Tensor:
    """Let neurons vote for classes through one leaky integrator per class.

    Neuron n votes for class ``n % num_classes`` with weight 1 and for every other class with weight ``inhibition``; the
    integrators are ``o[t] = alpha * o[t-1] + R s[t]``, and the result is o at each sample's last step. Constants from
    the configuration that the authors' group published with arXiv 2605.10679.

    Args:
        spikes: (T, B, N), N a multiple of ``num_classes``.
        num_classes: C, at least 1.
        alpha: leak of the integrators, in [0, 1].
        inhibition: weight of a vote on the other classes, finite.
        lengths: (B,) integers in [0, T]; T for all if absent.

    Returns:
        (B, C), in the dtype of ``spikes``, or float32 if that is shorter.

    Raises:
        TypeError: an argument of the wrong type or dtype; the message names it.
        ValueError: a wrong shape or value; the message names the argument.

    Example:
        >>> import torch
        >>> from srcell.functional import leaky_readout
        >>> spikes = torch.zeros(3, 1, 4)
        >>> spikes[0, 0, 1] = spikes[2, 0, 3] = 1.0
        >>> leaky_readout(spikes, 2, alpha=0.5)
        tensor([[-0.1250,  1.2500]])

    """
    if not isinstance(spikes, Tensor) or not spikes.is_floating_point():
        raise TypeError(f"spikes: expected a floating-point tensor, got {describe(spikes)}")
    require_dense("spikes", spikes)
    if not isinstance(num_classes, numbers.Integral):
        raise TypeError(f"num_classes: expected an int, got {describe(num_classes)}")
    if not 1 <= num_classes < 2**63:
        raise ValueError(f"num_classes: expected at least 1 and below 2^63, got {num_classes}")
    if spikes.dim() != 3 or spikes.shape[2] % num_classes:
        raise ValueError(f"spikes: expected shape (T, B, N), N a multiple of {num_classes}, got {tuple(spikes.shape)}")
    alpha, inhibition = check_integrators(alpha, inhibition)
    if spikes.dtype in HALF:
        spikes = spikes.float()
    with _full_precision(spikes):
        pooled = _discounted_sum(spikes, alpha, lengths)
        own = pooled.view(len(pooled), spikes.shape[2] // num_classes, num_classes).sum(1)
        return (1 - inhibition) * own + inhibition * pooled.sum(1, keepdim=True)


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Keeps autocast from lowering products."""
    return torch.autocast(x.device.type, enabled=False) if autocasts(x) else nullcontext()


def _discounted_sum(spikes: Tensor, alpha: float, lengths: Tensor | Sequence[int] | None) -> Tensor:
    """(B, N) of (T, B, N): the sum over a sample's steps of alpha^age s, where its last step has age 0."""
    steps, batch, neurons = spikes.shape
    age = torch.arange(steps - 1, -1, -1, device=spikes.device)
    base = torch.full((), alpha, dtype=spikes.dtype, device=spikes.device)
    if lengths is None:
        flat = spikes.reshape(steps, _flat_size("spikes", (batch, neurons)))
        return (torch.pow(base, age) @ flat).view(batch, neurons)
    lengths = _check_lengths(lengths, batch, spikes.device)
    if lengths.device.type == "cpu" and not torch.compiler.is_compiling():
        wrong = ((lengths < 0) | (lengths > steps)).any()
        if has_memory(wrong) and bool(wrong):
            raise ValueError(f"lengths: expected values in [0, {steps}], got {lengths.tolist()}")
    ages = age[:, None] - (steps - lengths)
    return torch.einsum("tb,tbn->bn", torch.pow(base, ages.clamp(min=0)), zero_padding(spikes, lengths))


class SpikeCounts(NamedTuple):
    r"""What neurons did over all steps and samples: two int64 tensors (\*F)."""

    events: Tensor
    """Cells (step, sample) in which the neuron is active, s > 0."""
    spikes: Tensor
    """Upward crossings of 0.5; a first step above it counts as one."""


def count_spikes(spikes: Tensor) -> SpikeCounts:
    r"""Count what each neuron did.

    Args:
        spikes: (T, B, \*F), the output of ``src``, ``src_linear`` or a layer; any floating-point dtype.

    Raises:
        TypeError: ``spikes`` is not a floating-point tensor.
        ValueError: it has less than two dimensions.

    Source: the project's definition of events and spikes.

    Example:
        >>> import torch
        >>> from srcell.functional import count_spikes
        >>> counts = count_spikes(torch.tensor([0.0, 0.3, 0.9, 1.0, 0.1, 0.0, 0.8]).view(7, 1, 1))
        >>> counts.events, counts.spikes
        (tensor([5]), tensor([2]))

    """
    if not isinstance(spikes, Tensor) or not spikes.is_floating_point():
        raise TypeError(f"spikes: expected a floating-point tensor, got {describe(spikes)}")
    require_dense("spikes", spikes)
    if spikes.dim() < 2:
        raise ValueError(f"spikes: expected shape (T, B, ...), got {tuple(spikes.shape)}")
    plain = spikes.detach()
    if plain.dtype in HALF:
        plain = plain.float()
    steps, batch, *neurons = plain.shape
    flat = plain.reshape(steps, batch, _flat_size("spikes", neurons))
    events, crossings = count_spikes_operator(flat)
    return SpikeCounts(events.view(neurons), crossings.view(neurons))


def scale_neurons(spikes: Tensor, factors: Tensor) -> Tensor:
    r"""``spikes * factors``, where each neuron of each sample has one factor for all steps.

    Args:
        spikes: (T, B, \*F).
        factors: (B, \*F), of the same dtype and device; they get no gradient.

    Example:
        >>> import torch
        >>> scale_neurons(torch.ones(2, 1, 3), torch.tensor([[0.0, 2.0, 1.0]]))[1]
        tensor([[0., 2., 1.]])

    """
    if _is_transformed():
        return spikes * factors.detach()
    result: Tensor = scale(spikes, factors.detach())
    return result


def _is_transformed() -> bool:
    """Whether a transformation of torch.func or forward mode is under way, which operators of ours do not know."""
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None


def _flat_size(name: str, sizes: Sequence[int]) -> int:
    """The product of some of a tensor's sizes, which even one without elements cannot have arbitrarily large."""
    product = math.prod(sizes)
    if not torch.compiler.is_compiling() and product >= 2**63:
        raise ValueError(f"{name}: expected sizes of a product below 2^63, got {tuple(sizes)}")
    return product


def check_integrators(alpha: float, inhibition: float) -> tuple[float, float]:
    """The constants of ``leaky_readout`` as floats, in their ranges; for the package's own."""
    alpha, inhibition = as_float("alpha", alpha), as_float("inhibition", inhibition)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a value in [0, 1], got {alpha}")
    if not -math.inf < inhibition < math.inf:
        raise ValueError(f"inhibition: expected a finite value, got {inhibition}")
    return alpha, inhibition


def describe(x: object) -> str:
    return f"a tensor of {x.dtype}" if isinstance(x, Tensor) else type(x).__name__


def _check_current(current: Tensor) -> None:
    if not isinstance(current, Tensor):
        raise TypeError(f"current: expected a tensor, got {type(current).__name__}")
    require_dense("current", current)
    if current.dtype not in (torch.float32, torch.float64, *HALF):
        raise TypeError(f"current: expected dtype float32, float64, float16 or bfloat16, got {current.dtype}")
    if current.dim() < 3:
        raise ValueError(f"current: expected shape (T, B, *F) of at least three dimensions, got {tuple(current.shape)}")
    _check_device("current", current)


def _check_device(name: str, x: Tensor) -> None:
    if x.device.type not in ("cpu", "cuda", "meta"):
        raise ValueError(f"{name}: expected a tensor on a CPU or a CUDA device, got one on {x.device}")


class Cell(NamedTuple):
    """The cell parameters as users give them."""

    alpha: Parameter = 0.9
    rho: Parameter = 3.0
    r: Parameter = 2.0
    rs: Parameter = -7.0
    zs_hyp: Parameter = 0.9
    zs_dep: Parameter = 0.0


_DEFAULTS = Cell()


class _Layer(NamedTuple):
    """A layer's values as the operators take them, which check shapes, dtypes and devices."""

    bias: Tensor
    cell: list[Tensor]
    state: list[Tensor]
    lengths: Tensor | None
    constants: list[float]
    surrogate: str
    recurrent_grad: bool


def _layer(
    like: Tensor,
    shape: Sequence[int],
    bias: Parameter,
    state: State | None,
    cell: Cell,
    lengths: Tensor | Sequence[int] | None,
    surrogate: str,
    recurrent_grad: bool,
) -> _Layer:
    """The values of B samples of neurons, of shape (B, *F), in the dtype in which a tensor is worked on."""
    check_gradient_mode(surrogate, recurrent_grad)
    features = shape[1:]
    tensors: list[Tensor] = []
    constants = list(cell)
    if any(type(value) is not float for value in cell):
        constants = [
            float(default) if isinstance(value, Tensor) else _as_constant(name, value)
            for name, value, default in zip(PARAMETERS, cell, _DEFAULTS, strict=True)
        ]
        if any(isinstance(value, Tensor) for value in cell):
            tensors = [
                _flat_parameter(name, value if isinstance(value, Tensor) else constant, features, like)
                for name, value, constant in zip(PARAMETERS, cell, constants, strict=True)
            ]
    return _Layer(
        _flat_parameter("bias", bias, features, like),
        tensors,
        [] if state is None else _flat_state(state, shape, like),
        None if lengths is None else _as_lengths(lengths, like.device),
        cast("list[float]", constants),
        surrogate,
        recurrent_grad,
    )


def check_gradient_mode(surrogate: str, recurrent_grad: bool) -> None:
    """Raise unless they are such as ``src`` takes; for the package's own."""
    check_word("surrogate", surrogate, SURROGATES)
    check_bool("recurrent_grad", recurrent_grad)


def _refuse_forward_mode(name: str, layer: _Layer, *synapse: Tensor | None) -> None:
    """Raise where a tangent would be lost in silence: the operators have formulas for reverse mode only."""
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return
    tensors = [x for x in (*synapse, layer.bias, *layer.state, *layer.cell) if x is not None]
    if any(forward_ad.unpack_dual(x).tangent is not None for x in tensors):
        raise RuntimeError(f"{name}: forward-mode differentiation (jvp) is not supported")


def _as_constant(name: str, value: Parameter) -> float:
    if type(value) is float:
        return value
    if isinstance(value, (Tensor, bool)) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: expected a float or a tensor, got {type(value).__name__}")
    return as_float(name, value)


def _flat_parameter(name: str, value: Parameter, features: Sequence[int], like: Tensor) -> Tensor:
    """A tensor of one element or of N."""
    if not isinstance(value, Tensor):
        dtype, number = work_dtype(like), _as_constant(name, value)
        if not abs(number) <= torch.finfo(dtype).max:
            raise ValueError(f"{name}: expected a finite value of {dtype}, got {value}")
        return torch.full((), number, dtype=dtype, device=like.device)
    value = _widened(name, value, like)
    if len(features) == 1 and value.dim() == 1 and value.shape[0] == features[0]:
        return value
    if value.numel() == 1:
        return value.reshape(())
    try:
        expanded = value.expand(features)
    except RuntimeError:
        raise ValueError(
            f"{name}: expected a shape that broadcasts to {tuple(features)}, got {tuple(value.shape)}"
        ) from None
    return expanded.reshape(-1)


def _widened(name: str, x: Tensor, like: Tensor) -> Tensor:
    """The tensor, one of half precision in the dtype in which it is worked on."""
    require_dense(name, x)
    return x.float() if x.dtype in HALF and like.dtype != torch.float64 else x


def check_state(state: State) -> list[tuple[str, Tensor]]:
    """Raise unless it is three tensors; returns them with the names that errors give them; for the package's own."""
    if not isinstance(state, tuple) or len(state) != 3 or not all(isinstance(x, Tensor) for x in state):
        raise TypeError(f"state: expected a tuple of three tensors (i, h, hs), got {type(state).__name__}")
    return list(zip(("state.i", "state.h", "state.hs"), state, strict=True))


def _flat_state(state: State, shape: Sequence[int], like: Tensor) -> list[Tensor]:
    """Three tensors (B, N)."""
    flat = [_widened(name, x, like) for name, x in check_state(state)]
    if len(shape) == 2:
        return flat
    for name, x in zip(STATE, flat, strict=True):
        if x.shape != torch.Size(shape):
            raise ValueError(f"state.{name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    return [x.reshape(shape[0], math.prod(shape[1:])) for x in flat]


def _as_lengths(lengths: Tensor | Sequence[int], device: torch.device) -> Tensor:
    """Integers as the operators take them."""
    if not isinstance(lengths, Tensor):
        try:
            lengths = torch.as_tensor(lengths, device=device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"lengths: expected integers, got {type(lengths).__name__}: {error}") from None
    require_dense("lengths", lengths)
    if lengths.dtype not in _INTEGERS and (
        lengths.numel() or not lengths.is_floating_point()
    ):  # [] becomes floats of none
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    return lengths.to(torch.int64)


def _check_lengths(lengths: Tensor | Sequence[int], batch: int, device: torch.device) -> Tensor:
    """The same, checked for what torch's own operators do with them."""
    lengths = _as_lengths(lengths, device)
    if tuple(lengths.shape) != (batch,):
        raise ValueError(f"lengths: expected shape ({batch},), got {tuple(lengths.shape)}")
    if lengths.device != device:
        raise ValueError(f"lengths: expected device {device}, got {lengths.device}")
    return lengths
