"""``srcell listen``: the answers that it prints, where it resets the network, microphones, and user errors."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from srcell import SRC, LinearReadout, SpikesOnly, export, runtime
from srcell.cli import main
from srcell.cli.listen import Listener
from srcell.data import RateEncoding, SoundEncoding
from support.imports import output_without
from support.networks import joined, split
from support.processes import ONE_THREAD, PATIENCE
from support.refusals import user_error

wavfile = pytest.importorskip("scipy.io.wavfile", reason='pip install "srcell[train]"')

Floats = NDArray[np.float32]

RATE, CHUNK = 8000, 160  # samples per second, and of a chunk of 20 ms
LOW, HIGH = 300.0, 2000.0  # Hz, and the centres of the network's two bands
NAMES = ("low", "high")
ENCODING = SoundEncoding(bands=2, lowest=LOW, highest=HIGH)


def tone(frequency: float, seconds: float, amplitude: float = 0.5) -> Floats:
    at = np.arange(round(RATE * seconds)) / RATE
    return (amplitude * np.sin(2 * np.pi * frequency * at)).astype(np.float32)


def silence(seconds: float) -> Floats:
    return tone(0, seconds)


@pytest.fixture(autouse=True)
def in_a_folder_with_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """net.srcell there answers 0 to low tones, and 1 to high ones: a neuron for each band votes for it."""
    monkeypatch.chdir(tmp_path)
    export_network("net.srcell", ENCODING)


def export_network(path: str, encoder: object, *, inputs: int = 2, readout: bool = True) -> None:
    layer, votes = SRC(inputs, 2), LinearReadout(2, 2)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.eye(2, inputs))
        votes.linear.weight.copy_(torch.eye(2))
        votes.linear.bias.zero_()
    network = nn.Sequential(SpikesOnly(layer), *([votes] if readout else []))
    if encoder is not None:
        network.encoder = encoder  # type: ignore[assignment]
    export(network, path)


def save(name: str, *parts: Floats, rate: int = RATE) -> Floats:
    """Write a WAV file of the parts one after another; return what it holds."""
    sound = np.concatenate(parts)
    wavfile.write(name, rate, sound)
    return sound


def srcell_listen(line: str) -> int:
    """The exit code of the command ``srcell listen LINE``."""
    return main(["listen", *line.split()])


def answers(sound: Floats, chunk: int = CHUNK, start: int = 0, names: Mapping[int, str] | None = None) -> list[str]:
    """The expected lines of a word: a stream hears it from its initial state, from ``start`` samples on."""
    stream, lines, before = runtime.load("net.srcell").stream(), [], -1
    for at in range(0, len(sound), chunk):
        steps = stream.hear(sound[at : at + chunk])
        logits = torch.from_numpy(stream.logits()[0])
        label, seconds = int(logits.argmax()), (start + min(at + chunk, len(sound))) / RATE
        line = f"{seconds:.2f} s  {label if names is None else names[label]}  {float(logits.softmax(0)[label]):.2f}"
        if steps and label != before:
            lines.append(line)
            before = label
    return [*lines, f"{line}  end"]


SUMMARY = r"""sound    {seconds} s, loudest chunk -9 dB
network  \d+\.\d\d% of real time, for a chunk of {chunk} ms \d+\.\d{{3}} ms \(median\), \d+\.\d{{3}} ms \(largest\)
"""


@pytest.mark.parametrize("chunk", [20, 3, 250])
def test_a_file_is_one_word_whose_answers_are_those_of_a_stream(chunk: int, capsys: pytest.CaptureFixture[str]) -> None:
    sound = save("a.wav", tone(LOW, 0.2), silence(0.4), tone(HIGH, 0.6))
    assert srcell_listen(f"net.srcell a.wav --chunk {chunk}") == 0
    printed = capsys.readouterr()
    expected = answers(sound, round(chunk * RATE / 1000))
    assert printed.out.splitlines() == expected
    assert len(expected) >= 3 and expected[-1].endswith(answers(sound, len(sound))[-1])
    assert re.fullmatch(SUMMARY.format(seconds="1.20", chunk=chunk), printed.err)


def test_labels_name_the_classes(capsys: pytest.CaptureFixture[str]) -> None:
    sound = save("a.wav", tone(HIGH, 0.3))
    assert srcell_listen("net.srcell a.wav --labels low high") == 0
    expected = answers(sound, names=dict(enumerate(NAMES)))
    assert capsys.readouterr().out.splitlines() == expected
    assert [line.split()[2] for line in expected] == ["low", "high", "high"]  # silence at first is a tie


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_stereo_and_other_rates_and_widths_have_the_same_answer(
    rate: int, dtype: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    at = np.arange(rate // 2) / rate
    wave = 0.5 * np.sin(2 * np.pi * HIGH * at)[:, None] * [1.2, 0.8]
    most = 1 if dtype is np.float32 else np.iinfo(dtype).max
    wavfile.write("a.wav", rate, (wave * most).astype(dtype))
    assert srcell_listen("net.srcell a.wav --labels low high") == 0
    assert re.fullmatch(r"0\.50 s  high  0\.[6-9]\d  end", capsys.readouterr().out.splitlines()[-1])


def words_in(sound: Floats, quiet: float, pause: int) -> Iterator[tuple[int, int]]:
    """Where words begin and end, in samples: loud chunks with pauses of fewer quiet chunks than ``pause``."""
    chunks = sound[: len(sound) // CHUNK * CHUNK].reshape(-1, CHUNK).astype(np.float64)
    (loud,) = np.nonzero((chunks**2).mean(1) >= 10 ** (quiet / 10))
    for part in np.split(loud, 1 + np.nonzero(np.diff(loud) > pause)[0]):
        yield int(part[0]) * CHUNK, (int(part[-1]) + 1) * CHUNK


def test_quiet_parts_separate_words_that_the_network_hears_from_its_initial_state(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hum = tone(HIGH, 0.5, 0.001)  # -63 dB
    parts = (hum, tone(LOW, 0.3), silence(0.28), tone(LOW, 0.2), hum, tone(HIGH, 0.4), silence(1), tone(LOW, 0.3))
    sound = save("a.wav", *parts)
    assert srcell_listen("net.srcell a.wav --quiet -40") == 0
    printed = capsys.readouterr()
    words = list(words_in(sound, -40, pause=15))
    assert [(begin / RATE, end / RATE) for begin, end in words] == [(0.5, 1.28), (1.78, 2.18), (3.18, 3.48)]
    assert printed.out.splitlines() == [line for begin, end in words for line in answers(sound[begin:end], start=begin)]
    assert [line.split()[2] for line in printed.out.splitlines() if line.endswith("end")] == ["0", "1", "0"]
    assert printed.err.startswith("sound    3.48 s, 1.48 s in words, loudest chunk -9 dB\nnetwork  ")

    # A pause of 0.28 s is one of 0.3 s too few, and ends a word if that is the number.
    assert srcell_listen("net.srcell a.wav --quiet -40 --reset-after 0.28") == 0
    ends = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("end")]
    assert ends == ["0.80", "1.28", "2.18", "3.48"]


def test_a_margin_is_heard_before_and_after_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    hum = tone(HIGH, 0.5, 0.02)  # -37 dB
    sound = save("a.wav", hum, tone(LOW, 0.3), hum[: 15 * CHUNK], tone(LOW, 0.3), hum[:CHUNK], tone(HIGH, 0.1), hum)
    assert srcell_listen("net.srcell a.wav --quiet -30 --margin 0.2") == 0
    printed = capsys.readouterr()
    words, margin = list(words_in(sound, -30, pause=15)), 10 * CHUNK
    assert [(begin / RATE, end / RATE) for begin, end in words] == [(0.5, 0.8), (1.1, 1.52)]
    expected = []
    for begin, end in words:
        stream = runtime.load("net.srcell").stream()
        stream.hear(sound[begin - margin : end + margin])
        share = float(torch.from_numpy(stream.logits()[0]).softmax(0)[0])
        expected.append(f"{(end + margin) / RATE:.2f} s  {int(share < 0.5)}  {max(share, 1 - share):.2f}  end")
    assert [line for line in printed.out.splitlines() if line.endswith("end")] == expected
    assert "sound    2.02 s, 1.52 s in words, " in printed.err  # 0.72 s and four margins

    assert srcell_listen("net.srcell a.wav --quiet -30") == 0
    assert capsys.readouterr().out.splitlines() != printed.out.splitlines()


def test_a_file_without_a_word_has_only_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    save("a.wav", tone(LOW, 0.5, 0.01))
    assert srcell_listen("net.srcell a.wav --quiet -40") == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "sound    0.50 s, 0.00 s in words, loudest chunk -43 dB\n")


def test_ctrl_c_in_a_file_prints_the_summary_and_is_an_interruption(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound, take = save("a.wav", tone(LOW, 1)), Listener.take

    def interrupted(self: Listener, chunk: Floats) -> Any:
        if self.samples == 20 * CHUNK:
            raise KeyboardInterrupt
        return take(self, chunk)

    monkeypatch.setattr(Listener, "take", interrupted)
    assert srcell_listen("net.srcell a.wav") == 130
    printed = capsys.readouterr()
    assert printed.out.splitlines() == answers(sound[: 20 * CHUNK])
    assert printed.err.startswith("sound    0.40 s, ") and printed.err.endswith(" (largest)\nsrcell: interrupted\n")


# Microphones


class PortAudioError(Exception):
    pass


class FakeMicrophones:
    """The module sounddevice with two microphones and a loudspeaker.

    Args:
        sound: what is recorded; then every read calls ``after``.
        lost: the reads that report an overflow, counted from 0.

    """

    PortAudioError = PortAudioError
    NAMES = ("Built-in", "Loudspeaker", "USB mic")

    def __init__(self, sound: Floats, lost: tuple[int, ...] = ()) -> None:
        self.sound, self.lost = sound, lost
        self.opened: list[dict[str, Any]] = []
        self.recording = False
        self.reads = 0

    def after(self) -> NoReturn:
        raise KeyboardInterrupt

    def query_devices(self) -> list[dict[str, Any]]:
        return [{"name": name, "max_input_channels": 2 * (name != "Loudspeaker")} for name in self.NAMES]

    def InputStream(self, **settings: Any) -> FakeMicrophones:
        device, names = settings["device"], [name for name in self.NAMES if name != "Loudspeaker"]
        if isinstance(device, str) and sum(device.lower() in name.lower() for name in names) != 1:
            raise ValueError(f"No input device matching {device!r}\nand a second line")
        if isinstance(device, int) and device >= 2**31:
            raise OverflowError(f"integer {device} does not fit 'int'")  # as cffi does
        if not names or (isinstance(device, int) and device not in (0, 2)):
            raise PortAudioError(f"Error querying device {device}")
        if settings["samplerate"] != RATE:
            raise PortAudioError("Error opening InputStream: Invalid sample rate [PaErrorCode -9997]")
        self.opened.append(settings)
        return self

    def __enter__(self) -> FakeMicrophones:
        self.recording = True
        return self

    def __exit__(self, *_: object) -> None:
        self.recording = False

    def read(self, frames: int) -> tuple[NDArray[np.float32], bool]:
        assert self.recording
        chunk, self.sound = self.sound[:frames], self.sound[frames:]
        if len(chunk) < frames:
            self.after()
        self.reads += 1
        return chunk[:, None].copy(), self.reads - 1 in self.lost


def plugged_in(fake: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", fake)


SPOKEN = (silence(0.5), tone(LOW, 0.3), silence(0.5), tone(HIGH, 0.4))


@pytest.mark.parametrize(("option", "device"), [("", None), ("--device 2", 2), ("--device usb", "usb")])
def test_a_microphone_is_heard_word_by_word_until_ctrl_c(
    option: str, device: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = np.concatenate(SPOKEN)
    fake = FakeMicrophones(sound, lost=(3, 9))
    plugged_in(fake, monkeypatch)
    assert srcell_listen(f"net.srcell {option}") == 0
    printed = capsys.readouterr()
    first, second = words_in(sound, -50, pause=15)
    assert printed.out.splitlines() == [
        line for begin, end in (first, second) for line in answers(sound[begin:end], start=begin)
    ]
    of_sound, of_network, of_lost = printed.err.splitlines()
    assert of_sound == "sound    1.70 s, 0.70 s in words, loudest chunk -9 dB"
    assert of_network.startswith("network  ")
    assert of_lost == "lost     samples before 2 chunks: this machine was too slow or too busy"
    expected = {"samplerate": RATE, "blocksize": CHUNK, "device": device, "channels": 1, "dtype": "float32"}
    assert fake.opened == [expected] and not fake.recording


def test_quiet_is_the_level_at_which_words_begin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged_in(FakeMicrophones(np.concatenate(SPOKEN)), monkeypatch)
    assert srcell_listen("net.srcell --quiet -9") == 0  # a sine of amplitude 0.5 has -9.03 dB
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "sound    1.70 s, 0.00 s in words, loudest chunk -9 dB\n")


def test_a_terminal_gets_a_live_line_and_keeps_the_last_answers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = np.concatenate(SPOKEN)
    plugged_in(FakeMicrophones(sound), monkeypatch)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    assert srcell_listen("net.srcell --labels low high") == 0
    printed = capsys.readouterr()
    # The output without escape sequences, each state of the live line on its own line.
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", printed.out).strip())
    first, second = (answers(sound[a:b], start=a, names=dict(enumerate(NAMES))) for a, b in words_in(sound, -50, 15))
    assert [line for line in lines if line.endswith("end")] == [first[-1], second[-1]]
    live = [line for line in lines if not line.endswith("end")]
    assert len(live) <= 17 + 10  # one for each 0.1 s, and the changes
    assert live[0].split() == ["0.02", "s", "quiet", "-inf", "dB"]
    shown = {(line.split()[0], line.split()[2]) for line in live}
    assert shown >= {(line.split()[0], line.split()[2]) for line in first[:-1] + second[:-1]}  # each change at once
    assert any(re.fullmatch(r"0\.\d\d s  low   0\.[6-9]\d  [▅▆▇][▁▂▃▄]  -9 dB", line) for line in live)
    assert any(re.fullmatch(r"1\.\d\d s  high  0\.[6-9]\d  [▁▂▃▄][▅▆▇]  -9 dB", line) for line in live)
    assert all(re.fullmatch(r"\d\.\d\d s  (quiet {9}|(low |high)  0\.\d\d  [▁-█]{2})  (-9|-inf) dB", x) for x in live)
    assert printed.err.startswith("sound    1.70 s, ")


HOSTILE, SHOWN = "\x1b]0;title\x07\x1b[31m\u202e[red]", r"\x1b]0;title\x07\x1b[31m\u202e[red]"


@pytest.mark.parametrize("terminal", [False, True])
def test_labels_are_printed_as_escapes_and_are_no_markup(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    monkeypatch.setenv("COLUMNS", "200")
    plugged_in(FakeMicrophones(np.concatenate(SPOKEN)), monkeypatch)
    assert main(["listen", "net.srcell", "--labels", f"{HOSTILE}low", f"{HOSTILE}high"]) == 0
    out = capsys.readouterr().out
    assert f"{SHOWN}low  0." in out and f"{SHOWN}high  0." in out
    assert "]0;title\x07" not in out and "\x1b[31m" not in out and "\u202e" not in out


def test_text_of_a_file_is_printed_as_escapes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    header, tensors = split(Path("net.srcell").read_bytes())
    header["__metadata__"]["encoder"] = json.dumps({"name": HOSTILE})
    Path("net.srcell").write_bytes(joined(header, tensors))
    expected = "srcell: net.srcell: expected a network exported with a SoundEncoding, got "
    assert user_error("listen net.srcell", capsys) == f"{expected}{SHOWN}"
    export_network("net.srcell", ENCODING)
    fake = FakeMicrophones(silence(1))
    fake.NAMES = (HOSTILE,)
    plugged_in(fake, monkeypatch)
    line = user_error("listen net.srcell --device 7", capsys)
    assert line == f"srcell: --device: expected a microphone that records at 8000 Hz, of 0 ({SHOWN}), got 7 " + (
        "(Error querying device 7)"
    )


def test_a_microphone_that_fails_ends_with_its_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unplugged(FakeMicrophones):
        def after(self) -> NoReturn:
            raise PortAudioError("Unanticipated host error [PaErrorCode -9999]: gone\nand a second line")

    fake = Unplugged(tone(LOW, 0.3))
    plugged_in(fake, monkeypatch)
    assert srcell_listen("net.srcell") == 2
    expected = "srcell: the microphone failed: Unanticipated host error [PaErrorCode -9999]: gone\n"
    assert capsys.readouterr().err == expected and not fake.recording


class WithoutMicrophones(FakeMicrophones):
    NAMES = ("Loudspeaker",)


BOTH = "expected a microphone that records at 8000 Hz, of 0 (Built-in), 2 (USB mic), got"


@pytest.mark.parametrize(
    ("fake", "line", "message"),
    [
        (None, "net.srcell", 'sounddevice is not installed: pip install "srcell[listen]"'),
        (WithoutMicrophones, "net.srcell", "no microphone found: connect one, or name a WAV file"),
        (WithoutMicrophones, "net.srcell --device usb", "no microphone found: connect one, or name a WAV file"),
        (FakeMicrophones, "net.srcell --device 7", f"--device: {BOTH} 7 (Error querying device 7)"),
        (FakeMicrophones, "net.srcell --device x", f"--device: {BOTH} x (No input device matching 'x')"),
        (
            FakeMicrophones,
            f"net.srcell --device {10**30}",
            f"--device: {BOTH} {10**30} (integer {10**30} does not fit 'int')",
        ),
        (
            FakeMicrophones,
            "fast.srcell",
            f"--device: {BOTH.replace('8000', '16000')} the default one (Error opening InputStream: Invalid sample "
            "rate [PaErrorCode -9997])",
        ),
    ],
)
def test_a_microphone_that_cannot_be_used_is_a_user_error(
    fake: type[FakeMicrophones] | None,
    line: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export_network("fast.srcell", SoundEncoding(rate=16000, bands=2))
    plugged_in(None if fake is None else fake(silence(1)), monkeypatch)
    assert user_error(f"listen {line}", capsys) == f"srcell: {message}"


def test_portaudio_that_is_missing_is_a_user_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "sounddevice.py").write_text("raise OSError('PortAudio library not found')\n")
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    line = user_error("listen net.srcell", capsys)
    assert line.startswith("srcell: cannot use a microphone: PortAudio library not found: install libportaudio2 ")


# Lessons


LOW_HIGH = (silence(0.2), tone(LOW, 0.3), silence(0.5), tone(HIGH, 0.4), silence(0.5))
LESSON = "net.srcell a.wav --quiet -40 --labels low high --teach"


def test_it_asks_for_words_and_learns_from_them(capsys: pytest.CaptureFixture[str]) -> None:
    save("a.wav", *LOW_HIGH, *LOW_HIGH)
    before = Path("net.srcell").read_bytes()
    assert srcell_listen(f"{LESSON} --times 2 -o mine.srcell") == 0
    lines = capsys.readouterr().out.splitlines()
    asked = [line for line in lines if line.startswith("say ")]
    assert asked == ["say low (1 of 4)", "say high (2 of 4)", "say low (3 of 4)", "say high (4 of 4)"]
    assert [line.split()[2] for line in lines if line.endswith("end")] == ["low", "high", "low", "high"]
    losses = [float(line.split()[-1]) for line in lines if line.startswith("pass ")]
    assert len(losses) == 15 and losses[-1] < losses[0]
    assert lines[-1] == "right of 4 recordings: 4 before, 4 after"
    assert Path("net.srcell").read_bytes() == before != Path("mine.srcell").read_bytes()
    assert runtime.load("mine.srcell").encoder == runtime.load("net.srcell").encoder


def test_a_lesson_by_microphone_ends_with_its_last_word(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMicrophones(np.concatenate([*LOW_HIGH, *LOW_HIGH]))
    plugged_in(fake, monkeypatch)
    assert srcell_listen("net.srcell --labels low high --teach low -o mine.srcell") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "say low (1 of 1)" and printed[-1] == "right of 1 recordings: 1 before, 1 after"
    assert len(fake.sound) > RATE and not fake.recording and Path("mine.srcell").exists()


def test_ctrl_c_ends_a_lesson_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugged_in(FakeMicrophones(np.concatenate(LOW_HIGH)), monkeypatch)
    before = Path("net.srcell").read_bytes()
    assert srcell_listen("net.srcell --teach --times 3 -o net.srcell") == 130
    assert capsys.readouterr().err.splitlines()[-1] == "srcell: interrupted"
    assert Path("net.srcell").read_bytes() == before


def test_a_file_with_too_few_words_teaches_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    save("a.wav", *LOW_HIGH)
    assert srcell_listen(f"{LESSON} --times 2 -o mine.srcell") == 2
    error = "srcell: --teach: expected 4 words in the sound, got 2: is --quiet right?"
    assert capsys.readouterr().err.splitlines()[-1] == error
    assert not Path("mine.srcell").exists()


def test_the_classes_of_the_file_have_names(capsys: pytest.CaptureFixture[str]) -> None:
    sound = save("a.wav", tone(HIGH, 0.3))
    runtime.load("net.srcell").learner(classes=NAMES).network().save("net.srcell")
    assert srcell_listen("net.srcell a.wav") == 0
    assert capsys.readouterr().out.splitlines() == answers(sound, names=dict(enumerate(NAMES)))


# Processes of their own

LISTENING = """
import signal, sys, time
sys.path.insert(0, {tests!r})
from srcell.__main__ import main
from test_listen import FakeMicrophones, np, silence, SPOKEN

class Patient(FakeMicrophones):
    def after(self):
        while True:
            time.sleep(0.01)

sys.modules["sounddevice"] = Patient(np.concatenate([*SPOKEN, silence(0.5)]))
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent does with it
sys.argv = ["srcell", "listen", "net.srcell"]
sys.exit(main())
"""


def listening(**streams: Any) -> subprocess.Popen[str]:
    """A process that listens to two words, and then waits for more."""
    program = LISTENING.format(tests=str(Path(__file__).parent))
    return subprocess.Popen([sys.executable, "-c", program], text=True, env=ONE_THREAD, **streams)


def test_ctrl_c_ends_listening_into_a_pipe_with_a_summary() -> None:
    sound = np.concatenate(SPOKEN)
    expected = [line for begin, end in words_in(sound, -50, 15) for line in answers(sound[begin:end], start=begin)]
    process = listening(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout
        lines = [process.stdout.readline() for _ in expected]  # while it listens, not at its end
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert (process.returncode, rest) == (0, ""), errors
    assert lines == [f"{line}\n" for line in expected]
    assert re.fullmatch(r"sound    [^\n]*\nnetwork  [^\n]*\n", errors)


def test_listening_ends_quietly_when_the_pipe_is_closed() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        process = listening(stdout=closed, stderr=subprocess.PIPE)
        try:
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, errors) == (141, "")


def test_a_file_is_heard_without_the_packages_of_other_extras() -> None:
    sound = save("a.wav", tone(HIGH, 0.3))
    missing = ["filelock", "matplotlib", "rich", "safetensors", "sklearn", "sounddevice", "tonic", "torchvision"]
    program = """
        from srcell.cli import main
        sys.exit(main(["listen", *sys.argv[1:]]))
    """
    assert output_without(missing, program, "net.srcell", "a.wav").splitlines() == answers(sound)


# User errors


HEARS = "expected a network exported with a SoundEncoding, got"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        # Options
        ("net.srcell a.wav --chunk 0", "--chunk: expected 1 to 1000 milliseconds, got 0"),
        ("net.srcell a.wav --chunk nan", "--chunk: expected 1 to 1000 milliseconds, got nan"),
        ("net.srcell a.wav --chunk short", "argument --chunk: invalid float value: 'short'"),
        ("net.srcell --quiet 3", "--quiet: expected -120 to 0 dB of full scale, got 3"),
        ("net.srcell --reset-after 0", "--reset-after: expected more than 0 and at most 60 seconds, got 0"),
        ("net.srcell a.wav --reset-after 1", "--reset-after: requires --quiet with a WAV file, which is one word"),
        ("net.srcell a.wav --margin 0.1", "--margin: requires --quiet with a WAV file, which is one word"),
        ("net.srcell --margin -1", "--margin: expected 0 to 0.3 seconds, as --reset-after, got -1"),
        ("net.srcell --margin 0.2 --reset-after 0.1", "--margin: expected 0 to 0.1 seconds, as --reset-after, got 0.2"),
        ("net.srcell a.wav --device 1", "--device: expected a microphone or a WAV file, got both"),
        ("net.srcell a.wav --times 2", "--times: requires --teach"),
        ("net.srcell a.wav -o new", "--out: requires --teach"),
        ("net.srcell a.wav --quiet -40 --teach", "--teach: requires -o FILE, the output file"),
        ("net.srcell a.wav --teach -o new", "--teach: requires --quiet with a WAV file, which is one word without it"),
        ("net.srcell --teach -o .", "[Errno 17] expected a regular file or none, found a folder: '.'"),
        ("net.srcell --teach -o new --times 0", "--times: expected 1 to 1000, got 0"),
        ("net.srcell --teach 3 -o new", "--teach: expected different names of 0, 1, got '3'"),
        ("net.srcell --teach 0 0 -o new", "--teach: expected different names of 0, 1, got '0'"),
        ("net.srcell a.wav --labels one", "--labels: expected 2 names, one for each class, got 1"),
        ("net.srcell a.wav --quite -40", "unrecognized arguments: --quite -40: did you mean --quiet?"),
        ("", "the following arguments are required: NET"),
        # Networks
        ("none.srcell a.wav", "[Errno 2] No such file or directory: 'none.srcell'"),
        ("a.wav a.wav", "a.wav: expected a safetensors file"),
        ("deaf.srcell a.wav", f"deaf.srcell: {HEARS} no encoder"),
        ("images.srcell a.wav", f"images.srcell: {HEARS} RateEncoding"),
        ("mute.srcell a.wav", "mute.srcell: expected a network with a readout, got one without"),
        ("infinite.srcell a.wav", "expected finite logits of the network, got [inf, inf]"),
        # Files
        ("net.srcell none.wav", "[Errno 2] No such file or directory: 'none.wav'"),
        ("net.srcell broken.wav", "broken.wav: cannot be read as WAV ("),
        ("net.srcell empty.wav", "empty.wav: expected a WAV file, got an empty one"),
        (
            "net.srcell short.wav",
            "short.wav: expected a sound of at least one frame of the network's SoundEncoding, got",
        ),
    ],
)
def test_a_user_error_prints_one_line(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    save("a.wav", tone(LOW, 0.2))
    save("short.wav", tone(LOW, 0.005))
    Path("broken.wav").write_bytes(Path("a.wav").read_bytes()[:1000])
    Path("empty.wav").touch()
    export_network("deaf.srcell", None)
    export_network("images.srcell", RateEncoding(steps=5))
    export_network("mute.srcell", ENCODING, readout=False)
    export_network("infinite.srcell", ENCODING)
    with safe_open("infinite.srcell", "np") as file:
        texts, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    safetensors.numpy.save_file(tensors | {"readout.bias": np.full(2, np.inf, np.float32)}, "infinite.srcell", texts)
    assert user_error(f"listen {line}", capsys).startswith(f"srcell: {message}")


def test_a_rate_that_no_sound_has_is_a_user_error(capsys: pytest.CaptureFixture[str]) -> None:
    content = Path("net.srcell").read_bytes()
    for rate in (b"null", b"80.5", b"-800"):
        Path("odd.srcell").write_bytes(content.replace(b'\\"rate\\": 8000', b'\\"rate\\": ' + rate))
        line = user_error("listen odd.srcell", capsys)
        assert line.startswith("srcell: odd.srcell: expected a SoundEncoding with a rate of 1 to 1048576 Hz, got ")
