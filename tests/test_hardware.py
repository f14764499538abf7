"""srcell.hardware: VHDL packages, spike frames and C99 headers are read back exactly, and compiled headers give the
spikes of the integer neuron.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from srcell import hardware
from srcell._integer import IntegerCell
from support.integers import integer_model
from support.refusals import assert_refused

CC = shutil.which("cc") or shutil.which("gcc")
ARM = [shutil.which("arm-linux-gnueabihf-gcc"), shutil.which("qemu-arm")]
STRICT = ["-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
VOTES = (10, -1)
OTHER_CELL = IntegerCell(
    leak_shift_a=3, leak_shift_b=7, i_max=200, drive_high=700, drive_low=-900, gate_threshold=300, zs_hyp=1000, zs_dep=3
)
OTHER_CELL = OTHER_CELL._replace(r=3, rs=-6, bias=-2450, slope=2, slope_shift=1, h_max=900, hs_min=-700)

# Resets a state whose bytes are all 85. Prints one line of spikes after the reset and after each step, then the class,
# the number of clamped i, the size of the state, the votes.
MAIN = """
#include "network.h"
#include <stdio.h>
#include <string.h>

static network_state state;

static void print_spikes(void)
{
    for (unsigned n = 0; n < NETWORK_OUTPUTS; n++) printf("%u", (unsigned)network_spikes(&state)[n]);
    putchar('\\n');
}

int main(void)
{
    static uint16_t active[65535];
    unsigned count, input;
    memset(&state, 85, sizeof state);
    network_reset(&state);
    print_spikes();
    while (scanf("%u", &count) == 1) {
        for (unsigned k = 0; k < count; k++)
            active[k] = scanf("%u", &input) == 1 ? (uint16_t)input : (uint16_t)0;
        network_step(&state, active, (uint16_t)count);
        print_spikes();
    }
    printf("%u %lu %lu", (unsigned)network_class(&state), (unsigned long)state.clamped, (unsigned long)sizeof state);
    for (unsigned c = 0; c < NETWORK_CLASSES; c++) printf(" %ld", (long)state.votes[c]);
    return 0;
}
"""


class Outcome(NamedTuple):
    spikes: NDArray[np.int64]
    best: int
    clamped: int
    votes: list[int]


def random_weights(seed: int, *shape: int, low: int = -8, high: int = 7) -> NDArray[np.int16]:
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(np.int16)


def random_spikes(seed: int, *shape: int, rate: float = 0.2) -> NDArray[np.uint8]:
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.uint8)


def compiled(folder: Path, compiler: str | None, *options: str, source: str = "main.c") -> Path:
    """The program of MAIN with the header of the folder."""
    (folder / source).write_text(MAIN)
    command = [compiler or "no compiler", *STRICT, *options, source, "-o", "program"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return folder / "program"


def run_program(program: list[str], spikes: NDArray[np.uint8]) -> tuple[Outcome, int]:
    """The outcome of the program for spikes (T, K), and the size of its state."""
    active = [row.nonzero()[0].tolist() for row in spikes]
    given = "\n".join(" ".join(map(str, [len(inputs), *inputs])) for inputs in active)
    printed = subprocess.run(program, input=given, capture_output=True, text=True, check=True).stdout
    initial, *lines, last = printed.split("\n")
    best, clamped, size, *votes = map(int, last.split())
    assert set(initial) == {"0"}
    return Outcome(np.array([list(line) for line in lines], np.int64), best, clamped, votes), size


def expected_outcome(
    layers: list[NDArray[np.int16]], spikes: NDArray[Any], classes: int, votes: tuple[int, int], **changes: int
) -> Outcome:
    clamped, below = 0, spikes[:, None].astype(np.int64)
    for weights in layers:
        below, _, more, _ = integer_model(below, weights, **changes)
        clamped += more
    own = np.arange(below.shape[2]) % classes == np.arange(classes)[:, None]
    counted = (below.sum((0, 1)) * np.where(own, *votes)).sum(1)
    return Outcome(below[:, 0], int(counted.argmax()), clamped, counted.tolist())


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert np.array_equal(found.spikes, expected.spikes)
    assert found[1:] == expected[1:]


NETWORK = [random_weights(2, 40, 50), random_weights(3, 20, 40)]
# Layers, classes, votes, constants, rate of input spikes.
NETWORKS: dict[str, tuple[list[NDArray[np.int16]], int, tuple[int, int], IntegerCell, float]] = {
    "two layers": (NETWORK, 4, VOTES, IntegerCell(), 0.3),
    "16 bits": ([random_weights(4, 12, 30, low=-300, high=300)], 3, VOTES, IntegerCell(), 0.2),
    "saturating": ([random_weights(5, 12, 30, low=-32768, high=32767)], 1, VOTES, IntegerCell(), 0.2),
    "8 bits on 16": (
        [random_weights(6, 33, 9, low=-900, high=999), random_weights(7, 6, 33, low=-128, high=127)],
        *(6, (3, 0), IntegerCell(), 0.4),
    ),
    # h is often clamped to these bounds, and so meets the thresholds exactly.
    "spikes at a bound": (NETWORK, 10, VOTES, IntegerCell(spike_threshold=1023), 0.3),
    "gate at a bound": ([random_weights(14, 30, 50)], 10, VOTES, IntegerCell(gate_threshold=1023), 0.3),
    "one of each": ([np.array([[90]])], 1, VOTES, IntegerCell(), 0.5),
    "three layers, other constants": (
        [random_weights(9, 25, 30, low=-40, high=40), random_weights(10, 35, 25), random_weights(11, 8, 35, high=12)],
        *(4, (-2, 7), OTHER_CELL, 0.3),
    ),
}


# The compiler and options for a header, and the launcher of the program.
ON_ARM = pytest.mark.skipif(None in ARM, reason="needs arm-linux-gnueabihf-gcc and qemu-arm")
TARGETS = {
    "host": ([CC, "-O2"], []),
    "arm": ([ARM[0], "-Os", "-mthumb"], [str(ARM[1]), "-L", "/usr/arm-linux-gnueabihf"]),
}


@pytest.mark.parametrize("target", ["host", pytest.param("arm", marks=ON_ARM)])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_compiled_header_gives_the_integer_neurons_spikes_and_class(name: str, target: str, tmp_path: Path) -> None:
    layers, classes, votes, cell, rate = NETWORKS[name]
    hardware.write_header(tmp_path / "network.h", layers, cell=cell, num_classes=classes, votes=votes)
    spikes = random_spikes(1, 120, layers[0].shape[1], rate=rate)
    expected = expected_outcome(layers, spikes, classes, votes, **cell._asdict())
    assert expected.spikes.any() and not expected.spikes.all()
    (compiler, *options), launcher = TARGETS[target]
    found, size = run_program([*launcher, str(compiled(tmp_path, compiler, "-std=c99", *options))], spikes)
    assert_same(found, expected)
    header = (tmp_path / "network.h").read_text()
    assert f"RAM      {size} bytes" in header
    bytes_of_weights = sum(w.size * (1 if np.abs(w + 0.5).max() < 128 else 2) for w in layers)
    assert f"flash    {bytes_of_weights} bytes" in header
    if name in ("saturating", "three layers, other constants"):
        assert found.clamped > 50


def test_a_header_compiles_as_c_and_cpp_and_needs_no_library(tmp_path: Path) -> None:
    """No warning about unused functions, no symbol beyond memset, which compilers may call on their own."""
    hardware.write_header(tmp_path / "network.h", NETWORK, num_classes=4)
    (tmp_path / "unused.c").write_text('#include "network.h"\n#include "network.h"\nint main(void) { return 0; }\n')
    (tmp_path / "use.c").write_text("""
#include "network.h"
void use_reset(network_state *s) { network_reset(s); }
void use_step(network_state *s, const uint16_t *a) { network_step(s, a, 3); }
""")
    cpp = ["-x", "c++", "-std=c++11", "-Wsign-conversion"]
    freestanding = ["-std=c99", "-ffreestanding", "-Os", "-nostdlib", "-shared", "-fPIC", "-Wl,-z,defs"]
    for options in (
        ["-std=c99", "-c", "unused.c"],
        [*cpp, "-c", "unused.c"],
        [*freestanding, "-Wl,--defsym=memset=0", "use.c", "-o", "use.so"],
    ):
        subprocess.run([str(CC), *STRICT, *options], cwd=tmp_path, check=True)
    compiled(tmp_path, CC, *cpp, "-c", source="main.cpp")


def test_inputs_that_do_not_exist_are_skipped_and_votes_saturate(tmp_path: Path) -> None:
    weights = [np.array([[32767] * 3, [-32768] * 3])]
    hardware.write_header(tmp_path / "network.h", weights, num_classes=2, votes=(32767, -32768))
    # Other weights lie behind those of the last input: reading them would change the spikes.
    header = (tmp_path / "network.h").read_text()
    header = header.replace("[3][2] = {\n", "[4][2] = {\n").replace("\n};", "\n    {32767, 32767},\n};", 1)
    (tmp_path / "network.h").write_text(header)
    program = [str(compiled(tmp_path, CC, "-std=c99", "-O1"))]
    silent = run_program(program, np.zeros((9, 3), np.uint8))[0]
    assert not silent.spikes.any() and silent.best == 0  # the lowest of equals
    assert_same(run_program(program, np.eye(9, 65535, 3, dtype=np.uint8))[0], silent)
    source = (tmp_path / "main.c").read_text()
    loop = "for (unsigned k = 0; k < 999999; k++) network_step(&state, active, 1);\n    network_class"
    (tmp_path / "main.c").write_text(source.replace("while (scanf", f"{loop}(&state);\n    while (scanf"))
    subprocess.run([str(CC), "-std=c99", "-O2", "main.c", "-o", "program"], cwd=tmp_path, check=True)
    assert run_program(program, np.zeros((1, 3), np.uint8))[0].votes == [2**30, -(2**30)]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_header_is_read_back_exactly(name: str, tmp_path: Path) -> None:
    layers, classes, votes, cell, _ = NETWORKS[name]
    tensors = [torch.from_numpy(weights) for weights in layers]
    hardware.write_header(tmp_path / "a.h", tensors, cell=cell, num_classes=classes, name="Net_2", votes=votes)
    found = hardware.read_header(tmp_path / "a.h")
    assert (found.cell, found.num_classes, found.name, found.votes) == (cell, classes, "Net_2", votes)
    assert all(np.array_equal(a, b) and a.dtype == np.int16 for a, b in zip(found.layers, layers, strict=True))
    hardware.write_header(tmp_path / "b.h", **found._asdict())
    assert (tmp_path / "a.h").read_bytes() == (tmp_path / "b.h").read_bytes()


@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (5, 1), (1, 1), (40, 33)])
def test_a_vhdl_package_is_read_back_exactly(shape: tuple[int, int], tmp_path: Path) -> None:
    weights = random_weights(1, *shape, low=-32768, high=32767)
    path = tmp_path / "weights.vhd"
    for given in (weights, torch.from_numpy(weights).long(), weights.tolist()):
        hardware.write_weights(path, given, name="first_layer")
        found = hardware.read_weights(path)
        assert found.dtype == np.int16 and np.array_equal(found, weights)
    text = path.read_text()
    assert text.splitlines()[1] == "package first_layer is" and max(map(len, text.splitlines())) < 150
    # In VHDL, one value in parentheses is not an array.
    assert ("((" in text.replace("\n", "").replace(" ", "")) == (shape[0] > 1)
    assert len(re.findall(r"\(0 => -?\d+\)", text)) == (shape[0] if shape[1] == 1 else 0)


FOREIGN = """
library IEEE; use IEEE.std_logic_1164.all; -- constant x : natural := 3;
/* of another
   tool */
PACKAGE W IS
  CONSTANT Rows:NATURAL:=2;
  constant COLS : natural := 1_0;
  constant steps : integer := 220;
  TYPE Weights_T IS ARRAY (0 to Rows-1, 0 to COLS-1) OF Integer range -8 to 8;
  constant W0 : weights_t := (1 => (9 => - 8, 0 => 8, 1 => 1, 2 => 2, 3 => 3, 4=>4, 5=>5, 6=>6, 7=>+7, 8=>8),
    0=>(0, 1, 2, 3, 4, 5, 6, 7, 8, 9 -- the first
  ));
END PACKAGE W;
"""


def test_packages_of_other_tools_are_read(tmp_path: Path) -> None:
    path = tmp_path / "w.vhd"
    path.write_text(FOREIGN)
    assert hardware.read_weights(path).tolist() == [list(range(10)), [8, 1, 2, 3, 4, 5, 6, 7, 8, -8]]


@pytest.mark.skipif(shutil.which("ghdl") is None, reason="needs ghdl")
@pytest.mark.parametrize("shape", [(5, 7), (1, 7), (5, 1), (1, 1)])
def test_ghdl_analyses_the_packages(shape: tuple[int, int], tmp_path: Path) -> None:
    hardware.write_weights(tmp_path / "weights.vhd", random_weights(1, *shape))
    for standard in ("93", "08"):
        subprocess.run(["ghdl", "-s", f"--std={standard}", "weights.vhd"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("shape", [None, (3, 4), (1, 12)])
def test_frames_are_read_back_exactly(shape: tuple[int, int] | None, tmp_path: Path) -> None:
    spikes = random_spikes(1, 9, 12, rate=0.5)
    path = tmp_path / "frames.txt"
    for given in (spikes, torch.from_numpy(spikes).bool(), torch.from_numpy(spikes).float()):
        hardware.write_frames(path, given, 11, image_shape=shape)
        found, label = hardware.read_frames(path, image_shape=shape)
        assert np.array_equal(found, spikes) and label == 11
    words = path.read_text().split()
    assert [word[:6] for word in words] == ["101011", *["001011"] * 7, "011011"]
    image = spikes.reshape(9, *(shape or (1, 12)))
    by_columns = image.transpose(0, 2, 1).reshape(9, 12)
    assert [word[6:] for word in words] == ["".join(map(str, row)) for row in by_columns]
    hardware.write_frames(path, [[True, False]], 0)  # the first step and the last
    assert path.read_text() == "11000010\n"


INVALID: dict[Any, tuple[dict[str, Any], list[tuple[type[Exception], str, dict[str, Any]]]]] = {
    hardware.write_header: (
        {"layers": [np.ones((4, 3), int)], "num_classes": 2},
        [
            (ValueError, "layers", {"layers": []}),
            (TypeError, "layers[0", {"layers": [np.ones((4, 3), bool)]}),
            (ValueError, "layers[0", {"layers": [np.ones(3, int)]}),
            (ValueError, "layers[0", {"layers": [np.ones((4, 0), int)]}),
            (ValueError, "layers[0", {"layers": [np.full((4, 3), 32768)]}),
            (ValueError, "layers[1", {"layers": [np.ones((4, 3), int), np.ones((4, 5), int)]}),
            (ValueError, "layers", {"layers": [np.ones((4, 65536), np.int8)]}),
            (ValueError, "layers", {"layers": [np.ones((65532, 1), np.int8), np.ones((4, 65532), np.int8)]}),
            (ValueError, "num_classes", {"num_classes": 3}),
            (ValueError, "num_classes", {"num_classes": 0}),
            (ValueError, "name", {"name": "2nd"}),
            (ValueError, "votes", {"votes": (2**15, 0)}),
            (ValueError, "votes", {"layers": [np.ones((40000, 1), np.int8)], "votes": (30000, -30000)}),
            (TypeError, "cell", {"cell": OTHER_CELL._asdict()}),
            (ValueError, "cell.leak_shift_a", {"cell": IntegerCell(leak_shift_a=0)}),
            (ValueError, "cell.i_max", {"cell": IntegerCell(i_max=32767)}),
            (ValueError, "cell", {"cell": IntegerCell(zs_hyp=1025)}),
            (TypeError, "cell.bias", {"cell": IntegerCell(bias=0.5)}),  # type: ignore[arg-type]
            (ValueError, "cell", {"cell": IntegerCell(r=20)}),
        ],
    ),
    hardware.write_weights: (
        {"weights": np.ones((2, 3), int)},
        [
            *[(ValueError, "name", {"name": name}) for name in ("", "2nd", "a__b", "a_", "a-b")],
            (TypeError, "weights", {"weights": np.full((2, 3), 0.5)}),
        ],
    ),
    hardware.write_frames: (
        {"spikes": np.zeros((3, 6)), "label": 3},
        [
            *[(ValueError, "spikes", {"spikes": np.full((3, 6), x)}) for x in (0.5, np.nan, -1)],
            *[(ValueError, "spikes", {"spikes": np.zeros(shape)}) for shape in ((6,), (0, 6))],
            *[(ValueError, "label", {"label": label}) for label in (16, -1)],
            (TypeError, "label", {"label": 2.0}),
            *[(ValueError, "image_shape", {"image_shape": x}) for x in ((2, 2), (6,), (-2, -3), (1, 2, 3))],
        ],
    ),
}


@pytest.mark.parametrize("write", INVALID, ids=lambda write: write.__name__)
def test_invalid_arguments_raise_an_error_and_write_nothing(write: Any, tmp_path: Path) -> None:
    valid, rows = INVALID[write]
    for error, argument, change in rows:
        assert_refused(error, argument, write, tmp_path / "file", **{**valid, **change})
    assert not list(tmp_path.iterdir())
    write(tmp_path / "file", **valid)


# The error that a reader raises if the first text is replaced with the second; if the first is "", the second is the
# whole file.
MALFORMED: dict[Any, list[tuple[str, str, str]]] = {
    hardware.read_header: [
        ("expected a number NETWORK_BIAS, got none", "NETWORK_BIAS", "NETWORK_B"),
        ("expected 3 x 2 weights of layer 0, got 5", "{7, ", "{"),
        ("expected values in", "{7, ", "{70000, "),
        ("expected a sum of", "RS (-8)", "RS (-80)"),
        ("expected a header that srcell wrote", "", "#define NETWORK_INPUTS 3"),
    ],
    hardware.read_weights: [
        ("expected 3 rows and 10 columns, got 2 and 10", ":=2", ":= 3"),
        ("expected two constants of type natural", "constant COLS : natural", "constant COLS : integer"),
        ("expected a type 'array (...) of integer', got none", "OF Integer", "OF real"),
        ("expected a constant of type Weights_T", "W0 : weights_t", "W0 : weights_u"),
        ("expected each index from 0 to 1 once", "1 => (9", "0 => (9"),
        ("expected each index from 0 to 9 once", "1 => 1,", "1,"),
        ("expected each index from 0 to 8 once", "2 => 2, ", ""),
        ("expected rows of one length, got 9, 10", "0, 1, 2", "1, 2"),
        ("expected integers with commas between them, got '16#F#'", "0, 1, 2", "0, 16#F#, 2"),
        ("expected values in [-32768, 32767], got -8 to 40000", "0, 1, 2", "0, 40000, 2"),
        ("expected rows in parentheses", "));", ")"),
        ("that ends with ';'", "));\nEND PACKAGE W;", ""),
    ],
    hardware.read_frames: [
        ("expected a word for each step, got none", "", ""),
        ("expected words of 7 characters 0 and 1, got another as word 2", "", "0001000\n00010\n"),
        ("expected words of 7 characters", "", "000111\n"),
        ("expected words of 7 characters", "", "0001x00\n"),
        ("expected the same label in all words, got 4, 6", "", "1001000\n0101100\n"),
    ],
}


@pytest.mark.parametrize(("read", "row"), [(read, row) for read, rows in MALFORMED.items() for row in rows])
def test_a_malformed_file_is_refused(read: Any, row: tuple[str, str, str], tmp_path: Path) -> None:
    message, old, new = row
    path = tmp_path / "file"
    hardware.write_header(path, [[[7, 2, 3], [4, 5, 6]]], num_classes=2)
    text = FOREIGN if read is hardware.read_weights else path.read_text()
    assert old in text
    path.write_text(text.replace(old, new) if old else new)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}: .*{re.escape(message)}"):
        read(path)
