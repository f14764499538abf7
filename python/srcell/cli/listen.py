"""``srcell listen``: the answers of an exported network while it hears a microphone or a WAV file.

A stream of ``srcell.runtime`` takes samples and returns logits. With ``--teach`` a learner goes on from what was heard.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import srcell

from .._shared.extras import extra
from .._shared.files import check_output
from .parser import Parser, new_command
from .terminal import complain, printable, put

Floats = NDArray[np.float32]
Chunks = Generator[tuple[Floats, bool], None, None]  # and whether samples before a chunk were lost: it was taken late

CHUNK, QUIET, RESET_AFTER = 20.0, -50.0, 0.3  # milliseconds, dB of full scale, seconds
TIMES, MOST_TIMES = 1, 1000  # recordings of each word of a lesson
HIGHEST_RATE = 2**20  # Hz, of a SoundEncoding
REFRESH = 0.1  # seconds of sound between two states of the live line
BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-:=+*#"

TEXT = """\
Show the answer of an exported network while it hears a sound: a microphone, or
a WAV file. The network must have been exported with a SoundEncoding.

The network has to start anew at each word, as in training. A word begins with
the first chunk whose level reaches --quiet, where the network is reset, and
ends with the last such chunk before --reset-after seconds of quiet. The network
hears only words, with the shorter pauses in them and --margin seconds of the
quiet before and after them: as many as in the sounds of training. A WAV file is
one word unless --quiet is given; it may have any rate, and several channels.
For a microphone, choose a --quiet some dB above the level that the live line
shows while nobody speaks.

Each line of output has seconds, answer and probability (the softmax of the
logits so far). A line is printed when the answer changes; "end" marks the last
answer of a word. With a microphone, a terminal shows one live line instead,
with a bar for each class and the level, and keeps the last answers of words.

With --teach it asks for words, --times each, and learns from what it hears: each
word that begins is the one asked for, so that a WAV file has the words in this
order. Then it writes the new network to the file of -o; NET stays as it is.

Ctrl-C stops; before the end of a lesson it writes nothing. A summary on
standard error follows: seconds of sound, the share of real time that the
network took, and its time for a chunk."""
EXAMPLES = """\
examples:
  srcell listen words.srcell --labels both fall rise
  srcell listen words.srcell word.wav
  srcell listen words.srcell sentence.wav --quiet -40
  srcell listen words.srcell --labels both fall rise --teach -o mine.srcell"""


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell listen``."""
    parser = new_command(commands, "listen", line, TEXT, f"Defaults in brackets.\n\n{EXAMPLES}")
    option = parser.add_argument
    option("network", type=Path, metavar="NET", help="exported network, by convention NAME.srcell")
    option("wav", type=Path, nargs="?", metavar="FILE.wav", help="WAV file, right after NET [a microphone]")
    option("--labels", nargs="+", metavar="NAME", help="names of the classes, in their order [the file's, or numbers]")
    option("--chunk", type=float, default=CHUNK, metavar="MS", help=f"milliseconds of a chunk [{CHUNK:g}]")
    level = f"dB of full scale below which a chunk is quiet [{QUIET:g}; none for a WAV file]"
    option("--quiet", type=float, metavar="DB", help=level)
    option("--reset-after", type=float, metavar="SECONDS", help=f"quiet after which a word has ended [{RESET_AFTER:g}]")
    option("--margin", type=float, metavar="SECONDS", help="quiet that is heard before and after a word [0]")
    option("--device", metavar="NAME", help="microphone: its number, or a part of its name [the system's default]")
    option("--teach", nargs="*", metavar="NAME", help="ask for these words, and learn from them [all]")
    option("--times", type=int, metavar="N", help=f"recordings of each word that is asked for [{TIMES}]")
    option("-o", "--out", type=Path, metavar="FILE", help="output file: the network with what it has learnt")
    parser.set_defaults(run=listen)


def listen(arguments: argparse.Namespace) -> None:
    """Hear the sound to its end or until Ctrl-C; show the answers, then the summary.

    Raises:
        ValueError: an option, the network or the file is not valid; or there is no such microphone.
        OSError: a file cannot be read, PortAudio is missing, or the microphone failed.
        ImportError: a package of the extra "listen" is not installed.
        KeyboardInterrupt: Ctrl-C before the end of a WAV file; raised after the summary.

    """
    check_options(arguments)
    network, rate = open_network(arguments.network, arguments.labels)
    names = arguments.labels or names_of(network)
    lesson = None
    if arguments.teach is not None:
        from .lesson import Lesson  # which imports torch

        lesson = Lesson(network, names, arguments.teach, arguments.times or TIMES)
    block = max(1, round(rate * arguments.chunk / 1000))
    quiet, from_microphone = arguments.quiet, arguments.wav is None
    if from_microphone:
        quiet = QUIET if quiet is None else quiet
        source = microphone_chunks(arguments.device, rate, block)
    else:
        source = wav_chunks(arguments.wav, rate, block)
    patience = RESET_AFTER if arguments.reset_after is None else arguments.reset_after
    listener = Listener(network.stream(), rate, quiet, patience, arguments.margin or 0.0, keep=lesson is not None)
    lines = LiveLine(names) if from_microphone and sys.stdout.isatty() else Lines(names)
    lost, interrupt = 0, None
    with lines.live, closing(source) as chunks:
        try:
            if lesson:
                lines.say(lesson.question)
            for chunk, overflowed in chunks:
                lost += overflowed
                ended = listener.take(chunk)
                if ended is not None:
                    lines.end(ended)
                    if lesson and lesson.take(listener.word):
                        break
                    if lesson:
                        lines.say(lesson.question)
                lines.show(listener)
        except KeyboardInterrupt as stopped:
            interrupt = stopped
        if listener.answer is not None:
            lines.end(listener.answer)
            if lesson:
                lesson.take(listener.word)
    if quiet is None and listener.answer is None and interrupt is None:
        raise ValueError(
            f"{arguments.wav}: expected a sound of at least one frame of the network's SoundEncoding, got "
            f"{listener.seconds:g} s"
        )
    for line in summary(listener, arguments.chunk, lost):
        complain(line)
    if interrupt is not None and (lesson or not from_microphone):
        raise interrupt
    if lesson:
        lesson.learn(rate, arguments.out)


def check_options(arguments: argparse.Namespace) -> None:
    """Raise unless the options are in their ranges and fit one another."""
    if not 1 <= arguments.chunk <= 1000:
        raise ValueError(f"chunk: expected 1 to 1000 milliseconds, got {arguments.chunk:g}")
    if arguments.quiet is not None and not -120 <= arguments.quiet <= 0:
        raise ValueError(f"quiet: expected -120 to 0 dB of full scale, got {arguments.quiet:g}")
    if arguments.reset_after is not None and not 0 < arguments.reset_after <= 60:
        raise ValueError(f"reset_after: expected more than 0 and at most 60 seconds, got {arguments.reset_after:g}")
    most = RESET_AFTER if arguments.reset_after is None else arguments.reset_after
    if arguments.margin is not None and not 0 <= arguments.margin <= most:
        raise ValueError(f"margin: expected 0 to {most:g} seconds, as --reset-after, got {arguments.margin:g}")
    if arguments.wav is not None and arguments.device is not None:
        raise ValueError("device: expected a microphone or a WAV file, got both")
    if arguments.teach is None:
        for name in ("times", "out"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"{name}: requires --teach")
    elif arguments.out is None:
        raise ValueError("teach: requires -o FILE, the output file")
    elif arguments.wav is not None and arguments.quiet is None:
        raise ValueError("teach: requires --quiet with a WAV file, which is one word without it")
    else:
        check_output(arguments.out)
    if arguments.times is not None and not 1 <= arguments.times <= MOST_TIMES:
        raise ValueError(f"times: expected 1 to {MOST_TIMES}, got {arguments.times}")
    if arguments.wav is not None and arguments.quiet is None:
        for name in ("reset_after", "margin"):
            if getattr(arguments, name) is not None:
                raise ValueError(f"{name}: requires --quiet with a WAV file, which is one word without it")


def open_network(path: Path, labels: Sequence[str] | None) -> tuple[srcell.runtime.Network, int]:
    """Read a network that hears and answers; return it with the sampling rate that it expects, Hz.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no such network, or one with another number of classes than there are labels.

    """
    network = srcell.runtime.load(path)
    encoder = network.encoder or {"name": "no encoder"}
    rate = encoder.get("rate")
    if encoder.get("name") != "SoundEncoding":
        raise ValueError(f"{path}: expected a network exported with a SoundEncoding, got {encoder.get('name')}")
    if type(rate) is not int or not 1 <= rate <= HIGHEST_RATE:
        raise ValueError(f"{path}: expected a SoundEncoding with a rate of 1 to {HIGHEST_RATE} Hz, got {rate!r}")
    if not network.num_classes:
        raise ValueError(f"{path}: expected a network with a readout, got one without")
    try:
        network.stream().hear(np.zeros(0, np.float32))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if labels is not None and len(labels) != network.num_classes:
        raise ValueError(f"labels: expected {network.num_classes} names, one for each class, got {len(labels)}")
    return network, rate


def names_of(network: srcell.runtime.Network) -> list[str]:
    """The names of the classes: those of the file, if it has one for each, or numbers."""
    found = network.classes or []
    return found if len(found) == network.num_classes else [str(label) for label in range(network.num_classes)]


def wav_chunks(path: Path, rate: int, block: int) -> Chunks:
    """The chunks of a WAV file, resampled to ``rate`` (Hz), as fast as they are taken; the last one may be shorter.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a WAV file that ``read_wav`` reads.
        ImportError: scipy is not installed.

    """
    from ..data import read_wav

    wave: Floats = read_wav(path, rate).numpy()
    return ((wave[at : at + block], False) for at in range(0, len(wave), block))


def microphone_chunks(device: str | None, rate: int, block: int) -> Chunks:
    """The chunks that a microphone records, by the library sounddevice, without end.

    ``device`` is its number, or a part of its name; None is the system's default.

    Raises:
        ValueError: there is no such microphone, or it does not record at this rate.
        OSError: there is no microphone at all, PortAudio is not installed, or, while it records, the microphone failed.
        ImportError: sounddevice is not installed.

    """
    with extra("listen"):
        try:
            import sounddevice
        except OSError as error:
            raise OSError(
                f"cannot use a microphone: {error}: install libportaudio2 (Debian, Ubuntu) or portaudio "
                "(Fedora, Homebrew), or name a WAV file"
            ) from error

    try:
        chosen = int(device) if device is not None and device.isdecimal() else device
        microphone = sounddevice.InputStream(
            samplerate=rate, blocksize=block, device=chosen, channels=1, dtype="float32"
        )
    except (ValueError, OverflowError, sounddevice.PortAudioError) as error:
        devices = enumerate(sounddevice.query_devices())
        found = [f"{number} ({each['name']})" for number, each in devices if each["max_input_channels"]]
        if not found:
            raise OSError("no microphone found: connect one, or name a WAV file") from error
        raise ValueError(
            f"device: expected a microphone that records at {rate} Hz, of {', '.join(found)}, got "
            f"{'the default one' if device is None else device} ({first_line(error)})"
        ) from error

    def chunks() -> Chunks:
        try:
            with microphone as stream:
                while True:
                    samples, overflowed = stream.read(block)
                    yield samples[:, 0], bool(overflowed)
        except sounddevice.PortAudioError as error:
            raise OSError(f"the microphone failed: {first_line(error)}") from error

    return chunks()


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return str(error).partition("\n")[0]


class Answer(NamedTuple):
    """The network's answer at a time.

    Attributes:
        seconds: of the sound, at the end of the last chunk that the network heard.
        label: number of the class with the largest logit.
        probability: the probability of this class.
        shares: (C,) the probability of each class.

    """

    seconds: float
    label: int
    probability: float
    shares: Floats


class Listener:
    """Passes the words of a sound to a stream, which it resets before each, and takes the time of every call.

    Args:
        stream: hears the words.
        rate: samples per second.
        quiet: level below which a chunk is quiet, dB of full scale; None if the whole sound is one word.
        patience: seconds of quiet after which a word has ended.
        margin: seconds of quiet that the stream hears before and after a word, at most ``patience``.
        keep: keep the samples that the stream heard of a word.

    Attributes:
        word: these samples, of the present word or of the last.
        answer: the answer in the present word; None between words, and before a word's first frame is complete.
        level: of the last chunk, dB of full scale; the mean power of a square wave of amplitude 1 is 0 dB.
        loudest: the largest level of a chunk.
        samples: number of samples of the sound.
        heard: number of those that the network heard.
        times: seconds that the network took for each call.

    """

    def __init__(
        self,
        stream: srcell.runtime.Stream,
        rate: int,
        quiet: float | None,
        patience: float,
        margin: float,
        keep: bool = False,
    ) -> None:
        self.keep, self.word = keep, list[Floats]()
        self.stream, self.rate = stream, rate
        self.quiet = -math.inf if quiet is None else quiet
        self.patience, self.margin = round(patience * rate), round(margin * rate)
        self.answer: Answer | None = None
        self.level = self.loudest = -math.inf
        self.samples = self.heard = 0
        self.times = array("d")
        self._in_word = False
        self._silent = 0  # samples since the word's last loud chunk
        self._held: list[Floats] = []  # those of them that are heard only if another loud chunk follows
        self._before = np.zeros(0, np.float32)  # the last samples of the sound, as many as in a margin

    @property
    def seconds(self) -> float:
        """Seconds of the sound so far."""
        return self.samples / self.rate

    def take(self, chunk: Floats) -> Answer | None:
        """Take the next chunk of the sound; return the last answer of a word if it ended now."""
        ended = None
        self.samples += len(chunk)
        power = float(chunk @ chunk) / len(chunk)
        self.level = 10 * math.log10(power) if power > 0 else -math.inf
        self.loudest = max(self.loudest, self.level)
        if self.level >= self.quiet:
            if not self._in_word:
                self.stream.reset()
                self._in_word, self._held, self.word = True, [self._before], []
            self._hear(np.concatenate([*self._held, chunk]))
            self._silent, self._held = 0, []
        elif self._in_word:
            self._silent += len(chunk)
            if self._silent <= self.margin:
                self._hear(chunk)
            else:
                self._held.append(chunk)
            if self._silent >= self.patience:
                ended, self.answer, self._in_word = self.answer, None, False
        if self.margin:
            self._before = np.concatenate([self._before, chunk])[-self.margin :]
        return ended

    def _hear(self, samples: Floats) -> None:
        begin = time.perf_counter()
        steps = self.stream.hear(samples)
        logits = self.stream.logits()[0]
        self.times.append(time.perf_counter() - begin)
        self.heard += len(samples)
        if self.keep:
            self.word.append(samples)
        if steps:
            if not np.isfinite(logits).all():
                raise ValueError(f"expected finite logits of the network, got {logits.tolist()!s:.80}")
            powers, label = np.exp(logits - logits.max()), int(logits.argmax())
            shares = powers / powers.sum()
            self.answer = Answer(self.seconds, label, float(shares[label]), shares)


class Lines:
    """Prints a line for each new answer, and for the last one of each word."""

    live: Any = nullcontext()  # to be entered while lines are shown

    def __init__(self, names: Sequence[str]) -> None:
        self.names = [printable(name) for name in names]
        self._last: int | None = None  # the label that this word's last line shows

    def text(self, answer: Answer) -> str:
        """Seconds, name and probability of an answer."""
        return f"{answer.seconds:.2f} s  {self.names[answer.label]}  {answer.probability:.2f}"

    def show(self, listener: Listener) -> None:
        """Show the state after a chunk."""
        answer = listener.answer
        if answer is not None and answer.label != self._last:
            self._last = answer.label
            put(self.text(answer))

    def end(self, answer: Answer) -> None:
        """Show the last answer of a word."""
        self._last = None
        self.say(f"{self.text(answer)}  end")

    def say(self, text: str) -> None:
        """Show a line that stays."""
        put(text)


class LiveLine(Lines):
    """Shows the answer of the moment in one line of a terminal (rich), and above it the last answers of words."""

    def __init__(self, names: Sequence[str]) -> None:
        with extra("listen"):
            from rich.console import Console
            from rich.live import Live
            from rich.text import Text

        super().__init__(names)
        self.console = Console(markup=False, highlight=False, emoji=False)
        self.live = Live(
            console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self.width = max(map(len, self.names))
        self.bars = ASCII_BARS if self.console.options.ascii_only else BARS
        self._line = partial(Text, no_wrap=True, overflow="crop")
        self._shown = -math.inf  # seconds of the sound

    def show(self, listener: Listener) -> None:
        """Show the state after a chunk, not more often than every REFRESH seconds unless the answer changed."""
        label = None if listener.answer is None else listener.answer.label
        if label == self._last and listener.seconds - self._shown < REFRESH:
            return
        self._last, self._shown = label, listener.seconds
        line = f"{listener.seconds:.2f} s  {self.state(listener.answer)}  {listener.level:.0f} dB"
        self.live.update(self._line(line), refresh=True)

    def state(self, answer: Answer | None) -> str:
        """Name, probability and bars of an answer; or "quiet", as wide."""
        if answer is None:
            return f"{'quiet':{self.width + 6 + 2 + len(self.names)}}"
        bars = "".join(self.bars[round(float(share) * (len(self.bars) - 1))] for share in answer.shares)
        return f"{self.names[answer.label]:{self.width}}  {answer.probability:.2f}  {bars}"

    def say(self, text: str) -> None:
        """Keep a line above the live one."""
        self.console.print(printable(text), soft_wrap=True)


def summary(listener: Listener, chunk: float, lost: int) -> Iterator[str]:
    """The lines of the summary; ``chunk`` is in milliseconds, ``lost`` counts the chunks that were taken late."""
    heard = listener.heard / listener.rate
    of_words = f", {heard:.2f} s in words" if heard < listener.seconds else ""
    yield f"sound    {listener.seconds:.2f} s{of_words}, loudest chunk {listener.loudest:.0f} dB"
    if heard:
        median, largest = 1000 * statistics.median(listener.times), 1000 * max(listener.times)
        yield (
            f"network  {sum(listener.times) / heard:.2%} of real time, for a chunk of {chunk:g} ms "
            f"{median:.3f} ms (median), {largest:.3f} ms (largest)"
        )
    if lost:
        yield f"lost     samples before {lost} chunks: this machine was too slow or too busy"
