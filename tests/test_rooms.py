"""The rooms of the package (its top-level modules and folders): which room may import which, no import cycles, and a
reference that needs no compiled module. docs/inside.md draws them.
"""

from pathlib import Path

import pytest

import srcell
from support.imports import output_without, script

PACKAGE = Path(srcell.__file__).parent
COMPILED = {"_core", "_cuda"}

# The rooms that each room may import, besides EVERYWHERE, which every room may import.
EVERYWHERE = {
    "_extras",
    "_files",
    "_integer",
    "_interrupted",
    "_parameters",
    "_private",
    "_pytree",
    "_renamed",
    "_settings",
    "_state",
}
ALLOWED = {
    "_answers": {"_arguments", "events", "layers", "models", "recording"},
    "_arguments": set(),
    "_extras": set(),
    "_files": set(),
    "_info": {"kernels", "ops"},
    "_integer": set(),
    "_interrupted": set(),
    "_load": {"_arguments", "training"},
    "_parameters": {"_core"},
    "_private": set(),
    "_processes": set(),
    "_pytree": set(),
    "_renamed": set(),
    "_settings": {"_arguments"},
    "_state": set(),
    "_names": set(),
    "_export": {"_arguments", "layers", "runtime"},
    "runtime": {"_core"},
    "kernels": {"ops"},
    "ops": {"_arguments"},
    "events": {"_arguments", "ops"},
    "functional": {"_arguments", "events", "ops"},
    "layers": {"_arguments", "events", "functional", "ops"},
    "models": {"_arguments", "_export", "events", "functional", "layers", "ops"},
    "nir": {"_arguments", "_export", "events", "functional", "layers"},
    "onnx": {"_arguments", "models"},
    "recording": {"layers"},
    "diagnosis": {"_arguments", "events", "layers", "recording"},
    "reference": set(),
    "data": {"_arguments", "events", "runtime"},
    "hardware": {"_arguments", "data", "functional", "layers", "models"},
    "evaluation": {
        *("_answers", "_arguments", "_export", "_processes", "data", "events", "functional", "layers", "models"),
        "recording",
    },
    "benchmark": {"_arguments", "_info", "_export", "events", "functional", "layers", "models", "reference", "runtime"},
    "training": {
        *("_answers", "_arguments", "_info", "_processes", "data", "diagnosis", "evaluation", "events", "functional"),
        "layers",
        *("models", "recording"),
    },
    "cli": {
        *("_arguments", "_info", "benchmark", "data", "diagnosis", "evaluation", "layers", "models", "training"),
    },
    # Public names of parts of training.
    "plots": {"training"},
    "__init__": {"_names", "_public", "runtime"},
    "_public": {
        *("_export", "_info", "_load", "diagnosis", "events", "functional", "layers", "recording", "runtime"),
    },
    "__main__": {"_names", "cli"},
}


rooms = script("tools", "rooms")
MODULES: dict[str, set[str]] = rooms.imports_of(PACKAGE)
ROOMS: dict[str, set[str]] = rooms.rooms_of(MODULES)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_its_permitted_rooms(room: str) -> None:
    assert ROOMS[room] <= ALLOWED[room] | EVERYWHERE


def test_only_the_backends_import_the_compiled_modules() -> None:
    importers = {module for module, names in MODULES.items() if {rooms.room_of(name) for name in names} & COMPILED}
    # ops._gpu imports _cuda by name when the first tensor on a GPU arrives.
    assert importers == {"_parameters", "ops._cpu", "runtime"}


def test_there_are_no_import_cycles() -> None:
    modules = rooms.imports_of(PACKAGE, types=True)
    files = {name.removesuffix(".__init__"): names for name, names in modules.items() if "." in name or name[0] != "_"}
    reached: dict[str, set[str]] = {
        name: {
            file
            for x in names
            for file in (x, x.rpartition(".")[0])
            if file in files and file not in (name, rooms.room_of(name))
        }
        for name, names in files.items()
    }
    for _ in files:  # the transitive closure, one step per iteration
        for found in reached.values():
            found |= set().union(*(reached[name] for name in found)) if found else set()
    assert [name for name, found in reached.items() if name in found] == []


def test_the_reference_needs_no_compiled_module() -> None:
    program = """
        import types
        package = types.ModuleType("srcell")  # without what its __init__ imports
        package.__path__ = sys.argv[1:]
        sys.modules["srcell"] = package
        import torch
        from srcell.reference import src_reference
        spikes, state = src_reference(10 * torch.ones(30, 1, 1), torch.tensor(-6.0))
        loaded = sorted(name for name, module in sys.modules.items() if name.startswith("srcell.") and module)
        print(bool(spikes.any()), loaded)
    """
    printed = output_without(["srcell._core", "srcell._cuda", "srcell.ops"], program, str(PACKAGE))
    assert (
        printed == "True ['srcell._private', 'srcell._pytree', 'srcell._renamed', 'srcell._state', 'srcell.reference']"
    )
