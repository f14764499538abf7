"""What the fuzz campaign found, each named for what it was, and what no file may do: have its content executed, or make
srcell write or delete outside the folder that it was given.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import Tensor

import srcell
from conftest import assert_refused, make_layer, noise
from fuzz.file_targets import trained
from srcell import (
    SRC,
    EventBatch,
    LeakyReadout,
    SRCCell,
    SRCConv2d,
    data,
    latency_encode,
    leaky_readout,
    rate_encode,
    rest_state,
    src,
    src_linear,
)
from srcell._files import remove_partial_files, write_atomically
from srcell.checkpoint import read_checkpoint, write_checkpoint
from srcell.cli import main
from srcell.config import TrainingConfig
from srcell.functional import count_spikes
from srcell.ops import _cpu
from srcell.run_folder import LOCK, RunFolder
from srcell.training import EpochMetrics, RunOptions, load_weights, resume, train

X = torch.zeros(3, 2, 4)
BATCH = EventBatch.from_dense(X)


def sparse(*shape: int) -> Tensor:
    return torch.zeros(shape).to_sparse()


# Arguments of the functions


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("current", lambda: src(sparse(3, 2, 4), -6.0)),
        ("bias", lambda: src(X, sparse(4))),
        ("alpha", lambda: src(X, -6.0, alpha=sparse(4))),
        ("state.h", lambda: src(X, -6.0, (X[0], sparse(2, 4), X[0]))),
        ("lengths", lambda: src(X, -6.0, lengths=torch.zeros(2, dtype=torch.int64).to_sparse())),
        ("input", lambda: src_linear(sparse(3, 2, 4), torch.zeros(5, 4), -6.0)),
        ("weight", lambda: src_linear(BATCH, sparse(5, 4), -6.0)),
        ("spikes", lambda: leaky_readout(sparse(3, 2, 4), 2)),
        ("spikes", lambda: count_spikes(sparse(3, 2, 4))),
        ("r", lambda: rest_state(-6.0, r=sparse(4))),
        ("current", lambda: src(torch.nested.nested_tensor([torch.zeros(2, 4)]), -6.0)),
    ],
)
def test_a_tensor_that_is_not_dense_is_refused(argument: str, call: Callable[[], Any]) -> None:
    assert_refused(ValueError, argument, call)


@pytest.mark.parametrize("lengths", ["abc", [None, None], [2**70, 2**70], {}, [[1], [2, 3]], object()])
def test_lengths_that_torch_makes_no_tensor_of_are_refused(lengths: Any) -> None:
    assert_refused(TypeError, "lengths", src, X, -6.0, lengths=lengths)


def test_quantised_lengths_of_no_samples_are_refused() -> None:
    lengths = torch.quantize_per_tensor(torch.zeros(0), 0.1, 0, torch.qint8)
    assert_refused(TypeError, "lengths", src, torch.zeros(3, 0, 4), -6.0, lengths=lengths)


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, -1e39])
def test_a_bias_that_the_dtype_does_not_hold_is_refused(value: float) -> None:
    assert_refused(ValueError, "bias", src, X, value)


def test_numbers_beyond_every_float_are_refused() -> None:
    assert_refused(ValueError, "alpha", src, X, -6.0, alpha=10**400)
    assert_refused(ValueError, "bias", rest_state, 10**400)
    assert_refused(ValueError, "inhibition", leaky_readout, X, 2, inhibition=10**400)
    assert_refused(ValueError, "gain", rate_encode, X[0], seed=1, gain=10**400)


@pytest.mark.parametrize(
    ("error", "argument", "given"),
    [
        (TypeError, "bias", {"bias": None}),
        (TypeError, "bias", {"bias": "x"}),
        (TypeError, "r", {"bias": -6.0, "r": [1.0]}),
        (TypeError, "rs", {"bias": -6.0, "rs": torch.zeros(2, dtype=torch.complex64)}),
        (ValueError, "bias", {"bias": math.nan}),
        (ValueError, "r", {"bias": -6.0, "r": math.inf}),
        (TypeError, "bias", {"bias": True}),
        (ValueError, "r", {"bias": torch.zeros(2), "r": torch.zeros(3)}),
        (ValueError, "rs", {"bias": -6.0, "r": torch.zeros(2), "rs": torch.zeros(3)}),
        (ValueError, "r", {"bias": torch.zeros(2), "r": torch.zeros(2, device="meta")}),
    ],
)
def test_rest_state_refuses_what_has_no_fixed_point(error: type[Exception], argument: str, given: Any) -> None:
    assert_refused(error, argument, rest_state, **given)


def test_the_rest_of_nan_is_nan() -> None:
    assert rest_state(torch.tensor([-6.0, math.nan])).h.isnan().tolist() == [False, True]
    assert rest_state(torch.full((2,), -6.0, device="meta"), r=2.5).h.device.type == "meta"


@pytest.mark.parametrize(
    ("error", "argument", "given"),
    [
        (TypeError, "num_classes", {"num_classes": 2.0}),
        (TypeError, "num_classes", {"num_classes": "2"}),
        (ValueError, "num_classes", {"spikes": torch.zeros(3, 2, 0), "num_classes": 2**63}),
        (TypeError, "alpha", {"alpha": "x"}),
        (TypeError, "inhibition", {"inhibition": None}),
        (ValueError, "inhibition", {"inhibition": math.nan}),
    ],
)
def test_the_readout_names_what_is_wrong(error: type[Exception], argument: str, given: dict[str, Any]) -> None:
    assert_refused(error, argument, leaky_readout, **{"spikes": X, "num_classes": 2} | given)


@pytest.mark.parametrize(
    ("error", "argument", "given"),
    [
        (TypeError, "input_size", {"input_size": "3"}),
        (ValueError, "hidden_size", {"hidden_size": 2**63}),
        (TypeError, "num_layers", {"num_layers": 1.0}),
        (TypeError, "bias", {"bias": np.zeros(3)}),
        (TypeError, "batch_first", {"batch_first": torch.zeros(0)}),
        (TypeError, "dropout", {"dropout": "x"}),
        (TypeError, "alpha", {"alpha": "x"}),
        (TypeError, "r", {"r": torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)}),
        (ValueError, "rs", {"rs": torch.zeros(3).to_sparse()}),
        (TypeError, "learnable", {"learnable": torch.zeros(())}),
        (ValueError, "learnable", {"learnable": [[]]}),
        (ValueError, "surrogate", {"surrogate": np.array(["relu", "x"])}),
        (TypeError, "recurrent_grad", {"recurrent_grad": 1}),
        (ValueError, "initial_state", {"initial_state": np.array(["rest", "x"])}),
        (TypeError, "learn_initial_state", {"learn_initial_state": torch.zeros(0)}),
        (ValueError, "bias_init", {"bias_init": 1e39}),
        (ValueError, "bias_max", {"bias_max": 10**400}),
    ],
)
def test_a_layer_names_what_it_is_not_made_of(error: type[Exception], argument: str, given: dict[str, Any]) -> None:
    assert_refused(error, argument, SRC, **{"input_size": 4, "hidden_size": 3} | given)


def test_a_layer_names_what_it_does_not_run_on() -> None:
    maps, nested = torch.zeros(3, 2, 1, 5, 5), torch.nested.nested_tensor([torch.zeros(2, 4)])
    for x in (X.to_sparse(), nested):
        assert_refused(ValueError, "input", SRC(4, 3), x)
        assert_refused(ValueError, "spikes", LeakyReadout(2), x)
    assert_refused(ValueError, "input", SRCCell(4, 3), X[0].to_sparse())
    assert_refused(ValueError, "input", SRCConv2d(1, 2, 3), maps.to_sparse())
    assert_refused(TypeError, "state", SRC(4, 3), X, (1, 2, 3))
    assert_refused(TypeError, "spikes", LeakyReadout(2), None)
    assert_refused(TypeError, "num_classes", LeakyReadout, 2.0)
    assert_refused(ValueError, "inhibition", LeakyReadout, 2, inhibition=math.nan)
    assert LeakyReadout(2, 2, inhibition=2**64)(X).shape == (2, 2)


def test_nested_tensors_are_named() -> None:
    nested = torch.nested.nested_tensor([torch.zeros(2), torch.zeros(2)])
    assert_refused(ValueError, "images", rate_encode, nested, seed=1)
    assert_refused(ValueError, "offsets", EventBatch, nested, BATCH.indices, shape=BATCH.shape)


@pytest.mark.parametrize("word", [np.array(["relu", "x"]), np.zeros(0), torch.zeros(2)])
def test_an_array_in_the_place_of_a_word_is_refused(word: Any) -> None:
    assert_refused(ValueError, "surrogate", src, X, -6.0, surrogate=word)
    assert_refused(ValueError, "method", src_linear, X, torch.zeros(5, 4), -6.0, method=word)
    assert_refused(TypeError, "recurrent_grad", src, X, -6.0, recurrent_grad=word)
    assert_refused(ValueError, "count", EventBatch.from_events, [0], [0], inputs=1, bin_width=1, count=word)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_works_on_meta(dtype: torch.dtype) -> None:
    spikes, _ = src(torch.zeros(3, 2, 4, dtype=dtype, device="meta"), -6.0)
    assert spikes.dtype == dtype
    weight = torch.zeros(5, 4, dtype=dtype, device="meta")
    spikes, _ = src_linear(torch.zeros(3, 2, 4, dtype=dtype, device="meta"), weight, -6.0, method="events")
    assert spikes.dtype == dtype


def test_sizes_whose_product_cannot_be_counted_are_refused() -> None:
    current = torch.zeros(1).as_strided((0, 1, 2**40, 2**40), (0, 0, 0, 0))
    assert_refused(ValueError, "current", src, current, -6.0)
    assert_refused(ValueError, "spikes", count_spikes, current)
    assert_refused(ValueError, "spikes", leaky_readout, torch.zeros(1).as_strided((0, 2**40, 2**40), (0, 0, 0)), 1)


def test_sizes_that_hold_nothing_are_not_walked_through() -> None:
    """In a process of its own, which can be ended."""
    program = """
import torch, srcell
from srcell.functional import count_spikes
vast = lambda *shape: torch.zeros(1).as_strided(shape, [0] * len(shape))
assert count_spikes(vast(2**44, 1, 0)).events.shape == (0,)
assert not count_spikes(vast(2**44, 0, 3)).events.any()
spikes, _ = srcell.src_linear(vast(0, 2**44, 0), torch.zeros(0, 0, requires_grad=True), -6.0, method="events")
spikes.sum().backward()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: src(X, x)[0],
        lambda x: src(X, -6.0, rho=-x)[0],
        lambda x: rest_state(x).h,
        lambda x: leaky_readout(X + 1, 2, inhibition=x),
        lambda x: leaky_readout(X + 1, 2, alpha=-x / 8),
    ],
)
def test_the_checks_of_numbers_break_no_graph(function: Callable[[float], Tensor]) -> None:
    """From the second value on torch traces with one that it does not know."""
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    for value in (-6.0, -5.5, -5.0):
        assert torch.equal(compiled(value), function(value))


# The operators


def test_the_operators_name_what_is_wrong() -> None:
    ops, layer, weight = torch.ops.srcell, make_layer({"bias": torch.tensor(-6.0)}, ("relu", True)), torch.zeros(5, 4)
    spikes, *state, checkpoints = ops.src(X, *layer.forward, **layer.options, save=True)
    call = (spikes, *state, X, checkpoints, *layer.backward)
    for mask in ([], [True] * 5, [False] * 7):
        assert_refused(ValueError, "output_mask", ops.src_backward, *call, **layer.options, output_mask=mask)
    rows, options = (BATCH.offsets, BATCH.indices, None), {**layer.options, "trace_integrator": False}
    call = (*rows, weight, *layer.forward)
    assert_refused(ValueError, "weight", ops.src_events, *call, **options, steps=-2, batch=-3, save=False)
    *outputs, trace, saved = ops.src_events(*call, **options, steps=3, batch=2, save=True)
    call, options = (*outputs, *rows, weight, trace, saved), {**layer.options, "steps": 3, "batch": 2}
    for mask in ([], [True], [True] * 7, [False] * 9):
        assert_refused(
            *(ValueError, "output_mask", ops.src_events_backward, *call, *layer.synapse_backward),
            **options,
            output_mask=mask,
        )
    options = {**layer.options, "method": "events", "save": True, "trace_integrator": False}
    call, at_events = (X, torch.zeros(()), *layer.forward), {"input_grad_at_events": False}
    assert_refused(ValueError, "weight", ops.src_dense, *call, **options, **at_events)
    *outputs, trace, saved, mask, path = ops.src_dense(X, weight, *layer.forward, **options, **at_events)
    call, options = (*outputs, X, weight, trace, saved, mask), {**layer.options, **at_events}

    def backward(path: Tensor, output_mask: list[bool]) -> Any:
        return ops.src_dense_backward(*call, path, *layer.synapse_backward, **options, output_mask=output_mask)

    for bad in (path[:0], path[0], path.repeat(2)):
        assert_refused(ValueError, "path", backward, bad, [True] * 8)
    assert_refused(TypeError, "path", backward, path.float(), [True] * 8)
    for wanted in ([], [True], [True] * 7, [False] * 9):
        assert_refused(ValueError, "output_mask", backward, path, wanted)


@pytest.mark.parametrize("name", ["src", "src_events", "src_dense"])
@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"cell": 3}, "cell: expected 0 or 6 tensors, got 3"),
        ({"cell": 7}, "cell: expected 0 or 6 tensors, got 7"),
        ({"state": 1}, "state: expected 0 or 3 tensors, got 1"),
        ({"state": 4}, "state: expected 0 or 3 tensors, got 4"),
        ({"constants": 0}, "constants: expected 6 values, got 0"),
        ({"constants": 7}, "constants: expected 6 values, got 7"),
    ],
)
def test_the_operators_name_a_list_of_a_wrong_length(name: str, lists: dict[str, int], message: str) -> None:
    """Forwards, and backwards where there is such a list."""
    ops, bias, weight = torch.ops.srcell, torch.full((4,), -6.0), torch.zeros(4, 4)
    whole = make_layer({"bias": bias}, ("relu", True))
    items = {"cell": bias, "state": X[0], "constants": 1.0}
    layer = whole._replace(**{key: [items[key]] * count for key, count in lists.items()})
    synapse: tuple[Any, ...] = (X,)
    forward: dict[str, Any] = {"save": True}
    both: dict[str, Any] = {}
    if name == "src_events":
        synapse, both = (BATCH.offsets, BATCH.indices, None, weight), {"steps": 3, "batch": 2}
        forward["trace_integrator"] = False
    elif name == "src_dense":
        synapse, both = (X, weight), {"input_grad_at_events": False}
        forward |= {"trace_integrator": False, "method": "events"}
    with pytest.raises(ValueError) as error:
        getattr(ops, name)(*synapse, *layer.forward, **layer.options, **both, **forward)
    assert str(error.value) == message
    if "constants" not in lists:
        return
    outputs = getattr(ops, name)(*synapse, *whole.forward, **whole.options, **both, **forward)
    behind, mask = (layer.backward, [True] * 6) if name == "src" else (layer.synapse_backward, [True] * 8)
    call = (*outputs[:4], *synapse, *outputs[4:], *behind)
    with pytest.raises(ValueError) as error:
        getattr(ops, f"{name}_backward")(*call, **layer.options, **both, output_mask=mask)
    assert str(error.value) == message


PIXELS, NUMBERS = torch.ones(10, 10), torch.arange(10)
ENCODING = dict(steps=5, prefix=2, gain=0.5, seed=1)
PARTS = torch.tensor([0, 1, 2]), torch.tensor([0, 2], dtype=torch.int32)
SIZES = dict(steps=2, batch=1, inputs=3)


@pytest.mark.parametrize(
    ("error", "argument", "call"),
    [
        (TypeError, "spikes", lambda ops: ops.count_spikes(torch.ones(400, 10, 10, dtype=torch.int8))),
        (TypeError, "spikes", lambda ops: ops.count_spikes(torch.ones(400, 10, 10, dtype=torch.float16))),
        (ValueError, "spikes", lambda ops: ops.count_spikes(torch.ones(4, 10))),
        (TypeError, "images", lambda ops: ops.rate_encode(PIXELS.byte(), NUMBERS, **ENCODING)),
        (TypeError, "images", lambda ops: ops.latency_encode(PIXELS.double(), steps=5, prefix=0)),
        (ValueError, "images", lambda ops: ops.latency_encode(PIXELS[0], steps=5, prefix=0)),
        (ValueError, "steps", lambda ops: ops.rate_encode(PIXELS, NUMBERS, **ENCODING | {"steps": -5})),
        (ValueError, "prefix", lambda ops: ops.rate_encode(PIXELS, NUMBERS, **ENCODING | {"prefix": -5})),
        (ValueError, "index", lambda ops: ops.rate_encode(PIXELS, NUMBERS[:1], **ENCODING)),
        (ValueError, "steps", lambda ops: ops.latency_encode(PIXELS, steps=0, prefix=0)),
        (ValueError, "offsets", lambda ops: ops.find_event_fault(*PARTS[:2], None, None, **SIZES | {"steps": 2**40})),
        (ValueError, "steps", lambda ops: ops.find_event_fault(*PARTS[:2], None, None, **SIZES | {"steps": -1})),
        (ValueError, "values", lambda ops: ops.find_event_fault(*PARTS[:2], torch.ones(1), None, **SIZES)),
        (ValueError, "lengths", lambda ops: ops.find_event_fault(*PARTS[:2], None, PARTS[0], **SIZES)),
        (ValueError, "factors", lambda ops: ops.scale(torch.ones(2, 3, 4), torch.ones(5, 2, 3, 4))),
        (TypeError, "factors", lambda ops: ops.scale(torch.ones(2, 3, 4), torch.ones(3, 4, dtype=torch.float64))),
    ],
)
def test_the_operators_that_run_no_layer_name_what_is_wrong(
    error: type[Exception], argument: str, call: Callable[[Any], Any]
) -> None:
    """Many of these once read or wrote where nothing is."""
    assert_refused(error, argument, call, torch.ops.srcell)


def negated(x: Tensor) -> Tensor:
    """The same numbers as a view that torch negates when it reads it."""
    return torch.complex(torch.zeros_like(x), -x).conj().imag


def misaligned(x: Tensor) -> Tensor:
    """The same numbers at odd addresses."""
    return torch.frombuffer(bytearray(b"\0" + x.numpy().tobytes()), dtype=x.dtype, offset=1).view(x.shape)


@pytest.mark.parametrize("laid", [negated, misaligned])
def test_numbers_that_do_not_lie_as_kernels_read_them(laid: Callable[[Tensor], Tensor]) -> None:
    current, weight = 5 * noise(1, 20, 2, 3).float(), noise(2, 4, 3).float()
    assert torch.equal(src(laid(current), laid(torch.full((3,), -4.0)))[0], src(current, -4.0)[0])
    dense = (current > 2).float()
    for method in ("events", "gemm"):
        assert torch.equal(
            src_linear(laid(dense), laid(weight), -4.0, method=method)[0],
            src_linear(dense, weight, -4.0, method=method)[0],
        )
    pixel = torch.tensor([[0.6]])
    assert latency_encode(laid(pixel)) == latency_encode(pixel)
    assert rate_encode(laid(pixel), seed=1) == rate_encode(pixel, seed=1)
    ones = torch.ones(1, 1, 1)
    assert count_spikes(laid(ones)).events.item() == 1


def test_an_output_of_more_bytes_than_there_are_addresses() -> None:
    with pytest.raises(MemoryError):
        _cpu.empty(torch.empty(0), 2**32, 2**30)


# Event batches and encoders


def test_a_batch_is_not_made_of_values_that_there_are_not() -> None:
    meta = torch.zeros(2, device="meta")
    assert_refused(ValueError, "x", EventBatch.from_dense, torch.zeros(3, 2, 4, device="meta"))
    assert_refused(ValueError, "times", EventBatch.from_events, meta, [0, 0], inputs=1, bin_width=1)
    assert_refused(ValueError, "indices", EventBatch.from_events, [0, 0], meta.long(), inputs=1, bin_width=1)
    assert_refused(ValueError, "samples", BATCH.__getitem__, meta.long())
    assert_refused(TypeError, "steps", BATCH.truncate, meta[0].long())
    with pytest.raises(TypeError, match=r"^shape: expected three integers"):
        EventBatch(BATCH.offsets, BATCH.indices, shape=torch.zeros(3, dtype=torch.int64, device="meta"))


@pytest.mark.parametrize(
    ("error", "device"), [(ValueError, "nonsense"), (ValueError, 2**63), (TypeError, np.zeros(3)), (TypeError, [])]
)
def test_a_device_that_is_none_is_named(error: type[Exception], device: Any) -> None:
    assert_refused(error, "device", BATCH.to, device)


def test_spikes_of_no_neurons_are_counted_on_every_device() -> None:
    for device in ("cpu", "meta"):
        counts = count_spikes(torch.zeros(3, 0, 0, device=device))
        assert counts.events.shape == counts.spikes.shape == (0,)


@pytest.mark.parametrize("batches", [5, None, np.array(0.5), torch.zeros(()), torch.zeros(1).expand(2**62)])
def test_what_is_no_sequence_of_batches_is_refused(batches: Any) -> None:
    with pytest.raises(TypeError, match=r"^batches: expected EventBatches, got "):
        EventBatch.cat(batches)


def test_more_samples_than_can_be_counted_are_not_joined() -> None:
    half = EventBatch(torch.zeros(1, dtype=torch.int64), BATCH.indices, shape=(0, 2**62, 4))
    with pytest.raises(ValueError, match=r"^batches: expected T and B below"):
        EventBatch.cat([half, half])


def test_an_unsigned_number_is_not_taken_for_a_negative_one() -> None:
    """2^64 - 1, which is -1 in int64, once chose the last sample."""
    assert_refused(ValueError, "samples", BATCH.__getitem__, np.array([2**64 - 1], np.uint64))
    assert BATCH[np.array([1], np.uint64)] == BATCH[1]


def test_integer_times_in_bins_of_a_float_are_binned_as_float64() -> None:
    """They were divided in float32: times moved to a later bin, and a tiny width became 0."""
    late = EventBatch.from_events([2**25 - 1], [0], inputs=1, bin_width=2.0**20)
    assert late.shape == (32, 1, 1) and late.offsets[-2:].tolist() == [0, 1]
    assert EventBatch.from_events([0, 0], [0, 0], inputs=1, bin_width=1e-320).shape == (1, 1, 1)


def test_quantised_numbers_are_no_integers() -> None:
    samples = torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8)
    assert_refused(TypeError, "samples", BATCH.__getitem__, samples)


def test_images_of_more_samples_than_can_be_counted_are_refused() -> None:
    images = torch.zeros(1).as_strided((2**63 - 1, 0), (0, 0))
    assert_refused(ValueError, "images", latency_encode, images)


# Files of data sets


def write_idx(folder: Path, train: tuple[int, ...], test: tuple[int, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, shape in (("train", train), ("t10k", test)):
        images = struct.pack(">4I", 0x803, *shape) + bytes(math.prod(shape))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, shape[0]) + bytes(shape[0]))


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    """Once found only at the end of the training."""
    write_idx(tmp_path / "mnist", (3, 2, 2), (3, 2, 3))
    with pytest.raises(ValueError, match="expected images of one size, got 2 x 2 and 2 x 3") as error:
        data.load("mnist", tmp_path)
    assert str(error.value).startswith(str(tmp_path))


def write_recordings(folder: Path) -> Path:
    for name in ("Train/3/a.bin", "Train/7/b.bin", "Test/0/c.bin"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(bytes([1, 2, 0, 0, 5, 2, 3, 128, 9, 9]))
    return folder / "Train/3/a.bin"


def test_overflows_of_time_do_not_take_hours(tmp_path: Path) -> None:
    """Each of them once cost a pass over all events."""
    write_recordings(tmp_path).write_bytes(bytes([1, 240, 0, 0, 0]) * 2_000_000)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"a\.bin: corrupt \(2000000 overflows of time\)"):
        data.load("nmnist", tmp_path)
    assert time.monotonic() - start < 30


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": torch.tensor([3, 10])},
        {"labels": torch.tensor([-1, 3])},
        {"labels": torch.tensor([3])},
        {"labels": torch.tensor([3.0, 7.0])},
        {"labels": torch.tensor([[3], [7]])},
        {"shape": "[30, 2, 99]", "indices": torch.zeros(4, dtype=torch.int32)},
        {"shape": "[" * 100_000},
        {"shape": "1" * 5000},
    ],
)
def test_a_cache_of_something_else_is_made_anew(changes: dict[str, Any], tmp_path: Path) -> None:
    write_recordings(tmp_path)
    fresh = data.load("nmnist", tmp_path, cache=True).train
    assert isinstance(fresh, data.LabelledEvents)
    (path,) = tmp_path.glob("train-*.safetensors")
    metadata, tensors = read_safetensors(path)
    metadata |= {name: x for name, x in changes.items() if isinstance(x, str)}
    path.write_bytes(save(tensors | {name: x for name, x in changes.items() if isinstance(x, Tensor)}, metadata))
    again = data.load("nmnist", tmp_path, cache=True).train
    assert isinstance(again, data.LabelledEvents)
    assert again.events == fresh.events and torch.equal(again.labels, fresh.labels)


def read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


# Checkpoints and configurations


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, record: record.update(config=[]),
        lambda tensors, record: record["config"].pop("seed"),
        lambda tensors, record: record.update(history=5),
        lambda tensors, record: record["history"][0].append(1),
        lambda tensors, record: record["history"].extend(record["history"] * 3),
        lambda tensors, record: record.update(batches=-1),
        lambda tensors, record: record.update(batches=10**6),
        lambda tensors, record: record.update(batches=0.5),
        lambda tensors, record: record.update(tally=[None] * 5),
        lambda tensors, record: record.update(tally=[1.0]),
        lambda tensors, record: record.update(tally=[10**400] * 5),
        lambda tensors, record: record["groups"][0].update(lr=10**400),
        lambda tensors, record: record.update(seconds="x"),
        lambda tensors, record: record.update(learning_rate=None),
        lambda tensors, record: record.update(groups=3),
        lambda tensors, record: record["groups"].pop(),
        lambda tensors, record: record["groups"][0].pop("lr"),
        lambda tensors, record: record["groups"][0].update(lr=math.nan),
        lambda tensors, record: record["groups"][0].update(betas=[0.9]),
        lambda tensors, record: record["groups"][0].update(betas=[2.0, 0.9]),
        lambda tensors, record: tensors.pop("optimizer.0.exp_avg"),
        lambda tensors, record: tensors.update({"optimizer.0.exp_avg": torch.zeros(3)}),
        lambda tensors, record: tensors.update({"optimizer.0.step": torch.zeros(3)}),
        lambda tensors, record: tensors.update({"optimizer.0.exp_avg_sq": torch.zeros(1, dtype=torch.int64)}),
        lambda tensors, record: tensors.update({"optimizer.9.step": torch.zeros(())}),
        lambda tensors, record: tensors.update({"optimizer.x": torch.zeros(())}),
        lambda tensors, record: tensors.update({"optimizer.0.a.b": torch.zeros(())}),
        lambda tensors, record: tensors.update({name: x.double() for name, x in tensors.items()}),
    ],
)
def test_a_checkpoint_that_cannot_be_gone_on_from(change: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    """Once a KeyError, a TypeError, a RuntimeError in the first step, or nothing at all."""
    trainer = trained()[0]
    tensors, record = json_twin(*trainer.state())
    weights = {name: x.clone() for name, x in trainer.model.state_dict().items()}
    trainer.load_state(tensors, record)
    change(tensors, record)
    with pytest.raises(ValueError, match=r"^it\.safetensors: "):
        trainer.load_state(tensors, record, source="it.safetensors")
    assert all(torch.equal(x, weights[name]) for name, x in trainer.model.state_dict().items())


def json_twin(tensors: dict[str, Tensor], record: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A state as it comes back from a file."""
    return dict(tensors), json.loads(json.dumps(record))


def test_weights_of_another_dtype_are_refused() -> None:
    model = trained()[0].model
    weights = {name: x.to(torch.int64) for name, x in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"^it: expected torch\.float32 for .*, got torch\.int64"):
        load_weights(model, weights, "it")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "1" * 5000, "[]", "5", '"x"'])
def test_json_that_is_no_record_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(save({"x": torch.zeros(1)}, {"srcell": text}))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: "):
        read_checkpoint(path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.json").write_text(f'{{"training": {text}}}')
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a run"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("surrogate", "../x"),
        ("initial_state", "x"),
        ("batch_size", 10**30),
        ("epochs", 10**400),
        ("steps", 2**31),
        ("hidden_sizes", (2**31,)),
        ("channels", (10**30,)),
        ("temperature", 10**400),
        ("clip_norm", 10**400),
    ],
)
def test_settings_that_end_in_a_traceback_later_are_refused_at_once(name: str, value: Any) -> None:
    words = name.replace("_", "[_ ]")
    with pytest.raises(ValueError, match=words):
        TrainingConfig(**{name: value})
    with pytest.raises(ValueError, match=words):
        TrainingConfig.from_dict(dataclasses.asdict(TrainingConfig()) | {name: value})


# The command line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--device", "x"], "--device: expected one that is there, got 'x'"),
        (["--device", ""], "--device: expected one that is there, got ''"),
        (["--device", "meta"], "--device: expected the CPU or a GPU (cuda), got 'meta'"),
        (["--batch-size", "9" * 30], "--batch-size: expected at most"),
        (["--hidden", "2000000000"], "out of memory: smaller sizes or batches need less"),
    ],
)
def test_an_error_is_a_line(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "digits", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"srcell: {message}")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    for device in ("cuda", "cuda:99"):
        with pytest.raises(ValueError, match=f"^device: expected one that is there, got '{device}'"):
            RunOptions(device=device)
        with pytest.raises(ValueError, match=f"^device: expected one that is there, got '{device}'"):
            BATCH.to(device)


# Nothing of a file is executed


class Payload:
    """A pickle of it makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("pack", [pickle.dumps, gzip.compress], ids=["pickle", "torch"])
def test_a_pickle_is_refused_unread(pack: Callable[[Any], bytes], tmp_path: Path) -> None:
    trap, folder = tmp_path / "trap", tmp_path / "run"
    if pack is pickle.dumps:
        content = pickle.dumps(Payload(trap))
    else:
        torch.save(Payload(trap), tmp_path / "saved")
        content = (tmp_path / "saved").read_bytes()
    RunFolder.create(folder, TrainingConfig())
    for name in ("checkpoint.safetensors", "model.safetensors"):
        (folder / name).write_bytes(content)
    run = RunFolder.open(folder)
    for read in (run.read_checkpoint, run.load_model):
        with pytest.raises(ValueError, match="corrupt or truncated"):
            read()
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="not the configuration of a run"):
        RunFolder.open(folder)
    write_idx(tmp_path / "mnist", (3, 2, 2), (3, 2, 2))
    (tmp_path / "mnist/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match="corrupt or truncated"):
        data.load("mnist", tmp_path)
    write_recordings(tmp_path)
    (tmp_path / "train-1000us-prefix20.safetensors").write_bytes(content)
    data.load("nmnist", tmp_path, cache=True)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Payload(trap)))
    assert trap.exists()  # the trap works


def test_names_of_classes_in_a_configuration_are_unknown_settings(tmp_path: Path) -> None:
    settings = dataclasses.asdict(TrainingConfig())
    for key in ("__class__", "__reduce__", "py/object", "!!python/object"):
        (tmp_path / "config.json").write_text(json.dumps({"training": settings | {key: "os.system"}}))
        with pytest.raises(ValueError, match=re.escape(f"got others: {key}")):
            RunFolder.open(tmp_path)


def test_no_source_has_what_executes_a_file() -> None:
    executes = re.compile(
        r"\b(pickle|marshal|shelve|dill|joblib|yaml)\b|\b(eval|exec|compile|__import__)\(|torch\.load\(|np\.load\("
    )
    folder = Path(srcell.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        for line in path.read_text().splitlines():
            code = line.partition("#")[0]
            found = executes.search(re.sub(r"(torch|re)\.compile\(|\w\.eval\(", "", code))
            assert found is None, f"{path.name}: {line.strip()}"


# Writes stay in their folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingConfig]:
    """A small run and its configuration."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    config = TrainingConfig(hidden_sizes=(), epochs=1, steps=5, train_samples=100)
    train(config, folder)
    return folder, config


def test_a_run_does_not_write_through_links_in_its_folder(
    finished: tuple[Path, TrainingConfig], tmp_path: Path
) -> None:
    """The plots of a run that is resumed once went where links of their names pointed to."""
    folder, _ = finished
    mine = tmp_path / "mine"
    mine.write_text("mine")
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name not in ("config.json", LOCK)]
    assert {"raster.png", "metrics.csv", "result.json", "model.safetensors"} <= set(names)
    for name in names:
        if name != "checkpoint.safetensors":
            (folder / name).unlink()
            (folder / name).symlink_to(mine)
    resume(folder)
    assert mine.read_text() == "mine" and sorted(path.name for path in tmp_path.iterdir()) == ["mine"]
    assert not (folder / "raster.png").is_symlink() and (folder / "raster.png").stat().st_size > 1000
    (folder / LOCK).unlink()
    (folder / LOCK).symlink_to(mine)
    with pytest.raises(OSError, match=LOCK):
        resume(folder)
    assert mine.read_text() == "mine"


def test_tensorboard_does_not_write_through_a_link(tmp_path: Path) -> None:
    pytest.importorskip("torch.utils.tensorboard")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = RunFolder.create(tmp_path / "run", TrainingConfig())
    (folder.path / "tensorboard").symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match="tensorboard is a link"):
        folder.write_scalars([EpochMetrics(1, 0.5, 0.5, 0.5, 0.1, 0.01, 1.0)])
    assert not list(elsewhere.iterdir())


def test_a_half_written_file_is_not_a_way_out(tmp_path: Path) -> None:
    """A link of the name that a file has while it is written was once followed."""
    mine = tmp_path / "mine"
    mine.write_text("mine")
    path = tmp_path / "result.json"
    path.with_name(f"result.json.{os.getpid()}.partial").symlink_to(mine)
    write_atomically(path, b"whole")
    assert mine.read_text() == "mine" and path.read_bytes() == b"whole" and not path.is_symlink()
    assert len(list(tmp_path.iterdir())) == 2


def test_clearing_up_deletes_links_and_no_folders(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    run = tmp_path / "run"
    run.mkdir()
    (run / "a.1.partial").symlink_to(mine)
    (run / "a.2.partial").mkdir()
    (run / "a.3.partial").write_text("")
    remove_partial_files(run, ["a"])
    assert mine.is_dir() and [path.name for path in run.iterdir()] == ["a.2.partial"]


def test_a_value_of_a_sweep_is_not_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The value became a part of a path, and half-written files there were deleted before it was looked at."""
    victim = tmp_path / "x-seed=0"
    RunFolder.create(victim, TrainingConfig())
    (victim / "notes.partial").write_text("mine")
    (tmp_path / "runs" / "surrogate=..").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "digits", "--vary", "surrogate", "../../../x", "--out", "runs"]) == 2
    assert "unknown surrogate '../../../x'" in capsys.readouterr().err
    assert (victim / "notes.partial").read_text() == "mine"


def test_names_in_a_file_are_not_paths(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    tensors = {name: torch.zeros(1) for name in ("../out", str(tmp_path / "out"), "a/b")}
    write_checkpoint(folder / "checkpoint.safetensors", tensors, {"config": {"dataset": "../out"}})
    found, _ = read_checkpoint(folder / "checkpoint.safetensors")
    assert found.keys() == tensors.keys()
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "checkpoint.safetensors"]
    (folder / "config.json").write_text(
        json.dumps({"training": dataclasses.asdict(TrainingConfig()) | {"dataset": "../out"}})
    )
    with pytest.raises(ValueError, match=r"unknown data set '\.\./out'"):
        RunFolder.open(folder)
