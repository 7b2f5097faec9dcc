"""Settings of a data set, and what is known of it once it is loaded."""

from dataclasses import dataclass

from nas.errors import unknown_name

STORAGES = ("auto", "memory", "stream")


@dataclass(kw_only=True, slots=True)
class DataSettings:
    """Which images, how they are split and augmented.

    Attributes:
        name: Name of the data set.
        path: Folder of the data; where downloads go.
        download: Fetch the data if it is not there (torchvision's data sets).
        image_size: Pixels a side; null keeps the size of the images.
        mean: Mean of each channel, pixels scaled to [0, 1]; null computes it.
        std: Standard deviation likewise.
        crop_padding: Random crops after padding by this many black pixels; 0 is off.
        flip: Random horizontal flips.
        cutout: Side of a random square that is blanked (arXiv:1708.04552); 0 is off.
        validation_fraction: Share of the training images that a search uses for the logits.
        test_fraction: Share held out as test images where a folder has no split of its own.
        storage: `memory` (uint8 on the device), `stream` (decoded by workers) or `auto`.
        memory_limit_mib: Up to this size `auto` takes memory.
        num_workers: Worker processes of a stream.
        limit: Use only this many training images, the same share of each class; null for all.
    """

    name: str = "digits"
    path: str | None = None
    download: bool = True
    image_size: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    validation_fraction: float = 0.5
    test_fraction: float = 0.2
    storage: str = "auto"
    memory_limit_mib: int = 2048
    num_workers: int = 2
    limit: int | None = None

    def __post_init__(self) -> None:
        """Checks ranges; a ValueError names the dotted key, the value and the remedy."""
        for key in ("validation_fraction", "test_fraction"):
            if not 0 < getattr(self, key) < 1:
                raise ValueError(f"data.{key} is {getattr(self, key)}: must lie between 0 and 1")
        for key in ("crop_padding", "cutout", "num_workers", "memory_limit_mib"):
            if getattr(self, key) < 0:
                raise ValueError(f"data.{key} is {getattr(self, key)}: must not be negative")
        for key, lowest in (("image_size", 1), ("limit", 4)):
            value = getattr(self, key)
            if value is not None and value < lowest:
                raise ValueError(f"data.{key} is {value}: must be at least {lowest}, or null")
        if (self.mean is None) != (self.std is None):
            raise ValueError("data.mean and data.std must be given together, or both be null")
        for key in ("mean", "std"):
            values = getattr(self, key) or ()
            if not all(0 <= value <= 1 for value in values) or (key == "std" and 0 in values):
                raise ValueError(
                    f"data.{key} is {list(values)}: must be for pixels from 0 to 1; divide by 255"
                )
        if self.storage not in STORAGES:
            raise ValueError(unknown_name("storage", self.storage, STORAGES, "data.storage"))


@dataclass(frozen=True)
class DataInfo:
    """What the rest of the program needs to know of the data.

    Attributes:
        name: Name of the data set.
        class_names: Names of the classes, in the order of the labels.
        in_channels: Channels of an image.
        image_size: Pixels a side.
        mean: By channel, of pixels scaled to [0, 1].
        std: Likewise.
        num_train: Images the weights are trained on.
        num_validation: Images the logits are trained on; None in a retraining.
        num_test: Images of the test set; None in a search, which never sees them.
        resize: How an image of another size is brought to `image_size`; a name in
            `nas.data.preprocessing.RESIZES`.
    """

    name: str
    class_names: tuple[str, ...]
    in_channels: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_train: int
    num_validation: int | None = None
    num_test: int | None = None
    resize: str = "fit"

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)
