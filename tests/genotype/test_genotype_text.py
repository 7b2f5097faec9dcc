"""NAS-Bench-201 strings and DARTS texts: they round-trip, and damage is answered, never run."""

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.genotype import Edge, Genotype
from nas.genotype.text import genotype_text, parse_darts, parse_nasbench201
from nas.spaces import darts, nasbench201

BENCHMARK_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
GOOD = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|none~1|skip_connect~2|"
PAIRS = "[('sep_conv_3x3', 0), ('skip_connect', 1)]"
quick = settings(deadline=None, derandomize=True, max_examples=100)


def test_all_15625_strings_of_the_benchmark_round_trip() -> None:
    seen = set()
    for a, b, c, d, e, f in itertools.product(BENCHMARK_OPERATIONS, repeat=6):
        text = f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"
        genotype = parse_nasbench201(text)
        assert genotype.choices["cell/1->2"] == c
        assert genotype_text(genotype) == text
        assert Genotype.from_json(genotype.to_json()) == genotype
        seen.add(tuple(genotype.choices.values()))
    assert len(seen) == 15_625


@given(st.integers(2, 7), st.randoms(use_true_random=False))
@quick
def test_strings_of_other_sizes_round_trip(nodes: int, random: object) -> None:
    pick = random.choice  # type: ignore[attr-defined]
    choices = {e.name: pick(BENCHMARK_OPERATIONS) for e in nasbench201.cell_edges(nodes)}
    genotype = Genotype("nasbench201", BENCHMARK_OPERATIONS, choices)
    assert parse_nasbench201(genotype_text(genotype)) == genotype


@given(
    st.integers(0, len(GOOD)),
    st.integers(0, 2),
    st.text("|+~012 nosecvkip_x9\n\N{ARABIC-INDIC DIGIT ONE}", max_size=3),
)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_mutated_string_is_refused_with_a_position(at: int, removed: int, added: str) -> None:
    text = GOOD[:at] + added + GOOD[at + removed :]
    try:
        genotype = parse_nasbench201(text)
    except UserError as error:
        found = re.search(r"position (\d+)", str(error))
        assert found is not None
        assert 1 <= int(found[1]) <= len(text) + 1
        assert "\n" not in str(error)
    else:
        assert genotype_text(genotype) == text


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 1),
        ("|", 1),
        ("nor_conv_3x3~0", 1),
        ("|none~0|+", 10),
        ("|none~0|+|none~0|", 10),
        ("|none~1|", 2),
        ("|none~00|", 2),
        ("|none~" + "9" * 5000 + "|", 2),
        ("|none~0|+|none~0|conv~1|", 18),
        ("|none~0|+|none~0|none~0|", 18),
        ("|none~0|+|none~0|none|", 18),
        ("|none~0|+|none~0|none~1|+|none~0|none~1|None~2|", 41),
    ],
    ids=lambda value: str(value)[:24],
)
def test_position_is_that_of_what_does_not_fit(text: str, position: int) -> None:
    with pytest.raises(UserError, match=rf"position {position}:"):
        parse_nasbench201(text)


def test_misspelt_operation_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"position 2: .*did you mean 'nor_conv_3x3'\?"):
        parse_nasbench201("|nor_conv3x3~0|")


@st.composite
def darts_genotypes(draw: st.DrawFn) -> Genotype:
    nodes = draw(st.integers(1, 6))
    cells = draw(st.sampled_from([("normal", "reduce"), ("normal",)]))
    choices = {}
    for cell in cells:
        for target in range(2, 2 + nodes):
            pair = st.lists(st.integers(0, target - 1), min_size=2, max_size=2, unique=True)
            for source in draw(pair):
                operation = draw(st.sampled_from(darts.OPERATIONS))
                choices[Edge(cell, target, source).name] = operation
    return Genotype("darts" if len(cells) == 2 else "gdas_frc", darts.OPERATIONS, choices)


@given(darts_genotypes())
@quick
def test_darts_genotypes_round_trip_through_text_and_json(genotype: Genotype) -> None:
    assert parse_darts(genotype_text(genotype)) == genotype
    assert Genotype.from_json(genotype.to_json()) == genotype


@given(darts_genotypes())
@quick
def test_darts_text_is_what_the_darts_code_would_read(genotype: Genotype) -> None:
    """Evaluated with the authors' namedtuple, node i owns the pairs 2i and 2i + 1."""
    fields = eval(genotype_text(genotype), {"Genotype": dict, "range": range})
    for cell in ("normal", "reduce"):
        pairs = [(edge.source, op) for edge, op in genotype.edges(cell)]
        assert [(source, op) for op, source in fields[cell]] == pairs
        assert list(fields[f"{cell}_concat"]) == list(range(2, 2 + len(pairs) // 2))


def test_spelling_of_the_authors_does_not_matter() -> None:
    text = (
        "Genotype(\n  normal = [('sep_conv_3x3',1), [\"skip_connect\", 0]],\n"
        "  normal_concat=[2], reduce=(('none', 0), ('max_pool_3x3', 1)), reduce_concat=(2,))\n"
    )
    assert parse_darts(text).choices == {
        "normal/1->2": "sep_conv_3x3",
        "normal/0->2": "skip_connect",
        "reduce/0->2": "none",
        "reduce/1->2": "max_pool_3x3",
    }


@pytest.mark.parametrize("reduce", ["[]", "()", "None"])
def test_text_without_a_reduction_cell_is_of_the_space_with_a_fixed_one(reduce: str) -> None:
    text = f"Genotype(normal={PAIRS}, normal_concat=[2], reduce={reduce}, reduce_concat=[])"
    assert parse_darts(text).space == "gdas_frc"


def normal(value: str, concat: str = "range(2, 3)") -> str:
    return f"Genotype(normal={value}, normal_concat={concat}, reduce=[], reduce_concat=[])"


@pytest.mark.parametrize(
    "value",
    [
        "__import__('os').system('touch X')",
        "__import__('pathlib').Path('X').touch()",
        "open('X', 'w')",
        "[].append(open('X', 'w'))",
        "[open('X', 'w') for _ in 'a']",
        "(lambda: open('X', 'w'))()",
        'f\'{open("X", "w")}\'',
        "(x := open('X', 'w'))",
        "range(len(open('X', 'w').name))",
    ],
)
def test_text_is_never_evaluated(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (normal(value), normal(PAIRS, value), value, f"Genotype({value})"):
        refusal(text)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "0",
        "None",
        "''",
        "{}",
        "3",
        "'abcd'",
        "[1]",
        "[('sep_conv_3x3', 0)]",
        "1e999",
        "...",
        "[('sep_conv_3x3', True), ('sep_conv_3x3', 1)]",
        "[('a', 0, 1), ('b', 1, 2)]",
        "[(0, 'sep_conv_3x3'), (1, 'sep_conv_3x3')]",
        "[(None, 0), (None, 1)]",
        "{1: 2, 3: 4}",
        "(" * 500 + ")" * 500,
        "[" * 150 + "]" * 150,
        "-" * 50_000 + "1",
        "1" * 5000,
        "range(2)",
        "[('sep_conv_3x3', 0), ('sep_conv_3x3', 2)]",
        "[('sep_conv_3x3', -1), ('none', 1)]",
    ],
    ids=lambda value: value[:24],
)
def test_nonsense_for_a_cell_is_refused_in_one_line(value: str) -> None:
    refusal(normal(value))


@pytest.mark.parametrize(
    "concat",
    [
        "range()",
        "range(2, 6)",
        "range(2, 10**9)",
        "range(2, 1000000000000)",
        "range(0, 3)",
        "2",
        "range(-1000000000000, 3)",
        "range(64, -1000000000000, -1)",
        "range('a')",
        "range(2, 3, 0)",
        "range(1, 2, 3, 4)",
        "range(2., 3.)",
        "range(stop=3)",
        "slice(2, 3)",
        "list(range(2, 3))",
        "'a\\nb'",
        "[3]",
        "None",
        "[[2]]",
    ],
)
def test_only_all_nodes_can_be_concatenated(concat: str) -> None:
    refusal(normal(PAIRS, concat))


@pytest.mark.parametrize(
    "text",
    [
        "Genotype",
        "Genotype()",
        "Genotype(1, 2, 3, 4)",
        "Genotype(**{})",
        "Genotype(",
        "3",
        "",
        normal(PAIRS).replace("Genotype", "genotype"),
        normal(PAIRS).replace("reduce=", "x="),
        normal(PAIRS)[:-1] + ", normal=[])",
        normal(PAIRS)[:-1] + ", extra=1)",
        normal(PAIRS) + ";",
        f"a.{normal(PAIRS)}",
        "Genotype(\0)",
        "Genotype(\ud800)",
        normal(PAIRS) + "\n1",
    ],
)
def test_other_calls_are_refused_in_one_line(text: str) -> None:
    refusal(text)


@given(st.text(max_size=30))
@quick
def test_any_text_between_the_brackets_is_answered_in_one_line(text: str) -> None:
    refusal(f"Genotype({text})")


def test_two_edges_from_one_input_are_refused() -> None:
    message = refusal(normal("[('sep_conv_3x3', 1), ('skip_connect', 1)]"))
    assert "node 2 of normal must keep two different inputs" in message


def test_misspelt_darts_operation_is_answered_with_the_nearest() -> None:
    message = refusal(normal("[('sep_conv3x3', 1), ('skip_connect', 0)]"))
    assert "did you mean 'sep_conv_3x3'?" in message


def test_syntax_error_names_the_column() -> None:
    assert "column 17" in refusal("Genotype(normal=], normal_concat=[2])")


@given(
    darts_genotypes(),
    st.integers(0, 400),
    st.integers(0, 3),
    st.text("()[]'\", =0123456rangesepconvskip_x\n{}*#\\", max_size=3),
)
@settings(deadline=None, derandomize=True, max_examples=300)
def test_mutated_darts_text_is_refused_with_a_position_or_reads_as_what_it_says(
    genotype: Genotype, at: int, removed: int, added: str
) -> None:
    whole = genotype_text(genotype)
    at = at % (len(whole) + 1)
    text = whole[:at] + added + whole[at + removed :]
    try:
        found = parse_darts(text)
    except UserError as error:
        place = re.search(r"genotype text, (line \d+, )?column (\d+)", str(error))
        assert place is not None and 1 <= int(place[2]) <= len(text) + 1
        assert "\n" not in str(error)
    else:
        assert parse_darts(genotype_text(found)) == found


def test_what_does_not_fit_a_cell_is_at_its_column() -> None:
    wrong = "[('sep_conv_3x3', 0), ('skip_conect', 1)]"
    message = refusal(normal(wrong))
    assert f"column {normal(wrong).index('skip_conect') - 1}: " in message
    message = refusal(normal(PAIRS, "range(2, 5)"))
    assert f"column {normal(PAIRS, 'range(2, 5)').index('range') + 1}: normal_concat" in message


def refusal(text: str) -> str:
    """The message that a DARTS text is refused with: one line with the place."""
    with pytest.raises(UserError) as caught:
        parse_darts(text)
    message = str(caught.value)
    assert "\n" not in message and "column " in message
    return message
