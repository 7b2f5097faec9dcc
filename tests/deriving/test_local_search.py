"""Local search against brute force."""

from collections.abc import Iterable, Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import zscore

from nas.deriving.local_search import Judged, Jury, local_search, rank, standard_scores
from nas.genotype import Genotype, Key
from nas.spaces import DARTS, NASBench201
from nas.spaces.nasbench201 import cell_edges

SETTINGS = settings(deadline=None, derandomize=True, max_examples=30)
OPERATIONS = ("a", "b", "c")


def genotype(*options: str) -> Genotype:
    return Genotype("toy", OPERATIONS, {f"cell/0->{i}": o for i, o in enumerate(options, 1)})


def key(found: Genotype) -> Key:
    return tuple(found.choices.items())


def neighbours(found: Genotype) -> Iterable[Genotype]:
    options = list(found.choices.values())
    for i, present in enumerate(options):
        for other in OPERATIONS:
            if other != present:
                yield genotype(*options[:i], other, *options[i + 1 :])


@SETTINGS
@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=4, max_size=4),
    st.sampled_from([None, 1, 3, 8]),
)
def test_the_best_of_a_sum_over_the_choices_is_found(
    table: list[list[float]], at_a_time: int | None
) -> None:
    def judge(found: Genotype) -> float:
        return sum(
            row[OPERATIONS.index(o)] for row, o in zip(table, found.choices.values(), strict=True)
        )

    ranked = local_search(
        [genotype(*"aaaa")],
        neighbours,
        Jury([judge], key),
        key,
        beam=1,
        max_evaluations=81,
        at_a_time=at_a_time,
    )
    best = max(judge(genotype(*options)) for options in product(OPERATIONS, repeat=4))
    assert judge(ranked[0].genotype) == pytest.approx(best)


def test_judges_of_different_scales_count_the_same() -> None:
    pool = [(genotype(o), values) for o, values in zip("abc", [(1, 3e9), (2, 2e9), (3, 1e9)])]  # noqa: B905
    assert [judged.standing for judged in rank(pool)] == [0.5, 0.5, 0.5]
    pool.append((genotype("a", "a"), (2.5, 2.5e9)))
    best = rank(pool)[0]
    assert best.genotype == genotype("a", "a")
    assert best.standing == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert [judged.values[0] for judged in rank([(g, v[:1]) for g, v in pool])] == [3, 2.5, 2, 1]


def test_without_judges_all_stand_alike_and_keep_their_order() -> None:
    pool = [(genotype("a"), ()), (genotype("b"), ())]
    found = rank(pool)
    assert [judged.standing for judged in found] == [0.0, 0.0]
    assert [judged.genotype for judged in found] == [pool[0][0], pool[1][0]]


def test_weights_of_the_judges() -> None:
    pool = [(genotype(o), values) for o, values in zip("abc", [(1, 1), (2, 3), (3, 2)])]  # noqa: B905

    def standings(ranked: list[Judged]) -> dict[str, float]:
        return {judged.genotype.choices["cell/0->1"]: judged.standing for judged in ranked}

    assert standings(rank(pool, weights=[1, 3])) == pytest.approx({"a": 0, "b": 0.875, "c": 0.625})
    assert standings(rank(pool)) == standings(rank(pool, weights=[2, 2]))


def test_infinite_judgements_are_ranked_too() -> None:
    pool = [(genotype(o), (value,)) for o, value in zip("abc", (0.0, float("-inf"), 1.0))]  # noqa: B905
    assert [judged.values[0] for judged in rank(pool)] == [1.0, 0.0, float("-inf")]


def test_standard_scores_see_how_far_ahead_one_is() -> None:
    noise, lead = [0.0, 2.0, 2.9, 3.0], [0.0, 0.1, 5.0, 0.2]
    pool = [(genotype(o, "a"), v) for o, v in zip("abcd", zip(noise, noise, lead))]  # noqa: B905
    assert rank(pool)[0].genotype == genotype("d", "a")
    scaled = rank(pool, standard_scores)
    assert scaled[0].genotype == genotype("c", "a")
    expected = [(2 * zscore(noise)[k] + zscore(lead)[k]) / 3 for k in (2, 3)]
    assert [judged.standing for judged in scaled[:2]] == pytest.approx(expected)


def test_standard_scores_of_what_is_infinite_or_all_equal() -> None:
    values = np.array([[1, 7, -np.inf, 0], [-np.inf, 7, -np.inf, 1], [3, 7, -np.inf, 5]])
    expected = np.stack([zscore([1, 1, 3]), [0, 0, 0], [0, 0, 0], zscore([0, 1, 5])], axis=1)
    assert standard_scores(values) == pytest.approx(expected)


def test_no_genotype_is_judged_twice_and_the_limit_holds() -> None:
    asked: list[Genotype] = []

    def judge(found: Genotype) -> float:
        asked.append(found)
        return float(list(found.choices.values()).count("b"))

    start = [genotype(*"aaaa"), genotype(*"aaaa"), genotype(*"cccc")]
    jury = Jury([judge], key)
    ranked = local_search(start, neighbours, jury, key, beam=2, max_evaluations=30)
    assert len(asked) == len({str(g.choices) for g in asked}) == len(ranked) <= 30
    assert ranked[0].genotype == genotype(*"bbbb")
    assert jury([ranked[0].genotype, genotype(*"abbb")]) == [(4.0,), (3.0,)]
    assert len(asked) == len(ranked)  # both had been asked for


def test_of_genotypes_of_one_key_the_first_is_judged() -> None:
    """The second choice means nothing where the first is `a`."""
    asked: list[str] = []

    def judge(found: Genotype) -> float:
        asked.append("".join(found.choices.values()))
        return 0.0

    def key(found: Genotype) -> Key:
        first, second = found.choices.items()
        return (first,) if first[1] == "a" else (first, second)

    start = [genotype(*"ab"), genotype(*"aa"), genotype(*"bb")]
    jury = Jury([judge], key)
    ranked = local_search(start, neighbours, jury, key, beam=9, max_evaluations=9)
    assert asked[:2] == ["ab", "bb"] and len(ranked) == len(asked) == 7
    assert jury([genotype(*"ac")]) == [(0.0,)] and len(asked) == 7


def test_several_genotypes_are_judged_at_a_time() -> None:
    batches: list[int] = []

    def jury(genotypes: Sequence[Genotype]) -> list[tuple[float]]:
        batches.append(len(genotypes))
        return [(float(list(g.choices.values()).count("b")),) for g in genotypes]

    local_search([genotype(*"aa")], neighbours, jury, key, beam=1, max_evaluations=9)
    assert batches == [1, 4, 2, 1]  # aa, its neighbours, what is new around ab, and around bb


def test_some_neighbours_at_a_time_are_drawn_from_all() -> None:
    asked: list[list[Genotype]] = []

    def jury(genotypes: Sequence[Genotype]) -> list[tuple[float, ...]]:
        asked.append(list(genotypes))
        return [(float(g == genotype(*"aaaa")),) for g in genotypes]  # nowhere to go from there

    found = local_search(
        [genotype(*"aaaa")], neighbours, jury, key, beam=1, max_evaluations=81, at_a_time=3
    )
    all_neighbours = list(neighbours(genotype(*"aaaa")))
    assert [len(genotypes) for genotypes in asked] == [1, 3, 3, 2]
    assert {key(g) for part in asked[1:] for g in part} == set(map(key, all_neighbours))
    assert asked[1] != all_neighbours[:3]  # in the order of the choices the first would have all
    assert len(found) == 9


def test_nobody_is_asked_of_nothing() -> None:
    a, b = genotype("a"), genotype("b")

    def jury(genotypes: Sequence[Genotype]) -> list[tuple[float]]:
        assert genotypes
        return [(1.0,)] * len(genotypes)

    found = local_search([a, b], lambda _: [a, b], jury, key, beam=2, max_evaluations=9)
    assert len(found) == 2


def test_all_of_the_beam_are_expanded() -> None:
    """Two peaks: a beam of one stays on the first, a wider one crosses over."""
    values = {
        "aa": 5.0,
        "ab": 1.0,
        "ba": 4.0,
        "bb": 6.0,
        "ca": 0.0,
        "ac": 0.0,
        "cb": 0.5,
        "bc": 0.5,
    }

    def judge(found: Genotype) -> float:
        return values.get("".join(found.choices.values()), 0.0)

    def best(beam: int) -> float:
        found = local_search(
            [genotype(*"aa")], neighbours, Jury([judge], key), key, beam=beam, max_evaluations=9
        )
        return judge(found[0].genotype)

    assert best(1) == 5.0 and best(2) == 6.0


# Neighbours in the spaces


def test_neighbours_of_a_nasbench201_cell() -> None:
    space = NASBench201(in_channels=3, num_classes=10)
    start = Genotype(space.name, space.operations, {e.name: "nor_conv_3x3" for e in cell_edges(4)})
    found = list(space.neighbours(start))
    assert len({str(g.choices) for g in found}) == 24
    for other in found:
        assert len(set(other.choices.items()) - set(start.choices.items())) == 1
        assert list(other.choices) == list(start.choices)


def test_neighbours_of_a_darts_genotype() -> None:
    space = DARTS(in_channels=3, num_classes=10, channels=4, cells=3, nodes=3)
    choices = {
        f"{cell}/{source}->{target}": "sep_conv_3x3"
        for cell in ("normal", "reduce")
        for target in (2, 3, 4)
        for source in (0, 1)
    }
    found = list(space.neighbours(Genotype(space.name, space.operations, choices)))
    # 12 edges times 6 other operations; nodes 3 and 4 of two cells have 1 and 2 other sources for
    # each of two edges.
    assert len(found) == len({str(sorted(g.choices.items())) for g in found}) == 12 * 6 + 2 * 2 * 3
    for other in found:
        space.build_network(other)  # refuses what does not fit
        assert "none" not in other.choices.values()
        assert len(set(other.choices.items()) - set(choices.items())) == 1
