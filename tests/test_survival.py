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
from support.processes import ONE_THREAD, PATIENCE, run_python

SETTINGS = ["--hidden", "24", "--epochs", "5", "--steps", "20", "--batch-size", "48"]
CONFIG = TrainingConfig(hidden_sizes=(24,), epochs=5, steps=20, batch_size=48)


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


# Not in `make test`: it takes 15 s, most of them in three processes that start.
@pytest.mark.parametrize(
    "times", [pytest.param(1, marks=pytest.mark.landing), pytest.param(10, marks=pytest.mark.release)]
)
def test_a_run_that_is_killed_ends_with_the_same_weights(times: int, undisturbed: bytes, tmp_path: Path) -> None:
    out, choices = tmp_path / "run", random.Random(7)
    arguments = ["digits", *SETTINGS, "--out", str(out)]
    checkpoint = out / "checkpoint.safetensors"

    def written_since(before: int) -> bool:
        return checkpoint.exists() and checkpoint.stat().st_mtime_ns > before

    for number in range(times):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        with running(*arguments, "--workers", choices.choice(["0", "1"])) as process:
            assert wait_until(process, partial(written_since, before)), process.communicate()
            if number % 2:
                time.sleep(choices.uniform(0, 0.1))
            else:  # in the middle of a write
                assert wait_until(process, lambda: any(out.glob("checkpoint*.partial")))
            process.kill()
            assert process.wait(PATIENCE) == -signal.SIGKILL
        arguments = ["--resume", str(out)]
    assert len(read_checkpoint(checkpoint)[1]["history"]) < CONFIG.epochs
    with running(*arguments) as process:
        printed, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert "test accuracy" in printed
    assert (out / "model.safetensors").read_bytes() == undisturbed
    assert not list(out.glob("*.partial"))


@pytest.mark.parametrize(
    ("number", "send"),
    [
        pytest.param(signal.SIGINT, os.kill, marks=pytest.mark.landing),
        # Regression: a signal to the process group killed the workers, and with them the run.
        pytest.param(signal.SIGINT, os.killpg, marks=pytest.mark.release),
        pytest.param(signal.SIGTERM, os.killpg, marks=pytest.mark.release),
    ],
)
def test_a_signal_ends_a_run_after_a_checkpoint(
    number: signal.Signals, send: Callable[[int, int], None], undisturbed: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "my run"
    with running("digits", *SETTINGS, "--out", str(out), "--workers", "2") as process:
        assert wait_until(process, (out / "checkpoint.safetensors").exists)
        send(process.pid, number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    command = f"srcell train --resume '{out}'"
    assert errors == f"srcell: stopped by {number.name}, after a checkpoint: {command}\n"
    with running(*shlex.split(command)[2:]) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert (out / "model.safetensors").read_bytes() == undisturbed


@pytest.mark.release
def test_readers_and_second_writers_do_not_disturb_a_run(undisturbed: bytes, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running("digits", *SETTINGS, "--out", str(out)) as process:
        assert wait_until(process, (out / "checkpoint.safetensors").exists)
        for _ in range(8):
            folder = RunFolder.open(out)
            assert folder.read_checkpoint() is not None
            with pytest.raises(FileNotFoundError, match="the run has not ended"):
                evaluate_run(folder)
            with pytest.raises(BlockingIOError, match=f"^{re.escape(str(out))}: another process is training there"):
                resume(out)
            with pytest.raises(BlockingIOError, match="another process is training there"):
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
from srcell._shared.processes import processes
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


@pytest.mark.release
@pytest.mark.parametrize(
    ("dtype", "hidden_sizes"),
    [("float32", "[]"), ("float64", "[]"), ("float64", "[16]")],  # dropout and the rate penalty act on hidden layers
)
def test_two_processes_train_as_one(dtype: str, hidden_sizes: str, tmp_path: Path) -> None:
    script, out = tmp_path / "shared.py", tmp_path / "out"
    script.write_text(SHARED)
    for processes in (1, 2):
        done = run_python(str(script), f"{out}.{processes}", dtype, hidden_sizes, processes=processes)
        assert done.returncode == 0, done.stderr
    samples, gradients, loss, weights = torch.load(f"{out}.1.0", weights_only=True)
    first, second = (torch.load(f"{out}.2.{rank}", weights_only=True) for rank in range(2))
    for whole, ours, theirs in zip(samples, first[0], second[0], strict=True):
        assert (whole[::2], whole[1::2]) == (ours, theirs)
    # Without a hidden layer, only the order of sums over 15 samples and 30 steps differs. Each addition rounds once,
    # relative to a partial sum, which the largest gradient bounds here.
    relative = 1e-9 if hidden_sizes == "[16]" else 45 * torch.finfo(getattr(torch, dtype)).eps
    assert abs(first[2] - loss) <= relative * loss
    for name, gradient in gradients.items():
        assert gradient.count_nonzero() > 0
        for shared in (first[1][name], second[1][name]):
            assert (shared - gradient).abs().max() <= relative * gradient.abs().max()
    for name, weight in weights.items():
        assert torch.equal(first[3][name], second[3][name])
        if dtype == "float64":
            assert (first[3][name] - weight).abs().max() <= 1e-9


@pytest.mark.release
def test_the_command_under_torchrun_writes_and_prints_once(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = ["-m", "srcell", "train", "digits", "--hidden", "8", "--epochs", "2", "--steps", "5", "--out"]
    done = run_python(*command, str(out))
    assert done.returncode == 0, done.stderr
    full = run_python(*command, str(out))
    assert full.returncode != 0 and not full.stdout
    assert {line for line in full.stderr.splitlines() if line.startswith("srcell: ")} == {
        f"srcell: {out} exists and is not an empty folder: choose another run folder, or resume the run in it",
        f"srcell: {out}: the first process cannot write there",
    }
    first_words = [line.split()[0] for line in done.stdout.splitlines()]
    assert first_words == ["data", "network", "machine", "folder", "epoch", "epoch", "test"]
    assert (out / "result.json").exists() and len((out / "metrics.csv").read_text().splitlines()) == 3
