"""``delay`` and ``Delay``: outputs and all gradients equal the reference, in the order of departures, with the same
bits for every instruction set and number of threads; a sequence equals its pieces.
"""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import srcell
from srcell import SRC, Delay, EventBatch, SpikesOnly, delay
from srcell.reference import delay_reference
from support.inputs import make_linear_inputs, noise, with_values
from support.processes import ISAS, IsaProcess
from support.refusals import Message, Refusal, refusals

STEPS, BATCH, INPUTS, MOST = 18, 3, 5, 7
LENGTHS = [18, 0, 11]


def delays(seed: int, taps: int | None, *, whole: bool, dtype: torch.dtype = torch.float64) -> Tensor:
    """Delays in [0, 7], the first and the last at the bounds."""
    made = 3.5 * (1 + noise(seed, INPUTS, taps or 1, dtype=torch.float64))
    made = made.floor() if whole else made
    made[0, 0], made[-1, -1] = 0, MOST
    return (made if taps else made[:, 0]).to(dtype).clone()


def dense_input(seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    x = noise(seed, STEPS, BATCH, INPUTS, dtype=dtype) * (noise(seed + 1, STEPS, BATCH, INPUTS) > 0)
    return x * (torch.arange(STEPS)[:, None] < torch.tensor(LENGTHS))[:, :, None]


def unsorted_events(seed: int, dtype: torch.dtype = torch.float64) -> EventBatch:
    """Rows in any order, some with repetitions; no lengths."""
    return make_linear_inputs(seed, STEPS, BATCH, 4, inputs=INPUTS, dtype=dtype)[0]


def close(a: Tensor | None, b: Tensor | None) -> bool:
    assert a is not None and b is not None
    return bool((a - b).abs().max() < 1e-11)


WHOLE = pytest.mark.parametrize("whole", [False, True], ids=["fractional", "whole"])
WIDTHS = pytest.mark.parametrize("width", [1, 3])


@WHOLE
@WIDTHS
@pytest.mark.parametrize("taps", [None, 1, 3])
def test_a_dense_input_and_its_gradients_equal_the_reference(taps: int | None, width: int, whole: bool) -> None:
    x, d = dense_input(1).requires_grad_(), delays(2, taps, whole=whole).requires_grad_()
    found = delay(x, d, max_delay=MOST, delay_width=width, lengths=LENGTHS)
    expected = delay_reference(x, d, delay_width=width, lengths=LENGTHS)
    grad = noise(3, *expected.shape)
    assert isinstance(found, Tensor) and found.shape == expected.shape and close(found, expected)
    got, wanted = (torch.autograd.grad(y, (x, d), grad) for y in (found, expected))
    assert all(map(close, got, wanted)) and all(g.any() for g in wanted)
    fixed = delay(x, d.detach(), max_delay=MOST, delay_width=width, lengths=LENGTHS)
    assert isinstance(fixed, Tensor) and close(fixed, expected)
    assert close(torch.autograd.grad(fixed, x, grad)[0], wanted[0])


@WHOLE
@WIDTHS
@pytest.mark.parametrize("taps", [None, 2])
@pytest.mark.parametrize("kind", ["unsorted", "ones", "lengths"])
def test_events_and_their_gradients_equal_the_reference(kind: str, taps: int | None, width: int, whole: bool) -> None:
    events, lengths = unsorted_events(5), None
    if kind == "lengths":
        lengths = torch.tensor(LENGTHS)
        events = EventBatch.from_dense(dense_input(6), lengths)
    values = None if kind == "ones" else events.values.detach().requires_grad_()  # type: ignore[union-attr]
    events, d = EventBatch(events.offsets, events.indices, values, shape=events.shape, lengths=lengths), None
    d = delays(7, taps, whole=whole).requires_grad_()
    x = events.to_dense(torch.float64).detach().requires_grad_()
    found = delay(events, d, max_delay=MOST, delay_width=width)
    expected = delay_reference(x, d, delay_width=width, lengths=LENGTHS if kind == "lengths" else None)
    assert isinstance(found, EventBatch) and found.values is not None
    assert found.shape == expected.shape and close(found.to_dense(torch.float64), expected)
    grad = noise(8, *expected.shape)
    (of_d,) = torch.autograd.grad(found.to_dense(torch.float64), d, grad, retain_graph=True)
    of_x, expected_of_d = torch.autograd.grad(expected, (x, d), grad)
    assert close(of_d, expected_of_d) and expected_of_d.any()
    if values is not None:  # each event's gradient is that of its element
        (of_values,) = torch.autograd.grad(found.to_dense(torch.float64), values, grad)
        rows = torch.arange(STEPS * BATCH).repeat_interleave(events.offsets.diff())
        assert close(of_values, of_x[rows % STEPS, rows // STEPS, events.indices.long()])
    EventBatch(found.offsets, found.indices, found.values, shape=found.shape, lengths=found.lengths)  # is valid
    fixed = delay(events, d.detach(), max_delay=MOST, delay_width=width)
    assert isinstance(fixed, EventBatch) and close(fixed.to_dense(torch.float64), expected)


def by_hand(events: EventBatch, d: Tensor) -> list[list[int]]:
    """The indices that arrive in each row, for whole delays (K, M) and samples of all steps."""
    steps, batch, _ = events.shape
    rows: list[list[int]] = [[] for _ in range(steps * batch)]
    offsets, indices, later = events.offsets.tolist(), events.indices.tolist(), d.long().tolist()
    for row in range(steps * batch):
        for k in indices[offsets[row] : offsets[row + 1]]:
            for j, at in enumerate(later[k]):
                if row % steps + at < steps:
                    rows[row + at].append(k * len(later[k]) + j)
    return rows


@pytest.mark.parametrize("taps", [1, 3])
def test_arrivals_are_in_the_order_of_their_departures(taps: int) -> None:
    events, d = with_values(unsorted_events(9), None), delays(10, taps, whole=True)
    found = delay(events, d, max_delay=MOST)
    assert isinstance(found, EventBatch) and found.values is None
    rows = [found.indices[a:b].tolist() for a, b in zip(found.offsets, found.offsets[1:], strict=False)]
    assert rows == by_hand(events, d) and any(len(row) > 2 for row in rows)


@pytest.mark.parametrize("values", [False, True])
def test_a_delay_of_zero_keeps_the_batch(values: bool) -> None:
    events = unsorted_events(11, torch.float32)
    events = events if values else with_values(events, None)
    assert delay(events, 0.0, max_delay=3) == events
    x = dense_input(12)
    assert torch.equal(delay(x, 0.0, max_delay=0), x)  # type: ignore[arg-type]


def test_whole_delays_keep_the_values_and_fractions_share_them() -> None:
    events = EventBatch(torch.tensor([0, 1, 1, 1]), torch.tensor([0], dtype=torch.int32), shape=(3, 1, 1))
    for d, expected in ((1.0, [(1, None)]), (0.25, [(0, 0.75), (1, 0.25)]), (1.75, [(1, 0.25), (2, 0.75)])):
        found = delay(events, d, max_delay=2)
        assert isinstance(found, EventBatch)
        steps = torch.arange(3).repeat_interleave(found.offsets.diff()).tolist()
        values = [None] * len(steps) if found.values is None else found.values.tolist()
        assert list(zip(steps, values, strict=True)) == expected
    learnt = delay(events, torch.tensor([1.0], requires_grad=True), max_delay=2)
    assert isinstance(learnt, EventBatch) and learnt.values is not None and learnt.values.tolist() == [1.0, 0.0]


def test_events_and_dense_inputs_share_bits_where_delays_are_whole() -> None:
    x, d = dense_input(13, torch.float32), delays(14, 2, whole=True, dtype=torch.float32)
    events, dense = delay(EventBatch.from_dense(x), d, max_delay=MOST), delay(x, d, max_delay=MOST)
    assert isinstance(events, EventBatch) and torch.equal(events.to_dense(), dense)  # type: ignore[arg-type]


def digests(threads: int) -> list[str]:
    """Hashes of outputs and gradients of fixed inputs."""
    torch.set_num_threads(threads)
    made = []
    for seed, dtype in ((20, torch.float32), (21, torch.float64)):
        for width, whole in ((1, False), (1, True), (4, False)):
            d = delays(seed, 2, whole=whole, dtype=dtype).requires_grad_()
            events = unsorted_events(seed, dtype)
            values = events.values.detach().requires_grad_()  # type: ignore[union-attr]
            found = delay(with_values(events, values), d, max_delay=MOST, delay_width=width)
            assert isinstance(found, EventBatch) and found.values is not None
            x = dense_input(seed, dtype).requires_grad_()
            dense = delay(x, d, max_delay=MOST, delay_width=width)
            outputs = [found.offsets, found.indices, found.values, dense]
            floats = [y for y in outputs if isinstance(y, Tensor) and y.is_floating_point()]
            grad_outputs = [noise(k, *y.shape, dtype=dtype) for k, y in enumerate(floats)]
            grads = torch.autograd.grad(floats, (values, d, x), grad_outputs)
            arrays = [y.detach().contiguous().numpy() for y in (*outputs, *grads)]  # type: ignore[union-attr]
            made += [hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]
    return made


@pytest.mark.parametrize("isa", ISAS)
def test_bits_are_the_same_for_every_isa_and_thread_count(isa: str, isa_processes: dict[str, IsaProcess]) -> None:
    expected = digests(1)
    assert len(set(expected)) > len(expected) / 2
    for threads in (1, 3):
        assert isa_processes[isa].call("test_delay.digests", threads) == expected


def pieces(x: Any, cuts: list[int]) -> list[Any]:
    """A dense input or a batch of samples of all steps, cut in time."""
    if isinstance(x, Tensor):
        return list(x.split(cuts))
    return [EventBatch.from_dense(part) for part in x.to_dense(torch.float64).split(cuts)]


def dense_of(state: Tensor | EventBatch | None) -> Tensor:
    """A delay's state as a tensor (B, S, K)."""
    assert state is not None
    return state.to_dense(torch.float64).transpose(0, 1) if isinstance(state, EventBatch) else state


@WIDTHS
@pytest.mark.parametrize("taps", [1, 2])
@pytest.mark.parametrize("cuts", [[1] * 18, [3, 1, 9, 0, 5], [2, 16], [18]])
@pytest.mark.parametrize("kind", ["dense", "ones", "graded"])
def test_a_stream_equals_the_sequence(kind: str, cuts: list[int], taps: int, width: int) -> None:
    torch.manual_seed(0)
    layer = Delay(INPUTS, MOST, taps=taps, delay_width=width, learnable=False, dtype=torch.float64)
    x: Any = noise(30, STEPS, BATCH, INPUTS) * (noise(31, STEPS, BATCH, INPUTS) > 0)
    if kind != "dense":
        x = EventBatch.from_dense(x if kind == "graded" else (x != 0).double())
    expected, last = layer(x)
    state, found = None, []
    for part in pieces(x, cuts):
        made, state = layer(part, state)
        found.append(made)
    assert isinstance(state, EventBatch) == (kind != "dense")
    assert dense_of(state).shape == (BATCH, MOST + width, INPUTS) and torch.equal(dense_of(state), dense_of(last))
    if isinstance(x, Tensor):
        assert torch.equal(torch.cat(found), expected)
        return
    assert torch.equal(torch.cat([part.to_dense(torch.float64) for part in found]), expected.to_dense(torch.float64))
    for sample in range(BATCH):
        assert torch.cat([part[sample].indices for part in found]).tolist() == expected[sample].indices.tolist()


def test_a_state_follows_each_samples_length_and_passes_gradients_on() -> None:
    torch.manual_seed(0)
    layer, lengths = Delay(INPUTS, 4, dtype=torch.float64), torch.tensor([6, 0, 3])
    x = noise(32, 10, BATCH, INPUTS).requires_grad_()
    _, state = layer(x[:6], None, lengths)
    for sample, length in enumerate(lengths.tolist()):
        alone = layer(x[:length, sample : sample + 1])[1]
        assert torch.equal(state[sample], alone[0])
    more, _ = layer(x[6:], state)
    for sample, length in enumerate(lengths.tolist()):
        whole = torch.cat([x[:length, sample : sample + 1], x[6:, sample : sample + 1]])
        assert torch.equal(layer(whole)[0][length:], more[:, sample : sample + 1])
    (grad,) = torch.autograd.grad(more.sum(), x)
    assert grad[:6, 0].any() and grad[:3, 2].any() and not grad[:, 1][:6].any()


def test_the_module_has_the_outputs_of_the_function_and_constrains_its_delays() -> None:
    torch.manual_seed(0)
    layer = Delay(INPUTS, MOST, taps=2)
    assert layer.delay.shape == (INPUTS, 2) and 0 <= layer.delay.min() < layer.delay.max() <= MOST
    x = dense_input(33, torch.float32)
    with torch.no_grad():
        layer.delay[0, 0], layer.delay[1, 1] = -3.0, 11.0
    assert torch.equal(layer(x)[0], delay(x, layer.delay.clamp(0, MOST), max_delay=MOST))  # type: ignore[arg-type]
    layer.constrain_()
    assert layer.delay[0, 0] == 0 and layer.delay[1, 1] == MOST
    again = copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x)[0], layer(x)[0])
    assert repr(layer) == "Delay(5, max_delay=7, taps=2)"
    assert [name for name, _ in Delay(3, 2, learnable=False).named_buffers()] == ["delay"]


def test_the_taps_of_an_input_cover_the_range() -> None:
    torch.manual_seed(0)
    drawn = srcell.Delay(4000, 64, taps=8).delay.detach()
    low = 8.0 * torch.arange(8)
    assert (low <= drawn).all() and (drawn <= low + 8).all()
    five_sigma = 5 * 8 / math.sqrt(12 * 4000)
    assert ((drawn.mean(0) - (low + 4)).abs() < five_sigma).all()


def test_delays_in_a_sequential_network_train() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(SpikesOnly(Delay(6, 9)), SpikesOnly(SRC(6, 8)), srcell.LeakyReadout(4, 2))
    events = EventBatch.from_dense((torch.rand(40, 3, 6) < 0.3).float())
    for x in (events, events.to_dense()):
        net.zero_grad()
        net(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.any() for p in net.parameters())


def test_a_delay_is_learnt() -> None:
    """From a wide interpolation to a narrow one: the delay that makes two spikes arrive together."""
    x = torch.zeros(30, 1, 2)
    x[3, 0, 0] = x[15, 0, 1] = 1.0
    layer = Delay(2, 20)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([[5.0], [0.0]]))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.3)
    for width in (8, 4, 2, 1):
        layer.delay_width = width
        for _ in range(60):
            a, b = layer(x)[0][:, 0].unbind(1)
            loss = (a.cumsum(0) - b.cumsum(0)).square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            layer.constrain_()
    first, second = layer.delay.detach().flatten().tolist()
    assert abs(first + 3 - (second + 15)) < 0.5


@pytest.mark.parametrize("shape", [(0, 3, 5), (6, 0, 5), (6, 3, 0)])
def test_empty_sizes(shape: tuple[int, int, int]) -> None:
    x, layer = torch.ones(shape), Delay(shape[2], 3)
    made, state = layer(x)
    assert made.shape == shape and dense_of(state).shape == (shape[1], 4, shape[2])
    events, same = layer(EventBatch.from_dense(x))
    assert events.shape == shape and torch.equal(dense_of(same).to(state.dtype), state)
    made.sum().backward()


def test_whole_numbers_bools_and_half_precision() -> None:
    x = dense_input(34, torch.float32) > 0
    expected = delay(x.float(), 1.5, max_delay=2)
    assert isinstance(expected, Tensor)
    for kind in (torch.bool, torch.int64, torch.uint8):
        assert torch.equal(delay(x.to(kind), 1.5, max_delay=2), expected)  # type: ignore[arg-type]
    half = delay(x.half(), 1.5, max_delay=2)
    assert isinstance(half, Tensor) and half.dtype == torch.float16 and torch.equal(half.float(), expected)


X, EVENTS = torch.zeros(4, 2, 3), EventBatch.from_dense(torch.ones(4, 2, 3))
ONE = torch.ones(1, dtype=torch.int32)


def lost_delay() -> Delay:
    layer = Delay(3, 2)
    with torch.no_grad():
        layer.delay[1] = torch.nan
    return layer


@refusals(
    Message(
        r"delay: expected values in \[0, max_delay\] = \[0, 2\], got 2.5 to 2.5", lambda: delay(X, 2.5, max_delay=2)
    ),
    Message(
        r"delay: expected values in .*, got nan", lambda: delay(X, torch.tensor([0.0, 1.0, torch.nan]), max_delay=2)
    ),
    Message(
        r"delay: expected values in .*, got -1 to 2", lambda: delay(EVENTS, torch.tensor([0.0, -1, 2]), max_delay=2)
    ),
    Message(r"delay: expected shape \(3,\) or \(3, M\), got \(2,\)", lambda: delay(X, torch.ones(2), max_delay=2)),
    Message(  # at once: nothing is made of an expanded tensor
        r"delay: expected at most 2\^31 delayed inputs, got K \* M = 3458764513820540928",
        lambda: delay(X, torch.ones(()).expand(3, 2**60), max_delay=2),
    ),
    Message("delay: expected a floating-point dtype", lambda: delay(X, torch.ones(3).long(), max_delay=2), TypeError),
    Message("delay: expected a float or a tensor, got str", lambda: delay(X, "2", max_delay=2), TypeError),  # type: ignore[arg-type]
    Message(r"max_delay: expected an int in \[0, 65535\], got 65536", lambda: delay(X, 1.0, max_delay=65536)),
    Message("max_delay: expected an int, got float", lambda: delay(X, 1.0, max_delay=2.0), TypeError),  # type: ignore[arg-type]
    Message(r"delay_width: expected an int in \[1, 65535\], got 0", lambda: delay(X, 1.0, max_delay=2, delay_width=0)),
    Message("lengths: expected None beside an EventBatch", lambda: delay(EVENTS, 1.0, max_delay=2, lengths=[4, 4])),
    Message("input: expected a tensor or an EventBatch, got list", lambda: delay([1.0], 1.0, max_delay=2), TypeError),  # type: ignore[arg-type]
    Message(r"input: expected shape \(T, B, ...\), got \(4, 2\)", lambda: delay(X[:, :, 0], 1.0, max_delay=2)),
    Message(r"input: expected shape \(T, B, 5\), got \(4, 2, 3\)", lambda: Delay(5, 2)(X)),
    Message(r"state: expected shape \(2, 3, 3\), got \(2, 2, 3\)", lambda: Delay(3, 2)(X, torch.zeros(2, 2, 3))),
    Message("state: expected dtype float32 or float64", lambda: Delay(3, 2)(X, torch.zeros(2, 3, 3).half()), TypeError),
    Message("state: expected a dense tensor", lambda: Delay(3, 2)(X, torch.zeros(2, 3, 3).to_sparse())),
    Message(r"lengths: expected values in \[0, 4\], got \[9, 1\]", lambda: Delay(3, 2)(X, None, [9, 1])),
    Message(r"lengths: expected values in .*\[-1, 1\]", lambda: Delay(3, 2)(X, torch.zeros(2, 3, 3), [-1, 1])),
    Message(
        "input: expected bools, integers, or float16 to float64", lambda: delay(X + 0j, 1.0, max_delay=2), TypeError
    ),
    Message("input: expected events that hold values", lambda: delay(EVENTS.to("meta"), 1.0, max_delay=2)),
    Message(r"delay: expected values in .* got 2.00000001 to", lambda: delay(X, 2.00000001, max_delay=2)),
    Message("delay: expected a finite value", lambda: delay(X, 10**400, max_delay=2)),
    Message(r"delay: expected shape \(0,\) or \(0, M\)", lambda: delay(X[:, :, :0], torch.ones(0, 0), max_delay=2)),
    Message("delay: expected values in .* got nan", lambda: lost_delay()(X)),
    Message("delay_width: expected an int in", lambda: setattr(Delay(3, 2), "delay_width", 0)),
    Message("delay_width: expected an int, got float", lambda: setattr(Delay(3, 2), "delay_width", 1.5), TypeError),
    Message("return_state: expected a bool", lambda: Delay(3, 2)(X, return_state=0), TypeError),
    Message("graded: expected True", lambda: raw_events(ONE, torch.ones(1, 1), graded=False)),
    Message("steps, batch: expected at least 0", lambda: raw_events(ONE, None, steps=0, batch=-1)),
    Message("taps: expected an int in", lambda: Delay(3, 2, taps=0)),
    Message("learnable: expected a bool, got int", lambda: Delay(3, 2, learnable=1), TypeError),  # type: ignore[arg-type]
)
def test_invalid_arguments_raise_an_error_that_names_the_argument(refusal: Refusal) -> None:
    refusal.check()


def test_a_number_is_a_delay_in_the_dtype_of_the_input() -> None:
    made = delay(torch.ones(3, 1, 1, dtype=torch.float64), 0.1, max_delay=1)
    assert isinstance(made, Tensor) and made[0].item() == 1 - 0.1


def test_a_delay_in_half_precision_computes_in_single() -> None:
    torch.manual_seed(0)
    layer, x = Delay(INPUTS, MOST, dtype=torch.float16), dense_input(36, torch.float32)
    same = copy.deepcopy(layer).float()
    made, state = layer(x)
    assert torch.equal(made, same(x)[0])
    more, _ = layer(x.half(), state)
    assert more.dtype == torch.float16
    events = EventBatch.from_dense((x > 0).float())
    with torch.no_grad():
        layer.delay.round_()
    _, state = layer(events)
    assert layer(events, state)[0].shape == events.shape


def test_a_call_without_a_state_makes_none_and_runs_the_hooks_of_the_module() -> None:
    layer, x, seen = Delay(INPUTS, MOST), dense_input(37, torch.float32), []
    layer.register_forward_hook(lambda module, args, output: seen.append(output[1]))
    assert torch.equal(SpikesOnly(layer)(x), layer(x)[0])
    assert seen[0] is None and seen[1] is not None


def test_a_state_holds_no_memory_but_its_own() -> None:
    _, state = Delay(INPUTS, 2)(torch.ones(1000, 1, INPUTS))
    assert state.untyped_storage().nbytes() == state.nbytes


def test_a_dense_stream_has_the_signs_of_zeros_of_the_sequence() -> None:
    x, layer = torch.tensor([-1e-45, 0.0])[:, None, None], Delay(1, 1, learnable=False)
    layer.delay.fill_(0.5)
    first, state = layer(x[:1])
    streamed = torch.cat([first, layer(x[1:], state)[0]])
    assert layer(x)[0].signbit().tolist() == streamed.signbit().tolist()


@pytest.mark.parametrize("changed", [-(2**40), -5, 2**40])
def test_offsets_altered_before_the_gradient_touch_no_other_memory(changed: int) -> None:
    events = EventBatch.from_dense(torch.ones(4, 2, 3))
    d = torch.tensor([0.0, 1, 2], requires_grad=True)
    made = delay(events, d, max_delay=2)
    assert isinstance(made, EventBatch) and made.values is not None
    made.offsets.numpy()[2:] = changed  # as another thread might, unseen by torch
    made.values.sum().backward()
    assert d.grad is not None and (d.grad.abs() < 100).all()


def raw_events(first: Tensor, factors: Tensor | None, **sizes: Any) -> tuple[Tensor, Tensor, Tensor]:
    """One sample of one step with one event, of input 0."""
    rows = torch.tensor([0, 1]), torch.tensor([0], dtype=torch.int32), None
    sizes = {"steps": 1, "batch": 1, "graded": True, "skip": 0, "taps": 1, "keep_zeros": False} | sizes
    made: tuple[Tensor, Tensor, Tensor] = torch.ops.srcell.delay_events(*rows, first, factors, None, **sizes)
    return made


@pytest.mark.parametrize("taps", [1, 2])
def test_an_event_of_no_input_arrives_nowhere(taps: int) -> None:
    for terms in (1, 2):
        values, offsets, _ = raw_events(torch.zeros(0, dtype=torch.int32), torch.zeros(0, terms), taps=taps)
        assert not len(values) and not offsets.any()


@pytest.mark.parametrize("first", [-1, -(2**31), 2**31 - 1])
def test_tables_that_no_delay_gives(first: int) -> None:
    """Of two terms of which one would arrive before it leaves, the other arrives."""
    values, _, indices = raw_events(torch.tensor([first], dtype=torch.int32), torch.tensor([[0.25, 0.75]]))
    assert values.tolist() == ([0.75] if first == -1 else []) and len(indices) == len(values)


def test_events_altered_after_validation_touch_no_other_memory() -> None:
    events = EventBatch.from_dense(torch.ones(4, 2, 3))
    events.indices[5], events.indices[7], events.offsets[3], events.offsets[6] = -7, 2**30, -1, 2**40
    for d in (1.0, 0.5, torch.tensor([0.0, 1, 2], requires_grad=True)):
        made = delay(events, d, max_delay=2)
        assert isinstance(made, EventBatch) and (made.indices >= 0).all() and (made.indices < 3).all()
