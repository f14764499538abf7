"""Writes a trained network to one file for ``srcell.runtime`` and ``libsrcell``, which need no torch.

``Classifier.export`` and ``srcell export`` call it. The runtime reads what it made before an older file is replaced.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from .._shared.arguments import as_int, describe
from .._shared.files import write_output
from .._shared.parameters import TABLE
from ..runtime import Network, as_names
from . import SRC, Delay, IntegerSRC, LeakyReadout, LinearReadout, Sequential, SpikesOnly, SRCConv2d, Standardise
from .exported import exported, learning_rule

FORMAT = "srcell.network"
DELAYED_VERSION, MAP_VERSION, STANDARDISED_VERSION, SKIP_VERSION = 3, 4, 5, 6
MOST_HEADER_BYTES = 2**20  # the limit in csrc/runtime/tensor_file.cpp
MOST_WINDOW, MOST_RECENT = 2**20, 2**28  # steps, and spikes of a window; the limits in csrc/runtime/readout.cpp
MOST_IN_MAPS, MOST_SIZE = 2**22, 2**20  # neurons in maps, and a size of a map; the limits in csrc/runtime/convolution.*
MOST_TAPS, MOST_WEIGHTS = 2**22, 2**28  # taps of kernels, as there; weights of an nn.Linear and after it

LAYERS, READOUTS = (SRC, IntegerSRC, SRCConv2d), (LeakyReadout, LinearReadout)
# Modules that pass on their input unchanged, at least in evaluation mode.
LEFT_OUT = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
# Convolutions over time, and others that compute a step from its neighbours, which a stream does not have.
MIX_STEPS = (nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.MaxPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d)
RENEWING_HOOKS = (WeightNorm, SpectralNorm, BasePruningMethod)  # make weights in a hook before forward


def export(
    network: nn.Module,
    path: str | Path,
    input_shape: Sequence[int] | None = None,
    *,
    classes: Sequence[str] | None = None,
) -> None:
    """Write a network to a file, by convention ``NAME.srcell``.

    The file holds the network as it computes in evaluation mode; the mode that the network is in does not matter. Its
    attribute ``encoder`` is written if it is a dataclass, as the encodings of ``srcell.data`` are.

    An ``nn.Linear`` is multiplied into the weight of the layer or readout behind it; its bias becomes a constant
    current of that layer. A ``Standardise`` standardises the inputs of every call of the runtime. The same network
    gives the same bytes; the page "The file format" specifies them.

    Args:
        network: an ``SRC`` or ``IntegerSRC``; a classifier; a ``Sequential`` of layers (``SRC``, ``SRCConv2d``,
            ``IntegerSRC``), ``Standardise`` at the beginning, ``Delay``, ``nn.Linear``, a readout at the end,
            ``nn.Flatten(2)``, ``nn.Unflatten(2, (C, H, W))``, dropout, ``nn.Identity`` and further ``Sequential``; an
            ``nn.Sequential`` of the same, with ``SpikesOnly`` around layers and delays; or a module with a method
            ``export_parts()``. It returns the modules that compute the same one after another; a layer or a ``Delay``
            among them needs no ``SpikesOnly``.
        path: the file to write; an existing one is replaced, whole or not at all.
        input_shape: (C, H, W) of the network's input at one step of one sample, if a convolution comes first; a
            classifier knows it.
        classes: the names of the classes, by label, for ``srcell.runtime`` and the commands that read the file; by
            default those of the network's attribute ``class_names``, or none, with a warning, if a file cannot have
            them.

    Raises:
        TypeError: the network contains another module, or an ``nn.Sequential`` a layer without ``SpikesOnly``; the
            message has its place and class.
        ValueError: modules that do not fit one another or the file, with the place of the first one: another number of
            inputs, a ``Standardise`` that is not the first or stands before integer neurons, a ``Delay`` before
            anything but an ``SRC``, a module after a readout, float and integer neurons in one network, a ``Linear``
            before what cannot take it in, another ``batch_first``, a ``Flatten`` that does not start at dimension 2, a
            convolution whose input has no height and width, a skip connection from other inputs, more than 2^22 neurons
            in maps, a layer without inputs or neurons, weights that are not float32, a readout's window of more than
            2^20 steps or 2^28 spikes; or ``classes`` that are not one name for each class, or equal ones. Or a
            parameter holds NaN or an infinity, or a value that the file may not have; the message names it. Or so many
            layers (about 1,700) that the file's header would exceed 1 MiB.
        ImportError: safetensors, of the extra "train", is not installed.

    Example:
        >>> import tempfile, srcell
        >>> from torch import nn
        >>> from srcell import export
        >>> net = srcell.Sequential(srcell.SRC(10, 20), nn.Dropout(0.2), srcell.LeakyReadout(2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export(net, f"{folder}/net.srcell", classes=["no", "yes"])
        ...     runs = srcell.runtime.load(f"{folder}/net.srcell")
        >>> runs, runs.classes
        (Network(10-20, num_classes=2), ['no', 'yes'])

    """
    from safetensors.torch import save

    parts, computing = checked_parts(network, input_shape)
    for part, _ in computing:
        _check_finite(part)
    layers, linear, owners = exported_layers(computing)
    if not layers:
        raise ValueError(f"{Part('network', network)}: expected at least one layer of neurons, got none")
    tensors = {f"layers.{k}.{name}": tensor for k, layer in enumerate(layers) for name, tensor in layer.items()}
    versions = [TABLE[name].version for layer in layers for name in layer if name in TABLE]
    texts = {"format": FORMAT, "readout": "none"}
    if any(".first" in name for name in tensors):
        versions.append(DELAYED_VERSION)
    encoder = getattr(network, "encoder", None)
    # A SoundEncoding, whose arithmetic needs more than its settings.
    if encoder is not None and hasattr(encoder, "exported"):
        check_sound(encoder, next(part for part in parts if not isinstance(part.module, nn.Flatten)))
        tensors |= encoder.exported()
    if isinstance(computing[0][0].module, Standardise):
        tensors |= described_inputs(computing[0][0].module)
        versions.append(STANDARDISED_VERSION)
    if any(name.endswith((".convolution", ".constant")) or name.startswith("sound.") for name in tensors):
        versions.append(MAP_VERSION)
    last, _ = computing[-1]
    if isinstance(last.module, LinearReadout) and last.module.skip is not None:
        check_skip(last, computing[0][0])
        versions.append(SKIP_VERSION)
    texts["version"] = str(max(versions, default=1))
    for k, owner in enumerate(owners):
        if rule := learning_rule(owner.module):
            texts[f"layers.{k}.learning"] = json.dumps(rule)
    if linear is not None or isinstance(last.module, READOUTS):
        check_window(last)
        of_readout, texts["readout"] = describe_readout(last, linear)
        tensors |= of_readout
        if getattr(last.module, "every_step", True):  # an nn.Linear acts at every step
            texts["every_step"] = "true"
    if names := checked_names(network, classes, 0 if texts["readout"] == "none" else _outputs_of(last.module)):
        texts["classes"] = json.dumps(names, ensure_ascii=False)
    if dataclasses.is_dataclass(encoder) and not isinstance(encoder, type):
        texts["encoder"] = json.dumps({"name": type(encoder).__name__, **dataclasses.asdict(encoder)})
    # Parameters may share their memory, which the format does not allow.
    content = _with_sorted_header(save({name: tensor.clone() for name, tensor in tensors.items()}, texts))
    of_layers = {f"layers.{k}.": owner for k, owner in enumerate(owners)}
    _check_readable(content, tensors, of_layers | {"input.": computing[0][0], "readout.": last})
    write_output(Path(path), content)


export.__module__ = "srcell"
export.export = export  # type: ignore[attr-defined]  # srcell.export was a module before srcell 0.3


class Part(NamedTuple):
    """A module of a network, and its place there, such as ``network.2.layer``."""

    place: str
    module: Any

    def __str__(self) -> str:
        """The place and the class, as error messages name the part."""
        return f"{self.place} ({type(self.module).__name__})"


def parts_of(part: Part) -> Iterator[Part]:
    """The layers, delays, maps and readouts that a module consists of, in the order in which it calls them."""
    place, module = part
    if (offered := _offered_parts(part)) is not None:
        for inner in offered:
            yield from parts_of(inner)
    elif _is_one_of(module, (*LAYERS, Delay, Standardise, nn.Linear, *READOUTS)):
        yield part
    elif _is_one_of(module, (nn.Unflatten,)):
        sizes = module.unflattened_size
        if module.dim != 2 or len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"{part}: expected nn.Unflatten(2, (C, H, W)), got {module}")
        yield part
    elif _is_one_of(module, (SpikesOnly,)):
        yield from parts_of(Part(f"{place}.layer", module.layer))
    elif _is_one_of(module, (Sequential, nn.Sequential)):
        for name, child in module.named_modules(remove_duplicate=False):
            if name and "." not in name:
                inner = Part(f"{place}.{name}", child)
                if _is_one_of(child, (*LAYERS, Delay)) and not isinstance(module, Sequential):
                    raise TypeError(
                        f"{inner}: expected SpikesOnly around it, because it returns spikes and state, or "
                        "srcell.Sequential, which takes the spikes"
                    )
                yield from parts_of(inner)
    elif _is_one_of(module, (nn.Flatten,)):
        if module.start_dim != 2:
            raise ValueError(f"{part}: expected start_dim=2, which keeps steps and samples, got {module.start_dim}")
        if module.end_dim != -1:
            raise ValueError(f"{part}: expected end_dim=-1, which leaves no dimension, got {module.end_dim}")
        yield part
    elif not _is_one_of(module, LEFT_OUT):
        raise _refusal_of(part)


def _is_one_of(module: object, kinds: Iterable[type[nn.Module]]) -> bool:
    """Whether a module computes as one of these classes does: it must not have a ``forward`` of its own."""
    found = any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)
    return found and "forward" not in vars(module)


def _offered_parts(part: Part) -> list[Part] | None:
    """The parts that a module's ``export_parts`` names; None if it has no such method."""
    place, module = part
    if not isinstance(part.module, nn.Module) or not hasattr(module, "export_parts"):
        return None
    offered = module.export_parts()
    if not isinstance(offered, Iterable) or isinstance(offered, Tensor):
        raise TypeError(f"{place}.export_parts(): expected a sequence of modules, got {describe(offered)}")
    offered = list(offered)
    names = {id(inner): f"{place}.{name}" for name, inner in module.named_modules() if name}
    parts = [Part(names.get(id(x), f"{place}.export_parts()[{k}]"), x) for k, x in enumerate(offered)]
    for inner in parts:
        if inner.module is module:
            raise ValueError(f"{inner}: expected the modules inside the network's, got the module itself")
    return parts


def _refusal_of(part: Part) -> Exception:
    """The error for a module that cannot be exported."""
    if isinstance(part.module, MIX_STEPS):
        return TypeError(
            f"{part}: expected modules that compute each step on its own, because the network in a file gets the input "
            "of one step at a time: compute it before the network, or use srcell.Delay with taps in front of a layer, "
            "which is a convolution over time"
        )
    return TypeError(
        f"{part}: expected a layer, a readout, nn.Linear, nn.Flatten(2), dropout or a module with export_parts(): "
        "leave it out, or let export_parts() return the layers inside it"
    )


def checked_names(network: nn.Module, classes: Sequence[str] | None, count: int) -> list[str]:
    """The names of so many classes, as given or as the network has them; empty if there are none."""
    name, given = "classes", classes
    if given is None:
        name, given = "network.class_names", getattr(network, "class_names", ())
        if not isinstance(given, Sequence) or not given:
            return []
    try:
        names = as_names(name, given)
        if len(names) != count:
            expected = f"{count} names, one for each class" if count else "none, because the network has no readout"
            raise ValueError(f"{name}: expected {expected}, got {len(names)}: {names!r:.80}")
    except (TypeError, ValueError) as error:
        if classes is not None:
            raise
        warnings.warn(f"{error}: the file has no names of classes, pass others as classes", stacklevel=3)
        return []
    return names


def as_unflatten(input_shape: Sequence[int]) -> nn.Unflatten:
    """The input's shape as the module that gives the runtime's input that shape."""
    if not isinstance(input_shape, Sequence) or len(input_shape) != 3:
        raise ValueError(f"input_shape: expected (C, H, W), got {input_shape!r}")
    return nn.Unflatten(2, tuple(as_int("input_shape", size, MOST_SIZE, minimum=1) for size in input_shape))


Shape: TypeAlias = tuple[int, ...] | None


def checked_parts(network: nn.Module, input_shape: Sequence[int] | None) -> tuple[list[Part], list[tuple[Part, Shape]]]:
    """All parts of a network whose input has that shape, and what ``check_parts`` returns for them."""
    parts = list(parts_of(Part("network", network)))
    if input_shape is not None:
        parts.insert(0, Part("input_shape", as_unflatten(input_shape)))
    return parts, check_parts(parts)


def check_parts(parts: Sequence[Part]) -> list[tuple[Part, Shape]]:
    """Raise unless each part can be followed by the next, and the last one by the end of the network.

    Returns the parts that compute, and the shape of each one's input at one step of one sample, None if unknown.
    """
    for part in parts:
        _check_hooks(part)
    computing = [part for part in parts if not isinstance(part.module, nn.Unflatten | nn.Flatten)]
    for part, following in pairwise(computing):
        if isinstance(following.module, Standardise):
            raise ValueError(
                f"{following}: expected no module before it, because it standardises the network's inputs, got {part}"
            )
        if isinstance(part.module, Standardise) and isinstance(following.module, IntegerSRC):
            raise ValueError(
                f"{part}: expected float neurons after it, because integer neurons take spikes, got {following}"
            )
        if isinstance(part.module, nn.Linear) and not isinstance(following.module, SRC | nn.Linear | LinearReadout):
            raise ValueError(
                f"{part}: expected an SRC, a LinearReadout or nothing after it, whose weights take it in, got "
                f"{following}"
            )
    ordered = [part for part in computing if not isinstance(part.module, nn.Linear)]
    for number, part in enumerate(ordered, start=1):
        _check_kinds(part, ordered[number] if number < len(ordered) else None)
    for part, following in pairwise(ordered):
        by_sample = [getattr(each.module, "batch_first", False) for each in (part, following)]
        if by_sample[0] != by_sample[1]:
            wrong, beside = (part, following) if by_sample[0] else (following, part)
            raise ValueError(f"{wrong}: expected batch_first=False beside {beside}, which takes (T, B, ...), got True")
    before: Part | None = None
    shape: Shape = None
    shapes: list[Shape] = []
    in_maps = taps = 0
    for part in parts:
        if shape is None and isinstance(part.module, SRCConv2d) and part.module.input_size is not None:
            shape = part.module.in_channels, *part.module.input_size
        shapes.append(shape)
        if isinstance(part.module, SRCConv2d) and shape is not None and len(shape) == 3:
            taps += sum(size * kernel for size, kernel in zip(shape[1:], part.module.kernel_size, strict=True))
        shape, before = _shape_after(part, shape, before), part
        in_maps += prod(shape) if shape is not None and isinstance(part.module, SRCConv2d) else 0
        if in_maps > MOST_IN_MAPS or taps > MOST_TAPS:
            raise ValueError(
                f"{part}: expected at most {MOST_IN_MAPS} neurons in maps, and at most {MOST_TAPS} for height x kernel "
                f"height + width x kernel width, in all layers together, got {in_maps} and {taps}"
            )
    return [(part, shapes[k]) for k, part in enumerate(parts) if not isinstance(part.module, nn.Unflatten | nn.Flatten)]


def _check_hooks(part: Part) -> None:
    """Raise if a hook computes the weights anew before each call, from numbers that an export would not see."""
    for hook in getattr(part.module, "_forward_pre_hooks", {}).values():
        if isinstance(hook, RENEWING_HOOKS):
            got = f"a hook that makes them ({type(hook).__name__})"
            raise ValueError(f"{part}: expected weights of its own, got {got}: remove it first")


def _check_kinds(part: Part, following: Part | None) -> None:
    """Raise unless a part can be followed by one of another's kind, or by the end of the network, None."""
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


def _shape_after(part: Part, shape: Shape, before: Part | None) -> Shape:
    """The shape of a part's output at one step of one sample, of an input of that shape; raise if it does not fit."""
    module = part.module
    if isinstance(module, SRCConv2d):
        if shape is None or len(shape) != 3:
            got = "an input of any shape: pass input_shape to export" if shape is None else f"{prod(shape)} inputs"
            raise ValueError(f"{part}: expected nn.Unflatten(2, (C, H, W)) or maps before it, got {got}")
        if shape[0] != module.in_channels:
            raise ValueError(f"{part}: expected {shape[0]} channels, as {before} gives, got {module.in_channels}")
        channels, sizes = module.out_channels, module.geometry(*shape[1:])
        out = sizes[3:5]
        if 0 in out or max(prod(shape), channels * prod(out)) > MOST_IN_MAPS or max(sizes) > MOST_SIZE:
            raise ValueError(
                f"{part}: expected from 1 to {MOST_IN_MAPS} inputs and neurons, and sizes and strides up to "
                f"{MOST_SIZE}, got a map {(channels, *out)} of an input {shape}"
            )
        return channels, *out
    if isinstance(module, nn.Flatten):
        return None if shape is None else (prod(shape),)
    taken = inputs_of(module)
    is_map = shape is not None and len(shape) == 3
    if isinstance(module, Standardise) and is_map and module.mean.dim() == 3 and shape != tuple(module.mean.shape):
        raise ValueError(f"{part}: expected maps {shape}, as {before} gives, got {tuple(module.mean.shape)}")
    if isinstance(module, nn.Unflatten) and is_map and shape != tuple(module.unflattened_size):
        raise ValueError(f"{part}: expected {shape}, as {before} gives, got {tuple(module.unflattened_size)}")
    if shape is not None and prod(shape) != taken:
        raise ValueError(f"{part}: expected {prod(shape)} inputs, as {before} gives, got {taken}")
    if isinstance(module, Standardise):
        return tuple(module.mean.shape) if shape is None else shape
    return tuple(module.unflattened_size) if isinstance(module, nn.Unflatten) else (_outputs_of(module),)


def check_sound(encoder: Any, first: Part) -> None:
    """Raise unless the first part takes the inputs that an encoder of sounds makes."""
    inputs = inputs_of(first.module)
    if encoder.inputs != inputs:
        raise ValueError(f"{first}: expected {encoder.inputs} inputs, as its SoundEncoding gives, got {inputs}")
    if isinstance(first.module, IntegerSRC) and not encoder.threshold:
        raise ValueError(f"{first}: expected a SoundEncoding with a threshold, because it takes no currents, got 0")


def check_window(part: Part) -> None:
    """Raise if a stream could not keep the spikes of a readout's window."""
    window, neurons = getattr(part.module, "window", 0), inputs_of(part.module)
    most = min(MOST_WINDOW, MOST_RECENT // neurons)
    if window > most:
        raise ValueError(f"{part}: expected a window of at most {most} steps for {neurons} neurons, got {window}")


def check_skip(readout: Part, first: Part) -> None:
    """Raise unless a readout's skip connection takes the input of the network that begins with the first part."""
    skip, inputs = readout.module.skip.in_features, inputs_of(first.module)
    if skip != inputs:
        raise ValueError(f"{readout}: expected a skip connection from {inputs} inputs, those of {first}, got {skip}")
    if readout.place.count(".") > 1 or (isinstance(first.module, Standardise) and first.place.count(".") > 1):
        raise ValueError(
            f"{readout}: expected a readout with a skip connection, and Standardise, directly in the network, got one "
            "deeper"
        )


def inputs_of(module: Any) -> int:
    """The number of inputs of a part, at one step of one sample."""
    if isinstance(module, LinearReadout):
        return module.linear.in_features
    if isinstance(module, LeakyReadout):
        return module.num_classes * module.neurons_per_class
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.Unflatten):
        return prod(module.unflattened_size)
    inputs: int = module.inputs if isinstance(module, Delay | Standardise) else module.input_size
    return inputs


def _outputs_of(module: Any) -> int:
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, READOUTS):
        return module.num_classes
    outputs: int = module.inputs * module.taps if isinstance(module, Delay) else module.hidden_size
    return outputs


class _LinearMap(NamedTuple):
    """The map that the ``nn.Linear`` since the last layer are together: weight (M, K) and bias (M,), in float64."""

    part: Part  # the last of them
    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, part: Part, before: _LinearMap | None) -> _LinearMap:
        weight = part.module.weight.detach().double().cpu()
        bias = part.module.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().double().cpu()
        if before is None:
            return cls(part, weight, bias)
        return cls(part, before._product(weight), bias + weight @ before.bias)

    def into(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The product of a weight (N, M) with this map: (N, K), and the constant current (N,); float32."""
        weight = weight.detach().double().cpu()
        return self._product(weight).float(), (weight @ self.bias).float()

    def _product(self, weight: Tensor) -> Tensor:
        rows, columns = len(weight), self.weight.shape[1]
        if rows * columns > MOST_WEIGHTS:
            raise ValueError(
                f"{self.part}: expected at most 2^28 weights in its product with those behind it, got {rows} x "
                f"{columns}"
            )
        return weight @ self.weight


def exported_layers(
    parts: Iterable[tuple[Part, Shape]],
) -> tuple[list[dict[str, Tensor]], _LinearMap | None, list[Part]]:
    """The tensors of each layer, the linear map after the last one, if there is one, and the part of each layer.

    A layer's tensors have those of a ``Delay`` before it, and its weights take in each ``nn.Linear`` before it.
    """
    made: list[dict[str, Tensor]] = []
    owners: list[Part] = []
    delays: dict[str, Tensor] = {}
    linear: _LinearMap | None = None
    for part, shape in parts:
        module = part.module
        if isinstance(module, Delay):
            (delays,) = exported(module)
        elif isinstance(module, nn.Linear):
            _check_numbers(part, module.weight)
            linear = _LinearMap.of(part, linear)
        elif isinstance(module, LAYERS):
            for layer in exported(module):
                _check_numbers(part, layer["weight"])
                if isinstance(module, SRCConv2d) and shape is not None:  # check_parts refuses a convolution without
                    layer["convolution"] = torch.tensor(module.geometry(*shape[1:]), dtype=torch.int32)
                elif linear is not None:
                    layer["weight"], constant = linear.into(layer["weight"])
                    layer |= {"constant": constant} if constant.any() else {}
                made.append(layer | delays)
                owners.append(part)
                delays, linear = {}, None
    return made, linear, owners


def described_inputs(standardise: Standardise) -> dict[str, Tensor]:
    """The tensors by which a file standardises its inputs, (K,) each."""
    numbers = {"mean": standardise.mean, "deviation": standardise.deviation}
    return {f"input.{name}": x.detach().float().cpu().flatten().contiguous() for name, x in numbers.items()}


def _check_finite(part: Part) -> None:
    """Raise if a parameter or buffer of a part holds NaN or an infinity: training may have made some."""
    for name, numbers in (*part.module.named_parameters(), *part.module.named_buffers()):
        if numbers.is_floating_point():
            broken = numbers.detach()[~numbers.isfinite()]
            if broken.numel():
                raise ValueError(f"{part}: expected finite numbers in {name}, got {broken[0].item()}")


def _check_readable(content: bytes, tensors: dict[str, Tensor], owners: dict[str, Part]) -> None:
    """Raise if the runtime would refuse a file, or a product of finite weights is infinite.

    ``owners`` has the part of each tensor, by the beginning of its name.
    """
    found = (name for name, x in tensors.items() if x.dtype == torch.float32 and not x.isfinite().all())
    fault = next((f"{name}: expected finite numbers" for name in found), None)
    try:
        if fault is None:
            Network(content)
    except ValueError as error:
        fault = str(error)
    if fault is not None:
        name = re.match(r"(layers\.\d+|readout|input)\.", fault)
        owner = None if name is None else owners.get(name[0])
        raise ValueError(f"network: {fault}" if owner is None else f"{owner}: {fault}")


def _check_numbers(part: Part, weight: Tensor) -> None:
    shape, dtype = tuple(weight.shape), weight.dtype
    if 0 in shape:
        raise ValueError(f"{part}: expected inputs and neurons in every layer, got {shape}")
    if dtype not in (torch.float32, torch.int16):
        raise ValueError(f"{part}: expected weights of torch.float32, got {dtype}")


def _with_sorted_header(content: bytes) -> bytes:
    """Sort the header of a safetensors file by name: ``save`` writes the metadata in arbitrary order."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned
    if len(header) > MOST_HEADER_BYTES:
        raise ValueError(f"network: expected layers whose header fits in {MOST_HEADER_BYTES} bytes, got {len(header)}")
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def describe_readout(part: Part, linear: _LinearMap | None) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a readout after a linear map, and its kind: "linear" or "votes".

    A linear map alone, at the end of a network, is a readout of each step.
    """
    readout = part.module
    if isinstance(readout, LinearReadout):
        constants = [readout.alpha, readout.window]
        weight, bias = readout.linear.weight.detach(), readout.linear.bias.detach()
        if linear is not None:
            weight, constant = linear.into(weight)
            if constant.any():  # the sum over the steps would depend on their number
                raise ValueError(f"{linear.part}: expected no bias before {part}, in any nn.Linear, got one")
        numbers = {"weight": weight, "bias": bias}
        if readout.skip is not None:
            numbers["skip"] = readout.skip.weight.detach()
        tensors, kind = {name: x.float().cpu().contiguous() for name, x in numbers.items()}, "linear"
    elif linear is not None:
        constants, kind = [0.0, 0.0], "linear"
        tensors = {"weight": linear.weight.float().contiguous(), "bias": linear.bias.float()}
    else:
        constants = [readout.num_classes, readout.alpha, readout.inhibition, readout.temperature]
        tensors, kind = {}, "votes"
    tensors["constants"] = torch.tensor(constants, dtype=torch.float64)
    return {f"readout.{name}": tensor for name, tensor in tensors.items()}, kind
