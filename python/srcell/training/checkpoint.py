"""Checkpoints: tensors and a JSON record in one safetensors file, written atomically.

Training and evaluation call this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._shared.arguments import describe
from .._shared.extras import extra
from .._shared.files import write_atomically

with extra("train"):
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save

FORMAT = 1

Checkpoint = tuple[dict[str, Tensor], dict[str, Any]]


def check_storable(state_dict: dict[str, Any]) -> None:
    """Raise unless a checkpoint can hold a network's state_dict.

    Raises:
        TypeError: something in it is no dense tensor of a dtype that safetensors stores.

    """
    for name, tensor in state_dict.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"model: expected a state_dict of tensors, got {describe(tensor)} under {name}")
        try:
            save({"x": tensor.new_empty(0)})
        except (KeyError, ValueError, RuntimeError) as error:
            found = describe(tensor) if tensor.layout == torch.strided else f"a tensor of layout {tensor.layout}"
            raise TypeError(f"model: expected tensors that safetensors stores, got {found} under {name}") from error


def write_checkpoint(path: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write the tensors and the record; if that fails, the previous file is kept.

    Raises:
        OSError: the file could not be written; the message says whether a previous one is kept.

    """
    owned = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    content = save(owned, {"srcell": json.dumps({"format": FORMAT, **record})})
    try:
        write_atomically(path, content)
    except OSError as error:
        kept = "the previous one is kept" if path.exists() else "there is no previous one"
        raise OSError(error.errno, f"{error.strerror}: the checkpoint was not written, {kept}", str(path)) from error


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the tensors (onto the CPU) and the record.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, not a checkpoint of srcell, or written by a newer version.

    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such checkpoint")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            record = json.loads(metadata["srcell"])
            version = record.pop("format")
            newer = version > FORMAT
            tensors = {} if newer else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except KeyError:
        raise ValueError(f"{path}: not a checkpoint of srcell") from None
    except (SafetensorError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: corrupt or truncated ({error})") from error
    if newer:
        raise ValueError(f"{path}: format {version} is from a newer srcell, this one reads up to {FORMAT}: upgrade")
    return tensors, record
