"""Time the public calls that move data around the kernels, beside the time to copy what they read and write.

    python bench/corners.py [PART OF A NAME]     # a table in Markdown

Each call runs at a large and at a small size, forwards and, where it has a gradient, both ways. "copy" is the time to
clone its tensors, inputs and outputs (and, both ways, their gradients). Run it on an idle machine.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import srcell
from srcell import data, runtime
from srcell.evaluation import evaluate
from srcell.functional import count_spikes, leaky_readout
from srcell.functional.readout import scale_neurons
from srcell.models import SRCClassifier

SIZES = {"large": (220, 256, 784, 512), "small": (30, 4, 64, 32)}  # T, B, K, N
DENSITY, CLASSES, REPETITIONS = 0.03, 10, 9

Case = tuple[str, Callable[[], Any], list[Any], bool]  # name, call, what it reads, whether it has a gradient


def tensors_of(x: Any) -> Iterator[Tensor]:
    """All tensors and arrays in a value, as tensors."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, np.ndarray):
        yield torch.from_numpy(x) if x.flags.writeable else torch.from_numpy(x.copy())
    elif isinstance(x, srcell.EventBatch | runtime.Events):
        for part in (x.offsets, x.indices, x.values):
            yield from tensors_of(part)
    elif isinstance(x, list | tuple):
        for part in x:
            yield from tensors_of(part)


def cases(steps: int, batch: int, inputs: int, neurons: int) -> Iterator[Case]:
    """The calls at a size."""
    torch.manual_seed(0)
    x = (torch.rand(steps, batch, inputs) < DENSITY).float()
    graded = x * torch.rand_like(x)
    lengths = torch.randint(steps // 2, steps + 1, (batch,))
    events, with_lengths = srcell.EventBatch.from_dense(x), srcell.EventBatch.from_dense(x, lengths)
    images, spikes = torch.rand(batch, inputs), torch.rand(steps, batch, neurons)
    voters, learnt = torch.rand(steps, batch, 10 * CLASSES), spikes.clone().requires_grad_()
    yield "EventBatch.from_dense", lambda: srcell.EventBatch.from_dense(x), [x], False
    yield "EventBatch.from_dense, values", lambda: srcell.EventBatch.from_dense(graded), [graded], False
    yield "EventBatch.from_dense, lengths", lambda: srcell.EventBatch.from_dense(x, lengths), [x], False
    yield "EventBatch.to_dense", events.to_dense, [events], False
    yield "EventBatch[half]", lambda: events[: batch // 2], [events], False
    chosen = torch.randperm(batch)
    yield "EventBatch[permuted]", lambda: events[chosen], [events], False
    yield "EventBatch.cat of samples", lambda: srcell.EventBatch.cat([events[k] for k in range(batch)]), [events], False
    yield "EventBatch.truncate", lambda: events.truncate(steps // 2), [events], False
    yield "data.collate", lambda: data.collate([(events[k], k) for k in range(batch)]), [events], False
    yield "rate_encode", lambda: srcell.rate_encode(images, steps, seed=0, gain=DENSITY), [images], False
    yield "latency_encode", lambda: srcell.latency_encode(images, steps), [images], False
    for name, given in (("events", events), ("events, lengths", with_lengths), ("dense", x)):
        delay = srcell.Delay(inputs, steps // 4)
        yield f"Delay, {name}", lambda d=delay, g=given: d(g), [given], False
        yield f"Delay, {name}, no state", lambda d=delay, g=given: d(g, return_state=False), [given], False
    for kind, readout in (
        ("LinearReadout", srcell.LinearReadout(neurons, CLASSES)),
        ("LinearReadout, window", srcell.LinearReadout(neurons, CLASSES, window=min(20, steps))),
        ("LinearReadout, every step", srcell.LinearReadout(neurons, CLASSES, every_step=True)),
    ):
        yield kind, lambda r=readout: r(learnt), [learnt], True
        yield f"{kind}, lengths", lambda r=readout: r(learnt, lengths), [learnt], True
    votes = srcell.LeakyReadout(CLASSES)
    voting = voters.clone().requires_grad_()
    yield "LeakyReadout", lambda: votes(voting), [voting], True
    yield "LeakyReadout, lengths", lambda: votes(voting, lengths), [voting], True
    yield "leaky_readout, every step", lambda: leaky_readout(voting, CLASSES, every_step=True), [voting], True
    yield "count_spikes", lambda: count_spikes(spikes), [spikes], False
    factors = torch.rand(batch, neurons)
    yield "scale_neurons", lambda: scale_neurons(learnt, factors), [learnt], True
    samples = data.LabelledEvents(events, torch.zeros(batch, dtype=torch.int64))
    yield "EventLoader of recordings", lambda: list(data.EventLoader(samples, None, batch_size=32)), [events], False
    pixels = data.LabelledImages(images[:, None], torch.zeros(batch, dtype=torch.int64))
    encoding = data.RateEncoding(steps, DENSITY)
    yield "EventLoader of images", lambda: list(data.EventLoader(pixels, encoding, batch_size=32)), [images], False
    pairs = [(events[k], k) for k in range(batch)]
    loader = DataLoader(pairs, batch_size=32, collate_fn=data.collate)  # type: ignore[arg-type]
    yield "DataLoader with collate", lambda: list(loader), [events], False
    model = SRCClassifier(inputs, [neurons], CLASSES).eval()
    few = data.LabelledEvents(events[: min(batch, 64)], torch.zeros(min(batch, 64), dtype=torch.int64))
    few_loader = data.EventLoader(few, None, batch_size=64)
    yield (
        "evaluate (64 samples)",
        lambda: evaluate(model, few_loader),
        [few.events, *model.layer_spikes(few.events)],
        False,
    )
    path = Path(tempfile.mkdtemp()) / "net.srcell"
    weights = [x.detach() for x in model.state_dict().values()]
    yield "export", lambda: srcell.export(model, path), weights, False
    srcell.export(model, path)
    yield "runtime.load", lambda: runtime.load(path), weights, False
    net, array = runtime.load(path), x[:, : min(batch, 64)].numpy().copy()
    listed = runtime.Events.from_dense(array)
    yield "runtime.Events.from_dense (64)", lambda: runtime.Events.from_dense(array), [array], False
    yield "runtime run, events (64)", lambda: net.run(listed), [listed], False
    yield "runtime run, dense (64)", lambda: net.run(array), [array], False
    wave = torch.rand(min(batch, 32), 8000)
    sound = data.SoundEncoding()
    yield "SoundEncoding", lambda: sound(wave), [wave], False


def median(call: Callable[[], Any]) -> float:
    """The median of the milliseconds of a call, after one that warms up."""
    call()
    times = []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def main(part: str = "") -> None:
    """Print the table."""
    print("| call | size | forward, ms | copy | both, ms | copy |\n|---|---|---|---|---|---|")
    for size, sizes in SIZES.items():
        for name, call, given, learns in cases(*sizes):
            if part not in name:
                continue
            moved = [x.detach() for x in tensors_of([given, call()])]
            copy = median(lambda moved=moved: [x.clone() for x in moved])
            with torch.no_grad():
                forward = median(call)
            both = ""
            if learns:
                twice = median(lambda call=call, given=given: torch.autograd.grad(call().sum(), given[:1]))
                both = f"{twice:.3g} | {2 * copy:.3g}"
            print(f"| {name} | {size} | {forward:.3g} | {copy:.3g} | {both or '|'} |", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
