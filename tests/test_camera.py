"""The event camera: events equal a definition in NumPy, are the same on every instruction set, in every batch and on
any number of threads; what a pixel does; and the arguments that are refused.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from srcell import camera_encode, runtime, training
from srcell.data import CameraEncoding, LabelledImages
from srcell.models import SRCClassifier
from srcell.training import TrainingConfig
from srcell.training.samples import split
from support.networks import bytes_of
from support.processes import ISAS, IsaProcess
from support.refusals import Message, Refusal, refusals
from test_encoders import digest, philox

OF_PIXEL, OF_VIEW, OF_NOISE = 0, 1, 2
# A silent change of the recordings would change every published result.
RECORDED_HASH = "8bbca65ac0ac066dc968939958aba07e47d1cbc36531f3d25d4da63689d48039"


def drawn(seed: int, sample: int, n: Any, purpose: Any) -> list[np.ndarray]:
    n, purpose = np.broadcast_arrays(np.asarray(n), np.asarray(purpose))
    counter = [n, purpose, np.full_like(n, sample % 2**32), np.full_like(n, sample >> 32)]
    return philox(counter, (seed % 2**32, seed >> 32))


def deviate(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    return ((a + b + c).astype(np.float64) / 2**16 - 1.5) * 2


def high(word: np.ndarray) -> np.ndarray:
    return word >> np.uint64(16)


def low(word: np.ndarray) -> np.ndarray:
    return word & np.uint64(0xFFFF)


def fire(first: np.ndarray, frames: np.ndarray, sensor: dict[str, Any], seed: int, sample: int) -> np.ndarray:
    """The spikes (T, 2, H, W) of a sample whose brightness is `first`, then frames (T, H, W), float32."""
    height, width = first.shape
    one = np.float32(1)
    words = drawn(seed, sample, np.arange(height * width).reshape(height, width), OF_PIXEL)
    spread = float(np.float32(sensor["spread"]))
    limits = [float(np.float32(x)) for x in sensor["threshold"]]
    rising, falling = deviate(*map(high, words[1:])), deviate(*map(low, words[1:]))
    rise, fall = (np.float32(x * (1 + spread * z)) for x, z in zip(limits, (rising, falling), strict=True))
    place = (words[0] >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)
    level = first + (fall - place * (rise + fall))
    blind_until = np.zeros((height, width))
    spikes = np.zeros((len(frames), 2, height, width), bool)
    for t, seen in enumerate(frames):
        sees = blind_until <= t
        ups, downs = (
            np.where(sees & (change >= limit), np.floor(change / limit), 0).astype(np.float32)
            for change, limit in ((seen - level, rise), (level - seen, fall))
        )
        level = level + (ups * rise - downs * fall)
        spikes[t] = ups >= one, downs >= one
        blind_until[spikes[t].any(0)] = t + 1 + sensor["refractory"]
        expected = sensor["noise"] * height * width
        candidates = math.ceil(2 * expected)
        for n in range(candidates):
            pair = drawn(seed, sample, t, OF_NOISE + n // 2)[n % 2 * 2 :][:2]
            if int(pair[0]) >> 8 < math.ceil(expected / candidates * 2**24):
                spikes[t].reshape(-1)[int(pair[1]) * 2 * height * width >> 32] = True
    return spikes


def views(picture: np.ndarray, camera: CameraEncoding, seed: int, sample: int) -> np.ndarray:
    """What the sensor sees of an unblurred picture at times 0 to T, (T + 1, H, W) float32."""
    (height, width), (rows, columns) = camera.sensor_size, picture.shape
    size, left, top = (deviate(*map(high, drawn(seed, sample, n, OF_VIEW)[:3])) for n in range(3))
    times, x, y = np.array(camera.movement).T
    padded = np.zeros((rows + 2 * 2000, columns + 2 * 2000), np.float32)
    padded[2000:-2000, 2000:-2000] = picture

    def start(shift: np.ndarray, larger: int) -> tuple[int, np.float32]:
        place = shift + larger / 2
        return math.floor(place), np.float32(place - math.floor(place))

    seen = []
    for t in range(camera.steps + 1):
        after = int(np.searchsorted(times, t, side="right"))
        part = 0.0 if after in (0, len(times)) else (t - times[after - 1]) / (times[after] - times[after - 1])
        begin, end = max(after - 1, 0), min(after, len(times) - 1)
        across, down = (p[begin] + (p[end] - p[begin]) * part for p in (x, y))
        scale = 1 + camera.size_jitter * size
        column, along = start(camera.place_jitter * left + scale * across, columns - width)
        row, below = start(camera.place_jitter * top + scale * down, rows - height)
        window = padded[2000 + row :, 2000 + column :][: height + 1, : width + 1]
        lines = window[:, :-1] + along * (window[:, 1:] - window[:, :-1])
        seen.append(lines[:-1] + below * (lines[1:] - lines[:-1]))
    return np.stack(seen)


def random_pictures(*shape: int, seed: int = 0) -> np.ndarray:
    return (2 * np.random.default_rng(seed).random(shape, np.float32) - 1).clip(0)


def video(steps: int, samples: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Brightness that wanders in [0, 1]."""
    walk = np.random.default_rng(seed).normal(0, 0.15, (steps, samples, height, width)).cumsum(0) + 0.5
    return np.abs(np.mod(walk + 1, 2) - 1).astype(np.float32)


SIZES = st.integers(1, 5) | st.sampled_from([15, 16, 17, 33])
SENSORS = {
    "threshold": st.sampled_from([(0.19, 0.19), (0.05, 0.3), (1.0, 0.5)]),
    "spread": st.sampled_from([0.0, 0.15, 0.3]),
    "refractory": st.sampled_from([0, 1, 7]),
    "noise": st.sampled_from([0.0, 0.01, 1.0]),
}


@settings(deadline=None, max_examples=60)
@given(
    steps=st.integers(0, 12),
    samples=st.integers(0, 3),
    height=SIZES,
    width=SIZES,
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**63 - 4),
    sensor=st.fixed_dictionaries(SENSORS),
)
def test_video_equals_its_definition(
    steps: int, samples: int, height: int, width: int, seed: int, first: int, sensor: dict[str, Any]
) -> None:
    frames = video(steps, samples, height, width)
    index = list(range(first, first + samples))
    found = camera_encode(frames, seed=seed, index=index, **sensor).to_dense().numpy()
    assert found.shape == (steps, samples, 2 * height * width)
    for b, number in enumerate(index):
        if steps:
            expected = fire(frames[0, b], frames[:, b], sensor, seed, number)
            assert (found[:, b].reshape(expected.shape) == expected).all()


@settings(deadline=None, max_examples=60)
@given(
    picture=st.tuples(SIZES, SIZES),
    sensor_size=st.tuples(SIZES, SIZES),
    steps=st.integers(0, 12),
    seed=st.integers(0, 2**64 - 1),
    far=st.sampled_from([0.0, 0.4, 0.99]),
    points=st.integers(1, 5),
    jitter=st.sampled_from([(0.0, 0.0), (0.2, 0.7)]),
    sensor=st.fixed_dictionaries(SENSORS),
)
@example(
    (28, 28),
    (34, 34),
    12,
    5,
    0.1,
    5,
    (0.2, 0.7),
    {"threshold": (0.19, 0.19), "spread": 0.15, "refractory": 0, "noise": 0.01},
)
@example(  # far from its place: both pictures are moved by more pixels than the movement reaches
    (28, 28),
    (34, 34),
    12,
    5,
    0.05,
    5,
    (0.0, 6.0),
    {"threshold": (0.19, 0.19), "spread": 0.15, "refractory": 0, "noise": 0.0},
)
def test_a_moved_picture_equals_its_definition(
    picture: tuple[int, int],
    sensor_size: tuple[int, int],
    steps: int,
    seed: int,
    far: float,
    points: int,
    jitter: tuple[float, float],
    sensor: dict[str, Any],
) -> None:
    random = np.random.default_rng(seed % 1000)
    most = [far * (a + b) / 2 for a, b in zip(picture[::-1], sensor_size[::-1], strict=True)]
    times = np.sort(random.choice(np.arange(0, 14, 0.5), points, replace=False))
    movement = tuple((float(t), *(float(random.uniform(-m, m)) for m in most)) for t in times)
    camera = CameraEncoding(
        steps, sensor_size, movement, blur=0.0, size_jitter=jitter[0], place_jitter=jitter[1], **sensor
    )
    pictures = random_pictures(2, *picture, seed=seed % 1000)
    found = camera(torch.from_numpy(pictures), torch.tensor([3, 2**40]), seed).to_dense().numpy()
    for b, number in enumerate((3, 2**40)):
        seen = views(pictures[b], camera, seed, number)
        expected = fire(seen[0], seen[1:], sensor, seed, number)
        assert (found[:, b].reshape(expected.shape) == expected).all()


def test_a_blurred_picture_is_convolved_with_a_gaussian() -> None:
    picture = np.zeros((1, 40, 40), np.float32)
    picture[0, 10:30, 10:30] = random_pictures(20, 20)
    far = np.arange(-6, 7)
    row = np.exp(-0.5 * (far / 1.7) ** 2)
    row /= row.sum()
    blurred = np.apply_along_axis(
        np.convolve, 2, np.apply_along_axis(np.convolve, 1, picture, row, "same"), row, "same"
    )
    camera = CameraEncoding(40, (40, 40), ((0.0, 0.0, 0.0), (20.0, 3.3, -2.1)), threshold=0.02, blur=1.7)
    sharp = dataclasses.replace(camera, blur=0.0)
    by_camera = camera(torch.from_numpy(picture)).to_dense()
    by_hand = sharp(torch.from_numpy(blurred.astype(np.float32))).to_dense()
    assert by_camera.sum() > 2000
    assert (by_camera != by_hand).sum() < 0.01 * by_camera.sum()  # rounding moves single events


def test_the_shape_of_the_events_has_numbers_of_python() -> None:
    events = CameraEncoding(steps=np.int64(20))(torch.zeros(1, 28, 28))
    assert [type(size) for size in events.shape] == [int, int, int]


def test_the_logarithm_counts_ratios() -> None:
    """With `dark`, the events are those of the logarithm, scaled into [0, 1]."""
    frames, dark = video(30, 2, 9, 20), 0.05
    lowest, highest = math.log(dark), math.log(1 + dark)
    scaled = ((np.log(dark + frames.astype(np.float64)) - lowest) / (highest - lowest)).astype(np.float32)
    by_log = camera_encode(frames, threshold=0.3, dark=dark, seed=1).to_dense()
    by_hand = camera_encode(scaled, threshold=0.3 / (highest - lowest), seed=1).to_dense()
    assert by_log.sum() > 1000
    assert (by_log != by_hand).sum() < 0.01 * by_log.sum()


def test_a_moving_grating_gives_the_events_that_its_derivative_predicts() -> None:
    """I = 1/2 + 0.4 sin(k x - w t): a pixel rises at the rate dI/dt / threshold = -0.4 w cos(k x - w t) / 0.05."""
    steps, height, width, period, threshold = 800, 64, 96, 200, 0.05
    t, x = torch.arange(steps)[:, None], torch.arange(width)
    phase = 2 * math.pi * (x / 32 - t / period)
    frames = (0.5 + 0.4 * phase.sin())[:, None, None].expand(steps, 1, height, width)
    events = camera_encode(frames, threshold=threshold, seed=0).to_dense()[:, 0].unflatten(1, (2, height, width))
    rises, falls = events.mean(2).unbind(1)
    turn = 2 * math.pi / period
    rate = -0.4 * turn * (phase + turn / 2).cos() / threshold  # in the middle between two frames
    # After a turn of the brightness a pixel is silent until it has crossed two thresholds: its last half is steady.
    for found, predicted, steepest in ((rises, rate, math.pi), (falls, -rate, 0.0)):
        for past in (0.0, 0.3, 0.6, 0.9, 1.2):  # the phase falls with time
            away = torch.remainder(phase - steepest + past + math.pi, 2 * math.pi) - math.pi
            near = (away.abs() < 0.15) & (t > period)
            assert found[near].mean() == pytest.approx(float(predicted[near].mean()), rel=0.03)
        assert not found[predicted < -0.02].any()  # nothing where brightness goes the other way


def test_brightness_that_rests_makes_no_event() -> None:
    frames = np.repeat(random_pictures(1, 3, 5, 7), 20, axis=0)
    assert camera_encode(frames, spread=0.3, seed=0).indices.numel() == 0
    still = CameraEncoding(50, movement=((0.0, 1.3, 0.2),), noise=0.0)
    assert still(torch.rand(2, 28, 28)).indices.numel() == 0


def test_polarity_0_rises_and_polarity_1_falls() -> None:
    frames = torch.zeros(3, 1, 1, 2)
    frames[1:, 0, 0, 0], frames[:1, 0, 0, 1] = 1, 1
    assert camera_encode(frames, threshold=0.4, seed=0).to_dense()[:, 0].tolist() == [[0] * 4, [1, 0, 0, 1], [0] * 4]


def test_noise_has_its_rate() -> None:
    frames = np.full((200, 4, 30, 30), 0.5, np.float32)
    events = camera_encode(frames, noise=0.01, seed=0).indices.numel()
    assert abs(events - 7200) < 5 * math.sqrt(7200)


JITTERED = CameraEncoding(noise=0.001, size_jitter=0.1, place_jitter=0.5)


def recorded() -> list[str]:
    """Digests of a moved picture and of video, on several numbers of threads."""
    found = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        found.append(digest(JITTERED(torch.from_numpy(random_pictures(5, 28, 28)), seed=2**63 + 5)))
        frames = video(40, 5, 11, 37)
        found.append(digest(camera_encode(frames, spread=0.2, dark=0.1, noise=0.01, refractory=2, seed=3)))
    return found


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_and_thread_count_gives_the_same_events(
    isa: str, isa_processes: dict[str, IsaProcess]
) -> None:
    picture, frames, *again = isa_processes[isa].call("test_camera.recorded")
    assert [picture, frames] == again
    assert hashlib.sha256((picture + frames).encode()).hexdigest() == RECORDED_HASH


def test_a_sample_has_the_same_events_in_every_batch_and_order() -> None:
    pictures = torch.from_numpy(random_pictures(6, 28, 28))
    together = JITTERED(pictures, torch.arange(6), 7)
    order = torch.tensor([4, 0, 3])
    apart = JITTERED(pictures[order], order, 7)
    for place, number in enumerate(order.tolist()):
        assert digest(apart[[place]]) == digest(together[[number]])
    assert digest(JITTERED(pictures, torch.arange(6), 8)) != digest(together)


def test_any_layout_and_dtype_gives_the_same_events() -> None:
    frames = torch.from_numpy(video(8, 3, 6, 5))
    expected = digest(camera_encode(frames, seed=0))
    strided = torch.stack([frames, frames], -1)[..., 0]
    assert digest(camera_encode(strided, seed=0)) == digest(camera_encode(frames.double(), seed=0)) == expected
    assert digest(camera_encode(frames.numpy()[:, :, :, ::-1][:, :, :, ::-1], seed=0)) == expected


FRAMES = np.full((4, 2, 3, 3), 0.5, np.float32)
PICTURES = torch.full((2, 28, 28), 0.5)
NAN = np.where(np.arange(9).reshape(3, 3) == 4, np.nan, FRAMES).astype(np.float32)


@refusals(
    Message(r"frames: expected shape \(T, B, H, W\).*\(2, 3, 3\)", lambda: camera_encode(FRAMES[0], seed=0)),
    Message(
        "frames: expected a tensor or an array of floating",
        lambda: camera_encode(FRAMES.astype(int), seed=0),
        TypeError,
    ),
    Message(r"frames: expected values in \[0, 1\], got -0.5", lambda: camera_encode(-FRAMES, seed=0)),
    Message(r"frames: expected values in \[0, 1\], got 1.0000001", lambda: camera_encode(FRAMES * 2.0000002, seed=0)),
    Message(r"frames: expected values in \[0, 1\], got nan", lambda: camera_encode(NAN, seed=0)),
    Message("threshold: expected", lambda: camera_encode(FRAMES, threshold=0.0, seed=0)),
    Message("threshold: expected", lambda: camera_encode(FRAMES, threshold=(0.1, math.nan), seed=0)),
    Message("threshold: expected", lambda: camera_encode(FRAMES, threshold="x", seed=0), TypeError),
    Message("threshold: expected", lambda: camera_encode(FRAMES, threshold=(0.1,), seed=0), TypeError),
    Message("spread: expected from 0 to 0.3", lambda: camera_encode(FRAMES, spread=0.4, seed=0)),
    Message("dark: expected", lambda: camera_encode(FRAMES, dark=-1.0, seed=0)),
    Message("dark: expected", lambda: camera_encode(FRAMES, dark=1e-9, seed=0)),
    Message("noise: expected from 0 to 1", lambda: camera_encode(FRAMES, noise=2.0, seed=0)),
    Message("refractory: expected", lambda: camera_encode(FRAMES, refractory=-1, seed=0)),
    Message("refractory: expected", lambda: camera_encode(FRAMES, refractory=2**25, seed=0)),
    Message("seed: expected", lambda: camera_encode(FRAMES, seed=-1)),
    Message("index: expected", lambda: camera_encode(FRAMES, seed=0, index=[1])),
    Message("index: expected", lambda: camera_encode(FRAMES, seed=0, index=[1, -1])),
    Message(r"images: expected shape \(B, H, W\)", lambda: CameraEncoding()(PICTURES[0])),
    Message(r"images: expected values in \[0, 1\], got 2", lambda: CameraEncoding()(2 * PICTURES + 1)),
    Message("steps: expected from 0 to", lambda: CameraEncoding(2**25)(PICTURES)),
    Message("steps: expected", lambda: CameraEncoding(steps=-1)(PICTURES)),
    Message("sensor_size: expected", lambda: CameraEncoding(sensor_size=(0, 3))(PICTURES)),
    Message("sensor_size: expected", lambda: CameraEncoding(sensor_size=(2**16, 3))(PICTURES)),
    Message("sensor_size: expected", lambda: CameraEncoding(sensor_size=34)(PICTURES), TypeError),
    Message("movement: expected", lambda: CameraEncoding(movement=())(PICTURES)),
    Message("movement: expected", lambda: CameraEncoding(movement=((0.0, 1.0),))(PICTURES)),
    Message("movement: expected", lambda: CameraEncoding(movement=((0.0, math.nan, 1.0),))(PICTURES)),
    Message("movement: expected .* ascend", lambda: CameraEncoding(movement=((1.0, 0, 0), (1.0, 1, 1)))(PICTURES)),
    Message("movement: expected places from which", lambda: CameraEncoding(movement=((0.0, 31.0, 0.0),))(PICTURES)),
    Message("blur: expected from 0 to 8", lambda: CameraEncoding(blur=9.0)(PICTURES)),
    Message("size_jitter: expected", lambda: CameraEncoding(size_jitter=0.5)(PICTURES)),
    Message("place_jitter: expected", lambda: CameraEncoding(place_jitter=-1.0)(PICTURES)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def small_camera(**changes: Any) -> CameraEncoding:
    movement = ((0.0, 0.5, 0.0), (5.0, -2.0, 1.0), (9.0, 0.0, 0.0))
    given = {"noise": 0.01, "size_jitter": 0.1, "place_jitter": 0.3, "refractory": 1, "threshold": (0.1, 0.2)}
    return CameraEncoding(9, (6, 7), movement, **given | changes)


def camera_network(encoder: Any) -> bytes:
    """The file of a network with this encoder."""
    model = SRCClassifier(84, [], num_classes=2)
    model.encoder = encoder
    return bytes_of(model)


def test_an_exported_network_sees_pictures_as_the_network_did() -> None:
    camera, pictures, index = small_camera(), random_pictures(4, 8, 5), np.array([5, 0, 2**40, 7])
    made = runtime.Network(camera_network(camera)).encode(pictures, index, seed=2**63 + 1)
    expected = camera(torch.from_numpy(pictures), torch.from_numpy(index), 2**63 + 1)
    assert made.shape == expected.shape and len(made.indices) > 50
    assert (made.offsets == expected.offsets.numpy()).all() and (made.indices == expected.indices.numpy()).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spread": "x"}, "encoder: expected the settings of a CameraEncoding"),
        ({"movement": ((0.0, 1.0),)}, "encoder: expected the settings of a CameraEncoding"),
        ({"sensor_size": (6,)}, "encoder: expected the settings of a CameraEncoding"),
        ({"steps": 5.9}, "encoder: expected the settings of a CameraEncoding"),
        ({"steps": 10**30}, "encoder: expected the settings of a CameraEncoding"),
        ({"movement": (("0", "1", "2"),)}, "encoder: expected the settings of a CameraEncoding"),
        ({"threshold": "0.1"}, "encoder: expected the settings of a CameraEncoding"),
        ({"movement": ((0.0, 0.0, 0.0, 0.0),) * 3}, "encoder: expected the settings of a CameraEncoding"),
        ({"sensor_size": (6, 9)}, r"images: expected shape \(B, h, w\) for a camera of \(6, 9\) pixels"),
        ({"noise": 2.0}, "noise: expected from 0 to 1"),
        ({"movement": ((0.0, 100.0, 0.0),)}, "movement: expected places from which"),
    ],
)
def test_an_exported_network_refuses_a_camera_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    net = runtime.Network(camera_network(dataclasses.replace(small_camera(), **changes)))
    with pytest.raises(ValueError, match=message):
        net.encode(random_pictures(2, 8, 5))


def test_a_network_trains_through_a_camera_and_is_tested_on_another_data_set(tmp_path: Path) -> None:
    config = TrainingConfig(
        dataset="digits", encoding="camera", skip_samples=1000, hidden_sizes=(), epochs=1, validation=0.0
    )
    trained = training.train(config, tmp_path / "run")
    assert isinstance(trained.model.encoder, CameraEncoding) and trained.model.layers[0].input_size == 2312
    folder = training.RunFolder.open(tmp_path / "run")
    assert training.evaluate_run(folder, dataset="digits").accuracy == trained.evaluation.accuracy
    with pytest.raises(ValueError, match="dataset: expected one of 2312 inputs and 10 classes, got 2 inputs"):
        training.evaluate_run(folder, dataset="intervals")


def test_skipped_samples_are_the_first_ones() -> None:
    samples = LabelledImages(torch.zeros(10, 1, 1), torch.arange(10))
    chosen = [*split(TrainingConfig(skip_samples=4, validation=0.5), samples)]
    assert sorted(int(x) for part in chosen for x in part.labels) == [4, 5, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="train_samples: expected at most 6"):
        split(TrainingConfig(skip_samples=4, validation=0.0, train_samples=7), samples)
