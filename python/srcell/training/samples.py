"""A run's data set, its split into training and validation samples, and its encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from .. import data
from ..data import Dataset, LabelledEvents, LabelledSounds, Samples, SoundEncoding
from ..data.encodings import Encoding
from ..data.loader import derived_seed
from ..data.own import is_code, is_own, load_once
from ..events import EventBatch
from .config import TrainingConfig
from .options import RunOptions, data_folder

EVALUATION_BATCH = 512
EVALUATION_SEED = 0
VALIDATION = 3  # purpose of a derived seed; data/loader.py has others


def load_data(config: TrainingConfig, options: RunOptions, run: object = None) -> Dataset:
    """Load the data set of a run; sounds are encoded, once for all epochs.

    ``run`` is the folder that the configuration was read from, if it was: code that a file names is not run.

    Raises:
        FileNotFoundError: the data set is missing; the message says where it was looked for.
        ValueError, ImportError: as in ``srcell.data.load``.

    """
    if is_own(config.dataset):
        name = config.dataset
        if run is not None and options.data is not None:
            name = str(options.data)
        elif run is not None and is_code(name):
            raise ValueError(f"{run}: its samples come from code: --data {name} runs it, if you trust it")
        return encoded(load_once(name), make_encoding(config))
    root = Path(data_folder(options))
    try:
        loaded = data.load(config.dataset, root, download=options.download, cache=options.cache, prefix=config.prefix)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} (looked in {root.absolute()})") from error
    return encoded(loaded, make_encoding(config))


def encoded(dataset: Dataset, encoding: Encoding | None) -> Dataset:
    """The data set, with its sounds encoded: once, for all epochs. Of a camera, it gets the shape of the inputs."""
    if isinstance(encoding, data.CameraEncoding):
        return dataset._replace(input_shape=(2, *encoding.sensor_size))
    sounds = dataset.train, dataset.test
    if not isinstance(encoding, SoundEncoding) or not isinstance(dataset.train, LabelledSounds):
        return dataset
    train, test = (_encoded(samples, encoding) for samples in sounds)
    return dataset._replace(train=train, test=test, input_shape=(encoding.inputs, 1, 1))


def _encoded(samples: Samples, encoding: SoundEncoding) -> LabelledEvents:
    if not isinstance(samples, LabelledSounds) or samples.rate != encoding.rate:
        raise ValueError(f"dataset: expected sounds of {encoding.rate} Hz, got {samples!r:.80}")
    return LabelledEvents(encoding(samples.waves, lengths=samples.lengths), samples.labels)


def make_encoding(config: TrainingConfig) -> Encoding | None:
    """The encoder of a run's images, sequences or sounds; None for recordings of events."""
    kind = config.sample_kind(config.dataset)
    if kind == "events":
        return None
    if kind == "sounds":
        return SoundEncoding(frame=config.frame, hold=config.hold, threshold=config.threshold)
    if kind == "sequences":
        return data.HeldEncoding(config.hold, config.prefix)
    if config.dataset == "delayed-recall":
        return data.RecallEncoding(config.recall_delay)
    if config.encoding == "latency":
        return data.LatencyEncoding(config.steps, config.prefix)
    if config.encoding == "camera":
        return data.CameraEncoding(noise=config.noise, size_jitter=config.size_jitter, place_jitter=config.place_jitter)
    return data.RateEncoding(config.steps, config.gain, config.prefix, config.thinned)


def split(config: TrainingConfig, samples: Samples) -> tuple[Samples, Samples]:
    """The training samples and the validation samples, drawn by the run's seed.

    Raises:
        ValueError: there are fewer samples than ``config.train_samples``, or none is left to train on.

    """
    count = len(samples.labels)
    if config.skip_samples:
        samples = samples.select(torch.arange(min(config.skip_samples, count), count))
        count = len(samples.labels)
    generator = torch.Generator().manual_seed(derived_seed(config.seed, VALIDATION))
    order = torch.randperm(count, generator=generator)
    held_out = round(config.validation * count)
    if held_out == count:
        raise ValueError(
            f"validation: expected a fraction that leaves a sample to train on, got {config.validation} of {count}"
        )
    wanted = config.train_samples or count - held_out
    if wanted > count - held_out:
        raise ValueError(f"train_samples: expected at most {count - held_out}, the number available, got {wanted}")
    training = order[held_out : held_out + wanted]
    return samples.select(training.sort().values), samples.select(order[:held_out].sort().values)


CHECKED = 64  # samples of a part that stand for all of it


def some_of(samples: Samples) -> Iterator[Tensor]:
    """The tensors of at most CHECKED samples, whole, at equal distances."""
    count = len(samples.labels)
    most = min(count, CHECKED)
    content, *_ = samples.select(torch.arange(most) * count // max(most, 1))
    found = content._tensors() if isinstance(content, EventBatch) else (content,)
    yield from (x for x in found if x is not None)


def checksum(tensors: Iterable[Tensor]) -> int:
    """CRC-32 of the tensors' bytes, one after the other."""
    found = 0
    for x in tensors:
        found = crc32(x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes(), found)
    return found
