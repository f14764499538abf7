"""The private names of torch in ``srcell/_shared/torch_private.py`` behave as srcell expects, in this version of torch.

A failing test tells which name is missing or behaves differently.
"""

import ast
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad

import srcell
from srcell._shared import torch_private
from srcell.ops._cpu import core
from srcell.ops._operator import DIRECT
from srcell.ops.delay import delay_dense
from support.modes import FunctionsSeen, OperatorsSeen


class Subclass(torch.Tensor):
    pass


@pytest.fixture
def current() -> torch.Tensor:
    return torch.zeros(3, 1, 2)


def test_operators_called_below_autograd_record_nothing() -> None:
    x = torch.ones(1, requires_grad=True)
    with torch_private.below_autograd():
        y = x * 2
    assert not y.requires_grad


def test_a_schema_has_names_types_and_returns() -> None:
    schema = torch_private.schema_of(torch.ops.srcell.src.default)
    assert [x.name for x in schema.arguments][:2] == ["current", "bias"]
    assert [str(x.type) for x in schema.arguments if not x.kwarg_only][2] == "List[Tensor]"
    assert len(schema.returns) == 8


def test_transforms_are_seen() -> None:
    seen = []
    torch.func.vmap(lambda x: seen.append(torch_private.transforms_are_active()) or x)(torch.ones(2))
    assert (seen, torch_private.transforms_are_active()) == ([True], False)


def test_func_grad_differentiates_a_function_at_one_level() -> None:
    gradient = torch.func.grad(lambda current: srcell.src(current, -6.0)[1].i.sum())(torch.zeros(2, 1, 1))
    assert torch.allclose(gradient.flatten(), torch.tensor([0.9, 1.0]))


def test_forward_mode_and_tangents_are_seen() -> None:
    x = torch.ones(1)
    assert not torch_private.in_forward_mode()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x)
        assert torch_private.in_forward_mode()
        assert (torch_private.has_tangent([None, x]), torch_private.has_tangent([None, dual])) == (False, True)


def test_fake_tensors_are_seen() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert torch_private.is_fake(torch.ones(1))
    assert not torch_private.is_fake(torch.ones(1))


def direct(current: torch.Tensor) -> torch.Tensor | None:
    """A delay by one step, past torch's dispatcher; None if that must see the call."""
    call = delay_dense.record(current, torch.ones(2, dtype=torch.int32), None, None, taps=1, skip=0, keep_zeros=False)
    made: torch.Tensor | None = core.delay_dense(call, DIRECT, 1)
    return made


def test_an_unwatched_call_gives_the_result_of_the_dispatcher(current: torch.Tensor) -> None:
    with ThreadPoolExecutor(1) as fresh:  # torch.export of 2.4 leaves a key behind in its thread
        made = fresh.submit(direct, torch.nn.Parameter(current, requires_grad=False)).result()
    assert made is not None and made.shape == current.shape
    alone = srcell.src(current, -6.0)[1].h
    with OperatorsSeen() as mode:
        watched = srcell.src(current, -6.0)[1].h
    assert "srcell.src.default" in mode.seen
    assert torch.equal(alone, watched)


def profiled(call: Callable[[], Any]) -> list[str]:
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return [event.key for event in profile.key_averages()]


def moded(call: Callable[[], Any]) -> list[str]:
    with FunctionsSeen() as mode:
        call()
    return [name.replace("srcell.src.default", "srcell::src") for name in mode.seen]


@pytest.mark.parametrize("watch", [profiled, moded], ids=lambda watch: watch.__name__)
def test_profiler_and_function_mode_see_the_operator(watch: Callable[..., list[str]], current: torch.Tensor) -> None:
    assert "srcell::src" in watch(lambda: srcell.src(current, -6.0)[0])


def test_subclasses_go_through_the_dispatcher(current: torch.Tensor) -> None:
    assert direct(current.as_subclass(Subclass)) is None


def private_names_of_torch(tree: ast.AST) -> Iterator[str]:
    """The names of torch in a file that have a private part (one leading underscore)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        else:
            continue
        for name in names:
            first, *parts = name.split(".")
            if first == "torch" and any(part.startswith("_") and not part.startswith("__") for part in parts):
                yield name


def test_no_other_file_uses_private_names_of_torch() -> None:
    package = Path(srcell.__file__).parent
    found = {
        str(file.relative_to(package)): names
        for file in package.rglob("*.py")
        if (names := list(private_names_of_torch(ast.parse(file.read_text()))))
    }
    assert set(found) == {"_shared/torch_private.py"}, found
