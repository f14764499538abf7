"""Fixtures that several test files share. Other shared code is in the package ``support``."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from support.gpu import GPUS, Card, Gpu, Host, needs_gpu
from support.processes import ISAS, IsaProcess

if TYPE_CHECKING:
    from srcell.training import TrainedRun


@pytest.fixture(scope="session")
def isa_processes() -> Iterator[dict[str, IsaProcess]]:
    """A process for each instruction set of this machine; each process is checked to use it."""
    processes = {isa: IsaProcess(isa) for isa in ISAS}
    assert {isa: process.call("support.processes.active_isa") for isa, process in processes.items()} == {
        isa: isa for isa in ISAS
    }
    yield processes
    for process in processes.values():
        process.close()


@pytest.fixture(autouse=True)
def settings_of_the_thread() -> Iterator[None]:
    """Let each test begin with denormals, which a thread flushes once it loads what torch 2.4 compiles, and let it end
    with the number of threads with which it began.
    """
    torch.set_flush_denormal(False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", autouse=True)
def figures_of_runs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave the figures of runs blank, except in a module that sets DRAWS: they take three quarters of a small run."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("matplotlib") and not getattr(request.module, "DRAWS", False):
            patch.setattr("srcell.training.plots.png", lambda figure: b"")
        yield


@pytest.fixture(scope="session")
def inductor() -> str:
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(3))
    except Exception as error:
        pytest.skip(f"torch's inductor cannot compile x.sin() + 1 here: {error}")
    return "inductor"


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "made" / "with-parents"


@pytest.fixture(scope="module")
def run(out: Path) -> TrainedRun:
    """A small run, with its files in ``out``. Training is imported here: test_cuda.py runs without its dependencies."""
    from srcell.training import train
    from support.runs import TINY

    return train(TINY, out)


@pytest.fixture(scope="module", params=GPUS or [pytest.param("none", marks=needs_gpu)])
def gpu(request: pytest.FixtureRequest) -> Gpu:
    return Card() if request.param == "cuda" else Host()
