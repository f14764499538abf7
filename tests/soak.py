"""A long random test of numerical correctness: random shapes, parameters, magnitudes and modes for SRCELL_SOAK_SECONDS
(default 600), from the seed SRCELL_SOAK_SEED (default: the time). For each case:

- every instruction set gives the bits of the scalar one, for any number of threads, in pieces, sample by sample, on
  events and on their dense input;
- a float32 step is within its rounding errors of the same step in float64;
- float64 is within 1e-12 of reference.py, gradients included, unless rounding alone explains more.

Before that, 100,000 steps: the same bits in one call and streamed, and no more memory than their spikes need.

    python tests/soak.py

It stops at the first case that fails and prints it. tests/test_soak.py runs a few cases of each kind.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import torch

import srcell
from srcell import EventBatch, SRCState
from srcell.reference import src_reference
from support.gradients import moved_by_one_ulp, relative_error, results
from support.inputs import MODES, PARAMETERS, STATE, call, noise
from support.processes import ISAS, IsaProcess, active_isa
from test_bits import (
    LATERAL,
    Case,
    Digests,
    alone,
    case_inputs,
    case_options,
    differing,
    in_pieces,
    linear_dense,
    make_case,
)

LONG = 100_000
KINDS = ("currents", "events", "step", "float64")


def draw(seed: int, kind: str) -> Case:
    """A random case of any size and magnitude, small ones more often; some sizes are 0."""
    random = np.random.default_rng(seed)

    def size(limit: int) -> int:
        return int(random.integers(0, 1 + int(limit ** random.uniform(0.3, 1))))

    float64 = kind == "float64"
    shape = (size(20 if float64 else 150), size(12), size(300 if random.integers(4) else 600))
    if kind == "events":
        shape = (*shape, size(200))
    elif kind != "currents":
        shape = (max(shape[0], 1), *shape[1:])  # nothing to compare without a step
    # Half of the cases are near the defaults; the others range from denormals to products that overflow.
    scale = 1.0 if float64 or random.integers(2) else 2.0 ** float(random.integers(-149, 127))
    return make_case(
        int(random.integers(1 << 20)),
        shape,
        dtype="float64" if float64 or not (kind == "step" or random.integers(4)) else "float32",
        mode=MODES[random.integers(len(MODES))],
        per_neuron=bool(random.integers(2)),
        lengths=bool(random.integers(2)),
        poison=bool(kind in ("currents", "events") and not random.integers(4)),
        scale=scale,
        spread=0.0 if float64 else float(random.choice([0, 0, 0.3, 2])),
        recurrent="" if kind == "step" else str(random.choice(["", "", *LATERAL])),
    )


def check_bits(case: Case, kind: str, processes: dict[str, IsaProcess]) -> None:
    """Check that every instruction set, thread count, cut into pieces and single sample gives the same bits."""
    random = np.random.default_rng(case["seed"])
    expected: Digests = processes["scalar"].call("test_bits.whole", case, 1)
    for isa, process in processes.items():
        threads = int(random.integers(1, 6))
        assert not differing(process.call("test_bits.whole", case, threads), expected), (isa, threads)
    cuts = [int(x) for x in random.integers(0, case["shape"][0] + 1, 3)]
    assert not differing(in_pieces(case, cuts), expected), cuts
    assert not differing(alone(case), expected)
    if kind == "events":
        assert not differing(linear_dense(case, 1), linear_dense(case, 1, as_events=True))


def check_step(case: Case) -> None:
    """Compare one float32 step from every state of a trace with the same step in float64.

    The error bounds count the errors of float32 operations, each of which is at most e = 2^-24, relative to the result.
    i has one error. In the drive, tanh(i / rho), the quotient has two errors from the product with 1 / rho and one from
    the inverse. They change the drive by at most 2 e, because |x| / cosh(x)^2 < 1/2; tanh itself errs by 4 e (2 ulp). u
    has 3 additions and |rho| times the drive's error; then tanh errs again. In the gate, 10 h - 5 has one error of at
    most 15 e, which sigmoid divides by 4, and sigmoid errs by 2.49 ulp. hs has 3 more errors.
    """
    inputs, options = case_inputs(case), case_options(case) | {"lengths": None}
    state = SRCState(*(inputs[name] for name in STATE))
    before, after = [], []
    for c in inputs["current"].split(1):
        before.append(state)
        _, state = call(srcell.src, {**inputs, "current": c} | dict(zip(STATE, state, strict=True)), **options)
        after.append(state)
    i0, h0, hs0 = (torch.cat(x).double() for x in zip(*before, strict=True))
    made = SRCState(*(torch.cat(x).double() for x in zip(*after, strict=True)))
    cell = {name: inputs[name].double() for name in PARAMETERS}
    bias = inputs["bias"].double()
    _, exact = src_reference(inputs["current"].double().flatten(0, 1)[None], bias, (i0, h0, hs0), **cell)

    e = 2.0**-24
    rho, r, rs, zs_hyp, zs_dep = (cell[name].abs() for name in PARAMETERS[1:])
    terms = rho + (r * h0).abs() + (rs * hs0).abs() + bias.abs()
    bounds = SRCState(
        i=e * exact.i.abs() + 2.0**-100,
        h=e * (6 * rho + 3 * terms + 4),
        hs=e * ((zs_hyp + zs_dep) * 10 * (hs0 - h0).abs() + 4 * (hs0.abs() + h0.abs())),
    )
    for name in SRCState._fields:
        x, y, bound = (getattr(of, name) for of in (made, exact, bounds))
        # If the float32 current overflows there is nothing to compare.
        wrong = ~((x - y).abs() <= bound) & exact.i.isfinite() & made.i.isfinite()
        assert not wrong.any(), f"{name}: {(x - y)[wrong][:3]} where {bound.expand_as(x)[wrong][:3]} is allowed"


def check_float64(case: Case) -> None:
    """Compare outputs and gradients with reference.py to 1e-12, or, if a neuron is near its threshold, to five times
    the effect of changing every input by one ulp, as in tests/test_gradients.py.
    """
    inputs, options, seed = case_inputs(case), case_options(case), case["seed"]
    ours, expected = (results(function, inputs, seed, **options) for function in (srcell.src, src_reference))
    errors = {name: relative_error(x, expected[name]) for name, x in ours.items()}
    if all(error <= 1e-12 for error in errors.values()):
        return
    allowed = dict.fromkeys(errors, 1e-12)
    for draw_of_signs in range(4):
        moved = {name: moved_by_one_ulp(x, draw_of_signs) for name, x in inputs.items()}
        for name, x in results(src_reference, moved, seed, **options).items():
            allowed[name] = max(allowed[name], 5 * relative_error(x, expected[name]))
    for name, error in errors.items():
        assert error <= allowed[name], f"{name}: {error:.2e} where {allowed[name]:.2e} is allowed"


def check(case: Case, kind: str, processes: dict[str, IsaProcess]) -> None:
    if kind == "step":
        check_step(case)
    elif kind == "float64":
        check_float64(case)
    else:
        check_bits(case, kind, processes)


def peak_mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def measure_long(steps: int) -> dict[str, Any]:
    """Run in a process of its own: total spikes, whether streaming gives the same bits, and by how many MiB the peak
    memory grew in a call on currents, in a call on events, and over all streamed calls after the first.
    """
    torch.set_num_threads(1)
    current = torch.cat([3 * noise(seed, 1000, 2, 40, dtype=torch.float32) for seed in range(steps // 1000)])
    indices = (torch.arange(4 * steps, dtype=torch.int32) * 7919 >> 3) % 40
    events = EventBatch(torch.arange(2 * steps + 1) * 2, indices, shape=(steps, 2, 40))
    weight = 6 * noise(7, 40, 40, dtype=torch.float32)
    srcell.src(current[:1000], -6.0), srcell.src_linear(events[:1], weight, -6.0)  # first calls allocate more
    start = peak_mebibytes()
    spikes, final = srcell.src(current, -6.0)
    after_currents = peak_mebibytes()
    of_events, _ = srcell.src_linear(events, weight, -6.0)
    growth = {"currents": after_currents - start, "events": peak_mebibytes() - after_currents}
    state, same = None, True
    for begin in range(0, steps, 1000):
        piece, state = srcell.src(current[begin : begin + 1000], -6.0, state)
        same &= torch.equal(piece, spikes[begin : begin + 1000])
        if not begin:
            start = peak_mebibytes()
    growth["streamed"] = peak_mebibytes() - start
    return {
        "spikes": [int((x > 0.5).sum()) for x in (spikes, of_events)],
        "same": same and all(map(torch.equal, state, final)),
        "growth": growth,
    }


def check_long() -> None:
    process = IsaProcess(active_isa())
    measured = process.call("soak.measure_long", LONG)
    process.close()
    output = LONG * 2 * 40 * 4 / 2**20
    assert measured["same"], measured
    assert min(measured["spikes"]) > LONG, measured
    for name, allowed in (("currents", output), ("events", output), ("streamed", 0)):
        # 8 MiB allow for the allocator's cache; a trace of all steps would add 30 MiB per tensor.
        assert measured["growth"][name] <= allowed + 8, measured


def soak(seconds: float, seed: int) -> Counter[str]:
    end, counts = time.monotonic() + seconds, Counter({"100,000 steps": 1})
    check_long()
    processes = {isa: IsaProcess(isa) for isa in ISAS}
    while time.monotonic() < end:
        for kind in KINDS:
            number = seed + counts[kind]
            case = draw(number, kind)
            try:
                check(case, kind, processes)
            except BaseException:
                print(f"seed {number}, {kind}: {case}", file=sys.stderr)
                raise
            counts[kind] += 1
    for process in processes.values():
        process.close()
    return counts


if __name__ == "__main__":
    torch.set_num_threads(1)
    start = int(os.environ.get("SRCELL_SOAK_SEED", time.time_ns() % 1_000_000_007))
    counts = soak(float(os.environ.get("SRCELL_SOAK_SECONDS", 600)), start)
    print(f"soak: from seed {start}, on {', '.join(ISAS)}, no case failed:")
    print("\n".join(f"  {name}: {count:,} cases" for name, count in counts.items()))
