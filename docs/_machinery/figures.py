"""The figures of README.md and the documentation, drawn by srcell itself, narrow enough for a phone.

``pages.py`` calls ``write_figures``, which draws each for a light and for a dark page. What they show is computed in
float64: torch's last bits depend on the processor and shall not reach the files. Only the figures of trained networks
differ from one processor to another; they are drawn again if their program changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import io
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accuracy_tables
import matplotlib
import matplotlib.style
import numpy as np
import report
import rooms  # tools/rooms.py
import torch
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.colors import to_rgb, to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.spines import Spine
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator
from torch import Tensor

import srcell
from srcell import IntegerCell, IntegerState, ResonantState, SRCState, integer_src_linear, rest_state, src
from srcell.data import CameraEncoding

BIAS, RHO, R, RS = -6.0, 3.0, 2.0, -7.0
WIDTH = 4.2  # inches: text of 10 points has 11 pixels on a phone
GALLERY = report.ROOT / "docs" / "gallery"
PACKAGE = report.ROOT / "python" / "srcell"
INPUT, FAST, SLOW, DRIVE = "0.5", "C3", "C0", "C1"


def run_by_steps(current: Tensor, state: SRCState, alpha: float = 0.9) -> tuple[Tensor, Tensor, Tensor]:
    """i, h and hs after each step, (T, B), of B neurons under currents (T, B) from a state (B, 1)."""
    seen = []
    for now in current.unsqueeze(2).split(1):
        _, state = src(now, BIAS, state, alpha=alpha)
        seen.append([x[:, 0] for x in state])
    i, h, hs = (torch.stack(x) for x in zip(*seen, strict=True))
    return i, h, hs


def at_rest(neurons: int = 1) -> SRCState:
    """Where neurons without input stay."""
    return SRCState(*(x.to(torch.float64).expand(neurons, 1) for x in rest_state(torch.tensor(BIAS).double())))


def current_for(drive: float) -> float:
    """The current of a single step without leak that gives the drive x = rho tanh(c / rho)."""
    return float(RHO * torch.atanh(torch.tensor(drive / RHO, dtype=torch.float64)))


def one_spike() -> Figure:
    """A strong input, the spike that it starts, and the refractory time in which a second one is lost."""
    current = torch.zeros(70, 1, dtype=torch.float64)
    kicks = [5, 9, 45]
    current[kicks] = 5.0
    i, h, hs = run_by_steps(current, at_rest())
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    above, middle, below = figure.subplots(3, 1, sharex=True, height_ratios=[1, 1.3, 2.4])
    steps = range(len(current))
    above.stem(kicks, [5.0] * 3, linefmt=INPUT, markerfmt="o", basefmt=" ")
    above.set(ylabel="current c", ylim=(0, 6))
    middle.plot(steps, RHO * torch.tanh(i / RHO), ".-", color=DRIVE, label="drive x")
    middle.set(ylabel="drive x", ylim=(0, RHO))
    below.plot(steps, hs, ".-", color=SLOW, label="slow state hs")
    below.plot(steps, h, ".-", color=FAST, label="fast state h")
    below.plot(steps, h.clamp(min=0), color=ink(), linewidth=3, alpha=0.35, label="output s = max(h, 0)")
    below.set(xlabel="step t", ylabel="state", ylim=(-1.08, 1.08))
    figure.legend(*below.get_legend_handles_labels(), fontsize=9, loc="outside upper center", ncols=2)
    for panel in (above, middle, below):
        panel.grid(alpha=0.3)
    return figure


def phase_portrait() -> Figure:
    """The plane of h and hs: without input one stable point, under a steady drive a cycle of spikes."""
    figure = Figure(figsize=(WIDTH, 8.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    draw_plane(panels[0], 0.0)
    kick = torch.zeros(60, 1, dtype=torch.float64)
    kick[0] = current_for(2.999)
    draw_orbit(panels[0], kick)
    panels[0].set_title("x = 0, after a step of x = 3: a spike, then rest", fontsize="medium")
    draw_plane(panels[1], 2.5)
    draw_orbit(panels[1], torch.full((120, 1), current_for(2.5), dtype=torch.float64))
    panels[1].set_title("x = 2.5 all the time: a spike every 21 or 22 steps", fontsize="medium")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=9, loc="outside upper center", ncols=2)
    return figure


def draw_plane(panel: Axes, drive: float) -> None:
    """Where a step leads from every point, and the two lines on which h or hs stays as it is."""
    grid = torch.linspace(-0.95, 0.95, 15, dtype=torch.float64)
    h, hs = (x.flatten() for x in torch.meshgrid(grid, grid, indexing="xy"))
    before = SRCState(torch.zeros(len(h), 1, dtype=torch.float64), h[:, None], hs[:, None])
    _, (_, after, slow_after) = src(torch.full_like(h, current_for(drive))[None, :, None], BIAS, before, alpha=0.0)
    dh, dhs = after[:, 0] - h, slow_after[:, 0] - hs
    length = (dh.square() + dhs.square()).sqrt().clamp(min=1e-9)
    shrink = length.clamp(max=0.1) / length
    arrows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.003, "color": "0.6"}
    panel.quiver(h, hs, dh * shrink, dhs * shrink, **arrows)
    line = torch.linspace(-0.99999, 0.99999, 4001, dtype=torch.float64)
    panel.plot(line, (torch.atanh(line) - drive - R * line - BIAS) / RS, color=FAST, label="h stays: h = tanh(u)")
    panel.plot(line, line, color=SLOW, label="hs stays: hs = h")
    panel.set(xlabel="fast state h", ylabel="slow state hs", xlim=(-1.08, 1.08), ylim=(-1.08, 1.08), aspect="equal")
    panel.xaxis.set_tick_params(labelbottom=True)


def draw_orbit(panel: Axes, current: Tensor) -> None:
    """The states that a neuron at rest goes through under the currents (T, 1), without leak."""
    rest = at_rest()
    _, h, hs = run_by_steps(current, rest, alpha=0.0)
    h, hs = torch.cat([rest.h, h]).flatten(), torch.cat([rest.hs, hs]).flatten()
    panel.plot(h, hs, color=ink(), linewidth=0.8, alpha=0.4)
    panel.plot(h, hs, ".", color=ink(), markersize=6, label="a neuron, a dot a step")
    panel.plot(h[:1], hs[:1], "o", color=ink(), markersize=9, fillstyle="none", label="its start, at rest")


def neuron() -> Figure:
    """What the README begins with: an input, the spike that it starts, and the same spike in the plane of h and hs."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9.2, 3.7), layout="constrained")
        draw_neuron(figure, *figure.subplots(1, 2, width_ratios=[1.75, 1]), columns=5)
        return figure


def neuron_narrow() -> Figure:
    """The same for a phone, one panel under the other."""
    with matplotlib.rc_context({"font.size": 10}):
        figure = Figure(figsize=(WIDTH, 7.2), layout="constrained")
        draw_neuron(figure, *figure.subplots(2, 1, height_ratios=[1, 1.15]), columns=2)
        return figure


def draw_neuron(figure: Figure, traces: Axes, plane: Axes, columns: int) -> None:
    """The two panels of ``neuron``, and a legend of that many columns."""
    current = torch.zeros(60, 1, dtype=torch.float64)
    current[[8, 13, 40]] = 5.0
    i, h, hs = run_by_steps(current, at_rest())
    steps = range(len(current))
    for step in current.flatten().nonzero().flatten().tolist():
        traces.axvline(step, color=INPUT, linewidth=3, alpha=0.45, label="input spike" if step == 8 else None)
    traces.plot(steps, torch.tanh(i / RHO), ":", color=DRIVE, label="drive tanh(i / rho)")
    traces.plot(steps, hs, ".-", color=SLOW, markersize=4, label="slow state hs")
    traces.plot(steps, h, ".-", color=FAST, markersize=4, label="fast state h")
    traces.fill_between(steps, h.clamp(min=0).flatten(), color=FAST, alpha=0.25, label="output s = max(h, 0)")
    traces.set(xlabel="step", ylabel="state", ylim=(-1.08, 1.08), xlim=(0, 59))
    traces.text(19, 0.04, "refractory:\nthe second\ninput is lost", fontsize=9)
    traces.text(27, -0.62, "hs", color=SLOW)
    traces.text(27, -0.92, "h", color=FAST)
    traces.set_title("a neuron in time", fontsize="medium")
    figure.legend(fontsize=9, loc="outside lower left", framealpha=0, ncols=columns)
    kick = torch.zeros(60, 1, dtype=torch.float64)
    kick[0] = current_for(2.999)
    draw_plane(plane, 0.0)
    draw_orbit(plane, kick)
    plane.text(0.1, 0.3, "hs stays", color=SLOW, rotation=45, rotation_mode="anchor")
    plane.text(-0.2, -0.65, "h stays", color=FAST)
    plane.set_title("a spike in the plane of its two states", fontsize="medium")


def rate_of_drive() -> Figure:
    """How active a neuron is under a steady integrated input."""
    inputs = torch.arange(161, dtype=torch.float64) / 20
    # The integrator is at its fixed point from the first step on: i = 0.9 i + c.
    rest = at_rest(len(inputs))._replace(i=inputs[:, None].clone())
    spikes, _ = src((0.1 * inputs).expand(4000, -1)[:, :, None], BIAS, rest)
    settled = spikes[1000:, :, 0]
    high = settled > 0.5
    crossings = (high[1:] & ~high[:-1]).double().mean(0)
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    panel.plot(inputs, 100 * (settled > 0).double().mean(0), color=FAST, label="active steps, s > 0")
    panel.plot(inputs, 100 * crossings, color=ink(), label="spikes, upward crossings of 0.5")
    panel.set(xlabel="integrated input i, held", ylabel="per 100 steps", xlim=(0, 8), ylim=(0, None))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9)
    return figure


def spread_constants() -> Figure:
    """The time constants of ``srcell.spread`` over a layer, and what each leaves of an input."""
    alpha = srcell.SRC(1, 64, alpha=srcell.spread(0.5, 0.99), dtype=torch.float64).alpha_l0
    figure = Figure(figsize=(WIDTH, 2.9), layout="constrained")
    constants, left = figure.subplots(1, 2)
    constants.semilogy(range(64), 1 / (1 - alpha), ".", color=SLOW)
    constants.set(xlabel="neuron", ylabel="time constant (steps)")
    steps = torch.arange(113)
    for neuron in range(0, 64, 9):
        left.plot(steps, alpha[neuron] ** steps, color=DRIVE, alpha=0.3 + 0.7 * neuron / 63)
    left.set(xlabel="steps after an input", ylabel="left of it", xlim=(0, 112), ylim=(0, 1))
    for panel in (constants, left):
        panel.grid(alpha=0.3)
    return figure


def resonance() -> Figure:
    """One resonant neuron under pulses of its own rhythm and of another."""
    steps, cell = 170, {"alpha": 0.95, "omega": 0.52}
    figure = Figure(figsize=(WIDTH, 6.2), layout="constrained")
    panels = figure.subplots(4, 2, sharex=True, sharey="row", height_ratios=[1, 1.6, 1.6, 1.6])
    for (above, *middle, below), period in zip(panels.T, (12, 18), strict=True):
        current = torch.zeros(steps, 1, 1)
        current[20::period] = 0.5
        state = ResonantState(*(x.expand(1, 1) for x in rest_state(torch.tensor([BIAS]), **cell)))
        seen = []
        for now in current.split(1):
            _, state = src(now, BIAS, state, **cell)
            seen.append(state)
        i, h, _, q = (torch.cat(x).flatten() for x in zip(*seen, strict=True))
        kicks = range(20, steps, period)
        above.stem(kicks, [0.5] * len(kicks), linefmt=INPUT, markerfmt=".", basefmt=" ")
        above.set(ylim=(0, 0.7))
        above.set_title(f"pulses every {period} steps", fontsize="medium")
        for panel, turning, colour in zip(middle, (i, q), (DRIVE, SLOW), strict=True):
            panel.plot(turning, color=colour)
            panel.set(ylim=(-0.9, 1.2))
        below.plot(h, color=FAST)
        below.set(xlabel="step t", ylim=(-1.08, 1.08))
        for panel in (above, *middle, below):
            panel.grid(alpha=0.3)
    for panel, name in zip(panels[:, 0], ("current c", "integrator i", "q", "fast state h"), strict=True):
        panel.set(ylabel=name)
    figure.align_ylabels()
    return figure


def delays() -> Figure:
    """The intervals at which the delays of two inputs let their spikes arrive together: experiments/accuracy.py."""
    found = json.loads((report.RESULTS / "intervals-delays.json").read_text())
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    for panel, (when, text) in zip(panels, (("before", "drawn"), ("after", "learnt")), strict=True):
        first, second = (torch.tensor(of_input, dtype=torch.float64) for of_input in found[when])
        apart = (first[:, None] - second).flatten()
        apart = apart[apart >= 0]
        for interval in range(6, 61, 6):
            panel.axvline(interval, color=INPUT, linewidth=0.8)
        spread = torch.linspace(-1, 1, len(apart), dtype=torch.float64)  # so that dots do not hide each other
        panel.scatter(apart, spread, s=12, color=DRIVE if when == "after" else SLOW)
        panel.set(ylabel=text, yticks=[], ylim=(-1.3, 1.3), xlim=(-2, 65), xticks=range(0, 61, 6))
    panels[1].set(xlabel="interval at which two spikes arrive together\n(steps); lines: the classes")
    return figure


def gradient_reach() -> Figure:
    """The norm of the gradient against the distance in time, of each way to take it: experiments/through_time.py."""
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colors = {None: DRIVE, "relu": SLOW, "straight_through": FAST}
    names = {None: "no recurrent weights", "relu": "recurrent, relu", "straight_through": "recurrent, straight-through"}
    for found in json.loads((report.RESULTS / "through_time.json").read_text())["reach"]:
        through = found["surrogate"] == "straight_through"
        label = names[found["lateral"]] if through else None
        panel = panels[int(found["followed"])]
        panel.semilogy(found["norms"], "-" if through else ":", color=colors[found["lateral"]], label=label)
    for panel, title in zip(panels, ("h and hs cut (default)", "h and hs followed"), strict=True):
        panel.set(xlabel="steps back", xlim=(0, 102))
        panel.set_title(title, fontsize="medium")
        panel.grid(alpha=0.3)
    panels[0].set(ylabel="norm of the gradient")
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=9, loc="outside upper center", ncols=2)
    return figure


def accuracies() -> Figure:
    """The most accurate network of the first table of docs/accuracy.md for each data set: experiments/accuracy.py."""
    best: dict[str, float] = {}
    for row in json.loads((report.RESULTS / "accuracy.json").read_text()):
        data = row["data"].partition(" (")[0]
        if accuracy_tables.in_first_table(row["id"]):
            best[data] = max(best.get(data, 0), 100 * row["test_accuracy"])
    names = sorted(best, key=best.__getitem__)
    figure = Figure(figsize=(WIDTH, 0.35 * len(names) + 0.7), layout="constrained")
    panel = figure.subplots()
    panel.hlines(names, 88, [best[name] for name in names], color=SLOW, linewidth=2, alpha=0.4)
    panel.plot([best[name] for name in names], names, "o", color=SLOW)
    for name in names:
        panel.annotate(f"{best[name]:.2f}", (best[name], name), (7, 0), textcoords="offset points", va="center")
    panel.set(xlabel="test accuracy (%), from 88", xlim=(88, 101), xticks=range(88, 101, 4))
    panel.spines[["top", "right"]].set_visible(False)
    return figure


COSTS = {"operations": (1,), "microseconds": (1, 2, 5)}  # of an inference; where a decade has ticks


def cost() -> Figure:
    """Score against operations and against time, for three layers of three sizes on four tasks: experiments/cost.py."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(9.2, 4.6), layout="constrained")
        draw_costs(figure, figure.subplots(2, 4, sharey="col").T, columns=4)
        return figure


def cost_narrow() -> Figure:
    """The same for a phone: a row for each task."""
    with matplotlib.rc_context({"font.size": 9}):
        figure = Figure(figsize=(WIDTH, 7.6), layout="constrained")
        draw_costs(figure, figure.subplots(4, 2, sharey="row"), columns=2)
        return figure


def draw_costs(figure: Figure, panels: Any, columns: int) -> None:
    """A row of two panels for each task, and a legend of that many columns."""
    styles = {"src": (SLOW, "o-"), "src-sparse": (SLOW, "o:"), "lif": (DRIVE, "s-"), "gru": (INPUT, "^-")}
    names = {"src": "SRC", "src-sparse": "SRC, rates penalised", "lif": "recurrent LIF", "gru": "GRU (does not spike)"}
    for row, (task, kinds) in zip(panels, report.costs().items(), strict=True):
        for panel, (key, ticks) in zip(row, COSTS.items(), strict=True):
            for kind, found in kinds.items():
                points = [(each[key], each["score"]) for _, each in sorted(found.items())]
                colour, style = styles[kind]
                panel.plot(*zip(*points, strict=True), style, color=colour, markersize=4, label=names[kind])
            panel.set(xscale="log", xlabel=key)
            panel.xaxis.set_major_locator(FixedLocator([tick * 10**power for power in range(9) for tick in ticks]))
            panel.xaxis.set_major_formatter(EngFormatter(sep=""))
            panel.xaxis.set_minor_locator(NullLocator())
            panel.grid(alpha=0.3)
        row[0].set_ylabel("R2" if task == "frequency" else "accuracy (%)")
        row[0].set_title(task, fontsize="medium")
    figure.suptitle("an inference on one core: better is up and to the left", fontsize="medium")
    figure.legend(*row[0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, framealpha=0)


def camera() -> Figure:
    """The path of the camera of Neuromorphic-MNIST, and events over time, real and simulated."""
    figure = Figure(figsize=(WIDTH, 5.4), layout="constrained")
    path, course = figure.subplots(2, 1, height_ratios=[1.3, 1])
    _, across, down = zip(*CameraEncoding().movement, strict=True)
    path.plot(across, down, ".-", color=SLOW)
    for k, away in ((0, (8, -4)), (10, (8, 6)), (20, (-4, -16))):
        path.annotate(f"{10 * k} ms", (across[k], down[k]), away, textcoords="offset points", fontsize=9)
    path.set(xlabel="pixels across", ylabel="pixels down", aspect="equal", title="the path of the view")
    path.invert_yaxis()
    path.margins(0.15)
    events = json.loads((report.RESULTS / "camera.json").read_text())["events"]
    for name, colour in (("real", ink()), ("simulated", FAST)):
        course.stairs(events[name]["each 20 ms"], 20 * np.arange(17), color=colour, label=name)
    course.set(xlabel="ms", ylabel="events in 20 ms", title="events of a digit, mean of 100")
    course.legend(fontsize=9)
    return figure


def float_and_integer() -> Figure:
    """The float and the integer neuron under one input: an excitation too weak for the float one, an inhibition, and a
    strong excitation.
    """
    scale, current = 8, torch.zeros(150, dtype=torch.float64)
    current[[10, 65, 95]] = torch.tensor([0.5, -2.0, 4.0], dtype=torch.float64)
    i, h, hs = run_by_steps(current[:, None], at_rest())
    cell = IntegerCell()
    state = IntegerState(*(torch.full((1, 1), x, dtype=torch.int16) for x in (0, cell.h_min, cell.hs_min)))
    spikes, seen = [], []
    for now in (scale * current).to(torch.int16):
        emitted, state = integer_src_linear(torch.ones(1, 1, 1), now.reshape(1, 1), state)
        spikes.append(emitted.flatten())
        seen.append(torch.cat([x.flatten() for x in state]))
    whole_i, whole_h, whole_hs = torch.stack(seen).unbind(1)
    figure = Figure(figsize=(WIDTH, 7.4), layout="constrained")
    above, real, whole = figure.subplots(3, 1, sharex=True, height_ratios=[1.3, 2, 2])
    steps = range(len(current))
    above.axhline(0, color=INPUT, linewidth=0.8)
    above.plot(steps, scale * i[:, 0], ":", color=DRIVE, label=f"i of the float neuron, times {scale}")
    above.plot(steps, whole_i, "-", color=DRIVE, label="i of the integer neuron")
    above.set(ylabel="integrator i")
    real.plot(steps, hs, ".-", color=SLOW, markersize=4, label="slow state hs")
    real.plot(steps, h, ".-", color=FAST, markersize=4, label="fast state h")
    real.fill_between(steps, h.flatten(), where=h.flatten() > 0, interpolate=True, color=FAST, alpha=0.25)
    real.set(ylabel="float neuron", ylim=(-1.08, 1.08))
    whole.plot(steps, whole_hs, ".-", color=SLOW, markersize=4)
    whole.plot(steps, whole_h, ".-", color=FAST, markersize=4)
    for step in torch.cat(spikes).nonzero().flatten().tolist():
        whole.axvspan(step - 0.5, step + 0.5, color=FAST, alpha=0.25, linewidth=0)
    whole.set(ylabel="integer neuron", ylim=(-1106, 1106), yticks=range(-1024, 1025, 512), xlabel="step t")
    for panel in (above, real, whole):
        panel.grid(alpha=0.3)
    figure.legend(fontsize=9, loc="outside upper center", ncols=2)
    return figure


# What each row of the picture of the package has, from users down; files that only re-export or help are left out.
ROWS = (("cli",), ("hardware", "training", "benchmark"), ("data", "evaluation", "reference"), ("models",), ("layers",))
ROWS += (("functional",), ("events",), ("ops",))
ARROW: dict[str, Any] = {"arrowstyle": "->", "color": "0.45", "shrinkA": 2, "shrinkB": 2}


def rooms_of_the_package() -> Figure:
    """The rooms of the package; an arrow goes from each to those that it imports."""
    imports = rooms.rooms_of(rooms.imports_of(PACKAGE))
    figure = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    panel = figure.subplots()
    at, boxes = {}, {}
    for row, names in enumerate(ROWS):
        for k, name in enumerate(names):
            at[name] = (0.5 + (k - (len(names) - 1) / 2) * 0.4, -float(row))
            box = {"boxstyle": "round,pad=0.45", "facecolor": "none", "edgecolor": "0.5"}
            written = panel.text(*at[name], name, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
            boxes[name] = written.get_bbox_patch()
    for name, (x, y) in at.items():
        for other in sorted(imports[name] & at.keys()):
            # What is reached through another room needs no arrow of its own.
            if any(other in reachable(imports, between) for between in imports[name] & at.keys() - {other}):
                continue
            ends = {"patchA": boxes[name], "patchB": boxes[other]}
            panel.annotate("", at[other], (x, y), arrowprops=ARROW | ends)
    panel.text(0.5, -float(len(ROWS)), "csrc/: the compiled modules", ha="center", va="center", fontsize=9)
    panel.annotate("", (0.5, 0.25 - len(ROWS)), at["ops"], arrowprops=ARROW | {"patchA": boxes["ops"]})
    panel.set(xlim=(0, 1), ylim=(-len(ROWS) - 0.4, 0.6))
    panel.axis("off")
    return figure


def reachable(imports: dict[str, set[str]], room: str) -> set[str]:
    """All rooms that a room imports, directly or through others."""
    found: set[str] = set()
    left = set(imports[room])
    while left:
        name = left.pop()
        found.add(name)
        left |= imports[name] - found
    return found


@functools.cache
def pictures_of(example: str) -> list[bytes]:
    """The variable ``figure`` after each cell of an example of the gallery, pickled: each use gets a copy."""
    names: dict[str, Any] = {}
    found = []
    with matplotlib.style.context("default"), contextlib.redirect_stdout(io.StringIO()):
        for cell in (GALLERY / f"plot_{example}.py").read_text().split("\n# %%\n"):
            exec(cell, names)
            found.append(pickle.dumps(names.get("figure")))
    return found


def of_gallery(example: str, cell: int, narrow: bool = False) -> Figure:
    """The figure of an example, without title and ground of its own."""
    figure: Figure = pickle.loads(pictures_of(example)[cell])
    figure.suptitle("")
    if narrow:
        make_narrow(figure)
    if ink() == INKS["dark"]:
        darken(figure)
    for ground in (figure, *figure.axes):
        ground.patch.set_facecolor("none")
    return figure


def make_narrow(figure: Figure) -> None:
    """Make a finished figure as wide as a phone."""
    figure.set_size_inches(WIDTH, 1.1 * figure.get_figheight())
    for text in figure.findobj(Text):
        text.set(fontsize=min(max(text.get_fontsize(), 9), 11), wrap=len(text.get_text()) > 30)
    for legend in list(figure.legends):
        entries = [text.get_text() for text in legend.get_texts()]
        legend.remove()
        figure.legend(legend.legend_handles, entries, fontsize=9, loc="outside lower center", ncols=2)


DRAWN: dict[str, Callable[[], Figure]] = {
    "spike": one_spike,
    "phase": phase_portrait,
    "rate": rate_of_drive,
    "spread": spread_constants,
    "resonance": resonance,
    "delays": delays,
    "reach": gradient_reach,
    "accuracy": accuracies,
    "cost": cost,
    "cost-narrow": cost_narrow,
    "camera": camera,
    "integer": float_and_integer,
    "rooms": rooms_of_the_package,
    "neuron": neuron,
    "neuron-narrow": neuron_narrow,
    "density": lambda: report.density_plot(report.documents()[0]),
    "steps": lambda: report.steps_plot(report.documents()[0]),
    "raster": lambda: of_gallery("raster", 2),
    "raster-narrow": lambda: of_gallery("raster", 2, narrow=True),
    "sound": lambda: of_gallery("sound", 2),
    "sound-narrow": lambda: of_gallery("sound", 2, narrow=True),
}
# Figures whose data the repository lacks: another program draws them.
DRAWN_ELSEWHERE = {"recordings": "experiments/calibrate_camera.py", "heartbeats": "experiments/heartbeats.py"}
# The programs behind the figures of trained networks.
PROGRAMS = {
    "raster": (GALLERY / "plot_raster.py", PACKAGE / "training" / "plots.py"),
    "sound": (GALLERY / "plot_sound.py", PACKAGE / "training" / "plots.py", PACKAGE / "plots.py"),
}


# The colour of text and lines on each kind of page, and those of the curves: matplotlib's, and brighter ones.
INKS = {"light": "#1f2328", "dark": "#e6edf3"}
CURVES = {
    "light": list(matplotlib.color_sequences["tab10"]),
    "dark": [f"#{x}" for x in ("6cb6ff", "ffb066", "7ee787", "ff7b72", "d2a8ff")]
    + [f"#{x}" for x in ("d3a58f", "f5a3d8", "b1bac4", "e0df6a", "66e0ef")],
}
INKED = ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color")
INKED += ("legend.labelcolor",)


def page_colours(page: str) -> dict[str, Any]:
    """Matplotlib's settings for a figure without a ground of its own, on a light or on a dark page."""
    ground = {"figure.facecolor": "none", "axes.facecolor": "none", "legend.framealpha": 0}
    return {**dict.fromkeys(INKED, INKS[page]), **ground, "axes.prop_cycle": matplotlib.cycler(color=CURVES[page])}


def darken(figure: Figure) -> None:
    """Give a finished figure the colours of a dark page: what was black or one of ten colours, and its grounds."""
    light = [to_rgba(colour) for colour in CURVES["light"]]

    def dark(colour: Any) -> Any:
        if len(colours := to_rgba_array(colour)) != 1:
            return colour
        *rgb, alpha = colours[0]
        if max(rgb) < 0.2:
            return (*to_rgb(INKS["dark"]), alpha)
        found = [k for k, other in enumerate(light) if max(abs(x - y) for x, y in zip(rgb, other, strict=False)) < 0.01]
        return (*to_rgb(CURVES["dark"][found[0]]), alpha) if found else colour

    figure.patch.set_facecolor("none")
    for panel in figure.axes:
        panel.patch.set_facecolor("none")
        panel.tick_params(which="both", colors=INKS["dark"])
    for artist in figure.findobj(lambda found: isinstance(found, Text | Line2D)):
        artist.set_color(dark(artist.get_color()))
    for artist in figure.findobj(lambda found: isinstance(found, Spine | Collection)):
        artist.set_edgecolor(dark(artist.get_edgecolor()))
    for artist in figure.findobj(Legend):
        artist.get_frame().set(facecolor="none", edgecolor="0.5")


def ink() -> str:
    """The colour of text on the page that is drawn for."""
    colour: str = matplotlib.rcParams["text.color"]
    return colour


def write_figures(folder: Path) -> None:
    """Write every figure as NAME-light.svg and NAME-dark.svg into the folder, and the picture of a call's path."""
    for page in INKS:
        for name in DRAWN:
            path = folder / f"{name}-{page}.svg"
            path.write_text(current(name, page, path.read_text() if path.exists() else ""))
        (folder / f"flow-{page}.svg").write_text(flow(page))


def current(name: str, page: str, kept: str) -> str:
    """The file of a figure, without a ground of its own: the kept one as long as its digest is that of the figure.

    Bytes would not do: the last bits of a layout differ from run to run, the rest from one matplotlib to the next.
    """
    parts = [INKS[page], inspect.getsource(DRAWN[name])]
    if programs := PROGRAMS.get(name.removesuffix("-narrow")):
        parts += [*(path.read_text() for path in programs), *map(inspect.getsource, (of_gallery, make_narrow))]
        if digest(parts) in kept:
            return kept
    with matplotlib.style.context(["default", page_colours(page)]):
        figure = DRAWN[name]()
        mark = digest(parts if programs else parts + shown(figure))
        return kept if mark in kept else svg_of(figure, name, mark)


def digest(parts: list[str]) -> str:
    """A short hash of texts."""
    return "digest " + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def shown(figure: Figure) -> list[str]:
    """What a figure shows: words, curves, dots, areas, their colours, and the ends of axes. Numbers have six digits."""
    found = [text.get_text() for legend in figure.findobj(Legend) for text in legend.get_texts()]
    for panel in figure.axes:
        lines, areas = panel.lines, panel.collections
        numbers = [figure.get_size_inches(), panel.get_xlim(), panel.get_ylim(), *(x.get_xydata() for x in lines)]
        numbers += [x for area in areas for x in (area.get_offsets(), area.get_facecolor(), area.get_edgecolor())]
        numbers += [path.vertices for area in areas for path in area.get_paths()]
        numbers += [patch.get_path().vertices for patch in panel.patches]
        found += [f"{0.0 + round(float(number), 9):.5e}" for some in numbers for number in np.ravel(some)]
        found += [text.get_text() for text in (panel.title, panel.xaxis.label, panel.yaxis.label, *panel.texts)]
        found += [f"{x.get_color()} {x.get_linestyle()} {x.get_linewidth()} {x.get_marker()}" for x in lines]
    return found


def flow(page: str) -> str:
    """The path of a call, docs/_machinery/flow.svg, in the colour of a page."""
    text = (Path(__file__).parent / "flow.svg").read_text()
    return text.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" color="{INKS[page]}" ', 1)


def svg_of(figure: Figure, name: str, mark: str) -> str:
    """A figure as SVG, with its digest."""
    written = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(written, format="svg", metadata={"Date": None, "Description": mark})
    # The names of clipped areas depend on the last bit of a layout, which differs from run to run.
    clips = list(dict.fromkeys(re.findall(r"\bp[0-9a-f]{10}\b", written.getvalue())))
    return re.sub(r"\bp[0-9a-f]{10}\b", lambda found: f"clip{clips.index(found[0])}", written.getvalue())
