"""``src_conv2d`` in the form in which ``support.inputs.call`` calls ``src_linear``: inputs and neurons are flat."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn import functional as F

from srcell import EventBatch, src_conv2d
from srcell.functional.convolution import Window, window_of
from srcell.functional.layer import Cell, layer_of
from srcell.functional.synapse import after_synapse, currents_of, directly
from srcell.reference import src_reference
from support.inputs import Inputs, Outputs, make_linear_inputs, noise, with_values

Function = Callable[..., Outputs]


class Map(NamedTuple):
    """The sizes of a convolution, and of the maps that it reads."""

    channels: int
    height: int
    width: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def window(self) -> Window:
        return window_of(*self[4:])

    @property
    def options(self) -> dict[str, Any]:
        """The keywords of ``src_conv2d`` that say how the kernel moves."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def inputs(self) -> int:
        return self.channels * self.height * self.width

    @property
    def features(self) -> tuple[int, int, int]:
        sizes = self.window.over(self.channels, self.height, self.width)
        return self.out_channels, sizes.out_height, sizes.out_width


# A register and less of output channels, several groups, strides, more than a tile of neurons, and maps of one line.
MAPS = (
    Map(2, 7, 9, 12, (5, 5), (2, 2), (2, 2)),
    Map(1, 6, 5, 4, (3, 2), (1, 1), (1, 0)),
    Map(4, 5, 6, 34, (3, 3), (2, 1), (0, 2), (1, 2), 2),
    Map(3, 8, 7, 3, (3, 3), (1, 1), (2, 2), (2, 1), 3),
    Map(1, 1, 9, 17, (1, 4), (1, 3), (0, 1)),
    Map(5, 4, 4, 20, (2, 2), (3, 3), (1, 1)),
)


def make_map_inputs(seed: int, of: Map, steps: int, batch: int, **options: Any) -> tuple[EventBatch, Inputs]:
    """``make_linear_inputs`` with the weight of a convolution; parameters belong to neurons."""
    events, inputs = make_linear_inputs(seed, steps, batch, math.prod(of.features), inputs=of.inputs, **options)
    shape = of.out_channels, of.channels // of.groups, *of.kernel_size
    return events, inputs | {"weight": 1 + 5 * noise(seed + 2003, *shape, dtype=inputs["weight"].dtype)}


def over_maps(of: Map, run: Function, events: EventBatch | None = None) -> Function:
    """A function on flat arguments of one that runs maps; the input is dense, or these events with the values given."""

    def function(input: Tensor, weight: Tensor, bias: Tensor, state: Any, **options: Any) -> Outputs:
        shaped = {name: x.view(of.features) if of_neurons(name, x) else x for name, x in options.items()}
        given = input.unflatten(2, of[:3]) if events is None else with_values(events, input)
        before = type(state)(*[x.unflatten(1, of.features) for x in state])
        spikes, after = run(given, weight, bias.view(of.features), before, **shaped)
        return spikes.flatten(2), type(after)(*[x.flatten(1) for x in after])

    return function


def of_neurons(name: str, x: Any) -> bool:
    return name != "lengths" and isinstance(x, Tensor) and x.dim() == 1


def on_maps(of: Map, events: EventBatch | None = None, method: str = "events") -> Function:
    """``src_conv2d``."""
    options = {**of.options, "input_size": of[1:3], "method": method}
    return over_maps(of, lambda *given, **others: src_conv2d(*given, **options, **others), events)


def on_maps_at_events(of: Map) -> Function:
    """The same, with the gradient of a dense input at its events alone."""

    def run(
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        state: Any,
        lengths: Any = None,
        surrogate: str = "straight_through",
        full_gradient: bool = False,
        **cell: Any,
    ) -> Outputs:
        options = {"surrogate": surrogate, "full_gradient": full_gradient}
        layer = layer_of(weight, state[0].shape, bias, tuple(Cell(**cell)), state, lengths, **options)
        given: Any = input.flatten(2), weight, layer, "events"
        further: Any = {"input_grad_at_events": True, "convolution": of.window.over(*of[:3])}
        spikes, after = directly(*given, **further) or after_synapse(*given, **further)
        return spikes.unflatten(2, of.features), type(after)(*[x.unflatten(1, of.features) for x in after])

    return over_maps(of, run)


def reference_on_maps(of: Map, events: EventBatch | None = None) -> Function:
    """The convolution of torch, then the reference, on the values of the sums of events.

    They differ in rounding, which gradients through h and hs amplify a hundred thousand times.
    """

    def function(input: Tensor, weight: Tensor, *layer: Any, **options: Any) -> Outputs:
        batch = input if events is None else with_values(events, input)
        dense = input if isinstance(batch, Tensor) else batch.to_dense(weight.dtype)
        maps = F.conv2d(dense.reshape(-1, *of[:3]), weight, None, **of.options).reshape(*dense.shape[:2], -1)
        summed = currents_of(batch, weight, None, "events", of.window.over(*of[:3]))
        assert (maps - summed).abs().max() <= 1e-13 * maps.abs().max()
        return src_reference(maps + (summed - maps).detach(), *layer, **options)

    return function
