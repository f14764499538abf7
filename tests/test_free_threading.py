"""Threads share networks, streams and sounds, with and without a GIL (promise 5 of CONTRIBUTING.md).

Needs NumPy alone, so that it also runs where a free-threaded Python has no torch:

    python -m pytest --noconftest tests/test_free_threading.py
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from srcell import runtime

RESULTS = Path(__file__).resolve().parents[1] / "experiments" / "results"
RECALL = runtime.load(RESULTS / "recall" / "recall.srcell")  # with recurrent weights and delays
DIGITS = runtime.load(RESULTS / "say-a-digit" / "digits.srcell")  # hears sound
THREADS, CALLS = 4, 100


def together(work: Callable[[int], Any], threads: int = THREADS) -> list[Any]:
    """The results of ``work(0)`` to ``work(threads - 1)``, all begun at once, each on a thread of its own."""
    barrier = Barrier(threads)

    def begin(number: int) -> Any:
        barrier.wait(60)
        return work(number)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(begin, range(threads)))


def inputs() -> np.ndarray:
    return np.random.default_rng(0).random(RECALL.input_size).astype(np.float32)


STEPS: dict[str, Callable[[runtime.Stream], np.ndarray]] = {
    "dense": lambda stream: stream.step(inputs()),
    "events": lambda stream: stream.step(np.arange(RECALL.input_size, dtype=np.int32)),
    "wide": lambda stream: stream.step(np.arange(RECALL.input_size)),
}


@pytest.mark.parametrize("kind", STEPS)
def test_each_step_of_a_shared_stream_follows_another(kind: str) -> None:
    step, alone, shared = STEPS[kind], RECALL.stream(), RECALL.stream()
    expected = Counter(step(alone).tobytes() for _ in range(THREADS * CALLS))
    assert len(expected) > 100  # most steps have spikes of their own
    found = together(lambda _: [step(shared).tobytes() for _ in range(CALLS)])
    assert sum(map(Counter, found), Counter()) == expected
    assert shared.save() == alone.save()


def test_a_learner_that_is_busy_refuses_a_second_thread_and_loses_nothing() -> None:
    x = np.random.default_rng(0).normal(size=(60, 4, RECALL.input_size)).astype(np.float32)
    labels = np.arange(4) % RECALL.num_classes
    shared, alone = RECALL.learner(), RECALL.learner()

    def work(_: int) -> int:
        taken = 0
        for _ in range(20):
            try:
                shared.step(x, labels, threads=1)
                taken += 1
            except ValueError as error:
                assert str(error) == "learner: expected one call at a time, got one of a second thread"
        return taken

    for _ in range(sum(together(work))):
        alone.step(x, labels, threads=1)
    assert shared.save() == alone.save()


def test_what_threads_read_from_a_shared_stream_is_from_between_two_steps() -> None:
    alone, shared = RECALL.stream(), RECALL.stream()
    states, logits = {alone.save()}, {alone.logits().tobytes()}
    for _ in range(CALLS):
        STEPS["dense"](alone)
        states.add(alone.save())
        logits.add(alone.logits().tobytes())
    last = alone.save()

    def work(number: int) -> set[bytes]:
        if number == 0:
            for _ in range(CALLS):
                STEPS["dense"](shared)
            return set()
        read = shared.save if number == 1 else lambda: shared.logits().tobytes()
        return {read() for _ in range(5 * CALLS)}

    _, saved, *seen = together(work)
    assert saved <= states and set().union(*seen) <= logits
    assert shared.save() == last


def test_each_change_of_a_shared_stream_is_whole() -> None:
    shared, calls = RECALL.stream(), 20
    moved = RECALL.stream()
    for _ in range(5):
        STEPS["dense"](moved)
    later, states = moved.save(), set()
    for start in (RECALL.stream().save(), later):  # the states that the calls below can lead to
        moved.restore(start)
        states.add(start)
        for _ in range(calls):
            STEPS["dense"](moved)
            states.add(moved.save())
    moves = (lambda: STEPS["dense"](shared), shared.reset, lambda: shared.restore(later))

    def work(number: int) -> set[bytes]:
        if number < len(moves):
            for _ in range(calls):
                moves[number]()
            return set()
        return {shared.save() for _ in range(calls)}

    *_, seen = together(work)
    assert seen <= states


@pytest.mark.parametrize("samples", [200, 5000])  # less and more than a call with the GIL takes
def test_each_chunk_of_a_shared_sound_follows_another(samples: int) -> None:
    calls = 20
    chunk = np.sin(np.arange(samples, dtype=np.float32)) / 4
    alone, shared = DIGITS.stream(), DIGITS.stream()
    expected = sum(alone.hear(chunk) for _ in range(THREADS * calls))
    assert expected > 20
    assert sum(together(lambda _: sum(shared.hear(chunk) for _ in range(calls)))) == expected
    assert shared.save() == alone.save() and shared.logits().tobytes() == alone.logits().tobytes()


def test_each_chunk_of_a_shared_hearing_follows_another() -> None:
    sections = np.tile(np.array([0.1, 0.0, -0.1, -1.6, 0.8]), (3, 2, 1))
    given = sections, [80.0, 1.0, 0.1, 0.01, 1.0, 0.0, 0.0], np.zeros(3), np.ones(3)
    chunk = np.sin(np.arange(777, dtype=np.float32)) / 4
    alone, shared = runtime.Hearing(*given), runtime.Hearing(*given)
    expected = Counter(alone.take(chunk).tobytes() for _ in range(THREADS * CALLS))
    assert len(expected) > 1
    found = together(lambda _: [shared.take(chunk).tobytes() for _ in range(CALLS)])
    assert sum(map(Counter, found), Counter()) == expected


def test_threads_share_a_network_and_each_runs_a_stream_of_its_own() -> None:
    dense = (np.random.default_rng(1).random((50, 4, RECALL.input_size)) < 0.3).astype(np.float32)
    expected, counts = RECALL.run(dense), RECALL.counts(dense)

    def work(number: int) -> None:
        for _ in range(CALLS // 10):
            assert np.array_equal(RECALL.run(dense, threads=1 + number % 2), expected)
            assert RECALL.counts(dense) == counts
            stream = RECALL.stream(4)
            for row in dense:
                stream.step(row)
            assert np.array_equal(stream.logits(), expected)

    together(work)


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python has a GIL")
def test_the_import_leaves_the_gil_off() -> None:
    program = "import sys, srcell.runtime; print(sys._is_gil_enabled())"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
