"""The directives of these pages, whose content is made while they are built: nothing of it is copied by hand.

- ``{drawn} NAME``: a figure of ``figures.py``, with its caption and options as of ``{figure}``;
- ``{measured} NAME``: a table of the JSON files in ``bench/results``, made by the scripts of ``bench/``, or of
  ``works.py``;
- ``{summary}``: a table of the functions and classes of a reference page;
- ``{command-help} [COMMAND]``: what ``srcell COMMAND --help`` prints.

Console blocks get the output that their commands really have, in place of what the page expects. The gallery's examples
are run by sphinx-gallery, which asks here for their pictures and their order.

``conf.py`` loads it.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakSet

import accuracy as accuracy_rows  # bench/accuracy.py
import figures
import play_files
import report  # bench/report.py
import works
from docutils import nodes
from latex2mathml import converter
from matplotlib.figure import Figure as Drawing
from sphinx.application import Sphinx
from sphinx.directives.patches import Figure
from sphinx.util.docutils import SphinxDirective

import srcell
from srcell.cli import main

RESULTS = report.RESULTS
HELP_COLUMNS = "79"

# What stands in the package's docstrings under these names is documented under the shorter, public ones.
INNER_MODULES = ("srcell.functional", "srcell.layers", "srcell.events", "srcell._state")


def drawings(app: Sphinx) -> Path:
    """The folder of the drawn figures, in the build folder."""
    return Path(app.doctreedir) / "figures"


class Drawn(Figure):
    """A figure that ``figures.py`` drew."""

    def run(self) -> list[nodes.Node]:
        """The figure for a light page and for a dark one, from where they were drawn; the theme shows one of them.

        Where NAME-narrow was drawn too, ``pages.css`` shows that on a phone.
        """
        env = self.state.document.settings.env
        page, folder = Path(env.doc2path(env.docname)).parent, drawings(env.app)
        name, made = self.arguments[0], []
        narrow = (folder / f"{name}-narrow-light.svg").exists()
        for width, drawn in {"wide": name, "narrow": f"{name}-narrow"}.items() if narrow else [("", name)]:
            pair = []
            for ground in figures.INKS:
                self.arguments[0] = os.path.relpath(folder / f"{drawn}-{ground}.svg", page)
                self.options["figclass"] = [f"only-{ground}"]
                pair += super().run()
            made += [nodes.container("", *pair, classes=[width])] if width else pair
        return made


class Measured(SphinxDirective):
    """A table of measurements."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What the table's function writes in Markdown, parsed."""
        for source in [*RESULTS.rglob("*.json"), *RESULTS.parent.glob("*.py"), Path(__file__)]:
            self.env.note_dependency(str(source))
        name = self.arguments[0]
        table = nodes.container(classes=["measured", name.partition("-")[0], name])
        table += self.parse_text_to_nodes(TABLES[name]())
        return [table]


class Summary(SphinxDirective):
    """A table of what the page documents, a line each."""

    def run(self) -> list[nodes.Node]:
        """What autosummary makes of the names in the page's ``auto`` directives."""
        text = Path(self.env.doc2path(self.env.docname)).read_text()
        names = re.findall(r"^\.\. auto(?:function|class|exception):: (.*)$", text, re.MULTILINE)
        entries = "\n".join(f"   {name}" for name in names)
        return self.parse_text_to_nodes(f"```{{eval-rst}}\n.. autosummary::\n   :nosignatures:\n\n{entries}\n```")


class CommandHelp(SphinxDirective):
    """The help of a command."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A literal block with what the command prints."""
        text = command_help(*self.arguments)
        return [nodes.literal_block(text, text, language="text")]


def command_help(*command: str) -> str:
    """What ``srcell COMMAND --help`` prints."""
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = HELP_COLUMNS
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*command, "--help", *["all"] * (command == ("train",))])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return printed.getvalue()


def read(name: str) -> Any:
    """A file of bench/results."""
    return json.loads((RESULTS / name).read_text())


def machine_of(name: str) -> str:
    """The machine on which a file of results was measured."""
    found = read(name)
    environment = found["environment"]
    return (
        f"{found['processor']}, {environment['threads']} threads, {environment['isa']}, torch {environment['torch']}; "
        f"commit {found['commit']}, {found['date']}."
    )


def speed(table: Callable[[Any], Any]) -> Callable[[], str]:
    """A table of bench/report.py."""
    return lambda: report.lines(table(report.documents()[0]))


def accuracy(kept: Callable[[str], bool]) -> Callable[[], str]:
    """The rows of the accuracy table whose id is kept."""
    return lambda: "\n".join(accuracy_rows.table([row for row in read("accuracy.json") if kept(row["id"])]))


def commands() -> str:
    """What makes each row of the accuracy table again, and how often its settings were changed before."""
    head = ["id", "command", "configurations tried"]
    rows = [[row["id"], f"`{row['command']}`", str(row["configurations_tried"])] for row in read("accuracy.json")]
    return report.lines(report.markdown_table(head, rows))


def inference() -> str:
    """The counts of a mean inference of the network that is kept."""
    result = read("mnist-100/result.json")
    head = ["a mean inference", "events", "spikes", "additions", "multiply-adds"]
    rows = []
    for k, layer in enumerate(result["layers"]):
        counts = [f"{layer[key]:,.0f}" for key in ("events", "spikes", "additions", "multiply_adds")]
        rows.append([f"layer {k}" if k else "input", *counts])
    return report.lines(report.markdown_table(head, rows))


def porting() -> str:
    """What bench/rows/porting.py measured: a row for each library and learning rate."""
    names = {"snntorch": "snnTorch, the tutorial's network", "srcell": "the port"}
    head = ["network", "learning rate", "test accuracy", "of each seed"]
    rows = []
    for row in read("porting.json")["rows"]:
        found = row["accuracies"]
        each = ", ".join(f"{accuracy:.1%}" for accuracy in found)
        rows.append([names[row["library"]], f"{row['learning_rate']:g}", f"{sum(found) / len(found):.1%}", each])
    return report.lines(report.markdown_table(head, rows))


def in_onnxruntime() -> str:
    """What bench/rows/in_onnxruntime.py measured: a row for each network."""
    names = {"784-100": "784-100", "deep": "784, ten times 128, 100", "lateral": "28-256, recurrent, row by row"}
    head = ["network", "accuracy", "in onnxruntime", "equal spikes", "in the last layer", "equal answers"]
    rows = []
    for row in read("onnx.json")["rows"]:
        there = row["onnx"]
        shares = [there[f"equal_{what}"] for what in ("spikes", "spikes_last_layer", "answers")]
        shown = [f"{x:.2%}" for x in (row["accuracy"], there["accuracy"], *shares)]
        rows.append([names[row["network"]], *shown])
    return report.lines(report.markdown_table(head, rows))


def for_sequences() -> str:
    """What SRC.for_sequences changes: bench/for_sequences.py."""
    found: dict[str, list[str]] = {}
    for row in read("for-sequences.json"):
        each = ", ".join(f"{accuracy:.1%}" for accuracy in row["accuracies"])
        found.setdefault(row["task"], []).append(f"{sum(row['accuracies']) / len(row['accuracies']):.1%} ({each})")
    head = ["task", "SRC(recurrent=True)", "SRC.for_sequences"]
    return report.lines(report.markdown_table(head, [[task, *cells] for task, cells in found.items()]))


def regression() -> str:
    """How well layers tell a drifting frequency: bench/regression.py."""
    names = {"src": "SRC.for_sequences", "gru": "torch.nn.GRU", "lif": "LIF, recurrent (snnTorch)"}
    found, rows = read("regression.json"), []
    for kind, name in names.items():
        cells = [name, f"{found[f'{kind}-20s']['runs'][0]['parameters']:,}"]
        for seconds in (20, 150):
            runs = found[f"{kind}-{seconds}s"]["runs"]
            ends = [run["r2"][-1] for run in runs]
            batches = sum(run["batches"] for run in runs) / len(runs)
            cells += [f"{sum(ends) / len(ends):.3f} ({min(ends):.3f} to {max(ends):.3f})", f"{batches:.0f}"]
        rows.append(cells)
    head = ["layer of 128", "parameters", "R2 after 20 s", "batches", "R2 after 150 s", "batches"]
    return report.lines(report.markdown_table(head, rows))


def what_matters() -> str:
    """What one change of a layer or of its training does to permuted digits: bench/what_matters.py."""
    rows = []
    found = read("what-matters.json")
    base = validation_accuracy(found["base"])
    for name, row in found.items():
        mean, each = validation_accuracy(row), len(row["runs"])
        cells = [f"{mean:.1f} %", "" if name == "base" else f"{mean - base:+.1f}", str(each)]
        rows.append([name, f"{row['parameters']:,}", *cells])
    head = ["change", "parameters", "validation accuracy", "less the base's", "seeds"]
    return report.lines(report.markdown_table(head, rows))


def validation_accuracy(row: dict[str, Any]) -> float:
    """The mean over the seeds, after the last epoch, in percent."""
    last = [run["accuracies"][-1] for run in row["runs"].values()]
    return float(sum(last) / len(last))


def beyond(task: str, shown: Callable[[str], str]) -> Callable[[], str]:
    """What networks do with inputs that they were not trained on, a row for each neuron: bench/rows/beyond.py."""
    names = {"src": "SRC, recurrent", "lif": "LIF, recurrent", "gru": "GRU"}

    def table() -> str:
        found = read("beyond.json")[task]
        tested = sorted(found["src"]["mean"], key=float)
        rows = [
            [name, f"{found[kind]['parameters']:,}", *(f"{found[kind]['mean'][key]:.1f} %" for key in tested)]
            for kind, name in names.items()
        ]
        return report.lines(report.markdown_table(["layer", "parameters", *map(shown, tested)], rows))

    return table


def through_time(cell: str) -> Callable[[], str]:
    """What each way to take gradients through time trained to, with a cell: bench/through_time.py."""

    def table() -> str:
        head = ["h and hs", "norm of the gradient", "validation accuracy", "learning rate"]
        rows = []
        for row in read("through_time.json")[cell]:
            best = max(row["tried"], key=lambda tried: sum(tried["accuracies"]))
            accuracy = sum(best["accuracies"]) / len(best["accuracies"])
            rows.append([row["method"], f"{best['norm']:.3g}", f"{accuracy:.1%}", f"{best['rate']:g}"])
        return report.lines(report.markdown_table(head, rows))

    return table


def spoken_digits() -> str:
    """How often the network of the page "Say a digit" is right: bench/say_a_digit.py."""
    found = read("say-a-digit/digits.json")
    names = ("clean", "20 dB", "20 dB, 0.5 s before", "10 dB", "10 dB, 0.5 s before")
    speakers = found["speakers_never_heard"].values()
    rows = []
    for name in names:
        never = [accuracies[name] for accuracies in speakers]
        cells = [f"{found['accuracy'][name]:.1f} %", f"{sum(never) / len(never):.1f} %", f"{min(never):.1f} %"]
        rows.append([name.replace("before", "of it before the word"), *cells])
    head = ["white noise below the speech", "a voice it knows", "a new voice, mean of six", "the worst of the six"]
    return report.lines(report.markdown_table(head, rows))


def features() -> str:
    """What works with PyTorch, each feature used now."""
    head = ["feature", "status", "what to know"]
    works_here, refused = [], []
    for found in works.FEATURES:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            error = works.outcome(found)
        if error and not found.refused:
            raise RuntimeError(f"works.py: {found.name}: {error}")
        shown = error.replace("|", "\\|").replace("<", "&lt;")
        if error:
            refused.append([found.name, "✗ refused", f"*{shown}* <br> Instead: {found.way}"])
        else:
            works_here.append([found.name, "✓ works", found.way])
    return report.lines(report.markdown_table(head, works_here + refused))


TABLES: dict[str, Callable[[], str]] = {
    "speed-machine": lambda: report.measured_on(report.documents()[0]),
    "speed-processors": lambda: report.lines(report.processors_table(report.documents())),
    "speed-layers": speed(report.layer_table),
    "speed-recurrence": speed(report.recurrence_table),
    "speed-inference": speed(report.latency_table),
    "speed-modes": speed(report.modes_table),
    "speed-one-thread": speed(report.one_thread_table),
    "speed-delays": lambda: report.lines(report.delays_table(read("lateral-delays.json"))),
    "speed-delays-machine": lambda: machine_of("lateral-delays.json"),
    "speed-convolution": lambda: report.lines(report.convolution_table(read("convolution.json"))),
    "speed-convolution-machine": lambda: machine_of("convolution.json"),
    "accuracy": accuracy(
        lambda name: (
            "/" not in name
            and not name.startswith(("depth-", "resonance-", "intervals-", "recall-"))
            and name not in accuracy_rows.BESIDE
        )
    ),
    "accuracy-resonance": lambda: report.lines(accuracy_rows.resonance_table(read("accuracy.json"))),
    "accuracy-delays": lambda: report.lines(accuracy_rows.delays_table(read("accuracy.json"))),
    "accuracy-memory": lambda: report.lines(accuracy_rows.memory_table(read("accuracy.json"))),
    "accuracy-sequences": lambda: report.lines(accuracy_rows.beside_table(read("accuracy.json"))),
    "accuracy-integers": lambda: report.lines(accuracy_rows.integer_table(read("accuracy.json"))),
    "accuracy-depth": lambda: report.lines(accuracy_rows.depth_table(read("accuracy.json"))),
    "accuracy-depth-cost": accuracy(lambda name: name.startswith("depth-")),
    "accuracy-ablations": accuracy(lambda name: name.startswith("mnist-100/")),
    "accuracy-commands": commands,
    "inference": inference,
    "onnx": in_onnxruntime,
    "porting": porting,
    "for-sequences": for_sequences,
    "regression": regression,
    "what-matters": what_matters,
    "beyond-recall": beyond("recall", lambda delay: f"{delay} steps"),
    "beyond-noise": beyond("noise", lambda share: f"{100 * float(share):g} % noise"),
    "through-time": through_time("training"),
    "through-time-sequences": through_time("sequences"),
    "spoken-digits": spoken_digits,
    "pytorch": features,
}


def draw(app: Sphinx) -> None:
    """Draw all figures before any page is read."""
    figures.write_figures(drawings(app))


def public_name(app: Sphinx, env: Any, node: Any, text: nodes.Node) -> nodes.Node | None:
    """The reference to ``srcell.functional.src`` leads to ``srcell.src``, where that is documented."""
    module, _, name = str(node.get("reftarget", "")).rpartition(".")
    context = node.get("py:module")
    inner = any(module == name or module.startswith(f"{name}.") for name in INNER_MODULES)
    if node.get("refdomain") != "py" or (not inner and not (module == "" and context)):
        return None
    domain = env.get_domain("py")
    fromdoc, typ = node["refdoc"], node["reftype"]
    found: nodes.Node | None = domain.resolve_xref(env, fromdoc, app.builder, typ, f"srcell.{name}", node, text)
    return found


def written_in(app: Sphinx, module: str, name: str) -> str | None:
    """The module whose file defines a class that names a shorter, public one as its own."""
    found = getattr(sys.modules[module], name, None)
    if not isinstance(found, type):
        return None
    functions = (x for x in vars(found).values() if inspect.isfunction(x))
    return next((x.__module__ for x in functions if x.__module__.startswith(f"{srcell.__name__}.")), None)


def alias_spelt_out(app: Sphinx, *description: Any) -> None:
    """Let a signature that was put together while the package runs show the type for which ``Parameter`` stands."""
    for types in app.env.temp_data.get("annotations", {}).values():
        types |= {name: "float | Tensor" for name, shown in types.items() if shown == "Parameter"}


def mathml(self: Any, node: nodes.Element) -> None:
    """An equation as MathML, which browsers show by themselves: no script, no other host."""
    display = "inline" if isinstance(node, nodes.math) else "block"
    self.body.append(converter.convert(node.astext(), display=display))
    raise nodes.SkipNode


def run_consoles(app: Sphinx, doctree: nodes.document) -> None:
    """Put the real output into console blocks, where the page expects some; a page's commands share a folder. With the
    tag `one_console`, only on the tutorial's page.
    """
    if "one_console" in app.tags and app.env.docname != "tutorial":
        return
    with tempfile.TemporaryDirectory() as folder:
        for block in doctree.findall(nodes.literal_block):
            if block.get("language") == "console":
                _, *commands = re.split(r"^\$ ", block.astext(), flags=re.MULTILINE)
                text = "".join(run_console(command, folder) for command in commands).rstrip("\n")
                block.rawsource, block[:] = text, [nodes.Text(text)]


def run_console(command: str, folder: str) -> str:
    """A command of a console block with its output; as it stands where the page expects none."""
    typed, _, expected = command.partition("\n")
    if not expected.strip():
        return f"$ {command.rstrip()}\n"
    words = shlex.split(typed)
    start = (
        [sys.executable, "-m", "torch.distributed.run"] if words[0] == "torchrun" else [sys.executable, "-m", "srcell"]
    )
    done = subprocess.run([*start, *words[1:]], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{typed}: {done.stderr}")
    return f"$ {typed}\n{done.stdout.rstrip()}\n"


class GalleryOrder:
    """The order of the gallery's examples."""

    NAMES = ("raster", "deep", "recall", "camera_events", "streaming", "sound", "synapse", "integer")

    def __init__(self, folder: str) -> None: ...

    def __call__(self, name: str) -> int:
        """The place of a file."""
        return self.NAMES.index(name.removeprefix("plot_").removesuffix(".py"))


shown: WeakSet[Drawing] = WeakSet()


def picture_of(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The picture under a cell of an example: the variable ``figure``, if it is a new one, light and dark."""
    figure = block_vars["example_globals"].get("figure")
    if not isinstance(figure, Drawing) or figure in shown:
        return ""
    shown.add(figure)
    path = Path(next(block_vars["image_path_iterator"]))
    titles = [figure.get_suptitle(), *(panel.get_title() for panel in figure.axes)]
    words = "; ".join(title for title in titles if title)
    text = ""
    for ground in figures.INKS:
        if ground == "dark":
            figures.darken(figure)
            path = path.with_stem(f"{path.stem}_dark")
        figure.savefig(path, dpi=110)
        place = path.relative_to(gallery_conf["src_dir"]).as_posix()
        text += f".. image:: /{place}\n   :alt: {words}\n   :class: sphx-glr-single-img only-{ground}\n\n"
    return text


def picture_first(app: Sphinx, page: str, source: list[str]) -> None:
    """Let an example of the gallery begin with its first picture, under the title; where it was drawn, say so."""
    images = re.search(r"(?:^\.\. image:: /examples/images/sphx.*\n(?:   :.*\n)+\n){2}", source[0], re.MULTILINE)
    if page.startswith("examples/plot_") and images:
        title = re.search(r"^=+\n\n", source[0], re.MULTILINE)
        assert title, page
        parts = (source[0][: title.end()], source[0][title.end() : images.start()], source[0][images.end() :])
        source[0] = f"{parts[0]}{images[0]}{parts[1]}*This drew the picture at the top.*\n\n{parts[2]}"
    if page == "examples/index":
        # Each thumbnail is followed by the title of its page.
        titles = iter(re.findall(r'thumbnail-title">(.*?)<', source[0]))
        source[0] = re.sub(r":alt:$", lambda _: f":alt: {next(titles)}", source[0], flags=re.MULTILINE)


def add_browser_files(app: Sphinx, error: Exception | None) -> None:
    """Put what the pages of docs/play fetch beside their scripts, unless the tag `without_browser` is given."""
    if error is None and app.builder.format == "html" and "without_browser" not in app.tags:
        play_files.write(Path(app.outdir) / "_static" / "play")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add the directives."""
    app.add_directive("drawn", Drawn)
    app.add_directive("measured", Measured)
    app.add_directive("summary", Summary)
    app.add_directive("command-help", CommandHelp)
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("builder-inited", draw)
    app.connect("doctree-read", run_consoles)
    app.connect("source-read", picture_first)
    app.connect("build-finished", add_browser_files)
    app.connect("missing-reference", public_name)
    app.connect("viewcode-follow-imported", written_in)
    app.connect("object-description-transform", alias_spelt_out, priority=400)  # before autodoc takes the types
    return {"parallel_read_safe": True}
