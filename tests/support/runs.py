"""The configuration of a small run, and helpers that train it step by step."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from srcell.training import Trainer, TrainingConfig

TINY = TrainingConfig(hidden_sizes=(16,), epochs=2, steps=20, seed=3)


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
