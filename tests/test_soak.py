"""A few of the cases of tests/soak.py: promise 1 of CONTRIBUTING.md on random cases, and 100,000 steps."""

import pytest

from soak import KINDS, check, check_long, draw
from support.processes import IsaProcess

pytestmark = pytest.mark.landing


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_random_cases(kind: str, seed: int, isa_processes: dict[str, IsaProcess]) -> None:
    check(draw(seed, kind), kind, isa_processes)


def test_100000_steps_need_only_memory_for_spikes_and_equal_a_stream() -> None:
    check_long()
