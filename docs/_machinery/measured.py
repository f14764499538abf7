"""The tables of README.md and of the pages: a function for each, which makes its Markdown from the results of
``bench`` and ``experiments``, or from what works with PyTorch. ``pages.py`` writes them into the pages.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import accuracy_tables
import numpy as np
import report
import works  # tests/support/works.py


def read(name: str) -> Any:
    """A file of results, of ``experiments`` or of ``bench``."""
    folder = report.RESULTS if (report.RESULTS / name).exists() else report.SPEED.parent
    return json.loads((folder / name).read_text())


def machine_of(name: str, part: str = "") -> str:
    """The machine on which a file of results, or a part of it, was measured."""
    found = read(name)[part] if part else read(name)
    environment, commit = found["environment"], found["commit"]
    return (
        f"{found['processor']}, {environment['threads']} threads, {environment['isa']}, torch {environment['torch']}; "
        f"{f'commit {commit}, ' if commit else ''}{found['date']}."
    )


def speed(table: Callable[[Any], Any]) -> Callable[[], str]:
    """A table of docs/_machinery/report.py."""
    return lambda: report.lines(table(report.documents()[0]))


def accuracy(kept: Callable[[str], bool]) -> Callable[[], str]:
    """The rows of the accuracy table whose id is kept."""
    return lambda: "\n".join(accuracy_tables.table([row for row in read("accuracy.json") if kept(row["id"])]))


def mean(found: list[float]) -> float:
    """The mean over the seeds."""
    return sum(found) / len(found)


def each_of(found: list[float]) -> str:
    """Shares in percent."""
    return ", ".join(f"{100 * share:.1f}" for share in found)


def commands() -> str:
    """What makes each row of the accuracy table again, and how often its settings were changed before."""
    head = ["id", "tried", "command"]
    rows = [[row["id"], str(row["configurations_tried"]), f"`{row['command']}`"] for row in read("accuracy.json")]
    return report.lines(report.markdown_table(head, rows))


def inference() -> str:
    """The counts of a mean inference of the network that is kept."""
    result = read("mnist-100/result.json")
    head = ["a mean inference", "events", "spikes", "additions", "multiply-adds"]
    rows = []
    for k, layer in enumerate(result["layers"]):
        counts = [f"{layer[key]:,.0f}" for key in ("events", "spikes", "additions", "multiply_adds")]
        rows.append([f"layer {k}" if k else "input", *counts])
    return report.lines(report.markdown_table(head, rows))


def porting() -> str:
    """What experiments/rows/porting.py measured: a row for each library and learning rate."""
    names = {"snntorch": "snnTorch, the tutorial's network", "srcell": "the port"}
    head = ["network", "learning rate", "test accuracy", "each seed, %"]
    rows = []
    for row in read("porting.json")["rows"]:
        found = row["accuracies"]
        cells = [f"{row['learning_rate']:g}", report.percent(mean(found)), each_of(found)]
        rows.append([names[row["library"]], *cells])
    return report.lines(report.markdown_table(head, rows))


def in_onnxruntime() -> str:
    """What experiments/rows/in_onnxruntime.py measured: a row for each network."""
    names = {"784-100": "784-100", "deep": "784, ten times 128, 100", "lateral": "28-256, recurrent, row by row"}
    head = ["network", "accuracy", "in onnxruntime", "equal spikes", "in the last layer", "equal answers"]
    rows = []
    for row in read("onnx.json")["rows"]:
        there = row["onnx"]
        shares = [there[f"equal_{what}"] for what in ("spikes", "spikes_last_layer", "answers")]
        shown = [report.percent(x, 2) for x in (row["accuracy"], there["accuracy"], *shares)]
        rows.append([names[row["network"]], *shown])
    return report.lines(report.markdown_table(head, rows))


def for_sequences() -> str:
    """What SRC.for_sequences changes: experiments/for_sequences.py."""
    found: dict[str, list[list[float]]] = {}
    for row in read("for-sequences.json"):
        found.setdefault(row["task"], []).append(row["accuracies"])
    head = ["task", "SRC.for_sequences", "SRC, recurrent", "seeds of the first, %", "of the second, %"]
    rows = [
        [task, f"**{report.percent(mean(ours))}**", report.percent(mean(base)), each_of(ours), each_of(base)]
        for task, (base, ours) in found.items()
    ]
    return report.lines(report.markdown_table(head, rows))


def regression() -> str:
    """How well layers tell a drifting frequency: experiments/regression.py."""
    names = {"src": "SRC.for_sequences", "gru": "torch.nn.GRU", "lif": "LIF, recurrent (snnTorch)"}
    found, rows = read("regression.json"), []
    for kind, name in names.items():
        means, ranges, trained = [], [], []
        for seconds in (20, 150):
            runs = found[f"{kind}-{seconds}s"]["runs"]
            ends = [run["r2"][-1] for run in runs]
            batches = sum(run["batches"] for run in runs) / len(runs)
            means.append(f"{mean(ends):.3f}")
            ranges.append(f"{min(ends):.3f} to {max(ends):.3f}")
            trained.append(f"{batches:,.0f}")
        rows.append([name, *means, *ranges, " / ".join(trained), f"{found[f'{kind}-20s']['runs'][0]['parameters']:,}"])
    head = ["layer of 128", "R2 after 20 s", "after 150 s", "seeds, 20 s", "seeds, 150 s", "batches", "parameters"]
    return report.lines(report.markdown_table(head, rows))


def heartbeats_step() -> str:
    """What a step of the network of heartbeats costs, beside a GRU cell: experiments/heartbeats.py."""
    found = read("heartbeats.json")
    spiking, gated = found["srcell"], found["gru"]
    times = [
        f"{spiking['microseconds_in_c']:.1f} us in C",
        f"{min(gated['microseconds'].values()):.1f} us in onnxruntime",
    ]
    counts = ("state_bytes", "operations_of_step", "operations_of_heartbeat")
    rows = [
        [name, time, f"{of['file_bytes'] / 1000:.0f} kB", *(f"{of[key]:,.0f}" for key in counts)]
        for name, time, of in zip(("SRC, 320 neurons", "GRU, 182 units"), times, (spiking, gated), strict=True)
    ]
    head = ["network", "a step", "weights", "bytes of state", "operations of a step", "of a heartbeat"]
    return report.lines(report.markdown_table(head, rows))


def learnt_constants() -> str:
    """Learnt time constants at several learning rates: experiments/learnt_constants.py."""
    rows = []
    for name, arm in read("learnt-constants.json").items():
        ends = [run[-1] for run in arm["runs"]]
        largest = max(row["largest_gradient_norm"] for run in arm["runs"] for row in run)
        losses, accuracies = ([end[key] for end in ends] for key in ("loss", "accuracy"))
        alphas = [end["slowest_alpha"] for end in ends]
        rows.append(
            [
                *(name, f"{mean(losses):.2f}", f"{100 * mean(accuracies):.1f} %", each_of(accuracies)),
                *(f"{mean(alphas):.4f}", f"{largest:,.0f}"),
            ]
        )
    head = ["alpha and omega", "loss", "accuracy", "seeds, %", "slowest alpha", "largest norm of a gradient"]
    return report.lines(report.markdown_table(head, rows))


def from_gru() -> str:
    """How well layers forecast a stream and tell its faults: experiments/from_gru.py."""
    names = {
        "gru-96": "`nn.GRU`, 96 units, classes from `h[-1]`",
        "gru-96-mean": "the same, classes from the mean of its outputs",
        "src-96-in-place": "`SRC` in its place, `nn.Linear` heads",
        "for-sequences-96-in-place": "`SRC.for_sequences` in its place, `nn.Linear` heads",
        "for-sequences-96": "`SRC.for_sequences`, 96, two `LinearReadout`",
        "for-sequences-96-skip": "the same with a skip connection",
        "for-sequences-256": "256 neurons",
        "for-sequences-256-skip": "256 neurons with a skip connection",
    }
    found, rows = read("from-gru.json"), []
    for key, name in names.items():
        runs = found[key]["runs"]
        errors, accuracies, seconds = ([run[part] for run in runs] for part in ("error", "accuracy", "seconds"))
        rows.append(
            [
                *(name, f"{mean(errors):.3f}", f"{100 * mean(accuracies):.1f} %", each_of(accuracies)),
                *(f"{mean(seconds):.0f} s", f"{runs[0]['parameters']:,}"),
            ]
        )
    head = ["network", "error of the forecast", "accuracy", "seeds, %", "training", "parameters"]
    return report.lines(report.markdown_table(head, rows))


def skip() -> str:
    """Forecasts with and without a skip connection: experiments/skip.py."""
    names = {
        "vowels-1": "Japanese Vowels, the next frame",
        "digits-1": "spoken digits, the next frame",
        "digits-4": "the frame after four",
        "sine": "a drifting sine, its frequency",
    }
    found, rows = read("skip.json"), []
    for key, name in names.items():
        kinds = [[run["error"] for run in found[key][kind]] for kind in ("without", "skip")]
        means = [f"{mean(errors):.3f}" for errors in kinds]
        rows.append([name, *means, *(", ".join(f"{error:.3f}" for error in errors) for errors in kinds)])
    head = ["task", "without", "with a skip connection", "seeds, without", "seeds, with"]
    return report.lines(report.markdown_table(head, rows))


def what_matters() -> str:
    """What one change of a layer or of its training does to permuted digits: experiments/what_matters.py."""
    rows = []
    found = read("what-matters.json")
    base = validation_accuracy(found["base"])
    for name, row in found.items():
        accuracy, each = validation_accuracy(row), len(row["runs"])
        cells = [f"{accuracy:.1f} %", "" if name == "base" else f"{accuracy - base:+.1f}", str(each)]
        rows.append([name, *cells, f"{row['parameters']:,}"])
    head = ["change", "validation accuracy", "less the base's", "seeds", "parameters"]
    return report.lines(report.markdown_table(head, rows))


def validation_accuracy(row: dict[str, Any]) -> float:
    """The mean over the seeds, after the last epoch, in percent."""
    return mean([run["accuracies"][-1] for run in row["runs"].values()])


def beyond(task: str, shown: Callable[[str], str]) -> Callable[[], str]:
    """What networks do with inputs that they were not trained on, a row for each neuron: experiments/rows/beyond.py."""
    names = {"src": "SRC, recurrent", "lif": "LIF, recurrent", "gru": "GRU"}

    def table() -> str:
        found = read("beyond.json")[task]
        tested = sorted(found["src"]["mean"], key=float)
        rows = [
            [name, *(f"{found[kind]['mean'][key]:.1f} %" for key in tested), f"{found[kind]['parameters']:,}"]
            for kind, name in names.items()
        ]
        return report.lines(report.markdown_table(["layer", *map(shown, tested), "parameters"], rows))

    return table


def through_time(cell: str) -> Callable[[], str]:
    """What each way to take gradients through time trained to, with a cell: experiments/through_time.py."""

    def table() -> str:
        head = ["h and hs", "validation accuracy", "norm of the gradient", "learning rate"]
        rows = []
        for row in read("through_time.json")[cell]:
            best = max(row["tried"], key=lambda tried: sum(tried["accuracies"]))
            accuracy = report.percent(mean(best["accuracies"]))
            rows.append([row["method"], accuracy, f"{best['norm']:.3g}", f"{best['rate']:g}"])
        return report.lines(report.markdown_table(head, rows))

    return table


def spoken_digits() -> str:
    """How often the network of the page "Say a digit" is right: experiments/say_a_digit.py."""
    found = read("say-a-digit/digits.json")
    names = ("clean", "20 dB", "20 dB, 0.5 s before", "10 dB", "10 dB, 0.5 s before")
    speakers = found["speakers_never_heard"].values()
    rows = []
    for name in names:
        never = [accuracies[name] for accuracies in speakers]
        cells = [f"{found['accuracy'][name]:.1f} %", f"{sum(never) / len(never):.1f} %", f"{min(never):.1f} %"]
        rows.append([name.replace("before", "of it before the word"), *cells])
    head = ["white noise below the speech", "a voice it knows", "a new voice, mean of six", "the worst of the six"]
    return report.lines(report.markdown_table(head, rows))


def sure_digits() -> str:
    """How often the digits are right of which the page "Say a digit" is sure: experiments/say_a_digit.py --sure."""
    rows = []
    for name, found in read("say-a-digit/digits.json")["sure"].items():
        voices = "synthetic voices" if name.startswith("synthetic") else "voices it knows"
        noise = ", white noise at 10 dB" if name.endswith("10 dB") else ""
        cells = [f"{found[cell]:.1f} %" for cell in ("right", "probability", "sure", "right_of_sure")]
        rows.append([f"{found['words']} words of {voices}{noise}", *cells])
    head = ["words", "right", "mean probability of the answer", "names a digit and is sure", "right of these"]
    return report.lines(
        report.markdown_table(head, sorted(rows, key=lambda row: ("synthetic" in row[0], "noise" in row[0])))
    )


def taught(kind: str, columns: dict[str, str]) -> Callable[[], str]:
    """What the lessons of the page "Say a digit" bring: experiments/say_a_digit.py --teach."""

    def table() -> str:
        speakers = read("say-a-digit/digits.json")["taught"]
        rows = [[name, *(f"{speakers[name][kind][key]:.1f} %" for key in columns)] for name in sorted(speakers)]
        means = [mean([of[kind][key] for of in speakers.values()]) for key in columns]
        rows.append(["mean of six", *(f"{value:.1f} %" for value in means)])
        return report.lines(report.markdown_table(["the new voice", *columns.values()], rows))

    return table


def new_speakers() -> str:
    """The accuracy for speakers never heard, before and after learning: experiments/adapt.py."""
    found, counts = read("adapt.json"), ("1", "3", "5")
    kinds = {
        "mean, all weights": ("src", "all"),
        "mean, all weights, 60 passes": ("longer", "all"),
        "mean, readout alone": ("src", "readout"),
        "mean, GRU, all weights": ("gru", "all"),
        "mean, GRU, readout alone": ("gru", "readout"),
    }

    def row(name: str, kind: str, part: str, speakers: list[str]) -> list[str]:
        of = [found[kind][speaker] for speaker in speakers]
        values = [[x["before"]["accuracy"], *(x[part][k]["accuracy"] for k in counts)] for x in of]
        others = [x[part]["5"]["others"] for x in of]
        return [name, *(f"{np.mean(column):.1f}" for column in (*zip(*values, strict=True), others))]

    speakers = sorted(found["src"])
    rows = [row(f"{speaker}, all weights", "src", "all", [speaker]) for speaker in speakers]
    rows += [row(name, kind, part, speakers) for name, (kind, part) in kinds.items()]
    head = ["accuracy, %", "before", "1 of each digit", "3", "5", "the five others after 5"]
    return report.lines(report.markdown_table(head, rows))


def new_words() -> str:
    """The accuracy for five words never heard, taught by a speaker never heard: experiments/adapt.py."""
    found = read("adapt.json")["words"]
    rows = [
        [speaker, *(f"{of[part][k]['accuracy']:.1f}" for k in ("1", "3", "5") for part in ("readout", "all"))]
        for speaker, of in sorted(found.items())
    ]
    head = ["speaker", *(f"{k}, {part}" for k in (1, 3, 5) for part in ("readout", "all"))]
    return report.lines(report.markdown_table(head, rows))


def camera() -> str:
    """What real and simulated recordings of a moving camera have in common: experiments/calibrate_camera.py."""
    found = read("camera.json")
    real, made, same = found["events"]["real"], found["events"]["simulated"], found["correlation"]
    rows = [
        [f"{what}, mean of the digits", f"{real[key]:,}", f"{made[key]:,}"]
        for what, key in (("events", "mean"), ("rising", "rising"), ("active inputs", "inputs"))
    ]
    rows.insert(1, ["standard deviation of the events", f"{real['deviation']:,}", f"{made['deviation']:,}"])
    words = {
        "simulation": "correlation with the real ones: rising less falling events of a pixel in 20 ms",
        "events of a digit": "correlation with the real ones: events of a digit",
    }
    rows += [[words[key], "1", f"{same[key]:.2f}"] for key in words]
    rows.append(["two simulations with each other, in 20 ms", "", f"{same['two simulations']:.2f}"])
    return report.lines(report.markdown_table(["", "real", "simulated"], rows))


def cost() -> str:
    """What an inference of each layer of 128 neurons costs: experiments/cost.py."""
    names = {"src": "SRC", "src-sparse": "SRC, rates penalised", "lif": "LIF, recurrent", "gru": "GRU"}
    head = ["layer of 128", "score", "operations", "bytes of weights", "of state", "us a step", "us an inference"]
    rows = []
    for task, kinds in report.costs().items():
        rows.append([f"**{task}**", *[""] * 6])
        for kind, sizes in kinds.items():
            of = sizes[128]
            score = f"{of['score']:.3f}" if task == "frequency" else f"{of['score']:.1f} %"
            counts = [f"{of[key]:,.0f}" for key in ("operations", "weights", "state")]
            rows.append([names[kind], score, *counts, f"{of['step']:.1f}", f"{of['microseconds']:,.0f}"])
    return report.lines(report.markdown_table(head, rows))


def features() -> str:
    """What works with PyTorch, and what is refused; ``tests/test_works.py`` uses each feature."""
    works_here = [[found.name, "✓ works", found.way] for found in works.FEATURES if not found.refused]
    refused = [
        [found.name, "✗ refused", f"*{found.refused}* <br> Instead: {found.way}"]
        for found in works.FEATURES
        if found.refused
    ]
    return report.lines(report.markdown_table(["feature", "status", "what to know"], works_here + refused))


TABLES: dict[str, Callable[[], str]] = {
    "readme-speed": lambda: report.section(report.documents()),
    "readme-accuracy": lambda: "\n".join(accuracy_tables.readme_section(read("accuracy.json"))),
    "speed-machine": lambda: report.measured_on(report.documents()[0]),
    "speed-processors": lambda: report.lines(report.processors_table(report.documents())),
    "speed-layers": speed(report.layer_table),
    "speed-others": speed(report.others_table),
    "speed-recurrence": speed(report.recurrence_table),
    "speed-inference": speed(report.latency_table),
    "speed-modes": speed(report.modes_table),
    "speed-one-thread": speed(report.one_thread_table),
    "speed-delays": lambda: report.lines(report.delays_table(read("lateral-delays.json"))),
    "speed-delays-machine": lambda: machine_of("lateral-delays.json"),
    "speed-convolution": lambda: report.lines(report.convolution_table(read("convolution.json"))),
    "speed-convolution-machine": lambda: machine_of("convolution.json"),
    "accuracy": accuracy(accuracy_tables.in_first_table),
    "accuracy-resonance": lambda: report.lines(accuracy_tables.resonance_table(read("accuracy.json"))),
    "accuracy-delays": lambda: report.lines(accuracy_tables.delays_table(read("accuracy.json"))),
    "heartbeats": lambda: report.lines(accuracy_tables.heartbeats_table(read("accuracy.json"))),
    "heartbeats-step": heartbeats_step,
    "learnt-constants": learnt_constants,
    "accuracy-memory": lambda: report.lines(accuracy_tables.memory_table(read("accuracy.json"))),
    "accuracy-sequences": lambda: report.lines(accuracy_tables.beside_table(read("accuracy.json"))),
    "accuracy-integers": lambda: report.lines(accuracy_tables.integer_table(read("accuracy.json"))),
    "accuracy-camera": lambda: report.lines(accuracy_tables.camera_table(read("accuracy.json"))),
    "accuracy-depth": lambda: report.lines(accuracy_tables.depth_table(read("accuracy.json"))),
    "accuracy-costs": lambda: report.lines(accuracy_tables.cost_table(read("accuracy.json"))),
    "accuracy-ablations": accuracy(lambda name: name.startswith("mnist-100/")),
    "accuracy-commands": commands,
    "inference": inference,
    "onnx": in_onnxruntime,
    "porting": porting,
    "for-sequences": for_sequences,
    "regression": regression,
    "from-gru": from_gru,
    "skip": skip,
    "what-matters": what_matters,
    "beyond-recall": beyond("recall", lambda delay: f"{delay} steps"),
    **{
        f"beyond-{task}": beyond(task, lambda share: f"{100 * float(share):g} % noise")
        for task in ("noise", "trained-noise")
    },
    "through-time": through_time("training"),
    "through-time-sequences": through_time("sequences"),
    "spoken-digits": spoken_digits,
    "camera": camera,
    "cost": cost,
    "cost-machine": lambda: "\n".join(
        f"{part.title()} on {machine_of('cost.json', part)}" for part in ("trained", "timed")
    ),
    "new-speakers": new_speakers,
    "new-words": new_words,
    "sure-digits": sure_digits,
    "taught-voices": taught("voice", {"0": "before", "1": "1 recording of each digit", "3": "3", "5": "5"}),
    "taught-words": taught("words", {"1": "1 recording of each word", "3": "3", "5": "5"}),
    "pytorch": features,
}
