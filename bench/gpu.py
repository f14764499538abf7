"""Measure srcell on a GPU beside what a user would otherwise run there, in one process of a few minutes.

    python bench/gpu.py --out FILE.json

B = 256, N = 512, K = 784 with 3 % of the cells active, T in 32, 220, 1000, currents and inputs in float32 and bfloat16:

- the recurrence on given currents: the equations in eager PyTorch, under torch.compile in chunks of steps, in
  SpikingJelly's FlexSN if it is installed, and srcell's scan;
- a layer: torch's product (TF32) before the scan, events, and cuDNN's nn.GRU for context, another cell.

Repetitions of all rows take turns; times are those of CUDA events, medians and quartiles in milliseconds; memory is the
peak above what a row starts from; the scan's bandwidth counts the bytes of its floor (bench/NOTES.md). ``--device cpu``
runs all of it once on tiny sizes, with wall time, to see that it runs where there is no card.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import srcell
from srcell import EventBatch, SRCState
from srcell.functional import src, src_linear
from srcell.reference import src_reference

CHUNK = 20  # steps that torch.compile gets at once
SECONDS = 4.0  # for the repetitions of one row of one setting
MOST, FEWEST = 30, 3
DENSITY = 0.03

Pass = Callable[[], Any]


class Clock:
    """Milliseconds of a call, on the device."""

    def __init__(self, device: torch.device) -> None:
        self.on_card = device.type == "cuda"

    def __call__(self, call: Pass) -> float:
        if not self.on_card:
            start = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - start)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def peak_bytes(self, leaves: list[Tensor], call: Pass) -> int | None:
        if not self.on_card:
            return None
        for leaf in leaves:
            leaf.grad = None
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before


@torch.compile(dynamic=False)
def compiled_chunk(current: Tensor, bias: Tensor, i: Tensor, h: Tensor, hs: Tensor) -> tuple[Tensor, SRCState]:
    return src_reference(current, bias, SRCState(i, h, hs))


def compiled_recurrence(current: Tensor, bias: Tensor) -> Tensor:
    # Three tensors, because one that is passed thrice is compiled anew.
    state, spikes = SRCState(*(torch.zeros_like(current[0]) for _ in range(3))), []
    for part in current.split(CHUNK):
        made, state = compiled_chunk(part, bias, *state)
        spikes.append(made)
    return torch.cat(spikes)


def flexsn_recurrence(bias: Tensor, batch: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    """SpikingJelly's generator of kernels, given one step; it follows the recurrence and has its own spike gradient."""
    try:
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.neuron.flexsn import FlexSN
    except ImportError:
        return None

    def core(c: Tensor, i: Tensor, h: Tensor, hs: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        i = 0.9 * i + c
        gate = 0.9 - 0.9 * torch.sigmoid(10 * (h - 0.5))
        u = 3 * torch.tanh(i / 3) + 2 * h - 7 * hs + b
        hs = gate * hs + (1 - gate) * h
        h = torch.tanh(u)
        return torch.relu(h), i, h, hs

    neuron = FlexSN(core, num_states=3, static_inputs=(bias.detach().repeat(batch, 1),), step_mode="m")

    def run(current: Tensor, _: Tensor) -> Tensor:
        functional.reset_net(neuron)
        return neuron(current)

    return run


def forward_of(run: Callable[..., Tensor], *arguments: Any) -> Pass:
    def call() -> None:
        with torch.no_grad():
            run(*arguments)

    return call


def both_of(run: Callable[..., Tensor], leaves: list[Tensor], gradient: Tensor, *arguments: Any) -> Pass:
    def call() -> None:
        for leaf in leaves:
            leaf.grad = None
        run(*arguments).backward(gradient)

    return call


class Setting:
    def __init__(self, steps: int, dtype: torch.dtype, device: torch.device, sizes: tuple[int, int, int]) -> None:
        batch, neurons, inputs = sizes
        generator = torch.Generator().manual_seed(0)
        self.name = {"steps": steps, "batch": batch, "neurons": neurons, "inputs": inputs, "dtype": str(dtype)[6:]}
        dense = (torch.rand(steps, batch, inputs, generator=generator) < DENSITY).to(torch.float32)
        self.events = EventBatch.from_dense(dense).to(device)
        self.dense = dense.to(device, dtype)
        weight = torch.randn(neurons, inputs, generator=generator) * 3 / inputs**0.5
        self.weight = weight.to(device).requires_grad_()
        self.bias = torch.full((neurons,), -6.0, device=device, requires_grad=True)
        current = torch.nn.functional.linear(dense.to(device), self.weight.detach())
        self.current = current.to(dtype).requires_grad_()
        self.gradient = torch.randn(current.shape, generator=generator).to(device)

    def rows(self) -> dict[str, tuple[Pass, Pass, list[Tensor]]]:
        """The two passes of each row, and what the second leaves gradients in."""
        rows = {}

        def add(name: str, run: Callable[..., Tensor], leaves: list[Tensor], *arguments: Any) -> None:
            with torch.no_grad():
                gradient = self.gradient.to(run(*arguments).dtype)
            rows[name] = forward_of(run, *arguments), both_of(run, leaves, gradient, *arguments), leaves

        recurrence = (self.current, self.bias)
        bias = self.bias.to(self.current.dtype).detach().requires_grad_()
        add("eager", lambda c, b: src_reference(c, b)[0], [self.current, bias], self.current, bias)
        if self.name["steps"] % CHUNK == 0:  # a chunk of another size would be compiled as well, for half a minute
            add("compiled", compiled_recurrence, [self.current, bias], self.current, bias)
        flexsn = flexsn_recurrence(bias, self.current.shape[1])
        if flexsn is not None:
            add("flexsn", flexsn, [self.current], self.current, bias)
        add("scan", lambda c, b: src(c, b)[0], [*recurrence], *recurrence)
        weight = self.weight.to(self.dense.dtype).detach().requires_grad_()
        product = lambda x, w, b: src(nn.functional.linear(x, w), b)[0]  # noqa: E731
        add("product and scan", product, [weight, self.bias], self.dense, weight, self.bias)
        linear = lambda x, w, b: src_linear(x, w, b)[0]  # noqa: E731
        add("events", linear, [self.weight, self.bias], self.events, self.weight, self.bias)
        gru = nn.GRU(self.dense.shape[2], self.weight.shape[0]).to(self.dense.device, self.dense.dtype)
        add("gru", lambda x: gru(x)[0], list(gru.parameters()), self.dense)
        return rows


def quartiles(times: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return {"median": median, "quartile1": low, "quartile3": high, "repetitions": len(times)}


def measure(setting: Setting, clock: Clock) -> dict[str, Any]:
    """Times and peak memory of each row, repetitions of the rows in turn."""
    rows = setting.rows()
    result: dict[str, Any] = {"setting": setting.name, "milliseconds": {}, "peak_bytes": {}}
    for which, label in enumerate(("forward", "forward and backward")):
        times: dict[str, list[float]] = {name: [] for name in rows}
        for passes in rows.values():
            clock(passes[which])
        repetitions = MOST if clock.on_card else 1
        for repetition in range(repetitions):
            for name, passes in rows.items():
                if repetition < FEWEST or sum(times[name]) < 1e3 * SECONDS:
                    times[name].append(clock(passes[which]))
        for name, passes in rows.items():
            result["milliseconds"].setdefault(name, {})[label] = quartiles(times[name])
            result["peak_bytes"].setdefault(name, {})[label] = clock.peak_bytes(passes[2], passes[which])
    scan = result["milliseconds"]["scan"]
    element = setting.current.element_size()
    plane = setting.current.numel()
    # Read the currents, write the spikes (in float32); backwards read currents and gradient, write the currents'
    # gradient; the checkpoints, three states every 16 steps, are written and read.
    forward, saved = plane * (element + 4), plane * 4 * 3 / 16
    floor = {"forward": forward, "forward and backward": forward + plane * (2 * element + 4) + 2 * saved}
    result["scan_bytes_per_second"] = {key: floor[key] / (scan[key]["median"] / 1e3) for key in floor}
    result["input_bytes"] = {
        "events": setting.events.nbytes,
        "dense": setting.dense.numel() * setting.dense.element_size(),
    }
    return result


def copy_bandwidth(device: torch.device, clock: Clock) -> float:
    """Bytes read and written per second by a copy of 1 GiB."""
    x = torch.zeros(2**28 if clock.on_card else 2**20, device=device)
    y = torch.empty_like(x)
    times = [clock(lambda: y.copy_(x)) for _ in range(10)]
    return 2 * x.numel() * x.element_size() / (statistics.median(times) / 1e3)


def commit() -> str | None:
    try:
        return subprocess.check_output(["git", "describe", "--always", "--dirty"], text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    clock = Clock(device)
    torch.backends.cuda.matmul.allow_tf32 = True
    sizes = (256, 512, 784) if clock.on_card else (4, 8, 20)
    document = {
        "card": torch.cuda.get_device_name() if clock.on_card else None,
        "date": date.today().isoformat(),
        "commit": commit(),
        "python": platform.python_version(),
        "info": srcell.info(),
        "cuda": torch.version.cuda,
        "copy_bytes_per_second": copy_bandwidth(device, clock),
        "results": [],
    }
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for dtype in (torch.float32, torch.bfloat16):
        torch._dynamo.reset()
        for steps in (32, 220, 1000) if clock.on_card else (5, CHUNK):
            result = measure(Setting(steps, dtype, device, sizes), clock)
            document["results"].append(result)
            both = {name: row["forward and backward"]["median"] for name, row in result["milliseconds"].items()}
            print(result["setting"], {name: round(ms, 3) for name, ms in both.items()}, flush=True)
            arguments.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
