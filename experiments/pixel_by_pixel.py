"""Time one step of the network that reads permuted digits pixel by pixel, beside a GRU cell of as many parameters.

    python experiments/pixel_by_pixel.py --data FOLDER [--run experiments/results/psmnist] [--digits 50]

The network is exported from a run folder and run by ``srcell.runtime`` as a stream: one pixel, one call. The
cell is ``nn.GRUCell`` without gradients, its weights untrained, for its time does not depend on them. Both have one
thread and one digit at a time. Writes experiments/results/pixel-by-pixel.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import srcell
from srcell.training import RunOptions, load_data

RESULTS = Path(__file__).resolve().parent / "results"


def microseconds(digit: Callable[[Tensor], object], pixels: Tensor) -> float:
    """The median over the digits (count, T) of the mean time of a step, after one digit that is not timed."""
    digit(pixels[0])
    taken = []
    for of_digit in pixels:
        begin = time.perf_counter()
        digit(of_digit)
        taken.append(1e6 * (time.perf_counter() - begin) / len(of_digit))
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--run", type=Path, default=RESULTS / "psmnist", help="run folder")
    parser.add_argument("--digits", type=int, default=50)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = srcell.load(arguments.run)
    test = load_data(model.config, RunOptions(data=arguments.data)).test
    pixels, labels = test.values[: arguments.digits, :, 0].contiguous(), test.labels[: arguments.digits]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "net.srcell"
        model.export(file)
        network, size = srcell.runtime.load(file), file.stat().st_size
    stream, nothing, first = network.stream(), np.zeros(0, np.int32), np.zeros(1, np.int32)

    def read(digit: Tensor) -> int:
        stream.reset()
        for pixel in digit.numpy():
            if pixel:
                stream.step(first, np.array([pixel]))
            else:
                stream.step(nothing)
        return int(stream.logits().argmax())

    parameters = sum(value.numel() for value in model.parameters())
    hidden = round((math.sqrt(19**2 + 12 * parameters) - 19) / 6)  # 3 h^2 + 9 h of the cell, 10 h of a readout
    cell = nn.GRUCell(1, hidden).eval()

    @torch.no_grad()
    def read_by_cell(digit: Tensor) -> Tensor:
        state = torch.zeros(1, hidden)
        for pixel in digit[:, None, None]:
            state = cell(pixel, state)
        return state

    gru_parameters = sum(value.numel() for value in cell.parameters()) + 10 * hidden + 10
    right = sum(read(digit) == label for digit, label in zip(pixels, labels.tolist(), strict=True))
    counts = network.counts(pixels.T[..., None].numpy())
    result = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "digits": len(pixels),
        "right": right,
        "steps": pixels.shape[1],
        "srcell": {
            "parameters": parameters,
            "microseconds": microseconds(read, pixels),
            "file_bytes": size,
            "state_bytes": len(stream.save()),
            "synops": sum(layer.synaptic_operations for layer in counts) / pixels.shape[1],
        },
        "gru": {
            "parameters": gru_parameters,
            "microseconds": microseconds(read_by_cell, pixels),
            "file_bytes": 4 * gru_parameters,
            "state_bytes": 4 * hidden,
            "synops": 3 * hidden * (hidden + 1),
        },
    }
    print(json.dumps(result, indent=1))
    (RESULTS / "pixel-by-pixel.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
