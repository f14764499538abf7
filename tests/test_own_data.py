"""Data sets of one's own: from arrays, folders and functions in files; networks of one's own that are trained."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.io import wavfile
from torch import Tensor, nn

import srcell
from srcell import data
from srcell._shared.processes import Processes
from srcell.cli import main
from srcell.data import EventLoader, LabelledEvents, LabelledImages, LabelledSequences, LabelledSounds
from srcell.data.own import load_once
from srcell.evaluation import evaluate
from srcell.events import EventBatch
from srcell.models import SRCClassifier
from srcell.models.answers import summed_loss
from srcell.training import Interrupted, Observer, RunFolder, Trainer, TrainingConfig, load_weights, resume, train
from srcell.training.checkpoint import read_checkpoint, write_checkpoint
from srcell.training.config import OWN
from srcell.training.network import described
from srcell.training.optimisation import learnt_delays, rate_pull
from support.refusals import Message, refusals, user_error
from support.runs import all_steps, assert_equal_weights, assert_resumes_at

GENERATOR = np.random.default_rng(3)
RAGGED = [
    GENERATOR.normal(size=3) + 0.2 * GENERATOR.normal(size=(steps, 3)) for steps in (6, 9, 4, 7, 9, 5, 8, 6, 7, 9)
]
NAMES = ["b", "a"] * 5


class Whole(nn.Module):
    """A network that takes plain tensors, and draws."""

    def __init__(self, *, every_step: bool = False) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(3, 5), nn.Dropout(0.3)
        self.layer, self.readout = srcell.SRC.for_sequences(5, 8), srcell.LinearReadout(8, 2, every_step=every_step)

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        spikes, _ = self.layer(self.dropout(self.linear(input)), lengths=lengths)
        return self.readout(spikes, lengths=lengths)


class Strange(Whole):
    """A network whose state is not of tensors alone."""

    def get_extra_state(self) -> dict[str, int]:
        return {"a": 1}


def sequential(*, every_step: bool = False, batch_first: bool = False) -> srcell.Sequential:
    return srcell.Sequential(
        srcell.SRC.for_sequences(3, 8, batch_first=batch_first),
        srcell.LinearReadout(8, 2, every_step=every_step, batch_first=batch_first),
    )


def pair_of(kind: str) -> tuple[Any, Any]:
    """Samples of 2 classes or values, of each kind of labels."""
    return {
        "labels": (RAGGED, NAMES),
        "targets": (RAGGED, GENERATOR.normal(size=(10, 2))),
        "labels of every step": (RAGGED, [(x[:, 0] > 0).astype(int) for x in RAGGED]),
        "targets of every step": (RAGGED, [x[:, :2] for x in RAGGED]),
    }[kind]


KINDS = ("labels", "targets", "labels of every step", "targets of every step")


def test_arrays_become_sequences_with_lengths_and_names() -> None:
    dataset = data.from_arrays(RAGGED[:8], NAMES[:8], RAGGED[8:], NAMES[8:])
    train, test = dataset.train, dataset.test
    assert isinstance(train, LabelledSequences) and isinstance(test, LabelledSequences)
    assert train.values.shape == (8, 9, 3) and train.lengths is not None
    assert train.lengths.tolist() == [len(x) for x in RAGGED[:8]]
    for values, length, x in zip(train.values, train.lengths, RAGGED, strict=False):
        assert np.array_equal(values[:length].numpy(), x.astype(np.float32)) and not values[length:].any()
    assert dataset.class_names == ("a", "b") and train.labels.tolist() == [1, 0] * 4
    assert dataset.num_classes == 2 and dataset.input_shape == (3, 1, 1) and test.labels.tolist() == [1, 0]


def test_a_part_is_held_out_by_the_seed() -> None:
    whole = torch.arange(20.0)[:, None].expand(20, 4)
    parts = [data.from_arrays(whole, range(20), test=0.25, seed=seed) for seed in (0, 0, 1)]
    firsts = [[part.values[:, 0, 0].tolist() for part in (x.train, x.test)] for x in parts]  # type: ignore[union-attr]
    assert firsts[0] == firsts[1] != firsts[2]
    train, test = firsts[0]
    assert len(test) == 5 and sorted([*train, *test]) == list(range(20))


@pytest.mark.parametrize(
    ("labels", "expected", "names"),
    [
        ([3, 1, 2, 1], [2, 0, 1, 0], ("1", "2", "3")),
        (np.array([10, 9, 2, 9]), [2, 1, 0, 1], ("2", "9", "10")),
        ([0, 2, 1, 0], [0, 2, 1, 0], ()),
        ([True, False, True, False], [1, 0, 1, 0], ()),
        (torch.tensor([1, 0, 1, 0]), [1, 0, 1, 0], ()),
        (np.array(["x", "y", "x", "x"]), [0, 1, 0, 0], ("x", "y")),
    ],
)
def test_labels_are_numbered_in_order(labels: Any, expected: list[int], names: tuple[str, ...]) -> None:
    dataset = data.from_arrays(np.zeros((4, 2, 1)), labels, np.zeros((1, 2, 1)), labels[:1])
    assert dataset.train.labels.tolist() == expected and dataset.class_names == names
    assert dataset.num_classes == len(set(expected))


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("targets", (8, 2)), ("labels of every step", (8, 9)), ("targets of every step", (8, 9, 2))],
)
def test_other_labels_have_their_shapes(kind: str, shape: tuple[int, ...]) -> None:
    dataset = data.from_arrays(*pair_of(kind), test=0.2)
    assert dataset.train.labels.shape[0] == 8 and dataset.train.labels.dim() == len(shape)
    assert dataset.train.labels.shape[2:] == shape[2:] and dataset.num_classes == 2
    assert dataset.train.labels.is_floating_point() == kind.startswith("targets")
    chosen = dataset.train.select(torch.tensor([2, 0]))
    assert isinstance(chosen, LabelledSequences)
    if len(shape) > 1 and "every" in kind:
        assert chosen.labels.shape[1] == chosen.values.shape[1]  # both end with the longest of the two


@refusals(
    Message("x: expected an array .*, got float", lambda: data.from_arrays(1.0, [1]), TypeError),
    Message("x: expected at least one sample", lambda: data.from_arrays([], [])),
    Message("x: expected numbers in sample 0", lambda: data.from_arrays([["a"]], [1]), TypeError),
    Message("x: expected finite numbers, got nan in sample 1", lambda: data.from_arrays([[0.0], [math.nan]], [0, 1])),
    Message(
        r"x: expected \(S, K\) or \(S,\), not empty, in sample 0", lambda: data.from_arrays(np.zeros((2, 0)), [0, 1])
    ),
    Message(
        "x: expected as many inputs in all samples, got 2, 3",
        lambda: data.from_arrays([np.zeros((4, 2)), np.zeros((4, 3))] * 2, [0, 1] * 2),
    ),
    Message("x: expected real numbers, got an EventBatch", lambda: data.from_arrays(events(), [0]), TypeError),
    Message("y: expected a label or a target for each of 10", lambda: data.from_arrays(RAGGED, NAMES[:9])),
    Message("y: expected labels .B,. or targets, got int", lambda: data.from_arrays(RAGGED, 3), TypeError),
    Message("y: expected integers or texts", lambda: data.from_arrays(RAGGED, [1j] * 10), TypeError),
    Message("y: expected integers .*, got .S1", lambda: data.from_arrays(RAGGED, [b"a"] * 10), TypeError),
    Message("y: expected all labels alike", lambda: data.from_arrays(RAGGED, [[1.0] * (k % 2 + 2) for k in range(10)])),
    Message("y: expected one label or target", lambda: data.from_arrays(RAGGED, np.zeros((10, 0)))),
    Message("y: expected at least two classes, got a", lambda: data.from_arrays(RAGGED, ["a"] * 10)),
    Message(
        "y: expected labels, integers or texts, or",
        lambda: data.from_arrays(RAGGED, NAMES, RAGGED, [0.5] * 10),
        TypeError,
    ),
    Message("y_test: expected labels of samples or", lambda: data.from_arrays(RAGGED, NAMES, *pair_of(KINDS[2]))),
    Message("x: expected numbers in sample 0, .*complex", lambda: data.from_arrays([[1j]] * 2, [0, 1]), TypeError),
    Message("test: expected a fraction", lambda: data.from_arrays(RAGGED, NAMES, test=math.nan)),
    Message("y: expected finite targets", lambda: data.from_arrays(RAGGED, [math.inf] * 10)),
    Message("y: expected one label or target, or one for", lambda: data.from_arrays(RAGGED, [[1, 2]] * 10)),
    Message("y_test: expected labels together with x_test", lambda: data.from_arrays(RAGGED, NAMES, RAGGED)),
    Message("y_test: expected labels of the training", lambda: data.from_arrays(RAGGED, NAMES, RAGGED, ["c"] * 10)),
    Message("test: expected a fraction", lambda: data.from_arrays(RAGGED, NAMES, test=1.0)),
    Message("test: expected a fraction", lambda: data.from_arrays(RAGGED, NAMES, test=0.0)),
    Message("dataset: expected a srcell.data.Dataset, a pair", lambda: train(sequential(), 3, "out"), TypeError),
    Message("settings: .*, got hidden_sizes", lambda: fit(hidden_sizes=(3,)), TypeError),
    Message("settings: .*, got speed", lambda: fit(speed=3), TypeError),
    Message("epochs: expected at least 1", lambda: fit(epochs=0)),
    Message("model: expected a network, or a TrainingConfig", lambda: train("digits", RAGGED, "o"), TypeError),  # type: ignore
    Message("_train_model.. missing 1 .*'out'", lambda: train(sequential(), (RAGGED, NAMES)), TypeError),  # type: ignore
    Message("_train_config.. got an .*'epochs'", lambda: train(TrainingConfig(), "out", epochs=2), TypeError),  # type: ignore
)
def test_bad_arguments_raise_an_error_that_names_them(refusal: Message, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    refusal.check()
    assert not list(tmp_path.iterdir())


def events() -> EventBatch:
    return EventBatch.from_dense(torch.ones(3, 1, 2))


def fit(**settings: Any) -> Any:
    return train(sequential(), (RAGGED, NAMES), "out", **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_network_of_ones_own_learns_every_kind_of_labels(kind: str, batch_first: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = sequential(every_step="every" in kind, batch_first=batch_first)
    x, y = pair_of(kind)
    run = train(model, (x, y, x, y), tmp_path / "run", epochs=40, learning_rate=2e-2, validation=0, batch_size=5)
    assert run.model is model and not model.training
    first, last = run.history[0], run.history[-1]
    assert last.train_loss < 0.8 * first.train_loss
    assert run.evaluation.answers == (sum(map(len, x)) if "every" in kind else len(x))
    # What an evaluation says is what the network says, sample by sample.
    errors, right = 0.0, 0
    dataset = data.from_arrays(x, y, x, y)
    for k, values in enumerate(x):
        given = torch.tensor(values, dtype=torch.float32)
        answer = model(given[None] if batch_first else given[:, None]).detach()
        answer = answer.reshape(-1, 2) if "every" in kind else answer
        wanted = dataset.test.labels[k][: len(values)] if "every" in kind else dataset.test.labels[k : k + 1]
        errors += float(summed_loss(answer, wanted))
        right += 0 if wanted.is_floating_point() else int((answer.argmax(1) == wanted).sum())
    assert run.evaluation.loss == pytest.approx(errors / run.evaluation.answers, rel=1e-4)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    if kind.startswith("labels"):
        assert run.evaluation.accuracy == right / run.evaluation.answers == result["test_accuracy"]
        assert math.isnan(run.evaluation.r2) and result["test_r2"] is None
    else:
        assert math.isnan(run.evaluation.accuracy) and result["test_accuracy"] is None
        assert run.evaluation.r2 == result["test_r2"] > 0.1
    assert {"report.html", "rates.png", "learning_curve.png"} <= {path.name for path in (tmp_path / "run").iterdir()}


def test_r2_is_one_minus_the_share_of_the_variance_that_is_left() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = srcell.SRC(1, 2)

        def forward(self, input: Tensor) -> Tensor:
            self.layer(input)
            return input[-1] / 2

    x = torch.tensor([1.0, 2.0, 3.0, 6.0])[:, None, None]
    samples = LabelledSequences(x, x[:, 0])
    found = evaluate(Half(), EventLoader(samples), dense=True)  # type: ignore[arg-type]
    assert found.r2 == pytest.approx(1 - (50 / 4) / 14) and found.loss == pytest.approx(50 / 16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_ones_own_network_resumes_bit_for_bit(kind: str) -> None:
    torch.manual_seed(1)
    first = Whole(every_step="every" in kind)
    config = TrainingConfig(dataset=OWN, epochs=3, batch_size=3, learning_rate=1e-2, clip_norm=1.0, weight_decay=0.01)
    undisturbed = assert_resumes_at((1, 3, 7), config, data.from_arrays(*pair_of(kind)), first)
    assert not torch.equal(undisturbed.model.linear.weight, first.linear.weight)


def test_a_stopped_run_is_resumed_with_its_network_and_its_samples(tmp_path: Path) -> None:
    class Stop(Observer):
        def on_batch(self, epoch: int, fraction: float, tally: Any) -> None:
            if epoch == 2:
                raise Interrupted(2, tmp_path)

    torch.manual_seed(1)
    first = Whole()
    options: dict[str, Any] = {"epochs": 3, "batch_size": 4, "learning_rate": 1e-2}
    whole = train(copy.deepcopy(first), (RAGGED, NAMES), tmp_path / "whole", **options)
    with pytest.raises(Interrupted):
        train(copy.deepcopy(first), (RAGGED, NAMES), tmp_path / "run", observer=Stop(), **options)
    with pytest.raises(ValueError, match="expected model= and dataset=, as they were given to train, for a run of a"):
        resume(tmp_path / "run")
    with pytest.raises(ValueError, match="weights of another network"):
        resume(tmp_path / "run", model=sequential(), dataset=(RAGGED, NAMES))
    again = resume(tmp_path / "run", model=Whole(), dataset=(RAGGED, NAMES))
    assert_equal_weights(again.model, whole.model)
    folder = RunFolder.open(tmp_path / "run")
    assert folder.data is not None and folder.data.class_names == ("a", "b")
    for call in (lambda: srcell.load(folder.path), lambda: srcell.training.evaluate_run(folder)):
        with pytest.raises(ValueError, match="expected a network that its configuration describes, got one of your"):
            call()
    loaded = Whole()
    load_weights(loaded, folder.load_model(), "")
    assert_equal_weights(loaded, whole.model)


def test_a_run_of_a_data_set_takes_no_network(tmp_path: Path) -> None:
    train(TrainingConfig(hidden_sizes=(), epochs=1, steps=3, train_samples=20), tmp_path)
    with pytest.raises(ValueError, match="expected no model and no dataset, for a run of the data set digits"):
        resume(tmp_path, model=sequential(), dataset=(RAGGED, NAMES))


def test_an_encoder_of_the_network_makes_its_events(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 4, 4)
    images[:20, :2] = 0
    samples = LabelledImages(images, torch.arange(40) // 20)
    dataset = data.Dataset(samples, samples, 2, (1, 4, 4))
    model = nn.Sequential(srcell.SpikesOnly(srcell.SRC(16, 20)), srcell.LinearReadout(20, 2))
    with pytest.raises(TypeError, match="encoding: expected a RateEncoding or a LatencyEncoding for images, got None"):
        train(model, dataset, tmp_path / "none")
    model.encoder = data.RateEncoding(steps=30, gain=0.5)  # type: ignore[assignment]
    run = train(model, dataset, tmp_path / "run", epochs=8, learning_rate=2e-2, rate_penalty=0.1)
    assert run.evaluation.accuracy > 0.8
    model.export = srcell.export  # type: ignore[assignment]
    srcell.export(model, tmp_path / "net.srcell")
    assert srcell.runtime.load(tmp_path / "net.srcell").encoder["name"] == "RateEncoding"


def test_a_network_that_takes_no_lengths_is_refused_samples_of_different_lengths(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), srcell.SpikesOnly(srcell.SRC(4, 8)), srcell.LinearReadout(8, 2))
    with pytest.raises(ValueError, match=r"model: expected a forward that takes lengths, .*srcell\.Sequential"):
        train(model, (RAGGED, NAMES), tmp_path / "a")
    assert train(model, (np.stack([x[:4] for x in RAGGED]), NAMES), tmp_path / "b", epochs=1).history


@pytest.mark.parametrize(("every", "kind"), [(True, "labels"), (False, "labels of every step")])
def test_an_output_that_does_not_fit_the_labels_is_refused(every: bool, kind: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model: expected the output \(.*let the network end in a readout"):
        train(sequential(every_step=every), pair_of(kind), tmp_path / "run", epochs=1)


def test_a_network_with_too_few_outputs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected labels in \[0, 2\), the network's classes, got 2"):
        train(sequential(), (RAGGED, [0, 1, 2, 2, 2, 2, 2, 2, 2, 2]), tmp_path / "a", validation=0)
    with pytest.raises(ValueError, match="expected targets of 2 values, the network's, got 1"):
        train(sequential(), (RAGGED, np.ones(10)), tmp_path / "b")


@pytest.mark.parametrize("readout", ["votes", "linear"])
@pytest.mark.parametrize("recurrent", [False, True])
def test_the_work_of_a_chain_is_counted_as_a_classifiers(readout: str, recurrent: bool) -> None:
    torch.manual_seed(4)
    model = SRCClassifier(6, [9, 7], 3, readout=readout, recurrent=recurrent)
    chain = srcell.Sequential(*model.src_layers(), model.readout)
    samples = LabelledEvents(EventBatch.from_dense((torch.rand(25, 8, 6) < 0.3).float()), torch.arange(8) % 3)
    ours, theirs = (evaluate(x, EventLoader(samples)) for x in (chain, model))
    assert ours.counts == theirs.counts and ours.loss == theirs.loss and ours.accuracy == theirs.accuracy
    assert all(torch.equal(*pair) for pair in zip(ours.rates, theirs.rates, strict=True))
    other = nn.Sequential(srcell.SpikesOnly(srcell.SRC(6, 9)), nn.ReLU(), srcell.LinearReadout(9, 3))
    unknown = evaluate(other, EventLoader(samples))
    assert math.isnan(unknown.synaptic_operations) and unknown.counts[0].events == ours.counts[0].events


def with_buffer(tensor: torch.Tensor) -> nn.Module:
    model = sequential()
    model.register_buffer("kept", tensor)
    return model


class Cut(Observer):
    """Stops a run after its first epoch."""

    def on_epoch(self, metrics: Any) -> None:
        raise KeyboardInterrupt


class Dropping(nn.Module):
    """A network whose dropout counts the forward passes in which it was on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.drop, self.rest, self.on = nn.Dropout(), sequential(), 0

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> Any:
        self.on += self.drop.training and torch.is_grad_enabled()
        return self.rest(self.drop(x), lengths=lengths)


def test_a_network_in_evaluation_mode_trains_in_training_mode(tmp_path: Path) -> None:
    """Regression: a second training of a network went without dropout, and a resumed run ended in other bits."""
    model = Dropping()
    whole = train(model.eval(), (RAGGED, NAMES), tmp_path / "whole", epochs=2, batch_size=5)
    assert not model.training and model.on
    with pytest.raises(KeyboardInterrupt):
        train(Dropping().eval(), (RAGGED, NAMES), tmp_path / "cut", Cut(), epochs=2, batch_size=5)
    again = resume(tmp_path / "cut", model=Dropping(), dataset=(RAGGED, NAMES))
    assert all(map(torch.equal, whole.model.state_dict().values(), again.model.state_dict().values()))


def test_a_network_that_does_not_fit_its_samples_leaves_no_folder(tmp_path: Path) -> None:
    x = np.stack([x[:4] for x in RAGGED])
    empty = LabelledSequences(torch.zeros(0, 4, 3), torch.zeros(0, dtype=torch.int64))
    full = data.from_arrays(x, NAMES).train
    silent = Whole()
    silent.forward = lambda input, lengths=None: input[-1]  # type: ignore[method-assign, assignment]
    cases: list[tuple[nn.Module, Any, str]] = [
        (sequential(every_step=True), (x, NAMES), r"model: expected the output \(B, C\)"),
        (sequential(), (x, [0, 1, 2] * 3 + [5]), r"dataset: expected labels in \[0, 2\), the network's classes, got"),
        (nn.Linear(3, 2), (x, NAMES), "model: expected SRC layers in it, got none in Linear"),
        (silent, (x, NAMES), "model: expected a forward that calls its SRC layers"),
        (Strange(), (x, NAMES), r"model: expected a state_dict of tensors, got dict under _extra_state"),
        (
            with_buffer(torch.zeros(2, dtype=torch.complex128)),
            (x, NAMES),
            "model: expected tensors that safetensors stores, got a tensor of torch.complex128 under kept",
        ),
        (with_buffer(torch.eye(2).to_sparse()), (x, NAMES), "got a tensor of layout torch.sparse_coo under kept"),
        (sequential(), data.Dataset(full, empty, 2, (3, 1, 1)), "dataset: expected samples for test, got none"),
        (
            sequential(),
            data.Dataset(empty, full, 2, (3, 1, 1)),
            "validation: expected a fraction that leaves a sample to",
        ),
    ]
    for model, dataset, message in cases:
        with pytest.raises((TypeError, ValueError), match=message):
            train(model, dataset, tmp_path / "run", validation=0)
        assert not (tmp_path / "run").exists()
    held = sequential(every_step=True)
    held.encoder = data.HeldEncoding(hold=2)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="hold, prefix: expected 1 and 0 with labels of every element, got 2 and 0"):
        train(held, (x, (x[:, :, 0] > 0).astype(int)), tmp_path / "run")
    train(sequential(), (x, NAMES), tmp_path / "run", epochs=1)


class Odd(nn.Module):
    """A frozen module, one that has no influence, tied weights, a layer called on more samples, and a cell."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen, self.unused = nn.Linear(3, 3), nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.first, self.second = srcell.SRC.for_sequences(1, 4), srcell.SRCCell(12, 6)
        self.tied = nn.Linear(6, 2)
        self.also_tied = nn.Linear(6, 2)
        self.also_tied.weight = self.tied.weight

    def forward(self, input: Tensor) -> Tensor:
        steps, batch, inputs = input.shape
        folded = self.frozen(input).reshape(steps, batch * inputs, 1)
        spikes = self.first(folded)[0].reshape(steps, batch, inputs * 4)
        state, sums = None, torch.zeros((), dtype=input.dtype)
        for step in spikes:
            out, state = self.second(step, state)
            sums = sums + self.tied(out) + self.also_tied(out)
        return sums


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_of_every_form_train_resume_and_end(dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(5)
    x, first = np.stack([x[:4] for x in RAGGED]), Odd().to(dtype)
    config = TrainingConfig(dataset=OWN, epochs=2, batch_size=3, learning_rate=1e-2, rate_penalty=0.5, validation=0.2)
    dataset = data.from_arrays(x, NAMES)
    begun = Trainer(config, dataset, model=copy.deepcopy(first))
    next(all_steps(begun))
    assert begun.tally.sums[0] == 3 and begun.tally.sums[3] == 4 * (3 * 3 * 4 + 3 * 6)
    undisturbed = assert_resumes_at((1,), config, dataset, first)
    assert torch.equal(undisturbed.model.frozen.weight, first.frozen.weight)
    assert not torch.equal(undisturbed.model.tied.bias, first.tied.bias)
    model = copy.deepcopy(first)
    run = train(model, dataset, tmp_path / "run", epochs=1)
    again = Odd().to(dtype)
    load_weights(again, RunFolder.open(tmp_path / "run").load_model(), "")
    assert_equal_weights(again, run.model)


def test_the_penalty_on_rates_does_not_depend_on_how_a_layer_is_called(tmp_path: Path) -> None:
    spikes = torch.rand(5, 12, 4).requires_grad_()
    whole = rate_pull([spikes], 0.1, 12, 12, Processes())
    folded = rate_pull([spikes], 0.1, 4, 4, Processes())  # three rows of each of four samples
    assert torch.equal(whole, folded)


def test_delays_are_optimised_in_one_order() -> None:
    """That of ``Classifier.delays``, in which checkpoints have their moments."""
    model = SRCClassifier(6, [8, 7], 2, input_delay=5, recurrent=True, recurrent_delay=4, learn_delays=True)
    assert [id(x) for x in learnt_delays(model)] == [id(x) for x in model.delays.values()]
    chain = srcell.Sequential(*model.export_parts())
    assert [id(x) for x in learnt_delays(chain)] == [id(x) for x in model.delays.values()]


def test_train_takes_its_arguments_by_name(tmp_path: Path) -> None:
    seen: list[int] = []

    class Seen(Observer):
        def on_epoch(self, metrics: Any) -> None:
            seen.append(metrics.epoch)

    config = TrainingConfig(hidden_sizes=(), epochs=1, steps=3, train_samples=20)
    train(config=config, out=tmp_path / "a", observer=Seen())
    train(config, out=tmp_path / "b", options=srcell.training.RunOptions())
    train(model=sequential(), dataset=(RAGGED, NAMES), out=tmp_path / "c", observer=Seen(), epochs=2)
    train(sequential(), (RAGGED, NAMES), tmp_path / "d", Seen(), epochs=1)
    assert seen == [1, 1, 2, 1]


def test_other_samples_are_no_samples_of_the_run(tmp_path: Path) -> None:
    train(sequential(), (RAGGED, NAMES), tmp_path / "run", epochs=1)
    for dataset, message in (
        ((RAGGED, ["b", "z"] * 5), "expected the classes that the run began with"),
        (([x + 1 for x in RAGGED], NAMES), "expected the training and test samples, and checksums of labels and samp"),
        ((RAGGED, NAMES[::-1]), "expected the training and test samples, and checksums of labels and samples, that"),
        ((RAGGED[:8], NAMES[:8]), "expected the training and test samples, and checksums"),
    ):
        with pytest.raises(ValueError, match=message):
            resume(tmp_path / "run", model=sequential(), dataset=dataset)
    assert RunFolder.open(tmp_path / "run").data.class_names == ("a", "b")  # type: ignore[union-attr]
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert len(record["data"]["samples"]) == 4
    del record["data"]["samples"][3]  # as srcell 0.3 wrote it
    (tmp_path / "run" / "config.json").write_text(json.dumps(record))
    resume(tmp_path / "run", model=sequential(), dataset=([x + 1 for x in RAGGED], NAMES))


class Described(nn.Module):
    """A network with settings that its weights do not show."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        given = {"p": 0.2, "surrogate": "relu", "full_gradient": True, "window": 5} | options
        self.layer = srcell.SRC(3, 8, surrogate=given["surrogate"], full_gradient=given["full_gradient"])
        self.dropout, self.readout = nn.Dropout(given["p"]), srcell.LinearReadout(8, 2, window=given["window"])

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.readout(self.dropout(self.layer(x, lengths=lengths)[0]), lengths=lengths)


def test_another_network_of_the_same_weights_is_not_that_of_the_run(tmp_path: Path) -> None:
    """Regression: a run went on with another dropout, surrogate or gradient, and ended in other bits."""
    train(Described(), (RAGGED, NAMES), tmp_path / "run", epochs=2)
    for options, message in (
        (
            {"p": 0.3},
            r"expected the network that the run began with, dropout: Dropout\(p=0.2, .* got dropout: Dropout\(",
        ),
        ({"surrogate": "straight_through"}, r"got layer: SRC\(3, 8, full_gradient=True\)"),
        ({"full_gradient": False}, r"got layer: SRC\(3, 8, surrogate='relu'\)"),
    ):
        model = Described(**options)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ValueError, match=message):
            resume(tmp_path / "run", model=model, dataset=(RAGGED, NAMES))
        assert all(map(torch.equal, before.values(), model.state_dict().values()))
    path = tmp_path / "run" / "checkpoint.safetensors"
    tensors, record = read_checkpoint(path)
    others = record["modules"]
    assert others == record["modules_at_first"] == described(Described())
    for modules in (None, ["srcell 0.3.0, torch 2.4.0", *others[1:3]]):  # as srcell 0.3 and other versions wrote it
        write_checkpoint(path, tensors, record | {"modules": modules, "modules_at_first": modules})
        resume(tmp_path / "run", model=Described(p=0.3), dataset=(RAGGED, NAMES))


def test_a_run_of_a_classifier_resumes_with_its_settings_and_its_encoder(tmp_path: Path) -> None:
    def made(steps: int = 5, **options: Any) -> SRCClassifier:
        torch.manual_seed(0)
        model = SRCClassifier(4, [6], 2, **options)
        model.encoder = data.RateEncoding(steps=steps)
        return model

    samples = LabelledImages(torch.rand(10, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 2)
    images = data.Dataset(samples, samples, 2, (1, 2, 2))
    train(made(), images, tmp_path / "run", epochs=1, batch_size=5)
    for options in ({"steps": 4}, {"dropout": 0.5}, {"balance_gradients": True}):
        with pytest.raises(ValueError, match="expected the network that the run began with"):
            resume(tmp_path / "run", model=made(**options), dataset=images)
    resume(tmp_path / "run", model=made(), dataset=images)


def test_settings_that_an_observer_changes_are_no_other_network(tmp_path: Path) -> None:
    class Narrowing(Observer):
        def on_epoch(self, metrics: Any) -> None:
            self.delay.delay_width = 4
            if metrics.epoch == 2:
                raise KeyboardInterrupt

        def on_ready(self, trainer: Any) -> None:
            self.delay = trainer.model[0]

    def made() -> srcell.Sequential:
        return srcell.Sequential(srcell.Delay(3, 9, delay_width=8), srcell.SRC(3, 8), srcell.LinearReadout(8, 2))

    model = made()
    with pytest.raises(KeyboardInterrupt):
        train(model, (RAGGED, NAMES), tmp_path, Narrowing(), epochs=3)
    for again in (model, made()):
        resume(tmp_path, model=again, dataset=(RAGGED, NAMES))


def test_silent_steps_are_not_standardised() -> None:
    settings: dict[str, Any] = {"dataset": "japanese-vowels", "standardise": True}
    with pytest.raises(ValueError, match=r"prefix: expected 0 with standardise, .*, got 20"):
        TrainingConfig(**settings)
    assert TrainingConfig(**settings, prefix=0).standardise


def test_an_integer_layer_of_ones_own_counts_its_clamped_integrators() -> None:
    layer = srcell.IntegerSRC(64, 10, weight_bits=16)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1)
    model = nn.Sequential(srcell.SpikesOnly(layer), srcell.LeakyReadout(2, 5))
    samples = LabelledEvents(EventBatch.from_dense(torch.ones(30, 2, 64)), torch.arange(2))
    found = evaluate(model, EventLoader(samples))
    assert found.clamped == int(layer.clamped) > 0


def test_the_command_line_trains_on_targets_of_a_function(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text("import numpy as np\ndef load(): return np.ones((20, 4, 1)), np.arange(20.0)")
    assert main(["train", "m.py:load", "--epochs", "1", "--hidden", "4", "--out", "run"]) == 0
    assert "test error " in capsys.readouterr().out
    assert main(["eval", "run", "--data", "m.py:load"]) == 0
    assert "R2 " in capsys.readouterr().out.splitlines()[0]
    assert "unknown data set 'm.py', a file: expected m.py:FUNCTION" in user_error("train m.py", capsys)


def test_files_that_were_changed_are_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,label\n" + "1,up\n2,down\n" * 5)
    name = f"{tmp_path}/"
    once = load_once(name)
    assert load_once(name) is once and once.class_names == ("down", "up")
    (tmp_path / "a.csv").write_text("x,label\n" + "1,left\n2,right\n" * 6)
    assert load_once(name).class_names == data.load(tmp_path).class_names == ("left", "right")


def test_folders_may_be_links_and_parts_may_have_capitals(tmp_path: Path) -> None:
    for part in ("Train", "Test"):
        for label in ("a", "b"):
            path = tmp_path / "real" / part / label / "1.csv"
            path.parent.mkdir(parents=True)
            path.write_text("x,y\n1,2\n" if label == "a" else "y,x\n4,3\n")
    (tmp_path / "data").mkdir()
    for part in ("Train", "Test"):
        (tmp_path / "data" / part).symlink_to(tmp_path / "real" / part)
    (tmp_path / "real" / "Train" / "a" / "up").symlink_to(tmp_path / "real")
    dataset = data.load(f"{tmp_path}/data/")
    assert isinstance(dataset.train, LabelledSequences) and dataset.class_names == ("a", "b")
    assert dataset.train.values.tolist() == [[[1, 2]], [[3, 4]]]  # columns by their names


def write_wav(path: Path, samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, 8000, (1000 * GENERATOR.normal(size=samples)).astype(np.int16))


def test_a_folder_of_wav_files_by_label(tmp_path: Path) -> None:
    for k in range(10):
        write_wav(tmp_path / ("no" if k % 2 else "yes") / f"{k}.wav", 300 + k)
    write_wav(tmp_path / ".hidden" / "x.wav", 10)
    dataset = data.load(f"{tmp_path}/")
    assert isinstance(dataset.train, LabelledSounds) and dataset.class_names == ("no", "yes")
    assert len(dataset.train.labels) == 8 and len(dataset.test.labels) == 2
    assert all((n - 300) % 2 == 1 - label for n, label in zip(dataset.train.lengths, dataset.train.labels, strict=True))


def test_folders_train_and_test_are_the_parts(tmp_path: Path) -> None:
    for k, path in enumerate(("train/b/1", "train/a/2", "train/b/3", "test/a/4", "test/b/5")):
        write_wav(tmp_path / f"{path}.wav", 300 + k)
    dataset = data.load(f"{tmp_path}/")
    assert isinstance(dataset.train, LabelledSounds) and isinstance(dataset.test, LabelledSounds)
    assert dataset.train.labels.tolist() == [0, 1, 1] and dataset.train.lengths.tolist() == [301, 300, 302]
    assert dataset.test.labels.tolist() == [0, 1] and dataset.test.lengths.tolist() == [303, 304]


def test_an_npz_file(tmp_path: Path) -> None:
    x, lengths = GENERATOR.normal(size=(10, 6, 2)), np.arange(10) % 5 + 2
    np.savez(tmp_path / "all.npz", x=x, y=np.array(NAMES), lengths=lengths)
    dataset = data.load(f"{tmp_path}/")
    assert isinstance(dataset.train, LabelledSequences) and dataset.class_names == ("a", "b")
    assert dataset.train.lengths is not None and len(dataset.train.labels) == 8
    np.savez(tmp_path / "all.npz", x=x, y=np.array(NAMES), x_test=x[:3], y_test=np.array(NAMES[:3]))
    dataset = data.load(f"{tmp_path}/")
    assert len(dataset.train.labels) == 10 and dataset.test.labels.tolist() == [1, 0, 1]
    (tmp_path / "all.npz").unlink()
    for part in ("train", "test"):
        np.savez(tmp_path / f"{part}.npz", x=x, y=x[:, :, :1], lengths=lengths)
    dataset = data.load(f"{tmp_path}/")
    assert isinstance(dataset.test, LabelledSequences) and dataset.test.labels.shape == (10, 6, 1)
    assert dataset.test.lengths is not None and dataset.test.lengths.tolist() == lengths.tolist()


def test_csv_files(tmp_path: Path) -> None:
    def written(name: str, text: str) -> data.Dataset:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return data.load(f"{path.parent}/")

    rows = "".join(f"{k},{k + 0.5},{'up' if k % 2 else 'down'}\n" for k in range(10))
    dataset = written("rows/a.csv", f"t0, t1 ,label\n{rows}")
    assert isinstance(dataset.train, LabelledSequences) and dataset.train.values.shape == (8, 2, 1)
    first, second = dataset.train.values[:, :, 0].T
    assert torch.equal(second, first + 0.5) and torch.equal(dataset.train.labels, (first % 2).long())
    steps = "".join(f"{b},{b * 10 + t},{-t},{b % 2}\n" for b in range(5) for t in range(b + 2))
    dataset = written("samples/a.csv", f"sample,x,y,label\n{steps}")
    assert isinstance(dataset.train, LabelledSequences) and dataset.input_shape == (2, 1, 1)
    assert dataset.train.labels.dim() == 1 and dataset.train.lengths is not None
    numbers = (dataset.train.values[:, 0, 0] / 10).long()
    assert torch.equal(dataset.train.lengths, numbers + 2) and torch.equal(dataset.train.labels, numbers % 2)
    steps = "".join(f"{b},{t},{b * 0.1 + t}\n" for b in range(5) for t in range(3))
    dataset = written("targets/a.csv", f"sample,x,label\n{steps}")
    assert dataset.train.labels.shape == (4, 3, 1) and dataset.train.labels.is_floating_point()
    for name in "abcd":
        (tmp_path / "by_label" / name).mkdir(parents=True)
        (tmp_path / "by_label" / name / "1.csv").write_text("x,y\n1,2\n3,4\n")
    dataset = data.load(f"{tmp_path}/by_label/")
    assert dataset.class_names == ("a", "b", "c", "d") and dataset.input_shape == (2, 1, 1)


def folder(tmp_path: Path, **files: str | bytes) -> str:
    for name, content in files.items():
        path = tmp_path / re.sub("_(csv|npz|txt|wav)$", r".\1", name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return f"{tmp_path}/"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "expected WAV or CSV files in a folder for each label, .*, got no files"),
        ({"a_txt": "x"}, "expected WAV or CSV files .*, got 1 other files"),
        ({"a_txt": "x", "b_csv": "x", "c_npz": "x"}, r"expected WAV or CSV files .*, got \.csv, \.npz"),
        ({"a_csv": "x,y\n1,2\n"}, r"a\.csv: expected a column 'label', got x, y"),
        ({"a_csv": "label\n1\n"}, r"a\.csv: expected columns of numbers beside label, got none"),
        ({"a_csv": "x,label\n1\n"}, r"a\.csv: expected 2 columns, got 1 in line 2"),
        ({"a_csv": "x,label\n1,2,3\n"}, r"a\.csv: expected 2 columns, got 3 in line 2"),
        ({"a_csv": "x,label\nabc,2\n"}, r"a\.csv: expected finite numbers, got 'abc' in line 2, column x"),
        ({"a_csv": "x,label\n1,0\nnan,1\n"}, r"a\.csv: expected finite numbers, got 'nan' in line 3, column x"),
        ({"a_csv": "x,label\n1,0\n-1e39,1\n"}, r"got '-1e39' in line 3, column x \(float32 ends at 3.4e38\)"),
        ({"a_csv": "x,label\n1,0.5\n2,nan\n"}, r"a\.csv: expected finite numbers, got 'nan' in line 3, column label"),
        ({"a_csv": "x,label\n1,0\n2,-inf\n"}, r"a\.csv: expected finite numbers, got '-inf' in line 3, column label"),
        ({"a_csv": "x,label\n"}, r"a\.csv: expected rows below its first line, got none"),
        ({"a_csv": ""}, r"a\.csv: expected a name for each column in its first line, got \[\]"),
        ({"a_csv": "x,label\n1, up\n\n2,\n"}, r"a\.csv: expected a label in line 4, got an empty one"),
        ({"a__1_csv": "1,2\n3,4\n", "b__1_csv": "1,2\n3,4\n"}, r"1\.csv: expected a name for each column"),
        ({"a__1_csv": "x,y\n3,4\n", "b__1_csv": "x,z\n3,4\n"}, r"1\.csv: expected the columns x, y, found no y"),
        ({"train_csv": "x,label\n1,0\n2,1\n", "test_csv": "y,label\n1,0\n"}, r"test\.csv: expected the columns of"),
        ({"a__1_csv": "x\n1\n", "a__2_csv": "x\n1\n"}, "y: expected at least two classes, got a"),
        ({"train__a__1_csv": "x\n1\n", "val__a__2_csv": "x\n1\n"}, "expected the folders train and test and no others"),
        ({"train__a__1_csv": "x\n1\n"}, "expected the folders train and test and no others, got train"),
        ({"a_wav": "x", "b_wav": "x"}, r"expected a folder for each label, or names such as yes_1\.wav"),
        ({"a_csv": "x,x,label\n1,2,3\n"}, r"a\.csv: expected a name for each column"),
        ({"a_csv": b"x,label\n\xff,1\n"}, r"a\.csv: cannot be read as CSV"),
        ({"a_csv": "x,label\n1,0\n", "b_csv": "x,label\n1,0\n"}, r"expected one file, or train and test, got a\.csv"),
        (
            {"a_csv": "x,label\n1,0\n", "b__a_csv": "x\n1\n"},
            "expected every file in the folder of its label",
        ),
        ({"a_npz": b"no"}, r"a\.npz: cannot be read"),
    ],
)
def test_a_folder_that_does_not_say_what_it_is(
    files: dict[str, str | bytes], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = folder(tmp_path / "data", **files) if files else f"{tmp_path}/"
    with pytest.raises(ValueError, match=message):
        data.load(name)
    assert user_error(f"train {name} --out {tmp_path}/run", capsys).startswith("srcell: ")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a function 'load' in it, found none"),
        ("def other(): pass", "expected a function 'load' in it, found other"),
        ("def load(): return 3", r"data\.py:load: dataset: expected a srcell.data.Dataset, a pair"),
        ("def load(): return [[0.0]], [1, 2]", r"data\.py:load: y: expected a label"),
        ("def load(): raise KeyError('mine')", r"data\.py:load: KeyError at data\.py, line 1: 'mine'"),
        ("def load():\n  return 1 / 0", r"data\.py:load: ZeroDivisionError at data\.py, line 2: division by zero"),
        (
            "import srcell\ndef load():\n  srcell.SRC(0.5, 1)",
            r"load: TypeError at data\.py, line 3: input_size: expected",
        ),
        ("def load(", r"data\.py:load: SyntaxError: .* \(data\.py, line 1\)"),
    ],
)
def test_a_function_that_returns_no_data_set(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.py").write_text(text)
    with pytest.raises(ValueError, match=message):
        data.load(f"{tmp_path}/data.py:load")


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        data.load(f"{tmp_path}/none/")
    (tmp_path / "d.csv").write_text("label,x\n")
    with pytest.raises(NotADirectoryError, match=r"d\.csv: a file: expected the folder that it is in, or FILE.py:FUNC"):
        data.load(f"{tmp_path}/d.csv")
    with pytest.raises(FileNotFoundError, match=r"no such file: expected FILE.py:FUNCTION"):
        data.load(f"{tmp_path}/none.py:load")
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        data.load("digit")


SCRIPT = """
import numpy as np
from helper import LABELS

def load():
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, 12, 2)) * 5 + 100
    x[::2, :, 0] += 12
    return x, [LABELS[k % 2] for k in range(60)]
"""


def test_the_command_line_trains_resumes_evaluates_and_exports_ones_own_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(SCRIPT)
    Path("helper.py").write_text("LABELS = ['high', 'low']")
    assert main(["train", "mine.py:load", "--epochs", "12", "--hidden", "16", "--out", "run"]) == 0
    printed = capsys.readouterr().out
    assert "data     mine.py:load: 43 training, 5 validation, 12 test samples" in printed
    assert main(["eval", "run", "--data", "mine.py:load"]) == 0
    assert printed.splitlines()[-1].partition(" after")[0] in capsys.readouterr().out
    folder = RunFolder.open("run")
    assert folder.config.standardise and folder.data is not None and folder.data.class_names == ("high", "low")
    assert json.loads(Path("run/result.json").read_text())["test_accuracy"] == 1.0
    assert main(["train", "--resume", "run", "--data", "mine.py:load"]) == 0
    Path("mine.py").unlink()  # a finished run needs no data
    network = srcell.load("run")
    assert isinstance(network.standardise, srcell.Standardise) and 90 < float(network.standardise.mean[1]) < 110
    assert main(["export", "run", "net.srcell"]) == 0


def test_a_folder_is_trained_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for k in range(12):
        write_wav(Path("words") / ("no" if k % 2 else "yes") / f"{k}.wav", 900)
    assert main(["train", "words", "--epochs", "1", "--hidden", "4"]) == 0
    (run,) = Path("runs").iterdir()
    assert run.name.startswith("words-") and RunFolder.open(run).config.dataset == "words/"
    with pytest.raises(SystemExit):
        main(["train", "words/", "--help"])
    shown = set(re.findall(r"^  --([a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    assert {"threshold", "encoding"} <= shown and not {"gain", "standardise"} & shown
