"""Training: the run folder, reproducibility from one seed, learning, and errors that say what to do."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import data
from srcell._files import new_folder
from srcell._processes import Processes
from srcell.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from srcell.config import ADDED
from srcell.run_folder import FILES, LOCK, RunData, RunFolder
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
    load_data,
    load_weights,
    rate_pull,
    resume,
    train,
)

TINY = TrainingConfig(hidden_sizes=(16,), epochs=2, steps=20, seed=3)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "made" / "with-parents"


@pytest.fixture(scope="module")
def run(out: Path) -> TrainedRun:
    return train(TINY, out)


def test_a_run_leaves_its_files(run: TrainedRun, out: Path) -> None:
    plots = ["confusion.png", "learning_curve.png", "raster.png", "rates.png"]
    files = ["checkpoint.safetensors", "config.json", "metrics.csv", "model.safetensors", "result.json"]
    assert sorted(path.name for path in out.iterdir()) == sorted([".lock", *plots, *files, "tensorboard"])
    for plot in plots:
        assert (out / plot).read_bytes().startswith(b"\x89PNG")


def test_the_configuration_and_the_environment_are_recorded(run: TrainedRun, out: Path) -> None:
    record = json.loads((out / "config.json").read_text())
    assert TrainingConfig.from_dict(record["training"]) == TINY
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
        assert 0 <= metrics.train_accuracy <= 1 and 0 <= metrics.validation_accuracy <= 1
        assert 0 < metrics.spike_rate < 1
        assert metrics.seconds > 0


def test_tensorboard_shows_each_epoch_once(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(TINY, tmp_path)
    history = [EpochMetrics(k, 0.5 * k, 0.75, math.nan, 0.25, 0.125, 1.0) for k in (1, 2)]
    RunFolder.open(tmp_path).write_scalars(history)  # as if the second epoch had been done again
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    losses = shown.Scalars("train_loss")
    assert [(event.step, event.value) for event in losses] == [(1, 0.5), (2, 1.0)]
    assert "validation_accuracy" not in shown.Tags()["scalars"] or not shown.Scalars("validation_accuracy")


def test_without_tensorboard_a_run_does_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    train(replace(TINY, epochs=1), tmp_path)
    assert (tmp_path / "result.json").exists() and not (tmp_path / "tensorboard").exists()


def test_the_saved_model_is_the_trained_one_and_gives_the_figure_again(run: TrainedRun, out: Path) -> None:
    folder = RunFolder.open(out)
    restored = build_model(TINY, (1, 8, 8), 10)
    load_weights(restored, folder.load_model(), "model.safetensors")
    assert_equal_weights(restored, run.model)
    again = evaluate_run(folder)
    assert again.accuracy == run.evaluation.accuracy
    assert torch.equal(again.confusion, run.evaluation.confusion)
    result = json.loads((out / "result.json").read_text())
    assert result["test_accuracy"] == again.accuracy
    assert result["synops_per_inference"] == again.synaptic_operations
    assert result["layers"] == [layer._asdict() for layer in again.counts]


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
    trainer = Trainer(replace(TINY, dropout=0.3), data.load("digits"))
    list(trainer.train_epoch())
    trainer.finish_epoch()
    assert torch.equal(torch.get_rng_state(), state)


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


def test_a_trained_model_takes_batches_of_any_size() -> None:
    trainer = Trainer(replace(TINY, dropout=0.5, batch_size=673, validation=0.0, epochs=1), data.load("digits"))
    assert trainer._loader.samples_in(len(trainer._loader) - 1) == 1
    model = run_to_the_end(trainer).model.train()
    torch.manual_seed(0)
    spikes = model.layer_spikes(torch.ones(40, 8, 64))[-1]
    assert spikes.shape == (40, 8, 100)
    assert any(not torch.equal(spikes[:, 0], spikes[:, k]) for k in range(1, 8))  # each has a mask of its own


def test_validation_samples_are_not_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(replace(TINY, validation=0.25), data.load("digits"))
    training, validation = trainer._loader.samples, trainer._validation.samples
    assert len(training.labels) == 1010 and len(validation.labels) == 337
    together = torch.cat([training.images, validation.images]).flatten(1)
    everything = data.load("digits").train.images.flatten(1)
    assert torch.equal(together.unique(dim=0), everything.unique(dim=0))
    fewer = Trainer(replace(TINY, validation=0.25, train_samples=50), data.load("digits"))
    assert len(fewer._loader.samples.labels) == 50
    assert torch.equal(fewer._validation.samples.images, validation.images)
    together = torch.cat([training.images, fewer._loader.samples.images]).flatten(1)
    assert len(together.unique(dim=0)) == len(training.images.flatten(1).unique(dim=0))
    with pytest.raises(ValueError, match="train_samples: expected at most 1010, as there are, got 1011"):
        Trainer(replace(TINY, validation=0.25, train_samples=1011), data.load("digits"))
    history = run_to_the_end(Trainer(replace(TINY, validation=0.0, epochs=1), data.load("digits"))).history
    assert math.isnan(history[0].validation_accuracy)


def test_the_rate_penalty_pulls_the_rate() -> None:
    def rate(penalty: float, target: float) -> float:
        config = replace(TINY, epochs=4, steps=40, rate_penalty=penalty, target_rate=target, hidden_sizes=(32,))
        trainer = run_to_the_end(Trainer(config, data.load("digits")))
        return trainer.test().rates[0].mean().item()

    low, free, high = rate(100.0, 0.0), rate(0.0, 0.0), rate(100.0, 0.2)
    assert low < free < high


def test_clipping_bounds_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(replace(TINY, clip_norm=1e-3), data.load("digits"))
    next(trainer.train_epoch())
    total = torch.stack([parameter.grad.norm() for parameter in trainer.model.parameters()]).norm()
    assert 0 < total <= 1.0001e-3  # float32 rounding of the norm


def test_a_constant_rate_stays(tmp_path: Path) -> None:
    history = run_to_the_end(Trainer(replace(TINY, schedule="constant"), data.load("digits"))).history
    assert [row.learning_rate for row in history] == [TINY.learning_rate] * 2


def test_a_convolutional_network_trains_and_goes_on(tmp_path: Path) -> None:
    config = replace(TINY, channels=(4,), hidden_sizes=(), epochs=1, steps=40)
    run = train(config, tmp_path)
    folder = RunFolder.open(tmp_path)
    assert folder.config == config
    assert [tuple(rates.shape) for rates in run.evaluation.rates] == [(4, 4, 4), (100,)]
    assert evaluate_run(folder).accuracy == run.evaluation.accuracy
    assert_equal_weights(resume(tmp_path).model, run.model)


def test_settings_that_older_versions_lack_get_their_defaults() -> None:
    settings = asdict(TINY)
    for name in ADDED:
        del settings[name]
    assert TrainingConfig.from_dict(settings) == TINY
    for name in settings:
        with pytest.raises(ValueError, match=f"expected those of this version of srcell, got others: {name}$"):
            TrainingConfig.from_dict({key: value for key, value in settings.items() if key != name})


def test_it_learns(tmp_path: Path) -> None:
    run = train(TrainingConfig(hidden_sizes=(), epochs=5), tmp_path)
    assert run.history[-1].train_loss < math.log(10) / 2
    assert run.evaluation.accuracy > 0.7


def test_it_learns_from_latencies() -> None:
    config = TrainingConfig(hidden_sizes=(), epochs=8, encoding="latency", steps=60)
    trainer = run_to_the_end(Trainer(config, data.load("digits")))
    assert trainer.test().accuracy > 0.5


def test_the_observer_hears_of_every_batch_and_epoch(tmp_path: Path) -> None:
    heard: list[float] = []
    epochs: list[int] = []

    class Listener(Observer):
        def on_batch(self, epoch: int, fraction: float, tally: Tally) -> None:
            heard.append(fraction)

        def on_epoch(self, metrics: EpochMetrics) -> None:
            epochs.append(metrics.epoch)

    train(replace(TINY, steps=1, batch_size=450), tmp_path, Listener())
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
    calls = iter(range(100))

    def nan_in_the_end(logits: torch.Tensor, labels: torch.Tensor, **_: object) -> torch.Tensor:
        return logits.sum() * (math.nan if next(calls) == 25 else 1)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", nan_in_the_end)
    with pytest.raises(
        FloatingPointError, match=r"became nan in batch 7 of epoch 2, at a learning rate of 0.0\d+: use a"
    ):
        train(TINY, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    tensors, record = read_checkpoint(tmp_path / "checkpoint.safetensors")
    assert len(record["history"]) == 1 and all(tensor.isfinite().all() for tensor in tensors.values())


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
        ("validation", 1.0),
        ("clip_norm", -1.0),
        ("weight_decay", math.inf),
        ("prefix", -1),
        ("temperature", 10**400),
    ],
)
def test_a_setting_outside_its_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{setting}: expected .*, got "):
        TrainingConfig(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dataset": "digist"}, "unknown data set 'digist': did you mean 'digits'"),
        ({"encoding": "latecy"}, "unknown encoding 'latecy': did you mean 'latency'"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine': expected one of one-cycle, constant"),
    ],
)
def test_a_wrong_name_suggests_the_right_one(setting: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("balance_gradients", "False", "balance_gradients: expected bool, got 'False'"),
        ("balance_gradients", 1, "balance_gradients: expected bool, got 1"),
        ("epochs", 3.0, r"epochs: expected int, got 3\.0"),
        ("epochs", True, "epochs: expected int, got True"),
        ("gain", "0.5", r"gain: expected float, got '0\.5'"),
        ("gain", np.True_, "gain: expected float, got"),
        ("dataset", b"digits", "dataset: expected str, got b'digits'"),
        ("hidden_sizes", 16, "hidden_sizes: expected integers, got 16"),
        ("hidden_sizes", "16", "hidden_sizes: expected integers, got '16'"),
    ],
)
def test_a_setting_of_another_type_is_refused(setting: str, value: object, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        TrainingConfig(**{setting: value})  # type: ignore[arg-type]


def test_settings_are_pythons_own_numbers(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "seed": np.int64(3),
        "hidden_sizes": [np.int32(4)],
        "gain": np.float32(0.5),
        "alpha": 1,
        "balance_gradients": np.False_,
        "dataset": np.str_("digits"),
    }
    config = TrainingConfig(**given)
    assert config == TrainingConfig(seed=3, hidden_sizes=(4,), gain=0.5, alpha=1.0)
    for name in given:
        assert type(getattr(config, name)) is type(getattr(TrainingConfig(), name))
    folder = RunFolder.create(tmp_path / "run", config)
    assert RunFolder.open(folder.path).config == config


@pytest.mark.parametrize("settings", [{"validation": 0.9999}, {"validation": 0.9999, "train_samples": 5}])
def test_a_validation_that_takes_every_sample_is_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^validation: expected .* a sample to train on, got 0\.9999 of 1347"):
        train(replace(TINY, **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_without_samples_is_refused() -> None:
    samples = data.load("digits").test.select(torch.arange(0))
    loader = data.EventLoader(samples, data.RateEncoding())
    with pytest.raises(ValueError, match=r"^loader: expected at least one sample to evaluate on, got none"):
        evaluate(build_model(TINY, (1, 8, 8), 10), loader)


def test_a_wrong_surrogate_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        train(replace(TINY, surrogate="sigmoid"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_presets() -> None:
    assert TrainingConfig.preset("best", "digits") == TrainingConfig()
    reference = TrainingConfig.preset("reference", "mnist", epochs=3)
    assert (reference.steps, reference.gain, reference.prefix) == (200, 0.25, 20)
    assert (reference.hidden_sizes, reference.epochs) == ((), 3)
    deep = TrainingConfig.preset("deep", "mnist")
    assert deep.hidden_sizes == (128,) * 10 and deep.balance_gradients
    with pytest.raises(ValueError, match="unknown preset 'referense': did you mean 'reference'"):
        TrainingConfig.preset("referense", "mnist")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "3"}, "epochs: expected int, got '3'"),
        ({"epochs": True}, "epochs: expected int, got True"),
        ({"hidden_sizes": [1.5]}, "hidden_sizes: expected integers"),
        ({"colour": 1}, "expected those of this version of srcell, got others: colour"),
        ({"gain": 7}, r"gain: expected a number in \(0, 1\], got 7"),
    ],
)
def test_settings_from_a_file_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig.from_dict(asdict(TINY) | change)


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
    with pytest.raises(ValueError, match="another configuration"):
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


@pytest.fixture(scope="module")
def halfway() -> Checkpoint:
    """The state of a run in its second epoch."""
    trainer = Trainer(TINY, data.load("digits"))
    for _ in all_steps(trainer):
        if trainer.history:
            break
    state = trainer.state()
    Trainer(TINY, data.load("digits")).load_state(*state)
    return state


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


@pytest.mark.parametrize("package", ["sklearn", "matplotlib.figure", "safetensors.torch", "filelock"])
def test_a_missing_dependency_says_how_to_get_it(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("srcell.run_folder", "srcell.plots", "srcell.checkpoint"):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delattr(module, raising=False)
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


def all_steps(trainer: Trainer) -> Iterator[float]:
    while len(trainer.history) < trainer.config.epochs:
        yield from trainer.train_epoch()
        trainer.finish_epoch()


def run_to_the_end(trainer: Trainer) -> Trainer:
    for _ in all_steps(trainer):
        pass
    return trainer


def assert_equal_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    weights, expected = ours.state_dict(), theirs.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_the_pull_has_the_gradient_of_the_penalty() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [torch.rand(6, 4, n, dtype=torch.float64, generator=generator).requires_grad_() for n in (3, 5)]
    penalty = sum((layer.mean((0, 1)) - 0.1).square().mean() for layer in layers)
    expected = torch.autograd.grad(penalty, layers)
    made = torch.autograd.grad(rate_pull(layers, 0.1, samples=4, group=Processes()), layers)
    for ours, theirs in zip(made, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=0)


# One writer, any number of readers


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", TINY)


def files_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_run_has_one_writer_at_a_time(begun: RunFolder) -> None:
    second = RunFolder.open(begun.path)
    with pytest.raises(BlockingIOError, match=r"run: another process is training there"):
        second.lock()
    with pytest.raises(BlockingIOError, match=r"run: another process is training there"):
        resume(begun.path)
    begun.close()
    second.lock()
    with pytest.raises(BlockingIOError):
        begun.lock()


def test_readers_touch_nothing(begun: RunFolder, tmp_path: Path) -> None:
    for name in ("checkpoint.safetensors.7.partial", "download.bin.partial"):
        (begun.path / name).write_text("half")
        (tmp_path / name).write_text("half")
    for held in (True, False):
        before = files_of(begun.path)
        folder = RunFolder.open(begun.path)
        assert folder.read_checkpoint() is None
        for read in (folder.load_model, partial(evaluate_run, folder), partial(srcell.load, begun.path)):
            with pytest.raises(FileNotFoundError, match="the run has not ended"):
                read()
        assert files_of(begun.path) == before
        if held:
            begun.close()
    with pytest.raises(FileNotFoundError, match=r"found no config\.json"):
        RunFolder.open(tmp_path)
    assert (tmp_path / "download.bin.partial").exists() and (tmp_path / "checkpoint.safetensors.7.partial").exists()


def test_a_writer_clears_up_after_a_killed_one_and_nobody_else(begun: RunFolder) -> None:
    begun.close()
    ours = [f"{name}.{pid}.partial" for name, pid in zip(FILES, range(7, 99), strict=False)]
    theirs = ["download.bin.partial", "notes.txt.7.partial", "config.json.partial", "config.json.x.partial"]
    for name in ours + theirs:
        (begun.path / name).write_text("half")
    RunFolder.open(begun.path).lock()
    assert sorted(path.name for path in begun.path.iterdir()) == sorted([LOCK, "config.json", *theirs])


def test_a_folder_of_nothing_but_a_lock_and_half_a_configuration_is_empty(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch()
    (tmp_path / "config.json.7.partial").touch()
    RunFolder.create(tmp_path, TINY)
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK, "config.json"]
    with pytest.raises(FileExistsError, match="not an empty folder"):
        RunFolder.create(tmp_path, TINY)


def create_at_once(path: Path, seed: int, barrier: Any, made: Any) -> None:
    config = replace(TINY, seed=seed)
    barrier.wait(60)
    try:
        RunFolder.create(path, config)
        made.put(seed)
    except (FileExistsError, BlockingIOError):
        made.put(None)
    barrier.wait(60)  # who made it is its writer until all have tried


def test_of_two_that_make_one_folder_one_succeeds(tmp_path: Path) -> None:
    context = get_context("fork")
    for k in range(10):
        barrier, made = context.Barrier(3), context.SimpleQueue()
        path = tmp_path / str(k)
        makers = [context.Process(target=create_at_once, args=(path, seed, barrier, made)) for seed in range(3)]
        for maker in makers:
            maker.start()
        winners = {made.get() for _ in makers} - {None}
        for maker in makers:
            maker.join(60)
            assert maker.exitcode == 0
        assert winners == {RunFolder.open(path).config.seed}


def test_new_folders_of_one_name_differ(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "digits-1"
    with new_folder(path) as first, new_folder(path) as second:
        assert first == path and second == path.with_name("digits-1-2")
        RunFolder.create(second, TINY)
    assert not first.exists() and (second / "config.json").exists()
    with new_folder(tmp_path / "other" / "run"):
        pass
    assert not (tmp_path / "other").exists()


# Where the data are


def test_a_run_knows_where_its_data_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_in: list[Path] = []
    digits = data.load("digits")

    def load(name: str, root: Path, **_: object) -> data.Dataset:
        looked_in.append(root)
        return digits

    monkeypatch.setattr(data, "load", load)
    out, config = tmp_path / "run", replace(TINY, hidden_sizes=(), epochs=1, steps=5)
    train(config, out, options=RunOptions(data="my data"))
    assert RunFolder.open(out).data == RunData("my data", (1, 8, 8), 10)
    resume(out)
    evaluate_run(RunFolder.open(out))
    resume(out, options=RunOptions(data=tmp_path))
    evaluate_run(RunFolder.open(out))
    record = json.loads((out / "config.json").read_text())
    del record["data"]
    (out / "config.json").write_text(json.dumps(record))  # as srcell 0.1 wrote it
    evaluate_run(RunFolder.open(out))
    resume(out)
    own, moved = Path("my data"), tmp_path
    assert looked_in == [own, own, own, moved, moved, Path("data"), Path("data")]
    assert RunFolder.open(out).data == RunData("data", (1, 8, 8), 10)


def test_data_that_are_not_there_are_told_with_their_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for options, root in ((RunOptions(), "data"), (RunOptions(data="a b"), "a b")):
        with pytest.raises(FileNotFoundError) as error:
            load_data(TrainingConfig(dataset="mnist"), options)
        assert f"no MNIST in {root}" in str(error.value) and str(tmp_path / root) in str(error.value)


@pytest.mark.parametrize(
    "record",
    [
        {"folder": "data", "input_shape": [1, 8], "num_classes": 10},
        {"folder": "data", "input_shape": [1, 8, 0], "num_classes": 10},
        {"folder": "data", "input_shape": [1, 8, 8], "num_classes": True},
        {"folder": 3, "input_shape": [1, 8, 8], "num_classes": 10},
        {"folder": "data", "num_classes": 10},
        [1],
        None,
    ],
)
def test_a_record_of_data_that_no_run_writes_is_refused(record: object, begun: RunFolder) -> None:
    path = begun.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"data": record}))
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
        RunFolder.open(begun.path)


# From a run folder to its network


def test_a_loaded_network_is_the_trained_one(run: TrainedRun, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load", None)  # would raise if it were called
    net = srcell.load(out)
    assert not net.training and net.config == TINY and next(net.parameters()).device.type == "cpu"
    assert_equal_weights(net, run.model)
    images = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = srcell.rate_encode(images, TINY.steps, prefix=TINY.prefix, gain=TINY.gain, seed=0)
    assert net.encoder is not None and net.encoder(images) == expected
    other = srcell.rate_encode(images, TINY.steps, prefix=TINY.prefix, gain=TINY.gain, seed=7, index=[4, 5, 6])
    assert net.encoder(images, torch.tensor([4, 5, 6]), seed=7) == other
    assert torch.equal(net(expected), run.model(expected))
    _, record = read_checkpoint(out / "model.safetensors")
    assert (record["input_shape"], record["num_classes"]) == ([1, 8, 8], 10)
    with pytest.raises(ValueError, match="device: expected one that is there, got 'nowhere'"):
        srcell.load(out, device="nowhere")


@pytest.mark.parametrize(
    ("dataset", "channels", "shape"),
    [
        ("digits", (), (1, 8, 8)),
        ("mnist", (), (1, 28, 28)),
        ("fashion-mnist", (2,), (1, 28, 28)),
        ("nmnist", (2,), (2, 34, 34)),
    ],
)
def test_a_folder_of_srcell_0_1_is_loaded_too(
    dataset: str, channels: tuple[int, ...], shape: tuple[int, int, int], tmp_path: Path
) -> None:
    config = replace(TINY, dataset=dataset, channels=channels)
    (tmp_path / "config.json").write_text(json.dumps({"training": asdict(config), "environment": {"version": "0.1.0"}}))
    model = build_model(config, shape, 10)
    weights = {name: x for name, x in model.state_dict().items() if not name.endswith("_extra_state")}
    write_checkpoint(tmp_path / "model.safetensors", weights, {"config": asdict(config)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = srcell.load(tmp_path)
    assert_equal_weights(net, model)
    assert (net.encoder is None) == (dataset == "nmnist")


def test_importing_srcell_needs_numpy_and_torch_alone() -> None:
    names = {"safetensors", "matplotlib", "sklearn", "torchvision", "srcell.training", "srcell.run_folder"}
    program = f"import sys, srcell; print({names} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# The cells' constants in files


class Constants(nn.Module):
    """A module whose state_dict has constants beside its weight, as a layer's has."""

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
