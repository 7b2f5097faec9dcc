"""What MkDocs calls while it builds the site: refuses pages that would load from elsewhere."""

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
