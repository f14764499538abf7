"""A short fuzz campaign: every target for a moment. ``tests/fuzz/run.py`` runs a long one; SRCELL_FUZZ_SECONDS,
SRCELL_FUZZ_INPUTS and SRCELL_FUZZ_SEED set the budget here.
"""

import pytest

from fuzz import run


@pytest.mark.landing
@pytest.mark.parametrize("target", run.TARGETS)
def test_fuzzing_finds_nothing(target: str) -> None:
    outcome = run.campaign(target, *run.budget(default_seconds=0.5, default_inputs=50_000))
    assert not outcome.findings, "\n".join([f"{target}, {key}\n{text}" for key, text in outcome.findings.items()])
    assert outcome.passed
    if outcome.inputs >= 100:  # of fewer, as many as a slow target takes in its time, chance may refuse most
        assert outcome.inputs <= 4 * outcome.passed  # otherwise little is tried beyond the validation
    assert not outcome.leaks
