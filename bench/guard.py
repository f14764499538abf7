"""Fail if a call of a small layer has become slower, beside a torch layer of its sizes: ten seconds.

    python bench/guard.py

Run it on an otherwise idle machine. Both calls are timed in rounds that alternate, on one thread, and the best time of
each counts: other work on the machine makes rounds slower, and none faster.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from srcell import SRC, SRCCell

ROUNDS, SECONDS = 12, 0.03  # of each call

Call = Callable[[], Tensor]


def of_step(kind: type[nn.Module]) -> Call:
    """A step of a cell of 784 inputs and 100 neurons, on one sample."""
    cell, x = kind(784, 100), (torch.rand(1, 784) < 0.03).float()
    with torch.no_grad():
        made = cell(x)
    state = made[1] if isinstance(made, tuple) else made
    return lambda: spikes_of(cell(x, state))


def of_layer(make: Callable[..., nn.Module], **options: Any) -> Call:
    """Five steps of a layer of 8 inputs and 8 neurons, on one sample."""
    layer, x = make(8, 8, **options), (torch.rand(5, 1, 8) < 0.3).float()
    return lambda: spikes_of(layer(x))


def spikes_of(made: Any) -> Tensor:
    output: Tensor = made[0] if isinstance(made, tuple) else made
    return output


# A call, torch's, and the largest ratios of their times, forwards and with gradients.
CASES: dict[str, tuple[Call, Call, float, float]] = {
    "a step": (of_step(SRCCell), of_step(nn.RNNCell), 1.0, 1.5),
    "a layer": (of_layer(SRC), of_layer(nn.RNN), 0.6, 0.6),
    "a layer with delays": (of_layer(SRC, recurrent=True, delay_hh=2.5, max_delay=4), of_layer(nn.RNN), 1.0, 1.0),
    "a layer for sequences": (of_layer(SRC.for_sequences), of_layer(nn.RNN), 1.0, 1.0),
}


def ratio(ours: Callable[[], Any], theirs: Callable[[], Any]) -> float:
    """The ratio of the best times of both calls."""
    timers = [timeit.Timer(call) for call in (ours, theirs)]
    numbers = [max(int(SECONDS / (timer.timeit(200) / 200)), 1) for timer in timers]
    rounds = [[timer.timeit(n) / n for timer, n in zip(timers, numbers, strict=True)] for _ in range(ROUNDS)]
    our, their = (min(times) for times in zip(*rounds, strict=True))
    return our / their


def backward(call: Call) -> Callable[[], None]:
    return lambda: call().sum().backward()  # type: ignore[no-untyped-call]


def main() -> int:
    """Print the ratios and return the exit status."""
    torch.set_num_threads(1)
    slower = 0
    for name, (ours, theirs, most, most_both) in CASES.items():
        with torch.no_grad():
            forward = ratio(ours, theirs)
        both = ratio(backward(ours), backward(theirs))
        slower += forward > most or both > most_both
        print(f"{name}: {forward:.2f} times torch's (at most {most}), with gradients {both:.2f} (at most {most_both})")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
