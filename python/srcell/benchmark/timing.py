"""Timing: settings run one after the other, each in a fresh process; every repetition reorders the rows."""

from __future__ import annotations

import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from typing import Any, TypedDict

import torch
from torch import Tensor

from .cases import FORWARD, Workload
from .rows import CLASSES, MAKERS, Row, UnavailableError

WARM_UP = 1  # repetitions not counted, in which torch.compile compiles and allocators get the pages that they keep
# Fast settings are repeated for up to 1 s, slow ones for at most 15 s, but at least as often as quartiles need.
SHORTEST, LONGEST, FEWEST = 1.0, 15.0, 5


class Quartiles(TypedDict):
    """Quartiles of the milliseconds of a row's repetitions."""

    quartile1: float
    median: float
    quartile3: float


class Result(TypedDict):
    """The result of a setting, ready for JSON.

    ``setting`` has the fields of ``Workload`` without the rows, and the number of threads used; ``left_out`` gives the
    reason for each row that could not be measured; ``milliseconds`` has the quartiles by row and pass.
    """

    setting: dict[str, Any]
    repetitions: int
    left_out: dict[str, str]
    milliseconds: dict[str, dict[str, Quartiles]]


def wall_clock(call: Callable[[], object]) -> float:
    """Milliseconds of a call; its return value is freed after the clock has stopped."""
    start = time.perf_counter()
    output = call()  # noqa: F841
    return (time.perf_counter() - start) * 1e3


Clock = Callable[[Callable[[], object]], float]


def _time_forward(row: Row, clock: Clock) -> float:
    with torch.no_grad():
        return clock(row.call)


def _time_both(row: Row, gradient: Tensor, clock: Clock) -> float:
    """Milliseconds of forward and backward; frees the gradients afterwards.

    glibc may return the gradients' pages to the system. That costs as much as a pass, and the next row must not pay for
    it.
    """

    def call() -> Any:
        output = row.call()
        output.backward(gradient)
        return output

    milliseconds = clock(call)
    for leaf in row.leaves:
        leaf.grad = None
    return milliseconds


def _more(done: int, seconds: float, repetitions: int) -> bool:
    """Whether to measure again after ``done`` repetitions in ``seconds`` seconds."""
    if done < repetitions:
        return done < FEWEST or seconds < LONGEST
    return done < 10 * repetitions and seconds < SHORTEST


def measure(setting: Workload, repetitions: int) -> Result:
    """Time every row of a setting, in this process.

    grad_outputs are dense and random.

    Args:
        setting: what to measure; its number of threads, if given, stays set in torch afterwards.
        repetitions: repetitions of every row, at least 2; slow settings get fewer, fast ones more.

    Returns:
        The ``Result``, with quartiles of milliseconds by row and pass.

    Example:
        >>> from srcell.benchmark import Workload, measure
        >>> tiny = Workload("tiny", "layer", inputs=8, neurons=(4,), rows=("eager", "events"), steps=5, batch=2)
        >>> sorted(measure(tiny, repetitions=2)["milliseconds"]["events"]["forward"])
        ['median', 'quartile1', 'quartile3']

    """
    if setting.threads is not None:
        torch.set_num_threads(setting.threads)
    torch.manual_seed(0)
    of_logits, of_spikes = (setting.batch, CLASSES), (setting.steps, setting.batch, setting.neurons[-1])
    gradient = torch.randn(of_logits if setting.subject == "network" else of_spikes)
    make_row = MAKERS[setting.subject](setting)
    rows: dict[str, Row] = {}
    left_out: dict[str, str] = {}
    for name in setting.rows:
        try:
            rows[name] = make_row(name)
            if setting.amp:
                rows[name] = rows[name]._replace(call=torch.autocast("cpu", torch.bfloat16)(rows[name].call))
        except UnavailableError as reason:
            left_out[name] = str(reason)
    done, milliseconds = time_rows(rows, dict.fromkeys(rows, gradient), setting.passes, repetitions)
    described = {key: value for key, value in asdict(setting).items() if key != "rows"}
    return Result(
        setting=described | {"threads": torch.get_num_threads()},
        repetitions=done,
        left_out=left_out,
        milliseconds=milliseconds,
    )


def time_rows(
    rows: Mapping[str, Row],
    gradients: Mapping[str, Tensor],
    passes: Sequence[str],
    repetitions: int,
    clock: Clock = wall_clock,
) -> tuple[int, dict[str, dict[str, Quartiles]]]:
    """Time rows in turn: before each repetition the parameters change in place and the rows are reordered.

    Args:
        rows: the rows by name.
        gradients: grad_outputs of each row by name.
        passes: "forward", "forward and backward" or both.
        repetitions: repetitions of every row; slow rows get fewer, fast ones more.
        clock: measures the milliseconds of a call.

    Returns:
        The number of repetitions, and quartiles of milliseconds by row and pass.

    Example:
        >>> import torch
        >>> from srcell.benchmark.rows import Row
        >>> from srcell.benchmark.timing import time_rows
        >>> x = torch.ones(3, requires_grad=True)
        >>> rows = {"square": Row(lambda: x * x, (x,))}
        >>> list(time_rows(rows, {"square": torch.ones(3)}, ("forward",), repetitions=5)[1])
        ['square']

    """
    leaves = {id(leaf): leaf for row in rows.values() for leaf in row.leaves}.values()
    times: dict[str, dict[str, list[float]]] = {name: {key: [] for key in passes} for name in rows}
    order = random.Random(0)

    def repeat() -> None:
        with torch.no_grad():
            for leaf in leaves:
                leaf.mul_(1 + 1e-6)
        for name in order.sample(list(rows), len(rows)):
            for key in passes:
                row = rows[name]
                milliseconds = _time_forward(row, clock) if key == FORWARD else _time_both(row, gradients[name], clock)
                times[name][key].append(milliseconds)

    for _ in range(WARM_UP):
        repeat()
    start, done = time.perf_counter(), 0
    while _more(done, time.perf_counter() - start, repetitions):
        repeat()
        done += 1
    quartiles = {name: {key: _quartiles(v[WARM_UP:]) for key, v in of.items()} for name, of in times.items()}
    return done, quartiles


def _quartiles(values: list[float]) -> Quartiles:
    first, median, third = (round(value, 4) for value in statistics.quantiles(values, n=4, method="inclusive"))
    return Quartiles(quartile1=first, median=median, quartile3=third)


def run(
    settings: Sequence[Workload], repetitions: int, before: Callable[[Workload], None] | None = None
) -> Iterator[Result]:
    """Measure settings one after the other, each in a fresh process.

    Args:
        settings: what to measure.
        repetitions: repetitions of every row, at least 2.
        before: called with each setting before it is measured.

    Raises:
        ValueError: fewer than 2 repetitions.
        ChildProcessError: the process of a setting died.
        Exception: any that was raised in such a process.

    Example:
        >>> from srcell.benchmark import run
        >>> list(run([], repetitions=9))
        []

    """
    if repetitions < 2:
        raise ValueError(f"repetitions: expected at least 2, for their spread, got {repetitions}")
    for setting in settings:
        if before is not None:
            before(setting)
        yield _measure_in_fresh_process(setting, repetitions)


def _measure_in_fresh_process(setting: Workload, repetitions: int) -> Result:
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_measured, args=(sender, setting, repetitions))
    # The child inherits this signal mask: only this process handles Ctrl-C, and the child prints no traceback.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    sender.close()
    try:
        result: Result | Exception = receiver.recv()
    except EOFError:
        threads = "" if setting.threads is None else f" for {setting.threads} threads"
        raise ChildProcessError(f"the process of case {setting.case} died: was there enough memory{threads}?") from None
    except KeyboardInterrupt:
        process.terminate()
        raise
    finally:
        process.join()
        receiver.close()
    if isinstance(result, Exception):
        raise result
    return result


def _send_measured(sender: Connection, setting: Workload, repetitions: int) -> None:
    try:
        result: Result | Exception = measure(setting, repetitions)
    except Exception as error:
        result = ExceptionWithTraceback(error, error.__traceback__)  # received as the exception, with its traceback
    sender.send(result)
