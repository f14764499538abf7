"""Check the code that nvcc and ptxas have made of the CUDA kernels, without a GPU.

    python tools/check_cuda.py BUILD
    python tools/check_cuda.py --table

BUILD is a folder in which CMake has compiled the CUDA module with ``--no-compress``. Each .cu file must have PTX in
which every floating-point operation rounds as written (add, mul, div, fma and a reciprocal, all .rn; nothing .ftz or
.approx, except the reciprocal that quotient() of value-inl.h starts from). Its object must not refer to exit(): nvcc
compiles a call from host code to a __device__ function to that, without a warning. ptxas itself refuses spilled
registers and local memory (CMakeLists.txt). ``--table`` compiles the kernels for sm_90 and prints them for
bench/NOTES.md, with columns for the resonant version of each.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The floating-point instructions allowed in PTX: those that round to nearest even, and those that are exact.
ROUNDED = re.compile(r"(add|mul|div|fma|rcp)\.rn\.f(32|64)|cvt\.rn\.(f16\.f32|f32\.f64|f32\.s32)")
EXACT = re.compile(
    r"(ld|st)(\.(global|shared|param))?(\.v[24])?\.f(32|64)|(mov|neg|abs|copysign|selp)\.f(32|64)|setp\.\w+\.f(32|64)"
    r"|cvt\.f64\.f32|cvt\.rpi\.f64\.f64|cvt\.rzi\.u32\.f64|cvt\.f32\.f16"
)
APPROXIMATE = "rcp.approx.ftz.f32"  # quotient() of value-inl.h starts from it; its result is rounded to nearest
INSTRUCTION = re.compile(r"(?:^|[{;])\s*(?:@!?%p\d+\s+)?([a-z][\w.]*)\s", re.MULTILINE)
# The limits of a streaming multiprocessor of an H100; shared memory in bytes.
H100 = {"registers": 65536, "shared": 228 << 10, "threads": 2048, "blocks": 32}
RESERVED_SHARED = 1 << 10  # bytes per block, reserved by CUDA
# Where the names of bodies have the flag for resonance, their last group.
MODE = re.compile(r"BackwardMode<(\w+), (\w+), (\w+)>")
FORWARD = re.compile(r"((?:Scan|Events|Lateral)Forward(?:Tile)?Body<\w+, \w+), (\w+)")


def run(*command: str | Path) -> str:
    """What a command prints on both streams. Exits if it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def ptx_in(compiled: Path) -> Iterator[str]:
    """The texts of PTX in an object's fat binary: entries with a header each, of which kind 1 is PTX."""
    with tempfile.NamedTemporaryFile() as section:
        run("objcopy", "-O", "binary", "--only-section=.nv_fatbin", compiled, section.name)
        data = Path(section.name).read_bytes()
    _, _, header, size = struct.unpack_from("<IHHQ", data)
    at = header
    while at < header + size:
        kind, _, header_of_entry, length = struct.unpack_from("<HHIQ", data, at)
        at += header_of_entry
        if kind == 1:
            yield data[at : at + length].rstrip(b"\0").decode(errors="replace")
        at += length


def check_ptx(source: str, ptx: str) -> tuple[str, int]:
    """The architecture of a source file's PTX, and its number of kernels. Exits if an instruction may not round as
    written.
    """
    target = re.search(r"^\.target sm_(\d+)", ptx, re.MULTILINE)
    if not target:
        sys.exit(f"{source}: its PTX is compressed: compile with --no-compress")
    used = set(INSTRUCTION.findall(ptx)) - {APPROXIMATE}
    wrong = {name for name in used if re.search(r"\.(ftz|approx|local)\b", name)}
    floats = {name for name in used if re.search(r"\.f(16|32|64)|\.bf16", name)}
    wrong |= {name for name in floats if not ROUNDED.fullmatch(name) and not EXACT.fullmatch(name)}
    if wrong:
        sys.exit(f"{source}, sm_{target[1]}: its PTX has {', '.join(sorted(wrong))}")
    return target[1], ptx.count(".entry ")


def check(build: Path) -> None:
    """Check every .cu file's object in a folder."""
    kernels: dict[str, int] = {}
    for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
        compiled = sorted(build.rglob(f"_cuda.dir/**/{source.name}.o"))
        if len(compiled) != 1:
            sys.exit(f"expected one {source.name}.o in {build}, found {len(compiled)}")
        if re.search(r"\bexit$", run("nm", "-u", compiled[0]), re.MULTILINE):
            sys.exit(
                f"{source.name}: host code calls a function that is __device__ alone, which nvcc compiles to exit()"
            )
        texts = list(ptx_in(compiled[0]))
        if not texts:
            sys.exit(f"{source.name}: the object has no PTX")
        for ptx in texts:
            architecture, count = check_ptx(source.name, ptx)
            kernels[architecture] = kernels.get(architecture, 0) + count
    print("CUDA: checked", ", ".join(f"{count} kernels of sm_{name}" for name, count in kernels.items()))


def registers() -> dict[str, int]:
    """The number of registers of each kernel on sm_90, by its body."""
    found: dict[str, int] = {}
    for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
        with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
            options = ("-std=c++17", "-Icsrc", '-DSRCELL_CUDA_ARCHITECTURES=""', "-fmad=false", "-arch=sm_90", "-cubin")
            report = run("nvcc", *options, "-Xptxas", "-v", source, "-o", cubin.name)
        entries = re.findall(r"Compiling entry function '(\w+)'.*?Used (\d+) registers", report, re.DOTALL)
        found |= zip(demangled([name for name, _ in entries]), (int(count) for _, count in entries), strict=True)
    return found


def demangled(names: list[str]) -> list[str]:
    """The body of each run_body symbol, for example ``ScanForwardBody<float, true>``."""
    if not names:
        return []
    output = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True).stdout
    output = re.sub(r"&\(void (?:\w+::)*(\w+)<\w+>\([^()]*\)\)", r"\1", output)  # a function as an argument
    bodies = [re.search(r"run_body<(.*) ?>\(", line).group(1) for line in output.splitlines()]
    return [re.sub(r"srcell::device::", "", body).strip() for body in bodies]


def shared_bytes(body: str) -> tuple[int, int]:
    """Threads of a full block and its bytes of shared memory, as launch-inl.h and events.h choose them on an H100."""
    size = 8 if "double" in body else 4
    if "TileBody" in body:  # with 784 inputs
        return 512, 784 * 32 * size
    if re.match("(Scan|Events)Backward", body):
        recurrent, parameters, resonant = (word == "true" for word in MODE.search(body).groups())
        rows = 33 + (33 if recurrent or parameters else 0) + ((33 if resonant else 17) if parameters else 0)
        threads = 128
        while threads * rows * size > 48 << 10:
            threads //= 2
        return threads, threads * rows * size
    return 128, 128 * size if "Dots" in body else 0


def plain_name(body: str) -> tuple[str, bool]:
    """The name of a body without the flag for resonance, and whether the flag is set."""
    for pattern, kept in ((MODE, r"\1, \2"), (FORWARD, r"\1")):
        if found := pattern.search(body):
            return pattern.sub(kept, body), found[found.re.groups] == "true"
    return body, False


def table(registers: dict[str, int]) -> Iterator[str]:
    """Rows for the number of registers of each body."""
    rows: dict[str, dict[bool, str]] = {}
    for body, count in sorted(registers.items()):
        threads, shared = shared_bytes(body)
        name, resonant = plain_name(body)
        share = occupancy(count, threads, shared)
        rows.setdefault(name, {})[resonant] = f"{count} | {threads} | {shared / 1024:.1f} | {share:.0%}"
    for name, cells in rows.items():
        yield f"| `{name}` | {cells[False]} | {cells.get(True, ' | '.join(4 * ['']))} |"


def occupancy(registers: int, threads: int, shared: int) -> float:
    """Fraction of an H100's threads that are resident."""
    in_block = -(-registers * 32 // 256) * 256 * (threads // 32)
    blocks = min(H100["registers"] // in_block, H100["threads"] // threads, H100["blocks"])
    blocks = min(blocks, H100["shared"] // (shared + RESERVED_SHARED))
    return blocks * threads / H100["threads"]


def main() -> None:
    """Check a build, or print the table."""
    if sys.argv[1:] == ["--table"]:
        print(*table(registers()), sep="\n")
    elif len(sys.argv) == 2:
        check(Path(sys.argv[1]).resolve())
    else:
        sys.exit("expected the folder of a build, or --table")


if __name__ == "__main__":
    main()
