"""Fuzz targets on files and the command line: IDX files, recordings, caches, checkpoints, configurations.

As in ``op_targets``, a target returns whether its input was accepted, and blank lines separate the drawing and writing
of the input, the call, and the assertions. Each target writes into a folder of its own and asserts that nothing beside
it is touched.
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
from fuzz.draws import Draw, altered, chance, corrupted, pick, spikes
from srcell import benchmark, hardware, runtime, training
from srcell._files import is_partial, partial_name
from srcell.cli import main
from srcell.data import Dataset, LabelledEvents, LabelledImages, load_fashion_mnist, load_mnist, load_nmnist
from srcell.models import SRCClassifier
from srcell.training import sweep
from srcell.training.config import SETTINGS, TrainingConfig
from srcell.training.presets import PRESETS
from srcell.training.run_folder import FILES, RunFolder

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


def assert_alone(folder: Path) -> None:
    assert sorted(os.listdir(folder.parent)) == sorted(["foreign", folder.name])
    assert (folder.parent / "foreign").read_text() == FOREIGN


def accepts_file(folder: Path, call: Callable[[], Any]) -> tuple[Any] | None:
    """The result of the call in a tuple, or None if it refuses and names a file."""
    try:
        return (call(),)
    except FileNotFoundError as error:
        assert str(folder) in str(error)
    except ValueError as error:
        assert str(error).startswith(str(folder)), f"names no file: {error}"
    finally:
        assert_alone(folder)
    return None


# Images


def idx_files(draw: Draw, height: int, width: int) -> dict[str, bytes]:
    """The contents of four valid files, by name."""
    contents = {}
    for part in ("train", "t10k"):
        count = pick(draw, 3, 1, 7)
        images = np.frombuffer(draw.randbytes(count * height * width), np.uint8)
        contents[f"{part}-images-idx3-ubyte"] = struct.pack(">4I", 0x803, count, height, width) + images.tobytes()
        labels = bytes(draw.randrange(10) for _ in range(count))
        contents[f"{part}-labels-idx1-ubyte"] = struct.pack(">2I", 0x801, count) + labels
    return contents


def write_idx(draw: Draw, folder: Path, contents: dict[str, bytes]) -> bool:
    """Write the files, gzipped or not and perhaps corrupted; return whether all are valid."""
    zipped, spoilt, kind = chance(draw, 20), pick(draw, *contents), draw.randrange(100)
    if kind >= 75:
        contents[spoilt] = corrupted(draw, contents[spoilt])
    elif kind >= 60:
        contents[spoilt] = strange_idx(draw)
    folder.mkdir(exist_ok=True)
    for file, content in contents.items():
        for suffix in ("", ".gz"):
            (folder / (file + suffix)).unlink(missing_ok=True)
        content = gzip.compress(content, 1) if zipped else content
        if zipped and kind >= 95:
            content = corrupted(draw, content)
        if kind != 60 or file != spoilt:
            (folder / (file + ".gz" * zipped)).write_bytes(content)
    return kind < 60


def idx(draw: Draw) -> bool:
    """The four files of MNIST or Fashion-MNIST, gzipped or not."""
    folder = workspace("idx")
    load, name = pick(draw, (load_mnist, "mnist"), (load_fashion_mnist, "fashion-mnist"))
    height, width = pick(draw, 3, 1, 28), pick(draw, 2, 1, 28)
    contents = idx_files(draw, height, width)
    clean = write_idx(draw, folder / name, contents)

    outcome = accepts_file(folder, lambda: load(folder))
    if outcome is None:
        assert not clean
        return False

    dataset: Dataset = outcome[0]
    for samples in (dataset.train, dataset.test):
        assert isinstance(samples, LabelledImages)
        images, labels = samples
        assert len(images) == len(labels) > 0 and images.shape[1:] == dataset.input_shape[1:] and images[0].numel() > 0
        assert images.dtype == torch.float32 and bool(((images >= 0) & (images <= 1)).all())
        assert labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < 10)).all())
    if clean:
        assert torch.equal((dataset.train.images * 255).round().byte(), stored_images(contents, height, width))
    return True


def stored_images(contents: dict[str, bytes], height: int, width: int) -> Tensor:
    stored = bytearray(contents["train-images-idx3-ubyte"][16:])
    return torch.frombuffer(stored, dtype=torch.uint8).view(-1, height, width)


def strange_idx(draw: Draw) -> bytes:
    """A header that may be of any dtype, rank and size, and some content."""
    rank = pick(draw, 1, 3, 0, 2, 4, 255)
    magic = pick(draw, 8, 8, 8, 0, 7, 9, 11, 12, 13, 14, 15, 255) << 8 | rank
    sizes = [pick(draw, 3, 0, 1, 10, 2**16, 2**31, 2**32 - 1) for _ in range(min(rank, 4))]
    content = bytes(draw.randrange(12) for _ in range(min(math.prod(sizes), pick(draw, 200, 100, 0))))
    return struct.pack(f">I{len(sizes)}I", magic, *sizes) + content


# Recordings


def recording(draw: Draw) -> bytes:
    """Events of five bytes: x, y, polarity and microseconds; some mark an overflow of the time stamps."""
    times = sorted(draw.randrange(pick(draw, 5_000, 100_000)) for _ in range(draw.randrange(1, 12)))
    rows = []
    for t in times:
        x, y = draw.randrange(34), 240 if chance(draw, 5) else draw.randrange(34)
        rows.append(bytes([x, y]) + (t | draw.randrange(2) << 23).to_bytes(3, "big"))
    return b"".join(rows)


def recorded(content: bytes, prefix: int) -> set[tuple[int, int]]:
    """The (step, input) of each event of a valid recording, decoded one by one."""
    cells, extra = set(), 0
    for k in range(0, len(content), 5):
        x, y, *time = content[k : k + 5]
        if y == 240:
            extra += 2**13
            continue
        stamp = int.from_bytes(bytes(time), "big")
        t, polarity = (stamp & 0x7FFFFF) + extra, stamp >> 23
        cells.add((prefix + t // 1000, (polarity * 34 + y) * 34 + x))
    return cells


def nmnist(draw: Draw) -> bool:
    """Recordings of N-MNIST."""
    folder, prefix = workspace("nmnist"), pick(draw, 20, 0)
    train, test = folder / "Train/3/a.bin", folder / "Test/0/b.bin"
    contents = {}
    for path in (train, test):
        path.parent.mkdir(parents=True, exist_ok=True)
        contents[path] = recording(draw)
    clean = not chance(draw, 40)
    if not clean:
        path = pick(draw, train, test)
        contents[path] = corrupted(draw, contents[path]) if chance(draw, 90) else draw.randbytes(draw.randrange(60))
    for path, content in contents.items():
        path.write_bytes(content)

    outcome = accepts_file(folder, lambda: load_nmnist(folder, prefix=prefix))
    if outcome is None:
        return False

    dataset: Dataset = outcome[0]
    for samples, label in ((dataset.train, 3), (dataset.test, 0)):
        assert isinstance(samples, LabelledEvents)
        assert samples.labels.tolist() == [label] and samples.events.shape[1:] == (1, 2 * 34 * 34)
        assert samples.events.lengths is not None
    if clean:
        steps = dataset.train.events.offsets.diff()
        rows = torch.arange(len(steps)).repeat_interleave(steps)
        found = set(zip(rows.tolist(), dataset.train.events.indices.tolist(), strict=True))
        assert found == recorded(contents[train], prefix)
    return True


# Caches of recordings


@functools.cache
def cached_recordings() -> tuple[Path, Path, bytes, Dataset]:
    """A folder of recordings, the path and content of the training part's cache, and the data set."""
    folder = workspace("cache")
    for k, name in enumerate(("Train/3/a.bin", "Train/7/b.bin", "Test/0/c.bin")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes([k, 1, 0, 0, 5, 2, 3, 128, 9, 9]))
    fresh = load_nmnist(folder, cache=True)
    path = folder / "train-1000us-prefix20.safetensors"
    return folder, path, path.read_bytes(), fresh


def cache(draw: Draw) -> bool:
    """The cache of binned recordings: used if it is intact, rewritten silently if not."""
    folder, path, good, fresh = cached_recordings()
    content = good
    if chance(draw, 45):
        content = corrupted(draw, good) if chance(draw, 40) else resaved(draw, good, ("stamp", "shape"))
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


def resaved(draw: Draw, content: bytes, kept: tuple[str, ...] = ()) -> bytes:
    """A safetensors file with one tensor or one entry of its header changed."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata, tensors = header.get("__metadata__", {}), parse_tensors(content)
    how = draw.randrange(10)
    if how < 5:
        name = pick(draw, *tensors)
        tensors[name] = other_tensor(draw, tensors[name])
    elif how == 5:
        del tensors[pick(draw, *tensors)]
    elif how == 6:
        tensors[pick(draw, "../x", "/etc/passwd", "values", "optimizer.x", "optimizer.0.a.b", "")] = torch.zeros(1)
    elif how == 7 and metadata:
        name = pick(draw, *(name for name in metadata if name != "stamp" or chance(draw, 20)), *kept)
        if name != "stamp":
            metadata[name] = strange_json(draw, metadata[name])
    elif how == 8:
        metadata.pop(pick(draw, *metadata, None), None)
    else:
        name = pick(draw, *(key for key in header if key != "__metadata__"))
        entry = header[name]
        entry[pick(draw, *entry)] = pick(draw, "F8_E5M2", "BOOL", "U64", "X", [0, 2**62], [-1], [2, 1], None, {}, [])
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + content[8 + size :]
    return save({name: x.contiguous() for name, x in tensors.items()}, metadata or None)


def other_tensor(draw: Draw, x: Tensor) -> Tensor:
    """A plain tensor of another shape, dtype or content."""
    if chance(draw, 50) and x.numel():
        x = x.clone()
        edge = (math.nan, math.inf, 1e30) if x.is_floating_point() else (-1, 2**31 - 1, 100)
        x.view(-1)[draw.randrange(x.numel())] = pick(draw, 0, 1, *edge)
        return x
    y = altered(draw, x)
    plain = y.layout == torch.strided and y.device.type == "cpu" and not y.is_quantized and y.numel() < 10_000
    return y.clone() if plain else x.new_zeros(3)


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
        return pick(draw, "", "null", "[]", "{}", "1", '"x"', "NaN", "{", "[" * 100_000, '{"a":' * 50_000, "1" * 5000)
    if how == 1:
        return corrupted(draw, text.encode()).decode(errors="replace")
    content = json.loads(text)
    inner = content
    while isinstance(inner, (dict, list)) and inner:
        key = pick(draw, *inner) if isinstance(inner, dict) else draw.randrange(len(inner))
        deeper = isinstance(inner[key], (dict, list)) and inner[key] and chance(draw, 80)
        if not deeper:
            if how == 2:
                del inner[key]
            elif how == 3 and isinstance(inner, dict):
                inner[pick(draw, "__class__", "epoch", "", "../x")] = pick(draw, *STRANGE)
            elif how < 8:
                inner[key] = neighbour(draw, inner[key])
            else:
                inner[key] = pick(draw, *STRANGE)
            break
        inner = inner[key]
    return json.dumps(content)


def neighbour(draw: Draw, value: Any) -> Any:
    """A value of the same kind that is likely to be accepted as well."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + draw.randrange(3)
    if isinstance(value, float):
        return value * draw.random()
    return [*value, 3] if isinstance(value, list) else value


@functools.cache
def config_text() -> str:
    return json.dumps({"training": dataclasses.asdict(TrainingConfig()), "environment": {"version": "0"}})


def config(draw: Draw) -> bool:
    """config.json in a run folder."""
    folder = workspace("config")
    text = config_text()
    for _ in range(pick(draw, 1, 0, 1, 2)):
        with contextlib.suppress(ValueError, RecursionError):
            text = strange_json(draw, text)
    content = text.encode(errors="surrogatepass")
    if chance(draw, 10):
        content = pick(draw, b"\xff\xfe" + content, content.decode().encode("utf-16"), b"\xef\xbb\xbf" + content)
    (folder / "config.json").write_bytes(content)
    built = chance(draw, 20)

    outcome = accepts_file(folder, lambda: RunFolder.open(folder))
    if outcome is None:
        return False

    found: TrainingConfig = outcome[0].config
    assert TrainingConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(found)))) == found
    assert isinstance(found.hidden_sizes, tuple) and isinstance(found.epochs, int)
    if built and len(found.hidden_sizes) < 4 and sum(found.hidden_sizes) < 1000 and not found.channels:
        training.build_model(found, (1, 2, 2), 10)
        if found.steps + found.prefix < 10_000:
            training.make_encoding(found)(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64), 0)
    return True


# Exported networks


@functools.cache
def exported(kind: int) -> bytes:
    """The file of a small network."""
    path = workspace("exported") / "made"
    readout = {"readout": "linear", "readout_window": 3} if kind else {}
    SRCClassifier(3, [2], 2, lateral=bool(kind), **readout).export(path)
    return path.read_bytes()


def network(draw: Draw) -> bool:
    """The file of an exported network, with bytes or the header's JSON altered."""
    folder = workspace("network")
    content = exported(draw.randrange(2))
    if chance(draw, 15):
        length = int.from_bytes(content[:8], "little")
        with contextlib.suppress(ValueError, RecursionError):
            header = strange_json(draw, content[8 : 8 + length].decode()).encode(errors="surrogatepass")
            content = len(header).to_bytes(8, "little") + header + content[8 + length :]
    if chance(draw, 40):
        content = corrupted(draw, content)
    (folder / "net.srcell").write_bytes(content)

    outcome = accepts_file(folder, lambda: runtime.load(folder / "net.srcell"))
    if outcome is None:
        return False

    net: runtime.Network = outcome[0]
    steps = np.ones((3, 1, net.input_size), np.float32)
    stream = net.stream()
    stepped = np.stack([stream.step(step) for step in steps])
    assert np.array_equal(stepped, net.spikes(steps)[-1], equal_nan=True)
    assert np.array_equal(stream.logits(), net.run(steps), equal_nan=True)
    return True


# Checkpoints


@functools.cache
def trained() -> tuple[training.Trainer, bytes, bytes]:
    """A trainer in the middle of its run, the content of its checkpoint, and that of its weights' file."""
    images = spikes(Draw(0), 12, 2, 2).abs().clamp(max=1)
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


def checkpoint(draw: Draw) -> bool:
    """A checkpoint to resume from, or the weights of a finished run."""
    trainer, state, weights = trained()
    folder = RunFolder(workspace("checkpoint"), trainer.config)
    resuming = chance(draw, 60)
    content = state if resuming else weights
    if chance(draw, 55):
        content = corrupted(draw, content) if chance(draw, 40) else resaved(draw, content)
    path = folder.checkpoint if resuming else folder.path / "model.safetensors"
    path.write_bytes(content)
    goes_on = chance(draw, 20)

    def load() -> None:
        if resuming:
            found = folder.read_checkpoint()
            assert found is not None
            trainer.load_state(*found, source=str(path))
        else:
            training.load_weights(trainer.model, folder.load_model(), str(path))

    if accepts_file(folder.path, load) is None:
        return False

    again = trainer.state()[0] if resuming else trainer.model.state_dict()
    for name, x in parse_tensors(content).items():
        if name in again:
            torch.testing.assert_close(again[name], x, rtol=0, atol=0, equal_nan=True, msg=name)
    if resuming and len(trainer.history) < 3 and goes_on:
        with contextlib.suppress(FloatingPointError):
            next(trainer.train_epoch(), None)
    return True


# A run folder with several users


@functools.cache
def a_run() -> tuple[RunFolder, RunFolder]:
    """Two objects for one run folder: that of the process that trains there, and that of another."""
    writer = RunFolder.create(workspace("company"), TrainingConfig())
    writer.close()
    return writer, RunFolder.open(writer.path)


def half_written(draw: Draw) -> set[str]:
    """Names of partial files, of a run, a download or other programs."""
    owners = (*FILES, "download.bin", ".lock", "", "x" * 200, "*", "[a]", "config.json.bak")
    ends = (".7", "", ".x", ".-1")

    def name() -> str:
        owner = pick(draw, *owners)
        return partial_name(owner) if chance(draw, 50) else f"{owner}{pick(draw, *ends)}.partial"

    return {name() for _ in range(draw.randrange(5))}


def run_folder(draw: Draw) -> bool:
    """Readers and a second writer, in a folder whose lock is held or free, among partial files of many owners."""
    writer, other = a_run()
    folder, free, names = writer.path, chance(draw, 50), half_written(draw)
    readers = (RunFolder.open, srcell.load, lambda path: training.evaluate_run(RunFolder.open(path)))
    reads = [pick(draw, *readers) for _ in range(draw.randrange(4))]
    write = pick(draw, other.lock, functools.partial(RunFolder.create, folder, TrainingConfig()))
    if not free and chance(draw, 30):
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
    return True


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


# Files that the user names


def outputs(draw: Draw) -> bool:
    """Files written where there is a file, a link, a pipe, a device, a folder, or nothing."""
    folder = workspace("output")
    path, target = folder / pick(draw, "file", "x" * 255, "é" * 120, "*", "a.partial"), folder / "target"
    kind = pick(draw, "none", "file", "link", "dangling", "chain", "loop", "pipe", "device", "folder", "missing")
    weights = np.arange(draw.randrange(1, 6)).reshape(1, -1)
    write = functools.partial(hardware.write_weights, path, weights)
    hardware.write_weights(folder / "expected", weights)
    expected = (folder / "expected").read_bytes()
    if kind in ("file", "link", "chain"):
        (path if kind == "file" else target).write_text("before")
    if kind == "chain":
        (folder / "between").symlink_to("target")
    if kind in ("link", "dangling", "chain", "loop", "missing"):
        to = {"chain": "between", "loop": path.name, "missing": "nowhere/target"}.get(kind, "target")
        path.symlink_to(to)
    if kind == "pipe":
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    if kind == "device":
        path.symlink_to(os.devnull)
    if kind == "folder":
        path.mkdir()
    before = {x.name: x.lstat().st_mode for x in folder.iterdir()}

    try:
        write()
        refused = False
    except OSError:
        refused = True

    assert refused == (kind in ("loop", "folder", "missing"))
    assert all(os.lstat(folder / name).st_mode == mode for name, mode in before.items())
    if kind == "pipe":
        assert os.read(reader, 1 << 16) == expected
        os.close(reader)
    elif kind not in ("device", "loop", "folder", "missing"):
        assert path.read_bytes() == expected
    made = {x.name for x in folder.iterdir()} - before.keys()
    assert made == ({path.name} if kind == "none" else {"target"} if kind == "dangling" else set())
    for x in folder.iterdir():
        x.rmdir() if x.is_dir() and not x.is_symlink() else x.unlink()
    assert_alone(folder)
    return not refused


@functools.cache
def written_texts() -> dict[str, str]:
    """What ``hardware`` writes as text, by the name of its reader."""
    folder, weights = workspace("written"), [[1, -2, 3], [0, 5, -8]]
    hardware.write_weights(folder / "read_weights", weights)
    hardware.write_header(folder / "read_header", [weights], num_classes=2)
    hardware.write_frames(folder / "read_frames", [[1, 0], [0, 1]], label=3)
    return {path.name: path.read_text() for path in folder.iterdir()}


def texts(draw: Draw) -> bool:
    """Text that ``hardware`` reads, with parts of it, or blanks and digits, repeated many times."""
    folder, reader = workspace("text"), pick(draw, *written_texts())
    text = written_texts()[reader]
    for _ in range(draw.randrange(4)):
        at = draw.randrange(len(text) + 1)
        part = (
            text[at : at + draw.randrange(40)] if chance(draw, 50) else pick(draw, " ", "1", "_", "(", "/*", "\n", "-")
        )
        text = text[:at] + part * pick(draw, 1, 3, 300, 30_000 // max(len(part), 1)) + text[at + draw.randrange(3) :]
    (folder / "text").write_text(text)

    return accepts_file(folder, lambda: getattr(hardware, reader)(folder / "text")) is not None


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


NUMBERS = ("1", "0", "-1", "2", "0.5", "1e-3", "nan", "inf", "1e400", "9" * 30, "9" * 5000, "", "x", "1_0", "٣")
NAMES = ("rate", "latency", "one-cycle", "constant", "relu", "straight_through", "rest", "zeros", "", "x", "../x", "é")
FOLDERS = ("new", "begun", "full", "broken", "a/b", "", ".", "full/notes.txt", "x\ny", "\udcff", "x" * 300, "\0")
OPTIONS = [name for name in SETTINGS if name != "dataset"]
GOOD = {int: ("1", "2", "5"), float: ("0.5", "0.01", "1"), str: NAMES[:8]}


def setting_words(draw: Draw) -> list[str]:
    field = pick(draw, *OPTIONS)
    option, kind = SETTINGS[field].option, type(SETTINGS[field].default)
    if kind is bool:
        return [option if chance(draw, 70) else option.replace("--", "--no-")]
    if kind is str:
        good = {"schedule": "constant", "encoding": "latency", "surrogate": "relu"}.get(field, "rest")
        return [option, good if chance(draw, 70) else pick(draw, *NAMES, *NUMBERS)]
    words = [
        option,
        pick(draw, *GOOD[int if kind is tuple else kind]) if chance(draw, 80) else pick(draw, *NUMBERS, *NAMES),
    ]
    if field in ("channels", "hidden_sizes"):
        return words + [pick(draw, "3", "4", "x")] * chance(draw, 30)
    return words


def machine_words(draw: Draw) -> list[str]:
    return list(
        pick(
            draw,
            ("--data", pick(draw, *FOLDERS)),
            ("--download",),
            ("--cache",),
            ("--workers", pick(draw, "0", "1", *NUMBERS)),
            ("--device", pick(draw, "cpu", "cpu", "cpu", "cuda", "cuda:99", "meta", "x", "", "cpu:7", "é")),
            ("--checkpoint-seconds", pick(draw, "1", *NUMBERS)),
        )
    )


def command_words(draw: Draw) -> list[str]:
    command = pick(draw, "train", "train", "sweep", "eval", "bench", "info", "train")
    words = [command]
    if command in ("train", "sweep"):
        words += [pick(draw, "digits", "mnist", "nmnist") if chance(draw, 93) else pick(draw, *NAMES, "digit")]
        for _ in range(draw.randrange(3)):
            words += setting_words(draw)
        if chance(draw, 30):
            words += ["--preset", pick(draw, *PRESETS) if chance(draw, 80) else pick(draw, *NAMES)]
    if command == "train" and chance(draw, 15):
        words = ["train", "--resume", pick(draw, "begun", *FOLDERS)]
    elif command in ("train", "sweep") and chance(draw, 40):
        words += ["--out", pick(draw, "new", *FOLDERS)]
    if command == "sweep" and chance(draw, 50):
        field = pick(draw, *OPTIONS)
        kind = type(SETTINGS[field].default)
        good = ("x",) if kind is str else GOOD.get(int if kind is tuple else kind, ("true",))
        words += ["--vary", field, *(pick(draw, *(good if chance(draw, 80) else NUMBERS + NAMES)) for _ in range(2))]
    if command == "sweep" and chance(draw, 40):
        words += ["--seeds", "0", pick(draw, "1", *NUMBERS)]
    if command == "eval":
        words += [pick(draw, "begun", *FOLDERS) if chance(draw, 40) else "begun", *["--binary"] * chance(draw, 50)]
    if command == "bench":
        words += [pick(draw, *benchmark.CASES, "x")] * chance(draw, 60) + ["--quick"] * chance(draw, 40)
        for option in ("--threads", "--repetitions"):
            words += [option, pick(draw, "2", *NUMBERS)] * chance(draw, 20)
        words += ["--out", pick(draw, "new.json", "a/b.json", "full")] * chance(draw, 30)
    elif command != "info" and chance(draw, 25):
        words += machine_words(draw)
    if chance(draw, 12):
        at = draw.randrange(len(words) + 1)
        words[at : at + draw.randrange(2)] = [pick(draw, "--help", "--version", "--", "-", "--x", "@x", "%s", *NUMBERS)]
    return words


@contextlib.contextmanager
def stubbed(reached: list[str]) -> Iterator[None]:
    """Replace the work behind the command line by stubs that note which work would begin."""
    result = SimpleNamespace(
        accuracy=0.5, confusion=torch.zeros(2, 2), counts=[], history=[], evaluation=SimpleNamespace(accuracy=0.5)
    )

    def work(name: str) -> Callable[..., Any]:
        def begin(*arguments: Any, **options: Any) -> Any:
            reached.append(name)
            return result

        return begin

    def measure(settings: Any, repetitions: int) -> Iterator[Any]:
        reached.append("bench")
        yield from ()

    with contextlib.ExitStack() as stack:
        for name in ("train", "resume", "evaluate_run"):
            stack.enter_context(mock.patch.object(training, name, work(name)))
        stack.enter_context(mock.patch.object(sweep, "write_summary", lambda *_: None))
        stack.enter_context(mock.patch.object(benchmark, "run", measure))
        stack.enter_context(mock.patch.object(benchmark, "record", lambda *_: {}))
        yield


def command_line(draw: Draw) -> bool:
    """Command-line arguments of ``srcell``, up to the point where the work would begin."""
    folder, words = runs(), command_words(draw)

    reached: list[str] = []
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    try:
        with stubbed(reached), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
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
