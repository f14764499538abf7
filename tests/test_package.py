"""The package itself: the imports that it needs, the imports that it avoids, and srcell.info()."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import typing
from collections.abc import Callable
from typing import Any

import pytest
import torch

import srcell
import srcell.models
from srcell.layers.options import DEFAULTS, Recurrent
from srcell.reference import delay_reference, src_reference
from srcell.training import TrainingConfig
from support.calls import in_process


def test_importing_srcell_imports_only_torch_and_numpy() -> None:
    """torch._dynamo, which torch leaves unimported, takes longer to import than everything else together."""
    names = {"torch._dynamo", "safetensors", "matplotlib", "sklearn", "torchvision", "srcell.training"}
    code = f"import sys, torch; had = set(sys.modules); import srcell; print({names} & (set(sys.modules) - had))"
    assert in_process(code) == "set()"


def test_the_runtime_and_the_help_import_no_torch() -> None:
    assert in_process("import srcell.runtime, sys; print('torch' in sys.modules, srcell.__version__)").startswith(
        "False"
    )
    assert in_process("import sys; from srcell.cli import main; main([]); print('torch' in sys.modules)").endswith(
        "False"
    )


def test_a_name_of_srcell_is_found_when_it_is_first_used() -> None:
    """The threads are torch's then, although the runtime was there before torch."""
    code = (
        "import srcell.runtime; from srcell._core import thread_runtime; before = thread_runtime(); import srcell;"
        "print(before, srcell.SRC(2, 3), thread_runtime(), {*srcell.__all__} <= {*dir(srcell)})"
    )
    assert in_process(code) == f"std SRC(2, 3) {srcell.info()['thread_runtime']} True"
    code = "from srcell import *; print(SRC, runtime.__name__)"
    assert in_process(code) == "<class 'srcell.layers.SRC'> srcell.runtime"
    for name in ("nothing", "SRC.forward"):
        with pytest.raises(AttributeError, match=f"module 'srcell' has no attribute '{name}'"):
            getattr(srcell, name)


@pytest.mark.parametrize("variable", ["SRCELL_ISA", "SRCELL_THREADS"])
def test_an_unknown_value_of_a_variable_is_an_error_at_import(variable: str) -> None:
    command, environment = [sys.executable, "-c", "import srcell"], os.environ | {variable: "AVX2 "}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {variable}: expected ") and last.endswith("got 'AVX2 '")


def test_documented_submodules_are_imported_when_they_are_first_used() -> None:
    reached = "import srcell; print(srcell.export, srcell.data.load, srcell.hardware.write_header)"
    assert in_process(reached).count("<function") == 3
    assert not hasattr(srcell, "nothing")


def test_info_says_what_runs() -> None:
    info = srcell.info()
    assert info["version"] == srcell.__version__
    assert info["isa"] in info["isas"] and info["isas"][0] == "scalar"
    assert info["torch"] == torch.__version__
    torch.set_num_threads(3)
    assert srcell.info()["threads"] == 3


def test_pickles_name_no_private_module() -> None:
    """A pickle names the module of its class, and must load for as long as its user keeps it."""
    names = {x.__name__: x.__module__ for x in (srcell.EventBatch, srcell.SRCState, srcell.SRC, srcell.SRCCell)}
    assert names == {
        "EventBatch": "srcell.events",
        "SRCState": "srcell.functional",
        "SRC": "srcell.layers",
        "SRCCell": "srcell.layers",
    }


def test_signatures_of_layers_list_all_options_with_their_types() -> None:
    for layer in (srcell.SRC, srcell.SRCCell, srcell.SRCConv2d):
        shown = inspect.signature(layer).parameters
        assert {name: shown[name].default for name in DEFAULTS} == DEFAULTS
        recurrent = {name: (x.default, x.annotation) for name, x in shown.items() if name in Recurrent._fields}
        fields = Recurrent.__annotations__
        expected = {name: (x, fields[name].__forward_arg__) for name, x in Recurrent()._asdict().items()}
        assert recurrent == ({} if layer is srcell.SRCConv2d else expected)
        assert "options" in typing.get_type_hints(layer.__init__)
    with pytest.raises(TypeError, match=r"^SRC\.__init__\(\) got an unexpected keyword argument 'alhpa'"):
        srcell.SRC(3, 4, alhpa=0.5)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"argument .bidirectional.: a layer runs forwards in time; run a second"):
        srcell.SRC(3, 4, bidirectional=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^SRCConv2d\.__init__\(\) got an unexpected keyword argument 'recurrent'"):
        srcell.SRCConv2d(1, 2, 3, recurrent=True)  # type: ignore[call-arg]


CURRENT = torch.zeros(3, 2, 4)
OLD_NAMES: dict[str, Callable[[], Any]] = {
    "SRC: lateral is called recurrent": lambda: srcell.SRC(3, 4, lateral=True),  # type: ignore[call-arg]
    "SRC: lateral_surrogate is called recurrent_surrogate": lambda: srcell.SRC.for_sequences(3, 4, lateral_surrogate=1),
    "SRCCell: bias is called learn_bias": lambda: srcell.SRCCell(3, 4, bias=False),  # type: ignore[call-arg]
    "SRCConv2d: recurrent_grad is called full_gradient": lambda: srcell.SRCConv2d(1, 2, 3, recurrent_grad=True),  # type: ignore[call-arg]
    "SRC: gain is called input_gain": lambda: srcell.SRC.for_sequences(3, 4, gain=2.0),
    "src: recurrent_grad is called full_gradient": lambda: srcell.src(CURRENT, -6.0, recurrent_grad=True),  # type: ignore[call-arg]
    "src_linear: lateral_surrogate is called recurrent_surrogate": lambda: srcell.src_linear(
        CURRENT,
        CURRENT[0],
        -6.0,
        lateral_surrogate="relu",  # type: ignore[call-arg]
    ),
    "delay: width is called delay_width": lambda: srcell.delay(CURRENT, 1.0, max_delay=2, width=2),  # type: ignore[call-arg]
    "Delay.__init__: width is called delay_width": lambda: srcell.Delay(3, 4, width=2),  # type: ignore[call-arg]
    "SRCClassifier.__init__: lateral_delay is called recurrent_delay": lambda: srcell.models.SRCClassifier(
        3,
        [4],
        2,
        lateral_delay=3,  # type: ignore[call-arg]
    ),
    "SRCConvClassifier.__init__: recurrent_grad is called full_gradient": lambda: srcell.models.SRCConvClassifier(
        (1, 8, 8),
        [4],
        [],
        2,
        recurrent_grad=True,  # type: ignore[call-arg]
    ),
    "delay_reference: width is called delay_width": lambda: delay_reference(CURRENT, CURRENT, width=2),  # type: ignore[call-arg]
    "src_reference: recurrent_grad is called full_gradient": lambda: src_reference(
        CURRENT, CURRENT, recurrent_grad=True
    ),  # type: ignore[call-arg]
    "TrainingConfig.__init__: delay is called recall_delay": lambda: TrainingConfig(delay=3),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("expected", OLD_NAMES)
def test_an_old_keyword_says_its_new_name(expected: str) -> None:
    with pytest.raises(TypeError, match=f"^{re.escape(expected)} since srcell 0.3$"):
        OLD_NAMES[expected]()
