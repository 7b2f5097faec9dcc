"""The finals of a derivation, on a tiny search over digits."""

# Fixtures are imported and named again as arguments.
# ruff: noqa: F401, F811

import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_trainings import CONVS, SKIPS, TRAINING, folder, search, train

from benchmarks.ranking import correlations, random_genotypes
from benchmarks.ranking import main as ranking
from nas.deriving.local_search import Judged, Jury
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.spaces import NASBench201
from nas.training.finals import Finals, hold
from nas.training.search import Search
from nas.training.trainings import Trainings

KEY = NASBench201(in_channels=1, num_classes=10).key
FINALS = Finals(
    num_finalists=2,
    num_trainings=2,
    steps=3,
    num_in_playoff=0,
    playoff_steps=4,
    training=TRAINING,
)


def test_training_weighs_as_much_as_the_jury(search: Search) -> None:
    values = {genotype_text(SKIPS): (3.0, 5.0), genotype_text(CONVS): (2.0, 4.0)}
    ranked = [Judged(SKIPS, (3.0, 5.0), 1.0), Judged(CONVS, (2.0, 4.0), 0.5)]
    ranked.append(Judged(with_none(CONVS), (1.0, 1.0), 0.0))
    jury = Jury([lambda g: values[genotype_text(g)][0], lambda g: values[genotype_text(g)][1]], KEY)
    finals = replace(FINALS, steps=8)
    found = {genotype_text(j.genotype): j for j in hold(finals, search, ranked, jury, lambda _: ())}
    assert set(found) == set(values)  # two finalists, no neighbours
    skips, convs = (found[genotype_text(g)] for g in (SKIPS, CONVS))
    losses = train(TRAINING, search, [SKIPS, CONVS], 8)
    assert skips.values == (3.0, 5.0, pytest.approx(-losses[0]))
    assert convs.values == (2.0, 4.0, pytest.approx(-losses[1]))
    # Two standard scores are 1 and -1: the jury's mean is 1 for SKIPS.
    expected = (1.0, -1.0) if losses[0] < losses[1] else (0.0, 0.0)
    assert (skips.standing, convs.standing) == expected


def test_trainings_alone_decide_where_nobody_else_judges(search: Search) -> None:
    ranked = [Judged(SKIPS, (), 0.0), Judged(CONVS, (), 0.0)]
    found = hold(replace(FINALS, steps=8), search, ranked, Jury([], KEY), lambda _: ())
    losses = train(TRAINING, search, [SKIPS, CONVS], 8)
    assert [judged.standing for judged in found] == [1.0, -1.0]
    assert found[0].values == (pytest.approx(-min(losses)),)


def test_neighbours_of_the_best_follow_the_finalists(search: Search) -> None:
    asked: list[str] = []

    def judge(genotype: Genotype) -> float:
        asked.append(genotype_text(genotype))
        return -float(list(genotype.choices.values()).count("none"))

    finals = replace(FINALS, num_finalists=12, num_trainings=20)
    ranked = [Judged(SKIPS, (-3.0,), 1.0)]
    found = hold(finals, search, ranked, Jury([judge], KEY), search.space.neighbours)
    assert len(asked) == len(found) == 20
    assert asked[0] == genotype_text(SKIPS)
    start = set(SKIPS.choices.items())
    assert all(len(start - set(j.genotype.choices.items())) <= 1 for j in found)
    weights = [j.standing for j in found]
    assert weights == sorted(weights, reverse=True)


def test_a_playoff_is_added_to_the_standing(search: Search) -> None:
    ranked = [Judged(g, (1.0,), 1.0) for g in (SKIPS, CONVS, with_none(CONVS))]
    values = {genotype_text(SKIPS): 9.0, genotype_text(CONVS): 5.0}
    jury = Jury([lambda g: values.get(genotype_text(g), 0.0)], KEY)
    finals = replace(FINALS, num_finalists=3, num_trainings=3, num_in_playoff=2)
    steps: list[int] = []
    lines: list[str] = []
    found = hold(finals, search, ranked, jury, lambda _: (), steps.append, lines.append)
    before = hold(replace(finals, num_in_playoff=0), search, ranked, jury, lambda _: ())
    assert found[2] == before[2], "who is not in the play-off stays behind"
    losses = train(TRAINING, search, [j.genotype for j in before[:2]], 4)
    spread = statistics.pstdev(j.values[-1] for j in before)
    for judged, loss in zip(before[:2], losses, strict=True):
        (same,) = (j for j in found[:2] if j.genotype == judged.genotype)
        lead = statistics.mean(losses) - loss
        assert same.standing == pytest.approx(judged.standing + lead / spread)
        assert same.values == (*judged.values, pytest.approx(-loss))
    assert found[0].standing > found[1].standing
    assert sum(steps) == finals.max_steps == 3 * 3 + 2 * 1, "they go on after the third step"
    assert [line.split(",")[0] for line in lines] == [
        "3 trained for 3 steps",
        "2 trained for 4 steps",
    ]


@pytest.mark.parametrize(
    ("playoff_losses", "winner"),
    [
        ([1.7, 1.699], SKIPS),  # no more than another seed makes of one network
        ([1.7, 1.4], CONVS),
        ([math.inf, 1.7], CONVS),
        ([math.inf, math.inf], SKIPS),
    ],
)
def test_a_playoff_overrules_by_a_clear_lead_only(
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
    playoff_losses: list[float],
    winner: Genotype,
) -> None:
    losses = {FINALS.steps: [2.0, 2.1, 2.3], FINALS.playoff_steps: playoff_losses}
    monkeypatch.setattr(Trainings, "losses", lambda self, genotypes, steps: losses[steps])
    ranked = [Judged(g, (), 0.0) for g in (SKIPS, CONVS, with_none(CONVS))]
    finals = replace(FINALS, num_finalists=3, num_trainings=3, num_in_playoff=2)
    found = hold(finals, search, ranked, Jury([], KEY), lambda _: ())
    assert found[0].genotype == winner


def with_none(genotype: Genotype) -> Genotype:
    return replace(genotype, choices={**genotype.choices, "cell/0->1": "none"})


# The command that ranks real architectures by a finished search


def test_a_loaded_search_is_the_one_that_was_saved(folder: Path, search: Search) -> None:
    saved = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    assert torch.equal(search.supernet.logits, saved["logits"])
    model = search.supernet.model.state_dict()
    assert all(torch.equal(model[key], value) for key, value in saved["model"].items())
    assert search.evaluate(CONVS) == search.evaluate(CONVS, 10_000)


def test_random_genotypes_differ(search: Search) -> None:
    found = random_genotypes(search.space, search.supernet.names, 300, seed=0)
    assert len({genotype_text(g) for g in found}) == 300
    again = random_genotypes(search.space, search.supernet.names, 300, seed=0)
    assert [g.choices for g in found] == [g.choices for g in again]
    counts = [sum(g.choices["cell/0->1"] == o for g in found) for o in search.space.operations]
    assert min(counts) > 35


def test_correlations() -> None:
    accuracies = [90.0, 91.0, 92.0, 93.0, 94.0, 95.0]
    assert correlations([0, 1, 2, 3, 4, 5], accuracies) == pytest.approx(
        {"Spearman": 1, "Kendall": 1, "Spearman, better half": 1}
    )
    found = correlations([0, 1, 2, 5, 4, 3], accuracies)
    assert found["Spearman, better half"] == pytest.approx(-1)
    assert found["Kendall"] == pytest.approx((12 - 3) / 15)


def test_the_ranking_command(
    folder: Path,
    search: Search,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, cells = tmp_path / "t.csv", random_genotypes(search.space, search.supernet.names, 12, 0)
    lines = [f"{genotype_text(g)},{50 + number}" for number, g in enumerate(cells)]
    table.write_text("\n".join(["architecture,cifar10_test", *lines]))
    arguments = [str(folder), "--table", str(table), "--num", "12"]
    assert ranking([*arguments, "--output", str(tmp_path / "r.json")]) == 0
    assert "| validation and naswot" in capsys.readouterr().out
    assert (tmp_path / "r.json").exists()
    assert ranking([str(tmp_path), "--table", str(table)]) == 1
    assert "has no checkpoint of a search" in capsys.readouterr().err
