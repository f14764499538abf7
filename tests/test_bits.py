"""One function, the same bits everywhere: forward, final state and backward of ``src`` do not depend on the instruction
set, the number of threads, the batch around a sample or the cuts of a sequence; and its spike trains are those written
down in spike_trains.json.

`python tests/test_bits.py --write` writes that file anew. Do so only when a change of the arithmetic is intended, and
say in CHANGELOG.md that spike trains changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
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
from conftest import (
    ISAS,
    MODES,
    PARAMETERS,
    STATE,
    Inputs,
    IsaProcess,
    call,
    gradients,
    make_inputs,
    make_output_gradients,
    random_bits,
)
from srcell import SRCState

THREADS = (1, 2, 3, 7)
SPIKE_TRAINS = Path(__file__).with_name("spike_trains.json")

Case = dict[str, Any]
Digests = dict[str, str]


def make_case(
    seed: int,
    shape: tuple[int, int, int],
    *,
    dtype: str = "float32",
    mode: tuple[str, bool] = ("straight_through", False),
    per_neuron: bool = True,
    lengths: bool = False,
    poison: bool = False,
) -> Case:
    """What a process needs to call ``src`` and its gradients; poison puts NaN and infinities into the data."""
    return {
        "seed": seed,
        "shape": shape,
        "dtype": dtype,
        "surrogate": mode[0],
        "recurrent_grad": mode[1],
        "per_neuron": per_neuron,
        "lengths": lengths,
        "poison": poison,
    }


# Neurons and samples round the widths of registers (16, 32) and of tiles (128), with and without lengths, which cut the
# tiles differently; steps round the segments between checkpoints (16).
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


def case_inputs(case: Case) -> Inputs:
    inputs = make_inputs(
        case["seed"], *case["shape"], dtype=getattr(torch, case["dtype"]), per_neuron=case["per_neuron"]
    )
    if case["poison"]:
        for name, odd in (("current", 61), ("i0", 17), ("h0", 19), ("hs0", 23)):
            flat = inputs[name].view(-1)
            for k, value in enumerate((torch.nan, torch.inf, -torch.inf)):
                flat[7 * k :: 3 * odd] = value
    return inputs


def case_options(case: Case) -> dict[str, Any]:
    steps, batch, _ = case["shape"]
    lengths = (random_bits(case["seed"], batch) % np.uint64(steps + 1)).astype(np.int64)
    return {
        "surrogate": case["surrogate"],
        "recurrent_grad": case["recurrent_grad"],
        "lengths": torch.from_numpy(lengths) if case["lengths"] else None,
    }


def digest(x: Tensor) -> str:
    """Of the bits; every NaN counts as the same NaN, because payloads are not promised."""
    return hashlib.sha256(torch.where(x.isnan(), torch.nan, x.detach()).numpy().tobytes()).hexdigest()


def digest_all(tensors: dict[str, Tensor]) -> Digests:
    return {name: digest(x) for name, x in tensors.items()}


def named_outputs(spikes: Tensor, state: SRCState) -> dict[str, Tensor]:
    return {"spikes": spikes, **state._asdict()}


def whole(case: Case, threads: int) -> Digests:
    """Of one call and of all its gradients."""
    torch.set_num_threads(threads)
    inputs, options = case_inputs(case), case_options(case)
    with torch.no_grad():
        outputs = call(srcell.src, inputs, **options)
    made = gradients(srcell.src, inputs, [*make_output_gradients(case["seed"], outputs)], **options)
    return digest_all(named_outputs(*outputs) | {f"gradient of {name}": x for name, x in made.items()})


def all_cases(threads: int) -> list[Digests]:
    return [whole(case, threads) for case in CASES]


def in_pieces(case: Case, cuts: list[int]) -> Digests:
    """Of the outputs of calls that pass the state on."""
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
    """Of the outputs of a call for each sample, and of the gradients that are a sample's own."""
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


def recorded_inputs(seed: int, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """float32 currents, bias and parameters that are whole numbers over powers of two, from integer arithmetic alone:
    steps of noise after 20 silent ones, with a kick of 8 in one of 16 cells."""

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
    """Hashes of fixed cases by the instruction set of this process."""
    trains: dict[str, Tensor] = {}
    current, bias, cell = recorded_inputs(1, (220, 3, 100))
    trains["defaults"] = srcell.src(current, -6.0)[0]
    trains["bias per neuron"] = srcell.src(current, bias)[0]
    trains["parameters per neuron"] = srcell.src(current, bias, **cell)[0]
    trains["lengths"] = srcell.src(current, bias, lengths=[220, 0, 131])[0]
    trains["spontaneous"] = srcell.src(torch.zeros(300, 1, 1), -4.0)[0]
    current, bias, cell = recorded_inputs(2, (1000, 1, 7))
    trains["a thousand steps"] = srcell.src(current, bias, **cell)[0]
    return {name: {"events": int(x.count_nonzero()), "sha256": digest(x)} for name, x in trains.items()}


@pytest.mark.parametrize("isa", ISAS)
def test_spike_trains_are_those_that_were_written_down(isa: str, isa_processes: dict[str, IsaProcess]) -> None:
    recorded = json.loads(SPIKE_TRAINS.read_text())
    assert all(train["events"] > 0 for train in recorded.values())
    assert isa_processes[isa].call("test_bits.spike_trains") == recorded


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python tests/test_bits.py --write")
    SPIKE_TRAINS.write_text(json.dumps(spike_trains(), indent=2) + "\n")
