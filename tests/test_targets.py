"""Targets are standardised in a training, and the trained network answers in their unit, wherever it runs."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import data
from srcell.cli import main
from srcell.data import LabelledEvents, LabelledImages, LabelledSequences
from srcell.events import EventBatch
from srcell.training import Observer, Trainer, TrainingConfig, train
from srcell.training.targets import r2_of_mean, scale_of, standardised
from support.runs import assert_resumes_at

SETTINGS: dict[str, Any] = {"epochs": 20, "batch_size": 20, "learning_rate": 1e-2, "validation": 0.1}


def levels(count: int = 120, steps: int = 50) -> tuple[np.ndarray, np.ndarray]:
    """Sequences in noise, whose level is the target, in a unit of its own."""
    generator = np.random.default_rng(0)
    target = 0.02 + 0.004 * generator.normal(size=count)
    return 200 * (target[:, None, None] - 0.02) + generator.normal(size=(count, steps, 1)), target[:, None]


def network(values: int = 1, inputs: int = 1, **options: Any) -> srcell.Sequential:
    torch.manual_seed(0)
    return srcell.Sequential(
        srcell.SRC.for_sequences(inputs, 16, memory=50), srcell.LinearReadout(16, values, alpha=0.9, **options)
    )


def test_a_target_in_a_small_unit_is_learnt_and_the_network_answers_in_it(tmp_path: Path) -> None:
    x, y = levels()
    run = train(network(), (x[:80], y[:80], x[80:], y[80:]), tmp_path / "run", **SETTINGS)
    assert run.evaluation.r2 > 0.3 > run.evaluation.r2_of_mean
    with torch.no_grad():
        answers = run.model(torch.tensor(x[80:], dtype=torch.float32).transpose(0, 1))
    errors = answers - torch.tensor(y[80:])
    assert run.evaluation.loss == pytest.approx(float(errors.square().mean()), rel=1e-4)
    # Losses of epochs are in units of the variance: 1 is the error of the mean.
    assert run.history[0].train_loss < 10 and run.history[-1].train_loss < 0.8
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_r2_of_mean"] == run.evaluation.r2_of_mean
    # Without, the first loss is that of an output of order 1 beside targets of 0.02.
    plain = train(
        network(), (x[:80], y[:80], x[80:], y[80:]), tmp_path / "plain", standardise_targets=False, **SETTINGS
    )
    assert plain.evaluation.r2 < run.evaluation.r2


def test_an_exported_network_answers_in_the_unit_of_the_targets(tmp_path: Path) -> None:
    x, y = levels()
    model = train(network(), (x, 1e3 * y + 5e3), tmp_path / "run", **SETTINGS | {"epochs": 1}).model
    srcell.export(model, tmp_path / "net.srcell")
    few = x[:4].astype(np.float32)
    with torch.no_grad():
        wanted = model(torch.tensor(few).transpose(0, 1))
    found = srcell.runtime.load(tmp_path / "net.srcell").run(few.transpose(1, 0, 2))
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5)
    assert (abs(found - 5e3) < 100).all()


def test_each_value_of_every_step_has_its_own_mean_over_the_steps_that_exist() -> None:
    lengths = torch.tensor([3, 1])
    targets = torch.tensor([[[1.0, 10], [2, 10], [3, 10]], [[6, 10], [99, 99], [99, 99]]])
    samples = LabelledSequences(torch.zeros(2, 3, 1), targets, lengths)
    scale = scale_of(samples)
    assert scale.mean.tolist() == [3.0, 10.0] and scale.deviation.tolist() == pytest.approx([math.sqrt(3.5), 1.0])
    made = standardised(samples, scale).labels
    assert torch.equal(made[0], (targets[0] - scale.mean) / scale.deviation)
    of_events = LabelledEvents(EventBatch.from_dense(torch.zeros(3, 2, 1), lengths), targets)
    assert torch.equal(scale_of(of_events).mean, scale.mean)
    assert r2_of_mean(samples, scale) == 0
    other = LabelledSequences(torch.zeros(2, 3, 1), targets + 1, lengths)
    assert r2_of_mean(other, scale) == pytest.approx(1 - (14 + 4 + 4) / 14)
    whole = LabelledImages(torch.zeros(2, 1, 1), torch.tensor([[1.0], [3.0]]))
    assert standardised(whole, scale_of(whole)).labels.tolist() == [[-1.0], [1.0]]


def test_a_run_on_standardised_targets_resumes_with_the_same_bits() -> None:
    x, y = levels(40, 12)
    dataset = data.from_arrays(x, y)
    config = TrainingConfig(dataset="own", **SETTINGS | {"epochs": 3, "patience": 2})
    trainer = assert_resumes_at([2, 5], config, dataset, network())
    last = trainer.model[1].linear
    trainer.finish()  # once only
    assert torch.equal(trainer.model[1].linear.weight, last.weight)
    assert float(trainer.model[1].linear.bias.detach()) == pytest.approx(0.02, abs=0.004)


def test_a_network_that_has_learnt_its_targets_goes_on_from_there(tmp_path: Path) -> None:
    x, y = levels()
    model = train(network(), (x, y + 7), tmp_path / "first", **SETTINGS).model
    again = train(model, (x, y + 7), tmp_path / "again", **SETTINGS | {"epochs": 1, "learning_rate": 1e-6})
    assert again.history[0].train_loss < 0.8
    assert again.evaluation.r2 > 0.3


def test_a_network_that_answers_the_mean_goes_on_from_there(tmp_path: Path) -> None:
    x, y = levels(40, 12)
    model = network()
    with torch.no_grad():
        model[1].linear.weight.zero_()
        model[1].linear.bias.fill_(1000)
    run = train(model, (x, 1000 + 1e4 * (y - 0.02)), tmp_path / "run", **SETTINGS | {"epochs": 1})
    assert run.history[0].train_loss < 3


class Branch(nn.Module):
    """A network with a branch that begins at 0, so that its readout is not all that ends it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = srcell.SRC.for_sequences(1, 8), srcell.LinearReadout(8, 1)
        self.beside = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.beside.weight)

    def forward(self, input: Tensor) -> Tensor:
        return self.readout(self.layer(input)[0]) + self.beside(input[-1])


class Bounded(Branch):
    """A network whose answers are cut off where those of standardised targets never are."""

    def forward(self, input: Tensor) -> Tensor:
        return self.readout(self.layer(input)[0]).clamp(-500, 500)


@pytest.mark.parametrize("kind", [Branch, Bounded])
def test_what_a_training_may_bring_to_light_is_seen_before_it(kind: type[nn.Module]) -> None:
    x, y = levels(40, 12)
    config, model = TrainingConfig(dataset="own", **SETTINGS), kind()
    with pytest.warns(UserWarning, match="targets: not standardised"):
        Trainer(config, data.from_arrays(x, 1000 + 1e4 * (y - 0.02)), model=model)
    assert not model.beside.weight.any()


def test_a_run_is_not_resumed_with_another_decision() -> None:
    x, y = levels(40, 12)
    dataset, settings = data.from_arrays(x, y), SETTINGS | {"epochs": 2}
    first = Trainer(TrainingConfig(dataset="own", **settings), dataset, model=network())
    next(first.train_epoch())
    tensors, record = first.state()
    assert record["standardised"]
    second = Trainer(TrainingConfig(dataset="own", **settings), dataset, model=network())
    with pytest.raises(ValueError, match="as it was built, for a run that began with no standardised targets"):
        second.load_state(tensors, record | {"standardised": False})


def test_an_error_leaves_a_network_in_the_unit_of_the_targets(tmp_path: Path) -> None:
    class Stops(Observer):
        def on_batch(self, *_: Any) -> None:
            raise KeyError("stop")

    x, y = levels()
    model = train(network(), (x, y + 7), tmp_path / "run", **SETTINGS).model
    with pytest.raises(KeyError):
        train(model, (x, y + 7), tmp_path / "again", Stops(), **SETTINGS)
    with torch.no_grad():
        assert (model(torch.tensor(x, dtype=torch.float32).transpose(0, 1)) - 7).abs().max() < 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_dtype_learns_standardised_targets(dtype: torch.dtype) -> None:
    x, y = levels(40, 12)
    trainer = Trainer(TrainingConfig(dataset="own", **SETTINGS), data.from_arrays(x, y), model=network().to(dtype))
    assert trainer.state()[1]["standardised"]


def test_targets_that_are_not_finite(tmp_path: Path) -> None:
    x, y = levels(40, 12)
    dataset = data.from_arrays(x, y)
    dataset.test.labels[0] = math.nan
    run = train(network(), dataset, tmp_path / "run", **SETTINGS | {"epochs": 1})
    assert math.isnan(run.evaluation.r2) and math.isnan(run.evaluation.r2_of_mean)
    dataset.train.labels[:] = math.nan
    with pytest.raises(ValueError, match=r"dataset: expected targets with a mean and a deviation \(values: expected f"):
        train(network(), dataset, tmp_path / "other", **SETTINGS)


class Clamped(nn.Module):
    """A network whose outputs are no linear map of anything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.readout = srcell.SRC.for_sequences(1, 8), srcell.LinearReadout(8, 1)

    def forward(self, input: Tensor) -> Tensor:
        return self.readout(self.layer(input)[0]).relu()


def test_a_network_without_a_last_linear_map_learns_the_targets_as_they_are(tmp_path: Path) -> None:
    x, y = levels(40, 12)
    model = Clamped()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.warns(UserWarning, match="targets: not standardised, because the network does not end in a LinearR"):
        trainer = Trainer(TrainingConfig(dataset="own", **SETTINGS), data.from_arrays(x, y), model=model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(trainer.loader.samples.labels.sort(0)[0], trainer.loader.samples.labels.abs().sort(0)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a setting that was chosen is no surprise
        settings = SETTINGS | {"epochs": 1, "standardise_targets": False}
        assert train(Clamped(), (x, y), tmp_path / "run", **settings).evaluation.r2 < 0


def test_labels_are_left_alone(tmp_path: Path) -> None:
    x, _ = levels(40, 12)
    run = train(network(2), (x, np.arange(40) % 2), tmp_path / "run", **SETTINGS | {"epochs": 1})
    assert math.isnan(run.evaluation.r2_of_mean)


def test_a_run_that_was_begun_before_the_setting_existed_goes_on_without() -> None:
    settings = TrainingConfig().__dict__ | {}
    del settings["standardise_targets"]
    assert TrainingConfig().standardise_targets and not TrainingConfig.from_dict(settings).standardise_targets


def test_training_says_when_it_is_worse_than_the_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(
        "import numpy as np\ng = np.random.default_rng(0)\n"
        "def load(): return g.normal(size=(30, 8, 2)), 1e-3 * g.normal(size=30)"
    )
    assert main(["train", "m.py:load", "--epochs", "30", "--hidden", "32", "--out", "run"]) == 0
    printed = capsys.readouterr().out
    assert "test error 0.00" in printed and "(root mean square), R2 -" in printed
    assert "warning: worse than the mean of the training targets (R2 -" in printed
    assert "more dropout" in printed.splitlines()[-1]
    assert "worse than the mean of the training targets" in Path("run/report.html").read_text()
