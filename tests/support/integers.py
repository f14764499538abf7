"""The integer SRC in plain NumPy, written from its equations alone, in 64 bits and without shortcuts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

HARDWARE = {
    "leak_shift_a": 4,
    "leak_shift_b": 5,
    "i_max": 30000,
    "drive_high": 1023,
    "drive_low": -1024,
    "gate_threshold": 500,
    "zs_hyp": 900,
    "zs_dep": 100,
    "fraction_bits": 10,
    "r": 2,
    "rs": -8,
    "bias": -6000,
    "slope": 3,
    "slope_shift": 2,
    "h_min": -1024,
    "h_max": 1023,
    "hs_min": -800,
    "hs_max": 1023,
    "spike_threshold": 512,
}

Integers = NDArray[np.int64]


def integer_model(
    input: NDArray[Any], weight: NDArray[Any], state: Any = None, lengths: Any = None, **changes: int
) -> tuple[Integers, tuple[Integers, Integers, Integers], int, dict[str, Integers]]:
    """For an input (T, B, K) of 0 and 1 (or of numbers of spikes): the spikes (T, B, N), the state, how often i was
    clamped, and i and u of every step.
    """
    c = HARDWARE | changes
    steps, batch, _ = input.shape
    neurons = len(weight)
    currents = input.astype(np.int64) @ weight.astype(np.int64).T
    zeros = np.zeros((3, batch, neurons), np.int64)
    given = None if state is None else [np.asarray(x).tolist() for x in state]
    i, h, hs = zeros if given is None else np.array(given, np.int64).reshape(zeros.shape)
    ends = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    spikes = np.zeros((steps, batch, neurons), np.int64)
    traces = {"i": np.zeros_like(spikes), "u": np.zeros_like(spikes)}
    clamped = 0
    for t in range(steps):
        on = (t < ends)[:, None]
        free = i - ((i >> c["leak_shift_a"]) + (i >> c["leak_shift_b"])) + currents[t]
        now = np.clip(free, -c["i_max"], c["i_max"])
        clamped += int(((free != now) & on).sum())
        x = np.where(now > 0, c["drive_high"], c["drive_low"])
        z = np.where(h < c["gate_threshold"], c["zs_hyp"], c["zs_dep"])
        u = x + c["r"] * h + c["rs"] * hs + c["bias"]
        fast = np.clip((c["slope"] * u) >> c["slope_shift"], c["h_min"], c["h_max"])
        slow = np.clip(h + (((hs - h) * z) >> c["fraction_bits"]), c["hs_min"], c["hs_max"])
        i, h, hs = np.where(on, now, i), np.where(on, fast, h), np.where(on, slow, hs)
        spikes[t] = on & (h >= c["spike_threshold"])
        traces["i"][t], traces["u"][t] = np.where(on, i, 0), np.where(on, u, 0)
    return spikes, (i, h, hs), clamped, traces
