"""Time a training step on long sequences: 784 steps of one input, 256 resonant neurons with delayed recurrent weights.

    python bench/long_sequences.py [--threads 2] [--repeats 7] [--torch]

Batches of 128 permuted digits' pixels (made here: 19 % of them differ from 0). Prints the median milliseconds of a
forward pass, of forward and backward, and of a whole step with readout, loss and Adam; and the same without delays,
without frequencies and without recurrent weights. ``--torch`` adds the equations in PyTorch, compiled in chunks of 20
steps, with delays and without. Writes bench/results/long-sequences.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.config
from torch import Tensor, nn

import srcell
from srcell import SRC, spread, spread_frequencies
from srcell.reference import src_reference

RESULTS = Path(__file__).resolve().parent / "results"

STEPS, BATCH, NEURONS, DELAYS, CHUNK = 784, 128, 256, 240, 20
DIGITS = 60_000


def layer(recurrent: bool = True, resonant: bool = True, delayed: bool = True) -> SRC:
    torch.manual_seed(0)
    options: dict[str, Any] = {}
    if delayed and recurrent:
        options = {"delay_hh": (DELAYS * torch.rand(NEURONS)).round(), "max_delay": DELAYS}
    return SRC(
        1,
        NEURONS,
        recurrent=recurrent,
        alpha=spread(0.5, 0.998),
        omega=spread_frequencies(0.01, 1.0) if resonant else 0.0,
        zs_hyp=0.5,
        initial_state="rest",
        **options,
    )


class Compiled(nn.Module):
    """The equations of the same layer in PyTorch, compiled.

    A chunk receives the delayed spikes of earlier chunks, gathered at once; those of its own steps it selects by masks.
    """

    def __init__(self, of: SRC) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(of.weight_ih_l0.detach().clone()), nn.Parameter(of.bias_l0.detach())
        self.weight_hh = nn.Parameter(of.weight_hh_l0.detach().clone())
        self.constants = {"alpha": of.alpha_l0, "omega": of.omega_l0, "zs_hyp": 0.5}
        self.rest = srcell.rest_state(self.bias, **self.constants)
        delays = getattr(of, "delay_hh_l0", None)
        self.delays = None if delays is None else delays.long()
        self.run = torch.compile(self.chunk, dynamic=False)

    def chunk(self, part: Tensor, late: Tensor | None, i: Tensor, h: Tensor, hs: Tensor, q: Tensor) -> list[Tensor]:
        """The outputs of some steps, what goes through the recurrent weights (both (T, B, N)), and the state."""
        outputs, fired, state = [], [torch.relu(h)], (i, h, hs, q)
        for step, x in enumerate(part.unbind()):
            arriving = fired[-1]
            if late is not None:
                arriving = late[step]
                for delay in range(step):
                    arriving = torch.where(self.delays == delay, fired[step - delay], arriving)
            current = torch.addmm(x * self.weight[:, 0], arriving, self.weight_hh.t())
            made, state = src_reference(current[None], self.bias, srcell.ResonantState(*state), **self.constants)
            outputs.append(made)
            fired.append(torch.relu(state[1]))
        return [torch.cat(outputs), torch.stack(fired[1:]), *state]

    def forward(self, input: Tensor) -> Tensor:
        state = [x.detach().expand(input.shape[1], -1).contiguous() for x in self.rest]
        line = torch.zeros(DELAYS + 1, input.shape[1], NEURONS)  # what was fired in the last steps
        outputs = []
        for part in input.split(CHUNK):
            late = None
            if self.delays is not None:
                steps = torch.arange(len(part))[:, None] + DELAYS - self.delays  # in the line; behind it: not fired yet
                index = steps.clamp(max=DELAYS)[:, None].expand(-1, input.shape[1], -1)
                late = line.gather(0, index) * (steps <= DELAYS)[:, None]
            spikes, fired, *state = self.run(part, late, *state)
            line = torch.cat([line, fired])[-DELAYS - 1 :]
            outputs.append(spikes)
        return torch.cat(outputs)


def median(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds, after one call that is not timed."""
    call()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        taken.append(1000 * (time.perf_counter() - begin))
    return statistics.median(taken)


def measure(run: Callable[[Tensor], Tensor], parameters: list[Tensor], repeats: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(STEPS, BATCH, 1, generator=generator)
    pixels *= torch.rand(STEPS, BATCH, 1, generator=generator) < 0.19
    labels = torch.randint(0, 10, (BATCH,), generator=generator)
    readout = srcell.LinearReadout(NEURONS, 10, alpha=1.0)
    learnt = [*parameters, *readout.parameters()]
    optimizer = torch.optim.Adam(learnt, lr=0.0)  # the spikes stay those of the start

    def forward() -> None:
        with torch.no_grad():
            run(pixels)

    gradient = torch.randn(STEPS, BATCH, NEURONS, generator=generator)

    def both() -> None:
        torch.autograd.grad(run(pixels), parameters, gradient)

    def step() -> None:
        loss = nn.functional.cross_entropy(readout(run(pixels)), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()

    with torch.no_grad():
        active = float((run(pixels) > 0).float().mean())
    found = {"forward": median(forward, repeats), "both": median(both, repeats), "step": median(step, repeats)}
    return {**found, "epoch_seconds": found["step"] / 1000 * DIGITS / BATCH, "active": active}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--torch", action="store_true", help="time PyTorch too; it takes minutes")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch._dynamo.config.recompile_limit = 64  # more than the default: with and without gradients, and the last chunk
    variants = {
        "resonant, recurrent, delayed": layer(),
        "resonant, recurrent": layer(delayed=False),
        "recurrent": layer(resonant=False, delayed=False),
        "resonant": layer(recurrent=False),
        "plain": layer(recurrent=False, resonant=False),
    }
    results: dict[str, Any] = {}
    for name, made in variants.items():
        results[name] = measure(lambda x, made=made: made(x)[0], list(made.parameters()), arguments.repeats)
        print(name, {key: round(value, 3) for key, value in results[name].items()}, flush=True)
    for name in ("resonant, recurrent", "resonant, recurrent, delayed") if arguments.torch else ():
        compiled = Compiled(variants[name])
        name = f"PyTorch, compiled: {name}"
        results[name] = measure(compiled, list(compiled.parameters()), 3)
        print(name, {key: round(value, 3) for key, value in results[name].items()}, flush=True)
    about = {"machine": platform.processor() or platform.machine(), "threads": arguments.threads}
    about |= {"torch": torch.__version__, "steps": STEPS, "batch": BATCH, "neurons": NEURONS, "delays": DELAYS}
    (RESULTS / "long-sequences.json").write_text(json.dumps({**about, "milliseconds": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
