"""The same bits everywhere. Forward, final state and backward of ``src``, of ``src_linear`` and of ``src_conv2d`` on
events, do not depend on the instruction set, the number of threads, the batch that a sample is in, or how a sequence is
cut into calls. A dense input gives the bits of its events, and spike trains are those recorded in spike_trains.json.

`python tests/test_bits.py --write` rewrites that file. Do so only if a change of the arithmetic is intended, and say in
CHANGELOG.md that spike trains changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

import srcell
from srcell import DelayedResonantState, EventBatch, _core
from srcell._shared.state import state_type
from support.gradients import make_output_gradients, results
from support.inputs import (
    MODES,
    PARAMETERS,
    WHOLE_STATE,
    Inputs,
    call,
    delayed,
    make_inputs,
    make_lateral,
    make_linear_inputs,
    noise,
    random_bits,
    resonant,
    with_values,
)
from support.linear import Function, densified, on_dense_at_events, on_events
from support.maps import MAPS, make_map_inputs, on_maps, on_maps_at_events
from support.processes import ISAS, IsaProcess

THREADS = (1, 2, 3, 7)
LATERAL = ("relu", "straight_through")
SPIKE_TRAINS = Path(__file__).with_name("spike_trains.json")

Case = dict[str, Any]
Digests = dict[str, str]

DEFAULTS = {
    "dtype": "float32",
    "per_neuron": True,
    "lengths": False,
    "poison": False,  # NaN and infinities in the data
    "scale": 1.0,  # of currents or weights
    "spread": 0.0,  # of cell parameters around their defaults
    "recurrent": "",  # the surrogate of recurrent weights, if there are any
    "resonant": False,
    "delays": None,  # of recurrent weights, if there are any: the largest delay, and the width
    "map": None,  # the number of a convolution in MAPS; the shape is then (T, B)
}


def make_case(
    seed: int, shape: tuple[int, ...], *, mode: tuple[str, bool] = ("straight_through", False), **options: Any
) -> Case:
    """The data with which a process calls ``src`` on currents (T, B, N), ``src_linear`` on events for (T, B, N, K), or
    ``src_conv2d`` on events for (T, B) and a map, and computes the gradients.
    """
    assert options.keys() <= DEFAULTS.keys()
    surrogate, full_gradient = mode
    given = {"seed": seed, "shape": shape, "surrogate": surrogate, "full_gradient": full_gradient}
    return {**DEFAULTS, **given, **options}


# Numbers of neurons and samples near the widths of registers (16, 32) and of tiles (128 neurons that a loop advances
# together), with and without lengths, which change how tiles are cut. Numbers of steps near the segments between
# checkpoints of the state (16).
SHAPES = [
    (33, 5, 300),
    (17, 3, 129),
    (16, 2, 128),
    (15, 4, 70),
    (40, 3, 33),
    (20, 5, 17),
    (31, 1, 16),
    (20, 5, 7),
    (48, 3, 1),
]
LINEAR_SHAPES = [
    (70, 5, 17, 70),
    (33, 20, 130, 6),
    (40, 3, 260, 5),
    (64, 2, 129, 130),
    (31, 4, 128, 3),
    (32, 35, 16, 9),
    (20, 3, 100, 64),
    (90, 1, 15, 65),
    (50, 9, 1, 3),
]
CASES = [
    make_case(seed, shape, dtype=dtype, mode=mode, per_neuron=bool(seed % 2), lengths=lengths, poison=not seed % 3)
    for shapes in (SHAPES, LINEAR_SHAPES)
    for seed, shape in enumerate(shapes)
    for mode in MODES
    for dtype in ("float32", "float64")
    for lengths in (False, True)
    if lengths or shapes is SHAPES or dtype == "float32"
]
CASES += [
    make_case(seed, shape, mode=mode, lengths=bool(seed % 2), recurrent=LATERAL[seed % 2])
    for shapes, modes in (
        ([*SHAPES[:6], (70, 20, 5)], MODES[::3]),
        ([*LINEAR_SHAPES[:6], (300, 3, 260, 9)], MODES[1:3]),
    )
    for seed, shape in enumerate(shapes)
    for mode in modes
]
CASES += [
    make_case(
        *(seed, shape),
        dtype=("float32", "float64")[seed % 4 == 3],
        mode=MODES[seed % 4],
        lengths=bool(seed % 2),
        recurrent=("", *LATERAL)[seed % 3],
        poison=seed % 5 == 4,
        resonant=True,
    )
    for seed, shape in enumerate([*SHAPES, *LINEAR_SHAPES])
]
CASES += [
    make_case(
        *(seed, shape),
        dtype=("float32", "float64")[seed % 4 == 1],
        mode=MODES[seed % 4],
        lengths=bool(seed % 3),
        recurrent=LATERAL[seed % 5 == 4],
        poison=seed % 6 == 1,
        resonant=seed % 3 == 1,
        delays=((9, 1), (60, 1), (5, 3))[seed % 3],
    )
    for seed, shape in enumerate([*SHAPES, *LINEAR_SHAPES])
]

CASES += [
    make_case(
        *(3 * seed + part, shape),
        dtype=("float32", "float64")[(seed + part) % 4 == 2],
        mode=MODES[(seed + part) % 4],
        lengths=bool((seed + part) % 2),
        poison=(seed + part) % 5 == 3,
        resonant=(seed + part) % 3 == 2,
        map=seed,
    )
    for seed in range(len(MAPS))
    for part, shape in enumerate([(40, 5), (17, 20), (16, 2)])
]


class Problem(NamedTuple):
    """The arguments of ``src``, or of ``src_linear`` or ``src_conv2d`` on events."""

    inputs: Inputs
    options: dict[str, Any]
    events: EventBatch | None = None
    map: int | None = None

    @property
    def states(self) -> list[str]:
        """The names of the initial state's tensors."""
        return [name for name in WHOLE_STATE if name in self.inputs]

    @property
    def call(self) -> tuple[Function, Inputs]:
        """The first arguments of ``call`` and ``results``."""
        if self.events is None:
            return srcell.src, self.inputs
        on_batch = on_events(self.events) if self.map is None else on_maps(MAPS[self.map], self.events)
        return on_batch, self.inputs

    def part(self, synapse: Tensor | EventBatch, state: Inputs, lengths: Tensor | None) -> Problem:
        """The same neurons on other currents or events, from another state."""
        options = {**self.options, "lengths": lengths}
        if isinstance(synapse, Tensor):
            return Problem({**self.inputs, "current": synapse, **state}, options)
        return Problem({**self.inputs, "values": synapse.values, **state}, options, synapse, self.map)


def problem_of(case: Case) -> Problem:
    steps, batch, *sizes = case["shape"]
    options = {"dtype": getattr(torch, case["dtype"]), "per_neuron": case["per_neuron"]}
    if case["map"] is not None:
        events, inputs = make_map_inputs(case["seed"], MAPS[case["map"]], steps, batch, **options)
        return Problem(vary(inputs, "weight", case), case_options(case), events, case["map"])
    neurons, *width = sizes
    if width:
        events, inputs = make_linear_inputs(case["seed"], steps, batch, neurons, inputs=width[0], **options)
        return Problem(vary(inputs, "weight", case), case_options(case), events)
    inputs = make_inputs(case["seed"], steps, batch, neurons, **options)
    return Problem(vary(inputs, "current", case), case_options(case))


def case_inputs(case: Case) -> Inputs:
    return problem_of(case).inputs


def is_delayed(case: Case) -> bool:
    return bool(case["recurrent"] and case["delays"])


def vary(inputs: Inputs, synapse: str, case: Case) -> Inputs:
    """Apply the case's scale, spread and poison to inputs near their defaults, in place."""
    inputs[synapse] *= case["scale"]
    if case["resonant"]:
        inputs |= resonant(inputs, case["seed"])
    if case["recurrent"]:
        inputs["weight_hh"] = make_lateral(case["seed"], len(inputs["bias"]), inputs["bias"].dtype)
    if is_delayed(case):
        inputs |= delayed(inputs, case["seed"], *case["delays"])
    if case["poison"]:
        poison(inputs, synapse)
    if case["spread"]:
        for k, name in enumerate(PARAMETERS):
            x = inputs[name]
            wide = case["spread"] * noise(case["seed"] + 3000 + k, *x.shape, dtype=x.dtype)
            bounded = name in ("alpha", "zs_hyp", "zs_dep")
            inputs[name] = (x + wide).clamp(0.01, 0.99) if bounded else x * torch.exp(wide)
    return inputs


def poison(inputs: Inputs, synapse: str) -> None:
    for name, odd in ((synapse, 61), ("i0", 17), ("h0", 19), ("hs0", 23)):
        flat = inputs[name].view(-1)
        for k, value in enumerate((torch.nan, torch.inf, -torch.inf)):
            flat[7 * k :: 3 * odd] = value


def case_options(case: Case) -> dict[str, Any]:
    steps, batch, *_ = case["shape"]
    lengths = (random_bits(case["seed"], batch) % np.uint64(steps + 1)).astype(np.int64)
    return {
        "surrogate": case["surrogate"],
        "full_gradient": case["full_gradient"],
        "lengths": torch.from_numpy(lengths) if case["lengths"] else None,
        **({"recurrent_surrogate": case["recurrent"]} if case["recurrent"] else {}),
        **(dict(zip(("max_delay", "delay_width"), case["delays"], strict=True)) if is_delayed(case) else {}),
    }


def digest(x: Tensor) -> str:
    """A hash of the bits; all NaN count as equal, because their payloads are not promised."""
    return hashlib.sha256(torch.where(x.isnan(), torch.nan, x.detach()).numpy().tobytes()).hexdigest()


def digest_all(tensors: dict[str, Tensor]) -> Digests:
    return {name: digest(x) for name, x in tensors.items()}


# Functions that an ``IsaProcess`` calls


def whole(case: Case, threads: int) -> Digests:
    """Digests of one call and of all its gradients; for events, which are unordered and partly repeated, also of the
    call on their dense input.
    """
    torch.set_num_threads(threads)
    problem = problem_of(case)
    digests = digest_all(results(*problem.call, case["seed"], **problem.options))
    if problem.events is None:
        return digests
    return digests | {f"dense: {name}": x for name, x in linear_dense(case, threads).items()}


def all_cases(threads: int) -> list[Digests]:
    return [whole(case, threads) for case in CASES]


def linear_dense(case: Case, threads: int, *, as_events: bool = False) -> Digests:
    """Digests of ``src_linear`` on a dense input with ``method="events"``, or on the EventBatch made of it; the
    gradient of the input is taken at its events only.
    """
    torch.set_num_threads(threads)
    inputs, options, events, number = problem_of(case)
    assert events is not None
    inputs = densified(events, inputs)
    of_dense = EventBatch.from_dense(inputs["input"], options["lengths"])
    if not as_events:
        at_events = on_dense_at_events if number is None else on_maps_at_events(MAPS[number])
        made = results(at_events, inputs, case["seed"], **options)
        fires = (of_dense.to_dense() != 0).transpose(0, 1)
        made["gradient of input"] = made["gradient of input"].transpose(0, 1)[fires]
        return digest_all(made)
    values = inputs["input"].new_ones(of_dense.num_events) if of_dense.values is None else of_dense.values
    inputs = {"values": values, **{name: x for name, x in inputs.items() if name != "input"}}
    on_batch = on_events(of_dense) if number is None else on_maps(MAPS[number], of_dense)
    made = results(on_batch, inputs, case["seed"], **options | {"lengths": None})
    return {name.replace("values", "input"): x for name, x in digest_all(made).items()}


def steps_of(events: EventBatch, begin: int, end: int) -> EventBatch:
    """The events of every sample in the steps [begin, end), without lengths."""
    steps, batch, inputs = events.shape
    counts = events.offsets.diff()
    step = torch.arange(steps).repeat(batch).repeat_interleave(counts)
    kept = (begin <= step) & (step < end)
    offsets = F.pad(counts.view(batch, steps)[:, begin:end].flatten().cumsum(0), (1, 0))
    assert events.values is not None
    return EventBatch(offsets, events.indices[kept], events.values[kept], shape=(end - begin, batch, inputs))


def in_pieces(case: Case, cuts: list[int]) -> Digests:
    """Digests of the outputs of successive calls that pass the state on."""
    problem = problem_of(case)
    lengths, kind = problem.options["lengths"], state_type(case["resonant"], is_delayed(case))
    state = kind(*[problem.inputs[name] for name in problem.states])
    spikes = [state.i.new_empty(0, *state.i.shape)]
    for begin, end in pairwise(sorted({0, *cuts, case["shape"][0]})):
        events = problem.events
        synapse = problem.inputs["current"][begin:end] if events is None else steps_of(events, begin, end)
        left = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        piece = problem.part(synapse, dict(zip(problem.states, state, strict=True)), left)
        made, state = call(*piece.call, **piece.options)
        spikes.append(made)
    return digest_all({"spikes": torch.cat(spikes), **state._asdict()})


# The results that belong to one sample, each with its dimension of samples.
PER_SAMPLE = {"spikes": 1, "gradient of current": 1, "gradient of values": 0}
PER_SAMPLE |= dict.fromkeys((*DelayedResonantState._fields, *(f"gradient of {name}" for name in WHOLE_STATE)), 0)


def alone(case: Case) -> Digests:
    """Digests of the outputs of one call per sample, and of the gradients that belong to a sample."""
    problem = problem_of(case)
    lengths = problem.options["lengths"]
    to_spikes, *to_state = make_output_gradients(case["seed"], call(*problem.call, **problem.options))
    batch = results(*problem.call, case["seed"], **problem.options)
    parts = [{name: batch[name].narrow(axis, 0, 0) for name, axis in PER_SAMPLE.items() if name in batch}]
    for b in range(case["shape"][1]):
        here = slice(b, b + 1)
        synapse = problem.inputs["current"][:, here] if problem.events is None else problem.events[b]
        state = {name: problem.inputs[name][here] for name in problem.states}
        sample = problem.part(synapse, state, None if lengths is None else lengths[here])
        grad_outputs = [to_spikes[:, here], *(g[here] for g in to_state)]
        parts.append(results(*sample.call, grad_outputs=grad_outputs, **sample.options))
    return digest_all({name: torch.cat([part[name] for part in parts], PER_SAMPLE[name]) for name in parts[0]})


def differing(digests: Digests, expected: Digests) -> list[str]:
    return [name for name, value in digests.items() if value != expected[name]]


# Tests


@pytest.fixture(scope="module")
def expected_digests(isa_processes: dict[str, IsaProcess]) -> list[Digests]:
    made: list[Digests] = isa_processes["scalar"].call("test_bits.all_cases", 1)
    return made


# Against one thread of the scalar instruction set. The drawn cases below have all numbers of threads.
@pytest.mark.parametrize(
    ("isa", "threads"), [(isa, threads) for isa in ISAS for threads in (1, 7) if (isa, threads) != ("scalar", 1)]
)
def test_every_instruction_set_and_thread_count_gives_the_same_bits(
    isa: str, threads: int, isa_processes: dict[str, IsaProcess], expected_digests: list[Digests]
) -> None:
    made = isa_processes[isa].call("test_bits.all_cases", threads)
    wrong = {
        str(case): names
        for case, digests, expected in zip(CASES, made, expected_digests, strict=True)
        if (names := differing(digests, expected))
    }
    assert not wrong


def test_premise_the_cases_spike_and_the_poisoned_ones_contain_nan() -> None:
    for case in CASES:
        problem = problem_of(case)
        spikes, state = call(*problem.call, **problem.options | {"lengths": None})
        assert (spikes > 0.5).any(), case
        assert state.h.isnan().any() == case["poison"], case


def random_cases(*shape: st.SearchStrategy[int]) -> st.SearchStrategy[Case]:
    return st.builds(
        make_case,
        seed=st.integers(0, 1000),
        shape=st.tuples(*shape),
        dtype=st.sampled_from(["float32", "float32", "float64"]),
        mode=st.sampled_from(MODES),
        resonant=st.booleans(),
        per_neuron=st.booleans(),
        lengths=st.booleans(),
        poison=st.booleans(),
        recurrent=st.sampled_from(["", "", *LATERAL]) if len(shape) > 2 else st.just(""),
        delays=st.sampled_from([None, (0, 1), (9, 1), (50, 1), (4, 2)]),
    )


random_maps = st.builds(
    lambda case, number: case | {"map": number},
    random_cases(st.integers(0, 40) | st.sampled_from([1, 15, 16, 17, 33]), st.integers(0, 5) | st.integers(15, 34)),
    st.integers(0, len(MAPS) - 1),
)
random_currents = random_cases(
    st.integers(0, 40) | st.sampled_from([1, 15, 16, 17, 32, 33]),
    st.integers(0, 5),
    st.integers(0, 70) | st.sampled_from([15, 16, 17, 31, 32, 33, 127, 128, 129]),
)
random_events = random_cases(
    st.integers(0, 70) | st.sampled_from([1, 31, 32, 33, 64, 65]),
    st.integers(0, 5) | st.integers(15, 34),
    st.integers(1, 70) | st.sampled_from([1, 15, 16, 17, 100, 127, 128, 129, 130, 260]),
    st.integers(1, 9) | st.sampled_from([15, 16, 63, 64, 65, 130]),
)


@settings(deadline=None, max_examples=140, database=None)
@given(case=random_currents | random_events | random_maps, threads=st.sampled_from(THREADS))
def test_every_shape_gives_the_same_bits(case: Case, threads: int, isa_processes: dict[str, IsaProcess]) -> None:
    expected = isa_processes["scalar"].call("test_bits.whole", case, 1)
    for isa in ISAS:
        assert differing(isa_processes[isa].call("test_bits.whole", case, threads), expected) == [], isa


@settings(deadline=None, max_examples=65, database=None)
@given(case=random_currents | random_events | random_maps, cuts=st.lists(st.integers(0, 70), max_size=5))
def test_a_sequence_in_pieces_gives_the_bits_of_one_call(
    case: Case, cuts: list[int], isa_processes: dict[str, IsaProcess]
) -> None:
    steps = case["shape"][0]
    for process in isa_processes.values():
        expected = process.call("test_bits.whole", case, 1)
        for pieces in ([cut for cut in cuts if cut < steps], [*range(steps)]):
            assert differing(process.call("test_bits.in_pieces", case, pieces), expected) == []


@settings(deadline=None, max_examples=65, database=None)
@given(case=random_currents | random_events | random_maps)
def test_a_sample_has_the_same_bits_alone_and_in_its_batch(case: Case, isa_processes: dict[str, IsaProcess]) -> None:
    for process in isa_processes.values():
        expected = process.call("test_bits.whole", case, 2)
        assert differing(process.call("test_bits.alone", case), expected) == []


@settings(deadline=None, max_examples=40, database=None)
@given(case=random_events, threads=st.sampled_from(THREADS))
def test_a_dense_input_has_the_bits_of_its_events(case: Case, threads: int) -> None:
    dense, expected = linear_dense(case, threads), linear_dense(case, 1, as_events=True)
    assert set(dense) == set(expected)
    assert differing(dense, expected) == []


def whole_numbers(seed: int, below: int, *shape: int) -> Tensor:
    """float32 integers, from integer arithmetic alone."""
    return torch.from_numpy((random_bits(seed, *shape) % np.uint64(below)).astype(np.int64)).float()


def recorded_inputs(seed: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """float32 currents, bias and parameters that are integers over powers of two. After 20 silent steps the currents
    are noise with a kick of 8 in one of 16 elements.
    """
    neurons, first = shape[2], 100 * seed
    current = (whole_numbers(first, 2048, *shape) - 1024 + 8192 * (whole_numbers(first + 1, 16, *shape) == 0)) / 1024
    current[:20] = 0
    bias = -6 + whole_numbers(first + 2, 64, neurons) / 128
    # For each of PARAMETERS, in order: the smallest of 16 successive numerators, and the denominator.
    fractions = [(112, 128), (40, 16), (56, 32), (104, -16), (112, 128), (0, 128)]
    cell = {
        name: (whole_numbers(first + 3 + k, 16, neurons) + smallest) / denominator
        for k, (name, (smallest, denominator)) in enumerate(zip(PARAMETERS, fractions, strict=True))
    }
    return current, bias, cell


def spike_trains() -> dict[str, dict[str, Any]]:
    """Hashes of fixed cases, computed on the instruction set of this process."""
    trains: dict[str, Tensor] = {}
    current, bias, cell = recorded_inputs(1, (220, 3, 100))
    trains["defaults"] = srcell.src(current, -6.0)[0]
    trains["bias per neuron"] = srcell.src(current, bias)[0]
    trains["parameters per neuron"] = srcell.src(current, bias, **cell)[0]
    trains["lengths"] = srcell.src(current, bias, lengths=[220, 0, 131])[0]
    trains["spontaneous"] = srcell.src(torch.zeros(300, 1, 1), -4.0)[0]
    current, bias, cell = recorded_inputs(2, (1000, 1, 7))
    trains["a thousand steps"] = srcell.src(current, bias, **cell)[0]
    fires = whole_numbers(3, 16, 220, 3, 50) == 0
    events = EventBatch.from_dense(fires * torch.tensor([1.0, 0.75, 1.25])[:, None])
    weight = whole_numbers(4, 2048, 100, 50) / 256 - 3
    lateral = whole_numbers(5, 2048, 100, 100) / 1024 - 1
    trains["graded events"] = srcell.src_linear(events, weight, -6.0)[0]
    trains["lateral"] = srcell.src_linear(events, weight, -6.0, weight_hh=lateral)[0]
    delays = {"delay_hh": whole_numbers(8, 128, 100) / 8, "max_delay": 16}
    trains["delayed, lateral"] = srcell.src_linear(events, weight, -6.0, weight_hh=lateral, **delays)[0]
    omega = whole_numbers(6, 256, 100) / 128 - 1
    resonance = {"omega": omega, "alpha": torch.tensor(0.96875)}
    current = (whole_numbers(7, 2048, 220, 3, 100) - 1024) / 1024
    trains["resonant"] = srcell.src(current, -6.0, **resonance)[0]
    trains["resonant, lateral"] = srcell.src_linear(events, weight, -6.0, weight_hh=lateral, **resonance)[0]
    trains["events"] = srcell.src_linear(with_values(events, None), weight, -6.0, lengths=[220, 0, 131])[0]
    return {name: {"events": int(x.count_nonzero()), "sha256": digest(x)} for name, x in trains.items()}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 2.0**-126])
def test_a_thread_that_flushes_denormals_gets_the_same_bits(scale: float, threads: int) -> None:
    """Flushing is set per thread, by torch or by a library that was linked with -ffast-math."""
    torch.set_num_threads(threads)
    case = make_case(269475, (21, 2, 18, 6), mode=("straight_through", True), spread=2.0, scale=scale)
    problem = problem_of(case)

    def digests() -> tuple[Digests, bytes]:
        made = results(*problem.call, case["seed"], **problem.options)
        made["q"] = srcell.src(torch.full((3, 1, 1), 1e12), -6.0, omega=1e-39)[1].q  # alpha sin(omega) is denormal
        assert made["q"].any()
        return digest_all(made), _core.sigmoid(x).tobytes()

    x = np.linspace(-104, -87, 1000, dtype=np.float32)
    expected = digests()
    try:
        assert torch.set_flush_denormal(True)
        flushing = bool(torch.tensor(1e-40) * 1 == 0)
        made = digests()
    finally:
        torch.set_flush_denormal(False)
    assert flushing and (np.frombuffer(expected[1], np.float32) < 1e-38).any()
    assert made == expected


@pytest.mark.parametrize("isa", ISAS)
def test_spike_trains_match_the_recorded_hashes(isa: str, isa_processes: dict[str, IsaProcess]) -> None:
    recorded = json.loads(SPIKE_TRAINS.read_text())
    assert all(train["events"] > 0 for train in recorded.values())
    assert isa_processes[isa].call("test_bits.spike_trains") == recorded


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_bits.py --write")
    SPIKE_TRAINS.write_text(json.dumps(spike_trains(), indent=2) + "\n")
