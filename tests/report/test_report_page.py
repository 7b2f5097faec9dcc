"""The page: what is on it, that it needs nothing else, that no text of a file becomes HTML."""

import json
import re
import statistics
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_helpers import TEXT, write_search

from nas.genotype import Genotype
from nas.report.__main__ import main
from nas.report.comparison import mean_and_deviation

EVIL = "<script>alert('x')</script>\"><img src=x onerror=y>"
VOID = ("img", "meta", "source", "br", "wbr")


class _Checker(HTMLParser):
    """Notes every element and address; elements must be closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "srcset"):
                self.addresses.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and re.fullmatch("h[1-4]", self.open[-1]):
            self.headings.append(data)


def checked(path: Path) -> tuple[str, _Checker]:
    page = path.read_text()
    checker = _Checker()
    checker.feed(page)
    assert checker.open == []
    assert not {"script", "link", "iframe", "object", "form"} & checker.tags
    for address in checker.addresses:
        local = address.startswith("#") and address[1:] in checker.ids
        kinds = ("data:image/svg+xml;base64,", "data:image/png;base64,")
        assert local or address.startswith(kinds), address[:80]
    assert "url(" not in page and "@import" not in page
    return page, checker


def test_a_search_has_all_its_sections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_search(tmp_path / "run", defaults={"epochs": 50})
    assert main([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    page, checker = checked(run / "report.html")
    assert checker.headings[0] == "Search in nasbench201 on digits, unknown"
    for name in ("Genotype", "Cells", "Curves", "Probabilities", "Choices", "Settings", "Commands"):
        assert name in checker.headings
    assert "91.25 %" in page and "75 s" in page and TEXT in page
    assert "9.9.9" in page and "cpu: of a test" in page
    assert "nor_conv_3x3 from node 0 to 1" in page  # of the picture, for those who do not see it
    assert "python search.py epochs=3" in page
    assert f"retrain.py genotype={run}/genotype.json<" in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_a_cost_is_named_with_its_unit(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run", settings={"budget": {"name": "latency"}})
    for name, key in (("metrics.jsonl", ""), ("summary.json", "metrics")):
        lines = [json.loads(line) for line in (run / name).read_text().splitlines()]
        for line in lines:
            (line[key] if key else line)["budget/cost"] = 12.5
        (run / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    main([str(run)])
    page, _ = checked(run / "report.html")
    assert "<b>12.5</b><span>cost of the genotype: latency, ms<" in page
    assert "<figcaption>cost: latency, ms<" in page


def test_the_front_names_the_unit_of_the_cost(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run", settings={"budget": {"name": "activation_memory"}})
    rows = ["activation_memory,validation_accuracy,on_front,architecture", "11,50,1,a", "12,60,1,b"]
    (run / "front.csv").write_text("\n".join(rows))
    main([str(run)])
    page, _ = checked(run / "report.html")
    assert "<figcaption>validation accuracy, %, against activation memory, KiB<" in page
    assert '<th scope="col" class="number">activation memory, KiB<' in page


def test_layers_are_no_cells(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run")
    layers = Genotype("mobilenet", ("skip", "k3_e3"), {"stage1/layer1": "k3_e3"})
    (run / "genotype.json").write_text(layers.to_json())
    main([str(run)])
    _, checker = checked(run / "report.html")
    assert "Architecture" in checker.headings and "Cells" not in checker.headings


def test_settings_that_differ_or_were_given_are_marked(tmp_path: Path) -> None:
    settings = {"batch_size": 7, "threads": 3, "run_dir": "runs/x"}
    run = write_search(
        tmp_path / "run",
        settings=settings,
        defaults={"epochs": 50, "batch_size": 64, "threads": 3, "run_dir": "${x:y}"},
    )
    main([str(run)])
    page = (run / "report.html").read_text()
    rows = re.findall(r"<div( class=\"[^\"]*\")?( title=\"[^\"]*\")?><dt>(\w+)</dt>", page)
    classes = {name: (kind, title) for kind, title, name in rows}
    assert classes["epochs"] == (' class="changed given"', ' title="default 50"')
    assert classes["batch_size"] == (' class="changed"', ' title="default 64"')
    assert classes["threads"] == ("", "") and classes["run_dir"] == ("", "")


def test_texts_of_files_never_become_html(tmp_path: Path) -> None:
    for finished in (True, False):
        run = write_search(
            tmp_path / f"{finished}<b>",
            settings={EVIL: EVIL, "data": {"name": EVIL}, "space": {"name": EVIL}},
            defaults={EVIL: "y"},
            overrides=[f"space={EVIL}"],
            finished=finished,
            text=EVIL,
        )
        (run / "search.log").write_text(EVIL)
        (run / "candidates.csv").write_text(f"architecture,score\n{EVIL.replace(',', '')},1\n")
        text = (run / "metrics.jsonl").read_text().replace("nor_conv_3x3", "<script>z<|script>")
        (run / "metrics.jsonl").write_text(text)
        assert main([str(run)]) == 0
        page, _ = checked(run / "report.html")
        assert "&lt;script&gt;" in page
    assert main([str(tmp_path)]) == 0
    checked(tmp_path / "report.html")


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run", settings={"epochs": 10}, finished=False)
    (run / "search.log").write_text("first\nstopped by SIGINT after step 30\n")
    assert main([str(run)]) == 0
    page, checker = checked(run / "report.html")
    assert "unfinished: 3 of 10 epochs" in page and "stopped by SIGINT after step 30" in page
    assert "Curves" in checker.headings and "Cells" not in checker.headings
    assert "The most probable options so far" in page
    assert f"python search.py run_dir={run} resume=true" in page


@pytest.mark.parametrize("finished", [False, True])
def test_a_model_of_ones_own_is_named_where_a_run_goes_on(tmp_path: Path, finished: bool) -> None:
    overrides = ("space=custom", "space.model=my_net.MyNet", "space.arguments.depth=2")
    run = write_search(tmp_path / "run", overrides=overrides, finished=finished)
    assert main([str(run)]) == 0
    more = " derive=sampled" if finished else ""
    expected = f"python search.py run_dir={run} resume=true space.model=my_net.MyNet{more}<"
    assert expected in (run / "report.html").read_text()


def test_several_runs_are_compared_by_their_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"a": (90.0, 92.0, 97.0), "b": (50.0,)}
    for name, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies):
            settings = {"seed": seed, "run_dir": f"x{seed}", "sampler": {"name": name}}
            if name == "b":
                settings["sampler"]["ancilla"] = 1  # an option that the other does not have
            write_search(tmp_path / f"{name}{seed}", accuracy=accuracy, settings=settings)
    write_search(tmp_path / "c", settings={"sampler": {"name": "b"}}, finished=False)
    (tmp_path / "d" / ".hydra").mkdir(parents=True)
    (tmp_path / "d" / "metrics.jsonl").touch()
    assert main([str(tmp_path)]) == 0
    assert "left out" in capsys.readouterr().err
    page, checker = checked(tmp_path / "report.html")
    deviation = statistics.stdev(values["a"])
    assert f"93.00 ± {deviation:.2f} %" in page and "90.00 to 97.00" in page
    assert (
        ">sampler=a<" in page and ">sampler=b<" in page and "ancilla" not in page.split("Each")[0]
    )
    assert "1 of 2" in page
    assert page.count("<details") == 5 and [f"run-{i}" for i in range(5)] == checker.ids


def test_output_goes_where_it_is_asked_for(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run")
    assert main([str(run), "--output", str(tmp_path / "new" / "page.html")]) == 0
    checked(tmp_path / "new" / "page.html")
    other = write_search(tmp_path / "other")
    assert main([str(run), str(other)]) == 0
    checked(tmp_path / "report.html")


def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "begun" / ".hydra").mkdir(parents=True)
    run = write_search(tmp_path / "run")
    for arguments in (
        [str(tmp_path / "none")],
        [str(tmp_path / "begun")],
        [str(run), "--output", str(run)],
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    "front", ["a,b\n1,2\n", "a,b,c,d\n1,2,0,x\n", "a,b,c,d\nx,2,1,x\n", "a,b,c,d\n1,nan,1,x\n"]
)
def test_a_damaged_front_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], front: str
) -> None:
    run = write_search(tmp_path / "run")
    (run / "front.csv").write_text(front)
    assert main([str(run)]) == 1
    message = f"error: {run / 'front.csv'}: not a front of costs and accuracies\n"
    assert capsys.readouterr().err == message


def test_lines_of_tables_that_are_cut_are_left_out(tmp_path: Path) -> None:
    run = write_search(tmp_path / "run")
    (run / "candidates.csv").write_text("architecture,standing\nwhole,0.5\ncut")
    assert main([str(run)]) == 0
    page, _ = checked(run / "report.html")
    assert "The best 1 of 1 that were judged" in page


def test_mean_and_deviation_are_those_of_papers() -> None:
    assert mean_and_deviation("accuracy/test_top1", [90.0]) == "90.00 %"
    assert mean_and_deviation("accuracy/test_top1", [90.0, 92.0]) == "91.00 ± 1.41 %"
    assert mean_and_deviation("budget/cost", [1e6, 3e6]) == "2 ± 1.4 M"
