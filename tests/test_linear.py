"""``src_linear`` on an EventBatch and on dense inputs: sizes and layouts that must work, errors that name the argument,
batches altered after construction, NaN and infinities, half precision and autocast. Its gradients are tested in
test_linear_gradients.py, its bits in test_bits.py.
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

from srcell import SRC, EventBatch, src, src_linear
from srcell.ops._dense import events_are_faster
from support.gradients import assert_same_gradients, gradients, make_output_gradients, requiring_grad
from support.inputs import PARAMETERS, STATE, Inputs, Outputs, call, make_layer, make_linear_inputs, noise, with_values
from support.linear import (
    LENGTHS,
    Function,
    assert_equal_outputs,
    assert_same_outputs,
    densified,
    linear_case,
    on_dense,
    on_events,
    reference_on_dense,
    reference_on_events,
    tensors_of,
)
from support.refusals import assert_refused

STEPS, BATCH, INPUTS, NEURONS = 12, 3, 4, 5


def make_events(**options: Any) -> EventBatch:
    """A batch with an event of every input in every step, with float32 values."""
    return EventBatch.from_dense(torch.full((STEPS, BATCH, INPUTS), 0.5), **options)


def good_input(dense: bool) -> Any:
    return make_events().to_dense() if dense else make_events()


either_input = pytest.mark.parametrize("dense", [False, True], ids=["EventBatch", "dense"])


# Sizes


# T, B, N and K.
EMPTY = [(0, 3, 5, 4), (7, 0, 5, 4), (7, 3, 0, 4), (7, 3, 5, 0), (0, 0, 0, 0), (7, 3, 0, 0)]


@pytest.mark.parametrize("recurrent_grad", [True, False])
@pytest.mark.parametrize("with_lengths", [True, False], ids=["lengths", "whole"])
@pytest.mark.parametrize("method", [None, "gemm", "events", "auto"])
@pytest.mark.parametrize("sizes", EMPTY)
def test_empty_inputs_work(
    method: str | None, sizes: tuple[int, int, int, int], with_lengths: bool, recurrent_grad: bool
) -> None:
    steps, batch, neurons, width = sizes
    events, inputs = make_linear_inputs(6, steps, batch, neurons, inputs=width)
    function = on_events(events) if method is None else on_dense(method)
    inputs = inputs if method is None else densified(events, inputs)
    lengths = torch.full((batch,), steps // 2) if with_lengths else None
    options = {"lengths": lengths, "recurrent_grad": recurrent_grad}
    outputs = call(function, inputs, **options)
    assert outputs[0].shape == (steps, batch, neurons)
    assert all(x.shape == (batch, neurons) for x in outputs[1])
    arriving: list[Tensor | None] = [*make_output_gradients(6, outputs)]
    made = gradients(function, inputs, arriving, **options)
    if steps:
        reference = reference_on_events(events) if method is None else reference_on_dense
        expected = gradients(reference, inputs, arriving, **options)
    else:
        expected = {name: torch.zeros_like(x) for name, x in inputs.items()}
        expected |= zip(STATE, arriving[1:], strict=True)
    assert_same_gradients(made, expected)
    assert {name: x.shape for name, x in made.items()} == {name: x.shape for name, x in inputs.items()}


def test_samples_without_events_are_driven_by_nothing() -> None:
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
    events, inputs = linear_case(10)
    inputs["values"] = torch.ones_like(inputs["values"])
    expected = call(on_events(events), inputs)
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    expected_gradients = gradients(on_events(events), inputs, arriving)
    del inputs["values"]

    def function(*layer: Any, **options: Any) -> Outputs:
        return src_linear(with_values(events, None), *layer, **options)

    assert_equal_outputs(call(function, inputs), expected)
    made = gradients(function, inputs, arriving)
    assert all(torch.equal(made[name], expected_gradients[name]) for name in made)


@pytest.mark.parametrize("method", ["events", "gemm", "auto"])
def test_the_methods_of_an_event_batch_agree(method: str) -> None:
    events, inputs = linear_case(10)
    function: Function = lambda values, *layer, **options: src_linear(  # noqa: E731
        with_values(events, values), *layer, method=method, **options
    )
    expected = call(reference_on_events(events), inputs)
    assert_same_outputs(call(function, inputs), expected)
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    assert_same_gradients(
        gradients(function, inputs, arriving), gradients(reference_on_events(events), inputs, arriving)
    )


@pytest.mark.parametrize(("of_values", "of_weight"), [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_values_are_computed_in_the_dtype_of_the_weight(of_values: torch.dtype, of_weight: torch.dtype) -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=of_weight)
    expected = call(on_events(events), inputs)
    assert expected[0].count_nonzero() > 0
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    mixed = {**inputs, "values": inputs["values"].to(of_values)}
    inputs["values"] = mixed["values"].to(of_weight)
    expected = call(on_events(events), inputs)
    assert_equal_outputs(call(on_events(events), mixed), expected)
    made, reference = gradients(on_events(events), mixed, arriving), gradients(on_events(events), inputs, arriving)
    assert made["values"].dtype == of_values
    assert torch.equal(made["values"], reference["values"].to(of_values))
    assert torch.equal(made["weight"], reference["weight"])


def test_any_memory_layout_gives_the_same_bits() -> None:
    inputs = densified(*linear_case(10))
    odd = {name: torch.stack([x, torch.full_like(x, torch.nan)], -1)[..., 0] for name, x in inputs.items()}
    odd["input"] = inputs["input"].transpose(0, 2).contiguous().transpose(0, 2)
    odd["weight"] = inputs["weight"].t().contiguous().t()
    expected = call(on_dense("events"), inputs)
    arriving: list[Tensor | None] = [*make_output_gradients(10, expected)]
    assert expected[0].count_nonzero() > 0
    assert_equal_outputs(call(on_dense("events"), odd), expected)
    events = EventBatch.from_dense(inputs["input"])
    of_weight = [
        gradients(function, given, arriving)["weight"]
        for function, given in (
            (on_dense("events"), inputs),
            (on_dense("events"), odd),
            (on_events(events), {"values": events.values, **{k: x for k, x in odd.items() if k != "input"}}),
        )
    ]
    assert torch.equal(of_weight[0], of_weight[1]) and torch.equal(of_weight[0], of_weight[2])


@pytest.mark.parametrize("method", [None, "events", "gemm"])
def test_no_output_aliases_an_input_or_another_output(method: str | None) -> None:
    events, inputs = linear_case(10)
    function = on_events(events) if method is None else on_dense(method)
    inputs = requiring_grad(inputs if method is None else densified(events, inputs))
    outputs = tensors_of(call(function, inputs))
    made = torch.autograd.grad(outputs, [*inputs.values()], [torch.ones_like(x) for x in outputs])
    addresses = [x.untyped_storage().data_ptr() for x in (*inputs.values(), *outputs, *made)]
    assert len(set(addresses)) == len(addresses)


# Bad input


@either_input
@pytest.mark.parametrize("method", ["event", "", "mm", None, 1])
def test_an_unknown_method_is_refused(method: Any, dense: bool) -> None:
    assert_refused(ValueError, "method", src_linear, good_input(dense), torch.ones(5, 4), -6.0, method=method)


@either_input
@pytest.mark.parametrize("method", ["auto", "events"])
@pytest.mark.parametrize(
    ("error", "argument", "weight"),
    [
        (TypeError, "weight", None),
        (TypeError, "weight", [[1.0] * 4]),
        (ValueError, "weight", torch.ones(4)),
        (ValueError, "weight", torch.ones(1, 5, 4)),
        (ValueError, "input", torch.ones(4, 5)),
        (ValueError, "input", torch.ones(5, 0)),
        (ValueError, "input", torch.ones(5, 4, device="meta")),
    ],
)
def test_a_bad_weight_is_refused(error: type[Exception], argument: str, weight: Any, method: str, dense: bool) -> None:
    assert_refused(error, argument, src_linear, good_input(dense), weight, -6.0, method=method)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64])
def test_a_weight_that_is_not_of_floats_is_refused(dtype: torch.dtype) -> None:
    weight = torch.ones(NEURONS, INPUTS, dtype=dtype)
    for input in (make_events(), make_events().to_dense().to(dtype)):
        assert_refused(TypeError, "weight", src_linear, input, weight, -6.0, method="events")


@pytest.mark.parametrize("method", ["auto", "events", "gemm"])
@pytest.mark.parametrize(
    ("error", "input"),
    [
        (TypeError, None),
        (TypeError, [[[1.0] * 4]]),
        (TypeError, torch.ones(STEPS, BATCH, 4, dtype=torch.float64)),
        (TypeError, torch.ones(STEPS, BATCH, 4, dtype=torch.complex64)),
        (TypeError, torch.ones(STEPS, BATCH, 4, dtype=torch.float16)),
        (ValueError, torch.ones(STEPS, BATCH, 3)),
        (ValueError, torch.ones(BATCH, 4)),
        (ValueError, torch.ones(STEPS, BATCH, 1, 4)),
        (ValueError, torch.ones(STEPS, BATCH, 4, device="meta")),
        (ValueError, EventBatch.from_dense(torch.ones(STEPS, BATCH, 3))),
    ],
)
def test_a_bad_input_is_refused(error: type[Exception], input: Any, method: str) -> None:
    assert_refused(error, "input", src_linear, input, torch.ones(NEURONS, INPUTS), -6.0, method=method)


def test_events_on_another_device_than_the_weight_are_refused() -> None:
    for method in ("auto", "events"):
        assert_refused(ValueError, "input", src_linear, make_events().to("meta"), torch.ones(5, 4), -6.0, method=method)


@either_input
@pytest.mark.parametrize("name", ["bias", *PARAMETERS])
@pytest.mark.parametrize(
    ("error", "value"),
    [
        (TypeError, "0.5"),
        (TypeError, None),
        (TypeError, torch.full((NEURONS,), 0.5, dtype=torch.float64)),
        (ValueError, torch.full((NEURONS,), 0.5, device="meta")),
        (ValueError, torch.full((NEURONS + 1,), 0.5)),
        (ValueError, float("nan")),
        (ValueError, torch.tensor(float("inf"))),
    ],
)
def test_a_bad_parameter_is_refused(error: type[Exception], value: Any, name: str, dense: bool) -> None:
    arguments = {"bias": -6.0, name: value}
    assert_refused(
        error, name, src_linear, good_input(dense), torch.ones(NEURONS, INPUTS), method="events", **arguments
    )


@either_input
@pytest.mark.parametrize(
    ("error", "lengths"),
    [
        (ValueError, [STEPS + 1, 0, 0]),
        (ValueError, [STEPS, -1, 0]),
        (ValueError, [STEPS, STEPS]),
        (ValueError, torch.zeros(BATCH, dtype=torch.int64, device="meta")),
        (TypeError, [1.0, 2.0, 3.0]),
    ],
)
def test_bad_lengths_are_refused(error: type[Exception], lengths: Any, dense: bool) -> None:
    assert_refused(
        error, "lengths", src_linear, good_input(dense), torch.ones(5, 4), -6.0, method="events", lengths=lengths
    )


@either_input
@pytest.mark.parametrize(
    ("error", "x"),
    [
        (ValueError, torch.zeros(BATCH, NEURONS + 1)),
        (ValueError, torch.zeros(1, NEURONS)),
        (TypeError, torch.zeros(BATCH, NEURONS, dtype=torch.float64)),
    ],
)
def test_a_bad_state_is_refused(error: type[Exception], x: Tensor, dense: bool) -> None:
    state = (torch.zeros(BATCH, NEURONS), x, torch.zeros(BATCH, NEURONS))
    assert_refused(error, "state", src_linear, good_input(dense), torch.ones(5, 4), -6.0, state, method="events")


@pytest.mark.parametrize("method", ["auto", "events", "gemm"])
def test_lengths_are_the_batchs_or_the_calls_not_both(method: str) -> None:
    lengths = torch.tensor([12, 0, 5])
    events = make_events(lengths=lengths)
    weight = torch.ones(NEURONS, INPUTS)
    for given in (lengths, [12, 12, 12]):
        assert_refused(ValueError, "lengths", src_linear, events, weight, -4.0, method=method, lengths=given)
    made = src_linear(events, weight, -4.0, method=method)
    expected = src_linear(make_events(), weight, -4.0, method=method, lengths=lengths)
    assert expected[0][:, 0].count_nonzero() > 0
    assert expected[0][:, 1].count_nonzero() == expected[0][5:, 2].count_nonzero() == 0
    assert_equal_outputs(made, expected)


ALTERATIONS: dict[str, tuple[str, Callable[[EventBatch], None]]] = {
    "index beyond K": ("indices", lambda batch: batch.indices.data.__setitem__(77, INPUTS)),
    "huge index": ("indices", lambda batch: batch.indices.data.__setitem__(-1, 2**31 - 1)),
    "negative index": ("indices", lambda batch: batch.indices.data.__setitem__(0, -1)),
    "descending offsets": ("offsets", lambda batch: batch.offsets.data.__setitem__(14, 0)),
    "offsets beyond the events": ("offsets", lambda batch: batch.offsets.data.__setitem__(-1, 10**15)),
    "one offset beyond the next sample's": ("offsets", lambda batch: batch.offsets.data.__setitem__(20, 2**62)),
    "negative offset": ("offsets", lambda batch: batch.offsets.data.__setitem__(0, -(2**62))),
}


def assert_alteration_is_refused(argument: str, function: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}: expected .*, got .*altered after it was made"):
        function()


@pytest.mark.parametrize("neurons", [1, 130])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_batch_altered_after_it_was_made_is_refused(alteration: str, neurons: int) -> None:
    events, weight = make_events(), torch.ones(neurons, INPUTS)
    src_linear(events, weight, -6.0)
    argument, alter = ALTERATIONS[alteration]
    alter(events)
    assert_alteration_is_refused(argument, lambda: src_linear(events, weight, -6.0))
    src_linear(make_events(), weight, -6.0)


@pytest.mark.parametrize("wanted", ["weight", "values", "bias"])
@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_a_batch_altered_before_the_backward_pass_is_refused(alteration: str, wanted: str) -> None:
    events = make_events()
    assert events.values is not None
    leaves = {"weight": torch.ones(130, INPUTS), "values": events.values, "bias": torch.full((130,), -6.0)}
    leaf = leaves[wanted].requires_grad_()
    spikes, _ = src_linear(events, leaves["weight"], leaves["bias"])
    argument, alter = ALTERATIONS[alteration]
    alter(events)
    assert_alteration_is_refused(argument, lambda: torch.autograd.grad(spikes.sum(), leaf))


def test_autograd_sees_an_alteration_in_torchs_own_way() -> None:
    events, weight = make_events(), torch.ones(NEURONS, INPUTS, requires_grad=True)
    spikes, _ = src_linear(events, weight, -6.0)
    events.indices[3] = 2
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()


# NaN and infinities


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("way", ["EventBatch", "dense"])
def test_what_is_no_number_in_a_value_spreads_to_that_samples_later_outputs_alone(way: str, value: float) -> None:
    events, inputs = make_linear_inputs(7, 40, 3, 20, inputs=6, dtype=torch.float32)
    events = EventBatch.from_dense(events.to_dense())
    layer = {name: x for name, x in inputs.items() if name != "values"}
    step = 20
    row = 1 * 40 + step
    assert events.values is not None and events.offsets[row] < events.offsets[row + 1]
    event = int(events.offsets[row])

    def run(values: Tensor, dense: Tensor) -> tuple[Outputs, Inputs]:
        batch = EventBatch(events.offsets, events.indices, events.values.clone(), shape=events.shape)  # type: ignore[union-attr]
        batch.values.copy_(values)  # type: ignore[union-attr]
        if way == "dense":
            given, function = {"input": dense, **layer}, on_dense("events")
        else:
            given = layer
            function = lambda *args, **options: src_linear(batch, *args, **options)  # noqa: E731
        outputs = call(function, given)
        return outputs, gradients(function, given, [*make_output_gradients(7, outputs)])

    dense = events.to_dense()
    clean, clean_gradients = run(events.values, dense)
    dirty_values, dirty_dense = events.values.clone(), dense.clone()
    dirty_values[event] = value
    dirty_dense[step, 1, events.indices[event]] = value
    made, made_gradients = run(dirty_values, dirty_dense)
    if value != value:
        assert made[0][step:, 1].isnan().all() and all(x[1].isnan().all() for x in made[1])
    others = torch.tensor([0, 2])
    assert clean[0].count_nonzero() > 0
    assert torch.equal(made[0][:step, 1], clean[0][:step, 1])
    assert torch.equal(made[0][:, others], clean[0][:, others])
    assert all(torch.equal(x[others], y[others]) for x, y in zip(made[1], clean[1], strict=True))
    for name in STATE:
        assert torch.equal(made_gradients[name][others], clean_gradients[name][others]), name
    if way == "dense":
        assert torch.equal(made_gradients["input"][:, others], clean_gradients["input"][:, others])


def test_what_lies_past_a_samples_end_changes_nothing() -> None:
    inputs = densified(*linear_case(10))
    options = {"lengths": LENGTHS[10], "recurrent_grad": True}
    clean = call(on_dense("events"), inputs, **options)
    arriving: list[Tensor | None] = [*make_output_gradients(10, clean)]
    clean_gradients = gradients(on_dense("events"), inputs, arriving, **options)
    assert clean[0].count_nonzero() > 0
    dirty = inputs["input"].clone()
    dirty[:, 1], dirty[13:, 2] = torch.nan, torch.inf
    inputs["input"] = dirty
    assert_equal_outputs(call(on_dense("events"), inputs, **options), clean)
    made = gradients(on_dense("events"), inputs, arriving, **options)
    for name, x in clean_gradients.items():
        assert torch.equal(made[name], x), name


@pytest.mark.parametrize("fires", [0.0, 0.01, 0.9])
def test_auto_goes_the_way_that_the_cost_model_expects_to_be_faster(fires: float) -> None:
    sizes = (10, 4, 300, 100)
    input = (noise(12, *sizes[:3], dtype=torch.float32) > 1 - 2 * fires).float()
    density = input.count_nonzero().item() / input.numel()
    layer = make_layer({"bias": torch.tensor(-6.0)}, ("relu", False))
    weight = noise(13, sizes[3], sizes[2], dtype=torch.float32)
    *_, path = torch.ops.srcell.src_dense(
        *(input, weight, *layer.forward),
        **layer.options,
        method="auto",
        save=True,
        trace_integrator=False,
        input_grad_at_events=False,
    )
    assert path[0] == events_are_faster(sizes[2], density) == (fires < 0.5)


# Half precision, autocast, modules


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@either_input
def test_half_precision_is_computed_in_float32(dense: bool, dtype: torch.dtype) -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=torch.float32)
    halves = {name: x.to(dtype) for name, x in inputs.items()}
    events = with_values(events, halves["values"].float())
    if dense:
        function, halves = on_dense("events"), {"input": events.to_dense().to(dtype), **halves}
        del halves["values"]
    else:
        del halves["values"]
        function = lambda *args, **options: src_linear(events, *args, **options)  # noqa: E731
    expected = call(function, {name: x.float() for name, x in halves.items()})
    leaves = {name: x.requires_grad_() for name, x in halves.items()}
    spikes, state = call(function, leaves)
    assert expected[0].count_nonzero() > 0
    assert spikes.dtype == dtype and all(x.dtype == torch.float32 for x in state)
    assert_equal_outputs((spikes, state), (expected[0].to(dtype), expected[1]))
    (spikes.sum() + state.h.sum()).backward()
    assert all(x.grad is not None and x.grad.dtype == dtype for x in leaves.values())


def test_under_autocast_events_are_computed_in_float32() -> None:
    events, inputs = make_linear_inputs(10, 20, 3, 5, inputs=7, dtype=torch.float32)
    expected = call(on_events(events), inputs)
    assert expected[0].count_nonzero() > 0
    with torch.autocast("cpu", torch.bfloat16):
        made = call(on_events(events), inputs)
        of_dense = call(on_dense("events"), densified(events, inputs))
    assert made[0].dtype == of_dense[0].dtype == torch.float32
    assert_equal_outputs(made, expected)
    assert_equal_outputs(of_dense, call(on_dense("events"), densified(events, inputs)))


def test_under_autocast_a_half_weight_still_gives_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        for dense in (False, True):
            spikes, state = src_linear(good_input(dense), torch.ones(5, 4, dtype=torch.bfloat16), -6.0)
            assert spikes.dtype == state.h.dtype == torch.float32


def test_running_a_module_on_events_leaves_nothing_in_it() -> None:
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


# Padding past the end of a sample


@pytest.mark.parametrize("padding", [math.nan, math.inf])
@pytest.mark.parametrize("method", ["events", "gemm", "auto"])
@pytest.mark.parametrize("autocast", [False, True])
def test_an_input_past_the_end_of_a_sample_changes_nothing(padding: float, method: str, autocast: bool) -> None:
    """Not even the weight's gradient, where padding is multiplied by a gradient of 0: 0 times NaN is NaN."""

    def run(padding: float) -> list[Tensor]:
        x, weight = noise(30, 10, 2, 784, dtype=torch.float32), 0.1 * noise(31, 5, 784, dtype=torch.float32)
        x[6:, 1] = padding
        x.requires_grad_(), weight.requires_grad_()
        with torch.autocast("cpu", enabled=autocast):
            spikes, state = src_linear(x, weight, -6.0, lengths=[10, 6], method=method)
        (spikes.sum() + state.i.sum()).backward()
        return [spikes, *state, x.grad, weight.grad]

    expected = run(0.0)
    assert expected[-1].count_nonzero() > 0
    assert all(map(torch.equal, run(padding), expected))


def test_the_way_that_auto_takes_does_not_depend_on_what_stands_past_the_ends() -> None:
    """Of a density of 3 % with dense padding: that of events, not the product, in which 0 meets an infinite weight."""
    x = (noise(32, 40, 4, 200, dtype=torch.float32) > 0.94).float()
    weight, lengths = noise(33, 16, 200, dtype=torch.float32), [40, 4, 4, 4]
    x[4:, 1:] = 1
    x[..., 0], weight[:, 0] = 0, math.inf
    by_events = src_linear(x, weight, -6.0, lengths=lengths, method="events")
    assert by_events[1].i.count_nonzero() > 0 and by_events[1].i.isfinite().all()
    assert torch.equal(src_linear(x, weight, -6.0, lengths=lengths)[1].i, by_events[1].i)
    assert src_linear(x, weight, -6.0, lengths=lengths, method="gemm")[1].i.isnan().all()


def test_forward_mode_is_refused_with_every_input() -> None:
    events = EventBatch.from_dense((noise(2, 4, 2, 6, dtype=torch.float32) > 0).float())
    with forward_ad.dual_level():
        weight = forward_ad.make_dual(torch.zeros(3, 6), torch.ones(3, 6))
        for given in (events, events.to_dense()):
            with pytest.raises(RuntimeError, match="forward-mode differentiation"):
                src_linear(given, weight, -6.0)
