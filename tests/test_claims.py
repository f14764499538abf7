"""Numbers in the prose of README.md and docs/accuracy.md are those of experiments/results, and rows say what trained
them."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

import srcell
from support.imports import script

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"


def accuracies() -> dict[str, float]:
    """The mean test accuracy of each row, in percent, as a page shows it: with one decimal."""
    return {
        row["id"]: round(100 * row["test_accuracy"], 1) for row in json.loads((RESULTS / "accuracy.json").read_text())
    }


def row_of(name: str) -> dict[str, Any]:
    (row,) = [row for row in json.loads((RESULTS / "accuracy.json").read_text()) if row["id"] == name]
    return dict(row)


def seeds_of(name: str) -> list[str]:
    return [f"{100 * accuracy:.2f}" for accuracy in row_of(name)["test_accuracies"]]


def words(page: str) -> str:
    """The text of a page, each run of white space as one space."""
    return " ".join((ROOT / page).read_text().split())


def readme_claims() -> list[str]:
    found = accuracies()
    better = [found[f"depth-lif-{depth}"] - found[f"depth-src-{depth}"] for depth in (1, 3, 5)]
    adapt = json.loads((RESULTS / "adapt.json").read_text())
    speakers = adapt["src"].values()
    before = statistics.mean(of["before"]["accuracy"] for of in speakers)
    after = statistics.mean(of["all"]["5"]["accuracy"] for of in speakers)
    return [
        f"LIF neurons are {min(better):.1f} to {max(better):.1f} points better",
        f"spoken digits rise from {before:.0f} to {after:.0f} %",
        f"in {adapt['times']['src']['all']['5']:.2f} s on one core",
    ]


def step_row(name: str, found: dict[str, float], state_digits: int) -> str:
    """The row of a layer in the table of steps."""
    file, state = (found[f"{what}_bytes"] / 1000 for what in ("file", "state"))
    cells = [name, f"{found['microseconds']:.1f} us", f"{file:.0f} kB", f"{state:.{state_digits}f} kB"]
    return f"| {' | '.join(cells)} | {found['synops']:,.0f} |"


def accuracy_claims() -> list[str]:
    found = accuracies()
    beyond = json.loads((RESULTS / "beyond.json").read_text())
    noise, trained = beyond["noise"], beyond["trained-noise"]
    lif = sorted(run["50"] for run in beyond["recall"]["lif"]["runs"].values())
    cost = {who: found["mean"]["0.0"] - found["mean"]["0.2"] for who, found in noise.items()}
    gain = {who: trained[who]["mean"]["0.2"] - noise[who]["mean"]["0.2"] for who in noise}
    little = [found["mean"]["0.0"] - found["mean"]["0.1"] for found in noise.values()]
    step = json.loads((RESULTS / "pixel-by-pixel.json").read_text())
    return [
        f"epochs without augmentation: {' and '.join(seeds_of('psmnist'))} %",
        f"16 epochs: {' and '.join(seeds_of('psmnist-recurrent'))} %",
        f"| **SRC (ours, means of two seeds)** | **{found['psmnist']} %** | **{found['psmnist-recurrent']} %** |",
        f"give that seed's accuracy with 0.2.0, too: {seeds_of('mnist-100')[0]} %",
        f"the SRC reaches {found['resonance-psmnist-without']} %, with frequencies alone "
        f"[{found['resonance-psmnist']} %]",
        f"the layer with recurrent weights reaches {found['seqmnist']} % in twenty epochs",
        f"it reaches {found['rows-src-lateral']} % with them, {found['rows-src']} % without, and "
        f"{found['rows-src-1936']} % without them but with as many parameters",
        f"the SRC reads {found['seqmnist-rows-256']} % of the same rows after 15 epochs",
        f"512 neurons that read nine rows at once reach {found['seqmnist-rows']} %",
        f"LIF layer reaches {found['rows-lif']} %",
        f"LIF neurons reach {found['recall-50-lif']:.0f} % and the GRU stays at chance ({found['recall-50-gru']} %)",
        f"epochs LIF neurons reach {lif[0]:.0f} to {lif[-1]:.0f} %",
        f"seeds answer about {lif[0]:.0f}, {lif[1]:.0f} and {lif[2]:.0f} % of the trials",
        f"10 % noise costs {min(little):.1f} to {max(little):.1f} points; 20 % costs the SRC {cost['src']:.1f} points, "
        f"the LIF layer {cost['lif']:.1f} and the GRU {cost['gru']:.1f}",
        f"At 20 % noise the SRC gains {gain['src']:.1f} points by it, the LIF layer {gain['lif']:.1f} and the GRU "
        f"{gain['gru']:.1f}",
        step_row("SRC", step["srcell"], state_digits=0),
        step_row("GRU", step["gru"], state_digits=1),
    ]


@pytest.mark.parametrize(("page", "claims"), [("README.md", readme_claims), ("docs/accuracy.md", accuracy_claims)])
def test_the_prose_states_the_recorded_accuracies(page: str, claims: Any) -> None:
    text = words(page)
    assert [claim for claim in claims() if claim not in text] == []


def test_the_page_names_the_best_published_result_beside_ours() -> None:
    rows = [line.strip("| ").split(" | ") for line in (ROOT / "docs/accuracy.md").read_text().splitlines()]
    published = [row for row in rows if len(row) == 3 and row[0].isupper() and "%" in row[1]]
    feedforward = {row[0]: float(row[1].strip(" %")) for row in published}
    assert len(feedforward) >= 5
    *_, best = sorted(feedforward, key=feedforward.__getitem__)
    ahead = feedforward[best] - 100 * row_of("psmnist")["test_accuracy"]
    assert f"{best} is {ahead:.2f} points better" in words("docs/accuracy.md")


def test_the_costs_are_those_that_the_page_compares() -> None:
    costs = script("docs/_machinery", "report", "bench").costs()
    spoken, pixels, rows, frequency = (costs[task] for task in ("spoken digits", "pixels", "rows", "frequency"))
    best = {kind: max(sizes.values(), key=lambda found: found["score"]) for kind, sizes in spoken.items()}
    assert best["src-sparse"]["score"] == best["gru"]["score"]
    assert 4.5 < best["gru"]["operations"] / best["src-sparse"]["operations"] < 5.5
    assert 0.4 < best["src-sparse"]["microseconds"] / best["gru"]["microseconds"] < 0.65
    src, gru = pixels["src-sparse"][256], pixels["gru"][64]
    assert 2.5 < gru["operations"] / src["operations"] < 3.5 and 0.5 < gru["score"] - src["score"] < 1.5
    assert 0.4 < src["microseconds"] / gru["microseconds"] < 0.65
    assert min(x["score"] for x in rows["gru"].values()) > max(x["score"] for x in rows["src-sparse"].values())
    assert max(x["microseconds"] for x in rows["gru"].values()) < min(x["microseconds"] for x in rows["src"].values())
    assert round(max(x["score"] for x in frequency["gru"].values()), 2) == 0.92
    assert round(max(x["score"] for x in frequency["src"].values()), 2) == 0.89
    for kinds in costs.values():
        steps = {kind: sum(x["step"] for x in sizes.values()) for kind, sizes in kinds.items()}
        assert 1.6 < steps["lif"] / steps["src"] < 2.5
    assert 0.45 < rows["src-sparse"][256]["operations"] / rows["src"][256]["operations"] < 0.6
    assert all(rows["src-sparse"][n]["score"] >= rows["src"][n]["score"] for n in (64, 128, 256))


def test_a_row_records_what_trained_it(tmp_path: Path) -> None:
    accuracy, program = script("experiments", "accuracy"), tmp_path / "row.py"
    program.write_text(
        "import json, pathlib, sys\n"
        "out = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"
        "out.mkdir()\n"
        "(out / 'result.json').write_text(json.dumps({'parameters': 1}))\n"
    )
    out = tmp_path / "run"
    first = accuracy.train(str(program), "data", 0, out)["trained"]
    assert first["environment"]["srcell"] == srcell.__version__
    assert first["processor"] and first["date"] and "results" not in first
    (out / "trained.json").write_text('{"processor": "another"}')  # the run may have been moved to this machine
    assert accuracy.train(str(program), "data", 0, out)["trained"] == {"processor": "another"}
    (out / "trained.json").unlink()
    assert accuracy.train(str(program), "data", 0, out)["trained"] is None
