"""What these pages need of Sphinx.

Tables that ``pages.py`` wrote, buttons and cards get classes for the style sheet, pictures follow the theme, and the
first paragraph of a page describes it.

Console blocks get the output that their commands really have, in place of what the page expects. The gallery's examples
are run by sphinx-gallery, which asks here for their pictures and their order.

``conf.py`` loads it.
"""

from __future__ import annotations

import html
import inspect
import itertools
import pickle
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from weakref import WeakSet

import figures
import pages
import play_files
from docutils import nodes
from latex2mathml import converter
from matplotlib import pyplot
from matplotlib.figure import Figure as Drawing
from numpy.typing import ArrayLike
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

import srcell

MAKES_FILES = {"howto/own-data"}  # the first Python block of the page makes the files that its commands read

# What stands in the package's docstrings under these names is documented under the shorter, public ones.
INNER_MODULES = ("srcell.functional", "srcell.layers", "srcell.events", "srcell._shared.state")
ARRAYS = stringify_annotation(ArrayLike, "smart")


def contain(app: Sphinx, page: str, source: list[str]) -> None:
    """Put tables that ``pages.py`` wrote, buttons and cards into containers, whose classes ``pages.css`` knows.

    Directives may stand in comments, of which GitHub shows nothing.
    """

    def contained(found: re.Match[str]) -> str:
        kind, name, table = found.groups()
        classes = f"{kind} {name.partition('-')[0]} {name}"
        return f":::{{container}} {classes}\n{table}:::" if kind in ("measured", "summary") else found[0]

    text = pages.MARKED.sub(contained, source[0])
    text = re.sub(r"gallery/(plot_\w+)\.py\)", r"examples/\1.rst)", text)  # on GitHub an example has no page
    marked = r"^<!-- (cards|buttons) -->\n(.*?)^<!-- /\1 -->$"
    text = re.sub(marked, r":::{container} \1\n\2:::", text, flags=re.MULTILINE | re.DOTALL)
    commented = r"^<!-- (\{\w+\}.*?\n)-->$"
    source[0] = re.sub(commented, r"```\1```", text, flags=re.MULTILINE | re.DOTALL)


def for_both_grounds(app: Sphinx, page: str, source: list[str]) -> None:
    """Put each picture once for light pages and once for dark ones: the theme shows one of them."""

    def pair(found: re.Match[str]) -> str:
        light = re.sub(r"^.*prefers-color-scheme: dark.*\n", "", found[0], flags=re.MULTILINE)
        return "".join(
            light.replace("<picture>", f'<picture class="only-{ground}">').replace("-light.svg", f"-{ground}.svg")
            for ground in figures.INKS
        )

    source[0] = re.sub(r"^<picture>$.*?^</picture>\n", pair, source[0], flags=re.MULTILINE | re.DOTALL)


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
    """Let a signature that was put together while the package runs show the type for which ``Parameter`` stands, and
    ``ArrayLike`` by its name.
    """
    for types in app.env.temp_data.get("annotations", {}).values():
        types |= {name: shown.replace(ARRAYS, "ArrayLike") for name, shown in types.items()}
        types |= {name: "float | Tensor" for name, shown in types.items() if shown == "Parameter"}


def without_alias(app: Sphinx, kind: str, name: str, described: Any, options: Any, lines: list[str]) -> None:
    """Leave out what Python writes about each field of a named tuple: "Alias for field number 0"."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def describe(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """Describe a page by its first paragraph, to search engines and where a link to it is shown."""
    paragraph = next(iter(doctree.findall(nodes.paragraph)), None) if doctree else None
    if paragraph is not None:
        text = html.escape(" ".join(paragraph.astext().split()))
        title = html.escape(app.env.titles[page].astext())
        tags = [f'<meta name="description" content="{text}">', f'<meta property="og:description" content="{text}">']
        tags += [f'<meta property="og:title" content="{title}">', '<meta property="og:site_name" content="srcell">']
        tags += ['<meta property="og:type" content="article">', '<meta name="twitter:card" content="summary">']
        context["metatags"] = "\n".join([context.get("metatags", ""), *tags])


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
    blocks = list(doctree.findall(nodes.literal_block))
    with tempfile.TemporaryDirectory() as folder:
        if app.env.docname in MAKES_FILES:
            script = next(block.astext() for block in blocks if block.get("language") == "python")
            subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)
        for block in blocks:
            if block.get("language") == "console":
                _, *commands = re.split(r"^\$ ", block.astext(), flags=re.MULTILINE)
                text = "".join(run_console(command, folder) for command in commands).rstrip("\n")
                block.rawsource, block[:] = text, [nodes.Text(text)]


def run_console(command: str, folder: str) -> str:
    """A command of a console block with its output; as it stands where the page expects none."""
    typed = re.match(r"(.*\\\n)*.*", command)[0]  # of several lines, if they end with a backslash
    if not command[len(typed) :].strip():
        return f"$ {command.rstrip()}\n"
    words = shlex.split(typed.replace("\\\n", ""))
    start = (
        [sys.executable, "-m", "torch.distributed.run"] if words[0] == "torchrun" else [sys.executable, "-m", "srcell"]
    )
    done = subprocess.run([*start, *words[1:]], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{typed}: {done.stderr}")
    return f"$ {typed}\n{done.stdout.rstrip()}\n"


class GalleryOrder:
    """The order of the gallery's examples."""

    NAMES = (
        *("raster", "deep", "recall", "new_voices", "moving_camera", "camera_events", "streaming", "sound", "synapse"),
        *("heartbeats", "braille", "integer"),
    )

    def __init__(self, folder: str) -> None: ...

    def __call__(self, name: str) -> int:
        """The place of a file."""
        return self.NAMES.index(name.removeprefix("plot_").removesuffix(".py"))


shown: WeakSet[Drawing] = WeakSet()


def picture_of(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """The picture under a cell of an example, the variable ``figure`` if it is a new one: wide and narrow, light and
    dark.
    """
    figure = block_vars["example_globals"].get("figure")
    if not isinstance(figure, Drawing) or figure in shown:
        return ""
    shown.add(figure)
    path = Path(next(block_vars["image_path_iterator"]))
    titles = [figure.get_suptitle(), *(panel.get_title() for panel in figure.axes)]
    words = "; ".join(title for title in titles if title)
    text, drawn = "", pickle.dumps(figure)
    for width, ground in itertools.product(("wide", "narrow"), figures.INKS):
        figure = pickle.loads(drawn)
        if width == "narrow":
            figures.make_narrow(figure)
        if ground == "dark":
            figures.darken(figure)
        file = path.with_stem(path.stem + "_narrow" * (width == "narrow") + "_dark" * (ground == "dark"))
        figure.savefig(file, dpi=110 if width == "wide" else 220)
        pyplot.close(figure)
        place = file.relative_to(gallery_conf["src_dir"]).as_posix()
        text += f".. image:: /{place}\n   :alt: {words}\n   :class: sphx-glr-single-img only-{ground} {width}\n\n"
    return text


def picture_first(app: Sphinx, page: str, source: list[str]) -> None:
    """Let an example of the gallery begin with its first picture, under the title; where it was drawn, say so."""
    images = re.search(r"(?:^\.\. image:: /examples/images/sphx.*\n(?:   :.*\n)+\n){4}", source[0], re.MULTILINE)
    if page.startswith("examples/plot_") and images:
        title = re.search(r"^=+\n\n", source[0], re.MULTILINE)
        assert title, page
        parts = (source[0][: title.end()], source[0][title.end() : images.start()], source[0][images.end() :])
        source[0] = f"{parts[0]}{images[0]}{parts[1]}*This drew the picture at the top.*\n\n{parts[2]}"
    if page == "examples/index":
        # Each thumbnail is followed by the title of its page; the first picture, light and dark, replaces it, if the
        # example did run.
        titles = iter(re.findall(r'thumbnail-title">(.*?)<', source[0]))
        thumbnail = "  .. image:: /examples/images/{}_001{}.png\n    :alt: {}\n    :class: only-{}\n\n"

        def both(found: re.Match[str]) -> str:
            title = next(titles)
            if not Path(app.srcdir, "examples", "images", f"{found[1]}_001.png").exists():
                return found[0].replace(":alt:", f":alt: {title}")
            return "".join(thumbnail.format(found[1], end, title, x) for end, x in (("", "light"), ("_dark", "dark")))

        source[0] = re.sub(r"  \.\. image:: .*/thumb/(\w+)_thumb\.png\n    :alt:\n", both, source[0])


def add_browser_files(app: Sphinx, error: Exception | None) -> None:
    """Put what the pages of docs/play fetch beside their scripts, unless the tag `without_browser` is given."""
    if error is None and app.builder.format == "html" and "without_browser" not in app.tags:
        play_files.write(Path(app.outdir) / "_static" / "play")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what the pages need."""
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
    app.connect("doctree-read", run_consoles)
    app.connect("source-read", picture_first)
    app.connect("source-read", contain)
    app.connect("source-read", for_both_grounds)
    app.connect("html-page-context", describe)
    app.connect("build-finished", add_browser_files)
    app.connect("missing-reference", public_name)
    app.connect("viewcode-follow-imported", written_in)
    app.connect("autodoc-process-docstring", without_alias)
    app.connect("object-description-transform", alias_spelt_out, priority=400)  # before autodoc takes the types
    return {"parallel_read_safe": True}
