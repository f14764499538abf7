"""Training: the run folder, reproducibility from one seed, learning, and errors that say what to do."""

from __future__ import annotations

import csv
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import srcell
from srcell import data
from srcell.training import (
    EpochMetrics,
    Observer,
    Tally,
    TrainedRun,
    TrainingConfig,
    build_model,
    encoded_batches,
    evaluate,
    train,
)

TINY = TrainingConfig(hidden_sizes=(16,), epochs=2, steps=20, seed=3)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "made" / "with-parents"


@pytest.fixture(scope="module")
def run(out: Path) -> TrainedRun:
    return train(TINY, out)


def test_a_run_leaves_its_four_files(run: TrainedRun, out: Path) -> None:
    assert sorted(path.name for path in out.iterdir()) == [
        "config.json",
        "learning_curve.png",
        "metrics.csv",
        "model.safetensors",
    ]
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_configuration_and_the_environment_are_recorded(run: TrainedRun, out: Path) -> None:
    record = json.loads((out / "config.json").read_text())
    settings = record["training"]
    assert TrainingConfig(**settings | {"hidden_sizes": tuple(settings["hidden_sizes"])}) == TINY
    assert record["environment"]["version"] == srcell.__version__
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["isa"] == srcell.info()["isa"]


def test_the_metrics_have_a_row_an_epoch(run: TrainedRun, out: Path) -> None:
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == EpochMetrics._fields
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [tuple(map(float, row.values())) for row in rows] == [tuple(map(float, row)) for row in run.history]
    for metrics in run.history:
        assert 0 <= metrics.train_accuracy <= 1 and 0 <= metrics.test_accuracy <= 1
        assert 0 < metrics.spike_rate < 1
        assert metrics.seconds > 0


def test_the_saved_model_is_the_trained_one(run: TrainedRun, out: Path) -> None:
    digits = data.load("digits")
    restored = build_model(TINY, digits)
    restored.load_state_dict(load_file(out / "model.safetensors"))
    assert_equal_weights(restored, run.model)
    assert evaluate(TINY, restored, digits.test) == run.history[-1].test_accuracy


def test_the_seed_decides_every_bit(run: TrainedRun, tmp_path: Path) -> None:
    torch.manual_seed(99)
    again = train(TINY, tmp_path / "again")
    assert_equal_weights(again.model, run.model)
    assert [row._replace(seconds=0) for row in again.history] == [row._replace(seconds=0) for row in run.history]
    other = train(replace(TINY, seed=4), tmp_path / "other")
    for ours, theirs in zip(other.model.parameters(), run.model.parameters(), strict=True):
        assert not torch.equal(ours, theirs)


def test_the_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    build_model(TINY, data.load("digits"))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_epoch_meets_every_sample_once_with_new_spikes() -> None:
    digits = data.load("digits").train
    epochs = [list(encoded_batches(TINY, digits, epoch)) for epoch in (1, 2)]
    for batches in epochs:
        labels = torch.cat([labels for _, labels in batches])
        assert torch.equal(labels.bincount(), digits.labels.bincount())
    first, second = (torch.cat([events.indices for events, _ in batches]) for batches in epochs)
    assert not torch.equal(first, second)


def test_it_learns(tmp_path: Path) -> None:
    history = train(TrainingConfig(hidden_sizes=(), epochs=5), tmp_path).history
    assert history[-1].train_loss < math.log(10) / 2
    assert history[-1].test_accuracy > 0.7


def test_the_observer_hears_of_every_batch_and_epoch(tmp_path: Path) -> None:
    heard: list[float] = []
    epochs: list[int] = []

    class Listener(Observer):
        def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
            heard.append(fraction)

        def on_epoch(self, metrics: EpochMetrics) -> None:
            epochs.append(metrics.epoch)

    train(replace(TINY, steps=1, batch_size=500), tmp_path, Listener())
    assert heard == pytest.approx([n / 6 for n in range(1, 7)])
    assert epochs == [1, 2]


def test_a_folder_in_use_is_never_written_to(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        train(TINY, tmp_path)
    with pytest.raises(FileExistsError, match="not an empty folder"):
        train(TINY, tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "cross_entropy", lambda logits, labels: (logits * math.nan).sum())
    with pytest.raises(FloatingPointError, match=r"loss became nan at a learning rate of 0\.0016: use a lower one"):
        train(TINY, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("steps", -1),
        ("hidden_sizes", (16, 0)),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", 1.5),
        ("gain", 0.0),
        ("gain", 1.5),
        ("seed", -1),
    ],
)
def test_a_setting_outside_its_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{setting}: expected .*, got "):
        TrainingConfig(**{setting: value})  # type: ignore[arg-type]


def test_a_wrong_name_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown data set 'digist': did you mean 'digits'"):
        train(replace(TINY, dataset="digist"), tmp_path / "run")
    with pytest.raises(ValueError, match="surrogate"):
        train(replace(TINY, surrogate="sigmoid"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("package", ["sklearn", "matplotlib.figure", "safetensors.torch"])
def test_a_missing_dependency_says_how_to_get_it(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "srcell.run_folder", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "srcell\[train\]"'):
        train(TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_digits_are_the_stratified_three_quarters_and_one() -> None:
    digits = data.load("digits")
    assert [part.images.shape for part in (digits.train, digits.test)] == [(1347, 8, 8), (450, 8, 8)]
    for images, labels in (digits.train, digits.test):
        assert images.dtype == torch.float32 and images.min() == 0 and images.max() == 1
        assert labels.dtype == torch.int64 and labels.min() == 0 and labels.max() == 9
    everything = digits.train.labels.bincount() + digits.test.labels.bincount()
    assert torch.all((digits.test.labels.bincount() - everything / 4).abs() <= 1)


def assert_equal_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    weights, expected = ours.state_dict(), theirs.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
