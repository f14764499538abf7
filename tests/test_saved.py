"""What released versions of srcell saved loads and runs: state_dicts, pickled states, layers and events, programs, run
folders, networks of the runtime and a learner's state; and code for 0.2.0.

tests/saved/VERSION has it; the outputs beside it are those of that version. tests/saved/make.py wrote that of 0.3.0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import srcell
from srcell import SRC, EventBatch, rate_encode, runtime
from support.imports import script

TESTS = Path(__file__).parent
OLDER = TESTS / "saved" / "0.2.0"
SAVED = TESTS / "saved" / "0.3.0"
NAMES = ["plain", "layer", "events", "cell", "conv", "integer", "readout", "votes", "delay"]
READOUTS = ("readout", "votes")  # torch's products, whose bits depend on the processor
make = script("tests/saved", "make")


def flat(given: Any) -> list[torch.Tensor]:
    return [given] if isinstance(given, torch.Tensor) else [x for part in given for x in flat(part)]


def same(got: Any, expected: Any) -> bool:
    """Whether two outputs have the same types and bits."""
    pairs = zip(flat(got), flat(expected), strict=True)
    return type(got) is type(expected) and all(torch.equal(x, y) for x, y in pairs)


def expect_the_output(saved: dict[str, Any], name: str, layer: torch.nn.Module) -> None:
    made, expected = make.output(name, layer, saved["inputs"][name]), saved["outputs"][name]
    assert flat(made)[0].any()  # spikes, or logits
    if name in READOUTS:
        torch.testing.assert_close(made, expected)
    else:
        assert same(made, expected)


@pytest.fixture(scope="module")
def older() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(OLDER / "layers.pt", weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(SAVED / "layers.pt", weights_only=True)
    return loaded


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(SAVED / "whole.pt", weights_only=False)
    return loaded


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_takes_its_state_dict_over(saved: dict[str, Any], name: str) -> None:
    layer = make.layers()[name]
    layer.load_state_dict(saved["state_dicts"][name])
    expect_the_output(saved, name, layer)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_that_was_pickled_gives_the_same_bits(saved: dict[str, Any], whole: dict[str, Any], name: str) -> None:
    expect_the_output(saved, name, whole["layers"][name])


def test_events_and_constants_that_were_pickled_are_equal(saved: dict[str, Any], whole: dict[str, Any]) -> None:
    events = saved["events"]
    assert whole["events"] == EventBatch(events["offsets"], events["indices"], shape=events["shape"])
    assert whole["cell"] == srcell.IntegerCell(bias=-5000)


@pytest.mark.parametrize("name", READOUTS)
def test_a_network_of_the_runtime_gives_the_same_bits(name: str) -> None:
    arrays = np.load(SAVED / "networks.npz")
    assert np.array_equal(runtime.load(SAVED / f"{name}.srcell").run(arrays["x"]), arrays[name])


def test_a_learner_goes_on_with_the_same_bits() -> None:
    arrays = np.load(SAVED / "networks.npz")
    learner = runtime.load(SAVED / "readout.srcell").learner(classes=["a", "b"])
    learner.restore((SAVED / "learner.state").read_bytes())
    assert learner.step(arrays["x"], np.array([0, 1, 0])) == arrays["next_loss"] < arrays["losses"][-1]
    for learnt in (learner.network(), runtime.load(SAVED / "learnt.srcell")):
        assert np.array_equal(learnt.run(arrays["x"]), arrays["learnt"])


def test_a_run_folder_loads() -> None:
    made = torch.load(SAVED / "run.pt", weights_only=True)
    model = srcell.load(SAVED / "run").eval()
    torch.testing.assert_close(model(rate_encode(made["images"], 20, seed=1)), made["logits"])


@pytest.mark.parametrize("by", ["2.4", "2.13"])
def test_a_program_runs(saved: dict[str, Any], by: str) -> None:
    if not torch.__version__.startswith(f"{by}."):
        pytest.skip(f"torch promises to load no program that torch {by} saved")
    program = torch.export.load(str(SAVED / f"program-{by}.pt2")).module()
    assert same(program(saved["inputs"]["plain"]), saved["outputs"]["plain"])


# What 0.2.0 saved.


def test_layers_take_over_state_dicts_of_0_2(older: dict[str, Any]) -> None:
    layer = SRC(5, 4, learnable=["alpha", "rho"], omega=0.3, recurrent=True, delay_hh=2.0)
    plain = SRC(5, 4, 2)
    layer.load_state_dict(older["layer"])
    plain.load_state_dict(older["plain"])
    spikes, state = layer(older["input"])
    assert torch.equal(spikes, older["spikes"]) and spikes.any()
    assert same(state, older["states"]["DelayedResonantState"])
    assert torch.equal(plain(older["input"])[0], older["plain_spikes"])


def test_states_of_0_2_keep_their_types(older: dict[str, Any]) -> None:
    for name, state in older["states"].items():
        assert type(state) is getattr(srcell, name)
        assert type(state.to(torch.float64)) is type(state) and state.to(torch.float64).h.dtype == torch.float64


@pytest.mark.parametrize("by", ["2.4", "2.13"])
def test_a_program_of_0_2_runs(older: dict[str, Any], by: str) -> None:
    if not torch.__version__.startswith(f"{by}."):
        pytest.skip(f"torch promises to load no program that torch {by} saved")
    program = torch.export.load(str(OLDER / f"program-{by}.pt2")).module()
    spikes, state = program(older["input"])
    assert torch.equal(spikes, older["plain_spikes"]) and type(state) is srcell.SRCState


def test_a_run_folder_of_0_2_loads(older: dict[str, Any]) -> None:
    model = srcell.load(OLDER / "run").eval()
    logits = model(rate_encode(older["images"], 20, seed=1))
    torch.testing.assert_close(logits, older["logits"])


@pytest.mark.landing  # some modules need extras of their own
def test_every_public_name_of_0_3_is_where_it_was() -> None:
    names = json.loads((SAVED / "names.json").read_text())
    assert len(names) > 15
    for module, found in names.items():
        assert [name for name in found if not hasattr(import_module(module), name)] == [], module


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
