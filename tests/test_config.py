"""The settings of a run: their ranges and types, in Python and in a file, and the presets."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srcell.training.config import ADDED, TrainingConfig
from srcell.training.run_folder import RunFolder
from support.runs import TINY


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("steps", -1),
        ("hidden_sizes", (16, 0)),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("learning_rate", 1.5),
        ("gain", 0.0),
        ("gain", 1.5),
        ("seed", -1),
        ("validation", 1.0),
        ("clip_norm", -1.0),
        ("weight_decay", math.inf),
        ("prefix", -1),
        ("temperature", 10**400),
    ],
)
def test_a_setting_outside_its_range_is_named(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{setting}: expected .*, got "):
        TrainingConfig(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dataset": "digist"}, "unknown data set 'digist': did you mean 'digits'"),
        ({"encoding": "latecy"}, "unknown encoding 'latecy': did you mean 'latency'"),
        ({"schedule": "cosine"}, "unknown schedule 'cosine': expected one of one-cycle, constant"),
    ],
)
def test_a_wrong_name_suggests_the_right_one(setting: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("balance_gradients", "False", "balance_gradients: expected bool, got 'False'"),
        ("balance_gradients", 1, "balance_gradients: expected bool, got 1"),
        ("epochs", 3.0, r"epochs: expected int, got 3\.0"),
        ("epochs", True, "epochs: expected int, got True"),
        ("gain", "0.5", r"gain: expected float, got '0\.5'"),
        ("gain", np.True_, "gain: expected float, got"),
        ("dataset", b"digits", "dataset: expected str, got b'digits'"),
        ("hidden_sizes", 16, "hidden_sizes: expected integers, got 16"),
        ("hidden_sizes", "16", "hidden_sizes: expected integers, got '16'"),
    ],
)
def test_a_setting_of_another_type_is_refused(setting: str, value: object, message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        TrainingConfig(**{setting: value})  # type: ignore[arg-type]


def test_settings_are_pythons_own_numbers(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "seed": np.int64(3),
        "hidden_sizes": [np.int32(4)],
        "gain": np.float32(0.5),
        "alpha": 1,
        "balance_gradients": np.False_,
        "dataset": np.str_("digits"),
    }
    config = TrainingConfig(**given)
    assert config == TrainingConfig(seed=3, hidden_sizes=(4,), gain=0.5, alpha=1.0)
    for name in given:
        assert type(getattr(config, name)) is type(getattr(TrainingConfig(), name))
    folder = RunFolder.create(tmp_path / "run", config)
    assert RunFolder.open(folder.path).config == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": "3"}, "epochs: expected int, got '3'"),
        ({"epochs": True}, "epochs: expected int, got True"),
        ({"hidden_sizes": [1.5]}, "hidden_sizes: expected integers"),
        ({"colour": 1}, "expected those of this version of srcell, got others: colour"),
        ({"gain": 7}, r"gain: expected a number in \(0, 1\], got 7"),
    ],
)
def test_settings_from_a_file_are_checked(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig.from_dict(asdict(TINY) | change)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("surrogate", "../x"),
        ("initial_state", "x"),
        ("batch_size", 10**30),
        ("epochs", 10**400),
        ("steps", 2**31),
        ("hidden_sizes", (2**31,)),
        ("channels", (10**30,)),
        ("temperature", 10**400),
        ("clip_norm", 10**400),
    ],
)
def test_settings_that_end_in_a_traceback_later_are_refused_at_once(name: str, value: Any) -> None:
    words = name.replace("_", "[_ ]")
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**{name: value})
    with pytest.raises(ValueError, match=words):
        TrainingConfig.from_dict(asdict(TrainingConfig()) | {name: value})


def test_settings_that_older_versions_lack_get_their_defaults() -> None:
    settings = asdict(TINY)
    for name in ADDED:
        del settings[name]
    assert TrainingConfig.from_dict(settings) == TINY
    for name in settings:
        with pytest.raises(ValueError, match=f"expected those of this version of srcell, got others: {name}$"):
            TrainingConfig.from_dict({key: value for key, value in settings.items() if key != name})


def test_a_configuration_stays_as_it_was_made() -> None:
    config = TrainingConfig(seed=1)
    with pytest.raises(FrozenInstanceError):
        config.seed = 2  # type: ignore[misc]
    assert len({config, TrainingConfig(seed=1), TrainingConfig(seed=2)}) == 2


@pytest.mark.parametrize(
    ("name", "dataset", "settings"),
    [
        (
            "reference",
            "mnist",
            {"learning_rate": 1e-2, "epochs": 16, "batch_size": 256, "temperature": 10, "dropout": 0},
        ),
        ("reference", "mnist", {"alpha": 0.9, "readout_alpha": 0.99}),
        ("best", "digits", {"steps": 100, "gain": 0.5, "prefix": 20, "hidden_sizes": (128,), "readout_alpha": 0.99}),
        ("best", "digits", {"learning_rate": 4e-2, "epochs": 40, "batch_size": 64, "temperature": 10, "dropout": 0}),
        ("best", "mnist", {"learning_rate": 5e-3, "epochs": 25, "batch_size": 256, "temperature": 3, "dropout": 0.3}),
        ("best", "mnist", {"steps": 100, "gain": 0.5, "prefix": 20, "hidden_sizes": (512,), "readout_alpha": 0.99}),
        ("best", "fashion-mnist", {"learning_rate": 5e-3, "epochs": 35, "batch_size": 256, "temperature": 10}),
        ("best", "fashion-mnist", {"dropout": 0.15, "readout_alpha": 1, "hidden_sizes": (512,)}),
        ("best", "nmnist", {"learning_rate": 5e-3, "epochs": 40, "batch_size": 32, "temperature": 10, "dropout": 0.7}),
        ("best", "nmnist", {"alpha": 0.97, "readout_alpha": 1, "hidden_sizes": (512,)}),
        ("fast", "mnist", {"hidden_sizes": (128,), "steps": 100, "epochs": 6, "learning_rate": 1e-2, "dropout": 0}),
        ("deep", "mnist", {"temperature": 6, "readout_alpha": 1, "learning_rate": 1.2e-2, "epochs": 24, "steps": 100}),
    ],
)
def test_presets_are_those_that_the_documentation_tells(name: str, dataset: str, settings: dict[str, Any]) -> None:
    config = TrainingConfig.preset(name, dataset)
    assert {key: getattr(config, key) for key in settings} == settings


def test_presets() -> None:
    assert TrainingConfig.preset("best", "digits") == TrainingConfig()
    reference = TrainingConfig.preset("reference", "mnist", epochs=3)
    assert (reference.steps, reference.gain, reference.prefix) == (200, 0.25, 20)
    assert (reference.hidden_sizes, reference.epochs) == ((), 3)
    deep = TrainingConfig.preset("deep", "mnist")
    assert deep.hidden_sizes == (128,) * 10 and deep.balance_gradients
    with pytest.raises(ValueError, match="unknown preset 'referense': did you mean 'reference'"):
        TrainingConfig.preset("referense", "mnist")
