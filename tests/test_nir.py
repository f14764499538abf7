"""Event batches as NIR's event data and back: exact round trips, the steps that NIR itself finds, refusals."""

from __future__ import annotations

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
from support.imports import output_without
from support.refusals import Refusal, refusals

pytestmark = pytest.mark.landing

nir: Any = pytest.importorskip("nir", minversion="1.0.8", reason='pip install "srcell[test]"')

from srcell.nir import from_nir, to_nir  # noqa: E402  (needs the packages checked above)

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
def test_a_batch_is_read_back_exactly(batch: EventBatch, dt: float) -> None:
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


def test_the_arrays_have_the_documented_layout() -> None:
    batch = EventBatch(VALID["offsets"], VALID["indices"], VALID["values"].double(), shape=VALID["shape"])
    data = to_nir(batch, dt=0.5)
    assert type(data) is nir.ValuedEventData
    assert (data.n_neurons, data.t_max) == (3, 1.0)
    assert data.idx.tolist() == [[2, -1], [0, 1]]
    assert data.time.tolist() == [[0.0, np.inf], [0.0, 0.0]]
    assert data.value.tolist() == [[1.0, 0.0], [2.0, 3.0]]
    assert (data.idx.dtype, data.time.dtype, data.value.dtype) == (np.int64, np.float64, np.float64)
    assert type(to_nir(EventBatch.from_dense(torch.ones(2, 1, 3)), dt=1)) is nir.EventData


def test_samples_of_different_lengths_are_written_one_by_one() -> None:
    batch = EventBatch(**VALID)
    recordings = [
        to_nir(sample.truncate(length), dt=1.0) for sample, length in zip(batch, batch.lengths.tolist(), strict=True)
    ]
    assert [recording.t_max for recording in recordings] == [1.0, 2.0]
    assert_same(EventBatch.cat([from_nir(x, dt=1.0) for x in recordings], steps=2), batch)


def test_float32_times_may_be_unsorted_with_gaps() -> None:
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


BATCH = EventBatch.from_dense(torch.ones(2, 1, 3))


def read(dt: float = 0.1, **arrays: Any) -> EventBatch:
    data = replace(DATA)
    for name, array in arrays.items():
        setattr(data, name, array)  # NIR checks the arrays only when data are constructed
    return from_nir(data, dt=dt)


def test_premise_the_unchanged_data_are_valid() -> None:
    assert read().shape == (4, 2, 3)


@refusals(
    Refusal("data.idx", lambda: read(idx=DATA.idx.astype(float)), TypeError),
    Refusal("data.idx", lambda: read(idx=torch.from_numpy(DATA.idx)), TypeError),
    Refusal("data.idx", lambda: read(idx=DATA.idx[0], time=DATA.time[0], value=DATA.value[0])),
    Refusal("data.idx", lambda: read(idx=DATA.idx + 1)),
    Refusal("data.idx", lambda: read(idx=DATA.idx - 2)),
    Refusal("data.time", lambda: read(time=DATA.time.astype(complex)), TypeError),
    Refusal("data.time", lambda: read(time=DATA.time.astype(object)), TypeError),
    Refusal("data.time", lambda: read(time=DATA.time + 0.03)),
    Refusal("data.time", lambda: read(time=DATA.time - 0.1)),
    Refusal("data.time", lambda: read(time=DATA.time + 0.1)),
    Refusal("data.time", lambda: read(time=np.full((2, 2), np.inf))),
    Refusal("data.time", lambda: read(time=np.full((2, 2), np.nan))),
    Refusal("data.time", lambda: read(time=np.full((2, 2), 1e308))),
    Refusal("data.value", lambda: read(value=DATA.value.astype(int)), TypeError),
    Refusal("data.value", lambda: read(value=DATA.value.astype(np.float16)), TypeError),
    Refusal("data.value", lambda: read(value=DATA.value * np.nan)),
    Refusal("data.n_neurons", lambda: read(n_neurons=3.0), TypeError),
    Refusal("data.n_neurons", lambda: read(n_neurons=-1)),
    Refusal("data.n_neurons", lambda: read(n_neurons=2**31 + 1)),
    Refusal("data.t_max", lambda: read(t_max="0.4"), TypeError),
    Refusal("data.t_max", lambda: read(t_max=0.45)),
    Refusal("data.t_max", lambda: read(t_max=-0.1)),
    Refusal("data.t_max", lambda: read(t_max=np.nan)),
    Refusal("data.t_max", lambda: read(t_max=np.inf)),
    Refusal("data.t_max", lambda: read(t_max=2.0**31)),
    # NIR itself refuses these two when data are constructed
    Refusal("data.time", lambda: read(time=DATA.time[:1])),
    Refusal("data.value", lambda: read(value=DATA.value[:1])),
    *[Refusal("dt", lambda dt=dt: read(dt=dt)) for dt in (0.0, -1.0, np.nan, np.inf)],
    *[Refusal("dt", lambda dt=dt: to_nir(BATCH, dt=dt)) for dt in (0.0, -1.0, np.nan, np.inf, 1e308)],
    Refusal("dt", lambda: to_nir(BATCH, dt="1"), TypeError),  # type: ignore[arg-type]
    Refusal("batch", lambda: to_nir(torch.ones(2, 1, 3), dt=1.0), TypeError),  # type: ignore[arg-type]
    Refusal("batch", lambda: to_nir(EventBatch(**VALID), dt=1.0)),  # samples of several lengths
    Refusal("data", lambda: from_nir(nir.TimeGriddedData(np.ones((1, 2, 3), bool), 1.0), dt=1.0), TypeError),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def test_srcell_without_nir_says_what_is_missing() -> None:
    program = """
        import srcell, srcell.models
        try:
            import srcell.nir
        except ImportError as error:
            print(error)
    """
    assert output_without(["nir"], program) == 'nir is not installed: pip install "srcell[nir]"'
