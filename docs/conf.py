"""How Sphinx builds these pages: ``make docs``, or ``sphinx-build -W --keep-going -b html docs build/docs``."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PLACES = [HERE / "_machinery", *(ROOT / part for part in ("bench", "experiments", "tools", "tests/support"))]
sys.path[:0] = map(str, PLACES)

import srcell  # noqa: E402

project = "srcell"
release = version = srcell.__version__
project_copyright = "the srcell authors, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
extensions += ["sphinx.ext.viewcode", "extension"]  # the second listens to events of the first
extensions += ["sphinx_copybutton", "sphinx_gallery.gen_gallery"]
exclude_patterns = ["gallery", "_machinery"]
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "within_subsection_order": "extension.GalleryOrder",
    "image_scrapers": ("extension.picture_of",),
    "capture_repr": (),
    "thumbnail_size": (720, 450),
    "run_stale_examples": True,  # the library may have changed under them
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "first_notebook_cell": '# Needs srcell and its extra "train".\n%matplotlib inline',
    "write_computation_times": False,
    "min_reported_time": 3600,
}

root_doc = "index"
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
html_math_renderer = "mathml"  # of extension.py
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "dollarmath"]
autosummary_generate = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_line_continuation_character = "\\"

# Docstrings are in Google's style, types in the annotations.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
# The groups of the many options of a layer.
napoleon_custom_sections = [
    (name, "params_style") for name in ("As in torch", "The cell", "Recurrent weights", "The gradient")
]
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"srcell {version}"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": False}  # the pages of play/ use the arrows
pygments_style = "friendly"
pygments_dark_style = "monokai"
