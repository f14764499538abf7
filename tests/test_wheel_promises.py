"""tools/check_wheel.py: its promises are those of CONTRIBUTING.md, and each is seen to be broken."""

from __future__ import annotations

import email.message
import sys
from pathlib import Path
from typing import Any

import pytest

from support.imports import script

pytestmark = pytest.mark.landing

ROOT = Path(__file__).parent.parent
check_wheel = script("tools", "check_wheel")

DYNAMIC = """\
 0x0000000000000001 (NEEDED)             Shared library: [libm.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x0000000000000001 (NEEDED)             Shared library: [ld-linux-x86-64.so.2]
"""
SEGMENTS = """\
  Machine:                           Advanced Micro Devices X86-64
  LOAD           0x000000 0x0000000000000000 0x0000000000000000 0x0a21 0x0a21 R   0x1000
  LOAD           0x011000 0x0000000000011000 0x0000000000011000 0x80d1 0x80d1 R E 0x1000
  GNU_STACK      0x000000 0x0000000000000000 0x0000000000000000 0x0000 0x0000 RW  0x0
"""
VERSION = check_wheel._first(r'^version = "(.*)"$', "pyproject.toml")


def metadata(*changes: tuple[str, str]) -> Any:
    made = email.message.Message()
    of = [
        ("Version", VERSION),
        ("License-Expression", "MIT"),
        ("License-File", "LICENSE"),
        ("Requires-Dist", "numpy>=1.24"),
        ("Requires-Dist", "torch>=2.4; extra == 'torch'"),
    ]
    for name, value in [*(pair for pair in of if pair[0] not in dict(changes)), *changes]:
        made[name] = value
    return made


def wheel(**changes: Any) -> Any:
    names = ["srcell/__init__.py", "srcell/py.typed", f"srcell-{VERSION}.dist-info/licenses/LICENSE"]
    fields = {
        "path": ROOT / f"srcell-{VERSION}-x.whl",
        "machine": "x86_64",
        "names": names,
        "metadata": metadata(),
        "tags": ["cp311-cp311-manylinux_2_28_x86_64"],
        "module": Path("none"),
        "dynamic": DYNAMIC,
        "segments": SEGMENTS,
        "versions": "Name: GLIBC_2.14  Name: GLIBC_2.28",
    }
    return check_wheel._Wheel(**(fields | changes))


BROKEN = [
    ("never_torch", {"dynamic": DYNAMIC.replace("libm.so.6", "libtorch_cpu.so")}),
    ("never_torch", {"dynamic": DYNAMIC.replace("libm.so.6", "libgomp.so.1")}),
    ("links_only_the_system", {"dynamic": DYNAMIC.replace("libm.so.6", "libz.so.1")}),
    ("links_only_the_system", {"dynamic": DYNAMIC + " 0x1d (RUNPATH) Library runpath: [/opt]\n"}),
    ("links_only_the_system", {"dynamic": ""}),
    ("has_no_executable_stack", {"segments": SEGMENTS.replace("RW  0x0", "RWE 0x0")}),
    ("has_no_executable_stack", {"segments": SEGMENTS.replace("GNU_STACK", "NOTE")}),
    ("has_no_writable_code", {"segments": SEGMENTS.replace("R E 0x1000", "RWE 0x1000")}),
    ("runs_on_glibc_2_28", {"versions": "Name: GLIBC_2.14  Name: GLIBC_2.34"}),
    ("runs_on_glibc_2_28", {"versions": ""}),
    ("runs_on_glibc_2_28", {"versions": "Name: GLIBC_2.14  Name: GLIBCXX_3.4.30"}),
    ("has_the_tag_of_its_platform", {"tags": ["cp311-cp311-linux_x86_64"]}),
    ("has_the_tag_of_its_platform", {"tags": ["cp311-cp311-manylinux_2_28_aarch64"]}),
    ("has_the_tag_of_its_platform", {"tags": ["cp311-cp311-manylinux_2_39_x86_64"]}),
    ("is_for_its_processor", {"machine": "aarch64"}),
    ("has_one_version", {"metadata": metadata(("Version", "0.0.1"))}),
    ("has_its_licence", {"metadata": metadata(("License-Expression", "GPL-3.0"))}),
    ("has_its_licence", {"names": ["srcell/py.typed"]}),
    ("needs_numpy_alone", {"metadata": metadata(("Requires-Dist", "torch"))}),
    ("has_types_and_nothing_else", {"names": ["srcell/__init__.py"]}),
    ("has_types_and_nothing_else", {"names": ["srcell/py.typed", "tests/test_a.py"]}),
    ("has_types_and_nothing_else", {"names": ["srcell/py.typed", "srcell/cell.h"]}),
]


@pytest.mark.parametrize(("promise", "changes"), BROKEN)
def test_a_broken_promise_is_found(promise: str, changes: dict[str, Any]) -> None:
    check = getattr(check_wheel, promise)
    assert check in check_wheel.PROMISES and check(wheel()) is None and check(wheel(**changes))


def test_size_and_symbols_are_looked_at(tmp_path: Path) -> None:
    large = tmp_path / "large.whl"
    large.write_bytes(bytes(5_000_001))
    assert check_wheel.is_small(wheel(path=large)) == "has 5,000,001 bytes"
    large.write_bytes(bytes(5_000_000))
    assert check_wheel.is_small(wheel(path=large)) is None
    import srcell._core

    assert check_wheel.exports_only_its_initialisation(wheel(module=Path(srcell._core.__file__))) is None
    assert "exports" in check_wheel.exports_only_its_initialisation(wheel(module=Path(sys.executable).resolve()))


def test_contributing_has_every_promise() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tried = {promise for promise, _ in BROKEN} | {"is_small", "exports_only_its_initialisation"}
    assert {check.__name__ for check in check_wheel.PROMISES} == tried
    for check in check_wheel.PROMISES:
        assert f"- {check.__doc__}\n" in text
