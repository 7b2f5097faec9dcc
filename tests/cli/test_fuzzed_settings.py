"""Random values for random settings: each is taken or answered in one line, never a traceback."""

from collections.abc import Iterator
from typing import Any

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.arguments import newest_or_new
from conf.build import build_space, finals_of, recipe_of, schedule_of, sizes_of
from conf.messages import all_keys, describe
from conf.outline import CONF_DIR
from conf.schema import RetrainConfig, SearchConfig, register_schemas
from conf.settings import checked
from nas.data import DataInfo
from nas.errors import UserError
from nas.optimisation.optimizers import Updater
from nas.sampling.samplers import SAMPLERS

pytestmark = pytest.mark.faults

INFO = DataInfo("cifar10", tuple("abcdefghij"), 3, 32, (0.5,) * 3, (0.2,) * 3, 100)

PROGRAMS: dict[str, tuple[str, type[Any], tuple[str, ...]]] = {
    "search": ("search", SearchConfig, ()),
    "darts": ("search", SearchConfig, ("space=darts", "bilevel=second_order", "derive=finals")),
    "macro": ("search", SearchConfig, ("space=mobilenet", "budget=parameters", "derive=sampled")),
    "retrain": ("retrain", RetrainConfig, ("genotype=darts_v2",)),
}

numbers = st.one_of(
    st.integers(-3, 130),
    st.sampled_from([2**31 - 1, 2**31, 2**63, 10**30, -(2**63) - 1]),
    st.floats(),
    st.sampled_from([0.0, -0.0, 1e-300, 1e300, 0.5, 1.0]),
)
texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["", "???", "${seed}", "${nowhere}", "${oc.env:NOWHERE}", "${", "x" * 3000]),
    st.sampled_from(["sgd", "cosine", "cpu", "float32", "none", "cuda:99", "auto", "\n", "\udcff"]),
)
values = st.recursive(
    st.one_of(numbers, texts, st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


composed: dict[str, DictConfig] = {}


@pytest.fixture(scope="module", autouse=True)
def _compose_once() -> Iterator[None]:
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", newest_or_new, replace=True)
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        for name, (program, _, overrides) in PROGRAMS.items():
            composed[name] = hydra.compose(program, [*overrides, "run_dir=runs/x"])
        yield
    GlobalHydra.instance().clear()


@pytest.mark.parametrize("name", sorted(PROGRAMS))
@given(
    pick=st.randoms(use_true_random=False), given_values=st.lists(values, min_size=1, max_size=3)
)
@settings(deadline=None, derandomize=True, max_examples=100)
def test_a_setting_is_taken_or_answered_in_one_line(
    name: str, pick: Any, given_values: list[Any]
) -> None:
    program, schema, _ = PROGRAMS[name]
    config = composed[name].copy()
    keys = sorted(all_keys(OmegaConf.to_container(config)))
    try:
        for value in given_values:
            OmegaConf.update(config, pick.choice(keys), value)
        typed = checked(schema, config)
        _build(typed)
    except UserError as error:
        assert str(error).strip()
    except OmegaConfBaseException as error:
        assert describe(error, program).strip() and "\n" not in describe(error, program)


def _build(typed: Any) -> None:
    """What the programs do with settings before the first image is read."""
    weights = Updater([torch.zeros(1, requires_grad=True)], typed.weights)
    rates = [weights.set_epoch(epoch, typed.epochs) for epoch in {0, typed.epochs - 1}]
    assert all(0 <= rate < float("inf") for rate in rates)
    torch.manual_seed(typed.seed)
    if isinstance(typed, RetrainConfig):
        recipe_of(typed)
        sizes_of(typed.network)
        return
    SAMPLERS.get(typed.sampler.name)
    schedule = schedule_of(typed)
    assert schedule.temperature(0) > 0
    finals_of(typed, build_space(typed.space, INFO))


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e400"])
@pytest.mark.parametrize(
    "key", ["weights.learning_rate", "sampler.temperature_end", "logits.weight_decay"]
)
def test_numbers_that_are_not_finite_are_refused(key: str, value: str) -> None:
    config = composed["search"].copy()
    OmegaConf.update(config, key, float(value))
    with pytest.raises(UserError, match=rf"{key} is -?(nan|inf): must be a finite number"):
        checked(SearchConfig, config)


@given(st.text(max_size=40))
@example("a=b=c")
@example("\x00")
@settings(deadline=None, derandomize=True, max_examples=200)
def test_any_argument_is_quoted_or_left(argument: str) -> None:
    from conf.arguments import for_hydra

    assert isinstance(for_hydra(argument), str)
