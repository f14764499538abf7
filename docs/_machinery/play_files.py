"""What the pages of docs/play take besides their scripts: the WebAssembly module and the networks, beside them.

``extension.py`` calls ``write`` when the pages are built.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import report  # docs/_machinery/report.py

import srcell

MODULE = Path(__file__).resolve().parents[2] / "build" / "wasm32" / "srcell.wasm"
RUNS = ("mnist-100", "integer-44-4")  # run folders in experiments/results
EXPORTED = ("recall/recall.srcell", "recall/recall-alone.srcell", "say-a-digit/digits.srcell")


def write(folder: Path) -> None:
    """Copy the module to the folder, and put the networks there.

    Raises:
        FileNotFoundError: the module was not built.

    """
    if not MODULE.exists():
        raise FileNotFoundError(f"{MODULE}: expected the module that `cmake --preset wasm32` and a build make")
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(MODULE, folder / MODULE.name)
    for run in RUNS:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*without the cells' constants")  # a run of an older srcell
            srcell.load(report.RESULTS / run).export(folder / f"{run}.srcell")
    for file in EXPORTED:
        shutil.copy(report.RESULTS / file, folder)
