"""The configuration of a small run, and helpers that train it step by step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice

import torch

from srcell.data import Dataset
from srcell.training import Trainer, TrainingConfig

TINY = TrainingConfig(hidden_sizes=(16,), epochs=2, steps=20, seed=3)


def all_steps(trainer: Trainer) -> Iterator[float]:
    while not trainer.ended:
        yield from trainer.train_epoch()
        trainer.finish_epoch()
    trainer.keep_best()


def run_to_the_end(trainer: Trainer) -> Trainer:
    for _ in all_steps(trainer):
        pass
    return trainer


def assert_equal_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    weights, expected = ours.state_dict(), theirs.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def assert_resumes_at(stops: Iterable[int], config: TrainingConfig, dataset: Dataset) -> None:
    """Stop after each of these numbers of steps; a run resumed from there must end as an undisturbed one does."""
    undisturbed = run_to_the_end(Trainer(config, dataset))
    expected = [row._replace(seconds=0) for row in undisturbed.history]
    for stop in stops:
        first = Trainer(config, dataset)
        for _ in islice(all_steps(first), stop):
            pass
        tensors, record = first.state()
        second = Trainer(config, dataset)
        second.load_state(tensors, json.loads(json.dumps(record)))
        assert_equal_weights(run_to_the_end(second).model, undisturbed.model)
        assert [row._replace(seconds=0) for row in second.history] == expected
