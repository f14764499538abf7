"""What works with PyTorch: a function for each feature, which uses it and checks what comes out.

``docs/_machinery/measured.py`` makes the table of ``docs/pytorch.md`` from them, ``tests/test_works.py`` runs them. A
function that is refused says with which error.
"""

from __future__ import annotations

import copy
import functools
import io
import os
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from srcell import SRC, EventBatch, IntegerSRC, LeakyReadout, Sequential, SpikesOnly, src, src_linear
from srcell.data import collate


class Feature(NamedTuple):
    """A row of the table.

    Attributes:
        name: of the feature.
        run: uses it; raises what the user would see.
        refused: the first line of the error's message, or empty: it works.
        way: what to know, or to do instead.
        needs: packages that must be installed.

    """

    name: str
    run: Callable[[], object]
    refused: str
    way: str
    needs: tuple[str, ...]


FEATURES: list[Feature] = []


def feature(
    name: str, way: str = "", refused: str = "", needs: tuple[str, ...] = ()
) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Add the function to the table."""

    def add(run: Callable[[], object]) -> Callable[[], object]:
        FEATURES.append(Feature(name, run, refused, way, needs))
        return run

    return add


def outcome(found: Feature) -> str:
    """What happened when the feature was used: nothing, "", or the error's first line."""
    torch.manual_seed(0)
    try:
        found.run()
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        return str(error).splitlines()[0]
    return ""


def spikes_in(steps: int = 30, batch: int = 4, inputs: int = 6) -> Tensor:
    """Random spikes."""
    return (torch.rand(steps, batch, inputs) < 0.3).float()


def passes(layer: Any, x: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> list[Tensor]:
    """The spikes, those of `forward` if given, and the gradients of their sum for all parameters of the layer."""
    layer.zero_grad()
    spikes = layer(x)[0] if forward is None else forward(x)
    spikes.sum().backward()
    return [spikes, *(parameter.grad for parameter in layer.parameters() if parameter.grad is not None)]


def same(ours: Any, theirs: Any) -> None:
    """Raise unless the tensors are equal, bit for bit."""
    for a, b in zip(ours, theirs, strict=True):
        if not torch.equal(a, b):
            raise AssertionError("other values than in eager mode")


@feature("torch.compile", "`fullgraph=True`, dense tensors and `EventBatch`es, forwards and backwards: the same bits")
def _compile() -> None:
    x, layer = spikes_in(), SRC(6, 5)
    wanted = passes(layer, x)
    same(passes(torch.compile(layer, fullgraph=True, backend="aot_eager"), x), wanted)


@feature(
    "torch.export",
    "any number of steps and samples (`dynamic_shapes`; not with torch 2.4), strict or not; operators stay whole",
)
def _export() -> None:
    net = Sequential(SRC(6, 20), LeakyReadout(10, neurons_per_class=2))
    steps, batch = torch.export.Dim("steps", min=2), torch.export.Dim("batch", min=2)
    for strict in (False, True):
        program = torch.export.export(net, (spikes_in(),), dynamic_shapes=({0: steps, 1: batch},), strict=strict)
        x = spikes_in(50, 3)
        same([program.module()(x)], [net(x)])


@feature(
    "torch.onnx.export",
    "`dynamo=True` with `srcell.onnx.translation_table()`, torch 2.6 or newer: [in onnxruntime](howto/onnx.md)",
    needs=("onnx", "onnxscript", "onnxruntime"),
)
def _onnx() -> None:
    import onnxruntime

    from srcell.onnx import translation_table

    net, x = nn.Sequential(SpikesOnly(SRC(6, 20)), LeakyReadout(10, neurons_per_class=2)), spikes_in()
    program: Any = torch.onnx.export(
        net, (x,), dynamo=True, custom_translation_table=translation_table(), verbose=False
    )
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    if (torch.from_numpy(logits) - net(x)).abs().max() > 1e-3:
        raise AssertionError("other logits than in eager mode")


@feature("activation checkpointing", "`torch.utils.checkpoint.checkpoint`, reentrant or not")
def _checkpoint() -> None:
    from torch.utils.checkpoint import checkpoint

    x, layer = spikes_in(), SRC(6, 5)
    wanted = passes(layer, x)
    x.requires_grad_()
    for reentrant in (False, True):
        again = functools.partial(checkpoint, lambda x: layer(x)[0], use_reentrant=reentrant)
        same(passes(layer, x, again), wanted)


@feature("saved-tensor hooks", "`save_on_cpu`, and hooks of one's own that pack what is saved")
def _hooks() -> None:
    x, layer = spikes_in(), SRC(6, 5)
    wanted = passes(layer, x)
    for hooks in (
        torch.autograd.graph.save_on_cpu(),
        torch.autograd.graph.saved_tensors_hooks(Tensor.numpy, torch.from_numpy),
    ):
        with hooks:
            same(passes(layer, x), wanted)


@feature(
    "autocast (AMP)",
    "torch's products in half precision, backwards too; sums of events and the neuron in float32, and so are spikes",
)
def _autocast() -> None:
    layer = SRC(6, 5)
    with torch.autocast("cpu", torch.bfloat16):
        spikes, _ = layer(spikes_in())
    spikes.sum().backward()
    if spikes.dtype != torch.float32 or layer.weight_ih_l0.grad.dtype != torch.float32:
        raise AssertionError("half precision")


@feature("GradScaler", "finds infinities in our gradients and skips the step")
def _scaler() -> None:
    layer, scaler = SRC(6, 5), torch.amp.GradScaler("cpu")
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight_ih_l0.detach().clone()
    scaler.scale(layer(spikes_in())[0].sum() * float("inf")).backward()
    scaler.step(optimizer)
    same([layer.weight_ih_l0], [before])


@feature("layers in half precision", "`layer.half()`, `.bfloat16()`: computed in float32 inside, rounded at the end")
def _half() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        layer = SRC(6, 5).to(dtype)
        spikes, _ = layer(spikes_in().to(dtype))
        spikes.sum().backward()
        if spikes.dtype != dtype or layer.weight_ih_l0.grad.dtype != dtype:
            raise AssertionError(spikes.dtype)


@feature("float64 and gradcheck", 'exact gradients: `surrogate="relu", full_gradient=True` passes `gradcheck`')
def _gradcheck() -> None:
    x = (4 * torch.rand(8, 2, 3, dtype=torch.float64)).requires_grad_()
    bias = torch.full((3,), -4.5, dtype=torch.float64, requires_grad=True)
    modes = {"surrogate": "relu", "full_gradient": True}
    if not torch.autograd.gradcheck(lambda x, bias: src(x, bias, **modes)[0], (x, bias)):
        raise AssertionError


@feature("DistributedDataParallel", "wrap the model as any other: [how](howto/gpus.md#in-your-own-loop)")
def _ddp() -> None:
    from torch import distributed

    with tempfile.TemporaryDirectory() as folder:
        store = distributed.FileStore(os.path.join(folder, "store"), 1)
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
        try:
            layer, x = SRC(6, 5), spikes_in()
            wanted = passes(copy.deepcopy(layer), x)
            same(passes(nn.parallel.DistributedDataParallel(layer), x), wanted)
        finally:
            distributed.destroy_process_group()


@feature("torch.func: grad, vjp, jacrev", "of `functional_call` of a layer, or of the functions themselves")
def _grad() -> None:
    layer, x = SRC(6, 5), spikes_in()
    parameters = dict(layer.named_parameters())

    def loss(parameters: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(layer, parameters, (x,))[0].sum()

    same(torch.func.grad(loss)(parameters).values(), passes(layer, x)[1:])


@feature(
    "torch.func.vmap",
    "over parameters (ensembles), inputs, and over `grad` (a gradient for each sample); torch 2.5 or newer",
)
def _vmap() -> None:
    x, weights, bias = spikes_in(), torch.randn(3, 5, 6), torch.full((5,), -6.0)

    def total(weight: Tensor, sample: Tensor) -> Tensor:
        return src_linear(sample[:, None], weight, bias, method="events")[0].sum()

    found = torch.func.vmap(lambda weight: src_linear(x, weight, bias, method="events")[0])(weights)
    same(found, [src_linear(x, weight, bias, method="events")[0] for weight in weights])
    each = torch.func.vmap(torch.func.grad(total), (None, 1))(weights[0], x)
    same(each, [torch.func.grad(total)(weights[0], sample) for sample in x.unbind(1)])


@feature(
    "forward mode (jvp)",
    "`torch.func.vjp` or `jacrev`, in reverse mode",
    refused="srcell::src: forward-mode differentiation (jvp) is not supported",
)
def _jvp() -> None:
    x = spikes_in()
    torch.func.jvp(lambda x: src(x, -6.0)[0], (x,), (torch.ones_like(x),))


@feature(
    "second derivatives",
    "`srcell.reference.src_reference`, the same equations in eager PyTorch",
    refused="srcell::src_backward: double backward is not supported",
)
def _second() -> None:
    x = spikes_in().requires_grad_()
    (first,) = torch.autograd.grad(src(x, -4.0)[0].square().sum(), x, create_graph=True)
    first.sum().backward()


@feature("nn.Sequential", "`srcell.Sequential` passes the lengths of samples on: [how](howto/sequential.md)")
def _sequential() -> None:
    net = Sequential(SRC(6, 8), nn.Dropout(0.1), SRC(8, 20), LeakyReadout(2))
    net(EventBatch.from_dense(spikes_in())).sum().backward()
    plain = nn.Sequential(SpikesOnly(SRC(6, 8)), nn.Dropout(0.1), SpikesOnly(SRC(8, 20)), LeakyReadout(2))
    plain(EventBatch.from_dense(spikes_in())).sum().backward()


@feature(
    "torch.jit.trace",
    "`torch.export`; `srcell.export` or `srcell.onnx.export` for a program that runs without torch",
    refused="srcell::src_dense: torch.jit.trace is not supported: use torch.export.export, or srcell.export or "
    "srcell.onnx.export for a program that runs without torch",
)
def _traced() -> None:
    torch.jit.trace(SRC(6, 5), (spikes_in(),), check_trace=False)


@feature(
    "torch.jit.script",
    "`torch.export`; `srcell.export` or `srcell.onnx.export` for a program that runs without torch",
    refused="SRC: torch.jit.script is not supported: use torch.export.export, or srcell.export or "
    "srcell.onnx.export for a program that runs without torch",
)
def _scripted() -> None:
    torch.jit.script(nn.Sequential(nn.Linear(6, 6), SRC(6, 5)))


@feature(
    "torch.export with a state",
    "pass it as a plain tuple, `tuple(state)`: `module()` of torch 2.13 confuses `h` and `hs` of an `SRCState`",
)
def _exported_state() -> None:
    layer, x = SRC(6, 5), spikes_in()
    state = layer(x)[1]
    program = torch.export.export(layer, (x, tuple(state)))
    spikes, after = program.module()(x, tuple(state))
    expected, wanted = layer(x, state)
    same([spikes, *after], [expected, *wanted])


@feature("pruning", "`torch.nn.utils.prune`: masked weights stay 0")
def _prune() -> None:
    from torch.nn.utils import prune

    layer = SRC(6, 5)
    prune.l1_unstructured(layer, "weight_ih_l0", amount=0.5)
    layer(spikes_in())[0].sum().backward()
    if int((layer.weight_ih_l0 == 0).sum()) != 15:
        raise AssertionError("not pruned")


@feature("parametrizations", "`weight_norm`, `spectral_norm`, one's own, on any parameter")
def _parametrize() -> None:
    for normalise in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        layer = normalise(SRC(6, 5), "weight_ih_l0")
        layer(spikes_in())[0].sum().backward()


@feature(
    "quantised tensors",
    "train with fake quantisation as a parametrization of the weight (`torch.ao.quantization.FakeQuantize`)",
    refused="input: expected a tensor that is not quantized, got torch.quint8",
)
def _quantised() -> None:
    SRC(6, 5)(torch.quantize_per_tensor(spikes_in(), 1.0, 0, torch.quint8))


@feature(
    "dynamic quantisation", "`quantize_dynamic` leaves SRC layers as they are and changes the `nn.Linear` beside them"
)
def _dynamic() -> None:
    net = nn.Sequential(nn.Linear(6, 6), SpikesOnly(SRC(6, 5)))
    torch.ao.quantization.quantize_dynamic(net, {nn.Linear})(spikes_in())


@feature("integer neurons", "`IntegerSRC` trains through rounding, compiled or under autocast with the same bits")
def _integers() -> None:
    x, layer = spikes_in(), IntegerSRC(6, 5, weight_bits=4)
    wanted = passes(layer, x)
    same(passes(torch.compile(layer, backend="aot_eager"), x), wanted)
    same(passes(layer, x, torch.autocast("cpu", torch.bfloat16)(lambda x: layer(x)[0])), wanted)


@feature("state_dict, deepcopy, pickle", "the constants of a layer are in its `state_dict`")
def _save() -> None:
    layer, x = SRC(6, 5, alpha=0.8), spikes_in()
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    again = SRC(6, 5, alpha=0.8)
    again.load_state_dict(torch.load(file))
    same([again(x)[0], copy.deepcopy(layer)(x)[0]], [layer(x)[0]] * 2)


@feature("meta device", "shapes without memory; `to_empty`, then `load_state_dict` or `reset_parameters`")
def _meta() -> None:
    with torch.device("meta"):
        layer = SRC(6, 5)
    if layer(torch.empty(30, 4, 6, device="meta"))[0].shape != (30, 4, 5):
        raise AssertionError
    layer.to_empty(device="cpu").reset_parameters()
    layer(spikes_in())


@feature("weight averaging", "`torch.optim.swa_utils.AveragedModel`")
def _averaged() -> None:
    from torch.optim.swa_utils import AveragedModel

    layer = SRC(6, 5)
    averaged = AveragedModel(layer)
    averaged.update_parameters(layer)
    averaged(spikes_in())


@feature("data loaders with workers", "`EventBatch` passes between processes; `srcell.data.collate` joins recordings")
def _workers() -> None:
    from torch.utils.data import DataLoader

    recordings = [(EventBatch.from_dense(spikes_in(batch=1)), k) for k in range(4)]
    loader = DataLoader(recordings, batch_size=2, collate_fn=collate, num_workers=1)  # type: ignore[arg-type]
    if [batch.shape for batch, _ in loader] != [(30, 2, 6)] * 2:
        raise AssertionError


@feature(
    "Lightning",
    "a `LightningModule` with SRC layers: [how](howto/gpus.md#lightning)",
    needs=("lightning",),
)
def _lightning() -> None:
    import logging

    import lightning
    from torch.utils.data import DataLoader

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Sequential(SpikesOnly(SRC(6, 20)), LeakyReadout(2))

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            x, labels = batch
            return nn.functional.cross_entropy(self.net(x.transpose(0, 1)), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    samples = torch.utils.data.TensorDataset(spikes_in(30, 8).transpose(0, 1), torch.arange(8) % 2)
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", log_every_n_steps=1, **off)
    trainer.fit(Module(), DataLoader(samples, batch_size=4))


@feature(
    "Accelerate",
    "`accelerator.prepare(model, optimizer)`, `accelerator.backward`: [how](howto/gpus.md#accelerate)",
    needs=("accelerate",),
)
def _accelerate() -> None:
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True)
    layer = SRC(6, 5)
    model, optimizer = accelerator.prepare(layer, torch.optim.Adam(layer.parameters()))
    accelerator.backward(model(spikes_in())[0].sum())
    optimizer.step()


@feature(
    "MPS, XPU and other devices",
    'keep the SRC layers and their inputs on the CPU, `x.to("cpu")`; the kernels are for CPU and CUDA',
    refused="current: expected a tensor on a CPU or a CUDA device, got one on xpu:0: move it there with .cpu()",
)
def _mps() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(30, 4, 6, device="xpu")
        src(x, -6.0)
