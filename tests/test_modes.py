"""Promise 6 of CONTRIBUTING.md, torch's modes: under default devices, fake tensors, functional transforms,
checkpointing and saved-tensor hooks a call gives the eager result or raises a Python error, and reads no invalid
memory. Compilation is tested in test_compile.py.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.autograd.graph import save_on_cpu, saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from srcell import SRC, delay, src, src_linear
from support.calls import CALLS, ENCODERS, NEW_TORCH, Call, spikes, with_gradients
from support.inputs import make_currents, make_lateral, make_linear_inputs, noise, with_values
from support.modes import MODES, runs_in


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_in_a_mode_gives_the_eager_result(name: str, mode: str) -> None:
    """Regression: scratch was allocated on the default device; on the device meta it has no memory: a crash."""
    assert runs_in(MODES[mode], CALLS[name]) == (mode != "fake tensors" or name not in ENCODERS)


@pytest.mark.skipif(not NEW_TORCH, reason="torch 2.4 has no vmap of operators of lists")
@pytest.mark.parametrize(
    "options",
    [{"learnable": ["alpha"]}, {"recurrent": True, "delay_hh": 2.25, "max_delay": 9, "learnable": ["delay_hh"]}],
    ids=["alpha", "delays"],
)
def test_vmap_trains_several_models_as_each_alone(options: Any) -> None:
    models = [SRC(6, 4, **options) for _ in range(3)]
    parameters, _ = torch.func.stack_module_state(models)
    x = spikes()
    made = torch.func.vmap(lambda p: torch.func.functional_call(models[0], p, (x,))[0])(parameters)
    made.sum().backward()
    for k, model in enumerate(models):
        expected = model(x)[0]
        expected.sum().backward()
        assert torch.equal(made[k], expected)
        for name, parameter in model.named_parameters():
            assert torch.equal(parameters[name].grad[k], parameter.grad), name


EVENTS, SYNAPSE = make_linear_inputs(4, 20, 3, 5, inputs=6)
WEIGHT = SYNAPSE["weight"]
DIFFERENTIABLE: dict[str, Call] = {
    "src": (
        lambda c, b: src(c, b, alpha=torch.tensor(0.9).double()),
        [make_currents(1, 20, 3, 5), SYNAPSE["bias"]],
    ),
    "events": (lambda v, w: src_linear(with_values(EVENTS, v), w, -6.0), [SYNAPSE["values"], WEIGHT]),
    "delayed recurrent weights": (
        lambda c, v, d: src(c, -6.0, weight_hh=v, delay_hh=d, max_delay=9),
        [make_currents(1, 20, 3, 5), make_lateral(1, 5), 4.5 + 4 * noise(6, 5)],
    ),
    "delay": (
        lambda x, d: delay(x, d, max_delay=9, delay_width=2),
        [EVENTS.to_dense(torch.float64), 4.5 + 4 * noise(6, 6)],
    ),
    "delay of events": (
        lambda v, d: delay(with_values(EVENTS, v), d, max_delay=9).to_dense(torch.float64),
        [SYNAPSE["values"], 4.5 + 4 * noise(6, 6)],
    ),
    "dense as events": (
        lambda x, w: src_linear(x, w, -6.0, method="events"),
        [EVENTS.to_dense(torch.float64), WEIGHT],
    ),
    "dense by the product": (
        lambda x, w: src_linear(x, w, -6.0, lengths=[20, 7, 0]),
        [1 + noise(5, 20, 3, 6), WEIGHT],
    ),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_checkpoints_and_hooks_give_the_same_gradients(name: str) -> None:
    """Checkpointing and saved-tensor hooks both allow each saved tensor to be unpacked only once."""
    function, args = DIFFERENTIABLE[name]
    packed, unpacked = [], []
    with saved_tensors_hooks(lambda x: packed.append(1) or x, lambda x: unpacked.append(1) or x):
        expected = with_gradients(function, args)
    assert len(unpacked) == len(packed) > 0
    assert all(x.count_nonzero() > 0 for x in expected)
    results = [with_gradients(lambda *x: checkpoint(function, *x, use_reentrant=False), args)]
    with save_on_cpu():
        results.append(with_gradients(function, args))
    for result in results:
        assert all(map(torch.equal, result, expected))
