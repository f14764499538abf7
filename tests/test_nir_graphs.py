"""Networks as NIR graphs and back: the same bits, files, graphs of others, refusals."""

from __future__ import annotations

import inspect
import os
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import srcell
from srcell import SRC, Delay, LeakyReadout, LinearReadout, SpikesOnly, SRCConv2d
from support.refusals import Message, Refusal, refusals
from test_export_networks import NETWORKS, PRODUCTS, input_of, made
from test_runtime import exported

pytestmark = pytest.mark.landing

nir: Any = pytest.importorskip("nir", minversion="1.0.8", reason='pip install "srcell[test]"')
h5py: Any = pytest.importorskip("h5py")  # nir needs it

from srcell.nir import from_graph, read_graph, to_graph  # noqa: E402  (needs the packages checked above)

WIDE = ("two delayed layers", "delayed recurrence")  # their delays are interpolated over more than a step
REFUSED = [name for name in (*NETWORKS, *PRODUCTS) if "standardised" in name or "skip" in name]
CONVERTED = [name for name in (*NETWORKS, *PRODUCTS) if name not in (*WIDE, *REFUSED, "integers")]
CELL = {"alpha": 0.9, "rho": 3.0, "r": 2.0, "rs": -7.0, "zs_hyp": 0.9, "zs_dep": 0.0, "bias": -6.0}


def node(*shape: int, dt: float = 0.001, **fields: Any) -> Any:
    arrays = {name: np.full(shape, value, np.float32) for name, value in CELL.items()}
    return srcell.nir.SRCNode(**(arrays | fields), dt=dt)


def weights(*shape: int) -> Any:
    return nir.Linear(np.random.default_rng(0).normal(size=shape).astype(np.float32))


def graph(*nodes: Any, readout: Any = None, more: Any = (), shape: Any = (4,), beside: Any = ()) -> Any:
    """A chain of nodes n0, n1, ... between an input and an output, with more edges, and nodes beside it."""
    names = [f"n{k}" for k in range(len(nodes))]
    ends = nir.Input({"input": np.array(shape)}), nir.Output({"output": nodes[-1].output_type["output"]})
    chain = ["input", *names, "output"]
    edges = [*pairwise(chain), *more]
    metadata = {} if readout is None else {"readout": readout}
    every = dict(zip(chain, (ends[0], *nodes, ends[1]), strict=True)) | dict(beside)
    return nir.NIRGraph(every, edges, metadata, type_check=False)


@pytest.mark.parametrize("name", CONVERTED)
def test_a_network_comes_back_with_the_bits_of_its_spikes(name: str, tmp_path: Path) -> None:
    network, net = made(name)
    nir.write(tmp_path / "net.nir", to_graph(network, dt=0.001))
    again = exported(from_graph(read_graph(tmp_path / "net.nir")))
    x = input_of(name)
    for ours, theirs in zip(again.spikes(x), net.spikes(x), strict=True):
        assert np.array_equal(ours, theirs)
    if net.num_classes:
        assert np.array_equal(again.run(x), net.run(x))


@pytest.mark.parametrize("name", CONVERTED)
def test_a_graph_comes_back(name: str) -> None:
    before = to_graph(made(name)[0], dt=0.001)
    after = to_graph(from_graph(before), dt=0.001)
    assert set(before.nodes) == set(after.nodes) and before.edges == after.edges
    for key, ours in before.nodes.items():
        fields, others = ours.to_dict(), after.nodes[key].to_dict()
        assert fields.keys() == others.keys()
        assert all(np.array_equal(fields[field], others[field]) for field in fields if field != "metadata")


# Another value than the default for each argument of a readout that is no size.
OF_READOUTS: dict[str, Any] = {
    "alpha": 0.5,
    "window": 3,
    "inhibition": -0.5,
    "temperature": 2.0,
    "every_step": True,
    "batch_first": True,
    "skip": 4,
}


@pytest.mark.parametrize("kind", [LinearReadout, LeakyReadout])
def test_each_setting_of_a_readout_comes_back_or_is_refused(kind: type[nn.Module], tmp_path: Path) -> None:
    """Regression: a readout lost its every_step."""
    sizes = (6, 3) if kind is LinearReadout else (3, 2)
    names = list(inspect.signature(kind).parameters)[2:]
    assert "every_step" in names
    for name in names:
        layer = SRC(4, 6, batch_first=name == "batch_first")
        network = nn.Sequential(SpikesOnly(layer), kind(*sizes, **{name: OF_READOUTS[name]}))
        if name == "skip":
            with pytest.raises(ValueError, match="expected no skip connection, which a graph cannot hold, got one"):
                to_graph(network, dt=0.001)
            continue
        nir.write(tmp_path / f"{name}.nir", to_graph(network, dt=0.001))
        *_, again = from_graph(read_graph(tmp_path / f"{name}.nir"))
        assert type(again) is kind and getattr(again, name) == OF_READOUTS[name]


# The same of layers, with what else each argument needs.
OF_CELLS: dict[str, Any] = {
    "alpha": 0.75,
    "omega": 0.5,
    "rho": 2.0,
    "r": 1.5,
    "rs": -6.5,
    "zs_hyp": 0.5,
    "zs_dep": 0.25,
}
OF_LAYERS: dict[str, dict[str, Any]] = {
    **{name: {name: value} for name, value in OF_CELLS.items()},
    "batch_first": {"batch_first": True},
    "learn_bias": {"learn_bias": False},
    "recurrent": {"recurrent": True},
    "recurrent_surrogate": {"recurrent_surrogate": "straight_through"},
    "autapses": {"recurrent": True, "autapses": False},
    "delay_hh": {"recurrent": True, "delay_hh": 2.0},
    "max_delay": {"recurrent": True, "delay_hh": torch.tensor([1.0, 2, 3, 1, 2, 3]), "max_delay": 5},
    "delay_width": {"recurrent": True, "delay_hh": 2.0, "delay_width": 2},
    "learnable": {"alpha": torch.full((6,), 0.75), "rho": 2.0, "learnable": ("alpha", "rho"), "full_gradient": True},
    "surrogate": {"surrogate": "relu"},
    "full_gradient": {"full_gradient": True},
    "initial_state": {"initial_state": "rest"},
    "learn_initial_state": {"learn_initial_state": True, "full_gradient": True},
    "bias_init": {"bias_init": -5.0},
    "bias_max": {"bias_max": -3.0},
    "input_gain": {"input_gain": 2.0},
    "input_size": {"input_size": (5, 6)},
    "method": {"method": "events"},
    "device": {"device": "cpu"},
    "dtype": {"dtype": torch.float64},
    "stride": {"stride": 2},
    "padding": {"padding": (1, 0)},
    "dilation": {"dilation": (1, 2)},
    "groups": {"groups": 2},
    "taps": {"taps": 3},
}


def comes_back(network: nn.Module, path: Path, input_shape: tuple[int, ...] | None = None) -> srcell.Sequential:
    nir.write(path, to_graph(network, dt=0.001, input_shape=input_shape))
    return from_graph(read_graph(path))


def same_layer(again: nn.Module, layer: nn.Module) -> None:
    assert repr(again) == repr(layer)
    ours, theirs = layer.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    learnt = [[name for name, _ in x.named_parameters()] for x in (layer, again)]
    assert learnt[0] == learnt[1]


@pytest.mark.parametrize("kind", [SRC, SRCConv2d, Delay])
def test_each_setting_of_a_layer_comes_back_or_is_refused(kind: Any, tmp_path: Path) -> None:
    """Regression: layers lost their surrogate, full_gradient, bias_max and others."""
    sizes: tuple[int, ...] = {SRC: (4, 6), SRCConv2d: (2, 6, 3), Delay: (4, 7)}[kind]
    names = list(inspect.signature(kind).parameters)[len(sizes) :]
    assert "device" in names
    for name in names:
        if name in ("num_layers", "dropout"):
            continue  # of a stack, which comes back as its layers
        given = {"learnable": False} if kind is Delay and name == "learnable" else OF_LAYERS[name]
        layer = kind(*sizes, **given) if kind is not Delay or name != "delay_width" else kind(*sizes, delay_width=2)
        with torch.no_grad():
            for parameter_name, parameter in layer.named_parameters():
                if parameter_name.startswith(("bias", "i0", "hs0")):
                    parameter += torch.arange(6) / 8
            layer.constrain_()
        if kind is Delay:
            layer.delay.data.floor_()
        network = nn.Sequential(SpikesOnly(layer), *([SpikesOnly(SRC(4 * layer.taps, 2))] if kind is Delay else []))
        shape = (2, 5, 6) if kind is SRCConv2d else None
        if name == "delay_width":
            with pytest.raises(ValueError, match="expected delays with a width of 1"):
                to_graph(network, dt=0.001)
            continue
        again = comes_back(network, tmp_path / "net.nir", shape)
        found = [x for x in again.modules() if type(x) is kind]
        assert len(found) == 1, name
        same_layer(found[0], layer)


def test_a_stack_comes_back_as_its_layers_without_dropout(tmp_path: Path) -> None:
    stack = SRC(4, 6, 2, dropout=0.5, surrogate="relu", bias_max=-3.5).eval()
    again = comes_back(nn.Sequential(SpikesOnly(stack)), tmp_path / "net.nir")
    assert "Dropout is left out" in str(to_graph.__doc__)
    x = torch.rand(20, 3, 4, generator=torch.Generator().manual_seed(0)) * 4
    with torch.no_grad():
        assert torch.equal(again(x), stack(x)[0])
    layers = [x for x in again.modules() if isinstance(x, SRC)]
    assert [x.surrogate for x in layers] == ["relu"] * 2 and [x.bias_max for x in layers] == [-3.5] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("x", "metadata: layers: expected settings of nodes in JSON, got 'x'"),
        ("[]", "metadata: layers: expected settings of nodes in JSON"),
        ('{"src_0": 3}', "metadata: layers: expected settings of nodes in JSON"),
        ('{"src_1": {}}', "metadata: layers: expected names of nodes, got 'src_1'"),
        ('{"src_0": {"forward": 1}}', "metadata: layers: src_0: expected .*, got 'forward'"),
        ('{"src_0": {"surrogate": "none"}}', "src_0: surrogate: expected "),
        ('{"src_0": {"learnable": ["weight"]}}', "src_0: learnable: expected "),
        ('{"src_0": {"each": 3}}', "metadata: layers: src_0: expected names of parameters in each, got 3"),
        ('{"src_0": {"each": ["x"]}}', "metadata: layers: src_0: expected names of parameters in each"),
        ('{"src_0": {"bias_max": -7}}', "metadata: layers: src_0: expected bias_max of at least -6, got -7"),
        (
            '{"src_0": {"batch_first": true}}',
            "metadata: expected batch_first of all layers and the readout, or of none",
        ),
    ],
)
def test_settings_that_no_layer_has_are_refused(settings: str, message: str) -> None:
    written = to_graph(nn.Sequential(SpikesOnly(SRC(4, 6)), LinearReadout(6, 3)), dt=0.001)
    written.metadata["layers"] = settings
    with pytest.raises((TypeError, ValueError), match=message):
        from_graph(written)


def test_a_graph_of_srcell_0_3_has_a_readout_of_the_last_step() -> None:
    written = to_graph(nn.Sequential(SpikesOnly(SRC(4, 6)), LinearReadout(6, 3)), dt=0.001)
    del written.metadata["readout"]["every_step"]
    *_, again = from_graph(written)
    assert isinstance(again, LinearReadout) and again.every_step is False
    written.metadata["readout"]["every_step"] = 2
    with pytest.raises(ValueError, match="metadata: every_step: expected 0 or 1, got 2"):
        from_graph(written)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{"full_gradient": True}, {"recurrent": True, "omega": 0.3}])
def test_learnt_initial_states_and_other_types_are_kept(options: dict[str, Any], dtype: torch.dtype) -> None:
    layer = SRC(4, 6, learn_initial_state=True, initial_state="rest", dtype=dtype, **options)
    with torch.no_grad():
        layer.h0_l0 += 0.1
    network = from_graph(to_graph(nn.Sequential(SpikesOnly(layer), LinearReadout(6, 3).to(dtype)), dt=0.5))
    assert network(torch.rand(5, 2, 4, dtype=dtype)).dtype == dtype
    again = network[0].layer
    spikes = torch.rand(30, 2, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    with torch.no_grad():
        assert torch.equal(again(spikes)[0], layer(spikes)[0]) and layer(spikes)[0].any()
    assert torch.equal(again.h0_l0, layer.h0_l0) and again.weight_ih_l0.dtype == dtype


@pytest.mark.parametrize("maps", [False, True])
def test_biases_above_the_default_bound_come_back(maps: bool) -> None:
    """They are the bound of the layer, so it computes with them, also while it is trained."""
    torch.manual_seed(0)
    layer = SRCConv2d(1, 3, 3, bias_max=0.0) if maps else SRC(16, 3, bias_max=0.0)
    ((name, bias),) = [(name, x) for name, x in layer.named_parameters() if name.startswith("bias")]
    with torch.no_grad():
        bias.copy_(torch.tensor([-3.3, -6.0, -1.7]))
    written = to_graph(layer, dt=0.001, input_shape=(1, 4, 4) if maps else None)
    del written.metadata["layers"]  # as in a graph of others, or of srcell 0.3
    network = from_graph(written)
    found = next(module for module in network.modules() if isinstance(module, type(layer)))
    assert torch.equal(found.get_parameter(name), bias) and found.bias_max == bias.max().item()
    x = 8 * torch.rand(20, 2, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = layer(x.unflatten(2, (1, 4, 4)) if maps else x)[0]
        assert expected.any() and torch.equal(network(x), expected)


def test_a_convolution_in_float64_comes_back() -> None:
    layer = SRCConv2d(1, 2, 3, dtype=torch.float64, alpha=0.5)
    network = from_graph(to_graph(layer, dt=0.001, input_shape=(1, 4, 4)))
    x = torch.rand(20, 2, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(network(x), layer(x.unflatten(2, (1, 4, 4)))[0])


@settings(max_examples=200)
@given(st.lists(st.floats(0, 60, width=32), min_size=6, max_size=6), st.floats(1e-9, 1e3))
def test_fractional_delays_are_kept(delays: list[float], dt: float) -> None:
    before, recurrent = Delay(3, 60, taps=2, learnable=False), torch.tensor(delays)
    before.delay.copy_(recurrent.view(3, 2))
    layer = SRC(6, 6, recurrent=True, delay_hh=recurrent, max_delay=60)
    delay, neurons = from_graph(to_graph(nn.Sequential(SpikesOnly(before), SpikesOnly(layer)), dt=dt))
    assert torch.equal(delay.layer.delay, before.delay) and torch.equal(neurons.layer.delay_hh_l0, recurrent)


def test_the_values_of_the_page_are_those_of_a_graph() -> None:
    """docs/nir.md, "Example", through the package's own kernels."""
    zero, rest = np.zeros(1, np.float32), np.array([-0.9026889], np.float32)
    cell = node(1, alpha=zero, i_0=zero, h_0=rest, hs_0=rest)
    network = from_graph(graph(nir.Linear(np.ones((1, 1), np.float32)), cell, shape=(1,)))
    spikes = network(torch.tensor([100.0, 0, 0]).view(3, 1, 1)).flatten().tolist()
    assert spikes == pytest.approx([0.907548, 0.972363, 0.0], abs=1e-6)


def test_graphs_of_others_become_layers() -> None:
    """A bias before neurons is an ``nn.Linear``; weights at the end are one too."""
    affine = nir.Affine(np.ones((6, 4), np.float32), np.full(6, 0.1, np.float32))
    network = from_graph(graph(affine, node(6), weights(3, 6)))
    assert [type(module) for module in network] == [nn.Linear, SpikesOnly, nn.Linear]
    assert torch.equal(network[1].layer.weight_ih_l0, torch.eye(6))
    assert network(torch.rand(20, 2, 4)).shape == (20, 2, 3)
    plain = nir.Affine(np.ones((6, 4), np.float32), np.zeros(6, np.float32))
    assert [type(module) for module in from_graph(graph(plain, node(6)))] == [SpikesOnly]


def side(name: str, beside: Any, *edges: tuple[str, str]) -> Any:
    """Weights and neurons n1, and one more node with its edges."""
    made = graph(weights(6, 4), node(6))
    made.nodes[name] = beside
    made.edges += edges
    return made


def loop(back: Any) -> Any:
    return side("back", back, ("n1", "back"), ("back", "n1"))


def endless() -> Any:
    made = graph(nir.Flatten({"input": np.array([4])}, 0, -1), weights(6, 4), node(6))
    made.edges = [("input", "n0"), ("n0", "n0"), ("n1", "n2"), ("n2", "output")]
    return made


def kernel(bias: float = 0.0) -> Any:
    return nir.Conv2d((3, 3), np.ones((2, 1, 1, 1), np.float32), 1, 0, 1, 1, np.full(2, bias, np.float32))


def of_maps() -> Any:
    return graph(kernel(), node(2, 3, 3), shape=(1, 3, 3))


def of_channels() -> Any:
    alpha = np.full((2, 3, 3), 0.9, np.float32)
    alpha[0, 1, 1] = 0.8
    return graph(kernel(), node(2, 3, 3, alpha=alpha), shape=(1, 3, 3))


def maps_with_a_loop() -> Any:
    made = of_maps()
    made.nodes["back"] = weights(2, 2)
    made.edges += [("n1", "back"), ("back", "n1")]
    return made


LINEAR = {"kind": "linear", "alpha": 1.0, "window": 5, "bias": np.zeros(3)}
VOTES = {"kind": "votes", "num_classes": 3, "alpha": 1.0, "inhibition": 0.0, "temperature": 1.0}


def refused(message: str, wrong: Any, error: type[Exception] = ValueError) -> Message:
    return Message(message, lambda: from_graph(wrong), error)


LIF = nir.LIF(*(np.ones(6, np.float32) for _ in range(5)))
REFUSALS: list[Refusal] = [
    refused("graph: expected nir.NIRGraph, got SRC", node(3), TypeError),
    refused("graph: expected one input and one output, got 1 and 2",
            side("more", nir.Output({"output": np.array([6])}), ("n1", "more"))),
    refused(r"graph: expected SRC nodes of one dt, got \[\]", graph(weights(6, 4))),
    refused(r"graph: expected SRC nodes of one dt, got \[0.001, 0.1\]",
            graph(weights(6, 4), node(6), weights(5, 6), node(5, dt=0.1))),
    refused("n0: expected a Linear, Affine, Conv2d, Flatten or Delay node before an SRC node, got LIF",
            graph(LIF, node(6), shape=(6,))),
    *(
        refused("graph: expected weights and SRC nodes of float32, or of float64, got",
                graph(nir.Linear(np.ones((6, 4), dtype)), node(6))) for dtype in (int, np.float64, ">f4")
    ),
    *(
        refused(rf"n0: expected weights for an input \(4,\), got \({n}, {k}\)",
                graph(weights(n, k), node(n))) for n, k in ((6, 5), (0, 4))
    ),
    refused(r"n0: expected a bias \(6,\), got \(5,\)",
            graph(nir.Affine(weights(6, 4).weight, np.ones(5, np.float32)), node(6))),
    refused(r"n1: expected neurons of shape \(6,\), as its weights give, got \(5,\)", graph(weights(6, 4), node(5))),
    refused(r"n1: expected neurons of shape \(2, 3, 3\), as its weights give, got \(2, 4, 4\)",
            graph(kernel(), node(2, 4, 4), shape=(1, 3, 3))),
    refused("n0: expected a Conv2d node without bias before SRC, got a bias",
            graph(kernel(bias=1.0), node(2, 3, 3), shape=(1, 3, 3))),
    refused("n0: expected a Conv2d node without bias before SRC, got n1 after it",
            graph(kernel(), weights(6, 18), node(6), shape=(1, 3, 3))),
    refused("n1: expected finite numbers, got bias with others",
            graph(weights(6, 4), node(6, bias=np.full(6, np.nan, np.float32)))),
    refused(r"n1: alpha: expected values in \[0, 1\]", graph(weights(6, 4), node(6, alpha=np.full(6, 2, np.float32)))),
    refused("input: output_type: expected whole numbers of shape .1,. or .3,., got",
            graph(weights(6, 4), node(6), shape=(2, 2))),
    refused("n1: expected one alpha for all neurons of a channel, got several", of_channels()),
    *(
        refused("n1: expected 4 delays from 0 to 65535 steps before it, got",
                graph(nir.Delay(np.full(4, delay)), weights(6, 4), node(6))) for delay in (-0.1, 70.0)
    ),
    refused("alone: expected a chain from input to output, got a node beside it", side("alone", weights(2, 2))),
    refused("input: expected all weights after it to lead to one node, got",
            side("end", weights(6, 4), ("input", "end"))),
    refused("output: expected a Linear, Affine, Conv2d, Flatten or Delay node before an SRC node, got Output",
            side("end", weights(6, 6), ("n1", "end"))),
    refused("n1: expected one Linear node back to it, got", loop(LIF)),
    *(
        refused("back: expected square weights from n1 alone, got others", loop(weights(*shape)))
        for shape in ((6, 5), (5, 5), (1, 1))
    ),
    refused("back: expected square weights from n1 alone, got others", maps_with_a_loop()),
    refused("graph.edges: expected edges between nodes, got one from 'n1' to 'nowhere'",
            graph(weights(6, 4), node(6), more=[("n1", "nowhere")])),
    refused("n0: expected each edge once, got two to 'n1'", graph(weights(6, 4), node(6), more=[("n0", "n1")])),
    refused("n0: expected a chain, got a second path to it", endless()),
    *(
        refused(f"metadata: {message}", graph(weights(6, 4), node(6), *ending, readout=readout))
        for ending, readout, message in (
            ([weights(3, 6)], {"kind": "votes"}, "expected a readout of kind 'linear' here, got 'votes'"),
            ([], {"kind": "linear"}, "expected a readout of kind 'votes' here, got 'linear'"),
            ([], {"kind": np.ones(2)}, "expected a readout of kind 'votes' here, got array"),
            ([], "votes", "expected a readout of kind 'votes' here, got 'str'"),
            ([weights(3, 6)], {"kind": "linear", "alpha": 1.0},
             "expected a readout with alpha, window, bias, got no window"),
            ([weights(3, 6)], LINEAR | {"window": 5.7}, "window: expected a whole number, got 5.7"),
            ([weights(3, 6)], LINEAR | {"window": np.inf}, "window: expected a whole number, got inf"),
            ([weights(3, 6)], LINEAR | {"alpha": 2.0}, "alpha: expected"),
            ([weights(3, 6)], LINEAR | {"bias": np.zeros(4)}, r"expected a bias .3,. of the readout, got .4,."),
            ([], VOTES | {"num_classes": 0}, "expected a number of classes that divides 6 neurons, got 0"),
            ([], VOTES | {"num_classes": -3}, "expected a number of classes that divides 6 neurons, got -3"),
            ([], VOTES | {"num_classes": 4}, "expected a number of classes that divides 6 neurons, got 4"),
        )
    ),
    *(
        refused(f"metadata: {name}: expected {expected}, got",
                graph(weights(6, 4), node(6), weights(3, 6), readout=LINEAR | {name: value}), TypeError)
        for name, value, expected in (
            ("alpha", "1", "a float"), ("alpha", [[1], [2, 3]], "a float"), ("window", None, "a float"),
            ("bias", [0.0] * 3, "an array of numbers"), ("bias", np.array(["a"] * 3), "an array of numbers"),
        )
    ),
    refused("n2: expected a Linear node before a readout, got a bias",
            graph(weights(6, 4), node(6), nir.Affine(weights(3, 6).weight, np.ones(3, np.float32)), readout=LINEAR)),
    *(
        refused(f"{begin}: expected a chain from input to output, got an edge to {to} beside it",
                graph(weights(6, 4), node(6), weights(6, 6), node(6), beside={"back": weights(6, 6)},
                      more=[("n1", "back"), ("back", "n1"), (begin, to)]))
        for begin, to in (("n3", "n0"), ("n3", "n2"), ("back", "n2"))
    ),
    Message("dt: expected a finite number above 0, got 0", lambda: to_graph(SRC(3, 4), dt=0)),
    Message("network.0.layer .IntegerSRC.: expected layers of float neurons", lambda: to_graph(
        made("integers")[0], dt=1.0), TypeError),
    Message("network.0 .Standardise.: expected layers of float neurons, got Standardise", lambda: to_graph(
        made("standardised")[0], dt=1.0), TypeError),
    Message("network .SRC.: expected weights of float32 or float64, got torch.float16", lambda: to_graph(
        SRC(3, 4, dtype=torch.float16), dt=1.0)),
    Message("input_shape: expected .C, H, W., got", lambda: to_graph(SRC(3, 4), dt=1.0, input_shape=(4, 4))),
    *(
        Message(".*expected delays with a width of 1, because NIR has no interpolation, got 2",
                lambda name=name: to_graph(NETWORKS[name](), dt=1.0)) for name in WIDE
    ),
    Message("alpha: expected a floating-point array, got float", lambda: node(3, alpha=0.9), TypeError),
    Message(r"rs: expected shape \(3,\), as alpha has, got \(2,\)", lambda: node(3, rs=np.ones(2))),
    Message("i_0, h_0 and hs_0: expected all three or none, got h_0", lambda: node(3, h_0=np.ones(3))),
    Message("dt: expected a finite number above 0, got -1", lambda: node(3, dt=-1)),
    Message("dt: expected a float, got ndarray", lambda: node(3, dt=np.ones(1)), TypeError),
]  # fmt: skip


@refusals(*REFUSALS)
def test_wrong_arguments_are_named(refusal: Refusal) -> None:
    refusal.check()


DELETED = object()


def chain() -> Any:
    delay, affine = nir.Delay(np.zeros(4)), nir.Affine(weights(6, 4).weight, np.ones(6, np.float32))
    return graph(delay, affine, node(6), weights(3, 6), readout=LINEAR)


CHANGES: list[tuple[Callable[[], Any], str, str, list[Any]]] = [
    (
        chain,
        "input",
        "output_type",
        [DELETED, None, {}, {"input": 4}, {"output": "4"}, {"output": [-4]}, [[4], [4, 4]]],
    ),
    (chain, "n0", "delay", [DELETED, None, [0.0] * 4, np.array(["0"] * 4), np.zeros(4, bool), np.zeros(())]),
    (chain, "n1", "weight", [DELETED, None, torch.ones(6, 4), np.ones((6, 4), "m8[s]"), np.ones(24)]),
    (chain, "n1", "bias", [DELETED, None, [1.0], np.ones((6, 1))]),
    (chain, "n2", "alpha", [DELETED, None, 0.9, np.ones(6, int), np.array(["a"] * 6)]),
    (chain, "n2", "rs", [DELETED, np.ones(6, bool), np.ones(5, np.float32)]),
    (chain, "n2", "omega", ["x", np.ones(6, complex)]),
    (chain, "n2", "dt", [DELETED, None, "1", np.ones(1), True, -1.0, 10**400]),
    (chain, "n3", "weight", [DELETED, np.ones((3, 6), "V4"), np.ones((3, 6, 1), np.float32)]),
    (of_maps, "n0", "weight", [DELETED, None, "x", [1.0], np.array("x"), np.ones((2, 1, 5, 1), np.float32)]),
    (of_maps, "n0", "bias", [DELETED, None, 0.0, np.zeros(2, object)]),
    (of_maps, "n0", "stride", [DELETED, None, "1", "same", 0, 1.5, (1, 1, 1), [[1], [2, 3]], 2**70, 2**40]),
    (of_maps, "n0", "padding", [DELETED, None, "full", -1, np.ones((2, 9, 1), int)]),
    (of_maps, "n0", "dilation", [DELETED, "1", np.zeros(2, int)]),
    (of_maps, "n0", "groups", [DELETED, None, "1", 0, (1, 1)]),
    (of_maps, "n0", "input_shape", [DELETED, None, 3, "33", (3, 0)]),
    (of_maps, "n1", "alpha", [DELETED, np.ones((2, 3, 3), "S1")]),
    (chain, "graph", "nodes", [DELETED, None, [1], {1: weights(6, 4)}, {"n0": "x"}]),
    (chain, "graph", "edges", [DELETED, None, "n0", [1], [("n0",)], [("n0", 1)], [(["n0"], "n1")], np.zeros((2, 2))]),
    (chain, "graph", "metadata", [DELETED, None, "x"]),
]


@pytest.mark.parametrize(
    ("make", "name", "field", "value"), [(*change[:3], value) for change in CHANGES for value in change[3]]
)
def test_a_field_that_was_changed_is_named(make: Callable[[], Any], name: str, field: str, value: Any) -> None:
    made = make()
    assert isinstance(from_graph(made), nn.Sequential)
    changed = made if name == "graph" else made.nodes[name]
    if value is DELETED:
        delattr(changed, field)
    else:
        setattr(changed, field, value)
    place = rf"graph\.{field}" if name == "graph" else f"{name}: {field}"
    with pytest.raises((TypeError, ValueError), match=f"^{place}: expected"):
        from_graph(made)


def test_a_changed_convolution_is_converted_as_it_is() -> None:
    made = of_maps()
    made.nodes["n0"].stride = 2
    with pytest.raises(ValueError, match=r"^n1: expected neurons of shape \(2, 2, 2\), as its weights give"):
        from_graph(made)
    made.nodes["n1"] = node(2, 2, 2)
    assert from_graph(made)(torch.rand(3, 1, 9)).shape == (3, 1, 2, 2, 2)
    made.nodes["n0"].input_shape = (4, 4)
    with pytest.raises(ValueError, match=r"^n0: expected weights for an input \(1, 3, 3\), got .* for \(1, 4, 4\)"):
        from_graph(made)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_files_that_are_not_hdf5_are_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "net.nir").write_bytes(content)
    with pytest.raises(OSError, match=r"net\.nir"):
        read_graph(tmp_path / "net.nir")


def test_folders_and_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(OSError, match=f"^{path}: expected a regular file"):
            read_graph(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("node", None),
        ("node", 3),
        ("node/nodes", None),
        ("node/nodes", 3),
        ("node/edges", None),
        ("node/edges", "n0"),
        ("node/type", "SRC"),
        ("node/nodes/n0", 3),
        ("node/nodes/n0/weight", "text"),
        ("node/nodes/n1/type", "Oscillator"),
        ("node/nodes/n1/alpha", None),
        ("node/nodes/n1/more", 3),
        ("node/nodes/n1/dt", np.ones(1)),
    ],
)
def test_a_wrong_file_is_refused_by_name(place: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.nir"
    nir.write(path, graph(weights(6, 4), node(6)))
    assert len(from_graph(read_graph(path))) == 1
    with h5py.File(path, "r+") as file:
        if place in file:
            del file[place]
        if value is not None:
            file[place] = value
    with pytest.raises(ValueError, match=r"net.nir.*: expected a (NIR graph|node of NIR).*, got"):
        read_graph(path)


def alone(kind: Any) -> Any:
    """An HDF5 type's dataset of 4 elements, as ``weight``."""
    return lambda parent: parent.create_dataset("weight", data=np.zeros(4, kind))


def declared(shape: Any, stored: int = 0, **options: Any) -> Any:
    """An array of a shape of which only the first elements are stored."""

    def write(parent: Any) -> None:
        made = parent.create_dataset("weight", shape, "f4", **options)
        if stored:
            made[:stored] = 1

    return write


def with_a_small_chunk(parent: Any) -> None:
    made = parent.create_dataset("weight", (1024, 1024), "f4", chunks=(1024, 1024), compression="gzip")
    made.id.write_direct_chunk((0, 0), bytes(20))


def with_a_chunk(content: bytes, compression: str | None = None, unfiltered: int = 0) -> Any:
    """An array (3, 4) of float32 whose only chunk has these bytes. HDF5 reads 48 bytes of memory, whatever they are."""

    def write(parent: Any) -> None:
        made = parent.create_dataset("weight", (3, 4), "f4", chunks=(3, 4), compression=compression)
        made.id.write_direct_chunk((0, 0), content, unfiltered)

    return write


def mapped(parent: Any) -> None:
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (3, 4))
    parent.create_virtual_dataset("weight", layout)


def tower(parent: Any) -> None:
    """Groups that each hold the next one twice."""
    group = parent.create_group("end")
    for k in range(60):
        below, group = group, parent.create_group(f"g{k}")
        group["a"] = group["b"] = below


def nested(parent: Any) -> None:
    for _ in range(150):
        parent = parent.create_group("g")


def with_itself(parent: Any) -> None:
    parent["weight"] = parent


def with_twice(parent: Any) -> None:
    parent["weight"] = parent.parent["n1/alpha"]


def filtered(*codes: int) -> Any:
    """An array with these filters."""

    def write(parent: Any) -> None:
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((3, 4))
        for code in codes:
            created.set_filter(code, h5py.h5z.FLAG_OPTIONAL, (4,))
        space = h5py.h5s.create_simple((3, 4))
        made = h5py.h5d.create(parent.id, b"weight", h5py.h5t.NATIVE_FLOAT, space, created)
        h5py.Dataset(made)[...] = np.ones((3, 4))

    return write


DEFLATE, FLETCHER32 = 1, 3  # their codes in HDF5
HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "external storage": (declared((3, 4), external=[("secret", 0, 48)]), "data in this file, got data in another file"),
    "virtual": (mapped, "data in this file, got data in another file"),
    "soft link": (lambda parent: parent.__setitem__("weight", h5py.SoftLink("/node/nodes/n1/alpha")), ".* a soft link"),
    "external link": (
        lambda parent: parent.__setitem__("weight", h5py.ExternalLink("secret.h5", "/x")),
        "an object of this file, got a link to another file",
    ),
    "tower": (tower, "an object with one path"),
    "inside itself": (with_itself, "an object with one path"),
    "shared array": (with_twice, "an object with one path"),
    "nested": (nested, "at most 100 groups inside one another"),
    "nothing stored": (declared((2**20, 2**20)), "the data of an array .* got 0 bytes"),
    "no chunks": (declared((2**20, 2**20), chunks=(2**10, 2**10)), "the 1048576 chunks of an array .* got 0"),
    "few chunks": (declared((2**20, 64), 16, chunks=(16, 64)), "the 65536 chunks of an array .* got 1"),
    "few chunks, compressed": (
        declared((2**20, 64), 16, chunks=(16, 64), compression="gzip"), "the 65536 chunks of an array .* got 1"),
    "small chunks": (declared((64, 64), 64, chunks=(1, 1)), "chunks of at least 1024 bytes, got 4"),
    "huge chunk": (declared((3,), chunks=(2**29,), maxshape=(None,)), "the 1 chunks of an array .* got 0"),
    "chunk of a few bytes": (with_a_small_chunk, r"the data of an array \(1024, 1024\) of float32, got 20 bytes"),
    "long and empty": (declared((2**40, 0), chunks=(1, 1), maxshape=(None, None)), "an array no longer than its file"),
    "no value": (lambda parent: parent.__setitem__("weight", h5py.Empty("f4")), "real numbers or texts, got .* None"),
    "short chunk": (with_a_chunk(bytes(16)), "the data of an array .* got 16 bytes"),
    "short chunk in gzip": (with_a_chunk(zlib.compress(bytes(16)), "gzip"), "chunks of 48 bytes, got one of 16"),
    "short chunk beside gzip": (with_a_chunk(bytes(16), "gzip", 1), "chunks of 48 bytes, got one of 16"),
    "long chunk in gzip": (with_a_chunk(zlib.compress(bytes(49)), "gzip"), "chunks of 48 bytes, got one of more"),
    "compressed twice": (filtered(DEFLATE, DEFLATE), "data that are not compressed, or by gzip once"),
    "checksums": (filtered(DEFLATE, FLETCHER32), "data that are not compressed, or by gzip once"),
    "szip": (lambda parent: parent.create_dataset("weight", data=np.ones((3, 4)), compression="szip"), ".* got .*szip"),
    "lzf": (lambda parent: parent.create_dataset("weight", data=np.ones((3, 4)), compression="lzf"), ".* got .*lzf"),
    "compound": (alone([("a", "f4"), ("b", "i4")]), "real numbers or texts"),
    "complex": (alone(complex), "real numbers or texts"),
    "opaque": (alone("V8"), "real numbers or texts"),
    "arrays in an array": (
        lambda parent: parent.create_dataset("weight", (4,), np.dtype(("f4", (2,)))), "real numbers or texts"),
    "lists": (lambda parent: parent.create_dataset("weight", (4,), h5py.vlen_dtype("f4")), "real numbers or texts"),
    "references": (
        lambda parent: parent.create_dataset("weight", data=[parent.ref], dtype=h5py.ref_dtype), "real numbers or texts"
    ),
    "a type": (lambda parent: parent.__setitem__("weight", np.dtype("f4")), "a group or data, got TypeFloatID"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_refused_by_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links, other files, sizes without data, and types that NIR does not have, in place of a weight."""
    monkeypatch.chdir(tmp_path)
    make, expected = HOSTILE[kind]
    Path("secret").write_bytes(b"secret" * 8)
    with h5py.File("secret.h5", "w") as file:
        file["x"] = np.ones((3, 4), "f4")
    nir.write("net.nir", graph(weights(6, 4), node(6)))
    assert read_graph("net.nir").nodes["n0"].weight.shape == (6, 4)
    with h5py.File("net.nir", "r+") as file:
        parent = file["node/nodes/n0"]
        del parent["weight"]
        make(parent)
    with pytest.raises(ValueError, match=rf"^net\.nir: /node/nodes/n[01]/[\w/]+: expected {expected}"):
        read_graph("net.nir")


def test_a_text_that_many_elements_share_is_not_copied_for_each(tmp_path: Path) -> None:
    path, count = tmp_path / "net.nir", 1000
    nir.write(path, graph(weights(6, 4), node(6)))
    with h5py.File(path, "r+") as file:
        file["node/metadata/texts"] = ["x" * 60_000] + ["y"] * (count - 1)
        offset = file["node/metadata/texts"].id.get_offset()
    content = path.read_bytes()
    first = content[offset : offset + 16]  # refers to the text; so do all others now
    path.write_bytes(content[:offset] + first * count + content[offset + 16 * count :])
    with pytest.raises(ValueError, match=r"net\.nir: /node/metadata/texts: expected no more data than the file has"):
        read_graph(path)


def test_the_length_of_a_text_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "net.nir"
    nir.write(path, graph(weights(6, 4), node(6)))
    with h5py.File(path) as file:
        offset = file["node/type"].id.get_offset()
    content = path.read_bytes()
    path.write_bytes(content[:offset] + b"\x7f" * 4 + content[offset + 4 :])
    with pytest.raises(ValueError, match=r"net\.nir: /node/type: expected no more data than the file has bytes"):
        read_graph(path)


def test_bytes_that_arrays_share_are_refused(tmp_path: Path) -> None:
    path, array = tmp_path / "net.nir", np.ones(10_000)
    nir.write(path, graph(weights(6, 4), node(6)))
    with h5py.File(path, "r+") as file:
        file["node/metadata/stored"] = array
        offset = file["node/metadata/stored"].id.get_offset()
        for k in range(5):
            file["node/metadata"].create_dataset(f"more{k}", array.shape, array.dtype)
    address, no_address, size = (x.to_bytes(8, "little") for x in (offset, 2**64 - 1, array.nbytes))
    content = path.read_bytes()
    assert content.count(no_address + size) == 5
    path.write_bytes(content.replace(no_address + size, address + size))
    with h5py.File(path) as file:
        assert np.array_equal(file["node/metadata/more4"], array)
    with pytest.raises(
        ValueError, match=r"net\.nir: /node/metadata/\w+: expected no more data than the file has bytes"
    ):
        read_graph(path)


def test_arrays_that_nir_would_broadcast_are_refused(tmp_path: Path) -> None:
    wide = np.ones(200_000)
    neurons = nir.CubaLIF(*[wide] * 5, v_reset=wide, w_in=1.0)
    nir.write(tmp_path / "net.nir", graph(neurons, shape=wide.shape))
    assert read_graph(tmp_path / "net.nir").nodes["n0"].w_in.shape == wide.shape
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        del file["node/nodes/n0/w_in"]
        file["node/nodes/n0/w_in"] = wide[:, None]
    with pytest.raises(ValueError, match="n0: expected a node of NIR, got 'CubaLIF': expected arrays of one shape"):
        read_graph(tmp_path / "net.nir")


def test_more_sizes_than_axes_are_refused(tmp_path: Path) -> None:
    nir.write(tmp_path / "net.nir", of_maps())
    with h5py.File(tmp_path / "net.nir", "r+") as file:
        del file["node/nodes/n0/input_shape"]
        file["node/nodes/n0"].create_dataset("input_shape", data=np.ones(10**6, "u1"), compression="gzip")
    with pytest.raises(ValueError, match=r"n0: expected a node of NIR, got 'Conv2d': input_shape: expected at most 32"):
        read_graph(tmp_path / "net.nir")


@pytest.mark.parametrize("compression", ["gzip", 9, None])
def test_compressed_files_are_read(compression: Any, tmp_path: Path) -> None:
    """Zeros too, which compress as far as gzip can, and arrays of several chunks, some of them over the edge."""
    random = np.random.default_rng(0).normal(size=(300, 2000)).astype(np.float32)
    written = graph(nir.Linear(random), nir.Linear(np.zeros((2000, 300), np.float32)), shape=(2000,))
    nir.write(tmp_path / "net.nir", written, compression=compression)
    read = read_graph(tmp_path / "net.nir")
    for name in ("n0", "n1"):
        assert np.array_equal(read.nodes[name].weight, written.nodes[name].weight)


def test_types_of_convolutions_are_right_in_a_file(tmp_path: Path) -> None:
    """With groups and kernels that are not square."""
    layer = SRCConv2d(4, 6, (3, 1), groups=2, padding=(0, 1))
    written = to_graph(layer, dt=0.001, input_shape=(4, 6, 4))
    nir.write(tmp_path / "net.nir", written)
    read = read_graph(tmp_path / "net.nir")
    assert read.check_types() and read.nodes["conv2d_0"].output_type["output"].tolist() == [6, 4, 6]


def test_nested_sequences_and_readouts_are_written() -> None:
    maps = nn.Sequential(nn.Unflatten(2, (1, 4, 4)), SpikesOnly(SRCConv2d(1, 2, 3)), nn.Flatten(2))
    network = nn.Sequential(maps, SpikesOnly(SRC(8, 6, 2)), LeakyReadout(3, 2))
    written = to_graph(network, dt=0.001)
    assert sorted(written.nodes) == [
        "conv2d_0", "flatten_0", "input", "linear_0", "linear_1", "output", "src_0", "src_1", "src_2"
    ]  # fmt: skip
    assert written.metadata["readout"]["num_classes"] == 3
    linear = to_graph(nn.Sequential(SpikesOnly(SRC(4, 6)), LinearReadout(6, 3, window=5)), dt=0.001)
    assert linear.metadata["readout"]["window"] == 5 and linear.nodes["readout"].weight.shape == (3, 6)
