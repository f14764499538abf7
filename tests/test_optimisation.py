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


def first_batch(trainer: Trainer) -> tuple[EventBatch, Tensor]:
    trainer.loader.set_epoch(1)
    events, labels = next(iter(trainer.loader))
    return events, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_with_smoothed_labels(smoothing: float) -> None:
    trainer = make_trainer(label_smoothing=smoothing)
    events, labels = first_batch(trainer)
    with torch.no_grad():
        logits = trainer.model(events)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing).item()
    next(trainer.train_epoch())
    assert trainer.tally.loss == pytest.approx(expected, rel=1e-6)
    if smoothing:
        assert trainer.tally.loss != pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-3)


def test_a_step_follows_the_gradient_of_the_mean_loss() -> None:
    trainer = make_trainer(label_smoothing=0.1, schedule="constant")
    events, labels = first_batch(trainer)
    F.cross_entropy(trainer.model(events), labels, label_smoothing=0.1).backward()
    expected = [x.grad.clone() for x in trainer.model.parameters() if x.grad is not None]
    trainer.model.zero_grad()
    next(trainer.train_epoch())
    made = [x.grad for x in trainer.model.parameters() if x.grad is not None]
    assert len(made) == len(expected) > 0
    assert all(torch.allclose(x, y, rtol=1e-5, atol=1e-8) for x, y in zip(made, expected, strict=True))


def test_gradients_of_a_larger_norm_are_scaled_down_to_it() -> None:
    trainer = make_trainer(clip_norm=1e-3)
    next(trainer.train_epoch())
    norms = [x.grad.norm() for x in trainer.model.parameters() if x.grad is not None]
    assert torch.stack(norms).norm().item() == pytest.approx(1e-3, rel=1e-4)


def test_weights_decay_and_biases_do_not() -> None:
    trainer = make_trainer(weight_decay=0.25, learning_rate=0.1)
    optimizer = make_optimizer(trainer.config, trainer.model)
    before = {name: x.detach().clone() for name, x in trainer.model.named_parameters()}
    for x in trainer.model.parameters():
        x.grad = torch.zeros_like(x)
    optimizer.step()
    for name, x in trainer.model.named_parameters():
        kept = 1 - 0.25 * 0.1 if "weight" in name else 1.0
        assert torch.allclose(x, before[name] * kept, rtol=1e-6, atol=0), name
    assert {name.split(".")[-1].split("_")[0] for name in before} == {"weight", "bias"}


def test_one_cycle_goes_up_to_the_learning_rate_and_down_to_nothing() -> None:
    trainer = make_trainer(learning_rate=0.02)
    optimizer = make_optimizer(trainer.config, trainer.model)
    schedule = make_schedule(trainer.config, optimizer, 100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert max(rates) == pytest.approx(0.02, rel=1e-3)
    peak = rates.index(max(rates))
    assert 25 <= peak <= 35
    assert rates[: peak + 1] == sorted(rates[: peak + 1]) and rates[peak:] == sorted(rates[peak:], reverse=True)
    assert rates[0] == pytest.approx(0.02 / 25) and rates[-1] < 1e-4


def test_a_constant_schedule_stays() -> None:
    trainer = make_trainer(learning_rate=0.02, schedule="constant")
    optimizer = make_optimizer(trainer.config, trainer.model)
    schedule = make_schedule(trainer.config, optimizer, 10)
    for _ in range(10):
        assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.02]
        optimizer.step()
        schedule.step()


def test_a_run_goes_through_its_schedule_once() -> None:
    trainer = make_trainer(learning_rate=0.02)
    rates = []
    for _ in range(trainer.config.epochs):
        for _ in trainer.train_epoch():
            rates.append(trainer.optimizer.param_groups[0]["lr"])
        assert trainer.finish_epoch().learning_rate == (rates[-2] if len(rates) > 1 else rates[0])
    assert len(rates) == 9 and rates[-1] < 1e-6  # the rate of the step after the last


def orders(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The samples of each epoch in the order in which they are trained on."""
    seen: list[int] = []
    step = trainer._train_batch

    def recorded(events: EventBatch, labels: Tensor) -> None:
        seen.extend(labels.tolist())
        step(events, labels)

    monkeypatch.setattr(trainer, "_train_batch", recorded)
    found = []
    for _ in range(trainer.config.epochs):
        seen.clear()
        list(trainer.train_epoch())
        trainer.finish_epoch()
        found.append(list(seen))
    return found


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    found = orders(make_trainer(seed=5), monkeypatch)
    assert all(sorted(order) == list(range(SAMPLES)) for order in found)
    assert len({tuple(order) for order in found}) == 3
    assert orders(make_trainer(seed=5), monkeypatch) == found
    assert orders(make_trainer(seed=6), monkeypatch) != found


def test_each_epoch_has_spikes_of_its_own_and_the_test_set_keeps_its_own() -> None:
    trainer = make_trainer()
    by_epoch = []
    for epoch in (1, 2):
        trainer.loader.set_epoch(epoch)
        by_epoch.append(
            sorted((int(labels[k]), int(events[k].num_events)) for events, labels in trainer.loader for k in range(4))
        )
    assert by_epoch[0] != by_epoch[1]
    first, again = (next(iter(trainer.test_loader()))[0] for _ in range(2))
    assert first == again
    assert torch.cat([labels for _, labels in trainer.test_loader(3)]).tolist() == list(range(SAMPLES))
