"""Event batches as NIR's event data and back: exact round trips, the steps that NIR itself finds, what is refused."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from srcell import EventBatch
from support.events import VALID, assert_same, random_dense
from support.refusals import assert_refused

pytestmark = pytest.mark.landing

nir: Any = pytest.importorskip("nir", minversion="1.0.8", reason='pip install "srcell[test]"')

from srcell.nir import from_nir, to_nir  # noqa: E402  (needs what is looked for above)

DURATIONS = st.floats(1e-12, 1e9) | st.sampled_from([1.0, 1e-3, 0.1, 1 / 3, 5e-324, 2.3e-308, 1e300])


@st.composite
def batches(draw: st.DrawFn) -> EventBatch:
    """Batches without lengths whose rows have events in any order, and several of one input."""
    steps, samples, inputs = draw(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 6)))
    most = 3 if inputs else 0
    counts = draw(st.lists(st.integers(0, most), min_size=steps * samples, max_size=steps * samples))
    events = sum(counts)
    indices = draw(st.lists(st.integers(0, max(inputs - 1, 0)), min_size=events, max_size=events))
    offsets = torch.tensor([0, *counts]).cumsum(0)
    values = None
    if draw(st.booleans()):
        dtype, width = draw(st.sampled_from([(torch.float32, 32), (torch.float64, 64)]))
        floats = st.floats(width=width, allow_nan=False)
        values = torch.tensor(draw(st.lists(floats, min_size=events, max_size=events)), dtype=dtype)
    return EventBatch(offsets, torch.tensor(indices, dtype=torch.int32), values, shape=(steps, samples, inputs))


@given(batches(), DURATIONS)
def test_a_batch_comes_back_as_it_was(batch: EventBatch, dt: float) -> None:
    assert_same(from_nir(to_nir(batch, dt=dt), dt=dt), batch)


@given(st.integers(1, 4000), DURATIONS)
@settings(deadline=None)
def test_nir_finds_every_event_in_its_step(steps: int, dt: float) -> None:
    batch = EventBatch(torch.arange(steps + 1), torch.zeros(steps, dtype=torch.int32), shape=(steps, 1, 1))
    gridded = to_nir(batch, dt=dt).to_time_gridded(dt)
    assert gridded.data.shape == (1, steps, 1) and gridded.data.all()


def test_nirs_own_conversions_agree() -> None:
    dense = random_dense((7, 3, 5)) != 0
    data = nir.TimeGriddedData(dense.transpose(0, 1).numpy(), dt=0.001).to_event(n_events=40)
    batch = from_nir(data, dt=0.001)
    assert_same(batch, EventBatch.from_dense(dense))
    valued = EventBatch.from_dense(random_dense((7, 3, 5), ones=False))
    gridded = to_nir(valued, dt=0.001).to_time_gridded(0.001)
    assert torch.equal(torch.from_numpy(gridded.data).transpose(0, 1), valued.to_dense(torch.float64))


def test_a_file_gives_the_same_batch(tmp_path: Path) -> None:
    spikes = EventBatch.from_dense(random_dense((9, 2, 4)))
    valued = EventBatch.from_dense(random_dense((9, 2, 4), ones=False))
    observables = {"spikes": to_nir(spikes, dt=0.001), "currents": to_nir(valued, dt=0.001)}
    path = str(tmp_path / "recordings.nir")
    nir.write_data(path, nir.NIRGraphData({"input": nir.NIRNodeData(observables)}))
    read = nir.read_data(path).nodes["input"].observables
    assert_same(from_nir(read["spikes"], dt=0.001), spikes)
    assert_same(from_nir(read["currents"], dt=0.001), valued)


def test_what_the_arrays_hold() -> None:
    batch = EventBatch(VALID["offsets"], VALID["indices"], VALID["values"].double(), shape=VALID["shape"])
    data = to_nir(batch, dt=0.5)
    assert type(data) is nir.ValuedEventData
    assert (data.n_neurons, data.t_max) == (3, 1.0)
    assert data.idx.tolist() == [[2, -1], [0, 1]]
    assert data.time.tolist() == [[0.0, np.inf], [0.0, 0.0]]
    assert data.value.tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert (data.idx.dtype, data.time.dtype, data.value.dtype) == (np.int64, np.float64, np.float64)
    assert type(to_nir(EventBatch.from_dense(torch.ones(2, 1, 3)), dt=1)) is nir.EventData


def test_samples_of_several_lengths_go_one_by_one() -> None:
    batch = EventBatch(**VALID)
    assert_refused(ValueError, "batch", to_nir, batch, dt=1.0)
    recordings = [
        to_nir(sample.truncate(length), dt=1.0) for sample, length in zip(batch, batch.lengths.tolist(), strict=True)
    ]
    assert [recording.t_max for recording in recordings] == [1.0, 2.0]
    assert_same(EventBatch.cat([from_nir(x, dt=1.0) for x in recordings], steps=2), batch)


def test_times_of_float32_in_any_order_with_gaps_are_taken() -> None:
    steps = 100_000
    last = np.float32((steps - 1) * 1e-3)
    idx, time = np.array([[4, -1, 1]], np.int16), np.array([[last, np.nan, 0.002]], np.float32)
    batch = from_nir(nir.EventData(idx, time, np.int64(5), np.float32(steps * 1e-3)), dt=1e-3)
    assert batch.shape == (steps, 1, 5)
    assert batch.indices.tolist() == [1, 4]
    assert batch.offsets.diff().nonzero().flatten().tolist() == [2, steps - 1]


def test_gradients_are_not_recorded() -> None:
    dense = random_dense((3, 2, 4), ones=False).requires_grad_()
    assert to_nir(EventBatch.from_dense(dense), dt=1.0).value.shape[0] == 2


DATA = nir.ValuedEventData(
    idx=np.array([[0, 2], [1, -1]]),
    time=np.array([[0.0, 0.3], [0.1, np.inf]]),
    value=np.array([[1.0, 2.0], [3.0, 0.0]]),
    n_neurons=3,
    t_max=0.4,
)


@pytest.mark.parametrize(
    ("error", "argument", "changed"),
    [
        (TypeError, "data.idx", {"idx": DATA.idx.astype(float)}),
        (TypeError, "data.idx", {"idx": torch.from_numpy(DATA.idx)}),
        (ValueError, "data.idx", {"idx": DATA.idx[0], "time": DATA.time[0], "value": DATA.value[0]}),
        (ValueError, "data.idx", {"idx": DATA.idx + 1}),
        (ValueError, "data.idx", {"idx": DATA.idx - 2}),
        (TypeError, "data.time", {"time": DATA.time.astype(complex)}),
        (TypeError, "data.time", {"time": DATA.time.astype(object)}),
        (ValueError, "data.time", {"time": DATA.time + 0.03}),
        (ValueError, "data.time", {"time": DATA.time - 0.1}),
        (ValueError, "data.time", {"time": DATA.time + 0.1}),
        (ValueError, "data.time", {"time": np.full((2, 2), np.inf)}),
        (ValueError, "data.time", {"time": np.full((2, 2), np.nan)}),
        (ValueError, "data.time", {"time": np.full((2, 2), 1e308)}),
        (TypeError, "data.value", {"value": DATA.value.astype(int)}),
        (TypeError, "data.value", {"value": DATA.value.astype(np.float16)}),
        (ValueError, "data.value", {"value": DATA.value * np.nan}),
        (TypeError, "data.n_neurons", {"n_neurons": 3.0}),
        (ValueError, "data.n_neurons", {"n_neurons": -1}),
        (ValueError, "data.n_neurons", {"n_neurons": 2**31 + 1}),
        (TypeError, "data.t_max", {"t_max": "0.4"}),
        (ValueError, "data.t_max", {"t_max": 0.45}),
        (ValueError, "data.t_max", {"t_max": -0.1}),
        (ValueError, "data.t_max", {"t_max": np.nan}),
        (ValueError, "data.t_max", {"t_max": np.inf}),
        (ValueError, "data.t_max", {"t_max": 2.0**31}),
    ],
)
def test_wrong_data_is_refused(error: type[Exception], argument: str, changed: dict[str, Any]) -> None:
    from_nir(DATA, dt=0.1)
    assert_refused(error, argument, from_nir, replace(DATA, **changed), dt=0.1)


def test_arrays_of_other_shapes_are_refused() -> None:
    data = replace(DATA)
    data.time = data.time[:1]  # NIR itself looks when data are made
    assert_refused(ValueError, "data.time", from_nir, data, dt=0.1)
    data = replace(DATA)
    data.value = data.value[:1]
    assert_refused(ValueError, "data.value", from_nir, data, dt=0.1)


@pytest.mark.parametrize("dt", [0.0, -1.0, np.nan, np.inf])
def test_wrong_durations_are_refused(dt: float) -> None:
    assert_refused(ValueError, "dt", to_nir, EventBatch.from_dense(torch.ones(2, 1, 3)), dt=dt)
    assert_refused(ValueError, "dt", from_nir, DATA, dt=dt)


def test_other_arguments_are_refused() -> None:
    batch = EventBatch.from_dense(torch.ones(2, 1, 3))
    assert_refused(ValueError, "dt", to_nir, batch, dt=1e308)
    assert_refused(TypeError, "dt", to_nir, batch, dt="1")
    assert_refused(TypeError, "batch", to_nir, torch.ones(2, 1, 3), dt=1.0)
    assert_refused(TypeError, "data", from_nir, nir.TimeGriddedData(np.ones((1, 2, 3), bool), 1.0), dt=1.0)


def test_srcell_needs_nir_for_this_alone_and_says_what_is_missing() -> None:
    program = """
import sys
sys.modules["nir"] = None
import srcell, srcell.models
try:
    import srcell.nir
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == 'nir is not installed: pip install "srcell[nir]"\n', done.stderr
