"""The official NATS-Bench files: written in the package's own format, read by the package."""

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from conftest import TINY_SEARCH

from nas.errors import UserError
from nas.tables.benchmark_table import BenchmarkTable
from nas.tables.nats_bench import COLUMNS, main

TEXTS = [
    "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|",
    "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|",
    "|skip_connect~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|",
]
SEEDS = (777, 888, 999)
SETS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}
WHAT = {
    "cifar10_valid": ("cifar10-valid", "x-valid"),
    "cifar10_test": ("cifar10", "ori-test"),
    "cifar100_valid": ("cifar100", "x-valid"),
    "cifar100_test": ("cifar100", "x-test"),
    "imagenet16_120_valid": ("ImageNet16-120", "x-valid"),
    "imagenet16_120_test": ("ImageNet16-120", "x-test"),
}


@pytest.fixture
def nats_bench() -> Any:
    """The package itself."""
    return pytest.importorskip("nats_bench")


def accuracy(index: int, epochs: int, dataset: str, name: str, seed: int, epoch: int) -> float:
    """A number of its own for every entry of the files; it rises from epoch to epoch."""
    place = 7 * index + 3 * list(SETS).index(dataset) + SETS[dataset].index(name)
    return 10 + place + seed / 1000 + epochs / 100 + epoch / 10_000


def record(package: Any, index: int, trained: dict[str, int]) -> dict[str, Any]:
    """What the files have of one architecture, by the name of the training."""
    content = {}
    for training, epochs in trained.items():
        architecture = package.ArchResults(index, TEXTS[index])
        for dataset, names in SETS.items():
            architecture.dataset_seed[dataset] = list(SEEDS)
            for seed in SEEDS:
                curve = dict.fromkeys(range(epochs), 50.0)
                config = {"arch_str": TEXTS[index], "channel": 16, "num_cells": 5}
                trial = package.ResultsCount(
                    dataset, None, curve, curve, 0.4, 50.0, config, seed, epochs, None
                )
                for name in names:
                    values = {
                        f"{name}@{epoch}": accuracy(index, epochs, dataset, name, seed, epoch)
                        for epoch in range(epochs)
                    }
                    trial.update_eval(values, values, values)
                architecture.all_results[dataset, seed] = trial
        content[training] = architecture.state_dict()
    return content


TRAINED = {"12": 12, "200": 200}


def write_folder(package: Any, path: Path, trained: dict[str, int] = TRAINED) -> Path:
    path.mkdir()
    package.pickle_save({"meta_archs": TEXTS}, path / "meta.pickle")
    for index in range(len(TEXTS)):
        package.pickle_save(record(package, index, trained), path / f"{index:06d}.pickle")
    return path


def write_file(package: Any, path: Path) -> Path:
    content = {
        "meta_archs": TEXTS,
        "arch2infos": {i: record(package, i, TRAINED) for i in (0, 2)},
        "evaluated_indexes": [0, 2],
    }
    package.pickle_save(content, path.with_suffix(""), ext=path.suffix)
    return path


def mean_accuracy(index: int, epochs: int, column: str) -> float:
    dataset, name = WHAT[column]
    return fmean(accuracy(index, epochs, dataset, name, seed, epochs - 1) for seed in SEEDS)


def test_the_columns_are_the_ones_that_are_tested() -> None:
    assert WHAT.keys() == COLUMNS.keys()


@pytest.mark.parametrize("column", WHAT)
@pytest.mark.parametrize("epochs", [12, 200])
def test_the_folder_gives_the_mean_over_the_trials(
    nats_bench: Any, tmp_path: Path, epochs: int, column: str
) -> None:
    table = BenchmarkTable.read(write_folder(nats_bench, tmp_path / "simple"), epochs, column)
    assert table.accuracies == pytest.approx(
        {text: mean_accuracy(index, epochs, column) for index, text in enumerate(TEXTS)}
    )
    assert (table.epochs, table.column) == (epochs, column)


def test_the_one_large_file_gives_what_it_has_evaluated(nats_bench: Any, tmp_path: Path) -> None:
    table = BenchmarkTable.read(write_file(nats_bench, tmp_path / "tss.pickle.pbz2"), 200)
    assert table.accuracies == pytest.approx(
        {TEXTS[i]: mean_accuracy(i, 200, "cifar10_test") for i in (0, 2)}
    )


def test_results_are_let_go_of_once_they_are_read(
    nats_bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, create = [], nats_bench.create
    monkeypatch.setattr(
        nats_bench, "create", lambda *a, **k: made.append(create(*a, **k)) or made[-1]
    )
    BenchmarkTable.read(write_folder(nats_bench, tmp_path / "simple"), 200)
    (api,) = made
    assert api.arch2infos_dict == {} and api.evaluated_indexes == {0, 1, 2}


@pytest.mark.parametrize("trained", [{"12": 12, "200": 12}, {"12": 12, "200": 90}])
def test_results_after_other_epochs_are_refused(
    nats_bench: Any, tmp_path: Path, trained: dict[str, int]
) -> None:
    path = write_folder(nats_bench, tmp_path / "simple", trained)
    assert len(BenchmarkTable.read(path, 12).accuracies) == 3
    expected = rf"architecture 0: .* after {trained['200']} epochs, benchmark.epochs is 200"
    with pytest.raises(UserError, match=expected):
        BenchmarkTable.read(path, 200)


@pytest.mark.parametrize(
    ("epochs", "column", "message"),
    [
        (90, "cifar10_test", r"^benchmark.epochs is 90: NATS-Bench has results after 12 and 200$"),
        (12, "cifar10_tset", r"\(benchmark.column\).*did you mean 'cifar10_test'\?"),
    ],
)
def test_what_the_files_do_not_have(tmp_path: Path, epochs: int, column: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BenchmarkTable.read(tmp_path, epochs, column)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: (path / "meta.pickle.pbz2").unlink(), r"simple: nats-bench cannot read it"),
        (lambda path: (path / "000001.pickle.pbz2").unlink(), r"architecture 1: nats-bench cannot"),
        (lambda path: (path / "000002.pickle.pbz2").write_bytes(b"x"), r"architecture 2: nats-b"),
        (lambda path: (path / "000000.pickle.pbz2").write_bytes(b""), r"architecture 0: nats-b"),
    ],
)
def test_damaged_folders(
    nats_bench: Any, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    path = write_folder(nats_bench, tmp_path / "simple")
    spoil(path)
    with pytest.raises(UserError, match=message):
        BenchmarkTable.read(path, 12)


@pytest.mark.parametrize("trained", [{"12": 12}, {}])
def test_a_training_that_is_missing(
    nats_bench: Any, tmp_path: Path, trained: dict[str, int]
) -> None:
    path = write_folder(nats_bench, tmp_path / "simple", trained)
    with pytest.raises(UserError, match=r"architecture 0: nats-bench cannot read it .*200"):
        BenchmarkTable.read(path, 200)


def test_without_the_package_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nats_bench", None)
    for path in (tmp_path, tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"):
        with pytest.raises(UserError, match=r"pip install \.\[nats-bench\]$") as caught:
            BenchmarkTable.read(path, 200)
        assert "\n" not in str(caught.value) and "benchmark.nasbench201" in str(caught.value)


def test_no_other_file_is_unpickled(tmp_path: Path) -> None:
    """What is not NATS-Bench's by its name is text or nothing."""
    path = tmp_path / "table.csv"
    path.write_bytes(pickle.dumps({"meta_archs": TEXTS}))
    with pytest.raises(UserError, match="cannot read"):
        BenchmarkTable.read(path, 200)


def test_the_csv_file_of_it_is_the_same_table(
    nats_bench: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, path = write_folder(nats_bench, tmp_path / "simple"), tmp_path / "table.csv"
    assert main([str(folder), "--epochs", "12", "--column", "cifar100_test"]) == 0
    path.write_text(capsys.readouterr().out)
    expected = BenchmarkTable.read(folder, 12, "cifar100_test").accuracies
    assert BenchmarkTable.read(path, 12, "cifar100_test").accuracies == expected
    with pytest.raises(UserError, match=r"after 12 epochs, benchmark.epochs is 200"):
        BenchmarkTable.read(path, 200, "cifar100_test")


def test_the_csv_file_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nats_bench")
    assert main([str(tmp_path)]) == 1
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: benchmark.nasbench201: ")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("epochs", [12, 200])
def test_a_search_looks_its_genotype_up(
    nats_bench: Any, run_program: Callable[..., tuple[int, str]], tmp_path: Path, epochs: int
) -> None:
    folder, run = write_folder(nats_bench, tmp_path / "simple"), tmp_path / "run"
    benchmark = (f"benchmark.nasbench201={folder}", f"benchmark.epochs={epochs}")
    code, output = run_program("search", *TINY_SEARCH, "epochs=1", *benchmark, f"run_dir={run}")
    assert code == 0, output
    # Three of the 15,625 cells are in this folder.
    assert "benchmark" in output and ("not in the table" in output or "of 3" in output)


def test_a_search_with_no_such_folder(
    nats_bench: Any, run_program: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    code, output = run_program("search", f"benchmark.nasbench201={tmp_path}", f"run_dir={run}")
    assert code == 1 and len(output.strip().splitlines()) == 1
    assert "nats-bench cannot read it" in output and not run.exists()
