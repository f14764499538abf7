"""Promise 5 of CONTRIBUTING.md: calls from several Python threads at once, an interrupt during a call, an interpreter
that shuts down while threads are inside a kernel, a child process whose parent used threads. DataLoader workers are
tested in tests/test_events.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch

from srcell import SRC, rate_encode, src_linear
from support.calls import in_process

THREADS = 4
CALLS = 5


def passes(seed):
    """Spikes and gradients of a layer on events, and of the same layer on the dense input."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(8, 60, generator=generator)
    weight = torch.randn(150, 60, generator=generator).requires_grad_()
    events = rate_encode(images, steps=60, seed=seed)
    results = []
    for input in (events, events.to_dense().requires_grad_()):
        spikes, _ = src_linear(input, weight, -6.0, method="events")
        results += [spikes.detach(), *torch.autograd.grad(spikes.sum(), weight)]
    return results


def test_concurrent_threads_get_the_same_bits():
    expected = [passes(seed) for seed in range(THREADS)]
    assert all(spikes.max() > 0.5 for spikes, *_ in expected)
    together = Barrier(THREADS)

    def work(seed):
        together.wait(60)
        return [passes(seed) for _ in range(CALLS)]

    with ThreadPoolExecutor(THREADS) as pool:
        for seed, calls in enumerate(pool.map(work, range(THREADS))):
            for results in calls:
                for x, y in zip(results, expected[seed], strict=True):
                    assert torch.equal(x, y)


def test_threads_share_a_layer_and_a_batch():
    torch.manual_seed(0)
    layer = SRC(
        60, 30, 2, recurrent=True, omega=0.1, delay_hh=torch.arange(30) % 7 / 2, max_delay=3, learnable=["delay_hh"]
    )
    events = rate_encode(torch.rand(8, 60), steps=60, seed=0)
    together = Barrier(THREADS)

    def passed():
        spikes, _ = layer(events)
        return [spikes.detach(), *torch.autograd.grad(spikes.square().sum(), [*layer.parameters()])]

    def work(_):
        together.wait(60)
        return [passed() for _ in range(CALLS)]

    expected = passed()
    assert all(x.any() for x in expected)
    with ThreadPoolExecutor(THREADS) as pool:
        for calls in pool.map(work, range(THREADS)):
            for found in calls:
                assert all(map(torch.equal, found, expected))


def test_forks_and_parent_get_the_same_bits_with_both_thread_runtimes():
    program = """
        import hashlib, torch, srcell
        from multiprocessing import get_context
        from support.inputs import make_currents

        current = make_currents(2, 50, 8, 100)

        def digest(_=None):  # without an operation of torch's that takes threads, which may hang in a child
            torch.set_num_threads(4)
            return hashlib.sha256(srcell.src(current, -6.0)[0].numpy().tobytes()).hexdigest()

        torch.set_num_threads(4)
        with get_context("fork").Pool(1) as pool:
            print(srcell.info()["thread_runtime"], *pool.map(digest, range(2)), digest())
        torch.ones(1000, 1000).sin()
        with get_context("fork").Pool(1) as pool:  # of a parent whose threads exist
            print(*pool.map(digest, range(2)), digest())
    """
    found, bits = {}, set()
    for wanted in ("", "std"):
        made = in_process(textwrap.dedent(program), SRCELL_THREADS=wanted, PYTHONPATH=os.pathsep.join(sys.path))
        found[wanted], *digests = made.split()
        assert len(digests) == 6
        bits |= {*digests}
    assert found["std"] == "std" and len(bits) == 1


def test_a_child_does_not_wait_for_a_thread_that_its_parent_has():
    """A stream or a hearing that a thread of the parent was using is refused; others, and new ones, work."""
    program = """
        import os, signal, tempfile, threading, time
        import numpy as np
        import srcell
        from srcell.data import SoundEncoding
        from srcell import export

        layer = srcell.SRC(12, 5)
        layer.encoder = SoundEncoding(bands=12)
        with tempfile.TemporaryDirectory() as folder:
            export(layer, folder + "/net.srcell")
            net = srcell.runtime.load(folder + "/net.srcell")
        stream, idle, hearing = net.stream(), net.stream(), layer.encoder.hearing()
        sound = np.zeros(100_000_000, np.float32)  # minutes of work, in chunks that a test can end
        calls = [stream.hear, hearing.take]
        for call in calls:
            threading.Thread(target=call, args=(sound,), daemon=True).start()
        time.sleep(1)  # both are inside
        child = os.fork()
        if not child:
            signal.alarm(60)  # ends the child if it waits
            found = []
            for call in (lambda: stream.hear(sound[:10]), stream.logits, stream.save, lambda: hearing.take(sound[:10])):
                try:
                    call()
                except RuntimeError as error:
                    found.append("forked" in str(error))
            idle.hear(sound[:1000])
            net.stream().step(np.ones(12))
            os._exit(found == [True] * 4)
        status = os.waitpid(child, 0)[1]
        print(os.waitstatus_to_exitcode(status), flush=True)
        os._exit(0)
    """
    assert in_process(textwrap.dedent(program), PYTHONPATH=os.pathsep.join(sys.path)).split() == ["1"]


def run(program, during=None):
    """Run a program, and call ``during`` once it prints "ready"; return its status and the rest of its output."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout.readline() == "ready\n"
        if during:
            during(process)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, output


def test_an_interrupt_waits_for_the_call_and_later_calls_work():
    status, output = run(
        """
        import signal, torch
        from srcell import src
        current = torch.randn(2000, 64, 100, generator=torch.Generator().manual_seed(0)) * 3
        expected = src(current[:50], -6.0)[0]
        signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent does with it
        interrupted = False
        try:
            print("ready", flush=True)
            while True:
                src(current, -6.0)
        except KeyboardInterrupt:
            interrupted = True
        print(interrupted, torch.equal(src(current[:50], -6.0)[0], expected))
        """,
        during=lambda process: process.send_signal(signal.SIGINT),
    )
    assert (status, output) == (0, "True True\n")


def test_the_interpreter_ends_while_threads_are_in_kernels():
    # The compiled module is called directly: torch's own operators abort if the interpreter shuts down inside them.
    status, output = run(
        """
        import threading, torch
        from srcell import _core
        sizes = 2000, 64, 100
        spikes = torch.randn(sizes)
        started = threading.Barrier(4)

        def work():
            arguments = spikes.numpy(), torch.get_num_threads()
            started.wait(60)
            while True:
                _core.count_spikes(*arguments)

        for _ in range(3):
            threading.Thread(target=work, daemon=True).start()
        started.wait(60)
        print("ready", flush=True)
        """
    )
    assert (status, output) == (0, "")
