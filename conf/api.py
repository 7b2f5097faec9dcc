"""`nas.search` and `nas.retrain`: what the programs of the same names do, from Python.

Settings, checks, and what a run leaves behind are those of the command line. Nothing of the
caller's process stays changed: PyTorch's generators, its threads, a Hydra that is at work.
"""

import copy
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from conf.arguments import for_hydra, newest_or_new, resumes
from conf.messages import describe
from conf.outline import CONF_DIR, ROOT
from conf.schema import RetrainConfig, SearchConfig, register_schemas
from conf.settings import Config, Launch, checked, plain_settings, remove_if_unused, saved_settings
from nas.data.given import NAME as GIVEN
from nas.data.given import GivenImages
from nas.deploy.description import GENOTYPE
from nas.errors import UserError
from nas.files import only_run_in, replace_text
from nas.genotype import Genotype
from nas.monitor.console import NOWHERE
from nas.outcome import RetrainResult, SearchResult
from nas.spaces.custom import dotted_name
from nas.training.checkpoint import last_checkpoint
from nas.training.run import Interrupted

Model = nn.Module | Callable[..., nn.Module]
Pair = tuple[Any, Any]
_PLAIN = re.compile(r"[A-Za-z][\w./-]*")
_WORDS = ("true", "false", "null", "nan", "inf")


def search(
    *overrides: str,
    model: Model | None = None,
    images: Pair | None = None,
    verbose: bool = True,
    **settings: Any,
) -> SearchResult:
    """Searches an architecture, as `search.py` does.

    Settings are those of the command line, as keywords, with two underscores for a dot
    (`nas.search(space="darts", space__cells=6, data="cifar10")`), or as they are written there
    (`nas.search("space=darts", "space.cells=6")`). A `run_dir` with a checkpoint is continued.

    Args:
        overrides: Settings as on the command line.
        model: Your own, with choices in it: a class or function that makes it, or the model.
        images: Your own: (pixels, labels), see `nas.data.given.images_of`.
        verbose: Show the progress.
        settings: Settings as keywords.

    Raises:
        UserError: a mistake, in one line.
        KeyboardInterrupt: the run was stopped; its state is saved.
    """
    given = _overrides(overrides, settings)
    if model is not None:
        given = ["space=custom", _override("space.model", _name(model)), *given]
    given, own_images = _given(given, images, None)
    return SearchResult.load(_run("search", SearchConfig, given, own_images, model, verbose))


def retrain(
    genotype: SearchResult | Genotype | str | Path,
    *overrides: str,
    model: Model | None = None,
    images: Pair | None = None,
    test_images: Pair | None = None,
    verbose: bool = True,
    **settings: Any,
) -> RetrainResult:
    """Trains an architecture from scratch and measures it on the test set, as `retrain.py` does.

    Args:
        genotype: What a search has found, or what the command line takes.
        overrides: Settings as on the command line.
        model: Of the space `custom`: the one that was searched.
        images: Your own to train on: (pixels, labels).
        test_images: Your own to measure by; a part of `images` is held out if None.
        verbose: Show the progress.
        settings: Settings as keywords.

    Raises:
        UserError: a mistake, in one line.
        KeyboardInterrupt: the run was stopped; its state is saved.
    """
    given = _overrides(overrides, settings)
    if isinstance(genotype, SearchResult):
        genotype = genotype.run_dir / GENOTYPE
    to_write = genotype if isinstance(genotype, Genotype) else None
    if isinstance(genotype, Genotype):
        folder = _run_dir("retrain", given)
        given.append(_override("run_dir", folder))
        genotype = folder / GENOTYPE
    given.insert(0, _override("genotype", genotype))
    if model is not None:
        given.insert(0, _override("network.model", _name(model)))
    given, own_images = _given(given, images, test_images)
    folder = _run("retrain", RetrainConfig, given, own_images, model, verbose, to_write)
    return RetrainResult.load(folder)


def _overrides(given: tuple[str, ...], settings: Mapping[str, Any]) -> list[str]:
    for override in given:
        if not isinstance(override, str):
            raise UserError(
                f"{override!r} is no setting such as 'epochs=3'; a model of your own is given as "
                "model=, images as images="
            )
    return [
        *map(for_hydra, given),
        *(for_hydra(_override(key.replace("__", "."), value)) for key, value in settings.items()),
    ]


def _override(key: str, value: object) -> str:
    """A setting as Hydra's grammar has it."""
    return f"{key}={_text(value)}"


def _text(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, np.generic | Tensor) and value.ndim == 0:
        value = value.item()  # of NumPy repr has the type in it
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple | np.ndarray):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_text(part)}' for key, part in value.items())}}}"
    text = str(value)
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _name(model: Model) -> str:
    return dotted_name(type(model) if isinstance(model, nn.Module) else model)


def _run_dir(program: str, overrides: Sequence[str]) -> Path:
    """The folder that is given, or else a new one."""
    given = [override for override in overrides if override.startswith("run_dir=")]
    if given:
        return Path(str(OverridesParser.create().parse_override(given[-1]).value()))
    moment = time.strftime("%Y-%m-%d_%H-%M-%S")
    return Path(newest_or_new(f"runs/{program}", moment, resumes(overrides)))


def _given(
    overrides: list[str], images: Pair | None, test_images: Pair | None
) -> tuple[list[str], GivenImages | None]:
    """The overrides for images of the caller's own, and these."""
    if images is None:
        if test_images is not None:
            raise UserError("test_images are given, but no images")
        return overrides, None
    if any(override.startswith("data=") for override in overrides):
        raise UserError("data and images are given: leave one out")
    # No crops and flips: what may be done to them only the caller knows. Nor the mean of the images
    # that an experiment is about.
    others = ("crop_padding=0", "flip=false", "mean=null", "std=null")
    overrides = [f"data.name={GIVEN}", *(f"data.{other}" for other in others), *overrides]
    return overrides, GivenImages.of(images, test_images)


def _run(
    program: str,
    schema: type[Config],
    overrides: Sequence[str],
    images: GivenImages | None,
    model: Model | None,
    verbose: bool,
    genotype: Genotype | None = None,
) -> Path:
    """One run; returns its folder, where a `genotype` that the settings name is put first."""
    folder = _run_dir(program, overrides)
    overrides = tuple(o for o in overrides if not o.startswith("run_dir="))
    with ExitStack() as stack:
        config, choices = stack.enter_context(_composed(program, overrides, folder))
        typed = _typed(schema, config, program)
        launched = Launch(
            folder,
            program,
            overrides,
            plain_settings(config),
            must_resume=bool(config.resume),
            images=images,
            model=_factory(model),
        )
        stack.enter_context(only_run_in(folder))
        stack.enter_context(_placed(genotype, folder, program))
        stack.enter_context(_torch_left_alone())
        stack.enter_context(_log(folder / f"{program}.log"))
        stack.enter_context(redirect_stdout(NOWHERE))  # advice for the command line; the log has it
        if not verbose:
            stack.enter_context(redirect_stderr(NOWHERE))
        try:
            with saved_settings(folder, program, config, overrides, choices):
                getattr(_program(program), program)(typed, launched)
        except UserError:
            remove_if_unused(folder, program)
            raise
        except Interrupted as stopped:
            if stopped.signal_name != "SIGINT":
                raise SystemExit(stopped.exit_code) from None
            advice = f"go on with the same call and run_dir={str(folder)!r}"
            raise KeyboardInterrupt(f"{stopped}; {advice}") from None
    return folder


@contextmanager
def _placed(genotype: Genotype | None, folder: Path, program: str) -> Iterator[None]:
    """Writes `genotype.json`; it goes again where the run ends by a mistake and has saved nothing.

    Raises:
        UserError: the folder has another one.
    """
    path = folder / GENOTYPE
    if genotype is None:
        yield
        return
    is_new = not path.exists()
    if not is_new and Genotype.load(path) != genotype:
        raise UserError(f"run_dir: {path} is another genotype: give another run_dir")
    try:
        if is_new:
            replace_text(path, genotype.to_json())
        yield
    except UserError:
        if is_new and not last_checkpoint(folder).exists():
            path.unlink(missing_ok=True)
            remove_if_unused(folder, program)
        raise


@contextmanager
def _composed(
    program: str, overrides: Sequence[str], folder: Path
) -> Iterator[tuple[DictConfig, dict[str, str | None]]]:
    """The settings and option by group; meanwhile Hydra is initialised, and one at work is not."""
    register_schemas()
    OmegaConf.register_new_resolver("newest_or_new", newest_or_new, replace=True)
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            place = _override("run_dir", folder)
            try:
                config = hydra.compose(program, [*overrides, place], return_hydra_config=True)
            except (HydraException, OmegaConfBaseException) as error:
                raise UserError(describe(error, program, overrides)) from None
            choices = dict(config.hydra.runtime.choices)
            with open_dict(config):
                del config["hydra"]
            yield config, choices
    finally:
        GlobalHydra.instance().hydra = running


def _typed(schema: type[Config], config: DictConfig, program: str) -> Config:
    try:
        return checked(schema, config)
    except OmegaConfBaseException as error:
        raise UserError(describe(error, program)) from None
    except AttributeError:  # what +key=value adds has no place in the schema
        raise UserError("settings cannot be added (+key=value)") from None


def _factory(model: Model | None) -> Callable[..., nn.Module] | None:
    """What makes the model; of a model that is there already a copy."""
    if isinstance(model, nn.Module):
        return lambda: copy.deepcopy(model)
    if model is not None and not callable(model):
        raise UserError(f"model is {model!r}: must be an nn.Module, or what makes one")
    return model


@contextmanager
def _torch_left_alone() -> Iterator[None]:
    """Puts back what a run sets in PyTorch."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    products: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    rounds = [each.allow_tf32 for each in products]
    try:
        with torch.random.fork_rng():
            yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict, warn_only=only_warns)
        for each, rounded in zip(products, rounds, strict=True):
            each.allow_tf32 = rounded


@contextmanager
def _log(path: Path) -> Iterator[None]:
    """Keeps a log of the run, as the programs do, and shows its warnings."""
    logger = logging.getLogger("nas")
    to_file, level = logging.FileHandler(path, encoding="utf-8"), logger.level
    to_file.setFormatter(logging.Formatter("[%(asctime)s][%(name)s][%(levelname)s] %(message)s"))
    to_screen = logging.StreamHandler(sys.stderr)
    to_screen.setLevel(logging.WARNING)
    handlers = to_file, to_screen
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _program(name: str) -> ModuleType:
    """`search.py` or `retrain.py` beside this package; a caller may have another of this name."""
    full_name = f"_one_path_nas_{name}"
    if full_name not in sys.modules:
        spec = spec_from_file_location(full_name, ROOT / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[full_name] = module
    return sys.modules[full_name]
