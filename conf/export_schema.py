"""Schema of the settings of `export.py`."""

from dataclasses import dataclass

from omegaconf import MISSING

from nas.deploy.formats import FORMATS
from nas.errors import unknown_name

SAFETENSORS = "safetensors"


@dataclass(kw_only=True, slots=True)
class ExportConfig:
    """Settings of `export.py`."""

    run: str = MISSING  # folder of a finished retraining, or of an export
    output: str | None = None  # folder that is written; null: `export` in that of the retraining
    formats: list[str] | None = None  # safetensors is always written; null: all that go here
    tolerance: float = 1e-4  # largest difference of a logit, as a share of the largest logit
    model: str | None = None  # custom: the class that was trained; it is imported, and so run
    trust_recorded_model: bool = False  # custom: import the class that the run names
    threads: int | None = None  # CPU threads that share an operation; null: as many as cores
    run_dir: str = MISSING  # folder of the log

    def __post_init__(self) -> None:
        for name in self.formats or ():
            if name not in (SAFETENSORS, *FORMATS):
                raise ValueError(unknown_name("format", name, [SAFETENSORS, *FORMATS], "formats"))
        if not self.tolerance > 0:
            raise ValueError(f"tolerance is {self.tolerance}: must be positive")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"threads is {self.threads}: must be at least 1")
