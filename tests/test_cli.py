"""The command line: its output and files, and user errors in one line with exit code 2."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import srcell
from srcell import data, kernels, plots, training
from srcell.cli import build_parser, info, main
from srcell.cli.options import given_settings
from srcell.cli.terminal import printable
from srcell.evaluation import Evaluation
from srcell.training import RunOptions, TrainedRun
from srcell.training.config import SETTINGS, TrainingConfig
from srcell.training.presets import PRESETS
from support.processes import ONE_THREAD
from support.refusals import user_error

TINY = "train digits --hidden 8 --epochs 2 --steps 5 --batch-size 256"


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def srcell_command(line: str) -> int:
    """The exit code of the command ``srcell LINE``."""
    return main(line.split())


def test_a_run_prints_one_line_per_epoch_and_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert srcell_command(TINY) == 0
    (out,) = Path("runs").iterdir()
    assert out.name.startswith("digits-") and (out / "model.safetensors").exists()
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


def test_a_terminal_gets_a_progress_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert srcell_command(f"{TINY} --out run") == 0
    # The output without escape sequences, each state of the bar on its own line.
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out).strip())
    header = [line for line in lines if line.startswith(("data  ", "network  ", "machine  ", "folder  "))]
    assert [line.split()[0] for line in header] == ["data", "network", "machine", "folder"]
    bar = [line for line in lines if "epoch 2/2" in line and "validation" in line][-1]
    for part in ("━━━━", "loss", "accuracy", "validation", "0:00 left"):
        assert part in bar
    assert "test accuracy" in lines[-1]
    assert srcell_command("train --resume run") == 0
    printed = capsys.readouterr().out
    assert "epoch 2/2" in printed and "epoch 3/2" not in printed


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("info", 141),
        pytest.param(f"{TINY} --out run", 0, marks=pytest.mark.landing),
    ],
)
def test_a_closed_pipe_does_not_stop_training_and_ends_info_quietly(line: str, status: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "srcell", *line.split()]
    with os.fdopen(writer, "wb") as closed:
        done = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
    assert (done.returncode, done.stderr) == (status, "")
    results = [*Path().glob("*/result.json"), *Path().glob("*/*/result.json")]
    assert len(results) == (status == 0)


Call = tuple[TrainingConfig, Path, RunOptions]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The arguments of each call of ``training.train``, which only makes the folder."""
    calls: list[Call] = []

    def train(config: TrainingConfig, out: Path, _: object, options: RunOptions) -> SimpleNamespace:
        calls.append((config, out, options))
        out.mkdir(parents=True)
        return SimpleNamespace(
            history=[],
            evaluation=Evaluation(accuracy=0.5, confusion=torch.zeros(2, 2), counts=[], rates=[], loss=0.5),
        )

    monkeypatch.setattr(training, "train", train)
    return calls


def test_options_reach_the_run(calls: list[Call]) -> None:
    settings = "--hidden 8 6 --lr 0.002 --gain 0.8 --seed 7 --surrogate relu --full-gradient"
    settings += " --input-delay 10 --taps 3 --recurrent --recurrent-delay 5 --learn-delays --whole-delays"
    settings += " --delay-width 8 1 --delay-lr 1.5 --amp"
    machine = "--data there --download --cache --workers 2 --device cpu --checkpoint-seconds inf --no-diagnose"
    assert srcell_command(f"{TINY} {settings} {machine} --out run") == 0
    expected = TrainingConfig(
        hidden_sizes=(8, 6),
        epochs=2,
        batch_size=256,
        learning_rate=0.002,
        seed=7,
        steps=5,
        gain=0.8,
        surrogate="relu",
        full_gradient=True,
        input_delay=10,
        taps=3,
        recurrent=True,
        recurrent_delay=5,
        learn_delays=True,
        whole_delays=True,
        delay_width=(8, 1),
        delay_learning_rate=1.5,
        amp=True,
    )
    assert calls == [(expected, Path("run"), RunOptions(Path("there"), True, True, 2, "cpu", math.inf, diagnose=False))]


def test_eval_prints_the_accuracy_of_the_run(run: TrainedRun, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for binary in ("", "--binary"):
        assert srcell_command(f"eval {out} {binary}") == 0
        first, header, *layers = capsys.readouterr().out.splitlines()
        assert header.split() == ["a", "mean", "inference", "events", "spikes", "additions", "multiply-adds"]
        assert [line[:7] for line in layers] == ["input  ", "layer 1", "layer 2"]
        additions = [line.split()[-2] != "0" for line in layers]
        assert additions == ([True] * 3 if binary else [True, False, False])
        if not binary:
            assert first == f"test accuracy {run.evaluation.accuracy:.2%} on 450 samples"


@pytest.mark.usefixtures("run")
def test_resume_writes_the_weights_of_the_complete_run(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path("copy")
    shutil.copytree(out, copy)
    (copy / "model.safetensors").unlink()
    assert "the run has not ended, resume it" in user_error(f"eval {copy}", capsys)
    assert srcell_command(f"train --resume {copy}") == 0
    assert (copy / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write empty plots: drawing them takes most of the time of a tiny run."""
    for name in ("learning_curve", "raster", "rates", "confusion"):
        monkeypatch.setattr(plots, name, lambda *_: SimpleNamespace(savefig=lambda *_, **__: None))


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
def test_info_prints_every_fact_and_why_layers_cannot_run_on_a_gpu(
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
    assert srcell_command("info") == 0
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed.keys() == srcell.info().keys()
    assert printed["isa"] == srcell.info()["isa"] and printed["version"] == srcell.__version__
    assert printed["cuda"] == expected


def printed_before_exit(line: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        srcell_command(line)
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed_before_exit("--version", capsys) == f"srcell {srcell.__version__}\n"


def test_help_is_printed_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert srcell_command("") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out == printed_before_exit("--help", capsys)
    assert all(command in printed.out for command in ("train", "eval", "bench", "listen", "info"))


def test_the_help_of_train_shows_defaults_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    printed = printed_before_exit("train --help all", capsys)
    assert "learning rate; with one-cycle, its peak [0.04]" in " ".join(printed.split())
    assert "  srcell train mnist --preset fast" in printed
    table = printed.partition("presets, as options:")[2].partition("\n\n")[0]
    entries = re.findall(r"^  (\S+), (\S+) +((?:.*\n)(?: {10}.*\n)*)", table + "\n", re.MULTILINE)
    assert len(entries) == 1 + sum(map(len, PRESETS.values()))
    for preset, dataset, options in entries:
        if dataset in ("sequences", "sounds"):  # kinds of one's own data, see test_own_data.py
            continue
        words = [] if options.strip() == "the defaults" else options.split()
        barred = (*data.SEQUENTIAL, *data.SOUNDS) if preset == "integer" else ()
        able = [name for name in data.NAMES if name not in barred]
        for name in able if dataset == "all" else [dataset]:
            given = given_settings(build_parser().parse_args(["train", name, *words]))
            assert TrainingConfig.preset(preset, name) == TrainingConfig(dataset=name, **given)


@pytest.mark.parametrize(
    ("arguments", "shown", "left_out"),
    [
        ("train", {"hidden", "gain", "lr"}, {"hold", "frame", "taps", "weight-bits", "recurrent-delay"}),
        ("train japanese-vowels", {"hold", "recurrent-delay", "readout-window"}, {"gain", "steps", "frame"}),
        ("train spoken-digits", {"hold", "frame", "threshold"}, {"gain", "prefix", "recall-delay"}),
        ("train mnist --encoding latency", {"steps", "prefix"}, {"gain", "thinned"}),
        ("train mnist --preset integer", {"weight-bits", "gain"}, {"alpha", "surrogate", "recurrent"}),
        ("train mnist --channels 8", {"surrogate", "channels"}, {"recurrent", "omega", "readout"}),
        ("train mnist --input-delay 9", {"taps", "learn-delays"}, {"delay-width", "recurrent-delay"}),
    ],
)
def test_the_help_of_train_shows_what_the_data_set_and_network_use(
    arguments: str, shown: set[str], left_out: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = printed_before_exit(f"{arguments} --help", capsys)
    options = set(re.findall(r"^  --([a-z-]+)", printed, re.MULTILINE))
    assert shown <= options and not left_out & options
    titles = [line for line in printed.splitlines() if line in ("network:", "encoding:", "training:", "this machine:")]
    assert titles == ["network:", "encoding:", "training:", "this machine:"]
    everything = set(re.findall(r"^  --([a-z-]+)", printed_before_exit("train --help all", capsys), re.MULTILINE))
    assert {x.option[2:] for x in SETTINGS.values() if x.option != "--dataset"} <= everything >= options


def test_the_help_of_train_shows_the_values_of_the_preset(capsys: pytest.CaptureFixture[str]) -> None:
    printed = " ".join(printed_before_exit("train psmnist --help", capsys).split())
    assert "neurons of each fully connected hidden layer [512]" in printed
    assert "best, psmnist" in printed and "best, mnist" not in printed
    refused = user_error("train psmnist --help most", capsys)
    assert "--help: expected all or nothing after it, got 'most'" in refused


def test_the_help_of_eval_lists_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    printed = printed_before_exit("eval --help", capsys)
    options = set(re.findall(r"^  (?:-h, )?(--[a-z-]+)", printed, re.MULTILINE))
    assert options == {"--help", "--data", "--download", "--cache", "--workers", "--device", "--binary", "--data-set"}


# A value outside the range of each number.
NUMBERS = {
    setting.option: -1 if setting.least >= 0 else 1
    for setting in SETTINGS.values()
    if type(setting.default) in (int, float)
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # Commands and options
        ("trian", "invalid choice: 'trian'"),
        ("train digits --colour", "unrecognized arguments: --colour: see srcell train --help"),
        ("train digits --epohcs=3", "unrecognized arguments: --epohcs=3: did you mean --epochs?"),
        ("train digits --lateral", "unrecognized arguments: --lateral: did you mean --recurrent?"),
        (
            "train digits --no-recurrent-grad",
            "unrecognized arguments: --no-recurrent-grad: did you mean --no-full-gradient?",
        ),
        ("eval full --checkpoint-seconds 1", "unrecognized arguments: --checkpoint-seconds 1"),
        ("--versoin", "unrecognized arguments: --versoin: did you mean --version?"),
        ("train digits --epochs many", "--epochs: invalid int value: 'many'"),
        # Names
        ("train", "expected a data set: " + ", ".join(data.NAMES)),
        ("train digit", "unknown data set 'digit': did you mean 'digits'?"),
        ("train spoken-digits --preset integer", "--threshold: expected above 0, for spikes of sounds, with integer"),
        ("train digits --preset bets", "unknown preset 'bets': did you mean 'best'?"),
        ("bench stakc", "unknown case 'stakc': did you mean 'stack'?"),
        ("bench xyz", "unknown case 'xyz': expected some of recurrence, 784-100"),
        # Settings
        *[(f"train digits {option} {wrong}", f"srcell: {option}: expected ") for option, wrong in NUMBERS.items()],
        ("train digits --hidden 0", "--hidden: expected at least 1 each, got [0]"),
        ("train digits --surrogate sigmoid", "unknown surrogate 'sigmoid'"),
        ("train digits --train-samples 9999", "--train-samples: expected at most 1212"),
        ("train digits --validation 0.9999", "a sample to train on, got 0.9999 of 1347"),
        ("train digits --validation 0.9999 --train-samples 5", "a sample to train on, got 0.9999 of 1347"),
        ("train digits --hidden 2000000000", "srcell: out of memory: smaller sizes or batches need less"),
        ("train --resume full --epochs 5", "srcell: --resume: expected a run folder and no settings"),
        ("train digits --resume full", "srcell: --resume: expected a run folder and no settings"),
        ("train --resume full --preset best", "srcell: --resume: expected a run folder and no settings"),
        ("train --resume full --out new", "srcell: --resume: expected a run folder and no settings"),
        ("train digits --learn-delays", "srcell: --learn-delays: expected False without input_delay or"),
        ("train digits --delay-width 8 1", "srcell: --delay-width: expected (1,) without learn_delays, got (8, 1)"),
        # This machine
        ("train digits --workers -1", "--workers: expected an int in [0, 1024], got -1"),
        ("train digits --device x", "srcell: --device: expected one that is here (cpu"),
        ("train digits --device mps", "srcell: --device: expected one that is here (cpu"),
        ("train digits --device meta", "srcell: --device: expected the CPU or a GPU (cuda), got 'meta'"),
        ("train digits --checkpoint-seconds nan", "srcell: --checkpoint-seconds: expected at least 0, got nan"),
        ("train digits --checkpoint-seconds -0.1", "srcell: --checkpoint-seconds: expected at least 0, got -0.1"),
        ("bench --threads 0", "--threads: expected an int in [1, 1024], got 0"),
        ("bench --threads 99999999999", "--threads: expected an int in [1, 1024], got 99999999999"),
        ("bench --repetitions 1", "repetitions: expected at least 2, for their spread, got 1"),
        # Files and folders
        (
            "train mnist",
            "no MNIST in data: expected the folder MNIST/raw or mnist there; name another root (--data), or download "
            "it (--download)",
        ),
        ("train nmnist", "no N-MNIST in data: expected the folders Train and Test there"),
        (f"{TINY} --out full", "full exists and is not an empty folder"),
        ("eval full", "full: expected a run folder, found no config.json in it"),
        ("eval data", "srcell: data: expected a run folder"),  # a path that is also the name of an option
        ("bench --out none/speed.json", "none is not a folder: choose another for speed.json"),
    ],
)
def test_a_user_error_prints_one_line(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("full").mkdir()
    Path("full", "notes.txt").write_text("mine")
    line = user_error(arguments, capsys)
    assert line.startswith("srcell: ") and message in line
    assert sorted(map(str, Path().rglob("*"))) == ["full", "full/notes.txt"]


HOSTILE = "a\x1b]0;title\x07\x1b[31m\nb\t\x9b2J\x7f\u202e\u2066[red]é.c"
SHOWN = r"a\x1b]0;title\x07\x1b[31m\nb\t\x9b2J\x7f\u202e\u2066[red]é.c"


def test_what_a_terminal_would_obey_is_printed_as_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    for code in range(0x110000):
        x = chr(code)
        assert (printable(x) == x) == x.isprintable()
    assert all(not chr(x).isprintable() for x in (*range(32), *range(127, 160), *range(0x202A, 0x202F), 0x2066, 0x2069))
    assert printable(HOSTILE) == SHOWN and printable(os.fsdecode(b"\xff")) == r"\udcff"
    assert main(["eval", HOSTILE]) == 2
    error = f"srcell: {SHOWN}: expected a run folder, found no config.json in it"
    assert capsys.readouterr().err.startswith(error)
    assert main(["train", "digits", f"--{HOSTILE}"]) == 2
    assert f"unrecognized arguments: --{SHOWN}" in capsys.readouterr().err


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.usefixtures("without_plots")
def test_names_of_files_are_printed_as_escapes_and_are_no_markup(
    terminal: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "200")
    assert main([*TINY.split(), "--out", HOSTILE]) == 0
    assert main(["export", HOSTILE, f"{HOSTILE}.srcell"]) == 0
    out = capfd.readouterr().out
    for line in (
        f"folder   {SHOWN}",
        f"run folder {SHOWN}\n",
        f"{SHOWN}.srcell: 64-8-100, ",
    ):
        assert line in out
    assert "]0;title\x07" not in out and "\x1b[31m" not in out and "\u202e" not in out


def test_warnings_are_printed_as_escapes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    usual = warnings.formatwarning

    def warn(_: object) -> None:  # as warnings.warn does where nobody records warnings
        sys.stderr.write(warnings.formatwarning(UserWarning(HOSTILE), UserWarning, "file.py", 3))

    monkeypatch.setattr(info, "print_info", warn)
    assert main(["info"]) == 0
    assert capsys.readouterr().err == f"file.py:3: UserWarning: {SHOWN}\n"
    assert warnings.formatwarning is usual


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    assert 'pip install "srcell[train]"' in user_error(f"{TINY} --out run", capsys)


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        (FloatingPointError("the loss became nan"), 2),
        (ChildProcessError("a DataLoader worker died (killed): try fewer workers"), 2),
        (KeyboardInterrupt("interrupted"), 130),
    ],
)
def test_a_run_that_stops_early_prints_no_traceback(
    stop: BaseException, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train_epoch(_: object) -> None:
        raise stop

    monkeypatch.setattr(training.Trainer, "train_epoch", train_epoch)
    assert srcell_command(f"{TINY} --out run") == code
    assert capsys.readouterr().err == f"srcell: {stop}\n"
