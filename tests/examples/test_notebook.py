"""The notebook runs as it is, and is stored with small outputs of its present cells."""

import warnings
from pathlib import Path

import pytest
from conftest import ROOT

NOTEBOOK = ROOT / "examples" / "search.ipynb"
MAX_BYTES = 120_000


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how others use each other
        import nbformat
        from nbclient import NotebookClient

        stored = nbformat.read(NOTEBOOK, as_version=4)
        notebook = nbformat.from_dict(stored)
        place = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    for before, now in zip(stored.cells, notebook.cells, strict=True):
        kinds = [sorted(o.get("data", {o.output_type: ""})) for o in now.get("outputs", ())]
        assert kinds == [
            sorted(o.get("data", {o.output_type: ""})) for o in before.get("outputs", ())
        ], now.source
    progress = notebook.cells[1].outputs[0].data["text/plain"]
    assert progress.splitlines()[0].startswith("epoch 1/6") and "100%" in progress
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"search", "retrain"}
    assert NOTEBOOK.stat().st_size < MAX_BYTES
