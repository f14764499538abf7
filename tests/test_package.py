"""The package itself: the imports that it needs, those that it avoids, and srcell.info()."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import typing

import pytest
import torch

import srcell
from srcell.layers.options import DEFAULTS
from support.calls import in_process


def test_importing_srcell_needs_numpy_and_torch_alone() -> None:
    names = {"safetensors", "matplotlib", "sklearn", "torchvision", "srcell.training"}
    program = f"import sys, srcell; print({names} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_importing_the_package_leaves_torchs_compiler_alone() -> None:
    """torch._dynamo takes longer to import than everything else together."""
    code = "import sys, torch; had = set(sys.modules); import srcell; print('torch._dynamo' in set(sys.modules) - had)"
    assert in_process(code) == "False"


@pytest.mark.parametrize("isa", ["mmx", "AVX2 ", "0"])
def test_an_unknown_instruction_set_is_an_error_at_import(isa: str) -> None:
    made = subprocess.run(
        [sys.executable, "-c", "import srcell"], env={**os.environ, "SRCELL_ISA": isa}, capture_output=True, text=True
    )
    assert made.returncode == 1
    last = made.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: SRCELL_ISA: expected ") and last.endswith(f"got {isa!r}")


def test_info_says_what_runs() -> None:
    info = srcell.info()
    assert info["version"] == srcell.__version__
    assert info["isa"] in info["isas"] and info["isas"][0] == "scalar"
    assert info["torch"] == torch.__version__
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert srcell.info()["threads"] == 3
    finally:
        torch.set_num_threads(before)


def test_pickles_name_no_private_file() -> None:
    """Users' pickles name a class's module, and must load for as long as users keep them."""
    names = {x.__name__: x.__module__ for x in (srcell.EventBatch, srcell.SRCState, srcell.SRC, srcell.SRCCell)}
    assert names == {
        "EventBatch": "srcell.events",
        "SRCState": "srcell.functional",
        "SRC": "srcell.layers",
        "SRCCell": "srcell.layers",
    }


def test_the_signatures_of_layers_show_all_options_with_their_types() -> None:
    for layer in (srcell.SRC, srcell.SRCCell, srcell.SRCConv2d):
        shown = inspect.signature(layer).parameters
        assert {name: shown[name].default for name in DEFAULTS} == DEFAULTS
        assert "options" in typing.get_type_hints(layer.__init__)
    with pytest.raises(TypeError, match=r"^SRC\.__init__\(\) got an unexpected keyword argument 'alhpa'"):
        srcell.SRC(3, 4, alhpa=0.5)  # type: ignore[call-arg]
