"""WAV files, folders of them, and the spoken digits: what is read, and what errors say of files that cannot be."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import re
import struct
import tarfile
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

import srcell
from srcell import data
from srcell.data import (
    Dataset,
    EventLoader,
    LabelledSounds,
    RateEncoding,
    SoundEncoding,
    downloads,
    load_spoken_digits,
    read_wav,
    spoken_digits,
)
from srcell.training import TrainingConfig, train
from support.refusals import Message, Refusal, refusals
from support.server import Answer, cut, from_the_begin, served, status, whole

ROOT = Path(__file__).resolve().parent.parent
PCM, FLOAT, MU_LAW = 1, 3, 7


@pytest.fixture(autouse=True)
def no_warnings_leak() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(content) if size is None else size) + content + b"\0" * (len(content) % 2)


def wav(
    samples: bytes,
    *,
    tag: int = PCM,
    channels: int = 1,
    rate: int = 8000,
    bits: int = 16,
    size: int | None = None,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A WAV file; ``size`` is that which the header gives for the data, ``before`` and ``after`` are other chunks."""
    block = channels * ((bits + 7) // 8)
    header = chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block, bits))
    content = b"WAVE" + header + before + chunk(b"data", samples, size) + after
    return b"RIFF" + struct.pack("<I", len(content)) + content


def of_24_bits(*samples: int) -> bytes:
    return b"".join(sample.to_bytes(3, "little", signed=True) for sample in samples)


HALF = struct.pack("<4h", 0, 16384, -32768, -16384)  # 0, 1/2, -1, -1/2 in 16 bits


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


# Reading


@pytest.mark.parametrize(
    "content",
    [
        wav(bytes([128, 192, 0, 64]), bits=8),
        wav(HALF),
        wav(of_24_bits(0, 2**22, -(2**23), -(2**22)), bits=24),
        wav(struct.pack("<4i", 0, 2**30, -(2**31), -(2**30)), bits=32),
        wav(struct.pack("<4f", 0, 0.5, -1, -0.5), tag=FLOAT, bits=32),
        wav(struct.pack("<4d", 0, 0.5, -1, -0.5), tag=FLOAT, bits=64),
        wav(struct.pack("<4f", 0, 0.5, -1.5, -0.5), tag=FLOAT, bits=32),  # beyond full scale
        wav(struct.pack("<8h", 16384, -16384, 0, 32767, -32768, -32768, -32768, 0), channels=2),
        wav(HALF, before=chunk(b"LIST", b"INFO" + b"\0" * 9), after=chunk(b"bext", b"odd")),
        wav(HALF, after=chunk(b"cue ", b"\0" * 8)[:-4]),
        wav(HALF) + b"\0",
    ],
    ids=["8", "16", "24", "32", "float", "double", "loud", "stereo", "chunks", "cut-after-the-data", "one-byte-more"],
)
def test_samples_of_every_format_are_scaled_to_1(content: bytes, tmp_path: Path) -> None:
    wave = read_wav(write(tmp_path / "a.wav", content))
    assert wave.dtype == torch.float32
    # In 16 bits the largest sample is 1 - 2^-15; the mean of two channels has half of that difference.
    torch.testing.assert_close(wave, torch.tensor([0, 0.5, -1, -0.5]), rtol=0, atol=2**-16)


def tone(frequency: float, rate: int) -> np.ndarray:
    """A second of a sine of amplitude 1/2."""
    sine: np.ndarray = 0.5 * np.sin(2 * np.pi * frequency * np.arange(rate) / rate)
    return sine


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 8000), (48_000, 8000), (16_000, 8000), (8000, 16_000)])
def test_other_rates_are_resampled(rate: int, wanted: int, tmp_path: Path) -> None:
    # The ripple of SciPy's filter, a Kaiser window with beta 5, is 10^(-A / 20) with A = beta / 0.1102 + 8.7: 0.002.
    ripple, inside = 0.002, slice(200, -200)
    wavfile.write(tmp_path / "low.wav", rate, tone(1000, rate))
    low = read_wav(tmp_path / "low.wav", wanted).numpy()
    assert len(low) == wanted and abs(low - tone(1000, wanted))[inside].max() < ripple
    if wanted < rate:
        wavfile.write(tmp_path / "high.wav", rate, tone(5500, rate))
        assert abs(read_wav(tmp_path / "high.wav", wanted).numpy()[inside]).max() < ripple


def test_resampling_stays_within_full_scale(tmp_path: Path) -> None:
    square = np.repeat(np.array([32767, -32768] * 50, np.int16), 441)
    wavfile.write(tmp_path / "a.wav", 44_100, square)
    assert read_wav(tmp_path / "a.wav").abs().max() == 1
    wavfile.write(tmp_path / "short.wav", 44_100, square[:1])
    assert read_wav(tmp_path / "short.wav").shape == (1,)


# Files that cannot be read


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a WAV file, got an empty one"),
        (b"ID3\x03" + bytes(99), "cannot be read as WAV (File format"),
        (b"RIFF\x04\0\0\0AVI ", "cannot be read as WAV (Not a WAV file"),
        (b"RIFF", "cannot be read as WAV (its header is corrupt"),
        (wav(HALF)[:30], "cannot be read as WAV (truncated: expected 16 bytes in a chunk, got 10)"),
        (wav(HALF)[:-2], "cannot be read as WAV (truncated: expected 8 bytes in a chunk, got 6)"),
        (wav(HALF, size=2**32 - 16), "cannot be read as WAV (truncated: expected 4294967280 bytes in a chunk, got 8)"),
        (wav(HALF)[:36], "cannot be read as WAV (Unexpected end of file"),
        (wav(b""), "expected at least one sample, got none"),
        (b"RIFF\0\0\0\0WAVE" + wav(HALF)[12:], "cannot be read as WAV (its header is corrupt, or it has no samples)"),
        (wav(HALF, channels=0), "cannot be read as WAV (its header is corrupt"),
        (wav(HALF, tag=MU_LAW, bits=8), "cannot be read as WAV (Unknown wave file format: MULAW."),
        (wav(HALF, tag=FLOAT), "cannot be read as WAV (Unsupported bit depth: the WAV file has 16-bit"),
        (wav(HALF[:6], channels=2), "cannot be read as WAV (cannot reshape array"),
        (wav(HALF, rate=0), "expected a sampling rate of 1000 to 384000 Hz, got 0"),
        (wav(HALF, rate=2**31 - 1), "expected a sampling rate of 1000 to 384000 Hz, got 2147483647"),
        (wav(struct.pack("<2f", 0, np.nan), tag=FLOAT, bits=32), "expected finite samples, got NaN or infinity"),
        (wav(struct.pack("<2d", 0, -np.inf), tag=FLOAT, bits=64), "expected finite samples, got NaN or infinity"),
        (wav(struct.pack("<2f", 0, -9000), tag=FLOAT, bits=32), "expected floats in [-1, 1], got 9000"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "bad.wav", content)
    with pytest.raises(ValueError) as error:
        read_wav(path)
    assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_floats_of_16_bits_are_refused(tmp_path: Path) -> None:
    content = wav(struct.pack("<4e", 0, 0.5, -1, -0.5), tag=FLOAT, bits=16)
    path = write(tmp_path / "a.wav", content[:34] + struct.pack("<H", 32) + content[36:])  # 32 bits in blocks of 16
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: expected floats of 32 or 64 bits, got 16"):
        read_wav(path)


@pytest.mark.parametrize("rate", [1000, 384_000])
def test_the_lowest_and_the_highest_rate_are_read(rate: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", wav(HALF, rate=rate))
    assert read_wav(path, rate).tolist() == [0, 0.5, -1, -0.5] and len(read_wav(path)) == max(1, 4 * 8000 // rate)
    for beyond in (999, 384_001):
        with pytest.raises(ValueError, match=f"expected a sampling rate of 1000 to 384000 Hz, got {beyond}"):
            read_wav(write(path, wav(HALF, rate=beyond)))


def test_memory_follows_the_size_of_a_file_and_not_its_header(tmp_path: Path) -> None:
    rf64 = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", 28, 2**62, 2**62, 2**61, 0) + wav(HALF)[12:]
    for content in (wav(HALF, size=2**32 - 2), wav(HALF, channels=2**15 - 1, size=2**32 - 2), rf64):
        path = write(tmp_path / "a.wav", content)
        tracemalloc.start()
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_wav(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**20


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        read_wav(tmp_path / "none.wav")


def assert_read_or_refused(path: Path) -> None:
    try:
        wave = read_wav(path)
    except ValueError as error:
        assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    else:
        assert wave.dim() == 1 and len(wave) > 0 and wave.dtype == torch.float32
        assert bool((wave.abs() <= 1).all())  # False for NaN


GOOD = [
    wav(HALF),
    wav(HALF * 3, channels=2, rate=44_100),
    wav(of_24_bits(1, -2, 3), bits=24, after=chunk(b"LIST", b"INFO")),
    wav(struct.pack("<3f", 0.1, 0.2, -1), tag=FLOAT, bits=32, before=chunk(b"fact", b"\3\0\0\0")),
    b"RIFX" + struct.pack(">I", 38) + b"WAVEfmt " + struct.pack(">IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    + b"data" + struct.pack(">I2B", 2, 64, 0),
]  # fmt: skip
fuzzed = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(content=st.binary(max_size=80), start=st.sampled_from([b"", b"RIFF", b"RIFF\xff\0\0\0WAVE", GOOD[0][:36]]))
def test_any_bytes_are_read_or_refused(content: bytes, start: bytes, tmp_path: Path) -> None:
    assert_read_or_refused(write(tmp_path / "any.wav", start + content))


@fuzzed
@given(draw=st.data(), good=st.sampled_from(GOOD))
def test_cut_and_altered_files_are_read_or_refused(draw: st.DataObject, good: bytes, tmp_path: Path) -> None:
    altered = bytearray(good)
    for at in draw.draw(st.lists(st.integers(0, len(good) - 1), max_size=3)):
        altered[at] = draw.draw(st.sampled_from([0, 1, 2, 127, 128, 254, 255]) | st.integers(0, 255))
    end = draw.draw(st.just(len(good)) | st.integers(0, len(good)))
    assert_read_or_refused(write(tmp_path / "altered.wav", bytes(altered[:end])))


def test_good_files_are_read_before_they_are_altered(tmp_path: Path) -> None:
    assert [len(read_wav(write(tmp_path / "a.wav", good))) for good in GOOD] == [4, 2, 3, 3, 1]


# Sounds with labels


def sounds() -> LabelledSounds:
    return LabelledSounds.of([torch.full((k,), k / 8) for k in (3, 5, 2)], [7, 8, 9], 16_000)


def test_selected_sounds_are_as_long_as_the_longest() -> None:
    assert repr(sounds()) == "LabelledSounds(waves of shape (3, 5), 16000 Hz, with lengths)"
    chosen = sounds().select(torch.tensor([2, 0]))
    assert chosen.waves.tolist() == [[0.25, 0.25, 0], [0.375] * 3] and chosen.rate == 16_000
    assert chosen.labels.tolist() == [9, 7] and chosen.lengths is not None and chosen.lengths.tolist() == [2, 3]
    assert sounds().select(torch.tensor([], dtype=torch.int64)).waves.shape == (0, 0)


def test_sounds_of_one_length_have_no_lengths() -> None:
    same = LabelledSounds.of([torch.ones(4), torch.zeros(4)], [0, 1], 8000)
    assert same.lengths is None and repr(same) == "LabelledSounds(waves of shape (2, 4), 8000 Hz)"
    chosen = same.select(torch.tensor([1]))
    assert chosen.waves.shape == (1, 4) and chosen.labels.tolist() == [1] and chosen.lengths is None


def test_a_loader_encodes_sounds() -> None:
    chosen, encoding = sounds(), SoundEncoding(rate=16_000, bands=3, frame=1 / 8000)
    order: list[int] = []
    for events, labels in EventLoader(chosen, encoding, batch_size=1, shuffle=True):
        number = chosen.labels.tolist().index(int(labels))
        alone = chosen.select(torch.tensor([number]))
        assert torch.equal(events.to_dense(), encoding(alone.waves, lengths=alone.lengths).to_dense())
        order.append(number)
    assert sorted(order) == list(range(len(chosen.labels)))


@pytest.mark.parametrize(
    ("encoding", "error", "message"),
    [
        (RateEncoding(), TypeError, r"^encoding: expected a SoundEncoding for sounds, got RateEncoding"),
        (None, TypeError, r"^encoding: expected a SoundEncoding for sounds, got None"),
        (SoundEncoding(), ValueError, r"^encoding: expected one for sounds of 16000 Hz, got 8000 Hz"),
    ],
)
def test_a_loader_refuses_another_encoding_for_sounds(encoding: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        EventLoader(sounds(), encoding)


def write_sounds(folder: Path, **lengths: int) -> Path:
    """Files of the given lengths; "__" in a name stands for a folder."""
    for name, length in lengths.items():
        write(folder / (name.replace("__", "/") + ".wav"), wav(struct.pack(f"<{length}h", *range(length))))
    return folder


def test_labels_come_from_the_names_of_files(tmp_path: Path) -> None:
    write_sounds(tmp_path, yes_2=5, yes_1=4, more__no_1=3, maybe=2)
    write(tmp_path / "._no_9.wav", b"of a Mac")
    write(tmp_path / ".hidden/no_8.wav", b"hidden")
    write(tmp_path / "notes.txt", b"mine")
    (tmp_path / "yes_1.wav").rename(tmp_path / "yes_1.WAV")
    found, names = LabelledSounds.from_folder(tmp_path)
    assert names == ("maybe", "no", "yes") and found.labels.tolist() == [0, 1, 2, 2]
    assert found.lengths is not None and found.lengths.tolist() == [2, 3, 4, 5] and found.rate == 8000
    assert LabelledSounds.from_folder(tmp_path, rate=16_000)[0].waves.shape == (4, 10)


def test_a_folder_within_a_hidden_one_is_read(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / ".cache/words", yes_1=3)
    assert LabelledSounds.from_folder(folder)[1] == ("yes",)


def test_names_that_are_integers_are_sorted_as_numbers(tmp_path: Path) -> None:
    write_sounds(tmp_path, a=1, b=2, c=3)
    labels = {"a.wav": 10, "b.wav": 9, "c.wav": -1}
    assert LabelledSounds.from_folder(tmp_path, labels)[1] == ("-1", "9", "10")
    assert LabelledSounds.from_folder(tmp_path, labels | {"c.wav": "x"})[1] == ("10", "9", "x")
    large = 10**17
    assert LabelledSounds.from_folder(tmp_path, labels | {"c.wav": large})[1] == ("9", "10", str(large))


def test_labels_come_from_a_function_a_mapping_or_a_table(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "words", yes__b=3, no__a=2, no__c=4)
    table = write(tmp_path / "labels.csv", b"\xef\xbb\xbflabel,speaker,file\r\non,theo,yes/b.wav\r\noff,,no/a.wav\r\n")
    mapping: Mapping[str, str] = {"yes/b.wav": "on", "no/a.wav": "off"}
    every, names = LabelledSounds.from_folder(folder, lambda path: path.parent.name)
    assert names == ("no", "yes") and every.labels.tolist() == [0, 0, 1]
    for labels in (mapping, table, str(table)):
        some, names = LabelledSounds.from_folder(folder, labels)
        assert names == ("off", "on") and some.labels.tolist() == [0, 1]
        assert some.lengths is not None and some.lengths.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns file and label in its first line, got []"),
        (b"name,label\na.wav,x\n", "expected the columns file and label in its first line, got ['name', 'label']"),
        (b"file,label\na.wav,x\nb.wav\n", "line 3: expected a file and its label, got ['b.wav', None]"),
        (b"file,label\na.wav,\n", "line 2: expected a file and its label, got ['a.wav', '']"),
        (b"file,label\na.wav,x\na.wav,y\n", "line 3: expected one label for each file, got another for a.wav"),
        (b"file,label\na.wav,\xff\n", "'utf-8' codec can't decode"),
        (b'file,label\n"' + b"a" * 200_000, "field larger than field limit"),
    ],
)
def test_an_invalid_table_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    write_sounds(tmp_path, a=1, b=1)
    table = write(tmp_path / "labels.csv", content)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{table}: {message}')}"):
        LabelledSounds.from_folder(tmp_path, table)


def in_a_folder(folder: Path) -> Callable[..., Any]:
    return lambda *labels, **options: LabelledSounds.from_folder(folder, *labels, **options)


def test_folders_without_sounds_or_labels_are_named(tmp_path: Path) -> None:
    folder = write_sounds(tmp_path / "sounds", a=1)
    read = in_a_folder(folder)
    for error, message, call in (
        (FileNotFoundError, f"{tmp_path}/none: expected a folder", in_a_folder(tmp_path / "none")),
        (FileNotFoundError, f"{tmp_path}/none.csv", lambda: read(tmp_path / "none.csv")),
        (FileNotFoundError, f"{folder}/b.wav is not there, but has a label", lambda: read({"b.wav": "b"})),
        (FileNotFoundError, f"{folder}/{'b' * 300} is not there, but has a label", lambda: read({"b" * 300: "b"})),
        (FileNotFoundError, f"{folder} is not there, but has a label", lambda: read({".": "b"})),
        (ValueError, f"{folder}/a.wav: expected one label, got two", lambda: read({"a.wav": "a", "./a.wav": "b"})),
        (TypeError, f"labels: expected names of files in {folder}, got int", lambda: read({3: "b"})),
        (TypeError, f"labels: expected a path, a mapping or a function for {folder}, got int", lambda: read(3)),
        (FileNotFoundError, f"{folder}: expected at least one WAV file", lambda: read({})),
        (ValueError, f"{folder}/a.wav: expected a label, got an empty one", lambda: read(lambda path: "")),
        (TypeError, f"labels: expected a str or an int for {folder}/a.wav, got NoneType", lambda: read(lambda _: None)),
        (TypeError, f"labels: expected a str or an int for {folder}/a.wav, got bool", lambda: read({"a.wav": True})),
        (ValueError, "rate: expected an int in [1000, 384000], got 0", lambda: read(rate=0)),
    ):
        with pytest.raises(error, match=re.escape(message)):
            call()  # type: ignore[no-untyped-call]
    write(folder / "b.wav", b"RIFF")
    with pytest.raises(ValueError, match=re.escape(f"{folder}/b.wav: cannot be read as WAV")):
        read()
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="expected at least one WAV file with a label"):
        read()


@refusals(
    Refusal("rate", lambda: read_wav("a.wav", 999)),
    Refusal("rate", lambda: read_wav("a.wav", 8000.0), TypeError),  # type: ignore[arg-type]
    Refusal("held_out", lambda: load_spoken_digits("data", held_out="bob")),
    Message("no spoken digits in .*: expected the folder", lambda: data.load("spoken-digits", "x"), FileNotFoundError),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


# Spoken digits


def recording(digit: int, speaker: str, number: int) -> bytes:
    """A recording that can be told from all others: its length, and its one sample that is not 0."""
    samples = np.zeros(1 + number, np.int16)
    samples[0] = 100 * digit + spoken_digits.SPEAKERS.index(speaker)
    return wav(samples.tobytes())


MADE = {name: recording(*key) for name, key in spoken_digits.NAMES.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that holds a made data set."""
    root = tmp_path_factory.mktemp("digits")
    for name, content in MADE.items():
        write(root / "spoken-digits/recordings" / name, content)
    return root


def keys(samples: Any) -> list[tuple[int, str, int]]:
    """The digit, speaker and number of each made recording, as its wave tells."""
    assert isinstance(samples, LabelledSounds) and samples.lengths is not None and samples.rate == 8000
    marks = (samples.waves[:, 0] * 2**15).int()
    assert torch.equal(marks // 100, samples.labels.int()) and not samples.waves[:, 1:].any()
    numbers = (samples.lengths - 1).tolist()
    return [
        (mark // 100, spoken_digits.SPEAKERS[mark % 100], k) for mark, k in zip(marks.tolist(), numbers, strict=True)
    ]


def assert_made(dataset: Dataset, is_test: Callable[[str, int], bool]) -> None:
    for part, wanted in ((dataset.train, False), (dataset.test, True)):
        assert keys(part) == [key for key in spoken_digits.NAMES.values() if is_test(*key[1:]) == wanted]
    assert dataset.num_classes == 10 and dataset.input_shape == (1, 1, 1)


@pytest.mark.parametrize(("frame", "threshold"), [(0.01, 0.0), (0.005, 0.05)])
def test_a_preset_trains_and_its_exported_network_hears(
    frame: float, threshold: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    waves = [torch.rand(length, generator=generator) - 0.5 for length in range(10, 1010, 50)]  # the first has no frame
    samples = LabelledSounds.of(waves, [k % 10 for k in range(20)], 8000)
    monkeypatch.setattr(data, "load", lambda *_, **__: Dataset(samples, samples, 10, (1, 1, 1)))
    config = TrainingConfig.preset(
        "best", "spoken-digits", hidden_sizes=(8,), epochs=1, validation=0.0, frame=frame, threshold=threshold
    )
    run = train(config, tmp_path / "run")
    encoding, network = SoundEncoding(frame=frame, threshold=threshold), srcell.load(tmp_path / "run")
    assert network.encoder == encoding
    network.export(tmp_path / "heard.srcell")
    stream = srcell.runtime.load(tmp_path / "heard.srcell").stream()
    stream.hear(waves[-1].numpy())
    expected = run.model(encoding(waves[-1][None]))
    torch.testing.assert_close(torch.tensor(stream.logits()), expected.detach(), rtol=0, atol=1e-5)


def test_the_official_split_tests_the_first_five_recordings(made: Path) -> None:
    dataset = data.load("spoken-digits", made)
    assert len(dataset.train.labels) == 2700 and len(dataset.test.labels) == 300
    assert_made(dataset, lambda speaker, number: number < 5)
    assert data.class_names("spoken-digits") == ()


def test_a_speaker_can_be_held_out(made: Path) -> None:
    dataset = load_spoken_digits(made, held_out="theo")
    assert len(dataset.train.labels) == 2500 and len(dataset.test.labels) == 500
    assert_made(dataset, lambda speaker, number: speaker == "theo")


def test_the_folder_of_the_recordings_has_one_of_three_places(made: Path, tmp_path: Path) -> None:
    for other in ("recordings", "spoken-digits/recordings"):  # of something else
        (tmp_path / other).mkdir(parents=True)
    (tmp_path / "free-spoken-digit-dataset").symlink_to(made / "spoken-digits")
    for root in (made / "spoken-digits", tmp_path):
        assert_made(load_spoken_digits(root), lambda speaker, number: number < 5)


def test_missing_and_corrupt_recordings_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "spoken-digits/recordings"
    for name in list(MADE)[2:]:
        write(folder / name, MADE[name])
    message = f"{folder}: incomplete, lacks 2 of 3000 recordings, the first is 0_george_0.wav: delete it and download"
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        load_spoken_digits(tmp_path, download=True)
    write(folder / "0_george_0.wav", MADE["0_george_0.wav"])
    write(folder / "0_george_1.wav", b"")
    message = f"{folder}/0_george_1.wav: expected a WAV file, got an empty one: delete {folder} and download it again"
    with pytest.raises(ValueError, match=re.escape(message)):
        load_spoken_digits(tmp_path)


# Its download


def archive(recordings: Mapping[str, bytes], **links: str) -> bytes:
    """An archive as GitHub offers it, with files beside the recordings, then members that must not be unpacked."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as members:
        top, first = "free-spoken-digit-dataset-1.0.10", "0_george_0.wav"
        others = f"{top}/README.md", f"{top}/recordings/more.wav", f"../recordings/{first}/x", f"/recordings/{first}"
        contents = {f"{top}/recordings/{name}": content for name, content in recordings.items()}
        for name, content in (contents | dict.fromkeys(others, b"-")).items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
        for name, target in links.items():
            member = tarfile.TarInfo(f"{top}/recordings/{name}.wav")
            member.type, member.linkname = tarfile.SYMTYPE, target
            members.addfile(member)
    return file.getvalue()


WHOLE = archive(MADE)


def broken_within_a_recording() -> bytes:
    """An archive whose compression becomes invalid in the middle of its first recording."""
    packer = zlib.compressobj(wbits=31)  # gzip
    start = gzip.decompress(archive({"0_george_0.wav": bytes(400_000)}))[:300_000]
    return packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH) + b"\xff" * 100  # no kind of block begins so


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Answer]]:
    """What each request gets, in turn; the checksum is that of the made recordings."""
    monkeypatch.setattr(downloads, "PAUSES", (0.0,))
    with served() as server:
        monkeypatch.setattr(spoken_digits, "URL", server.offer("/v1.0.10.tar.gz", WHOLE))
        digest = hashlib.sha256(b"".join(name.encode() + content for name, content in MADE.items()))
        monkeypatch.setattr(spoken_digits, "SHA256", digest.hexdigest())
        yield server.answers["/v1.0.10.tar.gz"]


def sending(content: bytes) -> Answer:
    return lambda handler, _: handler.send(200, content)


def test_a_download_is_unpacked_whole(offered: list[Answer], tmp_path: Path) -> None:
    offered[:] = [cut(1000), from_the_begin(len(WHOLE)), status(404)]
    root = tmp_path / "made/data"
    for _ in range(2):  # nothing is requested the second time
        assert_made(data.load("spoken-digits", root, download=True), lambda speaker, number: number < 5)
    assert len(offered) == 1 and os.listdir(tmp_path) == ["made"] and os.listdir(root) == ["free-spoken-digit-dataset"]
    assert {path.name: path.read_bytes() for path in (root / "free-spoken-digit-dataset/recordings").iterdir()} == MADE


WITHOUT_ONE = {name: content for name, content in MADE.items() if name != "9_theo_49.wav"}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([status(404)], "v1.0.10.tar.gz could not be downloaded (URL: answered 404 Not Found): try again"),
        ([cut(7), cut(0)], f"could not be downloaded (URL: the connection was cut after 7 of {len(WHOLE):,} bytes)"),
        ([status(503)], "could not be downloaded (URL: answered 503 Service Unavailable): try again; or fetch"),
        ([sending(b"<html>")], "URL: the download is corrupt or truncated"),
        ([sending(WHOLE[: len(WHOLE) // 2])], "URL: the download is corrupt or truncated"),
        ([sending(broken_within_a_recording())], "URL: the download is corrupt or truncated"),
        ([sending(archive(WITHOUT_ONE))], "URL: expected 3000 recordings in the download, got 2999"),
        (
            [sending(archive(WITHOUT_ONE, **{"9_theo_49": "9_theo_48.wav"}))],
            "URL: expected 3000 recordings in the download, got 2999",
        ),
        (
            [sending(archive({**MADE, "9_theo_49.wav": wav(HALF)}))],
            "URL: the recordings in the download are not those of",
        ),
    ],
    ids=["missing", "cut-connection", "busy", "no-archive", "truncated", "broken", "incomplete", "link", "others"],
)
def test_a_bad_download_leaves_nothing(
    answers: list[Answer], message: str, offered: list[Answer], tmp_path: Path
) -> None:
    offered[:] = answers
    error = ValueError if message.startswith("URL") else ConnectionError
    with pytest.raises(error, match=re.escape(message.replace("URL", spoken_digits.URL))) as caught:
        load_spoken_digits(tmp_path, download=True)
    if error is ConnectionError:
        assert f"and unpack it into {tmp_path} as free-spoken-digit-dataset" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_two_processes_may_download_at_once(
    offered: list[Answer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered[:] = [whole, whole, status(404)]
    rename = os.rename

    def rename_second(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", rename)
        load_spoken_digits(tmp_path, download=True)  # the other process ends first
        rename(source, target)

    monkeypatch.setattr(os, "rename", rename_second)
    load_spoken_digits(tmp_path, download=True)
    assert len(offered) == 1 and os.listdir(tmp_path) == ["free-spoken-digit-dataset"]


def test_the_real_recordings_are_those_of_the_checksum() -> None:
    root = Path(os.environ.get("SRCELL_DATA", ROOT / "data"))
    try:
        dataset = data.load("spoken-digits", root)
    except FileNotFoundError:
        pytest.skip(f"no spoken digits in {root}: SRCELL_DATA names the folder that holds them")
    folder = spoken_digits._find(root)
    assert folder is not None
    digest = hashlib.sha256(b"".join(name.encode() + (folder / name).read_bytes() for name in spoken_digits.NAMES))
    assert digest.hexdigest() == spoken_digits.SHA256
    train, test = dataset.train, dataset.test
    assert isinstance(train, LabelledSounds) and isinstance(test, LabelledSounds)
    assert train.waves.shape == (2700, 18262) and test.waves.shape == (300, 9178)
    assert train.labels.bincount().tolist() == [270] * 10 and test.labels.bincount().tolist() == [30] * 10
    assert train.lengths is not None and int(train.lengths.min()) == 1149
