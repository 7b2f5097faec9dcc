"""What the tests on a device share: learners, runs, and a count of the waits for the device."""

import gc
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
import torch
from conftest import TINY_RETRAIN
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from search_helpers import make_search
from supernet_helpers import SPACES, generator

import retrain
from conf.outline import CONF_DIR
from conf.schema import RetrainConfig, register_schemas
from conf.settings import Launch
from nas.genotype.resolve import resolve_genotype
from nas.kernels.fused import accelerate
from nas.kernels.graphs import GraphedPaths
from nas.optimisation.bilevel import Alternating, Batch, Learner, score_function_gradient
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.supernet import Supernet
from nas.training.retrain import Retrain
from nas.training.run import autocast_for, to_device, use_precision
from nas.training.search import Search

# cuBLAS reads it when it starts, which is before any test that asks for determinism.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def learner_on(
    device: torch.device,
    space: str = "nasbench201",
    sampler: str = "gdas",
    kernels: str = "plain",
    precision: str = "float32",
) -> Learner:
    """A learner whose weights, logits and noise are the same on every device."""
    use_precision(precision)
    torch.manual_seed(0)
    model = to_device(SPACES[space].build_supernet(), device, channels_last=True)
    model = accelerate(model, kernels, device)
    # On a CPU, where tests try the tests, what would be graphs is done again and again.
    graphs = GraphedPaths(model) if kernels == "graphs" else None
    supernet = Supernet(model, generator(), graphs=graphs)
    weights = OptimizerSettings(learning_rate=0.025, clip_norm=5.0, nesterov=True)
    return Learner(
        supernet,
        SampleSource(supernet, SAMPLERS.get(sampler), generator(), 2.0),
        Updater(model.parameters(), weights),
        # Not Adam, which makes large steps of gradients that are nothing but rounding.
        Updater([supernet.logits], OptimizerSettings(learning_rate=0.1)),
        autocast=autocast_for(precision, device),
    )


def bilevel_of(learner: Learner) -> Alternating:
    """The two updates in turn, as a search makes them with the sampler of `learner`."""
    assert isinstance(learner.draw, SampleSource)
    sampler = learner.draw.sampler
    if sampler.learns_from_losses:
        count = sampler.samples_an_update
        return Alternating(learner, score_function_gradient, logits_samples=count)
    return Alternating(learner)


def learns(learner: Learner) -> bool:
    assert isinstance(learner.draw, SampleSource)
    return learner.draw.sampler.learns


def batches_on(device: torch.device, count: int, size: int = 16) -> list[Batch]:
    """Random images of 16 pixels and labels, drawn on the host."""
    source, found = generator(1), []
    for _ in range(count):
        images = torch.randn(size, 3, 16, 16, generator=source)
        images = images.contiguous(memory_format=torch.channels_last)
        labels = torch.randint(4, (size,), generator=source)
        found.append((images.to(device), labels.to(device)))
    return found


def make_search_on(device: torch.device, folder: Path, *overrides: str) -> Search:
    """A tiny search on digits that has not begun."""
    return make_search(folder, f"device={device}", "threads=1", *overrides)


def make_retrain_on(device: torch.device, folder: Path, *overrides: str) -> Retrain:
    """A tiny retraining on digits that has not begun."""
    register_schemas()
    GlobalHydra.instance().clear()
    given = ["genotype=nasbench201_resnet", f"device={device}", "threads=1", f"run_dir={folder}"]
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = hydra.compose("retrain", [*TINY_RETRAIN, *given, *overrides])
    config = OmegaConf.to_object(composed)
    assert isinstance(config, RetrainConfig)
    launched = Launch(folder, "retrain", (), {}, must_resume=False)
    return retrain.build(config, launched, resolve_genotype(config.genotype))[0]


@contextmanager
def counted_waits(device: torch.device) -> Iterator[list[str]]:
    """The places at which the host waits for the device; on a CPU there are none."""
    found: list[str] = []
    if device.type != "cuda":
        yield found
        return
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [w for w in caught if "synchroniz" in str(w.message)]
    found += [f"{wait.filename}:{wait.lineno}" for wait in waits]


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """Fails where the host waits for the device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def in_use(device: torch.device) -> int:
    """Bytes of the device that tensors have; on a CPU how many tensors there are."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(device)
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
