"""The site loads nothing from elsewhere, and what would is refused when it is built."""

import runpy
from pathlib import Path

import pytest
from conftest import ROOT

exceptions = pytest.importorskip("mkdocs.exceptions")


def build(site: Path) -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    hooks["on_post_build"]({"site_dir": str(site)})


@pytest.mark.parametrize(
    "page",
    [
        '<script src="https://cdn.example.org/a.js"></script>',
        "<img alt='' src='//img.example.org/a.png'>",
        '<link rel="stylesheet" href="https://fonts.example.org/css">',
        '<link href="https://fonts.example.org" rel="preconnect">',
    ],
)
def test_pages_that_load_from_elsewhere_are_refused(tmp_path: Path, page: str) -> None:
    (tmp_path / "index.html").write_text(page)
    with pytest.raises(exceptions.PluginError, match=r"index\.html loads .*example\.org"):
        build(tmp_path)


def test_style_sheets_that_load_from_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.css").write_text("@import 'https://fonts.example.org/css';")
    with pytest.raises(exceptions.PluginError, match="example"):
        build(tmp_path)


def test_links_and_files_of_the_site_are_not(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(
        '<a href="https://arxiv.org">paper</a><script src="a.js"></script>'
        '<link rel="canonical" href="https://example.org"><img src="pictures/a.svg">'
    )
    build(tmp_path)


def test_files_from_the_top_are_taken_in_with_their_links() -> None:
    hooks = runpy.run_path(str(ROOT / "docs" / "hooks.py"))
    page = hooks["on_page_markdown"]('--8<-- "CHANGELOG.md"\n')
    assert page.startswith("# Changelog")
    assert "](command_line.md)" in page and "](docs/" not in page and "](https://" in page


def test_every_page_is_in_the_navigation() -> None:
    """As MkDocs would say, but here without building the site."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f" {page}\n" not in text] == []
