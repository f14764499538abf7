"""Generated recordings of events: intervals, the time between the spikes of a pair, and adding, the sum of marked bits.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from .._shared.arguments import as_int
from ..events import EventBatch
from ..events.checks import MAX_STEPS
from .dataset import Dataset, LabelledEvents

CLASSES, SPACING = 10, 6
STEPS = 200
PAIRS, DISTRACTORS = 0.04, 0.015  # probability per step; of distractors, on each input
JITTER = 1
LONGEST = CLASSES * SPACING + JITTER
INTERVAL_SAMPLES = (10_000, 2_000)

BITS = 100
ONE, ZERO, MARK = range(3)  # inputs
ADDING_SAMPLES = (60_000, 5_000)


def load_intervals(*, prefix: int = 0) -> Dataset:
    """Generate recordings of two inputs whose class is an interval: 6, 12, ..., 60 steps. No file is read.

    A recording is a window of 200 steps cut from a stationary process. At each step a pair starts with probability
    0.04, also before the window: a spike of input 0, and a spike of input 1 that follows after the interval plus a
    jitter of -1, 0 or 1, all equally probable. Distractors, spikes without a partner, occur on each input with
    probability 0.015 per step. Coinciding spikes of an input count once.

    Only timing tells the classes apart: each input alone has the same distribution in all classes, so the number of its
    spikes and their times carry no information. A classifier that counts, for each interval, the spikes of input 1 that
    come that many steps after a spike of input 0, give or take one, and answers with the interval of the largest count
    (the shortest if several are equal) is right for 97 % of the test samples.

    Args:
        prefix: silent steps before the window.

    Returns:
        A ``Dataset`` of recordings (prefix + 200, B, 2), 10,000 for training and 2,000 for testing, with equally many
        of each class; class c has the interval 6 (c + 1). They are the same on every machine.

    Raises:
        ValueError: ``prefix`` is outside its range.

    Source: this project.

    Example:
        >>> dataset = load_intervals()
        >>> dataset.train.events.shape, dataset.test.labels[:4].tolist()
        ((200, 10000, 2), [0, 1, 2, 3])

    """
    prefix = as_int("prefix", prefix, MAX_STEPS)
    train, test = (_pairs(count, seed, prefix) for seed, count in enumerate(INTERVAL_SAMPLES))
    return Dataset(train, test, CLASSES, (2, 1, 1))


def _pairs(count: int, seed: int, prefix: int) -> LabelledEvents:
    """Generate samples with labels 0, 1, ..., 9, 0, 1, ..."""
    generator, labels = np.random.PCG64(seed), np.arange(count, dtype=np.int64) % CLASSES
    # Column LONGEST is the first step of the window: a pair that starts earlier than column 0 ends before the window.
    sample, started = np.nonzero(_happens(generator, PAIRS, (count, LONGEST + STEPS)))
    jitter = (generator.random_raw(len(started)) % (2 * JITTER + 1)).astype(np.int64) - JITTER
    followed = started + SPACING * (labels[sample] + 1) + jitter
    spikes = np.zeros((count, prefix + STEPS, 2), bool)
    window = spikes[:, prefix:]
    window[:] = _happens(generator, DISTRACTORS, window.shape)
    for input, column in enumerate((started, followed)):
        inside = (column >= LONGEST) & (column < LONGEST + STEPS)
        window[sample[inside], column[inside] - LONGEST, input] = True
    return LabelledEvents(EventBatch.from_dense(spikes.transpose(1, 0, 2)), torch.from_numpy(labels))


def _happens(generator: np.random.PCG64, probability: float, shape: tuple[int, ...]) -> np.ndarray:
    """Independent events. NumPy guarantees the bits of a generator, but not the numbers that it makes of them."""
    happens: np.ndarray = generator.random_raw(math.prod(shape)) < np.uint64(probability * 2**64)
    return happens.reshape(shape)


def load_adding(*, marks: int = 2, prefix: int = 0) -> Dataset:
    """Generate binary adding: 100 random bits, some of them marked; the class is the sum of the marked ones.

    At each step input 0 is active if the bit is 1 and input 1 if it is 0, and input 2 if the bit is marked. The marks
    are at random steps, and all classes are equally probable, so a network must tell at each mark what the bit is, and
    remember it to the end.

    Args:
        marks: the number of marked bits, 1 to 100. The benchmark https://github.com/liyc5929/neuroseqbench has nine,
            and two inputs, the bit and the mark.
        prefix: silent steps before the first bit.

    Returns:
        A ``Dataset`` of recordings (prefix + 100, B, 3), 60,000 for training and 5,000 for testing, of marks + 1
        classes, each with equally many samples or one more. They are the same on every machine.

    Raises:
        ValueError: an argument is outside its range.

    Source: S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997), with bits for numbers.

    Example:
        >>> dataset = load_adding()
        >>> dataset.train.events.shape, dataset.test.labels[:4].tolist()
        ((100, 60000, 3), [0, 1, 2, 0])

    """
    marks = as_int("marks", marks, BITS, minimum=1)
    prefix = as_int("prefix", prefix, MAX_STEPS)
    train, test = (_add(count, seed, marks, prefix) for seed, count in enumerate(ADDING_SAMPLES))
    return Dataset(train, test, marks + 1, (3, 1, 1))


def _add(count: int, seed: int, marks: int, prefix: int) -> LabelledEvents:
    """Generate samples with labels 0, 1, ..., marks, 0, 1, ..."""
    generator, labels = np.random.PCG64(seed), np.arange(count, dtype=np.int64) % (marks + 1)
    bits = generator.random_raw((count, BITS)) % 2 == 1  # NumPy guarantees the bits of a generator
    marked = generator.random_raw((count, BITS)).argsort(1, kind="stable")[:, :marks]
    np.put_along_axis(bits, marked, np.arange(marks) < labels[:, None], 1)
    inputs = np.zeros((prefix + BITS, count, 3), bool)
    inputs[prefix:, :, ONE], inputs[prefix:, :, ZERO] = bits.T, ~bits.T
    inputs[prefix + marked, np.arange(count)[:, None], MARK] = True
    return LabelledEvents(EventBatch.from_dense(inputs), torch.from_numpy(labels))
