"""Training with delays: widths of each epoch, learnt and whole delays, resumed runs, run folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import srcell
from srcell import data
from srcell.data import Dataset
from srcell.events import EventBatch
from srcell.training import Trainer, TrainingConfig, build_model, evaluate, evaluate_run, resume, train
from srcell.training.optimisation import delay_width, delays_are_fixed
from srcell.training.run_folder import RunFolder
from support.processes import run_python
from support.runs import all_steps, assert_equal_weights, assert_resumes_at, run_to_the_end

FIXED: dict[str, Any] = {"input_delay": 10, "recurrent_delay": 8, "recurrent": True}
SMALL: dict[str, Any] = {"hidden_sizes": (8,), "epochs": 3, "steps": 20, "seed": 3, "train_samples": 96}
# Three epochs of three steps, with widths of 4, 2 and 1. The learning rate of delays exceeds 1, as none of weights may.
LEARNT = TrainingConfig(
    **SMALL, **FIXED, batch_size=32, taps=2, learn_delays=True, delay_width=(4, 1), delay_learning_rate=3.0
)
WHOLE = replace(LEARNT, whole_delays=True)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return data.load("digits")


def copies_of_delays(trainer: Trainer) -> dict[int, Tensor]:
    return {k: x.detach().clone() for k, x in trainer.model.delays.items()}


def test_the_network_has_the_delays_of_the_configuration(digits: Dataset) -> None:
    model = Trainer(LEARNT, digits).model
    assert model.delay is not None
    assert (model.delay.max_delay, model.delay.taps, model.layers[0].max_delay) == (10, 2, 8)
    assert all(x.requires_grad for x in model.delays.values())
    fixed = Trainer(TrainingConfig(**SMALL, **FIXED, whole_delays=True), digits).model
    assert all(torch.equal(x, x.round()) and not x.requires_grad for x in fixed.delays.values())


@pytest.mark.parametrize(
    ("epochs", "widths", "expected"),
    [
        (1, (8, 1), [1]),
        (2, (8, 1), [8, 1]),
        (4, (8, 1), [8, 3, 1, 1]),
        (6, (8, 1), [8, 4, 2, 1, 1, 1]),
        (3, (5,), [5, 5, 5]),
        (3, (9, 4), [9, 6, 4]),
    ],
)
def test_the_width_falls_geometrically_over_the_first_half_of_the_epochs(
    epochs: int, widths: tuple[int, ...], expected: list[int]
) -> None:
    config = replace(LEARNT, epochs=epochs, delay_width=widths)
    assert [delay_width(config, epoch) for epoch in range(1, epochs + 1)] == expected
    model = build_model(config, (1, 8, 8), 10)
    assert model.delay is not None and model.delay.delay_width == model.layers[0].delay_width == expected[-1]


@pytest.mark.parametrize("config", [LEARNT, WHOLE], ids=["learnt", "whole"])
def test_each_epoch_trains_and_validates_with_its_width(config: TrainingConfig, digits: Dataset) -> None:
    trainer = Trainer(config, digits)
    model, train_batch, found = trainer.model, trainer._train_batch, []

    def recording(events: EventBatch, labels: Tensor) -> None:
        assert model.delay is not None
        found.append((model.delay.delay_width, model.layers[0].delay_width))
        train_batch(events, labels)

    trainer._train_batch = recording  # type: ignore[method-assign]
    for width in (4, 2, 1):
        list(trainer.train_epoch())
        loss = trainer.finish_epoch().validation_loss
        assert evaluate(model, trainer._validation).loss == loss
        if width > 1:
            model.set_delay_width(1)
            assert evaluate(model, trainer._validation).loss != loss
    assert found == [(width, width) for width in (4, 2, 1) for _ in range(3)]


def test_delays_move_only_if_they_are_learnt_and_stay_in_their_range(digits: Dataset) -> None:
    for config in (LEARNT, replace(LEARNT, learn_delays=False, delay_width=(1,), delay_learning_rate=0.3)):
        trainer = Trainer(config, digits)
        before = copies_of_delays(trainer)
        for _ in all_steps(trainer):
            for k, most in ((0, 10), (1, 8)):
                values = trainer.model.delays[k]
                assert values.min() >= 0 and values.max() <= most
                assert torch.equal(values, before[k]) != config.learn_delays


@pytest.mark.parametrize("part", ["input_delay", "recurrent_delay"])
def test_each_part_may_have_delays_alone(part: str, digits: Dataset) -> None:
    config = replace(WHOLE, epochs=2, **{"taps": 1, "input_delay": 0, "recurrent_delay": 0, part: 6})
    trainer = Trainer(config, digits)
    before = copies_of_delays(trainer)
    after = copies_of_delays(run_to_the_end(trainer))
    assert list(before) == list(after) == [0 if part == "input_delay" else 1]
    assert all(not torch.equal(after[k], before[k].round()) for k in after)


def test_whole_delays_are_fixed_before_the_last_epoch_in_which_the_weights_adapt(digits: Dataset) -> None:
    trainer = Trainer(WHOLE, digits)
    for _ in range(2):
        list(trainer.train_epoch())
        trainer.finish_epoch()
    learnt = copies_of_delays(trainer)
    weights = [layer.weight_ih_l0.detach().clone() for layer in trainer.model.layers]
    assert all(not torch.equal(x, x.round()) for x in learnt.values())
    for _ in trainer.train_epoch():
        for k, values in trainer.model.delays.items():
            assert torch.equal(values, learnt[k].round()) and values.grad is None
    assert all(not torch.equal(layer.weight_ih_l0, x) for layer, x in zip(trainer.model.layers, weights, strict=True))
    assert trainer.finish_epoch().epoch == 3


def test_whole_delays_are_fixed_in_the_last_quarter_of_the_epochs() -> None:
    for epochs, fixed in ((2, 1), (3, 1), (7, 1), (8, 2), (20, 5)):
        config = replace(WHOLE, epochs=epochs)
        found = [delays_are_fixed(config, epoch) for epoch in range(1, epochs + 1)]
        assert found == [False] * (epochs - fixed) + [True] * fixed
    assert not delays_are_fixed(LEARNT, LEARNT.epochs)


@pytest.mark.parametrize(
    ("config", "stops"),
    [(LEARNT, range(1, 10)), (WHOLE, range(1, 10)), (replace(WHOLE, epochs=8), (17, 19, 23))],
    ids=["learnt", "whole", "whole for two epochs"],
)
def test_a_run_resumed_from_any_step_ends_with_the_same_weights(
    config: TrainingConfig, stops: Sequence[int], digits: Dataset
) -> None:
    config = replace(config, dropout=0.3, weight_decay=0.01, clip_norm=1.0)
    assert_resumes_at(stops, config, digits)


def test_a_checkpoint_between_two_epochs_resumes_to_the_same_weights(digits: Dataset) -> None:
    undisturbed = Trainer(WHOLE, digits)
    for _ in range(2):
        list(undisturbed.train_epoch())
        undisturbed.finish_epoch()
    state = undisturbed.state()
    resumed = Trainer(WHOLE, digits)
    resumed.load_state(*state)
    assert_equal_weights(run_to_the_end(resumed).model, run_to_the_end(undisturbed).model)


def test_clipping_leaves_the_gradients_of_delays_out(digits: Dataset) -> None:
    free, clipped = (Trainer(replace(LEARNT, clip_norm=most), digits) for most in (0.0, 1e-3))
    for trainer in (free, clipped):
        next(trainer.train_epoch())
    delays = {id(x) for x in clipped.model.delays.values()}
    norms = [x.grad.norm() for x in clipped.model.parameters() if id(x) not in delays and x.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-4)
    for k, x in clipped.model.delays.items():
        assert x.grad is not None and x.grad.norm() > 1e-3 and torch.equal(x.grad, free.model.delays[k].grad)


def test_rate_penalty_and_balanced_gradients_train_delays_too(digits: Dataset) -> None:
    config = replace(LEARNT, epochs=1, hidden_sizes=(8, 6), rate_penalty=9.0, balance_gradients=True, dropout=0.2)
    trainer = Trainer(config, digits)
    before = copies_of_delays(trainer)
    after = copies_of_delays(run_to_the_end(trainer))
    assert list(after) == [0, 1, 2] and all(not torch.equal(after[k], before[k]) for k in after)


@pytest.mark.parametrize(
    "config",
    [replace(WHOLE, readout="linear"), replace(TrainingConfig(**SMALL, **FIXED), epochs=1)],
    ids=["whole", "fixed"],
)
def test_a_run_is_loaded_and_evaluated_with_its_delays(config: TrainingConfig, tmp_path: Path) -> None:
    run = train(config, tmp_path)
    network = srcell.load(tmp_path)
    assert network.config == config and network.delay is not None
    assert_equal_weights(network, run.model)
    assert (network.delay.delay_width, network.layers[0].delay_width) == (1, 1)
    images = data.load("digits").test.images[:20]
    assert network.encoder is not None
    events = network.encoder(images)
    assert torch.equal(network(events), run.model(events))
    assert evaluate_run(RunFolder.open(tmp_path)).accuracy == run.evaluation.accuracy
    model = (tmp_path / "model.safetensors").read_bytes()
    assert_equal_weights(resume(tmp_path).model, run.model)
    assert (tmp_path / "model.safetensors").read_bytes() == model
    report = (tmp_path / "report.html").read_text()
    assert "<td>input_delay</td><td>10</td>" in report
    assert (tmp_path / "delays.png").exists() == ("Delays</h2>" in report) == config.learn_delays


SHARED = """
import sys
import torch
from srcell import data
from srcell._shared.processes import processes
from srcell.training import Trainer, TrainingConfig
from support.runs import run_to_the_end
from test_delayed_training import WHOLE

with processes() as group:
    trainer = run_to_the_end(Trainer(WHOLE, data.load("digits"), group=group))
    torch.save(trainer.model.state_dict(), f"{sys.argv[1]}.{group.rank}")
    trainer.leave()
"""


@pytest.mark.release
def test_two_processes_fix_whole_delays_and_keep_the_same_weights(tmp_path: Path) -> None:
    script, out = tmp_path / "shared.py", tmp_path / "out"
    tests = Path(__file__).parent
    script.write_text(f"import sys\nsys.path.insert(0, {str(tests)!r})\n{SHARED}")
    done = run_python(str(script), str(out))
    assert done.returncode == 0, done.stderr
    ours, theirs = (torch.load(f"{out}.{rank}", weights_only=True) for rank in range(2))
    assert all(torch.equal(x, theirs[name]) for name, x in ours.items())
    delays = [x for name, x in ours.items() if "delay" in name]
    assert len(delays) == 2 and all(torch.equal(x, x.round()) for x in delays)
