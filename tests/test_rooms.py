"""The rooms of the package (its top-level modules and folders): which room may import which, no import cycles, and a
reference that needs no compiled module. docs/inside.md draws them.
"""

from pathlib import Path

import pytest

import srcell
from support.imports import output_without, script

PACKAGE = Path(srcell.__file__).parent
COMPILED = {"_core", "_cuda"}

# Every room may import those of the lines above its own. The runtime and the reference stand where torch's operators,
# and the compiled kernels, are not yet there.
LAYERS = [
    ["_shared"],
    ["_integer", "reference", "runtime"],
    ["ops"],
    ["events", "kernels"],
    ["functional"],
    ["layers"],
    ["recording"],
    ["diagnosis", "models"],
    ["benchmark", "data", "nir", "onnx"],
    ["evaluation", "hardware"],
    ["training"],
    ["cli", "plots"],
    ["_public"],
    ["__init__", "__main__"],
]
BELOW = {room: set().union(*LAYERS[:k]) for k, layer in enumerate(LAYERS) for room in layer}


rooms = script("tools", "rooms")
MODULES: dict[str, set[str]] = rooms.imports_of(PACKAGE)
ROOMS: dict[str, set[str]] = rooms.rooms_of(MODULES)


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_those_below_it(room: str) -> None:
    assert ROOMS[room] <= BELOW[room]


def test_every_room_has_its_layer() -> None:
    assert sorted(BELOW) == sorted(ROOMS)


def test_only_the_backends_import_the_compiled_modules() -> None:
    importers = {module for module, names in MODULES.items() if {rooms.room_of(name) for name in names} & COMPILED}
    # ops._gpu imports _cuda by name when the first tensor on a GPU arrives.
    assert importers == {"_shared.parameters", "ops._cpu", "runtime"}


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
    shared = [f"srcell._shared{part}" for part in ("", ".pytree", ".renamed", ".state", ".torch_private")]
    assert printed == f"True {[*shared, 'srcell.reference']}"
