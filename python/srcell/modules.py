"""SRC layers as torch modules, with the conventions of torch.nn's recurrent layers: weights, parameters, state passing.

State is explicit: passed in, returned, never hidden in a module. The recurrence itself is srcell.functional's.
"""

from __future__ import annotations

import math
import numbers
import warnings
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .events import EventBatch, as_float, check_bool, check_word, require_dense
from .functional import (
    Cell,
    Parameter,
    SRCState,
    State,
    as_spikes,
    autocasts,
    check_gradient_mode,
    check_integrators,
    check_state,
    dense_linear,
    describe,
    events_linear,
    leaky_readout,
    rest_state,
    src,
    without_padding,
)
from .ops._memory import has_memory

__all__ = ["SRC", "LeakyReadout", "SRCCell", "SRCConv2d"]

# How weights start; docs/initialisation.md derives the numbers.
FIRST_WEIGHT_SCALE = 3.0  # standard deviation times sqrt(K) where the input comes from outside
VOTING_WEIGHT_SCALE = 6.0  # the same for a layer that votes for classes, on top of others
RELAY_WEIGHT, RELAY_NOISE = 3.0, 0.5  # between hidden layers: of the one input that is passed on; of all, times sqrt(K)
# Where learnable cell parameters act and constrain_() keeps them; r and rs are free.
_DOMAINS = {"alpha": (0.0, 1.0), "rho": (1e-3, math.inf), "zs_hyp": (0.0, 1.0), "zs_dep": (0.0, 1.0)}
_STATE = ("i0", "h0", "hs0")
_INITIAL_STATES = ("zeros", "rest")
_CELL_DEFAULTS = Cell()._asdict()


class _HasConstants(nn.Module):
    """A module whose outputs depend on numbers that are no parameters.

    They travel in its state_dict as one float64 tensor, ``_extra_state``, so that a checkpoint means the same wherever
    it is loaded: first the sum of 2^k for each k-th of them that a tensor of its own holds instead, then the numbers,
    always in the same order, with 0 for those. A module that loads one takes its numbers over, and says so where they
    differ from its own.
    """

    @abstractmethod
    def _constants(self) -> dict[str, float | None]:
        """The numbers by name, in an order that does not change; None for what a tensor of its own holds."""

    @abstractmethod
    def _set_constants(self, constants: Mapping[str, float]) -> None:
        """Take over all numbers that no tensor holds; ValueError where one is none that the module takes."""

    def get_extra_state(self) -> Tensor:
        """The numbers, float64 on the CPU."""
        numbers = list(self._constants().values())
        held = sum(2**k for k, number in enumerate(numbers) if number is None)
        return torch.tensor([held, *(number or 0.0 for number in numbers)], dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the numbers of a checkpoint.

        Raises:
            ValueError: they are none of such a module.

        """
        own, name = self._constants(), type(self).__name__
        shape = (1 + len(own),)
        if not isinstance(state, Tensor) or not state.is_floating_point() or state.shape != shape:
            got = f"{describe(state)} of shape {tuple(state.shape)}" if isinstance(state, Tensor) else describe(state)
            raise ValueError(f"_extra_state of {name}: expected floats of shape {shape}, got {got}")
        if not has_memory(state):  # nor have the parameters that come with it
            return
        held, *numbers = state.tolist()
        if held != self.get_extra_state()[0]:
            constants = [key for key, number in own.items() if number is not None]
            raise ValueError(f"_extra_state of {name}: expected numbers for just {', '.join(constants)}, got others")
        carried = {key: number for key, number in zip(own, numbers, strict=True) if own[key] is not None}
        self._set_constants(carried)
        changes = [f"{key}={number:g} instead of {own[key]:g}" for key, number in carried.items() if number != own[key]]
        if changes:
            warnings.warn(f"{name}: took over from the checkpoint: {', '.join(changes)}", stacklevel=2)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        key = f"{prefix}_extra_state"
        others = (missing_keys, unexpected_keys, error_msgs)
        try:
            super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, *others)
        except ValueError as error:
            error_msgs.append(str(error))
        if key not in state_dict:
            missing_keys[:] = [name for name in missing_keys if name != key]
            if any(name.startswith(prefix) for name in state_dict):
                warnings.warn(
                    f"the state_dict has no constants (_extra_state), as those of srcell 0.1: {type(self).__name__} "
                    "keeps its own",
                    stacklevel=2,
                )


class _Clamped(torch.autograd.Function):
    """A parameter within its bounds. Its gradient is that of the bounded value; where the parameter lies outside, only
    a gradient whose descent brings it back passes, so that it neither runs away nor gets stuck.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, low: float, high: float) -> Tensor:
        return x.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float, float], output: Tensor) -> None:
        x, ctx.low, ctx.high = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (grad,) = ctx.saved_tensors, grads
        outward = ((x > ctx.high) & (grad < 0)) | ((x < ctx.low) & (grad > 0))
        return grad.masked_fill(outward, 0), None, None


_clamped: Callable[..., Tensor] = _Clamped.apply


class _SRCBase(_HasConstants):
    """What the layers share: their parameters, the domains of these and their initial values.

    A module may hold several layers, whose tensors then carry a suffix each.
    """

    _WEIGHT_NAME, _BIAS_NAME = "weight_ih{}", "bias{}"

    def __init__(
        self,
        neurons: int,
        weight_shapes: dict[str, tuple[int, ...]],
        *,
        bias: bool,
        cell: dict[str, Parameter],
        learnable: Sequence[str],
        surrogate: str,
        recurrent_grad: bool,
        initial_state: str,
        learn_initial_state: bool,
        bias_init: float,
        bias_max: float,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        check_gradient_mode(surrogate, recurrent_grad)
        check_word("initial_state", initial_state, _INITIAL_STATES)
        check_bool("bias", bias)
        check_bool("learn_initial_state", learn_initial_state)
        try:
            self.learnable = tuple(learnable)
        except (TypeError, RuntimeError):
            raise TypeError(f"learnable: expected a sequence of names, got {describe(learnable)}") from None
        if isinstance(learnable, str):
            raise TypeError(f"learnable: expected a sequence of names, got the string {learnable!r}")
        for name in self.learnable:
            if not isinstance(name, str) or name not in cell:
                raise ValueError(f"learnable: expected names among {', '.join(cell)}, got {name!r}")
            if name in ("zs_hyp", "zs_dep") and not recurrent_grad:
                raise ValueError(
                    f"learnable: expected parameters that have a gradient with recurrent_grad=False, got {name!r}"
                )
        if learn_initial_state and not recurrent_grad:
            raise ValueError(
                "learn_initial_state: expected False with recurrent_grad=False (h and hs have no gradient), got True"
            )
        self._float_max = torch.finfo(dtype or torch.get_default_dtype()).max
        self.surrogate, self.recurrent_grad = surrogate, recurrent_grad
        self.initial_state, self.learn_initial_state = initial_state, learn_initial_state
        self.bias_init, self.bias_max = self._check_bias(bias_init), as_float("bias_max", bias_max)
        self._learns_bias = bias
        self._neurons = neurons
        self._suffixes = tuple(weight_shapes)
        self._cell = {name: self._check_cell_parameter(name, value) for name, value in cell.items()}
        self._cell_tensors = tuple(
            name for name, value in self._cell.items() if isinstance(value, Tensor) or name in self.learnable
        )
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        for suffix, shape in weight_shapes.items():
            self.register_parameter(self._WEIGHT_NAME.format(suffix), nn.Parameter(torch.empty(shape, **factory)))
            b = torch.empty(neurons, **factory)
            if bias:
                self.register_parameter(self._BIAS_NAME.format(suffix), nn.Parameter(b))
            else:
                self.register_buffer(self._BIAS_NAME.format(suffix), b, persistent=False)
            for name in self._cell_tensors:
                tensor = torch.empty(getattr(self._cell[name], "shape", ()), **factory)
                if name in self.learnable:
                    self.register_parameter(f"{name}{suffix}", nn.Parameter(tensor))
                else:
                    self.register_buffer(f"{name}{suffix}", tensor)
            if learn_initial_state:
                for name in _STATE:
                    self.register_parameter(f"{name}{suffix}", nn.Parameter(torch.empty(neurons, **factory)))
        self.reset_parameters()

    def _check_cell_parameter(self, name: str, value: Parameter) -> Parameter:
        """What a layer keeps of a cell parameter: a float, or a copy on the CPU of a tensor's values."""
        if not isinstance(value, Tensor):
            value = as_float(name, value)
            self._check_domain(name, value, value)
            return value
        require_dense(name, value)
        if value.is_quantized or value.is_complex():
            raise TypeError(f"{name}: expected real numbers, got {value.dtype}")
        if isinstance(value, nn.Parameter) and name not in self.learnable:
            raise ValueError(
                f"{name}: expected a float or a tensor, whose values are copied, got a Parameter: name it in learnable "
                "to learn it"
            )
        if tuple(value.shape) not in ((), (1,), (self._neurons,)):
            raise ValueError(
                f"{name}: expected a float or a tensor of shape ({self._neurons},), got shape {tuple(value.shape)}"
            )
        copy = value.detach().clone()
        if not has_memory(copy):  # of a module that is made to be filled
            return copy
        copy = copy.to("cpu")
        if copy.numel():
            self._check_domain(name, *(x.item() for x in copy.double().aminmax()))
        return copy

    def _check_bias(self, bias: float) -> float:
        number = as_float("bias_init", bias)
        if not abs(number) <= self._float_max:
            raise ValueError(f"bias_init: expected a finite value of the dtype, got {bias}")
        return number

    def _check_domain(self, name: str, least: float, largest: float) -> None:
        """Raise where a cell parameter is none with which the layer could run."""
        low, high = _DOMAINS.get(name, (-math.inf, math.inf))
        for x in (least, largest):
            if name == "rho" and not (0 < x < math.inf and 1 / x <= self._float_max):
                raise ValueError(f"rho: expected finite values > 0 with a finite reciprocal, got {x!r}")
            if (name == "alpha" or name in self.learnable) and not low <= x <= high:
                why = "" if name == "alpha" else " of what is learnt"
                raise ValueError(f"{name}: expected values in [{low:g}, {high:g}]{why}, got {x!r}")
            if not abs(x) <= self._float_max:
                raise ValueError(f"{name}: expected finite values of the dtype, got {x!r}")

    def _constants(self) -> dict[str, float | None]:
        cell = {name: None if name in self._cell_tensors else value for name, value in self._cell.items()}
        return {
            **cast("dict[str, float | None]", cell),
            "bias_init": None if self._learns_bias else self.bias_init,
            "initial_state": None if self.learn_initial_state else _INITIAL_STATES.index(self.initial_state),
        }

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        fixed = [name for name in self._cell if name not in self._cell_tensors]
        cell = {name: self._check_cell_parameter(name, constants[name]) for name in fixed}
        if not self.learn_initial_state:
            state = constants["initial_state"]
            if state not in range(len(_INITIAL_STATES)):
                raise ValueError(f"initial_state: expected a number of {', '.join(_INITIAL_STATES)}, got {state!r}")
            self.initial_state = _INITIAL_STATES[int(state)]
        if not self._learns_bias:
            self.bias_init = self._check_bias(constants["bias_init"])
            for suffix in self._suffixes:
                self._fix_bias(suffix)
        self._cell |= cell

    def _fix_bias(self, suffix: str) -> None:
        """Fill the bias that is not learnt, on the device of the weight."""
        bias, device = self._bias(suffix), self._weight(suffix).device
        if bias.device != device:
            bias = torch.empty_like(bias, device=device)
            self.register_buffer(self._BIAS_NAME.format(suffix), bias, persistent=False)
        bias.fill_(self.bias_init)

    def _weight(self, suffix: str) -> Tensor:
        tensor: Tensor = getattr(self, self._WEIGHT_NAME.format(suffix))
        return tensor

    def _bias(self, suffix: str) -> Tensor:
        tensor: Tensor = getattr(self, self._BIAS_NAME.format(suffix))
        return tensor

    def _parameters_of(self, suffix: str) -> dict[str, Any]:
        """The cell parameters that act, learnt ones within their domains."""
        parameters = dict(self._cell)
        for name in self._cell_tensors:
            tensor = getattr(self, f"{name}{suffix}")
            bounded = name in self.learnable and name in _DOMAINS
            parameters[name] = _clamped(tensor, *_DOMAINS[name]) if bounded else tensor
        return parameters

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew and set all else to its initial value.

        Weights of the first layer are normal with standard deviation 3 / sqrt(K), where K is the number of inputs of a
        neuron. Each neuron of a later layer passes on the spikes of one below: one weight of 3, and normal ones with
        standard deviation 0.5 / sqrt(K).
        """
        for k, suffix in enumerate(self._suffixes):
            if k == 0:
                draw_weights(self._weight(suffix), FIRST_WEIGHT_SCALE)
            else:
                draw_relays(self._weight(suffix))
            self._bias(suffix).fill_(self.bias_init)
            for name in self._cell_tensors:
                tensor, value = getattr(self, f"{name}{suffix}"), self._cell[name]
                if isinstance(value, Tensor) and value.is_meta and not tensor.is_meta:
                    raise ValueError(f"{name}: expected a tensor that holds values, got one on meta")
                tensor.copy_(value) if isinstance(value, Tensor) else tensor.fill_(value)
            if self.learn_initial_state:
                for name, value in zip(_STATE, self._fixed_state(suffix), strict=True):
                    getattr(self, f"{name}{suffix}").copy_(value)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Project the bias to <= ``bias_max`` and learnable cell parameters into their domains, in place.

        To be called after each optimiser step, for the bias: cell parameters act within their domains anyway.
        """
        for suffix in self._suffixes:
            if self._learns_bias:
                self._bias(suffix).clamp_(max=self.bias_max)
            for name in self.learnable:
                low, high = _DOMAINS.get(name, (-float("inf"), float("inf")))
                getattr(self, f"{name}{suffix}").clamp_(low, high)

    def _fixed_state(self, suffix: str) -> SRCState:
        bias = self._bias(suffix)
        if self.initial_state == "zeros":
            zeros = torch.zeros_like(bias)
            return SRCState(zeros, zeros, zeros)
        state = rest_state(bias, **self._parameters_of(suffix))
        return SRCState(*(x.to(bias.dtype) for x in state))

    def _initial_state(self, suffix: str, batch: int, *space: int) -> SRCState | None:
        """The state (B, N) before the first step, or (B, N, *space) where neurons share parameters over space."""
        if self.learn_initial_state:
            state = SRCState(*(getattr(self, f"{name}{suffix}") for name in _STATE))
        elif self.initial_state == "zeros":
            return None
        else:
            state = self._fixed_state(suffix)
        return SRCState(*(over_space(x, len(space)).expand(batch, -1, *space) for x in state))

    def extra_repr(self) -> str:
        """What differs from the defaults."""
        defaults: dict[str, Any] = {
            "learnable": (),
            "surrogate": "straight_through",
            "recurrent_grad": False,
            "initial_state": "zeros",
            "learn_initial_state": False,
            "bias_init": -6.0,
            "bias_max": -4.0,
        }
        parts = [] if self._learns_bias else ["bias=False"]
        parts += [
            f"{name}={self._describe_constant(name)}"
            for name, default in _CELL_DEFAULTS.items()
            if name not in self.learnable and (name in self._cell_tensors or self._cell[name] != default)
        ]
        parts += [f"{name}={getattr(self, name)!r}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join(parts)

    def _describe_constant(self, name: str) -> str:
        """A cell parameter that is not learnt, in a few characters."""
        if name not in self._cell_tensors:
            return repr(self._cell[name])
        values = torch.cat([getattr(self, f"{name}{suffix}").reshape(-1) for suffix in self._suffixes])
        count = values.numel() // len(self._suffixes)
        if not count or not has_memory(values):
            return f"tensor({count} values)"
        low, high = (x.item() for x in values.double().aminmax())
        return f"tensor({count} values, {low:.4g} to {high:.4g})"


class _SRCLinear(_SRCBase):
    """What SRC and SRCCell share: a linear synapse before the neurons."""

    def __init__(
        self, input_size: int, hidden_size: int, suffixes: Sequence[str], *, bias: bool, **options: Any
    ) -> None:
        _check_size("input_size", input_size, 0)
        _check_size("hidden_size", hidden_size, 0)
        inputs = [input_size, *[hidden_size] * (len(suffixes) - 1)]
        shapes: dict[str, tuple[int, ...]] = {s: (hidden_size, k) for s, k in zip(suffixes, inputs, strict=True)}
        super().__init__(hidden_size, shapes, bias=bias, **options)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias

    def _run(
        self,
        suffix: str,
        input: Tensor | EventBatch,
        state: State | None,
        lengths: Tensor | Sequence[int] | None,
        input_grad_at_events: bool = False,
    ) -> tuple[Tensor, SRCState]:
        batch = len(input) if isinstance(input, EventBatch) else input.shape[1]
        weight, bias = self._weight(suffix), self._bias(suffix)
        state = self._initial_state(suffix, batch) if state is None else state
        cell, options = Cell(**self._parameters_of(suffix)), (lengths, self.surrogate, self.recurrent_grad)
        if isinstance(input, EventBatch):
            return events_linear(input, weight, "auto", state, bias, cell, *options)
        return dense_linear(input, weight, "auto", input_grad_at_events, state, bias, cell, *options)

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        return ", ".join(filter(None, [f"{self.input_size}, {self.hidden_size}", super().extra_repr()]))


class SRC(_SRCLinear):
    r"""A stack of Spiking Recurrent Cell layers, in the manner of torch.nn.RNN.

    Args:
        input_size: K, inputs of the first layer.
        hidden_size: N, neurons of every layer.
        num_layers: layers; each gets the spikes of the one below.
        bias: whether the excitability is learnt; otherwise it stays at ``bias_init``.
        batch_first: dense inputs and outputs are (B, T, \*) instead of (T, B, \*); states and EventBatches stay.
        dropout: probability of dropping a spike between layers in training, in [0, 1].
        alpha: cell parameters as in :func:`srcell.functional.src`: a float, or a tensor (N,) of one value per neuron,
            which is copied.
        rho: see alpha.
        r: see alpha.
        rs: see alpha.
        zs_hyp: see alpha.
        zs_dep: see alpha.
        learnable: names of the cell parameters to learn; zs_hyp and zs_dep need ``recurrent_grad=True``. They act
            within their domains wherever an optimiser takes them: alpha, zs_hyp and zs_dep in [0, 1], rho >= 1e-3. The
            gradient is that of the bounded value; where a parameter is outside, one that leads further out is 0.
        surrogate: ``"straight_through"`` or ``"relu"``.
        recurrent_grad: full backpropagation through time.
        initial_state: ``"zeros"``, or ``"rest"``, the silent fixed point.
        learn_initial_state: learn it, from that value on; needs ``recurrent_grad=True``.
        bias_init: the bias at first.
        bias_max: where :meth:`constrain_` bounds it.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight_ih_l{k}: (N, K) for the first layer, (N, N) for later ones.
        bias_l{k}: (N,).
        alpha_l{k}: and so on, for learnable parameters and those given as tensors.

    Constants that are neither, floats, a fixed bias and the kind of initial state, are in the state_dict as one tensor,
    ``_extra_state``. A layer that loads others than its own takes them over, with a warning.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong size or value, an unknown name, a learnable parameter that the gradient mode cannot reach.

    Example:
        >>> import torch, srcell
        >>> layer = srcell.SRC(784, 100)
        >>> spikes, state = layer(torch.rand(50, 8, 784).lt(0.03).float())
        >>> spikes.shape, state.h.shape
        (torch.Size([50, 8, 100]), torch.Size([1, 8, 100]))

    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        alpha: Parameter = 0.9,
        rho: Parameter = 3.0,
        r: Parameter = 2.0,
        rs: Parameter = -7.0,
        zs_hyp: Parameter = 0.9,
        zs_dep: Parameter = 0.0,
        learnable: Sequence[str] = (),
        surrogate: str = "straight_through",
        recurrent_grad: bool = False,
        initial_state: str = "zeros",
        learn_initial_state: bool = False,
        bias_init: float = -6.0,
        bias_max: float = -4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_size("num_layers", num_layers, 1)
        check_bool("batch_first", batch_first)
        if not 0 <= as_float("dropout", dropout) <= 1:
            raise ValueError(f"dropout: expected a probability in [0, 1], got {dropout}")
        super().__init__(
            input_size,
            hidden_size,
            [f"_l{k}" for k in range(num_layers)],
            bias=bias,
            cell={"alpha": alpha, "rho": rho, "r": r, "rs": rs, "zs_hyp": zs_hyp, "zs_dep": zs_dep},
            learnable=learnable,
            surrogate=surrogate,
            recurrent_grad=recurrent_grad,
            initial_state=initial_state,
            learn_initial_state=learn_initial_state,
            bias_init=bias_init,
            bias_max=bias_max,
            device=device,
            dtype=dtype,
        )
        self.num_layers, self.batch_first, self.dropout = num_layers, batch_first, dropout

    def forward(
        self,
        input: Tensor | EventBatch,
        state: State | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        input_grad_at_events: bool = False,
    ) -> tuple[Tensor, SRCState]:
        """Run the layers over a sequence.

        Args:
            input: (T, B, K), (B, T, K) if ``batch_first``, or an EventBatch; or (T, K), one sample, whose outputs and
                states lack B. Bools and integers are taken as so many spikes.
            state: three tensors (num_layers, B, N); the initial state if absent.
            lengths: (B,) integers in [0, T]; not beside an EventBatch that has its own, nor for one sample.
            input_grad_at_events: a promise that a dense input's gradient is needed only where the input is not 0, as
                that of a layer's output with the relu surrogate is; elsewhere it is then unspecified. Later layers of
                this stack do so by themselves where ``surrogate="relu"``.

        Returns:
            The spikes of the last layer, (T, B, N) or (B, T, N), and the state of all layers after each sample's last
            step, three tensors (num_layers, B, N).

        """
        events = isinstance(input, EventBatch)
        if isinstance(input, EventBatch):
            if input.lengths is not None and lengths is not None:
                raise ValueError("lengths: expected None beside an EventBatch that has lengths, got lengths")
            lengths = input.lengths if lengths is None else lengths
        elif not isinstance(input, Tensor) or input.dim() not in (2, 3):
            shape = "(B, T, K)" if self.batch_first else "(T, B, K)"
            got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ValueError(f"input: expected an EventBatch or a tensor {shape} or (T, K), got {got}")
        elif input.dim() == 2:
            return self._forward_one(input, state, lengths, input_grad_at_events)
        else:
            require_dense("input", input)
            input = input.transpose(0, 1) if self.batch_first else input
        per_layer = self._split_state(state)
        ended: list[SRCState] = []
        x: Tensor | EventBatch = input
        for k, suffix in enumerate(self._suffixes):
            own_lengths = None if isinstance(x, EventBatch) and x.lengths is not None else lengths
            spikes, after = self._run(suffix, x, per_layer[k], own_lengths, input_grad_at_events)
            ended.append(after)
            # The surrogate's gradient vanishes where a neuron is silent: what the layer above hands down there is lost.
            input_grad_at_events = self.surrogate == "relu"
            x = F.dropout(spikes, self.dropout, self.training) if k + 1 < self.num_layers else spikes
        output = spikes.transpose(0, 1) if self.batch_first and not events else spikes
        return output, SRCState(*(torch.stack(parts) for parts in zip(*ended, strict=True)))

    def _forward_one(
        self, input: Tensor, state: State | None, lengths: Any, input_grad_at_events: bool
    ) -> tuple[Tensor, SRCState]:
        """``forward`` for one sample (T, K)."""
        require_dense("input", input)
        if lengths is not None:
            raise ValueError("lengths: expected None beside an input (T, K), got lengths")
        batch_dim = 0 if self.batch_first else 1
        batched = None if state is None else _state_of_batch(state, self.num_layers, self.hidden_size)
        spikes, after = self.forward(input.unsqueeze(batch_dim), batched, input_grad_at_events=input_grad_at_events)
        return spikes.squeeze(batch_dim), SRCState(*(x.squeeze(1) for x in after))

    def _split_state(self, state: State | None) -> list[State | None]:
        if state is None:
            return [None] * self.num_layers
        for name, x in check_state(state):
            require_dense(name, x)
            if x.dim() != 3 or x.shape[0] != self.num_layers:
                raise ValueError(
                    f"{name}: expected shape ({self.num_layers}, B, {self.hidden_size}), got {tuple(x.shape)}"
                )
        return [SRCState(*(x[k] for x in state)) for k in range(self.num_layers)]

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        parts = [super().extra_repr()]
        defaults = {"num_layers": 1, "batch_first": False, "dropout": 0.0}
        parts += [f"{name}={getattr(self, name)!r}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join(parts)


class SRCCell(_SRCLinear):
    """One step of a layer of Spiking Recurrent Cells, in the manner of torch.nn.RNNCell.

    Args:
        input_size: inputs, K.
        hidden_size: neurons, N.
        bias: whether the excitability is learnt; otherwise it stays at ``bias_init``.
        alpha: cell parameters, learnable, surrogate and all further arguments as in :class:`SRC`.
        rho: see alpha.
        r: see alpha.
        rs: see alpha.
        zs_hyp: see alpha.
        zs_dep: see alpha.
        learnable: see :class:`SRC`.
        surrogate: see :class:`SRC`.
        recurrent_grad: see :class:`SRC`; gradients then follow the state from step to step.
        initial_state: see :class:`SRC`.
        learn_initial_state: see :class:`SRC`.
        bias_init: see :class:`SRC`.
        bias_max: see :class:`SRC`.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight_ih: (N, K).
        bias_ih: (N,).

    Example:
        >>> import torch, srcell
        >>> cell, state = srcell.SRCCell(5, 3), None
        >>> for x in torch.rand(10, 2, 5):
        ...     spikes, state = cell(x, state)
        >>> spikes.shape, state.h.shape
        (torch.Size([2, 3]), torch.Size([2, 3]))

    """

    _WEIGHT_NAME, _BIAS_NAME = "weight_ih", "bias_ih"

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool = True,
        alpha: Parameter = 0.9,
        rho: Parameter = 3.0,
        r: Parameter = 2.0,
        rs: Parameter = -7.0,
        zs_hyp: Parameter = 0.9,
        zs_dep: Parameter = 0.0,
        learnable: Sequence[str] = (),
        surrogate: str = "straight_through",
        recurrent_grad: bool = False,
        initial_state: str = "zeros",
        learn_initial_state: bool = False,
        bias_init: float = -6.0,
        bias_max: float = -4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            [""],
            bias=bias,
            cell={"alpha": alpha, "rho": rho, "r": r, "rs": rs, "zs_hyp": zs_hyp, "zs_dep": zs_dep},
            learnable=learnable,
            surrogate=surrogate,
            recurrent_grad=recurrent_grad,
            initial_state=initial_state,
            learn_initial_state=learn_initial_state,
            bias_init=bias_init,
            bias_max=bias_max,
            device=device,
            dtype=dtype,
        )

    def forward(self, input: Tensor, state: State | None = None) -> tuple[Tensor, SRCState]:
        """Advance by one step.

        Args:
            input: (B, K), or (K,), one sample, whose outputs and states lack B. Bools and integers are taken as so
                many spikes.
            state: three tensors (B, N); the initial state if absent.

        Returns:
            The spikes, (B, N), and the state after the step, three tensors (B, N).

        """
        if not isinstance(input, Tensor) or input.dim() not in (1, 2):
            got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ValueError(f"input: expected a tensor (B, {self.input_size}) or ({self.input_size},), got {got}")
        require_dense("input", input)
        if input.dim() == 1:
            state = None if state is None else _state_of_batch(state, self.hidden_size)
            spikes, after = self.forward(input[None], state)
            return spikes[0], SRCState(*(x[0] for x in after))
        spikes, after = self._run("", input[None], state, None)
        return spikes[0], after


class SRCConv2d(_SRCBase):
    r"""A layer of Spiking Recurrent Cells behind a convolution, in the manner of torch.nn.Conv2d.

    The neurons are a map (out_channels, H', W') at every step; those of a channel share all parameters. The convolution
    is torch's, whose bits may depend on the batch and the machine.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the map of neurons.
        kernel_size: of the convolution, one number or two, as all sizes here.
        stride: of the convolution.
        padding: of the convolution: numbers, ``"valid"`` or ``"same"``; beyond the edge nothing spikes.
        dilation: of the convolution.
        groups: of the convolution.
        bias: whether the excitability is learnt; otherwise it stays at ``bias_init``.
        alpha: cell parameters, learnable, surrogate and all further arguments as in :class:`SRC`, where tensors have
            shape (out_channels,).
        rho: see alpha.
        r: see alpha.
        rs: see alpha.
        zs_hyp: see alpha.
        zs_dep: see alpha.
        learnable: see :class:`SRC`.
        surrogate: see :class:`SRC`.
        recurrent_grad: see :class:`SRC`.
        initial_state: see :class:`SRC`.
        learn_initial_state: see :class:`SRC`.
        bias_init: see :class:`SRC`.
        bias_max: see :class:`SRC`.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight: (out_channels, in_channels / groups, \*kernel_size).
        bias: (out_channels,).

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong size or value, an unknown name, a learnable parameter that the gradient mode cannot reach.

    Example:
        >>> import torch, srcell
        >>> layer = srcell.SRCConv2d(1, 8, kernel_size=5, stride=2, padding=2)
        >>> spikes, state = layer(torch.rand(50, 4, 1, 28, 28).lt(0.03).float())
        >>> spikes.shape, state.h.shape
        (torch.Size([50, 4, 8, 14, 14]), torch.Size([4, 8, 14, 14]))

    """

    _WEIGHT_NAME, _BIAS_NAME = "weight", "bias"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        *,
        bias: bool = True,
        alpha: Parameter = 0.9,
        rho: Parameter = 3.0,
        r: Parameter = 2.0,
        rs: Parameter = -7.0,
        zs_hyp: Parameter = 0.9,
        zs_dep: Parameter = 0.0,
        learnable: Sequence[str] = (),
        surrogate: str = "straight_through",
        recurrent_grad: bool = False,
        initial_state: str = "zeros",
        learn_initial_state: bool = False,
        bias_init: float = -6.0,
        bias_max: float = -4.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        for name, size in (("in_channels", in_channels), ("out_channels", out_channels), ("groups", groups)):
            _check_size(name, size, 1)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups: expected a divisor of in_channels and out_channels, got {groups} for {in_channels} and "
                f"{out_channels}"
            )
        kernel_size = _pair("kernel_size", kernel_size, 1)
        stride, dilation = _pair("stride", stride, 1), _pair("dilation", dilation, 1)
        if not isinstance(padding, str):
            padding = _pair("padding", padding, 0)
        elif padding not in ("valid", "same"):
            raise ValueError(f"padding: expected 'valid', 'same' or sizes, got {padding!r}")
        elif padding == "same" and stride != (1, 1):
            raise ValueError(f"padding: expected sizes where the stride is not 1, got 'same' with stride {stride}")
        super().__init__(
            out_channels,
            {"": (out_channels, in_channels // groups, *kernel_size)},
            bias=bias,
            cell={"alpha": alpha, "rho": rho, "r": r, "rs": rs, "zs_hyp": zs_hyp, "zs_dep": zs_dep},
            learnable=learnable,
            surrogate=surrogate,
            recurrent_grad=recurrent_grad,
            initial_state=initial_state,
            learn_initial_state=learn_initial_state,
            bias_init=bias_init,
            bias_max=bias_max,
            device=device,
            dtype=dtype,
        )
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(
        self, input: Tensor, state: State | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> tuple[Tensor, SRCState]:
        """Run the layer over a sequence of maps.

        Args:
            input: (T, B, in_channels, H, W). Bools and integers are taken as so many spikes.
            state: three tensors (B, out_channels, H', W'); the initial state if absent.
            lengths: (B,) integers in [0, T], as in :func:`srcell.functional.src`.

        Returns:
            The spikes, (T, B, out_channels, H', W'), where H' and W' are those of torch.nn.Conv2d, and the state after
            each sample's last step, three tensors (B, out_channels, H', W').

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong shape or value; the message names the argument.

        """
        current = self.current(input, lengths)
        if state is None:
            state = self._initial_state("", input.shape[1], *current.shape[3:])
        cell = {
            name: over_space(value, 2) if isinstance(value, Tensor) and value.dim() else value
            for name, value in self._parameters_of("").items()
        }
        return src(
            current,
            over_space(self._bias(""), 2),
            state,
            **cell,
            surrogate=self.surrogate,
            recurrent_grad=self.recurrent_grad,
            lengths=lengths,
        )

    def current(self, input: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """The currents (T, B, out_channels, H', W') that the convolution gives for an input as in ``forward``."""
        if not isinstance(input, Tensor) or input.dim() != 5 or input.shape[2] != self.in_channels:
            got = tuple(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ValueError(f"input: expected a tensor (T, B, {self.in_channels}, H, W), got {got}")
        require_dense("input", input)
        least = [
            1 if pad is None else max(1, dilation * (kernel - 1) + 1 - 2 * pad)
            for kernel, dilation, pad in zip(self.kernel_size, self.dilation, self._pads(), strict=True)
        ]
        if input.shape[3] < least[0] or input.shape[4] < least[1]:
            raise ValueError(
                f"input: expected a height of at least {least[0]} and a width of at least {least[1]}, "
                f"got {tuple(input.shape[3:])}"
            )
        weight = self._weight("")
        input = as_spikes(input, weight.dtype)
        if not input.is_floating_point() or (input.dtype != weight.dtype and not autocasts(input)):
            raise TypeError(f"input: expected {weight.dtype}, as the weight, got {input.dtype}")
        if input.device != weight.device:
            raise ValueError(f"input: expected device {weight.device}, as the weight, got {input.device}")
        input, _ = without_padding(input, lengths)
        maps = F.conv2d(input.flatten(0, 1), weight, None, self.stride, self.padding, self.dilation, self.groups)
        return maps.reshape(*input.shape[:2], *maps.shape[1:])

    def _pads(self) -> tuple[int | None, int | None]:
        """Rows above and below, columns left and right; None where it is as many as needed."""
        if not isinstance(self.padding, str):
            return self.padding
        return (None, None) if self.padding == "same" else (0, 0)

    def extra_repr(self) -> str:
        """The sizes, and what differs from the defaults."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        defaults: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        parts += [f"{name}={getattr(self, name)!r}" for name, value in defaults.items() if getattr(self, name) != value]
        return ", ".join(filter(None, [*parts, super().extra_repr()]))


class LeakyReadout(_HasConstants):
    """Logits from the votes of spiking neurons: :func:`srcell.functional.leaky_readout` divided by a temperature.

    It has no parameters. Constants from the configuration that the authors' group published, the temperature is ours.

    Args:
        num_classes: classes, C.
        neurons_per_class: neurons that vote for each class; the input has C times as many.
        alpha: leak of the integrators, in [0, 1].
        inhibition: weight of a vote on the other classes.
        temperature: > 0; divides the integrators' values.

    Raises:
        ValueError: a wrong size or value; the message names the argument.

    Example:
        >>> import torch, srcell
        >>> srcell.LeakyReadout(10)(torch.zeros(20, 4, 100)).shape
        torch.Size([4, 10])

    """

    def __init__(
        self,
        num_classes: int,
        neurons_per_class: int = 10,
        alpha: float = 0.99,
        inhibition: float = -0.1,
        temperature: float = 10.0,
    ) -> None:
        super().__init__()
        _check_size("num_classes", num_classes, 1)
        _check_size("neurons_per_class", neurons_per_class, 1)
        self._set_constants({"alpha": alpha, "inhibition": inhibition, "temperature": temperature})
        self.num_classes, self.neurons_per_class = num_classes, neurons_per_class

    def _constants(self) -> dict[str, float | None]:
        return {"alpha": self.alpha, "inhibition": self.inhibition, "temperature": self.temperature}

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        alpha, inhibition = check_integrators(constants["alpha"], constants["inhibition"])
        temperature = as_float("temperature", constants["temperature"])
        if not temperature > 0:
            raise ValueError(f"temperature: expected a value > 0, got {temperature}")
        self.alpha, self.inhibition, self.temperature = alpha, inhibition, temperature

    def forward(self, spikes: Tensor, lengths: Tensor | Sequence[int] | None = None) -> Tensor:
        """Logits (B, C) of spikes (T, B, C * neurons_per_class)."""
        neurons = self.num_classes * self.neurons_per_class
        if not isinstance(spikes, Tensor):
            raise TypeError(f"spikes: expected a tensor, got {describe(spikes)}")
        require_dense("spikes", spikes)
        if spikes.dim() != 3 or spikes.shape[2] != neurons:
            raise ValueError(f"spikes: expected shape (T, B, {neurons}), got {tuple(spikes.shape)}")
        votes = leaky_readout(spikes, self.num_classes, alpha=self.alpha, inhibition=self.inhibition, lengths=lengths)
        return votes / self.temperature

    def extra_repr(self) -> str:
        """All of its constants."""
        return (
            f"{self.num_classes}, neurons_per_class={self.neurons_per_class}, alpha={self.alpha}, "
            f"inhibition={self.inhibition}, temperature={self.temperature}"
        )


def _state_of_batch(state: State, *shape: int) -> SRCState:
    """The state of one sample, of such a shape, as that of a batch of one; B is the last but one dimension."""
    for name, x in check_state(state):
        if tuple(x.shape) != shape:
            raise ValueError(f"{name}: expected shape {shape}, as the input has no batch, got {tuple(x.shape)}")
    return SRCState(*(x.unsqueeze(-2) for x in state))


@torch.no_grad()
def draw_weights(weight: Tensor, scale: float) -> None:
    """Draw weights (N, ...) anew from N(0, (scale / sqrt(K))^2), where K is the number of inputs of a neuron."""
    if weight.numel():
        nn.init.normal_(weight, std=scale / weight[0].numel() ** 0.5)


@torch.no_grad()
def draw_relays(weight: Tensor) -> None:
    """Draw weights (N, K), or (N, K, height, width), so that each neuron passes on the spikes of one input.

    Where N and K differ, the larger side counts: neurons share inputs, or pass on several.
    """
    draw_weights(weight, RELAY_NOISE)
    neurons, inputs, *kernel = weight.shape
    if weight.numel():
        n = torch.arange(max(neurons, inputs), device=weight.device)
        relays: tuple[Any, ...] = (n % neurons, n % inputs, *(size // 2 for size in kernel))
        weight[relays] += RELAY_WEIGHT


def over_space(values: Tensor, dimensions: int) -> Tensor:
    """Values (N,) of the channels, so that they broadcast over so many dimensions of space behind them."""
    return values.reshape(-1, *[1] * dimensions)


def _check_size(name: str, size: int, least: int) -> None:
    if isinstance(size, bool) or not isinstance(size, numbers.Integral):
        raise TypeError(f"{name}: expected an int, got {describe(size)}")
    if size < least:
        raise ValueError(f"{name}: expected at least {least}, got {size}")
    if size >= 2**63:
        raise ValueError(f"{name}: expected a size below 2^63, got {size}")


def _pair(name: str, size: int | tuple[int, int], least: int) -> tuple[int, int]:
    """Height and width; one number is both."""
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sizes) != 2 or not all(isinstance(x, int) and not isinstance(x, bool) and least <= x < 2**63 for x in sizes):
        raise ValueError(f"{name}: expected one or two integers of at least {least}, got {size!r}")
    return sizes
