"""A network of integer neurons as one C99 header for microcontrollers, and the reader of such headers.

Users call these functions. The C code is in ``_c99_text``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from .._integer import IntegerCell
from .._shared.arguments import as_int
from .._shared.files import write_output
from ..functional.integer import checked_cell
from . import _c99_text as text
from ._arrays import HIGH, LOW, Matrix, as_weights, lines_of_numbers, parse_int

MOST = 2**16 - 1  # inputs of a layer, and neurons of the network: they are numbered in uint16_t
# What a reader looks for, each in time linear in the length of any text: the end of an unfinished array is the text's.
STATE = re.compile(r"^\} (\w+)_state;$", re.MULTILINE)
CONSTANT = re.compile(r"^#define (\w+) \(?(-?\d+)\)?$", re.MULTILINE)
ARRAY = re.compile(r"^static const int\d+_t (\w+)\[[^=\n]*= \{(.*?)(?:^\};|\Z)", re.MULTILINE | re.DOTALL)
MOST_VOTES = 2**30  # votes stop here, and a step adds less than this: their sum fits in int32_t


class HeaderNetwork(NamedTuple):
    """The content of a header: the arguments of ``write_header`` without the path."""

    layers: list[NDArray[np.int16]]
    """The weights (N, K) of each layer, first to last."""
    cell: IntegerCell
    """The constants of all neurons."""
    num_classes: int
    """Classes, C."""
    name: str
    """The prefix of all names."""
    votes: tuple[int, int]
    """The votes that a spike adds to its own class, and to every other class."""


def write_header(
    path: str | Path,
    layers: Sequence[Matrix],
    *,
    cell: IntegerCell = IntegerCell(),  # noqa: B008  (it is immutable)
    num_classes: SupportsIndex,
    name: str = "network",
    votes: tuple[SupportsIndex, SupportsIndex] = (10, -1),
) -> None:
    r"""Write a network of integer neurons as one C99 header that needs only ``<stdint.h>``.

    The code uses no memory but the caller's state, no floats and no library; every sum fits in 32 bits. A comment at
    the top shows how to call the code, and how many bytes of constants and state it needs. The spikes and classes are
    exactly those of the integer neuron. C++ may include the header too.

    Args:
        path: the file to write; an existing one is replaced, whole or not at all.
        layers: the weights (N, K) of each layer, first to last, integers of 16 bits in arrays or tensors: [n, k] is
            the weight from input k to neuron n. The inputs of a layer are the neurons of the previous one. Weights of
            8 bits take one byte each, others two. At most 65,535 inputs, and at most 65,535 neurons in all layers
            together.
        cell: the constants of all neurons.
        num_classes: classes C. Neuron n of the last layer votes for class n % C; the size of that layer must be a
            multiple of C.
        name: prefix of all names in the header, in capitals for macros.
        votes: what a spike of the last layer adds to its neuron's class, and to every other class. Votes do not leak.

    Raises:
        TypeError: the weights or constants are not integers.
        ValueError: there is no layer, sizes do not match or exceed the bounds, with these constants a value would not
            fit in its type, or the name is not a C identifier.
        OSError: the file cannot be written.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = pathlib.Path(folder, "digits.h")
        ...     write_header(file, [[[1, -2, 3], [0, 5, -8]]], num_classes=2, name="digits")
        ...     print(*file.read_text().splitlines()[10:16], sep="\n")
         *   inputs   3
         *   neurons  2
         *   classes  2
         *   weights  2 x 3 int8_t, a row of the array for each input
         *   flash    6 bytes of constants, and the code
         *   RAM      36 bytes: sizeof(digits_state), where an int32_t is aligned to 4 bytes

    """
    network = _checked(layers, cell, num_classes, name, votes)
    write_output(Path(path), "".join(_parts(network)).encode())


def _checked(
    layers: Sequence[Matrix],
    cell: IntegerCell,
    num_classes: SupportsIndex,
    name: str,
    votes: tuple[SupportsIndex, SupportsIndex],
) -> HeaderNetwork:
    """Check that a header can hold the network of these arguments, and return it."""
    matrices = [as_weights(f"layers[{k}]", weights) for k, weights in enumerate(layers)]
    if not matrices:
        raise ValueError("layers: expected at least one, got none")
    for k, (below, above) in enumerate(pairwise(matrices), start=1):
        if above.shape[1] != len(below):
            raise ValueError(f"layers[{k}]: expected {len(below)} inputs, got {above.shape[1]}")
    inputs, neurons = matrices[0].shape[1], sum(map(len, matrices))
    if max(inputs, neurons) > MOST:
        raise ValueError(f"layers: expected at most {MOST} inputs and neurons, got {inputs} and {neurons}")
    if not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        raise ValueError(f"name: expected a C identifier that begins with a letter, got {name!r}")
    checked_cell(cell)
    outputs = len(matrices[-1])
    classes = as_int("num_classes", num_classes, MOST, minimum=1)
    if outputs % classes:
        raise ValueError(f"num_classes: expected a divisor of the last layer's {outputs} neurons, got {classes}")
    own, others = (as_int("votes", vote, HIGH, minimum=LOW) for vote in votes)
    most = (MOST_VOTES - 1) // outputs
    if abs(own) + abs(others) > most:
        raise ValueError(f"votes: expected at most {most} as the sum of their magnitudes, got {own} and {others}")
    return HeaderNetwork(matrices, cell, classes, name, (own, others))


def read_header(path: str | Path) -> HeaderNetwork:
    """Read the network of a header that ``write_header`` wrote.

    Raises:
        ValueError: ``write_header`` did not write the file, or it was changed; the message names the file.
        OSError: there is no such file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_header(f"{folder}/digits.h", [[[1, -2, 3], [0, 5, -8]]], num_classes=2, name="digits")
        ...     network = read_header(f"{folder}/digits.h")
        >>> network.layers, network.num_classes, network.votes
        ([array([[ 1, -2,  3],
               [ 0,  5, -8]], dtype=int16)], 2, (10, -1))

    """
    where = str(path)
    content = Path(path).read_text("utf-8", errors="replace")
    state = STATE.search(content)
    if state is None:
        raise ValueError(f"{path}: expected a header that srcell wrote, got another file")
    name, constants, arrays = state[1], dict(CONSTANT.findall(content)), dict(ARRAY.findall(content))

    def constant(key: str) -> int:
        found = constants.get(f"{name.upper()}_{key}")
        if found is None:
            raise ValueError(f"{path}: expected a number {name.upper()}_{key}, got none")
        return parse_int(where, found)

    inputs, layers = constant("INPUTS"), []
    for k in range(constant("LAYERS")):
        shape = inputs, constant(f"NEURONS_{k}")
        found = re.findall(r"-?\d+", arrays.get(f"{name}_weights_{k}", ""))
        numbers = np.array([parse_int(where, number) for number in found], np.int64)
        if numbers.size != shape[0] * shape[1]:
            raise ValueError(f"{path}: expected {shape[0]} x {shape[1]} weights of layer {k}, got {numbers.size}")
        layers.append(numbers.reshape(shape).T)
        inputs = shape[1]
    cell = IntegerCell(*(constant(field.upper()) for field in IntegerCell._fields))
    votes = constant("VOTE_OWN"), constant("VOTE_OTHERS")
    try:
        return _checked(layers, cell, constant("CLASSES"), name, votes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parts(network: HeaderNetwork) -> Iterator[str]:
    """The header's text, in parts."""
    layers, cell, classes, name, votes = network
    layers = [w.astype(np.int8) if w.min() >= -128 and w.max() <= 127 else w for w in layers]
    neurons = [len(weights) for weights in layers]
    inputs, widest, total, outputs = layers[0].shape[1], max(neurons), sum(neurons), neurons[-1]
    state = 4 * (widest + classes + 1) + 6 * total + outputs
    facts = {
        "inputs": inputs,
        "neurons": " + ".join(map(str, neurons)),
        "classes": classes,
        "weights": ", ".join(f"{len(w)} x {w.shape[1]} {w.dtype}_t" for w in layers),
        "flash": sum(weights.nbytes for weights in layers),
        "ram": -(-state // 4) * 4,
    }
    numbers = {"INPUTS": inputs, "LAYERS": len(layers)}
    for k, count in enumerate(neurons):
        numbers |= {f"NEURONS_{k}": count, f"FIRST_{k}": sum(neurons[:k])}
    numbers |= {"NEURONS": total, "WIDEST": widest, "OUTPUTS": outputs, "CLASSES": classes}
    numbers |= {"VOTE_OWN": votes[0], "VOTE_OTHERS": votes[1], "MOST_VOTES": MOST_VOTES}
    numbers |= {field.upper(): int(value) for field, value in cell._asdict().items()}
    names = {"net": name, "NET": name.upper()}
    yield text.HEAD.substitute(names, **facts)
    for key, number in numbers.items():
        yield f"#define {name.upper()}_{key} {number if number >= 0 else f'({number})'}\n"
    for k, weights in enumerate(layers):
        yield f"\nstatic const {weights.dtype}_t {name}_weights_{k}[{weights.shape[1]}][{weights.shape[0]}] = {{\n"
        for row in weights.T.tolist():
            yield f"    {{{lines_of_numbers(row)}}},\n"
        yield "};\n"
    yield text.NEURONS.substitute(names)
    for k, weights in enumerate(layers):
        yield text.ADD.substitute(names, k=k, type=f"{weights.dtype}_t")
    yield text.STEP.substitute(names)
    for k in range(1, len(layers)):
        yield text.LATER_LAYER.substitute(names, k=k, below=k - 1)
    yield text.END.substitute(names, last=len(layers) - 1)
