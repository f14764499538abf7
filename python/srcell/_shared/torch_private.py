"""All private names of torch that srcell uses, each with its purpose; they exist in torch 2.4 to 2.15.

tests/test_private_names.py tells which of these names a version of torch lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction
from torch.fx import _pytree as _fx_pytree
from torch.utils import _pytree

# A torch.autograd.Function for calls within one level of torch.func's transforms, where an operator's kernel runs.
# torch.autograd.Function itself is for calls from above all levels.
SingleLevelFunction: Any = _SingleLevelFunction
at_one_level = enable_single_level_autograd_function

# Whether torch.func transforms (vmap, grad) are active.
transforms_are_active = torch._C._are_functorch_transforms_active


def register_pytree(
    cls: type, parts: Callable[[Any], tuple[Sequence[str], Any]], make: Callable[[Iterable[Any], Any], Any]
) -> None:
    """Register a class: torch's transforms then see its parts, and torch.export and torch.load know the class by name.

    Args:
        cls: the class.
        parts: maps an object to the names of the attributes that hold its parts, and to a context: lists, numbers and
            strings.
        make: builds the object from its parts and the context.

    """

    def flatten(whole: Any) -> tuple[list[Any], Any]:
        names, context = parts(whole)
        return [getattr(whole, name) for name in names], context

    def flatten_with_keys(whole: Any) -> tuple[list[tuple[Any, Any]], Any]:
        names, context = parts(whole)
        return [(_pytree.GetAttrKey(name), getattr(whole, name)) for name in names], context

    _pytree.register_pytree_node(
        cls, flatten, make, serialized_type_name=f"srcell.{cls.__name__}", flatten_with_keys_fn=flatten_with_keys
    )
    # torch.export of torch 2.4 needs this registration as well.
    _fx_pytree.register_pytree_flatten_spec(cls, lambda whole, spec: flatten(whole)[0])
    torch.serialization.add_safe_globals([cls])


def with_graphs(limit: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: torch.compile makes up to so many graphs of a function before it runs it eagerly."""
    from torch._dynamo import config  # slow to import

    decorator: Callable[[Callable[..., Any]], Callable[..., Any]] = config.patch(cache_size_limit=limit)
    return decorator


# A context in which operators skip autograd. In it, an operator's autograd kernel calls the operator's others.
below_autograd = torch._C._AutoDispatchBelowAutograd


def schema_of(overload: Any) -> Any:
    """The parsed schema of an operator."""
    return overload._schema


def has_tangent(tensors: Iterable[Tensor | None]) -> bool:
    """Whether one of the tensors has a tangent, that is, takes part in forward-mode differentiation."""
    return in_forward_mode() and any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def in_forward_mode() -> bool:
    """Whether forward-mode differentiation is active."""
    return forward_ad._current_level >= 0


def is_fake(x: Tensor) -> bool:
    """Whether x is a fake tensor. Does not import torch's module of fake tensors, because that takes half a second."""
    fake = sys.modules.get("torch._subclasses.fake_tensor")
    return fake is not None and isinstance(x, fake.FakeTensor)


# What csrc/bindings/tensors.cpp asks to learn whether torch's dispatcher would do nothing but call a kernel. Of the
# dispatch keys that a thread adds to those of a call, two are usual; any other belongs to a mode, a tracer or a
# transform, which must see each operator.
keys_of_thread = torch._C._dispatch_tls_local_include_set
_Key = torch._C.DispatchKey
USUAL_KEYS = torch._C.DispatchKeySet(_Key.BackendSelect).add(_Key.ADInplaceOrView)
NO_KEY = _Key.Undefined
function_modes = torch._C._len_torch_function_stack
is_profiled = torch._C._autograd._profiler_enabled
