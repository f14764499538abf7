"""SRCConv2d and SRCConvClassifier: exactly torch's convolution followed by the cell."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcell import SRC, EventBatch, SRCConv2d, src
from srcell.data import EventLoader, LabelledImages, RateEncoding
from srcell.evaluation import evaluate
from srcell.models import SRCConvClassifier

STEPS, BATCH = 20, 3


def make_maps(seed: int, *shape: int) -> Tensor:
    """Spikes in float64, dense enough that every layer above fires."""
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.3).double()


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
@pytest.mark.parametrize("recurrent_grad", [False, True])
def test_it_is_the_cell_behind_torchs_convolution(
    sizes: tuple[Any, ...], options: dict[str, Any], out: tuple[int, ...], surrogate: str, recurrent_grad: bool
) -> None:
    layer = make_layer(*sizes, **options, surrogate=surrogate, recurrent_grad=recurrent_grad)
    input = make_maps(1, STEPS, BATCH, 2, 7, 9).requires_grad_()
    spikes, state = layer(input)
    assert spikes.shape == (STEPS, BATCH, *out)
    assert all(x.shape == (BATCH, *out) for x in state)
    plain = torch.nn.Conv2d(*sizes, **options, bias=False, dtype=torch.float64)
    plain.weight = layer.weight
    current = plain(input.flatten(0, 1)).unflatten(0, (STEPS, BATCH))
    bias = layer.bias.view(-1, 1, 1)
    initial = tuple(x.view(-1, 1, 1).expand(BATCH, *out) for x in layer._fixed_state(""))
    expected, ended = src(current, bias, initial, surrogate=surrogate, recurrent_grad=recurrent_grad)
    assert expected.count_nonzero() > 0
    assert torch.equal(spikes, expected) and all(torch.equal(a, b) for a, b in zip(state, ended, strict=True))
    arriving = torch.randn(spikes.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    wanted = (input, layer.weight, layer.bias)
    gradients = torch.autograd.grad(expected, wanted, arriving)
    for made, gradient in zip(torch.autograd.grad(spikes, wanted, arriving), gradients, strict=True):
        assert gradient.count_nonzero() > 0 and torch.equal(made, gradient)


def test_on_maps_of_one_pixel_it_is_the_linear_layer() -> None:
    layer = make_layer(6, 5, 1)
    linear = SRC(6, 5, dtype=torch.float64, initial_state="rest")
    with torch.no_grad():
        linear.weight_ih_l0.copy_(layer.weight.flatten(1))
    input = make_maps(3, STEPS, BATCH, 6, 1, 1)
    expected, _ = linear(input.flatten(2))
    assert expected.count_nonzero() > 0
    assert (layer(input)[0].flatten(2) - expected).abs().max() <= 1e-12


def test_a_sequence_in_two_calls_is_the_same() -> None:
    layer = make_layer(2, 4, 3)
    input = make_maps(4, STEPS, BATCH, 2, 6, 6)
    whole, ended = layer(input)
    first, between = layer(input[:8])
    second, after = layer(input[8:], between)
    assert (torch.cat([first, second]) - whole).abs().max() <= 1e-12
    assert all((a - b).abs().max() <= 1e-12 for a, b in zip(after, ended, strict=True))


def test_steps_past_the_length_emit_nothing_and_keep_the_state() -> None:
    layer = make_layer(2, 4, 3)
    input = make_maps(5, STEPS, BATCH, 2, 6, 6)
    spikes, state = layer(input, lengths=[20, 0, 11])
    assert spikes[:, 1].count_nonzero() == 0 and spikes[11:, 2].count_nonzero() == 0
    assert spikes[:11, 2].count_nonzero() > 0
    shorter, then = layer(input[:11])
    assert (shorter[:, 2] - spikes[:11, 2]).abs().max() <= 1e-12
    assert all((a[2] - b[2]).abs().max() <= 1e-12 for a, b in zip(state, then, strict=True))


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
    layer = SRCConv2d(
        1, 2, 3, alpha=alpha, learnable=["alpha", "rho"], learn_initial_state=True, recurrent_grad=True, padding=1
    )
    shapes = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    assert shapes == {
        "weight": (2, 1, 3, 3),
        "bias": (2,),
        "alpha": (2,),
        "rho": (),
        "i0": (2,),
        "h0": (2,),
        "hs0": (2,),
    }
    input = make_maps(6, 40, BATCH, 1, 5, 5).float()
    spikes, _ = layer(input)
    current = F.conv2d(input.flatten(0, 1), layer.weight, padding=1).unflatten(0, (40, BATCH))
    expected, _ = src(current, layer.bias.view(2, 1, 1), alpha=alpha.view(2, 1, 1))
    assert torch.equal(spikes, expected) and spikes.count_nonzero() > 0
    spikes.sum().backward()
    assert all(parameter.grad.count_nonzero() > 0 for parameter in layer.parameters())
    with torch.no_grad():
        layer.bias.fill_(0)
        layer.alpha.fill_(2)
    layer.constrain_()
    assert torch.all(layer.bias == -4) and torch.all(layer.alpha == 1)


def test_a_fixed_bias_is_no_parameter_and_no_state() -> None:
    layer = SRCConv2d(1, 2, 3, bias=False, bias_init=-5.5)
    assert list(dict(layer.named_parameters())) == ["weight"] and list(layer.state_dict()) == ["weight", "_extra_state"]
    assert layer.bias.tolist() == [-5.5, -5.5]


def test_the_weights_start_as_wide_as_their_inputs_are_few() -> None:
    torch.manual_seed(0)
    weight = SRCConv2d(16, 64, 5, groups=2).weight
    assert weight.std().item() == pytest.approx(3 / 200**0.5, rel=5 / (2 * weight.numel()) ** 0.5)


@pytest.mark.parametrize("shape", [(0, 3, 2, 6, 6), (5, 0, 2, 6, 6)])
def test_nothing_in_is_nothing_out(shape: tuple[int, ...]) -> None:
    layer = SRCConv2d(2, 4, 3)
    spikes, state = layer(torch.zeros(shape).requires_grad_())
    assert spikes.shape == (*shape[:2], 4, 4, 4) and state.h.shape == (shape[1], 4, 4, 4)
    spikes.sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.count_nonzero() == 0


def test_it_says_what_it_is() -> None:
    assert repr(SRCConv2d(1, 8, 5)) == "SRCConv2d(1, 8, kernel_size=(5, 5))"
    text = repr(SRCConv2d(2, 8, (5, 3), stride=2, padding=1, groups=2, bias=False, surrogate="relu"))
    assert text == (
        "SRCConv2d(2, 8, kernel_size=(5, 3), stride=(2, 2), padding=(1, 1), groups=2, bias=False, surrogate='relu')"
    )


@pytest.mark.parametrize(
    ("sizes", "options", "message"),
    [
        ((0, 4, 3), {}, "in_channels: expected at least 1, got 0"),
        ((4, 4, 0), {}, "kernel_size: expected one or two integers of at least 1, got 0"),
        ((4, 4, (3, 3, 3)), {}, "kernel_size: expected one or two integers"),
        ((4, 4, 3.0), {}, "kernel_size: expected one or two integers of at least 1, got 3.0"),
        ((4, 4, 3), {"stride": None}, "stride: expected one or two integers of at least 1, got None"),
        ((4, 4, 3), {"stride": 0}, "stride: expected one or two integers of at least 1, got 0"),
        ((4, 4, 3), {"padding": -1}, "padding: expected one or two integers of at least 0, got -1"),
        ((4, 4, 3), {"padding": "full"}, "padding: expected 'valid', 'same' or sizes, got 'full'"),
        ((4, 4, 3), {"padding": "same", "stride": 2}, "padding: expected sizes where the stride is not 1"),
        ((4, 6, 3), {"groups": 4}, "groups: expected a divisor of in_channels and out_channels, got 4 for 4 and 6"),
        ((4, 6, 3), {"surrogate": "tanh"}, "surrogate: expected one of"),
        ((4, 6, 3), {"alpha": torch.ones(4)}, r"alpha: expected a float or a tensor of shape \(6,\), got shape \(4,\)"),
    ],
)
def test_bad_arguments_are_named(sizes: tuple[Any, ...], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SRCConv2d(*sizes, **options)


def test_bad_inputs_are_named() -> None:
    layer = SRCConv2d(2, 4, 3, dilation=2)
    with pytest.raises(ValueError, match=r"input: expected a tensor \(T, B, 2, H, W\), got \(5, 3, 1, 6, 6\)"):
        layer(torch.zeros(5, 3, 1, 6, 6))
    with pytest.raises(ValueError, match=r"input: expected a tensor \(T, B, 2, H, W\), got EventBatch"):
        layer(EventBatch.from_dense(torch.zeros(5, 3, 72)))
    with pytest.raises(ValueError, match=r"height of at least 5 and a width of at least 5, got \(6, 4\)"):
        layer(torch.zeros(5, 3, 2, 6, 4))
    with pytest.raises(TypeError, match=r"input: expected torch\.float32, as the weight, got torch\.float64"):
        layer(torch.zeros(5, 3, 2, 6, 6).double())
    with pytest.raises(ValueError, match="height of at least 1"):
        SRCConv2d(2, 4, 3, padding="same")(torch.zeros(5, 3, 2, 0, 4))
    with torch.autocast("cpu"), pytest.raises(TypeError, match=r"input: expected torch\.float32, as the weight"):
        layer(torch.zeros(5, 3, 2, 6, 6, dtype=torch.complex64))
    with pytest.raises(ValueError, match="input: expected device cpu, as the weight, got meta"):
        layer(torch.zeros(5, 3, 2, 6, 6, device="meta"))
    with pytest.raises(ValueError, match=r"state\.i: expected shape \(3, 4, 2, 2\), got \(3, 4\)"):
        layer(torch.zeros(5, 3, 2, 6, 6), (torch.zeros(3, 4),) * 3)
    with pytest.raises(ValueError, match="lengths"):
        layer(torch.zeros(5, 3, 2, 6, 6), lengths=[6, 0, 0])


def make_classifier(**options: Any) -> SRCConvClassifier:
    torch.manual_seed(0)
    return SRCConvClassifier((2, 9, 7), [4, 6], [12], num_classes=3, neurons_per_class=4, **options)


@pytest.mark.parametrize("surrogate", ["straight_through", "relu"])
def test_the_network_takes_maps_rows_and_events(surrogate: str) -> None:
    model = make_classifier(surrogate=surrogate)
    maps = make_maps(7, 60, 5, 2, 9, 7).float()
    lengths = torch.tensor([60, 0, 31, 60, 45])
    outputs = model.layer_spikes(maps, lengths)
    shapes = [(4, 5, 4), (6, 3, 2), (12,), (12,)]
    assert [output.shape for output in outputs] == [(60, 5, *shape) for shape in shapes]
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


def test_the_network_refuses_what_does_not_fit() -> None:
    model = make_classifier()
    with pytest.raises(ValueError, match=r"expected shape \(T, B, 126\) or \(T, B, 2, 9, 7\), got \(5, 3, 100\)"):
        model(torch.zeros(5, 3, 100))
    with pytest.raises(ValueError, match=r"or \(T, B, 2, 9, 7\), got \(5, 3, 2, 8, 7\)"):
        model(torch.zeros(5, 3, 2, 8, 7))
    with pytest.raises(ValueError, match=r"or \(T, B, 2, 9, 7\), got \(5, 3, 127\)"):
        model(EventBatch.from_dense(torch.zeros(5, 3, 127)))
    with pytest.raises(ValueError, match=r"or \(T, B, 2, 9, 7\), got list"):
        model([1.0])
    with pytest.raises(ValueError, match="lengths: expected None beside an EventBatch that has lengths"):
        model(EventBatch.from_dense(torch.zeros(5, 1, 126), lengths=torch.tensor([3])), torch.tensor([3]))
    with pytest.raises(ValueError, match="channels: expected at least one"):
        SRCConvClassifier((1, 8, 8), [], [12], num_classes=3)
    with pytest.raises(ValueError, match=r"input_shape: expected channels, height and width, got \(8, 8\)"):
        SRCConvClassifier((8, 8), [4], [], num_classes=3)


def test_operations_are_counted_along_the_weights_there_are() -> None:
    model = make_classifier()
    fan_outs = model.fan_outs()
    assert [tuple(ways.shape) for ways in fan_outs] == [(126,), (4, 5, 4), (6, 3, 2), (12,), (12,)]
    conv, *_ = model.src_layers()
    assert isinstance(conv, SRCConv2d)
    with torch.no_grad():
        conv.weight.fill_(1)
        for cell in range(126):
            spike = torch.zeros(126)
            spike[cell] = 1
            assert fan_outs[0][cell] == conv.current(spike.view(1, 1, 2, 9, 7)).sum()
    assert torch.all(fan_outs[2] == 12) and torch.all(fan_outs[3] == 12) and torch.all(fan_outs[4] == 3)


def test_an_evaluation_counts_what_an_inference_does() -> None:
    torch.manual_seed(0)
    model = SRCConvClassifier((1, 8, 8), [4], [], num_classes=10)
    images = LabelledImages(torch.rand(30, 8, 8), torch.arange(30) % 10)
    evaluation = evaluate(model, EventLoader(images, RateEncoding(), 8))
    (events, _), *_ = EventLoader(images, RateEncoding(), 30)
    with torch.no_grad():
        outputs = model.layer_spikes(events)
    active = [events.to_dense(), *outputs]
    for counts, output, ways in zip(evaluation.counts, active, model.fan_outs(), strict=True):
        cells = (output > 0).sum((0, 1))
        assert counts.events == pytest.approx(cells.sum().item() / 30, rel=1e-12)
        operations = counts.additions + counts.multiply_adds
        assert operations == pytest.approx((cells * ways).sum().item() / 30, rel=1e-12)
    assert evaluation.rates[0].shape == (4, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_network_takes_events_in_its_own_dtype(dtype: torch.dtype) -> None:
    model = make_classifier().to(dtype)
    maps = make_maps(8, 40, 3, 2, 9, 7)
    logits = model(EventBatch.from_dense(maps.flatten(2).float()))
    assert torch.equal(logits, model(maps.to(dtype))) and torch.all(logits.isfinite())


def test_half_precision_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    layer = SRCConv2d(2, 4, 3)
    input = make_maps(9, 40, BATCH, 2, 6, 6).float()
    with torch.autocast("cpu"):
        spikes, state = layer(input)
        current = layer.current(input)
    assert current.dtype == torch.bfloat16 and spikes.dtype == state.h.dtype == torch.float32
    expected, _ = src(current.float(), layer.bias.view(-1, 1, 1))
    assert torch.equal(spikes, expected) and spikes.count_nonzero() > 0


def test_it_compiles_whole() -> None:
    torch.manual_seed(0)
    layer = SRCConv2d(2, 4, 3)
    input = make_maps(10, 30, BATCH, 2, 6, 6).float()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(input)[0], layer(input)[0])


def test_a_transposed_input_is_as_good() -> None:
    layer = make_layer(2, 4, 3)
    input = make_maps(11, STEPS, BATCH, 2, 6, 6)
    strided = input.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0)
    assert (layer(strided)[0] - layer(input)[0]).abs().max() <= 1e-12


def test_a_sparse_input_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^input: expected a dense tensor, got torch\.sparse_coo"):
        SRCConv2d(2, 4, 3)(torch.zeros(5, 3, 2, 6, 6).to_sparse())


@pytest.mark.parametrize("shape", [(2, 9), (9, 2)])
def test_without_padding_an_input_smaller_than_the_kernel_is_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="input: expected a height of at least 3 and a width of at least 3, got"):
        SRCConv2d(1, 1, 3, padding="valid")(torch.zeros(2, 1, 1, *shape))
    assert SRCConv2d(1, 1, 3, padding="valid")(torch.zeros(2, 1, 1, 3, 3))[0].shape == (2, 1, 1, 1, 1)


def test_height_and_width_have_bounds_of_their_own() -> None:
    layer = SRCConv2d(1, 1, (3, 5), padding=(1, 0))
    assert layer(torch.zeros(2, 1, 1, 1, 5))[0].shape == (2, 1, 1, 1, 1)
    for shape in ((1, 4), (0, 9)):
        with pytest.raises(ValueError, match="input: expected a height of at least 1 and a width of at least 5, got"):
            layer(torch.zeros(2, 1, 1, *shape))
