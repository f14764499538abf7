"""Intervals: the recordings are the same everywhere, and only the time between two spikes tells the classes apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from srcell import data
from srcell.data import LabelledEvents
from support.recordings import digest_of
from support.refusals import Refusal, refusals

PAIRS, DISTRACTORS = 0.04, 0.015
RATES = torch.tensor([1 - (1 - DISTRACTORS) * (1 - PAIRS), 1 - (1 - DISTRACTORS) * (1 - PAIRS / 3) ** 3])
INTERVALS = torch.arange(6, 61, 6)
DIGESTS = {
    "train": "d17bb5778d28c34e7c9841551f0d72b665276b434001486a77abbda3fe5ef113",
    "test": "668f336a8fefab835e336dbc06f09625ccb5fb285a9d270f512e634e22911d1c",
}


def part_of(name: str, prefix: int = 0) -> LabelledEvents:
    part = getattr(data.load("intervals", prefix=prefix), name)
    assert isinstance(part, LabelledEvents)
    return part


def coincidences(part: LabelledEvents) -> Tensor:
    """(B, 67): how often, in each sample, a spike of input 1 follows one of input 0 after 0 to 66 steps."""
    first, second = part.events.to_dense(torch.float32).unbind(2)
    return torch.stack([(first[: 200 - lag] * second[lag:]).sum(0) for lag in range(67)], 1)


@pytest.mark.parametrize("name", DIGESTS)
def test_the_recordings_are_the_same_on_every_machine(name: str) -> None:
    assert digest_of(part_of(name)) == DIGESTS[name]


def test_sizes() -> None:
    dataset = data.load("intervals", prefix=0)
    assert dataset.num_classes == 10 and dataset.input_shape == (2, 1, 1)
    for part, samples in ((dataset.train, 10_000), (dataset.test, 2_000)):
        assert isinstance(part, LabelledEvents) and part.events.shape == (200, samples, 2)
        assert part.labels.bincount().tolist() == [samples // 10] * 10
        assert part.events.to_dense().max() == 1


def test_a_prefix_is_silent_and_changes_nothing_else() -> None:
    plain, later = part_of("test").events.to_dense(), part_of("test", prefix=3).events.to_dense()
    assert not later[:3].any() and torch.equal(later[3:], plain)


def test_spikes_of_an_input_are_equally_frequent_in_all_classes_at_all_times() -> None:
    dense, labels = part_of("train").events.to_dense(torch.float64), part_of("train").labels
    means = torch.stack([dense[:, labels == label].unflatten(0, (4, 50)).mean((1, 2)) for label in range(10)])
    # Each mean is over 1,000 samples of 50 steps. Spikes of an input in two steps are independent, except that a pair's
    # second spike in one step excludes the other step: no covariance is above 0, so a mean varies at most as if all
    # steps were independent. Of 80 normal deviates, one in 20,000 draws has one beyond 5 deviations.
    deviation = (RATES * (1 - RATES) / 50_000).sqrt()
    assert means.shape == (10, 4, 2) and ((means - RATES).abs() < 5 * deviation).all()


def test_pairs_are_the_interval_of_their_class_apart() -> None:
    part = part_of("train")
    counts = coincidences(part)
    for label, interval in enumerate(INTERVALS.tolist()):
        lags = counts[part.labels == label].sum(0).topk(3).indices
        assert sorted(lags.tolist()) == [interval - 1, interval, interval + 1]


def test_counting_coincidences_tells_the_classes_apart() -> None:
    part = part_of("test")
    counts = coincidences(part)
    around = counts[:, INTERVALS - 1] + counts[:, INTERVALS] + counts[:, INTERVALS + 1]
    assert (around.argmax(1) == part.labels).double().mean() > 0.97


@refusals(
    Refusal("prefix", lambda: data.load_intervals(prefix=-1)),
    Refusal("prefix", lambda: data.load_intervals(prefix=1.5), TypeError),  # type: ignore[arg-type]
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()
