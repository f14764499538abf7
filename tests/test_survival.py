"""Runs that are killed, stopped or shared between processes end with the weights of an undisturbed run."""

from __future__ import annotations

import os
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from srcell.training import TrainingConfig, evaluate_run, resume, train
from srcell.training.checkpoint import read_checkpoint
from srcell.training.run_folder import RunFolder

SETTINGS = ["--hidden", "24", "--epochs", "12", "--steps", "20", "--batch-size", "48"]
CONFIG = TrainingConfig(hidden_sizes=(24,), epochs=12, steps=20, batch_size=48)
PATIENCE = 120
# Two threads that share a core wait for each other by spinning; a run's bits do not depend on their number.
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("undisturbed")
    train(CONFIG, out)
    return (out / "model.safetensors").read_bytes()


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run ``srcell train`` with these arguments and a checkpoint after every step."""
    command = [sys.executable, "-m", "srcell", "train", *arguments, "--checkpoint-seconds", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=ONE_THREAD
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> bool:
    """Whether the condition became true while the process ran."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        if process.poll() is not None:
            return False
    return True


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.release)])
def test_a_run_that_is_killed_ends_with_the_same_weights(times: int, undisturbed: bytes, tmp_path: Path) -> None:
    out, choices = tmp_path / "run", random.Random(7)
    kills = {"mid-write": 0, "any time": 0}
    arguments = ["digits", *SETTINGS, "--out", str(out)]
    checkpoint = out / "checkpoint.safetensors"

    def written_since(before: int) -> bool:
        return checkpoint.exists() and checkpoint.stat().st_mtime_ns > before

    while sum(kills.values()) < times:
        kind = "any time" if sum(kills.values()) % 2 else "mid-write"
        workers = choices.choice(["0", "1"])
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        with running(*arguments, "--workers", workers) as process:
            assert wait_until(process, partial(written_since, before)), process.communicate()
            if kind == "mid-write":
                assert wait_until(process, lambda: any(out.glob("checkpoint*.partial")))
            else:
                time.sleep(choices.uniform(0, 0.1))
            process.kill()
            assert process.wait(PATIENCE) == -signal.SIGKILL
        kills[kind] += 1
        arguments = ["--resume", str(out)]
    assert len(read_checkpoint(out / "checkpoint.safetensors")[1]["history"]) < CONFIG.epochs
    with running(*arguments) as process:
        printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "test accuracy" in printed
    assert (out / "model.safetensors").read_bytes() == undisturbed
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.landing),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.release),
    ],
)
def test_a_signal_ends_a_run_after_a_checkpoint(
    number: signal.Signals, code: int, undisturbed: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with running("digits", *SETTINGS, "--out", str(out), "--workers", "1") as process:
        assert wait_until(process, (out / "checkpoint.safetensors").exists)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert errors == f"srcell: stopped by {number.name}, after a checkpoint: srcell train --resume {out}\n"
    with running("--resume", str(out)) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert (out / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.release
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_process_group_is_the_parents_alone(
    number: signal.Signals, code: int, undisturbed: bytes, tmp_path: Path
) -> None:
    """Regression: the signal killed the workers, and with them the run."""
    out = tmp_path / "my run"
    with running("digits", *SETTINGS, "--out", str(out), "--workers", "2") as process:
        assert wait_until(process, (out / "checkpoint.safetensors").exists)
        os.killpg(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    command = f"srcell train --resume '{out}'"
    assert errors == f"srcell: stopped by {number.name}, after a checkpoint: {command}\n"
    with running(*shlex.split(command)[2:]) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert (out / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.landing
def test_a_worker_that_is_killed_is_a_line(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ["--hidden", "--epochs", "1", "--steps", "5", "--batch-size", "2", "--validation", "0"]
    with running("digits", *settings, "--out", str(out), "--workers", "1") as process:
        assert wait_until(process, (out / "checkpoint.safetensors").exists)
        (worker,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("srcell: a DataLoader worker died (") and line.endswith("): try fewer workers")


@pytest.mark.release
def test_a_run_does_not_notice_readers_and_would_be_writers(undisturbed: bytes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running("digits", *SETTINGS, "--out", str(out)) as process:
        assert wait_until(process, (out / "checkpoint.safetensors").exists)
        for _ in range(20):
            folder = RunFolder.open(out)
            assert folder.read_checkpoint() is not None
            with pytest.raises(FileNotFoundError, match="the run has not ended"):
                evaluate_run(folder)
            with pytest.raises(BlockingIOError, match=f"^{re.escape(str(out))}: another process is training there"):
                resume(out)
            with pytest.raises(FileExistsError, match="not an empty folder"):
                train(CONFIG, out)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 143, errors
    resume(out)
    assert (out / "model.safetensors").read_bytes() == undisturbed


SHARED = """
import json, sys
import torch
from srcell import data
from srcell._processes import processes
from srcell.training import Trainer, TrainingConfig

out, dtype = sys.argv[1], getattr(torch, sys.argv[2])
torch.set_default_dtype(dtype)
config = TrainingConfig(
    hidden_sizes=json.loads(sys.argv[3]),
    epochs=1,
    steps=20,
    batch_size=15,
    prefix=10,
    dropout=0.3,
    rate_penalty=9.0,
)
with processes() as group:
    trainer = Trainer(config, data.load("digits"), group=group)
    samples = [labels.tolist() for _, labels in trainer.loader]
    steps = trainer.train_epoch()
    next(steps)
    first = {name: parameter.grad.clone() for name, parameter in trainer.model.named_parameters()}
    loss = trainer._total_tally().sums[1].item()
    for _ in range(9):
        next(steps)
    torch.save([samples, first, loss, trainer.model.state_dict()], f"{out}.{group.rank}")
    trainer.leave()
"""


def run_shared(script: Path, dtype: str, processes: int, hidden_sizes: str) -> list[list[object]]:
    out = script.with_suffix(f".{dtype}.{processes}.{len(hidden_sizes)}")
    launcher = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone"]
    launcher = launcher if processes > 1 else []
    command = [sys.executable, *launcher, str(script), str(out), dtype, hidden_sizes]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    return [torch.load(f"{out}.{rank}", weights_only=True) for rank in range(processes)]


@pytest.mark.release
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    for dtype in ("float32", "float64"):
        ((samples, gradients, loss, weights),) = run_shared(script, dtype, 1, "[]")
        first, second = run_shared(script, dtype, 2, "[]")
        for whole, ours, theirs in zip(samples, first[0], second[0], strict=True):
            assert (whole[::2], whole[1::2]) == (ours, theirs)
        # Sums over 15 samples and 30 steps in another order: each addition rounds once, relative to a partial sum that
        # the largest gradient bounds here.
        epsilon = torch.finfo(getattr(torch, dtype)).eps
        assert abs(first[2] - loss) <= 45 * epsilon * loss
        for name, gradient in gradients.items():
            for other in (first[1][name], second[1][name]):
                assert (other - gradient).abs().max() <= 45 * epsilon * gradient.abs().max()
        if dtype == "float64":
            for name, weight in weights.items():
                assert (first[3][name] - weight).abs().max() <= 1e-9
                assert torch.equal(first[3][name], second[3][name])


@pytest.mark.release
def test_dropout_and_the_rate_penalty_are_the_same_in_two_processes(tmp_path: Path) -> None:
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    # One hidden layer, whose rate is penalised.
    ((_, gradients, _, _),) = run_shared(script, "float64", 1, "[16]")
    for _, shared, _, _ in run_shared(script, "float64", 2, "[16]"):
        for name, gradient in gradients.items():
            assert gradient.count_nonzero() > 0
            assert (shared[name] - gradient).abs().max() <= 1e-9 * gradient.abs().max()


@pytest.mark.release
def test_the_command_under_torchrun_writes_and_speaks_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "srcell"]
    arguments = ["train", "digits", "--hidden", "8", "--epochs", "2", "--steps", "5", "--out", str(out)]
    done = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    full = subprocess.run([*launcher, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert full.returncode != 0 and not full.stdout
    said = {line for line in full.stderr.splitlines() if line.startswith("srcell: ")}
    assert said == {
        f"srcell: {out} exists and is not an empty folder: choose another run folder, or resume the run in it",
        f"srcell: {out}: the first process cannot write there",
    }
    assert [line.split()[0] for line in done.stdout.splitlines()] == [
        *("data", "network", "machine", "folder"),
        *("epoch", "epoch", "test"),
    ]
    assert (out / "result.json").exists() and len((out / "metrics.csv").read_text().splitlines()) == 3
