"""The fuzz target on learners: ``srcell.runtime.Learner`` over networks, batches and targets of any kind."""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

import srcell
from fuzz.draws import Draw
from fuzz.facts import attempt
from srcell import SRC, EventBatch, LeakyReadout, LinearReadout, runtime
from support.networks import exported

INPUTS, CLASSES = 3, 2


@functools.cache
def network(kind: int) -> runtime.Network:
    torch.manual_seed(kind)
    neurons = (1, 6, 140, 4)[kind % 4]
    readout = (
        LinearReadout(neurons, CLASSES, 0.9, window=kind % 3)
        if neurons % 2 or kind % 2
        else LeakyReadout(2, neurons // 2)
    )
    layers: list[nn.Module] = [SRC(INPUTS, 5, recurrent=kind % 3 == 0, omega=0.3 * (kind % 2))] if kind % 5 else []
    last = SRC(5 if layers else INPUTS, neurons, surrogate="relu" if kind % 2 else "straight_through", bias_max=-3.0)
    return exported(srcell.Sequential(*layers, last, readout))


def learner(draw: Draw) -> None:
    """A step that is refused changes nothing; one that is taken has the same bits after the state was restored."""
    net = network(draw.randrange(12))
    settings = {"learning_rate": draw.pick(1e-3, 1.0, 1e3, 1e30), "layers": draw.pick("all", "all", "readout")}
    settings |= {
        "clip_norm": draw.pick(1.0, 0.0, 1e-30),
        "classes": draw.pick(None, None, None, ["a", "b"], ["é", '"']),
    }
    spoilt = draw.spoil(settings, 15)
    made = attempt(net.learner, settings, spoilt or net.num_classes == CLASSES, "network")
    other = attempt(net.learner, settings, spoilt)
    for _ in range(draw.pick(1, 3)):
        steps, batch = draw.pick(1, 5, 40), draw.pick(1, 2, 17)
        lengths = draw.lengths(steps, batch) if draw.chance(40) else None
        events = EventBatch.from_dense(draw.spikes(steps, batch, INPUTS), lengths)
        rows = (batch, steps) if draw.chance(40) else (batch,)
        if draw.chance(50):
            targets = torch.tensor([draw.randrange(CLASSES) for _ in range(math.prod(rows))]).view(rows)
        else:
            targets = draw.floats(*rows, CLASSES, wild=10)
        given = {"events": events, "targets": targets, "threads": draw.pick(None, 1, 3)}
        wrong = draw.spoil(given, 25)
        before = made.save()
        try:
            loss = attempt(
                made.step, given, True, "loss", "gradient", "batch", "steps", "indices", "offsets", "values", "input"
            )
        except Exception:
            assert made.save() == before
            raise
        assert math.isfinite(loss) or wrong
        other.restore(before)
        assert other.step(**given) == loss
        assert other.save() == made.save()
    runtime.Network(made.network()._network.file)
