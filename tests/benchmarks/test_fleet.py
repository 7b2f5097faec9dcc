"""The simulated fleet against Young's and Daly's formulas, and against what can be counted."""

import math
from dataclasses import replace

import pytest

from benchmarks.fleet import best_interval
from benchmarks.fleet_simulation import Fleet, simulate

ALONE = Fleet(
    searches=150,
    machines=15,
    work=40_000.0,
    checkpoint_bytes=4e9,  # 40 s
    checkpoint_ops=0,
    start_bytes=0,
    start_ops=0,
    start=30.0,
    mean_uptime=4000.0,
    away=0.0,
    dispatch=0.0,
    bandwidth=math.inf,
)
"""A store that nobody has to share."""


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.0, 4.0])
def test_goodput_is_what_daly_expects(factor: float) -> None:
    fleet = replace(ALONE, interval=ALONE.young * factor)
    assert fleet.write == 40.0 and fleet.young == math.sqrt(2 * 40 * 4000)
    assert simulate(fleet).goodput == pytest.approx(fleet.expected_goodput(), abs=0.01)


def test_the_best_interval_is_youngs() -> None:
    assert best_interval(replace(ALONE, work=10_000.0)) == pytest.approx(ALONE.daly, rel=0.2)
    assert ALONE.young == pytest.approx(ALONE.daly, rel=0.1)


def test_dalys_interval_is_the_best_of_his_expectation() -> None:
    def expected(interval: float) -> float:
        return replace(ALONE, interval=interval).expected_goodput()

    best = max(range(100, 2000), key=expected)
    assert ALONE.daly == pytest.approx(best, rel=0.02)


def test_without_preemptions_the_times_add_up() -> None:
    fleet = replace(
        ALONE, searches=6, machines=3, work=1000.0, interval=250.0, mean_uptime=math.inf
    )
    outcome = simulate(fleet)
    assert (outcome.preemptions, outcome.lost, outcome.checkpoints) == (0, 0.0, 24)
    assert outcome.makespan == pytest.approx(2 * (30 + 1000 + 4 * 40))
    assert outcome.useful == pytest.approx(6000) and outcome.writing == pytest.approx(24 * 40)


def test_all_work_is_done_whatever_is_preempted() -> None:
    outcome = simulate(replace(ALONE, interval=500.0, mean_uptime=2000.0, away=77.0, dispatch=3.0))
    assert outcome.preemptions > 100
    assert outcome.useful == pytest.approx(ALONE.searches * ALONE.work)


def test_machines_share_the_bandwidth() -> None:
    fleet = replace(ALONE, searches=4, machines=4, work=100.0, interval=100.0, mean_uptime=math.inf)
    shared = simulate(replace(fleet, bandwidth=1e8))
    assert shared.peak_transfers == 4
    assert shared.makespan == pytest.approx(30 + 100 + 4 * 40)


def test_metadata_operations_stand_in_line() -> None:
    fleet = replace(ALONE, searches=4, machines=4, work=100.0, interval=100.0)
    fleet = replace(fleet, mean_uptime=math.inf, checkpoint_bytes=0, checkpoint_ops=10, ops=2.0)
    outcome = simulate(fleet)
    assert outcome.makespan == pytest.approx(30 + 100 + 4 * 5)
    assert outcome.metadata_ops == 40


def test_a_seed_repeats_a_fleet() -> None:
    fleet = replace(ALONE, searches=20)
    assert simulate(fleet) == simulate(fleet) != simulate(replace(fleet, seed=1))
