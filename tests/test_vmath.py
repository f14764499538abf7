"""tanh and sigmoid: every float32 against float64, samples of float64 against 60 digits, and exact properties.

`python tests/test_vmath.py` prints the maximum errors that csrc/vmath-inl.h states.
"""

from __future__ import annotations

import hashlib

import mpmath
import numpy as np
import pytest
import torch

import srcell
from srcell import _core
from support.processes import IsaProcess

# Bounds in ulp that must hold; csrc/vmath-inl.h states the measured errors.
BOUNDS = {"tanh": 2.0, "sigmoid": 4.0}
CHUNK = 1 << 16  # its arrays fit in the second-level cache: ten times as fast as chunks of 2^24


def reference(name: str, x: np.ndarray) -> np.ndarray:
    """The function in float64, whose own error is below 1e-8 float32 ulp; sigmoid without cancellation."""
    if name == "tanh":
        return np.tanh(x)
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1.0) / (1.0 + e)


def ulp_error(y: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """|y - exact| in units of the spacing of float32 at the exact value."""
    spacing = (exact.view(np.int64) & (0x7FF << 52)).view(np.float64)  # a power of two, at most |exact|
    spacing *= 2.0**-23
    np.maximum(spacing, 2.0**-149, out=spacing)
    error = y - exact
    np.abs(error, out=error)
    error /= spacing
    return error


def maximum_error(name: str, every: int = 1) -> tuple[float, float]:
    """The largest error in ulp over all float32 that are not NaN, and the argument where it occurs.

    With ``every`` = n, only over every n-th chunk.
    """
    worst, where = 0.0, 0.0
    function = getattr(_core, name)
    with np.errstate(all="ignore"):
        for start in range(0, 1 << 32, every * CHUNK):
            x = np.arange(start, start + CHUNK, dtype=np.uint64).astype(np.uint32).view(np.float32)
            if np.isnan(x[-1]):
                x = x[~np.isnan(x)]
            if not x.size:
                continue
            # A chunk has one sign, and magnitudes in ascending order.
            if abs(x[0]) > 128 or abs(x[-1]) < 2.0**-30:
                x = check_far_ranges(name, x)
            error = ulp_error(function(x), reference(name, x.astype(np.float64)))
            k = int(np.argmax(error))
            if error[k] > worst:
                worst, where = float(error[k]), float(x[k])
    return worst, where


def check_far_ranges(name: str, x: np.ndarray) -> np.ndarray:
    """Check all x whose exact result is known, and return a sample of them for the general check."""
    y = getattr(_core, name)(x)
    if abs(x[0]) > 128:
        assert np.all(y == (np.sign(x[0]) if name == "tanh" else float(x[0] > 0)))
    elif name == "sigmoid":
        assert np.all(y == 0.5)
    else:
        assert np.array_equal(y, x)
    return x[::4097]


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.release), 11])
@pytest.mark.parametrize(("name", "bound"), BOUNDS.items())
def test_every_float32_is_within_the_bound(name: str, bound: float, every: int) -> None:
    """By default only every eleventh chunk, a tenth of the numbers, is tested."""
    torch.set_flush_denormal(False)  # torch.compile of 2.4 leaves it on, which would break NumPy's comparison
    worst, where = maximum_error(name, every)
    print(f"{name}: {worst:.3f} ulp at {where.hex()}")
    assert 0.5 < worst <= bound


@pytest.mark.parametrize("name", BOUNDS)
def test_float64_is_within_three_ulp_of_sixty_digits(name: str) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-25, 25, 2000), rng.uniform(-1, 1, 2000), rng.normal(size=1000) * 1e-5])
    y = getattr(_core, name)(x)
    with mpmath.workdps(60):
        for value, got in zip(x, y, strict=True):
            v = mpmath.mpf(float(value))
            exact = mpmath.tanh(v) if name == "tanh" else 1 / (1 + mpmath.exp(-v))
            assert abs(mpmath.mpf(float(got)) - exact) <= 3 * np.spacing(abs(float(exact)))


# csrc/vmath-inl.h states the errors that were measured.
SINE_BOUND = 0.8


def sine_arguments() -> np.ndarray:
    """Of [-pi, pi], many of them near the multiples of pi / 2, where sine or cosine is near 0."""
    rng = np.random.default_rng(2)
    near = 10.0 ** rng.uniform(-17, -2, (4, 400)) * rng.choice([-1, 1], (4, 400))
    x = np.concatenate([rng.uniform(-np.pi, np.pi, 3000), *(near + np.pi / 2 * np.array([[-1], [0], [1], [2]]))])
    ends = [
        0.0,
        np.pi,
        -np.pi,
        np.pi / 2,
        np.nextafter(np.pi / 2, 0),
        np.nextafter(np.pi / 2, 2),
        np.pi / 4,
        -3 * np.pi / 4,
    ]
    return np.concatenate([x[np.abs(x) <= np.pi], ends])


def sine_error(x: np.ndarray) -> float:
    """The largest error of sine and cosine, in ulp, against 80 digits."""
    worst = 0.0
    with mpmath.workdps(80):
        for value, *made in zip(x, *_core.sine_cosine(x), strict=True):
            for got, function in zip(made, (mpmath.sin, mpmath.cos), strict=True):
                exact = function(mpmath.mpf(float(value)))
                worst = max(worst, float(abs(mpmath.mpf(float(got)) - exact) / np.spacing(abs(float(exact)))))
    return worst


def test_sine_and_cosine_are_within_the_bound() -> None:
    assert 0.5 < sine_error(sine_arguments()) <= SINE_BOUND


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.release), 97])
def test_sine_and_cosine_of_every_float32_round_as_those_of_numpy(every: int) -> None:
    """Rounded to float32; NumPy's error in float64 is below 1 ulp, so that both can differ by one float32 at most where
    the exact value is next to the middle of two. Only every 97th chunk by default, and one sign.
    """
    top = int(np.float32(np.pi).view(np.uint32)) + 1
    differ = 0
    for start in range(0, top, every * CHUNK):
        x = np.arange(start, min(start + CHUNK, top), dtype=np.uint32).view(np.float32).astype(np.float64)
        for made, exact in zip(_core.sine_cosine(x), (np.sin(x), np.cos(x)), strict=True):
            assert np.all(np.abs(made - exact) <= 2 * np.spacing(np.abs(exact)))
            differ += int(np.count_nonzero(made.astype(np.float32) != exact.astype(np.float32)))
    assert differ <= 8


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tanh_is_odd_both_saturate_and_nan_stays_nan(dtype: type) -> None:
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(size=10000) * 3, 10.0 ** rng.uniform(-40, 3, 10000)]).astype(dtype)
    assert np.array_equal(_core.tanh(-x), -_core.tanh(x))
    assert np.signbit(_core.tanh(np.array([-0.0, 0.0], dtype))).tolist() == [True, False]
    ends = np.array([-np.inf, -1000, 1000, np.inf, np.nan], dtype)
    assert np.array_equal(_core.tanh(ends), np.array([-1, -1, 1, 1, np.nan], dtype), equal_nan=True)
    assert np.array_equal(_core.sigmoid(ends), np.array([0, 0, 1, 1, np.nan], dtype), equal_nan=True)


def digest() -> str:
    """A hash of both functions on the instruction set of this process."""
    x = np.arange(0, 1 << 32, 4093, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([x[~np.isnan(x)], np.linspace(-20, 20, 1000003, dtype=np.float32)])
    made = [function(y) for y in (x, x.astype(np.float64)) for function in (_core.tanh, _core.sigmoid)]
    made += _core.sine_cosine(np.linspace(-np.pi, np.pi, 100003))
    return hashlib.sha256(b"".join(y.tobytes() for y in made)).hexdigest()


def test_every_instruction_set_computes_the_same_bits(isa_processes: dict[str, IsaProcess]) -> None:
    assert len({process.call("test_vmath.digest") for process in isa_processes.values()}) == 1


if __name__ == "__main__":
    for name in BOUNDS:
        worst, where = maximum_error(name)
        print(f"{name}: {worst:.3f} ulp at {where.hex()} ({srcell.info()['isa']})")
    print(f"sine and cosine, float64, a sample: {sine_error(sine_arguments()):.3f} ulp")
