"""Looking up architectures: ranks and regrets by definition, and files that are refused."""

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.genotype.text import parse_nasbench201
from nas.tables.benchmark_table import BenchmarkTable, Score

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
TEXTS = [f"|{a}~0|+|{b}~0|{c}~1|" for a, b, c in product(OPERATIONS, repeat=3)]


def write(path: Path, *lines: str, head: str = "architecture,cifar10_test") -> Path:
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def test_read(tmp_path: Path) -> None:
    table = BenchmarkTable.read(
        write(tmp_path / "t.csv", f"{TEXTS[3]},91.5", f"{TEXTS[7]},94"), 200
    )
    assert table.accuracies == {TEXTS[3]: 91.5, TEXTS[7]: 94.0}
    assert (table.column, table.epochs, table.best) == ("cifar10_test", 200, 94.0)
    assert table.score(parse_nasbench201(TEXTS[3])) == Score(91.5, rank=2, regret=2.5)
    assert table.score(parse_nasbench201(TEXTS[0])) is None


def test_another_column_and_the_epochs_of_a_file(tmp_path: Path) -> None:
    head = "epochs,architecture,cifar100_test"
    path = write(tmp_path / "t.csv", f"12,{TEXTS[3]},61.5", head=head)
    assert BenchmarkTable.read(path, 12, "cifar100_test").accuracies == {TEXTS[3]: 61.5}
    with pytest.raises(UserError, match=r"after 12 epochs.*benchmark\.epochs is 200"):
        BenchmarkTable.read(path, 200, "cifar100_test")


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
@settings(deadline=None, derandomize=True)
def test_ranks_and_regrets(values: list[int]) -> None:
    accuracies = {text: float(value) for text, value in zip(TEXTS, values, strict=False)}
    table = BenchmarkTable("cifar10_test", 200, accuracies)
    for text, accuracy in accuracies.items():
        score = table.score(parse_nasbench201(text))
        assert score is not None and score.accuracy == accuracy
        assert score.rank == 1 + sum(other > accuracy for other in accuracies.values())
        assert score.regret == max(accuracies.values()) - accuracy


@pytest.mark.parametrize(
    ("lines", "head", "expected"),
    [
        ([f"{TEXTS[0]},91"], "architecture,accuracy", "accuracy; set benchmark.column"),
        ([], "architecture,cifar10_test", "no lines"),
        ([f"{TEXTS[0]},101"], "architecture,cifar10_test", "line 2: cifar10_test is not"),
        ([f"{TEXTS[0]},nan"], "architecture,cifar10_test", "line 2: cifar10_test is not"),
        ([f"{TEXTS[0]},many"], "architecture,cifar10_test", "line 2: cifar10_test is not"),
        ([f"{TEXTS[0]},1", "|conv~0|,2"], "architecture,cifar10_test", "line 3: genotype string"),
        ([f"{TEXTS[0]},1"] * 2, "architecture,cifar10_test", "line 3: .* comes twice"),
    ],
)
def test_a_file_that_is_no_table(
    tmp_path: Path, lines: list[str], head: str, expected: str
) -> None:
    path = write(tmp_path / "t.csv", *lines, head=head)
    with pytest.raises(UserError, match=expected) as error:
        BenchmarkTable.read(path, 200)
    assert "\n" not in str(error.value) and "t.csv" in str(error.value)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00broken"])
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="cannot read"):
        BenchmarkTable.read(path, 200)
