"""SoundEncoding: the filters of its source, and the same bits for any chunks and in streams of exported networks."""

from __future__ import annotations

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from srcell import SRC, EventBatch, IntegerSRC, LinearReadout, SpikesOnly, SRCConv2d, runtime
from srcell.data.cochlea import SoundEncoding
from support.events import negated
from support.inputs import noise
from support.networks import bytes_of, exported, split
from support.refusals import Message, Refusal, refusals

RATE = 8000
CURRENTS = SoundEncoding(bands=12, hold=3, adaptation=0.5, offset=0.0)
EVENTS = SoundEncoding(bands=12, frame=0.0025, hold=2, threshold=0.25)
ENCODINGS = [pytest.param(CURRENTS, id="currents"), pytest.param(EVENTS, id="events")]


def chirp(samples: int = 6000, seed: int = 1) -> Tensor:
    """A tone that rises from 80 to 3,900 Hz, swells and fades, with noise."""
    t = torch.arange(samples, dtype=torch.float64) / samples
    phase = 2 * torch.pi * samples / RATE * (80 * t + (3900 - 80) * t**2 / 2)
    wave = 0.5 * torch.sin(phase) * torch.sin(torch.pi * t) + 0.01 * noise(seed, samples)
    return wave.float()


def parts_of(heard: Any) -> tuple[Any, ...]:
    return heard if isinstance(heard, tuple) else (heard,)


def test_bands_equal_filters_of_scipy() -> None:
    signal = pytest.importorskip("scipy.signal", reason='pip install "srcell[train]"')
    sound, encoding = chirp().double().numpy(), SoundEncoding(offset=0.1, scale=2.0)
    sections = encoding.exported()["sound.sections"].numpy()
    share = 1 - np.exp(-1 / (encoding.smoothing * RATE))
    wanted = []
    for of_band in sections:
        sos = np.insert(of_band, 3, 1.0, axis=1)  # scipy has a0, which is 1
        rectified = np.maximum(signal.sosfilt(sos, sound), 0)
        wanted.append(signal.lfilter([share], [1, share - 1], rectified)[79::80] ** 0.25)
    found = encoding.hearing().take(sound)
    assert found.shape == (75, 32) and found.max() > 1
    np.testing.assert_allclose(found, (np.stack(wanted, 1) - 0.1) * 2, rtol=1e-5, atol=1e-6)


def test_each_filter_has_gain_1_at_its_centre_and_the_bandwidth_of_the_ear() -> None:
    encoding = SoundEncoding(bands=20)
    sections = encoding.exported()["sound.sections"].numpy()
    for centre, of_band in zip(encoding.centres, sections, strict=True):
        width = 24.7 * (4.37 * centre / 1000 + 1)

        def gain(frequency: float, of_band: Any = of_band) -> float:
            z = np.exp(-2j * np.pi * frequency / RATE)
            b0, b1, b2, a1, a2 = of_band.T
            return float(abs(np.prod((b0 + b1 * z + b2 * z * z) / (1 + a1 * z + a2 * z * z))))

        assert gain(centre) == pytest.approx(1, rel=1e-9)
        if 3 * width < centre < RATE / 2 - 3 * width:
            frequencies = np.linspace(centre - 3 * width, centre + 3 * width, 400)
            area = np.trapezoid([gain(f) ** 2 for f in frequencies], frequencies)
            assert area == pytest.approx(width, rel=0.1)  # the equivalent rectangular bandwidth


def test_filters_approach_a_gammatone_as_the_rate_grows() -> None:
    signal = pytest.importorskip("scipy.signal", reason='pip install "srcell[train]"')
    centre, errors = 1000.0, []
    width = 1.019 * 24.7 * (4.37 * centre / 1000 + 1)
    for rate in (48_000, 192_000):
        encoding = SoundEncoding(rate=rate, bands=1, lowest=centre, highest=centre)
        of_band = np.insert(
            encoding.exported()["sound.sections"][0].numpy(), 3, 1.0, axis=1
        )  # scipy has a0, which is 1
        t = np.arange(rate // 50) / rate
        found = signal.sosfilt(of_band, (t == 0).astype(float))
        gammatone = t**3 * np.exp(-2 * np.pi * width * t) * np.cos(2 * np.pi * centre * t)
        gammatone /= np.abs(gammatone).max()
        errors.append(np.abs(found * (found @ gammatone) / (found @ found) - gammatone).max())
    # Each section samples its own continuous impulse response: the error of the four is of first order in 1 / rate.
    assert errors[0] < 0.03 and errors[1] == pytest.approx(errors[0] / 4, rel=0.1)


def test_bands_are_equally_spaced_in_bandwidths_of_the_ear() -> None:
    centres = SoundEncoding(bands=6, lowest=80.0, highest=3000.0).centres
    assert centres[[0, -1]] == pytest.approx([80, 3000])
    # The ear's number of bandwidths below a frequency is the integral of 1 / (24.7 (4.37 f / 1000 + 1)).
    number = np.log(4.37 * centres / 1000 + 1) / (24.7 * 0.00437)
    assert np.diff(number) == pytest.approx([np.ptp(number) / 5] * 5)


def test_a_frame_has_the_nearest_number_of_samples() -> None:
    assert [SoundEncoding(frame=samples / 8000).hop for samples in (1.4, 1.6, 79.6)] == [1, 2, 80]


def test_the_slow_mean_is_subtracted() -> None:
    encoding = SoundEncoding(bands=3, adaptation=0.75, memory=0.1, offset=0.0, scale=1.0)
    plain = dataclasses.replace(encoding, adaptation=0.0)
    y, found = (x.hearing().take(chirp()).astype(np.float64) for x in (plain, encoding))
    mean, wanted = np.zeros(3), []
    for row in y:
        mean += (1 - np.exp(-0.01 / 0.1)) * (row - mean)
        wanted.append(row - 0.75 * mean)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_events_follow_the_values_within_the_threshold() -> None:
    encoding = dataclasses.replace(EVENTS, frame=0.0005)
    sound = chirp()
    z = dataclasses.replace(encoding, threshold=0.0, offset=0.0).hearing().take(sound)
    offsets, active = encoding.hearing().take(sound)
    level, levels = np.zeros(12), []
    for begin, end in itertools.pairwise(offsets):
        of_frame = active[begin:end]
        assert (np.diff(of_frame // 2) > 0).all()  # at most one event of each band
        level[of_frame // 2] += np.where(of_frame % 2, -1, 1) * encoding.threshold
        levels.append(level.copy())
    assert len(active) > 200 and {0, 1} == set(active % 2)
    assert np.abs(np.array(levels) - z).max() < 3 * encoding.threshold  # it may lag where z is steep
    assert np.median(np.abs(np.array(levels) - z)) < encoding.threshold


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 400), max_size=30), st.sampled_from([CURRENTS, EVENTS]))
def test_chunks_give_the_bits_of_the_whole(sizes: list[int], encoding: SoundEncoding) -> None:
    sound = chirp(sum(sizes), 2) if sum(sizes) else torch.zeros(0)
    whole, hearing = parts_of(encoding.hearing().take(sound)), encoding.hearing()
    parts = [parts_of(hearing.take(chunk)) for chunk in sound.split(sizes)] if sizes else []
    found = [np.concatenate([part[-1] for part in parts]) if parts else whole[-1][:0]]
    if encoding.threshold:
        counts = [np.diff(part[0]) for part in parts]
        found.insert(0, np.concatenate([[0], np.cumsum(np.concatenate([*counts, np.zeros(0, np.int64)]))]))
    for one, other in zip(found, whole, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_batch_has_the_frames_of_each_sound(encoding: SoundEncoding) -> None:
    lengths = torch.tensor([3000, 0, 1999, 79])
    waves = torch.stack([chirp(3000, seed) for seed in range(4)])
    waves[torch.arange(3000) >= lengths[:, None]] = torch.nan  # never read
    events = encoding(waves, lengths=lengths)
    assert events.shape == (3000 // encoding.hop * encoding.hold, 4, encoding.inputs)
    assert events.lengths is not None
    for b, length in enumerate(lengths.tolist()):
        alone = encoding(waves[b : b + 1, :length])
        steps = length // encoding.hop * encoding.hold
        assert events.lengths[b] == steps == alone.shape[0]
        assert torch.equal(events.to_dense()[:steps, b : b + 1], alone.to_dense())
    assert (encoding(waves[:1]).values is None) == bool(encoding.threshold)


def test_waves_and_lengths_of_any_kind_are_read_as_float32() -> None:
    waves, lengths = torch.stack([chirp(900, seed) for seed in range(2)]).bfloat16(), [900, 700]
    wanted = CURRENTS(waves.float(), lengths=torch.tensor(lengths))
    for same in (waves, waves.double().requires_grad_(), waves.float().t().contiguous().t(), negated(waves.float())):
        for ends in (lengths, np.array(lengths), torch.tensor(lengths, dtype=torch.int16)):
            assert CURRENTS(same, lengths=ends) == wanted  # type: ignore[arg-type]


def test_numbers_of_any_kind_are_settings() -> None:
    plain = SoundEncoding(bands=2, lowest=200.0, threshold=1.0, offset=(0.5, 1.0), scale=2.0)
    other = SoundEncoding(
        bands=np.int8(2),  # type: ignore[arg-type]
        lowest=200,
        threshold=np.float32(1),  # type: ignore[arg-type]
        offset=[0.5, 1],  # type: ignore[arg-type]
        scale=2,
    )
    assert other == plain and hash(other) == hash(plain) and json.dumps(dataclasses.asdict(other))
    assert repr(other) == repr(plain)


def test_fitted_values_have_the_mean_and_deviation_asked_for() -> None:
    waves, lengths = torch.stack([chirp(5000, seed) for seed in range(3)]), torch.tensor([5000, 4000, 800])
    encoding = CURRENTS.fitted(waves, lengths)
    heard = np.concatenate([encoding.hearing().take(x[:n]) for x, n in zip(waves, lengths, strict=True)])
    np.testing.assert_allclose(heard.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(heard.std(0), 0.5, atol=1e-5)
    silent = SoundEncoding().fitted(torch.zeros(1, 800))
    assert silent.scale == (1.0,) * 32 and silent == SoundEncoding(**json.loads(json.dumps(dataclasses.asdict(silent))))


def test_silence_after_a_sound_becomes_exactly_nothing() -> None:
    hearing = SoundEncoding(offset=0.0).hearing()
    assert hearing.take(chirp()).any() and not hearing.take(np.zeros(16 * RATE, np.float32))[-1].any()
    assert hearing.take(chirp()).any()


def network_for(encoding: SoundEncoding) -> nn.Module:
    torch.manual_seed(3)
    network = nn.Sequential(
        SpikesOnly(SRC(encoding.inputs, 40, recurrent=True, zs_hyp=0.5)), LinearReadout(40, 5, alpha=0.97)
    )
    network.encoder = encoding  # type: ignore[assignment]
    return network


def file_of(encoding: SoundEncoding) -> bytes:
    return bytes_of(network_for(encoding))


@torch.no_grad()
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_exported_network_hears_what_the_layers_get(encoding: SoundEncoding) -> None:
    network = network_for(encoding)
    net = exported(network)
    sound = chirp()
    events = encoding(sound[None])
    spikes = network[0].layer(events)[0]  # type: ignore[index]
    assert spikes.any() and np.array_equal(net.spikes(events)[0], spikes.numpy())
    assert (
        net.encoder is not None and SoundEncoding(**{k: v for k, v in net.encoder.items() if k != "name"}) == encoding
    )
    stream, taken, rng = net.stream(), 0, np.random.default_rng(0)
    at, saved = 0, b""
    while at < len(sound):
        size = int(rng.integers(0, 300))
        if at > 3000 and not saved:
            saved, stream = stream.save(), net.stream()
            stream.hear(chirp(1234))
            stream.restore(saved)
        taken += stream.hear(sound[at : at + size])
        at += size
    assert taken == events.shape[0] and np.array_equal(stream.logits(), net.run(events))
    stream.reset()
    assert stream.hear(sound) == taken and np.array_equal(stream.logits(), net.run(events))


def damaged(**tensors: Tensor) -> bytes:
    from safetensors.torch import load, save

    content = file_of(CURRENTS)
    changed = load(content) | {f"sound.{name}": x for name, x in tensors.items()}
    return save(changed, split(content)[0]["__metadata__"])


def constants(**changed: float) -> Tensor:
    made = CURRENTS.exported()["sound.constants"].clone()
    for name, value in changed.items():
        made[["hop", "hold", "smooth", "pace", "share", "threshold", "last"].index(name)] = value
    return made


def sections(bands: int = 12, count: int = 4, value: float = 0.1) -> Tensor:
    return torch.full((bands, count, 5), value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("message", "tensors"),
    [
        (r"sound.sections: expected F64 \(any, any, 5\)", {"sections": sections()[0]}),
        ("sound.sections: expected from 1 to 4096 bands of 1 to 16 sections", {"sections": sections(0)}),
        ("sound.sections: expected from 1 to 4096 bands of 1 to 16 sections", {"sections": sections(1, 17)}),
        ("sound.sections: expected bands for the network's 12 inputs, got 11", {"sections": sections(11)}),
        ("sound.constants: expected whole numbers", {"constants": constants(hop=1.5)}),
        ("sound.constants: expected from 1 to 2\\^20 samples", {"constants": constants(hop=0)}),
        ("sound.constants: expected from 1 to 2\\^20 samples", {"constants": constants(hold=1025)}),
        (r"sound.constants: expected shares in \[0, 1\]", {"constants": constants(pace=1.01)}),
        (r"sound.constants: expected shares in \[0, 1\]", {"constants": constants(share=float("nan"))}),
        ("sound.constants: expected a finite threshold", {"constants": constants(threshold=-1.0)}),
        ("sound.constants: expected 0 at the end", {"constants": constants(last=1.0)}),
        ("sound: expected finite numbers", {"sections": sections(value=float("inf"))}),
        (r"sound.offset: expected F64 \(12\)", {"offset": torch.zeros(1, dtype=torch.float64)}),
        ("header: expected 16 tensors", {"more": torch.zeros(1)}),
    ],
)
def test_a_malformed_cochlea_is_refused(message: str, tensors: dict[str, Tensor]) -> None:
    resized = {}
    if "sections" in tensors and message.endswith("11"):
        resized = {name: torch.zeros(11, dtype=torch.float64) for name in ("offset", "scale")}
    with pytest.raises(ValueError, match=message):
        runtime.Network(damaged(**tensors, **resized))


def test_filters_that_are_not_stable_give_bounded_currents() -> None:
    net = runtime.Network(damaged(sections=sections(value=3.0)))
    stream = net.stream()
    assert stream.hear(chirp()) == 225 and not np.isnan(stream.logits()).any()


ONE = exported(network_for(CURRENTS))
PCM = np.zeros(3, np.int16)


@refusals(
    *(
        Refusal(name, lambda options={name: value}: SoundEncoding(**options))
        for name, value in {
            "rate": 0,
            "bands": 4097,
            "hold": 1025,
            "lowest": 0.0,
            "highest": 4000.0,
            "frame": 0.00001,
            "smoothing": 0.0,
            "memory": float("inf"),
            "adaptation": 1.1,
            "threshold": -0.1,
            "offset": (0.0, 1.0),
            "scale": float("nan"),
        }.items()
        if name not in ("lowest", "highest")
    ),
    *(
        Refusal(name, lambda options={name: value}: SoundEncoding(**options), TypeError)
        for name, value in {
            "rate": None,
            "bands": 1.5,
            "hold": "1",
            "lowest": "100",
            "highest": [3800.0],
            "frame": None,
            "smoothing": 1j,
            "memory": np.zeros(2),
            "adaptation": True,
            "threshold": torch.tensor(0.1),
            "offset": "0.1",
            "scale": [1.0] * 31 + [None],
        }.items()
    ),
    Refusal("frame", lambda: SoundEncoding(frame=1e308)),
    Refusal("frame", lambda: SoundEncoding(frame=float("nan"))),
    Refusal("frame", lambda: SoundEncoding(frame=2**20 / 8000 + 1)),
    Refusal("lowest, highest", lambda: SoundEncoding(lowest=0.0)),
    Refusal("lowest, highest", lambda: SoundEncoding(highest=4000.0)),
    Refusal("waves", lambda: CURRENTS(torch.zeros(2, 100, dtype=torch.int16)), TypeError),
    Refusal("waves", lambda: CURRENTS(torch.zeros(100))),
    Refusal("waves", lambda: CURRENTS(torch.zeros(0, 2**62))),
    Refusal("waves", lambda: CURRENTS(torch.zeros(2, 100).to_sparse())),
    Refusal("waves", lambda: CURRENTS(torch.zeros(2, 100, device="meta"))),
    Refusal("waves", lambda: CURRENTS.fitted(torch.zeros(2, 100, device="meta"))),
    *(
        Refusal("lengths", lambda call=call, lengths=lengths: call(torch.zeros(2, 100), lengths=lengths), error)
        for call in (CURRENTS, EVENTS, CURRENTS.fitted)
        for error, lengths in (
            (ValueError, torch.tensor([100, 101])),
            (ValueError, torch.tensor([-1, 100])),
            (ValueError, torch.tensor([100])),
            (ValueError, torch.tensor([[100, 100]])),
            (TypeError, torch.tensor([100.0, 99.5])),
            (TypeError, [True, False]),
            (TypeError, "99"),
        )
    ),
    *(
        Refusal("deviation", lambda x=x: CURRENTS.fitted(torch.zeros(2, 100), deviation=x))
        for x in (0.0, np.inf, np.nan)
    ),
    Refusal("deviation", lambda: CURRENTS.fitted(torch.zeros(2, 100), deviation="1"), TypeError),  # type: ignore
    Refusal("waves", lambda: CURRENTS.fitted(torch.zeros(2, 79))),
    Message("samples: expected finite numbers, got another at 7", lambda: CURRENTS(bad_at(7)[None])),
    Refusal("samples", lambda: CURRENTS.hearing().take(torch.zeros(2, 3))),
    Message("samples: expected floats, .*, got int16: divide", lambda: CURRENTS.hearing().take(PCM), TypeError),
    Message("samples: expected floats, .*, got int16: divide", lambda: ONE.stream().hear(PCM), TypeError),
    Refusal("samples", lambda: ONE.stream().hear(torch.zeros(3, dtype=torch.bfloat16)), TypeError),
    Refusal("samples", lambda: ONE.stream().hear(torch.zeros(3, device="meta")), TypeError),
    Refusal("samples", lambda: ONE.stream().hear(torch.zeros(3).to_sparse()), TypeError),
    Message("samples: expected finite numbers", lambda: ONE.stream().hear(np.array([0.0, 1e300]))),
    Refusal("samples", lambda: ONE.stream().hear(np.zeros((2, 3)))),
    Message("samples: expected finite numbers, got another at 7", lambda: ONE.stream().hear(bad_at(7))),
    Message("batch: expected 1 to hear a sound, got 2", lambda: ONE.stream(2).hear(chirp())),
    Message("network: expected one that was exported with a SoundEncoding", lambda: deaf().stream().hear(chirp())),
    Message(
        r"network.0.layer \(SRC\): expected 24 inputs, as its SoundEncoding gives, got 12",
        lambda: exported_for(12, EVENTS),
    ),
    Message(
        r"network.0.layer \(IntegerSRC\): expected a SoundEncoding with a threshold, .*, got 0",
        lambda: exported_for(12, CURRENTS, IntegerSRC),
    ),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def bad_at(number: int) -> Tensor:
    sound = chirp(500)
    sound[number] = torch.inf
    return sound


def test_the_shape_of_the_input_and_flatten_may_stand_before_the_layer_that_hears() -> None:
    maps = [nn.Unflatten(2, (1, 3, 4)), SpikesOnly(SRCConv2d(1, 2, 3)), nn.Flatten(2), nn.Linear(4, 3), nn.Flatten(2)]
    for modules in ([nn.Flatten(2), SpikesOnly(SRC(12, 4))], maps):
        network = nn.Sequential(*modules)
        network.encoder = CURRENTS  # type: ignore[assignment]
        net = exported(network)
        assert net.stream().hear(chirp()) == 225 and net.num_classes == (3 if modules is maps else 0)


def deaf() -> runtime.Network:
    return exported_for(12, None)


def exported_for(inputs: int, encoding: Any, kind: Any = SRC) -> runtime.Network:
    network = nn.Sequential(SpikesOnly(kind(inputs, 4)))
    network.encoder = encoding
    return exported(network)


def test_a_refused_chunk_changes_nothing() -> None:
    stream = ONE.stream()
    stream.hear(chirp(1001))
    state = stream.save()
    with pytest.raises(ValueError, match="samples: expected finite"):
        stream.hear(bad_at(100))
    assert stream.save() == state


def test_events_are_those_of_an_event_batch() -> None:
    events = EVENTS(chirp()[None])
    assert isinstance(events, EventBatch) and events.values is None and events.num_events > 100
    assert not events.to_dense()[1::2].any()  # only the first step of a frame has events
