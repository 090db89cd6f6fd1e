"""The site of `make docs`: the pages beside this file, two of them completed from the code when it is built."""

import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

from made import complete

from fotahook.contract.version import VERSION

project = "fotahook"
release = version = VERSION
project_copyright = "the authors of fotahook; Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The pages link to each other's headings as GitHub shows them.
myst_heading_anchors = 4
# Flags begin with two hyphens, and are copied from here.
smartquotes = False
suppress_warnings = [
    # Answers are shown as they come: several in one block, or the beginning of a long one.
    "misc.highlighting_failure",
]

# What docstrings have between single backticks is code, as in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"fotahook {VERSION}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Complete pages as they are read."""
    app.connect("source-read", lambda _, name, source: source.__setitem__(0, complete(name, source[0])))
