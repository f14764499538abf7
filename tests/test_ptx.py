"""The emulator of tests/ptx computes what the PTX ISA says, and reports each kind of defect.

`tools/run_ptx.py` sets SRCELL_PTX to the build; without nvcc there is none. Where there is a GPU, the operations are
compared with the GPU's own.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.gpu import CARD, MODULE, Host

pytestmark = pytest.mark.landing

BUILD = Path(os.environ.get("SRCELL_PTX", "nowhere")) / "tests" / "ptx"
SOURCES = Path(__file__).parent / "ptx"
HERE = BUILD.exists()

needs_emulator = pytest.mark.skipif(not HERE, reason="no nvcc, or SRCELL_PTX names no build of the preset `ptx`")


def program(name: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PTX_", "LD_PRELOAD"))}
    command = [BUILD / name, *arguments]
    return subprocess.run(command, env=environment | settings, capture_output=True, text=True, check=False)


def opcodes() -> set[str]:
    library = ctypes.CDLL(str(BUILD / "libptx_emulator.so"))
    library.ptx_opcodes.restype = ctypes.c_char_p
    return set(library.ptx_opcodes().decode().split())


@needs_emulator
def test_every_operation_is_that_of_the_host():
    tried = program("ptx_operations")
    assert (tried.returncode, tried.stderr) == (0, ""), tried.stdout
    assert set(tried.stdout.split()) == opcodes()


@needs_emulator
@pytest.mark.parametrize("settings", [{"PTX_SM": "120"}, *({"PTX_RECIPROCAL": x} for x in ("low", "high", "random"))])
def test_operations_are_within_their_errors(settings):
    tried = program("ptx_operations", **settings)
    assert (tried.returncode, tried.stderr) == (0, ""), tried.stdout


@needs_emulator
def test_the_error_of_a_reciprocal_is_chosen():
    found = {
        error: program("ptx_checks", "reciprocal", PTX_RECIPROCAL=error).stdout for error in ("exact", "low", "high")
    }
    assert found == {"exact": "3eaaaaab\n", "low": "3eaaaaaa\n", "high": "3eaaaaac\n"}


@pytest.mark.skipif(not CARD or not shutil.which("nvcc"), reason="no card, or no nvcc")
def test_every_operation_is_that_of_a_gpu(tmp_path):
    compiled = ["nvcc", "-std=c++17", "-arch=native", "-o", tmp_path / "operations", SOURCES / "operations.cu"]
    subprocess.run(compiled, check=True)
    tried = subprocess.run([tmp_path / "operations"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stdout


# By the name of a kernel or launch in checks.cu, all that is reported of it.
REPORTED = {
    "none": [],
    "write after write": ["race: write after write"],
    "read after write": [
        "race: read after write",
        "race: write after read",
        "shared memory read before it is written",
    ],
    "write after read": ["race: read after write"],
    "between blocks": ["race: read after write"],
    "atomic and plain": ["race: write after write"],
    "past the end": ["global memory out of bounds"],
    "before the begin": ["global memory out of bounds"],
    "null pointer": ["null pointer"],
    "freed memory": ["memory that nobody allocated"],
    "past shared memory": ["shared memory out of bounds"] * 2,
    "unwritten shared memory": ["shared memory read before it is written"],
    "missed barrier": ["a barrier that not all threads reach"],
    "different barriers": ["threads wait at different barriers"],
    "misaligned vector": ["misaligned"],
    "division by zero": ["division by zero"],
    "endless": ["a thread that does not end"],
    "too many threads for the kernel": ["launch refused: more threads than .maxntid"],
    "too many threads": ["launch refused: grid or block"],
    "no blocks": ["launch refused: grid or block"],
    "too much shared memory": ["launch refused: more shared memory than allowed"],
    "more than the device has": ["an error that nobody asked for", "cudaFuncSetAttribute() refused"],
    "an error that is ignored": ["an error that nobody asked for", "launch refused: grid or block"],
}
# What the order of the threads decides: which of two accesses comes second, and whether a read finds memory written.
DEPENDS_ON_ORDER = {"read after write", "write after read", "between blocks", "atomic and plain"}
# What CUDA refuses, so that the program fails.
REFUSED = {"endless", "too many threads for the kernel", "too many threads", "no blocks", "too much shared memory"}


@needs_emulator
@pytest.mark.parametrize("order", ["ascending", "descending", "random", "interleaved"])
@pytest.mark.parametrize("name", REPORTED)
def test_each_defect_is_reported(tmp_path, name, order):
    ended = program("ptx_checks", name, PTX_ORDER=order, PTX_REPORT=str(tmp_path))
    lines = [line.split("\t") for report in tmp_path.iterdir() for line in report.read_text().splitlines()]
    found = [fields[2] for fields in lines if fields[0] == "defect"]
    if name in DEPENDS_ON_ORDER and order != "ascending":
        assert any("race" in defect for defect in found)
    else:
        assert found == REPORTED[name]
    assert ended.stderr.count("PTX emulator: defect: ") == len(found)
    assert ended.returncode == (name in REFUSED or name == "more than the device has")


def kernel(*statements: str) -> str:
    head = [
        ".version 9.0",
        ".target sm_75",
        ".address_size 64",
        ".visible .entry k(",
        ".param .b8 k_0[8]",
        ")",
    ]
    return "\n".join([*head, "{", *statements, "}", ""])


@needs_emulator
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (kernel(".reg .b32 %r<3>;", "mov.u32 %r1, 7;", "ret;"), None),
        (
            kernel(".reg .b32 %r<3>;", "vote.sync.any.pred %r1, %r2;"),
            "line 9: unknown instruction 'vote.sync.any.pred'",
        ),
        (kernel("mov.u32 %r1, 7;"), "line 8: unknown operand '%r1'"),
        (kernel(".reg .b32 %r<3>;", "mov.u32 %r1, 7x;"), "line 9: unknown number '7x'"),
        (kernel(".reg .b32 %r<3>;", "ld.local.u32 %r1, [k_0];"), "line 9: unknown instruction 'ld.local.u32'"),
        (kernel(".reg .b32 %r<3>, %r<3>;"), "line 8: '%r0' is declared twice"),
        (kernel("bra $L__BB0_1;"), "line 9: unknown label '$L__BB0_1'"),
        (kernel("bar.sync 1;"), "line 8: unknown barrier '1'"),
        (kernel("ret"), "line 10: the text ends in the middle of a statement"),
        (".version 9.0\n.func f;\n", "line 2: unknown directive '.func'"),
        ("", "line 1: no .target"),
    ],
)
def test_text_that_is_not_understood_is_an_error_that_names_it(text, expected):
    library = ctypes.CDLL(str(BUILD / "libptx_emulator.so"))
    library.ptx_error.restype = ctypes.c_char_p
    error = library.ptx_error(text.encode())
    assert (error and error.decode()) == expected


@needs_emulator
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"PTX_SM": "60"}, "PTX_SM: expected 75, 89, 90 or 120, got 60"),
        ({"PTX_ORDER": "any"}, "PTX_ORDER: expected ascending, descending, random or interleaved, got any"),
        ({"PTX_RECIPROCAL": "2"}, "PTX_RECIPROCAL: expected exact, low, high or random, got 2"),
    ],
)
def test_a_setting_without_meaning_ends_the_process(settings, expected):
    ended = program("ptx_checks", "none", **settings)
    assert (ended.returncode, ended.stderr) == (2, f"PTX emulator: {expected}\n")


@needs_emulator
def test_a_module_without_ptx_ends_the_process():
    ended = program("ptx_checks_without", "none")
    assert (ended.returncode, ended.stderr) == (2, "PTX emulator: the module has no PTX for sm_90\n")


@pytest.mark.skipif(not HERE or not MODULE, reason="SRCELL_CUDA_ON_HOST is not the module that the emulator runs")
def test_a_device_that_is_not_there_is_an_error_of_python(gpu):
    if not isinstance(gpu, Host):
        pytest.skip("a real GPU has its own runtime")
    sizes = (0, 0, 0, 0)
    with pytest.raises(RuntimeError, match="invalid device ordinal"):
        gpu.module.count_mask((7, 0), sizes, 0, 0)
    gpu.module.count_mask((0, 0), sizes, 0, 0)  # the error does not stay
