"""The settings of a run: their ranges and types, in Python and in a file, and the presets."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srcell.data import HeldEncoding, LatencyEncoding, RateEncoding, RecallEncoding
from srcell.training.config import ADDED, BEFORE, SETTINGS, UNSAID, UNSAID_OF_OWN, TrainingConfig
from srcell.training.run_folder import RunFolder
from srcell.training.samples import make_encoding
from support.runs import TINY

NAMES = [name for name, setting in SETTINGS.items() if setting.choices]
LEARNT = {"input_delay": 5, "learn_delays": True}


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        # Ranges
        (ValueError, "epochs: expected at least 1, got 0", {"epochs": 0}),
        (ValueError, "steps: expected at most 2147483647, got 2147483648", {"steps": 2**31}),
        (ValueError, r"hidden_sizes: expected at least 1 each, got \[16, 0\]", {"hidden_sizes": (16, 0)}),
        (ValueError, "hidden_sizes: expected at most 2147483647 each, got ", {"hidden_sizes": (2**31,)}),
        (ValueError, "channels: expected at most 2147483647 each, got ", {"channels": (10**30,)}),
        (ValueError, r"learning_rate: expected a number in \(0, 1\], got 0.0", {"learning_rate": 0.0}),
        (ValueError, r"learning_rate: expected a number in \(0, 1\], got nan", {"learning_rate": math.nan}),
        (ValueError, r"gain: expected a number in \(0, 1\], got 1.5", {"gain": 1.5}),
        (ValueError, r"validation: expected a number in \[0, 1\), got 1.0", {"validation": 1.0}),
        (ValueError, "clip_norm: expected a finite number of at least 0, got -1.0", {"clip_norm": -1.0}),
        (ValueError, "weight_decay: expected a finite number of at least 0, got inf", {"weight_decay": math.inf}),
        (ValueError, "temperature: expected a finite number above 0, got 0.0", {"temperature": 0.0}),
        (ValueError, "temperature: expected a number that fits in a float", {"temperature": 10**400}),
        # Names
        (ValueError, "unknown data set 'digist': did you mean 'digits'", {"dataset": "digist"}),
        (ValueError, "unknown schedule 'cosine': expected one of one-cycle, constant", {"schedule": "cosine"}),
        *[(ValueError, "unknown .* '../x': expected one of ", {name: "../x"}) for name in NAMES],
        # Types
        (TypeError, "balance_gradients: expected bool, got 'False'", {"balance_gradients": "False"}),
        (TypeError, "balance_gradients: expected bool, got 1", {"balance_gradients": 1}),
        (TypeError, r"epochs: expected int, got 3\.0", {"epochs": 3.0}),
        (TypeError, "epochs: expected int, got True", {"epochs": True}),
        (TypeError, r"gain: expected float, got '0\.5'", {"gain": "0.5"}),
        (TypeError, "dataset: expected str, got b'digits'", {"dataset": b"digits"}),
        (TypeError, "hidden_sizes: expected integers, got 16", {"hidden_sizes": 16}),
        (TypeError, r"hidden_sizes: expected integers, got \[1.5\]", {"hidden_sizes": [1.5]}),
        # Settings that exclude each other
        (ValueError, "slowest_alpha: expected 0 or at least alpha", {"alpha": 0.9, "slowest_alpha": 0.5}),
        (ValueError, "recurrent: expected False with channels, got True", {"channels": (4,), "recurrent": True}),
        (ValueError, "slowest_alpha: expected 0.0 with channels", {"channels": (4,), "slowest_alpha": 0.99}),
        (ValueError, "readout: expected 'votes' with channels", {"channels": (4,), "readout": "linear"}),
        (ValueError, "omega: expected 0.0 with channels, got 0.1", {"channels": (4,), "omega": 0.1}),
        (ValueError, "highest_omega: expected 0.0 without omega, got 1.0", {"highest_omega": 1.0}),
        (ValueError, "highest_omega: expected 0 or at least omega, 0.5", {"omega": 0.5, "highest_omega": 0.1}),
        (ValueError, "omega: expected 0.0 without hidden_sizes, got 0.1", {"omega": 0.1, "hidden_sizes": ()}),
        (ValueError, r"omega: expected a number in \[0, 3.14159\], got 3.2", {"omega": 3.2}),
        (ValueError, "readout: expected 'votes' without hidden_sizes", {"hidden_sizes": (), "readout": "linear"}),
        (ValueError, "input_delay: expected at most 65535, got 65536", {"input_delay": 65536}),
        (ValueError, "input_delay: expected 0 with channels, got 5", {"channels": (4,), "input_delay": 5}),
        (ValueError, "taps: expected 1 without input_delay, got 2", {"taps": 2}),
        (ValueError, "recurrent_delay: expected 0 without recurrent, got 5", {"recurrent_delay": 5}),
        (
            ValueError,
            "recurrent_delay: expected 0 without hidden_sizes, got 5",
            {"recurrent_delay": 5, "recurrent": True, "hidden_sizes": ()},
        ),
        (ValueError, "learn_delays: expected False without input_delay or recurrent_delay", {"learn_delays": True}),
        (ValueError, "whole_delays: expected False without input_delay or recurrent_delay", {"whole_delays": True}),
        (
            ValueError,
            r"delay_width: expected \(1,\) without learn_delays, got \(8, 1\)",
            {"input_delay": 5, "delay_width": (8, 1)},
        ),
        (ValueError, "delay_learning_rate: expected 0.3 without learn_delays, got 0.5", {"delay_learning_rate": 0.5}),
        (ValueError, "delay_learning_rate: expected a finite number above 0", {**LEARNT, "delay_learning_rate": 0.0}),
        (ValueError, r"delay_width: expected at least 1 each, got \[4, 0\]", {**LEARNT, "delay_width": (4, 0)}),
        (ValueError, r"delay_width: expected one number, or .*, got \[\]", {**LEARNT, "delay_width": ()}),
        (ValueError, r"delay_width: expected one number, or .*, got \[1, 8\]", {**LEARNT, "delay_width": (1, 8)}),
        (ValueError, r"delay_width: expected one .*, got \[8, 4, 1\]", {**LEARNT, "delay_width": (8, 4, 1)}),
        (
            ValueError,
            "epochs: expected at least 2 with learn_delays and whole_delays, .*, got 1",
            {**LEARNT, "whole_delays": True, "epochs": 1},
        ),
        (
            ValueError,
            r"delay_width: expected to end with 1 with whole_delays, got \[8, 4\]",
            {**LEARNT, "whole_delays": True, "delay_width": (8, 4)},
        ),
        (ValueError, "readout_window: expected 0 without readout='linear', got 5", {"readout_window": 5}),
    ],
)
def test_invalid_settings_raise_an_error_that_names_the_setting(
    error: type[Exception], message: str, settings: dict[str, Any]
) -> None:
    with pytest.raises(error, match=f"^{message}"):
        TrainingConfig(**settings)
    with pytest.raises(ValueError, match=f"^{message}"):
        TrainingConfig.from_dict(asdict(TINY) | settings)


def test_settings_are_stored_as_python_numbers(tmp_path: Path) -> None:
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


def test_a_file_must_have_every_setting_of_srcell_0_2(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = asdict(TINY)
    monkeypatch.setattr("srcell.training.config.ADDED", {"epochs"})  # as if it were newer
    later = {name: x for name, x in settings.items() if name != "epochs"}
    assert TrainingConfig.from_dict(later) == replace(TINY, epochs=TrainingConfig().epochs)
    monkeypatch.undo()
    older = settings.keys() - ADDED
    said = {name: settings[name] for name in older}
    assert TrainingConfig.from_dict(said) == replace(TINY, **UNSAID)
    of_own = replace(TINY, dataset="own", **UNSAID, **UNSAID_OF_OWN)
    assert TrainingConfig.from_dict(said | {"dataset": "own"}) == of_own
    invalid = {name: {key: x for key, x in settings.items() if key != name} for name in older}
    invalid["colour"] = settings | {"colour": 1}
    for name, given in invalid.items():
        with pytest.raises(ValueError, match=f"expected those of this srcell, unknown or missing: {name}$"):
            TrainingConfig.from_dict(given)


def test_a_setting_that_convolutional_layers_lack_is_refused_and_had_no_effect_in_srcell_0_2() -> None:
    with pytest.raises(ValueError, match=r"^zs_hyp: expected 0\.9 with channels, got 0\.5$"):
        TrainingConfig(channels=(4,), zs_hyp=0.5)
    convolutional = TrainingConfig(channels=(4,))
    assert TrainingConfig.from_dict(asdict(convolutional) | {"zs_hyp": 0.5}) == convolutional


def test_settings_of_srcell_0_2_get_their_new_names() -> None:
    config = TrainingConfig(recurrent=True, recurrent_delay=5, full_gradient=True, recall_delay=40)
    settings = asdict(config)
    for old, name in BEFORE.items():
        settings[old] = settings.pop(name)
    assert {"lateral", "lateral_delay", "recurrent_grad", "delay"} <= settings.keys()
    assert TrainingConfig.from_dict(settings) == config
    with pytest.raises(ValueError, match=r"^settings: expected recall_delay alone, got delay beside it$"):
        TrainingConfig.from_dict(settings | {"recall_delay": 3})


def test_a_configuration_is_immutable_and_hashable() -> None:
    config = TrainingConfig(seed=1)
    with pytest.raises(FrozenInstanceError):
        config.seed = 2  # type: ignore[misc]
    assert len({config, TrainingConfig(seed=1), TrainingConfig(seed=2)}) == 2


COLUMNS = ("learning_rate", "epochs", "batch_size", "temperature", "dropout", "readout_alpha")


@pytest.mark.parametrize(
    ("preset", "dataset", "row", "others"),
    [
        ("reference", "mnist", (1e-2, 16, 256, 10, 0, 0.99), {"hidden_sizes": (), "steps": 200, "gain": 0.25}),
        ("best", "digits", (4e-2, 40, 64, 10, 0, 0.99), {"hidden_sizes": (128,), "steps": 100, "gain": 0.5}),
        ("best", "mnist", (5e-3, 25, 256, 3, 0.3, 0.99), {"hidden_sizes": (512,)}),
        ("best", "fashion-mnist", (5e-3, 35, 256, 10, 0.15, 1), {"hidden_sizes": (512,)}),
        ("best", "nmnist", (5e-3, 40, 32, 10, 0.7, 1), {"hidden_sizes": (512,), "alpha": 0.97}),
        ("fast", "mnist", (1e-2, 6, 256, 3, 0, 0.99), {"hidden_sizes": (128,)}),
        ("deep", "mnist", (1.2e-2, 24, 256, 6, 0, 1), {"hidden_sizes": (128,) * 10, "balance_gradients": True}),
    ],
)
def test_presets_match_the_documentation(preset: str, dataset: str, row: tuple[float, ...], others: Any) -> None:
    config = TrainingConfig.preset(preset, dataset)
    assert config == replace(TrainingConfig(dataset), prefix=20, **dict(zip(COLUMNS, row, strict=True)), **others)


def test_changes_of_a_preset_have_precedence() -> None:
    assert TrainingConfig.preset("best", "digits") == TrainingConfig()
    assert TrainingConfig.preset("reference", "mnist", epochs=3).epochs == 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"steps": 9, "gain": 0.3, "prefix": 2, "thinned": True}, RateEncoding(9, 0.3, 2, True)),
        ({"steps": 9, "gain": 0.3, "prefix": 2}, RateEncoding(9, 0.3, 2, False)),
        ({"encoding": "latency", "steps": 9, "prefix": 2}, LatencyEncoding(9, 2)),
        ({"dataset": "psmnist", "hold": 3, "prefix": 2}, HeldEncoding(3, 2)),
        ({"dataset": "delayed-recall", "recall_delay": 40}, RecallEncoding(40)),
    ],
)
def test_settings_of_an_encoding_reach_it(settings: dict[str, Any], expected: object) -> None:
    assert make_encoding(TrainingConfig(**settings)) == expected
