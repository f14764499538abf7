"""Runs the fuzz campaign: ``python tests/fuzz/run.py [--seconds N] [--inputs N] [TARGET ...]``.

Input k of a target depends only on the seed and k, so that ``--only K`` repeats it. One line per target reports the
number of inputs, how many passed validation and reached a kernel or a parser's body, the time, and the memory held
after a tenth of the inputs and at the end. The exit code is 1 if something was found; a target that hangs is ended
after two minutes with a traceback. Budget and seed may come from the environment: SRCELL_FUZZ_SECONDS and
SRCELL_FUZZ_INPUTS, both per target, and SRCELL_FUZZ_SEED.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torch.backends import mkldnn

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import (
    delay_targets,
    event_targets,
    file_targets,
    learner_targets,
    mode_targets,
    nir_targets,
    op_targets,
    race_targets,
    sound_targets,
)
from fuzz.draws import Draw
from fuzz.facts import RefusedError
from srcell import _core

TARGETS: dict[str, Callable[[Draw], bool | None]] = {
    function.__name__: function
    for function in (
        *(op_targets.op_src, op_targets.modules, op_targets.integers, op_targets.op_raw, op_targets.core_raw),
        *(event_targets.event_batch, event_targets.encoders, event_targets.camera, delay_targets.delays),
        *(mode_targets.modes, mode_targets.padding),
        *(file_targets.idx, file_targets.nmnist, file_targets.cache, file_targets.checkpoint, file_targets.config),
        *(file_targets.network, file_targets.own_folder),
        *(file_targets.run_folder, file_targets.command_line, file_targets.outputs, file_targets.texts),
        *(sound_targets.sounds, sound_targets.hearing, learner_targets.learner),
        *([nir_targets.nir] if nir_targets.INSTALLED else []),
        *(mode_targets.programs, race_targets.races),
    )
}
FINDINGS = 20  # number of findings after which a target ends
HANG_SECONDS = 120
# Memory that a target may gain after the first tenth of its inputs without a leak: caches of torch and of Python.
LEAK_BYTES = 32 << 20
M_TRIM_THRESHOLD = -1  # of <malloc.h>


class Outcome(NamedTuple):
    """The result of a target."""

    inputs: int
    passed: int
    seconds: float
    bytes_at_tenth: int
    bytes_at_end: int
    findings: dict[str, str]
    """A traceback for each place where something went wrong, keyed by the input's number and that place."""

    @property
    def leaks(self) -> bool:
        return self.bytes_at_end - self.bytes_at_tenth > LEAK_BYTES


def campaign(target: str, seconds: float, inputs: int, seed: int = 0) -> Outcome:
    """Run a target on inputs until the time or the number of inputs is used up."""
    start, passed, done = time.perf_counter(), 0, 0
    findings: dict[str, tuple[int, str]] = {}  # by place
    at_tenth, armed = 0, 0.0
    for k in range(inputs):
        if k == 1:
            start = time.perf_counter()  # the first input loads packages and makes folders
        elapsed = time.perf_counter() - start
        if elapsed > seconds or len(findings) >= FINDINGS:
            break
        if k == 0 or elapsed > armed + 1:
            armed = elapsed
            faulthandler.dump_traceback_later(HANG_SECONDS, exit=True)
        if not at_tenth and (k >= inputs / 10 or elapsed > seconds / 10):
            at_tenth = resident_bytes()
        try:
            passed += accepts(target, seed, k)
        except Exception as error:
            findings.setdefault(repr(traceback.extract_tb(error.__traceback__)[-1]), (k, traceback.format_exc()))
        done = k + 1
    faulthandler.cancel_dump_traceback_later()
    at_end = resident_bytes()
    found = {f"input {k}: {place}": text for place, (k, text) in findings.items()}
    return Outcome(done, passed, time.perf_counter() - start, at_tenth or at_end, at_end, found)


def accepts(target: str, seed: int, k: int) -> bool:
    """Run a target on input k; return whether this was accepted."""
    # oneDNN compiles a convolution for each shape and keeps 1024, which looks like a leak. In torch 2.13 its float16
    # convolution crashes on a CPU with AVX512-FP16 where maps and kernel are one wide (F.conv2d of (3, 1, 3, 1) and
    # (9, 1, 3, 1), stride (1, 2), padding 1, dilation 2).
    enabled, mkldnn.enabled = mkldnn.enabled, False
    try:
        return TARGETS[target](Draw((seed << 40) + k)) is not False
    except RefusedError:
        return False
    finally:
        mkldnn.enabled = enabled


def resident_bytes() -> int:
    """Resident memory of the process, without what glibc and srcell keep of freed memory."""
    call_libc("malloc_trim", 0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") - _core.cached_bytes()


def call_libc(function: str, *arguments: int) -> None:
    """Call a function of glibc; do nothing where there is none of this name."""
    found = getattr(ctypes.CDLL(None), function, None)
    if found:
        found(*arguments)


def budget(default_seconds: float, default_inputs: int) -> tuple[float, int, int]:
    """Seconds and number of inputs per target, and the seed, from the environment or the defaults."""
    read = os.environ.get
    return (
        float(read("SRCELL_FUZZ_SECONDS", default_seconds)),
        int(read("SRCELL_FUZZ_INPUTS", default_inputs)),
        int(read("SRCELL_FUZZ_SEED", 0)),
    )


def main() -> int:
    seconds, inputs, seed = budget(300, 50_000)
    parser = argparse.ArgumentParser(description="Fuzz srcell.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"some of {', '.join(TARGETS)} [all]")
    parser.add_argument("--seconds", type=float, default=seconds, help="for each target [%(default)s]")
    parser.add_argument("--inputs", type=int, default=inputs, help="at most, for each target [%(default)s]")
    parser.add_argument("--seed", type=int, default=seed, help="[%(default)s]")
    parser.add_argument("--only", type=int, metavar="K", help="run only input K, and do not catch its exception")
    arguments = parser.parse_args()
    faulthandler.enable()
    # glibc raises the trim threshold when a large block is freed, and then keeps up to 64 MiB at the end of each
    # thread's arena, which malloc_trim leaves alone.
    call_libc("mallopt", M_TRIM_THRESHOLD, 128 << 10)
    chosen, failed = arguments.targets or list(TARGETS), False
    if arguments.only is not None:
        for target in chosen:
            print(target, accepts(target, arguments.seed, arguments.only))
        return 0
    print(f"{'target':14}{'inputs':>10}{'passed':>10}{'seconds':>10}{'MiB, tenth':>12}{'MiB, end':>10}{'findings':>10}")
    for target in chosen:
        outcome = campaign(target, arguments.seconds, arguments.inputs, arguments.seed)
        failed |= bool(outcome.findings) or outcome.leaks
        counts = f"{outcome.inputs:10}{outcome.passed:10}{outcome.seconds:10.1f}"
        memory = f"{outcome.bytes_at_tenth / 2**20:12.0f}{outcome.bytes_at_end / 2**20:10.0f}"
        print(f"{target:14}{counts}{memory}{len(outcome.findings):10}", flush=True)
        for finding in outcome.findings.values():
            print(finding, file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
