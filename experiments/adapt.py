"""A network learns where it runs: new speakers, new words and a changed sensor, in srcell.runtime without torch.

    python experiments/adapt.py --data FOLDER --networks FOLDER [--speakers NAME ...] [--parts PART ...]
        [--choose | --times]
    python experiments/adapt.py --images FOLDER --networks FOLDER --drift

The folder of --data holds the Free Spoken Digit Dataset as srcell.data.load_spoken_digits finds it. Each of the six
speakers is held out once. Parts "src" and "gru": three networks, SRC.for_sequences(32, 256) with a linear readout or a
GRU of 128 units, train for ten epochs on the training recordings of the five others (2,250 of the official split), as
in experiments/spoken_digits.py; --networks keeps them. Then each network learns from 1, 3 or 5 recordings of each digit
by the held-out speaker, drawn three times, with loudness and pitch varied in every pass. It is tested on the remaining
recordings of that speaker. "others" is its accuracy on the test recordings (250) of the five other speakers, on which
no network trained. The spiking network learns in srcell.runtime, the GRU in torch: both with Adam at a constant rate
and a gradient norm of at most 1. --choose measures the accuracy for jackson at six rates, with the first network; each
kind of network has its best rates for all speakers. Part "longer": all weights of the spiking network learn in 60
passes in batches of 10, with tempo varied too; this was chosen on jackson, lucas, nicolas and yweweler.

Part "words": a network is trained on the digits 0 to 4 of five speakers. A readout for 5 to 9 replaces its own, and the
sixth speaker teaches these digits.

--drift: the sensor of experiments/results/mnist-100 loses half of its gain and a tenth of its pixels; then the same
with a quarter of the gain left and a third of the pixels dead. The network learns from 200 labelled training images in
one pass, and is tested on the 10,000 test images; the dead pixels and the 200 images are drawn three times. Rate and
batch were chosen on training images 50,000 to 51,999 (the network was trained on them with the first sensor), with
other dead pixels.

--times measures times alone, on one thread, for george: the best of five. Writes experiments/results/adapt.json; what
is there already is not measured anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from spoken_digits import CURRENTS, Gated, Recurrent, fit, varied
from torch import Tensor, nn

import srcell
from srcell import EventBatch, export, runtime
from srcell.data import load_spoken_digits
from srcell.data.spoken_digits import SPEAKERS

RESULTS = Path(__file__).resolve().parent / "results"

Array = np.ndarray[Any, Any]

EPOCHS = 10
RECORDINGS, NETWORKS, DRAWS = (1, 3, 5), 3, 3
CHOSEN_ON, CHOICES = "jackson", (3e-4, 1e-3, 2e-3, 3e-3, 1e-2, 3e-2)  # of rates
WORDS = ("five", "six", "seven", "eight", "nine")


class Settings(NamedTuple):
    passes: int
    batch: int
    rates: dict[str, float]  # by what learns
    tempo: float = 0  # powers of two by which a recording becomes faster or slower


class Sensor(NamedTuple):
    """A sensor of images that has lost gain, and a share of its pixels."""

    gain: float
    dead: float

    def __call__(self, images: Array, draw: int) -> Array:
        pixels = images.reshape(len(images), -1) * np.float32(self.gain)
        count = pixels.shape[1]
        pixels[:, np.random.default_rng((1, draw)).permutation(count)[: round(self.dead * count)]] = 0
        return pixels


SRC = Settings(15, 5, {"readout": 2e-3, "all": 1e-3})
GRU = Settings(15, 5, {"readout": 1e-2, "all": 2e-3})
LONGER = Settings(60, 10, {"all": 1e-3}, tempo=0.4)
NEW_WORDS = Settings(20, 5, {"readout": 3e-3, "all": 3e-3})
SENSORS = {"half the gain, a tenth dead": Sensor(0.5, 0.1), "a quarter of the gain, a third dead": Sensor(0.25, 1 / 3)}
SAMPLES, DRIFT_RATES, DRIFT_BATCHES = 200, (3e-4, 1e-3, 3e-3), (5, 20)
TIMED, BEST = "george", 5
PARTS = ("src", "words", "longer", "gru")
PATH = RESULTS / "adapt.json"


class Recordings:
    """All 3,000 recordings as currents."""

    def __init__(self, folder: str) -> None:
        parts = load_spoken_digits(folder)
        self.currents, labels, speakers, tests = list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
        for sounds, test in ((parts.train, False), (parts.test, True)):
            count = len(sounds.labels)
            events = CURRENTS(sounds.waves, lengths=sounds.lengths)
            currents = events.to_dense()
            self.currents += [currents[:steps, k] for k, steps in enumerate(events.lengths.tolist())]
            labels.append(sounds.labels)
            # Recordings are in the order of digits, speakers and numbers.
            speakers.append(torch.arange(count) * 60 // count % 6)
            tests.append(torch.full((count,), test))
        self.labels, self.speakers, self.tests = (torch.cat(each) for each in (labels, speakers, tests))

    def batch(self, index: Tensor, tempo: float = 0, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Currents (T, B, bands) and lengths; with a tempo, random ones."""
        currents = [self.currents[k] for k in index.tolist()]
        if tempo:
            factors = torch.exp2(tempo * (2 * torch.rand(len(index), generator=generator) - 1)).tolist()
            currents = [
                nn.functional.interpolate(each.T[None], round(len(each) * factor), mode="linear")[0].T
                for each, factor in zip(currents, factors, strict=True)
            ]
        return nn.utils.rnn.pad_sequence(currents), torch.tensor([len(each) for each in currents])

    def of(self, speaker: str, digits: Iterable[int] = range(10)) -> Tensor:
        return self._where((self.speakers == SPEAKERS.index(speaker)) & self._says(digits))

    def of_others(self, speaker: str, tests: bool, digits: Iterable[int] = range(10)) -> Tensor:
        others = self.speakers != SPEAKERS.index(speaker)
        return self._where(others & (self.tests == tests) & self._says(digits))

    def _says(self, digits: Iterable[int]) -> Tensor:
        return torch.isin(self.labels, torch.tensor(list(digits)))

    @staticmethod
    def _where(chosen: Tensor) -> Tensor:
        return chosen.nonzero()[:, 0]


class Learns(Protocol):
    def step(self, x: Tensor, lengths: Tensor, labels: Tensor) -> None: ...
    def answers(self, x: Tensor, lengths: Tensor) -> Tensor: ...


class Spiking:
    """A network of srcell.runtime and its learner, on one thread."""

    def __init__(self, path: Path, learns: str, rate: float, classes: Iterable[str] | None = None) -> None:
        names = None if classes is None else list(classes)
        self.learner = runtime.load(path).learner(rate, learns, classes=names)

    def step(self, x: Tensor, lengths: Tensor, labels: Tensor) -> None:
        self.learner.step(x.numpy(), labels.numpy(), lengths.numpy(), threads=1)

    def answers(self, x: Tensor, lengths: Tensor) -> Tensor:
        return torch.from_numpy(self.learner.network().run(x.numpy(), lengths.numpy(), threads=1)).argmax(1)


class Gating:
    """The GRU, and Adam of torch."""

    def __init__(self, path: Path, learns: str, rate: float) -> None:
        self.network = Gated(CURRENTS.inputs)
        self.network.load_state_dict(torch.load(path))
        if learns == "readout":
            self.network.layer.requires_grad_(False)
        self.learnt = [x for x in self.network.parameters() if x.requires_grad]
        self.optimizer = torch.optim.Adam(self.learnt, rate)

    def step(self, x: Tensor, lengths: Tensor, labels: Tensor) -> None:
        loss = nn.functional.cross_entropy(self.network(x, lengths), labels)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.learnt, 1.0)
        self.optimizer.step()

    @torch.no_grad()
    def answers(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.network(x, lengths).argmax(1)


KINDS: dict[str, type[Spiking] | type[Gating]] = {"src": Spiking, "gru": Gating}
Make = Callable[
    [int], Callable[[str, float], Learns]
]  # from the number of the network; then from what learns, and the rate
SETTINGS = {"src": SRC, "longer": LONGER, "gru": GRU}


def trained(recordings: Recordings, kind: str, speaker: str, digits: range, folder: Path, seed: int = 0) -> Path:
    """The file of a network that never heard the speaker; trains it if there is none."""
    suffix = ".srcell" if kind == "src" else ".pt"
    path = folder / f"{kind}-{speaker}-{digits[0]}-{digits[-1]}-{seed}{suffix}"
    if path.exists():
        return path
    torch.manual_seed(seed)
    generator, begin = torch.Generator().manual_seed(seed), time.perf_counter()
    index = recordings.of_others(speaker, False, digits)
    events = EventBatch.from_dense(*recordings.batch(index))
    network = Recurrent(CURRENTS.inputs) if kind == "src" else Gated(CURRENTS.inputs)
    fit(network, events, recordings.labels[index], CURRENTS, generator, EPOCHS)
    if isinstance(network, Recurrent):
        exported = nn.Sequential(srcell.SpikesOnly(network.layer), network.readout)
        exported.encoder = CURRENTS
        export(exported, path)
    else:
        torch.save(network.state_dict(), path)
    print(f"trained {path.name} in {time.perf_counter() - begin:.0f} s", flush=True)
    return path


def drawn(recordings: Recordings, index: Tensor, each: int, draw: int) -> tuple[Tensor, Tensor]:
    """As many recordings of each digit, and the rest."""
    generator = torch.Generator().manual_seed(draw)
    mixed = index[torch.randperm(len(index), generator=generator)]
    digits = recordings.labels[mixed]
    chosen = torch.cat([mixed[digits == digit][:each] for digit in digits.unique()])
    return chosen, mixed[~torch.isin(mixed, chosen)]


def adapt(
    network: Learns, recordings: Recordings, index: Tensor, settings: Settings, seed: int, first: int = 0
) -> float:
    """Learn from recordings; return the seconds."""
    generator, begin = torch.Generator().manual_seed(seed), time.perf_counter()
    for _ in range(settings.passes):
        for batch in index[torch.randperm(len(index), generator=generator)].split(settings.batch):
            x, lengths = recordings.batch(batch, settings.tempo, generator)
            network.step(varied(x, CURRENTS, generator), lengths, recordings.labels[batch] - first)
    return time.perf_counter() - begin


def accuracy(network: Learns, recordings: Recordings, index: Tensor, first: int = 0) -> float:
    """In percent."""
    right = [
        network.answers(*recordings.batch(batch)) == recordings.labels[batch] - first for batch in index.split(100)
    ]
    return 100 * float(torch.cat(right).double().mean())


def rows(
    make: Make,
    recordings: Recordings,
    index: Tensor,
    others: Tensor | None,
    settings: Settings,
    first: int = 0,
    networks: int = NETWORKS,
) -> dict[str, Any]:
    """The accuracies by what learns and the number of recordings of each digit; of the others' too if given."""
    found: dict[str, Any] = {}
    if others is not None:
        untaught = [make(number)("all", 1e-3) for number in range(networks)]
        heard = {"accuracy": index, "others": others}
        found["before"] = {
            name: float(np.mean([accuracy(network, recordings, part) for network in untaught]))
            for name, part in heard.items()
        }
    for learns, rate in settings.rates.items():
        found[learns] = {}
        for each in RECORDINGS:
            draws, kept = np.zeros((networks, DRAWS)), []
            for number, draw in np.ndindex(draws.shape):
                chosen, rest = drawn(recordings, index, each, draw)
                network = make(number)(learns, rate)
                adapt(network, recordings, chosen, settings, draw, first)
                draws[number, draw] = accuracy(network, recordings, rest, first)
                if others is not None:
                    kept.append(accuracy(network, recordings, others))
            row = {"accuracy": draws.mean(), "draws": draws.tolist()}
            found[learns][str(each)] = row | ({"others": float(np.mean(kept))} if kept else {})
    return found


def shown(name: str, found: dict[str, Any]) -> None:
    before = found.get("before")
    cells = [f"{before['accuracy']:.1f} (others {before['others']:.1f})"] if before else []
    for each in map(str, RECORDINGS):
        parts = [found[learns][each] for learns in ("readout", "all") if learns in found]
        cells.append(" / ".join(f"{part['accuracy']:.1f}" for part in parts))
        if before:
            cells[-1] += " (others " + " / ".join(f"{part['others']:.1f}" for part in parts) + ")"
    print(f"{name:16s} | " + " | ".join(cells), flush=True)


def part_of(part: str, recordings: Recordings, speaker: str, folder: Path) -> dict[str, Any]:
    kind, digits = ("gru" if part == "gru" else "src"), range(5 if part == "words" else 10)

    def make(number: int) -> Callable[[str, float], Learns]:
        path = trained(recordings, kind, speaker, digits, folder, number)
        return partial(Spiking, path, classes=WORDS) if part == "words" else partial(KINDS[kind], path)

    if part == "words":
        return rows(make, recordings, recordings.of(speaker, range(5, 10)), None, NEW_WORDS, first=5)
    settings, others = SETTINGS[part], recordings.of_others(speaker, True)
    return rows(make, recordings, recordings.of(speaker), others, settings)


def choose(recordings: Recordings, folder: Path) -> dict[str, Any]:
    """Accuracies by network, what learns and the rate: means over the numbers of recordings and the draws."""
    index, found = recordings.of(CHOSEN_ON), dict[str, Any]()
    for part, kind in KINDS.items():
        make = partial(kind, trained(recordings, part, CHOSEN_ON, range(10), folder))
        found[part] = {learns: {} for learns in SRC.rates}
        for rate in CHOICES:
            settings = SRC._replace(rates=dict.fromkeys(SRC.rates, rate))
            made = rows(lambda _: make, recordings, index, None, settings, networks=1)  # noqa: B023
            for learns in SRC.rates:
                found[part][learns][str(rate)] = float(np.mean([row["accuracy"] for row in made[learns].values()]))
    print(json.dumps(found, indent=2), flush=True)
    return found


class Images(NamedTuple):
    """A network and images, which a sensor may change."""

    network: runtime.Network
    pixels: Array
    labels: Array

    def accuracy(self, network: runtime.Network | None = None) -> float:
        """In percent, of the network or of a learnt one."""
        right = 0
        for first in range(0, len(self.labels), 500):
            index = np.arange(first, min(first + 500, len(self.labels)))
            events = self.network.encode(self.pixels[index], index, seed=1)
            right += int(((network or self.network).run(events, threads=1).argmax(1) == self.labels[index]).sum())
        return 100 * right / len(self.labels)

    def learnt(self, rate: float, batch: int) -> runtime.Learner:
        """One pass over the images."""
        learner = self.network.learner(rate)
        for first in range(0, len(self.labels), batch):
            index = np.arange(first, min(first + batch, len(self.labels)))
            learner.step(self.network.encode(self.pixels[index], index), self.labels[index], threads=1)
        return learner


def drift(folder: str, exported: Path) -> dict[str, Any]:
    """Accuracies on the test digits of MNIST as the sensor changes, and after learning from 200 training digits."""
    srcell.load(RESULTS / "mnist-100").export(exported)
    dataset, network = srcell.data.load("mnist", folder), runtime.load(exported)
    train, test = ((x.images.numpy(), x.labels.numpy()) for x in (dataset.train, dataset.test))

    def seen(sensor: Sensor, samples: Any, draw: int, index: Any = slice(None)) -> Images:
        return Images(network, sensor(samples[0][index], draw), samples[1][index])

    def samples_of(sensor: Sensor, draw: int) -> Images:
        mixed = np.random.default_rng((2, draw)).permutation(50_000)
        return seen(sensor, train, draw, mixed[:SAMPLES])

    found: dict[str, Any] = {"before": seen(Sensor(1, 0), test, 0).accuracy()}
    for name, sensor in SENSORS.items():
        choices: dict[str, float] = {}
        for rate in DRIFT_RATES:
            for batch in DRIFT_BATCHES:
                scores = []
                for draw in range(10, 10 + DRAWS):  # other dead pixels and other images
                    learner = samples_of(sensor, draw).learnt(rate, batch)
                    scores.append(seen(sensor, train, draw, slice(50_000, 52_000)).accuracy(learner.network()))
                choices[f"{rate}, {batch}"] = float(np.mean(scores))
        rate, batch = max(choices, key=lambda key: choices[key]).split(", ")
        changed, after = [], []
        for draw in range(DRAWS):
            of_test = seen(sensor, test, draw)
            changed.append(of_test.accuracy())
            after.append(of_test.accuracy(samples_of(sensor, draw).learnt(float(rate), int(batch)).network()))
        found[name] = {
            "sensor": sensor._asdict(),
            "changed": float(np.mean(changed)),
            "after": float(np.mean(after)),
            "draws": {"changed": changed, "after": after},
            "rate": float(rate),
            "batch": int(batch),
            "choices": choices,
        }
        print(f"{name}: {found['before']:.2f} | {found[name]['changed']:.2f} | {found[name]['after']:.2f}", flush=True)
    return found


def times(recordings: Recordings, folder: Path) -> dict[str, Any]:
    """Seconds of adaptations on one thread, and bytes, for the network of one speaker."""
    found: dict[str, Any] = {"speaker": TIMED}
    index = recordings.of(TIMED)
    for part, settings in SETTINGS.items():
        kind = "gru" if part == "gru" else "src"
        path = trained(recordings, kind, TIMED, range(10), folder)
        found[part] = {learns: {} for learns in settings.rates}
        for learns, rate in settings.rates.items():
            for each in RECORDINGS:
                chosen, _ = drawn(recordings, index, each, 0)
                found[part][learns][str(each)] = min(
                    adapt(KINDS[kind](path, learns, rate), recordings, chosen, settings, 0) for _ in range(BEST)
                )
    path = trained(recordings, "src", TIMED, range(10), folder)
    found["bytes"] = {"network": path.stat().st_size}
    generator = torch.Generator().manual_seed(0)
    utterance = torch.randn(60, 1, CURRENTS.inputs, generator=generator), torch.tensor([60]), torch.tensor([3])
    found["step_of_60_ms"] = {}
    for learns, rate in SRC.rates.items():
        network, seconds = Spiking(path, learns, rate), []
        learner = network.learner
        for _ in range(20 * BEST):
            begin = time.perf_counter()
            network.step(*utterance)
            seconds.append(time.perf_counter() - begin)
        found["step_of_60_ms"][learns] = 1000 * min(np.median(part) for part in np.split(np.array(seconds), BEST))
        found["bytes"][f"scratch_of_60_{learns}"] = learner._learner.scratch_bytes
        found["bytes"][f"state_{learns}"] = len(learner.save())
        adapt(network, recordings, drawn(recordings, index, 5, 0)[0], SRC, 0)
        found["bytes"][f"scratch_{learns}"] = learner._learner.scratch_bytes
    print(json.dumps(found, indent=2), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of the spoken digits")
    parser.add_argument("--images", help="folder of MNIST")
    parser.add_argument("--networks", type=Path, required=True, help="folder where networks are kept")
    parser.add_argument("--speakers", nargs="+", default=SPEAKERS, choices=SPEAKERS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--choose", action="store_true", help="compare learning rates")
    parser.add_argument("--drift", action="store_true", help="a sensor that changes")
    parser.add_argument("--times", action="store_true", help="measure times alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.networks.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(PATH.read_text()) if PATH.exists() else {}

    def add(**found: Any) -> None:
        results.update(found)
        results["settings"] = about()
        PATH.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")

    if arguments.drift:
        add(drift=drift(arguments.images, arguments.networks / "mnist-100.srcell"))
        return
    recordings = Recordings(arguments.data)
    if arguments.choose:
        add(choices=choose(recordings, arguments.networks))
    elif arguments.times:
        add(times=times(recordings, arguments.networks))
    else:
        for speaker in arguments.speakers:
            for part in arguments.parts:
                of_part = results.get(part, {})
                if speaker not in of_part:
                    of_part[speaker] = part_of(part, recordings, speaker, arguments.networks)
                    add(**{part: of_part})
                shown(f"{speaker} {part}", of_part[speaker])


def about() -> dict[str, Any]:
    return {
        "commands": [
            "python experiments/adapt.py --data FOLDER --networks FOLDER",
            "python experiments/adapt.py --data FOLDER --networks FOLDER --choose",
            "python experiments/adapt.py --data FOLDER --networks FOLDER --times",
            "python experiments/adapt.py --images FOLDER --networks FOLDER --drift",
        ],
        "src": SRC._asdict(),
        "longer": LONGER._asdict(),
        "gru": GRU._asdict(),
        "words": NEW_WORDS._asdict(),
        "networks": NETWORKS,
        "draws": DRAWS,
        "epochs": EPOCHS,
        "encoding": dataclasses.asdict(CURRENTS),
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": 1,
    }


if __name__ == "__main__":
    main()
