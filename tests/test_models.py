"""SRCClassifier: inputs and outputs, initial weights, gradients of every parameter, dropout, balanced gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from srcell import SRC, EventBatch, LeakyReadout, SRCConv2d, rate_encode, src_linear
from srcell.functional.readout import scale_neurons
from srcell.models import Classifier, SRCClassifier

STEPS, BATCH, INPUTS, CLASSES = 60, 5, 16, 3


@pytest.fixture
def model() -> SRCClassifier:
    torch.manual_seed(0)
    return SRCClassifier(INPUTS, [24], CLASSES, neurons_per_class=4)


@pytest.fixture
def spikes_in() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    spikes = (torch.rand(STEPS, BATCH, INPUTS, generator=generator) < 0.2).float()
    spikes[:20] = 0
    return spikes


@pytest.mark.parametrize("hidden_sizes", [(), (24,), (24, 8)])
def test_every_layer_spikes_and_every_class_gets_a_logit(hidden_sizes: tuple[int, ...], spikes_in: Tensor) -> None:
    model = SRCClassifier(INPUTS, hidden_sizes, CLASSES, neurons_per_class=4)
    outputs = model.layer_spikes(spikes_in)
    assert [spikes.shape for spikes in outputs] == [(STEPS, BATCH, n) for n in (*hidden_sizes, 4 * CLASSES)]
    assert all(spikes.count_nonzero() > 0 for spikes in outputs)
    assert model(spikes_in).shape == (BATCH, CLASSES)


def test_the_logits_are_the_readout_of_the_last_layer(model: SRCClassifier, spikes_in: Tensor) -> None:
    assert torch.equal(model(spikes_in), model.readout(model.layer_spikes(spikes_in)[-1]))


def test_an_event_batch_is_as_good_as_its_dense_tensor(model: SRCClassifier, spikes_in: Tensor) -> None:
    lengths = torch.tensor([60, 0, 31, 60, 45])
    assert torch.equal(model(EventBatch.from_dense(spikes_in)), model(spikes_in))
    assert torch.equal(model(EventBatch.from_dense(spikes_in, lengths=lengths)), model(spikes_in, lengths))


def test_what_comes_after_the_end_of_a_sample_changes_nothing(model: SRCClassifier, spikes_in: Tensor) -> None:
    lengths = torch.tensor([60, 0, 31, 60, 45])
    padded = spikes_in.clone()
    for sample, length in enumerate(lengths.tolist()):
        padded[length:, sample] = 1
    assert torch.equal(model(padded, lengths), model(spikes_in, lengths))


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


def test_reset_parameters_draws_all_anew_whatever_was_there() -> None:
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


@pytest.mark.parametrize("surrogate", ["straight_through", "relu"])
@pytest.mark.parametrize("recurrent_grad", [False, True])
def test_every_parameter_gets_a_gradient(surrogate: str, recurrent_grad: bool, spikes_in: Tensor) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24], CLASSES, surrogate=surrogate, recurrent_grad=recurrent_grad)
    torch.nn.functional.cross_entropy(model(spikes_in), torch.tensor([0, 1, 2, 0, 1])).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.count_nonzero() > 0, name


@pytest.mark.parametrize("surrogate", ["straight_through", "relu"])
@pytest.mark.parametrize("lengths", [None, torch.tensor([60, 0, 31, 60, 45])])
def test_a_stack_has_the_gradients_of_its_layers_in_a_row(
    surrogate: str, lengths: Tensor | None, spikes_in: Tensor
) -> None:
    torch.manual_seed(0)
    stack = SRC(INPUTS, 24, num_layers=3, surrogate=surrogate).double()
    classifier = SRCClassifier(INPUTS, [24, 24], 3, neurons_per_class=8, surrogate=surrogate).double()
    for layer, suffix in zip(classifier.layers, ("_l0", "_l1", "_l2"), strict=True):
        layer.weight_ih_l0 = getattr(stack, f"weight_ih{suffix}")
        layer.bias_l0 = getattr(stack, f"bias{suffix}")
    parameters = list(stack.parameters())
    input, arriving = spikes_in.double(), torch.randn(STEPS, BATCH, 24, dtype=torch.float64)

    def in_a_row() -> Tensor:
        x = input
        for k in range(3):
            weight, bias = getattr(stack, f"weight_ih_l{k}"), getattr(stack, f"bias_l{k}")
            x, _ = src_linear(x, weight, bias, surrogate=surrogate, lengths=lengths, method="events")
        return x

    expected = in_a_row()
    assert expected.count_nonzero() > 0
    gradients = torch.autograd.grad(expected, parameters, arriving)
    for output in (stack(input, lengths=lengths)[0], classifier.layer_spikes(input, lengths)[-1]):
        assert torch.equal(output, expected)
        for made, gradient in zip(torch.autograd.grad(output, parameters, arriving), gradients, strict=True):
            # With relu, sums of at most 24 products are in another order, in each of three layers.
            assert (made - gradient).abs().max() <= 3 * 24 * 2**-52 * STEPS * BATCH * gradient.abs().max()


@pytest.mark.parametrize(
    "surrogates", [("straight_through", "relu", "relu"), ("relu", "straight_through", "straight_through")]
)
def test_layers_of_two_surrogates_have_the_gradients_that_they_have_in_a_row(
    surrogates: tuple[str, ...], spikes_in: Tensor
) -> None:
    torch.manual_seed(0)
    layers = [SRC(k, 24, surrogate=s) for k, s in zip((INPUTS, 24, 24), surrogates, strict=True)]
    model = Classifier((INPUTS,), layers, LeakyReadout(3, 8)).double()
    x = spikes_in.double()
    arriving = torch.randn(STEPS, BATCH, 24, dtype=torch.float64)
    made = torch.autograd.grad(model.layer_spikes(x)[-1], list(model.parameters()), arriving)
    for layer in layers:
        x, _ = layer(x)
    for gradient, expected in zip(made, torch.autograd.grad(x, list(model.parameters()), arriving), strict=True):
        assert expected.count_nonzero() > 0
        assert (gradient - expected).abs().max() <= 3 * 24 * 2**-52 * STEPS * BATCH * expected.abs().max()


def test_constrain_reaches_every_layer(model: SRCClassifier) -> None:
    for layer in model.layers:
        torch.nn.init.constant_(layer.bias_l0, -1.0)
    model.constrain_()
    assert all(torch.all(layer.bias_l0 == -4.0) for layer in model.layers)


def test_an_unknown_surrogate_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogate"):
        SRCClassifier(INPUTS, [24], CLASSES, surrogate="sigmoid")


def make_images() -> Tensor:
    """Images like MNIST's: a fifth of the pixels are not 0; with rate coding 3 % of the elements are active."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(16, 784, generator=generator) * (torch.rand(16, 784, generator=generator) < 0.2)


def test_every_layer_of_a_deep_network_starts_at_a_healthy_rate() -> None:
    torch.manual_seed(0)
    model = SRCClassifier(784, [128] * 14, num_classes=10)
    with torch.no_grad():
        for spikes in model.layer_spikes(rate_encode(make_images(), seed=0)):
            active = (spikes > 0).float()
            assert 0.02 < active.mean() < 0.08
            assert (active.sum((0, 1)) == 0).float().mean() < 0.1


def test_a_deep_network_starts_without_losing_what_it_is_shown() -> None:
    torch.manual_seed(0)
    model = SRCClassifier(784, [128] * 14, num_classes=10)
    with torch.no_grad():
        once, again = (model.layer_spikes(rate_encode(make_images(), seed=seed)) for seed in (0, 1))
    for k in range(14):
        # For two encodings of an image, a layer's activities are nearer to each other than to those of 15 other images.
        distances = torch.cdist(once[k].sum(0), again[k].sum(0))
        assert (distances.argmin(1) == torch.arange(16)).float().mean() > 0.9


def test_binary_outputs_are_those_above_a_half() -> None:
    torch.manual_seed(0)
    model = SRCClassifier(64, [32], num_classes=10)
    events = rate_encode(torch.rand(4, 64), seed=0)
    with torch.no_grad():
        graded, binary = model.layer_spikes(events), model.layer_spikes(events, binary=True)
        above, _ = model.src_layers()[1](binary[0])
    assert torch.equal(binary[0], (graded[0] > 0.5).float())
    assert torch.equal(binary[1], (above > 0.5).float())


@pytest.mark.parametrize("surrogate", ["straight_through", "relu"])
def test_dropout_silences_hidden_neurons_for_a_sample_in_training(surrogate: str, spikes_in: Tensor) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24], CLASSES, neurons_per_class=4, surrogate=surrogate, dropout=0.5)
    hidden, last = model.layer_spikes(spikes_in)
    torch.manual_seed(1)
    _, thinned = model.layer_spikes(spikes_in)
    torch.manual_seed(1)
    kept = torch.nn.functional.dropout(torch.ones(BATCH, 24), 0.5)
    assert 0 < kept.count_nonzero() < kept.numel()
    expected, _ = model.layers[1](hidden * kept)
    assert torch.equal(thinned, expected) and not torch.equal(thinned, last)
    weights = [layer.weight_ih_l0 for layer in model.layers]
    arriving = torch.randn(thinned.shape, generator=torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(expected, weights, arriving)
    for made, gradient in zip(torch.autograd.grad(thinned, weights, arriving), gradients, strict=True):
        # With relu, the hidden gradient is a sum of 12 products in another order.
        assert (made - gradient).abs().max() <= 12 * STEPS * BATCH * 2**-23 * gradient.abs().max()
    model.eval()
    assert torch.equal(model.layer_spikes(spikes_in)[1], model.layers[1](hidden)[0])


def test_dropout_is_that_of_the_whole_batch_where_it_is_shared(spikes_in: Tensor) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24], CLASSES, dropout=0.5)
    torch.manual_seed(1)
    whole = model.layer_spikes(spikes_in)[1]
    for first in (0, 1):
        model.shared_batch = (BATCH, first, 2)
        torch.manual_seed(1)
        assert torch.equal(model.layer_spikes(spikes_in[:, first::2])[1], whole[:, first::2])


@pytest.mark.parametrize("shared", [(1, 0, 1), (BATCH - 1, 0, 1), (BATCH, 0, 2), (2 * BATCH + 2, 1, 2)])
def test_a_batch_that_is_no_share_of_the_shared_one_is_refused(shared: tuple[int, int, int], spikes_in: Tensor) -> None:
    """Regression: with one sample in the shared batch all samples got the same mask."""
    model = SRCClassifier(INPUTS, [24], CLASSES, dropout=0.5)
    model.shared_batch = shared
    with pytest.raises(ValueError, match=rf"^input: expected \d samples, .* got {BATCH}$"):
        model(spikes_in)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": 2},
        {"dilation": 2},
        {"groups": 2, "dilation": (1, 2), "stride": (2, 1), "padding": (1, 0)},
        {"padding": "same"},
    ],
)
def test_fan_outs_count_the_weights_of_any_convolution(options: dict[str, Any]) -> None:
    layer = SRCConv2d(2, 4, kernel_size=3, **options)
    above = layer.current(torch.zeros(1, 1, 2, 6, 5)).shape[2:]
    model = Classifier((2, 6, 5), [layer, SRC(above.numel(), 20)], LeakyReadout(10, 2))
    with torch.inference_mode():
        inputs, neurons, last = model.fan_outs()
    weight = torch.ones_like(layer.weight)
    expected = []
    for k in range(2 * 6 * 5):
        one = torch.zeros(2 * 6 * 5)
        one[k] = 1
        met = F.conv2d(one.view(1, 2, 6, 5), weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
        expected.append(int(met.sum()))
    assert inputs.tolist() == expected
    assert neurons.shape == above and set(neurons.flatten().tolist()) == {20} and last.tolist() == [10] * 20


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_probability_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match="dropout: expected a probability in"):
        SRCClassifier(INPUTS, [24], CLASSES, dropout=dropout)


@pytest.mark.parametrize("shape", [(6, 3, 4), (5, 2, 3, 2, 2), (0, 3, 4)])
def test_scaled_neurons_are_a_product_with_its_gradient(shape: tuple[int, ...]) -> None:
    spikes = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    factors = torch.rand(shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.equal(scale_neurons(spikes, factors), spikes * factors)
    scale_neurons(spikes, factors).square().sum().backward()
    assert torch.equal(spikes.grad, 2 * (spikes * factors) * factors)


def balanced_run(spikes_in: Tensor, lengths: Tensor | None = None, *, balance: bool = True) -> list[Tensor]:
    """The gradients of every layer's output and of the first layer's weights."""
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24, 24, 24], CLASSES, balance_gradients=balance)
    outputs = model.layer_spikes(spikes_in, lengths)
    for output in outputs:
        output.retain_grad()
    logits = model.readout(outputs[-1], lengths=lengths)
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1])).backward()
    return [*(output.grad for output in outputs), model.layers[0].weight_ih_l0.grad]


def test_balanced_gradients_have_one_size_in_all_layers(spikes_in: Tensor) -> None:
    *plain, _ = balanced_run(spikes_in, balance=False)
    *balanced, last, _ = balanced_run(spikes_in)
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


def test_balanced_gradients_do_not_see_what_comes_after_a_sample(spikes_in: Tensor) -> None:
    lengths = torch.full((BATCH,), STEPS)
    *_, expected = balanced_run(spikes_in, lengths)
    *_, padded = balanced_run(torch.cat([spikes_in, torch.ones(STEPS, BATCH, INPUTS)]), lengths)
    # Twice the mean over twice the steps, half of them 0, is the same up to the order of the sum.
    assert (padded - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_gradients_are_balanced_in_training_alone(spikes_in: Tensor) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24, 24], CLASSES, balance_gradients=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(model(spikes_in).square().sum(), model.layers[0].weight_ih_l0)[0]

    balanced = gradient()
    model.balance_gradients = False
    plain = gradient()
    model.balance_gradients = True
    model.eval()
    assert torch.equal(gradient(), plain) and not torch.equal(balanced, plain)


def test_a_sample_without_a_gradient_stays_without_one(spikes_in: Tensor) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24, 24], CLASSES, balance_gradients=True)
    first, *_, last = model.layer_spikes(spikes_in)
    first.retain_grad()
    (1e6 * last[:, 1:]).sum().backward()
    grad = first.grad
    assert grad[:, 0].count_nonzero() == 0 and torch.all(grad.isfinite()) and grad[:, 1:].count_nonzero() > 0


def test_a_hidden_gradient_of_zero_stays_zero(spikes_in: Tensor) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24], CLASSES, balance_gradients=True)
    torch.nn.init.zeros_(model.layers[1].weight_ih_l0)
    (1e6 * model.layer_spikes(spikes_in)[-1]).sum().backward()
    assert model.layers[0].weight_ih_l0.grad.count_nonzero() == 0


def test_balancing_lets_frozen_layers_and_other_losses_be(spikes_in: Tensor) -> None:
    torch.manual_seed(0)
    model = SRCClassifier(INPUTS, [24, 24], CLASSES, balance_gradients=True)
    weight = model.layers[0].weight_ih_l0
    (gradient,) = torch.autograd.grad(model.layer_spikes(spikes_in)[0].sum(), weight)
    model.balance_gradients = False
    assert torch.equal(gradient, torch.autograd.grad(model.layer_spikes(spikes_in)[0].sum(), weight)[0])
    model.balance_gradients = True
    model.layers[0].requires_grad_(False)
    model(spikes_in).sum().backward()
    assert weight.grad is None and model.layers[1].weight_ih_l0.grad.count_nonzero() > 0


def test_relu_is_not_balanced() -> None:
    with pytest.raises(ValueError, match="balance_gradients: expected False with the surrogate 'relu'"):
        SRCClassifier(INPUTS, [24], CLASSES, surrogate="relu", balance_gradients=True)


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.8, "surrogate": "relu", "recurrent_grad": True, "initial_state": "rest"}]
)
def test_every_layer_has_the_options(options: dict[str, Any]) -> None:
    expected = {
        "alpha": 0.9,
        "surrogate": "straight_through",
        "recurrent_grad": False,
        "initial_state": "zeros",
    } | options
    for layer in SRCClassifier(6, [5, 4], num_classes=2, **options).src_layers():
        found = {name: getattr(layer, name) for name in expected if name != "alpha"}
        assert found | {"alpha": layer.get_extra_state()[1].item()} == expected


def test_layers_start_at_the_scales_that_the_documentation_derives() -> None:
    torch.manual_seed(0)
    first, last = SRCClassifier(400, [900], num_classes=10, neurons_per_class=90).src_layers()
    assert first.weight_ih_l0.std().item() * 400**0.5 == pytest.approx(3.0, rel=0.02)
    assert last.weight_ih_l0.std().item() * 900**0.5 == pytest.approx(6.0, rel=0.02)
    (hidden,) = list(SRCClassifier(400, [900, 900], num_classes=2).src_layers())[1:2]
    relays = hidden.weight_ih_l0.detach().diagonal()
    assert relays.mean().item() == pytest.approx(3.0, rel=0.01)
    assert (hidden.weight_ih_l0.detach() - 3 * torch.eye(900)).std().item() * 30 == pytest.approx(0.5, rel=0.02)
