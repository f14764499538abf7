"""The integer SRC equals its equations exactly on every instruction set, for any number of threads, any batch and any
split into calls, and for random and extreme inputs; its gradient is the surrogate's.
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
from support.refusals import Message, Refusal, refusals

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
# Bounds of the constants that are drawn at random; zs_hyp, zs_dep and slope depend on others.
RANGES = [
    (1, 15, ["leak_shift_a", "leak_shift_b"]),
    (0, 15, ["fraction_bits", "slope_shift"]),
    (0, 32766, ["i_max"]),
    (-2000, 2000, ["drive_high", "drive_low", "bias"]),
    (-32767, 32767, ["gate_threshold", "spike_threshold"]),
    (-2, 2, ["r", "rs"]),
    (-6000, 0, ["h_min", "hs_min"]),
    (0, 6000, ["h_max", "hs_max"]),
]


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
            assert x.dtype == torch.int16 and (x.numpy() == y).all()
        assert clamped == count
    return spikes


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("bits", [2, 4, 9, 10, 16])
def test_kernels_equal_the_model(bits: int, cell: dict[str, int]) -> None:
    fired = 0
    for seed, (steps, batch, inputs, neurons) in enumerate([(60, 3, 50, 20), (40, 2, 200, 130), (30, 1, 900, 33)]):
        input, weight = make_input(seed, steps, batch, inputs), make_weight(seed, neurons, inputs, 2 ** (bits - 1))
        fired += int(check(input, weight, **cell).sum(dtype=torch.int64))
        check(input, weight, make_state(seed, batch, neurons, cell), lengths=list(range(steps - batch, steps)), **cell)
    assert fired or bits == 2


def test_extreme_weights_saturate_exactly() -> None:
    # All inputs fire and all weights are extreme: within a step, sums rise to up to 2^31 and fall back.
    for value in (-32768, 32767):
        weight = torch.full((5, 3000), value, dtype=torch.int16)
        weight[1, 1500:] = -value - 1
        weight[2] = torch.where(torch.arange(3000) % 2 == 0, 32767, -32768)
        spikes = check(torch.ones(60, 2, 3000), weight)
        assert spikes.any() or value < 0
        _, _, count, _ = integer_model(np.ones((60, 2, 3000)), weight.numpy())
        assert count > 100


def test_sums_beyond_32_bits_are_exact() -> None:
    # 80,000 events of one input in one step, each of weight 32767: the sum is beyond 2^31.
    indices = torch.cat([torch.zeros(80_000), torch.ones(80_000)]).to(torch.int32)
    events = EventBatch(torch.tensor([0, 0, 160_000, 160_000]), indices, shape=(3, 1, 2))
    for other, expected in ((-32768, -30000), (-32767, 0), (-32766, 30000)):
        _, state = integer_src_linear(events, torch.tensor([[32767, other]], dtype=torch.int16), lengths=None)
        leaked = expected - (expected >> 4) - (expected >> 5)
        assert int(state.i) == leaked


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_kernels_equal_the_model_for_any_constants(data: st.DataObject) -> None:
    cell = {name: data.draw(st.integers(low, high)) for low, high, names in RANGES for name in names}
    for name in ("zs_hyp", "zs_dep"):
        cell[name] = data.draw(st.integers(0, min(2 ** cell["fraction_bits"], 32767)))
    cell["slope"] = data.draw(st.integers(0, 2 ** cell["slope_shift"])) if cell["slope_shift"] < 15 else 32767
    seed = data.draw(st.integers(0, 2**32 - 1))
    shape = (data.draw(st.integers(0, 20)), data.draw(st.integers(0, 3)), data.draw(st.integers(0, 30)))
    neurons = data.draw(st.integers(0, 140))
    input = make_input(seed, *shape, data.draw(st.sampled_from([0.0, 0.1, 1.0])))
    weight = make_weight(seed, neurons, shape[2], data.draw(st.sampled_from([1, 8, 512, 32768])))
    check(input, weight, make_state(seed, shape[1], neurons, cell), **cell)


def digests(seed: int, threads: int) -> list[int]:
    """Digests of a layer's spikes, state and gradients, for processes of other instruction sets."""
    torch.set_num_threads(threads)
    input, weight = make_input(seed, 45, 9, 150), make_weight(seed, 150, 150, 300)
    spikes, state = integer_src_linear(input, weight)
    layer, x = IntegerSRC(150, 150, weight_bits=10), input.requires_grad_()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(weight / 100)
    (layer(x)[0] * torch.linspace(-1, 1, 45)[:, None, None]).sum().backward()
    assert x.grad is not None and layer.weight_ih_l0.grad is not None
    grads = [layer.weight_ih_l0.grad.view(torch.int32)]
    weights = torch.arange(1, spikes.numel() + 1, dtype=torch.int64)
    return [int((t.flatten().to(torch.int64) * weights[: t.numel()]).sum()) for t in (spikes, *state, *grads)]


def test_every_instruction_set_and_thread_count_gives_the_same_bits(isa_processes: dict[str, IsaProcess]) -> None:
    expected = isa_processes["scalar"].call("test_integer.digests", 3, 1)
    assert expected[0] > 0
    for isa in ISAS:
        for threads in (1, 2, 3, 7):
            assert isa_processes[isa].call("test_integer.digests", 3, threads) == expected, (isa, threads)


def test_a_sample_alone_and_a_sequence_in_pieces_give_the_same_bits() -> None:
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
        assert torch.equal(torch.cat(pieces), whole) and all(map(torch.equal, after, state))


def test_large_outputs_have_their_shape() -> None:
    """Regression: outputs of 4 MiB and more, which lie in blocks of float32, had four times as many elements."""
    input, weight = make_input(6, 2, 21_001, 3, 0.5), make_weight(6, 101, 3, 2000)
    spikes, state = integer_src_linear(EventBatch.from_dense(input), weight)
    assert spikes.numel() > 4 << 20 or state.h.numel() > 2 << 20
    assert spikes.shape == (2, 21_001, 101) and spikes.is_contiguous()
    assert [x.shape for x in state] == [(21_001, 101)] * 3
    expected, ended, _, _ = integer_model(input[:, -7:].numpy(), weight.numpy())
    assert (spikes[:, -7:].numpy() == expected).all()
    assert all((x[-7:].numpy() == y).all() for x, y in zip(state, ended, strict=True))


def test_a_neuron_comes_to_rest() -> None:
    weight = torch.zeros(1, 1, dtype=torch.int16)
    silent = torch.zeros(60, 1, 1)
    _, state = integer_src_linear(silent, weight)
    assert [int(x) for x in state] == [0, -1024, -800]
    for steps, hs in ((4, -329), (5, -414), (10, -706), (20, -800)):
        _, state = integer_src_linear(silent[:steps], weight)
        assert int(state.hs) == hs


def test_small_currents_never_leak_away() -> None:
    h, hs = (torch.full((1, 80), x, dtype=torch.int16) for x in (-1024, -800))
    state = IntegerState(torch.arange(-40, 40, dtype=torch.int16)[None], h, hs)
    spikes, after = integer_src_linear(torch.zeros(400, 1, 1), torch.zeros(80, 1, dtype=torch.int16), state)
    assert torch.equal(after.i[0, 40:56], torch.arange(16, dtype=torch.int16))  # 0 to 15 stay
    # A negative i ends at 0 or, once it reaches -1, at +1; every i above 0 keeps firing without input.
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
def test_gradients_equal_those_of_the_surrogate(bits: int, lengths: Any) -> None:
    torch.manual_seed(bits)
    layer = IntegerSRC(60, 25, weight_bits=bits)
    input = make_input(bits, 40, 3, 60, 0.2).requires_grad_()
    grad_spikes = torch.randn(40, 3, 25)
    spikes, _ = layer(input, lengths=lengths)
    assert spikes.any()
    (spikes * grad_spikes).sum().backward()
    weight, below = surrogate_gradients(layer, input, grad_spikes, lengths)
    assert layer.weight_ih_l0.grad is not None and input.grad is not None
    assert np.abs(weight).max() > 0.1
    assert np.abs(layer.weight_ih_l0.grad.numpy() - weight).max() <= 2e-5 * np.abs(weight).max()
    assert np.abs(input.grad.numpy() - below).max() <= 2e-5 * np.abs(below).max()
    by_dense = layer.weight_ih_l0.grad.clone()
    layer.zero_grad()
    (layer(EventBatch.from_dense(input.detach()), lengths=lengths)[0] * grad_spikes).sum().backward()
    assert torch.equal(layer.weight_ih_l0.grad, by_dense)


def test_inputs_past_a_samples_length_have_no_influence() -> None:
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
    assert all(map(torch.equal, *results))
    assert not results[0][0][10:, 0].any() and results[0][0][:, 1].any()


def test_the_layer_equals_its_function() -> None:
    layer = IntegerSRC(30, 12, weight_bits=7, initial_state="rest")
    input = make_input(2, 40, 3, 30, 0.4)
    spikes, state = layer(input)
    rest = IntegerState(*(torch.full((3, 12), x, dtype=torch.int16) for x in (0, -1024, -800)))
    expected, ended = integer_src_linear(input, layer.integers(), rest)
    assert spikes.dtype == torch.float32 and torch.equal(spikes.detach().to(torch.uint8), expected)
    assert all(map(torch.equal, state, ended))


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
        layer = IntegerSRC(inputs, 1)
        before = layer.weight_ih_l0.detach().clone()
        layer.constrain_()
        assert torch.equal(layer.weight_ih_l0, before)


def test_clamping_is_counted() -> None:
    layer = IntegerSRC(900, 3, weight_bits=10)
    with torch.no_grad():
        layer.weight_ih_l0.fill_(1.0)
    layer(torch.ones(5, 2, 900))
    assert layer.clamped == 5 * 2 * 3
    layer(torch.ones(1, 2, 900))
    assert layer.clamped == 6 * 2 * 3
    assert "clamped" not in layer.state_dict()
    layer.reset_parameters()
    assert layer.clamped == 0
    made = IntegerSRC(4, 3, device="meta").to_empty(device="cpu")
    made.clamped.fill_(7)
    made.reset_parameters()
    assert made.clamped == 0


def test_a_checkpoint_restores_the_constants() -> None:
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


def test_a_recording_has_the_state_of_every_step() -> None:
    layer = IntegerSRC(20, 6)
    input = make_input(4, 30, 2, 20, 0.5)
    with srcell.record(layer) as recording:
        spikes, state = layer(EventBatch.from_dense(input))
    trace = recording["integersrc"].trace()
    assert trace.h.shape == (30, 2, 6)
    assert torch.equal(recording["integersrc"].spikes, spikes)
    assert torch.equal(trace.h[-1], state.h)
    assert torch.equal(trace.h >= 512, spikes.bool())


def call(**changes: Any) -> Any:
    weight = torch.zeros(3, 5, dtype=torch.int16)
    return integer_src_linear(**{"input": torch.ones(4, 2, 5), "weight": weight, **changes})


def run_cell(**constants: int) -> Any:
    return call(cell=IntegerCell(**constants))


def integers(value: int, *shape: int) -> Tensor:
    return torch.full(shape, value, dtype=torch.int16)


TWICE = EventBatch.from_dense(torch.full((4, 2, 5), 2.0))


@refusals(
    Message("weight: expected dtype int16", lambda: call(weight=torch.zeros(3, 5)), TypeError),
    Message("weight: expected a tensor, got list", lambda: call(weight=[[1]]), TypeError),
    Message(r"input: expected shape \(T, B, 6\)", lambda: call(weight=integers(0, 3, 6))),
    Message("input: expected 0 and 1", lambda: call(input=torch.full((4, 2, 5), 0.5))),
    Message("input: expected an EventBatch without values", lambda: call(input=TWICE)),
    Message("state.i: expected dtype int16", lambda: call(state=[torch.zeros(2, 3)] * 3), TypeError),
    Message("state.i: expected shape", lambda: call(state=[integers(0, 3, 2)] * 3)),
    Message(r"state.h: expected values in \[-1024, 1023\]", lambda: call(state=[integers(1024, 2, 3)] * 3)),
    Message("state: expected three tensors", lambda: call(state=[integers(0, 2, 3)]), TypeError),
    Message(r"lengths: expected values in \[0, 4\], got 5 for sample 1", lambda: call(lengths=[4, 5])),
    Message("clamped: expected a tensor, got int", lambda: call(clamped=0), TypeError),
    Message("clamped: expected dtype int64", lambda: call(clamped=torch.zeros((), dtype=torch.int32)), TypeError),
    Message(
        r"clamped: expected a tensor of one element, .*\(3,\)", lambda: call(clamped=torch.zeros(3, dtype=torch.int64))
    ),
    Message("clamped: expected device cpu", lambda: call(clamped=torch.zeros((), dtype=torch.int64, device="meta"))),
    Message("cell: expected 19 constants, got 3", lambda: call(cell=[1, 2, 3])),
    Message(r"cell.leak_shift_a: expected an int in \[1, 15\], got 16", lambda: run_cell(leak_shift_a=16)),
    Message("cell: expected a sum of the sizes of drive.* of at most 32767", lambda: run_cell(bias=-30000)),
    Message(r"cell: expected zs_hyp and zs_dep of at most 2\^fraction_bits", lambda: run_cell(zs_hyp=1025)),
    Message("cell: expected a slope below 1.5", lambda: run_cell(slope=6)),
    Message("cell: expected h and .*, got 40000", lambda: run_cell(h_min=-20000, hs_max=20000, r=0, rs=0)),
    Message(r"weight_bits: expected an int in \[2, 16\], got 1", lambda: IntegerSRC(4, 3, weight_bits=1)),
    Message("cell: expected an IntegerCell, got tuple", lambda: IntegerSRC(4, 3, cell=(1, 2)), TypeError),  # type: ignore
    Message("cell: expected a slope below", lambda: IntegerSRC(4, 3, cell=IntegerCell(slope=6))),
    Message("rho: expected a finite number above 0", lambda: IntegerSRC(4, 3, rho=0.0)),
    Message("initial_state: expected one of", lambda: IntegerSRC(4, 3, initial_state="none")),
    Message("weight: expected finite values of float32, got nan", lambda: quantise(torch.tensor([torch.nan]), 4)),
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def test_constants_may_be_integers_of_numpy() -> None:
    """Regression: a layer with such a constant was refused, as if its tensors lay elsewhere."""
    x = (torch.arange(200).reshape(20, 2, 5) % 3 > 0).float()
    plain, of_numpy = (IntegerSRC(5, 3, cell=IntegerCell(bias=bias)) for bias in (-5000, np.int64(-5000)))
    of_numpy.load_state_dict(plain.state_dict())
    assert torch.equal(plain(x)[0], of_numpy(x)[0])
