"""The lesson of ``srcell listen --teach``: words to ask for, and what the network learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import srcell

from ..data import EventLoader, LabelledSounds
from .adapt import BATCH, PASSES, encoding_of, learn
from .terminal import say

Floats = NDArray[np.float32]


class Lesson:
    """Asks for words and keeps what was heard.

    Args:
        network: learns from them.
        names: of its classes.
        words: those of them to ask for; none: all.
        times: how often.

    Attributes:
        recordings: samples and label of each word that was heard.

    Raises:
        ValueError: a word is no class of the network, or there are two of one name; or not all layers can learn.

    """

    def __init__(self, network: srcell.runtime.Network, names: Sequence[str], words: Sequence[str], times: int) -> None:
        self.network, self.names, self.learner = network, names, network.learner()
        self.encoding = encoding_of(network)
        for word in words:
            if list(names).count(word) != 1 or list(words).count(word) != 1:
                raise ValueError(f"teach: expected different names of {', '.join(names)!s:.200}, got {word!r:.60}")
        self.order = ([names.index(word) for word in words] or [*range(len(names))]) * times
        self.recordings: list[tuple[Floats, int]] = []

    @property
    def question(self) -> str:
        """The next word to say."""
        number = len(self.recordings)
        return f"say {self.names[self.order[number]]} ({number + 1} of {len(self.order)})"

    def take(self, word: Sequence[Floats]) -> bool:
        """Take the word that was asked for; return whether it was the last."""
        self.recordings.append((np.concatenate(word), self.order[len(self.recordings)]))
        return len(self.recordings) == len(self.order)

    def learn(self, rate: int, out: Path) -> None:
        """Learn from the words, at this sampling rate (Hz), and write the new network.

        Raises:
            ValueError: a word is missing.
            OSError: the file cannot be written.

        """
        if len(self.recordings) < len(self.order):
            raise ValueError(
                f"teach: expected {len(self.order)} words in the sound, got {len(self.recordings)}: is --quiet right?"
            )
        waves, labels = zip(*self.recordings, strict=True)
        sounds = LabelledSounds.of([torch.from_numpy(wave) for wave in waves], list(labels), rate)
        learn(self.learner, EventLoader(sounds, self.encoding, BATCH, shuffle=True), PASSES)
        better = self.learner.network()
        right = [
            sum(answer_of(network, wave) == label for wave, label in self.recordings)
            for network in (self.network, better)
        ]
        say(f"right of {len(labels)} recordings: {right[0]} before, {right[1]} after")
        better.save(out)


def answer_of(network: srcell.runtime.Network, wave: Floats) -> int:
    """The class that a network names at the end of a sound."""
    stream = network.stream()
    stream.hear(wave)
    return int(stream.logits()[0].argmax())
