"""``srcell adapt``: an exported network learns from a data set, and the result is a new file."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import srcell

from .. import data
from .._shared.files import check_output
from ..data import Dataset, EventLoader, LabelledImages, LabelledSequences, LabelledSounds
from ..data.encodings import Encoding
from .options import named
from .parser import Parser, new_command
from .terminal import say

ENCODINGS = (data.RateEncoding, data.LatencyEncoding, data.CameraEncoding, data.HeldEncoding, data.SoundEncoding)
ENCODINGS_OF = {  # kinds of samples; recordings of events need none
    LabelledImages: ENCODINGS[:3],
    LabelledSequences: (data.HeldEncoding, type(None)),
    LabelledSounds: (data.SoundEncoding,),
}
PASSES, BATCH, RATE = 15, 5, 1e-3
EVALUATED_AT_ONCE = 100  # samples

TEXT = """\
Let an exported network learn from samples that it was not trained on, such as
recordings of a new voice, and write the result to a new file. The network's
encoder turns the samples into events. The file that was read stays as it is,
unless it is also the one to write.

The samples are those of a data set's training part; the accuracy on its test
part is printed before and after. Classes are matched to the network's by name,
if its file has their names; otherwise there must be as many, and labels are
numbered as in its training."""
EXAMPLES = """\
examples:
  srcell adapt words.srcell my-voice/ -o mine.srcell
  srcell adapt words.srcell other-words/ -o others.srcell --new-classes --lr 3e-3"""


def add_command(commands: argparse._SubParsersAction[Parser], line: str) -> None:
    """Add ``srcell adapt``."""
    parser = new_command(commands, "adapt", line, TEXT, f"Defaults in brackets.\n\n{EXAMPLES}")
    option = parser.add_argument
    option("network", type=Path, metavar="NET", help="exported network, by convention NAME.srcell")
    option("dataset", metavar="DATASET", help="a folder of your own, FILE.py:FUNCTION, or a name as of srcell train")
    option("-o", "--out", type=Path, required=True, metavar="FILE", help="the file to write")
    option("--data", type=Path, default=Path("data"), metavar="DIR", help="folder of the data sets with names [data]")
    option("--layers", choices=("all", "readout"), default="all", help="the weights that learn [all]")
    option("--new-classes", action="store_true", help="replace the linear readout by one for the data set's classes")
    option("--passes", type=int, default=PASSES, metavar="N", help=f"passes over the samples [{PASSES}]")
    option("--batch-size", type=int, default=BATCH, metavar="N", help=f"samples per step [{BATCH}]")
    option("--lr", dest="learning_rate", type=float, default=RATE, metavar="X", help=f"learning rate [{RATE:g}]")
    option("--seed", type=int, default=0, metavar="N", help="seed of the order and of random spikes [0]")
    parser.set_defaults(run=adapt)


def adapt(arguments: argparse.Namespace) -> None:
    """Learn, print the loss of each pass and the accuracy before and after, and write the new network.

    Raises:
        ValueError: an option, the network or the data set is not valid, or they do not fit one another.
        OSError: a file cannot be read or written.

    """
    if arguments.passes < 1:
        raise ValueError(f"passes: expected at least 1, got {arguments.passes}")
    check_output(arguments.out)
    network = srcell.runtime.load(arguments.network)
    name = named(arguments.dataset)
    dataset = data.load(name, arguments.data)
    encoding = encoding_of(network)
    check_encoding(encoding, dataset, name)
    classes = None
    if not arguments.new_classes:
        dataset = renumbered(dataset, network)
    elif dataset.train.labels.is_floating_point():
        raise ValueError("new_classes: expected a data set of classes, got one of values")
    else:
        classes = list(dataset.class_names or map(str, range(dataset.num_classes)))
    try:
        loader = EventLoader(dataset.train, encoding, arguments.batch_size, shuffle=True, seed=arguments.seed)
        next(iter(loader))
    except TypeError as error:  # a setting of the file, found when the encoding is first used
        raise ValueError(f"encoder: {error}") from None
    learner = network.learner(arguments.learning_rate, arguments.layers, classes=classes)
    if classes is None:
        say(f"before: {result_of(network, dataset, encoding)}")
    learn(learner, loader, arguments.passes)
    better = learner.network()
    say(f"after: {result_of(better, dataset, encoding)}")
    better.save(arguments.out)


def learn(learner: srcell.runtime.Learner, loader: EventLoader, passes: int) -> None:
    """Learn in so many passes, and print the loss of each."""
    for number in range(1, passes + 1):
        loader.set_epoch(number)
        losses = [(learner.step(events, labels), len(labels)) for events, labels in loader]
        mean = sum(loss * count for loss, count in losses) / sum(count for _, count in losses)
        say(f"pass {number}: loss {mean:.4f}")


def encoding_of(network: srcell.runtime.Network) -> Encoding | None:
    """The encoder with which a network was exported, or None."""
    settings = dict(network.encoder or {})
    name = settings.pop("name", None)
    kind = next((kind for kind in ENCODINGS if kind.__name__ == name), None)
    if kind is None:
        if name is not None:
            raise ValueError(f"encoder: expected one of {', '.join(x.__name__ for x in ENCODINGS)}, got {name!r:.60}")
        return None
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := set(settings) - known:
        raise ValueError(f"encoder: expected settings of {name}, got {min(unknown)!r:.60}")
    try:
        return kind(**{key: frozen(value) for key, value in settings.items()})
    except TypeError as error:
        raise ValueError(f"encoder: {error}") from None


def frozen(value: Any) -> Any:
    """A list of JSON as the tuple that it was."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


def check_encoding(encoding: Encoding | None, dataset: Dataset, name: str) -> None:
    """Raise unless a network with this encoding takes the samples of a data set, and there are some to learn from."""
    if not len(dataset.train.labels):
        raise ValueError(f"dataset: expected at least one training sample, got none in {name}")
    fitting = ENCODINGS_OF.get(type(dataset.train))
    if fitting and not isinstance(encoding, fitting):
        *others, last = (kind.__name__ for kind in fitting if kind is not type(None))
        wanted = f"{', '.join(others)} or {last}" if others else last
        got = "none" if encoding is None else type(encoding).__name__
        raise ValueError(f"network: expected one that was exported with a {wanted} for {name}, got {got}")


def renumbered(dataset: Dataset, network: srcell.runtime.Network) -> Dataset:
    """The data set with the numbers of the network's classes as labels: by their names, if both have names."""
    known, names = network.classes or [], dataset.class_names
    if not known or not names or dataset.train.labels.is_floating_point():
        if dataset.num_classes != network.num_classes:
            raise ValueError(
                f"dataset: expected the network's {network.num_classes} classes, or --new-classes, got "
                f"{dataset.num_classes}"
            )
        return dataset
    try:
        return dataset.numbered_as(known)
    except ValueError as error:
        raise ValueError(f"{error}; --new-classes replaces the network's classes") from None


def result_of(network: srcell.runtime.Network, dataset: Dataset, encoding: Encoding | None) -> str:
    """The accuracy on the test part, or the mean squared error of values."""
    right, squares, answers = 0, 0.0, 0
    for events, wanted in EventLoader(dataset.test, encoding, EVALUATED_AT_ONCE):
        every_step = wanted.dim() > (2 if wanted.is_floating_point() else 1)
        outputs = torch.from_numpy(network.run(events, every_step=every_step))
        if every_step:
            outputs, wanted = within_lengths(outputs.transpose(0, 1), wanted, events.lengths)
        if wanted.is_floating_point():
            squares += float((outputs - wanted).square().mean(-1).sum())
        else:
            right += int((outputs.argmax(-1) == wanted).sum())
        answers += len(wanted)
    if not answers:
        return "no test samples"
    if dataset.test.labels.is_floating_point():
        return f"mean squared error {squares / answers:.4g} of {answers} answers"
    return f"{100 * right / answers:.1f} % of {answers} answers"


def within_lengths(outputs: Tensor, wanted: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    """The answers (B, T, ...) at the steps of the samples, one after another."""
    batch, steps = wanted.shape[:2]
    ends = torch.full((batch,), steps) if lengths is None else lengths
    inside = torch.arange(steps) < ends[:, None]
    return outputs[inside], wanted[inside]
