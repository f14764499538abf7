"""``srcell.record`` changes no bits and returns the spikes and states of the calls; and pictures of any tensors."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import SRC, EventBatch, IntegerSRC, SRCCell, SRCConv2d, SRCState, plots
from srcell.models import SRCClassifier
from support.inputs import noise
from support.refusals import Refusal, refusals


def spikes_in(density: float = 0.2) -> Tensor:
    return (noise(8, 60, 3, 20, dtype=torch.float32) > 1 - 2 * density).float()


LAYERS: dict[str, tuple[Any, Any]] = {
    "events": (lambda: SRC(20, 12, num_layers=2, recurrent=True, alpha=srcell.spread(0.5, 0.99)), spikes_in),
    "product": (lambda: SRC(20, 12, initial_state="rest"), lambda: 0.3 * noise(9, 60, 3, 20, dtype=torch.float32)),
    "EventBatch": (lambda: SRC(20, 12), lambda: EventBatch.from_dense(spikes_in())),
    "float64": (lambda: SRC(20, 12, dtype=torch.float64), lambda: spikes_in().double()),
    "from rest, with delays": (
        lambda: SRC(20, 12, recurrent=True, delay_hh=2.5, max_delay=4, initial_state="rest"),
        lambda: (noise(10, 60, 3, 20, dtype=torch.float32) > 0.6).float(),
    ),
    "several windows": (
        lambda: SRC(20, 12, recurrent=True, omega=0.3),
        lambda: (noise(10, 300, 3, 20, dtype=torch.float32) > 0.6).float(),
    ),
    "maps": (lambda: SRCConv2d(2, 4, 3), lambda: spikes_in(0.4)[..., :18].unflatten(2, (2, 3, 3))),
}


@pytest.mark.parametrize("case", LAYERS)
def test_a_recording_has_the_bits_of_the_call(case: str) -> None:
    torch.manual_seed(0)
    make, make_input = LAYERS[case]
    layer, x = make(), make_input()
    expected, final = layer(x)
    with srcell.record(layer) as recording:
        spikes, _ = layer(x)
    assert expected.any() and torch.equal(spikes, expected)
    last = recording[list(recording)[-1]]
    assert torch.equal(last.spikes, expected)
    trace = last.trace()
    assert torch.equal(trace.h.clamp(min=0), expected)
    own = final[: len(trace)]  # without what is on its way through delays
    ends = [state[-1] if isinstance(layer, SRC) else state for state in own]
    assert all(torch.equal(x[-1], end) for x, end in zip(trace, ends, strict=True))
    assert layer.recorder is None and not last.spikes.requires_grad


def test_states_stay_constant_past_a_samples_length() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 12), spikes_in()
    with srcell.record(layer) as recording:
        _, state = layer(x, lengths=[60, 20, 0])
    trace = recording["src"].trace()
    assert torch.equal(trace.h[-1], state.h[0]) and torch.equal(trace.h[19, 1], state.h[0, 1])
    assert torch.equal(trace.i[20:, 1], state.i[0, 1].expand(40, 12)) and not trace.i[:, 2].any()
    assert not recording["src"].spikes[20:, 1].any()


def test_steps_of_a_cell_are_joined() -> None:
    torch.manual_seed(0)
    cell, state = SRCCell(20, 12), None
    outputs = []
    with srcell.record(cell) as recording:
        for now in spikes_in():
            spikes, state = cell(now, state)
            outputs.append(spikes)
    assert state is not None and list(recording) == ["srccell"]
    assert torch.equal(recording["srccell"].spikes, torch.stack(outputs).detach())
    assert torch.equal(recording["srccell"].trace().i[-1], state.i)


def test_layers_have_their_names_in_the_model() -> None:
    torch.manual_seed(0)
    model = SRCClassifier(20, [12], num_classes=2)
    with srcell.record(model) as recording:
        model(EventBatch.from_dense(spikes_in()))
    assert list(recording) == ["layers.0", "layers.1"] and len(recording) == 2
    stack = nn.ModuleDict({"rnn": SRC(20, 12, num_layers=2)})
    with srcell.record(stack) as recording:
        stack["rnn"](spikes_in())
    assert list(recording) == ["rnn.l0", "rnn.l1"]


def test_nothing_is_recorded_outside_the_block_nor_after_an_error() -> None:
    layer = SRC(20, 12)
    with pytest.raises(RuntimeError, match="on purpose"), srcell.record(layer) as recording:
        raise RuntimeError("on purpose")
    layer(spikes_in())
    assert layer.recorder is None and len(recording) == 0


SPIKES, TRACE = torch.zeros(5, 2, 3), SRCState(*(torch.zeros(5, 2, 3) for _ in range(3)))


@refusals(
    Refusal("model", lambda: srcell.record(3).__enter__(), TypeError),  # type: ignore[arg-type]
    Refusal("model", lambda: srcell.record(nn.Linear(2, 3)).__enter__()),
    Refusal("spikes", lambda: plots.spike_raster([1]), TypeError),  # type: ignore[arg-type]
    Refusal("spikes", lambda: plots.activity(torch.zeros(5, 3))),
    Refusal("sample", lambda: plots.spike_raster(SPIKES, 2), IndexError),
    Refusal("trace", lambda: plots.membrane(SPIKES), TypeError),  # type: ignore[arg-type]
    Refusal("neurons", lambda: plots.membrane(TRACE, [])),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def test_nested_recordings_mixed_shapes_and_unknown_layers_are_refused() -> None:
    layer = SRC(20, 12)
    with srcell.record(layer) as recording:
        Refusal("model", lambda: srcell.record(layer).__enter__()).check()
        layer(spikes_in())
        layer(spikes_in()[:, :2])
    with pytest.raises(ValueError, match="recorded calls of one shape"):
        _ = recording["src"].spikes
    with pytest.raises(KeyError, match="expected one of 'src'"):
        _ = recording["rnn"]


def test_copies_of_a_recorded_layer_are_not_recorded() -> None:
    layer, buffer = SRC(20, 12), io.BytesIO()
    with srcell.record(layer) as recording:
        torch.save(layer, buffer)
        copies = [
            copy.deepcopy(layer),
            pickle.loads(pickle.dumps(layer)),
            torch.load(io.BytesIO(buffer.getvalue()), weights_only=False),
        ]
        for made in copies:
            made(spikes_in())
        assert len(recording) == 0
    for made in copies:
        with srcell.record(made) as again:
            made(spikes_in())
        assert again["src"].spikes.shape == (60, 3, 12)


@pytest.mark.parametrize("steps", [0, 4])
def test_a_call_without_steps_adds_no_step_to_a_trace(steps: int) -> None:
    for layer, shape in ((SRC(3, 2), (2, 3)), (IntegerSRC(3, 2), (2, 3)), (SRCConv2d(1, 2, 3), (2, 1, 5, 5))):
        with srcell.record(layer) as recording:
            layer(torch.zeros(0, *shape))
            if steps:
                layer(torch.zeros(steps, *shape))
        (recorded,) = recording.values()
        assert [x.shape for x in recorded.trace()] == [recorded.spikes.shape] * 3
        assert len(recorded.spikes) == steps


def test_pictures_accept_any_tensors() -> None:
    torch.manual_seed(0)
    layer, x = SRC(20, 12), spikes_in()
    with srcell.record(layer) as recording:
        layer(x)
    spikes, trace = recording["src"].spikes, recording["src"].trace()
    marks = plots.spike_raster(spikes, sample=1).axes[0].collections[0].get_offsets()
    assert sorted(map(tuple, marks.tolist())) == sorted(map(tuple, spikes[:, 1].nonzero().tolist()))
    panels = plots.membrane(trace, neurons=[3, 5], sample=2).axes
    slow, fast = panels[1].get_lines()
    assert list(fast.get_ydata()) == trace.h[:, 2, 5].tolist() and list(slow.get_ydata()) == trace.hs[:, 2, 5].tolist()
    assert list(panels[3].get_lines()[0].get_ydata()) == trace.i[:, 2, 5].tolist()
    (line,) = plots.activity(spikes).axes[0].get_lines()
    assert list(line.get_ydata()) == pytest.approx((100 * (spikes > 0).double().mean((0, 1))).sort().values.tolist())
