"""Facts that follow from the cell's definition (rest, settling, one worked spike, steady drive, spontaneous firing)
hold on every instruction set, in float32 and float64, and in the eager reference. The numbers come from an independent
implementation in float64.
"""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import srcell
from srcell import SRC, SRCCell, SRCConv2d, SRCState
from srcell._shared.parameters import TABLE
from srcell.ops.rest import forward as of_other_devices
from srcell.ops.rest import rest as rest_operator
from srcell.reference import src_reference
from support.inputs import CONSTANTS, PARAMETERS
from support.processes import ISAS, IsaProcess

BIASES = (-6.0, -4.95, -4.85, -4.5, -4.0)
SILENT_STEPS = 2000  # by then the oscillations have reached their cycle

# The error of float32 beyond the rounding of the expected decimals. u is a sum of three terms below 8, rounded to 2^-22
# each and damped by 1 - h^2 < 0.2. h and hs are rounded to 2^-23 each. The settling dynamics, (I - J)^-1 with J the
# Jacobian at rest, amplify errors of h by at most 1.3 and errors of hs by at most 6.7.
FLOAT32_ROUNDING = 1.3 * (3 * 2**-22 * 0.2 + 2**-23) + 6.7 * 2**-23


def test_every_signature_agrees_with_the_table_of_parameters() -> None:
    expected = {name: row.standard for name, row in TABLE.items() if name != "bias"}
    assert [expected[name] for name in PARAMETERS] == list(CONSTANTS)
    functions = srcell.src, srcell.src_linear, srcell.src_conv2d, srcell.rest_state, src_reference
    for function in (*functions, SRC, SRCCell, SRCConv2d):
        parameters = inspect.signature(function).parameters
        assert {name: parameters[name].default for name in expected} == expected
        assert getattr(parameters.get("bias_init"), "default", TABLE["bias"].standard) == TABLE["bias"].standard


# The pages that list the parameters, and of each the field of the table that stands in a column.
@pytest.mark.parametrize(
    ("page", "column", "field"),
    [
        ("spiking-recurrent-cell.md", 2, "standard"),
        ("nir.md", 5, "standard"),
        ("howto/file-format.md", 3, "version"),
    ],
)
def test_pages_agree_with_the_table_of_parameters(page: str, column: int, field: str) -> None:
    found: dict[str, float] = {}
    for line in (Path(__file__).parent.parent / "docs" / page).read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = [name for name in re.findall(r"`(\w+)`", " ".join(cells[:2])) if name in TABLE]
        if line.startswith("|") and len(cells) > column:
            found |= dict.fromkeys(names, float(cells[column]) if names else 0.0)
    assert found == {name: getattr(row, field) for name, row in TABLE.items()}


def within(decimals: int, dtype: str) -> float:
    return 0.5 * 10**-decimals + (FLOAT32_ROUNDING if dtype == "float32" else 0)


def measure(backend: str, dtype_name: str) -> dict[str, Any]:
    """The measurements behind the facts, from the reference or on the instruction set of this process."""
    run = src_reference if backend == "reference" else srcell.src
    dtype = getattr(torch, dtype_name)

    def trace(current: Tensor, bias: Tensor, state: SRCState | None, **options: Any) -> SRCState:
        states = []
        for c in current.split(1):
            _, state = run(c, bias, state, **options)
            states.append(state)
        return SRCState(*(torch.stack(parts) for parts in zip(*states, strict=True)))

    def at_rest(batch: int) -> SRCState:
        return SRCState(*(x.expand(batch, 1) for x in srcell.rest_state(usual)))

    def crossings(x: float, state: SRCState | None, prefix: int) -> int:
        """Number of spikes in 200 steps of the constant current with which the integrator settles at drive x."""
        current = torch.full((200, 1, 1), (1 - 0.9) * 3 * math.atanh(x / 3), dtype=dtype)
        current = torch.cat([torch.zeros(prefix, 1, 1, dtype=dtype), current])
        high = run(current, usual, state)[0].flatten() > 0.5
        return int(high[0]) + int((high[1:] & ~high[:-1]).sum())

    usual = torch.full((1,), -6.0, dtype=dtype)
    biases = torch.tensor(BIASES, dtype=dtype)
    silent = trace(torch.zeros(SILENT_STEPS, 1, len(BIASES), dtype=dtype), biases, None)
    stay = trace(torch.zeros(50, 1, 1, dtype=dtype), usual, at_rest(1))
    kick = torch.zeros(4, 1, 1, dtype=dtype)
    kick[0] = 100
    spike = trace(kick, usual, at_rest(1), alpha=0.0)
    kicks = 100 * torch.eye(30, dtype=dtype)[:, :, None]  # sample b is kicked at step b
    return {
        "isa": srcell.info()["isa"],
        "rest_state": [x.item() for x in srcell.rest_state(usual)],
        "h": silent.h[:, 0].tolist(),
        "hs": silent.hs[:, 0].tolist(),
        "stay": [stay.h.flatten().tolist(), stay.hs.flatten().tolist()],
        "spike": [spike.h.flatten().tolist(), spike.hs.flatten().tolist()],
        "highest_after_kick": run(kicks, usual, None, alpha=0.0)[0].amax((0, 2)).tolist(),
        "spikes_under_drive_2.5": [crossings(2.5, at_rest(1), 0), crossings(2.5, None, 20)],
        "spikes_under_drive_1": [crossings(1, at_rest(1), 0), crossings(1, None, 20)],
    }


@pytest.fixture(
    scope="module", params=[(b, d) for b in ("reference", *ISAS) for d in ("float64", "float32")], ids="-".join
)
def facts(request: pytest.FixtureRequest, isa_processes: dict[str, IsaProcess]) -> dict[str, Any]:
    backend, dtype = request.param
    if backend == "reference":
        return {**measure(backend, dtype), "dtype": dtype}
    measured = isa_processes[backend].call("test_cell_facts.measure", backend, dtype)
    assert measured["isa"] == backend
    return {**measured, "dtype": dtype}


def test_rest_without_input(facts: dict[str, Any]) -> None:
    assert facts["rest_state"][0] == 0
    at_rest = [*facts["rest_state"][1:], facts["h"][-1][0], facts["hs"][-1][0], *facts["stay"][0], *facts["stay"][1]]
    assert at_rest == pytest.approx([-0.9026889] * len(at_rest), abs=within(7, facts["dtype"]), rel=0)


def test_twenty_silent_steps_from_zeros_lead_near_rest(facts: dict[str, Any]) -> None:
    tolerance = within(5, facts["dtype"])
    assert facts["h"][19][0] == pytest.approx(-0.96656, abs=tolerance, rel=0)
    assert facts["hs"][19][0] == pytest.approx(-0.85718, abs=tolerance, rel=0)


def test_an_input_in_the_first_dozen_steps_from_zeros_makes_no_spike(facts: dict[str, Any]) -> None:
    highest = facts["highest_after_kick"]
    assert highest[:12] == [0] * 12
    assert highest[20] > 0.5


def test_one_step_of_drive_makes_a_spike_of_two_steps_then_a_refractory_time(facts: dict[str, Any]) -> None:
    h, hs = facts["spike"]
    tolerance = within(6, facts["dtype"])
    assert h[:3] == pytest.approx([0.907548, 0.972363, -1.0], abs=tolerance, rel=0)
    assert hs == pytest.approx([-0.902689, 0.880340, 0.971634, 0.774470], abs=tolerance, rel=0)
    assert (hs[3] + 1) / (hs[2] + 1) == pytest.approx(0.9, abs=2 * tolerance, rel=0)


def test_steady_drive(facts: dict[str, Any]) -> None:
    assert facts["spikes_under_drive_2.5"] == [10, 10]
    assert facts["spikes_under_drive_1"] == [0, 0]


def test_the_resting_state_loses_stability_near_a_bias_of_minus_4_9(facts: dict[str, Any]) -> None:
    spread = {
        bias: max(late) - min(late) for bias, late in zip(BIASES, zip(*facts["h"][-200:], strict=True), strict=True)
    }
    assert spread[-4.95] < 1e-4
    assert spread[-4.85] > 0.1


@pytest.mark.parametrize(("bias", "peak"), [(-4.5, 0.20), (-4.0, 0.88)])
def test_spontaneous_activity_above_that_bias(facts: dict[str, Any], bias: float, peak: float) -> None:
    late = [h[BIASES.index(bias)] for h in facts["h"][-400:]]
    assert max(late) == pytest.approx(peak, abs=within(2, facts["dtype"]), rel=0)


def test_the_kernel_finds_the_resting_point_of_any_neuron() -> None:
    """The lowest root, as torch's own operators find it, which other devices use."""
    values = [-6.0, -4.9, -1.0, 0.0, 0.3, 5.0, 1e3, -math.inf, math.inf, math.nan]
    bias = torch.tensor(values, dtype=torch.float64).repeat(9)
    gain = torch.tensor([-5.0, -1.0, 0.0, 0.5, 0.9, 1.5, 4.0, 100.0, math.nan], dtype=torch.float64)
    gain = gain.repeat_interleave(len(values))
    h, expected = rest_operator(bias, gain), of_other_devices(rest_operator.record(bias, gain))
    torch.testing.assert_close(h, expected, rtol=0, atol=1e-15, equal_nan=True)
    found = h.isfinite() & bias.isfinite()
    # The slope of h - tanh(gain h + bias) is at most 1 + |gain|.
    assert ((h - torch.tanh(gain * h + bias)).abs() <= 1e-15 * (2 + gain.abs()))[found].all()
