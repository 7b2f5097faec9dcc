"""Schema of the settings of `profile_space.py`."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from conf.ranges import at_least
from nas.data import DataSettings
from nas.errors import unknown_name
from nas.training.run import PRECISIONS


@dataclass(kw_only=True, slots=True)
class ProfileConfig:
    """Settings of `profile_space.py`."""

    seed: int = 0  # of the networks that are drawn
    batch_size: int = 1  # images at a time
    in_channels: int | None = None  # of the images; null: those of the data
    image_size: int | None = None  # pixels a side; null: that of the data
    num_classes: int | None = None  # with all three given no data is opened
    device: str = "auto"  # auto, cpu, cuda or cuda:<number>
    threads: int | None = None  # CPU threads that share an operation; null: as many as cores
    precision: str = "float32"  # float32, tf32 (rounds in products on a GPU) or bf16 (autocast)
    channels_last: bool = True  # memory layout of images and weights
    repetitions: int = 50  # measurements of each operation and network
    num_calibration: int = 12  # networks that the calibration is fitted on
    num_checked: int = 50  # further networks, on which predictions are checked
    output: str | None = None  # file of the table; null: latency.json in the folder of the run
    run_dir: str = MISSING  # folder of the run
    space: Any = MISSING  # what is measured
    data: DataSettings = MISSING  # whose images

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(unknown_name("precision", self.precision, PRECISIONS, "precision"))
        at_least("", self, seed=0, batch_size=1, repetitions=1, num_calibration=2, num_checked=1)
        for name in ("in_channels", "image_size", "num_classes", "threads"):
            if getattr(self, name) is not None:
                at_least("", self, **{name: 1})
