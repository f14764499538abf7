"""Fuzz targets on sounds: WAV files, folders of them, hearing in chunks. They have the form of ``op_targets``."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
import json
import math
import struct
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fuzz.draws import FLOATS, Draw, corrupted
from fuzz.facts import RefusedError, attempt
from fuzz.file_targets import assert_alone, attempt_to_read, refill, workspace
from srcell import SRC, EventBatch, LinearReadout, SpikesOnly, runtime
from srcell.data import LabelledSounds, SoundEncoding, read_wav
from support.networks import exported

PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
GUID = b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71"  # what follows the format in an extensible header
# A header of some bytes may give a sampling rate whose resampling filter, with what SciPy needs to compute it, takes
# 352 MB; a header whose sizes are believed would take more.
MOST_BYTES = 400 << 20


# WAV files


class Sound(NamedTuple):
    """A valid WAV file, and what it holds."""

    content: bytes
    samples: NDArray[np.float64]  # (S, channels)
    rate: int


def a_chunk(name: bytes, content: bytes, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(content)) + content + b"\0" * (len(content) % 2)


def other_chunks(draw: Draw, order: str) -> bytes:
    """Chunks that a reader skips, of odd lengths too."""
    names = (b"LIST", b"fact", b"bext", b"JUNK", b"cue ", b"id3 ", b"\0\xff\0\xff")
    return b"".join(
        a_chunk(draw.pick(*names), draw.randbytes(draw.randrange(9)), order) for _ in range(draw.pick(0, 0, 1, 3))
    )


def sound_file(draw: Draw) -> Sound:
    """A valid file of any format, little- or big-endian, with other chunks between its own."""
    order, channels, count = draw.pick("<", "<", "<", ">"), draw.pick(1, 1, 2, 6), draw.pick(1, 4, 9, 80, 700)
    tag, bits = draw.pick((PCM, 8), (PCM, 16), (PCM, 16), (PCM, 24), (PCM, 32), (PCM, 64), (FLOAT, 32), (FLOAT, 64))
    rate = draw.pick(8000, 8000, 8000, 16_000, 44_100, 11_025, 1000, 48_000)
    if tag == FLOAT:
        numbers = draw.floats(count, channels, scale=draw.pick(0.3, 1.0)).numpy().astype(f"{order}f{bits // 8}")
        data, samples = numbers.tobytes(), numbers.astype(np.float64)
    else:
        most = 2 ** (bits - 1)
        whole = [[draw.randrange(-most, most) for _ in range(channels)] for _ in range(count)]
        side = "little" if order == "<" else "big"
        size, middle = bits // 8, 128 if bits == 8 else 0
        data = b"".join((x + middle).to_bytes(size, side, signed=bits > 8) for row in whole for x in row)  # type: ignore
        samples = np.array(whole, np.float64) / most
    block = channels * bits // 8
    plain = struct.pack(f"{order}HIIHH", channels, rate, rate * block, block, bits)
    how = draw.randrange(4)
    header = struct.pack(f"{order}H", tag) + plain + b"\0\0" * (how == 1)
    if how == 2 and order == "<":
        header = struct.pack("<H", EXTENSIBLE) + plain + struct.pack("<HHIH", 22, bits, 0, tag) + GUID
    parts = [a_chunk(b"fmt ", header, order), a_chunk(b"data", data, order)]
    content = b"WAVE" + b"".join(other_chunks(draw, order) + part for part in parts) + other_chunks(draw, order)
    name = b"RIFF" if order == "<" else b"RIFX"
    return Sound(name + struct.pack(f"{order}I", len(content)) + content, samples, rate)


def strange_file(draw: Draw) -> bytes:
    """A file with a fault: cut, with altered bytes or fields, with its chunks in another order, or no WAV file."""
    content = sound_file(draw).content
    how = draw.randrange(6)
    if how == 0:
        return content[: draw.randrange(len(content))]
    if how == 1:
        at = content.find(b"fmt ") + draw.randrange(4, 24)
        field = struct.pack(draw.pick("<H", "<I", ">H"), draw.pick(0, 1, 2, 3, 7, 12, 255, 65_534, 65_535))
        return content[:at] + field + content[at + len(field) :]
    if how == 2:
        at, size = draw.pick(content.find(b"data") + 4, 4), draw.pick(0, 1, 2, 5, 2**31, 2**32 - 1, len(content))
        return content[:at] + struct.pack("<I", size) + content[at + 4 :]
    if how == 3:
        pieces = [content[12:], sound_file(draw).content[12:], a_chunk(b"data", b"\0\1" * draw.randrange(9))]
        draw.shuffle(pieces)
        body = b"WAVE" + b"".join(pieces[: draw.pick(1, 2, 3)])
        return draw.pick(b"RIFF", b"RIFX") + struct.pack("<I", len(body)) + body
    if how == 4:
        sizes = [draw.pick(0, 28, 2**31, 2**62, 2**63, len(content)) for _ in range(3)]
        long = b"RF64\xff\xff\xff\xffWAVEds64" + struct.pack("<IQQQI", draw.pick(28, 28, 0, 16, 2**32 - 1), *sizes, 0)
        return long + content[12:]
    start = draw.pick(b"", b"RIFF", b"RIFF\xff\0\0\0WAVE")
    return draw.pick(start + draw.randbytes(draw.randrange(80)), start, corrupted(draw, content))


def assert_sound(found: Tensor, sound: Sound, rate: int) -> None:
    """Assert that the samples are the file's, if they were not resampled."""
    if sound.rate == rate:
        wanted = np.clip(sound.samples.mean(1), -1, 1)
        np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=2.0**-24)
    assert len(found) == -(-len(sound.samples) * rate // sound.rate)


def sounds(draw: Draw) -> None:
    """read_wav and LabelledSounds.from_folder: only errors that name a file, no warnings, and bounded memory."""
    read, measured = draw.pick(one_file, one_file, labelled_files), draw.chance(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if measured:
            tracemalloc.start()
        try:
            read(draw)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < MOST_BYTES, peak


def assert_wave(wave: Tensor) -> None:
    assert wave.dim() == 1 and len(wave) > 0 and wave.dtype == torch.float32
    assert bool((wave.abs() <= 1).all())  # False for NaN


def one_file(draw: Draw) -> None:
    sound, rate = sound_file(draw), draw.pick(8000, 8000, 16_000, 1000)
    spoilt = draw.chance(60)
    content = strange_file(draw) if spoilt else sound.content
    path = workspace("wav") / "a.wav"
    path.write_bytes(content)

    wave: Tensor = attempt_to_read(path.parent, lambda: read_wav(path, rate), refusable=spoilt)

    assert_wave(wave)
    if not spoilt:
        assert_sound(wave, sound, rate)


NAMES = (
    *("yes_1.wav", "yes_2.wav", "no_1.WAV", "deep/er/no_2.wav", "maybe.wav", "é_1.wav", " _1.wav", "a b_c_d.wav"),
    "1_1.wav",
)
UNREAD = (".hidden_1.wav", ".x/no_9.wav", "notes.txt", "no_3.wav.bak")
LABELS = ("yes", "no", "0", "1", "-1", "10", 0, 1, -1, 10**18, 10**400, "é", " ", "\0", "x" * 5000, "\udcff")
WRONG_LABELS = ("", None, True, 1.0, b"yes", [], np.int64(1), torch.tensor(1), math.nan)
WRONG_NAMES = (
    *("none.wav", "", ".", "..", "deep", "../foreign", "x" * 300, "\0", "a/" * 3000, "yes_1.wav/x", "./yes_1.wav"),
    "././a b_c_d.wav",
)


def labelled_files(draw: Draw) -> None:
    folder = workspace("sounds")
    made = {name: sound_file(draw) for name in draw.sample(NAMES, draw.pick(1, 2, 3))}
    contents = {name: sound.content for name, sound in made.items()}
    broken = draw.chance(20)
    if broken:
        contents[draw.pick(*made)] = strange_file(draw)
    contents |= dict.fromkeys(draw.sample(UNREAD, draw.pick(0, 0, 1, 2)), b"RIFF")
    labels = {name: draw.pick(*LABELS) for name in made}
    how, spoilt = draw.randrange(4), draw.chance(30)
    if spoilt and how:
        if how < 3 and draw.chance(50):
            labels[draw.pick(*WRONG_NAMES)] = "yes"
        else:
            labels[draw.pick(*labels)] = draw.pick(*WRONG_LABELS)
    given: Any = labels
    if spoilt and draw.chance(10):
        given, how = draw.pick(3, True, [], ["yes"], object(), {3: "yes"}, {None: "no"}), 1
    elif how == 0:
        given, labels = None, {name: Path(name).stem.partition("_")[0] for name in made}
        if spoilt:
            contents["_9.wav"] = sound_file(draw).content
    elif how == 2:
        contents["labels.csv"], given = table(draw, labels, spoilt), folder / "labels.csv"
    elif how == 3:
        given = lambda path: labels[path.relative_to(folder).as_posix()]  # noqa: E731
    refill(folder, contents)

    try:
        found, classes = LabelledSounds.from_folder(folder, given)
    except (FileNotFoundError, ValueError, TypeError) as error:
        assert str(folder) in str(error), f"names no file: {error}"
        assert broken or spoilt, error
        raise RefusedError from error
    finally:
        assert_alone(folder)

    lengths = [found.waves.shape[1]] * len(found.waves) if found.lengths is None else found.lengths.tolist()
    for wave, length in zip(found.waves, lengths, strict=True):
        assert_wave(wave[:length])
        assert not wave[length:].any()
    if spoilt and how == 2:
        return  # which labels an altered table has is not known
    names = sorted(labels, key=lambda name: folder / name)
    assert [classes[k] for k in found.labels.tolist()] == [str(labels[name]) for name in names]
    assert len(set(classes)) == len(classes)
    for name, wave, length in zip(names, found.waves, lengths, strict=True):
        if not broken:
            assert_sound(wave[:length], made[name], found.rate)


def table(draw: Draw, labels: dict[str, Any], spoilt: bool) -> bytes:
    """A CSV file of the labels, which become texts; sometimes with more columns, and altered if ``spoilt``."""
    labels |= {name: "é" if label == "\udcff" else str(label) for name, label in labels.items()}
    more = draw.chance(30)
    file = io.StringIO(newline="")
    rows = csv.writer(file)
    rows.writerow(["label", *["speaker"] * more, "file"])
    rows.writerows([label, *["bob"] * more, name] for name, label in labels.items())
    content = file.getvalue().encode(draw.pick("utf-8", "utf-8", "utf-8-sig", "utf-16" if spoilt else "utf-8"))
    return corrupted(draw, content) if spoilt and draw.chance(70) else content


# Hearing


def settings(draw: Draw) -> dict[str, Any]:
    """Settings of a SoundEncoding, small and in their ranges."""
    rate, bands = draw.pick(8000, 8000, 16_000, 1000, 44_100), draw.pick(1, 2, 3, 5, 9)
    lowest = draw.uniform(20, rate / 4)
    return {
        "rate": rate,
        "bands": bands,
        "lowest": draw.pick(lowest, int(lowest)),
        "highest": draw.uniform(lowest, rate / 2.001),
        "frame": draw.pick(1, 2, 7, 31, 80) / rate,
        "hold": draw.pick(1, 1, 2, 3),
        "smoothing": draw.pick(0.008, 0.001, 1e-6, 1.0),
        "memory": draw.pick(0.3, 0.01, 1e-6, 100.0),
        "adaptation": draw.pick(0.0, 0.5, 1.0, 0, 1),
        "threshold": draw.pick(0.0, 0.0, 0, 0.05, 0.3, 1),
        "offset": draw.pick(0.16, 0, -1.0, [0.1] * bands, (0.2,) * bands),
        "scale": draw.pick(6.25, 1, -2.0, 0.0, [3.0] * bands, (6.0,) * bands),
    }


def a_wave(draw: Draw, *shape: int, wild: int = 0) -> Tensor:
    """Noise that swells, loud or quiet, sometimes silence."""
    swell = torch.linspace(0, draw.pick(1.0, 0.01, 1e-6, 0.0), shape[-1])
    return draw.floats(*shape, dtype=torch.float32, wild=wild) * swell


def hearing(draw: Draw) -> None:
    """SoundEncoding, Hearing.take and Stream.hear: chunks of any lengths and layouts have the bits of the whole."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        draw.pick(encoded_sounds, encoded_sounds, heard_stream, fitted_encoding)(draw)


def encoded_sounds(draw: Draw) -> None:
    """An encoding with settings that may be wrong, of waves and lengths that may be wrong."""
    chosen = settings(draw)
    spoilt = draw.spoil(chosen, 15, lambda _: draw.oddity())
    encoding: SoundEncoding = attempt(SoundEncoding, chosen, spoilt, *chosen)
    again = SoundEncoding(**json.loads(json.dumps(dataclasses.asdict(encoding))))
    assert again == encoding and hash(again) == hash(encoding)
    samples, batch = draw.pick(300, 80, 7, 1, 0), draw.pick(1, 2, 0, 3)
    plain = a_wave(draw, batch, samples, wild=15)
    fit = bool(plain.isfinite().all())
    given: dict[str, Any] = {"waves": draw.relaid(plain.to(draw.pick(*FLOATS, torch.float32)))}
    if draw.chance(50):
        given["lengths"] = draw.lengths(samples, batch)
    ends = given.get("lengths", torch.full((batch,), samples)).tolist()
    spoilt = draw.spoil(given, 20)

    events = attempt(encoding, given, spoilt or not fit, *given, "samples")

    if spoilt or encoding.hop > 100:
        return
    assert events.shape == (samples // encoding.hop * encoding.hold, batch, encoding.inputs)
    dense = events.to_dense()
    for b, end in enumerate(ends):
        steps = end // encoding.hop * encoding.hold
        heard = in_frames(encoding, in_chunks(draw, encoding.hearing().take, plain[b, :end].numpy()))
        assert np.array_equal(dense[:steps, b].numpy()[:: encoding.hold], heard) and not dense[steps:, b].any()
    EventBatch(events.offsets, events.indices, events.values, shape=events.shape, lengths=events.lengths)


def in_chunks(draw: Draw, take: Callable[[Any], Any], wave: NDArray[np.float32]) -> list[Any]:
    """What the calls return for chunks of random lengths, in other dtypes, layouts and kinds of sequences."""
    found, at = [], 0
    while at < len(wave) or not found:
        size = draw.pick(0, 1, 3, 50, 1000, draw.randrange(400))
        found.append(take(as_other_array(draw, wave[at : at + size])))
        at += size
    return found


def as_other_array(draw: Draw, x: NDArray[np.float32]) -> Any:
    """The same numbers in something that is not a contiguous array of float32."""
    wide = np.zeros(2 * len(x) + 1, np.float32)
    wide[1::2] = x
    shifted = np.zeros(4 * len(x) + 1, np.uint8)[1:].view(np.float32)
    shifted[:] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    tensor = torch.from_numpy(x.copy())
    return draw.pick(
        *(x, x.astype(np.float64), x.astype(">f4"), x.astype(">f8"), wide[1::2], x[::-1].copy()[::-1], shifted, frozen),
        *(x.tolist(), tuple(x.tolist()), memoryview(frozen)),
        *(tensor, tensor.double().requires_grad_(), torch.from_numpy(wide)[1::2]),
    )


def in_frames(encoding: SoundEncoding, taken: list[Any]) -> NDArray[np.float32]:
    """What Hearing.take returned for the chunks of a sound, as inputs (frames, K)."""
    if not encoding.threshold:
        return np.concatenate(taken)
    frames = [np.zeros((0, encoding.inputs), np.float32)]
    for offsets, active in taken:
        frames.append(np.zeros((len(offsets) - 1, encoding.inputs), np.float32))
        frames[-1][np.repeat(np.arange(len(offsets) - 1), np.diff(offsets)), active] = 1
    return np.concatenate(frames)


@functools.cache
def listener(kind: int) -> tuple[runtime.Network, SoundEncoding]:
    """A small exported network, which hears currents or events, in frames of one step or several."""
    torch.manual_seed(kind)
    encoding = SoundEncoding(
        *(8000, 5),
        frame=(0.01, 0.0025, 0.0005, 0.004)[kind],
        hold=(1, 3)[kind % 2],
        threshold=(0.0, 0.0, 0.05, 0.05)[kind],
        adaptation=(0.0, 0.6)[kind % 2],
    )
    network = nn.Sequential(SpikesOnly(SRC(encoding.inputs, 12, recurrent=True, zs_hyp=0.5)), LinearReadout(12, 3))
    network.encoder = encoding  # type: ignore[assignment]
    return exported(network), encoding


def heard_stream(draw: Draw) -> None:
    """A stream that hears in chunks, with chunks that it must refuse among them, saved and restored in between."""
    network, encoding = listener(draw.randrange(4))
    wave = a_wave(draw, draw.pick(500, 100, 2500, 0)).numpy()
    events = encoding(torch.from_numpy(wave)[None])
    stream = network.stream()

    def take(chunk: Any) -> int:
        nonlocal stream
        if draw.chance(15):
            mishear(draw, stream, chunk)
        if draw.chance(10):
            state, stream = stream.save(), network.stream()
            stream.hear(a_wave(draw, 99))
            stream.restore(state)
        return stream.hear(chunk)

    taken = in_chunks(draw, take, wave)

    assert sum(taken) == events.shape[0]
    assert np.array_equal(stream.logits(), network.run(events))
    stream.reset()
    assert stream.hear(wave) == events.shape[0] and np.array_equal(stream.logits(), network.run(events))


def mishear(draw: Draw, stream: runtime.Stream, chunk: Any) -> None:
    """Give a stream what is no sound, or has a sample that is not finite; it must stay as it was."""
    state = stream.save()
    samples = np.asarray(chunk.detach() if isinstance(chunk, Tensor) else chunk, np.float64).copy()
    certain = len(samples) > 0 and draw.chance(70)
    if certain:
        samples[draw.randrange(len(samples))] = draw.pick(math.nan, math.inf, -math.inf, 1e39)
        bad = draw.pick(samples, samples.tolist(), torch.from_numpy(samples))
    else:
        bad = draw.pick(samples[None], samples[:, None], draw.oddity(), samples.astype(complex), samples.astype(str))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "overflow encountered in cast")  # of NumPy, for 1e39
        try:
            stream.hear(bad)
        except (ValueError, TypeError) as error:
            assert str(error).startswith("samples: expected "), error
            assert stream.save() == state
        else:
            assert not certain
            stream.restore(state)  # some oddities are sounds


def fitted_encoding(draw: Draw) -> None:
    """An encoding whose offset and scale are measured."""
    encoding = SoundEncoding(**settings(draw) | {"rate": 8000, "lowest": 100.0, "highest": 3000.0, "frame": 0.004})
    batch, samples = draw.pick(1, 2, 3, 0), draw.pick(300, 31, 32, 1000)
    plain = a_wave(draw, batch, samples, wild=15)
    given: dict[str, Any] = {"waves": draw.relaid(plain.to(draw.pick(*FLOATS)))}
    if draw.chance(50):
        given["lengths"] = draw.lengths(samples, batch)
    if draw.chance(30):
        given["deviation"] = draw.pick(0.5, 1, 2.0)
    ends = given.get("lengths", torch.full((batch,), samples)).tolist()
    fit = bool(plain.isfinite().all()) and any(end >= encoding.hop for end in ends)
    spoilt = draw.spoil(given, 20)

    found: SoundEncoding = attempt(encoding.fitted, given, spoilt or not fit, "samples")

    if spoilt:
        return
    z = dataclasses.replace(found, threshold=0.0)
    heard = np.concatenate([z.hearing().take(wave[:end]) for wave, end in zip(plain, ends, strict=True)])
    # What is measured has the precision of float32: 2^-24 of a mean.
    rounding = 2.0**-22 * float(np.abs(np.multiply(found.offset, found.scale)).max())
    if plain.abs().max() <= 100:  # otherwise currents are clipped
        np.testing.assert_allclose(heard.mean(0), 0, atol=rounding + 1e-6)
