"""Whether memory grows in long runs: `python -m benchmarks.memory`.

A small search for each sampler, and a retraining, as the programs run them, with evaluation,
TensorBoard and checkpoints: 2,000 steps each, in a process of its own. Looked at at the start of
every tenth of the steps: resident memory, and the tensors that the interpreter knows of.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import OmegaConf

import retrain
import search
from benchmarks.measure import print_table, save
from conf.outline import CONF_DIR
from conf.schema import RetrainConfig, SearchConfig, register_schemas
from conf.settings import Launch
from nas.genotype.resolve import resolve_genotype
from nas.monitor.memory import resident_mib
from nas.optimisation.bilevel import Batch
from nas.sampling.samplers import SAMPLERS
from nas.training.loop import Loop

RETRAIN = "retrain"
NUM_LOOKS = 10
SETTLED = 2
"""Looks after which caches (of kernels, of figures) are full."""

_SMALL = ("batch_size=32", "data.limit=640", "threads=1")
SEARCH = (*_SMALL, "space.channels=4", "space.cells_per_stage=1", "evaluate_every_epochs=10")
RETRAINING = (
    *(*_SMALL, "genotype=nasbench201_resnet", "network.channels=4", "network.cells_per_stage=1"),
    *("drop_path=0.2", "ema_decay=0.99", "evaluate_every_epochs=10"),
)


def main() -> None:
    """Entry point."""
    options = _options()
    if options.one:
        print(json.dumps(looks(options.one, options.steps)))
        return
    rows = []
    for subject in (*SAMPLERS, RETRAIN):
        rows.append(row(subject, options.steps))
        print_table([{k: v for k, v in row.items() if k != "looks"} for row in rows])
    if options.output:
        save(options.output, torch.device("cpu"), {"steps": options.steps}, rows)
    sys.exit(any(row["tensors gained"] for row in rows))


def row(subject: str, steps: int) -> dict[str, Any]:
    """Runs one subject in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", "--one", subject, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    settled = found[SETTLED:]
    return {
        "run": subject,
        "steps": steps,
        "tensors": settled[-1]["tensors"],
        "tensors gained": settled[-1]["tensors"] - settled[0]["tensors"],
        "resident MiB": settled[-1]["resident MiB"],
        "MiB gained": settled[-1]["resident MiB"] - settled[0]["resident MiB"],
        "looks": found,
    }


def looks(subject: str, steps: int) -> list[dict[str, float]]:
    """Memory at the start of every tenth of the steps."""
    with tempfile.TemporaryDirectory() as folder:
        run = build(subject, steps, Path(folder))
        found: list[dict[str, float]] = []
        every = run._loader.num_batches * max(1, run.epochs // NUM_LOOKS)
        train_step = run._train_step

        def watched(batch: Batch) -> int:
            if run.step % every == 0:
                gc.collect()
                # Not isinstance, which asks the objects, and some of them answer with a warning.
                tensors = sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())
                found.append({"step": run.step, "tensors": tensors, "resident MiB": resident_mib()})
            return train_step(batch)

        run._train_step = watched  # type: ignore[method-assign]
        run.run()
    return found


def build(subject: str, steps: int, folder: Path) -> Loop:
    """The run, as its program builds it."""
    register_schemas()
    program, settings = (
        (RETRAIN, RETRAINING) if subject == RETRAIN else ("search", (*SEARCH, f"sampler={subject}"))
    )
    if subject == "uniform":  # trains no logits to read
        settings = (*settings, "derive=sampled")
    images = 640 if program == RETRAIN else 320
    epochs = max(NUM_LOOKS, steps // (images // 32))
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        composed = hydra.compose(program, [*settings, f"epochs={epochs}", f"run_dir={folder}"])
    config = OmegaConf.to_object(composed)
    launched = Launch(folder, program, (), {}, must_resume=False)
    if isinstance(config, RetrainConfig):
        return retrain.build(config, launched, resolve_genotype(config.genotype))[0]
    assert isinstance(config, SearchConfig)
    return search.build(config, launched)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    add = partial(parser.add_argument, metavar="")
    add("--steps", type=int, default=2000, help="of each run (default 2000)")
    add("--output", type=Path, help="results file, JSON")
    add("--one", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
