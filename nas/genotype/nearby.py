"""What a user may have meant by the path of a genotype that does not exist."""

from collections.abc import Iterable
from contextlib import suppress
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path

from nas.deploy.description import GENOTYPE

RUNS = (f"runs/*/{GENOTYPE}", f"runs/*/*/{GENOTYPE}")
"""Where runs are unless the user says otherwise; those of a sweep are too many to look at."""
_CUTOFF = 0.5


def nearest_genotype(path: Path, names: Iterable[str]) -> str | None:
    """The nearest to `path` of the names, the paths around it and the runs; None if none is near.

    Args:
        path: That does not exist.
        names: Of genotypes that have one.
    """
    # `runs/search/mine/genotype.json` is known by `mine`, as `mine.json` is.
    word = path.parent.name if path.name == GENOTYPE else path.name.removesuffix(".json")
    found = [(max(_likeness(w, name) for w in (word, str(path))), name) for name in names]
    with suppress(OSError):  # a folder that is closed to us
        within = _newest_in(path.parent, f"*/{GENOTYPE}") if path.name == GENOTYPE else []
        if within:  # the folder exists and has runs of its own
            return str(within[0])
        corrected = _corrected(path)
        if corrected is not None:
            found.append((_likeness(str(path), str(corrected)), str(corrected)))
        runs = [run for pattern in RUNS for run in _newest_in(Path(), pattern)]
        found += [(_likeness(word, run.name), str(run)) for run in runs]
    likeness, nearest = max(found, default=(0.0, ""))
    return nearest if likeness >= _CUTOFF else None


def _likeness(one: str, other: str) -> float:
    return SequenceMatcher(None, one.lower(), other.lower()).ratio()


def _newest_in(folder: Path, pattern: str) -> list[Path]:
    """The folders of the genotypes that match, the newest first."""
    files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime, reverse=True)
    return [file.parent for file in files]


def _corrected(path: Path) -> Path | None:
    """The path with each part that does not exist replaced by the nearest beside it.

    None where nothing is near, or where that leads to no genotype.
    """
    found = Path()
    for part in path.parts:
        if not (found / part).exists():
            beside = [entry.name for entry in found.iterdir()] if found.is_dir() else []
            close = get_close_matches(part, beside, n=1, cutoff=_CUTOFF)
            if not close:
                return None
            part = close[0]
        found = found / part
    is_genotype = found.suffix == ".json" and found.is_file()
    return found if is_genotype or (found / GENOTYPE).is_file() else None
