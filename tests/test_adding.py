"""Binary adding: the recordings are the same everywhere, and nothing but the marked bits tells the classes apart."""

from __future__ import annotations

from functools import cache
from unittest import mock

import pytest
import torch
from torch import Tensor

from srcell import data
from srcell.data import Dataset, LabelledEvents, load_adding
from support.recordings import digest_of
from support.refusals import Refusal, refusals

DIGESTS = {
    "train": "18635cc118f608df8d2ef6697fd4cb96b0802fb27a32ecab19ea259af0a5355b",
    "test": "6f1bddd31b753ba83a6b103837dc03e0d4f38685539ef907de22534d6ae22d77",
}


@cache
def loaded(marks: int = 2, prefix: int = 0) -> Dataset:
    """Recordings of 600 and 500 samples."""
    with mock.patch("srcell.data.generated.ADDING_SAMPLES", (600, 500)):
        return load_adding(marks=marks, prefix=prefix)


def part_of(name: str, marks: int = 2, prefix: int = 0) -> LabelledEvents:
    part = getattr(loaded(marks, prefix), name)
    assert isinstance(part, LabelledEvents)
    return part


@cache
def whole() -> Dataset:
    return load_adding()


def inputs_of(part: LabelledEvents) -> tuple[Tensor, ...]:
    """The bits, their complements and the marks, each (T, B)."""
    return part.events.to_dense(torch.float32).unbind(2)


@pytest.mark.parametrize("name", DIGESTS)
def test_the_recordings_are_the_same_on_every_machine(name: str) -> None:
    assert digest_of(getattr(whole(), name)) == DIGESTS[name]


@pytest.mark.parametrize("marks", [1, 2, 9, 100])
def test_the_class_is_the_sum_of_the_marked_bits(marks: int) -> None:
    dataset = loaded(marks)
    assert dataset.num_classes == marks + 1 and dataset.input_shape == (3, 1, 1)
    for part in (part_of("train", marks), part_of("test", marks)):
        ones, zeros, marked = inputs_of(part)
        assert torch.equal(ones + zeros, torch.ones_like(ones)) and marked.max() == 1
        assert (marked.sum(0) == marks).all() and torch.equal((ones * marked).sum(0).long(), part.labels)
        counts = part.labels.bincount()
        assert len(counts) == part.labels.max() + 1 and counts.max() - counts.min() <= 1


def test_marks_and_the_other_bits_say_nothing_of_the_class() -> None:
    part = whole().train
    assert isinstance(part, LabelledEvents) and part.events.shape == (100, 60_000, 3)
    ones, _, marked = inputs_of(part)
    for label in range(3):
        chosen = part.labels == label  # 20,000 samples
        shares = marked[:, chosen].double().mean(1)
        # Of 300 shares of 0.02 with a deviation of 0.001, none is 5 deviations away; so with the bits.
        assert (shares - 0.02).abs().max() < 5 * (0.02 * 0.98 / 20_000) ** 0.5
        unmarked = (ones * (1 - marked))[:, chosen].sum(1) / (1 - marked)[:, chosen].sum(1)
        assert (unmarked - 0.5).abs().max() < 5 * (0.25 / 19_000) ** 0.5


def test_the_name_gives_two_marks() -> None:
    with mock.patch("srcell.data.generated.ADDING_SAMPLES", (600, 500)):
        found = data.load("adding", prefix=0).test
    assert isinstance(found, LabelledEvents)
    assert torch.equal(found.events.indices, part_of("test", 2).events.indices)


def test_a_prefix_is_silent_and_changes_nothing_else() -> None:
    plain, later = part_of("test").events.to_dense(), part_of("test", prefix=3).events.to_dense()
    assert not later[:3].any() and torch.equal(later[3:], plain)


@refusals(
    Refusal("marks", lambda: load_adding(marks=0)),
    Refusal("marks", lambda: load_adding(marks=101)),
    Refusal("prefix", lambda: load_adding(prefix=-1)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()
