"""``Neurons``, the base class of all SRC layers: parameters, their checks, initial values and states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, SupportsIndex, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack  # torch needs it too

from .._arguments import as_float, as_int, check_bool, check_choice, describe, present_device, require_dense
from .._parameters import LATER, PARAMETERS, RESONANCE, TABLE
from .._state import AnyState, state_type
from ..events import EventBatch
from ..events.checks import check_float_dtype
from ..functional import rest_state, src
from ..functional.layer import (
    NO_RECURRENCE,
    Cell,
    Parameter,
    Recurrence,
    State,
    check_gradient_mode,
    check_state,
    in_work_dtype,
)
from ..functional.terms import MOST_DELAY, exported_delays, tables
from ..ops._memory import has_memory
from .constants import HasConstants
from .init import FIRST_WEIGHT_SCALE, LATERAL_WEIGHT_SCALE, as_gain, draw_relays, draw_weights
from .options import (
    CELL_DEFAULTS,
    DEFAULTS,
    INITIAL_STATES,
    NOT_RECURRENT,
    UNBOUNDED,
    Options,
    Recurrent,
    Spread,
    SpreadFrequencies,
    completed,
    domain,
)

INITIAL = ("i0", "h0", "hs0")  # q starts at 0
MOST_SHOWN = 8  # values of a tensor that the repr of a layer shows; of more it shows the range


class _Clamped(torch.autograd.Function):
    """Clamps a parameter to its domain. The gradient passes unchanged, except where an element lies outside the domain
    and a descent step would move it further out: so an element neither runs away nor gets stuck.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, name: str, max_delay: int) -> Tensor:
        low, high = domain(name, max_delay)
        return x.clamp(low, high)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, str, int], output: Tensor) -> None:
        x, ctx.name, ctx.max_delay = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,), (grad,) = ctx.saved_tensors, grads
        low, high = domain(ctx.name, ctx.max_delay)
        outward = ((x > high) & (grad < 0)) | ((x < low) & (grad > 0))
        return grad.masked_fill(outward, 0), None, None


_clamped: Callable[..., Tensor] = _Clamped.apply


class Call(NamedTuple):
    r"""A call of a layer, as a recorder gets it: the spikes (T, B, \*F), the states (1, B, \*F), step by step, and the
    input (T, B, ...) with its place in the graph of autograd.
    """

    spikes: Tensor
    states: Callable[[], Iterator[AnyState]]
    input: Tensor | EventBatch


class Neurons(HasConstants):
    """What all layers share: parameters, with their domains and initial values.

    A module may hold several layers; the names of each layer's tensors then end in its suffix.
    """

    _WEIGHT_NAME, _BIAS_NAME = "weight_ih{}", "bias{}"
    recorder: Callable[[str, Call], None] | None = None
    """While ``srcell.record`` records, a function that gets each call with its layer's suffix; None otherwise."""

    def __init__(
        self,
        neurons: int,
        weight_shapes: dict[str, tuple[int, ...]],
        recurrent: Recurrent = NOT_RECURRENT,
        /,
        **options: Unpack[Options],
    ) -> None:
        super().__init__()
        recurrent.check()
        self.recurrent, self.recurrent_surrogate, self.autapses = recurrent[:3]
        given = completed(self, options)
        surrogate, full_gradient = given["surrogate"], given["full_gradient"]
        initial_state, learn_initial_state = given["initial_state"], given["learn_initial_state"]
        check_gradient_mode(surrogate, full_gradient)
        check_choice("initial_state", initial_state, INITIAL_STATES)
        check_bool("learn_bias", given["learn_bias"])
        check_bool("learn_initial_state", learn_initial_state)
        self.learnable = check_learnable(given["learnable"], full_gradient, recurrent.delay_hh is not None)
        if learn_initial_state and not (full_gradient or self.recurrent):
            raise ValueError(
                "learn_initial_state: expected False with full_gradient=False and no recurrent weights (h and hs have "
                "no gradient), got True"
            )
        device, dtype = given["device"], given["dtype"]
        if dtype is not None:
            check_float_dtype(dtype)
        if device is not None:
            present_device(device)
        self._float_max = torch.finfo(dtype or torch.get_default_dtype()).max
        self.surrogate, self.full_gradient = surrogate, full_gradient
        self.initial_state, self.learn_initial_state = initial_state, learn_initial_state
        self.bias_init, self.bias_max = self._check_bias(given["bias_init"]), as_float("bias_max", given["bias_max"])
        self.learn_bias, self.input_gain = given["learn_bias"], given["input_gain"]
        if self.input_gain is not None:
            self.input_gain = as_gain("input_gain", self.input_gain, self._float_max)
        self._neurons = neurons
        self._suffixes = tuple(weight_shapes)
        self._cell = Cell(*(self._check_cell_parameter(name, given[name]) for name in Cell._fields))
        self._spread = {
            name: given[name] for name in Cell._fields if isinstance(given[name], Spread | SpreadFrequencies)
        }
        self._delay_hh = (
            None if recurrent.delay_hh is None else self._check_cell_parameter("delay_hh", recurrent.delay_hh)
        )
        self.max_delay, self.delay_width = self._check_max_delay(recurrent.max_delay), recurrent.delay_width
        if RESONANCE in self.learnable and _is_zero(self._cell[-1]):
            raise ValueError(
                f"{RESONANCE}: expected values other than 0 to learn from (at 0 the gradient is 0), such as "
                f"srcell.spread_frequencies(0.01, 1), got {given[RESONANCE]!r}"
            )
        self._cell_tensors = tuple(
            name
            for name, value in zip(Cell._fields, self._cell, strict=True)
            if isinstance(value, Tensor) or name in self.learnable
        )
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        for suffix, shape in weight_shapes.items():
            self.register_parameter(self._WEIGHT_NAME.format(suffix), nn.Parameter(torch.empty(shape, **factory)))
            b = torch.empty(neurons, **factory)
            if self.learn_bias:
                self.register_parameter(self._BIAS_NAME.format(suffix), nn.Parameter(b))
            else:
                self.register_buffer(self._BIAS_NAME.format(suffix), b, persistent=False)
            if self.recurrent:
                self.register_parameter(f"weight_hh{suffix}", nn.Parameter(torch.empty(neurons, neurons, **factory)))
            for name, value in self._stored().items():
                tensor = torch.empty(getattr(value, "shape", ()), **factory)
                if name in self.learnable:
                    self.register_parameter(f"{name}{suffix}", nn.Parameter(tensor))
                else:
                    self.register_buffer(f"{name}{suffix}", tensor)
            if learn_initial_state:
                for name in INITIAL:
                    self.register_parameter(f"{name}{suffix}", nn.Parameter(torch.empty(neurons, **factory)))
        self.reset_parameters()
        if self.input_gain is not None:
            self.reset_parameters()  # srcell 0.2 drew these weights twice: seeds give the same network

    @property
    def resonates(self) -> bool:
        """Whether the neurons have an angular frequency other than the constant 0, and their states a q."""
        return self._has(RESONANCE)

    @property
    def delayed(self) -> bool:
        """Whether the recurrent weights have delays, and the states of the layer a past."""
        return self._delay_hh is not None

    @property
    def delay_width(self) -> int:
        """The half-width of the interpolation of ``delay_hh``, in steps."""
        return self._delay_width

    @delay_width.setter
    def delay_width(self, width: SupportsIndex) -> None:
        self._delay_width = as_int("delay_width", width, MOST_DELAY, minimum=1)

    @property
    def _past_steps(self) -> int:
        return self.max_delay + self.delay_width if self.delayed else 0

    def _check_max_delay(self, given: SupportsIndex | None) -> int:
        """The largest delay allowed: the given one, or the ceiling of the fixed delays; 0 without delays."""
        delay = self._delay_hh
        if delay is None:
            return 0
        known = not isinstance(delay, Tensor) or has_memory(delay)
        if given is None and (not known or "delay_hh" in self.learnable):
            raise ValueError("max_delay: expected the largest delay that may be learnt or loaded, got None")
        if isinstance(delay, Tensor):
            largest = float(delay.double().max()) if known and delay.numel() else 0.0
        else:
            largest = delay
        if given is None:
            return math.ceil(largest)
        most = as_int("max_delay", given, MOST_DELAY)
        if largest > most:
            raise ValueError(f"delay_hh: expected values in [0, max_delay] = [0, {most}], got {largest}")
        return most

    def _stored(self) -> dict[str, Parameter]:
        """The initial values of what the layer has as tensors beside weights and bias."""
        stored = {name: cast("Parameter", getattr(self._cell, name)) for name in self._cell_tensors}
        return stored if self._delay_hh is None else {**stored, "delay_hh": self._delay_hh}

    def _check_cell_parameter(self, name: str, value: Parameter | Spread | SpreadFrequencies) -> Parameter:
        """Check a cell parameter and return it as the layer stores it: a float, or a copy of a tensor on the CPU."""
        if isinstance(value, (Spread, SpreadFrequencies)):
            if name == "delay_hh":
                raise TypeError(f"delay_hh: expected a number or a tensor, got {type(value).__name__}")
            kinds = ("spread", "spread_frequencies")
            if (name == RESONANCE) != isinstance(value, SpreadFrequencies):
                wrong, right = kinds if name == RESONANCE else reversed(kinds)
                raise TypeError(f"{name}: expected a number, a tensor or srcell.{right}, got srcell.{wrong}")
            value = value.values(self._neurons)
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
        if not has_memory(copy):  # in a module built on meta, whose values are loaded later
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
        """Raise unless the layer can run with values of a cell parameter from ``least`` to ``largest``."""
        row = TABLE.get(name)  # none for delay_hh
        bounded = row is None or math.isfinite(row.most)
        low, high = (row.least, row.most) if row and bounded else domain(name)
        for x in (least, largest):
            if row and row.divides and not (0 < x < math.inf and 1 / x <= self._float_max):
                raise ValueError(f"{name}: expected finite values > 0 with a finite reciprocal, got {x!r}")
            if (bounded or name in self.learnable) and not low <= x <= high:
                why = "" if bounded else " for a learnable parameter"
                raise ValueError(f"{name}: expected values in [{low:g}, {high:g}]{why}, got {x!r}")
            if not abs(x) <= self._float_max:
                raise ValueError(f"{name}: expected finite values of the dtype, got {x!r}")

    def _constants(self) -> dict[str, float | None]:
        cell = {name: None if name in self._cell_tensors else value for name, value in self._cell._asdict().items()}
        later = {name: cell.pop(name) for name in LATER}  # last: see get_extra_state()
        return {
            **cell,
            "bias_init": None if self.learn_bias else self.bias_init,
            "initial_state": None if self.learn_initial_state else INITIAL_STATES.index(self.initial_state),
            **later,
        }

    def get_extra_state(self) -> Tensor:
        """The constants as ``_extra_state``, float64 on the CPU; without the last parameters that have the default."""
        state = super().get_extra_state()
        return state[: len(state) - self._unsaved()].clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the constants of a checkpoint, as the base class does; parameters that lack have the default."""
        if isinstance(state, Tensor) and state.dim() == 1:
            lacking = 1 + len(self._constants()) - len(state)
            if 0 < lacking <= len(LATER):
                state = torch.cat([state, state.new_tensor([TABLE[name].standard for name in LATER[-lacking:]])])
        super().set_extra_state(state)

    def _unsaved(self) -> int:
        """How many parameters at the end of the constants have the default."""
        count = 0
        for name in reversed(LATER):
            if self._has(name):
                break
            count += 1
        return count

    def _has(self, name: str) -> bool:
        """Whether a parameter is another than the constant that is its default."""
        return name in self._cell_tensors or getattr(self._cell, name) != TABLE[name].standard

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        fixed = [name for name in Cell._fields if name not in self._cell_tensors]
        cell = {name: self._check_cell_parameter(name, constants[name]) for name in fixed}
        if not self.learn_initial_state:
            state = constants["initial_state"]
            if state not in range(len(INITIAL_STATES)):
                raise ValueError(f"initial_state: expected a number of {', '.join(INITIAL_STATES)}, got {state!r}")
            self.initial_state = INITIAL_STATES[int(state)]
        if not self.learn_bias:
            self.bias_init = self._check_bias(constants["bias_init"])
            for suffix in self._suffixes:
                self._fix_bias(suffix)
        self._cell = self._cell._replace(**cell)

    def _fix_bias(self, suffix: str) -> None:
        """Fill a bias that is not learnt, on the device of the weight."""
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

    def _recurrent_weight(self, suffix: str) -> Tensor | None:
        """The recurrent weights to run with: without autapses the diagonal is 0 and gets no gradient."""
        if not self.recurrent:
            return None
        weight: Tensor = getattr(self, f"weight_hh{suffix}")
        if not self.autapses:
            weight = weight.masked_fill(torch.eye(self._neurons, dtype=torch.bool, device=weight.device), 0)
        return weight

    def _recurrence_of(self, suffix: str) -> Recurrence:
        """The recurrent weights and their delays to run with, clamped to their domain."""
        if not self.recurrent:
            return NO_RECURRENCE
        delay = getattr(self, f"delay_hh{suffix}") if self.delayed else None
        if delay is not None:
            delay = in_work_dtype(delay)
            if "delay_hh" in self.learnable:
                delay = _clamped(delay, "delay_hh", self.max_delay)
            elif delay is not getattr(self, f"delay_hh{suffix}"):  # half precision may have rounded up
                delay = delay.clamp(0, self.max_delay)
        most = self.max_delay if self.delayed else None
        return Recurrence(self._recurrent_weight(suffix), self.recurrent_surrogate, delay, most, self.delay_width)

    def _cell_of(self, suffix: str) -> Any:
        """The cell parameters to run with; learnt ones are clamped to their domains."""
        if not self._cell_tensors:
            return self._cell
        tensors: dict[str, Tensor] = {}
        for name in self._cell_tensors:
            tensor = getattr(self, f"{name}{suffix}")
            bounded = name in self.learnable and name not in UNBOUNDED
            tensors[name] = _clamped(tensor, name, MOST_DELAY) if bounded else tensor
        # torch.compile of torch 2.4 cannot trace _replace and _asdict of NamedTuples.
        return Cell(*[tensors.get(name, value) for name, value in zip(Cell._fields, self._cell, strict=True)])

    @property
    def stacked(self) -> bool:
        """Whether the module holds several layers."""
        return len(self._suffixes) > 1

    def _cell_over_space(self, suffix: str, space: int) -> dict[str, Any]:
        """The cell parameters by name, as they act on currents with ``space`` spatial dimensions."""
        return {
            name: over_space(value, space) if isinstance(value, Tensor) and value.dim() else value
            for name, value in zip(Cell._fields, self._cell_of(suffix), strict=True)
        }

    def _states(
        self,
        suffix: str,
        currents: Callable[[], Tensor],
        state: State | None,
        lengths: Tensor | Sequence[int] | None,
        space: int = 0,
    ) -> Iterator[AnyState]:
        r"""Yield the state after each step of a call with these currents, which have ``space`` spatial dimensions.

        Its tensors are (1, B, \*F); a call without steps yields one state, (0, B, \*F).
        """
        arguments = self._cell_over_space(suffix, space)
        weight, _, *delays = self._recurrence_of(suffix)
        arguments |= {"weight_hh": weight, **dict(zip(Recurrence._fields[2:], delays, strict=True))}
        arguments |= {"bias": over_space(self._bias(suffix), space)}
        # What is on its way is not recorded: it follows from the spikes.
        recorded = state_type(self.resonates, False)
        ends = None if lengths is None else torch.as_tensor(lengths)
        for t, now in enumerate(currents().split(1)):
            left = None if ends is None else (ends > t).long()
            _, state = src(now, state=state, lengths=left, **arguments)
            own = state[: len(recorded._fields)]
            yield recorded(*(x.expand(len(now), *state.h.shape) for x in own))

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew and reset everything else to its initial value.

        Weights of the first layer are normal with standard deviation 3 / sqrt(K), where K is the number of inputs of a
        neuron. Each neuron of a later layer passes on the spikes of one neuron below: its weights are normal with
        standard deviation 0.5 / sqrt(K), and 3 is added to one of them. Recurrent weights are normal with standard
        deviation 1 / sqrt(N).
        """
        for k, suffix in enumerate(self._suffixes):
            if k == 0:
                draw_weights(self._weight(suffix), FIRST_WEIGHT_SCALE)
            else:
                draw_relays(self._weight(suffix))
            if self.recurrent:
                weight = getattr(self, f"weight_hh{suffix}")
                draw_weights(weight, LATERAL_WEIGHT_SCALE)
                if not self.autapses:
                    weight.fill_diagonal_(0)
            self._bias(suffix).fill_(self.bias_init)
            for name, value in self._stored().items():
                tensor = getattr(self, f"{name}{suffix}")
                if isinstance(value, Tensor) and value.is_meta and not tensor.is_meta:
                    raise ValueError(f"{name}: expected a tensor that holds values, got one on meta")
                tensor.copy_(value) if isinstance(value, Tensor) else tensor.fill_(value)
            if self.learn_initial_state:
                for name, value in zip(INITIAL, self._fixed_state(suffix), strict=False):
                    getattr(self, f"{name}{suffix}").copy_(value)
        if self.input_gain is not None:
            weight, alpha = self._weight(self._suffixes[0]), self._cell_of(self._suffixes[0]).alpha
            alpha = torch.as_tensor(alpha, dtype=torch.float64, device=weight.device).clamp(max=0.9999)
            scale = self.input_gain * ((1 - alpha**2) / (1 - CELL_DEFAULTS["alpha"] ** 2)).sqrt()
            weight.mul_(scale.expand(self._neurons).view(-1, *[1] * (weight.dim() - 1)))

    @torch.no_grad()
    def constrain_(self) -> None:
        """Project the bias to <= ``bias_max`` and learnable parameters into their domains, in place.

        Call it after each optimiser step. The bias needs it; cell parameters are clamped in every call anyway.
        """
        for suffix in self._suffixes:
            if self.learn_bias:
                self._bias(suffix).clamp_(max=self.bias_max)
            for name in self.learnable:
                getattr(self, f"{name}{suffix}").clamp_(*domain(name, self.max_delay))

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        error_msgs: list[str] = arguments[-1]
        for suffix in self._suffixes if self.delayed and "delay_hh" not in self.learnable else ():
            delay = state_dict.get(f"{prefix}delay_hh{suffix}")
            if isinstance(delay, Tensor) and has_memory(delay) and delay.numel() and not delay.is_complex():
                low, high = (x.item() for x in delay.double().aminmax())
                if not 0 <= low <= high <= self.max_delay:
                    error_msgs.append(
                        f"delay_hh{suffix}: expected values in [0, max_delay] = [0, {self.max_delay}], got {low:.9g} "
                        f"to {high:.9g}"
                    )
        for suffix in self._suffixes if self.recurrent and not self.autapses else ():
            weight = state_dict.get(f"{prefix}weight_hh{suffix}")
            if (
                isinstance(weight, Tensor)
                and weight.dim() == 2
                and has_memory(weight)
                and bool(weight.diagonal().any())
            ):
                error_msgs.append(f"weight_hh{suffix}: expected a diagonal of 0 with autapses=False, got other values")

    def _fixed_state(self, suffix: str) -> AnyState:
        bias = self._bias(suffix)
        if self.initial_state == "zeros":
            made = state_type(self.resonates, False)
            return made(*[torch.zeros_like(bias)] * len(made._fields))
        state = rest_state(bias, **dict(zip(Cell._fields, self._cell_of(suffix), strict=True)))
        return type(state)(*[x.to(bias.dtype) for x in state])

    def _initial_state(self, suffix: str, batch: int, *space: int) -> AnyState | None:
        """The state (B, N) before the first step, or (B, N, *space) for a convolutional layer; None for zeros.

        It has no past, which is zero.
        """
        if self.learn_initial_state:
            learnt = [getattr(self, f"{name}{suffix}") for name in INITIAL]
            still = [torch.zeros_like(learnt[0])] if self.resonates else []
            state = state_type(self.resonates, False)(*learnt, *still)
        elif self.initial_state == "zeros":
            return None
        else:
            state = self._fixed_state(suffix)
        return type(state)(*[over_space(x, len(space)).expand(batch, -1, *space) for x in state])

    @torch.no_grad()
    def count_arrivals(self, spikes: Tensor, lengths: Tensor | None = None) -> int:
        """Count what arrives through delayed recurrent weights in a call of a layer that is not stacked.

        Args:
            spikes: (T, B, N), its spikes.
            lengths: (B,), number of steps of each sample; T for all by default.

        Returns:
            For each spike, the number of steps at which it arrives before the end of its sample, summed. As without
            delays, a spike of a sample's last step counts, if its delay is 0.

        """
        delay = self._recurrence_of(self._suffixes[0]).delay_hh
        assert isinstance(delay, Tensor)
        first, factors = tables(delay.detach().expand(self._neurons), self.delay_width, keep=False)
        taken = first[:, None] + torch.arange(1 if factors is None else factors.shape[1], device=first.device)
        steps, neurons = spikes.shape[0], torch.arange(self._neurons, device=first.device)
        ends = torch.full(spikes.shape[1:2], steps) if lengths is None else lengths
        with_left = torch.zeros(steps + 1, self._neurons, dtype=torch.int64, device=spikes.device)
        for step, fired in enumerate(spikes != 0):
            left = ends.to(spikes.device) - 1 - step
            with_left.index_add_(0, left[left >= 0], fired[left >= 0].to(torch.int64))
        # with_left[r]: spikes with exactly r steps left in their sample; in_time[r]: with at least r.
        in_time = with_left.flip(0).cumsum(0).flip(0)
        arriving = in_time[taken.clamp(0, steps), neurons[:, None]] * (taken >= 0)
        return int((arriving if factors is None else arriving * (factors != 0)).sum())

    @torch.no_grad()
    def exported(self) -> list[dict[str, Tensor]]:
        """Return the tensors that each of the stacked layers computes with, on the CPU.

        These are ``weight``, unchanged; ``bias`` and the cell's parameters, of one element or (N,), without those that
        files of version 1 lack if they have the default; and, if the layer has them, the recurrent weights ``lateral``
        (N, N), their delays (see ``exported_delays``), and ``initial`` (3, N): i, h and hs before the first step, when
        q is always 0.
        """
        found = []
        for suffix in self._suffixes:
            weight = self._weight(suffix)
            numbers = {"weight": weight, "bias": self._bias(suffix), **self._cell_of(suffix)._asdict()}
            numbers = {name: x for name, x in numbers.items() if name not in LATER or self._has(name)}
            state, weight_hh = self._initial_state(suffix, 1), self._recurrent_weight(suffix)
            if state is not None:
                numbers["initial"] = torch.cat(list(state[:3]))
            if weight_hh is not None:
                numbers["lateral"] = weight_hh
            made = {name: torch.as_tensor(value, dtype=weight.dtype, device="cpu") for name, value in numbers.items()}
            made = {name: (x if x.dim() else x[None]).detach().contiguous() for name, x in made.items()}
            delay = self._recurrence_of(suffix).delay_hh
            if isinstance(delay, Tensor):
                each = delay.to(weight.dtype).expand(self._neurons)[:, None]
                made |= exported_delays("lateral_delays", each, self.delay_width)
            found.append(made)
        return found

    def extra_repr(self) -> str:
        """The options that differ from the defaults; of a learnt parameter, its initial value."""
        parts = [] if self.learn_bias else ["learn_bias=False"]
        parts += [
            f"{name}={self._describe_constant(name)}"
            for name, default in CELL_DEFAULTS.items()
            if isinstance(getattr(self._cell, name), Tensor) or getattr(self._cell, name) != default
        ]
        others = [name for name in DEFAULTS if name not in ("learn_bias", *CELL_DEFAULTS, "device", "dtype")]
        parts += [f"{name}={getattr(self, name)!r}" for name in others if getattr(self, name) != DEFAULTS[name]]
        parts += [
            f"{name}={getattr(self, name)!r}"
            for name in ("recurrent", "recurrent_surrogate", "autapses")
            if getattr(self, name) != getattr(NOT_RECURRENT, name)
        ]
        if self.delayed:
            parts += [f"delay_hh={self._describe_constant('delay_hh')}", f"max_delay={self.max_delay}"]
            parts += [f"delay_width={self.delay_width}"] if self.delay_width != 1 else []
        return ", ".join(parts)

    def _describe_constant(self, name: str) -> str:
        """A parameter's option: of one that is learnt the initial value, of others the present one."""
        initial = self._delay_hh if name == "delay_hh" else getattr(self._cell, name)
        stored = name in self._stored() and name not in self.learnable  # a state_dict may have brought others
        if not isinstance(initial, Tensor):
            return repr(getattr(self, f"{name}{self._suffixes[0]}").item() if stored else initial)
        values = initial
        if stored:
            values = torch.stack([getattr(self, f"{name}{suffix}") for suffix in self._suffixes])
        if not values.numel() or not has_memory(values):
            return f"tensor({initial.numel()} values)"
        if name in self._spread and bool((values == initial.to(values)).all()):
            return repr(self._spread[name])
        numbers = values.double().reshape(-1, initial.numel())
        if initial.numel() <= MOST_SHOWN and bool((numbers == numbers[0]).all()):
            return f"tensor({initial.new_tensor(numbers[0].tolist()).view_as(initial).tolist()})"
        low, high = (x.item() for x in numbers.aminmax())
        return f"tensor({initial.numel()} values, {low:.4g} to {high:.4g})"


def check_learnable(names: Sequence[str], full_gradient: bool, delayed: bool = False) -> tuple[str, ...]:
    """Check the names of the parameters to learn; ``delayed`` layers have a delay_hh.

    Raises:
        TypeError: not a sequence of names.
        ValueError: an unknown name, or a parameter that has no gradient in this gradient mode.

    """
    try:
        learnable = tuple(names)
    except (TypeError, RuntimeError):
        raise TypeError(f"learnable: expected a sequence of names, got {describe(names)}") from None
    if isinstance(names, str):
        raise TypeError(f"learnable: expected a sequence of names, got the string {names!r}")
    known = [*CELL_DEFAULTS, *["delay_hh"] * delayed]
    for name in learnable:
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"learnable: expected names among {', '.join(known)}, got {name!r}")
        if name in PARAMETERS and TABLE[name].full_gradient and not full_gradient:
            raise ValueError(
                f"learnable: expected parameters that have a gradient with full_gradient=False, got {name!r}"
            )
    return learnable


def state_of_batch(state: State, resonant: bool, past_steps: int, *shape: int) -> tuple[Tensor, ...]:
    """Turn one sample's state of that shape, (N,) or (layers, N), into the state of a batch of one."""
    given = check_state(state, resonant, past_steps)
    for name, x in given.items():
        expected = (*shape[:-1], past_steps, shape[-1]) if name == "past" else shape
        if tuple(x.shape) != expected:
            got = tuple(x.shape)
            raise ValueError(f"state.{name}: expected shape {expected}, as the input has no batch, got {got}")
    return tuple(x.unsqueeze(len(shape) - 1) for x in given.values())


def _is_zero(value: Parameter) -> bool:
    """Whether a parameter is 0 for all neurons; those of meta have no values."""
    if isinstance(value, Tensor):
        return has_memory(value) and value.numel() > 0 and not bool(value.any())
    return value == 0


def over_space(values: Tensor, dimensions: int) -> Tensor:
    """Values (N,) of the channels, reshaped to broadcast over the spatial dimensions that follow."""
    return values.reshape(-1, *[1] * dimensions)
