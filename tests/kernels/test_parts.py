"""Which modules between nodes matter."""

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas.choice import NOT_CONNECTED, Choice
from nas.kernels.parts import Concatenation, Parts, Role, live_positions
from nas.ops import Zero


def paths(present: list[tuple[int, int]], node: int) -> list[list[tuple[int, int]]]:
    """All paths, as lists of edges, that start in `node`; the empty one included."""
    onward = [
        (edge, rest) for edge in present if edge[0] == node for rest in paths(present, edge[1])
    ]
    return [[], *([edge, *rest] for edge, rest in onward)]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[int, int]], set[int], set[int]]:
    nodes = draw(st.integers(2, 6))
    pairs = [(source, target) for target in range(1, nodes) for source in range(target)]
    present = [pair for pair in pairs if draw(st.booleans())]
    subset = st.sets(st.integers(0, nodes - 1))
    return present, draw(subset), draw(subset)


@given(graphs())
@settings(deadline=None, derandomize=True, max_examples=150)
def test_live_are_those_on_a_path_from_input_to_output(
    graph: tuple[list[tuple[int, int]], set[int], set[int]],
) -> None:
    present, inputs, outputs = graph
    on_a_path = {
        edge
        for start in inputs
        for path in paths(present, start)
        if path and path[-1][1] in outputs
        for edge in path
    }
    ends = [((source,), target) for source, target in present]
    live = live_positions(ends, [Role.CONNECTS] * len(ends), inputs, outputs)
    assert [present[position] for position in live] == [
        edge for edge in present if edge in on_a_path
    ]


def test_a_silent_edge_hangs_on_its_target_and_reads_nothing() -> None:
    ends = [((0,), 1), ((0,), 2), ((1,), 2), ((0,), 3), ((1,), 3), ((2,), 3)]

    def live(silent: set[int]) -> list[int]:
        roles = [Role.SILENT if place in silent else Role.CONNECTS for place in range(len(ends))]
        return live_positions(ends, roles, (0,), (3,))

    assert live({2, 4}) == [1, 2, 3, 4, 5], "node 1 leads nowhere"
    assert live({0, 1, 2, 3, 4, 5}) == [3, 4, 5]


def test_what_stands_behind_a_cut_runs_on_zeros() -> None:
    choice = Choice({"none": Zero(1), "same": nn.Identity()}, "path")
    parts = Parts()
    stem = parts.add(nn.Identity(), 0)
    pair = [parts.add(choice, stem), parts.add(choice, stem)]
    parts.add(nn.Flatten(), parts.add(Concatenation(), *pair))
    assert parts.live([None, 1, 1, None, None]) == [0, 1, 2, 3, 4]
    assert parts.live([None, 0, 1, None, None]) == [0, 2, 3, 4]
    assert parts.live([None, 0, NOT_CONNECTED, None, None]) == [3, 4]
    assert parts.live([None, 0, NOT_CONNECTED, None, None], silent=True) == [1, 3, 4]
