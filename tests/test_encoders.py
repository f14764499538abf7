"""The encoders: rate_encode's fixed random stream and its rates, latency_encode's single spikes, the same events on
every instruction set and for every thread count, and the arguments that both refuse.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from srcell import EventBatch, _core, latency_encode, rate_encode
from support.processes import ISAS, IsaProcess

ENCODERS: dict[str, Callable[..., EventBatch]] = {
    "rate": lambda images, *args, **options: rate_encode(images, *args, seed=0, **options),
    "latency": latency_encode,
}
# Sizes near multiples of 16 pixels and 8 steps, the groups in which the kernels work.
PIXELS = st.integers(0, 9) | st.sampled_from([15, 16, 17, 31, 32, 33, 47, 48, 49, 90])
STEPS = st.integers(0, 11) | st.sampled_from([15, 16, 17, 24, 25])

# Known answers for philox4x32-10, kat_vectors of Random123: zeros, ones, and the digits of pi.
PHILOX_KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]

# A silent change of the random stream would change every published result.
RECORDED_HASH = "749c468f8ce7a05afee58735595f3cf1ee1914f7d9781bc6e36cd3ef03e893d3"


def philox(counter: list[np.ndarray], key: tuple[int, int]) -> list[np.ndarray]:
    """Philox4x32-10 on arrays of counters, in 64-bit integers throughout."""
    c0, c1, c2, c3 = (np.asarray(word, np.uint64) for word in counter)
    k0, k1 = key
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (b >> half) ^ c1 ^ np.uint64(k0), b & mask, (a >> half) ^ c3 ^ np.uint64(k1), a & mask
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def rate_encode_by_definition(
    images: np.ndarray, steps: int, prefix: int, gain: float, seed: int, index: list[int]
) -> np.ndarray:
    """The dense spikes (T, B, K), computed for each element on its own."""
    samples, pixels = images.shape
    threshold = np.ceil(np.minimum(gain * images.astype(np.float64), 1) * 2**24)
    spikes = np.zeros((prefix + steps, samples, pixels), np.float32)
    t, k = np.meshgrid(np.arange(steps), np.arange(pixels), indexing="ij")
    for b, number in enumerate(index):
        low, high = np.full_like(t, number % 2**32), np.full_like(t, number >> 32)
        words = np.stack(philox([t >> 2, k, low, high], (seed % 2**32, seed >> 32)))
        word = np.take_along_axis(words, (t & 3)[None], axis=0)[0]
        spikes[prefix:, b] = (word >> np.uint64(8)).astype(np.float64) < threshold[b]
    return spikes


def latency_encode_by_definition(images: np.ndarray, steps: int, prefix: int) -> np.ndarray:
    """The dense spikes (T, B, K); numpy.rint rounds half to even, as Python's round does."""
    spikes = np.zeros((prefix + steps, *images.shape), np.float32)
    step = prefix + np.rint((1 - images.astype(np.float64)) * (steps - 1)).astype(np.int64)
    sample, pixel = images.nonzero()
    spikes[step[sample, pixel], sample, pixel] = 1
    return spikes


def random_images(*shape: int, seed: int = 0) -> Tensor:
    """Random images in which half of the pixels are 0, as in pictures of digits."""
    images = torch.rand(*shape, generator=torch.Generator().manual_seed(seed))
    return (2 * images - 1).clamp(min=0)


def digest(batch: EventBatch) -> str:
    events = batch.offsets.numpy().astype("<i8").tobytes() + batch.indices.numpy().astype("<i4").tobytes()
    return hashlib.sha256(events).hexdigest()


def known_answers(philox: Callable[..., Any] = _core.philox) -> list[list[int]]:
    return [[int(word) for word in philox(counter, key)] for counter, key, _ in PHILOX_KNOWN_ANSWERS]


def test_the_definition_gives_the_published_answers() -> None:
    assert known_answers(philox) == [list(expected) for _, _, expected in PHILOX_KNOWN_ANSWERS]


@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set_gives_the_published_answers(isa: str, isa_processes: dict[str, IsaProcess]) -> None:
    assert isa_processes[isa].call("test_encoders.known_answers") == [list(e) for _, _, e in PHILOX_KNOWN_ANSWERS]


@settings(deadline=None)
@given(
    samples=st.integers(0, 3),
    pixels=PIXELS,
    steps=STEPS,
    prefix=st.integers(0, 3),
    gain=st.sampled_from([0.0, 5e-324, 1e-9, 0.25, 1.0, 3.0]),
    seed=st.integers(0, 2**64 - 1),
    first=st.integers(0, 2**63 - 4),
)
@example(samples=2, pixels=40, steps=9, prefix=2, gain=0.25, seed=2**63 + 12345, first=2**40 + 3)
@example(samples=2, pixels=5, steps=0, prefix=2, gain=1.0, seed=0, first=7)
@example(samples=2, pixels=5, steps=0, prefix=0, gain=1.0, seed=0, first=7)
def test_rate_encode_equals_its_definition(
    samples: int, pixels: int, steps: int, prefix: int, gain: float, seed: int, first: int
) -> None:
    images = random_images(samples, pixels, seed=seed % 1000)
    index = [first + b for b in range(samples)]
    batch = rate_encode(images, steps, prefix=prefix, gain=gain, seed=seed, index=index)
    expected = rate_encode_by_definition(images.numpy(), steps, prefix, gain, seed, index)
    assert batch == EventBatch.from_dense(expected)


def test_the_random_stream_matches_the_recorded_hash() -> None:
    images = torch.arange(24).reshape(2, 3, 4) / 23
    assert digest(rate_encode(images, 50, prefix=3, seed=0x0123456789ABCDEF, index=[0, 5_000_000_000])) == RECORDED_HASH


@settings(deadline=None)
@given(samples=st.integers(0, 3), pixels=PIXELS, steps=st.integers(1, 300), prefix=st.integers(0, 3))
@example(samples=3, pixels=40, steps=1, prefix=2)
def test_latency_encode_equals_its_definition(samples: int, pixels: int, steps: int, prefix: int) -> None:
    images = random_images(samples, pixels, seed=steps)
    batch = latency_encode(images, steps, prefix=prefix)
    expected = latency_encode_by_definition(images.numpy(), steps, prefix)
    assert batch == EventBatch.from_dense(expected)


def test_latencies_are_rounded_half_to_even() -> None:
    """With 128 grey levels and 65 steps, every second pixel lies half-way between two steps."""
    images = torch.arange(1, 129)[None] / 128
    dense = latency_encode(images, 65, prefix=0).to_dense()[:, 0]
    assert dense.argmax(0).tolist() == [round((1 - p) * 64) for p in images[0].tolist()]
    assert dense.sum(0).tolist() == [1] * 128


def test_the_brightest_fires_first_and_the_faintest_last() -> None:
    images = torch.tensor([[1.0, 2.0**-149, 0.0, -0.0]])
    assert torch.equal(
        latency_encode(images, 200, prefix=20).to_dense().nonzero(), torch.tensor([[20, 0, 0], [219, 0, 1]])
    )
    many_steps = latency_encode(images, 1_000_003, prefix=0).to_dense()
    assert torch.equal(many_steps.nonzero(), torch.tensor([[0, 0, 0], [1_000_002, 0, 1]]))


def test_large_encodings_equal_their_definition_and_are_not_overwritten() -> None:
    """Events of more than 4 MB lie in memory that is reused, but not while a batch uses it."""
    rate: dict[str, Any] = {"steps": 101, "prefix": 1, "gain": 1.0, "seed": 2, "index": list(range(60))}
    latency: dict[str, Any] = {"steps": 20, "prefix": 1}
    for encode, definition, shape, options in (
        (rate_encode, rate_encode_by_definition, (60, 30, 30), rate),
        (latency_encode, latency_encode_by_definition, (300, 4000), latency),
    ):
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        batch = encode(images, **options)
        assert batch.indices.nbytes > 4 << 20
        encode(1 - images, **options)
        assert batch == EventBatch.from_dense(definition(images.flatten(1).numpy(), **options))


def encodings(shape: tuple[int, int], steps: int, seed: int, threads: int) -> dict[str, str]:
    """Digests of both encodings, computed on the instruction set of this process."""
    torch.set_num_threads(threads)
    images = random_images(*shape, seed=seed)
    index = [2**40 + 3 * b for b in range(shape[0])]
    return {
        "rate": digest(rate_encode(images, steps, prefix=2, gain=0.6, seed=seed * 2**33 + 5, index=index)),
        "latency": digest(latency_encode(images, steps, prefix=2)),
    }


@settings(deadline=None, max_examples=60, database=None)
@given(
    shape=st.tuples(st.integers(0, 20), PIXELS),
    steps=STEPS.filter(bool),
    seed=st.integers(0, 1000),
    threads=st.sampled_from([1, 2, 3, 16]),
)
def test_every_instruction_set_and_thread_count_gives_the_same_events(
    shape: tuple[int, int], steps: int, seed: int, threads: int, isa_processes: dict[str, IsaProcess]
) -> None:
    expected = isa_processes["scalar"].call("test_encoders.encodings", shape, steps, seed, 1)
    for isa in ISAS:
        assert isa_processes[isa].call("test_encoders.encodings", shape, steps, seed, threads) == expected, isa


def test_a_sample_has_the_same_events_in_every_batch_and_order() -> None:
    images = random_images(9, 20)
    images[3] = 0
    order = torch.tensor([4, 0, 8, 4, 3, 2])
    whole, latencies = rate_encode(images, seed=3), latency_encode(images)
    for b in range(9):
        assert rate_encode(images[b : b + 1], seed=3, index=[b]) == whole[b]
        assert latency_encode(images[b : b + 1]) == latencies[b]
    assert rate_encode(images[order], seed=3, index=order) == whole[order]
    assert latency_encode(images[order]) == latencies[order]


@pytest.mark.parametrize("gain", [0.25, 1.0, 1e300])
def test_a_black_pixel_never_fires_and_probability_1_always_does(gain: float) -> None:
    images = torch.tensor([[0.0, -0.0, 1.0]])
    dense = rate_encode(images, 1000, prefix=0, gain=gain, seed=9).to_dense()[:, 0]
    assert dense[:, :2].count_nonzero() == 0
    assert bool(dense[:, 2].all()) == (gain >= 1)


@pytest.mark.parametrize("pixel", [1 / 255, 0.1, 0.5, 1.0])
def test_the_rate_is_gain_times_pixel(pixel: float) -> None:
    """The number of events in n independent elements of probability q is binomial: within 6 standard deviations of n q
    for all but 2e-9 of seeds.

    Rounding the threshold up adds less than 2^-24 to q: at most n 2^-24 events, less than one here.
    """
    images = torch.full((50, 100), pixel)
    batch = rate_encode(images, prefix=0, seed=11)
    n, q = 50 * 100 * 200, 0.25 * images[0, 0].item()
    assert abs(batch.num_events - n * q) <= 6 * math.sqrt(n * q * (1 - q)) + n * 2**-24


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
def test_arrays_and_tensors_of_any_layout_and_dtype_give_the_same_events(encode: Callable[..., EventBatch]) -> None:
    images = random_images(4, 5, 6).bfloat16().float()
    expected = encode(images)
    assert expected.shape == (220, 4, 30)
    read_only = images.numpy().copy()
    read_only.flags.writeable = False
    wide = torch.zeros(4, 5, 12)
    wide[:, :, ::2] = images
    for same in (
        images.numpy(),
        images.numpy().astype(">f8"),
        np.asfortranarray(images.numpy()),
        images.numpy()[:, :, ::-1].copy()[:, :, ::-1],
        read_only,
        wide[:, :, ::2],
        images.transpose(1, 2).contiguous().transpose(1, 2),
        images.clone().requires_grad_(),
        images.double(),
        images.bfloat16(),
        images.half(),
    ):
        assert encode(same) == expected


def test_seed_and_index_may_be_arrays_or_tensors() -> None:
    images = random_images(4, 30)
    expected = rate_encode(images, seed=13)
    for index in ([0, 1, 2, 3], range(4), np.arange(4, dtype=np.uint8), torch.arange(4), torch.arange(8)[::2] // 2):
        assert rate_encode(images, seed=np.uint64(13), index=index) == expected


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("shape", [(0, 5), (2, 0), (0, 0), (2, 3, 0)])
def test_images_without_pixels_give_no_events(encode: Callable[..., EventBatch], shape: tuple[int, ...]) -> None:
    batch = encode(torch.ones(shape), 4, prefix=2)
    assert batch.shape == (6, shape[0], math.prod(shape[1:]))
    assert batch.num_events == 0
    assert torch.equal(batch.offsets, torch.zeros(shape[0] * 6 + 1, dtype=torch.int64))


IMAGES = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))


WRONG_TYPES: dict[str, list[Any]] = {
    "images": [[[0.5, 0.5]], IMAGES.byte(), IMAGES.to(torch.complex64), np.ones((2, 3), int), np.ones((2, 3), object)],
    "steps": [10.0],
    "prefix": ["20"],
    "gain": ["0.25", None],
    "seed": [1.5, None],
    "index": [[0.0, 1.0], ["a", "b"], [True, False], [0, 2**63], 3.0, np.array(["a", "b"])],
    "thinned": [1],
}
WRONG_VALUES: list[tuple[str, str, Any]] = [
    ("images", r"\(3,\)", torch.rand(3)),
    ("images", r"\(\)", np.array(1.0)),
    ("images", "meta", IMAGES.to("meta")),
    ("images", "sparse", IMAGES.to_sparse()),
    ("images", r"\(1, 2147483649\)", torch.zeros(()).expand(1, 2**31 + 1)),
    ("images", "", torch.zeros(1).as_strided((2**60, 0), (0, 0))),  # more samples than offsets have bytes for
    ("steps", "-1", -1),
    ("steps", "2147483648", 2**31),
    ("prefix", "-1", -1),
    ("prefix", "2147483648", 2**31),
    ("gain", "-0.25", -0.25),
    ("gain", "nan", math.nan),
    ("gain", "inf", math.inf),
    ("seed", "-1", -1),
    ("seed", "18446744073709551616", 2**64),
    ("index", "-1", [0, -1]),
    ("index", r"\(3,\)", [0, 1, 2]),
    ("index", r"\(0,\)", []),
    ("index", r"shape \(1, 2\)", [[0, 1]]),
    ("index", r"shape \(\)", torch.tensor(1)),
]
WRONG = [(TypeError, name, "", x) for name, values in WRONG_TYPES.items() for x in values]
WRONG += [(ValueError, *row) for row in WRONG_VALUES]


@pytest.mark.parametrize(("error", "name", "got", "value"), WRONG)
def test_invalid_arguments_raise_an_error_that_names_the_argument(
    error: type[Exception], name: str, got: str, value: Any
) -> None:
    for encode in ENCODERS.values() if name in ("images", "steps", "prefix") else [rate_encode]:
        options = {"seed": 0} if encode is rate_encode else {}
        with pytest.raises(error, match=rf"^{name}: expected .*, got .*{got}"):
            encode(**{"images": IMAGES, **options, name: value})


def test_latency_encode_requires_a_step_and_rate_encode_a_seed() -> None:
    with pytest.raises(ValueError, match=r"^steps: expected an int in \[1, 2147483647\], got 0$"):
        latency_encode(IMAGES, 0)
    with pytest.raises(TypeError, match="seed"):
        rate_encode(IMAGES)  # type: ignore[call-arg]


@pytest.mark.parametrize("encode", ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("pixel", [math.nan, -math.nan, math.inf, -math.inf, -1e-30, 1 + 2**-20, 255.0])
@pytest.mark.parametrize(("sample", "position"), [(0, 0), (1, 2), (1, 39)])
def test_the_error_names_the_first_pixel_out_of_range(
    encode: Callable[..., EventBatch], pixel: float, sample: int, position: int
) -> None:
    images = random_images(3, 40)
    images[sample, position] = pixel
    images[2] = math.nan
    got = repr(images[sample, position].item()).replace("+", r"\+")
    message = rf"^images: expected values in \[0, 1\], got {got} in pixel {position} of sample {sample}$"
    with pytest.raises(ValueError, match=message):
        encode(images)


def test_thinned_encodings_drop_the_second_of_two_successive_spikes() -> None:
    images = torch.rand(7, 90, generator=torch.Generator().manual_seed(3))
    for gain, steps in ((0.3, 41), (1.0, 8), (3.0, 100)):
        plain = rate_encode(images, steps, prefix=3, gain=gain, seed=5).to_dense().bool()
        kept = torch.zeros_like(plain)
        for t in range(len(plain)):
            kept[t] = plain[t] & ~kept[t - 1] if t else plain[t]
        thinned = rate_encode(images, steps, prefix=3, gain=gain, seed=5, thinned=True)
        assert torch.equal(thinned.to_dense().bool(), kept) and kept.any() and (kept != plain).any()
