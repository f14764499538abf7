"""The convolution of a call: its sizes, and its currents and gradients by torch's own operators.

An operator's option ``convolution`` has the numbers of a ``Convolution``, or none: the synapse is then linear. Inputs
and neurons are flat, numbered by channel, row and column. ``csrc/cpu/convolution.h`` checks the numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ._table import TABLE, Checked


class Convolution(NamedTuple):
    """The numbers of a convolution over maps of one size; (y, x) of what is vertical and horizontal."""

    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    stride_y: int
    stride_x: int
    padding_top: int
    padding_left: int
    dilation_y: int
    dilation_x: int


OPTION = "SymInt[] convolution=[]"


def checked_synapse(operator: str, call: Any, **letters: Any) -> Checked:
    """A call whose synapse is checked, with N and K: a weight, or the kernel of a convolution."""
    checked, rows = Checked(**letters), TABLE[operator]
    if not call.convolution:
        return checked.rows(rows, call)
    if len(call.convolution) != len(Convolution._fields):
        got = len(call.convolution)
        raise ValueError(f"convolution: expected {len(Convolution._fields)} numbers or none, got {got}")
    sizes, (kernel,) = Convolution(*call.convolution), TABLE["kernel"]
    checked.letters["K"] = sizes.channels * sizes.height * sizes.width
    checked.rows([kernel if row.name == "weight" else row for row in rows], call)
    shape = call.weight.shape
    if shape[1] < 1 or sizes.channels % shape[1]:
        raise ValueError(f"weight: expected I, of a group, to divide {sizes.channels} channels, got {tuple(shape)}")
    if call.layer.weight_hh is not None:
        raise ValueError("weight_hh: expected None with a convolution, got a tensor")
    checked.letters["N"] = shape[0] * sizes.out_height * sizes.out_width
    return checked


def places(convolution: Sequence[int]) -> int:
    """The places of a map of neurons; 0 if the synapse is linear."""
    if not convolution:
        return 0
    sizes = Convolution(*convolution)
    return sizes.out_height * sizes.out_width


def convolve(input: Tensor, weight: Tensor, convolution: Sequence[int]) -> Tensor:
    """The currents (T, B, N) of an input (T, B, K)."""
    maps, options, _ = _as_torch_takes_it(input, weight, convolution)
    rows, columns = convolution[3], convolution[4]
    current = functional.conv2d(maps, weight, None, **options)[..., :rows, :columns].contiguous()
    return current.reshape(*input.shape[:2], weight.shape[0] * rows * columns)


def convolve_backward(
    grad_current: Tensor, input: Tensor, weight: Tensor, convolution: Sequence[int], wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of ``convolve`` with respect to input and weight; None for what is not wanted."""
    sizes = Convolution(*convolution)
    for name, size in sizes._asdict().items():  # which the forward pass has checked, of a call that had one
        least = int("padding" not in name)
        if not least <= size <= 2**31:
            raise ValueError(f"convolution: expected {name} in [{least}, {2**31}], got {size}")
    maps, options, surplus = _as_torch_takes_it(input, weight, convolution)
    grad = grad_current.reshape(maps.shape[0], weight.shape[0], sizes.out_height, sizes.out_width)
    if max(surplus) > 0:
        grad = functional.pad(grad, (0, surplus[1], 0, surplus[0]))
    grad_maps, grad_weight, _ = torch.ops.aten.convolution_backward(
        grad,
        maps,
        weight,
        None,
        *(options[name] for name in ("stride", "padding", "dilation")),
        False,
        [0, 0],
        options["groups"],
        [*wanted, False],
    )
    if grad_maps is not None:
        grad_maps = grad_maps[..., : sizes.height, : sizes.width].reshape(input.shape)
    return grad_maps, grad_weight


def _as_torch_takes_it(
    input: Tensor, weight: Tensor, convolution: Sequence[int]
) -> tuple[Tensor, dict[str, Any], list[int]]:
    """The input as maps, with the zeros that torch does not add; the options of ``conv2d``; and its surplus.

    The surplus is the rows and columns of torch's map beyond the map of neurons, which may end before the zeros do.
    """
    sizes = list(convolution)  # torch.compile of torch 2.4 takes no slice of a named tuple
    maps = input.reshape(-1, *sizes[:3])
    strides, padding, dilation = sizes[5:7], sizes[7:9], sizes[9:11]
    missing = [
        (out - 1) * stride + apart * (kernel - 1) + 1 - size - 2 * before
        for out, stride, apart, kernel, size, before in zip(
            sizes[3:5], strides, dilation, weight.shape[2:], sizes[1:3], padding, strict=True
        )
    ]
    if max(missing) > 0:
        maps = functional.pad(maps, (0, max(missing[1], 0), 0, max(missing[0], 0)))
    options = {"stride": strides, "padding": padding, "dilation": dilation, "groups": sizes[0] // weight.shape[1]}
    return maps, options, [max(-rest, 0) // stride for rest, stride in zip(missing, strides, strict=True)]
