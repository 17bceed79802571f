"""The site that `make docs` builds from the pages of this folder's parent, and from the docstrings of the package."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from airflow_mcp import __version__
from airflow_mcp.get_provider_info import get_provider_info

DOCS = Path(__file__).parent.parent
REFERENCE = DOCS / "reference"
"""Pages with docstrings; written anew by each build and not kept in Git."""

LANGUAGES = {"zh": "zh-CN", "ru": "ru"}
"""Folders of translated pages, and their language in HTML."""

project = "airflow-mcp"
author = "The airflow-mcp developers"
release = version = __version__
html_title = f"airflow-mcp {__version__}"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["site"]
root_doc = "index"
html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
templates_path = ["templates"]
html_context = {"versions": json.loads(os.environ.get("AIRFLOW_MCP_DOCS_VERSIONS", "[]"))}
html_sidebars = {
    "**": [
        *(
            f"sidebar/{name}.html"
            for name in ("scroll-start", "brand", "search", "navigation", "versions", "ethical-ads")
        ),
        *("sidebar/scroll-end.html", "sidebar/variant-selector.html"),
    ]
}
html_copy_source = html_show_sourcelink = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4  # pages link to headings as GitHub names them
myst_links_external_new_tab = True

autodoc_default_options = {"members": True, "show-inheritance": True, "member-order": "bysource"}
autodoc_typehints = "none"  # the signature of an operator is long; its parameters are in the docstring
autodoc_class_signature = "separated"
nitpicky = False  # docstrings name classes of Airflow and MLflow, whose sites are not reachable while this is built
suppress_warnings = ["ref.python", "misc.highlighting_failure"]


def write_reference(app: Sphinx) -> None:
    """Write one page for each kind of module that users import."""
    REFERENCE.mkdir(exist_ok=True)
    info = get_provider_info()
    kinds = {
        "operators": "Operators",
        "sensors": "Sensors",
        "hooks": "Hooks",
        "triggers": "Triggers",
    }
    pages = {kind: (title, _modules(info[kind])) for kind, title in kinds.items()}
    pages["notifications"] = ("Notifications", ["airflow_mcp.notifications.webhook"])
    pages["exceptions"] = ("Exceptions", ["airflow_mcp.exceptions"])
    for name, (title, modules) in pages.items():
        parts = [f"{title}\n{'=' * len(title)}\n"]
        parts += [f"{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n" for module in modules]
        (REFERENCE / f"{name}.rst").write_text("\n".join(parts), encoding="utf-8")


def _modules(groups: list[dict[str, list[str]]]) -> list[str]:
    return [module for group in groups for module in group["python-modules"]]


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Add the navigation, which follows the lists of links in the pages, so that there is only one list to keep."""
    if page == root_doc:
        source[0] = re.sub(r"(?ms)^## (.+?)\n(.*?)(?=^## |\Z)", _section, source[0])
        source[0] += _tree("Reference", [f"reference/{path.stem}" for path in sorted(REFERENCE.glob("*.rst"))])
        source[0] += _tree("Languages", [f"{folder}/{root_doc}" for folder in LANGUAGES])
    elif page.removesuffix(f"/{root_doc}") in LANGUAGES:
        folder = page.partition("/")[0]
        source[0] += _tree("", sorted(path.stem for path in (DOCS / folder).glob("*.md") if path.stem != root_doc))
    elif (DOCS / page).is_dir():
        pages = sorted(path.relative_to(DOCS).with_suffix("").as_posix() for path in (DOCS / page).glob("*.md"))
        source[0] += _tree("", pages)


def _section(found: re.Match[str]) -> str:
    links = re.findall(r"\]\(([\w/-]+)\.md\)", found[2])
    nested = [link for link in links if "/" in link and link.partition("/")[0] in links]
    return found[0] + _tree(found[1], [link for link in dict.fromkeys(links) if link not in nested])


def _tree(caption: str, pages: list[str]) -> str:
    if not pages:
        return ""
    options = ":hidden:\n" + (f":caption: {caption}\n" if caption else "")
    return "\n```{toctree}\n" + options + "\n" + "\n".join(pages) + "\n```\n\n"


def set_language(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: object) -> None:
    """Name the language of a translated page, for screen readers and search engines."""
    context["language"] = LANGUAGES.get(page.partition("/")[0], context["language"])


def setup(app: Sphinx) -> None:
    """Connect the functions above."""
    app.connect("html-page-context", set_language)
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_navigation)
