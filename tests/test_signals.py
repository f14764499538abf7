"""Heartbeats and Braille letters: their readers, and steps without a label in losses, accuracies and pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import srcell
from srcell import EventBatch, data, plots
from srcell.cli import main
from srcell.data import IGNORED, EventLoader, LabelledEvents, LabelledSequences
from srcell.data.signals import LETTERS, PARTS
from srcell.evaluation import evaluate
from srcell.models import SRCClassifier
from srcell.models.answers import paired, summed_loss
from srcell.training import Trainer, TrainingConfig, load_data, parameter_groups, train
from srcell.training.options import RunOptions
from support.networks import exported
from support.refusals import Message, refusals

DRAWS = True  # figures of runs: conftest.py
STEPS = 30


def heartbeats(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Events of which the first lead tells the label, and labels, 255 in the first three steps."""
    drawn = np.random.default_rng(seed)
    labels = np.repeat(np.arange(STEPS) * 6 // STEPS, count).reshape(STEPS, count).T.astype(np.uint8)
    events = drawn.integers(-1, 2, (count, STEPS, 4)).astype(np.int8)
    events[:, :, 0] = np.where(labels % 2, 1, -1)
    labels[:, :3] = 255
    return events, labels


def arrays() -> dict[str, Any]:
    made = {part: heartbeats(*numbers) for part, numbers in (("train", (7, 1)), ("test", (5, 2)))}
    return {
        f"{part}_{name}": x for part, pair in made.items() for name, x in zip(("events", "label"), pair, strict=True)
    }


def write_npz(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / "qtdb.npz", **(arrays() | changes))
    return folder


def write_mat(folder: Path) -> Path:
    io = pytest.importorskip("scipy.io", reason='pip install "srcell[train]"')
    folder.mkdir()
    for part in ("train", "test"):
        events, labels = (arrays()[f"{part}_{name}"] for name in ("events", "label"))
        one_hot = np.arange(6) == labels[:, :, None]
        io.savemat(folder / f"QTDB_{part}.mat", {"x": events, "y": one_hot.astype(np.uint8), "t": labels})
    return folder


def write_braille(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    drawn = np.random.default_rng(0)
    taxels = drawn.integers(100, 256, (54, 76, 12)).astype(np.uint8)
    made = {"taxels": taxels, "label": np.repeat(np.arange(27), 2).astype(np.uint8)}
    np.savez(folder / "braille.npz", **(made | changes))
    return folder


@pytest.mark.parametrize("write", [write_npz, write_mat])
@pytest.mark.parametrize("prefix", [0, 4])
def test_heartbeats_have_two_inputs_for_each_lead_and_a_label_for_each_step(
    tmp_path: Path, write: Any, prefix: int
) -> None:
    write(tmp_path / "qtdb")
    published, labelled = (data.load(name, tmp_path, prefix=prefix) for name in ("qtdb", "qtdb-labelled"))
    assert published.class_names == PARTS and published.input_size == 8 and published.num_classes == 6
    events, wanted = arrays()["test_events"], arrays()["test_label"].astype(np.int64)
    for dataset, unlabelled in ((published, 0), (labelled, IGNORED)):
        assert isinstance(dataset.test, LabelledEvents)
        dense = dataset.test.events.to_dense()[prefix:].transpose(0, 1).numpy()
        assert dataset.test.events.shape == (prefix + STEPS, 5, 8)
        assert np.array_equal(dense[:, :, :4], events > 0) and np.array_equal(dense[:, :, 4:], events < 0)
        known = np.where(wanted == 255, unlabelled, wanted)
        assert np.array_equal(dataset.test.labels[:, prefix:].numpy(), known)
        assert bool((dataset.test.labels[:, :prefix] == IGNORED).all())


def test_braille_letters_are_divided_alike_each_time(tmp_path: Path) -> None:
    write_braille(tmp_path / "braille")
    dataset, again = (data.load("braille", tmp_path) for _ in range(2))
    assert isinstance(dataset.train, LabelledSequences) and isinstance(again.test, LabelledSequences)
    assert dataset.class_names == LETTERS and dataset.input_size == 4
    assert dataset.train.values.shape == (43, 76, 4) and dataset.test.values.shape == (11, 76, 4)
    assert torch.equal(dataset.test.values, again.test.values) and torch.equal(dataset.test.labels, again.test.labels)
    assert float(dataset.train.values.min()) >= 0 and float(dataset.train.values.max()) <= 155 / 16


def loaded(name: str, folder: Path, write: Any, **changes: Any) -> Any:
    return lambda tmp_path: data.load(name, write(tmp_path / folder, **changes).parent)


@pytest.mark.parametrize(
    ("load", "said"),
    [
        (loaded("qtdb", Path("qtdb"), write_npz, test_label=np.full((5, STEPS), 6, np.uint8)), "labels 0 to 5"),
        (loaded("qtdb", Path("qtdb"), write_npz, train_events=np.full((7, STEPS, 4), 2, np.int8)), "events of -1, 0"),
        (loaded("qtdb", Path("qtdb"), write_npz, train_label=np.zeros((7, 2), np.uint8)), "expected events"),
        (loaded("qtdb", Path("qtdb"), write_npz, train_events=np.zeros((7, STEPS, 3), np.int8)), "train_events of 3"),
        (loaded("qtdb", Path("qtdb"), write_npz, train_label=np.zeros((7, STEPS))), "train_label of 2 .* integers"),
        (loaded("braille", Path("braille"), write_braille, label=np.full(54, 27, np.uint8)), "label from 0 to 26"),
        (loaded("braille", Path("braille"), write_braille, taxels=np.zeros((54, 76, 4), np.uint8)), "taxels of 3"),
    ],
)
def test_corrupt_files_are_named(load: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"\.npz: corrupt.*{said}"):
        load(tmp_path)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    path = write_mat(tmp_path / "QTDB") / "QTDB_test.mat"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"QTDB_test.mat: corrupt or truncated .*: get QTDB_train.mat"):
        data.load("qtdb", tmp_path)


def labelled(classes: int = 3) -> LabelledEvents:
    """Four samples of ten steps whose input is the label; a third of the steps have none, and one sample has none."""
    drawn = torch.Generator().manual_seed(0)
    labels = torch.randint(0, classes, (4, 10), generator=drawn)
    x = torch.nn.functional.one_hot(labels, classes).float().transpose(0, 1)
    labels[torch.rand(4, 10, generator=drawn) < 0.3] = IGNORED
    labels[3] = IGNORED
    return LabelledEvents(EventBatch.from_dense(x), labels)


class Told(srcell.Sequential):
    """A layer, and logits that are the inputs but for one step, at which they name class 0."""

    def forward(self, x: Any, *given: Any, **options: Any) -> Any:
        self[0](x)
        logits = x.to_dense().clone()
        logits[4] = torch.tensor([1.0, 0, 0])
        return logits


def test_accuracies_and_losses_leave_out_steps_without_a_label() -> None:
    samples = labelled()
    model = Told(srcell.SRC(3, 4))
    found = evaluate(model, EventLoader(samples, batch_size=3))
    known, logits = samples.labels != IGNORED, model(samples.events).transpose(0, 1)
    right = (logits.argmax(2) == samples.labels)[known]
    assert 0 < right.float().mean() < 1
    assert found.answers == int(known.sum()) and found.confusion.sum() == known.sum()
    assert found.accuracy == pytest.approx(float(right.float().mean()))
    of_samples = [float((logits[k].argmax(1) == samples.labels[k])[known[k]].float().mean()) for k in range(3)]
    assert found.sample_accuracy == pytest.approx(sum(of_samples) / 3)
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), samples.labels.flatten())
    output, labels = paired(logits.transpose(0, 1), samples.labels, None)
    assert found.loss == pytest.approx(float(wanted)) == pytest.approx(float(summed_loss(output, labels)) / len(labels))


def test_a_label_of_a_whole_sample_is_not_left_out() -> None:
    samples = labelled()._replace(labels=torch.tensor([0, 1, 2, IGNORED]))
    model = SRCClassifier(3, [4], 3, readout="linear")
    with pytest.raises(ValueError, match=r"expected labels in \[0, 3\), .* got -100"):
        evaluate(model, EventLoader(samples))


def test_arrays_may_lack_labels_of_elements() -> None:
    x, y = np.zeros((6, 5, 2), np.float32), np.tile([5, 7, IGNORED, 7, 5], (6, 1))
    dataset = data.from_arrays(x, y)
    assert dataset.class_names == ("5", "7") and dataset.num_classes == 2
    assert dataset.train.labels[0].tolist() == [0, 1, IGNORED, 1, 0]
    assert dataset.numbered_as(("7", "5")).train.labels[0].tolist() == [1, 0, IGNORED, 0, 1]


def test_a_run_learns_the_parts_of_heartbeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_npz(
        tmp_path / "qtdb", **{f"train_{k}": x for k, x in zip(("events", "label"), heartbeats(48, 3), strict=True)}
    )
    settings: dict[str, Any] = {"hidden_sizes": (16,), "epochs": 6, "batch_size": 8, "learn_time_constants": True}
    config = TrainingConfig.preset("best", "qtdb-labelled", **settings)
    run = train(config, tmp_path / "run", options=RunOptions(data=folder.parent))
    assert run.history[-1].train_accuracy > run.history[0].train_accuracy and run.evaluation.accuracy > 0.3
    assert run.evaluation.answers == 5 * (STEPS - 3) and run.evaluation.of_steps
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["test_sample_accuracy"] == run.evaluation.sample_accuracy
    assert (tmp_path / "run" / "steps.png").is_file() and not (tmp_path / "run" / "raster.png").exists()
    layer = run.model.layers[0]
    untrained = srcell.training.build_model(config, (8, 1, 1), 6).layers[0]
    assert not torch.equal(layer.alpha_l0, untrained.alpha_l0) and not torch.equal(layer.omega_l0, untrained.omega_l0)
    dataset = load_data(config, RunOptions(data=folder.parent))
    assert isinstance(dataset.test, LabelledEvents)
    with torch.no_grad():
        wanted = run.model.read_out(
            run.model.layer_spikes(dataset.test.events)[-1], dataset.test.events, every_step=True
        )
    got = exported(run.model).run(dataset.test.events.to_dense().numpy(), every_step=True)
    assert np.allclose(got, wanted.numpy(), rtol=1e-4, atol=1e-4)
    assert main(["eval", str(tmp_path / "run"), "--data-set", "qtdb", "--data", str(tmp_path)]) == 0
    said = r"test accuracy [\d.]+% of steps \(mean of each sample's accuracy: [\d.]+%\) on 150 steps"
    assert re.match(said, capsys.readouterr().out)


def test_time_constants_have_a_rate_of_their_own_and_no_bound_of_gradients() -> None:
    model = torch.nn.ModuleList(
        [srcell.SRC.for_sequences(3, 4, learnable=["alpha", "omega", "rho"]), torch.nn.Linear(4, 2)]
    )
    weights, others, constants = parameter_groups(model, 0.1, weight_decay=0.5, time_constant_rate=0.2)
    names = {id(x): name for name, x in model.named_parameters()}
    of = [{names[id(x)].split(".")[-1] for x in group["params"]} for group in (weights, others, constants)]
    assert of == [{"weight_ih_l0", "weight_hh_l0", "weight"}, {"bias_l0", "bias", "rho_l0"}, {"alpha_l0", "omega_l0"}]
    assert [group["lr"] for group in (weights, others, constants)] == pytest.approx([0.1, 0.1, 0.02])
    assert [group["weight_decay"] for group in (weights, others, constants)] == [0.5, 0, 0]
    assert len(parameter_groups(model, 0.1, time_constant_rate=1)) == 2


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_the_bound_of_gradients_leaves_out_constants_of_another_rate(tmp_path: Path, rate: float) -> None:
    folder = write_npz(tmp_path / "qtdb")
    config = TrainingConfig(
        dataset="qtdb",
        hidden_sizes=(6,),
        readout="linear",
        prefix=0,
        learn_time_constants=True,
        time_constant_rate=rate,
        clip_norm=1e-4,
    )
    trainer = Trainer(config, load_data(config, RunOptions(data=folder.parent)))
    next(trainer.train_epoch())
    gradients = {name: x.grad for name, x in trainer.model.named_parameters() if x.grad is not None}
    held = [x.norm() for name, x in gradients.items() if rate == 1 or "alpha" not in name]
    assert len(gradients) - len(held) == (rate != 1)
    assert torch.stack(held).norm().item() == pytest.approx(1e-4, rel=1e-3)


def shown() -> tuple[Tensor, Tensor]:
    samples = labelled()
    return samples.events.to_dense(), samples.labels


def test_a_picture_shows_true_and_predicted_steps() -> None:
    x, labels = shown()
    figure = plots.labelled_steps(x, labels, x, sample=1, class_names=["a", "b", "c"])
    known = int((labels[1] != IGNORED).sum())
    assert figure.get_suptitle() == f"{known} of {known} steps with a label are predicted correctly"
    above, true, predicted = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b", "c"]
    covered = [
        sum(path.get_extents().width for part in panel.collections for path in part.get_paths())
        for panel in (true, predicted)
    ]
    assert covered == [known, 10] and above.get_xlim() == (0, 10)


@refusals(
    Message(
        "labels: expected integers .B, T. = .4, 10., got",
        lambda: plots.labelled_steps(*shown()[:1], *2 * [shown()[1].float()]),
    ),
    Message("predicted: expected integers", lambda: plots.labelled_steps(*shown(), shown()[1][:, :3])),
    Message("sample: expected a number", lambda: plots.labelled_steps(*shown(), shown()[1], sample=4), IndexError),
    Message("encoded: expected events or a tensor", lambda: plots.labelled_steps(None, *2 * [shown()[1]]), TypeError),  # type: ignore[arg-type]
)
def test_invalid_pictures_are_refused(refusal: Message) -> None:
    refusal.check()
