"""Nothing that is read can run code: each way that a file could take is tried."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TINY_SEARCH

from nas.commands import without_code
from nas.genotype.resolve import resolve_genotype
from nas.training.checkpoint import FORMAT_VERSION, last_checkpoint

pytestmark = pytest.mark.faults

Run = Callable[..., tuple[int, str]]


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What the attacks make."""
    return tmp_path / "mark"


YAML = {
    "a tag": 'epochs: !!python/object/apply:os.mkdir ["MARK"]\n',
    "a new object": "epochs: !!python/object/new:os.mkdir [MARK]\n",
    "a name": "epochs: !!python/name:os.mkdir\n",
    "_target_": "weights:\n  _target_: os.mkdir\n  path: MARK\n",
    "_target_ of a callback": "hydra:\n  callbacks:\n    x: {_target_: os.mkdir, path: MARK}\n",
    "_target_ of our own": (
        "hydra:\n  callbacks:\n    x: {_target_: nas.files.replace_text, path: MARK, text: x}\n"
    ),
    "a factory of logs": (
        "hydra:\n  job_logging:\n    handlers:\n      console: {(): os.mkdir, path: MARK}\n"
    ),
    "a class of logs": (
        "hydra:\n  job_logging:\n    formatters:\n      simple: {class: this.Zen}\n"
    ),
    "a sweeper": "hydra:\n  sweeper:\n    _target_: os.mkdir\n    path: MARK\n  mode: MULTIRUN\n",
    "a launcher": "hydra:\n  launcher:\n    _target_: os.mkdir\n    path: MARK\n  mode: MULTIRUN\n",
    "a resolver": 'run_dir: ${eval:\'__import__("os").mkdir("MARK")\'}\n',
    "no YAML": "epochs: [\n",
    "no text": "\udcff\udcfe\n",
}


@pytest.mark.parametrize("attack", YAML)
def test_a_configuration_file_runs_nothing_and_is_answered_in_one_line(
    run_program: Run, tmp_path: Path, mark: Path, attack: str
) -> None:
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\n" + YAML[attack].replace("MARK", str(mark))
    (tmp_path / "experiment" / "evil.yaml").write_bytes(text.encode(errors="surrogateescape"))
    where = () if "run_dir" in text else (f"run_dir={tmp_path}/run",)
    code, output = run_program(
        "search", "--config-dir", str(tmp_path), "experiment=evil", "epochs=1", *where
    )
    assert code == 1 and not mark.exists()
    assert len(output.strip().splitlines()) == 1 and output.startswith("error: "), output
    assert "Traceback" not in output


@pytest.mark.parametrize("option", ["--experimental-rerun", "--exp"])
def test_no_pickled_job_is_loaded(
    run_program: Run, tmp_path: Path, mark: Path, option: str
) -> None:
    (tmp_path / "config.pickle").write_bytes(pickle.dumps(Evil(mark)))
    code, output = run_program("search", option, f"{tmp_path}/config.pickle")
    assert code == 1 and "loads a pickle" in output and not mark.exists()


@pytest.mark.parametrize(
    "override",
    [
        "space.model=os.mkdir",
        "network.model=os.mkdir",
        "++network={model:os.mkdir}",
        "+hydra.callbacks.x._target_=os.mkdir",
        "hydra.run.dir=/",
        "--config-dir=/tmp",
        "--experimental-rerun=x.pickle",
        "benchmark.nasbench201=NATS-tss-v1_0-3ffb9.pickle.pbz2",
    ],
)
def test_a_checkpoint_cannot_ask_for_code(
    run_program: Run, tmp_path: Path, mark: Path, override: str
) -> None:
    run = tmp_path / "run"
    path = last_checkpoint(run)
    path.parent.mkdir(parents=True)
    state = {"format_version": FORMAT_VERSION, "kind": "search", "settings": {}}
    overrides = ["space=custom", f"++space.arguments.path={mark}", override]
    torch.save({**state, "overrides": overrides}, path)
    code, output = run_program("search", f"run_dir={run}", "resume=true")
    assert code == 1 and len(output.strip().splitlines()) == 1, output
    assert override in output and "give that on the command line if you trust it" in output
    assert not mark.exists()


def test_settings_of_ordinary_runs_are_taken_from_their_checkpoint() -> None:
    ordinary = [
        *("seed=1", "space=darts", "experiment=gdas_nasbench201", "derive.judges=[naswot]"),
        *(
            "++space.arguments.sizes={a:1}",
            "benchmark.nasbench201=table.csv",
            "genotype='|none~0|'",
        ),
    ]
    assert without_code(ordinary) == (ordinary, [])


def test_a_run_of_a_model_of_ones_own_goes_on_where_the_model_is_named_again(
    run_program: Run, tmp_path: Path
) -> None:
    model, run = "space.model=toy_models.SmallNet", f"run_dir={tmp_path}/run"
    sizes = [s for s in TINY_SEARCH if not s.startswith(("space.", "epochs"))]
    code, output = run_program("search", "space=custom", model, *sizes, "epochs=1", run)
    assert code == 0, output
    code, output = run_program("search", run, "resume=true")
    assert code == 1 and f"asks for {model}," in output
    code, output = run_program("search", run, "resume=true", model)
    assert code == 0, output


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_genotype_file_is_text(run_program: Run, tmp_path: Path, mark: Path, form: str) -> None:
    path = tmp_path / "genotype.json"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Evil(mark)))
    else:
        torch.save(Evil(mark), path)
    code, output = run_program("retrain", f"genotype={path}", f"run_dir={tmp_path}/run")
    assert code == 1 and len(output.strip().splitlines()) == 1 and str(path) in output
    assert not mark.exists()


def test_genotype_texts_are_not_evaluated(mark: Path) -> None:
    call = f"__import__('os').mkdir('{mark}')"
    for text in (
        f"Genotype({call})",
        f"Genotype(normal={call}, normal_concat=[], reduce=[], reduce_concat=[])",
        f"|{call}~0|",
        call,
    ):
        with pytest.raises(Exception, match="genotype"):
            resolve_genotype(text)
    assert not mark.exists()
