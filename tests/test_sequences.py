"""Sequences: their data sets and encodings, the linear readout, and runs that train on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import srcell
from srcell import LinearReadout, data
from srcell.data import EventLoader, HeldEncoding, LabelledSequences, RateEncoding, RecallEncoding
from srcell.evaluation import evaluate
from srcell.models import SRCClassifier
from srcell.training import TrainingConfig, train
from support.formats import write_mnist
from support.inputs import noise
from support.refusals import Refusal, refusals


def sequences(name: str, root: Path) -> tuple[LabelledSequences, LabelledSequences]:
    train, test, *_ = data.load(name, root)
    assert isinstance(train, LabelledSequences) and isinstance(test, LabelledSequences)
    return train, test


# Data sets


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    write_mnist(tmp_path / "mnist")
    return tmp_path


def test_digits_are_sequences_of_rows_or_pixels(digits: Path) -> None:
    order = torch.randperm(784, generator=torch.Generator().manual_seed(0))
    for k, (images, labels) in enumerate(data.load("mnist", digits)[:2]):
        pixels = images.reshape(-1, 784, 1)
        assert not torch.equal(pixels[:, order], pixels)
        for name, values in (("seqmnist-rows", images), ("seqmnist", pixels), ("psmnist", pixels[:, order])):
            part = sequences(name, digits)[k]
            assert torch.equal(part.values, values) and torch.equal(part.labels, labels) and part.lengths is None
            assert data.load(name, digits).input_size == values.shape[2]


def write_vowels(folder: Path, *lines: str) -> None:
    """Files in the format of Japanese Vowels, of utterances of 2, 4 and 3 elements, then the given lines."""
    folder.mkdir()
    for part in ("TRAIN", "TEST"):
        samples = []
        for label, length in ((9, 2), (1, 4), (3, 3)):
            rows = noise(length, 12, length).tolist()
            samples.append(":".join([*(",".join(map(str, row)) for row in rows), str(label)]))
        header = ["# a comment", "@problemName JapaneseVowels", "@dimensions 12", "@data"]
        (folder / f"JapaneseVowels_{part}.ts").write_text("\n".join([*header, *samples, *lines, ""]))


def test_japanese_vowels_are_standardised_and_have_their_lengths(tmp_path: Path) -> None:
    write_vowels(tmp_path / "JapaneseVowels")
    dataset = data.load("japanese-vowels", tmp_path)
    assert dataset.num_classes == 9 and dataset.input_size == 12
    elements = torch.cat([noise(length, 12, length).T for length in (2, 4, 3)]).float()
    expected = (elements - elements.mean(0)) / elements.std(0)
    for part in sequences("japanese-vowels", tmp_path):
        assert part.values.shape == (3, 4, 12)
        assert part.labels.tolist() == [8, 0, 2] and part.lengths is not None and part.lengths.tolist() == [2, 4, 3]
        present = torch.arange(4) < part.lengths[:, None]
        torch.testing.assert_close(part.values[present], expected)
        assert not part.values[~present].any()
        # A batch is as long as its longest sequence.
        shapes = [events.shape for events, _ in EventLoader(part, HeldEncoding(hold=2), batch_size=1)]
        assert shapes == [(4, 1, 12), (8, 1, 12), (6, 1, 12)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2:1", "expected 12 coefficients and a label, got 1"),
        (":".join(["1,2"] * 12) + ":10", "expected a label from 1 to 9, got '10'"),
        (":".join(["1,2"] * 11) + ":1:3", r"expected sequence of length 2 at dim 1 \(got 1\)"),
        (":".join(["1,?"] * 12) + ":3", "could not convert string to float"),
        (":".join(["1,nan"] * 12) + ":3", "expected finite values"),
    ],
)
def test_a_corrupt_line_of_japanese_vowels_is_named(line: str, message: str, tmp_path: Path) -> None:
    write_vowels(tmp_path / "japanese-vowels", line)
    with pytest.raises(ValueError, match=rf"JapaneseVowels_TRAIN\.ts: corrupt, line 8 \({message}"):
        data.load("japanese-vowels", tmp_path)


def test_a_missing_file_or_one_without_samples_is_named(tmp_path: Path) -> None:
    write_vowels(tmp_path / "japanese-vowels")
    path = tmp_path / "japanese-vowels" / "JapaneseVowels_TEST.ts"
    for content in (b"", b"@data\n", b"\xff\xfe", b"1,2:1\n"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"JapaneseVowels_TEST\.ts: corrupt"):
            data.load("japanese-vowels", tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"JapaneseVowels_TEST\.ts is not there"):
        data.load("japanese-vowels", tmp_path)


def test_delayed_recall_has_every_symbol_equally_often() -> None:
    dataset = data.load("delayed-recall")
    assert dataset.train.labels.bincount().tolist() == [8000] * 8
    assert dataset.test.labels.bincount().tolist() == [250] * 8


# Encodings


def test_each_element_is_held_as_a_current() -> None:
    values = noise(1, 3, 5, 2).float()
    events = HeldEncoding(hold=4, prefix=3)(values, lengths=torch.tensor([5, 0, 2]))
    assert events.lengths is not None and events.lengths.tolist() == [23, 3, 11]
    dense = events.to_dense()
    assert dense.shape == (23, 3, 2) and not dense[:3].any()
    for sample, length in enumerate((5, 0, 2)):
        held = values[sample, :length].repeat_interleave(4, 0)
        assert torch.equal(dense[3 : 3 + 4 * length, sample], held) and not dense[3 + 4 * length :, sample].any()


def test_recall_is_a_symbol_then_noise_then_a_cue() -> None:
    symbols = data.load("delayed-recall").test.select(torch.tensor([6, 1]))[0]
    encoding = RecallEncoding(delay=40)
    dense = encoding(symbols, torch.tensor([6, 1]), seed=3).to_dense()
    assert dense.shape == (65, 2, 25)
    assert torch.equal(dense[:5], symbols.flatten(1).expand(5, 2, 25))
    between, end = dense[5:45], dense[45:]
    assert not between[..., :8].any() and not between[..., -1].any()
    assert 0.05 < between[..., 8:-1].mean() < 0.15
    assert end[:5, :, -1].all() and end.sum() == 10
    alone = encoding(symbols[1:], torch.tensor([1]), seed=3).to_dense()
    assert torch.equal(alone[:, 0], dense[:, 1]), "the noise of a sample depends on its number, not on the batch"
    assert not torch.equal(encoding(symbols, torch.tensor([6, 1]), seed=4).to_dense(), dense)


# The readout


@pytest.mark.parametrize("lengths", [None, [7, 2, 0], torch.tensor([5, 7, 1])])
@pytest.mark.parametrize("window", [0, 1, 3, 20])
def test_a_linear_readout_is_a_linear_function_of_leaky_sums(window: int, lengths: Any) -> None:
    spikes = noise(2, 7, 3, 6)
    readout = LinearReadout(6, 4, alpha=0.8, window=window).double()
    sums = torch.zeros(3, 6, dtype=torch.float64)
    for b in range(3):
        end = 7 if lengths is None else int(lengths[b])
        for t in range(max(0, end - window) if window else 0, end):
            sums[b] = 0.8 * sums[b] + spikes[t, b]
    torch.testing.assert_close(readout(spikes, lengths=lengths), readout.linear(sums), rtol=1e-12, atol=1e-12)


def test_a_linear_readout_saves_and_loads_its_constants() -> None:
    trained = LinearReadout(6, 4, alpha=0.8, window=3)
    loaded = LinearReadout(6, 4)
    with pytest.warns(UserWarning, match="alpha"):
        loaded.load_state_dict(trained.state_dict())
    spikes = noise(2, 7, 3, 6).float()
    assert torch.equal(loaded(spikes), trained(spikes))


PART = LabelledSequences(torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64))


@refusals(
    Refusal("in_features", lambda: LinearReadout(0, 4)),
    Refusal("num_classes", lambda: LinearReadout(6, 2.0), TypeError),  # type: ignore[arg-type]
    Refusal("alpha", lambda: LinearReadout(6, 4, alpha=1.5)),
    Refusal("window", lambda: LinearReadout(6, 4, window=-1)),
    Refusal("window", lambda: LinearReadout(6, 4, window=1.5), TypeError),  # type: ignore[arg-type]
    Refusal("spikes", lambda: LinearReadout(6, 4)(torch.zeros(7, 3, 5))),
    Refusal("spikes", lambda: LinearReadout(6, 4)(torch.zeros(7, 6))),
    Refusal("readout", lambda: SRCClassifier(5, [], 3, readout="linear")),
    Refusal("readout_window", lambda: SRCClassifier(5, [8], 3, readout_window=2)),
    Refusal("encoding", lambda: EventLoader(PART, RateEncoding()), TypeError),  # type: ignore[arg-type]
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


# Networks and runs


def test_hidden_layers_have_recurrent_weights_and_the_voting_layer_has_none() -> None:
    options: Any = {"recurrent": True, "alpha": srcell.spread(0.5, 0.99), "zs_hyp": 0.5}
    votes = SRCClassifier(5, [8, 6], 3, **options)
    assert [hasattr(layer, "weight_hh_l0") for layer in votes.layers] == [True, True, False]
    linear = SRCClassifier(5, [8, 6], 3, readout="linear", readout_window=4, **options)
    assert [layer.hidden_size for layer in linear.layers] == [8, 6]
    assert linear(noise(1, 9, 2, 5).float()).shape == (2, 3)


def test_recurrent_weights_and_values_count_as_synaptic_operations() -> None:
    model = SRCClassifier(5, [8, 6], 3, readout="linear", recurrent=True)
    assert [ways.unique().tolist() for ways in model.fan_outs()] == [[8], [6 + 8], [3 + 6]]
    samples = LabelledSequences(noise(1, 4, 9, 5).float(), torch.zeros(4, dtype=torch.int64))
    counts = evaluate(model, EventLoader(samples, HeldEncoding(hold=3))).counts
    assert counts[0].events == 9 * 3 * 5 and counts[0].multiply_adds == 8 * counts[0].events
    assert counts[0].additions == 0


@pytest.mark.parametrize("name", ["seqmnist-rows", "japanese-vowels", "delayed-recall"])
def test_a_preset_trains_and_its_network_loads(name: str, digits: Path) -> None:
    write_vowels(digits / "japanese-vowels")
    changes = {"epochs": 1, "validation": 0.0, "hidden_sizes": (8,), "recall_delay": 10, "batch_size": 2}
    if name == "delayed-recall":
        changes |= {"train_samples": 16, "batch_size": 8}
    config = TrainingConfig.preset("best", name, **changes)
    run = train(config, digits / "run", options=srcell.training.RunOptions(data=digits))
    loaded = srcell.load(digits / "run")
    samples = data.load(name, digits).test
    lengths = {"lengths": samples.lengths} if isinstance(samples, LabelledSequences) else {}
    events = loaded.encoder(samples[0][:3], **{k: x if x is None else x[:3] for k, x in lengths.items()})
    assert torch.equal(loaded(events), run.model(events))
    assert sum(layer.events for layer in run.evaluation.counts) > 0


def test_a_layer_for_sequences_has_their_options_and_any_other() -> None:
    layer = srcell.SRC.for_sequences(3, 64, 2, memory=50)
    assert layer.recurrent and layer.initial_state == "rest" and layer.num_layers == 2
    assert "rho=10" in repr(layer) and "rs=-4" in repr(layer) and "zs_hyp=0.2" in repr(layer)
    alpha, omega = layer.alpha_l0.double(), layer.omega_l0.double()
    torch.testing.assert_close(alpha[[0, -1]], torch.tensor([0.5, 0.98]).double(), rtol=1e-6, atol=0)
    assert omega.max().item() == pytest.approx(1.0) and omega[omega > 0].min().item() == pytest.approx(0.04, rel=1e-6)
    other = srcell.SRC.for_sequences(
        3, 4, omega=0.0, recurrent=False, alpha=0.8, learn_bias=False, learnable=("zs_dep",), full_gradient=True
    )
    assert not (other.recurrent or other.resonates) and other.learnable == ("zs_dep",)
    with pytest.raises(TypeError, match="unexpected keyword argument 'alhpa'"):
        srcell.SRC.for_sequences(3, 4, alhpa=0.5)


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 0.9}, {"alpha": 1.0}, {"learnable": ("alpha",)}, {"input_gain": 2.0}]
)
def test_the_integrators_of_a_layer_for_sequences_are_equally_large_under_noise(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    layer = srcell.SRC.for_sequences(1000, 50, **options)
    for _ in range(2):
        alpha = torch.as_tensor(options["alpha"] if "alpha" in options else layer.alpha_l0.detach()).double()
        # The standard deviation of the integrator under white noise, over that of alpha = 0.9.
        gathered = layer.weight_ih_l0.detach().std(1).double() / (1 - alpha.clamp(max=0.9999) ** 2).sqrt()
        expected = options.get("input_gain", 1) * 3 / 1000**0.5 / (1 - 0.81) ** 0.5
        # The relative error of a standard deviation of 1,000 normal numbers is 1 / sqrt(2000): within five of them.
        assert ((gathered / expected - 1).abs() < 5 / 2000**0.5).all()
        layer.reset_parameters()
