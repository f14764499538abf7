"""``srcell.diagnose``: a network that is broken on purpose has the finding of its sign and no other, networks that
learn have none, and a diagnosis changes nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import SRC, EventBatch, SpikesOnly, SRCCell, data
from srcell.cli.progress import EpochLines
from srcell.diagnosis import COLUMNS, Diagnosis, LayerDiagnosis
from srcell.models import IntegerClassifier, SRCClassifier, SRCConvClassifier
from srcell.training import Observer, RunOptions, train
from srcell.training.trainer import Trainer
from support.inputs import noise
from support.refusals import Message, Refusal, refusals
from support.runs import TINY, assert_equal_weights, run_to_the_end

STEPS, SAMPLES, INPUTS, CLASSES = 60, 32, 20, 4
TARGETS = torch.arange(SAMPLES) % CLASSES


def spikes_in(inputs: int = INPUTS, steps: int = STEPS) -> Tensor:
    return (noise(8, steps, SAMPLES, inputs, dtype=torch.float32) > 0.8).float()


def classifier(**options: Any) -> SRCClassifier:
    torch.manual_seed(0)
    return SRCClassifier(INPUTS, [32], CLASSES, **options)


@torch.no_grad()
def changed(weights: float = 1.0, bias: float = -6.0) -> SRCClassifier:
    """A network whose first layer has weights that are multiplied by a factor, and another bias."""
    model = classifier()
    model.layers[0].bias_max = math.inf
    model.layers[0].weight_ih_l0.mul_(weights)
    model.layers[0].bias_l0.fill_(bias)
    return model


@torch.no_grad()
def negative() -> SRCClassifier:
    """A network whose first layer has no positive weights."""
    model = classifier()
    model.layers[0].weight_ih_l0.abs_().neg_()
    return model


@torch.no_grad()
def recurrent(factor: float, **options: Any) -> SRC:
    """A layer with recurrent weights of another size."""
    torch.manual_seed(0)
    layer = SRC(INPUTS, 32, recurrent=True, **options)
    layer.weight_hh_l0.mul_(factor)
    return layer


class Detached(nn.Module):
    """Two layers, of which the first gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.readout = SRC(INPUTS, 32), SRC(32, 40), srcell.LeakyReadout(CLASSES)

    def forward(self, input: Tensor) -> Tensor:
        logits: Tensor = self.readout(self.second(self.first(input)[0].detach())[0])
        return logits


class Read(nn.Module):
    """A layer and a linear readout, to which no lengths are passed on."""

    def __init__(self, weights: float = 1.0, window: int = 10, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.readout = SRC(INPUTS, 32, **options), srcell.LinearReadout(32, CLASSES, window=window)
        with torch.no_grad():
            self.readout.linear.weight.mul_(weights)

    def forward(self, input: Tensor | EventBatch) -> Tensor:
        logits: Tensor = self.readout(self.first(input)[0])
        return logits


def spikes_at_first() -> Tensor:
    """Spikes in the first 40 of 100 steps."""
    return torch.cat([spikes_in(steps=40), torch.zeros(60, SAMPLES, INPUTS)])


def short_samples() -> EventBatch:
    return EventBatch.from_dense(spikes_at_first(), torch.full((SAMPLES,), 40))


def numbers(layer: LayerDiagnosis) -> list[float]:
    """The measurements; -1 for those that are None."""
    return [-1.0 if x is None else float(x) for x in layer[1:]]


def all_steps(output: Any, _: Any) -> Tensor:
    spikes: Tensor = output[0]
    return spikes.sum()


def last_step(output: Any, _: Any) -> Tensor:
    spikes: Tensor = output[0]
    return spikes[-1].sum()


def nan_loss(output: Tensor, _: Any) -> Tensor:
    return output.sum() * torch.nan


class Broken(NamedTuple):
    """A broken network, and regular expressions of its only finding: of the beginning, and of the remedy."""

    finding: str
    remedy: str
    model: Callable[[], nn.Module] = classifier
    input: Callable[[], Tensor | EventBatch] = spikes_in
    loss: Callable[[Any, Any], Tensor] | None = None


BROKEN = {
    "silent": Broken(
        r"layers\.0: 100 % of the neurons never spike, i is only 0\.0\d+ rho", "gain", lambda: changed(0.03)
    ),
    "inhibited": Broken(
        r"layers\.0: 100 % of the neurons never spike, although i is", "raise them", lambda: changed(bias=-12.0)
    ),
    "negative weights": Broken(
        r"layers\.0: 100 % of the neurons never spike, although i is", "draw them anew", negative
    ),
    "always active": Broken(
        r"layers\.0: \d\d % of the neurons are active in nearly all steps",
        "the default bias_max",
        lambda: changed(bias=8.0),
    ),
    "held by the drive": Broken(
        r"layers\.0: \d\d % of the neurons are active in nearly all steps",
        "a drive above 8 holds them",
        lambda: classifier(rho=10.0, rs=-4.0, input_gain=4.0),
        lambda: torch.rand(STEPS, 32, INPUTS, generator=torch.Generator().manual_seed(0)),
    ),
    "saturated": Broken(
        r"layers\.0: \|i\| > 3 rho in \d\d % of the elements",
        r"gradient: multiply .* by about 0\.0\d",
        lambda: changed(20.0),
    ),
    "saturated by its recurrent weights": Broken(
        r"src: \|i\| > 3 rho in \d\d % of the elements", "rho=10 and rs=-4", lambda: recurrent(200.0), loss=all_steps
    ),
    "vanishing": Broken(
        "src: gradients vanish through time", "spread", lambda: SRC(INPUTS, 32, alpha=0.5), loss=last_step
    ),
    "exploding": Broken(
        "src: gradients explode through time",
        'recurrent_surrogate="relu"',
        lambda: recurrent(6.0, recurrent_surrogate="straight_through"),
        loss=last_step,
    ),
    "exploding in h": Broken(
        "src: gradients explode through time",
        "full_gradient=False",
        lambda: recurrent(1.0, full_gradient=True),
        lambda: spikes_in(steps=4 * STEPS),
        last_step,
    ),
    "dead inputs": Broken(
        r"layers\.0: 75 % of its inputs are 0",
        "encoding",
        input=lambda: spikes_in() * (torch.arange(INPUTS) % 4 == 0),
    ),
    "same samples": Broken(
        r"layers\.0: all 32 samples have the same input", "encoding", input=lambda: spikes_in()[:, :1].repeat(1, 32, 1)
    ),
    "weak": Broken(
        r"layers\.0: the input hardly moves the neurons, i is only 0\.\d+ rho",
        r"by about \d\d",
        lambda: changed(0.03, bias=-4.2),
    ),
    "same spikes": Broken(
        r"layers\.0: the spikes of all 32 samples are the same",
        "subtract its mean",
        input=lambda: 0.1 + 1e-6 * spikes_in(),
    ),
    "no gradient": Broken("first: no gradient reaches the input weights", r"detach\(\)", Detached),
    "no spike in the window": Broken(
        r"first: the gradient of the input weights is 0: the loss depends on none of the layer's spikes \(the last is "
        r"in step [45]\d of 100\)",
        "longer window",
        lambda: Read(surrogate="relu"),
        spikes_at_first,
    ),
    "no spike in the window of any layer": Broken(
        r"first\.l1: the gradient of the input weights is 0: the loss depends on none of the layer's spikes",
        "longer window",
        lambda: Read(surrogate="relu", num_layers=2, batch_first=True, window=1),
        short_samples,
    ),
    "samples that end before the window": Broken(
        r"first: the gradient of the input weights is 0: the loss depends on none of the layer's spikes \(the last is "
        r"in step 40 of 100\)",
        "pass their lengths on",
        Read,
        short_samples,
    ),
    "a readout without weights": Broken(
        "first: the gradient of the input weights is 0: the loss does not depend on the spikes",
        "check the weights behind the layer",
        lambda: Read(weights=0.0),
    ),
    "a cell for images": Broken(
        r"src: the input is a sequence of real numbers, and the cell is that of SRC",
        r"SRC\.for_sequences",
        lambda: SRC(INPUTS, 32),
        lambda: torch.randn(100, 16, INPUTS),
        all_steps,
    ),
    "a cell for images, batch first": Broken(
        r"src: the input is a sequence of real numbers",
        r"SRC\.for_sequences",
        lambda: SRC(INPUTS, 32, batch_first=True),
        lambda: torch.randn(16, 100, INPUTS),
        all_steps,
    ),
    "NaN in weights": Broken(
        r"layers\.0: NaN or infinity in weight_ih_l0", "learning rate", lambda: changed(weights=torch.nan)
    ),
    "NaN in the input": Broken(
        r"layers\.0: NaN or infinity in the input", "data", input=lambda: spikes_in().where(spikes_in() == 0, torch.nan)
    ),
    "NaN in the loss": Broken(r"layers\.0: NaN or infinity in the gradient", "loss", loss=nan_loss),
}


@pytest.mark.parametrize("sign", BROKEN)
def test_a_network_that_is_broken_on_purpose_has_that_finding_alone(sign: str) -> None:
    case = BROKEN[sign]
    torch.manual_seed(0)
    diagnosis = srcell.diagnose(case.model(), case.input(), TARGETS, case.loss)
    assert len(diagnosis.findings) == 1, diagnosis
    (line,) = diagnosis.findings
    assert re.match(case.finding, line) and re.search(case.remedy, line), line
    assert str(diagnosis).endswith(f"\n\n{line}")


def maps_in() -> Tensor:
    return spikes_in(2 * 8 * 8).unflatten(2, (2, 8, 8))


HEALTHY: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor | EventBatch], Any]] = {
    "dense": (classifier, spikes_in, None),
    "events": (classifier, lambda: EventBatch.from_dense(spikes_in()), None),
    "float64": (lambda: classifier().double(), lambda: spikes_in().double(), None),
    "bool": (classifier, lambda: spikes_in().bool(), None),
    "stacked": (lambda: SRC(INPUTS, 32, num_layers=2), spikes_in, all_steps),
    "batch first": (
        lambda: SRC(INPUTS, 32, num_layers=2, batch_first=True),
        lambda: spikes_in().transpose(0, 1),
        all_steps,
    ),
    "maps": (lambda: SRCConvClassifier((2, 8, 8), [8], [32], CLASSES), maps_in, None),
    "lateral": (lambda: classifier(recurrent=True, alpha=srcell.spread(0.5, 0.99), zs_hyp=0.5), spikes_in, None),
    "resonant": (lambda: classifier(omega=srcell.spread_frequencies(0.01, 1.0)), spikes_in, None),
    "delayed": (
        lambda: classifier(input_delay=5, taps=2, recurrent=True, recurrent_delay=5, learn_delays=True),
        lambda: EventBatch.from_dense(spikes_in()),
        None,
    ),
    "linear readout": (lambda: classifier(readout="linear", surrogate="relu"), spikes_in, None),
    "dropout": (lambda: classifier(dropout=0.3, balance_gradients=True), spikes_in, None),
    "a layer for sequences": (lambda: SRC.for_sequences(INPUTS, 32), lambda: torch.randn(100, 16, INPUTS), all_steps),
    "integers": (lambda: IntegerClassifier(INPUTS, [32], CLASSES), lambda: EventBatch.from_dense(spikes_in()), None),
    "sequential": (
        lambda: nn.Sequential(nn.Linear(INPUTS, 64), SpikesOnly(SRC(64, 40)), srcell.LeakyReadout(CLASSES)),
        spikes_in,
        None,
    ),
}


@pytest.mark.parametrize("case", HEALTHY)
def test_untrained_networks_of_all_kinds_have_no_finding(case: str) -> None:
    make, make_input, loss = HEALTHY[case]
    torch.manual_seed(0)
    model, x = make(), make_input()
    with srcell.record(model) as recording:
        model(x)
    diagnosis = srcell.diagnose(model, x, TARGETS, loss)
    assert diagnosis.findings == [], diagnosis
    assert [layer.name for layer in diagnosis.layers] == list(recording)
    for layer in diagnosis.layers:
        active = recording[layer.name].spikes > 0
        if not (model.training and getattr(model, "dropout", 0)):
            assert layer.rate == pytest.approx(active.double().mean().item())
            assert layer.silent == pytest.approx((~active.flatten(2).any(0).any(0)).double().mean().item())
        assert layer.neurons == active[0, 0].numel()
        assert layer.weight_gradient
        assert (layer.i_over_rho is None) == (case == "integers")
        assert (layer.through_time is None) == (case == "integers" and layer is diagnosis.layers[0])
    lateral = diagnosis.layers[0].recurrent_gradient
    assert bool(lateral) == (case in ("lateral", "delayed", "a layer for sequences"))
    assert str(diagnosis).endswith("\n\nnothing looks wrong")


def test_a_layer_for_images_hides_no_other_finding() -> None:
    torch.manual_seed(0)
    found = srcell.diagnose(Detached(), torch.randn(100, SAMPLES, INPUTS), TARGETS).findings
    assert any("no gradient reaches the input weights" in line for line in found)
    assert "SRC.for_sequences" in found[-1]


def test_the_drive_is_that_of_the_trace() -> None:
    torch.manual_seed(0)
    layer = SRC(INPUTS, 32, rho=torch.linspace(0.2, 4.0, 32), omega=0.3)
    with srcell.record(layer) as recording:
        layer(spikes_in())
    ratio = recording["src"].trace().i / layer.rho_l0
    (found,) = srcell.diagnose(layer, spikes_in()).layers
    assert found.i_over_rho == pytest.approx(ratio.square().mean().sqrt().item(), rel=1e-5)
    assert found.saturated == pytest.approx((ratio.abs() > 3).double().mean().item()) and found.saturated > 0
    assert (found.weight_gradient, found.recurrent_gradient, found.through_time) == (None, None, None)


def test_gradients_are_those_of_the_loss() -> None:
    model, x = recurrent(1.0), spikes_in().requires_grad_()
    (found,) = srcell.diagnose(model, x, loss=last_step).layers
    last_step(model(x), None).backward()
    assert found.weight_gradient == pytest.approx(model.weight_ih_l0.grad.norm().item(), rel=1e-5)
    assert found.recurrent_gradient == pytest.approx(model.weight_hh_l0.grad.norm().item(), rel=1e-5)
    assert x.grad is not None
    early, late = (x.grad[part][x[part] != 0].square().mean().sqrt() for part in (slice(15), slice(-15, None)))
    assert found.through_time == pytest.approx((early / late).item(), rel=1e-4)


def test_dense_spikes_and_events_measure_the_same() -> None:
    model = classifier()
    dense = srcell.diagnose(model, spikes_in(), TARGETS)
    events = srcell.diagnose(model, EventBatch.from_dense(spikes_in()), TARGETS)
    for one, other in zip(dense.layers, events.layers, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), rel=1e-4)


def test_nothing_counts_past_a_samples_length() -> None:
    torch.manual_seed(0)
    layer, lengths = SRC(INPUTS, 32), (2 * torch.arange(SAMPLES)).clamp(max=STEPS)
    x = spikes_in()
    late = torch.arange(STEPS)[:, None] >= lengths
    given = x.masked_fill(late[..., None], torch.nan)
    found = srcell.diagnose(layer, given, loss=all_steps, lengths=lengths)
    events = EventBatch.from_dense(x.masked_fill(late[..., None], 0), lengths)
    (expected,) = srcell.diagnose(layer, events, loss=all_steps).layers
    assert found.findings == [] and numbers(found.layers[0]) == pytest.approx(numbers(expected), rel=1e-4)
    with srcell.record(layer) as recording:
        layer(events)
    active = int((recording["src"].spikes > 0).sum())
    assert found.layers[0].rate == pytest.approx(active / int(lengths.sum()) / 32)


def test_a_cell_is_measured_over_its_steps() -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = SRCCell(INPUTS, 32)

        def forward(self, input: Tensor) -> Tensor:
            state, total = None, torch.zeros(())
            for now in input:
                spikes, state = self.cell(now, state)
                total = total + spikes.sum()
            return total

    torch.manual_seed(0)
    model = Loop()
    layer = SRC(INPUTS, 32)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(model.cell.weight_ih)
    (found,) = srcell.diagnose(model, spikes_in(), loss=lambda output, _: output).layers
    (expected,) = srcell.diagnose(layer, spikes_in(), loss=all_steps).layers
    assert found.name == "cell" and found[1:8] == pytest.approx(expected[1:8], rel=1e-5)
    assert found.weight_gradient == pytest.approx(expected.weight_gradient, rel=1e-4)
    assert found.through_time == pytest.approx(expected.through_time, rel=1e-3)


def test_a_gradient_of_0_and_none_have_different_findings() -> None:
    class Both(Detached):
        def forward(self, input: Tensor) -> Tensor:
            hidden = self.first(input)[0]
            logits: Tensor = self.readout(self.second(hidden.detach() + 0 * hidden)[0])
            return logits

    (missing,) = srcell.diagnose(Detached(), spikes_in(), TARGETS).findings
    (zero,) = srcell.diagnose(Both(), spikes_in(), TARGETS).findings
    assert missing.startswith("first: no gradient reaches the input weights: look for detach()")
    assert zero.startswith("first: the gradient of the input weights is 0: the loss does not depend on the spikes")
    assert "detach" not in zero


def test_a_diagnosis_changes_nothing() -> None:
    torch.manual_seed(0)
    integers = IntegerClassifier(INPUTS, [32], CLASSES)
    normalised = nn.Sequential(nn.BatchNorm1d(INPUTS), nn.Dropout(0.5))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.network = normalised, classifier(dropout=0.3)

        def forward(self, input: Tensor) -> Tensor:
            logits: Tensor = self.network(self.before(input.flatten(0, 1)).view_as(input))
            return logits

    for model in (Model(), Model().eval(), integers):
        x = spikes_in()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        modes = [module.training for module in model.modules()]
        before = {name: x.clone() for name, x in (*model.named_parameters(), *model.named_buffers())}
        torch.manual_seed(7)
        expected = torch.rand(3)
        torch.manual_seed(7)
        srcell.diagnose(model, x, TARGETS)
        assert torch.equal(torch.rand(3), expected)
        assert [module.training for module in model.modules()] == modes
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            assert torch.equal(tensor, before[name]), name
        assert all(bool((parameter.grad == 1).all()) for parameter in model.parameters())
        assert not x.requires_grad and torch.is_grad_enabled()
        assert all(getattr(module, "recorder", None) is None for module in model.modules())
        assert not any(module._forward_hooks for module in model.modules())


def test_a_graph_from_before_a_diagnosis_can_still_be_followed() -> None:
    model = recurrent(1.0, delay_hh=2.0)
    spikes, _ = model(spikes_in())
    with torch.no_grad():
        srcell.diagnose(model, spikes_in(), loss=last_step)
    spikes.sum().backward()
    assert model.weight_hh_l0.grad is not None


def test_a_small_batch_is_judged_by_what_all_of_it_shows() -> None:
    found = srcell.diagnose(classifier(), spikes_in()[:, :1] * (torch.arange(INPUTS) % 4 == 0))
    assert found.layers[0].dead_inputs > 0.7 and found.findings == []
    (line,) = srcell.diagnose(changed(0.03), spikes_in()[:, :1]).findings
    assert line.startswith("layers.0: 100 % of the neurons never spike")


def test_the_table_fits_into_its_columns() -> None:
    row = LayerDiagnosis("a.module.with.a.long.name.l0", 123456, 0.0512, 1.0, 0.0, 1e-12, 1.0, 1.0, *[1.23e-11] * 3)
    text = str(Diagnosis([row, row._replace(i_over_rho=None, through_time=None)], ["one", "two"]))
    head, first, second, empty, *findings = text.splitlines()
    assert len({*map(len, (head, first, second))}) == 1 and len(head) <= COLUMNS
    assert first.startswith("…") and "name.l0 " in first and empty == "" and findings == ["one", "two"]
    assert repr(Diagnosis([row], [])).endswith("nothing looks wrong")


MODEL, X = nn.Linear(2, 3), spikes_in()


@refusals(
    Refusal("model", lambda: srcell.diagnose(3, X), TypeError),  # type: ignore[arg-type]
    Refusal("model", lambda: srcell.diagnose(MODEL, X)),
    Refusal("model", lambda: srcell.diagnose(Uncalled(), X)),
    Refusal("input", lambda: srcell.diagnose(classifier(), [1.0]), TypeError),  # type: ignore[arg-type]
    Refusal("loss", lambda: srcell.diagnose(classifier(), X, TARGETS, 3), TypeError),  # type: ignore[arg-type]
    Refusal("loss", lambda: srcell.diagnose(SRC(INPUTS, 4), X, TARGETS)),
    Refusal("loss", lambda: srcell.diagnose(classifier(), X, TARGETS, lambda output, _: output)),
    Refusal("loss", lambda: srcell.diagnose(classifier(), X, TARGETS, lambda output, _: output.sum().detach())),
    Refusal("targets", lambda: srcell.diagnose(classifier(), X, [0] * SAMPLES), TypeError),
    Refusal("targets", lambda: srcell.diagnose(classifier(), X, TARGETS.float()), TypeError),
    Refusal("targets", lambda: srcell.diagnose(classifier(), X, TARGETS[:-1])),
    Message(
        r"targets: expected shape \(\d+,\), got \(\d+,\): layers take \(T, B, ...\), and a DataLoader "
        r"gives \(B, T, ...\)",
        lambda: srcell.diagnose(classifier(), X.transpose(0, 1), TARGETS),
    ),
    Refusal("targets", lambda: srcell.diagnose(classifier(), X, TARGETS + 1)),
    *(
        Refusal("input", lambda loss=loss: srcell.diagnose(classifier(), X[:, :0], None, loss))
        for loss in (None, nan_loss)
    ),
    Refusal("input", lambda: srcell.diagnose(classifier(), X[:, :0], TARGETS[:0])),
    Refusal("input", lambda: srcell.diagnose(classifier(), X[:0], TARGETS)),
    Refusal("input", lambda: srcell.diagnose(classifier(), EventBatch.from_dense(X)[[]], TARGETS[:0])),
    Refusal("input", lambda: srcell.diagnose(SRC(INPUTS, 4), EventBatch.from_dense(X * 0, 0 * TARGETS))),
    Refusal("lengths", lambda: srcell.diagnose(SRC(INPUTS, 4), X, lengths=[0] * SAMPLES)),
    Refusal("model", lambda: srcell.diagnose(SRC(INPUTS, 0), X)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


class Uncalled(nn.Module):
    """A module that does not call its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = SRC(INPUTS, 3)

    def forward(self, input: Tensor) -> Tensor:
        return input


class Listener(Observer):
    """Keeps the diagnoses."""

    def __init__(self) -> None:
        self.found: list[Diagnosis] = []

    def on_diagnosis(self, diagnosis: Diagnosis) -> None:
        self.found.append(diagnosis)


def test_training_is_diagnosed_after_its_first_epoch_and_each_tenth(tmp_path: Path) -> None:
    config, listener = replace(TINY, dropout=0.2), Listener()
    run = train(config, tmp_path, listener)
    diagnosis, later = listener.found
    assert later.layers[0].rate != diagnosis.layers[0].rate
    assert later.layers[0].dead_inputs == diagnosis.layers[0].dead_inputs  # of the same samples
    assert all(layer.weight_gradient is None for layer in later.layers)
    trainer, diagnosed = Trainer(replace(TINY, epochs=40), data.load("digits")), []
    for epoch in range(1, 41):
        trainer.history.append(run.history[0])
        if trainer.diagnose() is not None:
            diagnosed.append(epoch)
    assert diagnosed == [1, *range(4, 41, 4)]
    assert diagnosis.findings == [] and len(diagnosis.layers) == 2
    assert all(layer.weight_gradient for layer in diagnosis.layers)
    # The weights are those of a run without diagnoses.
    plain = run_to_the_end(Trainer(config, data.load("digits")))
    assert_equal_weights(run.model, plain.model)
    report = (tmp_path / "report.html").read_text()
    assert "Diagnosis</h2>" in report and "<td>layers.1</td>" in report
    silent = Listener()
    undiagnosed = train(config, tmp_path / "undiagnosed", silent, RunOptions(diagnose=False))
    assert silent.found == [] and "Diagnosis" not in (tmp_path / "undiagnosed" / "report.html").read_text()
    assert_equal_weights(undiagnosed.model, run.model)


def test_the_command_line_warns_of_a_finding_when_it_begins(capsys: pytest.CaptureFixture[str]) -> None:
    lines = EpochLines()
    lines.on_diagnosis(srcell.diagnose(classifier(), spikes_in()))
    assert capsys.readouterr().out == ""
    lines.on_diagnosis(srcell.diagnose(changed(0.03), spikes_in()))
    assert capsys.readouterr().out.startswith("warning: layers.0: 100 % of the neurons never spike")
    lines.on_diagnosis(srcell.diagnose(changed(0.02), spikes_in()))  # the same, with other numbers
    assert capsys.readouterr().out == ""
    saturated = srcell.diagnose(changed(300.0), spikes_in())
    (line,) = saturated.findings
    lines.on_diagnosis(saturated)
    assert capsys.readouterr().out == f"warning: {line}\n"
    lines.on_diagnosis(saturated._replace(findings=[line.replace("layers.0", "layers.1")]))
    assert capsys.readouterr().out.startswith("warning: layers.1: ")
