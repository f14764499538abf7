"""Calls of the operators of ``torch.ops.srcell``, for tests on fixed and on drawn tensors."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from srcell import EventBatch, ops
from srcell.ops._operator import Operator
from support.inputs import Layer

DECLARED = {
    x.name: x for module in vars(ops).values() if isinstance(module, ModuleType) for x in vars(module).values()
    if isinstance(x, Operator)
}  # fmt: skip
"""The operators, by their names."""


class OperatorCall:
    """A call of an operator, with its positional and its keyword-only arguments."""

    def __init__(self, name: str, *arguments: Any, **options: Any) -> None:
        self.name, self.arguments, self.options = name, list(arguments), options

    @property
    def operator(self) -> Any:
        return getattr(torch.ops.srcell, self.name)

    def __call__(self) -> Any:
        return self.operator(*self.arguments, **self.options)


class LayerCall(NamedTuple):
    """A call of an operator that runs a layer, from which its forward and its backward operator are called."""

    name: str
    synapse: Sequence[Tensor | None]
    """The positional arguments before the layer's."""
    layer: Layer
    both: dict[str, Any]
    """Keyword-only arguments of the forward and the backward operator."""
    forward_only: dict[str, Any]

    def forward(self) -> OperatorCall:
        options = {**self.layer.options, **self.both, **self.forward_only}
        return OperatorCall(self.name, *self.synapse, *self.layer.forward, **options)

    def backward(
        self, grad_outputs: Sequence[Tensor | None], saved: Sequence[Tensor], output_mask: list[bool]
    ) -> OperatorCall:
        """The backward call, from gradients of spikes, i, h and hs and the tensors that the forward call saved."""
        arguments = (*grad_outputs, *self.synapse, *saved, *self.layer.backward)
        options = {**self.layer.options, **self.both, "output_mask": output_mask}
        return OperatorCall(f"{self.name}_backward", *arguments, **options)


def layer_call(
    layer: Layer,
    input: Tensor | EventBatch,
    weight: Tensor | None = None,
    *,
    method: str = "events",
    input_grad_at_events: bool = False,
    save: bool = True,
    trace_integrator: bool = True,
    convolution: Sequence[int] = (),
    product_dtype: str = "",
) -> LayerCall:
    """The call of ``src`` if there is no weight, of ``src_events`` on an EventBatch, of ``src_dense`` on a tensor."""
    options = {"save": save, "trace_integrator": trace_integrator}
    if weight is None:
        return LayerCall("src", [input], layer, {}, options)
    if isinstance(input, EventBatch):
        sizes = {"steps": input.shape[0], "batch": input.shape[1], "convolution": [*convolution]}
        return LayerCall("src_events", [input.offsets, input.indices, input.values, weight], layer, sizes, options)
    both = {"input_grad_at_events": input_grad_at_events, "method": method, "convolution": [*convolution]}
    both["product_dtype"] = product_dtype
    return LayerCall("src_dense", [input, weight], layer, both, options)
