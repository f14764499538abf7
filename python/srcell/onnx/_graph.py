"""Builds the parts of ONNX graphs that the translations share: constants, empty outputs, loops over time (``Scan``).

This file must know neither neurons nor torch's operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._shared.extras import extra

with extra("onnx"):
    import onnx_ir as ir
    from onnx_ir.tape import Tape
    from onnxscript import evaluator, opset18

__all__ = ["Body", "Values", "active_steps", "constant", "dtype_of", "empty", "ir", "op", "scan", "whole"]

op: Any = opset18  # Any: its annotations are for functions that onnxscript reads as text
Values = Sequence[ir.Value]
Step = Callable[["Body", Values, Values], tuple[Values, Values]]
"""Makes the nodes of one step. Arguments: the body, the carried values (those passed from step to step) and the step's
inputs. Returns the new carried values and the outputs."""


class Body(Tape):
    """Records the nodes of a loop's body: ``body.Add(a, b)`` adds one and returns its output.

    Inputs may be values of the graph around the loop.
    """

    def __getattr__(self, operator: str) -> Callable[..., ir.Value]:
        if operator.startswith("_"):
            raise AttributeError(operator)

        def add(*inputs: ir.Value, **attributes: Any) -> ir.Value:
            output = self.op(operator, inputs, attributes)
            output.name = f"step_{len(self.nodes)}"  # a name that no value around the loop has
            return output

        return add


def constant(value: Any, dtype: ir.DataType) -> Any:
    """A constant of the graph, in the value's shape."""
    return op.Constant(value=ir.tensor(np.asarray(value, dtype.numpy())))


def empty(dtype: ir.DataType) -> Any:
    """A constant without elements: an output that only a backward pass would read."""
    return constant([], dtype)


def whole(value: int | list[int]) -> Any:
    """A constant of integers."""
    return constant(value, ir.DataType.INT64)


def dtype_of(value: ir.Value) -> ir.DataType:
    """The dtype of a value; torch's exporter knows the dtypes of the inputs of all operators."""
    if value.dtype is None:
        raise TypeError(f"srcell.onnx: expected a value with a dtype, got {value.name}")
    return value.dtype


def active_steps(current: ir.Value, lengths: ir.Value) -> Any:
    """(T, B, 1) bool: whether a step comes before the end of a sample."""
    zero, one = whole(0), whole(1)
    steps = op.Range(zero, op.Squeeze(op.Shape(current, start=0, end=1)), one)
    return op.Unsqueeze(op.Less(op.Unsqueeze(steps, whole([1])), lengths), whole([2]))


def scan(step: Step, carried: Values, inputs: Values, dtypes: Sequence[ir.DataType]) -> tuple[Values, Values]:
    """Run a step over time, the first dimension of the inputs.

    Args:
        step: makes the nodes of the loop's body; its outputs have the shape (B, N).
        carried: the values before the first step.
        inputs: the inputs of all steps, (T, ...) each.
        dtypes: the dtypes of the outputs.

    Returns:
        The values after the last step, and the outputs, (T, B, N) each.

    """
    body = Body()
    before = [ir.Value(name=f"before_{k}") for k in range(len(carried))]
    now = [ir.Value(name=f"now_{k}") for k in range(len(inputs))]
    after, made = step(body, before, now)
    for output, dtype in zip(made, dtypes, strict=True):  # onnxruntime 1.23 must know how many dimensions they have
        output.type, output.shape = ir.TensorType(dtype), ir.Shape([None, None])
    graph = ir.Graph([*before, *now], [*after, *made], nodes=body.nodes, name="step")
    attributes = [ir.AttrGraph("body", graph), ir.AttrInt64("num_scan_inputs", len(inputs))]
    node = ir.Node("", "Scan", [*carried, *inputs], attributes, num_outputs=len(after) + len(made))
    # Calls through onnxscript give an operator a fixed number of outputs, but Scan may have any number.
    recorder: Any = evaluator.default()
    recorder.nodes.append(node)
    return node.outputs[: len(after)], node.outputs[len(after) :]
