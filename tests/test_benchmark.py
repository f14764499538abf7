"""The benchmark: its rows, result files and comparisons, and the report. No times are asserted."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo

import srcell
from srcell import benchmark
from srcell.benchmark import CASES, LABELS, Workload, cases, lateral_delays, rows, timing
from srcell.benchmark.cases import BOTH, FORWARD, Convolutional
from srcell.benchmark.rows import MAKERS
from srcell.cli import build_parser, main
from srcell.cli.bench import describe_result
from srcell.reference import src_reference
from support.imports import script

BENCH = Path(__file__).parent.parent / "bench"
TABLES = "docs/_machinery"
TINY = {
    "recurrence": Workload("recurrence", "recurrence", 6, (4,), ("eager", "srcell")),
    "layer": Workload("layer", "layer", 6, (4,), ("eager", "sparse", "dense", "events", "gru")),
    "lateral": Workload(
        "lateral",
        "lateral",
        6,
        (4,),
        ("lateral", "whole-10", "fractional-10", "learnt-10", "gathered-10", "picked-200"),
    ),
    "stack": Workload("stack", "stack", 6, (5, 10), ("eager", "dense", "events"), surrogate="relu"),
    "classifier": Workload("classifier", "classifier", 6, (10,), ("eager", "dense", "events"), full_gradient=True),
    "convolution": Convolutional(
        *("convolution", "convolution", 2 * 6 * 6, (3 * 3 * 3,), ("eager", "convolved", "dense", "events")),
        channels=(2, 3),
        graded=True,
    ),
    "network": Convolutional(
        *("network", "network", 2 * 6 * 6, (3 * 3 * 3, 4 * 2 * 2, 5, 10), ("eager", "convolved", "dense", "events")),
        channels=(2, 3, 4),
    ),
    "step": Workload("step", "step", 6, (4,), ("srcell", "rnn", "gru")),
    "module": Workload("module", "module", 6, (4,), ("srcell", "rnn", "gru")),
}
TINY = {name: replace(setting, steps=7, batch=3, density=0.3) for name, setting in TINY.items()}


@pytest.fixture(autouse=True)
def tiny_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the cases by tiny ones: measuring at full size takes minutes."""
    monkeypatch.setattr(benchmark, "CASES", {name: (setting,) for name, setting in TINY.items()})
    monkeypatch.setattr(cases, "CASES", benchmark.CASES)
    monkeypatch.setattr(timing, "SHORTEST", 0.0)


@pytest.fixture
def document() -> dict[str, Any]:
    """The results file of a made-up run of all cases, each row with times of 9 to 11 ms."""
    return benchmark.document([fake_result(setting) for case in CASES.values() for setting in case], Path(__file__))


def fake_result(setting: Workload) -> benchmark.Result:
    described = {key: value for key, value in vars(setting).items() if key != "rows"}
    return benchmark.Result(
        setting=described | {"threads": setting.threads or 2},
        repetitions=9,
        left_out={},
        milliseconds={
            row: {key: timing.Quartiles(quartile1=9.0, median=10.0, quartile3=11.0) for key in setting.passes}
            for row in setting.rows
        },
    )


@pytest.mark.parametrize("setting", TINY.values(), ids=TINY)
def test_every_row_has_quartiles_of_every_pass(setting: Workload) -> None:
    result = benchmark.measure(setting, repetitions=3)
    assert set(result["milliseconds"]) == set(setting.rows) and result["left_out"] == {}
    assert result["repetitions"] == 3
    for passes in result["milliseconds"].values():
        assert tuple(passes) == setting.passes
        assert all(0 < t["quartile1"] <= t["median"] <= t["quartile3"] for t in passes.values())


@pytest.mark.parametrize("name", [name for name, setting in TINY.items() if "eager" in setting.rows])
def test_the_rows_of_a_setting_do_the_same_work(name: str) -> None:
    """Every SRC row gives the same output, up to the effect of changing the parameters by two ulp."""
    setting = TINY[name]
    torch.manual_seed(0)
    make_row = MAKERS[setting.subject](replace(setting, steps=20, batch=16))  # no neuron fires before step 13
    rows = {name: make_row(name) for name in setting.rows if name != "gru"}
    outputs = {name: row.call().detach() for name, row in rows.items()}
    expected = outputs.pop("eager")
    assert expected.abs().sum() > 0
    with torch.no_grad():
        for leaf in rows["eager"].leaves:
            leaf.mul_(1 + 2**-22)
    bound = (rows["eager"].call() - expected).abs().max().item()
    for output in outputs.values():
        torch.testing.assert_close(output, expected, atol=4 * bound, rtol=0)


def test_the_rows_of_a_layer_with_delays_do_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same delays. Chunks of 7 steps pass on a history that is longer than a chunk."""
    monkeypatch.setattr(lateral_delays, "drawn", lambda setting, most, whole: torch.tensor([0.0, 10.0, 3.0, 7.0]))
    monkeypatch.setattr(rows, "CHUNK", 7)
    torch.manual_seed(0)
    make_row = MAKERS["lateral"](replace(TINY["lateral"], steps=40, batch=16))
    made = [make_row(name) for name in ("whole-10", "fractional-10", "learnt-10", "gathered-10", "picked-10")]
    outputs = [row.call() for row in made]
    assert (outputs[0] > 0.5).any() and not torch.equal(outputs[0], make_row("lateral").call())
    for row, output in zip(made, outputs, strict=True):
        torch.testing.assert_close(output, outputs[0], atol=1e-3, rtol=0)
        output.sum().backward()
        assert all(leaf.grad is not None and leaf.grad.any() for leaf in row.leaves)


def test_the_rows_of_a_convolution_compute_the_same_gradients() -> None:
    """The row "events" computes the gradient of its events alone."""
    torch.manual_seed(0)
    setting = replace(TINY["convolution"], steps=20, batch=16)
    make_row, gradient = MAKERS["convolution"](setting), torch.randn(20, 16, 27)
    made = {name: make_row(name) for name in setting.rows}
    found = {name: torch.autograd.grad(row.call(), row.leaves, gradient) for name, row in made.items()}
    *expected, at_inputs = found.pop("eager")
    active = made["eager"].leaves[-1].transpose(0, 1) != 0  # in the order of events
    at_events = at_inputs.transpose(0, 1)[active]
    assert at_events.any() and at_inputs.transpose(0, 1)[~active].any()
    for name, got in found.items():
        wanted = [*expected, at_events if name == "events" else at_inputs]
        for grad, reference in zip(got, wanted, strict=True):
            # float32 sums in another order, through 20 steps
            assert (grad - reference).abs().max() < 1e-3 * reference.abs().max()


def test_only_the_row_of_events_convolves_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    conv2d, called = torch.nn.functional.conv2d, []
    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda *x, **kw: called.append(0) or conv2d(*x, **kw))
    make_row, expected = MAKERS["network"](TINY["network"]), {"eager": 2, "convolved": 2, "events": 0}
    for name, count in expected.items():
        make_row(name).call()
        assert len(called) == count, name
        called.clear()


def test_the_layers_of_a_compiled_network_all_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in both modes and for both lengths of chunk; past its limit of graphs torch would run eagerly."""
    graphs: list[Any] = []

    def keep(graph: Any, _: object) -> Any:
        graphs.append(graph)
        return graph

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=keep))
    monkeypatch.setattr(rows, "CHUNK", 3)
    make_row = MAKERS["network"](TINY["network"])
    compiled, eager = (make_row(name).call for name in ("compiled", "eager"))
    with torch.no_grad():
        assert torch.equal(compiled(), eager())
    compiled().sum().backward()
    assert len(graphs) >= 4 * 2 * 2
    torch._dynamo.reset()


def test_the_row_of_spikingjelly_equals_its_own_modules() -> None:
    layer = pytest.importorskip("spikingjelly.activation_based.layer")
    neuron = pytest.importorskip("spikingjelly.activation_based.neuron")
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    torch.manual_seed(0)
    row = MAKERS["convolution"](TINY["convolution"])("lif")
    weight, _, dense = row.leaves
    convolution = layer.Conv2d(2, 3, 5, 2, 2, bias=False, step_mode="m")
    convolution.weight = weight
    net = torch.nn.Sequential(convolution, neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m"))
    output = net(dense.unflatten(2, (2, 6, 6))).flatten(2)
    assert output.any() and torch.equal(row.call(), output)
    gradient = torch.randn_like(output)
    grads = [torch.autograd.grad(made, (weight, dense), gradient) for made in (row.call(), output)]
    torch.testing.assert_close(*grads)
    assert "other equations" in LABELS["lif"]


def test_compiled_chunks_equal_the_eager_recurrence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    monkeypatch.setattr(rows, "CHUNK", 3)
    setting, current, bias = TINY["layer"], 4 * torch.randn(7, 3, 4), torch.full((4,), -6.0)
    compiled, eager = (rows.NEURONS[name](setting)(current, bias) for name in ("compiled", "eager"))
    assert torch.equal(compiled, eager)


def test_a_row_without_its_package_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    script("bench", "others")
    monkeypatch.setitem(sys.modules, "snntorch", None)
    monkeypatch.setitem(sys.modules, "spikingjelly.activation_based.neuron", None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    result = benchmark.measure(replace(TINY["layer"], rows=("dense", "snntorch", "lif", "compiled")), repetitions=2)
    assert list(result["milliseconds"]) == ["dense"]
    assert "snnTorch is not installed" in result["left_out"]["snntorch"]
    assert "SpikingJelly is not installed" in result["left_out"]["lif"]
    assert "no-such-compiler is not installed" in result["left_out"]["compiled"]


def test_gradients_are_freed_and_parameters_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = replace(TINY["layer"], rows=("dense", "gru"))
    made = {name: MAKERS["layer"](setting)(name) for name in setting.rows}
    monkeypatch.setitem(MAKERS, "layer", lambda setting: made.__getitem__)
    benchmark.measure(setting, repetitions=2)
    assert all(leaf.grad is None for row in made.values() for leaf in row.leaves)
    bias = made["dense"].leaves[1]
    assert torch.all(bias < -6)


def test_the_command_prints_every_row_and_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "speed.json"
    assert main(["bench", "layer", "--threads", "1", "--repetitions", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert printed.err == "measuring 1/1: layer, 6-4\n"
    for row in TINY["layer"].rows:
        assert LABELS[row] in printed.out
    written = json.loads(out.read_text())
    assert set(written) == {"date", "commit", "processor", "environment", "results"}
    environment = written["environment"]
    assert environment["torch"] == torch.__version__ and environment["srcell"] == srcell.__version__
    assert environment["isa"] == srcell.info()["isa"] and environment["python"].count(".") == 2
    assert written["processor"]
    (result,) = written["results"]
    expected = json.loads(json.dumps({key: value for key, value in vars(TINY["layer"]).items() if key != "rows"}))
    assert result["setting"] == expected | {"threads": 1}
    assert set(result["milliseconds"]["events"]) == {FORWARD, BOTH}


def test_times_of_convolutions_are_printed_for_a_sample() -> None:
    _, head, line, *_ = describe_result(fake_result(replace(TINY["network"], batch=32)))
    assert "forward, ms/sample" in head and "0.312 (0.281 to 0.344)" in line
    _, head, line, *_ = describe_result(fake_result(replace(TINY["layer"], batch=32)))
    assert "forward, ms " in head and "10.00 (9.00 to 11.00)" in line


def die(*_: object) -> None:
    os._exit(1)


def test_a_process_that_dies_is_reported_in_one_line(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_send_measured", die)
    for option, threads in (([], ""), (["--threads", "2"], " for 2 threads")):
        assert main(["bench", "layer", *option]) == 2
        _, line = capfd.readouterr().err.splitlines()
        assert line == f"srcell: the process of case layer died: was there enough memory{threads}?"


def test_an_error_in_the_process_of_a_case_is_raised_here(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyError, match="no such subject") as caught:
        list(benchmark.run([replace(TINY["layer"], subject="no such subject")], repetitions=2))
    assert "in measure" in str(caught.value.__cause__)
    assert capfd.readouterr().err == ""
    benchmark.CASES["layer"] = (replace(TINY["layer"], steps=2**45),)
    assert main(["bench", "layer"]) == 2
    _, line = capfd.readouterr().err.splitlines()
    assert line.startswith("srcell: out of memory: smaller sizes or batches need less")


@pytest.mark.parametrize("threads", [0, -1, 1025, 99999999999, 10**30])
def test_a_number_of_threads_that_cannot_run_is_named(threads: int) -> None:
    with pytest.raises(ValueError, match=rf"^threads: expected an int in \[1, 1024\], got {threads}$"):
        benchmark.choose(["layer"], threads=threads)


def test_quick_uses_smaller_batches_and_a_settings_own_threads_win() -> None:
    large = replace(TINY["layer"], batch=256, rows=("eager", "compiled"))
    benchmark.CASES["layer"] = (replace(large, threads=1), large)
    chosen = benchmark.choose(["layer"], quick=True, threads=4)
    assert [(x.batch, x.rows, x.threads) for x in chosen] == [(32, ("eager",), 1), (32, ("eager",), 4)]


def test_cases_cover_all_densities_modes_and_batches() -> None:
    densities = [setting.density for setting in CASES["density"]]
    assert min(densities) == 0.001 and max(densities) == 1
    assert {(s.surrogate, s.full_gradient) for s in CASES["modes"]} == {
        (surrogate, recurrent) for surrogate in ("relu", "straight_through") for recurrent in (False, True)
    }
    assert {setting.batch for setting in CASES["classifier"]} == {1, 256}
    for name, case in CASES.items():
        assert all(setting.case == name and set(setting.rows) <= set(LABELS) for setting in case)


def test_the_sizes_of_the_convolutional_cases_fit() -> None:
    layers = [replace(setting, steps=2, batch=1) for setting in CASES["conv"]]
    shapes = [tuple(MAKERS[x.subject](x)("events").call().shape) for x in layers]
    assert shapes == [(2, 1, 12 * 17 * 17), (2, 1, 24 * 9 * 9), (1, 10)]
    *_, network = layers
    expected = srcell.models.SRCConvClassifier((2, 34, 34), [12, 24], [128], 10)
    parameters = MAKERS["network"](network)("events").leaves
    assert [x.shape for x in parameters] == [x.shape for x in expected.parameters()]
    assert network.neurons == tuple(x.numel() for x in expected.fan_outs()[1:])


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ((9.9, 10.0, 10.1), (11.9, 12.0, 12.1), 1),
        ((9.0, 10.0, 12.5), (11.9, 12.0, 12.1), 0),  # within the spread
        ((9.9, 10.0, 10.1), (10.2, 10.3, 10.4), 0),  # within the margin for differences between processes
        ((11.9, 12.0, 12.1), (9.9, 10.0, 10.1), 0),  # faster
    ],
)
def test_compare_flags_a_slowed_row_and_not_noise(
    old: tuple[float, ...], new: tuple[float, ...], status: int, document: dict[str, Any], tmp_path: Path
) -> None:
    documents = [document, copy.deepcopy(document)]
    for changed, quartiles in zip(documents, (old, new), strict=True):
        times = changed["results"][5]["milliseconds"]["events"][BOTH]
        times.update(zip(("quartile1", "median", "quartile3"), quartiles, strict=True))
    done = run_compare(tmp_path, *documents)
    assert done.returncode == status
    slower = [line for line in done.stdout.splitlines() if line.startswith("slower: ")]
    assert len(slower) == status and all(f"events, {BOTH}: 10.00 -> 12.00 ms, 1.20 times" in line for line in slower)


def test_compare_refuses_files_that_cannot_be_compared(document: dict[str, Any], tmp_path: Path) -> None:
    for other, message in (
        (document | {"processor": "another"}, "not comparable: processor was"),
        (document | {"results": []}, "not comparable: no setting was measured in both"),
        ({"processor": document["processor"]}, "a file is not from srcell bench: it has no 'environment'"),
    ):
        done = run_compare(tmp_path, document, other)
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def run_compare(folder: Path, *documents: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    paths = [folder / f"{number}.json" for number in range(len(documents))]
    for path, document in zip(paths, documents, strict=True):
        path.write_text(json.dumps(document))
    command = [sys.executable, str(BENCH / "compare.py"), *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True)


def test_the_report_draws_both_sweeps_and_writes_tables(document: dict[str, Any]) -> None:
    report = script(TABLES, "report", "bench")
    document = json.loads(json.dumps(document))
    for plot in (report.density_plot, report.steps_plot):
        assert all(panel.lines for panel in plot(document).axes)
    assert "| **10.0 / 10.0** | 10.0 / 10.0 | 1.0 / 1.0 |" in report.section([document])
    recurrence = report.lines(report.recurrence_table(document))
    assert "| 512, forward and backward, through time | **1.0** | **10.0** | 10.0 | 10.0 |" in recurrence


def test_the_prose_of_the_readme_states_the_recorded_results() -> None:
    report, accuracy = script(TABLES, "report", "bench"), script("experiments", "accuracy")
    text = (report.ROOT / "README.md").read_text()
    forward, both = zip(*(pair for one in report.documents() for pair in report.ratios(one).values()), strict=True)
    assert f"the forward pass is {min(forward):.0f} to {max(forward):.0f} times as fast" in " ".join(text.split())
    assert f"with the backward pass, {min(both):.0f} to {max(both):.0f}, by size" in " ".join(text.split())
    rows = {row["id"]: row for row in json.loads(accuracy.ROW_FILE.read_text())}
    found = {name: row["test_accuracy"] for name, row in rows.items()}
    seeds = [100 * x for x in rows["depth-lif-10"]["test_accuracies"]]
    assert f"of the spikes below them, reached {100 * found['depth-src-10']:.0f} %" in " ".join(text.split())
    assert f"(LIF) neurons {min(seeds):.0f} to {max(seeds):.0f} %" in " ".join(text.split())
    assert all(found[f"depth-lif-{depth}"] > found[f"depth-src-{depth}"] for depth in (1, 3, 5))


def test_the_accuracy_table_has_one_line_per_row() -> None:
    tables = script(TABLES, "accuracy_tables", "bench", "experiments")
    row = {
        "id": "mnist-100",
        "data": "MNIST, rate",
        "network": "784-100",
        "mode": "relu",
        "seeds": [0, 1],
        "epochs": 20,
        "seconds": 90.0,
        "test_accuracy": 0.97125,
        "test_accuracies": [0.97, 0.973],
        "events_per_inference": 5555.5,
        "synops_per_inference": None,
        "test_looks": 1,
    }
    assert "| mnist-100 | 97.12 % | 0.15 | 2 | MNIST, rate | 784-100 |" in tables.table([row])
    *_, gradient, looks = tables.table([row | {"test_looks": 3}])
    assert gradient == "- Gradient relu: mnist-100."
    assert looks == "- Test set used more than once: mnist-100 (3 times)."
    *_, cost = tables.cost_table([row])
    assert cost == "| mnist-100 | 1.5 | 20 | 5,556 | - | - |"


def test_commands_of_the_accuracy_table_are_valid() -> None:
    accuracy = script("experiments", "accuracy")
    for row in accuracy.TABLE.values():
        program, *arguments = row.command.split()
        assert row.mode in accuracy.MODES and "--validation" in arguments
        if program == "srcell":
            assert build_parser().parse_args(arguments).dataset
        else:
            assert (BENCH.parent / "experiments" / "rows" / program).is_file()


def test_recorded_rows_match_the_accuracy_table() -> None:
    accuracy = script("experiments", "accuracy")
    for row in json.loads(accuracy.ROW_FILE.read_text()):
        planned = accuracy.TABLE[row["id"]]
        assert row["command"] == f"{planned.command} --epochs {planned.epochs} --seed SEED"
        assert (row["data"], row["network"], row["epochs"]) == (planned.data, planned.network, planned.epochs)
        assert row["mode"] == accuracy.MODES[planned.mode]
        assert (row["configurations_tried"], row["test_looks"]) == (planned.configurations_tried, planned.test_looks)
        assert row["seeds"] == list(planned.seeds) and len(row["test_accuracies"]) == len(planned.seeds)


def test_the_step_for_generated_kernels_equals_the_reference() -> None:
    torch.manual_seed(0)
    current, *state = (5 * torch.rand(4, 2, 3, dtype=torch.float64) - 1).unbind(0)
    bias = torch.full((3,), -6.0, dtype=torch.float64)
    expected, after = src_reference(current[None], bias, state)
    spikes, *got = script("bench", "gpu").step(current, *state, bias)
    torch.testing.assert_close([spikes, *got], [expected[0], *after], rtol=0, atol=1e-12)
