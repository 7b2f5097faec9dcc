"""What the folder of a run holds, read without running anything: settings, metrics, results."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from nas.cost.costs import UNITS
from nas.deploy.description import DESCRIPTION, GENOTYPE, ModelDescription
from nas.errors import UserError, reason
from nas.genotype import Genotype
from nas.monitor.history import History
from nas.monitor.run_log import METRICS_FILE
from nas.nested import flat_texts
from nas.sweep import SUMMARY, Result

NOT_A_SETTING = ("seed", "run_dir", "resume")
"""What may differ between runs of the same settings."""

COUNTED = ("num_parameters", "multiply_adds")
"""What the summary of a retraining counts in its network."""

Settings = dict[str, str]
"""Values as YAML writes them, by dotted key."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One run as its folder tells it.

    Attributes:
        folder: Of the run.
        kind: `search` or `retrain`.
        metrics: Lines of `metrics.jsonl`, one an epoch; a value that was not finite is NaN.
        settings: All of them; empty if the folder has no `.hydra`.
        defaults: Those of the groups that were chosen; empty where they were not kept.
        overrides: Of the command line.
        result: What a finished run came to; None until then.
        facts: Content of `summary.json`; empty until then.
        genotype: What was derived or trained, once the run is finished.
        description: Content of `model.json` of a retraining.
        last_words: The last line of the log of an unfinished run.
    """

    folder: Path
    kind: str
    metrics: Sequence[Mapping[str, float]]
    settings: Settings
    defaults: Settings
    overrides: Sequence[str]
    result: Result | None
    facts: Mapping[str, Any]
    genotype: Genotype | None
    description: Mapping[str, Any]
    last_words: str

    @property
    def is_finished(self) -> bool:
        """Whether the run has written its results."""
        return self.result is not None

    @property
    def epochs_done(self) -> int:
        """Epochs that the metrics tell of."""
        return int(self.metrics[-1]["epoch"]) + 1 if self.metrics else 0

    @property
    def results(self) -> dict[str, float]:
        """Final metrics by name; the last ones that were logged if the run is unfinished."""
        if self.result is not None:
            return self.result.metrics
        names = {"search": ("accuracy/genotype_validation",), "retrain": ("accuracy/test_top1",)}
        found = {name: self.last(name) for name in names[self.kind]}
        return {name: value for name, value in found.items() if not math.isnan(value)}

    @property
    def seconds(self) -> float:
        """How long the run took; NaN until it is finished."""
        return math.nan if self.result is None else self.result.seconds

    @property
    def moment(self) -> str:
        """When the last metrics were written."""
        path = self.folder / METRICS_FILE
        when = path.stat().st_mtime if path.exists() else self.folder.stat().st_mtime
        return datetime.fromtimestamp(when).strftime("%Y-%m-%d %H:%M")

    @property
    def group(self) -> tuple[tuple[str, str], ...]:
        """What it shares with runs that differ in nothing but the seed."""
        pairs = self.settings or dict(_pair(override) for override in self.overrides)
        return tuple((k, v) for k, v in pairs.items() if k not in NOT_A_SETTING)

    @property
    def cost(self) -> str:
        """What the budget of a search counts, with its unit; empty where it has none."""
        name = self.settings.get("budget.name", "none")
        words = "" if name == "none" else name.replace("_", " ")
        return ", ".join(filter(None, [words, UNITS.get(name)]))

    @property
    def history(self) -> History:
        """Of the probabilities; empty but for a search."""
        return History.of_metrics(self.metrics)

    @property
    def network(self) -> ModelDescription | None:
        """What a retraining has trained, once it is finished.

        Raises:
            UserError: its `model.json` is damaged.
        """
        return ModelDescription.load(self.folder / DESCRIPTION) if self.description else None

    def curve(self, name: str) -> list[tuple[float, float]]:
        """Points (epochs done, value) of a metric, without those that are not finite."""
        points = ((line["epoch"] + 1, line.get(name, math.nan)) for line in self.metrics)
        return [point for point in points if math.isfinite(point[1])]

    def last(self, name: str) -> float:
        """The last finite value of a metric, else NaN."""
        curve = self.curve(name)
        return curve[-1][1] if curve else math.nan

    def choices(self) -> dict[str, list[str]]:
        """Options of each choice whose probabilities were logged."""
        found: dict[str, list[str]] = {}
        for line in self.metrics[:1]:
            for name in line:
                if name.startswith("probability/"):
                    choice, _, option = name.removeprefix("probability/").rpartition("/")
                    found.setdefault(choice, []).append(option)
        return found

    def rows_of(self, name: str) -> list[dict[str, str]]:
        """Rows of a table (CSV) in the folder; none if it is not there."""
        path = self.folder / name
        if not path.exists():
            return []
        with _reading(path).open(encoding="utf-8", newline="") as file:
            try:
                rows = [dict(row) for row in csv.DictReader(file)]
            except (csv.Error, UnicodeDecodeError) as error:
                raise UserError(f"{path}: not a table ({error})") from None
        # Of a line with too many cells a key is None, of one with too few a value.
        return [row for row in rows if None not in row and None not in row.values()]

    @classmethod
    def load(cls, folder: Path) -> "RunRecord":
        """Reads the folder of a search or a retraining.

        Raises:
            UserError: it is not one, it has no metrics yet, or one of its files is damaged.
        """
        metrics = read_metrics(folder / METRICS_FILE)
        if not metrics:
            raise UserError(
                f"{folder}: no metrics yet ({METRICS_FILE} is missing or empty): the run has not "
                "finished an epoch"
            )
        result = Result.load(folder / SUMMARY) if (folder / SUMMARY).exists() else None
        facts = _json(folder / SUMMARY)
        for name in COUNTED:
            if not isinstance(facts.get(name, 0), int | float):
                raise UserError(f"{folder / SUMMARY}: '{name}' is no number")
        given = _list(folder / ".hydra" / "overrides.yaml")
        kind = str(facts.get("kind") or _kind(metrics))
        if kind not in ("search", "retrain"):
            raise UserError(f"{folder}: neither a search nor a retraining, but {kind!r}")
        has_genotype = result is not None and (folder / GENOTYPE).exists()
        return cls(
            folder=folder,
            kind=kind,
            metrics=metrics,
            settings=flat_texts(_yaml(folder / ".hydra" / "config.yaml")),
            defaults=flat_texts(_yaml(folder / ".hydra" / "defaults.yaml")),
            overrides=tuple(map(str, given)) if result is None else result.overrides,
            result=result,
            facts=facts,
            genotype=Genotype.load(folder / GENOTYPE) if has_genotype else None,
            description=_json(folder / DESCRIPTION),
            last_words="" if result else _last_line(folder / f"{kind}.log"),
        )


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The folders of all runs in and below `paths`, in natural order (2 before 10).

    Raises:
        UserError: a path is no folder, or has no run.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise UserError(f"no such folder: {path}")
        if not path.is_dir():
            raise UserError(f"{path} is a file: give the folder of a run, or one with runs in it")
        below = {p.parent for name in (METRICS_FILE, SUMMARY) for p in path.rglob(name)}
        runs = [path] if path in below else sorted(below, key=_natural)
        if not runs and (path / ".hydra").is_dir():
            runs = [path]  # it has begun
        if not runs:
            raise UserError(f"{path}: not a run folder, and none below (no {METRICS_FILE})")
        found |= dict.fromkeys(runs)
    return list(found)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The lines of a `metrics.jsonl` that tell of an epoch; a last line that is cut is left out.

    Raises:
        UserError: a line is damaged; with its number.
    """
    if not path.exists():
        return []
    lines = _reading(path).read_text(encoding="utf-8", errors="replace").splitlines()
    metrics = []
    for number, text in enumerate(lines, start=1):
        try:
            line = {k: math.nan if v is None else float(v) for k, v in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: not a line of metrics") from None
        if math.isfinite(line.get("epoch", math.nan)):
            metrics.append(line)
    return metrics


def _kind(metrics: Iterable[Mapping[str, float]]) -> str:
    """What an unfinished run is, by what it logs."""
    return "retrain" if any("accuracy/train_top1" in line for line in metrics) else "search"


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+").partition("=")
    return key, value


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in path.parts]


def _reading(path: Path) -> Path:
    """`path`, if it can be read.

    Raises:
        UserError: it cannot.
    """
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _json(path: Path) -> Mapping[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(_reading(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be an object of JSON")
    return content


def _read_yaml(path: Path) -> Any:
    if not path.exists():
        return None
    try:
        return yaml.safe_load(_reading(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: not valid YAML ({reason})") from None


def _yaml(path: Path) -> Mapping[str, Any]:
    return _mapping(_read_yaml(path))


def _list(path: Path) -> list[Any]:
    content = _read_yaml(path)
    return content if isinstance(content, list) else []


def _last_line(path: Path) -> str:
    """The last line of a log that says something."""
    if not path.exists():
        return ""
    text = _reading(path).read_bytes()[-20_000:].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
