"""Check the code that nvcc and ptxas generate for the CUDA kernels, without a GPU.

    python tools/check_cuda.py [--table]

Each .cu file compiles alone with ``-std=c++17 -Icsrc`` and without a warning; every floating-point operation in its PTX
rounds as written (add, mul, div, fma and a reciprocal, all .rn; nothing .ftz or .approx, except the reciprocal that
quotient() of value-inl.h starts from); and ptxas spills no register and puts no array in local memory. ``--table``
prints the kernels of sm_90 for bench/NOTES.md, with columns for the resonant version of each.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ARCHITECTURES = ("75", "90", "120")
# The floating-point instructions allowed in PTX: those that round to nearest even, and those that are exact.
ROUNDED = re.compile(r"(add|mul|div|fma|rcp)\.rn\.f(32|64)|cvt\.rn\.(f16\.f32|f32\.f64|f32\.s32)")
EXACT = re.compile(
    r"(ld|st)(\.(global|shared|param))?(\.v[24])?\.f(32|64)|(mov|neg|abs|selp)\.f(32|64)|setp\.\w+\.f(32|64)"
    r"|cvt\.f64\.f32|cvt\.rpi\.f64\.f64|cvt\.rzi\.u32\.f64|cvt\.f32\.f16"
)
APPROXIMATE = "rcp.approx.ftz.f32"  # quotient() of value-inl.h starts from it; its result is rounded to nearest
INSTRUCTION = re.compile(r"^\s*(?:@!?%p\d+\s+)?([a-z][\w.]*)\s", re.MULTILINE)
# The limits of a streaming multiprocessor of an H100; shared memory in bytes.
H100 = {"registers": 65536, "shared": 228 << 10, "threads": 2048, "blocks": 32}
RESERVED_SHARED = 1 << 10  # bytes per block, reserved by CUDA
# Where the names of bodies have the flag for resonance, their last group.
MODE = re.compile(r"BackwardMode<(\w+), (\w+), (\w+)>")
FORWARD = re.compile(r"((?:Scan|Events|Lateral)Forward(?:Tile)?Body<\w+, \w+), (\w+)")


def compile_with(*arguments: str) -> str:
    """The output of nvcc. Exits if nvcc fails or warns."""
    command = ["nvcc", "-std=c++17", "-Icsrc", '-DSRCELL_CUDA_ARCHITECTURES=""', "-Werror", "all-warnings"]
    run = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        sys.exit(f"{' '.join(arguments)}:\n{run.stdout}{run.stderr}")
    return run.stdout + run.stderr


def check_ptx(source: Path, ptx: str) -> None:
    """Exit if the PTX of a source file has an instruction that may not round as written."""
    used = set(INSTRUCTION.findall(ptx)) - {APPROXIMATE}
    wrong = {name for name in used if re.search(r"\.(ftz|approx|local)\b", name)}
    floats = {name for name in used if re.search(r"\.f(16|32|64)|\.bf16", name)}
    wrong |= {name for name in floats if not ROUNDED.fullmatch(name) and not EXACT.fullmatch(name)}
    if wrong:
        sys.exit(f"{source.name}: its PTX has {', '.join(sorted(wrong))}")


def compiled(source: Path, architecture: str, folder: Path) -> tuple[str, dict[str, int]]:
    """The PTX, and the number of registers of each kernel, by its name. Exits if a kernel needs local memory."""
    cubin = folder / f"{source.stem}.cubin"
    options = [f"-arch=sm_{architecture}", "-Xptxas", "-v", "-cubin", "--keep", "--keep-dir", str(folder)]
    report = compile_with(*options, str(source), "-o", str(cubin))
    kernels = {}
    for name, part in re.findall(r"Compiling entry function '(\w+)'(.*?)(?=Compiling entry|\Z)", report, re.DOTALL):
        if "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" not in part:
            sys.exit(f"{source.name}, sm_{architecture}: {name} needs local memory:\n{part}")
        kernels[name] = int(re.search(r"Used (\d+) registers", part).group(1))
    return (folder / f"{source.stem}.ptx").read_text(), kernels


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
    """Check every .cu file, if nvcc is found."""
    if not shutil.which("nvcc"):
        print("nvcc not found: the CUDA kernels were not checked")
        return
    checked = 0
    shown: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
            for architecture in ARCHITECTURES:
                ptx, kernels = compiled(source, architecture, folder)
                if architecture == ARCHITECTURES[0]:
                    check_ptx(source, ptx)
                checked += len(kernels)
                if "--table" in sys.argv[1:] and architecture == "90":
                    shown |= dict(zip(demangled(list(kernels)), kernels.values(), strict=True))
    print(*table(shown), sep="\n", end="\n" * bool(shown))
    print(f"CUDA: {checked} kernels checked, for sm_{', sm_'.join(ARCHITECTURES)}")


if __name__ == "__main__":
    main()
