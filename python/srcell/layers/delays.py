"""``Delay``: a module that lets its inputs arrive later."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import torch
from torch import Tensor, nn

from .._shared.arguments import as_int, check_bool, require_dense
from .._shared.renamed import renamed
from ..events import EventBatch
from ..functional.delays import check_input, delayed
from ..functional.layer import check_lengths, in_work_dtype
from ..functional.synapse import as_spikes
from ..functional.terms import MOST_DELAY
from ..ops._table import WORK, device_error, dtype_error, shape_error
from .constants import refuse_script
from .description import changed


class Delay(nn.Module):
    r"""Delays of inputs, fixed or learnt: :func:`srcell.delay` as a module.

    Args:
        inputs: K, the number of inputs.
        max_delay: D, the largest delay in steps, an int in [0, 65535].
        taps: M, delays of each input; the output has K M inputs, tap j of input k at index k M + j.
        learnable: whether ``delay`` is a parameter or a buffer.
        delay_width: half-width of the interpolation in steps, as in :func:`srcell.delay`. The attribute may be set
            between epochs: delays learn faster from a wide interpolation, and end with a width of 1.
        device: device of the delays.
        dtype: dtype of the delays.

    Attributes:
        delay: (K, M). Tap j is drawn uniformly from [j D / M, (j + 1) D / M], so that the taps of an input cover
            [0, D]. Delays act clamped to that range; ``constrain_`` clamps them in place.

    A call takes (T, B, K), as a tensor or an ``EventBatch``, and returns the delayed input and a state: what is still
    on its way, the inputs of the last S = D + delay_width steps, as a tensor (B, S, K) or an ``EventBatch`` (S, B, K).
    Given to the next call, it makes a sequence of calls equal one call. With ``return_state=False``, in ``Sequential``
    and in ``SpikesOnly(Delay(...))`` it is not made.

    Raises:
        TypeError: an argument of the wrong type.
        ValueError: a number outside its range.

    Source: delays learnt by interpolation are those of arXiv 2306.17670, here with a cost per event.

    Example:
        >>> import torch, srcell
        >>> layer = srcell.Delay(4, max_delay=10)
        >>> events = srcell.rate_encode(torch.rand(2, 4), steps=30, seed=0)
        >>> delayed, state = layer(events)
        >>> delayed.shape, state.shape
        ((50, 2, 4), (11, 2, 4))

    """

    delay: Tensor
    __prepare_scriptable__ = refuse_script

    @renamed("width")
    def __init__(
        self,
        inputs: SupportsIndex,
        max_delay: SupportsIndex,
        *,
        taps: SupportsIndex = 1,
        learnable: bool = True,
        delay_width: SupportsIndex = 1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_bool("learnable", learnable)
        self.inputs, self.taps = as_int("inputs", inputs, 2**31), as_int("taps", taps, 2**31, minimum=1)
        self.max_delay = as_int("max_delay", max_delay, MOST_DELAY)
        self.delay_width = delay_width
        self.learnable = learnable
        if self.inputs * self.taps > 2**31:
            raise ValueError(f"taps: expected at most 2^31 delayed inputs, got {self.inputs} * {self.taps}")
        delay = torch.empty(self.inputs, self.taps, device=device, dtype=dtype)
        if learnable:
            self.delay = nn.Parameter(delay)
        else:
            self.register_buffer("delay", delay)
        self.reset_parameters()

    @property
    def delay_width(self) -> int:
        """The half-width of the interpolation, in steps."""
        return self._width

    @delay_width.setter
    def delay_width(self, width: SupportsIndex) -> None:
        self._width = as_int("delay_width", width, MOST_DELAY, minimum=1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the delays anew."""
        part = torch.arange(self.taps, dtype=self.delay.dtype, device=self.delay.device)
        self.delay.uniform_().add_(part).mul_(self.max_delay / self.taps)

    @torch.no_grad()
    def constrain_(self) -> None:
        """Clamp the delays to [0, max_delay], in place."""
        self.delay.clamp_(0, self.max_delay)

    def forward(
        self,
        input: Tensor | EventBatch,
        state: Tensor | EventBatch | None = None,
        lengths: Tensor | Sequence[int] | None = None,
        *,
        return_state: bool = True,
    ) -> tuple[Tensor | EventBatch, Tensor | EventBatch | None]:
        """Delay a batch.

        Args:
            input: (T, B, K), as a tensor or an ``EventBatch``.
            state: (B, S, K), or an ``EventBatch`` (S, B, K), as the call before returned it; absent: nothing is on its
                way.
            lengths: (B,) integers in [0, T], number of steps of each sample; must be absent for an EventBatch.
            return_state: whether to make the state.

        Returns:
            The delayed input (T, B, K M) and the state after each sample's last step, both an EventBatch for an
            EventBatch; no state, None, without ``return_state``.

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: a wrong shape, device or value; the message names the argument.

        """
        check_bool("return_state", return_state)
        self._check(input, lengths)
        steps, batch = input.shape[:2]
        past_steps = self.max_delay + self.delay_width
        if state is not None:
            self._check_state(state, batch, past_steps)
        skip = 0 if state is None else past_steps
        whole: Tensor | EventBatch
        last: Tensor | EventBatch | None = None
        if isinstance(input, EventBatch):
            ends, after = input.lengths, None
            whole = input
            if state is not None:
                past = state if isinstance(state, EventBatch) else EventBatch.from_dense(state.transpose(0, 1))
                whole = past._followed_by(input)
            if return_state:
                last = whole._last(past_steps, None if ends is None else ends + skip)
        else:
            given = as_spikes(input, self.delay.dtype)
            x = in_work_dtype(given)
            ends = None if lengths is None else check_lengths(lengths, batch, x.device, steps)
            after = None if ends is None else ends + skip
            if isinstance(state, EventBatch):
                state = state.to_dense(x.dtype).transpose(0, 1)
            whole = x if state is None else torch.cat([state.to(x.dtype).transpose(0, 1), x])
            if return_state:
                last = _last_steps(whole, past_steps, steps, ends)
        delay = self.delay.squeeze(1) if self.taps == 1 else self.delay
        width, most = self.delay_width, self.max_delay
        made = delayed(whole, delay, width, most, clamped=True, skip=skip, lengths=after)
        if isinstance(made, Tensor):
            made = made.to(given.dtype)
        return made, last

    def _check(self, input: Tensor | EventBatch, lengths: Tensor | Sequence[int] | None) -> None:
        inputs = check_input(input, lengths)
        if len(input.shape) != 3 or inputs != self.inputs:
            raise shape_error("input", f"(T, B, {self.inputs})", input.shape)
        if input.device != self.delay.device:
            raise device_error("input", f"{self.delay.device}, as delay has", input)

    def _check_state(self, state: Tensor | EventBatch, batch: int, past_steps: int) -> None:
        shape = (batch, past_steps, self.inputs)
        if isinstance(state, EventBatch):
            if state.lengths is not None:
                raise ValueError("state: expected an EventBatch without lengths, got one with lengths")
            shape = (past_steps, batch, self.inputs)
        elif not isinstance(state, Tensor):
            raise TypeError(f"state: expected a tensor or an EventBatch, got {type(state).__name__}")
        else:
            require_dense("state", state)
            if state.dtype not in WORK:
                raise dtype_error("state", "float32 or float64", state)
        if tuple(state.shape) != shape:
            raise shape_error("state", str(shape), state.shape)
        if state.device != self.delay.device:
            raise device_error("state", f"{self.delay.device}, as delay has", state)

    def extra_repr(self) -> str:
        """Sizes, and the options that differ from the defaults."""
        own = changed(self, {"taps": 1, "learnable": True, "delay_width": 1})
        return ", ".join([str(self.inputs), f"max_delay={self.max_delay}", *own])


def _last_steps(whole: Tensor, past_steps: int, steps: int, ends: Tensor | None) -> Tensor:
    """The last steps before each sample's end, (B, past_steps, K) in memory of its own, zero before the first.

    ``whole`` ends with the ``steps`` steps of a call, of which the samples have ``ends``.
    """
    if ends is None:
        steps, whole = 0, whole[max(whole.shape[0] - past_steps, 0) :]
    if (lacking := past_steps + steps - whole.shape[0]) > 0:
        whole = torch.cat([whole.new_zeros(lacking, *whole.shape[1:]), whole])
    if ends is not None:
        rows = torch.arange(past_steps, device=whole.device)[:, None] + ends.clamp(0, steps)
        whole = whole.gather(0, rows[:, :, None].expand(-1, -1, whole.shape[2]))
    return whole.transpose(0, 1).clone(memory_format=torch.contiguous_format)
