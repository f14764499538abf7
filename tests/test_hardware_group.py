"""Networks of the authors' group: their files become float models and integer weights; invalid ones are refused."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import srcell
from srcell import data, export, hardware
from srcell.reference import src_reference
from support.refusals import assert_refused
from test_hardware import random_spikes

CONFIG: dict[str, Any] = {
    "input_size": 12,
    "hidden_size": 512,
    "readout_input_factor": 4,
    "cell_config": {
        "alphas": [0.875],
        "bias_max": -4.5,
        "activation": "relu",
        "num_integrators_per_neuron": 1,
        "recurrence": None,
    },
    "dataset_config": {"encoding": "rate", "seq_length": 50, "prefix_length": 5, "rate_gain": 0.25},
}


def group_arrays(seed: int, inputs: int, *sizes: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    arrays: dict[str, NDArray[Any]] = {}
    for k, (below, neurons) in enumerate(zip([inputs, *sizes], sizes, strict=False)):
        arrays[f"l{k}_forward_weights"] = random.normal(0, 3, (neurons, below))
        around = {"bias": -5.5, "rho": 3, "r": 2, "rs": -7, "initial_h": -0.9, "initial_hs": -0.7}
        arrays |= {f"l{k}_{name}": random.normal(x, 0.1, neurons) for name, x in around.items()}
        arrays |= {f"l{k}_zs_hyp": random.uniform(0.8, 1, (1, neurons))}
        arrays |= {f"l{k}_zs_dep": random.uniform(0, 0.1, (1, neurons))}
        arrays |= {f"l{k}_initial_i": random.normal(0, 1, (1, neurons, 1))}
    classes = sizes[-1] // 4
    own = np.arange(sizes[-1]) % classes == np.arange(classes)[:, None]
    arrays["readout"] = np.where(own, 1, -0.1)
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def write_group(folder: Path, arrays: dict[str, NDArray[Any]], **changes: Any) -> Path:
    parts = {name: {**CONFIG[name], **changes.pop(name, {})} for name in ("cell_config", "dataset_config")}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **parts, **changes}))
    named: dict[str, Any] = dict(arrays)
    np.savez(folder / "arrays.npz", **named)
    return folder


@pytest.mark.parametrize("sizes", [(20,), (15, 8)])
def test_a_network_of_the_group_becomes_a_float_model(sizes: tuple[int, ...], tmp_path: Path) -> None:
    arrays = group_arrays(1, 12, *sizes)
    model = hardware.read_group(write_group(tmp_path, arrays)).to_float()
    assert model.encoder == data.RateEncoding(steps=50, gain=0.25, prefix=5)
    assert model.readout.inhibition == -0.1 and model.readout.num_classes == sizes[-1] // 4
    input = torch.from_numpy(random_spikes(2, 60, 3, 12)).float()
    spikes = input.double()
    for k, found in enumerate(model.layer_spikes(input)):
        numbers = {name: torch.from_numpy(array).double() for name, array in arrays.items()}
        cell: Any = {name: numbers[f"l{k}_{name}"].flatten() for name in ("rho", "r", "rs", "zs_hyp", "zs_dep")}
        state = [numbers[f"l{k}_initial_{name}"].flatten().expand(3, -1) for name in ("i", "h", "hs")]
        current = spikes @ numbers[f"l{k}_forward_weights"].T
        expected, _ = src_reference(current, numbers[f"l{k}_bias"], state, alpha=torch.tensor(0.875), **cell)
        assert expected.any()
        torch.testing.assert_close(found.detach()[:20].double(), expected[:20], rtol=1e-3, atol=1e-3)
        spikes = found.detach().double()
    assert all(layer.bias_max == -4.5 for layer in model.src_layers())
    for bound in (-7.0, -5.5):
        network = hardware.read_group(write_group(tmp_path, arrays, cell_config={"bias_max": bound})).to_float()
        for k, layer in enumerate(network.src_layers()):
            assert layer.bias_max == arrays[f"l{k}_bias"].max() > bound
        assert all(map(torch.equal, network.layer_spikes(input), model.layer_spikes(input)))
    export(model, tmp_path / "net.srcell")
    assert srcell.runtime.load(tmp_path / "net.srcell").run(input.numpy()).shape == (3, sizes[-1] // 4)


def test_integer_weights_are_scaled_as_the_group_scales_them(tmp_path: Path) -> None:
    arrays = group_arrays(1, 12, 15, 8)
    arrays["l0_forward_weights"][0] = [0.5, 1.5, -0.5, -1.5, 2.5, 8, -8, 0, 0, 0, 0, 7.6]
    arrays["l0_forward_weights"][1] = 8
    arrays["l0_forward_weights"][2:] = -1
    arrays["l1_forward_weights"][:] = 0
    network = hardware.read_group(write_group(tmp_path, arrays))
    first, second = network.integer_weights(4)
    assert first.dtype == np.int16 and first[0].tolist() == [0, 2, 0, -2, 2, 8, -8, 0, 0, 0, 0, 8] and not second.any()
    assert network.integer_weights(15)[0][1].tolist() == [2**14] * 12
    for bits in (1, 16):
        assert_refused(ValueError, "bits", network.integer_weights, bits)


def test_column_major_pixels_are_reordered_on_request(tmp_path: Path) -> None:
    arrays = group_arrays(1, 9, 20, 8)
    network = hardware.read_group(write_group(tmp_path, arrays, input_size=9))
    theirs = arrays["l0_forward_weights"]
    ours = theirs.reshape(20, 3, 3).transpose(0, 2, 1).reshape(20, 9)
    reordered = hardware.read_group(write_group(tmp_path, arrays | {"l0_forward_weights": ours}, input_size=9))
    expected = reordered.to_float().state_dict()
    assert not np.array_equal(ours, theirs)
    for name, tensor in network.to_float(column_major=True).state_dict().items():
        assert torch.equal(tensor, expected[name])
    for found, by_rows in zip(network.integer_weights(5, column_major=True), reordered.integer_weights(5), strict=True):
        assert np.array_equal(found, by_rows)
    oblong = hardware.read_group(write_group(tmp_path, group_arrays(1, 12, 8)))
    for function in (oblong.to_float, lambda **options: oblong.integer_weights(4, **options)):
        assert_refused(ValueError, "column_major", function, column_major=True)


def test_other_encodings_and_alphas_are_read(tmp_path: Path) -> None:
    arrays = group_arrays(1, 12, 8)
    alphas = [0.5, 0.75] * 4
    changes = {"cell_config": {"alphas": alphas}, "dataset_config": {"encoding": "latency", "rate_gain": None}}
    model = hardware.read_group(write_group(tmp_path, arrays, **changes)).to_float()
    assert model.encoder == data.LatencyEncoding(steps=50, prefix=5)
    assert model.state_dict()["layers.0.alpha_l0"].tolist() == alphas
    one = hardware.read_group(write_group(tmp_path, arrays, cell_config={"alphas": 0.5}))
    assert one.layers[0].alpha.tolist() == [0.5] * 8
    single = {**arrays, "readout": np.ones((1, 8), np.float32)}
    assert hardware.read_group(write_group(tmp_path, single, readout_input_factor=8)).num_classes == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cell_config": {"recurrence": {"kind": "full"}}}, "cell_config recurrence: expected null"),
        ({"recurrence": 1}, "recurrence: expected null"),
        ({"cell_config": {"num_integrators_per_neuron": 2}}, "num_integrators_per_neuron: expected 1, got 2"),
        ({"cell_config": {"alphas": [0.9, 0.8]}}, "alphas: expected one number in [0, 1], or one for each of 8 neuron"),
        ({"cell_config": {"alphas": 1.5}}, "alphas: expected"),
        ({"cell_config": {"alphas": None}}, "alphas: expected"),
        ({"cell_config": {"alphas": [[0.9], "x"]}}, "alphas: expected"),
        ({"cell_config": {"bias_max": "low"}}, 'bias_max: expected a number, got "low"'),
        ({"input_size": 13}, "l0_forward_weights: expected shape (any, 13), got (8, 12)"),
        ({"input_size": 1.5}, "input_size: expected an int of at least 0, got 1.5"),
        ({"readout_input_factor": 3}, "readout_input_factor: expected a divisor of 8 neurons, got 3"),
        ({"readout_input_factor": 0}, "readout_input_factor: expected a divisor of 8 neurons, got 0"),
        ({"readout_input_factor": 2}, "readout: expected shape (4, 8), got (2, 8)"),
        ({"dataset_config": {"encoding": "phase"}}, "encoding: expected 'rate' or 'latency', got 'phase'"),
        ({"dataset_config": {"rate_gain": None}}, "rate_gain: expected a number, got null"),
    ],
)
def test_unsupported_configurations_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_group(tmp_path, group_arrays(1, 12, 8), **changes)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(tmp_path))}.*{re.escape(message)}"):
        hardware.read_group(tmp_path)


def assert_group_refused(folder: Path, file: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"^{re.escape(str(folder / file))}: {message}"):
        hardware.read_group(folder)


@pytest.mark.parametrize("name", sorted(group_arrays(1, 12, 20, 8)))
def test_an_error_names_a_missing_or_wrong_array(name: str, tmp_path: Path) -> None:
    arrays = group_arrays(1, 12, 20, 8)
    with_nan = arrays[name].copy()
    with_nan.flat[-1] = np.nan
    wrong: dict[str, Any] = {
        "expected shape": arrays[name][..., None],
        "expected floats, got int64": arrays[name].astype(np.int64),
        "expected finite values": with_nan,
    }
    for message, array in wrong.items():
        write_group(tmp_path, {**arrays, name: array})
        assert_group_refused(tmp_path, "arrays.npz", f"{name}: {message}")
    del arrays[name]
    write_group(tmp_path, arrays)
    assert_group_refused(tmp_path, "arrays.npz", f"{name}: expected an array, got none")


def test_an_error_names_a_missing_part_of_the_configuration(tmp_path: Path) -> None:
    write_group(tmp_path, group_arrays(1, 12, 8))
    for name in CONFIG.keys() - {"hidden_size"}:
        kept = {other: value for other, value in CONFIG.items() if other != name}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        assert_group_refused(tmp_path, "config.json", rf"{name}: expected an? \w+, got none")


def test_other_votes_are_refused(tmp_path: Path) -> None:
    arrays = group_arrays(1, 12, 8)
    for neuron, weight in ((0, 0.9), (1, -0.2)):
        readout = arrays["readout"].copy()
        readout[0, neuron] = weight
        write_group(tmp_path, {**arrays, "readout": readout})
        assert_group_refused(tmp_path, "arrays.npz", "readout: expected 1 for class n % 2 and one number")


@pytest.mark.parametrize("name", ["config.json", "arrays.npz"])
def test_malformed_and_missing_files_are_refused(name: str, tmp_path: Path) -> None:
    write_group(tmp_path, group_arrays(1, 12, 8))
    for content in (b"", b"[1]", b"PK\x03\x04", b"\xff\xfe"):
        (tmp_path / name).write_bytes(content)
        assert_group_refused(tmp_path, name, "expected (JSON|an object|an archive)")
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError):
        hardware.read_group(tmp_path)
