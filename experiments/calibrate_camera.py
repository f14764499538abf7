"""The camera of Neuromorphic-MNIST: the movement, the blur and the threshold that explain its recordings.

    python experiments/calibrate_camera.py --data FOLDER [--first 1 --last 200] [--part Train] [--write | --draw FOLDER]

FOLDER holds MNIST and N-MNIST as srcell.data.load finds them. The files of N-MNIST keep MNIST's numbers: NNNNN.bin
shows digit NNNNN - 1. In the recordings --first to --last, rising less falling events are counted, in each pixel and 5
ms. A moving picture (srcell.data.CameraEncoding) predicts these counts: the change of brightness over the threshold.
Least squares fit the movement (a point every 10 ms), the blur and the threshold. It prints them, and what prediction
and recordings, and recordings simulated with srcell.data.CameraEncoding, have in common in recordings 901 to 1000,
which it never fits. --write keeps that in experiments/results/camera.json. --draw only draws one of these recordings,
and a simulation of the same digit, as docs/_static/figures has them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from srcell import data

RESULTS = Path(__file__).resolve().parent / "results"

BIN, BINS, KNOT = 5, 64, 10  # ms, number, ms
SACCADE = 100  # ms
HELD_OUT = range(901, 1001)
SIZE, PICTURE = 34, 28


def nmnist(data: Path) -> Path:
    """The folder of N-MNIST among the data sets."""
    return next(path for path in (data, data / "NMNIST", data / "nmnist") if (path / "Train").is_dir())


def recordings(folder: Path, numbers: range) -> tuple[list[int], Tensor]:
    """The digits' numbers, and whether a pixel sends rising and falling events in each ms, (B, ms, 2, SIZE, SIZE)."""
    files = {int(path.stem): path for path in folder.glob("*/*.bin")}
    found = [number for number in numbers if number in files]
    events = torch.zeros(len(found), BIN * BINS, 2, SIZE, SIZE)
    for sample, number in enumerate(found):
        raw = np.fromfile(files[number], np.uint8).reshape(-1, 5).astype(np.int64)
        x, y, falls = raw[:, 0], raw[:, 1], raw[:, 2] >> 7
        time = ((raw[:, 2] & 127) << 16 | raw[:, 3] << 8 | raw[:, 4]) // 1000
        inside = time < BIN * BINS
        events[sample].numpy()[time[inside], falls[inside], y[inside], x[inside]] = 1
    return [number - 1 for number in found], events


def signed(events: Tensor) -> Tensor:
    """Rising less falling events in each BIN, (B, BINS, SIZE, SIZE)."""
    return (events[:, :, 0] - events[:, :, 1]).unflatten(1, (BINS, BIN)).sum(2)


def simulated(images: Tensor) -> Tensor:
    """As ``recordings``, by ``CameraEncoding``."""
    made = data.CameraEncoding(steps=BIN * BINS)(images).to_dense()
    return made.movedim(1, 0).unflatten(2, (2, SIZE, SIZE))


class Model(torch.nn.Module):
    """The signed counts that a moving picture makes."""

    def __init__(self) -> None:
        super().__init__()
        # What is published of the movement: three straight saccades of 100 ms, which return to their start.
        corners = torch.tensor([[2.5, 1.8], [1.0, -3.5], [-2.5, 1.5], [2.5, 1.8], [2.5, 1.8]])
        ends = torch.tensor([0.0, 10, 20, 30, 32])
        knots = torch.arange(BIN * BINS / KNOT + 1)
        after = torch.bucketize(knots, ends).clamp(1, 4)
        part = ((knots - ends[after - 1]) / (ends[after] - ends[after - 1]))[:, None]
        self.movement = torch.nn.Parameter(corners[after - 1] * (1 - part) + corners[after] * part)
        self.blur = torch.nn.Parameter(torch.tensor(0.7))
        self.gain = torch.nn.Parameter(torch.tensor(5.0))  # events per range of brightness

    def forward(self, pictures: Tensor) -> Tensor:
        far = torch.arange(-3.0, 4)
        row = torch.exp(-0.5 * (far / self.blur) ** 2)
        row = row / row.sum()
        blurred = torch.nn.functional.conv2d(pictures[:, None], (row[:, None] * row)[None, None], padding=3)
        x = torch.arange(SIZE) - (SIZE - PICTURE) / 2
        views = []
        for k in range(BINS + 1):
            place, part = divmod(k * BIN, KNOT)
            at = self.movement[place]
            if part:
                at = at + (self.movement[place + 1] - at) * (part / KNOT)
            column = (2 * (x + at[0]) + 1) / PICTURE - 1  # grid_sample's coordinates
            line = (2 * (x + at[1]) + 1) / PICTURE - 1
            grid = torch.stack(torch.broadcast_tensors(column[None, :], line[:, None]), -1)
            seen = torch.nn.functional.grid_sample(blurred, grid.expand(len(pictures), -1, -1, -1), align_corners=False)
            views.append(seen[:, 0])
        return self.gain * torch.stack(views, 1).diff(dim=1)


def correlation(a: Tensor, b: Tensor) -> float:
    """Of two arrays (B, BINS, ...), summed over 20 ms."""
    a, b = (x.unflatten(1, (-1, 20 // BIN)).sum(2).flatten() for x in (a, b))
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def draw(real: Tensor, made: Tensor, folder: Path) -> None:
    """Draw the events of a digit's two recordings, (1, ms, 2, SIZE, SIZE), in each of the three saccades."""
    sys.path[:0] = [str(RESULTS.parents[1] / part) for part in ("docs/_machinery", "bench", "tools")]
    import figures
    import matplotlib.style
    from matplotlib.colors import to_rgb
    from matplotlib.lines import Line2D

    for page in figures.INKS:
        with matplotlib.style.context(["default", figures.page_colours(page)]):
            figure = figures.Figure(figsize=(figures.WIDTH, 3.4), layout="constrained")
            rows = figure.subplots(2, 3)
            colours = {"brightness rises": figures.FAST, "falls": figures.SLOW}
            for row, name, events in zip(rows, ("real", "simulated"), (real, made), strict=True):
                row[0].set_ylabel(name, fontsize="medium")
                for k, panel in enumerate(row):
                    counts = events[0, k * SACCADE : (k + 1) * SACCADE].sum(0)  # (2, SIZE, SIZE)
                    share = counts / counts.sum(0).clamp(min=1)
                    mixed = torch.einsum("pyx,pc->yxc", share, torch.tensor([to_rgb(c) for c in colours.values()]))
                    seen = (counts.sum(0) / 4).clamp(max=1)  # 4 events and more are opaque
                    panel.imshow(torch.cat([mixed, seen[..., None]], 2), interpolation="nearest")
                    panel.set(xticks=[], yticks=[])
            for k, panel in enumerate(rows[0]):
                panel.set_title(f"{k * SACCADE} to {(k + 1) * SACCADE} ms", fontsize="medium")
            handles = [Line2D([], [], marker="s", linestyle="", color=c) for c in colours.values()]
            figure.legend(handles, list(colours), fontsize=9, loc="outside lower center", ncols=2)
            (folder / f"recordings-{page}.svg").write_text(figures.svg_of(figure, "recordings", ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--last", type=int, default=200)
    parser.add_argument("--part", choices=("Train", "Test"), default="Train")
    parser.add_argument("--rounds", type=int, default=80)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--draw", type=Path, metavar="FOLDER", help="draw recordings-light.svg and -dark.svg")
    arguments = parser.parse_args()
    folder = nmnist(arguments.data)
    digits = data.load("mnist", arguments.data)
    shown = (digits.train if arguments.part == "Train" else digits.test).images
    if arguments.draw:
        numbers, real = recordings(folder / arguments.part, HELD_OUT[:1])
        return draw(real, simulated(shown[numbers]), arguments.draw)
    numbers, events = recordings(folder / arguments.part, range(arguments.first, arguments.last + 1))
    model, pictures, counts = Model(), shown[numbers], signed(events)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=arguments.rounds, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (model(pictures) - counts).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    held, real = recordings(folder / arguments.part, HELD_OUT)
    made = simulated(shown[held])
    with torch.no_grad():
        found = {
            "movement": [[round(float(x), 2) for x in point] for point in model.movement],
            "blur": round(float(model.blur), 3),
            "threshold": round(1 / float(model.gain), 4),
            "correlation": {
                "prediction": round(correlation(model(shown[held]), signed(real)), 3),
                "simulation": round(correlation(signed(made), signed(real)), 3),
                "two simulations": round(correlation(signed(made), signed(simulated(shown[held].flip(0)).flip(0))), 3),
                "events of a digit": round(float(np.corrcoef(real.sum((1, 2, 3, 4)), made.sum((1, 2, 3, 4)))[0, 1]), 3),
            },
            "events": {
                name: {
                    "mean": round(float(x.sum((1, 2, 3, 4)).mean())),
                    "deviation": round(float(x.sum((1, 2, 3, 4)).std())),
                    "rising": round(float(x[:, :, 0].sum((1, 2, 3)).mean())),
                    "inputs": round(float((x.sum(1) > 0).float().sum((1, 2, 3)).mean())),
                    "each 20 ms": [round(float(n)) for n in x.unflatten(1, (-1, 20)).sum((2, 3, 4, 5)).mean(0)],
                }
                for name, x in (("real", real), ("simulated", made))
            },
        }
    print(json.dumps(found, indent=1))
    if arguments.write:
        (RESULTS / "camera.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
