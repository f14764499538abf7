"""The tables of accuracy: a function for each, which makes its Markdown from the rows of experiments/results."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from typing import Any

from accuracy import BESIDE, DELAYS, DEPTHS, HARDWARE, HEARTBEATS, MODES
from report import markdown_table, percent


def in_first_table(name: str) -> bool:
    """Whether a row stands in the first table of docs/accuracy.md; other tables have the rest."""
    others = ("depth-", "resonance-", "intervals-", "recall-", "nmnist-camera-", "fashion-camera", "qtdb-")
    return "/" not in name and not name.startswith(others) and name not in BESIDE


HEADS = ("id", "test accuracy", "±", "seeds", "data", "network")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines of the full table; columns with one value in several rows are stated once below it, and
    exceptions: other gradients than the default ones, and a test set that was used again.
    """
    columns = list(zip(HEADS, *map(cells, rows), strict=True))
    same = [column for column in columns if len(rows) > 1 and len(set(column[1:])) == 1]
    shown = [column for column in columns if column not in same]
    head, *lines = zip(*shown, strict=True)
    yield from markdown_table(list(head), [list(line) for line in lines])
    others: dict[str, list[str]] = {}
    for row in rows:
        if row["mode"] not in (MODES["st"], MODES["lateral"]):
            others.setdefault(row["mode"], []).append(row["id"])
    again = [f"{row['id']} ({row['test_looks']} times)" for row in rows if row["test_looks"] > 1]
    if same or others or again:
        yield ""
    if same:
        yield f"- In all rows: {'; '.join(f'{name} {value}' for name, value, *_ in same)}."
    for mode, names in others.items():
        yield f"- Gradient {mode}: {', '.join(names)}."
    if again:
        yield f"- Test set used more than once: {', '.join(again)}."


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the full table."""
    error = standard_error(row)
    accuracy = [percent(row["test_accuracy"], 2), "-" if error is None else f"{error:.2f}"]
    return [row["id"], *accuracy, str(len(row["seeds"])), row["data"], row["network"]]


def standard_error(row: dict[str, Any]) -> float | None:
    """Of the mean test accuracy, in percent; None for a single seed."""
    found = row["test_accuracies"]
    return 100 * statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else None


def cost_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines of what training and an inference of each row cost."""
    head = ["id", "minutes", "epochs", "events", "synaptic operations", "parameters"]
    keys = ("events_per_inference", "synops_per_inference", "parameters")
    lines = [
        [row["id"], f"{row['seconds'] / 60:.1f}", str(row["epochs"]), *(thousands(row.get(key)) for key in keys)]
        for row in rows
    ]
    yield from markdown_table(head, lines)


def each_seed(row: dict[str, Any], digits: int = 1) -> str:
    """The test accuracies in percent, a number for each seed."""
    return ", ".join(f"{100 * accuracy:.{digits}f}" for accuracy in row["test_accuracies"])


def depth_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines of the test accuracies of each neuron, with their standard errors, a row for each depth."""
    found = {
        row["id"]: f"{100 * row['test_accuracy']:.1f} ± {standard_error(row):.1f} %"
        for row in rows
        if row["id"].startswith("depth-")
    }
    names = {"SRC": "depth-src-{}", "LIF": "depth-lif-{}", "SRC, relu": "depth-src-{}/relu"}
    lines = [[str(depth), *(found.get(name.format(depth), "-") for name in names.values())] for depth in DEPTHS]
    yield from markdown_table(["hidden layers of 128", *names], lines)


def beside_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines that compare the layers trained on the sequence tasks."""
    lines, before = [], ""
    for row in rows:
        if row["id"] in BESIDE:
            neurons = re.search(r"-(\d+)$", row["id"])
            name = row["network"] + (f", {neurons[1]} neurons" if neurons else "")
            if row["data"] != before:
                before = row["data"]
                lines.append([f"**{before}**, {row['epochs']} epochs", "", "", "", ""])
            cost = [thousands(row["parameters"]), f"{row['seconds'] / 60:.1f}"]
            lines.append([name, percent(row["test_accuracy"]), *cost, each_seed(row)])
    yield from markdown_table(["layer", "test accuracy", "parameters", "minutes", "each seed, %"], lines)


# The rows of the moving camera, by what they were tested on and its number of samples.
CAMERA = {
    ("real recordings of N-MNIST", 900): {
        "nmnist-camera": "SRC",
        "nmnist-camera-tuned": "SRC, tuned on 200 recordings",
        "nmnist-camera-gru": "GRU",
    },
    ("test pictures of Fashion-MNIST", 10_000): {"fashion-camera": "SRC, camera", "fashion-512": "SRC, rate coding"},
}


def camera_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines that compare the networks trained on simulated recordings of a moving camera."""
    found, lines = {row["id"]: row for row in rows}, []
    for (data, samples), names in CAMERA.items():
        lines.append([f"**{samples:,} {data}**", *[""] * 5])
        for name, words in names.items():
            if row := found.get(name):
                low, high = interval(row["test_accuracy"], samples)
                accuracy = [percent(row["test_accuracy"]), f"{100 * low:.1f} to {100 * high:.1f} %", each_seed(row)]
                lines.append([words, *accuracy, str(row["epochs"]), f"{row['seconds'] / 60:.0f}"])
    head = ["network", "test accuracy", "95 % interval", "each seed, %", "epochs", "minutes"]
    yield from markdown_table(head, lines)


def interval(share: float, samples: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of some samples."""
    z = statistics.NormalDist().inv_cdf(0.975)
    middle = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * (share * (1 - share) / samples + (z / (2 * samples)) ** 2) ** 0.5
    return middle - half, middle + half


# Rows with resonance; the row "...-without" has the same network without it.
RESONANT = ("resonance-psmnist", "resonance-rows", "resonance-vowels", "resonance-mnist")


def resonance_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines that compare networks with and without resonance."""
    found, lines = {row["id"]: row for row in rows}, []
    for name in RESONANT:
        partner = f"{name}-without"
        pair = [found[partner], found[name]] if name in found and partner in found else []
        shown = [percent(row["test_accuracy"]) for row in pair]
        minutes = [f"{row['seconds'] / 60:.1f}" for row in pair]
        if pair:
            network = pair[0]["network"]
            lines.append([pair[1]["data"], *shown, str(len(pair[1]["seeds"])), " / ".join(minutes), network])
    yield from markdown_table(["task", "without", "resonant", "seeds", "minutes", "network"], lines)


def delays_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines that compare networks with and without delays on intervals."""
    lines = []
    for row in rows:
        if row["id"] in DELAYS:
            counts = [thousands(row[key]) for key in ("parameters", "synops_per_inference")]
            found = [percent(row["test_accuracy"]), each_seed(row)]
            lines.append([row["network"], *found, *counts, f"{row['seconds'] / 60:.1f}"])
    head = ["network", "test accuracy", "each seed, %", "parameters", "synaptic operations", "minutes"]
    yield from markdown_table(head, lines)


def heartbeats_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines that compare networks which name the part of a heartbeat at each step."""
    lines = []
    for row in rows:
        if row["id"] in HEARTBEATS:
            found = [percent(row["test_accuracy"]), each_seed(row), percent(row["labelled_accuracy"])]
            cost = [thousands(row["parameters"]), str(row["epochs"]), f"{row['seconds']:.0f}"]
            lines.append([row["network"], *found, *cost])
    head = ["network", "test accuracy", "each seed, %", "steps with a label", "parameters", "epochs", "seconds"]
    yield from markdown_table(head, lines)


# Of each kind of memory: its name, the task, and the rows without and with it.
MEMORY = (
    (
        "time constants to 100 steps, not 10",
        "a symbol before 200 steps of noise",
        "recall-200-src-fast",
        "recall-200-src",
    ),
    ("recurrent weights", "the rows of a digit", "rows-src", "rows-src-lateral"),
    ("resonance", "the pixels of a digit, shuffled alike", "resonance-psmnist-without", "resonance-psmnist"),
    ("learnt delays", "the interval between two spikes", "intervals-lateral", "intervals"),
)


def memory_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines that show what each kind of memory changes in one task."""
    found, lines = {row["id"]: percent(row["test_accuracy"]) for row in rows}, []
    for kind, task, without, name in MEMORY:
        if without in found and name in found:
            lines.append([kind, found[without], f"**{found[name]}**", task])
    yield from markdown_table(["what is added", "without", "with", "the class is"], lines)


def integer_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines that compare the networks of integer neurons with the hardware."""
    found = {row["id"]: row for row in rows}
    lines = []
    for (steps, bits), (silent, reported) in HARDWARE.items():
        row = found.get(f"integer-{steps}-{bits}")
        if row:
            found_here = [f"**{percent(row['test_accuracy'], 2)}**", percent(reported, 2)]
            cost = [str(row["epochs"]), f"{row['seconds'] / 60:.1f}"]
            lines.append([f"{steps}, {silent} silent", *found_here, str(bits), each_seed(row, 2), *cost])
    head = ["steps", "srcell", "hardware", "bits per weight", "each seed, %", "epochs", "minutes"]
    yield from markdown_table(head, lines)


# Rows that the README shows.
SHOWN = ("mnist-512", "nmnist-camera", "seqmnist-rows", "psmnist")

README_WORDS = """
784-512-100 are 784 inputs, 512 neurons, and ten for each class; recurrent: with recurrent weights. N-MNIST: 900 \
[real recordings](docs/howto/moving-camera.md), after training on simulated ones. Events: active inputs and neurons, \
all steps. {again} With 10,000 digits and \
five epochs, 1, 3, 5 and 10 hidden layers reach {src}, LIF neurons {lif} \
(three seeds; [more differs](docs/training.md#depth-beside-leaky-integrate-and-fire-neurons)). After three epochs, \
without resonance and delays, the SRC reads rows with {rows}, a GRU of as many parameters with {gru}. \
[All rows](experiments/results/accuracy.json), [how they were measured](docs/accuracy.md)."""


def readme_section(rows: list[dict[str, Any]]) -> Iterator[str]:
    """What README.md says of accuracy: a table with fewer rows and columns, and what it does not show."""
    shown = [row for row in rows if row["id"] in SHOWN]
    head = ["data", "test accuracy", "seeds", "network", "events per inference", "minutes of training"]
    lines = []
    for row in shown:
        ours = [f"**{percent(row['test_accuracy'])}**", str(len(row["seeds"]))]
        cost = [thousands(row["events_per_inference"]), f"{row['seconds'] / 60:.0f}"]
        lines.append([row["data"], *ours, row["network"], *cost])
    yield from markdown_table(head, lines)
    found = {row["id"]: f"{100 * row['test_accuracy']:.1f}" for row in rows}
    by_depth = {
        neuron: "{}, {}, {} and {} %".format(*(found.get(f"depth-{neuron}-{depth}", "-") for depth in (1, 3, 5, 10)))
        for neuron in ("src", "lif")
    }
    others = {"gru": f"{found.get('rows-gru-142', '-')} %", "rows": f"{found.get('rows-src-lateral', '-')} %"}
    again = " ".join(
        f"{row['data']}: we looked at the test set {row['test_looks']} times while tuning."
        for row in shown
        if row["test_looks"] > 1
    )
    yield README_WORDS.format(again=again, **by_depth, **others)


def thousands(count: float | None) -> str:
    return "-" if count is None else f"{count:,.0f}"
