"""The search loop on a tiny supernet and digits."""

from pathlib import Path

import pytest
import torch
from search_helpers import make_search


@pytest.mark.parametrize("update_unsampled", [False, True])
def test_unsampled_operations_are_left_alone_unless_it_is_asked_for(
    tmp_path: Path, update_unsampled: bool
) -> None:
    search = make_search(tmp_path, f"update_unsampled={update_unsampled}", "sampler=gdas")
    parameters = list(search.supernet.model.parameters())
    before = [p.detach().clone() for p in parameters]
    search.learner.update_weights(next(iter(search.data.train.epoch(0))))
    moved = [not torch.equal(p, was) for p, was in zip(parameters, before, strict=True)]
    assert any(moved) and all(moved) == update_unsampled
