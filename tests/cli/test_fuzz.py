"""Whatever is typed, a user gets a run or one line; and nothing that is typed or read runs code."""

import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from conf.app import CONF_DIR, Launch, launch
from conf.schema import RetrainConfig, SearchConfig, register_schemas

Run = Callable[..., tuple[int, str]]
SCHEMAS = {"search": SearchConfig, "retrain": RetrainConfig}


def keys_of(program: str) -> list[str]:
    """All settings of the default configuration, dotted, groups included."""
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", lambda *a: "x", replace=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = OmegaConf.to_container(compose(program))

    def dotted(node: object, prefix: str) -> list[str]:
        if not isinstance(node, dict):
            return []
        return [
            key
            for name, value in node.items()
            for key in (f"{prefix}{name}", *dotted(value, f"{prefix}{name}."))
        ]

    return [key for key in dotted(config, "") if key not in ("run_dir", "resume")]


KEYS = {program: keys_of(program) for program in SCHEMAS}
NUMBERS = st.one_of(st.integers(), st.floats()).map(str)
TEXTS = st.text(max_size=12).filter(lambda text: "\0" not in text)
ODD = st.sampled_from(
    [
        *("", "null", "true", "[]", "[1,2]", "{a:1}", "{}", "???", "${x}", "${epochs}", "${"),
        *("'", '"', "nan", "inf", "-inf", "1e400", "-1", "0", "a b", "a=b", "../..", "*", "a,b"),
        *("$(touch x)", "\\", "~", "${oc.env:NO_SUCH_VARIABLE}", "!!python/none"),
        "${newest_or_new:a,b,false}",
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(SCHEMAS)),
    st.lists(st.tuples(st.integers(0, 999), NUMBERS | TEXTS | ODD), min_size=1, max_size=3),
)
@example("search", [(0, "${")])
def test_a_run_or_one_line_whatever_the_settings(
    tmp_path_factory: pytest.TempPathFactory, program: str, values: list[tuple[int, str]]
) -> None:
    keys = KEYS[program]
    overrides = [f"{keys[number % len(keys)]}={value}" for number, value in values]
    if program == "retrain":
        overrides.insert(0, "genotype=nasbench201_best")
    folder = tmp_path_factory.mktemp("fuzz")
    code, output = launched(program, [*overrides, f"run_dir={folder}/run"])
    assert code in (0, 1)
    if code:
        lines = output.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), output
        assert not (folder / "run").exists(), "what was refused leaves nothing"


def launched(program: str, arguments: list[str]) -> tuple[int, str]:
    """Exit code and errors of the program, up to where its work would begin."""

    def nothing(config: object, launched: Launch) -> float:
        return 0.0

    before, said = sys.argv, StringIO()
    GlobalHydra.instance().clear()
    try:
        sys.argv = [f"{program}.py", *arguments]
        with redirect_stderr(said):
            launch(program, SCHEMAS[program], nothing)  # type: ignore[type-var]
    except SystemExit as stop:
        return int(stop.code or 0), said.getvalue()
    finally:
        sys.argv = before
        os.environ.pop("HYDRA_FULL_ERROR", None)
    return 0, said.getvalue()


CODE = "__import__('pathlib').Path('{}').touch()"


@pytest.mark.parametrize(
    "text",
    [
        CODE,
        "Genotype(normal=[({code}, 0)], normal_concat=range(2, 6), reduce=[], reduce_concat=[])",
        "Genotype(normal=[], normal_concat={code}, reduce=[], reduce_concat=range(2, 6))",
        "|{code}~0|",
    ],
)
def test_a_genotype_is_read_and_never_run(run_program: Run, tmp_path: Path, text: str) -> None:
    touched = tmp_path / "touched"
    code = CODE.format(touched)
    text = code if text == CODE else text.format(code=code)
    (tmp_path / "genotype.json").write_text(json.dumps({"space": text, "choices": {"a": text}}))
    for genotype in (text, str(tmp_path / "genotype.json")):
        exit_code, output = run_program(
            "retrain", f"genotype={genotype}", f"run_dir={tmp_path}/run"
        )
        assert exit_code == 1 and len(output.strip().splitlines()) == 1, output
        assert "Traceback" not in output
    assert not touched.exists()


@pytest.mark.parametrize(
    "override",
    [
        "++data._target_=pathlib.Path.touch",
        "++space={_target_: pathlib.Path.touch, self: x}",
        "+_target_=os.system",
        "++sampler._target_=os.system",
        "hydra.callbacks.x._target_=os.system",
    ],
)
def test_no_target_of_the_command_line_is_called(
    run_program: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, override: str
) -> None:
    called: list[object] = []
    monkeypatch.setattr(Path, "touch", lambda *a, **k: called.append(a))
    monkeypatch.setattr(os, "system", lambda *a: called.append(a))
    code, output = run_program("search", override, f"run_dir={tmp_path}/run")
    assert code == 1 and len(output.strip().splitlines()) == 1, output
    assert "Traceback" not in output and not called


def test_a_yaml_file_with_code_is_refused(run_program: Run, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "bad.yaml").write_text(
        f"# @package _global_\nepochs: !!python/object/apply:pathlib.Path.touch ['{touched}']\n"
    )
    code, output = run_program(
        "search", f"--config-dir={tmp_path}", "experiment=bad", f"run_dir={tmp_path}/run"
    )
    assert code == 1 and len(output.strip().splitlines()) == 1, output
    assert "Traceback" not in output and not touched.exists()
