"""A short fuzz campaign: every target for a moment, with seeded inputs and with those of hypothesis.
``tests/fuzz/run.py`` runs a long one; SRCELL_FUZZ_SECONDS, SRCELL_FUZZ_INPUTS and SRCELL_FUZZ_SEED set the budget here.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz import run

pytestmark = pytest.mark.landing


@pytest.mark.parametrize("target", run.TARGETS)
def test_nothing_is_found(target: str) -> None:
    outcome = run.campaign(target, *run.budget(default_seconds=0.5, default_inputs=50_000))
    assert not outcome.findings, "\n".join([f"{target}, {key}\n{text}" for key, text in outcome.findings.items()])
    assert 0 < outcome.inputs <= 2 * outcome.passed
    assert not run.leaks(outcome)


@pytest.mark.parametrize("target", run.TARGETS)
@settings(max_examples=15, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(draw=st.randoms(use_true_random=False))
def test_hypothesis_finds_nothing(target: str, draw: random.Random) -> None:
    run.TARGETS[target](draw)
