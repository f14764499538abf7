"""Writes a trained network to one file for ``srcell.runtime`` and ``libsrcell``, which need no torch.

``Classifier.export`` and ``srcell export`` call it; it must never know how such a file is run.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ._arguments import describe
from ._files import write_output
from .layers import SRC, IntegerSRC, LeakyReadout, LinearReadout

FORMAT, VERSION, RESONANT_VERSION, DELAYED_VERSION = "srcell.network", "1", "2", "3"
MOST_HEADER_BYTES = 2**20  # the limit in csrc/runtime/tensor_file.cpp


def export(network: nn.Module, path: str | Path) -> None:
    """Write a network to a file, by convention ``NAME.srcell``.

    The file is a safetensors file. Its metadata are ``format``, ``version``, ``readout`` and, if the network has one,
    ``encoder`` (JSON: the class's name and its settings). Each layer k has float32 tensors: ``layers.k.weight`` (N, K),
    ``bias``, ``alpha`` to ``zs_dep`` (one element, or N) and, if the layer has them, ``lateral`` (N, N) and ``initial``
    (3, N). A layer that resonates has ``omega`` (one element, or N) as well; ``version`` is then 2, and otherwise
    1. A layer of integer neurons has int16 ``weight`` and ``initial``, and its ``IntegerCell`` as int32
    ``constants``. The same network gives the same bytes.

    With delays ``version`` is 3. A delay is stored as terms, of which term i takes ``first + i`` steps and has a factor
    of its own; a term of less than 0 steps does not arrive. The inputs have ``delays.first`` (K, M) int32 for M taps of
    each, and ``delays.factors`` (K, M, terms) float32, absent if all delays are whole: then each has one term, of
    factor 1. The weight is (N, K M). Recurrent weights have ``lateral_delays.first`` (N, 1) and
    ``lateral_delays.factors`` (N, 1, terms).

    Args:
        network: an ``SRCClassifier`` or ``IntegerClassifier``, or an ``SRC`` or ``IntegerSRC``, whose file has no
            readout.
        path: the file to write; an existing one is replaced, whole or not at all.

    Raises:
        TypeError: ``network`` is another module.
        ValueError: a convolutional layer, a layer without inputs or neurons, weights that are not float32, or so many
            layers (about 1,700) that the file's header would exceed 1 MiB.
        ImportError: safetensors, of the extra "train", is not installed.

    Example:
        >>> import tempfile, srcell
        >>> from srcell.export import export
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(srcell.SRC(10, 5), f"{folder}/net.srcell")
        ...     srcell.runtime.load(f"{folder}/net.srcell").layers
        [LayerSizes(inputs=10, neurons=5, lateral=False, integer=False, resonant=False, max_delay=0)]

    """
    from safetensors.torch import save

    described: Any = network
    alone = isinstance(network, SRC | IntegerSRC)
    if not alone and not hasattr(network, "src_layers"):
        raise TypeError(
            f"network: expected an SRC, an IntegerSRC, an SRCClassifier or an IntegerClassifier, got "
            f"{describe(network)}: export one of its SRC layers, or load its weights into an SRCClassifier"
        )
    layers: list[nn.Module] = [network] if alone else described.src_layers()
    if any(not isinstance(layer, SRC | IntegerSRC) for layer in layers):
        raise ValueError(
            f"network: expected fully connected layers, got a {type(network).__name__}: "
            "convolutions cannot be exported yet"
        )
    tensors: dict[str, Tensor] = {}
    texts = {"format": FORMAT, "version": VERSION, "readout": "none"}
    exported = [made for layer in layers if isinstance(layer, SRC | IntegerSRC) for made in layer.exported()]
    for k, numbers in enumerate(exported):
        if not numbers["weight"].numel():
            raise ValueError(
                f"network: expected inputs and neurons in every layer, got {tuple(numbers['weight'].shape)}"
            )
        if numbers["weight"].dtype not in (torch.float32, torch.int16):
            raise ValueError(f"network: expected weights of torch.float32, got {numbers['weight'].dtype}")
        tensors |= {f"layers.{k}.{name}": tensor for name, tensor in numbers.items()}
    if any("omega" in numbers for numbers in exported):
        texts["version"] = RESONANT_VERSION
    if not alone and described.delay is not None:
        tensors |= {f"layers.0.{name}": tensor for name, tensor in described.delay.exported().items()}
    if any(".first" in name for name in tensors):
        texts["version"] = DELAYED_VERSION
    if not alone:
        of_readout, texts["readout"] = describe_readout(described.readout)
        tensors |= of_readout
        if described.encoder is not None:
            settings = {"name": type(described.encoder).__name__, **dataclasses.asdict(described.encoder)}
            texts["encoder"] = json.dumps(settings)
    # Parameters may share their memory, which the format does not allow.
    content = save({name: tensor.clone() for name, tensor in tensors.items()}, texts)
    write_output(Path(path), _with_sorted_header(content))


def _with_sorted_header(content: bytes) -> bytes:
    """Sort the header of a safetensors file by name: ``save`` writes the metadata in arbitrary order."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned
    if len(header) > MOST_HEADER_BYTES:
        raise ValueError(f"network: expected layers whose header fits in {MOST_HEADER_BYTES} bytes, got {len(header)}")
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def describe_readout(readout: LeakyReadout | LinearReadout) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a readout, and its kind: "linear" or "votes"."""
    if isinstance(readout, LinearReadout):
        constants = [readout.alpha, readout.window]
        numbers = {"weight": readout.linear.weight, "bias": readout.linear.bias}
        tensors, kind = {name: x.detach().float().cpu().contiguous() for name, x in numbers.items()}, "linear"
    else:
        constants = [readout.num_classes, readout.alpha, readout.inhibition, readout.temperature]
        tensors, kind = {}, "votes"
    tensors["constants"] = torch.tensor(constants, dtype=torch.float64)
    return {f"readout.{name}": tensor for name, tensor in tensors.items()}, kind
