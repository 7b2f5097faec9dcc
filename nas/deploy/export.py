"""The folder that `export.py` writes: complete, or not at all."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from nas.deploy import formats
from nas.deploy.card import PICTURE, model_card
from nas.deploy.description import DESCRIPTION, GENOTYPE, WEIGHTS, ModelDescription
from nas.deploy.load import ModelOrName, TrainedModel
from nas.deploy.weights import write_weights
from nas.errors import UserError, reason
from nas.files import replace_text
from nas.monitor.drawing import save_genotype_picture

CARD = "README.md"
ALWAYS = (WEIGHTS, GENOTYPE, DESCRIPTION, PICTURE, CARD)
POSSIBLE = (*ALWAYS, *(each.file for each in formats.FORMATS.values()))


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is exported, and where to.

    Attributes:
        source: Folder of a finished retraining, or of an export.
        output: Folder that is written. An export that is there is replaced; other files in it stay.
        formats: Names in `nas.deploy.formats.FORMATS`, besides the safetensors.
        tolerance: How far a format may be from the network, as a share of the largest logit.
        model: See `nas.load`.
        trust_recorded_model: Likewise.
    """

    source: Path
    output: Path
    formats: Sequence[str] = ()
    tolerance: float = 1e-4
    model: ModelOrName | None = None
    trust_recorded_model: bool = False

    def write(self) -> ModelDescription:
        """Writes the folder; returns its description, with the differences that were found.

        Raises:
            UserError: the source is no trained network, the output cannot be written or has
                something else in it, or a format is missing a package or too far from the network.
        """
        for name in self.formats:
            formats.FORMATS[name].check()
        trained = TrainedModel.read(self.source)
        output = self.output.expanduser()
        _check_output(self.source, output)
        network = trained.network(self.model, trust_recorded_model=self.trust_recorded_model)
        # Beside it, so that it can be renamed; not `.tmp`, which a run in the same place clears up.
        building = output.absolute().with_name(f".{output.absolute().name}.{os.getpid()}.new")
        try:
            building.mkdir(parents=True)
            description = self._write_to(building, trained, network)
            _put_in_place(building, output)
        except OSError as error:
            raise UserError(f"cannot write {output}: {reason(error)}") from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return description

    def _write_to(
        self, folder: Path, trained: TrainedModel, network: nn.Module
    ) -> ModelDescription:
        description = replace(trained.description, differences={})
        images = description.preprocessing
        differences = {}
        if self.formats:
            program = formats.trace(network, images)
            for name in self.formats:
                path = folder / formats.FORMATS[name].file
                formats.write(name, program, description.to_json(), path)
                differences[name] = formats.compare(name, path, network, images)
                formats.check(name, differences[name], self.tolerance)
        description = replace(description, differences=differences)
        write_weights(network, folder / WEIGHTS)
        replace_text(folder / GENOTYPE, trained.genotype.to_json())
        save_genotype_picture(trained.genotype, folder / PICTURE)
        replace_text(folder / CARD, model_card(trained.genotype, description))
        replace_text(folder / DESCRIPTION, description.to_json())
        return description


def _check_output(source: Path, output: Path) -> None:
    """Raises a `UserError` where an export would overwrite something else."""
    if output.exists() and not output.is_dir():
        raise UserError(f"output: {output} is a file, not a folder")
    if not output.is_dir():
        return
    if output.resolve() == source.expanduser().resolve():
        raise UserError(f"output: {output} is the folder that is exported: give another one")
    if (output / "checkpoints").exists():
        raise UserError(f"output: {output} is the folder of a run: give another one")
    if any(output.iterdir()) and not (output / DESCRIPTION).exists():
        raise UserError(
            f"output: {output} has other files in it and is no earlier export: give another one"
        )


def _put_in_place(building: Path, output: Path) -> None:
    """Makes `building` the folder `output`, or moves its files there, the description last.

    Without its description a folder is no export: nobody takes the files of two for one.
    """
    for path in building.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if not output.exists():
        os.rename(building, output)
        return
    written = sorted(building.iterdir(), key=lambda path: path.name == DESCRIPTION)
    stale = set(POSSIBLE) - {path.name for path in written}
    for name in (DESCRIPTION, *stale):
        (output / name).unlink(missing_ok=True)
    for path in written:
        os.replace(path, output / path.name)
