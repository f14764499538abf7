"""The command line: what it prints and writes, and errors in one line with exit code 2."""

from __future__ import annotations

import csv
import json
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import srcell
from srcell import data, kernels, plots, training
from srcell.cli import build_parser, main
from srcell.cli.parser import given_settings
from srcell.training.config import SETTINGS, TrainingConfig
from srcell.training.presets import PRESETS
from srcell.training.run_folder import RunFolder

QUICK = ["digits", "--hidden", "--epochs", "1", "--steps", "5", "--batch-size", "256"]
TINY = ["train", "digits", "--hidden", "8", "--epochs", "2", "--steps", "5", "--batch-size", "256"]


def test_a_run_prints_a_line_an_epoch_and_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*TINY, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    *header, first, second, result = printed.out.splitlines()
    assert header == [
        "data     digits: 1,212 training, 135 validation, 450 test samples",
        f"network  64-8-100, {64 * 8 + 8 + 8 * 100 + 100:,} parameters, preset best, seed 0",
        f"machine  cpu, threads {torch.get_num_threads()}, {srcell.info()['isa']}",
        f"folder   {out}",
    ]
    assert first.startswith("epoch 1/2  loss ") and second.startswith("epoch 2/2  loss ")
    assert result.startswith("test accuracy ") and result.endswith(f"run folder {out}")
    assert "\x1b" not in printed.out and "\r" not in printed.out
    assert printed.err == ""
    assert (out / "model.safetensors").exists()


def test_a_terminal_gets_a_progress_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*TINY, "--out", str(tmp_path / "run")]) == 0
    # Without escape sequences, and with each state of the bar on a line of its own.
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out).strip())
    header = [line for line in lines if line.startswith(("data  ", "network  ", "machine  ", "folder  "))]
    assert [line.split()[0] for line in header] == ["data", "network", "machine", "folder"]
    bar = [line for line in lines if "epoch 2/2" in line and "validation" in line][-1]
    for part in ("━━━━", "loss", "accuracy", "validation", "0:00 left"):
        assert part in bar
    assert "test accuracy" in lines[-1]
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "epoch 2/2" in printed and "epoch 3/2" not in printed


def test_options_reach_the_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = [
        "--hidden",
        "8",
        "6",
        "--lr",
        "0.002",
        "--gain",
        "0.8",
        "--seed",
        "7",
        "--surrogate",
        "relu",
        "--recurrent-grad",
    ]
    assert main([*TINY, *options, "--out", str(out)]) == 0
    training = json.loads((out / "config.json").read_text())["training"]
    assert training == asdict(
        replace(
            TrainingConfig(),
            hidden_sizes=(8, 6),
            epochs=2,
            batch_size=256,
            learning_rate=0.002,
            seed=7,
            steps=5,
            gain=0.8,
            surrogate="relu",
            recurrent_grad=True,
        )
    ) | {"channels": [], "hidden_sizes": [8, 6], "weight_bits": [4]}


def test_eval_gives_the_figure_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*TINY, "--out", str(out)]) == 0
    accuracy = json.loads((out / "result.json").read_text())["test_accuracy"]
    capsys.readouterr()
    for binary in ([], ["--binary"]):
        assert main(["eval", str(out), *binary]) == 0
        first, header, *layers = capsys.readouterr().out.splitlines()
        assert header.split() == ["a", "mean", "inference", "events", "spikes", "additions", "multiply-adds"]
        assert [line[:7] for line in layers] == ["input  ", "layer 1", "layer 2"]
        additions = [line.split()[-2] != "0" for line in layers]
        assert additions == ([True] * 3 if binary else [True, False, False])
        if not binary:
            assert first == f"test accuracy {accuracy:.2%} on 450 samples"


def test_resume_goes_on_and_takes_no_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*TINY, "--out", str(out)]) == 0
    weights = (out / "model.safetensors").read_bytes()
    (out / "model.safetensors").unlink()
    assert main(["eval", str(out)]) == 2
    assert "the run has not ended, resume it" in capsys.readouterr().err
    assert main(["train", "--resume", str(out)]) == 0
    assert (out / "model.safetensors").read_bytes() == weights
    assert main(["train", "--resume", str(out), "--epochs", "5"]) == 2
    assert "no settings" in capsys.readouterr().err


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write empty plots: drawing them takes most of the time of a tiny run."""
    for name in ("learning_curve", "raster", "rates", "confusion"):
        monkeypatch.setattr(plots, name, lambda *_: SimpleNamespace(savefig=lambda *_, **__: None))


@pytest.mark.usefixtures("without_plots")
def test_a_sweep_shows_where_it_is_and_ends_with_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = [word for word in QUICK if word != "--hidden"]
    command = ["sweep", *quick, "--seeds", "3", "4", "--vary", "hidden", "4", "6-4", "--out", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    cases = [(sizes, seed) for seed in (3, 4) for sizes in ((4,), (6, 4))]
    names = {case: f"hidden_sizes={'-'.join(map(str, case[0]))}-seed={case[1]}" for case in cases}
    left = ["3 more after it", "2 more after it", "1 more after it", "the last"]
    assert printed[0] == f"runs in {tmp_path}: 4, done before: 0"
    assert [line for line in printed if re.match("run [1-9]", line)] == [
        f"run {k}/4  {names[case]}  {what}" for k, (case, what) in enumerate(zip(cases, left, strict=True), start=1)
    ]
    assert sum(line.startswith("epoch 1/1  loss ") for line in printed) == 4
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == sorted(names.values())
    for case in cases:
        config = RunFolder.open(tmp_path / names[case]).config
        assert (config.hidden_sizes, config.seed) == case

    results = {case: json.loads((tmp_path / names[case] / "result.json").read_text()) for case in cases}
    accuracy = {case: result["test_accuracy"] for case, result in results.items()}
    expected = [
        {
            "settings": {"hidden_sizes": list(sizes)},
            "seeds": [3, 4],
            "mean_test_accuracy": statistics.mean([accuracy[sizes, 3], accuracy[sizes, 4]]),
            "standard_deviation": statistics.stdev([accuracy[sizes, 3], accuracy[sizes, 4]]),
        }
        for sizes in ((4,), (6, 4))
    ]
    head, *table, last = printed[-4:]
    assert re.split("  +", head) == ["settings", "seeds", "mean test accuracy", "standard deviation"]
    assert [line.split() for line in table] == [
        [name, "3", "4", f"{row['mean_test_accuracy']:.2%}", f"{row['standard_deviation']:.2%}"]
        for name, row in zip(("hidden_sizes=4", "hidden_sizes=6-4"), expected, strict=True)
    ]
    assert last == f"run folders, sweep.json and sweep.csv in {tmp_path}"
    summary = json.loads((tmp_path / "sweep.json").read_text())
    assert summary["planned_runs"] == 4 and summary["combinations"] == expected
    assert summary["runs"] == [
        {"hidden_sizes": list(sizes), "seed": seed, "test_accuracy": accuracy[case], "run_folder": names[case]}
        for case in cases
        for sizes, seed in [case]
    ]
    assert b"\r" not in (tmp_path / "sweep.csv").read_bytes()
    with open(tmp_path / "sweep.csv", newline="") as file:
        assert [list(row.values()) for row in csv.DictReader(file)] == [
            [names[case].split("=")[1].removesuffix("-seed"), str(case[1]), str(accuracy[case]), names[case]]
            for case in cases
        ]

    models = [tmp_path / name / "model.safetensors" for name in names.values()]
    times = [model.stat().st_mtime_ns for model in models]
    assert main(command) == 0
    again = capsys.readouterr().out.splitlines()
    assert again == [f"runs in {tmp_path}: 4, done before: 4", *printed[-4:]]
    assert [model.stat().st_mtime_ns for model in models] == times


@pytest.mark.parametrize(
    ("words", "seeds"),
    [
        (["--vary", "seed", "1", "2", "3"], [1, 2, 3]),
        (["--seeds", "1", "2"], [1, 2]),
        (["--seed", "5"], [5]),
        ([], [0]),
    ],
)
def test_a_sweep_trains_the_seeds_that_it_is_given(
    words: list[str], seeds: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []

    def note(config: TrainingConfig, out: Path, *_: object) -> SimpleNamespace:
        trained.append((out.name, config.seed))
        return SimpleNamespace(evaluation=SimpleNamespace(accuracy=0.5))

    monkeypatch.setattr(training, "train", note)
    assert main(["sweep", *QUICK, *words, "--out", str(tmp_path)]) == 0
    assert trained == [(f"seed={seed}", seed) for seed in seeds]


@pytest.mark.landing
@pytest.mark.usefixtures("without_plots")
def test_a_sweep_that_is_stopped_leaves_what_is_done_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    train_epoch = training.Trainer.train_epoch

    def stopped_at_seed_1(trainer: training.Trainer) -> Iterator[float]:
        if trainer.config.seed == 1:
            raise KeyboardInterrupt
        return train_epoch(trainer)

    command = ["sweep", *QUICK, "--seeds", "0", "1", "--out", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "train_epoch", stopped_at_seed_1)
        assert main(command) == 130
    summary = json.loads((tmp_path / "sweep.json").read_text())
    assert summary["planned_runs"] == 2 and [row["seed"] for row in summary["runs"]] == [0]
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 2
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "done before: 1\nrun 2/2  seed=1  the last\n" in printed and "run 1/2" not in printed
    assert [row["seed"] for row in json.loads((tmp_path / "sweep.json").read_text())["runs"]] == [0, 1]


@pytest.mark.parametrize("content", ["{}", "[]", "x", '{"test_accuracy": "high"}', "[" * 100_000])
def test_a_sweep_names_a_result_that_is_none(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RunFolder.create(tmp_path / "seed=0", TrainingConfig(hidden_sizes=(), epochs=1, steps=5, batch_size=256))
    result = tmp_path / "seed=0" / "result.json"
    result.write_text(content)
    assert main(["sweep", *QUICK, "--out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"srcell: {result}: expected the result of a run, with its test_accuracy, got ")
    assert "delete the file, and the same sweep evaluates the run again" in line


@pytest.mark.landing
@pytest.mark.usefixtures("without_plots")
def test_a_sweep_evaluates_a_run_whose_result_was_deleted(tmp_path: Path) -> None:
    command = ["sweep", *QUICK, "--out", str(tmp_path)]
    assert main(command) == 0
    result, model = tmp_path / "seed=0" / "result.json", tmp_path / "seed=0" / "model.safetensors"
    accuracy, weights = json.loads(result.read_text())["test_accuracy"], model.read_bytes()
    result.unlink()
    assert main(command) == 0
    assert json.loads(result.read_text())["test_accuracy"] == accuracy and model.read_bytes() == weights


def test_by_default_a_run_gets_a_new_folder_under_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(TINY) == 0
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name.startswith("digits-")
    assert (out / "config.json").exists()


def test_info_tells_every_fact(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    printed = capsys.readouterr().out
    for name in srcell.info():
        assert name in printed
    assert srcell.info()["isa"] in printed and srcell.__version__ in printed


BUILT = "runtime 12.8, architectures 90"


@pytest.mark.parametrize(
    ("built", "torch_cuda", "gpu", "expected"),
    [
        (BUILT, "12.8", True, BUILT),
        (BUILT, "12.8", False, "no: torch finds no GPU"),
        (BUILT, None, False, "no: torch was built without CUDA"),
        (None, "12.8", True, "no: srcell was built without CUDA kernels"),
        (None, None, False, "no: srcell was built without CUDA kernels, torch was built without CUDA"),
    ],
)
def test_info_says_cuda_only_where_layers_can_run_on_a_gpu(
    built: str | None,
    torch_cuda: str | None,
    gpu: bool,
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    facts = kernels.core_info() | {"cuda": built}
    monkeypatch.setattr(kernels, "core_info", lambda: facts)
    monkeypatch.setattr(torch.version, "cuda", torch_cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert srcell.info()["cuda"] == (BUILT if expected == BUILT else None)
    assert main(["info"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cuda ")]
    assert line == f"{'cuda':16}{expected}"


def help_of(capsys: pytest.CaptureFixture[str], *command: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main([*command, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == help_of(capsys)
    assert all(command in printed.out for command in ("train", "eval", "sweep", "bench", "info"))


def test_the_help_of_train_has_defaults_examples_and_options_that_stand_for_each_preset(
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = help_of(capsys, "train")
    assert "learning rate, the peak of a one-cycle schedule [0.04]" in " ".join(printed.split())
    assert "  srcell train mnist --preset fast" in printed
    table = printed.partition("presets, as options:")[2].partition("\n\n")[0]
    entries = re.findall(r"^  (\S+), (\S+) +((?:.*\n)(?: {10}.*\n)*)", table + "\n", re.MULTILINE)
    assert len(entries) == 1 + sum(map(len, PRESETS.values()))
    for preset, dataset, options in entries:
        words = [] if options.strip() == "the defaults" else options.split()
        able = [name for name in data.NAMES if preset != "integer" or name not in data.SEQUENTIAL]
        for name in able if dataset == "all" else [dataset]:
            given = given_settings(build_parser().parse_args(["train", name, *words]))
            assert TrainingConfig.preset(preset, name) == TrainingConfig(dataset=name, **given)


def test_the_help_of_eval_lists_what_eval_takes(capsys: pytest.CaptureFixture[str]) -> None:
    options = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", help_of(capsys, "eval"), re.MULTILINE))
    assert options == {"--help", "--data", "--download", "--cache", "--workers", "--device", "--binary"}


@pytest.mark.parametrize("option", [x.option for x in SETTINGS.values() if type(x.default) in (int, float)])
def test_an_error_about_a_number_names_its_option(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", option, "-1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"srcell: {option}: expected ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"srcell {srcell.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "invalid choice: 'trian'"),
        (["train", "digit"], "unknown data set 'digit': did you mean 'digits'?"),
        (["train", "xyz"], "unknown data set 'xyz': expected one of digits"),
        (["train"], "expected a data set: one of " + ", ".join(data.NAMES)),
        (["train", "mnist"], "no MNIST in data: expected the folder MNIST/raw or mnist there"),
        (["train", "nmnist"], "no N-MNIST in data: expected the folders Train and Test there"),
        (["train", "digits", "--preset", "bets"], "unknown preset 'bets': did you mean 'best'?"),
        (["eval", "full"], "full: expected the folder of a run, found no config.json in it"),
        (["sweep", "digits", "--vary", "epoch", "1"], "unknown setting 'epoch': did you mean 'epochs'?"),
        (["sweep", "digits", "--vary", "epochs", "x"], "--vary epochs: expected values of int, got x"),
        (["sweep", "digits", "--vary", "epochs"], "--vary epochs: expected values behind it"),
        (["train", "digits", "--epochs", "many"], "--epochs: invalid int value: 'many'"),
        (["train", "digits", "--epochs", "0"], "--epochs: expected at least 1, got 0"),
        (["train", "digits", "--lr", "5"], "--lr: expected a number in (0, 1], got 5.0"),
        (["train", "digits", "--hidden", "0"], "--hidden: expected at least 1 each, got [0]"),
        (["train", "digits", "--workers", "-1"], "--workers: expected at least 0, got -1"),
        (["train", "digits", "--train-samples", "9999"], "--train-samples: expected at most 1212"),
        (["bench", "--threads", "0"], "--threads: expected at least 1, got 0"),
        (["sweep", "digits", "--vary", "lr", "5"], "--lr: expected a number in (0, 1], got 5.0"),
        (["sweep", "digits", "--seeds", "1", "--seed", "2"], "--seed and --seeds: expected one of them"),
        (["sweep", "digits", "--seeds", "1", "--vary", "seed", "2"], "--seeds and --vary seed: expected one of them"),
        (["sweep", "digits", "--seed", "1", "--vary", "seed", "2"], "--seed and --vary seed: expected one of them"),
        (["sweep", "digits", "--lr", ".1", "--vary", "lr", ".2"], "--lr and --vary lr: expected one of them"),
        (["train", "digits", "--surrogate", "sigmoid"], "surrogate"),
        (["train", "digits", "--colour"], "unrecognized arguments: --colour: see srcell train --help"),
        (["train", "digits", "--epohcs=3"], "unrecognized arguments: --epohcs=3: did you mean --epochs?"),
        (["sweep", "digits", "--varry", "lr"], "unrecognized arguments: --varry lr: did you mean --vary?"),
        (["eval", "full", "--checkpoint-seconds", "1"], "unrecognized arguments: --checkpoint-seconds 1"),
        (["--versoin"], "unrecognized arguments: --versoin: did you mean --version?"),
        ([*TINY, "--out", "full"], "full exists and is not an empty folder"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("srcell: ") and message in line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "x"], "--device: expected one that this machine has, got 'x'"),
        (["--device", ""], "--device: expected one that this machine has, got ''"),
        (["--device", "meta"], "--device: expected the CPU or a GPU (cuda), got 'meta'"),
        (["--batch-size", "9" * 30], "--batch-size: expected at most"),
        (["--hidden", "2000000000"], "out of memory: smaller sizes or batches need less"),
    ],
)
def test_an_error_is_a_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"srcell: {message}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("package", ["sklearn", "rich.progress"])
def test_a_missing_extra_says_how_to_get_it(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main([*TINY, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert 'pip install "srcell[train]"' in line


@pytest.mark.parametrize(
    ("stop", "code", "message"),
    [
        (FloatingPointError("the loss became nan"), 2, "srcell: the loss became nan\n"),
        (KeyboardInterrupt(), 130, "srcell: interrupted\n"),
    ],
)
def test_a_run_that_stops_early_leaves_no_traceback(
    stop: BaseException,
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*_: object) -> None:
        raise stop

    monkeypatch.setattr(training.Trainer, "train_epoch", stopped)
    assert main([*TINY, "--out", str(tmp_path / "run")]) == code
    assert capsys.readouterr().err == message


def test_a_path_that_is_called_like_a_setting_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "data"]) == 2
    assert capsys.readouterr().err.startswith("srcell: data: expected the folder of a run")


def test_seconds_that_are_no_number_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--checkpoint-seconds", "nan"]) == 2
    assert capsys.readouterr().err == "srcell: --checkpoint-seconds: expected at least 0, got nan\n"
