"""Compare trained networks in onnxruntime and in srcell on the 10,000 test digits: the figures of docs/howto/onnx.md.

    srcell train mnist --preset deep --epochs 3 --validation 0 --out runs/deep
    srcell train seqmnist-rows --hidden 256 --input-delay 0 --taps 1 --dropout 0 --epochs 3 --validation 0 \\
        --out runs/rows
    python experiments/rows/in_onnxruntime.py --data data --deep runs/deep --recurrent runs/rows

784-100 is the network in experiments/results/mnist-100. srcell encodes every digit and gets its events; onnxruntime
gets the same events as a dense tensor. A spike is an upward crossing of 0.5; the share of equal spikes is the number
that both have at the same step over the number that either has. For scale, srcell also runs with torch's matrix product
in place of events. The script takes two minutes on one core after the training, needs the extra `onnx` and onnxruntime,
and writes experiments/results/onnx.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import onnxruntime
import torch
from torch import Tensor, nn

import srcell
from srcell import EventBatch, data
from srcell.models import Classifier
from srcell.onnx import export
from srcell.ops import src_dense

RESULTS = Path(__file__).resolve().parent.parent / "results"
BATCH = 250
Outputs = list[Tensor]


class AllSpikes(nn.Module):
    """A network that returns its logits and the spikes of its layers."""

    def __init__(self, net: Classifier) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor | EventBatch) -> tuple[Tensor, ...]:
        spikes = self.net.layer_spikes(input)
        return self.net.readout(spikes[-1]), *spikes


class Tally:
    """Counts the answers and spikes of one method of running a network, and compares them with srcell on events."""

    def __init__(self, run: Callable[[EventBatch], Outputs]) -> None:
        self.run = run
        self.right = self.agreeing = self.samples = 0
        self.layers: list[Tensor] = []

    def add(self, events: EventBatch, labels: Tensor, expected: Outputs) -> None:
        logits, *spikes = self.run(events)
        answers = logits.argmax(1)
        self.right += int((answers == labels).sum())
        self.agreeing += int((answers == expected[0].argmax(1)).sum())
        self.samples += len(labels)
        found = [_compare(*pair) for pair in zip(spikes, expected[1:], strict=True)]
        self.layers = [a + b for a, b in zip(self.layers, found, strict=True)] if self.layers else found

    def figures(self) -> dict[str, float]:
        both, either, equal, elements = sum(self.layers).tolist()
        return {
            "accuracy": self.right / self.samples,
            "equal_answers": self.agreeing / self.samples,
            "equal_spikes": both / either,
            "equal_spikes_last_layer": float(self.layers[-1][0] / self.layers[-1][1]),
            "equal_elements": equal / elements,
        }


def _compare(spikes: Tensor, expected: Tensor) -> Tensor:
    """Counts: spikes that both have, spikes that either has, elements on the same side of 0.5, all elements."""
    above = [x > 0.5 for x in (spikes, expected)]
    first, second = (torch.cat([x[:1], x[1:] & ~x[:-1]]) for x in above)
    counts = [(first & second).sum(), (first | second).sum(), (above[0] == above[1]).sum()]
    return torch.stack([*counts, torch.tensor(spikes.numel())])


def onnx_session(model: AllSpikes, example: Tensor) -> Callable[[EventBatch], Outputs]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with TemporaryDirectory() as folder:
        export(model, f"{folder}/net.onnx", example)
        session = onnxruntime.InferenceSession(f"{folder}/net.onnx", options, providers=["CPUExecutionProvider"])
    return lambda events: [torch.from_numpy(x) for x in session.run(None, {"input": events.to_dense().numpy()})]


def by_product(model: AllSpikes, events: EventBatch) -> Outputs:
    """The network with torch's product in place of sums of events."""
    with mock.patch.object(src_dense, "takes_events", lambda *arguments, **options: False):
        return list(model(events.to_dense()))


def row(name: str, run: Path, folder: Path) -> dict[str, Any]:
    net = srcell.load(run)
    model = AllSpikes(net)
    test = data.load(net.config.dataset, folder).test
    ways = {
        "onnx": Tally(onnx_session(model, torch.zeros(2, 2, *net.input_shape))),
        "product": Tally(lambda events: by_product(model, events)),
    }
    right = 0
    for events, labels in data.EventLoader(test, net.encoder, batch_size=BATCH):
        expected = list(model(events))
        right += int((expected[0].argmax(1) == labels).sum())
        for tally in ways.values():
            tally.add(events, labels, expected)
    figures = {way: tally.figures() for way, tally in ways.items()}
    accuracy, there = right / len(test.labels), figures["onnx"]
    print(f"{name:10}{accuracy:10.2%}{there['accuracy']:10.2%}{there['equal_spikes']:10.2%}", flush=True)
    return {
        "network": name,
        "dataset": net.config.dataset,
        "epochs": net.config.epochs,
        "samples": len(test.labels),
        "steps": events.shape[0],
        "accuracy": accuracy,
        **figures,
    }


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--deep", type=Path, required=True, help="run folder of a deep network")
    parser.add_argument("--recurrent", type=Path, required=True, help="run folder of a recurrent network")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = {"784-100": RESULTS / "mnist-100", "deep": arguments.deep, "lateral": arguments.recurrent}
    rows = [row(name, run, arguments.data) for name, run in runs.items()]
    versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
    (RESULTS / "onnx.json").write_text(json.dumps({**versions, "threads": 1, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
