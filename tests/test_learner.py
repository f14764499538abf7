"""``srcell.runtime.Learner``: gradients as of float64, steps as of torch's Adam, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import Tensor, nn

import srcell
from srcell import SRC, Delay, EventBatch, LeakyReadout, LinearReadout, runtime
from support.networks import exported
from support.processes import ISAS, IsaProcess, run_python

CLASSES, INPUTS, STEPS, BATCH = 4, 12, 24, 6


def small(alpha: float, **options: Any) -> LinearReadout:
    return LinearReadout(20, CLASSES, alpha=alpha, **options)


def delays(inputs: int, taps: int) -> Delay:
    made = Delay(inputs, max_delay=8, taps=taps, learnable=False)
    with torch.no_grad():
        made.delay.copy_(torch.linspace(0, 8, inputs * taps).view_as(made.delay))
    return made


def standardise() -> srcell.Standardise:
    return srcell.Standardise(torch.linspace(-0.2, 0.2, INPUTS), torch.linspace(0.5, 2, INPUTS))


NETWORKS: dict[str, Callable[[], list[nn.Module]]] = {
    "one layer": lambda: [SRC(INPUTS, 20), LeakyReadout(CLASSES, 5, alpha=0.9, temperature=2.0)],
    "relu": lambda: [SRC(INPUTS, 20, surrogate="relu"), small(0.9)],
    "two layers": lambda: [SRC(INPUTS, 150), SRC(150, 20), small(0.97)],
    "two layers, relu": lambda: [SRC(INPUTS, 150, surrogate="relu"), SRC(150, 20), small(0.97)],
    "three in one": lambda: [SRC(INPUTS, 20, num_layers=3), small(1.0)],
    "a window": lambda: [SRC(INPUTS, 20), small(0.9, window=5)],
    "recurrent": lambda: [SRC(INPUTS, 150, recurrent=True), SRC(150, 20, recurrent=True), small(0.9)],
    "no autapses": lambda: [
        SRC(INPUTS, 20, recurrent=True, autapses=False, recurrent_surrogate="straight_through"),
        small(0.9),
    ],
    "recurrent delays": lambda: [
        SRC(INPUTS, 20, recurrent=True, delay_hh=torch.linspace(0, 6, 20), max_delay=6),
        small(0.9),
    ],
    "resonance": lambda: [SRC(INPUTS, 20, omega=srcell.spread_frequencies(0.1, 1), recurrent=True), small(0.9)],
    "delays": lambda: [delays(INPUTS, 2), SRC(2 * INPUTS, 20), small(0.9)],
    "delays between": lambda: [SRC(INPUTS, 9), delays(9, 3), SRC(27, 20), small(0.9)],
    "constant currents": lambda: [nn.Linear(INPUTS, 9), SRC(9, 20), small(0.9)],
    "spread parameters": lambda: [
        SRC(INPUTS, 20, alpha=srcell.spread(0.5, 0.99), bias_init=-4.5, initial_state="rest"),
        small(0.9),
    ],
    "a fixed bias": lambda: [SRC(INPUTS, 20, learn_bias=False), small(0.9)],
    "standardised": lambda: [standardise(), SRC(INPUTS, 20, input_gain=1.0), small(0.9)],
}


def network(name: str, seed: int = 0) -> srcell.Sequential:
    torch.manual_seed(seed)
    return srcell.Sequential(*NETWORKS[name]())


def batch(seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[EventBatch, Tensor]:
    """Events with values and lengths, and labels."""
    generator = torch.Generator().manual_seed(seed)
    dense = torch.rand(STEPS, BATCH, INPUTS, generator=generator, dtype=torch.float32)
    dense = torch.where(dense < 0.3, dense * 5, 0)
    lengths = torch.tensor([STEPS, 1, STEPS - 1, 17, STEPS, 9])
    labels = torch.randint(CLASSES, (BATCH,), generator=generator)
    return EventBatch.from_dense(dense.to(dtype), lengths), labels


def wanted_of(kind: str, labels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    if kind == "labels at every step":
        return torch.randint(CLASSES, (BATCH, STEPS), generator=generator)
    if kind == "values":
        return torch.randn(BATCH, CLASSES, generator=generator).to(dtype)
    if kind == "values at every step":
        return torch.randn(BATCH, STEPS, CLASSES, generator=generator).to(dtype)
    return labels


KINDS = ("labels", "labels at every step", "values", "values at every step")


def loss_of(model: srcell.Sequential, events: EventBatch, targets: Tensor, kind: str) -> Tensor:
    readout = model[-1]
    readout.every_step = "every step" in kind
    dense = isinstance(model[0], nn.Linear | srcell.Standardise)
    logits = model(events.to_dense(model[-1].linear.weight.dtype), events.lengths) if dense else model(events)
    readout.every_step = False
    if "every step" in kind:
        within = torch.arange(STEPS) < events.lengths[:, None]
        logits, targets = logits.transpose(0, 1)[within], targets[within]
    of_labels = nn.functional.cross_entropy
    return of_labels(logits, targets) if "labels" in kind else nn.functional.mse_loss(logits, targets)


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """The learnt tensors by the names that they have in the file."""
    named: dict[str, Tensor] = {}
    layer = 0
    for module in model:
        if isinstance(module, SRC):
            for suffix in module._suffixes:
                for name, parameter in (("weight", "weight_ih"), ("lateral", "weight_hh"), ("bias", "bias")):
                    tensor = getattr(module, parameter + suffix, None)
                    if isinstance(tensor, nn.Parameter):
                        named[f"layers.{layer}.{name}"] = tensor
                layer += 1
        elif isinstance(module, LinearReadout):
            named |= {"readout.weight": module.linear.weight, "readout.bias": module.linear.bias}
    return named


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_float64(name: str, kind: str) -> None:
    model = network(name)
    events, labels = batch()
    found_loss, found = exported(model).learner().gradients(events, wanted_of(kind, labels).numpy())
    loss_of(model, events, wanted_of(kind, labels), kind).backward()
    of_torch = {part: tensor.grad.double().numpy() for part, tensor in tensors_of(model).items()}
    model.zero_grad()
    model.double()
    loss = loss_of(model, batch(dtype=torch.float64)[0], wanted_of(kind, labels, torch.float64), kind)
    loss.backward()
    assert found_loss == pytest.approx(loss.item(), rel=2e-5)
    assert set(of_torch) == set(found)
    for part, tensor in tensors_of(model).items():
        wanted, made = tensor.grad.numpy(), found[part]
        if part == "layers.0.weight" and isinstance(model[0], nn.Linear):  # the file has a product with its weight
            wanted, made = model[0].weight.grad.numpy(), model[1].weight_ih_l0.detach().numpy().T @ made
            of_torch[part] = wanted
        largest = np.abs(wanted).max()
        own = np.abs(of_torch[part] - wanted).max()  # float32 takes another path from the first rounding on
        assert np.abs(made - of_torch[part]).max() <= 1e-5 * largest, part
        assert np.abs(made - wanted).max() <= own + 1e-5 * largest, part


# Those of which torch trains nothing but what a learner does: no linear map in front, no state at rest with its bias.
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("constant currents", "spread parameters")])
def test_twenty_steps_are_those_of_torch(name: str) -> None:
    model = network(name)
    learner = exported(model).learner(learning_rate=3e-3)
    before = {part: tensor.detach().clone() for part, tensor in tensors_of(model).items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for k in range(20):
        events, labels = batch(k)
        loss = loss_of(model, events, labels, "labels")
        assert learner.step(events, labels.numpy()) == pytest.approx(loss.item(), rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    for module in model:
        if isinstance(module, SRC):
            module.constrain_()
    after = stored(learner.network())
    for part, tensor in tensors_of(model).items():
        change = (tensor.detach() - before[part]).norm()
        away = torch.from_numpy(after[part]) - tensor.detach()
        assert away.norm() <= 1e-4 * change, part


def stored(network: runtime.Network) -> dict[str, Any]:
    """The tensors of a network's file."""
    with tempfile.TemporaryDirectory() as folder:
        network.save(f"{folder}/net.srcell")
        return load_file(f"{folder}/net.srcell")


def steps(learner: runtime.Learner, count: int, threads: int = 1, first: int = 0) -> list[float]:
    """Learn from batches with other labels each."""
    losses = []
    for k in range(first, first + count):
        events, labels = batch(k)
        losses.append(learner.step(events, labels.numpy(), threads=threads))
    return losses


def learnt_bytes(threads: int) -> dict[str, str]:
    """A hash of each network after five steps."""
    made = {}
    for name in ("two layers", "recurrent", "recurrent delays", "resonance", "delays between", "standardised"):
        learner = exported(network(name)).learner()
        steps(learner, 5, threads)
        made[name] = hashlib.sha256(learner.save()).hexdigest()
    return made


def test_any_number_of_threads_gives_the_same_bits() -> None:
    assert learnt_bytes(1) == learnt_bytes(3)


@pytest.mark.parametrize("isa", ISAS)
def test_every_isa_gives_the_same_bits(isa: str, isa_processes: dict[str, IsaProcess]) -> None:
    assert isa_processes[isa].call("test_learner.learnt_bytes", 2) == learnt_bytes(1)


@pytest.mark.parametrize("name", ["recurrent", "one layer"])
def test_a_restored_learner_goes_on_with_the_same_bits(name: str) -> None:
    net = exported(network(name))
    learner = net.learner()
    steps(learner, 3)
    state = learner.save()
    losses = steps(learner, 3, first=3)
    other = net.learner()
    other.restore(state)
    assert steps(other, 3, first=3) == losses
    assert other.save() == learner.save()


LONG = [0, 2, 3, 4]  # the samples that are long enough for spikes of the last layer


def answers(net: runtime.Network, events: EventBatch) -> list[int]:
    return net.run(events)[LONG].argmax(1).tolist()


def test_learning_lowers_the_loss_and_leaves_the_network_as_it_is() -> None:
    net = exported(network("recurrent"))
    before = stored(net)
    events, labels = batch()
    learner = net.learner(learning_rate=1e-2)
    losses = [learner.step(events, labels.numpy()) for _ in range(100)]
    assert losses[-1] < losses[0] / 2
    assert all(np.array_equal(tensor, before[name]) for name, tensor in stored(net).items())
    better = learner.network()
    assert answers(better, events) == labels[LONG].tolist()
    once = better.run(events)
    learner.step(events, labels.numpy())
    assert np.array_equal(better.run(events), once)
    assert exported(network("recurrent")).learner().network()._network.file  # without a step: a network too


def test_the_readout_alone_learns_also_behind_integers_and_maps() -> None:
    events, labels = batch()
    net = exported(network("two layers"))
    learner = net.learner(layers="readout")
    steps(learner, 2)
    before, after = stored(net), stored(learner.network())
    assert {name for name in after if not np.array_equal(after[name], before[name])} == {
        "readout.weight",
        "readout.bias",
    }
    ones = EventBatch.from_dense((events.to_dense() > 0).float(), events.lengths)
    maps = srcell.Sequential(
        nn.Unflatten(2, (3, 2, 2)), srcell.SRCConv2d(3, 5, 2, padding=1), nn.Flatten(2), small_of(45)
    )
    for model in (srcell.Sequential(srcell.IntegerSRC(INPUTS, 20), small(0.9)), maps):
        other = exported(model)
        with pytest.raises(ValueError, match=r"^layers: expected .readout., because the neurons of layer 0"):
            other.learner()
        learner = other.learner(layers="readout", learning_rate=1e-2)
        losses = [learner.step(ones, labels.numpy()) for _ in range(30)]
        assert losses[-1] < losses[0]


def small_of(neurons: int) -> LinearReadout:
    return LinearReadout(neurons, CLASSES, alpha=0.9)


def test_other_classes_take_the_place_of_the_networks() -> None:
    net = exported(network("recurrent"))
    events, _ = batch()
    words = ["yes", 'a "quoted" one', "n\u00f6", "line\nbreak\x1f", "more"]
    learner = net.learner(learning_rate=1e-2, classes=words)
    labels = np.array([0, 1, 2, 3, 4, 0])
    first = learner.step(events, labels)
    assert first == pytest.approx(np.log(5), rel=1e-12)
    for _ in range(100):
        learner.step(events, labels)
    better = learner.network()
    assert better.classes == words
    assert better.num_classes == 5
    assert answers(better, events) == labels[LONG].tolist()
    assert net.classes is None


@pytest.mark.parametrize("bound", [-5.9, -0.1 - 0.2, float(np.float32(0.1)), -1e-30, 1e22, float("inf")])
def test_any_bound_of_the_biases_comes_back_from_the_file(bound: float) -> None:
    model = srcell.Sequential(SRC(INPUTS, 20, bias_max=bound), small(0.9))
    with torch.no_grad():
        model[-1].linear.weight.fill_(1)
    net = exported(model)
    assert json.loads(net._network.texts["layers.0.learning"]) == {"bias_max": bound}
    learner = net.learner(learning_rate=0.3)
    for _ in range(20):
        learner.step(batch()[0], np.full((BATCH, CLASSES), 1000.0))
    assert -5.95 < stored(learner.network())["layers.0.bias"].max() <= np.float32(bound)


@pytest.mark.parametrize("bound", [-4.0, -6.5, float("inf")])
def test_biases_keep_their_bounds_and_a_diagonal_of_zero_stays(bound: float) -> None:
    model = network("no autapses")
    model[0].bias_max = bound
    with torch.no_grad():
        model[0].bias_l0.fill_(-6.5)
        model[0].bias_l0[3] = -3.5  # acts as the bound
        model[-1].linear.weight.fill_(1)  # so that more spikes are nearer to the targets
    learner = exported(model).learner(learning_rate=0.3)
    for _ in range(20):
        learner.step(batch()[0], np.full((BATCH, CLASSES), 1000.0))
    after = stored(learner.network())
    if bound == float("inf"):
        assert after["layers.0.bias"].min() > -4
    else:
        assert after["layers.0.bias"].max() == bound
    assert not after["layers.0.lateral"].diagonal().any()


def test_a_bias_above_its_bound_may_fall() -> None:
    model = network("no autapses")
    with torch.no_grad():
        model[0].bias_l0[3] = -3.5
        model[-1].linear.weight.fill_(1)
    learner = exported(model).learner(learning_rate=0.3)
    for target in [1000.0] * 20 + [-1000.0] * 40:  # the first ones raise it above the bound
        learner.step(batch()[0], np.full((BATCH, CLASSES), target))
    assert stored(learner.network())["layers.0.bias"][3] < model[0].bias_max - 0.1


def test_a_bias_above_the_default_bound_keeps_its_value() -> None:
    model = srcell.Sequential(SRC(INPUTS, 20, bias_max=-3.0), small(0.9))
    with torch.no_grad():
        model[0].bias_l0[:2] = -3.5
        model[-1].linear.weight.fill_(1)
    content = bytes(exported(model)._network.file)
    plain = content.replace(b'{\\"bias_max\\": -3.0}', b'{\\"bias_max\\": -4.0}')
    assert plain != content
    learner = runtime.Network(plain).learner(learning_rate=0.3)
    for _ in range(20):
        learner.step(batch()[0], np.full((BATCH, CLASSES), 1000.0))
    bias = stored(learner.network())["layers.0.bias"]
    assert bias[:2].tolist() == [-3.5, -3.5]
    assert bias[2:].max() == -4


Refusal = tuple[str, Callable[[runtime.Network, EventBatch, Any], Any]]
REFUSED: dict[str, Refusal] = {
    "label": ("targets: expected labels in", lambda n, e, y: n.learner().step(e, y + CLASSES)),
    "negative label": ("targets: expected labels in", lambda n, e, y: n.learner().step(e, y - CLASSES)),
    "shape": ("targets: expected labels of shape", lambda n, e, y: n.learner().step(e, y[:2])),
    "values": ("targets: expected values of shape", lambda n, e, y: n.learner().step(e, y.astype(np.float32))),
    "NaN": ("targets: expected finite", lambda n, e, y: n.learner().step(e, np.full((BATCH, CLASSES), np.nan))),
    "inputs": ("events: expected 12 inputs", lambda n, e, y: n.learner().step(np.zeros((5, BATCH, 3)), y)),
    "NaN input": ("values: expected no NaN", lambda n, e, y: n.learner().step(np.full((5, BATCH, 12), np.nan), y)),
    "no sample": ("batch: expected at least 1", lambda n, e, y: n.learner().step(np.zeros((5, 0, 12)), y[:0])),
    "no step": ("steps: expected at least 1", lambda n, e, y: n.learner().step(np.zeros((0, BATCH, 12)), y)),
    "threads": ("threads: expected at least 1", lambda n, e, y: n.learner().step(e, y, threads=0)),
    "rate": ("learning_rate: expected a number in .0, 1000.", lambda n, e, y: n.learner(0)),
    "infinite rate": ("learning_rate: expected a number in .0, 1000., got inf", lambda n, e, y: n.learner(np.inf)),
    "clip": ("clip_norm: expected a finite number >= 0, got -1", lambda n, e, y: n.learner(clip_norm=-1)),
    "layers": ("layers: expected 'all' or 'readout'", lambda n, e, y: n.learner(layers="none")),
    "same names": ("classes: expected names that differ", lambda n, e, y: n.learner(classes=["a", "a"])),
    "a half character": ("classes: expected text in Unicode", lambda n, e, y: n.learner(classes=["\ud800", "b"])),
    "quoted names": ("classes: expected names of at most", lambda n, e, y: n.learner(classes=["\n" * 80_000, "b"])),
    "long names": ("classes: expected names of at most", lambda n, e, y: n.learner(classes=["a" * 600_000])),
    "huge targets": (
        "(loss|gradient): expected",
        lambda n, e, y: n.learner().step(e, np.full((BATCH, CLASSES), 3e38, np.float32)),
    ),
    "state": ("state: expected .* bytes", lambda n, e, y: n.learner().restore(b"nothing")),
    "state of another": (
        "state: expected .* bytes",
        lambda n, e, y: n.learner().restore(exported(network("recurrent", 1)).learner().save()),
    ),
    "state of other layers": (
        "state: expected .* bytes",
        lambda n, e, y: n.learner(layers="readout").restore(n.learner().save()),
    ),
    "damaged state": (
        "state: expected the bytes that were saved, got altered ones",
        lambda n, e, y: n.learner().restore(n.learner().save()[:-4] + np.float32(np.nan).tobytes()),
    ),
}


@pytest.mark.parametrize("refusal", REFUSED)
def test_bad_arguments_raise_an_error_that_names_them(refusal: str) -> None:
    message, call = REFUSED[refusal]
    events, labels = batch()
    with pytest.raises(ValueError, match=f"^{message}"):
        call(exported(network("recurrent")), events, labels.numpy())


@pytest.mark.parametrize(
    ("message", "call"),
    [
        ("classes: expected a sequence of strings", lambda n: n.learner(classes="words")),
        ("learning_rate: expected a number", lambda n: n.learner("fast")),
        ("learning_rate: expected a number", lambda n: n.learner("0.01")),
        ("state: expected bytes", lambda n: n.learner().restore("text")),
    ],
)
def test_arguments_of_a_wrong_type_raise(message: str, call: Callable[[runtime.Network], Any]) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        call(exported(network("recurrent")))


def test_votes_have_no_weights_that_could_learn_alone() -> None:
    net = exported(network("one layer"))
    with pytest.raises(ValueError, match=r"^layers: expected .all. for a readout that counts votes"):
        net.learner(layers="readout")
    with pytest.raises(ValueError, match=r"^classes: expected a network with a linear readout"):
        net.learner(classes=["a", "b"])
    with pytest.raises(ValueError, match=r"^network: expected one with a readout"):
        exported(SRC(INPUTS, 20)).learner()


def test_labels_past_a_length_do_not_count() -> None:
    events, labels = batch()
    within = wanted_of("labels at every step", labels).numpy()
    past = np.arange(STEPS) >= events.lengths.numpy()[:, None]
    assert past.any()
    first, second = (exported(network("recurrent")).learner() for _ in range(2))
    assert first.step(events, within) == second.step(events, np.where(past, -1, within))
    assert first.save() == second.save()


def test_a_failed_step_changes_nothing() -> None:
    learner = exported(network("recurrent")).learner(clip_norm=0)
    events, labels = batch()
    learner.step(events, labels.numpy())
    before = learner.save()
    for name, targets in {
        "targets": labels.numpy() + CLASSES,
        "gradient": np.full((BATCH, CLASSES), 3e38, np.float32),
    }.items():
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            learner.step(events, targets)
        assert learner.save() == before
    model = network("recurrent")
    with torch.no_grad():
        model[-1].linear.weight.fill_(3e38)
    with pytest.raises(ValueError, match=r"^loss: expected a finite number"):
        exported(model).learner().step(events, labels.numpy())


def test_a_saved_network_is_read_and_replaced_whole(tmp_path: Path) -> None:
    learner = exported(network("recurrent")).learner()
    steps(learner, 2)
    path = tmp_path / "mine.srcell"
    learner.network().save(path)
    first = path.read_bytes()
    events, _ = batch()
    assert np.array_equal(runtime.load(path).run(events), learner.network().run(events))
    steps(learner, 1)
    learner.network().save(path)
    assert path.read_bytes() != first
    assert [file.name for file in tmp_path.iterdir()] == ["mine.srcell"]
    with pytest.raises(OSError, match="folder"):
        learner.network().save(tmp_path)


def test_scratch_is_allocated_once() -> None:
    learner = exported(network("recurrent")).learner()
    events, labels = batch()
    learner.step(events, labels.numpy())
    held = learner._learner.scratch_bytes
    for size in (6, 3, 1):
        learner.step(events[:size], labels[:size].numpy())
    assert learner._learner.scratch_bytes == held


REFUSED_MEMORY = """
import resource, sys
import numpy as np
from srcell import runtime

net = runtime.load(sys.argv[1])
learner, alone = net.learner(), net.learner()
small, large = np.zeros((5, 2, 12), bool), np.zeros((200_000, 4, 12), bool)
for each in (small, large):
    each[::3] = True
labels = [0, 1]
learner.step(small, labels, threads=1)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (300 << 20),) * 2)
before = learner.save()
try:
    learner.step(large, [0, 1, 2, 3], threads=1)
except MemoryError:
    assert learner.save() == before
    alone.step(small, labels, threads=1)
    assert learner.step(small, labels, threads=1) == alone.step(small, labels, threads=1)
    assert learner.save() == alone.save()
    print("refused")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_memory_that_is_refused_loses_nothing(tmp_path: Path) -> None:
    exported(network("recurrent")).save(tmp_path / "net.srcell")
    done = run_python("-c", REFUSED_MEMORY, str(tmp_path / "net.srcell"), processes=1)
    assert done.stdout == "refused\n", done.stderr
