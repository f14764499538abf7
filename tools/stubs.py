"""Write the types of the compiled module srcell._core, python/srcell/_core.pyi, from the module.

    python tools/stubs.py           # after a change of csrc/bindings
    python tools/stubs.py --check   # exit status 1 if the file differs from the module's

It needs the extra `dev`, and srcell installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "python" / "srcell" / "_core.pyi"
HEAD = '''"""Types of the compiled module srcell._core, written by tools/stubs.py; CI compares them with the module."""

from __future__ import annotations
'''
# What pybind11 writes, and what mypy is told: arguments are what the package passes, not all that pybind11 converts.
REPLACED = {
    r"typing\.SupportsInt( \| typing\.SupportsIndex)?": "int",
    r"typing\.SupportsFloat( \| typing\.SupportsIndex)?": "float",
    r'typing\.Annotated\[(collections\.abc\.Sequence\[\w+\]), "FixedSize\(\d+\)"\]': r"\1",
    r"typing\.Annotated\[numpy\.typing\.ArrayLike, (numpy\.\w+)\]": r"numpy.typing.NDArray[\1]",
    r"numpy\.ndarray\[typing\.Any, numpy\.dtype\[typing\.Any\]\]": "numpy.typing.NDArray[typing.Any]",
    r"(?<=[:>] )(tuple|list)\b(?!\[)": r"\1[typing.Any, ...]",
    r"list\[typing\.Any, \.\.\.\]": "list[typing.Any]",
    r"(?<=[:>] )dict\b(?!\[)": "dict[str, typing.Any]",
    r"^(def (?:traced|integer)_\w+\(.*)rows: EventRows": r"\1rows: EventRows | None",  # pybind11 does not say it
    r"^__all__.*\n": "",
    r"( = .*)$": "",
    r"\n        \.\.\.|\n    \.\.\.": " ...",
    # A function of float32 and of float64 arrays.
    r"@typing\.overload\ndef (\w+)(\(x: numpy\.typing\.NDArray\[)numpy\.float32.*\n@typing\.overload\n.*": (
        r"def \1\2typing.Any]) -> numpy.typing.NDArray[typing.Any]: ..."
    ),
}


def generate() -> str:
    """The text of the stub."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "--exit-code", "srcell._core", "--output-dir", folder],
            check=True,
        )
        text = (Path(folder) / "srcell" / "_core.pyi").read_text()
    text = HEAD + text.partition("from __future__ import annotations\n")[2]
    for old, new in REPLACED.items():
        text = re.sub(old, new, text, flags=re.MULTILINE)
    for command in (["check", "--fix-only", "--select", "I,F401,UP"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--quiet", "--stdin-filename", str(STUB), "-"]
        text = subprocess.run(ruff, input=text, text=True, stdout=subprocess.PIPE, check=True).stdout
    return text


def main() -> None:
    """Write the stub, or compare it."""
    text = generate()
    if sys.argv[1:] == ["--check"]:
        if text != STUB.read_text():
            sys.exit(f"{STUB}: expected the types of the module: run python tools/stubs.py")
    else:
        STUB.write_text(text)


if __name__ == "__main__":
    main()
