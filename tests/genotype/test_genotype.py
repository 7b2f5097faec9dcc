"""Genotypes: edges, the JSON form, and what a damaged file is answered with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import UserError
from nas.genotype import Confidence, Edge, Genotype

Content = dict[str, Any]

GENOTYPE = Genotype(
    space="nasbench201",
    operations=("none", "skip_connect"),
    choices={"cell/0->1": "skip_connect", "cell/0->2": "none", "cell/1->2": "skip_connect"},
    confidence={"cell/0->1": Confidence(0.5, 0.25, 0.125)},
)


def content() -> Content:
    loaded: Content = json.loads(GENOTYPE.to_json())
    return loaded


@given(st.integers(0, 99), st.integers(0, 99), st.from_regex(r"[a-z_]{1,8}", fullmatch=True))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_edge_name_round_trips(source: int, target: int, cell: str) -> None:
    edge = Edge(cell, target, source)
    assert edge.name == f"{cell}/{source}->{target}"
    assert Edge.parse(edge.name) == edge


@pytest.mark.parametrize(
    "name",
    [
        "",
        "cell",
        "cell/0",
        "cell/0->",
        "/0->1",
        "cell/-1->2",
        "cell/0->1 ",
        "cell/0->1\n",
        "cell/00->1",
        "cell/0->01",
        "cell/0->\N{ARABIC-INDIC DIGIT ONE}",
        "a b/0->1",
        "c/0->1/2",
    ],
)
def test_other_spellings_are_no_edges(name: str) -> None:
    with pytest.raises(ValueError, match="does not name an edge"):
        Edge.parse(name)


def test_edges_come_by_target_then_source_as_numbers() -> None:
    names = ["cell/10->11", "cell/2->11", "other/0->1", "cell/0->2", "cell/1->2"]
    genotype = Genotype("x", (), dict.fromkeys(names, "none"))
    found = [edge.name for edge, _ in genotype.edges("cell")]
    assert found == ["cell/0->2", "cell/1->2", "cell/2->11", "cell/10->11"]
    assert genotype.cells() == ["cell", "other"]


def test_file_round_trips_with_confidence(tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(GENOTYPE.to_json(), encoding="utf-8")
    loaded = Genotype.load(path)
    assert loaded == GENOTYPE
    assert loaded.confidence == GENOTYPE.confidence


def test_file_states_format_space_and_operations() -> None:
    assert content()["format_version"] == 1
    assert content()["space"] == "nasbench201"
    assert content()["operations"] == ["none", "skip_connect"]
    assert GENOTYPE.to_json().endswith("}\n")


def test_confidence_may_be_missing() -> None:
    without = content()
    del without["confidence"]
    assert Genotype.from_json(json.dumps(without)) == GENOTYPE


@pytest.mark.parametrize("field", ["space", "operations", "choices", "format_version"])
def test_missing_field_is_named(field: str) -> None:
    damaged = content()
    del damaged[field]
    assert field in refusal(json.dumps(damaged))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("space", 3),
        ("space", None),
        ("operations", "none"),
        ("operations", None),
        ("operations", {"none": 1}),
        ("operations", [1, 2]),
        ("choices", None),
        ("choices", []),
        ("choices", {"cell/0->1": 3}),
        ("choices", {"cell/0->1": None}),
        ("confidence", []),
        ("confidence", None),
        ("confidence", {"cell/0->1": 0.5}),
        ("confidence", {"cell/0->1": {"probability": 0.5}}),
        ("confidence", {"cell/0->1": {"probability": "?\n", "margin": 0, "entropy": 0}}),
        ("confidence", {"cell/0->1": {"probability": 10**400, "margin": 0, "entropy": 0}}),
    ],
)
def test_wrong_type_is_one_line_with_the_file(field: str, value: object) -> None:
    message = refusal(json.dumps({**content(), field: value}))
    assert "wrong type" in message or "lacks the field" in message


@pytest.mark.parametrize("version", [2, 99, 0, "1", None, True, 1.0, "1\n2"])
def test_other_format_versions_are_refused(version: object) -> None:
    message = refusal(json.dumps({**content(), "format_version": version}))
    assert "version 1" in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "3",
        "null",
        '"format_version"',
        "{",
        "[" * 200_000,
        "9" * 5000,
        "NaN",
        GENOTYPE.to_json()[:-30],
    ],
    ids=lambda text: repr(text[:12]),
)
def test_text_that_is_no_genotype_is_one_line_with_the_file(text: str) -> None:
    refusal(text)


@given(st.integers(0, len(GENOTYPE.to_json()) - 1), st.characters(max_codepoint=127))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_a_changed_character_is_refused_or_read_as_what_it_says(at: int, new: str) -> None:
    text = GENOTYPE.to_json()
    changed = text[:at] + new + text[at + 1 :]
    try:
        read = Genotype.from_json(changed, "run/genotype.json")
    except UserError as error:
        assert "\n" not in str(error)
    else:
        # One character can change one value, never leave a field without its type.
        assert isinstance(read.space, str)
        assert all(isinstance(part, str) for part in (*read.operations, *read.choices.values()))


def unreadable(folder: Path) -> list[Path]:
    binary = folder / "binary.json"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    return [folder / "missing.json", folder, binary, binary / "below.json"]


@pytest.mark.parametrize("kind", range(4), ids=["missing", "folder", "binary", "below a file"])
def test_unreadable_file_is_named(kind: int, tmp_path: Path) -> None:
    path = unreadable(tmp_path)[kind]
    with pytest.raises(UserError) as caught:
        Genotype.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def refusal(text: str, read: Callable[[str, str], Genotype] = Genotype.from_json) -> str:
    """The message that `text` is refused with: one line that names the file."""
    with pytest.raises(UserError) as caught:
        read(text, "run/genotype.json")
    message = str(caught.value)
    assert message.startswith("run/genotype.json: ")
    assert "\n" not in message
    return message
