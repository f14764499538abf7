"""The plots of a run: their contents, read from the figures."""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from typing import Any

import matplotlib.colors
import pytest
import torch
from matplotlib.axes import Axes

import srcell
from srcell import SRC, EventBatch, LinearReadout
from srcell.evaluation import Evaluation, LayerCounts
from srcell.models import Classifier, SRCClassifier
from srcell.plots import confusion, learning_curve, raster, rates, traces
from srcell.training import EpochMetrics, TrainingConfig
from srcell.training.plots import delays
from srcell.training.report import CAPTIONS, page


def history(validation: float) -> list[EpochMetrics]:
    return [EpochMetrics(k, 2.0 / k, 0.5 + 0.1 * k, validation, 0.03, 1e-2, 1.0, 2 * validation) for k in (1, 2, 3)]


def drawn(panel: Axes) -> dict[str, list[float]]:
    """The lines of a panel by their labels."""
    return {str(line.get_label()): [float(y) for y in line.get_ydata()] for line in panel.get_lines()}  # type: ignore


def test_the_learning_curve_has_loss_accuracy_rate_and_any_validation() -> None:
    loss, accuracy, rate = learning_curve(history(0.7)).axes
    assert drawn(loss) == {"training": pytest.approx([2, 1, 2 / 3]), "validation": pytest.approx([1.4] * 3)}
    assert drawn(accuracy) == {"training": pytest.approx([60, 70, 80]), "validation": pytest.approx([70] * 3)}
    assert list(drawn(rate).values()) == [pytest.approx([3.0] * 3)]
    assert [panel.get_xlabel() for panel in (loss, accuracy, rate)] == ["epoch"] * 3
    assert "accuracy (%)" in accuracy.get_ylabel()
    assert all(panel.get_legend() is not None for panel in (loss, accuracy, rate))
    assert all(tick == round(tick) for panel in (loss, accuracy, rate) for tick in panel.get_xticks())
    loss, accuracy, _ = learning_curve(history(validation=math.nan)).axes
    assert list(drawn(loss)) == list(drawn(accuracy)) == ["training"]


def make_sample() -> tuple[SRCClassifier, EventBatch]:
    torch.manual_seed(0)
    model = SRCClassifier(20, [12], num_classes=3, neurons_per_class=4).eval()
    dense = torch.zeros(50, 1, 20)
    dense[10:] = (torch.rand(40, 1, 20) < 0.3).float()
    return model, EventBatch.from_dense(dense)


given_names = pytest.mark.parametrize("given", [(), ("cat", "dog", "<cow>")])


@given_names
def test_a_raster_has_a_mark_for_each_event_of_each_layer_and_the_logits(given: tuple[str, ...]) -> None:
    names, (model, sample) = given or ("0", "1", "2"), make_sample()
    with torch.no_grad():
        outputs = [sample.to_dense(), *model.layer_spikes(sample)]
        logits = model(sample)[0]
    answer = int(logits.argmax())
    wrong = (answer + 1) % 3
    figure = raster(model, sample, wrong, prefix=10, class_names=given)
    *layers, readout = figure.axes
    assert len(layers) == 3
    for k, (panel, output) in enumerate(zip(layers, outputs, strict=True)):
        marks = panel.collections[0].get_offsets()
        expected = [(t, n) for t, _, n in output.nonzero().tolist()]
        assert sorted(map(tuple, marks.tolist())) == sorted(expected) and expected
        colour = matplotlib.colors.to_hex(panel.collections[0].get_edgecolor()[0])
        assert colour == matplotlib.colors.to_hex("black" if k == 0 else f"C{k - 1}")
        assert panel.get_ylabel() == ("input" if k == 0 else f"layer {k}, neuron")
        assert panel.get_ylim() == (-1, output.shape[2])
    assert all(panel.get_xlim() == (0, 50) for panel in figure.axes)
    lines = drawn(readout)
    assert [lines[name][-1] for name in names] == pytest.approx(logits.tolist(), rel=1e-5)
    expected_title = f"A test sample of class {names[wrong]}, predicted {names[answer]}: "
    assert figure.get_suptitle().startswith(expected_title)
    widths = {str(line.get_label()): line.get_linewidth() for line in readout.get_lines()}
    assert {name for name, width in widths.items() if width > 1} == {names[wrong], names[answer]}


@given_names
def test_traces_have_the_states_of_the_most_active_neurons_of_the_last_layer(given: tuple[str, ...]) -> None:
    names, (model, sample) = given or ("0", "1", "2"), make_sample()
    with torch.no_grad():
        below, output = model.layer_spikes(sample)
        order = model(sample)[0].argsort(descending=True).tolist()
        states = [model.layers[-1](below[: t + 1])[1] for t in range(len(below))]
    figure = traces(model, sample, order[0], class_names=given)
    assert figure.get_suptitle().startswith(f"A test sample of class {names[order[0]]}, predicted correctly: ")
    for panel, answer in zip(figure.axes, order, strict=True):
        place, _, name = panel.get_ylabel().partition("for ")
        neuron = int(place.removeprefix("neuron ").partition(",")[0])
        assert name == names[answer]
        assert neuron % 3 == answer
        assert output[:, 0, neuron].sum() == output[:, 0, answer::3].sum(0).max()
        lines = drawn(panel)
        assert lines["fast state h"] == pytest.approx([float(state.h[0, 0, neuron]) for state in states], abs=1e-5)
        assert lines["slow state hs"] == pytest.approx([float(state.hs[0, 0, neuron]) for state in states], abs=1e-5)
        drive = [math.tanh(float(state.i[0, 0, neuron]) / 3.0) for state in states]
        assert lines["drive tanh(i / rho)"] == pytest.approx(drive, abs=1e-5)


def test_traces_of_resonant_neurons_have_their_omega() -> None:
    torch.manual_seed(0)
    omega = torch.linspace(0.1, 0.9, 9)
    model = Classifier((6,), [SRC(6, 9, omega=omega)], LinearReadout(9, 3))
    sample = EventBatch.from_dense((torch.rand(50, 1, 6) < 0.3).float())
    labels = [panel.get_ylabel().split(",\n") for panel in traces(model, sample, 0).axes]
    assert len(labels) == 4
    for neuron, said in labels:
        assert said == f"omega {omega[int(neuron.removeprefix('neuron '))]:.3g}"


def test_traces_of_a_delayed_layer_are_those_of_its_delayed_input() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"readout": "linear", "lateral": True, "input_delay": 12, "lateral_delay": 5}
    model = SRCClassifier(6, [9], 3, **sizes).eval()
    sample = EventBatch.from_dense((torch.rand(50, 1, 6) < 0.3).float())
    assert model.delay is not None
    with torch.no_grad():
        x, _ = model.delay(sample.to_dense())
        states = [model.layers[0](x[: t + 1])[1] for t in range(50)]
    for panel in traces(model, sample, 0).axes:
        neuron = int(panel.get_ylabel().removeprefix("neuron "))
        lines = drawn(panel)
        assert lines["fast state h"] == pytest.approx([float(state.h[0, 0, neuron]) for state in states], abs=1e-5)


def test_delays_are_drawn_as_points_before_and_after_training() -> None:
    before = {0: torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 2: torch.tensor([0.5])}
    after = {0: torch.tensor([[1.5, 2.0], [0.0, 4.0]]), 2: torch.tensor([7.0], requires_grad=True)}
    figure = delays(before, after)
    for panel, title, points in zip(
        figure.axes,
        ("inputs", "recurrent weights of layer 2"),
        ([[1, 1.5], [2, 2], [3, 0], [4, 4]], [[0.5, 7]]),
        strict=True,
    ):
        assert panel.get_title() == title
        assert panel.collections[0].get_offsets().tolist() == points  # type: ignore[union-attr]
        assert "before" in panel.get_xlabel() and "after" in panel.get_ylabel()


@pytest.mark.parametrize("prefix", [0, 10])
def test_silent_steps_before_a_sample_are_shaded(prefix: int) -> None:
    model, sample = make_sample()
    for panel in raster(model, sample, 0, prefix).axes + traces(model, sample, 0, prefix).axes:
        extents = [patch.get_extents().transformed(panel.transData.inverted()) for patch in panel.patches]
        assert [(round(box.x0), round(box.x1)) for box in extents] == ([(0, prefix)] if prefix else [])
        assert all((patch.get_alpha() or 1) < 0.5 for patch in panel.patches)  # marks beneath are still seen


def lightness(colour: Any) -> float:
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return 0.3 * red + 0.59 * green + 0.11 * blue


def evaluation() -> Evaluation:
    table = torch.tensor([[8, 2, 0], [1, 9, 0], [0, 0, 0]])
    rates = [torch.tensor([0.02, 0.0, 0.01]), torch.full((2, 2), 0.5)]
    counts = [
        LayerCounts(12345.0, 12000.0, 1e6, 0.0),
        LayerCounts(7.0, 3.0, 0.0, 70.0),
        LayerCounts(0.0, 0.0, 0.0, 0.0),
    ]
    return Evaluation(17 / 20, table, counts, rates, 0.5)


def test_rates_are_sorted_from_the_least_active_neuron() -> None:
    panel = rates(evaluation()).axes[0]
    assert drawn(panel) == {
        "layer 1: 3 neurons, mean 1.0 %": pytest.approx([0, 1, 2]),
        "layer 2: 4 neurons, mean 50.0 %": pytest.approx([50] * 4),
    }
    assert [list(line.get_xdata()) for line in panel.get_lines()] == [
        [0, 50, 100],
        pytest.approx([0, 100 / 3, 200 / 3, 100]),
    ]
    assert panel.get_title() and "%" in panel.get_ylabel()


@given_names
def test_the_confusion_matrix_has_each_count_in_its_place(given: tuple[str, ...]) -> None:
    panel = confusion(evaluation(), given).axes[0]
    for labels in (panel.get_xticklabels(), panel.get_yticklabels()):
        assert [label.get_text() for label in labels] == list(given or ("0", "1", "2"))
    texts = {tuple(map(int, text.get_position())): text for text in panel.texts}
    table = evaluation().confusion.tolist()
    assert {place: int(text.get_text()) for place, text in texts.items()} == {
        (column, row): count for row, counts in enumerate(table) for column, count in enumerate(counts)
    }
    shown = panel.images[0].get_array()
    assert shown is not None and shown.tolist() == [[80, 20, 0], [10, 90, 0], [0, 0, 0]]
    assert texts[0, 0].get_color() == "white" and texts[1, 0].get_color() == "black"
    beneath = panel.images[0].to_rgba(shown)
    for (column, row), text in texts.items():
        assert abs(lightness(beneath[row, column]) - lightness(text.get_color())) > 0.5  # it can be read
    assert panel.get_title() == "17 of 20 test samples correct (85.00%)"
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("predicted class", "class")
    assert list(panel.get_xticks()) == list(panel.get_yticks()) == [0, 1, 2]


def test_a_report_is_one_file_with_pictures_counts_and_settings() -> None:
    config = TrainingConfig(hidden_sizes=(3,), epochs=3, label_smoothing=0.1)
    images = {name: name.encode() for name in CAPTIONS}
    text = page(config, history(0.7), evaluation(), images)
    sources = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images.values()]
    assert re.findall(r'<img src="(.*?)"', text) == sources
    assert not re.search("<(script|link|iframe)", text)
    assert "<h1>digits: 85.00% with 3-4 neurons</h1>" in text
    rows = [re.findall(r"<td.*?>(.*?)</td>", row) for row in re.findall(r"<tr.*?</tr>", text)]
    assert ["input", "12,345", "12,000", "1,000,000", "0"] in rows
    assert ["layer 1", "7", "3", "0", "70"] in rows
    settings = {row[0]: row[1] for row in rows if row}
    assert all(settings[field.name] for field in dataclasses.fields(config))
    assert config.channels == () and settings["channels"] == "none"
    assert settings["hidden_sizes"] == "3" and settings["label_smoothing"] == "0.1"
    changed = re.findall(r'<tr class="changed"><td>(.*?)</td>', text)
    assert changed == ["hidden_sizes", "epochs", "label_smoothing"]
    assert settings["version"] == srcell.__version__
