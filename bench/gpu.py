"""Measure srcell on a GPU against what a user would otherwise run there, in one process of a few minutes.

    python bench/gpu.py --out FILE.json

B = 256, N = 512, K = 784 with 3 % active elements, T in 32, 220, 1000, currents and inputs in float32 and bfloat16:

- the recurrence on given currents: the equations in eager PyTorch, under torch.compile in chunks of steps, in
  SpikingJelly's FlexSN if it is installed, and srcell's scan;
- a layer: torch's product (TF32) before the scan, events with and without values, and cuDNN's nn.GRU for context,
  another cell.

Rows are timed as in ``srcell bench``, by CUDA events. Copies queued first keep the card busy while Python queues a
call, so that the time measured is the card's: ``held_ms`` is how long the copies take, ``queued_ms`` how long Python
takes to queue a forward pass behind them, or waits for a full queue. A row whose ``queued_ms`` exceeds ``held_ms`` is
bound by Python. ``kernel_us`` has the time of each kernel of srcell's rows. Memory is the peak above what is allocated
when a row starts. The scan's bandwidth counts the bytes of its floor (bench/NOTES.md). ``--device cpu`` runs everything
on tiny sizes, by wall time, to check the script where there is no card.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from srcell import EventBatch, SRCState
from srcell.benchmark import document
from srcell.benchmark.cases import BOTH, FORWARD
from srcell.benchmark.rows import CHUNK, Row
from srcell.benchmark.timing import Clock, time_rows, wall_clock
from srcell.functional import src, src_linear
from srcell.reference import src_reference

DENSITY = 0.03
REPETITIONS = 9
OURS = ("scan", "events", "events with values")


class CardClock:
    """Milliseconds of a call on a card that copies of 1 GiB keep busy until the call is queued."""

    copies = 16

    def __init__(self) -> None:
        self.source = torch.zeros(2**28, device="cuda")
        self.target = torch.empty_like(self.source)
        self.held = statistics.median(self._between(self._hold) for _ in range(5))

    def __call__(self, call: Callable[[], object]) -> float:
        self._hold()
        return self._between(call)

    def queueing(self, call: Callable[[], object]) -> float:
        """Milliseconds that Python takes to queue a call behind the copies."""
        torch.cuda.synchronize()
        self._hold()
        return wall_clock(call)

    def _hold(self) -> None:
        for _ in range(self.copies):
            self.target.copy_(self.source)

    @staticmethod
    def _between(call: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        output = call()  # noqa: F841
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    @property
    def bandwidth(self) -> float:
        """Bytes read and written per second by the copies."""
        return 2 * self.copies * self.source.nbytes / (self.held / 1e3)


def peak_bytes(row: Row, gradient: Tensor) -> int:
    """Peak of the card's memory in forward and backward, above what is allocated before."""
    for leaf in row.leaves:
        leaf.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    row.call().backward(gradient)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def kernel_microseconds(row: Row, gradient: Tensor) -> dict[str, float]:
    """The time of each kernel in forward and backward, by its name; none where torch's profiler sees no card."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CUDA]) as profile:
        row.call().backward(gradient)
        torch.cuda.synchronize()
    return {event.key: event.device_time_total for event in profile.key_averages() if event.device_time_total}


@torch.compile(dynamic=False)
def compiled_chunk(current: Tensor, bias: Tensor, i: Tensor, h: Tensor, hs: Tensor) -> tuple[Tensor, SRCState]:
    return src_reference(current, bias, SRCState(i, h, hs))


def compiled_recurrence(current: Tensor, bias: Tensor) -> Tensor:
    # Three tensors, because passing one tensor three times would compile anew.
    state, spikes = SRCState(*(torch.zeros_like(current[0]) for _ in range(3))), []
    for part in current.split(CHUNK):
        made, state = compiled_chunk(part, bias, *state)
        spikes.append(made)
    return torch.cat(spikes)


def step(current: Tensor, i: Tensor, h: Tensor, hs: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    """The equations with default constants, for a generator of kernels: the spike and the state after it."""
    i = 0.9 * i + current
    gate = 0.9 - 0.9 * torch.sigmoid(10 * (h - 0.5))
    u = 3 * torch.tanh(i / 3) + 2 * h - 7 * hs + bias
    hs = gate * hs + (1 - gate) * h
    h = torch.tanh(u)
    return torch.relu(h), i, h, hs


def flexsn_recurrence(bias: Tensor, batch: int) -> Callable[[Tensor, Tensor], Tensor] | None:
    """SpikingJelly's kernel generator on one step; its gradients follow the recurrence, with its own spike gradient."""
    try:
        from spikingjelly.activation_based import functional
        from spikingjelly.activation_based.neuron.flexsn import FlexSN
    except ImportError:
        return None

    neuron = FlexSN(step, num_states=3, static_inputs=(bias.detach().repeat(batch, 1),), step_mode="m")

    def run(current: Tensor, _: Tensor) -> Tensor:
        functional.reset_net(neuron)
        return neuron(current)

    return run


class Work:
    """Inputs, parameters and gradient of one setting, and its rows."""

    def __init__(self, steps: int, dtype: torch.dtype, device: torch.device, sizes: tuple[int, int, int]) -> None:
        batch, neurons, inputs = sizes
        generator = torch.Generator().manual_seed(0)
        self.name = {"steps": steps, "batch": batch, "neurons": neurons, "inputs": inputs, "dtype": str(dtype)[6:]}
        dense = (torch.rand(steps, batch, inputs, generator=generator) < DENSITY).to(torch.float32)
        self.events = EventBatch.from_dense(dense).to(device)
        values = torch.rand(self.events.num_events, generator=generator).to(device)
        self.valued = EventBatch(self.events.offsets, self.events.indices, values, shape=self.events.shape)
        self.dense = dense.to(device, dtype)
        weight = torch.randn(neurons, inputs, generator=generator) * 3 / inputs**0.5
        self.weight = weight.to(device).requires_grad_()
        self.bias = torch.full((neurons,), -6.0, device=device, requires_grad=True)
        current = torch.nn.functional.linear(dense.to(device), self.weight.detach())
        self.current = current.to(dtype).requires_grad_()
        self.gradient = torch.randn(current.shape, generator=generator).to(device)

    def rows(self) -> dict[str, Row]:
        current, weight, bias, dense = self.current, self.weight, self.bias, self.dense
        half_bias = bias.to(current.dtype).detach().requires_grad_()
        half_weight = weight.to(dense.dtype).detach().requires_grad_()
        gru = nn.GRU(dense.shape[2], weight.shape[0]).to(dense.device, dense.dtype)
        rows = {
            "eager": Row(lambda: src_reference(current, half_bias)[0], [current, half_bias]),
            "scan": Row(lambda: src(current, bias)[0], [current, bias]),
            "product and scan": Row(
                lambda: src(nn.functional.linear(dense, half_weight), bias)[0], [half_weight, bias]
            ),
            "events": Row(lambda: src_linear(self.events, weight, bias)[0], [weight, bias]),
            "events with values": Row(lambda: src_linear(self.valued, weight, bias)[0], [weight, bias]),
            "gru": Row(lambda: gru(dense)[0], list(gru.parameters())),
        }
        if self.name["steps"] % CHUNK == 0:  # a chunk of another size would be compiled as well, for half a minute
            rows["compiled"] = Row(lambda: compiled_recurrence(current, half_bias), [current, half_bias])
        flexsn = flexsn_recurrence(half_bias, current.shape[1])
        if flexsn is not None:
            rows["flexsn"] = Row(lambda: flexsn(current, half_bias), [current])
        return rows


def measure(work: Work, clock: Clock) -> dict[str, Any]:
    """Times of each row and, on a card, its peak memory."""
    rows = work.rows()
    with torch.no_grad():
        gradients = {name: work.gradient.to(row.call().dtype) for name, row in rows.items()}
    repetitions, milliseconds = time_rows(rows, gradients, (FORWARD, BOTH), REPETITIONS, clock)
    result: dict[str, Any] = {"setting": work.name, "repetitions": repetitions, "milliseconds": milliseconds}
    if isinstance(clock, CardClock):
        queueing = {name: statistics.median(clock.queueing(row.call) for _ in range(5)) for name, row in rows.items()}
        result |= {"held_ms": clock.held, "queued_ms": queueing}
        result["peak_bytes"] = {name: peak_bytes(row, gradients[name]) for name, row in rows.items()}
        result["kernel_us"] = {name: kernel_microseconds(rows[name], gradients[name]) for name in OURS}
    scan = milliseconds["scan"]
    element = work.current.element_size()
    plane = work.current.numel()
    # Forward reads the currents and writes the spikes; backward reads the currents and grad_outputs and writes the
    # currents' gradient; the checkpoints, three states in float32 every 16 steps, are written and read.
    forward, saved = plane * 2 * element, plane * 4 * 3 / 16
    floor = {FORWARD: forward, BOTH: forward + plane * 3 * element + 2 * saved}
    result["scan_bytes_per_second"] = {key: floor[key] / (scan[key]["median"] / 1e3) for key in floor}
    result["input_bytes"] = {
        "events": work.events.nbytes,
        "dense": work.dense.numel() * work.dense.element_size(),
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_card = device.type == "cuda"
    clock = CardClock() if on_card else wall_clock
    torch.backends.cuda.matmul.allow_tf32 = True
    sizes = (256, 512, 784) if on_card else (4, 8, 20)
    made = document([], Path(__file__).resolve()) | {
        "card": torch.cuda.get_device_name() if on_card else None,
        "cuda": torch.version.cuda,
        "copy_bytes_per_second": clock.bandwidth if isinstance(clock, CardClock) else None,
    }
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for dtype in (torch.float32, torch.bfloat16):
        torch._dynamo.reset()
        for steps in (32, 220, 1000) if on_card else (5, CHUNK):
            result = measure(Work(steps, dtype, device, sizes), clock)
            made["results"].append(result)
            both = {name: row[BOTH]["median"] for name, row in result["milliseconds"].items()}
            print(result["setting"], {name: round(ms, 3) for name, ms in both.items()}, flush=True)
            arguments.out.write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()
