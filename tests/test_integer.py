"""The integer SRC is that of its equations, exactly: on every instruction set, for any threads, batch and cut, for
random and extreme inputs; its gradient is the surrogate's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import srcell
from srcell import EventBatch, IntegerCell, IntegerSRC, IntegerState, integer_src_linear
from srcell.functional import quantise
from support.integers import HARDWARE, integer_model
from support.processes import ISAS, IsaProcess

STATE = ("i", "h", "hs")
WEIGHT_SIZES = {"2 bits": 2, "4 bits": 8, "9 bits": 256, "10 bits": 512, "16 bits": 32768}
CELLS: dict[str, dict[str, int]] = {
    "hardware": {},
    "slow": {"leak_shift_a": 7, "leak_shift_b": 15, "zs_hyp": 1000, "zs_dep": 0, "bias": -5500},
    "steep": {"slope": 5, "i_max": 32766, "spike_threshold": 1},
    "fine": {"fraction_bits": 15, "zs_hyp": 28800, "zs_dep": 3200, "slope_shift": 15, "slope": 24575},
    "whole": {"zs_hyp": 1000, "zs_dep": 1024, "slope": 1, "slope_shift": 0, "bias": -5800},
    "wide": {
        **{"fraction_bits": 11, "zs_hyp": 1800, "zs_dep": 200, "drive_high": 2047, "drive_low": -2048, "bias": -12000},
        **{"h_min": -2048, "h_max": 2047, "hs_min": -1600, "hs_max": 1700, "gate_threshold": 1000},
        **{"spike_threshold": 1024},
    },
}


def make_input(seed: int, steps: int, batch: int, inputs: int, density: float = 0.2) -> Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy((random.random((steps, batch, inputs)) < density).astype(np.float32))


def make_weight(seed: int, neurons: int, inputs: int, size: int) -> Tensor:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.integers(-size, size, (neurons, inputs)).astype(np.int16))


def make_state(seed: int, batch: int, neurons: int, cell: dict[str, int]) -> IntegerState:
    c, random = HARDWARE | cell, np.random.default_rng(seed)
    bounds = ((-c["i_max"], c["i_max"]), (c["h_min"], c["h_max"]), (c["hs_min"], c["hs_max"]))
    made = [random.integers(low, high + 1, (batch, neurons)).astype(np.int16) for low, high in bounds]
    return IntegerState(*map(torch.from_numpy, made))


def check(input: Tensor, weight: Tensor, state: Any = None, lengths: Any = None, **cell: int) -> Tensor:
    """Compare a call on the input and on its events with the model; return the spikes."""
    expected, ended, count, _ = integer_model(input.numpy(), weight.numpy(), state, lengths, **cell)
    for given_ in (input, EventBatch.from_dense(input)):
        clamped = torch.zeros((), dtype=torch.int64)
        spikes, after = integer_src_linear(
            given_, weight, state, cell=IntegerCell(**cell), lengths=lengths, clamped=clamped
        )
        assert spikes.dtype == torch.uint8
        assert (spikes.numpy() == expected).all()
        for x, y in zip(after, ended, strict=True):
            assert x.dtype == torch.int16
            assert (x.numpy() == y).all()
        assert clamped == count
    return spikes


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("size", WEIGHT_SIZES.values(), ids=WEIGHT_SIZES)
def test_kernels_equal_the_model(size: int, cell: dict[str, int]) -> None:
    fired = 0
    for seed, (steps, batch, inputs, neurons) in enumerate([(60, 3, 50, 20), (40, 2, 200, 130), (30, 1, 900, 33)]):
        input, weight = make_input(seed, steps, batch, inputs), make_weight(seed, neurons, inputs, size)
        fired += int(check(input, weight, **cell).sum(dtype=torch.int64))
        check(input, weight, make_state(seed, batch, neurons, cell), lengths=list(range(steps - batch, steps)), **cell)
    assert fired or size == 2


def test_extreme_weights_saturate_exactly() -> None:
    # All inputs fire and all weights are extreme: sums of up to 2^31 and back within a step.
    for value in (-32768, 32767):
        weight = torch.full((5, 3000), value, dtype=torch.int16)
        weight[1, 1500:] = -value - 1
        weight[2] = torch.where(torch.arange(3000) % 2 == 0, 32767, -32768)
        spikes = check(torch.ones(60, 2, 3000), weight)
        assert spikes.any() or value < 0
        _, _, count, _ = integer_model(np.ones((60, 2, 3000)), weight.numpy())
        assert count > 100


def test_more_events_than_32_bits_hold() -> None:
    # 80,000 events of one input in one step, each of weight 32767: the sum is beyond 2^31.
    indices = torch.cat([torch.zeros(80_000), torch.ones(80_000)]).to(torch.int32)
    events = EventBatch(torch.tensor([0, 0, 160_000, 160_000]), indices, shape=(3, 1, 2))
    for other, expected in ((-32768, -30000), (-32767, 0), (-32766, 30000)):
        _, state = integer_src_linear(events, torch.tensor([[32767, other]], dtype=torch.int16), lengths=None)
        leaked = expected - (expected >> 4) - (expected >> 5)
        assert int(state.i) == leaked


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_constants(data: st.DataObject) -> None:
    half = st.integers(0, 12000)
    cell = {
        "leak_shift_a": data.draw(st.integers(1, 15)),
        "leak_shift_b": data.draw(st.integers(1, 15)),
        "i_max": data.draw(st.integers(0, 32766)),
        "drive_high": data.draw(st.integers(-2000, 2000)),
        "drive_low": data.draw(st.integers(-2000, 2000)),
        "gate_threshold": data.draw(st.integers(-32767, 32767)),
        "fraction_bits": data.draw(st.integers(0, 15)),
        "r": data.draw(st.integers(-2, 2)),
        "rs": data.draw(st.integers(-2, 2)),
        "bias": data.draw(st.integers(-2000, 2000)),
        "slope_shift": data.draw(st.integers(0, 15)),
        "h_min": -data.draw(half) // 2,
        "h_max": data.draw(half) // 2,
        "hs_min": -data.draw(half) // 2,
        "hs_max": data.draw(half) // 2,
        "spike_threshold": data.draw(st.integers(-32767, 32767)),
    }
    cell["zs_hyp"] = data.draw(st.integers(0, min(2 ** cell["fraction_bits"], 32767)))
    cell["zs_dep"] = data.draw(st.integers(0, min(2 ** cell["fraction_bits"], 32767)))
    cell["slope"] = data.draw(st.integers(0, 2 ** cell["slope_shift"])) if cell["slope_shift"] < 15 else 32767
    seed = data.draw(st.integers(0, 2**32 - 1))
    shape = (data.draw(st.integers(0, 20)), data.draw(st.integers(0, 3)), data.draw(st.integers(0, 30)))
    neurons = data.draw(st.integers(0, 140))
    input = make_input(seed, *shape, data.draw(st.sampled_from([0.0, 0.1, 1.0])))
    weight = make_weight(seed, neurons, shape[2], data.draw(st.sampled_from([1, 8, 512, 32768])))
    check(input, weight, make_state(seed, shape[1], neurons, cell), **cell)


def digests(seed: int, threads: int) -> list[int]:
    """Spikes, state and gradients of a layer as numbers; for processes of other instruction sets."""
    torch.set_num_threads(threads)
    input, weight = make_input(seed, 45, 9, 150), make_weight(seed, 150, 150, 300)
    spikes, state = integer_src_linear(input, weight)
    layer, x = make_layer(weight), input.requires_grad_()
    (layer(x)[0] * torch.linspace(-1, 1, 45)[:, None, None]).sum().backward()
    assert x.grad is not None and layer.weight_ih_l0.grad is not None
    grads = [layer.weight_ih_l0.grad.view(torch.int32)]
    weights = torch.arange(1, spikes.numel() + 1, dtype=torch.int64)
    return [int((t.flatten().to(torch.int64) * weights[: t.numel()]).sum()) for t in (spikes, *state, *grads)]


def make_layer(weight: Tensor) -> IntegerSRC:
    layer = IntegerSRC(weight.shape[1], weight.shape[0], weight_bits=10)
    with torch.no_grad():
        layer.weight_ih_l0.copy_(weight / 100)
    return layer


def test_every_instruction_set_and_thread_count_gives_the_same_bits() -> None:
    before = torch.get_num_threads()
    try:
        own = digests(3, 1)
        assert own == digests(3, 3)
    finally:
        torch.set_num_threads(before)
    assert own[0] > 0
    for isa in ISAS:
        process = IsaProcess(isa)
        try:
            for threads in (1, 2, 7):
                assert process.call("test_integer.digests", 3, threads) == own, isa
        finally:
            process.close()


def test_batches_and_cuts_change_nothing() -> None:
    input, weight = make_input(5, 50, 6, 80, 0.3), make_weight(5, 37, 80, 100)
    whole, state = integer_src_linear(input, weight)
    assert whole.any()
    for samples in ([2], [5, 0], [1, 1, 4]):
        alone, ended = integer_src_linear(input[:, samples], weight)
        assert torch.equal(alone, whole[:, samples])
        assert all(torch.equal(x, y[samples]) for x, y in zip(ended, state, strict=True))
    for sizes in ([1] * 50, [7, 13, 30]):
        after: Any = None
        pieces = []
        for piece in input.split(sizes):
            spikes, after = integer_src_linear(piece, weight, after)
            pieces.append(spikes)
        assert torch.equal(torch.cat(pieces), whole)
        assert all(torch.equal(x, y) for x, y in zip(after, state, strict=True))


def test_large_outputs_have_their_shape() -> None:
    """Regression: outputs of 4 MiB and more, which lie on blocks of float32, had four times as many elements."""
    input, weight = make_input(6, 2, 21_001, 3, 0.5), make_weight(6, 101, 3, 2000)
    spikes, state = integer_src_linear(EventBatch.from_dense(input), weight)
    assert spikes.numel() > 4 << 20 or state.h.numel() > 2 << 20
    assert spikes.shape == (2, 21_001, 101) and spikes.is_contiguous()
    assert [x.shape for x in state] == [(21_001, 101)] * 3
    expected, ended, _, _ = integer_model(input[:, -7:].numpy(), weight.numpy())
    assert (spikes[:, -7:].numpy() == expected).all()
    assert all((x[-7:].numpy() == y).all() for x, y in zip(state, ended, strict=True))


def test_layers_stack() -> None:
    input = make_input(7, 60, 2, 40, 0.4)
    first, second = make_weight(7, 30, 40, 60), make_weight(8, 10, 30, 2000)
    below, _ = integer_src_linear(input, first)
    expected, _, _, _ = integer_model(below.numpy(), second.numpy())
    spikes, _ = integer_src_linear(below, second)
    assert expected.any() and (spikes.numpy() == expected).all()


# How hardware is, odd as it may be.


def at_rest(neurons: int = 1) -> IntegerState:
    return IntegerState(*(torch.full((1, neurons), x, dtype=torch.int16) for x in (0, -1024, -800)))


def test_a_neuron_comes_to_rest() -> None:
    weight = torch.zeros(1, 1, dtype=torch.int16)
    silent = torch.zeros(60, 1, 1)
    _, state = integer_src_linear(silent, weight)
    assert [int(x) for x in state] == [0, -1024, -800]
    for steps, hs in ((4, -329), (5, -414), (10, -706), (20, -800)):
        _, state = integer_src_linear(silent[:steps], weight)
        assert int(state.hs) == hs


def test_what_never_leaks() -> None:
    i = torch.arange(-40, 40, dtype=torch.int16)[None]
    state = at_rest(80)._replace(i=i)
    spikes, after = integer_src_linear(torch.zeros(400, 1, 1), torch.zeros(80, 1, dtype=torch.int16), state)
    assert torch.equal(after.i[0, 40:56], torch.arange(16, dtype=torch.int16))  # 0 to 15 stay
    # A negative i ends at 0 or, from -1 on, at +1; whatever is above 0 fires on without input.
    assert set(after.i[0, :40].tolist()) == {0, 1}
    assert after.i[0, 39] == 1
    assert torch.equal(spikes[200:, 0].any(0), after.i[0] > 0)


def test_weights_are_rounded_half_to_even() -> None:
    integers, scale = quantise(torch.tensor([-8.0, 0.5, 1.5, 2.5, -0.5, 7.4]), 4)
    assert float(scale) == 1.0 and integers.tolist() == [-8, 0, 2, 2, 0, 7]
    assert quantise(torch.tensor([8.0, -3.0]), 4)[0].tolist() == [7, -3]  # +K becomes K - 1
    for bits in range(2, 17):
        integers, scale = quantise(torch.randn(5, 7), bits)
        assert -(2 ** (bits - 1)) <= int(integers.min()) and int(integers.max()) <= 2 ** (bits - 1) - 1
    assert quantise(torch.zeros(2, 0), 4)[0].shape == (2, 0)
    assert quantise(torch.full((2,), 1e-38), 4)[0].tolist() == [0, 0]


# Gradients.


def surrogate_gradients(layer: IntegerSRC, input: Tensor, grad_spikes: Tensor, lengths: Any = None) -> tuple[Any, Any]:
    """The gradients of the weights and of the input by the definition, in float64."""
    integers = layer.integers().numpy().astype(np.int64)
    scale = 2.0 ** (layer.weight_bits - 1) / float(layer.weight_ih_l0.detach().abs().max())
    _, _, _, traces = integer_model(input.detach().numpy(), integers, None, lengths, **layer.cell._asdict())
    slope = layer.cell.slope / 2**layer.cell.slope_shift
    unit = slope / 2**layer.cell.fraction_bits
    span = layer.rho * scale
    alpha = 1 - 2.0**-layer.cell.leak_shift_a - 2.0**-layer.cell.leak_shift_b
    slopes = slope * (1 - np.tanh(0.2 * unit * traces["u"]) ** 2) * (1 - np.tanh(traces["i"] / span) ** 2) / span
    carry = np.zeros(traces["i"].shape[1:])
    grad_current = np.zeros(traces["i"].shape)
    ends = np.full(input.shape[1], len(input)) if lengths is None else np.asarray(lengths)
    for t in reversed(range(len(input))):
        on = (t < ends)[:, None]
        carry = np.where(on, alpha * carry + grad_spikes[t].numpy() * slopes[t], 0)
        grad_current[t] = carry
    return scale * np.einsum("tbn,tbk->nk", grad_current, input.detach().numpy()), grad_current @ integers


@pytest.mark.parametrize("lengths", [None, [12, 40, 0]])
@pytest.mark.parametrize("bits", [2, 4, 10])
def test_gradients_are_those_of_the_surrogate(bits: int, lengths: Any) -> None:
    torch.manual_seed(bits)
    layer = IntegerSRC(60, 25, weight_bits=bits)
    input = make_input(bits, 40, 3, 60, 0.2).requires_grad_()
    grad = torch.randn(40, 3, 25)
    spikes, _ = layer(input, lengths=lengths)
    assert spikes.any()
    (spikes * grad).sum().backward()
    weight, below = surrogate_gradients(layer, input, grad, lengths)
    assert layer.weight_ih_l0.grad is not None and input.grad is not None
    assert np.abs(weight).max() > 0.1
    assert np.abs(layer.weight_ih_l0.grad.numpy() - weight).max() <= 2e-5 * np.abs(weight).max()
    assert np.abs(input.grad.numpy() - below).max() <= 2e-5 * np.abs(below).max()
    by_dense = layer.weight_ih_l0.grad.clone()
    layer.zero_grad()
    (layer(EventBatch.from_dense(input.detach()), lengths=lengths)[0] * grad).sum().backward()
    assert torch.equal(layer.weight_ih_l0.grad, by_dense)


def test_what_lies_past_a_length_has_no_influence() -> None:
    layer = IntegerSRC(20, 7)
    input = make_input(1, 30, 2, 20, 0.5)
    other = input.clone()
    other[10:, 0] = float("nan")
    results = []
    for x in (input, other):
        layer.zero_grad()
        spikes, state = layer(x, lengths=[10, 30])
        spikes.sum().backward()
        assert layer.weight_ih_l0.grad is not None
        results.append((spikes.detach(), *state, layer.weight_ih_l0.grad.clone()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not results[0][0][10:, 0].any() and results[0][0][:, 1].any()


def test_a_layer_is_its_function() -> None:
    layer = IntegerSRC(30, 12, weight_bits=7, initial_state="rest")
    input = make_input(2, 40, 3, 30, 0.4)
    spikes, state = layer(input)
    rest = IntegerState(*(torch.full((3, 12), x, dtype=torch.int16) for x in (0, -1024, -800)))
    expected, ended = integer_src_linear(input, layer.integers(), rest)
    assert spikes.dtype == torch.float32 and torch.equal(spikes.detach().to(torch.uint8), expected)
    assert all(torch.equal(x, y) for x, y in zip(state, ended, strict=True))


def test_one_sample_lacks_a_batch() -> None:
    layer = IntegerSRC(30, 12)
    x = make_input(2, 40, 1, 30, 0.4)
    spikes, state = layer(x)
    alone, after = layer(x[:25, 0])
    rest, ended = layer(x[25:, 0], after)
    assert torch.equal(torch.cat([alone, rest]), spikes[:, 0]) and spikes.any()
    assert all(torch.equal(a, b[0]) for a, b in zip(ended, state, strict=True))
    with pytest.raises(ValueError, match="lengths: expected None beside an input"):
        layer(x[:, 0], lengths=[3])


def test_outliers_are_clipped() -> None:
    torch.manual_seed(0)
    layer = IntegerSRC(50, 40)
    with torch.no_grad():
        layer.weight_ih_l0[0, 0] = 10.0
    before = layer.weight_ih_l0.detach().clone()
    layer.constrain_()
    bound = float(3 * before.std())
    assert torch.equal(layer.weight_ih_l0, before.clamp(-bound, bound))
    assert bound < 10 and layer.integers()[0, 0] == 7
    for inputs in (0, 1):
        IntegerSRC(inputs, 1).constrain_()


def test_clamping_is_counted() -> None:
    layer = IntegerSRC(900, 3, weight_bits=10)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
    layer(torch.ones(5, 2, 900))
    assert layer.clamped == 5 * 2 * 3
    layer(torch.ones(1, 2, 900))
    assert layer.clamped == 6 * 2 * 3
    assert "clamped" not in layer.state_dict()


def test_constants_travel_in_the_state_dict() -> None:
    cell = IntegerCell(bias=-5000, zs_dep=200)
    trained = IntegerSRC(5, 3, weight_bits=6, cell=cell, rho=2.0, initial_state="rest")
    other = IntegerSRC(5, 3)
    with pytest.warns(UserWarning, match="weight_bits=6 instead of 4"):
        other.load_state_dict(trained.state_dict())
    assert (other.weight_bits, other.cell, other.rho, other.initial_state) == (6, cell, 2.0, "rest")
    assert repr(other) == (
        "IntegerSRC(5, 3, weight_bits=6, cell=IntegerCell(zs_dep=200, bias=-5000), rho=2.0, initial_state='rest')"
    )
    broken = trained.state_dict()
    broken["_extra_state"] = broken["_extra_state"].clone()
    broken["_extra_state"][1] = 40
    with pytest.raises(RuntimeError, match="weight_bits: expected an int in"):
        other.load_state_dict(broken)


def test_recording_gives_every_state() -> None:
    layer = IntegerSRC(20, 6)
    input = make_input(4, 30, 2, 20, 0.5)
    with srcell.record(layer) as recording:
        spikes, state = layer(EventBatch.from_dense(input))
    trace = recording["integersrc"].trace()
    assert trace.h.shape == (30, 2, 6)
    assert torch.equal(recording["integersrc"].spikes, spikes)
    assert torch.equal(trace.h[-1], state.h)
    assert torch.equal(trace.h >= 512, spikes.bool())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "weight's dtype": ({"weight": torch.zeros(3, 5)}, "weight: expected dtype torch.int16"),
    "weight's shape": ({"weight": torch.zeros(3, 6, dtype=torch.int16)}, r"input: expected shape \(T, B, K\)"),
    "no tensor": ({"weight": [[1]]}, "weight: expected a tensor, got list"),
    "graded input": ({"input": torch.full((4, 2, 5), 0.5)}, "input: expected 0 and 1"),
    "values": (
        {"input": EventBatch.from_dense(torch.full((4, 2, 5), 2.0))},
        "input: expected an EventBatch without values",
    ),
    "state's dtype": ({"state": [torch.zeros(2, 3)] * 3}, "state.i: expected dtype torch.int16"),
    "state's shape": ({"state": [torch.zeros(3, 2, dtype=torch.int16)] * 3}, "state.i: expected shape"),
    "state out of range": (
        {"state": [torch.full((2, 3), 1024, dtype=torch.int16)] * 3},
        r"state.h: expected values in \[-1024, 1023\]",
    ),
    "state's length": ({"state": [torch.zeros(2, 3, dtype=torch.int16)]}, "state: expected three tensors"),
    "lengths": ({"lengths": [4, 5]}, r"lengths: expected values in \[0, 4\], got 5 for sample 1"),
    "cell's size": ({"cell": [1, 2, 3]}, "cell: expected 19 constants, got 3"),
    "a constant": ({"cell": IntegerCell(leak_shift_a=16)}, r"cell.leak_shift_a: expected an int in \[1, 15\], got 16"),
    "sums": ({"cell": IntegerCell(bias=-30000)}, "cell: expected a sum of the sizes of drive.* of at most 32767"),
    "gates": ({"cell": IntegerCell(zs_hyp=1025)}, r"cell: expected zs_hyp and zs_dep of at most 2\^fraction_bits"),
    "slope": ({"cell": IntegerCell(slope=6)}, "cell: expected a slope below 1.5"),
    "bounds": (
        {"cell": IntegerCell(h_min=-20000, hs_max=20000, r=0, rs=0)},
        "cell: expected h and hs that are at most 32767 apart, got 40000",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {"input": torch.ones(4, 2, 5), "weight": torch.zeros(3, 5, dtype=torch.int16)}
    with pytest.raises((TypeError, ValueError), match=message):
        integer_src_linear(**(arguments | changes))


def test_bad_options_are_named() -> None:
    for options, message in (
        ({"weight_bits": 1}, r"weight_bits: expected an int in \[2, 16\], got 1"),
        ({"cell": (1, 2)}, "cell: expected an IntegerCell, got tuple"),
        ({"cell": IntegerCell(slope=6)}, "cell: expected a slope below"),
        ({"rho": 0.0}, "rho: expected a finite value > 0"),
        ({"initial_state": "none"}, "initial_state: expected one of"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            IntegerSRC(4, 3, **options)  # type: ignore[arg-type]
    layer = IntegerSRC(4, 3)
    with torch.no_grad():
        layer.weight_ih_l0[0, 0] = float("nan")
    with pytest.raises(ValueError, match="weight: expected finite values of float32, got nan"):
        layer(torch.ones(2, 1, 4))
