"""``Neurons``, the base class of all SRC layers: parameters, initial values and states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex, cast

import torch
from torch import Tensor, nn
from typing_extensions import Unpack  # torch needs it too

from .._shared.arguments import as_float, as_int, check_bool, check_choice, has_memory, present_device, require_dense
from .._shared.parameters import LATER, PARAMETERS, RESONANCE, TABLE
from .._shared.state import AnyState, state_type
from ..events.checks import check_float_dtype
from ..functional import rest_state, src
from ..functional.layer import (
    Cell,
    Parameter,
    State,
    as_lengths,
    check_gradient_mode,
    check_state,
    delays_of,
    in_work_dtype,
)
from ..functional.terms import MOST_DELAY, tables_directly
from ..ops._acting import without_autapses
from ..ops._layer import LayerArguments
from ..ops._table import work_dtype
from .constants import HasConstants
from .description import changed, shown_parameter
from .domains import UNBOUNDED, check_learnable, check_max_delay, check_parameter, clamped, domain, is_zero
from .init import FIRST_WEIGHT_SCALE, LATERAL_WEIGHT_SCALE, as_gain, draw_relays, draw_weights
from .options import (
    CELL_DEFAULTS,
    DEFAULTS,
    INITIAL_STATES,
    NOT_RECURRENT,
    Options,
    Recurrent,
    Spread,
    SpreadFrequencies,
    completed,
)
from .recorded import Call, each_state

INITIAL = ("i0", "h0", "hs0")  # q starts at 0


class Neurons(HasConstants):
    """What all layers share: parameters, with their domains and initial values.

    A module may hold several layers; the names of each layer's tensors then end in its suffix.
    """

    _WEIGHT_NAME, _BIAS_NAME = "weight_ih", "bias"
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
        self.surrogate, self.full_gradient = given["surrogate"], given["full_gradient"]
        self.initial_state, self.learn_initial_state = given["initial_state"], given["learn_initial_state"]
        check_gradient_mode(self.surrogate, self.full_gradient)
        check_choice("initial_state", self.initial_state, INITIAL_STATES)
        check_bool("learn_bias", given["learn_bias"])
        check_bool("learn_initial_state", self.learn_initial_state)
        self.learnable = check_learnable(given["learnable"], self.full_gradient, recurrent.delay_hh is not None)
        if self.learn_initial_state and not (self.full_gradient or self.recurrent):
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
        self.learn_bias, self.input_gain = given["learn_bias"], given["input_gain"]
        self.bias_init, self.bias_max = self._check_bias(given["bias_init"]), self._check_bias_max(given["bias_max"])
        if self.learn_bias and self.bias_init > self.bias_max:
            raise ValueError(
                f"bias_init: expected at most bias_max ({self.bias_max:g}) for a learnt bias, got {self.bias_init:g}"
            )
        if self.input_gain is not None:
            self.input_gain = as_gain("input_gain", self.input_gain, self._float_max)
        self._neurons = neurons
        self._suffixes = tuple(weight_shapes)
        self._cell = Cell(*(self._checked(name, given[name]) for name in Cell._fields))
        self._spread = {name: x for name, x in given.items() if isinstance(x, Spread | SpreadFrequencies)}
        self._delay_hh = None if recurrent.delay_hh is None else self._checked("delay_hh", recurrent.delay_hh)
        self.max_delay = check_max_delay(recurrent.max_delay, self._delay_hh, "delay_hh" in self.learnable)
        self.delay_width = recurrent.delay_width
        if RESONANCE in self.learnable and is_zero(getattr(self._cell, RESONANCE)):
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
            self.register_parameter(self._WEIGHT_NAME + suffix, nn.Parameter(torch.empty(shape, **factory)))
            b = torch.empty(neurons, **factory)
            if self.learn_bias:
                self.register_parameter(self._BIAS_NAME + suffix, nn.Parameter(b))
            else:
                self.register_buffer(self._BIAS_NAME + suffix, b, persistent=False)
            if self.recurrent:
                self.register_parameter(f"weight_hh{suffix}", nn.Parameter(torch.empty(neurons, neurons, **factory)))
            for name, value in self._stored().items():
                tensor = torch.empty(getattr(value, "shape", ()), **factory)
                if name in self.learnable:
                    self.register_parameter(f"{name}{suffix}", nn.Parameter(tensor))
                else:
                    self.register_buffer(f"{name}{suffix}", tensor)
            if self.learn_initial_state:
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

    def _stored(self) -> dict[str, Parameter]:
        """Initial values of the parameters and delays that the layer keeps as tensors."""
        stored = {name: cast("Parameter", getattr(self._cell, name)) for name in self._cell_tensors}
        return stored if self._delay_hh is None else {**stored, "delay_hh": self._delay_hh}

    def _checked(self, name: str, value: Parameter | Spread | SpreadFrequencies) -> Parameter:
        return check_parameter(name, value, self._neurons, self._float_max, name in self.learnable)

    def _check_bias(self, bias: float) -> float:
        number = as_float("bias_init", bias)
        if not abs(number) <= self._float_max:
            raise ValueError(f"bias_init: expected a finite value of the dtype, got {bias}")
        return number

    def _check_bias_max(self, bias_max: float) -> float:
        number = as_float("bias_max", bias_max)
        if not number >= -self._float_max:
            raise ValueError(f"bias_max: expected a number of the dtype, or a larger one, got {bias_max}")
        return number

    def _constants(self) -> dict[str, float | None]:
        cell = {name: None if name in self._cell_tensors else value for name, value in self._cell._asdict().items()}
        later = {name: cell.pop(name) for name in LATER}  # last: see get_extra_state()
        return {
            **cell,
            "bias_init": None if self.learn_bias else self.bias_init,
            "initial_state": None if self.learn_initial_state else INITIAL_STATES.index(self.initial_state),
            **later,
            "bias_max": self.bias_max,
        }

    def get_extra_state(self) -> Tensor:
        """The constants as ``_extra_state``, float64 on the CPU; without the last ones that have the default."""
        state = super().get_extra_state()
        return state[: len(state) - self._unsaved()].clone()

    def set_extra_state(self, state: Tensor) -> None:
        """Take over the constants of a checkpoint, as the base class does.

        Missing parameters get their defaults. A missing ``bias_max`` stays: srcell 0.2 saved none.
        """
        if isinstance(state, Tensor) and state.dim() == 1:
            last = [*(TABLE[name].standard for name in LATER), self.bias_max]
            lacking = 1 + len(self._constants()) - len(state)
            if 0 < lacking <= len(last):
                state = torch.cat([state, state.new_tensor(last[-lacking:])])
        super().set_extra_state(state)

    def _unsaved(self) -> int:
        """How many of the last constants have the default."""
        if self.bias_max != DEFAULTS["bias_max"]:
            return 0
        count = 1
        for name in reversed(LATER):
            if self._has(name):
                break
            count += 1
        return count

    def _has(self, name: str) -> bool:
        """Whether a parameter has a tensor of its own, or differs from its default."""
        return name in self._cell_tensors or getattr(self._cell, name) != TABLE[name].standard

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        fixed = [name for name in Cell._fields if name not in self._cell_tensors]
        cell = {name: self._checked(name, constants[name]) for name in fixed}
        if not self.learn_initial_state:
            state = constants["initial_state"]
            if state not in range(len(INITIAL_STATES)):
                raise ValueError(f"initial_state: expected a number of {', '.join(INITIAL_STATES)}, got {state!r}")
            self.initial_state = INITIAL_STATES[int(state)]
        self.bias_max = self._check_bias_max(constants["bias_max"])
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
            self.register_buffer(self._BIAS_NAME + suffix, bias, persistent=False)
        bias.fill_(self.bias_init)

    def _weight(self, suffix: str) -> Tensor:
        tensor: Tensor = getattr(self, self._WEIGHT_NAME + suffix)
        return tensor

    def _bias(self, suffix: str) -> Tensor:
        tensor: Tensor = getattr(self, self._BIAS_NAME + suffix)
        return tensor

    def _acting_bias(self, suffix: str) -> Tensor:
        """The bias that the kernels compute with: at most ``bias_max`` if it is learnt."""
        bias = in_work_dtype(self._bias(suffix))
        bounded = self.learn_bias and self.bias_max <= torch.finfo(bias.dtype).max
        return bias.clamp(max=self.bias_max) if bounded else bias

    def _record(
        self,
        suffix: str,
        input: Any,
        state: State | None,
        lengths: Tensor | Sequence[int] | None,
        batch_dim: int = 1,
        *,
        stacked: bool = False,
        space: Sequence[int] = (),
    ) -> tuple[Tensor, LayerArguments]:
        """Weight and record of a layer, to run with; each parameter is evaluated once a call.

        A learnt initial state is (B, N, *space), with a dimension before B if ``stacked``.
        """
        weight, bias = getattr(self, self._WEIGHT_NAME + suffix), getattr(self, self._BIAS_NAME + suffix)
        numbers: Sequence[Any] = self._cell
        cell: Sequence[Any] = ()
        bounded: Sequence[bool] = ()
        tensors = self._cell_tensors
        if tensors:
            numbers, cell, bounded = [*numbers], [*numbers], []
            for k, name in enumerate(PARAMETERS):  # loops, because comprehensions enter frames
                if name in tensors:
                    cell[k], numbers[k] = getattr(self, name + suffix), TABLE[name].standard
                bounded.append(name in self.learnable and name not in UNBOUNDED)
        if numbers[-1] == 0 and RESONANCE not in tensors:
            numbers, cell, bounded = numbers[:-1], cell[:-1], bounded[:-1]
        batch = 0
        if self._delay_hh is not None or (state is None and self.learn_initial_state):
            if isinstance(input, Tensor):
                require_dense("input", input)
            batch = input.shape[batch_dim]
        lateral, past_steps, first, factors = None, 0, None, None
        if self.recurrent:
            lateral = getattr(self, f"weight_hh{suffix}")
        if self._delay_hh is not None:
            most, width, delay = self.max_delay, self._delay_width, getattr(self, f"delay_hh{suffix}")
            terms = None
            if delay.dtype == weight.dtype:
                terms = tables_directly(delay, self._neurons, width, most, "delay_hh" in self.learnable)
            if terms is None:
                shape, delay = (batch, self._neurons), self._acting_delay(delay)
                past_steps, first, factors = delays_of(delay, most, width, lateral, shape, weight)
            else:
                past_steps, (first, factors) = most + width, terms
        if lengths is not None and (type(lengths) is not Tensor or lengths.dtype != torch.int64):
            lengths = as_lengths(lengths, weight.device)
        if state is None and self.learn_initial_state:
            state = self._learnt_state(suffix, (1,) * stacked, batch, space)
        elif state is not None and not isinstance(state, tuple):
            check_state(state, self.resonates, self._past_steps)
        given: Any = (
            *(bias, cell, state, lengths, lateral, first, factors, numbers),
            *(self.surrogate, self.full_gradient, self.recurrent_surrogate, past_steps),
            *(self.bias_max if self.learn_bias else None, self._neurons if space else 0, bounded),
            *(lateral is None or self.autapses, self.initial_state),
        )
        if torch.compiler.is_compiling():
            return weight, LayerArguments(*given)
        return weight, tuple.__new__(LayerArguments, given)  # without a frame of its own

    def _recurrent_weight(self, suffix: str) -> Tensor | None:
        """The recurrent weights that act: without autapses the diagonal is 0."""
        if not self.recurrent:
            return None
        weight: Tensor = getattr(self, f"weight_hh{suffix}")
        return weight if self.autapses else without_autapses(weight)

    def _delay_of(self, suffix: str) -> Tensor | None:
        """The delays of the recurrent weights to run with, clamped to their domain."""
        return None if self._delay_hh is None else self._acting_delay(getattr(self, f"delay_hh{suffix}"))

    def _acting_delay(self, given: Tensor) -> Tensor:
        delay = in_work_dtype(given)
        if "delay_hh" in self.learnable:
            return clamped(delay, 0.0, float(self.max_delay))
        # Half precision may have rounded up.
        return delay if delay is given else delay.clamp(0, self.max_delay)

    def _cell_of(self, suffix: str) -> Any:
        """The cell parameters that act: learnt ones are clamped to their domains."""
        if not self._cell_tensors:
            return self._cell
        tensors: dict[str, Tensor] = {}
        for name in self._cell_tensors:
            tensor = getattr(self, f"{name}{suffix}")
            bounded = name in self.learnable and name not in UNBOUNDED
            tensors[name] = in_work_dtype(tensor).clamp(*domain(name)) if bounded else tensor
        return self._cell._replace(**tensors)

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
        """Clamp the bias to <= ``bias_max`` and learnable parameters to their domains, in place.

        Nothing requires it: every call clamps them, and exported files hold the clamped values.
        """
        for suffix in self._suffixes:
            if self.learn_bias:
                self._bias(suffix).copy_(self._acting_bias(suffix))
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
            if isinstance(weight, Tensor) and weight.dim() == 2 and has_memory(weight) and weight.diagonal().any():
                error_msgs.append(f"weight_hh{suffix}: expected a diagonal of 0 with autapses=False, got other values")

    def _fixed_state(self, suffix: str) -> AnyState:
        bias = self._bias(suffix)
        if self.initial_state == "zeros":
            made = state_type(self.resonates, False)
            return made(*[torch.zeros_like(bias)] * len(made._fields))
        cell, dtype = self._cell_of(suffix), work_dtype(bias)
        # As the kernels round them.
        gains = {name: torch.as_tensor(getattr(cell, name), dtype=dtype, device=bias.device) for name in ("r", "rs")}
        return rest_state(self._acting_bias(suffix), omega=cell.omega, **gains)

    def _initial_state(self, suffix: str, batch: int, *space: int) -> AnyState | None:
        """The state (B, N) before the first step, or (B, N, *space) for a convolutional layer; None for zeros.

        It has no past, which is zero.
        """
        if self.learn_initial_state:
            return self._learnt_state(suffix, (), batch, space)
        if self.initial_state == "zeros":
            return None
        state = self._fixed_state(suffix)
        return type(state)(*[over_space(x, len(space)).expand(batch, -1, *space) for x in state])

    def _learnt_state(self, suffix: str, layers: Sequence[int], batch: int, space: Sequence[int]) -> AnyState:
        """The learnt state (*layers, B, N, *space)."""
        made = []
        for name in INITIAL:
            x = getattr(self, name + suffix)
            made.append((over_space(x, len(space)) if space else x).expand(*layers, batch, -1, *space))
        if self.resonates:
            made.append(torch.zeros_like(made[0]))
        return state_type(self.resonates, False)(*made)

    def _states(
        self,
        suffix: str,
        currents: Callable[[], Tensor],
        state: State | None,
        lengths: Tensor | None,
        space: int = 0,
    ) -> Iterator[AnyState]:
        """Yield the state after each step of a call with these currents, which have ``space`` spatial dimensions.

        Its tensors are (1, B, N, *space); a call without steps yields one state, (0, B, N, *space). What is on its way
        through delayed weights is not in it: it follows from the spikes.
        """
        given, weight, delay = currents(), self._recurrent_weight(suffix), self._delay_of(suffix)
        if state is None:
            state = self._initial_state(suffix, given.shape[1], *given.shape[3:])
        arguments = {"bias": over_space(self._acting_bias(suffix), space), **self._cell_over_space(suffix, space)}
        arguments["weight_hh"] = weight
        if delay is not None:
            arguments |= {"delay_hh": delay, "max_delay": self.max_delay, "delay_width": self.delay_width}

        def run(now: Tensor, before: AnyState | None, left: Tensor | None) -> AnyState:
            return src(now, state=before, lengths=left, **arguments)[1]

        yield from each_state(run, given, state, lengths, state_type(self.resonates, False))

    def extra_repr(self) -> str:
        """The options that differ from the defaults; of a learnt parameter, its initial value."""
        parts = changed(self, {"learn_bias": True})
        parts += [
            f"{name}={self._shown(name)}"
            for name, default in CELL_DEFAULTS.items()
            if isinstance(getattr(self._cell, name), Tensor) or getattr(self._cell, name) != default
        ]
        apart = ("learn_bias", *CELL_DEFAULTS, "device", "dtype")
        parts += changed(self, {name: default for name, default in DEFAULTS.items() if name not in apart})
        recurrent = NOT_RECURRENT._asdict()
        parts += changed(self, {name: recurrent[name] for name in ("recurrent", "recurrent_surrogate", "autapses")})
        if self.delayed:
            parts += [f"delay_hh={self._shown('delay_hh')}", f"max_delay={self.max_delay}"]
            parts += changed(self, {"delay_width": 1})
        return ", ".join(parts)

    def _shown(self, name: str) -> str:
        """A parameter's option: of one that is learnt the initial value, of others the present one."""
        initial: Any = self._delay_hh if name == "delay_hh" else getattr(self._cell, name)
        stored = name in self._stored() and name not in self.learnable  # a state_dict may have brought others
        present = [getattr(self, f"{name}{suffix}") for suffix in self._suffixes if stored]
        return shown_parameter(initial, present, self._spread.get(name))


def over_space(values: Tensor, dimensions: int) -> Tensor:
    """Values (N,) of the channels, reshaped to broadcast over the spatial dimensions that follow."""
    return values.reshape(-1, *[1] * dimensions)
