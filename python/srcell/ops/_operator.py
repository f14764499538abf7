"""Declares operators of ``torch.ops.srcell``: a schema, kernels, a fake kernel and a gradient.

Every operator's file uses this; it knows torch's dispatcher and nothing of neurons.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._shared import torch_private
from ._cpu import core

_library = torch.library.Library("srcell", "DEF")

record_type: Any = namedtuple  # type checkers would want to know the fields
Function = TypeVar("Function", bound=Callable[..., Any])
Argument = Tensor | Sequence[Tensor] | None
Gradients = dict[str, Argument]

DIRECT = core.Way(True, False, False)
NO_TORCHSCRIPT = (
    "is not supported: use torch.export.export, or srcell.export or srcell.onnx.export for a program that runs without "
    "torch"
)


class Operator:
    """An operator, declared by its schema.

    Its functions (kernels, fake kernel, gradient) get a call as one record with the schema's names: ``call.weight``,
    ``call.steps``. A kernel or fake kernel may return None for one of several outputs if the call does not want it;
    torch's dispatcher gets a tensor without elements in its place.

    To call an operator, pass the fields of its record: the tensors, the shared record if there is one, and the other
    options by keyword. ``torch.ops.srcell`` takes the schema's arguments instead.

    ``record`` is the type of the record, ``needs`` that of which of its tensors need a gradient.

    Args:
        schema: a schema of torch.library: tensors and lists of tensors first, all other arguments keyword-only.
        shared: a name and a named tuple type, for arguments that several operators share. The record then has one field
            of this name instead of the schema's last tensors (the tuple's first fields) and of the options with the
            names of the tuple's other fields.
        lists: by name of a list in the record, the names of the consecutive optional tensors in the schema that form
            it. Backward operators need it: torch batches calls (``is_grads_batched``) only of operators without lists.
        entry: a function that takes a call on a CPU past torch's dispatcher; its arguments are the record, a ``Way``
            and the number of threads. It returns False if a gradient is needed, None for all that it does not take.
        differentiable: whether torch's autograd sees a call; to it the outputs are otherwise constants.

    """

    def __init__(
        self,
        schema: str,
        shared: tuple[str, Any] | None = None,
        lists: Mapping[str, Sequence[str]] | None = None,
        *,
        entry: Callable[..., Any] | None = None,
        differentiable: bool = True,
    ) -> None:
        self.name, self.entry = schema.partition("(")[0], entry
        _library.define(schema)
        self._overload: Any = getattr(torch.ops.srcell, self.name).default
        declared = torch_private.schema_of(self._overload).arguments
        tensors = [x for x in declared if not x.kwarg_only]
        odd = [f"{x.type} {x.name}" for x in tensors if "Tensor" not in str(x.type)]
        if odd:
            raise ValueError(f"{self.name}: expected tensors and lists of them before the *, got {', '.join(odd)}")
        names, options = [x.name for x in tensors], [x.name for x in declared if x.kwarg_only]
        self.needs = record_type(f"Needs_{self.name}", names)
        lists = lists or {}
        self._lists = [slice(names.index(items[0]), names.index(items[0]) + len(items)) for items in lists.values()]
        for name, items in reversed(list(zip(lists, self._lists, strict=True))):
            names[items] = [name]
        self._shared: Any = None
        self._shared_options: tuple[str, ...] = ()
        self._alone = len(names)
        if shared is not None:
            name, self._shared = shared
            self._shared_options = tuple(x for x in self._shared._fields if x in options)
            self._alone -= len(self._shared._fields) - len(self._shared_options)
            expected = (*names[self._alone :], *self._shared_options)
            if expected != self._shared._fields:
                raise ValueError(f"{self.name}: expected the fields {expected}, got {self._shared._fields}")
            names = [*names[: self._alone], name]
        self._options = [x for x in options if x not in self._shared_options]
        defaults = [x.default_value for x in declared if x.name in self._options and x.has_default_value()]
        self.record = record_type(f"Call_{self.name}", [*names, *self._options], defaults=defaults)
        self._gradient: Callable[..., dict[str, Argument]] | None = None
        self._keep: Callable[[Any], dict[str, Argument]] | None = None
        self._gradient_options: Callable[[Any, Any], dict[str, Any]] | None = None
        self._differentiable = len(torch_private.schema_of(self._overload).returns)
        kernel = self._autograd_kernel if differentiable else torch.library.fallthrough_kernel
        _library.impl(self.name, kernel, "Autograd")
        if hasattr(torch.library, "register_vmap"):  # from torch 2.5 on
            torch.library.register_vmap(f"srcell::{self.name}", self._one_by_one, lib=_library)

    def kernel(self, *keys: str) -> Callable[[Function], Function]:
        """Decorator: register a function of the call as the kernel for these dispatch keys."""

        def register(function: Function) -> Function:
            for key in keys:
                _library.impl(self.name, self._of_call(function), key)
            return function

        return register

    def fake(self, function: Function) -> Function:
        """Decorator: register the fake kernel, which returns outputs of the right shapes and dtypes."""
        torch.library.register_fake(f"srcell::{self.name}", self._of_call(function), lib=_library)
        return function

    def _of_call(self, function: Callable[[Any], Any]) -> Callable[..., Any]:
        return lambda *arguments, **options: filled(function(self.call(*arguments, **options)), arguments)

    def call(self, *arguments: Any, **options: Any) -> Any:
        """The record of a call with the schema's arguments."""
        tensors = list(arguments)
        for items in reversed(self._lists):
            given = list(arguments[items])
            while given and given[-1] is None:
                given.pop()
            tensors[items] = [given]
        if self._shared is not None:
            shared = {name: options.pop(name) for name in self._shared_options if name in options}
            tensors[self._alone :] = [self._shared(*tensors[self._alone :], **shared)]
        return self.record(*tensors, **options)

    def arguments(self, call: Sequence[Any]) -> list[Any]:
        """The schema's tensors and lists of tensors, from a call's record or from its fields before the options."""
        tensors = list(call[: self._alone])
        if self._shared is not None:
            shared = call[self._alone]
            tensors += shared[: len(shared) - len(self._shared_options)]
        for items in self._lists:
            given, count = tensors[items.start], items.stop - items.start
            tensors[items.start : items.start + 1] = [*given, *[None] * (count - len(given))]
        return tensors

    def _with_shared(self, call: Sequence[Any], options: dict[str, Any]) -> dict[str, Any]:
        """These options, and those in the shared record."""
        if self._shared is None:
            return options
        shared = call[self._alone]
        return {**options, **dict(zip(self._shared_options, shared[-len(self._shared_options) :], strict=True))}

    def _options_of(self, call: Any) -> dict[str, Any]:
        """All options of a call's record, by name."""
        return self._with_shared(call, {name: getattr(call, name) for name in self._options})

    def gradient(
        self,
        keep: Callable[[Any], dict[str, Argument]],
        options: Callable[[Any, Any], dict[str, Any]] | None = None,
        outputs: int = 1,
    ) -> Callable[[Function], Function]:
        """Decorator: register the function that returns gradients by name: a tensor each, a list for a list.

        Its arguments are the call, with the tensors that ``keep`` kept; the outputs after the differentiable ones; the
        gradients of the differentiable ones, not all None; and, by name, which arguments need a gradient.
        Differentiating an operator without such a function raises.

        Args:
            keep: a function of the call that returns, by name, what to keep for the gradient in place of a tensor:
                None, an empty list, or less. Tensors that it does not name are kept unchanged.
            options: a function of the call and of which arguments need a gradient. It returns the keyword-only
                arguments that replace the call's own if one is needed, which only torch's autograd key knows.
            outputs: the number of differentiable outputs, which come first; those after them are kept for the gradient.

        """

        def register(function: Function) -> Function:
            self._keep, self._gradient, self._gradient_options = keep, function, options
            self._differentiable = outputs
            return function

        return register

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the operator, through torch's dispatcher unless ``entry`` takes the call."""
        if not torch.compiler.is_compiling():
            if self.entry is not None:
                call = self.record(*arguments, **options)
                made = self.entry(call, DIRECT, torch.get_num_threads())
                if made is False:
                    tensors = self.arguments(arguments)
                    return _Call.apply(self, call, tensors, *flattened(tensors))  # type: ignore[no-untyped-call]
                if made is not None:
                    return made
            if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
                raise RuntimeError(f"srcell::{self.name}: torch.jit.trace {NO_TORCHSCRIPT}")
        return self._overload(*self.arguments(arguments), **self._with_shared(arguments, options))

    def with_arguments_of(self, call: Any, **others: Any) -> Any:
        """Call the operator with the arguments of another's record that have the same names, and with further ones."""
        given = {**call._asdict(), **others}
        tensors = self.record._fields[: len(self.record._fields) - len(self._options)]
        return self(*[given[name] for name in tensors], **{name: given[name] for name in self._options})

    def _autograd_kernel(self, *arguments: Any, **options: Any) -> Any:
        """Kernel of torch's autograd key: make the call differentiable only if a gradient may be needed."""
        flat = flattened(arguments)
        if torch_private.has_tangent(flat):
            raise RuntimeError(f"srcell::{self.name}: forward-mode differentiation (jvp) is not supported")
        if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in flat):
            call = self.call(*arguments, **options)
            if not torch_private.transforms_are_active():
                return _Call.apply(self, call, arguments, *flat)  # type: ignore[no-untyped-call]
            # This kernel runs at the level of torch.func's innermost transform; the operators that it calls run at the
            # next level.
            with torch_private.at_one_level():
                return _CallAtLevel.apply(self, call, arguments, *flat)
        return self._without_autograd(*arguments, **options)

    def _without_autograd(self, *arguments: Any, **options: Any) -> Any:
        """Call the operator without its autograd kernel."""
        with torch_private.below_autograd():
            return self._overload(*arguments, **options)

    def _one_by_one(self, info: Any, in_dims: Sequence[Any], *arguments: Any, **options: Any) -> tuple[Any, Any]:
        """Run a call under vmap: call the operator once for each slice and stack the outputs."""

        def slice_of(argument: Any, dim: Any, k: int) -> Any:
            if isinstance(argument, (list, tuple)):
                return [slice_of(x, d, k) for x, d in zip(argument, dim, strict=True)]
            return argument if dim is None or argument is None else argument.select(dim, k)

        if info.batch_size == 0:
            raise RuntimeError(f"srcell::{self.name}: vmap over no elements is not supported")
        made = [
            self._overload(*(slice_of(x, dim, k) for x, dim in zip(arguments, in_dims, strict=True)), **options)
            for k in range(info.batch_size)
        ]
        if isinstance(made[0], Tensor):
            return torch.stack(made), 0
        outputs = tuple(torch.stack(parts) for parts in zip(*made, strict=True))
        return outputs, (0,) * len(outputs)


_NOT_FLAT = 3  # arguments of a _Call before its tensors


class _Call(torch.autograd.Function):
    """A differentiable call.

    It gets the tensors twice: in ``tensors`` with their lists, and flat, because torch's autograd does not look into
    lists.
    """

    @staticmethod
    def forward(ctx: Any, operator: Operator, call: Any, tensors: Sequence[Any], *flat: Tensor | None) -> Any:
        sizes = list_sizes(tensors)
        options = operator._options_of(call)
        needs = operator.needs(*nested(ctx.needs_input_grad[_NOT_FLAT:], sizes))
        if operator._gradient_options is not None:
            instead = operator._gradient_options(call, needs)
            options, call = {**options, **instead}, call._replace(**instead)
        outputs = None if operator.entry is None else operator.entry(call, DIRECT, torch.get_num_threads())
        if outputs is None or outputs is False:
            outputs = operator._without_autograd(*tensors, **options)
        ctx.set_materialize_grads(False)
        ctx.operator, ctx.sizes, ctx.options, ctx.needs = operator, sizes, options, needs
        if operator._keep is not None:
            behind = () if isinstance(outputs, Tensor) else outputs[operator._differentiable :]
            ctx.mark_non_differentiable(*behind)
            instead = operator._keep(call)
            kept = [instead.get(name, x) for name, x in zip(needs._fields, tensors, strict=True)]
            ctx.kept_sizes = list_sizes(kept)
            ctx.save_for_backward(*flattened(kept), *behind)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        operator: Operator = ctx.operator
        if operator._gradient is None:
            what = "double backward" if operator.name.endswith("_backward") else "a gradient"
            raise RuntimeError(f"srcell::{operator.name}: {what} is not supported")
        if all(grad is None for grad in grads):
            return (None,) * len(ctx.needs_input_grad)
        saved, made = ctx.saved_tensors, len(grads) - operator._differentiable
        kept, outputs = saved[: len(saved) - made], saved[len(saved) - made :]
        call = operator.call(*nested(kept, ctx.kept_sizes), **ctx.options)
        gradients = operator._gradient(call, outputs, grads[: operator._differentiable], ctx.needs)
        flat: list[Tensor | None] = []
        for name, size in zip(ctx.needs._fields, ctx.sizes, strict=True):
            grad = gradients.get(name)
            if size is None:
                flat.append(grad if isinstance(grad, Tensor) else None)
            else:
                flat += [None] * size if grad is None else grad
        needed = ctx.needs_input_grad[_NOT_FLAT:]
        return *(None,) * _NOT_FLAT, *(grad if need else None for grad, need in zip(flat, needed, strict=True))


class _CallAtLevel(torch_private.SingleLevelFunction):  # type: ignore[misc]
    """A ``_Call`` at one level of torch.func's transforms."""

    @staticmethod
    def forward(ctx: Any, operator: Operator, call: Any, tensors: Sequence[Any], *flat: Tensor | None) -> Any:
        tensors = nested(flat, list_sizes(tensors))  # those of this level
        call = operator.call(*tensors, **operator._options_of(call))
        # Gradients are off in here; without this, they would be off at the levels below as well.
        with torch.enable_grad():
            return _Call.forward(ctx, operator, call, tensors, *flat)

    backward = _Call.backward


def filled(outputs: Any, arguments: Sequence[Any]) -> Any:
    """The outputs, with an empty tensor for each None, like another output or else like an argument."""
    if isinstance(outputs, Tensor) or all(x is not None for x in outputs):
        return outputs
    like: Tensor = next(x for x in (*outputs, *arguments) if isinstance(x, Tensor))
    return tuple(like.new_empty(0) if x is None else x for x in outputs)


def flattened(arguments: Sequence[Any]) -> list[Any]:
    """The arguments with each list replaced by its items: torch's autograd does not look into lists."""
    flat: list[Any] = []
    for argument in arguments:
        if isinstance(argument, (list, tuple)):
            flat += argument
        else:
            flat.append(argument)
    return flat


def list_sizes(arguments: Sequence[Any]) -> list[int | None]:
    """The length of each argument that is a list, None for each other argument."""
    return [len(x) if isinstance(x, (list, tuple)) else None for x in arguments]


def nested(flat: Sequence[Any], sizes: Sequence[int | None]) -> list[Any]:
    """Undo ``flattened``: a list of that many items for each size, a single item for each None."""
    items = iter(flat)
    return [next(items) if size is None else [next(items) for _ in range(size)] for size in sizes]
