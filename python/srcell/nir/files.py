"""Reads the HDF5 file of a NIR graph, whoever made it.

HDF5 lets a file name other files, hold an object twice or inside itself, and declare arrays that it does not store.
Each object is checked before its data are read, and refused if it is nothing that NIR writes, so that time and memory
are in proportion to the size of the file.
"""

from __future__ import annotations

import os
import stat
import zlib
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from .._shared.extras import extra

with extra("nir"):
    import h5py
    from h5py import h5d, h5g, h5l, h5o, h5t, h5z

DEEPEST = 100  # levels of groups
LINKS = {h5l.TYPE_SOFT: "a soft link", h5l.TYPE_EXTERNAL: "a link to another file"}
MOST_INFLATED = 1032  # bytes from a byte of gzip (zlib.net/zlib_tech.html)
# An element of an array of texts: the text's length, and its place in the file.
REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
LEAST_CHUNK = 1024  # bytes, because each chunk takes time; h5py makes chunks of 6 KB or more


def read_contents(path: str | Path) -> Any:
    """The contents of a file's member ``node``: dicts of arrays, numbers and texts. Texts in arrays are bytes.

    Raises:
        OSError: the file cannot be opened, or is not HDF5.
        ValueError: there is no such member; the file is damaged, or holds something that NIR does not write.

    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path}: expected a regular file, got a folder, a pipe or a device")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise type(error)(f"{path}: expected an HDF5 file, got: {error}") from None
    with file, open(path, "rb") as content:
        try:
            if not file.id.links.exists(b"node"):
                raise ValueError("expected a NIR graph, got a file without one")
            return _Walk(content, status.st_size).member(file.id, b"node", "", 0)
        except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError, zlib.error) as error:
            raise ValueError(f"{path}: {error}") from None


class _Walk:
    """A walk through a file, which reads each object once and no byte twice."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file, self.unread = file, size
        self.seen: set[int] = set()

    def member(self, group: h5g.GroupID, name: bytes, above: str, depth: int) -> Any:
        """The contents of a group's member. Only h5py's low level looks at a link without following it."""
        place = f"{above}/{name.decode(errors='replace')}"
        kind = group.links.get_info(name).type
        if kind != h5l.TYPE_HARD or b"/" in name:
            _refuse(place, "an object of this file", LINKS.get(kind, "another link"))
        found = h5o.open(group, name)
        address = h5o.get_info(found).addr
        if address in self.seen:
            _refuse(place, "an object with one path", "one with several, or one inside itself")
        self.seen.add(address)
        if isinstance(found, h5d.DatasetID):
            return self.data(h5py.Dataset(found), place)
        if not isinstance(found, h5g.GroupID):
            _refuse(place, "a group or data", type(found).__name__)
        if depth == DEEPEST:
            _refuse(place, f"at most {DEEPEST} groups inside one another", "more")
        return {key.decode(): self.member(found, key, place, depth + 1) for key in found}

    def data(self, dataset: h5py.Dataset, place: str) -> Any:
        """A dataset's array, number or text."""
        created = dataset.id.get_create_plist()
        layout, filters = created.get_layout(), [created.get_filter(k) for k in range(created.get_nfilters())]
        if layout == h5d.VIRTUAL or created.get_external_count():
            _refuse(place, "data in this file", "data in another file")  # even the shape may be there
        if filters and [code for code, *_ in filters] != [h5z.FILTER_DEFLATE]:
            _refuse(place, "data that are not compressed, or by gzip once", f"filters {[name for *_, name in filters]}")
        dtype, shape, kind = dataset.dtype, dataset.shape, dataset.id.get_type()
        is_text = dtype.kind == "O" and h5py.check_string_dtype(dtype) is not None and layout == h5d.CONTIGUOUS
        is_plain = dtype.kind == "S" or (dtype.kind in "biuf" and kind.equal(h5t.py_create(dtype, logical=True)))
        if shape is None or not (is_text or is_plain):
            _refuse(place, "real numbers or texts", f"{dtype} of shape {shape}")

        stored, elements = dataset.id.get_storage_size(), prod(shape)
        found: dict[tuple[int, ...], Any] = {}  # the chunks, by where they begin
        if layout == h5d.CHUNKED:
            chunk = dataset.chunks
            chunks = prod(-(-n // most) for n, most in zip(shape, chunk, strict=True))
            if chunks > 1 and prod(chunk) * dtype.itemsize < LEAST_CHUNK:
                _refuse(place, f"chunks of at least {LEAST_CHUNK} bytes", prod(chunk) * dtype.itemsize)
            dataset.id.chunk_iter(lambda each: found.update({each.chunk_offset: each}))
            if len(found) != chunks:
                _refuse(place, f"the {chunks} chunks of an array {shape}", len(found))
            elements = chunks * prod(chunk)
        size = REFERENCE.itemsize if is_text else kind.get_size()
        if elements * size > stored * (MOST_INFLATED if filters else 1):
            _refuse(place, f"the data of an array {shape} of {dtype}", f"{stored} bytes")
        if not elements:
            if max(shape) > self.unread:
                _refuse(place, "an array no longer than its file", f"an empty one of shape {shape}")
            return np.empty(shape, dtype)
        self.take(stored, place)
        if layout == h5d.CHUNKED:
            return self.chunks(dataset, found, place)
        if is_text:  # HDF5 believes the lengths of texts, and many elements may refer to the same text
            references = np.frombuffer(self.read(dataset.id.get_offset(), elements * size), REFERENCE)
            self.take(int(references["length"].sum(dtype=np.uint64)), place)
        value = dataset[()]
        return value.decode() if isinstance(value, bytes) else value

    def chunks(self, dataset: h5py.Dataset, found: dict[tuple[int, ...], Any], place: str) -> NDArray[Any]:
        """The array of these chunks. HDF5 itself reads memory past the end of one that is too short, or crashes."""
        array, shape = np.zeros(dataset.shape, dataset.dtype), dataset.chunks
        size = prod(shape) * array.itemsize
        for begin, each in found.items():
            content = self.read(each.byte_offset, each.size)
            if dataset.compression is not None and not each.filter_mask:
                content = zlib.decompressobj().decompress(content, size + 1)
            if len(content) != size:
                _refuse(place, f"chunks of {size} bytes", f"one of {'more' if len(content) > size else len(content)}")
            part = array[tuple(slice(start, start + most) for start, most in zip(begin, shape, strict=True))]
            part[...] = np.frombuffer(content, array.dtype).reshape(shape)[tuple(map(slice, part.shape))]
        return array

    def take(self, count: int, place: str) -> None:
        """Count bytes that are read."""
        self.unread -= count
        if self.unread < 0:
            _refuse(place, "no more data than the file has bytes", f"{-self.unread} bytes more")

    def read(self, offset: int, count: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(count)


def _refuse(place: str, expected: str, got: object) -> NoReturn:
    raise ValueError(f"{place}: expected {expected}, got {got}")
