"""How fast srcell is beside what a user would otherwise run, on the same work.

``srcell bench`` and the scripts of the repository's ``bench/`` call this; it must never know how a table is drawn or a
file is read. It measures through the public functions alone. Every setting runs in a process of its own, because what
one leaves in the heap, in torch's compiler and in the thread pools changes the times of the next.
"""

from __future__ import annotations

import difflib
import importlib
import math
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from importlib import metadata
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import torch
from torch import Tensor, nn

from ._info import info
from .events import EventBatch
from .functional import SRCState, src, src_linear
from .layers import SRC, SRCCell
from .models import SRCClassifier
from .reference import src_reference

__all__ = ["CASES", "LABELS", "Result", "Setting", "choose", "measure", "record", "run"]

CHUNK = 20  # steps that torch.compile gets at once: more take minutes to compile, fewer run slower
CLASSES = 10
WARM_UP = 1  # all that torch.compile compiles, and the pages that allocators keep
# Fast settings are repeated for a second, slow ones for 15 seconds at most, but the few times that quartiles need.
SHORTEST, LONGEST, FEWEST = 1.0, 15.0, 5

LABELS = {
    "eager": "PyTorch, eager",
    "compiled": "PyTorch, compiled",
    "sparse": "torch.sparse.mm, then srcell.src",
    "srcell": "srcell",
    "torch": "torch alone",
    "dense": "srcell, dense input",
    "events": "srcell, events",
    "rnn": "nn.RNN (another cell)",
    "gru": "nn.GRU (another cell)",
    "spikingjelly": "SpikingJelly LIF (another neuron)",
    "snntorch": "snnTorch LIF (another neuron)",
    "norse": "Norse LIF (another neuron)",
}
LIF_PACKAGES = ("spikingjelly", "snntorch", "norse")
FORWARD, BOTH = "forward", "forward and backward"

Neuron = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Setting:
    """One piece of work and the rows that are measured on it.

    Attributes:
        case: the case of ``CASES`` that it belongs to.
        subject: "recurrence" (given currents), "layer" (a linear synapse before it), "stack" (several layers),
            "classifier" (a stack and its readout, forward only), "module" (a torch module), "step" (a module that
            advances by one step, forward only) or "import" (a new Python that imports torch and the row's package).
        inputs: inputs of a step, K.
        neurons: N of each layer, first to last.
        rows: keys of ``LABELS``.
        density: events per cell of the input.
        steps: steps of a sample, T.
        batch: samples, B.
        surrogate: as in ``srcell.src``.
        recurrent_grad: as in ``srcell.src``.
        threads: of torch and srcell; all if None.

    """

    case: str
    subject: str
    inputs: int
    neurons: tuple[int, ...]
    rows: tuple[str, ...]
    density: float = 0.03
    steps: int = 220
    batch: int = 256
    surrogate: str = "straight_through"
    recurrent_grad: bool = False
    threads: int | None = None

    @property
    def passes(self) -> tuple[str, ...]:
        """What is timed, the forward pass without gradients, and forward and backward together."""
        return (FORWARD,) if self.subject in ("classifier", "step", "import") else (FORWARD, BOTH)

    @property
    def modes(self) -> dict[str, Any]:
        """The gradient mode, as keywords."""
        return {"surrogate": self.surrogate, "recurrent_grad": self.recurrent_grad}


def _make_cases() -> dict[str, tuple[Setting, ...]]:
    ours = ("dense", "events")
    layer = ("eager", "compiled", "sparse", *ours, "gru")
    recurrence = Setting("recurrence", "recurrence", 784, (100,), ("eager", "compiled", "srcell"))
    small = Setting("784-100", "layer", 784, (100,), (*layer, *LIF_PACKAGES))
    large = Setting("784-512", "layer", 784, (512,), layer)
    stack = Setting("stack", "stack", 784, (512, 512, 100), ("eager", "compiled", *ours))
    classifier = Setting("classifier", "classifier", 784, (100,), ("eager", "compiled", *ours))
    return {
        "recurrence": tuple(
            replace(recurrence, neurons=(neurons,), recurrent_grad=recurrent_grad)
            for neurons in (100, 512)
            for recurrent_grad in (False, True)
        ),
        "784-100": (small,),
        "784-512": (large,),
        "nmnist": (Setting("nmnist", "layer", 2312, (512,), ("eager", "compiled", "sparse", *ours), density=0.006),),
        "stack": (stack, replace(stack, surrogate="relu", rows=ours)),
        "classifier": (replace(classifier, batch=1), classifier),
        # Work that takes no time, so that what a call costs is left.
        "calls": (
            Setting("calls", "step", 784, (100,), ("srcell", "rnn", "gru", "snntorch", "norse"), steps=1, batch=1),
            Setting("calls", "module", 8, (8,), ("srcell", "rnn", "gru"), density=0.3, steps=5, batch=1),
            Setting("calls", "import", 0, (0,), ("srcell", "torch"), density=0, steps=0, batch=0),
        ),
        "one-thread": tuple(
            replace(setting, case="one-thread", rows=("eager", *ours), threads=1) for setting in (small, large)
        ),
        "modes": tuple(
            replace(small, case="modes", rows=("eager", *ours), surrogate=surrogate, recurrent_grad=recurrent_grad)
            for surrogate in ("straight_through", "relu")
            for recurrent_grad in (False, True)
        ),
        "density": tuple(
            replace(small, case="density", rows=("sparse", *ours), density=density)
            for density in (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
        ),
        "steps": tuple(
            replace(small, case="steps", rows=("eager", *ours), steps=steps) for steps in (55, 110, 220, 440)
        ),
    }


CASES = _make_cases()


class Quartiles(TypedDict):
    """Of the milliseconds of a row's repetitions."""

    quartile1: float
    median: float
    quartile3: float


class Result(TypedDict):
    """What a setting came to, ready for JSON.

    ``setting`` has the fields of ``Setting`` but for its rows, and the threads that were used; ``left_out`` says for
    each row that could not be measured why; ``milliseconds`` are by row and pass.
    """

    setting: dict[str, Any]
    repetitions: int
    left_out: dict[str, str]
    milliseconds: dict[str, dict[str, Quartiles]]


class UnavailableError(Exception):
    """The installation lacks what a row needs; the message says what."""


class Row(NamedTuple):
    """Something to time: a call, and the tensors that its backward gives gradients to."""

    call: Callable[[], Tensor]
    leaves: Sequence[Tensor]


class Spikes:
    """Random spikes in every form that a row takes.

    The sparse forms are built anew from their arrays at each call, as a batch of a training loop is, so that nothing
    derived from one can be kept for the next.
    """

    def __init__(self, setting: Setting) -> None:
        self.shape = setting.steps, setting.batch, setting.inputs
        self.dense = torch.rand(self.shape).lt(setting.density).float()
        batch = EventBatch.from_dense(self.dense)
        self._offsets, self._indices = batch.offsets, batch.indices

    def events(self) -> EventBatch:
        """As an EventBatch."""
        return EventBatch(self._offsets, self._indices, shape=self.shape)

    def make_csr(self) -> Callable[[], Tensor]:
        """A function that builds the CSR matrix (T * B, K), with 32-bit indices: torch's product is fastest on them."""
        steps, batch, inputs = self.shape
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
            matrix = self.dense.view(steps * batch, inputs).to_sparse_csr()
        row_starts, columns, values = matrix.crow_indices().int(), matrix.col_indices().int(), matrix.values()
        return lambda: torch.sparse_csr_tensor(
            row_starts, columns, values, size=(steps * batch, inputs), check_invariants=False
        )


def _eager(setting: Setting) -> Neuron:
    return lambda current, bias: src_reference(current, bias, **setting.modes)[0]


def _compiled(setting: Setting) -> Neuron:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise UnavailableError(f"torch.compile needs a C++ compiler, and {compiler} is not installed")

    def chunk(current: Tensor, bias: Tensor, i: Tensor, h: Tensor, hs: Tensor) -> tuple[Tensor, SRCState]:
        return src_reference(current, bias, SRCState(i, h, hs), **setting.modes)

    compiled_chunk = torch.compile(chunk, dynamic=False)

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        zeros = torch.zeros_like(current[0])
        state = SRCState(zeros, zeros, zeros)
        spikes = []
        for part in current.split(CHUNK):
            part_spikes, state = compiled_chunk(part, bias, *state)
            spikes.append(part_spikes)
        return torch.cat(spikes)

    return neuron


def _srcell(setting: Setting) -> Neuron:
    return lambda current, bias: src(current, bias, **setting.modes)[0]


def _import(package: str, module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnavailableError(f"{package} is not installed: {error}") from None


def _spikingjelly(setting: Setting) -> Neuron:
    neurons = _import("SpikingJelly", "spikingjelly.activation_based.neuron")
    lif = neurons.LIFNode(step_mode="m")

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        lif.reset()
        spikes: Tensor = lif(current)
        return spikes

    return neuron


def _snntorch(setting: Setting) -> Neuron:
    lif = _import("snnTorch", "snntorch").Leaky(beta=0.9)

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        membrane = torch.zeros_like(current[0])
        spikes = []
        for now in current.unbind(0):
            spike, membrane = lif(now, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    return neuron


def _norse(setting: Setting) -> Neuron:
    lif = _import("Norse", "norse.torch").LIF()

    def neuron(current: Tensor, bias: Tensor) -> Tensor:
        spikes: Tensor = lif(current)[0]
        return spikes

    return neuron


NEURONS: dict[str, Callable[[Setting], Neuron]] = {
    "eager": _eager,
    "compiled": _compiled,
    "srcell": _srcell,
    "spikingjelly": _spikingjelly,
    "snntorch": _snntorch,
    "norse": _norse,
}


def _weight_and_bias(setting: Setting) -> tuple[Tensor, Tensor]:
    """Of one layer, scaled as ``srcell.SRC`` starts: some percent of its neurons are active in a step."""
    (neurons,) = setting.neurons
    weight = torch.randn(neurons, setting.inputs) * 3 / math.sqrt(setting.inputs)
    return weight.requires_grad_(), torch.full((neurons,), -6.0, requires_grad=True)


def _recurrence_rows(setting: Setting) -> Callable[[str], Row]:
    weight, bias = _weight_and_bias(setting)
    currents = (Spikes(setting).dense @ weight.t()).detach().requires_grad_()

    def row(name: str) -> Row:
        neuron = NEURONS[name](setting)
        return Row(lambda: neuron(currents, bias), (currents, bias))

    return row


def _layer_rows(setting: Setting) -> Callable[[str], Row]:
    spikes = Spikes(setting)
    weight, bias = _weight_and_bias(setting)
    (neurons,) = setting.neurons

    def row(name: str) -> Row:
        if name == "gru":
            gru = nn.GRU(setting.inputs, neurons)
            return Row(lambda: gru(spikes.dense)[0], list(gru.parameters()))
        if name == "sparse":
            make_csr = spikes.make_csr()
            shape = (setting.steps, setting.batch, neurons)

            def call() -> Tensor:
                return src(torch.sparse.mm(make_csr(), weight.t()).view(shape), bias, **setting.modes)[0]
        elif name == "dense":

            def call() -> Tensor:
                return src_linear(spikes.dense, weight, bias, **setting.modes)[0]
        elif name == "events":

            def call() -> Tensor:
                return src_linear(spikes.events(), weight, bias, **setting.modes)[0]
        else:
            neuron = NEURONS[name](setting)

            def call() -> Tensor:
                return neuron(spikes.dense @ weight.t(), bias)

        return Row(call, (weight, bias))

    return row


def _network_rows(setting: Setting) -> Callable[[str], Row]:
    spikes = Spikes(setting)
    neurons_per_class = setting.neurons[-1] // CLASSES
    model = SRCClassifier(
        setting.inputs, setting.neurons[:-1], CLASSES, neurons_per_class=neurons_per_class, **setting.modes
    )
    layers: list[Any] = list(model.layers)
    readout: Callable[[Tensor], Tensor] = model.readout
    parameters = list(model.parameters())
    with_readout = setting.subject == "classifier"

    def row(name: str) -> Row:
        if name in NEURONS:
            neuron = NEURONS[name](setting)

            def call() -> Tensor:
                output = spikes.dense
                for layer in layers:
                    output = neuron(output @ layer.weight_ih_l0.t(), layer.bias_l0)
                return readout(output) if with_readout else output
        else:
            make_input = spikes.events if name == "events" else lambda: spikes.dense

            def call() -> Tensor:
                output: Tensor = model(make_input()) if with_readout else model.layer_spikes(make_input())[-1]
                return output

        return Row(call, parameters)

    return row


def _step_rows(setting: Setting) -> Callable[[str], Row]:
    x = Spikes(setting).dense[0]
    inputs, (neurons,) = setting.inputs, setting.neurons

    def row(name: str) -> Row:
        if name == "srcell":
            cell = SRCCell(inputs, neurons, **setting.modes)
            state = cell(x)[1].detach()
            return Row(lambda: cell(x, state)[0], list(cell.parameters()))
        if name in ("rnn", "gru"):
            other = nn.RNNCell(inputs, neurons) if name == "rnn" else nn.GRUCell(inputs, neurons)
            before = torch.zeros(setting.batch, neurons)
            return Row(lambda: other(x, before), list(other.parameters()))
        linear = nn.Linear(inputs, neurons)
        if name == "snntorch":
            lif = _import("snnTorch", "snntorch").Leaky(beta=0.9)
            membrane = torch.zeros(setting.batch, neurons)
            return Row(lambda: lif(linear(x), membrane)[0], list(linear.parameters()))
        lif_cell = _import("Norse", "norse.torch").LIFCell()
        lif_state = lif_cell(linear(x))[1]
        return Row(lambda: lif_cell(linear(x), lif_state)[0], list(linear.parameters()))

    return row


def _module_rows(setting: Setting) -> Callable[[str], Row]:
    x = Spikes(setting).dense
    (neurons,) = setting.neurons
    modules: dict[str, Callable[[], nn.Module]] = {
        "srcell": lambda: SRC(setting.inputs, neurons, **setting.modes),
        "rnn": lambda: nn.RNN(setting.inputs, neurons),
        "gru": lambda: nn.GRU(setting.inputs, neurons),
    }

    def row(name: str) -> Row:
        module = modules[name]()
        return Row(lambda: module(x)[0], list(module.parameters()))

    return row


def _import_rows(setting: Setting) -> Callable[[str], Row]:
    def row(name: str) -> Row:
        command = [sys.executable, "-c", f"import torch, {name}"]

        def call() -> Tensor:
            subprocess.run(command, check=True)
            return torch.empty(0)

        return Row(call, ())

    return row


_MAKERS: dict[str, Callable[[Setting], Callable[[str], Row]]] = {
    "recurrence": _recurrence_rows,
    "layer": _layer_rows,
    "stack": _network_rows,
    "classifier": _network_rows,
    "step": _step_rows,
    "module": _module_rows,
    "import": _import_rows,
}


def _time_forward(row: Row) -> float:
    """Milliseconds; the output is freed when this returns, outside them."""
    start = time.perf_counter()
    with torch.no_grad():
        output = row.call()  # noqa: F841
    return (time.perf_counter() - start) * 1e3


def _time_both(row: Row, gradient: Tensor) -> float:
    """Milliseconds, after which the gradients are freed.

    glibc may give their pages back to the system, which costs as much as a pass; the next row must not pay for it.
    """
    start = time.perf_counter()
    output = row.call()
    output.backward(gradient)
    milliseconds = (time.perf_counter() - start) * 1e3
    for leaf in row.leaves:
        leaf.grad = None
    return milliseconds


def _more(done: int, seconds: float, repetitions: int) -> bool:
    """Whether to go on after so many repetitions in so many seconds."""
    if done < repetitions:
        return done < FEWEST or seconds < LONGEST
    return done < 10 * repetitions and seconds < SHORTEST


def measure(setting: Setting, repetitions: int) -> Result:
    """Time every row of a setting, in this process.

    The incoming gradient is dense and random. Parameters change in place before each repetition; rows come in another
    order in each.

    Args:
        setting: what to measure; its threads, if given, stay torch's afterwards.
        repetitions: of every row, at least 2; slow settings get fewer, fast ones more.

    Returns:
        Quartiles of milliseconds by row and pass.

    Example:
        >>> from srcell.benchmark import Setting, measure
        >>> tiny = Setting("tiny", "layer", inputs=8, neurons=(4,), rows=("eager", "events"), steps=5, batch=2)
        >>> sorted(measure(tiny, repetitions=2)["milliseconds"]["events"]["forward"])
        ['median', 'quartile1', 'quartile3']

    """
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    gradient = torch.randn(setting.steps, setting.batch, setting.neurons[-1])
    make_row = _MAKERS[setting.subject](setting)
    rows: dict[str, Row] = {}
    left_out: dict[str, str] = {}
    for name in setting.rows:
        try:
            rows[name] = make_row(name)
        except UnavailableError as reason:
            left_out[name] = str(reason)
    leaves = {id(leaf): leaf for row in rows.values() for leaf in row.leaves}.values()
    times: dict[str, dict[str, list[float]]] = {name: {key: [] for key in setting.passes} for name in rows}
    order = random.Random(0)

    def repeat() -> None:
        with torch.no_grad():
            for leaf in leaves:
                leaf.mul_(1 + 1e-6)
        for name in order.sample(list(rows), len(rows)):
            for key in setting.passes:
                row = rows[name]
                times[name][key].append(_time_forward(row) if key == FORWARD else _time_both(row, gradient))

    for _ in range(WARM_UP):
        repeat()
    start, done = time.perf_counter(), 0
    while _more(done, time.perf_counter() - start, repetitions):
        repeat()
        done += 1
    described = {key: value for key, value in asdict(setting).items() if key != "rows"}
    return Result(
        setting=described | {"threads": torch.get_num_threads()},
        repetitions=done,
        left_out=left_out,
        milliseconds={
            name: {key: _quartiles(values[WARM_UP:]) for key, values in passes.items()}
            for name, passes in times.items()
        },
    )


def _quartiles(values: list[float]) -> Quartiles:
    first, median, third = (round(value, 4) for value in statistics.quantiles(values, n=4, method="inclusive"))
    return Quartiles(quartile1=first, median=median, quartile3=third)


def choose(cases: Sequence[str], *, threads: int | None = None, quick: bool = False) -> list[Setting]:
    """The settings of some cases.

    Args:
        cases: keys of ``CASES``; all of them if empty.
        threads: of those settings that do not fix their number.
        quick: batches of at most 32, and nothing that is compiled: for a look.

    Raises:
        ValueError: an unknown case, or ``threads`` below 1.

    Example:
        >>> from srcell.benchmark import choose
        >>> [setting.density for setting in choose(["nmnist"])]
        [0.006]

    """
    for name in cases:
        if name not in CASES:
            nearest = difflib.get_close_matches(name, CASES, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected some of {', '.join(CASES)}"
            raise ValueError(f"unknown case {name!r}: {hint}")
    if threads is not None and threads < 1:
        raise ValueError(f"threads: expected at least 1, got {threads}")
    settings = [setting for name in dict.fromkeys(cases or CASES) for setting in CASES[name]]
    settings = [replace(setting, threads=setting.threads or threads) for setting in settings]
    if quick:
        settings = [
            replace(setting, batch=min(setting.batch, 32), rows=tuple(row for row in setting.rows if row != "compiled"))
            for setting in settings
        ]
    return settings


def run(settings: Sequence[Setting], repetitions: int) -> Iterator[Result]:
    """Measure settings one after the other, each in a fresh process.

    Raises:
        ValueError: fewer than 2 repetitions.
        ChildProcessError: such a process died.

    Example:
        >>> from srcell.benchmark import run
        >>> list(run([], repetitions=9))
        []

    """
    if repetitions < 2:
        raise ValueError(f"repetitions: expected at least 2, for their spread, got {repetitions}")
    for setting in settings:
        yield _measure_in_fresh_process(setting, repetitions)


def _measure_in_fresh_process(setting: Setting, repetitions: int) -> Result:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_measured, args=(sender, setting, repetitions))
    # The process inherits the mask: Ctrl-C is this one's to handle, without a traceback from there.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sender.close()
    try:
        result: Result = receiver.recv()
    except EOFError:
        raise ChildProcessError(f"the process of case {setting.case} died: was there enough memory?") from None
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
        receiver.close()
    return result


def _send_measured(sender: Connection, setting: Setting, repetitions: int) -> None:
    sender.send(measure(setting, repetitions))


def record(results: Sequence[Result], source: Path) -> dict[str, Any]:
    """Results with the date and what they were measured on and with.

    Args:
        results: of ``run``.
        source: a file; if it is under version control, the commit of its repository is recorded.

    Example:
        >>> from pathlib import Path
        >>> from srcell.benchmark import record
        >>> list(record([], Path("no/such/file")))
        ['date', 'commit', 'processor', 'environment', 'results']

    """
    return {
        "date": date.today().isoformat(),
        "commit": _commit(source),
        "processor": _processor(),
        "environment": {
            "python": platform.python_version(),
            "srcell": info()["version"],
            **{key: value for key, value in info().items() if key in ("isa", "threads", "thread_runtime", "torch")},
            **{package: metadata.version(package) for package in LIF_PACKAGES if _is_installed(package)},
        },
        "results": list(results),
    }


def _is_installed(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _commit(source: Path) -> str | None:
    """Of the repository that tracks the file: an installed package may lie in the folder of any other."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        return git("describe", "--always", "--dirty", "--exclude=*")
    except (OSError, subprocess.CalledProcessError):
        return None


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
