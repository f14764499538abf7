"""Writes a trained network to one file for ``srcell.runtime`` and ``libsrcell``, which need no torch.

``Classifier.export`` and ``srcell export`` call it; it must never know how such a file is run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._arguments import describe
from ._files import write_output
from .layers import SRC, Delay, IntegerSRC, LeakyReadout, LinearReadout, SpikesOnly, SRCConv2d

FORMAT, VERSION, RESONANT_VERSION, DELAYED_VERSION = "srcell.network", "1", "2", "3"
MOST_HEADER_BYTES = 2**20  # the limit in csrc/runtime/tensor_file.cpp
MOST_WINDOW, MOST_RECENT = 2**20, 2**28  # steps, and spikes of a window; the limits in csrc/runtime/readout.cpp

LAYERS, READOUTS = (SRC, IntegerSRC), (LeakyReadout, LinearReadout)
# Modules that pass on their input unchanged, at least in evaluation mode.
LEFT_OUT = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)


def export(network: nn.Module, path: str | Path) -> None:
    """Write a network to a file, by convention ``NAME.srcell``.

    The file holds the network as it computes in evaluation mode; the mode that the network is in does not matter. Its
    attribute ``encoder`` is written if it is a dataclass, as the encodings of ``srcell.data`` are.

    The file is a safetensors file. Its metadata are ``format``, ``version``, ``readout`` and, if the network has one,
    ``encoder`` (JSON: the class's name and its settings). Each layer k has float32 tensors: ``layers.k.weight`` (N, K),
    ``bias``, ``alpha`` to ``zs_dep`` (one element, or N) and, if the layer has them, ``lateral`` (N, N) and ``initial``
    (3, N). A layer that resonates has ``omega`` (one element, or N) as well; ``version`` is then 2, and otherwise
    1. A layer of integer neurons has int16 ``weight`` and ``initial``, and its ``IntegerCell`` as int32
    ``constants``. The same network gives the same bytes.

    With delays ``version`` is 3. A delay is stored as terms, of which term i takes ``first + i`` steps and has a factor
    of its own; a term of less than 0 steps does not arrive. The inputs of a layer have ``delays.first`` (K, M) int32
    for M taps of each, and ``delays.factors`` (K, M, terms) float32, absent if all delays are whole: then each has one
    term, of factor 1. The weight is (N, K M). Recurrent weights have ``lateral_delays.first`` (N, 1) and
    ``lateral_delays.factors`` (N, 1, terms).

    Args:
        network: an ``SRC`` or ``IntegerSRC``; a classifier; an ``nn.Sequential`` of ``SpikesOnly`` (of an ``SRC``,
            ``IntegerSRC`` or ``Delay``), a readout at the end, ``nn.Flatten(2)``, dropout, ``nn.Identity`` and further
            ``nn.Sequential``; or a module with a method ``export_parts()``. It returns the modules that compute the
            same one after another; a layer or a ``Delay`` among them needs no ``SpikesOnly``.
        path: the file to write; an existing one is replaced, whole or not at all.

    Raises:
        TypeError: the network contains another module, or an ``nn.Sequential`` a layer without ``SpikesOnly``; the
            message has its place and class.
        ValueError: modules that do not fit one another or the file, with the place of the first one: another number of
            inputs, a ``Delay`` before anything but an ``SRC``, a module after a readout, float and integer neurons in
            one network, another ``batch_first``, a ``Flatten`` that does not start at dimension 2, a convolutional
            layer, a layer without inputs or neurons, weights that are not float32, a readout's window of more than
            2^20 steps or 2^28 spikes. Or so many layers (about 1,700) that the file's header would exceed 1 MiB.
        ImportError: safetensors, of the extra "train", is not installed.

    Example:
        >>> import tempfile, srcell
        >>> from torch import nn
        >>> from srcell.export import export
        >>> net = nn.Sequential(srcell.SpikesOnly(srcell.SRC(10, 20)), nn.Dropout(0.2), srcell.LeakyReadout(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(net, f"{folder}/net.srcell")
        ...     srcell.runtime.load(f"{folder}/net.srcell")
        Network(10-20, num_classes=2)

    """
    from safetensors.torch import save

    parts = list(parts_of(Part("network", network)))
    for part, following in zip(parts, [*parts[1:], None], strict=False):
        check_neighbours(part, following)
    layers = list(exported_layers(parts))
    if not layers:
        raise ValueError(f"{Part('network', network)}: expected at least one SRC or IntegerSRC, got none")
    tensors = {f"layers.{k}.{name}": tensor for k, layer in enumerate(layers) for name, tensor in layer.items()}
    texts = {"format": FORMAT, "version": VERSION, "readout": "none"}
    if any("omega" in layer for layer in layers):
        texts["version"] = RESONANT_VERSION
    if any(".first" in name for name in tensors):
        texts["version"] = DELAYED_VERSION
    if isinstance(parts[-1].module, READOUTS):
        check_window(parts[-1])
        of_readout, texts["readout"] = describe_readout(parts[-1].module)
        tensors |= of_readout
    encoder = getattr(network, "encoder", None)
    if dataclasses.is_dataclass(encoder) and not isinstance(encoder, type):
        texts["encoder"] = json.dumps({"name": type(encoder).__name__, **dataclasses.asdict(encoder)})
    # Parameters may share their memory, which the format does not allow.
    content = save({name: tensor.clone() for name, tensor in tensors.items()}, texts)
    write_output(Path(path), _with_sorted_header(content))


class Part(NamedTuple):
    """A module of a network, and its place there, such as ``network.2.layer``."""

    place: str
    module: Any

    def __str__(self) -> str:
        """The place and the class, as error messages name the part."""
        return f"{self.place} ({type(self.module).__name__})"


def parts_of(part: Part) -> Iterator[Part]:
    """The layers, delays and readouts that a module consists of, in the order in which it calls them."""
    place, module = part
    if (offered := _offered_parts(part)) is not None:
        for inner in offered:
            yield from parts_of(inner)
    elif _is_one_of(module, (*LAYERS, Delay, *READOUTS)):
        yield part
    elif _is_one_of(module, (SpikesOnly,)):
        yield from parts_of(Part(f"{place}.layer", module.layer))
    elif _is_one_of(module, (nn.Sequential,)):
        for name, child in module.named_modules(remove_duplicate=False):
            if name and "." not in name:
                inner = Part(f"{place}.{name}", child)
                if _is_one_of(child, (*LAYERS, Delay)):
                    raise TypeError(f"{inner}: expected SpikesOnly around it, because it returns spikes and state")
                yield from parts_of(inner)
    elif _is_one_of(module, (nn.Flatten,)):
        if module.start_dim != 2:
            raise ValueError(f"{part}: expected start_dim=2, which keeps steps and samples, got {module.start_dim}")
    elif not _is_one_of(module, LEFT_OUT):
        raise _refusal_of(part)


def _is_one_of(module: object, kinds: Iterable[type[nn.Module]]) -> bool:
    """Whether a module computes as one of these classes does: a subclass must not have a ``forward`` of its own."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def _offered_parts(part: Part) -> list[Part] | None:
    """What a module says that it consists of: by ``export_parts``, or as a classifier does; None if it says nothing."""
    place, module = part
    if not isinstance(part.module, nn.Module):
        return None
    if hasattr(module, "export_parts"):
        offered = module.export_parts()
        if not isinstance(offered, Iterable) or isinstance(offered, Tensor):
            raise TypeError(f"{place}.export_parts(): expected a sequence of modules, got {describe(offered)}")
        offered = list(offered)
    elif hasattr(module, "src_layers"):
        offered = [x for x in (module.delay, *module.src_layers(), module.readout) if x is not None]
    else:
        return None
    names = {id(inner): f"{place}.{name}" for name, inner in module.named_modules() if name}
    parts = [Part(names.get(id(x), f"{place}.export_parts()[{k}]"), x) for k, x in enumerate(offered)]
    for inner in parts:
        if inner.module is module:
            raise ValueError(f"{inner}: expected the modules inside the network's, got the module itself")
    return parts


def _refusal_of(part: Part) -> Exception:
    """The error for a module that cannot be exported."""
    if isinstance(part.module, SRCConv2d):  # a ValueError, because networks of run folders may have them
        return ValueError(
            f"{part}: expected fully connected layers: convolutions cannot be exported yet, but srcell.onnx.export "
            "writes them"
        )
    if isinstance(part.module, nn.Linear):
        return TypeError(
            f"{part}: expected neurons behind each weight: the weights of a layer are in the SRC itself, those of a "
            "readout in a LinearReadout; srcell.onnx.export writes any Linear"
        )
    return TypeError(
        f"{part}: expected SpikesOnly, a readout, nn.Flatten(2), dropout or a module with export_parts(): leave it "
        "out, or let export_parts() return the layers inside it"
    )


def check_neighbours(part: Part, following: Part | None) -> None:
    """Raise unless a part can be followed by another one, or by the end of the network, None."""
    if isinstance(part.module, Delay) and (following is None or not isinstance(following.module, SRC)):
        raise ValueError(f"{part}: expected an SRC after it, whose inputs it delays, got {following or 'nothing'}")
    if following is None:
        return
    if isinstance(part.module, READOUTS):
        raise ValueError(f"{part}: expected a readout at the end of the network, got {following} after it")
    of_integers = [isinstance(each.module, IntegerSRC) for each in (part, following)]
    if not isinstance(following.module, READOUTS) and of_integers[0] != of_integers[1]:
        kind, other = ("integer", "float") if of_integers[0] else ("float", "integer")
        got = "a Delay, which only float neurons take" if isinstance(following.module, Delay) else f"{other} neurons"
        raise ValueError(f"{following}: expected {kind} neurons as in {part}, because a file holds one kind, got {got}")
    by_sample = [getattr(each.module, "batch_first", False) for each in (part, following)]
    if by_sample[0] != by_sample[1]:
        wrong, beside = (part, following) if by_sample[0] else (following, part)
        raise ValueError(f"{wrong}: expected batch_first=False beside {beside}, which takes (T, B, ...), got True")
    given, taken = _outputs_of(part.module), _inputs_of(following.module)
    if given != taken:
        raise ValueError(f"{following}: expected {given} inputs, as {part} gives, got {taken}")


def check_window(part: Part) -> None:
    """Raise if a stream could not keep the spikes of a readout's window."""
    window, neurons = getattr(part.module, "window", 0), _inputs_of(part.module)
    most = min(MOST_WINDOW, MOST_RECENT // neurons)
    if window > most:
        raise ValueError(f"{part}: expected a window of at most {most} steps for {neurons} neurons, got {window}")


def _inputs_of(module: Any) -> int:
    if isinstance(module, LinearReadout):
        return module.linear.in_features
    if isinstance(module, LeakyReadout):
        return module.num_classes * module.neurons_per_class
    inputs: int = module.inputs if isinstance(module, Delay) else module.input_size
    return inputs


def _outputs_of(module: Any) -> int:
    outputs: int = module.inputs * module.taps if isinstance(module, Delay) else module.hidden_size
    return outputs


def exported_layers(parts: Iterable[Part]) -> Iterator[dict[str, Tensor]]:
    """The tensors of each layer; a layer's have those of a ``Delay`` before it."""
    delays: dict[str, Tensor] = {}
    for part in parts:
        if isinstance(part.module, Delay):
            delays = part.module.exported()
        elif isinstance(part.module, LAYERS):
            for layer in part.module.exported():
                shape, dtype = tuple(layer["weight"].shape), layer["weight"].dtype
                if 0 in shape:
                    raise ValueError(f"{part}: expected inputs and neurons in every layer, got {shape}")
                if dtype not in (torch.float32, torch.int16):
                    raise ValueError(f"{part}: expected weights of torch.float32, got {dtype}")
                yield layer | delays
                delays = {}


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
