"""What a search asks of genotypes before its first step."""

from collections import Counter
from pathlib import Path

import pytest
from search_helpers import make_search

from nas.genotype import Edge, Genotype
from nas.training import scoring


def test_a_warm_start_scores_every_input_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a node with n inputs two are kept: each is scored in 2/n of the networks, and none more.

    The score wants the last operation on each edge, so that every edge must learn it.
    """
    run = make_search(tmp_path, "space=darts", "space.nodes=3", "space.cells=3")
    wanted, num_scored = run.space.options_of("normal/0->2")[-1], Counter[str]()

    def score(name: str, genotype: Genotype) -> float:
        num_scored.update(list(genotype.choices))
        return sum(option == wanted for option in genotype.choices.values())

    monkeypatch.setattr(scoring, "training_free", lambda *_: score)
    scoring.start_warm(run, "parameters", num_samples=800, strength=3.0, seed=0)
    for name, row in run.supernet.probabilities().items():
        share = num_scored[name] / num_scored[f"{Edge.parse(name).cell}/0->2"]
        assert share == pytest.approx(2 / Edge.parse(name).target, abs=0.1), name
        assert int(row.argmax()) == len(row) - 1, name
