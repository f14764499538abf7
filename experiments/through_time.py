"""Measure how far back in time gradients reach, and whether following h and hs through time helps training.

    python experiments/through_time.py --data FOLDER [--seeds 1] [--cell image|sequences]

First, the norm of the gradient of late spikes against the distance in time of the input current, for each gradient
mode. Then one layer of 256 neurons with recurrent weights is trained on row-sequential MNIST (12,000 digits, two
epochs, 6,000 others to validate), with the adjoints of h and hs cut, followed, damped, clipped or followed within
windows; here a Python loop passes them from each step to the previous one. The cell is that of ``SRC``, or of
``SRC.for_sequences``, with which only some of the methods are tried. Adds to experiments/results/through_time.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from srcell import SRC, SRCState, data, functional, rest_state, spread
from srcell.layers import LinearReadout

RESULTS = Path(__file__).resolve().parent / "results"

NEURONS, BATCH, LATE = 256, 128, 10  # the loss is on the last ten steps
TRAINED_ON, VALIDATED_ON, EPOCHS = 12_000, 6_000, 2
LATERAL = (None, "relu", "straight_through")
CELLS = {"image": {"zs_hyp": 0.5}, "sequences": {"rho": 10.0, "rs": -4.0, "zs_hyp": 0.2}}


def rows(images: Tensor) -> Tensor:
    """The rows of digits as currents, each held for four steps, (112, B, 28)."""
    return images.transpose(0, 1).repeat_interleave(4, 0)


def make_layer(lateral: str | None, gain: float = 1.0, surrogate: str = "straight_through", cell: str = "image") -> SRC:
    options: dict[str, Any] = {} if lateral is None else {"recurrent": True, "recurrent_surrogate": lateral}
    options |= CELLS[cell]
    layer = SRC(28, NEURONS, alpha=spread(0.5, 0.99), initial_state="rest", surrogate=surrogate, **options)
    if lateral is not None:
        with torch.no_grad():
            layer.weight_hh_l0 *= gain
    return layer


def reach(input: Tensor, lateral: str | None, surrogate: str, followed: bool, gain: float) -> list[float]:
    """The norm of the gradient of late spikes with respect to the currents at each distance, as RMS over samples.

    The late spikes are those of the last ten steps, each with a random weight.
    """
    torch.manual_seed(0)
    layer = make_layer(lateral, gain)
    current = F.linear(input, layer.weight_ih_l0).detach().requires_grad_()
    options = {} if lateral is None else {"weight_hh": layer.weight_hh_l0, "recurrent_surrogate": lateral}
    spikes, _ = functional.src(
        current,
        layer.bias_l0,
        alpha=layer.alpha_l0,
        zs_hyp=0.5,
        surrogate=surrogate,
        full_gradient=followed,
        **options,
    )
    late = spikes[-LATE:]
    (late * torch.randn(late.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert current.grad is not None
    norms = current.grad.double().norm(dim=2).square().mean(1).sqrt()
    return [float(f"{norm:.4g}") for norm in norms[: len(norms) - LATE + 1].flip(0)]


class Method(NamedTuple):
    """How the adjoints of h and hs pass from a step to the previous one, and the surrogate of the spikes."""

    label: str
    surrogate: str = "straight_through"
    followed: bool = True
    window: int = 0  # followed within windows of this many steps; 0: through all steps
    pass_back: Callable[[Tensor], Tensor] | None = None  # applied at every step


def damped(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda adjoint: adjoint * factor


def clipped(bound: float) -> Callable[[Tensor], Tensor]:
    """Clamp each neuron's adjoint to a bound, relative to a sample's share of the loss."""
    return lambda adjoint: adjoint.clamp(-bound / BATCH, bound / BATCH)


def shortened(bound: float) -> Callable[[Tensor], Tensor]:
    """Scale down each sample's adjoints of all neurons to a norm, relative to a sample's share of the loss."""
    return lambda adjoint: adjoint * (bound / BATCH / adjoint.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1)


METHODS = [Method("cut (the default)", followed=False), Method("cut, relu", "relu", followed=False)]
for kind in ("straight_through", "relu"):
    suffix = ", relu" if kind == "relu" else ""
    METHODS += [
        Method(f"followed{suffix}", kind),
        *(Method(f"followed within {steps} steps{suffix}", kind, window=steps) for steps in (2, 5, 10)),
        *(Method(f"damped by {factor} a step{suffix}", kind, pass_back=damped(factor)) for factor in (0.3, 0.6)),
        *(
            Method(f"clipped to {bound} a neuron{suffix}", kind, pass_back=clipped(bound))
            for bound in (0.1, 0.01, 0.001)
        ),
        *(
            Method(f"norm of at most {bound} a sample{suffix}", kind, pass_back=shortened(bound))
            for bound in (1.0, 0.1)
        ),
    ]


# The methods that are tried with another cell.
AGAIN = {
    "cut (the default)",
    "cut, relu",
    "followed, relu",
    "followed within 5 steps, relu",
    "damped by 0.6 a step, relu",
    "clipped to 0.01 a neuron, relu",
    "norm of at most 1.0 a sample, relu",
    "norm of at most 0.1 a sample, relu",
}


class Passed(torch.autograd.Function):
    """The identity; its gradient passes through a function."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pass_back: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.pass_back = pass_back
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, None]:
        return ctx.pass_back(grad[0]), None


class Reader(nn.Module):
    """A layer with recurrent weights and a linear readout. Every method keeps the gradient through these weights."""

    def __init__(self, method: Method, cell: str) -> None:
        super().__init__()
        self.layer, self.method = make_layer("relu", surrogate=method.surrogate, cell=cell), method
        self.cell = CELLS[cell]
        self.readout = LinearReadout(NEURONS, 10, alpha=0.97)

    def forward(self, input: Tensor) -> Tensor:
        """The logits (B, 10) of currents (T, B, 28)."""
        if self.method.followed:
            spikes = torch.cat(list(self.steps(F.linear(input, self.layer.weight_ih_l0))))
        else:
            spikes, _ = self.layer(input)
        logits: Tensor = self.readout(spikes)
        return logits

    def steps(self, current: Tensor) -> Iterator[Tensor]:
        state = SRCState(*(x.expand_as(current[0]) for x in rest_state(self.layer.bias_l0.detach(), **self.cell)))
        for t, now in enumerate(current):
            heard = F.linear(state.h.relu(), self.layer.weight_hh_l0)
            spikes, state = functional.src(
                (now + heard)[None],
                self.layer.bias_l0,
                SRCState(state.i, *(self.passed(x, t) for x in state[1:])),
                surrogate=self.method.surrogate,
                full_gradient=True,
                alpha=self.layer.alpha_l0,
                **self.cell,
            )
            yield spikes

    def passed(self, x: Tensor, t: int) -> Tensor:
        """A state at step t, as passed to the next step."""
        if self.method.window and t % self.method.window == 0:
            return x.detach()
        if self.method.pass_back is not None and x.requires_grad:
            passed: Tensor = Passed.apply(x, self.method.pass_back)
            return passed
        return x


def train(method: Method, cell: str, rate: float, folder: Path, seed: int) -> tuple[float, float]:
    """Validation accuracy after two epochs, and the median norm of the gradient before it is clipped to 1."""
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(seed))
    train_set = data.load("mnist", folder).train
    chosen, held_out = order[:TRAINED_ON], order[-VALIDATED_ON:]
    torch.manual_seed(seed)
    model = Reader(method, cell)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    batches = -(-TRAINED_ON // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=EPOCHS * batches)
    norms = []
    for _ in range(EPOCHS):
        for some in chosen[torch.randperm(len(chosen))].split(BATCH):
            loss = F.cross_entropy(model(rows(train_set.images[some])), train_set.labels[some])
            optimizer.zero_grad()
            loss.backward()
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
            optimizer.step()
            schedule.step()
            model.layer.constrain_()
    with torch.no_grad():
        right = sum(
            int((model(rows(train_set.images[some])).argmax(1) == train_set.labels[some]).sum())
            for some in held_out.split(1000)
        )
    return right / VALIDATED_ON, float(torch.stack(norms).median())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cell", choices=CELLS, default="image")
    arguments = parser.parse_args()
    path, cell = RESULTS / "through_time.json", arguments.cell
    made: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if cell == "image":
        made["reach"] = reached(arguments.data)
    key = "training" if cell == "image" else cell
    made[key] = []
    for method in METHODS:
        if cell != "image" and method.label not in AGAIN:
            continue
        tried = []
        for rate in (1e-2, 2e-3):
            found = [train(method, cell, rate, arguments.data, seed) for seed in range(arguments.seeds)]
            accuracies, norms = zip(*found, strict=True)
            tried.append({"rate": rate, "accuracies": accuracies, "norm": statistics.mean(norms)})
            print(f"{method.label:40} {rate} {accuracies} {statistics.mean(norms):.3g}", flush=True)
        made[key].append({"method": method.label, "tried": tried})
        path.write_text(json.dumps(made) + "\n")


def reached(folder: Path) -> list[dict[str, Any]]:
    found = []
    digits = rows(data.load("mnist", folder).train.images[:BATCH])
    for lateral, surrogate, followed in itertools.product(LATERAL, ("straight_through", "relu"), (False, True)):
        norms = reach(digits, lateral, surrogate, followed, gain=2.0)
        found.append({"lateral": lateral, "surrogate": surrogate, "followed": followed, "norms": norms})
        print(lateral, surrogate, followed, *(f"{norms[d]:.3g}" for d in (0, 1, 5, 10, 50, 100)), flush=True)
    return found


if __name__ == "__main__":
    main()
