"""Training: the files of a run, reproducibility from one seed, learning, and errors that stop a run."""

from __future__ import annotations

import base64
import csv
import json
import math
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch.utils.data import DataLoader

import srcell
from srcell import data
from srcell.layers.exported import exported
from srcell.training import (
    EpochMetrics,
    Observer,
    RunOptions,
    Tally,
    TrainedRun,
    Trainer,
    TrainingConfig,
    build_model,
    evaluate,
    evaluate_run,
    resume,
    train,
    trainer,
)
from srcell.training.checkpoint import read_checkpoint
from srcell.training.run_folder import RunFolder
from support.runs import TINY, all_steps, assert_equal_weights, assert_resumes_at, run_to_the_end

DRAWS = True  # figures of runs: conftest.py


def test_a_run_writes_plots_a_report_and_its_configuration(run: TrainedRun, out: Path) -> None:
    plots = ["confusion.png", "learning_curve.png", "raster.png", "rates.png", "traces.png"]
    files = ["checkpoint.safetensors", "config.json", "metrics.csv", "model.safetensors", "report.html", "result.json"]
    found = {path.name for path in out.iterdir()} - {"tensorboard"}  # present if tensorboard is installed
    assert sorted(found) == sorted([".lock", *plots, *files])
    for plot in plots:
        image = (out / plot).read_bytes()
        assert image.startswith(b"\x89PNG")
        assert base64.b64encode(image).decode() in (out / "report.html").read_text()
    record = json.loads((out / "config.json").read_text())
    assert TrainingConfig.from_dict(record["training"]) == TINY
    assert record["environment"]["version"] == srcell.__version__
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["isa"] == srcell.info()["isa"]


def test_metrics_have_one_row_per_epoch(run: TrainedRun, out: Path) -> None:
    with open(out / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == EpochMetrics._fields
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [tuple(map(float, row.values())) for row in rows] == [tuple(map(float, row)) for row in run.history]
    for metrics in run.history:
        assert 0 <= metrics.train_accuracy <= 1 and 0 <= metrics.validation_accuracy <= 1
        assert 0 < metrics.spike_rate < 1
        assert metrics.seconds > 0
    # The final weights are those that the last epoch was validated with.
    trainer = Trainer(TINY, data.load("digits"))
    trainer.model.load_state_dict(run.model.state_dict())
    assert trainer.finish_epoch().validation_loss == run.history[-1].validation_loss > 0


@pytest.mark.landing
def test_tensorboard_shows_each_epoch_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(TINY, tmp_path)
    history = [EpochMetrics(k, 0.5 * k, 0.75, math.nan, 0.25, 0.125, 1.0, math.nan) for k in (1, 2)]
    RunFolder.open(tmp_path).write_scalars(history)  # as after a resumed run that repeated the second epoch
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    losses = shown.Scalars("train_loss")
    assert [(event.step, event.value) for event in losses] == [(1, 0.5), (2, 1.0)]
    assert "validation_accuracy" not in shown.Tags()["scalars"] or not shown.Scalars("validation_accuracy")


def test_a_run_needs_no_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    train(replace(TINY, epochs=1), tmp_path)
    assert (tmp_path / "result.json").exists() and not (tmp_path / "tensorboard").exists()


def test_evaluating_a_run_repeats_its_result(run: TrainedRun, out: Path) -> None:
    again = evaluate_run(RunFolder.open(out))
    assert again.accuracy == run.evaluation.accuracy
    assert torch.equal(again.confusion, run.evaluation.confusion)
    result = json.loads((out / "result.json").read_text())
    assert result["test_accuracy"] == again.accuracy
    assert result["synops_per_inference"] == again.synaptic_operations
    assert result["layers"] == [layer._asdict() for layer in again.counts]


def test_an_evaluation_uses_the_given_workers(run: TrainedRun, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def without_workers(samples: Any, *, num_workers: int, **options: Any) -> Any:
        asked.append(num_workers)
        return DataLoader(samples, **options)

    monkeypatch.setattr(srcell.data.loader, "DataLoader", without_workers)
    folder = RunFolder.open(out)
    for workers in (0, 2):
        assert evaluate_run(folder, RunOptions(num_workers=workers)).accuracy == run.evaluation.accuracy
    assert asked == [0, 2]


def test_the_seed_decides_every_bit(run: TrainedRun) -> None:
    torch.manual_seed(99)
    again = run_to_the_end(Trainer(TINY, data.load("digits")))
    assert_equal_weights(again.model, run.model)
    assert [row._replace(seconds=0) for row in again.history] == [row._replace(seconds=0) for row in run.history]
    other = run_to_the_end(Trainer(replace(TINY, seed=4), data.load("digits")))
    for ours, theirs in zip(other.model.parameters(), run.model.parameters(), strict=True):
        assert not torch.equal(ours, theirs)


def test_training_leaves_the_global_random_state_unchanged() -> None:
    state = torch.get_rng_state()
    trainer = Trainer(replace(TINY, dropout=0.3), data.load("digits"))
    list(trainer.train_epoch())
    trainer.finish_epoch()
    assert torch.equal(torch.get_rng_state(), state)


def test_a_trained_model_takes_batches_of_any_size() -> None:
    trainer = Trainer(replace(TINY, dropout=0.5, batch_size=673, validation=0.0, epochs=1), data.load("digits"))
    assert trainer.loader.samples_in(len(trainer.loader) - 1) == 1
    model = run_to_the_end(trainer).model.train()
    torch.manual_seed(0)
    spikes = model.layer_spikes(torch.ones(40, 8, 64))[-1]
    assert spikes.shape == (40, 8, 100)
    assert any(not torch.equal(spikes[:, 0], spikes[:, k]) for k in range(1, 8))  # each sample has its own dropout mask


def test_validation_samples_are_not_trained_on() -> None:
    trainer = Trainer(replace(TINY, validation=0.25), data.load("digits"))
    training, validation = trainer.loader.samples, trainer._validation.samples
    assert len(training.labels) == 1010 and len(validation.labels) == 337
    together = torch.cat([training.images, validation.images]).flatten(1)
    everything = data.load("digits").train.images.flatten(1)
    assert torch.equal(together.unique(dim=0), everything.unique(dim=0))
    fewer = Trainer(replace(TINY, validation=0.25, train_samples=50), data.load("digits"))
    assert len(fewer.loader.samples.labels) == 50
    assert torch.equal(fewer._validation.samples.images, validation.images)
    together = torch.cat([training.images, fewer.loader.samples.images]).flatten(1)
    assert len(together.unique(dim=0)) == len(training.images.flatten(1).unique(dim=0))
    history = run_to_the_end(Trainer(replace(TINY, validation=0.0, epochs=1), data.load("digits"))).history
    assert math.isnan(history[0].validation_accuracy)


@pytest.mark.landing
def test_a_convolutional_network_trains_and_resumes(tmp_path: Path) -> None:
    config = replace(TINY, channels=(4,), hidden_sizes=(), epochs=1, steps=40)
    run = train(config, tmp_path)
    folder = RunFolder.open(tmp_path)
    assert folder.config == config
    assert [tuple(rates.shape) for rates in run.evaluation.rates] == [(4, 4, 4), (100,)]
    assert evaluate_run(folder).accuracy == run.evaluation.accuracy
    assert_equal_weights(resume(tmp_path).model, run.model)


def test_a_resonant_network_trains_and_is_loaded_and_exported(tmp_path: Path) -> None:
    config = replace(TINY, hidden_sizes=(12,), omega=0.05, highest_omega=1.0, readout="linear", epochs=1, steps=40)
    run = train(config, tmp_path)
    omega = exported(run.model.layers[0])[0]["omega"]
    assert omega.max() == 1 and omega[omega > 0].min() == pytest.approx(0.05) and (omega == 0).sum() == 2
    network = srcell.load(tmp_path)
    assert_equal_weights(network, run.model)
    assert network.config == config and evaluate_run(RunFolder.open(tmp_path)).accuracy == run.evaluation.accuracy
    assert "<td>highest_omega</td><td>1.0</td>" in (tmp_path / "report.html").read_text()
    network.export(tmp_path / "net.srcell")
    net = srcell.runtime.load(tmp_path / "net.srcell")
    digits = data.load("digits").test.images[:50]
    assert net.layers[0].resonant and network.encoder is not None
    expected = network(network.encoder(digits)).argmax(1)
    assert (net.run(net.encode(digits)).argmax(1) == expected.numpy()).all()


@pytest.mark.parametrize(
    ("settings", "loss", "accuracy"),
    [({"epochs": 5}, math.log(10) / 2, 0.7), ({"epochs": 8, "encoding": "latency", "steps": 60}, math.inf, 0.5)],
)
def test_a_network_learns(settings: dict[str, Any], loss: float, accuracy: float) -> None:
    trainer = run_to_the_end(Trainer(TrainingConfig(hidden_sizes=(), **settings), data.load("digits")))
    assert trainer.history[-1].train_loss < loss
    assert trainer.test().accuracy > accuracy


def test_the_observer_is_called_after_every_batch_and_epoch(tmp_path: Path) -> None:
    fractions: list[float] = []
    epochs: list[int] = []

    class Listener(Observer):
        def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
            fractions.append(fraction)

        def on_epoch(self, metrics: EpochMetrics) -> None:
            epochs.append(metrics.epoch)

    train(replace(TINY, steps=1, batch_size=450), tmp_path, Listener())
    assert fractions == pytest.approx([n / 6 for n in range(1, 7)])
    assert epochs == [1, 2]


class Overfitting(Trainer):
    """Has given validation accuracies and losses."""

    rows = ((0.5, 1.0), (0.75, 1.0), (0.75, 0.5), (0.75, 0.5), (0.5, 0.25), (1.0, 0.0))

    def finish_epoch(self) -> EpochMetrics:
        accuracy, loss = self.rows[len(self.history)]
        with patch("srcell.training.trainer.evaluate", return_value=SimpleNamespace(accuracy=accuracy, loss=loss)):
            return super().finish_epoch()


PATIENT = replace(TINY, epochs=6, patience=2, steps=1, batch_size=450)


def test_a_run_with_patience_ends_without_progress_and_keeps_the_best_weights(tmp_path: Path) -> None:
    digits = data.load("digits")
    third = Overfitting(replace(PATIENT, patience=0), digits)
    for _ in islice(all_steps(third), 9):  # three epochs of three batches
        pass
    ended = run_to_the_end(Overfitting(PATIENT, digits))
    assert len(ended.history) == 5 and ended.keep_best() == 3
    assert_equal_weights(ended.model, third.model)
    assert len(run_to_the_end(Overfitting(replace(PATIENT, patience=4), digits)).history) == 6

    kept: list[int] = []

    class Listener(Observer):
        def on_best(self, epoch: int) -> None:
            kept.append(epoch)

    with patch("srcell.training.loop.Trainer", Overfitting):
        run = train(PATIENT, tmp_path, Listener())
    assert kept == [3] and len(run.history) == 5
    assert_equal_weights(run.model, third.model)
    with patch("srcell.training.loop.Trainer", Overfitting):
        again = resume(tmp_path)  # a finished run
    assert len(again.history) == 5 and again.evaluation.loss == run.evaluation.loss
    assert_equal_weights(again.model, third.model)
    assert json.loads((tmp_path / "result.json").read_text())["epoch"] == 3
    assert "weights of epoch</dt><dd>3<" in (tmp_path / "report.html").read_text()


def test_a_run_with_patience_resumes_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.runs.Trainer", Overfitting)
    assert_resumes_at((0, 3, 4, 9, 11), PATIENT, data.load("digits"))


def test_a_run_with_patience_resumes_from_the_checkpoint_of_an_epoch() -> None:
    digits = data.load("digits")
    first, second = Overfitting(PATIENT, digits), Overfitting(PATIENT, digits)
    for _ in range(2):
        list(first.train_epoch())
        first.finish_epoch()
    second.load_state(*first.state())
    assert_equal_weights(run_to_the_end(second).model, run_to_the_end(first).model)


def test_a_checkpoint_of_a_run_with_patience_needs_the_best_weights() -> None:
    trainer = Overfitting(PATIENT, data.load("digits"))
    for _ in islice(all_steps(trainer), 4):
        pass
    tensors, record = trainer.state()
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("best.")}
    assert len(without) < len(tensors)
    with pytest.raises(ValueError, match=r"^checkpoint: weights of another network: expected .* got nothing$"):
        Trainer(PATIENT, data.load("digits")).load_state(without, record)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"validation": 0.0}, "0 without validation, got 3"),
        ({"input_delay": 4, "learn_delays": True, "whole_delays": True}, "0 where delays are learnt"),
        ({"input_delay": 4, "learn_delays": True, "delay_width": (4, 1)}, "0 where delays are learnt"),
    ],
)
def test_patience_is_refused_where_it_cannot_act(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=f"^patience: expected {expected}"):
        replace(TINY, patience=3, **settings)


def test_patience_is_refused_if_no_sample_is_held_out() -> None:
    config = replace(TINY, patience=3, validation=1e-4)
    with pytest.raises(ValueError, match=r"^patience: expected 0 without validation samples, got 3"):
        Trainer(config, data.load("digits"))


def test_a_loss_of_nan_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def nan_in_the_end(logits: torch.Tensor, *_: object) -> torch.Tensor:
        return logits.sum() * (math.nan if next(calls) == 25 else 1)

    monkeypatch.setattr(trainer, "summed_loss", nan_in_the_end)
    with pytest.raises(FloatingPointError, match=r"nan in batch 7 of epoch 2, at a learning rate of 0.0\d+: use a"):
        train(TINY, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    tensors, record = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert len(record["history"]) == 1 and all(tensor.isfinite().all() for tensor in tensors.values())


def test_an_evaluation_without_samples_is_refused() -> None:
    samples = data.load("digits").test.select(torch.arange(0))
    loader = data.EventLoader(samples, data.RateEncoding())
    with pytest.raises(ValueError, match=r"^loader: expected at least one sample to evaluate on, got none"):
        evaluate(build_model(TINY, (1, 8, 8), 10), loader)


@pytest.mark.parametrize("package", ["sklearn", "matplotlib", "safetensors.torch", "filelock"])
def test_a_missing_package_names_its_extra(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("srcell.training.run_folder", "srcell.training.plots", "srcell.training.checkpoint"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delattr(module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r'pip install "srcell\[train\]"'):
        train(TINY, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_digits_are_split_three_to_one_in_each_class() -> None:
    digits = data.load("digits")
    assert [part.images.shape for part in (digits.train, digits.test)] == [(1347, 8, 8), (450, 8, 8)]
    for images, labels in (digits.train, digits.test):
        assert images.dtype == torch.float32 and images.min() == 0 and images.max() == 1
        assert labels.dtype == torch.int64 and labels.min() == 0 and labels.max() == 9
    everything = digits.train.labels.bincount() + digits.test.labels.bincount()
    assert torch.all((digits.test.labels.bincount() - everything / 4).abs() <= 1)
