"""A few of the cases of tests/soak.py: promise 1 on random cases, and 100,000 steps."""

import pytest

from soak import KINDS, check, check_long, draw
from support.processes import IsaProcess

pytestmark = pytest.mark.landing


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_random_cases(kind: str, seed: int, isa_processes: dict[str, IsaProcess]) -> None:
    check(draw(seed, kind), kind, isa_processes)


def test_a_hundred_thousand_steps_take_the_memory_of_their_spikes_and_give_the_bits_of_a_stream() -> None:
    check_long()
