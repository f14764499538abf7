"""The benchmark cases: sizes, densities, and the rows of each, i.e. the implementations that are timed."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._shared.arguments import as_int
from .._shared.parameters import RESONANCE

LABELS = {
    "eager": "PyTorch, eager",
    "compiled": "PyTorch, compiled",
    "sparse": "torch.sparse.mm, then srcell.src",
    "srcell": "srcell",
    "torch": "torch alone",
    "convolved": 'srcell, method "dense"',
    "dense": "srcell, dense input",
    "events": "srcell, events",
    "integers": "srcell, integers on events",
    "resonant": "srcell, resonant",
    **{name: f"srcell, {name} learnt" for name in ("alpha", RESONANCE)},
    "delayed": "srcell, events delayed by whole steps",
    "interpolated": "srcell, events delayed by fractions",
    "delays": "srcell, events, delays learnt",
    "lateral": "srcell, recurrent weights",
    "whole-10": "srcell, whole delays up to 10",
    "whole-200": "srcell, whole delays up to 200",
    "fractional-10": "srcell, delays up to 10",
    "fractional-200": "srcell, delays up to 200",
    "learnt-10": "srcell, learnt delays up to 10",
    "learnt-200": "srcell, learnt delays up to 200",
    "gathered-10": "PyTorch, gathered, up to 10",
    "compiled-10": "PyTorch, compiled, up to 10",
    "gathered-200": "PyTorch, gathered, up to 200",
    "compiled-200": "PyTorch, compiled, up to 200",
    "picked-200": "PyTorch, picked, up to 200",
    "with-delays": "srcell, recurrent weights with delays",
    "for-sequences": "SRC.for_sequences",
    "maps": "SRCConv2d, 4 channels on 8 x 8 maps",
    "runtime": "srcell.runtime, exported",
    "rnn": "nn.RNN (another cell)",
    "gru": "nn.GRU (another cell)",
    "lif": "SpikingJelly, LIF (other equations)",
}
FORWARD, BOTH = "forward", "forward and backward"
MOST_THREADS = 1024


@dataclass(frozen=True)
class Workload:
    """One workload and the rows that are measured on it.

    Attributes:
        case: the key in ``CASES`` that the workload belongs to.
        subject: what is timed: "recurrence" (neurons on given currents), "layer" (neurons behind a linear synapse),
            "lateral" (such a layer with recurrent weights, on events in srcell and on a dense input in PyTorch),
            "stack" (several layers), "classifier" (a stack and its readout, forward only), "module" (a torch module),
            "step" (modules that advance by one step, forward only) or "import" (a new Python that imports torch and the
            row's package).
        inputs: number of inputs, K.
        neurons: N of each layer, first to last.
        rows: keys of ``LABELS``.
        density: events per element of the input.
        steps: steps per sample, T.
        batch: number of samples, B.
        surrogate: as in ``srcell.src``.
        full_gradient: as in ``srcell.src``.
        threads: number of threads of torch and srcell; None means all.
        amp: under autocast, with torch's products in bfloat16.

    """

    case: str
    subject: str
    inputs: int
    neurons: tuple[int, ...]
    rows: tuple[str, ...]
    density: float = 0.03
    steps: int = 220
    batch: int = 256
    surrogate: str = "straight_through"
    full_gradient: bool = False
    threads: int | None = None
    amp: bool = False

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that are timed: forward without gradients, and forward and backward together."""
        return (FORWARD,) if self.subject in ("classifier", "step", "import") else (FORWARD, BOTH)

    @property
    def modes(self) -> dict[str, Any]:
        """The gradient mode, as keywords."""
        return {"surrogate": self.surrogate, "full_gradient": self.full_gradient}


@dataclass(frozen=True)
class Convolutional(Workload):
    """A convolutional layer of ``SRCConvClassifier`` ("convolution"), or the network and its readout ("network").

    Attributes:
        channels: channels of the input and of each convolutional layer; maps are square.
        graded: whether the input has spikes of random size and needs a gradient. The row "events" computes the gradient
            of the events, the others that of every input.

    """

    channels: tuple[int, ...] = ()
    graded: bool = False


def _varied(base: Workload, case: str, rows: Sequence[str], **values: Sequence[Any]) -> tuple[Workload, ...]:
    """Workloads of a case: the base with every combination of the values, the last one changing fastest."""
    combinations = (dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))
    return tuple(replace(base, case=case, rows=tuple(rows), **chosen) for chosen in combinations)


def _make_cases() -> dict[str, tuple[Workload, ...]]:
    ours, sizes = ("dense", "events"), ((100,), (512,))
    layer, eager = ("eager", "compiled", "sparse", *ours), ("eager", *ours)
    lateral = ("lateral", *(f"{kind}-{most}" for most in (10, 200) for kind in ("whole", "fractional", "learnt")))
    lateral += ("gathered-10", "compiled-10", "gathered-200", "compiled-200", "picked-200")
    recurrence = Workload("recurrence", "recurrence", 784, (100,), ("eager", "compiled", "srcell"))
    small = Workload("784-100", "layer", 784, (100,), (*layer, "gru"))
    stack = Workload("stack", "stack", 784, (512, 512, 100), ("eager", "compiled", *ours, "gru"))
    maps = Convolutional(
        *("conv", "convolution", 2 * 34 * 34, (12 * 17 * 17,), ("eager", "compiled", "convolved", *ours, "lif")),
        density=0.006,
        steps=316,
        batch=32,
        channels=(2, 12),
    )
    modules = ("srcell", "with-delays", "for-sequences", "rnn", "gru")
    step = Workload("calls", "step", 784, (100,), ("srcell", "runtime", "rnn", "gru"), steps=1, batch=1)
    return {
        "recurrence": _varied(recurrence, "recurrence", recurrence.rows, neurons=sizes, full_gradient=(False, True)),
        "784-100": (small,),
        "784-512": (replace(small, case="784-512", neurons=(512,)),),
        "nmnist": (Workload("nmnist", "layer", 2312, (512,), layer, density=0.006),),
        "integers": _varied(small, "integers", ("events", "integers")),
        # On events, and on given currents.
        "resonance": (
            *_varied(small, "resonance", ("events", "resonant", "alpha", RESONANCE), neurons=sizes),
            *_varied(recurrence, "resonance", ("srcell", "resonant"), neurons=sizes),
        ),
        "delays": _varied(small, "delays", ("events", "delayed", "interpolated", "delays")),
        "lateral-delays": (Workload("lateral-delays", "lateral", 784, (256,), lateral, steps=200, batch=128),),
        "stack": (stack, replace(stack, surrogate="relu", rows=ours), replace(stack, amp=True)),
        "classifier": tuple(
            Workload("classifier", "classifier", 784, (100,), ("eager", "compiled", *ours), batch=n) for n in (1, 256)
        ),
        # The layers of a network for N-MNIST, each alone, then the network.
        "conv": (
            maps,
            replace(maps, inputs=12 * 17 * 17, neurons=(24 * 9 * 9,), density=0.02, channels=(12, 24), graded=True),
            replace(maps, subject="network", neurons=(12 * 17 * 17, 24 * 9 * 9, 128, 100), channels=(2, 12, 24)),
        ),
        # Tiny workloads, which measure the overhead of a call.
        "calls": (
            *_varied(step, "calls", step.rows, neurons=((100,), (512, 100))),
            Workload("calls", "module", 8, (8,), modules, density=0.3, steps=5, batch=1),
            Workload("calls", "module", 64, (256,), ("maps",), density=0.05, steps=5, batch=1),
            Workload("calls", "import", 0, (0,), ("srcell", "torch"), density=0, steps=0, batch=0),
        ),
        "one-thread": _varied(small, "one-thread", eager, neurons=sizes, threads=(1,)),
        "modes": _varied(small, "modes", eager, surrogate=("straight_through", "relu"), full_gradient=(False, True)),
        "density": _varied(small, "density", ("sparse", *ours), density=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)),
        "steps": _varied(small, "steps", eager, steps=(55, 110, 220, 440)),
    }


CASES = _make_cases()


def choose(cases: Sequence[str], *, threads: int | None = None, quick: bool = False) -> list[Workload]:
    """The workloads of the given cases.

    Args:
        cases: keys of ``CASES``; all of them if empty.
        threads: number of threads of the workloads that do not fix their own.
        quick: batches of at most 32 and no compiled rows, for rough times.

    Raises:
        TypeError: ``threads`` is not an integer.
        ValueError: an unknown case, or ``threads`` outside [1, 1024].

    Example:
        >>> from srcell.benchmark import choose
        >>> [setting.density for setting in choose(["nmnist"])]
        [0.006]

    """
    for name in cases:
        if name not in CASES:
            nearest = difflib.get_close_matches(name, CASES, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected some of {', '.join(CASES)}"
            raise ValueError(f"unknown case {name!r}: {hint}")
    if threads is not None:
        threads = as_int("threads", threads, MOST_THREADS, minimum=1)
    chosen = []
    for name in dict.fromkeys(cases or CASES):
        for setting in CASES[name]:
            batch = min(setting.batch, 32) if quick else setting.batch
            rows = tuple(row for row in setting.rows if not (quick and row.startswith("compiled")))
            chosen.append(replace(setting, batch=batch, rows=rows, threads=setting.threads or threads))
    return chosen
