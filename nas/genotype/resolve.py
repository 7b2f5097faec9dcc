"""Turns what a user writes for `genotype=` into a genotype."""

from pathlib import Path

from nas.deploy.description import GENOTYPE
from nas.errors import UserError, as_question, listing_allowed
from nas.genotype import Genotype
from nas.genotype.nearby import nearest_genotype
from nas.genotype.published import PUBLISHED
from nas.genotype.text import parse_darts, parse_nasbench201


def resolve_genotype(text: str) -> Genotype:
    """Reads a genotype from a file, a text form or the name of a published cell.

    Args:
        text: Path of a `genotype.json` or of a run folder that holds one; a NAS-Bench-201 string;
            a DARTS `Genotype(...)` text; or a name in `PUBLISHED`.

    Raises:
        UserError: it is none of these, or does not parse.
    """
    text = text.strip()
    if text.startswith("|"):
        return parse_nasbench201(text)
    if text.startswith("Genotype"):
        return parse_darts(text)
    if text in PUBLISHED:
        return PUBLISHED[text]
    path = Path(text)
    try:
        if path.is_dir():
            if not (path / GENOTYPE).exists() and (path / "checkpoints").is_dir():
                raise UserError(
                    f"genotype: {path} has no {GENOTYPE} yet: the run there has not ended, go on "
                    f"with run_dir={path} resume=true"
                )
            path = path / GENOTYPE
        exists = path.exists()
    except OSError as error:  # a text that is too long for a path, a folder that is closed to us
        raise UserError(f"genotype: cannot read {text!r}: {error.strerror}") from None
    if exists:
        return Genotype.load(path)
    hint = as_question(nearest_genotype(path, PUBLISHED))
    if path.suffix == ".json" or len(path.parts) > 1:
        raise UserError(f"genotype: no such file: {path}{hint}")
    raise UserError(
        f"genotype: {listing_allowed('published cell', text, PUBLISHED)}; or give a genotype.json, "
        f"a NAS-Bench-201 string or a DARTS Genotype(...) text{hint}"
    )
