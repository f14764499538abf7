"""What srcell 0.2.0 saved loads and runs: state_dicts, pickled states, programs, a run folder; and code for it.

tests/saved/0.2.0 has it; the outputs beside it are those of 0.2.0.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import srcell
from srcell import SRC, rate_encode

TESTS = Path(__file__).parent
SAVED = TESTS / "saved" / "0.2.0"


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(SAVED / "layers.pt", weights_only=True)
    return loaded


def test_layers_take_over_their_state_dicts(saved: dict[str, Any]) -> None:
    layer = SRC(5, 4, learnable=["alpha", "rho"], omega=0.3, recurrent=True, delay_hh=2.0)
    plain = SRC(5, 4, 2)
    layer.load_state_dict(saved["layer"])
    plain.load_state_dict(saved["plain"])
    spikes, state = layer(saved["input"])
    assert torch.equal(spikes, saved["spikes"]) and spikes.any()
    expected = saved["states"]["DelayedResonantState"]
    assert all(torch.equal(x, y) for x, y in zip(state, expected, strict=True))
    assert torch.equal(plain(saved["input"])[0], saved["plain_spikes"])


def test_states_keep_their_types(saved: dict[str, Any]) -> None:
    for name, state in saved["states"].items():
        assert type(state) is getattr(srcell, name)
        assert type(state.to(torch.float64)) is type(state) and state.to(torch.float64).h.dtype == torch.float64


@pytest.mark.parametrize("by", ["2.4", "2.13"])
def test_a_program_runs(saved: dict[str, Any], by: str) -> None:
    if not torch.__version__.startswith(f"{by}."):
        pytest.skip(f"torch promises to load no program that torch {by} saved")
    program = torch.export.load(str(SAVED / f"program-{by}.pt2")).module()
    spikes, state = program(saved["input"])
    assert torch.equal(spikes, saved["plain_spikes"]) and type(state) is srcell.SRCState


def test_a_run_folder_loads(saved: dict[str, Any]) -> None:
    model = srcell.load(SAVED / "run").eval()
    logits = model(rate_encode(saved["images"], 20, seed=1))
    torch.testing.assert_close(logits, saved["logits"])


OLD = """\
import torch
import srcell
from srcell.export import export
from srcell.run_folder import RunFolder
layer = srcell.SRC(3, 4, lateral=True, lateral_surrogate="relu", recurrent_grad=True)
assert layer.lateral and srcell.runtime.LayerCounts and srcell.benchmark.Setting
network = srcell.Sequential(layer, srcell.LinearReadout(4, 2))
export(network, "net.srcell")
print("srcell train adding --no-lateral --lateral-delay 3 --recurrent-grad")
"""


def test_code_of_an_older_version_runs_after_the_lines_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "old.py").write_text(OLD)
    (lines,) = re.findall(r"```sh\n(.*?)```", (TESTS.parent / "docs/howto/upgrading.md").read_text(), re.DOTALL)
    subprocess.run(["bash", "-ec", lines.replace("FILES", "old.py")], cwd=tmp_path, check=True)
    ran = subprocess.run([sys.executable, "old.py"], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout == "srcell train adding --no-recurrent --recurrent-delay 3 --full-gradient\n"
    assert (tmp_path / "old.py.bak").read_text() == OLD
