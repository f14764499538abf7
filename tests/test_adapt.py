"""``srcell adapt``: a network learns from a data set, and the file that it was read from stays as it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from torch import nn

import srcell
from srcell import SRC, LinearReadout, data, runtime
from srcell.cli import main
from srcell.data import HeldEncoding, SoundEncoding
from srcell.training import RunFolder, evaluate_run
from support.refusals import user_error

RATE = 8000


def exported(path: Path, inputs: int, classes: int, encoder: Any = None, every_step: bool = False) -> bytes:
    torch.manual_seed(0)
    net = srcell.Sequential(SRC.for_sequences(inputs, 32), LinearReadout(32, classes, 0.99, every_step=every_step))
    net.encoder = encoder
    srcell.export(net, path)
    return path.read_bytes()


def tones(folder: Path) -> None:
    """Sounds of two classes, tones of two pitches, for training and for testing: the untrained network errs on both."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 6)):
        for name, pitch in (("a", 300), ("b", 1500)):
            (folder / part / name).mkdir(parents=True)
            for k in range(count):
                time = np.arange(1600 + 80 * k) / RATE
                wave = np.sin(2 * np.pi * pitch * draw.uniform(0.9, 1.1) * time) * 8000
                wavfile.write(folder / part / name / f"{k}.wav", RATE, wave.astype(np.int16))


def named(path: Path, classes: list[str]) -> None:
    """A network whose file names its classes."""
    net = runtime.Network(exported(path, 32, 2, SoundEncoding(rate=RATE)))
    net.learner(classes=classes).network().save(path)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def percentages(text: str) -> list[float]:
    return [float(line.split()[1]) for line in text.splitlines() if "% of" in line]


def test_a_network_learns_from_wav_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tones(folder / "tones")
    before = exported(folder / "net.srcell", 32, 2, SoundEncoding(rate=RATE))
    assert main(["adapt", "net.srcell", "tones/", "-o", "mine.srcell", "--lr", "5e-3"]) == 0
    text = capsys.readouterr().out
    first, last = percentages(text)
    assert first < 80 < 95 < last, text
    assert text.count("pass ") == 15
    assert (folder / "net.srcell").read_bytes() == before
    assert runtime.load("mine.srcell").encoder == runtime.load("net.srcell").encoder
    assert main(["adapt", "net.srcell", "tones/", "-o", "words.srcell", "--new-classes", "--lr", "5e-3"]) == 0
    assert percentages(capsys.readouterr().out)[0] > 95
    assert runtime.load("words.srcell").classes == ["a", "b"]


@pytest.mark.parametrize("classes", [["b", "a"], ["b", "nothing", "a"]])
def test_classes_are_those_of_the_same_name(
    classes: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tones(folder / "tones")
    named(folder / "net.srcell", classes)
    assert main(["adapt", "net.srcell", "tones/", "-o", "mine.srcell", "--lr", "5e-3"]) == 0
    assert percentages(capsys.readouterr().out)[-1] > 95
    net = runtime.load("mine.srcell")
    assert net.classes == classes
    for name in ("a", "b"):
        rate, wave = wavfile.read(folder / "tones" / "test" / name / "0.wav")
        stream = net.stream()
        stream.hear((wave / 32768).astype(np.float32))
        assert rate == RATE and classes[int(stream.logits()[0].argmax())] == name


def test_names_of_classes_go_from_a_folder_to_all_that_read_the_network(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: export lost them, so listen answered with numbers, and adapt refused some of the classes."""
    tones(folder / "tones")
    for part in ("train", "test"):
        shutil.copytree(folder / "tones" / part / "b", folder / "tones" / part / "c")
    assert main(["train", "tones/", "--out", "run", "--hidden", "16", "--epochs", "3", "--patience", "0"]) == 0
    assert srcell.load("run").class_names == ("a", "b", "c")
    assert main(["export", "run", "net.srcell"]) == 0
    assert runtime.load("net.srcell").classes == ["a", "b", "c"]
    capsys.readouterr()
    assert main(["listen", "net.srcell", "tones/test/b/0.wav"]) == 0
    heard = capsys.readouterr().out.splitlines()[0].split()
    assert heard[2] in ("a", "b", "c")
    for part in ("train", "test"):
        for name in ("b", "c"):
            shutil.copytree(folder / "tones" / part / name, folder / "some" / part / name)
    assert main(["adapt", "net.srcell", "some", "-o", "mine.srcell", "--passes", "1"]) == 0
    assert runtime.load("mine.srcell").classes == ["a", "b", "c"]
    capsys.readouterr()
    accuracies = []
    for name in ("some/", "tones/"):
        assert main(f"eval run --data-set {name}".split()) == 0
        accuracies.append(capsys.readouterr().out.splitlines()[0])
    of_all, of_some = evaluate_run(RunFolder.open("run")), evaluate_run(RunFolder.open("run"), dataset="some/")
    right = of_all.confusion.diagonal().tolist()
    assert of_some.confusion.sum(1).tolist() == [0, 6, 6] and of_some.confusion.diagonal().tolist()[1:] == right[1:]
    assert "12 samples" in accuracies[0] and "18 samples" in accuracies[1]
    for part in ("train", "test"):
        (folder / "some" / part / "c").rename(folder / "some" / part / "d")
    with pytest.raises(ValueError, match=r"dataset: expected one of .* and 3 classes, got .* and 2 classes"):
        evaluate_run(RunFolder.open("run"), dataset="some/")


def test_names_of_classes_of_ones_own_network(tmp_path: Path) -> None:
    net, path = srcell.Sequential(SRC(4, 6), LinearReadout(6, 2)), tmp_path / "net.srcell"
    srcell.export(net, path, classes=["no", "\u00e9"])
    assert runtime.load(path).classes == ["no", "\u00e9"]
    srcell.export(net, path)
    assert runtime.load(path).classes is None
    net.class_names = ("x", "y")
    srcell.export(net, path)
    assert runtime.load(path).classes == ["x", "y"]
    before = path.read_bytes()
    for classes, message in (
        (["a"], r"classes: expected 2 names, one for each class, got 1: \['a'\]"),
        (["a", "a"], "classes: expected names that differ"),
    ):
        with pytest.raises(ValueError, match=message):
            srcell.export(net, path, classes=classes)
    with pytest.raises(TypeError, match="classes: expected a sequence of strings"):
        srcell.export(net, path, classes="ab")
    with pytest.raises(ValueError, match="classes: expected text without NUL"):
        srcell.export(net, path, classes=["a", "b\0"])
    with pytest.raises(ValueError, match="classes: expected none, because the network has no readout, got 1"):
        srcell.export(SRC(4, 6), path, classes=["a"])
    assert path.read_bytes() == before
    for names in (("x", "y", "z"), ("x", "x"), ("x", "\udcff")):  # of data sets that 0.3 took
        net.class_names = names
        with pytest.warns(UserWarning, match=r"network\.class_names: expected .*: the file has no names of classes"):
            srcell.export(net, path)
        assert runtime.load(path).classes is None


def test_integers_keep_the_names_of_classes(tmp_path: Path) -> None:
    net = srcell.models.SRCClassifier(4, [], 2)
    net.class_names = ("x", "y")
    srcell.models.IntegerClassifier.from_float(net).export(tmp_path / "net.srcell")
    assert runtime.load(tmp_path / "net.srcell").classes == ["x", "y"]


def test_the_file_is_written_when_the_reader_of_the_output_is_gone(folder: Path) -> None:
    exported(folder / "net.srcell", 64, 10, data.RateEncoding(steps=5))
    command = [sys.executable, "-m", "srcell", "adapt", "net.srcell", "digits", "-o", "new", "--passes", "3"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout and process.stdout.readline().startswith(b"before: ")
    process.stdout.close()
    assert process.stderr and process.stderr.read() == b""
    assert process.wait() == 0 and runtime.load(folder / "new").num_classes == 10


def test_it_takes_sequences_with_values_at_every_step(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "own.py").write_text(
        "import numpy as np\n"
        "def signals():\n"
        "    draw = np.random.default_rng(0)\n"
        "    x = draw.normal(size=(20, 30, 3)).astype(np.float32)\n"
        "    y = x[..., :1].cumsum(1) / 5\n"
        "    return x, y\n"
    )
    exported(folder / "net.srcell", 3, 1, HeldEncoding(hold=1), every_step=True)
    assert main(["adapt", "net.srcell", "own.py:signals", "-o", "mine.srcell", "--lr", "1e-2"]) == 0
    first, last = (float(line.split()[4]) for line in capsys.readouterr().out.splitlines() if "error" in line)
    assert last < 0.8 * first


def test_the_same_command_gives_the_same_file(folder: Path) -> None:
    exported(folder / "net.srcell", 64, 10, data.RateEncoding(steps=10))
    for name in ("a", "b"):
        assert main(f"adapt net.srcell digits -o {name} --passes 1 --batch-size 200".split()) == 0
    assert Path("a").read_bytes() == Path("b").read_bytes() != Path("net.srcell").read_bytes()


def test_an_interrupt_leaves_all_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = exported(folder / "net.srcell", 64, 10, data.RateEncoding(steps=5))
    step, calls = runtime.Learner.step, [0]

    def interrupted(*arguments: Any) -> float:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(runtime.Learner, "step", interrupted)
    assert main(["adapt", "net.srcell", "digits", "-o", "net.srcell", "--batch-size", "500"]) == 130
    assert (folder / "net.srcell").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["net.srcell"]


REFUSED: dict[str, tuple[str, str]] = {
    "classes": (
        "adapt few.srcell digits -o new",
        "dataset: expected the network's 3 classes, or --new-classes, got 10",
    ),
    "passes": ("adapt net.srcell digits -o new --passes 0", "--passes: expected at least 1, got 0"),
    "batch": ("adapt net.srcell digits -o new --batch-size 0", "--batch-size: expected"),
    "rate": ("adapt net.srcell digits -o new --lr 0", "--lr: expected a number in (0, 1000], got 0"),
    "names": (
        "adapt named.srcell tones/ -o new",
        "dataset: expected classes of the network, b, c, got 'a'; --new-classes replaces the network's classes",
    ),
    "no file": ("adapt none.srcell digits -o new", "No such file"),
    "a folder without a slash": (
        "adapt net.srcell empty -o new",
        "empty: expected WAV or CSV files in a folder for each label",
    ),
    "no data": ("adapt net.srcell none/ -o new", "none/: no such folder"),
    "unknown data": ("adapt net.srcell digit -o new", "did you mean 'digits'"),
    "no encoder": (
        "adapt bare.srcell digits -o new",
        "a RateEncoding, LatencyEncoding or CameraEncoding for digits, got none",
    ),
    "a folder": ("adapt net.srcell digits -o .", "expected a regular file or none, found a folder"),
    "no folder": ("adapt net.srcell digits -o none/new", "none is not a folder: choose another for new"),
    "sounds": ("adapt net.srcell tones/ -o new", "exported with a SoundEncoding for tones/, got RateEncoding"),
    "images": (
        "adapt held.srcell digits -o new",
        "exported with a RateEncoding, LatencyEncoding or CameraEncoding for digits, got HeldEncoding",
    ),
    "sequences": ("adapt net.srcell own.py:sequences -o new", "exported with a HeldEncoding for own.py:sequences, got"),
    "no samples": ("adapt held.srcell own.py:nothing -o new", "dataset: expected at least one training sample"),
}


OWN = """
import torch
from srcell.data import Dataset, LabelledSequences

def of(count):
    samples = LabelledSequences(torch.zeros(count, 5, 64), torch.arange(count) % 10)
    return Dataset(samples, samples, 10, (64, 1, 1))

def sequences():
    return of(20)

def nothing():
    return of(0)
"""


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_said_in_one_line(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(folder / "net.srcell", 64, 10, data.RateEncoding(steps=5))
    exported(folder / "few.srcell", 64, 3, data.RateEncoding(steps=5))
    exported(folder / "bare.srcell", 64, 10)
    exported(folder / "held.srcell", 64, 10, HeldEncoding(hold=1))
    named(folder / "named.srcell", ["b", "c"])
    tones(folder / "tones")
    (folder / "own.py").write_text(OWN)
    (folder / "empty").mkdir()
    command, message = REFUSED[name]
    assert message in user_error(command, capsys)
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        (data.RateEncoding(steps="many"), "encoder: steps: expected"),  # type: ignore[arg-type]
        (SoundEncoding(rate=RATE, bands=64), "got SoundEncoding"),
    ],
)
def test_an_encoder_of_wrong_settings_is_refused(
    encoding: Any, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(folder / "net.srcell", 64, 10, encoding)
    assert message in user_error("adapt net.srcell digits -o new", capsys)


def test_an_encoder_of_another_kind_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Other(nn.Module):
        pass

    from srcell.cli.adapt import encoding_of

    for text, message in (
        ({"name": "Other"}, "encoder: expected one of RateEncoding"),
        ({"name": "RateEncoding", "evil": 1}, "encoder: expected settings of RateEncoding, got 'evil'"),
    ):
        network = runtime.Network(exported(folder / "net.srcell", 64, 10))
        network.encoder = text
        with pytest.raises(ValueError, match=f"^{message}"):
            encoding_of(network)


EVERY: dict[str, Callable[[], Any]] = {
    "rate": lambda: data.RateEncoding(steps=7, gain=0.5, thinned=True),
    "latency": lambda: data.LatencyEncoding(steps=5),
    "camera": lambda: data.CameraEncoding(steps=9, threshold=(0.1, 0.2)),
    "held": lambda: HeldEncoding(hold=2, prefix=1),
    "sound": lambda: SoundEncoding(rate=RATE, threshold=0.1),
}


@pytest.mark.parametrize("name", EVERY)
def test_an_encoder_comes_back_from_the_file(name: str, folder: Path) -> None:
    from srcell.cli.adapt import encoding_of

    encoding = EVERY[name]()
    inputs = encoding.inputs if name == "sound" else 2 * 34 * 34
    network = runtime.Network(exported(folder / "net.srcell", inputs, 10, encoding))
    assert encoding_of(network) == encoding
