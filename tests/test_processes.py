"""The processes of torchrun: which device each takes, and the examples of examples/python that use several."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.functional import cross_entropy

from srcell import data
from srcell._shared.processes import own_device, processes
from srcell.models import SRCClassifier
from srcell.training import RunOptions, resume
from support.processes import run_python

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "python"


def from_torchrun(rank: int, size: int) -> dict[str, str]:
    """The environment that torchrun gives a process; there may be other machines."""
    return {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size), "WORLD_SIZE": "16"}


@pytest.mark.parametrize(
    ("gpus", "device", "environment", "expected"),
    [
        *[(4, "cuda", from_torchrun(rank, 4), f"cuda:{rank}") for rank in range(4)],
        (4, "cpu", from_torchrun(3, 4), "cpu"),
        (4, "cuda", {"LOCAL_RANK": "3"}, "cuda"),  # torchrun did not start this one
        # A process that sees only its own GPU, as with torchrun --virtual-local-rank
        *[(1, device, from_torchrun(0, size), "cuda:0") for device in ("cuda", "cuda:0") for size in (1, 4)],
        # A GPU by its number
        (4, "cuda:3", {}, "cuda:3"),
        (4, "cuda:3", from_torchrun(0, 1), "cuda:3"),
        (4, "cuda:3", from_torchrun(3, 4), "cuda:3"),  # a caller may have looked it up
    ],
)
def test_under_torchrun_cuda_is_the_gpu_of_the_local_rank(
    gpus: int, device: str, environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert own_device(device, environment) == expected


no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
MISSING = ("cuda", "cuda:1", "cuda:", "x", "", None, torch.device("cuda"))


@pytest.mark.parametrize(
    ("gpus", "device", "rank", "message"),
    [
        (2, "cuda:1", 0, r"expected cuda, .* 3 processes .* LOCAL_RANK \(here 0\), got 'cuda:1': CUDA_VISIBLE_DEVICES"),
        (2, "cuda", 2, "expected a GPU for each of 3 processes .*, got 2 and LOCAL_RANK 2: .* set LOCAL_RANK=0"),
        *[
            pytest.param(0, x, 1, f"expected one that is here .*, got {re.escape(repr(x))}", marks=no_gpu)
            for x in MISSING
        ],
    ],
)
def test_a_device_that_is_missing_or_would_be_shared_is_refused(
    gpus: int, device: Any, rank: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name, value in from_torchrun(rank, 3).items():
        monkeypatch.setenv(name, value)
    with pytest.raises((ValueError, TypeError), match=f"^device: {message}"):
        RunOptions(device=device)


def test_a_process_takes_its_gpu_before_the_group_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[Any, ...]] = []
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(("set", device)))
    for name in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(distributed, name, lambda *arguments, name=name: done.append((name, *arguments)))
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    for device in ("cuda:1", "cpu"):
        with processes(device) as group:
            assert (group.rank, group.size) == (1, 2)
    assert done == [
        ("set", "cuda:1"),
        ("init_process_group", "cpu:gloo,cuda:nccl"),
        ("destroy_process_group",),
        ("init_process_group", "gloo"),
        ("destroy_process_group",),
    ]


# The command line in a process that records each move to a GPU instead of performing it.
NO_GPU = """
import json, os, sys
import torch
from torch import Tensor, distributed
import srcell
from srcell import cli
from srcell.training import options

out, *arguments = sys.argv[1:]
places = []
tensor_to, start, fork = Tensor.to, distributed.init_process_group, torch.random.fork_rng

def here(device):
    if torch.device(device).type != "cuda":
        return device
    places.append(str(device))
    return "cpu"

def moved(tensor, *arguments, **keywords):
    is_place = arguments and isinstance(arguments[0], (torch.device, str))
    return tensor_to(tensor, *([here(arguments[0]), *arguments[1:]] if is_place else arguments), **keywords)

def forked(devices):
    places.extend(f"random {device}" for device in devices)
    return fork([])

Tensor.to = moved
srcell.EventBatch.to = lambda events, device: (here(device), events)[1]
torch.random.fork_rng = forked
torch.cuda.device_count = lambda: 2
torch.cuda.set_device = lambda device: places.append(f"set {device}")
distributed.init_process_group = lambda backend: (places.append(backend), start("gloo"))
options.present_device = torch.device
status = cli.main(arguments)
with open(f"{out}.{os.environ['RANK']}", "w") as file:
    json.dump(places, file)
sys.exit(status)
"""


@pytest.mark.release
def test_a_run_uses_only_the_gpu_of_its_process_and_records_no_device(tmp_path: Path) -> None:
    script, out = tmp_path / "no_gpu.py", tmp_path / "run"
    script.write_text(NO_GPU)
    settings = ["--hidden", "8", "--epochs", "1", "--steps", "5", "--dropout", "0.2"]
    command = ["train", "digits", "--device", "cuda", "--out", str(out), *settings]
    done = run_python(str(script), str(tmp_path / "places"), *command)
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        first, second, *others = json.loads((tmp_path / f"places.{rank}").read_text())
        assert (first, second) == (f"set cuda:{rank}", "cpu:gloo,cuda:nccl")
        assert set(others) == {f"cuda:{rank}", f"random cuda:{rank}"}
    assert not re.search("cuda:|device", (out / "config.json").read_text())
    assert f"test accuracy {resume(out).evaluation.accuracy:.2%} " in done.stdout


EXAMPLE = """
import os, runpy, sys
import torch

names = runpy.run_path(sys.argv[1], run_name="__main__")
torch.save(names["model"].state_dict(), f"{sys.argv[2]}.{os.environ['RANK']}")
"""


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """The weights that the examples train, from one process that adds the gradients of both halves of each batch.

    Adding two numbers, and halving or doubling them, is exact or rounds once: so two processes get the same weights.
    """
    digits, encoding = data.load("digits"), data.RateEncoding(steps=30, gain=0.5)
    share: dict[str, Any] = {"batch_size": 64, "shuffle": True, "world_size": 2}
    loaders = [data.EventLoader(digits.train, encoding, rank=rank, **share) for rank in range(2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SRCClassifier(64, [32], num_classes=10)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-2)
    for epoch in range(5):
        for loader in loaders:
            loader.set_epoch(epoch)
        for index, shares in enumerate(zip(*loaders, strict=True)):
            optimizer.zero_grad()
            for events, labels in shares:
                loss = cross_entropy(model(events), labels, reduction="sum") / loaders[0].samples_in(index)
                loss.backward()
            optimizer.step()
    torch.set_num_threads(threads)
    return model.state_dict()


@pytest.mark.release
@pytest.mark.parametrize("example", ["own_loop.py", "with_accelerate.py", "with_lightning.py"])
def test_an_example_trains_in_two_processes(example: str, alone: dict[str, Tensor], tmp_path: Path) -> None:
    package = example.removesuffix(".py").removeprefix("with_")
    if package != "own_loop" and importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed: pip install "srcell[test]"')
    script = tmp_path / "script.py"
    script.write_text(EXAMPLE)
    done = run_python(str(script), str(EXAMPLES / example), str(tmp_path / "weights"))
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"^epoch \d  loss (.*)$", done.stdout, re.MULTILINE)]
    (accuracy,) = re.findall(r"^test accuracy (.*)%$", done.stdout, re.MULTILINE)
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == 5 and float(accuracy) > 80
    for rank in range(2):
        weights = torch.load(f"{tmp_path / 'weights'}.{rank}", weights_only=True)
        assert weights.keys() == alone.keys()
        for name, weight in weights.items():
            assert torch.equal(weight, alone[name]), (rank, name)


@pytest.mark.landing
def test_the_last_line_of_torchrun_is_the_error(tmp_path: Path) -> None:
    """Regression: it stood above torch's fourteen lines, and the second process had another one."""
    (tmp_path / "notes").write_text("")
    failed = run_python("-m", "srcell", "train", "digits", "--out", str(tmp_path))
    assert failed.returncode != 0
    *_, last, rule = failed.stderr.splitlines()
    assert set(rule) == {"="} and last.endswith(
        f"srcell: {tmp_path} exists and is not an empty folder: choose another run folder, or resume the run in it"
    )
    assert "cannot write there" not in failed.stderr
