"""``src_linear`` on an EventBatch and on dense inputs: how events become currents, errors that name the argument,
batches altered after construction, NaN and infinities, autocast, and the method "auto". Behaviour shared with ``src``
is tested in test_src.py, gradients in test_gradients.py and test_linear_gradients.py, bits in test_bits.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from srcell import SRC, EventBatch, SRCState, src, src_linear
from support.gradients import assert_close, assert_equal, results
from support.inputs import STATE, call, make_layer, make_linear_inputs, noise, with_values
from support.linear import (
    assert_equal_outputs,
    densified,
    linear_case,
    on_dense,
    on_events,
    reference_on_events,
)
from support.refusals import Refusal, assert_refused, refusals

STEPS, BATCH, INPUTS, NEURONS = 12, 3, 4, 5


def make_events(**options: Any) -> EventBatch:
    """A batch with an event of every input in every step, with float32 values."""
    return EventBatch.from_dense(torch.full((STEPS, BATCH, INPUTS), 0.5), **options)


EVENTS, WEIGHT = make_events(), torch.ones(NEURONS, INPUTS)
DENSE = EVENTS.to_dense()


# Events


def test_samples_without_events_have_no_input() -> None:
    events = EventBatch(torch.zeros(3 * 30 + 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int32), shape=(30, 3, 4))
    spikes, state = src_linear(events, torch.ones(5, 4), -4.0)
    expected, expected_state = src(torch.zeros(30, 3, 5), -4.0)
    assert expected.count_nonzero() > 0
    assert_equal_outputs((spikes, state), (expected, expected_state))


def test_events_of_one_input_in_one_step_add_up() -> None:
    offsets, weight = torch.tensor([0] * 20 + [3] * 11), torch.tensor([[2.0, -1.0], [0.5, 3.0]])
    several = EventBatch(offsets, torch.tensor([0, 1, 0], dtype=torch.int32), shape=(30, 1, 2))
    one = EventBatch(
        torch.tensor([0] * 20 + [2] * 11),
        torch.tensor([0, 1], dtype=torch.int32),
        torch.tensor([2.0, 1.0]),
        shape=(30, 1, 2),
    )
    expected = src_linear(one, weight, -6.0)
    assert expected[0].count_nonzero() > 0
    assert_equal_outputs(src_linear(several, weight, -6.0), expected)
    assert_equal_outputs(src_linear(several.to_dense(), weight, -6.0, method="events"), expected)


def test_absent_values_are_ones() -> None:
    events, inputs = linear_case(3)
    expected = results(on_events(events), inputs | {"values": torch.ones_like(inputs["values"])}, 3)
    del inputs["values"], expected["gradient of values"]
    assert_equal(
        results(lambda *args, **layer: src_linear(with_values(events, None), *args, **layer), inputs, 3), expected
    )


@pytest.mark.parametrize("method", ["events", "gemm", "auto"])
def test_the_methods_of_an_event_batch_agree(method: str) -> None:
    events, inputs = linear_case(3)

    def function(values: Tensor, *args: Any, **layer: Any) -> Any:
        return src_linear(with_values(events, values), *args, method=method, **layer)

    assert_close(results(function, inputs, 3), results(reference_on_events(events), inputs, 3))


@pytest.mark.parametrize(("of_values", "of_weight"), [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_values_are_computed_in_the_dtype_of_the_weight(of_values: torch.dtype, of_weight: torch.dtype) -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=of_weight)
    mixed = inputs | {"values": inputs["values"].to(of_values)}
    expected = results(on_events(events), inputs | {"values": mixed["values"].to(of_weight)}, 10)
    expected["gradient of values"] = expected["gradient of values"].to(of_values)
    made = results(on_events(events), mixed, 10)
    assert made["gradient of values"].dtype == of_values
    assert_equal(made, expected)


# Refusals


def linear(input: Any, weight: Any = WEIGHT, **options: Any) -> Callable[[], Any]:
    return lambda: src_linear(input, weight, -6.0, **options)


@refusals(
    *(Refusal("method", linear(DENSE, method=method)) for method in ("event", "", None, 1)),
    Refusal("weight", linear(EVENTS, None), TypeError),
    Refusal("weight", linear(EVENTS, torch.ones(4))),
    Refusal("weight", linear(EVENTS, torch.ones(1, 5, 4))),
    Refusal("weight", linear(EVENTS, WEIGHT.long()), TypeError),
    Refusal("weight", linear(DENSE.to(torch.complex64), WEIGHT.to(torch.complex64)), TypeError),
    Refusal("input", linear(None), TypeError),
    *(
        Refusal("input", linear(input, weight))
        for input in (EVENTS, DENSE)
        for weight in (torch.ones(4, 5), torch.ones(5, 0), WEIGHT.to("meta"))
    ),
    *(
        Refusal("input", linear(input, method=method))
        for input in (DENSE[0], DENSE[:, :, None], DENSE[..., :3], DENSE.to("meta"), EVENTS.to("meta"))
        for method in ("auto", "events", "gemm")
    ),
    *(
        Refusal("input", linear(DENSE.to(dtype), method=method), TypeError)
        for dtype in (torch.float64, torch.complex64, torch.float16)
        for method in ("auto", "events", "gemm")
    ),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize("method", ["auto", "events", "gemm"])
def test_lengths_are_given_by_the_batch_or_by_the_call(method: str) -> None:
    lengths = torch.tensor([12, 0, 5])
    events = make_events(lengths=lengths)
    for given in (lengths, [12, 12, 12]):
        assert_refused(ValueError, "lengths", src_linear, events, WEIGHT, -4.0, method=method, lengths=given)
    expected = src_linear(EVENTS, WEIGHT, -4.0, method=method, lengths=lengths)
    assert expected[0][:, 0].count_nonzero() > 0
    assert expected[0][:, 1].count_nonzero() == expected[0][5:, 2].count_nonzero() == 0
    assert_equal_outputs(src_linear(events, WEIGHT, -4.0, method=method), expected)


# The altered tensor, the position in it, and the new value there.
ALTERATIONS = {
    "index beyond K": ("indices", 77, INPUTS),
    "huge index": ("indices", -1, 2**31 - 1),
    "negative index": ("indices", 0, -1),
    "descending offsets": ("offsets", 14, 0),
    "offsets beyond the events": ("offsets", -1, 10**15),
    "one offset beyond the next sample's": ("offsets", 20, 2**62),
    "negative offset": ("offsets", 0, -(2**62)),
}


def assert_alteration_is_refused(events: EventBatch, alteration: str, function: Callable[[], Any]) -> None:
    name, position, value = ALTERATIONS[alteration]
    getattr(events, name).data[position] = value
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got .*altered after it was made"):
        function()


@pytest.mark.parametrize("neurons", [1, 130])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_batch_altered_after_it_was_made_is_refused(alteration: str, neurons: int) -> None:
    events, weight = make_events(), torch.ones(neurons, INPUTS)
    src_linear(events, weight, -6.0)
    assert_alteration_is_refused(events, alteration, lambda: src_linear(events, weight, -6.0))
    with pytest.raises(ValueError, match=rf"^{ALTERATIONS[alteration][0]}: expected .*, got "):
        src_linear(events, weight, -6.0, method="gemm")
    src_linear(make_events(), weight, -6.0)


@pytest.mark.parametrize("wanted", ["weight", "values", "bias"])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_batch_altered_before_the_backward_pass_is_refused(alteration: str, wanted: str) -> None:
    events = make_events()
    assert events.values is not None
    leaves = {"weight": torch.ones(130, INPUTS), "values": events.values, "bias": torch.full((130,), -6.0)}
    leaf = leaves[wanted].requires_grad_()
    spikes, _ = src_linear(events, leaves["weight"], leaves["bias"])
    assert_alteration_is_refused(events, alteration, lambda: torch.autograd.grad(spikes.sum(), leaf))


def test_autograd_refuses_a_change_in_place_that_torch_counts() -> None:
    events, weight = make_events(), torch.ones(NEURONS, INPUTS, requires_grad=True)
    spikes, _ = src_linear(events, weight, -6.0)
    events.indices[3] = 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


# NaN and infinities


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dense", [False, True], ids=["EventBatch", "dense"])
def test_nan_and_infinity_stay_in_their_sample_from_their_step_on(dense: bool, value: float) -> None:
    events, inputs = make_linear_inputs(7, 40, 3, 20, inputs=6, dtype=torch.float32)
    dirty_events = with_values(events, inputs.pop("values").clone())
    row = 1 * 40 + 20  # sample 1, step 20
    assert events.offsets[row] < events.offsets[row + 1] and dirty_events.values is not None
    dirty_events.values[events.offsets[row]] = value

    def run(batch: EventBatch) -> dict[str, Tensor]:
        if dense:
            return results(on_dense("events"), {"input": batch.to_dense(), **inputs}, 7)
        return results(lambda *args, **layer: src_linear(batch, *args, **layer), inputs, 7)

    clean, made = run(events), run(dirty_events)
    assert clean["spikes"].count_nonzero() > 0
    assert torch.equal(made["spikes"][:20, 1], clean["spikes"][:20, 1])
    if math.isnan(value):
        assert made["spikes"][20:, 1].isnan().all()
        assert all(made[name][1].isnan().all() for name in SRCState._fields)
    over_steps = ["spikes", "gradient of input"] if dense else ["spikes"]
    for name in over_steps:
        assert torch.equal(made[name][:, ::2], clean[name][:, ::2]), name
    for name in (*SRCState._fields, *(f"gradient of {x}" for x in STATE)):
        assert torch.equal(made[name][::2], clean[name][::2]), name


# Method


@pytest.mark.parametrize("fires", [0.0, 0.01, 0.9])
def test_auto_takes_the_method_that_the_cost_model_expects_to_be_faster(fires: float) -> None:
    sizes = (10, 4, 300, 100)
    input = (noise(12, *sizes[:3], dtype=torch.float32) > 1 - 2 * fires).float()
    layer = make_layer({"bias": torch.tensor(-6.0)}, ("relu", False))
    weight = noise(13, sizes[3], sizes[2], dtype=torch.float32)
    *_, ones = torch.ops.srcell.src_dense(
        *(input, weight, *layer.forward),
        **layer.options,
        method="auto",
        save=True,
        trace_integrator=False,
        input_grad_at_events=False,
    )
    assert bool(ones) == (fires < 0.5)


def test_padding_does_not_change_the_method_that_auto_takes() -> None:
    """At a density of 3 % with dense padding "auto" takes events; in the product 0 times an infinite weight is NaN."""
    x = (noise(32, 40, 4, 200, dtype=torch.float32) > 0.94).float()
    weight, lengths = noise(33, 16, 200, dtype=torch.float32), [40, 4, 4, 4]
    x[4:, 1:] = 1
    x[..., 0], weight[:, 0] = 0, math.inf
    by_events = src_linear(x, weight, -6.0, lengths=lengths, method="events")
    assert by_events[1].i.count_nonzero() > 0 and by_events[1].i.isfinite().all()
    assert torch.equal(src_linear(x, weight, -6.0, lengths=lengths)[1].i, by_events[1].i)
    for input in (x, EventBatch.from_dense(x)):
        assert src_linear(input, weight, -6.0, lengths=lengths, method="gemm")[1].i.isnan().all()


# Autocast, modules


def test_under_autocast_events_are_computed_in_float32() -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=torch.float32)
    for function, given in ((on_events(events), inputs), (on_dense("events"), densified(events, inputs))):
        expected = call(function, given)
        assert expected[0].count_nonzero() > 0
        with torch.autocast("cpu", torch.bfloat16):
            made = call(function, given)
        assert made[0].dtype == torch.float32
        assert_equal_outputs(made, expected)


def test_under_autocast_a_half_weight_gives_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for input in (EVENTS, DENSE):
            spikes, state = src_linear(input, WEIGHT.bfloat16(), -6.0)
            assert spikes.dtype == state.h.dtype == torch.float32


def test_running_a_module_on_events_does_not_change_it() -> None:
    torch.manual_seed(0)
    layer = SRC(6, 8, 2, learnable=["alpha"], initial_state="rest")
    before = {name: x.clone() for name, x in layer.state_dict().items()}
    events, _ = make_linear_inputs(11, 30, 3, 8, inputs=6, dtype=torch.float32)
    spikes, state = layer(events)
    (spikes.sum() + state.i.sum()).backward()
    assert {name for name, _ in layer.named_parameters()} == set(before) - {"_extra_state"}
    assert all(torch.equal(x, before[name]) for name, x in layer.state_dict().items())
    twin = copy.deepcopy(layer)
    assert spikes.count_nonzero() > 0
    assert_equal_outputs(twin(events), (spikes, state))
    other = SRC(6, 8, 2, learnable=["alpha"], initial_state="rest")
    other.load_state_dict(before)
    assert_equal_outputs(other(events), (spikes, state))


def test_forward_mode_is_refused_with_every_input() -> None:
    events = EventBatch.from_dense((noise(2, 4, 2, 6, dtype=torch.float32) > 0).float())
    with forward_ad.dual_level():
        weight = forward_ad.make_dual(torch.zeros(3, 6), torch.ones(3, 6))
        for given in (events, events.to_dense()):
            with pytest.raises(RuntimeError, match="forward-mode differentiation"):
                src_linear(given, weight, -6.0)
