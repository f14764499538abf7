"""How an operator of ``torch.ops.srcell`` is declared: its schema, its kernels, its fake kernel, its gradient.

Every operator's file uses this; it knows torch's dispatcher and nothing of neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

_library = torch.library.Library("srcell", "DEF")

Function = TypeVar("Function", bound=Callable[..., Any])
Argument = Tensor | Sequence[Tensor] | None
Gradients = tuple[Argument, ...]


class Operator:
    """One operator.

    Args:
        schema: a schema of torch.library, with tensors and lists of tensors first and all else keyword-only.

    """

    def __init__(self, schema: str) -> None:
        self.name = schema.partition("(")[0]
        positional = schema.partition("(")[2].partition(" *")[0].partition(")")[0]
        odd = [
            argument for argument in positional.split(",") if argument and not argument.lstrip().startswith("Tensor")
        ]
        if odd:
            raise ValueError(f"{self.name}: expected tensors and lists of them before the *, got{','.join(odd)}")
        _library.define(schema)
        self._overload: Any = getattr(torch.ops.srcell, self.name).default
        self._gradient: Callable[..., Gradients] | None = None
        self._save: Callable[..., None] | None = None
        self._gradient_options: Callable[..., dict[str, bool]] | None = None
        _library.impl(self.name, self._below_autograd, "Autograd")
        if hasattr(torch.library, "register_vmap"):  # from torch 2.5 on
            torch.library.register_vmap(f"srcell::{self.name}", self._one_by_one, lib=_library)

    def kernel(self, *keys: str) -> Callable[[Function], Function]:
        """Decorator: register the kernel of these dispatch keys."""

        def register(function: Function) -> Function:
            for key in keys:
                _library.impl(self.name, function, key)
            return function

        return register

    def fake(self, function: Function) -> Function:
        """Decorator: register the fake kernel, which returns outputs of the right shapes and dtypes."""
        torch.library.register_fake(f"srcell::{self.name}", function, lib=_library)
        return function

    def gradient(
        self, save: Callable[..., None], options: Callable[..., dict[str, bool]] | None = None
    ) -> Callable[[Function], Function]:
        """Decorator: register the function that returns the gradients of the positional arguments.

        A gradient is None, a tensor, or for a list of tensors a list. Differentiating an operator without one raises.

        Args:
            options: maps the positional arguments to keyword-only ones that replace a call's own if a gradient may be
                needed; only torch's autograd key knows whether it may.
            save: called after the forward kernel with the context, the outputs, and the positional arguments. The
                context has the keyword-only ones as ``options``; ``needs`` says which positional ones need a gradient.

        """

        def register(function: Function) -> Function:
            self._save, self._gradient, self._gradient_options = save, function, options
            return function

        return register

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the operator through torch's dispatcher."""
        return self._overload(*arguments, **options)

    def _below_autograd(self, *arguments: Any, **options: Any) -> Any:
        """The kernel of torch's autograd key: differentiable only where a gradient may be needed."""
        flat: list[Tensor | None] = []
        for argument in arguments:
            if isinstance(argument, (list, tuple)):
                flat += argument
            else:
                flat.append(argument)
        if forward_ad._current_level >= 0 and any(
            x is not None and forward_ad.unpack_dual(x).tangent is not None for x in flat
        ):
            raise RuntimeError(f"srcell::{self.name}: forward-mode differentiation (jvp) is not supported")
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in flat):
            sizes = [len(x) if isinstance(x, (list, tuple)) else None for x in arguments]
            if self._gradient_options is not None:
                options |= self._gradient_options(*arguments)
            if not torch._C._are_functorch_transforms_active():
                return _Call.apply(self, sizes, options, *flat)  # type: ignore[no-untyped-call]
            # This kernel of the autograd key runs at the level of torch.func's innermost transform, and what it calls
            # below goes to the next: torch.autograd.Function is for calls from above all levels.
            with enable_single_level_autograd_function():
                return _CallAtLevel.apply(self, sizes, options, *flat)  # type: ignore[attr-defined]
        with torch._C._AutoDispatchBelowAutograd():
            return self._overload(*arguments, **options)

    def _one_by_one(self, info: Any, in_dims: Sequence[Any], *arguments: Any, **options: Any) -> tuple[Any, Any]:
        """The call under vmap: one call for each slice, and their outputs stacked."""

        def slice_of(argument: Any, dim: Any, k: int) -> Any:
            if isinstance(argument, (list, tuple)):
                return [slice_of(x, d, k) for x, d in zip(argument, dim, strict=True)]
            return argument if dim is None or argument is None else argument.select(dim, k)

        if info.batch_size == 0:
            raise RuntimeError(f"srcell::{self.name}: vmap over no elements is not supported")
        made = [
            self(*(slice_of(x, dim, k) for x, dim in zip(arguments, in_dims, strict=True)), **options)
            for k in range(info.batch_size)
        ]
        if isinstance(made[0], Tensor):
            return torch.stack(made), 0
        outputs = tuple(torch.stack(parts) for parts in zip(*made, strict=True))
        return outputs, (0,) * len(outputs)


class _Call(torch.autograd.Function):
    """A differentiable call of an operator. Lists of tensors come flat: torch's autograd does not look into lists."""

    @staticmethod
    def forward(
        ctx: Any, operator: Operator, sizes: Sequence[int | None], options: dict[str, Any], *flat: Tensor | None
    ) -> Any:
        arguments = nested(flat, sizes)
        with torch._C._AutoDispatchBelowAutograd():
            outputs = operator._overload(*arguments, **options)
        ctx.set_materialize_grads(False)
        ctx.operator, ctx.sizes, ctx.options = operator, sizes, options
        ctx.needs = nested(ctx.needs_input_grad[3:], sizes)
        if operator._save is not None:
            operator._save(ctx, outputs, *arguments)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        operator: Operator = ctx.operator
        if operator._gradient is None:
            what = "double backward" if operator.name.endswith("_backward") else "a gradient"
            raise RuntimeError(f"srcell::{operator.name}: {what} is not supported")
        flat: list[Tensor | None] = []
        gradients = operator._gradient(ctx, *grads)
        if len(gradients) != len(ctx.sizes):
            raise ValueError(f"srcell::{operator.name}: expected {len(ctx.sizes)} gradients, got {len(gradients)}")
        for grad, size in zip(gradients, ctx.sizes, strict=True):
            if size is None:
                flat.append(grad if isinstance(grad, Tensor) else None)
            else:
                flat += [None] * size if grad is None else grad
        needed = ctx.needs_input_grad[3:]
        return None, None, None, *(grad if need else None for grad, need in zip(flat, needed, strict=True))


class _CallAtLevel(_SingleLevelFunction):
    """A ``_Call`` at one level of torch.func's transforms."""

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Any:
        # Gradients are off in here, and the levels below would take that over.
        with torch.enable_grad():
            return _Call.forward(ctx, *arguments)

    backward = _Call.backward


def nested(flat: Sequence[Any], sizes: Sequence[int | None]) -> list[Any]:
    """Undo the flattening: for each size a list of so many items, for each None a single item."""
    items = iter(flat)
    return [next(items) if size is None else [next(items) for _ in range(size)] for size in sizes]
