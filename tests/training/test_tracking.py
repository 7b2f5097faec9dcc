"""What TensorBoard is told of a run as a whole."""

from nas.training.tracking import compared_settings, result_text, run_text

SETTINGS = {
    "seed": 3,
    "epochs": 50,
    "run_dir": "runs/x",
    "device": "cpu",
    "resume": None,
    "space": {
        "name": "darts",
        "arguments": {},
        "channels": 16,
        "operations": ["none", "skip_connect"],
    },
    "sampler": {"name": "gdas", "temperature_start": 10.0},
    "weights": {"name": "sgd", "learning_rate": 0.025},
    "benchmark": {"nasbench201": "table.csv", "epochs": 200},
}


def test_compared_are_what_a_run_is_and_what_was_given() -> None:
    overrides = ["experiment=demo", "space=darts", "space.channels=16", "run_dir=runs/x"]
    shown, first = compared_settings(SETTINGS, overrides)
    assert shown == {
        "experiment": "demo",
        "seed": 3,
        "epochs": 50,
        "space.name": "darts",
        "space.channels": 16,
        "sampler.name": "gdas",
        "weights.learning_rate": 0.025,
    }
    assert first == ["experiment", "space.name", "space.channels"]


def test_where_a_run_is_is_not_compared() -> None:
    given = ["run_dir=runs/x", "device=cpu", "benchmark.nasbench201=table.csv", "~experiment"]
    shown, first = compared_settings(SETTINGS, given)
    assert first == []
    assert not {"run_dir", "device", "benchmark.nasbench201", "experiment"} & set(shown)


def test_runs_of_a_sweep_have_the_same_columns() -> None:
    columns = set()
    for channels in (8, 16):
        settings = {**SETTINGS, "space": {"name": "darts", "channels": channels}}
        shown, _ = compared_settings(settings, [f"space.channels={channels}"])
        columns.add(tuple(shown))
    assert len(columns) == 1


def test_texts_say_how_a_run_was_started_and_what_it_came_to() -> None:
    text = run_text("search", SETTINGS, ["space=darts", "data.path=a folder"])
    assert text.startswith("    python search.py space=darts 'data.path=a folder'\n")
    assert "| space.channels | <code>16</code> |" in text
    assert "resume" not in text and "arguments" not in text, "nothing is set there"
    # A bar of a genotype would end the cell of the table.
    text = result_text([("genotype", "|none~0|")])
    assert "&#124;none~0&#124;" in text
    assert all(line.count("|") == 3 for line in text.splitlines())
