"""``translation_table`` and ``export``."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.arguments import check_bool, describe
from .._shared.files import write_output
from ..models import Classifier  # the table names the operators of its layers
from . import _delays, _integers, _neurons

TRANSLATIONS: dict[str, Callable[..., Any]] = {
    "src": _neurons.src,
    "src_dense": _neurons.src_dense,
    "src_events": _neurons.refuse_events,
    "integer_src": _integers.integer_src,
    "delay_dense": _delays.delay_dense,
    "delay_events": _neurons.refuse_events,
    "rest": _neurons.rest,
    "scale": _neurons.scale,
}


def translation_table() -> dict[Any, Callable[..., Any]]:
    """Return the ``custom_translation_table`` of ``torch.onnx.export(..., dynamo=True)`` for models with SRC layers.

    Returns:
        For each operator of ``torch.ops.srcell`` that layers call, the function that builds its ONNX operators.

    Example:
        >>> from srcell.onnx import translation_table
        >>> len(translation_table())
        8

    """
    return {getattr(torch.ops.srcell, name).default: function for name, function in TRANSLATIONS.items()}


def export(model: nn.Module, path: str | Path, input: Tensor | None = None, *, encode: bool = False) -> None:
    """Write a model to an ONNX file, which runs on any number of steps and samples.

    The ONNX model has one input, ``input``: dense, (T, B, ...), of at least one step. Its outputs are those of the
    model in evaluation mode; a classifier's output is called ``logits``.

    Args:
        model: a classifier, or another module that is called with one tensor (T, B, ...).
        path: the file to write; an existing one is replaced, whole or not at all.
        input: an example of the input, of at least two steps and two samples; a classifier needs none.
        encode: whether the ONNX model holds the elements of sequences, as the model's ``encoder`` does, a
            ``srcell.data.HeldEncoding``. Its input is then (S, B, ...), the elements themselves.

    Raises:
        TypeError: the model is not a classifier and there is no example, the example is not a dense tensor, or
            ``encode`` is not a bool.
        ValueError: ``encode`` without a HeldEncoding; or the example has fewer than two steps or samples, or fewer than
            three dimensions.
        RuntimeError: torch is older than 2.6; older exporters accept no translation table.
        torch.onnx.OnnxExporterError: something in the model cannot be exported; the message says what.

    The page "Run a network in onnxruntime" of the documentation has an example.

    """
    if "custom_translation_table" not in inspect.signature(torch.onnx.export).parameters:
        raise RuntimeError(f"torch: expected version 2.6 or newer, got {torch.__version__}")
    example = _example(model) if input is None else input
    if not isinstance(example, Tensor) or example.layout != torch.strided:
        raise TypeError(f"input: expected a dense tensor (T, B, ...), got {describe(example)}")
    if example.dim() < 3 or min(example.shape[:2]) < 2:  # torch treats sizes of 1 as fixed
        raise ValueError(f"input: expected shape (T, B, ...) with T and B of at least 2, got {tuple(example.shape)}")
    check_bool("encode", encode)
    exported = _Held(model) if encode else model
    sizes = {0: torch.export.Dim("steps"), 1: torch.export.Dim("batch")}
    with _in_evaluation(exported), torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            exported,
            (example,),
            dynamo=True,
            input_names=["input"],
            output_names=["logits"] if isinstance(model, Classifier) else None,
            dynamic_shapes=(sizes,),
            custom_translation_table=translation_table(),
            verbose=False,
        )
    write_output(Path(path), program.model_proto.SerializeToString())


class _Held(nn.Module):
    """A model with the HeldEncoding that is its attribute ``encoder``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        encoder: Any = getattr(model, "encoder", None)
        if not hasattr(encoder, "held"):
            got = "None" if encoder is None else type(encoder).__name__
            raise ValueError(f"encode: expected False for a model without a HeldEncoding as its encoder, got {got}")
        self.model, self.encoding = model, encoder

    def forward(self, elements: Tensor) -> Any:
        return self.model(self.encoding.held(elements))


def _example(model: nn.Module) -> Tensor:
    """An input of zeros for a classifier."""
    if not isinstance(model, Classifier):
        raise TypeError(f"input: expected an example (T, B, ...) for a {type(model).__name__}, got None")
    parameter = next(model.parameters())
    return torch.zeros(3, 2, *model.input_shape, dtype=parameter.dtype, device=parameter.device)


@contextmanager
def _in_evaluation(model: nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and restore each module's own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's log messages and warnings about its own exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", (FutureWarning, DeprecationWarning))
            yield
    finally:
        logger.setLevel(level)
