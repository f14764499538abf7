"""Every example of the documentation runs: the blocks of docs/**/*.md and README.md, in their order on each page.

Python blocks share one namespace per page; those written as sessions (>>>) are doctests. Console blocks show a command
after ``$ `` and its output, with ``...`` for the parts that vary. A command that needs a download, a GPU
or minutes is only parsed; all others run. Blocks that cannot run have other tags, and unknown tags are an error. Files
of the repository that a page shows do not run here: they have tests of their own.
"""

from __future__ import annotations

import argparse
import doctest
import importlib
import importlib.util
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import srcell
from srcell import benchmark, cli, data, evaluation, functional, hardware, models, training
from srcell.cli.bench import bench
from srcell.cli.options import given_settings
from srcell.data.own import is_own
from support.calls import EXPORTS_ONNX

pytestmark = pytest.mark.landing

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])

RUN = {"python", "console"}
SHOWN = {"text", "sh"}  # equations, and commands that install or need several GPUs
DIRECTIVES = {"{eval-rst}"}

# Data sets that a test may not use, because they need a download.
NOT_HERE = {"mnist", "fashion-mnist", "nmnist", "psmnist", "spoken-digits", "qtdb", "braille"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
SECONDS = 100  # a command that takes longer is assumed to hang

MAKES_FILES = {"docs/howto/own-data.md"}  # the first Python block makes the files that the commands read

NEEDS = {
    "docs/howto/camera-events.md": ("nir",),
    "docs/howto/neurobench.md": ("neurobench",),
    "docs/howto/onnx.md": ("onnx", "onnxscript", "onnxruntime"),
    "docs/howto/porting.md": ("snntorch", "spikingjelly"),
}


class Block(NamedTuple):
    """A fenced block: its tag ("file" if ``pages.py`` writes it), its text, and the line on which the text begins."""

    tag: str
    text: str
    line: int


def blocks_of(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in their order."""
    tag, fence, start, kept, above = "", "", 0, [""], ""
    for number, line in enumerate((ROOT / page).read_text().splitlines(), start=1):
        opened = re.match(r"\s*(`{3,}|~{3,}|:{3,})(.*)", line)
        if fence:
            if opened and opened[1].startswith(fence) and not opened[2].strip():
                yield Block(tag, textwrap.dedent("\n".join(kept)) + "\n", start)
                fence = ""
            else:
                kept.append(line)
        elif opened:
            written = above.startswith(("<!-- file: ", "<!-- help: ", "<!-- readme: "))
            tag = "file" if written else (opened[2].split() or [""])[0]
            fence, start, kept = opened[1], number + 1, []
        above = line or above
    assert not fence, f"{page}: the block of line {start} has no end"


BLOCKS = {page: list(blocks_of(page)) for page in PAGES}
WITH_PYTHON = [page for page in PAGES if any(block.tag == "python" for block in BLOCKS[page])]
WITH_CONSOLE = [page for page in PAGES if any(block.tag == "console" for block in BLOCKS[page])]


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script that `make pages` runs."""
    for folder in ("tests/support", "tools", "experiments", "bench", "docs/_machinery"):
        monkeypatch.syspath_prepend(str(ROOT / folder))
    return importlib.import_module("pages")


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_current_tables_and_files(page: str, writer: ModuleType) -> None:
    text = (ROOT / page).read_text()
    assert text == writer.current(text), "run `make pages`"


def test_every_table_is_on_one_page(writer: ModuleType) -> None:
    texts = [(ROOT / page).read_text() for page in PAGES]
    found = [name for text in texts for kind, name, _ in writer.MARKED.findall(text) if kind == "measured"]
    assert sorted(found) == sorted(writer.TABLES)
    ends = sum(len(re.findall("^<!-- /(?!buttons|cards)", text, re.MULTILINE)) for text in texts)
    assert ends == sum(len(writer.MARKED.findall(text)) for text in texts)


@pytest.mark.parametrize("page", PAGES)
def test_columns_of_numbers_are_aligned_on_the_right(page: str, writer: ModuleType) -> None:
    report = importlib.import_module("report")
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
        assert rows[1] == [report.rule(column) for column in zip(*rows[2:], strict=True)], rows[0]


def test_every_figure_is_on_a_page_and_has_words(writer: ModuleType) -> None:
    shown = set()
    for page in PAGES:
        text = (ROOT / page).read_text()
        assert len(re.findall(r'<img src="[^"]*" alt="[^"]{20,}">', text)) == text.count("<img ")
        paths = re.findall(r'"([^"]*/figures/[^"]*)"', text)
        shown |= {(ROOT / page).parent.joinpath(path).resolve() for path in paths}
    figures = writer.figures
    names = [*figures.DRAWN, *figures.DRAWN_ELSEWHERE, "flow"]
    assert shown == {writer.FIGURES / f"{name}-{ground}.svg" for name in names for ground in figures.INKS}
    assert shown == set(writer.FIGURES.iterdir())


@pytest.mark.parametrize("ground", ["light", "dark"])
def test_figures_are_current(writer: ModuleType, ground: str) -> None:
    for name in writer.figures.DRAWN:
        path = writer.FIGURES / f"{name}-{ground}.svg"
        assert writer.figures.current(name, ground, path.read_text()) == path.read_text(), f"{path}: run `make pages`"


def test_the_picture_of_a_call_is_current(writer: ModuleType) -> None:
    for ground in writer.figures.INKS:
        assert (writer.FIGURES / f"flow-{ground}.svg").read_text() == writer.figures.flow(ground), "run `make pages`"


def test_a_figure_is_compared_by_what_it_shows(writer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by its bytes, in which versions of matplotlib differ."""
    kept = (writer.FIGURES / "rate-light.svg").read_text()
    older = re.sub(r"Matplotlib v[^,]*", "Matplotlib v3.7.0", kept.replace("<path ", '<path class="" '))
    assert older != kept
    assert writer.figures.current("rate", "light", older) == older
    monkeypatch.setattr(writer.figures, "BIAS", -5.9)
    assert writer.figures.current("rate", "light", older) != older


def test_a_figure_of_a_trained_network_is_drawn_again_if_its_program_changes(
    writer: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = writer.figures
    kept = (writer.FIGURES / "raster-light.svg").read_text()
    empty = pickle.dumps(figures.Figure())
    monkeypatch.setattr(figures, "pictures_of", lambda example: [empty] * 3)  # no training here
    assert figures.current("raster", "light", kept) == kept
    monkeypatch.setitem(figures.PROGRAMS, "raster", figures.PROGRAMS["sound"])
    assert figures.current("raster", "light", kept) != kept


def test_the_tags_of_all_blocks_are_known() -> None:
    assert {block.tag for blocks in BLOCKS.values() for block in blocks} == RUN | SHOWN | DIRECTIVES | {"file"}


def test_blocks_that_are_only_shown_do_not_hide_an_example() -> None:
    shown = [(f"{page}:{block.line}", block.text) for page in PAGES for block in BLOCKS[page] if block.tag in SHOWN]
    assert shown
    for where, text in shown:
        assert not re.search(r"^(>>> |\$ |import |from |srcell )", text, re.MULTILINE), where


@pytest.mark.parametrize("page", WITH_PYTHON)
def test_python_examples_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [block for block in BLOCKS[page] if block.tag == "python"]
    asserts = any(re.search("assert |>>> ", block.text) for block in examples)
    assert asserts or page == "README.md", "would pass whatever the examples do"
    for package in NEEDS.get(page, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed: pip install "srcell[docs]"')
    if page == "docs/howto/onnx.md" and not EXPORTS_ONNX:
        pytest.skip("torch.onnx.export takes a table from torch 2.6 on")
    if page == "docs/howto/microcontroller.md" and shutil.which("cc") is None:
        pytest.skip("needs a C compiler, cc")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "docs"}
    for block in examples:
        if block.text.lstrip().startswith(">>>"):
            session = doctest.DocTestParser().get_doctest(block.text, names, page, page, block.line - 1)
            assert session.examples
            # By default the runner clears the namespace when it ends.
            result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session, clear_globs=False)
            assert result.failed == 0, f"{page}:{block.line}"
            names.update(session.globs)
        else:
            # Preceded by empty lines, so that a traceback has the page's line numbers.
            exec(compile("\n" * (block.line - 1) + block.text, str(ROOT / page), "exec"), names)


class Command(NamedTuple):
    """A command of a console block, its expected output, and its place."""

    words: list[str]
    output: str
    where: str


def commands_of(page: str) -> Iterator[Command]:
    """All commands of a page's console blocks."""
    for block in BLOCKS[page]:
        if block.tag != "console":
            continue
        first, *parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
        assert not first.strip() and parts, f"{page}:{block.line}: expected a command behind '$ ' first"
        for part in parts:
            typed, _, output = part.replace("\\\n", "").partition("\n")  # a command may go on in the next line
            yield Command(shlex.split(typed), output, f"{page}:{block.line}: {typed}")


def split_launcher(words: list[str]) -> tuple[list[str], list[str]]:
    """The launcher before srcell (torchrun and its options, or nothing), and srcell's arguments."""
    if words[0] == "srcell":
        return [], words[1:]
    at = words.index("-m")
    assert words[0] == "torchrun" and words[at + 1] == "srcell", words
    return words[1:at], words[at + 2 :]


def check_command(words: list[str]) -> argparse.Namespace:
    """Parse the arguments of srcell; settings and benchmark cases are checked as well."""
    arguments = cli.build_parser().parse_args(words)
    own = arguments.dataset if words[0] == "train" and is_own(arguments.dataset or "") else None
    if words[0] == "train" and arguments.dataset is not None and (own is None or Path(own).exists()):
        training.TrainingConfig.preset(arguments.preset or "best", arguments.dataset, **given_settings(arguments))
    if words[0] == "bench":
        assert benchmark.choose(arguments.cases, threads=arguments.threads, quick=arguments.quick)
    return arguments


def runs_here(arguments: argparse.Namespace, folder: Path) -> bool:
    """Whether a command can run here: no download, no GPU, no minutes, and no run folder that is missing."""
    if arguments.run is bench or getattr(arguments, "device", "cpu") != "cpu":
        return False
    dataset = getattr(arguments, "dataset", None) or ""
    if dataset in NOT_HERE or (is_own(dataset) and not (folder / dataset).exists()):
        return False
    needed = getattr(arguments, "run_folder", None) or getattr(arguments, "resume", None)
    return needed is None or (folder / needed).exists()


@pytest.mark.parametrize("page", WITH_CONSOLE)
def test_console_examples_print_the_shown_output(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if page in MAKES_FILES:
        exec(next(block.text for block in BLOCKS[page] if block.tag == "python"), {})
    checker, flags = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    for command in commands_of(page):
        launcher, words = split_launcher(command.words)
        if not runs_here(check_command(words), tmp_path):
            assert not command.output.strip(), f"{command.where}: does not run here, so nobody checks its output"
            continue
        if launcher:
            launched = [*TORCHRUN, *launcher, "-m", "srcell", *words]
            done = subprocess.run(launched, capture_output=True, text=True, timeout=SECONDS)
            status, printed, errors = done.returncode, done.stdout, done.stderr
        else:
            status = cli.main(words)
            printed, errors = capsys.readouterr()
        assert status == 0, f"{command.where}: {errors}"
        assert command.output.strip(), f"{command.where}: expected its output on the page, got {printed}"
        assert checker.check_output(command.output, printed, flags), f"{command.where}: printed\n{printed}"


def test_some_commands_run() -> None:
    """The rule that skips commands must not skip all of them."""
    commands = [split_launcher(command.words)[1] for page in WITH_CONSOLE for command in commands_of(page)]
    spared = [words for words in commands if not runs_here(check_command(words), ROOT / "nowhere")]
    assert len(commands) - len(spared) >= 5


def test_the_command_line_accepts_the_commands_of_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    typed = re.findall(r"^    ((?:srcell|torchrun) .*)$", text, re.MULTILINE)
    assert len(typed) >= 5
    for line in typed:
        check_command(split_launcher(shlex.split(line, comments=True))[1])


def test_the_reference_has_every_public_name() -> None:
    pages = "".join((ROOT / page).read_text() for page in PAGES if page.startswith("docs/reference/"))
    documented = set(re.findall(r"^\.\. (?:auto|py:)\w+:: (srcell\.[\w.]+)$", pages, re.MULTILINE))
    public = {f"srcell.{name}" for name in srcell.__all__ if name != "functional"}
    public |= {f"srcell.functional.{name}" for name in functional.__all__ if name not in srcell.__all__}
    for module in (data, benchmark, hardware, training):
        public |= {f"{module.__name__}.{name}" for name in module.__all__}
    public.remove("srcell.training.evaluate")  # documented where it is defined, in srcell.evaluation
    for module in (models, evaluation):
        own = (name for name, x in vars(module).items() if getattr(x, "__module__", "") == module.__name__)
        public |= {f"{module.__name__}.{name}" for name in own if not name.startswith("_")}
    assert public - documented == set()
