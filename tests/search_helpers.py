"""A search as the entry point builds it, in this process, from overrides."""

from functools import cache
from pathlib import Path

import hydra
from conftest import TINY_SEARCH
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from conf.outline import CONF_DIR
from conf.schema import SearchConfig, register_schemas
from conf.settings import Launch
from nas.training.search import Search
from search import build


def make_config(*overrides: str) -> SearchConfig:
    register_schemas()
    # One size of NAS-Bench-201 has no place in the other spaces.
    other_space = any(override.startswith("space=") for override in overrides)
    tiny = [s for s in TINY_SEARCH if not (other_space and s.startswith("space.cells_per_stage"))]
    config = OmegaConf.to_object(_composed(*tiny, *overrides))
    assert isinstance(config, SearchConfig)
    return config


@cache
def _composed(*overrides: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose("search", [*overrides, "run_dir=unused"])


def make_search(run_dir: Path, *overrides: str) -> Search:
    """A tiny search that has not begun."""
    return build(make_config(*overrides), Launch(run_dir, "search", (), {}, must_resume=False))
