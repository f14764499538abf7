"""The command line: what it prints, what it leaves, and errors in one line with exit code 2."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import srcell
from srcell import training
from srcell.cli import main
from srcell.config import TrainingConfig
from srcell.run_folder import RunFolder

TINY = ["train", "digits", "--hidden", "8", "--epochs", "2", "--steps", "5", "--batch-size", "256"]


def test_a_run_prints_a_line_an_epoch_and_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    assert main([*TINY, "--out", str(out)]) == 0
    printed = capsys.readouterr()
    first, second, result = printed.out.splitlines()
    assert first.startswith("epoch 1/2  loss ") and second.startswith("epoch 2/2  loss ")
    assert result.startswith("test accuracy ") and result.endswith(f"run folder {out}")
    assert "\x1b" not in printed.out and "\r" not in printed.out
    assert printed.err == ""
    assert (out / "model.safetensors").exists()


def test_a_terminal_gets_a_progress_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    assert main([*TINY, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    for part in ("epoch 2/2", "loss", "accuracy", "validation", "spike rate", "left", "test accuracy"):
        assert part in printed


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
    ) | {"channels": [], "hidden_sizes": [8, 6]}


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


def test_a_sweep_makes_each_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sweep", *TINY[1:], "--seeds", "0", "1", "--vary", "hidden", "4", "6-4", "--out", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    names = [f"hidden_sizes={sizes}-seed={seed}" for seed in (0, 1) for sizes in ("4", "6-4")]
    assert [line.split()[0] for line in printed.splitlines()[:4]] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert RunFolder.open(tmp_path / names[1]).config.hidden_sizes == (6, 4)
    assert "hidden_sizes=4: mean " in printed and "standard deviation" in printed
    times = [(tmp_path / name / "model.safetensors").stat().st_mtime_ns for name in names]
    assert main(command) == 0
    assert capsys.readouterr().out == printed
    assert [(tmp_path / name / "model.safetensors").stat().st_mtime_ns for name in names] == times


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


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"srcell {srcell.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "arguments are required"),
        (["trian"], "invalid choice: 'trian'"),
        (["train", "digit"], "unknown data set 'digit': did you mean 'digits'?"),
        (["train", "xyz"], "unknown data set 'xyz': expected one of digits"),
        (["train"], "expected a data set: one of digits, mnist, fashion-mnist, nmnist"),
        (["train", "mnist"], "no MNIST in data: expected the folder MNIST/raw or mnist there"),
        (["train", "nmnist"], "no N-MNIST in data: expected the folders Train and Test there"),
        (["train", "digits", "--preset", "bets"], "unknown preset 'bets': did you mean 'best'?"),
        (["eval", "full"], "full: expected the folder of a run, found no config.json in it"),
        (["sweep", "digits", "--vary", "epoch", "1"], "unknown setting 'epoch': did you mean 'epochs'?"),
        (["sweep", "digits", "--vary", "epochs", "x"], "--vary epochs: expected values of int, got x"),
        (["sweep", "digits", "--vary", "epochs"], "--vary epochs: expected values behind it"),
        (["train", "digits", "--epochs", "many"], "--epochs: invalid int value: 'many'"),
        (["train", "digits", "--epochs", "0"], "epochs: expected at least 1, got 0"),
        (["train", "digits", "--hidden", "0"], "hidden_sizes: expected at least 1 each, got [0]"),
        (["train", "digits", "--surrogate", "sigmoid"], "surrogate"),
        (["train", "digits", "--colour"], "unrecognized arguments: --colour"),
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
