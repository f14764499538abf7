"""Train the networks of the accuracy table and record their results on the test set.

    python experiments/accuracy.py --data FOLDER [--runs FOLDER] [ID ...]

Each row is one command, run once per seed. Results go to experiments/results/accuracy.json, which keeps its other rows;
``make pages`` writes the tables from it. With --runs the run folders are kept: finished runs in them are reused,
unfinished ones resumed. The weights of the first seed of mnist-100, psmnist and qtdb go to experiments/results, as run
folders for ``srcell eval``. Hyperparameters were chosen on validation samples from the training set; the runs here
train on the whole training set and evaluate on the test set once, after the last epoch, unless the row's test_looks
says otherwise. The rows depth-lif need SpikingJelly. Two rows may be run in parallel, each with OMP_NUM_THREADS=1. A
row records, as "trained", the date, commit, processor and versions of its first seed's training; rows from before that
was recorded lack it.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

import srcell
from srcell.benchmark import document
from srcell.cli import build_parser
from srcell.cli.options import given_settings
from srcell.training import RunOptions, build_model, evaluate_run
from srcell.training.config import TrainingConfig
from srcell.training.run_folder import RunFolder

RESULTS = Path(__file__).resolve().parent / "results"

ROW_FILE = RESULTS / "accuracy.json"
KEPT = {"mnist-100", "psmnist", "qtdb"}
DELAYS_FILE = RESULTS / "intervals-delays.json"  # of the first seed of "intervals", for the picture of the docs
MODES = {
    "st": "straight_through, recurrence not followed",
    "relu": "relu, recurrence not followed",
    "bptt": "relu, recurrence followed",
    "st-bptt": "straight_through, recurrence followed",
    "lateral": "straight_through, recurrence not followed, relu through recurrent weights",
    "windows": "relu, recurrence followed, clipped every 5 steps",
    "integers": "of the integers' surrogate, recurrence not followed",
    "lif": "ATan surrogate (SpikingJelly)",
    "recurrent-lif": "fast sigmoid surrogate (snnTorch)",
    "gru": "exact (torch.nn.GRU)",
}


# A hidden layer of 512; half the steps of the reference at twice the gain give as many events per sample.
WIDE = "--hidden 512 --steps 100 --gain 0.5 --lr 5e-3 --validation 0"
# A smaller network for rows of pixels than the preset's, which other layers are compared with.
ROWS_256 = "--hidden 256 --input-delay 0 --taps 1 --dropout 0"


class Row(NamedTuple):
    data: str
    network: str
    mode: str
    command: str  # without the options for data, seed and run folder
    epochs: int
    seeds: tuple[int, ...]
    configurations_tried: int
    test_looks: int = 1  # how often each seed's test accuracy, or that of a trial of these settings, was seen


TABLE = {
    "mnist-100": Row(
        "MNIST, rate",
        "784-100",
        "st",
        "srcell train mnist --preset reference --lr 2e-2 --temperature 3 --validation 0",
        epochs=20,
        seeds=(0, 1, 2),
        configurations_tried=14,
    ),
    "mnist-512": Row(
        "MNIST, rate",
        "784-512-100",
        "st",
        f"srcell train mnist {WIDE} --temperature 3 --dropout 0.3",
        epochs=25,
        seeds=(0,),
        configurations_tried=9,
    ),
    "mnist-512-relu": Row(
        "MNIST, rate",
        "784-512-100",
        "relu",
        f"srcell train mnist {WIDE} --surrogate relu --temperature 6 --readout-alpha 1 --dropout 0.2",
        epochs=20,
        seeds=(0,),
        configurations_tried=5,
    ),
    "mnist-bptt": Row(
        "MNIST, rate",
        "784-100",
        "windows",
        "bptt.py mnist --steps 100 --gain 0.5 --lr 1e-2 --temperature 3 --validation 0",
        epochs=3,
        seeds=(0, 1, 2),
        configurations_tried=9,
    ),
    "mnist-latency": Row(
        "MNIST, latency, 10 steps",
        "784-512-100",
        "st",
        "srcell train mnist --encoding latency --hidden 512 --steps 10 --temperature 1 --readout-alpha 1 --dropout 0.3 "
        "--lr 5e-3 --validation 0",
        epochs=20,
        seeds=(0, 1, 2),
        configurations_tried=8,
    ),
    "mnist-deep": Row(
        "MNIST, rate",
        "784, ten times 128, 100",
        "st",
        f"srcell train mnist --hidden{' 128' * 10} --steps 100 --gain 0.5 --temperature 6 --readout-alpha 1 "
        "--balance-gradients --dropout 0 --lr 1.2e-2 --validation 0",
        epochs=24,
        seeds=(0,),
        configurations_tried=19,
    ),
    "fashion-512": Row(
        "Fashion-MNIST, rate",
        "784-512-100",
        "st",
        f"srcell train fashion-mnist {WIDE} --temperature 10 --readout-alpha 1 --dropout 0.15",
        epochs=35,
        seeds=(0,),
        configurations_tried=12,
    ),
    "seqmnist-rows": Row(
        "MNIST, row by row, 112 steps",
        "28-512, recurrent, resonant, delays",
        "lateral",
        "srcell train seqmnist-rows --preset best --validation 0",
        epochs=15,
        seeds=(0, 1),
        configurations_tried=18,
        test_looks=6,
    ),
    "seqmnist-rows-256": Row(
        "MNIST, row by row, 112 steps",
        "28-256, recurrent, resonant, delays",
        "lateral",
        f"srcell train seqmnist-rows --preset best {ROWS_256} --validation 0",
        epochs=15,
        seeds=(0, 1, 2),
        configurations_tried=7,
        test_looks=5,
    ),
    "psmnist": Row(
        "MNIST, pixel by pixel, permuted",
        "1-512, resonant, a line of 256 delays",
        "st",
        "srcell train psmnist --preset best --validation 0",
        epochs=8,
        seeds=(0, 1),
        configurations_tried=29,
    ),
    "psmnist-recurrent": Row(
        "MNIST, pixel by pixel, permuted",
        "1-384, recurrent, resonant, delays",
        "lateral",
        "srcell train psmnist --preset best --recurrent --hidden 384 --recurrent-delay 240 --input-delay 240 --taps 16 "
        "--slowest-alpha 0.998 --zs-hyp 0.3 --readout-window 60 --lr 2e-3 --validation 0",
        epochs=16,
        seeds=(0, 1),
        configurations_tried=14,
    ),
    "seqmnist": Row(
        "MNIST, pixel by pixel",
        "1-384, recurrent, resonant, delays",
        "lateral",
        "srcell train seqmnist --preset best --validation 0",
        epochs=20,
        seeds=(0,),
        configurations_tried=2,
        test_looks=2,
    ),
    "japanese-vowels": Row(
        "Japanese Vowels",
        "12-256, recurrent, resonant",
        "lateral",
        "srcell train japanese-vowels --preset best --validation 0",
        epochs=60,
        seeds=tuple(range(10)),
        configurations_tried=9,
    ),
    "delayed-recall": Row(
        "delayed recall over 200 steps",
        "25-128, recurrent",
        "lateral",
        "srcell train delayed-recall --preset best --validation 0",
        epochs=2,
        seeds=(0, 1, 2),
        configurations_tried=1,
    ),
    "spoken-digits": Row(
        "spoken digits, currents",
        "32-256, recurrent, resonant",
        "lateral",
        "srcell train spoken-digits --preset best --validation 0",
        epochs=20,
        seeds=(0, 1, 2, 3, 4),
        configurations_tried=1,
    ),
    "spoken-digits-spikes": Row(
        "spoken digits, spikes",
        "64-256, recurrent, resonant",
        "lateral",
        "srcell train spoken-digits --preset best --frame 0.005 --threshold 0.12 --validation 0",
        epochs=20,
        seeds=(0, 1, 2, 3, 4),
        configurations_tried=1,
    ),
    "braille": Row(
        "Braille letters by touch",
        "4-128, recurrent, resonant",
        "lateral",
        "srcell train braille --preset best --validation 0",
        epochs=10,
        seeds=(0, 1, 2),
        configurations_tried=1,
    ),
    "adding": Row(
        "binary adding of 2 of 100 bits",
        "3-128, recurrent, resonant",
        "lateral",
        "srcell train adding --preset best --validation 0",
        epochs=12,
        seeds=(0, 1, 2),
        configurations_tried=7,
        test_looks=8,
    ),
    "nmnist-small": Row(
        "N-MNIST subset (1,000 training, 100 test)",
        "2312-512-100",
        "st",
        "srcell train nmnist --hidden 512 --batch-size 32 --dropout 0.7 --temperature 10 --alpha 0.97 "
        "--readout-alpha 1 --lr 5e-3 --validation 0",
        epochs=40,
        seeds=(0, 1, 2),
        configurations_tried=8,
    ),
    "nmnist-camera": Row(
        "N-MNIST (900), trained on simulations",
        "2312-512-100",
        "st",
        "nmnist_camera.py mnist --encoding camera --skip-samples 1000 --validation 0",
        epochs=8,
        seeds=(0, 1, 2),
        configurations_tried=5,
    ),
    "nmnist-camera-tuned": Row(
        "N-MNIST (900), trained on simulations, then on 200 recordings",
        "2312-512-100",
        "st",
        "nmnist_camera.py mnist --encoding camera --skip-samples 1000 --validation 0 --tune 5",
        epochs=8,
        seeds=(0, 1, 2),
        configurations_tried=11,  # 5 of nmnist-camera, whose runs it continues, and 6 of the tuning
    ),
    "nmnist-camera-gru": Row(
        "N-MNIST (900), trained on simulations",
        "GRU, 512 neurons, frames of 10 ms",
        "gru",
        "nmnist_camera.py mnist --encoding camera --skip-samples 1000 --validation 0 --neuron gru --lr 3e-3",
        epochs=2,
        seeds=(0,),
        configurations_tried=2,
    ),
    "fashion-camera": Row(
        "Fashion-MNIST, moving camera",
        "2312-512-100",
        "st",
        "srcell train fashion-mnist --encoding camera --validation 0",
        epochs=8,
        seeds=(0,),
        configurations_tried=1,
        test_looks=2,  # a training of one epoch on 1,900 pictures, to measure its time, printed its accuracy
    ),
}

DEPTHS = (1, 3, 5, 10)
# The same settings for SRC and LIF: 10,000 digits, five epochs. The learning rate and one more choice were
# tuned for each at five layers.
SHALLOW_TO_DEEP = (
    "mnist --train-samples 10000 --validation 0 --batch-size 128 --steps 50 --gain 0.5 "
    "--temperature 3 --readout-alpha 1 --preset fast"
)
SRC_CHOICE, RELU_CHOICE, LIF_CHOICE = "--lr 2e-2 --balance-gradients", "--lr 1e-2", "--lr 1e-2 --scale 4"


def depth_row(mode: str, depth: int, program: str, choice: str) -> Row:
    return Row(
        "MNIST, rate, 10,000 training digits",
        f"784, {depth} x 128, 100",
        mode,
        f"{program} {SHALLOW_TO_DEEP} --hidden{' 128' * depth} {choice}",
        epochs=5,
        seeds=(0, 1, 2),
        configurations_tried=4,
    )


TABLE |= {f"depth-src-{depth}": depth_row("st", depth, "srcell train", SRC_CHOICE) for depth in DEPTHS}
TABLE |= {f"depth-lif-{depth}": depth_row("lif", depth, "lif.py", LIF_CHOICE) for depth in DEPTHS}
TABLE |= {
    f"depth-src-{depth}/relu": depth_row("relu", depth, "srcell train", f"{RELU_CHOICE} --surrogate relu")
    for depth in (5, 10)
}
# With torch's products in bfloat16, and without.
WIDE_STACK = depth_row("st", 2, "srcell train", SRC_CHOICE)._replace(
    network="784-512-512-100", command=f"srcell train {SHALLOW_TO_DEEP} --hidden 512 512 {SRC_CHOICE}"
)
TABLE["depth-src-512-512"] = WIDE_STACK
TABLE |= {
    f"{name}/amp": TABLE[name]._replace(command=f"{TABLE[name].command} --amp", configurations_tried=1)
    for name in ("depth-src-512-512", "depth-src-10")
}


class Rival(NamedTuple):
    """A layer to compare on sequence tasks, with settings chosen on validation samples of seqmnist-rows."""

    label: str
    mode: str
    program: str
    choice: str
    configurations_tried: int
    rate: str = ""  # learning rate; empty: the preset's


RIVALS = {
    "src-lateral": Rival("SRC, recurrent", "lateral", "srcell train", "", 2),
    "src": Rival("SRC", "st", "srcell train", "--no-recurrent", 2),
    "lif": Rival("LIF, recurrent", "recurrent-lif", "recurrent.py", "--neuron lif", 7, "5e-3"),
    # A GRU needs no held elements, and its readout reads the last step only.
    "gru": Rival("GRU", "gru", "recurrent.py", "--neuron gru --hold 1 --readout-window 1", 3, "1e-2"),
}
THREE = (0, 1, 2)
# Without what the presets of sequences add to a layer with recurrent weights.
PLAIN = "--omega 0 --highest-omega 0 --zs-hyp 0.5 --input-gain 0 --recurrent-delay 0"


def beside(task: str, dataset: str, who: str, epochs: int, seeds: tuple[int, ...], change: str = "") -> Row:
    rival = RIVALS[who]
    rate = f"--lr {rival.rate}" if rival.rate and "--lr" not in change else ""
    plain = PLAIN if rival.program == "srcell train" else ""
    small = ROWS_256 if dataset == "seqmnist-rows" else ""
    command = f"{rival.program} {dataset} --preset best {small} {plain} --validation 0 {rival.choice} {rate} {change}"
    return Row(task, rival.label, rival.mode, " ".join(command.split()), epochs, seeds, rival.configurations_tried)


# By steps and bits per weight: the number of silent steps, and the accuracy reported for the authors' hardware.
HARDWARE = {(44, 4): (4, 0.9289), (55, 5): (5, 0.9332), (220, 9): (20, 0.9631)}
# Settings that differ from the preset's, and the number of epochs.
CHANGED = {(44, 4): ("", 20), (55, 5): (" --thinned --gain 0.8", 16), (220, 9): (" --gain 0.25 --temperature 6", 12)}
INTEGERS = {
    f"integer-{steps}-{bits}": Row(
        "MNIST, rate",
        f"784-100, integers, {bits} bits, {steps} steps",
        "integers",
        f"srcell train mnist --preset integer --weight-bits {bits} --steps {steps - silent} --prefix {silent} "
        f"--validation 0{CHANGED[steps, bits][0]}",
        epochs=CHANGED[steps, bits][1],
        seeds=(0, 1, 2),
        configurations_tried=tried,
        test_looks=2 if steps == 55 else 1,
    )
    for ((steps, bits), (silent, _)), tried in zip(HARDWARE.items(), (37, 44, 3), strict=True)
}
TABLE |= INTEGERS
TABLE["fashion-integer"] = Row(
    "Fashion-MNIST, rate",
    "784-100, integers, 4 bits, 44 steps",
    "integers",
    "srcell train fashion-mnist --preset integer --validation 0",
    epochs=20,
    seeds=(0,),
    configurations_tried=1,
)

BESIDE: dict[str, Row] = {}
# As many neurons as the recurrent SRC, then as many parameters; the LIF layer has both at once.
for prefix, task, dataset, epochs, sizes in (
    ("rows", "MNIST, row by row", "seqmnist-rows", 3, {"src": 1936, "gru": 142}),
    ("vowels", "Japanese Vowels", "japanese-vowels", 60, {"src": 3235, "gru": 145}),
):
    BESIDE |= {f"{prefix}-{who}": beside(task, dataset, who, epochs, THREE) for who in RIVALS}
    BESIDE |= {
        f"{prefix}-{who}-{neurons}": beside(task, dataset, who, epochs, THREE, f"--hidden {neurons}")
        for who, neurons in sizes.items()
    }
# The symbol can be kept in slow integrators, then only in loops of recurrent weights.
for delay, setting in ((200, ""), (50, "--slowest-alpha 0.9 --recall-delay 50")):
    for who in RIVALS:
        change = f"{setting} --lr 1e-3" if who == "gru" else setting  # with a larger one it did not train
        task = f"delayed recall over {delay} steps"
        BESIDE[f"recall-{delay}-{who}"] = beside(task, "delayed-recall", who, 4, (0,), change)
TABLE |= BESIDE


def resonance(task: str, network: str, command: str, epochs: int, seeds: tuple[int, ...], rate: str) -> Row:
    """One of a pair of rows: with resonance and without, each at the best of the learning rates that were tried."""
    mode = "lateral" if "recurrent" in network else "st"
    return Row(task, network, mode, f"srcell train {command} --lr {rate}", epochs, seeds, configurations_tried=3)


FREQUENCIES = "--omega 0.01 --highest-omega 1"
RESONANT = f"{FREQUENCIES} --zs-hyp 0.5 --input-gain 0 --recurrent-delay 0"
PIXELS = (
    "--recurrent --hidden 256 --slowest-alpha 0.999 --input-delay 0 --taps 1 --no-whole-delays --readout-alpha 0.97 "
    "--readout-window 0"
)
RESONANCE = {}
for suffix, network, change, rate in (
    ("-without", "1-256, recurrent", PLAIN, "5e-3"),
    ("", "1-256, recurrent, resonant", RESONANT, "2e-3"),
):
    command = f"psmnist --preset best {change} {PIXELS} --validation 0"
    task = "MNIST, pixel by pixel, permuted"
    RESONANCE[f"resonance-psmnist{suffix}"] = resonance(task, network, command, 4, (0,), rate)
for suffix, network, change, rate in (
    ("-without", "28-256, recurrent", PLAIN, "1e-2"),
    ("", "28-256, recurrent, resonant", RESONANT, "5e-3"),
):
    command = f"seqmnist-rows --preset best {ROWS_256} {change} --validation 0"
    RESONANCE[f"resonance-rows{suffix}"] = resonance("MNIST, row by row", network, command, 3, THREE, rate)
for suffix, network, change in (("-without", "784-128-100", ""), ("", "784-128-100, resonant", f" {FREQUENCIES}")):
    command = f"mnist --preset fast --validation 0{change}"
    RESONANCE[f"resonance-mnist{suffix}"] = resonance("MNIST, rate", network, command, 6, THREE, "1e-2")
for suffix, network, change, rate in (
    ("-without", "12-256, recurrent", PLAIN, "5e-3"),
    ("", "12-256, recurrent, resonant", RESONANT, "1e-2"),
):
    command = f"japanese-vowels --preset best {change} --validation 0"
    RESONANCE[f"resonance-vowels{suffix}"] = resonance("Japanese Vowels", network, command, 60, tuple(range(10)), rate)
TABLE |= RESONANCE

# Heartbeats, a class at each of 1,301 steps: the preset's network, with a change, and other layers of as many
# parameters. The test set was looked at while the preset's settings were chosen; those of the other layers were chosen
# on validation samples.
QTDB = "qtdb --preset best --validation 0"
OTHERS = f"recurrent.py {QTDB} --weight-decay 0.01"
HEARTBEATS = {
    "qtdb": ("8-320, recurrent, resonant", "lateral", f"srcell train {QTDB}", 20),
    "qtdb-40": ("8-40, recurrent, resonant", "lateral", f"srcell train {QTDB} --hidden 40", 20),
    "qtdb-not-resonant": ("8-320, recurrent", "lateral", f"srcell train {QTDB} --omega 0 --highest-omega 0", 20),
    "qtdb-not-recurrent": ("8-320, resonant", "st", f"srcell train {QTDB} --no-recurrent", 20),
    "qtdb-delays": (
        "8-320, recurrent, resonant, delays",
        "lateral",
        f"srcell train {QTDB} --recurrent-delay 60 --input-delay 60 --taps 4",
        20,
    ),
    "qtdb-learnt": (
        "8-320, recurrent, resonant, alpha and omega learnt",
        "lateral",
        f"srcell train {QTDB} --learn-time-constants",
        20,
    ),
    "qtdb-gru": ("GRU, 182 units", "gru", f"{OTHERS} --neuron gru --hidden 182", 20),
    "qtdb-gru-minute": ("GRU, 182 units", "gru", f"{OTHERS} --neuron gru --hidden 182", 3),
    "qtdb-lif": ("LIF, recurrent, 320 neurons", "recurrent-lif", f"{OTHERS} --neuron lif --lr 5e-3", 10),
}
TRIED = {"qtdb": 55, "qtdb-gru": 3, "qtdb-gru-minute": 3, "qtdb-lif": 2}
TABLE |= {
    name: Row(
        "heartbeats, 1,301 steps",
        network,
        mode,
        command,
        epochs,
        THREE,
        configurations_tried=TRIED.get(name, 1),
        test_looks=55 if name == "qtdb" else 1,
    )
    for name, (network, mode, command, epochs) in HEARTBEATS.items()
}

# The same network with its delays learnt, learnt and then whole, and fixed; and layers of as many parameters without
# delays, each at the best of the settings tried.
LEARNT = "srcell train intervals --preset best --validation 0"
UNDELAYED = f"{LEARNT} --input-delay 0 --taps 1 --no-learn-delays --delay-width 1 --delay-lr 0.3 --recurrent"
DELAYS = {
    "intervals": ("2-32, learnt delays", LEARNT, 80),
    "intervals-whole": ("2-32, learnt delays, then whole", f"{LEARNT} --whole-delays", 1),
    "intervals-fixed": (
        "2-32, fixed delays",
        f"{LEARNT} --no-learn-delays --delay-width 1 --delay-lr 0.3",
        17,
    ),
    "intervals-8-taps": ("2-64, learnt delays, 8 taps", f"{LEARNT} --taps 8 --hidden 64 --lr 2e-2", 6),
    "intervals-8-taps-fixed": (
        "2-64, fixed delays, 8 taps",
        f"{LEARNT} --taps 8 --hidden 64 --lr 2e-2 --no-learn-delays --delay-width 1 --delay-lr 0.3",
        3,
    ),
    "intervals-resonant": (
        "2-31, recurrent, resonant",
        f"{UNDELAYED} --hidden 31 --alpha 0.95 --slowest-alpha 0.99 --zs-hyp 0.1 --omega 0.1 --highest-omega 0.6 "
        "--lr 2e-2",
        60,
    ),
    "intervals-lateral": (
        "2-31, recurrent",
        f"{UNDELAYED} --hidden 31 --alpha 0.5 --slowest-alpha 0.97 --zs-hyp 0.1 --surrogate straight_through --lr 2e-2",
        20,
    ),
}
TABLE |= {
    name: Row(
        "intervals of 6 to 60 steps",
        network,
        "lateral" if "straight_through" in command else "relu",
        command,
        20,
        THREE,
        tried,
        test_looks=2 if name == "intervals" else 1,
    )
    for name, (network, command, tried) in DELAYS.items()
}
# What one more kind of memory changes; the partner of the first row is "recall-200-src".
TABLE["recall-200-src-fast"] = beside(
    "delayed recall over 200 steps", "delayed-recall", "src", 4, (0,), "--slowest-alpha 0.9"
)
# Ablations: mnist-100 with one change each, in five epochs.
ABLATIONS = {
    "5-epochs": ("st", ""),
    "relu": ("relu", "--surrogate relu"),
    "through-time": ("st-bptt", "--full-gradient"),
    "relu-through-time": ("bptt", "--surrogate relu --full-gradient"),
    "prefix-0": ("st", "--prefix 0"),
    "rest": ("st", "--initial-state rest"),
    "rest-prefix-0": ("st", "--initial-state rest --prefix 0"),
}
TABLE |= {
    f"mnist-100/{name}": TABLE["mnist-100"]._replace(
        mode=mode,
        command=f"{TABLE['mnist-100'].command} {change}".strip(),
        epochs=5,
        seeds=(0, 1, 2),
        configurations_tried=1,
    )
    for name, (mode, change) in ABLATIONS.items()
}


def run(name: str, row: Row, data: str, runs: Path) -> dict[str, Any]:
    """Train the row's network once per seed and summarise the results."""
    command = f"{row.command} --epochs {row.epochs}"
    results = [train(command, data, seed, runs / name / str(seed)) for seed in row.seeds]
    first = runs / name / str(row.seeds[0])
    if name in KEPT:
        keep(first, RESULTS / name)
    if name == "intervals":
        DELAYS_FILE.write_text(json.dumps(learnt_delays(first)) + "\n")

    def mean(key: str) -> float | None:
        return statistics.mean(result[key] for result in results) if key in results[0] else None

    return {
        "id": name,
        "data": row.data,
        "network": row.network,
        "mode": MODES[row.mode],
        "command": f"{command} --seed SEED",
        "seeds": list(row.seeds),
        "epochs": row.epochs,
        "parameters": results[0]["parameters"],
        "seconds": mean("seconds"),
        "test_accuracy": mean("test_accuracy"),
        "test_accuracies": [result["test_accuracy"] for result in results],
        "events_per_inference": mean("events_per_inference"),
        "synops_per_inference": mean("synops_per_inference"),
        "configurations_tried": row.configurations_tried,
        "test_looks": row.test_looks,
        "trained": results[0]["trained"],
    } | ({"labelled_accuracy": mean("labelled_accuracy")} if "labelled_accuracy" in results[0] else {})


def keep(run: Path, kept: Path) -> None:
    """Copy what ``srcell eval`` needs of a run folder; the data set's folder is that of any clone."""
    kept.mkdir(exist_ok=True)
    for file in ("model.safetensors", "result.json"):
        shutil.copy(run / file, kept / file)
    config = json.loads((run / "config.json").read_text())
    config["data"]["folder"] = "data"
    (kept / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def train(command: str, data: str, seed: int, out: Path) -> dict[str, Any]:
    """Run a command for one seed, or what is left of it.

    Returns the content of its result.json, with the number of parameters, and as "trained" where and when it was run:
    None if that was before this was noted in the run's folder.
    """
    program, *arguments = shlex.split(f"{command} --seed {seed}")
    module = ["-m", "srcell"] if program == "srcell" else [str(RESULTS.parent / "rows" / program)]
    given = [*arguments, "--data", data, "--out", str(out)]
    note = out / "command.txt"  # for scripts whose runs have no config.json
    trained = out / "trained.json"
    if (out / "config.json").exists():
        if RunFolder.open(out).config != config_of(arguments):
            raise SystemExit(f"{out}: expected a run of the settings of {command}, got one of others")
        given = ["train", "--resume", str(out), "--data", data]
    elif (out / "result.json").exists() and (not note.exists() or note.read_text() != command):
        raise SystemExit(f"{out}: expected a run of {command}, got one of another command")
    if not (out / "result.json").exists():
        subprocess.run([sys.executable, *module, *given], check=True)
        if program != "srcell":
            note.write_text(command)
        trained.write_text(json.dumps({k: v for k, v in document([], Path(__file__)).items() if k != "results"}))
    result: dict[str, Any] = json.loads((out / "result.json").read_text())
    result["trained"] = json.loads(trained.read_text()) if trained.exists() else None
    if "parameters" not in result:
        result["parameters"] = count_parameters(out)
    if program == "srcell" and arguments[1] == "qtdb":
        labelled = evaluate_run(RunFolder.open(out), RunOptions(data=Path(data)), dataset="qtdb-labelled")
        result["labelled_accuracy"] = labelled.accuracy
    return result


def config_of(arguments: list[str]) -> TrainingConfig:
    """The settings of ``srcell`` with these arguments."""
    parsed = build_parser().parse_args(arguments)
    return TrainingConfig.preset(parsed.preset or "best", parsed.dataset, **given_settings(parsed))


def count_parameters(run: Path) -> int:
    """The number of weights, biases and learnt delays of a run folder's network."""
    weights = load_file(run / "model.safetensors")
    kinds = ["weight", "bias"]
    if json.loads((run / "config.json").read_text())["training"].get("learn_delays"):
        kinds.append("delay")
    return sum(tensor.numel() for name, tensor in weights.items() if any(kind in name for kind in kinds))


def learnt_delays(run: Path) -> dict[str, list[list[float]]]:
    """The delays of the inputs (K, taps), in steps, before and after a run."""
    made = {}
    model = srcell.load(run)
    untrained = build_model(model.config, (*model.input_shape, 1, 1), model.readout.num_classes)
    for when, network in (("before", untrained), ("after", model)):
        made[when] = [[round(delay, 3) for delay in of_input] for of_input in network.delays[0].tolist()]
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"some of {', '.join(TABLE)} [all]")
    parser.add_argument("--data", required=True, help="folder of the data sets")
    parser.add_argument("--runs", type=Path, help="folder to keep the run folders in, and to continue them from")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.ids) - TABLE.keys())
    if unknown:
        parser.error(f"unknown rows {', '.join(unknown)}: expected some of {', '.join(TABLE)}")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.ids or TABLE:
            write(run(name, TABLE[name], arguments.data, arguments.runs or Path(folder)))


def write(made: dict[str, Any]) -> None:
    """Put a row in the place of that with its id."""
    with open(__file__) as locked:  # several processes may write rows
        fcntl.flock(locked, fcntl.LOCK_EX)
        rows = {row["id"]: row for row in json.loads(ROW_FILE.read_text())} if ROW_FILE.exists() else {}
        rows[made["id"]] = made
        ordered = [rows[known] for known in TABLE if known in rows]
        ROW_FILE.write_text(json.dumps(ordered, indent=1) + "\n")


if __name__ == "__main__":
    main()
