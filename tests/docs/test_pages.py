"""The pages that can be followed, followed: files saved, code run, programs run, in this process.

Programs run as the page has them, with the sizes below to make them short. What is on no page here
is checked without running it (`test_snippets.py`).
"""

import re
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from snippets import SCHEMAS, Block, blocks

from nas.cost.costs import COSTS
from nas.data.preprocessing import RESIZES
from nas.data.sources import SOURCES
from nas.deploy.export import POSSIBLE
from nas.deploy.formats import available_formats
from nas.ops import OPERATIONS
from nas.sampling.samplers import SAMPLERS
from nas.spaces import SPACES

SEARCH = ("epochs=1", "batch_size=8", "data.limit=64", "threads=1")
CELLS = (*SEARCH, "space.channels=2", "space.cells_per_stage=1")
RETRAIN = ("epochs=1", "batch_size=8", "data.limit=64", "threads=1")
PLAIN = (*RETRAIN, "network.channels=2", "network.cells_per_stage=1")
SHORT = (*CELLS, "derive.num_samples=2", "derive.max_evaluations=2")


RunProgram = Callable[..., tuple[int, str]]


@dataclass(frozen=True)
class Followed:
    """How a page is followed.

    Attributes:
        short: Settings that are added, by the first program or file of a command.
        needs: Pictures to have, and how many pixels of how many channels.
        without: Commands that are only checked: they begin with one of these.
    """

    short: Mapping[str, Sequence[str]]
    needs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    without: tuple[str, ...] = ()


_CUSTOM = "python search.py space=custom space.model=my_net.MyNet sampler=score_function epochs=3"
PHOTOS = {
    f"photos/{split}/{name}/{index}.png": (40, 36, 3)
    for split in ("train", "test")
    for name in ("ant", "bee")
    for index in range(8)
}
PAGES = {
    "bilevel": Followed({}),
    "gumbel": Followed({}, without=("python -m benchmarks",)),
    "custom_models": Followed(
        {"search.py": SEARCH, "retrain.py": RETRAIN},
        # tests/cli/test_custom_search.py runs one, which takes long
        without=(f"{_CUSTOM} budget=multiply_adds",),
    ),
    "export": Followed(
        {"retrain.py": PLAIN},
        {**PHOTOS, "photo.jpg": (36, 40, 3)},
        without=("python export.py run=runs/retrain/mine", "nas-predict"),
    ),
    "own_data": Followed({"my_data.py": CELLS}, without=("python search.py", "python retrain.py")),
    "own_operation": Followed({"my_operation.py": CELLS, "my_retrain.py": PLAIN}),
    "own_space": Followed({}),
    "pictures": Followed({}, without=("python", "nas-draw")),
    "own_sampler": Followed({"my_sampler.py": CELLS}, without=("python -m benchmarks",)),
    "budgets": Followed(
        {"my_cost.py": (*CELLS, "budget.front_limits=0")},
        without=("python search.py", "python profile_space.py"),
    ),
    "tutorial": Followed(
        {"search.py": SHORT, "retrain.py": PLAIN},
        without=("python3 -m venv", "source", "pip", "tensorboard"),
    ),
}


@pytest.fixture
def folder(
    tmp_path: Path, run_program: RunProgram, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder to work in, from which modules are imported."""
    monkeypatch.chdir(tmp_path)  # after run_program, which goes to the root
    monkeypatch.syspath_prepend(str(tmp_path))
    with forgetting(tmp_path):
        yield tmp_path


@contextmanager
def forgetting(folder: Path) -> Iterator[None]:
    """What is registered, or imported from `folder`, is forgotten, as when a process ends."""
    registries = [COSTS, OPERATIONS, SAMPLERS, SOURCES, SPACES]
    before = [dict(registry._entries) for registry in registries]
    modules = set(sys.modules)
    yield
    for registry, entries in zip(registries, before, strict=True):
        registry._entries = entries
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(folder)):
            del sys.modules[name]


@pytest.mark.parametrize("name", PAGES)
def test_page_can_be_followed(name: str, run_program: RunProgram, folder: Path) -> None:
    if name == "export" and "onnx" not in available_formats():
        pytest.skip("onnx, onnxscript and onnxruntime are not installed")
    followed = PAGES[name]
    for path, shape in followed.needs.items():
        _make_picture(folder / path, shape)
    names: dict[str, object] = {"__name__": "a_reader"}
    for block in blocks(ROOT / "docs" / f"{name}.md"):
        if block.language == "python" and block.saved_as:
            (folder / block.saved_as).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, f"{name}.md:{block.line}", "exec"), names)
        elif block.language == "bash":
            _run(block, followed, run_program)
    _AFTERWARDS.get(name, lambda *_: None)(folder, names)


def _make_picture(path: Path, shape: tuple[int, ...]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(path.name))
    Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(path)


def _run(block: Block, followed: Followed, run_program: RunProgram) -> None:
    """Runs the commands of a block, one after the other."""
    for words in block.commands():
        if " ".join(words).startswith(followed.without or "\0"):
            continue
        words = words[: words.index(">")] if ">" in words else words
        _, program, *arguments = words
        if program == "-m":
            module = arguments[0] + (
                "" if hasattr(import_module(arguments[0]), "main") else ".__main__"
            )
            assert not import_module(module).main(arguments[1:])
            continue
        arguments += followed.short.get(program, ())
        with forgetting(Path.cwd()):
            own = program.removesuffix(".py") not in SCHEMAS
            name = _as_module(program) if own else program.removesuffix(".py")
            code, output = run_program(name, *arguments)
        assert code == 0, f"{' '.join(words)}\n{output}"


def _as_module(program: str) -> str:
    """The name of a module whose `main` runs a file of the reader's as a program."""
    name = f"run_{program.removesuffix('.py')}"
    module = type(sys)(name)
    module.main = lambda: runpy.run_path(program, run_name="__main__")  # type: ignore[attr-defined]
    module.__file__ = str(Path.cwd() / program)
    sys.modules[name] = module
    return name


def _check_custom_model(folder: Path, names: dict[str, object]) -> None:
    text = (folder / "my_net.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 30, "30 lines, it says"
    plain = names["plain"]
    assert isinstance(plain, torch.nn.Module)
    assert plain(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    ours = [type(m).__name__ for m in plain.modules() if type(m).__module__.startswith("nas.")]
    assert set(ours) <= {"Take", "FixedValue"}


def _check_export(folder: Path, names: dict[str, object]) -> None:
    assert {path.name for path in (folder / "exported").iterdir()} == set(POSSIBLE)


def _check_tutorial(folder: Path, names: dict[str, object]) -> None:
    assert (folder / "runs/search/first/report.html").exists()
    assert (folder / "runs/search/first/cell.png").exists()


_AFTERWARDS: dict[str, Callable[[Path, dict[str, object]], None]] = {
    "custom_models": _check_custom_model,
    "export": _check_export,
    "tutorial": _check_tutorial,
}


def test_every_page_with_code_is_followed() -> None:
    pages = {
        p.stem for p in (ROOT / "docs").glob("*.md") for b in blocks(p) if b.language == "python"
    }
    # The code of the one needs a table that has been measured, that of the other, with smaller
    # data, is what the notebook runs.
    assert pages - set(PAGES) == {"design", "command_line"}


def test_page_on_exports_knows_all_files_and_rules() -> None:
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    assert [name for name in (*POSSIBLE, *RESIZES) if f"`{name}`" not in text] == []


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!https?:)([^)#]+)(?:#([\w-]+))?\)", text)
    assert len(links) > 20
    for file, anchor in links:
        page = (ROOT / file).read_text(encoding="utf-8")
        titles = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
        known = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not anchor or anchor in known, f"{file}#{anchor}"
