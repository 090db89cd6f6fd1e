"""The site of `make docs`: the pages in this folder, two of them completed from the code at build time."""

import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))

from generators import complete

from fotahook.contract.version import VERSION

project = "fotahook"
release = version = VERSION
project_copyright = "the authors of fotahook; Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# Pages link to headings by the anchors that GitHub generates.
myst_heading_anchors = 4
# Readers copy flags from here: two hyphens must stay two hyphens.
smartquotes = False
suppress_warnings = [
    # A block can show several JSON responses, or only the beginning of one.
    "misc.highlighting_failure",
]

# Single backticks in docstrings are code, as in Markdown.
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
    """Complete pages when Sphinx reads them, and put the pages' sources beside them for agents."""
    app.connect("source-read", lambda _, name, source: source.__setitem__(0, complete(name, source[0])))
    app.connect("build-finished", lambda app, error: copy_sources(Path(app.outdir)))


def copy_sources(site: Path) -> None:
    """`llms.txt`, `SKILL.md`, and the pages that the first of them links."""
    docs = Path(__file__).parent
    for page in docs.rglob("*.md"):
        (site / page.relative_to(docs).parent).mkdir(exist_ok=True)
        shutil.copy(page, site / page.relative_to(docs))
    for file in (docs.parent / "src" / "fotahook" / "agents").iterdir():
        shutil.copy(file, site)
