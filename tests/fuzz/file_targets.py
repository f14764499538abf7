"""Fuzz targets on files and the command line, in the form that ``op_targets`` describes.

Each target writes into a folder of its own and asserts that nothing beside it is touched.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gzip
import io
import json
import math
import os
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from safetensors.torch import load as parse_tensors
from safetensors.torch import save
from torch import Tensor

import srcell
from fuzz.draws import Draw, corrupted
from fuzz.facts import RefusedError, readable
from srcell import SRC, benchmark, hardware, runtime, training
from srcell._shared.files import is_partial, partial_name
from srcell.cli import main
from srcell.cli.options import typed
from srcell.data import (
    Dataset,
    HeldEncoding,
    LabelledEvents,
    LabelledImages,
    LabelledSequences,
    SoundEncoding,
    load_nmnist,
)
from srcell.data.own import load_own
from srcell.evaluation import Evaluation
from srcell.models import SRCClassifier, SRCConvClassifier
from srcell.training.config import SETTINGS, TrainingConfig
from srcell.training.run_folder import FILES, RunFolder
from support.formats import FORMATS
from support.networks import bytes_of, split
from support.outputs import KINDS, NAMES, check_output, tree

with contextlib.suppress(ImportError):
    import scipy.signal  # noqa: F401, reading sounds imports it: its memory is no leak

MEMORY = Path("/dev/shm")  # a file system in memory, if there is one
FOREIGN = "not srcell's"


@functools.cache
def workspace(name: str) -> Path:
    """A new folder, beside a file that no target may change."""
    parent = Path(tempfile.mkdtemp(prefix="srcell-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    (parent / "foreign").write_text(FOREIGN)
    folder = parent / name
    folder.mkdir()
    return folder


def refill(folder: Path, files: dict[str, bytes]) -> None:
    """Put these files into a folder in place of what was there."""
    shutil.rmtree(folder)
    folder.mkdir()
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


def assert_alone(folder: Path) -> None:
    assert sorted(os.listdir(folder.parent)) == sorted(["foreign", folder.name])
    assert (folder.parent / "foreign").read_text() == FOREIGN


def attempt_to_read(folder: Path, call: Callable[[], Any], refusable: bool = True) -> Any:
    """The result of the call. If it refuses, which it may only if ``refusable``, it names a file; the target ends."""
    try:
        return call()
    except FileNotFoundError as error:
        assert str(folder) in str(error)
    except ValueError as error:
        assert str(error).startswith(str(folder)), f"names no file: {error}"
    finally:
        assert_alone(folder)
    assert refusable
    raise RefusedError


# Data sets


@functools.cache
def good_files(name: str) -> dict[str, bytes]:
    """The contents of a small valid data set's files."""
    folder = workspace(f"good-{name}")
    FORMATS[name].write(folder)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def data_set(draw: Draw, name: str, strange: Callable[[Draw], bytes]) -> None:
    """The files of a data set, one of which may be missing, corrupt, or something else."""
    folder, files = workspace(name), dict(good_files(name))
    spoilt, how = draw.pick(*files), draw.randrange(100)
    if how >= 60:
        zipped = spoilt.endswith(".gz") and how < 95
        content = gzip.decompress(files[spoilt]) if zipped else files[spoilt]
        content = strange(draw) if how < 70 else corrupted(draw, content)
        files[spoilt] = gzip.compress(content, 1) if zipped else content
    if how == 60:
        del files[spoilt]
    refill(folder, files)

    dataset: Dataset = attempt_to_read(folder, lambda: FORMATS[name].load(folder), refusable=how >= 60)

    for samples in (dataset.train, dataset.test):
        assert samples.labels.dtype == torch.int64 and len(samples.labels) > 0
        assert bool(((samples.labels >= 0) & (samples.labels < dataset.num_classes)).all())
        if isinstance(samples, LabelledEvents):
            events = samples.events
            assert events.shape[1:] == (len(samples.labels), dataset.input_size)
            assert events.lengths is not None and events.shape[0] == int(events.lengths.max())
        else:
            images = samples[0]
            assert images.shape == (len(samples.labels), *dataset.input_shape[1:]) and images[0].numel() > 0
            assert images.dtype == torch.float32 and bool(((images >= 0) & (images <= 1)).all())


def idx(draw: Draw) -> None:
    """The four files of MNIST."""
    data_set(draw, "mnist", strange_idx)


def strange_idx(draw: Draw) -> bytes:
    """A header that may be of any dtype, rank and size, and some content."""
    rank = draw.pick(1, 3, 0, 2, 4, 255)
    magic = draw.pick(8, 8, 8, 0, 7, 9, 11, 12, 13, 14, 15, 255) << 8 | rank
    sizes = [draw.pick(3, 0, 1, 10, 2**16, 2**31, 2**32 - 1) for _ in range(min(rank, 4))]
    content = bytes(draw.randrange(12) for _ in range(min(math.prod(sizes), draw.pick(200, 100, 0))))
    return struct.pack(f">I{len(sizes)}I", magic, *sizes) + content


def own_files(draw: Draw) -> dict[str, bytes]:
    """The files of a valid data set of one's own."""
    kind, samples = draw.pick("rows", "samples", "steps", "labels", "npz"), 12
    if kind == "npz":
        content, lengths = io.BytesIO(), np.array([draw.randrange(1, 5) for _ in range(samples)])
        y = draw.pick(
            np.array(["a", "b"] * 6), np.arange(samples) % 3, np.random.default_rng(0).random((samples, 4, 2))
        )
        np.savez(content, x=np.ones((samples, 4, 2)), y=y, **({"lengths": lengths} if draw.chance(50) else {}))
        return {draw.pick("all.npz", "a b.npz"): content.getvalue()}
    line = draw.pick("\n", "\r\n")
    if kind == "labels":
        text = line.join(["x,y", *(f"{draw.randrange(9)},{k}" for k in range(3))])
        return {f"{'ab'[k % 2]}/{k}.csv": text.encode() for k in range(samples)}
    if kind == "rows":
        rows = ["t0,t1,label", *(f"{k},{draw.pick('1e3', '-0.5', '7')},{k % 2}" for k in range(samples))]
    else:
        rows = ["sample,x,label"]
        for k in range(samples):
            rows += [f"{k},{t}, {t % 2 if kind == 'steps' else k % 2}" for t in range(draw.randrange(1, 4))]
        rows.append("0,1,1" if kind == "steps" else "0,1,0")
    return {"all.csv": line.join(rows).encode()}


def own_folder(draw: Draw) -> None:
    """A folder of one's own data, one file of which may be corrupt, lost, or beside others."""
    folder, files, spoilt = workspace("own"), own_files(draw), draw.chance(60)
    if spoilt:
        name = draw.pick(*files)
        if draw.chance(90):
            files[name] = corrupted(draw, files[name])
        else:
            del files[name]
        if draw.chance(10):
            files[draw.pick("x.csv", "train/y.csv", "z.npz", "b/q.wav", "readme.txt")] = draw.pick(b"", b"x,y\n1,2\n")
    refill(folder, files)

    dataset: Dataset = attempt_to_read(folder, lambda: load_own(f"{folder}/"), refusable=spoilt)

    for samples in (dataset.train, dataset.test):
        assert isinstance(samples, LabelledSequences) and samples.values.isfinite().all() and len(samples.labels) > 0
        assert samples.values.shape[::2] == (len(samples.labels), dataset.input_size)
        if samples.labels.is_floating_point():
            assert samples.labels.isfinite().all() and samples.labels.shape[-1] == dataset.num_classes
        else:
            assert bool(((samples.labels >= 0) & (samples.labels < dataset.num_classes)).all())


def nmnist(draw: Draw) -> None:
    """Recordings of N-MNIST."""
    data_set(draw, "nmnist", lambda draw: draw.randbytes(draw.randrange(60)))


# Caches of recordings


@functools.cache
def cached_recordings() -> tuple[Path, Path, bytes, Dataset]:
    """A folder of recordings, the path and content of the training part's cache, and the data set."""
    folder = workspace("cache")
    FORMATS["nmnist"].write(folder)
    fresh = load_nmnist(folder, cache=True)
    path = folder / "train-1000us-prefix20.safetensors"
    return folder, path, path.read_bytes(), fresh


def cache(draw: Draw) -> bool:
    """The cache of binned recordings: used if it is intact, rewritten silently if not."""
    folder, path, good, fresh = cached_recordings()
    content = good
    if draw.chance(45):
        content = corrupted(draw, good) if draw.chance(40) else resaved(draw, good)
    path.write_bytes(content)

    try:
        dataset = load_nmnist(folder, cache=True)
    finally:
        assert_alone(folder)

    samples = dataset.train
    assert isinstance(samples, LabelledEvents) and isinstance(fresh.train, LabelledEvents)
    events, labels = samples
    assert events.shape[1:] == (2, 2 * 34 * 34) and events.lengths is not None
    assert labels.dtype == torch.int64 and labels.shape == (2,) and bool(((labels >= 0) & (labels < 10)).all())
    if content == good or path.read_bytes() != content:
        assert events == fresh.train.events and torch.equal(labels, fresh.train.labels)
    return path.read_bytes() == content


def resaved(draw: Draw, content: bytes) -> bytes:
    """A safetensors file with a tensor, a text of its metadata, or something in its header changed."""
    metadata, tensors = split(content)[0]["__metadata__"], parse_tensors(content)
    text, name = draw.pick(*metadata), draw.pick(*tensors)
    how = draw.randrange(10)
    if how < 5:
        tensors[name] = other_tensor(draw, tensors[name])
    elif how == 5:
        del tensors[name]
    elif how == 6:
        tensors[draw.pick("../x", "/etc/passwd", "values", "optimizer.x", "optimizer.0.a.b", "")] = torch.zeros(1)
    elif how == 7:
        metadata[text] = "x" if text == "stamp" else strange_json(draw, metadata[text])  # the stamp is not JSON
    else:
        return with_strange_header(draw, content)
    return save({name: x.contiguous() for name, x in tensors.items()}, metadata)


def with_strange_header(draw: Draw, content: bytes) -> bytes:
    """A file that begins with the length of its header of JSON, with something strange in the header."""
    size = int.from_bytes(content[:8], "little")
    header = strange_json(draw, content[8 : 8 + size].decode()).encode(errors="surrogatepass")
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def other_tensor(draw: Draw, x: Tensor) -> Tensor:
    """A plain tensor of another shape, dtype or content."""
    if draw.chance(50) and x.numel():
        x = x.clone()
        edge = (math.nan, math.inf, 1e30) if x.is_floating_point() else (-1, 2**31 - 1, 100)
        x.view(-1)[draw.randrange(x.numel())] = draw.pick(0, 1, *edge)
        return x
    y = draw.altered(x)
    return y.clone() if readable(y) and not y.is_complex() else x.new_zeros(3)


# JSON


STRANGE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.5, 1e308, math.nan, math.inf, 2**31, 2**63, 10**30, 10**400),
    *("", "x", "../../x", "/x", "digits", "rate", "relu", "rest", "\0", "é" * 3, "x" * 5000),
    *([], [1], [0], [-1], [10**30], [None], [[1]], [1.5], ["a"], {}, {"a": 1}),
    {"__class__": "os.system", "__reduce__": ["echo"], "py/object": "os.system"},
)


def strange_json(draw: Draw, text: str) -> str:
    """The same JSON with something strange somewhere, or no JSON at all."""
    how = draw.randrange(12)
    if how == 0:
        return draw.pick("", "null", "[]", "{}", "1", '"x"', "NaN", "{", "[" * 100_000, '{"a":' * 50_000, "1" * 5000)
    if how == 1:
        return corrupted(draw, text.encode()).decode(errors="replace")
    content = inner = json.loads(text)
    while isinstance(inner, (dict, list)) and inner:
        key = draw.pick(*(inner if isinstance(inner, dict) else range(len(inner))))
        if isinstance(inner[key], (dict, list)) and inner[key] and draw.chance(80):
            inner = inner[key]
            continue
        if how == 2:
            del inner[key]
        elif how == 3 and isinstance(inner, dict):
            inner[draw.pick("__class__", "epoch", "", "../x")] = draw.pick(*STRANGE)
        else:
            inner[key] = neighbour(draw, inner[key]) if how < 8 else draw.pick(*STRANGE)
        break
    return json.dumps(content)


def neighbour(draw: Draw, value: Any) -> Any:
    """A value of the same kind that is likely to be accepted as well."""
    changes: dict[type, Callable[[], Any]] = {
        bool: lambda: not value,
        int: lambda: value + draw.randrange(3),
        float: lambda: value * draw.random(),
        list: lambda: [*value, 3],
    }
    return changes.get(type(value), lambda: value)()


def config(draw: Draw) -> None:
    """config.json in a run folder."""
    folder = workspace("config")
    text = json.dumps({"training": dataclasses.asdict(TrainingConfig()), "environment": {"version": "0"}})
    for _ in range(draw.pick(1, 0, 1, 2)):
        with contextlib.suppress(ValueError, RecursionError):
            text = strange_json(draw, text)
    content = text.encode(errors="surrogatepass")
    if draw.chance(10):
        content = draw.pick(b"\xff\xfe" + content, content.decode().encode("utf-16"), b"\xef\xbb\xbf" + content)
    (folder / "config.json").write_bytes(content)
    built = draw.chance(20)

    found: TrainingConfig = attempt_to_read(folder, lambda: RunFolder.open(folder).config)

    assert TrainingConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert isinstance(found.hidden_sizes, tuple) and isinstance(found.epochs, int)
    if built and len(found.hidden_sizes) < 4 and sum(found.hidden_sizes) < 1000 and not found.channels:
        training.build_model(found, (1, 2, 2), 10)
        if found.steps + found.prefix < 10_000:
            training.make_encoding(found)(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), 0)


# Exported networks


@functools.cache
def exported(kind: int) -> bytes:
    """The file of a small network: without and with recurrent weights, resonant, delayed, of integers, sounds, maps,
    and sequences that it standardises.
    """
    if kind == 4:
        return bytes_of(srcell.IntegerSRC(3, 4))
    if kind == 5:
        layer = SRC(3, 4)
        layer.encoder = SoundEncoding(bands=3)
        return bytes_of(layer)
    if kind == 6:
        return bytes_of(SRCConvClassifier((1, 2, 3), [2], [2], 2))
    if kind == 7:
        made = SRCClassifier(3, [2], 2, standardise=srcell.Standardise([0.0, 0.5, -2.0], [1.0, 0.25, 3.0]))
        made.encoder = HeldEncoding(2, 1)
        return bytes_of(made)
    readout = {"readout": "linear", "readout_window": 3} if kind else {}
    delays = {"input_delay": 4, "taps": 2, "recurrent_delay": 3} if kind == 3 else {}
    return bytes_of(SRCClassifier(3, [2], 2, recurrent=bool(kind), omega=0.3 * (kind >= 2), **delays, **readout))


def network(draw: Draw) -> None:
    """The file of an exported network, with bytes or the header's JSON altered; and its saved state, likewise."""
    folder = workspace("network")
    content = exported(draw.randrange(8))
    if draw.chance(15):
        content = with_strange_header(draw, content)
    if draw.chance(40):
        content = corrupted(draw, content)
    (folder / "net.srcell").write_bytes(content)

    net: runtime.Network = attempt_to_read(folder, lambda: runtime.load(folder / "net.srcell"))

    steps = np.ones((3, 1, net.input_size), np.float32)
    stream = net.stream()
    stepped = np.stack([stream.step(step) for step in steps])
    assert np.array_equal(stepped, net.spikes(steps)[-1], equal_nan=True)
    assert np.array_equal(stream.logits(), net.run(steps, every_step=False), equal_nan=True)

    check_sequences(net)
    saved = stream.save()
    state = bytearray(saved)
    for _ in range(draw.randrange(1, 9)):
        state[draw.randrange(0 if draw.chance(20) else 32, len(state))] = draw.randrange(256)
    try:
        stream.restore(bytes(state[: draw.randrange(len(state))] if draw.chance(5) else state))
    except ValueError as error:
        assert str(error).startswith("state: ") and stream.save() == saved
        return
    for step in steps:
        stream.step(step)
    stream.logits()


def check_sequences(net: runtime.Network) -> None:
    """A stream that takes the elements of a sequence gives the logits of the encoded sequence, or says why not."""
    settings = net.encoder or {"name": "none", "hold": 1, "prefix": 0}
    counts = [settings.get(key) for key in ("hold", "prefix")]
    if any(isinstance(count, int) and count > 100 for count in counts):
        return  # so many steps would take too long
    values, stream = np.ones((1, 2, net.input_size), np.float32), net.stream()
    try:
        steps = [stream.feed(element) for element in values[0]]
        events = values.swapaxes(0, 1) if net.encoder is None else net.encode(values)
    except ValueError as error:
        assert str(error).startswith("encoder: expected "), error
        return
    assert sum(steps) == events.shape[0]
    assert np.array_equal(stream.logits(), net.run(events, every_step=False), equal_nan=True)


# Checkpoints


@functools.cache
def trained() -> tuple[training.Trainer, bytes, bytes]:
    """A trainer in the middle of its run, and the contents of its checkpoint and of its weights' file."""
    images = Draw(0).spikes(12, 2, 2).abs().clamp(max=1)
    samples = LabelledImages(images, torch.arange(12) % 3)
    settings = TrainingConfig(hidden_sizes=(3,), epochs=3, batch_size=4, steps=3, prefix=0, validation=0.0)
    trainer = training.Trainer(settings, Dataset(samples, samples, 3, (1, 2, 2)))
    for _ in trainer.train_epoch():
        pass
    trainer.finish_epoch()
    next(trainer.train_epoch())
    folder = RunFolder(workspace("checkpoint"), settings)
    folder.write_checkpoint(*trainer.state())
    weights = save(trainer.model.state_dict(), {"srcell": json.dumps({"format": 1})})
    return trainer, folder.checkpoint.read_bytes(), weights


def checkpoint(draw: Draw) -> None:
    """A checkpoint to resume from, or the weights of a finished run."""
    trainer, state, weights = trained()
    folder = RunFolder(workspace("checkpoint"), trainer.config)
    resuming = draw.chance(60)
    content = state if resuming else weights
    if draw.chance(55):
        content = corrupted(draw, content) if draw.chance(40) else resaved(draw, content)
    path = folder.checkpoint if resuming else folder.path / "model.safetensors"
    path.write_bytes(content)
    goes_on = draw.chance(20)

    def load() -> None:
        if resuming:
            found = folder.read_checkpoint()
            assert found is not None
            trainer.load_state(*found, source=str(path))
        else:
            training.load_weights(trainer.model, folder.load_model(), str(path))

    attempt_to_read(folder.path, load)

    again = trainer.state()[0] if resuming else trainer.model.state_dict()
    for name, x in parse_tensors(content).items():
        if name in again:
            torch.testing.assert_close(again[name], x, rtol=0, atol=0, equal_nan=True, msg=name)
    if resuming and len(trainer.history) < 3 and goes_on:
        with contextlib.suppress(FloatingPointError):
            next(trainer.train_epoch(), None)


# A run folder with several users


@functools.cache
def a_run() -> tuple[RunFolder, RunFolder]:
    """Two objects for one run folder: one of the process that trains there, and one of another process."""
    writer = RunFolder.create(workspace("company"), TrainingConfig())
    writer.close()
    return writer, RunFolder.open(writer.path)


OWNERS = (*FILES, "download.bin", ".lock", "", "x" * 200, "*", "[a]", "config.json.bak")
# Names of partial files of a run, a download and other programs.
PARTIAL = [f"{owner}{end}.partial" for owner in OWNERS for end in (".7", "", ".x", ".-1")]


def run_folder(draw: Draw) -> None:
    """Readers and a second writer, in a folder whose lock is held or free, among partial files of many owners."""
    writer, other = a_run()
    folder, free, names = writer.path, draw.chance(50), set(draw.sample(PARTIAL, draw.randrange(5)))
    names = {partial_name(draw.pick(*OWNERS)) if draw.chance(50) else name for name in names}
    readers = (RunFolder.open, srcell.load, lambda path: training.evaluate_run(RunFolder.open(path)))
    reads = [draw.pick(*readers) for _ in range(draw.randrange(4))]
    write = draw.pick(other.lock, functools.partial(RunFolder.create, folder, TrainingConfig()))
    if not free and draw.chance(30):
        write = functools.partial(training.resume, folder)
    for name in names:
        (folder / name).write_text("half")
    if not free:
        writer.lock()
        for name in names:  # files that the writer has not finished
            (folder / name).write_text("half")
    before = tree(folder)

    for read in reads:
        with contextlib.suppress(FileNotFoundError):  # an unfinished run has no network
            read(folder)
        assert other.read_checkpoint() is None
        assert tree(folder) == before
    try:
        write()
        assert free
    except BlockingIOError as error:
        assert not free and str(folder) in str(error)
    except FileExistsError:
        assert (folder / "config.json").exists()
    finally:
        writer.close()
        other.close()

    left = {name for name in before if is_partial(folder / name, FILES)}
    assert tree(folder).keys() in (before.keys(), before.keys() - left) and (free or tree(folder) == before)
    for name in names:
        (folder / name).unlink(missing_ok=True)
    assert_alone(folder)


# Files that the user names


def outputs(draw: Draw) -> bool:
    """Files written to a path that holds a file, a link, a pipe, a device, a folder, or nothing."""
    parent, weights = workspace("output"), np.arange(draw.randrange(1, 6)).reshape(1, -1)
    folder = parent / "files"
    folder.mkdir()
    written = check_output(
        lambda path: hardware.write_weights(path, weights), folder, draw.pick(*NAMES), draw.pick(*KINDS)
    )
    shutil.rmtree(folder)
    assert_alone(parent)
    return written


@functools.cache
def written_texts() -> dict[str, str]:
    """The texts that ``hardware`` writes, by the name of their reader."""
    folder, weights = workspace("written"), [[1, -2, 3], [0, 5, -8]]
    hardware.write_weights(folder / "read_weights", weights)
    hardware.write_header(folder / "read_header", [weights], num_classes=2)
    hardware.write_frames(folder / "read_frames", [[1, 0], [0, 1]], label=3)
    return {path.name: path.read_text() for path in folder.iterdir()}


def texts(draw: Draw) -> None:
    """Text that ``hardware`` reads, with parts of it, or blanks and digits, repeated many times."""
    folder, reader = workspace("text"), draw.pick(*written_texts())
    text = written_texts()[reader]
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(text) + 1)
        some = draw.pick(" ", "1", "_", "(", "/*", "\n", "-")
        part = text[at : at + draw.randrange(40)] if draw.chance(50) else some
        text = text[:at] + part * draw.pick(1, 3, 300, 30_000 // max(len(part), 1)) + text[at + draw.randrange(3) :]
    (folder / "text").write_text(text)

    attempt_to_read(folder, lambda: getattr(hardware, reader)(folder / "text"))


# The command line


@functools.cache
def runs() -> Path:
    """A folder with an unfinished run, a broken run and a folder of other files, to name on the command line."""
    folder = workspace("command")
    RunFolder.create(folder / "begun", TrainingConfig())
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    return folder


LINES = (
    *("train digits", "train mnist --preset fast --data new --download --cache", "train --resume begun"),
    *("train nmnist --out new --workers 1 --device cpu", "train digits --hidden 5 3 --channels --checkpoint-seconds 1"),
    *("info",),
    *("eval begun --binary", "eval begun --device cpu --workers 0"),
    *("bench", f"bench {next(iter(benchmark.CASES))} --quick --threads 2 --repetitions 2 --out new.json"),
)
STRANGE_WORDS = (
    *("1", "0", "-1", "2", "0.5", "1e-3", "nan", "inf", "1e400", "9" * 30, "9" * 5000, "", "x", "1_0", "٣"),
    *("latency", "one-cycle", "relu", "rest", "zeros", "../x", "é", "cuda", "cuda:99", "meta", "cpu:7", "nmnist"),
    *("new", "begun", "full", "broken", "a/b", ".", "full/notes.txt", "x\ny", "\udcff", "x" * 300, "\0"),
    *("--help", "--version", "--", "-", "--x", "@x", "%s", "--preset", "--out", "--resume", "--device"),
)


def command_words(draw: Draw) -> list[str]:
    """A valid command line, often with a setting, in which up to two words may be replaced, lost or added."""
    words = draw.pick(*LINES).split()
    if words[0] == "train" and "--resume" not in words and draw.chance(70):
        setting = SETTINGS[draw.pick(*(name for name in SETTINGS if name != "dataset"))]
        flag = isinstance(setting.default, bool)
        option = setting.option.replace("--", "--no-") if flag and draw.chance(30) else setting.option
        words += [option] if flag else [option, *typed(setting.default).split()]
    for _ in range(draw.pick(0, 0, 0, 1, 1, 2)):
        at = draw.randrange(1, len(words) + 1)
        words[at : at + draw.randrange(2)] = [draw.pick(*STRANGE_WORDS)] * draw.chance(80)
    return words


@contextlib.contextmanager
def stubbed(reached: list[str]) -> Iterator[None]:
    """Replace the work behind the command line by stubs that note which work would begin."""
    evaluation = Evaluation(accuracy=0.5, confusion=torch.zeros(2, 2), counts=[], rates=[], loss=0.5)
    run = SimpleNamespace(history=[], evaluation=evaluation)

    def stub(result: Any) -> Callable[..., Any]:
        def work(*_: Any, **options: Any) -> Any:
            reached.append("work")
            return result

        return work

    with (
        mock.patch.multiple(training, train=stub(run), resume=stub(run), evaluate_run=stub(evaluation)),
        mock.patch.multiple(benchmark, run=stub([]), document=lambda *_: {}),
    ):
        yield


def command_line(draw: Draw) -> bool:
    """Command-line arguments of ``srcell``, up to the point where the work would begin."""
    folder, words = runs(), command_words(draw)

    reached: list[str] = []
    err, before = io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with stubbed(reached), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            code = main(words)
    except SystemExit as stop:  # --help and --version
        assert stop.code == 0 and {"--help", "--version"} & set(words), words
        return True
    finally:
        os.chdir(before)

    made = set(os.listdir(folder)) - {"begun", "broken", "full"}
    assert made <= set(words), words  # only folders that --out names
    for name in made:
        (folder / name).unlink()
    assert_alone(folder)
    if code == 0:
        assert reached or words[0] == "info"
        return True
    assert code == 2 and err.getvalue().startswith("srcell: "), (words, err.getvalue())
    return False
