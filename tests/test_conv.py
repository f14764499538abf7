"""SRCConv2d, src_conv2d and SRCConvClassifier: a convolution, of events or torch's, followed by the recurrence."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcell import EventBatch, SRCConv2d, record, rest_state, src, src_conv2d
from srcell.models import SRCConvClassifier
from srcell.ops._convolution import Convolution, convolve, convolve_backward
from support.gradients import assert_close, results
from support.inputs import MODES, noise, resonant
from support.linear import densified
from support.maps import MAPS, Map, make_map_inputs, on_maps, on_maps_at_events, reference_on_maps
from support.refusals import Message, Refusal, refusals

STEPS, BATCH = 20, 3


def make_maps(seed: int, *shape: int, density: float = 0.3) -> Tensor:
    """Spikes in float64, dense enough to make every layer above fire."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < density).double()


def make_layer(*sizes: Any, **options: Any) -> SRCConv2d:
    torch.manual_seed(0)
    return SRCConv2d(*sizes, dtype=torch.float64, initial_state="rest", **options)


@pytest.mark.parametrize(
    ("sizes", "options", "out"),
    [
        ((2, 4, 3), {}, (4, 5, 7)),
        ((2, 4, (3, 2), 2, 1), {}, (4, 4, 5)),
        ((2, 4, 3), {"padding": "same", "dilation": 2}, (4, 7, 9)),
        ((2, 4, 3), {"padding": "valid", "groups": 2}, (4, 5, 7)),
        ((2, 4, 3), {"stride": (2, 3), "padding": (0, 2), "dilation": (1, 2)}, (4, 3, 3)),
    ],
)
@pytest.mark.parametrize("surrogate", ["straight_through", "relu"])
@pytest.mark.parametrize("full_gradient", [False, True])
def test_a_dense_layer_is_torchs_convolution_followed_by_src(
    sizes: tuple[Any, ...], options: dict[str, Any], out: tuple[int, ...], surrogate: str, full_gradient: bool
) -> None:
    layer = make_layer(*sizes, **options, surrogate=surrogate, full_gradient=full_gradient, method="dense")
    input = make_maps(1, STEPS, BATCH, 2, 7, 9).requires_grad_()
    spikes, state = layer(input)
    assert spikes.shape == (STEPS, BATCH, *out)
    assert all(x.shape == (BATCH, *out) for x in state)
    plain = torch.nn.Conv2d(*sizes, **options, bias=False, dtype=torch.float64)
    plain.weight = layer.weight
    current = plain(input.flatten(0, 1)).unflatten(0, (STEPS, BATCH))
    bias = layer.bias.view(-1, 1, 1)
    initial = tuple(x.view(-1, 1, 1).expand(BATCH, *out) for x in rest_state(layer.bias))
    expected, ended = src(current, bias, initial, surrogate=surrogate, full_gradient=full_gradient)
    assert expected.count_nonzero() > 0
    assert torch.equal(spikes, expected) and all(map(torch.equal, state, ended))
    grad_spikes = torch.randn(spikes.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wanted = (input, layer.weight, layer.bias)
    gradients = torch.autograd.grad(expected, wanted, grad_spikes)
    *made, of_bias = torch.autograd.grad(spikes, wanted, grad_spikes)
    assert all(x.count_nonzero() > 0 for x in gradients) and all(map(torch.equal, made, gradients))
    torch.testing.assert_close(
        of_bias, gradients[-1], rtol=1e-10, atol=1e-12
    )  # torch adds up the places of a channel in another order


@pytest.mark.parametrize("of", MAPS)
@pytest.mark.parametrize("mode", MODES)
def test_events_give_the_gradients_of_the_reference(of: Map, mode: tuple[str, bool]) -> None:
    # Of some seeds the exact gradient amplifies rounding more: the sums over taps and channels have another order.
    for seed, lengths in ((7, None), (15, [0, 20, 17])):
        options = {"surrogate": mode[0], "full_gradient": mode[1], "lengths": lengths}
        events, inputs = make_map_inputs(seed, of, STEPS, BATCH)
        if seed == 15:
            inputs = resonant(inputs, seed)
        expected = results(reference_on_maps(of, events), inputs, seed, **options)
        assert_close(results(on_maps(of, events), inputs, seed, **options), expected)
        inputs = densified(events, inputs)
        expected = results(reference_on_maps(of), inputs, seed, **options)
        assert_close(results(on_maps(of), inputs, seed, **options), expected)
        made = results(on_maps_at_events(of), inputs, seed, **options)
        expected["gradient of input"] = expected["gradient of input"].where(inputs["input"] != 0, 0)
        assert_close(made, expected)


def test_graded_dense_inputs_without_zeros_are_convolved_by_either_method() -> None:
    of = MAPS[0]
    _, inputs = make_map_inputs(4, of, STEPS, BATCH)
    inputs = {"input": noise(9, STEPS, BATCH, of.inputs), **{name: x for name, x in inputs.items() if name != "values"}}
    expected = results(reference_on_maps(of), inputs)
    for method in ("events", "dense", "auto"):
        assert_close(results(on_maps(of, None, method), inputs), expected)  # gradients of this mode amplify little


def test_auto_takes_events_where_few_inputs_are_active() -> None:
    layer, few = SRCConv2d(3, 20, 5), (torch.rand(60, 2, 3, 12, 12) < 0.02).float()
    many = torch.rand(60, 2, 3, 12, 12)

    def outputs(input: Tensor, method: str) -> Tensor:
        layer.method = method
        return layer(input)[1].i

    assert torch.equal(outputs(few, "auto"), outputs(few, "events"))
    assert torch.equal(outputs(many, "auto"), outputs(many, "dense"))
    assert not torch.equal(outputs(many, "events"), outputs(many, "dense"))  # they differ in rounding


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32_and_rounded(dtype: torch.dtype) -> None:
    layer = SRCConv2d(2, 4, 3, input_size=(6, 6), dtype=dtype)
    maps = make_maps(12, 30, 2, 2, 6, 6)
    spikes, state = layer(EventBatch.from_dense(maps.flatten(2).float()))
    wide, _ = layer.float()(EventBatch.from_dense(maps.flatten(2).float()))
    assert spikes.dtype == dtype and state.h.dtype == torch.float32
    assert torch.equal(spikes, wide.to(dtype)) and spikes.count_nonzero() > 0


def test_recorded_states_are_those_of_the_weight_of_the_call() -> None:
    layer, maps = SRCConv2d(2, 4, 3, method="events"), make_maps(14, 20, 2, 2, 6, 6).float()
    with record(layer) as recorded:
        _, state = torch.func.functional_call(layer, {"weight": 2 * layer.weight}, (maps,))
    assert torch.equal(recorded["srcconv2d"].trace().i[-1], state.i)


def test_a_layer_that_was_pickled_before_it_took_events_runs() -> None:
    layer, maps = SRCConv2d(2, 4, 3), make_maps(15, 20, 2, 2, 6, 6).float()
    expected, _ = layer(maps)
    del layer.input_size, layer.method
    assert torch.equal(layer(maps)[0], expected) and "method" not in repr(layer)


def test_recorded_states_are_those_of_either_method() -> None:
    maps = make_maps(13, 20, 2, 2, 6, 6).float()
    given = {"maps": maps, "events": EventBatch.from_dense(maps.flatten(2), lengths=torch.tensor([20, 11]))}
    for method in ("events", "dense"):
        for name, input in given.items():
            layer = SRCConv2d(2, 4, 3, method=method)
            with record(layer) as recorded:
                spikes, state = layer(input)
            run = recorded["srcconv2d"]
            assert torch.equal(run.spikes, spikes), (method, name)
            states = run.trace()
            assert torch.equal(states.h[-1, 0], state.h[0]) and states.h.any(), (method, name)


def test_a_sequence_ends_at_its_length_and_may_continue_in_another_call() -> None:
    layer, input = make_layer(2, 4, 3), make_maps(5, STEPS, BATCH, 2, 6, 6)
    whole, ended = layer(input, lengths=[20, 0, 11])
    first, between = layer(input[:11])
    second, after = layer(input[11:], between)
    assert whole[:, 1].count_nonzero() == 0 and whole[11:, 2].count_nonzero() == 0
    assert whole[:11, 2].count_nonzero() > 0 and whole[11:, 0].count_nonzero() > 0
    assert (whole[:, 0] - torch.cat([first, second])[:, 0]).abs().max() <= 1e-12
    assert (whole[:11, 2] - first[:, 2]).abs().max() <= 1e-12
    for x, x_between, x_after in zip(ended, between, after, strict=True):
        assert (x[0] - x_after[0]).abs().max() <= 1e-12
        assert (x[2] - x_between[2]).abs().max() <= 1e-12


@pytest.mark.parametrize("padding", [math.nan, math.inf])
def test_maps_past_the_length_change_nothing(padding: float) -> None:
    def run(padding: float) -> list[Tensor]:
        layer, maps = make_layer(1, 2, 3), make_maps(8, 20, 2, 1, 6, 6)
        maps[12:, 1] = padding
        maps.requires_grad_()
        spikes, state = layer(maps, lengths=[20, 12])
        (spikes.sum() + state.i.sum()).backward()
        return [spikes, *state, maps.grad, layer.weight.grad]

    expected = run(0.0)
    assert expected[-1].count_nonzero() > 0
    assert all(map(torch.equal, run(padding), expected))


def test_parameters_belong_to_channels() -> None:
    alpha = torch.tensor([0.5, 0.9])
    options: dict[str, Any] = {"learnable": ["alpha", "rho"], "learn_initial_state": True, "full_gradient": True}
    layer = SRCConv2d(1, 2, 3, alpha=alpha, padding=1, **options)
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    assert shapes == {"weight": (2, 1, 3, 3), "rho": ()} | dict.fromkeys(("bias", "alpha", "i0", "h0", "hs0"), (2,))
    input = make_maps(6, 40, BATCH, 1, 5, 5).float()
    spikes, _ = layer(input)
    current = F.conv2d(input.flatten(0, 1), layer.weight, padding=1).unflatten(0, (40, BATCH))
    expected, _ = src(current, layer.bias.view(2, 1, 1), alpha=alpha.view(2, 1, 1))
    assert (spikes - expected).abs().max() < 1e-3 and spikes.count_nonzero() > 0
    spikes.sum().backward()
    assert all(parameter.grad.count_nonzero() > 0 for parameter in layer.parameters())
    with torch.no_grad():
        layer.bias.fill_(0)
        layer.alpha.fill_(2)
    layer.constrain_()
    assert torch.all(layer.bias == -4) and torch.all(layer.alpha == 1)


@pytest.mark.parametrize("shape", [(0, 3, 2, 6, 6), (5, 0, 2, 6, 6)])
def test_empty_inputs_give_empty_outputs(shape: tuple[int, ...]) -> None:
    layer = SRCConv2d(2, 4, 3)
    spikes, state = layer(torch.zeros(shape).requires_grad_())
    assert spikes.shape == (*shape[:2], 4, 4, 4) and state.h.shape == (shape[1], 4, 4, 4)
    spikes.sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.count_nonzero() == 0


def make_classifier(**options: Any) -> SRCConvClassifier:
    torch.manual_seed(0)
    return SRCConvClassifier((2, 9, 7), [4, 6], [12], num_classes=3, neurons_per_class=4, **options)


@pytest.mark.parametrize("surrogate", ["straight_through", "relu"])
def test_the_network_takes_maps_rows_and_events(surrogate: str) -> None:
    model = make_classifier(surrogate=surrogate)
    maps = make_maps(7, 60, 5, 2, 9, 7, density=0.07).float()  # few enough for "auto" to take events
    lengths = torch.tensor([60, 0, 31, 60, 45])
    outputs = model.layer_spikes(maps, lengths)
    shapes = [(4, 5, 4), (6, 3, 2), (12,), (12,)]
    assert [output.shape for output in outputs] == [(60, 5, *shape) for shape in shapes]
    assert [ways.shape for ways in model.fan_outs()] == [(126,), *shapes]
    assert all(output.count_nonzero() > 0 for output in outputs)
    logits = model(maps, lengths)
    assert logits.shape == (5, 3) and torch.equal(logits, model.readout(outputs[-1], lengths=lengths))
    events = EventBatch.from_dense(maps.flatten(2), lengths=lengths)
    assert torch.equal(model(maps.flatten(2), lengths), logits)
    for same in (model(events), model(EventBatch.from_dense(maps.flatten(2)), lengths)):
        # One batch has events past a sample's end, the other does not; the convolution must see zeros in both.
        assert torch.equal(same, logits)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.count_nonzero() > 0, name


def test_the_network_takes_events_in_its_own_dtype() -> None:
    maps = make_maps(8, 40, 3, 2, 9, 7)
    events = EventBatch.from_dense(maps.flatten(2).float())
    assert torch.equal(make_classifier().double()(events), make_classifier().double()(maps))
    half = make_classifier().to(torch.bfloat16)(events)
    assert half.shape == (3, 3) and torch.all(half.isfinite())


def test_the_layer_compiles_as_a_full_graph() -> None:
    torch.manual_seed(0)
    layer, input = SRCConv2d(2, 4, 3), make_maps(10, 30, BATCH, 2, 6, 6).float()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input)[0], layer(input)[0])


def test_strided_inputs_give_the_same_outputs() -> None:
    layer = make_layer(2, 4, 3)
    input = make_maps(11, STEPS, BATCH, 2, 6, 6)
    strided = input.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert (layer(strided)[0] - layer(input)[0]).abs().max() <= 1e-12


PAIR = "expected one or two integers of at least"
SHAPES = r"input: expected shape \(T, B, 126\) or \(T, B, 2, 9, 7\)"
LAYER, CLASSIFIER, X = SRCConv2d(2, 4, 3), make_classifier(), torch.zeros(5, 3, 2, 6, 6)
AUTOCAST = torch.autocast("cpu")
ROW_EVENTS = EventBatch.from_dense(torch.zeros(5, 3, 72))
ROWS, SIZED = EventBatch.from_dense(torch.zeros(5, 3, 126)), SRCConv2d(2, 4, 3, input_size=(9, 7))
WEIGHT, FLAT = torch.zeros(4, 2, 3, 3), torch.zeros(4, 2)
MAPS_OR_EVENTS = r"input: expected an EventBatch or a tensor \(T, B, 2, H, W\)"
RAGGED_EVENTS = EventBatch.from_dense(torch.zeros(5, 1, 126), lengths=torch.tensor([3]))


@refusals(
    Message("in_channels: expected at least 1, got 0", lambda: SRCConv2d(0, 4, 3)),
    Message(f"kernel_size: {PAIR} 1, got 0", lambda: SRCConv2d(4, 4, 0)),
    Message(f"kernel_size: {PAIR} 1, got .3, 3, 3", lambda: SRCConv2d(4, 4, (3, 3, 3))),  # type: ignore[arg-type]
    Message(f"kernel_size: {PAIR} 1, got 3.0", lambda: SRCConv2d(4, 4, 3.0)),  # type: ignore[arg-type]
    Message(f"stride: {PAIR} 1, got None", lambda: SRCConv2d(4, 4, 3, stride=None)),  # type: ignore[arg-type]
    Message(f"dilation: {PAIR} 1, got 0", lambda: SRCConv2d(4, 4, 3, dilation=0)),
    Message(f"padding: {PAIR} 0, got -1", lambda: SRCConv2d(4, 4, 3, padding=-1)),
    Message("padding: expected 'valid', 'same' or sizes, got 'full'", lambda: SRCConv2d(4, 4, 3, padding="full")),
    Message("padding: expected sizes where", lambda: SRCConv2d(4, 4, 3, padding="same", stride=2)),
    Message("groups: expected a divisor of .*, got 4 for 4 and 6", lambda: SRCConv2d(4, 6, 3, groups=4)),
    Message("method: expected one of auto, events, dense, got 'gemm'", lambda: SRCConv2d(2, 4, 3, method="gemm")),
    Message(f"input_size: {PAIR} 1, got 0", lambda: SRCConv2d(2, 4, 3, input_size=0)),
    Message(rf"{MAPS_OR_EVENTS}, got \(5, 3, 1, 6", lambda: LAYER(X[:, :, :1])),
    Message(rf"{MAPS_OR_EVENTS}, got list", lambda: LAYER([1.0])),
    Message("input: expected 2 times a square number of inputs without input_size, got 126", lambda: LAYER(ROWS)),
    Message("input: expected 2 . 9 . 6 inputs, got 126", lambda: SRCConv2d(2, 4, 3, input_size=(9, 6))(ROWS)),
    Message("lengths: expected None beside an EventBatch", lambda: SIZED(RAGGED_EVENTS, lengths=[3])),
    Message("weight: expected a tensor, got float", lambda: src_conv2d(X, 1.0, -6.0), TypeError),  # type: ignore[arg-type]
    Message(r"weight: expected shape \(O, C / groups, height, width\), got \(4, 2", lambda: src_conv2d(X, FLAT, -6.0)),
    Message("weight: expected float32, .*, got torch.int64", lambda: src_conv2d(X, WEIGHT.long(), -6.0), TypeError),
    Message(
        "groups: expected a divisor of the 4 output channels, got 3", lambda: src_conv2d(X, WEIGHT, -6.0, groups=3)
    ),
    Message(r"bias: expected a shape that broadcasts to \(4, 4, 4\)", lambda: src_conv2d(X, WEIGHT, torch.zeros(3))),
    Message(r"input: expected a dense tensor, got torch\.sparse_coo", lambda: LAYER(X.to_sparse())),
    Message("input: expected device cpu, as the weight, got meta", lambda: LAYER(X.to("meta"))),
    Message(r"input: expected torch\.float32, as the weight", lambda: LAYER(X.double()), TypeError),
    Message(
        r"input: expected torch\.float32, as the weight",
        lambda: AUTOCAST(LAYER.forward)(X.to(torch.complex64)),
        TypeError,
    ),
    Message(r"state\.i: expected shape", lambda: LAYER(X, (torch.zeros(3, 4),) * 3)),
    Message("lengths: expected", lambda: LAYER(X, lengths=[6, 0, 0])),
    Message(rf"{SHAPES}, got \(5, 3, 100\)", lambda: CLASSIFIER(torch.zeros(5, 3, 100))),
    Message(rf"{SHAPES}, got \(5, 3, 2, 8, 7\)", lambda: CLASSIFIER(torch.zeros(5, 3, 2, 8, 7))),
    Message(rf"{SHAPES}, got \(5, 3, 72\)", lambda: CLASSIFIER(ROW_EVENTS)),
    Message(rf"{SHAPES}, got list", lambda: CLASSIFIER([1.0])),
    Message("lengths: expected None beside an EventBatch", lambda: CLASSIFIER(RAGGED_EVENTS, torch.tensor([3]))),
    Message("channels: expected at least one", lambda: SRCConvClassifier((1, 8, 8), [], [12], 3)),
    Message(r"input_shape: expected channels, height and w", lambda: SRCConvClassifier((8, 8), [4], [], 3)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


@pytest.mark.parametrize(
    ("place", "name", "number"), [(5, "stride_y", 0), (9, "dilation_y", -1), (7, "padding_top", 2**40)]
)
def test_a_backward_pass_by_product_checks_the_sizes(place: int, name: str, number: int) -> None:
    sizes = [1, 2, 2, 2, 2, 1, 1, 0, 0, 1, 1]
    sizes[place] = number
    with pytest.raises(ValueError, match=rf"^convolution: expected {name} in \[[01], 2147483648\], got {number}$"):
        convolve_backward(torch.zeros(1, 1, 4), torch.zeros(1, 1, 4), torch.ones(1, 1, 1, 1), sizes, (True, True))


@pytest.mark.parametrize(("rows", "columns", "stride"), [(5, 2, 1), (5, 2, 2), (1, 1, 1)])
def test_a_product_makes_as_many_rows_and_columns_as_the_sizes_say(rows: int, columns: int, stride: int) -> None:
    # An operator's map of neurons may end before torch's does, and be taller than the padding allows.
    sizes = Convolution(1, 6, 7, rows, columns, stride, stride, 1, 2, 1, 2)
    input, weight = noise(1, 2, 3, 42), noise(2, 4, 1, 3, 2)
    maps = F.pad(input.reshape(6, 1, 6, 7), (2, 2, 1, 9))
    expected = F.conv2d(maps, weight, stride=stride, dilation=(1, 2))[..., :rows, :columns].reshape(2, 3, -1)
    current = convolve(input.requires_grad_(), weight.requires_grad_(), sizes)
    torch.testing.assert_close(current, expected.contiguous(), check_stride=True)
    grad = noise(3, *current.shape)
    made = convolve_backward(grad, input.detach(), weight.detach(), sizes, (True, True))
    torch.testing.assert_close(made, torch.autograd.grad(current, (input, weight), grad))


@pytest.mark.parametrize(
    ("options", "least", "smaller"),
    [
        ({"kernel_size": 3, "padding": "valid"}, (3, 3), [(2, 9), (9, 2)]),
        ({"kernel_size": (3, 5), "padding": (1, 0)}, (1, 5), [(1, 4), (0, 9)]),
        ({"kernel_size": 3, "dilation": 2}, (5, 5), [(6, 4)]),
        ({"kernel_size": 3, "padding": "same"}, (1, 1), [(0, 4)]),
    ],
)
def test_maps_smaller_than_the_kernel_are_refused(
    options: dict[str, Any], least: tuple[int, int], smaller: list[tuple[int, int]]
) -> None:
    layer = SRCConv2d(1, 1, **options)
    assert layer(torch.zeros(2, 1, 1, *least))[0].shape == (2, 1, 1, 1, 1)
    message = f"^input: expected a height of at least {least[0]} and a width of at least {least[1]}, got "
    for size in smaller:
        with pytest.raises(ValueError, match=message + re.escape(str(size))):
            layer(torch.zeros(2, 1, 1, *size))
