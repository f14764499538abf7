"""Write what a released version of srcell saves, so that later versions are tested on it (test_saved.py):

    python tests/saved/make.py FOLDER             all of it
    python tests/saved/make.py FOLDER program     the exported program alone, with another torch

Run it once, with that version installed. FOLDER is tests/saved/VERSION. It gets a run folder, networks of the runtime
and a learner's state, state_dicts, whole layers and cells by pickle, states, events, a program by torch.export, and
what they gave.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import srcell
from srcell import SRC, EventBatch, IntegerSRC, LinearReadout, Sequential, SRCCell, SRCConv2d, rate_encode, runtime
from srcell.training import TrainingConfig, train


def layers() -> dict[str, torch.nn.Module]:
    """One of each kind, with as many options as it takes. Weights are eighths: sums of such weights and spikes have the
    same bits in any order, on any processor.
    """
    torch.manual_seed(0)
    made: dict[str, torch.nn.Module] = {
        "plain": SRC(5, 4, 2, learnable=["rs"]),
        "layer": SRC(5, 4, learnable=["alpha", "rho"], omega=0.3, recurrent=True, delay_hh=2.0, bias_max=-4.5),
        "events": SRC.for_sequences(5, 4, surrogate="relu", full_gradient=True, initial_state="rest"),
        "cell": SRCCell(5, 4, recurrent=True, learnable=["zs_hyp"], full_gradient=True),
        "conv": SRCConv2d(1, 2, 3, padding=1),
        "integer": IntegerSRC(5, 4, weight_bits=6),
        "readout": Sequential(SRC(5, 4), LinearReadout(4, 3, window=2)),
        "votes": Sequential(SRC(5, 6), srcell.LeakyReadout(3, 2)),
        "delay": Sequential(srcell.Delay(5, 3), SRC(5, 4)),
    }
    with torch.no_grad():
        for layer in made.values():
            for name, parameter in layer.named_parameters():
                if "weight" in name:
                    parameter.copy_((8 * parameter).round() / 8)
    return made


def inputs() -> dict[str, torch.Tensor]:
    """What each of the layers is called with: as events if it takes them."""
    generator = torch.Generator().manual_seed(1)
    spikes = (torch.rand(20, 3, 5, generator=generator) < 0.3).float() * 4
    maps = (torch.rand(20, 2, 1, 4, 4, generator=generator) < 0.3).float() * 4
    special = {"conv": maps, "integer": spikes.sign()}
    return {name: special.get(name, spikes) for name in layers()}


def output(name: str, layer: torch.nn.Module, x: torch.Tensor) -> Any:
    """What a layer gives; of a cell, the spikes of each step and the last state."""
    layer.eval()
    with torch.no_grad():
        if name != "cell":
            return layer(x if name == "conv" else EventBatch.from_dense(x))
        spikes, state = [], None
        for step in x:
            made, state = layer(step, state)
            spikes.append(made)
        return torch.stack(spikes), state


def save_layers(folder: Path) -> None:
    """state_dicts, states and outputs; and, by whole pickles, layers, cells and events."""
    made = layers()
    batch = rate_encode(torch.rand(3, 5, generator=torch.Generator().manual_seed(2)), 20, seed=1)
    tensors = {
        "state_dicts": {name: layer.state_dict() for name, layer in made.items()},
        "inputs": inputs(),
        "outputs": {name: output(name, made[name], x) for name, x in inputs().items()},
        "events": {"offsets": batch.offsets, "indices": batch.indices, "shape": batch.shape},
    }
    torch.save(tensors, folder / "layers.pt")
    whole = {"layers": made, "events": batch, "cell": srcell.IntegerCell(bias=-5000)}
    torch.save(whole, folder / "whole.pt")


def save_networks(folder: Path) -> None:
    """Two networks for the runtime, a learner that has learnt from two batches, and what they give."""
    made = layers()
    x = inputs()["readout"].numpy()
    arrays: dict[str, Any] = {"x": x}
    for name in ("readout", "votes"):
        srcell.export(made[name], folder / f"{name}.srcell")
        arrays[name] = runtime.load(folder / f"{name}.srcell").run(x)
    learner = runtime.load(folder / "readout.srcell").learner(classes=["a", "b"])
    targets = np.array([0, 1, 0])
    arrays["losses"] = np.array([learner.step(x, targets) for _ in range(2)])
    (folder / "learner.state").write_bytes(learner.save())
    arrays["next_loss"] = np.array(learner.step(x, targets))
    learner.network().save(folder / "learnt.srcell")
    arrays["learnt"] = runtime.load(folder / "learnt.srcell").run(x)
    np.savez(folder / "networks.npz", **arrays)


def save_run(folder: Path) -> None:
    """A short training, and the logits of the network that it leaves."""
    run = train(TrainingConfig(hidden_sizes=(8,), epochs=1, steps=20), folder / "run")
    for path in (folder / "run").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix not in (".json", ".csv", ".safetensors"):
            path.unlink()
    images = torch.rand(3, 64, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        logits = run.model.eval()(rate_encode(images, 20, seed=1))
    torch.save({"images": images, "logits": logits}, folder / "run.pt")


def save_program(folder: Path) -> None:
    """A layer as torch.export saves it, named after torch's version."""
    version = re.match(r"\d+\.\d+", torch.__version__)
    assert version is not None
    program = torch.export.export(layers()["plain"], (inputs()["plain"],))
    torch.export.save(program, folder / f"program-{version[0]}.pt2")


def main() -> None:
    """Write what the command line asks for."""
    if sys.argv[2:] not in ([], ["program"]) or len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, *only = map(Path, sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    if not only:
        save_layers(folder)
        save_networks(folder)
        save_run(folder)
    save_program(folder)
    print(f"srcell {srcell.__version__}, torch {torch.__version__}:", *sorted(x.name for x in folder.iterdir()))


if __name__ == "__main__":
    main()
