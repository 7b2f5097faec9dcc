"""What a run came to, as Python sees it."""

from pathlib import Path

from nas.genotype import Genotype
from nas.outcome import RetrainResult
from nas.report.records import RunRecord
from nas.sweep import Result


def retrained(**metrics: float) -> RetrainResult:
    """A retraining with these final metrics, and one epoch that logged the same."""
    final = {f"accuracy/{name}": value for name, value in metrics.items()}
    genotype = Genotype("darts", (), {})
    record = RunRecord(
        folder=Path("run"),
        kind="retrain",
        metrics=[{"epoch": 0.0, "loss/train": 1.0, **final}],
        settings={},
        defaults={},
        overrides=(),
        result=Result(Path("run"), (), final, "", 1.0),
        facts={"num_parameters": 7},
        genotype=genotype,
        description={},
        last_words="",
    )
    return RetrainResult(Path("run"), genotype, record)


def test_accuracy_is_that_of_the_weights_that_are_kept() -> None:
    assert retrained(test_top1=90.0, test_top5=99.0).accuracy == 90.0
    averaged = retrained(test_top1=90.0, test_top5=99.0, test_top1_ema=91.5)
    assert averaged.accuracy == 91.5 and "91.50 %" in repr(averaged)


def test_plot_has_the_curve_of_the_moving_average() -> None:
    figure = retrained(test_top1=90.0, test_top1_ema=91.5).plot().figure
    labels = {line.get_label() for axes in figure.axes for line in axes.get_lines()}
    assert {"test top1", "test top1 ema"} <= labels
