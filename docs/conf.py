"""Configuration of the documentation."""

from __future__ import annotations

import logging
from importlib.metadata import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

info = metadata("spatialwhisperer")
project = info["Name"]
author = info["Author"] or "SpatialWhisperer developers"
project_copyright = author
version = release = info["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
]
# Needs Python 3.12
if find_spec("scverse_misc") is not None:
    extensions.append("scverse_misc.sphinx_ext")

needs_sphinx = "8.1"
templates_path = ["_templates"]
# the tables are parts of a page
exclude_patterns = ["_build", "Thumbs.db", ".DS_Store", "**.ipynb_checkpoints", "mutants_table.md", "torture_table.md"]
default_role = "literal"

autosummary_generate = True
autodoc_member_order = "groupwise"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = True
napoleon_use_param = True
always_use_bars_union = True
typehints_defaults = "braces"
# Attributes of several classes have the same name
suppress_warnings = ["ref.python"]

# Notebooks are shown with the outputs that are stored in them
nb_execution_mode = "off"
nb_output_stderr = "remove"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]

intersphinx_timeout = 5
intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3/", None),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
    "spatialdata": ("https://spatialdata.scverse.org/en/stable/", None),
    "torch": ("https://docs.pytorch.org/docs/stable/", None),
}

html_theme = "sphinx_book_theme"
html_title = project
html_theme_options = {"show_toc_level": 2}


def _not_about_hosts(record: logging.LogRecord) -> bool:
    """A host that cannot be reached costs links to other projects, not the build, even where warnings are errors."""
    return "inventories" not in str(record.msg)


def setup(app: Sphinx) -> None:  # noqa: ARG001
    """Called by Sphinx."""
    logging.getLogger("sphinx.sphinx.ext.intersphinx").addFilter(_not_about_hosts)
