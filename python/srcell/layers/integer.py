"""``IntegerSRC``: a layer of integer neurons, as in hardware, trained through the rounding of its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from .._integer import IntegerCell, IntegerState
from .._shared.arguments import as_int, as_positive, check_choice, has_memory, require_dense
from ..events import EventBatch
from ..functional.integer import MOST_BITS, checked_cell, quantise, run_integer, state_tensors
from .constants import HasConstants, check_size
from .description import changed
from .init import FIRST_WEIGHT_SCALE, draw_weights
from .options import INITIAL_STATES
from .recorded import Call, each_state

SPREAD = 3.0  # weights are clipped to this many standard deviations
RHO = 6.0  # of the surrogate gradient, in units of the float weights


class IntegerSRC(HasConstants):
    """A layer of Spiking Recurrent Cells in integers, exactly as hardware computes them.

    Every call rounds the weights to ``weight_bits`` bits and runs :func:`srcell.integer_src_linear`. In the backward,
    gradients pass the rounding unchanged, the surrogate gradient of a spike is the derivative of the float neuron with
    the straight-through surrogate, and gradients flow through time only along the integrator i.

    Args:
        input_size: inputs, K.
        hidden_size: neurons, N.
        weight_bits: bits per weight, 2 to 16.
        cell: the neurons' constants, by default the hardware's.
        rho: the range of i in the surrogate gradient, in units of the float weights.
        initial_state: "zeros", or "rest": i = 0, h = ``cell.h_min`` and hs = ``cell.hs_min``.
        device: device of the weights.
        dtype: dtype of the weights.

    Attributes:
        weight_ih_l0: (N, K), the float weights that are rounded to integers.
        clamped: how often an i left its bounds and was clamped, int64, over all calls; it is not in the state_dict.

    The other constants are in the state_dict as ``_extra_state``, like those of :class:`SRC`.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a wrong size or value.

    Example:
        >>> import torch, srcell
        >>> layer = srcell.IntegerSRC(784, 100, weight_bits=4)
        >>> spikes, state = layer(torch.rand(44, 8, 784).lt(0.03).float())
        >>> spikes.shape, state.h.dtype
        (torch.Size([44, 8, 100]), torch.int16)
        >>> layer.integers().dtype, int(layer.integers().abs().max()) <= 8
        (torch.int16, True)

    """

    clamped: Tensor
    recorder: Callable[[str, Call], None] | None = None
    stacked = False

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        *,
        weight_bits: SupportsIndex = 4,
        cell: IntegerCell = IntegerCell(),  # noqa: B008  (it does not change)
        rho: float = RHO,
        initial_state: str = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_size("input_size", input_size, 0)
        check_size("hidden_size", hidden_size, 0)
        self.input_size, self.hidden_size = input_size, hidden_size
        self.weight_bits = as_int("weight_bits", weight_bits, MOST_BITS, minimum=2)
        self.cell, self.rho, self.initial_state = checked_cell(cell), as_positive("rho", rho), initial_state
        check_choice("initial_state", initial_state, INITIAL_STATES)
        self.weight_ih_l0 = nn.Parameter(torch.empty(hidden_size, input_size, device=device, dtype=dtype))
        self.register_buffer("clamped", torch.zeros((), dtype=torch.int64, device=device), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew from N(0, (3 / sqrt(K))^2), and set ``clamped`` to 0."""
        draw_weights(self.weight_ih_l0, FIRST_WEIGHT_SCALE)
        self.clamped.zero_()

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clip the weights to three standard deviations, because the largest weight sets the rounding step of all.

        Call it after each optimiser step.
        """
        weight = self.weight_ih_l0
        if weight.numel() > 1:
            bound = SPREAD * weight.std()
            weight.clamp_(-bound, bound)

    def integers(self) -> Tensor:
        """The rounded weights, with which the neurons compute, (N, K) int16."""
        return quantise(self.weight_ih_l0, self.weight_bits)[0]

    def forward(
        self,
        input: Tensor | EventBatch,
        state: IntegerState | tuple[Tensor, Tensor, Tensor] | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor, IntegerState]:
        """Run the layer over a sequence.

        Args:
            input: (T, B, K) of 0 and 1, or an EventBatch without values; or (T, K), one sample, whose outputs and
                states lack B.
            state: three int16 tensors (B, N); the initial state if absent.
            lengths: (B,) integers in [0, T]; must be absent for an EventBatch that has its own, and for one sample.

        Returns:
            Spikes (T, B, N), 0 or 1 in the dtype of the weights, and the state after each sample's last step, which has
            no gradient.

        """
        if isinstance(input, Tensor) and input.dim() == 2:
            return self._forward_one(input, state, lengths)
        weight = self.weight_ih_l0
        integers, scale = quantise(weight, self.weight_bits)
        if state is None and isinstance(input, (Tensor, EventBatch)) and len(input.shape) == 3:
            state = self._initial(input.shape[1])
        spikes, ended, clamped = run_integer(
            input, integers, weight.to(torch.float32), scale, state, self.cell, lengths, floats=True, rho=self.rho
        )
        if torch.compiler.is_compiling() or has_memory(clamped):
            self.clamped += clamped
        if self.recorder is not None:
            states = partial(self._states, input, state, lengths)
            self.recorder("", Call(spikes.detach(), states, input))  # type: ignore[arg-type]
        return spikes.to(weight.dtype), ended

    def _forward_one(self, input: Tensor, state: Any, lengths: Any) -> tuple[Tensor, IntegerState]:
        """``forward`` for one sample (T, K)."""
        if lengths is not None:
            raise ValueError("lengths: expected None beside an input (T, K), got lengths")
        require_dense("input", input)
        batched = None if state is None else IntegerState(*(x[None] for x in state_tensors(state)))
        spikes, after = self.forward(input[:, None], batched)
        return spikes[:, 0], IntegerState(*(x[0] for x in after))

    def _initial(self, batch: int) -> IntegerState | None:
        if self.initial_state == "zeros":
            return None
        like = self.weight_ih_l0
        rest = (0, self.cell.h_min, self.cell.hs_min)
        shape = (batch, self.hidden_size)
        return IntegerState(*(torch.full(shape, x, dtype=torch.int16, device=like.device) for x in rest))

    @torch.no_grad()
    def _states(
        self, input: Tensor | EventBatch, state: Any, lengths: Tensor | Sequence[int] | None
    ) -> Iterator[IntegerState]:
        """The state after each step of a call, (1, B, N); a call without steps has one state, (0, B, N)."""
        if isinstance(input, EventBatch):
            lengths, input = input.lengths if lengths is None else lengths, input.to_dense()
        ends = None if lengths is None else torch.as_tensor(lengths)
        weight = self.integers()

        def run(now: Tensor, before: Any, left: Tensor | None) -> IntegerState:
            return run_integer(now, weight, None, None, before, self.cell, left, floats=False)[1]

        yield from each_state(run, input, state, ends, IntegerState)

    def _constants(self) -> dict[str, float | None]:
        constants = {"weight_bits": self.weight_bits, "rho": self.rho, **self.cell._asdict()}
        return {**constants, "initial_state": float(INITIAL_STATES.index(self.initial_state))}

    def _set_constants(self, constants: Mapping[str, float]) -> None:
        state, bits = constants["initial_state"], constants["weight_bits"]
        if state not in range(len(INITIAL_STATES)):
            raise ValueError(f"initial_state: expected a number of {', '.join(INITIAL_STATES)}, got {state!r}")
        if bits not in range(2, MOST_BITS + 1):
            raise ValueError(f"weight_bits: expected an int in [2, {MOST_BITS}], got {bits!r}")
        cell: dict[str, Any] = {name: constants[name] for name in IntegerCell._fields}
        whole = {name: int(value) for name, value in cell.items() if float(value).is_integer()}
        if whole != cell:
            raise ValueError(f"cell: expected integers, got {cell}")
        self.cell, self.rho = checked_cell(IntegerCell(**whole)), as_positive("rho", constants["rho"])
        self.weight_bits, self.initial_state = int(bits), INITIAL_STATES[int(state)]

    def extra_repr(self) -> str:
        """The sizes, and the options that differ from the defaults."""
        parts = [f"{self.input_size}, {self.hidden_size}, weight_bits={self.weight_bits}"]
        cell = {k: v for k, v in self.cell._asdict().items() if v != IntegerCell._field_defaults[k]}
        parts += [f"cell=IntegerCell({', '.join(f'{k}={v}' for k, v in cell.items())})"] if cell else []
        return ", ".join([*parts, *changed(self, {"rho": RHO, "initial_state": "zeros"})])
