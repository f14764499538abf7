"""A fuzz target on NIR graphs, in the form that ``op_targets`` describes; it needs the extra ``nir``.

Files are doctored by h5py, bytes of their data are changed, and nodes are changed after they were made. HDF5's own
structures, which its library reads, are left intact: that library does not return from some damaged files.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import srcell
from fuzz.draws import Draw, corrupted
from fuzz.facts import RefusedError
from fuzz.file_targets import assert_alone, workspace
from srcell import Delay, LeakyReadout, LinearReadout, SpikesOnly, SRCConv2d

INSTALLED = find_spec("nir") is not None
SECRET = b"my key: "
MOST_INFLATED = 1032  # bytes from a byte of gzip
NAMES = ("x", "weight", "type", "nodes", "output", "src_0", "dt", "é", "a b", "x" * 300)


@functools.cache
def folder() -> Path:
    """A folder for the file, with two other files that it must not read."""
    import h5py

    made = workspace("nir")
    (made / "secret").write_bytes(SECRET * 512)
    with h5py.File(made / "secret.h5", "w") as file:
        file["x"] = np.frombuffer(SECRET * 512, "f4")
        file["group/type"] = SECRET.decode()
    return made


@functools.cache
def good_files() -> list[bytes]:
    """The files of small networks that have all kinds of nodes between them."""
    import nir

    from srcell.nir import to_graph

    before = Delay(3, 4, taps=2, learnable=False)
    recurrent = srcell.SRC(6, 4, recurrent=True, delay_hh=1.5, max_delay=3, omega=0.3)
    maps = SpikesOnly(SRCConv2d(1, 2, (3, 2), padding=1, initial_state="rest"))
    networks = [
        nn.Sequential(SpikesOnly(before), SpikesOnly(recurrent), LinearReadout(4, 2, window=3)),
        nn.Sequential(
            nn.Unflatten(2, (1, 4, 4)), maps, nn.Flatten(2), SpikesOnly(srcell.SRC(40, 4)), LeakyReadout(2, 2)
        ),
        nn.Sequential(SpikesOnly(srcell.SRC(3, 4, recurrent=True, alpha=0.5)), nn.Linear(4, 2)),
    ]
    made = []
    for network in networks:
        nir.write(folder() / "net.nir", to_graph(network, dt=0.001))
        made.append((folder() / "net.nir").read_bytes())
    return made


def nir(draw: Draw) -> None:
    """A file, doctored or not, and its graph, changed or not."""
    from srcell.nir import from_graph, read_graph

    path, content, how = folder() / "net.nir", draw.pick(*good_files()), draw.randrange(100)
    path.write_bytes(content)
    if how < 10:
        damage(draw, path)
    elif how < 40:
        doctor(draw, path)

    graph = refusing(lambda: read_graph(path), {str(path)}, how < 40, ValueError, OSError)

    held = list(arrays(graph))
    assert not any(SECRET in array.tobytes() for array in held)
    assert sum(array.nbytes for array in held) <= MOST_INFLATED * path.stat().st_size
    names = {"metadata", "graph", *graph.nodes}
    changed = how >= 60 and change(draw, graph)
    network = refusing(lambda: from_graph(graph), names, changed or how < 40, ValueError, TypeError)
    size = input_size(graph)
    if size < 10_000:
        with torch.no_grad():
            network(torch.ones(3, 2, size, dtype=next(network.parameters()).dtype))


def input_size(graph: Any) -> int:
    (shape,) = (node.output_type["output"] for node in graph.nodes.values() if type(node).__name__ == "Input")
    return prod(shape)


def refusing(call: Callable[[], Any], names: set[str], refusable: bool, *errors: type[Exception]) -> Any:
    """The result of the call. If it refuses, which it may only if ``refusable``, it names something."""
    try:
        return call()
    except errors as error:
        assert re.match(rf"({'|'.join(map(re.escape, names))})[:. ]", str(error)), f"names nothing: {error}"
    finally:
        assert_alone(folder())
    assert refusable
    raise RefusedError


def arrays(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    """All arrays, numbers and texts in a graph."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from arrays(key)
            yield from arrays(inner)
    elif hasattr(value, "__dataclass_fields__"):
        yield from arrays(vars(value))
    elif isinstance(value, np.ndarray) and value.dtype == object:
        yield np.array(b"".join(x if isinstance(x, bytes) else str(x).encode() for x in value.reshape(-1)))
    elif isinstance(value, str):
        yield np.array(value.encode(errors="surrogateescape"))
    elif not isinstance(value, list | tuple):
        yield np.asarray(value)


# Doctored files


def damage(draw: Draw, path: Path) -> None:
    """Change bytes of the data of an array, or of the lengths and places of texts."""
    import h5py

    with h5py.File(path) as file:
        places: list[str] = []
        file.visit(lambda name: places.append(name) if isinstance(file[name], h5py.Dataset) else None)
        found = file[draw.pick(*places)].id
        chunk = found.get_chunk_info(0) if found.get_create_plist().get_layout() == h5py.h5d.CHUNKED else None
        begin, size = (chunk.byte_offset, chunk.size) if chunk else (found.get_offset(), found.get_storage_size())
    content = path.read_bytes()
    data = corrupted(draw, content[begin : begin + size])[:size].ljust(size, b"\0")
    path.write_bytes(content[:begin] + data + content[begin + size :])


def doctor(draw: Draw, path: Path) -> None:
    """Replace, link, rename or delete members of a file."""
    import h5py

    with h5py.File(path, "r+") as file:
        for _ in range(draw.pick(1, 1, 2, 3)):
            places: list[str] = []
            file["node"].visit(places.append)
            parent, _, name = f"/node/{draw.pick(*places)}".rpartition("/")
            with contextlib.suppress(ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError):
                draw.pick(*EDITS)(draw, file, file[parent], name)


def replaced(write: Callable[[Draw, Any, str, Any], None]) -> Callable[[Draw, Any, Any, str], None]:
    """An edit that writes another member in the place of one; it is given the old one's value."""

    def edit(draw: Draw, _: Any, parent: Any, name: str) -> None:
        import h5py

        found = parent[name]
        small = isinstance(found, h5py.Dataset) and found.shape is not None and found.size < 2**20
        value = found[()] if small else np.zeros(3, "f4")
        del parent[name]
        write(draw, parent, name, value)

    return edit


def delete(_: Draw, __: Any, parent: Any, name: str) -> None:
    del parent[name]


def rename(draw: Draw, _: Any, parent: Any, name: str) -> None:
    parent.move(name, draw.pick(*NAMES))


def link_again(draw: Draw, file: Any, parent: Any, name: str) -> None:
    """Hard links: a second one, one to a group around it, or groups that each hold the next one twice."""
    how = draw.randrange(3)
    if how == 0:
        parent[draw.pick(*NAMES)] = parent[name]
    elif how == 1:
        parent[draw.pick(*NAMES)] = file[draw.pick("/", "node", "node/nodes")]
    else:
        group = parent[name]
        for k in range(40):
            below, group = group, parent.create_group(f"tower{k}")
            group["a"] = group["b"] = below


def linked(draw: Draw, parent: Any, name: str, _: Any) -> None:
    import h5py

    other = draw.pick(str(folder() / "secret.h5"), "secret.h5", str(folder() / "net.nir"), "nowhere")
    parent[name] = draw.pick(
        h5py.SoftLink(draw.pick("/", "/node", "/node/nodes", "/node/edges", "nowhere", ".")),
        h5py.ExternalLink(other, draw.pick("/x", "/group", "/", "/node/edges")),
    )


def in_another_file(draw: Draw, parent: Any, name: str, value: Any) -> None:
    import h5py

    shape, dtype = np.shape(value), np.asarray(value).dtype
    dtype = np.dtype("f4") if dtype.kind == "O" else dtype
    if draw.chance(50):
        size = draw.pick(prod(shape) * dtype.itemsize, h5py.h5f.UNLIMITED)
        parent.create_dataset(name, shape, dtype, external=[(str(folder() / "secret"), draw.pick(0, 8), size)])
    else:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[...] = h5py.VirtualSource(folder() / "secret.h5", "x", shape)
        parent.create_virtual_dataset(name, layout)


def declared(draw: Draw, parent: Any, name: str, value: Any) -> None:
    """An array of any shape and layout, of which a part is stored."""
    sizes = (0, 1, 3, 100, 2**20, 2**31, 2**40)
    shape = tuple(draw.pick(*sizes) for _ in range(draw.randrange(4)))
    chunks = tuple(draw.pick(1, 3, 100, 2**20) for _ in shape)
    options = draw.pick({}, {"chunks": chunks}, {"chunks": chunks, "compression": "gzip"}, {"chunks": True})
    options |= draw.pick({}, {}, {"fletcher32": True}, {"shuffle": True}, {"scaleoffset": 0}, {"compression": "szip"})
    if options:
        options["maxshape"] = (None,) * len(shape)
    made = parent.create_dataset(name, shape, draw.pick("f4", "f8", "i1", "S40"), **options)
    if draw.chance(50) and 0 < made.size <= 2**20 and prod(chunks) <= 2**20:  # otherwise the file may be vast
        made[(0,) * len(shape)] = 1
    if draw.chance(50) and made.chunks:
        made.id.write_direct_chunk((0,) * len(shape), draw.randbytes(draw.randrange(40)))


def of_another_type(draw: Draw, parent: Any, name: str, value: Any) -> None:
    import h5py

    plain = ("f4", "f8", "f2", ">f4", "i8", "u1", "?", "c8", "g")
    special = (h5py.string_dtype(), h5py.vlen_dtype("f4"), h5py.ref_dtype, h5py.enum_dtype({"a": 1}))
    dtype = draw.pick(*plain, "S3", "V4", [("a", "f4")], ("f4", (2,)), *special)
    shape = draw.pick(np.shape(value), np.shape(value), (), (3,), (1, 1), (0, 2))
    made = parent.create_dataset(name, shape, np.dtype(dtype))
    if dtype in plain and draw.chance(70):  # h5py crashes when it writes a text to some of the others
        made[...] = draw.pick(0, 1, -1, np.nan)


def of_another_value(draw: Draw, parent: Any, name: str, value: Any) -> None:
    import h5py

    array = np.asarray(value)
    if array.dtype == object:
        names = [b"input", b"output", b"src_0", b"linear_0", b"nowhere", b"", b"\xff", b"SRC", b"NIRGraph", b"LIF"]
        array = array.copy().reshape(-1)
        if len(array):
            array[draw.randrange(len(array))] = draw.pick(*names)
        array = array.reshape(np.shape(value)) if draw.chance(80) else array
    else:
        edges = (0, -1, 1, 2, 1.5, 2**31, 2**62, 1e300, np.nan, np.inf)
        with np.errstate(all="ignore"):
            product, full = array * draw.pick(*edges), np.full_like(array, draw.pick(*edges))
        array = draw.pick(array[..., None], np.atleast_1d(array)[:1], product, full)
    parent[name] = draw.pick(array, array, array, "same", b"\xff", 3, np.ones(2), h5py.Empty("f4"), np.dtype("f4"))


EDITS: list[Callable[[Draw, Any, Any, str], None]] = [
    delete,
    rename,
    link_again,
    *map(replaced, (linked, in_another_file, declared, declared, of_another_type)),
    *map(replaced, (of_another_value, of_another_value)),
]


# Changed graphs


def change(draw: Draw, graph: Any) -> bool:
    """Change or delete a field of a node or of the graph, or an entry of its metadata."""
    for _ in range(draw.pick(1, 1, 2)):
        changed = draw.pick(graph, *graph.nodes.values(), *graph.nodes.values())
        fields = sorted(vars(changed))
        if not fields:
            continue
        field = draw.pick(*fields)
        value = getattr(changed, field)
        if draw.chance(10):
            delattr(changed, field)
        elif draw.chance(50) or not isinstance(value, np.ndarray):
            setattr(changed, field, altered_entry(draw, value) if draw.chance(60) else draw.oddity())
        else:
            setattr(changed, field, altered_array(draw, value))
        if changed is graph:
            break  # whose nodes may be anything now
    return True


def altered_array(draw: Draw, array: Any) -> Any:
    return draw.pick(
        lambda: array[..., None], lambda: array[:1], lambda: array[1:], lambda: array.reshape(-1), lambda: array.T,
        lambda: array.astype(draw.pick("f8", "f4", "f2", ">f4", "g", "i8", "?", "c8", "S3", "O", "U3")),
        lambda: array.tolist(), lambda: torch.from_numpy(array.copy()), lambda: array * draw.pick(-1, 0, 1e30, np.nan),
        lambda: np.broadcast_to(array[:1], (draw.pick(0, 3, 1000), *array.shape[1:])),
    )()  # fmt: skip


def altered_entry(draw: Draw, value: Any) -> Any:
    """A dict or a list with one entry replaced, lost or added; anything else is replaced."""
    if not isinstance(value, dict | list) or not value:
        return draw.oddity()
    made = value.copy()
    key = draw.pick(*made) if isinstance(made, dict) else draw.randrange(len(made))
    how = draw.randrange(5)
    if how == 0:
        del made[key]
    elif how == 1:
        made[key] = draw.oddity()
    elif how == 2 and isinstance(made, list):
        made.append(draw.pick(made[0], ("input", "nowhere"), ("output", "input"), ("a",), draw.oddity()))
    elif isinstance(made, dict):
        made[key] = altered_entry(draw, made[key])
    else:
        made[key] = draw.pick(("output", "input"), ["input", "output"], ("input", draw.oddity()), ("input",) * 3)
    return made
