"""Networks as ONNX models in onnxruntime: in float32 nearly the spikes of the layers, in float64 the same outputs to
1e-12, for integer networks the same bits, for whole delays of inputs equal outputs. Invalid arguments raise an error.

A spike is counted where an output crosses 0.5 upwards. Two correct roundings in float32 move some spikes by a step
(docs/howto/onnx.md), so in float32 these tests require most spikes at exactly their step; float64 covers the rest.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import SRC, Delay, EventBatch, IntegerSRC, SpikesOnly, data
from srcell.models import IntegerClassifier, SRCClassifier, SRCConvClassifier
from support.calls import EXPORTS_ONNX
from support.imports import output_without

pytestmark = pytest.mark.landing

reason = 'pip install "srcell[test]"'
onnx: Any = pytest.importorskip("onnx", reason=reason)
onnxruntime: Any = pytest.importorskip("onnxruntime", reason=reason)
pytest.importorskip("onnxscript", reason=reason)
if not EXPORTS_ONNX:
    pytest.skip("torch.onnx.export takes a table from torch 2.6 on", allow_module_level=True)

from srcell.onnx import export, translation_table  # noqa: E402  (needs the packages checked above)

ROOT = Path(__file__).resolve().parent.parent
STEPS, BATCH, INPUTS = 120, 16, 24
SHARE = 0.98  # of the union of both sides' spikes: 0.5 % may move in 220 steps, and there are only some hundred here


class AllSpikes(nn.Module):
    """A classifier that also returns the spikes of its layers."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, input: Tensor) -> tuple[Tensor, ...]:
        spikes = self.net.layer_spikes(input)  # type: ignore[operator]
        return self.net.readout(spikes[-1]), *spikes  # type: ignore[operator]


class GivenCurrents(nn.Module):
    """Neurons without a synapse."""

    def forward(self, input: Tensor) -> tuple[Tensor, srcell.SRCState]:
        return srcell.src(4 * input, torch.full((INPUTS,), -5.0).to(input))


def spikes_in(steps: int = STEPS, *shape: int) -> Tensor:
    return (torch.rand(steps, *(shape or (BATCH, INPUTS))) < 0.15).float()


def session(file: Path | bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        file if isinstance(file, bytes) else str(file), options, providers=["CPUExecutionProvider"]
    )


def translated(model: nn.Module, arguments: tuple[Any, ...], **options: Any) -> Any:
    """The program that torch's own exporter makes from a model with our translation table."""
    table = translation_table()
    return torch.onnx.export(model, arguments, dynamo=True, verbose=False, custom_translation_table=table, **options)


def run(model: nn.Module, input: Tensor, folder: Path) -> tuple[list[Any], list[Any]]:
    """The outputs of onnxruntime and of the model itself for an input, after a check of the file."""
    export(model, folder / "model.onnx", input[:5, :2])
    written = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(written, full_check=True)
    assert {node.domain for node in written.graph.node} == {""} and not written.functions
    with torch.no_grad():
        wanted = [x.numpy() for x in torch.utils._pytree.tree_leaves(model.eval()(input))]
    return session(folder / "model.onnx").run(None, {"input": input.numpy()}), wanted


def shares(found: list[Any], wanted: list[Any]) -> list[float]:
    """For each pair of outputs (T, B, ...), the share of spikes that both sides have, of those that either side has."""
    ratios = []
    for pair in zip(found, wanted, strict=True):
        above = [np.pad(x > 0.5, [(1, 0)] + [(0, 0)] * (x.ndim - 1)) for x in pair]
        first, second = (x[1:] & ~x[:-1] for x in above)
        assert (first | second).sum() > 50, "too few spikes to compare"
        ratios.append(float((first & second).sum() / (first | second).sum()))
    return ratios


def lively(net: Any) -> Any:
    """The network with biases at which its neurons fire often."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "bias" in name and "readout" not in name:
                parameter.fill_(-5.2)
    return net


def outside(layer: SRC) -> SRC:
    """The layer with values that act otherwise."""
    with torch.no_grad():
        layer.alpha_l0.fill_(-0.2)
        layer.zs_hyp_l0.fill_(1.1)
        layer.weight_hh_l0.diagonal().fill_(5.0)
    return layer


def with_biases(layer: SRC) -> SRC:
    """The layer with biases on both sides of its bound."""
    with torch.no_grad():
        layer.bias_l0.copy_(torch.linspace(-6.5, 0, len(layer.bias_l0)))
    return layer


FREQUENCIES = srcell.spread_frequencies(0.05, 2)
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "hidden layers": lambda: SRCClassifier(INPUTS, [30, 20], 5, initial_state="rest", readout_alpha=1.0),
    "lateral": lambda: SRCClassifier(INPUTS, [30], 5, recurrent=True, zs_hyp=0.5, alpha=srcell.spread(0.5, 0.99)),
    "resonant": lambda: SRCClassifier(INPUTS, [30, 20], 5, omega=FREQUENCIES),
    "resonant, lateral": lambda: SRCClassifier(INPUTS, [30], 5, recurrent=True, omega=FREQUENCIES, readout="linear"),
    "lateral delays": lambda: SRCClassifier(
        INPUTS, [30], 5, recurrent=True, zs_hyp=0.5, alpha=srcell.spread(0.5, 0.99), recurrent_delay=9
    ),
    "input delays": lambda: SRCClassifier(INPUTS, [30], 5, input_delay=12, taps=2, learn_delays=True),
    "linear readout": lambda: SRCClassifier(INPUTS, [30], 5, readout="linear", readout_window=20),
    "standardised": lambda: SRCClassifier(
        INPUTS, [30], 5, standardise=srcell.Standardise(0.2 * torch.rand(INPUTS), 0.6 + 0.4 * torch.rand(INPUTS))
    ),
    "convolutions": lambda: SRCConvClassifier((2, 6, 6), [3, 4], [20], 5, initial_state="rest"),
}
# If one parameter is a tensor, torch's exporter writes the float parameters with the digits of float32.
LAYERS: dict[str, Callable[..., nn.Module]] = {
    "stacked": lambda **dtype: SRC(INPUTS, 20, num_layers=2, initial_state="rest", **dtype),
    "lateral, rest": lambda **dtype: SRC(INPUTS, 20, recurrent=True, autapses=False, initial_state="rest", **dtype),
    "a value for each neuron": lambda **dtype: SRC(
        INPUTS, 20, alpha=srcell.spread(0.5, 0.99), rho=torch.linspace(2, 4, 20), rs=-6.5, zs_hyp=0.875, **dtype
    ),
    "learnt": lambda **dtype: SRC(
        INPUTS, 20, learnable=("alpha", "r"), zs_hyp=0.875, full_gradient=True, learn_initial_state=True, **dtype
    ),
    "resonant": lambda **dtype: SRC(
        INPUTS, 20, recurrent=True, omega=torch.linspace(-3, 3, 20), alpha=0.875, zs_hyp=0.875, **dtype
    ),
    "resonant, learnt": lambda **dtype: SRC(
        INPUTS, 20, omega=FREQUENCIES, learnable=("omega", "alpha", "zs_hyp"), full_gradient=True, **dtype
    ),
    "delayed by a float": lambda **dtype: SRC(INPUTS, 20, recurrent=True, delay_hh=2.3, zs_hyp=0.875, **dtype),
    "delayed by whole steps, rest": lambda **dtype: SRC(
        INPUTS, 20, recurrent=True, delay_hh=torch.arange(20.0) % 7, initial_state="rest", **dtype
    ),
    "delayed, some past the end, stacked": lambda **dtype: SRC(
        INPUTS, 20, num_layers=2, recurrent=True, delay_hh=torch.linspace(0, 30, 20), zs_hyp=0.875, **dtype
    ),
    "resonant, delayed, learnt, wide": lambda **dtype: SRC(
        INPUTS,
        20,
        recurrent=True,
        omega=torch.linspace(-3, 3, 20),
        alpha=0.875,
        zs_hyp=0.875,
        delay_hh=torch.linspace(0, 5, 20),
        max_delay=6,
        delay_width=3,
        learnable=("delay_hh",),
        full_gradient=True,
        **dtype,
    ),
    "bounded biases": lambda **dtype: with_biases(SRC(INPUTS, 20, initial_state="rest", **dtype)),
    "outside their domains, rest": lambda **dtype: outside(
        SRC(
            *(INPUTS, 20),
            recurrent=True,
            autapses=False,
            initial_state="rest",
            learnable=("alpha", "zs_hyp"),
            full_gradient=True,
            **dtype,
        )
    ),
    "a fixed bias": lambda **dtype: SRC(INPUTS, 20, learn_bias=False, bias_init=-5.5, **dtype),
    "currents": lambda **dtype: GivenCurrents(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_has_nearly_the_same_spikes_in_float32(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = lively(NETWORKS[name]())
    shape = (BATCH, *net.input_shape)
    (logits, *spikes), (wanted, *spikes_wanted) = run(AllSpikes(net), spikes_in(STEPS, *shape), tmp_path)
    assert min(shares(spikes, spikes_wanted)) >= SHARE
    assert np.abs(logits - wanted).mean() < 0.01 * np.abs(wanted).max()


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same_in_float64(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    layer = LAYERS[name](dtype=torch.float64)
    found, wanted = run(layer, spikes_in(20).double(), tmp_path)
    assert len(found) == 4 + ("resonant" in name) + ("delayed" in name) and wanted[0].any()
    for ours, theirs in zip(found, wanted, strict=True):  # 20 steps: last bits grow to 1e-12 at most
        assert ours.dtype == np.float64 and np.abs(ours - theirs).max() < 1e-12


# The last two have thresholds that h often meets exactly, because it is clamped there.
@pytest.mark.parametrize(
    "cell",
    [
        srcell.IntegerCell(),
        srcell.IntegerCell(bias=-3000, i_max=900, fraction_bits=11),
        srcell.IntegerCell(spike_threshold=1023),
        srcell.IntegerCell(gate_threshold=1023),
    ],
)
def test_an_integer_network_has_the_same_bits(cell: srcell.IntegerCell, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = IntegerClassifier(INPUTS, [30], 5, weight_bits=[8, 16], cell=cell, initial_state="rest")
    found, wanted = run(AllSpikes(net), spikes_in(), tmp_path)
    assert all(x.any() for x in wanted)
    for ours, theirs in zip(found[1:], wanted[1:], strict=True):
        assert np.array_equal(ours, theirs)
    assert np.allclose(found[0], wanted[0], atol=1e-5)  # the readout is in float32
    state = run(IntegerSRC(INPUTS, 20, cell=cell), spikes_in(), tmp_path)
    assert all(np.array_equal(ours, theirs) and ours.dtype == theirs.dtype for ours, theirs in zip(*state, strict=True))


def test_trained_weights_keep_the_documented_share_of_spikes(tmp_path: Path) -> None:
    """A 784-100 network on scikit-learn's digits, at the size of MNIST's, keeps 99.5 % of spikes and all answers."""
    net = srcell.load(ROOT / "experiments" / "results" / "mnist-100")
    digits = data.load("digits").test.images[:150].view(-1, 1, 8, 8)
    images = nn.functional.interpolate(digits, (28, 28), mode="bilinear")
    events = net.encoder(images, seed=1).to_dense()
    (logits, spikes), (wanted, spikes_wanted) = run(AllSpikes(net), events, tmp_path)
    assert shares([spikes], [spikes_wanted])[0] >= 0.995
    assert (logits.argmax(1) == wanted.argmax(1)).all()


@pytest.mark.parametrize(("width", "whole"), [(1, True), (1, False), (2, False)])
@pytest.mark.parametrize("taps", [1, 2])
def test_delays_of_inputs_differ_by_roundings_and_whole_delays_not_at_all(
    taps: int, width: int, whole: bool, tmp_path: Path
) -> None:
    layer = Delay(INPUTS, 30, taps=taps, delay_width=width)
    net, delay = SpikesOnly(layer), torch.linspace(0, 30, taps * INPUTS).view(INPUTS, taps)
    with torch.no_grad():  # longer than some sequences; some with terms that would arrive before they depart
        layer.delay.copy_(delay.round() if whole else delay)
    export(net, tmp_path / "delay.onnx", spikes_in(5, 2, INPUTS))
    ready = session(tmp_path / "delay.onnx")
    # Inputs are at most 1 and factors add up to 1, so each of 2 width products and sums rounds by at most eps / 2; with
    # fused operations on one side and separate ones on the other, that is less than 2 width eps in all.
    bound = 0.0 if whole else 2 * width * np.finfo(np.float32).eps
    for steps, batch in ((20, 3), (1, 1), (50, 1)):
        x = torch.rand(steps, batch, INPUTS)
        (ours,), theirs = ready.run(None, {"input": x.numpy()}), net(x).detach().numpy()
        assert ours.dtype == np.float32 and ours.shape == theirs.shape and theirs.any()
        assert np.abs(ours - theirs).max() <= bound


class DelayedTerms(nn.Module):
    """The operator of delayed inputs, with terms that do not arrive and steps that are skipped."""

    def __init__(self, *, has_factors: bool, keep_zeros: bool) -> None:
        super().__init__()
        self.has_factors, self.keep_zeros = has_factors, keep_zeros

    def forward(self, input: Tensor, lengths: Tensor) -> Tensor:
        first = torch.tensor([-1, 0, 2, 7, 1, -2], dtype=torch.int32)
        factors = torch.tensor([[0.5, 0.25, 0.0], [1.0, 0.0, 0.0]] * 3) if self.has_factors else None
        options = {"taps": 2, "skip": 1, "keep_zeros": self.keep_zeros}
        delayed: Tensor = torch.ops.srcell.delay_dense(input, first, factors, lengths, **options)
        return delayed


@pytest.mark.parametrize("keep_zeros", [False, True])
@pytest.mark.parametrize("has_factors", [False, True])
def test_only_terms_that_arrive_reach_the_delayed_input(has_factors: bool, keep_zeros: bool) -> None:
    net = DelayedTerms(has_factors=has_factors, keep_zeros=keep_zeros)
    x, lengths = torch.rand(9, 3, 3), torch.tensor([9, 0, 6])
    x[1, 0, 1] = x[2, 0, 2] = x[6:, 2] = float("nan")  # factors of 0 let it through only if they are kept
    ready = session(translated(net, (x, lengths)).model_proto.SerializeToString())
    names = [given.name for given in ready.get_inputs()]
    (ours,) = ready.run(None, dict(zip(names, (x.numpy(), lengths.numpy()), strict=True)))
    theirs = net(x, lengths).numpy()
    assert np.isnan(theirs).any() and not np.isnan(theirs[:, 1:]).any()
    assert np.array_equal(ours, theirs, equal_nan=True)  # the factors are powers of two: products are exact


def test_the_recorded_measurements_are_within_the_promised_bounds() -> None:
    rows = json.loads((ROOT / "experiments" / "results" / "onnx.json").read_text())["rows"]
    assert {"784-100", "deep", "lateral"} <= {row["network"] for row in rows}
    for row in rows:
        assert row["samples"] == 10_000
        assert abs(row["accuracy"] - row["onnx"]["accuracy"]) <= 0.001
    assert next(row for row in rows if row["network"] == "784-100")["onnx"]["equal_spikes"] >= 0.995


def test_a_model_takes_any_number_of_steps_and_samples(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = SRCClassifier(INPUTS, [20], 5)
    net.train()
    export(net, tmp_path / "net.onnx")
    assert net.training and net.layers[0].training
    ready = session(tmp_path / "net.onnx")
    assert [x.name for x in (*ready.get_inputs(), *ready.get_outputs())] == ["input", "logits"]
    assert ready.get_inputs()[0].shape == ["steps", "batch", INPUTS]
    for shape in ((1, 1), (30, 1), (7, 9), (30, 0)):
        x = spikes_in(shape[0], shape[1], INPUTS)
        (logits,) = ready.run(None, {"input": x.numpy()})
        assert logits.shape == (shape[1], 5)
        assert np.allclose(logits, net(x).detach().numpy(), atol=1e-3)


class WithLengths(nn.Module):
    """A layer that takes lengths as a positional argument, for torch's exporter."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.double()

    def forward(self, input: Tensor, lengths: Tensor, state: Any) -> Any:
        return self.layer(input, state, lengths=lengths)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SRC(INPUTS, 20, recurrent=True),
        lambda: SRC(INPUTS, 20, recurrent=True, delay_hh=torch.linspace(0, 9, 20)),
        lambda: SRC(INPUTS, 20, recurrent=True, delay_hh=5.0, delay_width=2, omega=0.5),
        lambda: Delay(INPUTS, 6, taps=2),
    ],
    ids=["lateral", "delayed", "delayed, resonant", "delays of inputs"],
)
def test_lengths_and_state_are_inputs_and_padding_changes_nothing(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    net = WithLengths(make())
    x, lengths = spikes_in(20, 4, INPUTS).double(), torch.tensor([20, 0, 7, 15])
    x[15:, 3] = float("nan")
    with torch.no_grad():
        _, state = net.layer(spikes_in(12, 4, INPUTS).double())
    state, sample_dim = (state, 0) if isinstance(state, Tensor) else (tuple(state), 1)
    samples = torch.export.Dim("batch")
    of_state = torch.utils._pytree.tree_map(lambda _: {sample_dim: samples}, state)
    sizes = ({0: torch.export.Dim("steps"), 1: samples}, {0: samples}, of_state)
    program = translated(net, (torch.zeros_like(x), lengths, state), dynamic_shapes=sizes)
    ready = session(program.model_proto.SerializeToString())
    names = [given.name for given in ready.get_inputs()]
    now, parts = [part.numpy() for part in torch.utils._pytree.tree_leaves(state)], []
    for k, part in enumerate(x.split(4)):  # shorter than the longest delays
        given = [part.numpy(), (lengths - 4 * k).clamp(0, 4).numpy(), *now]
        spikes, *now = ready.run(None, dict(zip(names, given, strict=True)))
        parts.append(spikes)
    expected = torch.utils._pytree.tree_leaves(net(x, lengths, state))
    assert all(x.any() for x in expected)
    for ours, theirs in zip((np.concatenate(parts), *now), expected, strict=True):
        assert np.abs(ours - theirs.detach().numpy()).max() < 1e-12


@pytest.mark.parametrize("encoding", [data.HeldEncoding(3, 5), data.HeldEncoding(2), data.HeldEncoding(1)])
def test_a_model_with_its_encoding_takes_the_elements_of_sequences(encoding: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    standardise = srcell.Standardise(torch.randn(INPUTS), 0.5 + torch.rand(INPUTS))
    layer = SRC(INPUTS, 20, recurrent=True, alpha=0.875, zs_hyp=0.875)
    network = srcell.Sequential(standardise, layer).double()
    network.encoder = encoding
    export(network, tmp_path / "net.onnx", torch.zeros(2, 2, INPUTS, dtype=torch.float64), encode=True)
    model = session(tmp_path / "net.onnx")
    for batch, elements in ((3, 20 // encoding.hold), (1, 1)):
        values = torch.randn(batch, elements, INPUTS, dtype=torch.float64)
        (found,) = model.run(None, {"input": values.transpose(0, 1).contiguous().numpy()})
        with torch.no_grad():
            expected = network(encoding(values)).numpy()
        assert np.abs(found - expected).max() < 1e-12 and (elements == 1 or expected.any())


def test_a_classifier_with_its_encoding_needs_no_example(tmp_path: Path) -> None:
    network = SRCClassifier(INPUTS, [20], 5)
    network.encoder = data.HeldEncoding(3)
    export(network, tmp_path / "net.onnx", encode=True)
    values = torch.randn(2, 6, INPUTS)
    (logits,) = session(tmp_path / "net.onnx").run(["logits"], {"input": values.transpose(0, 1).contiguous().numpy()})
    np.testing.assert_allclose(logits, network(network.encoder(values)).detach(), atol=0.01)


def test_a_model_with_dropout_exports_in_training_mode() -> None:
    program = translated(SRCClassifier(INPUTS, [20], 5, dropout=0.5).train(), (spikes_in(5, 2, INPUTS),))
    assert any(node.op_type == "Scan" for node in program.model_proto.graph.node)


@pytest.mark.filterwarnings("ignore")
def test_invalid_arguments_raise_an_error_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, path = SRCClassifier(INPUTS, [], 5), tmp_path / "net.onnx"
    events = EventBatch.from_dense(spikes_in(5, 2, INPUTS))
    with pytest.raises(TypeError, match=r"^input: expected a dense tensor \(T, B, ...\), got EventBatch"):
        export(net, path, events)  # type: ignore[arg-type]
    for takes_events in (net, SpikesOnly(Delay(INPUTS, 3))):
        with pytest.raises(torch.onnx.errors.OnnxExporterError, match="expected a dense tensor, got an EventBatch"):
            translated(takes_events, (events,))
    with pytest.raises(TypeError, match=r"^input: expected an example \(T, B, ...\) for a SRC, got None"):
        export(SRC(3, 2), path)
    with pytest.raises(ValueError, match=r"^input: expected shape \(T, B, ...\) with T and B of at least 2, got "):
        export(net, path, torch.zeros(5, 1, INPUTS))
    for encoder, got in (
        (None, "None"),
        (data.RateEncoding(), "RateEncoding"),
        (data.SoundEncoding(), "SoundEncoding"),
    ):
        net.encoder = encoder
        with pytest.raises(
            ValueError, match=f"^encode: expected False for a model without a HeldEncoding .*, got {got}"
        ):
            export(net, path, encode=True)
    with pytest.raises(TypeError, match=r"^encode: expected a bool, got int"):
        export(net, path, encode=1)  # type: ignore[arg-type]
    assert not path.exists()
    monkeypatch.setattr(torch.onnx, "export", lambda model, args: None)
    with pytest.raises(RuntimeError, match=r"^torch: expected version 2\.6 or newer, got "):
        export(net, path)


def test_srcell_without_onnx_says_what_is_missing() -> None:
    program = """
        import srcell, srcell.models
        try:
            import srcell.onnx
        except ImportError as error:
            print(error)
    """
    printed = output_without(["onnx", "onnx_ir", "onnxscript"], program)
    assert printed == 'onnx_ir is not installed: pip install "srcell[onnx]"'
