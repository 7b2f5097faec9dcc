"""The YAML files: each composes, fits its schema, and says where a published setting is from."""

from collections.abc import Iterator
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from conf.arguments import for_hydra, newest_or_new
from conf.build import build_space, schedule_of, sizes_of
from conf.outline import CONF_DIR, GROUPS
from conf.schema import RetrainConfig, SearchConfig, register_schemas
from nas.data import DataInfo
from nas.data.load import FOLDERS
from nas.data.sources import SOURCES
from nas.sampling.samplers import SAMPLERS
from nas.spaces import DARTS, SPACES, NASBench201

YAML_FILES = sorted(path.relative_to(CONF_DIR) for path in CONF_DIR.rglob("*.yaml"))
EXPERIMENTS = sorted(p.stem for p in (CONF_DIR / "experiment").glob("*.yaml"))
RETRAINS = [name for name in EXPERIMENTS if "retrain" in name]
SEARCHES = [name for name in EXPERIMENTS if "retrain" not in name]

INFO = DataInfo("cifar10", tuple("abcdefghij"), 3, 32, (0.5,) * 3, (0.2,) * 3, 100)


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", newest_or_new, replace=True)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        yield


def compose(program: str, *overrides: str) -> DictConfig:
    return hydra.compose(program, [*overrides, "run_dir=runs/x"])


def search_config(*overrides: str) -> SearchConfig:
    config = OmegaConf.to_object(compose("search", *overrides))
    assert isinstance(config, SearchConfig)
    return config


def retrain_config(*overrides: str) -> RetrainConfig:
    config = OmegaConf.to_object(compose("retrain", "genotype=darts_v2", *overrides))
    assert isinstance(config, RetrainConfig)
    return config


def test_no_file_is_forgotten_here() -> None:
    groups = {path.parts[0] for path in YAML_FILES if len(path.parts) > 1}
    assert groups == {*GROUPS, "hydra"}
    assert len([path for path in YAML_FILES if path.parts[0] != "debug"]) == 61
    assert len(YAML_FILES) == 78


@pytest.mark.parametrize(
    "path",
    [p for p in YAML_FILES if p.parts[0] in ("bilevel", "budget", "data", "sampler", "space")],
    ids=str,
)
def test_every_option_of_a_group_fits_the_schema(path: Path) -> None:
    # Every sampler goes with derive=sampled; `uniform` with nothing else.
    needed = {
        "custom": ["space.model=my.Net"],
        "latency": ["budget.fraction=0.5", "budget.table=latency.json"],
    }.get(path.stem, ["budget.fraction=0.5"] if path.parent.name == "budget" else [])
    if path.stem == "none":
        needed = []
    config = search_config(f"{path.parent.name}={path.stem}", "derive=sampled", *needed)
    assert getattr(config, path.parent.name).name == path.stem


@pytest.mark.parametrize("path", [p for p in YAML_FILES if p.parts[0] == "data"], ids=str)
def test_every_data_set_can_be_retrained_on(path: Path) -> None:
    assert retrain_config(f"data={path.stem}").data.name == path.stem


def test_every_registered_name_has_a_file() -> None:
    def files(group: str) -> set[str]:
        return {p.stem for p in (CONF_DIR / group).glob("*.yaml")}

    assert files("space") == set(SPACES)
    assert files("sampler") == set(SAMPLERS)
    assert files("data") == set(SOURCES) | set(FOLDERS)


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_experiment_composes(name: str) -> None:
    config = search_config(f"experiment={name}")
    assert build_space(config.space, INFO).name == config.space.name
    assert schedule_of(config).epochs == config.epochs


@pytest.mark.parametrize("name", RETRAINS)
def test_every_retrain_experiment_composes(name: str) -> None:
    sizes = sizes_of(retrain_config(f"experiment={name}").network)
    # Genotypes of macro spaces bring their own.
    assert sizes == {} if "mobilenet" in name or "vit" in name else sizes["channels"] > 0


@pytest.mark.parametrize("name", [e for e in EXPERIMENTS if not e.startswith("demo")])
def test_every_published_setting_names_its_source_and_what_to_expect(name: str) -> None:
    text = (CONF_DIR / "experiment" / f"{name}.yaml").read_text()
    assert "arXiv:" in text and "Expected" in text


def test_the_published_settings_are_those_of_the_papers() -> None:
    gdas = search_config("experiment=gdas_nasbench201")
    assert (gdas.epochs, gdas.batch_size, gdas.space.channels) == (250, 64, 16)
    assert gdas.space.cells_per_stage == 5
    assert (gdas.sampler.temperature_start, gdas.sampler.temperature_end) == (10.0, 0.1)
    assert (gdas.weights.learning_rate, gdas.weights.final_learning_rate) == (0.025, 0.001)
    assert (gdas.weights.weight_decay, gdas.weights.nesterov) == (5e-4, True)
    assert (gdas.logits.learning_rate, gdas.logits.beta1, gdas.logits.beta2) == (3e-4, 0.5, 0.999)
    authors = search_config("experiment=gdas_nasbench201_authors")
    assert authors.sampler.name == "gdas_authors"
    authors.sampler.name = gdas.sampler.name
    assert authors == gdas, "nothing else differs"
    code, paper = (search_config(f"experiment=gdas_darts_{kind}") for kind in ("code", "paper"))
    assert (code.epochs, code.weights.weight_decay, code.sampler.temperature_end) == (
        250,
        5e-4,
        0.1,
    )
    assert (paper.epochs, paper.weights.weight_decay, paper.sampler.temperature_end) == (
        240,
        3e-4,
        1.0,
    )
    assert code.space.cells == paper.space.cells == 6 and code.batch_size == 256
    frc = search_config("experiment=gdas_frc")
    assert (frc.space.name, frc.space.cells, frc.epochs) == ("gdas_frc", 6, 250)
    second = search_config("experiment=darts_second_order")
    assert (second.bilevel.name, second.bilevel.order) == ("second_order", "logits_first")
    assert (second.space.cells, second.space.pool_norm, second.weights.nesterov) == (8, True, False)
    drnas = search_config("experiment=drnas_nasbench201")
    assert (drnas.epochs, drnas.batch_size, drnas.sampler.name) == (100, 64, "dirichlet")
    assert (drnas.weights.learning_rate, drnas.weights.final_learning_rate) == (0.025, 0.001)
    assert (drnas.weights.weight_decay, drnas.weights.nesterov) == (3e-4, False)
    assert (drnas.logits.weight_decay, drnas.bilevel.order) == (1e-3, "logits_first")
    partial = search_config("experiment=pc_darts")
    assert (partial.epochs, partial.warmup_epochs, partial.batch_size) == (50, 15, 256)
    assert (partial.space.partial_channels, partial.space.pool_norm) == (4, True)
    assert partial.space.edge_normalization and partial.sampler.name == "softmax"
    assert (partial.weights.learning_rate, partial.weights.final_learning_rate) == (0.1, 0.0)
    assert (partial.logits.learning_rate, partial.weights.weight_decay) == (6e-4, 3e-4)
    retrain = retrain_config("experiment=retrain_darts_cifar10")
    assert (retrain.epochs, retrain.batch_size, retrain.data.cutout) == (600, 96, 16)
    assert (retrain.auxiliary_weight, retrain.drop_path) == (0.4, 0.2)


def test_the_space_defaults_of_the_files_are_those_of_the_classes() -> None:
    for kind in (NASBench201, DARTS):
        space = build_space(search_config(f"space={kind.name}").space, INFO)
        assert space == kind(in_channels=3, num_classes=10)


def test_texts_of_genotypes_are_quoted_for_the_command_line() -> None:
    text = "Genotype(normal=[('sep_conv_3x3', 0)])"
    override = for_hydra(f"genotype={text}")
    assert hydra.compose("retrain", [override, "run_dir=x"]).genotype == text
    assert for_hydra("genotype=darts_v2") == "genotype=darts_v2"
    assert for_hydra("seed=1") == "seed=1"
