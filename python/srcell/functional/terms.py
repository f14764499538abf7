"""The terms of delays: how many steps each takes, and its factor.

``delay``, the delays of recurrent weights and exported files use it; it knows tensors of delays, and nothing of what is
delayed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._shared.arguments import has_memory
from ..ops._cpu import core
from ..ops._table import device_error, work_dtype

MOST_DELAY = 65535


def check_delays(name: str, delay: Tensor, most: int, device: torch.device) -> None:
    """Raise unless delays are floats on a device and, on the CPU, in [0, most]."""
    if not delay.is_floating_point():
        raise TypeError(f"{name}: expected a floating-point dtype, got {delay.dtype}")
    if delay.device != device:
        raise device_error(name, str(device), delay)
    if not (delay.numel() and can_look(delay)):
        return
    bounds = torch.stack(delay.detach().double().aminmax())
    if has_memory(bounds):  # not in a mode of fake tensors, even if the delay is real
        low, high = bounds.tolist()
        if not 0 <= low <= high <= most:
            raise ValueError(f"{name}: expected values in [0, max_delay] = [0, {most}], got {low:.9g} to {high:.9g}")


def tables_directly(
    delay: Tensor, inputs: int, width: int, most: int, clamped: bool
) -> tuple[Tensor, Tensor | None] | None:
    """``tables`` of delays (K,) or () on a CPU, clamped or checked; None for all that is for ``tables``."""
    return None if torch.compiler.is_compiling() else core.delay_terms(delay, inputs, width, most, clamped)


def terms_of(
    name: str, delay: Tensor, width: int, most: int, device: torch.device, *, clamped: bool, keep: bool
) -> tuple[Tensor, Tensor | None]:
    """``tables`` of delays (K,) on a device, which are checked or, if ``clamped``, act clamped to [0, most]."""
    made = None
    if delay.device == device and not keep:
        made = tables_directly(delay, delay.shape[0], width, most, clamped)
    if made is not None:
        return made
    if delay.is_floating_point():
        delay = delay.to(work_dtype(delay))
        delay = delay.clamp(0, most) if clamped else delay
    check_delays(name, delay, most, device)
    return tables(delay, width, keep=keep)


def can_look(delay: Tensor) -> bool:
    """Whether Python may depend on the values: on a GPU it would wait for them, and torch compiles without them."""
    return delay.device.type == "cpu" and not torch.compiler.is_compiling() and has_memory(delay)


def tables(delay: Tensor, width: int, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """The steps of the first term of each delay, int32, and the factors of its ``2 width`` terms.

    The factors are None if all delays are known to be whole. They are computed in float64 by operations that round
    alike on every device.
    """
    wide = delay.to(torch.float64)
    whole = wide.detach().floor()
    # Without delays the result has the same form as where values are not read, as in a trace.
    if width == 1 and not keep and can_look(delay) and delay.numel():
        all_whole = (whole == wide).all()
        if has_memory(all_whole) and bool(all_whole):
            return whole.to(torch.int32), None
    rest, term = wide - whole, torch.arange(2 * width, device=delay.device)
    height = torch.where(term < width, term + 1, 2 * width - 1 - term)
    slope = torch.where(term < width, -1.0, 1.0).to(torch.float64)
    lost = (width - 1 - whole).clamp(min=0)  # terms that would arrive before they leave
    mass = width**2 - lost * (lost + 1) / 2 + lost * rest
    factors = (height + slope * rest[:, None]) / mass[:, None]
    return (whole - (width - 1)).to(torch.int32), factors.to(delay.dtype)


def exported_delays(name: str, delay: Tensor, width: int, most: int) -> dict[str, Tensor]:
    """The terms of delays (S, M) of S sources with M taps each, clamped to [0, most], as an exported file holds them.

    ``name.first`` (S, M) int32 has the steps of each delay's first term. ``name.factors`` (S, M, terms) float32 has the
    factors of its terms, which take one step more each; it is absent if all delays are whole.
    """
    flat = delay.detach().cpu().reshape(-1)
    first, factors = terms_of("delay", flat, width, most, flat.device, clamped=True, keep=False)
    made = {f"{name}.first": first.reshape(delay.shape)}
    if factors is not None:
        made[f"{name}.factors"] = factors.float().reshape(*delay.shape, -1)
    return made
