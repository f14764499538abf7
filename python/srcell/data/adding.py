"""Binary adding: generated recordings whose class is the sum of the marked bits.

Only ``srcell.data`` calls this.
"""

from __future__ import annotations

import numpy as np
import torch

from .._arguments import as_int
from ..events import EventBatch
from ..events.checks import MAX_STEPS
from .dataset import Dataset, LabelledEvents

STEPS = 100
ONE, ZERO, MARK = range(3)  # inputs
SAMPLES = (60_000, 5_000)


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
    marks = as_int("marks", marks, STEPS, minimum=1)
    prefix = as_int("prefix", prefix, MAX_STEPS)
    train, test = (_record(count, seed, marks, prefix) for seed, count in enumerate(SAMPLES))
    return Dataset(train, test, marks + 1, (3, 1, 1))


def _record(count: int, seed: int, marks: int, prefix: int) -> LabelledEvents:
    """Generate samples with labels 0, 1, ..., marks, 0, 1, ..."""
    generator, labels = np.random.PCG64(seed), np.arange(count, dtype=np.int64) % (marks + 1)
    bits = generator.random_raw((count, STEPS)) % 2 == 1  # NumPy guarantees the bits of a generator
    marked = generator.random_raw((count, STEPS)).argsort(1, kind="stable")[:, :marks]
    np.put_along_axis(bits, marked, np.arange(marks) < labels[:, None], 1)
    inputs = np.zeros((prefix + STEPS, count, 3), bool)
    inputs[prefix:, :, ONE], inputs[prefix:, :, ZERO] = bits.T, ~bits.T
    inputs[prefix + marked, np.arange(count)[:, None], MARK] = True
    return LabelledEvents(EventBatch.from_dense(inputs), torch.from_numpy(labels))
