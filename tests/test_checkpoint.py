"""Checkpoints and weight files: a resumed run ends with the same weights, files are written atomically, and files that
no run wrote are refused.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from fuzz.file_targets import trained
from srcell import data
from srcell.training import TrainedRun, Trainer, load_weights, resume
from srcell.training.checkpoint import read_checkpoint, write_checkpoint
from srcell.training.config import BEFORE
from srcell.training.run_folder import RunFolder
from support.runs import TINY, all_steps, assert_equal_weights, assert_resumes_at


def test_a_run_resumed_from_any_step_ends_with_the_same_weights() -> None:
    digits = data.load("digits")
    config = replace(TINY, batch_size=256, schedule="one-cycle", weight_decay=0.01, dropout=0.3)
    assert_resumes_at(range(1, 2 * math.ceil(1212 / 256)), config, digits)


def test_a_state_is_an_independent_copy_that_loads_unchanged() -> None:
    config, digits = replace(TINY, batch_size=450), data.load("digits")
    trainer = Trainer(config, digits)
    steps = all_steps(trainer)
    next(steps)
    tensors, record = trainer.state()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    other = Trainer(config, digits)
    other.load_state(tensors, record)
    for each in (steps, all_steps(other)):
        next(each)
    assert_equal_weights(other.model, trainer.model)
    for name, tensor in tensors.items():
        assert torch.equal(tensor, kept[name]), name
    assert not torch.equal(trainer.state()[0]["model.layers.0.weight_ih_l0"], kept["model.layers.0.weight_ih_l0"])


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, {"x": torch.ones(3)}, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device: the checkpoint was not written, the previous one is"):
        write_checkpoint(path, {"x": torch.zeros(3)}, {"step": 2})
    monkeypatch.undo()
    tensors, record = read_checkpoint(path)
    assert torch.equal(tensors["x"], torch.ones(3)) and record == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_checkpoint_of_another_version_configuration_or_network_is_refused(
    run: TrainedRun, out: Path, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    good = (out / path.name).read_bytes()
    tensors, record = read_checkpoint(out / path.name)
    (tmp_path / "config.json").write_text((out / "config.json").read_text())

    def assert_refused(message: str) -> None:
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: {message}"):
            resume(tmp_path)

    path.write_bytes(good[:-7])
    assert_refused("corrupt or truncated")
    write_checkpoint(path, tensors, record | {"format": 2})
    assert_refused("format 2 is from a newer srcell, this one reads up to 1: upgrade")
    write_checkpoint(path, tensors, record | {"config": record["config"] | {"seed": 9}})
    assert_refused("belongs to another configuration")
    write_checkpoint(path, tensors | {"model.layers.0.bias_l0": torch.zeros(3)}, record)
    assert_refused(r".*another network: expected \(16,\) for layers.0.bias_l0, got \(3,\)")
    path.write_bytes((out / "model.safetensors").read_bytes())
    assert_refused("cannot resume: the checkpoint lacks batches, groups, history")


MISSING = object()
# Wrong values, keyed by the place of the entry. Regression: some raised a KeyError or a TypeError, a RuntimeError in
# the first step, or nothing.
IMPOSSIBLE: dict[tuple[Any, ...], list[Any]] = {
    ("record", "config"): [[]],
    ("record", "config", "seed"): [MISSING],
    ("record", "history"): [5, [[1, 1.0, 0.5, math.nan, 0.0, 0.04, 1.0, math.nan]] * 4],
    ("record", "history", 0): [[1, 1.0, 0.5, math.nan, 0.0, 0.04, 1.0, math.nan, 1, 1]],
    ("record", "history", 0, 0): [1e300, 2, 1.0],
    ("record", "history", 0, 1): [-1.0, 1e300],
    ("record", "history", 0, 2): [1.5],
    ("record", "history", 0, 4): [math.nan],
    ("record", "history", 0, 5): [1e308],
    ("record", "history", 0, 6): [math.inf],
    ("record", "batches"): [-1, 10**6, 1.5],
    ("record", "learning_rate"): [1e308, None],
    ("record", "groups"): [3, []],
    ("record", "groups", 0, "lr"): [1e308, 10**400, math.nan, MISSING],
    ("record", "groups", 1, "betas"): ["ab", [0.9], [2.0, 0.9], [0.9, 1.0]],
    ("record", "seconds"): [-math.inf, "x"],
    ("record", "tally"): [[None] * 5, [1.0], [10**400] * 5],
    ("record", "tally", 0): [1.0],
    ("record", "tally", 1): [math.nan],
    ("record", "tally", 4): [1e300],
    ("tensors", "optimizer.0.exp_avg"): [MISSING, torch.zeros(3)],
    ("tensors", "optimizer.0.exp_avg_sq"): [torch.zeros(1, dtype=torch.int64)],
    ("tensors", "optimizer.1.step"): [torch.tensor(step) for step in (-1.0, 0.0, 1.5, math.nan, math.inf)],
    ("tensors", "optimizer.0.step"): [torch.zeros(3), torch.tensor(1.0, dtype=torch.float64)],
    ("tensors", "optimizer.9.step"): [torch.zeros(())],
    ("tensors", "optimizer.x"): [torch.zeros(())],
    ("tensors", "optimizer.0.a.b"): [torch.zeros(())],
}


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, row in IMPOSSIBLE.items() for value in row])
def test_an_invalid_checkpoint_is_refused_and_changes_nothing(place: tuple[Any, ...], value: Any) -> None:
    trainer = trained()[0]
    tensors, record = trainer.state()
    weights = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    state = {"tensors": tensors, "record": json.loads(json.dumps(record))}
    trainer.load_state(**state)
    *outer, key = place
    inner: Any = state
    for name in outer:
        inner = inner[name]
    if value is MISSING:
        del inner[key]
    else:
        inner[key] = value
    with pytest.raises(ValueError, match=r"^it\.safetensors: cannot resume from this checkpoint \("):
        trainer.load_state(**state, source="it.safetensors")
    assert all(torch.equal(x, weights[name]) for name, x in trainer.model.state_dict().items())


def test_a_checkpoint_may_have_the_names_of_srcell_0_2() -> None:
    trainer = trained()[0]
    tensors, record = trainer.state()
    names = {name: old for old, name in BEFORE.items()}
    older = {names.get(name, name): value for name, value in record["config"].items()}
    assert older.keys() - record["config"].keys() == BEFORE.keys()
    trainer.load_state(tensors, record | {"config": older})


def test_weights_of_another_dtype_are_refused() -> None:
    model = trained()[0].model
    weights = {name: x.to(torch.int64) for name, x in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"^it: expected torch\.float32 for .*, got torch\.int64"):
        load_weights(model, weights, "it")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, "{}", "[]", "5", '"x"'])
def test_json_that_is_not_a_record_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(save({"x": torch.zeros(1)}, {"srcell": text}))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
        read_checkpoint(path)
    for config in (text, f'{{"training": {text}}}'):
        (tmp_path / "config.json").write_text(config)
        with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
            RunFolder.open(tmp_path)


# Constants of layers in files


class Constants(nn.Module):
    """A module whose state_dict has constants besides its weight, as a layer's has."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.constants = torch.tensor([alpha, 3.0], dtype=torch.float64)

    def get_extra_state(self) -> Tensor:
        return self.constants

    def set_extra_state(self, state: Tensor) -> None:
        self.constants = state


def test_constants_of_a_file_must_equal_those_of_the_network(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, nn.Sequential(Constants(0.9), Constants(0.5)).state_dict(), {})
    weights, _ = read_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(nn.Sequential(Constants(0.9), Constants(0.5)), weights, "file")

    def assert_refused(alpha: float, expected: str) -> None:
        with pytest.raises(ValueError, match=f"^file: weights of another network: expected {expected}"):
            load_weights(nn.Sequential(Constants(0.9), Constants(alpha)), weights, "file")

    assert_refused(0.75, r"\[0.75, 3.0\] for 1\._extra_state")
    del weights["0._extra_state"]
    assert_refused(0.5, r"\(2,\) for 0\._extra_state, got noth")
