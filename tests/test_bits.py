"""The same bits everywhere: forward, final state and backward of ``src``, and of ``src_linear`` on events, do not
depend on the instruction set, the number of threads, the batch that a sample is in, or how a sequence is cut into
calls; a dense input gives the bits of its events; and spike trains are those recorded in spike_trains.json.

`python tests/test_bits.py --write` rewrites that file. Do so only if a change of the arithmetic is intended, and say in
CHANGELOG.md that spike trains changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import srcell
from srcell import EventBatch, SRCState, _core
from srcell.functional.layer import Cell, Lateral
from srcell.functional.synapse import linear
from support.gradients import gradients, make_output_gradients
from support.inputs import (
    MODES,
    PARAMETERS,
    STATE,
    Inputs,
    Outputs,
    call,
    make_inputs,
    make_lateral,
    make_linear_inputs,
    noise,
    random_bits,
    with_values,
)
from support.processes import ISAS, IsaProcess

THREADS = (1, 2, 3, 7)
SPIKE_TRAINS = Path(__file__).with_name("spike_trains.json")

Case = dict[str, Any]
Digests = dict[str, str]


def make_case(
    seed: int,
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    mode: tuple[str, bool] = ("straight_through", False),
    per_neuron: bool = True,
    lengths: bool = False,
    poison: bool = False,
    scale: float = 1.0,
    spread: float = 0.0,
    lateral: str = "",
) -> Case:
    """What a process needs to call ``src`` and its gradients. ``poison`` puts NaN and infinities into the data;
    currents or weights are multiplied by ``scale``, and cell parameters lie within ``spread`` of their defaults.
    ``lateral`` is the surrogate of lateral weights, if there are any.
    """
    return {
        "seed": seed,
        "shape": shape,
        "dtype": dtype,
        "surrogate": mode[0],
        "recurrent_grad": mode[1],
        "per_neuron": per_neuron,
        "lengths": lengths,
        "poison": poison,
        "scale": scale,
        "spread": spread,
        "lateral": lateral,
    }


# Numbers of neurons and samples near the widths of registers (16, 32) and of tiles (128), with and without lengths,
# which change how tiles are cut; numbers of steps near the segments between checkpoints (16).
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
CASES = [
    make_case(seed, shape, dtype=dtype, mode=mode, per_neuron=bool(seed % 2), lengths=lengths, poison=not seed % 3)
    for seed, shape in enumerate(SHAPES)
    for mode in MODES
    for dtype in ("float32", "float64")
    for lengths in (False, True)
]
LATERAL = ("relu", "straight_through")
CASES += [
    make_case(seed, shape, mode=mode, lengths=bool(seed % 2), lateral=LATERAL[seed % 2])
    for seed, shape in enumerate([*SHAPES[:6], (70, 20, 5)])
    for mode in MODES[::3]
]


def case_inputs(case: Case) -> Inputs:
    inputs = make_inputs(
        case["seed"], *case["shape"], dtype=getattr(torch, case["dtype"]), per_neuron=case["per_neuron"]
    )
    return vary(inputs, "current", case)


def vary(inputs: Inputs, synapse: str, case: Case) -> Inputs:
    """Apply the case's scale, spread and poison to inputs near their defaults, in place."""
    inputs[synapse] *= case["scale"]
    if case["lateral"]:
        inputs["weight_hh"] = make_lateral(case["seed"], len(inputs["bias"]), inputs["bias"].dtype)
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
        "recurrent_grad": case["recurrent_grad"],
        "lengths": torch.from_numpy(lengths) if case["lengths"] else None,
        **({"lateral_surrogate": case["lateral"]} if case["lateral"] else {}),
    }


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
LINEAR_CASES = [
    make_case(seed, shape, dtype=dtype, mode=mode, per_neuron=bool(seed % 2), lengths=lengths, poison=not seed % 3)
    for seed, shape in enumerate(LINEAR_SHAPES)
    for mode in MODES
    for dtype, lengths in (("float32", True), ("float32", False), ("float64", True))
]
LINEAR_CASES += [
    make_case(seed, shape, mode=mode, lengths=bool(seed % 2), lateral=LATERAL[seed % 2])
    for seed, shape in enumerate([*LINEAR_SHAPES[:6], (300, 3, 260, 9)])
    for mode in MODES[1:3]
]


def linear_inputs(case: Case) -> tuple[EventBatch, Inputs]:
    steps, batch, neurons, width = case["shape"]
    events, inputs = make_linear_inputs(
        case["seed"],
        steps,
        batch,
        neurons,
        inputs=width,
        dtype=getattr(torch, case["dtype"]),
        per_neuron=case["per_neuron"],
    )
    return events, vary(inputs, "weight", case)


def digest(x: Tensor) -> str:
    """A hash of the bits; all NaN count as equal, because their payloads are not promised."""
    return hashlib.sha256(torch.where(x.isnan(), torch.nan, x.detach()).numpy().tobytes()).hexdigest()


def digest_all(tensors: dict[str, Tensor]) -> Digests:
    return {name: digest(x) for name, x in tensors.items()}


def with_gradients(function: Callable[..., Outputs], inputs: Inputs, seed: int, options: dict[str, Any]) -> Digests:
    """Digests of a call's outputs and of the gradients of all its arguments."""
    with torch.no_grad():
        outputs = call(function, inputs, **options)
    made = gradients(function, inputs, [*make_output_gradients(seed, outputs)], **options)
    return digest_all(named_outputs(*outputs) | {f"gradient of {name}": x for name, x in made.items()})


def named_outputs(spikes: Tensor, state: SRCState) -> dict[str, Tensor]:
    return {"spikes": spikes, **state._asdict()}


def whole(case: Case, threads: int) -> Digests:
    """Digests of one call and of all its gradients."""
    torch.set_num_threads(threads)
    return with_gradients(srcell.src, case_inputs(case), case["seed"], case_options(case))


def on_events(events: EventBatch) -> Callable[..., Outputs]:
    return lambda values, *layer, **options: srcell.src_linear(with_values(events, values), *layer, **options)


def linear_whole(case: Case, threads: int) -> Digests:
    """Digests of ``src_linear`` on unordered events, some of one input, and on the dense input that they make."""
    torch.set_num_threads(threads)
    events, inputs = linear_inputs(case)
    made = with_gradients(on_events(events), inputs, case["seed"], case_options(case))
    return made | {f"dense: {name}": x for name, x in linear_dense(case, threads).items()}


def linear_dense(case: Case, threads: int, *, as_events: bool = False) -> Digests:
    """Digests of ``src_linear`` on a dense input with ``method="events"``, or on the EventBatch made of it; the
    gradient of the input is taken at its events only.
    """
    torch.set_num_threads(threads)
    events, inputs = linear_inputs(case)
    options = case_options(case)
    dense = events.to_dense(inputs["weight"].dtype)
    del inputs["values"]
    if as_events:
        of_dense = EventBatch.from_dense(dense, options.pop("lengths"))
        values = of_dense.values if of_dense.values is not None else dense.new_ones(of_dense.num_events)
        digests = with_gradients(on_events(of_dense), {"values": values, **inputs}, case["seed"], options)
        return {name.replace("values", "input"): x for name, x in digests.items()}

    def at_events(input: Tensor, weight: Tensor, bias: Tensor, state: SRCState, **keywords: Any) -> Outputs:
        cell = Cell(**{name: keywords.pop(name) for name in PARAMETERS})
        lateral = Lateral(keywords.pop("weight_hh", None), keywords.pop("lateral_surrogate", "relu"))
        keywords |= {"lateral": lateral, "method": "events", "input_grad_at_events": True}
        return linear(input, weight, bias, state, cell, **keywords)

    with torch.no_grad():
        outputs = call(at_events, {"input": dense, **inputs}, **options)
    made = gradients(at_events, {"input": dense, **inputs}, [*make_output_gradients(case["seed"], outputs)], **options)
    fires = EventBatch.from_dense(dense, options["lengths"]).to_dense() != 0
    made["input"] = made["input"].transpose(0, 1)[fires.transpose(0, 1)]
    return digest_all(named_outputs(*outputs) | {f"gradient of {name}": x for name, x in made.items()})


def linear_alone(case: Case) -> Digests:
    """Digests of the outputs of one call per sample, and of the gradients that belong to a sample."""
    events, inputs = linear_inputs(case)
    options = case_options(case)
    lengths = options.pop("lengths")
    arriving = make_output_gradients(case["seed"], call(on_events(events), inputs, lengths=lengths, **options))
    outputs, own = [], []
    for b in range(case["shape"][1]):
        sample = events[b]
        one = {name: x[b : b + 1] if name in STATE else x for name, x in inputs.items()} | {"values": sample.values}
        length = None if lengths is None else lengths[b : b + 1]
        outputs.append(call(on_events(sample), one, lengths=length, **options))
        given_here = [arriving[0][:, b : b + 1], *(g[b : b + 1] for g in arriving[1:])]
        own.append(gradients(on_events(sample), one, given_here, lengths=length, **options))
    no_state = inputs["i0"][:0]
    result = {"spikes": torch.cat([arriving[0][:, :0], *(spikes for spikes, _ in outputs)], 1)}
    for name in SRCState._fields:
        result[name] = torch.cat([no_state, *(getattr(state, name) for _, state in outputs)])
    result["gradient of values"] = torch.cat([inputs["values"][:0], *(made["values"] for made in own)])
    for name in STATE:
        result[f"gradient of {name}"] = torch.cat([no_state, *(made[name] for made in own)])
    return digest_all(result)


def steps_of(events: EventBatch, begin: int, end: int) -> EventBatch:
    """The events of every sample in the steps [begin, end)."""
    steps, batch, inputs = events.shape
    rows = (torch.arange(batch)[:, None] * steps + torch.arange(begin, end)).flatten()
    bounds = [(int(events.offsets[row]), int(events.offsets[row + 1])) for row in rows]
    counts = torch.tensor([0] + [stop - start for start, stop in bounds])
    kept = torch.cat([torch.arange(0), *(torch.arange(start, stop) for start, stop in bounds)])
    return EventBatch(counts.cumsum(0), events.indices[kept], events.values[kept], shape=(end - begin, batch, inputs))


def linear_in_pieces(case: Case, cuts: list[int]) -> Digests:
    """Digests of the outputs of successive calls that pass the state on."""
    events, inputs = linear_inputs(case)
    options = case_options(case)
    lengths = options.pop("lengths")
    state = SRCState(*(inputs[name] for name in STATE))
    spikes = [inputs["i0"].new_empty(0, *inputs["i0"].shape)]
    for begin, end in pairwise(sorted({0, *cuts, case["shape"][0]})):
        part = steps_of(events, begin, end)
        piece = inputs | dict(zip(STATE, state, strict=True)) | {"values": part.values}
        left = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        made, state = call(on_events(part), piece, lengths=left, **options)
        spikes.append(made)
    return digest_all(named_outputs(torch.cat(spikes), state))


def all_linear_cases(threads: int) -> list[Digests]:
    return [linear_whole(case, threads) for case in LINEAR_CASES]


def all_cases(threads: int) -> list[Digests]:
    return [whole(case, threads) for case in CASES]


def in_pieces(case: Case, cuts: list[int]) -> Digests:
    """Digests of the outputs of successive calls that pass the state on."""
    inputs, options = case_inputs(case), case_options(case)
    steps = case["shape"][0]
    lengths, current = options.pop("lengths"), inputs["current"]
    spikes, state = [current[:0]], SRCState(*(inputs[name] for name in STATE))
    for begin, end in pairwise(sorted({0, *cuts, steps})):
        piece = inputs | dict(zip(STATE, state, strict=True)) | {"current": current[begin:end]}
        left = None if lengths is None else (lengths - begin).clamp(0, end - begin)
        made, state = call(srcell.src, piece, lengths=left, **options)
        spikes.append(made)
    return digest_all(named_outputs(torch.cat(spikes), state))


def alone(case: Case) -> Digests:
    """Digests of the outputs of one call per sample, and of the gradients that belong to a sample."""
    inputs, options = case_inputs(case), case_options(case)
    lengths = options.pop("lengths")
    arriving = make_output_gradients(case["seed"], call(srcell.src, inputs, lengths=lengths, **options))
    outputs, own = [], []
    for b in range(case["shape"][1]):
        one = {name: x[b : b + 1] if name in STATE else x for name, x in inputs.items()}
        one["current"] = inputs["current"][:, b : b + 1]
        length = None if lengths is None else lengths[b : b + 1]
        outputs.append(call(srcell.src, one, lengths=length, **options))
        to_spikes, *to_state = arriving
        given_here = [to_spikes[:, b : b + 1], *(g[b : b + 1] for g in to_state)]
        own.append(gradients(srcell.src, one, given_here, lengths=length, **options))
    no_step, no_state = inputs["current"][:, :0], inputs["i0"][:0]
    result = {"spikes": torch.cat([no_step, *(spikes for spikes, _ in outputs)], 1)}
    for name in SRCState._fields:
        result[name] = torch.cat([no_state, *(getattr(state, name) for _, state in outputs)])
    result["gradient of current"] = torch.cat([no_step, *(made["current"] for made in own)], 1)
    for name in STATE:
        result[f"gradient of {name}"] = torch.cat([no_state, *(made[name] for made in own)])
    return digest_all(result)


def differing(digests: Digests, expected: Digests) -> list[str]:
    return [name for name, value in digests.items() if value != expected[name]]


@pytest.fixture(scope="module")
def expected_digests(isa_processes: dict[str, IsaProcess]) -> list[Digests]:
    made: list[Digests] = isa_processes["scalar"].call("test_bits.all_cases", 1)
    return made


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("isa", ISAS)
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
        spikes, state = call(srcell.src, case_inputs(case), **case_options(case) | {"lengths": None})
        assert (spikes > 0.5).any(), case
        assert state.h.isnan().any() == case["poison"], case


cases = st.builds(
    make_case,
    seed=st.integers(0, 1000),
    shape=st.tuples(
        st.integers(0, 40) | st.sampled_from([1, 15, 16, 17, 32, 33]),
        st.integers(0, 5),
        st.integers(0, 70) | st.sampled_from([15, 16, 17, 31, 32, 33, 127, 128, 129]),
    ),
    dtype=st.sampled_from(["float32", "float32", "float64"]),
    mode=st.sampled_from(MODES),
    per_neuron=st.booleans(),
    lengths=st.booleans(),
    poison=st.booleans(),
    lateral=st.sampled_from(["", "", *LATERAL]),
)


@settings(deadline=None, max_examples=80, database=None)
@given(case=cases, threads=st.sampled_from(THREADS))
def test_every_shape_gives_the_same_bits(case: Case, threads: int, isa_processes: dict[str, IsaProcess]) -> None:
    expected = isa_processes["scalar"].call("test_bits.whole", case, 1)
    for isa in ISAS:
        assert differing(isa_processes[isa].call("test_bits.whole", case, threads), expected) == [], isa


@settings(deadline=None, max_examples=40, database=None)
@given(case=cases, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_a_sequence_in_pieces_gives_the_bits_of_one_call(
    case: Case, cuts: list[int], isa_processes: dict[str, IsaProcess]
) -> None:
    steps = case["shape"][0]
    for process in isa_processes.values():
        expected = process.call("test_bits.whole", case, 1)
        for pieces in ([cut for cut in cuts if cut < steps], [*range(steps)]):
            assert differing(process.call("test_bits.in_pieces", case, pieces), expected) == []


@settings(deadline=None, max_examples=40, database=None)
@given(case=cases)
def test_a_sample_alone_has_the_bits_that_it_has_in_its_batch(case: Case, isa_processes: dict[str, IsaProcess]) -> None:
    for process in isa_processes.values():
        expected = process.call("test_bits.whole", case, 2)
        assert differing(process.call("test_bits.alone", case), expected) == []


@pytest.fixture(scope="module")
def expected_linear_digests(isa_processes: dict[str, IsaProcess]) -> list[Digests]:
    made: list[Digests] = isa_processes["scalar"].call("test_bits.all_linear_cases", 1)
    return made


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("isa", ISAS)
def test_on_events_every_instruction_set_and_thread_count_gives_the_same_bits(
    isa: str, threads: int, isa_processes: dict[str, IsaProcess], expected_linear_digests: list[Digests]
) -> None:
    made = isa_processes[isa].call("test_bits.all_linear_cases", threads)
    wrong = {
        str(case): names
        for case, digests, expected in zip(LINEAR_CASES, made, expected_linear_digests, strict=True)
        if (names := differing(digests, expected))
    }
    assert not wrong


def test_premise_the_linear_cases_spike() -> None:
    for case in LINEAR_CASES:
        events, inputs = linear_inputs(case)
        spikes, _ = call(on_events(events), inputs, **case_options(case) | {"lengths": None})
        assert (spikes > 0.5).any(), case


linear_cases = st.builds(
    make_case,
    seed=st.integers(0, 1000),
    shape=st.tuples(
        st.integers(0, 70) | st.sampled_from([1, 31, 32, 33, 64, 65]),
        st.integers(0, 5) | st.integers(15, 34),
        st.integers(1, 70) | st.sampled_from([1, 15, 16, 17, 100, 127, 128, 129, 130, 260]),
        st.integers(1, 9) | st.sampled_from([15, 16, 63, 64, 65, 130]),
    ),
    dtype=st.sampled_from(["float32", "float32", "float64"]),
    mode=st.sampled_from(MODES),
    per_neuron=st.booleans(),
    lengths=st.booleans(),
    poison=st.booleans(),
    lateral=st.sampled_from(["", "", *LATERAL]),
)


@settings(deadline=None, max_examples=60, database=None)
@given(case=linear_cases, threads=st.sampled_from(THREADS))
def test_on_events_every_shape_gives_the_same_bits(
    case: Case, threads: int, isa_processes: dict[str, IsaProcess]
) -> None:
    expected = isa_processes["scalar"].call("test_bits.linear_whole", case, 1)
    for isa in ISAS:
        assert differing(isa_processes[isa].call("test_bits.linear_whole", case, threads), expected) == [], isa


@settings(deadline=None, max_examples=40, database=None)
@given(case=linear_cases, threads=st.sampled_from(THREADS))
def test_a_dense_input_has_the_bits_of_its_events(case: Case, threads: int) -> None:
    before = torch.get_num_threads()
    try:
        dense, events = linear_dense(case, threads), linear_dense(case, 1, as_events=True)
    finally:
        torch.set_num_threads(before)
    assert set(dense) == set(events)
    assert differing(dense, events) == []


@settings(deadline=None, max_examples=25, database=None)
@given(case=linear_cases, cuts=st.lists(st.integers(0, 70), max_size=5))
def test_events_in_pieces_give_the_bits_of_one_call(
    case: Case, cuts: list[int], isa_processes: dict[str, IsaProcess]
) -> None:
    steps = case["shape"][0]
    for process in isa_processes.values():
        expected = process.call("test_bits.linear_whole", case, 1)
        for pieces in ([cut for cut in cuts if cut < steps], [*range(steps)]):
            assert differing(process.call("test_bits.linear_in_pieces", case, pieces), expected) == []


@settings(deadline=None, max_examples=25, database=None)
@given(case=linear_cases)
def test_the_events_of_a_sample_alone_have_the_bits_that_they_have_in_its_batch(
    case: Case, isa_processes: dict[str, IsaProcess]
) -> None:
    for process in isa_processes.values():
        expected = process.call("test_bits.linear_whole", case, 2)
        assert differing(process.call("test_bits.linear_alone", case), expected) == []


def recorded_inputs(seed: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """float32 currents, bias and parameters that are integers over powers of two, from integer arithmetic alone: noise
    after 20 silent steps, with a kick of 8 in one of 16 elements."""

    def whole_numbers(salt: int, below: int, *sizes: int) -> Tensor:
        return torch.from_numpy((random_bits(100 * seed + salt, *sizes) % np.uint64(below)).astype(np.int64))

    neurons = shape[2]
    current = (whole_numbers(0, 2048, *shape) - 1024 + 8192 * (whole_numbers(1, 16, *shape) == 0)).float() / 1024
    current[:20] = 0
    bias = -6 + whole_numbers(2, 64, neurons).float() / 128
    cell = {
        "alpha": (whole_numbers(3, 16, neurons) + 112).float() / 128,
        "rho": (whole_numbers(4, 16, neurons) + 40).float() / 16,
        "r": (whole_numbers(5, 16, neurons) + 56).float() / 32,
        "rs": -(whole_numbers(6, 16, neurons) + 104).float() / 16,
        "zs_hyp": (whole_numbers(7, 16, neurons) + 112).float() / 128,
        "zs_dep": whole_numbers(8, 16, neurons).float() / 128,
    }
    return current, bias, {name: cell[name] for name in PARAMETERS}


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
    fires = random_bits(3, 220, 3, 50) % np.uint64(16) == 0
    dense = torch.from_numpy(fires).float() * torch.tensor([1.0, 0.75, 1.25])[:, None]
    weight = torch.from_numpy((random_bits(4, 100, 50) % np.uint64(2048)).astype(np.int64)).float() / 256 - 3
    events = srcell.EventBatch.from_dense(dense)
    trains["graded events"] = srcell.src_linear(events, weight, -6.0)[0]
    lateral = torch.from_numpy((random_bits(5, 100, 100) % np.uint64(2048)).astype(np.int64)).float() / 1024 - 1
    trains["lateral"] = srcell.src_linear(events, weight, -6.0, weight_hh=lateral)[0]
    trains["events"] = srcell.src_linear(with_values(events, None), weight, -6.0, lengths=[220, 0, 131])[0]
    return {name: {"events": int(x.count_nonzero()), "sha256": digest(x)} for name, x in trains.items()}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 2.0**-126])
def test_a_thread_that_flushes_denormals_gets_the_same_bits(scale: float, threads: int) -> None:
    """Flushing is set per thread, by torch or by a library that was linked with -ffast-math."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    case = make_case(269475, (21, 2, 18, 6), mode=("straight_through", True), spread=2.0, scale=scale)
    events, inputs = linear_inputs(case)
    arguments = (on_events(events), inputs, case["seed"], case_options(case))
    x = np.linspace(-104, -87, 1000, dtype=np.float32)
    expected = with_gradients(*arguments), _core.sigmoid(x).tobytes()
    try:
        assert torch.set_flush_denormal(True)
        flushing = bool(torch.tensor(1e-40) * 1 == 0)
        made = with_gradients(*arguments), _core.sigmoid(x).tobytes()
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
    assert flushing and (np.frombuffer(expected[1], np.float32) < 1e-38).any()
    assert not differing(made[0], expected[0])
    assert made[1] == expected[1]


@pytest.mark.parametrize("isa", ISAS)
def test_spike_trains_are_those_that_were_written_down(isa: str, isa_processes: dict[str, IsaProcess]) -> None:
    recorded = json.loads(SPIKE_TRAINS.read_text())
    assert all(train["events"] > 0 for train in recorded.values())
    assert isa_processes[isa].call("test_bits.spike_trains") == recorded


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_bits.py --write")
    SPIKE_TRAINS.write_text(json.dumps(spike_trains(), indent=2) + "\n")
