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
from srcell.data import SoundEncoding
from srcell.evaluation import Evaluation, LayerCounts
from srcell.models import Classifier, SRCClassifier
from srcell.plots import cochleagram, confusion, learning_curve, raster, rates, traces
from srcell.training import EpochMetrics, TrainingConfig
from srcell.training.plots import delays
from srcell.training.report import CAPTIONS, page
from support.refusals import Refusal, refusals


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
    sizes: dict[str, Any] = {"readout": "linear", "recurrent": True, "input_delay": 12, "recurrent_delay": 5}
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


CURRENTS = SoundEncoding(bands=9, hold=2, frame=0.004)
EVENTS = SoundEncoding(bands=9, hold=2, frame=0.004, threshold=0.05)
LENGTHS = torch.tensor([600, 500])  # samples: 18 and 15 frames of 32


def tones() -> torch.Tensor:
    """Two sounds of 600 samples, of which the second ends with silence."""
    waves = torch.sin(torch.tensor([[0.3], [0.9]]) * torch.arange(600)) * torch.linspace(0, 1, 600)
    return waves * (torch.arange(600) < LENGTHS[:, None])


def test_a_cochleagram_has_the_currents_of_a_sound_over_frequencies_and_seconds() -> None:
    waves = tones()
    events = CURRENTS(waves, lengths=LENGTHS)
    for encoded, frames in ((events, 15), (events.to_dense(), 18)):
        picture, bar = cochleagram(encoded, CURRENTS, 1).axes
        shown = picture.images[0].get_array()
        assert shown is not None and shown.tolist() == events.to_dense()[: 2 * frames : 2, 1].t().tolist()
        assert picture.images[0].get_extent() == [0, pytest.approx(frames * 32 / 8000), -0.5, 8.5]
        assert picture.images[0].origin == "lower" and bar.get_ylabel() == "current"
        assert (picture.get_xlabel(), picture.get_ylabel()) == ("time (s)", "frequency (Hz)")
        assert picture.get_xlim() == (0, pytest.approx(frames * 32 / 8000))
    hertz = {
        label.get_text(): place for label, place in zip(picture.get_yticklabels(), picture.get_yticks(), strict=True)
    }
    assert list(hertz) == ["100", "200", "500", "1000", "2000"]
    for text, place in hertz.items():
        below, above = CURRENTS.centres[int(place)], CURRENTS.centres[int(place) + 1]
        assert below <= float(text) + 1e-9 and float(text) < above
        assert place - int(place) == pytest.approx((float(text) - below) / (above - below), abs=1e-9)


@pytest.mark.parametrize(
    ("lowest", "highest", "bands", "places", "texts"),
    [
        (440.0, 440.0, 3, [0], ["440"]),
        (440.0, 2000.0, 1, [0], ["440"]),
        (130.0, 190.0, 4, [0, 3], ["130", "190"]),
        (0.5, 3999.0, 4, [0.1, 3], ["1", "2000"]),
    ],
)
def test_few_bands_have_their_own_frequencies(
    lowest: float, highest: float, bands: int, places: list[float], texts: list[str]
) -> None:
    encoding = SoundEncoding(bands=bands, lowest=lowest, highest=highest)
    picture = cochleagram(torch.zeros(2, 1, bands), encoding).axes[0]
    labels = [label.get_text() for label in picture.get_yticklabels()]
    assert [labels[0], labels[-1]] == [texts[0], texts[-1]]
    if len(labels) < 3:
        assert list(picture.get_yticks()) == pytest.approx(places)


def test_a_cochleagram_of_events_has_the_levels_that_they_add_up_to() -> None:
    waves = tones()
    events = EVENTS(waves, lengths=LENGTHS)
    picture, bar = cochleagram(events, EVENTS, 1).axes
    levels = picture.images[0].get_array()
    assert levels is not None and levels.shape == (9, 15) and bar.get_ylabel() == "level"
    wanted, level = [], [0.0] * 9
    for t in range(0, 30, 2):
        for event in events.to_dense()[t, 1].nonzero().flatten().tolist():
            level[event // 2] += EVENTS.threshold * (-1 if event % 2 else 1)
        wanted.append(list(level))
    assert torch.tensor(levels.tolist()).numpy() == pytest.approx(torch.tensor(wanted).t().numpy(), abs=1e-6)
    assert levels.max() > 2 * EVENTS.threshold


def test_the_wave_and_spikes_have_the_time_axis_of_the_cochleagram() -> None:
    waves = tones()
    events = CURRENTS(waves, lengths=LENGTHS)
    spikes = torch.zeros(36, 2, 2, 3)
    spikes[[0, 29, 35], 1, 1, 2] = torch.tensor([1.0, 0.5, 1.0])  # the last one is after the end of the sound
    figure = cochleagram(events, CURRENTS, 1, wave=waves, spikes={"input": EVENTS(waves), "layer": spikes})
    wave, picture, inputs, layer, _ = figure.axes
    assert [panel.get_ylabel() for panel in figure.axes[:4]] == ["wave", "frequency (Hz)", "input", "layer"]
    assert all(panel.get_xlim() == (0, pytest.approx(0.06)) for panel in figure.axes[:4])
    assert layer.get_xlabel() == "time (s)" and not picture.get_xlabel()
    (line,) = wave.get_lines()
    assert line.get_ydata() == pytest.approx(waves[1, :480].tolist())  # type: ignore[comparison-overlap]
    assert list(line.get_xdata())[:2] == [0, 1 / 8000]
    marks = layer.collections[0].get_offsets()
    assert marks.tolist() == [[0, 5], [pytest.approx(29 * 0.002), 5]] and layer.get_ylim() == (-1, 6)  # type: ignore
    seconds, numbers = zip(*inputs.collections[0].get_offsets().tolist(), strict=True)  # type: ignore[union-attr]
    at, which = EVENTS(waves).to_dense()[:30, 1].nonzero(as_tuple=True)
    assert seconds == pytest.approx((at * 0.002).tolist()) and list(numbers) == which.tolist() and len(at) > 20


SILENCE = torch.zeros(4, 2, 9)


@refusals(
    Refusal("encoding", lambda: cochleagram(SILENCE, None), TypeError),  # type: ignore[arg-type]
    Refusal("encoded", lambda: cochleagram([[0.0]], CURRENTS), TypeError),  # type: ignore[arg-type]
    Refusal("encoded", lambda: cochleagram(SILENCE[:, 0], CURRENTS)),
    Refusal("encoded", lambda: cochleagram(SILENCE, EVENTS)),
    Refusal("encoded", lambda: cochleagram(SILENCE[:3], CURRENTS)),
    Refusal("encoded", lambda: cochleagram(CURRENTS(torch.zeros(1, 31)), CURRENTS)),
    Refusal("sample", lambda: cochleagram(SILENCE, CURRENTS, 2), IndexError),
    Refusal("sample", lambda: cochleagram(SILENCE, CURRENTS, 1, wave=torch.zeros(1, 64)), IndexError),
    Refusal("wave", lambda: cochleagram(SILENCE, CURRENTS, wave=[0.0] * 64), TypeError),  # type: ignore[arg-type]
    Refusal("wave", lambda: cochleagram(SILENCE, CURRENTS, wave=torch.zeros(2, 63))),
    Refusal("wave", lambda: cochleagram(SILENCE, CURRENTS, wave=torch.zeros(64))),
    Refusal("spikes", lambda: cochleagram(SILENCE, CURRENTS, spikes=SILENCE), TypeError),  # type: ignore[arg-type]
    Refusal("spikes", lambda: cochleagram(SILENCE, CURRENTS, spikes={"a": SILENCE[:3]})),
    Refusal("spikes", lambda: cochleagram(SILENCE, CURRENTS, spikes={"a": 3}), TypeError),  # type: ignore
)
def test_what_is_no_encoded_sound_is_refused(refusal: Refusal) -> None:
    refusal.check()


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
