"""SRCClassifier: inputs, outputs, initial weights, gradients of all parameters, dropout, balanced gradients, delays."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcell import (
    SRC,
    Delay,
    EventBatch,
    LeakyReadout,
    SRCConv2d,
    delay,
    rate_encode,
    spread,
    spread_frequencies,
    src_linear,
)
from srcell.functional.readout import scale_neurons
from srcell.layers.exported import exported
from srcell.models import Classifier, IntegerClassifier, SRCClassifier, SRCConvClassifier
from srcell.models.answers import answer
from support.refusals import Refusal, refusals

STEPS, BATCH, INPUTS, CLASSES = 60, 5, 16, 3
LENGTHS = torch.tensor([60, 0, 31, 60, 45])


def make_model(*hidden_sizes: int, **options: Any) -> SRCClassifier:
    torch.manual_seed(0)
    return SRCClassifier(INPUTS, hidden_sizes, CLASSES, **options)


@pytest.fixture
def model() -> SRCClassifier:
    return make_model(24, neurons_per_class=4)


@pytest.fixture
def spikes_in() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    spikes = (torch.rand(STEPS, BATCH, INPUTS, generator=generator) < 0.2).float()
    spikes[:20] = 0
    return spikes


@pytest.mark.parametrize("hidden_sizes", [(), (24,), (24, 8)])
def test_every_layer_spikes_and_every_class_gets_a_logit(hidden_sizes: tuple[int, ...], spikes_in: Tensor) -> None:
    model = make_model(*hidden_sizes, neurons_per_class=4)
    outputs = model.layer_spikes(spikes_in)
    assert [spikes.shape for spikes in outputs] == [(STEPS, BATCH, n) for n in (*hidden_sizes, 4 * CLASSES)]
    assert all(spikes.count_nonzero() > 0 for spikes in outputs)
    logits = model(spikes_in)
    assert logits.shape == (BATCH, CLASSES) and torch.equal(logits, model.readout(outputs[-1]))


def test_an_event_batch_gives_the_logits_of_its_dense_tensor(model: SRCClassifier, spikes_in: Tensor) -> None:
    assert torch.equal(model(EventBatch.from_dense(spikes_in)), model(spikes_in))
    assert torch.equal(model(EventBatch.from_dense(spikes_in, lengths=LENGTHS)), model(spikes_in, LENGTHS))


def test_inputs_past_the_end_of_a_sample_change_nothing(model: SRCClassifier, spikes_in: Tensor) -> None:
    padded = spikes_in.clone()
    for sample, length in enumerate(LENGTHS.tolist()):
        padded[length:, sample] = 1
    assert torch.equal(model(padded, LENGTHS), model(spikes_in, LENGTHS))


def test_weights_start_as_documented() -> None:
    torch.manual_seed(0)
    model = SRCClassifier(400, [300, 300, 200, 250], num_classes=10)
    first, *between, last = (layer.weight_ih_l0.detach() for layer in model.layers)
    assert_normal(first, 3 / math.sqrt(400))
    assert_normal(last, 6 / math.sqrt(250))
    for weight in between:
        neurons, inputs = weight.shape
        relays = torch.zeros(neurons, inputs)
        for n in range(max(neurons, inputs)):
            relays[n % neurons, n % inputs] = 3
        assert_normal(weight - relays, 0.5 / math.sqrt(inputs))


@pytest.mark.parametrize("omega", [0.3, spread_frequencies(0.1, 1)])
def test_hidden_layers_resonate_and_voters_do_not(omega: Any) -> None:
    model = SRCClassifier(6, [5, 4], 3, omega=omega)
    assert [layer.resonates for layer in model.layers] == [True, True, False]
    of_layer, alone = exported(model.layers[0])[0], exported(SRC(6, 5, omega=omega))[0]
    assert torch.equal(of_layer["omega"], alone["omega"]) and alone["omega"].any()
    assert not any(layer.resonates for layer in SRCClassifier(6, [5, 4], 3, omega=0.0).layers)
    with pytest.raises(ValueError, match=r"^omega: expected 0.0 without hidden_sizes, got "):
        SRCClassifier(6, [], 3, omega=omega)


def test_reset_parameters_draws_all_weights_and_resets_biases() -> None:
    model = SRCClassifier(6, [5, 4], num_classes=3)
    drawn = []
    for value in (0.0, 7.0):
        for parameter in model.parameters():
            torch.nn.init.constant_(parameter, value)
        torch.manual_seed(0)
        model.reset_parameters()
        drawn.append({name: x.clone() for name, x in model.state_dict().items()})
    assert all(torch.equal(x, drawn[1][name]) for name, x in drawn[0].items())
    assert all(torch.all(layer.bias_l0 == -6) for layer in model.layers)


def assert_normal(weight: Tensor, deviation: float) -> None:
    five_sigma = 5 / math.sqrt(2 * weight.numel())
    assert weight.std().item() == pytest.approx(deviation, rel=five_sigma)
    assert abs(weight.mean().item()) < 5 * deviation / math.sqrt(weight.numel())


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize(
    "surrogates",
    [
        ("straight_through", "straight_through", "straight_through"),
        ("relu", "relu", "relu"),
        ("straight_through", "relu", "relu"),
        ("relu", "straight_through", "straight_through"),
    ],
    ids=", ".join,
)
def test_three_layers_have_the_gradients_of_three_calls(
    surrogates: tuple[str, ...], lengths: Tensor | None, spikes_in: Tensor
) -> None:
    torch.manual_seed(0)
    layers = [SRC(k, 24, surrogate=s) for k, s in zip((INPUTS, 24, 24), surrogates, strict=True)]
    model = Classifier((INPUTS,), layers, LeakyReadout(3, 8)).double()
    input, parameters = spikes_in.double(), list(model.parameters())
    outputs = [model.layer_spikes(input, lengths)[-1]]
    if len(set(surrogates)) == 1:
        stack = SRC(INPUTS, 24, num_layers=3, surrogate=surrogates[0])
        for k, layer in enumerate(layers):
            setattr(stack, f"weight_ih_l{k}", layer.weight_ih_l0)
            setattr(stack, f"bias_l{k}", layer.bias_l0)
        outputs.append(stack(input, lengths=lengths)[0])
    expected = input
    for layer, surrogate in zip(layers, surrogates, strict=True):
        options: dict[str, Any] = {"surrogate": surrogate, "lengths": lengths, "method": "events"}
        expected, _ = src_linear(expected, layer.weight_ih_l0, layer.bias_l0, **options)
    grad_outputs = torch.randn(STEPS, BATCH, 24, dtype=torch.float64)
    gradients = torch.autograd.grad(expected, parameters, grad_outputs)
    assert all(gradient.count_nonzero() > 0 for gradient in gradients)
    for output in outputs:
        assert torch.equal(output, expected)
        for made, gradient in zip(torch.autograd.grad(output, parameters, grad_outputs), gradients, strict=True):
            # With relu, the two sides sum at most 24 products in different orders, in each of three layers.
            assert (made - gradient).abs().max() <= 3 * 24 * 2**-52 * STEPS * BATCH * gradient.abs().max()


def test_constrain_projects_every_layer(model: SRCClassifier) -> None:
    for layer in model.layers:
        torch.nn.init.constant_(layer.bias_l0, -1.0)
    model.constrain_()
    assert all(torch.all(layer.bias_l0 == -4.0) for layer in model.layers)


def test_every_layer_of_a_deep_network_starts_active_and_tells_images_apart() -> None:
    torch.manual_seed(0)
    model = SRCClassifier(784, [128] * 14, num_classes=10)
    # Like MNIST's images: a fifth of the pixels are not 0; with rate coding 3 % of the elements are active.
    images = torch.rand(16, 784) * (torch.rand(16, 784) < 0.2)
    with torch.no_grad():
        once, again = (model.layer_spikes(rate_encode(images, seed=seed)) for seed in (0, 1))
    for spikes in once:
        active = (spikes > 0).float()
        assert 0.02 < active.mean() < 0.08
        assert (active.sum((0, 1)) == 0).float().mean() < 0.1
    for k in range(14):
        # For two encodings of an image, a layer's activities are nearer to each other than to those of 15 other images.
        distances = torch.cdist(once[k].sum(0), again[k].sum(0))
        assert (distances.argmin(1) == torch.arange(16)).float().mean() > 0.9


def test_binary_outputs_are_1_above_a_half(model: SRCClassifier, spikes_in: Tensor) -> None:
    graded, binary = model.layer_spikes(spikes_in), model.layer_spikes(spikes_in, binary=True)
    above, _ = model.src_layers()[1](binary[0])
    assert binary[1].any() and torch.equal(binary[0], (graded[0] > 0.5).float())
    assert torch.equal(binary[1], (above > 0.5).float())


@pytest.mark.parametrize("surrogate", ["straight_through", "relu"])
def test_dropout_silences_hidden_neurons_for_a_sample_in_training(surrogate: str, spikes_in: Tensor) -> None:
    model = make_model(24, neurons_per_class=4, surrogate=surrogate, dropout=0.5)
    hidden, last = model.layer_spikes(spikes_in)
    torch.manual_seed(1)
    _, thinned = model.layer_spikes(spikes_in)
    torch.manual_seed(1)
    kept = F.dropout(torch.ones(BATCH, 24), 0.5)
    assert 0 < kept.count_nonzero() < kept.numel()
    expected, _ = model.layers[1](hidden * kept)
    assert torch.equal(thinned, expected) and not torch.equal(thinned, last)
    weights = [layer.weight_ih_l0 for layer in model.layers]
    grad_outputs = torch.randn(thinned.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(expected, weights, grad_outputs)
    for made, gradient in zip(torch.autograd.grad(thinned, weights, grad_outputs), gradients, strict=True):
        # With relu, the hidden gradient is a sum of 12 products, whose order differs between the two sides.
        assert (made - gradient).abs().max() <= 12 * STEPS * BATCH * 2**-23 * gradient.abs().max()
    model.eval()
    assert torch.equal(model.layer_spikes(spikes_in)[1], model.layers[1](hidden)[0])


def test_dropout_silences_the_neurons_that_a_linear_readout_reads(spikes_in: Tensor) -> None:
    model = make_model(24, readout="linear", dropout=0.5)
    (hidden,), events = model.layer_spikes(spikes_in), EventBatch.from_dense(spikes_in)
    torch.manual_seed(1)
    expected = model.readout(hidden * F.dropout(torch.ones(BATCH, 24), 0.5))
    plain = model.readout(hidden)
    assert not torch.allclose(expected, plain)
    for made in (lambda: model(spikes_in), lambda: answer(model, events)[0]):
        torch.manual_seed(1)
        assert torch.equal(made(), expected)
    model.eval()
    assert torch.equal(model(spikes_in), plain)


def test_processes_that_share_a_batch_draw_dropout_for_the_whole_batch(spikes_in: Tensor) -> None:
    model = make_model(24, dropout=0.5)
    torch.manual_seed(1)
    whole = model.layer_spikes(spikes_in)[1]
    for first in (0, 1):
        model.shared_batch = (BATCH, first, 2)
        torch.manual_seed(1)
        assert torch.equal(model.layer_spikes(spikes_in[:, first::2])[1], whole[:, first::2])


def shared_call(*shared: int) -> Tensor:
    model = make_model(24, dropout=0.5)
    model.shared_batch = shared
    return model(torch.zeros(STEPS, BATCH, INPUTS))


@refusals(
    Refusal("surrogate", lambda: make_model(24, surrogate="sigmoid")),
    Refusal("hidden_sizes", lambda: SRCClassifier(16, None, 3), TypeError),
    Refusal("channels", lambda: SRCConvClassifier((1, 8, 8), 1.5, [], 3), TypeError),
    Refusal("hidden_size", lambda: SRCClassifier(16, [2.5], 3), TypeError),
    Refusal("dropout", lambda: make_model(24, dropout=-0.1)),
    Refusal("dropout", lambda: make_model(24, dropout=1.0)),
    Refusal("input_delay", lambda: make_model(24, input_delay=-1)),
    Refusal("input_delay", lambda: make_model(24, input_delay=65536)),
    Refusal("input_delay", lambda: make_model(24, input_delay=2.5), TypeError),
    Refusal("taps", lambda: make_model(24, taps=2)),
    Refusal("taps", lambda: make_model(24, input_delay=5, taps=0)),
    Refusal("recurrent_delay", lambda: make_model(24, recurrent_delay=5)),
    *(Refusal("input_gain", lambda x=x: make_model(24, input_gain=x)) for x in (0, -1.0, float("nan"), 1e300)),
    Refusal("input_gain", lambda: make_model(24, input_gain="2"), TypeError),
    Refusal("recurrent_delay", lambda: make_model(24, recurrent=True, recurrent_delay=65536)),
    Refusal("recurrent_delay", lambda: make_model(recurrent=True, recurrent_delay=5)),
    Refusal("learn_delays", lambda: make_model(24, learn_delays=True)),
    Refusal("learn_delays", lambda: make_model(24, input_delay=5, learn_delays=1), TypeError),
    Refusal("whole_delays", lambda: make_model(24, recurrent=True, whole_delays=True)),
    Refusal("width", lambda: make_delayed().set_delay_width(0)),
    Refusal("width", lambda: make_delayed().set_delay_width(1.5), TypeError),
    # Regression: with one sample in the shared batch all samples got the same mask.
    Refusal("input", lambda: shared_call(1, 0, 1)),
    Refusal("input", lambda: shared_call(BATCH - 1, 0, 1)),
    Refusal("input", lambda: shared_call(BATCH, 0, 2)),
    Refusal("input", lambda: shared_call(2 * BATCH + 2, 1, 2)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def test_an_int_is_the_size_of_one_layer() -> None:
    assert [layer.hidden_size for layer in SRCClassifier(16, 24, 3).layers] == [24, 30]
    assert [layer.hidden_size for layer in IntegerClassifier(16, 24, 3).layers] == [24, 30]
    conv, *others = SRCConvClassifier((1, 8, 8), 2, 24, 3).layers
    assert conv.out_channels == 2 and [layer.hidden_size for layer in others] == [24, 30]


def test_gradients_of_relu_cannot_be_balanced() -> None:
    with pytest.raises(ValueError, match=r"^balance_gradients: expected False with the surrogate 'relu'"):
        make_model(24, surrogate="relu", balance_gradients=True)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"dilation": 2},
        {"groups": 2, "dilation": (1, 2), "stride": (2, 1), "padding": (1, 0)},
        {"padding": "same"},
    ],
)
def test_fan_outs_count_the_weights_of_a_convolution(options: dict[str, Any]) -> None:
    layer = SRCConv2d(2, 4, kernel_size=3, **options)
    above = layer(torch.zeros(1, 1, 2, 6, 5))[0].shape[2:]
    model = Classifier((2, 6, 5), [layer, SRC(above.numel(), 20)], LeakyReadout(10, 2))
    with torch.inference_mode():
        inputs, neurons, last = model.fan_outs()
    # Each input alone: the sum of its outputs with weights of 1 is the number of weights that it meets.
    one = torch.eye(2 * 6 * 5).view(-1, 2, 6, 5)
    weight = torch.ones_like(layer.weight)
    met = F.conv2d(one, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    assert inputs.tolist() == met.sum((1, 2, 3)).tolist()
    assert neurons.shape == above and set(neurons.flatten().tolist()) == {20} and last.tolist() == [10] * 20


def test_an_input_gain_scales_the_first_layers_weights_alone() -> None:
    networks = []
    for gain in (1.0, 2.0):
        torch.manual_seed(0)
        networks.append(make_model(24, 12, alpha=spread(0.5, 0.99), recurrent=True, input_gain=gain))
    one, two = (dict(network.named_parameters()) for network in networks)
    for name in one:
        assert torch.equal(two[name], (2 if name == "layers.0.weight_ih_l0" else 1) * one[name])
    layers = (networks[1].layers[0], SRC.for_sequences(INPUTS, 24, input_gain=2.0))
    for layer in layers:
        torch.manual_seed(1)
        layer.reset_parameters()
    assert torch.equal(layers[0].weight_ih_l0, layers[1].weight_ih_l0)


@pytest.mark.parametrize("shape", [(6, 3, 4), (5, 2, 3, 2, 2), (0, 3, 4)])
def test_scale_neurons_is_a_product_with_its_gradient(shape: tuple[int, ...]) -> None:
    spikes = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    factors = torch.rand(shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(scale_neurons(spikes, factors), spikes * factors)
    scale_neurons(spikes, factors).square().sum().backward()
    assert torch.equal(spikes.grad, 2 * (spikes * factors) * factors)


def layer_gradients(
    spikes_in: Tensor, lengths: Tensor | None = None, *, balance: bool = True, training: bool = True
) -> list[Tensor]:
    """The gradients of every layer's output and of the first layer's weights."""
    model = make_model(24, 24, 24, balance_gradients=balance).train(training)
    outputs = model.layer_spikes(spikes_in, lengths)
    for output in outputs:
        output.retain_grad()
    logits = model.readout(outputs[-1], lengths=lengths)
    F.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1])).backward()
    return [*(output.grad for output in outputs), model.layers[0].weight_ih_l0.grad]


def test_balanced_gradients_have_the_same_size_in_all_layers(spikes_in: Tensor) -> None:
    *plain, _ = layer_gradients(spikes_in, balance=False)
    *balanced, last, _ = layer_gradients(spikes_in)
    assert torch.equal(plain[-1], last)
    sizes = last.square().mean((0, 2)).sqrt()
    for gradient in balanced:
        # Clipping can only make elements smaller; 1e-6 allows for the rounding of the product.
        assert torch.all(gradient.abs() <= 2 * sizes[:, None] * (1 + 1e-6))
        own = gradient.square().mean((0, 2)).sqrt()
        assert torch.all(own <= sizes * (1 + 1e-6)) and torch.all(own > 0.3 * sizes)
    # The gradient of the layer below the last is the plain one, scaled and clipped once.
    scale = sizes / plain[-2].square().mean((0, 2)).sqrt()
    expected = (plain[-2] * scale[:, None]).clamp(-2 * sizes[:, None], 2 * sizes[:, None])
    assert torch.allclose(balanced[-1], expected, rtol=1e-5, atol=0)
    assert 0 < (expected.abs() == 2 * sizes[:, None]).float().mean() < 0.5


def test_padding_does_not_change_balanced_gradients(spikes_in: Tensor) -> None:
    lengths = torch.full((BATCH,), STEPS)
    *_, expected = layer_gradients(spikes_in, lengths)
    *_, padded = layer_gradients(torch.cat([spikes_in, torch.ones(STEPS, BATCH, INPUTS)]), lengths)
    # Padding doubles the steps, with 0 in half of them; twice the mean over them is the old mean, up to the order of
    # the sum.
    assert (padded - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gradients_are_balanced_only_in_training(spikes_in: Tensor) -> None:
    evaluated, plain = layer_gradients(spikes_in, training=False), layer_gradients(spikes_in, balance=False)
    assert all(map(torch.equal, evaluated, plain))


def test_balancing_keeps_gradients_of_zero(spikes_in: Tensor) -> None:
    model = make_model(24, 24, balance_gradients=True)
    first, *_, last = model.layer_spikes(spikes_in)
    first.retain_grad()
    (1e6 * last[:, 1:]).sum().backward()
    grad = first.grad
    assert grad[:, 0].count_nonzero() == 0 and torch.all(grad.isfinite()) and grad[:, 1:].count_nonzero() > 0
    model = make_model(24, balance_gradients=True)
    torch.nn.init.zeros_(model.layers[1].weight_ih_l0)
    (1e6 * model.layer_spikes(spikes_in)[-1]).sum().backward()
    assert model.layers[0].weight_ih_l0.grad.count_nonzero() == 0


def test_balancing_does_not_affect_frozen_layers_and_hidden_layer_losses(spikes_in: Tensor) -> None:
    model = make_model(24, 24, balance_gradients=True)
    weight = model.layers[0].weight_ih_l0
    (gradient,) = torch.autograd.grad(model.layer_spikes(spikes_in)[0].sum(), weight)
    model.balance_gradients = False
    assert torch.equal(gradient, torch.autograd.grad(model.layer_spikes(spikes_in)[0].sum(), weight)[0])
    model.balance_gradients = True
    model.layers[0].requires_grad_(False)
    model(spikes_in).sum().backward()
    assert weight.grad is None and model.layers[1].weight_ih_l0.grad.count_nonzero() > 0


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.8, "surrogate": "relu", "full_gradient": True, "initial_state": "rest"}]
)
def test_options_reach_every_layer(options: dict[str, Any]) -> None:
    default = {"alpha": 0.9, "surrogate": "straight_through", "full_gradient": False, "initial_state": "zeros"}
    expected = default | options
    for layer in SRCClassifier(6, [5, 4], num_classes=2, **options).src_layers():
        found = {name: getattr(layer, name) for name in expected if name != "alpha"}
        assert found | {"alpha": layer.get_extra_state()[1].item()} == expected


# Delays


def make_delayed(**options: Any) -> SRCClassifier:
    """A network with delays of its inputs and of the recurrent weights of both hidden layers."""
    sizes = {"neurons_per_class": 4, "recurrent": True, "input_delay": 9, "recurrent_delay": 7}
    return make_model(24, 8, **{**sizes, **options})


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize(("whole", "taps", "width"), [(False, 1, 1), (True, 3, 1), (False, 2, 4)])
def test_a_delayed_network_is_delay_and_its_layers(
    whole: bool, taps: int, width: int, lengths: Tensor | None, spikes_in: Tensor
) -> None:
    model = make_delayed(whole_delays=whole, taps=taps)
    model.set_delay_width(width)
    first, second, voters = model.src_layers()
    assert (first.input_size, second.input_size, voters.delayed) == (INPUTS * taps, 24, False)
    for input in (spikes_in, EventBatch.from_dense(spikes_in, lengths=lengths)):
        of_input = None if isinstance(input, EventBatch) else lengths
        x = delay(input, model.delay.delay.view(INPUTS, taps), max_delay=9, delay_width=width, lengths=of_input)
        outputs = model.layer_spikes(input, of_input)
        for k, layer in enumerate((first, second)):
            expected, _ = src_linear(
                x,
                layer.weight_ih_l0,
                layer.bias_l0,
                weight_hh=layer.weight_hh_l0,
                delay_hh=layer.delay_hh_l0,
                max_delay=7,
                delay_width=width,
                lengths=None if k == 0 and isinstance(input, EventBatch) else lengths,
            )
            assert expected.any() and torch.equal(outputs[k], expected)
            x = expected
    assert not torch.equal(outputs[0], make_delayed(input_delay=0).layer_spikes(spikes_in, lengths)[0])


def test_lengths_may_be_given_beside_events_without_lengths(spikes_in: Tensor) -> None:
    model = make_delayed()
    events, ragged = EventBatch.from_dense(spikes_in), EventBatch.from_dense(spikes_in, lengths=LENGTHS)
    assert torch.equal(model(events, LENGTHS), model(ragged))


def test_delays_are_drawn_uniformly_from_their_range() -> None:
    torch.manual_seed(0)
    model = SRCClassifier(1000, [1000], 3, recurrent=True, input_delay=20, taps=2, recurrent_delay=8)
    assert {k: tuple(x.shape) for k, x in model.delays.items()} == {0: (1000, 2), 1: (1000,)}
    for values, most in zip(model.delays.values(), (20, 8), strict=True):
        assert 0 <= values.min() < 0.02 * most and 0.98 * most < values.max() <= most
        five_sigma = 5 * most / math.sqrt(12 * values.numel())
        assert abs(values.mean().item() - most / 2) < five_sigma
        assert not values.requires_grad and not torch.equal(values, values.round())
    assert not any("delay" in name for name, _ in model.named_parameters())
    whole = SRCClassifier(1000, [1000], 3, recurrent=True, input_delay=20, recurrent_delay=8, whole_delays=True)
    for values, most in zip(whole.delays.values(), (20, 8), strict=True):
        assert values.unique().tolist() == list(range(most + 1))
    assert make_model(24, recurrent=True).delays == {} and make_model(24).delay is None


@pytest.mark.parametrize("whole", [False, True])
def test_reset_parameters_draws_delays_of_inputs_and_restores_the_others(whole: bool) -> None:
    model = make_delayed(whole_delays=whole, learn_delays=True)
    drawn = {k: x.detach().clone() for k, x in model.delays.items()}
    for values in model.delays.values():
        torch.nn.init.constant_(values, 0.5)
    model.reset_parameters()
    again = model.delays
    assert not torch.equal(again[0], drawn[0]) and torch.equal(again[0], again[0].round()) == whole
    assert again[0].min() >= 0 and again[0].max() <= 9
    assert all(torch.equal(again[k], drawn[k]) for k in (1, 2))


def test_learnt_delays_get_gradients_and_are_constrained(spikes_in: Tensor) -> None:
    model = make_delayed(learn_delays=True)
    model(EventBatch.from_dense(spikes_in)).square().sum().backward()
    for values in model.delays.values():
        assert isinstance(values, torch.nn.Parameter) and values.grad is not None and values.grad.any()
    for bound, limits in ((-3.0, (0, 0, 0)), (99.0, (9, 7, 7))):
        for values in model.delays.values():
            torch.nn.init.constant_(values, bound)
        model.constrain_()
        assert all(torch.all(x == most) for x, most in zip(model.delays.values(), limits, strict=True))


def test_rounded_delays_are_whole_and_no_longer_learnt() -> None:
    model = make_delayed(learn_delays=True)
    expected = {k: x.detach().round() for k, x in model.delays.items()}
    model.round_delays_()
    for k, values in model.delays.items():
        assert torch.equal(values, expected[k]) and not values.requires_grad
    assert all(parameter.requires_grad != ("delay" in name) for name, parameter in model.named_parameters())


def test_the_width_of_all_delays_is_set_at_once() -> None:
    model = make_delayed()
    model.set_delay_width(5)
    assert (model.delay.delay_width, [layer.delay_width for layer in model.src_layers()]) == (5, [5, 5, 1])
    make_model(24).set_delay_width(5)  # a network without delays has nothing to set


def test_each_tap_of_a_delayed_input_counts_as_an_arrival() -> None:
    ways = make_delayed(taps=3).fan_outs()
    assert [(len(x), x.unique().tolist()) for x in ways] == [(16, [72]), (24, [8 + 24]), (8, [12 + 8]), (12, [3])]
    network = Classifier((2, 3, 3), [SRC(36, 5)], LeakyReadout(5, 1), delay=Delay(18, 4, taps=2))
    assert network.fan_outs()[0].tolist() == [10] * 18
