"""Checks what CONTRIBUTING.md, "What our wheel promises", says of a repaired wheel.

    python tools/check_wheel.py WHEEL [MACHINE]

MACHINE is the processor that the wheel is for, by default x86_64, or `here`: then the wheel was compiled against the C
library of this machine, and what is said of glibc 2.28 is left out. Needs binutils.
"""

from __future__ import annotations

import email
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 5_000_000
GLIBC, GLIBCXX = (2, 28), (3, 4, 25)
# What every Linux of manylinux_2_28 has; the compiler's runtime among it.
SYSTEM = {"libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6"}
FORBIDDEN = re.compile(r"torch|c10|cuda|omp", re.IGNORECASE)


class _Wheel(NamedTuple):
    path: Path
    machine: str
    names: list[str]
    metadata: email.message.Message
    tags: list[str]
    module: Path
    dynamic: str  # of readelf
    segments: str
    versions: str

    @classmethod
    def open(cls, path: Path, machine: str, folder: Path) -> _Wheel:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
            names = archive.namelist()
        (info,) = folder.glob("*.dist-info")
        modules = [name for name in names if re.search(r"\.(so|pyd|dylib)(\.|$)", name)]
        if len(modules) != 1:
            raise SystemExit(f"{path.name}: expected one compiled module and no library beside it, got {modules}")
        module = folder / modules[0]
        read = [
            subprocess.run(["readelf", "-W", option, str(module)], check=True, capture_output=True, text=True).stdout
            for option in ("-d", "-lh", "-V")
        ]
        metadata = email.message_from_string((info / "METADATA").read_text())
        tags = email.message_from_string((info / "WHEEL").read_text()).get_all("Tag", [])
        return cls(path, machine, names, metadata, tags, module, *read)


def links_only_the_system(wheel: _Wheel) -> str | None:
    """It links only libraries that every Linux of manylinux_2_28 has, and looks for none in folders of its own."""
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", wheel.dynamic))
    strange = sorted(name for name in needed - SYSTEM if not name.startswith("ld-linux"))
    if "libc.so.6" in needed and not strange and not _paths_of(wheel):
        return None
    return f"links {strange or sorted(needed)}, and looks in {_paths_of(wheel)}"


def _paths_of(wheel: _Wheel) -> list[str]:
    return re.findall(r"\((?:RPATH|RUNPATH)\).*", wheel.dynamic)


def never_torch(wheel: _Wheel) -> str | None:
    """It links nothing of torch, of CUDA or of an OpenMP runtime: one wheel serves every torch."""
    found = [line for line in wheel.dynamic.splitlines() if "NEEDED" in line and FORBIDDEN.search(line)]
    return f"links {found}" if found else None


def exports_only_its_initialisation(wheel: _Wheel) -> str | None:
    """Its module exports one symbol, the function by which Python initialises it."""
    listed = subprocess.run(
        ["nm", "--dynamic", "--defined-only", str(wheel.module)], check=True, capture_output=True, text=True
    ).stdout
    names = [line.split()[-1] for line in listed.splitlines()]
    return None if names == ["PyInit__core"] else f"exports {names[:9]}"


def has_no_executable_stack(wheel: _Wheel) -> str | None:
    """Its module does not ask for an executable stack."""
    found = re.findall(r"GNU_STACK.*", wheel.segments)
    return None if found and not any("RWE" in line for line in found) else f"has {found or 'no GNU_STACK'}"


def has_no_writable_code(wheel: _Wheel) -> str | None:
    """No memory of its module is writable and executable."""
    return "has a segment that is writable and executable" if re.search(r"LOAD.*RWE", wheel.segments) else None


def runs_on_glibc_2_28(wheel: _Wheel) -> str | None:
    """It runs with glibc 2.28 and libstdc++ 8 (Debian 10, RHEL 8) and newer."""
    for name, most in (("GLIBC", GLIBC), ("GLIBCXX", GLIBCXX)):
        asked = {tuple(map(int, text.split("."))) for text in re.findall(rf"{name}_([0-9.]+)", wheel.versions)}
        newest = max(asked, default=(99,) if name == "GLIBC" else most)
        if newest > most:
            return f"asks for {name}_{'.'.join(map(str, newest))}"
    return None


def has_the_tag_of_its_platform(wheel: _Wheel) -> str | None:
    """Its tags are those of manylinux_2_28 or older, for its processor."""
    fits = [tag for tag in wheel.tags if re.search(rf"-(manylinux_2_(17|28)|manylinux2014)_{wheel.machine}$", tag)]
    return None if fits and fits == wheel.tags else f"has the tags {wheel.tags}"


def is_for_its_processor(wheel: _Wheel) -> str | None:
    """Its module is for that processor."""
    name = {"x86_64": "X86-64", "aarch64": "AArch64"}[wheel.machine]
    return None if re.search(rf"Machine:.*{name}", wheel.segments) else f"is not for {name}"


def has_one_version(wheel: _Wheel) -> str | None:
    """File name, metadata, `pyproject.toml` and `CITATION.cff` have one version."""
    version = wheel.metadata["Version"]
    found = {
        "file name": wheel.path.name.split("-")[1],
        "pyproject.toml": _first(r'^version = "(.*)"$', "pyproject.toml"),
        "CITATION.cff": _first(r"^version: (.*)$", "CITATION.cff"),
    }
    others = {name: other for name, other in found.items() if other != version}
    return f"is {version}, but {others}" if others else None


def _first(pattern: str, file: str) -> str:
    found = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert found, f"{file}: expected {pattern}"
    return found[1]


def has_its_licence(wheel: _Wheel) -> str | None:
    """Its metadata name the licence, MIT, and it contains the licence's text."""
    named = wheel.metadata.get_all("License-File", [])
    held = [name for name in wheel.names if "/licenses/" in name and name.endswith("LICENSE")]
    expression = wheel.metadata["License-Expression"]
    return None if expression == "MIT" and named and held else f"has {expression}, {named}, {held}"


def needs_numpy_alone(wheel: _Wheel) -> str | None:
    """It requires numpy alone; torch and everything else belong to extras."""
    needed = [text for text in wheel.metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    return None if [re.split(r"[^a-z]", text)[0] for text in needed] == ["numpy"] else f"needs {needed}"


def has_types_and_nothing_else(wheel: _Wheel) -> str | None:
    """It contains the package with its types (`py.typed`): no tests, no sources in C++."""
    folders = {name.split("/")[0] for name in wheel.names if ".dist-info" not in name}
    strange = sorted(
        folders - {"srcell"}
        | {name for name in wheel.names if "/tests/" in name or name.endswith((".c", ".cpp", ".h", ".cu"))}
    )
    return None if "srcell/py.typed" in wheel.names and not strange else f"has {strange or 'no py.typed'}"


def is_small(wheel: _Wheel) -> str | None:
    """It has at most 5,000,000 bytes."""
    size = wheel.path.stat().st_size
    return f"has {size:,} bytes" if size > MOST_BYTES else None


PROMISES: tuple[Callable[[_Wheel], str | None], ...] = (
    never_torch,
    links_only_the_system,
    exports_only_its_initialisation,
    has_no_executable_stack,
    has_no_writable_code,
    runs_on_glibc_2_28,
    has_the_tag_of_its_platform,
    is_for_its_processor,
    has_one_version,
    has_its_licence,
    needs_numpy_alone,
    has_types_and_nothing_else,
    is_small,
)


OF_GLIBC = (runs_on_glibc_2_28, has_the_tag_of_its_platform)


def _broken(wheel: _Wheel, promises: Sequence[Callable[[_Wheel], str | None]] = PROMISES) -> Iterator[str]:
    for promise in promises:
        if (found := promise(wheel)) is not None:
            yield f"{promise.__doc__} This one {found}."


def main() -> None:  # noqa: D103
    path, machine = Path(sys.argv[1]), (sys.argv[2:] or ["x86_64"])[0]
    promises = PROMISES
    if machine == "here":
        machine, promises = platform.machine(), tuple(x for x in PROMISES if x not in OF_GLIBC)
    with tempfile.TemporaryDirectory() as folder:
        wheel = _Wheel.open(path, machine, Path(folder))
        found = list(_broken(wheel, promises))
    if found:
        raise SystemExit("\n".join(f"{path.name}: broken promise: {line}" for line in found))
    print(f"{path.name}: {len(promises)} promises checked, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
