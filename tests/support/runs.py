"""The configuration of a small run, and helpers that train it step by step."""

from __future__ import annotations

import copy
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
    trainer.finish()


def run_to_the_end(trainer: Trainer) -> Trainer:
    for _ in all_steps(trainer):
        pass
    return trainer


def assert_equal_weights(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    weights, expected = ours.state_dict(), theirs.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def assert_resumes_at(
    stops: Iterable[int], config: TrainingConfig, dataset: Dataset, model: torch.nn.Module | None = None
) -> Trainer:
    """Stop after each of these numbers of steps; a run resumed from there must end as the undisturbed one, returned."""

    def begun() -> Trainer:
        return Trainer(config, dataset, model=copy.deepcopy(model))

    undisturbed = run_to_the_end(begun())
    expected = repr([row._replace(seconds=0) for row in undisturbed.history])  # NaN is not equal to itself
    for stop in stops:
        first, second = begun(), begun()
        for _ in islice(all_steps(first), stop):
            torch.rand(3)  # the state of torch's generator has no influence
        tensors, record = first.state()
        second.load_state(tensors, json.loads(json.dumps(record)))
        assert_equal_weights(run_to_the_end(second).model, undisturbed.model)
        assert repr([row._replace(seconds=0) for row in second.history]) == expected
    return undisturbed
