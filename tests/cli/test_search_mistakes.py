"""`search.py` where something is wrong: one line says what, and nothing is left behind."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TINY_SEARCH

Run = Callable[..., tuple[int, str]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("sampler=gdsa",), r"unknown sampler 'gdsa': allowed are .*did you mean 'gdas'\?"),
        (("space=dart",), r"unknown space 'dart': .*did you mean 'darts'\?"),
        (("experiment=gdas_nasbench20",), r"did you mean 'gdas_nasbench201'\?"),
        (("sampler.nme=gdas",), r"unknown setting 'sampler.nme'; did you mean 'sampler.name'\?"),
        (("epochz=3",), r"unknown setting 'epochz'; did you mean 'epochs'\?"),
        (("+foo=1",), r"settings cannot be added: \+foo=1"),
        (("epochs=abc",), r"epochs is 'abc': must be a whole number"),
        (("epochs=0",), r"epochs is 0: must be at least 1"),
        (("recalibration_batches=-1",), r"recalibration_batches is -1: must be at least 0"),
        (("epochs==3",), r"cannot read epochs==3: .* quoted twice"),
        (("epochs=1.5",), r"epochs is '1.5': must be a whole number"),
        (("epochs",), r"'epochs' is no setting: settings are written KEY=VALUE"),
        (("sampler=GDAZ",), r"did you mean 'gdas'\?"),
        (
            ("space.cells=6",),
            r"unknown setting 'space.cells': it is one of space=darts, space=gdas",
        ),
        (("space=darts", "space.cell=6"), r"did you mean 'space.cells'\?"),
        (("space=darts", "space.layers=8"), r"of space=mobilenet; did you mean 'space.cells'\?"),
        (("space.num_cells=3",), r"did you mean 'space.cells_per_stage'\?"),
        (("lr=0.1",), r"did you mean 'weights.learning_rate' or 'logits.learning_rate'\?"),
        (("logits.lr=0.1",), r"did you mean 'logits.learning_rate'\?"),
        (("num_workers=4",), r"did you mean 'data.num_workers'\?"),
        (("optimizer=adam",), r"did you mean 'weights.name' or 'logits.name'\?"),
        (("sampler.foo=1",), r"'sampler.foo': sampler has name, temperature_start, temperature_e"),
        (("genotype=darts_v2",), r"unknown setting 'genotype': it is one of retrain.py"),
        (
            ("network.channels=8",),
            r"'network.channels': it is one of retrain.py; did you mean 'space",
        ),
        (("budget=FLOPs",), r"unknown budget 'FLOPs': .*did you mean 'multiply_adds'\?"),
        (("sampler=darts",), r"unknown sampler 'darts': .*did you mean 'softmax'\?"),
        (("run_dir=",), r"run_dir is empty: give a folder, or leave run_dir out"),
        (("space.operations=none",), r"space.operations: must be a list, .*=\[a,b\]'"),
        (("space.operations=[none,",), r"brackets do not match in \[none,: quote"),
        (("seed=0,1",), r"seed: 0,1 are several values: .* for a run of each add -m"),
        (("data.flip=maybe",), r"data.flip is 'maybe': must be true or false"),
        (("+space=darts",), r"neither added nor left out, write space=OPTION"),
        (("experiment=retrain_nasbench201",), r"is not for search.py, whose own are darts_first"),
        (("batch_size=5000",), r"batch_size is 5000, but there are only \d+ training images"),
        (("device=cuda:7",), r"device is 'cuda:7', but"),
        (("device=tpu",), r"device is 'tpu': allowed are auto, cpu, cuda"),
        (("precision=fp8",), r"unknown precision 'fp8' \(precision\)"),
        (("bilevel.order=weights_frist",), r"did you mean 'weights_first'\?"),
        (("bilevel.weight_steps=0",), r"bilevel.weight_steps is 0: must be at least 1"),
        (("bilevel=second_order", "weights.name=adam"), r"set weights.name=sgd"),
        (("warm_start.score=synflo",), r"did you mean 'synflow'\?"),
        (("warm_start.score=naswot", "warm_start.strength=-1"), r"strength is -1.0: must be at"),
        (("space.reduction=pool",), r"did you mean 'pooling'\?"),
        (("bilevel.groups=0",), r"bilevel.groups is 0: must be at least 1"),
        (("bilevel.groups=3",), r"bilevel.groups is 3: must divide batch_size=64 without rest"),
        (("bilevel.groups=64",), r"bilevel.groups is 64: .* groups of at least 2 images"),
        (("bilevel.logits_samples=0",), r"bilevel.logits_samples is 0: must be at least 1"),
        (("bilevel.weight_samples=fiar",), r"did you mean 'fair'\?"),
        (("bilevel.baseline=mean",), r"unknown baseline 'mean' \(bilevel.baseline\): allowed"),
        (("sampler=softmax", "bilevel.baseline=running_mean"), r"bilevel.baseline is .* one path"),
        (("sampler=score_function", "bilevel.baseline=running_mean"), r"bilevel.baseline is"),
        (("sampler=score_function", "bilevel=second_order"), r"set bilevel=first_order"),
        (("sampler=score_function", "bilevel.logits_samples=1"), r"null or at least 2"),
        (("sampler=uniform",), r"use derive=sampled"),
        (("derive=perturbtion",), r"did you mean 'perturbation'\?"),
        (("derive=perturbation", "derive.num_paths=0"), r"derive.num_paths is 0: must be at least"),
        (("derive=perturbation", "derive.tuning_steps=-1"), r"derive.tuning_steps is -1: must be"),
        (("derive=perturbation", "derive.max_images=0"), r"derive.max_images is 0: must be at"),
        (("derive=local_search", "derive.judges=[naswort]"), r"did you mean 'naswot'\?"),
        (("derive=local_search", "derive.judges=[]"), r"derive.judges may be empty only where"),
        (("derive=finals", "derive.network.cells=4"), r"derive.network.cells: .* no such size"),
        (("sampler.temperature_end=0",), r"sampler.temperature_end is 0.0: must be positive"),
        (("space.operations=[none,nor_conv_3x4]",), r"did you mean 'nor_conv_3x3'\?"),
        (("space.operations=[none,none]",), r"space.operations must be different names"),
        (("space=darts", "space.operations=[none]"), r"nothing can be derived"),
        (("space=darts", "space.stem=cifra"), r"unknown stem 'cifra'.*did you mean 'cifar'\?"),
        (("space=gdas_frc", "space.channels=10"), r"channels is 10: .* multiple of 4"),
        (
            ("space.partial_channels=3",),
            r"space.partial_channels is 3: must divide space.channels=16 without rest",
        ),
        (("space=gdas_frc", "space.partial_channels=5"), r"must divide space.channels=16"),
        (("space.partial_channels=0",), r"space.partial_channels is 0: must be at least 1"),
        (("weights.schedule=cosin",), r"unknown schedule .*did you mean 'cosine'\?"),
        (("logits.learning_rate=-1",), r"logits.learning_rate is -1.0: must be positive"),
        (("data=image_folder",), r"data.path: give the folder"),
        (("data=image_folder", "data.path=/no/such"), r"data.path: no such folder: /no/such"),
        (("data.name=digit",), r"unknown data set 'digit' .*did you mean 'digits'\?"),
        (
            ("kernels=graphs", "sampler=softmax"),
            r"kernels=graphs records .*, sampler=softmax runs all of them: set kernels to auto",
        ),
        (
            ("kernels=graphs", "precision=bf16"),
            r"precision=bf16 casts in between: set kernels to auto",
        ),
        (
            ("kernels=graphs", "bilevel=single_level"),
            r"bilevel=single_level trains weights and logits in one pass: set kernels to auto",
        ),
        (
            ("kernels=graphs", "device=cpu"),
            r"kernels=graphs cannot be had here: the device is cpu, no GPU; set kernels to auto",
        ),
        (("kernels=fussed",), r"unknown kernels 'fussed'.*did you mean 'fused'\?"),
        (("benchmark.nasbench201=/no/such.csv",), r"benchmark.nasbench201: cannot read /no/such"),
        (("benchmark.epochs=0",), r"benchmark.epochs is 0: must be at least 1"),
        (
            ("pruning.epochs=[1]",),
            r"pruning.epochs is \[1\] and pruning.keep is \[\]: give as many",
        ),
        (("pruning.epochs=[2,2]", "pruning.keep=[3,2]"), r"pruning.epochs is .*: must increase"),
        (("pruning.epochs=[2,4]", "pruning.keep=[3,3]"), r"pruning.keep is .*: must decrease"),
        (("pruning.epochs=[1]", "pruning.keep=[0]"), r"pruning.keep is \[0\]: .* at least 1"),
        (("pruning.epochs=[1]", "pruning.keep=[2]"), r"pruning.epochs .* lie between .* epochs=1"),
        (("epochs=9", "pruning.epochs=[1]", "pruning.keep=[6]"), r"pruning.keep .* only 5 options"),
        (
            ("epochs=9", "warmup_epochs=2", "pruning.epochs=[2]", "pruning.keep=[2]"),
            r"pruning.epochs .* lie between warmup_epochs=2",
        ),
        (
            ("sampler=uniform", "derive=sampled", "pruning.epochs=[1]", "pruning.keep=[2]"),
            r"pruning.epochs reads the logits, which sampler=uniform does not",
        ),
        (
            ("epochs=9", "warmup_epochs=9"),
            r"warmup_epochs is 9: leaves none of epochs=9 to train the logits, which derive=argmax",
        ),
        (("collapse.action=rollback",), r"did you mean 'roll_back'\?"),
        (("collapse.action=stop",), r"collapse.action is stop, .* set collapse.max_skips or"),
        (("collapse.eigenvalue_growth=1.3",), r"set collapse.eigenvalue_every_epochs to 1 or more"),
        (("collapse.max_skips=-1",), r"collapse.max_skips is -1: must be at least 0"),
        (
            ("sampler=uniform", "derive=sampled", "collapse.max_skips=2"),
            r"collapse: the sampler does not train the logits",
        ),
        (("resume=true",), r"resume=true, but there is no checkpoint"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_answered_in_one_line(
    run_program: Run, tmp_path: Path, overrides: tuple[str, ...], message: str
) -> None:
    run = tmp_path / "run"
    code, output = run_program("search", "epochs=1", *overrides, f"run_dir={run}")
    assert code == 1
    lines = output.strip().splitlines()
    assert len(lines) == 1, output
    assert lines[0].startswith("error: ")
    assert re.search(message, lines[0]), lines[0]
    assert not run.exists(), "nothing may be left behind"


def test_options_may_stand_between_settings(run_program: Run, tmp_path: Path) -> None:
    """The runs of a sweep are announced by Hydra; the mistake is in the last line."""
    given = ("epochs=1", "seed=0,1", "-m", "epochs=0", f"hydra.sweep.dir={tmp_path}/sweep")
    code, output = run_program("search", *given)
    assert code == 1
    assert output.strip().splitlines()[-1].startswith("error: ")
    assert "epochs is 0: must be at least 1" in output


def test_a_folder_that_cannot_be_written_is_one_line(run_program: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, output = run_program("search", f"run_dir={tmp_path}/file/run")
    assert code == 1
    assert output.startswith("error: run_dir: cannot write")
    assert len(output.strip().splitlines()) == 1


def test_a_diverging_search_stops_with_one_line(run_program: Run, tmp_path: Path) -> None:
    code, output = run_program(
        "search",
        *TINY_SEARCH,
        "weights.learning_rate=1e30",
        "weights.clip_norm=0",
        f"run_dir={tmp_path}/run",
    )
    assert code == 1
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and re.search(r"is (nan|inf)", errors[0])
    assert "Traceback" not in output


def test_a_refused_run_removes_its_own_files_alone(run_program: Run, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", ("data=image_folder", f"data.path={tmp_path}/nowhere")
    code, _ = run_program("search", *settings, f"run_dir={run}")
    assert code == 1 and not run.exists()
    run.mkdir()
    (run / "notes.log").write_text("of the user's")
    code, _ = run_program("search", *settings, f"run_dir={run}")
    assert code == 1 and (run / "notes.log").read_text() == "of the user's"
