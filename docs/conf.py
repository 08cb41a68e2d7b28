"""The site: ``make docs`` builds it into ``docs/_build/html``. Pages under ``docs/reference`` are generated."""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(DOCS), *(str(ROOT / source) for source in (".", "core", "datasets", "policies", "hw"))]
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from robo_policies.rendering import import_mujoco  # noqa: E402
from site_pages.commands import write_commands  # noqa: E402
from site_pages.metrics import write_metrics  # noqa: E402
from site_pages.own_files import write_own_files  # noqa: E402
from site_pages.project import METADATA, link_out  # noqa: E402
from site_pages.python_api import write_python_api  # noqa: E402

import_mujoco()  # before anything that autodoc imports, so that it finds its GL backend

project = "robo-rm"
author = METADATA["authors"][0]["name"]
copyright = author
version = release = METADATA["version"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "site_pages"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # tests/slow run the notebooks
default_role = "code"
smartquotes = False  # what is copied from a page is pasted into a shell
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_class_signature = "separated"
# Names of other libraries: their own pages are out of reach offline.
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = f"robo-rm {version}"
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}  # half of the pages are generated: there is nothing to edit
html_show_sourcelink = False


def _links_out_of_docs(_app: object, page: str, source: list[str]) -> None:
    """Turn links to files outside of docs/ into links to the repository, as they are on its own pages."""
    if not page.startswith("reference/"):
        folder = (Path("docs") / page).parent.as_posix()
        source[0] = link_out(source[0], folder, folder)


def setup(app: object) -> None:
    """Write the generated pages before Sphinx looks for pages."""
    write_commands(DOCS / "reference" / "commands")
    write_python_api(DOCS / "reference" / "python")
    write_metrics(DOCS / "reference" / "metrics.md")
    write_own_files(DOCS / "reference")
    app.connect("source-read", _links_out_of_docs)  # type: ignore[attr-defined]
