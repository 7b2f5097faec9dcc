"""What MkDocs calls while it builds the site: refuses pages that would load from elsewhere.

Build without `--quiet`: MkDocs then does not count warnings, and `--strict` has no effect.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

# What a browser fetches by itself. Links that a reader clicks (<a href>) are not among it.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\bsrc=["']?((?:https?:)?//[^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preload|preconnect|manifest))"""
    r"""[^>]*\bhref=["']?((?:https?:)?//[^"'\s>]+)"""
)
_LOADED_BY_CSS = re.compile(r"""(?:url\(|@import\s)\s*["']?((?:https?:)?//[^"')\s]+)""")


_PAGES = {
    "CHANGELOG.md": "changelog.md",
    "CITATION.cff": "cite.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """Takes in files from the top of the repository, where a line says `--8<-- "CHANGELOG.md"`."""
    return re.sub(r'^--8<-- "(.+)"$', _taken_in, markdown, flags=re.MULTILINE)


def _taken_in(line: re.Match[str]) -> str:
    """A file, with its links to pages of docs/ as they are there, and none to other files."""

    def link(found: re.Match[str]) -> str:
        text, target = found.groups()
        page = _PAGES.get(target, target.removeprefix("docs/"))
        is_file = page == target and not target.startswith(("https:", "http:", "#"))
        return text if is_file else f"[{text}]({page})"

    text = (Path(__file__).parents[1] / line[1]).read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]*)\]\(([^)]+)\)", link, text)


def on_post_build(config: dict[str, Any], **_: object) -> None:
    """Looks at all pages and style sheets of the site that was built.

    Raises:
        PluginError: one of them loads something that is not in the site, which ends the build.
    """
    site = Path(config["site_dir"])
    found = [
        f"{path.relative_to(site)} loads {next(filter(None, match.groups()))}"
        for suffix, pattern in ((".html", _LOADED), (".css", _LOADED_BY_CSS))
        for path in sorted(site.rglob(f"*{suffix}"))
        for match in pattern.finditer(path.read_text(encoding="utf-8"))
    ]
    if found:
        raise PluginError("the site must work offline: " + "; ".join(found))
