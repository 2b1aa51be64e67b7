"""Sphinx's settings: ``tox -e docs`` builds the pages as HTML, warnings as errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes

project = "sqspipes"
author = "the sqspipes developers"
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_static_path = ["_static"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them as they are written
nitpicky = False


def _lead_to_pages(app: Any, doctree: nodes.document) -> None:
    """Have links to files of this folder, which work in a checkout, lead to the pages that were made of them."""
    here = app.env.docname
    for reference in doctree.findall(nodes.reference):
        file, _, place = reference.get("refuri", "").partition("#")
        page = Path(file).stem
        if file == f"{page}.rst" and page in app.env.found_docs:
            address = app.builder.get_relative_uri(here, page)
            reference["refuri"] = f"{address}#{place}" if place else address


def setup(app: Any) -> None:
    """Register what is above."""
    app.connect("doctree-read", _lead_to_pages)
