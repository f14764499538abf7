"""Networks as NIR graphs and back: the same bits, files, graphs of others, refusals."""

from __future__ import annotations

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

from srcell.nir import from_graph, read_graph, to_graph  # noqa: E402  (needs the packages checked above)

WIDE = ("two delayed layers", "delayed recurrence")  # their delays are interpolated over more than a step
CONVERTED = [name for name in (*NETWORKS, *PRODUCTS) if name not in (*WIDE, "integers")]
CELL = {"alpha": 0.9, "rho": 3.0, "r": 2.0, "rs": -7.0, "zs_hyp": 0.9, "zs_dep": 0.0, "bias": -6.0}


def node(*shape: int, dt: float = 0.001, **fields: Any) -> Any:
    arrays = {name: np.full(shape, value, np.float32) for name, value in CELL.items()}
    return srcell.nir.SRC(**(arrays | fields), dt=dt)


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{"recurrent_grad": True}, {"lateral": True, "omega": 0.3}])
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
    layer = SRC(6, 6, lateral=True, delay_hh=recurrent, max_delay=60)
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


def of_channels() -> Any:
    alpha = np.full((2, 3, 3), 0.9, np.float32)
    alpha[0, 1, 1] = 0.8
    return graph(kernel(), node(2, 3, 3, alpha=alpha), shape=(1, 3, 3))


LINEAR = {"kind": "linear", "alpha": 1.0, "window": 5, "bias": np.zeros(3)}
VOTES = {"kind": "votes", "num_classes": 3, "alpha": 1.0, "inhibition": 0.0, "temperature": 1.0}


def called(function: Callable[..., Any], *arguments: Any, **options: Any) -> Callable[[], Any]:
    return lambda: function(*arguments, **options)


LIF = nir.LIF(*(np.ones(6, np.float32) for _ in range(5)))
REFUSALS: list[Refusal] = [
    Message("graph: expected nir.NIRGraph, got SRC", called(from_graph, node(3)), TypeError),
    Message("graph: expected one input and one output, got 1 and 2", lambda: from_graph(
        side("more", nir.Output({"output": np.array([6])}), ("n1", "more")))),
    Message(r"graph: expected SRC nodes of one dt, got \[\]", lambda: from_graph(graph(weights(6, 4)))),
    Message(r"graph: expected SRC nodes of one dt, got \[0.001, 0.1\]", lambda: from_graph(
        graph(weights(6, 4), node(6), weights(5, 6), node(5, dt=0.1)))),
    Message("n0: expected a Linear, Affine, Conv2d, Flatten or Delay node before an SRC node, got LIF",
            lambda: from_graph(graph(LIF, node(6), shape=(6,)))),
    *(
        Message("graph: expected weights and SRC nodes of float32, or of float64, got", called(
            from_graph, graph(nir.Linear(np.ones((6, 4), dtype)), node(6)))) for dtype in (int, np.float64, ">f4")
    ),
    *(
        Message(rf"n0: expected weights for an input \(4,\), got \({n}, {k}\)", called(
            from_graph, graph(weights(n, k), node(n)))) for n, k in ((6, 5), (0, 4))
    ),
    Message(r"n0: expected a bias \(6,\), got \(5,\)", lambda: from_graph(
        graph(nir.Affine(weights(6, 4).weight, np.ones(5, np.float32)), node(6)))),
    Message(r"n1: expected neurons of shape \(6,\), as its weights give, got \(5,\)",
            lambda: from_graph(graph(weights(6, 4), node(5)))),
    Message(r"n1: expected neurons of shape \(2, 3, 3\), as its weights give, got \(2, 4, 4\)", lambda: from_graph(
        graph(kernel(), node(2, 4, 4), shape=(1, 3, 3)))),
    Message("n0: expected a Conv2d node without bias before SRC, got a bias", lambda: from_graph(
        graph(kernel(bias=1.0), node(2, 3, 3), shape=(1, 3, 3)))),
    Message("n0: expected a Conv2d node without bias before SRC, got n1 after it", lambda: from_graph(
        graph(kernel(), weights(6, 18), node(6), shape=(1, 3, 3)))),
    Message("n1: expected finite numbers, got bias with others", lambda: from_graph(
        graph(weights(6, 4), node(6, bias=np.full(6, np.nan, np.float32))))),
    Message(r"n1: alpha: expected values in \[0, 1\]", lambda: from_graph(
        graph(weights(6, 4), node(6, alpha=np.full(6, 2, np.float32))))),
    Message("input: expected a shape .K,. or .C, H, W., got", lambda: from_graph(
        graph(weights(6, 4), node(6), shape=(2, 2)))),
    Message("n1: expected one alpha for all neurons of a channel, got several", lambda: from_graph(of_channels())),
    Message("n1: expected 4 delays from 0 to 65535 steps before it, got", lambda: from_graph(
        graph(nir.Delay(np.full(4, -0.1)), weights(6, 4), node(6)))),
    Message("n1: expected 4 delays from 0 to 65535 steps before it, got", lambda: from_graph(
        graph(nir.Delay(np.full(4, 70.0)), weights(6, 4), node(6)))),
    Message("alone: expected a chain from input to output, got a node beside it",
            lambda: from_graph(side("alone", weights(2, 2)))),
    Message("input: expected all weights after it to lead to one node, got", lambda: from_graph(
        side("end", weights(6, 4), ("input", "end")))),
    Message("output: expected a Linear, Affine, Conv2d, Flatten or Delay node before an SRC node, got Output",
            lambda: from_graph(side("end", weights(6, 6), ("n1", "end")))),
    Message("n1: expected one Linear node back to it, got", lambda: from_graph(loop(LIF))),
    Message("back: expected square weights from n1 alone, got others", lambda: from_graph(loop(weights(6, 5)))),
    Message("Edge .'n1', 'nowhere'. references destination node 'nowhere'", lambda: from_graph(
        graph(weights(6, 4), node(6), more=[("n1", "nowhere")]))),
    Message("n0: expected a chain, got a second path to it", lambda: from_graph(endless())),
    *(
        Message(f"metadata: expected {message}", called(from_graph, graph(
            weights(6, 4), node(6), *ending, readout=readout))) for ending, readout, message in (
            ([weights(3, 6)], {"kind": "votes"}, "a readout of kind 'linear' here, got 'votes'"),
            ([], {"kind": "linear"}, "a readout of kind 'votes' here, got 'linear'"),
            ([], "votes", "a readout of kind 'votes' here, got 'str'"),
            ([weights(3, 6)], {"kind": "linear", "alpha": 1.0}, "a readout with alpha, window, bias, got no window"),
            ([weights(3, 6)], LINEAR | {"window": 5.7}, "a whole number as window, got 5.7"),
            ([weights(3, 6)], LINEAR | {"alpha": "1"}, "a number as alpha, got 1"),
            ([weights(3, 6)], LINEAR | {"bias": np.zeros(4)}, r"a bias .3,. of the readout, got .4,."),
            ([], VOTES | {"num_classes": 0}, "a number of classes that divides 6 neurons, got 0"),
            ([], VOTES | {"num_classes": 4}, "a number of classes that divides 6 neurons, got 4"),
        )
    ),
    Message("n2: expected a Linear node before a readout, got a bias", lambda: from_graph(graph(
        weights(6, 4), node(6), nir.Affine(weights(3, 6).weight, np.ones(3, np.float32)), readout=LINEAR))),
    *(
        Message(f"{begin}: expected a chain from input to output, got an edge to {to} beside it", called(
            from_graph, graph(weights(6, 4), node(6), weights(6, 6), node(6), more=[
                ("n1", "back"), ("back", "n1"), (begin, to)], beside={"back": weights(6, 6)})))
        for begin, to in (("n3", "n0"), ("n3", "n2"), ("back", "n2"))
    ),
    Message("dt: expected a finite number above 0, got 0", lambda: to_graph(SRC(3, 4), dt=0)),
    Message("network.0.layer .IntegerSRC.: expected layers of float neurons", lambda: to_graph(
        made("integers")[0], dt=1.0), TypeError),
    Message("network .SRC.: expected weights of float32 or float64, got torch.float16", lambda: to_graph(
        SRC(3, 4, dtype=torch.float16), dt=1.0)),
    Message("input_shape: expected .C, H, W., got", lambda: to_graph(SRC(3, 4), dt=1.0, input_shape=(4, 4))),
    *(
        Message(r".*expected delays with a width of 1, because NIR has no interpolation, got 2",
                called(to_graph, NETWORKS[name](), dt=1.0)) for name in WIDE
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


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_files_that_are_not_hdf5_are_refused(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "net.nir").write_bytes(content)
    with pytest.raises(OSError):
        read_graph(tmp_path / "net.nir")


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
    h5py = pytest.importorskip("h5py")
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


def test_a_group_inside_itself_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "net.nir", "w") as file:
        group = file.create_group("node")
        group["node"] = group
    with pytest.raises(ValueError, match="groups that contain themselves"):
        read_graph(tmp_path / "net.nir")


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
