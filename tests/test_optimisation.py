"""Training steps: the loss, the optimiser's parameter groups, the schedule, the order of the samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcell.data import Dataset, LabelledImages
from srcell.events import EventBatch
from srcell.training import Trainer, TrainingConfig
from srcell.training.optimisation import make_optimizer, make_schedule

SAMPLES = 12


def make_trainer(**settings: Any) -> Trainer:
    """A trainer with few samples, each of its own class, so that labels identify samples."""
    images = torch.rand(SAMPLES, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    samples = LabelledImages(images, torch.arange(SAMPLES))
    small = {"hidden_sizes": (6,), "epochs": 3, "batch_size": 4, "steps": 25, "validation": 0.0}
    return Trainer(TrainingConfig(**{**small, **settings}), Dataset(samples, samples, SAMPLES, (1, 4, 4)))


@pytest.mark.parametrize(
    "settings",
    [{}, {"label_smoothing": 0.3}, {"rate_penalty": 50.0, "target_rate": 0.2}],
    ids=["cross-entropy", "label smoothing", "rate penalty"],
)
def test_a_step_follows_the_gradient_of_the_objective(settings: dict[str, float]) -> None:
    trainer = make_trainer(hidden_sizes=(6, 5), **settings)
    trainer.model.double()
    trainer.loader.set_epoch(1)
    events, labels = next(iter(trainer.loader))
    *hidden, last = trainer.model.layer_spikes(events)
    logits = trainer.model.readout(last)
    loss = F.cross_entropy(logits, labels, label_smoothing=settings.get("label_smoothing", 0.0))
    deviations = [layer.mean((0, 1)) - settings.get("target_rate", 0.0) for layer in hidden]
    penalty = sum(deviation.square().mean() for deviation in deviations)
    parameters = list(trainer.model.parameters())
    expected = torch.autograd.grad(loss + settings.get("rate_penalty", 0.0) * penalty, parameters)
    if settings:
        (plain,) = torch.autograd.grad(F.cross_entropy(trainer.model(events), labels), parameters[:1])
        assert not torch.allclose(expected[0], plain, rtol=1e-2)
    next(trainer.train_epoch())
    assert trainer.tally.loss == pytest.approx(loss.item(), rel=1e-12)
    for parameter, gradient in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-12, atol=1e-16)


def test_clip_norm_bounds_the_norm_of_the_gradients() -> None:
    trainer = make_trainer(clip_norm=1e-3)
    next(trainer.train_epoch())
    norms = [x.grad.norm() for x in trainer.model.parameters() if x.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-4)


DELAYS: dict[str, Any] = {"input_delay": 6, "taps": 2, "recurrent": True, "recurrent_delay": 5, "learn_delays": True}


def test_weights_decay_and_biases_and_delays_do_not() -> None:
    trainer = make_trainer(weight_decay=0.25, learning_rate=0.1, **DELAYS)
    optimizer = make_optimizer(trainer.config, trainer.model)
    before = {name: x.detach().clone() for name, x in trainer.model.named_parameters()}
    for x in trainer.model.parameters():
        x.grad = torch.zeros_like(x)
    optimizer.step()
    for name, x in trainer.model.named_parameters():
        kept = 1 - 0.25 * 0.1 if "weight" in name else 1.0
        assert torch.allclose(x, before[name] * kept, rtol=1e-6, atol=0), name
    assert {name.split(".")[-1].split("_")[0] for name in before} == {"weight", "bias", "delay"}


@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
def test_delays_have_a_learning_rate_of_their_own_on_the_same_schedule(schedule: str) -> None:
    trainer = make_trainer(learning_rate=0.02, delay_learning_rate=1.5, schedule=schedule, **DELAYS)
    weights, biases, delays = trainer.optimizer.param_groups
    assert [id(x) for x in delays["params"]] == [id(x) for x in trainer.model.delays.values()]
    for _ in trainer.train_epoch():
        assert weights["lr"] == biases["lr"] and delays["lr"] == pytest.approx(75 * weights["lr"], rel=1e-12)
    for settings in ({}, DELAYS | {"learn_delays": False}):  # as in checkpoints of versions without delays
        assert len(make_trainer(**settings).optimizer.param_groups) == 2


def scheduled_rates(steps: int, **settings: Any) -> list[float]:
    """The learning rate of each step of a schedule; both parameter groups have the same."""
    trainer = make_trainer(**settings)
    optimizer = make_optimizer(trainer.config, trainer.model)
    schedule = make_schedule(trainer.config, optimizer, steps)
    rates = []
    for _ in range(steps):
        (rate,) = {group["lr"] for group in optimizer.param_groups}
        rates.append(rate)
        optimizer.step()
        schedule.step()
    return rates


def test_one_cycle_rises_to_the_learning_rate_and_falls_to_zero() -> None:
    rates = scheduled_rates(100, learning_rate=0.02)
    peak = rates.index(max(rates))
    assert rates[peak] == pytest.approx(0.02, rel=1e-3)
    assert 25 <= peak <= 35
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] == pytest.approx(0.02 / 25) and rates[-1] < 1e-4


def test_a_constant_schedule_keeps_the_learning_rate() -> None:
    assert scheduled_rates(10, learning_rate=0.02, schedule="constant") == [0.02] * 10


def test_a_run_completes_its_schedule_once() -> None:
    trainer = make_trainer(learning_rate=0.02)
    rates = []
    for _ in range(trainer.config.epochs):
        for _ in trainer.train_epoch():
            rates.append(trainer.optimizer.param_groups[0]["lr"])
        assert trainer.finish_epoch().learning_rate == (rates[-2] if len(rates) > 1 else rates[0])
    assert len(rates) == 9 and rates[-1] < 1e-6  # the rate of the step after the last


def orders(**settings: Any) -> list[list[int]]:
    """The samples of each epoch of a run in the order in which they are trained on."""
    trainer = make_trainer(**settings)
    train_batch, found = trainer._train_batch, []

    def recording(events: EventBatch, labels: Tensor) -> None:
        found[-1] += labels.tolist()
        train_batch(events, labels)

    trainer._train_batch = recording
    for _ in range(trainer.config.epochs):
        found.append([])
        list(trainer.train_epoch())
        trainer.finish_epoch()
    return found


def test_each_epoch_has_its_own_order_of_samples_from_the_seed() -> None:
    found = orders(seed=5)
    assert all(sorted(order) == list(range(SAMPLES)) for order in found)
    assert len({tuple(order) for order in found}) == 3
    assert orders(seed=5) == found
    assert orders(seed=6) != found


def test_the_test_set_keeps_its_order_and_its_spikes() -> None:
    trainer = make_trainer()
    first, again = (next(iter(trainer.test_loader()))[0] for _ in range(2))
    assert first == again
    assert torch.cat([labels for _, labels in trainer.test_loader(3)]).tolist() == list(range(SAMPLES))
