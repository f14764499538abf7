"""Skip connections of linear readouts: against their definition, in networks, in files and in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import EventBatch
from srcell.evaluation import evaluate
from srcell.models import SRCClassifier
from srcell.training import TrainingConfig, train
from support.calls import EXPORTS_ONNX
from support.networks import exported
from support.refusals import Message, Refusal, refusals
from test_export_networks import drawn

DRAWS = True  # figures of runs: conftest.py
STEPS, BATCH, INPUTS, NEURONS, OUTPUTS = 20, 4, 5, 16, 3


def readout(**options: Any) -> srcell.LinearReadout:
    torch.manual_seed(0)
    made = drawn(srcell.LinearReadout(NEURONS, OUTPUTS, skip=INPUTS, **options))
    assert isinstance(made, srcell.LinearReadout)
    return made


def spikes() -> Tensor:
    return torch.rand(STEPS, BATCH, NEURONS, generator=torch.Generator().manual_seed(1))


def numbers() -> Tensor:
    return torch.randn(STEPS, BATCH, INPUTS, generator=torch.Generator().manual_seed(2))


def plain(of: srcell.LinearReadout, **options: Any) -> srcell.LinearReadout:
    """The readout without its skip connection."""
    made = srcell.LinearReadout(NEURONS, OUTPUTS, alpha=of.alpha, window=of.window, **options)
    made.linear = of.linear
    return made


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("lengths", [None, [20, 7, 1, 0]])
def test_a_linear_map_of_the_input_is_added(lengths: list[int] | None, window: int) -> None:
    made, s, x = readout(window=window), spikes(), numbers()
    weight = made.skip.weight
    inside = torch.arange(STEPS)[:, None] < torch.tensor(lengths or [STEPS] * BATCH)
    wanted = plain(made)(s, lengths, every_step=True) + (x * inside[..., None]) @ weight.t()
    found = made(s, lengths, input=x, every_step=True)
    torch.testing.assert_close(found, wanted)
    last = torch.tensor(lengths or [STEPS] * BATCH) - 1
    at_last = wanted[last.clamp(min=0), torch.arange(BATCH)]
    at_last[last < 0] = made.linear.bias  # a sample without steps has no input
    torch.testing.assert_close(made(s, lengths, input=x), at_last)
    events = EventBatch.from_dense(x)
    torch.testing.assert_close(made(s, lengths, input=events, every_step=True), wanted)
    by_sample = plain(made, batch_first=True)
    by_sample.skip = made.skip
    given = s.transpose(0, 1), lengths
    first = by_sample(*given, input=x.transpose(0, 1), every_step=True)
    torch.testing.assert_close(first.transpose(0, 1), wanted)


@pytest.mark.parametrize("every_step", [False, True])
def test_what_is_past_the_end_of_a_sample_has_no_influence(every_step: bool) -> None:
    made, s, x = readout(), spikes(), numbers()
    lengths = torch.tensor([20, 7, 1, 0])
    wanted = made(s, lengths, input=x, every_step=every_step)
    wanted.sum().backward()
    gradient = made.skip.weight.grad.clone()
    broken = x.masked_fill((torch.arange(STEPS)[:, None] >= lengths)[..., None], torch.nan).requires_grad_()
    made.zero_grad()
    found = made(s, lengths, input=broken, every_step=every_step)
    found.sum().backward()
    assert torch.equal(found, wanted) and torch.equal(made.skip.weight.grad, gradient)
    assert broken.grad is not None and broken.grad.isfinite().all()


def test_it_begins_at_zero_and_returns_there() -> None:
    made = srcell.LinearReadout(NEURONS, OUTPUTS, skip=INPUTS)
    assert torch.equal(made(spikes(), input=numbers()), plain(made)(spikes()))
    drawn(made)
    made.reset_parameters()
    assert not made.skip.weight.any() and "skip=5" in repr(made)
    assert srcell.LinearReadout(NEURONS, OUTPUTS).state_dict().keys() == plain(made).state_dict().keys()


def test_half_precision_and_a_compiled_call() -> None:
    made, s, x = readout(), spikes(), numbers()
    wanted = made(s, input=x, every_step=True)
    half = made.to(torch.bfloat16)(s.bfloat16(), input=x.bfloat16(), every_step=True)
    assert half.dtype == torch.bfloat16 and (half - wanted).abs().max() < 0.1 * wanted.abs().max()
    again = readout()
    compiled = torch.compile(again, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(s, input=x, every_step=True), wanted)


@refusals(
    Message("input: expected the network's input, .T, B, 5., for the skip", lambda: readout()(spikes()), TypeError),
    Message("input: expected the network's input", lambda: readout()(spikes(), input=numbers().long()), TypeError),
    Message("input: expected shape .20, 4, 5., got", lambda: readout()(spikes(), input=numbers()[1:])),
    Message("input: expected shape .20, 4, 5., got", lambda: readout()(spikes(), input=numbers()[..., 1:])),
    Message("input: expected device cpu, as spikes has", lambda: readout()(spikes(), input=numbers().to("meta"))),
    Message("input: expected None for a readout without", lambda: plain(readout())(spikes(), input=numbers())),
    Refusal("skip", lambda: srcell.LinearReadout(3, 2, skip=-1)),
    Refusal("skip", lambda: srcell.LinearReadout(3, 2, skip=1.5), TypeError),  # type: ignore[arg-type]
    Refusal("skip", lambda: SRCClassifier(3, [4], 2, skip=True)),
    Refusal("skip", lambda: SRCClassifier(3, [4], 2, readout="linear", skip=1), TypeError),  # type: ignore[arg-type]
    Refusal("skip", lambda: TrainingConfig(skip=True)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Message | Refusal) -> None:
    refusal.check()


def sequential(*, every_step: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return drawn(
        srcell.Sequential(
            srcell.Standardise(torch.randn(INPUTS), 0.5 + torch.rand(INPUTS)),
            srcell.SRC.for_sequences(INPUTS, NEURONS, memory=20),
            nn.Dropout(),
            srcell.LinearReadout(NEURONS, OUTPUTS, alpha=0.8, skip=INPUTS, every_step=every_step),
        )
    ).eval()


@torch.no_grad()
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("lengths", [None, [20, 7, 1, 0]])
def test_a_network_gives_its_standardised_input_and_a_file_the_same(
    every_step: bool, lengths: list[int] | None
) -> None:
    net, x = sequential(every_step=every_step), numbers()
    logits = net(x, lengths)
    inner = net[1](net[0](x, lengths), lengths=lengths)[0]
    torch.testing.assert_close(logits, net[3](inner, lengths, input=net[0](x, lengths)))
    runs = exported(net)
    inside = np.array(lengths or [STEPS] * BATCH)
    given = x.numpy() * (np.arange(STEPS)[:, None] < inside)[..., None]
    found = runs.run(given, lengths=None if lengths is None else inside)
    torch.testing.assert_close(torch.from_numpy(found), logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_stream_has_the_bits_of_a_whole_sample_and_can_be_saved() -> None:
    runs, x = exported(sequential(every_step=True)), numbers().numpy()
    whole = runs.run(x)
    stream, parts = runs.stream(BATCH), []
    for step in range(STEPS):
        stream.step(x[step])
        if step == STEPS // 2:
            kept = runs.stream(BATCH)
            kept.restore(stream.save())
            stream = kept
        parts.append(stream.logits())
    assert np.array_equal(np.stack(parts), whole)
    stream.reset()
    assert not np.array_equal(stream.logits(), parts[-1])
    again = runs.stream(BATCH)
    assert np.array_equal(stream.logits(), again.logits())


def test_a_refused_step_leaves_the_answer_of_a_stream() -> None:
    net = srcell.Sequential(srcell.IntegerSRC(INPUTS, 6, weight_bits=8), srcell.LinearReadout(6, 2, skip=INPUTS))
    stream = exported(drawn(net)).stream()
    stream.step(np.ones((1, INPUTS), np.float32))
    before = stream.logits()
    with pytest.raises(ValueError, match="values"):
        stream.step(np.full((1, INPUTS), 0.5, np.float32))
    assert np.array_equal(stream.logits(), before)


def test_a_quantised_readout_and_events_with_lengths() -> None:
    net, x = sequential(), numbers()
    small = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    with torch.no_grad():
        assert (small(x) - net(x)).abs().max() < 0.1 * net(x).abs().max()
    made, lengths = readout(), torch.tensor([20, 7, 1, 0])
    events = EventBatch.from_dense(x * (torch.arange(STEPS)[:, None] < lengths)[..., None], lengths)
    assert torch.equal(made(spikes(), input=events), made(spikes(), lengths, input=x))


def test_a_learner_refuses_it_but_for_new_classes() -> None:
    runs = exported(sequential())
    with pytest.raises(ValueError, match="network: expected one without a skip connection"):
        runs.learner()
    learner = runs.learner(classes=["a", "b"])
    learner.step(numbers().numpy(), [0, 1, 0, 1])
    assert learner.network().num_classes == 2


@refusals(
    Message(
        r"network.1 \(LinearReadout\): expected a skip connection from 4 inputs, those of network.0 \(SRC\), got 5",
        lambda: exported(srcell.Sequential(srcell.SRC(4, 6), srcell.LinearReadout(6, 2, skip=5))),
    ),
    Message(
        r"network.1.0 \(LinearReadout\): expected a readout with a skip connection, and Standardise, directly in",
        lambda: exported(srcell.Sequential(srcell.SRC(5, 5), srcell.Sequential(srcell.LinearReadout(5, 2, skip=5)))),
    ),
    Message(
        r"network.1 \(LinearReadout\): expected a readout with a skip connection, and Standardise, directly in",
        lambda: exported(
            srcell.Sequential(
                srcell.Sequential(srcell.Standardise(torch.ones(5), torch.ones(5)), srcell.SRC(5, 6)),
                srcell.LinearReadout(6, 2, skip=5),
            )
        ),
    ),
)
def test_networks_that_a_file_cannot_hold_are_refused(refusal: Message) -> None:
    refusal.check()


@pytest.mark.skipif(not EXPORTS_ONNX, reason="needs torch 2.6")
def test_an_onnx_model_has_it(tmp_path: Path) -> None:
    onnx, session = pytest.importorskip("srcell.onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = drawn(SRCClassifier(INPUTS, [NEURONS], OUTPUTS, readout="linear", skip=True)).eval()
    onnx.export(model, tmp_path / "net.onnx")
    x = numbers()
    (found,) = session.InferenceSession(tmp_path / "net.onnx").run(None, {"input": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), model(x), rtol=1e-4, atol=1e-4)


def forecast(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences that are hard to keep in spikes, and their next values in another unit."""
    x = np.random.default_rng(0).normal(size=(count, STEPS + 1, 2)).cumsum(1)
    return x[:, :-1], 0.01 * x[:, 1:] + 3


def test_forecasts_of_ones_own_have_it_by_default_and_learn_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(
        "from test_skip import forecast\ndef load(): return forecast(60)\n"
        "def whole(): x, y = forecast(60); return x, y[:, -1]"
    )
    config = TrainingConfig.preset("best", "m.py:load", epochs=60, learning_rate=4e-2, hidden_sizes=(16,))
    assert config.skip and not TrainingConfig.preset("best", "m.py:load", skip=False).skip
    assert not TrainingConfig.preset("best", "m.py:whole").skip
    run = train(config, "run")
    assert run.evaluation.r2 > 0.8 and run.model.readout.skip is not None
    again = srcell.load("run")
    x = torch.tensor(forecast(60)[0][:4], dtype=torch.float32).transpose(0, 1)
    with torch.no_grad():
        assert torch.equal(again(x, every_step=True), run.model(x, every_step=True))
        assert abs(again(x, every_step=True) - 3).max() < 0.3


def test_a_run_on_labels_may_have_it_and_draws_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text("from test_skip import forecast\ndef load(): return forecast(20)[0], [0, 1] * 10")
    config = TrainingConfig.preset("best", "m.py:load", epochs=1, hidden_sizes=(8,), skip=True)
    run = train(config, "run")
    assert run.model.readout.skip is not None and {"raster.png", "traces.png"} <= {
        x.name for x in Path("run").iterdir()
    }


def test_an_evaluation_counts_its_operations() -> None:
    dataset = srcell.data.from_arrays(*forecast(20))
    without, with_skip = (
        SRCClassifier(2, [8], 2, readout="linear", skip=skip, input_delay=3) for skip in (False, True)
    )
    with_skip.delay.load_state_dict(without.delay.state_dict())
    first, second = (
        evaluate(network, srcell.data.EventLoader(dataset.test)).counts[0] for network in (without, with_skip)
    )
    assert second.multiply_adds == first.multiply_adds + 2 * second.events
