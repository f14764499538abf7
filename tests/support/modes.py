"""Torch's modes, such as fake tensors: a call in a mode gives the eager result, only its shapes if the mode has no
values, or an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torch.func import functionalize
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from support.calls import Call, assert_same
from support.wrapped import Wrapped


class FunctionsSeen(torch.overrides.TorchFunctionMode):
    """Lists the functions of torch that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class OperatorsSeen(TorchDispatchMode):
    """Lists the operators that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


Mode = Callable[[Callable[..., Any], Sequence[Tensor]], Any]


def on_meta(function: Callable[..., Any], args: Sequence[Tensor]) -> Any:
    with torch.device("meta"):
        return function(*args)


def fake(function: Callable[..., Any], args: Sequence[Tensor]) -> Any:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return function(*map(mode.from_tensor, args))


def functional(function: Callable[..., Any], args: Sequence[Tensor]) -> Any:
    return functionalize(function)(*args)


def wrapping(function: Callable[..., Any], args: Sequence[Tensor]) -> Any:
    return function(*map(Wrapped, args))


def checkpointed(function: Callable[..., Any], args: Sequence[Tensor]) -> Any:
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in args]
    return checkpoint(function, *leaves, use_reentrant=False)


MODES: dict[str, Mode] = {
    "default device meta": on_meta,
    "fake tensors": fake,
    "functionalize": functional,
    "tensors that wrap others": wrapping,
    "checkpoint": checkpointed,
    "inference": lambda function, args: torch.inference_mode()(function)(*args),
}


def runs_in(mode: Mode, call: Call) -> bool:
    """Whether a call runs in a mode; if it does, assert that it gives the eager result."""
    function, args = call
    expected = function(*args)
    try:
        result = mode(function, args)
    except DynamicOutputShapeException:
        assert mode is fake
        return False
    except RuntimeError:  # an empty tensor does not tell whether it has memory
        if mode not in (fake, functional, wrapping) or all(x.numel() for x in args):
            raise
        return False
    if mode is fake:
        assert [x.shape for x in pytree.tree_leaves(result)] == [x.shape for x in pytree.tree_leaves(expected)]
    else:
        assert_same(pytree.tree_map(lambda x: x.inner if isinstance(x, Wrapped) else x, result), expected)
    return True
