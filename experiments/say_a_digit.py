"""Say a digit: the network of spoken digits on the documentation's interactive page, trained for microphones in rooms.

    python experiments/say_a_digit.py --data FOLDER [--speakers [--networks FOLDER] |
        --teach --networks FOLDER | --sure]

FOLDER holds the Free Spoken Digit Dataset as srcell.data.load_spoken_digits finds it. The network is a layer of SRC
neurons with a linear readout of ten digits and an eleventh class, "no digit". It trains on 12 copies of each recording
of the official training split: up to 10 % faster or slower, half of them with echoes of a room, all through a
microphone with a tilted spectrum, at a random loudness, with up to 0.4 s of quiet before and after, seven in eight with
white to brown noise 5 to 40 dB below the word. In each pass the bands are stretched and the loudness changes, as in
experiments/spoken_digits.py. One copy in eight is no digit: noise alone, clicks and tones, or a recording played
backwards. The loss counts the steps before a word, when the answer is "no digit", and those after it, so that the
network answers while a sound lasts. The settings were chosen on recordings 5 to 9 of each speaker and digit, which are
training recordings. The test recordings were evaluated twice: after the first time, one copy in eight lost its noise.

It writes digits.srcell and digits.json, with the accuracies on the 300 test recordings, to
experiments/results/say-a-digit. With --speakers it trains six other networks instead, each without one of the speakers,
tests it on that speaker's 500 recordings, and adds these accuracies to digits.json. --networks keeps them as
SPEAKER.srcell, and does not train again what is there. With --teach these networks learn from 1, 3 or 5 recordings of
each digit by the speaker whom they never heard, in the lessons of the page, in node. They are tested on the rest of the
speaker's recordings, clean; means of three draws. Other networks that were trained on the digits 0 to 4 of five
speakers learn 5 to 9 of the sixth, as words of one's own. With --sure it trains nothing: it adds how often
digits.srcell names a digit with a probability of at least 0.9, which the page calls sure, and how often it is then
right, on the test recordings and on words that espeak-ng speaks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.signal import resample_poly
from spoken_digits import SPEAKERS, dense, varied
from torch import Tensor, nn

import srcell
from srcell import export, runtime
from srcell.data import LabelledSounds, SoundEncoding, load_spoken_digits

RESULTS = Path(__file__).resolve().parent / "results"

NEURONS, CLASSES, NONE = 160, 11, 10  # ten digits, and "no digit"
COPIES, PASSES, BATCH, RATE, SEED = 12, 12, 64, 5e-3, 0
TAUGHT, DRAWS = (1, 3, 5), 3  # recordings of each word
WASM = RESULTS.parent.parent / "build" / "wasm32" / "srcell.wasm"
FIRST_NEW = 5  # digits from this one on are the words that the networks SPEAKER.words.srcell never heard
LEAK = 0.98  # of the readout's sums
ENCODING = SoundEncoding(adaptation=1.0, offset=0.0)
QUIETEST, LOUDEST = 0.004, 0.15  # root mean square of a word
SURE = 0.9  # probability; the page's bound in docs/_static/play/sound-views.js, chosen on other voices of espeak-ng
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = (
    "en-gb-x-gbclan",
    "en-us+m1",
    "en-us+m3",
    "en-us+m4",
    "en-us+m5",
    "en-us+m6",
    "en-us+m8",
    "en-us+f5",
    "en-us+steph",
    "en-us+Andy",
)
SPEEDS = (130, 175)  # words per minute
Wave = NDArray[np.float64]


class Digits(nn.Module):
    """SRC.for_sequences, and logits at every step."""

    def __init__(self) -> None:
        super().__init__()
        # The cell of srcell 0.2, with which the network of the page was trained.
        self.layer = srcell.SRC.for_sequences(ENCODING.inputs, NEURONS, rho=3.0, rs=-7.0, zs_hyp=0.5)
        self.readout = srcell.LinearReadout(NEURONS, CLASSES, alpha=LEAK)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        spikes, _ = self.layer(srcell.EventBatch.from_dense(x, lengths))
        logits: Tensor = self.readout(spikes, lengths, every_step=True)
        return logits


def rms(wave: Wave) -> float:
    return float(np.sqrt(np.mean(wave**2)))


def noise(count: int, draw: np.random.Generator, exponent: float) -> Wave:
    """Noise of power 1 whose power falls with frequency to this exponent: 0 white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(draw.standard_normal(count + 1))
    spectrum *= np.maximum(np.fft.rfftfreq(count + 1, 1 / ENCODING.rate), 50) ** (-exponent / 2)
    made = np.fft.irfft(spectrum, count + 1)[:count]
    return made / rms(made)


def said(wave: Wave, draw: np.random.Generator) -> Wave:
    """The word at another speed, in a room, through a microphone; its first sample is where it was."""
    count = round(len(wave) * draw.uniform(0.9, 1.1))
    wave = np.interp(np.linspace(0, len(wave) - 1, count), np.arange(len(wave)), wave)
    size = 1 << (len(wave) + 2400).bit_length()
    spectrum = np.fft.rfft(wave, size)
    if draw.random() < 0.5:  # echoes that fall by 60 dB in 0.1 to 0.4 s
        t = np.arange(2400) / ENCODING.rate
        echo = draw.standard_normal(2400) * 10 ** (-3 * t / draw.uniform(0.1, 0.4))
        echo *= draw.uniform(0.1, 1) / math.sqrt(float(np.sum(echo**2)))
        echo[0] += 1
        spectrum *= np.fft.rfft(echo, size)
    frequencies = np.clip(np.fft.rfftfreq(size, 1 / ENCODING.rate), 100, None)
    spectrum *= (frequencies / 1000) ** draw.uniform(-0.5, 0.5)  # 3 dB for each octave
    return np.fft.irfft(spectrum, size)[:count]


def clatter(draw: np.random.Generator) -> Wave:
    """A few clicks, and a tone or none."""
    wave = np.zeros(round(draw.uniform(0.1, 0.6) * ENCODING.rate))
    t = np.arange(len(wave)) / ENCODING.rate
    for _ in range(draw.integers(0, 4)):
        at = draw.integers(len(wave))
        length = min(len(wave) - at, round(draw.uniform(0.003, 0.15) * ENCODING.rate))
        wave[at : at + length] += noise(length, draw, draw.uniform(0, 2)) * np.exp(-5 * np.arange(length) / length)
    if draw.random() < 0.5 or not wave.any():
        pitch = np.exp2(draw.uniform(7, 11.5)) * np.exp2(draw.uniform(-1, 1) * t)
        turns = 2 * np.pi * np.cumsum(pitch) / ENCODING.rate
        wave += 0.5 * sum(np.sin(k * turns) / k for k in range(1, draw.integers(2, 6)))
    return wave


def heard(wave: Wave, label: int, draw: np.random.Generator) -> tuple[Wave, int, int, int]:
    """A sample for training: the sound, its label, and the samples where the word begins and ends."""
    if draw.random() < 1 / 8:
        kind, label = draw.integers(3) if label != 9 else draw.integers(2), NONE  # a nine is a nine backwards too
        wave = [np.zeros(len(wave)), clatter(draw), wave[::-1].copy()][kind]
    if wave.any():
        wave = said(wave, draw)
        wave *= np.exp(draw.uniform(math.log(QUIETEST), math.log(LOUDEST))) / rms(wave)
    before, after = (round(draw.uniform(0, 0.4) * ENCODING.rate) for _ in range(2))
    power = rms(wave) or np.exp(draw.uniform(math.log(QUIETEST), math.log(LOUDEST)))
    below = draw.uniform(5, 40) if draw.random() < 7 / 8 else math.inf
    whole = np.pad(wave, (before, after))
    whole += power * 10 ** (-below / 20) * noise(len(whole), draw, draw.uniform(0, 2))
    return whole, label, before, before + len(wave)


def waves_of(sounds: LabelledSounds) -> list[Wave]:
    lengths = [sounds.waves.shape[1]] * len(sounds.labels) if sounds.lengths is None else sounds.lengths.tolist()
    return [wave[:length].double().numpy() for wave, length in zip(sounds.waves, lengths, strict=True)]


class Samples:
    """Samples for training: currents of each step, labels, and the steps where the words begin and end.

    Sample k is of recording k modulo the number of recordings.
    """

    def __init__(self, sounds: Sequence[LabelledSounds]) -> None:
        draw, self.currents, found = np.random.default_rng(SEED), list[Tensor](), []
        recordings = [wave for each in sounds for wave in waves_of(each)]
        labels = torch.cat([each.labels for each in sounds]).tolist()
        for _ in range(COPIES):
            for recording, label in zip(recordings, labels, strict=True):
                wave, *about = heard(recording, label, draw)
                self.currents.append(torch.from_numpy(ENCODING.hearing().take(wave.astype(np.float32))))
                found.append(about)
        self.labels, begins, ends = torch.tensor(found).T
        self.begins, self.ends = begins // ENCODING.hop, ends // ENCODING.hop

    def __getitem__(self, index: Tensor) -> tuple[Tensor, ...]:
        currents = [self.currents[k] for k in index.tolist()]
        lengths = torch.tensor([len(each) for each in currents])
        x = nn.utils.rnn.pad_sequence(currents)
        return x, lengths, self.labels[index], self.begins[index], self.ends[index]


def train(samples: Samples, chosen: Tensor) -> Digits:
    """Train a network on the chosen samples."""
    torch.manual_seed(SEED)
    generator, begin = torch.Generator().manual_seed(SEED), time.perf_counter()
    network = Digits()
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE)
    count = len(chosen)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=PASSES * math.ceil(count / BATCH))
    for number in range(PASSES):
        total = 0.0
        for index in chosen[torch.randperm(count, generator=generator)].split(BATCH):
            x, lengths, labels, begins, ends = samples[index]
            logits = network(varied(x, ENCODING, generator), lengths)
            loss = loss_of(logits, lengths, labels, begins, ends)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            network.layer.constrain_()
            total += float(loss.detach()) * len(index)
        print(f"pass {number + 1}: loss {total / count:.3f}, {time.perf_counter() - begin:.0f} s", flush=True)
    return network


def loss_of(logits: Tensor, lengths: Tensor, labels: Tensor, begins: Tensor, ends: Tensor) -> Tensor:
    """Cross-entropy of the steps (T, B) before a word and of those after it; the last step counts as much as both."""
    steps, batch, _ = logits.shape
    each = torch.arange(steps)[:, None]
    before = (each < begins) & (each < lengths)
    after = (each >= ends) & (each < lengths)
    target = torch.where(before, NONE, labels)
    entropy = nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none").view(steps, batch)
    counted = (before | after).float()
    spread = (entropy * counted).sum() / counted.sum()
    last: Tensor = entropy[lengths - 1, torch.arange(batch)].mean()
    return last + spread


@torch.no_grad()
def answers(network: Digits, waves: list[Wave]) -> Tensor:
    found = []
    for first in range(0, len(waves), 100):
        sounds = LabelledSounds.of(
            [torch.from_numpy(x).float() for x in waves[first : first + 100]], [0] * 100, ENCODING.rate
        )
        x, lengths = dense(ENCODING(sounds.waves, lengths=sounds.lengths))
        found.append(network(x, lengths)[lengths - 1, torch.arange(x.shape[1])].argmax(1))
    return torch.cat(found)


def noisy(waves: list[Wave], below: float, before: float, draw: np.random.Generator) -> list[Wave]:
    """Words with as many seconds before and 0.3 s after them, and with white noise so many dB below them."""
    made = []
    for wave in waves:
        padded = np.pad(wave, (round(before * ENCODING.rate), round(0.3 * ENCODING.rate)))
        made.append(padded + rms(wave) * 10 ** (-below / 20) * draw.standard_normal(len(padded)))
    return made


def accuracies(network: Digits, sounds: LabelledSounds) -> dict[str, float]:
    """In percent, of words with 0.25 s before and 0.3 s after them, as on the page: clean, and with white noise."""
    draw, waves = np.random.default_rng(7), waves_of(sounds)
    trials = {
        "clean": noisy(waves, math.inf, 0.25, draw),
        "20 dB": noisy(waves, 20, 0.25, draw),
        "10 dB": noisy(waves, 10, 0.25, draw),
        "20 dB, 0.5 s before": noisy(waves, 20, 0.5, draw),
        "10 dB, 0.5 s before": noisy(waves, 10, 0.5, draw),
    }
    found = {name: answers(network, given) for name, given in trials.items()}
    return {name: 100 * float((answer == sounds.labels).double().mean()) for name, answer in found.items()}


def spoken(word: str, voice: str, speed: int) -> Wave:
    """A word of espeak-ng, without the silence before and after it."""
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        subprocess.run(["espeak-ng", "-v", voice, "-s", str(speed), "-w", file.name, word], check=True)
        rate, samples = wavfile.read(file.name)
    wave = resample_poly(samples / 32768, ENCODING.rate, rate)
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    return np.asarray(wave[loud[0] : loud[-1] + 1])


def probabilities(waves: list[Wave], before: float, below: float) -> Tensor:
    """The probabilities (B, 11) of the answers of digits.srcell."""
    stream, found = runtime.load(RESULTS / "say-a-digit" / "digits.srcell").stream(), []
    for wave in noisy(waves, below, before, np.random.default_rng(7)):
        stream.reset()
        stream.hear(wave.astype(np.float32))
        found.append(torch.from_numpy(stream.logits()[0]))
    return torch.stack(found).softmax(1)


def confidence(waves: list[Wave], labels: Tensor, below: float = math.inf) -> dict[str, float]:
    """How probable the answers are and how often they are right; percentages, and the number of words."""
    probability, answer = probabilities(waves, 0.25, below).max(1)
    later = probabilities(waves, 0.255, below).argmax(1)
    right, sure = (answer == labels).double(), (probability.round(decimals=2) >= SURE) & (answer != NONE)
    return {
        "words": len(waves),
        "right": 100 * float(right.mean()),
        "probability": 100 * float(probability.double().mean()),
        "sure": 100 * float(sure.double().mean()),
        "right_of_sure": 100 * float(right[sure].mean()),
        "others_5_ms_later": 100 * float((later != answer).double().mean()),
    }


def write(network: Digits, path: Path) -> None:
    """Export a network, with its encoder."""
    exported = nn.Sequential(srcell.SpikesOnly(network.layer), network.readout)
    exported.encoder = ENCODING
    export(exported, path)


def taught(
    network: Path, sounds: LabelledSounds, kind: str, settings: dict[str, Any] | None = None
) -> dict[str, float | None]:
    """The accuracies, in percent, before and after lessons of the page with so many recordings of each word."""
    labels, waves = sounds.labels.numpy(), noisy(waves_of(sounds), math.inf, 0.25, np.random.default_rng(0))
    chosen = {
        count: [
            np.stack([draw.permutation(np.flatnonzero(labels == word))[:count] for word in np.unique(labels)], 1)
            for draw in (np.random.default_rng([count, number]) for number in range(DRAWS))
        ]
        for count in TAUGHT
    }
    with tempfile.NamedTemporaryFile(suffix=".f32") as file:
        Path(file.name).write_bytes(np.concatenate(waves).astype(np.float32).tobytes())
        task = {
            "network": str(network),
            "sounds": file.name,
            "lengths": [len(wave) for wave in waves],
            "labels": (labels - labels.min()).tolist(),
            "kind": kind,
            "names": WORDS[FIRST_NEW:],
            "lessons": [each.ravel().tolist() for draws in chosen.values() for each in draws],
            "settings": settings or {},
        }
        command = ["node", Path(__file__).with_suffix(".mjs"), WASM]
        answer = json.loads(
            subprocess.run(command, input=json.dumps(task), stdout=subprocess.PIPE, check=True, text=True).stdout
        )
    after = np.array([each["right"] for each in answer["after"]]).reshape(len(TAUGHT), DRAWS).mean(1)
    found = dict(zip(map(str, TAUGHT), after.tolist(), strict=True))
    return (
        found
        | ({"0": answer["before"]} if answer["before"] is not None else {})
        | {"seconds": answer["after"][-1]["seconds"]}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data set")
    parser.add_argument("--speakers", action="store_true", help="test on speakers never heard")
    parser.add_argument("--networks", type=Path, metavar="FOLDER", help="folder of the networks of --speakers")
    parser.add_argument("--teach", action="store_true", help="let the networks of --speakers learn the speaker")
    parser.add_argument("--sure", action="store_true", help="test how often sure answers are right")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = RESULTS / "say-a-digit"
    folder.mkdir(parents=True, exist_ok=True)
    path, begin = folder / "digits.json", time.perf_counter()
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    dataset = load_spoken_digits(arguments.data)
    if arguments.speakers:
        samples = Samples([dataset.train, dataset.test])
        # Recordings are in the order of digits, speakers and numbers.
        owner = torch.cat(
            [torch.arange(len(each.labels)) * 60 // len(each.labels) % 6 for each in (dataset.train, dataset.test)]
        )
        digit = torch.cat([dataset.train.labels, dataset.test.labels])
        found.setdefault("speakers_never_heard", {})
        for number, speaker in enumerate(SPEAKERS):
            others, path_of = owner != number, (arguments.networks or Path()) / speaker
            if arguments.networks and not path_of.with_suffix(".words.srcell").exists():
                chosen = others & (digit < FIRST_NEW)
                write(train(samples, chosen.repeat(COPIES).nonzero()[:, 0]), path_of.with_suffix(".words.srcell"))
            if arguments.networks and path_of.with_suffix(".srcell").exists():
                continue
            network = train(samples, others.repeat(COPIES).nonzero()[:, 0])
            if arguments.networks:
                write(network, path_of.with_suffix(".srcell"))
            test = load_spoken_digits(arguments.data, held_out=speaker).test
            found["speakers_never_heard"][speaker] = accuracies(network, test)
            print(speaker, found["speakers_never_heard"][speaker], flush=True)
    elif arguments.teach:
        found["taught"] = {}
        for speaker in SPEAKERS:
            sounds, path_of = load_spoken_digits(arguments.data, held_out=speaker).test, arguments.networks / speaker
            new = sounds.select((sounds.labels >= FIRST_NEW).nonzero()[:, 0])
            found["taught"][speaker] = {
                "voice": taught(path_of.with_suffix(".srcell"), sounds, "VOICE"),
                "words": taught(path_of.with_suffix(".words.srcell"), new, "WORDS"),
            }
            print(speaker, found["taught"][speaker], flush=True)
    elif arguments.sure:
        known, labels = waves_of(dataset.test), dataset.test.labels
        synthetic = [spoken(word, voice, speed) for word in WORDS for voice in VOICES for speed in SPEEDS]
        digits = torch.arange(10).repeat_interleave(len(VOICES) * len(SPEEDS))
        found["sure"] = {
            "clean": confidence(known, labels),
            "10 dB": confidence(known, labels, 10),
            "synthetic, clean": confidence(synthetic, digits),
            "synthetic, 10 dB": confidence(synthetic, digits, 10),
        }
        print(found["sure"])
    else:
        samples = Samples([dataset.train])
        network = train(samples, torch.arange(len(samples.labels)))
        write(network, folder / "digits.srcell")
        found |= {
            "command": "python experiments/say_a_digit.py --data FOLDER",
            "accuracy": accuracies(network, dataset.test),
            "seed": SEED,
            "neurons": NEURONS,
            "copies": COPIES,
            "passes": PASSES,
            "encoding": dataclasses.asdict(ENCODING),
            "seconds": time.perf_counter() - begin,
            "machine": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        }
        print(found["accuracy"])
    path.write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
