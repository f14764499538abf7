"""Checkpoints and weight files: a resumed run ends with the same weights, files are written atomically, and files that
no run wrote are refused.
"""

from __future__ import annotations

import json
import math
import re
import warnings
from collections.abc import Callable
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
from srcell.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from srcell.training.run_folder import RunFolder
from support.runs import TINY, all_steps, assert_equal_weights, run_to_the_end


def test_a_run_goes_on_from_any_step_with_the_same_weights() -> None:
    digits = data.load("digits")
    config = replace(TINY, batch_size=256, schedule="one-cycle", weight_decay=0.01, dropout=0.3)
    undisturbed = run_to_the_end(Trainer(config, digits))
    steps = 2 * math.ceil(1212 / 256)
    for stop in range(1, steps):
        first = Trainer(config, digits)
        for done, _ in enumerate(all_steps(first), start=1):
            if done == stop:
                break
        tensors, record = first.state()
        record = json.loads(json.dumps(record))
        second = Trainer(config, digits)
        second.load_state(tensors, record)
        assert_equal_weights(run_to_the_end(second).model, undisturbed.model)
        assert [row._replace(seconds=0) for row in second.history] == [
            row._replace(seconds=0) for row in undisturbed.history
        ]


def test_a_state_is_a_copy_that_loads_as_it_is() -> None:
    digits = data.load("digits")
    config = replace(TINY, batch_size=450)
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


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, {"x": torch.ones(3)}, {"step": 1})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left on device: the checkpoint was not written, the one before it is"):
        write_checkpoint(path, {"x": torch.zeros(3)}, {"step": 2})
    monkeypatch.undo()
    tensors, record = read_checkpoint(path)
    assert torch.equal(tensors["x"], torch.ones(3)) and record == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_a_checkpoint_that_does_not_fit_is_refused(run: TrainedRun, out: Path, tmp_path: Path) -> None:
    good = (out / "checkpoint.safetensors").read_bytes()
    tensors, record = read_checkpoint(out / "checkpoint.safetensors")
    (tmp_path / "config.json").write_text((out / "config.json").read_text())
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(good[:-7])
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: corrupt or truncated"):
        resume(tmp_path)
    write_checkpoint(path, tensors, record | {"format": 2})
    with pytest.raises(ValueError, match="format 2 is of a newer srcell, this one reads up to 1: upgrade"):
        resume(tmp_path)
    write_checkpoint(path, tensors, record | {"config": record["config"] | {"seed": 9}})
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors: is of another configuration"):
        resume(tmp_path)
    write_checkpoint(path, tensors | {"model.layers.0.bias_l0": torch.zeros(3)}, record)
    with pytest.raises(ValueError, match=r"another network: expected \(16,\) for layers.0.bias_l0, got \(3,\)"):
        resume(tmp_path)
    path.write_bytes((out / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="not a checkpoint to go on from, it has no batches, groups, history"):
        resume(tmp_path)
    path.write_bytes((out / "result.json").read_bytes())
    with pytest.raises(ValueError, match="corrupt"):
        resume(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        resume(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
        resume(tmp_path)


@pytest.fixture(scope="module")
def halfway() -> Checkpoint:
    """The state of a run in the middle of its second epoch."""
    trainer = Trainer(TINY, data.load("digits"))
    for _ in all_steps(trainer):
        if trainer.history:
            break
    state = trainer.state()
    Trainer(TINY, data.load("digits")).load_state(*state)
    return state


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("history", 0, 0), 1e300),
        (("history", 0, 0), 2),
        (("history", 0, 0), 1.0),
        (("history", 0, 1), -1.0),
        (("history", 0, 1), 1e300),
        (("history", 0, 2), 1.5),
        (("history", 0, 4), math.nan),
        (("history", 0, 5), 1e308),
        (("history", 0, 6), math.inf),
        (("learning_rate",), 1e308),
        (("groups", 0, "lr"), 1e308),
        (("groups", 1, "betas"), "ab"),
        (("seconds",), -math.inf),
        (("tally", 0), 1.0),
        (("tally", 1), math.nan),
        (("tally", 4), 1e300),
    ],
)
def test_a_record_that_no_run_writes_is_refused(path: tuple[Any, ...], value: object, halfway: Checkpoint) -> None:
    record = json.loads(json.dumps(halfway[1]))
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=r"^checkpoint: not a checkpoint to go on from"):
        Trainer(TINY, data.load("digits")).load_state(halfway[0], record)


@pytest.mark.parametrize("step", [-1.0, 0.0, 1.5, math.nan, math.inf])
def test_an_optimiser_that_made_no_whole_steps_is_refused(step: float, halfway: Checkpoint) -> None:
    tensors = halfway[0] | {"optimizer.1.step": torch.tensor(step)}
    with pytest.raises(
        ValueError, match=r"^checkpoint: not a checkpoint to go on from \(ValueError: optimizer\.1\.step"
    ):
        Trainer(TINY, data.load("digits")).load_state(tensors, halfway[1])


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, record: record.update(config=[]),
        lambda tensors, record: record["config"].pop("seed"),
        lambda tensors, record: record.update(history=5),
        lambda tensors, record: record["history"][0].append(1),
        lambda tensors, record: record["history"].extend(record["history"] * 3),
        lambda tensors, record: record.update(batches=-1),
        lambda tensors, record: record.update(batches=10**6),
        lambda tensors, record: record.update(batches=0.5),
        lambda tensors, record: record.update(tally=[None] * 5),
        lambda tensors, record: record.update(tally=[1.0]),
        lambda tensors, record: record.update(tally=[10**400] * 5),
        lambda tensors, record: record["groups"][0].update(lr=10**400),
        lambda tensors, record: record.update(seconds="x"),
        lambda tensors, record: record.update(learning_rate=None),
        lambda tensors, record: record.update(groups=3),
        lambda tensors, record: record["groups"].pop(),
        lambda tensors, record: record["groups"][0].pop("lr"),
        lambda tensors, record: record["groups"][0].update(lr=math.nan),
        lambda tensors, record: record["groups"][0].update(betas=[0.9]),
        lambda tensors, record: record["groups"][0].update(betas=[2.0, 0.9]),
        lambda tensors, record: record["groups"][0].update(betas=[0.9, 1.0]),
        lambda tensors, record: tensors.pop("optimizer.0.exp_avg"),
        lambda tensors, record: tensors.update({"optimizer.0.exp_avg": torch.zeros(3)}),
        lambda tensors, record: tensors.update({"optimizer.0.step": torch.zeros(3)}),
        lambda tensors, record: tensors.update({"optimizer.0.exp_avg_sq": torch.zeros(1, dtype=torch.int64)}),
        lambda tensors, record: tensors.update({"optimizer.9.step": torch.zeros(())}),
        lambda tensors, record: tensors.update({"optimizer.x": torch.zeros(())}),
        lambda tensors, record: tensors.update({"optimizer.0.a.b": torch.zeros(())}),
        lambda tensors, record: tensors.update({name: x.double() for name, x in tensors.items()}),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_from(change: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    """Regression: these raised a KeyError, a TypeError, a RuntimeError in the first step, or nothing."""
    trainer = trained()[0]
    tensors, record = json_twin(*trainer.state())
    weights = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    trainer.load_state(tensors, record)
    change(tensors, record)
    with pytest.raises(ValueError, match=r"^it\.safetensors: "):
        trainer.load_state(tensors, record, source="it.safetensors")
    assert all(torch.equal(x, weights[name]) for name, x in trainer.model.state_dict().items())


def json_twin(tensors: dict[str, Tensor], record: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A state as read back from a file: the record has passed through JSON."""
    return dict(tensors), json.loads(json.dumps(record))


def test_weights_of_another_dtype_are_refused() -> None:
    model = trained()[0].model
    weights = {name: x.to(torch.int64) for name, x in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"^it: expected torch\.float32 for .*, got torch\.int64"):
        load_weights(model, weights, "it")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, "[]", "5", '"x"'])
def test_json_that_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(save({"x": torch.zeros(1)}, {"srcell": text}))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
        read_checkpoint(path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.json").write_text(f'{{"training": {text}}}')
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
        RunFolder.open(tmp_path)


# Constants of layers in files


class Constants(nn.Module):
    """A module whose state_dict has constants besides its weight, as that of a layer."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.constants = torch.tensor([alpha, 3.0], dtype=torch.float64)

    def get_extra_state(self) -> Tensor:
        return self.constants

    def set_extra_state(self, state: Tensor) -> None:
        self.constants = state


def test_constants_of_a_file_must_be_the_networks(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_checkpoint(path, nn.Sequential(Constants(0.9), Constants(0.5)).state_dict(), {})
    weights, _ = read_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(nn.Sequential(Constants(0.9), Constants(0.5)), weights, "file")
    with pytest.raises(
        ValueError, match=r"^file: weights of another network: expected \[0.75, 3.0\] for 1\._extra_state"
    ):
        load_weights(nn.Sequential(Constants(0.9), Constants(0.75)), weights, "file")
    del weights["0._extra_state"]
    with pytest.raises(
        ValueError, match=r"^file: weights of another network: expected \(2,\) for 0\._extra_state, got noth"
    ):
        load_weights(nn.Sequential(Constants(0.9), Constants(0.5)), weights, "file")


def test_a_file_without_constants_is_of_srcell_0_1() -> None:
    model = nn.Sequential(Constants(0.9), Constants(0.5))
    weights = {"0.weight": torch.zeros(2), "1.weight": torch.zeros(2)}
    with pytest.warns(UserWarning) as caught:
        load_weights(model, weights, "file")
    assert [str(warning.message) for warning in caught] == [
        "file: of srcell 0.1, without the cells' constants: those of the run's configuration are used"
    ]
    assert not model[0].weight.any() and model[0].constants.tolist() == [0.9, 3.0]
    assert weights.keys() == {"0.weight", "1.weight"}
