"""A network meets a changed sensor, and learns from 100 labelled images: with numpy and scikit-learn, without torch.

    srcell train digits --out runs/digits
    srcell export runs/digits digits.srcell
    python learn.py digits.srcell mine.srcell

The network was trained on scikit-learn's digits, 8 x 8 pixels. Then the sensor's
gain halves and a quarter of its pixels dies. mine.srcell is the learnt network, a
file like the first one.
"""

import argparse
import time

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from srcell import runtime

GAIN, DEAD = 0.5, 16  # of 64 pixels
RATE, PASSES, BATCH = 3e-3, 10, 10


class Sensor:
    """What is left of a sensor: half of its gain, and three quarters of its pixels."""

    def __init__(self, pixels, rng):
        self.gains = np.full(pixels, GAIN, np.float32)
        self.gains[rng.choice(pixels, DEAD, replace=False)] = 0

    def __call__(self, images):
        return images * self.gains


def accuracy(network, images, labels):
    logits = network.run(network.encode(images, seed=1))
    return (logits.argmax(1) == labels).mean()


def learn(network, images, labels, rng):
    """Learn from labelled images; return the learnt network. The given one stays."""
    learner = network.learner(learning_rate=RATE)
    for number in range(PASSES):
        losses, order = [], rng.permutation(len(labels))
        for first in range(0, len(labels), BATCH):
            chosen = order[first : first + BATCH]
            # The number of the pass is the seed of the random spikes.
            events = network.encode(images[chosen], chosen, seed=number)
            losses.append(learner.step(events, labels[chosen], threads=1))
        print(f"pass {number + 1}: loss {np.mean(losses):.3f}")
    return learner.network()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("network", help="a file that srcell export wrote")
    parser.add_argument("learnt", help="the file to write")
    parser.add_argument("--images", type=int, default=100, help="labelled images")
    parser.add_argument("--seed", type=int, default=0, help="of pixels and order")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    digits = load_digits()
    # The split of srcell train: the network has not seen the test images.
    images, tests, labels, answers = train_test_split(
        digits.data.astype(np.float32) / 16,
        digits.target,
        stratify=digits.target,
        random_state=0,
    )
    network = runtime.load(options.network)
    sensor = Sensor(images.shape[1], rng)
    print(f"accuracy: {accuracy(network, tests, answers):.1%}", end=", ")
    before = accuracy(network, sensor(tests), answers)
    print(f"with the changed sensor {before:.1%}")

    start, few = time.perf_counter(), options.images
    learnt = learn(network, sensor(images[:few]), labels[:few], rng)
    learnt.save(options.learnt)
    seconds = time.perf_counter() - start
    after = accuracy(learnt, sensor(tests), answers)
    print(f"after {few} images and {seconds:.1f} s {after:.1%}: {options.learnt}")


if __name__ == "__main__":
    main()
