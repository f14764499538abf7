"""Files and arguments must not execute code, or make srcell write or delete outside the folder that it was given."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import srcell
from srcell import data
from srcell._shared.files import partial_name, remove_partial_files, write_atomically
from srcell.training import EpochMetrics, RunOptions, evaluate_run, load_data, resume, train
from srcell.training.checkpoint import read_checkpoint, write_checkpoint
from srcell.training.config import TrainingConfig
from srcell.training.run_folder import LOCK, RunFolder
from support.formats import write_mnist, write_nmnist

# No part of a file is executed


class Payload:
    """Loading a pickle of this creates a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.landing
@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_pickle_is_refused_unread(form: str, tmp_path: Path) -> None:
    trap, folder = tmp_path / "trap", tmp_path / "run"
    torch.save(Payload(trap), tmp_path / "saved")
    content = pickle.dumps(Payload(trap)) if form == "pickle" else (tmp_path / "saved").read_bytes()
    RunFolder.create(folder, TrainingConfig())
    for name in ("checkpoint.safetensors", "model.safetensors"):
        (folder / name).write_bytes(content)
    run = RunFolder.open(folder)
    for read in (run.read_checkpoint, run.load_model):
        with pytest.raises(ValueError, match="corrupt or truncated"):
            read()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="not the configuration of a run"):
        RunFolder.open(folder)
    write_mnist(tmp_path / "mnist", zipped=False)
    (tmp_path / "mnist/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="corrupt or truncated"):
        data.load("mnist", tmp_path)
    write_nmnist(tmp_path)
    (tmp_path / "train-1000us-prefix20.safetensors").write_bytes(content)
    data.load("nmnist", tmp_path, cache=True)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Payload(trap)))
    assert trap.exists()  # the trap works


def test_no_source_uses_functions_that_execute_a_file() -> None:
    executes = re.compile(
        r"\b(pickle|marshal|shelve|dill|joblib|yaml)\b|\b(eval|exec|compile|__import__)\(|torch\.load\("
        r"|np\.load\((?!.*allow_pickle=False)"
    )
    folder = Path(srcell.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        for line in path.read_text().splitlines():
            code = line.partition("#")[0]
            found = executes.search(re.sub(r"(torch|re)\.compile\(|\w\.eval\(", "", code))
            assert found is None, f"{path.name}: {line.strip()}"


# Writes stay in their folder

DRAWS = True  # figures of runs: conftest.py


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file of the user."""
    path = tmp_path / "mine"
    path.write_text("mine")
    return path


def test_a_run_does_not_write_through_links_in_its_folder(
    mine: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Regression: a resumed run wrote its plots to the targets of links with their names."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(TrainingConfig(hidden_sizes=(), epochs=1, steps=5, train_samples=100), folder)
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name not in ("config.json", LOCK)]
    assert {"raster.png", "metrics.csv", "result.json", "model.safetensors"} <= set(names)
    for name in names:
        if name != "checkpoint.safetensors":
            (folder / name).unlink()
            (folder / name).symlink_to(mine)
    resume(folder)
    assert mine.read_text() == "mine" and list(tmp_path.iterdir()) == [mine]
    assert not (folder / "raster.png").is_symlink() and (folder / "raster.png").stat().st_size > 1000
    (folder / LOCK).unlink()
    (folder / LOCK).symlink_to(mine)
    with pytest.raises(OSError, match=LOCK):
        resume(folder)
    assert mine.read_text() == "mine"


@pytest.mark.landing
def test_tensorboard_does_not_write_through_a_link(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = RunFolder.create(tmp_path / "run", TrainingConfig())
    (folder.path / "tensorboard").symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match="tensorboard is a link"):
        folder.write_scalars([EpochMetrics(1, 0.5, 0.5, 0.5, 0.1, 0.01, 1.0, 0.5)])
    assert not list(elsewhere.iterdir())


def test_a_link_named_like_the_temporary_file_is_not_followed(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
    path = tmp_path / "result.json"
    path.with_name(partial_name(path.name)).symlink_to(mine)
    with pytest.raises(FileExistsError):
        write_atomically(path, b"whole")
    assert mine.read_text() == "mine" and not path.exists()


def test_cleanup_deletes_links_and_no_folders(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    link, made, file = (run / partial_name("a") for _ in range(3))
    link.symlink_to(mine)
    made.mkdir()
    file.write_text("")
    remove_partial_files(run, ["a"])
    assert mine.is_dir() and list(run.iterdir()) == [made]


def test_names_in_a_file_are_not_paths(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    tensors = {name: torch.zeros(1) for name in ("../out", str(tmp_path / "out"), "a/b")}
    write_checkpoint(folder / "checkpoint.safetensors", tensors, {"config": {"dataset": "../out"}})
    found, _ = read_checkpoint(folder / "checkpoint.safetensors")
    assert found.keys() == tensors.keys()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "checkpoint.safetensors"]
    (folder / "config.json").write_text(
        json.dumps({"training": dataclasses.asdict(TrainingConfig()) | {"dataset": "../out"}})
    )
    with pytest.raises(FileNotFoundError, match=r"^\.\./out: no such folder"):
        load_data(RunFolder.open(folder).config, RunOptions())
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "config.json", "checkpoint.safetensors"]


def test_code_that_a_run_folder_names_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text("import numpy as np\ndef load(): return np.ones((20, 4, 1)), [0, 1] * 10\n")
    train(TrainingConfig.preset("best", "own.py:load", epochs=1, hidden_sizes=(4,)), "run")
    Path("own.py").write_text("open('trap', 'w').close()\n" + Path("own.py").read_text())
    folder = RunFolder.open("run")
    srcell.load("run").export("net.srcell")
    for call in (lambda: resume("run"), lambda: evaluate_run(folder)):
        with pytest.raises(ValueError, match=r"run: its samples come from code: --data own.py:load runs it, if you tr"):
            call()
    assert not Path("trap").exists()
    evaluate_run(folder, RunOptions(data="own.py:load"))
    assert Path("trap").exists()
