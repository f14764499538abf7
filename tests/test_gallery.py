"""The gallery's notebooks: valid, and with the code of the examples, which the documentation's build runs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

pytestmark = pytest.mark.landing

EXAMPLES = sorted((Path(__file__).parent.parent / "docs" / "gallery").glob("plot_*.py"))


def test_the_gallery_has_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_notebook_holds_the_code_of_its_example(example: Path) -> None:
    reason = 'needs pip install "srcell[docs]"'
    nbformat = pytest.importorskip("nbformat", reason=reason)
    notebook = pytest.importorskip("sphinx_gallery.notebook", reason=reason)
    parser = pytest.importorskip("sphinx_gallery.py_source_parser", reason=reason)
    from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF

    _, blocks = parser.split_code_and_text_blocks(str(example))
    made = notebook.jupyter_notebook(blocks, dict(DEFAULT_GALLERY_CONF), str(example.parent))
    nbformat.validate(nbformat.from_dict(made))
    cells = ["".join(cell["source"]) for cell in made["cells"] if cell["cell_type"] == "code"]
    code = "\n".join(cell for cell in cells if not cell.startswith("%"))
    compile(code, str(example), "exec")
    text = example.read_text()
    lines = text.splitlines()[ast.parse(text).body[1].lineno - 1 :]  # after the docstring
    written = [line for line in lines if line.strip() and not line.startswith("#")]
    assert len(cells) >= 2 and len(written) >= 10 and all(line in code for line in written)
    assert made["cells"][0]["source"][0].startswith("# ")
