"""The plots of a measurement, and its tables in Markdown. Nothing is timed here: ``bench/run.py`` measures, and
``make pages`` writes README.md and the pages of docs/ from what is in results.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import others  # noqa: F401  (adds the labels of its rows)
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from srcell.benchmark import LABELS, Result
from srcell.benchmark.cases import BOTH, FORWARD

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "experiments" / "results"
SPEED = ROOT / "bench" / "results" / "speed"  # a file for each processor
LAYERS = ("784-100", "784-512", "nmnist", "stack")  # cases of whole layers
PYTORCH = ("eager", "compiled")
PEERS = ("gathered", "compiled", "picked")  # PyTorch's rows of a layer with delays
COLOURS = {row: f"C{number}" for number, row in enumerate(LABELS)}

PASSES = "ms: forward / with backward"
NUMBER = re.compile(r"-?|[-+]?\d[\d.,e %±/()]*(?: to [\d. %)]+)?(?: [uk]?[sB])?")  # a cell of numbers, or without any

Document = dict[str, Any]


def documents(folder: Path = SPEED) -> list[Document]:
    """The measurement of each processor; first the newest of those with most cases, which pages show."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return sorted(found, key=lambda document: (len(document["results"]), document["date"]), reverse=True)


def results_of(document: Document, case: str) -> list[Result]:
    return [result for result in document["results"] if result["setting"]["case"] == case]


def median(result: Result, row: str, key: str) -> float | None:
    """The median in milliseconds; None if the row was not measured."""
    passes = result["milliseconds"].get(row)
    return None if passes is None else passes[key]["median"]


def best(result: Result, rows: tuple[str, ...], key: str) -> float:
    """The smallest median among the given rows that were measured."""
    return min(found for row in rows if (found := median(result, row, key)) is not None)


def plot_sweep(document: Document, case: str, field: str, axis: str, scale: float, references: list[Result]) -> Figure:
    """Plot milliseconds against one field of the settings, a panel per pass, and references as horizontal lines."""
    results = results_of(document, case)
    figure = Figure(figsize=(4.2, 7), layout="constrained")
    panels: tuple[Axes, Axes] = figure.subplots(2, 1, sharex=True, sharey=True)
    for panel, key in zip(panels, (FORWARD, BOTH), strict=True):
        x = [scale * result["setting"][field] for result in results]
        for row in results[0]["milliseconds"]:
            times = [result["milliseconds"][row][key] for result in results]
            colour = COLOURS[row]
            panel.plot(x, [t["median"] for t in times], ".-", color=colour, label=LABELS[row])
            panel.fill_between(
                x, [t["quartile1"] for t in times], [t["quartile3"] for t in times], color=colour, alpha=0.2
            )
        for result in references:
            for row in PYTORCH:
                if (milliseconds := median(result, row, key)) is not None:
                    at = f"{LABELS[row]}, at {result['setting']['density']:.0%}"
                    panel.axhline(milliseconds, color=COLOURS[row], linestyle="--", label=at)
        panel.set(title=key, xscale="log", yscale="log")
        panel.set_xticks(x, [f"{value:g}" for value in x])
        panel.set_xticks([], minor=True)
        panel.grid(alpha=0.3, which="both")
        panel.set_ylabel("milliseconds, median and quartiles")
    panels[1].set_xlabel(axis)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=9, loc="outside upper center")
    return figure


def density_plot(document: Document) -> Figure:
    """Times against density. Dense products take the same time at any density: eager and compiled are lines."""
    axis = "density of the input (%), layer 784-100, T 220, B 256"
    return plot_sweep(document, "density", "density", axis, 100, results_of(document, "784-100"))


def steps_plot(document: Document) -> Figure:
    """Times against the number of steps."""
    return plot_sweep(document, "steps", "steps", "steps T, layer 784-100, B 256, 3 % events", 1, [])


def costs() -> dict[str, dict[str, dict[int, dict[str, float]]]]:
    """Of each task, layer and size in the results of cost.py: score, means over the seeds; costs of an inference."""
    found: dict[str, dict[str, dict[int, dict[str, float]]]] = {}
    for task, kinds in json.loads((RESULTS / "cost.json").read_text())["tasks"].items():
        for kind, sizes in kinds.items():
            for neurons, runs in sizes.items():
                step = runs.pop("time")
                row = {
                    key: statistics.mean(run[key] for run in runs.values()) for key in ("score", "operations", "steps")
                }
                row |= {"microseconds": step["step"] * row["steps"], **step}
                found.setdefault(task, {}).setdefault(kind, {})[int(neurons)] = row
    return found


def markdown_table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    """A table whose columns of numbers are aligned on the right."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(rule(column) for column in zip(*rows, strict=True))}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"


def rule(column: Iterable[str]) -> str:
    """What stands in the second line of a table for the column with these cells."""
    return "---:" if all(NUMBER.fullmatch(cell.strip("*")) for cell in column) else "---"


def marked(row: list[str]) -> list[str]:
    """A row of times, in bold if it is srcell's."""
    return [f"**{cell}**" if cell != "-" else cell for cell in row] if row[0].startswith("srcell") else row


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def lines(table: Iterator[str]) -> str:
    return "\n".join(table)


def format_ms(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.2f}" if milliseconds < 1 else f"{milliseconds:.1f}"


def pair(times: Iterable[float | None]) -> str:
    """A cell with the time of each pass; a dash if it was not measured."""
    shown = [format_ms(time) for time in times]
    return "-" if "-" in shown else " / ".join(shown)


def passes(result: Result, row: str) -> str:
    """The cell of a row of the benchmark."""
    return pair(median(result, row, key) for key in (FORWARD, BOTH))


def sizes(result: Result) -> str:
    return "-".join(map(str, [result["setting"]["inputs"], *result["setting"]["neurons"]]))


def whole_layers(document: Document) -> dict[str, Result]:
    """The cases of whole layers, each by its sizes and the density of its input."""
    found = [results_of(document, case)[0] for case in LAYERS if results_of(document, case)]
    return {f"{sizes(result)}, {100 * result['setting']['density']:g} %": result for result in found}


def layer_table(document: Document) -> Iterator[str]:
    """Times of whole layers, and how many times as fast events are as the best PyTorch row."""
    rows = []
    for name, result in whole_layers(document).items():
        faster = [best(result, PYTORCH, key) / best(result, ("events",), key) for key in (FORWARD, BOTH)]
        ours = [f"**{cell}**" for cell in (" / ".join(f"{x:.1f}" for x in faster), passes(result, "events"))]
        rows.append([name, *ours, passes(result, "compiled"), passes(result, "eager")])
    head = ["layer, input density", "times as fast", "srcell, events", "PyTorch, compiled", "PyTorch, eager"]
    yield from markdown_table(head, rows)


def others_table(document: Document) -> Iterator[str]:
    """Times of the same layers computed in other ways, and of other neurons."""
    columns = whole_layers(document)
    rows = [[label, *(passes(result, row) for result in columns.values())] for row, label in LABELS.items()]
    kept = [row for row in rows if row[0] not in map(LABELS.get, PYTORCH) and {*row[1:]} != {"-"}]
    yield from markdown_table([PASSES, *columns], list(map(marked, kept)))


def ratios(document: Document) -> dict[str, tuple[float, float]]:
    """How many times as fast events are as compiled PyTorch, forwards and with the backward pass, by case."""
    found = {}
    for case in LAYERS:
        for result in results_of(document, case)[:1]:
            both = [median(result, "compiled", key) / median(result, "events", key) for key in (FORWARD, BOTH)]
            found[case] = (both[0], both[1])
    return found


def ratio_columns(measured: list[Document]) -> dict[str, list[str]]:
    """The ratios on each processor, a cell for each of the first one's layers."""
    return {
        document["processor"]: [
            " / ".join(f"{x:.1f}" for x in ratios(document)[case]) if case in ratios(document) else "-"
            for case in ratios(measured[0])
        ]
        for document in measured
    }


def processors_table(measured: list[Document]) -> Iterator[str]:
    """The ratios on each processor, and which srcell was measured there."""
    columns = ratio_columns(measured)
    rows = [list(row) for row in zip(whole_layers(measured[0]), *columns.values(), strict=True)]
    yield from markdown_table(["layer, input density", *columns], rows)
    yield from ("", f"{versions_of(measured)}.")


def recurrence_table(document: Document) -> Iterator[str]:
    """Times of the recurrence. Inference has no gradient mode: its row has the smaller median of the two modes."""
    results = results_of(document, "recurrence")
    rows = []
    for neurons in dict.fromkeys(result["setting"]["neurons"][0] for result in results):
        same = [result for result in results if result["setting"]["neurons"][0] == neurons]
        passes = [("forward", FORWARD, same)]
        for result in same:
            mode = "through time" if result["setting"]["full_gradient"] else "default"
            passes.append((f"{BOTH}, {mode}", BOTH, [result]))
        for label, key, chosen in passes:
            times = [
                min((t for result in chosen if (t := median(result, row, key)) is not None), default=None)
                for row in (*PYTORCH, "srcell")
            ]
            ratio = min(best(result, PYTORCH, key) for result in chosen) / min(
                best(r, ("srcell",), key) for r in chosen
            )
            eager, compiled, ours = map(format_ms, times)
            rows.append([f"{neurons}, {label}", f"**{ratio:.1f}**", f"**{ours}**", compiled, eager])
    head = ["neurons, pass", "times as fast", "srcell", "PyTorch, compiled", "PyTorch, eager"]
    yield from markdown_table(head, rows)


def latency_table(document: Document) -> Iterator[str]:
    results = results_of(document, "classifier")
    head = ["ms per batch", *(f"batch {result['setting']['batch']}" for result in results)]
    rows = [
        marked([LABELS[row], *(format_ms(median(result, row, FORWARD)) for result in results)])
        for row in results[0]["milliseconds"]
    ]
    yield from markdown_table(head, rows)


def one_thread_table(document: Document) -> Iterator[str]:
    """Times of the layers on one thread, forward / forward and backward."""
    results = results_of(document, "one-thread")
    yield from markdown_table([PASSES, *map(sizes, results)], pass_rows(results))


def modes_table(document: Document) -> Iterator[str]:
    """Times of a layer in each gradient mode, forward / forward and backward."""
    results = results_of(document, "modes")
    times = {False: "default", True: "through time"}
    names = [f"{r['setting']['surrogate']}, {times[r['setting']['full_gradient']]}" for r in results]
    yield from markdown_table([PASSES, *names], pass_rows(results))


def delays_table(document: Document) -> Iterator[str]:
    """Times of a layer whose recurrent weights have delays, and how many times as long the best PyTorch takes."""
    (result,) = results_of(document, "lateral-delays")
    found = {row: [median(result, row, key) for key in (FORWARD, BOTH)] for row in result["milliseconds"]}
    rows = []
    for row, times in found.items():
        peers = [found[name] for name in found if name.split("-")[0] in PEERS and name.split("-")[-1] == row[6:]]
        ratios = [f"{min(p[k] for p in peers) / times[k]:.1f}" for k in range(2)] if row.startswith("whole") else ["-"]
        rows.append(marked([LABELS[row], pair(times), " / ".join(ratios)]))
    yield from markdown_table([PASSES, "784-256", "times as fast as the best PyTorch"], rows)


def convolution_table(document: Document) -> Iterator[str]:
    """Milliseconds a sample of convolutions; the rows of PyTorch, then those of srcell."""
    *layers, network = results_of(document, "conv")
    head = [PASSES.replace("ms", "ms a sample"), "network", "2-12 channels, 34 x 34", "12-24, 17 x 17"]
    rows = []
    for row in network["milliseconds"]:
        each = [[median(r, row, key) / r["setting"]["batch"] for key in (FORWARD, BOTH)] for r in (network, *layers)]
        rows.append(marked([LABELS[row], *map(pair, each)]))
    yield from markdown_table(head, rows)


def pass_rows(results: list[Result]) -> list[list[str]]:
    """Table rows, one per row of the benchmark and a column per result; all results must have the same rows."""
    return [marked([LABELS[row], *(passes(r, row) for r in results)]) for row in results[0]["milliseconds"]]


def machine_of(document: Document) -> str:
    """The machine and the versions that were measured."""
    environment = document["environment"]
    threads = results_of(document, "784-100")[0]["setting"]["threads"]
    versions = f"srcell {environment['srcell']}, torch {environment['torch']}"
    return f"{document['processor']}, {threads} threads, {environment['isa']}, {versions}"


def measured_on(document: Document) -> str:
    """A paragraph on how the times were measured and on which machine."""
    return f"""\
A linear synapse followed by the recurrence, 220 steps, 256 samples, float32; gradients of weight and bias. Medians of
interleaved repetitions, one process per column; "compiled" is `torch.compile` of chunks of 20 steps; the times include
building the batches of events. {machine_of(document)}; commit {document["commit"]}, {document["date"]}."""


def readme_table(measured: list[Document]) -> Iterator[str]:
    """Times of whole layers on the first processor, and the ratios on each."""
    layers, columns = whole_layers(measured[0]), ratio_columns(measured)
    rows = [
        [name, f"**{passes(result, 'events')}**", passes(result, "compiled"), *cells]
        for (name, result), *cells in zip(layers.items(), *columns.values(), strict=True)
        if not name.startswith("784-512,")
    ]
    head = ["layer, input density", "srcell, ms", "compiled PyTorch, ms", *(f"times as fast: {x}" for x in columns)]
    yield from markdown_table(head, rows)


def versions_of(measured: list[Document]) -> str:
    """The version of srcell that was measured on each processor."""
    return ", ".join(f"srcell {x['environment']['srcell']} on {x['processor']}" for x in measured)


def section(measured: list[Document]) -> str:
    """What README.md says of speed."""
    shown = measured[0]
    peer = passes(results_of(shown, "784-100")[0], "snntorch")
    return f"""\
{lines(readme_table(measured))}

Forward / forward and backward, on events; 220 steps, 256 samples, float32. The ratio depends on the processor. \
The milliseconds: {machine_of(shown)}, {shown["date"]}. The ratios: {versions_of(measured)}. \
There snnTorch's LIF, another neuron, takes {peer} for the first layer. [Other layers and neurons](docs/speed.md), \
[all figures](bench/results/speed)."""
