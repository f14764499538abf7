"""Derive the constants of csrc/vmath-inl.h and print them as C++ literals.

    python tools/derive_vmath.py

expm1(r) = r + r^2 P(r) on |r| <= ln(2)/2, with P the minimax polynomial for the relative error of expm1 (Remez exchange
in 60 digits). ln(2) is split into the nearest value of the type and the remainder. Needs mpmath, which is installed
with torch.
"""

from __future__ import annotations

import struct

import mpmath as mp

mp.mp.dps = 60
BOUND = mp.log(2) / 2 * mp.mpf("1.0001")
GRID = [BOUND * k / 1000 for k in range(-1000, 1001) if k]


def nearest(x: mp.mpf, single: bool) -> float:
    """The float32 or float64 nearest to x, as a Python float."""
    return struct.unpack("f", struct.pack("f", float(x)))[0] if single else float(x)


def remainder(r: mp.mpf) -> mp.mpf:
    """The function that P approximates: (expm1(r) - r) / r^2."""
    return mp.nsum(lambda k: r**k / mp.factorial(k + 2), [0, 40], method="d")


def weight(r: mp.mpf) -> mp.mpf:
    """The factor from an error of P to a relative error of expm1."""
    return abs(r**2 / mp.expm1(r))


def errors(coefficients: list[mp.mpf]) -> list[mp.mpf]:
    """The relative error of expm1 at each point of the grid."""
    return [(mp.polyval(coefficients[::-1], r) - remainder(r)) * weight(r) for r in GRID]


def remez(degree: int, rounds: int = 4) -> list[mp.mpf]:
    """Coefficients of P, lowest first."""
    count = degree + 2
    points = [-BOUND * mp.cos(mp.pi * k / (count - 1)) for k in range(count)]
    for _ in range(rounds):
        system = mp.matrix(count, count)
        for row, r in enumerate(points):
            for power in range(degree + 1):
                system[row, power] = r**power
            system[row, degree + 1] = (-1) ** row / weight(r)
        solution = mp.lu_solve(system, mp.matrix([remainder(r) for r in points]))
        coefficients = list(solution)[: degree + 1]
        found = errors(coefficients)
        extremes: list[int] = []
        for k, error in enumerate(found):
            if not extremes or (error > 0) != (found[extremes[-1]] > 0):
                extremes.append(k)
            elif abs(error) > abs(found[extremes[-1]]):
                extremes[-1] = k
        assert len(extremes) == count
        points = [GRID[k] for k in extremes]
    return coefficients


def main() -> None:
    """Print the constants of both types."""
    for name, single, degree in (("float", True, 4), ("double", False, 10)):
        coefficients = [mp.mpf(nearest(c, single)) for c in remez(degree)]
        ln2_high = nearest(mp.log(2), single)
        worst = max(abs(e) for e in errors(coefficients))
        print(f"{name}: relative error of expm1 before rounding 2^{mp.nstr(mp.log(worst, 2), 4)}")
        print(f"  log2_e   {nearest(1 / mp.log(2), single).hex()}")
        print(f"  ln2_high {ln2_high.hex()}\n  ln2_low  {nearest(mp.log(2) - mp.mpf(ln2_high), single).hex()}")
        print("  expm1    {" + ", ".join(float(c).hex() for c in coefficients) + "}")
    parts, rest = [], mp.pi / 2
    for _ in range(3):
        parts.append(nearest(rest, False))
        rest -= mp.mpf(parts[-1])
    print(f"2 / pi {nearest(2 / mp.pi, False).hex()}, pi / 2 " + ", ".join(part.hex() for part in parts))
    for name, powers in (("sine", range(3, 18, 2)), ("cosine", range(4, 17, 2))):
        terms = (nearest((-1) ** (power // 2) / mp.factorial(power), False) for power in powers)
        print(f"  {name} " + ", ".join(term.hex() for term in terms))


if __name__ == "__main__":
    main()
