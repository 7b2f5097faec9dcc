"""What is installed: the files of a wheel against those of the tree."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module

import pytest
from template_process import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("nas", "conf")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names of the files in a wheel that is built from a copy of the tree."""
    pytest.importorskip("setuptools", "77")
    tree = tmp_path_factory.mktemp("packaging") / "tree"
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (
        *ROOT.glob("*.py"),
        *map(ROOT.joinpath, ("pyproject.toml", "README.md", "LICENSE")),
    ):
        shutil.copy(path, tree)
    build = "from setuptools import build_meta; build_meta.build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True)
    (path,) = (tree / "dist").glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


def test_a_wheel_has_all_that_the_programs_read(wheel: list[str]) -> None:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    expected = {str(p.relative_to(ROOT)) for p in found if "__pycache__" not in p.parts}
    expected |= {path.name for path in ROOT.glob("*.py")}
    assert set(wheel) == expected
    assert {"conf/search.yaml", "conf/space/darts.yaml", "nas/py.typed"} <= expected


@pytest.mark.parametrize("command", sorted(PROJECT["project"]["scripts"]))
def test_a_command_is_a_function_of_an_installed_module(command: str) -> None:
    module, _, function = PROJECT["project"]["scripts"][command].partition(":")
    assert callable(getattr(import_module(module), function))
    installed = PROJECT["tool"]["setuptools"]["py-modules"]
    assert module in installed or module.startswith("nas.")


def test_versions_agree() -> None:
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
