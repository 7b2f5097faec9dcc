"""The page of all settings is made from the schemas and the YAML files, and is complete."""

from collections.abc import Iterator

import hydra
import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from conf.outline import CONF_DIR
from conf.schema import register_schemas
from conf.settings_page import describe_settings

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
INNER = ("derive.network.", "budget.network.")  # the page has them under `network`


def test_page_is_made_from_the_schemas() -> None:
    assert describe_settings() == PAGE, "run: python -m conf.settings_page > docs/settings.md"


@pytest.mark.parametrize("program", ["search", "retrain", "profile_space", "export"])
def test_every_setting_is_on_the_page(program: str) -> None:
    register_schemas()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose(program), resolve=False)
    missing = [key for key in dotted(config) if f"| `{key}` |" not in PAGE]
    assert missing == []


def dotted(node: object, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict) and (node or not prefix):
        for key, value in node.items():
            yield from dotted(value, f"{prefix}{key}.")
    elif not prefix.startswith(INNER):
        key = prefix.removesuffix(".")
        if not key.endswith(".name") or key in ("weights.name", "logits.name"):  # the group's
            yield key


def test_every_option_and_experiment_is_on_the_page() -> None:
    names = [p.stem for p in CONF_DIR.glob("*/*.yaml") if p.parent.name not in ("hydra", "debug")]
    assert len(names) > 40
    assert [name for name in names if f"| `{name}` |" not in PAGE] == []


def test_what_is_allowed_is_what_the_schemas_take() -> None:
    """Some rules of each kind, as a reader finds them."""
    rows = {line.split("|")[1].strip(): line for line in PAGE.splitlines() if line[:1] == "|"}
    for key, allowed in {
        "`epochs`": "at least 1",
        "`drop_path`": "in [0, 1)",
        "`weights.decay_per_epoch`": "in (0, 1]",
        "`logits.weight_decay`": "not negative",
        "`precision`": "bf16, float32, tf32",
        "`derive.judges`": "multiply_adds, naswot, parameters, synflow, tuning, validation",
        "`space.strides`": "positive numbers",
    }.items():
        assert f"| {allowed} |" in rows[key], rows[key]
